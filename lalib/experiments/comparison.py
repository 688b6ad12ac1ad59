"""Comparisons over paired seeds: of strategies in active learning, of query sets chosen at once, and of maps."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from lalib.codes.coding import encode, reconstruction_errors
from lalib.codes.measures import class_balance, one_nn_error, trustworthiness
from lalib.codes.projection import flat_pixels, pixel_pca
from lalib.data.checks import LalibError, check_choice, check_int, check_number, keyword_defaults, resolve_device
from lalib.data.door import check_codes, plain
from lalib.data.files import file_digest, tensor_digest
from lalib.data.imageset import ImageSet
from lalib.data.seeds import child_seed
from lalib.data.splits import unbalance
from lalib.experiments.arguments import entrants, matched, seeds_of, several
from lalib.experiments.identity import describe
from lalib.experiments.loop import Pool, Round, cold_start, in_lockstep
from lalib.experiments.records import number, share, whole_numbers
from lalib.experiments.run_files import failing_in, run_all
from lalib.experiments.task_models import evaluate
from lalib.experiments.tasks import Task, TaskData
from lalib.models.autoencoders import MODELS, Autoencoder
from lalib.models.classifiers import CNNClassifier, MLPClassifier, accuracy
from lalib.models.views import RandomViews
from lalib.strategies.registry import LABEL_FREE, AnyStrategy, as_strategy, select
from lalib.training.fitting import fit_fully

PCA_DIMENSIONS = 32
TOGETHER = 5  # runs in a group: more gain little, are harder to share among processes, and are lost together


def compare(
    images: ImageSet,
    test: ImageSet,
    *,
    encoder="pca",
    strategies: Sequence | Mapping = ("random", "margin", "typiclust"),
    task: str | Task = "mlp",
    initial: int = 20,
    start: AnyStrategy | Mapping[str, int] = "random",
    step: int = 20,
    rounds: int = 10,
    random_rounds: int | None = None,
    seeds: int | Iterable[int] = 10,
    out: str | Path,
    stale: str = "warn",
    jobs: int = 1,
    cluster=None,
    device: str = "auto",
    on_run: Callable[[list[dict]], None] | None = None,
    progress: bool = True,
):
    """Active learning, strategy against strategy over paired seeds: buy labels, train, test, buy the next ones.

    Of one seed all strategies share the initial labels and the initial weights. The labels of `images` stay hidden
    until they are bought. `test` is read once per round, for the table only; its classes are matched by name.

    encoder: what the strategies, and a task on codes, see: a model with encode, trained without labels, "pca" (32
    components of the pool's pixels), "pixels", or a pair of codes (N, L) of the pool and (M, L) of the test images.
    With Task(encoder=...) strategies see the codes of the round instead, once there are labels.
    strategies: names in STRATEGIES, functions of that form, Strategy objects or pool strategies of scikit-activeml (see
    peers), or {label: one of these, or a pair of one and a dict of its options}. task: "mlp" on codes, "cnn" or
    "resnet18" on pixels, or a Task.
    initial: labels to start with, chosen by `start`, a strategy that needs no label, or {class name: how many} instead.
    Then `rounds` times `step` labels; random_rounds: more of them for "random", so that label saving is not cut off.
    seeds: how many, or which. out: folder of the run files: a finished run is never repeated, a killed comparison goes
    on where it was. stale: what becomes of finished runs that other code of lalib has made: "warn" takes them and says
    how many, "redo" does them again, "refuse" raises LalibError. jobs, cluster, on_run: see run_files.run_all. device:
    of the training. A function of one's own is known by its source and by all of one's own that it reaches.

    With the task "mlp" up to five seeds of a strategy train together, which is faster (see training.together); fewer
    do where jobs would be idle. The same call always gives the same table. Other seeds or jobs may form other groups,
    whose results differ by rounding.

    Returns a DataFrame, one row per strategy, seed and round: strategy, seed, round, labels, accuracy in [0, 1], auc
    (several labels per image only), train_seconds (of a group by the number of its runs), select_seconds, picked (the
    indices bought to reach the round), counts (their classes), confusion (C, C), and what a strategy records of its
    selection (see strategies.discriminators and learned). See results and figures.learning_curves for what it shows.
    """
    test = matched(images, test)
    task = task if isinstance(task, Task) else Task(model=task)
    entered = entrants(strategies)
    begin = _start(start, initial, images)
    _check_given(entered, start, encoder, images, task)
    rounds = check_int("rounds", rounds, low=0)
    more = rounds if random_rounds is None else check_int("random_rounds", random_rounds, low=rounds)
    shared = {"device": resolve_device(device).type, "task": _task_config(task), **begin}
    shared["step"] = check_int("step", step, low=1)
    total = (begin["initial"] or sum(begin["start"].values())) + more * shared["step"]
    if total > len(images):
        most = f"more than the {len(images)} images"
        raise ValueError(f"the comparison buys {total} labels, {most}: fewer rounds or step")
    own = []
    for label, (strategy, options) in entered.items():
        known, last = keyword_defaults(as_strategy(strategy)[0]) | options, more if strategy == "random" else rounds
        own.append(describe({"label": label, "strategy": strategy, "options": known, "rounds": last}))
    seeds, jobs = seeds_of(seeds), check_int("jobs", jobs, low=1)
    codes, test_codes, errors, shared["encoder"] = _codes(encoder, images, test)
    shared |= {"images": images.fingerprint(), "test": test.fingerprint()}
    runs = [shared | each | {"seed": seed} for seed in seeds for each in own]
    data, held_out = TaskData(codes, images, task), (test.images if task.on_pixels else test_codes, test.labels)
    function = partial(_learn, data, images.labels, held_out, errors, entered, start, device)
    size = min(TOGETHER, math.ceil(len(runs) / jobs)) if task.together else 1
    count = len(entered)  # runs of one strategy are so far apart; all strategies come before the next seeds
    groups = [runs[k + i : k + size * count : count] for k in range(0, len(runs), size * count) for i in range(count)]
    where = {"stale": stale, "jobs": jobs, "cluster": cluster, "on_run": on_run, "progress": progress}
    return run_all(function, runs, out, groups=groups, expected=_learnt, **where)


def _learn(data, labels, test, errors, entered, start, device, group: list[dict]) -> list[list[dict]]:
    """The rows of runs of compare that differ in the seed alone; all but these is what configurations only name.

    labels: of the pool, beside `data`, which strategies reach. test: inputs and labels. entered: see entrants.
    """
    first, seeds = group[0], [run["seed"] for run in group]
    pools, (strategy, options) = [Pool(labels) for _ in group], entered[first["label"]]
    settings = {"step": first["step"], "rounds": first["rounds"], "options": options, "errors": errors}
    initial = [cold_start(start, data, first["initial"], seed=seed, errors=errors, labels=labels) for seed in seeds]
    rounds = in_lockstep(pools, data, strategy, initial=initial, seeds=seeds, device=device, **settings)
    rows = [[_row(test, *each) for each in zip(group, states, strict=True)] for states in rounds]
    return [list(of_one) for of_one in zip(*rows, strict=True)]


def _learnt(run: dict) -> list[dict]:
    """What the rows of a run of compare say."""
    first, measured = run["initial"] or sum(run["start"].values()), {"train_seconds": number, "select_seconds": number}
    known = {"strategy": run["label"], "seed": run["seed"], "accuracy": share, **measured}
    return [
        known | {"round": k, "labels": first + k * run["step"], "picked": whole_numbers, "counts": whole_numbers}
        for k in range(run["rounds"] + 1)
    ]


def _row(test: tuple, run: dict, state: Round) -> dict:
    model, bought = state.model, state.model.labels[-len(state.bought) :]
    counts = bought.sum(0) if bought.ndim == 2 else torch.bincount(bought, minlength=model.data.images.n_classes)
    row = {"strategy": run["label"], "seed": run["seed"], "round": state.round, "labels": len(model.index)}
    row |= evaluate(model, *test)
    row |= {"train_seconds": round(state.train_seconds, 4), "select_seconds": round(state.select_seconds, 4)}
    row |= {"picked": state.bought.tolist(), "counts": counts.tolist()}
    if taken := sorted(row.keys() & state.record.keys()):
        raise LalibError(f"{run['label']} must not record {taken[0]!r}: the table has a column of that name")
    return row | dict(state.record)


def _start(start, initial: int, images: ImageSet) -> dict:
    if isinstance(start, Mapping):
        counts = {check_choice("class", name, images.class_names): count for name, count in start.items()}
        counts = {name: check_int(f"images of class {name!r}", count, low=1) for name, count in counts.items()}
        return {"initial": None, "start": counts}
    if isinstance(start, str):
        check_choice("start", start, LABEL_FREE)
    ((strategy, _),) = entrants([start]).values()
    return {"initial": check_int("initial", initial, low=1), "start": describe(strategy)}


def _check_given(entered: dict, start, encoder, images: ImageSet, task: Task) -> None:
    """LalibError for an encoder that knows labels and for a strategy that would lack something."""
    if getattr(encoder, "partly_labelled", False):
        raise LalibError(
            f"a {type(encoder).__name__} has learned from labels, which stay hidden here until they are bought: "
            "give the codes (pool, test) of one that has seen labels of other images only, or a Task with "
            "encoder=RoundEncoder(), which trains one on the labels bought so far"
        )
    given = ("errors",) if isinstance(encoder, Autoencoder) else ()
    used = {label: strategy for label, (strategy, _) in entered.items()}
    for label, strategy in (used if isinstance(start, Mapping) else used | {None: start}).items():
        task.check_serves(as_strategy(strategy)[0], images.multi_label, given=given, label=label)


def _task_config(task: Task) -> dict:
    """The task as a run's configuration names it, defaults included; a file of weights by its SHA-256."""
    options = task.all_options()
    if options.get("weights") not in (None, "imagenet"):
        options["weights"] = file_digest(options["weights"])
    views = None if task.views is None else asdict(RandomViews(**task.views))
    encoder = task.encoder and asdict(task.encoder) | {"options": task.encoder.all_options()}
    return plain(asdict(task) | {"options": options, "views": views, "encoder": encoder})


def _codes(encoder, images: ImageSet, test: ImageSet):
    """Codes of the pool and of the test images, reconstruction errors of the pool or None, and what identifies them."""
    if isinstance(encoder, str):
        check_choice("encoder", encoder, ("pca", "pixels"))
        if encoder == "pixels":
            return flat_pixels(images.images), flat_pixels(test.images), None, encoder
        return *pixel_pca(PCA_DIMENSIONS, images, test), None, {"pca": PCA_DIMENSIONS}
    if isinstance(encoder, tuple | list) and len(encoder) == 2:
        pool, held_out = (check_codes(codes, "codes").float().cpu() for codes in encoder)
        if len(pool) != len(images) or len(held_out) != len(test):
            wanted = f"{len(images)} and {len(test)}"
            raise ValueError(f"encoder must hold codes of {wanted} images, got {len(pool)} and {len(held_out)}")
        return pool, held_out, None, tensor_digest({"pool": pool, "test": held_out})
    if not (isinstance(encoder, torch.nn.Module) and hasattr(encoder, "encode")):
        raise TypeError(f"encoder must be a model, 'pca', 'pixels' or a pair of codes, got {type(encoder).__name__}")
    errors = reconstruction_errors(encoder, images) if isinstance(encoder, Autoencoder) else None
    pool, held_out = encode(encoder, images), encode(encoder, test)
    known = tensor_digest({"pool": pool, "test": held_out} | ({} if errors is None else {"errors": errors}))
    return pool, held_out, errors, known


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
    until: float | None = 0.99,
    steps: int = 4000,
    out: str | Path,
    stale: str = "warn",
    jobs: int = 1,
    device: str = "auto",
    progress: bool = True,
):
    """What a query set is worth: select from scratch, label, train a classifier on those labels alone, test it.

    Each run is one pool and one seed. Its pool is `images` unbalanced by `ratio` (1 leaves it as it is), its encoder is
    trained on that pool without labels, and every strategy picks `sizes` images from the same codes; the classifiers
    start from the same weights, so strategies are paired within a run. With random's picks they form a table.

    encoder: {"model": a name in MODELS, "epochs": 40, and options of the model, such as latent_dim}.
    strategies: as in compare, of those that need no label, which are the default. task: "cnn" on pixels or "mlp" on
    codes. It is trained until it has at least the share `until` of its labelled images right (see fit), and for no more
    than `steps` minibatches of 32; until=None: for so many. Other arguments as in compare.
    Returns a DataFrame, one row per strategy, size, pool and seed: strategy, labels, ratio, seed, accuracy in [0, 1],
    balance (normalised entropy of the classes picked), classes (how many were met), steps (minibatches trained), learnt
    (the share of its labelled images that the classifier has right: below `until` where the steps ran out).
    """
    test = matched(images, test)
    check_choice("task", task, ("cnn", "mlp"))
    if images.multi_label:
        raise LalibError("query sets are compared by one label per image; these images may have several")
    entered = entrants(strategies)
    for label, (strategy, _) in entered.items():
        if as_strategy(strategy)[0].label_free is False:
            raise LalibError(f"{label} needs labels; query sets are chosen without: one of {', '.join(LABEL_FREE)}")
    shared = _seen(images, test, device) | {"encoder": _configured(encoder, images), "strategies": describe(entered)}
    until = None if until is None else check_number("until", until, low=0, high=1)
    shared |= {"task": task, "until": until, "steps": check_int("steps", steps, low=1)}
    shared["sizes"] = several("size", sizes, low=1, high=len(images))
    ratios = several("ratio", ratios, check_number, low=1)
    runs = [shared | {"ratio": ratio, "seed": seed} for seed in seeds_of(seeds) for ratio in ratios]
    function, where = partial(_query_sets, images, test, device, entered), {"stale": stale, "jobs": jobs}
    return run_all(function, runs, out, expected=_worth, progress=progress, **where)


def _seen(images: ImageSet, test: ImageSet, device: str) -> dict:
    """What runs see, and on what: the device is named where it is not a CPU, so that old files of runs stay valid."""
    kind = resolve_device(device).type
    return {"images": images.fingerprint(), "test": test.fingerprint()} | ({} if kind == "cpu" else {"device": kind})


def _worth(run: dict) -> list[dict]:
    """What the rows of a run of compare_query_sets say."""
    known = {"ratio": run["ratio"], "seed": run["seed"], "accuracy": share, "balance": number, "classes": number}
    return [{"strategy": label, "labels": n, **known} for label in run["strategies"] for n in run["sizes"]]


def _query_sets(images: ImageSet, test: ImageSet, device: str, entered: dict, run: dict) -> list[dict]:
    seed, ratio = run["seed"], run["ratio"]
    pool = images if ratio == 1 else unbalance(images, ratio, seed=seed)
    model = _train(run["encoder"], pool, seed, device)
    given = {"codes": encode(model, pool), "errors": reconstruction_errors(model, pool)}
    task, rows = Task(model=run["task"], steps=run["steps"]), []
    on_codes = not task.on_pixels
    size, kind = (given["codes"].shape[1], MLPClassifier) if on_codes else (pool.image_shape, CNNClassifier)
    x_test = encode(model, test) if on_codes else test.images
    for label, (strategy, options) in entered.items():
        for n in run["sizes"]:
            with failing_in(f"strategy {label!r}, {n} labels"):
                query = select(strategy, n=n, seed=child_seed(seed, "select"), **given, **options)
            classifier, labels = kind(size, pool.n_classes, seed=seed), pool.labels[query]
            x = given["codes"][query] if on_codes else pool.images[query]
            data = (x, labels) if on_codes else pool.subset(query)
            settings = {"epochs": task.n_epochs(n, 0), "until": run["until"], "seed": seed, "device": device}
            epochs = len(fit_fully(classifier, data, **settings).epochs)
            row = {"strategy": label, "labels": n, "ratio": ratio, "seed": seed}
            row |= {"accuracy": accuracy(classifier, x_test, test.labels)}
            row |= {"balance": class_balance(labels, pool.n_classes), "classes": len(labels.unique())}
            rows.append(row | {"steps": epochs * task.n_batches(n), "learnt": accuracy(classifier, x, labels)})
    return rows


def compare_maps(
    images: ImageSet,
    test: ImageSet,
    *,
    models: Mapping[str, Mapping],
    seeds: int | Iterable[int] = 5,
    out: str | Path,
    stale: str = "warn",
    jobs: int = 1,
    device: str = "auto",
    progress: bool = True,
):
    """How good the codes of several autoencoders are, over seeds: held-out 1-NN error, trustworthiness, MAE.

    models: {label: {"model": a name in MODELS, "epochs": 40, and options of the model}}. Other arguments as in
    compare. Returns a DataFrame, a row per model and seed: model, seed, one_nn_error in [0, 1] (of the test
    images among the training codes), trustworthiness (T(12) of the test images), mae (of the test images).
    """
    test = matched(images, test)
    if not isinstance(models, Mapping) or not models:
        raise TypeError(f"models must be {{label: encoder}}, at least one, got {models!r}")
    shared = _seen(images, test, device)
    described = [{"label": label, "encoder": _configured(encoder, images)} for label, encoder in models.items()]
    runs = [shared | one | {"seed": seed} for seed in seeds_of(seeds) for one in described]
    function, where = partial(_map, images, test, device), {"stale": stale, "jobs": jobs}
    return run_all(function, runs, out, expected=_measured, progress=progress, **where)


def _measured(run: dict) -> list[dict]:
    """What the rows of a run of compare_maps say."""
    row = {"model": run["label"], "seed": run["seed"], "one_nn_error": share}
    return [row | {"trustworthiness": number, "mae": number}]


def _map(images: ImageSet, test: ImageSet, device: str, run: dict) -> list[dict]:
    model = _train(run["encoder"], images, run["seed"], device)
    codes, test_codes = encode(model, images), encode(model, test)
    row = {"model": run["label"], "seed": run["seed"]}
    row["one_nn_error"] = one_nn_error(codes, images.labels, test_codes, test.labels)
    row["trustworthiness"] = trustworthiness(test, test_codes)
    return [row | {"mae": float(reconstruction_errors(model, test).mean())}]


def _configured(encoder: Mapping, images: ImageSet) -> dict:
    """The whole configuration of an encoder, defaults included: a new default must not meet an old result."""
    if not isinstance(encoder, Mapping):
        raise TypeError(f"an encoder must be a dict with its model's name, got {type(encoder).__name__}")
    options = {"epochs": 40, **encoder}
    name = check_choice("encoder's model", options.pop("model", None), MODELS)
    epochs = check_int("epochs", options.pop("epochs"), low=1)
    return plain({"model": name, "epochs": epochs, **MODELS[name](images.image_shape, **options).config})


def _train(encoder: Mapping, images: ImageSet, seed: int, device: str) -> Autoencoder:
    """The autoencoder that `_configured` tells of, trained on `images`."""
    options = {name: value for name, value in encoder.items() if name not in ("model", "epochs")}
    model = MODELS[encoder["model"]](seed=seed, **options)
    fit_fully(model, images, epochs=encoder["epochs"], seed=seed, device=device)
    return model
