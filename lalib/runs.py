"""Many runs, each written to a file of its own when it is done, and never run twice: here, in processes, on a cluster.

A run's file is named by the hash of its configuration and written to a temporary name first, so that whatever stops a
comparison, what was finished is kept and calling again goes on. Two comparisons may share a folder.
"""

import contextlib
import hashlib
import json
import math
import platform
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lalib._checks import LalibError, check_int
from lalib._files import written_whole

if TYPE_CHECKING:
    import distributed
    import pandas

__all__ = ["provenance", "read_record", "run_all"]

Function = Callable[[dict], list[dict]]
TRIES = 3  # of processes that die before any run is finished
ALONE = threading.RLock()  # two runs in threads of one process would draw from each other's global generators


def run_all(
    function: Function,
    runs: list[dict],
    out: str | Path,
    *,
    jobs: int = 1,
    cluster: "distributed.Client | str | None" = None,
    on_run: Callable[[list[dict]], None] | None = None,
    progress: bool = True,
) -> "pandas.DataFrame":
    """function(run) for each run whose file is not in `out` yet; all rows as one DataFrame, in the order of `runs`.

    jobs: processes of one thread each on this machine; or cluster: a dask.distributed Client, or a scheduler's address,
    whose workers compute, each process one run at a time on one thread, while this process writes the files, so that
    they need not share a disk; a run whose worker dies goes to another one. on_run: called with the rows of every run,
    those found in `out` first, as soon as they are there.
    A damaged file is reported as a warning and its run done again. The first run that fails ends the call with its
    error, LalibError if its process dies every time; what was finished before is kept.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    check_int("jobs", jobs, low=1)
    if cluster is not None and jobs > 1:
        raise ValueError(f"give jobs or cluster, not both: got jobs={jobs} and a cluster")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = {_file_name(run): read_rows(out, run) for run in runs}
    missing = {_file_name(run): run for run in runs if rows[_file_name(run)] is None}
    on_run = on_run or (lambda rows: None)
    for found in rows.values():
        if found is not None:
            on_run(found)
    done = _on_cluster(function, missing, out, cluster) if cluster is not None else _here(function, missing, out, jobs)
    with contextlib.closing(done):
        for name, new in tqdm(done, total=len(missing), disable=not progress, unit="run", desc=out.name):
            rows[name] = new
            on_run(new)
    return pd.DataFrame([row for run in runs for row in rows[_file_name(run)]])


def _here(function: Function, missing: dict[str, dict], out: Path, jobs: int) -> Iterator[tuple[str, list[dict]]]:
    """Names and rows of the missing runs as they finish; each process writes its own files.

    A process that dies takes the others with it: what is left is tried again while that finishes anything, and TRIES
    times in all if not.
    """
    from joblib import Parallel, delayed

    left, tries = dict(missing), TRIES
    while left:
        work = [delayed(_run_and_write)(function, run, out, jobs > 1) for run in left.values()]
        try:
            for name, rows in Parallel(n_jobs=jobs, return_as="generator_unordered")(work):
                del left[name]
                tries = TRIES
                yield name, rows
        except BrokenProcessPool as error:
            tries -= 1
            if not tries:
                raise LalibError(
                    f"a process died {TRIES} times in a row; what was finished is in {out}: call again, "
                    "with fewer jobs if memory is short"
                ) from error


def _on_cluster(function: Function, missing: dict[str, dict], out: Path, cluster) -> Iterator[tuple[str, list[dict]]]:
    """The same on a Dask cluster; this process writes the files."""
    from distributed import CancelledError, Client, KilledWorker, as_completed

    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(cluster)) if isinstance(cluster, str) else cluster
        shared = client.scatter(function, broadcast=True, hash=False)  # the images travel once, not with every run
        futures = [client.submit(_record, shared, run, True, pure=False) for run in missing.values()]
        stack.callback(client.cancel, futures)
        try:
            for _, record in as_completed(futures, with_results=True):
                _write(record, out)
                yield _file_name(record["run"]), record["rows"]
        except (CancelledError, KilledWorker) as error:
            raise LalibError(f"the cluster lost a run ({error}); what was finished is in {out}: call again") from error


def _run_and_write(function: Function, run: dict, out: Path, single_thread: bool) -> tuple[str, list[dict]]:
    rows = read_rows(out, run)  # another comparison may have been faster
    if rows is None:
        record = _record(function, run, single_thread)
        _write(record, out)
        rows = record["rows"]
    return _file_name(run), rows


def _record(function: Function, run: dict, single_thread: bool) -> dict:
    if single_thread:
        torch.set_num_threads(1)
    with ALONE:
        started = time.perf_counter()
        rows = function(run)
        seconds = round(time.perf_counter() - started, 2)
    return {"run": run, "rows": rows, "seconds": seconds, **provenance()}


def _write(record: dict, out: Path) -> None:
    path = out / _file_name(record["run"])
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1))


def _file_name(run: dict) -> str:
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:20] + ".json"


def read_record(path: Path) -> dict:
    """What a run's file holds: run (its configuration), rows, seconds, and the provenance."""
    return json.loads(path.read_text())


def read_rows(out: Path, run: dict) -> list[dict] | None:
    """The rows of a finished run, None if there is no file or it is damaged (then with a warning)."""
    path = out / _file_name(run)
    if not path.exists():
        return None
    try:
        return read_record(path)["rows"]
    except (ValueError, KeyError, TypeError) as error:
        warnings.warn(f"{path} is damaged ({error}); its run is done again", stacklevel=3)
        return None


def provenance() -> dict:
    """Versions, device, platform and git commit of this run."""
    import numpy
    import sklearn

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} thread(s)"
    versions = {module.__name__: module.__version__ for module in (torch, numpy, sklearn)}
    return {
        "device": device,
        "versions": versions | {"python": platform.python_version()},
        "commit": _commit(Path(__file__).parents[1]),
        "finished": math.floor(time.time()),
    }


def _commit(root: Path) -> str:
    """The commit of lalib's clone, "unknown" where there is no git or no clone."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:
        return "unknown"
