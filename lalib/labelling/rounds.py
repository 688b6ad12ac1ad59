"""LabellingLoop: active learning with a person, step by step: select, label, train, look, repeat.

All follows from images, codes and the file of answers: a notebook that is run again goes on where the labels end.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lalib.data import ImageSet, LalibError, child_seed, generator
from lalib.data.checks import check_int, check_type
from lalib.experiments import Task, TaskData, train
from lalib.labelling.answers import numbered
from lalib.labelling.store import LabelStore, first_places
from lalib.models import Classifier, predict_proba
from lalib.models.networks import UNKNOWN
from lalib.strategies import PoolView, run_strategy
from lalib.strategies.registry import AnyStrategy, as_strategy


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A classifier trained on the first `answers` answers of the pool, `labels` of which named a class.

    probs (N, C): its class probabilities of all images, columns as in store.class_names. accuracy: the share that it
    gets right of the `tested` held-out images that have a class; low, high: Wilson's 95 % interval of that share.
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
        right = f"{self.accuracy:.1%} of {self.tested} held-out images right"
        return f"{self.labels} labels: {right} (95 % interval {self.low:.1%} to {self.high:.1%})"


class LabellingLoop:
    """What to label next and what was learnt so far, from `images`, their codes (N, L) and the answers in `store`.

        loop = LabellingLoop(images, codes, store, held_out=200)
        Labeller(images, store, loop.held_out)                            # once
        Labeller(images, store, loop.ask("typiclust", 20))                # then round after round
        print(loop.train())
        Labeller(images, store, loop.ask("uncertainty-herding", 40))

    held_out: so many images are set aside at random to measure accuracy; the person labels them, too. The seed and the
    pixels decide which: renaming or sorting files changes nothing, and copies of an image are never on both sides.
    `held_out` (H,) are these images, `pool` (P,) the others, copies once. Classes are those of the store.
    task: what is trained, default Task(), each time from the weights of `seed`. Images answered with "not sure" are not
    learnt from and not asked again; skipped ones may be.
    """

    def __init__(
        self,
        images: ImageSet,
        codes: Tensor,
        store: LabelStore,
        *,
        held_out: int,
        task: Task | None = None,
        seed: int = 0,
        device: str = "auto",
    ):
        check_type("store", store, LabelStore)
        bare = replace(check_type("images", images, ImageSet), labels=None, class_names=store.class_names)
        self.data = TaskData(codes, bare, check_type("task", task, Task | None) or Task())
        self.store, self.seed, self.device = store, seed, device
        self._hashes = store.adopt(images).hashes
        first = first_places(images)
        drawn = sorted(first, key=lambda image: child_seed(seed, "held out", image))
        count = check_int("held_out", held_out, low=1, high=len(drawn) - 1)
        self.held_out = torch.tensor([first[image] for image in drawn[:count]])
        self.pool = torch.tensor(sorted(first[image] for image in drawn[count:]))

    @property
    def answered(self) -> tuple[Tensor, Tensor]:
        """The images of the pool that have an answer (A,), the oldest first, and their classes, -1 for "not sure"."""
        return self._answered(self.pool)

    def ask(self, strategy: AnyStrategy, answers: int, **options) -> Tensor:
        """Indices (n,) of the images to label next, so many that `answers` images of the pool are then answered ("not
        sure" is an answer); empty if so many are answered already. options: those of the strategy.

        Raises ValueError for more answers than the pool has images, and for a strategy or option that is none;
        LalibError for a strategy that needs labels as long as there are none.
        """
        index, labels = self.answered
        n = check_int("answers", answers, low=1, high=len(self.pool)) - len(index)
        if n <= 0:
            return torch.empty(0, dtype=torch.int64)
        free, data, labeled, labels = self._usable(index, labels)
        strategy, options = as_strategy(strategy, options)
        data.task.check_serves(strategy)
        if strategy.label_free is False and not len(labels):
            hint = "begin with a strategy that needs none, such as 'typiclust'"
            raise LalibError(f"{strategy.name!r} needs labels, and the pool has none yet: {hint}")
        if len(labels) and not (strategy.label_free and data.task.encoder is None):
            model = train(data, labeled, labels, seed=self.seed, device=self.device)
            view = PoolView(model.codes, labeled, labels, model.sources(strategy.own), len(free), strategy.own)
        else:
            view = PoolView(data.codes, labeled, labels if len(labels) else None)
        draws = generator(self.seed, "select", len(index))
        return free[run_strategy(strategy, view, n, generator=draws, **options).index]

    def train(self, answers: int | None = None) -> Snapshot:
        """Train on the first `answers` answers (default all) to images of the pool, and test on the held-out ones.

        Raises LalibError if there are fewer answers or none of them is a class, and while held-out images lack an
        answer: accuracy on those that happen to have one could be anything.
        """
        tested, truth = self._answered(self.held_out)
        if left := len(self.held_out) - len(tested):
            raise LalibError(f"label the held-out images first: {left} of {len(self.held_out)} have no answer")
        known = truth != UNKNOWN
        if not known.any():
            raise LalibError(f"accuracy needs held-out images with a class, all {len(known)} were answered 'not sure'")
        tested, truth = tested[known], truth[known]
        index, labels = self.answered
        left = self.pool[~torch.isin(self.pool, index)]
        if answers is not None and check_int("answers", answers, low=1) > len(index):
            raise LalibError(f"{answers} images of the pool are to be learnt from, {len(index)} have an answer yet")
        index = index[:answers]
        _, data, labeled, labels = self._usable(index, labels[:answers])
        if not len(labels):
            raise LalibError(f"there is nothing to learn from: none of the pool's {len(index)} answers is a class")
        classifier = train(data, labeled, labels, seed=self.seed, device=self.device).classifier
        probs = predict_proba(classifier, self.data.inputs)
        from lalib.experiments.statistics import share_interval  # pandas takes long to import

        share = share_interval(int((probs[tested].argmax(1) == truth).sum()), len(truth))
        best = probs[left].topk(2, dim=1).values
        doubtful = left[(best[:, 0] - best[:, 1]).argsort(stable=True)]
        return Snapshot(len(index), len(labels), classifier, probs, len(truth), *share, doubtful)

    def _answered(self, part):
        place = {self._hashes[index]: index for index in part.tolist()}
        given = [(place[i], a) for i, a in self.store.answers().items() if i in place and a.kind != "skip"]
        labels = numbered((answer.class_name for _, answer in given), self.store.class_names)
        return torch.tensor([index for index, _ in given], dtype=torch.int64), labels

    def _usable(self, index, labels):
        """The pool without those not sure (F,), as data; where in it the images with a class are, and their classes."""
        known = labels != UNKNOWN
        free = self.pool[~torch.isin(self.pool, index[~known])]
        data = TaskData(self.data.codes[free], self.data.images.subset(free), self.data.task)
        return free, data, torch.searchsorted(free, index[known]), labels[known]
