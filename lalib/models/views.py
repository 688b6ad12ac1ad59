"""Random views of images: moved, bent, dimmed and covered copies that show the same thing.

References
----------
[Simard2003] Simard, Steinkraus and Platt, Best practices for convolutional neural networks applied to visual document
             analysis, 2003. Elastic distortions.
[DeVries2017] DeVries and Taylor, Improved regularization of convolutional neural networks with cutout, 2017.
"""

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

    Each strength is the largest change and 0 is none; every image draws its own, uniformly. shift: share of a side;
    rotation: degrees; scale, stretch: share of the size, of both sides alike and of their ratio; shear: columns per
    row; crop: share of a side that may be cut away before the rest is enlarged; elastic: share of a side by which a
    smooth random field bends the image [Simard2003]; contrast, brightness: factor on the difference from the image's
    mean, and what is added; colour: share by which colours fade towards grey or away from it; blur: share of a 3 x 3
    mean that is mixed in; erase: side of a square that is covered with the image's mean, as a share of a side
    [DeVries2017]; flip: mirror half of the images, wrong for digits and letters. LIMITS has the largest of each.
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
        """One view of each image; what is drawn for one strength does not depend on the others."""
        n, size = len(images), images.shape[2:]
        draw = _uniform((16, n), generator, images.device)
        arrows = _uniform((n, 2, 5, 5), generator, images.device)  # five along a side, between which all bends smoothly
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


# Shapes matter and are hardly bent, parts are covered; found on training images of fashion-mnist-mini.
CLOTHES = {"flip": True, "shift": 0.05, "rotation": 5.0, "stretch": 0.0, "shear": 0.05, "scale": 0.1}
CLOTHES |= {"elastic": 0.03, "contrast": 0.4, "erase": 0.5}

# Strengths and the largest that make sense.
LIMITS = {field.name: 1 for field in fields(RandomViews) if field.name != "flip"}
LIMITS |= {"rotation": 180, "scale": 0.9, "stretch": 0.9, "shear": 2, "crop": 0.9}


def _uniform(shape: tuple, generator: torch.Generator, device: torch.device) -> Tensor:
    """Numbers in [-1, 1) on `device`, drawn where the generator is."""
    return (2 * torch.rand(shape, generator=generator, device=generator.device) - 1).to(device)
