"""scikit-activeml's strategies beside ours: what they are given, what they answer, what identifies them."""

import dataclasses
import functools
import json
import pickle
import sys

import numpy as np
import pytest
import torch

import lalib as la
from lalib.data.seeds import generator
from lalib.experiments.identity import describe
from lalib.experiments.task_models import train
from lalib.experiments.tasks import Task, TaskData
from lalib.strategies.peers import Peer, peer_label
from lalib.strategies.registry import as_strategy
from lalib.strategies.view import PoolView

pool = pytest.importorskip("skactiveml.pool", reason='scikit-activeml: pip install "lalib[peers]"')

from skactiveml.base import SingleAnnotatorPoolQueryStrategy  # noqa: E402 - not without the extra
from skactiveml.classifier import MixtureModelClassifier, ParzenWindowClassifier, SklearnClassifier  # noqa: E402
from skactiveml.regressor import NICKernelRegressor  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402

UNCERTAIN = ("least_confident", "margin_sampling", "entropy", "expected_average_precision")
GIVEN_NOTHING = {
    **{method: pool.UncertaintySampling(method=method) for method in UNCERTAIN},
    "badge": pool.Badge(),
    "badge on features": pool.Badge(clf_embedding_flag_name="features"),
    "batchbald": pool.BatchBALD(),
    "bald": pool.GreedyBALD(),
    "clue": pool.Clue(),
    "clue on features": pool.Clue(predict_dict={"features": True}),
    "contrastive": pool.ContrastiveAL(),
    "contrastive on features": pool.ContrastiveAL(clf_embedding_flag_name="features"),
    "core-set": pool.CoreSet(),
    "cost embedding": pool.CostEmbeddingAL(classes=list(range(10))),
    "discriminative": pool.DiscriminativeAL(),
    "falcun": pool.Falcun(),
    "greedy sampling": pool.GreedySamplingX(),
    "maxherding": pool.MaxHerding(),
    "probabilistic": pool.ProbabilisticAL(metric="rbf"),
    "probcover": pool.ProbCover(deltas=[0.5, 1.0, 1.5]),
    **{method: pool.QueryByCommittee(method) for method in ("KL_divergence", "vote_entropy", "variation_ratios")},
    "quire": pool.Quire(classes=list(range(10))),
    "random": pool.RandomSampling(),
    "sub-sampling": pool.SubSamplingWrapper(pool.Badge(), max_candidates=100),
    "typiclust": pool.TypiClust(),
}
LOGISTIC = SklearnClassifier(LogisticRegression(max_iter=2000), classes=list(range(10)))
PARZEN = ParzenWindowClassifier(classes=list(range(10)))
GIVEN = {
    "4ds": (pool.FourDs(), {"clf": MixtureModelClassifier(classes=list(range(10)))}),
    "dropquery": (pool.DropQuery(), {"clf": LOGISTIC}),
    "epistemic": (pool.EpistemicUncertaintySampling(), {"clf": ParzenWindowClassifier(classes=[0, 1])}),
    "expected error": (pool.MonteCarloEER(), {"clf": PARZEN}),
    "value of information": (pool.ValueOfInformationEER(), {"clf": PARZEN}),
    "probabilistic, trained": (pool.ProbabilisticAL(), {"clf": PARZEN}),
    "two of a committee": (pool.QueryByCommittee(), {"ensemble": [LOGISTIC, PARZEN]}),
    "discriminator": (pool.DiscriminativeAL(greedy_selection=True), {"discriminator": PARZEN}),
    "regression": (pool.GreedySamplingTarget(), {"reg": NICKernelRegressor()}),
}
DRAWN = {"badge", "badge on features", "batchbald", "clue", "clue on features", "cost embedding", "falcun", "random"}
DRAWN |= {"sub-sampling", "typiclust", "dropquery", "4ds"}
DRAWN |= {"probcover", "vote_entropy", "variation_ratios"}  # between equal scores
ASKED = ("probs", "mc_probs", "features")  # what the adapter may pass on
SLOW = {"expected_average_precision", "expected error", "value of information"}  # minutes on the whole pool


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(200))


@pytest.fixture(scope="module")
def state(digits):
    data = TaskData(digits.images.flatten(1).float() / 255, digits, Task(steps=20))
    index = torch.arange(40)
    return train(data, index, digits.labels[index], seed=0, device="cpu")


@pytest.fixture(scope="module")
def select(state):
    sources = {name: functools.cache(source) for name, source in state.sources().items()}

    def run(strategy, n=6, size=200, **options):
        given = {name: source()[..., :size, :] for name, source in sources.items() if name in ASKED}
        options = {"labeled": state.index, "labels": state.labels, **given, **options}
        return la.select(strategy, state.data.codes[:size], n, **options)

    return run


@pytest.mark.parametrize("name", [*GIVEN_NOTHING, *GIVEN])
# ProbCover's remark that no radius is as pure as it wishes concerns its parameters, which are the user's
@pytest.mark.filterwarnings("ignore:The maximum purity was:UserWarning")
def test_contract(name, select, state):
    strategy, given = GIVEN[name] if name in GIVEN else (GIVEN_NOTHING[name], {})
    before, codes = repr(vars(strategy)), state.data.codes.clone()
    options = {"labels": state.labels % 2} if name == "epistemic" else {}
    options |= {"size": 50} if name in SLOW else {}
    first, again, other = (select(strategy, seed=seed, **given, **options) for seed in (0, 0, 1))
    assert first.dtype == torch.int64
    assert len(first.unique()) == 6
    assert first.min() >= 40
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in DRAWN)
    assert repr(vars(strategy)) == before
    assert torch.equal(state.data.codes, codes)


@pytest.mark.parametrize("theirs", [pool.RandomSampling(), pool.CoreSet(), pool.TypiClust(), pool.MaxHerding()])
def test_without_a_label(theirs, select):
    assert len(select(theirs, labeled=None, labels=None).unique()) == 6


def test_one_and_all(select):
    assert len(select(pool.Badge(), n=1)) == 1
    assert select(pool.UncertaintySampling(), n=160).sort().values.tolist() == list(range(40, 200))
    with pytest.raises(ValueError, match="n=161 exceeds the 160 unlabelled images"):
        select(pool.Badge(), n=161)


# They see our task model


@pytest.mark.parametrize(
    ("ours", "method"), [("least-confidence", "least_confident"), ("margin", "margin_sampling"), ("entropy", "entropy")]
)
def test_uncertainty_agrees(ours, method, select):
    assert select(pool.UncertaintySampling(method=method), n=15).tolist() == select(ours, n=15).tolist()


def test_core_set_agrees(select):
    assert select(pool.CoreSet(), n=15).tolist() == select("core-set", n=15, space="codes").tolist()


def test_bald_agrees(select):
    assert select(pool.GreedyBALD(), n=15).tolist() == select("bald", n=15).tolist()


class Spy(SingleAnnotatorPoolQueryStrategy):
    """Keeps what it is asked, and picks the first images without a label."""

    def __init__(self, seen=None, missing_label=np.nan, random_state=None):
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.seen = seen

    def query(self, X, y, clf, ensemble, fit_clf=True, fit_ensemble=True, candidates=None, batch_size=1):
        SEEN.append({**locals(), "missing": self.missing_label, "seed": self.random_state})
        self.missing_label = "spoiled"
        return np.flatnonzero(np.isnan(y))[:batch_size]


SEEN: list = []


def test_what_they_are_given(select, state):
    spy = Spy(missing_label=-1, random_state=7)
    assert select(spy).tolist() == [40, 41, 42, 43, 44, 45]
    assert (spy.missing_label, spy.random_state) == (-1, 7)
    seen = SEEN.pop()
    codes, probs, features, members = (
        t.double().numpy() for t in (state.data.codes, state.probs(), state.features(), state.mc_probs())
    )
    assert np.array_equal(seen["X"], codes)
    assert seen["y"][:40].tolist() == state.labels.tolist()
    assert np.isnan(seen["y"][40:]).all()
    assert np.isnan(seen["missing"])
    assert isinstance(seen["seed"], int)
    assert seen["batch_size"] == 6
    assert (seen["fit_clf"], seen["fit_ensemble"]) == (False, False)
    some = [7, 199, 0, 7]
    assert np.allclose(seen["clf"].predict_proba(codes[some]), probs[some], rtol=1e-6, atol=0)
    assert np.allclose(seen["clf"].predict_proba(codes[some]).sum(1), 1, rtol=0, atol=1e-15)
    assert np.array_equal(seen["clf"].predict(codes[some]), probs[some].argmax(1))
    for asked in (seen["clf"].predict_proba, seen["clf"].predict):
        assert np.array_equal(asked(codes[some], features=True)[1], features[some])
    assert seen["clf"].classes_.tolist() == list(range(10))
    assert np.allclose(seen["ensemble"].predict_proba(codes), members.mean(0))
    for member, expected in zip(seen["ensemble"].estimators_, members, strict=True):
        assert np.allclose(member.predict_proba(codes[some]), expected[some], rtol=1e-6, atol=0)


def test_equal_codes_share_the_probabilities_of_the_first():
    codes, probs = torch.tensor([[0.0, 1], [2, 3], [0, 1]]), torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    view = PoolView(codes, [1], [0], {"probs": probs, "mc_probs": probs[None]})
    Peer(Spy())(view, 1, generator=generator(0))
    assert np.allclose(SEEN.pop()["clf"].predict_proba(codes.numpy()), probs[[0, 1, 0]])


class Global(Spy):
    def query(self, X, y, candidates=None, batch_size=1):
        draws = np.random.rand(len(X)) + torch.rand(len(X)).numpy()
        return np.argsort(np.where(np.isnan(y), draws, np.inf))[:batch_size]


def test_global_draws_are_seeded_and_leave_no_trace(select):
    before, torch_before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    picks = [select(Global(), seed=seed).tolist() for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    assert np.random.get_state()[1].tolist() == before
    assert torch.equal(torch.get_rng_state(), torch_before)


# In a comparison


def _compare(digits, out, strategies, **options):
    defaults = {"task": Task(steps=5), "initial": 10, "step": 5, "rounds": 2, "seeds": 2}
    test = la.load("digits", "test").subset(range(50))
    options = {**defaults, **options}
    return la.compare(digits, test, strategies=strategies, out=out, progress=False, device="cpu", **options)


def test_side_by_side(digits, tmp_path):
    strategies = {
        "margin": "margin",
        "theirs": pool.UncertaintySampling(method="margin_sampling", random_state=0),
        "their badge": pool.Badge(random_state=0),
        "dropquery": (pool.DropQuery(), {"clf": LOGISTIC}),
    }
    frame = _compare(digits, tmp_path, strategies)
    assert frame["strategy"].unique().tolist() == list(strategies)
    runs = {key: group["picked"].tolist() for key, group in frame.groupby(["strategy", "seed"])}
    assert runs["margin", 0] == runs["theirs", 0]
    assert runs["their badge", 0] != runs["margin", 0]
    fresh = _compare(digits, tmp_path / "again", {"their badge": pool.Badge(random_state=5)})
    assert fresh["picked"].tolist() == runs["their badge", 0] + runs["their badge", 1]
    configs = [json.loads(path.read_text())["run"] for path in tmp_path.glob("*.json")]
    badge = next(run for run in configs if run["label"] == "their badge")["strategy"]
    assert badge["scikit-activeml"] == sys.modules["skactiveml"].__version__
    assert badge["strategy"]["class"].startswith("skactiveml.pool._badge.Badge ")
    assert badge["strategy"]["parameters"] == {"clf_embedding_flag_name": None}


def test_a_list_is_resumed(digits, tmp_path):
    strategies = [pool.RandomSampling(random_state=0), pool.QueryByCommittee("vote_entropy"), "random"]
    frame = _compare(digits, tmp_path, strategies, rounds=1)
    assert frame["strategy"].unique().tolist() == [
        "RandomSampling(random_state=0)",
        "QueryByCommittee(method='vote_entropy')",
        "random",
    ]
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert _compare(digits, tmp_path, strategies, rounds=1).equals(frame)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == finished


def test_other_processes_get_a_copy(select, state):
    peer = pickle.loads(pickle.dumps(Peer(pool.DropQuery(), {"clf": LOGISTIC})))
    assert torch.equal(select(peer), select(pool.DropQuery(), clf=LOGISTIC))


def plain_distance(x, y=None):
    return np.abs(x[:, None] - (x if y is None else y)).sum(2)


def who(strategy, given=None):
    return describe(as_strategy(strategy, given)[0])


def test_identity():
    identity = who(pool.ProbCover(deltas=np.array([1.0, 2.0]), distance_func=plain_distance, random_state=3))
    parameters = identity["strategy"]["parameters"]
    assert parameters["deltas"] == [1.0, 2.0]
    assert " at 0x" not in json.dumps(identity)
    assert "random_state" not in parameters
    assert identity == who(pool.ProbCover(deltas=[1.0, 2.0], distance_func=plain_distance))
    assert identity != who(pool.ProbCover(deltas=[1.0, 2.1], distance_func=plain_distance))
    assert identity != who(pool.ProbCover(deltas=[1.0, 2.0]))
    one, two = (who(pool.DropQuery(), {"clf": SklearnClassifier(LogisticRegression(C=c))}) for c in (1, 2))
    assert one != two
    inner = who(pool.SubSamplingWrapper(pool.UncertaintySampling(method="entropy")))["strategy"]["parameters"]
    assert inner["query_strategy"]["parameters"]["method"] == "entropy"


def test_label_without_an_address():
    assert peer_label(pool.CoreSet(metric=plain_distance)) == "CoreSet(metric=<function plain_distance>)"


def test_identity_needs_sources():
    nowhere = {}
    exec("def f(x):\n    return x", nowhere)
    with pytest.raises(ValueError, match="the source of f is not to be had, so that its runs could not be told"):
        _ = who(pool.CoreSet(metric=nowhere["f"]))
    with pytest.raises(TypeError, match="a parameter of a strategy is a object, by which its runs cannot be told"):
        _ = who(pool.CoreSet(metric=object()))


# What cannot be


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (pool.DropQuery(), "DropQuery asks about inputs that are not codes of the pool: there the task model"),
        (pool.FourDs(), "FourDs refuses: .*MixtureModelClassifier.*Give it a classifier of its own"),
        (pool.EpistemicUncertaintySampling(), "EpistemicUncertaintySampling refuses: .*ParzenWindowClassifier"),
        (pool.ProbabilisticAL(), "ProbabilisticAL asks for class frequencies: there the task model"),
        (pool.MonteCarloEER(), "MonteCarloEER trains its classifier for every candidate"),
        (pool.ValueOfInformationEER(), "ValueOfInformationEER trains its classifier for every candidate"),
        (pool.GreedySamplingTarget(), r"GreedySamplingTarget needs reg, which lalib cannot provide: give it, {label: "),
        (pool.ExpectedModelChangeMaximization(), "ExpectedModelChangeMaximization needs reg"),
        (pool.ExpectedModelOutputChange(), "ExpectedModelOutputChange needs reg"),
        (pool.ExpectedModelVarianceReduction(), "ExpectedModelVarianceReduction needs reg"),
        (pool.KLDivergenceMaximization(), "KLDivergenceMaximization needs reg"),
        (pool.RegressionTreeBasedAL(), "RegressionTreeBasedAL needs reg"),
        (pool.SubSamplingWrapper(pool.FourDs()), "SubSamplingWrapper refuses: .*MixtureModelClassifier"),
    ],
)
def test_needs_what_is_not_there(strategy, message, select):
    with pytest.raises(la.LalibError, match=message):
        select(strategy)


def test_training_the_task_model_again(select):
    with pytest.raises(la.LalibError, match="Badge trains its classifier: there the task model"):
        select(pool.Badge(), fit_clf=True)


def test_a_mistake_of_theirs_stays_theirs(select):
    with pytest.raises(TypeError, match="is an invalid type for method"):
        select(pool.UncertaintySampling(method=3))


def test_sources_are_needed_only_where_asked_for(select, state):
    with pytest.raises(la.LalibError, match="this strategy needs probs"):
        la.select(pool.Badge(), state.data.codes, 3, labeled=state.index, labels=state.labels)
    with pytest.raises(la.LalibError, match="this strategy needs mc_probs"):
        la.select(pool.GreedyBALD(), state.data.codes, 3, labeled=state.index, labels=state.labels)
    with pytest.raises(la.LalibError, match="CoreSet needs the labels of the 40 labelled images: pass labels=y"):
        la.select(pool.CoreSet(), state.data.codes, 3, labeled=state.index)


def test_several_labels_per_image(digits, tmp_path):
    labels = torch.stack([digits.labels % 2, digits.labels // 5], dim=1)
    several = dataclasses.replace(digits, labels=labels, class_names=("odd", "high"))
    with pytest.raises(la.LalibError, match=r"Badge\(\) needs one label per image; these images may have several"):
        la.compare(
            several, several, strategies=[pool.Badge()], rounds=1, seeds=1, out=tmp_path, progress=False, device="cpu"
        )


@pytest.mark.parametrize(
    ("strategy", "given", "error", "message"),
    [
        (pool.Badge, {}, TypeError, r"must be an instance, got the class: write Badge\(\)"),
        (pool.multiannotator.SingleAnnotatorWrapper(pool.Badge()), {}, TypeError, "for one annotator, got SingleAnno"),
        (
            pool.Badge(),
            {"reg": 1},
            ValueError,
            "Badge has no option 'reg'; its options are: 'clf', 'fit_clf', 'sample_weight'",
        ),
        (pool.Badge(), {"X": 1}, ValueError, "Badge has no option 'X'"),
    ],
)
def test_a_peer_refuses(strategy, given, error, message, digits, tmp_path):
    with pytest.raises(error, match=message):
        Peer(strategy, given)
    with pytest.raises(error, match=message):
        _compare(digits, tmp_path, {"peer": (strategy, given)})


def test_without_the_package(monkeypatch, select):
    monkeypatch.setitem(sys.modules, "skactiveml.base", None)
    with pytest.raises(la.LalibError, match=r'needs scikit-activeml: pip install "lalib\[peers\]"'):
        select(pool.Badge())
