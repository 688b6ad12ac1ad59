"""fit(): the one training loop, its history, and checkpoints that can be resumed and never execute code.

Every epoch draws its order and noise from child seeds named after it, so that a resumed run needs no generator state
and equals an unbroken one bit for bit on a CPU.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lalib.data.checks import LalibError, check_choice, check_int, check_number, resolve_device
from lalib.data.door import check_codes, check_labels
from lalib.data.files import tensor_digest
from lalib.data.imageset import ImageSet
from lalib.data.seeds import generator, seeded
from lalib.models.networks import UNKNOWN, Batch, Trainable, eval_mode, to_input
from lalib.training import checkpoints

SCHEDULES = {  # share of the learning rate by the share of the epochs that are done
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}
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
    checkpoint: str | Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[int, Trainable], None] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> History:
    """Train `model` on from the weights it finds; it stays on the device it was trained on.

    data: an ImageSet, a pair (codes (N, L), labels (N,)) for a classifier on codes, or (ImageSet, labels (N,)) to train
    on other labels than the set's own. batch_size and learning_rate default to the model's. optimizer: "adam" or "sgd"
    (momentum 0.9). schedule: "constant", or "cosine": the learning rate falls to 0 over the epochs. validation is
    evaluated after every epoch (`val_loss`); with `patience` training stops after that many epochs without a better
    one. With `validation` the model is left with its best epoch's weights, else with the last one's; so it is after
    Ctrl-C, which returns the history with `interrupted` set.
    checkpoint: a file written after every epoch (safetensors); resume=True goes on from it if it is there, and the
    result is that of an unbroken run. on_epoch(epoch, model) is called after each epoch (1-based).
    On CUDA: bfloat16 autocast, channels_last, and all data on the device if it fills under half of the free memory.
    Raises ValueError and TypeError for bad arguments; LalibError when loss or weights stop being finite, and for a
    checkpoint that is damaged, of another run or of more than `epochs` epochs.
    """
    check_int("epochs", epochs, low=1)
    check_int("seed", seed, low=0)
    learning_rate = check_number(
        "learning_rate", model.learning_rate if learning_rate is None else learning_rate, low=0
    )
    check_number("weight_decay", weight_decay, low=0)
    if patience is not None and validation is None:
        raise ValueError("patience needs validation data: give validation=")
    patience = epochs if patience is None else check_int("patience", patience, low=1)
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=")
    build = functools.partial(
        OPTIMIZERS[check_choice("optimizer", optimizer, OPTIMIZERS)], weight_decay=weight_decay, fused=True
    )
    check_choice("schedule", schedule, SCHEDULES)
    run = _Run(
        model, data, validation, batch_size, learning_rate, build, (schedule, epochs), seed, resolve_device(device)
    )
    try:
        if resume and Path(checkpoint).exists():
            run.restore(Path(checkpoint), epochs)
        for epoch in _progress(run, epochs, progress):
            if epoch - 1 - (run.history.best_epoch or 0) >= patience:
                break
            run.epoch(epoch)
            if checkpoint is not None:
                run.write(Path(checkpoint))
            if on_epoch is not None:
                on_epoch(epoch, model)
    except KeyboardInterrupt:
        run.history.interrupted = True
    finally:
        model.load_state_dict(run.best)
    return run.history


def fit_fully(model: Trainable, data: ImageSet | tuple[Tensor, Tensor], **settings) -> None:
    """`fit` within a run that must not count as finished if it is not: after Ctrl-C KeyboardInterrupt, no bar."""
    if fit(model, data, progress=False, **settings).interrupted:
        raise KeyboardInterrupt


def scheduled(optimizer: torch.optim.Optimizer, rates: list[float], schedule: str, epochs: int, epoch: int) -> None:
    """Set the learning rates of an epoch (1-based); rates: those of its groups at the start."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * SCHEDULES[schedule]((epoch - 1) / epochs)


class _Run:
    """The state of one fit: model, data on the device, optimiser, best weights, history."""

    def __init__(self, model, data, validation, batch_size, learning_rate, optimizer, schedule, seed, device):
        self.batch_size = check_int("batch_size", model.batch_size if batch_size is None else batch_size, low=1)
        self.data = [checked_pair(part, model) for part in (data, validation) if part is not None]
        self.model, self.seed, self.device = model.to(device), seed, device
        if device.type == "cuda":
            model.to(memory_format=torch.channels_last)
        self.x, self.y = _place(self.data[0], device)
        self.validation = None if validation is None else _place(self.data[1], device)
        self.optimizer = optimizer(model.parameter_groups(learning_rate))
        self.rates, self.schedule = [group["lr"] for group in self.optimizer.param_groups], schedule
        self.history = History()
        self.best = _snapshot(model)
        model.prepare(self.x, self.y)

    def epoch(self, epoch: int) -> None:
        """Train one epoch, evaluate, record, and keep the weights if they are the best so far."""
        started = time.perf_counter()
        order = generator(self.seed, "batches", epoch)
        noise = generator(self.seed, "noise", epoch, device=self.device)
        self.model.train()
        scheduled(self.optimizer, self.rates, *self.schedule, epoch)
        totals, seen = {}, 0
        with seeded(self.seed, "dropout", epoch):
            for index in self.model.batches(len(self.x), self.batch_size, generator=order):
                terms = self._step(index.to(self.x.device), noise)
                seen += len(index)
                for name, value in terms.items():
                    totals[name] = totals.get(name, 0) + value.detach() * len(index)
        if not seen:
            raise LalibError(f"{len(self.x)} images are too few to make one batch of {type(self.model).__name__}")
        row = {"epoch": epoch, **{name: float(total) / seen for name, total in totals.items()}}
        if self.validation is not None:
            row |= self._evaluate()
        self._keep(row | {"images": seen, "seconds": time.perf_counter() - started})

    def _step(self, index: Tensor, noise: torch.Generator) -> dict[str, Tensor]:
        batch = Batch(to_input(self.x[index], self.device), self._labels(self.y, index), index)
        with _autocast(self.device):
            terms = self.model.loss(batch, generator=noise)
        self.optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()
        self.optimizer.step()
        return terms

    def _labels(self, y: Tensor | None, index: Tensor | slice) -> Tensor | None:
        return None if y is None else y[index].to(self.device)

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        x, y = self.validation
        noise, totals = generator(self.seed, "validation", device=self.device), {}
        for start in range(0, len(x), 1024):
            part = slice(start, start + 1024)
            inputs = to_input(x[part], self.device)
            with eval_mode(self.model), _autocast(self.device):
                terms = self.model.loss(Batch(inputs, self._labels(y, part)), generator=noise)
            for name, value in terms.items():
                totals[f"val_{name}"] = totals.get(f"val_{name}", 0) + float(value) * len(inputs)
        return {name: total / len(x) for name, total in totals.items()}

    def _keep(self, row: dict) -> None:
        bad = [f"{name} is {value}" for name, value in row.items() if not math.isfinite(value)]
        if not all(bool(value.sum().isfinite()) for value in self.model.parameters()):
            bad.append("weights are not finite")
        if bad:
            raise LalibError(
                f"training diverged in epoch {row['epoch']}: {', '.join(bad)}. The weights of epoch "
                f"{self.history.best_epoch or 0} were kept; try a smaller learning_rate"
            )
        rows = self.history.epochs
        best = min((past.get("val_loss", float("inf")) for past in rows), default=float("inf"))
        rows.append(row)
        if row.get("val_loss", -float("inf")) < best:
            self.history.best_epoch, self.best = row["epoch"], _snapshot(self.model)

    @functools.cached_property
    def settings(self) -> dict:
        """What must agree for a run to be resumed; "data" is a digest of the training and validation data."""
        decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        groups = [list(pair) for pair in zip(self.rates, decays, strict=True)]
        tensors = {f"{i}.{j}": part for i, pair in enumerate(self.data) for j, part in enumerate(pair)}
        data = tensor_digest({name: part for name, part in tensors.items() if part is not None})
        common = {"seed": self.seed, "batch_size": self.batch_size, "optimizer": type(self.optimizer).__name__}
        name, epochs = self.schedule
        common |= {} if name == "constant" else {"schedule": name, "epochs": epochs}
        return {**common, "groups": groups, "data": data}

    def write(self, path: Path) -> None:
        state = {f"model.{name}": value for name, value in self.best.items()}
        state |= {f"last.{name}": value for name, value in self.model.state_dict().items()}
        for i, slots in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in slots.items()}
        history = {"epochs": self.history.epochs, "best_epoch": self.history.best_epoch}
        checkpoints.write(path, state, checkpoints.header(self.model) | {"settings": self.settings, "history": history})

    def restore(self, path: Path, epochs: int) -> None:
        header, state = checkpoints.read(path)
        there, here = (
            checkpoints.identity(header),
            checkpoints.identity(checkpoints.header(self.model) | {"settings": self.settings}),
        )
        other = [f"{key} is {there.get(key)!r}, here {here.get(key)!r}" for key in here if there.get(key) != here[key]]
        if other:
            raise LalibError(f"{path} is of another run: its {', its '.join(other)}")
        done = len(header["history"]["epochs"])
        if done > epochs:
            raise LalibError(f"{path} holds {done} epochs, more than the epochs={epochs} asked for")
        try:
            self.model.load_state_dict(checkpoints.part(state, "last."))
            self._restore_optimizer(checkpoints.part(state, "optimizer."))
        except (RuntimeError, ValueError) as error:
            raise LalibError(f"{path} is of another run: its weights do not fit this model ({error})") from error
        self.best = {key: value.to(self.device) for key, value in checkpoints.part(state, "model.").items()}
        self.history = History(**header["history"])

    def _restore_optimizer(self, state: dict[str, Tensor]) -> None:
        slots: dict[int, dict] = {}
        for key, value in state.items():
            i, name = key.split(".", 1)
            slots.setdefault(int(i), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})


def _snapshot(model: Trainable) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def checked_pair(data: ImageSet | tuple[Tensor, Tensor], model: Trainable) -> tuple[Tensor, Tensor | None]:
    """(inputs, labels) of what `fit` was given, checked."""
    expected = getattr(model, "image_shape", None)
    pair = isinstance(data, tuple | list) and len(data) == 2
    inputs, y = (data, getattr(data, "labels", None)) if not pair else data
    if not isinstance(inputs, ImageSet) and (expected is not None or not pair):
        wanted = "a pair (codes, labels)" if expected is None else "an ImageSet"
        raise TypeError(f"{type(model).__name__} trains on {wanted}, got {type(data).__name__}")
    if isinstance(inputs, ImageSet) and expected is not None and tuple(expected) != inputs.image_shape:
        raise ValueError(f"the model takes images of shape {expected}, got {inputs.image_shape} from {inputs.source}")
    x = inputs.images if isinstance(inputs, ImageSet) else check_codes(inputs, "inputs")
    if y is None or (isinstance(data, ImageSet) and data.multi_label):
        return x, y
    if getattr(model, "multi_label", False):
        return x, _check_multi_labels(torch.as_tensor(y), len(x), model.n_classes)
    low = UNKNOWN if getattr(model, "partly_labelled", False) else 0
    return x, check_labels(y, len(x), getattr(model, "n_classes", None), low=low).long()


def _check_multi_labels(y: Tensor, n: int, n_classes: int) -> Tensor:
    if y.shape != (n, n_classes) or not ((y == 0) | (y == 1)).all():
        raise ValueError(f"labels must be 0 or 1 of shape ({n}, {n_classes}), got {y.dtype} of shape {tuple(y.shape)}")
    return y


def _place(pair: tuple[Tensor, Tensor | None], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Inputs and labels on the device if they fill under half of its free memory, else where they are."""
    x, y = pair
    if device.type == "cuda" and x.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
        return x.to(device), None if y is None else y.to(device)
    return x, y


def _autocast(device: torch.device) -> contextlib.AbstractContextManager:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


def _progress(run: _Run, epochs: int, show: bool):
    """Epoch numbers still to do, under a bar that shows the last loss."""
    from tqdm.auto import tqdm

    done = len(run.history.epochs)
    with tqdm(total=epochs, initial=done, disable=not show, unit="epoch", desc=type(run.model).__name__) as bar:
        for epoch in range(done + 1, epochs + 1):
            yield epoch
            bar.set_postfix({key: f"{value:.4g}" for key, value in run.history.epochs[-1].items() if "loss" in key})
            bar.update()
