"""The README's tables of what was measured, from data/results: `python data/claims.py` writes them there.

A test says whether they are stale. Intervals are of 95 %: Student's for means and paired differences, of resampled
seeds for labels that are worth as much (results.label_saving).
"""

import json
from pathlib import Path

import lalib as la

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
        points = [f"{100 * gain.loc[CHOSEN, what]:.1f}" for what in ("difference", "low", "high")]
        seeds = f"[{gain.loc[CHOSEN, 'seeds']}](data/results/{name}.parquet)"
        rows.append([images, codes, *means, "{} ({} to {})".format(*points), times, seeds])
    return rows


def few_labels() -> list[list[str]]:
    """What the images without a label teach, beside what a paper reports."""
    table = la.results.load(RESULTS / "fashion-paper.parquet")
    rows = [["labels", "test accuracy", "reported there", "seeds"]]
    for (row, classifier), (words, reported) in REACHED.items():
        runs = table[(table["row"] == row) & (table["classifier"] == classifier)]
        runs = runs[runs["labels"] == runs["labels"].max()]
        runs = runs[runs["strategy"] == (CHOSEN if CHOSEN in set(runs["strategy"]) else "random")]
        mean, low, high = (100 * value for value in la.results.interval(runs["accuracy"]))
        seeds = f"[{len(runs)}](data/results/fashion-paper.parquet)"
        rows.append([words, f"{mean:.1f} % ({low:.1f} to {high:.1f})", reported, seeds])
    for row in json.loads((RESULTS / "open-rows.json").read_text())["rows"]:
        reached = "{test:.1f} % ({low:.1f} to {high:.1f})".format(**row)
        rows.append([OPEN[row["row"]], reached, "90.4 %", f"[{row['seeds']}](data/results/open-rows.json)"])
    return rows


def written(text: str) -> str:
    """The README's text with its tables as they are now."""
    for name, rows in {"choosing": choosing(), "few labels": few_labels()}.items():
        rows.insert(1, ["---"] * len(rows[0]))
        lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        text = f"{before}{start}\n{lines}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
