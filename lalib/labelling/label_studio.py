"""Selections as tasks for Label Studio, and its annotations back [LabelStudio].

A task's data carries the image's hash, which Label Studio keeps and exports: this is how answers find their image.

[LabelStudio] Label Studio task format, https://labelstud.io/guide/task_format
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import torch

from lalib.data import ImageSet, LalibError
from lalib.data.checks import check_type, listed
from lalib.data.door import check_index
from lalib.data.files import written_whole
from lalib.data.imageset import png_uri
from lalib.labelling.answers import UNSURE_CHOICE, Answer, check_answer, check_store_classes, composed
from lalib.labelling.store import Imported, LabelStore, check_path


def label_studio_config(class_names: Sequence[str]) -> str:
    """The labelling interface of a project, to be pasted under Settings > Labeling Interface > Code: one choice per
    class, and UNSURE_CHOICE. Its Skip button is "skip" here."""
    names = (*check_store_classes(class_names), UNSURE_CHOICE)
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in names)
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        '  <Choices name="class" toName="image" choice="single" showInline="true">\n'
        f"{choices}\n  </Choices>\n</View>\n"
    )


def write_label_studio(
    path: str | Path, images: ImageSet, index: torch.Tensor | Sequence[int], *, url: str | None = None
) -> Path:
    """The images at `index` (n,) as tasks of a Label Studio project (Import > JSON): image, sha256, index, file.

    url: what stands before the file names, where Label Studio finds the files: "https://server/photos/", or
    "/data/local-files/?d=photos/" for its local storage; ValueError if the images have no file names. None: the images
    themselves, as PNG inside the file, which needs no server but suits small images only.
    """
    index = check_index(index, len(check_type("images", images, ImageSet)))
    chosen = images.subset(index)
    if check_type("url", url, str | None) is not None and not chosen.files:
        raise ValueError("url needs images with file names, as from_folder gives them; url=None puts the images inside")
    where = (
        [url + quote(file) for file in chosen.files]
        if url is not None
        else map(png_uri, chosen.images.movedim(1, 3).numpy())
    )
    rows = zip(where, chosen.hashes, index.tolist(), chosen.files or [""] * len(chosen), strict=True)
    tasks = [{"data": dict(zip(("image", "sha256", "index", "file"), row, strict=True))} for row in rows]
    with written_whole(path := Path(check_type("path", path, str | Path))) as temporary:
        temporary.write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def read_label_studio(
    store: LabelStore, path: str | Path, images: ImageSet, labellers: Mapping[int | str, str] | None = None
) -> Imported:
    """Add the annotations of Label Studio's export (Export > JSON, not JSON-MIN) to the store, of all annotators.

    Skipped tasks (cancelled annotations) become "skip", UNSURE_CHOICE "unsure". Tasks without annotation are
    unanswered; annotations without a choice or with several are bad, and named. Drafts and predictions are passed over.
    labellers: names here of Label Studio's annotators, by e-mail or number; by default the e-mail address, or
    "label-studio-7" for number 7 where the export has no more.
    Raises ValueError for a file that is not there, LalibError for one that is no such export, or that of another
    project: tasks without a hash or with that of other images, choices that are no class here. Nothing is added then.
    """
    labellers = check_type("labellers", labellers, Mapping | None) or {}
    names = {composed(str(key)): name for key, name in labellers.items()}
    path, images = check_path(path, "JSON"), check_type("images", images, ImageSet)
    tasks = _tasks(path, images, check_type("store", store, LabelStore))
    return store.add_read(
        (name, partial(_answer, annotation, images.hash_of(task["data"]["sha256"]), names, store.class_names))
        for name, task in tasks
        for annotation in task["annotations"] or [None]
    )


def _tasks(path, images, store):
    """The tasks, each with a name for messages; LalibError unless it is an export, on these images and classes."""
    try:
        tasks = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise LalibError(f"{path} is damaged, it is not JSON: {error}") from error
    try:
        annotations = [annotation for task in tasks for annotation in task["annotations"]]
        parts = [task["data"] for task in tasks] + [part for each in annotations for part in each["result"]]
    except (TypeError, KeyError):
        parts = [None]
    if not isinstance(tasks, list) or not all(isinstance(part, dict) for part in parts):
        raise LalibError(f"{path} is no export of Label Studio with tasks and annotations: choose JSON, not JSON-MIN")
    tasks = [(f"task {task.get('id', f'at place {place}')}", task) for place, task in enumerate(tasks, start=1)]
    hashes = {*images.hashes, *images.former}
    if strange := [name for name, task in tasks if str(task["data"].get("sha256")) not in hashes]:
        what = f"{len(strange)} of {len(tasks)} tasks are of none of the {len(images)} images by their data.sha256"
        raise LalibError(f"{path} is of another project: {what}: {listed(strange)}")
    if foreign := {choice for each in annotations for choice in _choices(each)} - {*store.class_names, UNSURE_CHOICE}:
        said, allowed = listed(sorted(map(repr, foreign))), ", ".join(map(repr, store.class_names))
        raise LalibError(f"{path} is of another project: it has the choices {said}; allowed are {allowed}")
    return tasks


def _choices(annotation):
    values = (result.get("value") for result in annotation["result"] if result.get("type") == "choices")
    lists = (value.get("choices") for value in values if isinstance(value, dict))
    return [composed(str(choice)) for choices in lists if isinstance(choices, list) for choice in choices]


def _answer(annotation, image, labellers, class_names):
    if annotation is None:
        return None
    choices, skipped = _choices(annotation), annotation.get("was_cancelled")
    if not skipped and len(choices) != 1:
        raise ValueError(f"has {len(choices)} choices ({listed(choices) or 'none'}), one is needed")
    kind = "skip" if skipped else "unsure" if choices == [UNSURE_CHOICE] else "class"
    class_name = choices[0] if kind == "class" else None
    who = annotation.get("completed_by")  # a number, or a record of the user
    number, email = (who.get("id"), who.get("email")) if isinstance(who, dict) else (who, None)
    labeller = labellers.get(composed(str(email))) or labellers.get(str(number)) or email or f"label-studio-{number}"
    time = annotation.get("updated_at") or annotation.get("created_at")
    return check_answer(Answer(labeller, time, image, kind, class_name), class_names)
