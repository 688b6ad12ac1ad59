"""Core-set on codes that no worker could hold: 5,000,000 x 32 on the disk, two workers of 1.2 GB, one of them killed.

    python tests/benchmarks/bench_distributed.py [--size 5000000] [--n 20] [--piece 100000] [--folder /tmp]

The picks must be those of la.select on the whole array, also if a worker is killed in between. Peak memory is that of
the workers' processes (VmHWM); lalib and torch take more than half of it.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import dask.array as da
import numpy as np
import torch
from distributed import Client, LocalCluster

from lalib.strategies import select, select_distributed

LIMIT = "1200MB"


def write_codes(path: Path, size: int, width: int = 32) -> None:
    """Fifty Gaussian clusters, written a block after the other."""
    rng, codes = np.random.default_rng(0), np.lib.format.open_memmap(path, "w+", np.float32, (size, width))
    centres = 4 * rng.normal(size=(50, width))
    for start in range(0, size, 100_000):
        rows = slice(start, min(size, start + 100_000))
        count = rows.stop - rows.start
        codes[rows] = centres[rng.integers(50, size=count)] + rng.normal(size=(count, width))
    codes.flush()


def read(path: Path, block_info=None) -> np.ndarray:
    """The rows of one piece, read by the worker."""
    start, stop = block_info[None]["array-location"][0]
    return np.load(path, mmap_mode="r")[start:stop]


def peak() -> int:
    """Megabytes of this process at most so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def measure(codes, n: int, kill_after: float | None = None):
    """Picks, seconds and the workers' peaks; a worker is killed after some seconds."""
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        client.run(__import__, "lalib.strategies")
        before, pids, start = client.run(peak), client.run(os.getpid), time.perf_counter()
        if kill_after:
            threading.Timer(kill_after, os.kill, (next(iter(pids.values())), signal.SIGKILL)).start()
        picks = select_distributed("core-set", codes, n, space="codes", seed=0)
        seconds = time.perf_counter() - start
        died = sum(not Path(f"/proc/{pid}").exists() for pid in pids.values())
        return picks, seconds, max(before.values()), max(client.run(peak).values()), died


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=5_000_000)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--piece", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "codes.npy"
        write_codes(path, given.size)
        rows = da.core.normalize_chunks(given.piece, (given.size,))[0]
        codes = da.map_blocks(read, path, chunks=(rows, (32,)), meta=np.empty((0, 0), np.float32))
        print(
            f"{given.size:,} x 32 codes, {codes.nbytes / 2**20:.0f} MB, {codes.numblocks[0]} pieces, {LIMIT} a worker"
        )
        picks, seconds, before, most, _ = measure(codes, given.n)
        print(f"{given.n} picks: {seconds:.1f} s, at most {most} MB a worker, {before} before")
        again, slower, before, most, died = measure(codes, given.n, kill_after=seconds / 2)
        same = torch.equal(picks, again)
        print(f"{died} worker killed in between: {slower:.1f} s, at most {most} MB a worker, same picks: {same}")
        start = time.perf_counter()
        whole = select("core-set", torch.from_numpy(np.load(path)), given.n, space="codes", seed=0)
        print(f"la.select on the whole: {time.perf_counter() - start:.1f} s, same picks: {torch.equal(picks, whole)}")
        if not torch.equal(picks, whole) or not torch.equal(again, whole) or not died:
            raise SystemExit("the picks differ, or no worker died")


if __name__ == "__main__":
    main()
