"""What a latent space holds: codes of images, images of codes, grids and traversals.

batch_size: how many go through the network at once, of large images fewer (see networks.block_size).

[Report]  Killeen, Progress update: query selection based on latent space sampling. Figure 2 is a traversal.
"""

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor

from lalib.data.checks import check_int, check_number
from lalib.data.door import as_tensor, check_codes, check_labels
from lalib.data.imageset import ImageSet
from lalib.models.autoencoders import Autoencoder
from lalib.models.contrastive import ContrastiveEncoder
from lalib.models.networks import in_blocks
from lalib.models.pretrained import PretrainedEncoder
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


def encode(
    model: Autoencoder | ContrastiveEncoder | PretrainedEncoder,
    images: ImageSet,
    batch_size: int = 1024,
    *,
    progress: bool = True,
) -> Tensor:
    """Codes (N, L) of images, float32 on the CPU; a variational model's mean codes. A bar comes after two seconds."""
    return in_blocks(model, model.encode, _pixels(model, images), batch_size, "encode" if progress else "")


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
    """Mean absolute error per pixel of every image, (N,) in [0, 1], float32 on the CPU; [Report] gives their mean."""
    pixels = _pixels(model, images)
    return in_blocks(model, lambda x: (model(x).float() - x).abs().flatten(1).mean(1), pixels, batch_size)


def latent_grid(
    model: Autoencoder, codes: Tensor | None = None, *, size: int = 15, limits: tuple[float, ...] | None = None
) -> LatentGrid:
    """Decode a size x size grid over a 2-D latent space.

    limits: (x low, x high, y low, y high); by default the central 98 % of codes (N, 2) along each, else [-2, 2].
    """
    if model.latent_dim != 2:
        raise ValueError(f"a latent grid needs latent_dim=2, got {model.latent_dim}: see traversal for more dimensions")
    size = check_int("size", size, low=2)
    if limits is None and codes is not None:
        codes = check_codes(codes).float()
        if codes.shape[1] != 2:
            raise ValueError(f"codes must have shape (N, 2), got {tuple(codes.shape)}")
        limits = codes.quantile(codes.new_tensor([0.01, 0.99]), dim=0).T.flatten()
    bounds = as_tensor((-2, 2, -2, 2) if limits is None else limits, "limits").double()
    if bounds.shape != (4,) or not bounds.isfinite().all() or bounds[0] > bounds[1] or bounds[2] > bounds[3]:
        raise ValueError(f"limits must be (x low, x high, y low, y high), got {limits}")
    low_x, high_x, low_y, high_y = bounds.tolist()
    x, y = torch.linspace(low_x, high_x, size), torch.linspace(high_y, low_y, size)
    points = torch.stack([x.repeat(size), y.repeat_interleave(size)], dim=1)
    return LatentGrid(decode(model, points), points, x, y)


def traversal(
    model: Autoencoder, steps: int = 11, *, low: float = 0.0, high: float = 1.0, fixed: float | Tensor = 0.3
) -> Tensor:
    """Row i decodes coordinate i going from low to high, the others held at `fixed`: (L, steps, C, H, W).

    The defaults are Figure 2 of [Report]; fixed may be a code (L,) of its own, such as the mean of all codes.
    """
    steps, low, high = check_int("steps", steps, low=2), check_number("low", low), check_number("high", high)
    base = as_tensor(fixed, "fixed").float().cpu()
    if base.shape not in ((), (model.latent_dim,)):
        raise ValueError(f"fixed must be a number or a code ({model.latent_dim},), got shape {tuple(base.shape)}")
    coordinate = torch.arange(model.latent_dim)
    codes = base.expand(model.latent_dim).repeat(model.latent_dim, steps, 1)
    codes[coordinate, :, coordinate] = torch.linspace(low, high, steps)
    return decode(model, codes.flatten(0, 1)).unflatten(0, (model.latent_dim, steps))


def _pixels(model: Autoencoder, images: ImageSet) -> Tensor:
    if not isinstance(images, ImageSet):
        raise TypeError(f"images must be an ImageSet, as la.data.from_arrays makes one, got {type(images).__name__}")
    if model.image_shape is not None and images.image_shape != tuple(model.image_shape):
        raise ValueError(f"the model takes images of shape {tuple(model.image_shape)}, got {images.image_shape}")
    return images.images
