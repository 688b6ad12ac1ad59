"""Every notebook has the agreed shape, runs at small size, and gives the same again when it is replayed.

Papermill runs it into a temporary folder; nbval replays the executed copy in a new kernel and compares the cells marked
`# NBVAL_CHECK_OUTPUT`. The replay has two threads where xdist's workers have one, so that it trains other maps: what is
marked or asserted must not hang on one of them. The small sizes are in notebook_parameters.py.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from notebook_parameters import SMALL

ROOT = Path(__file__).parent.parent
TWO_THREADS = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}  # sleep while waiting
SMALL_RUNS = ROOT / "runs" / "small"  # from which tests/browser/test_browser_site.py builds the site
NOTEBOOKS = {path.stem: path for path in sorted(ROOT.glob("notebooks/*.ipynb"))}
MARK = "# NBVAL_CHECK_OUTPUT"
each = pytest.mark.parametrize("name", NOTEBOOKS)


def cells(path, kind="code"):
    """The cells of one kind, in order."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def run(path, folder, parameters):
    """Execute the notebook at `path` in `folder` and return the executed copy; ValueError for an unknown parameter."""
    known = papermill.inspect_notebook(str(path))
    if unknown := set(parameters) - set(known):  # papermill itself only logs a warning
        raise ValueError(f"{path.name} takes {sorted(known)}, got {sorted(unknown)}")
    copy = folder / path.name
    papermill.execute_notebook(
        str(path),
        str(copy),
        parameters,
        cwd=str(folder),
        progress_bar=False,
        execution_timeout=300,
        store_widget_state=False,  # 5 MB of JavaScript for plots
    )
    return copy


def replay(copy):
    """Run the executed copy again under nbval: (exit status, report)."""
    options = [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=120",
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")} | TWO_THREADS
    command = [sys.executable, "-m", "pytest", *options, copy.name]
    done = subprocess.run(command, cwd=copy.parent, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_every_notebook_has_small_parameters():
    assert sorted(SMALL) == sorted(NOTEBOOKS)


def values_of_the_cell(name):
    """The one cell tagged `parameters`, of plain literals."""
    tagged = [cell for cell in cells(NOTEBOOKS[name]) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    statements = ast.parse(tagged[0].source).body
    assert all(isinstance(statement, ast.Assign) for statement in statements)
    return {statement.targets[0].id: ast.literal_eval(statement.value) for statement in statements}


@each
def test_takes_parameters(name):
    """With what every notebook takes and what the table sets."""
    values = values_of_the_cell(name)
    assert {"dataset", "seed", "device"} | set(SMALL[name]) <= set(values)
    assert all(isinstance(value, str | int | float | list | None) for value in values.values())


def shipped(name):
    """The keywords of the notebook's call of check_parameters, but `parts`; {} if there is no such call."""
    code = "\n".join(cell.source for cell in cells(NOTEBOOKS[name]) if ".check_parameters(" in cell.source)
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    calls = [call for call in calls if ast.unparse(call.func) == "la.widgets.check_parameters"]
    return {k.arg: ast.literal_eval(k.value) for call in calls for k in call.keywords if k.arg != "parts"}


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if shipped(name)])
def test_checked_parameters_are_those_of_the_cell(name):
    assert shipped(name) == values_of_the_cell(name)


@each
def test_code_cells_are_short(name):
    long = [cell.source for cell in cells(NOTEBOOKS[name]) if len(cell.source.splitlines()) > 20]
    assert long == []


@each
def test_asserts_and_marks_a_result(name):
    code = "\n".join(cell.source for cell in cells(NOTEBOOKS[name]))
    assert re.search(r"^\s*assert ", code, re.MULTILINE)
    assert MARK in code


@each
def test_summary_exercises_solutions_in_this_order(name):
    text = "\n".join(cell.source for cell in cells(NOTEBOOKS[name], "markdown"))
    headings = re.findall(r"^## .*", text, re.MULTILINE)
    assert headings[-3:] == ["## Summary", "## Exercises", "## Solutions"]


@each
def test_pictures_in_the_text_exist(name):
    text = "\n".join(cell.source for cell in cells(NOTEBOOKS[name], "markdown"))
    pictures = re.findall(r"!\[[^\]]*\]\(([^)\s]+)", text)
    assert [picture for picture in pictures if not (ROOT / "notebooks" / picture).is_file()] == []


def test_committed_without_outputs(tmp_path):
    """`make strip` would change none of the notebooks, and would change one that was run."""
    executed, run_before = tmp_path / "executed.ipynb", nbformat.read(NOTEBOOKS["00_start_here"], as_version=4)
    next(cell for cell in run_before.cells if cell.cell_type == "code").execution_count = 1
    nbformat.write(run_before, executed)
    strip = re.search(r"^STRIP := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    command = [sys.executable, *shlex.split(strip), "--dry-run", *NOTEBOOKS.values(), executed]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [f"Dry run: would have stripped {executed}"]


@each
def test_a_plain_papermill_call_finds_the_kernel(name):
    assert nbformat.read(NOTEBOOKS[name], as_version=4).metadata.kernelspec.name == "python3"


@pytest.mark.notebook
@each
def test_runs_at_small_size_and_repeats(name, tmp_path):
    copy = run(NOTEBOOKS[name], tmp_path, SMALL[name])
    unseen = [cell.source for cell in cells(copy) if MARK in cell.source and not cell.outputs]
    assert unseen == []  # nbval would have nothing to compare
    SMALL_RUNS.mkdir(parents=True, exist_ok=True)
    shutil.copy(copy, SMALL_RUNS)
    status, report = replay(copy)
    assert status == 0, report


def tiny(folder, code):
    """A notebook of two cells: a parameter and `code`."""
    new = nbformat.v4
    parameters = new.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new.new_notebook(cells=[parameters, new.new_code_cell(code)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "tiny.ipynb")
    return folder / "tiny.ipynb"


def test_unknown_parameter_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"tiny.ipynb takes \['seed'\], got \['sede'\]"):
        run(tiny(tmp_path, "seed"), tmp_path, {"sede": 1})


@pytest.mark.notebook
def test_unknown_parameter_stops_a_notebook_at_once(tmp_path):
    """Where papermill alone would only log it."""
    path = tiny(tmp_path, "import lalib as la\n\nla.widgets.check_parameters(globals(), seed=0)")
    with pytest.raises(papermill.PapermillExecutionError, match=r"'sede'. Did you mean 'seed'"):
        papermill.execute_notebook(str(path), str(tmp_path / "out.ipynb"), {"sede": 1}, progress_bar=False)


@pytest.mark.notebook
@pytest.mark.parametrize(("code", "status"), [("seed * 2", 0), ("import time; time.time_ns()", 1)])
def test_replay_compares_marked_cells(tmp_path, code, status):
    """The check itself: a repeatable cell passes, one that gives something else each time does not."""
    (tmp_path / "run").mkdir()
    copy = run(tiny(tmp_path, f"{MARK}\n{code}"), tmp_path / "run", {"seed": 3})
    assert replay(copy)[0] == status
