"""Learning curves that grow while a comparison runs, and a comparison with buttons to pause and to stop it."""

import threading
from collections.abc import Mapping, Sequence

import ipywidgets
import pandas as pd

from lalib import figures
from lalib.data.checks import LalibError
from lalib.experiments.comparison import compare
from lalib.figures.learning import VALUES
from lalib.widgets.parts import Names, Sentence, button
from lalib.widgets.plot import Plot


class LiveCurves(ipywidgets.VBox):
    """A figure of learning curves, and a sentence with their ends; both grow with every run that `compare` finishes.

    live = la.widgets.LiveCurves()
    display(live)
    table = la.compare(images, test, on_run=live.add, out="runs/first")

    value, strategies, baseline, confidence: as in figures.learning_curves; strategies appear with their first run.
    """

    def __init__(self, **options: str | float | Sequence[str]):
        self.options, self.rows, self.runs, self.plot = options, [], 0, None
        self.sentence = Sentence(value="No run is finished yet.")
        super().__init__([self.sentence, Names()])

    def add(self, rows: list[dict]) -> None:
        """Draw the curves with one more run."""
        self.rows += rows
        self.runs += 1
        table, options = pd.DataFrame(self.rows), dict(self.options)
        if options.get("strategies") is not None:
            options["strategies"] = [each for each in options["strategies"] if (table["strategy"] == each).any()]
        if self.plot is not None:
            self.plot.show(figures.update_learning_curves(self.plot.figure, table, **options))
        elif options.get("strategies") != []:
            self.plot = Plot(figures.learning_curves(table, **options))
            self.children = [self.sentence, self.plot, *self.children[1:]]
        value = self.options.get("value", "accuracy")  # where the curves end, for those who do not see them
        axis, factor = VALUES.get(value, (value, 1))
        last = table[table["labels"] == table.groupby("strategy")["labels"].transform("max")]
        means = (factor * last.groupby("strategy", sort=False)[value].mean()).dropna().map("{:.1f}".format)
        seeds = table.groupby("strategy", sort=False)["seed"].nunique()
        seeds, ends = (", ".join(f"{strategy} {n}" for strategy, n in each.items()) for each in (seeds, means))
        ends = f"{axis[0].upper()}{axis[1:]} with most labels: {ends}"
        self.sentence.value = f"{self.runs} runs are finished; seeds: {seeds}. {ends}."


class Race(ipywidgets.VBox):
    """A comparison in the background, its curves, and buttons to start or go on, to pause and to stop.

    race = la.widgets.Race(images, test, strategies=["random", "margin"], out="runs/race")
    race
    table = race.wait()  # in a cell of its own: the kernel hears no button while a cell runs, but Ctrl-C

    Arguments are those of `compare`; curves: those of LiveCurves. It begins at once unless autostart=False. Pause and
    Stop wait for the run in progress (the group of seeds that train together); Start after Stop, or the same call in
    another notebook, goes on with what `out` holds. `state` is "ready", "running", "pausing", "paused", "stopping",
    "stopped", "finished" or "failed". Cells that run meanwhile share the processor, but not the random numbers.
    """

    def __init__(self, images, test, *, curves: Mapping | None = None, autostart: bool = True, **options):
        self.arguments, self.options = (images, test), {"progress": False} | options
        self.table, self.error, self._thread, self.curves = None, None, None, LiveCurves(**(curves or {}))
        self._changed = threading.Condition()  # of the state, which the buttons and the race both change
        self.sentence = Sentence()
        looks = {
            "start": (self.start, {"icon": "play", "tooltip": "start, or go on after a pause or a stop"}),
            "pause": (self.pause, {"icon": "pause", "tooltip": "wait once the run in progress is done"}),
            "stop": (self.stop, {"icon": "stop", "tooltip": "end once the run in progress is done"}),
        }
        self.buttons = {name: button(name.capitalize(), act, layout={}, **look) for name, (act, look) in looks.items()}
        super().__init__([ipywidgets.HBox(list(self.buttons.values())), self.sentence, self.curves])
        self._show("ready", "Press Start.")
        if autostart:
            self.start()

    def start(self) -> None:
        """Begin, or go on after pause() or stop(); nothing if it runs already."""
        going_on = self._move(("pausing", "paused"), "running", "Going on.")
        if not going_on and (self._thread is None or not self._thread.is_alive()):
            self.curves, self.error = LiveCurves(**self.curves.options), None  # finished runs are handed in again
            self.children = (*self.children[:2], self.curves)
            self._show("running", "The first run is on its way.")
            self._thread = threading.Thread(target=self._run, name="race", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        """Wait as soon as the run in progress is done, until start()."""
        self._move(("running",), "pausing", "The run in progress is finished first.")

    def stop(self) -> None:
        """End as soon as the run in progress is done; what was finished is kept in `out`."""
        self._move(("running", "pausing", "paused"), "stopping", "The run in progress is finished first.")

    def wait(self, timeout: float | None = None):
        """The table of compare, once it is there; timeout: in seconds. Ctrl-C stops the race, too.

        LalibError if the race was stopped or is not finished in time; what went wrong in compare, if something did.
        """
        try:
            if self._thread is not None:
                self._thread.join(timeout)
        except KeyboardInterrupt:
            self.stop()
            raise
        if self.error is not None:
            raise self.error
        if self.state != "finished":
            raise LalibError(f"the race is {self.state}: {self.sentence.value}")
        return self.table

    def _run(self):
        try:
            self.table = compare(*self.arguments, on_run=self._on_run, **self.options)
        except KeyboardInterrupt:  # of _on_run
            self._show("stopped", f"{self.curves.runs} runs are kept. Start goes on with the next.")
        except Exception as error:  # it would end the thread unseen; wait() raises it
            self.error = error
            self._show("failed", f"{type(error).__name__}: {error}")
        else:
            self._show("finished", f"All {self.curves.runs} runs are done.")

    def _on_run(self, rows: list[dict]) -> None:
        self.curves.add(rows)
        self._move(("pausing",), "paused", f"{self.curves.runs} runs are done. Start goes on with the next.")
        with self._changed:
            self._changed.wait_for(lambda: self.state != "paused")
        if self.state == "stopping":
            raise KeyboardInterrupt

    def _move(self, before: Sequence[str], state: str, words: str) -> bool:
        """Whether the race was in one of the states `before`, which it then leaves."""
        with self._changed:
            if moved := self.state in before:
                self._show(state, words)
                self._changed.notify_all()
        return moved

    def _show(self, state: str, words: str) -> None:
        self.state = state
        self.sentence.value = f"{state.capitalize()}. {words}"
        self.buttons["start"].disabled = state in ("running", "stopping", "finished")
        self.buttons["pause"].disabled = state != "running"
        self.buttons["stop"].disabled = state not in ("running", "pausing", "paused")
