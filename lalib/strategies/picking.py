"""Orders, ranks, candidates and greedy picking, as several strategies share them."""

from collections.abc import Callable

import torch

from lalib.data.checks import check_int, check_number
from lalib.strategies.view import PoolView, Selection


def pick(view: PoolView, rows: torch.Tensor, score: torch.Tensor | None = None, **record: float) -> Selection:
    """The Selection of the unlabelled images numbered `rows` (n,) among the unlabelled, with the score of each (n,)."""
    return Selection(view.unlabeled[rows.cpu()], None if score is None else score.cpu().float(), record)


def largest(view: PoolView, values: torch.Tensor, n: int) -> Selection:
    """The n unlabelled images of largest value; values (M,) of the unlabelled; equal ones in order of index."""
    order = values.argsort(descending=True, stable=True)[:n]
    return pick(view, order, values[order])


def greedily(
    scores: Callable[[], torch.Tensor], add: Callable[[torch.Tensor], None], n: int, first: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (n,), one by one of the largest score among those not yet picked, the lowest of equals, and their scores.

    scores(): of all rows (M,), asked before every pick; add(row (1,)): called between two picks. first: picked without
    regard to the scores, with score infinity. On a GPU no pick waits for the device, if scores and add do not.
    """
    score = scores().clone()
    if first is not None:
        score.fill_(-torch.inf)[first] = torch.inf
    picked, values = [], []
    while True:
        picked.append(score.argmax(dim=0, keepdim=True))
        values.append(score[picked[-1]])
        if len(picked) == n:
            return torch.cat(picked), torch.cat(values)
        add(picked[-1])
        score = scores().clone()
        score[torch.cat(picked)] = -torch.inf


def check_candidates(candidates: int, n: int) -> int:
    """`candidates` as an int; TypeError for anything but a whole number, ValueError if below n."""
    if (candidates := check_int("candidates", candidates, low=1)) < n:
        raise ValueError(f"candidates must be at least n={n}, got {candidates}")
    return candidates


def draw_candidates(size: int, n: int, candidates: int | None, generator: torch.Generator) -> torch.Tensor:
    """Rows (min(size, candidates),) of `size`, drawn uniformly, ascending; all if None. ValueError if below n."""
    if candidates is None:
        return torch.arange(size)
    return torch.randperm(size, generator=generator)[: check_candidates(candidates, n)].sort().values


def check_bandwidth(bandwidth: float) -> float:
    """`bandwidth` as a float; TypeError for anything but a number, ValueError unless it is above 0."""
    if check_number("bandwidth", bandwidth) <= 0:
        raise ValueError(f"bandwidth must be above 0, got {bandwidth}")
    return check_number("bandwidth", bandwidth)


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks (M,) float64 of values (M,), 0 for the smallest and 1 for the largest; equal values share their mean rank.

    Values that are all equal, or a single one, rank 0.5.
    """
    _, which, counts = values.unique(return_inverse=True, return_counts=True)
    mean = (counts.cumsum(0) - 1).double() - (counts - 1) / 2
    return (mean / (len(values) - 1))[which] if len(values) > 1 else torch.full_like(mean, 0.5)
