"""Codes on disk beside the hashes and names of their images, by which they find them again."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lalib.data.checks import LalibError, check_choice, check_type, listed
from lalib.data.door import check_codes
from lalib.data.downloads import read_npz
from lalib.data.files import written_whole
from lalib.data.imageset import ImageSet

CODES_FILES = (".npz", ".npy", ".csv", ".parquet")  # endings


def save_codes(path: str | Path, codes, images: ImageSet) -> None:
    """Write the codes (N, L) of images, in single precision, with their hashes and, where they have any, their names.

    .npz: the arrays codes, hashes and files; .parquet: the columns hashes, files, 0, 1, ... The file is written whole
    or not at all. Raises ValueError for another ending and for codes of another number of images.
    """
    path, n = Path(path), len(check_type("images", images, ImageSet))
    check_choice("the ending of path", path.suffix, (".npz", ".parquet"))
    codes = check_codes(check_codes(codes, n=n).float()).cpu().numpy()
    keys = {"hashes": list(images.hashes)} | ({"files": list(images.files)} if images.files else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        if path.suffix == ".npz":
            np.savez(file, codes=codes, **{key: np.array(values) for key, values in keys.items()})
        else:
            from pandas import DataFrame

            DataFrame(keys).join(DataFrame(codes).rename(columns=str)).to_parquet(file, index=False)


def load_codes(path: str | Path, images: ImageSet) -> Tensor:
    """The codes (N, L) of images, float32 and in their order, from a file of save_codes or from elsewhere.

    .npz with the arrays codes and hashes or files; .csv or .parquet with a column of hashes or names, and coordinates
    in all columns of numbers; .npy with a row per image, sorted by name (as they lie where images have no names).
    Names are those in images.files. Where there are hashes, names do not count. Raises LalibError for a file that is
    damaged, lacks an image, or has one that is none of them or one twice; ValueError for codes that are not finite.
    """
    path, n = Path(path), len(check_type("images", images, ImageSet))
    check_choice("the ending of path", path.suffix, CODES_FILES)
    if not path.is_file():
        raise FileNotFoundError(f"no codes at {path}")
    codes, keys = _read(path)
    codes = check_codes(check_codes(codes, name := f"the codes in {path}").float(), name)
    if path.suffix == ".npy" and len(codes) != n:
        raise LalibError(f"{path} must hold a row for each of the {n} images, got {len(codes)}")
    if path.suffix == ".npy":
        keys = {"files": sorted(images.files)} if images.files else {"hashes": images.hashes}
    if not keys or any(len(values) != len(codes) for values in keys.values()):
        raise LalibError(f"{path} must hold a name or a hash for each of its {len(codes)} rows")
    known = {*images.files, *images.hashes}
    column = "hashes" if "hashes" in keys else max(keys, key=lambda key: len(known.intersection(keys[key])))
    came, wanted = keys[column], images.hashes if {*images.files}.isdisjoint(keys[column]) else images.files
    more, lacking = Counter(came) - Counter(wanted), Counter(wanted) - Counter(came)
    called = dict(zip(came, keys.get("files", came), strict=True)) | dict(zip(wanted, images.files, strict=False))
    bad = (lacking, "without a row"), (more.keys() & set(wanted), "twice"), (more.keys() - set(wanted), "of no image")
    bad = [(sorted(called.get(key, key) for key in odd), what) for odd, what in bad if odd]
    if said := ", ".join(f"{len(odd)} {what} ({listed(odd)})" for odd, what in bad):
        raise LalibError(f"{path} does not hold the codes of these {n} images: {said}")
    rows = torch.empty(n, dtype=torch.int64)
    rows[sorted(range(n), key=wanted.__getitem__)] = torch.tensor(sorted(range(n), key=came.__getitem__))
    return codes[rows]


def _read(path: Path) -> tuple[np.ndarray, dict]:
    """Coordinates, and lists of hashes and names: what a .npz or a table calls so, of .npy none."""
    import pandas as pd

    try:
        if path.suffix == ".npz":
            arrays = read_npz(path)
            return arrays["codes"], {key: arrays[key].ravel().tolist() for key in ("hashes", "files") if key in arrays}
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False), {}
        missing = {"keep_default_na": False, "na_values": ["", "nan", "NaN"]}  # an image may be called NA
        table = pd.read_csv(path, **missing) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise LalibError(f"{path} holds no codes that can be read: {error}") from error
    table = table if pd.api.types.is_numeric_dtype(table.index) else table.reset_index()
    numbers = table.select_dtypes("number").filter(regex="^(?!Unnamed: )")  # pandas writes the numbers of rows there
    text = table.select_dtypes(exclude=["number", "bool"]).astype(str)
    return numbers.to_numpy(), text.to_dict("list")
