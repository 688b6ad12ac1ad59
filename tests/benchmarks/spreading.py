"""spread_labels by its methods, with few random labels: accuracy on the images without one. Writes a table.

    python tests/benchmarks/spreading.py [--out data/results/spreading.json] [--seeds 10] [--quick]

Codes are 32 principal components of all images, labels are drawn at random, alike for all methods. "poisson, shares
known" is told how frequent the classes are. The rival, "20 neighbours, one scale", is what lalib had before:
[Zhou2004] on the graph of 20 neighbours with weights exp(-(d / mean d)^2), the larger of both directions. "difference"
is to it, in points, "low" and "high" its paired 95 % t interval over seeds. CPU seconds are one thread's, of one seed.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import scipy
import torch
from threadpoolctl import threadpool_limits

import lalib as la
from lalib.codes.projection import pca
from lalib.data.seeds import generator
from lalib.experiments.run_files import provenance

RIVAL = "20 neighbours, one scale"


def rival(codes, labels, n_classes, k=20, alpha=0.99):
    distance, nearest = la.codes.knn(codes, k)
    weights = np.exp(-np.square(distance.numpy() / float(distance.mean())))
    places = nearest.numpy().ravel(), np.arange(0, weights.size + 1, k)
    graph = scipy.sparse.csr_array((weights.ravel(), *places), shape=(len(codes),) * 2)
    graph = graph.maximum(graph.T)
    scale = scipy.sparse.diags_array(1 / np.sqrt(graph.sum(1)))
    system = scipy.sparse.eye_array(len(codes)) - alpha * (scale @ graph @ scale)
    given = (labels.numpy()[:, None] == np.arange(n_classes)).astype(float)
    columns = (given / given.sum(0).clip(1)).T
    return torch.from_numpy(np.stack([scipy.sparse.linalg.cg(system, y, rtol=1e-6)[0] for y in columns], axis=1))


def methods(shares):
    spread = la.codes.spread_labels
    return {
        RIVAL: rival,
        "consistency": lambda *given: spread(*given, method="consistency"),
        "poisson": spread,
        "poisson, shares known": lambda *given: spread(*given, priors=shares),
    }


def measure(name, counts, seeds, quick):
    images = la.load(name)
    images = images.subset(range(300)) if quick else images
    pixels = images.images.flatten(1).numpy() / np.float32(255)
    codes, truth = torch.from_numpy(pca(pixels, 32).fit_transform(pixels)), images.labels
    n, n_classes = len(codes), images.n_classes
    ways, rows = methods(truth.bincount(minlength=n_classes) / n), []
    for count in counts:
        found, seconds = {way: [] for way in ways}, {}
        for seed in range(seeds):
            index = torch.randperm(n, generator=generator(seed, "labels"))[:count]
            labels = la.models.partly_labelled(n, index, truth[index])
            for way, spread in ways.items():
                start = time.process_time()
                guess = spread(codes, labels, n_classes).argmax(1)
                seconds[way] = round(time.process_time() - start, 2)
                found[way].append(100 * float((guess == truth)[labels < 0].double().mean()))
        for way, values in found.items():
            row = {"data": name, "labels": count, "method": way, "accuracy": float(np.mean(values))}
            if way != RIVAL:
                ends = la.results.interval(np.subtract(values, found[RIVAL]))
                row |= dict(zip(("difference", "low", "high"), map(float, ends), strict=True))
            rows.append(row | {"cpu_seconds": seconds[way], "seeds": values})
            gain = "" if way == RIVAL else "{difference:+.1f} ({low:+.1f} to {high:+.1f})".format(**row)
            print(f"{way:26}{name:20}{count:5} labels {row['accuracy']:6.1f} %  {gain}", flush=True)
    return rows


@threadpool_limits.wrap(limits=1)
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "data/results/spreading.json")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="300 images, 2 seeds: whether all of it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds = 2 if given.quick else given.seeds
    rows = [
        row for name in ("mnist-mini", "fashion-mnist-mini") for row in measure(name, (10, 50, 100), seeds, given.quick)
    ]
    what = "spread_labels: accuracy in % on the images without a label; tests/benchmarks/spreading.py says of what"
    given.out.write_text(json.dumps({"what": what, "rival": RIVAL, "rows": rows, **provenance()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
