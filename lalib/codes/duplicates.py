"""Near duplicates: images that are copies of one another, or almost, by their codes or by their pixels."""

import numpy as np
import scipy
import torch
from torch import Tensor

from lalib.codes.neighbours import EXACT, distinct, knn
from lalib.data.checks import check_number
from lalib.data.door import as_tensor, check_codes

NEIGHBOURS = 10  # among which copies are looked for, and the farthest of which says what is far


def near_duplicates(features: Tensor, *, threshold: float = 0.3) -> tuple[Tensor, Tensor]:
    """Groups of near duplicates: which group each image is in, (N,) int64, and how near its nearest copy is, (N,).

    features (N, ...): codes, or images (N, C, H, W), whose pixels are compared. Two images are copies if the distance
    d between them is at most `threshold` times the scale of one of them: the distance to its NEIGHBOURS-th nearest
    other place, and at least half of the median of these. A group is what hangs together through such pairs. Groups are
    numbered by their first image; an image without a copy is a group of its own. How near: d / scale, float64, 0 for
    an exact copy, infinity without one; images with the smallest numbers are the surest.

    The scale is that of the image, since classes lie at different densities: digits 1 are nearer to each other than a
    coat to its copy. Of more than EXACT features the neighbours are nearly the nearest, see la.codes.knn.
    Measured with 60 planted copies of a kind among 1,500 images (see the test), by pixels: every pair found was right;
    all that were saved as JPEG (quality 75) were found, and of those darker by a tenth all of mnist-mini and 88 % of
    fashion-mnist-mini. An image moved by one pixel is as far from itself as from others: no pair was found. Only codes
    that do not change with it can tell.
    Raises ValueError for features that are not finite and a threshold outside [0, 1].
    """
    threshold, features = check_number("threshold", threshold, low=0, high=1), as_tensor(features, "features")
    features = features.flatten(1) if features.ndim > 2 else features
    features = features.float() if features.dtype is torch.uint8 else features  # exact, and half of float64
    places, place = distinct(check_codes(features, "features").cpu())
    near = torch.zeros(len(places), dtype=torch.float64).masked_fill(place.bincount() == 1, torch.inf)
    group = np.arange(len(places))
    if (k := min(NEIGHBOURS, len(places) - 1)) > 0:
        distance, nearest = knn(places, k, exact=EXACT)
        scale = distance[:, -1].clamp(min=float(distance[:, -1].median()) / 2)
        share = distance / scale[:, None]
        row, column = (share <= threshold).nonzero(as_tuple=True)
        other, found = nearest[row, column], share[row, column]
        for image in (row, other):
            near = near.scatter_reduce(0, image, found, "amin")
        pairs = scipy.sparse.coo_array((np.ones(len(row)), (row.numpy(), other.numpy())), shape=(len(places),) * 2)
        group = scipy.sparse.csgraph.connected_components(pairs, directed=False)[1]
    group = torch.from_numpy(group)[place]
    first = torch.full((len(group),), len(group)).scatter_reduce(0, group, torch.arange(len(group)), "amin")
    return first[group].unique(return_inverse=True)[1], near[place]
