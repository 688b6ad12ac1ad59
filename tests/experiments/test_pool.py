"""What a PoolView shows, when it computes it, and what it refuses."""

import pytest
import torch

from lalib.data.checks import LalibError
from lalib.experiments.loop import Pool
from lalib.strategies.view import PoolView

pytestmark = pytest.mark.filterwarnings("error")

CODES = torch.arange(10.0).view(5, 2)


def test_unlabeled_is_the_rest_in_order():
    view = PoolView(CODES, labeled=torch.tensor([3, 0]), labels=torch.tensor([7, 8]))
    assert view.n_images == 5
    assert view.unlabeled.tolist() == [1, 2, 4]
    assert view.unlabeled.dtype == view.labeled.dtype == torch.int64
    assert PoolView(CODES).unlabeled.tolist() == [0, 1, 2, 3, 4]
    assert PoolView(CODES, labeled=[]).labeled.shape == (0,)


@pytest.mark.parametrize(("labels", "expected"), [(None, False), ([1, 0], False), ([[1, 0], [1, 1]], True)])
def test_multi_label_is_known_from_the_labels(labels, expected):
    assert PoolView(CODES, labeled=[2, 1], labels=labels).multi_label is expected


def test_sources_are_computed_once_and_only_when_asked():
    calls = []

    def probs():
        calls.append(1)
        return torch.full((5, 2), 0.5)

    view = PoolView(CODES, sources={"probs": probs, "mc_probs": torch.zeros(3, 5, 2), "features": torch.ones(5, 4)})
    assert not calls
    assert view.probs is view.probs
    assert calls == [1]
    assert view.mc_probs.shape == (3, 5, 2)
    assert view.features.shape == (5, 4)


def test_codes_may_be_computed_when_asked_for():
    calls = []
    view = PoolView(lambda: calls.append(1) or CODES, labeled=[3], size=5)
    assert view.n_images == 5
    assert view.unlabeled.tolist() == [0, 1, 2, 4]
    assert not calls
    assert torch.equal(view.codes, CODES)
    assert view.codes is view.codes
    assert calls == [1]
    assert Pool(LABELS).view(lambda: CODES).codes.shape == (5, 2)


def test_codes_that_are_computed_are_checked():
    with pytest.raises(TypeError, match="size must be a whole number, got None"):
        PoolView(lambda: CODES)
    with pytest.raises(ValueError, match="codes must be those of the 4 images, got 5 rows"):
        PoolView(CODES, size=4)
    for codes, error, message in (
        (CODES[:4], ValueError, r"codes must have shape \(N, L\) with N = 5, got \(4, 2\)"),
        (CODES / 0, ValueError, "codes must be finite"),
    ):
        view = PoolView(lambda codes=codes: codes, size=5)
        with pytest.raises(error, match=message):
            _ = view.codes


def test_views_do_not_change_and_do_not_carry_gradients():
    view = PoolView(CODES.clone().requires_grad_())
    assert not view.codes.requires_grad
    with pytest.raises(AttributeError):
        view.codes = CODES


@pytest.mark.parametrize("name", ["probs", "mc_probs", "features", "errors", "predicted_losses"])
def test_a_missing_source_says_how_to_give_it(name):
    with pytest.raises(LalibError, match=rf"needs {name} \(.*\), which was not given: pass .*{name}="):
        getattr(PoolView(CODES), name)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"codes": CODES[0]}, ValueError, r"codes must have shape \(N, L\).* got \(2,\)"),
        ({"codes": CODES / 0}, ValueError, "codes must be finite, but 5 of 5 rows"),
        ({"labeled": [5]}, ValueError, r"labeled must lie in 0 .. 4, got 5"),
        ({"labeled": [-1, 2]}, ValueError, r"labeled must lie in 0 .. 4, got -1"),
        ({"labeled": [1, 1]}, ValueError, "labeled must be distinct, got 2 indices of 1 images"),
        ({"labeled": [0.5]}, TypeError, "labeled must be whole numbers"),
        ({"labeled": [True, False]}, TypeError, "labeled must be whole numbers"),
        ({"labeled": [1], "labels": [1, 2]}, ValueError, "labels must be those of the 1 labelled images"),
        ({"labels": [1]}, ValueError, "labels must be those of the 0 labelled images"),
        ({"sources": {"codes": CODES}}, ValueError, "source must be one of .*'errors'.*, got 'codes'"),
        ({"sources": {"error": CODES}}, ValueError, "source must be one of .*'error'.*Did you mean 'errors'"),
    ],
)
def test_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        PoolView(**({"codes": CODES} | arguments))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("errors", torch.zeros(4), r"errors must have shape \(N,\) with N = 5, got \(4,\)"),
        ("mc_probs", torch.zeros(5, 3, 2), r"mc_probs must have shape \(T, N, C\) with N = 5, got \(5, 3, 2\)"),
        ("features", torch.full((5, 1), torch.nan), "features must be finite"),
    ],
)
def test_refuses_a_source_of_wrong_shape_or_value(name, value, message):
    view = PoolView(CODES, sources={name: value})
    with pytest.raises(ValueError, match=message):
        getattr(view, name)


LABELS = torch.tensor([4, 3, 2, 1, 0])


def test_a_pool_shows_only_what_was_bought():
    pool = Pool(LABELS)
    assert pool.labels is None
    assert pool.labeled.tolist() == []
    assert pool.buy(torch.tensor([3, 1])).tolist() == [1, 3]
    pool.buy([4])
    assert pool.labeled.tolist() == [3, 1, 4]
    assert pool.labels.tolist() == [1, 3, 0]
    assert [index.tolist() for index, _ in pool.purchases] == [[3, 1], [4]]
    assert repr(pool) == "Pool(3 of 5 labels bought in 2 purchases)"


def test_a_pool_keeps_labels_of_its_own():
    labels = LABELS.clone()
    pool = Pool(labels)
    labels.zero_()
    assert pool.buy([0]).tolist() == [4]


def test_a_pool_gives_the_view_of_a_strategy():
    pool = Pool(LABELS)
    pool.buy([3, 1])
    view = pool.view(CODES, errors=torch.arange(5.0))
    assert view.unlabeled.tolist() == [0, 2, 4]
    assert view.labels.tolist() == [1, 3]
    assert view.errors.tolist() == [0, 1, 2, 3, 4]
    assert not view.multi_label


def test_an_oracle_is_asked_for_what_is_bought_and_no_more():
    asked = []

    def oracle(index):
        asked.append(index.tolist())
        return torch.ones(len(index), 3, dtype=torch.int64)

    pool = Pool(oracle, size=5)
    pool.buy([2, 0])
    assert asked == [[2, 0]]
    assert pool.view(CODES).multi_label


def test_an_oracle_that_fails_sells_nothing():
    def oracle(index):
        raise KeyboardInterrupt

    pool = Pool(oracle, size=5)
    with pytest.raises(KeyboardInterrupt):
        pool.buy([2])
    assert pool.purchases == ()


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ([], ValueError, "index must name at least one image to buy, got none"),
        ([1, 2, 3], ValueError, "index must name unlabelled images, got 2 bought before"),
        ([5], ValueError, r"index must lie in 0 .. 4, got 5"),
        ([0, 0], ValueError, "index must be distinct, got 2 indices of 1 images"),
        ([0.5], TypeError, "index must be whole numbers"),
    ],
)
def test_buying_refuses(index, error, message):
    pool = Pool(LABELS)
    pool.buy([1, 2])
    with pytest.raises(error, match=message):
        pool.buy(index)
    assert pool.labeled.tolist() == [1, 2]


def test_an_oracle_must_answer_for_every_image():
    with pytest.raises(ValueError, match="labels must be those of the 2 labelled images, got shape"):
        Pool(lambda index: torch.zeros(3), size=5).buy([0, 1])
    with pytest.raises(TypeError, match="size must be a whole number, got None"):
        Pool(lambda index: index)
    pool = Pool(lambda index: None, size=5)
    with pytest.raises(TypeError, match="the oracle must answer with labels of the 2 images, got None"):
        pool.buy([0, 1])
    assert pool.purchases == ()


def test_an_oracle_must_answer_in_one_form():
    pool = Pool(lambda index: torch.zeros(len(index), 3, dtype=int) if 0 in index else index, size=5)
    pool.buy([0, 1])
    with pytest.raises(
        ValueError, match=r"labels must have the shape of those bought before, \('n', 3\), got \('n',\)"
    ):
        pool.buy([2])
    assert pool.labeled.tolist() == [0, 1]
