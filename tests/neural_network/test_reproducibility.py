"""The same seed gives the same network, and what is global stays as it was."""

import pickle
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.utils import check_random_state

from skmm import MultimodalNetClassifier
from skmm.neural_network import GradientModulation, TextBranch


@pytest.mark.parametrize("options", [{}, {"modality_dropout": 0.3}, {"modulation": GradientModulation()}])
def test_fits_are_the_same_bit_for_bit_and_leave_global_states(options, xor, halves):
    X, y, *_ = xor
    torch.manual_seed(3)
    before = torch.get_rng_state()
    settings = {"width": 16, "max_epochs": 3, "batch_size": 128, **options}
    one = MultimodalNetClassifier(halves, "gated", random_state=1, **settings).fit(X, y)
    torch.rand(7)
    other = MultimodalNetClassifier(halves, "gated", random_state=1, **settings).fit(X, y)
    third = MultimodalNetClassifier(halves, "gated", random_state=2, **settings).fit(X, y)
    assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    assert one.loss_curve_ == other.loss_curve_
    assert one.validation_scores_ == other.validation_scores_
    assert not np.array_equal(one.predict_proba(X), third.predict_proba(X))
    torch.manual_seed(3)
    assert torch.equal(before, torch.get_rng_state())


@contextmanager
def kept():
    """Check that nothing global is another in the end."""

    def states():
        mode = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
        return mode, torch.get_rng_state().tolist(), repr(check_random_state(None).get_state()), random.getstate()

    before = states()
    yield
    assert states() == before


SETTINGS = {"width": 16, "max_epochs": 2, "modality_dropout": 0.2, "random_state": 0, "early_stopping": True}


def text_and_numbers(frame):
    text = TextBranch(n_embedding=8, n_hidden=8, dropout=0.3, token_dropout=0.3)
    modalities = [("text", text, "text"), ("numbers", "passthrough", ["weight", "height"])]
    return MultimodalNetClassifier(modalities, **SETTINGS), *frame


def test_global_states_have_no_say_and_do_not_change(frame):
    net, X, y = text_and_numbers(frame)
    answers = []
    n_threads = torch.get_num_threads()
    try:
        for seed in (1, 2):
            torch.manual_seed(seed)
            check_random_state(None).seed(seed)
            random.seed(seed)
            torch.set_num_threads(seed)
            with kept():
                answers.append(clone(net).fit(X, y).predict_proba(X))
    finally:
        torch.set_num_threads(n_threads)
    assert_array_equal(*answers)


def test_loading_draws_nothing(frame):
    net, X, y = text_and_numbers(frame)
    data = pickle.dumps(net.fit(X, y))
    with kept():
        loaded = pickle.loads(data)
    assert_array_equal(loaded.predict_proba(X), net.predict_proba(X))


def test_networks_learn_where_gradients_are_off(frame):
    net, X, y = text_and_numbers(frame)
    with torch.no_grad(), kept():
        found = clone(net).fit(X, y).predict_proba(X)
    assert_array_equal(found, net.fit(X, y).predict_proba(X))


def test_the_default_dtype_is_not_that_of_the_network(frame):
    net, X, y = text_and_numbers(frame)
    torch.set_default_dtype(torch.float64)
    try:
        with kept():
            proba = pickle.loads(pickle.dumps(net.fit(X, y))).predict_proba(X)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {weights.dtype for weights in net.network_.parameters()} == {torch.float32}
    assert proba.dtype == np.float32
    assert_array_equal(net.predict_proba(X), proba)


def test_a_random_state_that_is_an_object_moves_on(small, halves):
    X, y = small
    state = np.random.RandomState(0)
    one, two = (MultimodalNetClassifier(halves, width=8, max_epochs=1, random_state=state).fit(X, y) for _ in range(2))
    assert not np.array_equal(one.predict_proba(X), two.predict_proba(X))
