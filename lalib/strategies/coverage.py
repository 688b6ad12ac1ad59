"""Strategies that cover the codes, by balls or by kernels.

[Yehuda2022]  O. Yehuda et al., "Active learning through a covering lens", NeurIPS 2022: ProbCover.
[Bae2024]     W. Bae et al., "Generalized coverage for more robust low-budget active learning", ECCV 2024: MaxHerding.
[Bae2025]     W. Bae et al., "Uncertainty herding: one active learning method for all label budgets", ICLR 2025.
[Minoux1978]  M. Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.

Their unit of length, where none is given, follows the data and the budget. With m labelled and n to pick, each of the
m + n images has a share of the pool, and a ball of unit radius holds a quarter of it: the unit is the median distance
from a place to its k-th nearest other place, k = (number of places) / (4 (m + n)). Equal codes are one place; at most
256 places are looked at, evenly spread in lexicographic order.

All need O(N) memory. A first pass over all pairs in single precision gives upper bounds of the gains. What a pick takes
from them is subtracted, for the few images that it covers better; double precision decides among the largest.

reference: on how many images coverage is measured. A larger pool is measured on so many, drawn uniformly. If these are
more than the probes (10,000, or 2e9 / N if that is more), gains are estimated on the first of them, the probes, and all
of them decide among the 64 images of largest estimates. None: always on all images, exactly.
Measured (tests/benchmarks/bench_coverage.py: x 32, 100 labelled, 100 picks, one thread). 100,000 codes: probcover
4.4 s instead of 13.3, loss of what the picks add against the exact greedy 0.54 % (+- 0.21, 95 %, 3 seeds); maxherding
5.2 s instead of 17.9, 0.15 % (+- 0.12). 1,000,000 images, against a reference of 200,000 with 40,000 probes, one seed:
19 s and 1.2 %; 21 s and 0.2 %; less than 300 MB beside the codes.
"""

from functools import cached_property

import torch

from lalib.codes.neighbours import distinct, evenly_spread
from lalib.codes.pairwise import blocks, distances, full_precision, tiles
from lalib.data.checks import check_choice, check_int, check_number
from lalib.strategies.picking import check_bandwidth, draw_candidates, pick
from lalib.strategies.uncertainty import MEASURES, uncertainty
from lalib.strategies.view import PoolView, Selection, Strategy

REFERENCE = 50_000  # images on which coverage is measured in larger pools
PROBES = 10_000  # of these, at least, for estimates of the gains of all images
PAIRS = 2 * 10**9  # of probes and images, where that allows more probes
BATCH = 64  # gains computed exactly at once
SHARE = 4  # a ball of unit radius holds a quarter of an image's share: chosen by labels of mnist-mini
PLACES = 256  # whose neighbours set the unit of length
FAR = 1e8  # squared, in units of length: there a product is right to about 1e-6
LIMIT = 1 + 1e-9  # squares of distances in units of the radius, up to which an image lies in a ball
DECIMALS = 9  # of a gain: gains that differ less are equal


def probcover(
    view: PoolView,
    n: int,
    *,
    generator: torch.Generator,
    delta: float | None = None,
    reference: int | None = REFERENCE,
) -> Selection:
    """Again and again the image whose ball of radius delta holds most uncovered images, Alg. 1 of [Yehuda2022].

    delta: in units of the codes, >= 0; None (default): see the module. Labelled images cover their balls, too. Once
    all images are covered, those in the fewest balls count as uncovered, and so on. reference: on how many images this
    is measured, drawn if the pool has more; None: on all, see the module. Equal gains go to the lowest index. The score
    is the number of images newly covered, estimated if it is measured on a part.
    Differs: the paper sets delta once, by the purity of k-means clusters. Ours shrinks as more images are labelled, so
    that later rounds do not find everything covered.
    """
    columns, share = _reference(view, reference, generator)
    delta = _unit(view, n, columns) if delta is None else check_number("delta", delta, low=0)
    codes = view.codes
    if not delta:  # A ball of radius 0 holds what is at the same place: the digits of its number are the codes then.
        codes = 2.0 * (distinct(codes)[1][:, None] // 16 ** torch.arange(8, device=codes.device) % 16)
    found, gains = _lazy_greedy(_Balls(_Squares(codes, delta or 1.0, view.unlabeled, columns), view.labeled), n)
    return pick(view, found, share * gains)


def maxherding(
    view: PoolView,
    n: int,
    *,
    generator: torch.Generator,
    bandwidth: float | None = None,
    candidates: int | None = None,
    reference: int | None = REFERENCE,
) -> Selection:
    """Again and again the image x of largest sum_i max(k(x_i, x) - max_l k(x_i, l), 0), l labelled or picked [Bae2024].

    k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)). bandwidth: in units of the codes, > 0; None (default): see the module.
    candidates: only so many unlabelled images, drawn uniformly, at least n (all, if fewer are left), may be picked;
    None (default): all. reference: on how many images the sum is measured, drawn if the pool has more;
    None: on all, see the module. Equal gains go to the lowest index. The score is the gain, at most N, estimated if it
    is measured on a part.
    """
    return _herd(view, n, torch.ones(view.n_images), generator, bandwidth, candidates, reference)


def uncertainty_herding(
    view: PoolView,
    n: int,
    *,
    generator: torch.Generator,
    measure: str = "margin",
    bandwidth: float | None = None,
    candidates: int | None = None,
    reference: int | None = REFERENCE,
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
    return _herd(view, n, weight, generator, bandwidth, candidates, reference)


def _herd(view, n, weight, generator, bandwidth, candidates, reference):
    rows = draw_candidates(len(view.unlabeled), n, candidates, generator)
    columns, share = _reference(view, reference, generator)
    bandwidth = (_unit(view, n, columns) or 1.0) if bandwidth is None else check_bandwidth(bandwidth)
    squares = _Squares(view.codes, 2**0.5 * bandwidth, view.unlabeled[rows], columns)
    found, gains = _lazy_greedy(_Kernels(squares, view.labeled, weight[columns]), n)
    return pick(view, rows[found], share * gains)


def _reference(view, reference, generator):
    """Indices (R,) of the images on which coverage is measured, in any order, and for how many of all each stands."""
    size = view.n_images
    if reference is None or (reference := check_int("reference", reference, low=1)) >= size:
        return torch.arange(size), 1.0
    return torch.randperm(size, generator=generator)[:reference], size / reference


def _unit(view, n, columns):
    """The module's unit of length, found among the columns (R,); 0.0 if all codes coincide."""
    places = distinct(view.codes[columns.to(view.codes.device)])[0].double()
    if (size := len(places)) == 1:
        return 0.0
    k = min(max(1, round(size / (SHARE * (len(view.labeled) + n)))), size - 1)
    found = [distance.kthvalue(k + 1).values for distance in blocks(evenly_spread(places, PLACES), places)]
    return float(torch.cat(found).median())


class _Squares:
    """Minus squared distances, in a unit of length, between the columns (R,) and the candidates, `images` (M,).

    Exact ones are in double precision, by a product about the median. Rough ones are in single precision: a product of
    L + 2 terms is right to (L + 2) 2^-23 of both squared norms, so these are made smaller by a little more (side=-1:
    never too far) or larger (side=1: never too near). They stop at the first columns, `probes`, if columns are a part.
    """

    def __init__(self, codes, unit, images, columns):
        self.codes, self.unit, self.images = codes, unit, images.to(codes.device)
        self.middle = codes[:: 1 + len(codes) // 10_000].double().median(dim=0).values  # far codes do not move it
        self.slack = (codes.shape[1] + 16) * 2**-23
        self.columns = _turned(self._factor(columns.to(codes.device)))
        self.probes = slice(max(PROBES, PAIRS // len(images)) if len(columns) < len(codes) else None)
        widest = (torch.stack(codes.aminmax(dim=0)).double() - self.middle).abs().max() / unit
        kind = torch.float32 if widest < 1e15 else torch.float64  # its square must be finite
        self.rough = self.columns[self.probes].to(kind)
        self.share = len(columns) / len(self.rough)
        self.candidates = self.rough.new_empty(len(images), codes.shape[1] + 2)
        for part in torch.arange(len(images)).split(2**16):
            self.candidates[part] = self._factor(self.images[part]).to(kind)

    def _factor(self, index):
        x = (self.codes[index].double() - self.middle) / self.unit
        norm = x.square().sum(dim=1, keepdim=True)
        return torch.cat([2 * x, -norm, -torch.ones_like(norm)], dim=1)

    def exact(self, images):
        """`tiles` from all columns to the images at these indices (B,)."""
        right = self._factor(images)
        for at, part, square in tiles(self.columns, right):
            yield at, part, _mended(self.columns[at], right[part], square)

    def bounds(self, side, mask=slice(None), rows=slice(None)):
        """`tiles` from the probes in the mask to these rows of the candidates."""
        probes = self.rough[mask]
        return tiles(self._widened(probes, side), self.candidates[rows])

    def from_row(self, row):
        """From all columns to one candidate, (R,)."""
        right = self._factor(self.images[[row]])
        return _mended(self.columns, right, self.columns @ right.T)[:, 0]

    def near(self, row, radius):
        """Rows of the candidates that may lie within the radius about one of them; all if they are many."""
        point = self._widened(_turned(self._factor(self.images[[row]])).to(self.rough), -1)[0]
        near = self.candidates @ point >= -(radius**2) * (1 + 1e-6)
        return near.nonzero()[:, 0] if 2 * near.sum() < len(near) else slice(None)

    def _widened(self, columns, side):
        return torch.cat([columns[:, :-2], columns[:, -2:] * (1 + side * self.slack)], dim=1)


def _mended(columns, right, square):
    """Where both images lie very far from the median a product has few digits left: differences take its place."""
    far, there = (columns[:, -1] > FAR).nonzero()[:, 0], (right[:, -2] < -FAR).nonzero()[:, 0]
    if len(far) and len(there):
        square[far[:, None], there] = -distances(columns[far, :-2], right[there, :-2] / 2).square_()
    return square.clamp_(max=0)


def _turned(factor):
    return torch.cat([factor[:, :-2] / 2, -factor[:, -1:], -factor[:, -2:-1]], dim=1)


class _Cover:
    """reach (R,): how well each column is covered, in [0, 1]; kernel: how well an image covers a column, in place.

    The gain of an image is by how much the sum of weight x reach would grow, weight (R,) in [0, 1]. error: more than
    that of a kernel in single precision.
    """

    def bounds(self):
        """Upper bounds of the gains of all candidates (M,); estimates of the gains if the probes are a part."""
        probes = self.squares.probes
        mask = (self.weight * (1 - self.reach))[probes] > 0
        reach, weight = (x[probes][mask].to(self.squares.rough) for x in (self.reach, self.weight))
        total = self._sum(self.squares.bounds(-1, mask), len(self.squares.images), reach, weight)
        return (total + self._margin(total, weight)) * self.squares.share

    def gains(self, rows):
        tiles = self.squares.exact(self.squares.images[rows])
        return self._sum(tiles, len(rows), self.reach, self.weight).round(decimals=DECIMALS)

    def _sum(self, tiles, size, reach, weight, most=None):
        total = self.reach.new_zeros(size)
        for at, part, square in tiles:
            value = self.kernel(square)
            value = value if most is None else torch.minimum(value, most[at, None], out=value)
            total[part] += weight[at] @ value.sub_(reach[at, None]).relu_()
        return total

    def _margin(self, total, weight):
        """More than the error of sums in single precision."""
        most = weight.sum()
        return (10 * total + most + (1e6 * most).clamp(max=1e-3)) * self.error

    def add(self, row, bound):
        """Let the row cover its columns, and take from the bounds (M,), in place, what others would have gained there.

        Who gains where the row does is near both: nearer to the column than `extent` of its old reach.
        """
        squares, old, square = self.squares, self.reach, self.squares.from_row(row)
        self.reach = self.reached(self.kernel(square.clone()))
        mask = (self.weight * (self.reach - old))[squares.probes] > self.error
        if (self.reach < old).any():
            bound.copy_(self.bounds())
        elif mask.any():
            old, new, weight, square = (x[squares.probes][mask] for x in (old, self.reach, self.weight, square))
            rows = squares.near(row, (self.extent(old) + square.neg().sqrt()).max())
            old, new, weight = (x.to(squares.rough) for x in (old, new, weight))
            less = self._sum(squares.bounds(1, mask, rows), len(bound[rows]), old, weight, new)
            bound[rows] -= (less - self._margin(less, weight)).clamp_(min=0) * squares.share


class _Balls(_Cover):
    """A column is covered in the ball about an image. covers (R,): how many labelled or picked ones it is near to.

    Columns in the fewest balls have reach 0, the others 1: once all are covered, reach falls again.
    """

    error = 0.0

    def __init__(self, squares, labeled):
        self.squares, self.covers = squares, torch.zeros_like(squares.columns[:, 0])
        self.weight = torch.ones_like(self.covers)
        for at, _, square in squares.exact(labeled):
            self.covers[at] += self.kernel(square).sum(dim=1)
        self.reach = self.reached(0)

    def kernel(self, square):
        return square.ge_(-LIMIT)

    def extent(self, reach):
        return LIMIT

    def reached(self, value):
        self.covers += value
        return (self.covers > self.covers.min()).double()

    def bounds(self):
        return super().bounds() if self.reach.any() else self.sizes.clone()

    @cached_property
    def sizes(self):
        return super().bounds()


class _Kernels(_Cover):
    """reach: the kernel k of each column and the nearest labelled or picked image, 0 if there is none."""

    error = 1e-6

    def __init__(self, squares, labeled, weight):
        self.squares, self.reach = squares, torch.zeros_like(squares.columns[:, 0])
        for at, _, square in squares.exact(labeled):
            self.reach[at] = torch.maximum(self.reach[at], self.kernel(square.amax(dim=1).clamp_(max=0)))
        self.weight = weight.to(self.reach) * (self.reach < 1 - 1e-12)  # the others have nothing to gain

    def kernel(self, square):
        return square.exp_()

    def extent(self, reach):
        return reach.log().neg().sqrt()

    def reached(self, value):
        return torch.maximum(self.reach, value)


@full_precision()
def _lazy_greedy(state, n):
    """Rows (n,), each of the largest gain after those before it, the lowest of equals, and their gains (n,).

    Exact and lazy [Minoux1978]: only the rows of largest bounds are computed, until the largest of all is a gain.
    Gains only fall, so that one of an earlier step is a bound; where they grow, state.add gives new bounds. Where the
    bounds are estimates, the largest of BATCH gains is taken.
    """
    bound, picked, scores = state.bounds(), [], []
    exact = torch.zeros_like(bound, dtype=torch.bool)
    while True:
        best = int(bound.argmax())
        if not exact[best] and (state.squares.share == 1 or not exact.any()):
            rows = bound.masked_fill(exact, -torch.inf).topk(min(BATCH, len(bound))).indices
            rows = rows[~exact[rows] & bound[rows].isfinite() & (rows != best)]
            rows = torch.cat([rows, rows.new_tensor([best])])  # even if too many tie with it
            bound[rows], exact[rows] = state.gains(rows), True
            continue
        best = int(bound.masked_fill(~exact, -torch.inf).argmax())
        picked.append(best)
        scores.append(bound[best].clone())
        if len(picked) == n:
            return torch.tensor(picked), torch.stack(scores)
        state.add(best, bound)
        bound[picked], exact[:] = -torch.inf, False


DECLARED = (
    Strategy("probcover", probcover, needs=("codes",)),
    Strategy("maxherding", maxherding, needs=("codes",)),
    Strategy("uncertainty-herding", uncertainty_herding, needs=("codes", "probs")),
)
