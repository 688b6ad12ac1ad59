"""When to stop: kappa by hand, power laws whose gain is known."""

import re

import numpy as np
import pytest
import torch

import lalib as la
from lalib.experiments import stopping

COUNTS = np.arange(20, 220, 20)


def test_kappa_by_hand():
    # 4 of 6 alike: p_o = 2/3; the classes are shared 3, 3 and 3, 2, 1: p_e = (3 x 3 + 3 x 2) / 36 = 5/12
    predictions = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 0, 2], [0, 0, 1, 1, 0, 2], [1] * 6, [1] * 6, [2] * 6])
    expected = [(3 / 6 - 15 / 36) / (1 - 15 / 36), 1, 0, 1, 0]
    assert stopping.kappas(predictions) == pytest.approx(expected)
    found = la.results.should_stop(predictions, windows=2)
    assert found.kappa == pytest.approx(0.5)


@pytest.mark.parametrize(("a", "b", "c"), [(0.95, 2.0, 0.7), (0.9, 5.0, 1.2), (0.8, 0, 1.0)])
def test_the_gain_of_a_power_law(a, b, c):
    gain, low, high = la.results.expected_gain(COUNTS, a - b * COUNTS**-c, 40)
    true = b * (200**-c - 240**-c)
    assert gain == pytest.approx(true, rel=0.02, abs=1e-9)
    assert low - 1e-9 <= gain <= high + 1e-9
    assert high - low < 0.1 * true + 1e-9  # without noise


def test_the_interval_holds_the_gain_of_noisy_power_laws():
    g, true = torch.Generator().manual_seed(0), 2 * (200**-0.7 - 240**-0.7)
    curves = 0.95 - 2 * COUNTS**-0.7 + 0.01 * torch.randn(60, 10, generator=g).numpy()
    ends = np.array([la.results.expected_gain(COUNTS, curve, 40, resamples=200) for curve in curves])
    held = (ends[:, 1] <= true) & (true <= ends[:, 2])
    assert held.mean() > 0.85
    assert abs(ends[:, 0].mean() - true) < 0.3 * true
    assert (ends[:, 1] >= 0).all()
    again = la.results.expected_gain(COUNTS, curves[-1], 40, resamples=200)
    assert again == tuple(ends[-1])


def _rounds(wrong):
    """Predictions of 400 images, of which so many change in each round."""
    predictions = [torch.arange(400) % 4]
    for i, count in enumerate(wrong):
        changed = predictions[-1].clone()
        changed[7 * i : 7 * i + count] = (changed[7 * i : 7 * i + count] + 1) % 4
        predictions.append(changed)
    return torch.stack(predictions)


FLAT, STEEP = 0.9 - 0.3 * 0.5 ** (COUNTS / 20), 0.9 * COUNTS / 220


@pytest.mark.parametrize(
    ("wrong", "curve", "stop", "reason"),
    [
        ([2] * 9, None, True, "another 20 labels will hardly help: kappa 0.993 between rounds, mean of the last 3"),
        ([40] * 6 + [0] * 3, None, True, "another 20 labels will hardly help: kappa 1.000"),
        ([0] * 6 + [8] * 3, None, False, "predictions still change: kappa 0.973 .* where 0.99 is stable"),
        ([0] * 9, FLAT, True, r"another 20 labels will hardly help: .* expected to bring 0\.\d points"),
        ([0] * 9, STEEP, False, r"another 20 labels may bring \d\.\d points .*: 1 would be worth it"),
        ([0] * 2, None, False, "4 rounds are needed to see whether predictions are stable, got 3"),
    ],
)
def test_what_it_says(wrong, curve, stop, reason):
    given = {} if curve is None else {"labels": COUNTS, "accuracy": curve}
    found = la.results.should_stop(_rounds(wrong), **given)
    assert found.stop is stop
    assert re.match(reason, found.reason), found.reason
    assert np.isnan(found.gain) == (curve is None)


def test_a_curve_of_few_rounds():
    found = la.results.should_stop(torch.zeros(3, 5, dtype=torch.int64), [1, 2, 3], [0.5, 0.6, 0.7], windows=2)
    assert (found.stop, found.reason) == (False, "4 rounds are needed to see how the curve goes on, got 3")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((torch.zeros(5),), r"predictions must have shape \(R, S\)"),
        ((torch.zeros(5, 2), [1, 2, 3, 4, 5]), "labels and accuracy are the curve: give both or none"),
        ((torch.zeros(5, 2).long(), [1, 2], [0, 1]), "labels must be those of the 5 rounds, got 2"),
        ((torch.zeros(5, 2).long(), [1, 2, 3, 4, 5], [0, 1]), "labels and accuracy must be"),
        ((torch.zeros(4, 2).long(), [1, 2, 2, 3], [0, 1, 1, 1]), "labels must be finite and ascend from 1 on"),
    ],
)
def test_bad_input(given, message):
    with pytest.raises(ValueError, match=message):
        la.results.should_stop(*given)


def test_no_gain_leads_above_one():
    gain, low, high = la.results.expected_gain([10, 20, 30, 40, 50], [0.5, 0.6, 0.7, 0.8, 0.9], 10**6)
    assert gain == high == pytest.approx(0.1)
    assert low <= high


@pytest.mark.parametrize(
    ("labels", "accuracy"), [([1, 2, 3, float("inf")], [0.1] * 4), ([1, 2, 3, 4], [50, 51, 52, 53])]
)
def test_impossible_curves(labels, accuracy):
    with pytest.raises(ValueError, match=r"labels must be finite|accuracy must lie in \[0, 1\]"):
        la.results.expected_gain(labels, accuracy)
