"""Search of rows by any of their modalities, for queries of any other."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from .._columns import check_groups, check_table, check_X, from_arrow, is_data_frame, is_series, missing_rows, shortened
from .._composition import ModalityComposition, check_modalities, member_tags
from .._sklearn import HasMethods, Interval, StrOptions, VisualBlock, fit_context
from .._typing import Items, Modalities, PathType, Table
from .._warnings import warn
from ..fusion import AnchorFusion, CCAFusion, ContrastiveFusion, KernelCCAFusion, ModalityFuser, PLSFusion
from ..metrics import mean_reciprocal_rank
from ._files import load_retriever, save_retriever
from ._gallery import Gallery, items_frame
from ._index import GrowingArray, largest_products, make_index
from ._rerank import rerank_scores

if TYPE_CHECKING:
    import pandas as pd

# Strings that `embedding` may be. Few components lose pairs that differ in detail; benchmarks/retrieval.py compares.
EMBEDDINGS = {
    "anchor": AnchorFusion(),
    "cca": CCAFusion(256, weighting="correlation"),
    "contrastive": ContrastiveFusion(random_state=0),
    "kernel_cca": KernelCCAFusion(128, random_state=0),
    "pls": PLSFusion(128, weighting="correlation"),
}
# Items of each modality that local scaling compares with.
_REFERENCES = 5000
# Rows whose scores are in memory at once.
_SCORED = 512
# Length below which a vector has no direction.
_SHORTEST = 1e-6
_COLUMNS = ("query", "rank", "label", "score")


class RawBlocks(TransformerMixin, BaseEstimator):
    """Strategy of a fuser that returns the blocks as they are, with NaN where a modality is missing."""

    def __init__(self, blocks=None):
        self.blocks = blocks

    def fit(self, X, y=None):
        """Do nothing."""
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        """Return X."""
        return X

    def transform_modality(self, X_block, name):
        """Return the block."""
        return X_block

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _has_classes(retriever):
    """Return True before fit, and if fit got classes; else raise an AttributeError that says why not."""
    if hasattr(retriever, "fuser_") and not hasattr(retriever, "classes_"):
        raise AttributeError(
            "CrossModalRetriever predicts the classes of labelled neighbours; fit it with y, one class per row."
        )
    return True


class CrossModalRetriever(ModalityComposition):
    r"""Find rows by one modality for a query of another, such as pictures for a text.

    A joint embedding brings all modalities into one space, in which items are compared by their angle. By default
    cosines are scaled locally (CSLS): for a query q and an item g,

    .. math:: \mathrm{score}(q, g) = 2 \cos(q, g) - r(q) - r(g),

    where :math:`r(q)` is the mean cosine of q with its nearest items of the modality of g, and :math:`r(g)` that of g
    with its nearest items of the modality of q. Hubs, which are near to everything, are so found less often. Both are
    means over items of ``fit``, so that the score of a row depends neither on other queries nor on other rows.

    Parameters
    ----------
    modalities : list of (str, transformer, columns) or "auto", default="auto"
        As in :class:`ModalityFuser`.

    embedding : {"kernel_cca", "cca", "pls", "anchor", "contrastive"}, estimator or None, default="kernel_cca"
        Joint embedding. Any of :mod:`skmm.fusion` with a method ``transform_modality`` will do. The strings stand for
        ``KernelCCAFusion(128, random_state=0)``, ``CCAFusion(256, weighting="correlation")``, ``PLSFusion(128,
        weighting="correlation")``, ``AnchorFusion()`` and ``ContrastiveFusion(random_state=0)``. None is for encoders
        that share a space already, such as the towers of CLIP.

    hubness : {"csls"} or None, default="csls"
        Whether cosines are scaled locally. Without it the score is the cosine.

    n_neighbors : int, default=10
        Nearest items of local scaling, and neighbours that vote in ``predict``.

    center : bool, default=True
        Whether the mean of each modality, of the vectors of ``fit`` at length 1, is subtracted. It differs between
        modalities even where encoders were trained together (the modality gap).

    index : {"exact", "ann"} or estimator with ``fit`` and ``kneighbors``, default="exact"
        How the nearest vectors are found: by :class:`ExactIndex`, :class:`ApproximateIndex` or another index, such as
        :class:`~sklearn.neighbors.NearestNeighbors`, of which a clone is fitted for each modality. Vectors have one
        length there, so that it may compare them by cosine, Euclidean distance or inner product.

    rerank : str, cross-encoder, callable or None, default=None
        Scores in place of those of the space, for what ``search`` finds first: a
        :class:`sentence_transformers.CrossEncoder`, or its name, which compares the item of the query with that of the
        row; or a function of two data frames of the same length, queries and rows, that returns a score for each pair.

    n_rerank : int, default=50
        Rows per query that are scored again; at least as many as are to be found.

    n_jobs : int or None, default=None
        Number of modalities that are fitted at the same time. None means 1.

    verbose : bool, default=False
        Whether to say which modality is being fitted, and how long it took.

    Attributes
    ----------
    modalities_ : list of (str, transformer, columns)
        The fitted transformers, without what is dropped.

    named_modalities_ : Bunch
        The fitted transformers by name.

    fuser_ : ModalityFuser
        What applies the transformers.

    embedding_ : estimator or None
        The fitted joint embedding.

    blocks_ : dict of str to slice
        Columns that each modality has in the matrix that enters the embedding.

    indexes_ : dict of str to index
        Index of the vectors of each modality.

    labels_ : ndarray of shape (n_rows,)
        Labels of the rows that are searched: the index of the data frame, or integers.

    classes_ : ndarray of shape (n_classes,)
        Classes, if ``fit`` got one per row.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ModalityFuser : Fuses modalities for an estimator.
    KernelCCAFusion : The default space.

    Notes
    -----
    **Missing modalities.** Queries and rows may have any of the modalities. The space is learned from rows that have
    two; a row is found by those that it has.

    **References of local scaling** are 5,000 items of each modality at most, evenly spaced in ``fit``. Within one
    modality the nearest of them is left out, as it may be the item itself.

    **Memory.** Vectors are stored in float32, once for each modality, and the rows of X, which are not copied.

    **Files.** :meth:`save` writes a fitted retriever; :func:`~skmm.save_bundle` writes none, as it cannot write items.

    References
    ----------
    .. [1] A. Conneau, G. Lample, M. Ranzato, L. Denoyer and H. Jegou, "Word translation without parallel data",
       ICLR (2018).
    .. [2] W. Liang, Y. Zhang, Y. Kwon, S. Yeung and J. Zou, "Mind the gap: understanding the modality gap in
       multi-modal contrastive representation learning", NeurIPS (2022).

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from skmm import CrossModalRetriever
    >>> colours = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (0.5, 0.5, 0.5)}
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame([(f"a {name} thing", *rng.normal(rgb, 0.1)) for name, rgb in colours.items()] * 5)
    >>> X.columns = ["name", "r", "g", "b"]
    >>> retriever = CrossModalRetriever(
    ...     [("text", TfidfVectorizer(), "name"), ("colour", "passthrough", ["r", "g", "b"])]
    ... ).fit(X)
    >>> results = retriever.search(pd.DataFrame({"name": ["something blue"]}), n=2)
    >>> results[["query", "rank", "name"]]
       query  rank          name
    0      0     1  a blue thing
    1      0     2  a blue thing
    """

    _parameter_constraints: dict = {
        "modalities": [list, tuple, StrOptions({"auto"})],
        "embedding": [StrOptions(set(EMBEDDINGS)), HasMethods(["fit", "transform_modality"]), None],
        "hubness": [StrOptions({"csls"}), None],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "center": ["boolean"],
        "index": [StrOptions({"exact", "ann"}), HasMethods(["fit", "kneighbors"])],
        "rerank": [str, HasMethods(["predict"]), callable, None],
        "n_rerank": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "verbose": ["boolean"],
    }
    # Groups reach the space and the score in any search to which they are passed.
    __metadata_request__fit = {"groups": True}
    __metadata_request__score = {"groups": True}

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        embedding: Any = "kernel_cca",
        *,
        hubness: str | None = "csls",
        n_neighbors: int = 10,
        center: bool = True,
        index: Any = "exact",
        rerank: Any = None,
        n_rerank: int = 50,
        n_jobs: int | None = None,
        verbose: bool = False,
    ):
        self.modalities = modalities
        self.embedding = embedding
        self.hubness = hubness
        self.n_neighbors = n_neighbors
        self.center = center
        self.index = index
        self.rerank = rerank
        self.n_rerank = n_rerank
        self.n_jobs = n_jobs
        self.verbose = verbose

    # Fit, add, remove.

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Table, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> Self:
        """Learn the space, and index the rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality. Labels of its rows must be unique.

        y : array-like of shape (n_samples,), default=None
            Target, for the transformers and embeddings that use one. If it holds classes, ``predict`` finds them; -1
            and NaN stand for a missing one.

        groups : array-like of shape (n_samples,), default=None
            Groups of rows, for the embedding, such as ``ContrastiveFusion(positives="groups")``.

        Returns
        -------
        self : estimator
            The fitted retriever.
        """
        for attribute in ("fuser_", "classes_"):
            self.__dict__.pop(attribute, None)
        check_modalities(self)
        make_index(self.index).check_library()
        X = check_X(self, X, reset=True)
        groups = check_groups(groups, len(X))
        if y is not None:
            check_consistent_length(X, y)
        fuser = ModalityFuser(self.modalities, RawBlocks(), n_jobs=self.n_jobs, verbose=self.verbose)
        joined = fuser.fit_transform(X, y)
        self.modalities_, self.blocks_ = fuser.modalities_, fuser.blocks_
        self._inferred = self.modalities_ if self._is_auto else []
        self._columns = dict(fuser._columns)
        self.embedding_ = self._fit_embedding(joined, y, groups)
        units = {name: self._embed(joined[:, columns], name) for name, columns in self.blocks_.items()}
        self._centers = {name: _mean_vector(vectors) for name, vectors in units.items()} if self.center else {}
        units = {name: self._centered(vectors, name) for name, vectors in units.items()}
        self._references = {name: _references(vectors) for name, vectors in units.items()}
        codes = self._fit_classes(y)
        labels = list(X.index) if hasattr(X, "iloc") else list(range(len(X)))
        self._gallery = Gallery(labels, items_frame(X), codes)
        self._rows_of_key, self.indexes_ = {}, {}
        for name, vectors in units.items():
            present = _present(vectors)
            index = make_index(self.index)
            index._restore(self._as_rows(vectors[present], name), np.arange(len(present)), len(present))
            self.indexes_[name] = index
            self._rows_of_key[name] = GrowingArray(present)
        self._warn_of_lost(units)
        self.fuser_ = fuser
        return self

    def _fit_embedding(self, joined, y, groups):
        """Return the fitted embedding, or None."""
        if self.embedding is None:
            widths = {name: columns.stop - columns.start for name, columns in self.blocks_.items()}
            if len(set(widths.values())) > 1:
                raise ValueError(
                    f"embedding=None is for modalities that share a space, but their widths differ: {widths}; choose "
                    "an embedding, such as 'kernel_cca'."
                )
            return None
        embedding = clone(EMBEDDINGS[self.embedding] if isinstance(self.embedding, str) else self.embedding)
        if "blocks" not in embedding.get_params():
            raise TypeError(
                f"embedding is a strategy of fusion with a parameter 'blocks', got {type(embedding).__name__}."
            )
        if embedding.blocks is not None:
            raise ValueError(
                f"The retriever sets 'blocks' of its embedding from its modalities; leave it at None, got "
                f"{embedding.blocks!r}."
            )
        embedding.set_params(blocks=self.blocks_)
        return embedding.fit(joined, y) if groups is None else embedding.fit(joined, y, groups=groups)

    def _fit_classes(self, y):
        """Set ``classes_`` if there are any, and return the class of each row."""
        if y is None:
            return None
        labels = np.asarray(y)
        if labels.ndim != 1:
            return None
        labelled = ~_unlabelled(labels)
        if not labelled.any() or type_of_target(labels[labelled]) not in ("binary", "multiclass"):
            return None
        self.classes_ = np.unique(labels[labelled].astype(labels.dtype))
        if len(self.classes_) == 1 and not labelled.all():
            warn(
                f"CrossModalRetriever: y has the class {self.classes_.tolist()[0]!r} alone; -1, NaN and None stand for "
                "a missing label. Use other labels if -1 is a class."
            )
        return self._encode_classes(labels)

    def _encode_classes(self, y):
        """Return the position of each label in ``classes_``, -1 for missing ones."""
        labels = np.asarray(y)
        labelled = ~_unlabelled(labels)
        codes = np.full(len(labels), -1)
        unknown = sorted(set(labels[labelled].tolist()) - set(self.classes_.tolist()), key=str)
        if unknown:
            raise ValueError(f"y has classes that fit did not see: {unknown[:5]}; fit again.")
        codes[labelled] = np.searchsorted(self.classes_, labels[labelled])
        return codes

    def add(self, X: Table, y: ArrayLike | None = None, *, labels: Sequence | None = None) -> Self:
        """Index more rows, without a change of the space.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Rows. A data frame may lack the columns of some modalities.

        y : array-like of shape (n_samples,), default=None
            Classes, of those that ``fit`` saw, or -1 or NaN.

        labels : sequence of length n_samples, default=None
            Labels of the rows, which no other row has. None is the index of a pandas data frame, or the numbers that
            follow.

        Returns
        -------
        self : estimator
            The retriever.
        """
        check_is_fitted(self, "fuser_")
        X = check_table(self, X)
        if labels is None:
            start = self._gallery.n_added
            labels = list(X.index) if hasattr(X, "iloc") else list(range(start, start + len(X)))
        labels = list(labels)
        if len(labels) != len(X):
            raise ValueError(f"add got {len(labels)} labels for {len(X)} rows.")
        self._gallery.check_new(labels)
        codes = None
        if y is not None:
            if not hasattr(self, "classes_"):
                raise ValueError("add got y, but fit got no classes; leave y out, or fit with y.")
            check_consistent_length(X, y)
            codes = self._encode_classes(y)
        units = {name: self._vectors_of(X, name) for name in self._available(X)}
        first = self._gallery.next_number
        self._gallery.append(labels, items_frame(X) if self._gallery.has_items else None, codes)
        for name, vectors in units.items():
            present = _present(vectors)
            self.indexes_[name].add(self._as_rows(vectors[present], name))
            self._rows_of_key[name].append(first + present)
        self._warn_of_lost(units)
        return self

    def remove(self, labels: Sequence) -> Self:
        """Remove rows from what is searched, without a change of the space.

        Parameters
        ----------
        labels : sequence
            Labels of the rows.

        Returns
        -------
        self : estimator
            The retriever.
        """
        check_is_fitted(self, "fuser_")
        if isinstance(labels, str):
            raise TypeError(f"remove takes a sequence of labels, got the string {labels!r}.")
        if np.asarray(labels).dtype.kind == "b":
            raise TypeError("remove takes labels, not a mask; pass those where it is True, as X.index[mask].")
        numbers = np.unique(self._gallery.numbers_of(list(labels)))
        for name, index in self.indexes_.items():
            rows = self._rows_of_key[name].values
            # Rows of keys ascend, and -1 stands for those that are forgotten.
            index.remove(np.flatnonzero(np.isin(rows, numbers)))
            rows[np.isin(rows, numbers)] = -1
        self._gallery.remove(numbers)
        new_numbers = self._gallery.compact()
        if new_numbers is not None:
            for growing in self._rows_of_key.values():
                rows = growing.values
                rows[rows >= 0] = new_numbers[rows[rows >= 0]]
        return self

    @property
    def labels_(self):
        """Labels of the rows that are searched."""
        check_is_fitted(self, "fuser_")
        labels = self._gallery.labels(self._gallery.numbers)
        array = np.empty(len(labels), dtype=object)
        array[:] = labels
        return np.array(labels) if all(isinstance(label, int | np.integer) for label in labels) else array

    def _warn_of_lost(self, units):
        """Warn of rows that are added without any vector."""
        n_lost = int(np.all([~vectors.any(axis=1) for vectors in units.values()], axis=0).sum()) if units else 0
        if n_lost:
            warn(f"{n_lost} rows have none of the modalities {list(units)}, and cannot be found.")

    # Vectors.

    def _embed(self, block, name):
        """Return the vectors of a block at length 1; zeros in rows in which it is missing."""
        if np.isinf(block).any():
            raise ValueError(f"Modality {name!r} contains infinity in row {int(np.argwhere(np.isinf(block))[0, 0])}.")
        vectors = block if self.embedding_ is None else self.embedding_.transform_modality(block, name)
        # Half of a vector has no direction that could be compared.
        missing = np.isnan(vectors).any(axis=1, keepdims=True)
        return _unit(np.where(missing, 0, vectors).astype(np.float32))

    def _centered(self, vectors, name):
        """Return vectors without the mean of their modality, at length 1."""
        if name not in self._centers:
            return vectors
        return _unit(np.where(vectors.any(axis=1, keepdims=True), vectors - self._centers[name], 0))

    def _vectors_of(self, X, name):
        """Return the vectors of one modality of a table, or of its items."""
        block = self.fuser_.transform_modality(self._select_columns(X, name), name)
        return self._centered(self._embed(block, name), name)

    def _select_columns(self, X, name):
        """Return what a fuser takes as the columns of a modality."""
        if is_data_frame(X) and hasattr(self, "feature_names_in_"):
            return X
        if is_data_frame(X):
            X = items_frame(X).to_numpy()
        return self._select(X, name, reset=False) if X.ndim == 2 and X.shape[1] == self.n_features_in_ else X

    def _available(self, X):
        """Return the modalities whose columns a table has."""
        if not is_data_frame(X) or not hasattr(self, "feature_names_in_"):
            check_X(self, X, reset=False)
            return list(self.blocks_)
        header = set(X.columns)
        names = [name for name in self.blocks_ if set(self._columns_of(name)) <= header]
        if not names:
            raise ValueError(
                f"X has the columns {list(X.columns)[:10]}, and of no modality all: "
                f"{ ({name: self._columns_of(name) for name in self.blocks_}) }."
            )
        return names

    def _columns_of(self, name):
        """Return the names of the columns of a modality."""
        return list(self._input_names(name))

    def _local_scale(self, vectors, name, leave_out):
        """Return the mean cosine of vectors with the nearest references of a modality, the first few left out."""
        references = self._references[name]
        n = min(self.n_neighbors + leave_out, len(references))
        if n <= leave_out or len(vectors) == 0:
            return np.zeros(len(vectors), np.float32)
        return largest_products(vectors, references, n)[0][:, leave_out:].mean(axis=1)

    def _as_rows(self, vectors, target):
        """Return the vectors of rows as an index holds them.

        Behind the columns of the space stand half of the local scales, negative, one for each modality of a query;
        behind these what brings all rows to one length. The inner product with a query is half of the score, up to a
        constant of the query.
        """
        scales = np.zeros((len(vectors), len(self.blocks_)), np.float32)
        if self.hubness is not None:
            for i, source in enumerate(self.blocks_):
                scales[:, i] = self._local_scale(vectors, source, int(source == target)) / -2
        room = len(self.blocks_) / 4 - (scales**2).sum(axis=1, keepdims=True)
        return np.ascontiguousarray(np.hstack([vectors, scales, np.sqrt(np.maximum(room, 0))]), dtype=np.float32)

    def _as_queries(self, units, weights):
        """Return queries for an index, and the mask of the rows that have any of their modalities.

        Parameters
        ----------
        units : dict of str to ndarray of shape (n_queries, n_components)
            Vectors of the sources.

        weights : dict of str to float
            Weights of the sources.
        """
        shares = np.zeros((len(next(iter(units.values()))), len(self.blocks_)), np.float32)
        composed = 0
        for name, vectors in units.items():
            shares[:, list(self.blocks_).index(name)] = weights[name] * vectors.any(axis=1)
            composed = composed + weights[name] * vectors
        composed = _unit(composed)
        present = composed.any(axis=1)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return np.hstack([composed, shares, np.zeros((len(shares), 1), np.float32)]).astype(np.float32), present

    def _scores(self, queries, distances, sources, target):
        """Return scores for distances of an index."""
        if self.hubness is None:
            return 1 - distances
        width = queries.shape[1] - len(self.blocks_) - 1
        scale = self._local_scale(np.ascontiguousarray(queries[:, :width]), target, int(sources == [target]))
        return 2 * (1 - distances) - scale[:, None]

    # Search.

    def _read_queries(self, X, source):
        """Return the queries as a table or items, their labels, and the names of their sources."""
        names = None if source is None else [source] if isinstance(source, str) else list(source)
        for name in names or []:
            self._check_name(name)
        X = from_arrow(X)
        if not is_data_frame(X):
            if isinstance(X, str | bytes):
                X = [X]
            if names is not None and len(names) == 1 and not self._is_whole(X):
                items = self._check_items(X, names[0])
                return items, list(X.index) if hasattr(X, "iloc") else list(range(len(items))), names
            if not _is_table(X):
                raise ValueError(
                    "Queries are a table, or items of one modality and its name. Reshape your data to a table, or pass "
                    f"source, one of {list(self.blocks_)}."
                )
        X = check_table(self, X)
        available = self._available(X)
        for name in names or []:
            if name not in available:
                raise ValueError(
                    f"The source {name!r} needs the columns {self._columns_of(name)}; the queries have "
                    f"{list(X.columns)[:10]}."
                )
        return X, list(X.index) if hasattr(X, "iloc") else list(range(len(X))), names or available

    def _is_whole(self, X):
        """Return whether X is an array with the columns of all modalities."""
        return isinstance(X, np.ndarray) and X.ndim == 2 and X.shape[1] == self.n_features_in_

    def _check_items(self, items, name):
        """Return the items of one modality as an array with a row for each."""
        columns = self._columns_of(name)
        if not hasattr(items, "__len__") or isinstance(items, Mapping):
            raise TypeError(f"Items of modality {name!r} are a list, array or series, got {type(items).__name__}.")
        if len(items) == 0:
            raise ValueError("Found 0 queries, while at least 1 is needed.")
        positions, single = self._columns[name]
        if isinstance(items, np.ndarray) and items.ndim == 2 and not single:
            if items.shape[1] != len(positions):
                raise ValueError(
                    f"Modality {name!r} has {len(positions)} columns, got an array of shape {items.shape}."
                )
            return items
        if len(positions) > 1:
            raise ValueError(
                f"Modality {name!r} has the columns {shortened(columns)}; pass a data frame, or an array with these."
            )
        items = items.to_list() if is_series(items) else list(items)
        column = np.fromiter(items, dtype=object, count=len(items))
        # What passes numbers or vectors on takes a matrix.
        return column if single else column[:, np.newaxis]

    def _check_name(self, name):
        if name not in self.blocks_:
            raise ValueError(
                f"CrossModalRetriever: there is no modality {name!r}; the modalities are {list(self.blocks_)}."
            )

    def _resolve_weights(self, weights, sources):
        """Return the weight of each source."""
        if weights is None:
            return dict.fromkeys(sources, 1.0)
        for name in weights:
            self._check_name(name)
        missing = [name for name in sources if name not in weights]
        if missing:
            raise ValueError(f"weights lacks the sources {missing}; name a weight for each of {sources}.")
        values = [weights[name] for name in sources]
        if not np.all(np.isfinite(values)) or min(values) < 0 or sum(values) <= 0:
            raise ValueError(f"weights are numbers from 0, not all of them 0, got {dict(weights)}.")
        return {name: float(weights[name] / max(values)) for name in sources}

    def _resolve_targets(self, target, sources):
        """Return the names of the modalities to search: the others, or all if the sources are all."""
        if target is None:
            return [name for name in self.blocks_ if name not in sources] or list(self.blocks_)
        names = [target] if isinstance(target, str) else list(target)
        if not names:
            raise ValueError(f"target names no modality; the modalities are {list(self.blocks_)}.")
        for name in names:
            self._check_name(name)
        return names

    def _find(self, queries, present, sources, targets, n):
        """Return, for each query, the numbers of the rows with the highest scores, and these; none without a source."""
        results = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(queries)
        rows = np.flatnonzero(present)
        if len(rows) == 0:
            return results
        by_target = []
        for target in targets:
            index = self.indexes_[target]
            distances, keys = index.kneighbors(queries[rows], n_neighbors=min(n, index.n_vectors_))
            scores = self._scores(queries[rows], distances, sources, target)
            by_target.append((self._rows_of_key[target].values[keys], scores))
        for i, row in enumerate(rows):
            numbers = np.concatenate([found[i] for found, _ in by_target])
            scores = np.concatenate([scores[i] for _, scores in by_target])
            if len(targets) > 1:
                order = np.argsort(-scores, kind="stable")
                # A row counts by its best modality.
                order = order[np.sort(np.unique(numbers[order], return_index=True)[1])][:n]
                numbers, scores = numbers[order], scores[order]
            results[row] = numbers, scores
        return results

    def search(
        self,
        X: Table | Items,
        source: str | Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
        n: int = 10,
        *,
        weights: Mapping[str, float] | None = None,
    ) -> "pd.DataFrame":
        """Find the rows that fit queries best.

        Parameters
        ----------
        X : DataFrame, array-like of shape (n_queries, n_features), list or str
            Queries. A data frame may have the columns of some modalities only. A list of items, or a text, is of the
            modality that ``source`` names.

        source : str, sequence of str or None, default=None
            Modalities of the queries that are used. None is all whose columns they have.

        target : str, sequence of str or None, default=None
            Modalities by which rows are found; with several, a row counts by that which fits best. None is all that
            are no source, or all if there are no others.

        n : int, default=10
            Number of rows per query, fewer where there are not so many.

        weights : dict of str to float, default=None
            Weights of the sources: a query with several of them is the weighted mean of their vectors.

        Returns
        -------
        results : DataFrame
            A line for each query and row that was found, best first: ``query``, the label of the query; ``rank``, from
            1; ``label``, that of the row; ``score``; and the columns of the row. Of these, one that is named like the
            first four has the prefix ``item_``.
        """
        import pandas as pd

        check_is_fitted(self, "fuser_")
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n is the number of rows to find, at least 1, got {n!r}.")
        X, labels, sources = self._read_queries(X, source)
        targets = self._resolve_targets(target, sources)
        weights = self._resolve_weights(weights, sources)
        queries, present = self._as_queries({name: self._vectors_of(X, name) for name in sources}, weights)
        if not present.all():
            warn(
                f"{(~present).sum()} queries have none of the modalities {sources}, the first of them is that with the "
                f"label {labels[int(np.argmin(present))]!r}; nothing is found for them."
            )
        n_found = n if self.rerank is None else max(n, self.n_rerank)
        results = self._find(queries, present, sources, targets, n_found)
        if self.rerank is not None:
            results = self._rerank(X, results, sources, targets, n)
        lengths = [len(numbers) for numbers, _ in results]
        numbers = np.concatenate([numbers for numbers, _ in results])
        columns = {
            "query": [label for label, length in zip(labels, lengths, strict=True) for _ in range(length)],
            "rank": np.concatenate([np.arange(1, length + 1) for length in lengths]),
            "label": self._gallery.labels(numbers),
            "score": np.concatenate([scores for _, scores in results]),
        }
        table = pd.DataFrame(columns)
        if not self._gallery.has_items:
            return table
        items = self._gallery.take(numbers)
        items = items.rename(columns={name: f"item_{name}" for name in items.columns if name in _COLUMNS})
        return pd.concat([table, items], axis=1)

    def _rerank(self, X, results, sources, targets, n):
        """Return results in the order of other scores."""
        if not self._gallery.has_items:
            raise ValueError("rerank needs the items of the rows, which this retriever was saved without.")
        numbers = np.concatenate([numbers for numbers, _ in results])
        rows = np.repeat(np.arange(len(results)), [len(numbers) for numbers, _ in results])
        if len(numbers) == 0:
            return results
        query_column, candidate_column = (
            self._columns_of(names[0])[0] if len(names) == 1 and len(self._columns_of(names[0])) == 1 else None
            for names in (sources, targets)
        )
        if isinstance(X, np.ndarray) and not self._is_whole(X):
            X = items_frame(X.reshape(len(X), -1)).set_axis(self._columns_of(sources[0]), axis=1)
        queries = items_frame(X).iloc[rows].reset_index(drop=True)
        scores = rerank_scores(self.rerank, queries, self._gallery.take(numbers), query_column, candidate_column)
        reranked = []
        for i in range(len(results)):
            of_query = np.flatnonzero(rows == i)
            order = of_query[np.argsort(-scores[of_query], kind="stable")][:n]
            reranked.append((numbers[order], scores[order]))
        return reranked

    def kneighbors(
        self,
        X: Table | Items,
        n_neighbors: int | None = None,
        return_distance: bool = True,
        *,
        source: str | Sequence[str] | None = None,
        target: str | Sequence[str] | None = None,
    ) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
        """Find the rows that fit queries best, as arrays.

        Parameters
        ----------
        X : DataFrame, array-like of shape (n_queries, n_features), list or str
            Queries, as in :meth:`search`.

        n_neighbors : int, default=None
            Number of rows per query. None is the parameter ``n_neighbors``.

        return_distance : bool, default=True
            Whether to return the distances.

        source : str, sequence of str or None, default=None
            Modalities of the queries, as in :meth:`search`.

        target : str, sequence of str or None, default=None
            Modalities by which rows are found, as in :meth:`search`.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors)
            The scores, negative, in ascending order. Only if ``return_distance=True``.

        indices : ndarray of shape (n_queries, n_neighbors)
            Positions of the rows in ``labels_``.
        """
        check_is_fitted(self, "fuser_")
        n = self.n_neighbors if n_neighbors is None else n_neighbors
        X, _, sources = self._read_queries(X, source)
        targets = self._resolve_targets(target, sources)
        queries, present = self._as_queries(
            {name: self._vectors_of(X, name) for name in sources}, dict.fromkeys(sources, 1.0)
        )
        if not present.all():
            raise ValueError(
                f"Query {int(np.argmin(present))} has none of the modalities {sources}, and so no neighbours."
            )
        results = self._find(queries, present, sources, targets, n)
        n_found = min(len(numbers) for numbers, _ in results)
        if n_found < n:
            raise ValueError(f"n_neighbors={n}, but only {n_found} rows have a modality of {targets}.")
        numbers = np.array([numbers for numbers, _ in results])
        positions = np.searchsorted(self._gallery.numbers, numbers)
        return (-np.array([scores for _, scores in results]), positions) if return_distance else positions

    # Classes.

    @available_if(_has_classes)
    def predict_proba(self, X: Table) -> np.ndarray:
        """Return the share of each class among the nearest rows that have one.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data. A data frame may have the columns of some modalities only. Neighbours are found by all modalities.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
            Shares among ``n_neighbors`` rows, in the order of ``classes_``. Rows without any modality have the shares
            of all rows.
        """
        check_is_fitted(self, "fuser_")
        X, _, sources = self._read_queries(X, None)
        queries, present = self._as_queries(
            {name: self._vectors_of(X, name) for name in sources}, dict.fromkeys(sources, 1.0)
        )
        codes = self._gallery.codes(self._gallery.numbers)
        counts = np.bincount(codes[codes >= 0], minlength=len(self.classes_))
        if counts.sum() == 0:
            raise ValueError("CrossModalRetriever: no row has a class; add rows with y.")
        if not present.all():
            warn(
                f"{(~present).sum()} rows have none of the modalities {sources}; they get the frequencies of the "
                "classes."
            )
        probabilities = np.tile(counts / counts.sum(), (len(queries), 1))
        n, waiting = self.n_neighbors, present.copy()
        while waiting.any():
            results = self._find(queries, waiting, sources, list(self.blocks_), n)
            complete = n >= len(self._gallery)
            for row in np.flatnonzero(waiting):
                labelled = self._gallery.codes(results[row][0])
                labelled = labelled[labelled >= 0][: self.n_neighbors]
                if len(labelled) and (complete or len(labelled) == self.n_neighbors):
                    votes = np.bincount(labelled, minlength=len(self.classes_))
                    probabilities[row] = votes / votes.sum()
                    waiting[row] = False
            # Rows without a class do not vote, so that more are looked at.
            waiting &= not complete
            n *= 2
        return probabilities

    @available_if(_has_classes)
    def predict(self, X: Table) -> np.ndarray:
        """Return the most frequent class among the nearest rows that have one.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, as in :meth:`predict_proba`.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Classes.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def transform_modality(self, X: Items | Table, name: str) -> np.ndarray:
        """Return the vectors of one modality in the joint space, as cosines are taken of them.

        Parameters
        ----------
        X : column of items, DataFrame or array-like of shape (n_samples, n_features)
            Items of the modality, or a table with its columns.

        name : str
            Name of the modality.

        Returns
        -------
        vectors : ndarray of shape (n_samples, n_components), dtype float32
            Vectors of length 1, without the mean of the modality if ``center=True``, NaN where the modality is missing.
        """
        check_is_fitted(self, "fuser_")
        self._check_name(name)
        vectors = self._vectors_of(X if is_data_frame(X) or is_series(X) else np.asarray(X), name)
        return np.where(vectors.any(axis=1, keepdims=True), vectors, np.float32(np.nan))

    def score(self, X: Table, y: ArrayLike | None = None, groups: ArrayLike | None = None) -> float:
        """Return the mean reciprocal rank of a row of X among those of X, from each modality to each other.

        The rows that are searched are those of X, not those of ``fit``: on held-out rows, it says how well the space
        finds what it has not seen.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Rows with two modalities or more.

        y : None
            Ignored.

        groups : array-like of shape (n_samples,), default=None
            Groups of rows, any of which answers a query of the group. None is each row for itself.

        Returns
        -------
        score : float
            Mean over the queries, then over the ordered pairs of modalities.
        """
        check_is_fitted(self, "fuser_")
        X = check_table(self, X)
        groups = check_groups(groups, len(X))
        groups = np.arange(len(X)) if groups is None else np.unique(groups, return_inverse=True)[1]
        units = {name: self._vectors_of(X, name) for name in self._available(X)}
        means = []
        for source, target in permutations(units, 2):
            present = _present(units[target])
            rows = _present(units[source])
            rows = rows[np.isin(groups[rows], groups[present])]
            if len(rows) == 0:
                continue
            items = self._as_rows(units[target][present], target)
            queries, _ = self._as_queries({source: units[source][rows]}, {source: 1.0})
            total = 0.0
            for start in range(0, len(rows), _SCORED):
                batch = slice(start, start + _SCORED)
                relevant = groups[rows[batch], None] == groups[present]
                total += mean_reciprocal_rank(relevant, queries[batch] @ items.T) * len(rows[batch])
            means.append(total / len(rows))
        if not means:
            raise ValueError("CrossModalRetriever: score needs rows of X that have two modalities.")
        return float(np.mean(means))

    # Files.

    def save(self, path: PathType, *, items: bool = True) -> None:
        """Write the retriever into a folder, without pickle.

        Needs ``pip install "skmm[bundle]"``. The folder holds the estimator and the checkpoints of its encoders, as
        :func:`~skmm.save_bundle` writes them, the vectors, labels and items of the rows, the graph of an approximate
        index, and checksums of these files.

        Parameters
        ----------
        path : str or path-like
            Folder to write, which must not exist.

        items : bool, default=True
            Whether to write the columns of the rows: texts, paths, numbers, dates and arrays. Without them, results of
            ``search`` have no columns of rows.

        Raises
        ------
        FileExistsError
            If the folder exists.

        TypeError
            If labels or items are of another type.
        """
        check_is_fitted(self, "fuser_")
        save_retriever(self, path, items)

    @classmethod
    def load(cls, path: PathType, *, trusted: Sequence[str] = ()) -> "CrossModalRetriever":
        """Load a retriever from a folder that ``save`` wrote.

        Parameters
        ----------
        path : str or path-like
            The folder, wherever it lies now.

        trusted : sequence of str, default=()
            Types to trust beside those of skmm, as in :func:`~skmm.load_bundle`.

        Returns
        -------
        retriever : CrossModalRetriever
            The fitted retriever.

        Raises
        ------
        FileNotFoundError
            If the folder holds no retriever.

        ValueError
            If a file is damaged.

        Warns
        -----
        UserWarning
            If the file of an approximate index is damaged, which is then built again from the vectors.
        """
        retriever = load_retriever(path, trusted)
        if not isinstance(retriever, cls):
            raise TypeError(f"The folder holds a {type(retriever).__name__}, not a {cls.__name__}.")
        return retriever

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            inner = member_tags(ModalityFuser(self.modalities, RawBlocks()))
            embedding = EMBEDDINGS.get(self.embedding) if isinstance(self.embedding, str) else self.embedding
            required = embedding is not None and member_tags(embedding).target_tags.required
        except Exception:
            # Tags are read before fit has said what is wrong with the parameters.
            return tags
        tags.input_tags.allow_nan, tags.input_tags.string = inner.input_tags.allow_nan, inner.input_tags.string
        tags.target_tags.required = inner.target_tags.required or required
        return tags

    def _sk_visual_block_(self):
        embedding = EMBEDDINGS.get(self.embedding) if isinstance(self.embedding, str) else self.embedding
        if embedding is None:
            return self._member_block()
        joined = VisualBlock("parallel", [embedding], names=["embedding"], dash_wrapped=False)
        return VisualBlock("serial", (self._member_block(), joined), dash_wrapped=False)


def _unit(vectors):
    """Return vectors at length 1, zeros where they are so short that they have no direction."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > _SHORTEST)


def _present(vectors):
    """Return the rows that have a vector."""
    return np.flatnonzero(vectors.any(axis=1))


def _mean_vector(vectors):
    """Return the mean of the vectors that are present."""
    return vectors.sum(axis=0) / max(len(_present(vectors)), 1)


def _references(vectors):
    """Return evenly spaced vectors among those that are present."""
    present = _present(vectors)
    if len(present) > _REFERENCES:
        present = present[np.linspace(0, len(present) - 1, _REFERENCES).astype(int)]
    return np.ascontiguousarray(vectors[present])


def _unlabelled(labels):
    """Return the mask of the rows without a label."""
    return missing_rows(labels) | np.array([isinstance(label, Real) and label == -1 for label in labels.tolist()])


def _is_table(X):
    """Return whether X is something like a 2-D array."""
    if hasattr(X, "shape"):
        return len(X.shape) == 2
    return isinstance(X, list | tuple) and len(X) > 0 and np.ndim(X[0]) == 1
