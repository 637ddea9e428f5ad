"""Items that a member's own encoder cannot read: the member abstains there, as if they were missing."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skmm import (
    ImageDescriptor,
    ModalityStackingClassifier,
    ModalityVotingClassifier,
    ModalityVotingRegressor,
)

N = 40
BAD = [3, 10, 17]


@pytest.fixture
def frames():
    """The same rows twice: with unreadable images, and with none in their place; and a target."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 2
    images = [rng.integers(0, 100 + 100 * label, (8, 8), dtype=np.uint8) for label in y]
    price = y + rng.normal(size=N)
    broken = pd.DataFrame({"image": images, "price": price}, dtype=object)
    broken["price"] = price
    absent = broken.copy()
    for row in BAD:
        broken.at[row, "image"] = b"no image"
        absent.at[row, "image"] = None
    return broken, absent, y


def members(kind=LogisticRegression):
    image = make_pipeline(ImageDescriptor("pixels", size=8, on_error="missing"), StandardScaler(), kind())
    return [("image", image, "image"), ("table", kind(), ["price"])]


COMPOSITES = [
    ModalityVotingClassifier(members()),
    ModalityVotingClassifier(members(), voting="hard", n_jobs=2),
    ModalityVotingClassifier(members(), voting="product", weights="auto"),
    ModalityVotingClassifier(members(), calibration="sigmoid"),
    ModalityStackingClassifier(members(), cv=4),
    ModalityVotingRegressor(members(Ridge)),
]


@pytest.mark.filterwarnings("ignore:.*could not be encoded")
@pytest.mark.parametrize("composite", COMPOSITES, ids=lambda composite: repr(composite)[:60])
def test_what_cannot_be_read_is_missing(composite, frames):
    broken, absent, y = frames
    ask = "predict_proba" if hasattr(composite, "predict_proba") else "predict"
    expected = getattr(composite.fit(absent, y), ask)(absent)
    assert_allclose(getattr(composite, ask)(broken), expected)
    assert_allclose(getattr(composite.fit(broken, y), ask)(broken), expected)
    alone = composite.predict_by_modality(broken)
    assert list(np.flatnonzero(alone["image"].isna())) == BAD
    assert not alone["table"].isna().any()


@pytest.mark.filterwarnings("ignore:.*could not be encoded")
def test_nothing_to_read_at_all(frames):
    broken, _, y = frames
    vote = ModalityVotingClassifier(members()).fit(broken, y)
    unreadable = broken.assign(image=[b"no image"] * N)
    table = LogisticRegression().fit(broken[["price"]], y).predict_proba(broken[["price"]])
    assert_allclose(vote.predict_proba(unreadable), table)
    with pytest.warns(UserWarning, match="modality 'image' has no row to be fitted on"):
        vote.fit(unreadable, y)
    # A member that was fitted on nothing votes for the prior.
    assert_allclose(vote.predict_proba(broken), (table + 0.5) / 2)
