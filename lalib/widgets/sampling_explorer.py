"""The sampling explorer: choose an autoencoder and one or two strategies, and see which images they pick."""

import html
from collections.abc import Mapping, Sequence

import ipywidgets
import pandas as pd
import torch

from lalib import figures
from lalib.data.checks import check_choice, check_int, check_type
from lalib.data.door import check_codes
from lalib.data.imageset import ImageSet
from lalib.experiments import results
from lalib.figures.curves import class_totals, classes_in_words
from lalib.figures.images import canvas, captions_of, wrap
from lalib.figures.maps import check_map
from lalib.figures.marks import check_chosen, check_numbers, pixels, png
from lalib.labelling.store import LabelStore
from lalib.strategies.registry import LABEL_FREE, STRATEGIES
from lalib.widgets.exchange import Exchange
from lalib.widgets.parts import WRAP, Names, Panel, Sentence, control, counted, row
from lalib.widgets.plot import Plot, SamplingMap
from lalib.widgets.strategy_controls import MAX_SEED, NONE, Places, StrategyControls

USUAL_N, MAX_N, THUMBNAILS = 100, 1_000, 60
FIRST, SECOND, BOTH = "the first's picks", "the second's picks", "the picks of both"


def sampling_explorer(
    images: ImageSet,
    codes: Mapping[str, torch.Tensor],
    *,
    views: Mapping[str, torch.Tensor] | None = None,
    errors: Mapping[str, torch.Tensor] | None = None,
    strategies: Sequence[str] | None = None,
    strategy: str = "normal-in-clusters",
    second: str | None = None,
    n: int | None = None,
    seed: int = 0,
    comparison: Mapping[str, pd.DataFrame] | None = None,
    store: LabelStore | None = None,
) -> "SamplingExplorer":
    """A box of controls beside the map, and the class histogram and thumbnails of what one or two strategies pick.

    images: the pool. codes: autoencoder's name -> its codes (N, L), from which the strategies choose. views: the same
    names -> maps (N, 2), as from la.project(codes) or of another model; by default the codes themselves if L = 2, else
    their principal components. errors: the same names -> reconstruction errors (N,), which add the strategies that
    need them. strategies: the names offered, by default all that need no label;
    strategy, second (None: only one), n (None: 100, or all of fewer images), seed: what is shown first.
    comparison: autoencoder's name -> a table of `la.compare`, or of `la.experiments.compare_query_sets` with one ratio,
    of random and others on such a map, with two seeds or more. The sentence then says how many random labels are worth
    as much as the strategy's, together with those that its run began with, by results.label_saving.
    store: where answers are put that are read from a file; without it selections can be written only.
    The box tells `selection`, the indices (n,) int64 that are "to label", empty after an error; and `controls`, a dict
    of widgets by name: autoencoder, n, to label; those of StrategyControls; and these again with "second " before.
    Raises ValueError for other codes, unknown names, and a comparison that results.label_saving refuses.
    """
    count = len(check_type("images", images, ImageSet))
    views, errors, comparison = ({} if each is None else each for each in (views, errors, comparison))
    if not check_type("codes", codes, Mapping):
        raise ValueError("codes must hold at least one autoencoder's name and its codes (N, L), got none")
    for what, each in {"views": views, "errors": errors, "comparison": comparison}.items():
        for name in check_type(what, each, Mapping):
            check_choice(what, name, codes)
    errors = {name: check_numbers(each, f"errors[{name!r}]", count) for name, each in errors.items()}
    codes = {name: check_codes(each, f"codes[{name!r}]", count).cpu() for name, each in codes.items()}
    views = {name: check_map(each, f"views[{name!r}]", count) for name, each in views.items()}
    places = {name: Places(each, errors.get(name), views.get(name)) for name, each in codes.items()}
    offered = [name for name in LABEL_FREE if errors or "errors" not in STRATEGIES[name].needs]
    offered = offered if strategies is None else check_chosen("strategy", strategies, STRATEGIES)
    check_choice("strategy", check_choice("strategy", strategy, STRATEGIES), offered)
    second = NONE if second is None else check_choice("second", second, offered)
    n = min(USUAL_N, count) if n is None else check_int("n", n, low=1, high=min(MAX_N, count))
    seed = check_int("seed", seed, low=0, high=MAX_SEED)
    saving = {}
    for name, table in comparison.items():
        saved = results.label_saving(table, labels="all")
        begun = table.loc[table["round"] == 0, "labels"] if "round" in table else ()  # with labels no strategy chose
        saving[name] = saved[~saved["labels"].isin(begun)]
    first = StrategyControls(offered, strategy, seed, count)
    other = StrategyControls([NONE, *offered], second, seed, count, prefix="second ")
    return SamplingExplorer(images, places, first, other, n, saving, store)


def selection_in_words(images: ImageSet, index: torch.Tensor, strategy: str, threshold: float | None = None) -> str:
    """What was picked, index (n,), in a sentence or two: number, strategy, threshold, classes, balance, extremes."""
    text = f"{len(index)} of {len(images):,} images picked by {strategy}"
    if threshold is not None:
        text += f", none farther than {threshold:.3g} from its draw"
    if images.labels is None:
        return f"{text}. The images have no labels to count."
    labels = images.labels[index]
    counts, name = class_totals(labels, images.n_classes), images.class_names
    most, least = int(counts.argmax()), int(counts.argmin())
    rarest = f"never {name[least]}" if counts[least] == 0 else f"least often {name[least]} ({int(counts[least])})"
    text += f": {classes_in_words(labels, images.n_classes)}"
    return f"{text}. Most often {name[most]} ({int(counts[most])}), {rarest}."


def worth_in_words(saving: pd.DataFrame, strategy: str, n: int) -> str:
    """How many random labels are worth as much as a strategy's, measured at the number of labels nearest to n.

    saving: what results.label_saving(table, labels="all") returns.
    """
    if strategy == "random":
        return "Random labels are the measure."
    rows = saving[saving["strategy"] == strategy]
    if rows.empty:
        return f"{strategy} is not in the comparison."
    row = rows.loc[(rows["labels"] - n).abs().idxmin()]
    low, high = row["labels"] * row["low"], row["labels"] * row["high"]
    ends = f"from {low:,.0f} up" if high == float("inf") else f"{low:,.0f} to {high:,.0f}"
    needed = f"{row['bound'] or 'about'} {counted(round(row['needed']), 'random one')} (95 % interval {ends})"
    return f"In the comparison, {counted(row['labels'], 'label')} by {strategy} taught as much as {needed}."


class SamplingExplorer(Panel):
    """See sampling_explorer, which checks the arguments and builds the strategies' controls."""

    def __init__(self, images, places, first, second, n, saving, store):
        self.images, self.places, self.strategies, self.saving = images, places, (first, second), saving
        count = {"value": n, "min": 1, "max": min(MAX_N, len(images)), "continuous_update": False}
        shared = {"autoencoder": control(ipywidgets.Dropdown, "autoencoder", options=list(places))}
        shared["n"] = control(ipywidgets.IntSlider, "n (images)", **count)
        last = {"to label": control(ipywidgets.Dropdown, "to label", options=(FIRST,))}
        self.controls = shared | first.controls | {f"second {k}": v for k, v in second.controls.items()} | last
        self.sentence, self.pictures, self.sheets = Sentence(), row(), [Sheet(images), Sheet(images)]
        self.map = SamplingMap(images, next(iter(places.values())).view)
        self.exchange = Exchange(images, lambda: self.selection, store)
        panel = ipywidgets.VBox([*shared.values(), first, second, *last.values()], layout={"width": "320px"})
        super().__init__([row(panel, self.map), self.sentence, self.exchange, self.pictures, Names()])
        for name, each in self.controls.items():
            each.observe(self._say if name == "to label" else self._update, names="value")
        self._update()

    @property
    def selection(self) -> torch.Tensor:
        """What is to be labelled (n,), int64: the first strategy's picks, the second's, or both, the first's first."""
        first, second = self.picked
        both = torch.cat([first, second[~torch.isin(second, first)]])
        return {FIRST: first, SECOND: second, BOTH: both}[self.value("to label")].clone()

    def _update(self, _=None):
        autoencoder, one = self.value("autoencoder"), self.value("second strategy") == NONE
        picks = (strategy.pick(self.places[autoencoder], self.value("n")) for strategy in self.strategies)
        self.picked, self.troubles = zip(*picks, strict=True)
        self.controls["to label"].options = (FIRST,) if one else (FIRST, SECOND, BOTH)
        self.controls["to label"].disabled = one
        which = ("", "") if one else ("first: ", "second: ")
        self.shown = [part for part in zip(which, self.strategies, self.picked, strict=True) if len(part[2])]
        marks = {f"{which}{each.value('strategy')}": index for which, each, index in self.shown}
        self.map.mark(self.places[autoencoder].view, marks, autoencoder)
        histograms = _histograms(self.images, [index for *_, index in self.shown])
        for sheet, (name, index), histogram in zip(self.sheets, marks.items(), histograms, strict=False):
            sheet.show(name, index, histogram)
        self.pictures.children = self.sheets[: len(self.shown)]
        self._say()

    def _say(self, _=None):
        autoencoder, lines = self.value("autoencoder"), []
        places, saving = self.places[autoencoder], self.saving.get(autoencoder)
        for which, each, index in self.shown:
            strategy, seed = each.value("strategy"), each.value("seed")
            text = selection_in_words(self.images, index, strategy, each.reach(places))
            worth = "" if saving is None else f" {worth_in_words(saving, strategy, len(index))}"
            lines.append(f"{which.capitalize()}{autoencoder}, seed {seed}: {text}{worth}")
        if len(self.shown) > 1:
            both = int(torch.isin(*self.picked).sum())
            cost = counted(sum(map(len, self.picked)) - both, "label")
            chosen = f"To be labelled: {self.value('to label')}, {counted(len(self.selection), 'image')}."
            lines.append(f"{counted(both, 'image')} picked by both, so that both together cost {cost}. {chosen}")
        self.sentence.value = "\n".join([*lines, *filter(None, self.troubles)])


class Sheet(ipywidgets.HBox):
    """The class histogram, if the images have classes, beside the thumbnails of what a strategy picks, or above."""

    def __init__(self, images):
        self.images, self.heading = images, ipywidgets.HTML(layout={"width": "100%"})
        self.thumbnails = ipywidgets.HTML(layout={"width": "420px"})
        (first,) = _histograms(images, [torch.arange(len(images))])
        self.histogram = None if first is None else Plot(first)
        children = filter(None, (self.heading, self.histogram, self.thumbnails))
        super().__init__([*children], layout=WRAP | {"flex": "1 1 440px"})

    def show(self, name, index, histogram):
        """Show the images at `index` (n,), and their histogram, if they have classes."""
        self.heading.value = f"<b>{name}</b>"
        shown, n = index[:THUMBNAILS], len(index)
        tiles, _, _ = canvas(wrap(pixels(self.images.images[shown]), columns=10), 1, 1)
        caption = f"All {n} picks" if n <= THUMBNAILS else f"The first {THUMBNAILS} of {n} picks"
        words = html.escape(f"{caption}: {', '.join(captions_of(self.images, shown))}", quote=True)
        image = f'<img src="{png(tiles)[1]}" alt="{words}" style="width:400px">'
        self.thumbnails.value = f"<p>{caption}, in order</p>{image}"
        if self.histogram is not None:
            self.histogram.show(histogram)


def _histograms(images, queries):
    """A class histogram of each query set, all on one scale; None of each where images have no classes."""
    if images.labels is None:
        return [None] * len(queries)
    made = [figures.class_histogram(images, index).update_layout(width=440, height=340) for index in queries]
    top = max([1, *(max(bars.y) for fig in made for bars in fig.data)])
    return [fig.update_yaxes(range=[0, 1.05 * top]) for fig in made]
