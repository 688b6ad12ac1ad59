"""Parameters of a notebook: wrong names and values stop at once, others than the shipped ones are announced."""

import re

import pytest

import lalib as la
from lalib.widgets import parameters

SHIPPED = {"dataset": "digits", "seed": 0, "device": "auto", "preset": "light", "epochs": 12}
SHIPPED |= {"beta": 1.0, "weights": [0.5, 1.0], "full": False, "out": "runs"}


@pytest.fixture
def shown(monkeypatch):
    """The banners that were displayed."""
    banners = []
    monkeypatch.setattr(parameters, "display", lambda markdown: banners.append(markdown.data))
    return banners


def check(parts=None, **changes):
    return la.widgets.check_parameters(SHIPPED | changes, parts=parts or {}, **SHIPPED)


def test_shipped_parameters_are_silent(shown):
    assert check()
    assert check(device="cpu")  # text and picture do not hang on it
    assert check(beta=1)
    assert shown == []


def test_a_banner_says_what_was_changed_and_which_parts_speak_of_it(shown):
    assert not check(parts={"epochs": "3 and 5", "out": ""}, epochs=1, seed=2, out="elsewhere")
    (banner,) = shown
    assert "> - `epochs = 1` in place of `12`: parts 3 and 5\n" in banner
    assert "> - `seed = 2` in place of `0`: all parts\n" in banner
    assert "elsewhere" not in banner
    assert check(parts={"out": ""}, out="elsewhere")


def test_a_name_that_papermill_was_given_and_nobody_uses_stops():
    In = ["", "epochs = 12", "# Parameters\nepoch = 3\n", "la.widgets.check_parameters(...)"]
    with pytest.raises(ValueError, match=r"parameter of this notebook must be one of .*'epoch'. Did you mean 'epochs'"):
        check(In=In)
    assert check(In=["", "epoch = 3", "# Parameters\nepochs = 12\n"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "digit"}, "dataset must be one of 'digits'"),
        ({"preset": "lite"}, "preset must be one of 'light'"),
        ({"device": "tpu"}, "device must be 'auto', 'cpu'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number, got 1.5"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"beta": "much"}, "beta must be a number, got 'much'"),
        ({"beta": -0.1}, "beta must be at least 0, got -0.1"),
        ({"weights": []}, "weights must hold at least one value, got none"),
        ({"weights": 1.0}, "weights must be list, got float"),
        ({"weights": [1.0, "a"]}, "each of weights must be a number, got 'a'"),
        ({"full": 1}, "full must be bool, got int"),
        ({"out": None}, "out must be str, got NoneType"),
    ],
)
def test_wrong_values_stop(changes, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        check(**changes)


def test_a_lost_parameter_stops():
    lost = {name: value for name, value in SHIPPED.items() if name != "epochs"}
    with pytest.raises(ValueError, match="missing: epochs"):
        la.widgets.check_parameters(lost, **SHIPPED)
