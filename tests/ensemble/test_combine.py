"""Rules of combination and learned weights, as functions of arrays."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import check_grad

from skmm.ensemble import _combine

RULES = ("soft", "hard", "product", "max", "median", "rank")
M, N, L, C = 3, 40, 2, 4


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    P = rng.dirichlet(np.ones(C), size=(M, N, L))
    present = rng.random((M, N)) < 0.6
    P[~present] = np.nan
    return P, present


def combine(rule, P, present, weights=(1, 1, 1), prior=None):
    prior = np.full((L, C), 1 / C) if prior is None else prior
    priors = np.broadcast_to(prior, (len(P), *prior.shape))
    return _combine.combine(rule, P, present, np.array(weights, dtype=float), priors, prior)


@pytest.mark.parametrize("rule", RULES)
def test_result_is_a_distribution_in_every_row(answers, rule):
    P, present = answers
    out = combine(rule, P, present, (1, 2, 4))
    assert out.shape == (N, L, C)
    assert (out >= 0).all()
    assert_allclose(out.sum(axis=-1), 1)


@pytest.mark.parametrize("rule", RULES)
def test_a_row_without_members_gets_the_prior(answers, rule):
    P, present = answers
    prior = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    alone = ~present.any(axis=0)
    assert alone.any()
    assert_array_equal(combine(rule, P, present, prior=prior)[alone], np.broadcast_to(prior, (alone.sum(), L, C)))


@pytest.mark.parametrize("rule", ["soft", "product", "max", "median"])
def test_a_single_member_is_repeated(answers, rule):
    P, present = answers
    one = present.sum(axis=0) == 1
    expected = np.nansum(P[:, one], axis=0)
    assert_allclose(combine(rule, P, present, (1, 2, 5))[one], expected)


@pytest.mark.parametrize("rule", RULES)
def test_a_member_of_weight_zero_is_as_good_as_absent(answers, rule):
    P, present = answers
    rows = present[:2].any(axis=0)
    assert_allclose(combine(rule, P, present, (1, 2, 0))[rows], combine(rule, P[:2], present[:2], (1, 2))[rows])


@pytest.mark.parametrize("rule", RULES)
def test_members_count_equally_where_all_present_have_weight_zero(answers, rule):
    P, present = answers
    rows = present[1:].any(axis=0) & ~present[0]
    assert rows.any()
    assert_allclose(combine(rule, P, present, (1, 0, 0))[rows], combine(rule, P, present)[rows])


def test_rules_by_hand():
    P = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])[:, None, None]
    prior = np.array([[0.5, 0.25, 0.25]])
    present = np.ones((3, 1), dtype=bool)

    def by(rule, weights=(1, 1, 1)):
        return combine(rule, P, present, weights, prior)[0, 0]

    assert_allclose(by("soft"), [1.3 / 3, 1.3 / 3, 0.4 / 3])
    assert_allclose(by("max"), np.array([0.7, 0.8, 0.2]) / 1.7)
    assert_allclose(by("median"), np.array([0.5, 0.3, 0.1]) / 0.9)
    # The third counts more than the others together.
    assert_allclose(by("median", (1, 1, 3)), P[2, 0, 0])
    # Ranks (2, 1, 0), (2, 1, 0), and (.5, 2, .5), where two share theirs; each sums to 3.
    assert_allclose(by("rank"), np.array([4.5, 4, 0.5]) / 9)
    product = np.array([0.7 * 0.5 * 0.1 / 0.5**2, 0.2 * 0.3 * 0.8 / 0.25**2, 0.1 * 0.2 * 0.1 / 0.25**2])
    assert_allclose(by("product"), product / product.sum())


def test_weighted_median_of_equal_weights_is_numpys():
    rng = np.random.default_rng(0)
    for n_members in (1, 2, 3, 4, 5):
        values = rng.normal(size=(n_members, 30, 2))
        shares = np.full((n_members, 30), 1 / n_members)
        assert_allclose(_combine.median(values, shares), np.median(values, axis=0))


def test_a_class_that_an_expert_never_saw_is_left_to_the_others():
    prior = np.array([[0.5, 0.3, 0.2]])
    priors = np.array([[[0.5, 0.3, 0.2]], [[0.6, 0.4, 0.0]]])
    P = np.array([[[[0.1, 0.1, 0.8]]], [[[0.5, 0.5, 0.0]]]])
    out = _combine.combine("product", P, np.ones((2, 1), dtype=bool), np.ones(2), priors, prior)[0, 0]
    expected = np.array([0.1 * 0.5 / 0.6, 0.1 * 0.5 / 0.4, 0.8])
    assert_allclose(out, expected / expected.sum())


def losses(answers):
    P, present = answers
    rng = np.random.default_rng(1)
    codes, rows = rng.integers(0, C, (N, L)), rng.random(N) * present.any(axis=0)
    prior = np.full((L, C), 1 / C)
    ratios = _combine.log_ratios(P, present, np.broadcast_to(prior, (M, L, C)))
    return {
        "mean": _combine.log_loss_of_mean(P, codes, present, rows),
        "product": _combine.log_loss_of_product(ratios, codes, prior, rows),
        "squares": _combine.squared_error(P, np.eye(C)[codes], present, rows),
    }


@pytest.mark.parametrize("name", ["mean", "product", "squares"])
def test_gradients_of_the_losses(answers, name):
    loss = losses(answers)[name]
    for weights in ([0.2, 0.3, 0.5], [0.9, 0.08, 0.02]):
        gradient = loss(np.array(weights))[1]
        assert np.abs(gradient).max() > 1e-3
        assert check_grad(lambda w: loss(w)[0], lambda w: loss(w)[1], np.array(weights)) < 1e-5


@pytest.mark.parametrize("name", ["mean", "squares"])
def test_learned_weights_beat_a_grid_over_the_simplex(answers, name):
    loss = losses(answers)[name]
    weights = _combine.learn_weights(loss, M, np.ones(M, dtype=bool))
    assert_allclose(weights.sum(), 1)
    assert (weights >= 0).all()
    grid = [(a, b, 1 - a - b) for a in np.linspace(0.01, 0.98, 30) for b in np.linspace(0.01, 0.99 - a, 30)]
    best = min(loss(np.array(point))[0] for point in grid)
    # Weights below 1e-6 are set to 0, which may cost that much.
    assert loss(np.maximum(weights, 1e-8))[0] <= best + 1e-5


def test_learned_exponents_beat_a_grid(answers):
    loss = losses(answers)["product"]
    weights, sharpness = _combine.learn_exponents(loss, M)
    assert_allclose(weights.sum(), 1)
    exponents = sharpness * weights / (weights**2).sum()
    steps = np.linspace(0, 2, 12)
    best = min(loss(np.array([a, b, c]))[0] for a in steps for b in steps for c in steps)
    assert loss(exponents)[0] <= best + 1e-6


def test_experts_that_repeat_each_other_count_once():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, (5000, 1))
    x = 2.0 * codes + rng.normal(size=(5000, 1))
    p = 1 / (1 + np.exp(-2 * (x - 1)))
    P = np.array([np.stack([1 - p, p], axis=-1)] * 3)
    prior = np.full((1, 2), 0.5)
    present = np.ones((3, 5000), dtype=bool)
    ratios = _combine.log_ratios(P, present, np.broadcast_to(prior, (3, 1, 2)))
    weights, sharpness = _combine.learn_exponents(_combine.log_loss_of_product(ratios, codes, prior, np.ones(5000)), 3)
    assert_allclose(weights, 1 / 3)
    assert_allclose(sharpness, 1 / 3, atol=0.03)


def test_members_that_never_answered_get_no_weight(answers):
    loss = losses(answers)["mean"]
    assert_allclose(_combine.learn_weights(loss, M, np.array([True, False, False])), [1, 0, 0])
    assert _combine.learn_weights(loss, M, np.array([True, False, True]))[1] == 0
