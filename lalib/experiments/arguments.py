"""What the comparisons are given, checked once for all of them; and what tells their runs apart."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch

from lalib.data.checks import LalibError, check_int
from lalib.data.door import plain, renumbered
from lalib.data.files import digest
from lalib.data.imageset import ImageSet
from lalib.strategies.peers import OVERWRITTEN, Peer, peer_label
from lalib.strategies.registry import STRATEGIES, as_strategy
from lalib.strategies.view import Strategy


def matched(images: ImageSet, test: ImageSet) -> ImageSet:
    """The test images with labels in the classes of `images`, matched by name.

    LalibError unless both have labels; ValueError for images of another size and for a class that `images` has not.
    """
    for given in (images, test):
        if not isinstance(given, ImageSet):
            raise TypeError(f"a comparison is of two ImageSets, got {type(given).__name__}: la.from_arrays makes one")
    if images.labels is None or test.labels is None:
        raise LalibError("a comparison needs labels of the images and of the test images")
    for what in ("image_shape", "multi_label"):
        ours, theirs = getattr(images, what), getattr(test, what)
        if ours != theirs:
            raise ValueError(f"{what} of the test images must be that of the images, {ours}, got {theirs}")
    labels = renumbered(test.labels, test.class_names, images.class_names)
    return replace(test, labels=labels, class_names=images.class_names)


def several(name: str, values, check: Callable = check_int, **limits) -> list:
    """One number or several, distinct and at least one, each checked by `check`, as a list of Python numbers."""
    values = plain(values)
    listed = isinstance(values, Iterable) and not isinstance(values, str)
    numbers = [check(name, value, **limits) for value in (values if listed else [values])]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"{name}s must be distinct and at least one, got {numbers}")
    return numbers


def seeds_of(seeds: int | Iterable[int]) -> list[int]:
    """Which seeds: so many from 0 on, or those listed."""
    if isinstance(plain(seeds), Iterable):
        return several("seed", seeds, low=0)
    return list(range(check_int("seeds", seeds, low=1)))


def entrants(strategies: Sequence | Mapping) -> dict[str, tuple[str | Strategy, dict]]:
    """Strategies by label, each lalib's own by name or a Strategy, with the options given, checked.

    strategies: as in compare. In a list a name is its own label, a function's is its name, that of a strategy of
    scikit-activeml its class and parameters.
    """
    if isinstance(strategies, str) or not isinstance(strategies, Iterable):
        came = "the string " * isinstance(strategies, str) + repr(strategies)
        raise TypeError(f"strategies must be a list of strategies or a dict, got {came}")
    named = isinstance(strategies, Mapping)
    pairs = list(strategies.items() if named else ((None, one) for one in strategies))
    labels, entered = [], []
    for label, given in pairs:
        strategy, options = given if isinstance(given, tuple | list) and len(given) == 2 else (given, {})
        if isinstance(label, str) is not named or not isinstance(options, Mapping):
            allowed = "{label: strategy, or a pair of it and its options}"
            raise TypeError(f"strategies must be {allowed}, got {label!r}: {given!r}")
        declared, options = as_strategy(strategy, options)
        own = peer_label(strategy) if hasattr(strategy, "query") else declared.name
        labels.append(label if named else own)
        entered.append((declared.name if STRATEGIES.get(declared.name) is declared else declared, options))
    if not labels:
        raise ValueError("strategies must be at least one, got none")
    if len(set(labels)) < len(labels):
        raise ValueError(f"strategies must have labels of their own, got {labels}: give a dict of labels")
    return dict(zip(labels, entered, strict=True))


def source_code(value: Callable, alone: bool = True) -> str:
    """The text of a function or class; ValueError where it is not to be had, or does not say all and must (alone)."""
    name, told = getattr(value, "__qualname__", repr(value)), "its runs could not be told from others"
    if alone and (getattr(value, "__closure__", None) or inspect.ismethod(value)):
        raise ValueError(f"{name} depends on variables around it, by which {told}: give what varies as options")
    try:
        return inspect.getsource(value)
    except (OSError, TypeError) as error:
        remedy = "define it in a file or a notebook with def, and give what varies as options"
        raise ValueError(f"the source of {name} is not to be had, so that {told}: {remedy}") from error


def describe(value):
    """A value as JSON can hold it, which tells runs apart: names as they are, a strategy of another's by its source, of
    scikit-activeml's and other estimators class and parameters, functions and classes by name and digest of the source.

    Seeds of estimators are left out: the run's own takes their place. ValueError or TypeError if this cannot be done.
    """
    value = plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.tolist()
    if isinstance(value, list | tuple | range):
        return [describe(item) for item in value]
    if isinstance(value, Strategy) and isinstance(peer := value.function, Peer):
        found = {"strategy": describe(peer.strategy), "scikit-activeml": version("scikit-activeml")}
        return found | ({"given": describe(peer.given)} if peer.given else {})
    if isinstance(value, Strategy):
        own = {source.name: source_code(source.model) for source in value.own if callable(source.model)}
        code = source_code(value.function)
        return {"function": code, "sources": own} if own else code
    if hasattr(value, "get_params") and not isinstance(value, type):
        kept = {k: v for k, v in value.get_params(deep=False).items() if k not in OVERWRITTEN}
        return {"class": describe(type(value)), "parameters": describe(kept)}
    if isinstance(value, type) or inspect.isfunction(value):
        return f"{value.__module__}.{value.__qualname__} {digest(source_code(value, alone=False))[:16]}"
    found = f"a parameter of a strategy is a {type(value).__name__}"
    raise TypeError(f"{found}, by which its runs cannot be told from others")
