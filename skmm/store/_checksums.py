"""Values as a store saves them: the digest they belong to, their words, and a checksum."""

import zlib
from itertools import compress

import numpy as np

# 64-bit words of a digest, and of all that is saved with the words of a value: the digest and the checksum.
DIGEST_WORDS = 4
EXTRA_WORDS = DIGEST_WORDS + 1

# The CRC-32 of any bytes followed by their own CRC-32.
_RESIDUE = 0x2144DF1C


def _sums(values):
    """Return the upper halves of weighted sums of all words but the last, each with a different odd factor."""
    n_words = values.shape[1] - 1
    factors = np.arange(1, n_words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    return (values[:, :-1] @ factors + np.uint64(n_words)) >> np.uint64(32)


def seal(digests, words):
    """Return values as bytes with their digests and checksums.

    The last word of a sealed value holds two checks of the words before: a weighted sum, and a CRC-32 of the words and
    that sum. They detect each change of up to three bits (in values of up to 11 kB; two bits in longer ones), each
    change within 32 consecutive bits, and other damage but for a share of 2**-64.

    Parameters
    ----------
    digests : ndarray of shape (n, 4), dtype uint64
        Digests of the values.

    words : ndarray of shape (n, n_words), dtype uint64
        Values.

    Returns
    -------
    sealed : list of n memoryviews
        Digest, words and checksum of each value.
    """
    values = np.zeros((len(digests), EXTRA_WORDS + words.shape[1]), dtype=np.uint64)
    values[:, :DIGEST_WORDS] = digests
    values[:, DIGEST_WORDS:-1] = words
    # Halves of words in memory order, so that the CRC is in the last bytes on machines of either byte order.
    ends = values.view("<u4")
    ends[:, -2] = _sums(values)
    for row, end in zip(values.view(np.uint8), ends, strict=True):
        end[-1] = zlib.crc32(row[:-4])
    buffer, n_bytes = memoryview(values.tobytes()), 8 * values.shape[1]
    return [buffer[start : start + n_bytes] for start in range(0, len(buffer), n_bytes)]


def unseal(sealed, n_words):
    """Return the words of sealed values, and which of them are undamaged.

    Parameters
    ----------
    sealed : sequence of n objects
        Sealed values; damaged ones may be of any type and length.

    n_words : int
        Words that a value must have.

    Returns
    -------
    is_intact : ndarray of shape (n,), dtype bool
        Which values are undamaged and have that number of words.

    digests : ndarray of shape (n_intact, 4), dtype uint64
        Digests of the undamaged values.

    words : ndarray of shape (n_intact, n_words), dtype uint64
        Words of the undamaged values; read-only.
    """
    n_bytes = 8 * (EXTRA_WORDS + n_words)
    is_intact = np.ones(len(sealed), dtype=bool)
    try:
        have_length = set(map(len, sealed)) == {n_bytes}
    except TypeError:
        have_length = False
    if not have_length:
        is_intact[:] = [isinstance(value, bytes) and len(value) == n_bytes for value in sealed]
        sealed = list(compress(sealed, is_intact))
    values = np.frombuffer(b"".join(sealed), dtype=np.uint64).reshape(-1, EXTRA_WORDS + n_words)
    is_right = np.fromiter(map(zlib.crc32, sealed), dtype=np.uint32, count=len(sealed)) == _RESIDUE
    is_right &= values.view("<u4")[:, -2] == _sums(values)
    if not is_right.all():
        values = values[is_right]
        is_intact[is_intact] = is_right
    return is_intact, values[:, :DIGEST_WORDS], values[:, DIGEST_WORDS:-1]
