"""What all figures share: colours, shapes, layout, and checks of what is to be drawn."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import plotly.graph_objects as go


# Okabe and Ito's eight (grey in place of black, which is the colour of outlines and text), wine and brown.
COLOURS = (
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # green
    "#D55E00",  # vermillion
    "#CC79A7",  # purple
    "#56B4E9",  # sky blue
    "#882255",  # wine
    "#F0E442",  # yellow
    "#8C8C8C",  # grey
    "#6B4A1B",  # brown
)
# One fewer than the colours: the pair of colour and shape repeats only after 90 groups.
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star", "pentagon")
INK = "#222222"
SHARE_BUTTONS = ("sendChartToCloud", "sendDataToCloud")  # plotly 7's and 6's name: they send data to a public service


def colour(group: int) -> str:
    """The colour of a class, cluster or curve."""
    return COLOURS[group % len(COLOURS)]


def symbol(group: int) -> str:
    """The marker shape that goes with colour(group)."""
    return SYMBOLS[group % len(SYMBOLS)]


def heading(title: str, subtitle: str = "") -> str:
    """A title with a smaller grey line under it."""
    return f'{title}<br><span style="font-size:13px;color:#555555">{subtitle}</span>' if subtitle else title


def apply_layout(fig: "go.Figure", title: str, subtitle: str = "", *, width: int, height: int, **layout) -> "go.Figure":
    """White background, readable type, room for the title, no button that shares data; returns `fig`."""
    top = 30 if subtitle else 16  # plotly aligns the first line's foot, not its head, when there are two
    place = {"x": 0.0, "xref": "container", "xanchor": "left", "y": 1.0, "yref": "container", "yanchor": "top"}
    fig.update_layout(
        template="plotly_white",
        title={"text": heading(title, subtitle), "font": {"size": 17}, "pad": {"l": 16, "t": top}, **place},
        font={"size": 13, "color": INK},
        margin={"l": 64, "r": 24, "t": 84 if subtitle else 56, "b": 56},
        width=width,
        height=height,
        modebar={"remove": list(SHARE_BUTTONS)},
    )
    return fig.update_layout(layout)


def labels_of(images, n: int | None = None) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels (N,), or (N, C) of 0 and 1, and class names of an ImageSet or of a label tensor; (None, ()) without any.

    Raises ValueError if there are not `n` of them.
    """
    if images is None:
        return None, ()
    labels = images.labels if hasattr(images, "class_names") else torch.as_tensor(images)
    if labels is None:
        return None, ()
    if labels.ndim not in (1, 2) or labels.is_floating_point():
        raise ValueError(f"labels must be whole numbers of shape (N,) or (N, C), got {_what(labels)}")
    if n is not None and len(labels) != n:
        raise ValueError(f"there must be one label per code: got {len(labels)} labels and {n} codes")
    names = tuple(getattr(images, "class_names", None) or ())
    classes = labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
    return labels.cpu(), names or tuple(str(c) for c in range(classes))


def pixels(images, name: str = "images") -> np.ndarray:
    """Images (..., C, H, W), uint8 or float in [0, 1], as uint8 (..., H, W, C); an ImageSet gives its images."""
    images = torch.as_tensor(getattr(images, "images", images)).detach().cpu()
    if images.ndim < 4 or images.shape[-3] not in (1, 3) or images.numel() == 0:
        raise ValueError(f"{name} must have shape (..., C, H, W) with C = 1 or 3, got {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise TypeError(f"{name} must be uint8 or floating point in [0, 1], got {images.dtype}")
        low, high = float(images.min()), float(images.max())
        if not (low >= -1e-4 and high <= 1 + 1e-4):  # false for NaN, too
            raise ValueError(f"{name} must lie in [0, 1] if floating point, got values from {low:.3g} to {high:.3g}")
        images = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return images.movedim(-3, -1).numpy()


def png(canvas: np.ndarray, side: int = 800) -> tuple[int, str]:
    """How often every pixel is repeated so that the longer side is about `side`, and the PNG so made as a data URI.

    canvas: (H, W, 1 or 3) uint8. Browsers smooth an image that they enlarge: 8 x 8 digits would be a blur.
    """
    from PIL import Image

    factor = max(1, round(side / max(canvas.shape[:2])))
    canvas = canvas.repeat(factor, axis=0).repeat(factor, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(canvas[..., 0] if canvas.shape[-1] == 1 else canvas).save(buffer, format="PNG")
    return factor, "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _what(tensor):
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
