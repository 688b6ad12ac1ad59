"""Spreading of labels: a few labels, carried along the neighbours among the codes to all images.

[Calder2020] Calder, Cook, Thorpe and Slepcev, Poisson learning: graph based semi-supervised learning at very low label
             rates, ICML 2020.
[Zhou2004]   Zhou, Bousquet, Lal, Weston and Schölkopf, Learning with local and global consistency, NIPS 2003.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy
import torch
from torch import Tensor, nn

from lalib.codes.neighbours import EXACT, Neighbours, knn
from lalib.data.checks import LalibError, check_choice, check_int, check_number
from lalib.data.door import as_tensor, check_codes, check_labels
from lalib.models.classifiers import Classifier
from lalib.models.networks import UNKNOWN, Batch
from lalib.models.semisupervised import PartlyLabelled

NEIGHBOURS = 10  # of each image, as in [Calder2020]
STEPS = 100  # of the walk
LEAST = 1e-30  # of a probability whose logarithm is taken
OUTER, INNER, SIZES, PACE, CLIP = 20, 40, 100, 10, (0.5, 2.0)  # PoissonMBO's settings in [Calder2020]


def spread_labels(
    codes: Tensor,
    labels: Tensor,
    n_classes: int,
    *,
    queries: Tensor | None = None,
    method: str = "poisson",
    priors: Sequence[float] | None = None,
    neighbours: int | None = None,
    alpha: float = 0.99,
) -> Tensor:
    """Class probabilities (N, C) of all images, or (M, C) of others at `queries` (M, L), float32 on the CPU.

    codes (N, L); labels (N,), UNKNOWN (-1) where there is none: see partly_labelled. The graph joins each image to its
    k nearest `neighbours` (None: NEIGHBOURS, or N - 1 if that is less), with weights exp(-4 (d / d_k)^2) for distances
    d up to the k-th, d_k, and adds those of both directions [Calder2020]: W, of row sums D. Of more than EXACT codes
    the neighbours are nearly the nearest, see la.codes.knn.

    method: "poisson", Poisson learning, see poisson_scores; the probabilities are in proportion to the squared scores.
    With priors (C,), the shares of the classes if they are known, it is PoissonMBO, which keeps to them where classes
    lie apart [Calder2020, Algorithm 2]. "consistency": scores (I - alpha S)^-1 Y with S = D^-1/2 W D^-1/2 [Zhou2004,
    Eq. 4], to which the probabilities are in proportion; alpha in [0, 1) says how far labels travel.

    The default and the graph were chosen by tests/benchmarks/spreading.py, whose labels they have seen: on mnist-mini,
    with 10, 50 and 100 random labels, 10 seeds, "poisson" is 7.3, 7.4 and 6.5 points more often right than [Zhou2004]
    with 20 neighbours and one scale for all weights, "consistency" on this graph 6.7, 6.0 and 5.7; on
    fashion-mnist-mini, with 10 and 50 labels, all three are alike within 1.6 points.

    Images that no label reaches, in a part of the graph without one or more than STEPS neighbours away, have equal
    probabilities; a class without a label has 0. Images at one place may have different probabilities, if they are
    more than k. A query takes the mean of its k neighbours' scores, by weight; at an image's place that image's.
    Differs: each column of Y, 0 and 1 for the labels, is divided by its sum, so that a class of many labels does not
    flood the others.
    Raises LalibError if no image has a label, ValueError for priors that are not C shares.
    """
    codes = check_codes(codes).cpu()
    n, n_classes = len(codes), check_int("n_classes", n_classes, low=2)
    labels, k = check_labels(labels, n, n_classes, low=UNKNOWN).cpu(), _checked(neighbours, n)
    if (alpha := check_number("alpha", alpha, low=0)) >= 1:
        raise ValueError(f"alpha must be below 1, got {alpha}")
    priors = None if priors is None else check_priors(priors, n_classes)
    if check_choice("method", method, ("poisson", "consistency")) != "poisson" and priors is not None:
        raise ValueError(f"priors are for method='poisson', got {method!r}")
    given = torch.nn.functional.one_hot(labels - UNKNOWN, n_classes + 1)[:, 1:].double().numpy()
    if not given.any():
        raise LalibError(f"label spreading needs labelled images, got {n} without a label")
    graph = neighbour_graph(codes, k)
    if method == "consistency":
        scores = _consistent(graph, given / given.sum(0).clip(1), alpha)
    else:
        scores = _shares(poisson_scores(graph, given) ** 2)
        scores = scores if priors is None else _shares(_kept_to(priors, graph, given, scores))
    if queries is not None:
        scores = _carried(Neighbours(codes), check_codes(queries, "queries").cpu(), scores, k)
    reached = scores.any(axis=1, keepdims=True)
    return torch.from_numpy(np.where(reached, _shares(scores), 1 / n_classes)).float()


def check_priors(priors: Sequence[float], n_classes: int) -> np.ndarray:
    """`priors` as shares (C,) float64; ValueError if they are not C numbers from 0 on that sum to 1."""
    priors = as_tensor(priors, "priors").double().cpu().numpy()
    if priors.shape != (n_classes,) or not (priors >= 0).all() or abs(priors.sum() - 1) > 1e-3:
        raise ValueError(f"priors must be the shares of {n_classes} classes and sum to 1, got {priors.tolist()!r:.80}")
    return priors


def _checked(neighbours, n):
    return check_int("neighbours", min(NEIGHBOURS, n - 1) if neighbours is None else neighbours, low=1, high=n - 1)


def neighbour_graph(codes: Tensor, k: int) -> scipy.sparse.csr_array:
    """The weights W (N, N) of spread_labels: every image has neighbours, and none has a weight of 0."""
    distance, nearest = knn(codes, k, exact=EXACT)
    places = nearest.numpy().ravel(), np.arange(0, nearest.numel() + 1, k)
    graph = scipy.sparse.csr_array((_weights(distance).ravel(), *places), shape=(len(codes),) * 2)
    return graph + graph.T


def poisson_scores(graph: scipy.sparse.csr_array, given: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Scores F (N, C) of Poisson learning: the sum of P^t D^-1 Y over t < steps, P = D^-1 W the random walk.

    given (N, C): 1 for the label of an image, else 0; Y is that with columns that sum to 1. F says how often walks
    from the labels of a class come by. With m_j of m labels in class j, u_j = m_j (F_j - sum_k m_k / m F_k) solves
    the Poisson equation of [Calder2020], L u_j = sum over labelled i of (y_ij - m_j / m) delta_i with L = D - W, for
    steps to infinity. The sum over k is the same for all classes: the largest F is the largest of u_j / m_j, the
    paper's scores for classes that are equally frequent; and F needs no graph that hangs together.
    Differs: so many steps, where the paper stops when the walk from the labels has mixed. Fewer or more (20, 50, 200,
    until nothing changes) were right less often on mnist-mini and fashion-mnist-mini together, whose labels chose this.
    """
    inverse = scipy.sparse.diags_array(1 / graph.sum(1))
    source, walk = inverse @ (given / given.sum(0).clip(1)), (inverse @ graph).tocsr()
    scores = np.zeros_like(source)
    for _ in range(steps):
        scores = walk @ scores + source
    return scores


def _kept_to(priors, graph, given, shares):
    """Scores (N, C) of PoissonMBO: classes diffuse with their labels as sources, and each takes its share of images."""
    degree, labelled = graph.sum(1), given.any(axis=1)
    step, reached = 1 / degree.max(), shares.any(axis=1)
    source = step * (given - given[labelled].mean(0) * labelled[:, None])
    spread = (scipy.sparse.diags_array(1 - step * degree) + step * graph).tocsr()
    classes = shares
    for _ in range(OUTER):
        for _ in range(INNER):
            classes = spread @ classes + source
        size = np.ones(len(priors))
        for _ in range(SIZES):
            found = np.bincount((classes * size).argmax(1)[reached], minlength=len(priors)) / reached.sum()
            size = (size + PACE * (priors - found)).clip(*CLIP)
        scores = (classes * size).clip(0) * reached[:, None]
        classes = np.eye(len(priors))[scores.argmax(1)] * reached[:, None]
    return scores


def _consistent(graph, given, alpha):
    """Scores (N, C) of [Zhou2004]."""
    scale, cg = scipy.sparse.diags_array(1 / np.sqrt(graph.sum(1))), scipy.sparse.linalg.cg
    system = scipy.sparse.eye_array(len(given)) - alpha * (scale @ graph @ scale)
    found = [cg(system, column, rtol=1e-6)[0] if column.any() else column for column in given.T]
    return np.stack(found, axis=1).clip(0)  # rounding


def _weights(distance):
    """Weights (M, k) of neighbours at distances (M, k), ascending."""
    farthest = distance[:, -1:].numpy()
    return np.exp(-4 * np.square(distance.numpy() / np.where(farthest > 0, farthest, 1)))


def _carried(search, queries, scores, k):
    """Scores (M, C) of queries (M, L) from those (N, C) of the codes."""
    distance, nearest = search.nearest(queries, k)
    weights = np.where(distance[:, :1] == 0, distance == 0, _weights(distance))
    weights = weights / weights.sum(1, keepdims=True)
    return np.einsum("mk,mkc->mc", weights, scores[nearest.numpy()])


def _shares(scores):
    """Rows (N, C) of shares; a row of zeros stays one."""
    scores = scores / np.maximum(scores.max(1, keepdims=True), np.finfo(float).tiny)
    return scores / scores.sum(1, keepdims=True).clip(1)


class PoissonClassifier(PartlyLabelled, Classifier):
    """spread_labels as a classifier of codes (B, L), trained by fit(model, (codes, labels)) with UNKNOWN labels.

    Nothing is drawn and no step is made: the labels are spread when training begins, and codes that were not there take
    their neighbours' probabilities. neighbours, priors: as in spread_labels. `options` and errors are Classifier's;
    LalibError for training without a label.
    """

    def __init__(
        self,
        code_dim: int,
        n_classes: int,
        *,
        neighbours: int | None = None,
        priors: Sequence[float] | None = None,
        **options,
    ):
        super().__init__(check_int("n_classes", n_classes, low=2), **options)
        self.code_dim = check_int("code_dim", code_dim, low=1)
        self.neighbours = None if neighbours is None else check_int("neighbours", neighbours, low=1)
        self.priors = None if priors is None else check_priors(priors, self.n_classes).tolist()
        self._keep(torch.empty(0, self.code_dim), torch.empty(0, self.n_classes))

    def _keep(self, codes, probs):
        self.codes, self.probs = (nn.Parameter(part, requires_grad=False) for part in (codes, probs))
        self.search = None  # of neighbours among the codes, built when first asked

    def _load_from_state_dict(self, state, prefix, *rest):
        self._keep(*(torch.empty_like(state[prefix + name], device=self.codes.device) for name in ("codes", "probs")))
        super()._load_from_state_dict(state, prefix, *rest)

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        super().prepare(x, y)
        probs = spread_labels(x, y, self.n_classes, neighbours=self.neighbours, priors=self.priors)
        self._keep(x.clone(), probs.to(x.device))

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        yield torch.arange(1)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": torch.zeros((), device=batch.x.device, requires_grad=True)}

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The codes, and the logarithms (B, C) of the probabilities."""
        if not len(self.codes):
            raise LalibError("PoissonClassifier has no labels to spread: train it first, with fit")
        self.search = self.search or Neighbours(self.codes.cpu())
        probs = _carried(self.search, x.cpu(), self.probs.cpu().numpy(), _checked(self.neighbours, len(self.codes)))
        return [x], torch.from_numpy(probs).to(x).clamp(min=LEAST).log()
