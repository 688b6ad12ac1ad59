"""What a task trains in a round, and what a strategy may ask of it.

The task model of a round is the same for every strategy. What only some of them ask for is trained beside it.

[Yoo2019]  D. Yoo, I. S. Kweon, "Learning loss for active learning", CVPR 2019.
[Gupte2024] S. R. Gupte et al., "Revisiting active learning in the era of vision foundation models", TMLR 2024.
"""

import copy
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor

from lalib.codes.coding import encode
from lalib.data.checks import LalibError
from lalib.data.door import as_tensor, check_codes, check_index, check_labels, renumbered
from lalib.data.imageset import ImageSet
from lalib.data.seeds import child_seed, generator
from lalib.experiments.tasks import TaskData
from lalib.models.adversarial import TAVAAL, VAAL
from lalib.models.classifiers import DETACH, LossPredictor, mc_dropout_proba, predict_proba
from lalib.models.networks import Trainable, in_blocks
from lalib.models.semisupervised import partly_labelled
from lalib.strategies.sources import ADVERSARIAL, LOOKS, LOSS_WEIGHT, PASSES, SOURCES, VAE_EPOCHS, Source
from lalib.strategies.uncertainty import mutual_information
from lalib.training.fitting import fit_fully
from lalib.training.generation import Generated, GenerativeAugmentation
from lalib.training.together import fit_together

TRAINING = ("batch_size", "learning_rate", "weight_decay", "optimizer", "schedule")  # settings of a task for fit
DROPPED = 0.75  # of the numbers of a code, the rate of [Gupte2024]


def train(
    data: TaskData, index: Tensor, labels: Tensor, *, seed: int, round: int = 0, last=None, device: str = "auto"
) -> "TaskModel":
    """The task model of a round, trained on the images at `index` (M,) with their labels.

    last: the TaskModel of the last round, if any: its classifier is trained on if the task says warm_start, its
    generator if the task wants generated images. The seed draws weights, batches and noise, alike for every strategy.
    """
    index = check_index(index, len(data.codes), distinct=True)
    bought = [(index, check_labels(labels, len(index), data.images.n_classes, several=data.multi_label))]
    return train_together(data, bought, seeds=[seed], round=round, last=[last], device=device)[0]


def train_together(data: TaskData, bought, *, seeds, last, round: int = 0, device: str = "auto") -> list["TaskModel"]:
    """`train` for several runs of equally many labels at once: of each (index (M,), labels), seed and last.

    What comes out is that of `train` up to rounding, which depends on how many train together.
    """
    runs = zip(bought, seeds, last, strict=True)
    models = [TaskModel(data, *part, seed, round, device, before) for part, seed, before in runs]
    _fit([model.classifier for model in models], models, seeds)
    return models


def _fit(networks: Sequence[Trainable], models: Sequence["TaskModel"], seeds: Sequence[int]) -> None:
    """Train each network with its seed as a task model is trained, on the examples of that one."""
    first, data, task = models[0], models[0].data, models[0].data.task
    points = (len(data.images) - len(first.origin)) * task.partly_labelled or len(first.origin)  # of an epoch
    settings = {"epochs": task.n_epochs(points, first.round), "device": first.device}
    settings |= {name: getattr(task, name) for name in TRAINING}
    parts = [data.labelled(model.index, model.labels, model.generated) for model in models]
    if len(networks) > 1 and task.together:
        fit_together(networks, parts, seeds=seeds, **settings)
    else:
        for network, part, seed in zip(networks, parts, seeds, strict=True):
            fit_fully(network, part, seed=seed, **settings)


@dataclass(eq=False, repr=False)
class TaskModel:
    """A classifier of the data's images, trained on those at `index` (M,), and what a strategy may ask of it.

    last: the one of the round before, or None. generated: the images that were drawn to train on, too, or None.
    """

    data: TaskData
    index: Tensor
    labels: Tensor
    seed: int
    round: int
    device: str
    last: InitVar["TaskModel | None"]

    def __post_init__(self, last):
        task, self._members = self.data.task, []
        self._codes = self.data.codes if task.encoder is None else None
        warm = task.warm_start and last is not None
        self.classifier = copy.deepcopy(last.classifier) if warm else self.data.classifier(self.seed)
        self.generated = None if task.generated is None else self._generate(task.generated, last)

    def _generate(self, wish: GenerativeAugmentation, last: "TaskModel | None") -> Generated:
        settings = {"seed": self.seed, "round": self.round, "device": self.device}
        if last is not None:
            settings["last"] = last.generated.model
            if wish.share < 1:
                settings["information"] = mutual_information(last.mc_probs(wish.passes, self.data.inputs[self.index]))
        return wish.generate(self.data.images, self.index, self.labels, **settings)

    @property
    def origin(self) -> Tensor:
        """The images of the pool (K,) that its training examples are or were generated from."""
        return self.index if self.generated is None else torch.cat([self.index, self.generated.index])

    def sources(self, own: Iterable[Source] = ()) -> dict[str, Callable[..., Tensor]]:
        """What PoolView and select take beside the codes, computed when a strategy asks; own: sources of a strategy."""
        given = [source for source in (*SOURCES.values(), *own) if source.model]
        return {source.name: functools.partial(self._give, source) for source in given}

    def _give(self, source: Source, **settings) -> Tensor:
        source.check(self.data.task, self.data.multi_label, source.name)
        settings = source.settled(settings)
        return getattr(self, source.name)(**settings) if source.model is True else source.model(self, **settings)

    def codes(self) -> Tensor:
        """Codes (N, L): those of the data, or of the task's encoder trained for this round, once, when first asked for.

        Two images are then at a root mean square distance of 1.
        """
        if self._codes is None:
            wish, images = self.data.task.encoder, self.data.images
            encoder = wish.build(images.image_shape, images.n_classes, self.seed)
            settings = {name: getattr(wish, name) for name in ("epochs", "batch_size", "learning_rate", "weight_decay")}
            known = partly_labelled(len(images), self.index, self.labels)
            fit_fully(encoder, (images, known), seed=self.seed, device=self.device, **settings)
            codes = encode(encoder, images)
            self._codes = codes / (2 * codes.var(dim=0, correction=0).sum()).sqrt()
        return self._codes

    def probs(self) -> Tensor:
        """Class probabilities (N, C)."""
        return predict_proba(self.classifier, self.data.inputs)

    def features(self) -> Tensor:
        """The last hidden layer (N, F)."""
        return in_blocks(self.classifier, self.classifier.features, self.data.inputs)

    def latents(self) -> Tensor:
        """The latent codes of a model that has some, else the last hidden layer (N, K)."""
        return in_blocks(self.classifier, self.classifier.latents, self.data.inputs)

    def mc_probs(self, passes: int = PASSES, inputs: Tensor | None = None) -> Tensor:
        """Class probabilities (T, n, C) of inputs (n, ...), default the pool's: of T models or passes of dropout.

        The models are the task model and T - 1 like it from other seeds.
        """
        inputs = self.data.inputs if inputs is None else inputs
        if self.data.task.mc == "dropout":
            return mc_dropout_proba(self.classifier, inputs, passes, seed=self.seed)
        seeds = [child_seed(self.seed, "member", m) for m in range(len(self._members) + 1, passes)]
        if members := [self.data.classifier(seed) for seed in seeds]:
            _fit(members, [self] * len(members), seeds)
            self._members += members
        return torch.stack([predict_proba(each, inputs) for each in (self.classifier, *self._members[: passes - 1])])

    def dropped_probs(self, passes: int = LOOKS) -> Tensor:
        """Class probabilities (T, N, C) with dropout at the rate DROPPED on the codes, T times [Gupte2024]."""
        draws, codes = generator(self.seed, "dropped"), self.data.inputs / (1 - DROPPED)
        looks = (codes * (torch.rand(codes.shape, generator=draws) >= DROPPED) for _ in range(passes))
        return torch.stack([predict_proba(self.classifier, look) for look in looks])

    def predicted_losses(self, loss_weight: float = LOSS_WEIGHT, codes: Tensor | None = None) -> Tensor:
        """What a head trained together with a copy of the task model expects of every image's loss, (N,) [Yoo2019].

        loss_weight: of the head's pair loss beside the task's. codes (N, L): what the head sees beside hidden blocks.
        """
        task, n = self.data.task, len(self.origin)
        batches = task.n_batches(n) * task.n_epochs(n, self.round)
        predictor = self._predictor(batches, loss_weight, None if codes is None else codes[self.origin])
        _fit([predictor], [self], [self.seed])
        return predictor.predict(self.data.inputs, codes)

    def predicted_losses_with_codes(self, loss_weight: float = LOSS_WEIGHT) -> Tensor:
        """The same with the codes, as task-agnostic features."""
        return self.predicted_losses(loss_weight, self.codes())

    def _predictor(self, batches: int, weight: float, codes: Tensor | None = None) -> LossPredictor:
        """A new head for expected losses on a new task model; batches: of its training; codes: of its examples."""
        settings = {"codes": codes, "weight": weight, "detach_after": int(DETACH * batches), "seed": self.seed}
        return LossPredictor(self.data.classifier(self.seed), self.data.inputs[:1], **settings)

    def vaal(self, vae_epochs: int = VAE_EPOCHS, adversarial: float = ADVERSARIAL) -> Tensor:
        """Logits (N,) of "has a label" by the discriminator of a VAAL trained on all images of the pool.

        vae_epochs: of the VAE. adversarial: the weight of the adversarial term in its loss.
        """
        return self._told(VAAL(self.data.images.image_shape, adversarial=adversarial, seed=self.seed), vae_epochs)

    def ta_vaal(self, vae_epochs: int = VAE_EPOCHS, adversarial=ADVERSARIAL, loss_weight=LOSS_WEIGHT) -> Tensor:
        """The same of a TA-VAAL, in which a copy of the task model is trained as well, to rank losses."""
        unlabelled = len(self.data.images) - len(self.index)
        predictor = self._predictor(vae_epochs * math.ceil(unlabelled / TAVAAL.batch_size), loss_weight)
        return self._told(TAVAAL(predictor, adversarial=adversarial, seed=self.seed), vae_epochs)

    def _told(self, model: VAAL, epochs: int) -> Tensor:
        images, labels = self.data.images, self.labels if self.labels.ndim == 1 else torch.zeros_like(self.index)
        known = partly_labelled(len(images), self.index, labels)
        fit_fully(model, (images, known), epochs=epochs, seed=self.seed, device=self.device)
        return in_blocks(model, model.labelled_logits, images.images)

    def m2_vaal(self) -> Tensor:
        """The same of the task model's own discriminator."""
        return in_blocks(self.classifier, self.classifier.labelled_logits, self.data.inputs)


def evaluate(model: TaskModel, inputs: Tensor | ImageSet, labels: Tensor | ImageSet | None = None) -> dict:
    """What a task model does on held-out inputs (codes or images): accuracy, and confusion (C, C), rows true classes.

    labels: (N,) or (N, C) in the classes of the pool, or an ImageSet, whose classes are matched by name; None for
    those of the inputs. With labels (N, C): accuracy over all of them, and auc, the mean over classes of the area under
    the ROC curve (classes that all or none of the images have are left out).
    """
    names, labels = model.data.images.class_names, inputs if labels is None else labels
    if isinstance(labels, ImageSet) and labels.labels is not None:
        labels = renumbered(labels.labels, labels.class_names, names)
    elif isinstance(labels, ImageSet) or labels is inputs:
        raise LalibError("evaluate needs labels: give an ImageSet with labels, or labels=")
    inputs = inputs.images if isinstance(inputs, ImageSet) else inputs
    inputs = as_tensor(inputs, "inputs") if model.data.task.on_pixels else check_codes(inputs, "inputs").float()
    if inputs.shape[1:] != (shape := model.data.inputs.shape[1:]):
        raise ValueError(f"inputs must have shape {('n', *shape)}, as those of the pool, got {tuple(inputs.shape)}")
    labels = check_labels(labels, len(inputs), len(names), several=model.classifier.multi_label).cpu()
    probs = predict_proba(model.classifier, inputs)
    if not model.classifier.multi_label:
        guess, size = probs.argmax(1), probs.shape[1]
        confusion = torch.bincount(labels * size + guess, minlength=size**2).view(size, size)
        return {"accuracy": float((guess == labels).float().mean()), "confusion": confusion.tolist()}
    from sklearn.metrics import roc_auc_score

    if not (mixed := [c for c in range(labels.shape[1]) if 0 < labels[:, c].sum() < len(labels)]):
        raise LalibError("auc needs a class that some but not all of the held-out images have, got none")
    auc = roc_auc_score(labels[:, mixed].numpy(), probs[:, mixed].numpy(), average="macro")
    return {"accuracy": float(((probs > 0.5) == labels.bool()).float().mean()), "auc": float(auc)}
