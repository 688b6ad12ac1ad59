"""What a latent space holds: codes, decodings, grids, traversals, views in 2-D, and numbers that say how good it is.

References
----------
[Report]     Killeen, Progress update: query selection based on latent space sampling. Figure 2 is a traversal.
[Venna2001]  Venna and Kaski, Neighborhood preservation in nonlinear projection methods, 2001. Trustworthiness.
[Paul2021]   Paul et al., Deep learning on a data diet, 2021. EL2N.
[Toneva2019] Toneva et al., An empirical study of example forgetting, 2019.
[Swayamdipta2020] Swayamdipta et al., Dataset cartography, 2020.
"""

import inspect
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lalib._checks import LalibError, check_choice, check_codes, check_int, check_labels
from lalib.autoencoders import Autoencoder
from lalib.classifiers import CNNClassifier, predict_proba
from lalib.contrastive import ContrastiveEncoder
from lalib.data import ImageSet
from lalib.geometry import knn
from lalib.networks import in_blocks
from lalib.seeds import child_seed
from lalib.semisupervised import M2
from lalib.training import fit

__all__ = [
    "LatentGrid",
    "class_balance",
    "decode",
    "difficulty",
    "encode",
    "latent_grid",
    "one_nn_error",
    "project",
    "reconstruct",
    "reconstruction_errors",
    "traversal",
    "trustworthiness",
]


@dataclass(frozen=True)
class LatentGrid:
    """Decodings of a regular grid in a 2-D latent space, row by row from the top left.

    images (rows x columns, C, H, W) in [0, 1]; codes (rows x columns, 2); x (columns,), y (rows,) the coordinates.
    """

    images: Tensor
    codes: Tensor
    x: Tensor
    y: Tensor


def encode(model: Autoencoder | ContrastiveEncoder, images: ImageSet, batch_size: int = 1024) -> Tensor:
    """Codes (N, L) of images, float32 on the CPU; a variational model's mean codes."""
    return in_blocks(model, model.encode, _pixels(model, images), batch_size)


def decode(model: Autoencoder | M2, codes: Tensor, batch_size: int = 1024, *, labels: Tensor | None = None) -> Tensor:
    """Images (N, C, H, W) in [0, 1] of codes (N, L), float32 on the CPU.

    labels (N,): the classes they are drawn as, by a model that `draws_classes`; a ConditionalVAE may do without.
    """
    codes = check_codes(codes).float()
    if codes.shape[1] != model.latent_dim:
        raise ValueError(f"codes must have the model's {model.latent_dim} coordinates, got {codes.shape[1]}")
    if labels is None:
        return in_blocks(model, model.decode, codes, batch_size)
    if not draws_classes(model):
        raise ValueError(f"labels must be None: a {type(model).__name__} draws images of codes alone")
    labels = check_labels(labels, len(codes), model.n_classes)
    both = torch.cat([codes, labels[:, None].to(codes)], dim=1)  # to be cut into blocks as one
    return in_blocks(model, lambda part: model.decode(part[:, :-1], part[:, -1].long()), both, batch_size)


def draws_classes(model: Autoencoder | M2) -> bool:
    """Whether an image is drawn of a code and a class, decode(z, labels), as by a ConditionalVAE or an M2."""
    return len(inspect.signature(model.decode).parameters) == 2


def reconstruct(model: Autoencoder, images: ImageSet, batch_size: int = 1024) -> Tensor:
    """The model's reconstructions (N, C, H, W) in [0, 1], float32 on the CPU."""
    return in_blocks(model, model, _pixels(model, images), batch_size)


def reconstruction_errors(model: Autoencoder, images: ImageSet, batch_size: int = 1024) -> Tensor:
    """Mean absolute error per pixel of every image, (N,) in [0, 1], float32 on the CPU.

    The mean over images is the MAE that [Report] gives (0.0604).
    """
    pixels = _pixels(model, images)
    return in_blocks(model, lambda x: (model(x).float() - x).abs().flatten(1).mean(1), pixels, batch_size)


def latent_grid(
    model: Autoencoder,
    codes: Tensor | None = None,
    *,
    size: int = 15,
    limits: tuple[float, float, float, float] | None = None,
) -> LatentGrid:
    """Decode a size x size grid over a 2-D latent space.

    limits: (x low, x high, y low, y high); by default the central 98 % of `codes` along each coordinate, or [-2, 2].
    """
    if model.latent_dim != 2:
        raise ValueError(f"a latent grid needs latent_dim=2, got {model.latent_dim}: see traversal for more dimensions")
    check_int("size", size, low=2)
    if limits is None:
        limits = (-2.0, 2.0, -2.0, 2.0) if codes is None else _central(codes)
    if len(limits) != 4 or not (limits[0] <= limits[1] and limits[2] <= limits[3]):
        raise ValueError(f"limits must be (x low, x high, y low, y high), got {limits}")
    x, y = (torch.linspace(limits[0], limits[1], size), torch.linspace(limits[3], limits[2], size))
    points = torch.stack([x.repeat(size), y.repeat_interleave(size)], dim=1)
    return LatentGrid(decode(model, points), points, x, y)


def traversal(
    model: Autoencoder, steps: int = 11, *, low: float = 0.0, high: float = 1.0, fixed: float | Tensor = 0.3
) -> Tensor:
    """Row i decodes coordinate i going from low to high, the others held at `fixed`: (L, steps, C, H, W).

    The defaults are Figure 2 of [Report]; fixed may be a code (L,) of its own, such as the mean of all codes.
    """
    check_int("steps", steps, low=2)
    base = torch.as_tensor(fixed, dtype=torch.float32)
    if base.shape not in ((), (model.latent_dim,)):
        raise ValueError(f"fixed must be a number or a code ({model.latent_dim},), got shape {tuple(base.shape)}")
    base = base.expand(model.latent_dim)
    codes = base.repeat(model.latent_dim, steps, 1)
    coordinate = torch.arange(model.latent_dim)
    codes[coordinate, :, coordinate] = torch.linspace(low, high, steps)
    return decode(model, codes.flatten(0, 1)).unflatten(0, (model.latent_dim, steps))


def one_nn_error(
    codes: Tensor, labels: Tensor, test_codes: Tensor | None = None, test_labels: Tensor | None = None
) -> float:
    """Share of points whose nearest neighbour among `codes` (N, L) has another label, in [0, 1].

    Of the held-out points test_codes (M, L) with test_labels (M,) if they are given, else leave-one-out.
    """
    labels = check_labels(labels, len(check_codes(codes)))
    if test_codes is None:
        _, index = knn(codes, 1)
        return float((labels[index[:, 0]] != labels).float().mean())
    test_labels = check_labels(test_labels, len(check_codes(test_codes, "test_codes")), name="test_labels")
    _, index = knn(codes, 1, test_codes)
    return float((labels[index[:, 0]] != test_labels).float().mean())


def trustworthiness(images: ImageSet | Tensor, codes: Tensor, k: int = 12) -> float:
    """T(k) in [0, 1]: how far the k neighbours among the codes are neighbours among the pixels, too [Venna2001].

    Memory grows with N^2: give a few thousand images.
    """
    from sklearn.manifold import trustworthiness as sklearn_trustworthiness

    x, points = images.images if isinstance(images, ImageSet) else images, check_codes(codes).cpu().numpy()
    if len(x) != len(points):
        raise ValueError(f"codes must be as many as the {len(x)} images, got {len(points)}")
    return float(sklearn_trustworthiness(x.flatten(1).float().numpy(), points, n_neighbors=k))


def class_balance(labels: Tensor, n_classes: int) -> float:
    """Normalised entropy of the class counts of labels (n,): 1 if all classes are equally frequent, 0 for one class."""
    check_int("n_classes", n_classes, low=2)
    labels = check_labels(labels, n_classes=n_classes)
    share = torch.bincount(labels, minlength=n_classes).double() / len(labels)
    return float(-torch.xlogy(share, share).sum() / np.log(n_classes))


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


def difficulty(
    images: ImageSet, *, epochs: int = 10, early: int = 3, seed: int = 0, device: str = "auto", progress: bool = True
):
    """How hard each labelled image is to learn, from one small CNN trained on all: a DataFrame with N rows.

    el2n: |p - onehot(y)|_2 after `early` epochs [Paul2021]; forgetting: times an image went from right to wrong
    between epochs [Toneva2019] (Differs: counted per epoch, not per batch, and an image never learnt counts epochs);
    confidence, variability: mean and standard deviation over epochs of p(y) [Swayamdipta2020].
    """
    import pandas as pd

    if images.labels is None:
        raise LalibError("difficulty needs labels: the image set has none")
    check_int("early", early, low=1, high=check_int("epochs", epochs, low=1))
    classifier = CNNClassifier(images.image_shape, images.n_classes, seed=seed)
    probs_T_N_C = []
    fit(
        classifier,
        images,
        epochs=epochs,
        batch_size=128,
        on_epoch=lambda _, model: probs_T_N_C.append(predict_proba(model, images)),
        seed=seed,
        device=device,
        progress=progress,
    )
    return pd.DataFrame(_difficulty(torch.stack(probs_T_N_C), images.labels, early))


def _difficulty(probs_T_N_C: Tensor, labels: Tensor, early: int) -> dict[str, np.ndarray]:
    onehot = torch.nn.functional.one_hot(labels, probs_T_N_C.shape[2])
    p_true = (probs_T_N_C * onehot).sum(2)
    right = probs_T_N_C.argmax(2) == labels
    forgotten = (right[:-1] & ~right[1:]).sum(0)
    return {
        "el2n": (probs_T_N_C[early - 1] - onehot).norm(dim=1).numpy(),
        "forgetting": torch.where(right.any(0), forgotten, len(right)).numpy(),
        "confidence": p_true.mean(0).numpy(),
        "variability": p_true.std(0, correction=0).numpy(),
    }


def _pixels(model: Autoencoder, images: ImageSet) -> Tensor:
    if images.image_shape != tuple(model.image_shape):
        raise ValueError(f"the model takes images of shape {tuple(model.image_shape)}, got {images.image_shape}")
    return images.images


def _central(codes: Tensor) -> tuple[float, float, float, float]:
    if check_codes(codes).shape[1] != 2:
        raise ValueError(f"codes must have shape (N, 2), got {tuple(codes.shape)}")
    low, high = (torch.quantile(codes.float(), q, dim=0).tolist() for q in (0.01, 0.99))
    return low[0], high[0], low[1], high[1]
