import dataclasses
import math

import pytest
import torch
from torch import distributions as D

import lalib as la
from lalib.models.losses import gaussian_nll, m2_unlabelled
from lalib.models.networks import UNKNOWN, Batch
from lalib.models.semisupervised import M1M2, M2, ClassPriorVAE, FixMatch, partly_labelled

SHAPE, CLASSES = (1, 8, 8), 3


@pytest.fixture(scope="module")
def digits():
    return la.load("digits")


def some(n=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64)
    return x, torch.randn(n, 2, generator=generator, dtype=torch.float64)


def enumerated(model, x, noise):
    """L(x, y) of every image and class, one by one, from distributions."""
    rows = []
    for image, eps in zip(x, noise, strict=True):
        row = []
        for y in torch.eye(model.n_classes, dtype=x.dtype):
            mean, log_variance = model.head(torch.cat([model.trunk(image[None])[0], y])).split(model.latent_dim)
            posterior = D.Normal(mean, (log_variance / 2).exp())
            z = mean + (log_variance / 2).exp() * eps
            logits = model.decoder(torch.cat([z, y])[None])[0]
            reconstruction = image * torch.nn.functional.logsigmoid(logits)
            reconstruction = (reconstruction + (1 - image) * torch.nn.functional.logsigmoid(-logits)).sum()
            kl = D.kl_divergence(posterior, D.Normal(torch.zeros_like(mean), 1.0)).sum()
            row.append(-reconstruction - math.log(1 / model.n_classes) + kl)
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("preset", ["dense", "light"])
def test_bounds_are_those_of_an_enumeration(preset, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the check is in float64
    model = M2(SHAPE, CLASSES, latent_dim=2, preset=preset, seed=1).double().eval()
    x, noise = some()
    torch.testing.assert_close(model.bounds(x, noise), enumerated(model, x, noise), rtol=1e-10, atol=1e-10)


def test_unlabelled_term_is_the_sum_over_classes():
    bounds, logits = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    q = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = [sum(q[i, c] * bounds[i, c] for c in range(3)) + sum(q[i] * q[i].log()) for i in range(4)]
    torch.testing.assert_close(m2_unlabelled(bounds, logits), torch.stack(expected))


def test_gaussian_nll_is_that_of_torch():
    x, mean, log_variance = torch.randn(3, 4, 6, dtype=torch.float64)
    expected = -D.Normal(mean, (log_variance / 2).exp()).log_prob(x).sum(1)
    torch.testing.assert_close(gaussian_nll(mean, log_variance, x), expected)


def test_objective_is_the_sum_over_all_images_divided_by_their_number(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    model = M2(SHAPE, CLASSES, latent_dim=2, preset="dense", class_weight=0.7, seed=1).double().eval()
    x, _ = some()
    y = torch.tensor([2, UNKNOWN, UNKNOWN, 0, UNKNOWN])
    model.prepare(x, y)
    noise = torch.randn(5, 2, generator=torch.Generator().manual_seed(3)).double()
    bounds, log_q = enumerated(model, x, noise), torch.log_softmax(model(x), 1)
    known = [0, 3]
    total = sum(bounds[i, y[i]] for i in known)
    total += sum((log_q[i].exp() * (bounds[i] + log_q[i])).sum() for i in (1, 2, 4))
    total += 0.7 * 5 * sum(-log_q[i, y[i]] for i in known) / len(known)
    terms = model.loss(Batch(x, y), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(terms["loss"], total / 5)


def test_batches_show_every_unlabelled_image_once_and_labelled_ones_equally_often():
    model = M2(SHAPE, CLASSES, seed=0)
    model.labeled_size = 4
    y = torch.full((50,), UNKNOWN)
    y[[3, 7, 11, 30, 31, 49]] = torch.tensor([0, 1, 2, 0, 1, 2])
    model.prepare(torch.zeros(50, *SHAPE), y)
    batches = list(model.batches(50, 10, generator=torch.Generator().manual_seed(0)))
    seen = torch.bincount(torch.cat(batches), minlength=50)
    assert seen[y == UNKNOWN].tolist() == [1] * 44
    assert [int((y[index] != UNKNOWN).sum()) for index in batches] == [4] * 5
    assert set(seen[y != UNKNOWN].tolist()) <= {3, 4}


def test_with_all_images_labelled_an_epoch_shows_each_once():
    model = M2(SHAPE, CLASSES, seed=0)
    model.prepare(torch.zeros(25, *SHAPE), torch.arange(25) % 3)
    seen = torch.cat(list(model.batches(25, 10, generator=torch.Generator().manual_seed(0))))
    assert sorted(seen.tolist()) == list(range(25))


def labelled_digits(digits, n=100):
    index = torch.arange(n)  # the set is in random order
    return partly_labelled(len(digits), index, digits.labels[index])


def test_learns_from_a_few_labels_and_draws_the_class_it_is_asked_for(digits):
    few = digits.subset(range(700))
    model = M2(digits.image_shape, 10, latent_dim=4, preset="dense", seed=0)
    settings = {"epochs": 12, "batch_size": 64, "learning_rate": 3e-3, "seed": 0, "device": "cpu", "progress": False}
    history = la.fit(model, (few, labelled_digits(few)), **settings)
    assert history.epochs[-1]["unlabelled"] < 0.8 * history.epochs[0]["unlabelled"]
    assert la.accuracy(model, digits) > 0.7
    wanted = torch.arange(10).repeat(20)
    drawn = model.generate(wanted, seed=1)
    assert drawn.shape == (200, *digits.image_shape)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert float((model(drawn).argmax(1) == wanted).float().mean()) > 0.7
    assert model.latents(drawn).shape == (200, 4)


def test_on_codes_unlabelled_ones_help(digits):
    codes = digits.images.flatten(1).float()
    y = labelled_digits(digits, 30)
    both, alone = M1M2(64, 10, hidden=128, seed=0), la.MLPClassifier(64, 10, hidden=(256,), seed=0)
    la.fit(both, (codes, y), epochs=15, learning_rate=3e-3, seed=0, device="cpu", progress=False)
    la.fit(alone, (codes[:30], y[:30]), epochs=100, seed=0, device="cpu", progress=False)
    assert la.accuracy(both, codes, digits.labels) > la.accuracy(alone, codes, digits.labels) + 0.02


class Inverted:
    flip = False

    def __call__(self, x, *, generator):
        return 1 - x


def test_fixmatch_asks_of_a_view_what_it_is_sure_of(monkeypatch):
    model = FixMatch(SHAPE, CLASSES, weight=0.5, dropout=0.0, seed=0)
    model.views = Inverted()
    monkeypatch.setattr("lalib.models.semisupervised.RandomViews", lambda **strengths: lambda x, generator: x)
    x, y = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.full((20,), UNKNOWN)
    y[:4] = torch.tensor([0, 1, 2, 0])
    log_q, asked = torch.log_softmax(model(x), 1), torch.log_softmax(model(1 - x), 1)
    sureness = log_q.detach()[4:].max(1).values.exp().sort().values
    model.threshold = float(sureness[7:9].mean())  # between two images, so that rounding moves none across
    expected = -sum(log_q[i, y[i]] for i in range(4)) / 4
    sure = [i for i in range(4, 20) if log_q[i].max().exp() >= model.threshold]
    assert 0 < len(sure) < 16
    expected = expected - 0.5 * sum(asked[i, log_q[i].argmax()] for i in sure) / 16
    terms = model.loss(Batch(x, y), generator=torch.Generator())
    torch.testing.assert_close(terms["loss"], expected)
    assert float(terms["sure"]) == pytest.approx(len(sure) / 16)


def test_fixmatch_teaches_the_network_that_it_is_given(digits):
    """The loss is that of the default if the network is as the default; a CNNClassifier learns in its place."""
    own = FixMatch(digits.image_shape, 10, dropout=0.0, seed=1).classifier
    given, default = (FixMatch(digits.image_shape, 10, dropout=0.0, seed=1, **more) for more in ({"network": own}, {}))
    x, y = digits.images[:40].float() / 255, partly_labelled(40, torch.arange(10), digits.labels[:10])
    losses = [model.loss(Batch(x, y), generator=torch.Generator().manual_seed(2))["loss"] for model in (given, default)]
    assert torch.equal(*losses)
    network = la.CNNClassifier(digits.image_shape, 10, network="residual", seed=3)
    before = la.accuracy(network, digits)
    model = FixMatch(digits.image_shape, 10, network=network)
    la.fit(model, (digits, labelled_digits(digits)), epochs=2, device="cpu", progress=False)
    assert la.accuracy(network, digits) == la.accuracy(model, digits) > before + 0.2
    assert network.class_names == digits.class_names == FixMatch(digits.image_shape, 10, network=network).class_names


def test_same_seed_same_weights_and_training_mode_is_put_back(digits):
    few = digits.subset(range(300))

    def trained():
        model = M2(digits.image_shape, 10, latent_dim=2, seed=3)
        la.fit(model, (few, labelled_digits(few)), epochs=1, seed=4, device="cpu", progress=False)
        return model

    first, second = trained(), trained()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    first.train()
    first.generate(torch.tensor([1]))
    assert first.training


def test_a_class_without_labelled_images_is_legal(digits):
    y = labelled_digits(digits)
    y[y == 3] = UNKNOWN
    model = M2(digits.image_shape, 10, latent_dim=2, preset="dense", seed=0)
    la.fit(model, (digits, y), epochs=1, device="cpu", progress=False)
    assert torch.isfinite(la.predict_proba(model, digits)).all()


def test_validation_may_be_labelled_whole(digits):
    model = M2(digits.image_shape, 10, latent_dim=2, preset="dense", seed=0)
    data, held_out = (digits, labelled_digits(digits)), digits.subset(range(50))
    history = la.fit(model, data, validation=held_out, epochs=1, device="cpu", progress=False)
    assert history.epochs[0]["val_class"] > 0


def test_partly_labelled():
    assert partly_labelled(5, torch.tensor([3, 1]), torch.tensor([7, 0])).tolist() == [-1, 0, -1, 7, -1]
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\)"):
        partly_labelled(5, torch.tensor([3, 1]), torch.tensor([7]))
    with pytest.raises(ValueError, match="index must lie in 0 to 4, got -1"):
        partly_labelled(5, torch.tensor([3, -1]), torch.tensor([7, 0]))
    with pytest.raises(ValueError, match="index must be distinct, got 2 indices of 1 images"):
        partly_labelled(5, torch.tensor([3, 3]), torch.tensor([7, 0]))


def test_bad_arguments(digits):
    with pytest.raises(ValueError, match="latent_dim must be at least 1, got 0"):
        M2(SHAPE, CLASSES, latent_dim=0)
    with pytest.raises(ValueError, match="class_weight must be finite"):
        M2(SHAPE, CLASSES, class_weight=float("nan"))
    with pytest.raises(ValueError, match="n_classes must be at least 2"):
        M1M2(4, 1)
    for name, model in {"classifier": M2, "network": FixMatch}.items():
        with pytest.raises(ValueError, match=f"{name} must tell n_classes=3 apart, got 5"):
            model(SHAPE, 3, **{name: la.CNNClassifier(SHAPE, 5)})
        with pytest.raises(
            ValueError, match=rf"{name} must take images \(1, 8, 8\) with one label each, got \(1, 9, 9\)"
        ):
            model((1, 8, 8), 3, **{name: la.CNNClassifier((1, 9, 9), 3)})
        with pytest.raises(ValueError, match=r"with one label each, got .* and multi_label=True"):
            model(SHAPE, 3, **{name: la.CNNClassifier(SHAPE, 3, multi_label=True)})
        with pytest.raises(TypeError, match=f"{name} must be Classifier, got str"):
            model(SHAPE, 3, **{name: "residual"})
        with pytest.raises(la.LalibError, match=f"{model.__name__} needs one label per image"):
            model(SHAPE, CLASSES, multi_label=True)
    with pytest.raises(ValueError, match="threshold must be at most 1, got 2"):
        FixMatch(SHAPE, CLASSES, threshold=2)
    model = M2(digits.image_shape, 10, preset="dense")
    several = dataclasses.replace(digits, labels=torch.eye(10, dtype=torch.int64)[digits.labels])
    with pytest.raises(la.LalibError, match="M2 needs one label per image; these images may have several"):
        la.fit(model, several, epochs=1, progress=False)
    with pytest.raises(la.LalibError, match="M2 needs labelled images, got 1438 without a label"):
        la.fit(model, (digits, torch.full((1438,), UNKNOWN)), epochs=1, progress=False)
    with pytest.raises(ValueError, match="labels must lie in -1 to 9, got -2 to -1"):
        la.fit(model, (digits, torch.full((1438,), UNKNOWN).index_fill(0, torch.tensor([0]), -2)), progress=False)
    with pytest.raises(ValueError, match="labels must lie in 0 to 9, got -1 to"):
        la.fit(la.CNNClassifier(digits.image_shape, 10), (digits, labelled_digits(digits)), progress=False)
    with pytest.raises(ValueError, match="labels must lie in 0 to 9, got 10 to 10"):
        model.generate(torch.tensor([10]))


# A prior with a Gaussian per class


def test_the_class_term_by_hand():
    """-log p(y|z) by Bayes' rule from torch's densities; all else is the loss of a VAE with that mixture as a prior."""
    x, _ = some(6)
    x, y = x.float(), torch.tensor([2, UNKNOWN, 0, UNKNOWN, 1, 2])
    model = ClassPriorVAE(SHAPE, CLASSES, 2, class_weight=3.0, beta=0.5, seed=1).eval()
    with torch.no_grad():
        model.prior.logits.copy_(torch.tensor([0.3, -1.0, 0.5]))
        model.prior.log_variances.normal_(generator=torch.Generator().manual_seed(0))
    plain = la.VAE(SHAPE, 2, prior="mixture", components=CLASSES, beta=0.5, seed=1).eval()
    plain.load_state_dict(model.state_dict())
    expected = plain.loss(Batch(x), generator=torch.Generator().manual_seed(3))
    terms = model.loss(Batch(x, y), generator=torch.Generator().manual_seed(3))
    parts = D.Normal(model.prior.means, (model.prior.log_variances / 2).exp())
    joint = parts.log_prob(model.encode(x)[:, None]).sum(2).exp() * model.prior.logits.softmax(0)
    share = joint / joint.sum(1, keepdim=True)
    by_hand = -sum(share[i, y[i]].log() for i in (0, 2, 4, 5)) / 4
    torch.testing.assert_close(terms["class"], by_hand)
    torch.testing.assert_close(terms["loss"], expected["loss"] + 3 * by_hand)
    assert "class" not in model.loss(Batch(x, torch.full((6,), UNKNOWN)), generator=torch.Generator().manual_seed(3))


def test_its_codes_tell_the_class(digits):
    """Of images whose labels it has not seen, better than those of a VAE with as many Gaussians and epochs."""
    few = digits.subset(range(400))
    labels = partly_labelled(400, torch.arange(60), few.labels[:60])
    settings = {"epochs": 15, "device": "cpu", "progress": False}
    model = ClassPriorVAE(few.image_shape, 10, 4, seed=0)
    plain = la.VAE(few.image_shape, 4, prior="mixture", components=10, seed=0)
    la.fit(model, (few, labels), **settings)
    la.fit(plain, few, batch_size=64, **settings)
    errors = [la.one_nn_error(la.encode(m, few)[60:], few.labels[60:]) for m in (model, plain)]
    assert errors[0] < errors[1] - 0.1
    assert errors[0] < 0.4


def test_a_class_prior_needs_labels_and_a_prior_of_its_own(digits):
    few = digits.subset(range(80))
    with pytest.raises(la.LalibError, match="ClassPriorVAE needs labelled images, got 80 without a label"):
        la.fit(ClassPriorVAE(few.image_shape, 10), la.from_arrays(few.images), epochs=1, progress=False)
    with pytest.raises(ValueError, match="class_weight must be at least 0, got -1"):
        ClassPriorVAE(few.image_shape, 10, class_weight=-1)
    with pytest.raises(TypeError, match="multiple values for keyword argument 'prior'"):
        ClassPriorVAE(few.image_shape, 10, prior="vamp")
