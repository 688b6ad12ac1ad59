"""The contrastive encoder: loss by hand, training, codes better than pixels, saving, transfer, what it refuses."""

import math

import pytest
import torch

import lalib as la
from lalib.data.seeds import generator
from lalib.models.autoencoders import MODELS
from lalib.models.contrastive import ENCODERS, ContrastiveEncoder
from lalib.models.losses import nt_xent
from lalib.models.networks import Batch
from lalib.models.views import CLOTHES, RandomViews

SHAPE = (1, 8, 8)
VIEWS = {"shift": 0.08, "rotation": 10, "scale": 0.1, "shear": 0.1}  # of 8 x 8 digits little may be lost


@pytest.fixture(scope="module")
def digits():
    return la.load("digits")


@pytest.fixture(scope="module")
def trained(digits):
    model = ContrastiveEncoder(SHAPE, 16, views=VIEWS)
    la.fit(model, digits, epochs=5, device="cpu", progress=False)
    return model


def _state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 33, 20), (3, 32, 32)], ids=str)
@pytest.mark.parametrize("width", [3, 16])
def test_codes_of_any_shape_have_length_1_and_do_not_depend_on_the_batch(shape, width):
    model, x = ContrastiveEncoder(shape, 5, width=width), torch.rand(6, *shape, generator=generator(1))
    for training in (True, False):
        z = model.train(training).encode(x)
        assert z.shape == (6, 5)
        assert torch.allclose(z.norm(dim=1), torch.ones(6))
        assert torch.allclose(model.encode(x[:1]), z[:1], atol=1e-6)
    assert model.image_shape == shape
    assert model.latent_dim == 5


def test_the_loss_by_hand(digits):
    model, x = ContrastiveEncoder(SHAPE, 6, temperature=0.7), digits.images[:40].float() / 255
    came = model.loss(Batch(x), generator=generator(0))
    rng = generator(0)
    views = [model.views(x, generator=rng) for _ in range(2)]
    raw = model.head(model.trunk(torch.cat(views)))
    both = model.projection(raw / raw.norm(dim=1, keepdim=True))
    assert set(came) == {"loss"}
    assert came["loss"].item() == pytest.approx(nt_xent(both[:40], both[40:], 0.7).item(), rel=1e-5)
    assert not torch.equal(*views)


def test_every_weight_learns(digits):
    model = ContrastiveEncoder(SHAPE, 6)
    model.loss(Batch(digits.images[:40].float() / 255), generator=generator(0))["loss"].backward()
    for name, weight in model.named_parameters():
        assert weight.grad.abs().max() > 1e-6, name


def test_training_makes_neighbours_of_a_class():
    """A minute's training goes below 4 %; here 6 seconds have to tell a few labels apart better than pixels do."""
    images, test = la.load("mnist-mini").subset(range(0, 4000, 4)), la.load("mnist-mini", split="test")
    model = ContrastiveEncoder(images.image_shape, 16, width=8, views={"elastic": 0.04}, batch_size=128)
    losses = la.fit(model, images, epochs=15, device="cpu", progress=False).frame()["loss"]
    assert losses.iloc[-1] < losses.iloc[0] - 0.5
    few = torch.randperm(len(images), generator=generator(0))[:50]

    def error(represent):
        codes, test_codes = (represent(part).cpu() for part in (images, test))
        return la.one_nn_error(codes[few], images.labels[few], test_codes, test.labels)

    assert error(lambda part: la.encode(model, part)) < error(lambda part: part.images.flatten(1).float()) - 0.08


def test_fit_repeats_bit_for_bit_and_resumes(digits, tmp_path):
    few = digits.subset(range(300))

    def train(epochs, checkpoint=None, seed=0):
        model = ContrastiveEncoder(SHAPE, 4, batch_size=64)
        files = {} if checkpoint is None else {"checkpoint": checkpoint, "resume": True}
        la.fit(model, few, epochs=epochs, seed=seed, device="cpu", progress=False, **files)
        return _state(model)

    unbroken = train(3)
    assert _equal(train(3), unbroken)
    assert not _equal(train(3, seed=1), unbroken)
    train(2, tmp_path / "run")
    assert _equal(train(3, tmp_path / "run"), unbroken)
    assert _equal(_state(la.load_model(tmp_path / "run")), unbroken)


def test_validation_and_labels_are_taken_as_by_other_models(digits):
    train, held_out = la.stratified_split(digits, 0.3, seed=0)
    model = ContrastiveEncoder(SHAPE, 4)
    history = la.fit(model, train, epochs=2, validation=held_out, device="cpu", progress=False)
    assert history.frame()["val_loss"].notna().all()
    unlabelled = la.from_arrays(train.images.numpy())
    without = ContrastiveEncoder(SHAPE, 4)
    la.fit(without, unlabelled, epochs=2, validation=held_out, device="cpu", progress=False)
    assert _equal(_state(model), _state(without))


def test_views_are_taken_by_name_and_no_default_mirrors_a_digit():
    assert not ContrastiveEncoder(SHAPE).views.flip
    model = ContrastiveEncoder(SHAPE, views=CLOTHES)
    assert model.views == RandomViews(**CLOTHES)
    assert model.views.flip
    assert model.views.shear < ContrastiveEncoder(SHAPE).views.shear


@pytest.mark.parametrize(("n", "size", "sizes"), [(100, 30, [25] * 4), (7, 256, [7]), (9, 2, [2, 2, 2, 2, 1])])
def test_batches_visit_each_image_once_and_are_of_almost_equal_sizes(n, size, sizes):
    model = ContrastiveEncoder(SHAPE)
    batches = list(model.batches(n, size, generator=generator(0)))
    assert [len(index) for index in batches] == sizes
    assert sorted(torch.cat(batches).tolist()) == list(range(n))
    again, other = (torch.cat(list(model.batches(n, size, generator=generator(seed)))) for seed in (0, 1))
    assert torch.equal(torch.cat(batches), again)
    assert not torch.equal(again, other)


def test_one_image_has_nothing_to_be_told_from():
    terms = ContrastiveEncoder(SHAPE).loss(Batch(torch.rand(1, *SHAPE)), generator=generator(0))
    assert terms["loss"].item() == 0


def test_identical_and_empty_images_give_finite_losses():
    model = ContrastiveEncoder((3, 9, 13), 4)
    for x in (torch.zeros(8, 3, 9, 13), torch.ones(8, 3, 9, 13)):
        loss = model.loss(Batch(x), generator=generator(0))["loss"]
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_save_and_load(trained, digits, tmp_path):
    la.save(trained, tmp_path / "model")
    loaded = la.load_model(tmp_path / "model")
    assert type(loaded) is ContrastiveEncoder
    assert loaded.config == trained.config
    assert loaded.views == trained.views
    assert torch.equal(la.encode(loaded, digits), la.encode(trained, digits))
    assert list(ENCODERS) == [*MODELS, "ConditionalVAE", "ContrastiveEncoder"]


def test_config_rebuilds_the_model():
    model = ContrastiveEncoder(
        (3, 9, 13), 7, width=5, temperature=0.2, views={"flip": True, "crop": 0.3}, batch_size=64, seed=0
    )
    again = ContrastiveEncoder(**model.config)
    assert again.config == model.config
    assert again.views.flip
    assert again.views.crop == 0.3
    assert _equal(_state(again), _state(model))
    assert not _equal(_state(ContrastiveEncoder(**model.config, seed=1)), _state(model))


def test_weights_leave_the_global_stream_alone():
    before = torch.get_rng_state()
    ContrastiveEncoder(SHAPE)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["frozen", "fine-tuned", "scratch"])
def test_its_trunk_serves_a_classifier(mode, trained, digits):
    few = digits.subset(range(60))
    classifier = la.models.EncoderClassifier(trained, 10, mode=mode, dropout=0.0)
    la.fit(classifier, few, epochs=10, device="cpu", progress=False)
    assert la.accuracy(classifier, few) > 0.5
    assert _equal(_state(classifier.trunk), _state(trained.trunk)) == (mode == "frozen")


def test_codes_on_either_device(device):
    model, x = ContrastiveEncoder((3, 12, 12), 4), torch.rand(8, 3, 12, 12, generator=generator(1))
    expected = model.encode(x)
    moved = model.to(device)
    assert torch.allclose(moved.encode(x.to(device)).cpu(), expected, atol=1e-4)
    images = la.from_arrays((x * 255).byte().numpy())
    la.fit(moved, images, epochs=2, device=device, progress=False)
    assert moved.loss(Batch(x.to(device)), generator=generator(0, device=device))["loss"].device.type == device


def test_the_loss_under_autocast_is_near_that_in_full_precision(device, digits):
    model, x = ContrastiveEncoder(SHAPE).to(device), (digits.images[:40].float() / 255).to(device)
    expected = model.loss(Batch(x), generator=generator(0))["loss"].item()
    with torch.autocast(device, torch.bfloat16):
        came = model.loss(Batch(x), generator=generator(0))["loss"]
    assert came.dtype == torch.float32
    assert came.item() == pytest.approx(expected, rel=0.01)


def test_there_is_no_decoder(trained, digits):
    codes = la.encode(trained, digits)
    for call in (
        lambda: la.decode(trained, codes),
        lambda: la.codes.reconstruct(trained, digits),
        lambda: la.reconstruction_errors(trained, digits),
    ):
        with pytest.raises(TypeError, match="a ContrastiveEncoder has no decoder"):
            call()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_shape": (1, 7, 28)}, ValueError, r"image_shape must be \(C, H, W\) .* at least 8, got \(1, 7, 28\)"),
        ({"latent_dim": 1}, ValueError, "latent_dim must be at least 2, got 1"),
        ({"width": 0}, ValueError, "width must be at least 1, got 0"),
        ({"temperature": 0}, ValueError, "temperature must be at least 0.01, got 0"),
        ({"temperature": math.nan}, ValueError, "temperature must be finite, got nan"),
        ({"batch_size": 1}, ValueError, "batch_size must be at least 2, got 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"views": {"turn": 3}}, ValueError, "views has no option 'turn'; its options are: 'shift', 'rotation'"),
        ({"views": {"shift": -1}}, ValueError, "shift must be at least 0, got -1"),
        ({"views": ["flip"]}, TypeError, r"views must be strengths by name, such as \{'flip': True\}, got \['flip'\]"),
        ({"preset": "light"}, TypeError, "preset"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        ContrastiveEncoder(**{"image_shape": SHAPE, **options})


def test_images_of_another_shape_are_refused(trained):
    with pytest.raises(ValueError, match=r"the model takes images of shape \(1, 8, 8\), got \(1, 28, 28\)"):
        la.encode(trained, la.load("mnist-mini").subset(range(4)))
