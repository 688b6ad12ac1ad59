"""Images to select from: ImageSet, the data sets that load by name, own images, splits and unbalanced pools.

The small sets in data/ are read only if their SHA-256 is the recorded one. A data set is never replaced by another.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lalib import _downloads
from lalib._checks import LalibError, check_choice, check_int, check_number
from lalib._imageset import MIN_SIZE, ImageSet, from_arrays
from lalib.augment import affine, warp
from lalib.seeds import generator

__all__ = ["DATASETS", "ImageSet", "from_arrays", "from_folder", "from_npz", "load", "stratified_split", "unbalance"]

DATA = Path(__file__).resolve().parents[1] / "data"


def load(
    name: str, split: str = "train", *, root: str | Path | None = None, mirror: str | Path | None = None
) -> ImageSet:
    """A data set by name (see DATASETS): what ships or is installed is read where it lies, the rest is downloaded once.

    split: "train" or "test"; SVHN also has "extra", the MedMNIST sets "val". root: folder for downloads, data/downloads
    if None. mirror: URL or folder to fetch from instead of the set's own server. Neither matters to sets that are here.
    "digits" has no split of its own: a fifth of every class, drawn with seed 0, is "test".
    Raises ValueError for an unknown name or split, LalibError for a damaged file or a download that fails.
    """
    check_choice("name", name, DATASETS)
    reader, splits = DATASETS[name]
    check_choice(f"split of {name}", split, splits)
    images, labels, class_names = reader(name, split, Path(root or DATA / "downloads"), mirror)
    return ImageSet(images, labels, class_names, f"{name}/{split}")


def _mini(name, split, root, mirror):
    path = DATA / f"{name}.npz"
    _check_recorded(path)
    arrays = _downloads.read_npz(path, [f"{split}_images", f"{split}_labels", "class_names"])
    images, labels, class_names = arrays.values()
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)), tuple(class_names.tolist())


def _check_recorded(path):
    """LalibError unless the SHA-256 of `path` is the one that SHA256SUMS beside it records."""
    remedy = f"Restore it from lalib's repository: git checkout -- data/{path.name}"
    if not path.exists():
        raise LalibError(f"{path} is missing: lalib runs from a clone of its repository (pip install -e .). {remedy}")
    lines = (path.parent / "SHA256SUMS").read_text().splitlines()
    recorded = {file: sha for sha, file in map(str.split, lines)}[path.name]
    came = _downloads.digest(path, "sha256")
    if came != recorded:
        size = path.stat().st_size
        raise LalibError(f"{path} is damaged: its SHA-256 is {came} ({size:,} bytes), not {recorded}. {remedy}")


def _digits(name, split, root, mirror):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]  # counts 0 to 16 become 0 to 255
    labels = torch.from_numpy(digits.target.astype(np.int64))
    whole = ImageSet(torch.from_numpy(images), labels, tuple(map(str, digits.target_names)), name)
    part = dict(zip(("train", "test"), stratified_split(whole, 0.2, seed=0), strict=True))[split]
    return part.images, part.labels, part.class_names


def _svhn(name, split, root, mirror):
    return _downloads.read_svhn(split, root, mirror)


_TRAIN_TEST = ("train", "test")
_MEDMNIST = (_downloads.read_medmnist, ("train", "val", "test"))
DATASETS = {  # name: (reader of (name, split, root, mirror), splits)
    "digits": (_digits, _TRAIN_TEST),
    "mnist-mini": (_mini, _TRAIN_TEST),
    "fashion-mnist-mini": (_mini, _TRAIN_TEST),
    "mnist": (_downloads.read_idx_pair, _TRAIN_TEST),
    "fashion-mnist": (_downloads.read_idx_pair, _TRAIN_TEST),
    "svhn": (_svhn, ("train", "test", "extra")),
    "pathmnist": _MEDMNIST,
    "chestmnist": _MEDMNIST,
    "dermamnist": _MEDMNIST,
    "octmnist": _MEDMNIST,
    "pneumoniamnist": _MEDMNIST,
    "retinamnist": _MEDMNIST,
    "breastmnist": _MEDMNIST,
    "bloodmnist": _MEDMNIST,
    "tissuemnist": _MEDMNIST,
    "organamnist": _MEDMNIST,
    "organcmnist": _MEDMNIST,
    "organsmnist": _MEDMNIST,
}


def from_npz(path: str | Path) -> ImageSet:
    """An ImageSet of an .npz file: arrays `images` and, if known, `labels` and `class_names` (see from_arrays).

    Nothing is unpickled. Raises ValueError for a file that is not there or has other arrays, LalibError for one that is
    damaged or holds Python objects.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path must be an .npz file, got {str(path)!r}, which is not there")
    arrays = _downloads.read_npz(path)
    unknown = sorted(set(arrays) - {"images", "labels", "class_names"})
    if unknown or "images" not in arrays:
        came = ", ".join(map(repr, arrays)) or "none"
        raise ValueError(f"{path} must hold 'images' and may hold 'labels' and 'class_names', got {came}")
    names = arrays.get("class_names")
    images = from_arrays(arrays["images"], arrays.get("labels"), None if names is None else names.astype(str).tolist())
    return replace(images, source=str(path))


def from_folder(path: str | Path, size: int | tuple[int, int] | None = None, *, bad_files: str = "refuse") -> ImageSet:
    """An ImageSet of the image files in a folder, in sorted order; its sub-folders, if any, are the classes.

    Raster files that Pillow reads (PNG, JPEG, TIFF, ...), of several images in one the first; hidden files, other files
    and folders linked into a class folder are passed over. Images are turned upright as their EXIF says and
    transparency is dropped; 16-bit grey is scaled to 8 bits. size: None, or (H, W) in pixels, or one number for both,
    to which all are resized (bilinear, aspect not kept); grey stays grey if all are, else all become RGB. bad_files:
    images that are unreadable or, without `size`, differ from most in size or in being grey: "refuse", or "skip", which
    leaves them out with a warning that names them.
    Raises ValueError, naming the files, for bad ones that are refused; for a folder without images or one that may not
    be read; for class folders whose names differ in the spelling of accents only.
    """
    from lalib._folders import read_folder

    if size is not None:
        size = (size, size) if not isinstance(size, (tuple, list)) else tuple(size)
        if len(size) != 2:
            raise ValueError(f"size must be one number or (height, width), got {size}")
        size = tuple(check_int("size", side, low=MIN_SIZE) for side in size)
    skip = check_choice("bad_files", bad_files, ("refuse", "skip")) == "skip"
    images, labels, class_names, files = read_folder(Path(path), size, skip)
    return ImageSet(images, labels, class_names, str(path), files)


def stratified_split(images: ImageSet, fraction: float, *, seed: int) -> tuple[ImageSet, ImageSet]:
    """(rest, held_out): `fraction` of the images, and of every class, held out at random; both keep their order.

    The sizes are exact: round(fraction N) images are held out, every class within one of its share. Where an image may
    have several classes it counts for the rarest of them. Without labels the split is a plain random one.
    Raises ValueError if either part would be empty.
    """
    check_number("fraction", fraction, low=0, high=1)
    n = round(fraction * len(images))
    if not 0 < n < len(images):
        raise ValueError(f"fraction={fraction} of {len(images)} images leaves a part empty")
    strata = _strata(images)
    take = _shares(torch.bincount(strata), n)
    held_out = torch.zeros(len(images), dtype=torch.bool)
    order = torch.randperm(len(images), generator=generator(seed, "split"))
    for stratum, count in enumerate(take.tolist()):
        held_out[order[strata[order] == stratum][:count]] = True
    return images.subset(torch.nonzero(~held_out)[:, 0]), images.subset(torch.nonzero(held_out)[:, 0])


def _strata(images):
    """(N,) the class of each image; the rarest of several, the number of classes if it has none, 0 without labels."""
    if images.labels is None:
        return torch.zeros(len(images), dtype=torch.int64)
    if not images.multi_label:
        return images.labels
    count = images.labels.sum(0)
    rarity = torch.where(images.labels == 1, count, len(images) + 1)
    return torch.where(images.labels.any(1), rarity.argmin(1), images.n_classes)


def _shares(counts, n):
    """`n` divided in proportion to `counts`, the remainders going to the largest fractions; sums to n exactly."""
    share = counts.double() * n / counts.sum()
    take = share.floor().long()
    largest = torch.argsort(take - share, stable=True)
    take[largest[: n - int(take.sum())]] += 1
    return take


def unbalance(images: ImageSet, ratio: float, *, seed: int, classes: Iterable[int] | None = None) -> ImageSet:
    """A pool of about the same size in which `classes` (even numbers if None) are `ratio` times as frequent as before.

    For G images in `classes` and S in the others, the others shrink by the factor f = (G + S) / (ratio G + S), and
    `classes` grow by ratio f. Where G = S that is 2 / (ratio + 1) and 2 ratio / (ratio + 1): ratio 7/3 gives 0.6 and
    1.4, ratio 10 makes 10:1 of a balanced set. A class grows by slightly moved copies of its images (`augment`), every
    image copied equally often within one. Kept images come first in their old order, then the copies.
    Raises ValueError without labels, with several per image, or if a class would vanish.
    """
    check_number("ratio", ratio, low=1)
    if images.labels is None or images.multi_label:
        came = "several per image" if images.multi_label else "none"
        raise ValueError(f"unbalance needs one label per image, got {came}")
    grow = _check_classes(classes, images.n_classes)
    counts = torch.bincount(images.labels, minlength=images.n_classes)
    targets = _unbalanced_counts(counts, grow, ratio)
    rng = generator(seed, "unbalance")
    kept, sources = [], []
    for label, (count, target) in enumerate(zip(counts.tolist(), targets.tolist(), strict=True)):
        members = torch.nonzero(images.labels == label)[:, 0][torch.randperm(count, generator=rng)]
        kept.append(members[:target])
        missing = max(target - count, 0)
        sources.append(members.repeat(math.ceil(missing / max(count, 1)))[:missing])
    kept, sources = torch.cat(kept).sort().values, torch.cat(sources)
    pool = images.subset(torch.cat([kept, sources]))
    copies = augment(pool.images[len(kept) :], generator=rng)
    together = torch.cat([pool.images[: len(kept)], copies])
    return replace(pool, images=together, source=f"{images.source}, unbalanced by {ratio:g}")


def _check_classes(classes, n_classes):
    """(n_classes,) bool: which classes grow."""
    chosen = range(0, n_classes, 2) if classes is None else list(classes)
    grow = torch.zeros(n_classes, dtype=torch.bool)
    grow[[check_int("classes", label, low=0, high=n_classes - 1) for label in chosen]] = True
    if grow.all() or not grow.any():
        raise ValueError(f"classes must be some but not all of the {n_classes} classes, got {sorted(set(chosen))}")
    return grow


def _unbalanced_counts(counts, grow, ratio):
    shrink = float(counts.sum()) / float(ratio * counts[grow].sum() + counts[~grow].sum())
    targets = (counts * torch.where(grow, ratio * shrink, shrink).double()).round().long()
    gone = torch.nonzero((targets == 0) & (counts > 0))[:, 0].tolist()
    if gone:
        raise ValueError(f"ratio={ratio:g} leaves no image of class {gone[0]}, which has {int(counts[gone[0]])}")
    return targets


def augment(images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Copies of `images` (N, C, H, W) uint8, each shifted by up to 7 % of a side, turned by up to 10 degrees and scaled
    by up to 10 %; never mirrored, which would make other digits and letters. The border's pixels fill what comes in.
    """
    n = len(images)
    draw = torch.rand((4, n), generator=generator) * 2 - 1
    angle, scale, shift = draw[0] * (math.pi / 18), 1 + 0.1 * draw[1], 0.14 * draw[2:]  # a side is 2 units long
    theta = affine(scale, scale, angle, torch.zeros(n), shift, images.shape[2:])
    moved = torch.empty_like(images)
    for start in range(0, n, 2048):
        block = slice(start, start + 2048)
        moved[block] = warp(images[block].float(), theta[block]).round().to(torch.uint8)
    return moved
