"""What tells a user's functions apart: their source and all of the user's own that they reach, in every process."""

import collections
import dataclasses
import functools
import importlib
import io
import json
import re
import sys
import threading
import types

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from forks import run_code
from sklearn.preprocessing import StandardScaler

import lalib as la
from lalib.experiments.identity import describe
from lalib.strategies import Source, Strategy

OWN = """
import functools
from dataclasses import dataclass

import numpy as np
import torch
from joblib import hash as hashed
import {name}_deep as deep
from {name}_deep import scaled

POWER = 2
NAMES = {{"a", "b", "c", "d", "e", "f"}}
TABLE = np.arange(3.0)
LARGE = torch.arange(2000.0)


def helper(x):
    return deeper(x) + POWER


def deeper(x):
    return x + 1


def plain(view, n, *, generator):
    return view.unlabeled[:n]


def by_helper(view, n, *, generator):
    return helper(n)


def by_inner(view, n, *, generator):
    def inner():
        return [helper(i) for i in range(n)]

    return inner() if n else (lambda: helper(n))()


def by_module(view, n, *, generator):
    return deep.scaled(n)


def by_local_import(view, n, *, generator):
    from {name}_deep import scaled

    return scaled(n)


def by_global(view, n, *, generator):
    return n in NAMES and TABLE[n] and LARGE[n]


def by_packages(view, n, *, generator):
    return torch.topk(np.zeros(3), n), hashed(n)


def recursive(view, n, *, generator):
    return recursive(view, n - 1, generator=generator) if n else partner(view)


def partner(view):
    return recursive(view, helper(0), generator=None)


def with_default(view, n, *, generator, by=helper):
    return by(n)


def around(by):
    def closed(view, n, *, generator):
        return by

    return closed


def decorated_by(function):
    @functools.wraps(function)
    def outer(*given, **options):
        return function(*given, **options)

    return outer


@decorated_by
def decorated(view, n, *, generator):
    return helper(n)


@torch.no_grad()
def decorated_by_torch(view, n, *, generator):
    return helper(n)


@functools.cache
def cached(view, n, *, generator):
    return helper(n)


class Base:
    def base(self):
        return helper(1)


class Chooser(Base):
    scale = 3

    def __init__(self, power):
        self.power = power

    def __call__(self, view, n, *, generator):
        return self.base()

    def choose(self, view, n, *, generator):
        return self.double

    @property
    def double(self):
        return helper(2)


@dataclass
class Settings:
    power: int = 3


class Slotted:
    __slots__ = ("power",)

    def __init__(self, power):
        self.power = power

    def twice(self):
        return helper(2)


class Decorator:
    def __init__(self, function):
        functools.update_wrapper(self, function)

    def __call__(self, view, n, *, generator):
        return self.__wrapped__(view, n, generator=generator)


@Decorator
def decorated_by_object(view, n, *, generator):
    return helper(n)
"""
DEEP = "SCALE = 3\n\n\ndef scaled(x):\n    return SCALE * x\n\n\ndef unused(x):\n    return x\n"


def _write(folder, name, old="", new="", deep=False):
    for text, path in ((OWN.format(name=name), f"{name}.py"), (DEEP, f"{name}_deep.py")):
        changed = text.replace(old, new, 1) if old and deep == path.endswith("_deep.py") else text
        assert not old or (changed != text) == (deep == path.endswith("_deep.py"))
        (folder / path).write_text(changed)


def _modules(name):
    for each in (name, f"{name}_deep"):
        sys.modules.pop(each, None)
    importlib.invalidate_caches()
    return importlib.import_module(name)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's, written to a file."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"own_{tmp_path.name.replace('-', '_')}"
    _write(tmp_path, name)
    yield types.SimpleNamespace(
        module=_modules(name),
        name=name,
        folder=tmp_path,
        edit=lambda *change, **where: _write(tmp_path, name, *change, **where) or _modules(name),
    )
    for each in (name, f"{name}_deep"):
        sys.modules.pop(each, None)


FUNCTIONS = {
    "plain": lambda own: own.plain,
    "helper": lambda own: own.by_helper,
    "inner functions": lambda own: own.by_inner,
    "recursion": lambda own: own.recursive,
    "a default": lambda own: own.with_default,
    "a closure": lambda own: own.around(own.helper),
    "a partial": lambda own: functools.partial(own.around, own.helper),
    "a decorator": lambda own: own.decorated,
    "torch's decorator": lambda own: own.decorated_by_torch,
    "a decorator that is an object": lambda own: own.decorated_by_object,
    "slots": lambda own: own.Slotted(3),
    "a cache": lambda own: own.cached,
    "an object": lambda own: own.Chooser(2),
    "a method": lambda own: own.Chooser(2).choose,
    "a class": lambda own: own.Chooser,
    "a strategy": lambda own: Strategy("mine", own.by_helper),
    "a source": lambda own: Strategy("mine", own.plain, needs=(Source("cool", "(N,)", "how", own.helper),)),
    "a mapping": lambda own: {"key": [(own.helper,)]},
    "a module": lambda own: own.by_module,
    "an import inside": lambda own: own.by_local_import,
    "globals": lambda own: own.by_global,
    "packages": lambda own: own.by_packages,
}
BY_HELPER = set(FUNCTIONS) - {"plain", "a module", "an import inside", "globals", "packages"}


def _all(own):
    return {name: describe(function(own)) for name, function in FUNCTIONS.items()}


def _changed(before, after):
    return {name for name in before if before[name] != after[name]}


DESCRIBED = """
import importlib, json, runpy
described = runpy.run_path(place)["_all"](importlib.import_module(name))
there.write_text(json.dumps(described))
"""


def test_the_same_content_is_described_alike(own):
    before = _all(own.module)
    assert json.loads(json.dumps(before)) == before
    assert " at 0x" not in json.dumps(before)
    assert _all(own.edit()) == before
    there = own.folder / "there.json"
    child = run_code(DESCRIBED, name=own.name, place=__file__, there=there)  # where sets stand in another order
    child.join(60)
    assert json.loads(there.read_text()) == before


@pytest.mark.parametrize(
    ("old", "new", "deep", "changed"),
    [
        ("x + 1", "x + 2", False, BY_HELPER),  # of a function that a helper calls
        ("POWER = 2", "POWER = 3", False, BY_HELPER),
        ("view.unlabeled[:n]", "view.unlabeled[-n:]", False, {"plain", "a source"}),
        ('"f"}', '"g"}', False, {"globals"}),
        ("arange(3.0)", "arange(1, 4.0)", False, {"globals"}),
        ("arange(2000.0)", "arange(1, 2001.0)", False, {"globals"}),
        ("scale = 3", "scale = 4", False, {"an object", "a method", "a class"}),
        ("return helper(2)", "return helper(3)", False, {"an object", "a method", "a class"}),
        ("return helper(1)", "return helper(3)", False, {"an object", "a method", "a class"}),  # of the base
        ("by=helper", "by=deeper", False, {"a default"}),
        ("outer(*given", "other(*given", False, None),
        ("SCALE = 3", "SCALE = 4", True, {"a module", "an import inside"}),
        ("SCALE * x", "x * SCALE", True, {"a module", "an import inside"}),
        ("return x\n", "return 2 * x\n", True, set()),  # what nobody reaches
    ],
)
def test_what_is_reached_counts(old, new, deep, changed, own):
    before = _all(own.module)
    if changed is None:
        (own.folder / f"{own.name}.py").write_text(
            OWN.format(name=own.name).replace("def outer", "def other").replace("return outer", "return other")
        )
        assert _changed(before, _all(_modules(own.name))) == {"a decorator"}
    else:
        assert _changed(before, _all(own.edit(old, new, deep=deep))) == changed


def test_a_global_that_is_set_meanwhile_counts(own):
    before = _all(own.module)
    own.module.POWER = 7
    assert _changed(before, _all(own.module)) == BY_HELPER
    own.module.POWER = 2
    own.module.deep.SCALE = 7
    assert _changed(before, _all(own.module)) == {"a module", "an import inside"}


def test_what_functions_are_made_of_counts(own):
    module = own.module
    for one, other in (
        (module.around(1), module.around(2)),
        (functools.partial(module.plain, n=1), functools.partial(module.plain, n=2)),
        (module.Chooser(1), module.Chooser(2)),
        (module.Chooser(1).choose, module.Chooser(2).choose),
        (module.Chooser(1).choose, module.Chooser(1).base),
        (module.Settings(), module.Settings(4)),
        (module.Slotted(3), module.Slotted(4)),
    ):
        assert describe(one) != describe(other)


def test_installed_packages_are_names_and_versions(own):
    reached = describe(own.module.by_packages)["reaches"]
    assert reached == {
        "torch": f"torch {torch.__version__}",
        "np": f"numpy {np.__version__}",
        "hashed": f"joblib.hashing.hash {joblib.__version__}",
    }
    assert describe(la.codes.one_nn_error) == "lalib.codes.measures.one_nn_error"
    assert describe(json.dumps) == "json.dumps"
    assert describe(StandardScaler).startswith("sklearn.preprocessing._data.StandardScaler ")
    wrapped = describe(own.module.decorated_by_torch)
    assert wrapped["wrapped by"] == f"torch.utils._contextlib {torch.__version__}"
    assert "@torch.no_grad()" in wrapped["function"]["code"]


def _network(**changes):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(60, 30), torch.nn.Dropout(changes.get("dropout", 0.1)))
    with torch.no_grad():
        network[0].bias += changes.get("bias", 0)
    return network


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (lambda power=1: pd.DataFrame({"a": [1, power]}), {"power": 2}),
        (lambda name="a": re.compile(name), {"name": "b"}),
        (lambda name="a": collections.Counter(name), {"name": "b"}),
        (lambda seed=1: np.random.default_rng(seed), {"seed": 2}),
        (lambda seed=1: torch.Generator().manual_seed(seed), {"seed": 2}),
        (lambda size=10: la.load("digits").subset(range(size)), {"size": 11}),
        (lambda steps=3: la.Task(steps=steps), {"steps": 4}),
        (lambda seed=0: la.VAE((1, 8, 8), 2, seed=seed), {"seed": 1}),
        (lambda with_std=True: StandardScaler(with_std=with_std), {"with_std": False}),
        (lambda last=b"1": last, {"last": b"2"}),
        (lambda size=2000: np.arange(size), {"size": 2001}),
        (_network, {"bias": 1}),
        (_network, {"dropout": 0.2}),
    ],
)
def test_objects(make, changes):
    assert json.dumps(describe(make())) == json.dumps(describe(make()))
    assert describe(make()) != describe(make(**changes))


@dataclasses.dataclass(frozen=True)
class _Node:
    next: list


def test_objects_that_reach_themselves():
    node = _Node([])
    node.next.append(node)
    assert describe(node)["state"] == {"next": ["see _Node 0"]}


def test_what_cannot_be_told(tmp_path):
    lock, stream = threading.Lock(), io.TextIOWrapper(io.BytesIO())

    def locked():
        return lock

    def open_file():
        return stream

    for function, kind in ((locked, "lock"), (open_file, "TextIOWrapper"), (lambda: (i for i in ()), None)):
        if kind is None:
            assert isinstance(describe(function), str)
        else:
            with pytest.raises(TypeError, match=f"a parameter of a strategy is a {kind}, by which its runs") as caught:
                describe(function)
            assert caught.value.__notes__ == [
                f"in {'lock' if kind == 'lock' else 'stream'}, which {function.__qualname__} reaches"
            ]
    nowhere = {}
    exec("def f(x):\n    return x", nowhere)
    helper = nowhere["f"]
    with pytest.raises(ValueError, match="the source of f is not to be had, so that its runs could not be told"):
        describe(lambda x: helper(x))
