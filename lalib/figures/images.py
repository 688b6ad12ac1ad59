"""Mosaics of images: reconstructions, the decoded latent grid, traversals, thumbnails. One trace holds all tiles."""

import math
from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import torch

from lalib.codes.coding import LatentGrid
from lalib.data.checks import check_int, check_number, check_type
from lalib.data.door import as_tensor, check_index
from lalib.data.imageset import ImageSet
from lalib.figures.marks import labels_of, pixels, png
from lalib.figures.style import INK, apply_layout


def reconstructions(
    images, reconstructed: torch.Tensor | Mapping[str, torch.Tensor], n: int = 8, *, title: str | None = None
) -> go.Figure:
    """The first `n` images above their reconstructions, with each model's mean absolute error over all that came.

    images: ImageSet or (N, C, H, W). reconstructed: the same shape (ValueError for another), or name -> such a tensor.
    """
    if not isinstance(reconstructed, Mapping):
        reconstructed = {"reconstruction": reconstructed}
    original = pixels(images)
    n = check_int("n", n, low=1, high=len(original))
    rows = {"original": original[:n]}
    for name, tensor in reconstructed.items():
        tiles = pixels(tensor, name)
        if tiles.shape != original.shape:
            want, got = (np.moveaxis(t, -1, -3).shape for t in (original, tiles))
            raise ValueError(f"{name} must have the shape of the images, {want}, got {got}")
        rows[f"{name}<br>MAE {np.abs(tiles / 255.0 - original / 255.0).mean():.4f}"] = tiles[:n]
    unit = f"MAE: mean absolute error per pixel over {len(original):,} images, pixels from 0 to 1"
    fig = _mosaic(np.stack(list(rows.values())), title or "Images and their reconstructions", unit, left=150)
    fig.update_yaxes(tickvals=list(range(len(rows))), ticktext=list(rows))
    return fig.update_xaxes(title_text="image", tickvals=list(range(n)))


def latent_grid(grid: LatentGrid, *, title: str | None = None) -> go.Figure:
    """The images decoded from a regular grid of latent points, each at its point. grid: from `la.codes.latent_grid`."""
    check_type("grid", grid, LatentGrid)
    x, y, codes = (as_tensor(getattr(grid, a), a).cpu().double().numpy() for a in ("x", "y", "codes"))
    x, y = np.sort(x), np.sort(y)[::-1]  # the first row of a picture is its top, the largest y
    tiles = pixels(grid.images, "grid.images")
    if len(tiles) != len(x) * len(y):
        raise ValueError(f"grid.images must hold {len(x)} x {len(y)} images, got {len(tiles)}")
    column, row = np.abs(codes[:, :1] - x).argmin(axis=1), np.abs(codes[:, 1:] - y).argmin(axis=1)
    placed = np.empty((len(y), len(x), *tiles.shape[1:]), dtype=np.uint8)
    placed[row, column] = tiles
    title = title or "What the decoder draws at every point of the latent space"
    fig = _mosaic(placed, title, f"{len(x)} x {len(y)} decoded images", gap=0, square=36, left=64)
    step_x, step_y = (float(np.ptp(each)) / (len(each) - 1) if len(each) > 1 else 1.0 for each in (x, y))
    left, top, image = x[0] - step_x / 2, y[0] + step_y / 2, fig.data[0]
    dx, dy = step_x * image.dx, step_y * image.dy
    image.update(dx=dx, dy=-dy, x0=left + dx / 2, y0=top - dy / 2)
    axis = {"tickmode": "auto", "tickvals": None, "showticklabels": True, "ticks": "outside"}
    fig.update_xaxes(title_text="latent coordinate 1", range=[left, left + step_x * len(x)], **axis)
    fig.update_yaxes(title_text="latent coordinate 2", range=[top - step_y * len(y), top], autorange=False, **axis)
    return fig.update_yaxes(scaleratio=(step_x / placed.shape[3]) / (step_y / placed.shape[2]))  # of pixels


def traversal(
    images: torch.Tensor, *, low: float = 0.0, high: float = 1.0, fixed: float | None = None, title: str | None = None
) -> go.Figure:
    """Row i varies latent coordinate i from `low` to `high` while the others stay at `fixed`.

    images: (L, steps, C, H, W), as `la.codes.traversal` returns them; low, high, fixed: what it was called with.
    """
    tiles = pixels(images)
    if tiles.ndim != 5:
        raise ValueError(f"images must have shape (L, steps, C, H, W), got {tuple(as_tensor(images, 'images').shape)}")
    low, high = check_number("low", low), check_number("high", high)
    others = "" if fixed is None else f"the other coordinates stay at {check_number('fixed', fixed):g}"
    fig = _mosaic(tiles, title or "One latent coordinate varied at a time", others, left=64)
    values, rows = [f"{s:.3g}" for s in np.linspace(low, high, tiles.shape[1])], list(range(len(tiles)))
    fig.update_xaxes(title_text="value of the coordinate", tickvals=list(range(len(values))), ticktext=values)
    return fig.update_yaxes(title_text="coordinate", tickvals=rows, ticktext=[str(row + 1) for row in rows])


def thumbnails(
    images,
    index=None,
    *,
    columns: int = 10,
    limit: int = 100,
    title: str | None = None,
    subtitle: str = "in the order given, row by row",
) -> go.Figure:
    """The images in the order of `index`, each above its class name (without labels: above its index).

    images: ImageSet, or (N, C, H, W). index: (n,) indices into them, default all. limit: at most so many are drawn.
    """
    tiles = pixels(images)
    index = torch.arange(len(tiles)) if index is None else check_index(index, len(tiles), "index")
    if not len(index):
        raise ValueError("index must hold at least one image, got none")
    columns = check_int("columns", columns, low=1)
    shown, height = index[: check_int("limit", limit, low=1)], tiles.shape[1]
    columns, place = min(columns, len(shown)), np.arange(len(shown))
    part = f"{len(index)} images" if len(shown) == len(index) else f"The first {len(shown)} of {len(index)} images"
    gap, caption = math.ceil(0.06 * height), round(0.32 * height)  # white around a thumbnail and for its caption
    fig = _mosaic(wrap(tiles[shown.numpy()], columns), title or part, subtitle, gap=gap, caption=caption)
    foot = (gap + height) / (2 * gap + height + caption) - 0.44  # of a tile and some air, in cells from its centre
    captions = captions_of(images, shown)
    font = {"size": 12 if max(map(len, captions)) <= 8 else 10, "color": INK}
    look = {"mode": "text", "textposition": "bottom center", "textfont": font, "showlegend": False}
    look |= {"customdata": shown.numpy(), "hovertemplate": "image %{customdata}: %{text}<extra></extra>"}
    fig.add_trace(go.Scatter(x=place % columns, y=place // columns + foot, text=captions, **look))
    return fig.update_layout(xaxis_visible=False, yaxis_visible=False, margin_l=16, margin_b=16)


def captions_of(images, shown: torch.Tensor) -> list[str]:
    """For the images at `shown`: the class name, several with commas, or without labels the index."""
    labels, names = labels_of(images if isinstance(images, ImageSet) else None)
    if labels is None:
        return [str(i) for i in shown.tolist()]
    if labels.ndim == 1:
        return [names[c] for c in labels[shown].tolist()]
    return [", ".join(n for n, on in zip(names, row, strict=True) if on) or "none" for row in labels[shown].tolist()]


def wrap(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles (n, H, W, C) as rows of `columns`, the last one filled with white."""
    white = np.full((-len(tiles) % columns, *tiles.shape[1:]), 255, dtype=np.uint8)
    return np.concatenate([tiles, white]).reshape(-1, columns, *tiles.shape[1:])


def _mosaic(tiles, title, subtitle="", *, gap=None, caption=0, square=64, left=40):
    """Tiles (R, K, H, W, C) uint8 as one image trace; tile (r, k) is centred on (k, r), row 0 on top.

    gap: white on every side of a tile, by default 3 % of its height, and caption: more white below it, in pixels of
    the tile; square: its width, and left: the left margin, in pixels of the screen.
    """
    rows, columns, height = tiles.shape[:3]
    gap = math.ceil(0.03 * height) if gap is None else gap
    picture, tile_h, tile_w = canvas(tiles, gap, gap + caption)
    repeat, source = png(picture)
    dx, dy = 1 / (tile_w * repeat), 1 / (tile_h * repeat)
    fig = go.Figure(go.Image(source=source, x0=-0.5 + dx / 2, y0=-0.5 + dy / 2, dx=dx, dy=dy, hoverinfo="skip"))
    bare = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    fig.update_xaxes(range=[-0.5, columns - 0.5], **bare)
    fig.update_yaxes(range=[rows - 0.5, -0.5], scaleanchor="x", scaleratio=tile_h / tile_w, **bare)
    size = {"width": max(420, left + 40 + columns * square), "height": 140 + round(rows * square * tile_h / tile_w)}
    return apply_layout(fig, title, subtitle, **size, margin_l=left)


def canvas(tiles: np.ndarray, gap: int, below: int) -> tuple[np.ndarray, int, int]:
    """Tiles (R, K, H, W, C) side by side as (R h, K w, C), each with white around it; and the cell's h and w."""
    padded = np.pad(tiles, ((0, 0), (0, 0), (gap, below), (gap, gap), (0, 0)), constant_values=255)
    rows, columns, height, width, channels = padded.shape
    return padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels), height, width
