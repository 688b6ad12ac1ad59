"""What the file of a run says, its configuration and rows, when it is believed, and which code of lalib has made it."""

import ast
import functools
import importlib
import json
import math
import platform
import subprocess
import time
import uuid
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from lalib.data.checks import LalibError
from lalib.data.files import digest, written_whole

Rows = list[dict]
LALIB = Path(__file__).parents[1]
ROOMS = ("data", "models", "training", "codes", "strategies", "experiments")  # whose code a run may reach


def number(value) -> bool:
    """Whether a value may be a measure: a finite number of at least 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def share(value) -> bool:
    """Whether a value may be an accuracy: a number in [0, 1]."""
    return number(value) and value <= 1


def whole_numbers(value) -> bool:
    """Whether a value may be indices or counts: a list of whole numbers."""
    return isinstance(value, list) and all(type(one) is int for one in value)


@dataclass(frozen=True)
class Records:
    """The files of runs in a folder, each named by the hash of its run's configuration, and written whole.

    A file is believed if it holds this configuration and finite numbers in the rows that are `expected` of the run: of
    each row columns by name, with the value or a function that says whether a value may be there. What is not believed
    counts as missing, and is kept beside its successor. redo: so does what other code of lalib has made, which is
    replaced.
    """

    folder: Path
    expected: Callable[[dict], list[dict]] | None = None
    redo: bool = False

    def find(self, run: dict, tell: bool = False) -> dict | None:
        """The record of a finished run, None if there is none that counts; tell: warn of one that is damaged."""
        path = self.folder / file_name(run)
        try:
            record = json.loads(path.read_text())
            self._check(record, run)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (IsADirectoryError, ValueError, RecursionError) as error:
            if tell:
                warnings.warn(f"{path} is damaged ({error}); its run is done again and it is set aside", stacklevel=4)
            return None
        return None if self.redo and difference(record) else record

    def keep(self, record: dict) -> Rows:
        """Write a record if there is none yet that counts; the rows that are in the file then.

        LalibError if it would not be believed.
        """
        if found := self.find(record["run"]):
            return found["rows"]
        try:
            self._check(record, record["run"])
        except ValueError as error:
            raise LalibError(f"a run gave what no table may hold: {error}") from None
        path = self.folder / file_name(record["run"])
        if path.exists() and Records(self.folder, self.expected).find(record["run"]) is None:
            path.rename(path.with_suffix(f".damaged-{uuid.uuid4().hex[:8]}"))
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(record, indent=1))
        return record["rows"]

    def _check(self, record, run: dict) -> None:
        """ValueError unless the record is one of this run."""
        if not isinstance(record, dict) or not {"run", "rows"} <= record.keys():
            raise ValueError("it has no run and rows")
        if file_name(record["run"]) != file_name(run):
            raise ValueError("it is of another run")
        rows = record["rows"]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("its rows are no list of columns by name")
        for place, row in enumerate(rows):
            for name, value in row.items():
                try:
                    json.dumps(value, allow_nan=False)
                except ValueError:
                    raise ValueError(f"{name} is {value} in row {place}") from None
        if self.expected is None:
            return
        wanted = self.expected(record["run"])
        if len(rows) != len(wanted):
            raise ValueError(f"it has {len(rows)} rows instead of {len(wanted)}")
        for place, (row, columns) in enumerate(zip(rows, wanted, strict=True)):
            for name, value in columns.items():
                if not (name in row and (value(row[name]) if callable(value) else row[name] == value)):
                    raise ValueError(f"{name} is {row.get(name)!r:.60} in row {place}")


def file_name(run: dict) -> str:
    """The name of a run's file; TypeError if JSON cannot hold the configuration."""
    try:
        return digest(json.dumps(run, sort_keys=True))[:20] + ".json"
    except TypeError as error:
        raise TypeError(f"a run must be described by numbers, text, lists and dicts of them; {error}") from None


@functools.cache
def code() -> dict:
    """lalib's version, and of each room that a run may reach a digest of the code without comments and docstrings."""
    found = {}
    for room in ROOMS:
        files = sorted((LALIB / room).rglob("*.py"))
        parts = [(str(file.relative_to(LALIB)), _form(ast.parse(file.read_text()))) for file in files]
        found[room] = digest(repr(parts))[:12]
    return {"version": importlib.import_module("lalib").__version__, "code": found}


def _form(node):
    """A syntax tree as tuples and lists, without texts that stand alone and what only some versions of Python note."""
    if isinstance(node, ast.AST):
        return type(node).__name__, [
            (name, _form(part)) for name, part in ast.iter_fields(node) if part not in ([], None)
        ]
    if isinstance(node, list):
        return [_form(part) for part in node if not _is_text(part)]
    return node


def _is_text(node) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def difference(record: dict) -> str:
    """In words, by which code a record was made, if not by this one; "" if by this one."""
    theirs, ours = record.get("lalib"), code()["code"]
    if not isinstance(theirs, dict) or not isinstance(theirs.get("code"), dict):
        return f"unknown code (commit {record.get('commit', 'unknown')})"
    rooms = [room for room in ours if theirs["code"].get(room) != ours[room]]
    return f"lalib {theirs.get('version')} (other {', '.join(rooms)})" if rooms else ""


def provenance() -> dict:
    """lalib's version and code, the versions of what it rests on, device and git commit of this run."""
    import numpy
    import sklearn

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} thread(s)"
    versions = {module.__name__: module.__version__ for module in (torch, numpy, sklearn)}
    versions["python"] = platform.python_version()
    made = {"device": device, "versions": versions, "lalib": code(), "commit": _commit(LALIB.parent)}
    return made | {"finished": int(time.time())}


def _commit(root: Path) -> str:
    """The commit of lalib's clone, "unknown" where there is no git or no clone."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.strip()
    except OSError:
        found = ""
    return found or "unknown"


def counted(differences: Iterable[str]) -> str:
    """How many records each code has made: "2 by lalib 0.1.0 (other codes), 1 by unknown code (commit ab)"."""
    return ", ".join(f"{count} by {one}" for one, count in Counter(differences).most_common())


def listing(folder: str | Path) -> list[str]:
    """Which results in a folder this code has made, and which would have to be run again to be so, and who made them.

    A line for the runs of each folder in it, and one for each other .json file, by what its parts say of themselves.
    """
    folder, found = Path(folder), defaultdict(list)
    for path in sorted(folder.rglob("*.json")):
        record = json.loads(path.read_text())
        is_run = isinstance(record, dict) and {"run", "rows"} <= record.keys()
        found[path.parent if is_run else path] += [difference(made) for made in _made(record)] or [difference({})]
    lines = []
    for path, differences in found.items():
        other = [one for one in differences if one]
        told = f"run again: {counted(other)}" if other else f"made by this code, lalib {code()['version']}"
        lines.append(f"{path.relative_to(folder)}: {told}")
    return lines


def _made(record) -> Iterator[dict]:
    """The parts of a file that say by which code something was made; of several commits one after the other."""
    if isinstance(record, dict) and {"lalib", "commit", "commits"} & record.keys():
        commits = record.get("commits", record.get("commit"))
        commits = commits.values() if isinstance(commits, dict) else [commits] if isinstance(commits, str) else commits
        yield from ({"lalib": record.get("lalib"), "commit": one} for one in sorted(set(commits or ["unknown"])))
    elif isinstance(record, dict | list):
        for part in record.values() if isinstance(record, dict) else record:
            yield from _made(part)
