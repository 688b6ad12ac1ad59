"""Figures wired to controls, or to a comparison while it runs, for notebooks.

The explorers and the labeller raise ValueError or TypeError for wrong arguments; later troubles they say in words.
"""

from lalib.widgets.exchange import Exchange
from lalib.widgets.labeller import Labeller
from lalib.widgets.latent_explorer import LatentExplorer, latent_explorer
from lalib.widgets.live import LiveCurves, Race
from lalib.widgets.parameters import check_parameters
from lalib.widgets.plot import Plot
from lalib.widgets.sampling_explorer import SamplingExplorer, sampling_explorer, selection_in_words, worth_in_words
from lalib.widgets.strategy_controls import options_of
from lalib.widgets.workbench import Workbench

__all__ = ["Exchange", "Labeller", "LatentExplorer", "LiveCurves", "Plot", "Race", "SamplingExplorer", "Workbench"]
__all__ += ["check_parameters", "latent_explorer", "options_of", "sampling_explorer", "selection_in_words"]
__all__ += ["worth_in_words"]
