"""Classifiers for query sets: on pixels, on codes, and on an autoencoder's encoder.

References
----------
[Report]     Killeen, Progress update (transfer from the autoencoder to the classifier), Sec. 4.
[Howard2018] Howard and Ruder, Universal language model fine-tuning, 2018. Discriminative learning rates.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib._checks import LalibError, check_choice, check_int, check_labels, check_number
from lalib.autoencoders import Autoencoder
from lalib.data import ImageSet
from lalib.networks import Batch, Trainable, in_blocks, mlp, small_cnn
from lalib.seeds import seeded

__all__ = ["CNNClassifier", "Classifier", "EncoderClassifier", "MLPClassifier", "accuracy", "predict_proba"]


class Classifier(Trainable):
    """Logits (B, C) from inputs, trained by cross-entropy (nats, mean over the batch) on one label per input."""

    batch_size = 32

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        if batch.y is None:
            raise LalibError("a classifier needs labels: give an ImageSet with labels, or a pair (inputs, labels)")
        if batch.y.ndim != 1:
            raise LalibError(f"a classifier needs one label per image, got labels of shape (B, {batch.y.shape[1]})")
        logits = self(batch.x).float()
        hits = (logits.argmax(1) == batch.y).float().mean()
        return {"loss": F.cross_entropy(logits, batch.y), "accuracy": hits.detach()}


class CNNClassifier(Classifier):
    """The small CNN on pixels, images (B, C, H, W) in [0, 1]."""

    def __init__(self, image_shape: tuple[int, int, int], n_classes: int, *, dropout: float = 0.5, seed: int = 0):
        super().__init__()
        self.image_shape, self.n_classes = tuple(image_shape), check_int("n_classes", n_classes, low=1)
        with seeded(seed, "weights"):
            self.network = small_cnn(image_shape, self.n_classes, dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class MLPClassifier(Classifier):
    """Dense layers on codes (B, L); codes are standardised with the mean and spread of what `fit` is given."""

    def __init__(
        self, latent_dim: int, n_classes: int, *, hidden: tuple[int, ...] = (256, 256), dropout: float = 0.0, seed=0
    ):
        super().__init__()
        self.n_classes = check_int("n_classes", n_classes, low=1)
        self.register_buffer("mean", torch.zeros(check_int("latent_dim", latent_dim, low=1)))
        self.register_buffer("scale", torch.ones(latent_dim))
        with seeded(seed, "weights"):
            self.network = mlp(latent_dim, self.n_classes, hidden, dropout)

    def prepare(self, x: Tensor) -> None:
        if x.shape[1:] != self.mean.shape:
            raise ValueError(f"the classifier takes codes of shape (N, {len(self.mean)}), got {tuple(x.shape)}")
        self.mean.copy_(x.mean(0))
        self.scale.copy_(x.std(0, correction=0).clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x - self.mean) / self.scale)


class EncoderClassifier(Classifier):
    """A copy of an autoencoder's trunk with a new MLP head: transfer from the autoencoder [Report].

    mode="frozen": the trunk keeps its weights; "fine-tuned": it learns at `trunk_rate` times the head's learning rate
    [Howard2018], so that few labels do not wash out what it knows; "scratch": the same layers from new weights.
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
        seed: int = 0,
    ):
        super().__init__()
        self.mode = check_choice("mode", mode, ["frozen", "fine-tuned", "scratch"])
        self.trunk_rate = check_number("trunk_rate", trunk_rate, low=0)
        self.image_shape, self.n_classes = autoencoder.image_shape, check_int("n_classes", n_classes, low=1)
        source = autoencoder
        if mode == "scratch":
            source = type(autoencoder)(**{**autoencoder.config, "seed": seed})
        self.trunk = copy.deepcopy(source.trunk).requires_grad_(mode != "frozen")
        with seeded(seed, "head"):  # a stream of its own: "weights" may have drawn the trunk's
            self.network = mlp(autoencoder.head.in_features, self.n_classes, (hidden,), dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.trunk(x))

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        head = {"params": list(self.network.parameters()), "lr": learning_rate}
        if self.mode == "frozen":
            return [head]
        rate = self.trunk_rate if self.mode == "fine-tuned" else 1.0
        return [head, {"params": list(self.trunk.parameters()), "lr": rate * learning_rate}]


def predict_proba(classifier: nn.Module, inputs: ImageSet | Tensor, batch_size: int = 1024) -> Tensor:
    """Class probabilities (N, C), float32 on the CPU, rows sum to 1, of images or codes (N, L)."""
    x = inputs.images if isinstance(inputs, ImageSet) else inputs
    expected = getattr(classifier, "image_shape", None)
    if expected is not None and tuple(x.shape[1:]) != expected:
        raise ValueError(f"the classifier takes images of shape {expected}, got {tuple(x.shape[1:])}")
    return in_blocks(classifier, lambda part: torch.softmax(classifier(part).float(), dim=1), x, batch_size)


def accuracy(classifier: nn.Module, inputs: ImageSet | Tensor, labels: Tensor | None = None) -> float:
    """Share of inputs whose most probable class is their label, in [0, 1]; labels (N,) default to the image set's."""
    labels = inputs.labels if labels is None else labels
    if labels is None:
        raise LalibError("accuracy needs labels: give an ImageSet with labels, or labels=")
    labels = check_labels(labels, len(inputs)).cpu()
    return float((predict_proba(classifier, inputs).argmax(1) == labels).float().mean())
