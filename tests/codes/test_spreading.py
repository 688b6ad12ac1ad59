"""Spreading of labels against the formulas, solved densely; and as a task."""

import numpy as np
import pytest
import torch

import lalib as la
from lalib.codes import spreading


@pytest.fixture
def codes():
    return torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


def _labels(n, given):
    return la.models.partly_labelled(n, torch.tensor(list(given)), torch.tensor(list(given.values())))


def _weights_by_hand(distance):
    """exp(-4 (d / d_k)^2) of distances (M, k), ascending."""
    return np.exp(-4 * (distance / distance[:, -1:]) ** 2)


def _graph_by_hand(codes, k):
    x = codes.double().numpy()
    distance = np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))
    np.fill_diagonal(distance, np.inf)
    nearest, w = distance.argsort(1)[:, :k], np.zeros_like(distance)
    np.put_along_axis(w, nearest, _weights_by_hand(np.take_along_axis(distance, nearest, 1)), axis=1)
    return w + w.T


def _one_hot(labels, n_classes):
    return (labels.numpy()[:, None] == np.arange(n_classes)).astype(float)


def _consistent(w, y, alpha):
    root = np.diag(w.sum(1) ** -0.5)
    return np.linalg.solve(np.eye(len(y)) - alpha * root @ w @ root, y / y.sum(0))


def _walked(w, y, steps=100):
    """Squares of where walks from the labels of each class are found, summed over the steps."""
    walk, found = w / w.sum(1, keepdims=True), 0
    for t in range(steps):
        found = found + np.linalg.matrix_power(walk, t) @ (y / y.sum(0) / w.sum(1, keepdims=True))
    return (found / found.sum(1, keepdims=True)) ** 2


def _poisson_mbo(w, y, priors, u):
    """[Calder2020, Algorithm 2], from u on."""
    degree, labelled = w.sum(1), y.any(1)
    source = np.where(labelled[:, None], y - y[labelled].mean(0), 0)
    dt = 1 / degree.max()
    for _ in range(20):
        for _ in range(40):
            u = u - dt * ((np.diag(degree) - w) @ u - source)
        r = np.ones(len(priors))
        for _ in range(100):
            shares = np.eye(len(priors))[(u * r).argmax(1)].mean(0)
            r = np.clip(r + 10 * (priors - shares), 0.5, 2)
        scores = u * r
        u = np.eye(len(priors))[scores.argmax(1)]
    return scores.clip(0)


def _at_queries(codes, queries, k, scores):
    distance = np.sqrt(((queries.double().numpy()[:, None] - codes.double().numpy()[None]) ** 2).sum(2))
    nearest = distance.argsort(1)[:, :k]
    w = _weights_by_hand(np.take_along_axis(distance, nearest, 1))
    return (w[:, :, None] * scores[nearest]).sum(1)


PRIORS = np.array([0.5, 0.3, 0.2])
METHODS = {
    "consistency": ({"method": "consistency", "alpha": 0.9}, lambda w, y: _consistent(w, y, 0.9)),
    "poisson": ({}, _walked),
    "priors": ({"priors": PRIORS}, lambda w, y: _poisson_mbo(w, y, PRIORS, _shares(_walked(w, y)))),
}


def _shares(scores):
    return scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize(("options", "by_hand"), METHODS.values(), ids=METHODS)
def test_it_solves_the_formula(codes, options, by_hand):
    labels = _labels(60, {3: 0, 7: 0, 20: 2, 41: 1})
    scores = by_hand(_graph_by_hand(codes, 6), _one_hot(labels, 3))
    scores = scores if "method" in options else _shares(scores)
    probs = la.codes.spread_labels(codes, labels, 3, neighbours=6, **options)
    assert probs.numpy() == pytest.approx(_shares(scores), abs=1e-4)
    for queries in (torch.zeros(1, 3), codes[:5] + 0.1):
        probs = la.codes.spread_labels(codes, labels, 3, neighbours=6, queries=queries, **options)
        assert probs.numpy() == pytest.approx(_shares(_at_queries(codes, queries, 6, scores)), abs=1e-4)
    there = la.codes.spread_labels(codes, labels, 3, neighbours=6, queries=codes, **options)
    assert there.numpy() == pytest.approx(_shares(scores), abs=1e-4)


def test_the_scores_solve_the_poisson_equation(codes):
    y = _one_hot(_labels(60, {3: 0, 7: 0, 20: 2, 41: 1}), 3)
    w, labelled = _graph_by_hand(codes, 6), y.any(1)
    source = np.where(labelled[:, None], y - y[labelled].mean(0), 0)
    u = np.linalg.lstsq(np.diag(w.sum(1)) - w, source)[0]
    u = u - w.sum(1) @ u / w.sum()  # of those that solve it the paper's, with a weighted mean of 0
    scores = spreading.poisson_scores(spreading.neighbour_graph(codes, 6), y, steps=20_000)
    centred = y.sum(0) * (scores - scores @ (y.sum(0) / y.sum())[:, None])
    assert centred == pytest.approx(u, abs=1e-6)


def test_priors_decide_how_many_images_a_class_gets():
    truth = torch.tensor([0, 1, 2]).repeat_interleave(torch.tensor([150, 90, 60]))
    codes = 2.5 * torch.eye(3)[truth] + torch.randn(300, 3, generator=torch.Generator().manual_seed(2))
    labels, shares = _labels(300, {0: 0, 1: 0, 150: 1, 240: 2}), torch.tensor([0.5, 0.3, 0.2])
    probs = [la.codes.spread_labels(codes, labels, 3, **more) for more in ({}, {"priors": shares})]
    wrong = [(part.argmax(1).bincount(minlength=3) / 300 - shares).abs().max() for part in probs]
    assert wrong[0] > 0.08
    assert wrong[1] < 0.02
    assert (probs[1].argmax(1) == truth).sum() > (probs[0].argmax(1) == truth).sum()


def _degenerate():
    near = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    apart = torch.cat([near, near[:15] + 1000, near[:15] - 1000])
    yield "components", apart, {0: 0, 41: 1, 42: 1}, 3
    yield "an outlier", torch.cat([near, torch.full((1, 2), 1e9)]), {0: 0, 5: 1}, 2
    yield "a labelled outlier", torch.cat([near, torch.full((1, 2), 1e9)]), {0: 0, 40: 1}, 2
    yield "duplicates", near[:4].repeat(15, 1), {0: 0, 1: 1}, 2
    yield "all alike", torch.zeros(30, 2), {0: 0, 1: 1}, 2
    yield "few images", near[:5], {0: 0, 1: 1}, 2
    yield "two images", near[:2], {0: 1}, 2
    yield "one class", near, {0: 1, 1: 1}, 2
    yield "more classes than labels", near, {0: 3, 1: 5}, 10
    yield "very far apart", near.double() * 1e140, {0: 0, 1: 1}, 2
    yield "very near", near.double() * 1e-140, {0: 0, 1: 1}, 2


@pytest.mark.parametrize("options", [options for options, _ in METHODS.values()], ids=METHODS)
@pytest.mark.parametrize(
    ("name", "codes", "given", "n_classes"), list(_degenerate()), ids=[c[0] for c in _degenerate()]
)
def test_graphs_that_hang_together_badly(name, codes, given, n_classes, options):
    """Warnings are errors here."""
    options = options | ({"priors": [1 / n_classes] * n_classes} if "priors" in options else {})
    probs = la.codes.spread_labels(codes, _labels(len(codes), given), n_classes, **options)
    assert probs.sum(1).numpy() == pytest.approx(1, abs=1e-5)
    unlabelled = sorted(set(range(n_classes)) - set(given.values()))
    reached = (probs.amax(1) - probs.amin(1)) > 1e-6
    if name == "components":
        assert reached.tolist() == [True] * 55 + [False] * 15
    elif name not in ("all alike", "duplicates"):
        assert reached.all()
    assert not probs[reached][:, unlabelled].any()
    if name in ("components", "one class"):
        assert (probs[reached].argmax(1) == torch.tensor([given[0]] * 40 + [1] * 15)[: int(reached.sum())]).all()


def test_two_clusters_take_one_label_each_and_a_third_stays_undecided():
    near = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    codes = torch.cat([near, near + 100, near - 100])
    probs = la.codes.spread_labels(codes, _labels(90, {0: 1, 30: 0}), 2, neighbours=5)
    assert torch.equal(probs[:60].argmax(1), torch.tensor([1, 0]).repeat_interleave(30))
    assert torch.equal(probs[60:], torch.full((30, 2), 0.5))


def test_equal_codes_share_a_label():
    probs = la.codes.spread_labels(torch.zeros(6, 2), _labels(6, {2: 1}), 3, neighbours=5)
    assert torch.equal(probs.argmax(1), torch.ones(6, dtype=torch.int64))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": torch.full((60,), -1)}, la.LalibError, "needs labelled images, got 60 without a label"),
        ({"labels": torch.full((60,), 3)}, ValueError, "labels must lie in -1 to 2, got 3 to 3"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, ValueError, r"labels must have shape \(60,\)"),
        ({"method": "laplace"}, ValueError, "method must be one of 'poisson', 'consistency', got 'laplace'"),
        ({"priors": [0.5, 0.5]}, ValueError, "priors must be the shares of 3 classes and sum to 1"),
        ({"priors": [1.5, 0, -0.5]}, ValueError, "priors must be the shares of 3 classes and sum to 1"),
        ({"priors": [1, 0, 0], "method": "consistency"}, ValueError, "priors are for method='poisson'"),
        ({"alpha": 1}, ValueError, "alpha must be below 1, got 1"),
        ({"neighbours": 60}, ValueError, "neighbours must be at most 59, got 60"),
        ({"n_classes": 1}, ValueError, "n_classes must be at least 2, got 1"),
    ],
)
def test_bad_input(codes, change, error, message):
    options = {"labels": _labels(60, {0: 0}), "n_classes": 3} | change
    with pytest.raises(error, match=message):
        la.codes.spread_labels(codes, **options)


def _classifier(codes, labels, **options):
    model = la.codes.PoissonClassifier(codes.shape[1], 3, **options)
    la.fit(model, (codes, labels), epochs=2, device="cpu", progress=False)
    return model


@pytest.mark.parametrize("options", [{}, {"neighbours": 6, "priors": PRIORS}])
def test_the_classifier_says_what_spread_labels_says(codes, options):
    labels = _labels(60, {3: 0, 7: 0, 20: 2, 41: 1})
    model = _classifier(codes, labels, **options)
    expected = la.codes.spread_labels(codes, labels, 3, **options)
    assert torch.allclose(la.models.predict_proba(model, codes), expected, atol=1e-6)
    if not options:  # others keep to the priors only through their neighbours
        expected = la.codes.spread_labels(codes, labels, 3, queries=codes + 0.1)
        assert torch.allclose(la.models.predict_proba(model, codes + 0.1), expected, atol=1e-6)
    again = la.codes.PoissonClassifier(**model.config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(la.models.predict_proba(again, codes), la.models.predict_proba(model, codes))
    assert torch.equal(model.features(codes), codes)


def test_a_classifier_without_labels(codes):
    with pytest.raises(la.LalibError, match="PoissonClassifier has no labels to spread: train it first"):
        la.models.predict_proba(la.codes.PoissonClassifier(3, 2), codes)
    with pytest.raises(la.LalibError, match="PoissonClassifier needs labelled images, got 60 without a label"):
        _classifier(codes, torch.full((60,), -1))
    with pytest.raises(la.LalibError, match="PoissonClassifier needs one label per image"):
        la.codes.PoissonClassifier(3, 2, multi_label=True)
