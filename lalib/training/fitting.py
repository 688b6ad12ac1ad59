"""fit(): the one training loop, its history, and checkpoints that can be resumed and never execute code.

Every epoch draws its order and noise from child seeds named after it: a resumed run needs no generator state.
"""

import contextlib
import copy
import functools
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lalib.data.checks import LalibError, check_choice, check_int, check_number, resolve_device
from lalib.data.files import tensor_digest
from lalib.data.imageset import ImageSet
from lalib.data.seeds import generator
from lalib.models import networks
from lalib.models.classifiers import Classifier, accuracy
from lalib.models.networks import Batch, Trainable, eval_mode, seeded_dropout, to_input
from lalib.training import checkpoints

SCHEDULES = {  # share of the learning rate by the share of the epochs that are done
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}
LOOK = 5  # epochs between two looks at what a classifier has learnt
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": functools.partial(torch.optim.SGD, momentum=0.9)}


@dataclass
class History:
    """One row per finished epoch: epoch, loss and its terms (means over images), val_*, images, seconds.

    best_epoch: the epoch whose weights the model would be left with if stopped now; interrupted: stopped by Ctrl-C.
    """

    epochs: list[dict] = field(default_factory=list)
    best_epoch: int | None = None
    interrupted: bool = False

    def frame(self):
        """The rows as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.epochs)


def fit(
    model: Trainable,
    data: ImageSet | tuple[ImageSet | Tensor, Tensor],
    *,
    epochs: int = 20,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    weight_decay: float = 0.0,
    optimizer: str = "adam",
    schedule: str = "constant",
    validation: ImageSet | tuple[Tensor, Tensor] | None = None,
    patience: int | None = None,
    until: float | None = None,
    seconds: float | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[int, Trainable], None] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> History:
    """Train `model` on from the weights it finds; it stays on the device it was trained on.

    data: an ImageSet, or (ImageSet, labels (N,)) with other labels than its own, or (codes (N, L), labels (N,)) for a
    model on codes; labels may be (N, C) of 0 and 1. A model that learns from labels remembers what the set's classes
    are called (`class_names`); other sets, `validation` too, are matched with them by name.
    batch_size and learning_rate default to the model's. optimizer: "adam" or "sgd" (momentum 0.9). schedule:
    "constant", or "cosine": the learning rate falls to 0 over the epochs.
    validation: evaluated after every epoch (`val_loss`); the model then ends with the weights of its best epoch,
    else with the last ones, also after Ctrl-C. patience: training stops after so many epochs without a better one.
    until: a classifier's training stops once it has at least this share of its labelled training data right, dropout
    and views off; it looks after every fifth epoch, since a look costs up to a third of one.
    seconds: a budget; once so many have passed in this call no further epoch begins, but one always does. The bar then
    expects as many epochs as the budget allows. How many these are depends on the machine.
    checkpoint: a file written after every epoch (safetensors); resume=True goes on from it if it is there, and on a CPU
    the result is bit for bit that of an unbroken run. on_epoch(epoch, model) is called after each epoch (1-based).
    On CUDA: channels_last, bfloat16 autocast for images, and all data on the device if they fill under half of its free
    memory. Never seen on a GPU: codes that stay on the CPU, codes in float32, and dropout's generator.
    Raises ValueError and TypeError for bad arguments and for a class that the model does not know; LalibError when loss
    or weights stop being finite, and for a checkpoint that is damaged, of another run or of more than `epochs` epochs.
    """
    from tqdm.auto import tqdm

    course = Course(model, epochs, batch_size, learning_rate, weight_decay, optimizer, schedule)
    epochs, seed = course.epochs, check_int("seed", seed, low=0)
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data: give validation=")
    patience = epochs if patience is None else check_int("patience", patience, low=1)
    limit = math.inf if seconds is None else check_number("seconds", seconds, low=0)
    if until is not None and not isinstance(model, Classifier):
        raise TypeError(f"until asks what a classifier has learnt, got {type(model).__name__}")
    until = math.inf if until is None else check_number("until", until, low=0, high=1)
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=")
    run = _Run(model, data, validation, course, seed, resolve_device(device))
    try:
        if resume and Path(checkpoint).exists():
            run.restore(Path(checkpoint))
        done, look = len(run.history.epochs), {"disable": not progress, "unit": "epoch", "desc": type(model).__name__}
        with tqdm(range(done + 1, epochs + 1), total=epochs, initial=done, **look) as bar:
            started = time.perf_counter()
            for epoch in bar:
                spent = time.perf_counter() - started
                if epoch - 1 - (run.history.best_epoch or 0) >= patience or (spent >= limit and epoch > done + 1):
                    break
                if until < math.inf and (epoch - 1) % LOOK == 0 and run.learnt() >= until:
                    break
                run.epoch(epoch)
                row = run.history.epochs[-1].items()
                bar.set_postfix({name: f"{value:.4g}" for name, value in row if "loss" in name})
                if checkpoint is not None:
                    run.write(Path(checkpoint))
                if on_epoch is not None:
                    on_epoch(epoch, model)
                if seconds is not None:
                    spent = time.perf_counter() - started
                    further = max(0, limit - spent) / spent * (epoch - done)
                    bar.total = math.ceil(min(epochs, epoch + further))
    except KeyboardInterrupt:
        run.history.interrupted = True
    finally:
        model.load_state_dict(run.best)
    return run.history


def fit_fully(model: Trainable, data: ImageSet | tuple[Tensor, Tensor], **settings) -> History:
    """`fit` as a part of a run: no bar; Ctrl-C raises KeyboardInterrupt, so that the run counts as unfinished."""
    if (history := fit(model, data, progress=False, **settings)).interrupted:
        raise KeyboardInterrupt
    return history


class Course:
    """How a model is trained: the settings of `fit`, checked, and from `start` on the optimiser."""

    def __init__(self, model, epochs, batch_size, learning_rate, weight_decay, optimizer, schedule="constant"):
        rate = model.learning_rate if learning_rate is None else learning_rate
        self.epochs = check_int("epochs", epochs, low=1)
        self.batch_size = check_int("batch_size", model.batch_size if batch_size is None else batch_size, low=1)
        self.learning_rate = check_number("learning_rate", rate, low=0)
        self.weight_decay = check_number("weight_decay", weight_decay, low=0)
        self.build = OPTIMIZERS[check_choice("optimizer", optimizer, OPTIMIZERS)]
        self.schedule = check_choice("schedule", schedule, SCHEDULES)

    def start(self, groups: list[dict]) -> None:
        """Make the optimiser of these groups of parameters, each with its learning rate."""
        self.optimizer = self.build(groups, weight_decay=self.weight_decay, fused=True)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def begin(self, epoch: int) -> None:
        """Set the learning rates of an epoch (1-based)."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * SCHEDULES[self.schedule]((epoch - 1) / self.epochs)


class _Run:
    """The state of one fit: model, data on the device, optimiser, best weights, history."""

    def __init__(self, model, data, validation, course, seed, device):
        images = data[0] if isinstance(data, tuple | list) and data else data
        new = [name for name in getattr(images, "class_names", ()) if name not in model.class_names]
        names = (*model.class_names, *new)[: model.n_classes or 0]  # the model may have more classes than names
        self.data = [checked_pair(data, model, names if model.class_names else ())]
        self.data += [] if validation is None else [checked_pair(validation, model, names)]
        (self.x, self.y), *rest = (_place(pair, device) for pair in self.data)
        self.validation = rest[0] if rest else None
        self.course, self.seed, self.device = course, seed, device
        # not `device`, if the data stay on the CPU: what a model keeps of them is computed where they lie
        model.to(self.x.device)
        self.history, self.best = History(), copy.deepcopy(model.state_dict())
        model.prepare(self.x, self.y)
        self.model = model.to(device)
        if device.type == "cuda":
            model.to(memory_format=torch.channels_last)
        course.start(model.parameter_groups(course.learning_rate))
        if self.y is not None:
            model.remember(names)

    def epoch(self, epoch: int) -> None:
        """Train one epoch, evaluate, record, and keep the weights if they are the best so far."""
        started, order = time.perf_counter(), generator(self.seed, "batches", epoch)
        noise = generator(self.seed, "noise", epoch, device=self.device)
        self.model.train()
        self.course.begin(epoch)
        totals, seen = defaultdict(float), 0
        with seeded_dropout(self.model, self.seed, "dropout", epoch):
            for index in self.model.batches(len(self.x), self.course.batch_size, generator=order):
                index = index.to(self.x.device)
                x = self.x.index_select(0, index)  # a tenth of the time of self.x[index]
                terms = self._terms(x, None if self.y is None else self.y[index], noise, index)
                self.course.optimizer.zero_grad(set_to_none=True)
                terms["loss"].backward()
                self.course.optimizer.step()
                seen += len(index)
                for name, value in terms.items():
                    totals[name] += value.detach() * len(index)
        if not seen:
            raise LalibError(f"{len(self.x)} images are too few to make one batch of {type(self.model).__name__}")
        row = {"epoch": epoch, **{name: float(total) / seen for name, total in totals.items()}}
        if self.validation is not None:
            row |= self._evaluate(*self.validation)
        self._keep(row | {"images": seen, "seconds": time.perf_counter() - started})

    def learnt(self) -> float:
        """The share of the labelled training data that the classifier has right."""
        if self.y is None:
            raise LalibError("until needs labels: give an ImageSet with labels, or a pair (inputs, labels)")
        known = (self.y != networks.UNKNOWN).reshape(len(self.y), -1).all(dim=1)
        return accuracy(self.model, self.x[known], self.y[known])

    def _terms(self, x: Tensor, y: Tensor | None, noise: torch.Generator, index: Tensor | None = None) -> dict:
        inputs, labels = to_input(x, self.device), None if y is None else y.to(self.device)
        with _autocast(inputs):
            return self.model.loss(Batch(inputs, labels, index), generator=noise)

    @torch.no_grad()
    def _evaluate(self, x: Tensor, y: Tensor | None) -> dict[str, float]:
        noise, totals = generator(self.seed, "validation", device=self.device), defaultdict(float)
        size = networks.block_size(self.model, x)
        labels = itertools.repeat(None) if y is None else y.split(size)
        with eval_mode(self.model):
            for part, known in zip(x.split(size), labels, strict=False):
                for name, value in self._terms(part, known, noise).items():
                    totals[f"val_{name}"] += value.double() * len(part)
        return {name: float(total) / len(x) for name, total in totals.items()}

    def _keep(self, row: dict) -> None:
        bad = [f"{name} is {value}" for name, value in row.items() if not math.isfinite(value)]
        if not torch.stack([value.detach().sum().isfinite() for value in self.model.parameters()]).all():
            bad.append("weights are not finite")
        if bad:
            kept = f"The weights of epoch {self.history.best_epoch or 0} were kept; try a smaller learning_rate"
            raise LalibError(f"training diverged in epoch {row['epoch']}: {', '.join(bad)}. {kept}")
        best = min((past.get("val_loss", math.inf) for past in self.history.epochs), default=math.inf)
        self.history.epochs.append(row)
        if row.get("val_loss", -math.inf) < best:
            self.history.best_epoch, self.best = row["epoch"], copy.deepcopy(self.model.state_dict())

    @functools.cached_property
    def settings(self) -> dict:
        """What must agree for a run to be resumed; "data" is a digest of the training and validation data."""
        course, parts = self.course, ((f"{i}.{j}", x) for i, pair in enumerate(self.data) for j, x in enumerate(pair))
        pairs = zip(course.rates, course.optimizer.param_groups, strict=True)
        groups = [[rate, group["weight_decay"]] for rate, group in pairs]
        data = tensor_digest({name: part for name, part in parts if part is not None})
        common = {"seed": self.seed, "batch_size": course.batch_size, "optimizer": type(course.optimizer).__name__}
        common |= {} if course.schedule == "constant" else {"schedule": course.schedule, "epochs": course.epochs}
        return {**common, "groups": groups, "data": data}

    def _header(self) -> dict:
        return checkpoints.header(self.model) | {"settings": self.settings}

    def write(self, path: Path) -> None:
        state = {f"model.{name}": value for name, value in self.best.items()}
        state |= {f"last.{name}": value for name, value in self.model.state_dict().items()}
        for i, slots in self.course.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in slots.items()}
        history = {"epochs": self.history.epochs, "best_epoch": self.history.best_epoch}
        checkpoints.write(path, state, self._header() | {"history": history})

    def restore(self, path: Path) -> None:
        header, state = checkpoints.read(path)
        there, here = checkpoints.identity(header), checkpoints.identity(self._header())
        same = {key: there.get(key, None if key in self.settings else value) == value for key, value in here.items()}
        other = [f"{key} is {there.get(key)!r}, here {here[key]!r}" for key in here if not same[key]]
        if other:
            raise LalibError(f"{path} is of another run: its {', its '.join(other)}")
        if (done := len(header["history"]["epochs"])) > self.course.epochs:
            raise LalibError(f"{path} holds {done} epochs, more than the epochs={self.course.epochs} asked for")
        slots = defaultdict(dict)
        for key, value in checkpoints.part(state, "optimizer.").items():
            i, name = key.split(".", 1)
            slots[int(i)][name] = value
        try:
            self.model.load_state_dict(checkpoints.part(state, "last."))
            self.course.optimizer.load_state_dict(self.course.optimizer.state_dict() | {"state": slots})
            for weight, kept in self.course.optimizer.state.items():  # fused steps want these laid out as the weights
                kept |= {name: torch.empty_like(weight).copy_(x) for name, x in kept.items() if x.ndim == weight.ndim}
        except (RuntimeError, ValueError) as error:
            raise LalibError(f"{path} is of another run: its weights do not fit this model ({error})") from error
        self.best = {key: value.to(self.device) for key, value in checkpoints.part(state, "model.").items()}
        self.history = History(**header["history"])


def checked_pair(
    data: ImageSet | tuple[ImageSet | Tensor, Tensor], model: Trainable, names: tuple[str, ...] | None = None
) -> tuple[Tensor, Tensor | None]:
    """(inputs, labels) of what `fit` was given, checked; labels are numbered as in `names`, by default the model's."""
    pair = isinstance(data, tuple | list) and len(data) == 2
    inputs, y = data if pair else (data, getattr(data, "labels", None))
    if not isinstance(inputs, ImageSet) and (model.image_shape is not None or not pair):
        wanted = "a pair (codes, labels)" if model.image_shape is None else "an ImageSet"
        raise TypeError(f"{type(model).__name__} trains on {wanted}, got {type(data).__name__}")
    x = networks.check_inputs(model, inputs)
    several = not pair and data.multi_label and not model.multi_label  # which the model refuses if it asks for labels
    if y is None or several:
        return x, y
    return x, networks.check_targets(model, y, len(x), getattr(inputs, "class_names", ()), names).to(x.device)


def _place(pair: tuple[Tensor, Tensor | None], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Inputs and labels on the device, or where they are if they fill half of a GPU's free memory or more."""
    x, y = pair
    if device.type != "cuda" or x.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return x.to(device), None if y is None else y.to(device)
    return x, y


def _autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """bfloat16 for images on CUDA; models on codes are small, and fit_together trains them in float32 as well."""
    return torch.autocast("cuda", torch.bfloat16) if x.is_cuda and x.ndim == 4 else contextlib.nullcontext()
