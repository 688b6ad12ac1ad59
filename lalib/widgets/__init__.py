"""Figures wired to controls, or to a comparison while it runs, for notebooks."""

from lalib.widgets.explorer import SamplingExplorer, options_of, sampling_explorer, selection_in_words
from lalib.widgets.latent_explorer import LatentExplorer, latent_explorer
from lalib.widgets.live import LiveCurves

__all__ = [
    "LatentExplorer",
    "LiveCurves",
    "SamplingExplorer",
    "latent_explorer",
    "options_of",
    "sampling_explorer",
    "selection_in_words",
]
