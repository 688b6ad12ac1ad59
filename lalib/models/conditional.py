"""A class-conditional VAE, which learns from images with a label and from images without one.

References
----------
[Kingma2014b] Kingma, Rezende, Mohamed and Welling, Semi-supervised learning with deep generative models, NeurIPS 2014.
[Perez2018]   Perez et al., FiLM: visual reasoning with a general conditioning layer, AAAI 2018.
[Ho2022]      Ho and Salimans, Classifier-free diffusion guidance, 2022. One network with the class and without it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib.data import seeds
from lalib.data.checks import LalibError, check_int, check_number
from lalib.data.door import check_labels
from lalib.models.autoencoders import VAE
from lalib.models.networks import UNKNOWN, Batch, Shape, eval_mode


class ConditionalVAE(VAE):
    """VAE of images x with a class y: reconstruction -log p(x|y,z) + beta KL(q(z|x,y) || p(z)), in nats per image.

    With beta = 1 that bounds -log p(x|y): Eq. 6 of [Kingma2014b] without its -log p(y). The class is one number of C
    that is 1, the others are 0. It joins the decoder's codes, and scales and shifts the trunk's features [Perez2018].
    Of an image without a label (UNKNOWN, -1) all are 0, and the network is a plain VAE [Ho2022]. In training each label
    is hidden with probability `label_dropout`, so that this is learned even where every image has one.
    Codes made with a class and codes made without are not to be compared.
    Train it with fit(model, images), or with fit(model, (images, labels)), see partly_labelled; some must have a label.
    `options` are VAE's; the prior is that of all images.
    Differs: with the class beside the features and one more dense layer, as in M2, mnist-mini's test digits cost 130
    nats with their class and 157 without (4,000 labels, 20 epochs, one seed); scaled and shifted, 117 and 131.
    """

    partly_labelled = True

    def __init__(
        self, image_shape: Shape, n_classes: int, latent_dim: int = 2, *, label_dropout: float = 0.1, **options
    ):
        self.conditions = self.n_classes = check_int("n_classes", n_classes, low=2)  # read where layers are built
        super().__init__(image_shape, latent_dim, **options)
        self.label_dropout = check_number("label_dropout", label_dropout, low=0, high=1)
        with seeds.seeded(self.seed, "classes"):
            self.film = nn.Linear(self.n_classes, 2 * self.head.in_features, bias=False)

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        super().prepare(x, y)
        if y is None or not (y != UNKNOWN).any():
            raise LalibError(f"a ConditionalVAE needs labelled images, got {len(x)} without a label")

    def given(self, n: int, y: Tensor | None = None) -> Tensor:
        """What the networks are told of n images' classes, (n, C): one 1 in each row, none where y (n,) is UNKNOWN."""
        device = self.head.weight.device
        if y is None:
            return torch.zeros(n, self.n_classes, device=device)
        y = check_labels(y, n, self.n_classes, low=UNKNOWN).to(device)
        return F.one_hot(y.clamp_min(0), self.n_classes) * (y != UNKNOWN).float()[:, None]

    def posterior(self, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x,y), each (B, L); given (B, C): what is known of y, by default nothing."""
        scale, shift = self.film(self.given(len(x)) if given is None else given).chunk(2, dim=1)
        hidden = self.trunk(x) * (1 + scale) + shift
        mean, log_variance = self.head(hidden).float().split(self.latent_dim, dim=1)
        return self.activation(mean), log_variance

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Mean codes (B, L) of images (B, C, H, W); y (B,): classes, UNKNOWN or None where they are not to be used."""
        return self.posterior(x, self.given(len(x), y))[0]

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of codes (B, L) and classes (B,), UNKNOWN or None where there is none."""
        return super().decode(torch.cat([z, self.given(len(z), y)], dim=1))

    def reconstruction_loss(self, z: Tensor, x: Tensor, given: Tensor) -> Tensor:
        """-log p(x|y,z) of every image, (B,), summed over pixels; given (B, C): what is known of y."""
        return super().reconstruction_loss(torch.cat([z, given], dim=1), x)

    def terms(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        given = self.given(len(batch.x), batch.y)
        if self.training:
            draw = torch.rand(len(given), 1, generator=generator, device=generator.device)
            given = given * (draw >= self.label_dropout).to(given.device)
        return super().terms(batch, generator, given)

    @torch.no_grad()
    def generate(self, labels: Tensor, *, seed: int = 0) -> Tensor:
        """An image (n, C, H, W) in [0, 1] of each class (n,), its code drawn from p(z); on the model's device."""
        labels = check_labels(labels, n_classes=self.n_classes)
        z = self.prior.sample(len(labels), generator=seeds.generator(seed, "codes"))
        with eval_mode(self):
            return self.decode(z.to(self.head.weight.device), labels)
