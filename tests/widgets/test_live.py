"""Learning curves that grow with a comparison."""

import threading
import time

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
    assert live.children[0] is live.sentence
    assert "No run" in live.sentence.value
    runs = [_run("random", 0), _run("margin", 0, 0.6), _run("random", 1, 0.55)]
    for count, rows in enumerate(runs, 1):
        live.add(rows)
        table = pd.DataFrame([row for run in runs[:count] for row in run])
        expected = la.figures.learning_curves(table)
        drawn = {t.name: tuple(t.y) for t in live.plot.figure.data if t.mode}
        assert drawn == {t.name: pytest.approx(tuple(t.y)) for t in expected.data if t.mode}
    assert live.children[:2] == (live.sentence, live.plot)
    seeds = "3 runs are finished; seeds: random 2, margin 1."
    assert live.sentence.value == f"{seeds} Test accuracy (%) with most labels: random 72.5, margin 80.0."


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
    assert live.plot is None
    for strategy in ("random", "badge", "margin"):
        live.add(_run(strategy, 1))
    assert {trace.name for trace in live.plot.figure.data if trace.mode} == {"random", "margin"}


def test_options_are_those_of_learning_curves():
    live = la.widgets.LiveCurves(value="nonsense")
    with pytest.raises(ValueError, match="nonsense"):
        live.add(_run("random", 0))


def gated(view, n, *, generator):
    """A strategy that waits until the test lets it."""
    assert gated.gate.acquire(timeout=60)
    return la.strategies.Selection(view.unlabeled[:n])


gated.gate = threading.Semaphore(0)  # how many selections may be made; as a global it would be part of what is run


@pytest.fixture
def race(tmp_path):
    """Four runs, two of them gated, that wait to be started."""
    images, test = la.load("digits").subset(range(200)), la.load("digits", "test").subset(range(50))
    options = {"initial": 10, "step": 5, "rounds": 1, "seeds": 2, "out": tmp_path}
    options |= {"task": la.Task(model="cnn", steps=2), "strategies": ["random", gated]}
    race = la.widgets.Race(images, test, autostart=False, **options)
    yield race
    race.stop()
    gated.gate.release(4)
    race._thread.join(60)
    while gated.gate.acquire(blocking=False):
        pass


def until(race, *states):
    end = time.monotonic() + 60
    while race.state not in states:
        assert time.monotonic() < end, f"{race.state} instead of {states}: {race.sentence.value}"
        time.sleep(0.005)


def enabled(race):
    return [name for name, button in race.buttons.items() if not button.disabled]


def test_a_race_ends_with_the_table_of_compare(race):
    assert enabled(race) == ["start"]
    race.buttons["start"].click()
    assert enabled(race) == ["pause", "stop"]
    gated.gate.release(2)
    table = race.wait()
    assert (race.state, race.curves.runs, enabled(race)) == ("finished", 4, [])
    assert race.sentence.value == "Finished. All 4 runs are done."
    assert table.equals(la.compare(*race.arguments, **race.options))  # which finds all runs


def test_pause_waits_for_the_run_in_progress_and_start_goes_on(race):
    race.start()
    race.buttons["pause"].click()
    gated.gate.release(2)  # nothing but the pause is waited for
    until(race, "paused")
    runs = race.curves.runs
    assert 1 <= runs < 4
    assert race.sentence.value == f"Paused. {runs} runs are done. Start goes on with the next."
    assert enabled(race) == ["start", "stop"]
    with pytest.raises(la.LalibError, match="the race is paused"):
        race.wait(timeout=0.2)
    assert race.curves.runs == runs
    race.buttons["start"].click()
    race.wait()
    assert race.curves.runs == 4


@pytest.mark.parametrize("paused", [False, True])
def test_stop_keeps_what_is_finished_and_start_goes_on(race, tmp_path, paused):
    race.start()
    if paused:
        race.pause()
        gated.gate.release()
        until(race, "paused")
    race.buttons["stop"].click()
    gated.gate.release()
    until(race, "stopped")
    kept = race.curves.runs
    assert 1 <= kept < 4
    assert len(list(tmp_path.glob("*.json"))) == kept
    with pytest.raises(la.LalibError, match=f"the race is stopped: Stopped. {kept} runs are kept"):
        race.wait()
    gated.gate.release(2)
    race.buttons["start"].click()
    assert len(race.wait()) == 8
    assert race.curves.runs == 4


def test_what_goes_wrong_is_said_and_raised(tmp_path):
    images = la.load("digits").subset(range(200))
    race = la.widgets.Race(images, images, strategies=["nonsense"], out=tmp_path)
    with pytest.raises(ValueError, match="'nonsense'"):
        race.wait()
    assert race.state == "failed"
    assert "nonsense" in race.sentence.value
    assert enabled(race) == ["start"]
