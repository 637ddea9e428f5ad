"""What all drawings share."""

import pytest

from skmm._plot import COLORS, MARKERS, make_axes

pyplot = pytest.importorskip("matplotlib.pyplot")


def test_given_axes_are_given_back():
    figure, ax = pyplot.subplots()
    assert make_axes(ax) is ax
    pyplot.close(figure)


def test_new_axes_are_600_pixels_wide():
    ax = make_axes(height=3)
    assert (ax.figure.get_size_inches() * 100).tolist() == [600, 300]
    pyplot.close(ax.figure)


def test_many_curves_differ_in_colour_or_marker():
    n_curves = len(COLORS) * len(MARKERS)
    assert len({(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]) for i in range(n_curves)}) == n_curves
