"""Values of a store: what was sealed is unsealed, and no damage passes."""

import itertools
import sys

import numpy as np
import pytest

from skmm.store._engine import seal, unseal

RNG = np.random.default_rng(0)


def words_of(n, n_words):
    return RNG.integers(2**64, size=(n, n_words), dtype=np.uint64)


@pytest.mark.parametrize("n_words", [0, 1, 4, 192])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_what_was_sealed(n, n_words):
    digests, words = words_of(n, 4), words_of(n, n_words)
    is_whole, found, values = unseal([bytes(value) for value in seal(digests, words)], n_words)
    assert is_whole.all()
    np.testing.assert_array_equal(found, digests)
    np.testing.assert_array_equal(values, words)


def flipped(value, places):
    bits = np.unpackbits(np.frombuffer(value, dtype=np.uint8))
    bits[list(places)] ^= 1
    return np.packbits(bits).tobytes()


@pytest.mark.parametrize("words", [words_of(1, 3), np.zeros((1, 3), np.uint64), ~np.zeros((1, 3), np.uint64)])
def test_every_bit_every_pair_and_triples(words):
    (value,) = seal(words_of(1, 4), words)
    n_bits = 8 * len(value)
    pairs = itertools.combinations(range(n_bits), 2)
    triples = (RNG.choice(n_bits, 3, replace=False) for _ in range(20_000))
    changed = [flipped(value, places) for places in itertools.chain(zip(range(n_bits)), pairs, triples)]
    assert not unseal(changed, 3)[0].any()


def test_top_bits_of_words_and_words_that_change_places():
    (value,) = seal(words_of(1, 4), words_of(1, 192))
    # Bits are counted from the highest of each byte on, and the last byte of a word is its highest.
    tops = [64 * i + (56 if sys.byteorder == "little" else 0) for i in range(197)]
    changed = [flipped(value, RNG.choice(tops, n, replace=False)) for n in range(2, 197, 2)]
    words = np.frombuffer(value, np.uint64)
    for i, j in itertools.combinations(range(0, 197, 7), 2):
        moved = words.copy()
        moved[[i, j]] = moved[[j, i]]
        changed.append(moved.tobytes())
    assert not unseal(changed, 192)[0].any()


def test_runs_of_bytes_and_noise():
    (value,) = seal(words_of(1, 4), words_of(1, 16))
    changed = []
    for start in range(len(value) - 4):
        noise = bytearray(value)
        noise[start : start + 4] = bytes(b ^ int(RNG.integers(1, 256)) for b in noise[start : start + 4])
        changed.append(bytes(noise))
        changed.append(bytes(value[:start]) + bytes(len(value) - start))
        changed.append(RNG.bytes(len(value)))
    assert not unseal(changed, 16)[0].any()


def test_whatever_stands_in_place_of_values():
    (value,) = map(bytes, seal(words_of(1, 4), words_of(1, 2)))
    found = [value, None, 3, 2.5, b"", value[:-1], value + b"a", value + bytes(8), b"a" * len(value), value]
    is_whole, digests, words = unseal(found, 2)
    np.testing.assert_array_equal(np.flatnonzero(is_whole), [0, len(found) - 1])
    assert digests.shape == (2, 4)
    assert words.shape == (2, 2)
