"""Rules that combine members' answers, and weights learned for them.

Shapes: answers P are (n_members, n_samples, n_labels, n_classes) for classes and
(n_members, n_samples, n_outputs) for numbers, NaN where a member abstains; present, the mask of answers, is
(n_members, n_samples); weights and exponents of members are (n_members,). The prior, frequencies of classes, is
(n_labels, n_classes), and member_priors, those in the rows that a member was fitted on, has one more axis for members.
Weights of rows, sample_weight, are (n_samples,), and 0 where no member answers.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import rankdata

_EPS = np.finfo(float).eps


def row_weights(weights, present):
    """Return each member's share in each row, of shape (n_members, n_samples).

    Members that abstain get 0 and the others sum to 1; where all that are present have weight 0, they
    count equally. Columns of rows without any member are 0.
    """
    shares = weights[:, None] * present
    silent = shares.sum(axis=0) == 0
    shares[:, silent] = present[:, silent]
    total = shares.sum(axis=0)
    return np.divide(shares, total, out=np.zeros(shares.shape), where=total > 0)


def _spread(shares, P):
    """Return shares with as many dimensions as P."""
    return shares.reshape(shares.shape + (1,) * (P.ndim - 2))


def mean(P, shares):
    """Return the weighted mean over the members that are present."""
    shares = _spread(shares, P)
    return np.where(shares > 0, shares * P, 0).sum(axis=0)


def median(P, shares):
    """Return the weighted median over the members that are present; the midpoint where both halves weigh the same."""
    shares = np.broadcast_to(_spread(shares, P), P.shape)
    values = np.where(shares > 0, P, np.inf)
    order = np.argsort(values, axis=0)
    values = np.take_along_axis(values, order, axis=0)
    reached = np.cumsum(np.take_along_axis(shares, order, axis=0), axis=0)
    lower = np.argmax(reached >= 0.5 - 1e-12, axis=0)[None]
    upper = np.argmax(reached >= 0.5 + 1e-12, axis=0)[None]
    return (np.take_along_axis(values, lower, axis=0)[0] + np.take_along_axis(values, upper, axis=0)[0]) / 2


def largest(P, shares):
    """Return the largest weighted probability of each class."""
    shares = _spread(shares, P)
    return np.where(shares > 0, shares * P, 0).max(axis=0)


def borda(P, shares):
    """Return the weighted mean of each class's rank, 0 for the last; ties get their mean rank."""
    return mean(np.where(np.isnan(P), np.nan, rankdata(np.nan_to_num(P), axis=-1) - 1), shares)


def log_ratios(P, present, member_priors):
    """Return log P(class | member) - log P(class), 0 where a member abstains or has never seen the class."""
    priors = np.maximum(member_priors, _EPS)[:, None]
    ratios = np.log(np.maximum(np.nan_to_num(P), _EPS)) - np.log(priors)
    return np.where(_spread(present, P) & (member_priors[:, None] > 0), ratios, 0)


def product(ratios, shares, prior, sharpness=1.0):
    """Return the log of the product of experts: log prior + sum of exponent times log ratio.

    The exponents are share / sum(share^2). They are 1 for members that count equally, whatever their number, and a
    member of share 0 changes no other exponent. ``sharpness`` multiplies all of them.
    """
    squares = (shares**2).sum(axis=0)
    exponents = np.divide(shares, squares, out=np.zeros(shares.shape), where=squares > 0)
    return _pool(ratios, sharpness * exponents, prior)


def _pool(ratios, exponents, prior):
    return np.log(np.maximum(prior, _EPS)) + (_spread(exponents, ratios) * ratios).sum(axis=0)


def normalise(scores, prior):
    """Return scores that sum to 1 over the classes; rows of zeros become the prior."""
    total = scores.sum(axis=-1, keepdims=True)
    return np.where(total > 0, scores / np.where(total > 0, total, 1), prior)


def combine(rule, P, present, weights, member_priors, prior, sharpness=1.0):
    """Combine probabilities, or for "hard" votes, into distributions of shape (n_samples, n_labels, n_classes).

    A row in which all members abstain gets the prior. ``sharpness`` is the factor on the exponents of "product".
    """
    shares = row_weights(weights, present)
    if rule in ("soft", "hard"):
        combined = mean(P, shares)
    elif rule == "product":
        ratios = log_ratios(P, present, member_priors)
        combined = softmax(product(ratios, shares, prior, sharpness), axis=-1)
    else:
        combined = normalise({"max": largest, "median": _safe_median, "rank": borda}[rule](P, shares), prior)
    combined[~present.any(axis=0)] = prior
    return combined


def _safe_median(P, shares):
    middle = median(P, shares)
    return np.where(np.isfinite(middle), middle, 0)


def learn_weights(loss_and_gradient, n_members, able):
    """Return the weights of sum 1, none below 0, that minimise a loss, starting from equal ones.

    ``loss_and_gradient`` takes weights and returns the loss and its gradient. ``able`` is the mask of the members that
    answered at all; the others get weight 0.
    """
    able = able if able.any() else np.ones(n_members, dtype=bool)
    start = able / able.sum()
    if able.sum() == 1:
        return start

    def loss_of_able(able_weights):
        weights = np.zeros(n_members)
        weights[able] = able_weights
        loss, gradient = loss_and_gradient(weights)
        return loss, gradient[able]

    # Bounded above 0: a row whose members all have weight 0 has no loss.
    optimum = minimize(
        loss_of_able,
        start[able],
        jac=True,
        method="SLSQP",
        bounds=[(1e-8, 1)] * int(able.sum()),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 200, "ftol": 1e-9},
    )
    weights = np.zeros(n_members)
    weights[able] = np.where(optimum.x > 1e-6, optimum.x, 0)
    return weights / weights.sum() if np.isfinite(optimum.x).all() and weights.any() else start


def squared_error(P, truth, present, sample_weight):
    """Return the mean squared error of the weighted mean, as a function of the weights.

    The truth, targets or one-hot classes, has the shape of the answers of one member.
    """
    axes = tuple(range(2, P.ndim))
    total = sample_weight.sum()

    def loss_and_gradient(weights):
        raw = (weights[:, None] * present).sum(axis=0)
        shares = row_weights(weights, present)
        combined = mean(P, shares)
        error = combined - truth
        slope = (np.where(np.isnan(P), 0, P - combined) * error).sum(axis=axes) * present
        gradient = 2 * (sample_weight / np.maximum(raw, 1e-12) * slope).sum(axis=1)
        loss = (sample_weight * (error**2).reshape(len(error), -1).sum(axis=1)).sum()
        return loss / total, gradient / total

    return loss_and_gradient


def log_loss_of_mean(P, codes, present, sample_weight):
    """Return the log loss of the mean of probabilities, as a function of the weights; convex if all are present."""
    true = np.take_along_axis(np.nan_to_num(P), codes[None, :, :, None], axis=-1)[..., 0]
    total = sample_weight.sum()

    def loss_and_gradient(weights):
        raw = np.maximum((weights[:, None] * present).sum(axis=0), 1e-12)
        mixed = np.maximum((weights[:, None, None] * true).sum(axis=0), _EPS)
        loss = (sample_weight[:, None] * (np.log(raw)[:, None] - np.log(mixed))).sum()
        gradient = np.where(present[:, :, None], 1 / raw[:, None] - true / mixed, 0)
        return loss / total, (sample_weight[:, None] * gradient).sum(axis=(1, 2)) / total

    return loss_and_gradient


def log_loss_of_product(ratios, codes, prior, sample_weight):
    """Return the log loss of the product of experts, as a convex function of the exponents.

    ``ratios`` is what :func:`log_ratios` returns; ``codes``, of shape (n_samples, n_labels), are the positions of the
    true classes.
    """
    true = np.take_along_axis(ratios, codes[None, :, :, None], axis=-1)[..., 0]
    total = sample_weight.sum()

    def loss_and_gradient(exponents):
        scores = _pool(ratios, exponents[:, None], prior)
        at_true = np.take_along_axis(scores, codes[:, :, None], axis=-1)[..., 0]
        loss = (sample_weight[:, None] * (logsumexp(scores, axis=-1) - at_true)).sum()
        slope = ((softmax(scores, axis=-1) * ratios).sum(axis=-1) - true).sum(axis=-1)
        return loss / total, (sample_weight * slope).sum(axis=1) / total

    return loss_and_gradient


def learn_exponents(loss_and_gradient, n_members):
    """Minimise a loss over exponents from 0 to 100; return weights of sum 1, and the sharpness.

    Experts may be overconfident or repeat each other, so the sum of the exponents is learned as well as their
    proportions.
    """
    bounds = [(0, 100)] * n_members
    exponents = minimize(loss_and_gradient, np.ones(n_members), jac=True, method="L-BFGS-B", bounds=bounds).x
    if not exponents.any():
        return np.full(n_members, 1 / n_members), 0.0
    return exponents / exponents.sum(), (exponents**2).sum() / exponents.sum()
