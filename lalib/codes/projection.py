"""Views of codes in a few coordinates: UMAP, t-SNE, PCA."""

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from lalib.codes.neighbours import threads_kept
from lalib.data.checks import check_choice, check_int
from lalib.data.door import check_codes
from lalib.data.imageset import ImageSet
from lalib.data.seeds import child_seed

LARGEST = 1e37  # a view is in float32
EXTREME = 1e12  # codes that spread over more, or over less than 1 / EXTREME, are scaled first
PIXELS = 2**27  # half a GiB in float32
BLOCK = 2**24  # pixels that become codes at once
WIDE = 1000  # coordinates from which on nothing of their square is computed
CLOSE = 1e-4  # codes that spread over less than this share of their distance from 0 are centred first


def project(codes: Tensor, method: str = "umap", *, dims: int = 2, seed: int = 0) -> Tensor:
    """A view of codes (N, L) in `dims` coordinates, (N, dims) float32 on the CPU: "umap", "tsne" or "pca".

    UMAP looks at 15 neighbours and t-SNE has perplexity 30; fewer codes have fewer neighbours, N - 1, and a smaller
    perplexity, (N - 1) / 3. Codes that are all equal lie at 0. Raises ValueError above 1e37.
    """
    view_of = PROJECTIONS[check_choice("method", method, PROJECTIONS)]
    dims, points = check_int("dims", dims, low=1), check_codes(codes).cpu().numpy()
    seed, unit = child_seed(seed, "project") % 2**32, 1.0
    low, high = (part.astype(np.float64) for part in (points.min(axis=0), points.max(axis=0)))
    if not (largest := float(max(-low.min(), high.max()))) < LARGEST:
        raise ValueError(f"codes must be below {LARGEST:g} to be viewed, got {largest:g}")
    spread = float((high - low).max())
    if spread == 0:
        return torch.zeros(len(points), dims)
    if spread < CLOSE * largest or not 1 / EXTREME < spread < EXTREME:
        exact = points.astype(np.float64)
        points, unit = (exact - exact.mean(axis=0)) / spread, spread
    view = view_of(points, dims, seed) * (unit if method == "pca" else 1)
    return torch.from_numpy(view.astype(np.float32))


def _umap(points, dims, seed):
    import umap

    if len(points) == 2:  # too few for UMAP; two points have but one view
        return _pca(points, dims, seed)
    settings = {"n_neighbors": max(2, min(15, len(points) - 1)), "n_components": dims, "random_state": seed}
    settings["init"] = "random" if len(points) <= dims + 1 else "spectral"
    with threads_kept(), warnings.catch_warnings():  # a fixed seed costs UMAP its parallelism, of which it warns
        warnings.filterwarnings("ignore", message="n_jobs value|n_neighbors is larger|Spectral initialisation failed")
        return umap.UMAP(**settings).fit_transform(points)


def _tsne(points, dims, seed):
    from sklearn.manifold import TSNE

    settings = {"perplexity": min(30, max(1, (len(points) - 1) / 3)), "method": "barnes_hut" if dims <= 3 else "exact"}
    settings["init"] = "pca" if dims <= min(points.shape) else "random"
    return TSNE(dims, random_state=seed, **settings).fit_transform(points)


def pca(points: np.ndarray, dims: int, solver: str = "auto", seed: int = 0):
    """scikit-learn's PCA for points (N, L), not yet fitted: `dims` components, or N or L if these are fewer.

    solver: up to WIDE coordinates. Beyond, components come from ARPACK, whose cost grows with N x L, or if all N or L
    are wanted from the full SVD: both are exact, which the randomised one is not.
    """
    from sklearn.decomposition import PCA

    dims = min(dims, *points.shape)
    if points.shape[1] > WIDE:
        differ = (points != points[0]).any()  # ARPACK cannot start from zeros
        solver = "arpack" if dims < min(points.shape) and differ else "full"
    return PCA(dims, svd_solver=solver, random_state=seed)


def flat_pixels(images: Tensor) -> Tensor:
    """Pixels (N, C, H, W) uint8 as points (N, C H W) in [0, 1], float32."""
    return images.flatten(1).float().div_(255)


def pixel_pca(dims: int, images: ImageSet, *others: ImageSet) -> list[Tensor]:
    """Principal components of images and of others, on the axes of the first: (N, dims) each; fewer of few images.

    The axes are those of all images, or where they have more than PIXELS pixels of every second, third, ... of them, so
    that the float copy stays below that. Images that are all equal lie at 0.
    """
    step = math.ceil(images.images.numel() / PIXELS)
    sample = flat_pixels(images.images[::step]).numpy()
    if not (sample != sample[0]).any():
        return [torch.zeros(len(each), min(dims, *sample.shape)) for each in (images, *others)]
    view, size = pca(sample, dims, "covariance_eigh").fit(sample), max(1, BLOCK // sample.shape[1])
    del sample

    def codes_of(each):
        blocks = each.images.split(size)
        return torch.cat([torch.from_numpy(view.transform(flat_pixels(block).numpy())) for block in blocks])

    return [codes_of(each) for each in (images, *others)]


def _pca(points, dims, seed):
    view = pca(points, dims, seed=seed).fit_transform(points)
    return np.pad(view, ((0, 0), (0, dims - view.shape[1])))


PROJECTIONS = {"umap": _umap, "tsne": _tsne, "pca": _pca}
