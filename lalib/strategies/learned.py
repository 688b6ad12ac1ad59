"""Strategies that use what a task model has learned: its last features, or the losses it expects.

[Sener2018] O. Sener, S. Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018.
[Smailagic2018] A. Smailagic et al., "MedAL: accurate and robust deep active learning for medical image analysis",
              ICMLA 2018.
[Yoo2019]   D. Yoo, I. S. Kweon, "Learning loss for active learning", CVPR 2019.
[Ash2020]   J. T. Ash et al., "Deep batch active learning by diverse, uncertain gradient lower bounds", ICLR 2020.

core-set and medal, and those of distances and norms, measure Euclidean distances and share options:

space: "features" h (default: view.features), "codes" z (view.codes), "both", which is [h, alpha z], or "latents"
(view.latents), the latent codes of a task model that has some.
alpha: weight >= 0 of the codes in "both", default 1. It depends on the scale of both parts, so core-set and medal
record it with the round: task_spread and code_spread, the root mean square distance between two images in h and in
alpha z.
"""

import torch

from lalib.codes.clustering import seeding
from lalib.codes.pairwise import TINY, Nearest, Rough, power_of_two, squared_norms, squares_from
from lalib.data.checks import LalibError, check_choice, check_int, check_number
from lalib.data.door import LARGEST, check_labels, within
from lalib.strategies.picking import draw_candidates, greedily, largest, pick
from lalib.strategies.uncertainty import class_probs, uncertainty
from lalib.strategies.view import PoolView, Selection, Strategy

SPACES = ("features", "latents", "codes", "both")
ROUNDING = 1e-12  # squared distances below this share of the squared norms are those of equal gradients


def learning_loss(
    view: PoolView,
    n: int,
    *,
    generator: torch.Generator,
    space: str = "features",
    candidates: int | None = 10_000,
) -> Selection:
    """The n images of largest expected loss among some drawn from the pool [Yoo2019].

    space: "features" (default: view.predicted_losses) or "both": view.predicted_losses_with_codes, whose head sees the
    codes beside the task model's features. candidates: how many unlabelled images are drawn, at least n (all, if fewer
    are left). Images of large expected loss resemble each other, and the draw keeps the picks apart. Default: the
    paper's 10,000, a fifth of its pool. None: the whole pool, the simpler form. loss_weight: of the pair loss beside
    the task's, default 1.
    """
    check_choice("space", space, ("features", "both"))
    losses = view.predicted_losses if space == "features" else view.predicted_losses_with_codes
    losses = losses.cpu()[view.unlabeled]
    rows = draw_candidates(len(losses), n, candidates, generator)
    return largest(view, torch.full_like(losses, -torch.inf).index_copy_(0, rows, losses[rows]), n)


def core_set(
    view: PoolView, n: int, *, generator: torch.Generator, space: str = "features", alpha: float = 1.0
) -> Selection:
    """Greedy k-center, Alg. 1 of [Sener2018]: again and again the image farthest from all labelled and picked ones.

    With nothing labelled the first is drawn uniformly. The score is the distance to the nearest labelled or picked.
    """
    labeled, points = latent_points(view, space, alpha)
    near = Nearest(points, labeled)
    found, square = greedily(lambda: near.square, near.add, n, first=_cold_start(labeled, points, generator))
    return pick(view, found, square.sqrt(), **_spreads(view, space, alpha))


def medal(
    view: PoolView,
    n: int,
    *,
    generator: torch.Generator,
    space: str = "features",
    alpha: float = 1.0,
    per_pick: int | None = 6,
) -> Selection:
    """Of the images of largest entropy again and again the one farthest from all labelled and picked [Smailagic2018].

    Farthest: of largest mean squared distance, which is the score. per_pick: the M = per_pick x n images of largest
    entropy of view.probs are looked at (all, if fewer are left). Default: 6, as in the authors' script, which takes 5
    of 30. None: all images, the simpler form. With nothing labelled the first is drawn uniformly among those looked at.
    Differs: squared distances, whose mean is |x - m|^2 + mean |l - m|^2 with m the mean of the labelled.
    """
    labeled, points = latent_points(view, space, alpha)
    rows = torch.arange(len(points))
    if per_pick is not None:
        order = uncertainty(view, "entropy").argsort(descending=True, stable=True)
        rows = order[: check_int("per_pick", per_pick, low=1) * n].sort().values
    points, labeled, count = points[rows.to(points.device)], labeled.double(), len(labeled)
    mean = labeled.mean(dim=0) if count else labeled.new_zeros(labeled.shape[1])
    spread = squared_norms(labeled - mean).mean() if count else labeled.new_zeros(())
    rough = Rough(points)

    def scores():
        return squares_from(mean, points, rough) + spread

    def add(row):  # the moments with one more point, without a second pass
        nonlocal mean, spread, count
        point, count = points[row][0].double(), count + 1
        before, mean = point - mean, mean + (point - mean) / count
        spread = spread + (before @ (point - mean) - spread) / count
        rough.right[-1, row] = -torch.inf  # it cannot be the largest any more

    found, score = greedily(scores, add, n, first=_cold_start(labeled, points, generator))
    return pick(view, rows[found], score, **_spreads(view, space, alpha))


def _cold_start(labeled, points, generator):
    """The row to begin with, drawn uniformly if nothing is labelled, else None."""
    return None if len(labeled) else int(torch.randint(len(points), (1,), generator=generator))


def latent_points(view: PoolView, space: str, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the labelled (M, F) and of the unlabelled images (U, F) in a space of the module."""
    check_choice("space", space, SPACES)
    alpha = check_number("alpha", alpha, low=0)
    if space == "both":
        points = torch.cat([view.features.double(), alpha * view.codes.to(view.features.device).double()], dim=1)
        if not within(points, LARGEST):
            raise ValueError(f"alpha={alpha:g} makes codes beyond {LARGEST:g}")
    else:
        points = getattr(view, space)
    return points[view.labeled.to(points.device)], points[view.unlabeled.to(points.device)]


def _spreads(view, space, alpha):
    if space != "both":
        return {}
    spreads = [(2 * part.double().var(dim=0, correction=0).sum()).sqrt() for part in (view.features, view.codes)]
    return {"task_spread": float(spreads[0]), "code_spread": check_number("alpha", alpha) * float(spreads[1])}


def class_labels(view: PoolView, n_classes: int | None = None) -> torch.Tensor:
    """view.labels (M,) int64, M >= 1, in [0, n_classes) if that is given; LalibError if there are none."""
    if view.labels is None or not len(view.labels):
        raise LalibError("this strategy needs labelled images, which were not given: pass labeled=index, labels=y")
    return check_labels(view.labels, n_classes=n_classes)


class Gradients(Nearest):
    """`Nearest` among the products a x b of rows of a (N, C) and b (N, F), which are never formed.

    |a x b - c x d|^2 = |a|^2 |b|^2 + |c|^2 |d|^2 - 2 (a.c)(b.d). length (N,): |a x b|^2.
    """

    def __init__(self, a: torch.Tensor, b: torch.Tensor):
        self.parts, sizes = (a, b), [power_of_two(part.abs().max()) for part in (a, b)]
        self.size, loss = max(2**-500, sizes[0] * sizes[1]), (a.shape[1] + b.shape[1] + 16) * 2**-23
        self.rough = [(part / size).float().T.contiguous() for part, size in zip(self.parts, sizes, strict=True)]
        self.length = squared_norms(a) * squared_norms(b)
        self.low = (self.length / self.size**2).float() * (1 - loss) - TINY
        self.square = torch.full_like(self.length, torch.inf)
        self.reach = self.rounded_up(self.square)

    def bounds(self, row: torch.Tensor) -> torch.Tensor:
        a, b = (part[:, row[0]] @ part for part in self.rough)
        return torch.addcmul(self.low, a, b, value=-2).add_(self.low[row])

    def squares(self, rows: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        a, b = (part[rows].double() @ part[row][0].double() for part in self.parts)
        both = self.length[rows] + self.length[row]
        square = both - 2 * a * b
        return square.masked_fill_(square <= ROUNDING * both, 0)


def badge(view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
    """k-means++ on the gradients (p - onehot(argmax p)) x h of the last layer, Alg. 1 of [Ash2020].

    p is view.probs and h view.features. The first image is that of largest gradient, as in the authors' code; each
    further one is drawn with probability proportional to its squared distance from those before it, uniformly once all
    distances are 0. Several labels per image: (p - round(p)) x h. The score is the squared distance.
    """
    gradients = Gradients(*gradient_factors(view))
    rows, square = seeding(gradients, n, generator, first=int(gradients.length.argmax()))
    square[0] = gradients.length.max()
    return pick(view, rows, square)


def gradient_factors(view: PoolView) -> tuple[torch.Tensor, torch.Tensor]:
    """p - onehot(argmax p) (U, C) and h (U, F) of the unlabelled images; of several labels p - round(p)."""
    p = class_probs(view)
    guess = p.round() if view.multi_label else torch.zeros_like(p).scatter_(1, p.argmax(dim=1, keepdim=True), 1)
    return p.sub_(guess), view.features[view.unlabeled.to(view.features.device)].to(p.device)


DECLARED = (
    Strategy("badge", badge, needs=("probs", "features")),
    Strategy("core-set", core_set, needs=("features",)),
    Strategy("medal", medal, needs=("features", "probs")),
    Strategy("learning-loss", learning_loss, needs=("predicted_losses",)),
)
