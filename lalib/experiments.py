"""Comparisons over paired seeds: of query sets, of maps, and of active-learning strategies.

A run's configuration holds all that its result depends on, with fingerprints of images and codes, so that run_all never
meets a stale file.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from lalib._checks import LalibError, check_choice, check_codes, check_int, check_number, check_options
from lalib.autoencoders import MODELS, Autoencoder
from lalib.classifiers import CNNClassifier, MLPClassifier, accuracy
from lalib.data import ImageSet, unbalance
from lalib.latent import class_balance, encode, one_nn_error, reconstruction_errors, trustworthiness
from lalib.loop import active_learning, cold_start
from lalib.pool import Pool
from lalib.runs import run_all
from lalib.seeds import child_seed
from lalib.strategies import STRATEGIES, Strategy, select
from lalib.tasks import Task, TaskData, evaluate
from lalib.training import digest, fit

__all__ = ["compare", "compare_maps", "compare_query_sets"]

PCA_DIMENSIONS = 32
TASKS = ("cnn", "mlp")  # of compare_query_sets


def compare(
    images: ImageSet,
    test: ImageSet,
    *,
    encoder="pca",
    strategies: Sequence | Mapping = ("random", "margin", "typiclust"),
    task: str | Task = "mlp",
    initial: int = 20,
    start: str | Mapping[str, int] = "random",
    step: int = 20,
    rounds: int = 10,
    random_rounds: int | None = None,
    seeds: int | Iterable[int] = 10,
    out: str | Path,
    jobs: int = 1,
    cluster=None,
    device: str = "auto",
    on_run: Callable[[list[dict]], None] | None = None,
    progress: bool = True,
):
    """Active learning, strategy against strategy over paired seeds: buy labels, train, test, buy the next ones.

    Of one seed all strategies share the initial labels and the initial weights. The labels of `images` stay hidden
    until they are bought; `test` is read once per round, for the table only.

    encoder: what the strategies, and a task on codes, see: a trained model with encode, "pca" (32 components of the
    pool's pixels), "pixels", or a pair of codes (N, L) of the pool and (M, L) of the test images.
    strategies: names in STRATEGIES or functions of that form, or {label: one of these, or a pair of one and a dict of
    its options}. task: "mlp" on codes, "cnn" or "resnet18" on pixels, or a Task.
    initial: labels to start with, chosen by `start`, a strategy that needs no label, or {class name: how many} instead.
    Then `rounds` times `step` labels; random_rounds: more of them for "random", so that label saving is not cut off.
    seeds: how many, or which. out: folder of the run files: a finished run is never repeated, a killed comparison goes
    on where it was. jobs, cluster, on_run: see runs.run_all. device: of the training.

    Returns a DataFrame, one row per strategy, seed and round: strategy, seed, round, labels, accuracy in [0, 1], auc
    (several labels per image only), train_seconds, select_seconds, picked (the indices bought to reach the round),
    counts (their classes), confusion (C, C). See results and figures.learning_curves for what it shows.
    """
    _check_labelled(images, test)
    task = task if isinstance(task, Task) else Task(model=task)
    strategies = {label: _strategy(given) for label, given in _labelled(strategies).items()}
    codes, test_codes, errors, encoder_config = _codes(encoder, images, test)
    shared = {
        "images": images.fingerprint(),
        "test": test.fingerprint(),
        "encoder": encoder_config,
        "task": asdict(task),
        "initial": check_int("initial", initial, low=1) if isinstance(start, str) else None,
        "start": check_choice("start", start, STRATEGIES) if isinstance(start, str) else dict(start),
        "step": check_int("step", step, low=1),
    }
    check_int("rounds", rounds, low=0)
    more = rounds if random_rounds is None else check_int("random_rounds", random_rounds, low=rounds)
    total = (initial if isinstance(start, str) else sum(start.values())) + max(rounds, more) * step
    if total > len(images):
        raise ValueError(
            f"the comparison buys {total} labels, more than the {len(images)} images: fewer rounds or step"
        )
    runs = [
        {
            **shared,
            "label": label,
            "strategy": _source(strategy),
            "options": options,
            "rounds": more if strategy == "random" else rounds,
            "seed": check_int("seed", seed, low=0),
        }
        for seed in (range(seeds) if isinstance(seeds, int) else seeds)
        for label, (strategy, options) in strategies.items()
    ]
    functions = {label: strategy for label, (strategy, _) in strategies.items()}
    held_out = test.images if task.on_pixels else test_codes
    function = _LearningRun(TaskData(codes, images, task), held_out, test.labels, errors, functions, device)
    return run_all(function, runs, out, jobs=jobs, cluster=cluster, on_run=on_run, progress=progress)


class _LearningRun:
    """Calls one run of compare; holds what the configuration only names."""

    def __init__(self, data, test_inputs, test_labels, errors, functions, device):
        self.data, self.test, self.errors = data, (test_inputs, test_labels), errors
        self.functions, self.device = functions, device

    def __call__(self, run: dict) -> list[dict]:
        seed, images = run["seed"], self.data.images
        pool = Pool(images.labels)
        loop = active_learning(
            pool,
            self.data,
            self.functions[run["label"]],
            initial=cold_start(run["start"], self.data, run["initial"], seed=seed, errors=self.errors),
            step=run["step"],
            rounds=run["rounds"],
            seed=seed,
            options=run["options"],
            errors=self.errors,
            device=self.device,
        )
        return [self._row(run, state, pool.purchases[-1][1]) for state in loop]

    def _row(self, run: dict, state, bought: torch.Tensor) -> dict:
        n_classes = self.data.images.n_classes
        counts = bought.sum(0) if bought.ndim == 2 else torch.bincount(bought, minlength=n_classes)
        return {
            "strategy": run["label"],
            "seed": run["seed"],
            "round": state.round,
            "labels": len(state.model.index),
            **evaluate(state.model, *self.test),
            "train_seconds": round(state.train_seconds, 4),
            "select_seconds": round(state.select_seconds, 4),
            "picked": state.bought.tolist(),
            "counts": counts.tolist(),
        }


def _labelled(strategies: Sequence | Mapping) -> dict:
    """Strategies by label: a name is its own label, a function's is its name."""
    if isinstance(strategies, Mapping):
        return dict(strategies)
    if isinstance(strategies, str):
        raise TypeError(f"strategies must be a list of strategies or a dict, got the string {strategies!r}")
    labels = [given if isinstance(given, str) else getattr(given, "__name__", str(given)) for given in strategies]
    if len(set(labels)) < len(labels):
        raise ValueError(f"strategies must have labels of their own, got {labels}: give a dict of labels")
    return dict(zip(labels, strategies, strict=True))


def _strategy(given) -> tuple[str | Strategy, dict]:
    """A strategy and its options, checked."""
    strategy, options = given if isinstance(given, tuple | list) else (given, {})
    if not callable(strategy):
        check_choice("strategy", strategy, STRATEGIES)
    function = strategy if callable(strategy) else STRATEGIES[strategy]
    check_options(str(strategy), function, options)
    return strategy, dict(options)


def _source(strategy: str | Strategy) -> str:
    """What identifies a strategy in a run's configuration: its name, or the source of a function."""
    if isinstance(strategy, str):
        return strategy
    try:
        return inspect.getsource(strategy)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"the source of {strategy!r} is not to be had, so that its runs could not be told from others: "
            "define it in a file or a notebook with def, and give what varies as options"
        ) from error


def _codes(encoder, images: ImageSet, test: ImageSet):
    """Codes of the pool and of the test images, reconstruction errors of the pool if there is a decoder, description."""
    if isinstance(encoder, str):
        check_choice("encoder", encoder, ("pca", "pixels"))
        pool, held_out = (part.images.flatten(1).float() / 255 for part in (images, test))
        return *(_pca(pool, held_out) if encoder == "pca" else (pool, held_out)), None, encoder
    if isinstance(encoder, tuple | list):
        pool, held_out = (check_codes(codes, "codes").float().cpu() for codes in encoder)
        if len(pool) != len(images) or len(held_out) != len(test):
            wanted = f"{len(images)} and {len(test)}"
            raise ValueError(f"encoder must hold codes of {wanted} images, got {len(pool)} and {len(held_out)}")
        return pool, held_out, None, digest({"pool": pool, "test": held_out})
    if not hasattr(encoder, "encode"):
        raise TypeError(f"encoder must be a model, 'pca', 'pixels' or a pair of codes, got {type(encoder).__name__}")
    errors = reconstruction_errors(encoder, images) if isinstance(encoder, Autoencoder) else None
    weights = digest(encoder.state_dict())
    return encode(encoder, images), encode(encoder, test), errors, {"model": encoder.name, "weights": weights}


def _pca(pool: torch.Tensor, held_out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.decomposition import PCA

    pca = PCA(min(PCA_DIMENSIONS, *pool.shape), svd_solver="covariance_eigh").fit(pool.numpy())
    return torch.from_numpy(pca.transform(pool.numpy())), torch.from_numpy(pca.transform(held_out.numpy()))


def compare_query_sets(
    images: ImageSet,
    test: ImageSet,
    *,
    encoder: Mapping,
    strategies: Sequence[str] | Mapping[str, tuple[str, dict]] = tuple(STRATEGIES),
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
    strategies: names, or {label: (name, options)}. seeds: how many, or which. task: "cnn" on pixels or "mlp" on codes,
    trained for `steps` minibatches of 32 whatever the number of labels.
    out: folder of the run files. jobs: processes, one thread each.
    Returns a DataFrame, one row per strategy, size, pool and seed: strategy, labels, ratio, seed, accuracy in [0, 1],
    balance (normalised entropy of the classes picked), classes (how many were met).
    """
    _check_labelled(images, test)
    check_choice("task", task, TASKS)
    if not isinstance(strategies, Mapping):
        strategies = {name: (name, {}) for name in strategies}
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    shared = {
        "images": images.fingerprint(),
        "test": test.fingerprint(),
        "encoder": _describe(encoder, images),
        "strategies": {
            label: [check_choice("strategy", name, STRATEGIES), o] for label, (name, o) in strategies.items()
        },
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
        fit(classifier, train.subset(query), epochs=epochs, seed=run["seed"], progress=False)
        score = accuracy(classifier, test)
    else:
        classifier = MLPClassifier(train[0].shape[1], pool.n_classes, seed=run["seed"])
        fit(classifier, (train[0][query], train[1][query]), epochs=epochs, seed=run["seed"], progress=False)
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
    _check_labelled(images, test)
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


def _check_labelled(images: ImageSet, test: ImageSet) -> None:
    if images.labels is None or test.labels is None:
        raise LalibError("a comparison needs labels of the images and of the test images")


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
    fit(model, images, epochs=epochs, seed=seed, progress=False)
    return model
