"""Counts, curves and comparisons: class histogram, history, differences to a baseline, confusion, relation."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from lalib.codes.measures import class_balance
from lalib.data.checks import check_number, check_type
from lalib.data.door import as_tensor, check_class_names, check_index, check_labels
from lalib.figures.marks import check_frame, check_numbers, dots, labels_of, points, verdicts
from lalib.figures.style import COLOURS, FOOT, GREY, HEAD, INK, apply_layout, colour, symbol
from lalib.training.fitting import History

BLUE, ORANGE = COLOURS[:2]
UNITS = {"tsne": "nats", "saturated": "share of outputs", "accuracy": "share of images"}
UNITS |= {"told_apart": "balanced accuracy"}
# Words (of the baseline), colour and shape of a difference whose interval lies above, around, below zero.
VERDICTS = {
    1: ("better than {}", BLUE, "circle"),
    0: ("interval holds 0", GREY, "circle-open"),
    -1: ("worse than {}", "#D55E00", "square"),
}


def class_histogram(images, index: torch.Tensor, *, title: str | None = None) -> go.Figure:
    """How many of each class were picked, against the pool's proportions; the title tells the balance.

    images: ImageSet with labels, or labels (N,), or (N, C) of 0 and 1 (then labels are counted, not images).
    index: (n,) indices into them. Balance: entropy of the picked classes over log C; 1 is even, 0 a single class.
    """
    labels, names = labels_of(images)
    if labels is None:
        raise ValueError("a class histogram needs labels: pass an ImageSet with labels, or labels (N,); got none")
    labels = check_labels(labels, n_classes=len(names), several=True)  # -1, no label, cannot be counted
    index = check_index(index, len(labels), "index")
    if not len(index):
        raise ValueError("index must hold at least one image, got none")
    picked, pool = (class_totals(some, len(names)) for some in (labels[index], labels))
    place = list(range(len(names)))
    every = {"x": np.array(place), "customdata": list(names)}
    hollow = {"color": "rgba(0,0,0,0)", "line": {"color": INK, "width": 2}}
    bars = go.Bar(every, y=picked, marker={"color": [colour(c) for c in place]}, showlegend=False)
    open_bars = go.Bar(every, y=pool / len(labels) * len(index), marker=hollow, name="the pool's proportions")
    bars.hovertemplate = "%{customdata}: %{y} picked<extra></extra>"
    open_bars.hovertemplate = "%{customdata}: %{y:.1f} at the pool's proportions<extra></extra>"
    fig = go.Figure([bars, open_bars])
    ticks = [f"{name}<br><b>{n:.0f}</b>" for name, n in zip(names, picked, strict=True)]
    fig.update_xaxes(title_text="class and images picked", tickvals=place, ticktext=ticks)
    fig.update_yaxes(title_text="images picked", rangemode="tozero")
    title = title or f"Classes of the {len(index)} picked images"
    subtitle = f"{classes_in_words(labels[index], len(names))} (1: even, 0: a single class)"
    look = {"legend": HEAD | {"y": 1}, "margin_t": 104, "margin_b": 76, "bargap": 0.25, "barmode": "overlay"}
    return apply_layout(fig, title, subtitle, width=max(720, 100 + 52 * len(names)), height=440, **look)


def classes_in_words(labels: torch.Tensor, n_classes: int) -> str:
    """How many classes are among labels (n,) or (n, C), and how evenly: "9 of 10 classes, balance 0.97"."""
    counts = class_totals(labels, n_classes)
    text = f"{int((counts > 0).sum())} of {n_classes} classes"
    if n_classes < 2 or not counts.any():
        return text
    each = labels.nonzero()[:, 1] if labels.ndim == 2 else labels
    return f"{text}, balance {class_balance(each, n_classes):.2f}"


def class_totals(labels: torch.Tensor, n_classes: int) -> np.ndarray:
    """How many of labels (n,) or (n, C) are of each class, (C,) float64."""
    counts = labels.sum(dim=0) if labels.ndim == 2 else torch.bincount(labels, minlength=n_classes)
    return counts.numpy().astype(float)


def history(history: History | pd.DataFrame, *, unit: str = "nats per image", title: str | None = None) -> go.Figure:
    """Loss and its terms over the epochs, training solid and validation dashed, one panel each.

    history: what `la.fit` returns, or its frame(); ValueError for one without epochs. unit: of loss, reconstruction
    and kl; the default is that of the reconstruction loss "bce".
    """
    frame = history.frame() if isinstance(history, History) else history
    check_frame(frame, ["epoch", "loss"], rows="at least one epoch", name="history")
    others = [c for c in frame if c not in ("epoch", "loss", "images", "seconds") and not c.startswith("val_")]
    terms = ["loss", *(c for c in others if not np.allclose(frame[c], frame["loss"]))]  # none that repeats the loss
    fig = make_subplots(rows=1, cols=len(terms), subplot_titles=terms, horizontal_spacing=0.24 / len(terms))
    looks = {"": ("training", BLUE, "circle", "solid"), "val_": ("validation", ORANGE, "diamond", "dash")}
    for place, term in enumerate(terms, 1):
        for prefix, (name, shade, shape, dash) in looks.items():
            if (column := prefix + term) in frame:
                look = {"line": {"color": shade, "dash": dash, "width": 2}, "marker": {"symbol": shape, "size": 6}}
                look |= {"name": name, "legendgroup": name, "showlegend": place == 1, "mode": "lines+markers"}
                fig.add_trace(go.Scatter(x=frame["epoch"], y=frame[column], **look), row=1, col=place)
        whole = {"dtick": 1} if len(frame) <= 10 else {}  # no tick at half an epoch
        fig.update_xaxes(title_text="epoch", rangemode="tozero", **whole, row=1, col=place)
        fig.update_yaxes(title_text=UNITS.get(term, unit), row=1, col=place)
    best = getattr(history, "best_epoch", None)
    subtitle = "" if best is None or "val_loss" not in frame else f"dotted line: best epoch on validation, {best}"
    if subtitle:
        fig.add_vline(x=best, line={"dash": "dot", "color": GREY, "width": 1.5})
    size = {"width": max(520, 110 + 330 * len(terms)), "height": 400}
    return apply_layout(fig, title or "Training", subtitle, **size, legend=HEAD | {"y": 1.12}, margin_t=104)


def accuracy_curve(curve: pd.DataFrame, *, width: int | None = None, height: int = 170) -> go.Figure:
    """How the accuracy of one run grows with its labels, with the interval of each round as a bar.

    curve: a row per round with labels, accuracy, low and high (shares). width: in pixels, None for all that is there.
    """
    check_frame(curve, ["labels", "accuracy", "low", "high"], rows="a row per round", name="curve")
    x, accuracy, low, high = curve["labels"], *(100 * curve[name] for name in ("accuracy", "low", "high"))
    line = go.Scatter(x=x, y=accuracy, customdata=np.array([low, high]).T, mode="lines+markers", line={"color": BLUE})
    line.error_y.update(symmetric=False, array=high - accuracy, arrayminus=accuracy - low, thickness=1)
    line.hovertemplate = "%{x} labels: %{y:.1f} % (%{customdata[0]:.1f} to %{customdata[1]:.1f})<extra></extra>"
    fig = go.Figure(line)
    fig.update_xaxes(title={"text": "labels", "standoff": 4, "font_size": 13}, rangemode="tozero")
    fig.update_yaxes(title={"text": "accuracy (%)", "standoff": 4, "font_size": 13})
    apply_layout(fig, "Accuracy with 95 % intervals", width=width, height=height, showlegend=False)
    return fig.update_layout(margin={"l": 52, "r": 8, "t": 30, "b": 36}, title={"font_size": 13, "pad_t": 8})


def comparison(
    frame: pd.DataFrame,
    *,
    baseline: str = "random",
    facets: str | Sequence[str] = (),
    scale: float = 100.0,
    label: str | None = None,
    p: str | None = None,
    title: str | None = None,
    subtitle: str = "paired difference, mean and 95 % interval over seeds",
) -> go.Figure:
    """A dot and an interval per strategy: the paired difference to the baseline.

    frame: columns strategy, difference, low, high, and those named in `facets`; one row per strategy (and facet).
    baseline: what the differences are to, for the words of legend, axis and title. facets: up to two columns; the first
    makes the columns of panels, the second the rows. scale: numbers are multiplied by it: 100 turns differences of
    accuracy in [0, 1] into percentage points. label: of the axis; None for accuracy. p: a column such as p_holm; a
    strategy then counts as better or worse if it is below 0.05 there. None: if its interval leaves out 0.
    Raises ValueError for missing columns, and if a strategy comes twice within a panel.
    """
    facets = [facets] if isinstance(facets, str) else check_type("facets", facets, Iterable)
    facets = [check_type("facets", facet, str) for facet in facets]
    scale, numbers = check_number("scale", scale), ["difference", "low", "high"]
    deciding = [] if p is None else [check_type("p", p, str)]
    needed = ["strategy", *numbers, *deciding, *facets]
    check_frame(frame, needed, numbers + deciding)
    if len(facets) > 2:
        raise ValueError(f"facets must name at most two columns, got {facets}")
    if frame.duplicated(["strategy", *facets]).any():
        rest = [c for c in frame if c not in needed]
        raise ValueError(f"a strategy comes more than once in a panel: name what tells its rows apart in facets={rest}")
    told = verdicts(frame, 0) if p is None else np.sign(frame["difference"]) * (frame[p] < 0.05)
    frame, unsure = frame.assign(**scale * frame[numbers], told=told), f"{p} of 0.05 or more" if p else VERDICTS[0][0]
    across, down = (list(dict.fromkeys(frame[f])) if f else [None] for f in [*facets, None, None][:2])
    layout = {"shared_xaxes": "all", "shared_yaxes": True, "horizontal_spacing": 0.03}
    layout["column_titles"] = [f"{facets[0]}: {a}" for a in across] if facets else None
    layout["row_titles"] = [f"{facets[1]}: {d}" for d in down] if len(facets) > 1 else None
    fig = make_subplots(len(down), len(across), vertical_spacing=0.12 / len(down), **layout)
    order = frame.groupby("strategy")["difference"].mean().sort_values().index.tolist()
    for (r, d), (c, a) in itertools.product(enumerate(down, 1), enumerate(across, 1)):
        inside = [frame[facet] == value for facet, value in zip(facets, (a, d), strict=False)]
        _panel(fig, frame[np.all(inside, axis=0)] if facets else frame, baseline, unsure, row=r, col=c)
    fig.update_yaxes(categoryorder="array", categoryarray=order, range=[-0.6, len(order) - 0.4])
    fig.update_xaxes(zeroline=False)
    label = label or f"accuracy minus {baseline}'s (percentage points)"
    fig.update_xaxes(title_text=label, row=len(down), col=(len(across) + 1) // 2)
    size = {"width": max(720, 330 + 300 * len(across)), "height": 200 + len(down) * (50 + 26 * len(order))}
    title, top = title or f"Strategies against {baseline}", 104 if facets else 84
    return apply_layout(fig, title, subtitle, **size, legend=FOOT, margin_t=top, margin_b=96)


def _panel(fig, frame, baseline, unsure, **cell):
    for sign, (words, shade, shape) in VERDICTS.items():
        rows, words = frame[frame["told"] == sign], words if sign else unsure
        if len(rows):
            first = all(trace.legendgroup != words for trace in fig.data)
            look = {"name": words.format(baseline), "legendgroup": words, "showlegend": first}
            look |= {"marker": {"color": shade, "symbol": shape}, "hovertemplate": "%{y}: %{x:.2f}<extra></extra>"}
            fig.add_trace(dots(rows, "difference", rows["low"], rows["high"], **look), **cell)
    fig.add_vline(x=0, line={"color": INK, "width": 1.2}, **cell)


def confusion(labels: torch.Tensor, predicted: torch.Tensor, class_names: Sequence[str] | None = None) -> go.Figure:
    """Share of every true class (row) that is given each class (column), with the accuracy in the title.

    labels, predicted: (N,) class numbers. class_names: C names, default the numbers.
    """
    labels = check_labels(labels).cpu()
    predicted = check_labels(predicted, len(labels), name="predicted").cpu()
    n = max(int(labels.max()), int(predicted.max())) + 1
    for name, numbers in (("labels", labels), ("predicted", predicted)):
        check_labels(numbers, n_classes=n, name=name)
    if class_names is not None:
        class_names = check_class_names(class_names)
        n = max(n, len(class_names))
    return confusion_matrix(torch.bincount(labels * n + predicted, minlength=n**2).view(n, n), class_names)


def confusion_matrix(counts: torch.Tensor | pd.DataFrame, class_names: Sequence[str] | None = None) -> go.Figure:
    """`confusion` of counts (C, C), rows true classes, such as those of results.confusion, whose names it takes."""
    if isinstance(counts, pd.DataFrame) and class_names is None:
        class_names = map(str, counts.columns)
    counts = as_tensor(counts, "counts").cpu()
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.any():
        raise ValueError(f"counts must have shape (C, C) and not all be 0, got {tuple(counts.shape)}")
    if not ((counts >= 0) & torch.isfinite(counts)).all():
        raise ValueError("counts must be numbers of images, got negative ones, NaN or infinity")
    names = check_class_names(map(str, range(len(counts))) if class_names is None else class_names, len(counts))
    share = 100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    heat = go.Heatmap(z=share.numpy(), x=names, y=names, colorscale="Blues", zmin=0, zmax=100, texttemplate="%{z:.0f}")
    heat.update(colorbar={"title": {"text": "% of row"}}, hovertemplate="%{y} called %{x}: %{z:.1f} %<extra></extra>")
    fig, names = go.Figure(heat), {"type": "category", "constrain": "domain"}
    fig.update_xaxes(title_text="predicted class", **names)
    fig.update_yaxes(title_text="true class", autorange="reversed", scaleanchor="x", **names)
    subtitle = f"accuracy {100 * float(counts.trace() / counts.sum()):.1f} % of {int(counts.sum()):,} images"
    return apply_layout(fig, "Confusion of classes", subtitle, width=680, height=640, margin_l=100)


def relation(x: torch.Tensor, y: torch.Tensor, *, x_title: str, y_title: str, title: str | None = None) -> go.Figure:
    """Two numbers per image against each other, with Spearman's rank correlation in the title.

    x, y: (N,). x_title, y_title: what they are, with their units.
    """
    from scipy.stats import spearmanr

    x, y = check_numbers(x, "x").double(), check_numbers(y, "y").double()
    if x.shape != y.shape or len(x) < 2:
        raise ValueError(f"x and y must both have shape (N,) with N >= 2, got {tuple(x.shape)} and {tuple(y.shape)}")
    marker = {"color": BLUE, "size": 5, "opacity": 0.4, "symbol": symbol(0)}
    hover = "image %{customdata}<br>%{x:.4g}, %{y:.4g}<extra></extra>"
    fig = go.Figure(points(torch.stack([x, y], 1), torch.arange(len(x)), marker=marker, hovertemplate=hover))
    fig.update_xaxes(title_text=check_type("x_title", x_title, str))
    fig.update_yaxes(title_text=check_type("y_title", y_title, str))
    subtitle = f"Spearman's rank correlation {spearmanr(x, y).statistic:.2f}, {len(x):,} images"
    return apply_layout(fig, title or f"{y_title} against {x_title}", subtitle, width=640, height=520)
