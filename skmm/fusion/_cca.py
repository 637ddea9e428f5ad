"""Joint embedding by canonical correlation analysis, in closed form."""

import warnings
from numbers import Real

import numpy as np
from scipy import linalg
from sklearn.covariance import ledoit_wolf_shrinkage

from .._missing import missing_blocks
from .._validation import Interval, StrOptions
from ._joint import JointEmbedding


class CCAFusion(JointEmbedding):
    r"""Map all blocks into one space in which they agree: canonical correlation analysis.

    For two blocks with covariances :math:`\Sigma_{11}, \Sigma_{22}` and cross-covariance
    :math:`\Sigma_{12}`, the pairs of weights are, one after the other,

    .. math:: \max_{w_1, w_2} w_1^\top \Sigma_{12} w_2 \quad\text{subject to}\quad
              w_b^\top \tilde\Sigma_{bb} w_b = 1, \qquad
              \tilde\Sigma_{bb} = (1 - r_b)\,\Sigma_{bb} + r_b\,\frac{\operatorname{tr}\Sigma_{bb}}{p_b} I,

    each pair uncorrelated (in :math:`\tilde\Sigma`) with those before it. For more than two blocks
    it is the generalised eigenproblem that extends this (MAXVAR at :math:`r_b = 0`): the leading
    eigenvectors of the matrix of cross-covariances between whitened blocks. Both are solved exactly,
    by the singular value decompositions of the blocks, so p > n and collinear columns are no
    problem. The variates, the projections :math:`Z_b w_b`, are scaled to unit variance.

    Parameters
    ----------
    n_components : int, default=32
        Upper bound of the number of components; it is clipped to the smallest rank of a block.

    regularization : "auto", float in [0, 1] or dict of str to these, default="auto"
        Ridge :math:`r_b`, for all blocks or by block: 0 is plain CCA, 1 maximises covariance
        (partial least squares by singular value decomposition). "auto" is the Ledoit-Wolf estimate
        of each block.

    scaling : {"std"} or None, default="std"
        Whether columns are brought to unit variance before. Plain CCA does not depend on it; the ridge
        pulls columns of small variance down, hence unit variance for all. Factors of whole blocks have
        no influence either way.

    output : {"concat", "mean", "sum"}, default="concat"
        The variates of all blocks side by side, or their mean or sum over the blocks.

    blocks : dict of str to slice or "prefix", default=None
        Columns of each block, as in :class:`ConcatFusion`, at least two. Inside
        :class:`ModalityFuser` it is set by the fuser.

    Attributes
    ----------
    weights_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Weights of the scaled and centred columns of each block.

    loadings_ : dict of str to ndarray of shape (n_block_features, n_components_)
        Correlation of each column with the variates of its block.

    correlations_ : ndarray of shape (n_components_,)
        Correlation of the variates of each component in the rows of ``fit``, averaged over the pairs
        of blocks.

    regularization_ : dict of str to float
        The ridge of each block.

    n_components_ : int
        Number of components.

    blocks_ : dict of str to slice
        Columns of each block, closed.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    sklearn.cross_decomposition.CCA : Iterative algorithm for two blocks, without a ridge.
    PCAFusion : Keeps what varies, not what agrees.

    Notes
    -----
    **Missing blocks.** The weights are learned from the rows that have all blocks; there must be at
    least two. At ``transform`` the variates of a missing block are their conditional expectation,
    under a normal model, given the variates of the blocks that the row has; for two blocks and no
    ridge that is the other block's variate times the canonical correlation. A row without any block
    becomes zeros. A single missing cell is the mean of its column.

    With as many columns as rows and no ridge the blocks can be made to agree perfectly on nothing;
    a warning says so.

    References
    ----------
    .. [1] H. Hotelling, "Relations between two sets of variates", Biometrika 28 (1936).
    .. [2] H. D. Vinod, "Canonical ridge and econometrics of joint production", Journal of
       Econometrics 4 (1976).
    .. [3] J. R. Kettenring, "Canonical analysis of several sets of variables", Biometrika 58 (1971).

    Examples
    --------
    >>> from sklearn.datasets import load_linnerud
    >>> import numpy as np
    >>> from skmm.fusion import CCAFusion
    >>> exercise, body = load_linnerud(return_X_y=True)
    >>> fusion = CCAFusion(2, regularization=0, blocks={"exercise": slice(0, 3), "body": slice(3, 6)})
    >>> fusion.fit_transform(np.hstack([exercise, body])).shape
    (20, 4)
    >>> fusion.correlations_.round(3)
    array([0.796, 0.201])
    """

    _parameter_constraints: dict = {
        **JointEmbedding._parameter_constraints,
        "regularization": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="both"), dict],
        "scaling": [StrOptions({"std"}), None],
    }

    def __init__(self, n_components=32, *, regularization="auto", scaling="std", output="concat", blocks=None):
        self.n_components = n_components
        self.regularization = regularization
        self.scaling = scaling
        self.output = output
        self.blocks = blocks

    def _fit_blocks(self, X, y):
        complete = ~missing_blocks(X, self.blocks_).any(axis=1)
        n_complete = np.count_nonzero(complete)
        if n_complete < 2:
            raise ValueError(
                f"CCAFusion learns from the rows that have all blocks and needs at least 2 of them, got {n_complete} "
                f"of {len(X)} rows; leave out a modality that is rarely there."
            )
        Z = self._fill(X)[complete].astype(np.float64, copy=False)
        self._centers = Z.mean(axis=0)
        # What rounding of the input can make of a column that is constant, or a sum of others.
        noise = 4 * np.finfo(X.dtype).eps * np.abs(Z)
        noise = {name: noise[:, columns].max() for name, columns in self.blocks_.items()}
        Z = Z - self._centers
        # Once more for the rounding of the mean, which would make a constant column vary.
        rest = Z.mean(axis=0)
        Z -= rest
        self._centers += rest

        self.regularization_ = self._resolve_regularization(Z)
        bases = {
            name: _whiten(Z[:, columns], self.regularization_[name], noise[name])
            for name, columns in self.blocks_.items()
        }
        ranks = {name: to_weights.shape[1] for name, (_, to_weights) in bases.items()}
        constant = [name for name, rank in ranks.items() if rank == 0]
        if constant:
            raise ValueError(
                f"CCAFusion: block {constant[0]!r} does not vary over the {n_complete} rows that have all blocks; "
                "drop the modality."
            )
        self._warn_if_meaningless(ranks, n_complete)
        self.n_components_ = min(self.n_components, *ranks.values())
        directions = _leading_directions([whitened for whitened, _ in bases.values()], self.n_components_)

        self.weights_ = {}
        variates = []
        for (name, columns), (_, to_weights), direction in zip(
            self.blocks_.items(), bases.values(), directions, strict=True
        ):
            weights = to_weights @ direction
            scores = Z[:, columns] @ weights
            spread = scores.std(axis=0, ddof=1)
            # A component that a third block has no part in stays zero there.
            factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-12 * spread.max())
            self.weights_[name] = weights * factor
            variates.append(scores * factor)
        complete_variates = []
        for scores in variates:
            complete_variates.append(np.full((len(X), self.n_components_), np.nan))
            complete_variates[-1][complete] = scores
        signs = self._learn_space(np.where(complete[:, None], X, np.nan), complete_variates)
        self.weights_ = {name: weights * signs for name, weights in self.weights_.items()}

    def _score_block(self, X_block, name):
        centers = self._centers[self.blocks_[name]].astype(X_block.dtype)
        return (X_block - centers) @ self.weights_[name].astype(X_block.dtype)

    def _resolve_regularization(self, Z):
        chosen = self.regularization
        if not isinstance(chosen, dict):
            chosen = dict.fromkeys(self.blocks_, chosen)
        if chosen.keys() != self.blocks_.keys():
            raise ValueError(
                f"CCAFusion: regularization names the blocks {sorted(chosen)}, X has the blocks {sorted(self.blocks_)}."
            )
        resolved = {}
        for name, value in chosen.items():
            if value == "auto":
                value = ledoit_wolf_shrinkage(Z[:, self.blocks_[name]], assume_centered=True)
            elif not isinstance(value, Real) or not 0 <= value <= 1:
                raise ValueError(f"CCAFusion: regularization[{name!r}] must be 'auto' or in [0, 1], got {value!r}.")
            resolved[name] = float(value)
        return resolved

    def _warn_if_meaningless(self, ranks, n_complete):
        unregularized = sum(rank for name, rank in ranks.items() if self.regularization_[name] == 0)
        if all(value == 0 for value in self.regularization_.values()) and unregularized > n_complete - 1:
            warnings.warn(
                f"CCAFusion: the blocks have {unregularized} independent columns together and only {n_complete} rows, "
                "so some correlations are 1 whatever the data; use regularization='auto'.",
                UserWarning,
                stacklevel=2,
            )


def _whiten(Z, regularization, noise):
    """Give orthogonal coordinates of a centred block and the map from them to column weights.

    The coordinates are the left singular vectors, shrunk by the ridge; directions of no variance
    beyond what ``noise`` in every entry makes are left out, where the best weights have no part.
    """
    n_samples, n_features = Z.shape
    U, s, Vt = linalg.svd(Z, full_matrices=False)
    kept = s > noise * (np.sqrt(n_samples) + np.sqrt(n_features))
    U, s, Vt = U[:, kept], s[kept], Vt[kept]
    variances = s**2 / (n_samples - 1)
    ridged = (1 - regularization) * variances + regularization * variances.sum() / Z.shape[1]
    return U * np.sqrt(variances / ridged), Vt.T / np.sqrt(ridged)


def _leading_directions(whitened, n_components):
    """Give one matrix of directions per whitened block, best agreement first."""
    if len(whitened) == 2:
        left, _, right = linalg.svd(whitened[0].T @ whitened[1], full_matrices=False)
        return [left[:, :n_components], right[:n_components].T]
    stacked = np.hstack(whitened)
    agreement = stacked.T @ stacked
    ends = np.cumsum([block.shape[1] for block in whitened])
    for block, end in zip(whitened, ends, strict=True):
        own = slice(end - block.shape[1], end)
        agreement[own, own] = np.eye(block.shape[1])
    n = len(agreement)
    _, vectors = linalg.eigh(agreement, subset_by_index=[n - n_components, n - 1])
    return np.split(vectors[:, ::-1], ends[:-1])
