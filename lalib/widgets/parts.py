"""What the widgets share: a sentence that screen readers announce, sliders with names, pictures and counts in words."""

import html
from collections.abc import Sequence

import anywidget
import numpy as np
import torch
import traitlets

from lalib.figures.marks import pixels, png

LABEL = {"description_width": "118px"}
SWATCH = "display:inline-block;width:0.9em;height:0.9em;border:1px solid #222;vertical-align:middle;background:"


class Sentence(anywidget.AnyWidget):
    """A text, line by line, that screen readers announce when it changes.

    The live region must outlast its text: ipywidgets.HTML replaces its content and stays silent in some readers.
    """

    value = traitlets.Unicode().tag(sync=True)
    _esm = """
    function render({ model, el }) {
      el.classList.add("lalib-sentence");
      el.setAttribute("role", "status");
      el.setAttribute("aria-live", "polite");
      const show = () => { el.textContent = model.get("value"); };
      model.on("change:value", show);
      show();
    }
    export default { render };
    """
    _css = """
    .lalib-sentence { font-size: 14px; line-height: 1.5; padding: 6px 4px; max-width: 70em; white-space: pre-line; }
    """


class Coordinates(anywidget.AnyWidget):
    """One slider per coordinate of a code `values` (L,), from `low` (L,) to `high` (L,), with the value beside it.

    A value set from elsewhere may lie beyond its slider, which then stands at its end. They are the browser's own
    sliders, because those of ipywidgets have no name that a screen reader finds. While the kernel is busy the browser
    keeps the latest values only, so that a fast hand leaves no queue of decodings behind.
    """

    values = traitlets.List(traitlets.Float()).tag(sync=True)
    low = traitlets.List(traitlets.Float()).tag(sync=True)
    high = traitlets.List(traitlets.Float()).tag(sync=True)
    _esm = """
    function render({ model, el }) {
      el.classList.add("lalib-coordinates");
      el.setAttribute("role", "group");
      el.setAttribute("aria-label", "coordinates of the cursor");
      el.dataset.lmSuppressShortcuts = "true"; // otherwise JupyterLab takes keys pressed here for commands
      const [low, high] = [model.get("low"), model.get("high")];
      const rows = low.map((_, k) => {
        const [label, input, output] = ["label", "input", "output"].map((tag) => document.createElement(tag));
        const name = document.createElement("span");
        name.textContent = `coordinate ${k + 1}`;
        input.setAttribute("aria-label", name.textContent);
        Object.assign(input, { type: "range", min: low[k], max: high[k], step: (high[k] - low[k]) / 200 || 1 });
        input.addEventListener("input", () => {
          const values = [...model.get("values")];
          values[k] = Number(input.value);
          model.set("values", values);
          model.save_changes();
        });
        label.append(name, input, output);
        el.append(label);
        return [input, output];
      });
      el.addEventListener("keydown", (event) => event.stopPropagation());
      const show = () => rows.forEach(([input, output], k) => {
        const value = model.get("values")[k];
        input.value = value;
        output.textContent = value.toPrecision(3);
        input.setAttribute("aria-valuetext", output.textContent);
      });
      model.on("change:values", show);
      show();
    }
    export default { render };
    """
    _css = """
    .lalib-coordinates { max-height: 260px; overflow-y: auto; padding: 4px; }
    .lalib-coordinates label { display: flex; align-items: center; gap: 8px; font-size: 13px; }
    .lalib-coordinates span { flex: none; width: 7em; }
    .lalib-coordinates input { flex: auto; min-width: 60px; }
    .lalib-coordinates input:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
    .lalib-coordinates output { flex: none; width: 4.5em; font-variant-numeric: tabular-nums; }
    """


def counted(n: int, what: str) -> str:
    """A number of things in words: "1 image", "1,200 images"."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def source(image: torch.Tensor, side: int) -> str:
    """A data URI of an image (C, H, W), about `side` pixels wide."""
    return png(pixels(image[None])[0], side)[1]


def picture(image: torch.Tensor, caption: str, side: int, words: str | None = None) -> str:
    """A <figure> of an image (C, H, W), `side` pixels wide, above its caption; words: what stands for it."""
    caption, words = html.escape(caption), html.escape(words or caption, quote=True)
    size = f"width:{side}px;image-rendering:pixelated"
    return (
        f'<figure style="margin:2px;width:{max(side, 64)}px;text-align:center;font-size:12px;line-height:1.3">'
        f'<img src="{source(image, side)}" alt="{words}" style="{size}"><figcaption>{caption}</figcaption></figure>'
    )


def counts_table(
    title: str, names: Sequence[str], colours: Sequence[str], totals: np.ndarray, counts: np.ndarray
) -> str:
    """A table that is a legend as well: colour and name of every group, its images, how many of them are selected."""
    most = max(int(counts.max(initial=0)), 1)
    left, right = (f'style="text-align:{side};padding:0 6px;white-space:nowrap"' for side in ("left", "right"))
    head = f"<th></th><th {left}>{html.escape(title)}</th><th {right}>images</th><th {right}>selected</th><th></th>"
    rows = [
        f'<tr><td><span style="{SWATCH}{colour}"></span></td><td {left}>{html.escape(name)}</td>'
        f"<td {right}>{total:,}</td><td {right}>{count:,}</td>"
        f'<td {left}><div style="height:0.7em;background:#555;width:{50 * count / most:.0f}px"></div></td></tr>'
        for name, colour, total, count in zip(names, colours, totals.tolist(), counts.tolist(), strict=True)
    ]
    style = "font-size:13px;line-height:1.35;max-height:330px;overflow-y:auto;display:block"
    return f'<table style="{style}"><tr>{head}</tr>{"".join(rows)}</table>'
