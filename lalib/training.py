"""fit(): the one training loop, its history, and checkpoints that can be resumed and never execute code.

Every epoch draws its order and noise from child seeds named after it, so that a resumed run needs no generator state
and equals an unbroken one bit for bit on a CPU.
"""

import contextlib
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lalib._checks import LalibError, check_choice, check_codes, check_int, check_labels, check_number, resolve_device
from lalib._files import written_whole
from lalib.autoencoders import Autoencoder
from lalib.classifiers import Classifier, CNNClassifier, MLPClassifier
from lalib.contrastive import ENCODERS, ContrastiveEncoder
from lalib.data import ImageSet
from lalib.networks import UNKNOWN, Batch, Trainable, eval_mode, to_input
from lalib.seeds import generator, seeded
from lalib.semisupervised import FixMatch

__all__ = ["OPTIMIZERS", "History", "checked_pair", "digest", "fit", "fit_fully", "load_model", "save"]

FORMAT = "lalib-1"
SCHEDULES = {  # share of the learning rate by the share of the epochs that are done
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
}
REBUILT = ENCODERS | {model.__name__: model for model in (CNNClassifier, MLPClassifier, FixMatch)}  # from numbers alone
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
        data = digest({name: part for name, part in tensors.items() if part is not None})
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
        _write(path, state, _header(self.model) | {"settings": self.settings, "history": history})

    def restore(self, path: Path, epochs: int) -> None:
        header, state = _read(path)
        there, here = _identity(header), _identity(_header(self.model) | {"settings": self.settings})
        other = [f"{key} is {there.get(key)!r}, here {here.get(key)!r}" for key in here if there.get(key) != here[key]]
        if other:
            raise LalibError(f"{path} is of another run: its {', its '.join(other)}")
        done = len(header["history"]["epochs"])
        if done > epochs:
            raise LalibError(f"{path} holds {done} epochs, more than the epochs={epochs} asked for")
        try:
            self.model.load_state_dict(_part(state, "last."))
            self._restore_optimizer(_part(state, "optimizer."))
        except (RuntimeError, ValueError) as error:
            raise LalibError(f"{path} is of another run: its weights do not fit this model ({error})") from error
        self.best = {key: value.to(self.device) for key, value in _part(state, "model.").items()}
        self.history = History(**header["history"])

    def _restore_optimizer(self, state: dict[str, Tensor]) -> None:
        slots: dict[int, dict] = {}
        for key, value in state.items():
            i, name = key.split(".", 1)
            slots.setdefault(int(i), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})


def save(model: Autoencoder | ContrastiveEncoder | Classifier, path: str | Path) -> None:
    """Write the weights and the configuration of an encoder or a classifier to a safetensors file, whole or not at all.

    What a classifier's classes are called is not written: keep it with the labels.
    Raises TypeError for a model that load_model could not rebuild.
    """
    if type(model).__name__ not in REBUILT:
        raise TypeError(f"save takes one of {', '.join(REBUILT)}, got {type(model).__name__}")
    _write(Path(path), {f"model.{name}": value for name, value in model.state_dict().items()}, _header(model))


def load_model(path: str | Path) -> Autoencoder | ContrastiveEncoder | Classifier:
    """The model that `save`, or `fit` with checkpoint=, wrote (then its best epoch), on the CPU; runs no code.

    Raises FileNotFoundError, or LalibError for a file that is damaged or not of lalib.
    """
    header, state = _read(Path(path))
    if header.get("model") not in REBUILT:
        raise LalibError(f"{path} holds a {header.get('model')!r}; load_model rebuilds {', '.join(REBUILT)}")
    try:
        model = REBUILT[header["model"]](**header["config"])
        model.load_state_dict(_part(state, "model."))
    except (RuntimeError, TypeError, ValueError) as error:
        raise LalibError(f"{path} is damaged: its weights do not fit its configuration ({error})") from error
    return model


def _header(model: Trainable) -> dict:
    return {"model": type(model).__name__, "config": getattr(model, "config", None)}


def _identity(header: dict) -> dict:
    """What a checkpoint's header says of the model and the run, in one flat dict."""
    return {"model": header["model"], **(header["config"] or {}), **header.get("settings", {})}


def _write(path: Path, state: dict[str, Tensor], header: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary:
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        text = json.dumps(header)
        save_file(tensors, temporary, metadata={"format": FORMAT, "header": text, "sha256": digest(tensors, text)})


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata, state = (
                file.metadata() or {},
                {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118 (not a dict)
            )
    except (SafetensorError, OSError) as error:
        raise LalibError(f"{path} is damaged or no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise LalibError(f"{path} is no checkpoint of lalib: its format is {metadata.get('format')!r}, not {FORMAT!r}")
    text = metadata.get("header", "")
    if metadata.get("sha256") != digest(state, text):
        raise LalibError(f"{path} is damaged: its contents are not those that were written")
    return json.loads(text), state


def digest(tensors: dict[str, Tensor], text: str = "") -> str:
    """SHA-256 over `text` and the names, types, shapes and bytes of tensors on the CPU, in the order of their names."""
    sha = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        sha.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


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
