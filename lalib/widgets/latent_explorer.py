"""The latent explorer: a map of codes by class, error, cluster or round; what lies where, what the decoder draws."""

import ipywidgets
import numpy as np
import torch

from lalib.codes.coding import decode, draws_classes
from lalib.data.checks import check_type
from lalib.data.door import check_codes
from lalib.data.imageset import ImageSet
from lalib.figures.maps import check_map
from lalib.labelling.store import LabelStore
from lalib.models.autoencoders import Autoencoder
from lalib.models.contrastive import ContrastiveEncoder
from lalib.models.networks import UNKNOWN
from lalib.models.semisupervised import M2
from lalib.widgets.exchange import Exchange
from lalib.widgets.groups import Groups, by_class, by_cluster, by_error, by_round, known_labels
from lalib.widgets.latent_map import LatentMap
from lalib.widgets.parts import Coordinates, Panel, Sentence, button, control, row
from lalib.widgets.words import counts_in_words, counts_table, indices_of, picture, rectangle_of, source

ALL = -1  # in place of a group's number
NEAREST = -1  # in place of a class's number
PAGE = 60  # images of a selection that are shown at once
SIDE = 132  # pixels of the pictures beside the map
ONE = "nothing"  # to colour by, where nothing is known
POINTER = [("moves the map", "panZoom"), ("draws a lasso", "lasso")]
TYPED = {"images": "numbers: 3, 17, 100-120", "rectangle": "left, right, bottom, top"}
NOTHING = "No image is selected. Draw a lasso around points, click one, or type image numbers or a rectangle."


def latent_explorer(
    images: ImageSet,
    codes: torch.Tensor,
    model: Autoencoder | M2 | ContrastiveEncoder | None = None,
    *,
    view: torch.Tensor | None = None,
    errors: torch.Tensor | None = None,
    clusters: torch.Tensor | None = None,
    rounds: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    store: LabelStore | None = None,
) -> "LatentExplorer":
    """A map of all codes with a cursor, whose code is decoded beside it; a lasso shows the images and counts them.

    codes: (N, L), one row per image. model: the autoencoder that made them; a model without a decoder, or none, leaves
    the cursor with the nearest image. One that draws classes (ConditionalVAE, M2) draws the code as the class that the
    menu "draw as" says: that of the nearest labelled image, or any other.
    view (N, 2): places on the map, as from la.project(codes); by default the map shows two coordinates of the codes, to
    be chosen if L > 2. On a view the cursor takes the nearest image's code.
    Colours, each where it is known: labels (N,), -1 where there is none, by default the images' own; errors (N,);
    clusters (N,), -1 outside of all; rounds (N,), -1 for images that were never picked.
    store: where answers are put that are read from a file; without it the selection can be written only. Its class
    names stand for those of images that have none.
    The box tells `selection`, the indices (n,) int64 of the selected images, `code` (L,), the cursor's, and `drawn_as`,
    the class that it is drawn as, or None; and `controls`, a dict of widgets by name.
    Raises ValueError or TypeError for what does not fit the images or the model.
    """
    codes, n = check_codes(codes).cpu().float(), len(check_type("images", images, ImageSet))
    if len(codes) != n:
        raise ValueError(f"codes must have one row for each of the {n} images, got {len(codes)}")
    if view is not None:
        view = check_map(view, "view", n).float()
    elif codes.shape[1] < 2:
        raise ValueError("codes of one coordinate make no map: give a view (N, 2)")
    names = images.class_names or (() if store is None else check_type("store", store, LabelStore).class_names)
    labels = known_labels(images, names, labels)
    groups = {
        "class": by_class(labels, names),
        "error": None if errors is None else by_error(errors, n),
        "cluster": None if clusters is None else by_cluster(clusters, n),
        "round": None if rounds is None else by_round(rounds, n),
    }
    groups = {name: each for name, each in groups.items() if each is not None} or {ONE: Groups.one(n)}
    model = _check_model(model, images, codes)
    return LatentExplorer(images, codes, model, view, groups, labels, _classes(model, names), store)


class LatentExplorer(Panel):
    """See latent_explorer, which checks the arguments."""

    def __init__(self, images, codes, model, view, groups, labels, classes, store):
        self.images, self.codes, self.model, self.view, self.groups = images, codes, model, view, groups
        self.labels = torch.full((len(images),), UNKNOWN) if labels is None else labels
        self.known, self.classes = (self.labels != UNKNOWN).nonzero()[:, 0], classes
        offered = [("nearest image's", NEAREST)] if classes and len(self.known) else []
        offered += [(name, c) for c, name in enumerate(classes)]
        choices = _controls(list(groups), codes.shape[1] if view is None else 2, offered)
        acts = {
            "select shown": lambda: self.map.select(self.shown),
            "select none": lambda: self.map.select(self.selection[:0]),
            "whole map": lambda: self.map.plot.reset_view(),
        }
        stretched = {"flex": "1 0 auto", "width": "auto"}
        buttons = {name: button(name, act, layout=stretched) for name, act in acts.items()}
        self.controls = choices | buttons
        self.sentence, self.cursor_sentence = Sentence(), Sentence()
        self.exchange = Exchange(images, lambda: self.selection, store)
        self.table, self.sheet, self.pictures = (ipywidgets.HTML() for _ in range(3))
        self.map = LatentMap(self.points, self._axis_names(), tell=self._tell, choose=self._choose)
        self.code, self.place = codes[_nearest(codes, codes.median(dim=0).values)], None
        low, high = np.quantile(codes, [0.005, 0.995], axis=0).tolist()
        self.sliders = Coordinates(values=self.code.tolist(), low=low, high=high)
        super().__init__(self._arranged(choices.values(), buttons.values()))
        self._observe()
        self._recolour()
        self._put(self.code, self._place_of(self.code))

    @property
    def selection(self) -> torch.Tensor:
        """The selected images (n,), int64, ascending."""
        return self.map.selection

    @property
    def points(self) -> torch.Tensor:
        """Where the images are on the map, (N, 2)."""
        return self.codes[:, self._axes()] if self.view is None else self.view

    @property
    def shown(self) -> torch.Tensor:
        """The images (n,) of the group that the map shows alone, or all."""
        if self.value("show") == ALL:
            return torch.arange(len(self.images))
        return torch.from_numpy((self._coloured().index == self.value("show")).nonzero()[0])

    @property
    def drawn_as(self) -> int | None:
        """The class that the cursor's code is drawn as; None if the model draws codes alone."""
        if not self.classes:
            return None
        if self.value("draw as") != NEAREST:
            return self.value("draw as")
        return int(self.labels[self.known[_nearest(self.codes[self.known], self.code)]])

    def _arranged(self, choices, buttons):
        panel = ipywidgets.VBox([*choices, ipywidgets.HBox([*buttons]), self.table], layout={"flex": "0 0 310px"})
        beside = [self.pictures, self.cursor_sentence] + [self.sliders] * (self.model is not None)
        self.map.layout = {"flex": "1 1 400px"}
        top = row(panel, self.map, ipywidgets.VBox(beside, layout={"flex": "0 0 290px"}))
        return [top, self.sentence, self.exchange, self.sheet]

    def _observe(self):
        acts = {
            "colour by": self._recolour,
            "show": lambda _: self.map.show(None if self.value("show") == ALL else self.shown),
            "across": self._turn,
            "upwards": self._turn,
            "draw as": lambda _: self._put(self.code, self.place),
            "pointer": lambda change: setattr(self.map.plot, "mouse_mode", change.new),
            "images": lambda change: self._type(lambda: indices_of(change.new, len(self.images))),
            "rectangle": lambda change: self._type(lambda: self._inside(*rectangle_of(change.new))),
            "page": lambda _: self._show_sheet(),
        }
        for name in acts.keys() & self.controls.keys():
            self.controls[name].observe(acts[name], names="value")
        self.map.plot.observe(self._show_selection, names="selection")
        self.map.observe(self._follow, names="cursor")
        self.sliders.observe(self._slide, names="values")

    # what the map shows

    def _coloured(self):
        return self.groups[self.value("colour by")]

    def _recolour(self, _=None):
        groups = self._coloured()
        counts = groups.counts().tolist()
        each = [(f"{name} ({count:,})", g) for g, (name, count) in enumerate(zip(groups.names, counts, strict=True))]
        self.controls["show"].options = [(f"all ({len(self.images):,})", ALL), *each]
        self.map.colour(groups)
        self._show_selection()

    def _axes(self):
        return [self.value("across"), self.value("upwards")] if "across" in self.controls else [0, 1]

    def _axis_names(self):
        if self.view is not None:
            return ["first coordinate of the view", "second coordinate of the view"]
        return [f"latent coordinate {axis + 1}" for axis in self._axes()]

    def _turn(self, change):
        """Other coordinates: if both are the same one now, the other direction takes what this one showed."""
        if self.value("across") == self.value("upwards"):
            other = "upwards" if change.owner is self.controls["across"] else "across"
            self.controls[other].value = change.old  # which comes back here
            return
        self.map.move(self.points, self._axis_names())
        self._put(self.code, self._place_of(self.code))

    def _tell(self, image):
        """A picture of the image under the pointer, and what is known of it, line by line."""
        known = [f"{name}: {groups.names[groups.index[image]]}" for name, groups in self.groups.items() if name != ONE]
        return source(self.images.images[image], 84), "\n".join([f"image {image}", *known])

    # what is selected

    def _inside(self, left, right, bottom, top):
        x, y = self.points[self.shown].T
        return self.shown[(left <= x) & (x <= right) & (bottom <= y) & (y <= top)]

    def _type(self, chosen):
        """Select what was typed, or say why not."""
        try:
            self.map.select(chosen())
        except ValueError as error:
            self.sentence.value = f"The selection stays as it is: {error}"

    def _choose(self):
        """Enter on the map: the image nearest to the cursor joins the selection."""
        self.map.select(torch.cat([self.selection, self._near()[None]]).unique())

    def _show_selection(self, _=None):
        index, groups = self.selection, self._coloured()
        title = "group" if self.value("colour by") == ONE else self.value("colour by")
        self.table.value = counts_table(title, groups.names, groups.colours, groups.counts(), groups.counts(index))
        self.sentence.value = self._selection_in_words(index)
        self.controls["page"].max = max(-(-len(index) // PAGE), 1)
        self.controls["page"].value = 1
        self._show_sheet()

    def _selection_in_words(self, index):
        if not len(index):
            return NOTHING
        text = f"{len(index):,} of {len(self.images):,} images selected"
        if "class" in self.groups:
            groups = self.groups["class"]
            return f"{text}: {counts_in_words(groups.names, groups.counts(index))}."
        if self.images.multi_label:
            counts = self.images.labels[index].sum(dim=0).numpy()
            return f"{text}, of several classes each: {counts_in_words(self.images.class_names, counts)}."
        return f"{text}. The images have no labels to count."

    def _show_sheet(self):
        index = self.selection
        self.controls["page"].disabled = len(index) <= PAGE
        first = (self.value("page") - 1) * PAGE
        part = index[first : first + PAGE]
        tiles = [picture(self.images.images[i], self._name(i), 56) for i in part.tolist()]
        last = f" (page {self.value('page')} of {self.controls['page'].max})" if len(index) > PAGE else ""
        head = f"<p>Images {first + 1:,} to {first + len(part):,} of {len(index):,} selected{last}</p>" if tiles else ""
        self.sheet.value = f'{head}<div style="display:flex;flex-wrap:wrap">{"".join(tiles)}</div>'

    def _name(self, image):
        """Number of an image, and its class where that is known."""
        groups = self.groups.get("class")
        return f"{image}" if groups is None else f"{image} ({groups.names[groups.index[image]]})"

    # the cursor

    def _follow(self, change):
        """The cursor was moved on the map."""
        if change.new != self.place:
            self._put(self._code_at(change.new), change.new)

    def _slide(self, change):
        """A slider was moved."""
        if change.new != self.code.tolist():
            code = torch.tensor(change.new)
            self._put(code, self._place_of(code))

    def _code_at(self, place):
        if self.view is not None:
            return self.codes[_nearest(self.view, torch.tensor(place))]
        code = self.code.clone()
        code[self._axes()] = torch.tensor(place)
        return code

    def _place_of(self, code):
        return code[self._axes()].tolist() if self.view is None else self.view[_nearest(self.codes, code)].tolist()

    def _near(self):
        return _nearest(self.codes, self.code)

    def _put(self, code, place):
        """The cursor is at `place`, where the code is `code`: wherever it was moved, everything follows."""
        self.code, self.place = code, place
        self.map.cursor, self.sliders.values = place, code.tolist()
        near = int(self._near())
        distance = float((self.codes[near] - code).norm())
        x, y = (f"{part:.3g}" for part in place)
        tiles = [picture(self.images.images[near], f"nearest: image {self._name(near)}", SIDE)]
        if self.model is not None:
            tiles.insert(0, self._drawn())
        self.pictures.value = f'<div style="display:flex">{"".join(tiles)}</div>'
        as_class = f", decoded{self._as_class()}" if self.classes else ""
        self.cursor_sentence.value = (
            f"Cursor at {x} across, {y} upwards{as_class}. "
            f"The nearest is image {self._name(near)}, at distance {distance:.3g}."
        )

    def _drawn(self):
        """A picture of the cursor's code, decoded."""
        label = None if self.drawn_as is None else torch.tensor([self.drawn_as])
        image, caption = decode(self.model, self.code[None], labels=label)[0], f"decoded{self._as_class()}"
        return picture(image, caption, SIDE, f"{caption} at {', '.join(f'{part:.3g}' for part in self.code.tolist())}")

    def _as_class(self):
        return "" if self.drawn_as is None else f" as {self.classes[self.drawn_as]}"


def _controls(groups, dims, classes):
    """The choices by name; menus that leave no choice are left out."""
    axes = [(f"coordinate {axis + 1}", axis) for axis in range(dims)]
    menus = {"colour by": groups, "show": [("all", ALL)]} | ({"across": axes, "upwards": axes} if dims > 2 else {})
    menus |= ({"draw as": classes} if classes else {}) | {"pointer": POINTER}
    made = {name: control(ipywidgets.Dropdown, name, options=options) for name, options in menus.items()}
    if dims > 2:
        made["upwards"].value = 1
    for name, hint in TYPED.items():
        made[name] = control(ipywidgets.Text, name, placeholder=hint, continuous_update=False)
    return made | {"page": control(ipywidgets.BoundedIntText, "page", value=1, min=1, max=1)}


def _nearest(points, point):
    """The index (), int64, of the row of points (N, L) nearest to point (L,)."""
    return (points - point).square().sum(dim=1).argmin()


def _check_model(model, images, codes):
    """The model, if it can draw these codes; None if it has no decoder."""
    if model is None or isinstance(model, ContrastiveEncoder):
        return None
    if not isinstance(model, Autoencoder | M2):
        raise TypeError(f"model must be an autoencoder, an M2, or a ContrastiveEncoder, got {type(model).__name__}")
    if codes.shape[1] != model.latent_dim:
        raise ValueError(f"codes must have the model's {model.latent_dim} coordinates, got {codes.shape[1]}")
    if tuple(model.image_shape) != images.image_shape:
        raise ValueError(f"the model draws images of shape {tuple(model.image_shape)}, got {images.image_shape}")
    return model


def _classes(model, names):
    """Names of the classes that the model draws; none if it draws codes alone."""
    if model is None or not draws_classes(model):
        return ()
    names = names or tuple(map(str, range(model.n_classes)))
    if len(names) != model.n_classes:
        raise ValueError(f"the model draws {model.n_classes} classes, the images have {len(names)}")
    return names
