"""A strategy of fusion that is written from public names alone."""

import inspect

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.multiclass import check_classification_targets

from skmm.fusion import BlockTransformer, ModalityFuser

BLOCKS = {"a": slice(0, 1), "b": slice(1, None)}


class CentroidFusion(BlockTransformer):
    """Squared distances of each block to the centroids of the classes; those of a missing block are their means.

    Parameters
    ----------
    shrinkage : float, default=0.1
        Share by which the centroids are moved to the mean of all rows.

    scaling : {"norm", "std"} or None, default="std"
        How the columns are scaled before, as in ConcatFusion.

    blocks : dict of str to slice, "prefix" or None, default=None
        Columns of each block.
    """

    def __init__(self, shrinkage=0.1, *, scaling="std", blocks=None):
        self.shrinkage = shrinkage
        self.scaling = scaling
        self.blocks = blocks

    def _needs_y(self):
        return True

    def _fit_blocks(self, X, y):
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        filled, present = self._fill(X), ~self._missing(X)
        self.centroids_, self.mean_distances_ = {}, {}
        for (name, columns), rows in zip(self.blocks_.items(), present.T, strict=True):
            block, labels = filled[rows, columns], y[rows]
            mean = block.mean(axis=0)
            centroids = [block[labels == label].mean(axis=0) if label in labels else mean for label in self.classes_]
            self.centroids_[name] = (1 - self.shrinkage) * np.array(centroids) + self.shrinkage * mean
            self.mean_distances_[name] = self._distances(block, name).mean(axis=0)

    def _distances(self, block, name):
        return ((block[:, None, :] - self.centroids_[name]) ** 2).sum(axis=2)

    def _transform_blocks(self, X):
        filled, missing = self._fill(X), self._missing(X)
        joined = []
        for (name, columns), rows in zip(self.blocks_.items(), missing.T, strict=True):
            distances = self._distances(filled[:, columns], name)
            joined.append(np.where(rows[:, None], self.mean_distances_[name], distances))
        return np.hstack(joined).astype(X.dtype)

    def _names_out(self, input_features):
        return self._block_names(dict.fromkeys(self.blocks_, len(self.classes_)))


def test_it_takes_at_most_sixty_lines():
    assert len(inspect.getsource(CentroidFusion).splitlines()) <= 60


@parametrize_with_checks([CentroidFusion(), CentroidFusion(blocks=BLOCKS)])
def test_estimator_checks(estimator, check):
    check(estimator)


def data():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    return rng.normal(size=(60, 5)) + 2 * rng.normal(size=(3, 5))[y], y


def test_distances_and_missing_blocks():
    X, y = data()
    fusion = CentroidFusion(0, scaling=None, blocks={"a": slice(0, 2), "b": slice(2, None)})
    out = fusion.fit_transform(X, y)
    centroids = np.array([X[y == label].mean(axis=0) for label in range(3)])
    squares = (X[:, None] - centroids) ** 2
    assert_allclose(out, np.hstack([squares[:, :, :2].sum(axis=2), squares[:, :, 2:].sum(axis=2)]))
    gone = X.copy()
    gone[7, :2] = np.nan
    assert_allclose(fusion.transform(gone)[7], np.r_[out[:, :3].mean(axis=0), out[7, 3:]])
    assert fusion.transform(X.astype(np.float32)).dtype == np.float32
    assert_array_equal(fusion.get_feature_names_out()[[0, 5]], ["a__centroidfusion0", "b__centroidfusion2"])


@pytest.mark.parametrize("scaling", ["norm", None])
def test_in_a_fuser_and_a_search(scaling):
    X, y = data()
    frame = pd.DataFrame(X, columns=list("pqrst"))
    frame.loc[::7, ["p", "q"]] = np.nan
    fuser = ModalityFuser(
        [("first", "passthrough", ["p", "q"]), ("second", "passthrough", ["r", "s", "t"])],
        fusion=CentroidFusion(scaling=scaling),
    )
    grid = {"modalityfuser__fusion__shrinkage": [0.0, 0.5]}
    search = GridSearchCV(make_pipeline(fuser, LogisticRegression()), grid, cv=3, error_score="raise").fit(frame, y)
    assert search.best_score_ > 0.8
    names = search.best_estimator_[0].get_feature_names_out()
    assert list(names[:4]) == [*(f"first__centroidfusion{i}" for i in range(3)), "second__centroidfusion0"]
