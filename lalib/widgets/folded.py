"""What the page keeps folded away: each is a function of the Workbench that returns a widget."""

import html
from functools import partial
from typing import TYPE_CHECKING

import ipywidgets
import torch

from lalib.labelling.store import first_places
from lalib.models import M2, Autoencoder, ContrastiveEncoder
from lalib.widgets.exchange import Exchange
from lalib.widgets.latent_explorer import latent_explorer
from lalib.widgets.parts import Sentence, button, control
from lalib.widgets.sampling_explorer import sampling_explorer
from lalib.widgets.sayings import label_these

if TYPE_CHECKING:
    from lalib.widgets.workbench import Workbench


def two(bench: "Workbench") -> ipywidgets.DOMWidget:
    """The sampling explorer, and a button that opens the labeller on what is picked there."""
    return _with_button(bench, sampling_explorer(bench.images, bench.codes, views=bench.views, store=bench.store))


def by_hand(bench: "Workbench") -> ipywidgets.DOMWidget:
    """The latent explorer, with the same button."""
    name, codes = next(iter(bench.codes.items()))
    view = bench.views.get(name, bench.points if codes.shape[1] != 2 else None)
    model = bench.model if isinstance(bench.model, Autoencoder | M2 | ContrastiveEncoder) else None
    return _with_button(bench, latent_explorer(bench.images, codes, model, view=view, store=bench.store))


def _with_button(bench, explorer):
    act = partial(bench.act, lambda: bench.label(explorer.selection, "the selection"))
    go = button("", act, icon="tags")

    def count(_=None):
        chosen = len(explorer.selection)
        go.description, go.disabled = label_these(chosen), not chosen

    explorer.sentence.observe(count, names="value")
    explorer.exchange.sentence.observe(bench.refresh, names="value")
    count()
    return ipywidgets.VBox([go, explorer])


def find(bench: "Workbench") -> ipywidgets.DOMWidget:
    """All answers so far in the labeller, the latest first, to be corrected."""
    place = first_places(bench.images)
    index = [place[image] for image in reversed(bench.store.answers()) if image in place]
    bench.label(torch.tensor(index, dtype=torch.int64), "your answers")
    return Sentence(value="Your answers are in the labeller, the latest first; its menu shows those of one class.")


def look_again(bench: "Workbench") -> ipywidgets.DOMWidget:
    """Answers that a classifier trained without them finds unlikely, and those that another labeller gave otherwise."""
    bench.progress("Looking at your answers", 0, 1)
    store, place, mine = bench.store, first_places(bench.images), bench.store.classes()
    rows = {
        image: (row["class"], f"the classifier, which learnt without it: {row['instead']} ({row['p_instead']:.0%})")
        for image, row in bench.loop.doubts().iterrows()
    }
    for other in set(store.labellers) - {store.labeller}:
        for image, said in store.classes(other).items():
            if image in place and mine.get(image, said) != said:
                rows.setdefault(place[image], (mine[image], f"{other}: {said}"))
    bench.label(torch.tensor([*rows], dtype=torch.int64), "your answers: none is doubtful")
    cells = [(bench.name(image), *row) for image, row in rows.items()]
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in cells]
    head = "<tr><th>image</th><th>your answer</th><th>says otherwise</th></tr>"
    return ipywidgets.HTML(f'<table class="lalib-groups">{head}<tr>{"</tr><tr>".join(lines)}</tr></table>')


def files(bench: "Workbench") -> ipywidgets.DOMWidget:
    """All images and answers out to files, and answers in."""
    exchange = Exchange(bench.images, lambda: torch.arange(len(bench.images)), bench.store)
    exchange.sentence.observe(bench.refresh, names="value")
    return exchange


def classes(bench: "Workbench") -> ipywidgets.DOMWidget:
    """A class more, or another name for one: its answers have that from then on."""
    store, said = bench.store, Sentence()
    menu, name = control(ipywidgets.Dropdown, "class"), control(ipywidgets.Text, "its name")

    def offer():
        chosen, names = menu.value, store.class_names
        menu.options = [("a new one", None), *((each, each) for each in names)]
        menu.index = names.index(chosen) + 1 if chosen in names else 0

    def save():
        try:
            store.add_class(name.value) if menu.value is None else store.rename_class(menu.value, name.value)
            said.value, name.value = f"The classes are {', '.join(store.class_names)}.", ""
        finally:
            offer()  # another page may have renamed it

    offer()
    go = button("Save the name", partial(bench.act, save), layout={"width": "max-content"})
    return ipywidgets.VBox([menu, name, go, said])


UNFOLD = {
    "two strategies side by side": two,
    "choose by hand": by_hand,
    "find and correct answers": find,
    "look again at doubtful answers": look_again,
    "add or rename a class": classes,
    "import and export": files,
}
