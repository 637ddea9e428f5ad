"""ModalityFuser: columns, members, fusion, missing rows, names, metadata, errors."""

import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.utils.validation import check_is_fitted

from skmm import AnchorFusion, CCAFusion, ConcatFusion, LDAFusion, ModalityFuser, ModalityImputer, PCAFusion
from skmm.fusion import STRATEGIES
from skmm.metrics import retrieval_scorer

N = 60


class Recorder(TransformerMixin, BaseEstimator):
    """Gives its numeric input back, and remembers what it saw."""

    def fit(self, X, y=None, sample_weight=None):
        self.fit_X_, self.fit_y_, self.fit_weight_ = X, y, sample_weight
        return self

    def transform(self, X):
        self.transform_X_ = X
        return np.asarray(X, dtype=float).reshape(len(X), -1)

    def get_feature_names_out(self, input_features=None):
        return np.asarray(input_features, dtype=object)


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    words = np.array(["red", "green", "blue", "fox", "hen", "owl"])
    return pd.DataFrame(
        {
            "caption": [" ".join(rng.choice(words, 3)) for _ in range(N)],
            "price": rng.normal(10, 3, N),
            "weight": rng.normal(5, 1, N),
            "kind": rng.choice(["a", "b"], N),
        },
        index=np.arange(N) * 2 + 7,
    )


@pytest.fixture
def y():
    return np.arange(N) % 3


def fuser(**kwargs):
    return ModalityFuser(
        [
            ("text", make_pipeline(TfidfVectorizer(), TruncatedSVD(3, random_state=0)), "caption"),
            ("table", StandardScaler(), ["price", "weight"]),
        ],
        **kwargs,
    )


def test_without_scaling_it_is_a_column_transformer(frame):
    ours = fuser(fusion=ConcatFusion(scaling=None))
    stock = ColumnTransformer([(name, clone(member), columns) for name, member, columns in ours.modalities])
    expected = stock.fit_transform(frame)
    assert_array_equal(ours.fit_transform(frame), expected)
    assert_array_equal(ours.transform(frame[:7]), stock.transform(frame[:7]))
    assert_array_equal(ours.get_feature_names_out(), stock.get_feature_names_out())
    assert ours.blocks_ == {"text": slice(0, 3), "table": slice(3, 5)}


@pytest.mark.parametrize(
    "columns",
    [
        ["price", "weight"],
        [1, 2],
        [-3, -2],
        slice(1, 3),
        slice("price", "weight"),
        [False, True, True, False],
        np.array([False, True, True, False]),
        make_column_selector("price|weight"),
        lambda X: ["price", "weight"],
    ],
    ids=lambda columns: type(columns).__name__,
)
def test_every_form_of_columns(frame, columns):
    ours = ModalityFuser([("table", "passthrough", columns)], fusion=ConcatFusion(scaling=None))
    assert_array_equal(ours.fit_transform(frame), frame[["price", "weight"]])
    assert_array_equal(ours.get_feature_names_out(), ["table__price", "table__weight"])


@pytest.mark.parametrize("column", ["price", 1, -3])
def test_a_scalar_selects_a_one_dimensional_column(frame, column):
    ours = ModalityFuser([("table", Recorder(), column)]).fit(frame)
    assert ours.named_modalities_.table.fit_X_.ndim == 1
    ours = ModalityFuser([("table", Recorder(), [column])]).fit(frame)
    assert ours.named_modalities_.table.fit_X_.shape == (N, 1)


def test_pandas_polars_and_arrays_give_the_same(frame):
    members = [("text", TfidfVectorizer(), 0), ("table", StandardScaler(), slice(1, 3))]
    expected = ModalityFuser(members).fit_transform(frame)
    polars = pl.from_pandas(frame)
    assert_allclose(ModalityFuser(members).fit(frame).transform(frame), expected)
    assert_allclose(ModalityFuser(members).fit_transform(polars), expected)
    assert_allclose(ModalityFuser(members).fit_transform(frame.to_numpy(dtype=object)), expected)
    assert_allclose(fuser().fit(frame).transform(polars), fuser().fit_transform(frame))


def test_columns_are_found_by_name_at_transform(frame):
    fitted = fuser().fit(frame)
    shuffled = frame[["kind", "weight", "caption", "price"]].assign(more=1)
    assert_array_equal(fitted.transform(shuffled), fitted.transform(frame))
    with pytest.raises(ValueError, match=r"'table': columns are missing in X: \['price'\]"):
        fitted.transform(frame.drop(columns="price"))


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_set_output(frame, y, container):
    ours = fuser(fusion=PCAFusion(2)).set_output(transform=container)
    out = ours.fit_transform(frame, y)
    names = ["text__pcafusion0", "text__pcafusion1", "table__pcafusion0", "table__pcafusion1"]
    assert list(out.columns) == names
    assert isinstance(out, {"pandas": pd.DataFrame, "polars": pl.DataFrame}[container])
    assert list(ours.transform(frame).columns) == names
    if container == "pandas":
        assert_array_equal(out.index, frame.index)


def test_global_output_configuration_reaches_inner_steps_without_harm(frame, y):
    expected = fuser(fusion="cca").fit_transform(frame, y)
    with sklearn.config_context(transform_output="pandas"):
        # TruncatedSVD and TfidfVectorizer follow the configuration; sparse output cannot.
        ours = ModalityFuser([("a", StandardScaler(), ["price"]), ("b", StandardScaler(), ["weight"])], fusion="cca")
        out = ours.fit_transform(frame)
    assert isinstance(out, pd.DataFrame)
    assert list(out.columns) == ["a__ccafusion0", "b__ccafusion0"]
    assert expected.shape == (N, 4)


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("first", [ModalityImputer(), StandardScaler()], ids=lambda step: type(step).__name__)
def test_global_output_configuration_and_a_pipeline_as_fusion(frame, container, first):
    members = [("a", StandardScaler(), ["price"]), ("b", StandardScaler(), ["weight"])]
    ours = ModalityFuser(members, fusion=make_pipeline(first, PCAFusion()))
    expected = ours.fit_transform(frame)
    with sklearn.config_context(transform_output=container):
        for out in (ours.fit_transform(frame), ours.transform(frame)):
            assert list(out.columns) == ours.get_feature_names_out().tolist()
            assert_array_equal(out.to_numpy(), expected)


def test_nested_parameters(frame, y):
    ours = fuser(fusion=PCAFusion(2))
    ours.set_params(text__truncatedsvd__n_components=2, fusion__n_components=1, table="passthrough")
    assert ours.fit_transform(frame).shape == (N, 2)
    assert ours.get_params()["text__truncatedsvd__n_components"] == 2
    assert ours.fusion.blocks is None
    ours.set_params(table="drop")
    assert ours.fit(frame).blocks_ == {"text": slice(0, 2)}
    with pytest.raises(ValueError, match="Invalid parameter 'nothing'"):
        ours.set_params(nothing=1)


def test_parameters_of_a_shorthand_cannot_be_set(frame):
    message = re.escape("fusion='pca' is a shorthand without parameters")
    with pytest.raises(ValueError, match=message + ".*use fusion=PCAFusion()"):
        fuser(fusion="pca").set_params(fusion__n_components=3)
    # The same call may replace the shorthand.
    ours = fuser(fusion="pca").set_params(fusion=PCAFusion(), fusion__n_components=1)
    assert ours.fit_transform(frame).shape == (N, 2)


def test_fit_leaves_its_parameters_alone(frame, y):
    ours = fuser(fusion=LDAFusion())
    before = {name: repr(value) for name, value in ours.get_params().items()}
    ours.fit(frame, y)
    assert {name: repr(value) for name, value in ours.get_params().items()} == before
    assert ours.fusion_.blocks == ours.blocks_
    for _, member, _ in ours.modalities:
        with pytest.raises(sklearn.exceptions.NotFittedError):
            check_is_fitted(member)


# Without a seed the heads of "contrastive" differ from fit to fit.
REPEATABLE = sorted(STRATEGIES.keys() - {"contrastive"})


@pytest.mark.parametrize("fusion", [*REPEATABLE, PCA(2), make_pipeline(CCAFusion(2), PCA(1))])
def test_clone_and_pickle(frame, y, fusion):
    ours = fuser(fusion=fusion)
    expected = ours.fit_transform(frame, y)
    assert_array_equal(clone(ours).fit(frame, y).transform(frame), ours.transform(frame))
    assert_array_equal(pickle.loads(pickle.dumps(ours)).transform(frame), ours.transform(frame))
    assert_allclose(ours.transform(frame), expected, atol=1e-10)


def test_shorthands_are_the_strategies_at_their_defaults(frame, y):
    for shorthand, strategy in STRATEGIES.items():
        fitted = fuser(fusion=shorthand).fit(frame, y)
        assert type(fitted.fusion_) is strategy
        assert fitted.fusion_.get_params() == strategy().set_params(blocks=fitted.blocks_).get_params()


def test_a_plain_transformer_gets_the_concatenated_matrix(frame):
    joined = fuser(fusion=ConcatFusion(scaling=None)).fit_transform(frame)
    assert_allclose(fuser(fusion=PCA(2)).fit_transform(frame), PCA(2).fit_transform(joined))
    assert list(fuser(fusion=PCA(2)).fit(frame).get_feature_names_out()) == ["pca0", "pca1"]


def test_blocks_reach_the_first_step_of_a_pipeline(frame):
    ours = fuser(fusion=make_pipeline(CCAFusion(2), PCA(1))).fit(frame)
    assert ours.fusion_.named_steps["ccafusion"].blocks == ours.blocks_
    assert list(ours.get_feature_names_out()) == ["pca0"]


@pytest.mark.parametrize("fusion", [PCAFusion(blocks={"a": slice(0, 5)}), make_pipeline(PCAFusion(blocks="prefix"))])
def test_blocks_set_by_the_user_raise(frame, fusion):
    with pytest.raises(ValueError, match=r"The fuser sets '.*blocks' of its fusion"):
        fuser(fusion=fusion).fit(frame)


def test_missing_rows_never_reach_a_transformer(frame, y):
    frame.loc[frame.index[[0, 5]], ["price", "weight"]] = np.nan
    frame.loc[frame.index[3], "price"] = np.nan
    ours = ModalityFuser([("table", Recorder(), ["price", "weight"])], fusion=Recorder())
    out = ours.fit_transform(frame, y)
    seen = ours.named_modalities_.table
    kept = np.setdiff1d(np.arange(N), [0, 5])
    assert_array_equal(seen.fit_X_.index, frame.index[kept])
    assert_array_equal(seen.fit_y_, y[kept])
    assert_array_equal(np.flatnonzero(np.isnan(out).all(axis=1)), [0, 5])
    assert np.isnan(out[3, 0])
    assert_array_equal(out[kept], frame[["price", "weight"]].iloc[kept])
    ours.transform(frame[:6])
    assert len(ours.named_modalities_.table.transform_X_) == 4


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, ""])
@pytest.mark.parametrize("fusion", STRATEGIES)
def test_every_strategy_fits_and_transforms_missing_modalities(frame, y, fusion, missing):
    frame["caption"] = frame["caption"].astype(object)
    frame.loc[frame.index[::10], "caption"] = missing
    frame.loc[frame.index[::7], ["price", "weight"]] = np.nan
    ours = fuser(fusion=fusion)
    assert np.isfinite(ours.fit_transform(frame, y)).all()
    out = ours.transform(frame)
    assert np.isfinite(out).all()
    # Rows are still independent of each other.
    assert_allclose(ours.transform(frame.iloc[[0, 7, 20]]), out[[0, 7, 20]], atol=1e-10)


def test_a_modality_missing_in_all_rows(frame, y):
    fitted = fuser().fit(frame)
    empty = frame.assign(caption=None)
    assert_allclose(fitted.transform(empty)[:, :3], 0, atol=1e-12)
    with pytest.raises(ValueError, match=f"'text' is missing in all {N} rows"):
        fuser().fit(empty)


def test_sparse_and_frame_outputs_become_dense(frame):
    members = [("text", TfidfVectorizer(), "caption"), ("kind", OneHotEncoder(sparse_output=True), ["kind"])]
    out = ModalityFuser(members, fusion=ConcatFusion(scaling=None)).fit_transform(frame)
    expected = TfidfVectorizer().fit_transform(frame["caption"]).toarray()
    assert_array_equal(out[:, : expected.shape[1]], expected)
    members = [("table", StandardScaler().set_output(transform="polars"), ["price", "weight"])]
    assert ModalityFuser(members).fit_transform(frame).shape == (N, 2)


@pytest.mark.parametrize(("second", "expected"), [("float32", "float32"), ("float64", "float64"), ("int8", "float64")])
def test_result_is_float32_only_if_all_blocks_are(frame, y, second, expected):
    frame = frame[["price", "weight"]].astype({"price": "float32"}).astype({"weight": second})
    for fusion in STRATEGIES:
        ours = ModalityFuser([("a", "passthrough", ["price"]), ("b", "passthrough", ["weight"])], fusion=fusion)
        assert ours.fit_transform(frame, y).dtype == expected
        assert ours.transform(frame).dtype == expected


def test_n_jobs_changes_nothing(frame, y):
    assert_array_equal(fuser(n_jobs=2).fit_transform(frame), fuser().fit_transform(frame))


def test_a_modality_may_be_named_twice_over_the_same_columns(frame):
    members = [("price", "passthrough", ["price"]), ("scaled", StandardScaler(), ["price"])]
    assert ModalityFuser(members).fit_transform(frame).shape == (N, 2)


def test_metadata_is_routed_and_follows_present_rows(frame, y):
    frame.loc[frame.index[[2, 9]], "price"] = np.nan
    weights = np.arange(N, dtype=float)
    with sklearn.config_context(enable_metadata_routing=True):
        member = Recorder().set_fit_request(sample_weight=True)
        fusion = make_pipeline(ConcatFusion(), Recorder().set_fit_request(sample_weight=True))
        ours = ModalityFuser(
            [
                ("price", member, ["price"]),
                ("weight", StandardScaler().set_fit_request(sample_weight=False), ["weight"]),
            ],
            fusion=fusion,
        )
        ours.fit(frame, y, sample_weight=weights)
    assert_array_equal(ours.named_modalities_.price.fit_weight_, np.delete(weights, [2, 9]))
    assert_array_equal(ours.fusion_[-1].fit_weight_, weights)


def test_metadata_without_routing_raises(frame, y):
    with pytest.raises(ValueError, match="only supported if enable_metadata_routing=True"):
        fuser().fit(frame, y, sample_weight=np.ones(N))


def test_diagram_shows_modalities_and_fusion(frame):
    html = fuser(fusion="cca")._repr_html_()
    for part in ["TfidfVectorizer", "StandardScaler", "CCAFusion", "text", "table", "caption"]:
        assert part in html
    assert "PCAFusion" in fuser(fusion=PCAFusion()).fit(frame)._repr_html_()


def test_verbose_says_which_modality(frame, capsys):
    fuser(verbose=True).fit(frame)
    printed = capsys.readouterr().out
    assert "[ModalityFuser]" in printed
    assert "modality text" in printed
    assert "modality table" in printed


def test_stock_model_selection(frame, y):
    frame.loc[frame.index[::9], "caption"] = None
    pipe = make_pipeline(fuser(), LogisticRegression())
    grid = {
        "modalityfuser__fusion": ["concat", PCAFusion(2), LDAFusion(), CCAFusion(2)],
        "modalityfuser__text__truncatedsvd__n_components": [2, 3],
    }
    search = GridSearchCV(pipe, grid, cv=3, n_jobs=2, error_score="raise").fit(frame, y)
    assert len(search.cv_results_["params"]) == 8
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert cross_validate(search.best_estimator_, pl.from_pandas(frame), y, cv=3)["test_score"].shape == (3,)


class WithoutTransform(BaseEstimator):
    def fit(self, X, y=None):
        return self


@pytest.mark.parametrize(
    ("modalities", "error", "message"),
    [
        ([("text", TfidfVectorizer(), "nope")], ValueError, "'text': columns='nope' cannot be selected"),
        ([("a", "passthrough", ["nope"])], ValueError, "X has the columns"),
        ([("a", "passthrough", [9])], ValueError, r"columns=\[9\] cannot be selected from X with n_features = 4"),
        ([("a", "passthrough", [])], ValueError, "'a' selects no column"),
        ([("a", "passthrough", slice(4, None))], ValueError, "'a' selects no column"),
        ([("a", "passthrough", [False] * 4)], ValueError, "'a' selects no column"),
        ([("a", "passthrough", [1]), ("a", "passthrough", [2])], ValueError, "are unique, got 'a' 2 times"),
        ([("a__b", "passthrough", [1])], ValueError, "without '__', got 'a__b'"),
        ([("", "passthrough", [1])], ValueError, "non-empty strings"),
        ([("fusion", "passthrough", [1])], ValueError, "cannot be named 'fusion'"),
        ([("a", WithoutTransform(), [1])], TypeError, r"'a' needs .* got WithoutTransform without \['transform'\]"),
        ([("a", StandardScaler, [1])], TypeError, r"'a' is the class StandardScaler; pass StandardScaler\(\)"),
        ([("a", "scale", [1])], ValueError, "the only strings it may be are"),
        ([("a", "drop", [1])], ValueError, "no modality to work on"),
        ([], ValueError, "no modality to work on"),
        ([("a", "passthrough")], ValueError, r"a tuple \(name, estimator, columns\)"),
        ([("a", "passthrough", "caption")], ValueError, "'a': column 'caption' holds"),
        ("text", sklearn.utils._param_validation.InvalidParameterError, "'modalities' parameter"),
    ],
)
def test_wrong_modalities_get_one_clear_sentence(frame, modalities, error, message):
    with pytest.raises(error, match=message):
        ModalityFuser(modalities).fit(frame)


def test_wrong_fusion_gets_one_clear_sentence(frame):
    choices = (
        "'anchor', 'average', 'cca', 'concat', 'contrastive', 'kernel', 'kernel_cca', 'lda', 'pca', 'pls', 'product'"
    )
    with pytest.raises(ValueError, match=f"'fusion' parameter of ModalityFuser must be a str among {{{choices}}} or"):
        fuser(fusion="magic").fit(frame)
    with pytest.raises(ValueError, match="CCAFusion needs at least 2 blocks"):
        fuser(fusion="cca").set_params(text="drop").fit(frame)
    with pytest.raises(ValueError, match="requires y"):
        fuser(fusion="lda").fit(frame)


def test_errors_of_members_say_which_modality(frame):
    frame.loc[frame.index[2], "price"] = np.inf
    with pytest.raises(ValueError, match="infinity") as caught:
        fuser().fit(frame)
    assert caught.value.__notes__ == ["This happened in modality 'table'."]


def test_sparse_x_and_too_large_sparse_blocks_are_refused(frame):
    with pytest.raises(TypeError, match="Sparse data was passed"):
        ModalityFuser([("a", SimpleImputer(), slice(0, 2))]).fit(TfidfVectorizer().fit_transform(frame["caption"]))


def test_unfitted(frame):
    with pytest.raises(sklearn.exceptions.NotFittedError):
        fuser().transform(frame)


class Shortens(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X, dtype=float)[:-1]


class Widens(TransformerMixin, BaseEstimator):
    def fit_transform(self, X, y=None):
        return np.zeros((len(X), 2))

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.zeros((len(X), 3))


def test_members_must_keep_rows_and_width(frame):
    with pytest.raises(ValueError, match=f"Modality 'a': its transformer gave {N - 1} rows for {N}"):
        ModalityFuser([("a", Shortens(), ["price"])]).fit(frame)
    with pytest.raises(ValueError, match="Modality 'a': Widens gave 2 columns in fit and 3 now"):
        ModalityFuser([("a", Widens(), ["price"])]).fit(frame).transform(frame)


def test_y_of_another_length(frame, y):
    frame.loc[frame.index[0], "caption"] = None
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fuser().fit(frame, y[:-3])


def test_after_a_fit_that_fails_it_is_not_fitted(frame):
    ours = fuser().fit(frame)
    with pytest.raises(ValueError, match="requires y"):
        ours.set_params(fusion="lda").fit(frame)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        ours.transform(frame)


def test_the_type_of_the_result_does_not_depend_on_what_is_missing(frame):
    frame = frame[["price", "weight"]].astype({"price": "float32"})
    members = [("a", "passthrough", ["price"]), ("b", "passthrough", ["weight"])]
    ours = ModalityFuser(members).fit(frame)
    assert ours.transform(frame[:1] * np.nan).dtype == np.float64
    assert ours.transform(frame[:1].assign(weight=np.nan)).dtype == np.float64


def test_metadata_of_transform_is_routed(frame):
    class Shifts(Recorder):
        def transform(self, X, shift=None):
            return super().transform(X) + (0 if shift is None else np.asarray(shift)[:, None])

    frame.loc[frame.index[1], "price"] = np.nan
    shift = np.arange(N, dtype=float)
    with sklearn.config_context(enable_metadata_routing=True):
        member = Shifts().set_transform_request(shift=True)
        ours = ModalityFuser([("price", member, ["price"])], fusion=ConcatFusion(scaling=None)).fit(frame)
        moved = ours.transform(frame, shift=shift) - ours.transform(frame)
    expected = shift.copy()
    expected[1] = 0
    assert_allclose(moved[:, 0], expected)


def test_strings_have_no_parameters(frame):
    ours = fuser().set_params(text="drop")
    with pytest.raises(ValueError, match="text='drop' has no parameters, so 'text__truncatedsvd__n_components'"):
        ours.set_params(text__truncatedsvd__n_components=2)


def test_object_columns_of_polars_and_worker_processes():
    X = pl.DataFrame({"image": pl.Series([object(), object()], dtype=pl.Object), "price": [1.0, 2.0]})
    ours = ModalityFuser([("price", StandardScaler(), ["price"])], n_jobs=2)
    with pytest.raises(ValueError, match=r"polars cannot pickle its Object columns \['image'\]; use n_jobs=1"):
        ours.fit(X)
    assert ours.set_params(n_jobs=1).fit_transform(X).shape == (2, 1)


def test_other_frames_are_refused():
    X = pl.LazyFrame({"price": [1.0, 2.0]})
    with pytest.raises(TypeError, match=r"X must be a pandas or polars DataFrame, a pyarrow Table or .*collect or"):
        ModalityFuser([("price", StandardScaler(), ["price"])]).fit(X)


def test_columns_none_and_dates():
    X = pd.DataFrame({"day": pd.to_datetime(["2024-01-01", "2024-01-02"])})
    with pytest.raises(ValueError, match="Modality 'a': columns=None cannot be selected"):
        ModalityFuser([("a", "passthrough", None)]).fit(X)
    with pytest.raises(ValueError, match="Modality 'a' holds dates or times"):
        ModalityFuser([("a", "passthrough", ["day"])]).fit(X)


# What a joint embedding can do reaches through the fuser, to raw items.


@pytest.fixture
def items():
    """Names of three words, and numbers that tell two of them."""
    rng = np.random.default_rng(0)
    words, picks = np.array(["red", "green", "blue", "fox", "hen", "owl"]), rng.integers(6, size=(90, 3))
    sizes = np.eye(6)[picks[:, 0]] + np.eye(6)[picks[:, 1]] + 0.2 * rng.normal(size=(90, 6))
    frame = pd.DataFrame(sizes, columns=[f"size{i}" for i in range(6)])
    frame["caption"] = [" ".join(words[row]) for row in picks]
    frame.loc[:4, "caption"] = None
    return frame


SIZES = [f"size{i}" for i in range(6)]
PAIRED = [("text", TfidfVectorizer(), "caption"), ("table", StandardScaler(), SIZES)]


@pytest.mark.parametrize("fusion", ["cca", "kernel_cca", "pls", "anchor"])
def test_methods_of_joint_embeddings_take_items(items, fusion):
    fuser = ModalityFuser(PAIRED, fusion)
    assert hasattr(fuser, "score")
    fuser.fit(items)
    text, table = (member for _, member, _ in fuser.modalities_)
    captions = items["caption"][5:]
    vectors, numbers = text.transform(captions).toarray(), table.transform(items[SIZES])
    strategy = fuser.fusion_
    expected = strategy.transform_modality(vectors, "text")
    for X in (items[5:], captions, captions.tolist(), captions.to_numpy()):
        assert_allclose(fuser.transform_modality(X, "text"), expected)
        assert_allclose(fuser.predict_modality(X, "text", "table"), strategy.predict_modality(vectors, "text", "table"))
    for X in (items, items[SIZES], pl.from_pandas(items)):
        assert_allclose(fuser.transform_modality(X, "table"), strategy.transform_modality(numbers, "table"))
    joined = np.hstack([np.vstack([np.full((5, 6), np.nan), vectors]), numbers])
    assert fuser.score(items) == pytest.approx(strategy.score(joined))
    # Missing items are what the strategy makes of missing blocks.
    assert_array_equal(fuser.transform_modality([None, "red fox"], "text")[0], 0)
    pipeline = make_pipeline(fuser)
    assert pipeline.score(items) == pytest.approx(fuser.score(items))


def test_methods_that_the_strategy_lacks():
    for fusion in ("concat", PCAFusion(), make_pipeline(CCAFusion(2), StandardScaler())):
        fuser = ModalityFuser(PAIRED, fusion)
        assert not hasattr(fuser, "transform_modality")
        assert not hasattr(fuser, "predict_modality")
        assert not hasattr(fuser, "score")
    assert hasattr(ModalityFuser(PAIRED, PCA()), "score")
    with pytest.raises(AttributeError) as caught:
        ModalityFuser(PAIRED, "concat").transform_modality(["a"], "text")
    assert "'ConcatFusion' object has no attribute 'transform_modality'" in str(caught.value.__cause__)
    # What is wrong with the parameters fit says.
    assert hasattr(ModalityFuser(PAIRED, "no such strategy"), "score")


def test_items_of_no_modality(items):
    fuser = ModalityFuser(PAIRED, "cca")
    with pytest.raises(NotFittedError):
        fuser.transform_modality(["red"], "text")
    fuser.fit(items)
    with pytest.raises(ValueError, match=r"there is no modality 'sound'; the modalities are \['text', 'table'\]"):
        fuser.transform_modality(["red"], "sound")
    with pytest.raises(ValueError, match="there is no block 'sound'"):
        fuser.predict_modality(["red"], "text", "sound")
    with pytest.raises(TypeError, match="takes a list or column of items, got the text 'red fox'"):
        fuser.transform_modality("red fox", "text")
    with pytest.raises(ValueError, match="columns are missing in X"):
        fuser.transform_modality(items[["size0"]], "table")


def test_images_in_a_list_are_items():
    images = list(np.random.default_rng(0).integers(256, size=(30, 4, 4, 3), dtype=np.uint8))
    X = pd.DataFrame({"image": pd.Series(images, dtype=object), "size": [image.mean() for image in images]})
    pixels = FunctionTransformer(lambda column: np.stack(list(column)).reshape(len(column), -1).astype(float))
    fuser = ModalityFuser([("image", pixels, "image"), ("size", "passthrough", ["size"])], "cca").fit(X)
    assert_array_equal(fuser.transform_modality(images, "image"), fuser.transform_modality(X, "image"))
    assert_array_equal(fuser.transform_modality(np.stack(images), "image"), fuser.transform_modality(X, "image"))


def test_stock_searches_tune_an_embedding(items):
    items = items[5:]
    ridges = [1e-3, 0.3, 1.0]
    search = GridSearchCV(ModalityFuser(PAIRED, CCAFusion(4)), {"fusion__regularization": ridges}, cv=3).fit(items)
    folds = list(KFold(3).split(items))
    by_hand = [
        np.mean([ModalityFuser(PAIRED, CCAFusion(4, regularization=r)).fit(items.iloc[a]).score(items.iloc[b])])
        for r in ridges
        for a, b in folds
    ]
    assert_allclose(search.cv_results_["mean_test_score"], np.reshape(by_hand, (3, 3)).mean(axis=1))
    # Retrieval is a scorer, whatever the embedding.
    reciprocal_rank = retrieval_scorer("mrr", source="text", target="table")
    embeddings = [CCAFusion(1), CCAFusion(4, weighting="correlation"), AnchorFusion()]
    retrieval = GridSearchCV(ModalityFuser(PAIRED), {"fusion": embeddings}, scoring=reciprocal_rank, cv=3).fit(items)
    scores = retrieval.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert scores[0] < scores.max()
    assert scores.max() > 0.25
