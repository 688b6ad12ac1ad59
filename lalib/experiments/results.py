"""What a comparison shows: curves, areas under them, label saving, paired tests and ranks, all from one tidy table.

The table is what `compare` returns. Every function raises what statistics.check_table raises, where the references are
listed, too. Strategies are paired by seed. Only numbers of labels that every strategy and seed has count, so that a
random run may go on alone.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
from pandas import DataFrame

from lalib.data.checks import check_choice, check_int, check_number
from lalib.data.door import as_tensor, check_class_names
from lalib.data.files import written_whole
from lalib.data.seeds import generator
from lalib.experiments import statistics
from lalib.experiments.statistics import NESTED, interval as interval
from lalib.experiments.stopping import expected_gain as expected_gain, should_stop as should_stop

SUMMARY = ["strategy", "seeds", "labels", "final", "aulc", "difference", "low", "high"]
SUMMARY += ["saving", "saving_low", "saving_high", "bound", "p", "p_holm", "wins", "ties", "losses"]


def curve_data(table: DataFrame, value: str = "accuracy", confidence: float = 0.95) -> DataFrame:
    """Learning curves: columns strategy, labels, mean (of `value`), low, high (t interval over seeds), seeds.

    A row per strategy and number of labels, strategies in the order of the table. Runs may be unfinished: each row
    tells its seeds; with one seed low and high are NaN.
    """
    frame = statistics.by_labels(table, value)
    freedom = (frame["seeds"] - 1).where(frame["seeds"] > 1)
    half = scipy.stats.t.ppf(statistics.upper(confidence), freedom) * frame["spread"] / np.sqrt(frame["seeds"])
    frame["low"], frame["high"] = frame["mean"] - half, frame["mean"] + half
    return frame[["strategy", "labels", "mean", "low", "high", "seeds"]]


def summary(table: DataFrame, value: str = "accuracy", baseline: str = "random", confidence: float = 0.95) -> DataFrame:
    """A row per strategy, the best first: what it reaches, and how it compares with the baseline, paired by seed.

    Columns: strategy; seeds; labels (the largest number that all strategies have) and final (mean `value` there); aulc
    (area under the curve by trapezoids over the numbers of labels that all have, divided by their span: a mean of
    `value`); difference (of AULC to the baseline's), low, high (t interval); saving, saving_low, saving_high and bound
    (label_saving at `labels`); p (two-sided Wilcoxon signed-rank test on AULC, Pratt's zeros) and p_holm (corrected
    over the strategies); wins, ties, losses (seeds in which AULC is above, equal, below). The baseline's own row has
    no p and no saving. Raises ValueError for fewer than two seeds or strategies that are not paired.
    """
    wide = statistics.common(statistics.paired(table, value, baseline))
    areas, labels = statistics.aulc(wide), int(wide.columns[-1])
    frame = _versus(areas, baseline, confidence).rename(columns={"mean": "aulc"})
    frame = frame.assign(labels=labels, final=[wide.loc[strategy, labels].mean() for strategy in areas.columns])
    saved = label_saving(table, value, baseline, labels=labels, confidence=confidence)
    saved = saved.rename(columns={"low": "saving_low", "high": "saving_high"}).drop(columns="labels")
    frame = frame.merge(saved, on="strategy", how="left").sort_values("aulc", ascending=False, kind="stable")
    return frame[SUMMARY].fillna({"bound": ""}).reset_index(drop=True)


def _versus(wide: DataFrame, baseline: str, confidence: float = 0.95, test: str = "wilcoxon") -> DataFrame:
    """A row per strategy: its mean, and how it compares with the baseline; wide: a row per seed, a column for each."""
    rows = []
    for strategy in wide.columns:
        difference = wide[strategy] - wide[baseline]
        mean, low, high = interval(difference, confidence)
        row = {"strategy": strategy, "mean": wide[strategy].mean(), "difference": mean, "low": low, "high": high}
        difference = np.round(difference.to_numpy(), 12)  # equal but for rounding is a tie
        signs = {"wins": (difference > 0).sum(), "ties": (difference == 0).sum(), "losses": (difference < 0).sum()}
        p = float("nan") if strategy == baseline else statistics.paired_p(difference, test)
        rows.append(row | {"seeds": len(wide), **signs, "p": p})
    frame = DataFrame(rows)
    p = frame.loc[frame["strategy"] != baseline, "p"]
    return frame.assign(p_holm=pd.Series(statistics.holm(p), p.index))


def label_saving(
    table: DataFrame,
    value: str = "accuracy",
    baseline: str = "random",
    *,
    labels: int | str | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> DataFrame:
    """How many labels the baseline needs for the accuracy of each strategy, divided by the labels used.

    labels: the number used; None for the last of each strategy, "all" for a row at each of its numbers of labels.
    Returns strategy, labels, needed (by the baseline), saving = needed / labels, low, high, bound, censored.

    The baseline's curve is its mean over seeds, made monotone by isotonic regression (a running maximum would lean
    upwards) and joined by straight lines. The interval comes from `resamples` draws of whole seeds, the same for
    both, as expanded percentiles; `seed` fixes the draws. If the baseline never gets there, bound is "at least",
    censored is True, needed is where its run ended and high is infinite: run it longer. If it starts above, bound is
    "at most", needed is its first number of labels and low is 0. Otherwise bound is "".
    """
    wide = statistics.paired(table, value, baseline)
    random = statistics.common(wide.loc[baseline])
    others = [s for s in wide.index.unique("strategy") if s != baseline]
    points = {s: _points(s, statistics.common(wide.loc[s]), labels) for s in others}
    if not points:
        raise ValueError(f"label saving needs a strategy other than {baseline!r}, got no other")
    reached = pd.concat(points, axis=1)  # (seeds, rows of the result)
    used = reached.columns.get_level_values("labels").to_numpy()
    weights = _resampled(len(random), resamples, seed)
    curves, targets = (np.round(weights @ part.to_numpy(), 12) for part in (random, reached))  # equal if shared
    counts = random.columns.to_numpy(dtype=float)
    (low, high), *some = (statistics.labels_needed(counts, *each) for each in zip(curves, targets, strict=True))
    ends = statistics.bootstrap_interval(*np.stack(some, axis=1), len(random), confidence)
    censored, needed = np.isinf(high), np.where(np.isinf(high), low, high)
    columns = {"strategy": reached.columns.get_level_values(0), "labels": used, "needed": needed}
    columns |= {"saving": needed / used, "low": ends[0] / used, "high": ends[1] / used}
    bound = np.where(censored, "at least", np.where(low < high, "at most", ""))
    return DataFrame(columns | {"bound": bound, "censored": censored})


def _resampled(n: int, resamples: int, seed: int) -> np.ndarray:
    """Weights (1 + resamples, n) of n seeds: all alike, then as drawn with replacement."""
    draws = statistics.bootstrap_weights(n, check_int("resamples", resamples, low=1), generator(seed, "bootstrap"))
    return np.concatenate([np.full((1, n), 1 / n), draws])


def against_random(
    table: DataFrame,
    by: str | Sequence[str] = ("ratio", "labels"),
    value: str = "accuracy",
    baseline: str = "random",
    test: str = "wilcoxon",
) -> DataFrame:
    """Each strategy against the baseline, paired by seed within the cells named by `by`.

    table: with columns strategy, seed, `by` and `value`. by: e.g. "labels" for a test at every number of labels.
    Returns a row per cell and strategy: mean (of `value`), difference (to the baseline), low and high (its 95 % t
    interval), seeds, wins (seeds in which it is above the baseline), ties, losses, p (two-sided; test: "wilcoxon" for
    signed ranks, or "t", which can be small with five seeds) and p_holm (corrected within the cell). Raises ValueError
    if a strategy misses a seed of the baseline's.
    """
    check_choice("test", test, ("wilcoxon", "t"))
    by = list(by) if isinstance(by, Iterable) and not isinstance(by, str) else [by]
    statistics.check_table(table, value, keys=("strategy", "seed", *by))
    cells = []
    for cell, part in table.groupby(by, sort=True) if by else [((), table)]:
        wide = part.pivot(index="seed", columns="strategy", values=value)
        if baseline not in wide or wide.isna().any(axis=None):
            raise ValueError(f"every strategy needs the same seeds as {baseline!r}: they are not paired in {cell}")
        frame = _versus(wide[part["strategy"].unique()], baseline, test=test)
        for place, (name, found) in enumerate(zip(by, cell, strict=True)):
            frame.insert(place, name, found)
        cells.append(frame)
    return pd.concat(cells, ignore_index=True)


def penalty_matrix(table: DataFrame, value: str = "accuracy") -> DataFrame:
    """How often the strategy of a row beats that of a column, and a last row "mean" of each column (lower is better).

    As in [Ash2020]: at each of L numbers of labels a paired t-test over seeds at the two-sided 5 % level adds 1/L where
    the row is significantly better. A column `data` in the table separates data sets, each of which adds at most 1.
    """
    parts = statistics.paired_sets(table, value).values()
    names = table["strategy"].unique().tolist()
    matrix = DataFrame(0.0, index=pd.Index(names, name="strategy"), columns=names)
    for curves in ([wide.loc[name].to_numpy() for name in names] for wide in parts):
        matrix += np.array([[statistics.penalty(row, column) for column in curves] for row in curves])
    matrix.loc["mean"] = matrix.mean(axis=0)
    return matrix


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks and which of them can be told apart; what critical_difference returns."""

    strategies: tuple[str, ...]  # the best first
    ranks: tuple[float, ...]  # mean over the blocks, 1 is best
    difference: float  # two mean ranks that are at least so far apart differ
    groups: tuple[tuple[str, ...], ...]  # maximal sets that are not told apart
    p: float  # Friedman's: all strategies alike
    alpha: float
    blocks: int


def ranks(table: DataFrame, value: str = "accuracy") -> DataFrame:
    """Rank of every strategy by AULC, 1 is best and ties share their mean: a row per block, a column per strategy.

    A block is a seed, or a seed and a data set if the table has a column `data`. Columns stand in order of mean rank.
    """
    sets = statistics.paired_sets(table, value).items()
    areas = pd.concat({data: statistics.aulc(wide) for data, wide in sets}, names=["data"])
    frame = areas.round(12).rank(axis=1, ascending=False)  # equal but for rounding is a tie
    frame = frame if "data" in table else frame.droplevel("data")
    return frame[frame.mean().sort_values(kind="stable").index].rename_axis(columns="strategy")


def critical_difference(table: DataFrame, value: str = "accuracy", alpha: float = 0.05) -> CriticalDifference:
    """Friedman's test of the ranks by AULC, and Nemenyi's critical difference between any two mean ranks.

    Differs: the blocks of [Demsar2006] are data sets; here they are seeds (and data sets), so that what is found holds
    for these data sets. Raises ValueError for fewer than three strategies: summary compares two.
    """
    frame = ranks(table, value)
    alpha = check_number("alpha", alpha, low=1e-6, high=0.5)
    n, k = frame.shape
    if k < 3:
        raise ValueError(f"a critical difference needs at least 3 strategies, got {k}: results.summary compares two")
    names, means, difference = tuple(frame.columns), tuple(frame.mean().tolist()), statistics.nemenyi(k, n, alpha)
    groups = tuple(names[i : j + 1] for i, j in statistics.cliques(means, difference))
    return CriticalDifference(names, means, difference, groups, statistics.friedman(frame.to_numpy()), alpha, n)


def fluctuation(table: DataFrame, value: str = "accuracy", confidence: float = 0.95) -> DataFrame:
    """Standard deviation of `value` over seeds: columns strategy, labels, spread, low, high (chi-square), seeds.

    The interval takes the values over seeds as normal. Raises ValueError where a row would rest on one seed.
    """
    frame = statistics.by_labels(table, value)
    for lonely in frame[frame["seeds"] < 2].itertuples():
        raise ValueError(f"a spread needs at least 2 seeds, got 1 of {lonely.strategy!r} at {lonely.labels} labels")
    frame["low"], frame["high"] = statistics.spread_interval(frame["spread"], frame["seeds"], confidence)
    return frame[["strategy", "labels", "spread", "low", "high", "seeds"]]


def fluctuation_ratio(
    table: DataFrame,
    value: str = "accuracy",
    baseline: str = "random",
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> DataFrame:
    """How much each strategy fluctuates over seeds, the baseline being 1: columns strategy, ratio, low, high, seeds.

    Of standard deviations, root mean square over the numbers of labels that all have. The interval comes from draws of
    whole seeds, as in label_saving; it needs at least five.
    """
    wide = statistics.common(statistics.paired(table, value, baseline))
    curves = {s: wide.loc[s].to_numpy() for s in wide.index.unique("strategy")}  # (seeds, numbers of labels)
    n = len(curves[baseline])
    if n < 5:
        raise ValueError(f"a ratio of fluctuations needs at least 5 seeds, got {n}")
    weights = _resampled(n, resamples, seed)
    weights = weights[(weights > 0).sum(axis=1) > 1]  # one seed has no spread
    spreads = {s: statistics.pooled_spread(curve, weights) for s, curve in curves.items()}
    if not spreads[baseline].all():
        raise ValueError(f"{baseline!r} is the same in several seeds: its fluctuation is no measure for others")
    ratio, *some = np.stack([spread / spreads[baseline] for spread in spreads.values()], axis=1)
    low, high = statistics.bootstrap_interval(some, some, n, confidence)
    return DataFrame({"strategy": list(curves), "ratio": ratio, "low": low, "high": high, "seeds": n})


def batch_classes(table: DataFrame, class_names: Sequence[str] | None = None) -> DataFrame:
    """Classes of every batch: columns strategy, round, labels, class, count (mean over seeds), share (of the batch).

    class_names: C names, default the numbers. Round 0 is the initial batch. Multi-label: how often each is set.
    """
    statistics.check_table(table, "round", "counts")
    counts = as_tensor(table["counts"].tolist(), "counts").double().numpy()
    names = _named(class_names, counts.shape[1])
    keys = [table["strategy"], table["round"], table["labels"]]
    means = DataFrame(counts, index=table.index).groupby(keys, sort=False).mean()
    frame = means.index.to_frame(index=False).loc[np.repeat(np.arange(len(means)), len(names))]
    frame["class"], frame["count"] = np.tile(names, len(means)), means.to_numpy().ravel()
    frame["share"] = frame["count"] / np.repeat(means.sum(axis=1).to_numpy(), len(names))
    return frame.reset_index(drop=True)


def confusion(table: DataFrame, strategy: str, round: int = -1, class_names: Sequence[str] | None = None) -> DataFrame:
    """The confusion matrix (C, C) of a strategy after a round, summed over seeds: true classes down, predicted across.

    round: 0 after the initial labels, -1 the last. Raises ValueError for a table without confusion (multi-label).
    """
    statistics.check_table(table, "round", "confusion")
    round = check_int("round", round)
    part = table[table["strategy"] == check_choice("strategy", strategy, table["strategy"].unique().tolist())]
    rounds = sorted(part["round"].unique().tolist())
    wanted = rounds[-1] + 1 + round if round < 0 else round
    if wanted not in rounds:
        raise ValueError(f"round must be one of {rounds[0]} to {rounds[-1]}, or from the end, got {round}")
    total = as_tensor(part.loc[part["round"] == wanted, "confusion"].tolist(), "confusion").sum(dim=0).numpy()
    names = _named(class_names, len(total))
    return DataFrame(total, pd.Index(names, name="true"), pd.Index(names, name="predicted"))


def _points(strategy, curves, labels):
    """The columns of `curves` (seeds, numbers of labels) that `labels` asks for, as label_saving says."""
    if labels is None:
        return curves.iloc[:, -1:]
    if isinstance(labels, str) and check_choice("labels", labels, ["all"]):
        return curves
    if (labels := check_int("labels", labels)) not in curves:
        raise ValueError(f"labels must be one of {curves.columns.tolist()} for {strategy!r}, got {labels}")
    return curves[[labels]]


def _named(class_names: Sequence[str] | None, n: int) -> list[str]:
    """`class_names` if they are n, the numbers if None; ValueError otherwise."""
    return [str(c) for c in range(n)] if class_names is None else list(check_class_names(class_names, n))


def _table_path(path) -> Path:
    path = Path(path)
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"path must end in .parquet or .csv, got {path.name!r}")
    return path


def save(table: DataFrame, path: str | Path) -> Path:
    """Write the table as .parquet or .csv (lists as JSON text), whole or not at all; load reads it back."""
    path = _table_path(path)
    if not isinstance(table, DataFrame):
        raise TypeError(f"table must be a pandas DataFrame, got {type(table).__name__}")
    with written_whole(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            text = {c: table[c].map(json.dumps) for c in NESTED if c in table}
            table.assign(**text).to_csv(temporary, index=False)
    return path


def load(path: str | Path) -> DataFrame:
    """The table that `save` wrote, with the same columns, types and lists. Raises ValueError for another file."""
    import pyarrow.parquet

    path = _table_path(path)
    try:
        if path.suffix == ".parquet":
            arrow = pyarrow.parquet.read_table(path)
            return arrow.to_pandas().assign(**{c: arrow[c].to_pylist() for c in NESTED if c in arrow.column_names})
        # The Python engine reads every float as it was written; and only numbers may be missing, not a strategy "NA".
        text = {"strategy": str, "data": str}
        missing = {column: "" for column in pd.read_csv(path, nrows=0) if column not in text}
        table = pd.read_csv(path, engine="python", dtype=text, keep_default_na=False, na_values=missing)
        return table.assign(**{c: table[c].map(json.loads) for c in NESTED if c in table})
    except (ValueError, LookupError, TypeError, AssertionError) as error:  # what pyarrow, json and pandas raise
        raise ValueError(f"{path} is not a table that save wrote: {error}") from error
