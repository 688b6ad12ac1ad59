"""Many runs, each written to a file of its own when it is done, and never run twice: here, in processes, on a cluster.

A run's file is named by the hash of its configuration, which holds all that its result depends on, and is written whole
or not at all. What was finished is kept, and calling again goes on. Two comparisons may share a folder.
"""

import contextlib
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import torch

from lalib.data.checks import LalibError, check_choice, check_int
from lalib.experiments.records import Records, Rows, counted, difference, file_name, provenance

Group = list[dict]
STALE = ("warn", "redo", "refuse")
TRIES = 3  # of processes that die before any run is finished
_COUNTING, _INSIDE, _BEFORE = threading.Lock(), [], []  # of _one_thread


def run_all(
    function: Callable[[dict], Rows] | Callable[[Group], list[Rows]],
    runs: list[dict],
    out: str | Path,
    *,
    groups: list[Group] | None = None,
    expected: Callable[[dict], list[dict]] | None = None,
    stale: str = "warn",
    jobs: int = 1,
    cluster=None,
    on_run: Callable[[Rows], None] | None = None,
    progress: bool = True,
):
    """function(run) for each run whose file is not in `out` yet; all rows as one DataFrame, in the order of `runs`.

    groups: all runs, in groups that are computed together, in this order. Then function(group) gives the rows of each
    of its runs. If one file of a group is missing, the whole group is computed; the other files stay as they are.
    expected: what the rows of a run must say to be believed, see records.Records. stale: what becomes of runs in `out`
    that other code of lalib has made: "warn" counts them in one warning and takes them, "redo" does them again and
    writes over them, "refuse" ends the call with LalibError.
    jobs: processes of one thread each on this machine. cluster: a dask.distributed Client or a scheduler's address. Its
    workers compute on one thread, a run or group at a time; this process writes the files, so that no disk is shared; a
    run whose worker dies goes to another one. on_run: called with the rows of every run as soon as they are there,
    those found in `out` first.
    A damaged file is reported as a warning, set aside under another name, and its run done again. LalibError if a
    run must be done and `out` cannot be written to. The first run that fails ends the call with its error, to which a
    note adds which it was, LalibError if its process dies every time; what was finished before is kept.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    check_int("jobs", jobs, low=1)
    if cluster is not None and jobs > 1:
        raise ValueError(f"give jobs or cluster, not both: got jobs={jobs} and a cluster")
    if groups is None:
        function, groups = partial(map, function), [[run] for run in runs]
    named = {tuple(file_name(run) for run in group): group for group in groups}
    out = Path(out)
    records = Records(out, expected, check_choice("stale", stale, STALE) == "redo")
    found = {file_name(run): records.find(run, tell=True) for run in runs}
    _tell_stale(out, [record for record in found.values() if record is not None], stale)
    rows = {name: None if record is None else record["rows"] for name, record in found.items()}
    missing = {names: group for names, group in named.items() if any(rows[name] is None for name in names)}
    if missing:
        _check_writable(out)
    on_run, there = on_run or (lambda rows: None), [one for one in rows.values() if one is not None]
    for one in there:
        on_run(one)
    if cluster is not None:
        done = _on_cluster(function, missing, records, cluster)
    else:
        done = _here(function, missing, records, jobs)
    settings = {"total": len(rows) - len(there), "disable": not progress, "unit": "run", "desc": out.name}
    with contextlib.closing(done), tqdm(**settings) as bar:
        for name, new in done:
            if rows[name] is None:
                rows[name] = new
                on_run(new)
                bar.update()
    return pd.DataFrame([row for run in runs for row in rows[file_name(run)]])


def _tell_stale(out: Path, found: list[dict], stale: str) -> None:
    """Warn of records by other code, all at once, or refuse them."""
    if other := [told for record in found if (told := difference(record))]:
        told = f"{len(other)} of the {len(found)} runs in {out} were made by other code of lalib: {counted(other)}"
        if stale == "refuse":
            raise LalibError(f"{told}; stale='redo' does them again, 'warn' takes them")
        warnings.warn(f"{told}; they are taken as they are, stale='redo' does them again", stacklevel=4)


def _check_writable(out: Path) -> None:
    """Make the folder; LalibError if nothing can be written there, before hours are spent."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise LalibError(f"out must be a folder to write runs to, got {out}: {error}") from error


def _here(function, missing: dict[tuple, Group], records: Records, jobs: int) -> Iterator[tuple[str, Rows]]:
    """Names and rows of the runs of the missing groups as these finish; each process writes its own files.

    A process that dies takes the others with it: what is left is tried again, TRIES times if nothing more is finished.
    """
    from joblib import Parallel, delayed

    left, tries = dict(missing), TRIES
    while left:
        work = [delayed(_compute_and_write)(function, group, records, jobs > 1) for group in left.values()]
        try:
            for rows in Parallel(n_jobs=jobs, return_as="generator_unordered")(work):
                del left[tuple(rows)]
                tries = TRIES
                yield from rows.items()
        except BrokenProcessPool as error:
            tries -= 1
            if not tries:
                raise LalibError(
                    f"a process died {TRIES} times in a row; what was finished is in {records.folder}: call again, "
                    "with fewer jobs if memory is short"
                ) from error


def _on_cluster(function, missing: dict[tuple, Group], records: Records, cluster) -> Iterator[tuple[str, Rows]]:
    """The same on a Dask cluster; this process writes the files."""
    from distributed import CancelledError, Client, KilledWorker, as_completed

    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(cluster)) if isinstance(cluster, str) else cluster
        shared = client.scatter(function, broadcast=True, hash=False)  # the images travel once, not with every run
        futures = [client.submit(_records, shared, group, True, pure=False) for group in missing.values()]
        stack.callback(client.cancel, futures)
        try:
            for _, new in as_completed(futures, with_results=True):
                yield from _write(new, records).items()
        except (CancelledError, KilledWorker) as error:
            kept = f"what was finished is in {records.folder}"
            raise LalibError(f"the cluster lost a run ({error}); {kept}: call again") from error


def _compute_and_write(function, group: Group, records: Records, single_thread: bool) -> dict[str, Rows]:
    found = [records.find(run) for run in group]  # another comparison may have been faster
    return _write(_records(function, group, single_thread) if None in found else found, records)


def _write(new: list[dict], records: Records) -> dict[str, Rows]:
    """Write the files that are not there; the rows that all of them hold then, by their names."""
    rows = {}
    for record in new:
        with failing_in(_names([record["run"]])):
            rows[file_name(record["run"])] = records.keep(record)
    return rows


def _records(function, group: Group, single_thread: bool) -> list[dict]:
    """What the files of a group's runs will hold; each run is given its share of the seconds."""
    with failing_in(_names(group)), _one_thread() if single_thread else contextlib.nullcontext():
        started = time.perf_counter()
        rows = list(function(group))
        shared = {"seconds": round((time.perf_counter() - started) / len(group), 2), **provenance()}
    return [{"run": run, "rows": of_one, **shared} for run, of_one in zip(group, rows, strict=True)]


def _names(group: Group) -> str:
    """Which runs these are, in words."""
    told = [", ".join(f"{key} {run[key]!r}" for key in ("label", "ratio", "seed") if key in run) for run in group]
    return "the run of " + "; ".join(told)


@contextlib.contextmanager
def failing_in(what: str) -> Iterator[None]:
    """Errors raised in the block get a note that says in `what`; one that asks Python to end becomes a LalibError."""
    try:
        yield
    except SystemExit as error:
        raise LalibError(f"{what} asked Python to end: sys.exit({error.code!r})") from error
    except Exception as error:
        error.add_note(f"in {what}")
        raise


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch in the block, and after it as many as before the first of several that overlap."""
    with _COUNTING:
        before = torch.get_num_threads()  # asked first: a thread that never was takes what others set last
        if not _INSIDE:
            _BEFORE[:] = [before]
        _INSIDE.append(1)
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _COUNTING:
            _INSIDE.pop()
            torch.set_num_threads(_BEFORE[0])  # each of Python's threads has a number of its own
