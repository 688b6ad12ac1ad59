"""The set-up files agree with one another and with what is installed; importing lalib stays cheap."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
ENVIRONMENT = (ROOT / "environment.yml").read_text()
CONDA = yaml.safe_load(ENVIRONMENT)["dependencies"]
PIP = CONDA[-1]["pip"]
PINS = dict(line.split("==") for line in PIP[1:])


def _numbers(text):
    return [int(part) for part in text.split(".")]


def test_environment_names_the_packages_of_pyproject():
    assert PIP[0] == "-e ."
    assert sorted(PINS) == sorted(re.split(">=", line)[0] for line in DECLARED)


def test_environment_pins_what_is_installed():
    assert {name: version(name) for name in PINS} == PINS
    python = next(line for line in CONDA if str(line).startswith("python="))
    assert _numbers(python.split("=")[1]) >= _numbers(PROJECT["requires-python"].removeprefix(">="))


@pytest.mark.parametrize("line", DECLARED)
def test_lower_bound_admits_the_pin(line):
    name, bound = line.split(">=")
    assert _numbers(bound) <= _numbers(PINS[name])


def test_every_dependency_says_what_it_is_for():
    lines = ENVIRONMENT.split("\ndependencies:\n")[1].splitlines()
    entries = [line for line in lines if line.lstrip().startswith("- ") and line.strip() != "- pip:"]
    assert len(entries) == len(CONDA) - 1 + len(PIP)
    assert [line for line in entries if not re.search(r"\S  # \w.{5,}", line)] == []


def test_one_ruff_everywhere():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    assert settings["required-version"] == f"=={PINS['ruff']}"


def test_make_installs_the_pip_section(tmp_path):
    """The Makefile reads environment.yml without a YAML library: it must see what one sees."""
    program = re.search(r"@awk '(.*)' environment\.yml", (ROOT / "Makefile").read_text())[1]
    shown = subprocess.run(
        ["awk", program, ROOT / "environment.yml"], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split("  #")[0] for line in shown.splitlines()] == PIP


def test_installed_lalib_is_this_one():
    import lalib

    assert Path(lalib.__file__).parent == ROOT / "lalib"


def test_import_is_cheap():
    """What takes seconds to import waits until it is used, and nothing touches the GPU."""
    code = "import lalib, sys, torch; print(torch.cuda.is_initialized(), *sys.modules)\n"
    code += "import lalib.experiments.comparison, lalib.strategies.peers; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    shown, shown_of_comparisons = (line.split() for line in shown.splitlines())
    assert shown[0] == "False"
    assert "lalib.strategies.peers" in shown_of_comparisons
    assert "skactiveml" not in shown_of_comparisons
    assert (
        set(shown)
        & {
            "torchvision",
            "umap",
            "plotly",
            "ipywidgets",
            "anywidget",
            "pandas",
            "sklearn",
            "distributed",
            "skactiveml",
            "timm",
        }
        == set()
    )


def test_changelog_has_an_unreleased_section():
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()
