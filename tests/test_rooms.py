"""The rooms of the package: imports go downwards only, nothing private crosses a wall, no two files share a name."""

import ast
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


def test_about_thirty_names_at_the_top():
    rooms = {*ROOMS, "results"} - {"app"}
    assert rooms <= set(la.__all__)
    assert len(set(la.__all__) - rooms) <= 32
