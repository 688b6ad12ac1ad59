"""10 to 100 labels of Fashion-MNIST, chosen and carried along neighbours: test accuracy. Writes a table.

    python tests/benchmarks/few_labels.py [--out data/results/few-labels.json] [--codes runs/few-labels.pt] [--choose]

The pool of 55,000 images and the 5,000 kept ones are la.stratified_split(fashion-mnist, 1/12, seed=0). Codes are those
of la.ContrastiveEncoder(width=32, views=CLOTHES, seed=0), trained for 15 epochs on all 60,000 images without a label.
Labels: "random, stratified" draws as many of each class as published rows do, which takes labels to know; "typiclust"
chooses all at once; "uncertainty-herding" goes on from the first 20 of those, ten by ten, by the margins of the labels
spread so far. They are carried by la.codes.spread_labels, which also tells the classes of the test images; "shares
known" tells it that the ten classes are equally frequent, as those rows do. Ten seeds, means with 95 % t intervals.
More labels were looked at than bought: CLOTHES was chosen on labelled clothes, the spreading on those and on digits,
and which of these rows is the one to quote on the 5,000 kept images (--choose looks at these alone and writes nothing).
"""

import argparse
import json
import time
from pathlib import Path
from unittest import mock

import torch
from threadpoolctl import threadpool_limits

import lalib as la
from lalib.codes import spreading
from lalib.data.files import written_whole
from lalib.data.seeds import generator
from lalib.experiments.run_files import provenance
from lalib.models.views import CLOTHES

ROOT = Path(__file__).parents[2]
COUNTS, FIRST, STEP, CLASSES = (10, 20, 50, 100), 20, 10, 10
LABELS = ("random, stratified", "typiclust", "uncertainty-herding")


def coded(path, quick):
    """The codes of the 60,000 training and the 10,000 test images, made if they are not there."""
    images, test = (la.load("fashion-mnist", split=split) for split in ("train", "test"))
    if quick:
        images, test = images.subset(range(600)), test.subset(range(100))
    if not path.is_file():
        encoder = la.ContrastiveEncoder(images.image_shape, width=4 if quick else 32, views=CLOTHES, seed=0)
        la.fit(encoder, images, epochs=1 if quick else 15, seed=0, device="cpu")
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            torch.save({"codes": la.encode(encoder, images), "test": la.encode(encoder, test)}, temporary)
    codes = torch.load(path)
    return images, codes["codes"], test, codes["test"]


def chosen(kind, codes, truth, count, seed):
    """Indices (count,) of the images that get a label."""
    draws = generator(seed, "few labels", kind)
    if kind == "random, stratified":
        order = torch.randperm(len(codes), generator=draws)
        return torch.cat([order[truth[order] == c][: count // CLASSES] for c in range(CLASSES)])
    if kind == "typiclust":
        return la.select("typiclust", codes, count, seed=seed)
    index = chosen("typiclust", codes, truth, min(FIRST, count), seed)
    while len(index) < count:
        probs = spread(codes, truth, index)
        given = {"labeled": index, "labels": truth[index], "probs": probs, "seed": seed, "candidates": 5000}
        index = torch.cat([index, la.select("uncertainty-herding", codes, min(STEP, count - len(index)), **given)])
    return index


def spread(codes, truth, index, **options):
    known = la.models.partly_labelled(len(codes), index, truth[index])
    return la.codes.spread_labels(codes, known, CLASSES, **options)


def measure(codes, truth, queries, answers, seeds, counts):
    rows, shares = [], [1 / CLASSES] * CLASSES
    for kind in LABELS:
        for count in counts if kind != LABELS[2] else [count for count in counts if count > FIRST]:
            found = {"": [], ", shares known": []}
            for seed in range(seeds):
                index = chosen(kind, codes, truth, count, seed)
                for said, priors in (("", None), (", shares known", shares)):
                    guess = spread(codes, truth, index, queries=queries, priors=priors).argmax(1)
                    found[said].append(100 * float((guess == answers).double().mean()))
            for said, values in found.items():
                mean, low, high = map(float, la.results.interval(values))
                row = {"row": kind + said, "labels": count, "accuracy": mean, "low": low, "high": high}
                rows.append(row | {"seeds": values})
                print(f"{kind + said:36}{count:5} labels {mean:5.1f} % ({low:.1f} to {high:.1f})", flush=True)
    return rows


@threadpool_limits.wrap(limits=1)
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "data/results/few-labels.json")
    parser.add_argument("--codes", type=Path, default=ROOT / "runs/few-labels.pt", help="the codes, made if not there")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--choose", action="store_true", help="look at the kept images instead of the test images")
    parser.add_argument("--quick", action="store_true", help="700 images, 2 seeds: whether all of it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began, seeds = time.process_time(), 2 if given.quick else given.seeds
    images, codes, test, queries = coded(given.codes, given.quick)
    place = {image: i for i, image in enumerate(images.hashes)}
    pool, kept = (torch.tensor([place[h] for h in part.hashes]) for part in la.stratified_split(images, 1 / 12, seed=0))
    answers = test.labels
    if given.choose:
        queries, answers = codes[kept], images.labels[kept]
    part, shown = codes[pool], COUNTS[:2] if given.quick else COUNTS
    graph, search = spreading.neighbour_graph(part, spreading.NEIGHBOURS), spreading.Neighbours(part)
    same = {"neighbour_graph": lambda *_: graph, "Neighbours": lambda _: search}  # for all rows, so they are made once
    with mock.patch.multiple(spreading, **same):
        rows = measure(part, images.labels[pool], queries, answers, seeds, shown)
    if not given.choose:
        text = {"what": "few labels of Fashion-MNIST; tests/benchmarks/few_labels.py says how", "rows": rows}
        text |= {"cpu_seconds": round(time.process_time() - began), **provenance()}
        with written_whole(given.out) as temporary:
            temporary.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
