"""The composite that applies a transformer to each modality and fuses what they give."""

from numbers import Integral
from typing import Literal, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn import config_context
from sklearn.base import TransformerMixin, clone
from sklearn.callback import CallbackSupportMixin
from sklearn.pipeline import Pipeline
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._columns import check_can_be_sent, check_X, from_arrow, is_data_frame
from .._composition import (
    ModalityComposition,
    as_transformer,
    dense_block,
    fit_transform,
    fit_transform_modalities,
    member_tags,
    propagated,
    transform_modality,
)
from .._sklearn import HasMethods, StrOptions, VisualBlock, check_feature_names_in, fit_context, raise_for_params
from .._typing import Items, Modalities, Table
from ..encoders import infer_modalities
from ._imputer import ModalityImputer
from ._strategies import STRATEGIES


def _fusion_has(method):
    """Return a check that the strategy, with blocks as the fuser sets them, has a method; else its error is raised."""

    def check(fuser):
        fusion = getattr(fuser, "fusion_", None)
        if fusion is None:
            try:
                fusion = fuser._make_fusion()
                blocks = {name: slice(i, i + 1) for i, name in enumerate(fuser._active())}
            except Exception:
                # Methods are looked for before fit has said what is wrong with the parameters.
                return True
            fusion.set_params(**dict.fromkeys(_blocks_keys(fusion), blocks))
        getattr(fusion, method)
        return True

    return check


class ModalityFuser(CallbackSupportMixin, TransformerMixin, ModalityComposition):
    """Apply a transformer to each modality and fuse what they give into one matrix.

    It is to modalities what :class:`~sklearn.compose.ColumnTransformer` is to columns, with two
    differences: the joined matrix goes through a fusion strategy that knows which columns belong to
    which modality, and rows in which a modality is missing never reach its transformer.

    Parameters
    ----------
    modalities : list of (str, transformer, columns) or "auto", default="auto"
        "auto" finds out at ``fit`` which modalities the columns of X hold, and chooses a transformer for each
        (:func:`~skmm.infer_modalities`). In a triple:

        - name: unique, without ``__``;
        - transformer: an estimator with ``fit`` and ``transform``, ``"passthrough"`` for columns that
          are numbers already, or vectors of one length, or ``"drop"``;
        - columns: name, position, list of these, slice, mask or callable, as in
          :class:`~sklearn.compose.ColumnTransformer`. A single name or position hands the
          transformer a 1-D column (what encoders and vectorizers want), a list a 2-D one.

    fusion : transformer or str, default="concat"
        Strategy that joins the blocks. The strings "anchor", "average", "cca", "concat", "contrastive", "kernel",
        "kernel_cca", "lda", "pca", "pls" and "product" stand for :class:`AnchorFusion`, :class:`AverageFusion`, ... at
        their defaults. If it has a parameter ``blocks`` (in a Pipeline: if its first step has, and the step after a
        :class:`ModalityImputer`), the fuser sets that on its clone; any other transformer is applied
        to the concatenated matrix.

    n_jobs : int or None, default=None
        Number of modalities fitted and applied at the same time, by joblib. None means 1.

    verbose : bool, default=False
        Whether to say which modality is being fitted, and how long it took.

    Attributes
    ----------
    modalities_ : list of (str, transformer, columns)
        The fitted transformers, without what is dropped.

    named_modalities_ : Bunch
        The fitted transformers by name.

    fusion_ : transformer
        The fitted strategy.

    blocks_ : dict of str to slice
        Columns that each modality has in the matrix that enters the fusion.

    n_features_in_ : int
        Number of columns seen in ``fit``.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in ``fit``, if X had names that are all strings.

    See Also
    --------
    ConcatFusion : The default strategy.
    sklearn.compose.ColumnTransformer : Columns without fusion.

    Notes
    -----
    **Missing modalities.** A modality is missing in a row in which all of its columns are (None, NaN,
    an empty string). Its transformer is fitted on, and applied to, the other rows; the missing rows
    of its block are NaN, and so are those that an encoder could not read. What happens to them is up
    to the strategy, and stands in its docstring. A modality that is missing in every row raises an
    error at ``fit`` and is an all-NaN block at ``transform``.

    **Types.** The result is float32 if all blocks are, else float64. Sparse blocks are made dense up
    to 2 GiB. Arrays of other libraries than NumPy, which strategies alone can take by scikit-learn's array API
    dispatch, raise an error.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skmm import ModalityFuser
    >>> X = pd.DataFrame(
    ...     {
    ...         "caption": ["red fox", "grey fox", None, "red hen"],
    ...         "weight": [6.0, 4.5, 2.0, 1.5],
    ...     }
    ... )
    >>> fuser = ModalityFuser(
    ...     [
    ...         ("text", TfidfVectorizer(), "caption"),
    ...         ("table", StandardScaler(), ["weight"]),
    ...     ]
    ... )
    >>> fuser.fit_transform(X).shape
    (4, 5)
    >>> fuser.get_feature_names_out().tolist()
    ['text__fox', 'text__grey', 'text__hen', 'text__red', 'table__weight']
    >>> fuser.blocks_
    {'text': slice(0, 4, None), 'table': slice(4, 5, None)}
    """

    _parameter_constraints: dict = {
        "modalities": [list, tuple, StrOptions({"auto"})],
        "fusion": [StrOptions(set(STRATEGIES)), HasMethods(["fit", "transform"])],
        "n_jobs": [Integral, None],
        "verbose": ["boolean"],
    }

    def __init__(
        self,
        modalities: Modalities | Literal["auto"] = "auto",
        fusion: object = "concat",
        *,
        n_jobs: int | None = None,
        verbose: bool = False,
    ):
        self.modalities = modalities
        self.fusion = fusion
        self.n_jobs = n_jobs
        self.verbose = verbose

    def set_params(self, **params: object) -> Self:
        """Set parameters of this fuser, of its transformers or of its strategy.

        Parameters
        ----------
        **params : dict
            Parameters as ``get_params`` names them.

        Returns
        -------
        self : ModalityFuser
            This fuser.
        """
        fusion = params.get("fusion", self.fusion)
        nested = [key for key in params if key.startswith("fusion__")]
        if nested and isinstance(fusion, str):
            strategy = STRATEGIES.get(fusion)
            remedy = f"fusion={strategy.__name__}()" if strategy else f"an estimator from {sorted(STRATEGIES)}"
            raise ValueError(
                f"fusion={fusion!r} is a shorthand without parameters, so {nested[0]!r} cannot be set; use {remedy}."
            )
        return super().set_params(**params)

    def fit(self, X: Table, y: ArrayLike | None = None, **params: object) -> Self:
        """Fit the transformers of all modalities, then the strategy.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Target, for the transformers and strategies that use one.

        **params : dict
            Metadata that the transformers or the strategy request; needs
            ``sklearn.set_config(enable_metadata_routing=True)``.

        Returns
        -------
        self : ModalityFuser
            The fitted fuser.
        """
        raise_for_params(params, self, "fit")
        self.fit_transform(X, y, **params)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X: Table, y: ArrayLike | None = None, **params: object) -> np.ndarray:
        """Fit all transformers and the strategy, and give the fused features.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data, with one or several columns per modality.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Target, for the transformers and strategies that use one.

        **params : dict
            Metadata that the transformers or the strategy request; needs
            ``sklearn.set_config(enable_metadata_routing=True)``.

        Returns
        -------
        X_fused : ndarray of shape (n_samples, n_features_out)
            Fused features, float32 if all blocks are, else float64.
        """
        raise_for_params(params, self, "fit_transform")
        # After a fit that fails, a fuser is not fitted.
        self.__dict__.pop("fusion_", None)
        self._check_modalities()
        X = self._fit_columns(X, y)
        check_can_be_sent(X, self.n_jobs)
        if y is not None:
            check_consistent_length(X, y)
        fusion = self._make_fusion()
        routed = process_routing(self, "fit_transform", **params)

        progress = self._init_callback_context(max_subtasks=len(self._active()) + 1)
        progress.call_on_fit_task_begin(estimator=self, X=X, y=y)
        self.modalities_, blocks = fit_transform_modalities(self, X, y, routed, progress)
        ends = np.cumsum([block.shape[1] for block in blocks.values()]).tolist()
        self.blocks_ = {
            name: slice(end - block.shape[1], end) for (name, block), end in zip(blocks.items(), ends, strict=True)
        }
        self._dtypes = {name: block.dtype for name, block in blocks.items()}
        fusion.set_params(**dict.fromkeys(_blocks_keys(fusion), self.blocks_))
        joined = _join(list(blocks.values()))
        step = progress.subcontext(task_name="fusion")
        with _between_arrays(), propagated(step, self, fusion):
            fused = dense_block(fit_transform(fusion, joined, y, routed["fusion"]), "fusion")
        self.fusion_ = fusion
        progress.call_on_fit_task_end(estimator=self, X=X, y=y)
        return fused

    def transform(self, X: Table, **params: object) -> np.ndarray:
        """Apply all transformers and the strategy.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``. Of a data frame, the columns of the modalities are
            found by name; others are ignored.

        **params : dict
            Metadata that the transformers or the strategy request; needs
            ``sklearn.set_config(enable_metadata_routing=True)``.

        Returns
        -------
        X_fused : ndarray of shape (n_samples, n_features_out)
            Fused features, float32 if all blocks are, else float64.
        """
        raise_for_params(params, self, "transform")
        check_is_fitted(self, "fusion_")
        X = check_X(self, X, reset=False)
        check_can_be_sent(X, self.n_jobs)
        routed = process_routing(self, "transform", **params)
        joined = self._transform_modalities(X, routed)
        with _between_arrays():
            return dense_block(self.fusion_.transform(joined, **routed["fusion"].transform), "fusion")

    @available_if(_fusion_has("score"))
    def score(self, X: Table, y: ArrayLike | None = None) -> float:
        """Apply all transformers, and return the score of the strategy.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Data with the columns seen in ``fit``.

        y : array-like of shape (n_samples,), default=None
            Target, for the strategies whose score uses one.

        Returns
        -------
        score : float
            Of a joint embedding the mean correlation of the variates of different modalities, as in
            :meth:`CCAFusion.score`.
        """
        check_is_fitted(self, "fusion_")
        X = check_X(self, X, reset=False)
        check_can_be_sent(X, self.n_jobs)
        joined = self._transform_modalities(X, process_routing(self, "transform"))
        with _between_arrays():
            return self.fusion_.score(joined, y)

    @available_if(_fusion_has("transform_modality"))
    def transform_modality(self, X_modality: Items, name: str) -> np.ndarray:
        """Map one modality into the space of a joint embedding.

        Parameters
        ----------
        X_modality : DataFrame, or array-like of shape (n_samples,) or (n_samples, n_columns)
            The column, or columns, of the modality: items such as texts or paths, as its transformer takes them. Of a
            data frame, if ``fit`` got one, the columns are found by name; others are ignored.

        name : str
            Name of the modality.

        Returns
        -------
        variates : ndarray of shape (n_samples, n_components)
            Rows of the space, as :meth:`CCAFusion.transform_modality` returns them.
        """
        block = self._transform_items(X_modality, name)
        return self.fusion_.transform_modality(block, name)

    @available_if(_fusion_has("predict_modality"))
    def predict_modality(self, X_modality: Items, source: str, target: str) -> np.ndarray:
        """Predict the features of one modality from another, by way of a joint embedding.

        Parameters
        ----------
        X_modality : DataFrame, or array-like of shape (n_samples,) or (n_samples, n_columns)
            The column, or columns, of the source, as in :meth:`transform_modality`.

        source : str
            Name of the modality that X_modality is.

        target : str
            Name of the modality to predict.

        Returns
        -------
        X_target : ndarray of shape (n_samples, n_target_features)
            What the transformer of the target is expected to give.
        """
        block = self._transform_items(X_modality, source)
        return self.fusion_.predict_modality(block, source, target)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> np.ndarray:
        """Get the names of the fused features.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the input columns; they must be those seen in ``fit``.

        Returns
        -------
        feature_names_out : ndarray of str objects
            ``text__0`` for a column of one modality, ``ccafusion0`` for one made of several.
        """
        check_is_fitted(self, "fusion_")
        check_feature_names_in(self, input_features)
        names = []
        for name, transformer, _ in self.modalities_:
            if not hasattr(transformer, "get_feature_names_out"):
                raise AttributeError(
                    f"Modality {name!r}: {type(transformer).__name__} does not provide get_feature_names_out."
                )
            features = transformer.get_feature_names_out(self._input_names(name))
            names.extend(f"{name}__{feature}" for feature in features)
        return self.fusion_.get_feature_names_out(np.array(names, dtype=object))

    def get_metadata_routing(self) -> MetadataRouter:
        """Get the routing of metadata to the transformers and the strategy.

        Returns
        -------
        routing : MetadataRouter
            Routing information.
        """
        router = MetadataRouter(owner=self)
        steps = {name: as_transformer(member, name) for name, member, _ in self._entries if name in self._active()}
        for name, step in {**steps, "fusion": self._make_fusion()}.items():
            mapping = MethodMapping().add(caller="transform", callee="transform")
            for caller in ("fit", "fit_transform"):
                if hasattr(step, "fit_transform"):
                    mapping.add(caller=caller, callee="fit_transform")
                else:
                    mapping.add(caller=caller, callee="fit").add(caller=caller, callee="transform")
            router.add(method_mapping=mapping, **{name: step})
        return router

    def _infer(self, X, y):
        return list(infer_modalities(X, y))

    def _transform_modalities(self, X, routed):
        """Return the blocks of all modalities side by side."""
        blocks = Parallel(n_jobs=self.n_jobs)(
            delayed(transform_modality)(
                name, transformer, self._select(X, name, reset=False), self._shape(name), routed[name].transform
            )
            for name, transformer, _ in self.modalities_
        )
        return _join(blocks)

    def _transform_items(self, X, name):
        """Return the block of one modality, of which X holds the columns."""
        check_is_fitted(self, "fusion_")
        if name not in self.blocks_:
            raise ValueError(f"ModalityFuser: there is no modality {name!r}; the modalities are {list(self.blocks_)}.")
        _, single = self._columns[name]
        X = from_arrow(X)
        if is_data_frame(X) and hasattr(self, "feature_names_in_"):
            X = self._select(X, name, reset=False)
        elif isinstance(X, str):
            raise TypeError(f"ModalityFuser: modality {name!r} takes a list or column of items, got the text {X!r}.")
        elif not single:
            X = check_array(X, dtype=None, ensure_all_finite=False, estimator=self)
        elif isinstance(X, list | tuple):
            # Items such as images would become one array.
            X = np.fromiter(X, dtype=object, count=len(X))
        return transform_modality(name, self.named_modalities_[name], X, self._shape(name), {})

    def _shape(self, name):
        """Return the width and dtype of the block of a modality."""
        return self.blocks_[name].stop - self.blocks_[name].start, self._dtypes[name]

    def _make_fusion(self):
        """Return a clone of the strategy, or a new one that a string stands for."""
        if isinstance(self.fusion, str):
            return STRATEGIES[self.fusion]()
        fusion = clone(self.fusion)
        for key in _blocks_keys(fusion):
            if fusion.get_params()[key] is not None:
                raise ValueError(
                    f"The fuser sets {key!r} of its fusion from its modalities; leave it at None, "
                    f"got {fusion.get_params()[key]!r}."
                )
        return fusion

    def _sk_visual_block_(self):
        fusion = STRATEGIES[self.fusion]() if self.fusion in list(STRATEGIES) else self.fusion
        joined = VisualBlock("parallel", [fusion], names=["fusion"], dash_wrapped=False)
        return VisualBlock("serial", (self._member_block(), joined), dash_wrapped=False)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        try:
            members = [member for _, member, _ in self._entries if not isinstance(member, str)]
            steps = [member_tags(step) for step in [*members, self._make_fusion()]]
        except Exception:
            # Tags are read before fit has said what is wrong with the parameters.
            return tags
        tags.input_tags.allow_nan = all(step.input_tags.allow_nan for step in steps)
        tags.input_tags.string = self._is_auto or any(step.input_tags.string for step in steps)
        tags.target_tags.required = any(step.target_tags.required for step in steps)
        dtypes = [set(getattr(step.transformer_tags, "preserves_dtype", ())) for step in steps]
        tags.transformer_tags.preserves_dtype = sorted(set.intersection(*dtypes))
        return tags


def _blocks_keys(fusion):
    """Return the names of the parameters of a strategy that take the blocks."""
    if isinstance(fusion, Pipeline):
        keys = []
        for name, step in fusion.steps:
            keys += [f"{name}__{inner}" for inner in _blocks_keys(step)]
            if not (isinstance(step, ModalityImputer) and not step.add_indicator):
                # Only an imputer keeps the columns of its input, so only the step after one can know the blocks.
                break
        return keys
    if not hasattr(fusion, "get_params"):
        return []
    return ["blocks"] if "blocks" in fusion.get_params(deep=False) else []


def _between_arrays():
    """Let the steps of a pipeline pass arrays on: data frames would have other names than the modalities' columns."""
    return config_context(transform_output="default")


def _join(blocks):
    """Put blocks side by side: float32 if all are, else float64."""
    return blocks[0] if len(blocks) == 1 else np.hstack(blocks)
