"""The sampling explorer: choose an autoencoder, a strategy and its options, and see which images it picks.

What is picked and how that is put into words are plain functions; SamplingExplorer only wires them to controls and
pictures.
"""

import html
import inspect
from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import torch

from lalib import figures
from lalib._checks import LalibError, check_choice, check_codes, check_int
from lalib.data import ImageSet
from lalib.figures._style import COLOURS, INK, apply_layout, pixels, png
from lalib.figures.curves import classes_in_words
from lalib.figures.images import canvas, captions_of, wrap
from lalib.geometry import median_nn_distance, ward
from lalib.strategies import LABEL_FREE, STRATEGIES, select
from lalib.strategies.matching import default_threshold
from lalib.widgets._parts import LABEL, Sentence

__all__ = ["SamplingExplorer", "options_of", "sampling_explorer", "selection_in_words"]

THRESHOLDS = (0.5, 1, 2, 3, 5, 10, 20, 50)  # in median distances to the nearest neighbour
NO_THRESHOLD = "none"  # not None, which a SelectionSlider cannot hold
PLOTLY_SYMBOLS = (0, 1, 2, 5, 3, 4, 6, 17, 13)  # plotly's numbers of figures' SYMBOLS
MAX_N, MAX_CLUSTERS, MAX_SEED, THUMBNAILS = 1_000, 50, 99, 60


def sampling_explorer(
    images: ImageSet,
    codes: Mapping[str, torch.Tensor],
    *,
    errors: Mapping[str, torch.Tensor] | None = None,
    strategies: Sequence[str] | None = None,
    strategy: str = "normal-in-clusters",
    n: int = 100,
    seed: int = 0,
) -> "SamplingExplorer":
    """A box of controls beside the map, the thumbnails and the class histogram of what is picked.

    images: the pool. codes: autoencoder's name -> its codes (N, 2). errors: the same names -> reconstruction errors
    (N,), which add "reconstruction-error" to the strategies. strategies: the names offered, by default all that need
    no label; strategy, n, seed: what is shown first.
    The box tells `selection`, the picked indices (n,) int64, empty after an error; and `controls`, a dict of widgets
    by name: autoencoder, strategy, n, threshold, match, clusters, seed. The threshold is set in median distances
    to the nearest neighbour, so that it means the same on every map.
    Raises ValueError for codes that are not (N, 2) with N the number of images, and for unknown names.
    """
    if not codes:
        raise ValueError("codes must hold at least one autoencoder's name and its codes (N, 2), got none")
    codes = {name: _check_map(name, each, len(images)) for name, each in codes.items()}
    errors = dict(errors or {})
    for name in errors:
        check_choice("errors", name, codes)
    offered = strategies or [s for s in LABEL_FREE if s != "reconstruction-error" or errors]
    for name in (*offered, strategy):
        check_choice("strategy", name, STRATEGIES)
    check_choice("strategy", strategy, offered)
    check_int("n", n, low=1, high=min(MAX_N, len(images)))
    check_int("seed", seed, low=0, high=MAX_SEED)
    controls = _controls(list(codes), list(offered), strategy, n, seed, len(images))
    return SamplingExplorer(images, codes, errors, controls)


def options_of(strategy: str) -> set[str]:
    """The names of a strategy's own options."""
    parameters = inspect.signature(STRATEGIES[strategy]).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"generator"}


def selection_in_words(images: ImageSet, index: torch.Tensor, strategy: str, threshold: float | None = None) -> str:
    """What was picked, as a sentence or two: number, strategy, threshold, classes with their balance, extremes."""
    text = f"{len(index)} of {len(images):,} images picked by {strategy}"
    if threshold is not None:
        text += f", none farther than {threshold:.3g} from its draw"
    if images.labels is None:
        return f"{text}. The images have no labels to count."
    labels = images.labels[index]
    counts = labels.sum(dim=0) if images.multi_label else torch.bincount(labels, minlength=images.n_classes)
    most, least = int(counts.argmax()), int(counts.argmin())
    name = images.class_names
    rarest = "never" if counts[least] == 0 else f"least often ({int(counts[least])})"
    return (
        f"{text}: {classes_in_words(labels, images.n_classes)}. "
        f"Most often ({int(counts[most])}): {name[most]}; {rarest}: {name[least]}."
    )


class SamplingExplorer(ipywidgets.VBox):
    """See sampling_explorer, which checks the arguments and builds the controls."""

    def __init__(self, images, codes, errors, controls):
        self.images, self.codes, self.errors, self.controls = images, codes, errors, controls
        self.selection = torch.empty(0, dtype=torch.int64)
        self.sentence = Sentence()
        self._units, self._assignments = {}, {}
        self.map = _map(images, codes[controls["autoencoder"].value])
        self.thumbnails = ipywidgets.HTML(layout={"width": "420px"})
        self.histogram = None if images.labels is None else _histogram(images)
        pictures = [self.thumbnails] if self.histogram is None else [self.histogram, self.thumbnails]
        self.pictures = ipywidgets.HBox(pictures, layout={"flex_flow": "row wrap"})
        panel = ipywidgets.VBox(list(controls.values()), layout={"width": "340px"})
        top = ipywidgets.HBox([panel, self.map], layout={"flex_flow": "row wrap"})
        super().__init__([top, self.sentence, self.pictures])
        for name, control in controls.items():
            control.observe(self._move_map if name == "autoencoder" else self._update, names="value")
        self._update()

    def value(self, name: str):
        """The value of a control."""
        return self.controls[name].value

    @property
    def threshold(self) -> float | None:
        """The distance chosen, in units of the codes, or None for the strategy's default."""
        multiple = self.value("threshold")
        return None if multiple == NO_THRESHOLD else multiple * self._unit(self.value("autoencoder"))

    @property
    def options(self) -> dict:
        """What is passed to the strategy: those of the controls' values that it takes."""
        chosen = {"threshold": self.threshold, "match": self.value("match"), "clusters": self.value("clusters")}
        return {name: chosen[name] for name in chosen if name in options_of(self.value("strategy"))}

    def _reach(self):
        """The threshold in force, for the sentence: `match` has a default of its own."""
        options = self.options
        if "match" not in options:
            return None
        codes = self.codes[self.value("autoencoder")]
        return default_threshold(codes, options["match"], options["threshold"], "euclidean")

    def _unit(self, name):
        if name not in self._units:
            self._units[name] = float(median_nn_distance(self.codes[name]))
        return self._units[name]

    def _assignment(self, name, clusters):
        """Clustering is the slow part: every one is made once."""
        if (name, clusters) not in self._assignments:
            self._assignments[name, clusters] = ward(self.codes[name], clusters)
        return self._assignments[name, clusters]

    def _pick(self):
        name, options = self.value("autoencoder"), self.options
        if "clusters" in options:
            options["clusters"] = self._assignment(name, options["clusters"])
        chosen = {"seed": self.value("seed"), "errors": self.errors.get(name)}
        return select(self.value("strategy"), self.codes[name], self.value("n"), **chosen, **options)

    def _move_map(self, _=None):
        self._redraw_points(0, torch.arange(len(self.images)))
        self._update()

    def _redraw_points(self, trace, index, **marker):
        """One trace at a time: a batch over several resets in the browser what only some of them change."""
        x, y = self.codes[self.value("autoencoder")][index].T.numpy()
        with self.map.batch_update():
            self.map.data[trace].update(x=x, y=y, customdata=index.numpy(), marker=marker)

    def _update(self, _=None):
        taken = options_of(self.value("strategy"))
        for name in ("threshold", "match", "clusters"):
            self.controls[name].disabled = name not in taken
        try:
            self.selection = self._pick()
            text = selection_in_words(self.images, self.selection, self.value("strategy"), self._reach())
        except (LalibError, ValueError, TypeError) as error:
            self.selection, text = torch.empty(0, dtype=torch.int64), f"Nothing picked: {error}"
        self._draw()
        self.sentence.value = text

    def _draw(self):
        index = self.selection
        color, shape = _look(self.images, index)
        self._redraw_points(1, index, color=color, symbol=shape)
        self._redraw_points(2, index)
        self.map.layout.title.text = f"{self.value('autoencoder')}: {len(index)} picked by {self.value('strategy')}"
        self.pictures.layout.display = None if len(index) else "none"
        if not len(index):
            return
        self.thumbnails.value = _thumbnails(self.images, index)
        if self.histogram is not None:
            _redraw(self.histogram, figures.class_histogram(self.images, index))


def _check_map(name, codes, n):
    codes = check_codes(codes, f"codes[{name!r}]").detach().cpu()
    if codes.shape != (n, 2):
        raise ValueError(
            f"codes[{name!r}] must have shape ({n}, 2), one row per image, got {tuple(codes.shape)}: "
            "la.project(codes) makes wider ones two-dimensional"
        )
    return codes


def _controls(names, strategies, strategy, n, seed, n_images):
    """The widgets by name; each has a description, which is also its label for screen readers."""
    multiples = [("none", NO_THRESHOLD), *((f"{m:g} d", m) for m in THRESHOLDS)]
    return {
        "autoencoder": ipywidgets.Dropdown(options=names, description="autoencoder", style=LABEL),
        "strategy": ipywidgets.Dropdown(options=strategies, value=strategy, description="strategy", style=LABEL),
        "n": _slider("n (images)", n, 1, min(MAX_N, n_images)),
        "threshold": ipywidgets.SelectionSlider(
            options=multiples,
            value=NO_THRESHOLD,
            description="threshold",
            style=LABEL,
            continuous_update=False,
            tooltip="d: median distance to the nearest neighbour; none: the strategy's default",
        ),
        "match": ipywidgets.Dropdown(options=["nearest", "all"], description="match", style=LABEL),
        "clusters": _slider("clusters", min(10, n_images), 1, min(MAX_CLUSTERS, n_images)),
        "seed": _slider("seed", seed, 0, MAX_SEED),
    }


def _slider(description, value, low, high):
    limits = {"value": value, "min": low, "max": high}
    return ipywidgets.IntSlider(**limits, description=description, continuous_update=False, style=LABEL)


def _map(images, codes):
    """Faded points, picked points and rings; the colours travel as int16 class numbers, not as strings."""
    kind = go.Scattergl if len(codes) > figures.maps.MANY_POINTS else go.Scatter
    everything = torch.arange(len(codes))
    hover = {"hovertemplate": "image %{customdata}<extra></extra>", "mode": "markers", "showlegend": False}
    color, shape = _look(images, everything)
    scale = _scale(images) | {"size": 6}
    faded = scale | {"color": color, "symbol": shape, "opacity": 0.3}
    x, y = codes.T.numpy()
    ring = {"symbol": "circle-open", "color": INK, "size": 12, "line": {"width": 1.6}}
    data = [
        kind(x=x, y=y, customdata=everything.numpy(), marker=faded, **hover),
        kind(x=[], y=[], marker=scale | {"showscale": False}, **hover),
        kind(x=[], y=[], marker=ring, **hover),
    ]
    fig = go.FigureWidget(data)
    fig.update_xaxes(title_text="latent coordinate 1", constrain="domain", zeroline=False)
    fig.update_yaxes(title_text="latent coordinate 2", scaleanchor="x", constrain="domain", zeroline=False)
    return apply_layout(fig, "", width=620, height=480)


def _look(images, index):
    """Colour numbers and marker shapes of the images at `index`, int16; all alike where images have no single class."""
    if images.labels is None or images.multi_label:
        return np.zeros(len(index), dtype=np.int16), 0
    labels = images.labels[index].numpy().astype(np.int16)
    return labels, np.array(PLOTLY_SYMBOLS, dtype=np.int16)[labels % len(PLOTLY_SYMBOLS)]


def _scale(images):
    """A stepped colour scale with one step per class, and its bar as the legend."""
    if images.labels is None or images.multi_label:
        return {"colorscale": [[0, "#777777"], [1, "#777777"]], "cmin": 0, "cmax": 1, "showscale": False}
    n = images.n_classes
    steps = [[(c + side) / n, COLOURS[c % len(COLOURS)]] for c in range(n) for side in (0, 1)]
    bar = {"tickvals": list(range(n)), "ticktext": list(images.class_names), "title": {"text": "class"}}
    return {"colorscale": steps, "cmin": -0.5, "cmax": n - 0.5, "showscale": True, "colorbar": bar | {"thickness": 16}}


def _histogram(images):
    fig = go.FigureWidget(figures.class_histogram(images, torch.arange(len(images))))
    return fig.update_layout(width=540, height=400)


def _redraw(widget, fig):
    with widget.batch_update():
        for old, new in zip(widget.data, fig.data, strict=True):
            old.y = new.y
        widget.layout.xaxis.ticktext = fig.layout.xaxis.ticktext
        widget.layout.title.text = fig.layout.title.text


def _thumbnails(images, index, columns=10):
    """An <img> of the first picks with the same in words."""
    shown = index[:THUMBNAILS]
    picture, _, _ = canvas(wrap(pixels(images.images[shown]), columns), 1, 1)
    caption = f"The first {len(shown)} of {len(index)} picks" if len(shown) < len(index) else f"All {len(index)} picks"
    words = html.escape(f"{caption}: {', '.join(captions_of(images, shown))}", quote=True)
    return f'<p>{caption}, in order</p><img src="{png(picture)[1]}" alt="{words}" style="width:400px">'
