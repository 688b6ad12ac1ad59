"""Uncertainty, information and learned features against slow float64 references; every error message."""

import gc
import itertools
import math
import pickle
import weakref

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, rankdata

from lalib.data.checks import LalibError, keyword_defaults
from lalib.data.seeds import generator
from lalib.strategies import STRATEGIES, select, uncertainty
from lalib.strategies.view import PoolView

pytestmark = pytest.mark.filterwarnings("error")

SIZE, CLASSES = 60, 4
LABELED = torch.arange(0, SIZE, 7)
FREE = [i for i in range(SIZE) if i % 7]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed, "test"))


def probs(seed=0):
    return (2 * normal(SIZE, CLASSES, seed=seed)).softmax(dim=1)


def passes(count=6, classes=CLASSES, size=SIZE, seed=0):
    return (2 * normal(count, size, classes, seed=seed) + 2 * normal(1, size, classes, seed=99)).softmax(dim=2)


def run(name, n, *, labeled=LABELED, labels=None, seed=0, codes=None, options=None, **sources):
    codes = normal(SIZE, 3, seed=8) if codes is None else codes
    view = PoolView(codes, labeled, labels, sources)
    return STRATEGIES[name](view, n, generator=generator(seed, "select"), **(options or {}))


def slow_entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


MEASURES = {
    "least-confidence": lambda p: 1 - max(p),
    "margin": lambda p: 1 - (sorted(p)[-1] - sorted(p)[-2]),
    "entropy": slow_entropy,
}


def slow_measure(name, p):
    return {i: MEASURES[name](p[i].double().tolist()) for i in FREE}


def slow_largest(value, n):
    return sorted(value, key=lambda i: (-value[i], i))[:n]


# Measures


@pytest.mark.parametrize("name", MEASURES)
def test_measures_by_hand(name):
    value = slow_measure(name, probs())
    seen = run(name, 10, probs=probs())
    assert seen.index.tolist() == slow_largest(value, 10)
    np.testing.assert_allclose(seen.score, [value[i] for i in seen.index.tolist()], rtol=1e-6)


def test_measures_of_three_known_images():
    p = torch.tensor([[0.5, 0.5, 0], [0.6, 0.2, 0.2], [0.45, 0.3, 0.25]])
    first = {name: run(name, 3, codes=torch.zeros(3, 1), labeled=None, probs=p) for name in MEASURES}
    assert {name: seen.index.tolist() for name, seen in first.items()} == {
        "least-confidence": [2, 0, 1],
        "margin": [0, 2, 1],
        "entropy": [2, 1, 0],
    }
    np.testing.assert_allclose(first["margin"].score, [1, 0.85, 0.6], rtol=1e-6)
    np.testing.assert_allclose(first["entropy"].score[2], math.log(2), rtol=1e-6)


@pytest.mark.parametrize("name", MEASURES)
def test_several_labels_take_the_mean_of_the_binary_measures(name):
    p = normal(SIZE, CLASSES).sigmoid()
    value = {i: np.mean([MEASURES[name]([1 - float(q), float(q)]) for q in p[i].double()]) for i in FREE}
    seen = run(name, 12, probs=p, labels=torch.zeros(len(LABELED), CLASSES))
    assert seen.index.tolist() == slow_largest(value, 12)


def test_equal_measures_go_by_index():
    p = torch.full((SIZE, 2), 0.5)
    for name in MEASURES:
        assert run(name, 5, probs=p).index.tolist() == FREE[:5]


# Representativeness and diversity


def slow_ranks(value):
    ranked = (rankdata([value[i] for i in FREE]) - 1) / (len(FREE) - 1)
    return dict(zip(FREE, ranked, strict=True))


def slow_combined(name, p, codes, n, w2, w3, by, k=20):
    codes, picked, taken = codes.double().numpy(), [], LABELED.tolist()
    distance = np.array([[np.linalg.norm(a - b) for b in codes] for a in codes])
    if by == "knn":
        near = {i: -np.mean(sorted(np.delete(distance[i], i))[:k]) for i in FREE}
    else:
        near = {i: multivariate_normal(np.zeros(codes.shape[1])).logpdf(codes[i]) for i in FREE}
    first, second = slow_ranks(slow_measure(name, p)), slow_ranks(near)
    while len(picked) < n:
        third = slow_ranks({i: min([distance[i, j] for j in taken + picked], default=0) for i in FREE})
        value = {i: first[i] + w2 * second[i] + w3 * third[i] for i in FREE if i not in picked}
        picked += slow_largest(value, 1)
    return picked


@pytest.mark.parametrize("by", ["knn", "prior"])
@pytest.mark.parametrize(("w2", "w3"), [(0, 0), (1, 0), (0, 1), (0.7, 0.4), (0, 100)])
@pytest.mark.parametrize("name", MEASURES)
def test_combination_equals_the_slow_reference(name, w2, w3, by):
    codes = normal(SIZE, 3, seed=8)
    options = {"representativeness": w2, "diversity": w3, "representative_by": by}
    seen = run(name, 30, probs=probs(), codes=codes, options=options)
    assert seen.index.tolist() == slow_combined(name, probs(), codes, 30, w2, w3, by)


def test_neighbours_of_knn():
    codes = normal(SIZE, 3, seed=8)
    options = {"representativeness": 1, "neighbours": 3}
    seen = run("margin", 9, probs=probs(), codes=codes, options=options)
    assert seen.index.tolist() == slow_combined("margin", probs(), codes, 9, 1, 0, "knn", k=3)


def test_neighbours_are_searched_once_while_the_codes_stay_the_same(monkeypatch):
    searched, knn = [], uncertainty.knn
    monkeypatch.setattr(uncertainty, "knn", lambda codes, k, exact: searched.append(k) or knn(codes, k))
    codes, options = normal(SIZE, 3, seed=7), {"representativeness": 1, "neighbours": 5}

    def ask(codes, **changes):
        return run("margin", 9, codes=codes, probs=probs(), options=options | changes).index.tolist()

    first = ask(codes)
    assert ask(codes.clone()) == first
    assert searched == [5]
    assert ask(codes, neighbours=4) != first
    assert ask(codes) == first
    codes[:30] *= -5  # the same tensor with other codes in it
    assert ask(codes) == slow_combined("margin", probs(), codes, 9, 1, 0, "knn", k=5) != first
    ask(codes.double())
    assert searched == [5, 4, 5, 5, 5]


def test_nothing_keeps_the_codes_once_the_strategy_is_done():
    codes = normal(SIZE, 3, seed=7).double()  # double: the search takes them as they are
    run("margin", 9, codes=codes, probs=probs(), options={"representativeness": 1, "diversity": 1})
    storage = weakref.ref(codes.untyped_storage())
    gone = weakref.ref(codes)
    del codes
    gc.collect()
    assert gone() is None
    assert storage() is None


@pytest.mark.parametrize("name", ["least_confidence", "margin", "entropy"])
def test_the_three_measures_are_functions_of_their_own(name):
    function = getattr(uncertainty, name)
    assert function.__name__ == function.__qualname__ == name
    assert pickle.loads(pickle.dumps(function)) is function
    assert "largest" in function.__doc__
    assert set(keyword_defaults(function)) == {"representativeness", "diversity", "representative_by", "neighbours"}


def test_diversity_alone_decides_between_equals_and_starts_without_labels():
    codes = torch.tensor([[0.0], [0.1], [10.0], [5.0]])
    seen = run("entropy", 4, labeled=None, codes=codes, probs=torch.full((4, 2), 0.5), options={"diversity": 1})
    assert seen.index.tolist() == [0, 2, 3, 1]


def test_combination_does_not_depend_on_the_scale_of_the_codes():
    codes = normal(SIZE, 3, seed=8)
    options = {"representativeness": 0.7, "diversity": 0.4}
    seen = [run("margin", 20, probs=probs(), codes=c, options=options).index.tolist() for c in (codes, 1000 * codes)]
    assert seen[0] == seen[1]


# Information


def slow_bald(mc, i):
    rows = mc[:, i].double().numpy()
    return slow_entropy(rows.mean(axis=0)) - np.mean([slow_entropy(row) for row in rows])


def test_bald_by_hand():
    mc = passes()
    value = {i: slow_bald(mc, i) for i in FREE}
    seen = run("bald", 10, mc_probs=mc)
    assert seen.index.tolist() == slow_largest(value, 10)
    np.testing.assert_allclose(seen.score, [value[i] for i in seen.index.tolist()], rtol=1e-6)


def test_bald_of_passes_that_agree_is_zero_and_of_two_that_are_sure_log_2():
    mc = torch.tensor([[[0.7, 0.3], [1.0, 0.0]], [[0.7, 0.3], [0.0, 1.0]]])
    seen = run("bald", 2, codes=torch.zeros(2, 1), labeled=None, mc_probs=mc)
    assert seen.index.tolist() == [1, 0]
    np.testing.assert_allclose(seen.score, [math.log(2), 0], atol=1e-7)


def test_bald_of_several_labels_is_a_sum():
    mc = normal(6, SIZE, CLASSES).sigmoid()
    both = torch.stack([1 - mc, mc], dim=-1)
    value = {i: sum(slow_bald(both[:, :, label], i) for label in range(CLASSES)) for i in FREE}
    seen = run("bald", 12, mc_probs=mc, labels=torch.zeros(len(LABELED), CLASSES))
    assert seen.index.tolist() == slow_largest(value, 12)


def joint_information(mc, images):
    """I(y_1 .. y_k; pass) over all configurations, from the joint probabilities themselves."""
    mc = mc.double().numpy()
    total, classes = 0.0, mc.shape[2]
    for answer in itertools.product(range(classes), repeat=len(images)):
        each = np.prod([mc[:, i, y] for i, y in zip(images, answer, strict=True)], axis=0)
        total -= each.mean() * math.log(each.mean())
    return total - sum(np.mean([slow_entropy(row) for row in mc[:, i]]) for i in images)


def slow_batchbald(mc, n):
    picked = []
    while len(picked) < n:
        value = {i: joint_information(mc, [*picked, i]) for i in FREE if i not in picked}
        picked += slow_largest(value, 1)
    return picked


@pytest.mark.parametrize(("classes", "n"), [(2, 6), (4, 3)])
def test_batchbald_equals_the_joint_information(classes, n):
    mc = passes(classes=classes)
    seen = run("batchbald", n, mc_probs=mc)
    picked = seen.index.tolist()
    assert picked == slow_batchbald(mc, n)
    for k in range(n):
        gain = joint_information(mc, picked[: k + 1]) - (joint_information(mc, picked[:k]) if k else 0)
        np.testing.assert_allclose(seen.score[k], gain, rtol=1e-5, atol=1e-7)


def test_batchbald_by_draws_comes_near_the_enumeration():
    mc = passes(classes=2)
    exact, drawn = (run("batchbald", 5, mc_probs=mc, options={"configurations": count}).score for count in (10_000, 15))
    many = run("batchbald", 5, mc_probs=mc, options={"configurations": 15}, seed=1).score
    np.testing.assert_allclose(exact[:4], drawn[:4])  # 2^3 configurations are still enumerated
    assert not torch.equal(drawn, many)
    np.testing.assert_allclose(drawn[4], exact[4], atol=0.1)


def test_expected_entropy_by_many_draws():
    mc = passes(classes=3).double()
    g = generator(0, "draws")
    every, some = mc.new_zeros(6, 1), mc.new_zeros(6, 40_000)
    which = torch.randint(6, (40_000,), generator=g)
    for row in range(4):
        every = uncertainty._extend(every, mc[:, row], None, g)
        some = uncertainty._extend(some, mc[:, row], which, g)
    exact = uncertainty._expected_entropy(mc, every, enumerated=True)
    np.testing.assert_allclose(uncertainty._expected_entropy(mc, some, enumerated=False), exact, atol=0.01)


def test_batchbald_does_not_pick_the_same_question_twice():
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # four passes
    other = torch.tensor([[0.8, 0.2], [0.2, 0.8], [0.8, 0.2], [0.2, 0.8]])
    mc = torch.stack([one, one, other], dim=1)
    asked = {"codes": torch.zeros(3, 1), "labeled": None, "mc_probs": mc}
    assert run("bald", 2, **asked).index.tolist() == [0, 1]
    seen = run("batchbald", 3, **asked)
    assert seen.index.tolist() == [0, 2, 1]
    np.testing.assert_allclose(seen.score[[0, 2]], [math.log(2), 0], atol=1e-7)


def test_candidates_of_batchbald_are_the_best_by_bald():
    mc = passes()
    best = run("bald", 7, mc_probs=mc).index.tolist()
    assert set(run("batchbald", 3, mc_probs=mc, options={"candidates": 7}).index.tolist()) <= set(best)
    assert sorted(run("batchbald", 7, mc_probs=mc, options={"candidates": 7}).index.tolist()) == sorted(best)


def test_batchbald_with_certain_answers():
    mc = torch.nn.functional.one_hot(torch.arange(SIZE * 6).view(6, SIZE) % 3, 3).float()
    assert len(run("batchbald", 40, mc_probs=mc).index.unique()) == 40


def slow_epig(p_T_N_C, aims):
    """Mean over the aims of sum_yy* p(y, y*) log(p(y, y*) / (p(y) p(y*)))."""
    p, value = p_T_N_C.double().numpy(), {}
    for i in FREE:
        shared = []
        for j in aims:
            joint = np.mean([np.outer(a[i], a[j]) for a in p], axis=0)
            shared.append((joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)))).sum())
        value[i] = np.mean(shared)
    return value


def test_epig_equals_the_slow_reference():
    value = slow_epig(passes(), FREE)
    seen = run("epig", 15, mc_probs=passes())
    assert seen.index.tolist() == slow_largest(value, 15)
    np.testing.assert_allclose(seen.score, [value[i] for i in seen.index.tolist()], rtol=1e-5)


def test_targets_of_epig_are_drawn_among_the_unlabelled():
    answers = {
        tuple(run("epig", 3, mc_probs=passes(), seed=s, options={"targets": 1}).index.tolist()) for s in range(40)
    }
    assert answers <= {tuple(slow_largest(slow_epig(passes(), [j]), 3)) for j in FREE}
    assert len(answers) > 10


def test_epig_of_several_labels_is_the_sum_over_them():
    p = normal(5, SIZE, 3).sigmoid()
    value = dict.fromkeys(FREE, 0.0)
    for label in range(3):
        alone = slow_epig(torch.stack([1 - p[..., label], p[..., label]], dim=-1), FREE)
        value = {i: value[i] + alone[i] for i in FREE}
    seen = run("epig", 9, mc_probs=p, labels=torch.zeros(len(LABELED), 3))
    assert seen.index.tolist() == slow_largest(value, 9)


# Covering first, and what is doubted without most of the codes


def test_tcm_covers_first_and_asks_then():
    given = {"codes": normal(SIZE, 3, seed=8), "probs": probs()}  # 9 labels, 4 classes
    for per_class, name in {3: "typiclust", 2: "margin", 0: "margin"}.items():
        seen = run("tcm", 12, options={"per_class": per_class}, **given)
        assert torch.equal(seen.index, run(name, 12, **given).index)
    assert torch.equal(run("tcm", 12, **given).index, run("typiclust", 12, **given).index)


@pytest.mark.parametrize("n", [4, 40])
def test_dropquery_picks_medoids_of_the_images_whose_class_changes(n):
    codes, p, dropped = normal(SIZE, 3, seed=8), probs(), passes(3)
    changes = {i: sum(int(q[i].argmax() != p[i].argmax()) for q in dropped) for i in FREE}
    doubted = [i for i in FREE if changes[i] >= 2]
    assert 4 < len(doubted) < 40
    among = doubted if n < len(doubted) else sorted(slow_largest(changes, n))
    seen = run("dropquery", n, codes=codes, probs=p, dropped_probs=dropped)
    expected = run("k-medoids", n, codes=codes[among], labeled=None)
    assert seen.index.tolist() == [among[i] for i in expected.index.tolist()]


# Learned features


def slow_k_center(points, taken, n):
    picked, points = [], points.double().numpy()
    while len(picked) < n:
        value = {i: min(np.sum((points[i] - points[j]) ** 2) for j in taken + picked) for i in FREE if i not in picked}
        picked += slow_largest(value, 1)
    return picked


def slow_medal(points, taken, n, among):
    picked, points = [], points.double().numpy()
    while len(picked) < n:
        value = {
            i: np.mean([np.sum((points[i] - points[j]) ** 2) for j in taken + picked]) for i in among if i not in picked
        }
        picked += slow_largest(value, 1)
    return picked


def spaces(alpha=1.0):
    features, codes = normal(SIZE, 5, seed=7), normal(SIZE, 3, seed=8)
    return {"features": features, "codes": codes, "both": torch.cat([features, alpha * codes], dim=1)}


@pytest.mark.parametrize("space", ["features", "codes", "both"])
@pytest.mark.parametrize("offset", [0.0, 1000.0])  # far from the origin, where a product of norms would cancel
def test_core_set_equals_the_slow_reference(space, offset):
    points = {key: value + offset for key, value in spaces(2.5).items()}
    asked = {"codes": normal(SIZE, 3, seed=8) + offset, "features": normal(SIZE, 5, seed=7) + offset}
    points["both"] = torch.cat([asked["features"].double(), 2.5 * asked["codes"].double()], dim=1)
    seen = run("core-set", 40, options={"space": space, "alpha": 2.5}, **asked)
    assert seen.index.tolist() == slow_k_center(points[space], LABELED.tolist(), 40)
    assert (seen.score.diff() <= 0).all()


@pytest.mark.parametrize("space", ["features", "codes", "both"])
def test_medal_equals_the_slow_reference(space):
    points = spaces(0.5)
    options = {"space": space, "alpha": 0.5, "per_pick": None}
    seen = run("medal", 40, options=options, codes=points["codes"], features=points["features"])
    assert seen.index.tolist() == slow_medal(points[space], LABELED.tolist(), 40, FREE)


def test_score_of_medal_is_the_mean_squared_distance():
    points = spaces()
    seen = run("medal", 3, features=points["features"], options={"per_pick": None})
    h, taken = points["features"].double(), LABELED.tolist()
    for i, score in zip(seen.index.tolist(), seen.score, strict=True):
        np.testing.assert_allclose(score, (h[taken] - h[i]).square().sum(dim=1).mean(), rtol=1e-6)
        taken.append(i)


def test_candidates_of_medal_are_the_most_uncertain():
    h, p = normal(SIZE, 5, seed=7), probs()
    for per_pick, options in {6: {}, 3: {"per_pick": 3}, 1: {"per_pick": 1}}.items():
        among = slow_largest(slow_measure("entropy", p), 7 * per_pick)
        seen = run("medal", 7, features=h, probs=p, options=options)
        assert seen.index.tolist() == slow_medal(h, LABELED.tolist(), 7, among)
    everyone = run("medal", 12, features=h, probs=p, options={"per_pick": 1000})
    assert torch.equal(everyone.index, run("medal", 12, features=h, options={"per_pick": None}).index)


@pytest.mark.parametrize("name", ["core-set", "medal"])
def test_with_nothing_labelled_the_first_is_anyone_and_the_rest_follows(name):
    given = {"features": normal(SIZE, 5, seed=7), "options": {"per_pick": None} if name == "medal" else {}}
    seen = [run(name, 6, labeled=None, seed=seed, **given).index for seed in range(100)]
    assert len({int(index[0]) for index in seen}) > 30
    for index in seen[:10]:
        assert torch.equal(run(name, 5, labeled=index[:1], **given).index, index[1:])


def slow_badge(a, h, n, g):
    """k-means++ on the outer products themselves."""
    full = (a.double()[:, :, None] * h.double()[:, None, :]).flatten(1)[FREE]
    picked = [int(full.square().sum(dim=1).argmax())]
    for chance in torch.rand(n, generator=g, dtype=torch.float64)[1:]:
        near = (full[:, None] - full[picked][None]).square().sum(dim=2).amin(dim=1).numpy().cumsum()
        picked.append(int(np.searchsorted(near, float(chance) * near[-1], side="right")))
    return [FREE[i] for i in picked]


@pytest.mark.parametrize("seed", range(5))
def test_badge_equals_the_outer_products(seed):
    p, h = probs(seed), normal(SIZE, 5, seed=7)
    guess = torch.zeros_like(p).scatter_(1, p.argmax(dim=1, keepdim=True), 1)
    expected = slow_badge(p.double() - guess, h, 25, generator(seed, "select"))
    assert run("badge", 25, seed=seed, probs=p, features=h).index.tolist() == expected


def test_badge_with_several_labels():
    p, h = normal(SIZE, CLASSES).sigmoid(), normal(SIZE, 5, seed=7)
    expected = slow_badge(p.double() - (p > 0.5).double(), h, 25, generator(0, "select"))
    seen = run("badge", 25, probs=p, features=h, labels=torch.zeros(len(LABELED), CLASSES))
    assert seen.index.tolist() == expected


@pytest.mark.parametrize("scale", [1e-170, 1e-310, 0])
def test_badge_takes_gradients_of_length_0_by_chance(scale):
    index = run("badge", 20, probs=probs(), features=scale * normal(SIZE, 5).double()).index
    assert len(index.unique()) == 20


@pytest.mark.parametrize("name", ["core-set", "medal", "badge"])
@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool])
def test_features_of_whole_numbers_are_features(name, kind):
    features = (3 * normal(SIZE, 5).abs()).to(kind)
    seen, expected = (run(name, 9, probs=probs(), features=h).index for h in (features, features.double()))
    assert torch.equal(seen, expected)


def test_features_too_large_for_their_squares_are_refused():
    features = 1e160 * normal(SIZE, 5).double()
    with pytest.raises(ValueError, match=r"features must be finite, got NaN, infinity or numbers beyond 1e\+150"):
        run("core-set", 3, features=features)
    with pytest.raises(ValueError, match=r"alpha=1e\+160 makes codes beyond 1e\+150"):
        run("core-set", 3, features=normal(SIZE, 5), options={"space": "both", "alpha": 1e160})


def test_badge_leaves_duplicates_for_last():
    p, h = probs()[:20].repeat(3, 1), normal(20, 5, seed=7).repeat(3, 1)
    index = run("badge", 60, labeled=None, probs=p, features=h).index
    assert sorted((index[:20] % 20).tolist()) == list(range(20))
    assert len(index.unique()) == 60


@pytest.mark.parametrize("dimensions", [2, 20])
def test_core_set_gives_exact_ties_to_the_lowest_index(dimensions):
    """On a grid squared distances are whole numbers, and many are equal."""
    codes = (4 * normal(600, dimensions)).round()
    labeled = torch.randperm(600, generator=generator(9))[:50]
    square = ((codes[:, None] - codes[None]) ** 2).sum(dim=2).to(torch.int64)
    near, expected = square[labeled].amin(dim=0), []
    for _ in range(40):
        free = [i for i in range(600) if i not in labeled.tolist() + expected]
        expected.append(max(free, key=lambda i: (int(near[i]), -i)))
        near = torch.minimum(near, square[expected[-1]])
    seen = run("core-set", 40, labeled=labeled, codes=codes, options={"space": "codes"})
    assert seen.index.tolist() == expected


def test_learning_loss_takes_the_largest():
    losses = normal(SIZE)
    seen = run("learning-loss", 9, predicted_losses=losses)
    assert seen.index.tolist() == slow_largest({i: float(losses[i]) for i in FREE}, 9)
    beside = run("learning-loss", 9, predicted_losses_with_codes=-losses, options={"space": "both"})
    assert beside.index.tolist() == slow_largest({i: -float(losses[i]) for i in FREE}, 9)


def test_learning_loss_takes_the_largest_of_those_drawn():
    size, losses = 12_000, normal(12_000)
    given = {"codes": torch.zeros(size, 1), "labeled": None, "predicted_losses": losses}
    few, all_of_them = (run("learning-loss", 2000, options=o, **given) for o in ({}, {"candidates": None}))
    assert all_of_them.index.tolist() == losses.argsort(descending=True)[:2000].tolist()
    drawn = torch.randperm(size, generator=generator(0, "select"))[:10_000].tolist()
    assert few.index.tolist() == sorted(drawn, key=lambda i: -float(losses[i]))[:2000]


# Errors


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"representativeness": -1}, ValueError, "representativeness must be at least 0, got -1"),
        ({"diversity": "much"}, TypeError, "diversity must be a number, got 'much'"),
        ({"representative_by": "kde"}, ValueError, "representative_by must be one of 'knn', 'prior', got 'kde'"),
        ({"neighbours": 0}, ValueError, "neighbours must be at least 1, got 0"),
        ({"representativeness": 1, "neighbours": 60}, ValueError, "neighbours must be below the 60 images, got 60"),
        ({"probs": None}, LalibError, r"needs probs \(N, C\)"),
        ({"probs": torch.full((SIZE, 2), 2.0)}, ValueError, r"probs must lie in 0 .. 1, got 2 to 2"),
        ({"probs": torch.full((SIZE, 2), 0.4)}, ValueError, r"rows of probs must sum to 1, .* off by 0.2; .*\(M, C\)"),
        ({"probs": torch.ones(SIZE, 1)}, ValueError, "probs must have a column for each of at least 2 classes, got 1"),
        ({"strategy": "bald", "mc_probs": passes() / 2}, ValueError, "rows of mc_probs must sum to 1"),
        ({"strategy": "batchbald", "candidates": 4}, ValueError, "candidates must be at least n=5, got 4"),
        ({"strategy": "batchbald", "candidates": 5.0}, TypeError, "candidates must be a whole number, got 5.0"),
        ({"strategy": "batchbald", "configurations": 0}, ValueError, "configurations must be at least 1, got 0"),
        ({"strategy": "medal", "per_pick": 0}, ValueError, "per_pick must be at least 1, got 0"),
        ({"strategy": "learning-loss", "candidates": 4}, ValueError, "candidates must be at least n=5, got 4"),
        (
            {"strategy": "core-set", "space": "pixels"},
            ValueError,
            "space must be one of 'features', 'latents', 'codes', 'both'",
        ),
        ({"strategy": "core-set", "alpha": -1}, ValueError, "alpha must be at least 0, got -1"),
    ],
)
def test_refuses(arguments, error, message):
    given = {"probs": probs(), "mc_probs": passes(), "features": normal(SIZE, 5), "predicted_losses": normal(SIZE)}
    with pytest.raises(error, match=message):
        select(**{"strategy": "margin", "codes": normal(SIZE, 3), "n": 5} | given | arguments)


def test_batchbald_refuses_several_labels_and_names_bald():
    with pytest.raises(LalibError, match=r"batchbald needs one label per image.* use 'bald'"):
        run("batchbald", 2, mc_probs=normal(6, SIZE, 3).sigmoid(), labels=torch.zeros(len(LABELED), 3))


@pytest.mark.parametrize("name", ["bald", "batchbald"])
def test_one_pass_cannot_disagree(name):
    with pytest.raises(ValueError, match="mc_probs must hold at least 2 passes, which can disagree; got 1"):
        run(name, 3, mc_probs=torch.full((1, SIZE, 2), 0.5))
