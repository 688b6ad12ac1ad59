"""Label spreading: a few labels, carried along the neighbours among the codes to all images.

[Zhou2004] Zhou, Bousquet, Lal, Weston and Schölkopf, Learning with local and global consistency, NIPS 2003.
"""

import numpy as np
import scipy
import torch
from torch import Tensor

from lalib.codes.neighbours import EXACT, knn
from lalib.data.checks import LalibError, check_int, check_number
from lalib.data.door import check_codes, check_labels
from lalib.models.networks import UNKNOWN


def spread_labels(
    codes: Tensor,
    labels: Tensor,
    n_classes: int,
    *,
    queries: Tensor | None = None,
    neighbours: int = 20,
    alpha: float = 0.99,
) -> Tensor:
    """Class probabilities (N, C) of all images, or (M, C) of others at `queries` (M, L), float32 on the CPU.

    codes (N, L); labels (N,), UNKNOWN (-1) where there is none: see partly_labelled. The graph joins each image to its
    nearest `neighbours`, with weights W = exp(-(d / mean d)^2), symmetric. With S = D^-1/2 W D^-1/2 the scores are
    F = (I - alpha S)^-1 Y [Zhou2004, Eq. 4]; alpha in [0, 1) says how far labels travel. A query takes the mean of
    its neighbours' scores, by weight. Images that no label reaches have equal probabilities. Of more than EXACT codes
    the neighbours are nearly the nearest, see la.codes.knn.
    Differs: each column of Y sums to 1, so that a class of many labels does not flood the others.
    Raises LalibError if no image has a label.
    """
    codes = check_codes(codes).cpu()
    n, n_classes = len(codes), check_int("n_classes", n_classes, low=2)
    labels = check_labels(labels, n, n_classes, low=UNKNOWN).cpu()
    neighbours, alpha = check_int("neighbours", neighbours, low=1, high=n - 1), check_number("alpha", alpha, low=0)
    if alpha >= 1:
        raise ValueError(f"alpha must be below 1, got {alpha}")
    given = torch.nn.functional.one_hot(labels - UNKNOWN, n_classes + 1)[:, 1:].double().numpy()
    if not given.any():
        raise LalibError(f"label spreading needs labelled images, got {n} without a label")
    distance, nearest = knn(codes, neighbours, exact=EXACT)
    unit = float(distance.mean()) or 1.0  # all codes alike: all weights 1
    weights = np.exp(-np.square(distance.numpy() / unit))
    start = np.arange(0, weights.size + 1, neighbours)
    graph = scipy.sparse.csr_array((weights.ravel(), nearest.numpy().ravel(), start), shape=(n, n))
    graph = graph.maximum(graph.T)
    scale = scipy.sparse.diags_array(1 / np.sqrt(graph.sum(1)))
    system = scipy.sparse.eye_array(n) - alpha * (scale @ graph @ scale)
    given, cg = given / given.sum(0).clip(1), scipy.sparse.linalg.cg
    scores = np.stack([cg(system, column, rtol=1e-6)[0] if column.any() else column for column in given.T], axis=1)
    if queries is not None:
        distance, nearest = knn(codes, neighbours, check_codes(queries, "queries").cpu())
        weights = np.exp(-np.square(distance.numpy() / unit))
        scores = np.einsum("mk,mkc->mc", weights, scores[nearest.numpy()])
    scores = scores.clip(0)  # rounding
    scores[scores.sum(1) == 0] = 1
    return torch.from_numpy(scores / scores.sum(1, keepdims=True)).float()
