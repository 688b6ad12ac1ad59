"""Images in groups (classes, errors, clusters, rounds): in a colour, by a name, and counted in a table and in words."""

import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from plotly.colors import sample_colorscale, unlabel_rgb

from lalib.data.door import check_labels
from lalib.figures.marks import check_numbers
from lalib.figures.style import colour
from lalib.models.networks import UNKNOWN

ERROR_STEPS = 8
NAMES = 12  # groups that a sentence counts
REST = {"class": "no label", "cluster": "no cluster", "round": "not picked"}  # images in no group
NO_GROUP = "#C9C9C9"  # lighter than the grey among the classes


@dataclass(frozen=True, eq=False)
class Groups:
    """index (N,) int64: every image's group, of which `names` and `colours` tell the name and the colour."""

    index: np.ndarray
    names: tuple[str, ...]
    colours: tuple[str, ...]

    def counts(self, images: torch.Tensor | None = None) -> np.ndarray:
        """How many images there are in every group, (G,), of all or of those at `images` (n,)."""
        index = self.index if images is None else self.index[images.numpy()]
        return np.bincount(index, minlength=len(self.names))

    def table(self, title: str, index: torch.Tensor) -> str:
        """A table and a legend: every group's colour, name and number of images, of all and of those at index (n,)."""
        counts = self.counts(index)
        most = max(counts.max(initial=0), 1)
        head = f"<th></th><th>{html.escape(title)}</th><th>images</th><th>selected</th><th></th>"
        rows = [
            f'<tr><td><span style="background:{colour}"></span></td><td>{html.escape(name)}</td><td>{total:,}</td>'
            f'<td>{count:,}</td><td><div style="width:{50 * count / most:.0f}px"></div></td></tr>'
            for name, colour, total, count in zip(self.names, self.colours, self.counts(), counts, strict=True)
        ]
        return f'<table class="lalib-groups"><tr>{head}</tr>{"".join(rows)}</table>'

    def legend(self) -> str:
        """Colour, name and number of images of every group that has any, one behind the other."""
        parts = [part for part in zip(self.names, self.colours, self.counts(), strict=True) if part[2]]
        said = [f'<span><i style="background:{c}"></i>{html.escape(name)} {n:,}</span>' for name, c, n in parts]
        return f'<div class="lalib-legend">{" ".join(said)}</div>'


def grouped(what: str, values: torch.Tensor, n: int, class_names: Sequence[str] = ()) -> Groups:
    """One group per "class", "cluster" or "round" (dark to light) of values (n,), the last for images in none (-1).

    The values of an "error" make groups as by_error says. class_names: by default the numbers.
    """
    if what == "error":
        return by_error(values, n)
    index = group_numbers(f"{what}s", values, n).numpy().copy()
    numbers = range(int(index.max()) + 1)
    names = tuple(class_names or map(str, numbers)) if what == "class" else tuple(f"{what} {g}" for g in numbers)
    colours = shades(len(names)) if what == "round" else tuple(map(colour, range(len(names))))
    if (index == UNKNOWN).any():
        index[index == UNKNOWN] = len(names)
        names, colours = (*names, REST[what]), (*colours, NO_GROUP)
    return Groups(index, names, colours)


def by_error(errors: torch.Tensor, n: int) -> Groups:
    """Up to eight groups of equal size, from the smallest to the largest of errors (n,), from dark to light."""
    errors = check_numbers(errors, "errors", n).double().numpy()
    edges = np.unique(np.quantile(errors, np.linspace(0, 1, ERROR_STEPS + 1)))
    steps = np.searchsorted(edges[1:-1], errors, side="right")
    edges = [f"{edge:.3g}" for edge in edges]
    names = tuple(f"{low} to {high}" for low, high in itertools.pairwise(edges)) or tuple(edges)
    return Groups(steps, names, shades(len(names)))


def counts_in_words(names, counts) -> str:
    """Groups that occur, the largest first: "Bag: 20, Coat: 7"."""
    order = [g for g in (-counts).argsort(kind="stable") if counts[g]]
    words = ", ".join(f"{names[g]}: {counts[g]:,}" for g in order[:NAMES])
    return words if len(order) <= NAMES else f"{words} and {len(order) - NAMES} more groups"


def group_numbers(name: str, numbers: torch.Tensor, n: int, top: int = 0) -> torch.Tensor:
    """`numbers` (n,) as int64 on the CPU, from -1 to below `top`, if that is known."""
    numbers = check_labels(numbers, n, name=name).cpu()
    return check_labels(numbers, n, top or max(int(numbers.max()) + 1, 1), name=name, low=UNKNOWN)


def shades(n: int) -> tuple[str, ...]:
    """n colours from dark to light that stay apart for colour-blind readers, without the palest yellow."""
    sampled = sample_colorscale("Viridis", np.linspace(0, 0.95, n).tolist()) if n else []
    return tuple("#" + "".join(f"{round(part):02X}" for part in unlabel_rgb(rgb)) for rgb in sampled)
