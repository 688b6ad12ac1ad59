"""What a strategy may see of the pool, and what it answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch

from lalib._checks import LalibError, check_choice, check_codes

__all__ = ["PoolView", "Selection"]

# What a strategy may ask for beyond the codes: its shape, and how a user provides it.
SOURCES = {
    "probs": ("(N, C)", "the task model's class probabilities, probs=p"),
    "mc_probs": ("(T, N, C)", "class probabilities of T stochastic passes, mc_probs=p"),
    "features": ("(N, F)", "the task model's last features, features=h"),
    "errors": ("(N,)", "errors=la.reconstruction_errors(model, images)"),
}


@dataclass(frozen=True, eq=False)
class Selection:
    """index (n,) int64 on the CPU in order of picking; score (n,) float32, larger was preferred, or None."""

    index: torch.Tensor
    score: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class PoolView:
    """The codes of all images, which of them are labelled and as what, and what a task model says of them.

    codes (N, L) float, finite, on any device; labeled (M,) distinct int64 indices, or None for none; labels (M,) or
    (M, C) of those, or None; sources: for "probs" (N, C), "mc_probs" (T, N, C), "features" (N, F), "errors" (N,) a
    tensor or a function without arguments that computes it: it is called at most once, when a strategy asks.
    """

    codes: torch.Tensor
    labeled: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    sources: Mapping[str, torch.Tensor | Callable[[], torch.Tensor]] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "codes", check_codes(self.codes).detach())
        object.__setattr__(self, "labeled", _check_labeled(self.labeled, self.n_images))
        object.__setattr__(self, "labels", _check_labels(self.labels, len(self.labeled)))
        for name in self.sources:
            check_choice("source", name, SOURCES)

    @property
    def n_images(self) -> int:
        """N, labelled or not."""
        return len(self.codes)

    @cached_property
    def unlabeled(self) -> torch.Tensor:
        """Indices of the images without a label, ascending, int64 on the CPU."""
        free = torch.ones(self.n_images, dtype=torch.bool)
        free[self.labeled] = False
        return free.nonzero().squeeze(1)

    @cached_property
    def probs(self) -> torch.Tensor:
        """Class probabilities (N, C)."""
        return self._source("probs", ndim=2)

    @cached_property
    def mc_probs(self) -> torch.Tensor:
        """Class probabilities (T, N, C) of T stochastic passes."""
        return self._source("mc_probs", ndim=3, axis=1)

    @cached_property
    def features(self) -> torch.Tensor:
        """Features of the task model (N, F)."""
        return self._source("features", ndim=2)

    @cached_property
    def errors(self) -> torch.Tensor:
        """Reconstruction error of each image (N,)."""
        return self._source("errors", ndim=1)

    def _source(self, name, ndim, axis=0):
        shape, how = SOURCES[name]
        given = self.sources.get(name)
        if given is None:
            raise LalibError(f"this strategy needs {name} {shape}, which was not given: pass {how}")
        value = torch.as_tensor(given() if callable(given) else given).detach()
        if value.ndim != ndim or value.shape[axis] != self.n_images:
            raise ValueError(f"{name} must have shape {shape} with N = {self.n_images}, got {tuple(value.shape)}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")
        return value


def _check_labeled(labeled, size):
    if labeled is None:
        return torch.empty(0, dtype=torch.int64)
    labeled = torch.as_tensor(labeled).detach().cpu()
    if labeled.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if labeled.ndim != 1 or labeled.is_floating_point() or labeled.dtype == torch.bool:
        raise TypeError(f"labeled must hold whole numbers (M,), got {labeled.dtype} of shape {tuple(labeled.shape)}")
    labeled = labeled.long()
    low, high = int(labeled.min()), int(labeled.max())
    if low < 0 or high >= size:
        raise ValueError(f"labeled must lie in 0 .. {size - 1}, got {low if low < 0 else high}")
    if len(labeled.unique()) < len(labeled):
        raise ValueError(f"labeled must be distinct, got {len(labeled)} indices of {len(labeled.unique())} images")
    return labeled


def _check_labels(labels, count):
    if labels is None:
        return None
    labels = torch.as_tensor(labels).detach().cpu()
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise ValueError(f"labels must be those of the {count} labelled images, got shape {tuple(labels.shape)}")
    return labels
