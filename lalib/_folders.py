"""Image files in a folder, read with Pillow and checked before any memory is taken.

Only raster formats are opened: Pillow hands some of the others (EPS) to programs outside Python.
"""

import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["read_folder"]

FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
GREY = ("1", "L", "LA", "I;16")
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
BROKEN = (  # what Pillow's parsers raise on damaged files
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
)
SHOWN = 5  # files named in a message
BIG = 500  # files from which on a progress bar is worth its line


class _Header(NamedTuple):
    size: tuple[int, int]  # (H, W), after turning the image upright
    grey: bool


def read_folder(folder: Path, size: tuple[int, int] | None) -> tuple[torch.Tensor, torch.Tensor | None, tuple, tuple]:
    """(images (N, C, H, W) uint8, labels (N,) or None, class_names, file names relative to `folder`), in sorted order.

    All headers are read first, so that a mixed folder is refused before it fills the memory. Without `size` (H, W) all
    images must agree in size and in being grey or in colour; with it they are resized, and all become RGB if one is.
    Raises ValueError, naming the files, for images that are unreadable or do not agree, and for a folder without any.
    """
    files = _image_files(folder)
    names = [file.relative_to(folder).as_posix() for file in files]
    headers, unreadable = _each(_header, files, "headers")
    _refuse(unreadable, names, "cannot be read")
    if size is None:
        _check_alike([header.size for header in headers], names, lambda s: f"{s[0]} x {s[1]} pixels")
        _check_alike([header.grey for header in headers], names, lambda grey: "grey" if grey else "in colour")
    grey = all(header.grey for header in headers)
    height, width = size or headers[0].size
    images = torch.empty((len(files), 1 if grey else 3, height, width), dtype=torch.uint8)

    def read(item: tuple[int, Path]) -> None:
        images[item[0]] = torch.from_numpy(_pixels(item[1], grey, (height, width)))

    _, unreadable = _each(read, list(enumerate(files)), "images")
    _refuse(unreadable, names, "cannot be read")
    return images, *_classes(names), tuple(names)


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"path must be a folder, got {str(folder)!r}, which is none")
    Image.init()
    extensions = {ext for ext, name in Image.registered_extensions().items() if name in FORMATS}
    tops = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*"))]
    shown = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    images = sorted(file for file in shown if file.suffix.lower() in extensions and file.is_file())
    if not images:
        raise ValueError(f"{folder} holds no images (files ending in {', '.join(sorted(extensions))})")
    return images


def _each(function, items: list, what: str) -> tuple[list, dict[int, str]]:
    """function(item) for all items under a progress bar: the results, and the reasons of failures by position."""
    from tqdm.auto import tqdm

    results, failed = [], {}
    for position, item in enumerate(tqdm(items, desc=what, unit="image", disable=len(items) < BIG)):
        try:
            results.append(function(item))
        except UnidentifiedImageError:
            failed[position] = "not an image"
        except BROKEN as error:
            failed[position] = str(error) or type(error).__name__
    return results, failed


def _open(file: Path) -> Image.Image:
    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])


def _header(file: Path) -> _Header:
    with _open(file) as image:
        if image.mode not in GREY + COLOUR:
            raise ValueError(f"pixels of mode {image.mode!r}; 8-bit or 16-bit grey, or colour is needed")
        width, height = image.size
        sideways = "exif" in image.info and image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 turn by 90
        return _Header((width, height) if sideways else (height, width), image.mode in GREY)


def _pixels(file: Path, grey: bool, size: tuple[int, int]) -> np.ndarray:
    """(C, H, W) uint8, upright, transparency dropped, resized if need be (bilinear, the aspect not kept)."""
    with _open(file) as image:
        image = ImageOps.exif_transpose(image) if "exif" in image.info else image
        if image.mode == "I;16":  # Pillow would cut at 255
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")  # straight to RGB, Pillow warns of some palettes
        image = image.convert("L" if grey else "RGB")
        if image.size != (size[1], size[0]):
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.array(image)
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _refuse(failed: dict[int, str], names: list[str], what: str) -> None:
    if failed:
        listed = _listed(f"{names[position]} ({reason})" for position, reason in failed.items())
        raise ValueError(f"{len(failed)} of {len(names)} images {what}: {listed}")


def _check_alike(values: list, names: list[str], describe) -> None:
    """ValueError that names files that differ from what most are."""
    usual = Counter(values).most_common(1)[0][0]
    odd = [f"{name} ({describe(value)})" for name, value in zip(names, values, strict=True) if value != usual]
    if odd:
        raise ValueError(
            f"the images must be alike: most are {describe(usual)}, but {len(odd)} of {len(names)} are not: "
            f"{_listed(odd)}. Give size= to bring all to one size, and to RGB if any is in colour."
        )


def _listed(items: Iterable[str]) -> str:
    items = list(items)
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")


def _classes(names: list[str]) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels and class names by the first sub-folder in each name; (None, ()) if no image lies in a sub-folder."""
    folders = [name.split("/")[0] if "/" in name else None for name in names]
    loose = [name for name, folder in zip(names, folders, strict=True) if folder is None]
    if len(loose) == len(names):
        return None, ()
    if loose:
        raise ValueError(f"{len(loose)} of {len(names)} images lie beside the class folders: {_listed(loose)}")
    class_names = sorted(set(folders))
    number = {name: position for position, name in enumerate(class_names)}
    return torch.tensor([number[folder] for folder in folders]), tuple(class_names)
