"""Answers that may be wrong: a classifier that was trained without them finds another class likely.

[Northcutt2021] C. G. Northcutt, L. Jiang and I. L. Chuang, Confident learning: estimating uncertainty in dataset
                labels, JAIR 70, 2021.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lalib.data.checks import LalibError, check_int
from lalib.data.seeds import generator
from lalib.experiments import TaskData, train
from lalib.models import predict_proba
from lalib.models.networks import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd


def out_of_fold(data: TaskData, index: Tensor, labels: Tensor, folds: int, *, seed: int, device: str) -> Tensor:
    """Class probabilities (M, C) of the images at `index` (M,), each by a model that learnt from the other folds only.

    Every class is spread evenly over the folds, as far as it goes; the seed says how.
    """
    order = torch.randperm(len(index), generator=generator(seed, "folds"))
    fold = torch.empty_like(order)
    fold[order[labels[order].argsort(stable=True)]] = torch.arange(len(index)) % folds
    probs = torch.empty(len(index), data.images.n_classes)
    for out in (fold == k for k in range(folds)):
        model = train(data, index[~out], labels[~out], seed=seed, device=device)
        probs[out] = predict_proba(model.classifier, data.inputs[index[out]])
    return probs


def confident_classes(probs: Tensor, labels: Tensor) -> Tensor:
    """The class (M,) that each image is counted as by its out-of-fold probabilities (M, C), -1 if as none: eq. 1 and 2
    of [Northcutt2021].

    That is the most probable of the classes that reach their threshold: the mean probability of class j over the images
    labelled j (M,). A class without images has none and is never found.
    """
    given = torch.nn.functional.one_hot(labels, probs.shape[1]).to(probs)
    threshold = (given * probs).sum(0) / given.sum(0)  # NaN, which nothing reaches, where there are none
    best, found = torch.where(probs >= threshold, probs, -1.0).max(dim=1)
    return torch.where(best < 0, UNKNOWN, found)


def doubts(
    data: TaskData, index: Tensor, labels: Tensor, folds: int = 5, *, seed: int = 0, device: str = "auto"
) -> "pd.DataFrame":
    """The doubtful ones among the images at `index` (M,) with their labels (M,), the most doubtful first.

    A row per image, named by its index in `data`: class, its label; instead, what the models say that did not see it;
    p_class, p_instead, how probable they find these. Doubtful is what confident learning counts as another class than
    the label. The smallest p_class - p_instead comes first. Raises LalibError for fewer labels than folds.
    """
    import pandas as pd

    folds, names = check_int("folds", folds, low=2), data.images.class_names
    if len(index) < folds:
        raise LalibError(f"doubts need an answer with a class for each of the {folds} folds, got {len(index)}")
    probs = out_of_fold(data, index, labels, folds, seed=seed, device=device)
    instead = confident_classes(probs, labels)
    rows = torch.nonzero((instead != labels) & (instead != UNKNOWN))[:, 0]
    own, other = probs[rows, labels[rows]], probs[rows, instead[rows]]
    order = (own - other).argsort(stable=True)
    columns = {"class": [names[c] for c in labels[rows[order]]], "instead": [names[c] for c in instead[rows[order]]]}
    columns |= {"p_class": own[order].numpy(), "p_instead": other[order].numpy()}
    return pd.DataFrame(columns, index=pd.Index(index[rows[order]].numpy(), name="image"))
