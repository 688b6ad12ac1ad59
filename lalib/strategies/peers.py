"""Any pool-based query strategy of scikit-activeml [Kottke2021] as a strategy of lalib's.

    from skactiveml.pool import Badge, FourDs
    la.compare(images, test, strategies={"badge": "badge", "their badge": Badge()}, out="runs/badge")
    la.select(Badge(clf_embedding_flag_name="features"), codes, 10, probs=p, features=h, labeled=index, labels=y)

They see the codes, the labels so far, and in the place of a classifier (`clf`, `estimator`) our trained task model: its
probabilities and, where their parameters ask for embeddings (clf_embedding_flag_name, predict_dict), its features. In
the place of an `ensemble` stand the members behind mc_probs; how many is the option `passes`. Images of equal codes
share the probabilities of the first. A `discriminator` is a logistic regression on the codes. What else the query takes
comes as options, such as a classifier to train on codes and labels: (FourDs(), {"clf": classifier}).

Differs: in every round a strategy starts as a fresh copy, so that ProbCover finds its radius anew.

[Kottke2021] D. Kottke et al., "scikit-activeml: A library and toolbox for active learning algorithms", 2021.
"""

import contextlib
import copy
import inspect
import re
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from lalib.data.checks import LalibError, check_known
from lalib.data.seeds import seeded
from lalib.strategies.view import PoolView, Selection

OURS = ("X", "y", "candidates", "batch_size", "return_utilities")  # what the adapter alone decides of a query
STAND_INS = {"clf": "fit_clf", "estimator": "fit_estimator", "ensemble": "fit_ensemble"}
OVERWRITTEN = ("random_state", "missing_label")  # of every estimator: its seed comes from the run


def peer_label(strategy: object) -> str:
    """Its class and the parameters that are not the defaults, in one line without memory addresses."""
    return re.sub(r"\s+", " ", re.sub(r" at 0x[0-9a-f]+", "", repr(strategy)))


class Peer:
    """A strategy of lalib's, (view, n, *, generator) -> Selection, that queries one of scikit-activeml's.

    strategy: an instance, of which a copy is taken; it is never changed. given: further arguments of its query.
    needs: what it asks the view for. Raises LalibError if the package is not there or the query needs what lalib has
    not; TypeError for anything but a pool strategy of one annotator; ValueError for an argument of no query.
    """

    def __init__(self, strategy, given: Mapping | None = None):
        try:
            from skactiveml.base import SingleAnnotatorPoolQueryStrategy
            from sklearn.base import clone
        except ImportError as error:
            lacking = 'a strategy with a query method needs scikit-activeml: pip install "lalib[peers]"'
            raise LalibError(lacking) from error
        name = self.__name__ = getattr(strategy, "__name__", type(strategy).__name__)
        if isinstance(strategy, type):
            raise TypeError(f"a scikit-activeml strategy must be an instance, got the class: write {name}()")
        if not isinstance(strategy, SingleAnnotatorPoolQueryStrategy):
            allowed = "a pool strategy of scikit-activeml for one annotator"
            raise TypeError(f"a strategy with a query method must be {allowed}, got {name}")
        self.given, self.asked, self.strategy = dict(given or {}), _asked(strategy), clone(strategy)
        check_known(name, self.given, [known for known in self.asked if known not in OURS])
        can = {*OURS, *STAND_INS, "discriminator", *self.given}
        if missing := [known for known, p in self.asked.items() if p.default is p.empty and known not in can]:
            remedy = f"give it, {{label: (strategy, {{{missing[0]!r}: ...}})}}"
            raise LalibError(f"{name} needs {', '.join(missing)}, which lalib cannot provide: {remedy}")
        self.places = [place for place in STAND_INS if place in self.asked and place not in self.given]
        self.needs = ("codes", *dict.fromkeys("mc_probs" if place == "ensemble" else "probs" for place in self.places))

    def __call__(self, view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
        codes, labels, count = view.codes.cpu().double().numpy(), np.full(view.n_images, np.nan), len(view.labeled)
        if count and view.labels is None:
            raise LalibError(f"{self.__name__} needs the labels of the {count} labelled images: pass labels=y")
        if count:
            labels[view.labeled.numpy()] = view.labels.numpy()
        strategy, given = _prepared(self.strategy, generator), _prepared(self.given, generator)
        arguments = {**self._stand_ins(view, codes, generator), **given}
        with _numpy_and_torch_seeded(_draw(generator)):
            try:
                index = strategy.query(X=codes, y=labels, batch_size=int(n), **arguments)
            except TypeError as error:  # in our words if it is about what stands in for the classifier
                if "TaskClassifier" not in str(error):
                    raise
                raise LalibError(cannot(self.__name__, f"refuses: {error}")) from error
        return Selection(torch.as_tensor(np.asarray(index), dtype=torch.int64))

    def _stand_ins(self, view: PoolView, codes: np.ndarray, generator: torch.Generator) -> dict:
        """The task model in the place of each classifier that the query asks for."""
        from lalib.strategies.peer_models import TaskClassifier

        found, name = {}, self.__name__
        rows = {row.tobytes(): i for i, row in reversed(list(enumerate(codes)))}  # of equal codes the first image
        if "ignore_partial_fit" in self.asked and "clf" not in self.given:
            raise LalibError(cannot(name, "trains its classifier for every candidate"))
        for place in self.places:
            probs = (view.mc_probs if place == "ensemble" else view.probs).cpu().double().numpy()
            found[place] = TaskClassifier(rows, probs, view, name)
            found[STAND_INS[place]] = False
        if "discriminator" in self.asked and "discriminator" not in self.given:
            from skactiveml.classifier import SklearnClassifier
            from sklearn.linear_model import LogisticRegression

            found["discriminator"] = _prepared(SklearnClassifier(LogisticRegression(max_iter=1000)), generator)
        return found


def cannot(owner: str, what: str) -> str:
    """An error message: the strategy does what the task model's stand-in cannot."""
    why = "there the task model, of which it sees the probabilities of the pool, cannot stand in"
    return f"{owner} {what}: {why}. Give it a classifier of its own, {{label: (strategy, {{'clf': classifier}})}}"


def _asked(strategy) -> dict[str, inspect.Parameter]:
    """The parameters of its query by name; those of the strategy inside, too, if it wraps one."""
    inner, own = getattr(strategy, "query_strategy", None), inspect.signature(strategy.query).parameters
    inside = _asked(inner) if hasattr(inner, "query") else {}
    return inside | {name: p for name, p in own.items() if p.kind is not p.VAR_KEYWORD}


def _prepared(value, generator: torch.Generator):
    """A copy in which all estimators draw from seeds of the generator, and NaN marks what has no label."""
    if isinstance(value, dict):
        return {key: _prepared(item, generator) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_prepared(item, generator) for item in value)
    if not hasattr(value, "get_params") or isinstance(value, type):
        return copy.deepcopy(value)
    from sklearn.base import clone

    estimator = clone(value)
    for name in sorted(estimator.get_params()):
        if (last := name.rpartition("__")[2]) in OVERWRITTEN:
            estimator.set_params(**{name: _draw(generator) if last == "random_state" else np.nan})
    return estimator


def _draw(generator: torch.Generator) -> int:
    return int(torch.randint(2**31 - 1, (), generator=generator))


@contextlib.contextmanager
def _numpy_and_torch_seeded(seed: int) -> Iterator[None]:
    """Seed the global states in the block: k-means may draw from numpy's, a network given to them from torch's."""
    with seeded(seed, "peer"):  # which no other thread enters meanwhile
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
