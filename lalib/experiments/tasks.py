"""Tasks: which model is trained on the labels so far and how, and what it sees of every image.

[Lakshminarayanan2017] B. Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep
           ensembles", NeurIPS 2017.
"""

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lalib.codes.spreading import PoissonClassifier
from lalib.data.checks import LalibError, check_choice, check_int, check_known, check_number, keyword_defaults
from lalib.data.door import check_codes, plain
from lalib.data.imageset import ImageSet
from lalib.models.adversarial import M2VAAL
from lalib.models.autoencoders import ConditionalVAE
from lalib.models.classifiers import Classifier, CNNClassifier, MLPClassifier, ResNetClassifier
from lalib.models.semisupervised import M1M2, M2, ClassPriorVAE, FixMatch, PartlyLabelled, partly_labelled
from lalib.models.views import RandomViews
from lalib.strategies.registry import STRATEGIES
from lalib.strategies.view import Strategy
from lalib.training.fitting import OPTIMIZERS, SCHEDULES
from lalib.training.generation import Generated, GenerativeAugmentation

TASKS = {"mlp": MLPClassifier, "cnn": CNNClassifier, "resnet18": ResNetClassifier}
TASKS |= {"m2": M2, "m1m2": M1M2, "fixmatch": FixMatch, "m2-vaal": M2VAAL, "poisson": PoissonClassifier}
ROUND_ENCODERS = {"conditional-vae": ConditionalVAE, "class-prior-vae": ClassPriorVAE}
LEFT_TO_THE_LOOP = {"seed", "multi_label", "classifier"}  # of the classifiers' options


@dataclass(frozen=True, kw_only=True)
class RoundEncoder:
    """An encoder that every round trains afresh, on all images of the pool and the labels bought so far.

    model: "conditional-vae", or "class-prior-vae", whose codes tell the class. options: further keywords of that class.
    epochs, batch_size, learning_rate, weight_decay: as in fit; None for the model's own.
    """

    model: str = "conditional-vae"
    latent_dim: int = 10
    options: Mapping = field(default_factory=dict)
    epochs: int = 20
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.0

    def __post_init__(self):
        check_choice("encoder", self.model, ROUND_ENCODERS)
        _settle(self, latent_dim=1)
        self.all_options()  # which builds a small one: bad options are not left to the first round

    def build(self, image_shape: tuple[int, int, int], n_classes: int, seed: int) -> ConditionalVAE | ClassPriorVAE:
        """A new encoder with the weights of that seed."""
        return ROUND_ENCODERS[self.model](image_shape, n_classes, self.latent_dim, seed=seed, **self.options)

    def all_options(self) -> dict:
        """The model's options with the defaults of those not given."""
        config = self.build((1, 8, 8), 2, seed=0).config
        return {name: value for name, value in config.items() if name not in ("image_shape", "n_classes")}


def _settle(config, **whole: int) -> None:
    """Check fields, of which further `whole` numbers are at least so much, and make all Python's; None stays."""
    if not isinstance(config.options, Mapping):
        raise TypeError(f"options must be a dict, got {type(config.options).__name__}")
    given, checks = vars(config), [(name, check_number, 0) for name in ("learning_rate", "weight_decay")]
    checks += [(name, check_int, low) for name, low in {"epochs": 1, "batch_size": 1, **whole}.items()]
    found = {name: check(name, given[name], low=low) for name, check, low in checks if given[name] is not None}
    given.update(found, options=plain(dict(config.options)))


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is trained in every round and how.

    model: "mlp" on codes, "cnn" or "resnet18" on pixels learn from labelled images; "m1m2" and "poisson" on codes,
    "m2", "fixmatch" and "m2-vaal" on pixels from the unlabelled ones of the pool as well. options: keywords of that
    classifier. "poisson" spreads labels: it makes no steps, and all seeds give the same.
    steps: minibatches per training, whatever the number of labels; or epochs, and more_epochs for each round that went
    before. batch_size, learning_rate: None for the classifier's own. optimizer, schedule: as in fit. warm_start: go on
    from the weights of the last round; what is trained for a strategy alone starts afresh all the same. views:
    strengths of RandomViews by name, with which images are augmented in training; None for none. generated: which
    further training images a class-conditional model draws around the labelled ones in every round, for "cnn" and
    "resnet18" only; None for none. mc: where mc_probs come from, an "ensemble" [Lakshminarayanan2017] or passes with
    "dropout". encoder: what gives strategies the codes of a round (the first labels are bought without it); None for
    codes that stay the same. What serves one strategy alone is an option of that strategy.
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
    generated: GenerativeAugmentation | None = None
    mc: str = "ensemble"
    encoder: RoundEncoder | None = None

    def __new__(cls, **settings):
        for name in settings:
            if takers := [strategy.name for strategy in STRATEGIES.values() if name in strategy.settings]:
                pair = f'("{takers[0]}", {{"{name}": {settings[name]!r}}})'
                raise TypeError(f"a Task has no {name!r}: it is an option of {', '.join(takers)}, such as {pair}")
        return super().__new__(cls)

    def __post_init__(self):
        check_choice("task", self.model, TASKS)
        _settle(self, steps=1, more_epochs=0)
        models = {name for name, value in self.options.items() if isinstance(value, Classifier)}
        for name in sorted(LEFT_TO_THE_LOOP & self.options.keys() | models):
            raise ValueError(f"options must leave {name!r} to the loop, which sets it for every run")
        check_known(f"task {self.model!r}", self.options, self._defaults())
        if self.epochs is None and self.more_epochs:
            raise ValueError(f"more_epochs={self.more_epochs} needs epochs, to which it is added every round")
        if check_choice("mc", self.mc, ("ensemble", "dropout")) == "dropout" and not self.all_options().get("dropout"):
            raise ValueError(f"mc='dropout' needs a {self.model!r} with dropout: give it in options, if it takes any")
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        for name, kind in (("encoder", RoundEncoder), ("generated", GenerativeAugmentation)):
            if not isinstance(getattr(self, name), kind | None):
                raise TypeError(f"{name} must be a {kind.__name__}, got {type(getattr(self, name)).__name__}")
        if self.views is not None:
            if not self.on_pixels:
                raise ValueError("views augment images: give them to a task on pixels, such as 'cnn' or 'resnet18'")
            RandomViews(**self.views)
        if self.encoder is not None and not self.on_pixels:
            raise ValueError("a round's encoder changes codes: give it to a task on pixels, such as 'cnn'")
        if self.generated is not None and (not self.on_pixels or self.partly_labelled):
            takers = "tasks that learn from labelled images alone on pixels, 'cnn' and 'resnet18'"
            raise ValueError(f"generated images are for {takers}, got {self.model!r}")

    def all_options(self) -> dict:
        """The classifier's options with the defaults of those not given."""
        return self._defaults() | dict(self.options)

    def _defaults(self) -> dict:
        # of the classifier's class and those it passes further keywords on to
        found = [keyword_defaults(part.__init__).items() for part in reversed(TASKS[self.model].__mro__)]
        return {name: value for part in found for name, value in part if name not in LEFT_TO_THE_LOOP}

    @property
    def on_pixels(self) -> bool:
        """Whether the task model sees images; else it sees codes."""
        return "image_shape" in inspect.signature(TASKS[self.model].__init__).parameters

    @property
    def partly_labelled(self) -> bool:
        """Whether the task model learns from the images of the pool without a label, too."""
        return issubclass(TASKS[self.model], PartlyLabelled)

    @property
    def together(self) -> bool:
        """Whether several models train faster together: see lalib.training.together."""
        return self.model == "mlp"

    def check_serves(self, strategy: Strategy, several=False, *, given: Iterable[str] = (), label: str | None = None):
        """LalibError if the strategy needs what this task does not give, or one label per image and there are several.

        given: names of sources that come from elsewhere. label: what the strategy is called, its name if None.
        """
        label = label or strategy.name
        if several and not strategy.several:
            raise LalibError(f"{label} needs one label per image; these images may have several")
        for source in strategy.sources:
            source.check(self, several, label)
            if not source.model and source.name not in ("codes", *given):
                raise LalibError(f"{label} needs {source.name} {source.shape}, which no task gives: {source.how}")

    def n_batches(self, points: int) -> int:
        """Minibatches of an epoch on so many inputs."""
        return math.ceil(points / (TASKS[self.model].batch_size if self.batch_size is None else self.batch_size))

    def n_epochs(self, points: int, round: int) -> int:
        """Epochs of a training on so many inputs in that round (0 is the first)."""
        if self.epochs is not None:
            return self.epochs + self.more_epochs * round
        return math.ceil(self.steps / self.n_batches(points))


@dataclass(frozen=True, eq=False)
class TaskData:
    """What every image of the pool looks like to a task: codes (N, L), pixels if the task sees them, the classes.

    codes become float32. A strategy could reach this object, so it keeps neither labels nor names of files, only
    multi_label: whether an image may have several classes, as the labels say if there are any.
    """

    codes: Tensor
    images: ImageSet
    task: Task
    multi_label: bool = False

    def __post_init__(self):
        if not isinstance(self.images, ImageSet):
            raise TypeError(f"images must be an ImageSet, got {type(self.images).__name__}: la.from_arrays makes one")
        bare, several = replace(self.images, labels=None, files=()), self.multi_label or self.images.multi_label
        codes = check_codes(self.codes, n=len(bare)).float()
        vars(self).update(codes=codes, images=bare, multi_label=several)
        whose = {"a round's encoder needs": self.task.encoder, "generated images need": self.task.generated}
        for what in (what for what, part in whose.items() if part is not None and self.multi_label):
            raise LalibError(f"{what} one label per image; these images may have several")

    @property
    def inputs(self) -> Tensor:
        """Codes (N, L) or images (N, C, H, W)."""
        return self.images.images if self.task.on_pixels else self.codes

    def classifier(self, seed: int) -> Classifier:
        """A new task model with the weights of that seed."""
        size = self.images.image_shape if self.task.on_pixels else self.codes.shape[1]
        settings = {"multi_label": self.multi_label, "seed": seed, **self.task.options}
        classifier = TASKS[self.task.model](size, self.images.n_classes, **settings)
        if self.task.views is not None:
            classifier.views = RandomViews(**self.task.views)
        return classifier

    def labelled(self, index: Tensor, labels: Tensor, generated: Generated | None = None) -> ImageSet | tuple:
        """What `fit` trains on: inputs at `index`, then generated ones; and unlabelled ones if the task takes them."""
        if self.task.partly_labelled:
            everything = self.images if self.task.on_pixels else self.codes
            return everything, partly_labelled(len(self.images), index, labels)
        if not self.task.on_pixels:
            return self.codes[index], labels
        images = self.images.images[index]
        if generated is not None:
            images, labels = torch.cat([images, generated.images]), torch.cat([labels, generated.labels])
        return ImageSet(images, labels, self.images.class_names, "labelled")
