"""Comparisons without retraining, over paired seeds: of query sets chosen at once, and of maps.

A run's configuration holds all that its result depends on, with fingerprints of the images, so that run_all never meets
a stale file.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from lalib.codes.coding import encode, reconstruction_errors
from lalib.codes.measures import class_balance, one_nn_error, trustworthiness
from lalib.data.checks import LalibError, check_choice, check_int, check_number, check_options
from lalib.data.imageset import ImageSet
from lalib.data.seeds import child_seed
from lalib.data.splits import unbalance
from lalib.experiments.run_files import run_all
from lalib.models.autoencoders import MODELS, Autoencoder
from lalib.models.classifiers import CNNClassifier, MLPClassifier, accuracy
from lalib.strategies.registry import LABEL_FREE, STRATEGIES, select
from lalib.training.fitting import fit_fully

TASKS = ("cnn", "mlp")


def compare_query_sets(
    images: ImageSet,
    test: ImageSet,
    *,
    encoder: Mapping,
    strategies: Sequence[str] | Mapping[str, tuple[str, dict]] = LABEL_FREE,
    sizes: Iterable[int] = (100, 1000),
    ratios: Iterable[float] = (1, 7 / 3, 10),
    seeds: int | Iterable[int] = 10,
    task: str = "cnn",
    steps: int = 200,
    out: str | Path,
    jobs: int = 1,
    progress: bool = True,
):
    """What a query set is worth: select from scratch, label, train a classifier on those labels alone, test it.

    Each run is one pool and one seed. Its pool is `images` unbalanced by `ratio` (1 leaves it as it is), its encoder is
    trained on that pool without labels, and every strategy picks `sizes` images from the same codes; the classifiers
    start from the same weights, so strategies are paired within a run. With random's picks they form a table.

    encoder: {"model": a name in MODELS, "epochs": 40, and options of the model, such as latent_dim}.
    strategies: names, or {label: (name, options)}; default: all that need no label. seeds: how many, or which. task:
    "cnn" on pixels or "mlp" on codes, trained for `steps` minibatches of 32 whatever the number of labels.
    out: folder of the run files. jobs: processes, one thread each.
    Returns a DataFrame, one row per strategy, size, pool and seed: strategy, labels, ratio, seed, accuracy in [0, 1],
    balance (normalised entropy of the classes picked), classes (how many were met).
    """
    check_labelled(images, test)
    check_choice("task", task, TASKS)
    if images.multi_label:
        raise LalibError("query sets are compared by one label per image; these images may have several")
    if not isinstance(strategies, Mapping):
        strategies = {name: (name, {}) for name in strategies}
    for name, options in strategies.values():
        check_options(name, STRATEGIES[check_choice("strategy", name, STRATEGIES)], options)
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    shared = {
        "images": images.fingerprint(),
        "test": test.fingerprint(),
        "encoder": _describe(encoder, images),
        "strategies": {label: [name, options] for label, (name, options) in strategies.items()},
        "sizes": [check_int("size", size, low=1, high=len(images)) for size in sizes],
        "task": task,
        "steps": check_int("steps", steps, low=1),
    }
    runs = [
        {**shared, "ratio": check_number("ratio", ratio, low=1), "seed": check_int("seed", seed, low=0)}
        for seed in seeds
        for ratio in ratios
    ]
    return run_all(_QuerySetRun(images, test), runs, out, jobs=jobs, progress=progress)


class _QuerySetRun:
    """Calls one run of compare_query_sets; holds the image sets, which the configuration only names by fingerprint."""

    def __init__(self, images: ImageSet, test: ImageSet):
        self.images, self.test = images, test

    def __call__(self, run: dict) -> list[dict]:
        seed, ratio = run["seed"], run["ratio"]
        pool = self.images if ratio == 1 else unbalance(self.images, ratio, seed=seed)
        model = _train(run["encoder"], pool, seed)
        given = {"codes": encode(model, pool), "errors": reconstruction_errors(model, pool)}
        inputs = (pool, self.test)
        if run["task"] == "mlp":
            inputs = ((given["codes"], pool.labels), (encode(model, self.test), self.test.labels))
        return [
            {"strategy": label, "labels": n, "ratio": ratio, "seed": seed} | _score(run, pool, inputs, query)
            for label, (name, extra) in run["strategies"].items()
            for n in run["sizes"]
            for query in [select(name, n=n, seed=child_seed(seed, "select"), **given, **extra)]
        ]


def _score(run: dict, pool: ImageSet, inputs: tuple, query: torch.Tensor) -> dict:
    """Train the task model on the images `query` and test it."""
    train, test = inputs
    epochs = max(1, round(run["steps"] * 32 / len(query)))
    if run["task"] == "cnn":
        classifier = CNNClassifier(pool.image_shape, pool.n_classes, seed=run["seed"])
        fit_fully(classifier, train.subset(query), epochs=epochs, seed=run["seed"])
        score = accuracy(classifier, test)
    else:
        classifier = MLPClassifier(train[0].shape[1], pool.n_classes, seed=run["seed"])
        fit_fully(classifier, (train[0][query], train[1][query]), epochs=epochs, seed=run["seed"])
        score = accuracy(classifier, *test)
    picked = pool.labels[query]
    return {"accuracy": score, "balance": class_balance(picked, pool.n_classes), "classes": len(picked.unique())}


def compare_maps(
    images: ImageSet,
    test: ImageSet,
    *,
    models: Mapping[str, Mapping],
    seeds: int | Iterable[int] = 5,
    out: str | Path,
    jobs: int = 1,
    progress: bool = True,
):
    """How good the codes of several autoencoders are, over seeds: held-out 1-NN error, trustworthiness, MAE.

    models: {label: {"model": a name in MODELS, "epochs": 40, and options of the model}}. Other arguments as in
    compare_query_sets. Returns a DataFrame, a row per model and seed: model, seed, one_nn_error in [0, 1] (of the test
    images among the training codes), trustworthiness (T(12) of the test images), mae (of the test images).
    """
    check_labelled(images, test)
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    shared = {"images": images.fingerprint(), "test": test.fingerprint()}
    runs = [
        {**shared, "label": label, "encoder": _describe(encoder, images), "seed": check_int("seed", seed, low=0)}
        for seed in seeds
        for label, encoder in models.items()
    ]
    return run_all(_MapRun(images, test), runs, out, jobs=jobs, progress=progress)


class _MapRun:
    """Calls one run of compare_maps."""

    def __init__(self, images: ImageSet, test: ImageSet):
        self.images, self.test = images, test

    def __call__(self, run: dict) -> list[dict]:
        model = _train(run["encoder"], self.images, run["seed"])
        codes, test_codes = encode(model, self.images), encode(model, self.test)
        scores = {
            "one_nn_error": one_nn_error(codes, self.images.labels, test_codes, self.test.labels),
            "trustworthiness": trustworthiness(self.test, test_codes),
            "mae": float(reconstruction_errors(model, self.test).mean()),
        }
        return [{"model": run["label"], "seed": run["seed"]} | scores]


def check_labelled(images: ImageSet, test: ImageSet) -> None:
    """LalibError unless both have labels; ValueError unless both are of one size and have the same classes."""
    if images.labels is None or test.labels is None:
        raise LalibError("a comparison needs labels of the images and of the test images")
    for what in ("image_shape", "multi_label", "class_names"):
        ours, theirs = getattr(images, what), getattr(test, what)
        if ours != theirs:
            raise ValueError(f"{what} of the test images must be that of the images, {ours}, got {theirs}")


def _describe(encoder: Mapping, images: ImageSet) -> dict:
    """The whole configuration of an encoder, defaults included: a new default must not meet an old result."""
    options = {"epochs": 40, **encoder}
    name = check_choice("encoder's model", options.pop("model", None), MODELS)
    epochs = check_int("epochs", options.pop("epochs"), low=1)
    return {"model": name, "epochs": epochs, **MODELS[name](images.image_shape, **options).config}


def _train(encoder: Mapping, images: ImageSet, seed: int) -> Autoencoder:
    """The autoencoder that `_describe` described, trained on `images`."""
    options = dict(encoder)
    name, epochs = options.pop("model"), options.pop("epochs")
    model = MODELS[name](seed=seed, **options)
    fit_fully(model, images, epochs=epochs, seed=seed)
    return model
