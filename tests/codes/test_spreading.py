"""Label spreading against the formula, solved densely."""

import numpy as np
import pytest
import torch

import lalib as la


@pytest.fixture
def codes():
    return torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


def _labels(n, given):
    return la.models.partly_labelled(n, torch.tensor(list(given)), torch.tensor(list(given.values())))


def _by_hand(codes, labels, n_classes, k, alpha, queries=None):
    x = codes.double().numpy()
    distance = np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argsort(1)[:, :k]
    unit = np.take_along_axis(distance, nearest, 1).mean()
    near = np.zeros_like(distance, dtype=bool)
    np.put_along_axis(near, nearest, True, axis=1)
    w = np.where(near | near.T, np.exp(-((distance / unit) ** 2)), 0)
    root = np.diag(w.sum(1) ** -0.5)
    y = np.stack([(labels.numpy() == c) / max(1, (labels.numpy() == c).sum()) for c in range(n_classes)], axis=1)
    f = np.linalg.solve(np.eye(len(x)) - alpha * root @ w @ root, y)
    if queries is not None:
        distance = np.sqrt(((queries.double().numpy()[:, None] - x[None]) ** 2).sum(2))
        nearest = distance.argsort(1)[:, :k]
        f = np.stack(
            [
                (np.exp(-((row[near] / unit) ** 2))[:, None] * f[near]).sum(0)
                for row, near in zip(distance, nearest, strict=True)
            ]
        )
    return f / f.sum(1, keepdims=True)


def test_it_solves_the_formula(codes):
    labels = _labels(60, {3: 0, 7: 0, 20: 2, 41: 1})
    for options in ({}, {"queries": torch.zeros(1, 3)}, {"queries": codes[:5] + 0.1}):
        expected = _by_hand(codes, labels, 3, 6, 0.9, **options)
        probs = la.codes.spread_labels(codes, labels, 3, neighbours=6, alpha=0.9, **options)
        assert probs.numpy() == pytest.approx(expected, abs=1e-4)


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
        ({"alpha": 1}, ValueError, "alpha must be below 1, got 1"),
        ({"neighbours": 60}, ValueError, "neighbours must be at most 59, got 60"),
        ({"n_classes": 1}, ValueError, "n_classes must be at least 2, got 1"),
    ],
)
def test_bad_input(codes, change, error, message):
    options = {"labels": _labels(60, {0: 0}), "n_classes": 3} | change
    with pytest.raises(error, match=message):
        la.codes.spread_labels(codes, **options)
