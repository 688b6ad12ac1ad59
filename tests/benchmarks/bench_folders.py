"""Folders of photos: threads side by side, memory, the second start; and a map of images beyond the memory's share.

    python tests/benchmarks/bench_folders.py [--photos 1000] [--repeats 3] [--images 100000]
    python tests/benchmarks/bench_folders.py --photos 20000 --images 1000000     as large as what is promised of it

Photos are JPEG of 500 x 500 pixels, brought to 64 x 64: 200 different ones under as many names as are asked for, which
lie in the system's file cache. Threads: `from_folder` with one and with two in turns, in seconds of the clock, since
that is what threads save (the processor's are given beside them); a repetition gives one ratio, and the table shows the
median and the extremes. It needs two free cores. Memory and starts are of a process each. Memory is the peak of the
process' own (RssAnon of Linux, read every 10 ms): pages of a map, which the system takes back when it likes, are not
in it; what the process has after its imports and a first small call is left out where pixels are the measure.
The map: images of 28 x 28, of which a VAE learns for an epoch, encodes all and three strategies select 100.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import lalib as la

DIFFERENT, SIDE, SIZE = 200, 500, 64
STRATEGIES = ("random", "normal-in-clusters", "cluster")


class Peak:
    """The largest RssAnon inside the block, in bytes; `before` is that at its begin."""

    def __enter__(self):
        self.before = self.most = own_memory()
        self.done, self.thread = threading.Event(), threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.done.wait(0.01):
            self.most = max(self.most, own_memory())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        self.most = max(self.most, own_memory())


def own_memory():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def write_photos(folder, count):
    """Blurred colours with grain, about as large as a camera's JPEG of this many pixels."""
    rng, folder = np.random.default_rng(0), Path(folder)
    folder.mkdir()
    for i in range(count):
        place = folder / f"{i:06}.jpg"
        if i >= DIFFERENT:
            os.link(folder / f"{i % DIFFERENT:06}.jpg", place)
            continue
        blur = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 6, (SIDE, SIDE, 1))
        Image.fromarray((np.asarray(blur) + grain).clip(0, 255).astype(np.uint8)).save(place, quality=85)


def seconds(function):
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def in_turns(folder, repeats):
    """Rows (seconds of the clock, of the processor) with one and with two threads, the first pair dropped."""
    runs = []
    for _ in range(repeats + 1):
        pair = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            pair.append(seconds(lambda: la.from_folder(folder, SIZE)))
        runs.append(pair)
    return runs[1:]


def memory_part(folder, cache, few):
    """Peak memory of reading, in shares of the pixels, and seconds of it; without a cache if that is empty."""
    torch.set_num_threads(2)
    la.from_folder(few, SIZE)
    with Peak() as peak:
        started = time.perf_counter()
        images = la.from_folder(folder, SIZE, cache=cache or None)
        spent = time.perf_counter() - started
    return {"share": (peak.most - peak.before) / images.images.nbytes, "seconds": spent}


def start_part(folder, cache, few):
    """A start from a cache that is made."""
    spent = seconds(lambda: la.from_folder(folder, SIZE, cache=cache))
    return dict(zip(("clock", "processor"), spent, strict=True))


def map_part(path, count):
    """Fit, encode and select on a map: the process' peak memory after each, imports and all."""
    torch.set_num_threads(1)
    images = la.from_arrays(np.memmap(path, np.uint8, "r", shape=(int(count), 28, 28)))
    steps = {}
    with Peak() as peak:

        def step(name, function):
            wall, _ = spent = seconds(function)
            steps[name] = {"MB": peak.most / 1e6, "clock": wall, "processor": spent[1]}

        model, found = la.VAE(images.image_shape, latent_dim=16, seed=0), []
        step("fit", lambda: la.fit(model, images, epochs=1, batch_size=512, progress=False))
        step("encode", lambda: found.append(la.encode(model, images, progress=False)))
        for name in STRATEGIES:
            step(name, lambda name=name: la.select(name, found[0], n=100, seed=0))
    return steps


PARTS = {"memory": memory_part, "start": start_part, "map": map_part}


def apart(name, *arguments):
    """What a part gives in a process of its own."""
    command = [sys.executable, __file__, "--part", name, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def write_map(path, count):
    pixels, rng = la.load("fashion-mnist-mini").images.numpy(), np.random.default_rng(0)
    with open(path, "wb") as file:
        for done in range(0, count, len(pixels)):  # no two are alike
            part = pixels[: count - done]
            file.write(part ^ rng.integers(0, 8, part.shape, np.uint8))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(PARTS[given.part[0]](*given.part[1:])))
        return
    with tempfile.TemporaryDirectory() as place:
        photos, few, cache, rows = (Path(place, name) for name in ("photos", "few", "cache", "rows"))
        write_photos(photos, given.photos)
        write_photos(few, 20)
        runs = in_turns(photos, given.repeats)
        ratios = sorted(one[0] / two[0] for one, two in runs)
        print(f"{given.photos:,} photos               clock  processor")
        for i, name in enumerate(("one thread", "two threads")):
            clock, processor = (statistics.median(run[i][part] for run in runs) for part in (0, 1))
            print(f"{name:23}{clock:>8.2f} s{processor:>9.2f} s")
        print(f"two threads are {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f}-{ratios[-1]:.2f})")
        for name, where in (("in memory", ""), ("into a cache", cache)):
            part = apart("memory", photos, where, few)
            print(f"peak memory {name}: {part['share']:.2f} times the pixels, in {part['seconds']:.2f} s")
        part = apart("start", photos, cache, few)
        print(f"second start: {part['clock']:.2f} s of the clock, {part['processor']:.2f} s of the processor")
        write_map(rows, given.images)
        print(f"{given.images:,} images of 28 x 28 in a map: {rows.stat().st_size / 1e6:,.0f} MB")
        for name, step in apart("map", rows, given.images).items():
            print(f"{name:20}{step['MB']:>8,.0f} MB{step['clock']:>9.2f} s{step['processor']:>9.2f} s")


if __name__ == "__main__":
    main()
