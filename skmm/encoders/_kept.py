"""One encoding's view of an embedding store: what is there already, who computes what, and what is new."""

import secrets

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

    Attributes
    ----------
    deferred : list of (key, rows)
        Groups of equal items that somebody else is computing now.

    is_last_pass : bool
        Whether what others compute is not waited for any more.
    """

    def __init__(self, store, context, finish, X_out):
        self.store = store
        self.context = context
        self._finish = finish
        self._X_out = X_out
        # Threads are apart as processes are.
        self._owner = secrets.randbits(62)
        self.deferred = []
        self.is_last_pass = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        # Of items that could not be encoded.
        self.store.release(self._owner)

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
        for positions, found in self.store.get_rows([key for key, _ in known], self._X_out.shape[1]):
            self._X_out[first_rows[positions]] = self._finish(found)
            is_missing[positions] = False
        for rows in (rows for _, rows in known if len(rows) > 1):
            self._X_out[rows[1:]] = self._X_out[rows[0]]
        if is_missing.all() and len(known) == len(groups):
            return groups
        missing = iter(is_missing)
        return [group for group in groups if group[0] is None or next(missing)]

    def take(self, groups, report):
        """Give the groups that this call is to encode now; the others are found by now, or deferred.

        Parameters
        ----------
        groups : list of (key, rows)
            Groups that were missing a while ago.

        report : callable
            Called with the number of groups that were found.

        Returns
        -------
        mine : list of (key, rows)
            What to encode, in its order.
        """
        missing = self.fill(groups)
        report(len(groups) - len(missing))
        if not missing or self.is_last_pass:
            return missing
        free = iter(self.store.claim([key for key, _ in missing if key is not None], self._owner))
        is_mine = [key is None or next(free) for key, _ in missing]
        self.deferred += [group for group, mine in zip(missing, is_mine, strict=True) if not mine]
        return [group for group, mine in zip(missing, is_mine, strict=True) if mine]

    def begin_last_pass(self):
        """Give what was deferred, the last first, and defer nothing from now on."""
        deferred, self.deferred, self.is_last_pass = self.deferred[::-1], [], True
        return deferred

    def add(self, groups, rows):
        """Keep the rows of encoded groups."""
        known = [i for i, (key, _) in enumerate(groups) if key is not None]
        if known:
            self.store.put_rows([groups[i][0] for i in known], rows[known])
