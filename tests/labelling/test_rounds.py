"""The loop with a person: what is asked, learnt and measured follows from the file of answers alone."""

import math

import pytest
import torch

import lalib as la
from lalib.data.imageset import ImageSet
from lalib.experiments import task_models, tasks
from lalib.labelling import rounds
from lalib.labelling.advice import advise
from lalib.labelling.answers import now
from lalib.strategies import run_strategy

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


def test_a_number_of_held_out_images_that_fits(start, digits):
    assert len(start(held_out=None).held_out) == 60  # a fifth of the 300 that differ
    assert start(held_out=None).step == 20
    few = start(held_out=None, order=range(11))
    assert (len(few.held_out), few.step) == (2, 1)
    many = la.load("digits")
    loop = la.LabellingLoop(many, torch.zeros(len(many), 1), few.store)
    assert (len(loop.held_out), loop.step) == (100, 20)


def test_accuracy_is_measured_as_one_goes(start, digits):
    """On what is answered in the order of drawing, so that it is a random sample; from 20 images with a class on."""
    loop = start()
    answer(loop, loop.ask("random", 10), digits)
    hashes = digits[0].hashes
    answer(loop, loop.held_out[:15], digits, unsure=loop.held_out[:2])
    answer(loop, loop.held_out[16:40], digits)
    assert loop.sample[0].tolist() == loop.held_out[:15].tolist()
    early = loop.train()
    assert (early.tested, math.isnan(early.accuracy), math.isnan(early.low)) == (13, True, True)
    assert str(early) == "10 labels: too few held-out images with a class to measure accuracy (13)"
    loop.store.skip(hashes[loop.held_out[15]])
    assert len(loop.sample[0]) == 15  # skipped is not answered
    answer(loop, loop.held_out[15:16], digits)
    index, labels = loop.sample
    assert index.tolist() == loop.held_out[:40].tolist()
    assert labels.tolist() == [-1, -1, *digits[0].labels[loop.held_out[2:40]].tolist()]
    now_ = loop.train()
    assert now_.tested == 38
    assert now_.accuracy == float((now_.probs[index[2:]].argmax(1) == labels[2:]).double().mean())
    small = start(held_out=4, seed=5)  # all that were drawn are a sample, however few
    answer(small, small.held_out, digits)
    assert small.train().tested == 4
    assert 0 <= small.train().accuracy <= 1


def test_what_a_stage_allows_and_recommends(start, digits):
    loop = start()
    assert loop.recommended == "typiclust"
    assert {*loop.allowed} == {*la.strategies.LABEL_FREE} - {"reconstruction-error"}
    answer(loop, loop.pool[:19], digits)
    assert loop.recommended == "typiclust"
    assert {"margin", "uncertainty-herding", "badge"} < {*loop.allowed}
    assert {"ta-vaal", "m2-vaal"}.isdisjoint(loop.allowed)
    answer(loop, loop.pool[19:20], digits)
    assert (loop.recommended, loop.step) == ("uncertainty-herding", 20)
    answer(loop, loop.pool[20:235], digits)
    assert loop.step == 5
    answer(loop, loop.pool[235:], digits)
    assert loop.step == 0
    assert len(loop.ask(loop.recommended, 240)) == 0
    other = start(seed=9)
    for image in other.store.answers():
        other.store.put(image, "3")
    assert other.recommended == "typiclust"  # all of one class


def test_the_curve_follows_the_answers(start, digits, monkeypatch):
    """A point per round, each learnt once and never out of date."""
    learnt, train = [], rounds.train
    monkeypatch.setattr(rounds, "train", lambda *given, **how: learnt.append(len(given[1])) or train(*given, **how))
    loop = start()
    assert loop.curve() == []
    answer(loop, loop.pool[:50], digits, unsure=loop.pool[:20])
    seen = []
    curve = loop.curve(lambda done, of: seen.append((done, of)))
    assert [each.answers for each in curve] == [40, 50]  # the first round was not sure of any
    assert (seen, learnt) == ([(1, 2), (2, 2)], [20, 30])
    assert torch.equal(curve[1].probs, loop.train().probs)
    assert len(loop.ask("margin", 55)) == 5
    assert [each.answers for each in loop.curve()] == [40, 50]
    assert learnt == [20, 30]
    answer(loop, loop.held_out, digits)
    assert loop.curve()[0].tested == 60  # measured anew without learning
    assert learnt == [20, 30]
    loop.store.put(digits[0].hashes[loop.pool[30]], (int(digits[0].labels[loop.pool[30]]) + 1) % 10)
    later = loop.curve()
    assert len(learnt) == 4
    fresh = start().curve()
    assert [each.labels for each in later] == [each.labels for each in fresh]
    assert all(torch.equal(a.probs, b.probs) for a, b in zip(later, fresh, strict=True))


def test_a_long_curve_has_few_points(start):
    loop = start()
    assert loop._points(45) == [20, 40, 45]
    assert loop._points(400) == [20, 40, 60, 80, 120, 160, 240, 300, 320, 340, 360, 380, 400]
    assert len(loop._points(10_000)) < 30


def test_asking_copies_no_pixels(start, digits, monkeypatch):
    loop = labelled(start, digits)
    monkeypatch.setattr(ImageSet, "subset", lambda self, index: pytest.fail("images were copied"))
    assert len(loop.ask("uncertainty-herding", 35)) == len(loop.ask("typiclust", 35)) == 5
    with pytest.raises(pytest.fail.Exception):
        loop.ask("vaal", 35, vae_epochs=1)  # which looks at them


def test_a_wide_pool_is_covered_in_part(start, digits, monkeypatch):
    loop = labelled(start, digits)
    whole = loop.ask("uncertainty-herding", 40).tolist()
    seen = []
    monkeypatch.setattr(rounds, "run_strategy", lambda *given, **how: seen.append(how) or run_strategy(*given, **how))
    monkeypatch.setattr(rounds, "WORK", 64 * 236 * 100)
    monkeypatch.setattr(rounds, "FEWEST", 50)
    loop.ask("uncertainty-herding", 40)
    loop.ask("uncertainty-herding", 40, reference=70)
    loop.ask("margin", 40)
    assert [how.get("reference") for how in seen] == [100, 70, None]
    monkeypatch.setattr(rounds, "WORK", 10**11)
    assert loop.ask("uncertainty-herding", 40).tolist() == whole


def test_advice(start, digits):
    """Too early; all of one class; and, where answers change nothing any more, that the next will not either."""
    loop = start()
    assert loop.advice().reason == "Too early to say: that takes 4 rounds of 20 answers, so far there are 0."
    images = digits[0]
    loop.store.add([la.labelling.Answer("me", now(), images.hashes[i], "class", "3") for i in loop.pool[:80].tolist()])
    said = loop.advice()
    assert (said.stop, said.reason) == (False, "Go on: all answers so far name the same class.")


def test_advice_in_words():
    """As should_stop, which it asks; without accuracy by predictions alone."""
    steady = torch.arange(100).repeat(5, 1) % 4
    settled = advise(steady, [20, 40, 60, 80, 100], 5 * [math.nan], 20, 4, 9)
    assert (settled.stop, settled.kappa) == (True, 1)
    assert settled.reason.startswith("Another 20 labels will hardly help: of 100 images 0 are seen as another class")
    level = advise(steady, [20, 40, 60, 80, 100], [0.5, 0.7, 0.78, 0.79, 0.79], 20, 4, 9)
    found = la.results.should_stop(steady, [20, 40, 60, 80, 100], [0.5, 0.7, 0.78, 0.79, 0.79])
    assert (level.gain, level.high) == (found.gain, found.high)
    rising = advise(steady, [20, 40, 60, 80, 100], [0.1, 0.3, 0.4, 0.6, 0.8], 20, 4, 9)
    assert not rising.stop
    assert rising.reason.startswith("Go on: another 20 labels may be worth it: the curve promises ")
    moving = steady.clone()
    moving[4, :30] += 1
    moved = advise(moving, [20, 40, 60, 80, 100], 5 * [math.nan], 20, 5, 9)
    assert moved.reason.startswith("Go on: of 100 images 10 are seen as another class")
    assert not moved.stop
    assert advise(moving, [20, 40, 60, 80, 100], 5 * [math.nan], 20, 5, 0).reason == "Every image has an answer."
