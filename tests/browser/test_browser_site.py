"""The web site of `make site`, read in a browser from the disk: nothing is fetched, nothing is missing, all links hold.

It is built from runs/small, which the tests of the notebooks fill; a notebook that is not there is shown unexecuted.
"""

import html
import importlib
import inspect
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from jupyter_lab import TIMEOUT, launch

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_spec("sphinx") is None, reason='no sphinx: pip install -e ".[site]"'),
]

ROOT = Path(__file__).parent.parent.parent
LOCAL = ("file:", "data:", "blob:")
PHONE = {"width": 390, "height": 844}
SEEN = """() => ({
    ids: [...document.querySelectorAll("[id], a[name]")].map((e) => e.id || e.name),
    links: [...document.querySelectorAll("a[href]")].map((e) => e.href),
    missing: [...document.images].filter((e) => !e.complete || !e.naturalWidth).map((e) => e.src),
    nameless: [...document.images].filter((e) => !e.hasAttribute("alt")).map((e) => e.src),
    open: document.querySelectorAll("details.solution[open]").length,
    width: document.documentElement.scrollWidth,
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a site that was built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--executed", ROOT / "runs" / "small", "--no-run", "--sources", folder / "src", "--out", folder / "html"]
    command = [sys.executable, ROOT / "notebooks" / "site" / "build.py", *options]
    built = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stdout + built.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def page(chromium):
    """A page as wide as a phone; page.problems grows with what it asks the network for, lacks or complains of."""
    with launch(chromium) as browser:
        page = browser.new_page(viewport=PHONE)
        page.set_default_timeout(TIMEOUT)
        page.problems = []
        page.on("request", lambda r: r.url.startswith(LOCAL) or page.problems.append(f"asks for {r.url}"))
        page.on("requestfailed", lambda r: page.problems.append(f"lacks {r.url}"))
        page.on("console", lambda m: m.type == "error" and page.problems.append(f"says {m.text}"))
        page.on("pageerror", lambda e: page.problems.append(f"fails: {e}"))
        yield page


def pages(site):
    """Every page of the site but those that only a search engine reads."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)


def test_every_page_is_whole_and_every_link_leads_somewhere(site, page):
    ids, links, wrong = {}, {}, []
    for path in pages(site):
        page.goto(path.as_uri())
        seen = page.evaluate(SEEN)
        ids[path], links[path] = {*seen["ids"], "", "top"}, seen["links"]
        wrong += [f"{path.name}: {kind} {found}" for kind in ("missing", "nameless") for found in seen[kind]]
        wrong += [f"{path.name}: {said}" for said in page.problems]
        wrong += [f"{path.name}: a solution is open"] * bool(seen["open"])
        wrong += [f"{path.name}: {seen['width']} pixels wide"] * (seen["width"] > PHONE["width"])
        wrong += [f"{path.name}: {path.stat().st_size} bytes"] * (path.stat().st_size > 3_000_000)
        page.problems.clear()
    for path, targets in links.items():
        for target, anchor in map(urldefrag, targets):
            if target.startswith("file:"):
                file = Path(unquote(target.removeprefix("file://")))
                if not file.is_file() or (file in ids and unquote(anchor) not in ids[file]):
                    wrong.append(f"{path.name}: leads to {file}#{anchor}")
    assert wrong == []
    assert {path.stem for path in ROOT.glob("notebooks/*.ipynb")} <= {path.stem for path in ids}


def test_figures_are_drawn_as_the_reader_comes_to_them(site, page):
    """All of the page with the most of them."""
    number, path = max((text.count('class="figure"'), path) for path in pages(site) if (text := path.read_text()))
    if not number:
        pytest.skip("no executed notebook in runs/small: make notebooks")
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    for place in page.locator(".figure[role=img]").all():
        place.scroll_into_view_if_needed()
        place.locator(".main-svg").first.wait_for()
    assert page.problems == []


def test_search_finds_a_strategy_and_a_lesson(site, page):
    page.goto(f"{(site / 'search.html').as_uri()}?q=typiclust")
    page.wait_for_selector("#search-results ul.search li a")
    found = page.eval_on_selector_all("#search-results li a", "all => all.map((e) => e.href)")
    assert any("reference/strategies" in link for link in found)
    assert any("notebooks/" in link for link in found)
    assert page.problems == []


def test_dark_and_light(site, page):
    page.goto((site / "index.html").as_uri())
    colour = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(colour) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert max(map(int, re.findall(r"\d+", page.evaluate(colour))[:3])) < 64


def described(text, name):
    """The part of a page of the reference that describes a name."""
    return text[text.index(f'<dt class="sig sig-object py" id="{name}"') :].split("\n</dd></dl>")[0]


def test_names_and_notebooks_lead_to_each_other(site):
    """Code of a lesson to the reference, the reference to that lesson; a strategy to the lessons that name it."""
    lesson = (site / "notebooks" / "00_start_here.html").read_text()
    assert 'href="../reference/strategies.html#lalib.strategies.select"' in lesson
    reference = (site / "reference" / "strategies.html").read_text()
    assert "../notebooks/00_start_here.html#" in described(reference, "lalib.strategies.select")
    strategy = reference[: reference.index('id="lalib.strategies.clusters.k_medoids"')].rpartition("<p>")[2]
    assert "../notebooks/00_start_here.html" in strategy


def test_every_public_name_has_its_place(site):
    """With the first words of its docstring."""
    for room in ("data", "models", "training", "codes", "strategies", "experiments", "labelling", "figures", "widgets"):
        inside = importlib.import_module(f"lalib.{room}")
        text = (site / "reference" / f"{room}.html").read_text()
        for name in inside.__all__:
            value = getattr(inside, name)
            place = "" if inspect.ismodule(value) else described(text, f"lalib.{room}.{name}")
            if inspect.isclass(value) or inspect.isfunction(value):
                first = inspect.getdoc(value).split()[0].strip("`")
                assert first in html.unescape(re.sub("<[^>]+>", "", place)), name
