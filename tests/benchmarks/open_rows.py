"""8,000 labels of Fashion-MNIST: test accuracy of a residual network with the habits of fast recipes. Writes a table.

    python tests/benchmarks/open_rows.py [--out data/results/open-rows.json] [--rows asked] [--seeds 0 1 2] [--quick]

The pool of 55,000 images and the 5,000 kept ones are la.stratified_split(fashion-mnist, 1/12, seed=0). Rows:
"random" learns from 8,000 random labels alone. "asked" learns from 4,000 random labels and 4,000 of the smallest margin
of the network so far, then teaches itself on the others: probabilities of the averaged network are their labels.
Network: 3x3 convolutions 32, 64, 128, 256, the last three with a pool and a residual block. Training: batches of 128,
images moved by up to 2 pixels (the edge is reflected), mirrored, a square of 8 pixels covered; label smoothing 0.1; SGD
with Nesterov's momentum 0.9, weight decay 5e-4, a rate that rises to 0.2 for a fifth of a stage and falls to 0; weights
averaged with up to 0.999; convolutions in bfloat16; predictions are means over an image and its mirror image.
Settings are customary ones. Before the runs the kept images, 5,000 labels more, were looked at once: with 8,000 random
labels of seed 100, in the midst of a training, averaged weights had 90.9 % of them right, the last ones 90.1 %. Each
seed reads the test images once, at its end; of the stages before, the accuracy on the kept images is recorded. A
finished seed is a file in --runs and is not computed again. --choose looks at the kept images alone and writes nothing.
"""

import argparse
import copy
import itertools
import json
import time
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

import lalib as la
from lalib.data.files import written_whole
from lalib.data.seeds import generator, seeded
from lalib.experiments.run_files import provenance

ROOT = Path(__file__).parents[2]
BATCH, PEAK, DECAY, SMOOTHING, AVERAGE = 128, 0.2, 5e-4, 0.1, 0.999
SHIFT, SQUARE = 2, 8  # pixels
MEAN, SPREAD = 0.286, 0.353  # of the pool's pixels
STAGES = {  # row: labels and steps of each stage, and how many of a batch are images that the network labels itself
    "random": [(8000, 1250, 0)],
    "asked": [(4000, 250, 0), (8000, 500, 0), (8000, 500, 64)],
}


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def conv(inputs, outputs, pool=False):
    pools = [nn.MaxPool2d(2)] if pool else []
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), *pools, nn.BatchNorm2d(outputs), nn.ReLU(True)]


def network(seed, widths=(32, 64, 128, 256)):
    with seeded(seed, "weights"):
        layers = conv(1, widths[0])
        for inputs, outputs in itertools.pairwise(widths):
            layers += [*conv(inputs, outputs, pool=True), Residual(*conv(outputs, outputs), *conv(outputs, outputs))]
        layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10, bias=False)]
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def logits(net, images):
    """(B, 10) of images (B, 1, 28, 28) in standard units; an eighth of the last layer's, whose inputs are maxima."""
    with torch.autocast("cpu", torch.bfloat16):
        return net(images.contiguous(memory_format=torch.channels_last)).float() / 8


def standard(images):
    return (images.float() / 255 - MEAN) / SPREAD


@torch.no_grad()
def predict(net, images, sides=2):
    """Probabilities (N, 10), of the images or means over images and mirror images."""
    net.eval()
    views = ([standard(part), standard(part).flip(3)][:sides] for part in images.split(512))
    return torch.cat([sum(logits(net, view).softmax(1) for view in both) / sides for both in views])


def moved(x, rng):
    """Views of images (B, 1, H, W): moved, mirrored and covered at random."""
    n, side = len(x), x.shape[2]
    places = F.pad(x, (SHIFT,) * 4, mode="reflect").unfold(2, side, 1).unfold(3, side, 1)
    rows, columns = torch.randint(2 * SHIFT + 1, (2, n), generator=rng)
    x = places[torch.arange(n), :, rows, columns]
    x = torch.where((torch.rand(n, generator=rng) < 0.5)[:, None, None, None], x.flip(3), x)
    rows, columns = ((torch.arange(side) - torch.randint(side, (n, 1), generator=rng)).abs() * 2 < SQUARE for _ in "yx")
    return x.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0.0)


def endless(n, size, rng):
    """Batches of indices, every index once in each round."""
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(n, generator=rng)])
        yield order[:size]
        order = order[size:]


def train(net, parts, steps, rng):
    """Train in place on parts (images, targets (N, 10), how many in a batch); the network of averaged weights."""
    average = copy.deepcopy(net)
    groups = [[p for p in net.parameters() if (p.ndim > 1) is large] for large in (True, False)]
    groups = [{"params": group, "weight_decay": decay} for group, decay in zip(groups, (DECAY, 0.0), strict=True)]
    optimizer = torch.optim.SGD(groups, PEAK, momentum=0.9, nesterov=True, fused=True)
    orders = [endless(len(images), size, rng) for images, _, size in parts]
    for step in range(steps):
        done = (step + 1) / steps
        for group in optimizer.param_groups:
            group["lr"] = PEAK * min(done / 0.2, (1 - done) / 0.8)
        index = [next(order) for order in orders]
        x = torch.cat([images[i] for (images, _, _), i in zip(parts, index, strict=True)])
        y = torch.cat([targets[i] for (_, targets, _), i in zip(parts, index, strict=True)])
        loss = F.cross_entropy(logits(net.train(), moved(standard(x), rng)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kept = min(AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(now, 1 - kept)
    return average


def measure(row, seed, pool, kept, test, quick):
    rng, start, net, average = generator(seed, row), time.process_time(), network(seed), None
    index, stages = torch.empty(0, dtype=torch.int64), []
    for labels, steps, own in STAGES[row]:
        labels, steps = (labels // 80, 3) if quick else (labels, steps)
        more = labels - len(index)
        if average is None:
            index = la.select("random", torch.zeros(len(pool), 1), n=more, seed=seed)
        elif more:
            probs, known = predict(average, pool.images, sides=1), pool.labels[index]
            asked = la.select("margin", probs, n=more, labeled=index, labels=known, probs=probs, seed=seed)
            index = torch.cat([index, asked])
        targets = F.one_hot(pool.labels[index], 10) * (1 - SMOOTHING) + SMOOTHING / 10
        parts = [(pool.images[index], targets, BATCH - own)]
        if own:
            others = torch.ones(len(pool)).index_fill(0, index, 0.0).multinomial(own * steps, generator=rng)
            parts.append((pool.images[others], predict(average, pool.images[others], sides=1), own))
        average = train(net, parts, steps, rng)
        right = float((predict(average, kept.images).argmax(1) == kept.labels).double().mean())
        stages.append({"labels": len(index), "steps": steps, "own": own, "kept": 100 * right})
        print(row, seed, stages[-1], f"{time.process_time() - start:.0f} CPU s", flush=True)
    found = {"row": row, "seed": seed, "stages": stages, "kept": stages[-1]["kept"]}
    if test is not None:
        found["test"] = 100 * float((predict(average, test.images).argmax(1) == test.labels).double().mean())
    return found | {"cpu_seconds": round(time.process_time() - start), **provenance()}


@threadpool_limits.wrap(limits=1)
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "data/results/open-rows.json")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/open-rows", help="folder of finished seeds")
    parser.add_argument("--rows", nargs="+", default=["asked"], choices=STAGES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--choose", action="store_true", help="look at the kept images alone; writes nothing")
    parser.add_argument("--quick", action="store_true", help="100 labels, 3 steps: whether all of it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    name, found = "fashion-mnist-mini" if given.quick else "fashion-mnist", []
    pool, kept = la.stratified_split(la.load(name), 1 / 12, seed=0)
    test = None if given.choose else la.load(name, "test")
    if given.quick:
        pool, kept, test = pool.subset(range(1000)), kept.subset(range(200)), test and test.subset(range(200))
    given.runs.mkdir(parents=True, exist_ok=True)
    for row, seed in ((row, seed) for row in given.rows for seed in given.seeds):
        path = given.runs / f"{'quick-' * given.quick}{row}-{seed}.json"
        if given.choose or not path.exists():
            run = measure(row, seed, pool, kept, test, given.quick)
            if given.choose:
                continue
            with written_whole(path) as temporary:
                Path(temporary).write_text(json.dumps(run, indent=1) + "\n")
        found.append(json.loads(path.read_text()))
    if given.choose:
        return
    rows = []
    for row in given.rows:
        runs = [run for run in found if run["row"] == row]
        if len(runs) < 2:  # which have no interval
            continue
        mean, low, high = map(float, la.results.interval([run["test"] for run in runs]))
        rows.append({"row": row, "seeds": len(runs), "test": mean, "low": low, "high": high})
        print(f"{row}: {mean:.2f} % ({low:.2f} to {high:.2f}) of the test images, {len(runs)} seeds", flush=True)
    what = "test accuracy in % on Fashion-MNIST; tests/benchmarks/open_rows.py says how and what chose"
    given.out.write_text(json.dumps({"what": what, "rows": rows, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
