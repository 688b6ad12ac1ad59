"""A map of many codes (jupyter-scatter) with a cursor, which follows the pointer and the arrow keys."""

from collections.abc import Callable, Sequence

import anywidget
import numpy as np
import pandas as pd
import torch
import traitlets

from lalib.widgets.groups import Groups
from lalib.widgets.parts import STYLE

KEYS = "Arrow keys move the cursor, with Shift ten times as far; Enter selects the image nearest to it."


class LatentMap(anywidget.AnyWidget):
    """Points (N, 2) of which groups can be coloured, shown alone and selected, with one place marked by a cross.

    cursor [x, y]: the place. The pointer moves it, a click leaves it there, otherwise it goes back when the pointer
    leaves the map. plot: jupyter-scatter's widget, to be observed for its `selection`. tell(i) gives a picture of
    point i (a data URI) and what is known of it, when the pointer is there. choose() gives the point () that joins
    the selection when Enter is pressed.
    """

    plot = anywidget.WidgetTrait().tag(sync=True)
    cursor = traitlets.List(traitlets.Float()).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    told = traitlets.List(traitlets.Unicode(), ["", ""]).tag(sync=True)
    _esm = """
    export default { async render({ model, el, host, signal }) {
      el.classList.add("lalib-map");
      Object.assign(el, { tabIndex: 0, role: "application" });
      el.dataset.lmSuppressShortcuts = "true"; // otherwise JupyterLab takes keys pressed here for commands
      const follow = (name, act) => { model.on(`change:${name}`, act); act(); };
      follow("label", () => { el.ariaLabel = model.get("label"); });
      // jupyter-scatter misses what changes between its start and its first picture: then it is started again
      const [child, state] = await Promise.all(["getWidget", "getModel"].map((get) => host[get](model.get("plot"))));
      let [missed, canvas, plot] = [true];
      const miss = () => { missed = true; };
      const names = ["points", "color", "selection", "filter", "x_scale_domain", "y_scale_domain", "mouse_mode"];
      for (const name of names) state.on(`change:${name}`, miss);
      for (let start; missed; ) {
        missed = false;
        start?.abort();
        start = new AbortController();
        el.replaceChildren(document.createElement("div"));
        await child.render({ el: el.firstChild, signal: AbortSignal.any([signal, start.signal]) });
        canvas = el.querySelector("canvas");
        do {
          await new Promise(requestAnimationFrame);
          plot = canvas.parentElement.parentElement.api;
        } while (!plot?.get("isPointsDrawn") && !signal.aborted);
      }
      for (const name of names) state.off(`change:${name}`, miss);
      if (signal.aborted) return;
      const add = (tag, parent) => parent.appendChild(document.createElement(tag));
      const [cross, tip] = ["div", "figure"].map((tag) => add(tag, canvas.parentElement));
      const [image, words] = ["img", "figcaption"].map((tag) => add(tag, tip));
      [cross.className, tip.className] = ["lalib-cross", "lalib-tip"];
      const seen = () => [...plot.get("xScale").domain(), ...plot.get("yScale").domain()];
      const place = () => {
        const [[left, right, bottom, top], [x, y]] = [seen(), model.get("cursor")];
        cross.style.left = `${(100 * (x - left)) / (right - left)}%`;
        cross.style.top = `${(100 * (top - y)) / (top - bottom)}%`;
      };
      let [pinned, pressed, mine] = [model.get("cursor"), null, false];
      const move = (x, y) => {
        mine = true;
        model.set("cursor", [x, y]);
        mine = false;
        model.save_changes(); // while the kernel is busy only the latest place is kept
      };
      const pin = () => { pinned = model.get("cursor"); };
      follow("cursor", () => { if (!mine) pin(); place(); });
      for (const change of ["view", "draw"]) plot.subscribe(change, place);
      new ResizeObserver(place).observe(canvas);
      follow("told", () => {
        const [source, text] = model.get("told");
        tip.hidden = !source;
        Object.assign(image, { src: source, alt: text });
        words.textContent = text;
      });
      canvas.addEventListener("pointermove", (event) => {
        const box = canvas.getBoundingClientRect();
        const [across, down] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
        tip.style.inset = `${100 * down}% auto auto ${100 * across}%`;
        const [aside, below] = [across, down].map((share) => (share < 0.5 ? "16px" : "calc(-100% - 16px)"));
        tip.style.transform = `translate(${aside}, ${below})`;
        if (event.buttons) return; // a lasso, or the map is moved
        const [left, right, bottom, top] = seen();
        move(left + across * (right - left), top - down * (top - bottom));
      });
      canvas.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; });
      canvas.addEventListener("click", (event) => {
        el.focus({ preventScroll: true });
        if (Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 4) pin();
      });
      canvas.addEventListener("pointerleave", () => move(...pinned));
      el.addEventListener("keydown", (event) => {
        event.stopPropagation();
        const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
        if (steps) {
          const [[left, right], [x, y]] = [seen(), model.get("cursor")];
          const step = ((right - left) / 200) * (event.shiftKey ? 10 : 1);
          move(x + step * steps[0], y + step * steps[1]);
          pin();
        }
        if (event.key === "Enter") model.send("choose");
        if (steps || event.key === "Enter") event.preventDefault();
      });
    } };
    """
    _css = STYLE

    def __init__(self, points: torch.Tensor, axes: Sequence[str], *, tell: Callable, choose: Callable):
        from jscatter import Scatter  # which imports matplotlib; the sampling explorer does without

        size = 3 if len(points) > 5_000 else 6
        self._scatter = Scatter(*points.T.numpy(), height=500, size=size, axes_grid=True, tooltip=False)
        super().__init__(plot=self._scatter.show(buttons=[]), layout={"flex": "1 1 400px"})  # its own have no names
        self.move(points, axes)
        told = lambda point: ["", ""] if point is None else list(tell(point))  # noqa: E731
        traitlets.dlink((self.plot, "hovering"), (self, "told"), told)
        self.on_msg(lambda *_: self.select(torch.cat([self.selection, choose()[None]]).unique()))

    @property
    def selection(self) -> torch.Tensor:
        """The selected points (n,), int64, ascending."""
        return torch.from_numpy(np.sort(self.plot.selection.astype(np.int64)))

    def select(self, index: torch.Tensor) -> None:
        """Select the points at `index` (n,) in place of those that are."""
        self.plot.selection = index.numpy().astype(np.uint32)

    def move(self, points: torch.Tensor, axes: Sequence[str]) -> None:
        """Put the points elsewhere; axes: what the two directions are. One unit is as long in both."""
        low, high = points.min(dim=0).values, points.max(dim=0).values
        half = 1.05 * float((high - low).max()) / 2 or 1.0
        scales = [(float(middle) - half, float(middle) + half) for middle in (low + high) / 2]
        self._scatter.xy(*points.T.numpy(), *scales)
        self._scatter.axes(labels=list(axes))
        self.label = f"Map of {len(points):,} images; across: {axes[0]}, upwards: {axes[1]}. {KEYS}"

    def colour(self, groups: Groups) -> None:
        """Give every point its group's colour."""
        there = np.unique(groups.index).tolist()
        numbers = pd.Categorical.from_codes(groups.index, categories=range(len(groups.names)))
        self._scatter.color(by=numbers, map={group: groups.colours[group] for group in there})

    def show(self, index: torch.Tensor) -> None:
        """Show the points at `index` (n,) only."""
        self._scatter.filter(None if len(index) == len(self.plot.points) else index.numpy())


def nearest(points: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """The index (), int64, of the row of points (N, L) nearest to point (L,)."""
    return (points - point).square().sum(dim=1).argmin()
