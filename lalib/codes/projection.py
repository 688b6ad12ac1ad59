"""Views of codes in a few coordinates: UMAP, t-SNE, PCA."""

import numpy as np
import torch
from torch import Tensor

from lalib.data.checks import check_choice, check_int
from lalib.data.door import check_codes
from lalib.data.seeds import child_seed


def project(codes: Tensor, method: str = "umap", *, dims: int = 2, seed: int = 0) -> Tensor:
    """A view of codes (N, L) in `dims` coordinates, (N, dims) float32: "umap", "tsne" or "pca"."""
    check_choice("method", method, PROJECTIONS)
    check_int("dims", dims, low=1)
    points = check_codes(codes).cpu().numpy()
    return torch.from_numpy(PROJECTIONS[method](points, dims, child_seed(seed, "project") % 2**32).astype(np.float32))


def _umap(points, dims, seed):
    import warnings

    import umap

    threads = torch.get_num_threads()  # starting numba's threads changes torch's number of them
    with warnings.catch_warnings():  # a fixed seed costs UMAP its parallelism, of which it warns
        warnings.filterwarnings("ignore", message="n_jobs value")
        view = umap.UMAP(n_components=dims, random_state=seed).fit_transform(points)
    torch.set_num_threads(threads)
    return view


def _tsne(points, dims, seed):
    from sklearn.manifold import TSNE

    return TSNE(n_components=dims, random_state=seed).fit_transform(points)


def _pca(points, dims, seed):
    from sklearn.decomposition import PCA

    return PCA(n_components=dims, random_state=seed).fit_transform(points)


PROJECTIONS = {"umap": _umap, "tsne": _tsne, "pca": _pca}
