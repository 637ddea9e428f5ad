"""Feature-level fusion by products: tensor product, Hadamard product, compact bilinear pooling."""

from numbers import Integral

import numpy as np
from scipy import fft, sparse
from sklearn.utils import check_random_state, gen_batches

from .._columns import column_means
from .._sklearn import Interval, StrOptions
from .._typing import Blocks, RandomState
from ._base import SCALING
from ._imputer import ImputedBlockTransformer
from ._moments import take_rows
from .projection import principal_axes

# Rows whose Fourier transforms are in memory at once.
_BATCH = 512
# Roundings, per halving of the length, that a Fourier transform may add to a number, relative to the length of its row.
_ROUNDINGS = 4


class ProductFusion(ImputedBlockTransformer):
    r"""Multiply the blocks, so that a linear model sees how modalities interact.

    With a 1 put before each block, the tensor product of all blocks,

    .. math:: z = \begin{pmatrix}1\\x_1\end{pmatrix} \otimes \dots \otimes \begin{pmatrix}1\\x_m\end{pmatrix},
              \qquad \langle z, z' \rangle = \prod_{b=1}^m (1 + \langle x_b, x'_b \rangle),

    holds the columns of every block, and all products of columns of two, three, ... blocks. ``"outer"``
    computes it, ``"hadamard"`` and ``"compact"`` are random sketches of it in fewer dimensions, whose inner
    products equal those of z in expectation.

    Parameters
    ----------
    method : {"outer", "hadamard", "compact"}, default="outer"
        - ``"outer"``: the tensor product, each block reduced to few principal components before.
        - ``"hadamard"``: blocks are mapped to a common dimension by random signs, 1 is added, and they are
          multiplied element by element.
        - ``"compact"``: count sketches of the blocks, with the 1 in the first place, are convolved by
          way of fast Fourier transforms.

    n_components : int, "auto" or None, default="auto"
        Upper bound of the principal components that each block is reduced to before; a block that has no
        more columns than this stays as it is. "auto": for ``"outer"`` the largest number with
        which the product fits into ``max_features``, none for the others. None: no reduction.

    max_features : int, default=2048
        Upper bound of the number of columns that come out of ``"outer"``, and their exact number for the
        other methods, whose error falls with its square root.

    scaling : {"norm", "std"} or None, default="norm"
        How the blocks are scaled before, as in :class:`ConcatFusion`, and then by one more factor to a
        total variance of 1 per block, so that products are of the size of the 1 and the columns
        themselves. None: columns are centred only.

    imputer : {"mean", "zero", "regression", "neighbors"}, ModalityImputer or None, default=None
        What fills in missing blocks before all else, as in :class:`ConcatFusion`. None: as the notes say.

    blocks : dict of str to slice or "prefix", default=None
        Columns of each block, as in :class:`ConcatFusion`, at least two.

    random_state : int, RandomState instance or None, default=None
        Seed of the sketches, and of the randomised solver as in :class:`PCAFusion`. Pass an int for
        output that is the same in every fit.

    Attributes
    ----------
    n_components_ : dict of str to int
        Number of columns of each block that enter the product.

    imputer_ : ModalityImputer or None
        What missing blocks are filled in by.

    blocks_ : dict of str to slice
        Columns of each block, closed.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    sklearn.kernel_approximation.PolynomialCountSketch : Of one block with itself.
    sklearn.preprocessing.PolynomialFeatures : Exact products of columns of one block.

    Notes
    -----
    **Missing blocks.** A missing block contributes the constant 1 only, so that a row is the product of
    the blocks that it has; a row without any block has products of ones. Principal components of a block
    are learned from the rows that have it.

    The first column of ``"outer"`` is the constant 1. With m blocks of k columns it has :math:`(1 + k)^m` columns: k is
    44 for two blocks in 2,048, but 2 for six blocks; sketches suit many blocks better.

    References
    ----------
    .. [1] A. Zadeh et al., "Tensor fusion network for multimodal sentiment analysis", EMNLP (2017).
    .. [2] P. Kar and H. Karnick, "Random feature maps for dot product kernels", AISTATS (2012).
    .. [3] N. Pham and R. Pagh, "Fast and scalable polynomial kernels via explicit feature maps", KDD (2013).
    .. [4] A. Fukui et al., "Multimodal compact bilinear pooling for visual question answering and visual grounding",
       EMNLP (2016).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.fusion import ProductFusion
    >>> X = np.array([[-1.0, -2.0, -3.0], [1.0, 2.0, 3.0], [1.0, 2.0, np.nan]])
    >>> blocks = {"a": slice(0, 2), "b": slice(2, 3)}
    >>> fusion = ProductFusion(scaling=None, blocks=blocks).fit(X[:2])
    >>> fusion.transform(X)
    array([[ 1., -3., -1.,  3., -2.,  6.],
           [ 1.,  3.,  1.,  3.,  2.,  6.],
           [ 1.,  0.,  1.,  0.,  2.,  0.]])
    """

    _parameter_constraints: dict = {
        **ImputedBlockTransformer._parameter_constraints,
        "method": [StrOptions({"outer", "hadamard", "compact"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        "max_features": [Interval(Integral, 1, None, closed="left")],
        "scaling": SCALING,
        "random_state": ["random_state"],
    }
    _min_blocks = 2

    def __init__(
        self,
        method: str = "outer",
        *,
        n_components: int | str | None = "auto",
        max_features: int = 2048,
        scaling: str | None = "norm",
        imputer: object = None,
        blocks: Blocks = None,
        random_state: RandomState = None,
    ):
        self.method = method
        self.n_components = n_components
        self.max_features = max_features
        self.scaling = scaling
        self.imputer = imputer
        self.blocks = blocks
        self.random_state = random_state

    def _fit_blocks(self, X, y):
        random_state = check_random_state(self.random_state)
        filled = self._fill(X)
        bound = self._resolve_bound()
        # Total variance of a block after scaling.
        self._unit = 1.0 if self.scaling is None else float(np.sqrt(X.shape[1] / len(self.blocks_)))
        self._maps, self.n_components_ = [], {}
        for (name, columns), rows in zip(self.blocks_.items(), ~self._missing(X).T, strict=True):
            block = take_rows(filled[:, columns], rows)
            reduced = block.shape[1] > bound
            mean, axes = principal_axes(block, bound, random_state) if reduced else (column_means(block), None)
            self._maps.append((mean, axes))
            self.n_components_[name] = axes.shape[1] if reduced else block.shape[1]
        widths = self.n_components_.values()
        if self.method == "hadamard":
            shapes = [(width, self.max_features) for width in widths]
            self._sketches = [random_state.choice([-1, 1], size=shape).astype(np.int8) for shape in shapes]
        elif self.method == "compact":
            self._sketches = [_count_sketch(width, self.max_features, random_state) for width in widths]

    def _resolve_bound(self):
        """Return the number of columns to which blocks are reduced."""
        widths = [columns.stop - columns.start for columns in self.blocks_.values()]
        bound = max(widths) if self.n_components in (None, "auto") else self.n_components
        if self.method != "outer":
            return bound
        fitting = bound
        while fitting > 0 and _product_width(widths, fitting) > self.max_features:
            fitting -= 1
        if fitting == 0:
            raise ValueError(
                f"ProductFusion: the tensor product of {len(widths)} blocks has at least "
                f"{_product_width(widths, 1)} columns, max_features is {self.max_features}; raise it, or use "
                "method='compact'."
            )
        if fitting < bound and self.n_components != "auto":
            raise ValueError(
                f"ProductFusion: with n_components={self.n_components} the tensor product of blocks of {widths} "
                f"columns has {_product_width(widths, bound)} columns, max_features is {self.max_features}; use "
                f"n_components={fitting} or less, raise max_features, or use method='compact'."
            )
        return fitting

    def _transform_blocks(self, X):
        filled = self._fill(X)
        factors = []
        for (mean, axes), columns, missing in zip(self._maps, self.blocks_.values(), self._missing(X).T, strict=True):
            factor = filled[:, columns] - mean.astype(X.dtype)
            factor = factor if axes is None else factor @ axes.astype(X.dtype)
            factors.append(factor * (~missing[:, None] / self._unit).astype(X.dtype))
        if self.method == "outer":
            return _tensor_product(factors)
        return self._hadamard(factors) if self.method == "hadamard" else self._compact(factors)

    def _hadamard(self, factors):
        product = float(1 / np.sqrt(self.max_features))
        for factor, signs in zip(factors, self._sketches, strict=True):
            product = product * (1 + factor @ signs.astype(factor.dtype))
        return product

    def _compact(self, factors):
        product = np.empty((len(factors[0]), self.max_features), dtype=factors[0].dtype)
        for rows in gen_batches(len(product), _BATCH):
            sketches = []
            for factor, sketch in zip(factors, self._sketches, strict=True):
                sketched = (factor[rows] @ sketch).astype(product.dtype, copy=False)
                # The constant 1 is sketched into the first place, where it is neutral to convolution.
                sketched[:, 0] += 1
                sketches.append(sketched)
            product[rows] = _convolution(sketches)
        return product

    def _names_out(self, input_features):
        width = self.max_features
        if self.method == "outer":
            width = np.prod([1 + count for count in self.n_components_.values()])
        return self._joint_names(width)


def _product_width(widths, bound):
    """Return the number of columns of the tensor product of blocks that are reduced to ``bound`` columns."""
    return int(np.prod([1 + min(width, bound) for width in widths], dtype=object))


def _tensor_product(factors):
    """Return, for each row, the tensor product of the factors with a 1 put before each."""
    n_samples = len(factors[0])
    product = np.ones((n_samples, 1), dtype=factors[0].dtype)
    for factor in factors:
        extended = np.hstack([np.ones((n_samples, 1), dtype=factor.dtype), factor])
        product = (product[:, :, None] * extended[:, None, :]).reshape(n_samples, -1)
    return product


def _count_sketch(n_features, n_buckets, random_state):
    """Return a matrix that adds each column, with a random sign, to a random one of the buckets."""
    buckets = random_state.randint(n_buckets, size=n_features)
    signs = random_state.choice([-1.0, 1.0], size=n_features)
    return sparse.csr_array((signs, (np.arange(n_features), buckets)), shape=(n_features, n_buckets))


def _convolution(sketches):
    """Return the circular convolution, row by row, of matrices of one shape.

    Numbers that are no larger than what rounding makes of a zero are exactly zero: whatever follows and divides
    columns by their standard deviations would otherwise turn rounding into features.
    """
    n = sketches[0].shape[1]
    product, size = 1, 1
    for sketch in sketches:
        product = product * fft.rfft(sketch, axis=1)
        size = size * np.linalg.norm(sketch, axis=1, keepdims=True)
    product = fft.irfft(product, n=n, axis=1)
    product[np.abs(product) <= _ROUNDINGS * np.finfo(product.dtype).eps * np.log2(n + 1) * size] = 0
    return product
