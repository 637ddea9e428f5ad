"""Data of several test modules."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris


@pytest.fixture
def iris():
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    y = np.array(["cat", "dog", "owl"])[np.arange(90) % 3]
    words = {"cat": ["meow", "fur", "red"], "dog": ["bark", "fur", "blue"], "owl": ["hoot", "wing", "red"]}
    X = pd.DataFrame(
        {
            "caption": [" ".join(rng.choice(words[label], 3)) for label in y],
            "price": rng.normal(size=90) + (y == "dog"),
            "weight": rng.normal(size=90) + 2 * (y == "owl"),
        },
        index=np.arange(90) * 2 + 5,
    )
    return X, y
