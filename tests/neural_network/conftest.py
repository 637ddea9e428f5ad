"""Data that the tests of networks share."""

import numpy as np
import pandas as pd
import pytest

from skmm.datasets import make_multimodal_xor

HALVES = [("a", "passthrough", slice(0, 5)), ("b", "passthrough", slice(5, None))]


@pytest.fixture(scope="session")
def xor():
    """Give 1,000 rows to learn from and 500 to test on: the class is in the product of two modalities only."""
    X, y = make_multimodal_xor(n_samples=1500, random_state=0)
    X = X.to_numpy()
    return X[:1000], y[:1000], X[1000:], y[1000:]


@pytest.fixture
def small():
    """Give 32 rows of 8 random features in float64, and three classes."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 8)), np.arange(32) % 3


@pytest.fixture
def halves():
    """Give two modalities, of 5 columns and of the rest."""
    return list(HALVES)


@pytest.fixture
def frame():
    """Give texts and numbers, some missing, and classes."""
    X = pd.DataFrame(
        {
            "text": ["a red fox", "two hens", None, "an owl at night"] * 8,
            "weight": [6.0, 2.5, 1.0, np.nan] * 8,
            "height": np.arange(32.0),
        }
    )
    return X, np.array(["fox", "hen", "hen", "owl"] * 8, dtype=object)
