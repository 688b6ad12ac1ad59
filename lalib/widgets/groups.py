"""Images in groups, so that a map can show each in a colour, by a name and alone: classes, errors, clusters, rounds."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lalib.data.door import check_labels
from lalib.data.imageset import ImageSet
from lalib.figures.marks import check_numbers
from lalib.figures.style import colour
from lalib.models.networks import UNKNOWN

ERROR_STEPS = 8
NO_GROUP = "#C9C9C9"  # lighter than the grey among the classes


@dataclass(frozen=True, eq=False)
class Groups:
    """index (N,) int64: every image's group, of which `names` and `colours` tell the name and the colour."""

    index: np.ndarray
    names: tuple[str, ...]
    colours: tuple[str, ...]

    @classmethod
    def one(cls, n: int) -> "Groups":
        """All n images in one group."""
        return cls(np.zeros(n, dtype=np.int64), ("all images",), (colour(0),))

    def counts(self, images: torch.Tensor | None = None) -> np.ndarray:
        """How many images there are in every group, (G,), of all or of those at `images` (n,)."""
        index = self.index if images is None else self.index[images.numpy()]
        return np.bincount(index, minlength=len(self.names))


def by_class(labels: torch.Tensor | None, names: Sequence[str]) -> Groups | None:
    """One group per class of labels (N,), the last for images without a label (-1); None without labels."""
    if labels is None:
        return None
    names = names or [str(c) for c in range(int(labels.max()) + 1)]
    return _numbered(labels, list(names), map(colour, range(len(names))), "no label")


def known_labels(images: ImageSet, names: Sequence[str], labels: torch.Tensor | None = None) -> torch.Tensor | None:
    """labels (N,) int64, -1 where there is none, by default the images' own; None where images have no single class.

    names: of the classes, if these are known.
    """
    if labels is None:
        labels = None if images.multi_label else images.labels
    return None if labels is None else _numbers("labels", labels, len(images), len(names))


def by_cluster(clusters: torch.Tensor, n: int) -> Groups:
    """One group per cluster of clusters (n,), the last for images in none (-1)."""
    clusters = _numbers("clusters", clusters, n)
    names = [f"cluster {c}" for c in range(int(clusters.max()) + 1)]
    return _numbered(clusters, names, map(colour, range(len(names))), "no cluster")


def by_round(rounds: torch.Tensor, n: int) -> Groups:
    """One group per round of rounds (n,), from dark to light, the last for images that were never picked (-1)."""
    rounds = _numbers("rounds", rounds, n)
    names = [f"round {r}" for r in range(int(rounds.max()) + 1)]
    return _numbered(rounds, names, _shades(len(names)), "not picked")


def by_error(errors: torch.Tensor, n: int) -> Groups:
    """Up to eight groups of equal size, from the smallest to the largest of errors (n,), from dark to light."""
    errors = check_numbers(errors, "errors", n).double().numpy()
    edges = np.unique(np.quantile(errors, np.linspace(0, 1, ERROR_STEPS + 1)))
    steps = np.searchsorted(edges[1:-1], errors, side="right")
    edges = [f"{edge:.3g}" for edge in edges]
    names = tuple(f"{low} to {high}" for low, high in itertools.pairwise(edges)) or tuple(edges)
    return Groups(steps, names, _shades(len(names)))


def _numbers(name, numbers, n, top=0):
    """`numbers` (n,) as int64 on the CPU, from -1 to below `top`, if that is known."""
    numbers = check_labels(numbers, n, name=name).cpu()
    return check_labels(numbers, n, top or max(int(numbers.max()) + 1, 1), name=name, low=UNKNOWN)


def _numbered(numbers, names, colours, rest):
    """Groups by number; the images without one (-1) are the last group, if there are any."""
    index = numbers.numpy().copy()
    if (index == UNKNOWN).any():
        index[index == UNKNOWN] = len(names)
        names, colours = [*names, rest], [*colours, NO_GROUP]
    return Groups(index, tuple(names), tuple(colours))


def _shades(n):
    """n colours from dark to light that stay apart for colour-blind readers, without the palest yellow."""
    from plotly.colors import sample_colorscale, unlabel_rgb

    sampled = sample_colorscale("Viridis", np.linspace(0, 0.95, n).tolist()) if n else []
    return tuple("#" + "".join(f"{round(part):02X}" for part in unlabel_rgb(rgb)) for rgb in sampled)
