"""Images per second of `fit`, side by side with the same network and optimiser under loops written by hand.

    python tests/benchmarks/bench_training.py [--epochs 1] [--repeats 5] [--out runs/bench_training.json]

Both train a light network in one process, in turns, after a warm-up; a repetition gives one ratio, and the table shows
the median and the extremes of all. Whole calls are timed, with what they do to the data first: on the CPU with one
thread in seconds of the processor, which a busy machine stretches less than the clock's, on CUDA by the clock.
The rivals: "bare", which does nothing but the steps, of the same batches, draws and loss and with fused Adam; and
"loader", the loop of most tutorials: float32 images in a TensorDataset, shuffled and collated by a DataLoader.
gpu.py has `fit` with every preset and its share of a card's peak.
"""

import argparse
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import lalib as la
from lalib.data.seeds import generator
from lalib.models.networks import Batch


def by_fit(model, images, device, epochs, batch_size):
    la.fit(model, images, epochs=epochs, batch_size=batch_size, device=device, progress=False)


def by_bare_loop(model, images, device, epochs, batch_size):
    optimizer = torch.optim.Adam(model.to(device).parameters(), lr=model.learning_rate, fused=True)
    pixels = images.images.to(device)
    for epoch in range(1, epochs + 1):
        order, noise, total = generator(0, "batches", epoch), generator(0, "noise", epoch, device=device), 0.0
        for index in torch.randperm(len(images), generator=order).split(batch_size):
            loss = model.loss(Batch(pixels[index.to(device)].float() / 255), generator=noise)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()


def by_loader(model, images, device, epochs, batch_size):
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(images.images.float() / 255), batch_size=batch_size, shuffle=True)
    for _ in range(epochs):
        total = 0.0
        for (x,) in loader:
            loss = model.loss(Batch(x.to(device)), generator=None)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()


RIVALS = {"bare": by_bare_loop, "loader": by_loader}


def images_per_second(function, model, images, device, epochs, batch_size):
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    function(model, images, device, epochs, batch_size)
    if device == "cuda":
        torch.cuda.synchronize()
    return epochs * len(images) / (clock() - started)


def in_turns(model, rival, images, device, epochs, batch_size, repeats):
    """Images per second of `fit` and of the rival, one after the other, the first pair dropped."""
    pair, setting = (by_fit, RIVALS[rival]), (images, device, epochs, batch_size)
    runs = [[images_per_second(f, model(images.image_shape), *setting) for f in pair] for _ in range(repeats + 1)][1:]
    ratios = sorted(fit / rival for fit, rival in runs)
    return {
        "case": f"{model.__name__}, {batch_size}, {rival}",
        "device": device,
        "fit": statistics.median(fit for fit, _ in runs),
        "rival": statistics.median(rival for _, rival in runs),
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
        "runs": runs,
    }


def machine():
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"platform": platform.platform(), "torch": torch.__version__, "commit": commit, "card": card}


def measure(given):
    torch.set_num_threads(1)
    images, cases = la.load("fashion-mnist-mini"), [(la.CAE, "bare"), (la.VAE, "bare"), (la.CAE, "loader")]
    rows = [in_turns(*case, images, "cpu", given.epochs, 128, given.repeats) for case in cases]
    if torch.cuda.is_available():
        epochs = 20 * given.epochs  # a GPU is through with one in less than it takes to start
        rows += [in_turns(la.CAE, "loader", images, "cuda", epochs, size, given.repeats) for size in (128, 512)]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_training.json"))
    given = parser.parse_args()
    rows = measure(given)
    print(f"{'images/s: batch size, rival':28}{'device':>7}{'fit':>10}{'rival':>10}{'ratio':>7}  lowest-highest")
    for row in rows:
        speeds = f"{row['fit']:>10,.0f}{row['rival']:>10,.0f}{row['ratio']:>7.2f}"
        print(f"{row['case']:28}{row['device']:>7}{speeds}  {row['lowest']:.2f}-{row['highest']:.2f}")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({"machine": machine(), "epochs": given.epochs, "rows": rows}, indent=1))
    print(f"written to {given.out}")


if __name__ == "__main__":
    main()
