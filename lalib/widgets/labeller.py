"""The labeller: images one by one or in sheets, answered by keys or buttons; each answer is saved as it is given."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import anywidget
import pandas as pd
import torch
import traitlets

from lalib.data.checks import LalibError, check_choice, check_int, check_type
from lalib.data.decoding import FAULT, read_whole
from lalib.data.door import as_tensor, check_index
from lalib.data.imageset import ImageSet, png_uri
from lalib.labelling import Answer, LabelStore
from lalib.labelling.answers import numbered

NONE, UNSURE, SKIP = -1, -2, -3  # as in labeller.js; classes are 0, 1, ...
OTHERS = {"unsure": UNSURE, "skip": SKIP}
KEYS = "1234567890qwertyiopadfghjklxcbn"  # of the classes; the others stand for undo and so on
MOST = 2_000  # images that are sent to the browser at once
SHEET = 25
VIEWS = {"single": 1, "sheet": SHEET}


class Labeller(anywidget.AnyWidget):
    """A box that shows the images at `index`, takes a class for each, and puts it into the store at once.

        store = la.LabelStore("labels.sqlite", ["cat", "dog"], labeller="me")
        la.widgets.Labeller(images, store, query)
    images: the pool; index (M,): the query set, at most 2,000, copies of an image once. It begins at the first image
    that has no answer in the store, so that labelling goes on where it was, after a crash as well. Keys: 1, 2, ... for
    the classes, u not sure, s skip, z undo, the arrows to move, v for a sheet of 25; m tells what the model says, if
    there is one. On a sheet, clicks (with shift: up to here), the space bar, shift and the arrows, or * choose several
    images, of which the next answer is one; one undo takes it back. A menu finds the images of a class again.
    Images of a folder are shown as the files themselves: + - and the wheel zoom, . fits, shift and the arrows, or the
    mouse, move. A file that is gone, or holds another image than it did, is said, and the images' own pixels stay.
    groups (N,): numbers of groups of near copies, or what la.codes.near_duplicates returns. One image of each is shown;
    the comma opens the others (at most 24) as a sheet, all of them chosen. Only then an answer is theirs, too.
    probs: class probabilities (N, C) of all images, a column for each of store.class_names, or a function from an index
    (1,) to (1, C), which is asked no earlier than that. view: "single" or "sheet". on_answer: called with (image's
    index, Answer, or None after an undo) when it is saved. focused: take the keys as soon as it is shown.
    What the page says is saved is on the disk. What cannot be saved is said in red, and the image shown again.
    """

    pictures, captions, classes, shortcuts = (traitlets.List(traitlets.Unicode()).tag(sync=True) for _ in range(4))
    answers, copied = (traitlets.List(traitlets.Int()).tag(sync=True) for _ in range(2))
    sheet = traitlets.Int(1).tag(sync=True)
    suggests, focused, whole = (traitlets.Bool(False).tag(sync=True) for _ in range(3))
    _esm = Path(__file__).with_name("labeller.js")
    _css = Path(__file__).with_name("labeller.css")

    def __init__(
        self,
        images: ImageSet,
        store: LabelStore,
        index: torch.Tensor | Sequence[int],
        *,
        probs: torch.Tensor | Callable[[torch.Tensor], torch.Tensor] | None = None,
        groups: torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None = None,
        view: str = "single",
        focused: bool = False,
        on_answer: Callable[[int, Answer | None], None] | None = None,
    ):
        self.images, self.store = check_type("store", store, LabelStore).adopt(images), store
        self.probs = probs if probs is None or callable(probs) else self._check_probs(probs, len(images))
        self.on_answer = on_answer
        index = check_index(index, len(images), "index").tolist()
        if len(index) > MOST:
            raise ValueError(f"index must hold at most {MOST} images to label at a time, got {len(index)}")
        shown, near = self._fold(index, groups)
        self.index, self._places = torch.tensor(shown, dtype=torch.int64), [*shown, *near]
        self._hashes, classes = [images.hashes[i] for i in self._places], list(store.class_names)
        super().__init__(
            pictures=[png_uri(picture.movedim(0, 2).numpy()) for picture in images.images[self._places]],
            captions=list(self._captions(near)),
            copied=[place for place, _ in near.values()],
            classes=classes,
            shortcuts=[*KEYS, *[""] * len(classes)][: len(classes)],
            answers=self._answers(),
            sheet=VIEWS[check_choice("view", view, VIEWS)],
            suggests=probs is not None,
            focused=focused,
            whole=bool(images.files and images.identities),
        )
        self.on_msg(self._hear)

    @property
    def remaining(self) -> torch.Tensor:
        """Those of `index` that this labeller has not answered, or skipped, (R,) int64."""
        open_ = [place for place, answer in enumerate(self._answers()[: len(self.index)]) if answer in (NONE, SKIP)]
        return self.index[torch.tensor(open_, dtype=torch.int64)]

    def answer(self, place: int, label: str | int | None) -> None:
        """Answer for the image index[place], as a key does: with a class name or number, or None for "not sure".

        Raises ValueError for a label that is no class, LalibError if it cannot be saved.
        """
        place = check_int("place", place, low=0, high=len(self.index) - 1)
        if isinstance(label, str):
            label = int(numbered([label], self.store.class_names)[0])
        self._save([place], UNSURE if label is None else check_int("label", label, low=0, high=len(self.classes) - 1))
        self._report([place])

    def refresh(self) -> None:
        """Show what has come into the store from elsewhere, too; LalibError if that has other classes now."""
        if tuple(self.classes) != self.store.class_names:
            raise LalibError(f"{self.store.path} has other classes than this labeller shows: make it anew")
        self.answers = self._answers()

    def _answers(self):
        given = self.store.answers()
        number = {name: c for c, name in enumerate(self.store.class_names)}
        said = (given.get(image) for image in self._hashes)
        return [NONE if a is None else OTHERS[a.kind] if a.kind in OTHERS else number[a.class_name] for a in said]

    def _check_probs(self, probs, rows):
        probs, shape = as_tensor(probs, "probs"), (rows, len(self.store.class_names))
        if tuple(probs.shape) != shape:
            raise ValueError(f"probs must have shape {shape}, one column per class, got {tuple(probs.shape)}")
        return probs

    def _fold(self, index, groups):
        """The first at `index` of exact copies and of every group; {index: (its place, how near)} of near copies."""
        groups, near = groups if isinstance(groups, tuple) else (groups, None)
        hashes = self.images.hashes
        groups = torch.arange(len(hashes)) if groups is None else as_tensor(groups, "groups")
        if groups.shape != (len(hashes),):
            raise ValueError(f"groups must be one number per image, ({len(hashes)},), got {tuple(groups.shape)}")
        near = [None] * len(hashes) if near is None else near.tolist()
        table = pd.DataFrame({"group": groups.tolist(), "image": hashes, "near": near})
        shown = table.loc[index].drop_duplicates("image").drop_duplicates("group")
        rest = table[table["group"].isin(shown["group"]) & ~table["image"].isin(shown["image"])]
        rest = rest.sort_values("near", kind="stable").drop_duplicates("image").groupby("group").head(SHEET - 1)
        place = {group: number for number, group in enumerate(shown["group"])}
        return shown.index.tolist(), {row.Index: (place[row.group], row.near) for row in rest.itertuples()}

    def _captions(self, near):
        files, alike = self.images.files, Counter(self.images.hashes)
        for i, image in zip(self._places, self._hashes, strict=True):
            exact = f"; exact copies: {alike[image] - 1}" if alike[image] > 1 else ""
            far = near.get(i, (0, None))[1]
            close = "" if far is None else f"; its nearest copy is at {far:.0%} of the usual distance"
            yield (files[i] if files else f"number {i} of the pool") + exact + close

    def _hear(self, _, message, buffers):
        """Do what a message of labeller.js asks for, and reply."""
        does = {"answer": self._answer, "undo": self._undo, "suggest": self._suggest, "file": self._file}
        try:
            reply = does[message["kind"]](message)
        except LalibError as error:
            reply = {"kind": "refused", "why": str(error)}
            if message["kind"] == "answer":  # those before it stand
                reply["answers"] = [self.answers[place] for place in message["images"]]
        data = reply.pop("data", None)
        self.send(reply | {"number": message["number"]}, None if data is None else [data])
        if reply["kind"] in ("saved", "undone"):
            self._report(reply["images"])

    def _report(self, places):
        if self.on_answer is not None:
            given = self.store.answers()
            for place in places:
                self.on_answer(self._places[place], given.get(self._hashes[place]))

    def _save(self, places, number):
        others = {UNSURE: self.store.unsure, SKIP: self.store.skip}
        put = others.get(number, lambda images: self.store.put(images, number))
        put([self._hashes[place] for place in places])
        answers = list(self.answers)  # not read anew, which could fail
        for place in places:
            answers[place] = number
        self.answers = answers

    def _answer(self, message):
        self._save(message["images"], message["answer"])
        return {"kind": "saved", "images": message["images"]}

    def _undo(self, message):
        self.refresh()  # before anything is taken back
        taken = [self.store.undo() for _ in range(message["count"])]
        self.refresh()
        strange = [answer.time for answer in taken if answer.image not in self._hashes]
        if strange:
            when = strange[0][:16].replace("T", " ")
            return {"kind": "refused", "why": f"Taken back: an answer of {when} UTC to an image not shown here."}
        places = [self._hashes.index(answer.image) for answer in taken]
        return {"kind": "undone", "images": places, "answers": [self.answers[place] for place in places]}

    def _suggest(self, message):
        place = message["image"]
        index = torch.tensor(self._places[place])[None]
        row = self._check_probs(self.probs(index), 1) if callable(self.probs) else self.probs[index]
        first, second = (f"{self.store.class_names[c]} ({p:.0%})" for p, c in zip(*row[0].topk(2), strict=True))
        return {"kind": "suggestion", "image": place, "text": f"The model says {first}, then {second}."}

    def _file(self, message):
        place = message["image"]
        reply, name = {"kind": "file", "image": place}, self.images.files[self._places[place]]
        stays = "It is shown as it was read, in fewer pixels."
        if not (file := Path(self.images.source, name)).is_file():
            return reply | {"trouble": f"The file {name} is gone. {stays}"}
        try:
            kind, data, size, shown, image = read_whole(file)
        except FAULT as error:
            why = getattr(error, "strerror", None) or error
            return reply | {"trouble": f"The file {name} cannot be read ({why}). {stays}"}
        if image != self._hashes[place]:
            return reply | {"trouble": f"The file {name} holds another image than when it was read. {stays}"}
        whole, part = ("{:,} x {:,}".format(*each) for each in (size, shown))
        note = f"{whole} pixels" if shown == size else f"{part} of {whole} pixels: the file is large"
        return reply | {"type": kind, "note": note, "data": data}
