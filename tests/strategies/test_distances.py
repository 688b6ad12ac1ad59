"""The two algorithms on latent distances against slow references; anchors and shares; every error message."""

import numpy as np
import pytest
import torch

from lalib.data.checks import LalibError
from lalib.data.seeds import generator
from lalib.strategies import STRATEGIES, distances, select
from lalib.strategies.view import PoolView

pytestmark = pytest.mark.filterwarnings("error")

SIZE, CLASSES = 90, 4
LABELED = torch.arange(0, SIZE, 5)
NAMES = ("m2-distance", "m2-confidence-distance")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed, "test"))


def pool(seed=0):
    """Features, codes, probabilities that are right more often than not, and labels of the labelled."""
    label = torch.randint(CLASSES, (SIZE,), generator=generator(seed, "labels"))
    logits = normal(SIZE, CLASSES, seed=seed) + 1.5 * torch.nn.functional.one_hot(label, CLASSES)
    sources = {"features": normal(SIZE, 5, seed=7), "latents": normal(SIZE, 4, seed=8), "probs": logits.softmax(dim=1)}
    return {"codes": normal(SIZE, 3, seed=8), "labels": label[LABELED], **sources}


def run(name, n, *, codes, labels, labeled=LABELED, options=None, **sources):
    view = PoolView(codes, labeled, labels, sources)
    return STRATEGIES[name](view, n, generator=generator(0), **(options or {}))


def spaces(given, alpha):
    both = torch.cat([given["features"].double(), alpha * given["codes"].double()], dim=1)
    return {
        "features": given["features"].double(),
        "latents": given["latents"].double(),
        "codes": given["codes"].double(),
        "both": both,
    }


def slow_anchors(given):
    """For every class the labelled images that are predicted to be what they are, and who stands in for them."""
    guess = given["probs"].argmax(dim=1).tolist()
    truth = dict(zip(LABELED.tolist(), given["labels"].tolist(), strict=True))
    own = {c: [i for i, y in truth.items() if y == c == guess[i]] for c in range(given["probs"].shape[1])}
    spare = [i for anchors in own.values() for i in anchors] or list(truth)
    return guess, own, {c: anchors or spare for c, anchors in own.items()}


def slow_shares(n, guess, own):
    """One image after the other to the class that was given fewest, then has fewest anchors, of those with room."""
    free = [guess[i] for i in range(SIZE) if i not in LABELED]
    share = dict.fromkeys(own, 0)
    for _ in range(n):
        room = [c for c in own if share[c] < free.count(c)]
        share[min(room, key=lambda c: (share[c], len(own[c]), c))] += 1
    return share


def slow_m2_distance(given, points, n):
    guess, own, anchors = slow_anchors(given)
    picked = []
    for c, share in slow_shares(n, guess, own).items():
        known = list(anchors[c])
        for _ in range(share):
            free = [i for i in range(SIZE) if guess[i] == c and i not in LABELED and i not in picked]
            sums = {i: sum(float((points[i] - points[j]).norm()) for j in known) for i in free}
            picked.append(max(sums, key=sums.get))
            known.append(picked[-1])
    return picked


def slow_confidence_distance(given, points, n):
    guess, _, anchors = slow_anchors(given)
    free = [i for i in range(SIZE) if i not in LABELED]
    mean = {i: np.mean([float((points[i] - points[j]).norm()) for j in anchors[guess[i]]]) for i in free}
    low, high = min(mean.values()), max(mean.values())
    score = {i: (1 - float(given["probs"][i].double().max())) * (mean[i] - low) / (high - low) for i in free}
    picked = sorted(score, key=score.get, reverse=True)[:n]
    return picked, [score[i] for i in picked]


@pytest.mark.parametrize("n", [1, 4, 10, 55, 72])
@pytest.mark.parametrize("space", ["latents", "features", "codes", "both"])
def test_m2_distance_equals_the_slow_reference(space, n):
    given = pool()
    seen = run("m2-distance", n, options={"space": space, "alpha": 0.7}, **given)
    assert seen.index.tolist() == slow_m2_distance(given, spaces(given, 0.7)[space], n)


@pytest.mark.parametrize("space", ["latents", "features", "codes", "both"])
def test_m2_confidence_distance_equals_the_slow_reference(space):
    given = pool()
    seen = run("m2-confidence-distance", 30, options={"space": space, "alpha": 0.7}, **given)
    picked, scores = slow_confidence_distance(given, spaces(given, 0.7)[space], 30)
    assert seen.index.tolist() == picked
    np.testing.assert_allclose(seen.score, scores, rtol=1e-6)


def test_m2_distance_by_hand():
    """Image 0 is the only anchor: image 1 is labelled, too, but predicted wrong. A pick becomes an anchor."""
    places, p = torch.tensor([0.0, 50, -2, 4, 3, -3])[:, None], torch.tensor([[0.6, 0.4]]).repeat(6, 1)
    given = {"codes": places, "latents": places, "probs": p, "labels": torch.tensor([0, 1])}
    seen = run("m2-distance", 3, labeled=torch.tensor([0, 1]), **given)
    assert seen.index.tolist() == [3, 5, 4]
    assert seen.score.tolist() == [4, 3 + 7, 3 + 1 + 6]


def test_m2_confidence_distance_by_hand():
    places = torch.tensor([0.0, 10, 2, 4, 6, 11])[:, None]
    p = torch.tensor([[1, 0], [0, 1], [0.5, 0.5], [0.7, 0.3], [0.95, 0.05], [0.4, 0.6]])
    given = {"codes": places, "latents": places, "probs": p, "labels": torch.tensor([0, 1])}
    seen = run("m2-confidence-distance", 4, labeled=torch.tensor([0, 1]), **given)  # distances 2, 4, 6 and 1
    assert seen.index.tolist() == [3, 2, 4, 5]
    np.testing.assert_allclose(seen.score, [0.3 * 3 / 5, 0.5 * 1 / 5, 0.05 * 5 / 5, 0], rtol=1e-6)


def test_an_outlier_region_gets_the_picks_of_its_class():
    """The weakness that the docstring names."""
    places = torch.cat([normal(80, 2), 50 + 0.1 * normal(10, 2, seed=1)])
    p, labeled = torch.tensor([[0.8, 0.2]]).repeat(90, 1), torch.arange(20)
    given = {"codes": places, "latents": places, "probs": p, "labels": torch.zeros(20, dtype=torch.int64)}
    assert run("m2-distance", 10, labeled=labeled, **given).index.min() >= 80


def test_what_cannot_be_split_goes_to_the_classes_of_fewest_anchors():
    given = pool()
    guess, own, _ = slow_anchors(given)
    fewest = sorted(own, key=lambda c: (len(own[c]), c))
    assert fewest != sorted(own)
    for n in (1, 2, 3):
        picked = run("m2-distance", n, **given).index.tolist()
        assert sorted(guess[i] for i in picked) == sorted(fewest[:n])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", ["two classes", "all classes"])
def test_without_anchors_others_stand_in(name, wrong):
    given = pool()
    if wrong == "two classes":  # 3 has no anchors as it is
        given["labels"] = given["labels"].clamp(min=1)
    else:
        given["labels"] = (given["probs"][LABELED].argmax(dim=1) + 1) % CLASSES
    _, own, anchors = slow_anchors(given)
    assert [len(found) for found in own.values()].count(0) == {"two classes": 2, "all classes": CLASSES}[wrong]
    assert len(anchors[0]) == {"two classes": sum(map(len, own.values())), "all classes": len(LABELED)}[wrong]
    slow = {"m2-distance": slow_m2_distance, "m2-confidence-distance": lambda *a: slow_confidence_distance(*a)[0]}
    assert run(name, 20, **given).index.tolist() == slow[name](given, given["latents"].double(), 20)


def test_equal_distances_leave_the_choice_to_confidence():
    given = pool() | {"latents": torch.zeros(SIZE, 2)}
    sources = {"codes": given["codes"], "probs": given["probs"]}
    expected = select("least-confidence", n=12, labeled=LABELED, **sources)
    assert torch.equal(run("m2-confidence-distance", 12, **given).index, expected)


def test_blocks_change_nothing(monkeypatch):
    given = pool()
    whole = [run(name, 40, **given) for name in NAMES]
    monkeypatch.setattr("lalib.codes.pairwise.BLOCK", 7)
    for name, expected in zip(NAMES, whole, strict=True):
        assert torch.equal(run(name, 40, **given).index, expected.index)


def test_scaled_runs_from_0_to_1():
    assert distances._scaled(torch.tensor([3.0, 1, 2])).tolist() == [1, 0, 0.5]
    assert distances._scaled(torch.tensor([2.0, 2])).tolist() == [1, 1]


# Errors


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labeled": None, "labels": None}, LalibError, "needs labelled images, .* pass labeled=index, labels=y"),
        ({"labels": None}, LalibError, "needs labelled images, which were not given: pass labeled=index, labels=y"),
        (
            {"labels": torch.ones(len(LABELED), CLASSES)},
            LalibError,
            "distance needs one label per image; these images may have several",
        ),
        ({"labels": torch.full((len(LABELED),), CLASSES)}, ValueError, "labels must lie in 0 to 3, got 4 to 4"),
        ({"labels": torch.zeros(len(LABELED))}, TypeError, "labels must be whole numbers, got torch.float32"),
        ({"probs": None}, LalibError, r"needs probs \(N, C\)"),
        ({"latents": None}, LalibError, r"needs latents \(N, K\)"),
        ({"space": "pixels"}, ValueError, "space must be one of 'features', 'latents', 'codes', 'both', got 'pixels'"),
        ({"alpha": -1}, ValueError, "alpha must be at least 0, got -1"),
    ],
)
def test_refuses(name, arguments, error, message):
    with pytest.raises(error, match=message):
        select(**{"strategy": name, "n": 5, "labeled": LABELED} | pool() | arguments)
