"""One active-learning run: buy labels that a pool hides, train on them, ask the strategy what to buy next.

    pool = la.experiments.Pool(images.labels)
    data = la.experiments.TaskData(codes, images, la.Task())
    initial = la.experiments.cold_start("random", data, 20, seed=0)
    for state in la.experiments.active_learning(pool, data, "margin", initial=initial, step=20, rounds=5):
        print(len(pool.labeled), la.experiments.evaluate(state.model, test_codes, test.labels)["accuracy"])

A person buys instead of the pool's hidden labels where the pool asks one: see Pool.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lalib.data.checks import LalibError, check_choice, check_int
from lalib.data.door import as_tensor, check_index, check_labels
from lalib.data.seeds import generator
from lalib.experiments.run_files import failing_in
from lalib.experiments.task_models import TaskModel, train_together
from lalib.experiments.tasks import TaskData
from lalib.strategies.registry import AnyStrategy, as_strategy, run_strategy
from lalib.strategies.sources import Source
from lalib.strategies.view import PoolView, Strategy, labels_of


class Pool:
    """Labels that stay hidden until they are bought, and a record of every purchase.

    labels: all of them, (N,) or (N, C), for a simulated oracle; or a function from an index (n,) to the labels of those
    images, for a person, who then need not know more than what is asked. size: N, needed for a function only.
    """

    def __init__(self, labels: Tensor | Callable[[Tensor], Tensor], size: int | None = None):
        if callable(labels):
            self._oracle, self.size = labels, check_int("size", size, low=1)
        else:
            hidden = as_tensor(labels, "labels")
            hidden = labels_of(hidden, len(hidden) if hidden.ndim else 0).clone()
            self._oracle, self.size = hidden.__getitem__, len(hidden)
        self._bought: list[tuple[Tensor, Tensor]] = []

    def __repr__(self) -> str:
        return f"Pool({len(self.labeled)} of {self.size} labels bought in {len(self._bought)} purchases)"

    @property
    def labeled(self) -> Tensor:
        """Indices (M,) of the images whose label was bought, int64, in the order of buying."""
        return torch.cat([torch.empty(0, dtype=torch.int64), *(index for index, _ in self._bought)])

    @property
    def labels(self) -> Tensor | None:
        """The labels bought, (M,) or (M, C); None before the first purchase."""
        return torch.cat([labels for _, labels in self._bought]) if self._bought else None

    @property
    def purchases(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """(indices, labels) of every purchase, the first one first."""
        return tuple(self._bought)

    def buy(self, index: Tensor) -> Tensor:
        """The labels of the images at `index` (n,); ValueError for one that was bought before or is not in the pool.

        If the oracle fails, nothing is bought.
        """
        index = check_index(index, self.size, distinct=True)
        if not len(index):
            raise ValueError("index must name at least one image to buy, got none")
        if before := int(torch.isin(index, self.labeled).sum()):
            raise ValueError(f"index must name unlabelled images, got {before} bought before")
        labels = self._oracle(index)
        if labels is None:
            raise TypeError(f"the oracle must answer with labels of the {len(index)} images, got None")
        labels = labels_of(labels, len(index))
        if self._bought and labels.shape[1:] != self.labels.shape[1:]:
            before, came = (("n", *part.shape[1:]) for part in (self.labels, labels))
            raise ValueError(f"labels must have the shape of those bought before, {before}, got {came}")
        self._bought.append((index, labels))
        return labels

    def view(self, codes: Tensor | Callable[[], Tensor], own: Iterable[Source] = (), **sources) -> PoolView:
        """What a strategy may see: the codes (N, L), what was bought, and sources; `own` are the strategy's."""
        return PoolView(codes, self.labeled, self.labels, sources, self.size, own)


@dataclass(frozen=True, eq=False)
class Round:
    """What a round did: the images it bought (n,), in order; the task model that it trained; wall seconds of both.

    Models that train together share the seconds. record: what the strategy says of its selection.
    """

    round: int
    bought: Tensor
    model: TaskModel
    select_seconds: float
    train_seconds: float
    record: Mapping[str, float] = field(default_factory=dict)


def active_learning(
    pool: Pool,
    data: TaskData,
    strategy: AnyStrategy,
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

    strategy: as in select, with its options. errors (N,): reconstruction errors, for strategies that ask for them. The
    seed names everything that is drawn: weights, batches and the strategy's draws, each in a stream of its own. Raises
    ValueError at once if the pool is too small for all rounds or not that of the data, and for an unknown strategy or
    option; LalibError for a strategy that needs what the task does not give.
    """
    settings = {"step": step, "rounds": rounds, "options": options, "errors": errors, "device": device}
    return (state for (state,) in in_lockstep([pool], data, strategy, initial=[initial], seeds=[seed], **settings))


def in_lockstep(pools, data, strategy, *, initial, seeds, step, rounds, options=None, errors=None, device="auto"):
    """Several runs of active_learning at once, of each its pool, initial labels (M,) and seed: an iterator of rounds.

    Their task models train together; what a run does depends on the others by rounding only. A round is a list[Round].
    """
    step, rounds = check_int("step", step, low=1), check_int("rounds", rounds, low=0)
    strategy, options = as_strategy(strategy, options)
    given = {} if errors is None else {"errors": errors}
    data.task.check_serves(strategy, data.multi_label, given=given)
    initial = [check_index(bought, len(data.codes), distinct=True) for bought in initial]
    for pool, bought in zip(pools, initial, strict=True):
        if pool.size != len(data.codes):
            raise ValueError(f"pool and data must be of the same images, got {pool.size} and {len(data.codes)}")
        n, left = len(bought), pool.size - len(pool.labeled)
        wanted = n + step * rounds
        if wanted > left:
            raise ValueError(f"{n} + {rounds} x {step} = {wanted} labels exceed the {left} unlabelled images")
        if wanted == left and data.task.model == "m2-vaal":
            needs = "'m2-vaal' needs unlabelled images in every round"
            raise LalibError(f"{needs}: buy fewer than all {left} that are left")
    return _rounds(pools, data, strategy, initial, seeds, step, rounds, options, given, device)


def _rounds(pools, data, strategy: Strategy, initial, seeds, step, rounds, options, given, device):
    models, chosen = [None] * len(pools), [(bought, 0.0, {}) for bought in initial]  # seconds and record of each
    for round in range(rounds + 1):
        for i, (pool, model, seed) in enumerate(zip(pools, models, seeds, strict=True)):
            if round:
                started, draws = time.perf_counter(), generator(seed, "select", round - 1)
                view = pool.view(model.codes, strategy.own, **model.sources(strategy.own), **given)
                with failing_in(f"strategy {strategy.name!r}, seed {seed}, round {round}"):
                    selection = run_strategy(strategy, view, step, generator=draws, **options)
                chosen[i] = selection.index, time.perf_counter() - started, selection.record
            pool.buy(chosen[i][0])
        started, bought = time.perf_counter(), [(pool.labeled, pool.labels) for pool in pools]
        models = train_together(data, bought, seeds=seeds, round=round, last=models, device=device)
        share = (time.perf_counter() - started) / len(pools)
        yield [
            Round(round, index, model, selecting, share, record)
            for model, (index, selecting, record) in zip(models, chosen, strict=True)
        ]


def cold_start(
    start: AnyStrategy | Mapping[str, int],
    data: TaskData,
    n: int | None = None,
    *,
    seed: int,
    errors: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """Indices (n,) of the images whose labels are bought first.

    start: a strategy that needs no label, which is asked for n images; or {class name: how many}, drawn at random from
    these classes alone. Only this start needs labels (N,), which no strategy sees.
    """
    images, draws = data.images, generator(seed, "initial")
    if not isinstance(start, Mapping):
        view = PoolView(data.codes, sources={} if errors is None else {"errors": errors})
        return run_strategy(start, view, n, generator=draws).index
    if labels is None or as_tensor(labels, "labels").ndim > 1:
        raise LalibError("a start from chosen classes needs one label per image: give labels= (N,)")
    labels, parts = check_labels(labels, len(images), images.n_classes), []
    for name, count in sorted(start.items()):  # a run's configuration does not know their order
        chosen = images.class_names.index(check_choice("class", name, images.class_names))
        members = (labels == chosen).nonzero().squeeze(1)
        count = check_int(f"images of class {name!r}", count, low=1, high=len(members))
        parts.append(members[torch.randperm(len(members), generator=draws)[:count]])
    return torch.cat(parts)
