"""Plotly figures as widgets that a busy page still draws, and that are the same on every page; the sampling map."""

import json
from collections.abc import Mapping

import anywidget
import numpy as np
import plotly.graph_objects as go
import torch
import traitlets
from plotly.offline import get_plotlyjs

from lalib.data.imageset import ImageSet
from lalib.figures.maps import equal_axes
from lalib.figures.marks import points
from lalib.figures.style import COLOURS, GREY, INK, apply_layout

PLOTLY_SYMBOLS = (0, 1, 2, 5, 3, 4, 6, 17, 13)  # plotly's numbers of figures' SYMBOLS
SIZES = {"circle-open": 12, "square-open": 15}  # of the marks: where both strategies pick, one lies in the other
MARKS = [{"symbol": symbol, "size": size, "color": INK, "line": {"width": 1.6}} for symbol, size in SIZES.items()]
HOVER = {"hovertemplate": "image %{customdata}<extra></extra>"}


class Library(anywidget.AnyWidget):
    """plotly.js, which goes to the page once for all its plots."""

    source = traitlets.Unicode().tag(sync=True)
    stays = True  # where one of its plots is closed
    _esm = "export default {}"
    _shared = None

    @classmethod
    def shared(cls) -> "Library":
        """The one of this kernel; another one if that was closed."""
        if cls._shared is None or cls._shared.comm is None:
            cls._shared = cls(source=get_plotlyjs())
        return cls._shared


class Plot(anywidget.AnyWidget):
    """A figure in the notebook that can be changed: `la.widgets.Plot(fig)` shows it, plot.show(other) another one.

    figure: what is shown. fixed: so many of the first traces are sent only if they differ from those shown.
    plotly's FigureWidget sends 5 MB of JavaScript with every plot; a page that needs more than two seconds to read them
    never hears of a change (anywidget 0.11).
    """

    library = anywidget.WidgetTrait().tag(sync=True)
    ground, traces = (traitlets.List(traitlets.Dict()).tag(sync=True) for _ in range(2))
    frame = traitlets.Dict().tag(sync=True)
    _esm = """
    async function read(library) {
      const source = (await library).get("source");
      const module = ["const module = { exports: {} };\\n", source, "\\nexport default module.exports;"];
      const address = URL.createObjectURL(new Blob(module, { type: "text/javascript" }));
      const plotly = await import(address);
      URL.revokeObjectURL(address);
      return plotly.default;
    }

    export default { async render({ model, el, host }) {
      const box = el.appendChild(document.createElement("div"));
      window.lalibPlotly ??= read(host.getModel(model.get("library"))); // every widget has a module of its own
      const plotly = await window.lalibPlotly;
      const parts = ["ground", "traces", "frame"];
      const draw = () => {
        const [ground, traces, layout] = parts.map((part) => structuredClone(model.get(part)));
        return plotly.react(box, [...ground, ...traces], layout, { displaylogo: false }); // a link to plotly's site
      };
      let waiting = false;
      const soon = () => {
        if (!waiting) requestAnimationFrame(() => { waiting = false; draw(); });
        waiting = true;
      };
      for (const part of parts) model.on(`change:${part}`, soon);
      await draw();
      return () => plotly.purge(box);
    } };
    """

    def __init__(self, figure: go.Figure, fixed: int = 0):
        self.fixed = fixed
        super().__init__(library=Library.shared())
        self.show(figure)

    def show(self, figure: go.Figure) -> None:
        """Show this figure instead."""
        self.figure = figure
        whole = json.loads(figure.to_json())  # arrays as base64
        with self.hold_sync():
            self.ground, self.traces = whole["data"][: self.fixed], whole["data"][self.fixed :]
            self.frame = whole["layout"]


class SamplingMap(Plot):
    """Faded points, those that are picked, and a ring or a square around them that tells by which strategy.

    The colours travel as int16 class numbers, not as strings, the faded points only when they have moved. These are
    made once: plotly takes seconds to check the shapes of 60,000.
    """

    def __init__(self, images: ImageSet, codes: torch.Tensor):
        single = images.labels is not None and not images.multi_label
        names, colours = (images.class_names, COLOURS) if single else (("",), (GREY,))
        numbers = images.labels.numpy() if single else np.zeros(len(images))
        self.codes, self.numbers, n = codes, numbers.astype(np.int16), len(names)
        steps = [[(c + side) / n, colours[c % len(colours)]] for c in range(n) for side in (0, 1)]  # one per class
        bar = {"tickvals": list(range(n)), "ticktext": list(names), "title": {"text": "class"}, "thickness": 16}
        self.scale = {"colorscale": steps, "cmin": -0.5, "cmax": n - 0.5, "showscale": single, "colorbar": bar}
        fig = go.Figure(self._coloured(torch.arange(len(codes)), opacity=0.3))
        equal_axes(fig, "map coordinate")
        legend = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "trace"}
        super().__init__(apply_layout(fig, "", width=590, height=470, legend=legend), fixed=1)

    def mark(self, codes: torch.Tensor, picked: Mapping[str, torch.Tensor], title: str) -> None:
        """Mark what is picked on the map codes (N, 2): at most two names, as the legend has them, and indices (n,)."""
        self.codes, fig = codes, self.figure
        x, y = codes.T.numpy()
        fig.data[0].update(x=x, y=y)
        fig.data = fig.data[:1]
        union = torch.cat([torch.empty(0, dtype=torch.int64), *picked.values()]).unique()
        fig.add_trace(self._coloured(union, showscale=False))
        for (name, index), mark in zip(picked.items(), MARKS, strict=False):
            fig.add_trace(points(codes, index, **HOVER, name=name, marker=mark, showlegend=True))
        fig.update_layout(title_text=title, uirevision=title)  # a reader's zoom stays while the map does
        self.show(fig)

    def _coloured(self, index, **marker):
        """The images at `index`, in the colours and shapes of their classes."""
        numbers = self.numbers[index.numpy()]
        shapes = np.array(PLOTLY_SYMBOLS, dtype=np.int16)[numbers % len(PLOTLY_SYMBOLS)]
        marker = self.scale | {"size": 6, "color": numbers, "symbol": shapes} | marker
        return points(self.codes, index, **HOVER, marker=marker, showlegend=False)
