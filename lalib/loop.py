"""One active-learning run: buy labels, train on them, ask the strategy what to buy next.

    pool = la.Pool(images.labels)
    data = la.TaskData(codes, images, la.Task())
    initial = la.cold_start("random", data, 20, seed=0)
    for state in la.active_learning(pool, data, "margin", initial=initial, step=20, rounds=5):
        print(len(pool.labeled), la.evaluate(state.model, test_codes, test.labels)["accuracy"])

A person buys instead of the pool's hidden labels where the pool asks one: see Pool.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lalib._checks import LalibError, check_choice, check_int, check_options
from lalib.pool import Pool, PoolView
from lalib.seeds import generator
from lalib.strategies import STRATEGIES, Strategy, run_strategy
from lalib.tasks import TaskData, TaskModel, train

__all__ = ["Round", "active_learning", "cold_start"]


@dataclass(frozen=True, eq=False)
class Round:
    """What a round did: the images it bought (n,), in order; the task model that it trained; wall seconds of both."""

    round: int
    bought: Tensor
    model: TaskModel
    select_seconds: float
    train_seconds: float


def active_learning(
    pool: Pool,
    data: TaskData,
    strategy: str | Strategy,
    *,
    initial: Tensor,
    step: int,
    rounds: int,
    seed: int = 0,
    options: Mapping | None = None,
    errors: Tensor | None = None,
    device: str = "auto",
) -> Iterator[Round]:
    """Buy the labels of `initial` (M,), train, yield round 0; then `rounds` times select `step`, buy, train, yield.

    strategy: a name in STRATEGIES or a function of that form, with its options. errors (N,): reconstruction errors, for
    strategies that ask for them. The seed names everything that is drawn: weights, batches and the strategy's draws,
    each in a stream of its own. Raises ValueError at once if the pool is too small for all rounds or not that of the
    data, and for an unknown strategy or option.
    """
    check_int("step", step, low=1)
    check_int("rounds", rounds, low=0)
    if pool.size != len(data.codes):
        raise ValueError(f"pool and data must be of the same images, got {pool.size} and {len(data.codes)}")
    if isinstance(strategy, str):
        check_options(strategy, STRATEGIES[check_choice("strategy", strategy, STRATEGIES)], dict(options or {}))
    wanted = len(initial) + step * rounds
    if wanted > pool.size - len(pool.labeled):
        left = pool.size - len(pool.labeled)
        raise ValueError(f"{len(initial)} + {rounds} x {step} = {wanted} labels exceed the {left} unlabelled images")
    return _rounds(pool, data, strategy, initial, step, rounds, seed, dict(options or {}), errors, device)


def _rounds(pool, data, strategy, bought, step, rounds, seed, options, errors, device):
    given, classifier, selecting = {} if errors is None else {"errors": errors}, None, 0.0
    for round in range(rounds + 1):
        pool.buy(bought)
        started = time.perf_counter()
        model = train(data, pool.labeled, pool.labels, seed=seed, round=round, start=classifier, device=device)
        classifier = model.classifier
        yield Round(round, bought, model, selecting, time.perf_counter() - started)
        if round < rounds:
            started = time.perf_counter()
            view = pool.view(data.codes, **model.sources(), **given)
            bought = run_strategy(strategy, view, step, generator=generator(seed, "select", round), **options).index
            selecting = time.perf_counter() - started


def cold_start(
    start: str | Strategy | Mapping[str, int],
    data: TaskData,
    n: int | None = None,
    *,
    seed: int,
    errors: Tensor | None = None,
) -> Tensor:
    """Indices (n,) of the images whose labels are bought first.

    start: a strategy that needs no label, of which n images are asked; or {class name: how many}, drawn at random from
    these classes alone with the help of their hidden labels, as in a study that begins with three of ten classes.
    """
    if isinstance(start, Mapping):
        return _from_classes(start, data.images, generator(seed, "initial"))
    sources = {} if errors is None else {"errors": errors}
    return run_strategy(start, PoolView(data.codes, sources=sources), n, generator=generator(seed, "initial")).index


def _from_classes(start, images, generator):
    if images.labels is None or images.multi_label:
        raise LalibError("a start from chosen classes needs one label per image")
    parts = []
    for name, count in sorted(start.items()):  # a run's configuration does not know their order
        chosen = images.class_names.index(check_choice("class", name, images.class_names))
        members = (images.labels == chosen).nonzero().squeeze(1)
        check_int(f"images of class {name!r}", count, low=1, high=len(members))
        parts.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(parts)
