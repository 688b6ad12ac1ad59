"""Codes, labels and numbers of every kind give what float32 tensors and Python numbers give, or a clear error."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

import lalib as la
from lalib.models.classifiers import LossPredictor
from lalib.models.networks import UNKNOWN
from lalib.models.views import RandomViews
from lalib.training.generation import GenerativeAugmentation
from lalib.training.together import fit_together

SHAPE, N, L = (1, 8, 8), 40, 4
CODES = torch.randn(N, L, generator=torch.Generator().manual_seed(0)).half().float()  # that float16 holds as well
LABELS = torch.arange(N) % 3
PARTIAL = torch.where(torch.arange(N) < 20, LABELS, UNKNOWN)


def _table(values):
    """A filtered table, whose index does not begin at 0."""
    doubled = np.repeat(values.numpy(), 2, axis=0)
    frame = pd.DataFrame(doubled) if doubled.ndim == 2 else pd.Series(doubled)
    return frame[np.arange(len(doubled)) % 2 == 1]


KINDS = {
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "requires_grad": lambda x: x.clone().requires_grad_(),
    "not contiguous": lambda x: x.T.contiguous().T,
    "numpy": lambda x: x.numpy().astype(np.float64),
    "big-endian": lambda x: x.numpy().astype(">f8"),
    "backwards": lambda x: x.numpy()[::-1].copy()[::-1],
    "table": _table,
    "list": lambda x: x.tolist(),
}
LABEL_KINDS = {
    "int32": lambda y: y.int(),
    "numpy int8": lambda y: y.numpy().astype(np.int8),
    "big-endian": lambda y: y.numpy().astype(">i4"),
    "series": _table,
    "list": lambda y: y.tolist(),
}
MODELS = {
    "mlp": (lambda: la.MLPClassifier(L, 3, hidden=(8,), dropout=0.2), LABELS),
    "m1m2": (lambda: la.models.M1M2(L, 3, hidden=8, latent_dim=2), PARTIAL),
}


def _fitted(make, codes, labels, **options):
    model = make()
    la.fit(model, (codes, labels), **{"epochs": 2, "device": "cpu", "progress": False, **options})
    return model


def _same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_every_kind(kind, name):
    make, labels = MODELS[name]
    model = _fitted(make, CODES, labels)
    codes = KINDS[kind](CODES)
    assert _same(*(_fitted(make, CODES, labels, validation=(x, LABELS)) for x in (codes, CODES)))
    assert _same(_fitted(make, codes, labels), model)
    assert torch.equal(la.predict_proba(model, codes), la.predict_proba(model, CODES))
    assert la.accuracy(model, codes, LABELS) == la.accuracy(model, CODES, LABELS)
    if name == "mlp":
        both = [la.models.mc_dropout_proba(model, x, np.int64(2), seed=np.int64(1)) for x in (codes, CODES)]
        assert torch.equal(*both)
        pair = [_together(x) for x in (codes, CODES)]
        assert _same(*pair)


def _together(codes, labels=LABELS, **options):
    model = la.MLPClassifier(L, 3, hidden=(8,))
    settings = {"seeds": [0], "epochs": 2, "batch_size": 16, "learning_rate": None, "weight_decay": 0.0}
    fit_together([model], [(codes, labels)], optimizer="adam", device="cpu", **{**settings, **options})
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_labels_of_every_kind(kind, name):
    make, labels = MODELS[name]
    model, given = _fitted(make, CODES, labels), LABEL_KINDS[kind](labels)
    assert _same(_fitted(make, CODES, given), model)
    assert la.accuracy(model, CODES, LABEL_KINDS[kind](LABELS)) == la.accuracy(model, CODES, LABELS)
    index = LABEL_KINDS[kind](torch.arange(20))
    partial = la.models.partly_labelled(np.int64(N), index, LABEL_KINDS[kind](LABELS[:20]))
    assert torch.equal(partial, PARTIAL)


def test_images_of_every_kind():
    digits = la.load("digits").subset(range(30))
    model = la.models.EncoderClassifier(la.CAE(SHAPE), 10)
    expected = la.predict_proba(model, digits)
    floats = digits.images.float() / 255
    for images in (digits.images.numpy(), floats, floats.double(), floats.numpy()[:, :, ::-1][:, :, ::-1]):
        assert torch.allclose(la.predict_proba(model, images), expected, atol=1e-6)
    labels = _table(digits.labels)
    assert la.accuracy(model, digits, labels) == la.accuracy(model, digits)
    several = la.CNNClassifier(SHAPE, 10, multi_label=True)
    table = torch.eye(10)[digits.labels]
    for labels in (table, table.bool(), pd.DataFrame(table.numpy())):
        assert la.accuracy(several, digits, labels) == la.accuracy(several, digits, table.long())
    with pytest.raises(TypeError, match=r"images must be uint8, or floats in \[0, 1\], got torch.int64"):
        la.predict_proba(model, digits.images.long())


@pytest.mark.parametrize("kind", KINDS)
def test_codes_beside_a_loss_predictor(kind):
    codes, found = KINDS[kind](CODES), []
    for given in (CODES, codes):
        predictor = LossPredictor(la.MLPClassifier(L, 3, hidden=(8,)), given[:1], codes=given, detach_after=2)
        la.fit(predictor, (given, LABELS), epochs=2, device="cpu", progress=False)
        found.append(predictor.predict(given, given))
    assert torch.equal(*found)


WRONG_CODES = {
    "width": (torch.rand(N, L + 1), ValueError, r"takes codes of shape \(N, 4\), got \(40, 5\)"),
    "a vector": (torch.rand(N), ValueError, r"inputs must have shape \(N, L\)"),
    "images": (torch.rand(N, *SHAPE), ValueError, r"takes codes of shape \(N, 4\), got \(40, 1, 8, 8\)"),
    "NaN": (torch.full((N, L), torch.nan), ValueError, "inputs must be finite"),
    "text": ("codes", TypeError, "inputs must be an array"),
    "words": (np.full((N, L), "a"), TypeError, "inputs must hold"),
    "complex": (torch.zeros(N, L, dtype=torch.complex64), TypeError, "inputs must hold real numbers"),
    "ragged": ([[1.0, 2.0], [1.0]], ValueError, "inputs must be rows of one length"),
    "nothing": (None, TypeError, "inputs must be an array"),
}
WRONG_LABELS = {
    "too few": (LABELS[:-1], ValueError, r"labels must have shape \(40,\)"),
    "a column": (LABELS[:, None], ValueError, r"labels must have shape \(40,\)"),
    "words": (["a"] * N, TypeError, "labels must hold"),
    "halves": (LABELS / 2, TypeError, "labels must be whole numbers"),
    "too high": (LABELS + 1, ValueError, "labels must lie in -?[01] to 2, got"),
    "too low": (LABELS - 2, ValueError, "labels must lie in -?[01] to 2, got"),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("codes", "error", "message"), WRONG_CODES.values(), ids=WRONG_CODES)
def test_wrong_codes(codes, error, message, name):
    make, labels = MODELS[name]
    calls = [lambda: _fitted(make, codes, labels), lambda: la.predict_proba(make(), codes)]
    if name == "mlp":
        calls += [lambda: _together(codes), lambda: la.models.mc_dropout_proba(make(), codes)]
    for call in calls:
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("labels", "error", "message"), WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_wrong_labels(labels, error, message, name):
    make, right = MODELS[name]
    calls = [lambda: _fitted(make, CODES, labels), lambda: la.accuracy(make(), CODES, labels)]
    calls += [lambda: _fitted(make, CODES, right, validation=(CODES, labels))]
    calls += [lambda: _together(CODES, labels)] if name == "mlp" else []
    for call in calls:
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("index", "labels", "message"),
    [
        ([0.5], [1], "index must be whole numbers"),
        ("ab", [1], "index must be an array"),
        ([0], ["cat"], "labels must hold"),
        ([0], [0.5], "labels must be whole numbers"),
    ],
)
def test_partly_labelled_takes_whole_numbers(index, labels, message):
    with pytest.raises(TypeError, match=message):
        la.models.partly_labelled(5, index, labels)


def _numbers(value):
    """Everything inside a configuration."""
    if isinstance(value, dict):
        return [item for part in value.values() for item in _numbers(part)]
    return [item for part in value for item in _numbers(part)] if isinstance(value, list) else [value]


NUMBERS = {
    "numpy": (np.int64, np.float32),
    "tensors": (torch.tensor, torch.tensor),
}


@pytest.mark.parametrize(("whole", "real"), NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_every_kind(whole, real, tmp_path):
    shape, half = tuple(map(whole, SHAPE)), real(0.5)
    vae = {"latent_dim": whole(2), "seed": whole(1)}
    models = [
        la.VAE(shape, beta=half, prior="mixture", components=whole(3), **vae),
        la.VAE(shape, prior="vamp", components=whole(3), **vae),
        la.VariationalTSNEAE(
            shape, perplexity=real(5.0), tsne_weight=half, spread=half, batch_size=whole(32), beta=half, **vae
        ),
        la.ContrastiveEncoder(shape, whole(8), width=whole(4), temperature=half, views={"shift": half}, seed=whole(1)),
        la.models.ConditionalVAE(shape, whole(3), label_dropout=half, **vae),
        la.models.ClassPriorVAE(shape, whole(3), class_weight=half, **vae),
        la.models.VAAL(shape, whole(2), adversarial=half),
        la.CNNClassifier(shape, whole(3), dropout=half, seed=whole(1)),
        la.models.ResNetClassifier(shape, whole(3), seed=whole(1)),
        la.MLPClassifier(whole(L), whole(3), hidden=(whole(8), whole(8)), dropout=half, seed=whole(1)),
        la.models.FixMatch(shape, whole(3), threshold=half, weight=half, width=whole(4), dropout=half),
        la.models.M1M2(whole(L), whole(3), latent_dim=whole(2), hidden=whole(8), class_weight=half),
        la.M2(shape, whole(3), latent_dim=whole(2), class_weight=half),
        la.models.M2VAAL(shape, whole(3), latent_dim=whole(2), adversarial=half, sees="zy"),
        la.models.EncoderClassifier(la.CAE(SHAPE), whole(3), trunk_rate=half, hidden=whole(8), dropout=half),
        LossPredictor(
            la.CNNClassifier(SHAPE, 3), torch.rand(1, *SHAPE), weight=half, width=whole(8), detach_after=whole(2)
        ),
    ]
    for model in models:
        assert json.loads(json.dumps(model.config)) == model.config
        assert {type(value) for value in _numbers(model.config)} <= {int, float, str, bool}
    wish = GenerativeAugmentation(per_label=whole(2), share=half, noise=half, latent_dim=whole(2), epochs=whole(1))
    for record in (wish, RandomViews(shift=half, rotation=real(3.0), flip=np.bool_(True))):
        assert {type(value) for value in dataclasses.asdict(record).values()} <= {int, float, str, bool}
    path = tmp_path / "run"
    settings = {"epochs": whole(2), "batch_size": whole(16), "learning_rate": real(0.25), "seed": whole(3)}
    settings |= {"weight_decay": half, "schedule": "cosine"}
    make = MODELS["mlp"][0]
    model = _fitted(make, CODES, LABELS, patience=whole(1), validation=(CODES, LABELS), checkpoint=path, **settings)
    plain = {name: value if isinstance(value, str) else value.item() for name, value in settings.items()}
    assert _same(model, _fitted(make, CODES, LABELS, validation=(CODES, LABELS), patience=1, **plain))
    _fitted(make, CODES, LABELS, validation=(CODES, LABELS), checkpoint=path, resume=True, **plain)
    assert _same(_together(CODES, epochs=whole(2), batch_size=whole(16), seeds=[whole(0)]), _together(CODES))
    assert la.predict_proba(model, CODES, batch_size=whole(7)).shape == (N, 3)
