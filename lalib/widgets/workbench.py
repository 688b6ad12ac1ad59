"""The explorers and the labeller together: choose images on a map, label them below it."""

import contextlib
from collections.abc import Mapping

import ipywidgets
import torch

from lalib.data.checks import LalibError, check_type
from lalib.data.imageset import ImageSet
from lalib.labelling.store import LabelStore
from lalib.models.autoencoders import Autoencoder
from lalib.widgets.labeller import Labeller
from lalib.widgets.latent_explorer import latent_explorer
from lalib.widgets.parts import Sentence, button, control, counted
from lalib.widgets.sampling_explorer import sampling_explorer

STRATEGY, HAND = "a strategy", "I, on the map"


class Workbench(ipywidgets.VBox):
    """The sampling explorer or the latent explorer, and a button that opens the labeller on what is selected there.

        store = la.LabelStore("labels.sqlite", images.class_names, labeller="me")
        la.widgets.Workbench(images, {"VAE": codes}, store, model)
    codes (N, L), views (N, 2): by name, as in sampling_explorer; the latent explorer shows the first. model: the
    autoencoder that made those, if they are to be decoded. store: where the answers go. Raises what sampling_explorer
    raises.
    `explorer` and, once the button was pressed, `labeller` are the widgets inside; `who` chooses the explorer.
    """

    def __init__(
        self,
        images: ImageSet,
        codes: Mapping[str, torch.Tensor],
        store: LabelStore,
        model: Autoencoder | None = None,
        *,
        views: Mapping[str, torch.Tensor] | None = None,
    ):
        self.images, self.store = check_type("store", store, LabelStore).adopt(images), store
        self.codes, self.views, self.model, self.labeller, self._explorers = codes, views, model, None, {}
        self.who = control(ipywidgets.Dropdown, "who chooses", options=[STRATEGY, HAND])
        self.place, self.sentence, self.bench = ipywidgets.VBox(), Sentence(), ipywidgets.VBox()
        self.button = button("", self.label, icon="tags", button_style="primary", layout={"width": "240px"})
        super().__init__([self.who, self.place, self.button, self.sentence, self.bench])
        self.who.observe(self._turn, names="value")
        self._turn()
        others = store.answers()
        if others and not others.keys() & set(images.hashes):
            found = f"{counted(len(others), 'answer')} by {store.labeller} in {store.path}"
            self.sentence.value = f"{found} are of none of these images, or of the images in another size."

    @property
    def explorer(self):
        """The explorer that is shown."""
        return self._explorers[self.who.value]

    def label(self) -> None:
        """Open the labeller on the explorer's selection, in place of an earlier one."""
        index, earlier = self.explorer.selection, self.labeller
        try:
            self.labeller = Labeller(self.images, self.store, index, focused=True)
            self._tell()
        except (LalibError, ValueError) as error:
            self.sentence.value = f"Nothing to label: {error}"
            return
        self.bench.children = [self.labeller]
        if earlier is not None:
            earlier.close()

    def _refresh(self, _):
        """Answers may have come from a file; if the store is in trouble, the explorer has said so."""
        if self.labeller is not None:
            with contextlib.suppress(LalibError):
                self.labeller.refresh()
                self._tell()

    def _tell(self):
        index = self.labeller.index
        known = self.store.progress(self.images.subset(index)).labelled
        saved = f"Every answer is saved at once in {self.store.path}, as given by {self.store.labeller}."
        self.sentence.value = f"{counted(len(index), 'image')}, {known} of them labelled already. {saved}"

    def _turn(self, _=None):
        """Show the explorer that was chosen. It is made at its first time: a map that is on no page has no size."""
        if self.who.value not in self._explorers:
            if self.who.value == STRATEGY:
                made = sampling_explorer(self.images, self.codes, views=self.views, store=self.store)
            else:
                first = next(iter(self._explorers[STRATEGY].places.values()))
                view = None if first.view is first.codes else first.view
                made = latent_explorer(self.images, first.codes, self.model, view=view, store=self.store)
            self._explorers[self.who.value] = made
            made.sentence.observe(self._count, names="value")
            made.exchange.sentence.observe(self._refresh, names="value")
        self.place.children = [self.explorer]
        self._count()

    def _count(self, _=None):
        count = len(self.explorer.selection)
        self.button.description = f"Label {'this image' if count == 1 else f'these {count:,} images'}"
        self.button.disabled = not count
