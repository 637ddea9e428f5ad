"""Sizes and layers of ImageBranch, and networks that it takes over."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from torch import nn

from skmm import ImageEncoder, MultimodalNetClassifier
from skmm.neural_network import ImageBranch

IMAGES = np.random.default_rng(0).integers(256, size=(3, 20, 24, 3), dtype=np.uint8)


def module_of(branch, images=IMAGES):
    fitted = branch.fit(images)
    return fitted.make_module().eval(), torch.from_numpy(fitted.prepare(images)[0])


def test_images_are_resized_by_pillow(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(IMAGES[0]).save(path)
    (images,) = ImageBranch(size=8).fit([path]).prepare([path, IMAGES[0], Image.fromarray(IMAGES[0])])
    expected = np.asarray(Image.fromarray(IMAGES[0]).resize((8, 8), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert images.dtype == np.uint8
    for image in images:
        np.testing.assert_array_equal(image, expected)
    assert ImageBranch().fit(IMAGES).prepare(IMAGES)[0].shape == (3, 3, 64, 64)


@pytest.mark.parametrize(("size", "channels"), [(1, (4,)), (7, (3, 5, 7)), (64, (32, 64, 128))])
def test_any_size_and_channels(size, channels):
    module, images = module_of(ImageBranch(size=size, channels=channels, n_hidden=9))
    assert module(images).shape == (3, 9)


def test_a_named_model_starts_as_the_encoder_and_can_be_trained(tiny_image_model):
    module, images = module_of(ImageBranch(tiny_image_model))
    expected = ImageEncoder(tiny_image_model, precision="float32", device="cpu").fit_transform(IMAGES)
    np.testing.assert_allclose(module(images).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert all(weights.requires_grad for weights in module.parameters())
    with torch.no_grad():
        for weights in module.parameters():
            weights.zero_()
    # Trained or spoilt, it is a copy: the process's own stays as it was.
    fresh = ImageEncoder(tiny_image_model, precision="float32", device="cpu").fit_transform(IMAGES)
    np.testing.assert_array_equal(fresh, expected)


def test_a_named_model_at_another_size(tiny_image_model):
    module, images = module_of(ImageBranch(tiny_image_model, size=48))
    assert images.shape == (3, 3, 48, 48)
    assert module(images).shape == (3, module.out_features)


def test_pretrained_statistics_stay_and_those_of_a_users_module_are_learned(tiny_image_model):
    def statistics(module):
        return [x.clone() for name, x in module.named_buffers() if "running" in name]

    def moves(module, images):
        before = statistics(module)
        module.train()(images)
        after = statistics(module)
        assert before
        return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))

    assert not moves(*module_of(ImageBranch(tiny_image_model)))
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert moves(*module_of(ImageBranch(own, size=8)))


def test_a_module_in_memory_sees_images_normalised_like_imagenet():
    module, images = module_of(ImageBranch(nn.Flatten(), size=2), np.full((1, 2, 2, 3), 255, dtype=np.uint8))
    expected = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(module(images).numpy().reshape(3, 4), np.repeat(expected[:, None], 4, 1), rtol=1e-6)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"channels": ()}, ValueError, r"channels must be positive integers, got \(\)"),
        ({"channels": (8, 0)}, ValueError, r"channels must be positive integers, got \(8, 0\)"),
        ({"background": "no color"}, ValueError, "background must be a color"),
        ({"model": "/no/such/folder"}, OSError, "the model folder '/no/such/folder' does not exist"),
        ({"size": 0}, ValueError, "The 'size' parameter of ImageBranch"),
    ],
)
def test_errors(params, error, message):
    with pytest.raises(error, match=message):
        ImageBranch(**params).fit(IMAGES)


def test_models_that_are_not_timms_are_refused(tiny_clip_model):
    with pytest.raises(ValueError, match="is no model of timm"):
        ImageBranch(tiny_clip_model).fit(IMAGES)


def test_modules_that_give_no_vectors():
    with pytest.raises(ValueError, match=r"must map \(2, 3, 8, 8\) to a tensor \(n, n_outputs\)"):
        ImageBranch(nn.Conv2d(3, 4, 3), size=8).fit(IMAGES).make_module()


def test_weights_that_a_module_holds_fast_stay_so():
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    own[0].requires_grad_(False)
    module, _ = module_of(ImageBranch(own, size=8))
    assert [weights.requires_grad for weights in module.parameters()] == [False, False, True, True]


def test_fine_tuning_starts_late_and_slowly(tiny_image_model):
    y = np.arange(3) % 2

    def fit(max_epochs):
        branch = ImageBranch(tiny_image_model, learning_rate=1e-4, n_frozen_epochs=1)
        net = MultimodalNetClassifier(
            [("image", branch, "image")], width=8, max_epochs=max_epochs, schedule="constant", weight_decay=0.0
        )
        X = pd.DataFrame({"image": list(IMAGES)})
        return net.set_params(random_state=0, device="cpu", precision="float32").fit(X, y), X

    pretrained = list(ImageBranch(tiny_image_model).fit(IMAGES).make_module().parameters())
    (frozen, _), (tuned, X) = fit(1), fit(2)
    moved = [
        max((a - b).abs().max().item() for a, b in zip(pretrained, net.network_.branches[0].parameters(), strict=True))
        for net in (frozen, tuned)
    ]
    # The first step of Adam is as long as the rate.
    assert moved == [0, pytest.approx(1e-4, rel=0.05)]
    data = pickle.dumps(tuned)
    assert_array_equal(pickle.loads(data).predict_proba(X), tuned.predict_proba(X))


@pytest.mark.parametrize("model", ["/no/such/folder", "timm/no_such_model", "no_such_model"])
def test_errors_of_loading_name_the_branch(model):
    with pytest.raises(OSError, match=r"^ImageBranch: the model ") as caught:
        ImageBranch(model).fit(IMAGES)
    assert "ImageEncoder" not in str(caught.value)
