"""What a task trains in a round, and what a strategy may ask of it.

The task model of a round is the same for every strategy. What only some strategies ask for, an ensemble, a head that
predicts losses or a discriminator, is trained beside it when asked for, so that no other strategy is changed by it.

[Yoo2019]  D. Yoo, I. S. Kweon, "Learning loss for active learning", CVPR 2019.
"""

import copy
import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lalib.codes.coding import encode
from lalib.data.checks import LalibError
from lalib.data.seeds import child_seed
from lalib.experiments.tasks import TaskData
from lalib.models.adversarial import TAVAAL, VAAL
from lalib.models.classifiers import Classifier, last_features, mc_dropout_proba, predict_proba
from lalib.models.loss_prediction import DETACH, LossPredictor
from lalib.models.networks import Trainable, in_blocks
from lalib.strategies.uncertainty import mutual_information
from lalib.training.fitting import fit_fully
from lalib.training.generation import Generated
from lalib.training.together import fit_together

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


def train(
    data: TaskData,
    index: Tensor,
    labels: Tensor,
    *,
    seed: int,
    round: int = 0,
    last: "TaskModel | None" = None,
    device: str = "auto",
) -> "TaskModel":
    """The task model of a round, trained on the images at `index` (M,) with their labels.

    last: that of the last round, whose classifier is trained on if the task says warm_start, and whose generator is if
    the task wants generated images. The seed draws weights, batches and noise, alike for every strategy.
    """
    bought = [(index, labels)]
    return train_together(data, bought, seeds=[seed], round=round, last=[last], device=device)[0]


def train_together(
    data: TaskData,
    bought: Sequence[tuple[Tensor, Tensor]],
    *,
    seeds: Sequence[int],
    round: int = 0,
    last: Sequence["TaskModel | None"],
    device: str = "auto",
) -> list["TaskModel"]:
    """`train` for several runs of equally many labels at once: of each (index (M,), labels), seed and last.

    What comes out is that of `train` up to rounding, which depends on how many train together.
    """
    warm = data.task.warm_start
    classifiers = [
        copy.deepcopy(before.classifier) if warm and before is not None else data.classifier(seed)
        for before, seed in zip(last, seeds, strict=True)
    ]
    examples = [
        (*part, _generated(data, *part, seed, round, before, device))
        for part, seed, before in zip(bought, seeds, last, strict=True)
    ]
    _fit(classifiers, data, examples, seeds, round, device)
    return [
        TaskModel(data, *part, seed, round, device, classifier)
        for part, seed, classifier in zip(examples, seeds, classifiers, strict=True)
    ]


def _generated(data, index, labels, seed, round, before, device) -> Generated | None:
    """The generated images of a round, if the task wants any; before: the task model of the last round or None."""
    if data.task.generated is None:
        return None
    settings = {"seed": seed, "round": round, "device": device}
    if before is not None:
        settings["last"] = before.generated.model
        if data.task.generated.share < 1:
            settings["information"] = mutual_information(before.passes(data.inputs[index]))
    return data.task.generated.generate(data.images, index, labels, **settings)


def _fit(models: Sequence[Trainable], data: TaskData, examples: Sequence[tuple], seeds, round, device) -> None:
    """Train each model on its (index, labels, generated images or None) with its seed."""
    task, points = data.task, data.epoch_size(len(_origin(*examples[0])))
    same = ("batch_size", "learning_rate", "weight_decay", "optimizer", "schedule")
    settings = {name: getattr(task, name) for name in same}
    settings |= {"epochs": task.n_epochs(points, round), "device": device}
    parts = [data.labelled(*part) for part in examples]
    if len(models) > 1 and task.together:
        fit_together(models, parts, seeds=seeds, **settings)
    else:
        for model, part, seed in zip(models, parts, seeds, strict=True):
            fit_fully(model, part, seed=seed, **settings)


def _origin(index: Tensor, labels: Tensor, generated: Generated | None) -> Tensor:
    """The images of the pool (K,) that training examples are or were generated from."""
    return index if generated is None else torch.cat([index, generated.index])


class TaskModel:
    """A trained classifier, and what a strategy may ask of it about every image of the pool."""

    def __init__(self, data, index, labels, generated, seed, round, device, classifier):
        self.data, self.index, self.labels, self.generated = data, index, labels, generated
        self.seed, self.round, self.device = seed, round, device
        self.classifier = classifier

    @property
    def _examples(self) -> tuple[Tensor, Tensor, Generated | None]:
        return self.index, self.labels, self.generated

    def _fit(self, models: Sequence[Trainable], seeds: Sequence[int]) -> None:
        """Train further models on the examples of this one."""
        _fit(models, self.data, [self._examples] * len(models), seeds, self.round, self.device)

    def sources(self) -> dict[str, Callable[[], Tensor]]:
        """What PoolView and select take beside the codes, computed when a strategy asks."""
        return {name: getattr(self, name) for name in SOURCES}

    def codes(self) -> Tensor:
        """Codes (N, L): those of the data, or those of this round if the task has an encoder for it."""
        return self.data.codes if self.data.task.encoder is None else self._round_codes

    @functools.cached_property
    def _round_codes(self) -> Tensor:
        """Codes (N, L) of an encoder trained for this round; two images are at a root mean square distance of 1."""
        encoder, images = self.data.encoder(self.seed), self.data.images
        settings = self.data.task.encoder.training() | {"seed": self.seed, "device": self.device}
        fit_fully(encoder, (images, self.data.partial(self.index, self.labels)), **settings)
        codes = encode(encoder, images)
        return codes / (2 * codes.var(dim=0, correction=0).sum()).sqrt()

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
        return self.passes(self.data.inputs)

    def passes(self, inputs: Tensor) -> Tensor:
        """The same (T, n, C) of any inputs (n, ...)."""
        task = self.data.task
        if task.mc == "dropout":
            return mc_dropout_proba(self.classifier, inputs, task.passes, seed=self.seed)
        return torch.stack([predict_proba(member, inputs) for member in (self.classifier, *self._members)])

    @functools.cached_property
    def _members(self) -> list[Classifier]:
        """The other members of the ensemble."""
        seeds = [child_seed(self.seed, "member", m) for m in range(1, self.data.task.passes)]
        members = [self.data.classifier(seed) for seed in seeds]
        self._fit(members, seeds)
        return members

    def predicted_losses(self) -> Tensor:
        """What a head trained together with a copy of the task model expects of every image's loss, (N,) [Yoo2019]."""
        return self._losses(None)

    def predicted_losses_with_codes(self) -> Tensor:
        """The same with the codes beside the hidden blocks, as task-agnostic features."""
        return self._losses(self.codes())

    def _losses(self, codes: Tensor | None) -> Tensor:
        self.data.task.check_serves("learning-loss")
        task, origin = self.data.task, _origin(*self._examples)
        batches = task.n_batches(len(origin)) * task.n_epochs(len(origin), self.round)
        predictor = self._predictor(batches, None if codes is None else codes[origin])
        self._fit([predictor], [self.seed])
        return predictor.predict(self.data.inputs, codes)

    def _predictor(self, batches: int, codes: Tensor | None = None) -> LossPredictor:
        """A new head for expected losses on a new task model; batches: of its training; codes: of its examples."""
        return LossPredictor(
            self.data.classifier(self.seed),
            self.data.inputs[:1],
            codes=codes,
            weight=self.data.task.loss_weight,
            detach_after=int(DETACH * batches),
            seed=self.seed,
        )

    def vaal(self) -> Tensor:
        """Logits (N,) of "has a label" by the discriminator of a VAAL trained on all images of the pool."""
        return self._told(VAAL(self.data.images.image_shape, adversarial=self.data.task.adversarial, seed=self.seed))

    def ta_vaal(self) -> Tensor:
        """The same of a TA-VAAL, in which a copy of the task model is trained as well, to rank losses."""
        self.data.task.check_serves("ta-vaal", self.data.multi_label)
        unlabelled, task = len(self.data.images) - len(self.index), self.data.task
        predictor = self._predictor(task.vae_epochs * math.ceil(unlabelled / TAVAAL.batch_size))
        return self._told(TAVAAL(predictor, adversarial=task.adversarial, seed=self.seed))

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
