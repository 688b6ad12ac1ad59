"""Figures of a comparison: what is drawn is what the tables hold, colour is never alone, bad input is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

import lalib as la
from lalib.experiments import results
from lalib.figures.style import INK

COUNTS = range(20, 101, 20)


def comparison(rates, seeds=5, noise=0.02, long=200, seed=0):
    """A table of compare: accuracy 1 - exp(-rate n / 100) and noise; random goes on to `long` labels."""
    rng, rows = np.random.default_rng(seed), []
    for strategy, rate in rates.items():
        for s in range(seeds):
            for i, n in enumerate(range(20, long + 1, 20) if strategy == "random" else COUNTS):
                row = {"strategy": strategy, "seed": s, "round": i, "labels": n}
                value = float(1 - np.exp(-rate * n / 100) + rng.normal(0, noise))
                rows.append(row | {"accuracy": value, "counts": rng.multinomial(20, [0.5, 0.3, 0.2]).tolist()})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def table():
    return comparison({"random": 1, "margin": 1.5, "badge": 2, "core-set": 0.6})


def lines(traces):
    return {trace.name: trace for trace in getattr(traces, "data", traces) if trace.fill is None}


def bands(fig):
    return {trace.name: trace for trace in fig.data if trace.fill is not None}


def subtitle(fig):
    return fig.layout.title.text.split(">", 2)[2].removesuffix("</span>")


def test_every_figure_is_covered_titled_white_and_cannot_be_shared(table):
    points = torch.rand(9, 2)
    figures = {
        "class_counts": la.figures.class_counts(table),
        "critical_difference": la.figures.critical_difference(results.critical_difference(table)),
        "label_saving": la.figures.label_saving(results.label_saving(table)),
        "learning_curves": la.figures.learning_curves(table),
        "penalty_matrix": la.figures.penalty_matrix(results.penalty_matrix(table)),
        "picks": la.figures.picks(points, labeled=[0], picked=[1]),
        "update_learning_curves": la.figures.update_learning_curves(la.figures.learning_curves(table), table),
    }
    rooms = ("lalib.figures.learning", "lalib.figures.ranks")  # test_figures.py has the others
    assert set(figures) == {name for name in la.figures.__all__ if getattr(la.figures, name).__module__ in rooms}
    for name, fig in figures.items():
        assert fig.layout.title.text, name
        assert fig.layout.template.layout.plot_bgcolor == "white", name
        assert {"sendChartToCloud", "sendDataToCloud"} <= set(fig.layout.modebar.remove), name
        assert fig.layout.xaxis.title.text, name


# ---------------------------------------------------------------- learning curves


def test_curves_and_bands_are_those_of_curve_data(table):
    fig = la.figures.learning_curves(table)
    frame = results.curve_data(table)
    for strategy, curve in frame.groupby("strategy"):
        line, band = lines(fig)[strategy], bands(fig)[strategy]
        assert line.x.tolist() == curve["labels"].tolist()
        assert line.y == pytest.approx(100 * curve["mean"])
        n = len(curve)
        assert band.y[:n] == pytest.approx(100 * curve["high"])
        assert band.y[n:][::-1] == pytest.approx(100 * curve["low"])
        assert band.x[:n].tolist() == band.x[n:][::-1].tolist() == curve["labels"].tolist()
    assert lines(fig)["random"].x.max() == 200
    assert fig.layout.xaxis.title.text == "labels bought"
    assert fig.layout.yaxis.title.text == "test accuracy (%)"
    assert subtitle(fig) == "mean and 95 % interval over 5 seeds"


def test_colour_dash_and_marker_tell_apart_25_strategies():
    table = pd.concat(comparison({"a": 1}, seeds=1).assign(strategy=f"s{i}") for i in range(25))
    fig = la.figures.learning_curves(table)
    looks = [(t.line.color, t.line.dash, t.marker.symbol) for t in fig.data if t.fill is None]
    assert len(set(looks)) == 25
    assert len({(dash, shape) for _, dash, shape in looks}) == 25  # without colour
    assert fig.layout.height > 600  # for the legend
    assert "#F0E442" not in {color for color, *_ in looks}


def test_the_baseline_is_dark_wherever_it_stands_and_others_keep_their_colours(table):
    fig = la.figures.learning_curves(table)
    alone = la.figures.learning_curves(table[table["strategy"] != "random"])
    assert lines(fig)["random"].line.color == INK
    for strategy in ("margin", "badge", "core-set"):
        assert lines(fig)[strategy].line == lines(alone)[strategy].line


def test_the_legend_stands_in_the_order_of_the_curves(table):
    """At 100 labels, the last that all have: random is not first for its 200."""
    traces = sorted(lines(la.figures.learning_curves(table)).values(), key=lambda t: t.legendrank)
    assert [t.name for t in traces] == ["badge", "margin", "random", "core-set"]


def test_one_seed_has_no_band_and_says_so(table):
    fig = la.figures.learning_curves(table[table["seed"] == 0])
    assert all(len(band.x) == 0 for band in bands(fig).values())
    assert subtitle(fig) == "one seed: no interval"
    assert lines(fig)["random"].customdata[0].tolist() == ["", "one seed"]


def test_unfinished_runs_are_drawn_as_far_as_they_are(table):
    part = table[(table["seed"] < 2) | (table["labels"] <= 40)]
    part = part[(part["strategy"] != "badge") | (part["seed"] == 0)]
    fig = la.figures.learning_curves(part)
    assert subtitle(fig) == "mean and 95 % interval over 1 to 5 seeds"
    assert len(bands(fig)["badge"].x) == 0
    assert len(lines(fig)["badge"].x) == 5


def test_hover_tells_strategy_interval_and_seeds(table):
    line = lines(la.figures.learning_curves(table))["badge"]
    row = results.curve_data(table).set_index(["strategy", "labels"]).loc["badge", 60]
    assert line.customdata[2].tolist() == [f" ({100 * row['low']:.4g} to {100 * row['high']:.4g})", "5 seeds"]
    assert "%{fullData.name}" in line.hovertemplate


def test_curves_of_chosen_strategies_of_auc_on_a_logarithmic_axis(table):
    chosen = ["core-set", "random"]
    fig = la.figures.learning_curves(
        table.rename(columns={"accuracy": "auc"}), value="auc", strategies=chosen, log=True
    )
    assert list(lines(fig)) == chosen
    assert fig.layout.yaxis.title.text == "test AUC, mean over labels"
    assert max(lines(fig)["random"].y) < 1.1
    assert fig.layout.xaxis.type == "log"
    with pytest.raises(ValueError, match=r"strategies must be one of .* got 'bagde'. Did you mean 'badge'"):
        la.figures.learning_curves(table, strategies=["bagde"])


def test_curves_in_panels_hold_the_same_curves_beside_the_baseline(table):
    panels = {"doubt": ["margin", "badge"], "cover": ["core-set"]}
    fig, whole = la.figures.learning_curves(table, strategies=panels), la.figures.learning_curves(table)
    la.figures.update_learning_curves(fig, table, strategies=panels)
    drawn = {axis: lines(fig.select_traces({"xaxis": axis})) for axis in ("x", "x2")}
    assert [list(one) for one in drawn.values()] == [["random", "margin", "badge"], ["random", "core-set"]]
    for i, (axis, curves) in enumerate(drawn.items()):
        for name, line in curves.items():
            assert line.y == pytest.approx(lines(whole)[name].y)
            assert (line.yaxis, line.legend) == (axis.replace("x", "y"), axis.replace("x", "legend"))
        assert len({line.line.color for line in curves.values()}) == len(curves)
        assert fig.layout.annotations[i].text == list(panels)[i]
    assert fig.layout.yaxis2.title.text is None
    with pytest.raises(ValueError, match="at least one name, got none"):
        la.figures.learning_curves(table, strategies={})


@pytest.mark.parametrize(
    ("value", "axis", "scale"),
    [
        ("told_apart", "discriminator's balanced accuracy (%)", 100),
        ("discriminator_loss", "discriminator's loss (nats)", 1),
    ],
)
def test_curves_of_what_a_discriminator_tells(table, value, axis, scale):
    fig = la.figures.learning_curves(table.rename(columns={"accuracy": value}), value=value)
    assert fig.layout.yaxis.title.text == axis
    means = results.curve_data(table).query("strategy == 'random'")["mean"]
    assert list(lines(fig)["random"].y) == pytest.approx((scale * means).tolist())


def test_a_live_figure_ends_as_the_finished_one(table):
    """New strategies and rounds come in; those there keep their looks."""
    early = table[table["strategy"].isin(["random", "badge"]) & (table["seed"] < 2) & (table["labels"] <= 60)]
    fig = la.figures.learning_curves(early, title="Live")
    before = {name: line.line for name, line in lines(fig).items()}
    assert la.figures.update_learning_curves(fig, table) is fig
    whole = la.figures.learning_curves(table)
    for name, line in lines(whole).items():
        assert lines(fig)[name].x.tolist() == line.x.tolist()
        assert lines(fig)[name].y == pytest.approx(line.y)
        assert bands(fig)[name].y == pytest.approx(bands(whole)[name].y)
        assert lines(fig)[name].legendrank == line.legendrank
    assert {name: lines(fig)[name].line for name in before} == before
    assert len({line.line.color for line in lines(fig).values()}) == 4
    assert fig.layout.title.text.startswith("Live<br>")
    assert subtitle(fig) == subtitle(whole)


# ---------------------------------------------------------------- label saving


def savings(bounds):
    rows = [("exact", 2.0, 1.5, 2.5, ""), ("far", 5.0, 4.0, np.inf, "at least"), ("bad", 0.4, 0.0, 0.4, "at most")]
    rows += [("same", 1.0, 0.9, 1.1, "")]
    frame = pd.DataFrame(rows, columns=["strategy", "saving", "low", "high", "bound"]).assign(labels=100)
    return frame[frame["bound"].isin(bounds)]


def drawn(fig):
    """{strategy: (trace, its place there)} of the dots."""
    return {s: (t, i) for t in fig.data if t.error_x.array is not None for i, s in enumerate(t.y)}


def test_savings_with_their_intervals_and_verdicts():
    fig = la.figures.label_saving(savings([""]))
    trace, i = drawn(fig)["exact"]
    assert (trace.x[i], trace.error_x.array[i], trace.error_x.arrayminus[i]) == (2, 0.5, 0.5)
    assert trace.name == "fewer labels than random"
    assert drawn(fig)["same"][0].name == "interval holds 1"
    assert list(fig.layout.yaxis.categoryarray) == ["same", "exact"]  # the best on top
    texts = {note.y: note.text for note in fig.layout.annotations}
    assert texts == {"exact": "<b>2.00</b>  [1.50, 2.50]", "same": "<b>1.00</b>  [0.90, 1.10]"}
    assert fig.layout.shapes[0].x0 == 1


def test_savings_name_their_baseline():
    fig = la.figures.label_saving(savings([""]), baseline="margin")
    assert drawn(fig)["exact"][0].name == "fewer labels than margin"
    assert fig.layout.xaxis.title.text == "labels that margin needs / labels used"


def test_bounds_have_open_markers_and_intervals_without_an_end():
    fig = la.figures.label_saving(savings(["", "at least", "at most"]))
    symbols = {name: trace.marker.symbol[i] for name, (trace, i) in drawn(fig).items()}
    assert symbols["far"] == "triangle-right-open"
    assert symbols["bad"] == "triangle-left-open"
    assert symbols["exact"] == "circle"
    left, right = 10 ** np.array(fig.layout.xaxis.range)
    trace, i = drawn(fig)["far"]
    assert trace.x[i] + trace.error_x.array[i] == pytest.approx(right)
    arrows = {t.marker.symbol: (list(t.x), list(t.y)) for t in fig.data if t.hoverinfo == "skip"}
    assert arrows["triangle-right"] == ([pytest.approx(right)], ["far"])
    assert arrows["triangle-left"] == ([pytest.approx(left)], ["bad"])
    texts = {note.y: note.text for note in fig.layout.annotations}
    assert texts["far"] == "<b>≥ 5.00</b>  [4.00, ∞)"
    assert texts["bad"].startswith("<b>≤ 0.40</b>")


def test_savings_need_one_row_per_strategy(table):
    with pytest.raises(ValueError, match=r"frame must have one row per strategy .* got 15 rows of 3 strategies"):
        la.figures.label_saving(results.label_saving(table, labels="all"))
    with pytest.raises(ValueError, match=r"frame must have one row per strategy .* missing: \['bound'\]"):
        la.figures.label_saving(results.label_saving(table).drop(columns="bound"))


# ---------------------------------------------------------------- penalty matrix, critical difference


def test_penalty_matrix_shows_every_number_the_best_first(table):
    frame = results.penalty_matrix(table)
    fig = la.figures.penalty_matrix(frame)
    heat = fig.data[0]
    assert list(heat.x) == ["badge", "margin", "random", "core-set"]
    assert list(heat.y) == [*heat.x, "<b>mean</b>"]
    assert np.allclose(heat.z, frame.loc[[*heat.x, "mean"], list(heat.x)])
    assert heat.text[0, 0] == ""
    assert heat.text[0, 3] == f"{frame.loc['badge', 'core-set']:.2f}"
    assert fig.layout.shapes[0].y0 == 3.5  # sets the mean apart
    with pytest.raises(ValueError, match="frame must have a row per column and a last row 'mean', got rows"):
        la.figures.penalty_matrix(frame.drop(index="mean"))


def test_critical_difference_places_ranks_and_joins_groups():
    result = results.CriticalDifference(
        ("a", "b", "c", "d"), (1.2, 1.9, 3.0, 3.9), 1.0, (("a", "b"), ("c", "d")), 0.02, 0.05, 12
    )
    fig = la.figures.critical_difference(result)
    leaders = {t.name: t for t in fig.data if t.name}
    assert {name: (t.x[0], t.y[0]) for name, t in leaders.items()} == dict(
        zip("abcd", ((1.2, 0), (1.9, 0), (3.0, 0), (3.9, 0)), strict=True)
    )
    texts = {note.text: note.xanchor for note in fig.layout.annotations}
    assert texts["a <b>1.20</b>"] == texts["b <b>1.90</b>"] == "right"
    assert texts["<b>3.00</b> c"] == texts["<b>3.90</b> d"] == "left"
    bars = {t.hovertemplate.removesuffix("<extra></extra>"): t for t in fig.data if not t.name}
    assert bars["not told apart: a, b"].x == pytest.approx((1.16, 1.94))
    assert bars["not told apart: c, d"].x == pytest.approx((2.96, 3.94))
    assert bars["critical difference"].x == (1, 2)
    levels = [note.y for note in fig.layout.annotations]
    assert len({(note.y, note.xanchor) for note in fig.layout.annotations}) == len(levels)  # no two on one place
    assert subtitle(fig) == "12 blocks; all alike: p = 0.020 (Friedman); bars: not told apart at 5 %"


# ---------------------------------------------------------------- classes, picks


def test_class_counts_are_shares_per_round_and_counts_on_hover(table):
    fig = la.figures.class_counts(table, ["cat", "dog", "cow"])
    assert [note.text for note in fig.layout.annotations] == ["random", "margin", "badge", "core-set"]
    heat = fig.data[1]
    part = table[table["strategy"] == "margin"]
    counts = np.stack([np.mean(part.loc[part["round"] == r, "counts"].tolist(), axis=0) for r in range(5)], axis=1)
    assert list(heat.y) == ["cat", "dog", "cow"]
    assert np.allclose(heat.customdata, counts)
    assert np.allclose(heat.z, 100 * counts / 20)
    assert heat.texttemplate == "%{z:.0f}"  # what the colour shows
    assert fig.data[0].texttemplate is None  # ten rounds of random: too narrow for numbers
    assert fig.layout.coloraxis.cmin == 0
    assert fig.layout.coloraxis.cmax == pytest.approx(max(np.max(h.z) for h in fig.data))
    assert subtitle(fig) == "mean over 5 seeds; round 0: the initial labels"


def test_class_counts_of_chosen_strategies_and_of_one_seed(table):
    fig = la.figures.class_counts(table[table["seed"] == 0], strategies=["badge"])
    assert len(fig.data) == 1
    assert subtitle(fig) == "one seed; round 0: the initial labels"
    with pytest.raises(ValueError, match="strategies must be one of"):
        la.figures.class_counts(table, strategies=["nobody"])
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        la.figures.class_counts(table, columns=0)


def points_of(fig, role, panel=0):
    trace = [t for t in fig.data if t.name == role][panel]
    return trace.customdata.tolist()


def test_picks_draws_every_image_once_by_role():
    view = torch.rand(50, 2)
    fig = la.figures.picks(view, labeled=torch.arange(10), picked=torch.tensor([12, 11]))
    assert points_of(fig, "labelled") == list(range(10))
    assert points_of(fig, "picked") == [12, 11]
    assert points_of(fig, "unlabelled") == [10, *range(13, 50)]
    last = fig.data[-1]
    assert last.name == "picked"  # on top
    assert np.allclose(np.stack([last.x, last.y], 1), view[[12, 11]])
    assert len({trace.marker.symbol for trace in fig.data}) == 3
    assert subtitle(fig) == "38 unlabelled, 10 labelled, 2 picked"
    assert fig.layout.yaxis.scaleanchor == "x"


def test_picks_side_by_side_share_one_legend():
    views = {"without": torch.rand(20, 2), "with": torch.rand(20, 2)}
    fig = la.figures.picks(views, labeled=[0, 1], picked={"without": [2], "with": [3]}, unlabeled=[2, 3, 4])
    assert [note.text for note in fig.layout.annotations] == ["without", "with"]
    assert (points_of(fig, "picked", 0), points_of(fig, "picked", 1)) == ([2], [3])
    assert (points_of(fig, "unlabelled", 0), points_of(fig, "unlabelled", 1)) == ([3, 4], [2, 4])
    assert sum(bool(trace.showlegend) for trace in fig.data) == 3
    assert fig.layout.yaxis2.scaleanchor == "x2"


def test_picks_of_a_cold_start_and_of_many_points():
    fig = la.figures.picks(torch.rand(3000, 2), labeled=[], picked=[5])
    assert {trace.type for trace in fig.data} == {"scattergl"}
    assert points_of(fig, "labelled") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"picked": [1, 0]}, "picked must not hold images that are labeled already"),
        ({"picked": [99]}, r"picked must lie in 0 to 19"),
        ({"labeled": [-1]}, r"labeled must lie in 0 to 19"),
        ({"unlabeled": [20]}, r"unlabeled must lie in 0 to 19"),
        ({"picked": {"other": [1]}}, r"view and picked must name the same panels, got \[''\] and \['other'\]"),
        ({"view": torch.rand(20, 3)}, r"a map needs view of shape \(N, 2\), got \(20, 3\)"),
    ],
)
def test_picks_of_bad_input(options, message):
    given = {"view": torch.rand(20, 2), "labeled": [0], "picked": [1]} | options
    with pytest.raises(ValueError, match=message):
        la.figures.picks(**given)
