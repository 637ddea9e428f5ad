"""How the levels of fusion look in every drawing."""

from .._plot import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY

# Each level differs in colour and in marker.
LEVEL_STYLES = {
    "single": (GREY, "o"),
    "feature": (BLUE, "s"),
    "joint": (ORANGE, "D"),
    "decision": (GREEN, "^"),
    "model": (PURPLE, "v"),
    "extra": (SKY, "P"),
}
