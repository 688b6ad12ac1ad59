"""Strategies: which images to label next."""

from lalib.strategies.discriminators import cannot_tell
from lalib.strategies.registry import LABEL_FREE, SINGLE_LABEL, STRATEGIES, run_strategy, select
from lalib.strategies.view import PoolView, Selection

__all__ = ["LABEL_FREE", "SINGLE_LABEL", "STRATEGIES", "PoolView", "Selection", "cannot_tell", "run_strategy", "select"]
