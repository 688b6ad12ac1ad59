"""Comparisons without retraining, over paired seeds: of query sets chosen at once, and of maps."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lalib.codes.coding import encode, reconstruction_errors
from lalib.codes.measures import class_balance, one_nn_error, trustworthiness
from lalib.data.checks import LalibError, check_choice, check_int, check_number, resolve_device
from lalib.data.door import plain
from lalib.data.imageset import ImageSet
from lalib.data.seeds import child_seed
from lalib.data.splits import unbalance
from lalib.experiments.arguments import describe, entrants, identity, matched, seeds_of, several
from lalib.experiments.run_files import run_all
from lalib.models.autoencoders import MODELS, Autoencoder
from lalib.models.classifiers import CNNClassifier, MLPClassifier, accuracy
from lalib.strategies.registry import LABEL_FREE, as_strategy, select
from lalib.training.fitting import fit_fully


def compare_query_sets(
    images: ImageSet,
    test: ImageSet,
    *,
    encoder: Mapping,
    strategies: Sequence | Mapping = LABEL_FREE,
    sizes: Iterable[int] = (100, 1000),
    ratios: Iterable[float] = (1, 7 / 3, 10),
    seeds: int | Iterable[int] = 10,
    task: str = "cnn",
    steps: int = 200,
    out: str | Path,
    jobs: int = 1,
    device: str = "auto",
    progress: bool = True,
):
    """What a query set is worth: select from scratch, label, train a classifier on those labels alone, test it.

    Each run is one pool and one seed. Its pool is `images` unbalanced by `ratio` (1 leaves it as it is), its encoder is
    trained on that pool without labels, and every strategy picks `sizes` images from the same codes; the classifiers
    start from the same weights, so strategies are paired within a run. With random's picks they form a table.

    encoder: {"model": a name in MODELS, "epochs": 40, and options of the model, such as latent_dim}.
    strategies: as in compare, of those that need no label, which are the default. seeds: how many, or which. task:
    "cnn" on pixels or "mlp" on codes, trained for `steps` minibatches of 32 whatever the number of labels.
    out: folder of the run files. jobs: processes, one thread each. device: of the training.
    Returns a DataFrame, one row per strategy, size, pool and seed: strategy, labels, ratio, seed, accuracy in [0, 1],
    balance (normalised entropy of the classes picked), classes (how many were met).
    """
    test = matched(images, test)
    check_choice("task", task, ("cnn", "mlp"))
    if images.multi_label:
        raise LalibError("query sets are compared by one label per image; these images may have several")
    entered = entrants(strategies)
    for label, (strategy, _) in entered.items():
        if as_strategy(strategy)[0].label_free is False:
            raise LalibError(f"{label} needs labels; query sets are chosen without: one of {', '.join(LABEL_FREE)}")
    sizes = several("size", sizes, low=1, high=len(images))
    shared = _seen(images, test, device) | {"encoder": _describe(encoder, images), "sizes": sizes, "task": task}
    shared["strategies"] = {label: [identity(s), describe(options)] for label, (s, options) in entered.items()}
    shared["steps"] = check_int("steps", steps, low=1)
    ratios = several("ratio", ratios, check_number, low=1)
    runs = [shared | {"ratio": ratio, "seed": seed} for seed in seeds_of(seeds) for ratio in ratios]
    return run_all(partial(_query_sets, images, test, device, entered), runs, out, jobs=jobs, progress=progress)


def _seen(images: ImageSet, test: ImageSet, device: str) -> dict:
    """What runs see, and on what: the device is named where it is not a CPU, so that old files of runs stay valid."""
    kind = resolve_device(device).type
    return {"images": images.fingerprint(), "test": test.fingerprint()} | ({} if kind == "cpu" else {"device": kind})


def _query_sets(images: ImageSet, test: ImageSet, device: str, entered: dict, run: dict) -> list[dict]:
    seed, ratio = run["seed"], run["ratio"]
    pool = images if ratio == 1 else unbalance(images, ratio, seed=seed)
    model = _train(run["encoder"], pool, seed, device)
    given = {"codes": encode(model, pool), "errors": reconstruction_errors(model, pool)}
    on_codes, rows = run["task"] == "mlp", []
    size, kind = (given["codes"].shape[1], MLPClassifier) if on_codes else (pool.image_shape, CNNClassifier)
    x_test = encode(model, test) if on_codes else test.images
    for label, (strategy, options) in entered.items():
        for n in run["sizes"]:
            query = select(strategy, n=n, seed=child_seed(seed, "select"), **given, **options)
            classifier, labels = kind(size, pool.n_classes, seed=seed), pool.labels[query]
            epochs = max(1, round(run["steps"] * 32 / n))
            data = (given["codes"][query], labels) if on_codes else pool.subset(query)
            fit_fully(classifier, data, epochs=epochs, seed=seed, device=device)
            row = {"strategy": label, "labels": n, "ratio": ratio, "seed": seed}
            row |= {"accuracy": accuracy(classifier, x_test, test.labels)}
            rows.append(row | {"balance": class_balance(labels, pool.n_classes), "classes": len(labels.unique())})
    return rows


def compare_maps(
    images: ImageSet,
    test: ImageSet,
    *,
    models: Mapping[str, Mapping],
    seeds: int | Iterable[int] = 5,
    out: str | Path,
    jobs: int = 1,
    device: str = "auto",
    progress: bool = True,
):
    """How good the codes of several autoencoders are, over seeds: held-out 1-NN error, trustworthiness, MAE.

    models: {label: {"model": a name in MODELS, "epochs": 40, and options of the model}}. Other arguments as in
    compare_query_sets. Returns a DataFrame, a row per model and seed: model, seed, one_nn_error in [0, 1] (of the test
    images among the training codes), trustworthiness (T(12) of the test images), mae (of the test images).
    """
    test = matched(images, test)
    if not isinstance(models, Mapping) or not models:
        raise TypeError(f"models must be {{label: encoder}}, at least one, got {models!r}")
    shared = _seen(images, test, device)
    described = [{"label": label, "encoder": _describe(encoder, images)} for label, encoder in models.items()]
    runs = [shared | one | {"seed": seed} for seed in seeds_of(seeds) for one in described]
    return run_all(partial(_map, images, test, device), runs, out, jobs=jobs, progress=progress)


def _map(images: ImageSet, test: ImageSet, device: str, run: dict) -> list[dict]:
    model = _train(run["encoder"], images, run["seed"], device)
    codes, test_codes = encode(model, images), encode(model, test)
    row = {"model": run["label"], "seed": run["seed"]}
    row["one_nn_error"] = one_nn_error(codes, images.labels, test_codes, test.labels)
    row["trustworthiness"] = trustworthiness(test, test_codes)
    return [row | {"mae": float(reconstruction_errors(model, test).mean())}]


def _describe(encoder: Mapping, images: ImageSet) -> dict:
    """The whole configuration of an encoder, defaults included: a new default must not meet an old result."""
    if not isinstance(encoder, Mapping):
        raise TypeError(f"an encoder must be a dict with its model's name, got {type(encoder).__name__}")
    options = {"epochs": 40, **encoder}
    name = check_choice("encoder's model", options.pop("model", None), MODELS)
    epochs = check_int("epochs", options.pop("epochs"), low=1)
    return plain({"model": name, "epochs": epochs, **MODELS[name](images.image_shape, **options).config})


def _train(encoder: Mapping, images: ImageSet, seed: int, device: str) -> Autoencoder:
    """The autoencoder that `_describe` described, trained on `images`."""
    options = {name: value for name, value in encoder.items() if name not in ("model", "epochs")}
    model = MODELS[encoder["model"]](seed=seed, **options)
    fit_fully(model, images, epochs=encoder["epochs"], seed=seed, device=device)
    return model
