"""What comparisons are given: strategies, numbers and arrays of every kind, and classes by their names."""

import dataclasses
import json
import threading

import numpy as np
import pandas as pd
import pytest
import torch

import lalib as la
from lalib.data.door import as_tensor
from lalib.experiments import arguments, run_files
from lalib.experiments.comparison import compare_maps, compare_query_sets
from lalib.experiments.loop import Pool, active_learning, cold_start
from lalib.experiments.run_files import run_all
from lalib.experiments.task_models import evaluate, train
from lalib.experiments.tasks import RoundEncoder, Task, TaskData
from lalib.labelling.answers import now
from lalib.strategies import STRATEGIES, Selection, Setting, Source, Strategy

POOL, TEST = la.load("digits").subset(range(200)), la.load("digits", "test").subset(range(60))
CODES, TEST_CODES = (part.images.flatten(1).float() / 255 for part in (POOL, TEST))
QUICK = {"task": Task(steps=3), "initial": 10, "step": 5, "rounds": 1, "seeds": 1, "device": "cpu", "progress": False}
ENCODER = {"model": "CAE", "latent_dim": 2, "epochs": 1}
SETS = {"encoder": ENCODER, "sizes": [20], "ratios": [1], "seeds": 1, "steps": 4, "progress": False}


def _compare(out, images=POOL, test=TEST, **options):
    return la.compare(images, test, out=out, **{"strategies": ["random"], **QUICK, **options})


def _runs(out):
    return [json.loads(path.read_text())["run"] for path in out.glob("*.json")]


# A strategy of one's own, with a need of its own, declared in one place


def coolness(model, power):
    """How little the task model believes in its first choice, to a power."""
    return (1 - model.probs().amax(dim=1)) ** power


def coolest(view, n, *, generator):
    return Selection(view.unlabeled[view.cool[view.unlabeled].argsort(descending=True, stable=True)[:n]])


COOL = Source("cool", "(N,)", "cool=values, one per image", coolness, {"power": Setting(1.0)})
COOLEST = Strategy("coolest", coolest, needs=(COOL,), several=False)


def test_one_declaration_serves_select_compare_and_the_loop_of_a_person(tmp_path):
    values = torch.arange(200.0)
    assert la.select(COOLEST, CODES, 3, labeled=[199], cool=values).tolist() == [198, 197, 196]
    strategies = {"least-confidence": "least-confidence", "mine": COOLEST, "mine, 2": (COOLEST, {"power": 2})}
    table = _compare(tmp_path / "one", strategies=strategies)
    picked = table[table["round"] == 1].set_index("strategy")["picked"]
    assert picked["least-confidence"] == picked["mine"] == picked["mine, 2"]
    run = next(run for run in _runs(tmp_path / "one") if run["label"] == "mine, 2")
    assert run["options"] == {"power": 2.0}
    assert "def coolest" in run["strategy"]["function"]["code"]
    assert "def coolness" in run["strategy"]["sources"]["cool"]
    store = la.LabelStore(tmp_path / "labels.sqlite", POOL.class_names, labeller="me")
    loop = la.LabellingLoop(POOL, CODES, store, held_out=20, task=Task(steps=3), device="cpu")
    with pytest.raises(la.LalibError, match="'coolest' needs labels, and the pool has none yet"):
        loop.ask(COOLEST, 5)
    asked = loop.ask("typiclust", 20).tolist()
    names = [POOL.class_names[label] for label in POOL.labels[asked]]
    store.add(
        [la.labelling.Answer("me", now(), POOL.hashes[i], "class", name) for i, name in zip(asked, names, strict=True)]
    )
    assert loop.ask(COOLEST, 25, power=1).tolist() == loop.ask("least-confidence", 25).tolist()


def test_a_source_that_no_task_gives_is_refused_at_once(tmp_path):
    given_only = Strategy("dear", coolest, needs=(Source("cool", "(N,)", "cool=values"),))
    with pytest.raises(la.LalibError, match=r"dear needs cool \(N,\), which no task gives: cool=values"):
        _compare(tmp_path / "out", strategies=[given_only])
    with pytest.raises(la.LalibError, match=r"dear needs cool \(N,\), which no task gives: cool=values"):
        active_learning(Pool(POOL.labels), TaskData(CODES, POOL, Task()), given_only, initial=[1], step=1, rounds=1)
    assert not (tmp_path / "out").exists()


def test_settings_travel_with_the_options(tmp_path):
    task = Task(model="cnn", steps=2)
    strategies = {"short": ("vaal", {"vae_epochs": 1}), "alone": ("vaal", {"vae_epochs": 1, "adversarial": 0})}
    _compare(tmp_path, strategies=strategies, task=task)
    found = {run["label"]: run["options"] for run in _runs(tmp_path)}
    assert found["short"] == {"vae_epochs": 1, "adversarial": 1.0}
    assert found["alone"] == {"vae_epochs": 1, "adversarial": 0.0}
    assert not {"passes", "loss_weight", "vae_epochs", "adversarial"} & _runs(tmp_path)[0]["task"].keys()


def test_members_of_a_committee_are_trained_once():
    model = train(TaskData(CODES, POOL, Task(steps=3)), range(20), POOL.labels[:20], seed=0, device="cpu")
    three, five = model.mc_probs(passes=3), model.mc_probs()
    assert (len(three), len(five)) == (3, 5)
    assert torch.equal(five[:3], three)
    assert torch.equal(model.mc_probs(passes=2), three[:2])


@pytest.mark.parametrize("call", [_compare, lambda out, **kw: compare_query_sets(POOL, TEST, out=out, **SETS, **kw)])
def test_strategies_of_every_kind(call, tmp_path):
    forms = {
        "a name": "k-medoids",
        "its declaration": STRATEGIES["k-medoids"],
        "a function": functional,
        "a Strategy": Strategy("mine", functional, needs=("codes",)),
        "with options": ("k-medoids", {"iterations": np.int64(50)}),
    }
    table = call(tmp_path, strategies=forms)
    assert table["strategy"].unique().tolist() == list(forms)
    picked = table.groupby("strategy", sort=False)["accuracy"].apply(tuple)
    assert picked.nunique() == 1


def functional(view, n, *, generator):
    return STRATEGIES["k-medoids"](view, n, generator=generator)


def test_a_function_starts_a_comparison(tmp_path):
    table = _compare(tmp_path, start=functional)
    expected = _compare(tmp_path, start="k-medoids")
    assert table["picked"][0] == expected["picked"][0]
    assert len(_runs(tmp_path)) == 2
    with pytest.raises(la.LalibError, match=r"needs probs \(N, C\), which was not given"):
        _compare(tmp_path, start=asking)


def asking(view, n, *, generator):
    return Selection(view.probs[:n])


@pytest.mark.parametrize(
    ("strategies", "error", "message"),
    [
        (
            {"a": ("margin", 3)},
            TypeError,
            "strategies must be {label: strategy, or a pair of it and its options}, got 'a'",
        ),
        ({3: "margin"}, TypeError, "strategies must be {label: strategy, .* got 3: 'margin'"),
        (5, TypeError, "strategies must be a list of strategies or a dict, got 5"),
        (
            {"a": ("margin", {"diversity": object()})},
            TypeError,
            "a parameter of a strategy is a object, by which its runs",
        ),
    ],
)
def test_strategies_that_cannot_be(strategies, error, message, tmp_path):
    with pytest.raises(error, match=message):
        _compare(tmp_path / "out", strategies=strategies)


def test_query_sets_are_chosen_without_labels(tmp_path):
    with pytest.raises(la.LalibError, match="margin needs labels; query sets are chosen without: one of random, "):
        compare_query_sets(POOL, TEST, strategies=["margin"], out=tmp_path, **SETS)


# What strategies are given stays what it was


def spoiler(view, n, *, generator):
    picked = view.unlabeled[:n].clone()
    view.codes.numpy()[0] = 1
    return Selection(picked)


def test_a_strategy_that_changes_the_codes_leaves_no_trace(tmp_path):
    codes = CODES.clone()
    with pytest.raises(la.LalibError, match="spoiler must leave what it is given as it was, but it changed codes"):
        _compare(tmp_path / "out", strategies=["random", spoiler], encoder=(codes, TEST_CODES))
    assert torch.equal(codes, CODES)
    assert {run["label"] for run in _runs(tmp_path / "out")} == {"random"}
    with pytest.raises(la.LalibError, match="spoiler must leave what it is given as it was"):
        la.select(spoiler, codes, 3)
    store = la.LabelStore(tmp_path / "labels.sqlite", POOL.class_names, labeller="me")
    loop = la.LabellingLoop(POOL, codes, store, held_out=20, task=Task(steps=3), device="cpu")
    with pytest.raises(la.LalibError, match="spoiler must leave what it is given as it was"):
        loop.ask(spoiler, 5)
    assert torch.equal(codes, CODES)
    assert not store.answers()


# Numbers and arrays of every kind

NUMBERS = [np.int64, np.int32, np.array, torch.tensor]


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_every_kind_reach_run_files_as_pythons(kind, tmp_path):
    def task(number, real):
        options = {"dropout": real(0.25)}
        return Task(epochs=number(2), batch_size=number(16), learning_rate=real(0.0078125), options=options)

    def call(out, number, real):
        settings = {name: number(QUICK[name]) for name in ("initial", "step", "rounds")}
        strategies = {
            "a": ("margin", {"diversity": real(0.5), "neighbours": number(4)}),
            "b": ("bald", {"passes": number(3)}),
        }
        options = {"strategies": strategies, "task": task(number, real), "random_rounds": number(1)}
        return _compare(out, **{**settings, **options}, seeds=[number(3), number(5)])

    _compare(tmp_path / "many", seeds=kind(2))
    assert sorted(run["seed"] for run in _runs(tmp_path / "many")) == [0, 1]
    call(tmp_path, int, float)
    before = sorted(path.name for path in tmp_path.glob("*.json"))
    call(
        tmp_path, kind, np.float64 if kind in (np.int64, np.int32) else lambda x: kind(float(x), dtype=kind(0.0).dtype)
    )
    assert sorted(path.name for path in tmp_path.glob("*.json")) == before
    _compare(tmp_path / "start", start={"3": kind(2), "5": kind(1)})
    assert _runs(tmp_path / "start")[0]["start"] == {"3": 2, "5": 1}
    sets = {"sizes": kind(20), "ratios": [kind(1)], "seeds": [kind(0)], "steps": kind(4), "progress": False}
    encoder = {"model": "CAE", "latent_dim": kind(2), "epochs": kind(1)}
    compare_query_sets(POOL, TEST, strategies=["random"], encoder=encoder, out=tmp_path / "sets", **sets)
    compare_maps(POOL, TEST, models={"a": encoder}, seeds=[kind(0)], out=tmp_path / "maps", progress=False)
    encoder = RoundEncoder(latent_dim=kind(2), epochs=kind(1))
    json.dumps(dataclasses.asdict(encoder))


ARRAYS = {
    "numpy": np.array,
    "a list": list,
    "a filtered Series": lambda values: pd.Series([9, *values])[1:],
    "small": lambda values: np.array(values, dtype=np.int16),
    "another byte order": lambda values: np.array(values, dtype=">i8"),
}


@pytest.mark.parametrize("form", ARRAYS)
def test_labels_and_indices_of_every_kind(form):
    make, index, labels = ARRAYS[form], list(range(30, 60)), POOL.labels[30:60].tolist()
    data = TaskData(CODES, POOL, Task(steps=3))
    model = train(data, make(index), make(labels), seed=0, device="cpu")
    assert torch.equal(
        model.probs(), train(data, torch.tensor(index), torch.tensor(labels), seed=0, device="cpu").probs()
    )
    assert evaluate(model, CODES, make(POOL.labels.tolist())) == evaluate(model, CODES, POOL.labels)
    pool = Pool(make(POOL.labels.tolist()))
    states = list(active_learning(pool, data, "random", initial=make([4, 2]), step=2, rounds=1, device="cpu"))
    assert states[0].bought.tolist() == [4, 2]
    assert pool.labels[:2].tolist() == POOL.labels[[4, 2]].tolist()
    start = cold_start({"3": 2}, data, seed=0, labels=make(POOL.labels.tolist()))
    assert POOL.labels[start].tolist() == [3, 3]
    errors = make([*range(200)])
    assert la.select("reconstruction-error", CODES, 2, labeled=make([199]), errors=errors).tolist() == [198, 197]
    given = {"labeled": make(index), "labels": make(labels), "space": "codes", "latents": CODES, "probs": model.probs()}
    assert len(la.select("m2-distance", CODES, 3, **given)) == 3


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.float32])
def test_codes_of_every_kind(kind, tmp_path):
    pool, test = (part.numpy().astype(kind) for part in (CODES, TEST_CODES))
    tables = [
        _compare(tmp_path / str(place), encoder=pair, strategies=["margin", "typiclust"])
        for place, pair in enumerate(
            [(pool, test), (torch.tensor(pool), torch.tensor(test)), (pd.DataFrame(pool), test)]
        )
    ]
    for table in tables:
        assert table["picked"].tolist() == tables[0]["picked"].tolist()
    assert (
        la.select("typiclust", pool, 3).tolist() == la.select("typiclust", as_tensor(pool, "codes").float(), 3).tolist()
    )


def _sets(out, **options):
    return compare_query_sets(POOL, TEST, out=out, **{**SETS, **options})


@pytest.mark.parametrize(
    ("call", "options", "error", "message"),
    [
        (_compare, {"seeds": 2.5}, TypeError, "seeds must be a whole number, got 2.5"),
        (_compare, {"seeds": "3"}, TypeError, "seed must be a whole number, got '3'"),
        (_compare, {"seeds": ["a"]}, TypeError, "seed must be a whole number, got 'a'"),
        (_compare, {"seeds": True}, TypeError, "seeds must be a whole number, got True"),
        (_compare, {"encoder": (CODES,)}, TypeError, "encoder must be a model, 'pca', 'pixels' or a pair"),
        (_compare, {"encoder": (["a"], CODES)}, TypeError, "codes must hold real numbers"),
        (_compare, {"start": {"3": "two"}}, TypeError, "images of class '3' must be a whole number, got 'two'"),
        (_compare, {"images": POOL.images}, TypeError, "a comparison is of two ImageSets, got Tensor"),
        (_compare, {"strategies": [dict]}, TypeError, "a strategy must be a name and a function, got 'dict' and"),
        (_sets, {"encoder": "CAE"}, TypeError, "an encoder must be a dict with its model's name, got str"),
        (_sets, {"sizes": "many"}, TypeError, "size must be a whole number, got 'many'"),
        (_sets, {"sizes": []}, ValueError, "sizes must be distinct and at least one, got"),
        (_sets, {"ratios": ["high"]}, TypeError, "ratio must be a number, got 'high'"),
    ],
)
def test_bad_arguments(call, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        call(tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (["cat", "dog"], TypeError, "labels must hold real numbers"),
        ([0.5, 1], TypeError, "labels must be whole numbers, got torch.float64"),
        ([[0, 2], [1, 0]], ValueError, r"labels \(n, C\) must be 0 or 1, got 0 to 2"),
        (3, ValueError, "labels must be those of"),
    ],
)
def test_labels_of_a_pool_that_cannot_be(labels, error, message):
    with pytest.raises(error, match=message):
        Pool(labels)


def test_what_no_file_can_hold():
    with pytest.raises(TypeError, match="a run must be described by numbers, text, lists and dicts of them; Object of"):
        run_all(print, [{"x": np.ones(2)}], "never made", progress=False)


# Classes are matched by name


def _renamed(images, names):
    """The same images and classes, numbered in the order of `names`."""
    place = torch.tensor([names.index(name) if name in names else -1 for name in images.class_names])
    return dataclasses.replace(images, labels=place[images.labels], class_names=tuple(names))


def test_a_test_set_with_classes_in_another_order(tmp_path):
    other = _renamed(TEST, list("9876543210"))
    assert not torch.equal(other.labels, TEST.labels)
    plain, turned = (_compare(tmp_path, test=test, strategies=["random", "margin"]) for test in (TEST, other))
    assert turned.equals(plain)
    assert len(_runs(tmp_path)) == 2  # the same run
    for task in ("cnn", "mlp"):
        settings = {**SETS, "out": tmp_path / task, "strategies": ["random"], "task": task}
        assert compare_query_sets(POOL, TEST, **settings).equals(compare_query_sets(POOL, other, **settings))
    settings = {"models": {"a": ENCODER}, "seeds": 1, "out": tmp_path / "maps", "progress": False}
    assert compare_maps(POOL, TEST, **settings).equals(compare_maps(POOL, other, **settings))


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_evaluate_matches_names(model):
    state = train(
        TaskData(CODES, POOL, Task(model=model, steps=80)), torch.arange(100), POOL.labels[:100], seed=0, device="cpu"
    )
    other, held_out = _renamed(TEST, list("9876543210")), TEST if model == "cnn" else TEST_CODES
    expected = evaluate(state, TEST.images if model == "cnn" else TEST_CODES, TEST.labels)
    assert expected["accuracy"] > 0.3
    assert evaluate(state, held_out, other) == expected
    inputs = TEST.images if model == "cnn" else TEST_CODES.double()
    assert evaluate(state, inputs.numpy(), TEST.labels.numpy()) == expected
    with pytest.raises(ValueError, match=r"inputs must have shape \('n', .*\), as those of the pool, got"):
        evaluate(state, inputs[:, :0] if model == "cnn" else inputs[:, :3], TEST.labels)
    if model == "cnn":
        assert evaluate(state, other) == evaluate(state, TEST) == expected
    with pytest.raises(la.LalibError, match="evaluate needs labels"):
        evaluate(state, dataclasses.replace(TEST, labels=None))
    with pytest.raises(ValueError, match="labels must lie in 0 to 9, got 3 to 12"):
        evaluate(state, held_out, TEST.labels + 3)


def test_a_test_set_that_lacks_a_class_or_has_one_more(tmp_path):
    some = TEST.subset((TEST.labels != 4).nonzero().squeeze(1))
    lacking = _renamed(some, list("012356789"))
    plain, fewer = (_compare(tmp_path, test=test) for test in (some, lacking))
    assert fewer.equals(plain)
    assert len(fewer["confusion"][0]) == 10
    more = _renamed(TEST, [*"0123456789", "ten"])
    assert (
        _compare(tmp_path / "more", test=more)
        .drop(columns=["train_seconds", "select_seconds"])
        .equals(_compare(tmp_path / "same").drop(columns=["train_seconds", "select_seconds"]))
    )
    foreign = dataclasses.replace(more, labels=more.labels.clamp(max=9) + 1)
    with pytest.raises(ValueError, match=r"classes must be among '0', .* got 'ten'"):
        _compare(tmp_path, test=foreign)


# Device and threads


def test_the_device_is_named_where_it_is_not_a_cpu(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("lalib.experiments.comparison.run_all", lambda function, runs, *a, **kw: asked.extend(runs))
    compare_maps(POOL, TEST, models={"a": ENCODER}, seeds=1, out=tmp_path, device="cpu")
    monkeypatch.setattr("lalib.experiments.comparison.resolve_device", lambda device: torch.device("cuda"))
    compare_maps(POOL, TEST, models={"a": ENCODER}, seeds=1, out=tmp_path)
    compare_query_sets(POOL, TEST, out=tmp_path, strategies=["random"], **SETS)
    assert [run.get("device") for run in asked] == [None, "cuda", "cuda"]
    monkeypatch.undo()
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu'"):
        compare_maps(POOL, TEST, models={"a": ENCODER}, seeds=1, out=tmp_path, device="gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_query_sets_and_maps_on_cuda(tmp_path):
    compare_query_sets(POOL, TEST, out=tmp_path, strategies=["random"], device="cuda", **SETS)
    compare_maps(POOL, TEST, models={"a": ENCODER}, seeds=1, out=tmp_path, device="cuda", progress=False)
    assert {run["device"] for run in _runs(tmp_path)} == {"cuda"}


def _threads_of_a_new_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen[0]


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_is_restored_whatever_happens(three_threads):
    def failing(group):
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_files._records(failing, [{"x": 1}], single_thread=True)
    assert torch.get_num_threads() == _threads_of_a_new_thread() == 3


class _Together:
    """Two runs that are inside at the same time; the second one to begin is the first one to end, or the last."""

    def __init__(self):
        self.both, self.first_out = threading.Barrier(2, timeout=60), threading.Event()

    def __call__(self, run):
        self.both.wait()
        if run["x"]:
            self.first_out.wait(60)
        self.first_out.set()
        return [{"threads": torch.get_num_threads()}]

    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        vars(self).update(vars(TOGETHER))


TOGETHER = _Together()


def test_the_number_of_threads_is_restored_in_a_dask_worker_of_this_process(three_threads, tmp_path):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        frame = run_all(TOGETHER, [{"x": 0}, {"x": 1}], tmp_path, cluster=client, progress=False)
        assert frame["threads"].tolist() == [1, 1]
        assert torch.get_num_threads() == _threads_of_a_new_thread() == 3
        assert set(client.run(lambda: torch.get_num_threads()).values()) == {3}


def test_seeds():
    assert arguments.seeds_of(np.int64(2)) == [0, 1]
    assert arguments.seeds_of(pd.Series([4, 2])) == arguments.seeds_of(torch.tensor([4, 2])) == [4, 2]
