"""core-set, typiclust and badge on 60,000 x 64 codes with 100 labels, side by side with scikit-activeml's.

    python tests/benchmarks/bench_strategies.py [--size 60000] [--n 100] [--repeats 1] [--out runs/...json]

Every row runs in a process of its own with one thread, after a warm-up on few codes. Seconds are the best of --repeats,
those of the processor, which a busy machine stretches less than the clock's; megabytes the peak of resident memory
above what was there before. Both get the same codes, labels and class probabilities (a logistic regression on the
labels, whose features are the codes). Agreement is the share of lalib's picks that the rival picks, too: 1 where
nothing is drawn. The other strategies are measured alone, at their defaults. Needs the extra `peers`.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from lalib.data.seeds import generator
from lalib.strategies.registry import select

LABELED = 100
COVERING = ("probcover", "maxherding")
DISTANT = ("m2-distance", "m2-confidence-distance", "norm-added", "norm-change")
ALONE = ("medal", "margin", "entropy", "bald", "batchbald", *COVERING, *DISTANT)


def make_pool(size, dimensions=64):
    """Codes (size, dimensions) float32 in ten Gaussian clusters, which of them are labelled, and their clusters."""
    g = generator(0, "bench")
    centres = torch.randn(10, dimensions, generator=g)
    label = torch.randint(10, (size,), generator=g)
    codes = centres[label] + torch.randn(size, dimensions, generator=g)
    labeled = torch.randperm(size, generator=g)[:LABELED]
    return codes, labeled, label[labeled]


def classifier(codes, labeled, labels):
    from skactiveml.classifier import SklearnClassifier

    model = SklearnClassifier(LogisticRegression(max_iter=200), classes=list(range(10)))
    return model.fit(codes[labeled].double().numpy(), labels.numpy())


def ours(name, pool, n):
    """A function without arguments that runs lalib's strategy."""
    codes, labeled, labels = pool
    sources = {"features": codes, "probs": codes[:, :10].softmax(dim=1)}
    if name == "badge":
        sources["probs"] = torch.from_numpy(classifier(*pool).predict_proba(codes.double().numpy()))
    if "bald" in name:
        noise = torch.randn(20, len(codes), 10, generator=generator(0, "passes"))
        sources["mc_probs"] = noise.add_(codes[:, :10]).softmax(dim=2)
    codes = codes[:, :32] if name in COVERING else codes
    return lambda: select(name, codes, n, labeled=labeled, labels=labels, **sources)


def theirs(name, pool, n):
    """The same for scikit-activeml's."""
    from skactiveml.pool import Badge, CoreSet, TypiClust

    codes, labeled, labels = pool
    x, y = codes.double().numpy(), np.full(len(codes), np.nan)
    y[labeled] = labels
    rival = {"core-set": CoreSet, "typiclust": TypiClust, "badge": Badge}[name](random_state=0)
    given = {"clf": classifier(*pool), "fit_clf": False} if name == "badge" else {}
    return lambda: rival.query(x, y, batch_size=n, **given)


def row(side, name, size, n, repeats):
    """Best seconds, peak extra megabytes and the picks of one strategy, in the process it is called in."""
    make = {"lalib": ours, "scikit-activeml": theirs}[side]
    make(name, make_pool(500), 10)()  # imports, first kernels
    call, seconds = make(name, make_pool(size), n), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(repeats):
        start = time.process_time()
        picked = call()
        seconds.append(time.process_time() - start)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {"case": f"{name}: {side}", "seconds": min(seconds), "megabytes": extra, "picked": [int(i) for i in picked]}


def isolated(*arguments):
    """A row measured in a fresh process with one thread."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return pool.apply(limited, arguments)


def limited(*arguments):
    with threadpool_limits(1):
        return row(*arguments)


def measure(size, n, repeats):
    for name in ("core-set", "typiclust", "badge"):
        own, rival = (isolated(side, name, size, n, repeats) for side in ("lalib", "scikit-activeml"))
        yield own
        times = rival["seconds"] / own["seconds"]
        yield rival | {"times": times, "agreement": len(set(own["picked"]) & set(rival["picked"])) / n}
    for name in ALONE:
        yield isolated("lalib", name, size, n, repeats)


def report(row):
    times = f"{row['times']:8.1f}{row['agreement']:11.2f}" if "times" in row else ""
    print(f"{row['case']:32}{row['seconds']:9.2f}{row['megabytes']:8.0f}{times}", flush=True)


def machine():
    """What the numbers depend on."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    peers = {name: version(name) for name in ("torch", "numpy", "scikit-learn", "scikit-activeml")}
    return {"commit": git.stdout.strip(), "platform": platform.platform(), **peers}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=60_000)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_strategies.json"))
    given = parser.parse_args()
    print(f"{given.size:,} x 64 codes (probcover, maxherding: x 32), {LABELED} labels, n = {given.n}, one thread")
    print(f"{'':32}{'seconds':>9}{'MB':>8}{'times':>8}{'agreement':>11}")
    rows = []
    for found in measure(given.size, given.n, given.repeats):
        report(found)
        rows.append({key: value for key, value in found.items() if key != "picked"})
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), "size": given.size, "n": given.n, "rows": rows}, indent=1))
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
