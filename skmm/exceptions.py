"""Errors that say which item could not be read, and why."""

__all__ = ["ItemError", "RejectedItem"]


class RejectedItem(ValueError):
    """Raised by an encoder's ``_prepare_item`` for an item that it cannot read; the text is the reason."""


class ItemError(ValueError):
    """An item that could not be encoded.

    Parameters
    ----------
    row : int
        Position of the item in the X that was passed.

    item : str
        The string or path itself, or a short description of anything larger.

    reason : str
        What is wrong with it.

    owner : str
        Encoder that met it, with the modality's name if it worked inside a composite.
    """

    def __init__(self, row, item, reason, owner):
        super().__init__(row, item, reason, owner)
        self.row = row
        self.item = item
        self.reason = reason
        self.owner = owner

    def __str__(self):
        return (
            f'{self.owner}: row {self.row}: {self.item}: {self.reason}; fix the item, or pass on_error="missing" '
            "to treat such items as missing."
        )


class BranchItemError(ItemError):
    """An item that was read by something without ``on_error``: a branch of a network, or "passthrough"."""

    def __str__(self):
        return (
            f"{self.owner}: row {self.row}: {self.item}: {self.reason}; fix the item, or set it to None, which makes "
            "it a missing one."
        )


def first_line(error):
    """Return the first line of an exception's text, for a message that quotes it; its type if it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
