"""What the page promises, with a simulated person who answers from the labels that ship. Writes a table.

    python tests/benchmarks/page.py [--out data/results/page.json] [--runs runs/page] [--seeds 10] [--quick]

A run is a folder of images, at most 2,000, and a LabellingLoop as the page makes it: its own number of held-out images,
its step, its recommended strategy or "random". Codes are 32 principal components; those of deep-sky efficientnet-lite0.
Runs end after 15 rounds or with the last image. Each is kept in a file of its own: a second start goes on.

"stop": where advice() would have ended each run. A rule is a least kappa and a largest gain of the curve (none: without
the curve), as in should_stop. "lost": accuracy on the test images, which nobody has who labels, at the best round less
that where the rule stops, in points; "labels": where it stops; "best": where the best round is. The rule was chosen on
mnist-mini: of those that lose at most one point on average the one with fewest labels; the others confirm it.
"saving": deep-sky, labels to 90 % of the test accuracy with the whole pool, each run taken at every tenth answer (the
nearest curve that does not fall); ratio: random's labels by the recommended strategy's, of paired seeds (geometric
mean). "counts": how often the 95 % intervals of prevalence() hold the truth, after rounds 5 and 10. "doubts": 100
answers of which 10 are wrong: how many doubts() finds, among how many. Means over seeds with 95 % t intervals.
"""

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import lalib as la
from lalib.codes.projection import pixel_pca
from lalib.data.files import written_whole
from lalib.data.seeds import generator
from lalib.experiments.run_files import provenance
from lalib.experiments.statistics import interval, labels_needed
from lalib.experiments.stopping import ROUNDS, should_stop
from lalib.labelling import advice
from lalib.labelling.answers import now

DATA, SKY = ("mnist-mini", "deep-sky", "digits", "fashion-mnist-mini"), "deep-sky"
MOST, LONGEST, SEEN, COUNTED, FINE = 2000, 15, 2000, (5, 10), 10
KAPPAS, GAINS = (0.9, 0.925, 0.95, 0.97, 0.98, 0.99), (None, 0.01, 0.02, 0.03, 0.05)
ERRORS, ANSWERS = 10, 100


class Person:
    """Answers at once, and right but for `wrong` images."""

    def __init__(self, images, store):
        self.images, self.store = images, store

    def answer(self, index, wrong=()):
        said = []
        for i in index.tolist():
            name = self.images.class_names[(int(self.images.labels[i]) + (i in wrong)) % self.images.n_classes]
            said.append(la.labelling.Answer("me", now(), self.images.hashes[i], "class", name))
        self.store.add(said)


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


def run(name, given, strategy, seed, rounds):
    """One run as numbers: after each round the answers, the accuracy on test and held-out images, kappa and gain."""
    images, codes, theirs, truth = given
    with tempfile.TemporaryDirectory() as folder:
        store = la.LabelStore(Path(folder, "labels.sqlite"), images.class_names, labeller="me")
        loop = la.LabellingLoop(la.from_arrays(images.images), codes, store, seed=seed, device="cpu")
        person = Person(images, store)
        person.answer(loop.held_out)
        seen = loop.pool[torch.randperm(len(loop.pool), generator=generator(seed, "seen"))[:SEEN]]
        found = {"answers": [], "test": [], "held_out": [], "covered": [], "kappa": [], "gain": []}
        step = loop.step
        while len(found["answers"]) < rounds and loop.step:
            person.answer(loop.ask(strategy or loop.recommended, len(loop.answered[0]) + loop.step))
            snapshot = loop.train()
            for key, value in zip(("kappa", "gain"), stopping(loop.curve(), seen, step), strict=True):
                found[key].append(value)
            found["answers"].append(snapshot.answers)
            found["test"].append(la.accuracy(snapshot.classifier, theirs, truth))
            found["held_out"].append(snapshot.accuracy)
            if len(found["answers"]) in COUNTED:
                counts, right = loop.prevalence(), images.labels.bincount(minlength=images.n_classes).numpy()
                found["covered"].append(int(((counts["low"] <= right) & (right <= counts["high"])).sum()))
        if name == SKY:
            found["fine"] = [*range(FINE, len(loop.answered[0]), FINE), len(loop.answered[0])]
            learnt = (loop.train(k).classifier for k in found["fine"])
            found["fine_test"] = [la.accuracy(classifier, theirs, truth) for classifier in learnt]
    return found | {"classes": images.n_classes}


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
        Person(images, store).answer(index, wrong)
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
    seeds, rounds = (2, 5) if given.quick else (given.seeds, LONGEST)
    rules, counts, doubted, runs = [], [], [], {}
    for name in DATA:
        data = coded(name, given.quick)
        for arm in ("recommended", "random") if name == SKY else ("recommended",):
            strategy = None if arm == "recommended" else arm
            files = [given.runs / f"{name}-{arm}-{seed}.json" for seed in range(seeds)]
            runs[name, arm] = [
                kept(file, partial(run, name, data, strategy, seed, rounds)) for seed, file in enumerate(files)
            ]
        files = [given.runs / f"{name}-doubts-{seed}.json" for seed in range(seeds)] if name in DATA[:2] else []
        found = [kept(file, partial(doubting, data, seed)) for seed, file in enumerate(files)]
        for key in ("found", "first", "doubted") if found else ():
            doubted.append({"data": name, "what": key, "mean": list(map(float, interval([x[key] for x in found])))})
        ours = runs[name, "recommended"]
        rules += [rule_row(name, ours, kappa, gain) for kappa in KAPPAS for gain in GAINS]
        held, of = sum(sum(found["covered"]) for found in ours), sum(len(f["covered"]) * f["classes"] for f in ours)
        counts.append({"data": name, "held": held, "of": of})
        used = next(row for row in rules if row["data"] == name and (row["kappa"], row["gain"]) == USED)
        print(
            f"{name}: stops at {shown(used['labels'])} labels, loses {shown(used['lost'])}; best {shown(used['best'])}"
        )
        print(f"  counts: {held} of {of} intervals hold", flush=True)
    sky = saving(runs[SKY, "recommended"], runs[SKY, "random"])
    print(f"{SKY}: labels {shown(sky['recommended'])}, random {shown(sky['random'])}, ratio {shown(sky['ratio'])}")
    text = {"what": "the page with a simulated person; tests/benchmarks/page.py says how", "rounds": rounds}
    text |= {"used": USED, "stop": rules, "saving": sky, "counts": counts, "doubts": doubted} | provenance()
    with written_whole(given.out) as temporary:
        temporary.write_text(json.dumps(text, indent=1) + "\n")


USED = (advice.KAPPA, advice.GAIN)

if __name__ == "__main__":
    main()
