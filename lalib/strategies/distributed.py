"""Selection when the codes do not fit one machine: they lie in pieces of rows in Dask arrays, and a cluster picks.

A worker reads a piece, answers and forgets it. This process keeps a few numbers for each image and picks from them by
the functions that the strategies themselves pick with. So a worker that dies takes nothing with it: Dask asks another
one, and the selection is the same.
"""

from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from lalib.codes.clustering import refill, seeding, sums_and_counts
from lalib.codes.pairwise import CACHED, nearest_centre, squares, squares_to
from lalib.data.checks import LalibError, check_choice, check_int, check_number, check_options, check_type, listed
from lalib.data.door import check_index
from lalib.data.seeds import generator as make_generator
from lalib.strategies.clusters import nearest_members
from lalib.strategies.learned import Gradients, gradient_factors, latent_points
from lalib.strategies.picking import greedily, largest, pick
from lalib.strategies.sources import SOURCES
from lalib.strategies.spatial import random
from lalib.strategies.uncertainty import MEASURES, uncertainty
from lalib.strategies.view import PoolView


def select_distributed(
    strategy: str, codes, n: int, *, labeled=None, probs=None, features=None, seed: int = 0, client=None, **options
) -> Tensor:
    """Indices (n,) int64, in order of picking, of the images to label next, as `select` gives them, from Dask arrays.

    strategy: "random", "core-set", "badge", "k-medoids", "margin", "entropy" or "least-confidence", of images with one
    label each. codes (N, L), and probs (N, C) and features (N, F) where it needs them: Dask arrays in the same pieces
    of rows, a piece small beside a worker's memory. Only what is needed is read, at every pick again: what all workers
    together can hold is better given as codes.persist(). A large file must be opened by the workers, with da.map_blocks
    as in tests/benchmarks/bench_distributed.py, da.from_zarr and so on: da.from_array reads a memory map whole, here.
    client: a dask.distributed.Client, by default the current one. options: space and alpha of core-set, iterations of
    k-medoids (the image nearest each k-means centre).

    The picks are those of select with the same seed. k-medoids makes its iterations in double precision and may end in
    other clusters. This process holds a few numbers for each image and n codes.

    Raises what select raises, with the number of the piece, from 0; LalibError for what else fails in a piece.
    """
    from distributed import Client, get_client

    picker = PICKERS[check_choice("strategy", strategy, PICKERS)]
    check_options(strategy, picker, options)
    arrays = {"codes": codes, "probs": probs, "features": features}
    _check_arrays(**{name: array for name, array in arrays.items() if name == "codes" or array is not None})
    labeled = check_index(() if labeled is None else labeled, len(codes), "labeled", distinct=True).sort().values
    pool, n = PoolView(lambda: None, labeled, size=len(codes)), check_int("n", n, low=1)
    if n > len(pool.unlabeled):
        raise ValueError(f"n={n} exceeds the {len(pool.unlabeled)} unlabelled images")
    try:
        client = get_client() if client is None else check_type("client", client, Client)
    except ValueError:
        raise LalibError("there is no Dask cluster yet: client = dask.distributed.Client() starts one here") from None
    return picker(_Pieces(client, arrays, pool), n, generator=make_generator(seed, "select"), **options).index


def _check_arrays(codes, **others):
    import dask.array as da

    for name, array in {"codes": codes, **others}.items():
        if check_type(name, array, da.Array).ndim != 2 or not array.size > 0:  # NaN: not known
            raise ValueError(f"{name} must have two dimensions of known size, at least 1, got shape {array.shape}")
        if array.chunks[0] != codes.chunks[0]:
            wanted, got = (listed(given.chunks[0]) for given in (codes, array))
            raise ValueError(f"{name} must be in pieces of as many rows as codes, {wanted}, got {got}: rechunk it")


class _Pieces:
    """The pieces of the arrays, and what is asked of the images in them. Rows are numbers among the unlabelled."""

    def __init__(self, client, arrays, pool):
        self.client, self.arrays, self.pool, self.read = client, arrays, pool, {}
        self.starts = torch.tensor([0, *accumulate(arrays["codes"].chunks[0])])

    def needs(self, *names: str) -> None:
        """The sources that the views of the pieces are to have."""
        for name in names:
            if self.arrays[name] is None:
                SOURCES[name].value(None, 0, {})  # raises
            array = self.arrays[name].rechunk({1: -1})
            if any(isinstance(getattr(node, "value", node), np.ndarray) for node in dict(array.dask).values()):
                array = self.client.persist(array)  # it travels once, not at every pick
            self.arrays[name], self.read[name] = array, array.to_delayed().ravel()

    def ask(self, function: Callable, *arguments) -> list:
        """The answers function(view, *arguments) of all pieces with unlabelled images, in their order."""
        return self.client.gather(self._futures(function, arguments))

    def at(self, points: Callable, index: Tensor):
        """The points of these images (M,), left to Dask."""
        order = index.argsort()
        return self.client.submit(_joined, self._futures(points, (), index[order]), order.argsort(), pure=False)

    def _futures(self, function, arguments, only=None):
        """The answers of the pieces with unlabelled images; only: as if all images but these had a label."""
        import dask
        from distributed import wait

        call, shared, tasks = dask.delayed(_on_piece, pure=False), dask.delayed(arguments), {}
        given = self.pool.labeled if only is None else only
        rows, parts = (torch.searchsorted(index, self.starts).tolist() for index in (self.pool.unlabeled, given))
        for k, (start, stop) in enumerate(pairwise(self.starts.tolist())):
            index, row = given[slice(*parts[k : k + 2])] - start, rows[k : k + 2]
            if len(index) if only is not None else row[0] < row[1]:
                sources = {name: read[k] for name, read in self.read.items()}
                tasks[k] = call(function, row[0], stop - start, index, only is None, sources, shared)
        futures = self.client.compute(list(tasks.values()))
        wait(futures)
        for k, future in zip(tasks, futures, strict=True):
            if future.status == "error":
                error, (start, stop) = future.exception(), self.starts[k : k + 2].tolist()
                own = isinstance(error, (ValueError, TypeError, LalibError))
                kind, what = (type(error), "") if own else (LalibError, f"{type(error).__name__}: ")
                raise kind(f"piece {k}, images {start} to {stop - 1}: {what}{error}") from error
        return futures


def _on_piece(function, first, size, index, labelled, sources, arguments):
    """The function's answer for the images with or without these labelled; view.first is the row of the first one."""
    codes = sources.pop("codes", None)
    view = PoolView(lambda: codes, index, None, sources, size=size)
    view = view if labelled else PoolView(lambda: codes, view.unlabeled, None, sources, size=size)
    vars(view).update(first=first)
    return function(view, *arguments)


def _joined(answers, order=slice(None)):
    """Tensors that belong together, each joined over the answers."""
    return [torch.cat(parts)[order] for parts in zip(*answers, strict=True)]


class _Near:
    """`Nearest` of the points in all pieces, which are rows of one factor or two; the squares (U,) are here."""

    def __init__(self, pieces, points, squares_to):
        self.pieces, self.points, self.squares_to = pieces, points, squares_to
        self.square = torch.full((len(pieces.pool.unlabeled),), torch.inf, dtype=torch.float64)

    def add(self, row: Tensor) -> None:
        """The point of that row (1,) joins the centres."""
        self.join(self.pieces.pool.unlabeled[row])

    def join(self, index: Tensor) -> None:
        """The points of these images (M,) join the centres."""
        centres = self.pieces.at(self.points, index)
        for rows, square in self.pieces.ask(_below, self.points, self.squares_to, centres, float(self.square.max())):
            self.square[rows] = self.square[rows].minimum(square)


def _below(view, points, squares_to, centres, limit):
    """Rows whose squares to the nearest of the centres are below a limit, and these: others change nothing."""
    square = squares_to(*points(view), *centres)
    rows = (square < limit).nonzero()[:, 0]
    return view.first + rows, square[rows]


def _latent(view, space="codes", alpha=1.0):
    return latent_points(view, space, alpha)[1:]


def _squares(points, centres):
    if len(centres) > 1:
        return nearest_centre(points, centres)[1]
    return torch.cat([squares(part, centres) for part in points.split(CACHED)])


def _gradient_squares(a, b, own_a, own_b):
    near = Gradients(torch.cat([a, own_a]), torch.cat([b, own_b]))
    near.add(torch.tensor([len(a)]))
    return near.square[:-1]


def _random(pieces, n, *, generator):
    return random(pieces.pool, n, generator=generator)


def _most_uncertain(measure, pieces, n, *, generator):
    pieces.needs("probs")
    return largest(pieces.pool, torch.cat(pieces.ask(uncertainty, measure)), n)


def _core_set(pieces, n, *, generator, space="features", alpha=1.0):
    check_choice("space", space, ("features", "codes", "both"))
    alpha, start = check_number("alpha", alpha, low=0), None
    pieces.needs(*(("features", "codes") if space == "both" else (space,)))
    near = _Near(pieces, partial(_latent, space=space, alpha=alpha), _squares)
    if len(pieces.pool.labeled):
        near.join(pieces.pool.labeled)
    else:
        start = int(torch.randint(len(near.square), (1,), generator=generator))
    return pick(pieces.pool, greedily(lambda: near.square, near.add, n, first=start)[0])


def _badge(pieces, n, *, generator):
    pieces.needs("probs", "features")
    first = int(torch.cat(pieces.ask(_length)).argmax())
    return pick(pieces.pool, seeding(_Near(pieces, gradient_factors, _gradient_squares), n, generator, first)[0])


def _length(view):
    return Gradients(*gradient_factors(view)).length


def _k_medoids(pieces, n, *, generator, iterations=50):
    iterations = check_int("iterations", iterations, low=1)
    pieces.needs("codes")
    rows, _ = seeding(_Near(pieces, _latent, _squares), n, generator)
    (centres,) = pieces.at(_latent, pieces.pool.unlabeled[rows]).result()
    for _ in range(iterations):
        near, moved = centres, {}
        sums, counts = _added(pieces.ask(_sums, near, moved))
        if 0 in counts:
            assignment, square = _joined(pieces.ask(_to_own, near, moved, near))
            far = square.argsort(descending=True, stable=True)[: 2 * n]
            moved = refill(counts.tolist(), zip(far.tolist(), assignment[far].tolist(), strict=True))
            sums, counts = _added(pieces.ask(_sums, near, moved))
        centres = sums / counts[:, None]
        if torch.equal(centres, near):  # so no code has changed its cluster
            break
    assignment, square = _joined(pieces.ask(_to_own, near, moved, centres))
    return pick(pieces.pool, nearest_members(square, assignment)[counts.argsort(descending=True, stable=True)])


def _added(answers):
    return map(sum, zip(*answers, strict=True))


def _sums(view, centres, moved):
    return sums_and_counts(*_assigned(view, centres, moved), len(centres))


def _to_own(view, centres, moved, means):
    codes, assignment = _assigned(view, centres, moved)
    return assignment, squares_to(codes, means, assignment)


def _assigned(view, centres, moved):
    """Codes (U, L) of a piece and the nearest centre of each, but in the rows that were moved."""
    codes = view.codes[view.unlabeled]
    assignment = nearest_centre(codes, centres)[0]
    for row, cluster in moved.items():
        assignment[view.first + torch.arange(len(codes)) == row] = cluster
    return codes, assignment


PICKERS = {"random": _random, "core-set": _core_set, "badge": _badge, "k-medoids": _k_medoids}
PICKERS |= {measure: partial(_most_uncertain, measure) for measure in MEASURES}
