"""compare: strategies are paired, runs are told apart by all they depend on, and one run by hand."""

import dataclasses
import functools
import json
import tracemalloc

import numpy as np
import pytest
import torch

import lalib as la
from lalib.experiments.comparison import compare
from lalib.experiments.loop import cold_start
from lalib.experiments.tasks import RoundEncoder, Task
from lalib.strategies.view import Selection

TASK = Task(steps=5)
COLUMNS = ["strategy", "seed", "round", "labels", "accuracy", "confusion", "train_seconds", "select_seconds"]


def _compare(images, test, out, **options):
    defaults = {"strategies": ["random", "margin"], "task": TASK, "initial": 10, "step": 5, "rounds": 2, "seeds": 2}
    return compare(images, test, out=out, progress=False, device="cpu", **{**defaults, **options})


def lowest(view, n, *, generator, back=False):
    """The first unlabelled images, or the last."""
    return Selection(view.unlabeled.flip(0)[:n] if back else view.unlabeled[:n])


SEEN = []  # codes that a view offered to `watched`


def watched(view, n, *, generator):
    SEEN.append(view.codes)
    return Selection(view.unlabeled[:n])


def boastful(view, n, *, generator):
    return Selection(view.unlabeled[:n], record={"accuracy": 1.0})


def _varying(by):
    def inner(view, n, *, generator):
        return Selection(view.unlabeled[by : by + n])

    return inner


NOWHERE = eval("lambda view, n, *, generator: None")  # a function without a source


def _timeless(frame):
    return frame.drop(columns=["train_seconds", "select_seconds"])


def test_one_row_per_strategy_seed_and_round(digits, held_out, tmp_path):
    frame = _compare(digits, held_out, tmp_path, seeds=[0, 4])
    assert list(frame) == [*COLUMNS, "picked", "counts"]
    assert frame["round"].tolist() == [0, 1, 2] * 4
    assert frame["labels"].tolist() == [10, 15, 20] * 4
    assert frame["strategy"].tolist() == (["random"] * 3 + ["margin"] * 3) * 2
    assert frame["seed"].tolist() == [0] * 6 + [4] * 6
    assert [len(picked) for picked in frame["picked"]] == [10, 5, 5] * 4
    for row in frame.itertuples():
        assert row.counts == torch.bincount(digits.labels[row.picked], minlength=10).tolist()
        confusion = np.array(row.confusion)
        assert confusion.sum(1).tolist() == torch.bincount(held_out.labels, minlength=10).tolist()
        assert confusion.trace() / 100 == pytest.approx(row.accuracy)
    assert len(list(tmp_path.iterdir())) == 4
    assert _compare(digits, held_out, tmp_path, seeds=[0, 4]).equals(frame)


def test_strategies_are_paired(digits, held_out, tmp_path):
    frame = _compare(digits, held_out, tmp_path, strategies={"one": "margin", "two": "margin", "random": "random"})
    first = frame[frame["round"] == 0]
    for _, part in first.groupby("seed"):
        assert part["accuracy"].nunique() == 1
        assert len({tuple(picked) for picked in part["picked"]}) == 1
    wide = frame.pivot(index=["seed", "round"], columns="strategy", values="accuracy")
    assert (wide["one"] == wide["two"]).all()
    alone = _compare(digits, held_out, tmp_path / "alone", strategies=["margin"], seeds=[1])
    assert alone["accuracy"].tolist() == frame[(frame["strategy"] == "one") & (frame["seed"] == 1)]["accuracy"].tolist()


def test_a_run_by_hand(digits, held_out, tmp_path):
    """PCA, cold start, then train and select with what the library offers for one step."""
    row = _compare(digits, held_out, tmp_path, strategies=["entropy"], seeds=[3], rounds=1).iloc[1]
    from sklearn.decomposition import PCA

    pca = PCA(32).fit(digits.images.flatten(1).numpy() / 255.0)
    codes, test_codes = (
        torch.tensor(pca.transform(x.images.flatten(1).numpy() / 255.0)).float() for x in (digits, held_out)
    )
    data = la.experiments.TaskData(codes, digits, TASK)
    initial = cold_start("random", data, 10, seed=3)

    def trained(index):
        classifier = la.MLPClassifier(32, 10, seed=3)
        la.fit(classifier, (codes[index], digits.labels[index]), epochs=5, seed=3, device="cpu", progress=False)
        return classifier

    p = la.predict_proba(trained(initial), codes)
    entropy = -(p * p.clamp_min(1e-12).log()).sum(1)
    entropy[initial] = -1
    assert set(row["picked"]) == set(entropy.argsort(descending=True)[:5].tolist())
    classifier = trained(torch.tensor([*initial.tolist(), *row["picked"]]))
    assert row["accuracy"] == pytest.approx(la.accuracy(classifier, test_codes, held_out.labels), abs=0.021)


def test_principal_components_of_large_images_hold_nothing_of_the_square_of_their_pixels(tmp_path):
    images = torch.randint(256, (60, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pool = la.from_arrays(images[:50], torch.arange(50) % 2)
    _compare(pool, pool, tmp_path / "first", strategies=[watched], rounds=1, seeds=1)  # what is imported counts once
    SEEN.clear()
    tracemalloc.start()
    _compare(pool, pool, tmp_path / "second", strategies=[watched], rounds=1, seeds=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # 12,288 x 12,288 would be 604 MB
    centred = images[:50].flatten(1).double() / 255
    centred -= centred.mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    nearest = vectors[:, -32:] * values[-32:] @ vectors[:, -32:].T
    codes = SEEN[0].double()
    assert codes.shape == (50, 32)
    assert (codes @ codes.T - nearest).abs().max() < 2e-5 * nearest.max()


def test_principal_components_of_black_images(tmp_path):
    black = la.from_arrays(torch.zeros(50, 1, 40, 40, dtype=torch.uint8), torch.arange(50) % 2)
    frame = _compare(black, black, tmp_path, strategies=["random"], rounds=0, seeds=1)
    assert frame["accuracy"].tolist() == [0.5]


def test_functions_options_and_labels(digits, held_out, tmp_path):
    strategies = {"first": lowest, "last": (lowest, {"back": True}), "cluster": ("cluster", {"clusters": 4})}
    frame = _compare(digits, held_out, tmp_path, strategies=strategies, seeds=1, rounds=1)
    picked = frame[frame["round"] == 1].set_index("strategy")["picked"]
    assert max(picked["first"]) < 20
    assert min(picked["last"]) > 230
    assert _compare(digits, held_out, tmp_path, strategies=[lowest], seeds=1)["strategy"].unique().tolist() == [
        "lowest"
    ]


def test_random_may_go_on(digits, held_out, tmp_path):
    frame = _compare(digits, held_out, tmp_path, random_rounds=5, seeds=1)
    assert frame.groupby("strategy")["labels"].max().to_dict() == {"random": 35, "margin": 20}


@pytest.mark.parametrize("task", ["mlp", "cnn"])
def test_codes_of_any_kind(task, digits, held_out, tmp_path):
    model = la.CAE(digits.image_shape, 3)
    la.fit(model, digits, epochs=1, progress=False)
    task = dataclasses.replace(TASK, model=task)
    options = {"strategies": ["random", "k-medoids"], "seeds": 1, "rounds": 1, "task": task}
    frames = {
        "pixels": _compare(digits, held_out, tmp_path, encoder="pixels", **options),
        "model": _compare(digits, held_out, tmp_path, encoder=model, **options),
        "codes": _compare(
            digits, held_out, tmp_path, encoder=(la.encode(model, digits), la.encode(model, held_out)), **options
        ),
    }
    assert len(list(tmp_path.iterdir())) == 6
    assert _timeless(frames["model"]).equals(_timeless(frames["codes"]))
    assert not _timeless(frames["model"]).equals(_timeless(frames["pixels"]))
    errors = _compare(digits, held_out, tmp_path, encoder=model, **{**options, "strategies": ["reconstruction-error"]})
    worst = la.reconstruction_errors(model, digits)
    worst[errors["picked"][0]] = -1
    assert errors["picked"][1] == worst.argsort(descending=True, stable=True)[:5].tolist()


def test_a_start_from_three_classes(digits, held_out, tmp_path):
    frame = _compare(digits, held_out, tmp_path, start={"2": 3, "4": 5, "7": 1}, seeds=1)
    assert frame["labels"].tolist() == [9, 14, 19] * 2
    assert frame["counts"][0] == [0, 0, 3, 0, 5, 0, 0, 1, 0, 0]


def test_another_configuration_is_another_run(digits, held_out, tmp_path):
    options = {"seeds": 1, "strategies": ["random"]}
    _compare(digits, held_out, tmp_path, **options)
    changes = [
        {"task": dataclasses.replace(TASK, learning_rate=0.002)},
        {"initial": 11},
        {"start": "k-medoids"},
        {"step": 4},
        {"rounds": 1},
        {"encoder": "pixels"},
        {"strategies": {"random": ("k-medoids", {})}},
        {"strategies": {"random": ("k-medoids", {"iterations": 3})}},
        {"strategies": {"random": lowest}},
        {"strategies": {"random": _varying(1)}},
        {"strategies": {"random": _varying(2)}},
        {"strategies": {"random": functools.partial(lowest, back=True)}},
        {"task": dataclasses.replace(TASK, options={"hidden": (30,)})},
    ]
    for count, change in enumerate(changes, 2):
        _compare(digits, held_out, tmp_path, **{**options, **change})
        assert len(list(tmp_path.iterdir())) == count, change
    _compare(digits.subset(range(249)), held_out, tmp_path, **options)
    _compare(digits, held_out.subset(range(99)), tmp_path, **options)
    assert len(list(tmp_path.iterdir())) == len(changes) + 3
    _compare(digits, held_out, tmp_path, **{**options, "seeds": [0]})
    assert len(list(tmp_path.iterdir())) == len(changes) + 3


def test_an_encoder_of_the_round(digits, held_out, tmp_path):
    """Only a strategy that looks at V depends on it; its scales are in the table."""
    small = digits.subset(range(60)), held_out.subset(range(20))
    strategies = {"core-set": "core-set", "core-set + V": ("core-set", {"space": "both", "alpha": 9.0})}
    options = {"strategies": strategies, "seeds": 1, "rounds": 1}
    encoder = RoundEncoder(latent_dim=3, epochs=1)
    spelt = RoundEncoder(latent_dim=3, epochs=1, options={"label_dropout": 0.1, "preset": "light"})
    other = dataclasses.replace(encoder, options={"label_dropout": 0.2})
    task = Task(model="cnn", steps=3)
    tables = [
        _compare(*small, tmp_path, task=dataclasses.replace(task, encoder=encoder), **options)
        for encoder in (None, encoder, spelt, other)
    ]
    assert len(list(tmp_path.iterdir())) == 2 * 3  # defaults that are spelt out are no other run
    assert tables[0]["picked"][1] == tables[1]["picked"][1]
    assert tables[0]["picked"][3] != tables[1]["picked"][3]
    assert tables[1]["code_spread"].fillna(0).tolist() == pytest.approx([0, 0, 0, 9], rel=1e-5)
    assert tables[1]["task_spread"][3] == tables[0]["task_spread"][3] > 0


def test_defaults_are_part_of_the_configuration(digits, held_out, tmp_path):
    _compare(digits, held_out, tmp_path, seeds=1, strategies=["k-medoids"])
    spelt = {"strategies": {"k-medoids": ("k-medoids", {"iterations": 50})}, "encoder": "pca"}
    task = dataclasses.replace(TASK, options={"hidden": (256, 256), "dropout": 0.0})
    _compare(digits, held_out, tmp_path, seeds=1, **spelt, task=task)
    assert len(list(tmp_path.iterdir())) == 1


def test_other_weights_are_other_runs(digits, held_out, tmp_path):
    for seed in (0, 1):
        _compare(digits, held_out, tmp_path, encoder=la.CAE(digits.image_shape, 2, seed=seed), seeds=1)
    assert len(list(tmp_path.iterdir())) == 4


def test_an_encoder_is_known_by_its_codes(digits, held_out, tmp_path):
    """The weights are the same in all: another way to encode is another run, a copy by another name is not."""

    class Mirrored(la.CAE):
        def encode(self, x):
            return -super().encode(x)

    class Namesake(la.CAE):
        pass

    for kind in (la.CAE, Mirrored, Namesake):
        _compare(digits, held_out, tmp_path, encoder=kind(digits.image_shape, 2, seed=0), seeds=1)
    assert len(list(tmp_path.iterdir())) == 4


def test_other_files_of_weights_are_other_runs(digits, held_out, tmp_path):
    from torchvision.models import resnet18

    few, test = digits.subset(range(40)), held_out.subset(range(10))
    for seed in (0, 1, 1):
        torch.manual_seed(seed)
        torch.save(resnet18(num_classes=2).state_dict(), tmp_path / "weights.pth")
        task = Task(model="resnet18", steps=1, options={"weights": tmp_path / "weights.pth"})
        _compare(few, test, tmp_path / "out", task=task, strategies=["random"], seeds=1, rounds=0)
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_several_labels_per_image(digits, held_out, tmp_path):
    def several(images):
        labels = torch.stack([images.labels % 2, images.labels // 5], dim=1)
        return dataclasses.replace(images, labels=labels, class_names=("odd", "high"))

    frame = _compare(
        several(digits), several(held_out), tmp_path, strategies=["random", "entropy", "bald", "badge"], seeds=1
    )
    assert frame["auc"].between(0, 1).all()
    assert "confusion" not in frame
    for row in frame.itertuples():
        assert row.counts == several(digits).labels[row.picked].sum(0).tolist()


def test_rows_arrive_while_it_runs(digits, held_out, tmp_path):
    seen = []
    frame = _compare(digits, held_out, tmp_path, on_run=seen.append)
    assert [len(rows) for rows in seen] == [3] * 4
    assert [{(row["strategy"], row["seed"]) for row in rows} for rows in seen] == [
        {("random", 0)},
        {("random", 1)},
        {("margin", 0)},
        {("margin", 1)},
    ]
    order = frame.sort_values(["strategy", "seed", "round"], ascending=[False, True, True])
    assert [row for rows in seen for row in rows] == order.to_dict("records")


# Seeds in a group


def _files(out):
    """Modification times of the run files by strategy and seed."""
    runs = {path: json.loads(path.read_text())["run"] for path in out.iterdir()}
    return {(run["label"], run["seed"]): (path, path.stat().st_mtime_ns) for path, run in runs.items()}


def test_seeds_in_a_group_as_alone(digits, held_out, tmp_path):
    options = {"strategies": ["margin", "bald"], "seeds": 7}
    together = _compare(digits, held_out, tmp_path / "together", **options)
    alone = [_compare(digits, held_out, tmp_path / "alone", **{**options, "seeds": [seed]}) for seed in range(7)]
    for row, other in zip(together.itertuples(), (row for part in alone for row in part.itertuples()), strict=True):
        assert row.picked == other.picked
        assert row.accuracy == pytest.approx(other.accuracy, abs=0.021)


@pytest.mark.parametrize(
    ("task", "jobs", "sizes"), [("mlp", 1, [5, 5, 2, 2]), ("mlp", 4, [4, 4, 3, 3]), ("cnn", 1, [1] * 14)]
)
def test_groups_by_hand(task, jobs, sizes, digits, held_out, tmp_path, monkeypatch):
    def run_all(function, runs, out, *, groups, **options):
        assert [len(group) for group in groups] == sizes
        assert sorted(run["seed"] for group in groups for run in group) == sorted(run["seed"] for run in runs)
        assert [group[0]["label"] for group in groups[:2]] == ["random", "margin"]
        for group in groups:
            assert all({**run, "seed": 0} == {**group[0], "seed": 0} for run in group)

    monkeypatch.setattr("lalib.experiments.comparison.run_all", run_all)
    _compare(digits, held_out, tmp_path, task=dataclasses.replace(TASK, model=task), seeds=7, jobs=jobs)


def test_a_group_that_lacks_a_run_ends_with_the_same_table(digits, held_out, tmp_path):
    unbroken, seen = _compare(digits, held_out, tmp_path, seeds=3), []
    before = _files(tmp_path)
    before["margin", 1][0].unlink()
    again = _compare(digits, held_out, tmp_path, seeds=3, on_run=seen.append)
    assert _timeless(again).equals(_timeless(unbroken))
    after = _files(tmp_path)
    assert {key for key in after if after[key] != before[key]} == {("margin", 1)}
    assert [(rows[0]["strategy"], rows[0]["seed"]) for rows in seen][-1] == ("margin", 1)
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strategies": ["best"]}, ValueError, "strategy must be one of 'random', .* got 'best'"),
        ({"strategies": "random"}, TypeError, "strategies must be a list of strategies or a dict, got the string"),
        ({"strategies": ["margin", "margin"]}, ValueError, "strategies must have labels of their own"),
        ({"strategies": {"a": ("margin", {"bogus": 1})}}, ValueError, "margin has no option 'bogus'"),
        ({"task": "svm"}, ValueError, "task must be one of 'mlp', .* got 'svm'"),
        ({"encoder": "tsne"}, ValueError, "encoder must be one of 'pca', 'pixels', got 'tsne'"),
        ({"encoder": 3}, TypeError, "encoder must be a model, 'pca', 'pixels' or a pair of codes, got int"),
        ({"encoder": (torch.zeros(3, 2), torch.zeros(4, 2))}, ValueError, "codes of 250 and 100 images, got 3 and 4"),
        ({"initial": 0}, ValueError, "initial must be at least 1, got 0"),
        ({"step": 0}, ValueError, "step must be at least 1, got 0"),
        ({"rounds": -1}, ValueError, "rounds must be at least 0, got -1"),
        ({"rounds": 49}, ValueError, "the comparison buys 255 labels, more than the 250 images"),
        ({"random_rounds": 1}, ValueError, "random_rounds must be at least 2, got 1"),
        ({"start": "best"}, ValueError, "start must be one of 'random'"),
        ({"start": "margin"}, ValueError, "start must be one of 'random', .* got 'margin'"),
        ({"start": {"11": 2}}, ValueError, "class must be one of '0', .* got '11'"),
        ({"start": {"1": 2.5}}, TypeError, "images of class '1' must be a whole number, got 2.5"),
        (
            {"start": "reconstruction-error"},
            la.LalibError,
            r"reconstruction-error needs errors \(N,\), which no task gives: .* an autoencoder",
        ),
        ({"strategies": ["reconstruction-error"]}, la.LalibError, r"reconstruction-error needs errors \(N,\)"),
        ({"strategies": ["m2-vaal"]}, la.LalibError, "m2-vaal needs the task 'm2-vaal', whose model it asks, got"),
        ({"strategies": []}, ValueError, "strategies must be at least one, got none"),
        ({"stale": "use"}, ValueError, "stale must be one of 'warn', 'redo', 'refuse', got 'use'"),
        ({"seeds": [1, 1]}, ValueError, r"seeds must be distinct and at least one, got \[1, 1\]"),
        ({"seeds": []}, ValueError, r"seeds must be distinct and at least one, got \[\]"),
        ({"seeds": [-1]}, ValueError, "seed must be at least 0, got -1"),
        ({"seeds": 0}, ValueError, "seeds must be at least 1, got 0"),
        (
            {"strategies": {"a": NOWHERE}},
            ValueError,
            "the source of .* is not to be had",
        ),
    ],
)
def test_bad_options(options, error, message, digits, held_out, tmp_path):
    with pytest.raises(error, match=message):
        _compare(digits, held_out, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_nothing_is_encoded_for_a_comparison_that_cannot_be(digits, held_out, tmp_path):
    class Encoder:
        def encode(self, x):
            raise AssertionError

    for options in ({"rounds": 49}, {"step": 0}, {"start": "best"}, {"seeds": 0}, {"strategies": [NOWHERE]}):
        with pytest.raises(ValueError, match=r"must|buys|source"):
            _compare(digits, held_out, tmp_path, encoder=Encoder(), **options)


@pytest.mark.parametrize("strategy", la.strategies.SINGLE_LABEL)
def test_strategies_for_one_label_per_image(strategy, digits, held_out, tmp_path):
    one_hot = torch.eye(10, dtype=torch.int64)
    several = [dataclasses.replace(part, labels=one_hot[part.labels]) for part in (digits, held_out)]
    with pytest.raises(la.LalibError, match=f"{strategy} needs one label per image; these images may have several"):
        _compare(*several, tmp_path, strategies=["random", strategy])


def test_ta_vaal_for_one_label_per_image(digits, held_out, tmp_path):
    one_hot = torch.eye(10, dtype=torch.int64)
    several = [dataclasses.replace(part, labels=one_hot[part.labels]) for part in (digits, held_out)]
    with pytest.raises(la.LalibError, match="ta-vaal needs one label per image; these images may have several"):
        _compare(*several, tmp_path / "out", strategies=["ta-vaal"], task=Task(model="cnn", steps=1))
    assert not (tmp_path / "out").exists()


def test_a_strategy_does_not_record_what_the_comparison_measures(digits, held_out, tmp_path):
    with pytest.raises(la.LalibError, match="boastful must not record 'accuracy': the table has a column of that name"):
        _compare(digits, held_out, tmp_path, strategies=[boastful])


@pytest.mark.parametrize("model", [la.models.ConditionalVAE, la.models.VAAL])
def test_an_encoder_that_knows_labels_is_refused(model, digits, held_out, tmp_path):
    encoder = model(digits.image_shape, 10)
    with pytest.raises(la.LalibError, match=f"a {model.__name__} has learned from labels, which stay hidden here"):
        _compare(digits, held_out, tmp_path, encoder=encoder)


def test_labels_are_needed(digits, held_out, tmp_path):
    with pytest.raises(la.LalibError, match="a comparison needs labels of the images and"):
        _compare(dataclasses.replace(digits, labels=None), held_out, tmp_path)
