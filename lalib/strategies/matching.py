"""Draws of a density in latent space are matched to distinct points of the pool: the second half of Algorithm 1.

[Killeen2019] B. Killeen, "Query selection based on latent space sampling", slides, 2019.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from lalib.codes.neighbours import METRICS, Neighbours, distinct, median_nn_distance
from lalib.data.checks import LalibError, check_choice, check_number

PATIENCE = 10_000  # draws in a row that may add nothing before a threshold is given up
WALK = 128  # draws searched for at once
START = 32  # neighbours looked at first in a tree

Density = Callable[[int], torch.Tensor]  # m -> (m, L) float64 draws on the CPU


def match_draws(draw: Density, codes: torch.Tensor, candidates: torch.Tensor, n: int, *, match, threshold, metric):
    """Indices (n,) int64 of distinct candidates, in order of picking, matched one by one to the draws.

    "nearest": each draw takes the nearest candidate not yet picked, if it lies within the threshold (None: no limit).
    "all": each draw takes every candidate within the threshold, the last draw only its nearest ones.
    Equal distances go to the lowest index. LalibError if PATIENCE draws in a row add nothing.
    """
    take = MATCHES[match](codes, candidates, metric, threshold)
    picked, draws, hits, misses = [], 0, 0, 0
    for added in take(_stream(draw, n)):
        draws, hits = draws + 1, hits + bool(added)
        misses = 0 if added else misses + 1
        picked += added[: n - len(picked)]
        if len(picked) == n:
            return torch.tensor(picked)
        if misses == PATIENCE:
            raise LalibError(
                f"threshold={threshold:g} is too small for this density: the last {misses} draws added nothing; "
                f"{hits} of {draws} draws ({hits / draws:.2%}) hit and {len(picked)} of {n} points were picked"
            )


def _stream(draw, n) -> Iterator[torch.Tensor]:
    """Endless draws in blocks whose size depends on n alone, so that the same seed gives the same draws everywhere."""
    while True:
        yield from draw(max(64, min(n, 1024))).split(WALK)


class _Nearest:
    """Each draw takes the nearest candidate that is still free.

    Candidates with equal codes share a place, so that many duplicates cost one neighbour. The tree holds the places
    that were free when it was built. It is built anew once more neighbours were looked at than it has places: then
    neither building nor searching can cost much more than the other.
    """

    def __init__(self, codes, candidates, metric, threshold):
        self.metric, self.limit = metric, math.inf if threshold is None else threshold
        self.places, home = distinct(codes[candidates.to(codes.device)])
        home = home.cpu()
        self.members = candidates[home.argsort(stable=True)].numpy()  # by place, then by index
        self.left = home.bincount(minlength=len(self.places)).numpy()  # how many of each place are free
        self.end = self.left.cumsum()  # where in `members` each place ends
        self._build()

    def __call__(self, stream):
        for draws in stream:
            draws, k = draws.to(self.places.device), START
            if self.search.tree is None:  # blocks cost the same for any k: with so many nothing has to be asked again
                self._build()
                k = len(draws) + 1
            for query, row in zip(draws, self._search(draws, k), strict=True):
                place = self._closest(query, row)
                added = [] if place is None else [int(self._first(place))]
                if added:
                    self.left[place] -= 1
                yield added

    def _first(self, place):
        """The lowest free index of a place, or of each of several."""
        return self.members[self.end[place] - self.left[place]]

    def _build(self):
        self.alive = np.flatnonzero(self.left)
        self.search = Neighbours(self.places[torch.from_numpy(self.alive).to(self.places.device)], self.metric)
        self.looked = 0

    def _search(self, draws, k):
        """For each draw: distances and places of its nearest k, and beyond which distance there may be others."""
        if self.looked > max(len(self.alive), 16 * WALK):
            self._build()
        k = min(k, len(self.alive))
        self.looked += k * len(draws)
        distance, index = (found.cpu().numpy() for found in self.search.lookup(draws, k))
        horizon = distance[:, -1] if k < len(self.alive) else np.full(len(draws), math.inf)
        return list(zip(distance, self.alive[index], horizon, strict=True))

    def _closest(self, query, row):
        """The nearest free place within the limit, or None. Looks at twice as many until that is certain."""
        while True:
            distance, place, horizon = row
            free = self.left[place] > 0
            first = free.argmax()
            near = distance[first] if free[first] else math.inf
            if near < horizon or horizon > self.limit or horizon == math.inf:
                break
            (row,) = self._search(query[None], 2 * len(place))
        if near > self.limit:
            return None
        if first + 1 == len(distance) or distance[first + 1] != near:
            return place[first]
        tied = place[free & (distance == near)]
        return tied[self._first(tied).argmin()]


class _All:
    """Every candidate within the threshold of a draw."""

    def __init__(self, codes, candidates, metric, threshold):
        self.candidates, self.threshold = candidates, threshold
        self.search = Neighbours(codes[candidates.to(codes.device)], metric)
        self.rows = max(1, min(WALK, 2**21 // len(candidates)))  # a wide threshold may find everything, every time

    def __call__(self, stream):
        picked = set()
        for draws in stream:
            for rows in draws.split(self.rows):
                for found in self.search.within(rows, self.threshold):
                    added = [i for i in self.candidates[found.cpu()].tolist() if i not in picked]
                    picked.update(added)
                    yield added


MATCHES = {"nearest": _Nearest, "all": _All}


def matching(
    codes: torch.Tensor, *, match: str = "nearest", threshold: float | None = None, metric: str = "euclidean"
) -> dict:
    """These options, checked, for match_draws; the default threshold of "all" is 3 median nearest-neighbour distances.

    Raises ValueError or TypeError for an unknown form or metric, and for a threshold that is not a number >= 0 or None.
    """
    check_choice("match", match, MATCHES)
    check_choice("metric", metric, METRICS)
    if threshold is not None:
        threshold = check_number("threshold", threshold, low=0)
    elif match == "all":
        threshold = 3 * median_nn_distance(codes, metric)
    return {"match": match, "threshold": threshold, "metric": metric}
