"""Distances between points: the one engine of neighbours, clusters, coverage and of picking what lies far apart.

Work goes in blocks, so that memory is O(N), on the device of the input. There are two ways to a distance:

- from differences: right to the last digits also far from the origin. It decides what is picked.
- by a matrix product about the mean: many times faster for many pairs, right to about 1e-15 of the largest squared norm
  in double precision. In single precision it serves for bounds alone (`Pairs`), inside `full_precision`.
"""

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2**21  # distances at once: 16 MB
TILE = 2**19  # squared distances at once where they are summed up: 4 MB stay in the cache
ROWS = 512  # of a tile, at most


def distances(a: Tensor, b: Tensor, p: float = 2.0) -> Tensor:
    """Distances (M, N) between rows of a (M, L) and b (N, L) under the p-norm, from differences."""
    return torch.cdist(a, b, p=p, compute_mode="donot_use_mm_for_euclid_dist")


def blocks(a: Tensor, b: Tensor, p: float = 2.0) -> Iterator[Tensor]:
    """`distances`, for one block of rows of a (M, L) after the other."""
    for rows in a.split(max(1, BLOCK // len(b))):
        yield distances(rows, b, p)


def from_row(points: Tensor, row: int) -> Tensor:
    """Distances (N,) from one of the points (N, L) to all of them; they are read once."""
    return distances(points[row : row + 1], points)[0]


def nearest_distance(points: Tensor, centres: Tensor) -> Tensor:
    """Distance (N,) from each point (N, L) to the nearest of the centres (M, L); inf if M = 0."""
    if not len(centres):
        return points.new_full((len(points),), torch.inf)
    return torch.cat([distance.amin(dim=1) for distance in blocks(points, centres)])


def factors(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """left (M, L + 2) and right (N, L + 2) in float64; left @ right.T are the squared distances between a and b."""
    mean = b.double().mean(dim=0)
    (a, one_a), (b, one_b) = ((x.double() - mean, torch.ones_like(x[:, :1], dtype=torch.float64)) for x in (a, b))
    norm_a, norm_b = (x.square().sum(dim=1, keepdim=True) for x in (a, b))
    return torch.cat([-2 * a, norm_a, one_a], dim=1), torch.cat([b, one_b, norm_b], dim=1)


def tiles(left: Tensor, right: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """The product left @ right.T in tiles: which rows, which columns, and the part of the product."""
    height = min(ROWS, max(1, len(left)))
    for i in range(0, len(left), height):
        for j in range(0, len(right), TILE // height):
            rows, columns = slice(i, i + height), slice(j, j + TILE // height)
            yield rows, columns, left[rows] @ right[columns].T


class Pairs:
    """Squared distances from some of the points, those at `rows` (M,), to all points (N, L), in tiles.

    Exact ones are in double precision. Rough ones are in single precision and never above the exact ones: a product of
    L + 2 terms is right to (L + 2) 2^-23 of the squared norms, and both norms are made smaller by a little more.
    """

    def __init__(self, points: Tensor, rows: Tensor):
        self.everything, self.right = factors(points, points)
        self.left = self.everything[rows.to(points.device)]
        keep = 1 - (points.shape[1] + 16) * 2**-23
        self.rough_left, self.rough_right = self.left.float(), self.right.float()
        self.rough_left[:, -2] *= keep
        self.rough_right[:, -1] *= keep

    def tiles(self, rows: Tensor, targets: Tensor | None = None, rough: bool = False):
        """`tiles` from rows (B,) of the M to all points, or to those in the mask `targets` (N,)."""
        left, right = (self.rough_left, self.rough_right) if rough else (self.left, self.right)
        return tiles(left[rows.to(left.device)], right if targets is None else right[targets])

    def from_points(self, index: Tensor):
        """`tiles` from the points at index (B,) to all points."""
        return tiles(self.everything[index.to(self.right.device)], self.right)

    def from_row(self, row: int) -> Tensor:
        """From one row of the M to all points, (N,)."""
        return self.right @ self.left[row]


_LOCK, _INSIDE, _PUT_BACK = threading.Lock(), [], contextlib.ExitStack()
_PRODUCTS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 matrices keep full float32 precision inside: bounds of their rounding errors need that.

    torch may have been told to round the factors to fewer bits (TF32 on a GPU, bfloat16 on a CPU). That setting holds
    for the whole process: what was found is put back when the last thread leaves, whatever happens inside.
    """
    with _LOCK:
        if not _INSIDE:
            for product in _PRODUCTS:
                if hasattr(product, "fp32_precision"):  # since torch 2.9; put back after the older setting of all
                    _PUT_BACK.callback(setattr, product, "fp32_precision", product.fp32_precision)
            with contextlib.suppress(RuntimeError):  # raised where only these newer settings were changed
                _PUT_BACK.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        _INSIDE.append(None)
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE.pop()
            if not _INSIDE:
                _PUT_BACK.close()  # last in, first out
