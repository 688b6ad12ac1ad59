"""The reference of lalib: a page for every room, and what makes its docstrings read well in a browser.

Docstrings are plain text: lines end where they are full, or on purpose. Here arguments, code and citations get their
looks; nothing is added to the text.
"""

import importlib
import inspect
import itertools
import re
import textwrap
from pathlib import Path

import nbformat
from docutils import nodes

import lalib as la

LALIB = Path(la.__file__).parent
ROOMS = ("data", "models", "training", "codes", "strategies", "experiments", "labelling", "figures", "widgets", "app")
WIDTH = 108  # a line that would not be longer with the next word ends on purpose
CITATION = re.compile(r"^\[([A-Z]\w+\d{4}[a-z]?)\]\s+((?:.|\n(?!\[))+)", re.MULTILINE)
MODULE = re.compile(r"\b(collections\.abc|dataclasses|pathlib|torch(\._C)?)\.(?=[A-Z])")
KEY = re.compile(r"\\?\[([A-Z]\w+\d{4}[a-z]?)\]")


def public() -> dict[str, object]:
    """Every public name, as lalib.room.name, and what it is; the statistics of lalib.results among them."""
    rooms = {room: importlib.import_module(f"lalib.{room}") for room in ROOMS}
    found = {f"lalib.{room}.{name}": getattr(rooms[room], name) for room in ROOMS for name in rooms[room].__all__}
    found = {name: value for name, value in found.items() if not inspect.ismodule(value)}
    statistics = {name: value for name, value in vars(la.results).items() if name[0] != "_" and callable(value)}
    own = {name: value for name, value in statistics.items() if value.__module__.startswith("lalib.experiments")}
    return found | {f"lalib.results.{name}": value for name, value in own.items()}


def citations() -> dict[str, str]:
    """Every [Author2020] that the modules explain: key -> work; the longest where there are several."""
    texts = (inspect.cleandoc(re.match(r'"""(.*?)"""', p.read_text(), re.DOTALL)[1]) for p in LALIB.rglob("*.py"))
    found = (match.groups() for text in texts for part in text.split("\n\n") for match in CITATION.finditer(part))
    return {key: " ".join(work.split()) for key, work in sorted(found, key=lambda pair: (pair[0], len(pair[1])))}


def inline(line: str, arguments: tuple[str, ...] = ()) -> str:
    """One line of a docstring in reStructuredText: code between backticks, arguments before a colon, citations."""
    code = re.split(r"(`[^`]+`)", line)
    for i in range(0, len(code), 2):
        text = re.sub(r"([\\*_|])", r"\\\1", code[i])
        code[i] = KEY.sub(r"[\1]_", text)
        if arguments:
            names = "|".join(re.escape(re.sub("_", r"\\_", name)) for name in arguments)
            code[i] = re.sub(
                rf"(?<![\w.])({names})(?=( \([^()]*\))?(:|, ({names}):))",
                lambda match: "``" + match[1].replace("\\", "") + "``",
                code[i],
            )
    return "".join(f"`{part}`" if i % 2 else part for i, part in enumerate(code))


def unwrapped(lines: list[str]) -> list[str]:
    """Lines that end because they were full are joined with the next."""
    joined = lines[:1]
    for before, line in itertools.pairwise(lines):
        if len(before) + 1 + len(line.split()[0]) <= WIDTH:
            joined.append(line)
        else:
            joined[-1] += " " + line
    return joined


def restructured(text: str, arguments: tuple[str, ...] = ()) -> list[str]:
    """A docstring as lines of reStructuredText."""
    out = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        if CITATION.match(part):
            continue  # the page of references has it
        if all(line.startswith("    ") for line in part.splitlines()):
            out += [".. code-block:: python", "", *part.splitlines(), ""]
            continue
        lines = unwrapped([line.strip() for line in part.splitlines()])
        lines = [inline(line, arguments) for line in lines]
        out += [*(["| " + line for line in lines] if len(lines) > 1 else lines), ""]
    return out


def arguments(value: object) -> tuple[str, ...]:
    """Names of what a function or class takes, the longest first."""
    try:
        names = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return ()
    return tuple(sorted(names, key=len, reverse=True))


def process_docstring(app, what, name, value, options, lines):
    """Sphinx's hook: a docstring becomes reStructuredText."""
    lines[:] = restructured("\n".join(lines), arguments(value) if what != "module" else ())


def process_signature(app, what, name, value, options, signature, returned):
    """Sphinx's hook: types without the modules that they come from."""
    return tuple(text and MODULE.sub("", text) for text in (signature, returned))


def name_examples(app, doctree, docname):
    """Sphinx's hook: the folds with the notebooks that use a name say so."""
    for summary in doctree.findall(lambda node: node.tagname == "SummaryNode"):
        summary.children = [nodes.Text("Where it is used")]


def titled(title: str, mark: str) -> list[str]:
    return [title, mark * len(title), ""]


def entry(name: str, value: object) -> list[str]:
    """The directive that shows one public name."""
    if inspect.isclass(value):
        return [f".. autoclass:: {name}", "   :members:", ""]
    if inspect.isfunction(value):
        return [f".. autofunction:: {name}", ""]
    held, short = ", ".join(f"``{key}``" for key in value), name.rpartition(".")[2]
    return [f".. py:data:: {short}", "", f"   A {type(value).__name__} of {held}.", ""]


def users(notebooks: Path) -> dict[str, str]:
    """Links to the notebooks whose code names a strategy: name -> links."""
    found = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        for name in la.strategies.STRATEGIES:
            if f'"{name}"' in code:
                found.setdefault(name, []).append(f":doc:`{path.stem[:2]} </notebooks/{path.stem}>`")
    return {name: ", ".join(links) for name, links in found.items()}


def strategies(used: dict[str, str]) -> list[str]:
    """Every strategy under its name, with what it needs and the notebooks that name it, by the file that holds it."""
    out = [*titled("The strategies by name", "-")]
    modules = {}
    for name, strategy in la.strategies.STRATEGIES.items():
        modules.setdefault(strategy.function.__module__, {})[name] = strategy
    for module, held in modules.items():
        first, *rest = inspect.getdoc(importlib.import_module(module)).split("\n\n")
        out += [*titled(" ".join(first.split()).rstrip("."), "~"), *restructured("\n\n".join(rest))]
        for name, strategy in held.items():
            function = strategy.function
            needs = ", ".join(getattr(need, "name", need) for need in strategy.needs) or "nothing but the pool"
            said = f'``"{name}"`` needs {needs}; notebooks: {used.get(name, "none")}.'
            out += [f".. index:: {name} (strategy)", "", said, ""]
            out += [f".. autofunction:: {module}.{function.__name__}", ""]
    return out


def write_reference(folder: Path, notebooks: Path) -> None:
    """A page for every room, an overview, and the list of works that docstrings cite."""
    folder.mkdir()
    names, pages = public(), {}
    for name, value in names.items():
        pages.setdefault(name.rpartition(".")[0], {})[name] = value
    overview = [*titled("Reference", "="), "Names that ``lalib`` has itself, ``la.select``, are marked by a star.", ""]
    overview += [".. toctree::", "   :maxdepth: 1", ""]
    overview += [*(f"   {page.split('.')[1]}" for page in pages), "   references", ""]
    for page, held in pages.items():
        text = inspect.getdoc(importlib.import_module(la.results.__name__ if page == "lalib.results" else page))
        lines = [*titled(page, "="), f".. py:module:: {page}", "", *restructured(text)]
        lines += [line for name, value in held.items() for line in entry(name, value)]
        lines += strategies(users(notebooks)) if page == "lalib.strategies" else []
        (folder / f"{page.split('.')[1]}.rst").write_text("\n".join(lines))
        overview += [*titled(page, "-"), *restructured(text.split("\n\n")[0])]
        for name, value in held.items():
            short = name.rpartition(".")[2]
            star = "*" if getattr(la, short, None) is value else ""
            first = textwrap.shorten((inspect.getdoc(value) or "").split("\n\n")[0], 120, placeholder=" ...")
            said = inline(first) if inspect.isroutine(value) or inspect.isclass(value) else ""
            overview += [f"- :py:obj:`~{name}`\\ {star}  {said}".replace("`\\ *", "` ★").rstrip(), ""]
    (folder / "index.rst").write_text("\n".join(overview))
    works = [f".. [{key}] {inline(work)}" for key, work in citations().items()]
    (folder / "references.rst").write_text("\n".join([*titled("Works cited by the docstrings", "="), *works, ""]))
