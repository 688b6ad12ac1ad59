"""Distances between points: the one engine of neighbours, clusters, coverage and of picking what lies far apart.

Work goes in blocks, so that memory is O(N), on the device of the input. There are two ways to a distance:

- from differences: right to the last digits also far from the origin. It decides what is picked.
- in single precision about the mean, several times faster, with a bound of its rounding error (`Rough`). It finds the
  few rows that could win; differences decide among them, so that results are those of the first way.
"""

import contextlib
import math
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2**21  # distances at once: 16 MB
TILE = 2**19  # squared distances at once where they are summed up: 4 MB stay in the cache
ROWS = 512  # of a tile, at most
CACHED = 2**10  # rows at once where each takes part in several steps
TINY = 2.0**-100  # of a square in single precision: below it digits are lost

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


def distances(a: Tensor, b: Tensor, p: float = 2.0) -> Tensor:
    """Distances (M, N) between rows of a (M, L) and b (N, L) under the p-norm, from differences."""
    return torch.cdist(a, b, p=p, compute_mode="donot_use_mm_for_euclid_dist")


def blocks(a: Tensor, b: Tensor, p: float = 2.0) -> Iterator[Tensor]:
    """`distances`, for one block of rows of a (M, L) after the other."""
    for rows in a.split(max(1, BLOCK // len(b))):
        yield distances(rows, b, p)


def from_row(points: Tensor, row: int | Tensor) -> Tensor:
    """Distances (N,) from one of the points (N, L) to all of them; they are read once."""
    return distances(points[row].view(1, -1), points)[0]


def squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (M,) float64 between rows of a and b, (M, L) each or (L,), from differences."""
    return (a.double() - b.double()).square_().sum(dim=-1)


def squares_to(points: Tensor, centres: Tensor, index: Tensor) -> Tensor:
    """Squared distances (N,) float64 from points (N, L) to those of the centres (M, L) at index (N,)."""
    pairs = zip(points.split(CACHED), index.split(CACHED), strict=True)
    return torch.cat([squares(part, centres[found]) for part, found in pairs])


def squared_norms(points: Tensor) -> Tensor:
    """Squares of the lengths (N,) float64 of points (N, L)."""
    return torch.cat([part.double().square().sum(dim=1) for part in points.split(CACHED)])


def power_of_two(value: Tensor) -> float:
    """The least power of two above a value (), and not below 2^-500: to scale by it rounds nothing."""
    return 2.0 ** max(-500, math.frexp(float(value))[1])


class Rough:
    """Lower bounds of squared distances to points (N, L), in single precision: rough.left(queries) @ rough.right.

    They are about the mean of the points and in units of size^2. A product of L + 2 terms is right to (L + 2) 2^-23 of
    both squared norms, which are made smaller by a little more. Products must be made inside `full_precision`.
    right (L + 2, N): a product with one query reads it nearly twice as fast as it would read (N, L + 2).
    """

    def __init__(self, points: Tensor):
        self.loss = (points.shape[1] + 16) * 2**-23
        low, high = points.amin(dim=0).double(), points.amax(dim=0).double()
        self.size = power_of_two((high - low).max())
        # Of some points, in their own type: it need not be exact, and what is subtracted is rounded once.
        kind = points.dtype if 2**-100 < self.size < 2**100 else torch.float64
        self.mean = points[:: 1 + len(points) // 4096].double().mean(dim=0).clamp(low, high).to(kind)
        self.right = points.new_empty(points.shape[1] + 2, len(points), dtype=torch.float32)
        for part, rows in zip(self.right.split(CACHED, dim=1), points.split(CACHED), strict=True):
            self._fill(part, rows, norm=-1, one=-2)
        self.widest = self.right[-1].max()

    def left(self, queries: Tensor) -> Tensor:
        """(M, L + 2) of queries (M, L)."""
        left = self.right.new_empty(len(self.right), len(queries))
        self._fill(left, queries, norm=-2, one=-1)
        left[:-2] *= -2
        return left.T

    def _fill(self, part, points, norm, one):
        part[:-2] = (points - self.mean).mul_(1 / self.size).T
        part[norm] = part[:-2].square().sum(dim=0) * (1 - self.loss) - TINY
        part[one] = 1

    def slack(self, norm: Tensor) -> Tensor:
        """How far bounds lie below the true squares at most, by the sum of both squared norms."""
        return norm.relu() * (3 * self.loss) + 4 * TINY


@full_precision()
def nearest_centre(points: Tensor, centres: Tensor, rough: Rough | None = None) -> tuple[Tensor, Tensor]:
    """Of each point (N, L) the nearest of M >= 1 centres (M, L), the lowest of equals, and the square of its distance.

    Exact: indices (N,) int64 and squares (N,) float64. rough: that of the points, if it is there already.
    """
    rough, found = rough or Rough(points), []
    left = rough.left(centres)
    rows = max(1, min(CACHED, TILE // len(centres)))
    for part, right in zip(points.split(rows), rough.right.split(rows, dim=1), strict=True):
        bound = left @ right
        limit = bound.amin(dim=0) + rough.slack(right[-1] + left[:, -2].max())
        which, row = (bound <= limit).nonzero(as_tuple=True)
        index = torch.zeros(len(part), dtype=torch.int64, device=part.device).scatter_(0, row, which)
        unsure = row.bincount(minlength=len(part)) != 1  # of very far centres bounds are no numbers: none is near
        index[unsure] = distances(part[unsure].double(), centres.double()).argmin(dim=1)
        found.append((index, squares(part, centres[index])))
    return tuple(map(torch.cat, zip(*found, strict=True)))


@full_precision()
def squares_from(centre: Tensor, points: Tensor, rough: Rough) -> Tensor:
    """Squared distances (N,) float64 from a centre (L,) to all points: exact where they may be the largest.

    Elsewhere they may be lower. On a GPU all are exact, so that nothing waits for the device.
    """
    if points.device.type != "cpu":
        return torch.cat([squares(part, centre) for part in points.split(BLOCK)])
    left = rough.left(centre[None])
    bound = left[0] @ rough.right
    found = bound.double() * rough.size**2
    below = bound < bound.max() - rough.slack(left[0, -2] + rough.widest)  # none, if bounds are no numbers
    rows = (~below).nonzero().squeeze(1)
    found[rows] = squares(points[rows], centre)
    return found


class Nearest:
    """The squared distance of each point (N, L) to the nearest of the centres (M, L) and of points that join them.

    square (N,) float64, exact; inf without centres. Where it is 0 or less, it never changes.
    A new centre is compared with all points by their bounds; only where it may be nearer, the square is computed. On a
    GPU all are, so that nothing waits for the device.
    """

    def __init__(self, points: Tensor, centres: Tensor | None = None):
        self.points, self.rough = points, Rough(points)
        self.size, self.square = self.rough.size, points.new_full((len(points),), torch.inf, dtype=torch.float64)
        if centres is not None and len(centres):
            self.square = nearest_centre(points, centres, self.rough)[1]
        self.reach = self.rounded_up(self.square)

    @full_precision()
    def add(self, row: Tensor) -> None:
        """The point of that row (1,) joins the centres."""
        if self.square.device.type == "cpu":
            rows = (self.bounds(row) < self.reach).nonzero().squeeze(1)
        else:
            rows = torch.arange(len(self.square), device=self.square.device)
        for part in rows.split(CACHED if self.square.device.type == "cpu" else BLOCK):
            square = self.squares(part, row).minimum(self.square[part])
            self.square[part], self.reach[part] = square, self.rounded_up(square)

    def rounded_up(self, square: Tensor) -> Tensor:
        """Squares in units of size^2 as the next larger number of single precision; 0 and less become -inf."""
        upper = (square / self.size / self.size).float()
        return upper.nextafter(torch.full_like(upper, torch.inf)).masked_fill_(square <= 0, -torch.inf)

    def bounds(self, row: Tensor) -> Tensor:
        """Lower bounds (N,) of the squares from a row (1,) to all points, in units of size^2."""
        return self.rough.left(self.points[row])[0] @ self.rough.right

    def squares(self, rows: Tensor, row: Tensor) -> Tensor:
        """The squares (M,) from a row (1,) to the points at rows (M,)."""
        return squares(self.points[rows], self.points[row])


def tiles(left: Tensor, right: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """The product left @ right.T in tiles: which rows, which columns, and the part of the product."""
    height = min(ROWS, max(1, len(left)))
    for i in range(0, len(left), height):
        for j in range(0, len(right), TILE // height):
            rows, columns = slice(i, i + height), slice(j, j + TILE // height)
            yield rows, columns, left[rows] @ right[columns].T
