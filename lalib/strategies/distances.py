"""Strategies that pick far from the labelled images, in the latent space of a classifier.

[Losalka]  A. Losalka, D. Singhanian, X. Sun, "Active learning using deep generative models", slides: both algorithms.

Both take view.probs and distances, with the options space and alpha of core-set (see learned): "latents" (default) is
the latent space of the task model, for M2 its mean code z, for others their last features.

The anchors of a class are the labelled images of that class which are also predicted to be of it. An unlabelled image
is measured by its distances to the anchors of its predicted class. What the slides leave open: a class without anchors
takes those of all classes; if no labelled image is predicted right, all labelled images are anchors.

Raises LalibError without labelled images and their labels, and for several labels per image.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lalib.codes.pairwise import blocks, from_row
from lalib.strategies.learned import class_labels, latent_points
from lalib.strategies.picking import greedily, largest, pick
from lalib.strategies.spatial import allocation
from lalib.strategies.uncertainty import class_probs, uncertainty
from lalib.strategies.view import PoolView, Selection, Strategy


def m2_distance(
    view: PoolView, n: int, *, generator: torch.Generator, space: str = "latents", alpha: float = 1.0
) -> Selection:
    """For each predicted class again and again the image of largest sum of distances to the anchors, Algorithm 1.

    A pick joins the anchors of its class. n is split evenly over the predicted classes; a class with too few unlabelled
    images gives all of them, and the others share the rest. What cannot be split goes to the classes of fewest anchors,
    of equal ones to the lowest number. The picks stand class by class. Nothing is drawn. The score is the sum.

    A weakness of the algorithm, kept: once a class has many anchors, one more hardly changes the sums. Then all picks
    of the class lie in its farthest region, among its outliers.
    """
    guess, anchored, n_classes = _answers(view)
    order = anchored[anchored >= 0].bincount(minlength=n_classes).argsort(stable=True)
    room = guess.bincount(minlength=n_classes)[order]
    share = dict(zip(order.tolist(), allocation(n, [1] * n_classes, room.tolist()), strict=True))
    rows, scores = [], []
    for c, members, points, anchors in _by_class(view, guess, anchored, space, alpha):
        if share[c]:
            total = _total_distance(points, anchors)
            found, sums = greedily(lambda t=total: t, lambda row, t=total, p=points: t.add_(from_row(p, row)), share[c])
            rows.append(members[found])
            scores.append(sums.cpu())
    return pick(view, torch.cat(rows), torch.cat(scores))


def m2_confidence_distance(
    view: PoolView, n: int, *, generator: torch.Generator, space: str = "latents", alpha: float = 1.0
) -> Selection:
    """The n images of largest (1 - max p) x distance, Algorithm 2.

    The distance is the mean of those to the anchors, scaled so that it runs from 0 to 1 over the unlabelled images; if
    all have the same, it is 1. Nothing is drawn, and the picks do not change the anchors.
    """
    distance = torch.empty(len(view.unlabeled), dtype=torch.float64)
    guess, anchored, _ = _answers(view)
    for _, members, points, anchors in _by_class(view, guess, anchored, space, alpha):
        distance[members] = (_total_distance(points, anchors) / len(anchors)).cpu()
    return largest(view, uncertainty(view, "least-confidence") * _scaled(distance), n)


def _answers(view: PoolView) -> tuple[Tensor, Tensor, int]:
    """Predicted classes of the unlabelled (U,), the class that each labelled image anchors or -1 (M,), and C."""
    n_classes = class_probs(view).shape[1]
    labels, guess = class_labels(view, n_classes), view.probs.argmax(dim=1).cpu()
    return guess[view.unlabeled], labels.where(guess[view.labeled] == labels, -1), n_classes


def _by_class(view, guess, anchored, space, alpha) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Of each predicted class: its number, its rows among the unlabelled, their points and those of its anchors."""
    labeled, points = latent_points(view, space, alpha)
    for c in guess.unique().tolist():
        members = (guess == c).nonzero().squeeze(1)
        masks = anchored == c, anchored >= 0, anchored < 0  # of the class; else of all classes; else all labelled
        anchors = next(mask for mask in masks if mask.any())
        near = labeled[anchors.to(labeled.device)].double()
        yield c, members, points[members.to(points.device)].double(), near


def _total_distance(points: Tensor, anchors: Tensor) -> Tensor:
    """Sum (N,) of the distances from each point (N, F) to all anchors (M, F), M >= 1."""
    return torch.cat([distance.sum(dim=1) for distance in blocks(points, anchors)])


def _scaled(values: Tensor) -> Tensor:
    """Values moved and scaled to run from 0 to 1; equal ones become 1."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else torch.ones_like(values)


DECLARED = (
    Strategy("m2-distance", m2_distance, needs=("latents", "probs", "labels"), several=False),
    Strategy("m2-confidence-distance", m2_confidence_distance, needs=("latents", "probs", "labels"), several=False),
)
