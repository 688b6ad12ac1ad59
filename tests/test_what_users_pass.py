"""Every public function takes what users have, and refuses the rest in words of lalib's own.

Three tables: functions of codes, of labels and of indices, each called with every kind of array, and functions of
numbers. A thing that is legal gives what the float32 tensor gives; a thing that is not raises ValueError, TypeError or
LalibError in lalib's code, never in that of torch, numpy, pandas or json.
"""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lalib as la

LALIB = Path(la.__file__).parent
N = 60


def _filtered(table):
    """A table of twice as many rows of which every second was kept: its index is 1, 3, 5, ..."""
    twice = pd.concat([table, table]).sort_index(kind="stable").reset_index(drop=True)
    return twice[twice.index % 2 == 1]


class Lazy:
    """An array of somebody else's library: it can only be converted."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


ARRAYS = {  # what a numpy array may come as
    "numpy": lambda a: a,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "read-only": _read_only,
    "backwards": lambda a: a[::-1].copy()[::-1],
    "every second": lambda a: np.repeat(a, 2, axis=0)[::2],
    "another library": Lazy,
    "list": lambda a: a.tolist(),
    "torch": lambda a: torch.from_numpy(a.copy()),
}
FLOATS = ARRAYS | {
    "float64": lambda a: a.astype(np.float64),
    "longdouble": lambda a: a.astype(np.longdouble),
    "columns first": np.asfortranarray,
    "table": pd.DataFrame,
    "filtered table": lambda a: _filtered(pd.DataFrame(a)),
    "rows": lambda a: list(map(tuple, a.tolist())),
    "torch float64": lambda a: torch.from_numpy(a.copy()).double(),
    "with a gradient": lambda a: torch.from_numpy(a.copy()).requires_grad_(),
    "transposed": lambda a: torch.from_numpy(a.T.copy()).T,
}
INTEGERS = ARRAYS | {
    "int8": lambda a: a.astype(np.int8),
    "uint16": lambda a: a.astype(np.uint16),
    "uint64": lambda a: a.astype(np.uint64),
    "torch int32": lambda a: torch.from_numpy(a.copy()).int(),
    "column": pd.Series,
    "filtered column": lambda a: _filtered(pd.Series(a)),
    "nullable column": lambda a: pd.Series(a, dtype="Int64"),
    "index of a table": pd.Index,
    "tuple": lambda a: tuple(a.tolist()),
    "numpy's numbers": list,
}
NO_ARRAY = (
    *("some text", 3, {"a": 1}, {1, 2}, object(), ["a"] * N),
    [[1.0, 2.0], [3.0]] * (N // 2),  # rows of several lengths
    np.array(["2020-01-01"] * N, dtype="datetime64[D]"),
    np.ones((N, 2), dtype=complex),
    pd.Series([1, None] * (N // 2), dtype="Int64"),
    torch.zeros(N, 1, 1, 2),
)


@pytest.fixture(scope="module")
def given():
    """Small everything: codes, labels, images, models."""
    images = la.load("digits").subset(range(N))
    draw = torch.Generator().manual_seed(0)
    codes = torch.randn(N, 2, generator=draw).numpy()
    mlp = la.MLPClassifier(2, 10, seed=0)
    return {
        "images": images,
        "codes": codes,
        "more codes": np.concatenate([codes, codes + 1]),
        "labels": images.labels.numpy(),
        "index": np.array([5, 3, 20, 59]),
        "mlp": mlp,
        "vae": la.VAE(images.image_shape, 2, seed=0).eval(),
        "probs": torch.softmax(torch.randn(N, 3, generator=draw), 1),
    }


def _weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _fitted(codes, labels):
    model = la.MLPClassifier(2, 10, seed=0)
    la.fit(model, (codes, labels), epochs=1, device="cpu", progress=False)
    return _weights(model)


def _m1m2(codes, labels):
    model = la.models.M1M2(2, 10, seed=0)
    la.fit(model, (codes, labels), epochs=1, device="cpu", progress=False)
    return _weights(model)


def _first_round(codes, images, labels):
    data = la.experiments.TaskData(codes, images, la.Task(steps=2))
    rounds = la.experiments.active_learning(
        la.experiments.Pool(labels), data, "margin", initial=range(10), step=2, rounds=1, device="cpu"
    )
    return torch.cat([state.bought for state in rounds])


OF_CODES = {
    "select core-set": lambda z, g: la.select("core-set", z, 5, space="codes"),
    "select typiclust": lambda z, g: la.select("typiclust", z, 5, min_size=1),
    "select normal-in-clusters": lambda z, g: la.select("normal-in-clusters", z, 5),
    "select features": lambda z, g: la.select("core-set", g["codes"], 5, features=z),
    "project": lambda z, g: la.project(z, "pca"),
    "one_nn_error": lambda z, g: la.one_nn_error(z, g["labels"]),
    "one_nn_error of others": lambda z, g: la.one_nn_error(g["codes"], g["labels"], z, g["labels"]),
    "trustworthiness": lambda z, g: la.codes.trustworthiness(g["images"], z),
    "knn": lambda z, g: la.codes.knn(z, 3)[0],
    "knn of queries": lambda z, g: la.codes.knn(g["codes"], 3, z)[0],
    "kmeans": lambda z, g: la.codes.kmeans(z, 3, torch.Generator().manual_seed(0))[1],
    "ward": lambda z, g: la.codes.ward(z, 3),
    "median_nn_distance": lambda z, g: la.codes.median_nn_distance(z),
    "spread_labels": lambda z, g: la.codes.spread_labels(z, g["labels"], 10, neighbours=5),
    "decode": lambda z, g: la.decode(g["vae"], z),
    "latent_grid": lambda z, g: la.codes.latent_grid(g["vae"], z, size=3).codes,
    "predict_proba": lambda z, g: la.predict_proba(g["mlp"], z),
    "accuracy": lambda z, g: la.accuracy(g["mlp"], z, g["labels"]),
    "fit": lambda z, g: _fitted(z, g["labels"]),
    "fit m1m2": lambda z, g: _m1m2(z, g["labels"]),
    "active_learning": lambda z, g: _first_round(z, g["images"], g["labels"]),
    "latent_map": lambda z, g: np.stack([np.concatenate([t[a] for t in la.figures.latent_map(z).data]) for a in "xy"]),
    "picks": lambda z, g: len(la.figures.picks(z, labeled=[0], picked=[1]).data),
}
OF_LABELS = {
    "from_arrays": lambda y, g: la.from_arrays(g["images"].images, y).labels,
    "class_balance": lambda y, g: la.codes.class_balance(y, 10),
    "one_nn_error": lambda y, g: la.one_nn_error(g["codes"], y),
    "spread_labels": lambda y, g: la.codes.spread_labels(g["codes"], y, 10, neighbours=5),
    "accuracy": lambda y, g: la.accuracy(g["mlp"], g["codes"], y),
    "fit": lambda y, g: _fitted(g["codes"], y),
    "fit m1m2": lambda y, g: _m1m2(g["codes"], y),
    "partly_labelled": lambda y, g: la.models.partly_labelled(N, range(N), y),
    "select": lambda y, g: la.select("norm-added", g["more codes"], 2, labeled=range(N), labels=y, space="codes"),
    "Pool": lambda y, g: la.experiments.Pool(y).buy([3, 1]),
    "cold_start": lambda y, g: la.experiments.cold_start(
        {"3": 1}, la.experiments.TaskData(g["codes"], g["images"], la.Task()), seed=0, labels=y
    ),
    "active_learning": lambda y, g: _first_round(g["codes"], g["images"], y),
    "latent_map": lambda y, g: len(la.figures.latent_map(g["codes"], y).data),
    "class_histogram": lambda y, g: len(la.figures.class_histogram(y, [1, 2]).data),
    "confusion": lambda y, g: la.figures.confusion(y, g["labels"]).data[0].z,
}
OF_INDICES = {
    "subset": lambda i, g: g["images"].subset(i).images,
    "select": lambda i, g: la.select("random", g["codes"], 5, labeled=i),
    "partly_labelled": lambda i, g: la.models.partly_labelled(N, i, [1, 2, 3, 4]),
    "Pool.buy": lambda i, g: la.experiments.Pool(g["labels"]).buy(i),
    "latent_map": lambda i, g: len(la.figures.latent_map(g["codes"], selected=i).data),
    "thumbnails": lambda i, g: len(la.figures.thumbnails(g["images"], i).data),
    "class_histogram": lambda i, g: la.figures.class_histogram(g["images"], i).data[0].y,
    "picks": lambda i, g: len(la.figures.picks(g["codes"], labeled=i, picked=[0]).data),
}
OF_NUMBERS = {
    "select n": lambda k, g: la.select("random", g["codes"], k(5)),
    "select seed": lambda k, g: la.select("random", g["codes"], 5, seed=k(1)),
    "select option": lambda k, g: la.select("typiclust", g["codes"], 5, min_size=k(1)),
    "knn": lambda k, g: la.codes.knn(g["codes"], k(3))[0],
    "kmeans": lambda k, g: la.codes.kmeans(g["codes"], k(3), torch.Generator().manual_seed(0))[1],
    "ward": lambda k, g: la.codes.ward(g["codes"], k(3)),
    "project": lambda k, g: la.project(g["codes"], "pca", dims=k(2), seed=k(0)),
    "latent_grid": lambda k, g: la.codes.latent_grid(g["vae"], size=k(3)).codes,
    "class_balance": lambda k, g: la.codes.class_balance(g["labels"], k(10)),
    "spread_labels": lambda k, g: la.codes.spread_labels(g["codes"], g["labels"], k(10), neighbours=k(5)),
    "model": lambda k, g: _weights(la.VAE(g["images"].image_shape, k(2), seed=k(0))),
    "partly_labelled": lambda k, g: la.models.partly_labelled(k(4), [0], [1]),
    "stratified_split": lambda k, g: la.stratified_split(g["images"], 0.5, seed=k(1))[0].images,
    "unbalance": lambda k, g: la.unbalance(g["images"], k(2), seed=k(1), classes=[k(1)]).images,
    "thumbnails": lambda k, g: len(la.figures.thumbnails(g["images"], columns=k(3)).data),
    "task": lambda k, g: vars(la.Task(steps=k(3), batch_size=k(4), learning_rate=k(1), options={"hidden": (k(8),)})),
}
TABLES = {"codes": OF_CODES, "labels": OF_LABELS, "indices": OF_INDICES}
WHOLE = {
    "int64": np.int64,
    "uint8": np.uint8,
    "int32 array": lambda n: np.array(n, dtype=np.int32),
    "tensor": torch.tensor,
}


def _same(found, expected):
    if isinstance(expected, (torch.Tensor, np.ndarray, float, tuple, list)):
        return np.allclose(np.asarray(found, dtype=float), np.asarray(expected, dtype=float), rtol=1e-5, atol=1e-6)
    return found == expected


def _refused_in_our_words(function, wrong, *given):
    """The error that it raises must be ours: of a known type, raised by a line of lalib's."""
    with pytest.raises((TypeError, ValueError, la.LalibError)) as caught:
        pytest.fail(f"{wrong!r} was taken and gave {function(wrong, *given)!r}")
    assert LALIB in Path(caught.traceback[-1].path).parents, f"raw error for {wrong!r}: {caught.value!r}"


@pytest.fixture(scope="module")
def expected(given):
    """What a function gives for plain tensors and numbers, computed once."""

    @functools.cache
    def compute(name, function, argument):
        return function(torch.from_numpy(given[argument]) if argument else int, given)

    return lambda table, name, argument=None: compute(name, table[name], argument)


@pytest.mark.parametrize("function", OF_CODES)
def test_codes(function, given, expected):
    for kind, as_kind in FLOATS.items():
        found = OF_CODES[function](as_kind(given["codes"]), given)
        assert _same(found, expected(OF_CODES, function, "codes")), kind


@pytest.mark.parametrize("function", OF_CODES)
def test_half_precision_codes(function, given):
    for kind in (torch.float16, torch.bfloat16):
        half = torch.from_numpy(given["codes"]).to(kind)
        assert _same(OF_CODES[function](half, given), OF_CODES[function](half.float(), given))


@pytest.mark.parametrize("function", OF_LABELS)
def test_labels(function, given, expected):
    for kind, as_kind in INTEGERS.items():
        found = OF_LABELS[function](as_kind(given["labels"]), given)
        assert _same(found, expected(OF_LABELS, function, "labels")), kind


@pytest.mark.parametrize("function", OF_INDICES)
def test_indices(function, given, expected):
    for kind, as_kind in INTEGERS.items():
        found = OF_INDICES[function](as_kind(given["index"]), given)
        assert _same(found, expected(OF_INDICES, function, "index")), kind


@pytest.mark.parametrize("function", OF_NUMBERS)
def test_numbers(function, given, expected):
    for kind, as_kind in WHOLE.items():
        assert _same(OF_NUMBERS[function](as_kind, given), expected(OF_NUMBERS, function)), kind


@pytest.mark.parametrize(("table", "function"), [(table, name) for table in TABLES for name in TABLES[table]])
def test_what_is_no_array(table, function, given):
    for wrong in NO_ARRAY:
        _refused_in_our_words(TABLES[table][function], wrong, given)


@pytest.mark.parametrize("function", OF_CODES)
def test_codes_that_are_not_finite(function, given):
    for bad in (float("nan"), float("inf")):
        codes = given["codes"].copy()
        codes[7, 1] = bad
        _refused_in_our_words(OF_CODES[function], codes, given)


@pytest.mark.parametrize("function", sorted(OF_NUMBERS.keys() - {"task"}))
def test_what_is_no_whole_number(function, given):
    for bad in ("3", 2.5, None, [2], np.array([1, 2]), True):
        if not (function == "unbalance" and isinstance(bad, float)):
            _refused_in_our_words(OF_NUMBERS[function], lambda n, bad=bad: bad, given)


def test_a_comparison_takes_numpy_and_pandas(tmp_path):
    """Numbers reach the run files as numbers, whatever library they came from."""
    images, test = la.load("digits").subset(range(100)), la.load("digits", split="test").subset(range(50))
    codes, held_out = (part.images.flatten(1).double().numpy() for part in (images, test))
    settings = {"strategies": ["random", ("margin")], "out": tmp_path, "progress": False, "device": "cpu"}
    plain = la.compare(
        images,
        test,
        encoder=(codes, held_out),
        initial=10,
        step=5,
        rounds=1,
        seeds=[3],
        task=la.Task(steps=2),
        **settings,
    )
    files = sorted(path.name for path in tmp_path.iterdir())
    again = la.compare(
        images,
        test,
        encoder=(pd.DataFrame(codes), torch.from_numpy(held_out)),
        initial=np.int64(10),
        step=np.array(5),
        rounds=torch.tensor(1),
        seeds=np.array([3]),
        task=la.Task(steps=np.int32(2)),
        **settings,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    pd.testing.assert_frame_equal(plain, again)


def test_class_names_meet_by_name():
    """A test set that lacks a class, or has them in another order, is the same question."""
    images = la.load("digits").subset(range(400))
    model = la.CNNClassifier(images.image_shape, 10, seed=0)
    la.fit(model, images, epochs=5, device="cpu", progress=False)
    keep = (images.labels != 4).nonzero()[:, 0]
    some = images.subset(keep)
    names = tuple(name for name in images.class_names if name != "4")[::-1]
    labels = torch.tensor([names.index(images.class_names[y]) for y in some.labels.tolist()])
    other = la.from_arrays(some.images, labels, np.array(names))
    assert la.accuracy(model, other) == la.accuracy(model, some) > 0.5


@pytest.mark.parametrize("names", [np.array(["a", "b"]), pd.Index(["a", "b"]), ("a", "b"), pd.Series(["a", "b"])])
def test_class_names_come_as_they_like(names):
    assert la.from_arrays(np.zeros((2, 8, 8), np.uint8), [0, 1], names).class_names == ("a", "b")
