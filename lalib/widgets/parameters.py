"""The parameters of a notebook: checked where they are set, with a banner where the text means others."""

import ast
from collections.abc import Mapping
from types import MappingProxyType

from IPython.display import Markdown, display

from lalib.data.catalogue import DATASETS
from lalib.data.checks import check_choice, check_int, check_number, check_type, resolve_device
from lalib.models.networks import PRESETS

INJECTED = "# Parameters\n"  # papermill's line above what it was given
BANNER = """> **Not with the shipped parameters.** Numbers, committed pictures and what is said to be seen in them \
belong to the shipped ones, and may be wrong here in
>
{}
>
> Definitions, formulas and what is built by hand hold as they stand."""
NAMED = {  # (name, value) -> error if it is none of those that there are
    "dataset": lambda name, value: check_choice(name, value, DATASETS),
    "preset": lambda name, value: check_choice(name, value, PRESETS),
    "device": lambda name, value: resolve_device(value),
}


def check_parameters(given: Mapping, *, parts: Mapping[str, str] = MappingProxyType({}), **shipped) -> bool:
    """True if the parameters of a notebook are the shipped ones; if not, a banner says which parts speak of others.

    given: the notebook's globals(), behind the cell of its parameters and what papermill put there. shipped: every
    parameter and its value in the repository, of which the text speaks. parts: name -> the parts of the notebook that
    hang on it, such as "3 and 5", or "" for none; of a name that is not there: all, but of `device` none.

        as_shipped = la.widgets.check_parameters(globals(), dataset="mnist-mini", epochs=12, parts={"epochs": "2"})

    Raises ValueError or TypeError for a name that papermill was given and nobody uses, one that the cell has lost, and
    a value of another kind than the shipped one: a number below 0, or below 1 in place of a whole one above 0, an empty
    list, a data set, preset or device that is not there.
    """
    for cell in given.get("In", ()):
        for statement in ast.parse(cell).body if cell.startswith(INJECTED) else ():
            check_choice("a parameter of this notebook", statement.targets[0].id, shipped)
    parts, changed = {"device": ""} | dict(parts), []
    for name, value in shipped.items():
        if name not in given:
            raise ValueError(f"the parameters must set {', '.join(shipped)}; missing: {name}")
        _check(name, given[name], value)
        if given[name] != value and (where := parts.get(name, "all")):
            where = "all parts" if where == "all" else f"parts {where}"
            changed.append(f"> - `{name} = {given[name]!r}` in place of `{value!r}`: {where}")
    if changed:
        display(Markdown(BANNER.format("\n".join(changed))))
    return not changed


def _check(name, value, shipped):
    """Refuse a value that is of another kind than the shipped one."""
    if name in NAMED:
        NAMED[name](name, value)
    elif isinstance(shipped, list):
        if not check_type(name, value, list):
            raise ValueError(f"{name} must hold at least one value, got none")
        for each in value:
            _check(f"each of {name}", each, shipped[0])
    elif isinstance(shipped, bool | str):
        check_type(name, value, type(shipped))
    elif isinstance(shipped, int):
        check_int(name, value, low=min(1, shipped))
    elif isinstance(shipped, float):
        check_number(name, value, low=0)
