"""Synthetic modalities with a known signal: shared, private, or visible only in their interaction."""

from collections.abc import Sequence
from numbers import Integral, Real
from string import ascii_lowercase

import numpy as np
from scipy.linalg import helmert
from sklearn.utils import Bunch, check_random_state

from .._sklearn import Interval, validate_params
from .._typing import RandomState

_POSITIVE, _COUNT = Interval(Integral, 1, None, closed="left"), Interval(Integral, 0, None, closed="left")
_STRENGTH = Interval(Real, 0, None, closed="left")

_COMMON_CONSTRAINTS = {
    "n_samples": [_POSITIVE],
    "n_features": ["array-like", _POSITIVE],
    "n_noise": [_COUNT],
    "n_redundant": [_COUNT],
    "missing_share": [Interval(Real, 0, 1, closed="left")],
    "return_X_y": ["boolean"],
    "random_state": ["random_state"],
}


@validate_params(
    {
        **_COMMON_CONSTRAINTS,
        "n_modalities": [Interval(Integral, 2, len(ascii_lowercase), closed="both")],
        "signal": [_STRENGTH],
    },
    prefer_skip_nested_validation=True,
)
def make_multimodal_xor(
    n_samples: int = 500,
    *,
    n_modalities: int = 2,
    n_features: int | Sequence[int] = 5,
    signal: float = 3.0,
    n_noise: int = 0,
    n_redundant: int = 0,
    missing_share: float = 0.0,
    return_X_y: bool = True,
    random_state: RandomState = None,
) -> tuple | Bunch:
    r"""Make two classes that no modality shows alone: the label is the parity of hidden signs, one per modality.

    In each modality :math:`m` a sign :math:`u_m` moves the features along one hidden direction,
    :math:`x_m = \varepsilon + s\,u_m w_m` with :math:`\varepsilon \sim N(0, I)` and :math:`\|w_m\| = 1`. The class is 1
    where an odd number of the signs is positive; for two modalities, where the signs differ. Any subset of the
    modalities is independent of the class, and no linear model on all of them is better than chance. The sign of the
    product of the projections :math:`x_m^\top w_m` is right with probability :math:`(1 + (2\Phi(s) - 1)^m) / 2` for
    :math:`m` modalities, and no rule is better.

    Parameters
    ----------
    n_samples : int, default=500
        Number of rows. The classes are of one size, or differ by one.

    n_modalities : int, default=2
        Number of modalities with a sign, from 2 to 26. They are named ``a``, ``b``, ...

    n_features : int or list of int, default=5
        Columns of each modality, or one number for each of ``n_modalities``.

    signal : float, default=3.0
        Distance :math:`s` of a sign from 0, in standard deviations of the noise.

    n_noise, n_redundant, missing_share, return_X_y, random_state : optional
        As for :func:`make_multimodal_classification`.

    Returns
    -------
    (X, y) : tuple if ``return_X_y=True``
        As below.

    data : :class:`~sklearn.utils.Bunch` if ``return_X_y=False``
        As that of :func:`make_multimodal_classification`; ``directions["interaction"]["a"]`` is :math:`w_a`, an array
        of shape (n_features, 1).

    Raises
    ------
    ValueError
        If ``n_features`` is a list of another length than ``n_modalities``.

    See Also
    --------
    make_multimodal_classification : Also with shared and private signal.

    Examples
    --------
    >>> import numpy as np
    >>> from skmm.datasets import make_multimodal_xor
    >>> data = make_multimodal_xor(return_X_y=False, random_state=0)
    >>> data.modalities["b"]
    ['b__0', 'b__1', 'b__2', 'b__3', 'b__4']
    >>> signs = [data.X[data.modalities[name]] @ data.directions["interaction"][name] > 0 for name in "ab"]
    >>> float(np.mean((signs[0] != signs[1]).to_numpy().ravel() == data.y))
    1.0
    """
    rng = check_random_state(random_state)
    y = rng.permutation(np.arange(n_samples) % 2)
    names = ascii_lowercase[:n_modalities]
    signals = _signals(y, 2, names, 0, {}, signal, names, rng)
    blocks, directions = _make_blocks(y, names, signals, n_features, rng)
    return _assemble(blocks, y, directions, n_noise, n_redundant, missing_share, return_X_y, rng)


@validate_params(
    {
        **_COMMON_CONSTRAINTS,
        "n_modalities": [Interval(Integral, 1, len(ascii_lowercase), closed="both")],
        "n_classes": [Interval(Integral, 2, None, closed="left")],
        "shared": [_STRENGTH],
        "private": ["array-like", _STRENGTH],
        "interaction": [_STRENGTH],
    },
    prefer_skip_nested_validation=True,
)
def make_multimodal_classification(
    n_samples: int = 500,
    *,
    n_modalities: int = 2,
    n_features: int | Sequence[int] = 10,
    n_classes: int = 2,
    shared: float = 0.5,
    private: float | Sequence[float] = 1.0,
    interaction: float = 0.0,
    n_noise: int = 0,
    n_redundant: int = 0,
    missing_share: float = 0.0,
    return_X_y: bool = True,
    random_state: RandomState = None,
) -> tuple | Bunch:
    r"""Make classes with a signal that is shared by modalities, private to each, or only in their interaction.

    Each signal has its own hidden directions in the features of a modality. The coordinates along them are

    - shared: :math:`s\,c(y) + \eta` with one :math:`\eta \sim N(0, I)` per row, identical in all modalities, so
      that a second modality adds nothing;
    - private: :math:`p_m\,c(y) + \eta_m` with independent noise in each modality, so that each adds something;
    - interaction: :math:`t\,c(u_m) + \eta_m` in the first two modalities, where :math:`u_a` is drawn at random and
      :math:`u_a + u_b = y` modulo the number of classes, so that one of the two alone tells nothing.

    Here :math:`c` maps the classes to the corners of a simplex around 0 with distance 1 from it, which for two
    classes are -1 and 1. All other directions hold standard normal noise. A signal of strength 0 has no directions.

    Parameters
    ----------
    n_samples : int, default=500
        Number of rows. The classes are of one size, or differ by one.

    n_modalities : int, default=2
        Number of modalities with signal, from 1 to 26. They are named ``a``, ``b``, ...

    n_features : int or list of int, default=10
        Columns of each modality, or one number for each of ``n_modalities``: at least ``n_classes - 1`` for each
        signal.

    n_classes : int, default=2
        Number of classes.

    shared : float, default=0.5
        Strength :math:`s` of the shared signal, in standard deviations of the noise.

    private : float or list of float, default=1.0
        Strength :math:`p_m` of the private signal, of all modalities or of each of ``n_modalities``.

    interaction : float, default=0.0
        Strength :math:`t` of the signal in the interaction of ``a`` and ``b``. Products of their features show it; a
        linear model on two classes does not.

    n_noise : int, default=0
        Number of further modalities of noise alone, named ``noise0``, ..., as wide as ``a``.

    n_redundant : int, default=0
        Number of exact copies of ``a``, named ``copy0``, ...

    missing_share : float, default=0.0
        Probability that a modality is missing in a row, which then has NaN in all of its columns. At least one
        modality stays in each row.

    return_X_y : bool, default=True
        Whether to return ``(X, y)``, or a Bunch.

    random_state : int, RandomState instance or None, default=None
        Seed of all random numbers.

    Returns
    -------
    (X, y) : tuple if ``return_X_y=True``
        As below.

    data : :class:`~sklearn.utils.Bunch` if ``return_X_y=False``
        With the following attributes.

        X : DataFrame of shape (n_samples, n_columns)
            Columns ``a__0``, ``a__1``, ..., ``b__0``, ...; of dtype float64.
        y : ndarray of shape (n_samples,)
            Class, from 0 to ``n_classes - 1``.
        modalities : dict of str to list of str
            Columns of each modality, in the form of a triple ``(name, transformer, columns)``.
        directions : dict of str to dict of str to ndarray of shape (n_features, n_classes - 1)
            ``directions["private"]["a"]`` are the orthonormal directions of that signal in that modality. Signals of
            strength 0 are left out.

    Raises
    ------
    ValueError
        If ``n_features`` or ``private`` is a list of another length than ``n_modalities``, if a modality has fewer
        columns than its signals have directions, or if there is one modality and ``interaction`` is not 0.

    See Also
    --------
    make_multimodal_xor : Only interaction, of any number of modalities.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skmm import ModalityVotingClassifier
    >>> from skmm.datasets import make_multimodal_classification
    >>> data = make_multimodal_classification(private=[2, 1], n_noise=1, return_X_y=False, random_state=0)
    >>> vote = ModalityVotingClassifier(
    ...     [(name, LogisticRegression(), columns) for name, columns in data.modalities.items()]
    ... ).fit(data.X, data.y)
    >>> vote.predict_by_modality(data.X).columns.tolist()
    ['a', 'b', 'noise0']
    """
    names = ascii_lowercase[:n_modalities]
    if interaction and n_modalities < 2:
        raise ValueError(f"interaction={interaction} needs two modalities, got n_modalities={n_modalities}.")
    rng = check_random_state(random_state)
    y = rng.permutation(np.arange(n_samples) % n_classes)
    private = _by_modality("private", private, names, _STRENGTH)
    signals = _signals(y, n_classes, names, shared, private, interaction, names[:2], rng)
    blocks, directions = _make_blocks(y, names, signals, n_features, rng)
    return _assemble(blocks, y, directions, n_noise, n_redundant, missing_share, return_X_y, rng)


def _by_modality(parameter, value, names, interval):
    """Return the value of each modality by name; raise if one is outside of an interval."""
    values = [value] * len(names) if np.ndim(value) == 0 else list(value)
    if len(values) != len(names):
        raise ValueError(
            f"{parameter} has {len(values)} entries for n_modalities={len(names)}: {value!r}; pass one for each."
        )
    if not all(map(interval.is_satisfied_by, values)):
        raise ValueError(f"{parameter} must be {interval} in every modality, got {value!r}.")
    return dict(zip(names, values, strict=True))


def _signals(y, n_classes, names, shared, private, interaction, interacting, rng):
    """Return the noisy coordinates of each signal in each modality, of shape (n_samples, n_classes - 1)."""
    # Rows are the corners of a simplex; with two classes -1 and 1.
    corners = -helmert(n_classes).T * np.sqrt(n_classes / (n_classes - 1))
    shape = (len(y), n_classes - 1)
    signals = {}
    if shared:
        signals["shared"] = dict.fromkeys(names, shared * corners[y] + rng.normal(size=shape))
    if any(private.values()):
        signals["private"] = {
            name: strength * corners[y] + rng.normal(size=shape) for name, strength in private.items() if strength
        }
    if interaction:
        summands = rng.randint(n_classes, size=(len(y), len(interacting)))
        # The last summand makes the sum equal y; any smaller number of summands stays independent of y.
        summands[:, -1] = (y - summands[:, :-1].sum(axis=1)) % n_classes
        signals["interaction"] = {
            name: interaction * corners[classes] + rng.normal(size=shape)
            for name, classes in zip(interacting, summands.T, strict=True)
        }
    return signals


def _make_blocks(y, names, signals, n_features, rng):
    """Return the features of each modality, and the directions of the signals in them."""
    widths = _by_modality("n_features", n_features, names, _POSITIVE)
    blocks, directions = {}, {signal: {} for signal in signals}
    for name, width in widths.items():
        coordinates = {signal: by_modality[name] for signal, by_modality in signals.items() if name in by_modality}
        noise = rng.normal(size=(len(y), width))
        total = sum(values.shape[1] for values in coordinates.values())
        if total > width:
            raise ValueError(
                f"Modality {name!r} needs n_features of at least {total} for its signals {list(coordinates)}, "
                f"got {width}."
            )
        basis, _ = np.linalg.qr(rng.normal(size=(width, total)))
        along = np.hstack(list(coordinates.values())) if coordinates else np.empty((len(y), 0))
        blocks[name] = noise + (along - noise @ basis) @ basis.T
        for signal, vectors in zip(coordinates, np.split(basis, max(len(coordinates), 1), axis=1), strict=False):
            directions[signal][name] = vectors
    return blocks, directions


def _assemble(blocks, y, directions, n_noise, n_redundant, missing_share, return_X_y, rng):
    """Add copies and noise, remove modalities, and return the data frame and its target, or everything as a Bunch."""
    import pandas as pd

    first = blocks["a"]
    blocks |= {f"copy{i}": first for i in range(n_redundant)}
    blocks |= {f"noise{i}": rng.normal(size=first.shape) for i in range(n_noise)}
    if missing_share:
        missing = rng.uniform(size=(len(y), len(blocks))) < missing_share
        empty_rows = np.flatnonzero(missing.all(axis=1))
        missing[empty_rows, rng.randint(len(blocks), size=len(empty_rows))] = False
        blocks = {
            name: np.where(rows[:, None], np.nan, block)
            for (name, block), rows in zip(blocks.items(), missing.T, strict=True)
        }
    modalities = {name: [f"{name}__{i}" for i in range(block.shape[1])] for name, block in blocks.items()}
    X = pd.DataFrame(
        np.hstack(list(blocks.values())), columns=[column for columns in modalities.values() for column in columns]
    )
    if return_X_y:
        return X, y
    return Bunch(X=X, y=y, modalities=modalities, directions=directions)
