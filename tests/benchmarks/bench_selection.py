"""Selection on 60,000 x 2 codes, side by side with the documents' loop and with one n x N distance matrix.

    python tests/benchmarks/bench_selection.py [--size 60000] [--n 1000] [--out runs/bench_selection.json]

Every row runs in a process of its own with one thread, after a warm-up on few codes. Seconds are the best of --repeats,
on the CPU those of the processor, which a busy machine stretches less than the clock's. Megabytes are the peak of
resident memory above what was there before the first. The rivals get the draws that lalib made and must give the same
picks. The clusters are found once, beforehand, and timed in rows of their own.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from lalib.codes.clustering import ward
from lalib.data.seeds import generator
from lalib.strategies import matching, select, spatial

CLUSTERS = 20


def make_codes(size: int) -> torch.Tensor:
    """Ten Gaussian clusters of unequal place in two dimensions, (size, 2) float32."""
    g = generator(0, "bench")
    centres = 4 * torch.randn(10, 2, generator=g)
    return centres[torch.randint(10, (size,), generator=g)] + torch.randn(size, 2, generator=g)


def record(strategy, codes, n, options):
    """lalib's picks, and for every matching it made: the draws, the candidates and how many were picked."""
    runs, original = [], matching.match_draws

    def recording(draw, codes, candidates, count, **others):
        blocks = []

        def kept(m):
            blocks.append(draw(m))
            return blocks[-1]

        picked = original(kept, codes, candidates, count, **others)
        runs.append((torch.cat(blocks)[:count], candidates, count))
        return picked

    spatial.match_draws = recording
    try:
        return select(strategy, codes, n, **options), runs
    finally:
        spatial.match_draws = original


def by_loop(codes, runs):
    """Algorithm 1 with nearest matching: one pass over all N points per draw."""
    codes, picked = codes.double(), []
    for draws, candidates, _ in runs:
        closed = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        closed[candidates.to(codes.device)] = False
        for z in draws.to(codes.device):
            distance = torch.linalg.vector_norm(codes - z, dim=1).masked_fill_(closed, torch.inf)
            picked.append(int(distance.argmin()))
            closed[picked[-1]] = True
    return torch.tensor(picked)


def by_matrix(codes, runs, dtype=torch.float64):
    """The same with the distances of all n draws to all N points at once."""
    draws = torch.cat([draws for draws, _, _ in runs]).to(codes.device, dtype)
    full = torch.cdist(draws, codes.to(dtype), compute_mode="donot_use_mm_for_euclid_dist")
    picked, rows = [], iter(full)
    for _, candidates, count in runs:
        closed = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
        closed[candidates.to(codes.device)] = False
        for _ in range(count):
            picked.append(int(next(rows).masked_fill_(closed, torch.inf).argmin()))
            closed[picked[-1]] = True
    return torch.tensor(picked)


def by_matrix_32(codes, runs):
    """The same in single precision: half the memory, and now and then another pick."""
    return by_matrix(codes, runs, torch.float32)


def ward_exact(codes):
    """fastcluster.linkage_vector, lalib's choice."""
    return ward(codes, CLUSTERS)


def ward_graph(codes):
    """scikit-learn's Ward restricted to the 10-nearest-neighbour graph."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.neighbors import kneighbors_graph

    graph = kneighbors_graph(codes.numpy(), 10)
    graph = graph.maximum(graph.T)
    return torch.from_numpy(AgglomerativeClustering(CLUSTERS, connectivity=graph).fit_predict(codes.numpy()))


RIVALS = {"loop over draws": by_loop, "n x N matrix, float64": by_matrix, "n x N matrix, float32": by_matrix_32}
WARDS = {"ward: fastcluster": ward_exact, "ward: 10-NN graph": ward_graph}


def measure(call, repeats, device):
    """Best seconds, peak extra megabytes (of the device, if it is a GPU) and the answer."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    seconds, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
    for _ in range(repeats):
        start = clock()
        answer = call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if device == "cuda":
        extra = (torch.cuda.max_memory_allocated() - base) / 2**20
    return {"seconds": min(seconds), "megabytes": extra, "answer": answer.tolist()}


def strategy_row(name, rival, options, size, n, device, repeats):
    """One strategy by lalib (rival None) or by a rival, in the process it is called in."""
    codes = make_codes(size).to(device)
    select(name, codes[:200], 10, match=options.get("match", "nearest"))  # imports, first kernels
    if rival is None:
        return measure(lambda: select(name, codes, n, **options), repeats, device)
    runs = record(name, codes, n, options)[1]
    RIVALS[rival](codes[:5000], [(draws[:2], candidates[candidates < 5000], 2) for draws, candidates, _ in runs[:1]])
    return measure(lambda: RIVALS[rival](codes, runs), repeats, device)


def ward_row(name, size):
    WARDS[name](make_codes(1000))
    return measure(lambda: WARDS[name](make_codes(size)), 1, "cpu")


def isolated(function, *arguments):
    """The result of a function run in a fresh process with one thread."""
    with multiprocessing.get_context("spawn").Pool(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return pool.apply(limited, (function, arguments))


def limited(function, arguments):
    """One thread for OpenMP and BLAS, too."""
    with threadpool_limits(1):
        return function(*arguments)


def bench_wards(size):
    """Rows for both ways to find clusters, with their agreement (adjusted Rand index)."""
    from sklearn.metrics import adjusted_rand_score

    found = {name: isolated(ward_row, name, size) for name in WARDS}
    agreement = adjusted_rand_score(*(row["answer"] for row in found.values()))
    rows = [{"case": name, "device": "cpu", **row, "agreement": agreement} for name, row in found.items()]
    return rows, torch.tensor(found["ward: fastcluster"]["answer"])


def bench_strategy(name, options, size, n, device, repeats):
    """A row for lalib and one for each rival, with times relative to lalib and the share of equal picks."""
    rows = []
    for rival in [None, *RIVALS] if options.get("match") != "all" else [None]:
        row = isolated(strategy_row, name, rival, options, size, n, device, repeats)
        ours = rows[0] if rows else row
        same = float(np.mean(np.array(row["answer"]) == np.array(ours["answer"])))
        case = f"{name}: {rival or 'lalib, match=' + options.get('match', 'nearest')}"
        times = row["seconds"] / ours["seconds"]
        rows.append({"case": case, "device": device, **row, "times": times, "agreement": same})
    return rows


def machine() -> dict:
    """What the numbers depend on."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"commit": git.stdout.strip(), "torch": torch.__version__, "cpu": platform.processor(), "gpu": gpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=60_000)
    parser.add_argument("--n", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_selection.json"))
    given = parser.parse_args()
    rows, assignment = bench_wards(given.size)
    for device in ["cpu", "cuda"][: 1 + torch.cuda.is_available()]:
        for match in ("nearest", "all"):
            for name in ("uniform-spatial", "normal-in-clusters"):
                options = {"match": match} | ({"clusters": assignment} if "clusters" in name else {})
                rows += bench_strategy(name, options, given.size, given.n, device, given.repeats)
    report(rows, given)


def report(rows, given):
    """Print the table and write it as JSON."""
    print(f"{given.size:,} x 2 codes, n = {given.n:,}, one thread; agreement: equal picks, or adjusted Rand index")
    print(f"{'':48}{'device':>7}{'seconds':>9}{'times':>7}{'MB':>7}{'agreement':>11}")
    for row in rows:
        row.pop("answer")
        times = f"{row['times']:.1f}" if "times" in row else ""
        numbers = f"{row['seconds']:9.3f}{times:>7}{row['megabytes']:7.0f}{row['agreement']:11.3f}"
        print(f"{row['case']:48}{row['device']:>7}{numbers}")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), "size": given.size, "n": given.n, "rows": rows}, indent=1))
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
