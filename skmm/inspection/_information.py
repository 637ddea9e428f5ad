"""How much two blocks of features tell of each other: mutual information, and how their spaces lie."""

import math
from collections.abc import Callable
from numbers import Integral, Real

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from scipy.special import logsumexp, ndtri
from scipy.stats import rankdata
from sklearn.utils import Bunch, check_array, check_consistent_length, check_random_state

from .._sklearn import Interval, StrOptions, validate_params
from .._typing import RandomState

# Rows that fitting takes at least for each component of a block.
_ROWS_PER_COMPONENT = 20

# The critic: width of its layers and of the space in which it compares, rows of a step, learning rate, weight decay.
_WIDTH, _SPACE, _BATCH, _RATE, _DECAY = 256, 32, 128, 1e-3, 1e-2
# Share of its rows by which it stops; steps between two looks at them, most steps, and looks without a gain.
_HELD_OUT, _LOOK, _N_STEPS, _PATIENCE = 0.25, 10, 1000, 10
# SMILE cuts log ratios off, which trades a bias for variance.
_SMILE_CLIP = 5.0


@validate_params(
    {
        "X_a": ["array-like"],
        "X_b": ["array-like"],
        "method": [StrOptions({"gaussian", "infonce", "smile"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "n_subsamples": [Interval(Integral, 0, None, closed="left")],
        "n_permutations": [Interval(Integral, 0, None, closed="left")],
        "confidence": [Interval(Real, 0, 1, closed="neither")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def mutual_information(
    X_a: ArrayLike,
    X_b: ArrayLike,
    method: str = "gaussian",
    *,
    n_components: int | None = None,
    n_subsamples: int = 100,
    n_permutations: int = 100,
    confidence: float = 0.95,
    n_jobs: int | None = None,
    random_state: RandomState = None,
) -> Bunch:
    r"""Estimate the mutual information of two blocks of features, in nats.

    It is 0 if the blocks are independent, and the larger the more either tells of the other. What two modalities share
    is what a joint embedding can find; where they share little and each predicts the target, concatenation is the
    fusion to try first.

    Parameters
    ----------
    X_a, X_b : array-like of shape (n_samples, n_features_a) and (n_samples, n_features_b)
        Features of the same rows in two modalities. Rows with NaN in either are left out.

    method : {"gaussian", "infonce", "smile"}, default="gaussian"
        - "gaussian": every column is brought to a normal distribution by its ranks, and the information is that of a
          joint normal distribution, from canonical correlations [1]_, less its bias for finite samples. Closed form;
          sees what is monotone in each column and linear between them.
        - "infonce" and "smile" train a network on half of the rows to tell pairs from other combinations, and
          evaluate a bound on the other half, both ways round. They see dependences of any form. "infonce" [2]_ is a
          lower bound that cannot exceed the logarithm of the number of rows of a half; "smile" [3]_ has no such limit,
          and a larger error: of 1 nat in 2 columns and 2,000 rows "infonce" finds .8 to 1, "smile" .7.

    n_components : int or None, default=None
        Principal components to which each block is reduced before, if it has more columns. A part of a block cannot
        tell more than the block, so that the result can only be too low. None is a twentieth of the rows, 50 at most.

    n_subsamples : int, default=100
        Random halves of the rows from which the interval comes; 0 for none. For the methods that train a network 10 or
        20 are affordable.

    n_permutations : int, default=100
        Random pairings of the rows, for the distribution without any dependence; 0 for none.

    confidence : float, default=0.95
        Confidence of the interval.

    n_jobs : int or None, default=None
        Number of estimates at the same time, by joblib.

    random_state : int, RandomState instance or None, default=None
        For the halves, the pairings, and the training.

    Returns
    -------
    result : Bunch
        - ``estimate`` : float, in nats; it can be below 0 by chance;
        - ``interval`` : tuple of (float, float), from subsamples [4]_, or None;
        - ``null`` : ndarray of shape (n_permutations,), estimates for random pairings;
        - ``pvalue`` : float, of independence, or None without permutations;
        - ``n_samples`` : int, rows that were used; ``n_components`` : tuple of (int, int), columns after the reduction.

    Raises
    ------
    ValueError
        If fewer than 20 rows have both blocks.

    See Also
    --------
    modality_gap : How far apart two blocks lie in one space.
    linear_cka : How similar the geometries of two blocks are.

    Notes
    -----
    With canonical correlations :math:`\rho_i` of the normal scores of p and q columns, "gaussian" is
    :math:`-\frac12 \sum_i \log(1 - \rho_i^2) - \frac{pq}{2n}`. For a joint normal distribution it is consistent; for
    others it is the information that a normal distribution with the same rank correlations would have.

    References
    ----------
    .. [1] Gelfand, I. M. and Yaglom, A. M. (1959). "Calculation of the amount of information about a random function
       contained in another such function." American Mathematical Society Translations 12, 199-246.
    .. [2] Poole, B. et al. (2019). "On Variational Bounds of Mutual Information." ICML.
    .. [3] Song, J. and Ermon, S. (2020). "Understanding the Limitations of Variational Mutual Information Estimators."
       ICLR.
    .. [4] Politis, D. N., Romano, J. P. and Wolf, M. (1999). "Subsampling." Springer.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.inspection import mutual_information
    >>> rng = np.random.default_rng(0)
    >>> X_a = rng.normal(size=(1000, 3))
    >>> X_b = 0.8 * X_a + 0.6 * rng.normal(size=(1000, 3))
    >>> result = mutual_information(X_a, X_b, random_state=0)
    >>> truth = -1.5 * np.log(1 - 0.8**2)
    >>> bool(result.interval[0] < truth < result.interval[1])
    True
    """
    X_a, X_b = _paired(X_a, X_b)
    n = len(X_a)
    if n < _ROWS_PER_COMPONENT:
        raise ValueError(f"mutual_information needs at least {_ROWS_PER_COMPONENT} rows with both blocks, got {n}.")
    rng = check_random_state(random_state)
    most = max(1, min(50, n // _ROWS_PER_COMPONENT)) if n_components is None else n_components
    # Monotone maps of single columns change no information, and large values would slow down the training.
    blocks = [_normal_scores(_reduce(X, most)) for X in (X_a, X_b)]
    estimate = _ESTIMATORS[method]
    seeds = rng.randint(2**31, size=1 + n_subsamples + n_permutations)
    halves = [rng.permutation(n)[: n // 2] for _ in range(n_subsamples)]
    pairings = [rng.permutation(n) for _ in range(n_permutations)]
    everything = np.arange(n)
    tasks = [(everything, everything), *((half, half) for half in halves), *((everything, p) for p in pairings)]
    values = Parallel(n_jobs=n_jobs)(
        delayed(estimate)(blocks[0][a], blocks[1][b], seed) for (a, b), seed in zip(tasks, seeds, strict=True)
    )
    value, subsamples, null = values[0], np.array(values[1 : 1 + n_subsamples]), np.array(values[1 + n_subsamples :])
    interval = None
    if n_subsamples:
        # A half, drawn without replacement, deviates from all rows as all rows deviate from the population.
        tail = (1 - confidence) / 2
        low, high = np.quantile(subsamples - subsamples.mean(), [tail, 1 - tail])
        interval = float(value - high), float(value - low)
    return Bunch(
        estimate=float(value),
        interval=interval,
        null=null,
        pvalue=float((1 + np.sum(null >= value)) / (1 + n_permutations)) if n_permutations else None,
        n_samples=n,
        n_components=tuple(Z.shape[1] for Z in blocks),
    )


@validate_params({"X_a": ["array-like"], "X_b": ["array-like"]}, prefer_skip_nested_validation=True)
def modality_gap(X_a: ArrayLike, X_b: ArrayLike) -> float:
    """Measure how far apart two modalities lie in one space: the distance of their means on the unit sphere.

    Encoders of two modalities that were trained together often leave a gap between them, which makes distances across
    modalities mean less than those within one [1]_.

    Parameters
    ----------
    X_a, X_b : array-like of shape (n_samples_a, n_features) and (n_samples_b, n_features)
        Vectors of two modalities in one space; rows need not be pairs. Rows with NaN are left out.

    Returns
    -------
    gap : float
        Between 0 and 2.

    Raises
    ------
    ValueError
        If the widths differ, or a block has no row.

    References
    ----------
    .. [1] Liang, W. et al. (2022). "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive
       Representation Learning." NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.inspection import modality_gap
    >>> modality_gap(np.eye(2), np.eye(2))
    0.0
    >>> modality_gap([[1.0, 0.0]], [[-1.0, 0.0]])
    2.0
    """
    means = []
    for name, X in (("X_a", X_a), ("X_b", X_b)):
        X = check_array(X, dtype=np.float64, ensure_all_finite="allow-nan", input_name=name)
        X = X[~np.isnan(X).any(axis=1)]
        if len(X) == 0:
            raise ValueError(f"{name} has no row without NaN.")
        lengths = np.linalg.norm(X, axis=1, keepdims=True)
        means.append(np.divide(X, lengths, out=np.zeros_like(X), where=lengths > 0).mean(axis=0))
    if len(means[0]) != len(means[1]):
        raise ValueError(f"X_a has {len(means[0])} features and X_b {len(means[1])}: they are not in one space.")
    return float(np.linalg.norm(means[0] - means[1]))


@validate_params({"X_a": ["array-like"], "X_b": ["array-like"]}, prefer_skip_nested_validation=True)
def linear_cka(X_a: ArrayLike, X_b: ArrayLike) -> float:
    r"""Measure how similar the geometries of two blocks are: the linear centred kernel alignment.

    It is 1 if the blocks are the same up to a rotation, a shift and a scale, and 0 if no column of one is correlated
    with any of the other.

    Parameters
    ----------
    X_a, X_b : array-like of shape (n_samples, n_features_a) and (n_samples, n_features_b)
        Features of the same rows in two modalities. Rows with NaN in either are left out.

    Returns
    -------
    alignment : float
        :math:`\|A^T B\|_F^2 / (\|A^T A\|_F \|B^T B\|_F)` of the centred blocks [1]_; NaN if a block does not vary.
        With few rows and many columns it is above 0 even for independent blocks.

    References
    ----------
    .. [1] Kornblith, S. et al. (2019). "Similarity of Neural Network Representations Revisited." ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.inspection import linear_cka
    >>> X = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(linear_cka(X, 3 * X[:, ::-1] + 1), 6)
    1.0
    """
    A, B = (X - X.mean(axis=0) for X in _paired(X_a, X_b))
    # The products that are smaller: of columns, or of rows.
    if A.shape[1] + B.shape[1] > 2 * len(A):
        A, B = A @ A.T, B @ B.T
        across, within = np.sum(A * B), np.linalg.norm(A) * np.linalg.norm(B)
    else:
        across, within = np.linalg.norm(A.T @ B) ** 2, np.linalg.norm(A.T @ A) * np.linalg.norm(B.T @ B)
    return float(across / within) if within > 0 else math.nan


def _paired(X_a, X_b):
    """Return both blocks as float64, without the rows in which either has NaN."""
    X_a, X_b = (
        check_array(X, dtype=np.float64, ensure_all_finite="allow-nan", input_name=name)
        for name, X in (("X_a", X_a), ("X_b", X_b))
    )
    check_consistent_length(X_a, X_b)
    present = ~(np.isnan(X_a).any(axis=1) | np.isnan(X_b).any(axis=1))
    if not present.any():
        raise ValueError("No row has both blocks without NaN.")
    return X_a[present], X_b[present]


def _reduce(X, n_components):
    """Return standardised columns that vary, or as many principal components of them."""
    scales = X.std(axis=0)
    varies = scales > 1e-12 * np.abs(X).max(axis=0)
    Z = (X[:, varies] - X[:, varies].mean(axis=0)) / scales[varies]
    if Z.shape[1] <= n_components:
        return Z
    left, values, _ = np.linalg.svd(Z, full_matrices=False)
    return left[:, :n_components] * values[:n_components]


def _normal_scores(X):
    return ndtri(rankdata(X, axis=0) / (len(X) + 1))


def _gaussian(A, B, seed):
    """Return the information of a joint normal distribution, less its bias for finite samples."""
    n = len(A)
    bases = []
    for X in (A, B):
        left, values, _ = np.linalg.svd(X - X.mean(axis=0), full_matrices=False)
        bases.append(left[:, values > 1e-10 * values[:1].sum()])
    correlations = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    # A correlation of 1 tells of more than any number of rows can show.
    squares = np.minimum(correlations**2, 1 - 1 / n**2)
    return -0.5 * np.log1p(-squares).sum() - bases[0].shape[1] * bases[1].shape[1] / (2 * n)


def _of_bound(bound):
    """Return an estimator that trains a critic on half of the rows, and evaluates a bound on the other; both ways."""

    def estimate(A, B, seed):
        rows = np.random.default_rng(seed).permutation(len(A))
        halves = rows[: len(A) // 2], rows[len(A) // 2 :]
        scores = [_critic_scores(A, B, train, test, bound, seed) for train, test in (halves, halves[::-1])]
        return float(np.mean([bound(score) for score in scores]))

    return estimate


def _infonce(scores):
    """Return the InfoNCE bound from the scores of all combinations, of shape (n, n), with the pairs on the diagonal."""
    n = len(scores)
    return float(np.mean(np.diag(scores) - logsumexp(scores, axis=1)) + math.log(n))


def _smile(scores):
    """Return the SMILE estimate from the scores of all combinations."""
    n = len(scores)
    clipped = np.clip(scores, -_SMILE_CLIP, _SMILE_CLIP)[~np.eye(n, dtype=bool)]
    return float(np.diag(scores).mean() - (logsumexp(clipped) - math.log(n * (n - 1))))


def _critic_scores(A, B, train, test, bound: Callable, seed):
    """Train a network on some rows, and return its scores of all combinations of other rows."""
    import torch
    from torch import nn
    from torch.nn import functional

    generator = torch.Generator().manual_seed(int(seed))

    def tower(width):
        layers = [nn.Linear(width, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _SPACE)]
        for layer in layers[::2]:
            spread = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -spread, spread, generator=generator)
            nn.init.zeros_(layer.bias)
        return nn.Sequential(*layers)

    a, b = (torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32)) for X in (A, B))
    towers = tower(a.shape[1]), tower(b.shape[1])
    parameters = [p for t in towers for p in t.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)

    def scores_of(rows):
        return towers[0](a[rows]) @ towers[1](b[rows]).T

    def loss_of(scores):
        if bound is _infonce:
            return functional.cross_entropy(scores, torch.arange(len(scores)))
        # The Jensen-Shannon bound: its best critic is the log ratio, of which SMILE takes the mean.
        pairs = scores.diagonal()
        others = functional.softplus(scores).sum() - functional.softplus(pairs).sum()
        return functional.softplus(-pairs).mean() + others / (len(scores) * (len(scores) - 1))

    n_held_out = max(2, int(_HELD_OUT * len(train)))
    held_out, train = torch.from_numpy(train[:n_held_out]), torch.from_numpy(train[n_held_out:])
    best, checkpoint, n_waited = math.inf, None, 0
    for step in range(_N_STEPS):
        if step % _LOOK == 0:
            with torch.no_grad():
                loss = float(loss_of(scores_of(held_out)))
            if loss < best:
                best, checkpoint, n_waited = loss, [p.detach().clone() for p in parameters], 0
            else:
                n_waited += 1
            if n_waited == _PATIENCE:
                break
        with torch.enable_grad():
            loss = loss_of(scores_of(train[torch.randperm(len(train), generator=generator)[:_BATCH]]))
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    with torch.no_grad():
        for parameter, values in zip(parameters, checkpoint, strict=True):
            parameter.copy_(values)
        return scores_of(torch.from_numpy(test)).double().numpy()


_ESTIMATORS = {"gaussian": _gaussian, "infonce": _of_bound(_infonce), "smile": _of_bound(_smile)}
