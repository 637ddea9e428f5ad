"""Characters of a font as pictures, with their Unicode names as text: twelve scripts to tell apart."""

import os
import re
import unicodedata
from numbers import Integral

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.utils import Bunch, check_random_state

from .._optional import import_optional_dependency
from .._typing import RandomState

# Each script is the first word of its characters' Unicode names. These words are removed from the texts.
_SCRIPTS = [
    *("Arabic", "Armenian", "Canadian", "Cyrillic", "Georgian", "Greek"),
    *("Hebrew", "Lao", "Latin", "Lisu", "Nko", "Tifinagh"),
]
_SCRIPT_WORDS = re.compile(rf"\b(?:syllabics|{'|'.join(_SCRIPTS).lower()})\b")

# In pixels; with these every character fits, and all stand on one line.
_SIDE = 64
_FONT_SIZE = 40
_BASELINE = 46

# Smallest size of a class in a subset where possible, enough for five folds.
_MIN_PER_CLASS = 5

_DESCR = """\
.. _glyphs_dataset:

Characters of twelve scripts, as pictures and names
---------------------------------------------------

**Data set characteristics**

:Samples: 3048 with the DejaVu Sans 2.37 of current matplotlib
:Classes: 12, from 48 (Lisu) to 966 (Latin) samples
:Modalities: ``text`` (string), ``image`` (array of shape (64, 64), dtype uint8)
:Missing values: none

One sample is one character. The task is to tell which script it belongs to: Arabic, Armenian, Canadian
syllabics, Cyrillic, Georgian, Greek, Hebrew, Lao, Latin, Lisu, N'Ko or Tifinagh.

``image`` is the character in black on white, 64 pixels high and wide, drawn at one font size and on one
baseline and centred from left to right. Marks that combine with letters are drawn alone. Scripts
share shapes: to the pixel there are only 2725 different images (and 2938 different texts).

``text`` is the character's Unicode name in lower case, without every word that names one of the twelve scripts,
such as "small letter a with grave" or "west-cree swii". Names share words across scripts ("small letter a"),
and even whole texts.

``codepoint`` is the character's number in Unicode. It identifies the sample and is no feature: scripts occupy
ranges of it, so that a model which sees it has little left to learn.

Neither modality is enough. Balanced accuracy of ``make_pipeline(StandardScaler(),
LogisticRegression(max_iter=1000))`` over ``StratifiedKFold(5, shuffle=True, random_state=0)`` for three
sets of features:

==============================================  ====
``ImageDescriptor()``                           0.55
embeddings of the text by all-MiniLM-L6-v2      0.75
both, concatenated                              0.86
==============================================  ====

Samples are in the order of ``codepoint``, which puts relatives next to each other: shuffle for cross-validation.

**Source**

The shapes come from DejaVu Sans, which matplotlib ships. The DejaVu fonts derive from Bitstream Vera, with
glyphs of Arev, and are free to use, copy and embed under the licences of these two; the changes made by the DejaVu
project are in the public domain. The names come from Python's ``unicodedata``. Unicode never changes a name that it has
given, so all supported versions of Python give the same samples and texts as long as the font is the
same. Shades of grey at the edges may differ a little between versions of FreeType, which draws for Pillow.
"""


def load_glyphs(
    *,
    n_samples: int | None = None,
    as_frame: bool = True,
    return_X_y: bool = False,
    random_state: RandomState = 0,
) -> Bunch | tuple:
    """Load about 3000 characters of twelve scripts, as pictures and names (classification).

    Text and image are real, and each tells only part of the answer. Nothing is downloaded: the names come with Python
    and the font with matplotlib, which the extra ``plot`` installs. Classes have from 48 (Lisu) to 966 (Latin) samples.

    Parameters
    ----------
    n_samples : int, default=None
        Number of samples to draw, from 12 to all; None means all. The classes keep their proportions, except that each
        has at least 5 samples, or as many as ``n_samples`` allows.

    as_frame : bool, default=True
        Whether ``data`` is a pandas DataFrame and ``target`` a Series, rather than arrays.

    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    random_state : int, RandomState instance or None, default=0
        Seed of the choice of samples. Without effect if ``n_samples=None``.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With the following attributes.

        data : DataFrame or ndarray of shape (n_samples, 3)
            Columns ``text`` (str), ``image`` (ndarray of shape (64, 64), dtype uint8, black on white) and
            ``codepoint`` (int, identifies the character and reveals its script). The array is of dtype object.
        target : Series or ndarray of shape (n_samples,)
            Number of the script in ``target_names``.
        target_names : list of str
            Names of the scripts.
        feature_names : list of str
            Names of the columns of ``data``.
        frame : DataFrame of shape (n_samples, 4) or None
            ``data`` with the column ``target``. None if ``as_frame=False``.
        DESCR : str
            Description of the data set.

    (data, target) : tuple if ``return_X_y=True``
        As above.

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    ValueError
        If ``n_samples`` is not a number from 12 to the number of characters.

    Examples
    --------
    >>> from skmm.datasets import load_glyphs
    >>> X, y = load_glyphs(return_X_y=True, n_samples=100)
    >>> X.columns.tolist()
    ['text', 'image', 'codepoint']
    >>> X["image"].iloc[0].shape
    (64, 64)
    """
    font_path, codepoints, target = _list_characters()
    if n_samples is not None:
        chosen = _stratified_subset(target, n_samples, random_state)
        codepoints, target = codepoints[chosen], target[chosen]

    columns = {
        "text": np.array([_text(codepoint) for codepoint in codepoints], dtype=object),
        "image": np.fromiter(_draw(codepoints, font_path), dtype=object, count=len(codepoints)),
        "codepoint": codepoints,
    }
    frame = None
    if as_frame:
        import pandas as pd

        data = pd.DataFrame(columns).astype({"text": "str"})
        target = pd.Series(target, name="target")
        frame = data.assign(target=target)
    else:
        data = np.column_stack([column.astype(object) for column in columns.values()])
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        target_names=list(_SCRIPTS),
        feature_names=list(columns),
        frame=frame,
        DESCR=_DESCR,
    )


def _list_characters():
    """Return the font's path, its code points in the twelve scripts in ascending order, and the script of each."""
    matplotlib = import_optional_dependency("matplotlib", "plot")
    ft2font = import_optional_dependency("matplotlib.ft2font", "plot")
    font_path = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    script_of = {script.upper(): number for number, script in enumerate(_SCRIPTS)}
    codepoints, target = [], []
    for codepoint in sorted(ft2font.FT2Font(font_path).get_charmap()):
        first_word = unicodedata.name(chr(codepoint), "").split(" ")[0]
        if first_word in script_of:
            codepoints.append(codepoint)
            target.append(script_of[first_word])
    return font_path, np.array(codepoints), np.array(target)


def _text(codepoint):
    """Return the name of a character, without the words that name a script."""
    return " ".join(_SCRIPT_WORDS.sub("", unicodedata.name(chr(codepoint)).lower()).split())


def _draw(codepoints, font_path):
    """Yield the characters' pictures, arrays of shape (_SIDE, _SIDE)."""
    # The layout engine that every build of Pillow has.
    font = ImageFont.truetype(font_path, _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    for character in map(chr, codepoints):
        image = Image.new("L", (_SIDE, _SIDE), color=255)
        left, _, right, _ = font.getbbox(character, anchor="ls")
        origin = ((_SIDE - round(left + right)) // 2, _BASELINE)
        ImageDraw.Draw(image).text(origin, character, fill=0, font=font, anchor="ls")
        yield np.array(image)


def _stratified_subset(target, n_samples, random_state):
    """Return rows, drawn so that the classes keep their proportions, in ascending order."""
    counts = np.bincount(target)
    is_number = isinstance(n_samples, Integral) and not isinstance(n_samples, bool)
    if not is_number or not len(counts) <= n_samples <= len(target):
        raise ValueError(
            f"n_samples must be an int from {len(counts)} (the classes) to {len(target)} (all characters) or None, "
            f"got {n_samples!r}."
        )
    least = np.minimum(counts, min(_MIN_PER_CLASS, n_samples // len(counts)))
    # Each class has `least` samples; every other sample goes to the class that is furthest below its share.
    sizes = least.copy()
    share = n_samples * counts / counts.sum()
    for _ in range(n_samples - sizes.sum()):
        sizes[np.argmax(np.where(sizes < counts, share - sizes, -np.inf))] += 1
    rng = check_random_state(random_state)
    rows = [rng.choice(np.flatnonzero(target == script), size, replace=False) for script, size in enumerate(sizes)]
    return np.sort(np.concatenate(rows))
