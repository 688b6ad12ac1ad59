"""How many images there are of each class, if a classifier that errs has looked at most of them.

[Sarndal1992]  C.-E. Särndal, B. Swensson and J. Wretman, Model assisted survey sampling, 1992: difference estimator.
[Zou2008]      G. Y. Zou and A. Donner, Construction of confidence limits about effect measures: a general approach,
               Statistics in Medicine 27, 2008.
[Angelopoulos2023] A. N. Angelopoulos et al., Prediction-powered inference, Science 382, 2023: the same idea.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lalib.labelling.answers import UNSURE_CHOICE
from lalib.models.networks import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd


def error_interval(missed: int, wrong: int, n: int, rest: float = math.inf) -> tuple[float, float]:
    """Low and high of the 95 % interval for the share of a class less the share said of it, eq. 9 of [Zou2008].

    Of n images drawn at random `missed` are of the class and were said to be none, `wrong` were said to be of it and
    are not: two shares of one sample, each with its Wilson interval. rest: among so many others the difference is
    sought; that they are not all the world makes the interval wider.
    """
    from lalib.experiments.statistics import share_interval  # pandas takes long to import

    (a, low_a, high_a), (b, low_b, high_b) = share_interval(missed, n), share_interval(wrong, n)
    both = math.sqrt(a * b / ((1 - a) * (1 - b))) if a < 1 > b else 0.0  # minus their correlation
    sides = (a - low_a, high_b - b), (high_a - a, b - low_b)
    below, above = (math.sqrt((1 + n / rest) * (x**2 + y**2 + 2 * both * x * y)) for x, y in sides)
    return a - b - below, a - b + above


def prevalence(
    known: Tensor, said: Tensor, truth: Tensor, guess: Tensor, class_names: tuple[str, ...]
) -> "pd.DataFrame":
    """A row per class: count, how many images are of it, and low and high of the 95 % interval of that.

    known (K,): classes of the images with an answer. said (R,): what the classifier says of the rest. truth (n,),
    guess (n,): answer and prediction for some that were drawn at random and from which the classifier did not learn.
    The count is the answers, plus what the classifier says of the rest, plus its mean error on the drawn ones for each
    of the rest [Sarndal1992]. -1 is "not sure", which has a row of its own if it was ever answered.
    Without drawn images the errors are not known: low and high are NaN.
    Differs: the interval is not the normal one of [Sarndal1992] but that of error_interval, which knows that a class on
    which no error was seen may still have some; and no end lies beyond what is possible.
    """
    import pandas as pd

    unsure, n, rest = len(class_names), len(truth), len(said)
    known, truth = (torch.where(part == UNKNOWN, unsure, part) for part in (known, truth))
    rows = {}
    for number, name in enumerate((*class_names, UNSURE_CHOICE)):
        sure = int((known == number).sum())
        if number == unsure and not sure:
            continue
        count, low, high = sure + int((said == number).sum()), math.nan, math.nan
        if n and rest:
            missed, wrong = (int((a == number)[b != number].sum()) for a, b in ((truth, guess), (guess, truth)))
            ends = error_interval(missed, wrong, n, rest)
            low, high = (min(max(count + rest * end, sure), sure + rest) for end in ends)
            count = min(max(count + rest * (missed - wrong) / n, low), high)
        elif not rest:
            low = high = count
        rows[name] = (count, low, high)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["count", "low", "high"], dtype=float)
    return table.rename_axis("class")
