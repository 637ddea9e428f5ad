"""Values as a store keeps them: words behind the digest they belong to, with a checksum at the end."""

import zlib
from itertools import compress

import numpy as np

# 64-bit words of a digest, and what a value carries beside its own words: the digest, and the checksum.
DIGEST_WORDS = 4
EXTRA_WORDS = DIGEST_WORDS + 1

# CRC-32 of any bytes that are followed by their own CRC-32.
_RESIDUE = 0x2144DF1C


def _sums(values):
    """Give the upper halves of the sums of all words but the last, each with an odd factor of its own."""
    n_words = values.shape[1] - 1
    factors = np.arange(1, n_words + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    return (values[:, :-1] @ factors + np.uint64(n_words)) >> np.uint64(32)


def seal(digests, words):
    """Give values, each as bytes.

    The last word of a value holds two checks of all before: a sum, and a CRC-32, the sum included. Of a change of up
    to three bits (in values of up to 11 kB; two bits in any) and of one within 32 bits in a row none goes unnoticed,
    of other damage a share of 2**-64.

    Parameters
    ----------
    digests : ndarray of shape (n, 4), dtype uint64
        Digests that the values belong to.

    words : ndarray of shape (n, n_words), dtype uint64
        Values.

    Returns
    -------
    sealed : list of n memoryviews
        Bytes of the values with what surrounds them.
    """
    values = np.zeros((len(digests), EXTRA_WORDS + words.shape[1]), dtype=np.uint64)
    values[:, :DIGEST_WORDS] = digests
    values[:, DIGEST_WORDS:-1] = words
    # The last bytes, whatever the order of bytes in a word.
    ends = values.view("<u4")
    ends[:, -2] = _sums(values)
    for row, end in zip(values.view(np.uint8), ends, strict=True):
        end[-1] = zlib.crc32(row[:-4])
    buffer, n_bytes = memoryview(values.tobytes()), 8 * values.shape[1]
    return [buffer[start : start + n_bytes] for start in range(0, len(buffer), n_bytes)]


def unseal(sealed, n_words):
    """Take values apart that were sealed, however they look now.

    Parameters
    ----------
    sealed : sequence of n objects
        What was found in place of the bytes of values.

    n_words : int
        Words that a value must have.

    Returns
    -------
    is_whole : ndarray of shape (n,), dtype bool
        Which of them are what once was sealed, with that number of words.

    digests : ndarray of shape (m, 4), dtype uint64
        Digests that the whole ones belong to.

    words : ndarray of shape (m, n_words), dtype uint64
        Their values; read-only.
    """
    n_bytes = 8 * (EXTRA_WORDS + n_words)
    is_whole = np.ones(len(sealed), dtype=bool)
    try:
        fits = set(map(len, sealed)) == {n_bytes}
    except TypeError:
        fits = False
    if not fits:
        is_whole[:] = [isinstance(value, bytes) and len(value) == n_bytes for value in sealed]
        sealed = list(compress(sealed, is_whole))
    values = np.frombuffer(b"".join(sealed), dtype=np.uint64).reshape(-1, EXTRA_WORDS + n_words)
    is_right = np.fromiter(map(zlib.crc32, sealed), dtype=np.uint32, count=len(sealed)) == _RESIDUE
    is_right &= values.view("<u4")[:, -2] == _sums(values)
    if not is_right.all():
        values = values[is_right]
        is_whole[is_whole] = is_right
    return is_whole, values[:, :DIGEST_WORDS], values[:, DIGEST_WORDS:-1]
