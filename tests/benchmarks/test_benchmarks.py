"""`make bench` runs every script of this folder as it stands; what they print is the result."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("bench_*.py")))
def test_benchmark(script):
    subprocess.run([sys.executable, FOLDER / script], cwd=FOLDER.parents[1], check=True)
