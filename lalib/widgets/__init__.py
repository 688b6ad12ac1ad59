"""Figures wired to controls, or to a comparison while it runs, for notebooks."""

from lalib.widgets.explorer import SamplingExplorer, options_of, sampling_explorer, selection_in_words
from lalib.widgets.live import LiveCurves, Race

__all__ = ["LiveCurves", "Race", "SamplingExplorer", "options_of", "sampling_explorer", "selection_in_words"]
