"""Where should_stop stops, what accuracy that costs and how many labels it spares. Writes a table.

    python tests/benchmarks/stopping.py [--out data/results/stopping.json] [--seeds 10] [--rounds 20] [--quick]

uncertainty-herding on 32 principal components, a small network on them, 20 random labels and 20 more in each round.
Predictions are of 2,000 images of the pool, the curve is of the test images, which nobody has who labels: "by
predictions" does without it. A rule that never stops spends all labels. "lost": accuracy at the best round less that
where it stops, in points; "labels": where it stops; means over seeds with 95 % t intervals, and all seeds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import lalib as la
from lalib.codes.projection import pca
from lalib.data.seeds import generator
from lalib.experiments.loop import in_lockstep
from lalib.experiments.run_files import provenance
from lalib.models.classifiers import predict_proba

STEP = 20


def curves(name, seeds, rounds, quick):
    """Predictions (G, R, S), accuracy (G, R) and numbers of labels (R,) of G runs."""
    images, test = la.load(name), la.load(name, "test")
    images, test = (images.subset(range(600)), test.subset(range(200))) if quick else (images, test)
    pixels, theirs = (part.images.flatten(1).numpy() / np.float32(255) for part in (images, test))
    fitted = pca(pixels, 32).fit(pixels)
    codes, test_codes = (torch.from_numpy(fitted.transform(part)) for part in (pixels, theirs))
    data = la.experiments.TaskData(codes, images, la.Task(steps=20) if quick else la.Task())
    seen = torch.randperm(len(codes), generator=generator(0, "stop set"))[:2000]
    initial = [torch.randperm(len(codes), generator=generator(seed, "initial"))[:STEP] for seed in range(seeds)]
    pools = [la.experiments.Pool(images.labels) for _ in initial]
    options = {"initial": initial, "seeds": range(seeds), "step": STEP, "rounds": rounds, "device": "cpu"}
    predictions, accuracy = [], []
    for states in in_lockstep(pools, data, "uncertainty-herding", **options):
        models = [state.model.classifier for state in states]
        predictions.append(torch.stack([predict_proba(model, codes[seen]).argmax(1) for model in models]))
        accuracy.append([la.models.accuracy(model, test_codes, test.labels) for model in models])
    return torch.stack(predictions, dim=1), np.array(accuracy).T, STEP * np.arange(1, rounds + 2)


def stops(predictions, labels, accuracy, by_curve):
    """The round after which the rule stops, the last one if it never does."""
    for r in range(1, len(labels) + 1):
        curve = (labels[:r], accuracy[:r]) if by_curve else ()
        if la.results.should_stop(predictions[:r], *curve, more=STEP).stop:
            return r - 1
    return len(labels) - 1


def measure(name, given):
    predictions, accuracy, labels = curves(name, given.seeds, given.rounds, given.quick)
    for rule in ("by predictions", "by predictions and curve"):
        ends = [
            stops(*run, rule != "by predictions")
            for run in zip(predictions, [labels] * given.seeds, accuracy, strict=True)
        ]
        lost = [100 * float(curve.max() - curve[end]) for curve, end in zip(accuracy, ends, strict=True)]
        spent = [int(labels[end]) for end in ends]
        row = {"data": name, "rule": rule, "labels": la.results.interval(spent), "lost": la.results.interval(lost)}
        row |= {"best": la.results.interval(labels[accuracy.argmax(1)]), "seeds": {"labels": spent, "lost": lost}}
        shown = {key: "{:.1f} ({:.1f} to {:.1f})".format(*row[key]) for key in ("labels", "lost", "best")}
        print(
            f"{name:20}{rule:26}stops at {shown['labels']} labels; best at {shown['best']}; lost {shown['lost']}",
            flush=True,
        )
        yield {key: list(map(float, value)) if isinstance(value, tuple) else value for key, value in row.items()}


@threadpool_limits.wrap(limits=1)
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "data/results/stopping.json")
    parser.add_argument("--data", nargs="+", default=["mnist-mini", "fashion-mnist-mini"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="600 images, 5 rounds, 2 seeds: whether all of it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.seeds, given.rounds = (2, 5) if given.quick else (given.seeds, given.rounds)
    rows = [row for name in given.data for row in measure(name, given)]
    what = "should_stop while labels are bought; tests/benchmarks/stopping.py says how"
    text = json.dumps({"what": what, "rounds": given.rounds, "step": STEP, "rows": rows, **provenance()}, indent=1)
    given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
