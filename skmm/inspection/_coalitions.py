r"""Coalitions of modalities to score an estimator with, and the weights that turn their scores into importances.

A coalition :math:`S` is a subset of the modalities :math:`N`, and its value :math:`v(S)` is the score of the estimator
where only these modalities are present. Importances and interactions are linear in :math:`v`, so a list of coalitions
and the weights of their values define them.
"""

from itertools import accumulate, combinations
from math import comb

import numpy as np


class Coalitions:
    """Distinct coalitions of modalities, and the weights of their values.

    Attributes
    ----------
    members : ndarray of shape (n_coalitions, n_modalities), dtype bool
        Members of each coalition; the first coalition has all modalities.

    weights : ndarray of shape (n_coalitions, n_modalities)
        ``weights.T @ values`` are the importances.

    pair_weights : ndarray of shape (n_coalitions, n_modalities, n_modalities) or None
        The same for the interactions of pairs; NaN for pairs that no coalition tells anything about.
    """

    def __init__(self, members, weights, pair_weights):
        self.members = members
        self.weights = weights
        self.pair_weights = pair_weights

    def resample(self, rng):
        """Return the weights of another random draw of coalitions; here nothing is random, so they are the same."""
        return self.weights


class SampledCoalitions(Coalitions):
    """Coalitions along random orders in which the modalities join, each order followed by its reverse.

    Parameters
    ----------
    members : ndarray of shape (n_coalitions, n_modalities), dtype bool
        Members of each coalition.

    steps : ndarray of shape (n_draws, n_steps, 3), dtype int
        Steps of an order and of its reverse: number of the coalition before the step, number of the one after it, and
        the modality that joined.

    pair_weights : ndarray of shape (n_coalitions, n_modalities, n_modalities) or None
        Weights of the interactions.
    """

    def __init__(self, members, steps, pair_weights):
        self._steps = steps
        self._shape = members.shape
        super().__init__(members, self._mean_weights(np.arange(len(steps))), pair_weights)

    def resample(self, rng):
        """Return the weights of a bootstrap sample of the orders."""
        return self._mean_weights(rng.randint(len(self._steps), size=len(self._steps)))

    def _mean_weights(self, draws):
        smaller, larger, joined = self._steps[draws].reshape(-1, 3).T
        weights = np.zeros(self._shape)
        np.add.at(weights, (larger, joined), 1.0)
        np.add.at(weights, (smaller, joined), -1.0)
        # Each modality joins once in each order.
        return weights / (2 * len(draws))


class _Table:
    """Coalitions as bit masks, numbered in the order in which they were first looked up."""

    def __init__(self, n_modalities):
        self.n_modalities = n_modalities
        self.everyone = (1 << n_modalities) - 1
        self._rows = {}
        self[self.everyone]

    def __getitem__(self, coalition):
        return self._rows.setdefault(coalition, len(self._rows))

    def __contains__(self, coalition):
        return coalition in self._rows

    def __len__(self):
        return len(self._rows)

    def members(self):
        """Return the coalitions as a mask of shape (n_coalitions, n_modalities)."""
        return np.array(
            [[coalition >> i & 1 for i in range(self.n_modalities)] for coalition in self._rows], dtype=bool
        )

    def weights(self, terms, shape):
        """Return the sum of terms (coalition, target, weight) as an array of shape (n_coalitions, *shape)."""
        weights = np.zeros((len(self), *shape))
        for coalition, target, weight in terms:
            weights[(self[coalition], *target)] += weight
        return weights


def leave_out(n_modalities, interactions):
    r"""Return the coalitions that leave out each modality, and each pair.

    The importance of a modality is :math:`v(N) - v(N \setminus i)`, the interaction of two
    :math:`v(N) - v(N \setminus i) - v(N \setminus j) + v(N \setminus ij)`.

    Parameters
    ----------
    n_modalities : int
        Number of modalities.

    interactions : bool
        Whether to weight pairs as well.

    Returns
    -------
    coalitions : Coalitions
        All modalities, all but one, and all but two.
    """
    table = _Table(n_modalities)
    full = table.everyone
    modalities = range(n_modalities)
    terms = [term for i in modalities for term in ((full, (i,), 1.0), (full - (1 << i), (i,), -1.0))]
    pairs = combinations(modalities, 2) if interactions else ()
    pair_terms = [term for i, j in pairs for term in _pair_terms(full - (1 << i) - (1 << j), i, j, 1.0)]
    for coalition, *_ in terms + pair_terms:
        table[coalition]
    return Coalitions(
        table.members(),
        table.weights(terms, (n_modalities,)),
        table.weights(pair_terms, (n_modalities, n_modalities)) if interactions else None,
    )


def shapley(n_modalities, interactions, max_coalitions, rng):
    r"""Return coalitions weighted for Shapley values and for the Shapley interaction index of pairs.

    .. math:: \phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(m - |S| - 1)!}{m!} [v(S \cup i) - v(S)], \qquad
              I_{ij} = \sum_{S \subseteq N \setminus ij} \frac{|S|!\,(m - |S| - 2)!}{(m - 1)!}
              [v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)]

    The sums are complete if there are at most ``max_coalitions`` coalitions. Otherwise they are estimated by means over
    random orders of the modalities, where :math:`S` are the modalities that precede :math:`i`, or that precede two
    neighbours :math:`i, j`.

    Parameters
    ----------
    n_modalities : int
        Number of modalities, :math:`m`.

    interactions : bool
        Whether to weight pairs as well.

    max_coalitions : int
        Largest number of coalitions; at least one order and its reverse are drawn in any case.

    rng : RandomState instance
        Source of the orders.

    Returns
    -------
    coalitions : Coalitions
        All of them, or a sample.
    """
    if 2**n_modalities <= max_coalitions:
        return _all_coalitions(n_modalities, interactions)
    return _sample_coalitions(n_modalities, interactions, max_coalitions, rng)


def _pair_terms(coalition, i, j, weight):
    """Yield the terms of the interaction of i and j when both join a coalition."""
    one, other = 1 << i, 1 << j
    for a, b in ((i, j), (j, i)):
        yield coalition + one + other, (a, b), weight
        yield coalition + one, (a, b), -weight
        yield coalition + other, (a, b), -weight
        yield coalition, (a, b), weight


def _all_coalitions(m, interactions):
    table = _Table(m)
    coalitions = range(1 << m)
    for coalition in coalitions:
        table[coalition]

    def terms():
        for coalition in coalitions:
            for i in _outside(coalition, m):
                weight = 1 / (m * comb(m - 1, coalition.bit_count()))
                yield coalition + (1 << i), (i,), weight
                yield coalition, (i,), -weight

    def pair_terms():
        for coalition in coalitions:
            for i, j in combinations(_outside(coalition, m), 2):
                yield from _pair_terms(coalition, i, j, 1 / ((m - 1) * comb(m - 2, coalition.bit_count())))

    pair_weights = table.weights(pair_terms(), (m, m)) if interactions else None
    return Coalitions(table.members(), table.weights(terms(), (m,)), pair_weights)


def _outside(coalition, m):
    """Return the numbers of the modalities that are not in a coalition."""
    return [i for i in range(m) if not coalition >> i & 1]


def _sample_coalitions(m, interactions, max_coalitions, rng):
    table = _Table(m)
    all_steps, all_pairs = [], []
    while len(table) < 1 << m:
        steps, pairs = [], []
        order = rng.permutation(m).tolist()
        for members in (order, order[::-1]):
            walk = list(accumulate((1 << i for i in members), initial=0))
            steps += zip(walk[:-1], walk[1:], members, strict=True)
            if interactions:
                pairs += zip(walk[:-2], members[:-1], members[1:], strict=True)
        visited = {coalition for smaller, larger, _ in steps for coalition in (smaller, larger)}
        visited |= {coalition + (1 << second) for coalition, _, second in pairs}
        if all_steps and len(table) + sum(coalition not in table for coalition in visited) > max_coalitions:
            break
        for coalition in sorted(visited):
            table[coalition]
        all_steps.append(steps)
        all_pairs += pairs

    pair_weights = None
    if interactions:
        count = np.zeros((m, m))
        for _, i, j in all_pairs:
            count[[i, j], [j, i]] += 1
        count[(count == 0) & ~np.eye(m, dtype=bool)] = np.nan
        terms = (term for coalition, i, j in all_pairs for term in _pair_terms(coalition, i, j, 1.0))
        pair_weights = table.weights(terms, (m, m)) / np.maximum(count, 1)
    steps = np.array([[(table[smaller], table[larger], i) for smaller, larger, i in steps] for steps in all_steps])
    return SampledCoalitions(table.members(), steps, pair_weights)
