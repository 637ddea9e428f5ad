"""Rows to validate on: shares of classes, no class lost, all rows used, whole groups."""

import numpy as np
import pytest
from sklearn.utils import check_random_state

from skmm.neural_network.network import split_validation


@pytest.mark.parametrize("seed", range(5))
def test_shares_of_classes_are_preserved(seed):
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


def test_too_few_rows_to_validate_on():
    message = "Net: validation_fraction=0.01 of 9 rows leaves no row to validate on; change it, pass X_val and y_val"
    with pytest.raises(ValueError, match=message):
        split_validation(9, None, 0.01, check_random_state(0), "Net")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["numbers", "names"])
def test_groups_stay_whole(kind, seed):
    rng = check_random_state(seed)
    groups = rng.randint(50, size=1000)
    groups = groups if kind == "numbers" else np.array([f"speaker {group}" for group in groups])
    strata = rng.randint(3, size=1000)
    train, validation = split_validation(1000, strata, 0.1, rng, "Net", groups)
    assert np.array_equal(np.sort(np.r_[train, validation]), np.arange(1000))
    assert not set(groups[train]) & set(groups[validation])
    # A group has 20 rows, so that some groups come close to any number.
    assert abs(len(validation) - 100) <= 20
    other = split_validation(1000, strata, 0.1, check_random_state(seed + 10), "Net", groups)[1]
    assert not np.array_equal(validation, other)


def test_large_groups_are_better_than_none():
    groups = np.repeat([0, 1, 2], [40, 20, 40])
    assert split_validation(100, None, 0.05, check_random_state(0), "Net", groups)[1].tolist() == [*range(40, 60)]


def test_groups_that_hold_a_whole_class_stay_in_training():
    groups, strata = np.arange(30) // 3, (np.arange(30) < 3).astype(int)
    for seed in range(20):
        train, validation = split_validation(30, strata, 0.3, check_random_state(seed), "Net", groups)
        assert set(strata[train]) == {0, 1}
        assert len(validation) == 9


@pytest.mark.parametrize(("groups", "strata"), [(np.zeros(20), None), (np.arange(20) // 10, np.arange(20) // 10)])
def test_groups_that_cannot_be_split(groups, strata):
    message = rf"validation_fraction=0.2 of {len(np.unique(groups))} groups leaves no row to validate on"
    with pytest.raises(ValueError, match=message):
        split_validation(20, strata, 0.2, check_random_state(0), "Net", groups)
