"""What codes are worth that learn from right and from wrong views, on digits and on clothes. Writes a table.

    python tests/benchmarks/codes_from_views.py [--out data/results/codes-from-views.json] [--seeds 5] [--quick]

On 4,000 images each of mnist-mini and fashion-mnist-mini: pixels, 32 principal components, a convolutional autoencoder
with 32 coordinates (10 epochs), and contrastive encoders (12 epochs) with the views that suit digits, those that suit
clothes, and views turned by any angle and mirrored. An encoder and four draws of 100 random labels per seed, the same
for all codes. A row: the 1-NN error of the test images, and the mean test accuracy of a small network with 100 labels.
"""

import argparse
import json
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

import lalib as la
from lalib.codes.projection import pca
from lalib.data.seeds import generator
from lalib.experiments.run_files import provenance
from lalib.models.views import CLOTHES

VIEWS = {"digits": {}, "clothes": CLOTHES, "turned and mirrored": {"rotation": 180.0, "flip": True}}
DRAWS = 4


def codes(images, test, seed, quick):
    """Name -> codes of the images and of the test images."""
    flat, flat_test = (part.images.flatten(1).float() / 255 for part in (images, test))
    fitted = pca(flat.numpy(), 32).fit(flat.numpy())
    yield "pixels", (flat, flat_test)
    yield "PCA", tuple(torch.from_numpy(fitted.transform(part.numpy())) for part in (flat, flat_test))
    models = {"CAE": (la.CAE(images.image_shape, 32, seed=seed), {"epochs": 10, "learning_rate": 3e-3})}
    for name, views in VIEWS.items():
        models[f"views for {name}"] = la.ContrastiveEncoder(images.image_shape, views=views, seed=seed), {"epochs": 12}
    for name, (model, options) in models.items():
        options = {"epochs": 1} if quick else options
        la.fit(model, images, seed=seed, device="cpu", progress=False, **options)
        yield name, (la.encode(model, images), la.encode(model, test))


def accuracy(points, held_out, images, test, seed, draw):
    """Of a classifier that has seen 100 random labels."""
    index = torch.randperm(len(points), generator=generator(seed, "labels", draw))[:100]
    classifier = la.MLPClassifier(points.shape[1], images.n_classes, seed=draw)
    options = {"epochs": 50, "batch_size": 32, "learning_rate": 1e-3, "seed": seed, "device": "cpu", "progress": False}
    la.fit(classifier, (points[index], images.labels[index]), **options)
    return la.accuracy(classifier, held_out, test.labels)


def measure(dataset, seed, quick):
    images, test = la.load(dataset), la.load(dataset, split="test")
    images, test = images.subset(range(200 if quick else 4000)), test.subset(range(100 if quick else len(test)))
    for name, (points, held_out) in codes(images, test, seed, quick):
        error = la.one_nn_error(points, images.labels, held_out, test.labels)
        draws = range(1 if quick else DRAWS)
        right = sum(accuracy(points, held_out, images, test, seed, draw) for draw in draws) / len(draws)
        row = {"dataset": dataset, "codes": name, "seed": seed, "one_nn_error": error, "accuracy": right}
        print(*row.values(), flush=True)
        yield row


@threadpool_limits.wrap(limits=1)
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "data/results/codes-from-views.json")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="200 images, 1 epoch, 1 seed: whether all of it runs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    seeds, sets = range(1 if given.quick else given.seeds), ("mnist-mini", "fashion-mnist-mini")
    rows = [row for seed in seeds for name in sets for row in measure(name, seed, given.quick)]
    what = "codes that learn from views; tests/benchmarks/codes_from_views.py says how"
    text = json.dumps({"what": what, "labels": 100, "draws": DRAWS, "rows": rows, **provenance()}, indent=1)
    given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
