"""The table of a comparison, checked and turned into paired curves; and statistics of small paired samples.

[Ash2020] J. T. Ash et al., Deep batch active learning by diverse, uncertain gradient lower bounds, ICLR 2020.
[Demsar2006] J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006.
[Hesterberg2015] T. C. Hesterberg, What teachers should know about the bootstrap, The American Statistician 69, 2015.
[Holm1979] S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
[Pratt1959] J. W. Pratt, Remarks on zeros and ties in the Wilcoxon signed rank procedures, JASA 54, 1959.
[Wilson1927] E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy
import torch

from lalib.data.checks import check_choice, check_number
from lalib.data.door import as_tensor

NESTED = ("picked", "counts", "confusion")  # columns of lists
KEYS = ("strategy", "seed", "labels")  # what tells rows apart


def check_table(table: pd.DataFrame, *columns: str, keys: Sequence[str] = KEYS) -> pd.DataFrame:
    """`table` if it has rows and all of `keys` and `columns`, no gaps in them, and no row twice by its keys.

    columns, and labels and round wherever they are: finite numbers, or lists where compare writes lists.
    Raises TypeError for anything but a DataFrame and for values of another type, ValueError otherwise.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table must be a pandas DataFrame, got {type(table).__name__}")
    needed, there = [*keys, *(column for column in columns if column not in keys)], list(table.columns)
    missing = [column for column in needed if there.count(column) != 1] or ("" if len(table) else "rows")
    if missing:
        raise ValueError(f"table must have rows and the columns {', '.join(map(str, needed))}; missing: {missing}")
    for column in needed:
        _check_column(table[column], number=column not in keys or column in ("labels", "round"))
    twice = table[table.duplicated(list(keys))]
    if len(twice):
        first, *others = (twice.iloc[0][key] for key in keys)
        row = " and ".join(f"{key} {found}" for key, found in zip(keys[1:], others, strict=True))
        raise ValueError(f"{first!r} comes more than once with {row}: pass the table of one comparison on one data set")
    return table


def _check_column(values: pd.Series, number: bool) -> None:
    name, nested = values.name, values.name in NESTED
    if (values.map(lambda value: isinstance(value, list | tuple | np.ndarray)) != nested).any():
        raise TypeError(f"{name} must hold {'a list' if nested else 'one value'} in every row")
    typed = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    bad = values.isna() | (np.isinf(values.to_numpy(float, na_value=0)) if typed else False)
    if bad.any():
        raise ValueError(f"{name} must be finite, but {bad.sum()} of {len(values)} rows hold NaN or infinity")
    if number and not typed and not nested:
        raise TypeError(f"{name} must hold numbers, got {values.dtype}")


def paired(table: pd.DataFrame, value: str, baseline: str | None = None) -> pd.DataFrame:
    """Curves of `value`: a row per strategy (in the order of the table) and seed, a column per number of labels.

    NaN where a run has no such number. Raises ValueError if the baseline is missing, for fewer than two seeds, and if
    strategies have different seeds.
    """
    check_table(table, value)
    strategies = table["strategy"].unique().tolist()
    if baseline is not None:
        check_choice("baseline", baseline, strategies)
    seeds = set(table["seed"])
    for strategy, own in table.groupby("strategy", sort=False)["seed"]:
        if lacking := sorted(seeds - set(own)):
            raise ValueError(f"every strategy needs the same seeds, but {strategy!r} lacks seed {lacking[0]}")
    if len(seeds) < 2:
        raise ValueError(f"a paired comparison needs at least 2 seeds, got {len(seeds)}")
    wide = table.pivot(index=["strategy", "seed"], columns="labels", values=value)
    return wide.reindex(strategies, level="strategy")


def paired_sets(table: pd.DataFrame, value: str) -> dict[str, pd.DataFrame]:
    """common(paired(...)) of each data set in the column `data`; without the column one entry named ""."""
    several = isinstance(table, pd.DataFrame) and "data" in table
    check_table(table, value, keys=(*KEYS, "data") if several else KEYS)
    sets = table.groupby("data", sort=False) if several else [("", table)]
    curves = {name: common(paired(part, value)) for name, part in sets}
    for name, wide in curves.items():
        if lacking := sorted(set(table["strategy"]) - set(wide.index.unique("strategy"))):
            raise ValueError(f"every data set needs the same strategies, but {name!r} lacks {lacking[0]!r}")
    return curves


def common(wide: pd.DataFrame) -> pd.DataFrame:
    """The numbers of labels that every strategy and seed has; ValueError if there are none."""
    shared = wide.dropna(axis=1)
    if not shared.shape[1]:
        raise ValueError("the strategies and seeds must share at least one number of labels, they share none")
    return shared


def aulc(wide: pd.DataFrame) -> pd.DataFrame:
    """Area under each curve by trapezoids over its span, or the value there if it is one point: seeds x strategies."""
    labels, values = wide.columns.to_numpy(dtype=float), wide.to_numpy()
    span = labels[-1] - labels[0]
    area = np.trapezoid(values, labels, axis=1) / span if span else values[:, 0]
    return pd.Series(area, wide.index).unstack("strategy")[wide.index.unique("strategy")]


def by_labels(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """mean, spread and seeds of `value`: a row per strategy, in the order of the table, and number of labels."""
    groups = check_table(table, value).groupby(["strategy", "labels"], sort=False)[value]
    frame = groups.agg(mean="mean", spread="std", seeds="count").reset_index()
    place = {strategy: i for i, strategy in enumerate(table["strategy"].unique())}
    return frame.iloc[np.lexsort((frame["labels"], frame["strategy"].map(place)))].reset_index(drop=True)


def upper(confidence: float) -> float:
    """The quantile at which a two-sided interval ends; ValueError if `confidence` is not a share below 1."""
    return (1 + check_number("confidence", confidence, low=0.01, high=0.9999)) / 2


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean, low and high of Student's t interval for the mean of `values`; ValueError for fewer than two, and NaN."""
    values = as_tensor(values, "values").flatten().double().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError("values must be finite, got NaN or infinity")
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, got {len(values)}")
    half = scipy.stats.t.ppf(upper(confidence), len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


def share_interval(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float, float]:
    """hits / n, low and high of the score interval for the probability of a hit [Wilson1927]; it stays in [0, 1]."""
    found = scipy.stats.binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return hits / n, float(found.low), float(found.high)


def spread_interval(spread: np.ndarray, n: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of the chi-square interval of a standard deviation estimated from n >= 2 normal values each."""
    tail, freedom = 1 - upper(confidence), np.asarray(n) - 1
    scaled = np.asarray(spread) * np.sqrt(freedom)
    return tuple(scaled / np.sqrt(scipy.stats.chi2.ppf(share, freedom)) for share in (1 - tail, tail))


def paired_p(difference: np.ndarray, test: str = "wilcoxon") -> float:
    """Two-sided p of paired differences (n,): "wilcoxon" (signed ranks) or "t"; 1 if all of them are 0.

    Zeros are ranked and then dropped, as in [Pratt1959]; tied differences share their mean rank. The null distribution
    is exact up to n = 50 without zeros and ties, up to n = 13 with them, and normal beyond. With n = 10 the smallest
    p is 1/512, with n = 5 it is 1/16.
    """
    if not difference.any():
        return 1.0
    if test == "wilcoxon":
        return float(scipy.stats.wilcoxon(difference, zero_method="pratt", method="auto").pvalue)
    same = np.ptp(difference) == 0  # in every seed: an infinite t
    return 0.0 if same else float(scipy.stats.ttest_1samp(difference, 0).pvalue)


def holm(p: Sequence[float]) -> np.ndarray:
    """The p-values (m,) adjusted by the step-down procedure of [Holm1979]: the i-th smallest times m - i + 1."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order)]


def penalty(first: np.ndarray, second: np.ndarray) -> float:
    """Share of the L columns of (seeds, L) in which `first` beats `second`: paired t-test, two-sided 5 % [Ash2020]."""
    difference = np.round(first - second, 12)
    n = len(difference)
    mean, error = difference.mean(axis=0), difference.std(axis=0, ddof=1) / np.sqrt(n)
    constant = np.ptp(difference, axis=0) == 0  # then the error is 0 but for rounding
    return float(np.mean((mean > 0) & (constant | (mean > scipy.stats.t.ppf(0.975, n - 1) * error))))


def friedman(blocks: np.ndarray) -> float:
    """Friedman's p for (blocks, k), k >= 3; 1 if every block is one tie."""
    return float(scipy.stats.friedmanchisquare(*blocks.T).pvalue) if np.ptp(blocks, axis=1).any() else 1.0


def nemenyi(k: int, n: int, alpha: float) -> float:
    """The critical difference of two mean ranks of k treatments over n blocks, section 3.2.2 of [Demsar2006]."""
    return float(scipy.stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))


def cliques(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Maximal runs first to last (inclusive) of ascending `ranks` that span less than `difference`; two or more."""
    ranks = np.asarray(ranks)
    last = [int(np.flatnonzero(ranks - low < difference)[-1]) for low in ranks]
    return [(i, j) for i, j in enumerate(last) if j > i and (i == 0 or j > last[i - 1])]


def labels_needed(counts: np.ndarray, curve: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds, low and high (T,), of the labels at which a noisy learning curve reaches each of `targets` (T,).

    counts: (K,) ascending numbers of labels; curve: (K,) accuracy there. The curve is replaced by the nearest one that
    does not fall (isotonic regression), each flat stretch by one knot at its middle, and knots are joined by straight
    lines. Low and high agree within the curve; above its top they are the last count and infinity, below its foot 0
    and the first count.
    """
    level, block = np.unique(scipy.optimize.isotonic_regression(curve).x, return_inverse=True)
    knots = np.bincount(block, weights=counts) / np.bincount(block)
    ends = {"left": 0, "right": counts[-1]}, {"left": counts[0], "right": np.inf}
    return tuple(np.interp(targets, level, knots, **end) for end in ends)


def bootstrap_weights(n: int, resamples: int, generator: torch.Generator) -> np.ndarray:
    """(resamples, n): how often each of n is drawn in n draws with replacement, divided by n."""
    draws = torch.randint(n, (resamples, n), generator=generator)
    return torch.nn.functional.one_hot(draws, n).sum(dim=1).double().numpy() / n


def pooled_spread(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R,): standard deviations of `values` (n, K) with `weights` (R, n), as a root mean square over the K columns.

    Variances are multiplied by n / (n - 1): equal weights give the usual estimate.
    """
    centred = values - values.mean(axis=0)  # less is lost to rounding
    variances = weights @ centred**2 - (weights @ centred) ** 2
    return np.sqrt(np.maximum(variances, 0).mean(axis=1) * len(values) / (len(values) - 1))


def bootstrap_interval(
    low: np.ndarray, high: np.ndarray, n: int, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the first axis of resampled statistics known to lie in [low, high], of n seeds.

    The percentiles are moved outwards for small n, Phi(-sqrt(n / (n - 1)) t) in place of the tail: without that ten
    seeds give intervals that are too short (section 4.3 of [Hesterberg2015], the expanded percentile interval).
    """
    tail = scipy.stats.norm.cdf(-np.sqrt(n / (n - 1)) * scipy.stats.t.ppf(upper(confidence), n - 1))
    place = int(tail * (len(low) - 1))  # an order statistic, rounded outwards: infinity has no in-between
    return np.sort(low, axis=0)[place], np.sort(high, axis=0)[len(high) - 1 - place]
