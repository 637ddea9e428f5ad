"""ContrastiveFusion: objectives by their formulas, bounds that hold, pairs that are found, and chance without any."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.metrics import average_precision_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import normalize

from skmm import CCAFusion, ContrastiveFusion, ModalityFuser
from skmm.fusion.joint._contrastive import Rows, Trainer, average_precision, choose_epoch, infonce, siglip, supcon

BLOCKS = {"a": slice(0, 6), "b": slice(6, 11)}
THREE = {**BLOCKS, "c": slice(11, None)}
QUICK = {"hidden_features": 16, "batch_size": 64, "max_epochs": 10, "random_state": 0}


def linked(n=400, widths=(6, 5), noise=0.3, seed=0):
    """Normal variables of which all blocks see a mixture, with noise."""
    rng = np.random.default_rng(seed)
    mixtures = [np.random.default_rng(i).normal(size=(4, p)) for i, p in enumerate(widths)]
    latent = rng.normal(size=(n, 4))
    return np.hstack([latent @ M + noise * rng.normal(size=(n, M.shape[1])) for M in mixtures])


def ring(n=600, seed=0):
    """The same angle as a point, and as a wave of its double; no linear relation."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, n)
    X = np.column_stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)])
    return X, {"point": slice(0, 2), "wave": slice(2, 4)}


def reciprocal_rank(fusion, X, a="a", b="b"):
    """Mean reciprocal rank of the other half of each pair, both ways."""
    za, zb = (normalize(fusion.transform_modality(X[:, fusion.blocks_[name]], name)) for name in (a, b))
    similarity = za @ zb.T
    return np.mean([_reciprocal_ranks(S).mean() for S in (similarity, similarity.T)])


def _reciprocal_ranks(S):
    # Ties count as misses.
    return 1 / (np.diag(S)[:, None] <= S).sum(axis=1)


def logs(S):
    return S - np.log(np.exp(S).sum(axis=1, keepdims=True))


def test_objectives_are_their_formulas():
    rng = np.random.default_rng(0)
    S = rng.normal(size=(7, 7))
    pairs = np.eye(7, dtype=bool)
    tensors = torch.tensor(S), torch.tensor(pairs)
    by_hand = -(np.diag(logs(S)).mean() + np.diag(logs(S.T)).mean()) / 2
    assert_allclose(float(infonce(*tensors)), by_hand)
    spread = -(logs(S).mean() + logs(S.T).mean()) / 2
    assert_allclose(float(infonce(*tensors, smoothing=0.25)), 0.75 * by_hand + 0.25 * spread)
    signs = np.where(pairs, 1, -1)
    assert_allclose(float(siglip(*tensors)), np.log1p(np.exp(-signs * S)).sum() / 7)
    # Two captions of a picture share its probability.
    groups = np.array([0, 0, 1, 2, 3, 4, 5])
    same = groups[:, None] == groups
    by_hand = -((logs(S) * same).sum(axis=1) / same.sum(axis=1) + (logs(S.T) * same).sum(axis=1) / same.sum(axis=1))
    assert_allclose(float(infonce(torch.tensor(S), torch.tensor(same))), by_hand.mean() / 2)


def test_supervised_objective_is_that_of_khosla():
    rng = np.random.default_rng(0)
    S, classes = rng.normal(size=(8, 8)), np.array([0, 0, 0, 1, 1, 2, 2, 3])
    costs = []
    for i in range(7):  # the last one is alone in its class
        others = [j for j in range(8) if j != i]
        friends = [j for j in others if classes[j] == classes[i]]
        costs.append(-np.mean([S[i, j] - np.log(np.exp(S[i, others]).sum()) for j in friends]))
    cost = supcon(torch.tensor(S), torch.tensor(classes[:, None] == classes))
    assert_allclose(float(cost), np.mean(costs))
    assert supcon(torch.tensor(S), torch.eye(8, dtype=torch.bool)) is None


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    S, classes = rng.normal(size=(20, 20)), rng.integers(4, size=20)
    same = classes[:, None] == classes
    expected = [average_precision_score(same[i], S[i]) for i in range(20)]
    assert_allclose(average_precision(torch.tensor(S), torch.tensor(same)), expected)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("objective", ["infonce", "siglip", "supcon"])
def test_gradients_reach_every_weight(head, objective):
    X, y = linked(widths=(6, 5, 4)), np.arange(400) % 3
    X[::3, THREE["c"]] = np.nan
    fusion = ContrastiveFusion(4, head=head, objective=objective, early_stopping=False, blocks=THREE, **QUICK).fit(X, y)
    trainer = Trainer(fusion._weights, fusion, np.float64, 0)
    rows = fusion._make_rows(fusion._scale(X), y, None)
    trainer.dropout = None
    trainer.loss(rows.to("cpu")).backward()
    for name, tensors in trainer.parameters.items():
        # Only the objective with a bias uses it.
        for tensor in tensors[:1] if name == "__similarity__" and objective != "siglip" else tensors:
            assert tensor.grad.abs().sum() > 0, name


@pytest.mark.parametrize("objective", ["infonce", "siglip"])
def test_linear_heads_do_not_lose_to_cca_where_it_is_right(objective):
    X, new = linked(1000, noise=1.0), linked(500, noise=1.0, seed=1)
    cca = CCAFusion(4, weighting="correlation", blocks=BLOCKS).fit(X)
    fusion = ContrastiveFusion(4, head="linear", objective=objective, dropout=0, blocks=BLOCKS, random_state=0).fit(X)
    assert reciprocal_rank(fusion, new) > reciprocal_rank(cca, new) - 0.005


def test_hidden_layers_find_what_no_linear_head_sees():
    X, blocks = ring()
    new, _ = ring(200, seed=1)
    ranks = {}
    for head in ("linear", "mlp"):
        fusion = ContrastiveFusion(
            head=head, hidden_features=128, dropout=0, learning_rate=0.01, batch_size=128, blocks=blocks, random_state=0
        ).fit(X)
        ranks[head] = reciprocal_rank(fusion, new, "point", "wave")
    assert ranks["linear"] < 0.1
    assert ranks["mlp"] > 0.25


def test_mutual_information_is_a_lower_bound():
    # Of normal variables: correlations r give -sum(log(1 - r^2)) / 2.
    rng = np.random.default_rng(0)
    n, r = 2000, np.array([0.9, 0.8, 0.6])
    x = rng.normal(size=(n, 3))
    X = np.hstack([x, r * x + np.sqrt(1 - r**2) * rng.normal(size=(n, 3))])
    truth = -np.log(1 - r**2).sum() / 2
    fusion = ContrastiveFusion(
        hidden_features=64,
        dropout=0,
        learning_rate=0.01,
        max_epochs=20,
        blocks={"a": slice(0, 3), "b": slice(3, 6)},
        random_state=0,
    ).fit(X)
    bound = fusion.mutual_information_
    assert_array_equal(np.isnan(bound), np.eye(2, dtype=bool))
    assert bound[0, 1] == bound[1, 0]
    # Cosines cannot express all of it.
    assert 0.5 * truth < bound[0, 1] < truth + 0.1


def test_mutual_information_stays_below_the_logarithm_of_the_pairs():
    X = linked(300, noise=0.001)
    fusion = ContrastiveFusion(dropout=0, blocks=BLOCKS, **QUICK).fit(X)
    assert 0.6 * np.log(30) < fusion.mutual_information_[0, 1] < np.log(30)


def test_shuffled_pairs_are_found_by_chance_only():
    bounds, ranks = [], []
    for seed in range(5):
        X, new = linked(seed=seed), linked(seed=100 + seed)
        X[:, 6:] = np.random.default_rng(seed).permutation(X[:, 6:])
        fusion = ContrastiveFusion(4, blocks=BLOCKS, **QUICK).fit(X)
        bounds.append(fusion.mutual_information_[0, 1])
        new[:, 6:] = np.random.default_rng(seed).permutation(new[:, 6:])
        ranks.append(reciprocal_rank(fusion, new))
    chance = (1 / np.arange(1, 401)).mean()
    assert np.mean(ranks) < 1.5 * chance
    assert np.abs(bounds).max() < 0.2
    assert np.mean(bounds) < 0.1


def test_three_blocks_some_of_which_are_missing():
    X, new = linked(widths=(6, 5, 4)), linked(200, widths=(6, 5, 4), seed=1)
    rng = np.random.default_rng(0)
    for i, columns in enumerate(THREE.values()):
        X[rng.permutation(400)[: 80 + 40 * i], columns] = np.nan
    fusion = ContrastiveFusion(4, blocks=THREE, **QUICK).fit(X)
    present = np.column_stack([~np.isnan(X[:, columns]).any(axis=1) for columns in THREE.values()])
    counts = present[present.sum(axis=1) > 1].astype(int)
    assert_array_equal(fusion.n_pairs_, counts.T @ counts)
    assert np.isfinite(fusion.mutual_information_[~np.eye(3, dtype=bool)]).all()
    for a, b in (("a", "b"), ("a", "c"), ("b", "c")):
        assert reciprocal_rank(fusion, new, a, b) > 0.1
    predicted = fusion.predict_modality(new[:, THREE["a"]], "a", "c")
    assert np.corrcoef(predicted[:, 0], new[:, 11])[0, 1] > 0.8
    gone = new.copy()
    gone[:, THREE["c"]] = np.nan
    out, full = (np.split(fusion.transform(data), 3, axis=1)[2] for data in (gone, new))
    assert np.corrcoef(out[:, 0], full[:, 0])[0, 1] > 0.8
    assert_array_equal(fusion.transform(np.full((1, 15), np.nan)), 0)
    assert_array_equal(fusion.transform_modality(np.full((1, 6), np.nan), "a"), 0)


def test_batches_hold_rows_that_can_be_compared():
    present = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=bool)
    inputs, groups = [np.arange(5.0)[:, None]] * 3, np.arange(5)
    assert_array_equal(Rows(inputs, present, groups, None).comparable().groups, [0, 4])
    labels = np.array([[0, 0], [0, 0], [1, 0], [0, 1], [1, 1]])
    comparable = Rows(inputs, present, groups, labels).comparable()
    assert_array_equal(comparable.groups, [0, 3, 4])
    assert_array_equal(comparable.inputs[0], [[0], [3], [4]])


def test_variates_have_mean_zero_and_variance_one():
    X = linked()
    fusion = ContrastiveFusion(4, blocks=BLOCKS, **QUICK).fit(X)
    for name, columns in BLOCKS.items():
        variates = fusion.transform_modality(X[:, columns], name)
        assert_allclose(variates.mean(axis=0), 0, atol=1e-10)
        assert_allclose(variates.var(axis=0).mean(), 1)


def test_groups_are_several_captions_of_one_picture():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(100, 4))
    groups = np.repeat(np.arange(100), 4)
    A, B = rng.normal(size=(4, 6)), rng.normal(size=(4, 5))
    # A caption tells of the picture what the others tell, and of itself.
    X = np.hstack([(latent @ A)[groups], latent[groups] @ B + rng.normal(size=(400, 5))])
    rows = Rows([X[:8, :6], X[:8, 6:]], np.ones((8, 2), dtype=bool), groups[:8], None)
    assert_array_equal(rows.to("cpu").same(), np.kron(np.eye(2), np.ones((4, 4))))
    fusion = ContrastiveFusion(4, positives="groups", blocks=BLOCKS, **QUICK)
    held_out = fusion.fit(X, groups=groups)._hold_out(fusion._make_rows(X, None, groups), groups, rng)
    assert held_out.sum() == 40
    assert set(held_out.reshape(100, 4).sum(axis=1)) == {0, 4}
    # One row of each picture, of which there are 10, since rows of one picture are no negatives of each other.
    assert fusion.mutual_information_[0, 1] < np.log(10)
    assert max(fusion.validation_scores_) > 0.4
    with pytest.raises(ValueError, match="positives='groups' needs groups; pass them to fit"):
        fusion.fit(X)


def test_labels_bring_classes_together_and_single_modalities_teach():
    rng = np.random.default_rng(0)

    def sample(n):
        y = rng.integers(4, size=n)
        # Classes differ by little of what the blocks share.
        return linked(n, noise=1.0, seed=n) + 0.7 * np.eye(4)[y] @ np.random.default_rng(9).normal(size=(4, 11)), y

    (X, y), (new, y_new) = sample(600), sample(300)
    X[:280, BLOCKS["b"]] = np.nan
    X[280:560, BLOCKS["a"]] = np.nan

    def precision(fusion):
        a, b = (torch.tensor(normalize(fusion.transform_modality(new[:, c], name))) for name, c in BLOCKS.items())
        return float(average_precision(a @ b.T, torch.tensor(y_new[:, None] == y_new)).mean())

    pairs = ContrastiveFusion(4, blocks=BLOCKS, **QUICK).fit(X)
    supervised = clone(pairs).set_params(objective="supcon", learning_rate=0.01, max_epochs=30).fit(X, y)
    assert precision(supervised) > precision(pairs) + 0.05
    unlabelled = np.where(rng.random(600) < 0.5, -1, y)
    assert precision(clone(supervised).fit(X, unlabelled)) > precision(pairs) + 0.02
    several = np.column_stack([y == 0, y == 1, y > 1]).astype(int)
    assert np.isfinite(clone(supervised).fit(X, several).transform(new)).all()
    with pytest.raises(ValueError, match="ContrastiveFusion: y holds numbers, and classes are needed"):
        clone(supervised).fit(X, y + 0.5 * rng.random(600))
    with pytest.raises(ValueError, match="ContrastiveFusion: target='block' needs at least 2 classes"):
        clone(supervised).fit(X, np.zeros(600))


def test_partial_fit_goes_on_where_it_was():
    X, new = linked(1200, noise=0.5), linked(300, noise=0.5, seed=1)
    fusion = ContrastiveFusion(4, blocks=BLOCKS, **QUICK)
    start = reciprocal_rank(clone(fusion).set_params(learning_rate=1e-12).fit(X), new)
    for _ in range(3):
        for rows in np.split(np.arange(1200), 4):
            fusion.partial_fit(X[rows])
    assert fusion.n_epochs_ == 12
    assert fusion.validation_scores_ is None
    assert reciprocal_rank(fusion, new) > start - 0.02
    # Through a pickle, and again from the beginning.
    twin = ContrastiveFusion(4, blocks=BLOCKS, **QUICK).partial_fit(X[:300])
    first = twin.transform(new)
    resumed = pickle.loads(pickle.dumps(twin)).partial_fit(X[300:600]).transform(new)
    assert_array_equal(twin.partial_fit(X[300:600]).transform(new), resumed)
    assert np.abs(resumed - first).max() > 1e-4
    assert_array_equal(twin.fit(X).partial_fit(X[:300]).transform(new), first)


def test_early_stopping():
    X = linked(noise=1.0)
    fusion = ContrastiveFusion(4, blocks=BLOCKS, **QUICK)
    assert len(clone(fusion).fit(X[:100]).validation_scores_ or []) == 0
    assert clone(fusion).fit(X[:100]).n_epochs_ == 10
    scores = fusion.set_params(patience=2, max_epochs=50).fit(X).validation_scores_
    assert len(scores) == min(np.argmax(scores) + 3, 51)
    assert np.argmax(scores) <= fusion.n_epochs_ < len(scores)
    never = clone(fusion).set_params(early_stopping=False, max_epochs=3).fit(X)
    assert never.validation_scores_ is None
    assert never.n_epochs_ == 3
    assert np.isnan(never.mutual_information_).all()
    with pytest.raises(ValueError, match=r"validation_fraction=0.6 of 400 rows with two blocks in 2 groups leaves too"):
        fusion.set_params(validation_fraction=0.6).fit(X, groups=np.arange(400) % 2)


def test_the_last_epoch_is_chosen_that_is_as_good_as_the_best():
    rng = np.random.default_rng(0)
    start = rng.random(1000)
    same = start + 0.01 * rng.normal(size=1000)
    assert choose_epoch([start - 0.1, start, same - same.mean() + start.mean() - 1e-4, start - 0.05]) == 2
    assert choose_epoch([start, start, same - 0.1]) == 0
    assert choose_epoch([start, start + 0.1, start]) == 1


class Listener:
    max_propagation_depth = None

    def __init__(self):
        self.tasks = []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        self.tasks.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(context.task_name)

    def on_fit_task_end(self, estimator, context):
        pass


def test_callbacks_hear_of_epochs_alone_and_in_a_fuser():
    X, listener = linked(), Listener()
    fusion = ContrastiveFusion(4, early_stopping=False, blocks=BLOCKS, **QUICK).set_callbacks(listener)
    fusion.fit(X)
    assert listener.tasks == ["fit", *["epoch"] * 10, "teardown"]
    fusion.set_callbacks(listener := Listener()).partial_fit(X)
    assert listener.tasks == ["fit", "epoch", "teardown"]
    modalities = [(name, "passthrough", columns) for name, columns in BLOCKS.items()]
    fuser = ModalityFuser(modalities, fusion=fusion.set_callbacks().set_params(blocks=None))
    fuser.set_callbacks(listener := Listener()).fit(X)
    assert listener.tasks.count("epoch") == 10


def test_fits_repeat_and_leave_the_global_generator_alone():
    X = linked()
    fusion = ContrastiveFusion(4, blocks=BLOCKS, **QUICK)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    out = fusion.fit_transform(X)
    assert_array_equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert_array_equal(clone(fusion).fit(X).transform(X), out)
    assert_array_equal(pickle.loads(pickle.dumps(fusion)).transform(X), out)
    assert np.abs(clone(fusion).set_params(random_state=1).fit_transform(X) - out).max() > 1e-3
    single = fusion.fit_transform(X.astype(np.float32))
    assert single.dtype == np.float32


def test_errors():
    X = linked()
    gone, constant = X.copy(), X.copy()
    gone[1:, BLOCKS["b"]] = np.nan
    constant[:, BLOCKS["b"]] = 0.1
    fusion = ContrastiveFusion(4, blocks=BLOCKS, **QUICK)
    with pytest.raises(
        ValueError,
        match=r"ContrastiveFusion learns from rows that have two blocks, and needs at least 2 with block 'a'.* got 1",
    ):
        fusion.fit(gone)
    with pytest.raises(ValueError, match="ContrastiveFusion: block 'b' does not vary"):
        fusion.fit(constant)
    with pytest.raises(ValueError, match=r"the loss became nan; lower learning_rate=1e\+30"):
        clone(fusion).set_params(learning_rate=1e30).fit(X)
    with pytest.raises(ValueError, match="ContrastiveFusion needs at least 2 blocks"):
        ContrastiveFusion().fit(X)


def test_temperature_is_where_training_starts():
    rng = np.random.default_rng(0)
    classes = rng.integers(4, size=400)
    centers = rng.normal(size=(2, 4, 8))
    # The views share the class and nothing else.
    X = np.hstack([center[classes] + 0.7 * rng.normal(size=(400, 8)) for center in centers])
    blocks = {"a": slice(0, 8), "b": slice(8, 16)}
    options = {"max_epochs": 30, "early_stopping": False, "blocks": blocks, "random_state": 0}
    fits = [ContrastiveFusion(4, temperature=temperature, **options).fit(X) for temperature in (0.02, 1.0)]
    assert fits[0].temperature_ < fits[1].temperature_
    within = []
    for fit in fits:
        similarity = cosine_similarity(fit.transform_modality(X[:, :8], "a"), fit.transform_modality(X[:, 8:], "b"))
        same = classes[:, None] == classes
        within.append(similarity[same].mean() - similarity[~same].mean())
    assert within[1] > within[0]
    with pytest.raises(ValueError, match="temperature"):
        ContrastiveFusion(temperature=0.001, blocks=blocks).fit(X)
