"""The measurements of tests/benchmarks run as they stand, with few codes; `make bench` runs them in full."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lalib.models.networks import PRESETS

pytestmark = pytest.mark.notebook  # each takes as long as one

FOLDER = Path(__file__).parent / "benchmarks"
EXACTLY = ("plain loop", "documents' loop", "exact")  # rivals of the same answer


def run(script, *arguments):
    return subprocess.run([sys.executable, FOLDER / script, *arguments], capture_output=True, text=True)


def rows_of(script, out, *arguments):
    """The rows that it writes; what it prints has a line for each."""
    shown = run(script, "--quick", "--out", out, *arguments)
    assert shown.returncode == 0, shown.stderr
    written = json.loads(out.read_text())
    assert {"commit", "torch", "faiss-cpu", "platform"} <= written["machine"].keys()
    lines = shown.stdout.splitlines()
    for row in written["rows"]:
        assert any(line.startswith(row["name"]) for line in lines)
    return written["rows"]


def check_strategies(rows):
    assert all(row["ours"] > 0 and row["megabytes"] >= 0 for row in rows)
    assert all(row["share"] > 0 for row in rows if row["bound"])
    assert {"core-set", "medal", "margin + diversity", "badge", "typiclust", "batchbald"} <= {
        row["name"] for row in rows
    }
    exact = [row for row in rows if row["rival"] in EXACTLY]
    assert exact
    assert all(row["same"] == 1 for row in exact)


def test_table_of_strategies(tmp_path):
    rows = rows_of("bench_strategies.py", tmp_path / "table.json")
    check_strategies(rows)
    neighbours = [row for row in rows if row["name"] == "neighbours"]
    assert {row["rival"] for row in neighbours} == {"faiss", "scikit-learn"}
    assert all(row["same"] > 0.999 for row in neighbours)  # theirs are in single precision


def test_the_page_with_a_simulated_person(tmp_path):
    shown = run("page.py", "--quick", "--out", tmp_path / "page.json", "--runs", tmp_path / "runs")
    assert shown.returncode == 0, shown.stderr
    written = json.loads((tmp_path / "page.json").read_text())
    assert {"commit", "device", "versions", "used", "saving", "doubts"} <= written.keys()
    rules = {(row["data"], row["kappa"], row["gain"]) for row in written["stop"]}
    assert len(rules) == len(written["stop"]) == 4 * 7 * 5
    assert len(written["counts"]) == 4
    assert all(0 <= row["held"] <= row["of"] for row in written["counts"])


@pytest.mark.parametrize(
    ("script", "rows"),
    [("spreading.py", 2 * 3 * 4), ("stopping.py", 2 * 2), ("few_labels.py", 2 * 3), ("codes_from_views.py", 12)],
)
def test_tables_of_results(script, rows, tmp_path):
    shown = run(script, "--quick", "--out", tmp_path / "table.json")
    assert shown.returncode == 0, shown.stderr
    written = json.loads((tmp_path / "table.json").read_text())
    assert {"commit", "device", "versions"} <= written.keys()
    assert len(shown.stdout.splitlines()) == len(written["rows"]) == rows


def test_table_of_open_rows_goes_on_from_the_seeds_that_are_done(tmp_path):
    table, options = tmp_path / "table.json", ["--out", tmp_path / "table.json", "--runs", tmp_path / "runs"]
    shown = run("open_rows.py", "--quick", "--seeds", "0", "1", *options)
    assert shown.returncode == 0, shown.stderr
    written = json.loads(table.read_text())
    assert [row["seeds"] for row in written["rows"]] == [2]
    assert all({"commit", "device", "lalib"} <= one.keys() and len(one["stages"]) == 3 for one in written["runs"])
    again = run("open_rows.py", "--quick", "--seeds", "0", "1", *options)
    assert again.stdout == shown.stdout.splitlines(keepends=True)[-1]  # nothing was trained
    assert json.loads(table.read_text()) == written


def test_table_of_a_gpu_is_tried_on_the_cpu(tmp_path):
    rows = rows_of("gpu.py", tmp_path / "gpu.json", "--device", "cpu")
    fits = [row for row in rows if row["name"].startswith("fit, ")]
    assert {row["name"] for row in fits} == {f"fit, {preset}" for preset in PRESETS}
    assert all(row["images_per_second"] > 0 and row["share"] > 0 for row in fits)
    assert [row["train"] > 0 for row in rows if row["name"] == "compare"] == [True]
    check_strategies([row for row in rows if "ours" in row])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_at_once():
    shown = run("gpu.py")
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert shown.stderr == "gpu.py measures on a CUDA device and torch finds none here; nothing was measured.\n"
