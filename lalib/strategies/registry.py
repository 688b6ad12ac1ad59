"""Strategies by name, as the modules of this folder declare them in tuples DECLARED; and select(), which runs one."""

import importlib
import numbers
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from lalib.data.checks import LalibError, check_choice, check_int
from lalib.data.door import as_tensor
from lalib.data.seeds import generator
from lalib.strategies.peers import Peer
from lalib.strategies.sources import SOURCES
from lalib.strategies.view import Copies, PoolView, Selection, Strategy

AnyStrategy = str | Strategy | Callable[..., Selection]  # or a pool strategy of scikit-activeml


def _declared() -> list[Strategy]:
    """The strategies of all modules of this folder, those that need least first."""
    found = []
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in ("registry", "peer_models"):  # the latter needs scikit-activeml
            found += getattr(importlib.import_module(f"lalib.strategies.{module.name}"), "DECLARED", ())
    return sorted(found, key=lambda strategy: (not strategy.label_free, len(strategy.needs)))


STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in _declared()}
LABEL_FREE = tuple(name for name, strategy in STRATEGIES.items() if strategy.label_free)
SINGLE_LABEL = tuple(name for name, strategy in STRATEGIES.items() if not strategy.several)


def select(
    strategy: AnyStrategy,
    codes: torch.Tensor,
    n: int,
    *,
    seed: int = 0,
    labeled: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    **sources_and_options,
) -> torch.Tensor:
    """Indices (n,) int64, distinct, in order of picking, of the images to label next.

    strategy: a name in STRATEGIES, a function (view, n, *, generator, **options) -> Selection, a Strategy, or a pool
    strategy of scikit-activeml. codes (N, L): numbers on any device. seed: the same seed gives the same answer.
    labeled (M,): indices of the labelled images, which are not picked. labels (M,): their classes, or (M, C) of 0 and 1
    if an image may have several. Nothing given is changed.

        first = la.select("k-medoids", codes, n=100)  # the image nearest each of 100 k-means centres
        more = la.select("margin", codes, n=10, labeled=first, labels=y, probs=p)

    Further keywords are what a strategy needs, as arrays or as functions that compute them: probs (N, C), mc_probs
    (T, N, C), features (N, F), errors (N,) and others in la.strategies.SOURCES; and options of the strategy, which
    help(la.strategies.STRATEGIES[name].function) explains.

    Raises ValueError or TypeError for bad arguments: n above the number of unlabelled images, codes with NaN, an
    unknown strategy or option. Raises LalibError if the strategy lacks something, cannot meet its threshold, changes
    what it was given, or answers with anything but n different unlabelled indices.
    """
    own = strategy.own if isinstance(strategy, Strategy) else ()
    names = sources_and_options.keys() & {*SOURCES, *(source.name for source in own)}
    sources = {name: value for name in names if (value := sources_and_options.pop(name)) is not None}
    view = PoolView(codes, labeled, labels, sources, own=own)
    return run_strategy(strategy, view, n, generator=generator(seed, "select"), **sources_and_options).index


def as_strategy(given: AnyStrategy, options: Mapping | None = None) -> tuple[Strategy, dict]:
    """The declaration of what stands where a strategy may, and its options, checked; errors as in select."""
    options = dict(options or {})
    if hasattr(given, "query"):
        ours = {name: options.pop(name) for source in SOURCES.values() for name in source.settings if name in options}
        peer = Peer(given, options)
        return (declared := Strategy(peer.__name__, peer, peer.needs, several=False)), declared.checked(ours)
    if not callable(given):
        given = STRATEGIES[check_choice("strategy", given, STRATEGIES)]
    elif not isinstance(given, Strategy):
        given = Strategy(getattr(given, "__name__", type(given).__name__), given)
    return given, given.checked(options)


def run_strategy(strategy: AnyStrategy, view: PoolView, n: int, *, generator: torch.Generator, **options) -> Selection:
    """What a strategy selects from a view; n, its options and the result are checked. Raises what select raises.

    A strategy that is not lalib's own sees copies. LalibError if it changes them.
    """
    declared, options = as_strategy(strategy, options)
    n = check_int("n", n, low=1)
    if n > len(view.unlabeled):
        raise ValueError(f"n={n} exceeds the {len(view.unlabeled)} unlabelled images")
    if view.multi_label and not declared.several:
        raise LalibError(f"{declared.name} needs one label per image; these images may have several")
    seen = view if STRATEGIES.get(declared.name) is declared else Copies(view, declared.own)
    selection = declared(seen, n, generator=generator, **options)
    if seen is not view and seen.changed():
        what = f"{declared.name} must leave what it is given as it was, but it changed {', '.join(seen.changed())}"
        raise LalibError(f"{what}: let it work on a copy, such as view.codes.clone()")
    return _check_selection(declared.name, selection, view, n)


def _check_selection(name, selection, view, n):
    """LalibError unless the selection holds n distinct unlabelled indices."""
    if not isinstance(selection, Selection):
        raise LalibError(f"{name} must return a Selection, got {type(selection).__name__}")
    index = as_tensor(selection.index, "index").cpu()
    if index.shape != (n,) or index.dtype != torch.int64:
        raise LalibError(f"{name} must return an int64 index ({n},), got {index.dtype} of shape {tuple(index.shape)}")
    if len(index.unique()) < n:
        raise LalibError(f"{name} must return {n} distinct indices, got {n - len(index.unique())} repeated")
    foreign = index[(index < 0) | (index >= view.n_images) | torch.isin(index, view.labeled)]
    if len(foreign):
        why = "which is labelled or not in the pool"
        raise LalibError(f"{name} must return unlabelled indices, got {foreign[0]}, {why}")
    record = selection.record
    if not isinstance(record, Mapping) or not all(isinstance(value, numbers.Real) for value in record.values()):
        raise LalibError(f"{name} must return a record of numbers by name, got {record!r}")
    return Selection(index, selection.score, {key: float(value) for key, value in record.items()})
