"""README.md keeps its promises: the golden path runs, links lead somewhere, every notebook is in the table."""

import json
import pydoc
import re
import runpy
from pathlib import Path

import pytest

import lalib as la

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
LINKS = re.findall(r"\]\((?!https?:|#)([^)\s#]+)", README)


def test_golden_path_runs(tmp_path, monkeypatch):
    """All blocks in one namespace, as a reader types them, but of all numbers few: images, epochs, seeds, rounds."""
    monkeypatch.chdir(tmp_path)
    names, load = {}, la.load

    def load_few(*name, **split):
        images = load(*name, **split)
        return images.subset(range(0, len(images), 20))

    monkeypatch.setattr(la, "load", load_few)
    for block in BLOCKS:
        for few in ("epochs=1", "seeds=2", "rounds=1"):
            block = re.sub(rf"\b{few[:-1]}\d+", few, block)
        exec(compile(block, "README.md", "exec"), names)
    assert len(names["table"]) == 4 * 2 * 2
    assert names["codes"].shape == (len(names["images"]), names["model"].latent_dim)
    assert len(set(names["query"].tolist())) == len(names["query"]) == 100


def test_tables_of_what_was_measured_are_those_of_the_results():
    claims = runpy.run_path(str(ROOT / "data" / "claims.py"))
    assert claims["written"](README) == README, "stale: python data/claims.py writes them anew"


def test_notebook_11_says_what_8000_labels_reach():
    runs = json.loads((ROOT / "data/results/open-rows.json").read_text())["runs"]
    said = f"{sum(run['test'] for run in runs) / len(runs):.2f} % in {len(runs)} seed"
    assert said in (ROOT / "notebooks/11_semi_supervised_m2.ipynb").read_text()


def test_two_commands_and_a_picture():
    assert "make demo" in README
    assert "make test" in README
    assert re.search(r"!\[[^\]]{20,}\]\(notebooks/pictures/\S+\.png\)", README), (
        "no picture, or none described in words"
    )


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_table_lists_the_notebooks():
    notebooks = sorted(f"notebooks/{path.name}" for path in ROOT.glob("notebooks/[0-9][0-9]_*.ipynb"))
    assert sorted({link for link in LINKS if link.endswith(".ipynb")}) == notebooks


@pytest.mark.parametrize("room", ["data", "models", "training", "codes", "strategies", "experiments", "labelling"])
def test_every_public_name_is_in_the_reference(room):
    """The table of rooms names what each room offers, no more and no less."""
    row = re.search(rf"^\| `{room}` \|[^|]*\|([^|]*)\|$", README, re.MULTILINE)[1]
    own = re.sub(r"`results` \(.*\)", "", row)
    assert re.findall(r"`(\w+)`", own) == sorted(getattr(la, room).__all__, key=str.lower)


def test_every_figure_widget_and_statistic_is_in_the_reference():
    named = set(re.findall(r"`(\w+)`", README[README.index("| room |") :]))
    own = {name for name, value in vars(la.results).items() if getattr(value, "__module__", "") == la.results.__name__}
    for found in (la.figures.__all__, la.widgets.__all__, own | {"interval", "load", "save"}):
        assert {name for name in found if not name.startswith("_")} <= named


def test_the_list_of_strategies_is_complete():
    listed = README[README.index("Those that are there:") :].split("\n\n")[0]
    assert sorted(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)*)`", listed)) == sorted(la.strategies.STRATEGIES)


def test_help_of_select_fits_a_screen():
    assert len(pydoc.plain(pydoc.render_doc(la.select)).splitlines()) <= 40
