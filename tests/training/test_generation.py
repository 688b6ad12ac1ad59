"""Generated training images: how they are drawn, from which labelled ones, and that a task is trained on them."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

import lalib as la
from lalib.data.seeds import generator
from lalib.experiments.comparison import _task_config
from lalib.experiments.task_models import train
from lalib.experiments.tasks import Task, TaskData
from lalib.strategies.uncertainty import mutual_information
from lalib.training.generation import GenerativeAugmentation, ImageGenerator

FEW = GenerativeAugmentation(per_label=3, epochs=2, later_epochs=1, latent_dim=4)
QUICK = {"model": "cnn", "steps": 12}


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(120))


def _data(images, generated=FEW, **options):
    codes = images.images.flatten(1).float() / 255
    return TaskData(codes, images, Task(**{**QUICK, "generated": generated, **options}))


def _train(data, labels, n=40, **options):
    index = torch.arange(n)
    return train(data, index, labels[index], **{"seed": 0, "device": "cpu", **options})


def _weights(model):
    return torch.cat([value.flatten().float() for value in model.state_dict().values()])


def test_variations_by_hand(digits):
    model, n, noise = ImageGenerator(digits.image_shape, 10, 4, preset="dense", seed=0), 7, 2.5
    x, y = digits.images[:n], digits.labels[:n]
    model.train()
    made = model.variations(x, y, noise=noise, seed=3)
    assert model.training
    with torch.no_grad():
        one_hot = torch.eye(10)[y]
        scale, shift = model.film(one_hot).chunk(2, dim=1)
        both = model.eval().head(model.trunk(x.float() / 255) * (1 + scale) + shift).double().numpy()
        step = torch.randn(n, 4, generator=generator(3, "variations")).double().numpy()
        z = both[:, :4] + noise * np.sqrt(np.exp(both[:, 4:])) * step
        logits = model.decoder(torch.cat([torch.from_numpy(z).float(), one_hot], dim=1)).double().numpy()
    expected = 255 / (1 + np.exp(-logits))
    assert made.dtype == torch.uint8
    assert made.shape == x.shape
    assert np.abs(made.numpy() - expected).max() <= 0.51
    assert torch.equal(model.variations(x, y, noise=0, seed=1), model.variations(x, y, noise=0, seed=2))
    assert not torch.equal(made, model.variations(x, y, noise=noise, seed=4))


def test_the_generator_sees_labelled_images_in_every_step(digits):
    model = ImageGenerator(digits.image_shape, 10, 2, preset="dense")
    model.prepare(digits.images, la.models.partly_labelled(120, torch.arange(5), digits.labels[:5]))
    batches = list(model.batches(120, 30, generator=generator(0)))
    assert all(sorted(batch[:5].tolist()) == list(range(5)) for batch in batches)
    assert sorted(torch.cat([batch[5:] for batch in batches]).tolist()) == list(range(5, 120))


def test_mutual_information_by_hand():
    p_T_M_C = np.random.default_rng(0).dirichlet(np.ones(4), size=(3, 5))
    expected = entropy(p_T_M_C.mean(0), axis=-1) - entropy(p_T_M_C, axis=-1).mean(0)
    assert np.allclose(mutual_information(torch.from_numpy(p_T_M_C)).numpy(), expected)


@pytest.mark.parametrize(
    ("share", "information", "chosen"),
    [
        (1.0, None, [0, 1, 2, 3, 0, 1, 2, 3]),
        (0.5, None, [0, 1, 2, 3, 0, 1, 2, 3]),  # nobody to ask yet
        (0.5, [0.1, 0.7, 0.2, 0.9], [3, 1, 3, 1, 3, 1, 3, 1]),
        (0.6, [0.1, 0.7, 0.2, 0.9], [3, 1, 2, 3, 1, 2, 3, 1]),
        (0.0, [0.5, 0.5, 0.5, 0.5], [0] * 8),
    ],
)
def test_which_labelled_images_are_generated_from(share, information, chosen):
    wish = GenerativeAugmentation(per_label=2, share=share)
    given = None if information is None else torch.tensor(information)
    assert wish.sources(given, 4).tolist() == chosen


def test_a_task_is_trained_on_labelled_and_generated_images(digits):
    data = _data(digits)
    state = _train(data, digits.labels)
    made = state.generated
    assert made.index.tolist() == list(range(40)) * 3
    assert torch.equal(made.labels, digits.labels[made.index])
    given = data.labelled(state.index, state.labels, made)
    assert torch.equal(given.images, torch.cat([digits.images[:40], made.images]))
    assert torch.equal(given.labels, torch.cat([digits.labels[:40], made.labels]))
    by_hand = data.classifier(0)
    la.fit(by_hand, given, epochs=math.ceil(12 / math.ceil(160 / 32)), seed=0, device="cpu", progress=False)
    assert torch.equal(_weights(by_hand), _weights(state.classifier))
    assert len(state.index) == len(state.labels) == 40  # what was bought
    for name in ("mc_probs", "predicted_losses", "predicted_losses_with_codes"):
        assert torch.isfinite(state.sources()[name]()).all()


def test_the_least_known_of_the_labelled_images_by_the_last_rounds_models(digits):
    data = _data(digits, dataclasses.replace(FEW, share=0.25, passes=3))
    first = _train(data, digits.labels)
    second = _train(data, digits.labels, 60, round=1, last=first)
    p_T_M_C = first.mc_probs(passes=3)[:, :60].double().numpy()
    information = entropy(p_T_M_C.mean(0), axis=-1) - entropy(p_T_M_C, axis=-1).mean(0)
    assert len(first.generated.index.unique()) == 40
    assert set(second.generated.index.tolist()) == set(np.argsort(-information)[:15].tolist())
    assert second.generated.index.bincount().max() == 180 / 15


def test_the_generator_goes_on_and_leaves_that_of_the_last_round(digits):
    data = _data(digits)
    first, again = (_train(data, digits.labels) for _ in range(2))
    assert torch.equal(first.generated.images, again.generated.images)
    before = _weights(first.generated.model)
    second = _train(data, digits.labels, 60, round=1, last=first)
    assert torch.equal(_weights(first.generated.model), before)
    by_hand = ImageGenerator(digits.image_shape, 10, 4, preset="dense")
    by_hand.load_state_dict(first.generated.model.state_dict())
    partial = la.models.partly_labelled(120, torch.arange(60), digits.labels[:60])
    seed = la.data.seeds.child_seed(0, "generator", 1)
    la.fit(by_hand, (digits, partial), epochs=1, learning_rate=3e-3, seed=seed, device="cpu", progress=False)
    assert torch.equal(_weights(by_hand), _weights(second.generated.model))
    assert not torch.equal(_train(data, digits.labels, seed=1).generated.images, first.generated.images)


def test_a_class_without_labels_is_legal(digits):
    index = (digits.labels != 3).nonzero().squeeze(1)
    state = train(_data(digits), index, digits.labels[index], seed=0, device="cpu")
    assert 3 not in state.generated.labels


def test_compare_with_generated_images(digits, tmp_path):
    """Alike for every strategy until these have bought other labels; and every default is part of the run's name."""
    task = Task(**QUICK, generated=dataclasses.replace(FEW, share=0.5))
    settings = {"strategies": ["random", "bald"], "initial": 20, "step": 10, "rounds": 1, "seeds": 1}
    table = la.compare(digits, digits, task=task, out=tmp_path, device="cpu", progress=False, **settings)
    assert table["labels"].tolist() == [20, 30, 20, 30]
    assert table.query("labels == 20")["accuracy"].nunique() == 1
    assert _task_config(task)["generated"] == dataclasses.asdict(FEW) | {"share": 0.5}
    assert _task_config(Task(**QUICK))["generated"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_label": 0}, "per_label must be at least 1, got 0"),
        ({"share": 1.5}, "share must be at most 1, got 1.5"),
        ({"noise": -1.0}, "noise must be at least 0, got -1"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"preset": "dens"}, "Did you mean 'dense'?"),
    ],
)
def test_what_cannot_be_generated(options, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        GenerativeAugmentation(**options)


@pytest.mark.parametrize("model", ["mlp", "m1m2", "m2", "fixmatch", "m2-vaal"])
def test_tasks_that_take_no_generated_images(model):
    message = f"labelled images alone on pixels, 'cnn' and 'resnet18', got '{model}'"
    with pytest.raises(ValueError, match=message):
        Task(model=model, generated=FEW)


def test_a_task_takes_no_options_by_name():
    with pytest.raises(TypeError, match="generated must be a GenerativeAugmentation, got dict"):
        Task(model="cnn", generated={})


def test_several_labels_per_image_are_refused(digits):
    several = dataclasses.replace(digits, labels=torch.eye(10, dtype=torch.int64)[digits.labels])
    with pytest.raises(la.LalibError, match="generated images need one label per image; these images may have several"):
        _data(several)
