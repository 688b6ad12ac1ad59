"""Random views of images: moved, bent, dimmed, covered copies of the same thing. References: see lalib.models."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from lalib.data.checks import check_number
from lalib.data.door import plain
from lalib.data.warping import affine, warp


@dataclass(frozen=True, kw_only=True)
class RandomViews:
    """A random view of every image of a batch: (B, C, H, W) in [0, 1] to the same, on the device of its input.

    Each strength says how large a change may be; 0 is no change. Every image draws its own change, uniformly.
    shift: share of a side. rotation: degrees. scale: share of the size. stretch: share of the ratio of the sides.
    shear: columns per row. crop: share of a side that may be cut away; the rest is enlarged. elastic: share of a side
    by which a smooth random field bends the image [Simard2003]. contrast: share of each pixel's difference from the
    image's mean. brightness: what is added to all pixels. colour: share by which colours fade or grow stronger.
    blur: share of the mean of 3 x 3 pixels that is mixed in. erase: side of a square that the image's mean covers, as a
    share of a side [DeVries2017]. flip: True mirrors half of the images; wrong for digits and letters.
    Raises ValueError for a strength below 0 or above its value in LIMITS, TypeError for what is no number or no bool.
    """

    shift: float = 0.1
    rotation: float = 15.0
    scale: float = 0.15
    stretch: float = 0.1
    shear: float = 0.2
    crop: float = 0.0
    elastic: float = 0.1
    contrast: float = 0.2
    brightness: float = 0.0
    colour: float = 0.2
    blur: float = 0.0
    erase: float = 0.0
    flip: bool = False

    def __post_init__(self):
        for name, high in LIMITS.items():
            object.__setattr__(self, name, check_number(name, getattr(self, name), low=0, high=high))
        object.__setattr__(self, "flip", plain(self.flip))
        if not isinstance(self.flip, bool):
            raise TypeError(f"flip must be True or False, got {self.flip!r}")

    @torch.no_grad()
    def __call__(self, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """One view of each image. What is drawn for one strength does not depend on the other strengths."""
        n, size = len(images), images.shape[2:]
        draw = _uniform((16, n), generator, images.device)
        arrows = _uniform((n, 2, 5, 5), generator, images.device)  # of a 5 x 5 grid; between them all bends smoothly
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 would round the points that are sampled
            bend = None
            if self.elastic:
                bend = F.interpolate(2 * self.elastic * arrows, size=size, mode="bicubic", align_corners=True)
                bend = bend.permute(0, 2, 3, 1)
            views = warp(images, self._theta(draw, size), bend)
            views = self._cover(self._shade(views, draw[8:12]), draw[12:15])
        return views.clamp(0, 1)

    def _theta(self, draw: Tensor, size: tuple) -> Tensor:
        kept = 1 - self.crop * (draw[2] + 1) / 2  # share of a side that a crop leaves
        scale, stretch = kept * (1 + self.scale * draw[3]), 1 + self.stretch * draw[4]
        mirror = torch.where(draw[5] < 0, -1.0, 1.0) if self.flip else 1.0
        shift = (2 * self.shift + 1 - kept) * draw[:2]
        angle = math.radians(self.rotation) * draw[6]
        return affine(mirror * scale * stretch, scale / stretch, angle, self.shear * draw[7], shift, size)

    def _shade(self, views: Tensor, draw: Tensor) -> Tensor:
        contrast, brightness, colour, blur = draw[:, :, None, None, None]
        if self.blur:
            smooth = F.avg_pool2d(F.pad(views, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
            views = views + self.blur * (blur + 1) / 2 * (smooth - views)
        if self.colour and views.shape[1] > 1:
            grey = views.mean(1, keepdim=True)
            views = grey + (1 + self.colour * colour) * (views - grey)
        if self.contrast or self.brightness:
            mean = views.mean((1, 2, 3), keepdim=True)
            views = mean + (1 + self.contrast * contrast) * (views - mean) + self.brightness * brightness
        return views

    def _cover(self, views: Tensor, draw: Tensor) -> Tensor:
        if not self.erase:
            return views
        y, x, side = draw[:, :, None]
        side = self.erase * (side + 1)  # of a square in coordinates from -1 to 1
        rows, columns = (torch.linspace(-1, 1, size, device=views.device) for size in views.shape[2:])
        rows, columns = (rows - y).abs() < side / 2, (columns - x).abs() < side / 2
        return torch.where(rows[:, None, :, None] & columns[:, None, None], views.mean((2, 3), keepdim=True), views)


# For clothes: shapes matter and are hardly bent, parts are covered. Chosen by labels of fashion-mnist-mini.
CLOTHES = {"flip": True, "shift": 0.05, "rotation": 5.0, "stretch": 0.0, "shear": 0.05, "scale": 0.1}
CLOTHES |= {"elastic": 0.03, "contrast": 0.4, "erase": 0.5}

# The largest value of each strength that makes sense.
LIMITS = {field.name: 1 for field in fields(RandomViews) if field.name != "flip"}
LIMITS |= {"rotation": 180, "scale": 0.9, "stretch": 0.9, "shear": 2, "crop": 0.9}


def _uniform(shape: tuple, generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers in [-1, 1) on `device`, drawn where the generator is."""
    return (2 * torch.rand(shape, generator=generator, device=generator.device) - 1).to(device)
