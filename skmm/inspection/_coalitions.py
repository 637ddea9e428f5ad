r"""Coalitions of modalities to score an estimator with, and the weights that turn their scores into importances.

A coalition :math:`S` is a subset of the modalities :math:`N`, and its value :math:`v(S)` is the score of the estimator
where only these modalities are present. Importances and interactions are linear in :math:`v`, so each is a sum of
terms: a coalition, written as a bit mask, the modality or pair that the term counts for, and a weight.
"""

from itertools import accumulate, chain, combinations, pairwise
from math import comb

import numpy as np


class Coalitions:
    """Distinct coalitions of modalities, and the weights of their values.

    Parameters
    ----------
    n_modalities : int
        Number of modalities.

    draws : list of list of (int, int, float)
        Terms (coalition, modality, weight) of the importances, equally many in each random draw; the importances are
        means over the draws. Without randomness there is one draw.

    pair_terms : list of (int, (int, int), float) or None
        Terms of the interactions of pairs.

    Attributes
    ----------
    members : ndarray of shape (n_coalitions, n_modalities), dtype bool
        Members of each coalition; the first coalition has all modalities.

    weights : ndarray of shape (n_coalitions, n_modalities)
        ``weights.T @ values`` are the importances.

    pair_weights : ndarray of shape (n_coalitions, n_modalities, n_modalities) or None
        The same for the interactions of pairs; NaN for pairs that no coalition tells anything about.
    """

    def __init__(self, n_modalities, draws, pair_terms):
        numbers = {2**n_modalities - 1: 0}
        for coalition, *_ in chain(*draws, pair_terms or ()):
            numbers.setdefault(coalition, len(numbers))
        self.members = np.array([[mask >> i & 1 for i in range(n_modalities)] for mask in numbers], dtype=bool)
        # Of shape (n_draws, n_terms) each.
        self._rows = np.array([[numbers[coalition] for coalition, _, _ in terms] for terms in draws])
        self._modalities = np.array([[modality for _, modality, _ in terms] for terms in draws])
        self._term_weights = np.array([[weight for _, _, weight in terms] for terms in draws])
        self.weights = self._mean_weights(np.arange(len(draws)))
        self.pair_weights = None
        if pair_terms is not None:
            self.pair_weights = np.zeros((len(numbers), n_modalities, n_modalities))
            for coalition, (i, j), weight in pair_terms:
                weights = self.pair_weights[numbers[coalition]]
                weights[i, j] += weight
                weights[j, i] += weight

    def resample(self, rng):
        """Return the weights of a bootstrap sample of the draws; of a single draw it is the same one."""
        n_draws = len(self._rows)
        return self.weights if n_draws == 1 else self._mean_weights(rng.randint(n_draws, size=n_draws))

    def _mean_weights(self, draws):
        weights = np.zeros(self.members.shape)
        np.add.at(weights, (self._rows[draws], self._modalities[draws]), self._term_weights[draws])
        return weights / len(draws)


def leave_out(n_modalities, interactions):
    r"""Return the coalitions that leave out each modality, and each pair.

    The importance of a modality is :math:`v(N) - v(N \setminus i)`, the interaction of two
    :math:`v(N) - v(N \setminus i) - v(N \setminus j) + v(N \setminus ij)`.
    """
    full = 2**n_modalities - 1
    modalities = range(n_modalities)
    terms = [term for i in modalities for term in _terms(full - (1 << i), i, 1.0)]
    pair_terms = [
        term for i, j in combinations(modalities, 2) for term in _pair_terms(full - (1 << i) - (1 << j), i, j, 1.0)
    ]
    return Coalitions(n_modalities, [terms], pair_terms if interactions else None)


def shapley(n_modalities, interactions, max_coalitions, rng):
    r"""Return coalitions weighted for Shapley values and for the Shapley interaction index of pairs.

    .. math:: \phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|!\,(m - |S| - 1)!}{m!} [v(S \cup i) - v(S)], \qquad
              I_{ij} = \sum_{S \subseteq N \setminus ij} \frac{|S|!\,(m - |S| - 2)!}{(m - 1)!}
              [v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)]

    with :math:`m` modalities. The sums are complete if there are at most ``max_coalitions`` coalitions. Otherwise they
    are estimated by means over random orders of the modalities, where :math:`S` are the modalities that precede
    :math:`i`, or that precede two neighbours :math:`i, j`.
    """
    if 2**n_modalities <= max_coalitions:
        return _all_coalitions(n_modalities, interactions)
    return _sample_coalitions(n_modalities, interactions, max_coalitions, rng)


def _terms(coalition, i, weight):
    """Return the terms of the importance of a modality that joins a coalition."""
    return [(coalition + (1 << i), i, weight), (coalition, i, -weight)]


def _pair_terms(coalition, i, j, weight):
    """Return the terms of the interaction of two modalities that join a coalition."""
    one, other = 1 << i, 1 << j
    signs = {coalition + one + other: 1, coalition + one: -1, coalition + other: -1, coalition: 1}
    return [(joined, (i, j), sign * weight) for joined, sign in signs.items()]


def _all_coalitions(m, interactions):
    terms, pair_terms = [], []
    for coalition in range(2**m):
        size = coalition.bit_count()
        outside = [i for i in range(m) if not coalition >> i & 1]
        for i in outside:
            terms += _terms(coalition, i, 1 / (m * comb(m - 1, size)))
        for i, j in combinations(outside, 2) if interactions else ():
            pair_terms += _pair_terms(coalition, i, j, 1 / ((m - 1) * comb(m - 2, size)))
    return Coalitions(m, [terms], pair_terms if interactions else None)


def _sample_coalitions(m, interactions, max_coalitions, rng):
    """Draw orders, each followed by its reverse, until their coalitions would exceed the bound."""
    visited, draws, pairs = set(), [], []
    while len(visited) < 2**m:
        order = rng.permutation(m).tolist()
        terms, new_pairs = [], []
        for members in (order, order[::-1]):
            preceding = list(accumulate((1 << i for i in members), initial=0))
            for coalition, i in zip(preceding, members, strict=False):
                # Each modality joins once in each order.
                terms += _terms(coalition, i, 0.5)
            if interactions:
                new_pairs += zip(preceding, pairwise(members), strict=False)
        pair_terms = [term for coalition, pair in new_pairs for term in _pair_terms(coalition, *pair, 1.0)]
        new = {coalition for coalition, *_ in terms + pair_terms} - visited
        if draws and len(visited) + len(new) > max_coalitions:
            break
        visited |= new
        draws.append(terms)
        pairs += new_pairs
    if not interactions:
        return Coalitions(m, draws, None)
    counts = np.zeros((m, m))
    for _, (i, j) in pairs:
        counts[[i, j], [j, i]] += 1
    coalitions = Coalitions(
        m, draws, [term for coalition, (i, j) in pairs for term in _pair_terms(coalition, i, j, 1 / counts[i, j])]
    )
    coalitions.pair_weights[:, (counts == 0) & ~np.eye(m, dtype=bool)] = np.nan
    return coalitions
