"""Checks of what a user passes in: every message says what, what is allowed and what came.

Wrong arguments raise ValueError or TypeError; a state that forbids the request raises LalibError.
"""

import difflib
import inspect
import numbers
import sys
from collections.abc import Callable, Iterable

import numpy as np
import torch

from lalib.data.door import plain

SHOWN = 5  # files, lines or names in a message


class LalibError(RuntimeError):
    """The request is well-formed, but what lalib was given so far does not allow it."""


def check_int(name: str, value: int, low: int | None = None, high: int | None = None) -> int:
    """`value` as an int in [low, high]; TypeError for anything but a whole number, ValueError outside the range."""
    return _number(int, "a whole number", name, value, low, high)


def check_number(name: str, value: float, low: float | None = None, high: float | None = None) -> float:
    """`value` as a finite float in [low, high]; TypeError for anything but a number, ValueError outside the range."""
    return _number(float, "a number", name, value, low, high)


def _number(kind, allowed, name, value, low, high):
    value = plain(value)
    wanted = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool | np.generic) or not isinstance(value, wanted):  # np: a span of time
        raise TypeError(f"{name} must be {allowed}, got {value!r}")
    if kind is float and not -sys.float_info.max <= value <= sys.float_info.max:
        raise ValueError(f"{name} must be finite, got {value!r:.60}")
    value = kind(value)
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, got {value}")
    return value


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """`value` if it is one of `choices`, else a ValueError that lists them and names the nearest."""
    choices, value = list(choices), plain(value)
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.{hint}")
    return value


def check_type(name: str, value, kinds):
    """`value` if it is of the class `kinds`, or of one of several that are joined by |; TypeError otherwise."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {getattr(kinds, '__name__', kinds)}, got {type(value).__name__}")
    return value


def keyword_defaults(function: Callable) -> dict:
    """The defaults of the keyword-only parameters of `function`, by name; those without one are left out."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def check_options(name: str, function: Callable, options: dict) -> None:
    """ValueError if `options` holds a key that is not a keyword-only parameter of `function`."""
    parameters = inspect.signature(function).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        check_known(name, options, [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "generator"])


def check_known(name: str, options: Iterable[str], known: Iterable[str]) -> None:
    """ValueError if one of the `options` is not among the `known` ones; `name` says whose options they are."""
    if unknown := [key for key in options if key not in known]:
        allowed = ", ".join(map(repr, known)) or "none"
        raise ValueError(f"{name} has no option {unknown[0]!r}; its options are: {allowed}")


def resolve_device(device: str | torch.device) -> torch.device:
    """ "auto" is the first CUDA device if there is one, else the CPU; anything else must be available here."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not here: {torch.cuda.device_count()} CUDA devices were found")
    return resolved


def listed(items: Iterable) -> str:
    """The first five of what a message names, and how many more there are."""
    items = list(map(str, items))
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
