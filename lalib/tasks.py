"""Task models: what is trained on the labels that were bought, and what a strategy may ask of it.

The task model of a round is the same for every strategy. What only some strategies ask for, an ensemble or a head that
predicts losses, is trained beside it when it is asked for, so that no other strategy is changed by it.

[Yoo2019]  D. Yoo, I. S. Kweon, "Learning loss for active learning", CVPR 2019.
[Lakshminarayanan2017] B. Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep
           ensembles", NeurIPS 2017.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lalib._checks import (
    LalibError,
    check_choice,
    check_codes,
    check_int,
    check_number,
    keyword_defaults,
)
from lalib.adversarial import M2VAAL, TAVAAL, VAAL
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
from lalib.loss_prediction import DETACH, LossPredictor
from lalib.networks import Trainable, in_blocks
from lalib.seeds import child_seed
from lalib.semisupervised import M1M2, M2, FixMatch, PartlyLabelled, partly_labelled
from lalib.together import fit_together
from lalib.training import OPTIMIZERS, SCHEDULES, fit_fully

__all__ = ["TASKS", "Task", "TaskData", "TaskModel", "evaluate", "train", "train_together"]

TASKS = {
    "mlp": MLPClassifier,
    "cnn": CNNClassifier,
    "resnet18": ResNetClassifier,
    "m2": M2,
    "m1m2": M1M2,
    "fixmatch": FixMatch,
    "m2-vaal": M2VAAL,
}
ON_CODES = ("mlp", "m1m2")
MC = ("ensemble", "dropout")
LEFT_TO_THE_LOOP = {"seed", "multi_label", "classifier"}  # of the classifiers' options
SOURCES = (
    "probs",
    "mc_probs",
    "features",
    "latents",
    "predicted_losses",
    "predicted_losses_with_codes",
    "vaal",
    "ta_vaal",
    "m2_vaal",
)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained in every round and how.

    model: "mlp" on codes, "cnn" or "resnet18" on pixels learn from labelled images; "m1m2" on codes, "m2", "fixmatch"
    and "m2-vaal" on pixels from the unlabelled ones of the pool as well. options: keywords of that classifier.
    steps: minibatches per training, whatever the number of labels; or epochs, and more_epochs for each round that went
    before. batch_size, learning_rate: None for the classifier's own. optimizer, schedule: as in
    fit. warm_start: go on from the last round's weights instead of the initial ones (further members of an ensemble,
    learning loss and the VAEs of VAAL start afresh all the same). views: strengths of
    RandomViews by name, with which images are augmented in training, for every strategy alike; None for none.
    mc: where mc_probs come from, an "ensemble" of `passes` members [Lakshminarayanan2017] or `passes` passes with
    "dropout". loss_weight: weight of the pair loss beside the task's in learning loss. vae_epochs, adversarial: epochs
    of the VAE that "vaal" and "ta-vaal" train on all images of the pool, and the weight of its adversarial term.
    """

    model: str = "mlp"
    options: Mapping = field(default_factory=dict)
    steps: int = 200
    epochs: int | None = None
    more_epochs: int = 0
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.0
    optimizer: str = "adam"
    schedule: str = "constant"
    warm_start: bool = False
    views: Mapping[str, float] | None = None
    mc: str = "ensemble"
    passes: int = 5
    loss_weight: float = 1.0
    vae_epochs: int = 20
    adversarial: float = 1.0

    def __post_init__(self):
        check_choice("task", self.model, TASKS)
        for name in sorted(LEFT_TO_THE_LOOP & set(self.options)):
            raise ValueError(f"options must leave {name!r} to the loop, which sets it for every run")
        _check_known(f"task {self.model!r}", self.options, self._defaults())
        for name, low in (("steps", 1), ("batch_size", 1), ("passes", 2), ("vae_epochs", 1)):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), low=low)
        if self.epochs is not None:
            check_int("epochs", self.epochs, low=1)
        elif self.more_epochs:
            raise ValueError(f"more_epochs={self.more_epochs} needs epochs, to which it is added every round")
        check_int("more_epochs", self.more_epochs, low=0)
        for name in ("learning_rate", "weight_decay", "loss_weight", "adversarial"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low=0)
        if check_choice("mc", self.mc, MC) == "dropout" and not self.all_options().get("dropout"):
            raise ValueError(f"mc='dropout' needs a {self.model!r} with dropout: give it in options, if it takes any")
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        if self.views is not None:
            if not self.on_pixels:
                raise ValueError("views augment images: give them to a task on pixels, such as 'cnn' or 'resnet18'")
            RandomViews(**self.views)

    def all_options(self) -> dict:
        """The classifier's options with the defaults of those not given."""
        return self._defaults() | dict(self.options)

    def _defaults(self) -> dict:
        """Of the classifier's class and those it passes further keywords on to."""
        classes = reversed(TASKS[self.model].__mro__)
        every = {name: value for part in classes for name, value in keyword_defaults(part.__init__).items()}
        return {name: value for name, value in every.items() if name not in LEFT_TO_THE_LOOP}

    @property
    def on_pixels(self) -> bool:
        """Whether the task model sees images; else it sees codes."""
        return self.model not in ON_CODES

    @property
    def partly_labelled(self) -> bool:
        """Whether the task model learns from the images of the pool without a label, too."""
        return issubclass(TASKS[self.model], PartlyLabelled)

    @property
    def together(self) -> bool:
        """Whether several models train faster together than one by one: see lalib.together."""
        return self.model == "mlp"

    def check_serves(self, strategy: str) -> None:
        """LalibError if the strategy of that name needs another task."""
        needs = {
            "learning-loss": ("a task that learns from labelled images alone", not self.partly_labelled),
            "ta-vaal": ("the task 'cnn' or 'resnet18'", self.on_pixels and not self.partly_labelled),
            "m2-vaal": ("the task 'm2-vaal', whose model it asks", self.model == "m2-vaal"),
        }
        need, met = needs.get(strategy, ("", True))
        if not met:
            raise LalibError(f"{strategy} needs {need}, got {self.model!r}")

    def n_batches(self, points: int) -> int:
        """Minibatches of an epoch on so many inputs."""
        return round_up(points, TASKS[self.model].batch_size if self.batch_size is None else self.batch_size)

    def n_epochs(self, points: int, round: int) -> int:
        """Epochs of a training on so many inputs in that round (0 is the first)."""
        if self.epochs is not None:
            return self.epochs + self.more_epochs * round
        return round_up(self.steps, self.n_batches(points))


def _check_known(what: str, options: Mapping, known: Mapping) -> None:
    for name in options:
        if name not in known:
            allowed = ", ".join(map(repr, known)) or "none"
            raise ValueError(f"{what} has no option {name!r}; its options are: {allowed}")


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
        if self.task.views is not None:
            classifier.views = RandomViews(**self.task.views)
        return classifier

    def partial(self, index: Tensor, labels: Tensor) -> Tensor:
        """Labels (N,) of all images of the pool, UNKNOWN but at `index`."""
        return partly_labelled(len(self.images), index, labels)

    def labelled(self, index: Tensor, labels: Tensor) -> ImageSet | tuple[ImageSet | Tensor, Tensor]:
        """What `fit` trains on: inputs at `index` with these labels, and the others without if the task takes them."""
        if self.task.partly_labelled:
            return self.images if self.task.on_pixels else self.codes, self.partial(index, labels)
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
    task, points = data.task, len(data.images) if data.task.partly_labelled else len(bought[0][0])
    same = ("batch_size", "learning_rate", "weight_decay", "optimizer", "schedule")
    settings = {name: getattr(task, name) for name in same}
    settings |= {"epochs": task.n_epochs(points, round), "device": device}
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

    def latents(self) -> Tensor:
        """The latent codes of a model that has some, else the last hidden layer (N, K)."""
        return in_blocks(self.classifier, self.classifier.latents, self.data.inputs)

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
        self.data.task.check_serves("learning-loss")
        task, points = self.data.task, len(self.index)
        steps = task.n_batches(points) * task.n_epochs(points, self.round)
        predictor = self._predictor(None if codes is None else codes[self.index], steps)
        self._fit([predictor], [self.seed])
        return predictor.predict(self.data.inputs, codes)

    def _predictor(self, codes: Tensor | None, steps: int) -> LossPredictor:
        """A new head for expected losses on a new task model, to train for so many steps; codes: of the labelled."""
        return LossPredictor(
            self.data.classifier(self.seed),
            self.data.inputs[:1],
            codes=codes,
            weight=self.data.task.loss_weight,
            detach_after=int(DETACH * steps),
            seed=self.seed,
        )

    def vaal(self) -> Tensor:
        """Logits (N,) of "has a label" by the discriminator of a VAAL trained on all images of the pool."""
        return self._told(VAAL(self.data.images.image_shape, adversarial=self.data.task.adversarial, seed=self.seed))

    def ta_vaal(self) -> Tensor:
        """The same of a TA-VAAL, in which a copy of the task model is trained as well, to rank losses."""
        self.data.task.check_serves("ta-vaal")
        if self.data.images.multi_label:
            raise LalibError("ta-vaal needs one label per image; these images may have several")
        unlabelled = len(self.data.images) - len(self.index)
        steps = self.data.task.vae_epochs * round_up(unlabelled, TAVAAL.batch_size)
        predictor = self._predictor(None, steps)
        return self._told(TAVAAL(predictor, adversarial=self.data.task.adversarial, seed=self.seed))

    def _told(self, model: VAAL) -> Tensor:
        known = self.data.partial(self.index, self.labels if self.labels.ndim == 1 else torch.zeros_like(self.index))
        settings = {"epochs": self.data.task.vae_epochs, "seed": self.seed, "device": self.device}
        fit_fully(model, (self.data.images, known), **settings)
        return in_blocks(model, model.labelled_logits, self.data.images.images)

    def m2_vaal(self) -> Tensor:
        """The same of the task model's own discriminator."""
        self.data.task.check_serves("m2-vaal")
        return in_blocks(self.classifier, self.classifier.labelled_logits, self.data.inputs)


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
