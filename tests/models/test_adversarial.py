import math

import pytest
import torch

import lalib as la
from lalib.models.adversarial import M2VAAL, TAVAAL, VAAL, Discriminator
from lalib.models.classifiers import LossPredictor
from lalib.models.losses import bernoulli_nll, discriminator_loss, gaussian_kl
from lalib.models.networks import UNKNOWN, Batch
from lalib.models.semisupervised import partly_labelled
from lalib.strategies.discriminators import cannot_tell
from lalib.strategies.registry import STRATEGIES

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(400))


def batch(n=8, labelled=3):
    generator = torch.Generator().manual_seed(0)
    y = torch.full((n,), UNKNOWN)
    y[:labelled] = torch.arange(labelled) % 3
    return Batch(torch.rand(n, *SHAPE, generator=generator), y)


def predictor(image_shape=SHAPE, n_classes=3):
    classifier = la.CNNClassifier(image_shape, n_classes, seed=0)
    return LossPredictor(classifier, torch.zeros(1, *image_shape), detach_after=10)


def resnet_predictor(image_shape, n_classes):
    classifier = la.models.ResNetClassifier(image_shape, n_classes, seed=0)
    return LossPredictor(classifier, torch.zeros(1, *image_shape), detach_after=10)


def models():
    return [VAAL(SHAPE, 4, seed=0), TAVAAL(predictor(), 4, seed=0), M2VAAL(SHAPE, 3, latent_dim=4, seed=0)]


def test_discriminator_terms_are_those_of_the_paper():
    codes, known = torch.randn(6, 4), torch.tensor([1, 0, 0, 1, 0, 0]).bool()
    discriminator = Discriminator(4, seed=0)
    terms = discriminator.terms(codes, known)
    d = torch.sigmoid(discriminator(codes))
    torch.testing.assert_close(terms["adversarial"], -d[known].log().mean() - d[~known].log().mean())
    torch.testing.assert_close(terms["discriminator"], -d[known].log().mean() - (1 - d[~known]).log().mean())
    right = ((d[known] > 0.5).float().mean() + (d[~known] <= 0.5).float().mean()) / 2
    torch.testing.assert_close(terms["told_apart"], right)


def test_a_discriminator_that_cannot_tell_has_twice_the_logarithm_of_two():
    loss = discriminator_loss(torch.zeros(5), torch.tensor([1, 0, 0, 0, 1]).bool())
    assert float(loss) == pytest.approx(2 * math.log(2))


def test_each_side_learns_from_its_own_term_only():
    codes, known = torch.randn(6, 4, requires_grad=True), torch.tensor([1, 0, 0, 1, 0, 0]).bool()
    discriminator = Discriminator(4, seed=0)
    terms = discriminator.terms(codes, known)
    terms["adversarial"].backward(retain_graph=True)
    assert codes.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())
    codes.grad = None
    terms["discriminator"].backward()
    assert codes.grad is None
    assert all(p.grad.abs().sum() > 0 for p in discriminator.parameters())


def test_vaal_adds_the_bounds_of_both_sides():
    """In whatever order labelled and unlabelled images come."""
    model, both = VAAL(SHAPE, 4, seed=0), batch()
    both, labelled = Batch(both.x, both.y[torch.tensor([3, 0, 4, 1, 5, 2, 6, 7])]), [1, 3, 5]
    terms = model.loss(both, generator=torch.Generator().manual_seed(1))
    generator, expected = torch.Generator().manual_seed(1), 0
    for part in (both.x[labelled], both.x[[0, 2, 4, 6, 7]]):
        mean, log_variance = model.posterior(part)
        z = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator)
        expected += bernoulli_nll(model.decoder(z), part).mean() + gaussian_kl(mean, log_variance).mean()
    expected += terms["adversarial"] + terms["discriminator"]
    torch.testing.assert_close(terms["loss"], expected)


def test_without_the_adversarial_term_the_discriminator_does_not_move_the_vae():
    model = VAAL(SHAPE, 4, adversarial=0, seed=0)
    model.loss(batch(), generator=torch.Generator().manual_seed(1))["loss"].backward()
    alone = la.VAE(SHAPE, 4, seed=0)
    both, generator = batch(), torch.Generator().manual_seed(1)
    sum(alone.loss(Batch(x), generator=generator)["loss"] for x in (both.x[:3], both.x[3:])).backward()
    for (name, one), two in zip(alone.named_parameters(), model.parameters(), strict=False):
        torch.testing.assert_close(one.grad, two.grad, msg=name)


@pytest.mark.parametrize(("sees", "reached"), [("z", False), ("zy", True)])
def test_the_adversarial_term_reaches_the_classifier_only_through_class_probabilities(sees, reached):
    model = M2VAAL(SHAPE, 3, latent_dim=4, sees=sees, seed=0)
    both = batch()
    model.discriminator.terms(model.seen(both.x), both.y != UNKNOWN)["adversarial"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.trunk.parameters())
    assert any(p.grad is not None for p in model.classifier.parameters()) == reached
    assert model.seen(both.x).shape == (8, 7 if reached else 4)


def test_ta_vaal_shows_the_loss_that_it_expects():
    model, both = TAVAAL(predictor(), 4, seed=0).eval(), batch()
    expected = model.predictor.head(model.predictor.classifier.activations(both.x)[0], None)
    seen = model.seen(both.x)
    assert seen.shape == (8, 5)
    torch.testing.assert_close(seen[:, 4], expected.detach())
    terms = model.loss(both, generator=torch.Generator().manual_seed(1))
    assert {"task", "pairs", "told_apart", "kl"} <= set(terms)
    terms["loss"].backward()
    assert all(p.grad is not None for p in model.predictor.parameters())


def test_ta_vaal_shows_in_training_what_it_will_show_when_images_are_picked():
    model, both = TAVAAL(resnet_predictor(SHAPE, 3), 4, seed=0).train(), batch()
    shown = model.condition(both.x)
    assert model.predictor.classifier.training
    torch.testing.assert_close(shown, model.eval().condition(both.x))


def test_ta_vaal_of_a_resnet_takes_a_last_batch_of_one_unlabelled_image(digits):
    model = TAVAAL(resnet_predictor(digits.image_shape, 10), 4, seed=0)
    few, model.labeled_size = digits.subset(range(9)), 4
    labels = partly_labelled(9, torch.arange(4), few.labels[:4])
    la.fit(model, (few, labels), epochs=1, batch_size=4, device="cpu", progress=False)


def test_ta_vaal_reconstructs_images_with_the_loss_that_it_expects(digits):
    model = TAVAAL(predictor(digits.image_shape), 4, seed=0)
    x = digits.images.float() / 255
    with torch.no_grad():
        expected = model.decode(torch.cat([model.encode(x), model.condition(x).sigmoid()], dim=1))
    torch.testing.assert_close(la.codes.reconstruct(model, digits), expected)


def test_another_adversarial_weight_is_another_training(digits, tmp_path):
    data = digits, partly_labelled(400, torch.arange(40), digits.labels[:40])
    options = {"epochs": 1, "device": "cpu", "progress": False, "checkpoint": tmp_path / "run.safetensors"}
    la.fit(VAAL(digits.image_shape, 4, seed=0), data, **options)
    with pytest.raises(la.LalibError, match=r"is of another run: its adversarial is 1\.0, here 0\.0"):
        la.fit(VAAL(digits.image_shape, 4, adversarial=0, seed=0), data, resume=True, **options)


@pytest.mark.parametrize("deceive", [False, True])
def test_a_discriminator_learns_what_sets_labelled_codes_apart_and_codes_that_deceive_come_together(deceive):
    known = torch.arange(200) < 50
    codes = (torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) + 2 * known[:, None]).requires_grad_()
    discriminator = Discriminator(2, seed=0)
    groups = [{"params": list(discriminator.parameters())}, {"params": [codes] if deceive else [], "lr": 0.05}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=0.01)
    for _ in range(60):
        terms = discriminator.terms(codes, known)
        optimizer.zero_grad()
        (terms["adversarial"] + terms["discriminator"]).backward()
        optimizer.step()
    gap = (codes[known].mean(0) - codes[~known].mean(0)).norm()
    if deceive:
        assert gap < 1.5  # from 2.8
    else:
        assert terms["told_apart"] > 0.9


@pytest.mark.parametrize("model", models(), ids=lambda model: type(model).__name__)
def test_fit_trains_all_parts(digits, model):
    before = {name: value.clone() for name, value in model.named_parameters()}
    labels = partly_labelled(len(digits), torch.arange(40), torch.arange(40) % 3)
    history = la.fit(model, (digits, labels), epochs=2, seed=0, device="cpu", progress=False)
    assert all(not torch.equal(before[name], value) for name, value in model.named_parameters())
    assert 0 <= history.epochs[-1]["told_apart"] <= 1
    with torch.no_grad():
        logits = model.eval().labelled_logits(digits.images.float() / 255)
    assert logits.shape == (400,)
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["vaal", "ta-vaal", "m2-vaal"])
def test_strategies_pick_the_surest_unlabelled_and_record_how_well_the_sides_are_told_apart(name):
    logits = torch.tensor([3.0, -2.0, 0.5, -4.0, 1.0, -0.1])
    view = la.strategies.PoolView(torch.rand(6, 2), torch.tensor([0, 3]), None, {name.replace("-", "_"): logits})
    selection = STRATEGIES[name](view, 3, generator=torch.Generator())
    assert selection.index.tolist() == [1, 5, 2]
    assert selection.score.tolist() == pytest.approx([2.0, 0.1, -0.5])
    d = torch.sigmoid(logits.double())
    expected = -(d[0].log() + d[3].log()) / 2 - sum((1 - d[i]).log() for i in (1, 2, 4, 5)) / 4
    assert selection.record["discriminator_loss"] == pytest.approx(float(expected))
    assert selection.record["told_apart"] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_the_rule_to_stop_by():
    assert cannot_tell({"told_apart": 0.52})
    assert not cannot_tell({"told_apart": 0.56})
    assert cannot_tell({"told_apart": 0.56}, margin=0.1)
    with pytest.raises(la.LalibError, match="the record of the selection names no discriminator"):
        cannot_tell({})


def test_bad_arguments(digits):
    model = VAAL(digits.image_shape, 2, seed=0)
    with pytest.raises(la.LalibError, match="VAAL needs labelled images, got 400 without a label"):
        la.fit(model, (digits, torch.full((400,), UNKNOWN)), epochs=1, progress=False)
    with pytest.raises(la.LalibError, match="VAAL's discriminator needs unlabelled images, too: all 400 have a label"):
        la.fit(model, digits, epochs=1, progress=False)
    with pytest.raises(la.LalibError, match="a discriminator needs labelled and unlabelled images in every batch"):
        model.loss(batch(3, 3), generator=torch.Generator())
    with pytest.raises(ValueError, match="adversarial must be at least 0"):
        VAAL(SHAPE, adversarial=-1)
    with pytest.raises(ValueError, match="sees must be one of 'z', 'zy', got 'x'"):
        M2VAAL(SHAPE, 3, sees="x")
