"""What a comparison shows: paired differences to random with their intervals."""

from collections.abc import Sequence

__all__ = ["against_random", "interval"]


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean, low and high of Student's t interval for the mean of `values`; ValueError for fewer than two."""
    import numpy as np
    from scipy import stats

    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, got {len(values)}")
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), values.mean() - half, values.mean() + half


def against_random(table, by: Sequence[str] = ("ratio", "labels"), value: str = "accuracy", baseline: str = "random"):
    """Each strategy against the baseline, paired by seed within the cells named by `by`.

    table: a DataFrame with columns strategy, seed, `by` and `value`. Returns one row per cell and strategy: mean (of
    `value`), difference (to the baseline), low and high (95 % t interval of the difference), wins (seeds in which it is
    above the baseline) and seeds. Raises ValueError if a strategy misses a seed of the baseline's.
    """
    import pandas as pd

    by, rows = list(by), []
    for cell, part in table.groupby(by, sort=True):
        wide = part.pivot(index="seed", columns="strategy", values=value)
        if baseline not in wide or wide.isna().any(axis=None):
            raise ValueError(f"every strategy needs the same seeds as {baseline!r}: they are not paired in {cell}")
        for strategy in part["strategy"].unique():
            difference = wide[strategy] - wide[baseline]
            mean, low, high = interval(difference)
            row = {"mean": wide[strategy].mean(), "difference": mean, "low": low, "high": high}
            wins = {"wins": int((difference > 0).sum()), "seeds": len(difference)}
            rows.append(dict(zip(by, cell, strict=True)) | {"strategy": strategy} | row | wins)
    return pd.DataFrame(rows)
