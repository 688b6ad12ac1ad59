"""A plotly figure as a widget that a busy page still draws, and that is the same on every page."""

import json

import anywidget
import plotly.graph_objects as go
import traitlets
from plotly.offline import get_plotlyjs


class Library(anywidget.AnyWidget):
    """plotly.js, which goes to the page once for all its plots."""

    source = traitlets.Unicode().tag(sync=True)
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
      const module = ["const module = { exports: {} };", source, "export default module.exports;"];
      const address = URL.createObjectURL(new Blob([module.join("\\n")], { type: "text/javascript" }));
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
