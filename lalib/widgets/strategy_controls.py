"""The controls of one strategy, and what it picks with them from a map."""

from functools import lru_cache

import ipywidgets
import torch

from lalib.codes import median_nn_distance, project, ward
from lalib.data.checks import LalibError, keyword_defaults
from lalib.strategies.matching import matching
from lalib.strategies.registry import STRATEGIES, select
from lalib.widgets.parts import Panel, control

NONE = "none"  # no strategy, or no threshold; not None, which a SelectionSlider cannot hold
OPTIONS = ("threshold", "match", "clusters")
THRESHOLDS = (0.5, 1, 2, 3, 5, 10, 20, 50)  # in median distances to the nearest neighbour
MAX_CLUSTERS, MAX_SEED = 50, 99


def options_of(strategy: str) -> set[str]:
    """The names of a strategy's own options; none for "none". KeyError for a strategy that is not there."""
    return set() if strategy == NONE else set(keyword_defaults(STRATEGIES[strategy]))


class Places:
    """The codes (N, L) of one encoder, errors (N,) if known, and the map (N, 2); what follows is made once.

    The map is the codes themselves if L = 2, else their first two principal components, if it is not given.
    """

    def __init__(self, codes: torch.Tensor, errors: torch.Tensor | None = None, view: torch.Tensor | None = None):
        if view is None:
            view = codes if codes.shape[1] == 2 else project(codes, "pca")
        self.codes, self.errors, self.view = codes, errors, view
        self.unit = lru_cache(lambda: float(median_nn_distance(codes)))  # of thresholds
        self.clusters = lru_cache(lambda k: ward(codes, k))
        self.select = lru_cache(self._select)  # so that a change of one strategy costs the other nothing

    def _select(self, strategy, n, seed, clusters=None, **options):
        if clusters is not None:
            options["clusters"] = self.clusters(clusters)
        return select(strategy, self.codes, n, seed=seed, errors=self.errors, **options)


class StrategyControls(Panel):
    """A strategy and its options; `controls` by name: strategy, threshold, match, clusters, seed.

    prefix: stands before the names that a reader sees. The strategy may be "none" if that is among `strategies`.
    The threshold is set in median distances to the nearest neighbour, so that it means the same on every map.
    """

    def __init__(self, strategies: list[str], strategy: str, seed: int, n_images: int, prefix: str = ""):
        multiples = [(NONE, NONE), *((f"{m:g} d", m) for m in THRESHOLDS)]
        hint = "d: median distance to the nearest neighbour; none: the strategy's default"
        most, late = min(MAX_CLUSTERS, n_images), {"continuous_update": False}
        kinds = {
            "strategy": (ipywidgets.Dropdown, {"options": strategies, "value": strategy}),
            "threshold": (ipywidgets.SelectionSlider, {"options": multiples, "value": NONE, "tooltip": hint} | late),
            "match": (ipywidgets.Dropdown, {"options": ["nearest", "all"]}),
            "clusters": (ipywidgets.IntSlider, {"value": min(10, most), "min": 1, "max": most} | late),
            "seed": (ipywidgets.IntSlider, {"value": seed, "min": 0, "max": MAX_SEED} | late),
        }
        self.controls = {name: control(kind, prefix + name, **look) for name, (kind, look) in kinds.items()}
        super().__init__(list(self.controls.values()))
        self.controls["strategy"].observe(self._offer, names="value")
        self._offer()

    def _offer(self, _=None):
        """Only what the strategy takes is there to be set."""
        taken = options_of(self.value("strategy"))
        for name in OPTIONS:
            self.controls[name].layout.display = None if name in taken else "none"
        self.controls["seed"].layout.display = "none" if self.value("strategy") == NONE else None

    def threshold(self, places: Places) -> float | None:
        """The distance chosen, in units of the codes, or None for the strategy's default."""
        return None if (multiple := self.value("threshold")) == NONE else multiple * places.unit()

    def reach(self, places: Places) -> float | None:
        """The threshold in force, None if there is none: `match` has a default of its own."""
        if "match" not in options_of(self.value("strategy")):
            return None
        return matching(places.codes, match=self.value("match"), threshold=self.threshold(places))["threshold"]

    def pick(self, places: Places, n: int) -> tuple[torch.Tensor, str]:
        """The indices (n,) that the strategy picks, and ""; (0,) and the reason after an error, and for "none"."""
        strategy, why = self.value("strategy"), ""
        try:
            if strategy != NONE:
                chosen = {name: self.value(name) for name in OPTIONS} | {"threshold": self.threshold(places)}
                options = {name: value for name, value in chosen.items() if name in options_of(strategy)}
                return places.select(strategy, n, self.value("seed"), **options), ""
        except (LalibError, ValueError, TypeError) as error:
            why = f"Nothing picked by {strategy}: {error}"
        return torch.empty(0, dtype=torch.int64), why
