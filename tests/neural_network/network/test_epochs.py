"""Rows of a step and epochs of a fit."""

import numpy as np
import pytest

from skmm import MultimodalNetClassifier
from skmm.neural_network.network._training import resolve_batch_size, resolve_epochs


@pytest.mark.parametrize(("n_samples", "size"), [(1, 1), (30, 30), (64, 64), (2560, 64), (4000, 100), (10**6, 200)])
def test_batches_grow_with_the_rows(n_samples, size):
    assert resolve_batch_size("auto", n_samples) == size


def test_a_given_size_holds_but_for_fewer_rows():
    assert resolve_batch_size(500, 1000) == 500
    assert resolve_batch_size(500, 100) == 100


def test_many_rows_take_few_epochs_and_few_rows_many():
    found = [resolve_epochs("auto", "auto", n_samples) for n_samples in (10, 384, 640, 2560, 10**6)]
    assert found == [100, 100, 60, 30, 30]
    assert resolve_epochs("auto", 250, 2500) == 60
    assert resolve_epochs(7, "auto", 10) == 7


def test_rows_of_weight_0_do_not_count(halves):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(640, 8)), np.arange(640) % 2
    net = MultimodalNetClassifier(halves, width=4, random_state=0)
    assert net.fit(X, y).n_epochs_ == 60
    assert net.fit(X, y, sample_weight=np.arange(640) < 320).n_epochs_ == 100
