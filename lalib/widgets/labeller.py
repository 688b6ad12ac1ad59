"""The labeller: images one by one or in sheets, answered by keys or buttons; each answer is saved as it is given."""

from collections.abc import Callable, Sequence
from pathlib import Path

import anywidget
import torch
import traitlets

from lalib.data.checks import LalibError, check_choice, check_type
from lalib.data.door import as_tensor, check_index
from lalib.data.imageset import ImageSet
from lalib.figures.marks import pixels, png
from lalib.labelling import Answer, LabelStore

NONE, UNSURE, SKIP = -1, -2, -3  # as in labeller.js; classes are 0, 1, ...
OTHERS = {"unsure": UNSURE, "skip": SKIP}
KEYS = "1234567890qwertyiopadfghjklxcbn"  # of the classes; the others stand for undo and so on
MOST = 2_000  # images that are sent to the browser at once
VIEWS = {"single": 1, "sheet": 25}


class Labeller(anywidget.AnyWidget):
    """A box that shows the images at `index`, takes a class for each, and puts it into the store at once.

        store = la.LabelStore("labels.sqlite", ["cat", "dog"], labeller="me")
        la.widgets.Labeller(images, store, query)
    images: the pool; index (M,): the query set, at most 2,000, copies of an image once. It begins at the first image
    that has no answer in the store, so that labelling goes on where it was, after a crash as well. Keys: 1, 2, ... for
    the classes, u not sure, s skip, z undo, the arrows to move, v for a sheet of 25; m tells what the model says, if
    there is one. probs: class probabilities (N, C) of all images, a column for each of store.class_names, or a function
    from an index (1,) to (1, C), which is asked no earlier than that. view: "single" or "sheet". on_answer: called with
    (image's index, Answer, or None after an undo) when it is saved. focused: take the keys as soon as it is shown.
    What the page says is saved is on the disk. What cannot be saved is said in red, and the image shown again.
    """

    pictures, captions, classes, shortcuts = (traitlets.List(traitlets.Unicode()).tag(sync=True) for _ in range(4))
    answers = traitlets.List(traitlets.Int()).tag(sync=True)
    sheet = traitlets.Int(1).tag(sync=True)
    suggests, focused = (traitlets.Bool(False).tag(sync=True) for _ in range(2))
    _esm = Path(__file__).with_name("labeller.js")
    _css = Path(__file__).with_name("labeller.css")

    def __init__(
        self,
        images: ImageSet,
        store: LabelStore,
        index: torch.Tensor | Sequence[int],
        *,
        probs: torch.Tensor | Callable[[torch.Tensor], torch.Tensor] | None = None,
        view: str = "single",
        focused: bool = False,
        on_answer: Callable[[int, Answer | None], None] | None = None,
    ):
        self.images, self.store = check_type("store", store, LabelStore).adopt(images), store
        self.probs = probs if probs is None or callable(probs) else self._check_probs(probs, len(images))
        self.on_answer = on_answer or (lambda image, answer: None)
        index = check_index(index, len(images), "index").tolist()
        if not index:
            raise ValueError("index must hold at least one image to label, got none")
        if len(index) > MOST:
            raise ValueError(f"index must hold at most {MOST} images to label at a time, got {len(index)}")
        first = {}  # of copies
        for i in index:
            first.setdefault(images.hashes[i], i)
        self._hashes, places = list(first), list(first.values())
        self.index, files, count = torch.tensor(places), images.files, len(store.class_names)
        super().__init__(
            pictures=[png(picture, side=1)[1] for picture in pixels(images.images[self.index])],
            captions=[Path(files[i]).name if files else f"number {i} of the pool" for i in places],
            classes=list(store.class_names),
            shortcuts=[*KEYS, *[""] * count][:count],
            answers=self._answers(),
            sheet=VIEWS[check_choice("view", view, VIEWS)],
            suggests=probs is not None,
            focused=focused,
        )
        self.on_msg(self._hear)

    @property
    def remaining(self) -> torch.Tensor:
        """Those of `index` that this labeller has not answered, or skipped, (R,) int64."""
        return self.index[[answer in (NONE, SKIP) for answer in self._answers()]]

    def refresh(self) -> None:
        """Show what has come into the store from elsewhere, too."""
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

    def _hear(self, _, message, buffers):
        """Do what a message of labeller.js asks for, and reply."""
        try:
            reply = {"answer": self._answer, "undo": self._undo, "suggest": self._suggest}[message["kind"]](message)
        except LalibError as error:
            reply = {"kind": "refused", "why": str(error)}
            if message["kind"] == "answer":  # the one before it stands
                reply["answer"] = self.answers[message["image"]]
        self.send(reply | {"number": message["number"]})
        if reply["kind"] in ("saved", "undone"):
            place = reply["image"]
            self.on_answer(int(self.index[place]), self.store.answers().get(self._hashes[place]))

    def _answer(self, message):
        place, number = message["image"], message["answer"]
        others = {UNSURE: self.store.unsure, SKIP: self.store.skip}
        others.get(number, lambda image: self.store.put(image, number))(self._hashes[place])
        self.answers = [*self.answers[:place], number, *self.answers[place + 1 :]]  # not read anew, which could fail
        return {"kind": "saved", "image": place}

    def _undo(self, _):
        answer = self.store.undo()
        if answer.image not in self._hashes:
            when = answer.time[:16].replace("T", " ")
            return {"kind": "refused", "why": f"Taken back: an answer of {when} UTC to an image not shown here."}
        self.refresh()
        place = self._hashes.index(answer.image)
        return {"kind": "undone", "image": place, "answer": self.answers[place]}

    def _suggest(self, message):
        place, index = message["image"], self.index[message["image"]][None]
        row = self._check_probs(self.probs(index), 1) if callable(self.probs) else self.probs[index]
        first, second = (f"{self.store.class_names[c]} ({p:.0%})" for p, c in zip(*row[0].topk(2), strict=True))
        return {"kind": "suggestion", "image": place, "text": f"The model says {first}, then {second}."}
