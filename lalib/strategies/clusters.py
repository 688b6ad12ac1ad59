"""Strategies that pick from clusters of the codes by k-means; no label is looked at.

[Hacohen2022] G. Hacohen, A. Dekel, D. Weinshall, "Active learning on a budget: opposite strategies suit high and low
              budgets", ICML 2022: TypiClust.
"""

import heapq

import torch

from lalib.codes.clustering import kmeans
from lalib.codes.neighbours import EXACT, knn
from lalib.codes.pairwise import squares_to
from lalib.data.checks import check_int
from lalib.strategies.view import PoolView, Selection, Strategy


def k_medoids(view: PoolView, n: int, *, generator: torch.Generator, iterations: int = 50) -> Selection:
    """The image nearest the centre of each of n k-means clusters of the unlabelled codes, largest cluster first.

    Differs: k-medoids proper would search for the images of least distance to their clusters.
    iterations: at most so many of Lloyd's. Equal distances go to the lowest index. The score is the cluster's size.
    """
    codes = view.codes[view.unlabeled.to(view.codes.device)]
    centres, assignment = kmeans(codes, n, generator, iterations=iterations)
    medoid = nearest_members(squares_to(codes, centres, assignment), assignment).cpu()
    counts = assignment.bincount().cpu()
    rank = counts.argsort(descending=True, stable=True)
    return Selection(view.unlabeled[medoid[rank]], counts[rank].float())


def nearest_members(distance: torch.Tensor, assignment: torch.Tensor) -> torch.Tensor:
    """The row of smallest distance (N,), the lowest of equals, of each cluster that occurs in the assignment (N,)."""
    order = distance.argsort(stable=True)
    order = order[assignment[order].argsort(stable=True)]  # by cluster, then by distance
    return order[assignment[order].diff(prepend=assignment.new_tensor([-1])) > 0]


def typiclust(
    view: PoolView,
    n: int,
    *,
    generator: torch.Generator,
    max_clusters: int = 500,
    min_size: int = 6,
    neighbours: int = 20,
    iterations: int = 25,
) -> Selection:
    """Again and again the most typical image of the cluster with the fewest labels, of the largest such [Hacohen2022].

    Clusters are those of k-means on all codes, min(labelled + n, max_clusters) of them, by at most `iterations` of
    Lloyd's. Clusters below min_size images come last. An image is typical if the mean distance to its
    min(neighbours, size / 2) nearest in the cluster is small; the score is minus that distance. Finding them takes the
    square of a cluster's size, but in up to 15 dimensions and beyond EXACT images.
    Differs: neighbours may be labelled or not. Picks count as labels when the next cluster is chosen, which matters
    only if there are more of them than max_clusters.
    """
    options = {"max_clusters": max_clusters, "min_size": min_size, "neighbours": neighbours}
    max_clusters, min_size, neighbours = (check_int(name, value, low=1) for name, value in options.items())
    count = min(len(view.labeled) + n, max_clusters, view.n_images)
    _, assignment = kmeans(view.codes, count, generator, iterations=iterations)
    free = torch.zeros(view.n_images, dtype=torch.bool)
    free[view.unlabeled] = True
    assignment = assignment.cpu()
    clusters = assignment.argsort(stable=True).split(assignment.bincount(minlength=count).tolist())
    turns = [(len(c) < min_size, int((~free[c]).sum()), -len(c), i) for i, c in enumerate(clusters) if free[c].any()]
    heapq.heapify(turns)
    waiting, picked = {}, []
    while len(picked) < n:
        small, labels, size, cluster = heapq.heappop(turns)
        if cluster not in waiting:
            waiting[cluster] = _by_typicality(view.codes, clusters[cluster], free, neighbours)
        picked.append(waiting[cluster].pop())
        if waiting[cluster]:
            heapq.heappush(turns, (small, labels + 1, size, cluster))
    return Selection(*map(torch.tensor, zip(*picked, strict=True)))


def _by_typicality(codes, members, free, neighbours):
    """(index, score) of the free members, the most typical last, the lowest index last of equals."""
    points, k = codes[members.to(codes.device)].double(), min(neighbours, len(members) // 2)
    score = -(knn(points, k, exact=EXACT)[0].mean(dim=1) if k else points.new_zeros(len(points))).cpu()
    order = score.argsort(descending=True, stable=True)
    order = order[free[members[order]]].flip(0)
    return list(zip(members[order].tolist(), score[order].tolist(), strict=True))


DECLARED = (
    Strategy("k-medoids", k_medoids, needs=("codes",)),  # the image nearest each k-means centre
    Strategy("typiclust", typiclust, needs=("codes",)),
)
