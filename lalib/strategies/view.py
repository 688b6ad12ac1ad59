"""What a strategy may see of the pool, what it answers, and how it is declared."""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lalib.data.checks import check_choice, check_int, check_options
from lalib.data.door import as_tensor, check_codes, check_index, check_labels, plain
from lalib.strategies.sources import SOURCES, Source


@dataclass(frozen=True, eq=False)
class Selection:
    """index (n,) int64 on the CPU in order of picking; score (n,) float32, larger was preferred, or None.

    record: numbers by name that say how the selection came about; the loop keeps them with the round.
    """

    index: Tensor
    score: Tensor | None = None
    record: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PoolView:
    """The codes of all images, which of them are labelled and as what, and what a task model says of them.

    codes (N, L) float, finite, on any device; labeled (M,) distinct int64 indices, or None for none; labels (M,) or
    (M, C) of 0 and 1 of those, or None; sources: for further names in SOURCES an array of that shape. Codes and
    sources may be functions that compute them, without arguments or of the source's settings: each is called once for
    the same settings, when a strategy asks. size: N, needed if the codes are a function. own: sources beside SOURCES.
    Every source is an attribute, such as view.codes. Of several classes per image the probabilities are independent.
    """

    codes: InitVar[Tensor | Callable[[], Tensor]]
    labeled: Tensor | None = None
    labels: Tensor | None = None
    sources: InitVar[Mapping[str, Tensor | Callable[..., Tensor]] | None] = None
    size: int | None = None
    own: InitVar[Iterable[Source]] = ()

    def __post_init__(self, codes, sources, own):
        size = check_int("size", self.size, low=1) if callable(codes) else len(check_codes(codes, n=self.size))
        declared, sources = SOURCES | {source.name: source for source in own}, dict(sources or {})
        for name in sources:
            check_choice("source", name, [known for known in declared if known != "codes"])
        labeled = check_index(() if self.labeled is None else self.labeled, size, "labeled", distinct=True)
        labels = labels_of(self.labels, len(labeled))
        vars(self).update(size=size, labeled=labeled, labels=labels)
        vars(self).update(_given={"codes": codes, **sources}, _declared=declared, _found={}, _settings={})

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_") or name not in self._declared:
            raise AttributeError(f"a view has no {name!r}")
        return self.get(name)

    def get(self, name: str, **settings) -> Tensor:
        """The source of that name on its device, computed with these settings. Raises what Source.value raises."""
        source = self._declared[check_choice("source", name, self._declared)]
        held = {key: value for key, value in self._settings.items() if key in source.settings}
        settings = source.settled(held | settings)
        key = (name, *settings.items())
        if key not in self._found:
            self._found[key] = source.value(self._given.get(name), self.size, settings)
        return self._found[key]

    def with_settings(self, settings: Mapping) -> "PoolView":
        """The same view, in which sources that depend on these settings are computed with them."""
        view = copy.copy(self)
        vars(view).update(_settings=self._settings | dict(settings))
        return view

    @property
    def n_images(self) -> int:
        """N, labelled or not."""
        return self.size

    @property
    def multi_label(self) -> bool:
        """Whether the labels are (M, C): an image may have several classes."""
        return self.labels is not None and self.labels.ndim == 2

    @cached_property
    def unlabeled(self) -> Tensor:
        """Indices of the images without a label, ascending, int64 on the CPU."""
        free = torch.ones(self.n_images, dtype=torch.bool).index_fill(0, self.labeled, False)
        return free.nonzero().squeeze(1)


class Copies(PoolView):
    """A view that gives copies to a strategy not lalib's and knows which were changed; own: the strategy's sources."""

    def __init__(self, view: PoolView, own: Iterable[Source] = ()):
        declared = view._declared | {source.name: source for source in own}
        vars(self).update(vars(view), _declared=declared, _handed={})
        for name in ("labeled", "labels", "unlabeled"):
            vars(self)[name] = self._copy(name, getattr(view, name))

    def get(self, name: str, **settings) -> Tensor:
        return self._copy(name, super().get(name, **settings))

    def _copy(self, name, original):
        if original is None:
            return None
        if id(original) not in self._handed:
            self._handed[id(original)] = (name, original, original.clone())
        return self._handed[id(original)][2]

    def changed(self) -> list[str]:
        """The names of what differs from the original."""
        return [name for name, original, given in self._handed.values() if not torch.equal(original, given)]


def _with(signature: inspect.Signature, further: Iterable[inspect.Parameter]) -> inspect.Signature:
    """The signature with further parameters, each after those of its kind."""
    every = sorted([*signature.parameters.values(), *further], key=lambda part: part.kind)
    return signature.replace(parameters=every)


def with_options_of(*inner: Callable) -> Callable:
    """Let a strategy show, in place of its **options, the keyword-only ones of the functions it hands them on to."""
    handed = [
        part for f in inner for part in inspect.signature(f).parameters.values() if part.kind is part.KEYWORD_ONLY
    ]

    def shown(function):
        own = inspect.signature(function)
        named = [part for part in own.parameters.values() if part.kind is not part.VAR_KEYWORD]
        function.__signature__ = _with(own.replace(parameters=named), handed)
        return function

    return shown


@dataclass(frozen=True, eq=False)
class Strategy:
    """A strategy as it is declared, once, beside its function. It is called as the function is.

    function: (view, n, *, generator, **its options) -> Selection. needs: what it asks the view for: names in SOURCES, a
    Source of its own, and "labels" if it cannot do without labelled images; None if that is not known. several: whether
    images may have several labels. The settings of its sources are options of the strategy, too.
    """

    name: str
    function: Callable[..., Selection]
    needs: tuple[str | Source, ...] | None = None
    several: bool = True

    def __post_init__(self):
        if not callable(self.function) or isinstance(self.function, type) or not isinstance(self.name, str):
            raise TypeError(f"a strategy must be a name and a function, got {self.name!r} and {self.function!r}")
        for need in self.needs or ():
            if not isinstance(need, Source):
                check_choice("need", need, [*SOURCES, "labels"])
            elif need.name in SOURCES or hasattr(PoolView, need.name) or need.name in ("labeled", "labels"):
                raise ValueError(f"a source of a strategy's own must have a name of its own, got {need.name!r}")
        keyword = inspect.Parameter.KEYWORD_ONLY
        further = [inspect.Parameter(key, keyword, default=s.default) for key, s in self.settings.items()]
        vars(self)["__signature__"] = _with(inspect.signature(self.function), further)

    @property
    def sources(self) -> tuple[Source, ...]:
        """What it needs of the view."""
        return tuple(SOURCES.get(need, need) for need in self.needs or () if need != "labels")

    @property
    def own(self) -> tuple[Source, ...]:
        """The sources that it brings along."""
        return tuple(need for need in self.needs or () if isinstance(need, Source))

    @cached_property
    def settings(self) -> dict:
        """Settings of its sources by name, but those that its function takes itself."""
        every = [pair for source in self.sources for pair in source.settings.items()]
        return {name: one for name, one in every if name not in inspect.signature(self.function).parameters}

    @property
    def label_free(self) -> bool | None:
        """Whether it can be asked before there is a label; None if its needs are not known."""
        free = "labels" not in (self.needs or ()) and not any(source.model for source in self.sources)
        return None if self.needs is None else free

    def checked(self, options: Mapping) -> dict:
        """Options as Python numbers, values of settings checked; ValueError or TypeError for options it has not."""
        check_options(self.name, self, options)
        known = self.settings.keys() & options.keys()
        return plain(dict(options)) | {name: self.settings[name].checked(name, options[name]) for name in known}

    def __call__(self, view: PoolView, n: int, *, generator: torch.Generator, **options) -> Selection:
        settings = {name: options.pop(name) for name in self.settings.keys() & options.keys()}
        return self.function(view.with_settings(settings) if settings else view, n, generator=generator, **options)


def labels_of(labels, count: int) -> Tensor | None:
    """Labels (count,) or (count, C) of 0 and 1 of the labelled images, int64 on the CPU; None for None."""
    if labels is None:
        return None
    labels = as_tensor(labels, "labels").cpu()
    if labels.ndim not in (1, 2) or len(labels) != count:
        raise ValueError(f"labels must be those of the {count} labelled images, got shape {tuple(labels.shape)}")
    return check_labels(labels, several=True) if labels.numel() else labels.long()
