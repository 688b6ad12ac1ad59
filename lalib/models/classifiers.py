"""Classifiers on pixels, codes and an encoder, and a head that predicts losses. References: see lalib.models."""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib.data.checks import LalibError, check_choice, check_int, check_number
from lalib.data.door import check_codes
from lalib.data.imageset import ImageSet
from lalib.data.seeds import seeded
from lalib.models import networks
from lalib.models.autoencoders import Autoencoder
from lalib.models.losses import pair_loss
from lalib.models.networks import Batch, Shape, Trainable, check_inputs, check_shape, in_blocks, mlp
from lalib.models.views import RandomViews

DETACH = 0.6  # of the training, after which the head no longer moves the features [Yoo2019]


class Classifier(Trainable):
    """Logits (B, C) from inputs, trained by cross-entropy (nats, mean over the batch).

    Labels are (B,), int64. With multi_label=True they are (B, C) of 0 and 1: every class has a probability of its own,
    and the loss is the mean over classes of the binary cross-entropy. seed draws the weights. `views`, if set, are
    shown in training. dropout, in all classifiers: the share of hidden units that are set to 0, from 0 to 1.
    Raises TypeError and ValueError as every Trainable; LalibError for multi_label where one label per image is needed.
    """

    batch_size = 32
    block_types: tuple[type[nn.Module], ...] = (nn.ReLU,)
    views: RandomViews | None = None

    def __init__(self, n_classes: int, *, multi_label: bool = False, seed: int = 0):
        super().__init__()
        if multi_label and self.partly_labelled:
            raise LalibError(f"{type(self).__name__} needs one label per image; these images may have several")
        self.n_classes, self.multi_label = check_int("n_classes", n_classes, low=1), bool(multi_label)
        self.seed = check_int("seed", seed, low=0)

    def layers(self) -> Iterable[nn.Module]:
        """All layers from inputs to logits, in order; the last one is linear."""
        return self.network

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Outputs of the hidden blocks, first to last (the inputs if there is none), and the logits (B, C)."""
        inputs, blocks = x, []
        for layer in self.layers():
            x = layer(x)
            if isinstance(layer, self.block_types):
                blocks.append(x)
        return blocks or [inputs], x

    def features(self, x: Tensor) -> Tensor:
        """What the last hidden block says of the inputs, (B, F)."""
        return _pooled(self.activations(x)[0][-1])

    def latents(self, x: Tensor) -> Tensor:
        """Codes (B, K) of the inputs in the model's latent space: the features, if it has no other."""
        return self.features(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.activations(x)[1]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities (..., C) of logits (..., C)."""
        return torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=-1)

    def losses(self, logits: Tensor, y: Tensor | None) -> Tensor:
        """The loss (B,) of every input, in nats."""
        if y is None:
            raise LalibError("a classifier needs labels: give an ImageSet with labels, or a pair (inputs, labels)")
        if (y.ndim == 2) != self.multi_label:
            kind = "(B, C), several classes per image" if self.multi_label else "(B,), one label per image"
            raise LalibError(f"multi_label={self.multi_label} needs labels {kind}; got shape {tuple(y.shape)}")
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, y.float(), reduction="none").mean(1)
        return F.cross_entropy(logits, y, reduction="none")

    def augmented(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The inputs of a training step: random views of the images if there are `views`, else x itself."""
        return x if self.views is None or not self.training else self.views(x, generator=generator)

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        logits = self(self.augmented(batch.x, generator)).float()
        loss = self.losses(logits, batch.y).mean()
        return {"loss": loss, "accuracy": _hits(self.probabilities(logits.detach()), batch.y).float().mean()}


def _pooled(block: Tensor) -> Tensor:
    """Outputs of a hidden block as (B, F): maps (B, F, H, W) are averaged over their pixels."""
    return block.mean(dim=(2, 3)) if block.ndim == 4 else block


def _hits(probs: Tensor, labels: Tensor) -> Tensor:
    """Whether the most probable class is the label, (N,); of labels (N, C), whether each lies on its side of 1/2."""
    return (probs > 0.5) == labels.bool() if labels.ndim == 2 else probs.argmax(1) == labels


class CNNClassifier(Classifier):
    """A CNN on pixels, images (B, C, H, W) in [0, 1]; `options` and errors are Classifier's.

    network: "small", or "residual", slower and better once there are thousands of labels: see networks.
    """

    block_types = (nn.ReLU, networks.Residual)

    def __init__(self, image_shape: Shape, n_classes: int, *, network: str = "small", dropout: float = 0.5, **options):
        super().__init__(n_classes, **options)
        self.image_shape = check_shape(image_shape)
        self.network_name = check_choice("network", network, networks.CNNS)
        self.dropout = check_number("dropout", dropout, low=0, high=1)
        with seeded(self.seed, "weights"):
            self.network = networks.CNNS[network](self.image_shape, self.n_classes, self.dropout)


class ResNetClassifier(Classifier):
    """ResNet-18 [He2016] on images (B, C, H, W) in [0, 1]; `options` and errors are Classifier's.

    weights: None (drawn with the seed), "imagenet" (torchvision's, downloaded once) or the path of a .pth file with a
    state dict of torchvision's resnet18; the last layer is always drawn anew. `origin` says which it was. LalibError
    for weights that cannot be had, and for training on batches of one image. Images keep their size. Each channel is
    shifted and scaled as ImageNet's weights expect; grey images become three channels.
    """

    block_types = (nn.Sequential,)  # the four stages

    def __init__(self, image_shape: Shape, n_classes: int, *, weights: str | None = None, **options):
        super().__init__(n_classes, **options)
        self.image_shape = check_shape(image_shape)
        with seeded(self.seed, "weights"):
            self.network, self.origin = networks.resnet18(self.n_classes, weights)

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        """As few batches as hold each image once, of almost equal sizes, since small ones upset batch normalisation."""
        if min(n, size) < 2:
            raise LalibError(f"ResNet-18 trains on batches of at least 2 images, got {n} images in batches of {size}")
        yield from torch.randperm(n, generator=generator).tensor_split(min(math.ceil(n / size), n // 2))

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        mean, spread = x.new_tensor([networks.IMAGENET_MEAN, networks.IMAGENET_SPREAD])[:, :, None, None]
        return super().activations((x - mean) / spread)


class MLPClassifier(Classifier):
    """Dense layers of `hidden` units on codes (B, L); `options` and errors are Classifier's.

    Codes are centred and divided by one scale, the root mean square of the centred codes that `fit` is given.
    Differs from the usual scale per coordinate, which blows up coordinates that hardly vary.
    """

    def __init__(
        self, latent_dim: int, n_classes: int, *, hidden: Sequence[int] = (256, 256), dropout: float = 0.0, **options
    ):
        super().__init__(n_classes, **options)
        self.latent_dim = self.code_dim = check_int("latent_dim", latent_dim, low=1)
        self.hidden = tuple(check_int("hidden", size, low=1) for size in hidden)
        self.dropout = check_number("dropout", dropout, low=0, high=1)
        self.register_buffer("mean", torch.zeros(self.latent_dim))
        self.register_buffer("scale", torch.ones(()))
        with seeded(self.seed, "weights"):
            self.network = mlp(self.latent_dim, self.n_classes, self.hidden, self.dropout)

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        self.mean.copy_(x.mean(0))
        scale = (x - self.mean).square().mean().sqrt()
        self.scale.copy_(torch.where(scale > 1e-6 * x.abs().max(), scale, 1))  # a single code has no spread

    def standardized(self, x: Tensor) -> Tensor:
        """Codes (B, L) as the first layer gets them."""
        return (x - self.mean) / self.scale

    def activations(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        return super().activations(self.standardized(x))


class EncoderClassifier(Classifier):
    """A copy of an encoder's trunk with a new MLP head, on images (B, C, H, W) in [0, 1]: Sec. 4 of [Report].

    mode="frozen": the trunk keeps its weights. "fine-tuned": it learns at `trunk_rate` times the head's learning rate
    [Howard2018]. "scratch": new weights. hidden: units of the head's layer. `options` and errors are Classifier's.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        n_classes: int,
        *,
        mode: str = "fine-tuned",
        trunk_rate: float = 0.1,
        hidden: int = 128,
        dropout: float = 0.5,
        **options,
    ):
        super().__init__(n_classes, **options)
        self.mode = check_choice("mode", mode, ["frozen", "fine-tuned", "scratch"])
        self.trunk_rate = check_number("trunk_rate", trunk_rate, low=0)
        self.hidden, self.dropout = check_int("hidden", hidden, low=1), check_number("dropout", dropout, low=0, high=1)
        self.image_shape = autoencoder.image_shape
        source = autoencoder if mode != "scratch" else type(autoencoder)(**autoencoder.config | {"seed": self.seed})
        self.trunk = copy.deepcopy(source.trunk).requires_grad_(mode != "frozen")
        with seeded(self.seed, "head"):  # a stream of its own: "weights" may have drawn the trunk's
            self.network = mlp(autoencoder.head.in_features, self.n_classes, (self.hidden,), self.dropout)

    def layers(self) -> Iterable[nn.Module]:
        return (*self.trunk, *self.network)

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        rates = {self.network: learning_rate}
        if self.mode != "frozen":
            rates[self.trunk] = learning_rate * (self.trunk_rate if self.mode == "fine-tuned" else 1)
        return [{"params": list(part.parameters()), "lr": rate} for part, rate in rates.items()]


class LossPredictor(Trainable):
    """A classifier with a head that learns which of two images has the larger loss [Yoo2019].

    The head maps every hidden block (maps are averaged over their pixels) to `width` numbers, and these and the codes
    (M, L) of the training images, if given, to one. The loss is the task's plus `weight` times the pair loss, which no
    longer reaches the classifier after `detach_after` batches. example (1, ...): an input, for the sizes.
    """

    def __init__(
        self,
        classifier: Classifier,
        example: Tensor,
        *,
        codes: Tensor | None = None,
        weight: float = 1.0,
        width: int = 128,
        detach_after: int,
        seed: int = 0,
    ):
        super().__init__()
        self.classifier, self.weight = classifier, check_number("weight", weight, low=0)
        self.width, self.detach_after = check_int("width", width, low=1), check_int("detach_after", detach_after, low=0)
        for name in ("image_shape", "code_dim", "n_classes", "multi_label", "class_names"):
            setattr(self, name, getattr(classifier, name))
        self.register_buffer("codes", None if codes is None else check_codes(codes).float())
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))
        example = networks.to_input(check_inputs(classifier, example), next(classifier.parameters()).device)
        with torch.no_grad(), networks.eval_mode(classifier):
            sizes = [block.shape[1] for block in classifier.activations(example)[0]]
        with seeded(seed, "loss head"):
            self.blocks = nn.ModuleList(nn.Linear(size, self.width) for size in sizes)
            self.last = nn.Linear(self.width * len(sizes) + (0 if codes is None else self.codes.shape[1]), 1)

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        self.classifier.prepare(x, y)

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        return self.classifier.batches(n, size, generator=generator)

    def head(self, blocks: list[Tensor], codes: Tensor | None = None) -> Tensor:
        """Predicted losses (B,) of the hidden blocks of B inputs and their codes."""
        parts = [torch.relu(layer(_pooled(block))) for layer, block in zip(self.blocks, blocks, strict=True)]
        return self.last(torch.cat(parts if codes is None else [*parts, codes.to(parts[0])], dim=1)).squeeze(1).float()

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        blocks, logits = self.classifier.activations(self.classifier.augmented(batch.x, generator))
        losses = self.classifier.losses(logits.float(), batch.y)
        if self.batches_seen >= self.detach_after:
            blocks = [block.detach() for block in blocks]
        self.batches_seen += self.training
        codes = None if self.codes is None else self.codes[batch.index.to(self.codes.device)]
        pairs = pair_loss(self.head(blocks, codes), losses.detach())
        return {"loss": losses.mean() + self.weight * pairs, "task": losses.mean(), "pairs": pairs}

    def predict(self, inputs: Tensor, codes: Tensor | None = None, block: int = 1024) -> Tensor:
        """Predicted losses (N,) of inputs (N, ...) with their codes (N, L), float32 on the CPU.

        Raises LalibError for codes that the head was not trained with, or none if it was, else as check_inputs does.
        """
        if (codes is None) != (self.codes is None):
            raise LalibError("give codes to predict if, and only if, the predictor was trained with codes")
        parts = (check_inputs(self, inputs), *([] if codes is None else [check_codes(codes).float()]))
        return in_blocks(self, lambda x, *z: self.head(self.classifier.activations(x)[0], *z), parts, block)


def predict_proba(classifier: Classifier, inputs: ImageSet | Tensor, batch_size: int = 1024) -> Tensor:
    """Class probabilities (N, C), float32 on the CPU, of images (N, C, H, W) or codes (N, L).

    Rows sum to 1 if not multi_label. Raises ValueError for another shape than the model's, codes that are not finite
    and a batch_size below 1; TypeError for other things.
    """
    inputs = check_inputs(classifier, inputs)
    return in_blocks(classifier, lambda x: classifier.probabilities(classifier(x).float()), inputs, batch_size)


def mc_dropout_proba(
    classifier: Classifier, inputs: ImageSet | Tensor, passes: int = 10, *, seed: int = 0, batch_size: int = 1024
) -> Tensor:
    """Class probabilities (T, N, C) of T = `passes` passes with dropout on, float32 on the CPU [Gal2016].

    inputs as of predict_proba, which raises the same. LalibError for a classifier without dropout.
    """
    inputs, passes = check_inputs(classifier, inputs), check_int("passes", passes, low=1)
    dropouts = nn.ModuleList(m for m in classifier.modules() if isinstance(m, nn.Dropout) and m.p > 0)
    if not dropouts:
        raise LalibError(f"MC-dropout needs a classifier with dropout, got a {type(classifier).__name__} without any")

    def stochastic(x: Tensor) -> Tensor:
        dropouts.train()  # in_blocks has set eval mode
        return classifier.probabilities(classifier(x).float())

    with networks.seeded_dropout(classifier, seed, "mc-dropout"):
        return torch.stack([in_blocks(classifier, stochastic, inputs, batch_size) for _ in range(passes)])


def accuracy(classifier: Classifier, inputs: ImageSet | Tensor, labels: Tensor | None = None) -> float:
    """Share of inputs whose most probable class is their label, in [0, 1]; labels (N,) default to the image set's.

    With labels (N, C) of 0 and 1: the share of them on the right side of probability 1/2. An ImageSet's classes and the
    model's are matched by name. Raises ValueError for a class that the model does not know, LalibError without labels.
    """
    names = inputs.class_names if isinstance(inputs, ImageSet) else ()
    labels = getattr(inputs, "labels", None) if labels is None else labels
    if labels is None:
        raise LalibError("accuracy needs labels: give an ImageSet with labels, or labels=")
    probs = predict_proba(classifier, inputs)
    return float(_hits(probs, networks.check_targets(classifier, labels, len(probs), names).cpu()).double().mean())
