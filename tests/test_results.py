"""Intervals against scipy, paired differences by hand."""

import numpy as np
import pandas as pd
import pytest

from lalib.results import against_random, interval


def _table(values, **cell):
    """values: {strategy: accuracy of seed 0, 1, ...}"""
    cell = {"ratio": 1.0, "labels": 100} | cell
    return pd.DataFrame(
        [{"strategy": s, "seed": i, "accuracy": v, **cell} for s, row in values.items() for i, v in enumerate(row)]
    )


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_interval_against_scipy(confidence):
    from scipy import stats

    values = np.random.default_rng(0).normal(3, 2, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert interval(values, confidence) == pytest.approx((values.mean(), expected.low, expected.high))


def test_interval_by_hand():
    assert interval([1, 2, 3]) == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_interval_of_too_few(values):
    with pytest.raises(ValueError, match=f"an interval needs at least 2 values, got {len(values)}"):
        interval(values)


def test_against_random_by_hand():
    table = pd.concat(
        [
            _table({"random": [0.5, 0.6, 0.7], "mine": [0.6, 0.6, 0.9]}),
            _table({"random": [0.5, 0.6, 0.7], "mine": [0.4, 0.5, 0.6]}, labels=1000),
        ]
    )
    frame = against_random(table.sample(frac=1, random_state=0))  # the order of the rows does not matter
    assert len(frame) == 4
    row = frame.set_index(["ratio", "labels", "strategy"]).loc[(1.0, 100, "mine")]
    half = 4.302653 * 0.1 / 3**0.5  # differences 0.1, 0, 0.2
    assert row["mean"] == pytest.approx(0.7)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert (row["wins"], row["seeds"]) == (2, 3)
    row = frame.set_index(["labels", "strategy"]).loc[(1000, "mine")]
    assert (row["difference"], row["low"], row["high"], row["wins"]) == pytest.approx((-0.1, -0.1, -0.1, 0))
    random = frame[frame["strategy"] == "random"]
    assert (random["difference"] == 0).all()


def test_against_another_baseline_by_one_column():
    table = _table({"old": [1.0, 2.0], "new": [2.0, 4.0]}).rename(columns={"accuracy": "score"})
    frame = against_random(table, by=["labels"], value="score", baseline="old")
    assert list(frame)[:2] == ["labels", "strategy"]
    assert frame.set_index("strategy")["difference"]["new"] == 1.5


@pytest.mark.parametrize(
    "values",
    [
        {"random": [0.5, 0.6, 0.7], "mine": [0.6, 0.6]},
        {"random": [0.5, 0.6], "mine": [0.6, 0.6, 0.9]},
        {"random": [0.5, float("nan")], "mine": [0.6, 0.6]},
        {"mine": [0.6, 0.6, 0.9]},
    ],
)
def test_what_is_not_paired_is_an_error(values):
    with pytest.raises(
        ValueError, match=r"every strategy needs the same seeds as 'random': they are not paired in \(1"
    ):
        against_random(_table(values))


def test_a_seed_that_is_there_twice_is_an_error():
    table = _table({"random": [0.5, 0.6], "mine": [0.6, 0.6]})
    with pytest.raises(ValueError, match="duplicate"):
        against_random(pd.concat([table, table]))
