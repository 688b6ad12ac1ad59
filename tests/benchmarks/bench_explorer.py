"""The latent explorer on 60,000 images in a JupyterLab of its own, seen by a headless chromium that draws in software.

    python tests/benchmarks/bench_explorer.py [--size 60000] [--out runs/bench_explorer.json]

Kernel times are those of the processor, which a busy machine stretches less than the clock's: from the change of a
control, or from what arrives of the browser, until everything that follows from it is sent back. Wall times are what a
reader waits for, and are told with the machine's load. Images are those of fashion-mnist-mini, as often as it takes;
the codes are those of an untrained VAE of the light preset, spread to the scale of a trained one's.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from jupyter_lab import launch, open_notebook, run_all, serve, wait_for

LOAD = """
import json, pathlib, time
import numpy as np, torch
import lalib as la

mini = la.load("fashion-mnist-mini")
images = mini.subset(torch.arange(SIZE) % len(mini))
model = la.VAE(images.image_shape, latent_dim=2, seed=0)
spread = la.encode(model, mini)
spread = (spread - spread.mean(dim=0)) / spread.std(dim=0)
codes = spread.repeat(-(-SIZE // len(mini)), 1)[:SIZE] + 0.05 * torch.randn(SIZE, 2)
errors = torch.rand(SIZE)
"""
MEASURE = """
def seconds(act, times):
    spent = []
    for turn in range(times):
        start = time.process_time()
        act(turn)
        spent.append(time.process_time() - start)
    return sorted(spent)[times // 2]

begun, started = time.time(), time.process_time()
explorer = la.widgets.latent_explorer(images, codes, model, errors=errors)
built = time.process_time() - started
display(explorer)

def select(turn):
    explorer.map.plot.selection = np.arange(turn, SIZE, 10, dtype=np.uint32)

def measure():
    colours = explorer.controls["colour by"]
    return {
        "map, kernel": built,
        "recolour, kernel": seconds(lambda turn: setattr(colours, "value", ["error", "class"][turn % 2]), 20),
        "lasso to thumbnails, kernel": seconds(select, 10),
        "cursor decoded, kernel": seconds(lambda turn: setattr(explorer.map, "cursor", [0.01 * turn, 0.5]), 100),
    }

explorer.map.on_msg(lambda *_: pathlib.Path("kernel.json").write_text(json.dumps(measure())))
pathlib.Path("begun.json").write_text(json.dumps(begun))
"""
DRAWN = """() => { const canvas = document.querySelector(".lalib-map canvas");
    return canvas && document.querySelector(".lalib-cross")
        && canvas.parentElement.parentElement.api?.get("isPointsDrawn"); }"""
HELD = {"recolour, kernel": 0.1, "lasso to thumbnails, kernel": 2, "cursor decoded, kernel": 0.02, "map, wall": 15}


def lasso(page):
    """Seconds from the mouse's release until the pictures are there."""
    page.locator(".widget-dropdown:has-text('pointer') select").select_option("draws a lasso")
    box = page.locator(".lalib-map canvas >> nth=0").bounding_box()
    for turn, (across, down) in enumerate([(0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6), (0.4, 0.41)]):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"], steps=4)
        page.wait_for_timeout(100)
        if not turn:
            page.mouse.down()
    start = time.time()
    page.mouse.up()
    page.wait_for_selector("text=/Images 1 to \\d+ of/")
    return time.time() - start


def measure(size, folder, chromium):
    """Seconds by what was measured, and the machine's load."""
    load = [LOAD.replace("SIZE", str(size)), f"SIZE = {size}\n{MEASURE}"]
    with serve(folder, {"bench": load}) as address, launch(chromium) as browser:
        page = open_notebook(browser, address, "bench")
        run_all(page)
        wait_for(lambda: page.evaluate(DRAWN), "the map", seconds=300)
        seconds = {"map, wall": time.time() - json.loads((folder / "begun.json").read_text())}
        seconds["lasso to thumbnails, wall"] = lasso(page)
        page.locator(".lalib-map").focus()
        page.keyboard.press("Enter")  # which starts the kernel's own measurements
        seconds |= wait_for(lambda: json.loads((folder / "kernel.json").read_text()), "the kernel", seconds=300)
    return seconds, os.getloadavg()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=60_000)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_explorer.json"))
    given = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium: apt-get install chromium fonts-dejavu-core")
    with tempfile.TemporaryDirectory() as folder:
        seconds, load = measure(given.size, Path(folder), chromium)
    print(f"{given.size:,} points on {os.cpu_count()} cores, load {load[0]:.1f}; seconds, and what was aimed at")
    for name, spent in sorted(seconds.items()):
        print(f"{name:32}{spent:9.3f}{HELD.get(name, ''):>9}")
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    row = {"commit": git.stdout.strip(), "torch": torch.__version__, "cpu": platform.processor(), "load": load}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(row | {"size": given.size, "seconds": seconds}, indent=1))
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
