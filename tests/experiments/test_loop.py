"""The active-learning loop: what is bought, who sees what, and what the seed decides."""

import dataclasses
import gc
import types

import numpy as np
import pytest
import torch

import lalib as la
from lalib.experiments.loop import Pool, active_learning, cold_start, in_lockstep
from lalib.experiments.tasks import Task, TaskData
from lalib.strategies.view import Selection

DIGITS = la.load("digits").subset(range(300))


@pytest.fixture(scope="module")
def data():
    return TaskData(DIGITS.images.flatten(1).float() / 255, DIGITS, Task(steps=5))


def _run(data, strategy="margin", seed=0, initial=None, **options):
    pool = Pool(DIGITS.labels)
    initial = cold_start("random", data, 10, seed=seed) if initial is None else initial
    options = {"step": 5, "rounds": 3, "device": "cpu", **options}
    return pool, list(active_learning(pool, data, strategy, initial=initial, seed=seed, **options))


def test_rounds_buy_train_and_go_on(data):
    pool, rounds = _run(data)
    assert [state.round for state in rounds] == [0, 1, 2, 3]
    assert [len(state.bought) for state in rounds] == [10, 5, 5, 5]
    assert [len(state.model.index) for state in rounds] == [10, 15, 20, 25]
    assert torch.equal(torch.cat([state.bought for state in rounds]), pool.labeled)
    assert torch.equal(pool.labels, DIGITS.labels[pool.labeled])
    assert torch.equal(rounds[2].model.index, pool.labeled[:20])
    assert torch.equal(rounds[2].model.labels, pool.labels[:20])
    assert all(state.train_seconds > 0 for state in rounds)
    assert rounds[0].select_seconds == 0


def test_a_round_by_hand(data):
    """Train, select and train again with what the library offers for one step."""
    pool, rounds = _run(data, rounds=1, seed=4)
    first = la.experiments.task_models.train(data, pool.labeled[:10], pool.labels[:10], seed=4, device="cpu")
    query = Pool(DIGITS.labels)
    query.buy(pool.labeled[:10])
    expected = la.strategies.run_strategy(
        "margin", query.view(data.codes, **first.sources()), 5, generator=la.data.seeds.generator(4, "select", 0)
    )
    assert torch.equal(rounds[1].bought, expected.index)
    assert torch.equal(first.probs(), rounds[0].model.probs())


def test_a_strategy_sees_bought_labels_only(data):
    seen = []

    def curious(view, n, *, generator):
        seen.append((view.labeled.clone(), view.labels.clone()))
        assert view.probs.shape == (300, 10)
        assert not hasattr(view, "oracle")
        return Selection(view.unlabeled[:n])

    pool, _ = _run(data, curious)
    assert [len(labels) for _, labels in seen] == [10, 15, 20]
    for labeled, labels in seen:
        assert torch.equal(labels, DIGITS.labels[labeled])
    assert len(pool.labeled) == 25


def _reachable(root):
    """Every object that `root` refers to, through any number of others; not classes, modules and global variables."""
    met, left = {}, [root]
    while left:
        one = left.pop()
        if id(one) in met or isinstance(one, type | types.ModuleType):
            continue
        met[id(one)] = one
        if isinstance(one, types.FunctionType):
            left += [one.__closure__, one.__defaults__, one.__kwdefaults__, vars(one)]
        else:
            left += gc.get_referents(one)
    return list(met.values())


def _tells(one, files):
    """Whether an object names a file or holds all labels of DIGITS: in its memory, in its order or down its columns."""
    if isinstance(one, str):
        return one in files
    if isinstance(one, np.ndarray) and one.dtype.kind in "biuf":
        one = torch.from_numpy(one)
    if not isinstance(one, torch.Tensor):
        return False
    one = one.detach()
    memory, backwards = torch.empty(0, dtype=one.dtype).set_(one.untyped_storage()), tuple(range(one.ndim))[::-1]
    return any(_holds_labels(row) for row in (memory, one.flatten(), one.permute(backwards).flatten()))


def _holds_labels(row):
    """Whether all labels of DIGITS stand in a row of numbers, one after the other."""
    starts = torch.arange(max(0, len(row) - len(DIGITS.labels) + 1))
    for place, label in enumerate(DIGITS.labels):
        starts = starts[row[starts + place] == label]
    return len(starts) > 0


@pytest.mark.parametrize(("model", "source"), [("mlp", "mc_probs"), ("m2-vaal", "m2_vaal")])
def test_a_strategy_reaches_no_hidden_label(model, source):
    """Neither through the view nor through anything it leads to, whatever was asked for."""
    files = [f"{label}/{i}.png" for i, label in enumerate(DIGITS.labels.tolist())]  # as from_folder names them
    images, task = dataclasses.replace(DIGITS, files=files), Task(model=model, steps=5)
    data, walks = TaskData(DIGITS.images.flatten(1).float() / 255, images, task), []

    def recording(view, n, *, generator):
        getattr(view, source)
        walks.append(_reachable(view))
        return Selection(view.unlabeled[:n])

    _run(data, recording, rounds=2)
    assert len(walks) == 2
    for met in walks:
        assert any(one is data for one in met)  # so far leads the way of a source's __self__
        assert not [one for one in met if _tells(one, files)]


def test_the_seed_decides_and_strategies_share_their_start(data):
    (one, first), (two, again), (three, _) = _run(data), _run(data), _run(data, seed=1)
    assert torch.equal(one.labeled, two.labeled)
    assert torch.equal(first[-1].model.probs(), again[-1].model.probs())
    assert not torch.equal(one.labeled, three.labeled)
    other, rounds = _run(data, "random")
    assert torch.equal(other.labeled[:10], one.labeled[:10])
    assert torch.equal(rounds[0].model.probs(), first[0].model.probs())
    assert not torch.equal(other.labeled, one.labeled)


def test_options_and_errors_reach_the_strategy(data):
    errors = torch.arange(300.0)
    pool, _ = _run(data, "reconstruction-error", errors=errors, initial=torch.tensor([299]), rounds=1)
    assert pool.labeled.tolist() == [299, 298, 297, 296, 295, 294]
    with pytest.raises(ValueError, match="margin has no option 'bogus'"):
        _run(data, options={"bogus": 1})
    with pytest.raises(la.LalibError, match="needs errors"):
        _run(data, "reconstruction-error")


@pytest.mark.parametrize("task", [{}, {"warm_start": True, "options": {"dropout": 0.2}}, {"model": "cnn"}])
@pytest.mark.parametrize(("strategy", "options"), [("margin", {}), ("bald", {"passes": 3})])
def test_in_lockstep_as_alone(strategy, options, task, data):
    data, seeds = TaskData(data.codes, data.images, Task(steps=4, **task)), (0, 3, 5)
    alone = [_run(data, strategy, seed, rounds=2, options=options) for seed in seeds]
    pools = [Pool(DIGITS.labels) for _ in seeds]
    initial = [cold_start("random", data, 10, seed=seed) for seed in seeds]
    settings = {"step": 5, "rounds": 2, "options": options, "device": "cpu"}
    runs = in_lockstep(pools, data, strategy, initial=initial, seeds=seeds, **settings)
    for (own, rounds), pool, states in zip(alone, pools, zip(*runs, strict=True), strict=True):
        assert torch.equal(own.labeled, pool.labeled)
        for one, other in zip(rounds, states, strict=True):
            assert torch.equal(one.bought, other.bought)
            assert torch.equal(one.model.index, other.model.index)
            assert torch.allclose(one.model.probs(), other.model.probs(), atol=1e-4)
        assert [state.round for state in states] == [0, 1, 2]
    assert len({tuple(pool.labeled.tolist()) for pool in pools}) == 3
    assert len({state.train_seconds for state in states}) == 3


def test_a_started_loop_stops_where_it_is_left(data):
    pool = Pool(DIGITS.labels)
    loop = active_learning(pool, data, "random", initial=torch.arange(10), step=5, rounds=3, device="cpu")
    assert len(pool.labeled) == 0
    next(loop)
    next(loop)
    loop.close()
    assert len(pool.labeled) == 15


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 59}, r"10 \+ 59 x 5 = 305 labels exceed the 300 unlabelled images"),
        ({"step": 0}, "step must be at least 1, got 0"),
        ({"rounds": -1}, "rounds must be at least 0, got -1"),
        ({"strategy": "marginal"}, "strategy must be one of .* Did you mean 'margin'"),
        ({"initial": torch.tensor([3, 3])}, "index must be distinct"),
    ],
)
def test_refuses(options, message, data):
    with pytest.raises(ValueError, match=message):
        _run(data, **options)


def test_refuses_at_once_what_no_round_could_do(data):
    initial = torch.arange(10)
    for pool, strategy, options, message in [
        (Pool(torch.zeros(299, dtype=int)), "margin", {}, "pool and data must be of the same images, got 299 and 300"),
        (Pool(DIGITS.labels), "marginal", {}, "strategy must be one of"),
        (Pool(DIGITS.labels), "margin", {"bogus": 1}, "margin has no option 'bogus'"),
    ]:
        with pytest.raises(ValueError, match=message):
            active_learning(pool, data, strategy, initial=initial, step=5, rounds=1, options=options)
    pools, starts = [Pool(DIGITS.labels) for _ in range(2)], [initial, torch.arange(291)]
    with pytest.raises(ValueError, match=r"291 \+ 2 x 5 = 301 labels exceed the 300 unlabelled images"):
        in_lockstep(pools, data, "random", initial=starts, step=5, rounds=2, seeds=(0, 1))


def test_a_task_with_a_discriminator_is_refused_at_once_if_the_last_round_leaves_no_image_unlabelled(data):
    pool, task = Pool(DIGITS.labels), Task(model="m2-vaal", steps=1)
    vaal = TaskData(data.codes, data.images, task)
    with pytest.raises(la.LalibError, match="needs unlabelled images in every round: buy fewer than all 300"):
        active_learning(pool, vaal, "random", initial=torch.arange(290), step=5, rounds=2)


# Cold start


@pytest.mark.parametrize("start", ["random", "k-medoids", "typiclust", "cluster"])
def test_any_label_free_strategy_starts(start, data):
    index = cold_start(start, data, 20, seed=3)
    assert len(index.unique()) == 20
    assert torch.equal(index, cold_start(start, data, 20, seed=3))


def test_a_start_from_chosen_classes(data):
    index = cold_start({"3": 7, "5": 4}, data, seed=0, labels=DIGITS.labels)
    assert DIGITS.labels[index].tolist() == [3] * 7 + [5] * 4
    assert len(index.unique()) == 11
    assert not torch.equal(index, cold_start({"3": 7, "5": 4}, data, seed=1, labels=DIGITS.labels))
    assert torch.equal(index, cold_start({"5": 4, "3": 7}, data, seed=0, labels=DIGITS.labels))


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        ("margin", la.LalibError, r"this strategy needs probs \(N, C\), which was not given"),
        ({"eleven": 1}, ValueError, "class must be one of '0', .* got 'eleven'"),
        ({"3": 1000}, ValueError, "images of class '3' must be at most"),
        ({"3": 0}, ValueError, "images of class '3' must be at least 1, got 0"),
    ],
)
def test_a_start_that_cannot_be(start, error, message, data):
    with pytest.raises(error, match=message):
        cold_start(start, data, 10, seed=0, labels=DIGITS.labels)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (None, la.LalibError, r"a start from chosen classes needs one label per image: give labels= \(N,\)"),
        (torch.eye(10)[DIGITS.labels], la.LalibError, "a start from chosen classes needs one label per image"),
        (DIGITS.labels[:299], ValueError, r"labels must have shape \(300,\), one per point, got \(299,\)"),
    ],
)
def test_a_start_from_chosen_classes_needs_their_labels(labels, error, message, data):
    with pytest.raises(error, match=message):
        cold_start({"3": 1}, data, seed=0, labels=labels)
