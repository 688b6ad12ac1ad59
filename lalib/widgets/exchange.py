"""A selection out to a file, for a spreadsheet or Label Studio, and answers back in."""

import os
from collections.abc import Callable
from pathlib import Path

import ipywidgets
import torch

from lalib.data.files import written_whole
from lalib.data.imageset import ImageSet
from lalib.labelling import (
    LabelStore,
    label_studio_config,
    read_csv,
    read_label_studio,
    write_label_studio,
    write_selection,
)
from lalib.widgets.parts import LABEL, Sentence, counted

WRITE = {".csv": "write CSV", ".json": "write Label Studio tasks"}


class Exchange(ipywidgets.VBox):
    """Two buttons that write what is selected, and, with a store, one that reads answers into it.

    selection(): the indices (n,) to write. store: where answers go; files lie beside it, else in the working folder.
    `controls` has the widgets by name: file, write CSV, write Label Studio tasks; answers, read answers.
    The CSV has the answers that there are; with a store Label Studio's interface is written beside the tasks. A file
    that is there is never written over: it may hold answers already.
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
        except OSError as error:  # which may name a temporary file
            self.sentence.value = f"Nothing done: {error.strerror or error}"
        except (RuntimeError, TypeError, ValueError) as error:  # LalibError is a RuntimeError, as "~nobody" is
            self.sentence.value = f"Nothing done: {error}"

    def _path(self, name):
        """The file that a control names."""
        typed = self.controls[name].value.strip()
        path = self.folder / Path(typed).expanduser()
        if not typed or typed.endswith(("/", os.sep)) or path.is_dir():
            raise ValueError(f"{name} must be a file's name, got {typed!r}")
        if not path.parent.is_dir():
            raise ValueError(f"{path.parent} is no folder")
        return path

    def _write(self, suffix):
        index, path = self.selection(), self._path("file")
        path = path if path.suffix == suffix else path.with_name(path.name + suffix)
        if not len(index):
            raise ValueError("no image is selected")
        written = {path: lambda: write_selection(path, self.images, index, self.store)}
        take = "Fill in its column class."
        if suffix == ".json":
            written = {path: lambda: write_label_studio(path, self.images, index)}
            take = "In Label Studio: Import."
            if self.store is not None:
                interface = path.with_suffix(".xml")
                written[interface] = lambda: self._write_interface(interface)
                take = f"In Label Studio: Import, and {interface.name} goes into Settings, Labeling Interface, Code."
        for file in written:
            if file.exists():
                raise ValueError(f"{file} is there already and may hold answers, choose another name")
        for write in written.values():
            write()
        if self.store is not None and suffix == ".csv":
            self.controls["answers"].value = self.controls["answers"].value or path.name
        return f"{counted(len(index), 'image')} written to {path}. {take}"

    def _write_interface(self, path):
        with written_whole(path) as temporary:
            temporary.write_text(label_studio_config(self.store.class_names), encoding="utf-8")

    def _read(self):
        path = self._path("answers")
        if path.suffix not in WRITE:
            raise ValueError(f"answers must be in a file that ends in {' or '.join(WRITE)}, got {path.name!r}")
        read = read_csv if path.suffix == ".csv" else read_label_studio
        return str(read(self.store, path, self.images))
