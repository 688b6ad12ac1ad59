"""What active learning gains: learning curves, label saving, the classes of every batch, the picks on a map."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from lalib.data.checks import check_choice, check_int, check_type
from lalib.data.door import check_class_names, check_index
from lalib.experiments.results import batch_classes, curve_data
from lalib.figures.maps import check_map, equal_axes
from lalib.figures.marks import check_chosen, check_frame, dots, points, verdicts
from lalib.figures.style import COLOURS, FOOT, GREY, HEAD, INK, SYMBOLS, apply_layout, heading
from lalib.strategies.view import with_options_of

LINES = tuple(c for c in COLOURS if c != "#F0E442")  # yellow does not carry a line on white
DASHES = ("solid", "longdash", "dot", "dashdot", "dash")
VALUES = {
    "accuracy": ("test accuracy (%)", 100),
    "auc": ("test AUC, mean over labels", 1),
    "told_apart": ("discriminator's balanced accuracy (%)", 100),
    "discriminator_loss": ("discriminator's loss (nats)", 1),
}
# Words (of the baseline) and colour of a saving whose interval lies above, around, below one.
SAVINGS = {1: ("fewer labels than {}", COLOURS[0]), 0: ("interval holds 1", GREY), -1: ("more labels", COLOURS[3])}
BOUNDS = {"": ("", "circle"), "at least": ("≥ ", "triangle-right-open"), "at most": ("≤ ", "triangle-left-open")}
BATCH = "round %{x}, class %{y}: %{customdata:.1f} labels, %{z:.1f} % of the batch<extra></extra>"
# What an image is to a strategy: unlabelled, labelled, picked.
ROLES = {
    "unlabelled": {"color": "#B8B8B8", "symbol": "circle", "size": 4, "opacity": 0.6},
    "labelled": {"color": COLOURS[0], "symbol": "square", "size": 6, "opacity": 0.8},
    "picked": {"color": COLOURS[3], "symbol": "diamond", "size": 9, "line": {"color": INK, "width": 1.2}},
}


def update_learning_curves(
    fig: go.Figure,
    table: pd.DataFrame,
    *,
    value: str = "accuracy",
    strategies: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    baseline: str = "random",
    confidence: float = 0.95,
) -> go.Figure:
    """Draw a later state of the table into a figure of learning_curves and return it.

    Pass the same options as there. Curves keep their looks, new strategies are added, none is taken away.
    """
    check_type("fig", fig, go.Figure)
    frame = curve_data(table, check_type("value", value, str), confidence)
    panels = _panels(strategies, frame["strategy"].unique().tolist(), baseline)
    frame = frame[frame["strategy"].isin(list(itertools.chain(*panels)))]
    (axis, scale), places, most = VALUES.get(value, (value, 1)), _places(frame), 0
    for i, chosen in enumerate(panels):
        number = str(i + 1) if i else ""  # of the panel, as plotly names its axes and legend
        where = {"xaxis": f"x{number}", "yaxis": f"y{number}", "legend": f"legend{number}"}
        drawn = dict.fromkeys(trace.legendgroup for trace in fig.data if trace.xaxis == where["xaxis"])
        order = list(drawn | dict.fromkeys(chosen))
        for strategy in order:
            if strategy in places and strategy not in drawn:
                fig.add_traces([trace.update(where) for trace in _new_traces(strategy, order, baseline)])
        most = max(most, len(order))
    arrays = {column: frame[column].to_numpy() for column in frame}  # ten times faster than frames
    with fig.batch_update():
        for strategy, place in places.items():
            curve = {column: values[arrays["strategy"] == strategy] for column, values in arrays.items()}
            shapes = itertools.cycle(_shapes(curve, scale))  # once for each panel
            for trace, shape in zip(fig.select_traces({"legendgroup": strategy}), shapes, strict=False):
                trace.update(shape, overwrite=True)
                trace.legendrank = place  # counts for lines only
        fig.layout.yaxis.title.text = axis
        if len(panels) == 1:
            fig.layout.height = max(520, 160 + 21 * most)  # the legend whole
        else:
            fig.layout.height, fig.layout.margin.b = 440 + 21 * most, 72 + 21 * most  # the legends stand below
        low, high = int(frame["seeds"].min()), int(frame["seeds"].max())
        seeds = f"{high if low == high else f'{low} to {high}'} seeds"
        words = "one seed: no interval" if high == 1 else f"mean and {100 * confidence:g} % interval over {seeds}"
        fig.layout.title.text = heading(fig.layout.title.text.split("<br><span")[0], words)
    return fig


@with_options_of(update_learning_curves)
def learning_curves(table: pd.DataFrame, *, log: bool = False, title: str = "Learning curves", **options) -> go.Figure:
    """`value` against the number of labels: mean and interval band over seeds, a colour, dash and marker per strategy.

    table: what `la.compare` returns, finished or not; strategies may have different numbers of rounds, and a curve of
    one seed has no band. strategies: which, in this order; None for all; {title: which} for a panel each, all with the
    baseline: more than five bands in one are hard to read. baseline: drawn dark, if it is there.
    log: labels on a logarithmic axis, where a label saving is a distance. The legend stands in the order of the curves.
    """
    panels = strategies if isinstance(strategies := options.get("strategies"), Mapping) else {"": strategies}
    fig = make_subplots(1, len(panels) or 1, shared_yaxes=True, subplot_titles=list(panels), horizontal_spacing=0.03)
    apply_layout(fig, title, " ", width=860 if len(panels) == 1 else 90 + 300 * len(panels), height=520)
    for i, axis in enumerate(fig.select_xaxes(), 1):
        below = {"x": axis.domain[0], "y": -0.22, "yanchor": "top"} if len(panels) > 1 else {}
        fig.update_layout({f"legend{i}": {"itemwidth": 50, "tracegroupgap": 0} | below})
    ticks = [m * 10**e for e in range(1, 7) for m in (1, 2, 5)]
    fig.update_xaxes(title_text="labels bought", zeroline=False, **({"type": "log", "tickvals": ticks} if log else {}))
    return update_learning_curves(fig.update_yaxes(zeroline=False), table, **options)


def _panels(strategies, known, baseline):
    """The strategies of every panel: all that are known, those that are asked for, or these and the baseline."""
    if not isinstance(strategies, Mapping) or not strategies:
        return [check_chosen("strategies", strategies, known)]
    first = [baseline] if baseline in known else []
    asked = [check_chosen("strategies", which, known) for which in strategies.values()]
    return [[*first, *(name for name in which if name not in first)] for which in asked]


def _places(frame):
    """Rank in the legend: by the mean at the last number of labels that all curves have, else at the last of each."""
    wide = frame.pivot(index="labels", columns="strategy", values="mean")
    shared = wide.dropna()
    last = (shared if len(shared) else wide.ffill()).iloc[-1]
    return (1000 + last.rank(ascending=False, method="first")).to_dict()


def _shapes(curve, scale):
    """Outline of the interval (its top from left to right, then its foot back), and the line, with words on hover."""
    mean, low, high = (scale * curve[c] for c in ("mean", "low", "high"))
    sure = np.isfinite(low)
    x = curve["labels"][sure]
    seeds = [f"{n} seeds" if n > 1 else "one seed" for n in curve["seeds"]]
    ends = [f" ({a:.4g} to {b:.4g})" if n > 1 else "" for a, b, n in zip(low, high, curve["seeds"], strict=True)]
    band = {"x": np.r_[x, x[::-1]], "y": np.r_[high[sure], low[sure][::-1]]}
    return band, {"x": curve["labels"], "y": mean, "customdata": np.c_[ends, seeds]}


def _new_traces(strategy, order, baseline):
    """Band and line without points, with the looks that belong to the strategy's place in the order."""
    shade, dash = INK, "dash"
    marker = {"symbol": "circle", "size": 8, "color": "white", "line": {"color": INK, "width": 1.6}}
    if strategy != baseline:
        i = [s for s in order if s != baseline].index(strategy)
        shade, dash = LINES[i % len(LINES)], DASHES[i % len(DASHES)]
        marker = {"symbol": SYMBOLS[(i + i // len(LINES)) % len(SYMBOLS)], "size": 7}
    line, group = {"color": shade, "dash": dash, "width": 2.5}, {"legendgroup": strategy, "name": strategy}
    red, green, blue = bytes.fromhex(shade[1:])
    area = {"fill": "toself", "fillcolor": f"rgba({red},{green},{blue},0.13)", "line": {"width": 0}, "mode": "lines"}
    hover = "%{fullData.name}, %{x} labels: %{y:.4g}%{customdata[0]}, %{customdata[1]}<extra></extra>"
    band = go.Scatter(**area, **group, hoverinfo="skip", showlegend=False)
    return [band, go.Scatter(**group, line=line, marker=marker, mode="lines+markers", hovertemplate=hover)]


def label_saving(
    frame: pd.DataFrame,
    *,
    baseline: str = "random",
    title: str = "Label saving",
    subtitle: str = "estimate and 95 % interval over seeds",
) -> go.Figure:
    """A dot and an interval per strategy: labels that the baseline needs for the same accuracy, over the labels used.

    frame: what `la.results.label_saving` returns, one row per strategy. baseline: the one given there, for the words.
    An estimate that is only a bound is an open triangle; the interval of a lower bound may have no end.
    """
    numbers = ["labels", "saving", "low", "high"]
    check_frame(frame, ["strategy", *numbers, "bound"], numbers, rows="one row per strategy")
    if frame["strategy"].duplicated().any():
        got = f"{len(frame)} rows of {frame['strategy'].nunique()} strategies"
        raise ValueError(f"frame must have one row per strategy (one number of labels), got {got}")
    for bound in frame["bound"]:
        check_choice("bound", bound, BOUNDS)
    frame = frame.sort_values("saving", kind="stable")
    tails = [f"{high:.2f}]" if np.isfinite(high) else "∞)" for high in frame["high"]]
    rows = zip(frame["bound"], frame["saving"], frame["low"], tails, strict=True)
    frame["words"] = [f"<b>{BOUNDS[bound][0]}{x:.2f}</b>  [{low:.2f}, {tail}" for bound, x, low, tail in rows]
    ends = frame[["saving", "low", "high"]].to_numpy()
    ends = ends[np.isfinite(ends) & (ends > 0)]
    if not len(ends):
        raise ValueError("saving, low and high must hold finite numbers above 0, got none")
    edges = min(ends.min(), 1) / 1.2, max(ends.max(), 1) * 1.2
    fig = go.Figure(list(_savings(frame, baseline, *edges)))
    beside = {"x": 1.0, "xref": "paper", "xanchor": "left", "xshift": 10, "showarrow": False}
    for strategy, text in zip(frame["strategy"], frame["words"], strict=True):
        fig.add_annotation(text=text, y=strategy, **beside)
    fig.add_vline(x=1, line={"color": INK, "width": 1.2})
    order = {"categoryorder": "array", "categoryarray": frame["strategy"], "ticklabelstandoff": 8}
    fig.update_yaxes(range=[-0.6, len(frame) - 0.4], **order)
    ticks = [v for v in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 7, 10, 20, 50) if edges[0] <= v <= edges[1]]
    log = {"type": "log", "tickvals": ticks, "range": np.log10(edges).tolist(), "zeroline": False}
    fig.update_xaxes(title_text=f"labels that {baseline} needs / labels used", **log)
    size = {"width": 820, "height": 190 + 30 * len(frame)}
    return apply_layout(fig, title, subtitle, **size, legend=FOOT, margin_b=96, margin_r=170)


def _savings(frame, baseline, left, right):
    """Traces: dots by verdict, whose open intervals end at the edges left and right, and arrows at these ends."""
    for sign, (name, shade) in SAVINGS.items():
        rows = frame[verdicts(frame, 1) == sign]
        low, high = rows["low"].clip(lower=left), rows["high"].clip(upper=right)
        marker = {"color": shade, "symbol": [BOUNDS[bound][1] for bound in rows["bound"]], "size": 11}
        words = [f"{row.words} at {row.labels} labels" for row in rows.itertuples()]
        look = {"customdata": words, "hovertemplate": "%{y}: %{customdata}<extra></extra>"}
        yield dots(rows, "saving", low, high, marker, name=name.format(baseline), **look)
    look = {"mode": "markers", "hoverinfo": "skip", "showlegend": False, "cliponaxis": False}
    arrows = (np.isinf(frame["high"]), right, "triangle-right"), (frame["low"] == 0, left, "triangle-left")
    for leaves, edge, shape in arrows:
        marker = {"symbol": shape, "color": INK, "size": 9}
        yield go.Scatter(x=np.full(leaves.sum(), edge), y=frame["strategy"][leaves], marker=marker, **look)


def class_counts(
    table: pd.DataFrame,
    class_names: Sequence[str] | None = None,
    *,
    strategies: Sequence[str] | None = None,
    columns: int = 3,
    title: str = "Classes of every batch",
) -> go.Figure:
    """A panel per strategy: colour and number are a class's share of the batch of a round (%), mean over seeds.

    table: what `la.compare` returns. class_names: C names, default the numbers. Round 0 is the initial batch.
    """
    frame = batch_classes(table, None if class_names is None else check_class_names(class_names))
    shown = check_chosen("strategies", strategies, frame["strategy"].unique().tolist())
    columns = min(check_int("columns", columns, low=1), len(shown))
    rows, panel, gap = math.ceil(len(shown) / columns), 40 + 22 * frame["class"].nunique(), 90  # pixels
    inner = rows * panel + (rows - 1) * gap
    gaps = {"horizontal_spacing": 0.06 / columns, "vertical_spacing": gap / inner if rows > 1 else 0}
    fig = make_subplots(rows=rows, cols=columns, subplot_titles=shown, shared_yaxes=True, **gaps)
    for place, strategy in enumerate(shown):
        cell, batches = {"row": place // columns + 1, "col": place % columns + 1}, frame[frame["strategy"] == strategy]
        wide = batches.pivot(index="class", columns="round", values=["share", "count"]).loc[batches["class"].unique()]
        share, count = wide["share"], wide["count"].to_numpy()
        text = "%{z:.0f}" if share.shape[1] <= 8 else None
        look = {"texttemplate": text, "hovertemplate": BATCH, "coloraxis": "coloraxis", "customdata": count}
        fig.add_trace(go.Heatmap(x=share.columns.to_numpy(), y=share.index, z=100 * share.to_numpy(), **look), **cell)
        fig.update_xaxes(title_text="round", dtick=1 if batches["round"].max() <= 12 else 5, **cell)
    fig.update_yaxes(type="category", autorange="reversed").update_yaxes(title_text="class", col=1)
    top = 100 * frame.loc[frame["strategy"].isin(shown), "share"].max()
    bar = {"title": {"text": "% of batch", "side": "right"}, "thickness": 16}
    scale = {"colorscale": "Blues", "cmin": 0, "cmax": top, "colorbar": bar}
    seeds = table["seed"].nunique()
    subtitle = f"{f'mean over {seeds} seeds' if seeds > 1 else 'one seed'}; round 0: the initial labels"
    size = {"width": max(560, 190 + 290 * columns), "height": inner + 170}
    return apply_layout(fig, title, subtitle, **size, coloraxis=scale, margin_t=104, margin_l=100, margin_b=66)


def picks(
    view: torch.Tensor | Mapping[str, torch.Tensor],
    *,
    labeled: torch.Tensor,
    picked: torch.Tensor | Mapping[str, torch.Tensor],
    unlabeled: torch.Tensor | None = None,
    axes: str = "t-SNE coordinate",
    title: str = "What is picked",
) -> go.Figure:
    """Unlabelled, labelled and picked images on a map; several maps side by side, e.g. with and without VAE features.

    view: (N, 2), or {panel title: (N, 2)} (`la.project` makes them). labeled: (M,) indices; picked: (n,) indices, or
    {panel title: (n,)}. unlabeled: (K,) indices of the candidates to draw; None for all that are not labelled.
    """
    views = view if isinstance(view, Mapping) else {"": view}
    chosen = picked if isinstance(picked, Mapping) else dict.fromkeys(views, picked)
    if not views or set(views) != set(chosen):
        raise ValueError(f"view and picked must name the same panels, got {list(views)} and {list(chosen)}")
    fig = make_subplots(rows=1, cols=len(views), subplot_titles=list(views), horizontal_spacing=0.16 / len(views))
    for place, (name, codes) in enumerate(views.items(), 1):
        codes = check_map(codes, "view")
        known, new = check_index(labeled, len(codes), "labeled"), check_index(chosen[name], len(codes), "picked")
        if torch.isin(new, known).any():
            raise ValueError("picked must not hold images that are labeled already")
        pool = torch.arange(len(codes)) if unlabeled is None else check_index(unlabeled, len(codes), "unlabeled")
        rest = pool[~torch.isin(pool, torch.cat([known, new]))]  # a picked image is not drawn as unlabelled, too
        roles = {"unlabelled": rest, "labelled": known, "picked": new}
        for role, index in roles.items():
            look = {"marker": ROLES[role], "name": role, "legendgroup": role, "showlegend": place == 1}
            hover = f"image %{{customdata}}, {role}<extra></extra>"
            fig.add_trace(points(codes, index, hovertemplate=hover, **look), row=1, col=place)
        equal_axes(fig, axes, row=1, col=place)
    words = ", ".join(f"{len(index):,} {role}" for role, index in roles.items())
    legend = HEAD | {"y": 1.06, "itemsizing": "constant"}
    return apply_layout(fig, title, words, width=200 + 460 * len(views), height=580, legend=legend, margin_t=120)
