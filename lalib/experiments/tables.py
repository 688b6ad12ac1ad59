"""The table of a comparison: checked, turned into paired curves, written to a file and read back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lalib.data.checks import check_choice
from lalib.data.files import written_whole

if TYPE_CHECKING:
    import pandas as pd


NESTED = ("picked", "counts", "confusion")  # columns of lists


def check_table(table: "pd.DataFrame", *columns: str) -> "pd.DataFrame":
    """`table` if it has rows, strategy, seed, labels and `columns`, finite numbers there, and no row twice.

    Raises TypeError for anything but a DataFrame, ValueError otherwise.
    """
    import pandas as pd

    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table must be a pandas DataFrame, got {type(table).__name__}")
    needed = ["strategy", "seed", "labels", *columns]
    missing = [c for c in needed if c not in table]
    if missing or not len(table):
        raise ValueError(f"table must have rows and the columns {', '.join(needed)}; missing: {missing or 'rows'}")
    for column in table[list(columns)].select_dtypes("number"):
        bad = int((~np.isfinite(table[column])).sum())
        if bad:
            raise ValueError(f"{column} must be finite, but {bad} of {len(table)} rows hold NaN or infinity")
    twice = table.duplicated(["strategy", "seed", "labels"])
    if twice.any():
        row = table[twice].iloc[0]
        raise ValueError(
            f"{row['strategy']!r} comes more than once with seed {row['seed']} and {row['labels']} labels: "
            "pass the table of one comparison on one data set"
        )
    return table


def paired(table: "pd.DataFrame", value: str, baseline: str | None = None) -> "pd.DataFrame":
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
        lacking = sorted(seeds - set(own))
        if lacking:
            raise ValueError(f"every strategy needs the same seeds, but {strategy!r} lacks seed {lacking[0]}")
    if len(seeds) < 2:
        raise ValueError(f"a paired comparison needs at least 2 seeds, got {len(seeds)}")
    wide = table.pivot(index=["strategy", "seed"], columns="labels", values=value)
    return wide.reindex(strategies, level="strategy")


def paired_sets(table: "pd.DataFrame", value: str) -> "dict[str, pd.DataFrame]":
    """common(paired(...)) of each data set in the column `data`; without the column one entry named ""."""
    sets = dict(list(table.groupby("data", sort=False))) if "data" in table else {"": table}
    curves = {name: common(paired(part, value)) for name, part in sets.items()}
    strategies = set(table["strategy"])
    for name, wide in curves.items():
        lacking = sorted(strategies - set(wide.index.unique("strategy")))
        if lacking:
            raise ValueError(f"every data set needs the same strategies, but {name!r} lacks {lacking[0]!r}")
    return curves


def common(wide: "pd.DataFrame") -> "pd.DataFrame":
    """The numbers of labels that every strategy and seed has; ValueError if there are none."""
    shared = wide.dropna(axis=1)
    if not shared.shape[1]:
        raise ValueError("the strategies and seeds must share at least one number of labels, they share none")
    return shared


def aulc(wide: "pd.DataFrame") -> "pd.DataFrame":
    """Area under each curve by trapezoids over its span: a row per seed, a column per strategy.

    With a single number of labels it is the value there.
    """
    labels, values = wide.columns.to_numpy(dtype=float), wide.to_numpy()
    span = labels[-1] - labels[0]
    area = np.trapezoid(values, labels, axis=1) / span if span else values[:, 0]
    frame = wide.assign(area=area)["area"].unstack("strategy")
    return frame[wide.index.unique("strategy")]


def in_order(frame: "pd.DataFrame", table: "pd.DataFrame") -> "pd.DataFrame":
    """`frame` sorted by number of labels within each strategy, strategies as they come in `table`."""
    place = {strategy: i for i, strategy in enumerate(table["strategy"].unique())}
    order = np.lexsort((frame["labels"], frame["strategy"].map(place)))
    return frame.iloc[order].reset_index(drop=True)


def name_classes(class_names: Sequence[str] | None, n: int) -> list[str]:
    """`class_names` if they are n, the numbers if None; ValueError otherwise."""
    names = [str(c) for c in range(n)] if class_names is None else list(class_names)
    if len(names) != n:
        raise ValueError(f"class_names must name all {n} classes, got {len(names)} names")
    return names


def save(table: "pd.DataFrame", path: str | Path) -> Path:
    """Write the table as .parquet or .csv (lists as JSON text), whole or not at all; load reads it back."""
    path = _table_path(path)
    with written_whole(path) as temporary:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            text = {c: table[c].map(json.dumps) for c in NESTED if c in table}
            table.assign(**text).to_csv(temporary, index=False)
    return path


def load(path: str | Path) -> "pd.DataFrame":
    """The table that `save` wrote, with the same columns, types and lists."""
    import pandas as pd

    path = _table_path(path)
    if path.suffix == ".csv":
        # The Python engine reads every float as it was written; and only numbers may be missing, not a strategy "NA".
        text = {"strategy": str, "data": str}
        numbers = [c for c in pd.read_csv(path, nrows=0) if c not in text]
        missing = {"keep_default_na": False, "na_values": dict.fromkeys(numbers, "")}
        table = pd.read_csv(path, engine="python", dtype=text, **missing)
        return table.assign(**{c: table[c].map(json.loads) for c in NESTED if c in table})
    import pyarrow.parquet

    arrow = pyarrow.parquet.read_table(path)
    lists = {c: arrow[c].to_pylist() for c in NESTED if c in arrow.column_names}
    return arrow.to_pandas().assign(**lists)


def _table_path(path):
    path = Path(path)
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"path must end in .parquet or .csv, got {path.name!r}")
    return path
