"""Who beats whom: the pairwise penalty matrix and the critical-difference diagram."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lalib.data.checks import check_type
from lalib.experiments.results import CriticalDifference
from lalib.figures.marks import check_frame
from lalib.figures.style import COLOURS, INK, apply_layout


def penalty_matrix(frame: pd.DataFrame, *, title: str = "Pairwise penalty matrix") -> go.Figure:
    """How often the strategy of a row beats that of a column; the best, with the lowest mean, first.

    frame: what `la.results.penalty_matrix` returns, with the last row "mean".
    """
    names = list(check_type("frame", frame, pd.DataFrame).columns)
    if list(frame.index) != [*names, "mean"]:
        raise ValueError(f"frame must have a row per column and a last row 'mean', got rows {list(frame.index)}")
    check_frame(frame, names)
    names = frame.loc["mean"].sort_values(kind="stable").index.tolist()
    frame = frame.loc[[*names, "mean"], names]
    text = frame.map("{:.2f}".format).to_numpy()
    np.fill_diagonal(text, "")
    down = [*names, "<b>mean</b>"]
    hover = "%{y} beats %{x}: %{z:.2f}<extra></extra>"
    heat = go.Heatmap(z=frame.to_numpy(), x=names, y=down, text=text, texttemplate="%{text}", hovertemplate=hover)
    fig = go.Figure(heat.update(colorscale="Blues", zmin=0, colorbar={"thickness": 16}, xgap=1, ygap=1))
    fig.add_hline(y=len(names) - 0.5, line={"color": INK, "width": 3})
    fig.update_xaxes(title_text="beaten", type="category", tickangle=-40, showgrid=False)
    fig.update_yaxes(title_text="beats", type="category", autorange="reversed", showgrid=False)
    subtitle = "share of label counts with a significant win (t-test, 5 %); mean: lower is better"
    size = {"width": max(640, 260 + 46 * len(names)), "height": 260 + 40 * len(names)}
    return apply_layout(fig, title, subtitle, **size, margin_l=130, margin_b=110)


def critical_difference(result: CriticalDifference, *, title: str = "Critical-difference diagram") -> go.Figure:
    """Mean ranks on a line, the best on the left; a thick bar joins strategies that are not told apart.

    result: what `la.results.critical_difference` returns.
    """
    check_type("result", result, CriticalDifference)
    k, bars = len(result.strategies), 0.4 * len(result.groups)
    ends = [1 - 0.06 * (k - 1), max(k, 1 + result.difference) + 0.06 * (k - 1)]  # of the axis: a little beyond all
    fig = go.Figure()
    for i, (name, rank) in enumerate(zip(result.strategies, result.ranks, strict=True)):
        left = i < (k + 1) // 2
        depth = -(bars + 1.2 + (i if left else k - 1 - i))
        path = [rank, rank, ends[not left]], [0, depth, depth]  # from the axis down and out to the name at the side
        _line(fig, *path, INK, 1.3, f"{name}: mean rank {rank:.2f}", name=name)
        text = f"{name} <b>{rank:.2f}</b>" if left else f"<b>{rank:.2f}</b> {name}"
        side = {"xanchor": "right", "xshift": -4} if left else {"xanchor": "left", "xshift": 4}
        fig.add_annotation(x=ends[not left], y=depth, text=text, showarrow=False, **side)
    for j, group in enumerate(result.groups):
        own = [result.ranks[result.strategies.index(name)] for name in group]
        level, hover = [-(0.6 + 0.4 * j)] * 2, "not told apart: " + ", ".join(group)
        _line(fig, [min(own) - 0.04, max(own) + 0.04], level, COLOURS[0], 7, hover)
    foot = -(bars + 1.5 + (k + 1) // 2)
    _line(fig, [1, 1 + result.difference], [foot, foot], INK, 3, "critical difference")
    text = f"critical difference {result.difference:.2f}"
    fig.add_annotation(x=1 + result.difference, y=foot, text=text, showarrow=False, xanchor="left", xshift=6)
    ticks = {"tickvals": list(range(1, k + 1)), "side": "top", "showgrid": False, "zeroline": False, "ticks": "inside"}
    fig.update_xaxes(title_text="mean rank (1 is best)", range=ends, showline=True, linecolor=INK, **ticks)
    fig.update_yaxes(visible=False, range=[foot - 0.6, 0])
    p = "p < 0.001" if result.p < 0.001 else f"p = {result.p:.3f}"
    subtitle = f"{result.blocks} blocks; all alike: {p} (Friedman); bars: not told apart at {100 * result.alpha:g} %"
    side = 60 + 8 * max(map(len, result.strategies))  # pixels for the names
    size = {"width": 560 + 2 * side, "height": round(170 - 34 * foot)}
    return apply_layout(fig, title, subtitle, **size, margin_l=side, margin_r=side, margin_t=130, margin_b=20)


def _line(fig, x, y, shade, width, hover, **look):
    look |= {"mode": "lines", "line": {"color": shade, "width": width}, "showlegend": False}
    fig.add_trace(go.Scatter(x=x, y=y, hovertemplate=f"{hover}<extra></extra>", **look))
