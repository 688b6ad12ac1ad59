"""Labels go with the names of their classes wherever two sets meet."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lalib as la
from lalib.data.files import tensor_digest
from lalib.models.classifiers import LossPredictor
from lalib.models.networks import UNKNOWN
from lalib.training import checkpoints
from lalib.training.generation import GenerativeAugmentation

NAMES = ("boot", "coat", "shirt")
SHAPE = (1, 8, 8)


def _images(labels, names=NAMES):
    """Each class is a bright band of rows of its own."""
    labels = torch.as_tensor(labels)
    images = torch.randint(0, 60, (len(labels), *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 2 * ("boot", "coat", "shirt", "hat").index(names[label])] = 255
    return la.ImageSet(images, labels, names, "bands")


TRAIN = _images(torch.arange(60) % 3)
FEWER = _images([0, 1, 1, 0], ("boot", "shirt"))  # a test folder without coats
TURNED = _images(torch.arange(30) % 3, ("shirt", "boot", "coat"))
FOREIGN = _images([0, 1], ("boot", "hat"))


def _fit(model, data, **options):
    return la.fit(model, data, **{"epochs": 30, "learning_rate": 1e-2, "device": "cpu", "progress": False, **options})


@pytest.fixture(scope="module")
def trained():
    model = la.CNNClassifier(SHAPE, 3, dropout=0.0)
    assert model.class_names == ()
    _fit(model, TRAIN)
    return model


def test_accuracy_matches_classes_by_name(trained):
    assert trained.class_names == NAMES
    assert [la.accuracy(trained, images) for images in (TRAIN, FEWER, TURNED)] == [1, 1, 1]
    assert la.accuracy(trained, FEWER, FEWER.labels) == 1  # a set's labels, given beside it
    assert la.accuracy(trained, FEWER.images, 2 * FEWER.labels) == 1  # plain labels stay as they are
    with pytest.raises(ValueError, match="classes must be among 'boot', 'coat', 'shirt', got 'hat'"):
        la.accuracy(trained, FOREIGN)
    assert la.accuracy(trained, FOREIGN.subset([0])) == 1  # what does not occur may be called as it likes


def test_validation_matches_classes_by_name():
    history = _fit(la.CNNClassifier(SHAPE, 3, dropout=0.0), TRAIN, validation=FEWER)
    assert history.epochs[history.best_epoch - 1]["val_accuracy"] == 1
    model = la.CNNClassifier(SHAPE, 3)
    with pytest.raises(ValueError, match="classes must be among 'boot', 'coat', 'shirt', got 'hat'"):
        _fit(model, TRAIN, validation=FOREIGN)
    assert model.class_names == ()


@pytest.mark.parametrize("given", [False, True], ids=["set", "pair"])
def test_a_set_in_another_order_trains_on_what_was_learned(trained, given):
    """As the same images with their classes in the model's order."""
    sorted_labels = la.data.door.renumbered(TURNED.labels, TURNED.class_names, NAMES)
    same = dataclasses.replace(TURNED, labels=sorted_labels, class_names=NAMES)
    models = [la.CNNClassifier(SHAPE, 3, dropout=0.0) for _ in range(2)]
    for model, images in zip(models, (TURNED, same), strict=True):
        model.load_state_dict(trained.state_dict())
        model.remember(NAMES)
        _fit(model, (images, images.labels) if given else images, epochs=2)
        assert model.class_names == NAMES
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_a_class_without_a_name_takes_that_of_a_later_set():
    model = la.CNNClassifier(SHAPE, 3, dropout=0.0)
    _fit(model, FEWER, epochs=1)
    assert model.class_names == ("boot", "shirt")
    _fit(model, TRAIN)
    assert model.class_names == ("boot", "shirt", "coat")
    assert la.accuracy(model, TRAIN) == la.accuracy(model, TURNED) == 1
    with pytest.raises(ValueError, match="classes must be among 'boot', 'shirt', 'coat', got 'hat'"):
        _fit(model, FOREIGN)


def test_several_classes_per_image():
    several = dataclasses.replace(TRAIN, labels=torch.eye(3, dtype=torch.int64)[TRAIN.labels])
    turned = dataclasses.replace(several, labels=several.labels[:, [2, 0, 1]], class_names=("shirt", "boot", "coat"))
    fewer = dataclasses.replace(FEWER, labels=torch.eye(2, dtype=torch.int64)[FEWER.labels])
    model = la.CNNClassifier(SHAPE, 3, dropout=0.0, multi_label=True)
    _fit(model, several)
    assert [la.accuracy(model, images) for images in (several, turned, fewer)] == [1, 1, 1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: la.M2(SHAPE, 3, latent_dim=2, preset="dense"),
        lambda: la.models.FixMatch(SHAPE, 3, width=4),
        lambda: la.models.ClassPriorVAE(SHAPE, 3),
        lambda: la.models.ConditionalVAE(SHAPE, 3),
        lambda: la.models.TAVAAL(LossPredictor(la.CNNClassifier(SHAPE, 3), TRAIN.images[:1], detach_after=1), 2),
        lambda: la.models.EncoderClassifier(la.CAE(SHAPE), 3),
    ],
    ids=["M2", "FixMatch", "ClassPriorVAE", "ConditionalVAE", "TAVAAL", "EncoderClassifier"],
)
def test_every_model_that_learns_from_labels_remembers_their_names(make):
    """And learns the same from a set whose classes are in another order."""
    models = [make(), make()]
    partial = TURNED.labels.clone()
    if models[0].partly_labelled:
        partial[20:] = UNKNOWN
    same = dataclasses.replace(TURNED, labels=None, class_names=NAMES)
    moved = la.data.door.renumbered(partial, TURNED.class_names, NAMES)
    for model, pair in zip(models, ((TURNED, partial), (same, moved)), strict=True):
        model.remember(NAMES)
        _fit(model, pair, epochs=1)
        known = [part.class_names for part in model.modules() if getattr(part, "n_classes", None)]
        assert set(known) == {NAMES}
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))


def test_a_model_takes_the_names_of_the_classifier_that_it_is_built_on(trained):
    assert la.M2(SHAPE, 3, classifier=trained).class_names == NAMES
    predictor = LossPredictor(trained, TRAIN.images[:1], detach_after=1)
    assert predictor.class_names == la.models.TAVAAL(predictor, 2).class_names == NAMES


def test_a_model_that_learns_from_no_labels_has_no_names():
    model = la.CAE(SHAPE)
    _fit(model, TRAIN, epochs=1)
    assert model.class_names == ()


def test_generated_images_keep_the_classes_of_the_images_they_come_from():
    """The generator of an earlier round met the classes in another order."""
    wish = GenerativeAugmentation(per_label=1, epochs=1, later_epochs=1, latent_dim=2)
    last = wish.generate(TRAIN, torch.arange(30), TRAIN.labels[:30], seed=0, device="cpu").model
    turned = dataclasses.replace(TRAIN, labels=(TRAIN.labels + 1) % 3, class_names=("shirt", "boot", "coat"))
    here, there = (
        wish.generate(images, torch.arange(30), images.labels[:30], last=last, seed=0, round=1, device="cpu")
        for images in (TRAIN, turned)
    )
    assert torch.equal(here.images, there.images)
    assert torch.equal(there.labels, turned.labels[:30])


def test_files_hold_the_names(trained, tmp_path):
    la.save(trained, tmp_path / "model")
    loaded = la.load_model(tmp_path / "model")
    assert loaded.class_names == NAMES
    assert la.accuracy(loaded, FEWER) == 1
    run = tmp_path / "run"
    _fit(la.CNNClassifier(SHAPE, 3), TRAIN, epochs=1, checkpoint=run)
    assert la.load_model(run).class_names == NAMES
    other = dataclasses.replace(TRAIN, class_names=("boot", "coat", "hat"))
    with pytest.raises(
        la.LalibError, match=r"its class_names is \['boot', 'coat', 'shirt'\], here \['boot', 'coat', 'h"
    ):
        _fit(la.CNNClassifier(SHAPE, 3), other, epochs=2, checkpoint=run, resume=True)


def test_files_without_names_load_and_resume(tmp_path):
    path, whole, model = tmp_path / "run", la.CNNClassifier(SHAPE, 3), la.CNNClassifier(SHAPE, 3)
    _fit(whole, TRAIN, epochs=2)
    _fit(la.CNNClassifier(SHAPE, 3), TRAIN, epochs=1, checkpoint=path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["header"])
    del header["class_names"]
    tensors, text = load_file(path), json.dumps(header)
    metadata = {"format": checkpoints.FORMAT, "header": text, "sha256": tensor_digest(tensors, text)}
    save_file(tensors, path, metadata=metadata)
    assert la.load_model(path).class_names == ()
    _fit(model, TRAIN, epochs=2, checkpoint=path, resume=True)
    assert model.class_names == NAMES
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))
