"""A selection out to a file, for a spreadsheet or Label Studio, and answers back in."""

from collections.abc import Callable
from pathlib import Path

import ipywidgets
import torch

from lalib._checks import LalibError
from lalib.data import ImageSet
from lalib.labelling import LabelStore, read_csv, read_label_studio, write_label_studio, write_selection
from lalib.widgets._parts import LABEL, Sentence

__all__ = ["Exchange"]

WRITERS = {".csv": write_selection, ".json": write_label_studio}
WRITE = {".csv": "write CSV", ".json": "write Label Studio tasks"}
TAKE = {".csv": "Fill in its column class.", ".json": "In Label Studio: Import."}


class Exchange(ipywidgets.VBox):
    """Two buttons that write what is selected, and, with a store, one that reads answers into it.

    selection(): the indices (n,) to write. store: where answers go; files lie beside it, else in the working folder.
    `controls` has the widgets by name: file, write CSV, write Label Studio tasks; answers, read answers.
    A file that is there is never written over: it may hold answers already.
    """

    def __init__(self, images: ImageSet, selection: Callable[[], torch.Tensor], store: LabelStore | None = None):
        self.images, self.selection, self.store = images, selection, store
        self.folder = Path.cwd() if store is None else store.path.parent
        self.sentence = Sentence()
        self.controls = {"file": ipywidgets.Text(value="query", description="file", style=LABEL)}
        for suffix, name in WRITE.items():
            self.controls[name] = self._button(name, lambda suffix=suffix: self._write(suffix))
        rows = [ipywidgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})]
        if store is not None:
            hint = "query.csv, or Label Studio's export.json"
            answers = ipywidgets.Text(placeholder=hint, description="answers", style=LABEL)
            read = {"answers": answers, "read answers": self._button("read answers", self._read)}
            self.controls |= read
            rows.append(ipywidgets.HBox(list(read.values()), layout={"flex_flow": "row wrap"}))
        super().__init__([*rows, self.sentence])

    def _button(self, name, act):
        button = ipywidgets.Button(description=name, layout={"width": "auto"})
        button.on_click(lambda _: self._say(act))
        return button

    def _say(self, act):
        """Do it, and say what became of it."""
        try:
            self.sentence.value = act()
        except (LalibError, ValueError, OSError) as error:
            self.sentence.value = f"Nothing done: {error}"

    def _path(self, name):
        """The file that a control names."""
        typed = self.controls[name].value.strip()
        if not typed:
            raise ValueError(f"{name} must be a file's name, got none")
        return self.folder / Path(typed).expanduser()

    def _write(self, suffix):
        index, path = self.selection(), self._path("file")
        path = path if path.suffix == suffix else path.with_name(path.name + suffix)
        if not len(index):
            raise ValueError("no image is selected")
        if path.exists():
            raise ValueError(f"{path} is there already and may hold answers, choose another name")
        WRITERS[suffix](path, self.images, index)
        return f"{len(index):,} images are in {path}. {TAKE[suffix]}"

    def _read(self):
        path = self._path("answers")
        if path.suffix not in WRITERS:
            raise ValueError(f"answers must be in a file that ends in {' or '.join(WRITERS)}, got {path.name!r}")
        read = read_csv if path.suffix == ".csv" else read_label_studio
        return str(read(self.store, path, self.images))
