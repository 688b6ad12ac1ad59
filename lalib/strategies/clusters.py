"""Strategies that pick from clusters of the codes by k-means, of all images or of those that a task model doubts.

[Hacohen2022] G. Hacohen, A. Dekel, D. Weinshall, "Active learning on a budget: opposite strategies suit high and low
              budgets", ICML 2022: TypiClust.
[Doucet2024]  P. Doucet, B. Estermann, T. Aczel, R. Wattenhofer, "Bridging diversity and uncertainty in active learning
              with self-supervised pre-training", 2024: TCM.
[Gupte2024]   S. R. Gupte, J. Aklilu, J. J. Nirschl, S. Yeung-Levy, "Revisiting active learning in the era of vision
              foundation models", TMLR 2024: DropQuery.
"""

import heapq

import torch

from lalib.codes.clustering import kmeans
from lalib.codes.neighbours import EXACT, knn
from lalib.codes.pairwise import squares_to
from lalib.data.checks import check_int
from lalib.strategies.uncertainty import class_probs, margin
from lalib.strategies.view import PoolView, Selection, Strategy


def k_medoids(view: PoolView, n: int, *, generator: torch.Generator, iterations: int = 50) -> Selection:
    """The image nearest the centre of each of n k-means clusters of the unlabelled codes, largest cluster first.

    Differs: k-medoids proper would search for the images of least distance to their clusters.
    iterations: at most so many of Lloyd's. Equal distances go to the lowest index. The score is the cluster's size.
    """
    return _nearest_to_centres(view, view.unlabeled, n, generator, iterations)


def _nearest_to_centres(view, index, n, generator, iterations):
    """The same among the images at index (M,)."""
    codes = view.codes[index.to(view.codes.device)]
    centres, assignment = kmeans(codes, n, generator, iterations=iterations)
    medoid = nearest_members(squares_to(codes, centres, assignment), assignment).cpu()
    counts = assignment.bincount().cpu()
    rank = counts.argsort(descending=True, stable=True)
    return Selection(index[medoid[rank]], counts[rank].float())


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
    only if there are more of them than max_clusters. Distances are the paper's; its authors' code squares them, so that
    a far neighbour counts more.
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


def dropquery(view: PoolView, n: int, *, generator: torch.Generator, iterations: int = 50) -> Selection:
    """k-medoids among the images of which the task model thinks otherwise without most of their codes [Gupte2024].

    These are the images whose class changes in more than half of the `passes` (default 3) of view.dropped_probs, in
    each of which three quarters of the numbers of every code are dropped. If they are fewer than n, the n whose class
    changes most often, the lowest index of equals. iterations: as of k-medoids. The score is the cluster's size.
    Tried on PCA codes, 20 to 100 labels, 10 seeds, AULC minus random's in points (data/results/rivals.parquet):
    mnist-mini +5.60 (3.60 to 7.60), fashion-mnist-mini +0.95 (-0.87 to 2.76).
    """
    guess = class_probs(view).argmax(dim=1).cpu()
    changes = (view.dropped_probs.argmax(dim=2).cpu()[:, view.unlabeled] != guess).double().mean(dim=0)
    order = changes.argsort(descending=True, stable=True)[: max(n, int((changes > 0.5).sum()))]
    return _nearest_to_centres(view, view.unlabeled[order.sort().values], n, generator, iterations)


def tcm(view: PoolView, n: int, *, generator: torch.Generator, per_class: int = 5) -> Selection:
    """Cover first, then ask what is uncertain: typiclust up to so many labels, margin from then on [Doucet2024].

    per_class: labels for each class of view.probs, default 5, from which on margin picks. A batch is picked by one of
    the two, and so is its score.
    Differs: the paper switches after a number of batches.
    """
    few = len(view.labeled) < check_int("per_class", per_class, low=0) * view.probs.shape[1]
    return (typiclust if few else margin)(view, n, generator=generator)


DECLARED = (
    Strategy("k-medoids", k_medoids, needs=("codes",)),  # the image nearest each k-means centre
    Strategy("typiclust", typiclust, needs=("codes",)),
    Strategy("tcm", tcm, needs=("codes", "probs")),
    Strategy("dropquery", dropquery, needs=("codes", "probs", "dropped_probs"), several=False),
)
