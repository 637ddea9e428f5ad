"""How the bytes that a store may take are shared out between its files."""

# Bytes of a page, which rows of usual widths fill well, and of one in the log.
PAGE_BYTES = 16384
_FRAME_BYTES = PAGE_BYTES + 24

SMALLEST_BYTES = 2**24

# The log's share, of no more than so many bytes, and what the index of the log and the folder itself take.
_LOG_SHARE = 0.25
_MOST_LOG_BYTES = 2**26
_OTHER_BYTES = 3 * 2**15

# What values fill of the pages of a file in which they come and go in random places, as a rule.
_FILL = 0.7

# The share of the pages that is left for claims and the table of blocks.
_RESERVE = 1 / 16

# Pages that one more row changes at most on the average, its own long ones left out, and those that any change does.
_PAGES_PER_ROW = 3
_PAGES_PER_CHANGE = 12

# Bytes that a row takes beside its value, in the table and its index.
_ROW_BYTES = 40


class Limits:
    """What follows from the bytes that all files of a store may take together.

    Parameters
    ----------
    max_bytes : int
        The limit, at least ``SMALLEST_BYTES``.

    Attributes
    ----------
    n_pages : int
        Pages of the database.

    n_pages_of_values : int
        Pages beyond which no values are added.

    value_bytes : int
        Bytes of values that fit in there as a rule.

    log_bytes : int
        Bytes of the log beyond which it is emptied before the next change.
    """

    def __init__(self, max_bytes):
        whole_log = min(int(_LOG_SHARE * max_bytes), _MOST_LOG_BYTES)
        self.n_pages = (max_bytes - whole_log - _OTHER_BYTES) // PAGE_BYTES
        self.n_pages_of_values = int((1 - _RESERVE) * self.n_pages)
        self.value_bytes = int(_FILL * self.n_pages_of_values * PAGE_BYTES)
        # The rest is for what one transaction adds.
        self.log_bytes = whole_log // 2

    def rows_per_transaction(self, value_bytes):
        """Give the number of rows that one transaction may add or delete; 0 for rows too long to be kept."""
        pages_per_row = _PAGES_PER_ROW + value_bytes // PAGE_BYTES
        return max(0, self.log_bytes // _FRAME_BYTES - _PAGES_PER_CHANGE) // pages_per_row

    def pages_for(self, n_rows, value_bytes):
        """Give the pages that so many rows take at most."""
        return _PAGES_PER_CHANGE + n_rows * (_PAGES_PER_ROW + value_bytes // PAGE_BYTES)


def bytes_of_row(value_bytes):
    """Give the bytes that a row takes in a database."""
    return value_bytes + _ROW_BYTES
