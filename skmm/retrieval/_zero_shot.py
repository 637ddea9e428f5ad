"""Classes known by their texts: items are classified by the nearest prompt in a space of both."""

import os
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.preprocessing import normalize
from sklearn.utils import check_consistent_length, gen_batches
from sklearn.utils.validation import check_is_fitted

from .._columns import check_columns, from_arrow, is_data_frame, is_missing_item, resolve_columns, shortened
from .._sklearn import HasMethods, Interval, StrOptions, fit_context, safe_indexing
from .._typing import Items
from .._warnings import warn
from ..encoders import AudioEncoder, ImageEncoder, ItemEncoder, ModelEncoder, TextEncoder, VideoEncoder
from ..exceptions import first_line

# Kind of items -> what encodes them where only the name of a checkpoint is passed, and their usual template.
_KINDS = {
    "image": (ImageEncoder, "a photo of a {}"),
    "audio": (AudioEncoder, "this is a sound of {}"),
    "video": (VideoEncoder, "a video of a {}"),
}
# Factor of the cosine similarities where the checkpoint has none: the largest that CLIP's training allows.
_USUAL_SCALE = 100.0
# Values of beta that are tried.
_SHARPNESSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
# Nats by which two more parameters have to lower a loss that is summed over rows (Akaike).
_COST_OF_TWO = 2.0
# Share of the items of known classes that an automatic threshold rejects.
_REJECTED_SHARE = 0.05
# Rows whose similarities are in memory at a time.
_CHUNK_OF_ROWS = 1024
_ENCODER = [str, os.PathLike, HasMethods(["fit", "transform"]), None]


class ZeroShotClassifier(ClassifierMixin, BaseEstimator):
    r"""Classify images, sounds or videos by texts that describe the classes, with few labels or none.

    A CLIP-like checkpoint maps items and texts into one space. The score of a class is the cosine similarity between
    the item and the class's prompts [1]_, times the scale that the checkpoint learned,

    .. math:: f_c(x) = s \cos(x, t_c) + \alpha \frac{1}{n_c} \sum_{i: y_i = c} e^{-\beta (1 - \cos(x, x_i))},

    and probabilities are their softmax. The second term is Tip-Adapter's [2]_ and needs labelled items; without labels
    it is 0, and nothing is learned.

    Parameters
    ----------
    image : str, path-like, transformer or None, default=None
        Encoder of the items if they are images: an :class:`~skmm.ImageEncoder` with a CLIP-like model, the name or
        folder of such a model, or any transformer into the space of ``text``. One of ``image``, ``audio`` and
        ``video`` is set.

    text : str, path-like, transformer or None, default=None
        Encoder of the prompts. None is a :class:`~skmm.TextEncoder` with the checkpoint of the other encoder.

    audio : str, path-like, transformer or None, default=None
        Encoder of the items if they are sounds: an :class:`~skmm.AudioEncoder` with CLAP [3]_.

    video : str, path-like, transformer or None, default=None
        Encoder of the items if they are videos: a :class:`~skmm.VideoEncoder` with a CLIP-like model, which takes the
        mean of the frames.

    classes : dict, array-like of str or None, default=None
        Names of the classes, which are put into the templates; or a dict that maps each label to its text or to a list
        of texts. None takes the labels in ``y``, which are strings then.

    templates : "auto", str or sequence of str, default="auto"
        Prompts with ``{}`` where the name of the class belongs. A class is the mean of the unit vectors of its prompts,
        scaled to unit length. "auto" is "a photo of a {}" for images, "this is a sound of {}" for sounds, "a video of
        a {}" for videos; use "{}" for texts that are whole sentences.

    column : str, int or None, default=None
        Column of the items, where X is a table of several columns.

    logit_scale : float or {"auto", "checkpoint"}, default="auto"
        Factor :math:`s` of the similarities. "checkpoint" is what the network learned (``exp(logit_scale)`` of CLIP),
        or 100 where it has none. "auto" is that without labels; with labels it is fitted to them.

    alpha : float or "auto", default="auto"
        Weight of the labelled items. "auto" fits it to the labels, and is 0 where that is no better. 0 leaves them
        out.

    beta : float or "auto", default="auto"
        How fast the influence of a labelled item falls with its distance. "auto" takes the best of .5, 1, 2, ..., 32.

    reject : str, int or None, default=None
        Label of items that belong to none of the classes. It is one more class, to which every item has the similarity
        ``threshold``. None rejects nothing.

    threshold : float or "auto", default="auto"
        Cosine similarity below which an item belongs to no class, for ``reject``. "auto" learns it in ``fit``: where y
        holds the label ``reject``, it is the cut between these items and the others with the highest balanced
        accuracy; else the similarity that 95 % of the items in X reach, of those with a label if there are any.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in order, that of ``reject`` among them.

    class_embeddings_ : ndarray of shape (n_classes, n_features)
        Unit vectors of the classes; a row of zeros for ``reject``.

    encoder_ : transformer
        Fitted encoder of the items.

    logit_scale_ : float
        Factor :math:`s` of the similarities.

    alpha_ : float
        Weight :math:`\alpha` of the labelled items.

    beta_ : float
        Sharpness :math:`\beta` of their influence; 1 where they have none.

    threshold_ : float or None
        Similarity to the class ``reject``; None without that.

    labelled_embeddings_ : ndarray of shape (n_labelled, n_features)
        Unit vectors of the labelled items; no rows where ``alpha_`` is 0.

    labelled_classes_ : ndarray of shape (n_labelled,)
        Their classes, as positions in ``classes_``.

    n_features_in_ : int
        Number of columns of X, if ``fit`` got one.

    feature_names_in_ : ndarray of shape (n_features_in_,), dtype object
        Names of its columns, if ``fit`` saw a data frame.

    Raises
    ------
    ValueError
        By ``fit`` if the encoders map into spaces of different widths, if a template has no ``{}``, if y holds labels
        that are not among the classes, or if a threshold cannot be learned.

    Warns
    -----
    UserWarning
        By ``predict`` and the like, once, of missing items. They get equal probabilities, or the label ``reject``.

    See Also
    --------
    skmm.ImageEncoder : Encodes images, with a CLIP-like model into the space of texts.

    Notes
    -----
    Labels may be few: rows whose label is missing (None, NaN, or -1 if that is no class) take no part. ``fit`` encodes
    the labelled items only, and ``fit()`` without X needs no items at all.

    With labels, :math:`s`, :math:`\alpha` and :math:`\beta` minimise the log loss of the labelled items, each left out
    of the sum over its class in turn, with a normal penalty on :math:`\log s / s_0` and :math:`\alpha / s_0` that holds
    them near the checkpoint's :math:`s_0` and 0 as long as labels are few. :math:`\alpha` stays 0 unless this lowers
    the summed log loss by 2 nats, as Akaike's criterion asks for two parameters, and the accuracy not at all. A class
    with a single labelled item is left without any when that is left out, so two per class are the least that help.
    Unlike in [2]_ a class has the mean over its items, not the sum, so that classes may have different numbers; one
    without any gets the mean of the others. Time and memory grow with the square of the number of labelled items.

    A joint embedding that was fitted on other rows serves as a pair of encoders, see the second example.

    References
    ----------
    .. [1] Radford, A. et al. (2021). "Learning Transferable Visual Models From Natural Language Supervision."
       Proceedings of ICML, 8748-8763.
    .. [2] Zhang, R. et al. (2022). "Tip-Adapter: Training-Free Adaption of CLIP for Few-Shot Classification."
       Proceedings of ECCV, 493-510.
    .. [3] Wu, Y. et al. (2023). "Large-Scale Contrastive Language-Audio Pretraining with Feature Fusion and
       Keyword-to-Caption Augmentation." Proceedings of ICASSP, 1-5.

    Examples
    --------
    With a checkpoint of CLIP:

    >>> from skmm import ImageEncoder, TextEncoder
    >>> from skmm.retrieval import ZeroShotClassifier
    >>> checkpoint = "sentence-transformers/clip-ViT-B-32"
    >>> classifier = ZeroShotClassifier(
    ...     image=ImageEncoder(checkpoint), text=TextEncoder(checkpoint), classes=["cat", "dog"]
    ... )

    With a joint embedding of colors and their names, for which "deep blue" and "forest green" are new:

    >>> from functools import partial
    >>> import pandas as pd
    >>> from PIL import ImageColor
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skmm import CCAFusion, ModalityFuser
    >>> colors = pd.DataFrame([(name, *ImageColor.getrgb(name)) for name in ImageColor.colormap])
    >>> words = TfidfVectorizer(analyzer="char", ngram_range=(2, 4))
    >>> joint = ModalityFuser([("text", words, 0), ("image", "passthrough", [1, 2, 3])], CCAFusion(3))
    >>> joint = joint.fit(colors.to_numpy(dtype=object))
    >>> encoders = {
    ...     name: FunctionTransformer(partial(joint.transform_modality, name=name)) for name in ("image", "text")
    ... }
    >>> classes = {"b": ["deep blue", "blue"], "g": "forest green"}
    >>> classifier = ZeroShotClassifier(**encoders, classes=classes, templates="{}").fit()
    >>> classifier.predict([[20, 30, 180], [10, 120, 40]])
    array(['b', 'g'], dtype='<U1')
    """

    _parameter_constraints: dict = {
        "image": _ENCODER,
        "text": _ENCODER,
        "audio": _ENCODER,
        "video": _ENCODER,
        "classes": [dict, "array-like", None],
        "templates": [str, list, tuple, np.ndarray],
        "column": [str, Integral, None],
        "logit_scale": [StrOptions({"auto", "checkpoint"}), Interval(Real, 0, None, closed="neither")],
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "beta": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "reject": [str, Integral, None],
        "threshold": [StrOptions({"auto"}), Interval(Real, None, None, closed="neither")],
    }

    def __init__(
        self,
        image: Any = None,
        text: Any = None,
        *,
        audio: Any = None,
        video: Any = None,
        classes: Mapping | ArrayLike | None = None,
        templates: str | Sequence[str] = "auto",
        column: str | int | None = None,
        logit_scale: float | str = "auto",
        alpha: float | str = "auto",
        beta: float | str = "auto",
        reject: str | int | None = None,
        threshold: float | str = "auto",
    ) -> None:
        self.image = image
        self.text = text
        self.audio = audio
        self.video = video
        self.classes = classes
        self.templates = templates
        self.column = column
        self.logit_scale = logit_scale
        self.alpha = alpha
        self.beta = beta
        self.reject = reject
        self.threshold = threshold

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Items = None, y: ArrayLike | None = None) -> Self:
        """Encode the prompts, and learn from labels if there are any.

        Parameters
        ----------
        X : Series, DataFrame or Table, array-like or list of n_samples items, default=None
            Column of items, or a table with the column ``column``. Without labels they are not encoded, except for the
            threshold of ``reject``.

        y : array-like of shape (n_samples,), default=None
            Labels, missing or -1 in rows without one.

        Returns
        -------
        self : estimator
            The fitted classifier.
        """
        kind = self._kind()
        encoder = self._item_encoder(kind)
        texts_of = self._texts_of_classes(y)
        labels = sorted_labels([*texts_of, *([] if self.reject is None else [self.reject])], type(self).__name__)
        targets = None if y is None else self._positions_of(labels, X, y)
        items = None if X is None else self._column(X)

        self.encoder_ = self._fit_encoder(encoder, items, kind)
        self.classes_ = np.array(labels)
        text_encoder = self._text_encoder(encoder)
        self.class_embeddings_ = self._embed_classes(text_encoder, texts_of, kind)
        scale = self._checkpoint_scale(text_encoder)
        self._learn(items, targets, scale)
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        if X is not None:
            check_columns(self, from_arrow(X), reset=True)
        return self

    def predict(self, X: Items) -> np.ndarray:
        """Predict the label of each item.

        Parameters
        ----------
        X : Series, DataFrame or Table, array-like or list of n_samples items
            Column of items, or a table with the column ``column``.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            Labels, ``reject`` for items that are like no class.
        """
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]

    def predict_proba(self, X: Items) -> np.ndarray:
        """Predict the probabilities of the classes.

        Parameters
        ----------
        X : Series, DataFrame or Table, array-like or list of n_samples items
            Column of items, or a table with the column ``column``.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of ``classes_``.
        """
        return softmax(self._logits(X), axis=1)

    def decision_function(self, X: Items) -> np.ndarray:
        """Compute the scores of the classes; without labels, those of CLIP itself ("logits per image").

        Parameters
        ----------
        X : Series, DataFrame or Table, array-like or list of n_samples items
            Column of items, or a table with the column ``column``.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes) or (n_samples,)
            Scores in the order of ``classes_``; of two classes, the score of the second minus that of the first.
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def _kind(self):
        """Return which of the encoders of items is set."""
        kinds = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(
                f"{type(self).__name__} needs one of image, audio and video, the encoder of the items, got "
                f"{' and '.join(kinds) or 'none'}; set one of them."
            )
        return kinds[0]

    def _item_encoder(self, kind):
        encoder = getattr(self, kind)
        return _KINDS[kind][0](encoder) if isinstance(encoder, str | os.PathLike) else clone(encoder)

    def _text_encoder(self, encoder):
        if isinstance(self.text, str | os.PathLike):
            return TextEncoder(self.text)
        if self.text is not None:
            return clone(self.text)
        if not isinstance(encoder, ModelEncoder) or not isinstance(encoder.model, str | os.PathLike):
            raise ValueError(
                f"{type(self).__name__}: text=None takes the checkpoint of the encoder of items, but "
                f"{type(encoder).__name__} has none with a name; pass text=TextEncoder(...) for the same space."
            )
        shared = ("device", "precision", "revision", "store")
        return TextEncoder(encoder.model, **{name: getattr(encoder, name) for name in shared})

    def _texts_of_classes(self, y):
        """Return label -> list of texts."""
        owner = type(self).__name__
        if isinstance(self.classes, Mapping):
            texts_of = {label: [text] if isinstance(text, str) else list(text) for label, text in self.classes.items()}
        elif self.classes is not None:
            labels = list(self.classes)
            if len(set(labels)) < len(labels):
                repeated = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
                raise ValueError(
                    f"{owner}: classes holds {shortened(repeated)} more than once; remove the repetitions."
                )
            texts_of = {label: [label] for label in labels}
        elif y is None:
            raise ValueError(f"{owner}: classes=None takes the labels in y, but y is None; set classes.")
        else:
            labels = dict.fromkeys(label for label in label_list(y, owner) if not _is_unlabelled(label))
            texts_of = {label: [label] for label in labels if label != self.reject}
        for label, texts in texts_of.items():
            if not texts or not all(isinstance(text, str) and text for text in texts):
                raise ValueError(
                    f"{owner}: the class {label!r} has no text, or one that is empty or no string: {texts!r}; pass "
                    f"classes as a dict of labels and texts, such as {{{label!r}: 'tabby cat'}}."
                )
        if self.reject in texts_of:
            raise ValueError(f"{owner}: reject={self.reject!r} is one of the classes; choose another label for it.")
        if len(texts_of) < (2 if self.reject is None else 1):
            raise ValueError(
                f"{owner} needs at least 2 classes, or 1 and a label for none of them in reject, got {[*texts_of]}."
            )
        return texts_of

    def _templates(self, kind):
        templates = [self.templates] if isinstance(self.templates, str) else list(self.templates)
        templates = [_KINDS[kind][1]] if templates == ["auto"] else templates
        wrong = [template for template in templates if not isinstance(template, str) or "{}" not in template]
        if wrong or not templates:
            example = f"in {wrong[0]!r} it is missing" if wrong else "got none"
            raise ValueError(
                f"{type(self).__name__}: templates must be texts with {{}} where the name of a class is put, {example}."
            )
        return templates

    def _positions_of(self, labels, X, y):
        """Return the position of each row's label in the classes, -1 for rows without one."""
        owner = type(self).__name__
        if X is None:
            raise ValueError(f"{owner}: y is of no use without X; pass the items as well, or no labels.")
        y = label_list(y, owner)
        check_consistent_length(X, y)
        position_of = {label: position for position, label in enumerate(labels)}
        positions = [position_of.get(label, -1 if _is_unlabelled(label) else None) for label in y]
        if None in positions:
            unknown = dict.fromkeys(label for label, position in zip(y, positions, strict=True) if position is None)
            raise ValueError(
                f"{owner}: y holds labels that are not among the classes: {shortened(unknown, 5)}; the classes are "
                f"{shortened(labels, 5)}. Rows without a label have None, NaN or -1."
            )
        return np.array(positions)

    def _column(self, X):
        """Return the column of the items."""
        X = from_arrow(X)
        if is_data_frame(X) and self.column is None and X.shape[1] > 1:
            raise ValueError(
                f"{type(self).__name__}: X has the columns {shortened(X.columns)}; set column to that of the items."
            )
        if self.column is None or not (is_data_frame(X) or (isinstance(X, np.ndarray) and X.ndim == 2)):
            return X
        (position,), _ = resolve_columns(X, self.column, self._kind())
        return safe_indexing(X, position, axis=1)

    def _fit_encoder(self, encoder, items, kind):
        if items is not None:
            return encoder.fit(items, None)
        if isinstance(encoder, ItemEncoder):
            return encoder.fit([None])
        try:
            return encoder.fit([None], None)
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{type(self).__name__}: {kind}={encoder!r} cannot be fitted without items ({first_line(error)}); pass "
                "X to fit."
            ) from error

    def _embed_classes(self, text_encoder, texts_of, kind):
        """Return the unit vectors of the classes, one row per entry of ``classes_``."""
        templates = self._templates(kind)
        prompts = {
            label: [template.replace("{}", text) for template in templates for text in texts]
            for label, texts in texts_of.items()
        }
        every = [prompt for label in prompts for prompt in prompts[label]]
        text_encoder.fit(every, None)
        rows = self._unit_rows(text_encoder, every)
        if np.isnan(rows).any():
            raise ValueError(f"{type(self).__name__}: the text encoder returns NaN for {every[_first_nan(rows)]!r}.")
        n_items = getattr(self.encoder_, "n_features_out_", rows.shape[1])
        if n_items != rows.shape[1]:
            raise ValueError(
                f"{type(self).__name__}: {kind} has {n_items} features and text has {rows.shape[1]}, so they are not "
                "in one space; pass both sides of one CLIP-like checkpoint. (Of such networks timm has the image "
                "side alone, without the projection into that space.)"
            )
        ends = np.cumsum([len(prompts[label]) for label in prompts])
        means = dict(zip(prompts, [group.mean(axis=0) for group in np.split(rows, ends[:-1])], strict=True))
        zero = np.zeros(rows.shape[1])
        return normalize(np.array([means.get(label, zero) for label in self.classes_.tolist()]))

    def _checkpoint_scale(self, text_encoder):
        """Return the scale that the checkpoint learned, or the usual one."""
        scales = [getattr(encoder, "logit_scale_", None) for encoder in (self.encoder_, text_encoder)]
        return next((scale for scale in scales if scale is not None), _USUAL_SCALE)

    def _unit_rows(self, encoder, items):
        """Return the vectors of items at unit length, NaN where an item is missing."""
        rows = encoder.transform(items)
        rows = rows.toarray() if sparse.issparse(rows) else np.array(rows, dtype=np.float64)
        if rows.ndim != 2:
            raise ValueError(
                f"{type(self).__name__}: {type(encoder).__name__} must return a matrix, got shape {rows.shape}."
            )
        present = ~np.isnan(rows).any(axis=1)
        rows[~present] = np.nan
        if present.any():
            rows[present] = normalize(rows[present])
        return rows

    def _learn(self, items, targets, scale):
        """Set the threshold, the scale, and what there is of the labelled items."""
        labelled = [] if targets is None else np.flatnonzero(targets >= 0)
        needs_all = self.reject is not None and self.threshold == "auto" and len(labelled) == 0
        if needs_all and items is None:
            raise ValueError(
                f"{type(self).__name__}: threshold='auto' needs items to learn it; pass X to fit, or a number."
            )
        n_features = self.class_embeddings_.shape[1]
        rows, targets = np.empty((0, n_features)), np.empty(0, dtype=int) if len(labelled) == 0 else targets[labelled]
        if needs_all:
            rows = self._unit_rows(self.encoder_, items)
        elif len(labelled):
            rows = self._unit_rows(self.encoder_, safe_indexing(items, labelled))
        present = ~np.isnan(rows).any(axis=1)
        rows, targets = rows[present], targets[present] if len(targets) else targets
        self.threshold_ = None if self.reject is None else self._find_threshold(rows, targets)
        if needs_all:
            rows = rows[:0]

        self.logit_scale_ = float(scale if isinstance(self.logit_scale, str) else self.logit_scale)
        self.alpha_ = 0.0 if self.alpha == "auto" or len(rows) == 0 else float(self.alpha)
        self.beta_ = 1.0 if self.beta == "auto" else float(self.beta)
        self.labelled_embeddings_, self.labelled_classes_ = rows, targets
        if len(rows):
            self._calibrate()
        if self.alpha_ == 0:
            self.labelled_embeddings_, self.labelled_classes_ = rows[:0], targets[:0]

    def _find_threshold(self, rows, targets):
        """Return the similarity to the class ``reject``."""
        if self.threshold != "auto":
            return float(self.threshold)
        position = self.classes_.tolist().index(self.reject)
        best = np.delete(rows @ self.class_embeddings_.T, position, axis=1).max(axis=1)
        if len(best) == 0:
            raise ValueError(f"{type(self).__name__}: threshold='auto' found no item in X to learn it from.")
        is_rejected = targets == position if len(targets) else np.zeros(len(best), dtype=bool)
        if not is_rejected.any():
            return float(np.quantile(best, _REJECTED_SHARE))
        if is_rejected.all():
            return float(best.max())
        values = np.unique(best)
        cuts = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
        n_below = [np.searchsorted(np.sort(best[group]), cuts) for group in (is_rejected, ~is_rejected)]
        return float(cuts[np.argmax(n_below[0] / is_rejected.sum() - n_below[1] / (~is_rejected).sum())])

    def _calibrate(self):
        """Fit the scale, alpha and beta to the labelled items, each left out in turn."""
        rows, targets = self.labelled_embeddings_, self.labelled_classes_
        cosines = self._cosines(rows)
        fixed_scale = self.logit_scale != "auto"
        without = minimise_loss(cosines, np.zeros_like(cosines), targets, self.logit_scale_, fixed_scale, 0.0)
        candidates = []
        if self.alpha != 0:
            alpha = None if self.alpha == "auto" else float(self.alpha)
            for beta in _SHARPNESSES if self.beta == "auto" else [float(self.beta)]:
                affinities = self._affinities(rows, beta, leave_out=True)
                candidate = minimise_loss(cosines, affinities, targets, self.logit_scale_, fixed_scale, alpha)
                candidates.append((candidate.loss, beta, candidate))
        best = without
        if candidates:
            _, beta, candidate = min(candidates, key=lambda entry: entry[:2])
            is_better = candidate.loss + _COST_OF_TWO < without.loss and candidate.n_correct >= without.n_correct
            if self.alpha != "auto" or is_better:
                best, self.beta_ = candidate, beta
        self.logit_scale_, self.alpha_ = best.scale, best.alpha

    def _cosines(self, rows):
        """Return the similarities to the classes, that of ``reject`` being the threshold."""
        cosines = rows @ self.class_embeddings_.T
        if self.threshold_ is not None:
            cosines[:, self.classes_.tolist().index(self.reject)] = self.threshold_
        return cosines

    def _affinities(self, rows, beta, leave_out=False):
        """Return the mean affinity of rows to the labelled items of each class; with ``leave_out``, to other ones."""
        members = np.eye(len(self.classes_))[self.labelled_classes_]
        affinities = np.empty((len(rows), len(self.classes_)))
        for batch in gen_batches(len(rows), _CHUNK_OF_ROWS):
            kernel = np.exp(beta * (rows[batch] @ self.labelled_embeddings_.T - 1))
            counts = members.sum(axis=0)
            if leave_out:
                kernel[np.arange(len(kernel)), np.arange(len(rows))[batch]] = 0
                counts = counts - members[batch]
            counts = np.broadcast_to(counts, affinities[batch].shape)
            means = np.divide(kernel @ members, counts, out=np.zeros(counts.shape), where=counts > 0)
            # A class without labelled items is as near as the others are on average.
            usual = means.sum(axis=1) / np.maximum((counts > 0).sum(axis=1), 1)
            affinities[batch] = np.where(counts > 0, means, usual[:, np.newaxis])
        return affinities

    def _logits(self, X):
        check_is_fitted(self)
        rows = self._unit_rows(self.encoder_, self._column(X))
        missing = np.isnan(rows).any(axis=1)
        if rows.shape[1] != self.class_embeddings_.shape[1]:
            raise ValueError(
                f"{type(self).__name__}: the items have {rows.shape[1]} features and the texts "
                f"{self.class_embeddings_.shape[1]}, so they are not in one space; pass encoders into one."
            )
        rows[missing] = 0
        logits = self.logit_scale_ * self._cosines(rows)
        if self.alpha_ > 0:
            logits += self.alpha_ * self._affinities(rows, self.beta_)
        if missing.any():
            answer = "equal probabilities" if self.reject is None else repr(self.reject)
            warn(f"{type(self).__name__}: {missing.sum()} of {len(rows)} items are missing; they get {answer}.")
            logits[missing] = _USUAL_SCALE * (self.classes_ == self.reject)
        return logits

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.target_tags.required = False
        return tags


class Minimum(NamedTuple):
    """Scale and alpha at the least loss, that loss, and the number of rows whose class has the highest score."""

    scale: float
    alpha: float
    loss: float
    n_correct: int


def minimise_loss(cosines, affinities, targets, scale, fixed_scale, alpha):
    """Return the minimum of the log loss, summed over rows, with a penalty on scale and alpha.

    Parameters
    ----------
    cosines, affinities : ndarray of shape (n_samples, n_classes)
        The two terms of the scores.

    targets : ndarray of shape (n_samples,)
        Positions of the classes.

    scale : float
        Scale that the penalty draws to.

    fixed_scale : bool
        Whether the scale is that one.

    alpha : float or None
        Weight of the affinities; None finds it.
    """
    rows = np.arange(len(targets))

    def scores(parameters):
        return scale * (np.exp(parameters[0]) * cosines + parameters[1] * affinities)

    def objective(parameters):
        logits = scores(parameters)
        totals = logsumexp(logits, axis=1)
        loss = (totals - logits[rows, targets]).sum() + (parameters**2).sum() / 2
        residuals = np.exp(logits - totals[:, np.newaxis])
        residuals[rows, targets] -= 1
        slopes = np.exp(parameters[0]) * (residuals * cosines).sum(), (residuals * affinities).sum()
        return loss, scale * np.array(slopes) + parameters

    bounds = [(0, 0) if fixed_scale else (None, None), (0, None) if alpha is None else (alpha / scale, alpha / scale)]
    optimum = minimize(objective, [0.0, bounds[1][0]], jac=True, bounds=bounds, method="L-BFGS-B")
    n_correct = int((scores(optimum.x).argmax(axis=1) == targets).sum())
    return Minimum(float(scale * np.exp(optimum.x[0])), float(scale * optimum.x[1]), float(optimum.fun), n_correct)


def label_list(y, owner):
    """Return the labels as a list."""
    labels = np.asarray(from_arrow(y), dtype=object)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{owner}: y must hold one label per row, got shape {labels.shape}.")
    return labels.tolist()


def sorted_labels(labels, owner):
    """Return labels in order."""
    try:
        return sorted(labels)
    except TypeError as error:
        raise ValueError(
            f"{owner}: labels must be all strings or all numbers, got {shortened(labels)}; reject is one of them."
        ) from error


def _is_unlabelled(label):
    return not isinstance(label, str) and (is_missing_item(label) or label == -1)


def _first_nan(rows):
    return int(np.flatnonzero(np.isnan(rows).any(axis=1))[0])
