"""What the page promises, with a simulated person who answers from the labels that ship. Writes a table.

    python tests/benchmarks/page.py [--out data/results/page.json] [--runs runs/page] [--seeds 10] [--quick]

A run is a folder of images, at most 2,000, and a LabellingLoop as the page makes it: its own number of held-out images,
its step, its recommended strategy or "random". Codes are 32 principal components; those of deep-sky efficientnet-lite0.
Runs end after 15 rounds or with the last image. What is done is kept in files: a second start goes on.

"stop": where advice() would have ended each run. A rule is a least kappa and a largest gain of the curve (none: without
the curve), as in should_stop. "lost": accuracy on the test images, which nobody has who labels, at the best round less
that where the rule stops, in points; "labels": where it stops; "best": where the best round is. The rule was chosen on
mnist-mini: of those that lose at most one point on average the one with fewest labels; the others confirm it.
"saving": deep-sky, labels to 90 % of the test accuracy with the whole pool, each run taken at every tenth answer (the
nearest curve that does not fall); ratio: random's labels by the recommended strategy's, of paired seeds (geometric
mean). "counts": how often the 95 % intervals of prevalence() hold the truth, after rounds 5 and 10. "doubts":
mnist-mini, 100 random answers of which 10 are wrong: how many doubts() finds, how many of its first 10 are wrong, and
how many it names. Means over seeds with 95 % t intervals.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import lalib as la
from lalib.codes.projection import pixel_pca
from lalib.data.files import written_whole
from lalib.experiments.run_files import provenance
from lalib.experiments.statistics import interval, labels_needed
from lalib.experiments.stopping import ROUNDS, should_stop
from lalib.experiments.task_models import train_together
from lalib.labelling import advice
from lalib.labelling.answers import now

DATA, SKY = ("mnist-mini", "deep-sky", "digits", "fashion-mnist-mini"), "deep-sky"
MOST, LONGEST, SEEN, COUNTED, FINE = 2000, 15, 2000, (5, 10), 10
KAPPAS, GAINS = (0.9, 0.925, 0.95, 0.96, 0.965, 0.97, 0.98), (None, 0.01, 0.02, 0.03, 0.05)
ERRORS, ANSWERS = 10, 100


def answer(loop, images, index, wrong=()):
    """All at once, and right but for the images that are `wrong`."""
    numbers = [(int(images.labels[i]) + (i in wrong)) % images.n_classes for i in index.tolist()]
    pairs = zip(index.tolist(), numbers, strict=True)
    loop.store.add(
        [la.labelling.Answer("me", now(), images.hashes[i], "class", images.class_names[c]) for i, c in pairs]
    )


def coded(name, quick):
    """The folder, its codes, the codes and labels of the test images."""
    images, test = la.load(name), la.load(name, "test")
    images, test = (part.subset(range(min(len(part), 300 if quick else MOST))) for part in (images, test))
    if name == SKY and not quick:
        encoder = la.PretrainedEncoder(device="cpu")
        codes, theirs = la.encode(encoder, images), la.encode(encoder, test)
    else:
        codes, theirs = pixel_pca(32, images, test)
    return images, codes, theirs, test.labels


def runs_of(name, given, strategy, seeds, rounds):
    """A run per seed as numbers: after each round the answers, the accuracy on test and held-out images, kappa, gain.

    The seeds train together, which spares time and changes results by rounding only: `train` of the loops hands out
    what was trained so.
    """
    images, codes, theirs, truth = given
    whole, ready = la.experiments.TaskData(codes, replace(images, labels=None), la.Task()), {}

    def learn(loops, k=None):
        bought = [tuple(part[:k] for part in loop.answered) for loop in loops]
        made = train_together(whole, bought, seeds=seeds, last=[None] * len(loops), device="cpu")
        ready.update(
            {(seed, len(index)): one.classifier for seed, (index, _), one in zip(seeds, bought, made, strict=True)}
        )

    def handed(data, index, labels, *, seed, device):
        model = la.experiments.TaskModel(data, index, labels, seed, 0, device, None)
        model.classifier = ready[seed, len(index)]
        return model

    with tempfile.TemporaryDirectory() as folder, mock.patch("lalib.labelling.rounds.train", handed):
        names = images.class_names
        stores = [la.LabelStore(Path(folder, f"{seed}.sqlite"), names, labeller="me") for seed in seeds]
        bare, here = la.from_arrays(images.images), zip(seeds, stores, strict=True)
        loops = [la.LabellingLoop(bare, codes, store, seed=seed, device="cpu") for seed, store in here]
        found = [{key: [] for key in ("answers", "test", "held_out", "covered", "kappa", "gain")} for _ in seeds]
        right, step = images.labels.bincount(minlength=len(names)).numpy(), loops[0].step
        for loop in loops:
            answer(loop, images, loop.held_out)
        for r in range(1, rounds + 1):
            if not loops[0].step:
                break
            for loop in loops:
                answer(loop, images, loop.ask(strategy or loop.recommended, len(loop.answered[0]) + loop.step))
            learn(loops)
            for loop, row in zip(loops, found, strict=True):
                measured(loop, row, theirs, truth, step)
                if r in COUNTED:
                    counts = loop.prevalence()
                    row["covered"].append(int(((counts["low"] <= right) & (right <= counts["high"])).sum()))
        if name == SKY:
            total = len(loops[0].answered[0])
            fine = [*range(FINE, total, FINE), total]
            for k in fine:
                learn(loops, k)
            for seed, row in zip(seeds, found, strict=True):
                row |= {"fine": fine, "fine_test": [la.accuracy(ready[seed, k], theirs, truth) for k in fine]}
    return [row | {"classes": len(names)} for row in found]


def measured(loop, row, theirs, truth, step):
    snapshot = loop.train()
    row["answers"].append(snapshot.answers)
    row["held_out"].append(snapshot.accuracy)
    row["test"].append(la.accuracy(snapshot.classifier, theirs, truth))
    kappa, gain = stopping(loop.curve(), loop.pool[:SEEN], step)
    row["kappa"].append(kappa)
    row["gain"].append(gain)


def stopping(curve, seen, step):
    """kappa and the upper end of the gain as advice() sees them, None where there are too few rounds."""
    full = [each for each in curve if each.answers % step == 0]
    labels, accuracy = ([getattr(each, name) for each in full] for name in ("answers", "accuracy"))
    predictions = torch.stack([each.probs[seen].argmax(1) for each in full])
    after = should_stop(predictions, labels, accuracy, more=step, windows=advice.WINDOWS)
    return [None if np.isnan(x) else x for x in (after.kappa, after.high)]


def doubting(given, seed):
    """Of 100 random answers 10 are wrong: how many of these are doubted, and how many are doubted in all."""
    images, codes, _, _ = given
    with tempfile.TemporaryDirectory() as folder:
        store = la.LabelStore(Path(folder, "labels.sqlite"), images.class_names, labeller="me")
        loop = la.LabellingLoop(la.from_arrays(images.images), codes, store, seed=seed, device="cpu")
        index = loop.ask("random", ANSWERS)
        wrong = index[:ERRORS].tolist()
        answer(loop, images, index, wrong)
        found = loop.doubts()
    first = found.index[:ERRORS]
    return {"found": len(set(wrong) & set(found.index)), "doubted": len(found), "first": len(set(wrong) & set(first))}


def kept(path, compute):
    """What the file holds, or what is computed and kept there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = compute()
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(made))
    return json.loads(path.read_text())


def stop_of(found, kappa, gain):
    """The round after which the rule stops, the last one if it never does."""
    pairs = enumerate(zip(found["kappa"], found["gain"], strict=True))
    ends = (
        r for r, (k, g) in pairs if r + 1 >= ROUNDS and k is not None and k >= kappa and (gain is None or g <= gain)
    )
    return next(ends, len(found["kappa"]) - 1)


def rule_row(name, runs, kappa, gain):
    ends = [stop_of(found, kappa, gain) for found in runs]
    test = [np.array(found["test"]) for found in runs]
    lost = [100 * float(curve.max() - curve[end]) for curve, end in zip(test, ends, strict=True)]
    spent = [found["answers"][end] for found, end in zip(runs, ends, strict=True)]
    best = [found["answers"][int(curve.argmax())] for found, curve in zip(runs, test, strict=True)]
    values = {"labels": interval(spent), "lost": interval(lost), "best": interval(best)}
    return {"data": name, "kappa": kappa, "gain": gain} | {key: list(map(float, x)) for key, x in values.items()}


def saving(ours, random):
    """Labels to 90 % of the accuracy with all labels, and random's by ours, over paired seeds."""
    needed = {}
    for arm, runs in (("recommended", ours), ("random", random)):
        full = [np.mean([a["fine_test"][-1], b["fine_test"][-1]]) for a, b in zip(ours, random, strict=True)]
        curves = ((np.array(found["fine"]), np.array(found["fine_test"])) for found in runs)
        ends = [labels_needed(*curve, np.array([0.9 * top])) for curve, top in zip(curves, full, strict=True)]
        needed[arm] = [float(low[0] if np.isfinite(high[0]) else np.inf) or FINE for low, high in ends]
    ratio = np.exp(interval(np.log(np.array(needed["random"]) / needed["recommended"])))
    rows = {arm: list(map(float, interval(labels))) for arm, labels in needed.items()}
    return {"data": SKY} | rows | {"ratio": list(map(float, ratio)), "seeds": needed}


def shown(values):
    return "{:.1f} ({:.1f} to {:.1f})".format(*values)


@threadpool_limits.wrap(limits=1)
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).parents[2]
    parser.add_argument("--out", type=Path, default=root / "data/results/page.json")
    parser.add_argument("--runs", type=Path, default=root / "runs/page", help="a folder of finished runs")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="300 images, 5 rounds, 2 seeds: whether all of it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds, rounds = range(2 if given.quick else given.seeds), 5 if given.quick else LONGEST
    text = {
        "what": "the page with a simulated person; tests/benchmarks/page.py says how",
        "rounds": rounds,
        "used": USED,
    }
    rules, counts, runs = [], [], {}
    for name in DATA:
        data = coded(name, given.quick)
        for arm in ("recommended", "random") if name == SKY else ("recommended",):
            strategy = None if arm == "recommended" else arm
            compute = partial(runs_of, name, data, strategy, list(seeds), rounds)
            runs[name, arm] = kept(given.runs / f"{name}-{arm}.json", compute)
        ours = runs[name, "recommended"]
        rules += [rule_row(name, ours, kappa, gain) for kappa in KAPPAS for gain in GAINS]
        held, of = sum(sum(found["covered"]) for found in ours), sum(len(f["covered"]) * f["classes"] for f in ours)
        counts.append({"data": name, "held": held, "of": of})
        used = next(row for row in rules if row["data"] == name and (row["kappa"], row["gain"]) == USED)
        print(
            f"{name}: stops at {shown(used['labels'])} labels, loses {shown(used['lost'])}; best {shown(used['best'])}"
        )
        print(f"  {held} of {of} intervals of counts hold", flush=True)
        text["stop"], text["counts"] = rules, counts
        if name == SKY:
            text["saving"] = sky = saving(ours, runs[SKY, "random"])
            print(f"{SKY}: labels {shown(sky['recommended'])}, random {shown(sky['random'])}, x {shown(sky['ratio'])}")
        write(given.out, text)
    data, files = coded(DATA[0], given.quick), (given.runs / f"doubts-{seed}.json" for seed in seeds)
    found = [kept(file, partial(doubting, data, seed)) for seed, file in enumerate(files)]
    doubted = {key: list(map(float, interval([each[key] for each in found]))) for key in found[0]}
    print(f"doubts on {DATA[0]}: {', '.join(f'{key} {shown(value)}' for key, value in doubted.items())}")
    write(given.out, text | {"doubts": {"data": DATA[0]} | doubted})


def write(path, text):
    """Whole, after every part: what is there is right."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(text | provenance(), indent=1) + "\n")


USED = (advice.KAPPA, advice.GAIN)

if __name__ == "__main__":
    main()
