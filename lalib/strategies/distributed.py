"""Selection when the codes do not fit one machine: they lie in pieces of rows in Dask arrays, and a cluster picks.

A worker reads a piece, answers with a few numbers and forgets it; this process puts the answers together in the order
of the pieces. What a piece keeps from one pick to the next, a number per image, is a result of Dask's: if its worker
dies, Dask computes it anew from the source and the picks so far, and the selection is the same.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lalib.codes.clustering import refill, row_at, sums_and_counts
from lalib.codes.pairwise import CACHED, nearest_centre, squares, squares_to
from lalib.data.checks import LalibError, check_choice, check_int, check_number, check_options, check_type, listed
from lalib.data.door import as_tensor, check_index
from lalib.data.seeds import generator as make_generator
from lalib.strategies.clusters import nearest_members
from lalib.strategies.learned import Gradients, gradient_factors, latent_points
from lalib.strategies.sources import SOURCES
from lalib.strategies.spatial import random
from lalib.strategies.uncertainty import MEASURES, uncertainty
from lalib.strategies.view import PoolView

AT_ONCE = 64  # answers of pieces that this process holds


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

    The picks are those of select with the same seed; of badge but for the rounding of the sums that it draws from.
    k-medoids makes its iterations in double precision and may end in other clusters. This process holds n codes, a few
    numbers for each piece and the indices of the labelled images; for random a number for each image.

    Raises what select raises, with the number of the piece, from 0; LalibError for what else fails in a piece.
    """
    from distributed import Client, get_client

    picker = PICKERS[check_choice("strategy", strategy, PICKERS)]
    check_options(strategy, picker, options)
    arrays = {"codes": codes, "probs": probs, "features": features}
    _check_arrays(**{name: array for name, array in arrays.items() if name == "codes" or array is not None})
    labeled = check_index(() if labeled is None else labeled, len(codes), "labeled", distinct=True).sort().values
    n, free = check_int("n", n, low=1), len(codes) - len(labeled)
    if n > free:
        raise ValueError(f"n={n} exceeds the {free} unlabelled images")
    try:
        client = get_client() if client is None else check_type("client", client, Client)
    except ValueError:
        raise LalibError("there is no Dask cluster yet: client = dask.distributed.Client() starts one here") from None
    pieces = _Pieces(client, arrays, labeled)
    return torch.as_tensor(picker(pieces, n, generator=make_generator(seed, "select"), **options))


def _check_arrays(codes, **others):
    import dask.array as da

    for name, array in {"codes": codes, **others}.items():
        if check_type(name, array, da.Array).ndim != 2 or not array.size > 0:  # NaN: not known
            raise ValueError(f"{name} must have two dimensions of known size, at least 1, got shape {array.shape}")
        if array.chunks[0] != codes.chunks[0]:
            wanted, got = (listed(given.chunks[0]) for given in (codes, array))
            raise ValueError(f"{name} must be in pieces of as many rows as codes, {wanted}, got {got}: rechunk it")


class _Pieces:
    """The pieces of the arrays that have unlabelled images, and what is kept of each."""

    def __init__(self, client, arrays, labeled):
        self.client, self.arrays, self.labeled, self.read, self.kept = client, arrays, labeled, {}, {}
        self.starts = torch.tensor([0, *accumulate(arrays["codes"].chunks[0])])
        self.taken = labeled.tensor_split(torch.searchsorted(labeled, self.starts[1:-1]))
        count = zip(self.starts.diff().tolist(), self.taken, strict=True)
        self.numbers = [k for k, (size, taken) in enumerate(count) if size > len(taken)]

    def needs(self, *names: str) -> None:
        """The sources that the views of the pieces are to have."""
        for name in names:
            if self.arrays[name] is None:
                SOURCES[name].value(None, 0, {})  # raises
            self.read[name] = _readers(self.client, self.arrays[name])

    def ask(self, function: Callable, *arguments) -> Iterator:
        """The answers function(view, index of its first image, *arguments) of all pieces, in their order."""
        return self._answers(self._computed(function, arguments, self.numbers), self.numbers)

    def ask_one(self, k: int, function: Callable, *arguments):
        """The same of piece k; the function is given what is kept of it, too, last."""
        return next(self._answers(self._computed(function, arguments, [k], self.kept), [k]))

    def update(self, function: Callable, *arguments) -> list:
        """The same of all pieces; the function is given what is kept and gives what is to be kept, and its answer."""
        futures = self._computed(function, arguments, self.numbers, self.kept, pairs=True)
        self.kept = dict(zip(self.numbers, futures, strict=False))
        return list(self._answers(futures[len(self.numbers) :], self.numbers))

    def labelled(self, function: Callable):
        """The same of all pieces with labelled images, joined, but left to Dask; None without any."""
        import dask

        numbers = [k for k, taken in enumerate(self.taken) if len(taken)]
        futures = self._computed(function, (), numbers)
        self._wait(futures, numbers)
        return dask.delayed(torch.cat)(futures) if numbers else None

    def _computed(self, function, arguments, numbers, kept=None, pairs=False):
        import dask

        call, shared, tasks = dask.delayed(_on_piece, pure=False), dask.delayed(arguments), []
        for k in numbers:
            start, stop = self.starts[k : k + 2].tolist()
            sources = {name: read[k] for name, read in self.read.items()}
            last = [] if kept is None else [kept.get(k)]
            tasks.append(call(function, start, stop - start, self.taken[k] - start, sources, shared, *last))
        return self.client.compute(tasks + [task[1] for task in tasks] * pairs)

    def _answers(self, futures, numbers):
        self._wait(futures, numbers)
        for i in range(0, len(futures), AT_ONCE):
            yield from self.client.gather(futures[i : i + AT_ONCE])

    def _wait(self, futures, numbers):
        from distributed import wait

        wait(futures)
        for k, future in zip(numbers, futures, strict=True):
            if future.status == "error":
                error, (start, stop) = future.exception(), self.starts[k : k + 2].tolist()
                own = isinstance(error, (ValueError, TypeError, LalibError))
                kind, what = (type(error), "") if own else (LalibError, f"{type(error).__name__}: ")
                raise kind(f"piece {k}, images {start} to {stop - 1}: {what}{error}") from error


def _readers(client, array) -> list:
    """Of each piece of an array (N, L) a function that reads it where it is called; what is in memory stays of Dask."""
    import dask
    from dask.delayed import Delayed
    from dask.optimization import cull
    from distributed import futures_of

    array = array.rechunk({1: -1})
    if any(isinstance(getattr(node, "value", node), np.ndarray) for node in dict(array.dask).values()):
        array = client.persist(array)  # it travels once, not at every pick
    graph = dict((array if futures_of(array) else dask.optimize(array)[0]).dask)
    keys = [key for (key,) in array.__dask_keys__()]
    parts = [cull(graph, [key])[0] for key in keys]
    if futures_of(array):
        return [Delayed(key, part) for key, part in zip(keys, parts, strict=True)]
    return [partial(dask.get, part, key) for key, part in zip(keys, parts, strict=True)]


def _on_piece(function, start, size, labeled, sources, arguments, *kept):
    codes = sources.pop("codes", None)
    view = PoolView(codes if callable(codes) else lambda: codes, labeled, None, sources, size=size)
    return function(view, start, *arguments, *kept)


def _random(pieces, n, *, generator):
    pool = PoolView(lambda: None, pieces.labeled, size=int(pieces.starts[-1]))
    return random(pool, n, generator=generator).index


def _most_uncertain(measure):
    def picker(pieces, n, *, generator):
        pieces.needs("probs")
        return _largest(pieces.ask(_uncertain, measure, n), n)[0]

    return picker


def _uncertain(view, start, measure, n):
    return _largest([(start + view.unlabeled, uncertainty(view, measure))], n)


def _largest(parts, n):
    """Of tensors that belong together, in order of index: the n of the largest last ones, the first of equals."""
    best = None
    for part in parts:
        best = part if best is None else [torch.cat(both) for both in zip(best, part, strict=True)]
        order = best[-1].argsort(descending=True, stable=True)[:n]
        best = [values[order] for values in best]
    return best


class _Answer(NamedTuple):
    """The image of largest value in a piece, the sum of the squares, and how many images are not picked."""

    value: float
    image: tuple[int, tuple[Tensor, ...]]  # its index and its point, as factors if it is a product
    total: float
    free: int


def _latent(view, space, alpha):
    return _squares, (latent_points(view, space, alpha)[1],)


def _codes(view):
    return _squares, (view.codes[view.unlabeled],)


def _gradients(view):
    return _gradient_squares, gradient_factors(view)


def _squares(points, point):
    return torch.cat([squares(part, point) for part in points.split(CACHED)])


def _gradient_squares(a, b, own_a, own_b):
    near = Gradients(torch.cat([a, own_a]), torch.cat([b, own_b]))
    near.add(torch.tensor([len(a)]))
    return near.square[:-1]


def _labelled(view, start, space, alpha):
    return latent_points(view, space, alpha)[0]


def _begin(view, start, points, centres, longest, kept):
    """Squares (U,) from the unlabelled to their nearest centre. They are the values, or else the gradients' lengths."""
    _, parts = points(view)
    square = torch.full((len(parts[0]),), torch.inf, dtype=torch.float64)
    square = square if centres is None else nearest_centre(*parts, centres)[1]
    return square.numpy(), _answer(view, start, parts, square, Gradients(*parts).length if longest else square)


def _join(view, start, points, image, kept):
    """The same squares when an image joins the centres; its own becomes -inf."""
    (square_to, parts), (index, point) = points(view), image
    square = as_tensor(kept[0], "square").minimum(square_to(*parts, *point))
    square[view.unlabeled == index - start] = -torch.inf
    return square.numpy(), _answer(view, start, parts, square, square)


def _answer(view, start, parts, square, value):
    row = value.argmax(dim=0, keepdim=True)
    total, free = (float(_weights(square, even).cumsum(0)[-1]) for even in (False, True))
    return _Answer(float(value[row]), _image(view, start, parts, row), total, free)


def _image(view, start, parts, row):
    return start + int(view.unlabeled[row]), tuple(part[row] for part in parts)


def _weights(square, even):
    return (square > -torch.inf).double() if even else square.clamp(min=0)


def _image_at(view, start, points, target, even, kept):
    """The image at which the sum of the weights passes the target."""
    total = _weights(as_tensor(kept[0], "square"), even).cumsum(0)
    return _image(view, start, points(view)[1], row_at(total, total.new_tensor(target)))


def _draw(pieces, points, answers, chance, even):
    """The image at which the sum of all weights passes this share of the whole; even: all weigh the same."""
    even = even or not any(answer.total > 0 for answer in answers)
    total = torch.tensor([answer.free if even else answer.total for answer in answers], dtype=torch.float64).cumsum(0)
    piece = int(row_at(total, chance * total[-1]))
    target = float(chance * total[-1] - (total[piece - 1] if piece else 0))
    return pieces.ask_one(pieces.numbers[piece], _image_at, points, target, even)


def _farthest(answers):
    return max(answers, key=lambda answer: answer.value).image  # the first of equals


def _core_set(pieces, n, *, generator, space="features", alpha=1.0):
    check_choice("space", space, ("features", "codes", "both"))
    options = {"space": space, "alpha": check_number("alpha", alpha, low=0)}
    pieces.needs(*(("features", "codes") if space == "both" else (space,)))
    points, centres, picked = partial(_latent, **options), pieces.labelled(partial(_labelled, **options)), []
    answers = pieces.update(_begin, points, centres, False)
    if centres is None:
        free = sum(answer.free for answer in answers)
        first = int(torch.randint(int(free), (1,), generator=generator))
        picked.append(_draw(pieces, points, answers, (first + 0.5) / free, even=True))
    while len(picked) < n:
        answers = pieces.update(_join, points, picked[-1]) if picked else answers
        picked.append(_farthest(answers))
    return [index for index, _ in picked]


def _seeding(pieces, n, points, generator, longest=False):
    """`seeding` over all pieces. longest: the first image is the one of largest value."""
    answers, picked = pieces.update(_begin, points, None, longest), []
    for chance in torch.rand(n, generator=generator, dtype=torch.float64).tolist():
        answers = pieces.update(_join, points, picked[-1]) if picked else answers
        by_value = longest and not picked
        picked.append(_farthest(answers) if by_value else _draw(pieces, points, answers, chance, even=not picked))
    return picked


def _badge(pieces, n, *, generator):
    pieces.needs("probs", "features")
    return [index for index, _ in _seeding(pieces, n, _gradients, generator, longest=True)]


def _k_medoids(pieces, n, *, generator, iterations=50):
    iterations = check_int("iterations", iterations, low=1)
    pieces.needs("codes")
    centres = torch.cat([point for _, (point,) in _seeding(pieces, n, _codes, generator)])
    for _ in range(iterations):
        near, moved = centres, {}
        sums, counts = _added(pieces.ask(_sums, near, moved))
        if 0 in counts:
            index, owner, _ = _largest(pieces.ask(_far, near, 2 * n), 2 * n)
            moved = refill(counts.tolist(), zip(index.tolist(), owner.tolist(), strict=True))
            sums, counts = _added(pieces.ask(_sums, near, moved))
        centres = sums / counts[:, None]
        if torch.equal(centres, near):  # so no code has changed its cluster
            break
    found = None
    for part in pieces.ask(_members, near, moved, centres):
        found = part if found is None else [torch.cat(both) for both in zip(found, part, strict=True)]
        rows = nearest_members(found[2], found[1])
        found = [values[rows] for values in found]
    return found[0][counts.argsort(descending=True, stable=True)]


def _added(parts):
    return map(sum, zip(*parts, strict=True))


def _assigned(view, centres, start, moved):
    """Codes (U, L) of the unlabelled and the nearest centre of each, but for the images that were moved."""
    codes = view.codes[view.unlabeled]
    assignment = nearest_centre(codes, centres)[0]
    for index, cluster in moved.items():
        assignment[view.unlabeled == index - start] = cluster
    return codes, assignment


def _sums(view, start, centres, moved):
    return sums_and_counts(*_assigned(view, centres, start, moved), len(centres))


def _far(view, start, centres, most):
    codes, assignment = _assigned(view, centres, start, {})
    return _largest([(start + view.unlabeled, assignment, squares_to(codes, centres, assignment))], most)


def _members(view, start, centres, moved, means):
    codes, assignment = _assigned(view, centres, start, moved)
    distance = squares_to(codes, means, assignment)
    rows = nearest_members(distance, assignment)
    return start + view.unlabeled[rows], assignment[rows], distance[rows]


PICKERS = {"random": _random, "core-set": _core_set, "badge": _badge, "k-medoids": _k_medoids}
PICKERS |= {measure: _most_uncertain(measure) for measure in MEASURES}
