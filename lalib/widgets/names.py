"""Names for the controls that ipywidgets leaves without one, and a frame around whatever has the focus."""

import anywidget

from lalib.widgets.parts import STYLE


class Names(anywidget.AnyWidget):
    """Invisible; put into a box, it names the sliders and the plots of the page, and shows where the keyboard is.

    ipywidgets labels a slider for the eye only, and plotly its plots by a title: screen readers say "slider" and "".
    """

    _esm = """
    const name = (element, text) => {
      if (text && element.getAttribute("aria-label") !== text) element.setAttribute("aria-label", text);
    };
    const text = (parent, selector) => parent.querySelector(selector)?.textContent.trim();

    function nameAll() {
      for (const slider of document.querySelectorAll(".widget-slider")) {
        const label = text(slider, ".widget-label"), value = text(slider, ".widget-readout");
        const handle = slider.querySelector("[role=slider]"), readout = slider.querySelector(".widget-readout");
        if (handle) {
          name(handle, label);
          if (value && handle.getAttribute("aria-valuetext") !== value) handle.setAttribute("aria-valuetext", value);
        }
        if (readout?.isContentEditable) {
          if (!readout.hasAttribute("role")) readout.setAttribute("role", "textbox");
          name(readout, `${label}, typed`);
        }
      }
      for (const plot of document.querySelectorAll(".js-plotly-plot")) {
        if (!plot.hasAttribute("role")) plot.setAttribute("role", "img");
        const lines = [...plot.querySelectorAll(".gtitle .line")].map((line) => line.textContent.trim());
        name(plot, `Plot: ${lines.join(", ") || text(plot, ".gtitle") || "without a title"}`);
      }
    }

    let waiting = false;
    function soon() {
      if (!waiting) requestAnimationFrame(() => { waiting = false; nameAll(); });
      waiting = true;
    }

    function render({ el }) {
      el.hidden = true;
      const observer = new MutationObserver(soon);
      observer.observe(document.body, { childList: true, subtree: true, characterData: true });
      soon();
      return () => observer.disconnect();
    }
    export default { render };
    """
    _css = STYLE
