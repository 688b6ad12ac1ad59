"""The loop with a person: what is asked, learnt and measured follows from the file of answers alone."""

import math

import pytest
import torch

import lalib as la
from lalib.data.imageset import ImageSet
from lalib.experiments import task_models, tasks
from lalib.labelling.answers import now

TASK = la.Task(steps=40)


@pytest.fixture(scope="module")
def digits():
    """300 digits with a copy of the first ten; their labels are known to the person only."""
    digits = la.load("digits").subset([*range(300), *range(10)])
    return digits, digits.images.flatten(1).float() / 255


@pytest.fixture
def start(digits, tmp_path):
    """Begins, or after a crash goes on: a new loop on the file."""
    images, codes = digits

    def start(order=None, **options):
        index = range(len(images)) if order is None else order
        store = la.LabelStore(tmp_path / "labels.sqlite", images.class_names, labeller="me")
        options = {"held_out": 60, "task": TASK, "device": "cpu"} | options
        bare = la.from_arrays(images.images[index])
        return la.LabellingLoop(bare, codes[index], store, **options)

    return start


def answer(loop, index, digits, unsure=()):
    """All at once, which spares the disk; the labels are right."""
    images, _ = digits
    said = []
    for i in index.tolist():
        kind, name = ("unsure", None) if i in unsure else ("class", images.class_names[images.labels[i]])
        said.append(la.labelling.Answer("me", now(), images.hashes[i], kind, name))
    loop.store.add(said)


def labelled(start, digits, answers=30):
    """A loop whose held-out part has labels, and so many of the pool; the first of these are not sure."""
    loop = start()
    answer(loop, loop.held_out, digits, unsure=loop.held_out[:5])
    answer(loop, asked := loop.ask("typiclust", answers), digits, unsure=asked[:4])
    return loop


def test_the_held_out_part_knows_neither_order_nor_names_nor_copies(start, digits):
    images, _ = digits
    loop = start()
    hashes = [images.hashes[i] for i in (*loop.held_out, *loop.pool)]
    assert (len(loop.held_out), len(loop.pool)) == (60, 240)
    assert sorted(hashes) == sorted(set(images.hashes))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    mixed = start(order=order)
    assert [images.hashes[i] for i in order[mixed.held_out]] == hashes[:60]
    fewer = start(order=torch.arange(250))  # of those drawn, the ones that are still there stay
    assert len(set(hashes[:60]) - {images.hashes[i] for i in fewer.held_out}) == int((loop.held_out >= 250).sum())
    assert start(seed=1).held_out.tolist() != loop.held_out.tolist()


def test_the_held_out_part_is_drawn_at_random(start, digits):
    """Over 60 seeds every image is held out about as often: chi-square below its 99.9 % quantile."""
    held_out = torch.cat([start(seed=seed).held_out for seed in range(60)])
    count = torch.bincount(held_out, minlength=300)[:300].double()
    assert float(((count - 12) ** 2 / (12 * 0.8)).sum()) < 380  # 299 degrees of freedom


def test_what_is_asked(start, digits):
    loop = labelled(start, digits)
    asked = loop.ask("uncertainty-herding", 45)
    assert len(asked) == len(asked.unique()) == 15
    answered = {*loop.store.answers()}
    assert answered.isdisjoint(digits[0].hashes[i] for i in asked)  # not sure is an answer, held-out ones are answered
    assert torch.isin(asked, loop.pool).all()
    assert loop.ask("uncertainty-herding", 30).shape == (0,)
    loop.store.skip(digits[0].hashes[asked[0]])
    assert len(loop.ask("random", 45)) == 15  # skipped is not answered


@pytest.mark.parametrize("strategy", ["random", "typiclust", "margin", "uncertainty-herding"])
def test_after_a_crash_it_goes_on_where_it_was(start, digits, strategy):
    """In the middle of a round, a new loop on the file asks for what the old one would: as many as are missing."""
    loop = labelled(start, digits)
    first = loop.ask(strategy, 40)
    answer(loop, first[:4], digits)
    again = start()
    rest = again.ask(strategy, 40)
    assert len(rest) == 6
    assert rest.tolist() == loop.ask(strategy, 40).tolist()
    assert not torch.isin(rest, first[:4]).any()
    assert again.train(20).accuracy == loop.train(20).accuracy


def test_what_is_learnt_and_measured(start, digits):
    """The same as training on the labels by hand, and Wilson's formula."""
    images, codes = digits
    loop = labelled(start, digits)
    known = torch.tensor([images.hashes.index(h) for h, a in loop.store.answers().items() if a.kind == "class"])
    index, tested = known[torch.isin(known, loop.pool)], known[torch.isin(known, loop.held_out)]
    snapshot = loop.train()
    assert (snapshot.answers, snapshot.labels, snapshot.tested) == (30, 26, 55)
    data = la.experiments.TaskData(codes, ImageSet(images.images, None, images.class_names, ""), TASK)
    model = task_models.train(data, index, images.labels[index], seed=0, device="cpu")
    assert torch.allclose(snapshot.probs, model.probs(), atol=1e-5)
    p, n, z = la.experiments.evaluate(model, codes[tested], images.labels[tested])["accuracy"], 55, 1.959964
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    share = 1 + z * z / n
    assert snapshot.accuracy == pytest.approx(p)
    assert (snapshot.low, snapshot.high) == pytest.approx(((centre - half) / share, (centre + half) / share), abs=1e-6)
    assert str(snapshot).startswith(f"26 labels: {p:.1%} of 55 held-out images right (95 % interval ")
    two = snapshot.probs[snapshot.doubtful].topk(2, dim=1).values
    assert ((two[:, 0] - two[:, 1]).diff() >= 0).all()
    assert sorted(snapshot.doubtful.tolist()) == sorted({*loop.pool.tolist()} - {*loop.answered[0].tolist()})


def test_earlier_rounds_can_be_read_from_the_file(start, digits):
    """train(answers) later is what train() was when there were so many answers."""
    loop = labelled(start, digits, answers=20)
    then = loop.train()
    answer(loop, loop.ask("margin", 40), digits)
    later = loop.train(20)
    assert torch.equal(later.probs, then.probs)
    assert (later.labels, later.accuracy) == (then.labels, then.accuracy)
    assert loop.train().labels == 36


def test_tasks_on_pixels_and_on_unlabelled_images(start, digits):
    labelled(start, digits)
    for model in ("cnn", "fixmatch"):
        loop = start(task=la.Task(model=model, steps=3))
        assert loop.train().probs.shape == (310, 10)
        assert len(loop.ask("margin", 32)) == 2


def test_codes_of_the_round(start, digits):
    """Where the task trains an encoder in every round, all strategies see its codes, once there are labels."""
    plain = labelled(start, digits)
    encoder = tasks.RoundEncoder(latent_dim=2, epochs=1)
    loop = start(task=la.Task(model="cnn", steps=1, encoder=encoder))
    assert loop.ask("typiclust", 40).tolist() != plain.ask("typiclust", 40).tolist()


def test_too_early(start, digits):
    loop = start()
    with pytest.raises(la.LalibError, match=r"'margin' needs labels, and the pool has none yet: begin with a strategy"):
        loop.ask("margin", 10)
    answer(loop, loop.held_out[:1], digits)
    with pytest.raises(la.LalibError, match="none of the pool's 0 answers is a class"):
        loop.train()


def test_bad_arguments(start, digits):
    with pytest.raises(ValueError, match="held_out must be at most 299, got 300"):
        start(held_out=300)
    loop = labelled(start, digits)
    with pytest.raises(ValueError, match="answers must be at most 240, got 241"):
        loop.ask("random", 241)
    with pytest.raises(la.LalibError, match="31 images of the pool are to be learnt from, 30 have an answer yet"):
        loop.train(31)
    with pytest.raises(ValueError, match="answers must be at least 1, got 0"):
        loop.train(0)
    with pytest.raises(ValueError, match=r"strategy must be one of .* Did you mean 'margin'"):
        loop.ask("margins", 40)
    with pytest.raises(ValueError, match="typiclust has no option 'size'"):
        loop.ask("typiclust", 40, size=3)
