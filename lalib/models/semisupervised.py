"""For few labels and many images: M2, M1+M2, FixMatch, a VAE with a prior of classes. References: see lalib.models."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib.data import seeds
from lalib.data.checks import LalibError, check_choice, check_int, check_number, check_type
from lalib.data.door import check_index, check_labels
from lalib.models.autoencoders import VAE
from lalib.models.classifiers import Classifier, CNNClassifier, EncoderClassifier, MLPClassifier
from lalib.models.contrastive import ContrastiveEncoder
from lalib.models.losses import bernoulli_nll, gaussian_kl, gaussian_nll, m2_unlabelled
from lalib.models.networks import PRESETS, RATES, UNKNOWN, Batch, Shape, Trainable, check_shape, eval_mode, mlp
from lalib.models.views import LIMITS, RandomViews


def partly_labelled(n: int, index: Tensor, labels: Tensor) -> Tensor:
    """Labels (n,) int64: those given at `index` (M,), UNKNOWN elsewhere: what `fit` hands to a model of this module.

    ValueError for an index that is not of M different images out of n, and for labels that are not M; TypeError for
    what is no whole number.
    """
    index = check_index(index, check_int("n", n, low=1), distinct=True)
    return torch.full((n,), UNKNOWN).index_copy(0, index, check_labels(labels, len(index)).cpu())


class PartlyLabelled(Trainable):
    """Mixed into models that learn from labelled and unlabelled images at once.

    Train them with fit(model, (images, labels)), labels (N,) as of partly_labelled; LalibError if all are UNKNOWN. A
    step takes `batch_size` unlabelled and up to `labeled_size` labelled images, an epoch every unlabelled one once.
    """

    batch_size, labeled_size = 128, 64
    partly_labelled = True
    labeled = unlabeled = torch.empty(0, dtype=torch.int64)  # of the training set, set by prepare

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        if y is not None and y.ndim > 1:
            raise LalibError(f"{type(self).__name__} needs one label per image; these images may have several")
        super().prepare(x, y)
        known = (y != UNKNOWN).cpu()
        self.labeled, self.unlabeled = known.nonzero().squeeze(1), (~known).nonzero().squeeze(1)

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        """Every unlabelled image once, beside labelled ones, which go round as often as needed (once if all are)."""

        def shuffled(index: Tensor) -> Tensor:
            return index[torch.randperm(len(index), generator=generator)]

        if not len(self.unlabeled):
            return iter(shuffled(self.labeled).split(size))
        parts, count = shuffled(self.unlabeled).split(size), min(self.labeled_size, len(self.labeled))
        rounds = math.ceil(count * len(parts) / len(self.labeled))
        deck = torch.cat([shuffled(self.labeled) for _ in range(rounds)]).split(count)
        return (torch.cat([labeled, part]) for labeled, part in zip(deck, parts, strict=False))


class _Generative(PartlyLabelled, Classifier):
    """What M2 on images and M2 on codes share: q(y|x), q(z|x,y), p(x|y,z), and the objective.

    J / N = N_l / N mean L(x, y) + N_u / N mean U(x) + class_weight mean -log q(y|x)   [Kingma2014b, Eqs. 6 to 9]

    in nats per image, the means over labelled (L and the last term) and unlabelled images (U).
    classifier: q(y|x); trunk, head: q(z|x,y), of which the class joins at the head; decoder: p(x|y,z).
    nll(z, y, v): -log p(v|y,z), (B,), of codes (B, L), weights of classes (B, C) and what is observed (B, ...).
    """

    def __init__(self, n_classes: int, *, latent_dim: int, class_weight: float = 10.0, **options):
        super().__init__(check_int("n_classes", n_classes, low=2), **options)
        self.latent_dim = check_int("latent_dim", latent_dim, low=1)
        self.class_weight = check_number("class_weight", class_weight, low=0)

    def observed(self, x: Tensor) -> Tensor:
        """What is modelled of the inputs: images as they are, codes on one scale."""
        return x

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        return self.classifier.activations(x)

    def posterior(self, hidden: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x,y), (B, L) each, of the trunk's outputs and weights of classes (B, C)."""
        return self.head(torch.cat([hidden, y], dim=1)).float().split(self.latent_dim, dim=1)

    def bound(self, v: Tensor, hidden: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """L(x, y) in nats, (B,), with z = mean + sd x noise (B, L): Eq. 6 of [Kingma2014b], all classes as frequent."""
        mean, log_variance = self.posterior(hidden, y)
        z = mean + (log_variance / 2).exp() * noise
        return self.nll(z, y, v) + math.log(self.n_classes) + gaussian_kl(mean, log_variance)

    def bounds(self, v: Tensor, noise: Tensor) -> Tensor:
        """L(x, y) of every class, (B, C), with the same noise (B, L): what it does must not set classes apart."""
        y = torch.eye(self.n_classes, device=v.device).repeat(len(v), 1)
        v, hidden, noise = (part.repeat_interleave(self.n_classes, dim=0) for part in (v, self.trunk(v), noise))
        return self.bound(v, hidden, y, noise).view(-1, self.n_classes)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        known, terms = batch.y != UNKNOWN, {}
        logits, v = self(self.augmented(batch.x, generator)).float(), self.observed(batch.x)
        noise = torch.randn(len(v), self.latent_dim, generator=generator, device=generator.device).to(v.device)
        if known.any():
            y, classes = batch.y[known], F.one_hot(batch.y[known], self.n_classes).to(v.dtype)
            terms["labelled"] = self.bound(v[known], self.trunk(v[known]), classes, noise[known]).mean()
            terms["class"] = F.cross_entropy(logits[known], y)
            terms["accuracy"] = (logits[known].argmax(1) == y).float().mean().detach()
        if not known.all():
            terms["unlabelled"] = m2_unlabelled(self.bounds(v[~known], noise[~known]), logits[~known]).mean()
        share = len(self.labeled) / (len(self.labeled) + len(self.unlabeled))
        weights = {"labelled": share, "unlabelled": 1 - share, "class": self.class_weight}
        return {"loss": sum(weight * terms[name] for name, weight in weights.items() if name in terms), **terms}

    def latents(self, x: Tensor) -> Tensor:
        """Mean code (B, L) of q(z|x,y) at the class that q(y|x) finds most probable."""
        y = F.one_hot(self(x).argmax(1), self.n_classes).float()
        return self.posterior(self.trunk(self.observed(x)), y)[0]


def _serving(model: Classifier, name: str, part: Classifier) -> Classifier:
    """`part`, the argument `name` of `model`, if it takes its images and tells its classes apart."""
    if check_type(name, part, Classifier).n_classes != model.n_classes:
        raise ValueError(f"{name} must tell n_classes={model.n_classes} apart, got {part.n_classes}")
    if part.image_shape != model.image_shape or part.multi_label:
        came = f"{part.image_shape} and multi_label={part.multi_label}"
        raise ValueError(f"{name} must take images {model.image_shape} with one label each, got {came}")
    return part


class M2(_Generative):
    """M2 [Kingma2014b] on images (B, C, H, W) in [0, 1]: class y and style z make the image.

    preset: the layers of q(z|x,y) and p(x|y,z), one of PRESETS ("dense" is the paper's form); classifier: q(y|x), by
    default the small CNN; pixels are Bernoulli. With `views` set, q(y|x) sees random views and the bound the images
    themselves. `options` and errors are Classifier's; LalibError for training without a label.
    Differs: class_weight is 0.1 in the paper. So few nats per image do not hold q(y|x) against the hundreds of the
    bound before the decoder knows the classes.
    """

    def __init__(
        self,
        image_shape: Shape,
        n_classes: int,
        *,
        latent_dim: int = 50,
        preset: str = "light",
        classifier: Classifier | None = None,
        **options,
    ):
        super().__init__(n_classes, latent_dim=latent_dim, **options)
        self.image_shape = check_shape(image_shape)
        self.preset, self.learning_rate = check_choice("preset", preset, PRESETS), RATES[preset]
        self.classifier = classifier or CNNClassifier(self.image_shape, self.n_classes, seed=self.seed)
        self.class_names = _serving(self, "classifier", self.classifier).class_names
        with seeds.seeded(self.seed, "weights"):
            self.trunk, features, self.decoder = PRESETS[preset](self.image_shape, self.latent_dim + self.n_classes)
            self.head = mlp(features + self.n_classes, 2 * self.latent_dim, (256,))

    def nll(self, z: Tensor, y: Tensor, v: Tensor) -> Tensor:
        return bernoulli_nll(self.decoder(torch.cat([z, y], dim=1)).float(), v)

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of styles (B, L) and classes (B,)."""
        return torch.sigmoid(self.decoder(torch.cat([z, F.one_hot(labels, self.n_classes).to(z)], dim=1)))

    @torch.no_grad()
    def generate(self, labels: Tensor, *, seed: int = 0) -> Tensor:
        """An image (B, C, H, W) of each class (B,), its style drawn from N(0, I); on the model's device."""
        labels = check_labels(labels, n_classes=self.n_classes).to(self.head[0].weight.device)
        z = torch.randn(len(labels), self.latent_dim, generator=seeds.generator(seed, "styles")).to(labels.device)
        with eval_mode(self):
            return self.decode(z, labels)


class M1M2(_Generative):
    """M2 on codes (B, D), stacked on the autoencoder that made them ("M1+M2" of [Kingma2014b]).

    The codes, on one scale as by MLPClassifier, are modelled as Gaussian with a learned mean and variance per
    coordinate. One layer of `hidden` units in each network. `options` are Classifier's, errors M2's.
    Differs: the mean codes of M1 are modelled, the paper draws them from q(z|x) anew in every epoch.
    """

    def __init__(self, code_dim: int, n_classes: int, *, latent_dim: int = 10, hidden: int = 256, **options):
        super().__init__(n_classes, latent_dim=latent_dim, **options)
        self.code_dim, self.hidden = check_int("code_dim", code_dim, low=1), check_int("hidden", hidden, low=1)
        self.classifier = MLPClassifier(self.code_dim, self.n_classes, hidden=(self.hidden,), seed=self.seed)
        with seeds.seeded(self.seed, "weights"):
            self.trunk = nn.Sequential(nn.Linear(self.code_dim, self.hidden), nn.ReLU())
            self.head = mlp(self.hidden + self.n_classes, 2 * self.latent_dim, (self.hidden,))
            self.decoder = mlp(self.latent_dim + self.n_classes, 2 * self.code_dim, (self.hidden,))

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        super().prepare(x, y)
        self.classifier.prepare(x)

    def observed(self, x: Tensor) -> Tensor:
        return self.classifier.standardized(x)

    def nll(self, z: Tensor, y: Tensor, v: Tensor) -> Tensor:
        mean, log_variance = self.decoder(torch.cat([z, y], dim=1)).float().chunk(2, dim=1)
        return gaussian_nll(mean, log_variance, v)


class FixMatch(PartlyLabelled, Classifier):
    """A classifier that teaches itself on unlabelled images [Sohn2020]: the discriminative rival of M2.

    loss = mean_labelled CE + weight x mean_unlabelled [max q >= threshold] CE(argmax q, view)   (Eqs. 3 and 4), nats:
    what is sure of a gently moved image (by 5 % of a side, and mirrored if the views may be) is asked of one of its
    `views`, RandomViews' defaults unless set. network: the classifier that learns; by default the layers are those of
    ContrastiveEncoder, with `width` kernels in the first convolution, and `dropout`. Images are (B, C, H, W) in
    [0, 1]; `options` are Classifier's, errors M2's.
    Differs: this network and Adam instead of a wide ResNet with SGD and a moving average.
    """

    views = RandomViews()

    def __init__(
        self,
        image_shape: Shape,
        n_classes: int,
        *,
        threshold: float = 0.95,
        weight: float = 1.0,
        width: int = 32,
        dropout: float = 0.3,
        network: Classifier | None = None,
        **options,
    ):
        super().__init__(n_classes, **options)
        self.threshold = check_number("threshold", threshold, low=0, high=1)
        self.weight = check_number("weight", weight, low=0)
        encoder = ContrastiveEncoder(image_shape, width=width, seed=self.seed)
        self.classifier = EncoderClassifier(encoder, n_classes, mode="scratch", dropout=dropout, seed=self.seed)
        self.image_shape, self.width, self.dropout = encoder.image_shape, encoder.width, self.classifier.dropout
        if network is not None:
            self.classifier = _serving(self, "network", network)
            self.class_names = network.class_names
            self.network_name = {"model": type(network).__name__, "config": network.config}  # to make it anew

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        return self.classifier.activations(x)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        gentle = RandomViews(**dict.fromkeys(LIMITS, 0.0) | {"shift": 0.05, "flip": self.views.flip})
        moved, known, terms = gentle(batch.x, generator=generator), batch.y != UNKNOWN, {}
        if known.any():
            terms["class"] = F.cross_entropy(self(moved[known]).float(), batch.y[known])
        if not known.all():
            with torch.no_grad(), eval_mode(self.classifier):
                top, guess = torch.softmax(self(moved[~known]).float(), dim=1).max(dim=1)
            sure = (top >= self.threshold).float()
            asked = self(self.views(batch.x[~known], generator=generator)).float()
            errors = F.cross_entropy(asked, guess, reduction="none")
            terms |= {"consistency": (sure * errors).mean(), "sure": sure.mean()}
        return {"loss": terms.get("class", 0) + self.weight * terms.get("consistency", 0), **terms}


class ClassPriorVAE(PartlyLabelled, VAE):
    """VAE whose prior is a mixture of one Gaussian per class, so that the code z of an image x tells its class y.

    The loss is the bound of all images and class_weight x -log p(y|z) of the labelled ones, in nats per image, each a
    mean over the batch. The bound is that of a VAE with prior="mixture"; p(y|z) is the share of the class's Gaussian in
    the mixture at z. Codes are those of q(z|x), which needs no class. `options`, shapes and errors are VAE's, without
    the prior; LalibError for training without a label.
    Differs from the bound on -log p(x,y) of p(y) p(z|y) p(x|z): -log p(y|z) is taken at the mean code and weighs more,
    to hold the classes apart, and labelled images, `labeled_size` in every batch, count more than once.
    """

    batch_size, labeled_size = 64, 16

    def __init__(
        self, image_shape: Shape, n_classes: int, latent_dim: int = 2, *, class_weight: float = 10.0, **options
    ):
        self.n_classes = check_int("n_classes", n_classes, low=2)
        super().__init__(image_shape, latent_dim, prior="mixture", components=self.n_classes, **options)
        self.class_weight = self.weights["class"] = check_number("class_weight", class_weight, low=0)

    def terms(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        mean, terms = super().terms(batch, generator)
        known = batch.y != UNKNOWN
        if known.any():
            terms["class"] = F.cross_entropy(self.prior.log_joint(mean[known]), batch.y[known])
        return mean, terms
