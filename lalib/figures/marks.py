"""What is drawn: checks of the labels, numbers, tables and images that figures are given, and marks that they share."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from lalib.data.checks import check_choice, check_type
from lalib.data.door import as_tensor, check_labels
from lalib.data.imageset import ImageSet, png_uri

MANY_POINTS = 2_000  # more are drawn with WebGL


def points(codes: torch.Tensor, index: torch.Tensor, **look) -> "go.Scatter | go.Scattergl":
    """Markers at codes[index], whose customdata are the indices; without points a legend entry only."""
    kind = go.Scattergl if len(codes) > MANY_POINTS else go.Scatter
    x, y = codes[index].T.numpy() if len(index) else ([None], [None])
    return kind(x=x, y=y, customdata=index.numpy(), mode="markers", **look)


def dots(rows: pd.DataFrame, value: str, low, high, marker: dict, **look) -> go.Scatter:
    """A dot per strategy at `value` in a table, with an interval from low to high (n,); marker: its colour, shape."""
    error = {"array": high - rows[value], "arrayminus": rows[value] - low, "symmetric": False}
    error |= {"thickness": 2, "width": 4}
    marker = {"size": 10, "line": {"width": 2, "color": marker["color"]}} | marker
    return go.Scatter(x=rows[value], y=rows["strategy"], error_x=error, mode="markers", marker=marker, **look)


def verdicts(frame: pd.DataFrame, middle: float) -> np.ndarray:
    """1 where the interval from low to high lies above the middle, -1 below it, 0 where it holds it."""
    return np.where(frame["low"] > middle, 1, np.where(frame["high"] < middle, -1, 0))


def check_frame(frame, columns: Sequence[str], numbers: Sequence[str] | None = None, rows="rows", name="frame") -> None:
    """Refuse what is no table with these columns and a row; those in `numbers`, by default all, must hold numbers."""
    missing = [c for c in columns if c not in check_type(name, frame, pd.DataFrame)]
    if missing or not len(frame):
        raise ValueError(f"{name} must have {rows} and the columns {', '.join(columns)}; missing: {missing or 'rows'}")
    words = [c for c in (frame if numbers is None else numbers) if not pd.api.types.is_numeric_dtype(frame[c])]
    if words:
        raise TypeError(f"{words[0]} must hold numbers, got {frame[words[0]].dtype}")


def check_chosen(name: str, chosen: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The names `chosen` as a list, at least one, each among those known; all of these if it is None."""
    if chosen is None:
        return list(known)
    if isinstance(chosen, str) or not isinstance(chosen, Iterable):
        raise TypeError(f"{name} must be a list of names, got {chosen!r}")
    chosen = [check_choice(name, check_type(name, each, str), known) for each in chosen]
    if not chosen:
        raise ValueError(f"{name} must hold at least one name, got none")
    return chosen


def check_numbers(values, name: str, n: int | None = None) -> torch.Tensor:
    """`values` as finite numbers (N,) on the CPU, whole ones as int64; n: how many there must be."""
    values = as_tensor(values, name).cpu()
    if values.ndim != 1 or n not in (None, len(values)):
        raise ValueError(f"{name} must be one number per image, shape ({n or 'N'},), got {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    if not values.is_floating_point():
        return values.long()
    return values if values.dtype == torch.float64 else values.float()


def labels_of(images, n: int | None = None) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels (N,), or (N, C) of 0 and 1, and class names of an ImageSet or of labels; (None, ()) without any.

    Raises TypeError for what holds no labels, ValueError if there are not `n` of them.
    """
    labels, names = (images.labels, images.class_names) if isinstance(images, ImageSet) else (images, ())
    if labels is None:
        return None, ()
    labels = check_labels(labels, several=True).cpu()
    if n is not None and len(labels) != n:
        raise ValueError(f"there must be one label per code: got {len(labels)} labels and {n} codes")
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    return labels, names or tuple(str(c) for c in range(classes))


def pixels(images, name: str = "images") -> np.ndarray:
    """Images (..., C, H, W), uint8 or float in [0, 1], as uint8 (..., H, W, C); an ImageSet gives its images."""
    images = as_tensor(images.images if isinstance(images, ImageSet) else images, name).cpu()
    if images.ndim < 4 or images.shape[-3] not in (1, 3) or images.numel() == 0:
        raise ValueError(f"{name} must have shape (..., C, H, W) with C = 1 or 3, got {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise TypeError(f"{name} must be uint8 or floating point in [0, 1], got {images.dtype}")
        low, high = float(images.min()), float(images.max())
        if not (low >= -1e-4 and high <= 1 + 1e-4):  # false for NaN, too
            raise ValueError(f"{name} must lie in [0, 1] if floating point, got values from {low:.3g} to {high:.3g}")
        images = images.to(torch.promote_types(images.dtype, torch.float32)) * 255
        images = images.round().clamp(0, 255).to(torch.uint8)
    return images.movedim(-3, -1).numpy()


def png(canvas: np.ndarray, side: int = 800) -> tuple[int, str]:
    """How often every pixel is repeated so that the longer side is about `side`, and the PNG so made as a data URI.

    canvas: (H, W, 1 or 3) uint8. Browsers smooth an image that they enlarge: 8 x 8 digits would be a blur.
    """
    factor = max(1, round(side / max(canvas.shape[:2])))
    return factor, png_uri(canvas.repeat(factor, axis=0).repeat(factor, axis=1))
