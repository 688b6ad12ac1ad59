"""`make site`: the course, the README and a reference of lalib as a static web site in site/.

Notebooks are shown as they were executed: runs/notebooks holds them, and what is missing there, or older than the
notebook, papermill runs first. Pages, notebooks and README are gathered in runs/site, as they lie in the repository, so
that their links hold; conf.py says what Sphinx makes of them.
"""

import argparse
import json
import re
import shutil
import sys
import time
from importlib.metadata import distribution
from pathlib import Path

import nbformat
import papermill
import plotly.offline
from reference import write_reference
from sphinx.cmd.build import build_main

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SOLUTIONS = re.compile(r"^## Solutions *$", re.MULTILINE)
NUMBER = {  # how a cell says which exercise it answers
    "markdown": re.compile(r"\A\*\*(?P<number>[\d and,]+)\.\*\*"),
    "code": re.compile(r"\A(?:# NBVAL\w+\n)?# (?P<number>\d(?:(?: and |, )\d)*)\b"),
}
PICTURE = re.compile(r"\A!\[([^\]]*)\]\(([^)\s]+)\)\s*")

STILL = r"""<details class="static">
<summary>The same as a picture, at the parameters that the text means</summary>

![\1](\2)

</details>

"""


def fresh(notebook: Path, folder: Path) -> bool:
    """Has `folder` a copy that was executed after the notebook last changed?"""
    copy = folder / notebook.name
    return copy.is_file() and copy.stat().st_mtime >= notebook.stat().st_mtime


def execute(notebooks: list[Path], folder: Path) -> None:
    """Run notebooks at their defaults, one after another: two threads of torch fill two cores."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(notebooks)} notebooks to run first, one to two minutes each on two cores", flush=True)
    for number, notebook in enumerate(notebooks, 1):
        begun, unfinished = time.time(), folder / f"unfinished-{notebook.name}"
        papermill.execute_notebook(str(notebook), str(unfinished), cwd=str(folder), store_widget_state=False)
        unfinished.replace(folder / notebook.name)
        print(f"{number} of {len(notebooks)}, {notebook.name}: {time.time() - begun:.0f} s", flush=True)


def banner(notebook: nbformat.NotebookNode) -> str:
    """What a reader must know of how the page came about; empty if all is as the notebook says."""
    parameters = notebook.metadata.get("papermill", {}).get("parameters", {})
    if all(not cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code"):
        said = "This page shows the notebook without results: it was not run before the site was built."
    elif parameters:
        values = ", ".join(f"`{name} = {value!r}`" for name, value in parameters.items())
        said = "This page was built with small parameters, so that results are not those of the text: " + values
    else:
        return ""
    return f":::{{warning}}\n{said}\n:::\n"


def figure(data: dict) -> str:
    """The place of a plotly figure in a page: figures.js draws it when it comes into view."""
    layout = data["layout"]
    title = re.sub("<[^>]+>", " ", layout.get("title", {}).get("text", ""))
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    size = f"width:{layout.get('width', 700)}px;height:{layout.get('height', 450)}px"
    label = f'role="img" aria-label="{title.replace(chr(34), "")}"'
    return f'<div class="figure" style="{size}" {label}><script type="application/json">{text}</script></div>'


def shown(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output as a page without a kernel can show it."""
    data = output.get("data", {})
    if "application/vnd.plotly.v1+json" in data:
        return nbformat.v4.new_output("display_data", {"text/html": figure(data["application/vnd.plotly.v1+json"])})
    if "application/vnd.jupyter.widget-view+json" in data:
        said = '<p class="widget">A widget stands here that needs a running notebook: <code>make lab</code>.</p>'
        return nbformat.v4.new_output("display_data", {"text/html": said})
    return None if output.get("name") == "stderr" else output


def fold(notebook: nbformat.NotebookNode) -> None:
    """Every solution has its own fold: from its number, bold or in a comment, to the next, an appendix, the end."""
    cells, inside = [], None  # None before the solutions; then the name of the fold that is open, or ""
    for cell in notebook.cells:
        source = cell.source
        if inside is None and cell.cell_type == "markdown" and (heading := SOLUTIONS.search(source)):
            cells.append(nbformat.v4.new_markdown_cell(source[: heading.end()]))
            cell.source, inside = source[heading.end() :].strip(), ""
            if not cell.source:
                continue
        if inside is not None and (begun := NUMBER[cell.cell_type].search(cell.source) or inside == ""):
            name = f"Solution {begun['number']}" if isinstance(begun, re.Match) else "Solutions"
            closed = "</details>\n\n" if inside else ""
            opened = f'{closed}<details class="solution">\n<summary>{name}</summary>\n'
            cells.append(nbformat.v4.new_markdown_cell(opened))
            inside = name
        elif inside and cell.source.startswith("<details"):  # an appendix, which has a fold of its own
            cells.append(nbformat.v4.new_markdown_cell("</details>"))
            inside = None
        cells.append(cell)
    notebook.cells = cells + ([nbformat.v4.new_markdown_cell("</details>")] if inside else [])


def page(path: Path) -> nbformat.NotebookNode:
    """An executed notebook as the site shows it."""
    notebook = nbformat.read(path, as_version=4)
    drawn = False  # does the cell before this one show a figure?
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [new for old in cell.outputs if (new := shown(old)) is not None]
            drawn = any('class="figure"' in output.get("data", {}).get("text/html", "") for output in cell.outputs)
        else:
            if drawn:
                cell.source = PICTURE.sub(STILL, cell.source)
            cell.source = cell.source.replace("](site/", "](../")  # pages beside the notebooks' folder
            drawn = False
    fold(notebook)
    head = notebook.cells[0]
    title, _, rest = head.source.partition("\n")
    head.source = f"{title}\n\n{banner(notebook)}{rest}"
    return notebook


def gather(folder: Path, notebooks: list[Path]) -> None:
    """Write the sources of all pages."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "notebooks").mkdir(parents=True)
    (folder / "data").mkdir()
    for path in notebooks:
        nbformat.write(page(path), folder / "notebooks" / path.name)
    for path in ("notebooks/pictures", "data/results"):
        (folder / path).symlink_to(ROOT / path)
    for path in ("LICENSE", "CHANGELOG.md", "data/README.md"):
        shutil.copy(ROOT / path, folder / path)
    readme = (ROOT / "README.md").read_text()
    readme = re.sub(r"\[([^\]]+)\]\((notebooks|tests)\)", r"\1", readme)  # folders, which have no page
    readme = readme.replace("](lalib)", "](reference/index)").replace("](data)", "](data/README.md)")
    (folder / "index.md").write_text(readme + (HERE / "contents.md").read_text())
    for path in ("glossary.md", "notation.md", "sources.md", "teach.md"):
        shutil.copy(HERE / path, folder / path)
    write_reference(folder / "reference", folder / "notebooks")
    static = folder / "static"
    static.mkdir()
    for path in ("figures.js", "site.css"):
        shutil.copy(HERE / path, static / path)
    (static / "plotly.min.js").write_text(plotly.offline.get_plotlyjs())
    mathjax = distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax/tex-svg.js")
    shutil.copy(mathjax, static / "tex-svg.js")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--executed", type=Path, default=ROOT / "runs" / "notebooks", help="folder of executed notebooks"
    )
    parser.add_argument("--no-run", action="store_true", help="show what is not executed without its results")
    parser.add_argument("--sources", type=Path, default=ROOT / "runs" / "site", help="where the pages' sources go")
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="where the site goes")
    given = parser.parse_args()
    notebooks = sorted(ROOT.glob("notebooks/*.ipynb"))
    missing = [path for path in notebooks if not fresh(path, given.executed)]
    if missing and not given.no_run:
        execute(missing, given.executed)
        missing = []
    begun = time.time()
    gather(given.sources, [path if path in missing else given.executed / path.name for path in notebooks])
    if (given.out / ".buildinfo").is_file():  # an earlier site: pages that are no more must not stay
        shutil.rmtree(given.out)
    static = ["-D", f"html_static_path={given.sources / 'static'}"]
    doctrees = ["-d", str(given.sources.with_name(f"{given.sources.name}-doctrees"))]
    options = ["-q", "-E", "-c", str(HERE), *static, *doctrees]
    if failed := build_main([*options, str(given.sources), str(given.out)]):
        sys.exit(failed)
    print(f"built in {time.time() - begun:.0f} s: {given.out / 'index.html'}")


if __name__ == "__main__":
    main()
