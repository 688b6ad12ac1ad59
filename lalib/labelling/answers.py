"""What a labeller may say of an image, and the checks of names, hashes and times that come from people and files."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import torch

from lalib.data.checks import check_choice, check_type, listed
from lalib.data.door import check_class_names, check_name
from lalib.models.networks import UNKNOWN

KINDS = ("class", "unsure", "skip")
UNSURE_CHOICE = "(not sure)"  # stands among the classes where a program has no other place for "unsure"


class Answer(NamedTuple):
    """What a labeller said of an image.

    image: its hash (ImageSet.hashes). kind: "class", "unsure" (looked at, cannot tell) or "skip" (later). class_name:
    None unless kind is "class". time: UTC as ISO 8601 with microseconds, so that text sorts as time.
    """

    labeller: str
    time: str
    image: str
    kind: str
    class_name: str | None


def now() -> str:
    """The time in UTC, as it stands in the file."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def check_store_classes(names: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes of a store, at least two, none of which stands for "not sure"."""
    names = check_class_names(names)
    if UNSURE_CHOICE in names:
        raise ValueError(f"class_names must not hold {UNSURE_CHOICE!r}, which stands for no class")
    if len(names) < 2:
        raise ValueError(f"class_names must be at least 2, got {len(names)}")
    return names


def composed(text):
    """`text` with its accents written in one way (NFC), as class names are; what is no text stays as it is."""
    return unicodedata.normalize("NFC", text) if isinstance(text, str) else text


def _check_time(time):
    """`time`, ISO 8601, in the file's form: UTC, microseconds. A time without zone is in UTC; None is now."""
    if time is None:
        return now()
    try:
        moment = datetime.fromisoformat(time)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"time must be ISO 8601 such as {now()!r}, got {time!r}") from error
    if moment - datetime.now(UTC) > timedelta(days=1):  # it would outlast all answers until then
        raise ValueError(f"time must not lie in the future, got {time!r}")
    return moment.isoformat(timespec="microseconds")


def check_answer(answer: Answer, class_names: tuple[str, ...]) -> Answer:
    """`answer` as the file has it: names in NFC, the time in UTC, that of now if it is None.

    Raises TypeError and ValueError unless the store could have given it.
    """
    check_type("answers", answer, Answer)
    labeller, class_name, image = check_name("labeller", answer.labeller), composed(answer.class_name), answer.image
    if not isinstance(image, str):
        raise TypeError(f"image must be a hash, such as images.hashes[0], got {image!r}")
    if not re.fullmatch("[0-9a-f]{64}", image):
        raise ValueError(f"image must be a hash of 64 characters 0-9 and a-f (images.hashes), got {image!r}")
    check_choice("kind", answer.kind, KINDS)
    if answer.kind == "class":
        check_choice("class", class_name, class_names)
    elif class_name is not None:
        raise ValueError(f"an answer of kind {answer.kind!r} has no class, got {class_name!r}")
    return Answer(labeller, _check_time(answer.time), image, answer.kind, class_name)


def numbered(given: Iterable[str | None], class_names: Sequence[str]) -> torch.Tensor:
    """The numbers (n,) int64 of the classes `given` by name, -1 for None; ValueError for a name that is not there."""
    given, numbers = list(given), {name: number for number, name in enumerate(class_names)} | {None: UNKNOWN}
    if foreign := sorted({*given} - {*numbers}):
        hint = f"got {foreign[0]!r}: store.labelled(images) gives the images the store's classes"
        raise ValueError(f"answers must be among the images' classes {listed(class_names)}, {hint}")
    return torch.tensor([numbers[name] for name in given], dtype=torch.int64)
