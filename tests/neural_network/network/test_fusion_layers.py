"""Fusion layers: gradients, masks, identities between them."""

import numpy as np
import pytest
import torch

from skmm.neural_network.network import FUSIONS, Network
from skmm.neural_network.network._fusion_layers import LowRankLayer, TensorLayer, masked_softmax
from skmm.neural_network.network._fusions import make_fusion

WIDTH = 8
NAMES = sorted(FUSIONS)
WEIGHING = ("attention", "gated", "mixture", "weighted")


def layer(name, n_modalities=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = make_fusion(name, [WIDTH] * n_modalities, {"rank": 4, "n_heads": 2})
        for parameter in made.parameters():
            # Nothing at zero or at one, where a missing term would not show.
            parameter.data += 0.3 * torch.randn_like(parameter)
    return made.double()


def built(layer, widths):
    layer.build(widths)
    return layer.double()


def hiddens(n_modalities=3, n=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for _ in range(n_modalities)]


def hiddens_of(width, n_modalities):
    return [torch.ones(6, width)] * n_modalities


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient_and_changes(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"n_layers": 1, "n_joint_layers": 1, "width": WIDTH, "activation": "gelu", "dropout": 0.0}
        network = Network([(None, 4)] * 3, 2, fusion=name, rank=4, n_heads=2, **settings).double()
        inputs = [(torch.randn(16, 4, dtype=torch.float64),) for _ in range(3)]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = {key: value.clone() for key, value in network.named_parameters()}
    mask = torch.ones(16, 3, dtype=torch.bool)
    mask[:4, 0] = False
    mask[4:8, 2] = False
    ((network(inputs, mask) - 1) ** 2).mean().backward()
    optimizer.step()
    for key, value in network.named_parameters():
        assert value.grad is not None, key
        assert value.grad.abs().max() > 1e-9, key
        assert not torch.equal(value, before[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_all_parameters_are_registered(name):
    made = layer(name)
    n_tensors = sum(isinstance(value, torch.Tensor) for module in made.modules() for value in vars(module).values())
    assert n_tensors == 0
    for module in made.modules():
        for value in vars(module).values():
            assert not (isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value))


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_in_place_of_a_missing_modality_does_not_matter(name):
    made, h = layer(name), hiddens()
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[:3, 1] = False
    gone = h[1] * mask[:, 1, None]
    joint, weights = made([h[0], gone, h[2]], mask)
    whole, whole_weights = made(h, torch.ones_like(mask))
    plain, plain_weights = made(h, None)
    np.testing.assert_allclose(joint[3:].detach(), whole[3:].detach(), rtol=1e-12)
    np.testing.assert_allclose(whole.detach(), plain.detach(), rtol=1e-12)
    assert not torch.allclose(joint[:3], whole[:3])
    if name in WEIGHING:
        np.testing.assert_allclose(whole_weights.detach(), plain_weights.detach(), rtol=1e-12)
        assert (weights[:3, 1] == 0).all()


def without(made, name, gone):
    """Give the layer for two of three modalities that has the other weights of a layer for three."""
    kept = [m for m in range(3) if m != gone]
    units = torch.cat([torch.arange(WIDTH) + m * WIDTH for m in kept])
    small = layer(name, 2)
    if name == "weighted":
        small.scores.data = made.scores.data[kept]
    if name == "gated":
        small.gates.weight.data = made.gates.weight.data[units][:, units]
        small.gates.bias.data = made.gates.bias.data[units]
        for offer, m in zip(small.offers, kept, strict=True):
            offer.load_state_dict(made.offers[m].state_dict())
    if name == "attention":
        small.load_state_dict({**made.state_dict(), "kinds": made.kinds.data[kept]})
    if name == "film":
        # What follows the first present modality is modulated by the layers of its own place.
        small.scales_shifts[0].load_state_dict(made.scales_shifts[kept[1] - 1].state_dict())
    if name == "mixture":
        small.gate.weight.data = made.gate.weight.data[kept][:, units]
        small.gate.bias.data = made.gate.bias.data[kept]
    if name == "low_rank":
        # Of the modality that is gone its 1 remains.
        constant = made.factors[gone].data[:, :1]
        small.factors[0].data = made.factors[kept[0]].data * constant
        small.factors[1].data = made.factors[kept[1]].data
        small.bias.data = made.bias.data
    return small


@pytest.mark.parametrize("gone", range(3))
@pytest.mark.parametrize("name", sorted({*NAMES} - {"tensor"}))
def test_masking_equals_removing(name, gone):
    made, h = layer(name), hiddens()
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[:, gone] = False
    joint, weights = made([x * (m != gone) for m, x in enumerate(h)], mask)
    small, small_weights = without(made, name, gone)([x for m, x in enumerate(h) if m != gone], None)
    if name in ("concat", "mixture"):
        zeros = joint[:, gone * WIDTH : (gone + 1) * WIDTH]
        assert (zeros == 0).all()
        joint = torch.cat([joint[:, : gone * WIDTH], joint[:, (gone + 1) * WIDTH :]], dim=1)
    if name == "mixture":
        joint = joint[:, [i for i in range(joint.shape[1]) if i != 2 * WIDTH + gone]]
    np.testing.assert_allclose(joint.detach(), small.detach(), rtol=1e-10, atol=1e-12)
    if name in WEIGHING:
        kept = [m for m in range(3) if m != gone]
        np.testing.assert_allclose(weights[:, kept].detach(), small_weights.detach(), rtol=1e-10)


@pytest.mark.parametrize("gone", range(3))
def test_masking_equals_removing_in_the_tensor(gone):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made, small = (built(TensorLayer(None), [3] * n) for n in (3, 2))
    h = [x[:, :3] for x in hiddens()]
    small.joint.weight.data = made.joint.weight.data.view(3, 4, 4, 4).select(1 + gone, 0).reshape(3, 16)
    small.joint.bias.data = made.joint.bias.data
    joint, _ = made([x * (m != gone) for m, x in enumerate(h)], None)
    np.testing.assert_allclose(
        joint.detach(), small([x for m, x in enumerate(h) if m != gone], None)[0].detach(), rtol=1e-10
    )


def test_a_tensor_that_is_mapped_first_masks_after_the_map():
    made = built(TensorLayer(64), [WIDTH] * 3)
    assert made.joint.in_features == 64
    h = hiddens()
    mask = torch.ones(6, 3, dtype=torch.bool)
    mask[:, 2] = False
    joint, _ = made([h[0], h[1], torch.zeros_like(h[2])], mask)
    plain = built(TensorLayer(None), [3] * 3)
    plain.joint = made.joint
    mapped = [made.maps[0](h[0]), made.maps[1](h[1]), torch.zeros(6, 3, dtype=torch.float64)]
    np.testing.assert_allclose(joint.detach(), plain(mapped, None)[0].detach(), rtol=1e-12)


@pytest.mark.parametrize("n_modalities", [1, 2, 3, 5, 10])
def test_a_tensor_has_1024_entries_at_most(n_modalities):
    made = make_fusion("tensor", [200] * n_modalities, {})
    assert made.joint.in_features <= 1024
    assert made(hiddens_of(200, n_modalities), None)[0].shape == (6, 200)


def test_single_modalities_and_products_start_out_alike():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = built(LowRankLayer(rank=8), [200, 200])
        a, b = torch.randn(2, 500, 200, dtype=torch.float64)
    zeros = torch.zeros_like(a)
    with torch.no_grad():
        both, first, second, none = (made([x, y], None)[0] for x, y in ((a, b), (a, zeros), (zeros, b), (zeros, zeros)))
    spreads = [part.std(dim=0).mean() for part in (first - none, second - none, both - first - second + none)]
    assert max(spreads) < 2 * min(spreads)


def test_low_rank_is_a_tensor_of_low_rank():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        low, full = (built(layer, [3, 4, 2]) for layer in (LowRankLayer(rank=7), TensorLayer(None)))
    h = [x[:, :width] for x, width in zip(hiddens(), (3, 4, 2), strict=True)]
    full.joint.weight.data = torch.einsum("rio,rjo,rko->oijk", *(f.data for f in low.factors)).reshape(3, -1)
    full.joint.bias.data = low.bias.data
    np.testing.assert_allclose(low(h, None)[0].detach(), full(h, None)[0].detach(), rtol=1e-10)


def test_low_rank_of_sufficient_rank_equals_any_tensor():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        low, full = (built(layer, [3, 4]) for layer in (LowRankLayer(rank=4), TensorLayer(None)))
    h = [x[:, :width] for x, width in zip(hiddens(2), (3, 4), strict=True)]
    # For each output the tensor is a 4 x 5 matrix, so rank 4 is enough.
    left, values, right = torch.linalg.svd(full.joint.weight.data.view(3, 4, 5), full_matrices=False)
    low.factors[0].data = (left * values[:, None]).permute(2, 1, 0)
    low.factors[1].data = right.permute(1, 2, 0)
    low.bias.data = full.joint.bias.data
    np.testing.assert_allclose(low(h, None)[0].detach(), full(h, None)[0].detach(), rtol=1e-9)


def test_two_gates_are_the_sigmoid_of_the_paper():
    made, h = layer("gated", 2), hiddens(2)
    weight, bias = made.gates.weight.data.view(2, WIDTH, -1), made.gates.bias.data.view(2, WIDTH)
    z = torch.sigmoid(torch.cat(h, dim=1) @ (weight[0] - weight[1]).T + bias[0] - bias[1])
    expected = z * torch.tanh(made.offers[0](h[0])) + (1 - z) * torch.tanh(made.offers[1](h[1]))
    joint, gates = made(h, None)
    np.testing.assert_allclose(joint.detach(), expected.detach(), rtol=1e-10)
    np.testing.assert_allclose(gates.detach(), torch.stack([z.mean(1), 1 - z.mean(1)], dim=1).detach(), rtol=1e-10)


def test_attention_is_that_of_torch():
    made, h = layer("attention"), hiddens()
    tokens = torch.stack(h, dim=1) + made.kinds
    reference = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True).double()
    reference.in_proj_weight.data = torch.cat([made.query.weight, made.key.weight, made.value.weight]).data
    reference.in_proj_bias.data = torch.cat([made.query.bias, torch.zeros(WIDTH), made.value.bias]).data
    reference.out_proj.load_state_dict(made.mix.state_dict())
    normed = made.norm_attention(tokens)
    mask = torch.tensor([[True, True, False]] * 3 + [[True, True, True]] * 3)
    mixed, attention = reference(normed, normed, normed, key_padding_mask=~mask)
    tokens = tokens + mixed
    tokens = tokens + made.units(made.norm_units(tokens))
    share = mask.double() / mask.sum(dim=1, keepdim=True)
    joint, weights = made(h, mask)
    np.testing.assert_allclose(joint.detach(), (share[:, :, None] * tokens).sum(dim=1).detach(), rtol=1e-9)
    np.testing.assert_allclose(weights.detach(), (share[:, :, None] * attention).sum(dim=1).detach(), rtol=1e-9)


def test_film_modulates_in_series():
    made, h = layer("film"), hiddens()
    state = h[0]
    for linear, x in zip(made.scales_shifts, h[1:], strict=True):
        out = linear(state)
        state = (1 + out[:, :WIDTH]) * x + out[:, WIDTH:]
    np.testing.assert_allclose(made(h, None)[0].detach(), state.detach(), rtol=1e-12)


def test_a_mixture_is_the_sum_of_gate_times_head():
    made, h = layer("mixture"), hiddens()
    head = torch.nn.Linear(made.out_features, 2, bias=False).double()
    joint, gates = made(h, None)
    weight, biases = head.weight[:, : 3 * WIDTH].view(2, 3, WIDTH), head.weight[:, 3 * WIDTH :]
    expected = sum(gates[:, m, None] * (h[m] @ weight[:, m].T + biases[:, m]) for m in range(3))
    np.testing.assert_allclose(head(joint).detach(), expected.detach(), rtol=1e-10)


@pytest.mark.parametrize("name", WEIGHING)
def test_weights_lie_between_0_and_1_and_sum_to_1_over_present_modalities(name):
    made, h = layer(name), hiddens(n=8)
    mask = torch.tensor([[bool(i & 1), bool(i & 2), bool(i & 4)] for i in range(8)])
    _, weights = made([x * mask[:, m, None] for m, x in enumerate(h)], mask)
    weights = weights.detach().numpy()
    assert (weights >= 0).all()
    assert (weights <= 1 + 1e-12).all()
    np.testing.assert_allclose(weights.sum(axis=1), [0, 1, 1, 1, 1, 1, 1, 1], atol=1e-12)
    assert (weights[~mask.numpy()] == 0).all()


def test_masked_softmax():
    scores, mask = torch.tensor([[1.0, 2.0], [1e30, -1e30]]), torch.tensor([[True, True], [False, True]])
    torch.testing.assert_close(masked_softmax(scores, mask, 1), torch.tensor([[0.26894143, 0.7310586], [0.0, 1.0]]))


class Module(torch.nn.Module):
    def __init__(self, result="sum"):
        super().__init__()
        self.linear = torch.nn.Linear(WIDTH, 3)
        self.result = result

    def forward(self, hiddens, mask):
        assert mask.dtype == torch.bool
        if self.result == "flat":
            return hiddens[0][:, 0]
        return sum(self.linear(h) * mask[:, i, None] for i, h in enumerate(hiddens))


def test_a_module_of_the_user():
    module = Module()
    made = make_fusion(module, [WIDTH] * 2, {})
    assert made.out_features == 3
    h = [torch.ones(2, WIDTH)] * 2
    torch.testing.assert_close(made(h, None)[0], 2 * module.linear(h[0]))
    assert made.module is not module
    assert made.training


def test_a_module_that_returns_something_else():
    with pytest.raises(ValueError, match=r"fusion=Module: .* tensor of shape \(2, n\), got shape \(2,\)"):
        make_fusion(Module("flat"), [WIDTH] * 2, {})
