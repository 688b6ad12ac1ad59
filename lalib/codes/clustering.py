"""Clusters of codes: k-means and Ward's method, in O(N) memory.

[Arthur2007] D. Arthur, S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
[Ward1963]   J. H. Ward, "Hierarchical grouping to optimize an objective function", JASA 58, 1963.
[Muellner2013] D. Muellner, "fastcluster: fast hierarchical, agglomerative clustering routines", J. Stat. Softw., 2013.
"""

from collections.abc import Callable

import numpy as np
import scipy
import torch
from torch import Tensor

from lalib.codes.neighbours import TREE_DIMENSIONS, Neighbours
from lalib.codes.pairwise import BLOCK, from_row
from lalib.data.checks import check_int
from lalib.data.door import check_codes


def kmeans_pp(codes: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Indices (k,) of k distinct codes (N, L), each drawn with probability proportional to its squared distance from
    those before it, Sec. 2.2 of [Arthur2007]. Once every place is taken, duplicates follow uniformly.
    generator: on the CPU, whatever the device of the codes."""
    codes = check_codes(codes).double()
    k = check_int("k", k, low=1, high=len(codes))
    chances = iter(torch.rand(k, generator=generator, dtype=torch.float64))

    def draw(weight):  # never an index of weight 0; on the CPU, where sums have an order
        total = weight.cpu().cumsum(0)
        below = torch.nextafter(total[-1], torch.zeros_like(total[-1]))
        return int(torch.searchsorted(total, torch.minimum(next(chances) * total[-1], below), right=True))

    picked, _ = seeding(lambda row: from_row(codes, row).square_(), torch.ones_like(codes[:, 0]), k, draw)
    return picked.to(codes.device)


def seeding(
    square_from: Callable[[int], Tensor], near: Tensor, k: int, draw: Callable[[Tensor], int], first: int | None = None
) -> tuple[Tensor, Tensor]:
    """k-means++ [Arthur2007]: rows (k,) of N points and the squared distance of each from the nearest before it.

    square_from(row): squared distances (N,) from a point to all. near (N,): the score of the first row.
    draw(weight): a row by its weight (N,). first: the first row, if it is not to be drawn.
    """
    free, picked, scores = torch.ones_like(near), [], []
    for _ in range(k):
        row = first if first is not None and not picked else draw(near if picked and near.any() else free)
        picked.append(row)
        scores.append(near[row].clone())
        near = square_from(row).minimum(near) if len(picked) > 1 else square_from(row)
        near[row] = free[row] = 0
    return torch.tensor(picked), torch.stack(scores)


def kmeans(codes: Tensor, k: int, generator: torch.Generator, *, iterations: int = 50) -> tuple[Tensor, Tensor]:
    """Centres (k, L) float64 and assignment (N,) int64 of codes (N, L), by Lloyd's iterations from k-means++.

    Stops when no code changes its cluster, at the latest after `iterations`. No cluster is empty: one that would be
    takes the code farthest from its own centre, so that any k up to N works, also with duplicates.
    """
    codes = check_codes(codes).double()
    centres, assignment = codes[kmeans_pp(codes, k, generator)], None
    for _ in range(check_int("iterations", iterations, low=1)):
        before, assignment = assignment, _fill_empty(codes, centres, _assign(codes, centres))
        if before is not None and torch.equal(before, assignment):
            break
        counts = assignment.bincount()
        if codes.device.type == "cpu":
            sums = torch.zeros_like(centres).index_add_(0, assignment, codes)
        else:
            sums = _sums_in_order(codes, assignment, counts)
        centres = sums / counts[:, None]
    return centres, assignment


def _assign(codes, centres):
    """Nearest centre of each code (N,)."""
    if codes.device.type == "cpu" and codes.shape[1] <= TREE_DIMENSIONS:
        return Neighbours(centres).lookup(codes, 1)[1].squeeze(1)
    origin = centres[0]  # |c|^2 - 2 x.c has the same minimum as |x - c|^2, at the speed of a matrix product
    centres = centres - origin
    norms, rows = centres.square().sum(dim=1), codes.split(max(1, BLOCK // len(centres)))
    return torch.cat([torch.addmm(norms, part - origin, centres.T, alpha=-2).argmin(dim=1) for part in rows])


def _fill_empty(codes, centres, assignment):
    """Give each empty cluster the code farthest from its centre among the clusters of two or more."""
    counts = assignment.bincount(minlength=len(centres)).tolist()
    if 0 not in counts:
        return assignment
    distance, owner = (codes - centres[assignment]).square().sum(dim=1), assignment.tolist()
    farthest = iter(distance.argsort(descending=True, stable=True).tolist())
    for empty in [cluster for cluster, count in enumerate(counts) if not count]:
        index = next(index for index in farthest if counts[owner[index]] > 1)
        counts[owner[index]] -= 1
        owner[index] = empty
    return torch.tensor(owner, device=assignment.device)


def _sums_in_order(codes, assignment, counts):
    """Sums (k, L) over each cluster, in order of index also on a GPU; on a CPU index_add_ gives the same, faster."""
    return torch.segment_reduce(codes[assignment.argsort(stable=True)], "sum", lengths=counts, axis=0)


def ward(codes: Tensor, clusters: int) -> Tensor:
    """Assignment (N,) int64 of codes (N, L) to exactly `clusters` clusters by Ward's method [Ward1963], exact.

    Clusters are numbered by falling size, equal sizes by their lowest index. Runs on the CPU in O(N) memory and O(N^2)
    time with fastcluster's linkage_vector [Muellner2013]: 60,000 x 2 codes take 7.5 s of one core and 7 MB.
    """
    import fastcluster

    codes = check_codes(codes)
    size, clusters = len(codes), check_int("clusters", clusters, low=1)
    if clusters > size:
        raise ValueError(f"clusters={clusters} exceeds the {size} points")
    if size == 1:
        return torch.zeros(1, dtype=torch.int64, device=codes.device)
    merges = fastcluster.linkage_vector(codes.cpu().double().numpy(), method="ward")[: size - clusters, :2]
    parent = np.repeat(np.arange(size, 2 * size - clusters), 2)
    edges = np.ones(len(parent)), (merges.astype(int).ravel(), parent)
    graph = scipy.sparse.coo_array(edges, shape=(2 * size, 2 * size))
    label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1][:size]
    _, first, label, counts = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    return torch.from_numpy(np.lexsort((first, -counts)).argsort()[label]).to(codes.device)
