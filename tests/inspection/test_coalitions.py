"""Weights of coalitions against the definitions, order by order."""

from inspect import signature
from itertools import combinations, permutations

import numpy as np
import pytest

from skmm.inspection import modality_contributions, modality_importance
from skmm.inspection._coalitions import leave_out, shapley


def game(m, seed=0):
    """A value for every subset of m players."""
    rng = np.random.default_rng(seed)
    return {frozenset(s): rng.normal() for size in range(m + 1) for s in combinations(range(m), size)}


def values_of(coalitions, v):
    return np.array([v[frozenset(np.flatnonzero(members))] for members in coalitions.members])


def shapley_by_orders(m, v):
    phi = np.zeros(m)
    orders = list(permutations(range(m)))
    for order in orders:
        for k, i in enumerate(order):
            phi[i] += v[frozenset(order[: k + 1])] - v[frozenset(order[:k])]
    return phi / len(orders)


def difference(v, coalition, i, j):
    return v[coalition | {i, j}] - v[coalition | {i}] - v[coalition | {j}] + v[coalition]


def interactions_by_orders(m, v):
    """The two come in as one, so an order is one of the others and of the pair."""
    index = np.zeros((m, m))
    for i, j in combinations(range(m), 2):
        orders = list(permutations([k for k in range(m) if k not in (i, j)] + [None]))
        differences = [difference(v, frozenset(order[: order.index(None)]), i, j) for order in orders]
        index[i, j] = index[j, i] = np.mean(differences)
    return index


@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_exact_values(m):
    v = game(m)
    coalitions = shapley(m, True, 1024, None)
    assert len(coalitions.members) == len({tuple(members) for members in coalitions.members}) == 2**m
    assert coalitions.members[0].all()
    values = values_of(coalitions, v)
    phi = coalitions.weights.T @ values
    np.testing.assert_allclose(phi, shapley_by_orders(m, v), atol=1e-12)
    assert phi.sum() == pytest.approx(v[frozenset(range(m))] - v[frozenset()], abs=1e-12)
    pairs = np.einsum("cij,c->ij", coalitions.pair_weights, values)
    np.testing.assert_allclose(pairs, interactions_by_orders(m, v), atol=1e-12)
    assert coalitions.resample(None) is coalitions.weights


def test_exact_values_of_a_known_game():
    # One left glove, two right gloves; a pair is worth 1: 2/3 and twice 1/6.
    v = {s: float(0 in s and len(s) > 1) for s in game(3)}
    coalitions = shapley(3, True, 8, None)
    np.testing.assert_allclose(coalitions.weights.T @ values_of(coalitions, v), [2 / 3, 1 / 6, 1 / 6])


@pytest.mark.parametrize("function", [modality_importance, modality_contributions])
def test_ten_modalities_are_exact_by_default(function):
    bound = signature(function).parameters["max_coalitions"].default
    assert len(shapley(10, False, bound, None).members) == 2**10
    assert len(shapley(11, False, bound, np.random.RandomState(0)).members) <= bound


@pytest.mark.parametrize("m", [3, 6, 12])
def test_sampled_values_share_out_everything_within_the_bound(m):
    rng = np.random.RandomState(0)
    coalitions = shapley(m, True, max(4 * m, 2**m // 4 if m < 10 else 500), rng)
    members = [frozenset(np.flatnonzero(row)) for row in coalitions.members]
    assert len(set(members)) == len(members) <= max(4 * m, 500)
    v = {s: rng.normal() for s in members}
    for weights in (coalitions.weights, coalitions.resample(rng)):
        assert (weights.T @ values_of(coalitions, v)).sum() == pytest.approx(v[frozenset(range(m))] - v[frozenset()])


def test_sampled_values_approach_the_exact_ones():
    m = 8
    v = game(m)
    rng = np.random.RandomState(0)
    draws, pair_draws = [], []
    for _ in range(300):
        coalitions = shapley(m, True, 120, rng)
        values = values_of(coalitions, v)
        draws.append(coalitions.weights.T @ values)
        pair_draws.append(np.einsum("cij,c->ij", coalitions.pair_weights, values))
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0) - shapley_by_orders(m, v)) < 5 * error).all()
    n_estimates = np.sum(~np.isnan(pair_draws), axis=0)
    error = np.nanstd(pair_draws, axis=0) / np.sqrt(n_estimates)
    exact = interactions_by_orders(m, v)
    assert (np.abs(np.nanmean(pair_draws, axis=0) - exact) <= 5 * error).all()


def test_additive_games_need_no_luck():
    m = 12
    worth = np.arange(m)
    coalitions = shapley(m, True, 300, np.random.RandomState(0))
    values = coalitions.members @ worth
    np.testing.assert_allclose(coalitions.weights.T @ values, worth, atol=1e-9)
    pairs = np.einsum("cij,c->ij", coalitions.pair_weights, values)
    np.testing.assert_allclose(pairs[~np.isnan(pairs)], 0, atol=1e-9)


def test_resampled_weights_vary_as_new_samples_do():
    m = 8
    v = game(m)
    rng = np.random.RandomState(0)
    fresh = []
    for _ in range(200):
        coalitions = shapley(m, False, 150, rng)
        fresh.append(coalitions.weights.T @ values_of(coalitions, v))
    resampled = [coalitions.resample(rng).T @ values_of(coalitions, v) for _ in range(200)]
    ratio = np.std(resampled, axis=0).mean() / np.std(fresh, axis=0).mean()
    assert 0.6 < ratio < 1.6


def test_bound_below_one_order_still_gives_values():
    coalitions = shapley(3, True, 1, np.random.RandomState(0))
    assert len(coalitions.members) >= 6
    assert len(shapley(2, True, 1, np.random.RandomState(0)).members) == 4
    assert len(shapley(1, True, 1, np.random.RandomState(0)).members) == 2


@pytest.mark.parametrize("m", [1, 2, 4])
def test_leave_out(m):
    v = game(m)
    everyone = frozenset(range(m))
    coalitions = leave_out(m, True)
    assert coalitions.members[0].all()
    assert len(coalitions.members) == 1 + m + m * (m - 1) // 2
    values = values_of(coalitions, v)
    np.testing.assert_allclose(coalitions.weights.T @ values, [v[everyone] - v[everyone - {i}] for i in range(m)])
    pairs = np.einsum("cij,c->ij", coalitions.pair_weights, values)
    expected = [[0 if i == j else difference(v, everyone - {i, j}, i, j) for j in range(m)] for i in range(m)]
    np.testing.assert_allclose(pairs, expected, atol=1e-12)


@pytest.mark.parametrize("m", [1, 4])
def test_without_pairs(m):
    assert len(leave_out(m, False).members) == 1 + m
    for coalitions in (
        leave_out(m, False),
        shapley(m, False, 16, None),
        shapley(m, False, 1, np.random.RandomState(0)),
    ):
        assert coalitions.pair_weights is None
