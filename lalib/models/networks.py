"""What a model is to `fit`, what it may be given, and networks: encoders and decoders by preset, small classifiers.

References: see lalib.models.
"""

import contextlib
import functools
import inspect
import itertools
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lalib.data import seeds
from lalib.data.checks import LalibError, check_int
from lalib.data.door import as_tensor, check_codes, check_labels, renumbered
from lalib.data.imageset import ImageSet

UNKNOWN = -1  # the label of an image without one
Shape = tuple[int, int, int]  # of an image: C of 1 or 3, H, W


@dataclass(frozen=True)
class Batch:
    """What `fit` hands to a loss: inputs, labels if there are any, and positions in the training set.

    x: images (B, C, H, W) float32 in [0, 1], or codes (B, L) float32. y: (B,) int64, UNKNOWN where a model may see
    images without a label, or (B, C) of 0 and 1, or None. index: (B,) int64, or None for validation data.
    """

    x: Tensor
    y: Tensor | None = None
    index: Tensor | None = None


class Trainable(nn.Module):
    """What `fit` needs of a model: a loss and, where the defaults do not serve, a preparation and an order.

    All constructors raise TypeError for an option of the wrong type, ValueError for a value that is not allowed.
    """

    batch_size = 128
    learning_rate = 1e-3
    image_shape: Shape | None = None  # (C, H, W) of its images
    code_dim: int | None = None  # L of its codes (N, L), if it takes codes
    n_classes: int | None = None  # of a model that learns from labels
    class_names: tuple[str, ...] = ()  # in the order of its labels, empty while unknown
    multi_label = False  # labels (N, C) of 0 and 1
    partly_labelled = False  # labels may be UNKNOWN

    @property
    def config(self) -> dict:
        """The constructor's options, seed and models apart, as JSON holds them: they build the model anew.

        Each is read from the attribute of its name, or from <name>_name where a part of the model has that name.
        """
        classes, held, simple = reversed(type(self).__mro__), vars(self), int | float | str | list | dict | None
        names = [name for part in classes for name in inspect.signature(part.__init__).parameters if name != "seed"]
        kept = {name: held[key] for name in names for key in (name, f"{name}_name") if key in held}
        kept = {name: asdict(value) if is_dataclass(value) else value for name, value in kept.items()}
        kept = {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}
        return {name: value for name, value in kept.items() if isinstance(value, simple)}

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars by name; the entry "loss" is minimised, the others are recorded."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        """Called once before training, on x's device, with all inputs as stored (uint8 images or codes) and labels.

        Raises LalibError for a partly labelled model without a label.
        """
        if self.partly_labelled and (y is None or not (y != UNKNOWN).any()):
            raise LalibError(f"{type(self).__name__} needs labelled images, got {len(x)} without a label")

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        """Index tensors that together visit each of n inputs once: slices of a random permutation."""
        yield from torch.randperm(n, generator=generator).split(size)

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        """Optimiser groups; a model may give its parts different learning rates or leave parts out."""
        return [{"params": list(self.parameters()), "lr": learning_rate}]

    def remember(self, class_names: Sequence[str]) -> None:
        """Set the class names of the model and of the models that it consists of."""
        for part in self.modules():
            if isinstance(part, Trainable) and part.n_classes:
                part.class_names = tuple(class_names)


def check_shape(image_shape: Shape) -> Shape:
    """`image_shape` as (C, H, W) that a network can take: C of 1 or 3, H and W of at least 8."""
    shape = tuple(check_int("image_shape", size) for size in image_shape)
    if len(shape) != 3 or shape[0] not in (1, 3) or min(shape[1:]) < 8:
        raise ValueError(f"image_shape must be (C, H, W) with C of 1 or 3 and H, W of at least 8, got {shape}")
    return shape


def check_inputs(model: Trainable, inputs) -> Tensor:
    """ImageSet, array or table as `model` takes it: images (N, C, H, W), uint8 or float32 in [0, 1], or codes (N, L).

    Raises ValueError for a shape that is not the model's and codes that are not finite, TypeError for other things.
    """
    x = inputs.images if isinstance(inputs, ImageSet) else as_tensor(inputs, "inputs")
    if model.image_shape is None and x.ndim != 4:
        x = check_codes(x, "inputs").float()
    elif x.is_floating_point():
        x = x.float()
    elif x.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, or floats in [0, 1], got {x.dtype}")
    source, shape = f" from {inputs.source}" if isinstance(inputs, ImageSet) else "", tuple(x.shape[1:])
    if model.image_shape is not None and shape != tuple(model.image_shape):
        raise ValueError(f"the model takes images of shape {model.image_shape}, got {shape}{source}")
    if model.code_dim is not None and shape != (model.code_dim,):
        raise ValueError(f"the model takes codes of shape (N, {model.code_dim}), got {tuple(x.shape)}{source}")
    return x


def check_targets(model: Trainable, labels, n: int, names: Sequence = (), wanted: Sequence | None = None) -> Tensor:
    """Labels of n inputs as the model numbers its classes, int64: (n,), or (n, C) of 0 and 1 for a multi-label model.

    names: what the classes of these labels are called. They are matched by name with the `wanted` ones, by default the
    model's; where there are none, the labels stay as they are. Raises ValueError for a class that is not wanted and for
    labels of another shape or range, TypeError for what is no whole number.
    """
    wanted = model.class_names if wanted is None else wanted
    n_classes = len(names) if names and wanted and model.n_classes else model.n_classes
    low = UNKNOWN if model.partly_labelled else 0
    labels = check_labels(labels, n, n_classes, low=low, several=model.multi_label)
    if labels.ndim != 1 + model.multi_label:
        raise ValueError(f"labels must have shape ({n}, {model.n_classes or 'C'}), got {tuple(labels.shape)}")
    return renumbered(labels, names, wanted) if names and wanted and model.n_classes else labels


def to_input(x: Tensor, device: torch.device) -> Tensor:
    """Network input on `device`: uint8 images become float32 in [0, 1], codes stay as they are."""
    x = x.to(device, non_blocking=device.type == "cuda")  # towards the CPU nobody would wait for the copy
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


def block_size(model: nn.Module, x: Tensor, most: int = 1024) -> int:
    """How many of the inputs x (N, ...) `model` takes at once outside training, from 1 to `most`.

    Inputs, the images that it makes of codes, or those that it makes of images (input_shape) fill at most 16 MiB in
    float32: 1,024 of 64 x 64 grey pixels, 27 of 3 x 224 x 224. What the layers hold of them grows with the same number.
    """
    pixels = max(math.prod(getattr(model, name, None) or ()) for name in ("image_shape", "input_shape"))
    return max(1, min(most, 2**22 // max(1, pixels, x.shape[1:].numel())))


@torch.no_grad()  # inference mode would hand out tensors that can be neither changed in place nor trained on
def in_blocks(
    model: nn.Module, function: Callable[..., Tensor], x: Tensor | tuple, batch_size: int = 1024, progress: str = ""
) -> Tensor:
    """function applied to x (N, ...) in blocks on the model's device, in eval_mode; (N, ...) float32 on the CPU.

    x may be several tensors, which are then the function's arguments. A block holds batch_size inputs, of large images
    fewer: see block_size. progress: the name of a bar, shown after two seconds. ValueError for a batch_size below 1.
    """
    x, device = x if isinstance(x, tuple) else (x,), next(model.parameters()).device
    size = block_size(model, x[0], check_int("batch_size", batch_size, low=1))
    blocks = zip(*(part.split(size) for part in x), strict=True)
    if progress:
        from tqdm.auto import tqdm

        blocks = tqdm(blocks, progress, math.ceil(len(x[0]) / size), unit="block", delay=2, leave=False)
    found, done = None, 0
    with eval_mode(model):
        for block in blocks:
            made = function(*(to_input(part, device) for part in block))
            if found is None:  # one tensor: blocks that are kept would hold the memory of what they were cut from
                found = torch.empty((len(x[0]), *made.shape[1:]), dtype=torch.float32, device="cpu")
            found[done : (done := done + len(made))] = made
    return found


class Dropout(nn.Dropout):
    """nn.Dropout that draws from `generator` if set: on the CPU bit for bit what the global one in its state draws."""

    generator: torch.Generator | None = None  # the global one is shared by all threads

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        return x * torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator).div_(1 - self.p or 1)


@contextlib.contextmanager
def seeded_dropout(model: nn.Module, seed: int, *names: str | int) -> Iterator[None]:
    """Let dropout draw from child_seed(seed, *names) inside the block, without waiting for other threads.

    Only where a layer or a model is not lalib's do all layers draw from torch's global generator, within `seeded`.
    """
    layers = [part for part in model.modules() if isinstance(part, nn.modules.dropout._DropoutNd)]
    models = [part for part in model.modules() if isinstance(part, Trainable)]
    foreign = any(not isinstance(layer, Dropout) for layer in layers)
    if foreign or any(not type(part).__module__.startswith("lalib.") for part in models):
        with seeds.seeded(seed, *names):
            yield
        return
    source = seeds.generator(seed, *names, device=next(model.parameters()).device)
    try:
        for layer in layers:
            layer.generator = source
        yield
    finally:
        for layer in layers:
            layer.generator = None


class Crop(nn.ZeroPad2d):
    """Cuts off what ZeroPad2d of the same padding adds to images (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        left, right, top, bottom = self.padding
        return x[..., top : x.shape[2] - bottom, left : x.shape[3] - right]


def frame(image_shape: Shape, multiple: int) -> tuple[nn.Module, nn.Module, int, int]:
    """A layer that adds zeros on all sides until `multiple` divides H and W, one that cuts them off, the quotients."""
    _, height, width = image_shape
    h, w = math.ceil(height / multiple), math.ceil(width / multiple)
    rows, columns = h * multiple - height, w * multiple - width
    sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return nn.ZeroPad2d(sides), Crop(sides), h, w


def _conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.ReLU()]


def _up(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inputs, outputs, 2, stride=2), nn.ReLU()]


def _dense(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.ReLU()]


def _chain(layer: Callable[..., list[nn.Module]], *sizes: int, **options) -> list[nn.Module]:
    """Layers of one kind in a row, from the first of the sizes to the last."""
    return [part for inputs, outputs in itertools.pairwise(sizes) for part in layer(inputs, outputs, **options)]


def strided(kernels: tuple[int, ...], image_shape: Shape, latent_dim: int):
    """Strided convolutions of so many kernels and dense 512 twice; back dense 256 and two transposed convolutions."""
    channels, (pad, crop, h, w) = image_shape[0], frame(image_shape, 4)
    features = kernels[-1] * math.prod(math.ceil(4 * size / 2 ** len(kernels)) for size in (h, w))
    # a t-SNE map in 2-D wants the second dense layer: the held-out 1-NN error on mnist-mini was .18, without it .25
    trunk = [pad, *_chain(_conv, channels, *kernels, stride=2), nn.Flatten(), *_chain(_dense, features, 512, 512)]
    decoder = [*_chain(_dense, latent_dim, 256, 32 * h * w), nn.Unflatten(1, (32, h, w))]
    decoder += [*_up(32, 16), nn.ConvTranspose2d(16, channels, 2, stride=2), crop]
    return nn.Sequential(*trunk), 512, nn.Sequential(*decoder)


def report(image_shape: Shape, latent_dim: int):
    """[Report]: 3x3 convolutions 32, 64, 64 around two 2x2 max-pools (7 x 7 x 64 for 28 x 28), dense 1024, mirrored."""
    channels, (pad, crop, h, w) = image_shape[0], frame(image_shape, 4)
    trunk = [pad, *_conv(channels, 32), nn.MaxPool2d(2), *_conv(32, 64), nn.MaxPool2d(2), *_conv(64, 64)]
    trunk += [nn.Flatten(), *_dense(64 * h * w, 1024)]
    decoder = [*_chain(_dense, latent_dim, 1024, 64 * h * w), nn.Unflatten(1, (64, h, w))]
    decoder += [*_conv(64, 64), *_up(64, 64), *_conv(64, 32), *_up(32, 32), nn.Conv2d(32, channels, 3, padding=1), crop]
    return nn.Sequential(*trunk), 1024, nn.Sequential(*decoder)


def slides(image_shape: Shape, latent_dim: int):
    """[Slides]: three stages of three 3x3 convolutions (64, 32, 32) and a pool, dense 1024 twice, mirrored.

    Differs: three pools do not divide 28, so images are padded to a multiple of 8 and the output is cropped.
    """
    channels, (pad, crop, h, w) = image_shape[0], frame(image_shape, 8)
    trunk: list[nn.Module] = [pad]
    decoder = [*_chain(_dense, latent_dim, 1024, 64 * h * w), nn.Unflatten(1, (64, h, w))]
    for inputs, up_inputs, kernels in ((channels, 64, 64), (64, 64, 32), (32, 32, 32)):
        trunk += [*_chain(_conv, inputs, kernels, kernels, kernels), nn.MaxPool2d(2)]
        decoder += [*_chain(_conv, up_inputs, kernels, kernels, kernels), *_up(kernels, kernels)]
    trunk += [nn.Flatten(), *_chain(_dense, 32 * h * w, 1024, 1024)]
    decoder += [nn.Conv2d(32, channels, 3, padding=1), crop]
    return nn.Sequential(*trunk), 1024, nn.Sequential(*decoder)


def task_agnostic(image_shape: Shape, latent_dim: int):
    """[Godwin2022]: four stride-2 convolutions (32 to 256); one upsampling and four size-preserving convolutions."""
    channels, height, width = image_shape
    trunk = _chain(_conv, channels, 32, 64, 128, 256, stride=2)
    features = 256 * math.ceil(height / 16) * math.ceil(width / 16)
    decoder = [nn.Unflatten(1, (latent_dim, 1, 1)), nn.ConvTranspose2d(latent_dim, 32, (height, width)), nn.ReLU()]
    decoder += [*_chain(_conv, 32, 32, 32, 32), nn.Conv2d(32, channels, 3, padding=1)]
    return nn.Sequential(*trunk, nn.Flatten()), features, nn.Sequential(*decoder)


def dense(image_shape: Shape, latent_dim: int):
    """[Kingma2014b]: one hidden layer of 500 units each way, for images whose classes are shapes in the same place."""
    pixels = math.prod(image_shape)
    decoder = [*_dense(latent_dim, 500), nn.Linear(500, pixels), nn.Unflatten(1, tuple(image_shape))]
    return nn.Sequential(nn.Flatten(), *_dense(pixels, 500)), 500, nn.Sequential(*decoder)


LARGEST = 32  # pixels of a side that presets take as they are


def patched(build: Callable, width: int = 16):
    """`build`, behind a layer that makes `width` numbers of every patch of 2 x 2, 4 x 4, 8 x 8, ... pixels.

    The patches are as small as bring both sides down to LARGEST or fewer; the decoder ends in a layer that makes pixels
    of them again. So weights do not grow with the image. Both layers are linear: with stride-2 convolutions and
    ReLU in their place the light VAE stayed near the mean image (3,000 clothes at 64 pixels, 8 epochs, one seed: 2,002
    nats a test image, with linear ones 1,418).
    """

    def networks(image_shape: Shape, latent_dim: int):
        channels, *sides = image_shape
        side = 2 ** max(0, math.ceil(math.log2(max(sides) / LARGEST)))
        if side == 1:
            return build(image_shape, latent_dim)
        pad, crop, h, w = frame(image_shape, side)
        trunk, features, decoder = build((width, h, w), latent_dim)
        trunk = nn.Sequential(pad, nn.Conv2d(channels, width, side, stride=side), *trunk)
        return trunk, features, nn.Sequential(*decoder, nn.ConvTranspose2d(width, channels, side, stride=side), crop)

    return networks


# (image_shape (C, H, W), latent_dim) -> encoder trunk, its number of outputs, decoder from codes to logits (B, C, H, W)
PRESETS: dict[str, Callable[[Shape, int], tuple[nn.Module, int, nn.Module]]] = {
    "light": patched(functools.partial(strided, (16, 32))),  # for laptops
    # half as slow again; a deeper trunk generalises better where codes have to keep neighbours together: notebook 03
    "medium": patched(functools.partial(strided, (24, 48, 96))),
    "report": patched(report),
    "slides": patched(slides),
    "task-agnostic": patched(task_agnostic),
    "dense": patched(dense, 4),  # at 64 pixels as many numbers as grey pixels
}
RATES = dict.fromkeys(PRESETS, 1e-3) | {"light": 3e-3, "medium": 3e-3}  # Adam's: small networks take large steps


def mlp(inputs: int, outputs: int, hidden: tuple[int, ...] = (256, 256), dropout: float = 0.0) -> nn.Module:
    """Dense layers with ReLU and dropout between them: (B, inputs) to logits (B, outputs)."""
    layers = [part for pair in itertools.pairwise((inputs, *hidden)) for part in (*_dense(*pair), Dropout(dropout))]
    return nn.Sequential(*layers, nn.Linear((inputs, *hidden)[-1], outputs))


def small_cnn(image_shape: Shape, outputs: int, dropout: float = 0.5) -> nn.Module:
    """Two 3x3 convolutions (16, 32) with pools, dense 128, dropout: (B, C, H, W) to logits (B, outputs)."""
    channels, height, width = image_shape
    layers = [*_conv(channels, 16), nn.MaxPool2d(2), *_conv(16, 32), nn.MaxPool2d(2), nn.Flatten()]
    layers += [*_dense(32 * (height // 4) * (width // 4), 128), Dropout(dropout), nn.Linear(128, outputs)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # on a CPU pools are several times faster


def normed_conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution, normalisation within each image [Wu2018], ReLU: no output depends on the rest of the batch."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [conv, nn.GroupNorm(math.gcd(8, outputs), outputs), nn.ReLU()]


class Residual(nn.Module):
    """x + two convolutions of x, of as many channels [He2016]."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(*normed_conv(channels, channels), *normed_conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def residual_cnn(image_shape: Shape, outputs: int, dropout: float = 0.5) -> nn.Module:
    """Convolutions 32, 64, 128, each with a pool, a residual block after the last two, mean, dropout: to logits.

    0.46 million weights and, of 28 x 28 pixels, thirty times the multiplications of small_cnn.
    """
    second, third = Residual(64), Residual(128)  # built first: the order decides which weights a seed draws
    layers = [*normed_conv(image_shape[0], 32), nn.MaxPool2d(2), *normed_conv(32, 64), nn.MaxPool2d(2), second]
    layers += [*normed_conv(64, 128), nn.MaxPool2d(2), third, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, Dropout(dropout), nn.Linear(128, outputs))


# (image_shape, outputs, dropout) -> images (B, C, H, W) to logits (B, outputs)
CNNS: dict[str, Callable] = {"small": small_cnn, "residual": residual_cnn}

IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # per channel, of images in [0, 1]


def resnet18(outputs: int, weights: str | Path | None) -> tuple[nn.Module, str]:
    """ResNet-18 [He2016] as a chain of layers, (B, 3, H, W) to logits (B, outputs), and where its weights come from.

    weights: None (drawn from the global generator), "imagenet" (torchvision's) or the path of a state dict (.pth), read
    without executing code. Raises LalibError for weights that cannot be had.
    """
    from torchvision import models

    net, origin = models.resnet18(num_classes=1), "drawn at random"
    if weights is not None:
        origin = "ImageNet, torchvision" if weights == "imagenet" else Path(weights).name
        try:
            if weights == "imagenet":
                state = models.ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
            else:
                state = torch.load(weights, map_location="cpu", weights_only=True)
            net.fc = nn.Identity()  # the last layer belongs to other classes
            net.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, AttributeError) as error:
            remedy = "give the path of a file with the state dict of torchvision's resnet18, or weights=None"
            reason = "no file of weights" if isinstance(error, pickle.UnpicklingError) else str(error).split("\n")[0]
            message = f"the weights {str(weights)!r} of ResNet-18 could not be had ({reason}): {remedy}"
            raise LalibError(message) from error
    stages = [net.layer1, net.layer2, net.layer3, net.layer4, net.avgpool, nn.Flatten(), nn.Linear(512, outputs)]
    # the stem's layers are listed one by one: the four stages are the chain's only nn.Sequential
    return nn.ModuleList([net.conv1, net.bn1, net.relu, net.maxpool, *stages]), origin
