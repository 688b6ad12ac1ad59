"""What the page says in words: how far it is, what comes next, and what the last round has brought."""

from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from lalib.data.imageset import ImageSet
from lalib.labelling import LabellingLoop, LabelStore, Snapshot
from lalib.models.networks import UNKNOWN
from lalib.widgets.parts import counted

if TYPE_CHECKING:
    from lalib.widgets.workbench import Workbench

PAUSE, USUAL = 60, 3.0  # seconds: a longer gap between answers is a pause; an answer before any was given


def pace(store: LabelStore) -> float:
    """Seconds from an answer of this labeller to the next: the median of the last 100, pauses left out."""
    times = [datetime.fromisoformat(answer.time).timestamp() for answer in store.answers().values()][-100:]
    gaps = [later - before for before, later in pairwise(times) if later - before < PAUSE]
    return median(gaps) if len(gaps) > 4 else USUAL


def minutes(store: LabelStore, labels: int) -> str:
    """How long so many answers take this labeller."""
    seconds = labels * pace(store)
    return "less than a minute" if seconds < 60 else f"about {counted(round(seconds / 60), 'minute')}"


def foreign(store: LabelStore, images: ImageSet) -> str:
    """A sentence if all answers are to other images, else ""."""
    others = store.answers()
    if not others or others.keys() & set(images.hashes):
        return ""
    found = f"{counted(len(others), 'answer')} by {store.labeller} in {store.path}"
    return f"{found} are of none of these images, or of the images in another size."


def label_these(count: int) -> str:
    """What a button says that opens the labeller on so many images."""
    return f"Label {'this image' if count == 1 else f'these {count:,} images'}"


def brought(loop: LabellingLoop, curve: list[Snapshot], advice: str) -> list[str]:
    """What the last round has brought, and the advice whether to go on, in sentences."""
    if not curve:  # every answer is "not sure"
        return [advice]
    now = curve[-1]
    if now.accuracy != now.accuracy:
        said = ["How good it is cannot be said yet: label more of the yardstick."]
    else:
        right = f"{now.accuracy:.0%} of the {now.tested} yardstick images are right"
        ends = f"95 % interval {100 * now.low:.0f} to {100 * now.high:.0f} %"
        said = [f"With {counted(now.labels, 'label')} {right} ({ends})."]
    if len(curve) > 1:
        before, after = (s.probs.argmax(dim=1) for s in curve[-2:])
        truth = loop.store.labels(loop.data.images)[loop.held_out]
        hit, hits = ((guess[loop.held_out] == truth)[truth != UNKNOWN] for guess in (before, after))
        gained, lost = int((hits & ~hit).sum()), int((hit & ~hits).sum())
        count, other = now.answers - curve[-2].answers, int((before != after).sum())
        last = f"The last {counted(count, 'answer')}: {gained} of these newly right, {lost} newly wrong"
        said += [f"{last}; the prediction of {counted(other, 'image')} changed.", advice]
    return said


def next_step(bench: "Workbench") -> tuple[str, Callable[[], None] | None, str]:
    """What comes next: the button's words, what it does (None: nothing), and a sentence."""
    loop, many, waiting, left = bench.loop, bench.value("how many"), bench.unanswered, len(bench.unmeasured)
    answers, total = len(loop.answered[0]), len(loop.held_out)
    free = len(loop.pool) - answers
    if count := len(bench.chosen):
        words = f"{counted(count, 'image')} selected on the map: look at them, or label them."
        return label_these(count), bench.label_chosen, words
    if waiting:
        words = f"{counted(waiting, 'image')} left here, {minutes(bench.store, waiting)}: press the key of a class."
        return "Go on labelling", bench.go_on, words
    if left:
        words = f"Next: label the yardstick, {total} images drawn at random, {left} of them left "
        why = "They tell how good the classifier is, and it never learns from them."
        return f"Label the yardstick ({left} left)", bench.measure, f"{words}({minutes(bench.store, left)}). {why}"
    if bench.preparing:
        return "Not ready yet", None, f"{bench.preparing} Then the rounds begin."
    if answers and (new := bench.changed):
        return "Learn", bench.learn, f"Next: learn from {counted(new, 'new answer')}."
    stop, older = bool(bench.curve) and bench.advice.stop, _result(bench) != "written"
    if (stop or not free) and older and answers:
        why = f"Another {many} labels will hardly help" if stop else "All images have an answer"
        return "Write the result", bench.write, f"{why}. Next: write the result, or choose more yourself."
    if not free:
        return "All images have an answer", None, f"The result is in {bench.out}."
    missing = min(many - answers % many, free)
    done = "Next" if older else f"The result is in {bench.out}. Next, if you go on"
    words = f"{done}: {bench.value('strategy')} chooses {counted(missing, 'image')}, you label them"
    return f"Choose {missing} and label", bench.choose, f"{words} ({minutes(bench.store, missing)})."


def steps_in_words(bench: "Workbench") -> dict[str, str]:
    """How far each of the page's steps is, by name."""
    left, total = len(bench.unmeasured), len(bench.loop.held_out)
    rounds, now = counted(len(bench.loop.answered[0]), "answer"), bench.curve[-1] if bench.curve else None
    if now and now.accuracy == now.accuracy:
        rounds = f"{counted(now.labels, 'label')}, {now.accuracy:.0%} ({100 * now.low:.0f} to {100 * now.high:.0f})"
    return {
        "images": f"1 Images: {len(bench.images):,} ✓",
        "yardstick": f"2 Yardstick: {total - left} of {total}{'' if left else ' ✓'}",
        "rounds": f"3 Rounds: {rounds}",
        "result": f"4 Result: {_result(bench)}",
    }


def _result(bench):
    """Whether there is a result of all answers, from the files alone."""
    file = bench.out / "predictions.csv"
    if not file.exists():
        return "not yet"
    last = max((answer.time for answer in bench.store.answers().values()), default="")
    newer = last and datetime.fromisoformat(last).timestamp() > file.stat().st_mtime
    return "older than your last answers" if newer else "written"
