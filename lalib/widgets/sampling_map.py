"""A map with all images, faded, and what one or two strategies have picked from it."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
import torch

from lalib.data.imageset import ImageSet
from lalib.figures.marks import points
from lalib.figures.style import COLOURS, GREY, INK, apply_layout
from lalib.widgets.plot import Plot

PLOTLY_SYMBOLS = (0, 1, 2, 5, 3, 4, 6, 17, 13)  # plotly's numbers of figures' SYMBOLS
MARKS = ({"symbol": "circle-open", "size": 12}, {"symbol": "square-open", "size": 15})  # of both: one in the other
LINE = {"color": INK, "line": {"width": 1.6}}
HOVER = {"hovertemplate": "image %{customdata}<extra></extra>"}


class SamplingMap(Plot):
    """Faded points, those that are picked, and a ring or a square around them that tells by which strategy.

    The colours travel as int16 class numbers, not as strings; the faded points only when they have moved. They are made
    once, as plotly checks the shape of each: seconds for 60,000.
    """

    def __init__(self, images: ImageSet, codes: torch.Tensor):
        self.images, self.codes = images, codes
        fig = go.Figure(self._coloured(torch.arange(len(codes)), opacity=0.3))
        fig.update_xaxes(title_text="latent coordinate 1", constrain="domain", zeroline=False)
        fig.update_yaxes(title_text="latent coordinate 2", scaleanchor="x", constrain="domain", zeroline=False)
        legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
        super().__init__(apply_layout(fig, "", width=620, height=500, legend=legend), fixed=1)

    def mark(self, codes: torch.Tensor, picked: Mapping[str, torch.Tensor], title: str) -> None:
        """Mark what is picked on the map codes (N, 2): at most two names, as the legend has them, and indices (n,)."""
        self.codes, fig = codes, self.figure
        x, y = codes.T.numpy()
        fig.data[0].update(x=x, y=y)
        fig.data = fig.data[:1]
        union = torch.cat([torch.empty(0, dtype=torch.int64), *picked.values()]).unique()
        fig.add_trace(self._coloured(union, showscale=False))
        for (name, index), mark in zip(picked.items(), MARKS, strict=False):
            fig.add_trace(points(self.codes, index, **HOVER, name=name, marker=mark | LINE, showlegend=True))
        fig.update_layout(title_text=title, uirevision=title)  # a reader's zoom stays while the map does
        self.show(fig)

    def _coloured(self, index, **marker):
        color, shape = _look(self.images, index)
        marker = _scale(self.images) | {"size": 6, "color": color, "symbol": shape} | marker
        return points(self.codes, index, **HOVER, marker=marker, showlegend=False)


def _look(images, index):
    """Colour numbers and marker shapes of the images at `index`, int16; all alike where images have no single class."""
    if images.labels is None or images.multi_label:
        return np.zeros(len(index), dtype=np.int16), 0
    labels = images.labels[index].numpy().astype(np.int16)
    return labels, np.array(PLOTLY_SYMBOLS, dtype=np.int16)[labels % len(PLOTLY_SYMBOLS)]


def _scale(images):
    """A stepped colour scale with one step per class, and its bar as the legend."""
    if images.labels is None or images.multi_label:
        return {"colorscale": [[0, GREY], [1, GREY]], "cmin": 0, "cmax": 1, "showscale": False}
    n = images.n_classes
    steps = [[(c + side) / n, COLOURS[c % len(COLOURS)]] for c in range(n) for side in (0, 1)]
    bar = {"tickvals": list(range(n)), "ticktext": list(images.class_names), "title": {"text": "class"}}
    return {"colorscale": steps, "cmin": -0.5, "cmax": n - 0.5, "showscale": True, "colorbar": bar | {"thickness": 16}}
