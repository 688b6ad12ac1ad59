"""What tells runs apart: values as JSON can hold them, functions with all of their author's own that they reach.

Pickles do not serve: they name a function of a module without its text, and sets stand in another order in every
process. What is reached is read from the compiled code: globals, closures, defaults, and what is used of modules.
"""

import contextlib
import dis
import functools
import importlib
import inspect
import json
import pickle
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch

from lalib.data.door import plain
from lalib.data.files import tensor_digest
from lalib.data.imageset import ImageSet
from lalib.experiments.run_files import failing_in
from lalib.strategies.peers import OVERWRITTEN, Peer
from lalib.strategies.view import Strategy

LISTED = 1000  # numbers of an array; a larger one is told by its SHA-256
WRAPPED = (property, functools.cached_property, staticmethod, classmethod)
LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")


def describe(value):
    """A value as JSON can hold it, which tells runs apart and is the same in every process.

    Names, numbers and lists are themselves; a large array is its digest, an object its class and its state, a
    strategy or estimator of scikit-activeml or scikit-learn class and parameters. A function or class of the user's is
    its source, with a description of everything that it reaches; one of an installed package is its name and the
    package's version, one of lalib its name alone: records tell lalib's code.
    Seeds of estimators are left out: the run's own takes their place. ValueError if a source is not to be had,
    TypeError for what cannot be described, such as an open file.
    """
    return _described(value, {})


def _described(value, met: dict):
    """met: functions, classes and objects by id, with their names: what reaches itself is named the second time."""
    value = plain(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | complex | slice | type(...)):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return tensor_digest({"": value}) if value.numel() > LISTED else value.tolist()
    if isinstance(value, np.ndarray):
        return _hashed(value) if value.size > LISTED else value.tolist()
    if isinstance(value, ImageSet):
        return value.fingerprint()
    if isinstance(value, Mapping):
        return {str(key): _described(item, met) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_described(item, met) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_described(item, met) for item in value), key=json.dumps)
    if isinstance(value, Strategy) and isinstance(peer := value.function, Peer):
        found = {"strategy": _described(peer.strategy, met), "scikit-activeml": version("scikit-activeml")}
        return found | ({"given": _described(peer.given, met)} if peer.given else {})
    if isinstance(value, Strategy):
        own = {source.name: _described(source.model, met) for source in value.own if callable(source.model)}
        code = _described(value.function, met)
        return {"function": code, "sources": own} if own else code
    if hasattr(value, "get_params") and not isinstance(value, type):
        kept = {k: v for k, v in value.get_params(deep=False).items() if k not in OVERWRITTEN}
        return {"class": _described(type(value), met), "parameters": _described(kept, met)}
    if (found := _elsewhere(value, met)) is not None:
        return found
    if id(value) in met:
        return f"see {met[id(value)][1]}"
    met[id(value)] = value, f"{getattr(value, '__qualname__', type(value).__name__)} {len(met)}"
    if isinstance(value, FunctionType):
        return _function(value, met)
    if isinstance(value, type):
        parts = {name: _described(part, met) for name, part in sorted(vars(value).items()) if _is_own(name, part)}
        bases = [_described(base, met) for base in value.__bases__]
        return {"class": value.__qualname__, "bases": bases, "parts": parts}
    return _object(value, met)


def _elsewhere(value, met: dict) -> str | dict | None:
    """The name of a module, function or class of an installed package, with its version; None for the user's own.

    Of a function of the user's that such a package wraps, as @torch.no_grad() does, that function as well.
    """
    inner = getattr(value, "__wrapped__", None)
    if not isinstance(value, ModuleType | FunctionType | type) and not inspect.isfunction(inner):
        return None
    module = value.__name__ if isinstance(value, ModuleType) else _module(value)
    if (known := _installed(module)) is None:
        return None
    if inspect.isfunction(inner) and _installed(_module(inner)) is None:
        return {"wrapped by": f"{module} {known}".strip(), "function": _described(inner, met)}
    name = module if isinstance(value, ModuleType) else f"{module}.{value.__qualname__}"
    return f"{name} {known}".strip()


def _function(value: FunctionType, met: dict) -> str | dict:
    """The source of a function of the user's, and what it reaches, if there is anything."""
    code, reached = _source(value), {}
    for name, part in _reached(value):
        with failing_in(f"{name}, which {value.__qualname__} reaches"):
            reached[name] = _described(part, met)
    return {"code": code, "reaches": reached} if reached else code


def _object(value, met: dict):
    """Anything else: by its class and its state."""
    kind = type(value)
    own = _installed(_module(kind)) is None
    if isinstance(value, functools.partial):
        return {"partial": _described(value.func, met), "given": _described([value.args, value.keywords], met)}
    if isinstance(value, MethodType):
        return {"method": _described(value.__func__, met), "of": _described(value.__self__, met)}
    if isinstance(value, WRAPPED):
        inner = [getattr(value, name, None) for name in ("__func__", "func", "fget", "fset")]
        return [_described(part, met) for part in inner if part is not None]
    if inspect.isroutine(value) or inspect.ismemberdescriptor(value):
        return f"{getattr(value, '__module__', None)}.{value.__qualname__}"
    if isinstance(value, torch.Generator):
        return _described(value.get_state(), met)
    if isinstance(value, torch.nn.Module) and not own:
        return {"module": repr(value), "weights": tensor_digest(value.state_dict())}
    if hasattr(value, "__dict__") and (own or kind.__module__.startswith("lalib.")):
        return {"class": _described(kind, met), "state": _described(vars(value), met)}
    try:
        if kind.__module__ != "builtins":
            return {"class": _described(kind, met), "state": _hashed(value)}
    except (TypeError, AttributeError, pickle.PicklingError):
        pass
    raise TypeError(f"a parameter of a strategy is a {kind.__name__}, by which its runs cannot be told from others")


def _hashed(value) -> str:
    from joblib import hash as digest_of_pickle  # the same in every process, but for what holds tensors

    return digest_of_pickle(value)


def _module(value) -> str:
    """The module in which the text of a function or class stands; of a wrapper that of the wrapper."""
    if isinstance(value, FunctionType):
        return value.__globals__.get("__name__", "__main__")
    return getattr(value if isinstance(value, type) else type(value), "__module__", None) or "builtins"


def _installed(module: str) -> str | None:
    """The version of the package of a module, "" for lalib's and Python's own, None for a module of the user's."""
    top = module.partition(".")[0]
    if top == "lalib" or top in sys.stdlib_module_names:
        return ""
    if top == "__main__" or (package := sys.modules.get(top)) is None:
        return None
    places = [getattr(package, "__file__", None) or "", *getattr(package, "__path__", [])]
    if any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places):
        return str(getattr(package, "__version__", ""))
    return None


def _is_own(name: str, part) -> bool:
    """Whether a part of a class was written by its author, and is not what Python or dataclass adds."""
    if name.startswith("__"):
        made = name.startswith("__annotat") or not isinstance(part, FunctionType)
        return not made and inspect.unwrap(part).__code__.co_filename != "<string>"
    return not name.startswith("_abc_")


def _source(function: FunctionType) -> str:
    try:
        return inspect.getsource(function.__code__)
    except (OSError, TypeError) as error:
        told = f"the source of {function.__qualname__} is not to be had, so that its runs could not be told from others"
        raise ValueError(f"{told}: define it in a file or a notebook with def") from error


def _reached(function: FunctionType) -> Iterator[tuple[str, object]]:
    """What a function reaches, by name: globals, what it imports, what it closes over, its defaults."""
    known, steps = function.__globals__, list(_steps(function.__code__))
    attributes = sorted({step.argval for step in steps if step.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM")})
    found = {step.argval: known[step.argval] for step in steps if step.opname in LOADS and step.argval in known}
    for name in sorted({step.argval for step in steps if step.opname == "IMPORT_NAME"}):
        with contextlib.suppress(ImportError):  # it may be there for nothing but an error message
            found[f"import {name}"] = importlib.import_module(name)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            found[name] = cell.cell_contents
    for name, parameter in inspect.signature(function, follow_wrapped=False).parameters.items():
        if parameter.default is not parameter.empty:
            found[f"{name}="] = parameter.default
    for name, value in sorted(found.items()):
        yield from _parts(name, value, attributes, [])


def _steps(code: CodeType) -> Iterator[dis.Instruction]:
    """The instructions of a function and of those inside it."""
    yield from dis.get_instructions(code)
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _steps(part)


def _parts(name: str, value, attributes: list[str], within: list) -> Iterator[tuple[str, object]]:
    """A value itself; of a module of the user's what it has of the attributes that a function asks for."""
    if not isinstance(value, ModuleType) or _installed(value.__name__) is not None:
        yield name, value
    elif value not in within:
        for attribute in attributes:
            if attribute in vars(value):
                yield from _parts(f"{name}.{attribute}", vars(value)[attribute], attributes, [*within, value])
