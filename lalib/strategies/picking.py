"""Orders, ranks and distances that several strategies share."""

from collections.abc import Callable

import torch

from lalib.data.checks import check_int
from lalib.strategies.view import PoolView, Selection

BLOCK = 2**21  # distances at once: 16 MB


def pick(view: PoolView, rows: torch.Tensor, score: torch.Tensor | None = None, **record: float) -> Selection:
    """The Selection of the unlabelled images numbered `rows` (n,) among the unlabelled, with the score of each (n,)."""
    return Selection(view.unlabeled[rows.cpu()], None if score is None else score.cpu().float(), record)


def largest(view: PoolView, values: torch.Tensor, n: int) -> Selection:
    """The n unlabelled images of largest value; values (M,) of the unlabelled; equal ones in order of index."""
    order = values.argsort(descending=True, stable=True)[:n]
    return pick(view, order, values[order])


def draw_candidates(size: int, n: int, candidates: int | None, generator: torch.Generator) -> torch.Tensor:
    """Rows (min(size, candidates),) of `size`, drawn uniformly, ascending; all if None. ValueError if below n."""
    if candidates is None:
        return torch.arange(size)
    if check_int("candidates", candidates, low=1) < n:
        raise ValueError(f"candidates must be at least n={n}, got {candidates}")
    return torch.randperm(size, generator=generator)[:candidates].sort().values


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
    return _by_block(points, centres, lambda distance: distance.amin(dim=1))


def total_distance(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Sum (N,) of the distances from each point (N, F) to all centres (M, F), M >= 1, from differences."""
    return _by_block(points, centres, lambda distance: distance.sum(dim=1))


def _by_block(points, centres, reduce: Callable[[torch.Tensor], torch.Tensor]):
    """`reduce` of the distances (B, M), a block of points at a time."""
    blocks = points.split(max(1, BLOCK // len(centres)))
    return torch.cat(
        [reduce(torch.cdist(block, centres, compute_mode="donot_use_mm_for_euclid_dist")) for block in blocks]
    )
