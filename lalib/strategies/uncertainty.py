"""Strategies that ask for the images of which a task model is least certain.

[Settles2009]  B. Settles, "Active learning literature survey", 2009: least confidence, margin, entropy.
[Houlsby2011]  N. Houlsby et al., "Bayesian active learning for classification and preference learning", 2011: BALD.
[Kirsch2019]   A. Kirsch, J. van Amersfoort, Y. Gal, "BatchBALD", NeurIPS 2019.
[BickfordSmith2023] F. Bickford Smith et al., "Prediction-oriented Bayesian active learning", AISTATS 2023: EPIG.

least-confidence, margin and entropy take view.probs (N, C) and share options:

representativeness, diversity: weights w2, w3 >= 0, default 0. An image's value is rank(uncertainty) +
    w2 rank(representativeness) + w3 rank(diversity), every rank scaled to 0 .. 1 among the unlabelled. Diversity is the
    smallest distance in code space to a labelled or already picked image, ranked anew after every pick.
representative_by: "knn" (default: minus the mean distance to the nearest codes) or "prior" (the log density of N(0, I)
    at the code, for a VAE).
neighbours: how many nearest codes "knn" looks at, default 20. They are searched once while the codes stay the same;
    of more than EXACT codes nearly the nearest, see la.codes.knn.

Several labels per image: every label is a binary question, and the measure is its mean over the labels.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from lalib.codes.neighbours import EXACT, knn
from lalib.codes.pairwise import Nearest
from lalib.data.checks import LalibError, check_choice, check_int, check_number
from lalib.data.files import tensor_digest
from lalib.strategies.picking import check_candidates, greedily, largest, pick, ranks
from lalib.strategies.view import PoolView, Selection, Strategy

BLOCK = 2**17  # probabilities worked on at once by bald and batchbald: 1 MB stays in the cache
FEW = 1000  # of largest uncertainty, looked at first
TIE = 1e-9  # more than the rounding of a score
SUM = 0.02  # how far a row of probabilities may sum from 1: half-precision softmax


def _most_uncertain(measure: str, formula: str) -> Callable[..., Selection]:
    """The strategy of one of MEASURES."""

    def strategy(
        view: PoolView,
        n: int,
        *,
        generator: torch.Generator,
        representativeness: float = 0.0,
        diversity: float = 0.0,
        representative_by: str = "knn",
        neighbours: int = 20,
    ) -> Selection:
        w2 = check_number("representativeness", representativeness, low=0)
        w3 = check_number("diversity", diversity, low=0)
        near = REPRESENTATIVE[check_choice("representative_by", representative_by, REPRESENTATIVE)]
        neighbours = check_int("neighbours", neighbours, low=1)
        value = uncertainty(view, measure)
        if w2 or w3:
            value = ranks(value)
        if w2:
            value += w2 * ranks(near(view, neighbours))
        if not w3:
            return largest(view, value, n)
        near = Nearest(*(view.codes[index.to(view.codes.device)] for index in (view.unlabeled, view.labeled)))
        return pick(view, *greedily(*_with_diversity(value.to(near.square.device), w3, near), n))

    strategy.__name__ = strategy.__qualname__ = measure.replace("-", "_")
    strategy.__doc__ = f"The n images of largest {formula}; the options are those of the module."
    return strategy


def _with_diversity(value, weight, near):
    """The functions scores and add of `greedily`: value (M,) + weight x rank of near.square, exact for the largest."""
    value, most = value.clone(), value.max()
    order = value.argsort(descending=True, stable=True)
    falling, last = -value[order], len(value) - 1

    def exact(rows, ordered):  # equal values share their mean rank
        square = near.square[rows]
        below, upto = (torch.searchsorted(ordered, square, right=right) for right in (False, True))
        return value[rows] + weight * ((below + upto - 1).double() / (2 * last) if last else 0.5)

    def scores():
        if value.device.type != "cpu":
            return exact(slice(None), near.square.sort().values)
        ordered = torch.from_numpy(np.sort(near.square.numpy()))  # many times faster than torch's
        best = exact(order[:FEW], ordered).max()  # of some. Only what may reach it is looked at:
        rows = order[: int(torch.searchsorted(falling, weight - best + TIE, right=True))]
        least = ordered[max(0, math.floor((best - most) / weight * last - TIE * last))]
        rows = rows[near.square[rows] >= least]
        score = torch.full_like(value, -torch.inf)
        score[rows] = exact(rows, ordered)
        return score

    def add(row):
        value[row] = -torch.inf
        near.add(row)

    return scores, add


least_confidence = _most_uncertain("least-confidence", "1 - max p")
margin = _most_uncertain("margin", "1 - (p1 - p2), p1 and p2 the two largest probabilities")
entropy = _most_uncertain("entropy", "entropy of p, in nats")


def uncertainty(view: PoolView, measure: str) -> torch.Tensor:
    """One of MEASURES for the unlabelled images, (M,) float64 on the CPU: the mean over their labels."""
    return MEASURES[measure](_questions(class_probs(view), view)).mean(dim=-1).cpu()


def _margin(p):
    first, second = p.topk(2, dim=-1).values.unbind(dim=-1)
    return 1 - (first - second)


def _entropy(p):
    return -torch.xlogy(p, p).sum(dim=-1)


MEASURES = {"least-confidence": lambda p: 1 - p.amax(dim=-1), "margin": _margin, "entropy": _entropy}


def bald(view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
    """The n images of largest H[mean p] - mean H[p] over the passes of view.mc_probs, Eq. 2 of [Houlsby2011].

    passes: how many the task model makes, default 5. Several labels per image: the sum of that of each label.
    """
    return largest(view, _disagreement(view), n)


def mutual_information(passes_T_M_C: torch.Tensor) -> torch.Tensor:
    """H[mean p] - mean H[p] over T passes, in nats, (M, ...), of class probabilities (T, M, ..., C): BALD."""
    return _entropy(passes_T_M_C.mean(dim=0)) - _entropy(passes_T_M_C).mean(dim=0)


def epig(view: PoolView, n: int, *, generator: torch.Generator, targets: int = 100) -> Selection:
    """The n images x of largest mean information of y about y*, that of a target image: EPIG of [BickfordSmith2023].

    Mean over the targets of H[p(y)] + H[p(y*)] - H[p(y, y*)], in nats, where p is a mean over the passes of
    view.mc_probs and p(y, y*) that of p(y) p(y*) in each pass. BALD asks what tells most about the model, EPIG what
    tells most about the images that it is for. targets: so many unlabelled images, drawn uniformly (all, if fewer are
    left), the paper's 100 by default. passes: see bald. Several labels per image: the sum of that of each label.
    """
    drawn = torch.randperm(len(view.unlabeled), generator=generator)[: check_int("targets", targets, low=1)]
    aims = _passes(view, view.unlabeled[drawn])
    rows = max(1, BLOCK // (aims[0].numel() * aims.shape[-1]))
    return largest(view, torch.cat([_shared(_passes(view, part), aims) for part in view.unlabeled.split(rows)]), n)


def _shared(passes_T_M_Q_C, aims_T_J_Q_C):
    """I(y; y*) in nats of each of M images with J others, the mean over these, summed over the questions Q, (M,)."""
    joint_M_J_Q_CD = torch.einsum("tmqc,tjqd->mjqcd", passes_T_M_Q_C, aims_T_J_Q_C).flatten(3) / len(aims_T_J_Q_C)
    alone = _entropy(passes_T_M_Q_C.mean(dim=0))[:, None] + _entropy(aims_T_J_Q_C.mean(dim=0))
    return (alone - _entropy(joint_M_J_Q_CD)).mean(dim=1).sum(dim=-1)


def batchbald(
    view: PoolView, n: int, *, generator: torch.Generator, candidates: int | None = None, configurations: int = 1000
) -> Selection:
    """One by one the images whose labels together tell most about the model: Alg. 1 of [Kirsch2019] on view.mc_probs.

    candidates: only so many images of largest BALD are looked at, at least n; None: 500, or 2 n if that is more.
    configurations: all ways to label the picked images are listed while there are at most so many; from then on so many
    of them are drawn. passes: see bald. The score is what the image adds to the joint mutual information, in nats.

    T passes cannot tell more than log T nats. Once the picks together tell that much, noise decides on further ones.
    Differs: the gain is written as E[H[p(y | labels picked so far)]] - mean H[p], which has the same maximum as the
    joint information and takes no logarithm of a joint probability. Raises LalibError for several labels per image.
    """
    if view.multi_label:
        raise LalibError(
            "batchbald needs one label per image: with several, the 2^C answers of one image are a joint of their own; "
            "use 'bald', which adds up the information of each label"
        )
    most = max(500, 2 * n) if candidates is None else check_candidates(candidates, n)
    best = _disagreement(view).argsort(descending=True, stable=True)[:most].sort().values
    configurations = check_int("configurations", configurations, low=1)
    passes_T_M_C = _passes(view, view.unlabeled[best.cpu()]).squeeze(2)
    own, which, picked = _entropy(passes_T_M_C).mean(dim=0), None, []
    log_T_K = passes_T_M_C.new_zeros(len(passes_T_M_C), 1)  # log p(configuration | pass)

    def gains():
        return _expected_entropy(passes_T_M_C, log_T_K, enumerated=which is None) - own

    def add(row):
        nonlocal log_T_K, which
        picked.append(int(row))
        new = picked[-1:]
        if which is None and log_T_K.shape[1] * passes_T_M_C.shape[2] > configurations:
            which = torch.randint(len(log_T_K), (configurations,), generator=generator).to(log_T_K.device)
            log_T_K, new = log_T_K.new_zeros(len(log_T_K), configurations), picked
        for row in new:
            log_T_K = _extend(log_T_K, passes_T_M_C[:, row], which, generator)

    rows, score = greedily(gains, add, n)
    return pick(view, best[rows.to(best.device)], score)


def _extend(log_T_K, answer_T_C, which, generator):
    """log p(configuration | pass) with one more image: each of its answers, or one drawn from the pass `which` (K,)."""
    if which is None:
        return (log_T_K[:, :, None] + answer_T_C.log()[:, None, :]).flatten(1)
    chance = torch.rand(len(which), 1, generator=generator, dtype=torch.float64).to(log_T_K.device)
    cumulative_K_C = answer_T_C.cumsum(dim=1)[which]
    drawn = (chance * cumulative_K_C[:, -1:] >= cumulative_K_C).sum(dim=1)
    return log_T_K + answer_T_C.log()[:, drawn]


def _expected_entropy(passes_T_M_C, log_T_K, enumerated):
    """Mean entropy of p(y | configuration) of each of M images, (M,): weighted by p(configuration) if enumerated."""
    weight = log_T_K.exp().mean(dim=0) if enumerated else torch.full_like(log_T_K[0], 1 / log_T_K.shape[1])
    possible = weight > 0
    posterior_K_T = log_T_K[:, possible].softmax(dim=0).T
    blocks = passes_T_M_C.split(max(1, BLOCK // (len(posterior_K_T) * passes_T_M_C.shape[2])), dim=1)
    return torch.cat([weight[possible] @ _entropy(torch.einsum("kt,tmc->kmc", posterior_K_T, b)) for b in blocks])


def class_probs(view: PoolView) -> torch.Tensor:
    """view.probs of the unlabelled images (M, C) in float64, checked to be probabilities."""
    return _check_probs("probs", view.probs, view, view.unlabeled)


def _passes(view, index):
    """view.mc_probs of the images at index (M,) in float64, (T, M, 1, C), or (T, M, C, 2) for several labels."""
    p = _check_probs("mc_probs", view.mc_probs, view, index)
    if len(p) < 2:
        raise ValueError("mc_probs must hold at least 2 passes, which can disagree; got 1")
    return _questions(p, view)


def _disagreement(view):
    """The mutual information of each unlabelled image and the model, summed over its labels, (M,)."""
    rows = max(1, BLOCK // view.mc_probs[:, 0].numel())
    return torch.cat([mutual_information(_passes(view, part)).sum(dim=-1) for part in view.unlabeled.split(rows)])


def _questions(p, view):
    """Probabilities (..., C) as (..., 1, C): one question; several labels: C questions of no and yes, (..., C, 2)."""
    return torch.stack([1 - p, p], dim=-1) if view.multi_label else p.unsqueeze(-2)


def _check_probs(name, p, view, index):
    p = p[..., index.to(p.device), :].double()
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"{name} must lie in 0 .. 1, got {p.min():g} to {p.max():g}")
    if view.multi_label:
        return p
    if p.shape[-1] < 2:
        raise ValueError(f"{name} must have a column for each of at least 2 classes, got {p.shape[-1]}")
    worst = (p.sum(dim=-1) - 1).abs().max()
    if worst > SUM:
        raise ValueError(
            f"rows of {name} must sum to 1, got a row that is off by {worst:.2g}; "
            "for several labels per image pass labels (M, C), also where M = 0"
        )
    return p


_LAST = {}  # the mean distances found last, by a digest of the codes: every round and seed comes with the same codes


def _near_others(view, neighbours):
    if neighbours >= view.n_images:
        raise ValueError(f"neighbours must be below the {view.n_images} images, got {neighbours}")
    key = (tensor_digest({"codes": view.codes}), view.codes.device, neighbours)
    if key not in _LAST:
        found = knn(view.codes, neighbours, exact=EXACT)[0].mean(dim=1).cpu()
        _LAST.clear()
        _LAST[key] = found
    return -_LAST[key][view.unlabeled]


def _under_prior(view, neighbours):
    return -view.codes.double().square().sum(dim=1).cpu()[view.unlabeled] / 2


REPRESENTATIVE = {"knn": _near_others, "prior": _under_prior}

DECLARED = (
    Strategy("least-confidence", least_confidence, needs=("probs",)),
    Strategy("margin", margin, needs=("probs",)),
    Strategy("entropy", entropy, needs=("probs",)),
    Strategy("bald", bald, needs=("mc_probs",)),
    Strategy("epig", epig, needs=("mc_probs",)),
    Strategy("batchbald", batchbald, needs=("mc_probs",), several=False),
)
