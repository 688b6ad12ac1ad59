"""Both norms against a new fit for every candidate and every label; duplicates; every error message."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist

from lalib.data.checks import LalibError
from lalib.data.seeds import generator
from lalib.strategies import STRATEGIES, norms, select
from lalib.strategies.view import PoolView

pytestmark = pytest.mark.filterwarnings("error")

SIZE = 40
LABELED = torch.tensor([0, 3, 7, 12, 20, 21, 39])
FREE = [i for i in range(SIZE) if i not in LABELED]
NAMES = ("norm-added", "norm-change")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed, "test"))


def run(name, n, codes, labels, labeled=LABELED, seed=0, options=None, **sources):
    view = PoolView(codes, labeled, labels, sources)
    return STRATEGIES[name](view, n, generator=generator(seed, "select"), **(options or {}))


def labels_of(classes):
    return torch.arange(len(LABELED)) % classes


def median_distance(points):
    """The lower one of two in the middle, as torch has it."""
    between = np.sort(pdist(points.double()))
    return between[(len(between) - 1) // 2]


def slow_fit(points, index, labels, bandwidth, classes):
    """|f|^2, and f at all points, of the function of least norm through `index`."""
    kernel = np.exp(-cdist(points, points) / bandwidth)
    targets = np.where(np.array(labels)[:, None] == np.array(classes), 1.0, -1.0)
    weight = np.linalg.solve(kernel[np.ix_(index, index)] + 1e-6 * np.eye(len(index)), targets)
    return np.sum(targets * weight), kernel[:, index] @ weight


def slow_scores(points, index, labels, bandwidth, classes, candidates, evaluations):
    """For every candidate a new fit with every label: the least norm, the change of f, and the label."""
    _, before = slow_fit(points, index, labels, bandwidth, classes)
    found = {}
    for u in candidates:
        fits = {c: slow_fit(points, [*index, u], [*labels, c], bandwidth, classes) for c in classes}
        label = min(fits, key=lambda c: fits[c][0])
        norm, after = fits[label]
        change = np.sqrt(np.mean(np.sum((after - before)[evaluations] ** 2, axis=1)))
        found[u] = {"norm-added": np.sqrt(norm), "norm-change": change, "label": label}
    return found


def slow_greedy(name, n, points, labels, bandwidth, candidates=FREE, evaluations=FREE):
    index, labels, scores, classes = LABELED.tolist(), labels.tolist(), [], sorted(set(labels.tolist()))
    for _ in range(n):
        free = [u for u in candidates if u not in index]
        found = slow_scores(points.double(), index, labels, bandwidth, classes, free, evaluations)
        index.append(max(found, key=lambda u: found[u][name]))
        labels.append(found[index[-1]]["label"])
        scores.append(found[index[-1]][name])
    return index[len(LABELED) :], scores


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("dimensions", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_equals_a_new_fit_for_every_candidate(name, dimensions, classes):
    codes, labels = normal(SIZE, dimensions), labels_of(classes)
    seen = run(name, 10, codes, labels)
    picked, scores = slow_greedy(name, 10, codes, labels, median_distance(codes))
    assert seen.index.tolist() == picked
    np.testing.assert_allclose(seen.score, scores, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_every_candidate_to_eight_digits_after_every_pick(name):
    codes, labels, classes = normal(SIZE, 3).double(), labels_of(3), [0, 1, 2]
    at = codes[FREE[::2]] if name == "norm-change" else codes[:0]
    fit = norms._Interpolant(codes[LABELED], norms._one_vs_rest(labels, 3), codes[FREE], 6, 1.5, at)
    index, labels, norm = LABELED.tolist(), labels.tolist(), float(fit.norm)
    for row in (5, 0, 17, 30, 11, 12):
        slow = slow_scores(codes, index, labels, 1.5, classes, FREE, FREE[::2])
        free = [i for i, u in enumerate(FREE) if u not in index]
        seen = fit.change() if name == "norm-change" else (norm + fit.added()).sqrt()
        expected = [slow[FREE[i]][name] for i in free]
        np.testing.assert_allclose(seen[free], expected, rtol=1e-8)
        norm += float(fit.added()[row])
        index.append(FREE[row])
        labels.append(slow[FREE[row]]["label"])
        fit.add(torch.tensor([row]))
        value = slow_fit(codes, index, labels, 1.5, classes)[1]
        np.testing.assert_allclose(fit.value, value[FREE], atol=2e-5)  # where f is picked, the nugget lets it miss
        np.testing.assert_allclose(fit.value[free], value[np.array(FREE)[free]], atol=1e-8)


def test_two_classes_are_the_binary_rule_of_the_paper():
    """One function with targets -1 and 1, the label sign f(u), the norm |f^u|."""
    codes, labels = normal(SIZE, 2).double(), labels_of(2)
    bandwidth, index, targets, picked = median_distance(codes), LABELED.tolist(), [2 * y - 1 for y in labels_of(2)], []
    for _ in range(12):
        kernel, free = np.exp(-cdist(codes, codes) / bandwidth), [u for u in FREE if u not in index]
        norm = {}
        for u in free:
            inner = np.linalg.inv(kernel[np.ix_(index, index)] + 1e-6 * np.eye(len(index)))
            sign = np.sign(kernel[u, index] @ inner @ targets)
            y, larger = np.array([*targets, sign]), [*index, u]
            norm[u] = y @ np.linalg.solve(kernel[np.ix_(larger, larger)] + 1e-6 * np.eye(len(larger)), y), sign
        picked.append(max(norm, key=norm.get))
        index.append(picked[-1])
        targets.append(norm[picked[-1]][1])
    assert run("norm-added", 12, codes, labels).index.tolist() == picked


@pytest.mark.parametrize("name", NAMES)
def test_candidates_and_evaluations_are_drawn(name):
    codes, labels, g = normal(SIZE, 3), labels_of(3), generator(5, "select")
    among = torch.randperm(len(FREE), generator=g)[:20].sort().values
    at = torch.randperm(len(FREE), generator=g)[:9].sort().values
    options = {"candidates": 20} | ({"evaluations": 9} if name == "norm-change" else {})
    picked, _ = slow_greedy(
        name, 8, codes, labels, median_distance(codes), [FREE[i] for i in among], [FREE[i] for i in at]
    )
    assert run(name, 8, codes, labels, seed=5, options=options).index.tolist() == picked


@pytest.mark.parametrize("name", NAMES)
def test_space_and_bandwidth(name):
    codes, features, labels = normal(SIZE, 3), normal(SIZE, 6, seed=1), labels_of(3)
    both = torch.cat([features, 2 * codes], dim=1)
    for space, points in {"codes": codes, "features": features, "both": both}.items():
        seen = run(name, 9, codes, labels, features=features, options={"space": space, "alpha": 2, "bandwidth": 0.8})
        assert seen.index.tolist() == slow_greedy(name, 9, points, labels, 0.8)[0]


@pytest.mark.parametrize("name", NAMES)
def test_copies_of_what_is_known_come_last(name):
    """Even where two labelled images at one place have different labels, and for picks, too."""
    codes, labels = normal(SIZE, 2), labels_of(3)
    codes[20], copies = codes[21], {1: 0, 2: 20, 4: 39}
    for copy, original in copies.items():
        codes[copy] = codes[original]
    codes[30:35] = codes[25:30]
    seen = run(name, len(FREE), codes, labels)
    assert torch.isfinite(seen.score).all()
    last = seen.index[-8:].tolist()
    assert set(copies) < set(last)
    assert sorted(25 + (i % 5) for i in last if i not in copies) == list(range(25, 30))


@pytest.mark.parametrize("name", NAMES)
def test_known_images_in_front_of_each_other_change_nothing(name):
    codes, labels = normal(1, 2).repeat(SIZE, 1), labels_of(3)
    seen = run(name, len(FREE), codes, labels)
    assert seen.index.tolist() == FREE
    assert len(seen.score.unique()) == 1  # the norm stays, and nothing changes


def test_near_images_are_told_apart():
    codes, labels = normal(SIZE, 2), labels_of(3)
    codes[FREE] = codes[LABELED].repeat(5, 1)[: len(FREE)] + 1e-3 * normal(len(FREE), 2, seed=3)
    bandwidth = median_distance(codes)
    for name in NAMES:
        seen = run(name, 10, codes, labels)
        picked, scores = slow_greedy(name, 10, codes, labels, bandwidth)
        assert seen.index.tolist() == picked
        np.testing.assert_allclose(seen.score, scores, rtol=1e-6)


def test_the_bandwidth_is_the_median_distance_between_places():
    codes = normal(300, 4).double()
    assert norms._median_distance(codes) == pytest.approx(median_distance(codes))
    assert norms._median_distance(torch.cat([codes, codes[:1].repeat(900, 1)])) == pytest.approx(median_distance(codes))
    assert norms._median_distance(torch.zeros(5, 2)) == 1
    many = normal(5000, 4).double()
    assert norms._median_distance(many) == pytest.approx(median_distance(many[:2000]), rel=0.03)
    assert norms._median_distance(8 * many) == 8 * norms._median_distance(many)


def test_blocks_of_the_residual_kernel_change_nothing(monkeypatch):
    codes, labels = normal(SIZE, 3), labels_of(3)
    expected = run("norm-change", 20, codes, labels)
    monkeypatch.setattr(norms, "ROWS", 7)
    assert torch.equal(run("norm-change", 20, codes, labels).index, expected.index)


# Errors


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labeled": None, "labels": None}, LalibError, "needs labelled images, .* pass labeled=index, labels=y"),
        ({"labels": None}, LalibError, "needs labelled images, which were not given: pass labeled=index, labels=y"),
        (
            {"labels": torch.ones(len(LABELED), 3)},
            LalibError,
            "needs one label per image; these images may have several",
        ),
        ({"labels": torch.zeros(len(LABELED))}, TypeError, "labels must be whole numbers, got torch.float32"),
        ({"space": "features"}, LalibError, r"needs features \(N, F\)"),
        ({"space": "pixels"}, ValueError, "space must be one of 'features', 'latents', 'codes', 'both', got 'pixels'"),
        ({"bandwidth": 0}, ValueError, "bandwidth must be above 0, got 0"),
        ({"bandwidth": "wide"}, TypeError, "bandwidth must be a number, got 'wide'"),
        ({"candidates": 4}, ValueError, "candidates must be at least n=5, got 4"),
        ({"candidates": 5.0}, TypeError, "candidates must be a whole number, got 5.0"),
    ],
)
def test_refuses(name, arguments, error, message):
    given = {"codes": normal(SIZE, 3), "labeled": LABELED, "labels": labels_of(3), "n": 5}
    with pytest.raises(error, match=message):
        select(name, **given | arguments)


def test_norm_change_refuses_to_look_nowhere():
    with pytest.raises(ValueError, match="evaluations must be at least 1, got 0"):
        run("norm-change", 5, normal(SIZE, 3), labels_of(3), options={"evaluations": 0})
