"""The rooms of the package: imports go downwards only, nothing private crosses a wall, no two files share a name."""

import ast
import importlib
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

import lalib as la

LALIB = Path(la.__file__).parent
ROOMS = (  # data flows downwards: a room imports from those before it
    *("data", "models", "training", "codes", "strategies", "experiments"),
    *("labelling", "figures", "widgets", "app"),
)
FILES = sorted(LALIB.rglob("*.py"))
HELD = {room: importlib.import_module(f"lalib.{room}") for room in ROOMS}
PUBLIC = {f"{room}.{name}": getattr(inside, name) for room, inside in HELD.items() for name in inside.__all__}
PUBLIC = {name: value for name, value in PUBLIC.items() if inspect.isclass(value) or inspect.isfunction(value)}
HERE = {name: value for name, value in vars(la.results).items() if inspect.isfunction(value) and name[0] != "_"}
PUBLIC |= {f"results.{name}": value for name, value in HERE.items() if value.__module__ == la.results.__name__}


def imports(path):
    """(room, module or None, name) of everything that a file imports from lalib."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: relative import")
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "lalib":
                    raise AssertionError(f"{path}: import {alias.name}; write from ... import")
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "lalib":
            for alias in node.names:
                parts = [*node.module.split("."), alias.name][1:]
                yield parts[0], parts[1:]


def test_nothing_else_lies_at_the_top():
    found = {path.name for path in LALIB.iterdir() if path.name != "__pycache__"}
    assert found == {"__init__.py", *ROOMS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LALIB)))
def test_imports_go_downwards_and_nothing_private_crosses_a_wall(path):
    here = path.relative_to(LALIB).parts[0]
    if here == "__init__.py":
        return
    for room, rest in imports(path):
        assert ROOMS.index(room) <= ROOMS.index(here), f"{here} imports {room}"
        if room != here:
            assert not any(name.startswith("_") for name in rest), f"{here} imports {room}.{'.'.join(rest)}"


def test_no_two_files_of_one_name():
    names = Counter(path.name for path in FILES)
    assert {name for name, count in names.items() if count > 1} == {"__init__.py"}


def test_tests_lie_in_the_same_folders():
    tests = Path(__file__).parent
    assert set(ROOMS) <= {folder.name for folder in tests.iterdir()}


@pytest.mark.parametrize("value", PUBLIC.values(), ids=PUBLIC)
def test_help_of_every_public_name_says_shapes(value):
    """Where there are tensors, the text names the shape of one at least, such as (N, L) or (n,)."""
    text = value.__doc__ or ""
    assert text.strip()
    assert not text.startswith(f"{value.__name__}("), "no more than a dataclass says of itself"
    types = getattr(value, "__annotations__", {}) | getattr(value.__init__, "__annotations__", {})
    if re.search(r"\b(Tensor|ndarray)\b", str(types)):
        assert re.search(r"\((?=[^()]*,)([^()]*, )?[A-Zkn]\b[^()]*\)", text)


def test_about_thirty_names_at_the_top():
    rooms = {*ROOMS, "results"} - {"app"}
    assert rooms <= set(la.__all__)
    assert len(set(la.__all__) - rooms) <= 33
