"""A plotly figure that lies in a box and is the same on every page."""

from copy import deepcopy

import plotly.graph_objects as go

__all__ = ["Plot"]


class Plot(go.FigureWidget):
    """A FigureWidget that tells a page which asks late what it shows now.

    plotly's, if it lies in a box, tells how it was made: Voila's page, which is filled after the cells have run, and
    one that is loaded again would lack all that has been changed since.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._config = {"displaylogo": False}  # a link to plotly's site; by default the address of a service, too

    def get_state(self, key=None, drop_defaults=False) -> dict:
        """The state, or the part `key` of it."""
        if key is None and self.comm is not None:  # all of it, and not while it is being made
            self._widget_layout, self._widget_data = deepcopy(self._layout_obj._props), deepcopy(self._data)
        return super().get_state(key, drop_defaults)
