"""What all drawings share: colours and markers that everyone can tell apart, and axes of a readable size."""

from ._optional import import_optional_dependency

# Okabe and Ito's colours, told apart with every kind of colour vision; their yellow is too pale for lines on white.
BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
GREY = "#999999"
COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
# Of different lengths, so that more than six curves still differ in one of the two.
MARKERS = "osD^v"

# In inches; at matplotlib's 100 dots per inch a figure is 600 pixels wide.
_WIDTH = 6.0


def make_axes(ax=None, height=4.0):
    """Return axes to draw into; this is where matplotlib is imported.

    Parameters
    ----------
    ax : matplotlib Axes or None, default=None
        Given back as they are; None means the axes of a new figure.

    height : float, default=4.0
        Height of a new figure in inches.

    Returns
    -------
    ax : matplotlib Axes
        Axes, of a figure 6 inches wide if it is new.
    """
    pyplot = import_optional_dependency("matplotlib.pyplot", "plot")
    if ax is None:
        _, ax = pyplot.subplots(figsize=(_WIDTH, height), layout="constrained")
    return ax
