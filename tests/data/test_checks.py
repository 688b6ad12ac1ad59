"""Checks: what passes, what is refused, and that the message says what, what is allowed and what came."""

import numpy as np
import pytest
import torch

from lalib.data.checks import LalibError, check_choice, check_int, check_number, check_options, resolve_device
from lalib.data.door import check_codes, check_labels


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_check_int_takes_whole_numbers(value):
    assert check_int("n", value, low=3, high=3) == 3
    assert type(check_int("n", value)) is int


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1.0, TypeError, "n must be a whole number, got 1.0"),
        (True, TypeError, "n must be a whole number, got True"),
        ("1", TypeError, "n must be a whole number, got '1'"),
        (0, ValueError, "n must be at least 1, got 0"),
        (6, ValueError, "n must be at most 5, got 6"),
    ],
)
def test_check_int_refuses(value, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        check_int("n", value, low=1, high=5)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2)])
def test_check_number_takes_numbers(value):
    assert type(check_number("t", value, low=2, high=2)) is float


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (float("nan"), ValueError, "t must be finite, got nan"),
        (float("-inf"), ValueError, "t must be finite, got -inf"),
        (False, TypeError, "t must be a number, got False"),
        ([1], TypeError, r"t must be a number, got \[1\]"),
        (-0.1, ValueError, "t must be at least 0, got -0.1"),
        (1.1, ValueError, "t must be at most 1, got 1.1"),
    ],
)
def test_check_number_refuses(value, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        check_number("t", value, low=0, high=1)


def test_check_choice_names_the_choices_and_the_nearest():
    assert check_choice("preset", "light", {"light": 1, "report": 2}) == "light"
    with pytest.raises(
        ValueError, match=r"^preset must be one of 'light', 'report', got 'lite'\. Did you mean 'light'"
    ):
        check_choice("preset", "lite", ["light", "report"])
    with pytest.raises(ValueError, match=r"got None\.$"):
        check_choice("preset", None, ["light"])


def test_check_options_allows_keywords_but_not_the_generator():
    def strategy(view, n, *, generator, threshold=None, match="nearest"):
        """A strategy's signature."""

    check_options("mine", strategy, {"threshold": 1, "match": "all"})
    for key in ("thresh", "n", "view", "generator"):
        with pytest.raises(ValueError, match=f"mine has no option '{key}'; its options are: 'threshold', 'match'"):
            check_options("mine", strategy, {key: 1})
    with pytest.raises(ValueError, match="its options are: none"):
        check_options("bare", lambda view, n, *, generator: None, {"t": 1})
    check_options("open", lambda view, **options: None, {"anything": 1})


def test_check_codes_keeps_what_is_right():
    codes = torch.rand(4, 2)
    assert check_codes(codes).data_ptr() == codes.data_ptr()
    assert check_codes(codes.half()).dtype == torch.float32
    assert check_codes([[1, 2]]).tolist() == [[1.0, 2.0]]
    assert check_codes(np.zeros((1, 3))).dtype == torch.float64


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (torch.rand(3), ValueError, r"z must have shape \(N, L\) with N, L >= 1, got \(3,\)"),
        (torch.rand(0, 2), ValueError, r"got \(0, 2\)"),
        (torch.rand(2, 0), ValueError, r"got \(2, 0\)"),
        (
            torch.tensor([[0.0, float("nan")], [1, 1], [float("inf"), 0]]),
            ValueError,
            "2 of 3 rows hold NaN or infinity",
        ),
    ],
)
def test_check_codes_refuses(codes, error, message):
    with pytest.raises(error, match=message):
        check_codes(codes, "z")


def test_check_labels_keeps_what_is_right():
    assert check_labels(np.array([0, 2]), 2, 3).tolist() == [0, 2]
    assert check_labels([-1, 5]).tolist() == [-1, 5]


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (None, TypeError, "y must be an array, .* got None"),
        (torch.rand(3), TypeError, "y must be whole numbers, got torch.float32"),
        (torch.ones(3, dtype=torch.bool), TypeError, "y must be whole numbers, got torch.bool"),
        (torch.zeros(2, dtype=torch.int64), ValueError, r"y must have shape \(3,\), one per point, got \(2,\)"),
        (torch.zeros(3, 4, dtype=torch.int64), ValueError, r"got \(3, 4\)"),
        (torch.tensor([0, 4, 1]), ValueError, "y must lie in 0 to 3, got 0 to 4"),
        (torch.tensor([0, -1, 1]), ValueError, "y must lie in 0 to 3, got -1 to 1"),
    ],
)
def test_check_labels_refuses(labels, error, message):
    with pytest.raises(error, match=message):
        check_labels(labels, 3, 4, name="y")


def test_resolve_device():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto").type == expected
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:-1", None, ""])
def test_unknown_device(device):
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got"):
        resolve_device(device)


def test_absent_device():
    with pytest.raises(ValueError, match=r"device 'cuda:99' is not here: \d+ CUDA devices were found"):
        resolve_device("cuda:99")


def test_lalib_error_is_a_runtime_error():
    assert issubclass(LalibError, RuntimeError)
