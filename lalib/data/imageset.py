"""ImageSet, the form in which lalib holds images, and the way there from arrays."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from lalib.data.checks import LalibError
from lalib.data.door import as_tensor, check_class_names, check_index, check_labels, renumbered
from lalib.data.files import digest

Array = np.ndarray | torch.Tensor | Sequence  # and what else door.as_tensor takes
MIN_SIZE = 8  # pixels
MOST_CLASSES = 100_000  # without names: more are no classes but, say, numbers of patients


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with or without labels; checked when made, never changed after.

    images: uint8 (N, C, H, W) on the CPU, C 1 or 3, H and W at least 8. labels: int64 (N,) class numbers, (N, C) of 0
    and 1 where an image may have several classes, or None. files: the names of the images' files, where they have any.
    identities: of images from files the hash of each, then those that earlier versions of lalib gave it.
    Raises TypeError and ValueError for anything else.
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    class_names: tuple[str, ...]
    source: str
    files: tuple[str, ...] = ()
    identities: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", check_class_names(self.class_names))
        object.__setattr__(self, "files", tuple(self.files))
        images = self.images
        if not isinstance(images, torch.Tensor):
            came = type(images).__name__
            raise TypeError(f"images must be a torch tensor, got {came}; from_arrays takes other arrays")
        if images.dtype != torch.uint8:
            raise TypeError(f"images must be uint8, got {images.dtype}; from_arrays takes floats in [0, 1]")
        if images.device.type != "cpu":
            raise ValueError(f"images must be on the CPU, got {images.device}")
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images must have shape (N, C, H, W) with C 1 or 3, got {tuple(images.shape)}")
        if len(images) == 0:
            raise ValueError("images must hold at least one image, got none")
        height, width = images.shape[2:]
        if min(height, width) < MIN_SIZE:
            raise ValueError(f"images must be at least {MIN_SIZE} x {MIN_SIZE} pixels, got {height} x {width}")
        if self.labels is not None:
            if not isinstance(self.labels, torch.Tensor) or self.labels.dtype != torch.int64:
                came = getattr(self.labels, "dtype", type(self.labels).__name__)
                raise TypeError(f"labels must be an int64 tensor, got {came}; from_arrays takes other arrays")
            check_labels(self.labels, len(self.images), self.n_classes, several=True)
        if self.files and len(self.files) != len(self.images):
            raise ValueError(f"files must name all {len(self.images)} images, got {len(self.files)}")
        if self.identities and len(self.identities) != len(self.images):
            raise ValueError(f"identities must be of all {len(self.images)} images, got {len(self.identities)}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        classes = f"{self.n_classes} classes" if self.labels is not None else "no labels"
        return f"ImageSet({self.source!r}, {len(self)} x {'x'.join(map(str, self.image_shape))}, {classes})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return tuple(self.images.shape[1:])

    @property
    def n_classes(self) -> int:
        """Number of class names; 0 where no classes are known."""
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes at once."""
        return self.labels is not None and self.labels.ndim == 2

    def subset(self, index: Array) -> "ImageSet":
        """The images at `index` (n,), whole numbers in [0, N), in that order and as often as they are named."""
        index = check_index(index, len(self))
        labels = None if self.labels is None else self.labels[index]
        files, identities = (tuple(of[i] for i in index.tolist()) if of else () for of in (self.files, self.identities))
        return ImageSet(self.images[index], labels, self.class_names, self.source, files, identities)

    def labels_as(self, class_names: Iterable[str]) -> torch.Tensor:
        """The labels as numbers of the classes `class_names`, matched by name: (N,), or (N, C) of 0 and 1.

        Raises LalibError without labels, ValueError if an image has a class that is not among the names.
        """
        if self.labels is None:
            raise LalibError(f"{self.source} has no labels")
        return renumbered(self.labels, self.class_names, check_class_names(class_names))

    def fingerprint(self) -> str:
        """SHA-256 over images and labels with their shapes: equal for equal data, whatever their source."""
        labels = ("None",) if self.labels is None else (repr(tuple(self.labels.shape)), self.labels.numpy())
        return digest(repr(tuple(self.images.shape)), self.images.numpy(), *labels)

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """What each image is known by: the SHA-256 of its shape (C, H, W) and pixels.

        From a folder, they are those of the file itself, upright and at full size, with its transparency and all its
        bits: they depend neither on other files nor on how from_folder brings them to 8 bits, one size and one number
        of colours. Names and other metadata do not count.
        """
        if self.identities:
            return tuple(own for own, *_ in self.identities)
        return tuple(digest(repr(self.image_shape), image) for image in self.images.numpy())

    @cached_property
    def former(self) -> dict[str, list[str]]:
        """{hash that earlier versions of lalib gave, of the resized pixels: today's hashes}, for LabelStore.adopt."""
        found = {}
        for own, *before in self.identities:
            for old in before:
                found.setdefault(old, {})[own] = None
        return {old: list(owns) for old, owns in found.items()}

    def hash_of(self, image: str) -> str:
        """Today's hash of an image from its hash, be that a former one or not even of these images."""
        return self.former.get(image, [image])[0]


def from_arrays(images: Array, labels: Array | None = None, class_names: Iterable[str] | None = None) -> ImageSet:
    """An ImageSet of arrays: uint8, or floats in [0, 1]; grey (N, H, W), or (N, H, W, C) or (N, C, H, W) with C 1 or 3.

    labels: whole numbers (N,), 0/1 (N, C) for images with several classes, or None. class_names: "0", "1", ... if None.
    uint8 arrays are not copied where their layout allows, so that a memory map stays one.
    Raises TypeError and ValueError for other types, shapes and values, NaN among them.
    """
    images = as_tensor(images, "images").cpu()
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise TypeError(f"images must be uint8, or floats in [0, 1], got {images.dtype}")
        if images.ndim > 1 and (bad := int((~torch.isfinite(images)).flatten(1).any(1).sum())):
            raise ValueError(f"images must be finite, but {bad} of {len(images)} hold NaN or infinity")
        if images.numel() and not 0 <= float(images.min()) <= float(images.max()) <= 1:
            low, high = float(images.min()), float(images.max())
            raise ValueError(f"images of floats must lie in [0, 1], got {low:g} to {high:g}")
        images = (images * 255).round().to(torch.uint8)
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2).contiguous()
    if labels is not None:
        labels = as_tensor(labels, "labels").cpu()
        labels = check_labels(labels.long() if labels.dtype == torch.bool else labels, several=True)
        if class_names is None:
            count = int(labels.max()) + 1 if labels.ndim == 1 else labels.shape[1]
            if count > MOST_CLASSES:
                raise ValueError(f"labels without class_names must lie below {MOST_CLASSES}, got {count - 1}")
            class_names = map(str, range(count))
    return ImageSet(images, labels, () if class_names is None else class_names, "arrays")


def png_uri(pixels: np.ndarray) -> str:
    """An image (H, W, 1 or 3), uint8, as a PNG in a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
