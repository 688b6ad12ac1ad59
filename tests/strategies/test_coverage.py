"""TypiClust, ProbCover and MaxHerding against slow float64 references; their units of length; every error message."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from lalib.codes import pairwise
from lalib.codes.clustering import kmeans
from lalib.data.seeds import generator
from lalib.strategies import STRATEGIES, coverage, select
from lalib.strategies.view import PoolView

pytestmark = pytest.mark.filterwarnings("error")

LABELED = torch.arange(0, 150, 11)


def blobs(size=150, dimensions=3, seed=0):
    g = generator(seed, "codes")
    centres = 4 * torch.randn(5, dimensions, generator=g)
    return centres[torch.randint(5, (size,), generator=g)] + torch.randn(size, dimensions, generator=g)


def run(name, codes, n, labeled=LABELED, **options):
    return STRATEGIES[name](PoolView(codes, labeled), n, generator=generator(0, "select"), **options)


def matrix(codes):
    return cdist(codes.double(), codes.double())


def slow_best(value):
    return min(value, key=lambda i: (-round(value[i], coverage.DECIMALS), i))


# TypiClust


def slow_typiclust(codes, labeled, n, most=500, small=5, k=20):
    """The table of clusters is sorted anew for every pick, distances are a full matrix."""
    distance, labeled, picked = matrix(codes), labeled.tolist(), []
    count = min(len(labeled) + n, most, len(codes))
    _, label = kmeans(codes, count, generator(0, "select"), iterations=25)
    clusters = [np.flatnonzero(label.numpy() == c) for c in range(count)]
    while len(picked) < n:
        taken = labeled + picked
        table = []
        for c, members in enumerate(clusters):
            if set(members) - set(taken):
                table.append((len(members) <= small, len(set(members) & set(taken)), -len(members), c))
        members = clusters[min(table)[-1]]
        near = min(k, len(members) // 2)
        value = {
            int(i): -np.mean(np.sort([distance[i, j] for j in members if j != i])[:near]) if near else 0.0
            for i in members
            if i not in taken
        }
        picked.append(slow_best(value))
    return picked


@pytest.mark.parametrize("dimensions", [3, 20])
@pytest.mark.parametrize(("n", "most"), [(1, 500), (9, 500), (40, 500), (40, 6), (136, 20)])
def test_typiclust_equals_the_slow_reference(n, most, dimensions):
    codes = blobs(dimensions=dimensions)
    seen = run("typiclust", codes, n, max_clusters=most)
    assert seen.index.tolist() == slow_typiclust(codes, LABELED, n, most)


def test_typiclust_asks_the_clusters_without_labels_first():
    codes = torch.cat([blobs(40) * 0.01 + 100 * i for i in range(6)])  # six heaps, the first two labelled
    index = run("typiclust", codes, 4, labeled=torch.tensor([3, 50])).index
    assert sorted((index // 40).tolist()) == [2, 3, 4, 5]


def test_typiclust_turns_to_small_clusters_last():
    heap, few = blobs(60) * 0.01, torch.full((4, 3), 100.0) + blobs(4) * 0.01
    codes = torch.cat([few, heap])
    assert run("typiclust", codes, 64, labeled=None, max_clusters=2).index[-4:].sort().values.tolist() == [0, 1, 2, 3]
    assert run("typiclust", codes, 2, labeled=None, max_clusters=2, min_size=4).index[1] < 4


def test_the_score_of_typiclust_is_minus_a_distance():
    codes = torch.arange(9.0)[:, None]
    seen = run("typiclust", codes, 2, labeled=None, max_clusters=1, neighbours=2)
    assert seen.index.tolist() == [1, 2]
    assert seen.score.tolist() == [-1, -1]


# ProbCover


def slow_probcover(codes, labeled, n, delta, columns=slice(None)):
    within, picked = (matrix(codes) <= delta * (1 + 1e-10))[:, columns], []
    covers = within[labeled.tolist()].sum(axis=0)
    while len(picked) < n:
        gain = (within & (covers == covers.min())).sum(axis=1)
        free = [i for i in range(len(codes)) if i not in labeled.tolist() + picked]
        picked.append(slow_best({i: int(gain[i]) for i in free}))
        covers = covers + within[picked[-1]]
    return picked


def test_probcover_by_hand():
    codes = torch.tensor([0.0, 1, 2, 3, 10, 11, 20])[:, None]
    seen = run("probcover", codes, 5, labeled=torch.tensor([6]), delta=1)
    assert seen.index.tolist() == [
        1,
        4,
        2,
        5,
        0,
    ]  # 0 to 2, 10 and 11, 3; then all are covered, and 0, 3, 10, 11, 20 only once
    assert seen.score.tolist() == [3, 2, 1, 2, 1]


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("dimensions", [1, 3, 20])
@pytest.mark.parametrize("scale", [0.3, 1, 3])
def test_probcover_equals_the_slow_reference(scale, dimensions, offset):
    codes = blobs(dimensions=dimensions).double() + offset
    delta = float(np.median(np.sort(matrix(codes), axis=1)[:, 8])) * scale
    seen = run("probcover", codes, 100, delta=delta)
    assert seen.index.tolist() == slow_probcover(codes, LABELED, 100, delta)


def test_probcover_on_a_grid_counts_neighbours_at_exactly_delta():
    codes = 0.1 * torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0), torch.arange(2.0)).double()
    assert run("probcover", codes, 60, labeled=LABELED[:3], delta=0.1).index.tolist() == slow_probcover(
        codes, LABELED[:3], 60, 0.1
    )


def test_a_ball_of_radius_0_holds_duplicates():
    codes = blobs()[torch.randint(40, (150,), generator=generator(0, "duplicates"))] + 0.1
    assert run("probcover", codes, 100, delta=0).index.tolist() == slow_probcover(codes, LABELED, 100, 0)


def test_probcover_with_the_default_delta_equals_the_slow_reference():
    codes, n = blobs(), 40
    expected = slow_probcover(codes, LABELED, n, slow_unit(codes, len(LABELED) + n))
    assert run("probcover", codes, n).index.tolist() == expected


# MaxHerding


def slow_maxherding(codes, labeled, n, bandwidth, weight=1.0, columns=slice(None)):
    kernel, picked = np.exp(-(matrix(codes) ** 2) / (2 * bandwidth**2))[:, columns], []
    while len(picked) < n:
        taken = labeled.tolist() + picked
        reach = kernel[taken].max(axis=0) if taken else np.zeros(kernel.shape[1])
        gain = (weight * np.maximum(kernel - reach, 0)).sum(axis=1)
        picked.append(slow_best({i: gain[i] for i in range(len(codes)) if i not in taken}))
    return picked


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("dimensions", [1, 3, 20])
@pytest.mark.parametrize("bandwidth", [0.3, 1, 10])
def test_maxherding_equals_the_slow_reference(bandwidth, dimensions, offset):
    codes = blobs(dimensions=dimensions).double() + offset
    for labeled in (LABELED, LABELED[:0]):
        seen = run("maxherding", codes, 60, labeled=labeled, bandwidth=bandwidth)
        assert seen.index.tolist() == slow_maxherding(codes, labeled, 60, bandwidth)


def test_maxherding_with_the_default_bandwidth_equals_the_slow_reference():
    codes, n = blobs(), 40
    expected = slow_maxherding(codes, LABELED, n, slow_unit(codes, len(LABELED) + n))
    assert run("maxherding", codes, n).index.tolist() == expected


def test_maxherding_with_candidates_looks_at_those_only():
    codes = blobs()
    rows = torch.randperm(136, generator=generator(0, "select"))[:25]
    among = PoolView(codes, LABELED).unlabeled[rows].tolist()
    index = run("maxherding", codes, 25, candidates=25).index.tolist()
    assert sorted(index) == sorted(among)
    assert index[0] in slow_maxherding(codes, LABELED, 100, slow_unit(codes, len(LABELED) + 25))
    assert torch.equal(run("maxherding", codes, 9, candidates=999).index, run("maxherding", codes, 9).index)


def uncertain(size, seed=1):
    return (3 * torch.randn(size, 4, generator=generator(seed, "logits"), dtype=torch.float64)).softmax(dim=1)


SLOW_MEASURES = {
    "margin": lambda p: 1 - (np.sort(p)[:, -1] - np.sort(p)[:, -2]),
    "least-confidence": lambda p: 1 - p.max(axis=1),
    "entropy": lambda p: -(p * np.log(p)).sum(axis=1),
}


@pytest.mark.parametrize("measure", SLOW_MEASURES)
@pytest.mark.parametrize("dimensions", [1, 3, 20])
def test_uncertainty_herding_equals_the_slow_reference(dimensions, measure):
    codes = blobs(dimensions=dimensions).double()
    p = uncertain(len(codes))
    for labeled in (LABELED, LABELED[:0]):
        view = PoolView(codes, labeled, sources={"probs": p})
        options = {"bandwidth": 1.0, "measure": measure}
        seen = STRATEGIES["uncertainty-herding"](view, 60, generator=generator(0), **options)
        weight = SLOW_MEASURES[measure](p.numpy())
        weight = weight / weight[view.unlabeled].max()  # labelled images gain nothing, whatever they count
        assert seen.index.tolist() == slow_maxherding(codes, labeled, 60, 1.0, weight)


def test_uncertainty_herding_of_a_model_that_is_sure_of_everything_is_maxherding():
    codes, sure = blobs(), torch.eye(3)[torch.arange(150) % 3]
    view = PoolView(codes, LABELED, sources={"probs": sure})
    seen = STRATEGIES["uncertainty-herding"](view, 40, generator=generator(0))
    assert torch.equal(seen.index, run("maxherding", codes, 40).index)


def test_uncertainty_herding_asks_where_classes_meet():
    """Two blobs of one class each and a third where the model wavers: the first pick lies there, and central."""
    codes = torch.cat([blobs(100, 2, seed=3) * 0.1 + 10 * i for i in range(3)])
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]).repeat_interleave(100, dim=0)
    view = PoolView(codes, torch.tensor([0, 250]), sources={"probs": p})
    first = STRATEGIES["uncertainty-herding"](view, 1, generator=generator(0), bandwidth=1.0).index
    assert 100 <= first.item() < 200


# What they share


def slow_unit(codes, parts):
    places = np.unique(codes.double().numpy(), axis=0)
    k = min(max(1, round(len(places) / (4 * parts))), len(places) - 1)
    return torch.from_numpy(np.sort(cdist(places, places), axis=1)[:, k]).median().item()


@pytest.mark.parametrize("n", [1, 20, 136])
def test_the_unit_of_length_by_hand(n):
    codes = torch.cat([blobs(), blobs()[:70]])  # 70 places hold two images
    seen = coverage._unit(PoolView(codes, LABELED), n, torch.arange(len(codes)))
    np.testing.assert_allclose(seen, slow_unit(codes, len(LABELED) + n))


def test_the_unit_of_length_of_a_sample_follows_the_scale_and_not_the_order():
    codes, order = blobs(3000), torch.randperm(3000, generator=generator(0, "order"))
    unit, scaled, moved = (
        coverage._unit(PoolView(c), 30, torch.arange(3000)) for c in (codes, 1000 * codes.double(), codes[order])
    )
    np.testing.assert_allclose([scaled / 1000, moved], unit)
    np.testing.assert_allclose(unit, slow_unit(codes, 30), rtol=0.1)


@pytest.mark.parametrize("name", ["probcover", "maxherding"])
def test_bounds_are_never_below_the_gains_and_close(name):
    codes = torch.cat([blobs(300, 20), 1e3 * blobs(4, 20)]).double()  # four far away spoil single precision
    rows, weight = torch.arange(304), torch.rand(304, generator=generator(0))
    squares = coverage._Squares(codes, 4.0, rows, rows)
    state = coverage._Balls(squares, LABELED) if name == "probcover" else coverage._Kernels(squares, LABELED, weight)
    with pairwise.full_precision():
        bound = state.bounds()
        for row in (7, 70, 150, 303):
            exact = state.gains(rows)
            assert (bound >= exact).all()
            assert (bound - exact)[:300].median() < 0.1
            assert exact.max() > 3
            state.add(row, bound)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("dimensions", [2, 64])
def test_rough_squares_lie_on_the_side_asked_for(dimensions, side):
    codes = torch.cat([100 + blobs(300, dimensions), 1e3 * blobs(4, dimensions)])
    rows = torch.arange(304)
    squares = coverage._Squares(codes, 2.0, rows[:200], rows)
    with pairwise.full_precision():
        rough = torch.cat([part for _, _, part in squares.bounds(side)])
        near = squares.near(5, 2.0)
    exact = -torch.from_numpy(matrix(codes)[:, :200] ** 2) / 4
    assert (side * (exact - rough) >= -1e-9).all()
    assert near == slice(None) or set((exact[5] >= -4).nonzero()[:, 0].tolist()) <= set(near.tolist())
    torch.testing.assert_close(squares.from_row(5), -torch.from_numpy(matrix(codes)[:, 5] ** 2) / 4, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["probcover", "maxherding"])
def test_tiles_of_any_size_give_the_same_answer(name, monkeypatch):
    codes = blobs()
    whole = run(name, codes, 50).index
    monkeypatch.setattr(pairwise, "TILE", 64)
    monkeypatch.setattr(pairwise, "ROWS", 7)
    monkeypatch.setattr(coverage, "BATCH", 3)
    assert torch.equal(run(name, codes, 50).index, whole)


HARD = {
    "far from the origin": lambda x: x + 1e6,
    "one coordinate a million times another": lambda x: x * torch.tensor([1, 1e6, 1e3]),
    "every place twice": lambda x: x[torch.arange(len(x)) // 2],
    "few places": lambda x: x.round(),
    "below the smallest normal number": lambda x: (x * 1e-39).float(),
    "one of them far away": lambda x: torch.cat([x[:-1], 1e7 + x[-1:]]),
    "some at one place very far away": lambda x: torch.cat([x[:-6], 1e10 + x[-1:].expand(6, -1)]),
}


@pytest.mark.parametrize("how", HARD)
def test_hard_codes_give_the_picks_of_the_slow_reference(how):
    codes = HARD[how](blobs().double())
    n, unit = 60, slow_unit(codes, len(LABELED) + 60)
    assert run("probcover", codes, n, reference=None).index.tolist() == slow_probcover(codes, LABELED, n, unit)
    assert run("maxherding", codes, n, reference=None).index.tolist() == slow_maxherding(codes, LABELED, n, unit)


@pytest.mark.parametrize("bandwidth", [1e-7, 1e-9])
def test_a_kernel_narrower_than_any_distance_covers_itself_alone(bandwidth):
    view = PoolView(blobs())
    seen = STRATEGIES["maxherding"](view, 5, generator=generator(0, "select"), bandwidth=bandwidth)
    assert seen.index.tolist() == [0, 1, 2, 3, 4]
    assert seen.score.tolist() == [1, 1, 1, 1, 1]


def drawn(size, reference):
    return torch.randperm(size, generator=generator(0, "select"))[:reference].numpy()


def test_coverage_measured_on_drawn_images_is_the_slow_greedy_on_those():
    codes, n, p = blobs(400), 40, uncertain(400)
    columns, weight = drawn(400, 70), 1 - np.sort(p)[:, -1] + np.sort(p)[:, -2]
    view = PoolView(codes, LABELED, sources={"probs": p})
    weight = np.where(np.isin(np.arange(400), LABELED), 0, weight / weight[view.unlabeled].max())
    seen = run("probcover", codes, n, delta=1.0, reference=70)
    assert seen.index.tolist() == slow_probcover(codes, LABELED, n, 1.0, columns)
    seen = run("maxherding", codes, n, bandwidth=0.8, reference=70)
    assert seen.index.tolist() == slow_maxherding(codes, LABELED, n, 0.8, columns=columns)
    options = {"generator": generator(0, "select"), "bandwidth": 0.8, "reference": 70}
    index = STRATEGIES["uncertainty-herding"](view, n, **options).index.tolist()
    assert index == slow_maxherding(codes, LABELED, n, 0.8, weight[columns], columns)


def kernels(name, codes, length):
    """How each image covers every other, (N, N)."""
    if name == "probcover":
        return (matrix(codes) <= length).astype(float)
    return np.exp(-(matrix(codes) ** 2) / (2 * length**2))


@pytest.mark.parametrize(("name", "option"), [("probcover", "delta"), ("maxherding", "bandwidth")])
def test_where_probes_propose_all_drawn_images_decide(name, option, monkeypatch):
    """The scores are gains on the drawn images, in units of the whole pool, and the picks cover nearly as much."""
    monkeypatch.setattr(coverage, "PROBES", 300)
    monkeypatch.setattr(coverage, "PAIRS", 0)
    monkeypatch.setattr(coverage, "BATCH", 20)
    codes, columns = blobs(900), drawn(900, 600)
    seen, everything = (run(name, codes, 30, reference=size, **{option: 1.0}) for size in (600, None))
    kernel, reach = kernels(name, codes, 1.0), 0 * codes[:, 0].numpy() + kernels(name, codes, 1.0)[LABELED].max(axis=0)
    gains, before = [], reach.sum()
    for row in seen.index:
        gains.append(np.maximum(kernel[row] - reach, 0)[columns].sum() * 1.5)
        reach = np.maximum(reach, kernel[row])
    np.testing.assert_allclose(seen.score, gains, rtol=1e-5)
    assert 0.9 * everything.score.sum() < reach.sum() - before < everything.score.sum()


@pytest.mark.parametrize("name", ["probcover", "maxherding"])
def test_the_reference_follows_the_seed_and_what_covers_the_pool_is_not_drawn(name):
    codes = blobs(300)
    first, again, other = (select(name, codes, 20, reference=40, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    g, before = generator(0, "select"), generator(0, "select").get_state()
    whole = [STRATEGIES[name](PoolView(codes), 20, generator=g, reference=size).index for size in (None, 300, 999)]
    assert torch.equal(whole[0], whole[1])
    assert torch.equal(whole[0], whole[2])
    assert torch.equal(g.get_state(), before)


@pytest.mark.parametrize("reference", [None, 500])
@pytest.mark.parametrize("labeled", [None, LABELED])
@pytest.mark.parametrize("options", [{}, {"delta": 0}, {"delta": 1.0}, {"bandwidth": 1.0}])
def test_equal_codes_are_no_slow_path(options, labeled, reference, monkeypatch):
    """All gains are alike: few are computed, and all pairs are looked at once."""
    computed, passes = [], []
    gains, bounds = coverage._Cover.gains, coverage._Squares.bounds
    monkeypatch.setattr(coverage._Cover, "gains", lambda self, rows: computed.append(len(rows)) or gains(self, rows))
    monkeypatch.setattr(
        coverage._Squares, "bounds", lambda self, *given: passes.append(len(given)) or bounds(self, *given)
    )
    name = "maxherding" if "bandwidth" in options else "probcover"
    index = run(name, torch.full((3000, 2), 0.1), 50, labeled=labeled, reference=reference, **options).index
    free = [i for i in range(3000) if labeled is None or i not in labeled]
    assert index.tolist() == free[:50]
    assert sum(computed) <= 50 * (coverage.BATCH + 1) + 2 * 3000
    assert passes.count(2) <= 1


@pytest.mark.parametrize(
    "options", [{"strategy": "probcover", "delta": 3.0}, {"strategy": "maxherding", "bandwidth": 3.0}]
)
def test_permuting_the_pool_permutes_the_answer_where_no_gains_tie(options):
    codes, order = blobs(2000), torch.randperm(2000, generator=generator(0, "order"))
    here, there = select(codes=codes, n=3, **options), select(codes=codes[order], n=3, **options)
    assert torch.equal(order[there], here)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"strategy": "typiclust", "max_clusters": 0}, ValueError, "max_clusters must be at least 1, got 0"),
        ({"strategy": "typiclust", "min_size": 0}, ValueError, "min_size must be at least 1, got 0"),
        ({"strategy": "typiclust", "neighbours": 1.5}, TypeError, "neighbours must be a whole number, got 1.5"),
        ({"strategy": "typiclust", "iterations": 0}, ValueError, "iterations must be at least 1, got 0"),
        ({"strategy": "probcover", "delta": -1}, ValueError, "delta must be at least 0, got -1"),
        ({"strategy": "uncertainty-herding", "measure": "bald"}, ValueError, "measure must be one of .* got 'bald'"),
        ({"strategy": "maxherding", "bandwidth": 0}, ValueError, "bandwidth must be above 0, got 0"),
        ({"strategy": "maxherding", "bandwidth": "1"}, TypeError, "bandwidth must be a number, got '1'"),
        ({"strategy": "probcover", "reference": 0}, ValueError, "reference must be at least 1, got 0"),
        ({"strategy": "maxherding", "reference": -1}, ValueError, "reference must be at least 1, got -1"),
        ({"strategy": "probcover", "reference": 2.5}, TypeError, "reference must be a whole number, got 2.5"),
        ({"strategy": "maxherding", "reference": "x"}, TypeError, "reference must be a whole number, got 'x'"),
        ({"strategy": "maxherding", "candidates": 4}, ValueError, "candidates must be at least n=5, got 4"),
    ],
)
def test_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        select(codes=blobs(20), n=5, **arguments)
