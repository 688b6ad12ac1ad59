"""Strategies that cover the codes, by balls or by kernels.

[Yehuda2022]  O. Yehuda et al., "Active learning through a covering lens", NeurIPS 2022: ProbCover.
[Bae2024]     W. Bae et al., "Generalized coverage for more robust low-budget active learning", ECCV 2024: MaxHerding.
[Bae2025]     W. Bae et al., "Uncertainty herding: one active learning method for all label budgets", ICLR 2025.
[Minoux1978]  M. Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.

Their unit of length, where none is given, follows the data and the budget. With m labelled and n to pick, each of the
m + n images has a share of the pool, and a ball of unit radius holds a quarter of it: the unit is the median distance
from a place to its k-th nearest other place, k = (number of places) / (4 (m + n)). Equal codes are one place; at most
256 places are looked at, evenly spread in lexicographic order.

All need O(N) memory. A first pass over all pairs in single precision gives upper bounds of the gains. After that only
images that may have the largest gain are looked at, and double precision decides.
"""

from functools import cached_property

import torch

from lalib.codes.neighbours import distinct, evenly_spread
from lalib.codes.pairwise import Pairs, blocks, full_precision
from lalib.data.checks import check_choice, check_number
from lalib.strategies.picking import check_bandwidth, draw_candidates, pick
from lalib.strategies.uncertainty import MEASURES, uncertainty
from lalib.strategies.view import PoolView, Selection, Strategy

BATCH = 64  # gains computed again at once
SHARE = 4  # a ball of unit radius holds a quarter of an image's share: better on mnist-mini than a half or all of it
PLACES = 256  # whose neighbours set the unit of length
ROUNDING = 1e-9  # a squared distance lies within a squared radius up to this share beyond it
DECIMALS = 9  # of a gain: gains that differ less are equal


def probcover(view: PoolView, n: int, *, generator: torch.Generator, delta: float | None = None) -> Selection:
    """Again and again the image whose ball of radius delta holds most uncovered images, Alg. 1 of [Yehuda2022].

    delta: in units of the codes, >= 0; None (default): see the module. Labelled images cover their balls, too. Once
    all images are covered, those in the fewest balls count as uncovered, and so on. Nothing is drawn; equal gains go to
    the lowest index. The score is the number of images newly covered.
    Differs: the paper sets delta once, by the purity of k-means clusters. Ours shrinks as more images are labelled, so
    that later rounds do not find everything covered.
    """
    delta = _unit(view, n) if delta is None else check_number("delta", delta, low=0)
    # A ball of radius 0 holds what is at the same place: places are numbered then.
    points = view.codes.double() / delta if delta else 2 * distinct(view.codes)[1].double()[:, None]
    balls = _Balls(Pairs(points, view.unlabeled), view.labeled, limit=1 + ROUNDING)
    return pick(view, *_lazy_greedy(balls, n))


def maxherding(
    view: PoolView, n: int, *, generator: torch.Generator, bandwidth: float | None = None, candidates: int | None = None
) -> Selection:
    """Again and again the image x of largest sum_i max(k(x_i, x) - max_l k(x_i, l), 0), l labelled or picked [Bae2024].

    k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)). bandwidth: in units of the codes, > 0; None (default): see the module.
    candidates: only so many unlabelled images, drawn uniformly, at least n (all, if fewer are left), may be picked;
    None (default): all, and nothing is drawn. Equal gains go to the lowest index. The score is the gain, at most N.
    """
    return _herd(view, n, torch.ones(view.n_images), generator, bandwidth, candidates)


def uncertainty_herding(
    view: PoolView,
    n: int,
    *,
    generator: torch.Generator,
    measure: str = "margin",
    bandwidth: float | None = None,
    candidates: int | None = None,
) -> Selection:
    """maxherding with every image i weighted by how uncertain the task model is of it [Bae2025].

    sum_i u_i max(k(x_i, x) - max_l k(x_i, l), 0), u_i by "margin" (default), "entropy" or "least-confidence" of
    view.probs, divided by the largest; if no image is uncertain at all, all weigh alike. The other options are
    maxherding's. Few labels make it cover the codes, many make it ask where classes meet.
    Differs: the paper calibrates the probabilities and lets the radius follow that; our bandwidth follows the budget.
    """
    found = uncertainty(view, check_choice("measure", measure, MEASURES))
    weight = torch.zeros(view.n_images, dtype=torch.float64)
    weight[view.unlabeled] = found / found.max() if found.max() > 0 else 1.0
    return _herd(view, n, weight, generator, bandwidth, candidates)


def _herd(view, n, weight, generator, bandwidth, candidates):
    bandwidth = (_unit(view, n) or 1.0) if bandwidth is None else check_bandwidth(bandwidth)
    rows = draw_candidates(len(view.unlabeled), n, candidates, generator)
    pairs = Pairs(view.codes.double() / (2**0.5 * bandwidth), view.unlabeled[rows])
    found, gains = _lazy_greedy(_Kernels(pairs, view.labeled, weight), n)
    return pick(view, rows[found], gains)


def _unit(view, n):
    """The module's unit of length; 0.0 if all codes coincide."""
    places = distinct(view.codes)[0].double()
    if (size := len(places)) == 1:
        return 0.0
    k = min(max(1, round(size / (SHARE * (len(view.labeled) + n)))), size - 1)
    found = [distance.kthvalue(k + 1).values for distance in blocks(evenly_spread(places, PLACES), places)]
    return float(torch.cat(found).median())


class _Balls:
    """Around each labelled or picked image lies a ball; covers (N,) counts in how many of them each image lies.

    Images in the fewest balls are uncovered. The gain of a further ball is the number of uncovered images in it.
    limit: the squared radius.
    """

    def __init__(self, pairs, labeled, limit):
        self.pairs, self.limit = pairs, limit
        self.covers = torch.zeros_like(pairs.right[:, 0])
        for _, columns, square in pairs.from_points(labeled):
            self.covers[columns] += square.le_(limit).sum(dim=0)

    def gains(self, rows, rough=False, whole=False):
        """whole: as if all images were uncovered."""
        total = self.covers.new_zeros(len(rows))
        for part, _, square in self.pairs.tiles(rows, None if whole else self.covers == self.covers.min(), rough):
            total[part] += square.le_(self.limit).sum(dim=1)
        return total.cpu()

    def add(self, row):
        """Put a ball around the row. If it covers the last uncovered image, gains grow: an upper bound, else None."""
        before = self.covers.min()
        self.covers += self.pairs.from_row(row).le_(self.limit)
        return self.sizes if self.covers.min() > before else None

    @cached_property
    def sizes(self):
        return self.gains(torch.arange(len(self.pairs.left)), rough=True, whole=True)


class _Kernels:
    """reach (N,): the kernel k of each image and the nearest labelled or picked one, 0 if there is none.

    The gain of a further image is by how much the sum of weight x reach grows, weight (N,) in [0, 1].
    """

    def __init__(self, pairs, labeled, weight):
        self.pairs, self.weight = pairs, weight.to(pairs.right)
        self.reach = torch.zeros_like(pairs.right[:, 0])
        for _, columns, square in pairs.from_points(labeled):
            self.reach[columns] = torch.maximum(self.reach[columns], square.amin(dim=0).neg_().exp_())

    def gains(self, rows, rough=False):
        total, kind = self.reach.new_zeros(len(rows)), torch.float32 if rough else torch.float64
        reach, weight = self.reach.to(kind), self.weight.to(kind)
        for part, columns, square in self.pairs.tiles(rows, rough=rough):
            total[part] += square.neg_().exp_().sub_(reach[columns]).relu_() @ weight[columns]
        if rough:  # exponentials, sums and reach are right to less than that
            total = total * (1 + 1e-5) + len(reach) * 1e-6
        return total.round(decimals=DECIMALS).cpu()

    def add(self, row):
        self.reach = torch.maximum(self.reach, self.pairs.from_row(row).neg_().exp_())


# What we know of a gain: itself, an upper bound of it, or what it was at an earlier step.
EXACT, BOUND, STALE = range(3)


@full_precision()
def _lazy_greedy(state, n):
    """Rows (n,), each of the largest gain after those before it, the lowest of equals, and their gains (n,).

    Exact and lazy [Minoux1978]: gains only fall, so that a gain of an earlier step is an upper bound. Only the rows of
    largest bounds are computed again, first roughly, then exactly. Where gains grow, state.add gives new bounds.
    """
    gain = state.gains(torch.arange(len(state.pairs.left)), rough=True)
    status, picked, scores = torch.full_like(gain, BOUND), [], []
    while True:
        best = int(gain.argmax())
        if status[best] != EXACT:
            alike = status == status[best]
            rows = gain.masked_fill(~alike, -torch.inf).topk(min(BATCH, len(gain))).indices
            rows = rows[gain[rows].isfinite() & alike[rows] & (rows != best)]
            rows = torch.cat([rows, torch.tensor([best])])  # even if too many tie with it
            status[rows] -= 1
            gain[rows] = state.gains(rows, rough=bool(status[best] == BOUND))
            continue
        picked.append(best)
        scores.append(gain[best].clone())
        if len(picked) == n:
            return torch.tensor(picked), torch.stack(scores)
        bound = state.add(best)
        gain = gain if bound is None else bound.clone()
        gain[picked] = -torch.inf
        status[:] = STALE


DECLARED = (
    Strategy("probcover", probcover, needs=("codes",)),
    Strategy("maxherding", maxherding, needs=("codes",)),
    Strategy("uncertainty-herding", uncertainty_herding, needs=("codes", "probs")),
)
