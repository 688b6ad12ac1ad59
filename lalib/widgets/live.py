"""Learning curves that grow while a comparison runs."""

import html
from collections.abc import Sequence

import ipywidgets
import plotly.graph_objects as go

from lalib import figures

__all__ = ["LiveCurves"]


class LiveCurves(ipywidgets.VBox):
    """A figure of learning curves, and a sentence, that take in every run of `compare` as it is finished.

    live = la.widgets.LiveCurves()
    display(live)
    table = la.compare(images, test, on_run=live.add, out="runs/first")

    value, strategies, baseline, confidence: as in figures.learning_curves; strategies appear with their first run.
    """

    def __init__(self, **options: str | float | Sequence[str]):
        self.options, self.rows, self.runs, self.figure = options, [], 0, None
        self.sentence = ipywidgets.HTML("No run is finished yet.")
        super().__init__([self.sentence])

    def add(self, rows: list[dict]) -> None:
        """Draw the curves with one more run."""
        import pandas as pd

        self.rows += rows
        self.runs += 1
        table = pd.DataFrame(self.rows)
        self._draw(table)
        seeds = table.groupby("strategy", sort=False)["seed"].nunique()
        parts = ", ".join(f"{html.escape(str(strategy))} {count}" for strategy, count in seeds.items())
        self.sentence.value = f"{self.runs} runs are finished; seeds: {parts}."

    def _draw(self, table) -> None:
        options = dict(self.options)
        if options.get("strategies"):
            there = set(table["strategy"])
            options["strategies"] = [strategy for strategy in options["strategies"] if strategy in there]
            if not options["strategies"]:
                return
        if self.figure is None:
            self.figure = go.FigureWidget(figures.learning_curves(table, **options))
            self.children = [self.sentence, self.figure]
        else:
            figures.update_learning_curves(self.figure, table, **options)
