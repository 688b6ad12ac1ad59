"""The page: from images and a file of answers to a classifier and its result, round by round, on one screen."""

import asyncio
import contextlib
import html
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import ipywidgets
import pandas as pd
import torch
from safetensors import SafetensorError

from lalib.data.checks import LalibError, check_type
from lalib.data.imageset import ImageSet
from lalib.data.seeds import generator
from lalib.figures.curves import accuracy_curve
from lalib.labelling import LabellingLoop, LabelStore
from lalib.models.autoencoders import Autoencoder
from lalib.strategies.view import with_options_of
from lalib.widgets.colouring import COLOURED, coloured
from lalib.widgets.folded import UNFOLD
from lalib.widgets.labeller import MOST, NONE, Labeller
from lalib.widgets.latent_map import LatentMap, nearest
from lalib.widgets.parts import Names, Panel, Sentence, button, close, control, counted, picture, row, source
from lalib.widgets.plot import Plot
from lalib.widgets.sayings import brought, foreign, next_step, steps_in_words
from lalib.widgets.strategy_controls import Places

EVERY = 0.7  # seconds; keys come faster than a map of many points is drawn
TILES = 24  # images on a sheet
HEIGHT = 300  # pixels of the map: all is on a screen of 1280 x 800
YARDSTICK = "the yardstick"
FOLDED = "nothing"
AXES = ["first coordinate", "second coordinate"]


class Workbench(Panel):
    """Choose, label, learn, look, until there is a classifier: a map, the labeller beside it, and what comes next.

        store = la.LabelStore("labels.sqlite", ["cat", "dog"], labeller="me")
        la.widgets.Workbench(images, {"VAE": codes}, store, model)
    codes (N, L), views (N, 2): by name, as in sampling_explorer; the first codes are chosen from and learnt from, and
    make the map. model: the autoencoder that made those, if they are to be decoded. store: where the answers go.
    out: the folder for the result, by default beside the store. options: as in LabellingLoop.
    All that is shown follows from images and store: who opens the page again goes on there.
    `loop` says what to label and learns; `labeller` is the one that is shown, or None; `curve` the rounds learnt, a
    Snapshot each; `steps` and `controls` are buttons and menus by name. Raises what sampling_explorer raises; later
    troubles are said in words.
    """

    @with_options_of(LabellingLoop.__init__)
    def __init__(
        self,
        images: ImageSet,
        codes: Mapping[str, torch.Tensor],
        store: LabelStore,
        model: Autoencoder | None = None,
        *,
        views: Mapping[str, torch.Tensor] | None = None,
        out: str | Path | None = None,
        **options,
    ):
        self.images, self.store = check_type("store", store, LabelStore).adopt(images), store
        self.out = store.path.with_name(f"{store.path.stem}-result") if out is None else Path(out)
        self._classes, self.options = store.class_names, options
        self.labeller, self.plot, self._waiting, self.trouble = None, None, False, ""
        self.copies: tuple[torch.Tensor, torch.Tensor] | None = None  # as near_duplicates returns: a round folds them
        self.check: Callable[[], str] = lambda: ""  # what has become of the images' files meanwhile
        acts = {"images": self.look, "yardstick": self.measure, "rounds": self._round, "result": self.write}
        self.steps = {name: button("", partial(self.act, act)) for name, act in acts.items()}
        menu, late = ipywidgets.Dropdown, {"continuous_update": False}
        self.controls = {
            "strategy": control(menu, "strategy", layout={"width": "400px"}),
            "how many": control(ipywidgets.BoundedIntText, "how many", min=1, layout={"width": "200px"}, **late),
            "next": button("", lambda: self.act(lambda: next_step(self)[1]()), button_style="primary"),
            "colour by": control(menu, "colour by", options=COLOURED),
            "more": control(menu, "more", options=[FOLDED, *UNFOLD]),
        }
        self.sentence, self.news, self.legend, self.sheet = Sentence(), Sentence(), ipywidgets.HTML(), ipywidgets.HTML()
        self.bar = ipywidgets.IntProgress(layout={"width": "100%"}, style={"description_width": "auto"})
        self.curve_place, self.bench, self.place = (ipywidgets.VBox() for _ in range(3))
        nearest_one = lambda: nearest(self.points, torch.tensor(self.map.cursor))  # noqa: E731
        self.map = LatentMap(torch.zeros(len(images), 2), AXES, tell=self._about, choose=nearest_one)
        self.map.plot.height, self.map.plot.mouse_mode, self.map.layout.flex = HEIGHT, "lasso", "none"
        self.use(codes, model, views)
        self.controls["how many"].max = len(self.loop.pool)
        self.controls["how many"].value = max(1, self.loop.step)
        strategy, many, go, by, more = self.controls.values()
        left = ipywidgets.VBox([self.map, self.legend, self.curve_place, self.news], layout={"flex": "1 1 420px"})
        self.bench.layout, self.bench.children = {"flex": "1.4 1 520px"}, [self.sheet]
        head = [row(*self.steps.values()), self.sentence, self.bar, row(strategy, many, go, by)]
        super().__init__([*head, row(left, self.bench), more, self.place, Names()])
        self.add_class("lalib-workbench")
        for each, act in ((by, self._recolour), (more, self._unfold), (strategy, self._tell), (many, self._tell)):
            each.observe(act, names="value")
        self.map.plot.observe(self._selected, names="selection")
        self.look()
        self._tell()

    def use(self, codes, model=None, views=None, encoder: Callable[[], object] | None = None) -> None:
        """Go on with other codes, model and views; the answers stay, and are learnt from anew. What is unfolded stays
        as it is, with the earlier codes, until it is opened again.

        encoder(): the model that made the first codes, for the result, if it is not `model`.
        """
        if not check_type("codes", codes, Mapping):
            raise ValueError("codes must hold at least one encoder's name and its codes (N, L), got none")
        name = next(iter(codes))
        self.loop = LabellingLoop(self.images, codes[name], self.store, **self.options)
        self.codes, self.views, self.model = codes, dict(views or {}), model
        self.encoder = encoder or (lambda: model)
        self.curve, self._learnt, self.preparing = [], {}, ""
        self.news.value, self.curve_place.children = "", []
        self.show_view(Places(codes[name], view=self.views.get(name)).view)

    def show_view(self, view: torch.Tensor) -> None:
        """Show the images at other places (N, 2)."""
        name = next(iter(self.codes))
        self.views[name], self.points = view, view.float()
        self.map.move(self.points, AXES)
        self.map.cursor = self.points.median(dim=0).values.tolist()
        self.progress("", 1, 1)
        self._tell()

    def wait(self, words: str, trouble: str = "") -> None:
        """Say in words for what the rounds have to wait, or with "" that they have not, and what went wrong."""
        self.preparing, self.trouble = words, trouble
        self.progress(words, int(not words), 1)
        self._tell()

    # What the buttons do

    def look(self) -> None:
        """Show some of the images, drawn at random."""
        self.trouble = self.check()
        some = torch.randperm(len(self.images), generator=generator(self.loop.seed, "look"))[:TILES]
        self._show(some, f"{len(some)} of {counted(len(self.images), 'image')}, drawn at random")

    def measure(self) -> None:
        """Label the images that tell how good the classifier is."""
        self.label(self.unmeasured, YARDSTICK)

    def choose(self) -> None:
        """Have the strategy choose as many images as are missing for a whole round, and label them."""
        many, answers = self.value("how many"), len(self.loop.answered[0])
        goal = min(answers + many - answers % many, len(self.loop.pool))
        self.progress("Choosing", 0, 1)
        self.label(self.loop.ask(self.value("strategy"), goal), "this round", self.copies)

    def learn(self) -> None:
        """Learn from all answers, round by round, and say what they have brought."""
        given = self._given()
        self.progress("Learning", 0, 1)
        curve = self.loop.curve(on_round=partial(self.progress, "Learning"))
        self._learnt, self.curve, self.advice = given, curve, self.loop.advice()
        self.news.value = "\n".join(brought(self.loop, self.curve, self.advice.reason))
        rows = [(s.labels, s.accuracy, s.low, s.high) for s in self.curve if s.accuracy == s.accuracy]
        if rows:
            figure = accuracy_curve(pd.DataFrame(rows, columns=["labels", "accuracy", "low", "high"]))
            self.plot = self.plot or Plot(figure)
            self.plot.show(figure)
            self.curve_place.children = [self.plot]

    def write(self) -> None:
        """Write predictions of all images, the labelled ones, the classifier and the counts of classes."""
        self.progress("Writing", 0, 1)
        self.loop.write_result(self.out, self.encoder())
        self.trouble = self.check()

    def label(self, index: torch.Tensor, words: str, copies=None) -> None:
        """Open the labeller on the images at `index` (n,), in place of an earlier one, with near `copies` folded.
        LalibError, with the words for what they are, if there are none."""
        if not len(index):
            raise LalibError(f"there is nothing left to label in {words}")
        earlier, probs = self.labeller, self.curve[-1].probs if self.curve and words != YARDSTICK else None
        look = {"probs": probs, "groups": copies, "focused": True, "on_answer": self._answered}
        self.labeller = Labeller(self.images, self.store, index[:MOST], **look)
        # An undo is refused when another page has changed the classes: then the labeller is made anew, and can.
        self.labeller.on_msg(lambda _, message, __: message["kind"] == "undo" and self._answered())
        self._opened, self._left = (words, copies), self.unanswered
        self.go_on()
        if earlier is not None:
            close(earlier)

    def progress(self, words: str, done: int, total: int) -> None:
        """Show how far something is that takes time; it is gone when all is done."""
        self.bar.description, self.bar.max, self.bar.value = words, total, done
        self.bar.layout.display = None if done < total else "none"

    def refresh(self, _=None) -> None:
        """Show what has come into the store from elsewhere, too."""
        if self.labeller is not None:
            with contextlib.suppress(LalibError):  # of which _tell speaks
                self.labeller.refresh()
        self._tell()

    # What is shown

    @property
    def chosen(self) -> torch.Tensor:
        """The images (n,) that are selected on the map, without those of the yardstick, which is drawn at random."""
        measured = {self.images.hashes[i] for i in self.loop.held_out.tolist()}
        kept = [i for i in self.map.selection.tolist() if self.images.hashes[i] not in measured]
        return torch.tensor(kept, dtype=torch.int64)

    @property
    def unmeasured(self) -> torch.Tensor:
        """The images (n,) of the yardstick that have no answer, in the order in which they were drawn."""
        held, given = self.loop.held_out, self._given()
        return held[torch.tensor([self.images.hashes[i] not in given for i in held.tolist()])]

    @property
    def changed(self) -> int:
        """How many answers are new, other or gone since the last learning."""
        return len(dict(self._given().items() ^ self._learnt.items()))

    def _given(self):
        """{hash: class, None for "not sure"} of these images; those skipped have no answer."""
        answers = self.store.answers()
        return {i: answers[i].class_name for i in self.images.hashes if i in answers and answers[i].kind != "skip"}

    def act(self, act: Callable[[], None]) -> None:
        """Do it, and say what became of it."""
        self.trouble = ""
        try:
            act()
        except (RuntimeError, ValueError, OSError, SafetensorError) as error:  # LalibError, those of torch, a full disk
            self.trouble = f"{str(error).rstrip('.')}."
        finally:
            self.progress("", 1, 1)
            self._tell()

    def _tell(self, _=None):
        """Bring all that is shown up to the answers in the store."""
        self._waiting = False
        try:
            self._follow_classes()
            self._offer()
            words, act, sentence = next_step(self)
            for name, said in steps_in_words(self).items():
                self.steps[name].description = said
            self._recolour()
        except LalibError as error:
            self.sentence.value = f"{str(error).rstrip('.')}."
            return
        go = self.controls["next"]
        go.description, go.disabled = words, act is None
        self.sentence.value = "\n".join(filter(None, [foreign(self.store, self.images), self.trouble, sentence]))

    def _follow_classes(self):
        """A class was added or renamed, here or by another page: all is learnt anew, and the labeller shows it."""
        if (names := self.store.class_names) != self._classes:
            self._classes, self.curve, self._learnt = names, [], {}
            if self.labeller is not None:
                self.label(self.labeller.index, *self._opened)

    def _offer(self):
        """The strategies that the stage allows, the recommended one marked."""
        names, best, menu = self.loop.allowed, self.loop.recommended, self.controls["strategy"]
        options = tuple((f"{name} (recommended)" if name == best else name, name) for name in names)
        if options != menu.options:
            own = (menu.value, menu.value) in menu.options  # chosen by the person, against the recommendation
            kept = menu.value if own and menu.value in names else best
            menu.options = options
            menu.value = kept

    def _recolour(self, _=None):
        groups = coloured(self.value("colour by"), self.loop, self.curve[-1] if self.curve else None)
        self.map.colour(groups)
        self.legend.value = groups.legend()

    def _answered(self, *_):
        """An answer was saved. When it was the last one here, what comes next has the keys."""
        before, self._left = self._left, self.unanswered
        if before and not self._left:
            self._tell()
            self.controls["next"].focus()
            return
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:  # no page
            self._tell()
        else:
            if not self._waiting:
                self._waiting = True
                running.call_later(EVERY, self._tell)

    def _selected(self, _):
        index = self.chosen
        if len(index):
            self._show(index[:TILES], f"{len(index[:TILES])} of {counted(len(index), 'selected image')}")
        elif self.labeller is not None:
            self._turn_to(self.labeller)
        self._tell()

    def _show(self, index, words):
        tiles = [picture(self.images.images[i], self.name(i), 96) for i in index.tolist()]
        self.sheet.value = f'<p>{html.escape(words)}</p><div class="lalib-tiles">{"".join(tiles)}</div>'
        self._turn_to(self.sheet)

    @property
    def unanswered(self) -> int:
        """How many of its images the labeller has no answer to, near copies apart."""
        return 0 if self.labeller is None else self.labeller.answers[: len(self.labeller.index)].count(NONE)

    def label_chosen(self) -> None:
        """Label what is selected on the map."""
        index = self.chosen
        self.label(index, "the selection", self.copies)
        self.map.select(index[:0])

    def go_on(self) -> None:
        """Show the labeller; new on the page, it takes the keys."""
        self.bench.children = [self.sheet]
        self.bench.children = [self.sheet, self.labeller]
        self._turn_to(self.labeller)

    def _turn_to(self, part):
        """Show one part of the bench and hide the other: the page would keep what was drawn of a part taken away."""
        for each in self.bench.children:
            each.layout.display = None if each is part else "none"

    def _round(self):
        new = len(self.loop.answered[0]) and self.changed
        self.learn() if new else self.choose()

    def name(self, image: int) -> str:
        """What an image is called."""
        return self.images.files[image] if self.images.files else f"image {image}"

    def _about(self, image):
        """A picture of the image under the pointer, and what is known of it, line by line."""
        answer, lines = self.store.answers().get(self.images.hashes[image]), [self.name(image)]
        if answer is not None:
            lines.append(f"my answer: {answer.class_name or answer.kind}")
        if self.curve:
            sure, label = self.curve[-1].probs[image].max(dim=0)
            lines.append(f"predicted: {self.store.class_names[label]} ({sure:.0%})")
        return source(self.images.images[image], 84), "\n".join(lines)

    def _unfold(self, change):
        """Show what was folded away: made when it is asked for, as a map that is on no page has no size."""
        earlier, self.place.children = self.place.children, []
        for each in earlier:
            close(each)
        if change.new != FOLDED:
            self.act(lambda: setattr(self.place, "children", [UNFOLD[change.new](self)]))
