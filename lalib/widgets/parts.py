"""What the widgets share: controls and names for them, a sentence that screen readers announce, sliders, pictures."""

import html
from collections.abc import Callable, Mapping
from pathlib import Path

import anywidget
import ipywidgets
import torch
import traitlets

from lalib.figures.marks import pixels, png

STYLE = Path(__file__).with_name("widgets.css")
LABEL = {"description_width": "118px"}
WRAP = {"flex_flow": "row wrap"}


class Panel(ipywidgets.VBox):
    """A box of widgets whose settings are in `controls`, by name."""

    controls: Mapping[str, ipywidgets.DOMWidget]

    def value(self, name: str):
        """The value of a control."""
        return self.controls[name].value


def control(kind: type, name: str, **options) -> ipywidgets.DOMWidget:
    """A control with a name in front of it, which is its label for screen readers, too."""
    return kind(description=name, style=LABEL, **options)


def button(name: str, act: Callable[[], None], **options) -> ipywidgets.Button:
    """A button, as wide as its name, that calls act()."""
    made = ipywidgets.Button(description=name, **{"layout": {"width": "auto"}} | options)
    made.on_click(lambda _: act())
    return made


def row(*widgets: ipywidgets.DOMWidget, **layout: str) -> ipywidgets.HBox:
    """The widgets side by side, where there is room for it."""
    return ipywidgets.HBox(widgets, layout=WRAP | layout)


def close(widget: ipywidgets.Widget) -> None:
    """Close it with its parts, layout and style, which would stay in the kernel and hold what the page has drawn.

    A part that others have, too, says so by `stays`.
    """
    held = [*(getattr(widget, name) for name in widget.keys), *vars(widget).values()]
    widget.close()
    for each in held:
        for part in each if isinstance(each, tuple | list) else [each]:
            if isinstance(part, ipywidgets.Widget) and part.comm is not None and not getattr(part, "stays", False):
                close(part)


class Sentence(anywidget.AnyWidget):
    """A text, line by line, that screen readers announce when it changes.

    The live region must outlast its text: ipywidgets.HTML replaces its content and stays silent in some readers.
    """

    value = traitlets.Unicode().tag(sync=True)
    _esm = """
    export default { render({ model, el }) {
      el.classList.add("lalib-sentence");
      Object.assign(el, { role: "status", ariaLive: "polite" });
      const show = () => { el.textContent = model.get("value"); };
      model.on("change:value", show);
      show();
    } };
    """
    _css = STYLE


class Coordinates(anywidget.AnyWidget):
    """One slider per coordinate of a code `values` (L,), from `low` (L,) to `high` (L,), with the value beside it.

    A value beyond its slider puts that at its end. The sliders are the browser's own: those of ipywidgets have no name
    that a screen reader finds. While the kernel is busy only the latest values are kept: no queue of decodings.
    """

    values, low, high = (traitlets.List(traitlets.Float()).tag(sync=True) for _ in range(3))
    _esm = """
    export default { render({ model, el }) {
      el.classList.add("lalib-coordinates");
      Object.assign(el, { role: "group", ariaLabel: "coordinates of the cursor" });
      el.dataset.lmSuppressShortcuts = "true"; // otherwise JupyterLab takes keys pressed here for commands
      const [low, high] = [model.get("low"), model.get("high")];
      el.innerHTML = low.map((least, k) => `<label><span>coordinate ${k + 1}</span><input type="range"
        aria-label="coordinate ${k + 1}" min="${least}" max="${high[k]}" step="${(high[k] - least) / 200 || 1}">
        <output></output></label>`).join("");
      const [inputs, outputs] = ["input", "output"].map((tag) => [...el.querySelectorAll(tag)]);
      inputs.forEach((input, k) => input.addEventListener("input", () => {
        model.set("values", model.get("values").with(k, Number(input.value)));
        model.save_changes();
      }));
      el.addEventListener("keydown", (event) => event.stopPropagation());
      const show = () => model.get("values").forEach((value, k) => {
        inputs[k].value = value;
        outputs[k].textContent = inputs[k].ariaValueText = value.toPrecision(3);
      });
      model.on("change:values", show);
      show();
    } };
    """
    _css = STYLE


class Names(anywidget.AnyWidget):
    """Invisible; put into a box, it names the sliders and the plots of the page, and shows where the keyboard is.

    ipywidgets labels a slider for the eye only, and plotly its plots by a title: screen readers say "slider" and "".
    """

    _esm = """
    const tell = (element, attribute, text) => {
      if (element && text && element.getAttribute(attribute) !== text) element.setAttribute(attribute, text);
    };
    const text = (parent, selector) => parent.querySelector(selector)?.textContent.trim();
    function nameAll() {
      for (const slider of document.querySelectorAll(".widget-slider")) {
        const label = text(slider, ".widget-label"), value = text(slider, ".widget-readout");
        const handle = slider.querySelector("[role=slider]");
        const typed = slider.querySelector(".widget-readout[contenteditable=true]");
        tell(handle, "aria-label", label);
        tell(handle, "aria-valuetext", value);
        tell(typed, "role", "textbox");
        tell(typed, "aria-label", `${label}, typed`);
      }
      for (const plot of document.querySelectorAll(".js-plotly-plot")) {
        const lines = [...plot.querySelectorAll(".gtitle .line")].map((line) => line.textContent.trim());
        tell(plot, "role", "img");
        tell(plot, "aria-label", `Plot: ${lines.join(", ") || text(plot, ".gtitle") || "without a title"}`);
      }
    }
    let waiting = false;
    function soon() {
      if (!waiting) requestAnimationFrame(() => { waiting = false; nameAll(); });
      waiting = true;
    }

    export default { render({ el }) {
      el.hidden = true;
      const observer = new MutationObserver(soon);
      observer.observe(document.body, { childList: true, subtree: true, characterData: true });
      soon();
      return () => observer.disconnect();
    } };
    """
    _css = STYLE


def counted(n: int, what: str) -> str:
    """A number of things in words: "1 image", "1,200 images"."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def source(image: torch.Tensor, side: int) -> str:
    """A data URI of an image (C, H, W), about `side` pixels wide."""
    return png(pixels(image[None])[0], side)[1]


def picture(image: torch.Tensor, caption: str, side: int, words: str | None = None) -> str:
    """A <figure> of an image (C, H, W), `side` pixels wide, above its caption; words: what stands for it."""
    caption, words = html.escape(caption), html.escape(words or caption, quote=True)
    made = f'<img src="{source(image, side)}" alt="{words}" style="width:{side}px"><figcaption>{caption}</figcaption>'
    return f'<figure class="lalib-picture" style="width:{max(side, 64)}px">{made}</figure>'
