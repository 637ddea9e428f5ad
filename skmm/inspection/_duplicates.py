"""Rows that are equal or nearly so, in one set of rows or between two."""

from collections.abc import Sequence
from numbers import Real
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from .._columns import check_table, row_labels
from .._similar import SimilarRows, join_groups
from .._sklearn import Interval, StrOptions, validate_params
from .._typing import Modalities, Table
from ..fusion import ModalityFuser

_CONSTRAINTS = {
    "modalities": [list, tuple, StrOptions({"auto"})],
    "modality": [str, list, tuple, None],
    "threshold": [StrOptions({"auto"}), Interval(Real, -1, 1, closed="right")],
}


@validate_params(_CONSTRAINTS, prefer_skip_nested_validation=True)
def find_duplicates(
    X: Table,
    modalities: Modalities | Literal["auto"] = "auto",
    *,
    modality: str | Sequence[str] | None = None,
    threshold: float | str = "auto",
) -> Bunch:
    """Find rows of which an item is equal, or nearly so, to that of another row.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_samples, n_features)
        Data. A missing modality has no duplicates.

    modalities : list of (str, transformer, columns) or "auto", default="auto"
        As in :class:`~skmm.ModalityFuser`. The transformers say what is similar: :class:`~skmm.ImageDescriptor` sees
        copies of pictures in another size or encoding, an :class:`~skmm.ImageEncoder` pictures of the same. Features
        that are computed already are "passthrough".

    modality : str or sequence of str, default=None
        Modalities to compare, each by itself; rows belong together if they are alike in any. None means all.

    threshold : float or "auto", default="auto"
        Smallest cosine of near duplicates, after the mean of all rows is subtracted; with 1 only equal rows are
        duplicates. "auto" is chosen by modality: the distance, 1 - cosine, is at most a third of the median distance
        of a row to its tenth nearest neighbour different from it, which is taken for a similar item that is no
        duplicate; in few dimensions less, so that chance alone has one row in 100 find such a neighbour. With 20
        different rows or fewer only equal ones are duplicates.

    Returns
    -------
    result : :class:`~sklearn.utils.Bunch`
        With the following attributes.

        duplicates : DataFrame
            One row for each row of X and modality with a duplicate, with the label of the row as index (its position
            if X is no pandas DataFrame): ``modality``; ``partner``, the label of the row most similar; ``score``, the
            cosine; ``reason`` in words.
        groups : ndarray of shape (n_samples,)
            Number of the group of each row, for :class:`~sklearn.model_selection.GroupKFold`: duplicates, and
            duplicates of these, are in one group.
        thresholds : dict of str to float
            Threshold of each modality.

    See Also
    --------
    find_leaks : Rows of a test set that are in the training set.
    find_mismatches : Rows whose modalities contradict each other.

    Notes
    -----
    Cosines are computed in blocks, so memory does not grow with their number; time grows with the square of the rows
    (10,000 rows of 384 features take a second). "auto" presumes that most items have fewer than ten near duplicates,
    not counting those that are equal.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.inspection import find_duplicates
    >>> X = np.random.default_rng(0).normal(size=(50, 8))
    >>> X[7], X[9] = X[3], X[4] + 0.001
    >>> result = find_duplicates(X, [("features", "passthrough", slice(0, 8))])
    >>> result.duplicates[["partner", "score", "reason"]].round(2)
       partner  score                        reason
    3        7    1.0                         equal
    4        9    1.0  cosine 1.000, at least 0.962
    7        3    1.0                         equal
    9        4    1.0  cosine 1.000, at least 0.962
    >>> bool(result.groups[3] == result.groups[7])
    True
    """
    fuser, X = _fuser_of(modalities, X)
    blocks = _blocks_of(fuser, fuser.fit_transform(X))
    labels, frames, groupings, thresholds = row_labels(X), [], [], {}
    for name in _chosen(modality, list(blocks)):
        similar = SimilarRows(blocks[name], threshold)
        groups, partners, cosines, equal = similar.pairs()
        thresholds[name] = similar.threshold
        groupings.append(groups)
        frames.append(_frame(name, labels, labels, partners, cosines, similar.threshold, equal))
    return Bunch(duplicates=pd.concat(frames), groups=join_groups(groupings), thresholds=thresholds)


@validate_params(_CONSTRAINTS, prefer_skip_nested_validation=True)
def find_leaks(
    X_train: Table,
    X_test: Table,
    modalities: Modalities | Literal["auto"] = "auto",
    *,
    modality: str | Sequence[str] | None = None,
    threshold: float | str = "auto",
) -> pd.DataFrame:
    """Find rows of a test set of which an item is equal, or nearly so, to that of a training row.

    Parameters
    ----------
    X_train, X_test : DataFrame or array-like of shape (n_samples, n_features)
        Data, with the same columns.

    modalities : list of (str, transformer, columns) or "auto", default="auto"
        As in :func:`find_duplicates`; the transformers are fitted on X_train.

    modality : str or sequence of str, default=None
        Modalities to compare, each by itself. None means all.

    threshold : float or "auto", default="auto"
        Smallest cosine of near duplicates, as in :func:`find_duplicates`; mean and threshold are those of X_train.

    Returns
    -------
    leaks : DataFrame
        One row for each row of X_test and modality with a duplicate, with the label of the row as index:
        ``modality``; ``partner``, the label of the row of X_train most similar; ``score``, the cosine; ``reason`` in
        words.

    See Also
    --------
    find_duplicates : The same within one set, with groups for the folds.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.inspection import find_leaks
    >>> X = np.random.default_rng(0).normal(size=(80, 8))
    >>> X[70] = X[3]
    >>> find_leaks(X[:60], X[60:], [("features", "passthrough", slice(0, 8))])
        modality  partner  score reason
    10  features        3    1.0  equal
    """
    fuser, X_train = _fuser_of(modalities, X_train)
    X_test = check_table(fuser, X_test)
    blocks = _blocks_of(fuser, fuser.fit_transform(X_train))
    test_blocks, frames = _blocks_of(fuser, fuser.transform(X_test)), []
    for name in _chosen(modality, list(blocks)):
        rows = test_blocks[name].astype(blocks[name].dtype)
        similar = SimilarRows(blocks[name], threshold)
        partners, cosines, equal = similar.nearest(rows)
        frames.append(
            _frame(name, row_labels(X_test), row_labels(X_train), partners, cosines, similar.threshold, equal)
        )
    return pd.concat(frames)


def _fuser_of(modalities, X):
    """Return a fuser that puts the features of the modalities side by side as they are, and X as a table."""
    fuser = ModalityFuser(modalities, FunctionTransformer())
    return fuser, check_table(fuser, X)


def _blocks_of(fuser, joined):
    return {name: joined[:, columns] for name, columns in fuser.blocks_.items()}


def _chosen(modality, names):
    chosen = names if modality is None else [modality] if isinstance(modality, str) else list(modality)
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise ValueError(f"modality must be one or several of {names}, got {modality!r}.")
    return chosen


def _frame(name, labels, partner_labels, partners, cosines, threshold, equal):
    """Return the rows that have a partner."""
    rows = np.flatnonzero(partners >= 0)
    near = [f"cosine {cosine:.3f}, at least {threshold:.3f}" for cosine in cosines[rows]]
    reasons = [("equal" if same else text) for same, text in zip(equal[rows], near, strict=True)]
    columns = {
        "modality": np.array([name] * len(rows), dtype=object),
        "partner": partner_labels[partners[rows]],
        "score": cosines[rows].astype(np.float64),
        "reason": np.array(reasons, dtype=object),
    }
    return pd.DataFrame(columns, index=labels[rows])
