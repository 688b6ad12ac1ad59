"""Figures wired to controls, or to a comparison while it runs, for notebooks."""

from lalib.widgets.explorer import SamplingExplorer, options_of, sampling_explorer, selection_in_words
from lalib.widgets.labeller import Labeller
from lalib.widgets.latent_explorer import LatentExplorer, latent_explorer
from lalib.widgets.live import LiveCurves, Race

__all__ = [
    "Labeller",
    "LatentExplorer",
    "LiveCurves",
    "Race",
    "SamplingExplorer",
    "latent_explorer",
    "options_of",
    "sampling_explorer",
    "selection_in_words",
]
