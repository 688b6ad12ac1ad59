"""Strategies that draw from a density in latent space and match the draws to images; none of them needs a label.

The density is estimated on all codes; only unlabelled images are picked. Options that most of them share:

match: "nearest" (default: each draw takes the nearest point not yet picked) or "all" (every point within the
    threshold of the draw).
threshold: largest distance between a draw and its match, in units of the codes under `metric`. None (default) is no
    limit for "nearest" and 3 median nearest-neighbour distances for "all".
metric: "euclidean" (default), "manhattan" or "chebyshev".
clusters: how many Ward clusters, by default round(sqrt(n)), at most one per image; or the cluster of every image (N,),
    whole numbers, for instance a stored la.codes.ward(codes, 20), which saves the clustering.
allocate: "proportional" (default: n_S = n |S| / N, rounded by largest remainder) or "equal"; a cluster never
    has to give more than its unlabelled images, the rest goes to the others.

[Killeen2018] "Query selection based on latent space sampling": report, Algorithm 1, and slides.
"""

import numbers

import torch

from lalib.codes.clustering import ward
from lalib.data.checks import LalibError, check_choice, check_int
from lalib.data.door import as_tensor, plain
from lalib.strategies.matching import match_draws, matching
from lalib.strategies.view import PoolView, Selection, Strategy, with_options_of


def random(view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
    """n unlabelled images uniformly without replacement: the baseline."""
    return Selection(view.unlabeled[torch.randperm(len(view.unlabeled), generator=generator)[:n]])


@with_options_of(matching)
def uniform_spatial(view: PoolView, n: int, *, generator: torch.Generator, bounds: str = "box", **match) -> Selection:
    """Draws uniform on the bounding box of the codes (bounds="box") or on [0, 1]^L (bounds="unit")."""
    check_choice("bounds", bounds, ("box", "unit"))
    codes = _double(view)
    corners = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, codes.shape[1])
    return _anywhere(view, n, _uniform(codes if bounds == "box" else corners, generator), match)


@with_options_of(matching)
def normal_spatial(view: PoolView, n: int, *, generator: torch.Generator, prior: str = "data", **match) -> Selection:
    """Draws from N(mean Z, cov Z) (prior="data") or from a VAE's prior N(0, I) (prior="standard")."""
    check_choice("prior", prior, ("data", "standard"))
    codes = _double(view)
    moments = _moments(codes) if prior == "data" else (torch.zeros_like(codes[0]), torch.ones_like(codes[0]).diag())
    return _anywhere(view, n, _normal(*moments, generator), match)


@with_options_of(matching)
def clustered_normal_spatial(
    view: PoolView, n: int, *, generator: torch.Generator, clusters: int | torch.Tensor | None = None, **match
) -> Selection:
    """Draws from one mixture over all clusters S with weights |S| / N and parts N(mean Z_S, cov Z_S).

    Unlike in `normal-in-clusters`, a draw may be matched to any image and the counts per cluster are left to chance.
    """
    assignment = find_clusters(view, n, clusters)
    codes = _double(view)
    parts = [_moments(codes[assignment == s]) for s in range(int(assignment.max()) + 1)]
    draw = _mixture(assignment.bincount().double(), *map(torch.stack, zip(*parts, strict=True)), generator)
    return _anywhere(view, n, draw, match)


def _shares(view, n, *, clusters: int | torch.Tensor | None = None, allocate: str = "proportional"):
    """For every cluster that gives any: all its images, the unlabelled among them, and how many of those to pick."""
    check_choice("allocate", allocate, ("proportional", "equal"))
    assignment = find_clusters(view, n, clusters)
    free = torch.zeros(view.n_images, dtype=torch.bool).index_fill_(0, view.unlabeled, True)
    sizes = assignment.bincount()
    room = assignment[free].bincount(minlength=len(sizes))
    weights = sizes if allocate == "proportional" else torch.ones_like(sizes)
    for s, count in enumerate(allocation(n, weights.tolist(), room.tolist())):
        whole = (assignment == s).nonzero().squeeze(1)
        if count:
            yield whole, whole[free[whole]], count


@with_options_of(_shares)
def cluster(view: PoolView, n: int, *, generator: torch.Generator, **share) -> Selection:
    """n_S unlabelled images of every cluster S, uniformly without replacement."""
    shares = ((members, count) for _, members, count in _shares(view, n, **share))
    picked = [members[torch.randperm(len(members), generator=generator)[:count]] for members, count in shares]
    return Selection(torch.cat(picked))


@with_options_of(_shares, matching)
def normal_in_clusters(view: PoolView, n: int, *, generator: torch.Generator, **options) -> Selection:
    """In every cluster S, draws from N(mean Z_S, cov Z_S), matched to n_S images of S."""
    return _in_clusters(view, n, lambda codes: _normal(*_moments(codes), generator), **options)


@with_options_of(_shares, matching)
def uniform_in_clusters(view: PoolView, n: int, *, generator: torch.Generator, **options) -> Selection:
    """In every cluster S, draws uniform on its bounding box, matched to n_S images of S."""
    return _in_clusters(view, n, lambda codes: _uniform(codes, generator), **options)


def _in_clusters(view, n, density, *, clusters=None, allocate="proportional", **match):
    """Matching stays inside the cluster, which is what guarantees n_S."""
    codes, match, picked = _double(view), matching(view.codes, **match), []
    for whole, members, count in _shares(view, n, clusters=clusters, allocate=allocate):
        try:
            picked.append(match_draws(density(codes[whole]), view.codes, members, count, **match))
        except LalibError as error:
            done = sum(map(len, picked))
            raise LalibError(f"in a cluster of {len(whole)} images, after {done} of {n} in others: {error}") from None
    return Selection(torch.cat(picked))


def _anywhere(view, n, draw, match):
    return Selection(match_draws(draw, view.codes, view.unlabeled, n, **matching(view.codes, **match)))


def find_clusters(view: PoolView, n: int, clusters: int | torch.Tensor | None) -> torch.Tensor:
    """Assignment (N,) int64 on the CPU, numbered 0, 1, ... without gaps, from the option `clusters`."""
    clusters = plain(min(view.n_images, max(1, round(n**0.5))) if clusters is None else clusters)
    if isinstance(clusters, numbers.Number):
        return ward(view.codes, check_int("clusters", clusters, low=1)).cpu()
    assignment = as_tensor(clusters, "clusters").cpu()
    if assignment.shape != (view.n_images,):
        raise ValueError(f"clusters must be a number or ({view.n_images},), got shape {tuple(assignment.shape)}")
    if assignment.is_floating_point() or assignment.dtype == torch.bool:
        raise TypeError(f"clusters must hold whole numbers, got {assignment.dtype}")
    return assignment.unique(return_inverse=True)[1]


def allocation(n: int, weights: list[int], room: list[int]) -> list[int]:
    """Split n in proportion to whole weights, no share above its room; n <= sum(room).

    Shares that would exceed their room are cut to it and the rest is split anew among the others; then largest
    remainder, equal remainders to the lowest number. Whole-number arithmetic: no rounding error.
    """
    share, left = [0] * len(weights), set(range(len(weights)))
    while full := [s for s in left if n * weights[s] > room[s] * sum(weights[j] for j in left)]:
        for s in full:
            share[s] = room[s]
        left.difference_update(full)
        n -= sum(room[s] for s in full)
    total = sum(weights[s] for s in left)
    for s in left:
        share[s] = n * weights[s] // total
    rest = n - sum(share[s] for s in left)
    for s in sorted(left, key=lambda s: (-(n * weights[s] % total), s))[:rest]:
        share[s] += 1
    return share


def _double(view):
    """Codes on the CPU in float64: densities are estimated and drawn there, the same for every device."""
    return view.codes.cpu().double()


def _moments(codes):
    """Mean (L,) and symmetric root (L, L) of the unbiased covariance; a single point has covariance 0."""
    size = codes.shape[1]
    covariance = torch.cov(codes.T, correction=min(1, len(codes) - 1)).reshape(size, size)
    values, vectors = torch.linalg.eigh(covariance)  # unlike Cholesky, defined for a singular covariance too
    return codes.mean(dim=0), vectors * values.clamp(min=0).sqrt() @ vectors.T


def _uniform(codes, generator):
    low, high = codes.amin(dim=0), codes.amax(dim=0)
    return lambda m: low + (high - low) * torch.rand(m, len(low), generator=generator, dtype=torch.float64)


def _normal(mean, root, generator):
    return lambda m: mean + torch.randn(m, len(mean), generator=generator, dtype=torch.float64) @ root


def _mixture(weights, means, roots, generator):
    def draw(m):
        part = torch.multinomial(weights, m, replacement=True, generator=generator)
        noise = torch.randn(m, means.shape[1], generator=generator, dtype=torch.float64)
        return means[part] + torch.einsum("ml,mlk->mk", noise, roots[part])

    return draw


DECLARED = (
    Strategy("random", random, needs=()),
    Strategy("uniform-spatial", uniform_spatial, needs=("codes",)),
    Strategy("normal-spatial", normal_spatial, needs=("codes",)),
    Strategy("cluster", cluster, needs=("codes",)),
    Strategy("normal-in-clusters", normal_in_clusters, needs=("codes",)),
    Strategy("uniform-in-clusters", uniform_in_clusters, needs=("codes",)),
    Strategy("clustered-normal-spatial", clustered_normal_spatial, needs=("codes",)),
)
