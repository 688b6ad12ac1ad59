"""Models whose discriminator tells labelled from unlabelled images by their latent code: VAAL, TA-VAAL and M2-VAAL.

Differs: the discriminator's step is taken together with the model's, in one backward pass; [Sinha2019] takes two steps
of the VAE for each of the discriminator's. References: see lalib.models.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lalib.data.checks import LalibError, check_choice, check_number
from lalib.data.seeds import seeded
from lalib.models.autoencoders import VAE
from lalib.models.losses import discriminator_loss
from lalib.models.networks import UNKNOWN, Batch, Shape, Trainable, eval_mode, mlp
from lalib.models.semisupervised import M2, PartlyLabelled


class Discriminator(nn.Module):
    """Logits (B,) of "this image has a label" from latent codes (B, K): dense layers of 512 twice [Sinha2019]."""

    def __init__(self, inputs: int, *, seed: int):
        super().__init__()
        with seeded(seed, "discriminator"):
            self.network = mlp(inputs, 1, (512, 512))

    def forward(self, codes: Tensor) -> Tensor:
        return self.network(codes).squeeze(1).float()

    def terms(self, codes: Tensor, known: Tensor) -> dict[str, Tensor]:
        """Of codes (B, K) and which of them have a label, as means over labelled (L) and unlabelled (U) ones, in nats:

        adversarial: -mean_L log D - mean_U log D, which only the codes learn from, Eq. 3 of [Sinha2019].
        discriminator: -mean_L log D - mean_U log (1 - D), which only the discriminator learns from, Eq. 4.
        told_apart: its balanced accuracy.
        """
        fooled = functional_call(self, {name: value.detach() for name, value in self.named_parameters()}, (codes,))
        logits = self(codes.detach())
        right = torch.stack([(logits[known] > 0).float().mean(), (logits[~known] <= 0).float().mean()])
        fooling = F.softplus(-fooled[known]).mean() + F.softplus(-fooled[~known]).mean()
        told = {"discriminator": discriminator_loss(logits, known), "told_apart": right.mean().detach()}
        return {"adversarial": fooling, **told}


class _Deceiving(PartlyLabelled):
    """Mixed into models with a discriminator; `seen` says what it sees, (B, K), of images (B, C, H, W)."""

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        super().prepare(x, y)
        if not len(self.unlabeled):
            whose = f"{type(self).__name__}'s discriminator"
            raise LalibError(f"{whose} needs unlabelled images, too: all {len(x)} have a label")

    def labelled_logits(self, x: Tensor) -> Tensor:
        """The discriminator's logit of D, the probability that each image has a label, (B,)."""
        return self.discriminator(self.seen(x))

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        known = batch.y != UNKNOWN
        if known.all() or not known.any():
            raise LalibError("a discriminator needs labelled and unlabelled images in every batch, got one side only")
        terms = super().loss(batch, generator=generator)
        game = self.discriminator.terms(self.seen(batch.x), known)
        total = terms["loss"] + self.adversarial * game["adversarial"] + game["discriminator"]
        return {**terms, **game, "loss": total}


class VAAL(_Deceiving, VAE):
    """A VAE whose codes are to hide from a discriminator which images have a label [Sinha2019].

    loss = L: mean (reconstruction + beta KL) + U: the same + adversarial x (mean_L -log D + mean_U -log D) + D's own,
    in nats per image, sums over pixels and coordinates. The discriminator sees the mean code; `told_apart` in the
    history is its balanced accuracy. adversarial: weight of that term, 0 leaves it out. `options`, shapes and errors
    are VAE's; LalibError unless there are labelled and unlabelled images, in training and in every batch.
    """

    labeled_size = 128  # as many as unlabelled ones

    def __init__(self, image_shape: Shape, latent_dim: int = 32, *, adversarial: float = 1.0, **options):
        super().__init__(image_shape, latent_dim, **options)
        self.adversarial = check_number("adversarial", adversarial, low=0)
        self.discriminator = Discriminator(self.latent_dim + self.conditions, seed=self.seed)

    def seen(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def terms(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Codes (B, L), those of labelled images first, and the terms of both sides, added."""
        known = batch.y != UNKNOWN
        sides = (super(VAAL, self).terms(Batch(batch.x[side]), generator) for side in (known, ~known))
        codes, (labelled, unlabelled) = zip(*sides, strict=True)
        return torch.cat(codes), {name: labelled[name] + unlabelled[name] for name in labelled}


class TAVAAL(VAAL):
    """VAAL whose decoder and discriminator see how hard the task model finds each image, too [Kim2021].

    predictor: a LossPredictor, the task model with its head, which is trained here as well, on the labelled images.
    The decoder sees [z, sigmoid(r)], the discriminator [mean of z, r]. r is what the predictor says in eval mode, as it
    will be when images are picked. `options`, shapes and errors are VAAL's.
    """

    conditions = 1

    def __init__(self, predictor: Trainable, latent_dim: int = 32, **options):
        super().__init__(predictor.image_shape, latent_dim, **options)
        self.predictor, self.n_classes, self.class_names = predictor, predictor.n_classes, predictor.class_names

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        super().prepare(x, y)
        self.predictor.prepare(x, y)

    def condition(self, x: Tensor) -> Tensor:
        """r (B, 1) of images (B, C, H, W)."""
        with torch.no_grad(), eval_mode(self.predictor):
            return self.predictor.head(self.predictor.classifier.activations(x)[0])[:, None]

    def seen(self, x: Tensor) -> Tensor:
        return torch.cat([super().seen(x), self.condition(x)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.cat([self.encode(x), self.condition(x).sigmoid()], dim=1))

    def reconstruction_loss(self, z: Tensor, x: Tensor) -> Tensor:
        return super().reconstruction_loss(z, x, self.condition(x).sigmoid())

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        terms, known = super().loss(batch, generator=generator), batch.y != UNKNOWN
        task = self.predictor.loss(Batch(batch.x[known], batch.y[known]), generator=generator)
        return {**terms, **task, "loss": terms["loss"] + task["loss"]}


class M2VAAL(_Deceiving, M2):
    """M2 with a discriminator on its latent code [Losalka].

    sees: "z", the mean code alone; or "zy", code and class probabilities [z, y'], as in the slides: then the
    adversarial term works against the classifier, which "z" keeps it from. adversarial: its weight, 0 leaves it out.
    `options`, shapes and errors are M2's and, for images all with or all without a label, VAAL's.
    """

    def __init__(self, image_shape: Shape, n_classes: int, *, adversarial: float = 1.0, sees: str = "z", **options):
        super().__init__(image_shape, n_classes, **options)
        self.adversarial = check_number("adversarial", adversarial, low=0)
        self.sees = check_choice("sees", sees, ["z", "zy"])
        self.discriminator = Discriminator(self.latent_dim + (sees == "zy") * self.n_classes, seed=self.seed)

    def seen(self, x: Tensor) -> Tensor:
        y = torch.softmax(self(x).float(), dim=1)
        y = y if self.sees == "zy" else y.detach()
        z = self.posterior(self.trunk(x), y)[0]
        return torch.cat([z, y], dim=1) if self.sees == "zy" else z
