"""Joint embedding by canonical correlation analysis, in closed form."""

from numbers import Real

from ..._sklearn import Interval, StrOptions
from ._canonical import ledoit_wolf
from ._linear import LinearEmbedding
from ._moments import sum_of_fourth_powers
from ._ridge import choose_ridge, parts_for_choice


class CCAFusion(LinearEmbedding):
    r"""Map all blocks into one space in which they agree: canonical correlation analysis.

    For two blocks with covariances :math:`\Sigma_{11}, \Sigma_{22}` and cross-covariance
    :math:`\Sigma_{12}`, the pairs of weights are, one after the other,

    .. math:: \max_{w_1, w_2} w_1^\top \Sigma_{12} w_2 \quad\text{subject to}\quad
              w_b^\top \tilde\Sigma_{bb} w_b = 1, \qquad
              \tilde\Sigma_{bb} = (1 - r_b)\,\Sigma_{bb} + r_b\,\frac{\operatorname{tr}\Sigma_{bb}}{p_b} I,

    each pair uncorrelated (in :math:`\tilde\Sigma`) with those before it. For more than two blocks
    see ``objective``. All is solved exactly, from covariances, and for blocks with more columns than
    rows from inner products of rows. The variates, the projections :math:`Z_b w_b`, are scaled to
    unit variance.

    Parameters
    ----------
    n_components : int, default=32
        Upper bound of the number of components; it is clipped to the smallest rank of a block.

    objective : {"maxvar", "sumcor"}, default="maxvar"
        What is maximised over more than two blocks; with two it is the above either way.

        - ``"maxvar"``, generalised CCA: variables :math:`g`, uncorrelated with each other, that the
          ridge regressions on the blocks explain best together,
          :math:`\max_g \sum_b g^\top Z_b \tilde\Sigma_{bb}^{-1} Z_b^\top g`; the weights are these
          regressions.
        - ``"sumcor"``, multiset CCA: the sum of covariances over the pairs of blocks,
          :math:`\max_w \sum_{a \neq b} w_a^\top \Sigma_{ab} w_b` subject to
          :math:`\sum_b w_b^\top \tilde\Sigma_{bb} w_b = 1`. Without a ridge both give the same variates.

    regularization : float in [0, 1], "auto", "cv" or dict of str to these but "cv", default=0.3
        Ridge :math:`r_b`, for all blocks or by block: 0 is plain CCA, 1 maximises covariance
        (:class:`PLSFusion`). "auto" is the Ledoit-Wolf estimate of each block. "cv" picks one of ten
        values from .001 to .9 for all blocks, by the mean correlation in a fifth of the rows, every fifth one,
        that is held out; choosing costs up to 1.5 fits. Classifiers of the variates mostly do better with more
        ridge than correlation asks for, which the default heeds.

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
        Weights of the centred columns of each block, in the units of X.

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
    PLSFusion : Maximises covariance, not correlation.
    PCAFusion : Keeps what varies, not what agrees.
    sklearn.cross_decomposition.CCA : Iterative algorithm for two blocks, without a ridge.

    Notes
    -----
    **Missing blocks.** Each covariance is learned from the rows that have both of its blocks, so that with
    more than two blocks a row counts for what it has, where complete rows may be few. Rows with one block
    say nothing about agreement and are left out of the fit. At ``transform`` the variates of a missing
    block are their conditional expectation, under a normal model, given the variates of the blocks that
    the row has; for two blocks and no ridge that is the other block's variate times the canonical
    correlation. A row without any block becomes zeros. A single missing cell is the mean of its
    column. A block that shares fewer than two rows with any other at ``fit`` raises an error.

    **Precision.** Products are summed up in float64, chunk by chunk. Those of a float32 X are computed
    in float32 as long as no column is nearly a combination of others (the smallest relative pivot of
    the Cholesky factors stays above .01; correlations are then right to about 1e-6), and again in float64
    otherwise. Directions of a block whose standard
    deviation is below 1e-5 of the largest are left out where there is no ridge.

    **Data larger than memory.** ``partial_fit`` takes X in batches, with a ridge given as numbers.

    **Other arrays** (torch, CuPy) come in by scikit-learn's array API dispatch, and stay on their device; weights are
    solved for on the CPU, from covariances, or from all of X where a block has more columns than rows. What is learned
    are NumPy arrays.

    With as many columns as rows and no ridge the blocks can be made to agree perfectly on nothing;
    a warning says so.

    References
    ----------
    .. [1] H. Hotelling, "Relations between two sets of variates", Biometrika 28 (1936).
    .. [2] H. D. Vinod, "Canonical ridge and econometrics of joint production", Journal of
       Econometrics 4 (1976).
    .. [3] J. R. Kettenring, "Canonical analysis of several sets of variables", Biometrika 58 (1971).
    .. [4] J. D. Carroll, "Generalization of canonical correlation analysis to three or more sets of
       variables", Proceedings of the 76th Annual Convention of the APA (1968).

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
    >>> fusion.predict_modality([[5, 162, 60]], source="exercise", target="body").round()
    array([[177.,  35.,  56.]])
    """

    _parameter_constraints: dict = {
        **LinearEmbedding._parameter_constraints,
        "objective": [StrOptions({"maxvar", "sumcor"})],
        "regularization": [StrOptions({"auto", "cv"}), Interval(Real, 0, 1, closed="both"), dict],
        "scaling": [StrOptions({"std"}), None],
    }

    def __init__(
        self,
        n_components=32,
        *,
        objective="maxvar",
        regularization=0.3,
        scaling="std",
        output="concat",
        blocks=None,
    ):
        self.n_components = n_components
        self.objective = objective
        self.regularization = regularization
        self.scaling = scaling
        self.output = output
        self.blocks = blocks

    def _objective(self):
        return self.objective

    def _standardized(self):
        # Without a ridge the scales have no influence but on rounding.
        return {name: self.scaling == "std" or ridge == 0 for name, ridge in self._given().items()}

    def _check_streams(self):
        given = self.regularization
        for value in given.values() if isinstance(given, dict) else [given]:
            if isinstance(value, str):
                raise AttributeError(
                    f"CCAFusion: partial_fit needs a regularization given as numbers, got {given!r}, for which all "
                    "rows must be at hand."
                )

    def _parts(self, n_samples):
        if self.regularization != "cv":
            return super()._parts(n_samples)
        if n_samples < 4:
            raise ValueError(
                f"{type(self).__name__}: regularization='cv' needs at least 4 rows, got {n_samples}; give a number."
            )
        return parts_for_choice(n_samples)

    def _given(self):
        """The parameter, by block."""
        given = self.regularization
        if not isinstance(given, dict):
            return dict.fromkeys(self.blocks_, given)
        if given.keys() != self.blocks_.keys():
            raise ValueError(
                f"{type(self).__name__}: regularization names the blocks {sorted(given)}, X has the blocks "
                f"{sorted(self.blocks_)}."
            )
        for name, value in given.items():
            if value != "auto" and not (isinstance(value, Real) and 0 <= value <= 1):
                raise ValueError(
                    f"{type(self).__name__}: regularization[{name!r}] must be 'auto' or in [0, 1], got {value!r}."
                )
        return given

    def _find_ridges(self, covariance, parts, X):
        given = self._given()
        if self.regularization == "cv":
            given = dict.fromkeys(given, choose_ridge(covariance, *parts, self.n_components, self.objective))
        self.regularization_ = {
            name: self._ledoit_wolf(covariance, parts[0], X, name) if value == "auto" else float(value)
            for name, value in given.items()
        }
        return self.regularization_

    def _ledoit_wolf(self, covariance, moments, X, name):
        kept = covariance.columns[name] + moments.blocks[name].start
        fourth = sum_of_fourth_powers(
            X[:, moments.blocks[name]], covariance.columns[name], moments.means()[kept], covariance.scales[name]
        )
        own = covariance.blocks[name]
        return ledoit_wolf(covariance.matrix[own, own], covariance.targets[name], covariance.n_rows[name], fourth)
