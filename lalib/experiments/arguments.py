"""What the comparisons are given, checked once for all of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lalib.data.checks import LalibError, check_int
from lalib.data.door import plain, renumbered
from lalib.data.imageset import ImageSet
from lalib.strategies.peers import peer_label
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
