"""How many images there are of each class, if a classifier that errs has looked at most of them.

[Sarndal1992]  C.-E. Särndal, B. Swensson and J. Wretman, Model assisted survey sampling, 1992: difference estimator.
[Bonett2012]   D. G. Bonett and R. M. Price, Adjusted Wald confidence interval for a difference of binomial proportions
               based on paired data, Journal of Educational and Behavioral Statistics 37, 2012.
[Angelopoulos2023] A. N. Angelopoulos et al., Prediction-powered inference, Science 382, 2023: the same idea.
"""

import math
from typing import TYPE_CHECKING

import scipy
import torch
from torch import Tensor

from lalib.labelling.answers import UNSURE_CHOICE
from lalib.models.networks import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd


def paired_difference(missed: int, wrong: int, n: int, rest: float = math.inf) -> tuple[float, float]:
    """Low and high of the 95 % interval, eq. 4 of [Bonett2012], for the share of a class less the share said of it.

    Of n images drawn at random `missed` are of the class and were said to be none, `wrong` were said to be of it and
    are not. rest: among so many others the share is sought; they are not all the world, which widens the interval.
    """
    more, less = (missed + 1) / (n + 2), (wrong + 1) / (n + 2)
    spread = (more + less - (more - less) ** 2) * (1 / (n + 2) + 1 / rest)
    half = float(scipy.stats.norm.ppf(0.975)) * math.sqrt(spread)
    return more - less - half, more - less + half


def prevalence(
    known: Tensor, said: Tensor, truth: Tensor, guess: Tensor, class_names: tuple[str, ...]
) -> "pd.DataFrame":
    """A row per class: count, how many images are of it, and low and high of the 95 % interval of that.

    known (K,): classes of the images with an answer. said (R,): what the classifier says of the rest. truth (n,),
    guess (n,): answer and prediction for some that were drawn at random and from which the classifier did not learn.
    The count is the answers, plus what the classifier says of the rest, plus its mean error on the drawn ones for each
    of the rest [Sarndal1992]. -1 is "not sure", which has a row of its own if it was ever answered.
    Without drawn images the errors are not known: low and high are NaN.
    Differs: to the difference estimator's normal interval [Bonett2012] adds a miss and a wrong guess, so that a class
    on which no error was seen still has an interval; and no end lies beyond what is possible.
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
            ends = paired_difference(missed, wrong, n, rest)
            low, high = (min(max(count + rest * end, sure), sure + rest) for end in ends)
            count = min(max(count + rest * (missed - wrong) / n, low), high)
        elif not rest:
            low = high = count
        rows[name] = (count, low, high)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["count", "low", "high"], dtype=float).rename_axis(
        "class"
    )
