"""Labels and selections as CSV files, for spreadsheets and people: UTF-8 with a byte-order mark, as Excel wants it."""

import csv
import re
import reprlib
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from lalib.data import ImageSet
from lalib.data.checks import check_type
from lalib.data.door import check_index
from lalib.data.files import written_whole
from lalib.labelling.answers import Answer, check_answer, composed
from lalib.labelling.store import Imported, LabelStore, check_path


def write_selection(
    path: str | Path, images: ImageSet, index: torch.Tensor | Sequence[int], store: LabelStore | None = None
) -> Path:
    """The images at `index` (n,) as a list to label by hand: index, file name if there is one, image (the hash) and a
    column "class", empty but for what the store's labeller has named. Once that is filled in, read_csv reads it."""
    index = check_index(index, len(check_type("images", images, ImageSet)))
    chosen = images.subset(index)
    if store is not None:
        check_type("store", store, LabelStore).adopt(images)
    known = {} if store is None else store.classes()
    classes = [known.get(image, "") for image in chosen.hashes]
    rows = zip(index.tolist(), chosen.files or [""] * len(chosen), chosen.hashes, classes, strict=True)
    return _write(path, ("index", "file", "image", "class"), rows)


def write_csv(store: LabelStore, path: str | Path) -> Path:
    """All answers that count, of all labellers: labeller, time, image (the hash), kind ("class", "unsure" or "skip"),
    class. What was replaced or undone stays behind."""
    labellers = check_type("store", store, LabelStore).labellers
    answers = [answer for name in labellers for answer in store.answers(name).values()]
    return _write(path, ("labeller", "time", "image", "kind", "class"), answers)


def _write(path, header, rows):
    path = Path(check_type("path", path, str | Path))
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read_csv(store: LabelStore, path: str | Path, images: ImageSet | None = None) -> Imported:
    """Add the answers of a CSV file to the store: all lines that make sense, at once; the others are named by number.

    Columns, in any order and separated by commas, semicolons or tabs, below Excel's line "sep=;" or without it: image
    (the hash) and class; labeller (else the store's own), time (else now) and kind (else "class") if they are there.
    A line with neither class nor kind is unanswered. Answers in the store give way to later ones only. Of two lines of
    one labeller on one image that differ, the second is bad. images: if given, lines of other images are bad.
    Raises ValueError for a file that is not there or lacks these columns, LalibError where the store does.
    """
    path, store = check_path(path, "CSV"), check_type("store", store, LabelStore)
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
    lines = re.split(r"\r\n|\r|\n", composed(path.read_bytes().decode("utf-8-sig", "replace")))
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
    return dict(zip(header, map(str.strip, row), strict=True))
