"""Orders, ranks and distances that several strategies share."""

import torch

from lalib.pool import PoolView, Selection

__all__ = ["factors", "largest", "nearest_distance", "pick", "ranks"]

BLOCK = 2**21  # distances at once: 16 MB


def pick(view: PoolView, rows: torch.Tensor, score: torch.Tensor | None = None) -> Selection:
    """The Selection of the unlabelled images numbered `rows` (n,) among the unlabelled, with the score of each (n,)."""
    return Selection(view.unlabeled[rows.cpu()], None if score is None else score.cpu().float())


def largest(view: PoolView, values: torch.Tensor, n: int) -> Selection:
    """The n unlabelled images of largest value; values (M,) of the unlabelled; equal ones in order of index."""
    order = values.argsort(descending=True, stable=True)[:n]
    return pick(view, order, values[order])


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks (M,) float64 of values (M,), 0 for the smallest and 1 for the largest; equal values share their mean rank.

    Values that are all equal, or a single one, rank 0.5.
    """
    _, which, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0) - 1
    mean = last.double() - (counts - 1) / 2
    return (mean / (len(values) - 1))[which] if len(values) > 1 else torch.full_like(mean, 0.5)


def nearest_distance(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Distance (N,) from each point (N, F) to the nearest of the centres (M, F), from differences; inf if M = 0."""
    if not len(centres):
        return points.new_full((len(points),), torch.inf)
    if len(centres) == 1:  # twice as fast as cdist
        return (points - centres).square().sum(dim=1).sqrt()
    blocks = points.split(max(1, BLOCK // len(centres)))
    return torch.cat(
        [torch.cdist(block, centres, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1) for block in blocks]
    )


def factors(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """left and right (N, F + 2) float64 with left @ right.T the squared distances between points (N, F).

    About their mean, so that a product is right to about 1e-15 of the largest squared norm.
    """
    points = points.double()
    points = points - points.mean(dim=0)
    norm, one = points.square().sum(dim=1, keepdim=True), torch.ones_like(points[:, :1])
    return torch.cat([-2 * points, norm, one], dim=1), torch.cat([points, one, norm], dim=1)
