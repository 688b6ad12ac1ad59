"""A selection out to a file, for a spreadsheet or Label Studio, and answers back in."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ipywidgets
import torch

from lalib import labelling
from lalib.data.checks import check_type
from lalib.data.files import written_whole
from lalib.data.imageset import ImageSet
from lalib.labelling import LabelStore
from lalib.widgets.parts import Panel, Sentence, button, control, counted, row

WRITE = {".csv": "write CSV", ".json": "write Label Studio tasks"}


class Exchange(Panel):
    """Two buttons that write what is selected, and, with a store, one that reads answers into it.

    selection(): the indices (n,) to write. store: where answers go; files lie beside it, else in the working folder.
    `controls` by name: file, write CSV, write Label Studio tasks; answers, read answers. The CSV has the answers that
    there are; with a store Label Studio's interface is written beside the tasks. No file is ever written over.
    """

    def __init__(self, images: ImageSet, selection: Callable[[], torch.Tensor], store: LabelStore | None = None):
        self.images, self.selection, self.store = images, selection, check_type("store", store, LabelStore | None)
        self.folder, self.sentence = Path.cwd() if store is None else store.path.parent, Sentence()
        write = {"file": control(ipywidgets.Text, "file", value="query")}
        write |= {name: button(name, partial(self._say, self._write, suffix)) for suffix, name in WRITE.items()}
        read = {"answers": control(ipywidgets.Text, "answers", placeholder="query.csv, or Label Studio's export.json")}
        read["read answers"] = button("read answers", partial(self._say, self._read))
        self.controls = write if store is None else write | read
        rows = [write] if store is None else [write, read]
        super().__init__([*(row(*one.values()) for one in rows), self.sentence])

    def _say(self, act, *what):
        """Do it, and say what became of it."""
        try:
            self.sentence.value = act(*what)
        except (OSError, RuntimeError, TypeError, ValueError) as error:  # RuntimeError: LalibError, a folder "~nobody"
            why = getattr(error, "strerror", None) or error  # an OSError's text may name a temporary file
            self.sentence.value = f"Nothing done: {why}"

    def _path(self, name):
        """The file that a control names."""
        typed = self.value(name).strip()
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
        interface = path.with_suffix(".xml") if suffix == ".json" and self.store is not None else None
        for file in filter(None, (path, interface)):
            if file.exists():
                raise ValueError(f"{file} is there already and may hold answers, choose another name")
        if suffix == ".csv":
            labelling.write_selection(path, self.images, index, self.store)
            take = "Fill in its column class."
        else:
            labelling.write_label_studio(path, self.images, index)
            take = "In Label Studio: Import."
        if interface is not None:
            with written_whole(interface) as temporary:
                temporary.write_text(labelling.label_studio_config(self.store.class_names), encoding="utf-8")
            take = f"In Label Studio: Import, and {interface.name} goes into Settings, Labeling Interface, Code."
        elif self.store is not None:
            self.controls["answers"].value = self.value("answers") or path.name
        return f"{counted(len(index), 'image')} written to {path}. {take}"

    def _read(self):
        path = self._path("answers")
        if path.suffix not in WRITE:
            raise ValueError(f"answers must be in a file that ends in {' or '.join(WRITE)}, got {path.name!r}")
        read = labelling.read_csv if path.suffix == ".csv" else labelling.read_label_studio
        return str(read(self.store, path, self.images))
