"""Frames are chosen by when they are on screen: beside a search through all of them with exact numbers."""

from fractions import Fraction

import numpy as np
import pytest

from skmm.exceptions import RejectedItem
from skmm.media._timeline import Timeline, choose_frames

TICK = Fraction(1, 1000)


def uneven(n_frames, seed):
    """A timeline whose frames stay for 1 to 90 ticks, and when each of them appears, then the end."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 90, n_frames)
    times = [int(7 + lengths[:i].sum()) for i in range(n_frames + 1)]
    is_key = rng.random(n_frames) < 0.3
    return Timeline.of_stamps(times[:-1], int(lengths[-1]), TICK, is_key), times


def on_screen(times, moment):
    return next(i for i in range(len(times) - 1) if times[i] <= moment < times[i + 1])


@pytest.mark.parametrize("n_frames", [1, 2, 7, 40])
@pytest.mark.parametrize("seed", range(5))
def test_uniform(n_frames, seed):
    timeline, times = uneven(12, seed)
    span = times[-1] - times[0]
    expected = [on_screen(times, times[0] + Fraction((2 * i + 1) * span, 2 * n_frames)) for i in range(n_frames)]
    assert choose_frames(timeline, "uniform", n_frames, 1.0).tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_fps(seed):
    timeline, times = uneven(30, seed)
    step = 1 / (Fraction(25) * TICK)
    # Half a tick later, for times that were rounded.
    start, end = times[0] + Fraction(1, 2), times[-1]
    moments = [start + i * step for i in range(1000) if start + i * step < end]
    assert choose_frames(timeline, "fps", 1000, 25.0).tolist() == [on_screen(times, moment) for moment in moments]


@pytest.mark.parametrize("seed", range(5))
def test_keyframes(seed):
    timeline, _ = uneven(40, seed)
    keys = np.flatnonzero(timeline.is_key)
    assert choose_frames(timeline, "keyframes", 100, 1.0).tolist() == keys.tolist()
    some = choose_frames(timeline, "keyframes", 3, 1.0)
    assert len(some) == 3
    assert set(some) <= set(keys)


def test_stamps_at_a_constant_distance_up_to_rounding_are_counted():
    rounded = [round(i * 1000 / 30) for i in range(90)]
    timeline = Timeline.of_stamps(rounded, 33, TICK, np.ones(90))
    assert timeline.times.tolist() == list(range(90))
    assert float(timeline.tick) == pytest.approx(1 / 30, abs=1e-5)


def test_a_frame_without_a_keyframe_flag_is_taken_all_the_same():
    timeline = Timeline.of_count(5, TICK, np.zeros(5))
    assert choose_frames(timeline, "keyframes", 3, 1.0).tolist() == [0]


def test_frames_without_a_rate_have_no_seconds():
    with pytest.raises(RejectedItem, match="no rate"):
        choose_frames(Timeline.of_count(5, None), "fps", 3, 1.0)
