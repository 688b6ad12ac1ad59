"""probcover, maxherding and uncertainty-herding, measured on a drawn reference set: loss, CPU seconds and memory.

    python tests/benchmarks/bench_coverage.py [--size 100000] [--large 1000000] [--seeds 3]

Codes x 32 in ten Gaussian clusters, 100 labelled, 100 picks, one thread. The objective counts ALL images: how many are
covered, or their summed kernels. Loss is how much less of it ours reach than the rival's picks, in per cent of all and
of what the rival's picks add to the labelled images (in brackets): mean and 95 % interval over seeds. The rival at
--size is the exact greedy. That cannot be had at --large: there the rival has 200,000 reference images, 40,000 of them
probes, and one seed. Every row runs in a process of its own.
"""

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

import numpy as np
import scipy
import torch
from threadpoolctl import threadpool_limits

from lalib.codes.pairwise import blocks
from lalib.data.seeds import generator
from lalib.strategies import STRATEGIES, coverage
from lalib.strategies.view import PoolView

LABELED = N = 100
NAMES = ("probcover", "maxherding", "uncertainty-herding")


def make_view(size, seed):
    g = generator(seed, "bench")
    centres, label = 3 * torch.randn(10, 32, generator=g), torch.randint(10, (size,), generator=g)
    codes = torch.randn(size, 32, generator=g)
    for part, of in zip(codes.split(10_000), label.split(10_000), strict=True):
        part += centres[of]  # in parts, so that the peak of memory is the strategy's
    probs = torch.randn(size, 10, generator=g).softmax(dim=1)
    return PoolView(codes, torch.randperm(size, generator=g)[:LABELED], sources={"probs": probs})


@threadpool_limits.wrap(limits=1)
def choose(name, size, seed, options, probes):
    """Picks, CPU seconds, and the peak in megabytes above what was resident before."""
    torch.set_num_threads(1)
    STRATEGIES[name](make_view(2000, seed), 2, generator=generator(seed))  # imports, first kernels
    view, coverage.PROBES = make_view(size, seed), probes
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024  # on Linux
    start = time.process_time()
    index = STRATEGIES[name](view, N, generator=generator(seed), **options).index
    seconds = time.process_time() - start
    return index.tolist(), seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def objective(name, view, unit, weight, index):
    near = torch.cat([d.amin(dim=1) for d in blocks(view.codes, view.codes[index])]).double() / unit
    return float((near <= 1).sum() if name == "probcover" else weight @ near.square().div(-2).exp())


def compare(name, size, seed, rival, probes):
    """Seconds and megabytes of both, and the two losses in per cent."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        ours = pool.apply(choose, (name, size, seed, {}, coverage.PROBES))
        theirs = pool.apply(choose, (name, size, seed, {"reference": rival}, probes))
    view, weight = make_view(size, seed), torch.ones(size, dtype=torch.float64)
    if name == "uncertainty-herding":
        top = view.probs.topk(2, dim=1).values
        weight = (1 - top[:, 0] + top[:, 1]).double()
    unit = coverage._unit(view, N, torch.arange(min(size, 100_000)))
    base, mine, best = (
        objective(name, view, unit, weight, [*view.labeled.tolist(), *picks]) for picks in ([], ours[0], theirs[0])
    )
    return *ours[1:], *theirs[1:], 100 * (best - mine) / best, 100 * (best - mine) / (best - base)


def report(name, size, rows):
    mean = np.mean(rows, axis=0)
    half = scipy.stats.sem(rows) * scipy.stats.t.ppf(0.975, len(rows) - 1) if len(rows) > 1 else np.full(6, np.nan)
    loss = f"{mean[4]:6.2f} +- {half[4]:.2f} ({mean[5]:.2f} +- {half[5]:.2f})"
    print(f"{name:20}{size:>10,}{mean[0]:8.1f}{mean[1]:6.0f}{mean[2]:8.1f}{mean[3]:6.0f}  {loss}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("--size", 100_000), ("--large", 1_000_000), ("--seeds", 3)):
        parser.add_argument(option, type=int, default=default)
    given = parser.parse_args()
    print(f"{'':20}{'images':>10}{'s':>8}{'MB':>6}{'rival s':>8}{'MB':>6}  loss in % of all (of what the picks add)")
    for name in NAMES:
        report(name, given.size, [compare(name, given.size, s, None, coverage.PROBES) for s in range(given.seeds)])
    for name in NAMES:
        report(name, given.large, [compare(name, given.large, 0, 200_000, 40_000)])


if __name__ == "__main__":
    main()
