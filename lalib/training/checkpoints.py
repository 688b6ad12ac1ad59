"""Checkpoints: weights and configuration in one safetensors file, which never executes code."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lalib.data.checks import LalibError
from lalib.data.files import tensor_digest, written_whole
from lalib.models.autoencoders import Autoencoder
from lalib.models.classifiers import Classifier, CNNClassifier, MLPClassifier
from lalib.models.contrastive import ENCODERS, ContrastiveEncoder
from lalib.models.networks import Trainable
from lalib.models.semisupervised import FixMatch

FORMAT = "lalib-1"
REBUILT = ENCODERS | {model.__name__: model for model in (CNNClassifier, MLPClassifier, FixMatch)}  # from numbers alone


def save(model: Autoencoder | ContrastiveEncoder | Classifier, path: str | Path) -> None:
    """Write weights, configuration and class names of an encoder or a classifier to a safetensors file, or nothing.

    Raises TypeError for a model that load_model could not rebuild.
    """
    if other := _others(header(model)):
        raise TypeError(f"save takes one of {', '.join(REBUILT)}, got {other[0]}")
    write(path, {f"model.{name}": value for name, value in model.state_dict().items()}, header(model))


def load_model(path: str | Path) -> Autoencoder | ContrastiveEncoder | Classifier:
    """The model in a file of `save`, or of `fit` with checkpoint= (its best epoch), on the CPU. No code of it is run.

    Raises FileNotFoundError, or LalibError for a file that is damaged or not of lalib.
    """
    header, state = read(path)
    if other := _others(header):
        raise LalibError(f"{path} holds a {other[0]!r}; load_model rebuilds {', '.join(REBUILT)}")
    try:
        model = _rebuilt(header)
        model.load_state_dict(part(state, "model."))
        model.remember(header.get("class_names", ()))
    except (RuntimeError, TypeError, ValueError) as error:
        raise LalibError(f"{path} is damaged: its weights do not fit its configuration ({error})") from error
    return model


def _others(header: dict) -> list[str]:
    """The models that cannot be rebuilt: that of a header, and the network that it was given."""
    network = (header.get("config") or {}).get("network")
    within = _others(network) if isinstance(network, dict) else []
    return within if header.get("model") in REBUILT else [header.get("model"), *within]


def _rebuilt(header: dict) -> Trainable:
    config = dict(header["config"])
    if isinstance(config.get("network"), dict):
        config["network"] = _rebuilt(config["network"])
    return REBUILT[header["model"]](**config)


def header(model: Trainable) -> dict:
    """What a file says of a model beside its weights."""
    return {"model": type(model).__name__, "config": model.config, "class_names": list(model.class_names)}


def identity(header: dict) -> dict:
    """What a checkpoint's header says of the model and the run, in one flat dict; class names only if there are any."""
    names = {"class_names": header["class_names"]} if header.get("class_names") else {}
    return {"model": header["model"], **names, **(header["config"] or {}), **header.get("settings", {})}


def write(path: str | Path, state: dict[str, Tensor], header: dict) -> None:
    """Write tensors and a header with their digest, whole or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with written_whole(Path(path)) as temporary:
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        text = json.dumps(header)
        save_file(tensors, temporary, {"format": FORMAT, "header": text, "sha256": tensor_digest(tensors, text)})


def read(path: str | Path) -> tuple[dict, dict[str, Tensor]]:
    """Header and tensors of a file that `write` wrote; LalibError if it is damaged."""
    if not Path(path).exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise LalibError(f"{path} is damaged or no safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise LalibError(f"{path} is no checkpoint of lalib: its format is {metadata.get('format')!r}, not {FORMAT!r}")
    text = metadata.get("header", "")
    if metadata.get("sha256") != tensor_digest(state, text):
        raise LalibError(f"{path} is damaged: its contents are not those that were written")
    return json.loads(text), state


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
