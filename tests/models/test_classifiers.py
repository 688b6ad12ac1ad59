"""Classifiers on pixels, on codes and on an encoder: what learns, at which rate, and what is refused."""

import dataclasses

import pytest
import torch

import lalib as la
from lalib.data.seeds import generator
from lalib.models.networks import Batch, check_inputs, in_blocks

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(500))


@pytest.fixture(scope="module")
def held_out():
    return la.load("digits", "test")


def _fit(model, data, **options):
    return la.fit(model, data, **{"epochs": 2, "device": "cpu", "progress": False, **options})


def _codes(images):
    return images.images.flatten(1).float() / 255


def _state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_classifier_learns_the_digits(digits, held_out):
    autoencoder = la.CAE(SHAPE, 10)
    _fit(autoencoder, digits, epochs=20, batch_size=32)
    classifiers = {
        "cnn": la.CNNClassifier(SHAPE, 10),
        "mlp": la.MLPClassifier(64, 10),
        **{
            mode: la.models.EncoderClassifier(autoencoder, 10, mode=mode)
            for mode in ("frozen", "fine-tuned", "scratch")
        },
    }
    for name, classifier in classifiers.items():
        data = (_codes(digits), digits.labels) if name == "mlp" else digits
        history = _fit(classifier, data, epochs=8)
        test = (_codes(held_out), held_out.labels) if name == "mlp" else (held_out,)
        assert la.accuracy(classifier, *test) > 0.7, name
        assert history.epochs[-1]["loss"] < 0.6 * history.epochs[0]["loss"]
        assert 0 <= history.epochs[0]["accuracy"] <= history.epochs[-1]["accuracy"] <= 1


def test_loss_and_accuracy_by_hand():
    classifier = la.MLPClassifier(3, 3, hidden=())
    x, y = torch.eye(3), torch.tensor([0, 1, 1])
    with torch.no_grad():
        classifier.network[0].weight.copy_(2 * torch.eye(3))
        classifier.network[0].bias.zero_()
    terms = classifier.loss(Batch(x, y), generator=generator(0))
    right = -torch.log(torch.tensor(2.0).exp() / (torch.tensor(2.0).exp() + 2))
    assert torch.allclose(terms["loss"], (2 * right + right + 2) / 3)
    assert terms["accuracy"].item() == pytest.approx(2 / 3)
    assert la.accuracy(classifier, x, y) == pytest.approx(2 / 3)
    assert torch.allclose(la.predict_proba(classifier, x), torch.softmax(2 * x, 1))


def test_probabilities_are_rows_that_sum_to_one_and_modes_are_kept(digits):
    classifier = la.CNNClassifier(SHAPE, 10)
    for training in (True, False):
        classifier.train(training)
        probs = la.predict_proba(classifier, digits)
        assert classifier.training is training
        assert probs.shape == (500, 10)
        assert probs.dtype == torch.float32
        assert torch.allclose(probs.sum(1), torch.ones(500))
        assert torch.allclose(probs, la.predict_proba(classifier, digits, batch_size=7), atol=1e-6)
    assert torch.equal(probs, la.predict_proba(classifier, digits.images))


def test_a_frozen_trunk_stays_what_it_was(digits):
    autoencoder = la.VAE(SHAPE, 5)
    before, classifier = _state(autoencoder), la.models.EncoderClassifier(autoencoder, 10, mode="frozen")
    head = _state(classifier.network)
    _fit(classifier, digits, weight_decay=0.1)
    assert _equal(_state(classifier.trunk), _state(autoencoder.trunk))
    assert not _equal(_state(classifier.network), head)
    assert _equal(_state(autoencoder), before)
    assert all(p.requires_grad for p in autoencoder.parameters())


def test_fine_tuning_changes_a_copy_at_a_tenth_of_the_rate(digits):
    autoencoder = la.CAE(SHAPE, 5)
    before, classifier = _state(autoencoder), la.models.EncoderClassifier(autoencoder, 10, dropout=0)
    assert _equal(_state(classifier.trunk), _state(autoencoder.trunk))
    start = _state(classifier)
    _fit(classifier, digits.subset(range(32)), epochs=1, learning_rate=0.01)  # one batch: Adam's first step
    moved = {name: (value - start[name]).abs().max().item() for name, value in classifier.state_dict().items()}
    assert {name: round(size, 5) for name, size in moved.items()} == {
        name: 0.001 if name.startswith("trunk") else 0.01 for name in moved
    }
    assert _equal(_state(autoencoder), before)


@pytest.mark.parametrize(
    ("mode", "trunk_rate", "rates"),
    [("frozen", 0.1, [2]), ("fine-tuned", 0.1, [2, 0.2]), ("fine-tuned", 0.5, [2, 1]), ("scratch", 0.1, [2, 2])],
)
def test_learning_rates(mode, trunk_rate, rates):
    classifier = la.models.EncoderClassifier(la.CAE(SHAPE), 10, mode=mode, trunk_rate=trunk_rate)
    groups = classifier.parameter_groups(2.0)
    assert [group["lr"] for group in groups] == pytest.approx(rates)
    assert sum(len(group["params"]) for group in groups) == sum(p.requires_grad for p in classifier.parameters())


def test_scratch_has_the_same_layers_and_new_weights(digits):
    autoencoder = la.CAE(SHAPE, 5, preset="report", seed=3)
    _fit(autoencoder, digits, epochs=1)
    transfer, scratch, again, other = (
        la.models.EncoderClassifier(autoencoder, 10, mode=mode, seed=seed)
        for mode, seed in (("fine-tuned", 4), ("scratch", 4), ("scratch", 4), ("scratch", 5))
    )
    shapes = [{name: value.shape for name, value in m.state_dict().items()} for m in (transfer, scratch)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(transfer.trunk[1].weight, scratch.trunk[1].weight)
    assert _equal(_state(scratch), _state(again))
    assert not torch.equal(scratch.trunk[1].weight, other.trunk[1].weight)
    assert _equal(_state(transfer.network), _state(scratch.network))  # paired: the head starts from the same weights


def test_head_and_trunk_draw_from_streams_of_their_own():
    """With one stream the head's first weights would be the trunk's first, scaled."""
    classifier = la.models.EncoderClassifier(la.CAE(SHAPE), 10, mode="scratch")
    trunk, head = classifier.trunk[1].weight.flatten()[:100], classifier.network[0].weight.flatten()[:100]
    assert abs(torch.corrcoef(torch.stack([trunk, head]))[0, 1]) < 0.5


def test_codes_are_centred_and_divided_by_one_scale():
    codes = torch.tensor([[1.0, 100.0], [3.0, 300.0], [5.0, 500.0]])
    classifier = la.MLPClassifier(2, 2)
    classifier.prepare(codes)
    assert classifier.mean.tolist() == [3, 300]
    assert torch.allclose(classifier.scale**2, codes.var(0, correction=0).mean())
    plain = la.MLPClassifier(2, 2)
    standard = (codes - codes.mean(0)) / codes.var(0, correction=0).mean().sqrt()
    assert torch.allclose(classifier(codes), plain(standard), atol=1e-6)
    for alike in (torch.full((3, 2), 0.1), codes[:1]):  # no spread
        classifier.prepare(alike)
        assert classifier.scale == 1


def test_one_class_is_enough(digits):
    one = digits.subset(torch.nonzero(digits.labels == 0)[:, 0])
    for classifier, data in ((la.CNNClassifier(SHAPE, 10), one), (la.MLPClassifier(64, 1), (_codes(one), one.labels))):
        history = _fit(classifier, data, epochs=1)
        assert history.epochs[0]["loss"] >= 0
    assert la.predict_proba(classifier, _codes(one)).tolist() == [[1.0]] * len(one)


def test_seeds(digits):
    one, again, other = (la.CNNClassifier(SHAPE, 10, seed=seed) for seed in (1, 1, 2))
    assert _equal(_state(one), _state(again))
    assert not torch.equal(one.network[0].weight, other.network[0].weight)


def test_missing_and_multiple_labels(digits):
    bare = dataclasses.replace(digits, labels=None)
    with pytest.raises(la.LalibError, match="a classifier needs labels: give an ImageSet with labels, or a pair"):
        _fit(la.CNNClassifier(SHAPE, 10), bare)
    with pytest.raises(la.LalibError, match="accuracy needs labels: give an ImageSet with labels, or labels="):
        la.accuracy(la.CNNClassifier(SHAPE, 10), bare)
    several = dataclasses.replace(digits, labels=torch.nn.functional.one_hot(digits.labels, 10))
    with pytest.raises(la.LalibError, match=r"multi_label=False needs labels \(B,\), one label per image; got shape"):
        _fit(la.CNNClassifier(SHAPE, 10), several)
    with pytest.raises(ValueError, match=r"labels must have shape \(500,\), one per point, got \(500, 10\)"):
        la.accuracy(la.CNNClassifier(SHAPE, 10), several)


def test_labels_outside_the_classes(digits):
    with pytest.raises(ValueError, match="labels must lie in 0 to 4, got 0 to 9"):
        _fit(la.CNNClassifier(SHAPE, 5), digits)
    with pytest.raises(ValueError, match="labels must lie in 0 to 4, got 0 to 9"):
        _fit(la.models.EncoderClassifier(la.CAE(SHAPE), 5), digits)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: la.CNNClassifier(SHAPE, 2, network="wide"), ValueError, "network must be one of .*, got 'wide'"),
        (lambda: la.CNNClassifier(SHAPE, 0), ValueError, "n_classes must be at least 1, got 0"),
        (lambda: la.MLPClassifier(2, 1.5), TypeError, "n_classes must be a whole number, got 1.5"),
        (lambda: la.MLPClassifier(0, 2), ValueError, "latent_dim must be at least 1, got 0"),
        (lambda: la.models.EncoderClassifier(la.CAE(SHAPE), 0), ValueError, "n_classes must be at least 1, got 0"),
        (
            lambda: la.models.EncoderClassifier(la.CAE(SHAPE), 2, mode="ice"),
            ValueError,
            "mode must be one of 'frozen', 'fine-",
        ),
        (
            lambda: la.models.EncoderClassifier(la.CAE(SHAPE), 2, trunk_rate=-1),
            ValueError,
            "trunk_rate must be at least 0",
        ),
    ],
)
def test_bad_options(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_images_of_another_shape(digits):
    for classifier in (la.CNNClassifier((1, 28, 28), 10), la.models.EncoderClassifier(la.CAE((1, 28, 28)), 10)):
        with pytest.raises(ValueError, match=r"the model takes images of shape \(1, 28, 28\), got \(1, 8, 8\)"):
            la.predict_proba(classifier, digits)


# What a query strategy asks of a classifier


def _classifiers(digits):
    autoencoder = la.CAE(SHAPE, 10)
    return {
        "cnn": (la.CNNClassifier(SHAPE, 10), digits, 128),
        "residual": (la.CNNClassifier(SHAPE, 10, network="residual"), digits, 128),
        "mlp": (la.MLPClassifier(64, 10, hidden=(20, 30), dropout=0.2), _codes(digits), 30),
        "linear": (la.MLPClassifier(64, 10, hidden=()), _codes(digits), 64),
        "encoder": (la.models.EncoderClassifier(autoencoder, 10), digits, 128),
        "resnet": (la.models.ResNetClassifier(SHAPE, 10), digits, 512),
    }


def test_features_are_the_inputs_of_the_last_layer(digits):
    few = digits.subset(range(20))
    for name, (classifier, _, size) in _classifiers(few).items():
        inputs = _codes(few) if name in ("mlp", "linear") else few
        features = in_blocks(classifier, classifier.features, check_inputs(classifier, inputs))
        probs = la.predict_proba(classifier, inputs)
        assert features.shape == (20, size), name
        last = [m for m in classifier.modules() if isinstance(m, torch.nn.Linear)][-1]
        assert torch.allclose(torch.softmax(last(features), dim=1), probs, atol=1e-5), name
        assert classifier.training, name


def test_hidden_blocks_in_order(digits):
    x = digits.images[:4].float() / 255
    shapes = {
        "cnn": [(4, 16, 8, 8), (4, 32, 4, 4), (4, 128)],
        "residual": [(4, 32, 8, 8), (4, 64, 4, 4), (4, 64, 2, 2), (4, 128, 2, 2), (4, 128, 1, 1)],
        "encoder": [(4, 16, 4, 4), (4, 32, 2, 2), (4, 512), (4, 512), (4, 128)],
        "resnet": [(4, 64, 2, 2), (4, 128, 1, 1), (4, 256, 1, 1), (4, 512, 1, 1)],
    }
    for name, (classifier, _, _) in _classifiers(digits).items():
        if name in shapes:
            assert [tuple(block.shape) for block in classifier.activations(x)[0]] == shapes[name], name


def test_mc_dropout_draws_and_leaves_everything_as_it_was(digits):
    classifier, few = la.CNNClassifier(SHAPE, 10), digits.subset(range(30))
    state = torch.get_rng_state()
    probs_T_N_C = la.models.classifiers.mc_dropout_proba(classifier.eval(), few, 4, seed=1)
    assert probs_T_N_C.shape == (4, 30, 10)
    assert torch.allclose(probs_T_N_C.sum(2), torch.ones(4, 30))
    assert torch.equal(probs_T_N_C, la.models.classifiers.mc_dropout_proba(classifier, few, 4, seed=1))
    assert not torch.equal(probs_T_N_C[0], probs_T_N_C[1])
    assert torch.equal(la.predict_proba(classifier, few), la.predict_proba(classifier, few))
    assert not any(module.training for module in classifier.modules())
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(la.LalibError, match="MC-dropout needs a classifier with dropout, got a MLPClassifier"):
        la.models.classifiers.mc_dropout_proba(la.MLPClassifier(64, 10), _codes(few))


def test_several_classes_per_image(digits):
    labels = torch.stack([digits.labels % 2, digits.labels // 5, (digits.labels == 3).long()], dim=1)
    several = dataclasses.replace(digits, labels=labels, class_names=("odd", "high", "three"))
    classifier = la.CNNClassifier(SHAPE, 3, multi_label=True)
    history = _fit(classifier, several, epochs=15)
    probs = la.predict_proba(classifier, several)
    assert la.accuracy(classifier, several) == pytest.approx(float(((probs > 0.5) == labels.bool()).float().mean()))
    assert la.accuracy(classifier, several) > 0.85
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    x, y = several.images[:7].float() / 255, labels[:7].float()
    p = torch.sigmoid(classifier.eval()(x)).detach()
    by_hand = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert classifier.loss(Batch(x, labels[:7]), generator=None)["loss"].item() == pytest.approx(
        float(by_hand), rel=1e-4
    )
    with pytest.raises(ValueError, match=r"labels must have shape \(500, 3\), got \(500,\)"):
        _fit(classifier, digits)
    with pytest.raises(la.LalibError, match=r"multi_label=True needs labels \(B, C\)"):
        classifier.loss(Batch(x, digits.labels[:7]), generator=None)


def test_several_classes_per_code(digits):
    labels = torch.stack([digits.labels % 2, digits.labels // 5], dim=1)
    classifier = la.MLPClassifier(64, 2, multi_label=True)
    _fit(classifier, (_codes(digits), labels), epochs=5)
    assert la.accuracy(classifier, _codes(digits), labels) > 0.8
    shape = r"labels must have shape \(500, 2\), got \("
    for bad, message in ((labels[:, :1], shape), (labels[:9], shape), (labels + 1, "must be 0 or 1, got 1 to 2")):
        with pytest.raises(ValueError, match=message):
            _fit(classifier, (_codes(digits), bad))


# ResNet-18


def test_resnet_reads_weights_from_a_file(tmp_path):
    from torchvision.models import resnet18

    given = resnet18(num_classes=7)
    torch.save(given.state_dict(), tmp_path / "mine.pth")
    classifier = la.models.ResNetClassifier((1, 28, 28), 3, weights=tmp_path / "mine.pth", seed=0)
    assert classifier.origin == "mine.pth"
    assert torch.equal(classifier.network[0].weight, given.conv1.weight)
    other = la.models.ResNetClassifier((1, 28, 28), 3, seed=0)
    assert other.origin == "drawn at random"
    assert not torch.equal(other.network[0].weight, given.conv1.weight)


def test_resnet_is_torchvisions():
    classifier = la.models.ResNetClassifier((3, 64, 64), 5, seed=0).eval()
    from torchvision.models import resnet18

    stages = dict(
        zip(
            ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
            classifier.network[:8],
            strict=True,
        )
    )
    net = resnet18(num_classes=5).eval()
    for name, stage in stages.items():
        getattr(net, name).load_state_dict(stage.state_dict())
    net.fc.load_state_dict(classifier.network[-1].state_dict())
    x = torch.rand(2, 3, 64, 64, generator=generator(0, "x"))
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = net((x - mean[:, None, None]) / spread[:, None, None])
    assert torch.allclose(classifier(x), expected, atol=1e-5)


@pytest.mark.parametrize("content", [b"", b"nonsense", None, {"conv1.weight": torch.zeros(1)}])
def test_resnet_refuses_weights_that_do_not_fit(content, tmp_path):
    path = tmp_path / "weights.pth"
    if isinstance(content, dict):
        torch.save(content, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(
        la.LalibError, match=r"the weights .*weights\.pth' of ResNet-18 could not be had .*: give the path"
    ):
        la.models.ResNetClassifier(SHAPE, 3, weights=path)


@pytest.mark.parametrize(("n", "size", "sizes"), [(9, 4, [3, 3, 3]), (8, 4, [4, 4]), (3, 2, [3]), (5, 2, [3, 2])])
def test_resnet_trains_on_batches_of_almost_equal_sizes(n, size, sizes):
    classifier = la.models.ResNetClassifier((1, 28, 28), 3)
    batches = list(classifier.batches(n, size, generator=generator(0, "batches")))
    assert [len(batch) for batch in batches] == sizes
    assert torch.equal(torch.cat(batches), torch.randperm(n, generator=generator(0, "batches")))


@pytest.mark.parametrize(("n", "size"), [(1, 4), (4, 1)])
def test_batch_normalisation_needs_two(n, size):
    with pytest.raises(la.LalibError, match=f"batches of at least 2 images, got {n} images in batches of {size}"):
        list(la.models.ResNetClassifier((1, 28, 28), 3).batches(n, size, generator=generator(0, "batches")))
