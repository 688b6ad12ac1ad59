"""Learning curves that grow with a comparison."""

import pandas as pd
import pytest

import lalib as la


def _run(strategy, seed, accuracy=0.5):
    return [
        {"strategy": strategy, "seed": seed, "round": r, "labels": 20 + 10 * r, "accuracy": accuracy + 0.1 * r}
        for r in range(3)
    ]


def test_curves_grow_with_every_run():
    live = la.widgets.LiveCurves()
    assert live.children == (live.sentence,)
    assert "No run" in live.sentence.value
    runs = [_run("random", 0), _run("margin", 0, 0.6), _run("random", 1, 0.55)]
    for count, rows in enumerate(runs, 1):
        live.add(rows)
        table = pd.DataFrame([row for run in runs[:count] for row in run])
        expected = la.figures.learning_curves(table)
        drawn = {t.name: tuple(t.y) for t in live.figure.data if t.mode}
        assert drawn == {t.name: pytest.approx(tuple(t.y)) for t in expected.data if t.mode}
    assert live.children == (live.sentence, live.figure)
    assert live.sentence.value == "3 runs are finished; seeds: random 2, margin 1."


def test_a_comparison_feeds_it(tmp_path):
    images, test = la.load("digits").subset(range(200)), la.load("digits", "test").subset(range(50))
    live = la.widgets.LiveCurves()
    options = {"initial": 10, "step": 5, "rounds": 1, "seeds": 2, "progress": False, "out": tmp_path}
    table = la.compare(images, test, task=la.Task(steps=2), strategies=["random", "margin"], on_run=live.add, **options)
    assert live.runs == 4
    order = ["strategy", "seed", "round"]  # runs arrive as they finish
    arrived, expected = (pd.DataFrame(rows).sort_values(order, ignore_index=True) for rows in (live.rows, table))
    assert arrived.equals(expected)


def test_strategies_appear_with_their_first_run():
    live = la.widgets.LiveCurves(strategies=["margin", "random"])
    live.add(_run("badge", 0))
    assert live.figure is None
    for strategy in ("random", "badge", "margin"):
        live.add(_run(strategy, 1))
    assert {trace.name for trace in live.figure.data if trace.mode} == {"random", "margin"}


def test_options_are_those_of_learning_curves():
    live = la.widgets.LiveCurves(value="nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        live.add(_run("random", 0))
