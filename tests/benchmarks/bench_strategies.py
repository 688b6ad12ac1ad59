"""What choosing takes: one table of strategies, sizes and rivals.

    python tests/benchmarks/bench_strategies.py [--quick] [--only badge core-set] [--out runs/bench_strategies.json]

Every row runs in a process of its own with one thread, after a warm-up on few codes. Codes lie in ten Gaussian
clusters; 100 are labelled, 100 are picked. Probabilities are those of a logistic regression on the labels, whose
features are the codes; both sides get the same.

ours, rival   seconds of the processor, the best of two; of a side that takes over 5 s, the first. The sides take turns.
ratio         how many times as long the rival takes.
same          share of our picks, or neighbours, that are the rival's, too. For k-means, our sum of squared distances
              to the centres over the rival's.
MB            peak of resident memory during our first call, above what was there before it: the codes and sources.
share         for what reads all codes at every pick: codes read once per pick, over what memory can deliver.
              For k-means and neighbours: of the float32 operations, 2 N k L an iteration, 2 N N L in all, over what a
              large matrix product can do. Both limits are measured beside the row, in the same process. Small codes lie
              in the cache of the processor, so that more than the memory's speed is possible.

The rivals: scikit-activeml (for k-medoids its CLUE, whose k-means is weighted by entropy), faiss and scikit-learn with
the same number of centres and iterations and all codes, a plain loop of core-set in single precision, and the
documents' loop over draws, which passes over all codes for each. "neighbours, nearly" are pynndescent's, with the
compilation that it needs once in a process. --quick: 5,000 codes, 20 picks, all in this process, all neighbours exact,
without scikit-activeml. Needs the extra `peers`.
"""

import argparse
import ctypes
import dataclasses
import functools
import json
import multiprocessing
import os
import platform
import subprocess
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from lalib.codes import kmeans, knn
from lalib.data.seeds import generator
from lalib.strategies import STRATEGIES, select, spatial

LABELED = N = 100
QUICK = 5_000  # codes with --quick
TURNS, LONG = 2, 5.0  # how often each side is measured; seconds beyond which once is enough
CENTRES, ITERATIONS, NEIGHBOURS = 100, 25, 20
CHUNK = 10_000


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table. bound: what limits it at best, "memory" or "product"."""

    name: str
    size: int
    dimensions: int
    rival: str | None = None
    bound: str | None = None


def cases():
    for size, dimensions in ((60_000, 64), (1_000_000, 32)):
        peer = "scikit-activeml" if size == 60_000 else None
        yield Case("core-set", size, dimensions, "plain loop", "memory")
        if peer:
            yield Case("core-set", size, dimensions, peer, "memory")
        for name in ("medal", "margin + diversity"):
            yield Case(name, size, dimensions, None, "memory")
        yield Case("badge", size, dimensions, peer, "memory")
        for name in ("k-medoids", "typiclust"):
            yield Case(name, size, dimensions, peer)
        for name in ("m2-distance", "norm-added", "batchbald", "cluster"):
            yield Case(name, size, dimensions)
    for name in ("probcover", "maxherding", "uncertainty-herding"):
        yield Case(name, 100_000, 32, None, "memory")
    for name in ("uniform-spatial", "normal-spatial"):
        yield Case(name, 1_000_000, 2, "documents' loop")
    for name in ("k-means", "neighbours"):
        for rival in ("faiss", "scikit-learn"):
            yield Case(name, 100_000, 32, rival, "product")
    yield Case("neighbours, nearly", 100_000, 32, "exact", "product")


class Pool:
    """Codes (N, L) float32, which of them are labelled, and their clusters as labels."""

    def __init__(self, size, dimensions, device="cpu"):
        g = generator(0, "bench")
        centres = 3 * torch.randn(10, dimensions, generator=g)
        cluster = torch.randint(10, (size,), generator=g)
        self.codes, self.device = torch.randn(size, dimensions, generator=g), device
        for part, of in zip(self.codes.split(CHUNK), cluster.split(CHUNK), strict=True):
            part += centres[of]
        self.labeled = torch.randperm(size, generator=g)[:LABELED]
        self.labels = cluster[self.labeled]
        self.regression = LogisticRegression(C=1e-3).fit(self.codes[self.labeled].double().numpy(), self.labels)
        self.codes = self.codes.to(device)

    def logits(self):
        slope, start = (torch.from_numpy(part).float() for part in (self.regression.coef_, self.regression.intercept_))
        return torch.addmm(start.to(self.device), self.codes, slope.T.to(self.device))

    def sources(self, needs):
        found = dict.fromkeys({"features", "latents"} & set(needs), self.codes)
        if "probs" in needs:
            found["probs"] = self.logits().softmax(dim=1)
        if "mc_probs" in needs:
            passes, g = self.logits().expand(10, -1, -1).clone(), generator(0, "passes")
            for logits in passes:
                logits += torch.randn(logits.shape, generator=g).to(self.device)
                logits.copy_(logits.softmax(dim=1))
            found["mc_probs"] = passes
        return found


def ours(name, pool, n):
    """A function without arguments that does lalib's part."""
    if name == "k-means":
        return lambda: kmeans(pool.codes, CENTRES, generator(0), iterations=ITERATIONS)
    if name.startswith("neighbours"):
        return lambda: knn(pool.codes, NEIGHBOURS, exact=QUICK if "nearly" in name else None)[1]
    name, *options = name.split(" + ")
    sources = pool.sources(STRATEGIES[name].needs) | dict.fromkeys(options, 1.0)
    return lambda: select(name, pool.codes, n, labeled=pool.labeled, labels=pool.labels, **sources)


def by_scikit_activeml(name, pool, n):
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import Badge, Clue, CoreSet, TypiClust

    x, y = pool.codes.double().numpy(), np.full(len(pool.codes), np.nan)
    y[pool.labeled] = pool.labels
    rival = {"core-set": CoreSet, "typiclust": TypiClust, "badge": Badge, "k-medoids": Clue}[name](random_state=0)
    clf = SklearnClassifier(LogisticRegression(C=1e-3), classes=list(range(10)))
    clf, given = clf.fit(x[pool.labeled], pool.labels.numpy()), {}
    if name == "badge":
        given = {"clf": clf, "fit_clf": False}
    elif name == "k-medoids":
        given = {"estimator": clf, "fit_estimator": False}
    return lambda: torch.as_tensor(np.asarray(rival.query(x, y, batch_size=n, **given)))


def by_plain_loop(name, pool, n):
    def core_set():
        x, picked = pool.codes, []
        near, norm = torch.cdist(x, x[pool.labeled]).amin(dim=1).square_(), x.square().sum(dim=1)
        for _ in range(n):
            picked.append(int(near.argmax()))
            near = torch.minimum(near, norm - 2 * (x @ x[picked[-1]]) + norm[picked[-1]])
        return torch.tensor(picked)

    return core_set


def by_documents_loop(name, pool, n):
    """Algorithm 1 with nearest matching in place of lalib's, for the same draws."""

    def match(draw, codes, candidates, count, **_):
        codes, picked, closed = codes.double(), [], torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        closed[candidates.to(codes.device)] = False
        for z in draw(max(64, count))[:count].to(codes.device):  # as many at once as there, or others come
            distance = torch.linalg.vector_norm(codes - z, dim=1).masked_fill_(closed, torch.inf)
            picked.append(int(distance.argmin()))
            closed[picked[-1]] = True
        return torch.tensor(picked)

    own = ours(name, pool, n)
    return lambda: patch.object(spatial, "match_draws", match)(own)()


def by_faiss(name, pool, n):
    import faiss

    x, size = pool.codes.numpy(), len(pool.codes)

    def means():
        found = faiss.Kmeans(
            x.shape[1], CENTRES, niter=ITERATIONS, seed=0, min_points_per_centroid=1, max_points_per_centroid=size
        )
        found.train(x)
        return torch.from_numpy(found.centroids), torch.from_numpy(found.assign(x)[1])

    def neighbours():
        index = faiss.IndexFlatL2(x.shape[1])
        index.add(x)
        return without_themselves(index.search(x, NEIGHBOURS + 1)[1])

    return means if name == "k-means" else neighbours


def by_scikit_learn(name, pool, n):
    from sklearn.cluster import KMeans
    from sklearn.neighbors import NearestNeighbors

    x = pool.codes.numpy()

    def means():
        found = KMeans(CENTRES, n_init=1, max_iter=ITERATIONS, tol=0, random_state=0).fit(x)
        return torch.from_numpy(found.cluster_centers_), torch.from_numpy(found.labels_).long()

    def neighbours():
        return torch.from_numpy(NearestNeighbors(n_neighbors=NEIGHBOURS).fit(x).kneighbors(return_distance=False))

    return means if name == "k-means" else neighbours


def by_exact(name, pool, n):
    return ours("neighbours", pool, n)


RIVALS = {
    "scikit-activeml": by_scikit_activeml,
    "plain loop": by_plain_loop,
    "documents' loop": by_documents_loop,
    "faiss": by_faiss,
    "scikit-learn": by_scikit_learn,
    "exact": by_exact,
}


def without_themselves(index):
    """Neighbours (N, k) from an array (N, k + 1) that counts each row as a neighbour of itself."""
    index = torch.from_numpy(index)
    own = index == torch.arange(len(index))[:, None]
    own[:, -1] |= ~own.any(dim=1)
    return index[~own].view(len(index), -1)


def same(name, pool, own, other):
    if name == "k-means":
        spread = [float((pool.codes - centres[which]).square().sum()) for centres, which in (own, other)]
        return spread[0] / spread[1]
    pairs = zip(own.view(-1, own.shape[-1]), other.view(-1, own.shape[-1]), strict=True)
    return float(np.mean([torch.isin(*pair).double().mean() for pair in pairs]))


def timed(call, device):
    """Its answer, and seconds of the processor, or on a GPU those of the clock until it is done."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    start = clock()
    answer = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return answer, clock() - start


def resident(field):
    """Kilobytes of this process by /proc/self/status: "VmRSS" now, "VmHWM" at most."""
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])


def remembering(call, device):
    """`timed`, and how many MB more than before were in use at most: of the GPU, or resident (NaN except on Linux)."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        return *timed(call, device), (torch.cuda.max_memory_allocated() - before) / 2**20
    if platform.system() != "Linux":
        return *timed(call, device), float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, or it would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = resident("VmRSS")
    return *timed(call, device), (resident("VmHWM") - before) / 1024


def best(call, device, times=5):
    call()
    return min(timed(call, device)[1] for _ in range(times))


@functools.cache
def memory_speed(device):
    """Bytes per second, read by the product of a matrix and a vector of float32."""
    matrix = torch.ones(2**20, 64, device=device)
    return matrix.nbytes / best(lambda: matrix @ matrix[0], device)


@functools.cache
def product_speed(device, size=1024, dtype=torch.float32):
    """Operations per second of a product of square matrices."""
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / best(lambda: matrix @ matrix, device)


def share(case, n, seconds, device):
    """How much of the limit of the machine is used."""
    if case.bound == "memory":
        return 4 * case.size * case.dimensions * n / seconds / memory_speed(device)
    if case.bound == "product":
        pairs = ITERATIONS * CENTRES if case.name == "k-means" else case.size
        peak = product_speed(device, 8192 if device == "cuda" else 1024)
        return 2 * case.size * pairs * case.dimensions / seconds / peak
    return None


def row(case, n=N, device="cpu", turns=TURNS):
    """The measurements of one case, in the process it is called in."""
    makers = {"ours": ours} | ({"rival": RIVALS[case.rival]} if case.rival else {})
    few = Pool(1000, case.dimensions, device)
    for make in makers.values():
        make(case.name, few, 10)()  # imports, first kernels
    pool = Pool(case.size, case.dimensions, device)
    calls = {side: make(case.name, pool, n) for side, make in makers.items()}
    own, seconds, extra = remembering(calls["ours"], device)
    taken, answer = {"ours": seconds}, {"ours": own}
    for side, call in [*calls.items()][1:] + [*calls.items()] * (turns - 1):
        if taken.get(side, 0) < LONG:
            answer[side], seconds = timed(call, device)
            taken[side] = min(seconds, taken.get(side, seconds))
    found = dataclasses.asdict(case) | {"n": n, "ours": taken["ours"], "megabytes": extra}
    if case.rival:
        agreement = same(case.name, pool, answer["ours"], answer["rival"])
        found |= {"rival_seconds": taken["rival"], "ratio": taken["rival"] / taken["ours"], "same": agreement}
    return found | {"share": share(case, n, taken["ours"], device), "load": os.getloadavg()[0]}


def isolated(case):
    """A row measured in a fresh process with one thread."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return pool.apply(limited, (case,))


def limited(*arguments, **options):
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k-means stops after ITERATIONS, as is wanted
        return row(*arguments, **options)


def heading():
    print(f"{'':20}{'N':>9} x {'d':<3}{'ours':>8}  {'rival':16}{'s':>8}{'ratio':>8}{'same':>6}{'MB':>7}{'share':>7}")


def report(row):
    rival = f"{'':16}{'':22}"
    if row["rival"]:
        rival = f"{row['rival']:16}{row['rival_seconds']:8.2f}{row['ratio']:8.2f}{row['same']:6.2f}"
    limit = "" if row["share"] is None else f"{row['share']:7.0%} of {row['bound']}"
    place = f"{row['name']:20}{row['size']:9,} x {row['dimensions']:<3}"
    print(f"{place}{row['ours']:8.2f}  {rival}{row['megabytes']:7.0f}{limit}", flush=True)


def machine():
    """What the numbers depend on."""
    here = Path(__file__).parent
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=here)
    peers = {name: version(name) for name in ("torch", "numpy", "scikit-learn", "scikit-activeml", "faiss-cpu")}
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"commit": git.stdout.strip(), "platform": platform.platform(), "card": card} | peers


def write(out, rows, **more):
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine(), **more, "rows": rows}, indent=1))
    print(f"written to {out}")


def small(wanted):
    """Rows of --quick: each strategy and rival once, without scikit-activeml."""
    rivals = ((case, case.rival if case.rival != "scikit-activeml" else None) for case in wanted)
    rows = {(case.name, rival): dataclasses.replace(case, size=QUICK, rival=rival) for case, rival in rivals}
    return [*rows.values()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", help="rows whose name holds one of these")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_strategies.json"))
    given = parser.parse_args()
    wanted = [case for case in cases() if not given.only or any(part in case.name for part in given.only)]
    if given.quick:
        torch.set_num_threads(1)
        wanted = small(wanted)
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # for libraries that rows import
    print(f"{LABELED} labelled; seconds of one thread")
    heading()
    rows = []
    for case in wanted:
        rows.append(limited(case, n=20, turns=1) if given.quick else isolated(case))
        report(rows[-1])
    write(given.out, rows)


if __name__ == "__main__":
    main()
