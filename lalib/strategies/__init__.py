"""Strategies: which images to label next."""

from lalib.strategies.discriminators import cannot_tell
from lalib.strategies.distributed import select_distributed
from lalib.strategies.registry import LABEL_FREE, SINGLE_LABEL, STRATEGIES, run_strategy, select
from lalib.strategies.sources import SOURCES, Setting, Source
from lalib.strategies.view import PoolView, Selection, Strategy

__all__ = ["LABEL_FREE", "SINGLE_LABEL", "SOURCES", "STRATEGIES", "PoolView", "Selection", "Setting", "Source"]
__all__ += ["Strategy", "cannot_tell", "run_strategy", "select", "select_distributed"]
