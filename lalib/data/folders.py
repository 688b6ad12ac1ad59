"""Image files in a folder, read with Pillow; all headers first, so that a mixed folder is refused early."""

import os
import struct
import warnings
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from lalib.data.checks import listed
from lalib.data.door import check_name

# raster formats only: Pillow hands some of the others (EPS) to programs outside Python
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_open = partial(Image.open, formats=[name for name in FORMATS if name != "MPO"])  # Pillow counts MPO as JPEG
GREY = ("1", "L", "LA", "I;16", "I;16B")
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
# what Pillow's parsers raise on damaged files
FAULT = (OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError, struct.error, Image.DecompressionBombError)
UNREADABLE = "cannot be read"
BIG = 500  # files from which on a progress bar is worth its line


def read_folder(folder: Path, size: tuple[int, int] | None, class_names: tuple[str, ...] | None, skip: bool) -> tuple:
    """(images (N, C, H, W) uint8, labels (N,) or None, class_names, file names relative to `folder`), sorted."""
    files = {file.relative_to(folder).as_posix(): file for file in _image_files(folder)}
    headers, unreadable = _each(lambda name: _header(files[name]), files, "headers")
    files = _settled(files, unreadable, UNREADABLE, skip)
    for form in ("{0[0]} x {0[1]} pixels", "{1}") if size is None else ():  # what must be the same in all images
        values = {name: form.format(*headers[name]) for name in files}
        usual = Counter(values.values()).most_common(1)[0][0]
        unlike = {name: value for name, value in values.items() if value != usual}
        files = _settled(files, unlike, f"are not {usual}, as most are", skip)
    _classes([name for name in files if "/" in name], class_names)  # refuses before the longest part
    grey = all(headers[name][1] == "grey" for name in files)
    size = size or headers[next(iter(files))][0]
    images = torch.empty((len(files), 1 if grey else 3, *size), dtype=torch.uint8)
    rows = dict(zip(files, images, strict=True))
    _, unreadable = _each(lambda name: rows[name].copy_(_pixels(files[name], grey, size)), files, "images")
    kept = _settled(files, unreadable, UNREADABLE, skip)
    if unreadable:  # the rest must be as if these had never been there: what is known of an image hangs on its pixels
        colours = 1 if all(headers[name][1] == "grey" for name in kept) else 3
        images = images[[name in kept for name in files], :colours]
    return images, *_classes(list(kept), class_names), tuple(kept)


def _image_files(folder: Path) -> list[Path]:
    """The files in a folder and those below that are called images, sorted; ValueError for a folder that is closed."""
    if not folder.is_dir():
        raise ValueError(f"path must be a folder, got {str(folder)!r}, which is none")
    Image.init()
    extensions = {ext for ext, name in Image.registered_extensions().items() if name in FORMATS}
    images, closed = [], []
    for place, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        inside = place != str(folder)  # there, links are passed over
        folders[:] = [name for name in folders if name[0] != "." and not (inside and Path(place, name).is_symlink())]
        images += [Path(place, name) for name in names if name[0] != "." and Path(name).suffix.lower() in extensions]
    if closed:
        raise ValueError(f"{closed[0].filename} cannot be read ({closed[0].strerror})") from closed[0]
    if not images:
        raise ValueError(f"{folder} holds no images (files ending in {', '.join(sorted(extensions))})")
    return sorted(images)


def _each(function, names: Collection[str], what: str) -> tuple[dict, dict[str, str]]:
    """function(name) for all names under a progress bar: the results and the reasons of failures, by name."""
    from tqdm.auto import tqdm

    results, failed = {}, {}
    for name in tqdm(names, desc=what, unit="image", disable=len(names) < BIG):
        try:
            results[name] = function(name)
        except UnidentifiedImageError:
            failed[name] = "not an image"
        except FAULT as error:
            failed[name] = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return results, failed


def _header(file: Path) -> tuple[tuple[int, int], str]:
    """(H, W) of the image once it is upright, and "grey" or "in colour"."""
    if str(file).encode(errors="replace").decode() != str(file):
        raise ValueError("its path is not UTF-8 text")  # which no CSV file could hold
    if file.exists() and not file.is_file():
        raise ValueError("not a file")
    with _open(file) as image:
        if image.mode not in GREY + COLOUR:
            raise ValueError(f"pixels of mode {image.mode!r}; 8-bit or 16-bit grey, or colour is needed")
        sideways = "exif" in image.info and image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 turn by 90
        return image.size if sideways else image.size[::-1], "grey" if image.mode in GREY else "in colour"


def _pixels(file: Path, grey: bool, size: tuple[int, int]) -> torch.Tensor:
    """(C, H, W) uint8, upright, transparency dropped, resized if need be (bilinear, the aspect not kept)."""
    with _open(file) as image:
        image = ImageOps.exif_transpose(image) if "exif" in image.info else image
        if image.mode in ("I;16", "I;16B"):  # Pillow would cut at 255
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # straight to RGB, Pillow warns of some palettes
        image = image.convert("L" if grey else "RGB").resize(size[::-1], Image.Resampling.BILINEAR)
        return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1)


def _settled(files: dict[str, Path], bad: dict[str, str], what: str, skip: bool) -> dict[str, Path]:
    """The files without the bad ones (name: reason), of which it warns; unless `skip`, ValueError if there are any."""
    if not bad:
        return files
    named = listed(f"{name} ({reason})" for name, reason in bad.items()).encode("utf-8", "backslashreplace").decode()
    said = f"{len(bad)} of {len(files)} images {what}: {named}"
    if not skip:
        resize = "" if what == UNREADABLE else "size= brings all to one size, and to RGB if any is in colour; "
        raise ValueError(f"{said}. {resize}bad_files='skip' leaves these out")
    if len(bad) == len(files):
        raise ValueError(f"{said}. None is left")
    warnings.warn(f"{said}. They are left out", stacklevel=4)
    return {name: file for name, file in files.items() if name not in bad}


def _classes(names, class_names) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels (None if no image lies in a sub-folder) and class names, by the first sub-folder in each name."""
    loose = [name for name in names if "/" not in name]
    if len(loose) == len(names):
        return None, class_names or ()
    if loose:
        raise ValueError(f"{len(loose)} of {len(names)} images lie beside the class folders: {listed(loose)}")
    folders = [name.split("/")[0] for name in names]
    named = {folder: check_name("the name of a class folder", folder) for folder in dict.fromkeys(folders)}
    name, count = Counter(named.values()).most_common(1)[0]
    if count > 1:
        raise ValueError(f"class folders must differ, got {name!r} twice, its accents written in two ways")
    known = tuple(sorted(named.values())) if class_names is None else class_names
    if foreign := [name for name in named.values() if name not in known]:
        raise ValueError(f"class folders must be among the class_names {listed(map(repr, known))}, got {foreign[0]!r}")
    return torch.tensor([known.index(named[folder]) for folder in folders]), known
