"""ZeroShotClassifier: the logits of CLIP and CLAP, the formulas of few labels by hand, and scikit-learn's manners."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from skmm import AudioEncoder, CCAFusion, ImageEncoder, ModalityFuser, TextEncoder, VideoEncoder, save_bundle
from skmm._bundle import load_bundle
from skmm.retrieval import ZeroShotClassifier

RNG = np.random.default_rng(0)
IMAGES = list(RNG.integers(256, size=(5, 40, 50, 3), dtype=np.uint8))
CLASSES = ["cat", "dog", "mat"]
CPU = {"device": "cpu", "precision": "float32"}


class Axes(TransformerMixin, BaseEstimator):
    """Texts as unit vectors: each letter is an axis."""

    def __init__(self, letters="abcd"):
        self.letters = letters

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.array([[text.count(letter) for letter in self.letters] for text in X], dtype=float)


def points(n=60, classes="abcd", noise=0.6, shift=0.0, seed=0):
    """Points around the axes of their classes; with a shift, all of them are moved to one side."""
    rng = np.random.default_rng(seed)
    y = np.array(list(classes))[np.arange(n) % len(classes)]
    X = Axes().transform(y) + noise * rng.normal(size=(n, 4))
    X[:, 0] += shift
    return X, y


def classifier(**options):
    options = {"templates": "{}", "classes": list("abcd")} | options
    return ZeroShotClassifier(image=FunctionTransformer(), text=Axes(), **options)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class TestCheckpoints:
    @pytest.mark.parametrize("by_name", [False, True])
    def test_clip(self, tiny_clip_model, by_name):
        from transformers import CLIPModel, CLIPProcessor

        templates = ["a photo of a {}", "a {}"]
        model, processor = CLIPModel.from_pretrained(tiny_clip_model), CLIPProcessor.from_pretrained(tiny_clip_model)
        inputs = processor(text=[f"a {name}" for name in CLASSES], images=IMAGES, return_tensors="pt", padding=True)
        expected = model.eval()(**inputs).logits_per_image.detach().numpy()
        encoders = (
            (tiny_clip_model,)
            if by_name
            else (ImageEncoder(tiny_clip_model, **CPU), TextEncoder(tiny_clip_model, **CPU))
        )
        fitted = ZeroShotClassifier(*encoders, classes=CLASSES, templates=templates[1:]).fit()
        assert_allclose(fitted.decision_function(IMAGES), expected, atol=1e-5)
        assert_allclose(fitted.predict_proba(IMAGES), softmax(expected, axis=1), atol=1e-6)
        assert fitted.logit_scale_ == pytest.approx(model.logit_scale.exp().item(), rel=1e-6)
        assert_array_equal(fitted.predict(IMAGES), np.array(CLASSES)[expected.argmax(axis=1)])

    def test_clap(self, make_audio_model, tmp_path):
        import shutil

        from transformers import ClapFeatureExtractor, ClapModel, RobertaTokenizer

        folder = shutil.copytree(make_audio_model("clap"), tmp_path / "clap")
        symbols = ["<s>", "<pad>", "</s>", "<unk>", "\u0120", *"abcdefgimnorst"]
        tokenizer = RobertaTokenizer(
            vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[], model_max_length=14
        )
        tokenizer.save_pretrained(folder)
        sounds = [0.1 * RNG.normal(size=20000).astype(np.float32) for _ in range(3)]
        model = ClapModel.from_pretrained(folder).eval()
        features = ClapFeatureExtractor.from_pretrained(folder)(sounds, sampling_rate=16000, return_tensors="pt")
        texts = tokenizer(CLASSES, return_tensors="pt", padding=True)
        expected = model(**texts, **features).logits_per_audio.detach().numpy()
        assert np.ptp(expected) > 0.01
        X = [(16000, sound) for sound in sounds]
        fitted = ZeroShotClassifier(audio=AudioEncoder(str(folder), **CPU), classes=CLASSES, templates="{}").fit(X)
        assert_allclose(fitted.decision_function(X), expected, atol=1e-5)

    def test_video_is_the_mean_of_its_frames(self, tiny_clip_model):
        clips = [RNG.integers(256, size=(4, 40, 40, 3), dtype=np.uint8) for _ in range(3)]
        encoder = VideoEncoder(tiny_clip_model, n_frames=4, **CPU)
        fitted = ZeroShotClassifier(video=encoder, classes=CLASSES).fit(clips)
        images = ZeroShotClassifier(tiny_clip_model, classes=CLASSES, templates="a video of a {}").fit()
        rows = np.array([images.encoder_.transform(clip).mean(axis=0) for clip in clips])
        expected = images.logit_scale_ * unit(rows) @ images.class_embeddings_.T
        assert_allclose(fitted.decision_function(clips), expected, atol=1e-5)

    def test_networks_without_a_scale(self, tiny_text_model):
        encoder = TextEncoder(tiny_text_model)
        fitted = ZeroShotClassifier(image=encoder, text=encoder, classes=CLASSES).fit()
        assert fitted.logit_scale_ == 100

    def test_sides_of_different_networks(self, tiny_image_model, tiny_text_model):
        with pytest.raises(ValueError, match="image has 512 features and text has 16, so they are not in one space"):
            ZeroShotClassifier(tiny_image_model, tiny_text_model, classes=CLASSES).fit(IMAGES)

    def test_a_bundle(self, tiny_clip_model, tmp_path):
        pytest.importorskip("skops")
        fitted = ZeroShotClassifier(ImageEncoder(tiny_clip_model), classes=CLASSES).fit(IMAGES, [*CLASSES, None, -1])
        save_bundle(tmp_path / "bundle", fitted)
        loaded = load_bundle(tmp_path / "bundle")
        assert_allclose(loaded.predict_proba(IMAGES), fitted.predict_proba(IMAGES), atol=1e-6)


class TestPrompts:
    def test_the_mean_of_unit_vectors(self):
        classes = {"two": ["aab", "c"], "one": "d"}
        fitted = classifier(classes=classes, templates=["{}", "{}{}a"]).fit()
        assert fitted.classes_.tolist() == ["one", "two"]
        prompts = {"one": ["d", "dda"], "two": ["aab", "c", "aabaaba", "cca"]}
        for row, label in zip(fitted.class_embeddings_, fitted.classes_, strict=True):
            assert_allclose(row, unit(unit(Axes().transform(prompts[label])).mean(axis=0)))
        X = RNG.normal(size=(6, 4))
        assert_allclose(fitted.decision_function(X), np.diff(100 * unit(X) @ fitted.class_embeddings_.T, axis=1)[:, 0])

    def test_usual_templates(self):
        fitted = ZeroShotClassifier(audio=FunctionTransformer(), text=Axes("abs"), classes=["a", "b"]).fit()
        expected = unit(Axes("abs").transform([f"this is a sound of {name}" for name in "ab"]))
        assert_allclose(fitted.class_embeddings_, expected)

    def test_braces_elsewhere(self):
        fitted = classifier(classes=["a{0}", "b{x}"], templates="{}{x}").fit()
        assert_allclose(fitted.class_embeddings_, np.eye(4)[:2])

    def test_classes_from_y(self):
        X, y = points()
        fitted = classifier(classes=None).fit(X, [label if i % 3 else None for i, label in enumerate(y)])
        assert fitted.classes_.tolist() == list("abcd")

    @pytest.mark.parametrize("classes", [list("dcba"), np.array(list("dcba")), pd.Series(list("dcba"))])
    def test_sorted_labels(self, classes):
        X, _ = points()
        assert_array_equal(classifier(classes=classes).fit().predict(X), classifier().fit().predict(X))


class TestFewLabels:
    def test_the_scores_are_tip_adapters(self):
        X, y = points(40, noise=0.8)
        labelled = np.where(np.arange(40) % 2, y, None)
        fitted = classifier(alpha=30.0, beta=3.0, logit_scale=20.0).fit(X, labelled)
        new, _ = points(7, seed=1)
        F, Q = unit(X[1::2]), unit(new)
        expected = 20 * Q.copy()
        for row, query in enumerate(Q):
            for position, label in enumerate("abcd"):
                members = F[y[1::2] == label]
                # "a" and "c" have no label.
                expected[row, position] += 30 * np.exp(-3 * (1 - members @ query)).mean() if len(members) else 0
        affinities = expected - 20 * Q
        expected[:, [0, 2]] += affinities[:, [1, 3]].mean(axis=1, keepdims=True)
        assert_allclose(fitted.decision_function(new), expected)
        assert_array_equal(fitted.labelled_classes_, np.tile([1, 3], 10))

    def test_the_parameters_minimise_the_loss_of_rows_left_out(self):
        X, y = points(80, noise=0.5, shift=1.5)
        fitted = classifier(beta=4.0).fit(X, y)
        rows, targets = unit(X), fitted.labelled_classes_
        affinities = np.empty((80, 4))
        for i in range(80):
            others = np.delete(np.arange(80), i)
            kernel = np.exp(-4 * (1 - rows[others] @ rows[i]))
            affinities[i] = [kernel[targets[others] == c].mean() for c in range(4)]

        def loss(scale, alpha):
            nats = log_softmax(scale * rows + alpha * affinities, axis=1)[np.arange(80), targets]
            return -nats.sum() + np.log(scale / 100) ** 2 / 2 + (alpha / 100) ** 2 / 2

        assert fitted.alpha_ > 1
        least = loss(fitted.logit_scale_, fitted.alpha_)
        for factor in (0.98, 1.02):
            assert loss(factor * fitted.logit_scale_, fitted.alpha_) > least
            assert loss(fitted.logit_scale_, factor * fitted.alpha_) > least
        assert least + 2 < min(loss(scale, 0) for scale in np.geomspace(0.1, 100, 200))

    def test_labels_help_where_prompts_are_off(self):
        # All items are on the side of the first class.
        X, y = points(200, noise=0.3, shift=1.5)
        new, truth = points(400, noise=0.3, shift=1.5, seed=1)
        plain, few = classifier().fit(), classifier().fit(X[:48], y[:48])
        assert plain.score(new, truth) < 0.4
        assert few.score(new, truth) > 0.85
        assert log_loss(truth, few.predict_proba(new)) < log_loss(truth, plain.predict_proba(new))

    def test_labels_of_no_use_have_no_weight(self):
        X, y = points(60, noise=0.2)
        fitted = classifier().fit(X[:2], y[:2])
        assert fitted.alpha_ == 0
        assert fitted.labelled_embeddings_.shape == (0, 4)
        assert_array_equal(fitted.predict(X), classifier().fit().predict(X))
        shuffled = np.random.default_rng(0).permutation(y)
        assert classifier().fit(X, shuffled).alpha_ == 0

    def test_the_temperature_is_calibrated(self):
        X, y = points(400, noise=0.8)
        new, truth = points(2000, noise=0.8, seed=1)
        fitted = classifier(alpha=0).fit(X, y)
        losses = {
            scale: log_loss(truth, classifier(logit_scale=scale).fit().predict_proba(new))
            for scale in np.geomspace(1, 100, 60)
        }
        assert log_loss(truth, fitted.predict_proba(new)) < 1.02 * min(losses.values())
        assert fitted.logit_scale_ == pytest.approx(min(losses, key=losses.get), rel=0.2)
        assert classifier(alpha=0, logit_scale="checkpoint").fit(X, y).logit_scale_ == 100

    def test_only_labelled_items_are_encoded(self):
        seen = []

        def encode(X):
            seen.append(len(X))
            return np.asarray(X)

        X, y = points(20)
        model = ZeroShotClassifier(FunctionTransformer(encode), Axes(), classes=list("abcd"), templates="{}")
        model.fit(X)
        assert seen == []
        model.fit(X, np.where(np.arange(20) < 8, y, None))
        assert seen == [8]

    def test_fit_again_without_items(self):
        X, y = points(20)
        fitted = classifier().fit(X, y).fit()
        assert not hasattr(fitted, "n_features_in_")
        assert_allclose(fitted.predict_proba(X), classifier().fit().predict_proba(X))

    @pytest.mark.parametrize("missing", [None, np.nan, -1, pd.NA])
    def test_rows_without_label(self, missing):
        X, y = points(40, shift=1.0)
        some = [label if i % 2 or i < 10 else missing for i, label in enumerate(y)]
        rows = np.flatnonzero([isinstance(label, str) for label in some])
        fitted, expected = classifier().fit(X, some), classifier().fit(X[rows], y[rows])
        assert_allclose(fitted.predict_proba(X), expected.predict_proba(X))

    def test_labels_of_numbers(self):
        X, y = points(40)
        numbers = np.array(["abcd".index(label) for label in y], dtype=float)
        fitted = classifier(classes={0: "a", 1: "b", 2: "c", 3: "d"}).fit(X, np.where(numbers == 3, np.nan, numbers))
        assert fitted.predict(X).dtype.kind == "i"
        assert fitted.score(X, numbers) > 0.8

    def test_blocks_of_rows(self, monkeypatch):
        X, y = points(50, shift=1.0)
        expected = classifier(alpha=10.0).fit(X, y)
        monkeypatch.setattr("skmm.retrieval._zero_shot._CHUNK_OF_ROWS", 7)
        fitted = classifier(alpha=10.0).fit(X, y)
        assert_allclose(fitted.predict_proba(X), expected.predict_proba(X))
        assert fitted.logit_scale_ == pytest.approx(expected.logit_scale_)


class TestReject:
    def test_a_class_of_constant_similarity(self):
        X, _ = points(30, noise=1.0)
        fitted = classifier(reject="none", threshold=0.9).fit()
        assert fitted.classes_.tolist() == ["a", "b", "c", "d", "none"]
        assert_array_equal(fitted.predict(X) == "none", unit(X).max(axis=1) < 0.9)
        expected = np.column_stack([100 * unit(X), np.full(30, 90.0)])
        assert_allclose(fitted.decision_function(X), expected)
        assert_allclose(fitted.predict_proba(X).sum(axis=1), 1)

    def test_one_class(self):
        fitted = classifier(classes=["a"], reject="other", threshold=0.5).fit()
        assert fitted.predict([[1, 0, 0, 0], [0, 1, 0, 0]]).tolist() == ["a", "other"]

    def test_the_threshold_of_items_of_the_classes(self):
        X, y = points(200, noise=0.4)
        fitted = classifier(reject="none").fit(X)
        assert np.mean(fitted.predict(X) == "none") == pytest.approx(0.05, abs=0.005)
        assert fitted.labelled_embeddings_.shape == (0, 4)
        far = np.vstack([X, np.tile([-1.0, -1, -1, -1], (50, 1))])
        some = classifier(reject="none").fit(far, [*y, *[None] * 50])
        assert some.threshold_ == pytest.approx(fitted.threshold_)

    def test_the_threshold_of_labelled_rejects(self):
        X, y = points(60, noise=0.2)
        far = -np.abs(np.random.default_rng(1).normal(size=(30, 4)))
        fitted = classifier(reject="none").fit(np.vstack([X, far]), [*y, *["none"] * 30])
        assert far.shape[0] == (fitted.predict(far) == "none").sum()
        assert unit(far).max() < fitted.threshold_ < unit(X).max(axis=1).min()
        mixed = classifier(reject="none", classes=list("ab")).fit(X, np.where(np.isin(y, ["a", "b"]), y, "none"))
        best = unit(X)[:, :2].max(axis=1)
        is_none = np.isin(y, ["c", "d"])
        accuracies = [((best < cut)[is_none].mean() + (best >= cut)[~is_none].mean()) / 2 for cut in best]
        reached = (best < mixed.threshold_)[is_none].mean() + (best >= mixed.threshold_)[~is_none].mean()
        assert reached / 2 == pytest.approx(max(accuracies))

    def test_minus_one_is_a_label_if_it_is_reject(self):
        X, y = points(20)
        codes = np.array(["abcd".index(label) for label in y])
        fitted = classifier(classes={0: "a", 1: "b"}, reject=-1).fit(X, np.where(codes < 2, codes, -1))
        assert fitted.classes_.tolist() == [-1, 0, 1]
        assert fitted.score(X, np.where(codes < 2, codes, -1)) > 0.7

    @pytest.mark.parametrize(("labels", "expected"), [([], 3), (["none"] * 3, 3)])
    def test_without_items_of_one_side(self, labels, expected):
        X, _ = points(3)
        fitted = classifier(reject="none").fit(X, labels or None)
        assert np.isfinite(fitted.threshold_)
        assert len(fitted.predict(X)) == expected


class TestMissingItems:
    @pytest.mark.parametrize("reject", [None, "none"])
    def test_answers(self, tiny_clip_model, reject):
        model = ZeroShotClassifier(ImageEncoder(tiny_clip_model), classes=CLASSES, reject=reject, threshold=0.0).fit(
            [*IMAGES, None], ["cat", "dog", "mat", "cat", "dog", "mat"]
        )
        with pytest.warns(UserWarning, match="2 of 7 items are missing; they get") as caught:
            answers = model.predict_proba([None, *IMAGES, float("nan")])
        assert len(caught) == 1
        expected = np.full(3, 1 / 3) if reject is None else (model.classes_ == reject).astype(float)
        assert_allclose(answers[[0, -1]], [expected] * 2, atol=1e-5)
        assert_allclose(answers[1:-1], model.predict_proba(IMAGES))

    def test_no_item_at_all(self):
        with pytest.warns(UserWarning, match="1 of 1 items"):
            assert_allclose(classifier().fit().predict_proba([[np.nan] * 4]), [[0.25] * 4])


class TestManners:
    def test_forms_of_X(self, tiny_clip_model):
        y = ["cat", "dog", "mat", "cat", None]
        expected = ZeroShotClassifier(tiny_clip_model, classes=CLASSES).fit(IMAGES, y).predict_proba(IMAGES)
        paths = pd.Series(IMAGES, dtype=object, index=range(5, 10))
        frame = pd.DataFrame({"id": range(5), "photo": paths.to_numpy()}, index=range(3, 8))
        for X, column in [
            (paths, None),
            (paths.to_frame("photo"), None),
            (np.stack(IMAGES), None),
            (frame, "photo"),
            (frame, 1),
            (frame.to_numpy(), 1),
            (paths, "photo"),
            (pl.DataFrame({"id": range(5), "photo": pl.Series([i.tolist() for i in IMAGES])}), "photo"),
        ]:
            fitted = ZeroShotClassifier(tiny_clip_model, classes=CLASSES, column=column).fit(X, y)
            assert_allclose(fitted.predict_proba(X), expected, atol=1e-6)
        assert fitted.feature_names_in_.tolist() == ["id", "photo"]
        assert fitted.n_features_in_ == 2

    def test_searches(self):
        X, y = points(60, noise=0.5)
        frame = pd.DataFrame({"point": list(X), "other": 0})
        model = ZeroShotClassifier(FunctionTransformer(np.stack), Axes(), classes=list("abcd"), column="point")
        grid = {"templates": ["{}", "bbbb {}", ["{}", "c {}"]], "alpha": ["auto", 0]}
        search = GridSearchCV(model, grid, cv=3, scoring="neg_log_loss", error_score="raise").fit(frame, y)
        assert search.best_params_["templates"] == "{}"
        results = cross_validate(
            make_pipeline(FunctionTransformer(), model), frame, y, cv=3, scoring=["accuracy", "roc_auc_ovr"]
        )
        assert results["test_accuracy"].mean() > 0.7
        assert results["test_roc_auc_ovr"].mean() > 0.9
        assert model.set_params(text__letters="dcba").text.letters == "dcba"

    def test_binary_scorers(self):
        X, y = points(60, "ab", noise=0.5)
        model = classifier(classes={False: "a", True: "b"})
        assert cross_validate(model, X, y == "b", cv=3, scoring="roc_auc")["test_score"].mean() > 0.9

    def test_copies(self, tiny_clip_model):
        model = ZeroShotClassifier(ImageEncoder(tiny_clip_model), classes=CLASSES, alpha=2.0).fit(IMAGES[:3], CLASSES)
        expected = model.predict_proba(IMAGES)
        assert_allclose(pickle.loads(pickle.dumps(model)).predict_proba(IMAGES), expected, atol=1e-6)
        assert_allclose(clone(model).fit(IMAGES[:3], CLASSES).predict_proba(IMAGES), expected, atol=1e-6)
        assert not hasattr(model.image, "n_features_out_")

    def test_a_joint_embedding_as_encoders(self):
        rng = np.random.default_rng(0)
        shared = rng.normal(size=(300, 3))
        blocks = [shared @ rng.normal(size=(3, 5)) + 0.1 * rng.normal(size=(300, 5)) for _ in range(2)]
        X = np.hstack(blocks)
        modalities = [("text", "passthrough", slice(0, 5)), ("image", "passthrough", slice(5, 10))]
        fuser = ModalityFuser(modalities, CCAFusion(3)).fit(X[:200])
        texts = {f"text {i}": blocks[0][200 + i] for i in range(100)}
        reader = FunctionTransformer(lambda X: fuser.transform_modality(np.stack([texts[text] for text in X]), "text"))
        encoder = FunctionTransformer(partial(fuser.transform_modality, name="image"))
        model = ZeroShotClassifier(FrozenEstimator(encoder), reader, classes=list(texts), templates="{}")
        sides = [fuser.transform_modality(blocks[i][200:], name) for i, name in enumerate(["text", "image"])]
        nearest = (unit(sides[1]) @ unit(sides[0]).T).argmax(axis=1)
        assert_array_equal(model.fit().predict(blocks[1][200:]), np.array(list(texts))[nearest])
        assert np.mean(nearest == np.arange(100)) > 0.3

    @parametrize_with_checks([ZeroShotClassifier(FunctionTransformer(), Axes(), classes=list("abcd"))])
    def test_sklearn_checks(self, estimator, check):
        check(estimator)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"templates": "a photo"}, r"templates must be texts with \{\} where .*, in 'a photo' it is missing"),
            ({"templates": []}, "got none"),
            ({"templates": ["{}", 3]}, "in 3 it is missing"),
            ({"classes": ["a", "b", "a"]}, r"classes holds \['a'\] more than once"),
            ({"classes": [1, 2]}, "the class 1 has no text"),
            ({"classes": {"x": [], "y": "b"}}, "the class 'x' has no text"),
            ({"classes": ["a", ""]}, "the class '' has no text"),
            ({"classes": ["a"]}, "needs at least 2 classes, or 1 and a label"),
            ({"classes": None}, "classes=None takes the labels in y, but y is None"),
            ({"classes": ["a", "b"], "reject": "b"}, "reject='b' is one of the classes"),
            ({"reject": -1}, "labels must be all strings or all numbers"),
            ({"reject": "none"}, "threshold='auto' needs items to learn it"),
            ({"audio": FunctionTransformer()}, "needs one of image, audio and video, .* got image and audio"),
            ({"image": None}, "got none; set one of them"),
            ({"text": None}, "FunctionTransformer has none with a name; pass text"),
            ({"text": Axes("ab")}, "the items have 4 features and the texts 2"),
            ({"alpha": -1}, "'alpha' parameter"),
        ],
    )
    def test_parameters(self, options, message):
        model = classifier().set_params(**options)
        with pytest.raises(ValueError, match=message):
            model.fit().predict(np.eye(4))

    def test_labels(self):
        X, y = points(8)
        with pytest.raises(ValueError, match=r"labels that are not among the classes: \['d'\]; the classes are \['a'"):
            classifier(classes=list("abc")).fit(X, y)
        with pytest.raises(ValueError, match="y is of no use without X"):
            classifier().fit(None, y)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            classifier().fit(X, y[:4])
        with pytest.raises(ValueError, match="one label per row, got shape"):
            classifier().fit(X, np.stack([y, y], axis=1))

    def test_tables(self, tiny_clip_model):
        frame = pd.DataFrame({"photo": pd.Series(IMAGES, dtype=object), "id": range(5)})
        model = ZeroShotClassifier(tiny_clip_model, classes=CLASSES)
        with pytest.raises(ValueError, match=r"X has the columns \['photo', 'id'\]; set column"):
            model.fit(frame)
        with pytest.raises(ValueError, match="'picture' cannot be selected"):
            model.set_params(column="picture").fit(frame)

    def test_encoders_that_need_items(self):
        from sklearn.decomposition import PCA

        model = ZeroShotClassifier(PCA(2), Axes("ab"), classes=["a", "b"])
        with pytest.raises(ValueError, match=r"image=PCA\(n_components=2\) cannot be fitted without items .* pass X"):
            model.fit()
        assert len(model.fit(np.eye(4)).predict(np.eye(4))) == 4
