"""Rows that training spares to know when to stop."""

import numpy as np


def split_validation(n_samples, strata, fraction, random_state, owner):
    """Split rows at random, with the shares of classes kept and no class lost to training.

    Parameters
    ----------
    n_samples : int
        Number of rows.

    strata : ndarray of shape (n_samples,) or None
        Class of each row; None if there are none.

    fraction : float
        Share of the rows to validate on.

    random_state : RandomState
        Draws the rows.

    owner : str
        Name of the estimator, for the error message.

    Returns
    -------
    train, validation : ndarray of int
        Positions of the rows, in order.
    """
    order = random_state.permutation(n_samples)
    first = np.zeros(n_samples, dtype=bool)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
        first[0] = True
        first[1:] = strata[order][1:] != strata[order][:-1]
    # Evenly spread over the classes in order, which keeps their shares; the first row of each stays in training.
    spread = np.floor((np.arange(n_samples) + random_state.uniform()) * fraction)
    chosen = (np.diff(spread, prepend=0) > 0) & ~first
    if not chosen.any():
        raise ValueError(
            f"{owner}: validation_fraction={fraction} of {n_samples} rows leaves no row to validate on; change it, or "
            "use early_stopping=False."
        )
    return np.sort(order[~chosen]), np.sort(order[chosen])
