"""What a run's file says is believed only if it is right; with which code it was made is said and counted."""

import errno
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from forks import run_code

import lalib as la
from lalib import LalibError
from lalib.experiments import compare_maps, compare_query_sets, records
from lalib.experiments.records import ROOMS, code, file_name, listing, number, share
from lalib.experiments.run_files import run_all
from lalib.strategies import Selection

RESULTS = Path(la.__file__).parents[1] / "data" / "results"
QUICK = {"task": la.Task(steps=2), "initial": 10, "step": 5, "rounds": 2, "device": "cpu", "progress": False}
SECONDS = ["train_seconds", "select_seconds"]


def _squares(run):
    return [{"x": run["x"], "square": float(run["x"] ** 2)} for _ in range(2)]


def _expected(run):
    return [{"x": run["x"], "square": number}] * 2


def _runs(*xs):
    return [{"x": x} for x in xs]


def _run_all(out, *xs, function=_squares, **options):
    return run_all(function, _runs(*xs), out, expected=_expected, progress=False, **options)


def _altered(**changes):
    return lambda record: record | changes


def _row(**changes):
    return lambda record: record | {"rows": [record["rows"][0], record["rows"][1] | changes]}


DAMAGED = {  # what stands in the file, and the reason told
    "nothing": ("", "Expecting value"),
    "half": (lambda record: json.dumps(record)[:60], "Expecting|Unterminated"),
    "a list": ([], "it has no run and rows"),
    "rows alone": ({"rows": []}, "it has no run and rows"),
    "deep": ("[" * 100_000, "recursion"),
    "no text": (b"\xff\xfe\x00", "codec can't decode"),
    "a folder": (Path, "Is a directory"),
    "a number of rows": (_altered(rows=5), "its rows are no list of columns by name"),
    "rows of numbers": (_altered(rows=[1, 2]), "its rows are no list of columns by name"),
    "no rows": (_altered(rows=[]), "it has 0 rows instead of 2"),
    "a missing row": (lambda record: record | {"rows": record["rows"][:1]}, "it has 1 rows instead of 2"),
    "another run": (_altered(run={"x": 3}), "it is of another run"),
    "no run": (_altered(run=None), "it is of another run"),
    "NaN": (_row(square=float("nan")), "square is nan in row 1"),
    "infinity": (_row(square=float("inf")), "square is inf in row 1"),
    "NaN in a list": (_row(more=[float("nan")]), r"more is \[nan\] in row 1"),
    "text": (_row(square="4.0"), "square is '4.0' in row 1"),
    "truth": (_row(square=True), "square is True in row 1"),
    "another number": (_row(x=7), "x is 7 in row 1"),
    "a missing column": (lambda record: record | {"rows": [{"x": 2}] * 2}, "square is None in row 0"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_not_right_is_set_aside_and_done_again(damage, tmp_path):
    first, (content, reason) = _run_all(tmp_path, 1, 2), DAMAGED[damage]
    path = tmp_path / file_name({"x": 2})
    content = content(json.loads(path.read_text())) if callable(content) and content is not Path else content
    path.unlink()
    if content is Path:
        path.mkdir()
        (path / "kept").touch()
    else:
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        content = path.read_bytes()
    with pytest.warns(UserWarning, match=rf"is damaged \(.*({reason}).*\); its run is done again and it is set aside"):
        assert _run_all(tmp_path, 1, 2).equals(first)
    (aside,) = tmp_path.glob(f"{path.stem}.damaged-*")
    assert (aside / "kept").exists() if content is Path else aside.read_bytes() == content
    assert _run_all(tmp_path, 1, 2, function=None).equals(first)  # which computes nothing, and warns of nothing


def test_what_would_not_be_believed_is_not_written(tmp_path):
    def failing(run):
        return [{"x": run["x"], "square": float("nan")}] * 2

    with pytest.raises(LalibError, match="a run gave what no table may hold: square is nan in row 0"):
        _run_all(tmp_path, 1, function=failing)
    assert not list(tmp_path.iterdir())


def _of(compare, tmp_path, **options):
    digits, test = la.load("digits").subset(range(120)), la.load("digits", "test").subset(range(60))
    encoder = {"model": "CAE", "latent_dim": 2, "epochs": 1}
    given = {
        la.compare: {**QUICK, "seeds": 2},
        compare_query_sets: {"encoder": encoder, "sizes": [9, 12], "ratios": [1], "steps": 2, "strategies": ["random"]},
        compare_maps: {"models": {"a": encoder}},
    }[compare]
    return compare(digits, test, out=tmp_path, **{"seeds": 1, "progress": False, **given, **options})


MEASURED = {
    la.compare: ("accuracy", "labels", "round", "picked", "counts", "strategy", "seed", *SECONDS),
    compare_query_sets: ("accuracy", "balance", "classes", "labels", "ratio", "strategy", "seed"),
    compare_maps: ("one_nn_error", "trustworthiness", "mae", "model", "seed"),
}


@pytest.mark.parametrize("compare", MEASURED, ids=lambda compare: compare.__name__)
def test_every_comparison_says_what_its_rows_must_hold(compare, tmp_path):
    first = _of(compare, tmp_path)
    kept = {path: path.read_text() for path in tmp_path.iterdir()}
    assert _of(compare, tmp_path).equals(first)
    path = min(kept)
    for column in MEASURED[compare]:
        record = json.loads(kept[path])
        record["rows"][-1][column] = -1
        path.write_text(json.dumps(record))
        found = records.Records(tmp_path, _expected_of(compare))
        with pytest.warns(UserWarning, match=rf"is damaged \({column} is -1 in row {len(record['rows']) - 1}\)"):
            assert found.find(record["run"], tell=True) is None
    record["rows"].pop()
    path.write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="rows instead of"):
        again = _of(compare, tmp_path)
    assert again.drop(columns=SECONDS, errors="ignore").equals(first.drop(columns=SECONDS, errors="ignore"))


def _expected_of(compare):
    from lalib.experiments import comparison

    names = {la.compare: "_learnt", compare_query_sets: "_worth", compare_maps: "_measured"}
    return getattr(comparison, names[compare])


@pytest.mark.parametrize(
    ("value", "is_number", "is_share"),
    [
        *[(0, True, True), (1, True, True), (2.5, True, False), (-0.1, False, False), (float("nan"), False, False)],
        *[(float("inf"), False, False), (True, False, False), ("1", False, False), (None, False, False)],
    ],
)
def test_numbers(value, is_number, is_share):
    assert (number(value), share(value)) == (is_number, is_share)


def test_the_records_that_ship_are_believed():
    from lalib.experiments import comparison

    paths = sorted(RESULTS.glob("*/*.json"))
    runs = {path: record["run"] for path in paths if "run" in (record := json.loads(path.read_text()))}
    assert len(runs) >= 60
    for path, run in runs.items():
        expected = comparison._worth if "sizes" in run else comparison._measured
        assert path.name == file_name(run)
        assert records.Records(path.parent, expected).find(run, tell=True)


# With which code


def test_the_code_counts_and_not_what_it_says_of_itself(tmp_path, monkeypatch):
    for room in ("data", "training"):
        shutil.copytree(records.LALIB / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    before, fresh = code()["code"], code.__wrapped__
    monkeypatch.setattr(records, "LALIB", tmp_path)
    monkeypatch.setattr(records, "ROOMS", ("data", "training"))

    def changed(path, old, new):
        text = (tmp_path / path).read_text()
        (tmp_path / path).write_text(text.replace(old, new, 1))
        assert (tmp_path / path).read_text() != text
        return [room for room, now in fresh()["code"].items() if now != before[room]]

    assert changed("data/files.py", '"""A temporary name beside', '"""Some other name beside') == []
    assert changed("data/files.py", "import uuid\n", "# a comment\n\n\nimport uuid\n") == []
    assert changed("training/__init__.py", "import", "import os, sys\nfrom random import") == ["training"]
    assert changed("data/files.py", '"rb"', '"br"') == ["data", "training"]


OTHER = {"version": "0.0.9", "code": dict.fromkeys(ROOMS, "0" * 12) | {"data": code()["code"]["data"]}}


def _by_other_code(folder, *changes):
    """Change who is said to have made the records, one after the other; None for nobody."""
    for path, made in zip(sorted(folder.glob("*.json")), changes, strict=True):
        record = json.loads(path.read_text())
        assert record["lalib"] == code()
        record |= {"lalib": made}
        path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


TOLD = (
    r"3 of the 4 runs in .* were made by other code of lalib: "
    r"2 by lalib 0\.0\.9 \(other models, training, codes, strategies, experiments\), 1 by unknown code \(commit \w+.*\)"
)


def test_runs_by_other_code(tmp_path):
    first = _run_all(tmp_path, 0, 1, 2, 3)
    assert _run_all(tmp_path, 0, 1, 2, 3, stale="refuse").equals(first)
    _by_other_code(tmp_path, OTHER, OTHER, None, code() | {"version": "0.0.8"})  # another version of the same code
    kept = {path: path.read_text() for path in tmp_path.iterdir()}
    with pytest.warns(UserWarning, match=f"{TOLD}; they are taken as they are") as said:
        assert _run_all(tmp_path, 0, 1, 2, 3, function=None).equals(first)
    assert len(said) == 1
    with pytest.raises(LalibError, match=f"{TOLD}; stale='redo' does them again, 'warn' takes them"):
        _run_all(tmp_path, 0, 1, 2, 3, 4, stale="refuse")
    assert {path: path.read_text() for path in tmp_path.iterdir()} == kept
    assert _run_all(tmp_path, 0, 1, 2, 3, stale="redo").equals(first)
    changed = [path for path in kept if path.read_text() != kept[path]]
    assert len(changed) == 3
    assert len(list(tmp_path.iterdir())) == 4
    assert _run_all(tmp_path, 0, 1, 2, 3, function=None, stale="refuse").equals(first)


@pytest.mark.parametrize("made", [5, [], {}, {"version": 1}, {"code": 3}, {"code": {"data": 1}}])
def test_odd_words_on_the_code_are_other_code(made, tmp_path):
    _run_all(tmp_path, 0)
    _by_other_code(tmp_path, made)
    with pytest.raises(
        LalibError, match=r"1 of the 1 runs .* by (unknown code|lalib None \(other data, .*experiments)"
    ):
        _run_all(tmp_path, 0, stale="refuse")


@pytest.mark.parametrize("compare", MEASURED, ids=lambda compare: compare.__name__)
def test_every_comparison_asks_what_becomes_of_other_code(compare, tmp_path):
    first = _of(compare, tmp_path)
    paths = list(tmp_path.iterdir())
    _by_other_code(tmp_path, *[OTHER] * len(paths))
    with pytest.warns(UserWarning, match=f"{len(paths)} of the {len(paths)} runs in .* were made by other code"):
        assert _of(compare, tmp_path).equals(first)
    with pytest.raises(LalibError, match="were made by other code"):
        _of(compare, tmp_path, stale="refuse")
    _of(compare, tmp_path, stale="redo")
    assert [json.loads(path.read_text())["lalib"] for path in paths] == [code()] * len(paths)


def test_the_list_of_results(tmp_path, capsys):
    for folder in ("new", "old", "mixed"):
        _run_all(tmp_path / folder, 0, 1)
    _by_other_code(tmp_path / "old", OTHER, OTHER)
    _by_other_code(tmp_path / "mixed", code(), None)
    for name, said in {
        "table": {"what": "a table", "lalib": code(), "commit": "abc"},
        "two": {"runs": {"a": {"commits": ["ab", "cd"]}, "b": {"commit": "ab"}}},
        "each": {"commits": {"random": "ab", "margin": "cd"}},
        "silent": [1, 2],
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(said))
    version = code()["version"]
    commit = json.loads(next((tmp_path / "new").iterdir()).read_text())["commit"]
    lines = dict(line.split(": ", 1) for line in listing(tmp_path))
    assert lines == {
        "new": f"made by this code, lalib {version}",
        "old": "run again: 2 by lalib 0.0.9 (other models, training, codes, strategies, experiments)",
        "mixed": f"run again: 1 by unknown code (commit {commit})",
        "table.json": f"made by this code, lalib {version}",
        "two.json": "run again: 2 by unknown code (commit ab), 1 by unknown code (commit cd)",
        "each.json": "run again: 1 by unknown code (commit ab), 1 by unknown code (commit cd)",
        "silent.json": "run again: 1 by unknown code (commit unknown)",
    }
    assert (
        len(listing(RESULTS))
        == len({*RESULTS.glob("*.json"), *RESULTS.glob("compare/*.json"), *RESULTS.glob("held-out/*.json")}) + 3
    )


# Which run failed


def raising(view, n, *, generator):
    if len(view.labeled) > 10:
        raise ZeroDivisionError("by the strategy")
    return Selection(view.unlabeled[:n])


def leaving(view, n, *, generator):
    raise SystemExit(3)


def recording_nan(view, n, *, generator):
    return Selection(view.unlabeled[:n], record={"doubt": float("nan")})


def printing(view, n, *, generator):
    print("chosen")
    return Selection(view.unlabeled[:n])


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_strategy_and_the_seed_that_failed_are_named(jobs, tmp_path):
    with pytest.raises(ZeroDivisionError, match="by the strategy") as caught:
        _of(la.compare, tmp_path, strategies={"random": "random", "mine": raising}, seeds=[4, 7], jobs=jobs)
    assert "in strategy 'raising', seed 4, round 2" in caught.value.__notes__
    assert any(note.startswith("in the run of label 'mine', seed 4") for note in caught.value.__notes__)
    assert len(list(tmp_path.glob("*.json"))) == 2 or jobs == 2  # random's


def test_the_query_set_that_failed_is_named(tmp_path):
    mine = la.strategies.Strategy("mine", leaving, needs=())
    with pytest.raises(LalibError, match=r"strategy 'bad', 9 labels asked Python to end: sys.exit\(3\)") as caught:
        _of(compare_query_sets, tmp_path, strategies={"bad": mine}, seeds=[4])
    assert caught.value.__notes__ == ["in the run of ratio 1.0, seed 4"]


def test_strategies_that_leave_print_or_record_what_is_no_number(tmp_path, capsys):
    with pytest.raises(LalibError, match=r"strategy 'leaving', seed 0, round 1 asked Python to end: sys.exit\(3\)"):
        _of(la.compare, tmp_path, strategies=[leaving])
    with pytest.raises(LalibError, match="a run gave what no table may hold: doubt is nan in row 1") as caught:
        _of(la.compare, tmp_path, strategies=[recording_nan])
    assert caught.value.__notes__ == ["in the run of label 'recording_nan', seed 0"]
    assert not list(tmp_path.iterdir())
    assert _of(la.compare, tmp_path, strategies=[printing])["labels"].tolist() == [10, 15, 20] * 2


# Killed, interrupted, without room: while a file is written


WRITING = """
import os, signal, time
from pathlib import Path
from lalib.experiments import records, run_files

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background would not have
records.code = lambda: known  # which takes longer than all the rest
run_files.provenance = lambda: {"lalib": known}

def pause(now):
    if now == stage and len(list(out.glob("*.json"))) >= files:
        (out.parent / f"{files} {stage}").touch()
        time.sleep(1000)  # until it is killed

def write_text(path, text, plain=Path.write_text):
    plain(path, text[: len(text) // 2])
    pause("half written")
    plain(path, text)
    pause("written")

def replace(source, target, plain=os.replace):
    plain(source, target)
    pause("in place")

Path.write_text, os.replace = write_text, replace
runs = [{"x": x} for x in range(25)]
run_files.run_all(lambda run: [{"x": run["x"], "square": float(run["x"] ** 2)}] * 2, runs, out, progress=False)
"""


def _interrupted(out, files, stage, by):
    """Start the comparison, and end it in this way once it has so many files and is at this stage of the next."""
    child, reached = run_code(WRITING, out=out, files=files, stage=stage, known=code()), out.parent / f"{files} {stage}"
    try:
        end = time.monotonic() + 100
        while not reached.exists():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.01)
        os.kill(child.pid, by)
        child.join(100)
    finally:
        child.kill()
        child.join()
    return child.exitcode


def _finished(out):
    return {path: (path.stat().st_mtime_ns, json.loads(path.read_text())["rows"]) for path in out.glob("*.json")}


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_killed_20_times_while_files_are_written(by, tmp_path):
    out, kept = tmp_path / "out", {}
    for files in range(20 if by == signal.SIGKILL else 3):
        stage = ("half written", "written", "in place")[files % 3]
        assert _interrupted(out, files, stage, by) == (-by if by == signal.SIGKILL else 1)
        now = _finished(out)
        assert now.items() >= kept.items()
        assert files <= len(now) <= files + 1
        kept = now
    table = _run_all(out, *range(25))
    assert table.equals(_run_all(tmp_path / "unbroken", *range(25)))
    assert _finished(out).items() >= kept.items()
    left = [path for path in out.iterdir() if path.suffix != ".json" or path.name[0] == "."]
    assert len(left) == (14 if by == signal.SIGKILL else 0)  # a killed process cannot tidy up


def test_a_full_disk(tmp_path, monkeypatch):
    room, plain = [3], Path.write_text

    def write_text(path, text):
        if not room[0]:
            plain(path, text[: len(text) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        room[0] -= 1
        return plain(path, text)

    monkeypatch.setattr(Path, "write_text", write_text)
    with pytest.raises(OSError, match="No space left on device") as caught:
        _run_all(tmp_path, *range(5))
    assert caught.value.errno == errno.ENOSPC
    kept = _finished(tmp_path)
    assert len(kept) == len(list(tmp_path.iterdir())) == 3
    room[0] = 9
    assert _run_all(tmp_path, *range(5))["x"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert _finished(tmp_path).items() >= kept.items()


def test_a_folder_that_can_only_be_read(tmp_path, monkeypatch):
    """Finished runs are read; one that must be done is refused before it begins."""
    first, begun = _run_all(tmp_path, 0, 1), []

    def refused(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

    for name in ("TemporaryFile", "NamedTemporaryFile", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refused)
    assert _run_all(tmp_path, 0, 1, function=begun.append).equals(first)
    with pytest.raises(LalibError, match=r"out must be a folder to write runs to, got .*: .*Read-only file system"):
        _run_all(tmp_path, 0, 1, 2, function=begun.append)
    assert not begun


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(LalibError, match=r"out must be a folder to write runs to, got .*out: .*File exists"):
        _run_all(tmp_path / "out", 0)
