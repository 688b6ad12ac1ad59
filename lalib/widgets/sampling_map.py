"""A map with all images, faded, and what one or two strategies have picked from it."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import torch

from lalib.data import ImageSet
from lalib.figures._style import COLOURS, INK, apply_layout
from lalib.figures.maps import MANY_POINTS
from lalib.widgets._plot import Plot

__all__ = ["MARKS", "SamplingMap"]

PLOTLY_SYMBOLS = (0, 1, 2, 5, 3, 4, 6, 17, 13)  # plotly's numbers of figures' SYMBOLS
# A square around a ring shows an image that both have picked.
MARKS = {"ring": {"symbol": "circle-open", "size": 12}, "square": {"symbol": "square-open", "size": 15}}


class SamplingMap(Plot):
    """Faded points, those that are picked, and a ring or a square around them that tells by which strategy.

    The colours travel as int16 class numbers, not as strings.
    """

    def __init__(self, images: ImageSet, codes: torch.Tensor):
        kind = go.Scattergl if len(codes) > MANY_POINTS else go.Scatter
        everything = torch.arange(len(codes))
        hover = {"hovertemplate": "image %{customdata}<extra></extra>", "mode": "markers"}
        color, shape = _look(images, everything)
        scale = _scale(images) | {"size": 6}
        faded = scale | {"color": color, "symbol": shape, "opacity": 0.3}
        x, y = codes.T.numpy()
        line = {"color": INK, "line": {"width": 1.6}}
        data = [
            kind(x=x, y=y, customdata=everything.numpy(), marker=faded, showlegend=False, **hover),
            kind(x=[], y=[], marker=scale | {"showscale": False}, showlegend=False, **hover),
            *(kind(x=[], y=[], marker=mark | line, showlegend=True, **hover) for mark in MARKS.values()),
        ]
        super().__init__(data)
        self._images, self._codes = images, codes
        self.update_xaxes(title_text="latent coordinate 1", constrain="domain", zeroline=False)
        self.update_yaxes(title_text="latent coordinate 2", scaleanchor="x", constrain="domain", zeroline=False)
        legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
        apply_layout(self, "", width=620, height=500, legend=legend)

    def move(self, codes: torch.Tensor) -> None:
        """Put the points elsewhere, at codes (N, 2); what is picked is to be marked again."""
        self._codes = codes
        self._redraw(0, torch.arange(len(codes)))

    def mark(self, picked: Mapping[str, torch.Tensor]) -> None:
        """Mark what is picked: at most two names, as the legend has them, and their indices (n,)."""
        union = torch.cat([torch.empty(0, dtype=torch.int64), *picked.values()]).unique()
        color, shape = _look(self._images, union)
        self._redraw(1, union, color=color, symbol=shape)
        rows = [*picked.items(), *[("", union[:0])] * len(MARKS)]
        for trace, (name, index) in enumerate(rows[: len(MARKS)], start=2):
            self._redraw(trace, index)
            self.data[trace].update(name=name, showlegend=bool(name))

    def _redraw(self, trace, index, **marker):
        """One trace at a time: a batch over several resets in the browser what only some of them change."""
        x, y = self._codes[index].T.numpy()
        with self.batch_update():
            self.data[trace].update(x=x, y=y, customdata=index.numpy(), marker=marker)


def _look(images, index):
    """Colour numbers and marker shapes of the images at `index`, int16; all alike where images have no single class."""
    if images.labels is None or images.multi_label:
        return np.zeros(len(index), dtype=np.int16), 0
    labels = images.labels[index].numpy().astype(np.int16)
    return labels, np.array(PLOTLY_SYMBOLS, dtype=np.int16)[labels % len(PLOTLY_SYMBOLS)]


def _scale(images):
    """A stepped colour scale with one step per class, and its bar as the legend."""
    if images.labels is None or images.multi_label:
        return {"colorscale": [[0, "#777777"], [1, "#777777"]], "cmin": 0, "cmax": 1, "showscale": False}
    n = images.n_classes
    steps = [[(c + side) / n, COLOURS[c % len(COLOURS)]] for c in range(n) for side in (0, 1)]
    bar = {"tickvals": list(range(n)), "ticktext": list(images.class_names), "title": {"text": "class"}}
    return {"colorscale": steps, "cmin": -0.5, "cmax": n - 0.5, "showscale": True, "colorbar": bar | {"thickness": 16}}
