"""Many runs, each written to a file of its own when it is done, and never run twice: here, in processes, on a cluster.

A run's file is named by the hash of its configuration, which holds all that its result depends on, and is written whole
or not at all. What was finished is kept, and calling again goes on. Two comparisons may share a folder.
"""

import contextlib
import json
import platform
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import torch

from lalib.data.checks import LalibError, check_int
from lalib.data.files import digest, written_whole

Rows, Group = list[dict], list[dict]
TRIES = 3  # of processes that die before any run is finished
_COUNTING, _INSIDE, _BEFORE = threading.Lock(), [], []  # of _one_thread


def run_all(
    function: Callable[[dict], Rows] | Callable[[Group], list[Rows]],
    runs: list[dict],
    out: str | Path,
    *,
    groups: list[Group] | None = None,
    jobs: int = 1,
    cluster=None,
    on_run: Callable[[Rows], None] | None = None,
    progress: bool = True,
):
    """function(run) for each run whose file is not in `out` yet; all rows as one DataFrame, in the order of `runs`.

    groups: all runs, in groups that are computed together, in this order. Then function(group) gives the rows of each
    of its runs. If one file of a group is missing, the whole group is computed; the other files stay as they are.
    jobs: processes of one thread each on this machine. cluster: a dask.distributed Client or a scheduler's address. Its
    workers compute on one thread, a run or group at a time; this process writes the files, so that no disk is shared; a
    run whose worker dies goes to another one. on_run: called with the rows of every run as soon as they are there,
    those found in `out` first.
    A damaged file is reported as a warning and its run done again. The first run that fails ends the call with its
    error, LalibError if its process dies every time; what was finished before is kept.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    check_int("jobs", jobs, low=1)
    if cluster is not None and jobs > 1:
        raise ValueError(f"give jobs or cluster, not both: got jobs={jobs} and a cluster")
    if groups is None:
        function, groups = partial(map, function), [[run] for run in runs]
    named = {tuple(_file_name(run) for run in group): group for group in groups}
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = {_file_name(run): read_rows(out, run) for run in runs}
    missing = {names: group for names, group in named.items() if any(rows[name] is None for name in names)}
    on_run, there = on_run or (lambda rows: None), [found for found in rows.values() if found is not None]
    for found in there:
        on_run(found)
    done = _on_cluster(function, missing, out, cluster) if cluster is not None else _here(function, missing, out, jobs)
    settings = {"total": len(rows) - len(there), "disable": not progress, "unit": "run", "desc": out.name}
    with contextlib.closing(done), tqdm(**settings) as bar:
        for name, new in done:
            if rows[name] is None:
                rows[name] = new
                on_run(new)
                bar.update()
    return pd.DataFrame([row for run in runs for row in rows[_file_name(run)]])


def _here(function, missing: dict[tuple, Group], out: Path, jobs: int) -> Iterator[tuple[str, Rows]]:
    """Names and rows of the runs of the missing groups as these finish; each process writes its own files.

    A process that dies takes the others with it: what is left is tried again, TRIES times if nothing more is finished.
    """
    from joblib import Parallel, delayed

    left, tries = dict(missing), TRIES
    while left:
        work = [delayed(_compute_and_write)(function, group, out, jobs > 1) for group in left.values()]
        try:
            for rows in Parallel(n_jobs=jobs, return_as="generator_unordered")(work):
                del left[tuple(rows)]
                tries = TRIES
                yield from rows.items()
        except BrokenProcessPool as error:
            tries -= 1
            if not tries:
                raise LalibError(
                    f"a process died {TRIES} times in a row; what was finished is in {out}: call again, "
                    "with fewer jobs if memory is short"
                ) from error


def _on_cluster(function, missing: dict[tuple, Group], out: Path, cluster) -> Iterator[tuple[str, Rows]]:
    """The same on a Dask cluster; this process writes the files."""
    from distributed import CancelledError, Client, KilledWorker, as_completed

    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(cluster)) if isinstance(cluster, str) else cluster
        shared = client.scatter(function, broadcast=True, hash=False)  # the images travel once, not with every run
        futures = [client.submit(_records, shared, group, True, pure=False) for group in missing.values()]
        stack.callback(client.cancel, futures)
        try:
            for _, records in as_completed(futures, with_results=True):
                yield from _write(records, out).items()
        except (CancelledError, KilledWorker) as error:
            raise LalibError(f"the cluster lost a run ({error}); what was finished is in {out}: call again") from error


def _compute_and_write(function, group: Group, out: Path, single_thread: bool) -> dict[str, Rows]:
    found = {_file_name(run): read_rows(out, run) for run in group}  # another comparison may have been faster
    return _write(_records(function, group, single_thread), out) if None in found.values() else found


def _records(function, group: Group, single_thread: bool) -> list[dict]:
    """What the files of a group's runs will hold; each run is given its share of the seconds."""
    with _one_thread() if single_thread else contextlib.nullcontext():
        started = time.perf_counter()
        rows = list(function(group))
        shared = {"seconds": round((time.perf_counter() - started) / len(group), 2), **provenance()}
    return [{"run": run, "rows": of_one, **shared} for run, of_one in zip(group, rows, strict=True)]


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


def _write(records: list[dict], out: Path) -> dict[str, Rows]:
    """Write the files that are not there; the rows that all of them hold then, by their names."""
    rows = {}
    for record in records:
        path, found = out / _file_name(record["run"]), read_rows(out, record["run"])
        if found is None:
            with written_whole(path) as temporary:
                temporary.write_text(json.dumps(record, indent=1))
        rows[path.name] = record["rows"] if found is None else found
    return rows


def _file_name(run: dict) -> str:
    try:
        return digest(json.dumps(run, sort_keys=True))[:20] + ".json"
    except TypeError as error:
        raise TypeError(f"a run must be described by numbers, text, lists and dicts of them; {error}") from None


def read_rows(out: Path, run: dict) -> list[dict] | None:
    """The rows of a finished run, None if there is no file or it is damaged (then with a warning)."""
    path = out / _file_name(run)
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())["rows"]
    except (ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is damaged ({error}); its run is done again", stacklevel=3)
        return None


def provenance() -> dict:
    """Versions, device, platform and git commit of this run."""
    import numpy
    import sklearn

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} thread(s)"
    versions = {module.__name__: module.__version__ for module in (torch, numpy, sklearn)}
    versions["python"], commit = platform.python_version(), _commit(Path(__file__).parents[2])
    return {"device": device, "versions": versions, "commit": commit, "finished": int(time.time())}


def _commit(root: Path) -> str:
    """The commit of lalib's clone, "unknown" where there is no git or no clone."""
    command, found = ["git", "describe", "--always", "--dirty"], ""
    with contextlib.suppress(OSError):
        found = subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.strip()
    return found or "unknown"
