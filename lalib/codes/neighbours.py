"""Geometry of codes: neighbours, k-means and hierarchical clusters in O(N) memory, on the device of the input.

Searches are exact and compute in float64. On a CPU, up to 15 dimensions and under a true metric they use scipy's KDTree
(p-norms; it builds three times faster than scikit-learn's) or scikit-learn's BallTree; elsewhere all distances, in
blocks of a fixed number of entries. A matrix product then finds the nearest under the Euclidean metric, and how far
they are is measured from differences.

[Arthur2007] D. Arthur, S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
[Ward1963]   J. H. Ward, "Hierarchical grouping to optimize an objective function", JASA 58, 1963.
[Muellner2013] D. Muellner, "fastcluster: fast hierarchical, agglomerative clustering routines", J. Stat. Softw., 2013.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from lalib.data.checks import check_choice, check_int
from lalib.data.door import check_codes

BLOCK = 2**22  # entries of a block of distances: 32 MB in float64
TREE_DIMENSIONS = 15  # beyond about 15 dimensions a tree visits nearly every leaf
WIDE = 64  # above, as for pixels, `within` is ten times faster by a product and right to about 1e-7 of the largest
P_NORMS = {
    **dict.fromkeys(("euclidean", "l2", "minkowski", "p"), 2.0),
    **dict.fromkeys(("manhattan", "cityblock", "l1"), 1.0),
    **dict.fromkeys(("chebyshev", "infinity"), float("inf")),
}
# The other metrics of BallTree that obey the triangle inequality; those that do not are searched in blocks.
TRUE_METRICS = ("seuclidean", "mahalanobis", "canberra", "haversine", "hamming", "jaccard", "pyfunc", *P_NORMS)


def sq_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances (M, N) between rows of a (M, L) and b (N, L), from differences: never negative."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def factors(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """left (M, L + 2) and right (N, L + 2) float64 with left @ right.T the squared distances between a and b.

    About the mean of b (N, L), so that a product is right to about 1e-15 of the largest squared norm.
    """
    mean = b.double().mean(dim=0)
    (a, one_a), (b, one_b) = ((x.double() - mean, torch.ones_like(x[:, :1], dtype=torch.float64)) for x in (a, b))
    norm_a, norm_b = (x.square().sum(dim=1, keepdim=True) for x in (a, b))
    return torch.cat([-2 * a, norm_a, one_a], dim=1), torch.cat([b, one_b, norm_b], dim=1)


def distinct(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The distinct rows of codes (N, L), as (U, L) in some fixed order, and which of them each row is, (N,) int64."""
    rows = codes.detach().cpu().double().numpy() + 0.0  # -0.0 becomes 0.0
    order = _hash(rows).argsort(kind="stable")  # five times faster than sorting the rows themselves
    rows = rows[order]
    new = np.concatenate(([True], (rows[1:] != rows[:-1]).any(axis=1)))
    inverse = np.empty(len(rows), dtype=np.int64)
    inverse[order] = new.cumsum() - 1
    first = torch.from_numpy(order[new]).to(codes.device)
    return codes[first], torch.from_numpy(inverse).to(codes.device)


def evenly_spread(places: torch.Tensor, sample: int) -> torch.Tensor:
    """At most `sample` rows of places (U, L), evenly spread in lexicographic order: the values alone decide which."""
    step = math.ceil(len(places) / sample)
    order = np.lexsort(places.cpu().numpy().T[::-1])[::step].copy()
    return places[torch.from_numpy(order).to(places.device)]


def _hash(rows):
    """A 64-bit number for each row (N, L) of float64, equal for equal rows (multiply and shift, column by column)."""
    key = np.zeros(len(rows), dtype=np.uint64)
    for column in np.ascontiguousarray(rows.T).view(np.uint64):
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    return key


class Neighbours:
    """Exact neighbour search among codes (N, L) under any metric of scikit-learn's trees.

    metric: a name ("euclidean", "manhattan", "chebyshev", "canberra", ...), a sklearn.metrics.DistanceMetric, or a
    callable of two vectors that is a true metric. "minkowski" by name has p = 2; "seuclidean" and "mahalanobis" by name
    take the variances and the covariance of the codes, as scipy does. On CUDA: Euclidean, Manhattan and Chebyshev only.
    """

    def __init__(self, codes: torch.Tensor, metric="euclidean"):
        self.codes = check_codes(codes).detach().double()
        self.metric = resolve_metric(metric, self.codes)
        on_cpu = self.codes.device.type == "cpu"
        if not on_cpu and self.metric not in P_NORMS:
            raise ValueError(f"metric on {codes.device} must be one of {', '.join(P_NORMS)}, got {metric!r}")
        self.tree = self._plant() if on_cpu and self.codes.shape[1] <= TREE_DIMENSIONS else None

    def __len__(self) -> int:
        return len(self.codes)

    def nearest(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances (M, k), ascending, and indices (M, k) of the k codes nearest to each query (M, L).

        Equal distances stand in order of index; which of several equally distant codes comes k-th is not specified.
        """
        check_int("k", k, low=1, high=len(self))
        return _in_order(*self.lookup(self._queries(queries), k))

    def lookup(self, queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """`nearest` for inner loops: no checks, queries float64 on the codes' device, equal distances in any order."""
        if self.tree is not None:
            found = self.tree.query(queries.numpy(), k, **self._norm())
            return tuple(torch.from_numpy(part).view(-1, k) for part in found)
        if P_NORMS.get(self.metric) == 2:
            return self._by_product(queries, k)
        blocks = (distance.topk(k, dim=1, largest=False) for distance in self._blocks(queries))
        return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))

    def _by_product(self, queries, k) -> tuple[torch.Tensor, torch.Tensor]:
        """`lookup` under the Euclidean metric, a block of queries at a time.

        Room for results and for a block is made once: what a block leaves between large pieces that come and go may
        keep the C library from using these again, and 55,000 x 64 took 20 GB.
        """
        left, right = factors(queries, self.codes)
        rows = max(1, BLOCK // max(len(self), k * self.codes.shape[1]))
        distances, room = queries.new_empty(len(queries), k), queries.new_empty(rows, len(self))
        indices = torch.empty_like(distances, dtype=torch.int64)
        for start in range(0, len(queries), rows):
            block = slice(start, start + rows)
            product = torch.mm(left[block], right.T, out=room[: len(left[block])])
            index = product.topk(k, dim=1, largest=False, sorted=False).indices
            near = self.codes[index]
            found = torch.cdist(queries[block, None], near, compute_mode="donot_use_mm_for_euclid_dist")
            distances[block], order = found.squeeze(1).sort(dim=1)
            indices[block] = index.gather(1, order)
        return distances, indices

    def within(self, queries: torch.Tensor, radius: float) -> list[torch.Tensor]:
        """For each query (M, L) the indices of the codes at distance <= radius, nearest first (equal: lowest first)."""
        queries = self._queries(queries)
        if self.tree is None:
            return [_row_within(row, radius) for block in self._blocks(queries) for row in block]
        if self.metric in P_NORMS:
            found = self.tree.query_ball_point(queries.numpy(), radius, return_sorted=True, **self._norm())
            found = [torch.tensor(index, dtype=torch.int64) for index in found]
        else:
            found = [torch.from_numpy(index).sort().values for index in self.tree.query_radius(queries.numpy(), radius)]
        return [self._nearest_first(query, index) for query, index in zip(queries, found, strict=True)]

    def _norm(self):
        return {"p": P_NORMS[self.metric]} if self.metric in P_NORMS else {}

    def _nearest_first(self, query, index):
        if len(index) < 2:
            return index
        return index[_distances(query[None], self.codes[index], self.metric)[0].argsort(stable=True)]

    def _queries(self, queries):
        queries = check_codes(queries, "queries").detach().to(self.codes)
        if queries.shape[1] != self.codes.shape[1]:
            raise ValueError(f"queries must have {self.codes.shape[1]} columns like the codes, got {queries.shape[1]}")
        return queries

    def _plant(self):
        from scipy.spatial import KDTree
        from sklearn.neighbors import BallTree

        if self.metric in P_NORMS:
            return KDTree(self.codes.numpy(), balanced_tree=False, compact_nodes=False)  # a third of the time to build
        true = callable(self.metric) or _metric_name(self.metric) in TRUE_METRICS
        return BallTree(self.codes.numpy(), metric=self.metric) if true else None

    def _blocks(self, queries) -> Iterator[torch.Tensor]:
        for rows in queries.split(max(1, BLOCK // len(self))):
            yield _distances(rows, self.codes, self.metric)


def resolve_metric(metric, codes: torch.Tensor):
    """A p-norm's name, a callable, or a DistanceMetric scaled to the codes; ValueError for a name the trees lack."""
    from sklearn.metrics import DistanceMetric
    from sklearn.neighbors import BallTree

    if isinstance(metric, DistanceMetric) or callable(metric):
        return metric
    check_choice("metric", metric, [name for name in BallTree.valid_metrics if name != "pyfunc"])
    if metric in P_NORMS:
        return metric
    if metric == "haversine" and codes.shape[1] != 2:
        raise ValueError(f"metric 'haversine' needs codes of 2 dimensions, got {codes.shape[1]}")
    return DistanceMetric.get_metric(metric, **_scale_of(metric, codes))


def _scale_of(metric, codes):
    """What a metric by name needs to know of the data: variances, or the inverse covariance."""
    if metric not in ("seuclidean", "mahalanobis"):
        return {}
    covariance = np.atleast_2d(np.cov(codes.cpu().numpy(), rowvar=False))
    if not np.linalg.matrix_rank(covariance) == len(covariance):
        raise ValueError(f"metric {metric!r} needs codes that vary in all {len(covariance)} dimensions")
    return {"V": covariance.diagonal().copy()} if metric == "seuclidean" else {"VI": np.linalg.inv(covariance)}


def _metric_name(metric):
    return type(metric).__name__.rstrip("0123456789").removesuffix("Distance").lower()


def _distances(a, b, metric):
    if metric in P_NORMS:
        mode = "use_mm_for_euclid_dist" if a.shape[1] > WIDE else "donot_use_mm_for_euclid_dist"
        return torch.cdist(a, b, p=P_NORMS[metric], compute_mode=mode)
    if callable(metric):
        from sklearn.metrics import DistanceMetric

        metric = DistanceMetric.get_metric("pyfunc", func=metric)
    return torch.from_numpy(metric.pairwise(a.numpy(), b.numpy()))


def _in_order(distance, index):
    """Rows that ascend in distance, equal distances put in order of index."""
    if (distance.diff(dim=1) > 0).all():
        return distance, index
    index, order = index.sort(dim=1)
    distance, order = distance.gather(1, order).sort(dim=1, stable=True)
    return distance, index.gather(1, order)


def _row_within(distance, radius):
    index = (distance <= radius).nonzero().squeeze(1)
    return index[distance[index].argsort(stable=True)]


def knn(codes: torch.Tensor, k: int, queries: torch.Tensor | None = None, metric="euclidean"):
    """Distances (M, k) and indices (M, k) of the k nearest codes (N, L) of each query (M, L), nearest first.

    Without queries: of each code, not counting itself (but counting its duplicates); then k <= N - 1.
    """
    search = Neighbours(codes, metric)
    if queries is not None:
        return search.nearest(queries, k)
    check_int("k", k, low=1, high=len(search) - 1)
    distance, index = search.nearest(codes, k + 1)
    own = index == torch.arange(len(codes), device=index.device)[:, None]
    own[:, -1] |= ~own.any(dim=1)  # more than k duplicates can push a code out of its own list
    return distance[~own].view(-1, k), index[~own].view(-1, k)


def median_nn_distance(codes: torch.Tensor, metric="euclidean", sample: int = 1024) -> float:
    """Median distance from a code (N, L) to its nearest neighbour at another place: the unit for thresholds.

    Duplicates count as one place, and at most `sample` places are looked at, which ones depends on the values alone, so
    that the order of the codes does not matter. 0.0 if all codes coincide.
    """
    places, _ = distinct(check_codes(codes))
    metric = resolve_metric(metric, codes)
    if len(places) == 1:
        return 0.0
    step = math.ceil(len(places) / sample)
    distance, _ = Neighbours(places, metric).nearest(places[::step], 2)
    return float(distance[:, 1].median())
