"""What the README says was measured, from data/results: `python data/claims.py` writes it there.

A test says whether they are stale. Intervals are of 95 %: Student's for means and paired differences, of resampled
seeds for labels that are worth as much (results.label_saving).
"""

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

import lalib as la
from lalib.experiments.statistics import holm

README = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
CHOSEN, LABELS = "uncertainty-herding", 100
DIGITS, RARE, CLOTHES = "4,000 digits", "digits, half of the classes ten times rarer", "60,000 pictures of clothes"
SKY, SMALL = "211 photographs of the sky", "1,438 digits of 8 x 8 pixels"
PCA, OWN, OTHERS = "32 principal components", "contrastive encoder", "pretrained network"
PAIRED = [  # file, images, and codes in which the strategy looks and from which the network learns
    ("compare/mnist-mini-even-pca", DIGITS, PCA),
    ("compare/mnist-mini-even-contrastive", DIGITS, OWN),
    ("compare/mnist-mini-10to1-pca", RARE, PCA),
    ("compare/mnist-mini-10to1-contrastive", RARE, OWN),
    ("compare/fashion-mnist-even-pca", CLOTHES, PCA),
    ("compare/fashion-mnist-even-contrastive", CLOTHES, OWN),
    ("photographs", SKY, PCA),
    ("photographs", SKY, OTHERS),
    ("held-out/digits-even-pca", f"{SMALL} †", PCA),
    ("held-out/mnist-mini-even-pca", f"{DIGITS} †", PCA),
    ("held-out/mnist-mini-10to1-pca", f"{RARE} †", PCA),
]
PART = {PCA: "pca", OTHERS: "pretrained"}  # of the photographs' runs
REACHED = {  # row and classifier in fashion-paper: labels in words, what the paper reports
    ("50 labels", "label spreading"): ("50 chosen", "about 68 %"),
    ("1000 labels", "fixmatch"): ("1,000 random", "84.9 %"),
    ("1000 labels, asked", "fixmatch"): ("1,000 chosen", ""),
    ("three-class start", "fixmatch"): ("1,396 chosen, the first 500 from three of the ten classes", "52.4 %"),
}
OPEN = {"random": "8,000 random", "asked": "8,000, of which 4,000 chosen"}  # rows of open-rows
ONCE = """*What 100 chosen labels are worth against 100 random ones, on 10,000 pictures of clothes (fashion-mnist-mini)
and 4,000 digits (mnist-mini), over {seeds} paired seeds: all strategies of a seed choose on the same 2-D map and start
from the same weights, every seed has a map of its own, and every classifier is trained until it has 99 % of its labels
right. Of these {all} differences {sure} are sure after Holm's correction for all of them (filled), and each of the
{sure} is a loss. No strategy that looks only at such a map surely beats random. Where half of the classes of clothes
are ten times rarer, {gains} gain {least.difference:.0f} to {most.difference:.0f} points, `{most.strategy}` most with
{most.difference:.1f} (95 % interval {most.low:.1f} to {most.high:.1f}), but not surely (corrected
p = {most.p_holm:.2f}).
[Notebook 08](notebooks/08_query_sets_and_classifiers.ipynb) has the whole table.*"""

POISSON = {10: 62.0, 20: 67.2, 50: 73.1, 100: 76.1}  # labels: PoissonMBO on Fashion-MNIST in [Calder2020], in per cent
COLUMNS = ("labels", "lost", "best")
STOPS = {
    "mnist-mini": "2,000 digits ‡",
    "deep-sky": SKY,
    "digits": SMALL,
    "fashion-mnist-mini": "2,000 pictures of clothes",
}
PAGE = """‡ The rule was chosen there, to lose at most one point; the others try it. A run ends after {rounds} rounds,
as all of clothes did. On the sky, the page's own recommendations need {ours} labels for 90 % of the accuracy that all
labels give, random picks {random}: {ratio} times as many, which is not told from as many. Of 10 wrong answers in 100,
"look again" finds {found}, among {doubted} that it names. Of {of} intervals of class counts {held} hold the truth,
which is {share:.0f} % (95 % were asked). All from [page.json](data/results/page.json), ten seeds."""


def choosing() -> list[list[str]]:
    """What choosing is worth: `LABELS` chosen labels beside as many random ones."""
    rows = [["images", "codes", f"{LABELS} chosen", f"{LABELS} random", "points more", "× random labels", "seeds"]]
    for name, images, codes in PAIRED:
        table = la.results.load(RESULTS / f"{name}.parquet")
        if name == "photographs":
            table = table[(table["dataset"] == "deep-sky") & (table["codes"] == PART[codes])]
        table = table[table["strategy"].isin(["random", CHOSEN])]
        gain = la.results.against_random(table[table["labels"] == LABELS], by=["labels"]).set_index("strategy")
        saved = la.results.label_saving(table, labels=LABELS).set_index("strategy").loc[CHOSEN]
        high = f"to {saved['high']:.1f}" if saved["high"] < float("inf") else "or more"
        times = "at least " if saved["bound"] else ""
        times += f"{saved['saving']:.1f}" + ("" if saved["bound"] else f" ({saved['low']:.1f} {high})")
        means = [f"{100 * gain.loc[strategy, 'mean']:.1f} %" for strategy in (CHOSEN, "random")]
        points = interval_of(100 * gain.loc[CHOSEN, ["difference", "low", "high"]])
        seeds = f"[{gain.loc[CHOSEN, 'seeds']}](data/results/{name}.parquet)"
        rows.append([images, codes, *means, points, times, seeds])
    return rows


def few_labels() -> list[list[str]]:
    """What the images without a label teach, beside what a paper reports."""
    table = la.results.load(RESULTS / "fashion-paper.parquet")
    rows = [["labels", "test accuracy", "reported there", "seeds"]]
    for (row, classifier), (words, reported) in REACHED.items():
        runs = table[(table["row"] == row) & (table["classifier"] == classifier)]
        runs = runs[runs["labels"] == runs["labels"].max()]
        runs = runs[runs["strategy"] == (CHOSEN if CHOSEN in set(runs["strategy"]) else "random")]
        reached = interval_of(100 * np.array(la.results.interval(runs["accuracy"])), unit=" %")
        rows.append([words, reached, reported, f"[{len(runs)}](data/results/fashion-paper.parquet)"])
    for row in json.loads((RESULTS / "open-rows.json").read_text())["rows"]:
        reached = interval_of([row[what] for what in ("test", "low", "high")], unit=" %")
        rows.append([OPEN[row["row"]], reached, "90.4 %", f"[{row['seeds']}](data/results/open-rows.json)"])
    return rows


def fewest() -> list[list[str]]:
    """What 10 to 100 chosen labels reach, and as many random ones, beside a published method with random ones."""
    read = json.loads((RESULTS / "few-labels.json").read_text())["rows"]
    found = {(row["row"], row["labels"]): row for row in read}
    rows = [["labels", "chosen", "random, of each class as many", "published, such random ones", "seeds"]]
    for labels, published in POISSON.items():
        ours = [found[name, labels] for name in ("chosen", "random, stratified")]
        reached = [interval_of([row[what] for what in ("accuracy", "low", "high")], unit=" %") for row in ours]
        seeds = f"[{min(len(row['seeds']) for row in ours)}](data/results/few-labels.json)"
        rows.append([str(labels), *reached, f"{published:.1f} %", seeds])
    return rows


def choosing_once() -> str:
    """What is sure about 100 labels that are chosen at once, from a map: the words under the picture of notebook 08."""
    parts = []
    for data in ("fashion-mnist-mini", "mnist-mini"):
        files = (RESULTS / f"query-sets-{data}").glob("*.json")
        rows = pd.DataFrame([row for file in files for row in json.loads(file.read_text())["rows"]])
        parts.append(la.results.against_random(rows, test="t").assign(data=data))
    found = pd.concat(parts).query("strategy != 'random'")
    found["p_holm"], points = holm(found["p"]), ["difference", "low", "high"]
    found[points] *= 100
    sure, seeds = found[found["p_holm"] < 0.05], found["seeds"].unique().tolist()
    assert len(seeds) == 1
    assert (sure["difference"] < 0).all(), "there is a sure gain: write the README anew"
    gains = found[(found["data"] == "fashion-mnist-mini") & (found["ratio"] == 10) & (found["low"] > 0)]
    gains = gains.sort_values("difference")
    numbers = {"all": len(found), "sure": len(sure), "seeds": seeds[0], "gains": len(gains)}
    return filled(ONCE.format(**numbers, least=gains.iloc[0], most=gains.iloc[-1]))


def page() -> str:
    """Where the page says that further labels will hardly help, and what else was tried with a simulated person."""
    found = json.loads((RESULTS / "page.json").read_text())
    rows = [["images", "says stop at (labels)", "points below the best round", "which is at (labels)"]]
    for name, images in STOPS.items():
        rule = {"data": name, "kappa": found["used"][0], "gain": found["used"][1]}
        (row,) = (row for row in found["stop"] if rule.items() <= row.items())
        rows.append([images, *(interval_of(row[key], digits) for key, digits in zip(COLUMNS, (0, 1, 0), strict=True))])
    saving, doubts = found["saving"], found["doubts"]
    assert saving["ratio"][1] < 1 < saving["ratio"][2], "they are told apart: write the README anew"
    held, of = (sum(row[key] for row in found["counts"]) for key in ("held", "of"))
    numbers = {
        "rounds": found["rounds"],
        "ours": interval_of(saving["recommended"], 0),
        "random": interval_of(saving["random"], 0),
        "ratio": interval_of(saving["ratio"]),
        "found": interval_of(doubts["found"]),
        "doubted": interval_of(doubts["doubted"], 0),
        "held": held,
        "of": of,
        "share": 100 * held / of,
    }
    return f"{table(rows)}\n\n{filled(PAGE.format(**numbers))}"


def interval_of(values: Iterable[float], digits: int = 1, unit: str = "") -> str:
    """A mean and its interval: "2.6 (0.6 to 4.6)", or with the unit " %" "2.6 % (0.6 to 4.6)"."""
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{mean}{unit} ({low} to {high})"


def filled(words: str) -> str:
    """A paragraph in lines of the README's width."""
    return textwrap.fill(words, width=140, break_on_hyphens=False, break_long_words=False)


def table(rows: list[list[str]]) -> str:
    """Rows, the first of which is the head, as a table of Markdown."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def written(text: str) -> str:
    """The README's text with what was measured as it is now."""
    parts = {"choosing": table(choosing()), "choosing once": choosing_once(), "few labels": table(few_labels())}
    parts |= {"fewest": table(fewest()), "page": page()}
    for name, lines in parts.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        text = f"{before}{start}\n{lines}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
