"""Processes for tests that are forks of one server, which has imported torch: a further one costs no seconds.

Where it is tested what a process imports, it must be a new interpreter instead.
"""

import multiprocessing
import runpy
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
# The last is what an optimizer of torch imports at its first step.
PRELOADED = "pandas joblib tqdm.auto lalib.experiments.comparison sklearn.datasets sklearn.decomposition distributed"
FORKS.set_forkserver_preload([*PRELOADED.split(), "torch._dynamo"])


def run_code(code: str, **names) -> BaseProcess:
    """A process that has begun to run `code`, in which these names are known."""
    return _begun(exec, code, names)


def run_script(path: Path, *arguments: str) -> BaseProcess:
    """A process that has begun to do what `python path arguments` does."""
    return _begun(_as_main, str(path), arguments)


def _begun(target, *given) -> BaseProcess:
    process = FORKS.Process(target=target, args=given)
    process.start()
    return process


def _as_main(path: str, arguments: tuple[str, ...]):
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")
