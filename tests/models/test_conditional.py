"""The class-conditional VAE: its loss by hand with and without labels, what the class changes, what fit asks of it."""

import pytest
import torch

import lalib as la
from lalib.data.seeds import generator
from lalib.models.losses import bernoulli_nll, gaussian_kl
from lalib.models.networks import PRESETS, UNKNOWN, Batch

SHAPE, C, L = (1, 8, 8), 10, 3


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(300))


@pytest.fixture(scope="module")
def trained(digits):
    """On all 300 labels; with little weight on the KL term, which would silence codes of so few small images."""
    model = la.models.ConditionalVAE(SHAPE, C, 4, beta=0.2)
    la.fit(model, digits, epochs=20, batch_size=32, device="cpu", progress=False)
    return model


def _model(**options):
    return la.models.ConditionalVAE(SHAPE, C, L, **options)


def _batch(digits, labels="some"):
    """40 images with all their labels, every other one, or none."""
    y = digits.labels[:40].clone()
    y[{"all": [], "some": list(range(0, 40, 2)), "none": list(range(40))}[labels]] = UNKNOWN
    return Batch(digits.images[:40].float() / 255, y, torch.arange(40))


def _fit(model, data, **options):
    return la.fit(model, data, **{"epochs": 2, "device": "cpu", "progress": False, **options})


def _by_hand(model, batch, given, noise):
    """Both terms with what is known of the classes (B, C)."""
    scale, shift = (given @ model.film.weight.T).chunk(2, dim=1)
    mean, log_variance = model.head(model.trunk(batch.x) * (1 + scale) + shift).split(L, dim=1)
    z = mean + (log_variance / 2).exp() * noise
    logits = model.decoder(torch.cat([z, given], 1))
    return bernoulli_nll(logits, batch.x).mean(), gaussian_kl(mean, log_variance).mean()


def _one_hot(y):
    rows = torch.zeros(len(y), C)
    for row, label in zip(rows, y.tolist(), strict=True):
        if label != UNKNOWN:
            row[label] = 1
    return rows


@pytest.mark.parametrize("labels", ["all", "some", "none"])
def test_the_loss_by_hand(labels, digits):
    model, batch = _model(beta=0.7).eval(), _batch(digits, labels)
    terms = model.loss(batch, generator=generator(0))
    reconstruction, kl = _by_hand(model, batch, _one_hot(batch.y), torch.randn(40, L, generator=generator(0)))
    assert torch.allclose(terms["reconstruction"], reconstruction)
    assert torch.allclose(terms["kl"], kl)
    assert torch.allclose(terms["loss"], reconstruction + 0.7 * kl)


def test_no_labels_are_unknown_labels(digits):
    model, batch = _model().eval(), _batch(digits, "none")
    losses = [model.loss(Batch(batch.x, y), generator=generator(0))["loss"] for y in (None, batch.y)]
    assert torch.equal(*losses)


def test_training_hides_labels(digits):
    """In training half of them here, drawn before the noise; with label_dropout=0 none, with 1 all."""
    batch = _batch(digits, "all")
    stream = generator(0)
    hidden = torch.rand(40, 1, generator=stream) < 0.5
    noise = torch.randn(40, L, generator=stream)
    assert 10 < hidden.sum() < 30
    shown = {0.0: _one_hot(batch.y), 0.5: _one_hot(batch.y) * ~hidden, 1.0: torch.zeros(40, C)}
    for dropout, given in shown.items():
        model = _model(label_dropout=dropout).train()
        terms = model.loss(batch, generator=generator(0))
        assert torch.allclose(terms["reconstruction"], _by_hand(model, batch, given, noise)[0])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("prior", ["normal", "vamp"])
def test_every_preset_reduces_its_loss(preset, prior, digits):
    model = _model(preset=preset, prior=prior)
    model.prepare(digits.images, digits.labels)
    batch, optimizer = _batch(digits), torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        terms = model.loss(batch, generator=generator(0))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert losses[-1] < losses[0]


def test_shapes_and_what_the_class_changes(digits):
    model, x, y = _model(), _batch(digits).x, _batch(digits, "all").y
    z = model.encode(x)
    assert z.shape == (40, L)
    assert model.decode(z).shape == model(x).shape == x.shape
    assert torch.equal(z, model.encode(x, torch.full((40,), UNKNOWN)))
    assert torch.equal(model.decode(z), model.decode(z, torch.full((40,), UNKNOWN)))
    assert not torch.allclose(z, model.encode(x, y))
    assert not torch.allclose(model.decode(z), model.decode(z, y))
    assert torch.equal(model(x), model.decode(z))


def test_codes_of_labelled_and_unlabelled_images_lie_on_one_map(trained, digits):
    """la.encode uses no labels, whatever the image set holds."""
    bare = la.from_arrays(digits.images)
    codes = la.encode(trained, digits)
    assert torch.equal(codes, la.encode(trained, bare))
    with torch.no_grad():
        assert torch.allclose(codes, trained.encode(digits.images.float() / 255), atol=1e-5)
    assert la.one_nn_error(codes, digits.labels) < 0.6  # .9 by chance
    assert la.decode(trained, codes).shape == la.codes.reconstruct(trained, digits).shape == digits.images.shape


def test_generated_images_are_of_their_class(trained, digits):
    labels = torch.arange(C).repeat(20)
    images = trained.generate(labels, seed=1)
    assert images.shape == (200, *SHAPE)
    assert 0 <= images.min() <= images.max() <= 1
    means = torch.stack([digits.images[digits.labels == c].float().mean(0) / 255 for c in range(C)])
    nearest = torch.cdist(images.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == labels).float().mean() > 0.8
    assert torch.equal(images, trained.generate(labels, seed=1))
    assert not torch.equal(images, trained.generate(labels, seed=2))


def test_generation_keeps_the_mode_and_names_bad_classes():
    model = _model().train()
    model.generate(torch.tensor([1]))
    assert model.training
    with pytest.raises(ValueError, match="labels must lie in 0 to 9, got 3 to 10"):
        model.generate(torch.tensor([3, 10]))
    with pytest.raises(ValueError, match="labels must lie in 0 to 9, got -1 to -1"):
        model.generate(torch.tensor([UNKNOWN]))


@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp"])
def test_it_is_rebuilt_from_its_config_and_from_a_file(prior, digits, tmp_path):
    options = {} if prior == "normal" else {"components": 5}
    model = _model(label_dropout=0.3, beta=2.0, prior=prior, seed=3, **options)
    again = la.models.ConditionalVAE(**model.config, seed=3)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    _fit(model, digits)
    la.save(model, tmp_path / "model")
    loaded = la.load_model(tmp_path / "model")
    assert loaded.config == model.config
    assert torch.equal(loaded.generate(digits.labels), model.generate(digits.labels))


def test_fit_takes_partial_labels_and_refuses_none(digits):
    labels = la.models.partly_labelled(300, torch.arange(50), digits.labels[:50])
    model, other = _model(), _model()
    history = _fit(model, (digits, labels), validation=digits)
    assert {"val_loss", "val_kl"} < set(history.epochs[-1])
    _fit(other, digits)
    assert not torch.equal(model.head.weight, other.head.weight)
    nothing = torch.full((300,), UNKNOWN)
    for data in (la.from_arrays(digits.images), (digits, nothing)):
        with pytest.raises(la.LalibError, match="ConditionalVAE needs labelled images, got 300 without a label"):
            _fit(model, data)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([[0, 1]], ValueError, r"labels must have shape \(1,\), one per point, got \(1, 2\)"),
        ([0, 1], ValueError, r"labels must have shape \(1,\), one per point, got \(2,\)"),
        ([10], ValueError, "labels must lie in -1 to 9, got 10 to 10"),
        ([-2], ValueError, "labels must lie in -1 to 9, got -2 to -2"),
        ([0.5], TypeError, "labels must be whole numbers, got torch.float32"),
    ],
)
def test_bad_labels(y, error, message):
    with pytest.raises(error, match=message):
        _model().encode(torch.zeros(1, *SHAPE), torch.tensor(y))


def test_several_labels_per_image_are_refused(digits):
    several = la.from_arrays(digits.images, torch.nn.functional.one_hot(digits.labels, C))
    with pytest.raises(ValueError, match=r"labels must have shape \(128,\), one per point, got \(128, 10\)"):
        _fit(_model(), several)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_classes": 1}, "n_classes must be at least 2, got 1"),
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"label_dropout": -0.1}, "label_dropout must be at least 0, got -0.1"),
        ({"label_dropout": 1.1}, "label_dropout must be at most 1, got 1.1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        la.models.ConditionalVAE(**{"image_shape": SHAPE, "n_classes": C, **options})


@pytest.mark.parametrize("mode", ["frozen", "scratch"])
def test_its_trunk_serves_a_classifier(mode, digits):
    classifier = la.models.EncoderClassifier(_model(), C, mode=mode)
    history = _fit(classifier, digits, epochs=5)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
