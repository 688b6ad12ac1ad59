"""Presets have the documents' layers and fit every image size; blocks and modes."""

import itertools

import pytest
import torch
from torch import nn

from lalib.models.autoencoders import REPRESENTATIONS
from lalib.models.networks import (
    CNNS,
    PRESETS,
    Batch,
    Trainable,
    eval_mode,
    frame,
    in_blocks,
    mlp,
    to_input,
)

SHAPES = [(1, 8, 8), (1, 9, 13), (1, 28, 28), (3, 33, 20), (1, 65, 127), (3, 8, 200)]


def _layers(module):
    """("conv", inputs, outputs, kernel, stride) and so on, in order, without activations and reshaping."""
    kinds = {nn.Conv2d: "conv", nn.ConvTranspose2d: "up", nn.Linear: "dense", nn.MaxPool2d: "pool"}
    found = []
    for layer in module:
        if isinstance(layer, nn.Linear):
            found.append(("dense", layer.in_features, layer.out_features))
        elif isinstance(layer, nn.MaxPool2d):
            found.append(("pool", layer.kernel_size))
        elif type(layer) in kinds:
            kernel, stride = layer.kernel_size, layer.stride[0]
            found.append((kinds[type(layer)], layer.in_channels, layer.out_channels, kernel, stride))
    return found


def _conv(inputs, outputs, stride=1):
    return ("conv", inputs, outputs, (3, 3), stride)


def _up(inputs, outputs):
    return ("up", inputs, outputs, (2, 2), 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_preset_takes_and_returns_every_image_size(preset, shape):
    trunk, features, decoder = PRESETS[preset](shape, 5)
    assert trunk(torch.rand(2, *shape)).shape == (2, features)
    assert decoder(torch.rand(2, 5)).shape == (2, *shape)


def _size(preset, shape):
    with torch.device("meta"):
        trunk, _, decoder = PRESETS[preset](shape, 2)
    return sum(weight.numel() for part in (trunk, decoder) for weight in part.parameters())


@pytest.mark.parametrize("preset", PRESETS)
def test_the_number_of_weights_does_not_grow_with_the_image(preset):
    for channels in (1, 3):
        for side in (64, 128, 224):
            assert _size(preset, (channels, side, side)) < 4.1 * _size(preset, (channels, 32, 32))
    assert _size(preset, (3, 64, 64)) == pytest.approx(_size(preset, (3, 512, 512)), rel=0.05)


@pytest.mark.parametrize("preset", PRESETS)
def test_larger_images_come_down_to_what_the_preset_takes_and_go_up_again(preset):
    trunk, features, decoder = PRESETS[preset]((3, 100, 70), 5)
    width = 4 if preset == "dense" else 16
    inner, same, back = PRESETS[preset]((width, 25, 18), 5)
    assert features == same
    assert _layers(trunk) == [("conv", 3, width, (4, 4), 4), *_layers(inner)]
    assert _layers(decoder) == [*_layers(back), ("up", width, 3, (4, 4), 4)]


@pytest.mark.parametrize("shape", [(1, 9, 13), (1, 34, 41)], ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_weight_matters_and_every_pixel_is_seen(preset, shape):
    trunk, _, decoder = PRESETS[preset](shape, 3)
    x = torch.rand(4, *shape, requires_grad=True)
    (trunk(x).square().sum() + decoder(torch.rand(4, 3)).square().sum()).backward()
    assert (x.grad.abs().sum(0) > 0).all()
    assert all(p.grad.abs().sum() > 0 for part in (trunk, decoder) for p in part.parameters())


def test_report_has_the_documents_layers():
    trunk, features, decoder = PRESETS["report"]((1, 28, 28), 10)
    shapes, x = [], torch.rand(1, 1, 28, 28)
    for layer in trunk:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            shapes.append(tuple(x.shape[1:]))
    assert shapes[-1] == (64, 7, 7)
    assert features == 1024
    pool = ("pool", 2)
    encoder = [_conv(1, 32), pool, _conv(32, 64), pool, _conv(64, 64), ("dense", 7 * 7 * 64, 1024)]
    assert _layers(trunk) == encoder
    mirrored = [("dense", 10, 1024), ("dense", 1024, 7 * 7 * 64), _conv(64, 64), _up(64, 64), _conv(64, 32)]
    assert _layers(decoder) == [*mirrored, _up(32, 32), _conv(32, 1)]


def test_slides_has_the_documents_layers():
    trunk, features, decoder = PRESETS["slides"]((1, 28, 28), 2)
    assert features == 1024
    stages, inputs = [], 1
    for kernels in (64, 32, 32):
        stages += [_conv(inputs, kernels), _conv(kernels, kernels), _conv(kernels, kernels), ("pool", 2)]
        inputs = kernels
    assert _layers(trunk) == [*stages, ("dense", 4 * 4 * 32, 1024), ("dense", 1024, 1024)]
    stages, inputs = [("dense", 2, 1024), ("dense", 1024, 1024)], 64
    for kernels in (64, 32, 32):
        stages += [_conv(inputs, kernels), _conv(kernels, kernels), _conv(kernels, kernels), _up(kernels, kernels)]
        inputs = kernels
    assert _layers(decoder) == [*stages, _conv(32, 1)]


def test_task_agnostic_has_the_documents_layers():
    trunk, _, decoder = PRESETS["task-agnostic"]((3, 28, 28), 7)
    assert _layers(trunk) == [_conv(3, 32, 2), _conv(32, 64, 2), _conv(64, 128, 2), _conv(128, 256, 2)]
    up, *preserving = _layers(decoder)
    assert up == ("up", 7, 32, (28, 28), 1)
    assert preserving == [_conv(32, 32), _conv(32, 32), _conv(32, 32), _conv(32, 3)]


@pytest.mark.parametrize("preset", PRESETS)
def test_hidden_layers_have_an_activation_and_outputs_have_none(preset):
    """The decoder ends in logits: they take both signs."""
    trunk, _, decoder = PRESETS[preset]((1, 28, 28), 4)
    weighted = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    for part, ends_bare in ((trunk, False), (decoder, True)):
        kept = [isinstance(layer, weighted) for layer in part if isinstance(layer, (*weighted, nn.ReLU))]
        assert not any(a and b for a, b in itertools.pairwise(kept))
        assert kept[-1] is ends_bare


@pytest.mark.parametrize(("height", "width", "multiple"), [(8, 8, 8), (9, 13, 8), (28, 28, 8), (33, 20, 4)])
def test_crop_undoes_pad(height, width, multiple):
    pad, crop, *quotients = frame((3, height, width), multiple)
    x = torch.rand(2, 3, height, width)
    padded = pad(x)
    assert padded.shape[2:] == tuple(multiple * quotient for quotient in quotients)
    assert all(size - multiple < old for size, old in zip(padded.shape[2:], (height, width), strict=True))
    assert torch.equal(crop(padded), x)
    assert torch.isclose(padded.sum(), x.sum())


def test_clipped_linear_by_hand():
    x = torch.tensor([-1.0, 0.25, 1.0, 3.0], requires_grad=True)
    y = REPRESENTATIONS["clu"]()(x)
    y.sum().backward()
    assert y.tolist() == [0, 0.25, 1, 1]
    assert (x.grad[0], x.grad[1], x.grad[3]) == (0, 1, 0)


def test_to_input_scales_bytes_and_leaves_codes():
    x = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    assert torch.allclose(to_input(x, torch.device("cpu")), torch.tensor([[[[0, 1, 0.2]]]]))
    codes = torch.rand(3, 2)
    assert to_input(codes, torch.device("cpu")) is codes


class _Dropped(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(x) * self.weight


@pytest.mark.parametrize("training", [True, False])
def test_blocks_equal_the_whole_run_in_eval_mode_and_put_the_mode_back(training):
    model, x = _Dropped().train(training), torch.rand(10, 3)
    for batch_size in (1, 3, 10, 100):
        assert torch.equal(in_blocks(model, model, x, batch_size), x)
    assert model.training == model.drop.training == training
    with pytest.raises(ZeroDivisionError):
        in_blocks(model, lambda part: 1 / 0, x)
    assert model.training == training


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 8, 8), 1024), ((3, 32, 32), 1024), ((1, 64, 64), 1024), ((3, 64, 64), 341), ((3, 224, 224), 27)],
)
def test_blocks_of_large_images_hold_fewer_whether_these_go_in_or_come_out(shape, size, made):
    model, sizes = _Dropped(), []
    model.image_shape = shape if made else None
    x = torch.zeros(size + 1, 2 if made else 1).view(size + 1, *(() if made else (1, 1)), -1)
    x = x if made else x.expand(size + 1, *shape)

    def function(part):
        sizes.append(len(part))
        return part.flatten(1)[:, :1]

    assert in_blocks(model, function, x).shape == (size + 1, 1)
    assert sizes == [size, 1]
    sizes.clear()
    in_blocks(model, function, x, batch_size=20)
    assert max(sizes) == 20


def test_what_blocks_return_can_be_changed_and_trained_on():
    model = _Dropped()
    codes = in_blocks(model, model, torch.rand(4, 2))
    assert not codes.requires_grad
    codes -= codes.mean(0)
    (model.weight * codes).sum().backward()
    assert model.weight.grad is not None


def test_eval_mode_puts_the_mode_back_after_an_error():
    model = _Dropped()
    with pytest.raises(KeyError), eval_mode(model):
        raise KeyError(model.drop.training)
    assert model.drop.training
    with eval_mode(model):
        assert not model.drop.training


def test_default_batches_visit_each_input_once():
    order = torch.Generator().manual_seed(0)
    parts = list(Trainable().batches(10, 4, generator=order))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(torch.cat(parts).tolist()) == list(range(10))
    assert torch.cat(parts).tolist() != list(range(10))


def test_a_model_without_a_loss_says_so():
    with pytest.raises(TypeError, match="Trainable defines no loss"):
        Trainable().loss(Batch(torch.rand(1, 1)), generator=torch.Generator())


def test_classifier_networks():
    assert mlp(3, 4, (8, 8), 0.1)(torch.rand(2, 3)).shape == (2, 4)
    assert mlp(3, 4, ())(torch.rand(2, 3)).shape == (2, 4)
    for shape in SHAPES:
        for build in CNNS.values():
            assert build(shape, 7)(torch.rand(2, *shape)).shape == (2, 7)
