"""Options of every strategy: numpy's scalars are numbers, assignments are arrays of any kind, the rest is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from lalib.data.checks import LalibError, keyword_defaults
from lalib.data.seeds import generator
from lalib.strategies.registry import STRATEGIES, select

pytestmark = pytest.mark.filterwarnings("error")

SIZE = 60
Y = torch.arange(SIZE) % 3
LABELED = torch.arange(0, SIZE, 7)
VALUES = {  # something that each option takes
    **{"threshold": 1.0, "delta": 0.7, "bandwidth": 0.8, "alpha": 0.5, "representativeness": 0.5, "diversity": 0.5},
    **{"clusters": 4, "iterations": 5, "max_clusters": 6, "min_size": 2, "neighbours": 4, "candidates": 20},
    **{"configurations": 50, "evaluations": 30, "reference": 30, "per_pick": 2, "per_class": 3, "targets": 20},
}
CHOICES = ("measure", "space", "representative_by", "match", "metric", "bounds", "prior", "allocate")
CASES = [(name, option) for name, strategy in STRATEGIES.items() for option in keyword_defaults(strategy.function)]


def ask(name, **options):
    def draw(*shape):
        return torch.randn(*shape, generator=generator(len(shape), "sources"))

    sources = {"probs": draw(SIZE, 3).softmax(1), "mc_probs": draw(4, SIZE, 3).softmax(2), "features": draw(SIZE, 5)}
    sources |= {"dropped_probs": draw(3, SIZE, 3).softmax(2)}
    sources |= {"latents": draw(SIZE, 4), "errors": draw(SIZE), "predicted_losses": draw(SIZE)}
    sources |= {"predicted_losses_with_codes": draw(SIZE)}
    codes = torch.randn(SIZE, 3, generator=generator(0, "codes"))
    return select(name, codes, 5, labeled=LABELED, labels=Y[LABELED], **sources, **options)


@pytest.mark.parametrize(("name", "option"), [case for case in CASES if case[1] in VALUES])
def test_numbers_of_every_kind(name, option):
    value = VALUES[option]
    expected = ask(name, **{option: value})
    kinds = [np.array, torch.tensor, np.int64 if isinstance(value, int) else np.float64]
    for kind in kinds:
        given = (
            kind(value, dtype=torch.float64 if isinstance(value, float) else None)
            if kind is torch.tensor
            else kind(value)
        )
        assert torch.equal(ask(name, **{option: given}), expected)
    for wrong in ("x", np.nan, -1, True, [1, 2], {}, 1j):
        with pytest.raises((ValueError, TypeError), match=f"{option} must"):
            ask(name, **{option: wrong})


@pytest.mark.parametrize(("name", "option"), [case for case in CASES if case[1] in CHOICES])
def test_choices_are_listed(name, option):
    for wrong in (None, 3, ["codes"], torch.tensor(1), "zzz"):
        with pytest.raises(ValueError, match=f"{option} must be one of '"):
            ask(name, **{option: wrong})


def test_every_option_is_looked_at():
    assert {option for _, option in CASES} <= {*VALUES, *CHOICES}


@pytest.mark.parametrize("name", [name for name, option in CASES if option == "clusters"])
def test_assignments_of_every_kind(name):
    expected = ask(name, clusters=Y)
    kinds = [
        Y.numpy().astype(">i8"),
        Y.numpy().astype("u8"),
        pd.Series(np.concatenate([Y, Y]))[SIZE:],  # filtered: its labels begin at 60
        pd.Series(Y.numpy(), dtype="Int64"),
        Y.tolist(),
        Y.to(torch.int8),
        (Y.numpy() - 5)[::-1].copy()[::-1],
    ]
    for given in kinds:
        assert torch.equal(ask(name, clusters=given), expected)


@pytest.mark.parametrize("name", ["least-confidence", "margin", "entropy"])
def test_an_unknown_option_is_refused(name):
    with pytest.raises(
        ValueError, match="has no option 'neighbors'; its options are: 'representativeness', 'diversity'"
    ):
        ask(name, neighbors=3)


def test_strategies_that_lack_something_say_so():
    with pytest.raises(LalibError, match="this strategy needs"):
        select("vaal", torch.zeros(3, 1), 1)


def test_options_that_are_handed_on_are_shown_and_others_refused():
    matching = {"match": "nearest", "threshold": None, "metric": "euclidean"}
    sharing = {"clusters": None, "allocate": "proportional"}
    assert keyword_defaults(STRATEGIES["uniform-spatial"].function) == {"bounds": "box"} | matching
    assert keyword_defaults(STRATEGIES["cluster"].function) == sharing
    assert keyword_defaults(STRATEGIES["normal-in-clusters"]) == sharing | matching
    with pytest.raises(ValueError, match="cluster has no option 'match'; its options are: 'clusters', 'allocate'"):
        ask("cluster", match="all")
