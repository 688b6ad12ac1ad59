"""When to stop asking for labels: once predictions stay as they are, and the curve promises little more.

[Bloodgood2009] M. Bloodgood and K. Vijay-Shanker, A method for stopping active learning based on stabilizing
                predictions and the need for user-adjustable stopping, CoNLL 2009.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch

from lalib.data.checks import check_int, check_number
from lalib.data.door import as_tensor, check_labels
from lalib.data.seeds import generator
from lalib.experiments import statistics

POWERS = np.geomspace(0.05, 4, 400)  # that are tried for c
ROUNDS = 4  # of a curve that can be fitted: one more than it has parameters


@dataclass(frozen=True)
class Stopping:
    """What should_stop found. The numbers that were not asked for, or for which there are too few rounds, are NaN."""

    stop: bool
    reason: str  # a sentence
    kappa: float  # mean over the last windows
    gain: float  # of accuracy that the next labels are expected to bring, in [0, 1]
    low: float
    high: float


def should_stop(
    predictions,
    labels=None,
    accuracy=None,
    *,
    more: int = 20,
    kappa: float = 0.99,
    windows: int = 3,
    gain: float = 0.01,
) -> Stopping:
    """Whether to stop, since another `more` labels will hardly help, or why not [Bloodgood2009].

    predictions (R, S): the classes that the model of each round, the first one first, says of the same S images. They
    need no labels, are best not asked for, and many. Predictions are stable if the
    mean of Cohen's kappa between a round and the next, over the last `windows` of them, is at least `kappa`.
    labels (R,), accuracy (R,): how many labels each round had, and its accuracy on images kept for this, if there are
    any. Then the upper end of expected_gain must be below `gain`, too.
    0.99 is careful: with networks trained afresh in every round it stopped no run on mnist-mini before the end, at 420
    labels, 20 at a time (tests/benchmarks/stopping.py, 10 seeds). A smaller kappa stops earlier.
    Raises ValueError for predictions, labels and accuracy of different rounds.
    """
    predictions, more = as_tensor(predictions, "predictions"), check_int("more", more, low=1)
    kappa, gain = check_number("kappa", kappa, low=-1, high=1), check_number("gain", gain, low=0)
    windows = check_int("windows", windows, low=1)
    if predictions.ndim != 2 or 0 in predictions.shape:
        raise ValueError(f"predictions must have shape (R, S) with R, S >= 1, got {tuple(predictions.shape)}")
    if (labels is None) != (accuracy is None):
        raise ValueError("labels and accuracy are the curve: give both or none")
    agreed = kappas(predictions)[-windows:]
    found = float(np.mean(agreed)) if len(agreed) == windows else float("nan")
    expected = 3 * (float("nan"),)
    if labels is not None:
        if len(labels) != len(predictions):
            raise ValueError(f"labels must be those of the {len(predictions)} rounds, got {len(labels)}")
        if len(predictions) >= ROUNDS:
            expected = expected_gain(labels, accuracy, more)
    said = f"kappa {found:.3f} between rounds, mean of the last {windows}"
    points = "{:.1f} points ({:.1f} to {:.1f})".format(*(100 * part for part in expected))
    if np.isnan(found):
        needed = f"{windows + 1} rounds are needed to see whether predictions are stable"
        stop, reason = False, f"{needed}, got {len(predictions)}"
    elif found < kappa:
        stop, reason = False, f"predictions still change: {said}, where {kappa:g} is stable"
    elif labels is not None and np.isnan(expected[0]):
        stop, reason = False, f"{ROUNDS} rounds are needed to see how the curve goes on, got {len(labels)}"
    elif expected[2] > gain:
        stop, reason = False, f"another {more} labels may bring {points}: {100 * gain:g} would be worth it"
    else:
        curve = "" if labels is None else f"; they are expected to bring {points}"
        stop, reason = True, f"another {more} labels will hardly help: {said}{curve}"
    return Stopping(stop, reason, found, *expected)


def kappas(predictions) -> np.ndarray:
    """Cohen's kappa between the predictions (R, S) of each round and the next, (R - 1,); 1 where they are the same."""
    from sklearn.metrics import cohen_kappa_score

    rows = [check_labels(row, name="predictions").cpu().numpy() for row in as_tensor(predictions, "predictions")]
    return np.array([1.0 if (a == b).all() else cohen_kappa_score(a, b) for a, b in itertools.pairwise(rows)])


def expected_gain(
    labels, accuracy, more: int = 20, *, confidence: float = 0.95, resamples: int = 500, seed: int = 0
) -> tuple[float, float, float]:
    """What `more` labels are expected to bring, in accuracy, and the ends of its percentile interval.

    labels (R,), ascending, accuracy (R,): a learning curve of one run or a mean. Fitted is the inverse power law
    a - b n^-c with b >= 0 and c among POWERS, by least squares; the gain is b (n^-c - (n + more)^-c) at the last n.
    The interval comes from `resamples` curves, the fitted one with its residuals drawn anew; `seed` fixes the draws.
    Residuals are scaled by sqrt(R / (R - 3)), as three numbers were fitted. It does not know of other forms of a curve.
    Raises ValueError for fewer than ROUNDS points.
    """
    counts = as_tensor(labels, "labels").double().cpu().numpy()
    curve = as_tensor(accuracy, "accuracy").double().cpu().numpy()
    if counts.shape != curve.shape or counts.ndim != 1 or len(counts) < ROUNDS:
        shapes = f"{counts.shape} and {curve.shape}"
        raise ValueError(f"labels and accuracy must be (R,) with R of at least {ROUNDS}, got {shapes}")
    if not (np.diff(counts) > 0).all() or counts[0] < 1 or counts[-1] == np.inf:
        raise ValueError(f"labels must be finite and ascend from 1 on, got {counts.tolist()}")
    if not ((curve >= 0) & (curve <= 1)).all():
        raise ValueError(f"accuracy must lie in [0, 1], got {curve.tolist()}")
    more, n = check_int("more", more, low=1), len(counts)
    (fitted,), (gain,) = _fits(counts, curve[None], more)
    drawn = torch.randint(n, (check_int("resamples", resamples, low=1), n), generator=generator(seed, "bootstrap"))
    residuals = (curve - fitted) * np.sqrt(n / (n - 3))
    gains = _fits(counts, fitted + residuals[drawn.numpy()], more)[1]
    tail = 1 - statistics.upper(confidence)
    most = 1 - curve[-1]  # no accuracy is above 1
    return tuple(float(min(part, most)) for part in (gain, *np.quantile(gains, [tail, 1 - tail])))


def _fits(counts, curves, more):
    """Fitted curves (M, R) and gains (M,) of curves (M, R)."""
    unit = counts[0]  # powers of counts / unit stay near 1
    x = -((counts / unit)[None] ** -POWERS[:, None])  # (P, R), rising
    centred = x - x.mean(1, keepdims=True)
    b = np.maximum(curves @ centred.T / (centred**2).sum(1), 0)  # (M, P)
    best = (b**2 * (centred**2).sum(1)).argmax(1)  # what the fit explains
    b = b[np.arange(len(curves)), best]
    last, power = counts[-1] / unit, POWERS[best]
    gain = b * (last**-power - (last + more / unit) ** -power)
    return curves.mean(1, keepdims=True) + b[:, None] * centred[best], gain
