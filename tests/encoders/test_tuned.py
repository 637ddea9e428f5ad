import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import skmm
from skmm import ModalityFuser
from skmm.encoders import AudioEncoder, ImageEncoder, ItemEncoder, TextEncoder, TunedEncoder, VideoEncoder
from skmm.encoders._tuned import _is_better
from skmm.exceptions import ItemError
from skmm.store import EmbeddingStore

torch = pytest.importorskip("torch")


def slow(*kinds):
    return [pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]


KINDS_OF_CHECKPOINTS = ["text", "plain text", "clip texts", "clip", "timm", "audio", "frames", "video"]
KINDS = ["text", "clip", "timm", "audio", *slow("plain text", "clip texts", "frames", "video")]

OPTIONS = {"device": "cpu", "precision": "float32"}
ENCODERS = {
    **dict.fromkeys(("text", "plain text", "clip texts"), TextEncoder),
    **{
        "clip": ImageEncoder,
        "timm": ImageEncoder,
        "audio": AudioEncoder,
        "frames": VideoEncoder,
        "video": VideoEncoder,
    },
}


def make_items(kind, n_samples, seed=0):
    """Return different items of a kind, and two classes that show in them."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    if "text" in kind:
        letters = rng.choice(list("abcdefghijklm"), size=(n_samples, 4))
        return [f"the {('cat', 'dog')[k]} {' '.join(row)}" for k, row in zip(y, letters, strict=True)], y
    if kind == "audio":
        return [(16_000, rng.normal(size=4000) * (0.1, 1)[k] + np.sin(np.arange(4000) * (k + 1))) for k in y], y
    images = (
        rng.integers(100, size=(n_samples, 40, 50, 3), dtype=np.uint8) + (100 * y).astype(np.uint8)[:, None, None, None]
    )
    if kind in ("frames", "video"):
        return [[image, image[::-1]] for image in images], y
    return list(images), y


@pytest.fixture(scope="session")
def models(tmp_path_factory, copy_model):
    """Give a function that gives the tiny model of a kind."""
    folders = {}

    def find(kind):
        if kind not in folders:
            folders[kind] = copy_model(kind, tmp_path_factory.mktemp("models") / kind.replace(" ", "_"))
        return folders[kind]

    return find


@pytest.fixture
def tuned(models):
    """Give a function that makes a TunedEncoder around the tiny model of a kind."""

    def make(kind="text", store="auto", on_error="raise", **params):
        params = {"n_layers": 1, "max_epochs": 2, "batch_size": 8, "fallback": False, "random_state": 0, **params}
        return TunedEncoder(ENCODERS[kind](models(kind), store=store, on_error=on_error, **OPTIONS), **params)

    return make


class TestRows:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_kind(self, tuned, kind):
        X, y = make_items(kind, 24)
        encoder = tuned(kind)
        rows = encoder.fit_transform(X, y)
        assert encoder.tuned_
        assert rows.shape == (24, encoder.n_features_out_)
        assert rows.dtype == np.float32
        frozen = clone(encoder.encoder).fit_transform(X)
        assert np.abs(rows - frozen).max() > 1e-4
        # By the network as a whole, without what the store knows.
        again = pickle.loads(pickle.dumps(encoder))
        again.encoder_.store = None
        assert_allclose(again.transform(X), rows, rtol=0, atol=1e-5 * np.abs(rows).max())

    @pytest.mark.parametrize("kind", ["text", *slow("timm", "audio")])
    def test_whole_network(self, tuned, kind):
        X, y = make_items(kind, 16)
        encoder = tuned(kind, n_layers="all", max_epochs=1).fit(X, y)
        below = tuned(kind, n_layers=1, max_epochs=1).fit(X, y)
        assert len(encoder.encoder_._tuning.weights) > len(below.encoder_._tuning.weights)

    def test_more_layers_than_there_are(self, tuned):
        X, y = make_items("text", 16)
        rows = tuned(n_layers=100).fit_transform(X, y)
        assert_allclose(rows, tuned(n_layers="all").fit_transform(X, y), rtol=0, atol=1e-6)

    def test_modules_in_memory(self):
        torch.manual_seed(0)
        stages = [torch.nn.Sequential(torch.nn.Conv2d(n, 4, 3), torch.nn.ReLU()) for n in (3, 4, 4)]
        module = torch.nn.Sequential(*stages, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
        before = {name: values.clone() for name, values in module.state_dict().items()}
        X, y = make_items("timm", 16)
        encoder = TunedEncoder(
            ImageEncoder(module, preprocess={"input_size": (3, 16, 16)}), n_layers=1, fallback=False, random_state=0
        )
        rows = encoder.fit_transform(X, y)
        assert np.abs(rows - clone(encoder.encoder).fit_transform(X)).max() > 1e-4
        assert_array_equal(pickle.loads(pickle.dumps(encoder)).transform(X), rows)
        for name, values in module.state_dict().items():
            assert torch.equal(values, before[name])

    def test_the_pretrained_encoder_stays_as_it_was(self, tuned):
        X, y = make_items("text", 16)
        encoder = tuned()
        frozen = encoder.encoder.fit(X)
        before = frozen.transform(X)
        encoder.fit(X, y)
        frozen.store = None
        assert_array_equal(frozen.transform(X), before)

    @pytest.mark.parametrize("kind", ["text", *slow("timm")])
    def test_half_precision(self, tuned, kind):
        X, y = make_items(kind, 16)
        encoder = tuned(kind).set_params(encoder__precision="bfloat16")
        rows = encoder.fit_transform(X, y)
        full = tuned(kind).fit_transform(X, y)
        assert_allclose(rows, full, rtol=0, atol=0.05 * np.abs(full).max())

    @pytest.mark.parametrize("kind", ["text", *slow("timm")])
    def test_repeats(self, tuned, kind):
        X, y = make_items(kind, 16)
        first, second = (tuned(kind, store=None).fit_transform(X, y) for _ in range(2))
        assert_array_equal(first, second)
        assert np.abs(tuned(kind, store=None, random_state=1).fit_transform(X, y) - first).max() > 0

    def test_equal_items_have_targets_of_their_own(self, tuned):
        X = ["the cat", "the dog"] * 8
        rows = tuned().fit_transform(X, np.arange(16) % 4 // 2)
        assert_array_equal(rows[::2], np.repeat(rows[:1], 8, axis=0))

    def test_save_and_load(self, tuned, tmp_path):
        for kind in KINDS_OF_CHECKPOINTS:
            X, y = make_items(kind, 12)
            encoder = tuned(kind, max_epochs=1).fit(X, y)
            folder = tmp_path / kind
            encoder.save_encoder(folder)
            loaded = ENCODERS[kind](folder, store=None, **OPTIONS).fit_transform(X)
            assert_allclose(loaded, encoder.transform(X), rtol=0, atol=1e-5, err_msg=kind)

    def test_modules_in_memory_have_no_checkpoint(self, tmp_path):
        module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        X, y = make_items("timm", 12)
        encoder = TunedEncoder(ImageEncoder(module), n_layers="all", max_epochs=1, random_state=0).fit(X, y)
        with pytest.raises(ValueError, match="in memory has no checkpoint format"):
            encoder.save_encoder(tmp_path / "folder")

    def test_top_layers_that_read_the_input(self):
        class Skipping(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.body = torch.nn.Sequential(*(torch.nn.Conv2d(n, 3, 3) for n in (3, 3, 3)))

            def forward(self, x):
                return torch.cat([self.body(x), x[:, :, 3:-3, 3:-3]], dim=1).mean(dim=(2, 3))

        torch.manual_seed(0)
        X, y = make_items("timm", 16)
        encoder = TunedEncoder(
            ImageEncoder(Skipping().eval(), preprocess={"input_size": (3, 16, 16)}), n_layers=1, random_state=0
        )
        plain = clone(encoder.encoder).set_params(store=None).fit_transform(X)
        for fallback in (True, False):
            rows = encoder.set_params(fallback=fallback).fit_transform(X, y)
            # What is not trained stays what it was.
            assert_allclose(rows[:, 3:], plain[:, 3:], rtol=0, atol=1e-5)
        assert_allclose(clone(encoder.encoder).fit_transform(X), plain, rtol=0, atol=1e-5)

    def test_encoders_of_users_that_change_rows(self, models):
        class Tenfold(TextEncoder):
            def _encode_batch(self, batch, model):
                return 10 * super()._encode_batch(batch, model)

        X, y = make_items("text", 16)
        encoder = TunedEncoder(Tenfold(models("text"), **OPTIONS), n_layers=1, max_epochs=1, random_state=0)
        rows = encoder.fit_transform(X, y)
        encoder.encoder_.store = None
        assert_allclose(encoder.transform(X), rows, rtol=0, atol=1e-4)

    def test_another_base_model_is_refused(self, tuned, make_text_model, tmp_path):
        X, y = make_items("text", 16)
        folders = [make_text_model(tmp_path / f"model{seed}", seed=seed) for seed in (0, 1)]
        encoder = tuned(store=None).set_params(encoder__model=folders[0]).fit(X, y)
        moved = pickle.loads(pickle.dumps(encoder))
        moved.encoder_.model = folders[1]
        with pytest.raises(ValueError, match="has other weights than that from which an encoder was tuned"):
            moved.transform(X)

    def test_a_module_of_the_user_is_not_changed(self):
        layers = (torch.nn.Conv2d(3, 3, 3), torch.nn.Conv2d(3, 3, 3), torch.nn.AdaptiveAvgPool2d(1))
        module = torch.nn.Sequential(*layers, torch.nn.Flatten()).eval()
        X, y = make_items("timm", 12)
        before = torch.random.get_rng_state()
        encoder = TunedEncoder(ImageEncoder(module, store=None), n_layers=1, fallback=False, max_epochs=1)
        encoder.fit(X, y).transform(X)
        assert all(parameter.requires_grad for parameter in module.parameters())
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_networks_that_cannot_be_trained(self):
        X, y = make_items("timm", 12)
        module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        with pytest.raises(ValueError, match="has no weights that could be trained"):
            TunedEncoder(ImageEncoder(module)).fit(X, y)


class TestTargets:
    def test_numbers(self, tuned):
        X, y = make_items("text", 24)
        rng = np.random.default_rng(0)
        encoder = tuned(max_epochs=20, learning_rate=1e-2, validation_fraction=0.25)
        encoder.fit(X, 100 + 10 * y + rng.normal(size=24))
        assert encoder.validation_scores_["tuned"] > 0.5

    def test_whole_numbers_are_classes_unless_told(self, tuned):
        X, y = make_items("text", 24)
        with pytest.raises(ValueError, match="target_type='classification'"):
            tuned(target_type="classification").fit(X, y + 0.5)
        rows = tuned(target_type="continuous").fit_transform(X, y)
        assert np.abs(rows - tuned().fit_transform(X, y)).max() > 1e-6
        # Units do not matter.
        assert_allclose(tuned(target_type="continuous").fit_transform(X, 1000 * y - 3), rows, rtol=0, atol=1e-5)

    def test_several_labels_and_outputs(self, tuned):
        X, y = make_items("text", 24)
        labels = np.column_stack([y, 1 - y, np.arange(24) % 3 == 0]).astype(int)
        assert tuned().fit(X, labels).tuned_
        assert tuned().fit(X, labels + 0.25).tuned_

    def test_names_of_classes_do_not_matter(self, tuned):
        X, y = make_items("text", 24)
        rows = tuned().fit_transform(X, y)
        assert_array_equal(tuned().fit_transform(X, np.array(["a", "b"])[y]), rows)
        assert_array_equal(tuned().fit_transform(pd.Series(X), pd.Series(np.array(["a", "b"])[y])), rows)

    def test_class_weight(self, tuned):
        X, _ = make_items("text", 24)
        y = (np.arange(24) % 6 == 0).astype(int)
        plain, balanced = (tuned(class_weight=weight).fit_transform(X, y) for weight in (None, "balanced"))
        assert np.abs(plain - balanced).max() > 1e-6
        explicit = tuned(class_weight={0: 24 / 40, 1: 24 / 8}).fit_transform(X, y)
        assert_allclose(explicit, balanced, rtol=0, atol=1e-6)

    def test_objects_that_are_numbers(self, tuned):
        X, y = make_items("text", 12)
        assert_array_equal(tuned().fit_transform(X, y.astype(object)), tuned().fit_transform(X, y))

    def test_class_weight_of_numbers(self, tuned):
        X, y = make_items("text", 12)
        with pytest.raises(ValueError, match="class_weight is for one class per row"):
            tuned(class_weight="balanced").fit(X, y + 0.5)

    def test_wrong_targets(self, tuned):
        X, y = make_items("text", 12)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            tuned().fit(X, y[:-1])
        with pytest.raises(ValueError, match="y contains NaN"):
            tuned().fit(X, np.where(y == 0, np.nan, 1.5))
        with pytest.raises(ValueError, match="one class per row"):
            tuned().fit(X, np.column_stack([y, 2 * y, 3 + y]))

    def test_a_target_that_does_not_vary(self, tuned):
        X, _ = make_items("text", 16)
        encoder = tuned(fallback=True).fit(X, np.ones(16, dtype=int))
        assert not encoder.tuned_
        assert encoder.validation_scores_ == {}


class TestFallback:
    def test_what_shows_is_learned(self, tuned):
        X, y = make_items("text", 120)
        encoder = tuned(fallback=True, max_epochs=10, learning_rate=3e-3, validation_fraction=0.3, random_state=0).fit(
            X, y + 0.1 * np.random.default_rng(0).normal(size=120)
        )
        assert encoder.validation_scores_["tuned"] > encoder.validation_scores_["frozen"]

    @pytest.mark.slow
    def test_permuted_labels_keep_the_pretrained_encoder(self, tuned):
        X, _ = make_items("text", 60)
        rng = np.random.default_rng(0)
        n_frozen = 0
        for seed in range(100):
            encoder = tuned(fallback=True, max_epochs=3, learning_rate=3e-3, random_state=seed)
            encoder.fit(X, rng.integers(2, size=60))
            n_frozen += not encoder.tuned_
        assert n_frozen >= 90

    def test_rows_are_those_of_the_pretrained_encoder(self, tuned):
        X, y = make_items("text", 24)
        encoder = tuned(fallback=True).fit(X, np.random.default_rng(0).permutation(y))
        assert not encoder.tuned_
        assert_allclose(encoder.transform(X), clone(encoder.encoder).fit_transform(X), rtol=0, atol=1e-6)

    def test_what_was_learned_by_heart_is_no_gain(self, tuned):
        X, _ = make_items("text", 30)
        y = np.tile(np.random.default_rng(0).normal(size=30), 4)
        encoder = tuned(fallback=True, max_epochs=20, learning_rate=1e-2, validation_fraction=0.2).fit(X * 4, y)
        assert not encoder.tuned_

    def test_five_rows_can_show_a_gain(self):
        assert _is_better(np.arange(1.0, 6))
        assert not _is_better(np.arange(1.0, 5))
        assert not _is_better(np.zeros(5))

    def test_few_rows(self, tuned):
        X, y = make_items("text", 6)
        with pytest.warns(UserWarning, match="6 rows have an item, too few"):
            encoder = tuned().fit(X, y)
        assert not encoder.tuned_
        assert encoder.transform(X).shape == (6, 16)

    def test_groups_are_held_out_as_a_whole(self, tuned, monkeypatch):
        X, y = make_items("text", 40)
        groups = np.repeat(np.arange(8), 5)
        held_out = []
        hold_out = TunedEncoder._hold_out

        def note(self, *args):
            held_out.append(hold_out(self, *args))
            return held_out[-1]

        monkeypatch.setattr(TunedEncoder, "_hold_out", note)
        tuned(validation_fraction=0.25).fit(X, y, groups=groups)
        ((train, test),) = held_out
        assert set(groups[train]).isdisjoint(groups[test])
        assert len(test) == 10
        with pytest.raises(ValueError, match="all rows are in one group"):
            tuned().fit(X, y, groups=np.zeros(40))


class TestItems:
    def test_missing_items(self, tuned):
        X, y = make_items("text", 24)
        X[3] = X[10] = None
        rows = tuned().fit_transform(X, y)
        assert_array_equal(np.isnan(rows).all(axis=1), np.isin(np.arange(24), [3, 10]))
        present = [i for i in range(24) if X[i] is not None]
        assert_allclose(tuned().fit_transform([X[i] for i in present], y[present]), rows[present], rtol=0, atol=1e-6)

    def test_bad_items(self, tuned):
        X, y = make_items("text", 24)
        X[3] = 5.0
        with pytest.raises(ItemError, match="row 3"):
            tuned().fit(X, y)
        with pytest.warns(UserWarning, match="1 of 24 items could not be encoded"):
            encoder = tuned(on_error="missing").fit(X, y)
        assert [error.row for error in encoder.errors_] == [3]
        assert [error.row for error in encoder.find_errors(X)] == [3]

    def test_rows_that_are_not_finite(self):
        class Dark(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(3, 4)

            def forward(self, x):
                # Black pictures give 0 / 0.
                return self.layer(x.mean(dim=(2, 3))) * (x.amax() / x.amax())

        X, y = make_items("timm", 14)
        X[5] = np.zeros((40, 50, 3), dtype=np.uint8)
        preprocess = {"input_size": (3, 16, 16), "mean": (0, 0, 0), "std": (1, 1, 1)}
        options = {"n_layers": "all", "max_epochs": 1, "fallback": False, "random_state": 0, "batch_size": 1}
        encoder = ImageEncoder(Dark().eval(), preprocess=preprocess, store=None, on_error="missing", batch_size=1)
        with pytest.warns(UserWarning, match="1 of 14 items"):
            tuned = TunedEncoder(encoder, **options).fit(X, y)
        assert [error.row for error in tuned.errors_] == [5]
        with pytest.raises(ItemError, match="row 5"):
            TunedEncoder(encoder.set_params(on_error="raise"), **options).fit(X, y)

    def test_parameters_of_the_encoder_are_checked(self, tuned):
        with pytest.raises(ValueError, match="'on_error' parameter"):
            tuned(on_error="ignore").fit(*make_items("text", 12))

    def test_data_frames_and_names(self, tuned):
        X, y = make_items("text", 12)
        encoder = tuned().fit(pd.DataFrame({"text": X}), y)
        assert encoder.feature_names_in_ == ["text"]
        assert encoder.n_features_in_ == 1
        names = [f"text_{i}" for i in range(16)]
        assert_array_equal(encoder.get_feature_names_out(), names)
        assert list(encoder.set_output(transform="pandas").transform(X).columns) == names
        with pytest.raises(ValueError, match="was fitted on column 'text'"):
            encoder.transform(pd.DataFrame({"other": X}))


class TestStore:
    @pytest.mark.parametrize("kind", ["text", "timm", *slow("frames")])
    def test_lower_layers_run_once(self, tuned, kind, monkeypatch, tmp_path):
        from skmm.encoders.networks import SplitModel

        n_inputs = []
        states = SplitModel.states

        def note(self, inputs):
            n_inputs.append(len(inputs))
            return states(self, inputs)

        X, y = make_items(kind, 16)
        encoder = tuned(kind, store=tmp_path / "store", max_epochs=1)
        monkeypatch.setattr(SplitModel, "states", note)
        first = encoder.fit_transform(X, y)
        n_first = sum(n_inputs)
        assert n_first >= 16
        n_inputs.clear()
        assert_array_equal(encoder.fit_transform(X, y), first)
        # The probe alone, by which the split is checked.
        assert sum(n_inputs) <= 2

    def test_tuned_and_pretrained_rows_are_kept_apart(self, tuned, tmp_path):
        X, y = make_items("text", 16)
        store = EmbeddingStore(tmp_path / "store")
        frozen = TextEncoder(tuned().encoder.model, store=store, **OPTIONS).fit_transform(X)
        by_target = [tuned(store=store).fit_transform(X, target) for target in (y, np.arange(16) % 3)]
        assert np.abs(by_target[0] - by_target[1]).max() > 1e-6
        assert_array_equal(TextEncoder(tuned().encoder.model, store=store, **OPTIONS).fit_transform(X), frozen)

    def test_pickles_hold_the_changes_alone(self, tuned):
        X, y = make_items("text", 16)
        encoder = tuned().fit(X, y)
        n_bytes = sum(array.nbytes for array in encoder.encoder_._tuning.weights.values())
        assert len(pickle.dumps(encoder)) < n_bytes + 10_000


class TestLora:
    @pytest.mark.parametrize("kind", ["text", "clip", "audio"])
    def test_adds_to_linear_layers(self, tuned, kind):
        pytest.importorskip("peft")
        X, y = make_items(kind, 16)
        encoder = tuned(kind, adapter="lora", rank=2, learning_rate=3e-3)
        rows = encoder.fit_transform(X, y)
        assert np.abs(rows - clone(encoder.encoder).fit_transform(X)).max() > 1e-5
        assert all(isinstance(values, tuple) for values in encoder.encoder_._tuning.weights.values())
        # The rows of fit_transform come from peft's layers, those without the store from the sum of the weights.
        again = pickle.loads(pickle.dumps(encoder))
        again.encoder_.store = None
        assert_allclose(again.transform(X), rows, rtol=0, atol=1e-5 * np.abs(rows).max())
        assert_array_equal(tuned(kind, adapter="lora", rank=2, learning_rate=3e-3).fit_transform(X, y), rows)

    def test_networks_without_linear_layers(self, tuned):
        pytest.importorskip("peft")
        X, y = make_items("timm", 12)
        with pytest.raises(ValueError, match='adapter="lora" is for linear layers'):
            tuned("timm", adapter="lora").fit(X, y)


class TestComposition:
    def test_in_a_search(self, tuned):
        X, y = make_items("text", 30)
        frame = pd.DataFrame({"text": X, "number": np.arange(30.0)})
        frame.loc[[3, 7], "text"] = None
        encoder = tuned(max_epochs=1)
        fuser = ModalityFuser([("text", encoder, "text"), ("table", "passthrough", ["number"])])
        pipeline = make_pipeline(fuser, LogisticRegression())
        grid = {"modalityfuser__text": [clone(encoder.encoder), encoder], "logisticregression__C": [0.1, 1]}
        search = GridSearchCV(pipeline, grid, cv=3).fit(frame, y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_permuted_labels_stay_at_chance(self, tuned):
        X, _ = make_items("text", 60)
        y = np.random.default_rng(0).permutation(np.arange(60) % 2)
        pipeline = make_pipeline(tuned(max_epochs=5, learning_rate=3e-3), LogisticRegression())
        assert cross_val_score(pipeline, X, y, cv=3).mean() < 0.7

    def test_clone_and_parameters(self, tuned):
        encoder = tuned()
        twin = clone(encoder.fit(*make_items("text", 12)))
        assert not hasattr(twin, "encoder_")
        assert twin.get_params()["encoder__on_error"] == "raise"
        twin.set_params(encoder__normalize=True, n_layers="all")
        assert twin.encoder.normalize
        with pytest.raises(ValueError, match="'n_layers' parameter"):
            tuned(n_layers=0).fit(*make_items("text", 12))

    def test_only_encoders_with_a_network(self):
        class Counter(ItemEncoder):
            def __init__(self, on_error="raise", verbose=False):
                self.on_error, self.verbose = on_error, verbose

        with pytest.raises(ValueError, match="'encoder' parameter of TunedEncoder"):
            TunedEncoder(Counter()).fit(["a"] * 12, [0, 1] * 6)

    def test_target_is_required(self, tuned):
        assert tuned().__sklearn_tags__().target_tags.required
        assert tuned().__sklearn_tags__().input_tags == tuned().encoder.__sklearn_tags__().input_tags

    def test_groups_are_requested(self, tuned):
        import sklearn

        with sklearn.config_context(enable_metadata_routing=True):
            assert tuned().get_metadata_routing()._serialize()["fit"]["groups"]


def test_exported():
    assert skmm.encoders.TunedEncoder is TunedEncoder
