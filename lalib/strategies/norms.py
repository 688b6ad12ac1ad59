"""Strategies that ask where the smoothest function through all labels would have to bend most.

[Karzand2019]  M. Karzand, R. D. Nowak, "Maximin active learning with data-dependent norms", Allerton 2019, and
               "MaxiMin active learning in overparameterized model classes", arXiv:1905.12782.

f is the function of least norm through the labels in the space of the Laplace kernel k(x, y) = exp(-|x - y| / h). With
X the labelled images, Y their targets, K = k(X, X) + 1e-6 I and k_x = k(X, x):
    f(x) = k_x' K^-1 Y,  |f|^2 = tr(Y' K^-1 Y),  r_u(x) = k(x, u) - k_x' K^-1 k_u,  g(u) = r_u(u) + 1e-6.
f^u, which passes through (u, y) as well, needs no new fit: block inversion of the larger K gives
    f^u(x) = f(x) + (y - f(u)) r_u(x) / g(u),  |f^u|^2 = |f|^2 + |y - f(u)|^2 / g(u).
y is the label for which that norm is least. After a pick v with its y, r_u(x) becomes r_u(x) - r_v(x) r_v(u) / g(v).

Differs: the paper has two classes with targets -1 and 1. Ours has one function for each class among the labels, with
target 1 for its images and -1 for others, and squared norms are summed over them. The label of least norm is then
argmax_c f_c, as sum_c (y_c - f_c)^2 = sum_c (1 + f_c)^2 - 4 f_y; with two classes both functions are the paper's f, up
to the sign. The 1e-6 lets images at one place have different labels. Picks count as labelled with their y.
An image with g(u) <= 1e-5 is, for the kernel, at the place of a labelled or picked one. Its label counts as known: it
adds 0 to the norm, changes f by 0, and comes last.

Both share options. Both raise LalibError without labelled images and their labels, and for several labels per image.
space, alpha: where distances are measured, as for core-set (see learned), but by default "codes".
bandwidth: h > 0 in units of that space. None (default): the median distance between distinct points, of which at most
    512, evenly spread in lexicographic order, are looked at.
candidates: only so many unlabelled images, drawn uniformly, at least n (all, if fewer are left), may be picked; default
    10,000. Memory: candidates x (labelled + n + evaluations) numbers.
"""

from functools import partial

import torch
from torch import Tensor

from lalib.codes.neighbours import distinct, evenly_spread
from lalib.codes.pairwise import distances
from lalib.data.checks import check_int
from lalib.strategies.learned import class_labels, latent_points
from lalib.strategies.picking import check_bandwidth, draw_candidates, greedily, pick
from lalib.strategies.view import PoolView, Selection, Strategy, with_options_of

NUGGET = 1e-6  # on the diagonal of K
KNOWN = 1e-5  # g of an image that the kernel cannot tell from a labelled one
PLACES = 512  # whose distances set the bandwidth
ROWS = 64  # of the residual kernel, changed at once: they stay in the cache


def _fit(
    view: PoolView,
    n: int,
    generator: torch.Generator,
    evaluations: int = 0,
    *,
    space: str = "codes",
    alpha: float = 1.0,
    bandwidth: float | None = None,
    candidates: int = 10_000,
) -> tuple[Tensor, "_Interpolant"]:
    """Rows of the candidates, and f seen there."""
    labeled, points = latent_points(view, space, alpha)
    bandwidth = _median_distance(torch.cat([labeled, points])) if bandwidth is None else check_bandwidth(bandwidth)
    rows = draw_candidates(len(points), n, candidates, generator).to(points.device)
    at = draw_candidates(len(points), 1, evaluations, generator).to(points.device) if evaluations else rows[:0]
    _, which = class_labels(view).unique(return_inverse=True)
    targets = _one_vs_rest(which, int(which.max()) + 1)
    given = (labeled.double(), targets, points[rows].double(), n, bandwidth, points[at].double())
    return rows, _Interpolant(*given)


@with_options_of(_fit)
def norm_added(view: PoolView, n: int, *, generator: torch.Generator, **options) -> Selection:
    """Again and again the image u of largest |f^u|, score 1 of [Karzand2019]: whatever its label, f has to bend there.

    The score is that norm, with the square root over the sum of squares over the classes.
    """
    rows, fit = _fit(view, n, generator, **options)
    found, added = greedily(fit.added, fit.add, n)
    return pick(view, rows[found], (fit.norm + added.cumsum(0)).sqrt())


@with_options_of(_fit)
def norm_change(
    view: PoolView, n: int, *, generator: torch.Generator, evaluations: int = 2_000, **options
) -> Selection:
    """Again and again the image u whose label changes f most over the pool, score 2 of [Karzand2019].

    The score is the root of the mean over x of |f^u(x) - f(x)|^2 = |y - f(u)|^2 r_u(x)^2 / g(u)^2, where x runs over
    `evaluations` unlabelled images, default 2,000, drawn uniformly (all, if fewer are left).
    """
    rows, fit = _fit(view, n, generator, check_int("evaluations", evaluations, low=1), **options)
    found, change = greedily(fit.change, fit.add, n)
    return pick(view, rows[found], change)


def _median_distance(points: Tensor) -> float:
    """The module's bandwidth for points (N, F); 1.0 if all coincide."""
    places = evenly_spread(distinct(points)[0], PLACES).double()
    return float(torch.nn.functional.pdist(places).median()) if len(places) > 1 else 1.0


def _one_vs_rest(which: Tensor, n_classes: int) -> Tensor:
    return 2 * torch.nn.functional.one_hot(which, n_classes).double() - 1


def _laplace(a: Tensor, b: Tensor, bandwidth: float) -> Tensor:
    return distances(a, b).div_(-bandwidth).exp_()


class _Interpolant:
    """f through M labelled points (M, F) and, one by one, the picks, seen at the candidates (N, F).

    value (N, C): f(u); gap (N,): g(u); factor (M + picks, N): W with r_u(x) = k(x, u) - W_x' W_u, from the triangular
    root of K, which a pick extends by one row; residual (N, E): r_u(x) at the evaluation points (E, F), of which there
    may be none. norm: |f|^2 before the first pick.
    """

    def __init__(self, labeled: Tensor, targets: Tensor, points: Tensor, n: int, bandwidth: float, evaluations: Tensor):
        self.points, self.bandwidth, self.count = points, bandwidth, len(labeled)
        kernel = _laplace(labeled, labeled, bandwidth)
        kernel.diagonal().add_(NUGGET)
        whitened = partial(torch.linalg.solve_triangular, torch.linalg.cholesky(kernel), upper=False)
        weight = whitened(targets.to(points))
        self.factor = points.new_empty(len(labeled) + n, len(points))
        factor = self.factor[: self.count]
        factor[:] = whitened(_laplace(labeled, points, bandwidth))
        self.norm = weight.square().sum()
        self.value = factor.T @ weight
        self.gap = 1 + NUGGET - factor.square().sum(dim=0)
        known = whitened(_laplace(labeled, evaluations, bandwidth))
        self.residual = _laplace(points, evaluations, bandwidth).addmm_(factor.T, known, alpha=-1)

    def added(self) -> Tensor:
        """|f^u|^2 - |f|^2 of every candidate, (N,)."""
        return self.missing().square() / self.gap

    def change(self) -> Tensor:
        """Root of the mean over x of |f^u(x) - f(x)|^2, (N,)."""
        reach = torch.linalg.vector_norm(self.residual, dim=1) / self.residual.shape[1] ** 0.5
        return self.missing() / self.gap * reach

    def missing(self) -> Tensor:
        """|y - f(u)| with the label y of least norm, (N,); 0 where the label counts as known."""
        found = torch.linalg.vector_norm(self._errors(self.value), dim=1)
        return found.masked_fill_(self.gap <= KNOWN, 0)

    def _errors(self, value: Tensor) -> Tensor:
        """y - f, (B, C)."""
        return _one_vs_rest(value.argmax(dim=1), value.shape[1]) - value

    def add(self, row: Tensor) -> None:
        """Take the candidate v = `row` (1,) for labelled, with its label of least norm."""
        factor, gap, own = self.factor[: self.count], self.gap[row].clone(), self.residual[row[0]].clone()
        kernel = _laplace(self.points[row], self.points, self.bandwidth)[0]
        column = kernel - (factor.T @ factor[:, row])[:, 0]  # r_v(u)
        step = column / gap
        self.value += step[:, None] * self._errors(self.value[row])
        self.gap -= step * column
        self.factor[self.count] = column / gap.sqrt()
        self.count += 1
        if len(own):  # norm-added looks at no evaluation points
            for part, steps in zip(self.residual.split(ROWS), step.split(ROWS), strict=True):
                part.addr_(steps, own, alpha=-1)


DECLARED = (
    Strategy("norm-added", norm_added, needs=("codes", "labels"), several=False),
    Strategy("norm-change", norm_change, needs=("codes", "labels"), several=False),
)
