"""Clusters of codes: k-means and Ward's method, in O(N) memory.

[Arthur2007] D. Arthur, S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
[Ward1963]   J. H. Ward, "Hierarchical grouping to optimize an objective function", JASA 58, 1963.
[Muellner2013] D. Muellner, "fastcluster: fast hierarchical, agglomerative clustering routines", J. Stat. Softw., 2013.
"""

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from lalib.codes.pairwise import CACHED, Nearest, Rough, nearest_centre, squares_to
from lalib.data.checks import check_int
from lalib.data.door import check_codes
from lalib.data.seeds import generator as make_generator


def kmeans_pp(codes: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Indices (k,) of k distinct codes (N, L), each drawn with probability proportional to its squared distance from
    those before it, Sec. 2.2 of [Arthur2007]. Once every place is taken, duplicates follow uniformly.
    generator: on the CPU, whatever the device of the codes."""
    codes = check_codes(codes)
    picked, _ = seeding(Nearest(codes), check_int("k", k, low=1, high=len(codes)), generator)
    return picked.to(codes.device)


def seeding(near: Nearest, k: int, generator: torch.Generator, first: int | None = None) -> tuple[Tensor, Tensor]:
    """k-means++ [Arthur2007]: rows (k,) of N points and the squared distance of each from the nearest before it.

    near: has no centre yet; the rows join it. first: the first row, if it is not to be drawn.
    """
    free, picked, scores = torch.ones(len(near.square), dtype=torch.float64), [], []
    for chance in torch.rand(k, generator=generator, dtype=torch.float64):
        if picked:
            near.add(picked[-1])
        if picked or first is None:
            # On the CPU, where sums have an order, and by numpy, which is twice as fast.
            total = torch.from_numpy(near.square.cpu().numpy().cumsum()) if picked else free.cumsum(0)
            total = total if total[-1] > 0 else free.cumsum(0)
            row = row_at(total, chance * total[-1])
        else:
            row = torch.tensor([first])
        free[row] = 0
        picked.append(row.to(near.square.device))
        scores.append(near.square[picked[-1]])
    return torch.cat(picked), torch.cat(scores)


def row_at(total: Tensor, target: Tensor) -> Tensor:
    """The row (1,) at which sums of weights so far (N,) float64 pass the target (), never one of weight 0."""
    below = torch.nextafter(total[-1], torch.zeros_like(total[-1]))
    return torch.searchsorted(total, torch.minimum(target, below)[None], right=True)


def kmeans(codes: Tensor, k: int, generator: torch.Generator, *, iterations: int = 50) -> tuple[Tensor, Tensor]:
    """Centres (k, L) float64 and assignment (N,) int64 of codes (N, L), by Lloyd's iterations from k-means++.

    Stops when no code changes its cluster, at the latest after `iterations`. On a CPU they are scikit-learn's, in
    single precision about the mean and on one thread, so that the number of threads changes nothing. No cluster is
    empty: one that would be takes the code farthest from its own centre. The centres are the means of their clusters.
    """
    codes, iterations = check_codes(codes), check_int("iterations", iterations, low=1)
    centres = codes[kmeans_pp(codes, k, generator)].double()
    if codes.device.type == "cpu":
        assignment = _lloyd(codes, centres, iterations)
        return _means(codes, assignment, k), assignment
    rough, assignment = Rough(codes), None
    for _ in range(iterations):
        before, assignment = assignment, _fill_empty(codes, centres, nearest_centre(codes, centres, rough)[0])
        if before is not None and torch.equal(before, assignment):
            break
        centres = _means(codes, assignment, k)
    return centres, assignment


def _lloyd(codes, centres, iterations):
    """Assignment (N,) by scikit-learn's KMeans."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    rough = Rough(codes)
    flat, start = rough.right[:-2].T.contiguous().numpy(), rough.left(centres)[:, :-2].div(-2).contiguous().numpy()
    kmeans = KMeans(len(centres), init=start, n_init=1, max_iter=iterations, tol=0, copy_x=False)
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer places than clusters: the rest is filled below
        assignment = torch.from_numpy(kmeans.fit(flat).labels_).long()
    return _fill_empty(codes, _means(codes, assignment, len(centres)), assignment)


def _fill_empty(codes, centres, assignment):
    """Give each empty cluster the code farthest from its centre among the clusters of two or more."""
    counts = assignment.bincount(minlength=len(centres)).tolist()
    if 0 not in counts:
        return assignment
    order = squares_to(codes, centres, assignment).argsort(descending=True, stable=True)
    moved = refill(counts, zip(order.tolist(), assignment[order].tolist(), strict=True))
    rows, clusters = (torch.tensor(list(part), device=codes.device) for part in (moved, moved.values()))
    return assignment.index_copy(0, rows, clusters)


def refill(counts: list[int], farthest: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Which code goes to each empty cluster: the first of (code, its cluster) whose cluster keeps another one."""
    left, farthest, moved = list(counts), iter(farthest), {}
    for empty in [cluster for cluster, count in enumerate(counts) if not count]:
        code, owner = next((code, owner) for code, owner in farthest if left[owner] > 1)
        left[owner] -= 1
        moved[code] = empty
    return moved


def _means(codes, assignment, k):
    """The mean (k, L) float64 of each cluster, 0 for an empty one."""
    sums, counts = sums_and_counts(codes, assignment, k)
    return sums / counts.clamp(min=1)[:, None]


def sums_and_counts(codes: Tensor, assignment: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sums (k, L) float64 of the codes (N, L) of each of k clusters, in order of index, also on a GPU; counts (k,)."""
    counts = assignment.bincount(minlength=k)
    sums = codes.new_zeros(k, codes.shape[1], dtype=torch.float64)
    if codes.device.type == "cpu":
        for part, rows in zip(codes.split(CACHED), assignment.split(CACHED), strict=True):
            sums.index_add_(0, rows, part.double())
    else:
        sums = torch.segment_reduce(codes[assignment.argsort(stable=True)].double(), "sum", lengths=counts, axis=0)
    return sums, counts


def ward(codes: Tensor, clusters: int, *, sample: int | None = 20_000) -> Tensor:
    """Assignment (N,) int64 of codes (N, L) to exactly `clusters` clusters by Ward's method [Ward1963].

    Clusters are numbered by falling size, equal sizes by their lowest index. Runs on the CPU in O(N) memory and O(N^2)
    time with fastcluster's linkage_vector [Muellner2013]: so of more than `sample` codes it clusters that many, drawn
    the same way every time, and the others join the cluster of nearest mean. None: exact at any size.
    """
    codes, clusters = check_codes(codes), check_int("clusters", clusters, low=1)
    if clusters > len(codes):
        raise ValueError(f"clusters={clusters} exceeds the {len(codes)} points")
    most = len(codes) if sample is None else max(check_int("sample", sample, low=1), clusters)
    if most < len(codes):
        drawn = torch.randperm(len(codes), generator=make_generator(0, "ward"))[:most].to(codes.device)
        found = _linked(codes[drawn], clusters)
        label = nearest_centre(codes, _means(codes[drawn], found, clusters))[0].index_copy_(0, drawn, found)
    else:
        label = _linked(codes, clusters)
    _, first, label, counts = np.unique(label.cpu(), return_index=True, return_inverse=True, return_counts=True)
    return torch.from_numpy(np.lexsort((first, -counts)).argsort()[label]).to(codes.device)


def _linked(codes, clusters):
    """Assignment (N,) by Ward's method, in some order of the clusters."""
    import fastcluster

    if (size := len(codes)) == 1:
        return torch.zeros(1, dtype=torch.int64, device=codes.device)
    pool = ThreadPoolExecutor(1)  # fastcluster takes seconds and hears no Ctrl-C; who waits for another thread does
    try:
        merges = pool.submit(fastcluster.linkage_vector, codes.cpu().double().numpy(), "ward").result()
    finally:
        pool.shutdown(wait=False)
    merges = merges[: size - clusters, :2]
    parent = np.repeat(np.arange(size, 2 * size - clusters), 2)
    edges = np.ones(len(parent)), (merges.astype(int).ravel(), parent)
    graph = scipy.sparse.coo_array(edges, shape=(2 * size, 2 * size))
    label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1][:size]
    return torch.from_numpy(np.unique(label, return_inverse=True)[1]).to(codes.device)
