"""Rounds: what workers encode side by side, and among whom it is shared."""

from itertools import islice


def rounds_of(accepted, n_items, n_workers, size, most_bytes):
    """Yield lists of windows, at most one for each worker, which are encoded at the same time.

    They follow from the accepted items alone, so that what a network sees together, and on how many threads, does not
    change with the items that were refused between these. Where there are few, as in the end, each worker gets its
    share.

    Parameters
    ----------
    accepted : iterator of (group, item)
        Groups of equal items, and the prepared item of each.

    n_items : int
        Items of a window at most.

    n_workers : int
        Windows of a round at most.

    size : callable
        Gives the bytes of a prepared item.

    most_bytes : int
        Bytes with which a round ends early.
    """
    while ready := _take(accepted, n_items * n_workers, size, most_bytes):
        length = -(-len(ready) // n_workers)
        yield [ready[start : start + length] for start in range(0, len(ready), length)]


def _take(accepted, n_items, size, most_bytes):
    ready, n_bytes = [], 0
    for group, item in islice(accepted, n_items):
        ready.append((group, item))
        n_bytes += size(item)
        if n_bytes > most_bytes:
            break
    return ready


def side_by_side(encode, rounds, pool, divide):
    """Yield what ``encode`` gives for each window, the windows of a round at the same time, in their order.

    Parameters
    ----------
    encode : callable
        Takes a window.

    rounds : iterable of list of windows
        Taken from in the caller's thread, while the round before is encoded.

    pool : Executor
        Threads, one for each window of a round.

    divide : callable
        Called in a thread with the number of those that compute, to give it its share of the cores.
    """

    def work(window, n_shares):
        divide(n_shares)
        return encode(window)

    running = []
    try:
        for windows in rounds:
            for future in running:
                yield future.result()
            if len(windows) > 1:
                running = [pool.submit(work, window, len(windows)) for window in windows]
            else:
                # What is alone gets all threads of torch, and those of the caller run already.
                running = []
                yield encode(*windows)
        for future in running:
            yield future.result()
    finally:
        for future in running:
            future.cancel()
