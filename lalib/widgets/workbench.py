"""The explorer and the labeller together: choose images on the map, label them below it."""

from collections.abc import Mapping

import ipywidgets
import torch

from lalib.data import ImageSet
from lalib.labelling import LabelStore
from lalib.widgets.explorer import Sentence, sampling_explorer
from lalib.widgets.labeller import Labeller

__all__ = ["Workbench"]

N = 100  # images picked at first


class Workbench(ipywidgets.VBox):
    """The sampling explorer, and a button that opens the labeller on what it has picked.

        store = la.LabelStore("labels.sqlite", images.class_names, labeller="me")
        la.widgets.Workbench(images, {"VAE": codes}, store)

    codes: autoencoder's name -> its codes (N, 2), as for sampling_explorer, which checks them; store: where the answers
    go. `explorer` and, once the button was pressed, `labeller` are the widgets inside.
    """

    def __init__(self, images: ImageSet, codes: Mapping[str, torch.Tensor], store: LabelStore):
        self.images, self.store, self.labeller = images, store, None
        self.explorer = sampling_explorer(images, codes, n=min(N, len(images)))
        self.button = ipywidgets.Button(icon="tags", button_style="primary", layout={"width": "240px"})
        self.sentence = Sentence()
        self.bench = ipywidgets.VBox(layout={"padding": "4px"})  # room for the labeller's frame
        super().__init__([self.explorer, self.button, self.sentence, self.bench])
        self.button.on_click(lambda _: self.label())
        self.explorer.sentence.observe(self._count, names="value")
        self._count()

    def label(self) -> None:
        """Open the labeller on the explorer's selection, in place of an earlier one."""
        index = self.explorer.selection
        earlier, self.labeller = self.labeller, Labeller(self.images, self.store, index, focused=True)
        self.bench.children = [self.labeller]
        if earlier is not None:
            earlier.close()
        known = self.store.progress(self.images.subset(index)).labelled
        self.sentence.value = (
            f"{len(index)} images picked by {self.explorer.value('strategy')}, {known} of them labelled already. "
            f"Every answer is saved at once in {self.store.path}, as given by {self.store.labeller}."
        )

    def _count(self, _=None):
        count = len(self.explorer.selection)
        self.button.description = f"Label {'this image' if count == 1 else f'these {count} images'}"
        self.button.disabled = not count
