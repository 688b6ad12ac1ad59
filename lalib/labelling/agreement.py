"""Two labellers of the same images compared, and several merged into one set of labels.

[Cohen1960] J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20, 1960.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch

from lalib.data import ImageSet, LalibError
from lalib.data.checks import check_choice, check_type
from lalib.data.door import check_name
from lalib.labelling.answers import numbered
from lalib.labelling.store import LabelStore

if TYPE_CHECKING:
    import pandas as pd


class Agreement(NamedTuple):
    """kappa: Cohen's, 1 if two labellers always agree, 0 if as often as by chance; NaN if both know one class only;
    share: of the images on which they agree, in [0, 1]; n: images to which both gave a class."""

    kappa: float
    share: float
    n: int


def agreement(store: LabelStore, a: str, b: str) -> Agreement:
    """How far the labellers `a` and `b` agree [Cohen1960] on the images to which both gave a class.

    "Not sure" and skipped are no class. Raises ValueError for unknown labellers, LalibError if they share no image.
    """
    from sklearn.metrics import cohen_kappa_score

    theirs, others = check_type("store", store, LabelStore).classes(a), store.classes(b)
    pairs = [(said, others[image]) for image, said in theirs.items() if image in others]
    if not pairs:
        raise LalibError(f"{a!r} and {b!r} must have labelled the same images to be compared, they share none")
    left, right = zip(*pairs, strict=True)
    kappa = float("nan") if len({*left, *right}) == 1 else float(cohen_kappa_score(left, right))
    return Agreement(kappa, sum(a == b for a, b in pairs) / len(pairs), len(pairs))


def merge(
    store: LabelStore, images: ImageSet, labellers: Iterable[str] | None = None, *, prefer: str | None = None
) -> tuple[torch.Tensor, "pd.DataFrame"]:
    """One label per image from several labellers, and a table of the images on which they disagree.

    "Not sure" and skipped have no say. Where classes differ, that of `prefer` wins, without it the image has none.
    labellers: whose labels, default all in the file; to merge two files, carry one over with write_csv and read_csv.
    Returns the labels (N,) int64, numbered as in store.labels, -1 for none, and a DataFrame with a row for each image
    in disagreement (its index in `images`) and a column of class names for each labeller, None where one gave none.
    Raises ValueError for unknown labellers, and for a class that the images' class names lack.
    """
    import pandas as pd

    images = check_type("store", store, LabelStore).adopt(images)
    known = store.labellers
    labellers = known if labellers is None else labellers
    if isinstance(labellers, str) or not isinstance(labellers, Iterable):
        raise TypeError(f"labellers must be a list of names, got {labellers!r}")
    labellers = [store.check_labeller(name) for name in labellers]
    prefer = None if prefer is None else check_choice("prefer", check_name("prefer", prefer), labellers)
    hashes = images.hashes
    said = {name: list(map(store.classes(name).get, hashes)) for name in labellers}
    table = pd.DataFrame(said, index=pd.RangeIndex(len(hashes), name="image"), dtype=object)
    differ = [len({*row} - {None}) > 1 for row in table.to_numpy()]
    rows = zip(said.get(prefer, [None] * len(hashes)), differ, table.to_numpy(), strict=True)
    merged = [preferred if torn else next(filter(None, row), None) for preferred, torn, row in rows]
    return numbered(merged, images.class_names or store.class_names), table[differ]
