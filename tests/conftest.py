"""What every test shares: the number of threads, the browser, the device."""

import os
import shutil

# Before torch is imported. Two workers with two threads each on two cores wait for one another; and one thread
# everywhere (notebook kernels inherit it) makes every sum the same from run to run.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import pytest

NO_CHROMIUM = "no chromium: apt-get install chromium fonts-dejavu-core"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Debian's chromium; without it the test is skipped, in CI it fails."""
    path = shutil.which("chromium")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NO_CHROMIUM)
    return path


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> str:
    """Both kinds of device, the second only where there is one."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


def pytest_terminal_summary(terminalreporter):
    """Name the browser tests that were skipped: a line in -ra folds them into a number."""
    skipped = [r.nodeid for r in terminalreporter.stats.get("skipped", []) if NO_CHROMIUM in str(r.longrepr)]
    if skipped:
        terminalreporter.section(f"{len(skipped)} browser tests skipped ({NO_CHROMIUM})")
        terminalreporter.write_line("\n".join(skipped))
