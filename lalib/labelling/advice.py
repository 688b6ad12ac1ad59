"""Whether to go on labelling, in words for those who label."""

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from lalib.experiments.stopping import ROUNDS, Stopping, should_stop

# Of should_stop. Chosen on mnist-mini (10 seeds, tests/benchmarks/page.py): of the values tried that lose at most one
# point of accuracy on average the one that stops first. data/results/page.json says what it loses elsewhere.
KAPPA, WINDOWS, GAIN = 0.965, 3, 0.02


def advise(
    predictions: Tensor, answers: Sequence[int], accuracy: Sequence[float], more: int, classes: int, left: int
) -> Stopping:
    """should_stop with KAPPA, WINDOWS and GAIN, and a reason in plain words.

    predictions (R, S): classes of the same images after each round; answers (R,), accuracy (R,): how many answers there
    were and the accuracy then, NaN if it is not measured; more: answers of the next round; classes: how many different
    classes were answered; left: images without an answer.
    """
    if not left:
        return Stopping(True, "Every image has an answer.", *4 * (math.nan,))
    if len(predictions) < ROUNDS:
        many = f"that takes {ROUNDS} rounds of {more} answers, so far there are {len(predictions)}"
        return Stopping(False, f"Too early to say: {many}.", *4 * (math.nan,))
    if classes < 2:
        return Stopping(False, "Go on: all answers so far name the same class.", *4 * (math.nan,))
    measured = not any(map(math.isnan, accuracy))
    curve = (answers, accuracy) if measured else ()
    found = should_stop(predictions, *curve, more=more, kappa=KAPPA, windows=WINDOWS, gain=GAIN)
    changed = float((predictions[1:] != predictions[:-1])[-WINDOWS:].float().mean())
    said = f"of 100 images {100 * changed:.0f} are seen as another class after a round than before"
    most = f"the curve promises {max(100 * found.gain, 0):.1f} points more, at most {max(100 * found.high, 0):.1f}"
    if found.stop:
        reason = f"Another {more} labels will hardly help: {said}{'; ' + most if measured else ''}."
    elif found.kappa < KAPPA:
        reason = f"Go on: {said}; about {100 * (1 - KAPPA):.0f} or fewer would be few."
    else:
        reason = f"Go on: another {more} labels may be worth it: {most}."
    return replace(found, reason=reason)
