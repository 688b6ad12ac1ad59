"""What a strategy may see of the pool, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from functools import cached_property

import torch

from lalib.data.checks import LalibError, check_choice, check_int
from lalib.data.door import as_tensor, check_codes, check_index

# What a strategy may ask for beyond the codes: its shape, and how a user provides it.
SOURCES = {
    "codes": ("(N, L)", "codes=z"),
    "probs": ("(N, C)", "the task model's class probabilities, probs=p"),
    "mc_probs": ("(T, N, C)", "class probabilities of T stochastic passes, mc_probs=p"),
    "features": ("(N, F)", "the task model's last features, features=h"),
    "errors": ("(N,)", "errors=la.reconstruction_errors(model, images)"),
    "predicted_losses": ("(N,)", "the losses that a task model expects, predicted_losses=r"),
    "predicted_losses_with_codes": (
        "(N,)",
        "the same from a head that sees the codes, too, as the loop of compare does",
    ),
    "latents": ("(N, K)", "the task model's latent codes, latents=z"),
    "vaal": ("(N,)", "logits of a discriminator on a VAE's codes, as the loop of compare does"),
    "ta_vaal": ("(N,)", "the same on codes and expected losses, as the loop of compare does"),
    "m2_vaal": ("(N,)", "the same on the code of M2: choose the task 'm2-vaal'"),
}


@dataclass(frozen=True, eq=False)
class Selection:
    """index (n,) int64 on the CPU in order of picking; score (n,) float32, larger was preferred, or None.

    record: numbers by name that say how the selection came about; the loop keeps them with the round.
    """

    index: torch.Tensor
    score: torch.Tensor | None = None
    record: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PoolView:
    """The codes of all images, which of them are labelled and as what, and what a task model says of them.

    codes (N, L) float, finite, on any device; labeled (M,) distinct int64 indices, or None for none; labels (M,) or
    (M, C) of 0 and 1 of those, or None; sources: for each further name in SOURCES a tensor of its shape. Codes and
    sources may be functions without arguments that compute them: each is called at most once, when a strategy asks.
    size: N, needed if the codes are a function. Where an image may have several classes, probabilities are independent,
    one per class.
    """

    codes: InitVar[torch.Tensor | Callable[[], torch.Tensor]]
    labeled: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    sources: Mapping[str, torch.Tensor | Callable[[], torch.Tensor]] = field(default_factory=dict)
    size: int | None = None

    def __post_init__(self, codes):
        size = check_int("size", self.size if callable(codes) else len(check_codes(codes)), low=1)
        if self.size not in (None, size):
            raise ValueError(f"codes must be those of the {self.size} images, got {size} rows")
        for name in self.sources:
            check_choice("source", name, SOURCES.keys() - {"codes"})
        object.__setattr__(self, "size", size)
        object.__setattr__(
            self, "labeled", check_index(() if self.labeled is None else self.labeled, size, "labeled", distinct=True)
        )
        object.__setattr__(self, "labels", labels_of(self.labels, len(self.labeled)))
        object.__setattr__(self, "sources", {"codes": codes, **self.sources})

    @property
    def n_images(self) -> int:
        """N, labelled or not."""
        return self.size

    @cached_property
    def codes(self) -> torch.Tensor:
        """Codes (N, L), checked."""
        return check_codes(self._source("codes"))

    @property
    def multi_label(self) -> bool:
        """Whether the labels are (M, C): an image may have several classes."""
        return self.labels is not None and self.labels.ndim == 2

    @cached_property
    def unlabeled(self) -> torch.Tensor:
        """Indices of the images without a label, ascending, int64 on the CPU."""
        free = torch.ones(self.n_images, dtype=torch.bool)
        free[self.labeled] = False
        return free.nonzero().squeeze(1)

    @cached_property
    def probs(self) -> torch.Tensor:
        """Class probabilities (N, C)."""
        return self._source("probs")

    @cached_property
    def mc_probs(self) -> torch.Tensor:
        """Class probabilities (T, N, C) of T stochastic passes."""
        return self._source("mc_probs")

    @cached_property
    def features(self) -> torch.Tensor:
        """Features of the task model (N, F)."""
        return self._source("features")

    @cached_property
    def errors(self) -> torch.Tensor:
        """Reconstruction error of each image (N,)."""
        return self._source("errors")

    @cached_property
    def predicted_losses(self) -> torch.Tensor:
        """What the task model expects its loss to be on each image (N,)."""
        return self._source("predicted_losses")

    @cached_property
    def predicted_losses_with_codes(self) -> torch.Tensor:
        """The same from a head that sees the codes beside the task model's features (N,)."""
        return self._source("predicted_losses_with_codes")

    @cached_property
    def latents(self) -> torch.Tensor:
        """Latent codes of the task model (N, K); its last features if it has no others."""
        return self._source("latents")

    @cached_property
    def vaal(self) -> torch.Tensor:
        """Logits (N,) of "this image has a label" by VAAL's discriminator."""
        return self._source("vaal")

    @cached_property
    def ta_vaal(self) -> torch.Tensor:
        """The same by TA-VAAL's (N,)."""
        return self._source("ta_vaal")

    @cached_property
    def m2_vaal(self) -> torch.Tensor:
        """The same by that of M2-VAAL, the task model (N,)."""
        return self._source("m2_vaal")

    def _source(self, name):
        shape, how = SOURCES[name]
        axes = [axis for axis in shape if axis.isalpha()]  # "(T, N, C)" has three
        given = self.sources.get(name)
        if given is None:
            raise LalibError(f"this strategy needs {name} {shape}, which was not given: pass {how}")
        value = as_tensor(given() if callable(given) else given, name)
        if value.ndim != len(axes) or value.shape[axes.index("N")] != self.n_images:
            raise ValueError(f"{name} must have shape {shape} with N = {self.n_images}, got {tuple(value.shape)}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")
        return value


def labels_of(labels, count: int) -> torch.Tensor | None:
    """Labels (count,) or (count, C) of the labelled images on the CPU, None for None."""
    if labels is None:
        return None
    labels = as_tensor(labels, "labels").cpu()
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise ValueError(f"labels must be those of the {count} labelled images, got shape {tuple(labels.shape)}")
    return labels
