"""When the frames of a video are on screen, and which of them to take."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..exceptions import RejectedItem


@dataclass
class Timeline:
    """When the frames of a video are on screen."""

    # When each frame appears, increasing integers, and when the last one disappears.
    times: np.ndarray
    end: int
    # Seconds per unit of these times; None if nothing says how fast the frames follow each other.
    tick: Fraction | None
    # Whether each frame can be decoded without another one.
    is_key: np.ndarray
    # By how much a frame may be late because its time was rounded.
    slack: Fraction = Fraction(1, 16)

    @classmethod
    def of_stamps(cls, stamps, last, tick, is_key):
        """Make one from time stamps, of which ``last`` is how long the last frame stays (0 if unknown).

        Stamps at a constant distance up to rounding are counted instead: containers round differently, and
        what is chosen should not depend on that.
        """
        times = np.asarray(stamps, dtype=np.int64)
        is_key = np.asarray(is_key, dtype=bool)
        n_gaps = len(times) - 1
        if n_gaps == 0:
            return cls(np.zeros(1, dtype=np.int64), 1, tick * max(1, last), is_key)
        length = int(times[-1] - times[0])
        if (np.abs((times - times[0]) * n_gaps - np.arange(len(times)) * length) <= n_gaps).all():
            return cls(np.arange(len(times)), len(times), tick * Fraction(length, n_gaps), is_key)
        last = last if last > 0 else int(np.median(np.diff(times)))
        return cls(times, int(times[-1]) + last, tick, is_key, Fraction(1, 2))

    @classmethod
    def of_count(cls, n_frames, tick, is_key=None):
        """Make one of frames that follow each other at a constant rate."""
        is_key = np.ones(n_frames, dtype=bool) if is_key is None else np.asarray(is_key, dtype=bool)
        return cls(np.arange(n_frames), n_frames, tick, is_key)


def choose_frames(timeline, sampling, n_frames, fps):
    """Return the positions of some frames, at least one, not decreasing.

    - "uniform": those on screen in the middle of each of ``n_frames`` equal parts of the time; a frame that is on
      screen in several counts as often;
    - "keyframes": all frames that can be decoded on their own;
    - "fps": those on screen every 1 / ``fps`` seconds from the start, refused where the timeline has no ``tick``.

    Of more than ``n_frames`` those in the middle of ``n_frames`` equal parts of the list remain.
    """
    times, start = timeline.times, int(timeline.times[0])
    span = timeline.end - start
    if sampling == "keyframes":
        keys = np.flatnonzero(timeline.is_key)
        # If no frame is marked as a keyframe, the first one must be one.
        keys = keys if len(keys) else np.zeros(1, dtype=np.int64)
        return keys if len(keys) <= n_frames else keys[_middles(len(keys), n_frames)]
    if sampling == "uniform":
        moments = [start + Fraction((2 * i + 1) * span, 2 * n_frames) for i in range(n_frames)]
    else:
        if timeline.tick is None:
            raise RejectedItem(
                'these frames have no rate, which sampling="fps" needs; pass (frame_rate, frames) instead of frames'
            )
        step = 1 / (exact_rate(fps) * timeline.tick)
        n_moments = max(1, -(-(span - timeline.slack) // step))
        order = range(n_moments) if n_moments <= n_frames else _middles(n_moments, n_frames)
        moments = [start + timeline.slack + int(k) * step for k in order]
    # Times are integers: rounding a moment down does not change which frames have appeared by then.
    return np.searchsorted(times, [moment.__floor__() for moment in moments], side="right") - 1


def exact_rate(fps):
    """Return frames per second as a fraction: the simple one that a float stands for."""
    return Fraction(float(fps)).limit_denominator(10**6) or Fraction(float(fps))


def _middles(total, n_parts):
    """Return the positions in the middle of each of some equal parts of a list."""
    return np.array([(2 * i + 1) * total // (2 * n_parts) for i in range(n_parts)])
