"""The latent explorer: a map of codes by class, error, cluster or round; what lies where, what the decoder draws."""

import ipywidgets
import numpy as np
import torch

from lalib.codes.coding import decode, draws_classes
from lalib.data.checks import check_type
from lalib.data.door import check_codes
from lalib.data.imageset import ImageSet
from lalib.figures.maps import check_map
from lalib.figures.style import colour
from lalib.labelling.store import LabelStore
from lalib.models import M2, Autoencoder, ContrastiveEncoder
from lalib.models.networks import UNKNOWN
from lalib.widgets.exchange import Exchange
from lalib.widgets.groups import Groups, counts_in_words, group_numbers, grouped
from lalib.widgets.latent_map import LatentMap, nearest
from lalib.widgets.parts import Coordinates, Panel, Sentence, button, control, picture, row, source

ALL = NEAREST = -1  # in place of a group's number, of a class's
PAGE = 60  # images of a selection that are shown at once
SIDE = 132  # pixels of the pictures beside the map
ONE = "nothing"  # to colour by, where nothing is known
POINTER = [("moves the map", "panZoom"), ("draws a lasso", "lasso")]
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

    codes: (N, L), one row per image. model: the autoencoder that made them; without a decoder the cursor tells only the
    nearest image. A ConditionalVAE or an M2 draws the code as the class in the menu "draw as": that of the nearest
    labelled image, or any other. view (N, 2): places on the map, as from la.project(codes), where the cursor takes the
    nearest image's code; by default the map shows two coordinates of the codes, to be chosen if L > 2.
    Colours: labels (N,), -1 where there is none, by default the images' own; errors (N,); clusters (N,), -1 outside of
    all; rounds (N,), -1 for images that were never picked. store: where answers are put that are read from a file; its
    class names stand for those of images that have none.
    The box tells `selection`, the indices (n,) int64 of the selected images, `code` (L,), the cursor's, and `drawn_as`,
    the class that it is drawn as, or None; and `controls`, a dict of widgets by name.
    Raises ValueError or TypeError for what does not fit the images or the model.
    """
    n = len(check_type("images", images, ImageSet))
    codes = check_codes(codes, n=n).cpu().float()
    if view is not None:
        view = check_map(view, "view", n).float()
    elif codes.shape[1] < 2:
        raise ValueError("codes of one coordinate make no map: give a view (N, 2)")
    names = images.class_names or (() if store is None else check_type("store", store, LabelStore).class_names)
    labels = images.labels if labels is None and not images.multi_label else labels
    labels = None if labels is None else group_numbers("labels", labels, n, len(names))
    known = {"class": labels, "error": errors, "cluster": clusters, "round": rounds}
    groups = {what: grouped(what, values, n, names) for what, values in known.items() if values is not None}
    groups = groups or {ONE: Groups(np.zeros(n, dtype=np.int64), ("all images",), (colour(0),))}
    model, classes = _check_model(model, images, names)
    return LatentExplorer(images, codes, model, view, groups, labels, classes, store)


class LatentExplorer(Panel):
    """See latent_explorer, which checks the arguments."""

    def __init__(self, images, codes, model, view, groups, labels, classes, store):
        self.images, self.codes, self.model, self.view, self.groups = images, codes, model, view, groups
        self.labels = torch.full((len(images),), UNKNOWN) if labels is None else labels
        self.known, self.classes = (self.labels != UNKNOWN).nonzero()[:, 0], classes
        self.sentence, self.cursor_sentence = Sentence(), Sentence()
        self.exchange = Exchange(images, lambda: self.selection, store)
        self.table, self.sheet, self.pictures = (ipywidgets.HTML() for _ in range(3))
        acts = {
            "select shown": lambda: self.map.select(self.shown),
            "select none": lambda: self.map.select(self.selection[:0]),
            "whole map": lambda: self.map.plot.reset_view(),
        }
        stretched = {"flex": "1 0 auto", "width": "auto"}
        choices, buttons = self._choices(), {name: button(name, act, layout=stretched) for name, act in acts.items()}
        self.controls = choices | buttons
        self.map = LatentMap(
            self.points, self._axis_names(), tell=self._tell, choose=lambda: nearest(self.codes, self.code)
        )
        self.code, self.place = codes[nearest(codes, codes.median(dim=0).values)], None
        low, high = np.quantile(codes, [0.005, 0.995], axis=0).tolist()
        self.sliders = Coordinates(values=self.code.tolist(), low=low, high=high)
        beside = [self.pictures, self.cursor_sentence] + [self.sliders] * (model is not None)
        left = [*choices.values(), ipywidgets.HBox([*buttons.values()]), self.table]
        panel, side = (ipywidgets.VBox(each, layout={"flex": f"0 0 {w}px"}) for each, w in ((left, 310), (beside, 290)))
        super().__init__([row(panel, self.map, side), self.sentence, self.exchange, self.sheet])
        self.map.plot.observe(self._show_selection, names="selection")
        self.map.observe(self._follow, names="cursor")
        self.sliders.observe(self._slide, names="values")
        self._recolour()
        self._put(self.code)

    def _choices(self):
        """The menus and fields by name, each wired to what it does; menus that leave no choice are left out."""
        dims = 2 if self.view is not None else self.codes.shape[1]
        axes = [(f"coordinate {axis + 1}", axis) for axis in range(dims)] if dims > 2 else []
        nearest = [("nearest image's", NEAREST)] if self.classes and len(self.known) else []
        classes = nearest + [(name, c) for c, name in enumerate(self.classes)]
        menu, text, late = ipywidgets.Dropdown, ipywidgets.Text, {"continuous_update": False}
        looks = {
            "colour by": (self._recolour, menu, {"options": list(self.groups)}),
            "show": (lambda _: self.map.show(self.shown), menu, {"options": [("all", ALL)]}),
            "across": (self._turn, menu, {"options": axes}),
            "upwards": (self._turn, menu, {"options": axes, "value": 1}),
            "draw as": (lambda _: self._put(self.code, self.place), menu, {"options": classes}),
            "pointer": (lambda change: setattr(self.map.plot, "mouse_mode", change.new), menu, {"options": POINTER}),
            "images": (self._type, text, {"placeholder": "numbers: 3, 17, 100-120"} | late),
            "rectangle": (self._type, text, {"placeholder": "left, right, bottom, top"} | late),
            "page": (self._show_sheet, ipywidgets.BoundedIntText, {"value": 1, "min": 1, "max": 1}),
        }
        made = {name: control(kind, name, **look) for name, (_, kind, look) in looks.items() if look.get("options", 1)}
        for name, each in made.items():
            each.observe(looks[name][0], names="value")
        return made

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
        return torch.from_numpy((self.groups[self.value("colour by")].index == self.value("show")).nonzero()[0])

    @property
    def drawn_as(self) -> int | None:
        """The class that the cursor's code is drawn as; None if the model draws codes alone."""
        if not self.classes:
            return None
        if self.value("draw as") != NEAREST:
            return self.value("draw as")
        return int(self.labels[self.known[nearest(self.codes[self.known], self.code)]])

    def _recolour(self, _=None):
        groups = self.groups[self.value("colour by")]
        counts = zip(["all", *groups.names], [len(self.images), *groups.counts().tolist()], strict=True)
        self.controls["show"].options = [(f"{name} ({count:,})", g) for g, (name, count) in enumerate(counts, ALL)]
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
        self._put(self.code)

    def _tell(self, image):
        """A picture of the image under the pointer, and what is known of it, line by line."""
        known = [f"{name}: {groups.names[groups.index[image]]}" for name, groups in self.groups.items() if name != ONE]
        return source(self.images.images[image], 84), "\n".join([f"image {image}", *known])

    def _type(self, change):
        """Select what was typed, or say why not."""
        try:
            if change.owner is self.controls["images"]:
                index = indices_of(change.new, len(self.images))
            else:
                left, right, bottom, top = rectangle_of(change.new)
                x, y = self.points[self.shown].T
                index = self.shown[(left <= x) & (x <= right) & (bottom <= y) & (y <= top)]
            self.map.select(index)
        except ValueError as error:
            self.sentence.value = f"The selection stays as it is: {error}"

    def _show_selection(self, _=None):
        index, by = self.selection, self.value("colour by")
        self.table.value = self.groups[by].table("group" if by == ONE else by, index)
        if groups := self.groups.get("class"):
            classes = f": {counts_in_words(groups.names, groups.counts(index))}."
        elif self.images.multi_label:
            counts = self.images.labels[index].sum(dim=0).numpy()
            classes = f", of several classes each: {counts_in_words(self.images.class_names, counts)}."
        else:
            classes = ". The images have no labels to count."
        words = f"{len(index):,} of {len(self.images):,} images selected{classes}"
        self.sentence.value = words if len(index) else NOTHING
        self.controls["page"].max = max(-(-len(index) // PAGE), 1)
        self.controls["page"].value = 1
        self._show_sheet()

    def _show_sheet(self, _=None):
        count, page = len(self.selection), self.value("page")
        self.controls["page"].disabled = count <= PAGE
        first, last = (page - 1) * PAGE, min(page * PAGE, count)
        tiles = [picture(self.images.images[i], self._name(i), 56) for i in self.selection[first:last].tolist()]
        which = f" (page {page} of {self.controls['page'].max})" if count > PAGE else ""
        head = f"<p>Images {first + 1:,} to {last:,} of {count:,} selected{which}</p>" if tiles else ""
        self.sheet.value = f'{head}<div style="display:flex;flex-wrap:wrap">{"".join(tiles)}</div>'

    def _name(self, image):
        """Number of an image, and its class where that is known."""
        groups = self.groups.get("class")
        return f"{image}" if groups is None else f"{image} ({groups.names[groups.index[image]]})"

    def _follow(self, change):
        if change.new == self.place:
            return
        if self.view is not None:
            code = self.codes[nearest(self.view, torch.tensor(change.new))]
        else:
            code = self.code.clone()
            code[self._axes()] = torch.tensor(change.new)
        self._put(code, change.new)

    def _slide(self, change):
        if change.new != self.code.tolist():
            self._put(torch.tensor(change.new))

    def _put(self, code, place=None):
        """Put the cursor where the code is `code`, at `place`, by default its own on the map: everything follows."""
        near = int(nearest(self.codes, code))
        if place is None:
            place = code[self._axes()].tolist() if self.view is None else self.view[near].tolist()
        self.code, self.place = code, place
        self.map.cursor, self.sliders.values = place, code.tolist()
        label = self.drawn_as
        as_class = "" if label is None else f" as {self.classes[label]}"
        name, (x, y) = f"image {self._name(near)}", (f"{part:.3g}" for part in place)
        tiles = [picture(self.images.images[near], f"nearest: {name}", SIDE)]
        if self.model is not None:
            image = decode(self.model, code[None], labels=None if label is None else torch.tensor([label]))[0]
            words = f"decoded{as_class} at {', '.join(f'{part:.3g}' for part in code.tolist())}"
            tiles.insert(0, picture(image, f"decoded{as_class}", SIDE, words))
        self.pictures.value = f'<div style="display:flex">{"".join(tiles)}</div>'
        drawn, far = f", decoded{as_class}" if as_class else "", float((self.codes[near] - code).norm())
        self.cursor_sentence.value = (
            f"Cursor at {x} across, {y} upwards{drawn}. The nearest is {name}, at distance {far:.3g}."
        )


def _check_model(model, images, names):
    """The model, if it draws such images, and the names of the classes it draws; (None, ()) without a decoder."""
    if model is None or isinstance(model, ContrastiveEncoder):
        return None, ()
    if not isinstance(model, Autoencoder | M2):
        raise TypeError(f"model must be an autoencoder, an M2, or a ContrastiveEncoder, got {type(model).__name__}")
    if tuple(model.image_shape) != images.image_shape:
        raise ValueError(f"the model draws images of shape {tuple(model.image_shape)}, got {images.image_shape}")
    if not draws_classes(model):
        return model, ()
    if names and len(names) != model.n_classes:
        raise ValueError(f"the model draws {model.n_classes} classes, the images have {len(names)}")
    return model, names or tuple(map(str, range(model.n_classes)))


def indices_of(text: str, n: int) -> torch.Tensor:
    """The numbers in a text such as "3, 17, 100-120", ascending, each once; ValueError if they are no images of n."""
    chosen = set()
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f'images must be numbers and ranges such as "3, 17, 100-120", got {part!r}')
        low, high = int(first), int(last or first)
        if not low <= high < n:
            raise ValueError(f"images must lie in 0 to {n - 1}, a range's smaller number first, got {part!r}")
        chosen.update(range(low, high + 1))
    return torch.tensor(sorted(chosen), dtype=torch.int64)


def rectangle_of(text: str) -> tuple[float, ...]:
    """The four numbers of a text such as "-1, 1, 0, 2.5": left, right, bottom, top; ValueError for anything else."""
    try:
        left, right, bottom, top = (float(part) for part in text.replace(",", " ").split())
    except ValueError:
        left, right, bottom, top = 1, 0, 0, 0
    if not (left <= right and bottom <= top):
        raise ValueError(f'rectangle must be "left, right, bottom, top", such as "-1, 1, 0, 2.5", got {text!r}')
    return left, right, bottom, top
