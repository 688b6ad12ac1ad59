"""Names for the controls that ipywidgets leaves without one, and a frame around whatever has the focus."""

import anywidget

from lalib.widgets.parts import STYLE


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
