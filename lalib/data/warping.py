"""Images moved, turned, scaled and bent: the map of coordinates, and copies that differ a little."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def affine(scale_x: Tensor, scale_y: Tensor, angle: Tensor, shear: Tensor, shift: Tensor, size: tuple) -> Tensor:
    """(N, 2, 3) maps of output to input coordinates for `warp`, in which a side of the image is 2 units long.

    scale_x, scale_y (N,): above 1 shrinks what is seen; angle (N,) in radians; shear (N,): columns per row;
    shift (2, N) along x and y in units of half a side; size (H, W): angles are those of square pixels.
    """
    aspect = size[1] / size[0]
    cos, sin, slant = angle.cos(), angle.sin(), shear * scale_y
    x = [cos * scale_x, (cos * slant - sin * scale_y) / aspect, shift[0]]
    y = [(sin * scale_x) * aspect, sin * slant + cos * scale_y, shift[1]]
    return torch.stack([torch.stack(x, 1), torch.stack(y, 1)], 1)


def warp(images: Tensor, theta: Tensor, bend: Tensor | None = None) -> Tensor:
    """Images (N, C, H, W), floating point, sampled where `theta` (N, 2, 3), plus `bend` (N, H, W, 2), points.

    Bilinear; the border's pixels fill what comes in from outside.
    """
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid if bend is None else grid + bend, padding_mode="border", align_corners=False)


def augment(images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Copies of `images` (N, C, H, W) uint8, each shifted by up to 7 % of a side, turned by up to 10 degrees and scaled
    by up to 10 %; never mirrored, which would make other digits and letters.
    """
    draw = torch.rand((4, len(images)), generator=generator) * 2 - 1
    angle, scale, shift = draw[0] * (math.pi / 18), 1 + 0.1 * draw[1], 0.14 * draw[2:]  # a side is 2 units long
    theta = affine(scale, scale, angle, torch.zeros(len(images)), shift, images.shape[2:])
    blocks = zip(images.split(2048), theta.split(2048), strict=True)
    moved = [warp(block.float(), maps).round().to(torch.uint8) for block, maps in blocks if len(block)]
    return torch.cat([images[:0], *moved])
