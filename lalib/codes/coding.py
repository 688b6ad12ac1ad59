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

import torch
from torch import Tensor

from lalib.data.checks import check_int
from lalib.data.door import check_codes, check_labels
from lalib.data.imageset import ImageSet
from lalib.models.autoencoders import Autoencoder
from lalib.models.contrastive import ContrastiveEncoder
from lalib.models.networks import in_blocks
from lalib.models.semisupervised import M2


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


def _pixels(model: Autoencoder, images: ImageSet) -> Tensor:
    if images.image_shape != tuple(model.image_shape):
        raise ValueError(f"the model takes images of shape {tuple(model.image_shape)}, got {images.image_shape}")
    return images.images


def _central(codes: Tensor) -> tuple[float, float, float, float]:
    if check_codes(codes).shape[1] != 2:
        raise ValueError(f"codes must have shape (N, 2), got {tuple(codes.shape)}")
    low, high = (torch.quantile(codes.float(), q, dim=0).tolist() for q in (0.01, 0.99))
    return low[0], high[0], low[1], high[1]
