"""What a labeller may say of an image, and the checks of names, hashes and times that come from people and files."""

import datetime
import re
from collections.abc import Sequence
from typing import NamedTuple

from lalib.data.checks import check_choice
from lalib.data.door import check_class_names, check_name

KINDS = ("class", "unsure", "skip")
UNSURE_CHOICE = "(not sure)"  # stands among the classes where a program has no other place for "unsure"
HASH = re.compile("[0-9a-f]{64}")


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
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def check_store_classes(names: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes of a store, at least two, none of which stands for "not sure"."""
    names = check_class_names(names)
    if UNSURE_CHOICE in names:
        raise ValueError(f"class_names must not hold {UNSURE_CHOICE!r}, which stands for no class")
    if len(names) < 2:
        raise ValueError(f"class_names must be at least 2, got {len(names)}")
    return names


def check_hash(image: str) -> str:
    """`image` if it has the form of ImageSet.hashes."""
    if not isinstance(image, str):
        raise TypeError(f"image must be a hash, such as images.hashes[0], got {image!r}")
    if not HASH.fullmatch(image):
        raise ValueError(f"image must be a hash of 64 characters 0-9 and a-f (images.hashes), got {image!r}")
    return image


def check_time(time: str) -> str:
    """`time`, ISO 8601, in the form in which the file has it: UTC, microseconds; a time without zone is in UTC.

    Raises ValueError for one that lies more than a day ahead: it would outlast all answers until then.
    """
    try:
        moment = datetime.datetime.fromisoformat(time)
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"time must be ISO 8601 such as {now()!r}, got {time!r}") from error
    if moment - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=1):
        raise ValueError(f"time must not lie in the future, got {time!r}")
    return moment.isoformat(timespec="microseconds")


def check_answer(answer: Answer, class_names: tuple[str, ...]) -> Answer:
    """`answer` with its time in the file's form; ValueError unless the store could have given it."""
    check_name("labeller", answer.labeller)
    check_hash(answer.image)
    check_choice("kind", answer.kind, KINDS)
    if answer.kind == "class":
        check_choice("class", answer.class_name, class_names)
    elif answer.class_name is not None:
        raise ValueError(f"an answer of kind {answer.kind!r} has no class, got {answer.class_name!r}")
    return answer._replace(time=check_time(answer.time))
