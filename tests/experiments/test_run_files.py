"""Runs on disk: nothing is run twice, nothing finished is lost, whoever computes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from forks import FORKS, run_code, run_script

import lalib as la
from lalib import LalibError
from lalib.experiments import records, run_files as runs
from lalib.experiments.records import file_name
from lalib.experiments.run_files import run_all
from lalib.strategies import Selection, Setting, Source, Strategy


class _Square:
    """Rows of a run, and a note of each call in a file of its own; breaks on `break_on`."""

    def __init__(self, log, break_on=None, error=KeyboardInterrupt):
        self.log, self.break_on, self.error = log, break_on, error
        log.mkdir(exist_ok=True)

    def __call__(self, run):
        x = run["x"]
        (self.log / f"{x}-{len(list(self.log.glob(f'{x}-*')))}").touch()
        if x == self.break_on:
            raise self.error
        return [{"x": x, "square": x * x}, {"x": x, "square": -x * x}]

    def calls(self):
        return sorted(path.name for path in self.log.iterdir())


@pytest.fixture
def square(tmp_path):
    return _Square(tmp_path / "log")


def _runs(*xs):
    return [{"x": x} for x in xs]


def _run_all(function, runs, out, **options):
    return run_all(function, runs, out, progress=False, **options)


def test_rows_come_in_the_order_of_the_runs(square, tmp_path):
    frame = _run_all(square, _runs(3, 1, 2), tmp_path / "deep" / "out")
    assert frame["x"].tolist() == [3, 3, 1, 1, 2, 2]
    assert frame["square"].tolist() == [9, -9, 1, -1, 4, -4]


def test_finished_runs_are_not_repeated(square, tmp_path):
    out = tmp_path / "out"
    first = _run_all(square, _runs(1, 2), out)
    assert _run_all(square, _runs(1, 2), out).equals(first)
    assert _run_all(square, _runs(2, 3), out)["x"].tolist() == [2, 2, 3, 3]
    assert square.calls() == ["1-0", "2-0", "3-0"]


def test_a_record_says_where_it_comes_from(square, tmp_path):
    _run_all(square, _runs(2), tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    record = json.loads(path.read_text())
    assert record["run"] == {"x": 2}
    assert record["rows"][0] == {"x": 2, "square": 4}
    assert record["versions"]["torch"] == torch.__version__
    assert {"device", "commit", "seconds", "finished"} <= record.keys()


@pytest.mark.parametrize("damage", ["", "{", '{"run": {}}', "[1]", '{"rows"'])
def test_a_damaged_file_is_reported_and_its_run_done_again(damage, square, tmp_path):
    out = tmp_path / "out"
    first = _run_all(square, _runs(1, 2), out)
    path = out / file_name({"x": 2})
    path.write_text(damage)
    with pytest.warns(UserWarning, match="is damaged .*; its run is done again"):
        again = _run_all(square, _runs(1, 2), out)
    assert again.equals(first)
    assert square.calls() == ["1-0", "2-0", "2-1"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_was_finished_before_an_interruption_is_kept(error, tmp_path):
    out, broken = tmp_path / "out", _Square(tmp_path / "log", break_on=2, error=error)
    with pytest.raises(error):
        _run_all(broken, _runs(1, 2, 3), out)
    assert [path.name for path in out.iterdir()] == [file_name({"x": 1})]
    broken.break_on = None
    assert len(_run_all(broken, _runs(1, 2, 3), out)) == 6
    assert broken.calls() == ["1-0", "2-0", "2-1", "3-0"]


def test_nothing_half_written_remains(square, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        _run_all(square, _runs(1), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_no_runs(square, tmp_path):
    assert len(_run_all(square, [], tmp_path / "out")) == 0


@pytest.mark.parametrize("jobs", [0, -1])
def test_jobs_must_be_at_least_one(jobs, square, tmp_path):
    with pytest.raises(ValueError, match=f"jobs must be at least 1, got {jobs}"):
        _run_all(square, _runs(1), tmp_path / "out", jobs=jobs)


def test_progress_counts_the_runs_left(square, tmp_path, capsys):
    run_all(square, _runs(1, 2), tmp_path / "out")
    assert "2/2" in capsys.readouterr().err


def test_the_commit_where_there_is_no_git(monkeypatch, tmp_path):
    assert records._commit(tmp_path) == "unknown"
    monkeypatch.setitem(os.environ, "PATH", str(tmp_path))
    assert records._commit(tmp_path) == "unknown"


def test_every_run_is_told_of_those_on_disk_first(square, tmp_path):
    told = []
    _run_all(square, _runs(2), tmp_path / "out")
    _run_all(square, _runs(1, 2, 3), tmp_path / "out", on_run=lambda rows: told.append(rows[0]["x"]))
    assert told == [2, 1, 3]


def test_a_run_that_another_comparison_finished_meanwhile_is_not_repeated(square, tmp_path):
    out = tmp_path / "out"

    def other(rows):
        if rows[0]["x"] == 1:
            _run_all(square, _runs(2), out)

    assert _run_all(square, _runs(1, 2), out, on_run=other)["x"].tolist() == [1, 1, 2, 2]
    assert square.calls() == ["1-0", "2-0"]


# Runs in groups


class _Squares:
    """The squares of a group, and a note of each call in a file of its own."""

    def __init__(self, log):
        self.log = log
        log.mkdir(exist_ok=True)

    def __call__(self, group):
        names = "-".join(str(run["x"]) for run in group)
        (self.log / f"{names} {len(list(self.log.glob(f'{names} *')))}").touch()
        return [[{"x": run["x"], "square": run["x"] ** 2}] for run in group]

    def calls(self):
        return sorted(path.name for path in self.log.iterdir())


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_group_is_computed_whole_and_every_run_has_its_file(jobs, tmp_path):
    squares, out, runs_ = _Squares(tmp_path / "log"), tmp_path / "out", _runs(*range(5))
    groups, told = [[runs_[0], runs_[3]], [runs_[4], runs_[1]], [runs_[2]]], []

    def table():
        return _run_all(squares, runs_, out, groups=groups, jobs=jobs, on_run=lambda rows: told.append(rows[0]["x"]))

    first = table()
    assert first["x"].tolist() == list(range(5))
    assert first["square"].tolist() == [0, 1, 4, 9, 16]
    assert len(list(out.iterdir())) == 5
    assert told == [0, 3, 4, 1, 2] or (jobs == 2 and sorted(told) == list(range(5)))
    kept = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    lost = out / file_name({"x": 4})
    lost.unlink()
    told.clear()
    assert table().equals(first)
    assert told == [0, 1, 2, 3, 4]
    assert {path for path in kept if path.stat().st_mtime_ns != kept[path]} == {lost}
    assert squares.calls() == ["0-3 0", "2 0", "4-1 0", "4-1 1"]


def test_progress_counts_the_runs_of_groups(tmp_path, capsys):
    squares, runs_ = _Squares(tmp_path / "log"), _runs(1, 2, 3)
    run_all(squares, runs_, tmp_path / "out", groups=[runs_[:2], runs_[2:]])
    assert "3/3" in capsys.readouterr().err


def test_the_seconds_of_a_group_are_shared(tmp_path):
    def slow(group):
        time.sleep(0.3)
        return [[] for _ in group]

    _run_all(slow, _runs(1, 2, 3), tmp_path, groups=[_runs(1, 2, 3)])
    seconds = [json.loads(path.read_text())["seconds"] for path in tmp_path.iterdir()]
    assert len(seconds) == 3
    assert seconds == pytest.approx([0.1] * 3, abs=0.09)


def _wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


SLOW = """
import time
from lalib.experiments.run_files import run_all

def slow(run):
    time.sleep(0.2)
    return [{"x": run["x"]}]

run_all(slow, [{"x": x} for x in range(40)], out, progress=False)
"""


def test_killed_and_started_again_it_goes_on(tmp_path):
    out = tmp_path / "out"
    child = run_code(SLOW, out=out)
    try:
        _wait_for(lambda: len(list(out.glob("*.json"))) >= 3)
    finally:
        child.kill()
        child.join()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert 3 <= len(kept) < 40
    frame = _run_all(lambda run: [{"x": run["x"]}], _runs(*range(40)), out)
    assert frame["x"].tolist() == list(range(40))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


QUICK = {"task": la.Task(steps=5), "initial": 10, "step": 5, "device": "cpu", "progress": False}
KILLED = """
import os, time
import torch
import lalib as la

def replace(source, target, plain=os.replace):
    if len(list(out.glob("[!.]*.json"))) == files:
        time.sleep(1000)  # until it is killed
    plain(source, target)

os.replace = replace
torch.set_num_threads(threads)  # it rounds
images, test = la.load("digits").subset(range(250)), la.load("digits", "test").subset(range(100))
la.compare(images, test, strategies=["random", "margin"], rounds=2, seeds=7, out=out, **quick)
"""


def test_killed_and_started_again_it_ends_with_the_same_table(digits, held_out, tmp_path):
    """The first time within the files of a group, the second time in a later group."""
    out, kept = tmp_path / "out", {}
    for files in (1, 6):
        child = run_code(KILLED, out=out, files=files, threads=torch.get_num_threads(), quick=QUICK)
        try:
            _wait_for(lambda files=files: len(list(out.glob("[!.]*.json"))) >= files, seconds=100)
        finally:
            child.kill()
            child.join()
        now = {path: path.stat().st_mtime_ns for path in out.glob("[!.]*.json")}
        assert now.items() >= kept.items()
        kept = now
    assert files <= len(kept) < 14
    table, unbroken = (
        la.compare(digits, held_out, strategies=["random", "margin"], rounds=2, seeds=7, out=folder, **QUICK)
        for folder in (out, tmp_path / "here")
    )
    seconds = ["train_seconds", "select_seconds"]
    assert table.drop(columns=seconds).equals(unbroken.drop(columns=seconds))
    assert len(list(out.glob("[!.]*.json"))) == 14
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


# In processes


def test_processes_give_the_same_table(square, tmp_path):
    runs = _runs(*range(4))
    assert _run_all(square, runs, tmp_path / "two", jobs=2).equals(_run_all(square, runs, tmp_path / "one"))


def test_processes_give_the_same_comparison(digits, held_out, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes have
    try:
        one, two = (
            la.experiments.compare_query_sets(
                digits,
                held_out,
                encoder={"model": "VAE", "latent_dim": 2, "epochs": 2},
                strategies=["random", "cluster"],
                sizes=[20],
                ratios=[1],
                seeds=2,
                steps=20,
                out=tmp_path / str(jobs),
                jobs=jobs,
                progress=False,
            )
            for jobs in (1, 2)
        )
    finally:
        torch.set_num_threads(threads)
    assert one.equals(two)


def coolness(model, power):
    return (1 - model.probs().amax(dim=1)) ** power


def coolest(view, n, *, generator):
    return Selection(view.unlabeled[view.cool[view.unlabeled].argsort(descending=True, stable=True)[:n]])


def test_a_strategy_with_a_source_of_its_own_travels_to_processes(digits, held_out, tmp_path):
    cool = Source("cool", "(N,)", "cool=values, one per image", coolness, {"power": Setting(1.0)})
    strategy = Strategy("coolest", coolest, needs=(cool,), several=False)
    table = la.compare(digits, held_out, strategies=[strategy], rounds=1, seeds=2, out=tmp_path, jobs=2, **QUICK)
    assert table["strategy"].unique().tolist() == ["coolest"]


class _Dies:
    """Kills its process at x = 1: once, or every time."""

    def __init__(self, log, always):
        self.log, self.always = Path(log), always
        self.log.mkdir(exist_ok=True)

    def __call__(self, run):
        if run["x"] == 1 and (self.always or not any(self.log.iterdir())):
            (self.log / f"{len(list(self.log.iterdir()))}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [{"x": run["x"]}]


def test_a_process_that_dies_is_replaced(tmp_path):
    frame = _run_all(_Dies(tmp_path / "log", always=False), _runs(0, 1, 2, 3), tmp_path / "out", jobs=2)
    assert frame["x"].tolist() == [0, 1, 2, 3]


@contextlib.contextmanager
def _forked():
    """Processes that joblib starts inside are forks of the server."""
    from joblib.externals.loky.backend.context import set_start_method

    set_start_method(FORKS.get_start_method(), force=True)
    try:
        yield
    finally:
        set_start_method(None, force=True)


def test_processes_are_other_processes_and_keep_what_is_finished(tmp_path):
    out, broken = tmp_path / "out", _Square(tmp_path / "log", break_on=3, error=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        _run_all(broken, _runs(0, 1, 2, 3), out, jobs=2)
    kept = [x for x in range(4) if (out / file_name({"x": x})).exists()]  # not all: one process may start late
    assert kept
    assert 3 not in kept
    broken.break_on = None
    with _forked():
        assert _run_all(broken, _runs(0, 1, 2, 3), out, jobs=2)["x"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not {f"{x}-1" for x in kept} & set(broken.calls())


def test_a_process_that_dies_every_time_is_reported_and_the_others_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "TRIES", 2)  # each starts two processes
    log, out = tmp_path / "log", tmp_path / "out"
    _run_all(_Dies(log, always=True), _runs(0, 2), out)
    said = r"a process died 2 times in a row; what was finished is in .*: call again"
    with _forked(), pytest.raises(LalibError, match=said):
        _run_all(_Dies(log, always=True), _runs(0, 1, 2), out, jobs=2)
    assert len(list(log.iterdir())) == 2
    assert len(list(out.glob("*.json"))) == 2


# On a real Dask cluster of worker processes


@pytest.fixture(scope="module")
def cluster():
    import dask
    from distributed import LocalCluster

    forkserver.ensure_running()  # before Dask says what it shall have imported
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": FORKS.get_start_method()}),
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
    ):
        yield cluster


class _Pid:
    """A row with the process it was computed in; leaves a note of having begun, and takes a while."""

    def __init__(self, log, seconds=0.0, fails_at=None):
        self.log, self.seconds, self.fails_at = Path(log), seconds, fails_at
        self.log.mkdir(exist_ok=True)

    def __call__(self, run):
        (self.log / f"{run['x']}-{os.getpid()}").touch()
        time.sleep(self.seconds)
        if run["x"] == self.fails_at:
            raise ZeroDivisionError(f"run {run['x']}")
        return [{"x": run["x"], "pid": os.getpid(), "threads": torch.get_num_threads()}]


@pytest.mark.parametrize("form", ["client", "address"])
def test_a_cluster_computes_and_this_process_writes(form, cluster, tmp_path):
    from distributed import Client

    function = _Pid(tmp_path / "log", seconds=0.1)
    with Client(cluster) as client:
        given = client if form == "client" else cluster.scheduler_address
        frame = _run_all(function, _runs(*range(8)), tmp_path / "out", cluster=given)
        assert client.status == "running"
    assert frame["x"].tolist() == list(range(8))
    assert os.getpid() not in set(frame["pid"])
    assert set(frame["threads"]) == {1}
    assert len(list((tmp_path / "out").glob("*.json"))) == 8
    assert _run_all(function, _runs(*range(8)), tmp_path / "out").equals(frame)


def test_a_cluster_computes_groups(cluster, tmp_path):
    squares, out, runs_ = _Squares(tmp_path / "log"), tmp_path / "out", _runs(*range(5))
    options = {"groups": [runs_[:3], runs_[3:]], "cluster": cluster.scheduler_address}
    frame = _run_all(squares, runs_, out, **options)
    assert frame["square"].tolist() == [0, 1, 4, 9, 16]
    (out / file_name({"x": 1})).unlink()
    assert _run_all(squares, runs_, out, **options).equals(frame)
    assert squares.calls() == ["0-1-2 0", "0-1-2 1", "3-4 0"]


def test_a_worker_that_is_killed_loses_nothing(cluster, tmp_path):
    log, killed = tmp_path / "log", []

    def kill_one(rows):
        if not killed:
            _wait_for(lambda: len(list(log.iterdir())) >= 3)
            begun = max(log.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            killed.append(int(begun.name.split("-")[1]))
            os.kill(killed[0], signal.SIGKILL)

    frame = _run_all(
        _Pid(log, seconds=0.4), _runs(*range(8)), tmp_path / "out", cluster=cluster.scheduler_address, on_run=kill_one
    )
    assert frame["x"].tolist() == list(range(8))
    assert len(list(log.iterdir())) > 8  # the interrupted run was begun twice
    assert len(list((tmp_path / "out").glob("*.json"))) == 8


def test_a_run_that_fails_on_the_cluster_says_why_and_keeps_the_others(cluster, tmp_path):
    function, out = _Pid(tmp_path / "log", seconds=0.05, fails_at=5), tmp_path / "out"
    with pytest.raises(ZeroDivisionError, match="run 5"):
        _run_all(function, _runs(*range(6)), out, cluster=cluster.scheduler_address)
    kept = len(list(out.glob("*.json")))
    assert 1 <= kept <= 5
    function.fails_at = None
    assert _run_all(function, _runs(*range(6)), out, cluster=cluster.scheduler_address)["x"].tolist() == list(range(6))


SCRIPT = """
import sys
import lalib as la
images, test = la.load("digits").subset(range(250)), la.load("digits", "test").subset(range(100))
def lowest(view, n, *, generator):
    return la.strategies.Selection(view.unlabeled[:n])
la.compare(images, test, strategies=["random", lowest], task=la.Task(steps=5), initial=10, step=5, rounds=1, seeds=2,
           out=sys.argv[1], device="cpu", progress=False, jobs=int(sys.argv[2]), cluster=sys.argv[3] or None)
"""


def lowest(view, n, *, generator):
    return Selection(view.unlabeled[:n])


@pytest.fixture(scope="module")
def here(digits, held_out, tmp_path_factory):
    """The table of SCRIPT, of this process."""
    out = tmp_path_factory.mktemp("here")
    return la.compare(digits, held_out, strategies=["random", lowest], rounds=1, seeds=2, out=out, **QUICK)


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_processes_and_a_cluster_give_the_same_table(where, here, request, tmp_path):
    """A strategy defined in a script travels to other processes, too; two scripts in one folder do no harm."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    if where == "cluster":
        child = run_script(script, str(out), "1", request.getfixturevalue("cluster").scheduler_address)
    else:
        command = [sys.executable, str(script), str(out), "2", ""]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
            child = run_script(script, str(out), "1", "")
            _, said = first.communicate(timeout=300)
        assert first.returncode == 0, said
    child.join(300)
    assert child.exitcode == 0
    records = [json.loads(path.read_text()) for path in out.iterdir()]
    assert len(records) == 4
    seen = {(row["strategy"], row["seed"], row["round"]): row for record in records for row in record["rows"]}
    for row in here.itertuples():
        there = seen[row.strategy, row.seed, row.round]
        assert there["picked"] == row.picked
        assert there["accuracy"] == pytest.approx(row.accuracy, abs=0.03)  # the number of threads rounds


def test_processes_or_a_cluster(square, tmp_path):
    with pytest.raises(ValueError, match="give jobs or cluster, not both: got jobs=2 and a cluster"):
        _run_all(square, _runs(1), tmp_path / "out", jobs=2, cluster="tcp://127.0.0.1:1")
