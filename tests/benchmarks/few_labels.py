"""10 to 100 labels of Fashion-MNIST, chosen and carried along neighbours: test accuracy. Writes a table.

    python tests/benchmarks/few_labels.py [--out data/results/few-labels.json] [--codes runs/few-labels.pt] [--quick]

The pool are the 55,000 images of la.stratified_split(fashion-mnist, 1/12, seed=0)[0]. Codes are those
of la.ContrastiveEncoder(width=32, views=CLOTHES, seed=0), trained for 15 epochs on all 60,000 images without a label.
Labels, "chosen": the first 20 by typiclust, all at once, then ten by ten by uncertainty-herding with the margins of the
labels spread so far. "random, stratified" draws as many of each class, as published rows do, which takes labels to
know. They are carried by la.codes.spread_labels, told that the ten classes are equally frequent, as those rows are;
it also tells the classes of the test images. Ten seeds, means with 95 % t intervals. More labels were looked at than
are counted: CLOTHES was chosen on labelled clothes of the pool, the spreading on those and on digits, and that shares
are told on the 5,000 kept images (10 random labels, four draws: worth 6 points). The test images are read once.
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


def at_random(codes, truth, count, seed):
    """Indices (count,) of as many images of each class."""
    order = torch.randperm(len(codes), generator=generator(seed, "few labels"))
    return torch.cat([order[truth[order] == c][: count // CLASSES] for c in range(CLASSES)])


def chosen(codes, truth, count, seed):
    """Indices (count,) of images that are chosen without a label, then by what is known of those."""
    index = la.select("typiclust", codes, min(FIRST, count), seed=seed)
    while len(index) < count:
        given = {"labeled": index, "labels": truth[index], "probs": spread(codes, truth, index)}
        many = min(STEP, count - len(index))
        more = la.select("uncertainty-herding", codes, many, **given, seed=seed, candidates=5000)
        index = torch.cat([index, more])
    return index


def spread(codes, truth, index, **options):
    known = la.models.partly_labelled(len(codes), index, truth[index])
    return la.codes.spread_labels(codes, known, CLASSES, **options)


def measure(codes, truth, queries, answers, seeds, counts):
    """Rows of the table, one after the other."""
    told = {"queries": queries, "priors": [1 / CLASSES] * CLASSES}
    for name, draw in {"chosen": chosen, "random, stratified": at_random}.items():
        for count in counts:
            values = []
            for seed in range(seeds):
                guess = spread(codes, truth, draw(codes, truth, count, seed), **told).argmax(1)
                values.append(100 * float((guess == answers).double().mean()))
            mean, low, high = map(float, la.results.interval(values))
            print(f"{name:20}{count:5} labels {mean:5.1f} % ({low:.1f} to {high:.1f})", flush=True)
            yield {"row": name, "labels": count, "accuracy": mean, "low": low, "high": high, "seeds": values}


@threadpool_limits.wrap(limits=1)
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "data/results/few-labels.json")
    parser.add_argument("--codes", type=Path, default=ROOT / "runs/few-labels.pt", help="the codes, made if not there")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="700 images, 2 seeds: whether all of it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    began, seeds = time.process_time(), 2 if given.quick else given.seeds
    path = given.codes.with_stem(f"{given.codes.stem}-quick") if given.quick else given.codes
    images, codes, test, queries = coded(path, given.quick)
    place = {image: i for i, image in enumerate(images.hashes)}
    pool = torch.tensor([place[image] for image in la.stratified_split(images, 1 / 12, seed=0)[0].hashes])
    part, counts = codes[pool], COUNTS[:3] if given.quick else COUNTS
    graph, search = spreading.neighbour_graph(part, spreading.NEIGHBOURS), spreading.Neighbours(part)
    same = {"neighbour_graph": lambda *_: graph, "Neighbours": lambda _: search}  # for all rows, so they are made once
    text = {"what": "few labels of Fashion-MNIST; tests/benchmarks/few_labels.py says how", "rows": []}
    with mock.patch.multiple(spreading, **same):
        for row in measure(part, images.labels[pool], queries, test.labels, seeds, counts):
            text["rows"].append(row)
            made = {"cpu_seconds": round(time.process_time() - began), **provenance()}
            with written_whole(given.out) as temporary:
                temporary.write_text(json.dumps(text | made, indent=1) + "\n")


if __name__ == "__main__":
    main()
