"""One image file as a person sees it, read with Pillow: upright, on a background, in 8 bits; and its hashes."""

import contextlib
import io
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageCms, ImageColor, ImageOps

from lalib.data.files import digest

# raster formats only: Pillow hands some of the others (EPS) to programs outside Python
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
DEEP = ("I;16", "I;16B", "I;16L", "I", "F")  # grey of more than 8 bits
GREY = ("1", "L", "LA", *DEEP)
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
ORIENTATION = 0x0112  # in EXIF; Pillow's getexif finds it in XMP and in a raw profile, too
_T = Image.Transpose
_KEPT = (_T.FLIP_LEFT_RIGHT, _T.ROTATE_180, _T.FLIP_TOP_BOTTOM)  # which keep the aspect, as those below do not
TURNS = dict(enumerate((*_KEPT, _T.TRANSPOSE, _T.ROTATE_270, _T.TRANSVERSE, _T.ROTATE_90), start=2))
# what browsers show as lalib sees it (MPO: of phones), unless it is larger than this
BROWSERS = {"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp"}
MOST_BYTES, MOST_PIXELS, LONGEST = 8_000_000, 40_000_000, 4_096  # then the longer side has so many pixels
# what Pillow's parsers raise on damaged files; warnings, where the user turns them into errors
FAULT = (OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError, AssertionError, Warning)
FAULT += (struct.error, ImageCms.PyCMSError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Look:
    """How files become pixels: size (H, W) or None; fit, background (r, g, b) and depth as in from_folder."""

    size: tuple[int, int] | None
    fit: str
    background: tuple[int, int, int]
    depth: str | tuple[float, float]


@cache
def formats() -> list[str]:
    """Those of FORMATS that can be read here: HEIF only if pillow-heif is installed."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]


def extensions() -> set[str]:
    """How the names of their files end, such as ".png"."""
    known = {*formats(), "MPO"}  # which Pillow opens as JPEG
    return {ext for ext, name in Image.registered_extensions().items() if name in known}


@contextlib.contextmanager
def _open(file):
    # An open file: a TIFF to be turned, if it lies in memory by its path (as a map), has its pixels in disorder.
    with open(file, "rb") as data, Image.open(data, formats=formats()) as image:
        yield image


def read_header(file: Path, look: Look) -> tuple[tuple[int, int], str, tuple[float, float] | None]:
    """(H, W) of the image once it is upright, "grey" or "in colour", and the range of its pixels if they are deep."""
    if str(file).encode(errors="replace").decode() != str(file):
        raise ValueError("its path is not UTF-8 text")  # which no CSV file could hold
    if file.exists() and not file.is_file():
        raise ValueError("not a file")
    with _open(file) as image:
        if image.mode not in GREY + COLOUR:
            raise ValueError(f"pixels of mode {image.mode!r}, which are not read")
        if 0 in image.size:
            raise ValueError("no pixels")
        size, kind, span = image.size[::-1], "grey" if image.mode in GREY else "in colour", None
        if look.size is None and image.format != "TIFF" and _orientation(image) >= 5:  # they turn by 90 degrees;
            size = image.size  # of a TIFF, Pillow says the upright size
        if image.mode in DEEP:
            span = look.depth if look.depth != "auto" else _range(np.asarray(image))
        return size, kind, span


def _range(values):
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError("no pixel is a finite number")
    return values.min().item(), values.max().item()


def _orientation(image):
    """1 to 8 as in EXIF; 1 as well where the metadata is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except FAULT:
        return 1


def read_image(file: Path, grey: bool, size: tuple[int, int], look: Look, span: tuple[float, float] | None) -> tuple:
    """(C, H, W) uint8, and what the image is known by: its hash, then those that earlier versions of lalib gave it.

    Earlier versions dropped transparency, divided 16 bits by 257, stretched the image, and hashed what came out, in
    grey or in colour as the whole folder was.
    """
    image, own, _ = _decoded(file)
    plain = seen = image
    if image.mode == "RGBA":
        plain = image.convert(own)
        seen = Image.alpha_composite(Image.new("RGBA", image.size, look.background), image)
    elif image.mode in DEEP:
        plain, seen = _in_8_bits(image, 0, 65535), _in_8_bits(image, *span)
    former = plain.resize(size[::-1], Image.Resampling.BILINEAR)
    mode = "L" if grey else "RGB"
    pixels = former if seen is plain and look.fit == "stretch" else _fitted(_as(seen, mode), size, look)
    array = np.atleast_3d(np.array(_as(pixels, mode)))
    known = dict.fromkeys(map(_identity, (image, former, former.convert("RGB"))))
    return torch.from_numpy(array).permute(2, 0, 1), tuple(known)


def read_whole(file: Path) -> tuple[str, bytes, tuple[int, int], tuple[int, int], str]:
    """A file for a browser: media type and bytes, (W, H) of the image and of what is shown of it; its own hash.

    The bytes are the file's if browsers show them as read_image sees them. Others are written anew, as JPEG on white:
    other formats, deep ones (their darkest pixel is black, their brightest white), and those above MOST_BYTES or
    MOST_PIXELS, with at most LONGEST pixels on a side.
    """
    image, _, kind = _decoded(file)
    known, size, data = _identity(image), image.size, file.read_bytes()
    if kind and len(data) <= MOST_BYTES and size[0] * size[1] <= MOST_PIXELS:
        return kind, data, size, size, known
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", size, "white"), image).convert("RGB")
    elif image.mode in DEEP:
        image = _in_8_bits(image, *_range(np.asarray(image)))
    image.thumbnail((LONGEST, LONGEST))
    image.save(buffer := io.BytesIO(), format="JPEG", quality=95, subsampling=0)
    return "image/jpeg", buffer.getvalue(), size, image.size, known


def _decoded(file):
    """The image, upright, at full size, as L, RGB, RGBA if it is transparent, I or F if it is deep; L or RGB, its mode
    without transparency; and the media type of the file if a browser shows it like that, else None."""
    with _open(file) as image:
        image.load()
        turn = TURNS.get(_orientation(image))  # after load: some files tell it behind their pixels
        own, kind = "L" if image.mode in GREY else "RGB", BROWSERS.get(image.format)
        if image.mode in DEEP or (turn is not None and not (kind == "image/jpeg" and _turns_by_exif(image))):
            kind = None
        if image.mode in DEEP:
            image = image if image.mode in "IF" else Image.fromarray(np.asarray(image).astype(np.int32))
        elif image.mode == "LAB":
            profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        elif image.has_transparency_data:
            image = _as(image, "RGBA")
            image = image if image.getchannel("A").getextrema()[0] < 255 else image.convert(own)
        image = image if image.mode in ("I", "F", "RGBA") else _as(image, own)
        return image if turn is None else image.transpose(turn), own, kind


def _turns_by_exif(image):
    """Whether EXIF itself tells the orientation, which browsers follow, and not XMP."""
    (exif := Image.Exif()).load(image.info.get("exif", b""))
    return ORIENTATION in exif


def _as(image, mode):
    return image if image.mode == mode else image.convert(mode)  # which copies in any case


def _in_8_bits(image, low, high):
    """An image L of which 0 is `low` and below and what is no number, and 255 is `high` and above."""
    share = (np.asarray(image, dtype=np.float64) - low) / ((high - low) or 1)
    return Image.fromarray((np.nan_to_num(share).clip(0, 1) * 255).round().astype(np.uint8))


def _identity(image):
    """SHA-256 of shape and pixels, as ImageSet.hashes has it for arrays (C, H, W)."""
    return digest(repr((len(image.getbands()), *image.size[::-1])), *map(np.asarray, image.split()))


def _fitted(image, size, look):
    """The image, L or RGB, brought to (H, W) as look.fit says (bilinear)."""
    size, bilinear = size[::-1], Image.Resampling.BILINEAR
    if look.fit != "pad":
        return image.resize(size, bilinear) if look.fit == "stretch" else ImageOps.fit(image, size, bilinear)
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = image.resize([max(round(side * scale), 1) for side in image.size], bilinear)
    padded = Image.new(image.mode, size, ImageColor.getcolor("rgb({},{},{})".format(*look.background), image.mode))
    padded.paste(inner, tuple((whole - part) // 2 for whole, part in zip(size, inner.size, strict=True)))
    return padded
