"""Selections and answers as files of other programs: CSV for spreadsheets and people, JSON for Label Studio.

CSV is UTF-8 with a byte-order mark, as Excel wants it. Spreadsheets run cells that begin like a formula [OWASP]: these
get an apostrophe in front, which reading takes off. A task's data carries the image's hash, which Label Studio keeps
and exports [LabelStudio]: this is how answers find their image.

[OWASP] CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection
[LabelStudio] Label Studio task format, https://labelstud.io/guide/task_format
"""

import codecs
import csv
import json
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import count
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
from lalib.labelling.store import Imported, LabelStore

FORMULA = re.compile(r"\A'*[=+\-@\t\r]")  # with the apostrophes that are the cell's own, so that reading undoes it


def write_selection(
    path: str | Path, images: ImageSet, index: torch.Tensor | Sequence[int], store: LabelStore | None = None
) -> Path:
    """The images at `index` (n,) as a list to label by hand: index, file name if there is one, image (the hash) and a
    column "class", empty but for what the store's labeller has named. Once that is filled in, read_csv reads it."""
    index = check_index(index, len(check_type("images", images, ImageSet)))
    if store is not None:
        check_type("store", store, LabelStore).adopt(images)
    chosen, known = images.subset(index), {} if store is None else store.classes()
    classes = [known.get(image, "") for image in chosen.hashes]
    rows = zip(index.tolist(), chosen.files or [""] * len(chosen), chosen.hashes, classes, strict=True)
    return write_rows(path, ("index", "file", "image", "class"), rows)


def write_csv(store: LabelStore, path: str | Path) -> Path:
    """All answers that count, of all labellers: labeller, time, image (the hash), kind ("class", "unsure" or "skip"),
    class. What was replaced or undone stays behind."""
    labellers = check_type("store", store, LabelStore).labellers
    answers = [answer for name in labellers for answer in store.answers(name).values()]
    return write_rows(path, ("labeller", "time", "image", "kind", "class"), answers)


def write_rows(path: str | Path, header: Sequence[str], rows: Iterable[Sequence]) -> Path:
    """A CSV file that spreadsheets open, and none of whose cells of text they run. Written whole, or not at all."""
    path = Path(check_type("path", path, str | Path))
    rows = ([FORMULA.sub("'\\g<0>", cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def _read(path, what):
    """The bytes of the file `path`; ValueError if it is not there. what: the kind of file, for the message."""
    path = Path(check_type("path", path, str | Path))
    if not path.is_file():
        raise ValueError(f"path must be a {what} file, got {str(path)!r}, which is not there")
    return path.read_bytes()


def read_csv(store: LabelStore, path: str | Path, images: ImageSet | None = None) -> Imported:
    """Add the answers of a CSV file to the store: all lines that make sense, at once; the others are named by number.

    Columns, in any order and separated by commas, semicolons or tabs, below Excel's line "sep=;" or without it: image
    (the hash) and class; labeller (else the store's own), time (else now) and kind (else "class") if they are there.
    A line with neither class nor kind is unanswered. Answers in the store give way to later ones only. Of two lines of
    one labeller on one image that differ, the second is bad. images: if given, lines of other images are bad.
    Raises ValueError for a file that is not there or lacks these columns, LalibError where the store does.
    """
    check_type("store", store, LabelStore)
    known = None if images is None else set(check_type("images", images, ImageSet).hashes)
    header, lines, delimiter = _lines(path)
    firsts = {}  # (number of the line, answer) by labeller and image

    def answer(number, line):
        row = {"labeller": "", "time": "", "kind": ""} | _cells(line, header, delimiter)
        if not row["kind"] and not row["class"]:
            return None
        kind, class_name = (row["kind"] or "class").lower(), row["class"] or None
        image = row["image"] if images is None else images.hash_of(row["image"])
        given = Answer(row["labeller"] or store.labeller, row["time"] or None, image, kind, class_name)
        given = check_answer(given, store.class_names)
        if known is not None and given.image not in known:
            raise ValueError(f"image {given.image} is none of the {len(images)} images")
        first, said = firsts.setdefault((given.labeller, given.image), (number, given))
        if said[3:] != given[3:]:
            raise ValueError(f"line {first} has another answer of {given.labeller!r} to this image")
        return said

    numbered = ((number, line) for number, line in lines if line.strip(" " + delimiter))
    return store.add_read((f"line {number}", partial(answer, number, line)) for number, line in numbered)


def _lines(path):
    if (data := _read(path, "CSV")).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{path} must be UTF-8 text, got UTF-16: save the file as 'CSV UTF-8'")
    lines = re.split(r"\r\n|\r|\n", composed(data.decode("utf-8-sig", "replace")))
    top = int(len(lines) > 1 and lines[0].lower().startswith("sep="))
    first = lines[top][:100_000]  # that of a file of another kind may have no end
    delimiter = max(",;\t", key=first.count)
    header = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
    counts = Counter({"labeller": 1, "time": 1, "kind": 1} | Counter(header))  # these three may be missing
    if any(counts[name] != 1 for name in ("image", "class", "labeller", "time", "kind")):
        got = reprlib.repr(header)
        raise ValueError(f"{path} must have the columns image and class once in its first line, got {got}")
    return header, enumerate(lines[top + 1 :], start=top + 2), delimiter


def _cells(line, header, delimiter):
    """What a line says, by column. Lines are parsed one by one: a quotation mark too many spoils its own line only."""
    if "\ufffd" in line:
        raise ValueError("is not UTF-8 text: save the file as 'CSV UTF-8'")
    row = next(csv.reader([line], delimiter=delimiter, strict=True))
    if len(row) != len(header):
        raise ValueError(f"has {len(row)} cells, the first line has {len(header)}")
    cells = (cell[cell.startswith("'") and FORMULA.match(cell) is not None :] for cell in map(str.strip, row))
    return dict(zip(header, cells, strict=True))


# Label Studio


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
    inside = map(png_uri, chosen.images.movedim(1, 3).numpy())
    where = inside if url is None else [url + quote(file) for file in chosen.files]
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
    "label-studio-7" for number 7 where the export has no more. A task's annotations without an annotator are of
    different people, by default "label-studio-unknown-1" for its first, and so on; labellers has them as "unknown-1".
    Raises ValueError for a file that is not there, LalibError for one that is no such export, or that of another
    project: tasks without a hash or with that of other images, choices that are no class here. Nothing is added then.
    """
    labellers = check_type("labellers", labellers, Mapping | None) or {}
    names = {composed(str(key)): name for key, name in labellers.items()}
    tasks = _tasks(path, check_type("images", images, ImageSet), check_type("store", store, LabelStore))
    return store.add_read(
        (name, partial(_answer, annotation, images.hash_of(task["data"]["sha256"]), names, store.class_names))
        for name, task in tasks
        for annotation in _of_people(task["annotations"]) or [None]
    )


def _of_people(annotations):
    """The annotations, those without an annotator with a number of their own in the task."""
    unknown = (f"unknown-{number}" for number in count(1))
    return [a if _who(a) != (None, None) else a | {"completed_by": next(unknown)} for a in annotations]


def _who(annotation):
    """Number and e-mail of the annotator, None where the export does not tell."""
    who = annotation.get("completed_by")  # a number, or a record of the user
    return (who.get("id"), who.get("email") or None) if isinstance(who, dict) else (who, None)


def _tasks(path, images, store):
    """The tasks, each with a name for messages; LalibError unless it is an export, on these images and classes."""
    text = _read(path, "JSON")
    try:
        tasks = json.loads(text)
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
    number, email = _who(annotation)
    labeller = labellers.get(composed(str(email))) or labellers.get(str(number)) or email or f"label-studio-{number}"
    time = annotation.get("updated_at") or annotation.get("created_at")
    return check_answer(Answer(labeller, time, image, kind, class_name), class_names)
