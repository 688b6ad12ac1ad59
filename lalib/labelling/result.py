"""What labelling ends with, as a folder of files: predictions, answers, counts, and the classifier for other images."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor

from lalib.codes import encode, load_codes
from lalib.data import ImageSet, LalibError, from_folder
from lalib.data.checks import check_type, listed
from lalib.data.door import check_codes
from lalib.labelling.formats import write_csv, write_rows
from lalib.models import PretrainedEncoder, predict_proba
from lalib.training import load_model, save

if TYPE_CHECKING:
    import pandas as pd

    from lalib.labelling.rounds import LabellingLoop

FORMAT = "lalib-result-1"
PREDICTIONS, ANSWERS, COUNTS, RECORD, SNIPPET = "predictions.csv", "labels.csv", "counts.csv", "result.json", "use.py"
CLASSIFIER, ENCODER, WEIGHTS = "classifier.safetensors", "encoder.safetensors", "weights"
FILES = {PREDICTIONS, ANSWERS, COUNTS, RECORD, SNIPPET, CLASSIFIER, ENCODER, f"{WEIGHTS}.pth", f"{WEIGHTS}.safetensors"}
NETWORK, MODEL, PIXELS, GIVEN = "network", "model", "pixels", "file"  # where codes come from
MEASURED = ("answers", "labels", "tested", "accuracy", "low", "high")  # of a Snapshot
PROBED = 8  # images whose codes must be those of the encoder
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601, as Pillow makes grey

USE = '''"""What this classifier says of the images in another folder: python use.py FOLDER"""

import sys
from pathlib import Path

import lalib as la

print(la.labelling.apply_result(Path(__file__).parent, sys.argv[1]).to_string())
'''
USE_CODES = USE.replace("FOLDER", "FOLDER CODES").replace("sys.argv[1]", "sys.argv[1], sys.argv[2]")


def write_result(loop: "LabellingLoop", folder: str | Path, encoder=None) -> Path:
    """What LabellingLoop.write_result does."""
    folder = Path(check_type("folder", folder, str | Path)).absolute()
    snapshot, counts, store, images = loop.train(), loop.prevalence(), loop.store, loop.images
    names, known = store.class_names, store.classes()
    guesses = snapshot.probs.argmax(1).tolist()
    said = [known.get(image, names[guess]) for image, guess in zip(images.hashes, guesses, strict=True)]
    sure = snapshot.probs[range(len(said)), [names.index(name) for name in said]].tolist()
    who = [store.labeller if image in known else "" for image in images.hashes]
    with _replaced(folder) as made:
        snapshot.classifier.remember(names)
        save(snapshot.classifier, made / CLASSIFIER)
        write_predictions(made / PREDICTIONS, table_of(images, said, sure).assign(labelled_by=who))
        write_csv(store, made / ANSWERS)
        write_predictions(made / COUNTS, counts.round(1).reset_index())
        record = {"format": FORMAT, "class_names": list(names), "image_shape": list(images.image_shape)}
        record["codes"] = _keep_encoder(made, loop, encoder)
        measured = {name: getattr(snapshot, name) for name in MEASURED}
        record |= {name: None if value != value else value for name, value in measured.items()}  # NaN is not JSON
        (made / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
        (made / SNIPPET).write_text(USE_CODES if record["codes"]["from"] == GIVEN else USE)
    return folder


def apply_result(
    result: str | Path, images: ImageSet | str | Path, codes: Tensor | str | Path | None = None, *, bad_files="refuse"
) -> "pd.DataFrame":
    """What the classifier in the folder `result` says of other images: a row for each with file, class and probability.

    images: a folder, which is read as the images were that it learnt from, or an ImageSet of that size. codes: only for
    a classifier that learnt from a file of codes: those of these images, (N, L) or a file of load_codes. bad_files:
    as in from_folder. The file of images without names is their index.
    Raises FileNotFoundError, and LalibError for a folder that is damaged or holds no result, if codes are missing, and
    for a network whose weights cannot be had; ValueError for images of another size and codes that it cannot use.
    """
    result = Path(check_type("result", result, str | Path))
    record, classifier = read_result(result), load_model(result / CLASSIFIER)
    shape, how = tuple(record["image_shape"]), record["codes"]
    if how["from"] == GIVEN and codes is None:
        raise LalibError(f"{result} was made from a file of codes, not from images: give codes= those of these images")
    if how["from"] != GIVEN and codes is not None:
        raise ValueError(f"codes must be None: {result} makes them of the images")
    if not isinstance(images, ImageSet):
        images = from_folder(images, shape[1:], labels="none", bad_files=bad_files)
    if how["from"] == GIVEN:
        inputs = load_codes(codes, images) if isinstance(codes, str | Path) else check_codes(codes, n=len(images))
    elif images.image_shape[1:] != shape[1:]:
        wanted, got = ("{} x {}".format(*size) for size in (shape[1:], images.image_shape[1:]))
        raise ValueError(f"images must be of {wanted} pixels, as those of the result, got {got}")
    else:
        inputs = replace(images, images=_coloured(images.images, shape[0]))
        if how["from"] == MODEL:
            inputs = encode(load_model(result / ENCODER), inputs)
        elif how["from"] == NETWORK:
            weights = how["weights"] if how["weights"] == "DEFAULT" else result / how["weights"]
            inputs = encode(PretrainedEncoder(how["name"], weights), inputs)
        elif how["from"] != PIXELS:
            raise LalibError(f"{result} was made from {how['from']!r}, which this version does not know")
    sure, guess = predict_proba(classifier, inputs).max(dim=1)
    return table_of(images, [record["class_names"][number] for number in guess], sure.tolist())


def read_result(result: str | Path) -> dict:
    """What result.json in the folder `result` says; LalibError if it is damaged or that of something else."""
    path = Path(result) / RECORD
    if not path.is_file():
        raise FileNotFoundError(f"result must be a folder that write_result has written, got {str(result)!r}")
    with suppress(ValueError):
        record = json.loads(path.read_text(encoding="utf-8"))
        whole = isinstance(record, dict) and {"class_names", "image_shape", "codes"} <= record.keys()
        if whole and record.get("format") == FORMAT:
            return record
    raise LalibError(f"{path} is damaged, or not of this version of lalib: its format must be {FORMAT!r}")


def table_of(images: ImageSet, said: list[str], sure: list[float]) -> "pd.DataFrame":
    """file, class and probability of every image."""
    import pandas as pd

    files = images.files or list(map(str, range(len(images))))
    return pd.DataFrame({"file": files, "class": said, "probability": sure}).round(4)


def write_predictions(path: str | Path, table: "pd.DataFrame") -> Path:
    """Write a table of apply_result as CSV, whole or not at all."""
    return write_rows(path, table.columns, table.itertuples(index=False))


def _coloured(pixels: Tensor, channels: int) -> Tensor:
    """Images (N, 1 or 3, H, W) with so many channels: grey ones three times, or the luminance of those in colour."""
    if pixels.shape[1] > channels:
        return (pixels.float() * torch.tensor(LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True).round().to(torch.uint8)
    return pixels.expand(-1, channels, -1, -1)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder, which takes the place of `folder` if the block ends well; LalibError, and the earlier one stays,
    if the disk says no. ValueError for a folder that holds anything but a result."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder, got {str(folder)!r}, which is a file")
    foreign = [path for path in folder.glob("*") if path.name not in FILES]
    if foreign := sorted(path.name for path in foreign if path.is_dir() or not path.name.startswith(".")):
        raise ValueError(f"folder must be new, empty or hold an earlier result alone; {folder} has {listed(foreign)}")
    new, old = (folder.with_name(f".{folder.name}.{uuid.uuid4().hex}") for _ in range(2))
    try:
        new.mkdir(parents=True)
        yield new
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            with suppress(FileNotFoundError):
                old.rename(folder)
            raise
    except (OSError, SafetensorError) as error:  # to which a full disk is none of the system's errors
        said = f"the result could not be written to {folder} ({error}): is a file of it open, or the disk full?"
        raise LalibError(f"{said} An earlier result is as it was") from error
    finally:
        for path in (new, old):
            shutil.rmtree(path, ignore_errors=True)


def _keep_encoder(made: Path, loop: "LabellingLoop", encoder) -> dict:
    """What result.json says of where codes come from; what they need is put beside it."""
    if loop.data.task.on_pixels:
        return {"from": PIXELS}
    if encoder is None:
        return {"from": GIVEN, "dims": loop.data.codes.shape[1]}
    few = range(min(PROBED, len(loop.images)))
    theirs, ours = encode(encoder, loop.images.subset(few)), loop.data.codes[few]
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, rtol=0.01, atol=0.01 * float(ours.std())):
        this = f"this {type(encoder).__name__} gives others"
        raise ValueError(f"encoder must be the one whose codes the loop has, {this}")
    if not isinstance(encoder, PretrainedEncoder):
        save(encoder, made / ENCODER)
        return {"from": MODEL, "model": type(encoder).__name__}
    if (weights := encoder.weights) is None:
        raise ValueError(f"encoder must have weights that can be had again, those of this {encoder.name} are drawn")
    if weights != "DEFAULT":
        weights = shutil.copyfile(weights, made / f"{WEIGHTS}{Path(weights).suffix}").name
    return {"from": NETWORK, "name": encoder.name, "weights": weights}
