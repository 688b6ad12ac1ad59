"""Counts of classes that know that the classifier errs."""

import math

import numpy as np
import pytest
import torch

from lalib.labelling.prevalence import error_interval, prevalence

NAMES = ("a", "b", "c")


def wilson(hits, n, z=1.959963984540054):
    """Wilson's interval by his formula."""
    share = hits / n
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return share, (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def slow(known, said, truth, guess, number):
    """The difference estimator by its sums, with Zou and Donner's limits for two correlated shares."""
    n, rest = len(truth), len(said)
    errors = [(y == number) - (f == number) for y, f in zip(truth, guess, strict=True)]
    (a, low_a, high_a), (b, low_b, high_b) = (wilson(sum(e == sign for e in errors), n) for sign in (1, -1))
    r = -math.sqrt(a / (1 - a)) * math.sqrt(b / (1 - b))
    lower = (a - low_a) ** 2 + (high_b - b) ** 2 - 2 * r * (a - low_a) * (high_b - b)
    upper = (high_a - a) ** 2 + (b - low_b) ** 2 - 2 * r * (high_a - a) * (b - low_b)
    wider, least = math.sqrt((n + rest) / rest), sum(y == number for y in known)
    base = least + sum(f == number for f in said)
    low, high = base + rest * (a - b - wider * math.sqrt(lower)), base + rest * (a - b + wider * math.sqrt(upper))
    return base + rest * sum(errors) / n, max(low, least), min(high, least + rest)


def test_counts_and_intervals():
    draws = torch.Generator().manual_seed(0)
    known, said, truth = (torch.randint(low, 3, (n,), generator=draws) for low, n in ((-1, 70), (0, 400), (-1, 50)))
    guess = torch.where(torch.rand(50, generator=draws) < 0.7, truth.clamp(min=0), 2)
    table = prevalence(known, said, truth, guess, NAMES)
    assert table.index.tolist() == ["a", "b", "c", "(not sure)"]
    for number, row in zip((0, 1, 2, -1), table.to_numpy(), strict=True):
        expected = slow(*(part.tolist() for part in (known, said, truth, guess)), number)
        assert row.tolist() == pytest.approx(expected)
    assert table["count"].sum() == pytest.approx(470)


def test_what_is_known_needs_no_interval():
    known, none = torch.tensor([0, 0, 1]), torch.empty(0, dtype=torch.int64)
    assert prevalence(known, none, known, known, NAMES).to_numpy().tolist() == [[2] * 3, [1] * 3, [0] * 3]
    alone = prevalence(known, torch.tensor([2, 2]), none, none, NAMES)
    assert alone["count"].tolist() == [2, 1, 2]
    assert alone[["low", "high"]].isna().all(axis=None)


def test_intervals_hold():
    """600 images of which 60 drawn ones are known, and a classifier that errs more with some classes: of 400 draws, the
    share of 95 % intervals that hold is above 93 % for each class, one that it never finds among them. Without the
    correction the counts are far off."""
    random = np.random.default_rng(0)
    truth = torch.from_numpy(random.choice(3, 600, p=[0.67, 0.3, 0.03]))
    guess = torch.where(truth == 2, 0, torch.from_numpy(np.where(random.random(600) < 0.2, 0, truth)))
    held, off = np.zeros(3), 0
    right = np.bincount(truth, minlength=3)
    for _ in range(400):
        drawn = torch.zeros(600, dtype=torch.bool)
        drawn[random.choice(600, 60, replace=False)] = True
        table = prevalence(truth[drawn], guess[~drawn], truth[drawn], guess[drawn], NAMES)
        held += (table["low"] <= right) & (right <= table["high"])
        off += table["count"].to_numpy() - right
    assert (held / 400 > 0.93).all()
    assert np.abs(off / 400).max() < 5
    assert np.abs(np.bincount(guess, minlength=3) - right).max() > 40


def test_no_error_and_nothing_but_errors():
    """No error among n: the ends are those of Wilson's interval of 0. All missed: the share is above Wilson's low."""
    end = 1.959963984540054**2 / (60 + 1.959963984540054**2)
    assert error_interval(0, 0, 60) == pytest.approx((-end, end))
    assert error_interval(60, 0, 60)[1] == pytest.approx(1)
    assert error_interval(0, 0, 60, rest=180)[1] == pytest.approx(end * math.sqrt(4 / 3))
