"""Nearest neighbours among codes, exact, in float64: by a tree on a CPU up to 15 dimensions, else block by block."""

import contextlib
from math import ceil, inf

import numpy as np
import scipy
import torch
from torch import Tensor

from lalib.codes.pairwise import BLOCK, CACHED, Rough, blocks, distances, full_precision
from lalib.data.checks import check_choice, check_int
from lalib.data.door import check_codes

PACK = 64  # columns searched as one at first
SPARE = 4  # bounds looked at beyond k; where they do not decide, all are measured
EXACT = 100_000  # codes: for fewer an exact search takes less than pynndescent with its compilation
TREE_DIMENSIONS = 15  # beyond about 15 dimensions a tree visits nearly every leaf
# The p of the norm:
METRICS = {"euclidean": 2, "l2": 2, "manhattan": 1, "cityblock": 1, "l1": 1, "chebyshev": inf, "infinity": inf}


def distinct(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows of codes (N, L), as (U, L) in some fixed order, and which of them each row is, (N,) int64."""
    rows = codes.detach().cpu().double().numpy() + 0.0  # -0.0 becomes 0.0
    key = np.zeros(len(rows), dtype=np.uint64)  # of 64 bits for each row, multiplied and shifted column by column
    for column in np.ascontiguousarray(rows.T).view(np.uint64):
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    order = key.argsort(kind="stable")  # five times faster than sorting the rows themselves
    rows = rows[order]
    new = np.concatenate(([True], (rows[1:] != rows[:-1]).any(axis=1)))
    inverse = np.empty(len(rows), dtype=np.int64)
    inverse[order] = new.cumsum() - 1
    first = torch.from_numpy(order[new]).to(codes.device)
    return codes[first], torch.from_numpy(inverse).to(codes.device)


def evenly_spread(places: Tensor, sample: int) -> Tensor:
    """At most `sample` rows of places (U, L), evenly spread in lexicographic order: the values alone decide which."""
    step = ceil(len(places) / sample)
    order = np.lexsort(places.cpu().numpy().T[::-1])[::step].copy()
    return places[torch.from_numpy(order).to(places.device)]


class Neighbours:
    """Exact neighbour search among codes (N, L), by "euclidean" (also "l2"), "manhattan" ("cityblock", "l1") or
    "chebyshev" ("infinity") distance. Raises ValueError for another metric."""

    def __init__(self, codes: Tensor, metric: str = "euclidean"):
        self.codes = check_codes(codes)
        self.p, self.tree = METRICS[check_choice("metric", metric, METRICS)], None
        if self.codes.device.type == "cpu" and self.codes.shape[1] <= TREE_DIMENSIONS:
            quickly = {"balanced_tree": False, "compact_nodes": False}  # built in a third of the time
            self.tree = scipy.spatial.KDTree(self.codes.double().numpy(), **quickly)
        elif self.p == 2:
            self.rough = Rough(self.codes)

    def __len__(self) -> int:
        return len(self.codes)

    def nearest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Distances (M, k), ascending, and indices (M, k) of the k codes nearest to each query (M, L).

        Equal distances stand in order of index; which of several equally distant codes comes k-th is not specified.
        """
        distance, index = self.lookup(self._queries(queries), check_int("k", k, low=1, high=len(self)))
        if not (distance.diff(dim=1) > 0).all():
            index, order = index.sort(dim=1)
            distance, order = distance.gather(1, order).sort(dim=1, stable=True)
            index = index.gather(1, order)
        return distance, index

    @full_precision()
    def lookup(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """`nearest` for inner loops: no checks, queries (M, L) float64 on the codes' device, ties in any order."""
        if self.tree is not None:
            found = self.tree.query(queries.numpy(), k, p=self.p)
            return tuple(torch.from_numpy(part).view(-1, k) for part in found)
        few = min(k + SPARE, len(self))
        rows = max(1, BLOCK // max(len(self), few * self.codes.shape[1]))
        # One room for all blocks: the C library did not use again what they left, and 55,000 x 64 codes took 20 GB.
        found, room = (
            queries.new_empty(len(queries), k),
            queries.new_full((rows, ceil(len(self) / PACK) * PACK), inf, dtype=torch.float32),
        )
        indices = torch.empty_like(found, dtype=torch.int64)
        for start in range(0, len(queries), rows):
            block = slice(start, start + rows)
            part = queries[block]
            if self.p != 2:
                found[block], indices[block] = self._by_differences(part, k)
                continue
            torch.mm(self.rough.left(part), self.rough.right, out=room[: len(part), : len(self)])
            bound, index = _smallest(room[: len(part)], few)
            index.clamp_(max=len(self) - 1)
            distance, order = distances(part[:, None], self.codes[index].double()).squeeze(1).sort(dim=1)
            found[block], indices[block] = distance[:, :k], index.gather(1, order[:, :k])
            horizon = bound.amax(dim=1).double().clamp(min=0).sqrt() * self.rough.size  # the others are not nearer
            # A query very far away has infinite bounds, or none.
            missed = ~horizon.isfinite() | ((distance[:, k - 1] > horizon) & (few < len(self)))
            for row in (start + missed.nonzero().squeeze(1)).split(max(1, BLOCK // len(self))):
                found[row], indices[row] = self._by_differences(queries[row], k)
        return found, indices

    def _by_differences(self, queries, k):
        return distances(queries, self.codes.double(), self.p).topk(k, dim=1, largest=False)

    def within(self, queries: Tensor, radius: float) -> list[Tensor]:
        """For each query (M, L) the indices of the codes at distance <= radius, nearest first (equal: lowest first)."""
        queries, everything = self._queries(queries), torch.arange(len(self), device=self.codes.device)
        if self.tree is None:
            codes = self.codes.double()
            rows = ((everything, row) for block in blocks(queries, codes, self.p) for row in block)
        else:  # a little farther than the radius: the distances decide
            found = self.tree.query_ball_point(queries.numpy(), radius * (1 + 1e-9), p=self.p, return_sorted=True)
            pairs = zip(queries, (torch.tensor(index, dtype=torch.int64) for index in found), strict=True)
            rows = ((index, distances(query[None], self.codes[index].double(), self.p)[0]) for query, index in pairs)
        near = ((index[distance <= radius], distance[distance <= radius]) for index, distance in rows)
        return [index[distance.argsort(stable=True)] for index, distance in near]

    def _queries(self, queries):
        queries = check_codes(queries, "queries").to(self.codes.device, torch.float64)
        if queries.shape[1] != self.codes.shape[1]:
            raise ValueError(f"queries must have {self.codes.shape[1]} columns like the codes, got {queries.shape[1]}")
        return queries


def _smallest(values, k):
    """The k smallest of each row (M, k) and their columns, in any order; the number of columns is a multiple of PACK.

    Columns i, i + M / PACK, ... are a pack. What is among the k smallest lies in one of the k packs of smallest minima.
    """
    packs = values.view(len(values), PACK, -1)
    if packs.shape[2] <= 2 * k:
        return values.topk(k, dim=1, largest=False, sorted=False)
    pack = packs.amin(dim=1).topk(k, dim=1, largest=False, sorted=False).indices
    column = pack[:, None] + packs.shape[2] * torch.arange(PACK, device=pack.device)[:, None]
    column = column.flatten(1)
    value, place = values.gather(1, column).topk(k, dim=1, largest=False, sorted=False)
    return value, column.gather(1, place)


def knn(
    codes: Tensor, k: int, queries: Tensor | None = None, metric: str = "euclidean", *, exact: int | None = None
) -> tuple[Tensor, Tensor]:
    """Distances (M, k) and indices (M, k) of the k nearest codes (N, L) of each query (M, L), nearest first.

    Without queries: of each code, not counting itself (but counting its duplicates); then k <= N - 1. Of more than
    `exact` codes nearly the nearest are found, by pynndescent, where an exact search would take O(N^2): without
    queries, by Euclidean distance, beyond TREE_DIMENSIONS, on a CPU. None (default): exact at any size. Measured with
    k = 20: of 100,000 x 32 codes 93 % of the neighbours are right and distances 0.2 % larger, of 1,000,000 80 % and
    0.8 %, in 4 and 90 s of one thread; the first call of a process compiles for another 20 s.
    """
    search = Neighbours(codes, metric)
    if queries is not None:
        return search.nearest(queries, k)
    k = check_int("k", k, low=1, high=len(search) - 1)
    quadratic = search.p == 2 and search.tree is None and search.codes.device.type == "cpu"
    nearly = exact is not None and len(search) > exact and quadratic
    distance, index = _nearly(search, k + 1) if nearly else search.nearest(search.codes, k + 1)
    own = index == torch.arange(len(search), device=index.device)[:, None]
    own[:, -1] |= ~own.any(dim=1)  # more than k duplicates can push a code out of its own list
    return distance[~own].view(-1, k), index[~own].view(-1, k)


def _nearly(search, k):
    """Distances and indices (N, k) of nearly the nearest of each code, on one thread: the same every time."""
    with threads_kept():
        from pynndescent import NNDescent

        flat = search.rough.right[:-2].T.contiguous().numpy()
        index = torch.from_numpy(NNDescent(flat, n_neighbors=k, random_state=0, n_jobs=1).neighbor_graph[0]).long()
    parts = zip(search.codes.double().split(CACHED), index.split(CACHED), strict=True)
    distance = torch.cat([distances(part[:, None], search.codes[found].double()).squeeze(1) for part, found in parts])
    distance, order = distance.sort(dim=1)
    index = index.gather(1, order)
    short = (index < 0).any(dim=1)  # too few were found
    distance[short], index[short] = search.lookup(search.codes[short].double(), k)
    return distance, index


@contextlib.contextmanager
def threads_kept():
    """Numba's and torch's numbers of threads are put back afterwards: numba's start changes torch's."""
    import numba

    threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        numba.set_num_threads(threads[1])


def median_nn_distance(codes: Tensor, metric: str = "euclidean", sample: int = 1024) -> float:
    """Median distance from a code (N, L) to its nearest neighbour at another place: the unit for thresholds.

    Duplicates count as one place. At most `sample` places are looked at; the values alone decide which, so that the
    order of the codes does not matter. 0.0 if all codes coincide.
    """
    check_int("sample", sample, low=1)
    places = Neighbours(distinct(check_codes(codes))[0], metric)
    if len(places) == 1:
        return 0.0
    step = ceil(len(places) / sample)
    return float(places.nearest(places.codes[::step], 2)[0][:, 1].median())
