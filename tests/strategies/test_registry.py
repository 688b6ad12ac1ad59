"""One contract over every strategy; densities and matching against slow references; every error message."""

import inspect
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from lalib.codes.clustering import kmeans, ward
from lalib.codes.neighbours import median_nn_distance
from lalib.data.checks import LalibError
from lalib.data.seeds import generator
from lalib.strategies import LABEL_FREE, SINGLE_LABEL, SOURCES, STRATEGIES, matching, run_strategy, select, spatial
from lalib.strategies.sources import Setting, Source
from lalib.strategies.view import Copies, PoolView, Selection, Strategy

pytestmark = pytest.mark.filterwarnings("error")

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
RANKED = {
    "reconstruction-error",
    "learning-loss",
    "least-confidence",
    "margin",
    "entropy",
    "bald",
    "vaal",
    "ta-vaal",
    "m2-vaal",
}
COUNTED = {"probcover", "maxherding", "uncertainty-herding"}  # draw nothing; their gains tie, so see test_coverage.py
COLD = {"core-set", "medal"}  # draw the first image where nothing is labelled
TAUGHT = {
    name for name, strategy in STRATEGIES.items() if "labels" in strategy.needs
}  # need labelled images; draw nothing in small pools
DRAWN = sorted(set(STRATEGIES) - RANKED - COUNTED - TAUGHT)
MATCHED = sorted(name for name, f in STRATEGIES.items() if "match" in inspect.signature(f).parameters)
CLUSTERED = sorted(name for name, f in STRATEGIES.items() if "clusters" in inspect.signature(f).parameters)


def blobs(size=200, dimensions=2, seed=0):
    g = generator(seed, "codes")
    centres = 4 * torch.randn(5, dimensions, generator=g)
    return centres[torch.randint(5, (size,), generator=g)] + torch.randn(size, dimensions, generator=g)


def everything(codes, seed=0):
    """All that a strategy may ask for."""
    g, size = generator(seed, "sources"), len(codes)
    return {
        "errors": torch.rand(size, generator=g),
        "probs": torch.rand(size, 3, generator=g).softmax(dim=1),
        "mc_probs": torch.rand(4, size, 3, generator=g).softmax(dim=2),
        "dropped_probs": torch.rand(3, size, 3, generator=g).softmax(dim=2),
        "features": torch.randn(size, 6, generator=g),
        "latents": torch.randn(size, 4, generator=g),
        **{name: torch.randn(size, generator=g) for name in ("vaal", "ta_vaal", "m2_vaal")},
        "predicted_losses": torch.rand(size, generator=g),
    }


def needed(name, codes):
    """All that a strategy may ask for, and labelled images if it cannot do without."""
    labeled = torch.arange(0, len(codes), 9)
    return everything(codes) | ({"labeled": labeled, "labels": labeled % 4 % 3} if name in TAUGHT else {})


def several(codes, seed=0):
    """The same where an image may have several of four labels."""
    g, size = generator(seed, "several"), len(codes)
    probs = {"probs": torch.rand(size, 4, generator=g), "mc_probs": torch.rand(5, size, 4, generator=g)}
    return everything(codes, seed) | probs


# One contract over every strategy


@pytest.mark.parametrize("dimensions", [1, 2, 20])
@pytest.mark.parametrize("name", STRATEGIES)
def test_n_distinct_unlabelled_indices(name, dimensions):
    codes = blobs(100, dimensions)
    labeled = torch.arange(30) * 3
    labels = torch.arange(30) % 3
    for n in (1, 37, 70):
        index = select(name, codes, n, labeled=labeled, labels=labels, **everything(codes))
        assert index.shape == (n,)
        assert index.dtype == torch.int64
        assert index.device.type == "cpu"
        assert len(index.unique()) == n
        assert not torch.isin(index, labeled).any()
        assert index.min() >= 0
        assert index.max() < 100


@pytest.mark.parametrize("name", STRATEGIES)
def test_same_seed_same_answer(name):
    codes = blobs()
    first, again, other = (select(name, codes, 20, seed=seed, **needed(name, codes)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in DRAWN)


@pytest.mark.parametrize("name", STRATEGIES)
def test_inputs_are_left_as_they_were(name):
    codes = blobs()
    given = {"labeled": torch.tensor([5, 3]), "labels": torch.tensor([1, 0]), **everything(codes)}
    before, state = (
        {key: value.clone() for key, value in given.items()} | {"codes": codes.clone()},
        torch.get_rng_state(),
    )
    select(name, codes, 20, **given)
    assert all(torch.equal(before[key], value) for key, value in (given | {"codes": codes}).items())
    assert torch.equal(torch.get_rng_state(), state)
    copies = Copies(PoolView(codes, given.pop("labeled"), given.pop("labels"), given))
    STRATEGIES[name](copies, 20, generator=generator(0))
    assert copies.changed() == []


@pytest.mark.parametrize(
    "codes", [torch.zeros(40, 2), torch.arange(40.0).div(10, rounding_mode="floor").repeat(2, 1).T]
)
@pytest.mark.parametrize("name", STRATEGIES)
def test_duplicates_are_picked_one_by_one(name, codes):
    given = needed(name, codes)
    for n in (7, 40 - len(given.get("labeled", []))):
        assert len(select(name, codes.clone(), n, **given).unique()) == n


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - TAUGHT))
def test_a_pool_of_one(name):
    codes = torch.ones(1, 2)
    assert select(name, codes, 1, **everything(codes)).tolist() == [0]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_last_unlabelled_image(name):
    codes, labeled = torch.ones(3, 2), torch.tensor([2, 0])
    assert select(name, codes, 1, labeled=labeled, labels=torch.tensor([0, 1]), **everything(codes)).tolist() == [1]


@pytest.mark.parametrize("name", sorted(RANKED | COLD | TAUGHT))
def test_permuting_the_pool_permutes_the_answer(name):
    codes, order = blobs(), torch.randperm(200, generator=generator(0, "order"))
    sources, labeled = everything(codes), torch.arange(0, 200, 9)
    labels = labeled % 3
    moved = {key: value.index_select(int(value.ndim == 3), order) for key, value in sources.items()}
    here = select(name, codes, 50, labeled=labeled, labels=labels, **sources)
    there = select(name, codes[order], 50, labeled=order.argsort()[labeled], labels=labels, **moved)
    assert torch.equal(order[there], here)


@pytest.mark.parametrize("name", STRATEGIES)
def test_double_precision_and_functions_as_sources_change_nothing(name):
    codes = blobs()
    given = needed(name, codes)
    asked = given | {key: lambda value=value: value.double() for key, value in everything(codes).items()}
    assert torch.equal(select(name, codes.double(), 30, **asked), select(name, codes, 30, **given))


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_scale_of_the_codes_does_not_matter(name):
    codes = blobs(400, dimensions=3)
    given = {"labeled": torch.arange(7), "labels": torch.arange(7) % 3, **everything(codes)}
    assert torch.equal(select(name, 1000 * codes, 30, **given), select(name, codes, 30, **given))


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - set(SINGLE_LABEL)))
def test_several_labels_per_image(name):
    codes, labeled = blobs(), torch.arange(20)
    index = select(name, codes, 180, labeled=labeled, labels=torch.ones(20, 4), **several(codes))
    assert sorted(index.tolist()) == list(range(20, 200))


@pytest.mark.parametrize("name", SINGLE_LABEL)
def test_one_label_per_image(name):
    codes, labeled = blobs(), torch.arange(20)
    with pytest.raises(LalibError, match="needs one label per image"):
        select(name, codes, 5, labeled=labeled, labels=torch.ones(20, 4), **several(codes))


@CUDA
@pytest.mark.parametrize("name", STRATEGIES)
def test_cuda_gives_the_same_answer(name):
    codes = blobs()
    given = needed(name, codes)
    here = select(name, codes, 50, **given)
    there = select(name, codes.cuda(), 50, **{key: value.cuda() for key, value in given.items()})
    assert torch.equal(here, there)


# What a declaration says


def test_every_strategy_is_declared_once_beside_its_function():
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name
        home = inspect.getmodule(strategy.function)
        assert home.__name__.startswith("lalib.strategies.")
        assert strategy in home.DECLARED
    assert len({strategy.function for strategy in STRATEGIES.values()}) == len(STRATEGIES)
    assert set(LABEL_FREE) == {name for name, strategy in STRATEGIES.items() if strategy.label_free}
    assert set(SINGLE_LABEL) == {name for name, strategy in STRATEGIES.items() if not strategy.several}
    assert {"random", "typiclust", "reconstruction-error"} < set(LABEL_FREE)
    assert not {"margin", "core-set", "norm-added", "vaal"} & set(LABEL_FREE)


class Asked(PoolView):
    """A view that keeps what is asked of it."""

    def get(self, name, **settings):
        vars(self).setdefault("_asked", set()).add(name)
        return super().get(name, **settings)


@pytest.mark.parametrize("name", STRATEGIES)
def test_needs_are_what_is_asked(name):
    codes = blobs(60)
    labeled = torch.arange(0, 60, 9)
    view = Asked(codes, labeled, labeled % 3, everything(codes))
    STRATEGIES[name](view, 5, generator=generator(0))
    assert vars(view).get("_asked", set()) == {source.name for source in STRATEGIES[name].sources}


@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if "labels" in strategy.needs])
def test_strategies_that_need_labels_say_so(name):
    codes = blobs(60)
    with pytest.raises(LalibError, match="this strategy needs labelled images, which were not given"):
        select(name, codes, 5, **everything(codes))


@pytest.mark.parametrize("name", sorted(LABEL_FREE))
def test_strategies_without_a_label(name):
    codes = blobs(60)
    assert len(select(name, codes, 5, errors=torch.arange(60.0)).unique()) == 5


def test_settings_of_sources_are_options():
    codes, asked = blobs(20), []

    def mc_probs(passes):
        asked.append(passes)
        return torch.rand(passes, 20, 3, generator=generator(0)).softmax(dim=2)

    for options in ({}, {"passes": 7}, {"passes": np.int64(3)}):
        select("bald", codes, 2, mc_probs=mc_probs, **options)
    assert asked == [5, 7, 3]
    assert all(type(number) is int for number in asked)
    signature = inspect.signature(STRATEGIES["ta-vaal"]).parameters
    assert {name: p.default for name, p in signature.items() if p.default is not p.empty} == {
        "vae_epochs": 20,
        "adversarial": 1.0,
        "loss_weight": 1.0,
    }


@pytest.mark.parametrize(
    ("strategy", "options", "error", "message"),
    [
        ("bald", {"passes": 7}, ValueError, "passes=7 changes nothing where mc_probs is given: leave it out"),
        ("bald", {"passes": 1}, ValueError, "passes must be at least 2, got 1"),
        ("bald", {"passes": 2.5}, TypeError, "passes must be a whole number, got 2.5"),
        ("vaal", {"adversarial": 0.5}, ValueError, "adversarial=0.5 changes nothing where vaal is given"),
        ("vaal", {"vae_epochs": 0}, ValueError, "vae_epochs must be at least 1, got 0"),
        (
            "vaal",
            {"loss_weight": 1.0},
            ValueError,
            "vaal has no option 'loss_weight'; its options are: 'vae_epochs', 'ad",
        ),
        ("learning-loss", {"loss_weight": -1}, ValueError, "loss_weight must be at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be(strategy, options, error, message):
    codes = blobs(20)
    with pytest.raises(error, match=message):
        select(strategy, codes, 2, **everything(codes), **options)
    assert len(select("bald", codes, 2, passes=5, **everything(codes))) == 2  # the default changes nothing


HEAT = Source("heat", "(N,)", "heat=values, one per image", settings={"power": Setting(1.0)})


def hottest(view, n, *, generator, sign=1):
    """The unlabelled images of largest heat."""
    return Selection(view.unlabeled[(sign * view.heat[view.unlabeled]).argsort(descending=True, stable=True)[:n]])


HOTTEST = Strategy("hottest", hottest, needs=(HEAT,))


def test_a_strategy_with_a_source_of_its_own():
    heat = np.array([0, 5, 2, 9, 1.0])
    given = {"labeled": [3], "heat": heat}
    assert select(HOTTEST, blobs(5), 2, **given).tolist() == [1, 2]
    assert select(HOTTEST, blobs(5), 2, sign=-1, **given).tolist() == [0, 4]
    powers = []
    select(HOTTEST, blobs(5), 2, heat=lambda power: powers.append(power) or heat, power=2)
    assert powers == [2.0]
    with pytest.raises(LalibError, match=r"needs heat \(N,\), which was not given: pass heat=values, one per image"):
        select(HOTTEST, blobs(5), 2)
    with pytest.raises(LalibError, match=r"needs heat \(N,\), which was not given"):
        run_strategy(HOTTEST, PoolView(blobs(5)), 2, generator=generator(0))
    with pytest.raises(ValueError, match=r"heat must have shape \(N,\) with N = 5, got \(4,\)"):
        select(HOTTEST, blobs(5), 2, heat=heat[:4])
    with pytest.raises(ValueError, match="hottest has no option 'cold'; its options are: 'sign', 'power'"):
        select(HOTTEST, blobs(5), 2, heat=heat, cold=1)
    with pytest.raises(ValueError, match="hottest has no option 'heat'"):
        select(hottest, blobs(5), 2, heat=heat)


@pytest.mark.parametrize(
    ("declare", "error", "message"),
    [
        (lambda: Strategy("a", hottest, needs=("prob",)), ValueError, "need must be one of .* Did you mean 'probs'"),
        (lambda: Strategy("a", "margin"), TypeError, "a strategy must be a name and a function, got 'a' and 'margin'"),
        (
            lambda: Strategy("a", dict),
            TypeError,
            "a strategy must be a name and a function, got 'a' and <class 'dict'>",
        ),
        (lambda: Strategy(3, hottest), TypeError, "a strategy must be a name and a function, got 3 and <function hott"),
        (
            lambda: Source("my heat", "(N,)", "heat=h"),
            ValueError,
            "a source's name must be one that Python takes for a",
        ),
        (
            lambda: Source("heat", "(M,)", "heat=h"),
            ValueError,
            r"a source's shape must be such as '\(N,\)' .* '\(M,\)'",
        ),
        (lambda: Strategy("a", hottest, (Source("probs", "(N, C)", ""),)), ValueError, "must have a name of its own"),
        (lambda: Strategy("a", hottest, (Source("unlabeled", "(N,)", ""),)), ValueError, "must have a name of its own"),
    ],
)
def test_declarations_that_cannot_be(declare, error, message):
    with pytest.raises(error, match=message):
        declare()


# What a strategy is given stays what it was


def spoil(what, through_numpy):
    def spoiler(view, n, *, generator):
        picked, seen = view.unlabeled[:n].clone(), getattr(view, what)
        if through_numpy:
            seen.numpy()[0] = 1 - seen.numpy()[0]
        else:
            seen[0] = 1 - seen[0]
        return Selection(picked)

    return spoiler


@pytest.mark.parametrize("through_numpy", [False, True])
@pytest.mark.parametrize("what", ["labeled", "labels", "unlabeled", *SOURCES])
def test_a_strategy_that_changes_what_it_is_given(what, through_numpy):
    codes, labeled = blobs(20), torch.tensor([5, 3])
    given = {"codes": codes, "labeled": labeled, "labels": torch.tensor([1, 0]), **everything(codes)}
    given["predicted_losses_with_codes"] = torch.rand(20)
    before = {name: value.clone() for name, value in given.items()}
    for strategy in (spoil(what, through_numpy), Strategy("mine", spoil(what, through_numpy), needs=())):
        with pytest.raises(
            LalibError, match=f"(spoiler|mine) must leave what it is given .* but it changed {what}: let"
        ):
            select(strategy, n=3, **given)
    assert all(torch.equal(value, given[name]) for name, value in before.items())


def test_lalibs_own_see_the_tensors_themselves_and_others_one_copy():
    codes, seen = blobs(20), []

    def keeping(view, n, *, generator):
        seen.extend((view.codes, view.get("codes"), view))
        return STRATEGIES["k-medoids"](view, n, generator=generator)

    index = select(keeping, codes, 4)
    assert torch.equal(index, select("k-medoids", codes, 4))
    assert seen[0] is seen[1]
    assert seen[0].data_ptr() != codes.data_ptr()
    assert isinstance(seen[2], Copies)
    view = PoolView(codes)
    assert view.codes.data_ptr() == codes.data_ptr()


# Matching draws to points


def slow_nearest(draws, codes, candidates, n, threshold, metric):
    """One draw after the other, full distances to every candidate, the nearest that is free."""
    full, free, picked = cdist(draws.double(), codes.double(), metric), set(candidates.tolist()), []
    for row in full:
        if len(picked) == n:
            break
        best = min(free, key=lambda i: (row[i], i))
        if threshold is None or row[best] <= threshold:
            free.remove(best)
            picked.append(best)
    return picked


def slow_all(draws, codes, candidates, n, threshold, metric):
    """One draw after the other, everything within the threshold, nearest first, cut at n."""
    full, allowed, picked = cdist(draws.double(), codes.double(), metric), set(candidates.tolist()), []
    for row in full:
        near = sorted((row[i], i) for i in allowed if row[i] <= threshold and i not in picked)
        picked += [i for _, i in near]
    return picked[:n]


def run_match(draws, codes, candidates, n, form, threshold, metric):
    blocks = iter(draws.split(max(64, min(n, 1024))))
    picked = matching.match_draws(
        lambda m: next(blocks), codes, candidates, n, match=form, threshold=threshold, metric=metric
    )
    return picked.tolist()


@pytest.mark.parametrize("grid", [False, True], ids=["continuous", "grid with ties and duplicates"])
@pytest.mark.parametrize("dimensions", [1, 2, 20])
@pytest.mark.parametrize("metric", ["euclidean", "cityblock", "chebyshev"])
@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_nearest_equals_the_slow_reference(share, metric, dimensions, grid):
    codes, draws = blobs(600, dimensions), blobs(5000, dimensions, seed=1)[:600].double()
    if grid:
        codes, draws = codes.round(), draws.round()
    candidates = torch.arange(600)[torch.rand(600, generator=generator(0, "labelled")) > 0.2]
    n = max(1, int(share * len(candidates)))
    expected = slow_nearest(draws, codes, candidates, n, None, metric)
    assert run_match(draws, codes, candidates, n, "nearest", None, metric) == expected


@pytest.mark.parametrize("form", ["nearest", "all"])
@pytest.mark.parametrize("dimensions", [2, 20])
def test_with_a_threshold_equals_the_slow_reference(form, dimensions):
    codes, draws = blobs(500, dimensions), blobs(8000, dimensions, seed=0)[4000:].double()
    candidates, threshold = torch.arange(0, 500, 2), 3 * median_nn_distance(codes)
    slow = {"nearest": slow_nearest, "all": slow_all}[form]
    expected = slow(draws, codes, candidates, 90, threshold, "euclidean")
    assert len(expected) == 90
    assert run_match(draws, codes, candidates, 90, form, threshold, "euclidean") == expected


def test_uniform_spatial_by_hand():
    codes, n = blobs(300), 100
    g = generator(5, "select")
    low, high = codes.double().amin(dim=0), codes.double().amax(dim=0)
    draws = low + (high - low) * torch.rand(n, 2, generator=g, dtype=torch.float64)
    expected = slow_nearest(draws, codes, torch.arange(300), n, None, "euclidean")
    assert select("uniform-spatial", codes, n, seed=5).tolist() == expected


def test_a_far_corner_is_searched_until_something_free_turns_up():
    codes = torch.cat([torch.full((1500, 2), 0.0), torch.linspace(5, 6, 500).repeat(2, 1).T])
    draws = torch.full((1600, 2), -1.0, dtype=torch.float64)  # all draws want the same points
    assert run_match(draws, codes, torch.arange(2000), 1600, "nearest", None, "euclidean") == list(range(1600))


@pytest.mark.parametrize("metric", ["l1", "infinity"])
@pytest.mark.parametrize("name", MATCHED)
def test_other_metrics(name, metric):
    assert len(select(name, blobs(100), 100, metric=metric).unique()) == 100


@pytest.mark.parametrize("name", MATCHED)
def test_all_has_a_threshold_that_follows_the_scale(name):
    codes = blobs(400)
    index = select(name, codes, 50, match="all")
    assert len(index.unique()) == 50
    assert torch.equal(index, select(name, codes * 1024, 50, match="all"))


@pytest.mark.parametrize("name", MATCHED)
def test_all_in_a_wide_threshold_takes_whole_regions(name):
    assert sorted(select(name, blobs(), 200, match="all", threshold=1e3).tolist()) == list(range(200))


# Densities


def test_moments_are_those_of_numpy():
    codes = blobs(50, 3).double()
    mean, root = spatial._moments(codes)
    np.testing.assert_allclose(mean, codes.mean(dim=0))
    np.testing.assert_allclose(root @ root, np.cov(codes.T))
    torch.testing.assert_close(root, root.T)


@pytest.mark.parametrize(
    "codes", [torch.ones(1, 2), torch.ones(2, 2), torch.ones(5, 1), torch.arange(4.0).repeat(2, 1).T]
)
def test_moments_of_few_or_collinear_points(codes):
    mean, root = spatial._moments(codes.double())
    covariance = np.cov(codes.double().T, ddof=min(1, len(codes) - 1)).reshape(root.shape)
    np.testing.assert_allclose(root @ root, covariance, atol=1e-12)
    assert torch.equal(mean, codes.double().mean(dim=0))


def test_normal_draws_have_the_moments_asked_for():
    codes = blobs(100).double()
    draws = spatial._normal(*spatial._moments(codes), generator(0, "draws"))(100_000)
    np.testing.assert_allclose(draws.mean(dim=0), codes.mean(dim=0), atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), np.cov(codes.T), rtol=0.03, atol=0.1)


def test_mixture_draws_have_the_moments_of_the_whole():
    codes = blobs(300).double()
    label = ward(codes, 5)
    parts = [spatial._moments(codes[label == s]) for s in range(5)]
    draw = spatial._mixture(
        label.bincount().double(), *map(torch.stack, zip(*parts, strict=True)), generator(0, "draws")
    )
    draws = draw(100_000)
    np.testing.assert_allclose(draws.mean(dim=0), codes.mean(dim=0), atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), np.cov(codes.T), rtol=0.03, atol=0.1)


@pytest.mark.parametrize(("bounds", "low", "high"), [("box", -3, 5), ("unit", 0, 1)])
def test_bounds_of_uniform_spatial(monkeypatch, bounds, low, high):
    codes = torch.tensor([[-3.0, -3], [5, 5], [0, 0], [1, 1]])
    drawn = record_draws(monkeypatch, lambda: select("uniform-spatial", codes, 4, bounds=bounds))
    assert drawn.min() >= low
    assert drawn.max() <= high
    assert drawn.max() - drawn.min() > 0.8 * (high - low)


def test_prior_of_normal_spatial(monkeypatch):
    codes = 100 + blobs(2000)
    drawn = record_draws(monkeypatch, lambda: select("normal-spatial", codes, 1000, prior="standard"))
    assert drawn.mean().abs() < 0.1
    assert abs(drawn.std() - 1) < 0.1


def record_draws(monkeypatch, call):
    blocks, stream = [], matching._stream

    def recording(draw, n):
        for block in stream(draw, n):
            blocks.append(block)
            yield block

    monkeypatch.setattr(matching, "_stream", recording)
    call()
    return torch.cat(blocks)


# Clusters


@pytest.mark.parametrize(
    ("n", "weights", "room", "expected"),
    [
        (10, [50, 30, 20], [50, 30, 20], [5, 3, 2]),
        (10, [1, 1, 1], [9, 9, 9], [4, 3, 3]),  # equal remainders: the lowest number
        (7, [60, 25, 15], [60, 25, 15], [4, 2, 1]),  # 4.2, 1.75, 1.05
        (10, [80, 10, 10], [2, 90, 90], [2, 4, 4]),
        (9, [1, 1, 1], [1, 2, 9], [1, 2, 6]),
        (1, [5, 5], [0, 5], [0, 1]),
        (6, [1, 2, 3], [1, 2, 3], [1, 2, 3]),
    ],
)
def test_allocation(n, weights, room, expected):
    assert spatial.allocation(n, weights, room) == expected


def test_allocation_always_sums_up():
    rng = np.random.default_rng(0)
    for _ in range(300):
        weights = rng.integers(1, 50, size=rng.integers(1, 12))
        room = rng.integers(0, weights + 1)
        for n in range(1, room.sum() + 1, 7):
            share = np.array(spatial.allocation(n, weights.tolist(), room.tolist()))
            assert share.sum() == n
            assert (share >= 0).all()
            assert (share <= room).all()


@pytest.mark.parametrize("allocate", ["proportional", "equal"])
@pytest.mark.parametrize("name", ["cluster", "normal-in-clusters", "uniform-in-clusters"])
def test_every_cluster_gives_its_share(name, allocate):
    codes = blobs(400)
    label, labeled = ward(codes, 7), torch.arange(0, 400, 3)
    sizes = label.bincount()
    room = sizes - label[labeled].bincount(minlength=7)
    weights = sizes if allocate == "proportional" else torch.ones(7, dtype=torch.int64)
    index = select(name, codes, 100, clusters=label, allocate=allocate, labeled=labeled)
    assert label[index].bincount(minlength=7).tolist() == spatial.allocation(100, weights.tolist(), room.tolist())


@pytest.mark.parametrize("name", CLUSTERED)
def test_clusters_by_number_by_assignment_and_by_default(name):
    codes = blobs(400)
    by_number = select(name, codes, 50, clusters=7)
    assert torch.equal(by_number, select(name, codes, 50, clusters=ward(codes, 7)))
    assert torch.equal(
        by_number, select(name, codes, 50, clusters=(10 * ward(codes, 7) - 1).numpy())
    )  # any whole numbers
    assert torch.equal(select(name, codes, 50), select(name, codes, 50, clusters=7))  # round(sqrt(50))


def test_draws_in_a_cluster_stay_there(monkeypatch):
    codes = torch.cat(
        [torch.rand(50, 2, generator=generator(0, "a")), 100 + torch.rand(50, 2, generator=generator(1, "a"))]
    )
    drawn = record_draws(monkeypatch, lambda: select("uniform-in-clusters", codes, 80, clusters=2))
    assert (((drawn > 0) & (drawn < 1)).all(dim=1) | ((drawn > 100) & (drawn < 101)).all(dim=1)).all()


# Single strategies


def test_random_is_uniform():
    codes = blobs(10)
    counts = Counter(i for seed in range(2000) for i in select("random", codes, 3, seed=seed).tolist())
    assert min(counts.values()) > 500
    assert max(counts.values()) < 700


def test_reconstruction_error_takes_the_largest_and_breaks_ties_by_index():
    errors = torch.tensor([1.0, 3, 2, 3, 3, 0])
    seen = STRATEGIES["reconstruction-error"](
        PoolView(blobs(6), labeled=torch.tensor([3]), sources={"errors": errors}), 3, generator=generator(0)
    )
    assert seen.index.tolist() == [1, 4, 2]
    assert seen.score.tolist() == [3, 3, 2]


@pytest.mark.parametrize("dimensions", [2, 20])
def test_k_medoids_by_hand(dimensions):
    codes = blobs(300, dimensions)
    centres, label = kmeans(codes, 12, generator(0, "select"))
    distance = (codes - centres[label]).square().sum(dim=1)
    expected = [min(np.flatnonzero(label == s), key=lambda i: (float(distance[i]), i)) for s in range(12)]
    assert sorted(select("k-medoids", codes, 12).tolist()) == sorted(expected)
    scores = STRATEGIES["k-medoids"](PoolView(codes), 12, generator=generator(0, "select")).score
    assert scores.tolist() == sorted(label.bincount().tolist(), reverse=True)


def test_a_function_serves_as_a_strategy():
    def last(view, n, *, generator, step=1):
        return Selection(view.unlabeled.flip(0)[::step][:n])

    assert select(last, blobs(10), 3, labeled=torch.tensor([9]), step=2).tolist() == [8, 6, 4]
    with pytest.raises(ValueError, match="last has no option 'stride'; its options are: 'step'"):
        select(last, blobs(10), 3, stride=2)


# Errors


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"n": -3}, ValueError, "n must be at least 1, got -3"),
        ({"n": 2.0}, TypeError, "n must be a whole number, got 2.0"),
        ({"n": 21}, ValueError, "n=21 exceeds the 20 unlabelled images"),
        ({"n": 16, "labeled": torch.arange(5)}, ValueError, "n=16 exceeds the 15 unlabelled images"),
        ({"strategy": "normal-in-cluster"}, ValueError, "strategy must be one of .*Did you mean 'normal-in-clusters'"),
        ({"strategy": 3}, ValueError, "strategy must be one of .* got 3"),
        ({"tresh": 1}, ValueError, "normal-in-clusters has no option 'tresh'; its options are: .*'threshold'"),
        ({"codes": torch.full((20, 2), torch.nan)}, ValueError, "codes must be finite, but 20 of 20 rows"),
        ({"clusters": 21}, ValueError, "clusters=21 exceeds the 20 points"),
        ({"clusters": 0}, ValueError, "clusters must be at least 1, got 0"),
        ({"clusters": 1.5}, TypeError, "clusters must be a whole number, got 1.5"),
        ({"clusters": torch.zeros(9, dtype=torch.int64)}, ValueError, r"clusters must be a number or \(20,\), got .*9"),
        ({"clusters": torch.zeros(20)}, TypeError, "clusters must hold whole numbers, got torch.float32"),
        ({"allocate": "even"}, ValueError, "allocate must be one of 'proportional', 'equal', got 'even'"),
        ({"match": "any"}, ValueError, "match must be one of 'nearest', 'all', got 'any'"),
        ({"threshold": -1}, ValueError, "threshold must be at least 0, got -1"),
        ({"threshold": "1"}, TypeError, "threshold must be a number, got '1'"),
        ({"metric": "euclid"}, ValueError, "metric must be one of .*got 'euclid'"),
        ({"strategy": "uniform-spatial", "bounds": "cube"}, ValueError, "bounds must be one of 'box', 'unit'"),
        ({"strategy": "normal-spatial", "prior": "unit"}, ValueError, "prior must be one of 'data', 'standard'"),
        ({"strategy": "k-medoids", "iterations": 0}, ValueError, "iterations must be at least 1, got 0"),
        ({"strategy": "learning-loss"}, LalibError, r"needs predicted_losses \(N,\).*pass .*predicted_losses="),
        ({"strategy": "reconstruction-error"}, LalibError, r"needs errors \(N,\).*errors=la.reconstruction_errors"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_refuses(arguments, error, message):
    arguments = {"strategy": "normal-in-clusters", "codes": blobs(20), "n": 5} | arguments
    with pytest.raises(error, match=message):
        select(**arguments)


@pytest.mark.parametrize("form", ["nearest", "all"])
def test_a_threshold_no_draw_meets_says_how_far_it_came(form):
    codes = torch.cat([torch.zeros(47, 2), torch.full((60, 2), 1e6)])  # the unit square reaches the first 47 only
    with pytest.raises(LalibError, match=r"threshold=2 .*added nothing; .* draws \(.*%\) hit and 47 of 100 points"):
        select("uniform-spatial", codes, 100, bounds="unit", threshold=2, match=form)
    with pytest.raises(LalibError, match=r"threshold=0 .* 0 of 10000 draws \(0.00%\) hit and 0 of 9 points"):
        select("normal-spatial", blobs(20), 9, threshold=0, match=form)
    with pytest.raises(LalibError, match=r"in a cluster of \d+ images, after 0 of 9 in others: threshold=1e-09"):
        select("normal-in-clusters", blobs(20), 9, threshold=1e-9, match=form, clusters=2)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Selection(torch.tensor([1, 1, 2])), "mine must return 3 distinct indices, got 1 repeated"),
        (Selection(torch.tensor([1, 2, 4])), "mine must return unlabelled indices, got 4"),
        (Selection(torch.tensor([1, 2, 20])), "mine must return unlabelled indices, got 20"),
        (Selection(torch.tensor([1, 2])), r"mine must return an int64 index \(3,\), got torch.int64 of shape \(2,\)"),
        (Selection(torch.tensor([1.0, 2, 3])), "mine must return an int64 index .* got torch.float32"),
        (torch.tensor([1, 2, 3]), "mine must return a Selection, got Tensor"),
        (Selection(torch.tensor([1, 2, 3]), record=None), "mine must return a record of numbers by name, got None"),
        (Selection(torch.tensor([1, 2, 3]), record={"a": torch.ones(1)}), "mine must return a record of numbers"),
    ],
)
def test_a_strategy_that_breaks_the_protocol(answer, message):
    def mine(view, n, *, generator):
        return answer

    with pytest.raises(LalibError, match=message):
        select(mine, blobs(20), 3, labeled=torch.tensor([4]))
