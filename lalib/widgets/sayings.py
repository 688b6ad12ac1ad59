"""What the page says in words: the pace of a person, and what the last round has brought."""

from datetime import datetime
from itertools import pairwise
from statistics import median

from lalib.labelling import LabellingLoop, LabelStore, Snapshot
from lalib.models.networks import UNKNOWN
from lalib.widgets.parts import counted

PAUSE, USUAL = 60, 3.0  # seconds: a longer gap between answers is a pause; an answer before any was given


def pace(store: LabelStore) -> float:
    """Seconds from an answer of this labeller to the next: the median of the last 100, pauses left out."""
    times = [datetime.fromisoformat(answer.time).timestamp() for answer in store.answers().values()][-100:]
    gaps = [later - before for before, later in pairwise(times) if later - before < PAUSE]
    return median(gaps) if len(gaps) > 4 else USUAL


def label_these(count: int) -> str:
    """What a button says that opens the labeller on so many images."""
    return f"Label {'this image' if count == 1 else f'these {count:,} images'}"


def brought(loop: LabellingLoop, curve: list[Snapshot], advice: str) -> list[str]:
    """What the last round has brought, and the advice whether to go on, in sentences."""
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
        count = now.answers - curve[-2].answers
        said.append(
            f"The last {counted(count, 'answer')}: {gained} of these newly right, {lost} newly wrong; "
            f"the prediction of {counted(int((before != after).sum()), 'image')} changed."
        )
        said.append(advice)
    return said
