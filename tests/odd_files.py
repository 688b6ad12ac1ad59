"""Sixty and more odd image files, each with the pixels that a person sees in it, or with what a message says of it."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

H, W = 10, 12
GREY = np.add.outer(20 * np.arange(H), np.arange(W)).astype(np.uint8)  # no turned or mirrored one is the same
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
DEEP = 100 + 16 * np.arange(H * W).reshape(H, W)  # twelve bits in sixteen
RANGE = (100, 100 + 16 * (H * W - 1))
SEEN = np.round((DEEP - RANGE[0]) / (RANGE[1] - RANGE[0]) * 255).astype(np.uint8)
ALPHA = np.where(np.arange(W) < W // 2, 0, 255)[None].repeat(H, 0).astype(np.uint8)  # the left half is transparent
TURNED = {  # what is stored, for each orientation, of a picture that is GREY when upright
    1: GREY,
    2: GREY[:, ::-1],
    3: GREY[::-1, ::-1],
    4: GREY[::-1],
    5: GREY.T,
    6: np.rot90(GREY, 1),
    7: GREY[::-1, ::-1].T,
    8: np.rot90(GREY, -1),
}
NOT, CUT = "not an image", "truncat|not enough|broken|decod|read|EOF|incomplete|bytes|end of|corrupt|not an image"


def saved(image, form, **options) -> bytes:
    """An image, or its pixels, as the bytes of a file."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(np.ascontiguousarray(image))
    image.save(buffer := io.BytesIO(), form, **options)
    return buffer.getvalue()


def seen_in(data: bytes, mode: str) -> np.ndarray:
    """The pixels of a lossy file, as Pillow decodes them."""
    return np.array(Image.open(io.BytesIO(data)).convert(mode))


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def xmp(orientation: int) -> str:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'


def raw_profile(orientation: int) -> PngImagePlugin.PngInfo:
    """As ImageMagick writes EXIF into PNG files."""
    data = exif(orientation).tobytes()
    made = PngImagePlugin.PngInfo()
    made.add_text("Raw profile type exif", f"\nexif\n{len(data):8}\n{data.hex()}\n")
    return made


def odd_files() -> dict[str, tuple[bytes, np.ndarray | str]]:
    """{name: (bytes, pixels (H, W) or (H, W, 3), or a pattern of the message that names the file)}."""
    files = {
        # kinds of pixels
        "1.png": (saved(Image.fromarray(GREY > 99), "PNG"), np.where(GREY > 99, 255, 0)),
        "1.tif": (saved(Image.fromarray(GREY > 99), "TIFF", compression="group4"), np.where(GREY > 99, 255, 0)),
        "1.pbm": (saved(Image.fromarray(GREY > 99), "PPM"), np.where(GREY > 99, 255, 0)),
        "L.png": (saved(GREY, "PNG"), GREY),
        "L.bmp": (saved(GREY, "BMP"), GREY),
        "L.pgm": (saved(GREY, "PPM"), GREY),
        "L.tif": (saved(GREY, "TIFF", compression="tiff_lzw"), GREY),
        "L.webp": (saved(RGB, "WEBP", lossless=True), RGB),
        "L.jp2": (saved(GREY, "JPEG2000"), GREY),
        "RGB.png": (saved(RGB, "PNG"), RGB),
        "RGB.tif": (saved(RGB, "TIFF"), RGB),
        "RGB.ppm": (saved(RGB, "PPM"), RGB),
        "RGB.avif": (data := saved(RGB, "AVIF"), seen_in(data, "RGB")),
        "RGB.jpg": (data := saved(RGB, "JPEG"), seen_in(data, "RGB")),
        "progressive.jpg": (data := saved(RGB, "JPEG", progressive=True), seen_in(data, "RGB")),
        "YCbCr.tif": (
            data := saved(Image.fromarray(RGB).convert("YCbCr"), "TIFF"),
            seen_in(data, "RGB"),
        ),
        "RGBX.tif": (saved(Image.fromarray(RGB).convert("RGBX"), "TIFF"), RGB),
        "P.png": (saved(Image.fromarray(RGB // 128 * 255).quantize(8), "PNG"), RGB // 128 * 255),
        "P.gif": (saved(Image.fromarray(RGB // 128 * 255).quantize(8), "GIF"), RGB // 128 * 255),
        "P of grey.tif": (saved(Image.fromarray(GREY).convert("P"), "TIFF"), np.stack([GREY] * 3, axis=2)),
    }
    # transparency, laid on white; below it there is black ink
    on_white = np.where(ALPHA == 0, 255, GREY)
    colours = np.where(ALPHA[..., None] == 0, 255, RGB)
    ink = np.where(ALPHA == 0, 255, 0)
    half = Image.fromarray(np.full((H, W), 0, np.uint8)).convert("RGBA")
    half.putalpha(128)
    la, rgba = Image.merge("LA", [*map(Image.fromarray, (GREY, ALPHA))]), Image.fromarray(np.dstack([RGB, ALPHA]))
    palette = Image.fromarray(np.where(ALPHA == 0, 0, 1).astype(np.uint8), "L")
    palette.putpalette([9, 9, 9, 0, 0, 0])
    several = Image.fromarray(RGB)
    files |= {
        "LA.png": (saved(la, "PNG"), on_white),
        "LA.tif": (saved(la, "TIFF"), on_white),
        "PA.tif": (saved(Image.fromarray(RGB // 128 * 255).quantize(8).convert("PA"), "TIFF"), RGB // 128 * 255),
        "RGBA.png": (saved(rgba, "PNG"), colours),
        "RGBA.tif": (saved(rgba, "TIFF"), colours),
        "RGBA.webp": (saved(rgba, "WEBP", lossless=True, exact=True), colours),
        "half.png": (saved(half, "PNG"), np.full((H, W, 3), 127)),
        "opaque.png": (saved(Image.fromarray(RGB).convert("RGBA"), "PNG"), RGB),
        "P and a transparent colour.png": (saved(palette, "PNG", transparency=0), np.stack([ink] * 3, axis=2)),
        "P and alphas.png": (saved(palette, "PNG", transparency=b"\0\xff"), np.stack([ink] * 3, axis=2)),
        "P and a transparent colour.gif": (saved(palette, "GIF", transparency=0), np.stack([ink] * 3, axis=2)),
        "L and a transparent grey.png": (saved(GREY, "PNG", transparency=40), np.where(GREY == 40, 255, GREY)),
        "RGB and a transparent colour.png": (
            saved(RGB, "PNG", transparency=tuple(map(int, RGB[0, 0]))),
            np.where((RGB[0, 0] == RGB).all(2)[..., None], 255, RGB),
        ),
        # more than 8 bits
        "16.png": (saved(DEEP.astype(np.uint16), "PNG"), SEEN),
        "16.tif": (saved(DEEP.astype(np.uint16), "TIFF"), SEEN),
        "16 the other way round.tif": (big_endian_tiff(DEEP), SEEN),
        "16.pgm": (b"P5 %d %d 65535\n" % (W, H) + DEEP.astype(">u2").tobytes(), SEEN),
        "32.tif": (saved(DEEP.astype(np.int32) * 70_000, "TIFF"), SEEN),
        "float.tif": (saved(DEEP.astype(np.float32) / 7000, "TIFF"), SEEN),
        "float.pfm": (b"Pf\n%d %d\n-1.0\n" % (W, H) + DEEP[::-1].astype("<f4").tobytes(), SEEN),
        "float with holes.tif": (
            saved(np.where(ALPHA == 0, np.nan, DEEP).astype(np.float32), "TIFF"),
            np.where(ALPHA == 0, 0, np.round((DEEP - DEEP[0, 6]) / (DEEP[-1, -1] - DEEP[0, 6]) * 255)),
        ),
        "holes only.tif": (saved(np.full((H, W), np.inf, np.float32), "TIFF"), "no pixel is a finite number"),
        "all the same.tif": (saved(np.full((H, W), 777, np.uint16), "TIFF"), np.zeros((H, W))),
        # other colours
        "CMYK.tif": (saved(Image.new("CMYK", (W, H), (255, 0, 0, 0)), "TIFF"), np.full((H, W, 3), (0, 255, 255))),
        "CMYK.jpg": (
            data := saved(Image.new("CMYK", (W, H), (255, 0, 0, 0)), "JPEG", quality=100),
            seen_in(data, "RGB"),
        ),
        "CMYK with a profile.jpg": (
            data := saved(
                Image.new("CMYK", (W, H), (0, 0, 255, 0)),
                "JPEG",
                icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
            ),
            seen_in(data, "RGB"),
        ),
        "LAB.tif": (saved(Image.new("LAB", (W, H), (138, 209, 198)), "TIFF"), np.full((H, W, 3), (255, 0, 0))),
        # several images in one
        "animated.gif": (
            saved(several.quantize(256), "GIF", save_all=True, append_images=[Image.new("RGB", (W, H))]),
            seen_in(saved(several.quantize(256), "GIF"), "RGB"),
        ),
        "animated.png": (saved(several, "PNG", save_all=True, append_images=[Image.new("RGB", (W, H))]), RGB),
        "animated.webp": (
            data := saved(several, "WEBP", save_all=True, append_images=[Image.new("RGB", (W, H))], lossless=True),
            RGB,
        ),
        "pages.tif": (saved(GREY, "TIFF", save_all=True, append_images=[Image.new("L", (30, 30))]), GREY),
        "two.mpo": (
            data := saved(several, "MPO", save_all=True, append_images=[Image.new("RGB", (W, H))]),
            seen_in(data, "RGB"),
        ),
        # names
        "PNG called.jpg": (saved(RGB, "PNG"), RGB),
        "TIFF called.PNG": (saved(GREY, "TIFF"), GREY),
        "\U0001f408\u200d\u2b1b \u732b.png": (saved(GREY, "PNG"), GREY),
        "two\nlines.png": (saved(GREY, "PNG"), GREY),
        "two\nwrong lines.png": (b"text", rf"two\\nwrong lines.png \({NOT}\)"),
        "n" * 251 + ".png": (saved(GREY, "PNG"), GREY),
        "'quotes\" and, commas; %s {0}.png": (saved(GREY, "PNG"), GREY),
        # what is no image, or not all of one
        "text.png": (b"no image at all", NOT),
        "empty.jpg": (b"", NOT),
        "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", NOT),
        "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NOT),
        "0 x 0.png": (_png(0, 0, b""), f"{NOT}|no pixels|tile|size"),
        "0 x 0.bmp": (saved(GREY, "BMP").replace(struct.pack("<ii", W, H), bytes(8)), f"{NOT}|no pixels|[Uu]nsupp"),
        "0 x 9.gif": (b"GIF89a" + struct.pack("<HH", 0, 9) + bytes(3) + b";", f"{NOT}|no pixels|no more images"),
        "damaged sum.png": (saved(RGB, "PNG")[:-20] + bytes(20), CUT),
        "damaged metadata.jpg": (data := saved(RGB, "JPEG", exif=b"Exif\0\0" + bytes(range(50))), seen_in(data, "RGB")),
    }
    noise = np.random.default_rng(0).integers(0, 256, (99, 90, 3), dtype=np.uint8)
    for form, ext in {"PNG": "png", "JPEG": "jpg", "TIFF": "tif", "GIF": "gif", "WEBP": "webp", "BMP": "bmp"}.items():
        whole = saved(noise, form)
        for part in (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9):
            files[f"{part:.0%}.{ext}"] = (whole[: int(len(whole) * part)], CUT)
    for orientation, stored in TURNED.items():
        lossless = {"lossless": True}
        files |= {
            f"EXIF {orientation}.png": (saved(stored, "PNG", exif=exif(orientation)), GREY),
            f"EXIF {orientation}.tif": (saved(stored, "TIFF", exif=exif(orientation)), GREY),
            f"raw profile {orientation}.png": (saved(stored, "PNG", pnginfo=raw_profile(orientation)), GREY),
            f"XMP {orientation}.webp": (
                saved(np.stack([stored] * 3, 2), "WEBP", xmp=xmp(orientation), **lossless),
                np.stack([GREY] * 3, 2),
            ),
        }
    return files


def _png(width, height, pixels):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def big_endian_tiff(pixels):
    """16-bit grey in the byte order of many a microscope, which Pillow reads but does not write."""
    height, width = pixels.shape
    data = pixels.astype(">u2").tobytes()
    short = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 277: 1, 278: height}  # sizes, bits, no compression, ...
    entries = {tag: struct.pack(">HHIHxx", tag, 3, 1, value) for tag, value in short.items()}
    entries |= {tag: struct.pack(">HHII", tag, 4, 1, value) for tag, value in {273: 8, 279: len(data)}.items()}
    directory = struct.pack(">H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return struct.pack(">2sHI", b"MM", 42, 8 + len(data)) + data + directory


def write_odd_files(folder: Path) -> dict[str, np.ndarray | str]:
    """Write them all into a folder; {name: pixels or pattern}."""
    files = odd_files()
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: expected for name, (_, expected) in files.items()}
