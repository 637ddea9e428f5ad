"""Rows that are spared: shares of classes, no class lost, all rows used."""

import numpy as np
import pytest
from sklearn.utils import check_random_state

from skmm.neural_network.network import split_validation


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_classes_are_kept(seed):
    strata = np.repeat([0, 1, 2, 3], [500, 300, 199, 1])
    rng = check_random_state(seed)
    strata = rng.permutation(strata)
    train, validation = split_validation(1000, strata, 0.1, rng, "Net")
    assert np.array_equal(np.sort(np.r_[train, validation]), np.arange(1000))
    counts = np.bincount(strata[validation], minlength=4)
    assert (abs(counts - [50, 30, 20, 0]) <= 1).all()
    assert set(strata[train]) == {0, 1, 2, 3}


def test_without_classes_it_is_a_random_share():
    rng = check_random_state(0)
    first = split_validation(1000, None, 0.25, rng, "Net")[1]
    second = split_validation(1000, None, 0.25, rng, "Net")[1]
    assert abs(len(first) - 250) <= 1
    assert 30 < len(np.intersect1d(first, second)) < 100


def test_too_few_rows_to_spare_some():
    message = "Net: validation_fraction=0.01 of 9 rows leaves no row to validate on; change it, or use early_stopping"
    with pytest.raises(ValueError, match=message):
        split_validation(9, None, 0.01, check_random_state(0), "Net")
