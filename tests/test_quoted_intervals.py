"""What notebooks quote of committed results, as a number with its interval "x (a to b)", is what the results say."""

import itertools
import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lalib as la

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "data" / "results"
NUMBER = r"[+-]?\d+(?:\.\d+)?"
QUOTED = re.compile(rf"({NUMBER})(?!\d)[^\d()]{{0,60}}\((?:95 % interval )?({NUMBER}) to ({NUMBER})")


def load(pattern):
    files = sorted(RESULTS.glob(f"{pattern}.parquet"))
    return {str(path.relative_to(RESULTS).with_suffix("")): la.results.load(path) for path in files}


def rows_of(folder):
    files = (RESULTS / folder).glob("*.json")
    return pd.DataFrame([row for file in files for row in json.loads(file.read_text())["rows"]])


def differences(tables):
    """Mean and t interval of all paired differences, in points: of areas under the curves, at each number of labels."""
    curves = {}
    for name, table in tables.items():
        for strategy, runs in table.groupby("strategy"):
            curves[name, strategy] = runs.pivot(index="seed", columns="labels", values="accuracy")
    columns = [
        {key: curve[labels] for key, curve in curves.items() if labels in curve}
        for labels in sorted({labels for curve in curves.values() for labels in curve})
    ]
    for name in tables:
        own = {key: curve for key, curve in curves.items() if key[0] == name}
        shared = sorted(set.intersection(*(set(curve.dropna(axis=1)) for curve in own.values())))
        if len(shared) > 1:
            span = shared[-1] - shared[0]
            area = {k: np.trapezoid(c[shared], shared, axis=1) / span for k, c in own.items()}
            columns.append({k: pd.Series(area[k], curves[k].index) for k in own})
    for one, other in itertools.chain.from_iterable(itertools.combinations(each.values(), 2) for each in columns):
        yield interval(100 * (one - other).dropna())


def interval(values):
    """Mean and 95 % t interval, by hand."""
    n, mean = len(values), np.mean(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return mean, mean - half, mean + half


def of_03():
    runs = rows_of("maps-mnist-mini")
    error, mae = (runs.pivot(index="seed", columns="model", values=value) for value in ("one_nn_error", "mae"))
    for network in ("", ", medium"):
        for wide in (error, mae):
            yield interval(wide[f"TSNEAE{network}"] / wide[f"CAE{network}"])
    yield interval(100 * (error["TSNEAE"] - error["TSNEAE, medium"]))


def savings(tables):
    """Labels of random that are worth as much as 100: times as many, and how many."""
    for table in tables.values():
        for row in la.results.label_saving(table, labels=100).itertuples():
            yield row.saving, row.low, row.high
            yield row.needed, row.labels * row.low, row.labels * row.high


def on_codes_and_pixels(pixels, ends):
    """Notebook 09's ratios of fluctuation and of seconds, and the accuracy with all labels."""
    seconds = (pixels["train_seconds"] + pixels["select_seconds"]).groupby([pixels["strategy"], pixels["seed"]]).mean()
    for word in ("random", "margin"):
        part = pixels[pixels["strategy"].str.endswith(word)]
        for chosen in (part, part[part["labels"] > 20], part[part["seed"] < 10]):
            row = la.results.fluctuation_ratio(chosen, baseline=f"pixels, {word}").set_index("strategy")
            yield tuple(row.loc[f"codes, {word}", ["ratio", "low", "high"]])
        yield tuple(np.exp(interval(np.log(seconds[f"pixels, {word}"] / seconds[f"codes, {word}"]))))
    for _, accuracy in ends.groupby("strategy")["accuracy"]:
        yield interval(100 * accuracy)


def of_06():
    for name in ("mnist-mini-even", "fashion-mnist-even"):
        codes = {path.split("-")[-1]: table for path, table in load(f"compare/{name}-*").items()}
        both = pd.concat(table.assign(strategy=table["strategy"] + f" on {kind}") for kind, table in codes.items())
        for labels in (20, 100):
            for row in la.results.label_saving(both, baseline="random on pca", labels=labels).itertuples():
                yield row.saving, row.low, row.high
    views = pd.DataFrame(json.loads((RESULTS / "codes-from-views.json").read_text())["rows"])
    for _, part in views.groupby("dataset"):
        right = 100 * part.pivot(index="seed", columns="codes", values="accuracy")
        yield from (interval(right[name] - right["PCA"]) for name in right)


def of_08():
    for name in ("mnist-mini", "fashion-mnist-mini"):
        for ratio, rows in rows_of(f"query-sets-{name}").groupby("ratio"):
            yield from differences({(name, ratio): rows})
    twice = la.results.load(RESULTS / "query-sets-twice.parquet")
    wide = twice.pivot(index="seed", columns=["training", "strategy"], values="accuracy").mul(100)
    change = wide["twice"] - wide["learnt"]
    for name in change:
        yield interval(change[name])
        yield interval(change[name] - change["random"])


def of_09():
    tables = load("uncertainty-*")
    several = [tables.pop(f"uncertainty-{name}") for name in ("fashion", "maps", "fashion-maps")]
    yield from on_codes_and_pixels(tables["uncertainty-pixels"], tables.pop("uncertainty-all-labels"))
    measures = tables["uncertainty-strategies"].query("strategy in ['random', 'margin', 'entropy', 'least-confidence']")
    for table in (*several, measures):
        yield from differences({"": table})
    yield from differences(tables)


def of_10():
    for name, table in load("task-agnostic-*").items():
        yield from differences({name: table})


def of_11():
    few = la.results.load(RESULTS / "m2-labels.parquet").query("labels == 100")
    yield from differences({"ask": la.results.load(RESULTS / "m2-ask.parquet")})
    yield from differences({"few": few})
    for row in json.loads((RESULTS / "open-rows.json").read_text())["rows"]:
        yield row["test"], row["low"], row["high"]


QUOTED_SAVINGS = [
    "compare/mnist-mini-even-pca",
    "compare/fashion-mnist-even-pca",
    "compare/fashion-mnist-even-contrastive",
]


def of_14():
    rivals = dict(iter(la.results.load(RESULTS / "rivals.parquet").groupby("dataset")))
    for name, table in (load("compare/*") | load("held-out/*") | rivals).items():
        yield from differences({name: table})
        if name in QUOTED_SAVINGS:
            yield from savings({name: table})


def of_15():
    sky = la.results.load(RESULTS / "photographs.parquet").query("dataset == 'deep-sky'")
    yield from savings({name: sky[sky["codes"] == name] for name in ("pca", "pretrained")})
    yield from savings(load("compare/fashion-mnist-even-pca"))


def of_the_sources():
    """What the page on the documents quotes beyond the notebooks."""
    paper, drawn = load("fashion-paper")["fashion-paper"], load("generated")["generated"]
    for _, runs in paper.groupby(["row", "strategy", "classifier"]):
        yield interval(100 * runs[runs["labels"] == runs["labels"].max()]["accuracy"])
    for row in json.loads((RESULTS / "open-rows.json").read_text())["rows"]:
        yield row["test"], row["low"], row["high"]
    yield from differences(load("m2-ask") | dict(iter(drawn.groupby("asked"))))


SOURCES = {
    "06_codes_from_views": of_06,
    "07_sampling_strategies": lambda: savings(load("query-sets-worth")),
    "08_query_sets_and_classifiers": of_08,
    "09_uncertainty_in_latent_space": of_09,
    "10_task_agnostic_features": of_10,
    "11_semi_supervised_m2": of_11,
    "14_compare_everything": of_14,
    "15_label_your_own_images": of_15,
    "00_start_here": of_08,  # what it quotes of ten seeds
    "03_tsne_autoencoder": of_03,
}


@pytest.mark.parametrize("name", SOURCES)
def test_intervals_that_a_notebook_quotes_are_those_of_the_results(name):
    """Up to the sign: "loses 2 points (1 to 3)" is a difference of -2 (-3 to -1)."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    quoted = [found for cell in cells if cell.cell_type == "markdown" for found in QUOTED.findall(cell.source)]
    assert quoted
    assert stale(quoted, SOURCES[name]()) == []


def test_intervals_of_the_page_on_the_sources():
    quoted = QUOTED.findall((ROOT / "notebooks" / "site" / "sources.md").read_text())
    assert quoted
    assert stale(quoted, itertools.chain(of_08(), of_09(), of_10(), of_the_sources())) == []


def stale(quoted, measured):
    """Which of the quoted are not among the measured, rounded as they are."""
    measured = np.array(list(measured))
    measured = np.concatenate([measured, -measured[:, [0, 2, 1]]])
    missing = []
    for words in quoted:
        places = max(len(word.partition(".")[2]) for word in words)
        value, low, high = map(float, words)
        wanted = np.array([[value, low, high], [-value, low, high]])  # 2 points less (-3 to -1)
        if not (np.abs(measured[:, None] - wanted) <= 0.5 * 10.0**-places + 1e-6).all(axis=2).any():
            missing.append("{} ({} to {})".format(*words))
    return missing


def test_a_stale_interval_is_found():
    text = "It gains 2.1 points (95 % interval 1.0 to 3.2), loses 2.1 (-3.2 to -1.0) and gains 2.1 points (1.1 to 3.2)."
    assert stale(QUOTED.findall(text), [(2.14, 0.96, 3.2)]) == ["2.1 (1.1 to 3.2)"]
