"""A contrastive encoder: views of one image lie together, other images apart. References: see lalib.models."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib.data.checks import check_int, check_number, check_options
from lalib.data.seeds import seeded
from lalib.models.autoencoders import MODELS, ConditionalVAE
from lalib.models.losses import nt_xent
from lalib.models.networks import Batch, Shape, Trainable, check_shape, frame, normed_conv
from lalib.models.views import RandomViews


class ContrastiveEncoder(Trainable):
    """SimCLR [Chen2020] for small images: images (B, C, H, W) in [0, 1], codes (B, L) of length 1.

    Two random views of one image are to be more alike than those of two images. Codes are what comes before the
    projection, an MLP that only the loss uses. There is no decoder: `decode` raises TypeError.
    views: strengths of RandomViews by name; its defaults suit digits, views.CLOTHES suits clothes. With the wrong views
    codes are worse than pixels. width: kernels of the first convolution; temperature: of the cosine similarities.
    Raises TypeError for an option of the wrong type, ValueError for a value or a view that is not allowed.
    Differs: codes have length 1, so that Euclidean neighbours are neighbours by angle, as in the loss; Adam rather
    than LARS; the trunk normalises within each image [Wu2018], so that no code depends on the rest of its batch.
    """

    learning_rate = 2e-3

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 64,
        *,
        width: int = 16,
        temperature: float = 0.5,
        views: Mapping[str, float] | None = None,
        batch_size: int = 256,
        seed: int = 0,
    ):
        super().__init__()
        self.image_shape = check_shape(image_shape)
        self.latent_dim = check_int("latent_dim", latent_dim, low=2)
        self.temperature = check_number("temperature", temperature, low=0.01)
        if not isinstance(views, Mapping | None):
            raise TypeError(f"views must be strengths by name, such as {{'flip': True}}, got {views!r}")
        check_options("views", RandomViews, views or {})
        self.views = RandomViews(**views or {})
        self.batch_size = check_int("batch_size", batch_size, low=2)
        self.width = width = check_int("width", width, low=1)
        pad, _, h, w = frame(self.image_shape, 4)
        with seeded(seed, "weights"):
            layers = [pad, *normed_conv(self.image_shape[0], width, 2), *normed_conv(width, 2 * width, 2)]
            layers += [*normed_conv(2 * width, 2 * width), nn.Flatten(), nn.Linear(2 * width * h * w, 256)]
            self.trunk = nn.Sequential(*layers, nn.LayerNorm(256), nn.ReLU())
            self.head = nn.Linear(256, self.latent_dim)
            self.projection = nn.Sequential(nn.Linear(self.latent_dim, 256), nn.ReLU(), nn.Linear(256, 64))

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, L) of length 1 of images (B, C, H, W)."""
        return F.normalize(self.head(self.trunk(x)).float(), dim=1)

    def decode(self, z: Tensor) -> Tensor:
        raise TypeError(
            "a ContrastiveEncoder has no decoder: its codes cannot be drawn as images, an autoencoder's can"
        )

    forward = decode  # of images it is asked for the same

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        """As few batches as hold each image once, of almost equal sizes: in a small one no image is hard to tell."""
        yield from torch.randperm(n, generator=generator).tensor_split(math.ceil(n / size))

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        pair = torch.cat([self.views(batch.x, generator=generator) for _ in range(2)])
        first, second = self.projection(self.encode(pair)).float().chunk(2)
        with torch.autocast(first.device.type, enabled=False):
            return {"loss": nt_xent(first, second, self.temperature)}


ENCODERS = {**MODELS, **{model.__name__: model for model in (ConditionalVAE, ContrastiveEncoder)}}  # what can be saved
