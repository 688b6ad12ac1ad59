"""Two labellers of the same images compared, and several merged into one set of labels.

[Cohen1960] J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20, 1960.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from lalib.data.checks import LalibError, check_choice
from lalib.data.imageset import ImageSet
from lalib.labelling.store import LabelStore
from lalib.models.networks import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd


class Agreement(NamedTuple):
    """kappa: Cohen's, 1 if two labellers always agree, 0 if as often as by chance; NaN if both know one class only.

    share: of the images on which they agree, in [0, 1]. n: images to which both gave a class.
    """

    kappa: float
    share: float
    n: int


def agreement(store: LabelStore, a: str, b: str) -> Agreement:
    """How far the labellers `a` and `b` agree [Cohen1960] on the images to which both gave a class.

    "Not sure" and skipped are no class. Raises ValueError for unknown labellers, LalibError if they share no image.
    """
    from sklearn.metrics import cohen_kappa_score

    theirs, others = (_classes(store, name) for name in _check_labellers(store, [a, b]))
    both = [image for image in theirs if image in others]
    if not both:
        raise LalibError(f"{a!r} and {b!r} must have labelled the same images to be compared, they share none")
    left, right = [theirs[image] for image in both], [others[image] for image in both]
    share = sum(x == y for x, y in zip(left, right, strict=True)) / len(both)
    kappa = float("nan") if len({*left, *right}) == 1 else float(cohen_kappa_score(left, right))
    return Agreement(kappa, share, len(both))


def merge(
    store: LabelStore, images: ImageSet, labellers: Sequence[str] | None = None, *, prefer: str | None = None
) -> "tuple[torch.Tensor, pd.DataFrame]":
    """One label per image from several labellers, and a table of the images on which they disagree.

    A class that all who gave one agree on is kept, be it one labeller or all; "not sure" and skipped have no say. Where
    they disagree, the class that `prefer` gave wins; without it the image stays unlabelled. labellers: whose labels,
    default all in the file; to merge two files, carry one over with write_csv and read_csv first.
    Returns the labels (N,) int64, -1 for none, and a DataFrame with a row for each image in disagreement (its index in
    `images`) and a column of class names for each labeller, None where one gave none.
    Raises ValueError for unknown labellers.
    """
    import pandas as pd

    labellers = _check_labellers(store, store.labellers if labellers is None else labellers)
    if prefer is not None:
        check_choice("prefer", prefer, labellers)
    given = {name: _classes(store, name) for name in labellers}
    labels, disagreed = torch.full((len(images),), UNKNOWN, dtype=torch.int64), {}
    for index, image in enumerate(images.hashes):
        said = [given[name].get(image) for name in labellers]
        distinct = set(said) - {None}
        if len(distinct) > 1:
            disagreed[index] = said
            chosen = given[prefer].get(image) if prefer else None
        else:
            chosen = next(iter(distinct), None)
        if chosen is not None:
            labels[index] = store.class_names.index(chosen)
    rows = pd.Index(disagreed, name="image", dtype="int64")
    return labels, pd.DataFrame(list(disagreed.values()), index=rows, columns=labellers, dtype=object)


def _check_labellers(store, names):
    if isinstance(names, str):
        raise TypeError(f"labellers must be a list of names, got {names!r}")
    known = store.labellers
    return [check_choice("labeller", name, known) for name in names]


def _classes(store, labeller):
    """{image: class name} of what the labeller gave a class to."""
    return {image: answer.class_name for image, answer in store.answers(labeller).items() if answer.kind == "class"}
