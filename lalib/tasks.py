"""Task models: what is trained on the labels that were bought, and what a strategy may ask of it.

The task model of a round is the same for every strategy. What only some strategies ask for, an ensemble or a head that
predicts losses, is trained beside it when it is asked for, so that no other strategy is changed by it.

[Yoo2019]  D. Yoo, I. S. Kweon, "Learning loss for active learning", CVPR 2019.
[Lakshminarayanan2017] B. Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep
           ensembles", NeurIPS 2017.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lalib._checks import (
    LalibError,
    check_choice,
    check_codes,
    check_int,
    check_number,
    check_options,
    keyword_defaults,
)
from lalib.augment import RandomViews
from lalib.classifiers import (
    Classifier,
    CNNClassifier,
    MLPClassifier,
    ResNetClassifier,
    last_features,
    mc_dropout_proba,
    predict_proba,
)
from lalib.data import ImageSet
from lalib.losses import pair_loss
from lalib.networks import Batch, Trainable, in_blocks
from lalib.seeds import child_seed, seeded
from lalib.together import fit_together
from lalib.training import OPTIMIZERS, fit_fully

__all__ = ["TASKS", "LossPredictor", "Task", "TaskData", "TaskModel", "evaluate", "train", "train_together"]

TASKS = {"mlp": MLPClassifier, "cnn": CNNClassifier, "resnet18": ResNetClassifier}
MC = ("ensemble", "dropout")
LEFT_TO_THE_LOOP = {"seed", "multi_label"}  # of the classifiers' options
SOURCES = ("probs", "mc_probs", "features", "predicted_losses", "predicted_losses_with_codes")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained in every round and how.

    model: "mlp" on codes, "cnn" or "resnet18" on pixels; options: keywords of that classifier.
    steps: minibatches per training, whatever the number of labels; or epochs, and more_epochs for each round that went
    before. optimizer: "adam", or "sgd" with momentum 0.9. warm_start: go on from the last round's weights instead of
    the initial ones (further members of an ensemble and learning loss start afresh all the same). views: strengths of
    RandomViews by name, with which images are augmented in training, for every strategy alike; None for none.
    mc: where mc_probs come from, an "ensemble" of `passes` members [Lakshminarayanan2017] or `passes` passes with
    "dropout". loss_weight: weight of the pair loss beside the task's in learning loss.
    """

    model: str = "mlp"
    options: Mapping = field(default_factory=dict)
    steps: int = 200
    epochs: int | None = None
    more_epochs: int = 0
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    optimizer: str = "adam"
    warm_start: bool = False
    views: Mapping[str, float] | None = None
    mc: str = "ensemble"
    passes: int = 5
    loss_weight: float = 1.0

    def __post_init__(self):
        check_options(f"task {self.model!r}", TASKS[check_choice("task", self.model, TASKS)].__init__, self.options)
        for name in sorted(LEFT_TO_THE_LOOP & set(self.options)):
            raise ValueError(f"options must leave {name!r} to the loop, which sets it for every run")
        for name, low in (("steps", 1), ("batch_size", 1), ("passes", 2)):
            check_int(name, getattr(self, name), low=low)
        if self.epochs is not None:
            check_int("epochs", self.epochs, low=1)
        elif self.more_epochs:
            raise ValueError(f"more_epochs={self.more_epochs} needs epochs, to which it is added every round")
        check_int("more_epochs", self.more_epochs, low=0)
        for name in ("learning_rate", "weight_decay", "loss_weight"):
            check_number(name, getattr(self, name), low=0)
        if check_choice("mc", self.mc, MC) == "dropout" and not self.all_options().get("dropout"):
            raise ValueError(f"mc='dropout' needs a {self.model!r} with dropout: give it in options, if it takes any")
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        if self.views is not None:
            if not self.on_pixels:
                raise ValueError("views augment images: give them to a task on pixels, 'cnn' or 'resnet18'")
            RandomViews(**self.views)

    def all_options(self) -> dict:
        """The classifier's options with the defaults of those not given."""
        defaults = keyword_defaults(TASKS[self.model].__init__) | dict(self.options)
        return {name: value for name, value in defaults.items() if name not in LEFT_TO_THE_LOOP}

    @property
    def on_pixels(self) -> bool:
        """Whether the task model sees images; else it sees codes."""
        return self.model != "mlp"

    @property
    def together(self) -> bool:
        """Whether several models train faster together than one by one: see lalib.together."""
        return self.model == "mlp"

    def n_epochs(self, labels: int, round: int) -> int:
        """Epochs of a training on so many labels in that round (0 is the first)."""
        if self.epochs is not None:
            return self.epochs + self.more_epochs * round
        return round_up(self.steps, round_up(labels, self.batch_size))


def round_up(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


@dataclass(frozen=True, eq=False)
class TaskData:
    """What every image of the pool looks like to a task: codes (N, L), pixels if the task sees them, the classes.

    codes become float32. Raises ValueError or TypeError for codes that are not finite or not those of the images.
    """

    codes: Tensor
    images: ImageSet
    task: Task

    def __post_init__(self):
        object.__setattr__(self, "codes", check_codes(self.codes).float())
        if len(self.codes) != len(self.images):
            raise ValueError(f"codes must be those of the {len(self.images)} images, got {len(self.codes)} rows")

    @property
    def inputs(self) -> Tensor:
        """Codes (N, L) or images (N, C, H, W)."""
        return self.images.images if self.task.on_pixels else self.codes

    def classifier(self, seed: int) -> Classifier:
        """A new task model with the weights of that seed."""
        size = self.images.image_shape if self.task.on_pixels else self.codes.shape[1]
        classifier = TASKS[self.task.model](
            size, self.images.n_classes, multi_label=self.images.multi_label, seed=seed, **self.task.options
        )
        classifier.views = None if self.task.views is None else RandomViews(**self.task.views)
        return classifier

    def labelled(self, index: Tensor, labels: Tensor) -> ImageSet | tuple[Tensor, Tensor]:
        """What `fit` trains on: the inputs at `index` with these labels."""
        if not self.task.on_pixels:
            return self.codes[index], labels
        return ImageSet(self.images.images[index], labels, self.images.class_names, "labelled")


def train(
    data: TaskData,
    index: Tensor,
    labels: Tensor,
    *,
    seed: int,
    round: int = 0,
    start: Classifier | None = None,
    device: str = "auto",
) -> "TaskModel":
    """The task model of a round, trained on the images at `index` (M,) with their labels.

    start: the classifier of the last round, which is trained on if the task says warm_start. The seed draws weights,
    batches and noise, alike for every strategy.
    """
    bought = [(index, labels)]
    return train_together(data, bought, seeds=[seed], round=round, starts=[start], device=device)[0]


def train_together(
    data: TaskData,
    bought: Sequence[tuple[Tensor, Tensor]],
    *,
    seeds: Sequence[int],
    round: int = 0,
    starts: Sequence[Classifier | None],
    device: str = "auto",
) -> list["TaskModel"]:
    """`train` for several runs of equally many labels at once: of each (index (M,), labels), seed and start.

    What comes out is that of `train` up to rounding, which depends on how many train together.
    """
    warm = data.task.warm_start
    classifiers = [
        copy.deepcopy(start) if warm and start is not None else data.classifier(seed)
        for start, seed in zip(starts, seeds, strict=True)
    ]
    _fit(classifiers, data, bought, seeds, round, device)
    return [
        TaskModel(data, *part, seed, round, device, classifier)
        for part, seed, classifier in zip(bought, seeds, classifiers, strict=True)
    ]


def _fit(models: Sequence[Trainable], data: TaskData, bought: Sequence[tuple], seeds, round: int, device: str) -> None:
    """Train each model on its (index, labels) with its seed."""
    task, labels = data.task, len(bought[0][0])
    settings = {name: getattr(task, name) for name in ("batch_size", "learning_rate", "weight_decay", "optimizer")}
    settings |= {"epochs": task.n_epochs(labels, round), "device": device}
    parts = [data.labelled(*part) for part in bought]
    if len(models) > 1 and task.together:
        return fit_together(models, parts, seeds=seeds, **settings)
    for model, part, seed in zip(models, parts, seeds, strict=True):
        fit_fully(model, part, seed=seed, **settings)


class TaskModel:
    """A trained classifier, and what a strategy may ask of it about every image of the pool."""

    def __init__(self, data, index, labels, seed, round, device, classifier):
        self.data, self.index, self.labels = data, index, labels
        self.seed, self.round, self.device = seed, round, device
        self.classifier = classifier

    def _fit(self, models: Sequence[Trainable], seeds: Sequence[int]) -> None:
        """Train further models on the labels of this one."""
        _fit(models, self.data, [(self.index, self.labels)] * len(models), seeds, self.round, self.device)

    def sources(self) -> dict[str, Callable[[], Tensor]]:
        """What PoolView and select take beside the codes, computed when a strategy asks."""
        return {name: getattr(self, name) for name in SOURCES}

    def probs(self) -> Tensor:
        """Class probabilities (N, C)."""
        return predict_proba(self.classifier, self.data.inputs)

    def features(self) -> Tensor:
        """The last hidden layer (N, F)."""
        return last_features(self.classifier, self.data.inputs)

    def mc_probs(self) -> Tensor:
        """Class probabilities (T, N, C): of the task model and T - 1 like it from other seeds, or of dropout."""
        task = self.data.task
        if task.mc == "dropout":
            return mc_dropout_proba(self.classifier, self.data.inputs, task.passes, seed=self.seed)
        seeds = [child_seed(self.seed, "member", m) for m in range(1, task.passes)]
        members = [self.data.classifier(seed) for seed in seeds]
        self._fit(members, seeds)
        return torch.stack([predict_proba(member, self.data.inputs) for member in (self.classifier, *members)])

    def predicted_losses(self) -> Tensor:
        """What a head trained together with a copy of the task model expects of every image's loss, (N,) [Yoo2019]."""
        return self._losses(None)

    def predicted_losses_with_codes(self) -> Tensor:
        """The same with the codes beside the hidden blocks, as task-agnostic features."""
        return self._losses(self.data.codes)

    def _losses(self, codes: Tensor | None) -> Tensor:
        task = self.data.task
        batches = round_up(len(self.index), task.batch_size) * task.n_epochs(len(self.index), self.round)
        predictor = LossPredictor(
            self.data.classifier(self.seed),
            self.data.inputs[:1],
            codes=None if codes is None else codes[self.index],
            weight=task.loss_weight,
            detach_after=int(DETACH * batches),
            seed=self.seed,
        )
        self._fit([predictor], [self.seed])
        return predictor.predict(self.data.inputs, codes)


DETACH = 0.6  # of the training, after which the head no longer moves the features [Yoo2019]


class LossPredictor(Trainable):
    """A classifier with a head that learns which of two images has the larger loss [Yoo2019].

    The head maps every hidden block (maps are averaged over their pixels) to `width` numbers, concatenates them, and
    the codes of the images if given, and ends in one number. Trained by the task's loss plus `weight` times the pair
    loss; after `detach_after` batches the pair loss no longer reaches the classifier.
    example (1, ...): an input, for the sizes. codes (M, L): of the training images, in their order.
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
        self.classifier, self.weight, self.detach_after = classifier, weight, detach_after
        self.image_shape = getattr(classifier, "image_shape", None)
        self.n_classes, self.multi_label = classifier.n_classes, classifier.multi_label
        sizes = in_blocks(
            classifier, lambda x: torch.tensor([[b.shape[1] for b in classifier.activations(x)[0]]]), example
        )
        extra = 0 if codes is None else codes.shape[1]
        with seeded(seed, "loss head"):
            self.blocks = nn.ModuleList(nn.Linear(int(size), width) for size in sizes[0])
            self.last = nn.Linear(width * len(self.blocks) + extra, 1)
        self.register_buffer("codes", codes)
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        self.classifier.prepare(x, y)

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        """The classifier's."""
        return self.classifier.batches(n, size, generator=generator)

    def head(self, blocks: list[Tensor], codes: Tensor | None) -> Tensor:
        """Predicted losses (B,) of the hidden blocks of B inputs and their codes."""
        flat = [block.mean(dim=(2, 3)) if block.ndim == 4 else block for block in blocks]
        parts = [torch.relu(layer(block)) for layer, block in zip(self.blocks, flat, strict=True)]
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
        """Predicted losses (N,) of inputs (N, ...) with their codes (N, L), float32 on the CPU."""
        if (codes is None) != (self.codes is None):
            raise LalibError("give codes to predict if, and only if, the predictor was trained with codes")
        parts = [None] * round_up(len(inputs), block) if codes is None else codes.split(block)
        return torch.cat(
            [
                in_blocks(self, lambda x, z=z: self.head(_blocks(self.classifier, x), z), x, block)
                for x, z in zip(inputs.split(block), parts, strict=True)
            ]
        )


def _blocks(classifier: Classifier, x: Tensor) -> list[Tensor]:
    return classifier.activations(x)[0]


def evaluate(model: TaskModel, inputs: Tensor, labels: Tensor) -> dict:
    """What a task model does on held-out inputs (codes or images): accuracy, and confusion (C, C), rows true classes.

    With labels (N, C): accuracy over all of them, and auc, the mean over classes of the area under the ROC curve
    (classes that all or none of the images have are left out).
    """
    probs = predict_proba(model.classifier, inputs)
    if not model.classifier.multi_label:
        guess, size = probs.argmax(1), probs.shape[1]
        confusion = torch.bincount(labels * size + guess, minlength=size**2).view(size, size)
        return {"accuracy": float((guess == labels).float().mean()), "confusion": confusion.tolist()}
    from sklearn.metrics import roc_auc_score

    mixed = [c for c in range(labels.shape[1]) if 0 < labels[:, c].sum() < len(labels)]
    if not mixed:
        raise LalibError("auc needs a class that some but not all of the held-out images have, got none")
    auc = roc_auc_score(labels[:, mixed].numpy(), probs[:, mixed].numpy(), average="macro")
    return {"accuracy": float(((probs > 0.5) == labels.bool()).float().mean()), "auc": float(auc)}
