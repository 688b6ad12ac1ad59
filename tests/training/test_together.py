"""fit_together: what every model learns is what `fit` would have taught it alone."""

import pytest
import torch

import lalib as la
from lalib.data.seeds import generator
from lalib.training import together
from lalib.training.together import fit_together

SETTINGS = {"epochs": 6, "batch_size": 16, "learning_rate": 1e-2, "weight_decay": 1e-3, "optimizer": "adam"}
SEEDS = (4, 0, 7)


def _data(multi_label=False, sizes=(40, 40, 40)):
    draw, classes = generator(0, "data"), (5,) if multi_label else ()
    return [
        (
            100 + 3 * torch.randn(n, 6, generator=draw),
            torch.randint(2 if multi_label else 5, (n, *classes), generator=draw),
        )
        for n in sizes
    ]


def _models(**options):
    return [la.MLPClassifier(6, 5, hidden=(12, 9), seed=seed, **options) for seed in SEEDS]


def _together(models, data, seeds=SEEDS, device="cpu", **settings):
    fit_together(models, data, seeds=seeds, device=device, **{**SETTINGS, **settings})
    return models


def _alone(models, data, **settings):
    for model, part, seed in zip(models, data, SEEDS, strict=True):
        la.fit(model, part, seed=seed, device="cpu", progress=False, **{**SETTINGS, **settings})
    return models


def _weights(models):
    return [torch.cat([value.detach().flatten() for value in model.parameters()]) for model in models]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {}),
        ({}, {"batch_size": 64}),
        ({}, {"optimizer": "sgd", "schedule": "cosine"}),
        ({}, {"batch_size": None, "learning_rate": None, "epochs": 30}),
        ({"dropout": 0.3}, {}),
        ({"multi_label": True}, {"weight_decay": 0.0}),
        ({"multi_label": True, "dropout": 0.5}, {"optimizer": "sgd"}),
    ],
)
def test_together_as_alone(options, settings):
    """The last batch holds 8 of 40; the codes lie far from 0."""
    data = _data(options.get("multi_label", False))
    alone, together = _alone(_models(**options), data, **settings), _together(_models(**options), data, **settings)
    for one, other, new in zip(_weights(alone), _weights(together), _weights(_models(**options)), strict=True):
        assert torch.allclose(one, other, atol=2e-4)
        assert not torch.allclose(one, new, atol=2e-2)
    for one, other, (codes, _) in zip(alone, together, data, strict=True):
        assert torch.allclose(la.predict_proba(one, codes), la.predict_proba(other, codes), atol=2e-4)
        assert one.training == other.training


def test_the_same_call_gives_the_same_bits_and_leaves_the_global_stream_alone():
    before = torch.get_rng_state()
    first = _together(_models(dropout=0.3), _data())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = _together(_models(dropout=0.3), _data()), _together(_models(dropout=0.3), _data(), seeds=(4, 1, 7))
    same = [torch.equal(one, two) for one, two in zip(_weights(first), _weights(other), strict=True)]
    assert all(torch.equal(one, two) for one, two in zip(_weights(first), _weights(again), strict=True))
    assert same == [True, False, True]


def test_it_learns(device):
    images = la.load("digits").subset(range(300))
    data = images.images.flatten(1).float() / 255, images.labels
    models = [la.MLPClassifier(64, 10, dropout=0.2, seed=seed) for seed in range(2)]
    _together(models, [data, data], seeds=range(2), device=device, epochs=20, learning_rate=1e-3)
    for model in models:
        assert la.accuracy(model, *data) > 0.95
        assert next(model.parameters()).device.type == device


def _unchanged(models):
    return all(
        torch.equal(p, q)
        for m, n in zip(models, _models(), strict=True)
        for p, q in zip(m.parameters(), n.parameters(), strict=True)
    )


def test_weights_that_are_not_finite_are_not_kept():
    models, data = _models(), _data()
    with pytest.raises(
        la.LalibError, match="training diverged: weights of 3 of 3 models are not finite; try a smaller"
    ):
        _together(models, data, optimizer="sgd", learning_rate=1e30)
    assert _unchanged(models)


def test_an_interruption_is_passed_on(monkeypatch):
    models = _models()

    def interrupted(seed, name, epoch, **options):
        if epoch == 3:
            raise KeyboardInterrupt
        return generator(seed, name, epoch, **options)

    monkeypatch.setattr(together, "generator", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _together(models, _data())
    assert _unchanged(models)


@pytest.mark.parametrize(
    ("models", "data", "error", "message"),
    [
        (
            lambda: [*_models()[:2], la.CNNClassifier((1, 8, 8), 5)],
            _data(),
            TypeError,
            "models that train together must be of class MLPClassifier, got CNNClassifier",
        ),
        (
            lambda: [*_models()[:2], la.MLPClassifier(6, 5, hidden=(12,))],
            _data(),
            ValueError,
            r"models that train together must be alike, got Sequential\(.* and Sequential\(",
        ),
        (
            _models,
            _data(sizes=(40, 41, 39)),
            ValueError,
            "models that train together need equally many codes, got 39 to 41",
        ),
        (
            _models,
            [(torch.zeros(40, 6), torch.full((40,), 5))] * 3,
            ValueError,
            "labels must lie in 0 to 4, got 5 to 5",
        ),
    ],
)
def test_what_cannot_train_together(models, data, error, message):
    with pytest.raises(error, match=message):
        _together(models(), data)
