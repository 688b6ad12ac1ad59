"""LabellingLoop: active learning with a person, step by step: select, label, train, look, repeat; and what comes of it.

All follows from images, codes and the file of answers: a notebook that is run again goes on where the labels end.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lalib.data import ImageSet, LalibError, child_seed, generator
from lalib.data.checks import check_int, check_type
from lalib.experiments import Task, TaskData, TaskModel, train
from lalib.labelling import doubts, prevalence
from lalib.labelling.answers import numbered
from lalib.labelling.result import write_result
from lalib.labelling.store import LabelStore, first_places
from lalib.models import Classifier, predict_proba
from lalib.models.networks import UNKNOWN
from lalib.strategies import PoolView, run_strategy
from lalib.strategies.registry import STRATEGIES, AnyStrategy, as_strategy

if TYPE_CHECKING:
    import pandas as pd

    from lalib.experiments.stopping import Stopping

USUAL = 20  # answers of a round
MOST, LEAST = 100, 20  # held-out images: so many are drawn of 500 images and more; so many, answered, are a sample
COVERING, LATER = "typiclust", "uncertainty-herding"  # strategies, while there are few labels and then
RECENT = 6  # rounds that a curve shows all; of those before only some
SEEN = 2000  # images whose predictions are compared from round to round
HELD = 24  # snapshots that are kept
WORK, FEWEST = 10**11, 1000  # coordinates of pairs that a strategy which covers looks at; at least of so many images


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A classifier trained on the first `answers` answers of the pool, `labels` of which named a class.

    probs (N, C): its class probabilities of all images, columns as in store.class_names. accuracy: the share that it
    gets right of the `tested` held-out images that have a class; low, high: Wilson's 95 % interval of that share. All
    three are NaN while too few held-out images are answered: see LabellingLoop.sample.
    doubtful (U,): the pool's images without an answer, the smallest margin between the two most probable classes first.
    """

    answers: int
    labels: int
    classifier: Classifier
    probs: Tensor
    tested: int
    accuracy: float
    low: float
    high: float
    doubtful: Tensor

    def __str__(self) -> str:
        if math.isnan(self.accuracy):
            return f"{self.labels} labels: too few held-out images with a class to measure accuracy ({self.tested})"
        right = f"{self.accuracy:.1%} of {self.tested} held-out images right"
        return f"{self.labels} labels: {right} (95 % interval {self.low:.1%} to {self.high:.1%})"


class LabellingLoop:
    """What to label next and what was learnt so far, from `images`, their codes (N, L) and the answers in `store`.

        loop = LabellingLoop(images, codes, store)
        Labeller(images, store, loop.held_out)                            # first, or bit by bit
        Labeller(images, store, loop.ask(loop.recommended, 20))           # then round after round
        print(loop.train())
        Labeller(images, store, loop.ask(loop.recommended, 40))
        print(loop.advice().reason)
        loop.write_result("result")

    held_out: so many images are set aside at random to measure accuracy; the person labels them, too. None is a fifth
    of them, at most 100: a classifier that gets 80 of 100 right gets 71 to 87 % of all right (95 % interval), 320 of
    400, four times the work, would make that 76 to 84 %. The seed and the pixels decide which: renaming or sorting
    files changes nothing, and copies of an image are never on both sides.
    `held_out` (H,) are these images, in the order in which they were drawn, `pool` (P,) the others, copies once.
    Classes are those that the store has when it is asked. task: what is trained, default Task(), each time from the
    weights of `seed`. Images answered with "not sure" are not learnt from and not asked again; skipped ones may be.
    """

    def __init__(
        self,
        images: ImageSet,
        codes: Tensor,
        store: LabelStore,
        *,
        held_out: int | None = None,
        task: Task | None = None,
        seed: int = 0,
        device: str = "auto",
    ):
        check_type("store", store, LabelStore)
        bare = replace(check_type("images", images, ImageSet), labels=None, class_names=store.class_names)
        self.data = TaskData(codes, bare, check_type("task", task, Task | None) or Task())
        self.images, self.store, self.seed, self.device = store.adopt(images), store, seed, device
        self._model = lru_cache(1)(self._model)  # so that asking after learning does not learn again
        self._learnt = lru_cache(HELD)(self._learnt)
        first = first_places(images)
        drawn = sorted(first, key=lambda image: child_seed(seed, "held out", image))
        usual = max(1, min(MOST, len(drawn) // 5))
        count = check_int("held_out", usual if held_out is None else held_out, low=1, high=len(drawn) - 1)
        self.held_out = torch.tensor([first[image] for image in drawn[:count]])
        self.pool = torch.tensor(sorted(first[image] for image in drawn[count:]))
        self._round = max(1, min(USUAL, len(self.pool) // 5))

    @property
    def answered(self) -> tuple[Tensor, Tensor]:
        """The images of the pool that have an answer (A,), the oldest first, and their classes, -1 for "not sure"."""
        return self._answered(self.pool)

    @property
    def sample(self) -> tuple[Tensor, Tensor]:
        """The held-out images (S,) before the first without an answer, and their classes, -1 for "not sure".

        As they stand in random order, they are a random sample of all images, however far a person has come. Accuracy
        is measured on those with a class if there are at least 20, or if all held-out images are answered. (Of 20 a
        share of one half has the interval 30 to 70 %.)
        """
        index, labels = self._answered(self.held_out)
        leading = self.held_out[: int(torch.isin(self.held_out, index).cumprod(0).sum())]
        return leading, labels[(index == leading[:, None]).nonzero()[:, 1]]

    @property
    def step(self) -> int:
        """How many images to ask for next: 20, of a pool below 100 a fifth of it, and no more than are left."""
        return min(self._round, len(self.pool) - len(self.answered[0]))

    @property
    def allowed(self) -> list[str]:
        """The strategies that can be asked now: the task serves them, and there are labels if they need some."""
        some = bool((self.answered[1] != UNKNOWN).any())
        return [name for name, each in STRATEGIES.items() if (some or each.label_free) and self._serves(each)]

    def _serves(self, strategy):
        try:
            self.data.task.check_serves(strategy)
        except LalibError:
            return False
        return True

    @property
    def recommended(self) -> str:
        """The strategy for the next round: one that covers the codes until there are 20 labels, and two per class on
        average, of two classes or more; then one that asks where the classifier is not sure, too."""
        labels = self.answered[1]
        known = labels[labels != UNKNOWN]
        few = len(known) < max(USUAL, 2 * self.data.images.n_classes) or len(known.unique()) < 2
        return COVERING if few or not self._serves(STRATEGIES[LATER]) else LATER

    def ask(self, strategy: AnyStrategy, answers: int, **options) -> Tensor:
        """Indices (n,) of the images to label next, so many that `answers` images of the pool are then answered ("not
        sure" is an answer); empty if so many are answered already. options: those of the strategy. A strategy that
        covers codes measures that on a part of a pool that is large and wide: about 4,000 of 20,000 x 1,280.

        Raises ValueError for more answers than the pool has images, and for a strategy or option that is none;
        LalibError for a strategy that needs labels as long as there are none.
        """
        index, labels = self.answered
        n = check_int("answers", answers, low=1, high=len(self.pool)) - len(index)
        if n <= 0:
            return torch.empty(0, dtype=torch.int64)
        strategy, options = as_strategy(strategy, options)
        self.data.task.check_serves(strategy)
        known = labels != UNKNOWN
        if strategy.label_free is False and not known.any():
            hint = "begin with a strategy that needs none, such as 'typiclust'"
            raise LalibError(f"{strategy.name!r} needs labels, and the pool has none yet: {hint}")
        pixels = strategy.needs is None or bool(strategy.own) or "vaal" in strategy.needs
        if known.any() and not (strategy.label_free and self.data.task.encoder is None):
            free, model = self._model(_plain(index), _plain(labels), pixels)
            sources = model.sources(strategy.own)
            view = PoolView(model.codes, model.index, model.labels, sources, len(free), strategy.own)
        else:
            free, labeled, data = self._usable(index, labels, pixels)
            view = PoolView(data.codes, labeled, labels[known] if known.any() else None)
        if "reference" in inspect.signature(strategy.function).parameters:
            enough = WORK // (len(free) * self.data.codes.shape[1])
            options = {"reference": max(enough, FEWEST)} | options if enough < len(free) else options
        draws = generator(self.seed, "select", len(index))
        return free[run_strategy(strategy, view, n, generator=draws, **options).index]

    # Learning

    def train(self, answers: int | None = None) -> Snapshot:
        """Train on the first `answers` answers (default all) to images of the pool, and test on the `sample`.

        What was trained in this process is not trained again: 24 snapshots are kept. Raises LalibError if there are
        fewer answers or none of them is a class.
        """
        index, labels = self.answered
        if answers is not None and check_int("answers", answers, low=1) > len(index):
            raise LalibError(f"{answers} images of the pool are to be learnt from, {len(index)} have an answer yet")
        if not (labels[:answers] != UNKNOWN).any():
            raise LalibError(f"there is nothing to learn from: none of the pool's {len(index)} answers is a class")
        return self._snapshot(index, labels, len(index) if answers is None else answers, self.sample)

    def curve(self, on_round: Callable[[int, int], None] | None = None) -> list[Snapshot]:
        """A snapshot per round of answers, the first one first, the last one of all answers: train(k) for k a multiple
        of 20 (see `step`). Of rounds long ago only some are there, ever fewer the longer ago. Rounds without a class
        are left out.

        on_round: called with how many are done and how many there are, after each.
        """
        index, labels = self.answered
        sample, known = self.sample, (labels != UNKNOWN).cumsum(0)
        points = [k for k in self._points(len(index)) if known[k - 1]]
        found = []
        for k in points:
            found.append(self._snapshot(index, labels, k, sample))
            if on_round is not None:
                on_round(len(found), len(points))
        return found

    def _points(self, total):
        """Numbers of answers (K,): after the last RECENT rounds, and before them after 1, 2, 3, 4, 6, 8, 12, 16, ..."""
        last = total // self._round
        old = {round(base * 2**power) for base in (1, 1.5) for power in range(20)}
        rounds = [r * self._round for r in range(1, last + 1) if r in old or r > last - RECENT]
        return rounds + [total] * (total % self._round > 0)

    def advice(self, on_round: Callable[[int, int], None] | None = None) -> "Stopping":
        """Whether another round will hardly help, or why not: should_stop over the rounds of `curve`, in plain words.

        on_round: as in `curve`.
        """
        from lalib.labelling.advice import advise  # pandas takes long to import

        rounds = [each for each in self.curve(on_round) if each.answers % self._round == 0]
        seen = self.pool[torch.randperm(len(self.pool), generator=generator(self.seed, "seen"))[:SEEN]]
        said = [each.probs[seen].argmax(1) for each in rounds]
        index, labels = self.answered
        classes, left = {*labels.tolist()} - {UNKNOWN}, len(self.pool) - len(index)
        curve = [each.answers for each in rounds], [each.accuracy for each in rounds]
        return advise(torch.stack(said) if said else torch.empty(0, len(seen)), *curve, self._round, len(classes), left)

    def _snapshot(self, index, labels, answers, sample):
        index, labels, left = index[:answers], labels[:answers], self.pool[~torch.isin(self.pool, index)]
        classifier, probs = self._learnt(_plain(index), _plain(labels))
        tested, truth = (part[sample[1] != UNKNOWN] for part in sample)
        share = 3 * (math.nan,)
        if len(tested) >= LEAST or (len(tested) and len(sample[0]) == len(self.held_out)):
            from lalib.experiments.statistics import share_interval  # pandas takes long to import

            share = share_interval(int((probs[tested].argmax(1) == truth).sum()), len(truth))
        best = probs[left].topk(2, dim=1).values
        doubtful = left[(best[:, 0] - best[:, 1]).argsort(stable=True)]
        return Snapshot(answers, int((labels != UNKNOWN).sum()), classifier, probs, len(tested), *share, doubtful)

    def _learnt(self, index, labels):
        classifier = self._model(index, labels, False)[1].classifier
        return classifier, predict_proba(classifier, self.data.inputs)

    def _model(self, index, labels, pixels) -> tuple[Tensor, TaskModel]:
        """The part of the pool that is not "not sure" (F,), and a model on it that has learnt its labels."""
        index, labels = torch.tensor(index), torch.tensor(labels)
        free, labeled, data = self._usable(index, labels, pixels)
        return free, train(data, labeled, labels[labels != UNKNOWN], seed=self.seed, device=self.device)

    def _usable(self, index, labels, pixels):
        """The pool without those not sure (F,), the places of those with a class in it (M,), and it as data; without
        pixels where neither task nor strategy looks at them, which of a large pool may not fit into memory twice."""
        free = self.pool[~torch.isin(self.pool, index[labels == UNKNOWN])]
        labeled = torch.searchsorted(free, index[labels != UNKNOWN])
        images = self.data.images
        if pixels or self.data.task.on_pixels:
            part = images.subset(free)
        else:
            blank = torch.zeros(1, dtype=torch.uint8).expand(len(free), *images.image_shape)
            part = replace(images, images=blank, identities=())
        return free, labeled, TaskData(self.data.codes[free], part, self.data.task)

    def _answered(self, part):
        place = {self.images.hashes[index]: index for index in part.tolist()}
        given = [(place[i], a) for i, a in self.store.answers().items() if i in place and a.kind != "skip"]
        names = self.store.class_names
        if names != self.data.images.class_names:  # a class was added or renamed: all is learnt anew
            self.data = TaskData(self.data.codes, replace(self.data.images, class_names=names), self.data.task)
            self._model.cache_clear()
            self._learnt.cache_clear()
        labels = numbered((answer.class_name for _, answer in given), names)
        return torch.tensor([index for index, _ in given], dtype=torch.int64), labels

    # What comes of it

    def doubts(self, folds: int = 5) -> "pd.DataFrame":
        """Answers that may be wrong, held-out ones among them, as lalib.labelling.doubts finds them and returns them.

        It trains `folds` models. A person decides: who corrects held-out answers only where the model differs makes
        the accuracy look a little better than it is. Raises LalibError for fewer labels than folds.
        """
        index, labels = (torch.cat(pair) for pair in zip(self.answered, self._answered(self.held_out), strict=True))
        known = labels != UNKNOWN
        return doubts.doubts(self.data, index[known], labels[known], folds, seed=self.seed, device=self.device)

    def prevalence(self) -> "pd.DataFrame":
        """How many of all images are of each class: see lalib.labelling.prevalence. Copies count as often as they are
        there; held-out answers only once there are enough to measure accuracy. Raises what train raises.
        """
        probs = (snapshot := self.train()).probs.argmax(1)
        given = {image: a.class_name for image, a in self.store.answers().items() if a.kind != "skip"}
        known = numbered((given[image] for image in self.images.hashes if image in given), self.store.class_names)
        rest = torch.tensor([image not in given for image in self.images.hashes])
        sample, truth = self.sample if not math.isnan(snapshot.accuracy) else 2 * (torch.empty(0, dtype=torch.int64),)
        return prevalence.prevalence(known, probs[rest], truth, probs[sample], self.store.class_names)

    def write_result(self, folder: str | Path, encoder=None) -> Path:
        """Write what labelling ends with into a folder, whole or not at all, in place of an earlier result.

        predictions.csv: file, class, probability (what the classifier gives that class), labelled_by (whose answer the
        class is; empty if the classifier's); labels.csv: all answers; counts.csv: `prevalence`; classifier.safetensors,
        result.json and what else apply_result needs for other images, of which use.py is an example. encoder: the model
        that made the codes, a PretrainedEncoder or one that `save` takes; None if they are from a file.
        Raises ValueError for a folder with other files and for an encoder of other codes, TypeError for a task whose
        classifier `save` does not take; LalibError if nothing was learnt yet and if the disk says no.
        """
        return write_result(self, folder, encoder)


def _plain(numbers):
    return tuple(numbers.tolist())
