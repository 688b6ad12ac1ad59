"""What figures take: the same numbers in every form give the same figure, and wrong things a message of lalib's own."""

import base64
import functools
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lalib as la
from lalib.codes.coding import LatentGrid
from lalib.experiments import results
from lalib.training.fitting import History

N = 20
FLOATS = torch.linspace(0.25, 5, N)  # quarters: exact in half precision
CODES = torch.stack([FLOATS, FLOATS.flip(0)], 1)
WHOLE = torch.arange(N) % 4
IMAGES = la.from_arrays(
    torch.arange(N * 64, dtype=torch.int64).reshape(N, 1, 8, 8).to(torch.uint8), WHOLE, list("abcd")
)


def filtered(values):
    """A pandas object whose index neither begins at 0 nor has all numbers."""
    doubled = np.repeat(np.asarray(values), 2, axis=0)
    made = pd.Series(doubled) if doubled.ndim == 1 else pd.DataFrame(doubled)
    return made[np.arange(len(doubled)) % 2 == 1]


def strided(values):
    return np.repeat(np.asarray(values), 2, axis=0)[::2]


FORMS = {
    "a list": lambda values: values.tolist(),
    "numpy": lambda values: values.numpy(),
    "another byte order": lambda values: values.numpy().astype(values.numpy().dtype.newbyteorder(">")),
    "strides": strided,
    "backwards": lambda values: values.numpy()[::-1].copy()[::-1],
    "pandas, filtered": filtered,
    "another width": lambda values: values.double().half() if values.is_floating_point() else values.to(torch.int16),
    "not contiguous": lambda values: values.repeat_interleave(2, dim=0)[::2],
    "with a gradient": lambda values: values.clone().requires_grad_() if values.is_floating_point() else values,
}
CALLS = {
    "class_histogram": lambda f: la.figures.class_histogram(f(WHOLE), f(WHOLE[:3])),
    "clusters": lambda f: la.figures.clusters(f(CODES), f(WHOLE)),
    "confusion": lambda f: la.figures.confusion(f(WHOLE), f(WHOLE), np.array(list("abcd"))),
    "confusion_matrix": lambda f: la.figures.confusion_matrix(f(torch.eye(4).long()), pd.Index(list("abcd"))),
    "difficulty": lambda f: la.figures.difficulty(f(CODES), f(FLOATS)),
    "latent_map": lambda f: la.figures.latent_map(f(CODES), f(WHOLE), selected=f(WHOLE[:3])),
    "latent_map by value": lambda f: la.figures.latent_map(f(CODES), color=f(FLOATS)),
    "latent_maps": lambda f: la.figures.latent_maps({"a": f(CODES)}, f(WHOLE), selected={"a": f(WHOLE[:3])}),
    "picks": lambda f: la.figures.picks(f(CODES), labeled=f(WHOLE[:2]), picked=f(WHOLE[2:4])),
    "relation": lambda f: la.figures.relation(f(FLOATS), f(CODES[:, 1]), x_title="a", y_title="b"),
    "thumbnails": lambda f: la.figures.thumbnails(IMAGES, f(WHOLE[:3])),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", CALLS)
def test_the_same_numbers_in_every_form_give_the_same_figure(call, form):
    if call == "confusion_matrix" and form == "pandas, filtered":
        form = "strides"  # a frame would give its columns' names
    assert plain_of(CALLS[call](FORMS[form]).to_plotly_json()) == plain_figure(call)


@functools.cache
def plain_figure(call):
    plain = CALLS[call](lambda values: values)
    assert len(plain.data)
    return plain_of(plain.to_plotly_json())


def plain_of(part):
    """A part of a figure with lists for arrays, whatever their type: FLOATS are exact in all of them."""
    if isinstance(part, dict) and "bdata" in part:
        return np.frombuffer(base64.b64decode(part["bdata"]), part["dtype"]).tolist()
    if isinstance(part, dict):
        return {key: plain_of(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [plain_of(value) for value in part]
    return part.tolist() if isinstance(part, np.ndarray | np.generic) else part


def test_numbers_may_be_numpy_scalars():
    one = la.figures.thumbnails(IMAGES, columns=np.int64(5), limit=torch.tensor(7))
    assert one.to_json() == la.figures.thumbnails(IMAGES, columns=5, limit=7).to_json()


def table():
    rows = [
        {
            "strategy": s,
            "seed": seed,
            "round": i,
            "labels": n,
            "accuracy": 0.5 + 0.1 * i + 0.01 * seed,
            "counts": [5, 5],
        }
        for s in ("random", "margin")
        for seed in range(3)
        for i, n in enumerate((10, 20, 30))
    ]
    return pd.DataFrame(rows)


def grid():
    points = torch.cartesian_prod(torch.arange(2.0), torch.arange(2.0))
    return LatentGrid(torch.rand(4, 1, 8, 8), points, torch.arange(2.0), torch.arange(2.0))


GOOD = {
    "class_histogram": {"images": IMAGES, "index": [1, 2]},
    "class_counts": {"table": table(), "class_names": ["a", "b"], "strategies": ["random"], "columns": 1},
    "clusters": {"codes": CODES, "assignment": WHOLE},
    "comparison": {
        "frame": pd.DataFrame({"strategy": ["a"], "difference": [0.1], "low": [0.0], "high": [0.2]}),
        "facets": (),
        "scale": 1,
    },
    "confusion": {"labels": WHOLE, "predicted": WHOLE, "class_names": list("abcd")},
    "confusion_matrix": {"counts": torch.eye(2), "class_names": ["a", "b"]},
    "critical_difference": {"result": results.CriticalDifference(("a", "b"), (1.0, 2.0), 0.5, (), 0.01, 0.05, 9)},
    "difficulty": {"codes": CODES, "values": FLOATS},
    "history": {"history": History([{"epoch": 1, "loss": 2.0}])},
    "label_saving": {"frame": results.label_saving(table())},
    "latent_grid": {"grid": grid()},
    "latent_map": {"codes": CODES, "images": IMAGES, "color": FLOATS, "selected": [1]},
    "latent_maps": {"codes": {"a": CODES}, "images": IMAGES, "selected": {"a": [1]}, "columns": 1},
    "learning_curves": {"table": table(), "value": "accuracy", "strategies": ["random"], "confidence": 0.9},
    "penalty_matrix": {"frame": results.penalty_matrix(table())},
    "picks": {"view": CODES, "labeled": [0], "picked": [1], "unlabeled": [2]},
    "reconstructions": {"images": IMAGES, "reconstructed": torch.rand(N, 1, 8, 8), "n": 2},
    "relation": {"x": FLOATS, "y": FLOATS, "x_title": "a", "y_title": "b"},
    "thumbnails": {"images": IMAGES, "index": [1], "columns": 2, "limit": 3},
    "traversal": {"images": torch.rand(2, 3, 1, 8, 8), "low": 0, "high": 1, "fixed": 0},
    "update_learning_curves": {"fig": la.figures.learning_curves(table()), "table": table(), "strategies": ["random"]},
}
WRONG = (
    *(None, "text", 5, 1.5, True, b"x", object(), {"a": 1}, {1, 2}, [], [[1], [1, 2]], [2**70]),
    *(torch.zeros(N, dtype=torch.complex64), torch.full((N,), torch.nan), torch.full((N,), -1), torch.zeros(2, 2, 2)),
    *(np.array(["a"] * N), np.array([2**63], dtype=np.uint64), np.full((N, 2), np.inf), np.array([object()] * N)),
    *(pd.Series(["a"] * N), pd.DataFrame({"a": ["x"]}), pd.Series(pd.date_range("2020", periods=N))),
)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::scipy.stats.ConstantInputWarning")
@pytest.mark.parametrize("name", GOOD)
def test_wrong_things_are_refused_by_lalib_and_nobody_else(name):
    make, good = getattr(la.figures, name), GOOD[name]
    make(**good)
    for argument in good:
        for wrong in WRONG:
            try:
                make(**good | {argument: wrong})
            except (TypeError, ValueError) as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                said = f"{name}({argument}={wrong!r}): {error}"
                assert Path(la.__file__).parent in Path(last.filename).parents, said
                assert "raise" in last.line or last.line.startswith(('f"', ")")), said


def test_every_figure_is_attacked():
    assert set(GOOD) == set(la.figures.__all__)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: la.figures.label_saving(saving(bound="some")), ValueError, "bound must be one of .* got 'some'"),
        (
            lambda: la.figures.label_saving(saving(saving=np.nan, low=np.nan, high=np.nan)),
            ValueError,
            "above 0, got none",
        ),
        (lambda: la.figures.label_saving(saving(low="x")), TypeError, "low must hold numbers, got"),
        (lambda: la.figures.history(pd.DataFrame({"epoch": [1], "loss": ["x"]})), TypeError, "loss must hold numbers"),
        (
            lambda: la.figures.penalty_matrix(results.penalty_matrix(table()).astype(str)),
            TypeError,
            "must hold numbers",
        ),
        (lambda: la.figures.class_histogram([0, -1], [0]), ValueError, "labels must lie in 0 to 0, got -1 to 0"),
        (lambda: la.figures.confusion([0, -1], [0, 1]), ValueError, "labels must lie in 0 to 1, got -1 to 0"),
        (lambda: la.figures.confusion_matrix([[1, -1], [0, 1]]), ValueError, "counts must be numbers of images"),
        (lambda: la.figures.latent_maps({"a": CODES}, selected={"b": [0]}), ValueError, "selected must be one of 'a'"),
        (lambda: la.figures.learning_curves(table(), strategies=[]), ValueError, "at least one name, got none"),
    ],
)
def test_what_a_table_or_labels_must_hold(call, error, message):
    with pytest.raises(error, match=message):
        call()


def saving(**changed):
    return results.label_saving(table()).assign(**changed)


def test_batches_of_two_classes_in_one_row_of_panels():
    assert len(la.figures.class_counts(table(), np.array(["a", "b"]), columns=1, strategies=["random"]).data) == 1
