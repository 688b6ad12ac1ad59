"""compare(): active learning, strategy against strategy over paired seeds.

A run's configuration holds all that its result depends on, with fingerprints of images and codes, so that run_all never
meets a stale file.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from lalib.codes.coding import encode, reconstruction_errors
from lalib.data.checks import LalibError, check_choice, check_int, check_options, keyword_defaults, resolve_device
from lalib.data.door import check_codes
from lalib.data.files import file_digest, tensor_digest
from lalib.data.imageset import ImageSet
from lalib.experiments.loop import cold_start, in_lockstep
from lalib.experiments.pool import Pool
from lalib.experiments.query_sets import check_labelled
from lalib.experiments.run_files import run_all
from lalib.experiments.task_models import evaluate
from lalib.experiments.tasks import Task, TaskData
from lalib.models.autoencoders import Autoencoder
from lalib.models.views import RandomViews
from lalib.strategies.peers import Peer, is_peer, peer_label
from lalib.strategies.registry import LABEL_FREE, SINGLE_LABEL, STRATEGIES, Strategy

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

    encoder: what the strategies, and a task on codes, see: a model with encode, trained without labels, "pca" (32
    components of the pool's pixels), "pixels", or a pair of codes (N, L) of the pool and (M, L) of the test images.
    With Task(encoder=...) strategies see the codes of the round instead, once there are labels.
    strategies: names in STRATEGIES, functions of that form or pool strategies of scikit-activeml (see peers), or
    {label: one of these, or a pair of one and a dict of its options}. task: "mlp" on codes, "cnn" or "resnet18" on
    pixels, or a Task.
    initial: labels to start with, chosen by `start`, a strategy that needs no label, or {class name: how many} instead.
    Then `rounds` times `step` labels; random_rounds: more of them for "random", so that label saving is not cut off.
    seeds: how many, or which. out: folder of the run files: a finished run is never repeated, a killed comparison goes
    on where it was. jobs, cluster, on_run: see runs.run_all. device: of the training.

    Task "mlp": up to five seeds of a strategy go through their rounds together, since their models train faster so (see
    training.together), and their files are written when all five are done; fewer where there would not be a group for
    each of the jobs. Which runs make a group follows from the call alone, and where one of them is missing the whole
    group is computed, so that a call repeated ends with the same table. What a run does depends on the others of its
    group by rounding only; a call with other seeds, or with jobs and other strategies, may group and round otherwise.

    Returns a DataFrame, one row per strategy, seed and round: strategy, seed, round, labels, accuracy in [0, 1], auc
    (several labels per image only), train_seconds (of a group by the number of its runs), select_seconds, picked (the
    indices bought to reach the round), counts (their classes), confusion (C, C), and what a strategy records of its
    selection (see strategies.adversarial and learned). See results and figures.learning_curves for what it shows.
    """
    check_labelled(images, test)
    task = task if isinstance(task, Task) else Task(model=task)
    strategies = {label: _strategy(given) for label, given in _labelled(strategies).items()}
    _check_given(strategies, start, encoder, images, task)
    check_int("rounds", rounds, low=0)
    more = rounds if random_rounds is None else check_int("random_rounds", random_rounds, low=rounds)
    shared = {
        "device": resolve_device(device).type,
        "task": _task_config(task),
        **_start(start, initial, images),
        "step": check_int("step", step, low=1),
    }
    total = (shared["initial"] or sum(start.values())) + more * step
    if total > len(images):
        raise ValueError(
            f"the comparison buys {total} labels, more than the {len(images)} images: fewer rounds or step"
        )
    runs = [
        {
            **shared,
            "label": label,
            "strategy": _source(strategy),
            "options": _resolved(strategy, options),
            "rounds": more if strategy == "random" else rounds,
            "seed": seed,
        }
        for seed in _seeds(seeds)
        for label, (strategy, options) in strategies.items()
    ]
    size = _group_size(task, len(runs), jobs)
    codes, test_codes, errors, encoder_config = _codes(encoder, images, test)
    seen = {"images": images.fingerprint(), "test": test.fingerprint(), "encoder": encoder_config}
    runs = [seen | run for run in runs]
    functions = {label: strategy for label, (strategy, _) in strategies.items()}
    data, held_out = TaskData(codes, images, task), (test.images if task.on_pixels else test_codes, test.labels)
    function = _LearningRuns(data, images.labels, held_out, errors, functions, device)
    groups = _groups(runs, size)
    return run_all(function, runs, out, groups=groups, jobs=jobs, cluster=cluster, on_run=on_run, progress=progress)


def _group_size(task: Task, runs: int, jobs: int) -> int:
    """How many runs of a strategy train together: as many as pay, but every job has work."""
    return min(TOGETHER, math.ceil(runs / check_int("jobs", jobs, low=1))) if task.together else 1


def _groups(runs: list[dict], size: int) -> list[list[dict]]:
    """Each strategy's runs, `size` seeds at a time, all strategies before the next seeds."""
    by_label: dict[str, list[dict]] = {}
    for run in runs:
        by_label.setdefault(run["label"], []).append(run)
    seeds = len(runs) // len(by_label)
    return [of_one[start : start + size] for start in range(0, seeds, size) for of_one in by_label.values()]


class _LearningRuns:
    """Calls runs of compare that differ in the seed alone; holds what the configuration only names.

    labels: of the pool, (N,) or (N, C), beside `data`, which strategies reach. test: inputs and labels.
    """

    def __init__(self, data, labels, test, errors, functions, device):
        self.data, self.labels, self.test, self.errors = data, labels, test, errors
        self.functions, self.device = functions, device

    def __call__(self, group: list[dict]) -> list[list[dict]]:
        first, seeds = group[0], [run["seed"] for run in group]
        pools = [Pool(self.labels) for _ in group]
        start = {"start": first["start"], "data": self.data, "n": first["initial"]}
        start |= {"errors": self.errors, "labels": self.labels}
        rounds = in_lockstep(
            pools,
            self.data,
            self.functions[first["label"]],
            initial=[cold_start(**start, seed=seed) for seed in seeds],
            step=first["step"],
            rounds=first["rounds"],
            seeds=seeds,
            options=first["options"],
            errors=self.errors,
            device=self.device,
        )
        rows = [
            [
                self._row(run, state, pool.purchases[-1][1])
                for run, state, pool in zip(group, states, pools, strict=True)
            ]
            for states in rounds
        ]
        return [list(of_one) for of_one in zip(*rows, strict=True)]

    def _row(self, run: dict, state, bought: torch.Tensor) -> dict:
        n_classes = self.data.images.n_classes
        counts = bought.sum(0) if bought.ndim == 2 else torch.bincount(bought, minlength=n_classes)
        row = {
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
        taken = sorted(row.keys() & state.record.keys())
        if taken:
            raise LalibError(f"{run['label']} must not record {taken[0]!r}: the table has a column of that name")
        return row | dict(state.record)


def _seeds(seeds: int | Iterable[int]) -> list[int]:
    if isinstance(seeds, int):
        return list(range(check_int("seeds", seeds, low=1)))
    seeds = [check_int("seed", seed, low=0) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be distinct and at least one, got {seeds}")
    return seeds


def _start(start: str | Mapping[str, int], initial: int, images: ImageSet) -> dict:
    """How a run begins: a strategy and the number of its picks, or how many of which classes."""
    if isinstance(start, str):
        start = check_choice("start", start, LABEL_FREE)
        return {"initial": check_int("initial", initial, low=1), "start": start}
    for name, count in start.items():
        check_int(f"images of class {check_choice('class', name, images.class_names)!r}", count, low=1)
    return {"initial": None, "start": dict(start)}


def _check_given(strategies: dict, start: str | Mapping, encoder, images: ImageSet, task: Task) -> None:
    """LalibError for an encoder that knows labels and for a strategy that would lack something in its first round."""
    if getattr(encoder, "partly_labelled", False):
        raise LalibError(
            f"a {type(encoder).__name__} has learned from labels, which stay hidden here until they are bought: "
            "give the codes (pool, test) of one that has seen labels of other images only, or a Task with "
            "encoder=RoundEncoder(), which trains one on the labels bought so far"
        )
    used = {label: strategy for label, (strategy, _) in strategies.items()}
    if "reconstruction-error" in (*used.values(), start) and not isinstance(encoder, Autoencoder):
        raise LalibError("reconstruction-error needs an autoencoder: give one as the encoder")
    for strategy in used.values():
        if isinstance(strategy, str):
            task.check_serves(strategy, images.multi_label)
    single = [label for label, strategy in used.items() if strategy in SINGLE_LABEL or isinstance(strategy, Peer)]
    if images.multi_label and single:
        raise LalibError(f"{single[0]} needs one label per image; these images may have several")


def _task_config(task: Task) -> dict:
    """The task as a run's configuration names it, defaults included; a file of weights by its SHA-256."""
    options = task.all_options()
    if options.get("weights") not in (None, "imagenet"):
        options["weights"] = file_digest(options["weights"])
    views = None if task.views is None else asdict(RandomViews(**task.views))
    encoder = task.encoder and asdict(task.encoder) | {"options": task.encoder.all_options()}
    return asdict(task) | {"options": options, "views": views, "encoder": encoder}


def _resolved(strategy: str | Strategy, options: dict) -> dict:
    """Options with the defaults of those not given: another default is another run."""
    return keyword_defaults(STRATEGIES.get(strategy, strategy) if isinstance(strategy, str) else strategy) | options


def _labelled(strategies: Sequence | Mapping) -> dict:
    """Strategies by label: a name is its own label, a function's is its name, a peer's its class and parameters."""
    if not len(strategies):
        raise ValueError("strategies must be at least one, got none")
    if isinstance(strategies, Mapping):
        return dict(strategies)
    if isinstance(strategies, str):
        raise TypeError(f"strategies must be a list of strategies or a dict, got the string {strategies!r}")
    labels = [
        given if isinstance(given, str) else getattr(given, "__name__", peer_label(given)) for given in strategies
    ]
    if len(set(labels)) < len(labels):
        raise ValueError(f"strategies must have labels of their own, got {labels}: give a dict of labels")
    return dict(zip(labels, strategies, strict=True))


def _strategy(given) -> tuple[str | Strategy, dict]:
    """A strategy and its options, checked."""
    strategy, options = given if isinstance(given, tuple | list) else (given, {})
    if is_peer(strategy):
        return Peer(strategy, options), {}
    if not callable(strategy):
        check_choice("strategy", strategy, STRATEGIES)
    function = strategy if callable(strategy) else STRATEGIES[strategy]
    check_options(str(strategy), function, options)
    return strategy, dict(options)


def _source(strategy: str | Strategy) -> str | dict:
    """What identifies a strategy in a run's configuration: its name, a peer's parameters, a function's source."""
    if isinstance(strategy, str):
        return strategy
    if isinstance(strategy, Peer):
        return strategy.identity
    if getattr(strategy, "__closure__", None) or inspect.ismethod(strategy):
        raise ValueError(
            f"{strategy.__qualname__} depends on variables around it, by which its runs could not be told from others: "
            "give what varies as options"
        )
    try:
        return inspect.getsource(strategy)
    except (OSError, TypeError) as error:
        raise ValueError(
            f"the source of {strategy!r} is not to be had, so that its runs could not be told from others: "
            "define it in a file or a notebook with def, and give what varies as options"
        ) from error


def _codes(encoder, images: ImageSet, test: ImageSet):
    """Codes of the pool and of the test images, reconstruction errors of the pool or None, and what identifies them."""
    if isinstance(encoder, str):
        check_choice("encoder", encoder, ("pca", "pixels"))
        pool, held_out = (part.images.flatten(1).float() / 255 for part in (images, test))
        if encoder == "pixels":
            return pool, held_out, None, encoder
        return *_pca(pool, held_out), None, {"pca": PCA_DIMENSIONS}
    if isinstance(encoder, tuple | list):
        pool, held_out = (check_codes(codes, "codes").float().cpu() for codes in encoder)
        if len(pool) != len(images) or len(held_out) != len(test):
            wanted = f"{len(images)} and {len(test)}"
            raise ValueError(f"encoder must hold codes of {wanted} images, got {len(pool)} and {len(held_out)}")
        return pool, held_out, None, tensor_digest({"pool": pool, "test": held_out})
    if not (isinstance(encoder, torch.nn.Module) and hasattr(encoder, "encode")):
        raise TypeError(f"encoder must be a model, 'pca', 'pixels' or a pair of codes, got {type(encoder).__name__}")
    errors = reconstruction_errors(encoder, images) if isinstance(encoder, Autoencoder) else None
    identity = {"model": type(encoder).__name__, "weights": tensor_digest(encoder.state_dict())}
    return encode(encoder, images), encode(encoder, test), errors, identity


def _pca(pool: torch.Tensor, held_out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from sklearn.decomposition import PCA

    pca = PCA(min(PCA_DIMENSIONS, *pool.shape), svd_solver="covariance_eigh").fit(pool.numpy())
    return torch.from_numpy(pca.transform(pool.numpy())), torch.from_numpy(pca.transform(held_out.numpy()))
