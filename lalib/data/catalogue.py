"""The data sets that load by name, and own images from a file or a folder."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lalib.data import downloads
from lalib.data.checks import LalibError, check_choice, check_int, check_number, check_type
from lalib.data.door import check_class_names, plain
from lalib.data.imageset import MIN_SIZE, ImageSet, from_arrays
from lalib.data.splits import stratified_split

DATA = Path(__file__).resolve().parents[2] / "data"


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
    arrays = reader(name, split, Path(root or DATA / "downloads"), mirror)
    return replace(from_arrays(*arrays), source=f"{name}/{split}")


def _mini(name, split, root, mirror):
    path = DATA / f"{name}.npz"
    remedy = f"Restore it from lalib's repository: git checkout -- data/{path.name}"
    if not path.exists():
        raise LalibError(f"{path} is missing: lalib runs from a clone of its repository (pip install -e .). {remedy}")
    recorded = {file: sha for sha, file in map(str.split, (DATA / "SHA256SUMS").read_text().splitlines())}
    downloads.check_digest(path, "SHA-256", recorded[path.name], remedy)
    return downloads.read_npz(path, [f"{split}_images", f"{split}_labels", "class_names"]).values()


def _digits(name, split, root, mirror):
    from sklearn.datasets import load_digits

    digits = load_digits()
    whole = from_arrays(digits.images / 16, digits.target)  # pixels count from 0 to 16
    part = stratified_split(whole, 0.2, seed=0)[split == "test"]
    return part.images, part.labels, part.class_names


_TRAIN_TEST = ("train", "test")
_ORGANS = ("organa", "organc", "organs")
_FLAT = ("path", "chest", "derma", "oct", "pneumonia", "retina", "breast", "blood", "tissue", *_ORGANS)
DATASETS = {  # name: (reader of (name, split, root, mirror), splits)
    "digits": (_digits, _TRAIN_TEST),
    "mnist-mini": (_mini, _TRAIN_TEST),
    "fashion-mnist-mini": (_mini, _TRAIN_TEST),
    "deep-sky": (_mini, _TRAIN_TEST),
    "mnist": (downloads.read_idx_pair, _TRAIN_TEST),
    "fashion-mnist": (downloads.read_idx_pair, _TRAIN_TEST),
    "svhn": (downloads.read_svhn, (*_TRAIN_TEST, "extra")),
} | {f"{what}mnist": (downloads.read_medmnist, ("train", "val", "test")) for what in _FLAT}


def from_npz(path: str | Path) -> ImageSet:
    """An ImageSet of an .npz file: arrays `images` and, if known, `labels` and `class_names` (see from_arrays).

    Raises ValueError for a file that is not there or has other arrays, LalibError if it is damaged or holds objects.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path must be an .npz file, got {str(path)!r}, which is not there")
    arrays = downloads.read_npz(path)
    if not {"images"} <= set(arrays) <= {"images", "labels", "class_names"}:
        came = ", ".join(map(repr, arrays)) or "none"
        raise ValueError(f"{path} must hold 'images' and may hold 'labels' and 'class_names', got {came}")
    if "class_names" in arrays:
        arrays["class_names"] = arrays["class_names"].astype(str).tolist()
    return replace(from_arrays(**arrays), source=str(path))


def from_folder(
    path: str | Path,
    size: int | tuple | None = None,
    *,
    class_names: Iterable | None = None,
    labels: str = "folders",
    bad_files: str = "refuse",
    fit: str = "stretch",
    background: str | tuple = "white",
    depth: str | tuple = "auto",
    cache: str | Path | None = None,
) -> ImageSet:
    """An ImageSet of the image files in a folder and below it, in sorted order, as a person sees them.

    Raster files that Pillow reads (PNG, JPEG, TIFF, AVIF, ...; HEIC with the extra photos), of several images in one
    the first. Hidden files and folders linked into a sub-folder are passed over, other files with a warning that counts
    them. Images are turned upright. CMYK and colour profiles are converted without colour management, colours of more
    than 8 bits keep the upper 8.
    size: None, or (H, W) in pixels, or one number for both, to which all are resized (bilinear); grey stays grey if all
    are, else all become RGB. fit: "stretch", the default, shows all of an image and nothing else, but changes its
    aspect; "crop" keeps the aspect and cuts off what sticks out, "pad" adds background. background: what shows through
    transparency, a colour's name or (red, green, blue) from 0 to 255; in grey images its brightness counts. depth:
    which values of grey files of more than 8 bits (floats, too) become 0 and 255, (low, high); "auto" is the range of
    all in the folder, which a warning names. Training and test folders need the same.
    labels: "folders", the sub-folders right below, if any, are the classes; or "none", folders are mere folders, and
    class_names only those to label with. class_names: the classes in the order of their numbers, such as
    train.class_names for the folder of the test images, which may lack some; None is the sub-folders in sorted order.
    If no sub-folder has one of these names, folders are mere folders, which a warning says. bad_files: images that are
    unreadable or, without `size`, differ from most in size or in being grey: "refuse", or "skip", which leaves them out
    with a warning that names them.
    Files are read by as many threads as torch has. cache: a folder, in `path` only a hidden one, where the pixels stay
    in a memory map: they need not fit into memory, and later calls read only new and changed files. It may be the same
    for several folders and sizes, and deleted at any time. What is written to images never reaches the map.
    Raises ValueError, naming the files, for bad ones that are refused and for images beside class folders; for a folder
    that is closed or without images; for class folders of which some are not among the class_names, that are refused by
    door.check_name, or alike but for the spelling of accents; LalibError for a cache that cannot be written.
    """
    from lalib.data.decoding import Look
    from lalib.data.folders import read_folder

    if size is not None:
        size = plain(size)
        size = tuple(size) if isinstance(size, Iterable) else (size, size)
        if len(size) != 2:
            raise ValueError(f"size must be one number or (height, width), got {size}")
        size = tuple(check_int("size", side, low=MIN_SIZE) for side in size)
    if not isinstance(depth := plain(depth), str) or depth != "auto":
        depth = tuple(depth) if isinstance(depth, Iterable) and not isinstance(depth, str) else (depth,)
        if len(depth) != 2:
            raise ValueError(f"depth must be 'auto' or (low, high), got {', '.join(map(repr, depth))}")
        depth = tuple(check_number("depth", bound) for bound in depth)
        if depth[0] >= depth[1]:
            raise ValueError(f"depth must be (low, high) with low below high, got {depth}")
    look = Look(size, check_choice("fit", fit, ("stretch", "crop", "pad")), _colour(background), depth)
    skip = check_choice("bad_files", bad_files, ("refuse", "skip")) == "skip"
    classes = check_choice("labels", labels, ("folders", "none")) == "folders"
    names = None if class_names is None else check_class_names(class_names)
    cache = None if cache is None else Path(check_type("cache", cache, str | Path)).expanduser()
    images, labels, names, files, identities = read_folder(Path(path), look, classes, names, skip, cache)
    return ImageSet(images, labels, names, str(path), files, identities)


def _colour(background):
    from PIL import ImageColor

    if isinstance(background := plain(background), str):
        try:
            return ImageColor.getrgb(background)[:3]
        except ValueError as error:
            raise ValueError(f"background must be a colour such as 'white' or '#ffffff', got {background!r}") from error
    background = tuple(background) if isinstance(background, Iterable) else (background,)
    if len(background) != 3:
        raise ValueError(f"background must be a colour's name or (red, green, blue), got {background}")
    return tuple(check_int("background", part, low=0, high=255) for part in background)
