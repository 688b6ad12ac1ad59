"""The four autoencoders of [Slides] (convolutional, variational, t-SNE style, variational t-SNE style), and a
class-conditional one, which learns from images with a label and without. References: see lalib.models.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib.data import seeds
from lalib.data.checks import check_choice, check_int, check_number
from lalib.data.door import check_labels
from lalib.models.losses import RECONSTRUCTION, batch_affinities, perplexity_rows, symmetric, tsne_kl
from lalib.models.networks import PRESETS, RATES, UNKNOWN, Batch, Shape, Trainable, check_shape, eval_mode
from lalib.models.priors import MixturePrior, NormalPrior, VampPrior, draw_gaussian

PATCH = 4  # images dealt together: one and its neighbours
# "clu": clipped linear units, min(1, max(0, x)) [Report]; codes lie in the unit cube, no gradient comes from outside it
REPRESENTATIONS = {"linear": nn.Identity, "sigmoid": nn.Sigmoid, "clu": partial(nn.Hardtanh, 0, 1)}


class Autoencoder(Trainable):
    """Encoder trunk, a dense head of `heads` x L units, and a decoder; images (B, C, H, W) in [0, 1], codes (B, L).

    latent_dim: L. preset: the layers, one of PRESETS; images above 32 pixels are brought down to them in patches,
    and up again (networks.patched). representation: activation of the codes, "linear", "sigmoid" or "clu".
    reconstruction: "bce" (nats), "mse" or "mae", summed over pixels. seed draws the weights.
    Raises TypeError for an option of the wrong type, ValueError for a value that is not allowed.
    """

    heads = 1
    conditions = 0  # inputs of the decoder beside the code

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 2,
        *,
        preset: str = "light",
        representation: str = "linear",
        reconstruction: str = "bce",
        seed: int = 0,
    ):
        super().__init__()
        self.image_shape = check_shape(image_shape)
        self.latent_dim = check_int("latent_dim", latent_dim, low=1)
        self.preset = check_choice("preset", preset, PRESETS)
        self.representation = check_choice("representation", representation, REPRESENTATIONS)
        self.reconstruction = check_choice("reconstruction", reconstruction, RECONSTRUCTION)
        self.seed, self.learning_rate = check_int("seed", seed, low=0), RATES[preset]
        with seeds.seeded(self.seed, "weights"):
            self.trunk, features, self.decoder = PRESETS[preset](self.image_shape, self.latent_dim + self.conditions)
            self.head = nn.Linear(features, self.heads * self.latent_dim)
        self.activation = REPRESENTATIONS[representation]()
        self.weights = {"reconstruction": 1.0}  # of each term in the loss; terms without one are recorded only
        if representation == "clu":  # outside [0, 1] a CLU passes no gradient: start in the middle
            nn.init.constant_(self.head.bias[: self.latent_dim], 0.5)

    def encode(self, x: Tensor) -> Tensor:
        """Codes (B, L) of images (B, C, H, W); a variational model's mean codes."""
        return self.activation(self.head(self.trunk(x))[:, : self.latent_dim])

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of codes (B, L)."""
        return torch.sigmoid(self.decoder(z))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def reconstruction_loss(self, z: Tensor, x: Tensor, *given: Tensor) -> Tensor:
        """The term of every image, (B,), summed over pixels (nats for "bce"); given (B, K): what joins the codes."""
        return RECONSTRUCTION[self.reconstruction](self.decoder(torch.cat([z, *given], dim=1)).float(), x)

    def terms(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """(Mean) codes (B, L) and the terms of the loss, each a mean over the batch."""
        z = self.encode(batch.x).float()
        return z, {"reconstruction": self.reconstruction_loss(z, batch.x).mean()}

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        z, terms = self.terms(batch, generator)
        if self.representation == "clu":  # the share of outputs at 0 or 1, which pass no gradient
            terms["saturated"] = ((z <= 0) | (z >= 1)).float().mean()
        return {"loss": sum(self.weights[name] * terms[name] for name in terms if name in self.weights), **terms}


class CAE(Autoencoder):
    """Convolutional autoencoder: the reconstruction term alone [Slides]. Shapes and errors are Autoencoder's."""


class VAE(Autoencoder):
    """Variational autoencoder [Kingma2014]: reconstruction + beta KL(q(z|x) || p(z)), in nats per image.

    Both terms are summed (pixels, coordinates) and averaged over images: beta = 1 is the evidence lower bound.
    prior: p(z), "normal" for N(0, I), "mixture" for Gaussians with learned weights, means and variances, or "vamp" for
    the mean of q(z|u) over learned images u [Tomczak2018]. The last two have `components` parts (default 50), at most
    as many as there are training images, else ValueError; their KL term is an estimate from one draw.
    `options`, shapes and other errors are Autoencoder's.
    On mnist-mini (10 dimensions, 20 epochs, three seeds) test digits cost 133 nats with "normal", 131 with "mixture"
    and 144 with "vamp" (standard deviations 4, 4 and 11).
    """

    heads = 2

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 2,
        *,
        beta: float = 1.0,
        prior: str = "normal",
        components: int | None = None,
        **options,
    ):
        super().__init__(image_shape, latent_dim, **options)
        self.beta = self.weights["kl"] = check_number("beta", beta, low=0)
        if check_choice("prior", prior, ("normal", "mixture", "vamp")) == "normal":
            if components is not None:
                raise ValueError(f"components needs prior='mixture' or 'vamp', got {components=!s} for prior='normal'")
            self.prior = NormalPrior(self.latent_dim)
            return  # neither is in the config: it stays what it was, and finished runs of a plain VAE are found
        components = 50 if components is None else components
        if prior == "mixture":
            self.prior = MixturePrior(components, self.latent_dim, seed=self.seed)
        else:
            self.prior = VampPrior(components, self.image_shape, self.posterior, seed=self.seed)
        self.prior_name, self.components = prior, self.prior.components

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        super().prepare(x, y)
        self.prior.prepare(x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each (B, L)."""
        mean, log_variance = self.head(self.trunk(x)).float().split(self.latent_dim, dim=1)
        return self.activation(mean), log_variance

    def terms(self, batch: Batch, generator: torch.Generator, *given: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As Autoencoder's; given (B, K): what q(z|x) and p(x|z) depend on beside, if anything."""
        mean, log_variance = self.posterior(batch.x, *given)
        z = draw_gaussian(mean, log_variance, generator=generator)
        reconstruction = self.reconstruction_loss(z, batch.x, *given).mean()
        kl = self.prior.kl(z, mean, log_variance).mean()
        return mean, {"reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """Images (n, C, H, W) in [0, 1] of codes drawn from the prior, on the model's device."""
        z = self.prior.sample(check_int("n", n, low=1), generator=seeds.generator(seed, "codes"))
        with eval_mode(self):
            return self.decode(z.to(self.head.weight.device))


@dataclass(eq=False)
class Neighbourhoods:
    """t-SNE's conditional affinities of a training set: each image's nearest others and their p_j|i [Maaten2009].

    They are taken over the whole set, on the 3 x perplexity nearest neighbours of every image.
    """

    perplexity: float
    index: Tensor | None = None  # (N, K) int64
    conditional: Tensor | None = None  # (N, K) float32

    def fit(self, x: Tensor) -> None:
        """Find neighbours and affinities of x (N, ...), on its device."""
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=min(len(x) - 1, int(3 * self.perplexity)))
        found = search.fit(x.flatten(1).cpu().float().numpy() / 255).kneighbors()
        distances, self.index = (torch.from_numpy(part).to(x.device) for part in found)
        self.conditional = perplexity_rows(distances.double().square(), self.perplexity).float()

    def joint(self, index: Tensor) -> Tensor:
        """P restricted to the images `index` (B,) and scaled to sum to 1: (B, B), symmetric, zero diagonal."""
        size = len(index)
        position = torch.full((len(self.index),), size, device=self.index.device)
        position[index] = torch.arange(size, device=self.index.device)
        inside = torch.zeros(size, size + 1, device=self.index.device)  # the last column takes what lies outside
        inside.scatter_(1, position[self.index[index]], self.conditional[index])
        return symmetric(inside[:, :size])

    def deal(self, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        """Batches of `size` that together hold each image once, made of patches: a random image and PATCH - 1 of its
        neighbours that have not been dealt yet. In larger patches a map learns only what is inside a neighbourhood.
        """
        neighbours, free = self.index.cpu().numpy(), torch.ones(len(self.index), dtype=torch.bool).numpy()
        patches = []
        for centre in torch.randperm(len(free), generator=generator).tolist():
            if free[centre]:
                free[centre] = False
                near = torch.from_numpy(neighbours[centre][free[neighbours[centre]]])
                near = near[torch.randperm(len(near), generator=generator)[: PATCH - 1]]
                free[near] = False
                patches.append(torch.cat([torch.tensor([centre]), near]))
        order = torch.randperm(len(patches), generator=generator).tolist()
        yield from torch.cat([patches[i] for i in order]).split(size)


class _TSNETerm(Autoencoder):
    """What TSNEAE adds to an autoencoder."""

    def __init__(
        self,
        image_shape: Shape,
        latent_dim: int = 2,
        *,
        perplexity: float = 40.0,
        tsne_weight: float = 1.0,
        affinities: str = "global",
        spread: float = 3.0,
        batch_size: int = 512,
        **options,
    ):
        super().__init__(image_shape, latent_dim, **options)
        self.perplexity = check_number("perplexity", perplexity, low=1)
        self.tsne_weight = check_number("tsne_weight", tsne_weight, low=0)
        self.weights["tsne"] = self.tsne_weight * math.prod(self.image_shape)
        self.affinities = check_choice("affinities", affinities, ["global", "batch"])
        self.spread = check_number("spread", spread, low=0)
        self.batch_size = check_int("batch_size", batch_size, low=4)
        self._check_batch(self.batch_size)
        self.neighbourhoods = Neighbourhoods(self.perplexity)

    def _check_batch(self, size: int) -> None:
        if self.perplexity >= size - 1:
            raise ValueError(f"perplexity must be below batch size - 1 = {size - 1}, got {self.perplexity:g}")

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        super().prepare(x, y)
        self._check_batch(len(x))
        if self.affinities == "global":
            self.neighbourhoods.fit(x)

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        self._check_batch(size)
        source = super().batches(n, size, generator=generator)
        if self.affinities == "global":
            source = self.neighbourhoods.deal(size, generator=generator)
        return (index for index in source if self.perplexity < len(index) - 1)  # a short last batch has no such P

    def terms(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        codes, terms = super().terms(batch, generator)
        if batch.index is None:
            return codes, terms
        near = self.neighbourhoods if self.affinities == "global" else None
        joint = near.joint(batch.index) if near else batch_affinities(batch.x, self.perplexity)
        with torch.autocast(codes.device.type, enabled=False):
            return codes, {**terms, "tsne": tsne_kl(self.spread * codes, joint.to(codes.device))}


class TSNEAE(_TSNETerm, CAE):
    """The "t-SNE style" autoencoder: reconstruction + tsne_weight x D x KL(P || Q) [Slides], [Maaten2009].

    D = C H W, so that tsne_weight is relative to the reconstruction per pixel. Q is taken over `spread` x codes: a map
    can be as wide as t-SNE's while the codes stay near 1, where the decoder and N(0, I) want them. affinities: "global"
    takes P from the whole training set and batches along its neighbour graph, "batch" takes P within each random batch.
    [Slides] is "batch" with batch_size=64, spread=1 and a perplexity of 5 to 10. The loss of validation images leaves
    the KL term out. Raises ValueError for a perplexity of batch size - 1 or more; else shapes, `options` and errors are
    Autoencoder's.
    """


class VariationalTSNEAE(_TSNETerm, VAE):
    """The "variational t-SNE style" one: reconstruction + beta KL(q || p(z)) + tsne_weight D KL(P || Q) [Slides].

    Q is taken over `spread` x mean codes. Shapes, `options` and errors are those of TSNEAE and VAE.
    """


class ConditionalVAE(VAE):
    """VAE of images x with a class y: reconstruction -log p(x|y,z) + beta KL(q(z|x,y) || p(z)), in nats per image.

    With beta = 1 that bounds -log p(x|y): Eq. 6 of [Kingma2014b] without its -log p(y). The class is one number of C
    that is 1, the others are 0. It joins the decoder's codes, and scales and shifts the trunk's features [Perez2018].
    Of an image without a label (UNKNOWN, -1) all are 0, and the network is a plain VAE [Ho2022]. In training each label
    is hidden with probability `label_dropout`, so that this is learned even where every image has one.
    Codes made with a class and codes made without are not to be compared.
    Train it with fit(model, images), or with fit(model, (images, labels)), see partly_labelled; LalibError if none has
    a label. The prior is that of all images. `options`, shapes and errors are VAE's.
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


MODELS = {model.__name__: model for model in (CAE, VAE, TSNEAE, VariationalTSNEAE)}  # trained without labels
