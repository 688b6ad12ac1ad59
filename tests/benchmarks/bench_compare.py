"""compare with ten strategies on fashion-mnist-mini's codes, side by side with scikit-activeml and scikit-learn.

    python tests/benchmarks/bench_compare.py [--seeds 5] [--their-seeds 1] [--rounds 10] [--only badge] [--out ...json]

Both sides buy the same number of labels by the same 32 principal components of 10,000 images, and train the same
network (two layers of 256) for as many minibatches of 32 after every purchase. Ours is la.compare as it stands, its
seeds in one call, five of which train together; theirs a plain loop over seeds with SklearnClassifier(MLPClassifier),
which the query gets already trained. Both test after every round.
Seconds are those of the processor in one thread for one seed, of which selection (for bald with its ensemble) in
brackets; the two sides of a strategy follow one another, so that a busy machine slows down both. The whole comparison,
ten seeds, is extrapolated: every seed does the same work, and ten are two groups of five.

GreedyBALD gets five networks, as our bald does; their Badge sees 32 codes where ours sees 256 features, their CoreSet
likewise; ProbCover finds its radius in the first query only, and is told the number of classes. Their MaxHerding takes
more than half of their time, so the sum is given without it, too. Our other strategies have no counterpart there. Needs
the extra `peers`.
"""

import argparse
import inspect
import json
import os
import platform
import subprocess
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import lalib as la
from lalib.experiments import loop
from lalib.experiments.comparison import _codes
from lalib.experiments.tasks import Task
from lalib.strategies.sources import PASSES

INITIAL, WHOLE = 20, 10  # labels to start with; seeds of the whole comparison


def pairs():
    """Our name and their strategy of a seed."""
    from skactiveml import pool

    def uncertainty(method):
        return lambda seed: pool.UncertaintySampling(method=method, random_state=seed)

    return {
        "random": lambda seed: pool.RandomSampling(random_state=seed),
        "least-confidence": uncertainty("least_confident"),
        "margin": uncertainty("margin_sampling"),
        "entropy": uncertainty("entropy"),
        "core-set": lambda seed: pool.CoreSet(random_state=seed),
        "typiclust": lambda seed: pool.TypiClust(random_state=seed),
        "badge": lambda seed: pool.Badge(random_state=seed),
        "probcover": lambda seed: pool.ProbCover(n_classes=10, random_state=seed),
        "maxherding": lambda seed: pool.MaxHerding(random_state=seed),
        "bald": lambda seed: pool.GreedyBALD(random_state=seed),
    }


def network(labels, seed):
    """Their task model, trained for as many minibatches as ours."""
    from skactiveml.classifier import SklearnClassifier
    from sklearn.neural_network import MLPClassifier

    epochs = Task().n_epochs(labels, 0)
    mlp = MLPClassifier(
        (256, 256), batch_size=min(32, labels), max_iter=epochs, n_iter_no_change=epochs, random_state=seed
    )
    return SklearnClassifier(mlp, classes=list(range(10)))


def theirs(strategy, codes, labels, test, seed, rounds, step):
    """The same for their loop; an ensemble is trained where the strategy asks for it, within its selection."""
    (x_test, y_test), spent = test, 0.0
    y = np.full(len(codes), np.nan)
    bought = np.random.RandomState(seed).permutation(len(codes))[:INITIAL]
    for round in range(rounds + 1):
        y[bought] = labels[bought]
        known = int((~np.isnan(y)).sum())
        model = network(known, seed).fit(codes, y)
        accuracy = float((model.predict(x_test) == y_test).mean())
        if round < rounds:
            started = time.process_time()
            bought = np.asarray(
                strategy.query(codes, y, batch_size=step, **asked(strategy, codes, y, model, known, seed))
            )
            spent += time.process_time() - started
    return accuracy, spent


def asked(strategy, codes, y, model, known, seed):
    """The trained classifier or the committee that a strategy takes."""
    parameters = inspect.signature(strategy.query).parameters
    if "clf" in parameters:
        return {"clf": model, "fit_clf": False}
    if "ensemble" in parameters:
        others = [network(known, 1000 * (seed + 1) + member).fit(codes, y) for member in range(1, PASSES)]
        return {"ensemble": [model, *others], "fit_ensemble": False}
    return {}


def ours(name, images, test, encoder, seeds, rounds, step):
    """The last accuracy of every seed in one call of compare, and the seconds of all their selections."""
    original, spent = loop.run_strategy, 0.0

    def timed(*arguments, **options):
        nonlocal spent
        started = time.process_time()
        selection = original(*arguments, **options)
        spent += time.process_time() - started
        return selection

    loop.run_strategy = timed
    try:
        with tempfile.TemporaryDirectory() as out:
            frame = la.compare(
                images, test, encoder=encoder, strategies=[name], initial=INITIAL, step=step, rounds=rounds,
                seeds=seeds, out=out, device="cpu", progress=False,
            )  # fmt: skip
    finally:
        loop.run_strategy = original
    return frame["accuracy"][frame["round"] == rounds].tolist(), spent


def measured(function, *arguments):
    """What it returns, and the seconds of the processor and of the clock that it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = function(*arguments)
    return result, time.process_time() - cpu, time.perf_counter() - wall


def pair(name, rival, data, given):
    """Both sides of a strategy; seconds are those of a seed."""
    images, test, encoder = data
    codes, test_codes = (part.numpy() for part in encoder)
    (accuracies, select), own, own_wall = measured(
        ours, name, images, test, encoder, given.seeds, given.rounds, given.step
    )
    labels, held_out = images.labels.numpy(), (test_codes, test.labels.numpy())
    runs = [
        measured(theirs, rival(seed), codes, labels, held_out, seed, given.rounds, given.step)
        for seed in range(given.their_seeds)
    ]
    (their_accuracy, their_select), other, other_wall = (np.mean(part, axis=0) for part in zip(*runs, strict=True))
    return {
        "strategy": name, "seeds": given.seeds, "their_seeds": given.their_seeds,
        "ours": own / given.seeds, "theirs": other, "ours_wall": own_wall / given.seeds, "theirs_wall": other_wall,
        "ours_select": select / given.seeds, "theirs_select": their_select,
        "accuracy": np.mean(accuracies), "their_accuracy": their_accuracy,
    }  # fmt: skip


def report(name, rows):
    """A line of sums over strategies; the seconds of selection among them in brackets."""
    own, other, own_select, other_select = (
        sum(row[key] for row in rows) for key in ("ours", "theirs", "ours_select", "theirs_select")
    )
    accuracy = [np.mean([row[key] for row in rows]) for key in ("accuracy", "their_accuracy")]
    print(
        f"{name:18}{own:9.1f} ({own_select:6.1f}){other:10.1f} ({other_select:6.1f}){other / own:8.1f}"
        f"{accuracy[0]:9.3f}{accuracy[1]:8.3f}",
        flush=True,
    )


def machine():
    """What the numbers depend on."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    peers = {name: version(name) for name in ("torch", "numpy", "scikit-learn", "scikit-activeml")}
    return {"commit": git.stdout.strip(), "platform": platform.platform(), "cores": os.cpu_count(), **peers}


def measure(given):
    images, test = la.load("fashion-mnist-mini"), la.load("fashion-mnist-mini", "test")
    data = images, test, _codes("pca", images, test)[:2]
    warm_up = argparse.Namespace(seeds=2, their_seeds=1, rounds=1, step=2)
    for name in ("random", "badge"):  # imports, first kernels
        pair(name, pairs()[name], data, warm_up)
    rows = []
    for name in given.only or pairs():
        rows.append(pair(name, pairs()[name], data, given))
        report(name, rows[-1:])
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--their-seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--step", type=int, default=20)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_compare.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{INITIAL} labels and {given.rounds} x {given.step} more; processor seconds of a seed, one thread")
    print(f"{'':18}{'ours (selection)':>18}{'theirs (selection)':>20}{'times':>6}{'accuracy':>9}{'theirs':>8}")
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")  # that many are wanted
        warnings.filterwarnings("ignore", "The maximum purity was")  # of ProbCover's own radii none is pure enough
        rows = measure(given)
    report("all", rows)
    others = [row for row in rows if row["strategy"] != "maxherding"]
    if 0 < len(others) < len(rows):
        report("without maxherding", others)
    own, other = (WHOLE * sum(row[key] for row in rows) / 60 for key in ("ours", "theirs"))
    print(f"{WHOLE} seeds in one process: {own:.1f} minutes, theirs {other:.1f}; on two cores half of either")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), "rounds": given.rounds, "rows": rows}, indent=1))
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
