"""What lalib does on a GPU, in eight minutes at most: training of every preset, one comparison, and every strategy.

    python tests/benchmarks/gpu.py [--minutes 8] [--out runs/gpu.json] [--device cpu --quick]

Seconds are those of the clock, in one process, after a warm-up, the GPU having finished; MB those of the GPU. Rows of
strategies are those of bench_strategies.py, with the rivals that run on a GPU; once the time is over, the rest of them
is left out and named. `fit` trains on fashion-mnist-mini; its share is that of the card's bfloat16 peak, which a large
product of matrices shows beside it; operations are counted by torch.utils.flop_counter, forward and backward.
--device cpu --quick tries all of it without a GPU, with few images and codes.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_strategies import cases, heading, limited, product_speed, report, small, write
from bench_training import by_fit, images_per_second
from torch.utils.flop_counter import FlopCounterMode

import lalib as la
from lalib.data.seeds import generator
from lalib.models.networks import PRESETS, Batch

ANYWHERE = ("plain loop", "documents' loop")  # rivals that run on a GPU
COMPARED = ["random", "margin", "badge", "core-set", "typiclust"]


def flops_per_image(images, preset, batch_size=8):
    """Floating-point operations of a training step, forward and backward, per image (a multiply-add is two)."""
    model = la.CAE(images.image_shape, preset=preset)
    x = images.images[:batch_size].float() / 255
    with FlopCounterMode(display=False) as counter:
        model.loss(Batch(x), generator=generator(0))["loss"].backward()
    return counter.get_total_flops() / len(x)


def fit_rows(images, device, quick):
    """images/s of `fit` for every preset and some sizes of minibatches, and their share of the peak."""
    peak = product_speed(device, 256 if quick else 8192, torch.bfloat16)
    for preset in PRESETS:
        flops = flops_per_image(images, preset)
        for batch_size in (128,) if quick else (128, 512, 4000):
            model, epochs = la.CAE(images.image_shape, preset=preset), 1 if quick else 10
            by_fit(model, images, device, 1, batch_size)
            speed = images_per_second(by_fit, model, images, device, epochs, batch_size)
            row = {"name": f"fit, {preset}", "batch_size": batch_size, "images_per_second": speed, "peak": peak}
            yield row | {"flops_per_image": flops, "share": speed * flops / peak}


def compare_row(images, test, device, quick):
    """Seconds of one comparison, of its training and of its selection, and the accuracy at the end."""
    size = {"rounds": 1, "step": 10, "seeds": 1} if quick else {"rounds": 5, "step": 20, "seeds": 5}
    names = ["margin"] if quick else COMPARED
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        frame = la.compare(images, test, strategies=names, out=out, device=device, progress=False, **size)
        seconds = time.perf_counter() - start
    last = frame[frame["round"] == size["rounds"]]
    parts = {part: float(frame[f"{part}_seconds"].sum()) for part in ("train", "select")}
    accuracy = last.groupby("strategy")["accuracy"].mean().to_dict()
    return {"name": "compare", "strategies": len(names), **size, "seconds": seconds, **parts, "accuracy": accuracy}


def strategy_cases(quick):
    """The table's rows, each strategy once a size, rivals where they run on a GPU."""
    kept = {}
    for case in small(list(cases())) if quick else cases():
        if not case.rival or case.rival in ANYWHERE or case.name in ("k-means", "neighbours"):
            rival = case.rival if case.rival in ANYWHERE else None
            kept.setdefault((case.name, case.size, case.dimensions), dataclasses.replace(case, rival=rival))
    return [*kept.values()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"))
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py measures on a CUDA device and torch finds none here; nothing was measured.", file=sys.stderr)
        raise SystemExit(2)
    if given.device == "cpu":
        torch.set_num_threads(1)
    end = time.monotonic() + 60 * given.minutes
    where = (
        torch.cuda.get_device_name() if given.device == "cuda" else "one thread, whose seconds those of strategies are"
    )
    print(f"on {where}")
    images, test = la.load("fashion-mnist-mini"), la.load("fashion-mnist-mini", "test")
    if given.quick:
        images, test = (part.subset(torch.arange(64)) for part in (images, test))

    rows = []
    print(f"{'':24}{'batch':>6}{'images/s':>12}{'share of the bfloat16 peak':>28}")
    for row in fit_rows(images, given.device, given.quick):
        peak = f"{row['share']:.1%} of {row['peak'] / 1e12:.3g} TFLOP/s"
        print(f"{row['name']:24}{row['batch_size']:6}{row['images_per_second']:12,.0f}{peak:>28}", flush=True)
        rows.append(row)
    rows.append(row := compare_row(images, test, given.device, given.quick))
    size = f"{row['strategies']} strategies, {row['seeds']} seeds, {row['rounds']} rounds"
    print(f"compare, {size}: {row['seconds']:.1f} s; training {row['train']:.1f}, selection {row['select']:.1f}")
    heading()
    left = []
    for case in strategy_cases(given.quick):
        if time.monotonic() > end - 20:
            left.append(case.name)
            continue
        row = limited(case, n=20 if given.quick else 100, device=given.device, turns=1 if given.quick else 2)
        report(row)
        rows.append(row)
    if left:
        print(f"no time was left for {', '.join(left)}")
    write(given.out, rows, device=given.device, left_out=left)


if __name__ == "__main__":
    main()
