"""Network builders: encoder trunks and decoders by preset, and small classifiers.

References
----------
[Report]  Killeen, Progress update: query selection based on latent space sampling. Two pools, dense 1024.
[Slides]  Killeen, Query selection based on latent space sampling (slides). Nine convolutions, three pools.
[Godwin2022] Godwin et al., Incorporating task-agnostic information in task-based active learning using a variational
          autoencoder. Four downsampling convolutions; one upsampling and four size-preserving ones.
[Kingma2014b] Kingma et al., Semi-supervised learning with deep generative models, 2014.
[He2016]  He et al., Deep residual learning for image recognition, 2016. ResNet-18, torchvision's.
[Wu2018]  Wu and He, Group normalization, 2018.
"""

import contextlib
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib.data.checks import LalibError

UNKNOWN = -1  # the label of an image without one


@dataclass(frozen=True)
class Batch:
    """What `fit` hands to a loss: inputs, labels if there are any, and positions in the training set."""

    x: Tensor  # (B, C, H, W) float32 in [0, 1], or codes (B, L)
    y: Tensor | None = (
        None  # (B,) int64, UNKNOWN where a model may see images without a label, or (B, C) for multi-label
    )
    index: Tensor | None = None  # (B,) int64; None outside the training set (validation)


class Trainable(nn.Module):
    """What `fit` needs of a model: a loss and, where the defaults do not serve, a preparation and an order."""

    batch_size = 128
    learning_rate = 1e-3

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars by name; the entry "loss" is minimised, the others are recorded."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        """Called once before training with all inputs as they are stored (uint8 images or codes) and their labels."""

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        """Index tensors that together visit each of n inputs once: slices of a random permutation."""
        yield from torch.randperm(n, generator=generator).split(size)

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """Optimiser groups; a model may give its parts different learning rates or leave parts out."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]


def to_input(x: Tensor, device: torch.device) -> Tensor:
    """Network input on `device`: uint8 images become float32 in [0, 1], codes stay as they are."""
    x = x.to(device, non_blocking=True)
    if x.dtype == torch.uint8:
        x = x.float() / 255
    return x.contiguous(memory_format=torch.channels_last) if x.is_cuda and x.ndim == 4 else x


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside the block; the mode that was found is put back after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()  # inference mode would hand out tensors that can be neither changed in place nor trained on
def in_blocks(model: nn.Module, function: Callable[[Tensor], Tensor], x: Tensor, batch_size: int = 1024) -> Tensor:
    """function applied to x (N, ...) in blocks on the model's device, in eval mode; (N, ...) float32 on the CPU.

    The model's training mode is put back afterwards.
    """
    device = next(model.parameters()).device
    with eval_mode(model):
        return torch.cat([function(to_input(part, device)).float().cpu() for part in x.split(batch_size)])


class ClippedLinear(nn.Module):
    """CLU(x) = min(1, max(0, x)) [Report]: codes in the unit cube, no gradient outside it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


class PadTo(nn.Module):
    """Pad (B, C, H, W) with zeros on both sides so that `multiple` divides H and W."""

    def __init__(self, height: int, width: int, multiple: int):
        super().__init__()
        self.padded = tuple(math.ceil(size / multiple) * multiple for size in (height, width))
        rows, columns = self.padded[0] - height, self.padded[1] - width
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding)


class CropTo(nn.Module):
    """Undo PadTo: cut (B, C, padded H, padded W) back to (B, C, H, W)."""

    def __init__(self, pad: PadTo, height: int, width: int):
        super().__init__()
        left, _, top, _ = pad.padding
        self.rows, self.columns = slice(top, top + height), slice(left, left + width)

    def forward(self, x: Tensor) -> Tensor:
        return x[..., self.rows, self.columns]


def _conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.ReLU()]


def _up(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, outputs, 2, stride=2), nn.ReLU()]


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.ReLU()]


def light(image_shape: tuple[int, int, int], latent_dim: int) -> tuple[nn.Module, int, nn.Module]:
    """For laptops: two strided convolutions (16, 32), dense 512 twice; back dense 256, two transposed convolutions.

    The second dense layer is what a t-SNE map in two dimensions wants: without it the held-out 1-NN error on mnist-mini
    was .25 instead of .18.
    """
    channels, height, width = image_shape
    pad = PadTo(height, width, 4)
    features = 32 * math.prod(pad.padded) // 16
    trunk = [pad, *_conv(channels, 16, 2), *_conv(16, 32, 2), nn.Flatten(), *_dense(features, 512), *_dense(512, 512)]
    return nn.Sequential(*trunk), 512, _light_decoder(image_shape, latent_dim, pad)


def _light_decoder(image_shape: tuple[int, int, int], latent_dim: int, pad: PadTo) -> nn.Module:
    channels, height, width = image_shape
    h, w = pad.padded[0] // 4, pad.padded[1] // 4
    decoder = [*_dense(latent_dim, 256), *_dense(256, 32 * h * w), nn.Unflatten(1, (32, h, w))]
    decoder += [*_up(32, 16), nn.ConvTranspose2d(16, channels, 2, stride=2), CropTo(pad, height, width)]
    return nn.Sequential(*decoder)


def medium(image_shape: tuple[int, int, int], latent_dim: int) -> tuple[nn.Module, int, nn.Module]:
    """Half as slow again as `light`: three strided convolutions (24, 48, 96), dense 512 twice; back as `light`.

    A deeper trunk generalises better where the codes have to keep neighbours together: see notebook 03.
    """
    channels, height, width = image_shape
    pad = PadTo(height, width, 4)
    features = 96 * math.prod(math.ceil(size / 8) for size in pad.padded)
    trunk = [pad, *_conv(channels, 24, 2), *_conv(24, 48, 2), *_conv(48, 96, 2)]
    trunk += [nn.Flatten(), *_dense(features, 512), *_dense(512, 512)]
    return nn.Sequential(*trunk), 512, _light_decoder(image_shape, latent_dim, pad)


def report(image_shape: tuple[int, int, int], latent_dim: int) -> tuple[nn.Module, int, nn.Module]:
    """[Report]: 3x3 convolutions 32, 64, 64 around two 2x2 max-pools (7 x 7 x 64 for 28 x 28), dense 1024, mirrored."""
    channels, height, width = image_shape
    pad = PadTo(height, width, 4)
    h, w = pad.padded[0] // 4, pad.padded[1] // 4
    trunk = [pad, *_conv(channels, 32), nn.MaxPool2d(2), *_conv(32, 64), nn.MaxPool2d(2), *_conv(64, 64)]
    trunk += [nn.Flatten(), *_dense(64 * h * w, 1024)]
    decoder = [*_dense(latent_dim, 1024), *_dense(1024, 64 * h * w), nn.Unflatten(1, (64, h, w))]
    decoder += [*_conv(64, 64), *_up(64, 64), *_conv(64, 32), *_up(32, 32)]
    decoder += [nn.Conv2d(32, channels, 3, padding=1), CropTo(pad, height, width)]
    return nn.Sequential(*trunk), 1024, nn.Sequential(*decoder)


def slides(image_shape: tuple[int, int, int], latent_dim: int) -> tuple[nn.Module, int, nn.Module]:
    """[Slides]: three stages of three 3x3 convolutions (64, 32, 32) and a pool, dense 1024 twice, mirrored.

    The decoder's second dense layer has 64 H/8 W/8 units, which are the document's 1024 for 28 x 28.
    Differs: three pools do not divide 28, so images are padded to a multiple of 8 and the output is cropped.
    """
    channels, height, width = image_shape
    pad = PadTo(height, width, 8)
    h, w = pad.padded[0] // 8, pad.padded[1] // 8
    trunk: list[nn.Module] = [pad]
    decoder = [*_dense(latent_dim, 1024), *_dense(1024, 64 * h * w), nn.Unflatten(1, (64, h, w))]
    inputs, up_inputs = channels, 64
    for kernels in (64, 32, 32):
        trunk += [*_conv(inputs, kernels), *_conv(kernels, kernels), *_conv(kernels, kernels), nn.MaxPool2d(2)]
        decoder += [*_conv(up_inputs, kernels), *_conv(kernels, kernels), *_conv(kernels, kernels)]
        decoder += _up(kernels, kernels)
        inputs = up_inputs = kernels
    trunk += [nn.Flatten(), *_dense(32 * h * w, 1024), *_dense(1024, 1024)]
    decoder += [nn.Conv2d(32, channels, 3, padding=1), CropTo(pad, height, width)]
    return nn.Sequential(*trunk), 1024, nn.Sequential(*decoder)


def task_agnostic(image_shape: tuple[int, int, int], latent_dim: int) -> tuple[nn.Module, int, nn.Module]:
    """[Godwin2022]: four stride-2 convolutions (32 to 256); one upsampling and four size-preserving convolutions."""
    channels, height, width = image_shape
    trunk, inputs = [], channels
    for kernels in (32, 64, 128, 256):
        trunk += _conv(inputs, kernels, 2)
        inputs = kernels
        h, w = (math.ceil(height / 2 ** (len(trunk) // 2)), math.ceil(width / 2 ** (len(trunk) // 2)))
    decoder = [nn.Unflatten(1, (latent_dim, 1, 1)), nn.ConvTranspose2d(latent_dim, 32, (height, width)), nn.ReLU()]
    decoder += [*_conv(32, 32), *_conv(32, 32), *_conv(32, 32), nn.Conv2d(32, channels, 3, padding=1)]
    return nn.Sequential(*trunk, nn.Flatten()), 256 * h * w, nn.Sequential(*decoder)


def dense(image_shape: tuple[int, int, int], latent_dim: int) -> tuple[nn.Module, int, nn.Module]:
    """[Kingma2014b]: one hidden layer of 500 units each way, for images whose classes are shapes in the same place."""
    pixels = math.prod(image_shape)
    decoder = [*_dense(latent_dim, 500), nn.Linear(500, pixels), nn.Unflatten(1, tuple(image_shape))]
    return nn.Sequential(nn.Flatten(), *_dense(pixels, 500)), 500, nn.Sequential(*decoder)


# (image_shape (C, H, W), latent_dim) -> encoder trunk, its number of outputs, decoder from codes to logits (B, C, H, W)
PRESETS: dict[str, Callable] = {
    "light": light,
    "medium": medium,
    "report": report,
    "slides": slides,
    "task-agnostic": task_agnostic,
    "dense": dense,
}


def preset_rate(preset: str) -> float:
    """Adam's learning rate that suits a preset: the small networks take larger steps."""
    return 3e-3 if preset in ("light", "medium") else 1e-3


def mlp(inputs: int, outputs: int, hidden: tuple[int, ...] = (256, 256), dropout: float = 0.0) -> nn.Module:
    """Dense layers with ReLU and dropout between them: (B, inputs) to logits (B, outputs)."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [*_dense(inputs, size), nn.Dropout(dropout)]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def small_cnn(image_shape: tuple[int, int, int], outputs: int, dropout: float = 0.5) -> nn.Module:
    """Two 3x3 convolutions (16, 32) with pools, dense 128, dropout: (B, C, H, W) to logits (B, outputs)."""
    channels, height, width = image_shape
    layers = [*_conv(channels, 16), nn.MaxPool2d(2), *_conv(16, 32), nn.MaxPool2d(2), nn.Flatten()]
    layers += [*_dense(32 * (height // 4) * (width // 4), 128), nn.Dropout(dropout), nn.Linear(128, outputs)]
    return nn.Sequential(*layers)


def normed_conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution, normalisation within each image [Wu2018], ReLU: no output depends on the rest of the batch."""
    groups = math.gcd(8, outputs)
    layers = [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.GroupNorm(groups, outputs)]
    return [*layers, nn.ReLU()]


class Residual(nn.Module):
    """x + two convolutions of x, of as many channels [He2016]."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(*normed_conv(channels, channels), *normed_conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def residual_cnn(image_shape: tuple[int, int, int], outputs: int, dropout: float = 0.5) -> nn.Module:
    """Convolutions 32, 64, 128, each with a pool, a residual block after the last two, mean, dropout: logits.

    0.46 million weights and thirty times the multiplications of small_cnn (28 x 28), for thousands of labels.
    """
    layers: list[nn.Module] = []
    inputs = image_shape[0]
    for channels, block in ((32, []), (64, [Residual(64)]), (128, [Residual(128)])):
        layers += [*normed_conv(inputs, channels), nn.MaxPool2d(2), *block]
        inputs = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(128, outputs))


# (image_shape, outputs, dropout) -> images (B, C, H, W) to logits (B, outputs)
CNNS: dict[str, Callable] = {"small": small_cnn, "residual": residual_cnn}


IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # per channel, of images in [0, 1]


def resnet18(outputs: int, weights: str | Path | None) -> tuple[nn.Module, str]:
    """ResNet-18 [He2016] as a chain of layers, (B, 3, H, W) to logits (B, outputs), and where its weights come from.

    weights: None (drawn from the global generator), "imagenet" (torchvision's) or the path of a state dict (.pth), read
    without executing code. Raises LalibError for weights that cannot be had.
    """
    from torchvision import models

    net = models.resnet18(num_classes=1)
    origin = "drawn at random"
    if weights is not None:
        origin = "ImageNet, torchvision" if weights == "imagenet" else Path(weights).name
        _load_resnet(net, weights)
    stages = [net.layer1, net.layer2, net.layer3, net.layer4, net.avgpool, nn.Flatten(), nn.Linear(512, outputs)]
    # the stem's layers are listed one by one: the four stages are the chain's only nn.Sequential
    return nn.ModuleList([net.conv1, net.bn1, net.relu, net.maxpool, *stages]), origin


def _load_resnet(net: nn.Module, weights: str | Path) -> None:
    from torchvision.models import ResNet18_Weights

    try:
        if weights == "imagenet":
            state = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        else:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        net.fc = nn.Identity()  # the last layer belongs to other classes
        net.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, AttributeError) as error:
        remedy = "give the path of a file with the state dict of torchvision's resnet18, or weights=None"
        reason = "no file of weights" if isinstance(error, pickle.UnpicklingError) else str(error).split("\n")[0]
        raise LalibError(f"the weights {str(weights)!r} of ResNet-18 could not be had ({reason}): {remedy}") from error
