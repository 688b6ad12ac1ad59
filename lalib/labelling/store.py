"""LabelStore: who labelled which image as what, and when, in one SQLite file; every answer is on disk when put returns.

The file is self-explaining to any SQLite program: `SELECT * FROM answers`.
"""

import csv
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from lalib.data import ImageSet, LalibError
from lalib.data.checks import SHOWN, check_choice, check_int, check_type, listed
from lalib.data.door import check_index, check_name
from lalib.labelling.answers import KINDS, Answer, check_answer, check_store_classes, composed, now, numbered
from lalib.labelling.sqlite import check_file, transaction
from lalib.models.networks import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

INSERT = "INSERT INTO events (labeller, time, image, kind, class, undone) VALUES (?, ?, ?, ?, ?, ?)"
STANDS = "SELECT kind, class, time FROM answers WHERE labeller = ? AND image = ?"
HERE = "SELECT 1 FROM events WHERE labeller = ? AND time = ? AND image = ? AND kind = ? AND class IS ?"


class Progress(NamedTuple):
    """How many different images are labelled, answered with "not sure", skipped, and not answered at all."""

    labelled: int
    unsure: int
    skipped: int
    left: int

    def __str__(self) -> str:
        return "{} of {total} labelled, {} not sure, {} skipped, {} left".format(*self, total=sum(self))


@dataclass(frozen=True, repr=False)
class Imported:
    """What became of a file of answers. added, known: how many were new, how many were here before; unanswered: images
    without an answer; bad: what is wrong with other lines; older: so many of those added do not count, since the
    labeller has answered here later."""

    added: int
    known: int
    older: int
    unanswered: int = 0
    bad: tuple[str, ...] = ()

    def __repr__(self) -> str:
        older = f" ({self.older} older than the answers here, which stand)" if self.older else ""
        counts = f"{self.added} answers added{older}, {self.known} known, {self.unanswered} unanswered"
        more = [f"and {len(self.bad) - SHOWN} more in .bad"] if len(self.bad) > SHOWN else []
        return "\n".join([f"Imported: {counts}, {len(self.bad)} bad", *self.bad[:SHOWN], *more])


class LabelStore:
    """The labels that `labeller` gives to images, in the SQLite file `path`, which is made if it is not there.

        store = LabelStore("labels.sqlite", ["cat", "dog"], labeller="me")
        store.put(images.hashes[17], "dog")

    class_names: in the order of the class numbers; those of the file if None. labeller: who answers through this
    object. The file may hold several labellers and may be open in several kernels; there is nothing to close.
    Images are told apart by their pixels (ImageSet.hashes), those of a folder by the pixels of their files: renaming,
    sorting and adding files and another size= lose nothing, copies of an image have one label. `adopt` takes over what
    earlier versions of lalib have written. `history` keeps what was undone or replaced.
    Network drives without working file locks are no place for a file that two kernels use.
    Raises TypeError and ValueError for wrong names; LalibError, here and in every method, for a file that is damaged,
    foreign, of other classes, write-protected, locked for long, or on a full disk: nothing was saved then.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str] | None = None, *, labeller: str):
        self.path = Path(check_type("path", path, str | Path)).absolute()
        self.labeller = check_name("labeller", labeller)
        if not self.path.parent.is_dir():
            raise ValueError(f"path must lie in a folder that is there, got {str(self.path)!r}")
        check_file(self.path, class_names)

    def __repr__(self) -> str:
        return f"LabelStore({str(self.path)!r}, labeller={self.labeller!r})"

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their numbers, as the file has them now: another kernel may add or rename one."""
        return tuple(name for (name,) in self._rows("SELECT name FROM classes ORDER BY number"))

    @property
    def labellers(self) -> tuple[str, ...]:
        """All who have a standing answer in the file, in alphabetical order."""
        return tuple(name for (name,) in self._rows("SELECT DISTINCT labeller FROM answers ORDER BY 1"))

    # Answering

    # image: its hash, or a list of several, which are then all saved, or none.

    def put(self, image: str | Sequence[str], label: str | int) -> None:
        """Label an image, by its hash, with a class name or number, else ValueError. It replaces an earlier answer."""
        classes = self.class_names
        if isinstance(label, str):
            label = check_choice("label", composed(label), classes)
        else:
            label = classes[check_int("label", label, low=0, high=len(classes) - 1)]
        self._say(image, "class", label, classes)

    def unsure(self, image: str | Sequence[str]) -> None:
        """Answer "not sure": looked at, but without a class."""
        self._say(image, "unsure")

    def skip(self, image: str | Sequence[str]) -> None:
        """Leave an image for later: it comes last in `remaining`."""
        self._say(image, "skip")

    def _say(self, image, kind, class_name=None, classes=()):
        images = image if isinstance(image, list | tuple) else [image]
        said = (Answer(self.labeller, None, image, kind, class_name) for image in images)
        answers = [check_answer(answer, classes) for answer in said]
        with transaction(self.path, write=True) as connection:
            last = connection.execute("SELECT max(time) FROM events WHERE labeller = ?", (self.labeller,)).fetchone()[0]
            late = [answer._replace(time=max(answer.time, last or "")) for answer in answers]  # a clock was set back?
            connection.executemany(INSERT, [(*answer, None) for answer in late])

    def undo(self) -> Answer:
        """Take back this labeller's last answer that stands, and return it; LalibError if there is none.

        An earlier answer to that image counts again. Repeat it to go further back, also into earlier sessions.
        """
        with transaction(self.path, write=True) as connection:
            query = "SELECT * FROM standing WHERE labeller = ? ORDER BY time DESC, id DESC LIMIT 1"
            last = connection.execute(query, (self.labeller,)).fetchone()
            if last is None:
                raise LalibError(f"{self.labeller!r} has no answer in {self.path} to undo")
            undone, answer = last[0], Answer(*last[1:])
            connection.execute(INSERT, (self.labeller, max(now(), answer.time), answer.image, "undo", None, undone))
        return answer

    def add(self, answers: Iterable[Answer]) -> Imported:
        """Add answers from elsewhere, of any labeller: all of them, or none if the store is in trouble.

        Of a labeller's two answers to an image the later one counts; of equal times the one added last. An answer is
        known, and not added, if it says what counts already, or if the file has it with this time (it may have been
        undone). Raises TypeError and ValueError for an answer that the store could not have given.
        """
        classes = self.class_names
        answers = [check_answer(answer, classes) for answer in check_type("answers", answers, Iterable)]
        added = older = 0
        with transaction(self.path, write=True) as connection:
            for answer in sorted(answers, key=lambda answer: answer.time):
                stands = connection.execute(STANDS, (answer.labeller, answer.image)).fetchone()
                here = connection.execute(HERE, answer).fetchone() or (stands and stands[:2] == answer[3:])
                if not here:
                    connection.execute(INSERT, (*answer, None))
                    added += 1
                    older += stands is not None and stands[2] > answer.time
        return Imported(added, len(answers) - added, older)

    def add_read(self, said: Iterable[tuple[str, Callable[[], Answer | None]]]) -> Imported:
        """Add what the lines of a file say. said: the name of each line, and a function that gives its answer.

        None is unanswered; what raises TypeError, ValueError or csv.Error is bad. An answer that comes twice is one.
        """
        answers, bad = [], []
        for name, read in said:
            try:
                answers.append(read())
            except (TypeError, ValueError, csv.Error) as error:
                bad.append(f"{name}: {error}")
        done = self.add(dict.fromkeys(filter(None, answers)))
        return replace(done, unanswered=answers.count(None), bad=tuple(bad))

    def adopt(self, images: ImageSet) -> ImageSet:
        """Take over answers to these images that hang on hashes of earlier versions of lalib; returns the images.

        Those versions knew an image of a folder by its resized pixels, grey or in colour as all were. Their answers
        are found if `images` were loaded in the size= of then. Afterwards they hang on today's hashes, for any size=; a
        warning says so. Every method and widget that takes images and a store begins with this.
        """
        former = check_type("images", images, ImageSet).former
        events = self._rows("SELECT image, id FROM events") if former else ()
        if old := [(image, event) for image, event in events if image in former]:
            with transaction(self.path, write=True) as connection:
                for _, *row in connection.execute("SELECT * FROM answers").fetchall():
                    answer = Answer(*row)
                    for image in former.get(answer.image, ())[1:]:  # several files that looked the same once resized
                        connection.execute(INSERT, (*answer._replace(image=image), None))
                owns = [(former[image][0], event) for image, event in old]
                connection.executemany("UPDATE events SET image = ? WHERE id = ?", owns)
            count = len({image for image, _ in old})
            said = f"{self.path} had answers to {count} of these images by their resized pixels, as lalib once did"
            warnings.warn(f"{said}: from now on they hang on the files' own pixels, whatever the size=", stacklevel=3)
        return images

    # Classes

    def add_class(self, name: str) -> None:
        """Let there be one more class, the last one. Raises ValueError for a name that cannot be one, or is one."""
        classes = check_store_classes([*self.class_names, name])
        with transaction(self.path, write=True) as connection:
            connection.execute("INSERT INTO classes VALUES ((SELECT max(number) + 1 FROM classes), ?)", (classes[-1],))

    def rename_class(self, old: str, new: str) -> None:
        """Call a class otherwise: all answers of it, and those that were undone, have the new name from now on.

        Raises ValueError for a class that is not there and for a name that cannot be one, or is one.
        """
        old = check_choice("old", composed(old), former := self.class_names)
        place = former.index(old)
        new = check_store_classes([*former[:place], new, *former[place + 1 :]])[place]
        with transaction(self.path, write=True) as connection:
            connection.execute("PRAGMA defer_foreign_keys = ON")
            connection.execute("UPDATE classes SET name = ? WHERE name = ?", (new, old))
            connection.execute("UPDATE events SET class = ? WHERE class = ?", (new, old))

    # Reading

    def answers(self, labeller: str | None = None) -> dict[str, Answer]:
        """What counts: the labeller's (default: this store's) last standing answers by hash, the oldest first."""
        rows = self._rows("SELECT * FROM answers WHERE labeller = ? ORDER BY time, id", self.check_labeller(labeller))
        return {answer.image: answer for answer in (Answer(*row) for _, *row in rows)}

    def classes(self, labeller: str | None = None) -> dict[str, str]:
        """{image's hash: class name} of the images to which the labeller gave a class."""
        return {image: answer.class_name for image, answer in self.answers(labeller).items() if answer.kind == "class"}

    def labels(self, images: ImageSet, labeller: str | None = None) -> torch.Tensor:
        """(N,) int64 class numbers of all images, -1 where the labeller gave no class: what la.M2 and others take.

        Classes are matched by name: the numbers are those of images.class_names; without class names those of the
        store. Warns if all answers are to other images: arrays may have been resized.
        Raises ValueError for a class that the images' class names lack; `labelled` keeps the store's classes.
        """
        images, answers = self.adopt(images), self.answers(labeller)
        if answers and answers.keys().isdisjoint(images.hashes):
            here = f"none of these {len(images)} of shape {images.image_shape}: were they loaded with another size?"
            warnings.warn(f"{self.path} holds answers to {len(answers)} images, but to {here}", stacklevel=2)
        given = (answers[image].class_name if image in answers else None for image in images.hashes)
        return numbered(given, images.class_names or self.class_names)

    def labelled(self, images: ImageSet, labeller: str | None = None) -> ImageSet:
        """Those of the images that have a class, with it and the store's class names. LalibError if none has."""
        bare = replace(check_type("images", images, ImageSet), labels=None, class_names=self.class_names)
        labels = self.labels(bare, labeller)
        index = torch.nonzero(labels != UNKNOWN)[:, 0]
        if not len(index):
            raise LalibError(f"none of the {len(images)} images is labelled in {self.path}")
        return replace(bare.subset(index), labels=labels[index])

    def oracle(self, images: ImageSet, labeller: str | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from indices (n,) to labels (n,), for Pool(store.oracle(images), size=len(images)).

        It reads the file when it is asked, numbers classes as `labels` does, and raises LalibError if one is missing.
        """
        size = len(check_type("images", images, ImageSet))

        def ask(index: torch.Tensor) -> torch.Tensor:
            index = check_index(index, size)
            labels = self.labels(images, labeller)[index]
            if missing := index[labels == UNKNOWN].tolist():
                raise LalibError(f"{len(missing)} of {len(index)} images have no label yet: {listed(missing)}")
            return labels

        return ask

    def progress(self, images: ImageSet) -> Progress:
        """How far this labeller is with these images; copies count once."""
        images, answers = self.adopt(images), self.answers()
        kinds = [answers[image].kind if image in answers else None for image in set(images.hashes)]
        return Progress(*(kinds.count(kind) for kind in (*KINDS, None)))

    def remaining(self, images: ImageSet) -> torch.Tensor:
        """Indices (M,) of the images still to see, copies once: the unanswered ones in order, then those skipped."""
        first, answers = first_places(self.adopt(images)), self.answers()
        unanswered = sorted(index for image, index in first.items() if image not in answers)
        skipped = [first[image] for image, a in answers.items() if a.kind == "skip" and image in first]
        return torch.tensor(unanswered + skipped, dtype=torch.int64)

    def history(self) -> "pd.DataFrame":
        """Everything that ever happened to the file, the oldest first: labeller, time, image, kind ("undo" as well),
        class, undone (whether it was taken back later)."""
        import pandas as pd

        undone = "id IN (SELECT undone FROM events WHERE kind = 'undo')"
        rows = self._rows(f"SELECT labeller, time, image, kind, class, {undone} FROM events ORDER BY time, id")
        table = pd.DataFrame(rows, columns=["labeller", "time", "image", "kind", "class", "undone"])
        return table.astype({"undone": bool})

    def _rows(self, query, *values):
        with transaction(self.path) as connection:
            return connection.execute(query, values).fetchall()

    def check_labeller(self, labeller: str | None) -> str:
        """The name of a labeller of the file, default this store's own; ValueError for one who is not known."""
        labeller = self.labeller if labeller is None else check_name("labeller", labeller)
        return labeller if labeller == self.labeller else check_choice("labeller", labeller, self.labellers)


def first_places(images: ImageSet) -> dict[str, int]:
    """{hash: index} of all images; of copies the first one's index."""
    hashes = check_type("images", images, ImageSet).hashes
    return {image: index for index, image in reversed(list(enumerate(hashes)))}
