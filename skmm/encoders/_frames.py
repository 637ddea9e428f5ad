"""Frames of a video: how many are chosen, and how their vectors become one."""

import numpy as np

# With n_frames="auto": for sampling="uniform", and at most for the others.
UNIFORM_FRAMES, MOST_FRAMES = 8, 64

# Into how many equal parts each level of the pyramid cuts the time.
_PYRAMID = (1, 2, 4)


def _mean_std(vectors):
    return np.concatenate([vectors.mean(axis=0), vectors.std(axis=0)])


def _pyramid(vectors):
    n = len(vectors)
    # Bounds are rounded outwards, so that no stretch is empty.
    stretches = [vectors[j * n // k : -(-(j + 1) * n // k)] for k in _PYRAMID for j in range(k)]
    return np.concatenate([stretch.mean(axis=0) for stretch in stretches])


POOLINGS = {
    "mean": lambda vectors: vectors.mean(axis=0),
    "max": lambda vectors: vectors.max(axis=0),
    "mean_std": _mean_std,
    "pyramid": _pyramid,
}
