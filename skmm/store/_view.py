"""One encoding's view of an embedding store: what is there already, who computes what, and what is new."""

from contextlib import contextmanager, nullcontext
from itertools import compress

import numpy as np


class KeptRows:
    """The rows of a store that one call to an encoder can use and add to.

    Parameters
    ----------
    store : EmbeddingStore
        The store.

    context : bytes
        Identity of the encoder, within which items have their keys.

    finish : callable
        Turns rows as they are kept into rows as the encoder gives them.

    X_out : ndarray of shape (n_samples, n_features)
        Where rows go that are found.

    takes_turns : bool
        Whether one encodes at a time, so that few processes load a model into the memory of a GPU.

    Attributes
    ----------
    deferred : list of (key, rows)
        Groups of equal items that somebody else is computing now.

    is_later_pass : bool
        Whether only what others have claimed is left. What they have not begun with is then taken over from them, and
        the rest is waited for: they began earlier, so that encoding it as well would take longer.
    """

    def __init__(self, store, context, finish, X_out, takes_turns):
        self.store = store
        self.context = context
        self._finish = finish
        self._X_out = X_out
        self._takes_turns = takes_turns
        self.deferred = []
        self.is_later_pass = False

    @contextmanager
    def turn(self):
        """Surround the encoding of what is missing; where devices are shared, others wait for their turn."""
        with self.store.one_at_a_time() if self._takes_turns else nullcontext():
            yield

    def look_up(self, groups, report):
        """Do as ``fill`` for all groups of a call, and count what was found and what was not."""
        missing = self.fill(groups)
        self.store.hits += len(groups) - len(missing)
        self.store.misses += len(missing)
        report(len(groups) - len(missing))
        return missing

    def look_again(self, groups, report):
        """Give what is still missing after others had their turn."""
        if not self._takes_turns:
            return groups
        missing = self.fill(groups)
        report(len(groups) - len(missing))
        return missing

    def fill(self, groups):
        """Write the rows of the groups that are in the store; give the groups that are not.

        Parameters
        ----------
        groups : list of (key, rows)
            Digest of an item, None where its content is unknown, and the rows in which it stands.

        Returns
        -------
        missing : list of (key, rows)
            What is left, in its order.
        """
        known = [group for group in groups if group[0] is not None]
        first_rows = np.array([rows[0] for _, rows in known], dtype=np.intp)
        is_missing = np.ones(len(known), dtype=bool)

        def take(positions, found):
            self._X_out[first_rows[positions]] = self._finish(found)
            is_missing[positions] = False

        self.store.get_rows([key for key, _ in known], self._X_out.shape[1], take)
        for rows in (rows for _, rows in known if len(rows) > 1):
            self._X_out[rows[1:]] = self._X_out[rows[0]]
        if len(known) == len(groups):
            return list(compress(groups, is_missing))
        missing = iter(is_missing)
        return [group for group in groups if group[0] is None or next(missing)]

    def take(self, groups, report, begins):
        """Give the groups that this call is to encode now; the others are found by now, or deferred.

        Parameters
        ----------
        groups : list of (key, rows)
            Groups that were missing a while ago.

        report : callable
            Called with the number of groups that were found.

        begins : bool
            Whether the network runs next; else something else does, and others may take over.

        Returns
        -------
        mine : list of (key, rows)
            What to encode, in its order.
        """
        missing = self.fill(groups)
        report(len(groups) - len(missing))
        return missing

    def add(self, groups, rows, is_known):
        """Keep the rows of encoded groups, those that a mask tells.

        Parameters
        ----------
        groups : list of (key, rows)
            What was encoded.

        rows : ndarray of shape (len(groups), n_features)
            Its rows.

        is_known : ndarray of shape (len(groups),), dtype bool
            Which rows are those of the content that the key stands for.
        """
        has_key = np.array([key is not None for key, _ in groups])
        keys = [key for key, _ in groups]
        if (has_key & is_known).any():
            self.store.put_rows(list(compress(keys, has_key & is_known)), rows[has_key & is_known])
