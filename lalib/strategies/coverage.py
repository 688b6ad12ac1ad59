"""Strategies that cover the latent space without a density."""

import torch

from lalib.geometry import kmeans
from lalib.pool import PoolView, Selection

__all__ = ["k_medoids"]


def k_medoids(view: PoolView, n: int, *, generator: torch.Generator, iterations: int = 50) -> Selection:
    """The image nearest the centre of each of n k-means clusters of the unlabelled codes, largest cluster first.

    iterations: at most so many of Lloyd's. Equal distances go to the lowest index. The score is the cluster's size.
    """
    codes = view.codes[view.unlabeled.to(view.codes.device)].double()
    centres, assignment = kmeans(codes, n, generator, iterations=iterations)
    distance = (codes - centres[assignment]).square().sum(dim=1)
    order = distance.argsort(stable=True)
    order = order[assignment[order].argsort(stable=True)].cpu()  # by cluster, then by distance
    counts = assignment.bincount(minlength=n).cpu()
    medoid = order[counts.cumsum(0) - counts]
    rank = counts.argsort(descending=True, stable=True)
    return Selection(view.unlabeled[medoid[rank]], counts[rank].float())
