"""Joint embedding without training: a row of any modality is where its similarities to stored pairs say."""

from numbers import Integral
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, gen_batches
from sklearn.utils.validation import check_is_fitted

from ..._columns import column_means, column_variances
from ..._sklearn import Interval, StrOptions, fit_context
from ..._typing import Blocks, Matrix
from .._base import BlockTransformer, missing_blocks
from .._moments import present_blocks
from ._base import JointEmbedding

# Similarities in memory at once.
_BATCH = 2**24
# A column counts as constant if its variance is less than this many times what rounding each number once makes.
_ROUNDINGS = 16


class AnchorFusion(JointEmbedding):
    r"""Map all blocks into one space by their similarities to stored pairs, the anchors: ASIF.

    With :math:`z_{ib}` the centred and scaled columns of block b of anchor i at unit length, a row whose block b is
    :math:`z`, brought to unit length as well, has in the dimension of anchor i

    .. math:: r_i = \frac{s_i^p}{\sqrt{\sum_j s_j^{2p}}}, \qquad
              s_i = \begin{cases} \max(0, z^\top z_{ib}) & \text{among the } k \text{ largest} \\
              0 & \text{else,} \end{cases}

    so that what is like the picture of an anchor is near what is like its text. Nothing is trained: pairs are added by
    :meth:`partial_fit` and forgotten by :meth:`forget`, in a time that does not depend on how many are stored.

    Parameters
    ----------
    n_neighbors : int, default=100
        Upper bound of the number k of anchors that a row has similarities to; equal ones at the bound all count.

    power : float, default=3
        Power p of the similarities. Of emoji the pair is found best with 4 and more of the class with 1 or 2
        (``benchmarks/joint.py``).

    scaling : {"std"} or None, default="std"
        "std" centres the columns at the mean of the anchors and brings them to unit variance, which finds more on
        emoji (mean reciprocal rank .43 in place of .33, with a power of 4). None takes angles from the origin, as the
        paper does.

    output : {"concat", "mean", "sum"}, default="concat"
        The similarities of all blocks side by side, or their mean or sum over the blocks.

    blocks : dict of str to slice or "prefix", default=None
        Columns of each block, as in :class:`ConcatFusion`, at least two.

    Attributes
    ----------
    n_pairs_ : ndarray of shape (n_blocks, n_blocks)
        Anchors that have both blocks of a pair, in the order of ``blocks_``; on the diagonal those that have the block.

    n_components_ : int
        Number of dimensions: the anchors, and the places of forgotten ones, which the next pairs take.

    blocks_ : dict of str to slice
        Columns of each block, closed.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    CCAFusion : Learns few dimensions in which the blocks agree.
    KernelFusion : Similarities of rows, added up over the blocks.

    Notes
    -----
    **Missing blocks.** Rows with two blocks or more are anchors; an anchor has no similarity to rows of a block that it
    lacks. At ``transform`` a missing block is where the mean of the blocks that the row has is. A row without any block
    becomes zeros. A block that no anchor has raises an error at ``fit``.

    **Labels.** y has no influence on the space. It is by what pairs are forgotten: their class, the person they are of,
    or any name. Without y the label of a pair is the position of its row among all rows so far, from 0.

    **Forgetting** overwrites the pair and takes it out of means and scales: what remains is the space of the other
    pairs, but for rounding. Its dimension stays, as zeros, so that a classifier of the space goes on.

    **Size.** Anchors are stored as they are, and the result has a column for each and, with ``output="concat"``, each
    block: 10,000 rows and anchors in float32 take 400 MB a block.

    References
    ----------
    .. [1] A. Norelli, M. Fumero, V. Maiorca, L. Moschella, E. Rodola and F. Locatello, "ASIF: coupled data turns
       unimodal models to multimodal without training", NeurIPS (2023).

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.fusion import AnchorFusion
    >>> rng = np.random.default_rng(0)
    >>> shared = rng.normal(size=(300, 6))
    >>> X = np.hstack([shared @ rng.normal(size=(6, p)) for p in (20, 30)])
    >>> fusion = AnchorFusion(blocks={"text": slice(0, 20), "image": slice(20, 50)}).fit(X[:200])
    >>> texts = fusion.transform_modality(X[200:, :20], "text")
    >>> images = fusion.transform_modality(X[200:, 20:], "image")
    >>> round(float(np.mean((texts @ images.T).argmax(axis=1) == np.arange(100))), 1)
    0.8
    >>> fusion.forget([0, 1]).n_pairs_
    array([[198, 198],
           [198, 198]])
    """

    _parameter_constraints: dict = {
        **BlockTransformer._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "power": JointEmbedding._parameter_constraints["power"],
        "scaling": [StrOptions({"std"}), None],
        "output": JointEmbedding._parameter_constraints["output"],
    }
    # Anchors are stored in the units of X, and scaled where they are compared.
    _scales_itself = True
    target = None
    weighting = None

    def __init__(
        self,
        n_neighbors: int = 100,
        *,
        power: float = 3,
        scaling: str | None = "std",
        output: str = "concat",
        blocks: Blocks = None,
    ):
        self.n_neighbors = n_neighbors
        self.power = power
        self.scaling = scaling
        self.output = output
        self.blocks = blocks

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Matrix, y: ArrayLike | None = None) -> Self:
        """Add pairs to those that are stored, after ``fit`` as well.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Blocks side by side, with NaN in missing cells.

        y : array-like of shape (n_samples,), default=None
            Labels of the pairs, by which they can be forgotten.

        Returns
        -------
        self : AnchorFusion
            The strategy with all pairs so far.
        """
        first = not hasattr(self, "_anchors")
        X = self._validate(X, reset=first)
        if first:
            self._resolve_blocks(X)
            self._fit_scale(X)
            self._fit_blocks(X, y)
        else:
            self._add(X, y)
        return self

    def forget(self, labels: ArrayLike) -> Self:
        """Remove the pairs that have these labels, as if they had never been added.

        Parameters
        ----------
        labels : array-like of shape (n_labels,)
            Values of y, or positions of rows where there was no y.

        Returns
        -------
        self : AnchorFusion
            The strategy without these pairs.

        Raises
        ------
        ValueError
            If no stored pair has one of the labels; none is forgotten then.
        """
        check_is_fitted(self)
        labels = list(dict.fromkeys(_as_list(labels)))
        unknown = [label for label in labels if label not in self._places]
        if unknown:
            raise ValueError(
                f"{type(self).__name__}: no stored pair has the labels {unknown[:5]}; labels are the values of y, or "
                "positions of rows where no y was passed."
            )
        places = [place for label in labels for place in self._places.pop(label)]
        self._count(self._anchors[places], -1)
        self._anchors[places] = np.nan
        self._free += places
        return self

    def predict_modality(self, X_block: Matrix, source: str, target: str) -> np.ndarray:
        """Predict one modality from another: the mean of the anchors, weighted by their similarities.

        Parameters
        ----------
        X_block : array-like of shape (n_samples, n_source_features)
            Columns of the source block, in the units of ``fit``, with NaN in missing cells.

        source : str
            Name of the block that X_block is.

        target : str
            Name of the block to predict.

        Returns
        -------
        X_target : ndarray of shape (n_samples, n_target_features)
            Expected columns of the target block, in the units of ``fit``; their means in rows that are similar to no
            anchor, as those are in which the source is missing.
        """
        similarities = self.transform_modality(X_block, source)
        columns = self._columns_of(target)
        anchors = self._anchors[: self.n_components_, columns]
        has_target = ~missing_blocks(anchors, {target: slice(0, anchors.shape[1])})[:, 0]
        similarities = similarities * has_target
        totals = similarities.sum(axis=1, keepdims=True)
        # As deviations from the mean, missing cells and rows without similarity become the mean.
        deviations = np.nan_to_num(anchors - self._means[columns]).astype(similarities.dtype)
        shares = np.divide(similarities, totals, out=np.zeros_like(similarities), where=totals > 0)
        return shares @ deviations + self._means[columns].astype(similarities.dtype)

    def _validate_fit(self, X, y):
        return self._validate(X, reset=True, ensure_min_samples=self._min_samples), y

    def _fit_blocks(self, X, y):
        n_blocks, n_features = len(self.blocks_), X.shape[1]
        self._anchors = np.empty((0, n_features), dtype=X.dtype)
        self._places, self._free = {}, []
        self.n_components_, self._n_rows = 0, 0
        self.n_pairs_ = np.zeros((n_blocks, n_blocks), dtype=int)
        self._counts, self._means, self._squares = np.zeros((3, n_features))
        self._add(X, y)
        for name, count in zip(self.blocks_, np.diag(self.n_pairs_), strict=True):
            if count == 0:
                raise ValueError(
                    f"{type(self).__name__} learns from rows that have two blocks, and no row has block {name!r} and "
                    "another one; leave out a modality that is rarely present."
                )

    def _add(self, X, y):
        """Store the pairs among the rows, in free places first."""
        if y is None:
            labels = list(range(self._n_rows, self._n_rows + len(X)))
        else:
            check_consistent_length(X, y)
            labels = _as_list(y)
        self._n_rows += len(X)
        rows = np.flatnonzero(present_blocks(X, self.blocks_).any(axis=1))
        end = self.n_components_ + max(0, len(rows) - len(self._free))
        if end > len(self._anchors):
            # Twice the size, so that adding one pair takes the same time however many there are.
            grown = np.full((max(end, 2 * len(self._anchors)), X.shape[1]), np.nan, dtype=self._anchors.dtype)
            grown[: self.n_components_] = self._anchors[: self.n_components_]
            self._anchors = grown
        places = [*self._free, *range(self.n_components_, end)]
        places, self._free = places[: len(rows)], places[len(rows) :]
        self._anchors[places] = X[rows]
        for place, row in zip(places, rows.tolist(), strict=True):
            self._places.setdefault(labels[row], []).append(place)
        self.n_components_ = end
        # The number of columns that come out has changed.
        self._n_features_out = None
        self._count(self._anchors[places], 1)

    def _count(self, anchors, sign):
        """Add pairs to the numbers of pairs, the means and the scales, or take them out."""
        present = present_blocks(anchors, self.blocks_).astype(int)
        self.n_pairs_ += sign * (present.T @ present)
        # Means, and sums of squares around them, of both sets of rows together (Chan, Golub and LeVeque); or, with
        # negative counts, of the rest. A sum over all rows would keep fewer digits, a fixed origin what is forgotten.
        counts, means = (~np.isnan(anchors)).sum(axis=0), column_means(anchors)
        total = self._counts + sign * counts
        shares = np.divide(sign * counts, total, out=np.zeros_like(total), where=total > 0)
        distances = np.where(counts > 0, means - self._means, 0)
        self._squares += sign * counts * column_variances(anchors, means) + distances**2 * self._counts * shares
        self._means += distances * shares
        self._counts = total
        self._means[total == 0] = self._squares[total == 0] = 0
        variances = np.maximum(self._squares, 0) / np.maximum(total, 1)
        rounding = np.finfo(self._anchors.dtype).eps ** 2 * (self._means**2 + variances)
        # A column that does not vary says nothing of similarity.
        self._deviations = np.sqrt(np.where(variances > _ROUNDINGS * rounding, variances, np.inf))

    def _score_block(self, X_block, name):
        anchors = self._directions(self._anchors[: self.n_components_, self.blocks_[name]], name)
        variates = np.empty((len(X_block), len(anchors)), dtype=X_block.dtype)
        for rows in gen_batches(len(X_block), max(1, _BATCH // max(len(anchors), 1))):
            similarities = self._directions(X_block[rows], name) @ anchors.T
            variates[rows] = sparse_powers(similarities, self.n_neighbors, self.power)
        return variates

    def _directions(self, X_block, name):
        """Return the scaled rows of a block at unit length; zeros for a missing one, and one at the mean."""
        columns = self.blocks_[name]
        Z = X_block - self._means[columns] if self.scaling == "std" else X_block.astype(np.float64)
        if self.scaling == "std":
            Z /= self._deviations[columns]
        elif np.isnan(Z).any():
            # Single missing cells count as the mean.
            Z = np.where(np.isnan(Z) & ~np.isnan(Z).all(axis=1, keepdims=True), self._means[columns], Z)
        Z[np.isnan(Z)] = 0
        lengths = np.linalg.norm(Z, axis=1, keepdims=True)
        return np.divide(Z, lengths, out=np.zeros_like(Z), where=lengths > 0)

    def _transform_blocks(self, X):
        missing = missing_blocks(X, self.blocks_)
        variates = np.stack(self._score_blocks(X), axis=1)
        variates[missing] = 0
        n_present = np.maximum((~missing).sum(axis=1), 1).astype(X.dtype)
        means = variates.sum(axis=1) / n_present[:, None]
        variates[missing] = np.broadcast_to(means[:, None], variates.shape)[missing]
        if self.output == "concat":
            return variates.reshape(len(X), -1)
        return means if self.output == "mean" else variates.sum(axis=1)


def sparse_powers(similarities, n_neighbors, power):
    """Return a power of the largest positive similarities of each row, the others as 0, at unit length."""
    similarities = np.maximum(similarities, 0)
    n_anchors = similarities.shape[1]
    if n_neighbors < n_anchors:
        smallest = np.partition(similarities, n_anchors - n_neighbors, axis=1)[:, [n_anchors - n_neighbors]]
        similarities[similarities < smallest] = 0
    # The largest becomes 1 first, so that powers do not underflow.
    largest = similarities.max(axis=1, keepdims=True, initial=0)
    powers = np.divide(similarities, largest, out=np.zeros_like(similarities), where=largest > 0)
    powers = np.where(similarities > 0, powers**power, 0)
    lengths = np.linalg.norm(powers, axis=1, keepdims=True)
    return np.divide(powers, lengths, out=np.zeros_like(powers), where=lengths > 0)


def _as_list(labels):
    """Return labels as objects that a dict can hold: None for a missing one, and a tuple for a row of several."""
    labels = np.array(labels, dtype=object)
    labels[pd.isna(labels)] = None
    if labels.ndim == 2 and labels.shape[1] > 1:
        return [tuple(row) for row in labels.tolist()]
    return labels.ravel().tolist()
