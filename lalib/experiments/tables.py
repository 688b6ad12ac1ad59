"""The table of a comparison: checked, turned into paired curves, written to a file and read back."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lalib.data.checks import check_choice
from lalib.data.door import check_class_names
from lalib.data.files import written_whole

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


def name_classes(class_names: Sequence[str] | None, n: int) -> list[str]:
    """`class_names` if they are n, the numbers if None; ValueError otherwise."""
    return [str(c) for c in range(n)] if class_names is None else list(check_class_names(class_names, n))


def _table_path(path) -> Path:
    path = Path(path)
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"path must end in .parquet or .csv, got {path.name!r}")
    return path


def save(table: pd.DataFrame, path: str | Path) -> Path:
    """Write the table as .parquet or .csv (lists as JSON text), whole or not at all; load reads it back."""
    path = _table_path(path)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table must be a pandas DataFrame, got {type(table).__name__}")
    with written_whole(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            text = {c: table[c].map(json.dumps) for c in NESTED if c in table}
            table.assign(**text).to_csv(temporary, index=False)
    return path


def load(path: str | Path) -> pd.DataFrame:
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
