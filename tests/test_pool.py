"""What a PoolView shows, when it computes it, and what it refuses."""

import pytest
import torch

from lalib._checks import LalibError
from lalib.pool import PoolView

pytestmark = pytest.mark.filterwarnings("error")

CODES = torch.arange(10.0).view(5, 2)


def test_unlabeled_is_the_rest_in_order():
    view = PoolView(CODES, labeled=torch.tensor([3, 0]), labels=torch.tensor([7, 8]))
    assert view.n_images == 5
    assert view.unlabeled.tolist() == [1, 2, 4]
    assert view.unlabeled.dtype == view.labeled.dtype == torch.int64
    assert PoolView(CODES).unlabeled.tolist() == [0, 1, 2, 3, 4]
    assert PoolView(CODES, labeled=[]).labeled.shape == (0,)


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


def test_views_do_not_change_and_do_not_carry_gradients():
    view = PoolView(CODES.clone().requires_grad_())
    assert not view.codes.requires_grad
    with pytest.raises(AttributeError):
        view.codes = CODES


@pytest.mark.parametrize("name", ["probs", "mc_probs", "features", "errors"])
def test_a_missing_source_says_how_to_give_it(name):
    with pytest.raises(LalibError, match=rf"needs {name} \(.*\), which was not given: pass .*{name}="):
        getattr(PoolView(CODES), name)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"codes": CODES[0]}, ValueError, r"codes must have shape \(N, L\).* got \(2,\)"),
        ({"codes": CODES.long()}, TypeError, "codes must be floating point, got torch.int64"),
        ({"codes": CODES / 0}, ValueError, "codes must be finite, but 5 of 5 rows"),
        ({"labeled": [5]}, ValueError, r"labeled must lie in 0 .. 4, got 5"),
        ({"labeled": [-1, 2]}, ValueError, r"labeled must lie in 0 .. 4, got -1"),
        ({"labeled": [1, 1]}, ValueError, "labeled must be distinct, got 2 indices of 1 images"),
        ({"labeled": [0.5]}, TypeError, "labeled must hold whole numbers"),
        ({"labeled": [True, False]}, TypeError, "labeled must hold whole numbers"),
        ({"labeled": [1], "labels": [1, 2]}, ValueError, "labels must be those of the 1 labelled images"),
        ({"labels": [1]}, ValueError, "labels must be those of the 0 labelled images"),
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
