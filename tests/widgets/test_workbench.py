"""The page without a browser: what comes next follows from images and answers alone, and is said in words."""

import csv
from datetime import UTC, datetime, timedelta

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from ipywidgets.widgets import widget as widget_module
from safetensors import SafetensorError

import lalib as la
from lalib.labelling import Answer
from lalib.widgets.colouring import COLOURED, coloured
from lalib.widgets.labeller import NONE
from lalib.widgets.plot import Plot
from lalib.widgets.sayings import pace

COUNT, HELD, STEP = 120, 24, 19  # digits; held-out ones, a fifth; of a pool of 96, a fifth is asked for at a time
TASK = la.Task(steps=40)


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(COUNT))


@pytest.fixture
def store(digits, tmp_path):
    return la.LabelStore(tmp_path / "labels.sqlite", digits.class_names, labeller="me")


@pytest.fixture
def opened(digits, store):
    """Opens the page, once more as well."""

    def opened(labeller="me"):
        own = la.LabelStore(store.path, labeller=labeller)
        images = la.from_arrays(digits.images)
        return la.widgets.Workbench(images, {"pixels": digits.images.flatten(1) / 255}, own, task=TASK, device="cpu")

    return opened


def press(bench):
    """The button that does what comes next; its words from then on."""
    bench.controls["next"].click()
    return bench.controls["next"].description


def say(bench, digits, label=None, most=COUNT):
    """Answer what the labeller shows and has no answer: the truth, or `label` for all."""
    for place, image in enumerate(bench.labeller.index.tolist()[:most]):
        if bench.labeller.answers[place] == NONE:
            bench.labeller.answer(place, int(digits.labels[image]) if label is None else label)


def answer(store, digits, index):
    """The truth, all at once, as if it had been given in the labeller."""
    start = datetime.now(UTC) - timedelta(hours=1)
    said = [(digits.hashes[i], digits.class_names[digits.labels[i]]) for i in index]
    times = ((start + timedelta(seconds=n)).isoformat() for n in range(len(said)))
    store.add(Answer("me", time, image, "class", name) for time, (image, name) in zip(times, said, strict=True))


def words(bench):
    return [step.description for step in bench.steps.values()]


def shown_on(bench):
    return [part for part in bench.bench.children if part.layout.display is None]


def test_from_images_to_the_result(opened, digits, store, monkeypatch):
    bench = opened()
    assert words(bench) == ["1 Images: 120 ✓", "2 Yardstick: 0 of 24", "3 Rounds: 0 answers", "4 Result: not yet"]
    assert "24 of them left (about 1 minute)" in bench.sentence.value
    assert shown_on(bench) == [bench.sheet]  # pictures at once
    assert press(bench) == "Go on labelling"
    assert bench.labeller.index.tolist() == bench.loop.held_out.tolist()
    focused = []
    monkeypatch.setattr(bench.controls["next"], "focus", lambda: focused.append(words(bench)[1]))
    say(bench, digits)
    assert focused == ["2 Yardstick: 24 of 24 ✓"]  # the keys are the button's once all is answered
    for round_ in (1, 2):
        assert bench.controls["next"].description == f"Choose {STEP} and label"
        press(bench)
        known = {*store.answers()}
        assert not known & {digits.hashes[i] for i in bench.labeller.index}
        say(bench, digits)
        assert bench.controls["next"].description == "Learn"
        press(bench)
        assert len(bench.curve) == round_
        assert bench.curve[-1].labels == round_ * STEP
    now = bench.curve[-1]
    assert words(bench)[2] == f"3 Rounds: 38 labels, {now.accuracy:.0%} ({100 * now.low:.0f} to {100 * now.high:.0f})"
    (curve,) = bench.plot.figure.data
    assert curve.y.tolist() == [100 * each.accuracy for each in bench.curve]
    assert (curve.y + curve.error_y.array).tolist() == pytest.approx([100 * each.high for each in bench.curve])

    before, after = (each.probs.argmax(1) for each in bench.curve)
    held = bench.loop.held_out
    truth = digits.labels[held]
    right = [(each[held] == truth).tolist() for each in (before, after)]
    gained, lost = right.count, None
    gained = sum(b and not a for a, b in zip(*right, strict=True))
    lost = sum(a and not b for a, b in zip(*right, strict=True))
    assert f"{gained} of these newly right, {lost} newly wrong" in bench.news.value
    assert f"the prediction of {int((before != after).sum())} images changed" in bench.news.value
    assert bench.loop.advice().reason in bench.news.value

    bench.steps["result"].click()
    assert words(bench)[3] == "4 Result: written"
    with open(bench.out / "predictions.csv", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == COUNT
    assert sum(row["labelled_by"] == "me" for row in rows) == HELD + 2 * STEP
    store.put(digits.hashes[int(bench.loop.pool[0])], 0)
    again = opened()
    assert words(again)[3] == "4 Result: older than your last answers"


def test_who_comes_back_goes_on_there(opened, digits, store):
    first = opened()
    answer(store, digits, first.loop.held_out.tolist())
    first.refresh()
    press(first)
    say(first, digits, most=7)  # and the kernel is gone
    second = opened()
    assert second.controls["next"].description == "Learn"
    press(second)
    assert second.curve[-1].labels == 7
    assert second.controls["next"].description == f"Choose {STEP - 7} and label"  # what is missing for a round
    press(second)
    assert not {*second.labeller.index.tolist()} & {*first.labeller.index.tolist()[:7]}


def test_two_pages_on_one_file(opened, digits, store):
    first, second = opened(), opened()
    press(first)
    press(second)
    say(first, digits, most=10)
    second.refresh()
    assert second.labeller.answers.count(NONE) == HELD - 10
    assert words(second)[1] == "2 Yardstick: 10 of 24"
    say(second, digits)
    first.refresh()
    assert words(first)[1] == "2 Yardstick: 24 of 24 ✓"
    assert len(store.answers()) == HELD == len(store.history())


def test_a_corrected_answer_is_learnt_anew(opened, digits, store):
    bench = opened()
    answer(store, digits, [*bench.loop.held_out.tolist(), *bench.loop.pool[:40].tolist()])
    bench.refresh()
    press(bench)
    assert bench.controls["next"].description.startswith("Choose")
    wrong = int(bench.loop.pool[5])
    store.put(digits.hashes[wrong], int(digits.labels[wrong] + 1) % 10)
    bench.refresh()
    assert bench.controls["next"].description == "Learn"
    bench.controls["more"].value = "look again at doubtful answers"
    assert wrong in bench.labeller.index.tolist()
    assert f"image {wrong}</td><td>{(digits.labels[wrong] + 1) % 10}</td>" in bench.place.children[0].value
    bench.controls["more"].value = "find and correct answers"
    assert int(bench.labeller.index[0]) == wrong  # the latest first
    assert len(bench.labeller.index) == HELD + 40


def test_what_another_person_says_is_looked_at_again(opened, digits, store):
    bench = opened()
    answer(store, digits, [*bench.loop.held_out.tolist(), *bench.loop.pool[:40].tolist()])
    anna = la.LabelStore(store.path, labeller="<b>anna")
    image = int(bench.loop.pool[3])
    anna.put(digits.hashes[image], int(digits.labels[image] + 1) % 10)
    bench.controls["more"].value = "look again at doubtful answers"
    assert image in bench.labeller.index.tolist()
    assert "&lt;b&gt;anna: " in bench.place.children[0].value


def test_the_map_selects_but_not_from_the_yardstick(opened, digits):
    bench = opened()
    chosen = [*bench.loop.pool[:3].tolist(), int(bench.loop.held_out[0])]
    bench.map.select(torch.tensor(chosen))
    assert bench.chosen.tolist() == sorted(chosen[:3])
    assert bench.controls["next"].description == "Label these 3 images"
    assert shown_on(bench) == [bench.sheet]
    press(bench)
    assert bench.labeller.index.tolist() == sorted(chosen[:3])
    assert shown_on(bench) == [bench.labeller]
    assert not len(bench.map.selection)
    for image in chosen[:2]:
        bench.map.cursor = bench.points[image].tolist()
        bench.map._handle_custom_msg("choose", [])  # Enter
    assert bench.map.selection.tolist() == sorted(chosen[:2])


@pytest.mark.parametrize("learnt", [False, True])
def test_the_map_knows(opened, digits, store, learnt):
    bench = opened()
    held, pool = bench.loop.held_out.tolist(), bench.loop.pool[:30].tolist()
    answer(store, digits, held + pool)
    store.unsure(digits.hashes[held[0]])
    bench.refresh()
    if learnt:
        press(bench)
    shown = {}
    for what in COLOURED:
        bench.controls["colour by"].value = what
        groups = coloured(what, bench.loop, bench.curve[-1] if learnt else None)
        shown[what] = [groups.names[g] for g in groups.index]
        assert f"{shown[what][0]} " in bench.legend.value
        assert len(set(groups.colours)) == len(groups.colours)
    mine = [digits.class_names[digits.labels[i]] if i in held + pool else "no answer" for i in range(COUNT)]
    mine[held[0]] = "not sure"
    assert shown["my answers"] == mine
    numbers = {image: f"round {1 + place // STEP}" for place, image in enumerate(pool)}
    asked = [numbers.get(i, "yardstick" if i in held else "not asked") for i in range(COUNT)]
    assert shown["round"] == asked
    if not learnt:
        assert {*shown["predicted class"], *shown["how sure"]} == {"nothing is learnt yet"}
        return
    probs = bench.curve[-1].probs.numpy()
    assert shown["predicted class"] == [digits.class_names[c] for c in probs.argmax(1)]
    lowest = {"below 50 %": 0, "50 to 70 %": 0.5, "70 to 90 %": 0.7, "90 to 99 %": 0.9, "99 to 100 %": 0.99}
    assert (probs.max(1) >= np.array([lowest[name] for name in shown["how sure"]])).all()
    right = [("wrong", "right")[int(digits.labels[i] == probs[i].argmax())] for i in held[1:]]
    assert [shown["error on the yardstick"][i] for i in held[1:]] == right
    assert shown["error on the yardstick"][held[0]] == "not on the yardstick"


def test_the_menu_marks_the_recommended_strategy_and_keeps_ones_own(opened, digits, store):
    bench = opened()
    menu = bench.controls["strategy"]
    assert (f"{bench.loop.recommended} (recommended)", menu.value) in menu.options
    assert [name for _, name in menu.options] == bench.loop.allowed
    answer(store, digits, bench.loop.pool[:60].tolist())
    bench.refresh()
    assert menu.value == bench.loop.recommended == "uncertainty-herding"  # it goes with the stage
    menu.value = "margin"
    bench.refresh()
    assert menu.value == "margin"


def test_the_pace_is_the_median_without_pauses(store, digits):
    assert pace(store) == 3
    moment, gaps = datetime.now(UTC) - timedelta(hours=9), [2, 4, 3600, 5, 3, 4, 9000, 30]
    for image, gap in zip(digits.hashes, [0, *gaps], strict=False):
        moment += timedelta(seconds=gap)
        store.add([Answer("me", moment.isoformat(), image, "class", "3")])
    assert pace(store) == pytest.approx(float(np.median([2, 4, 5, 3, 4, 30])))


def test_troubles_are_said(opened, digits, store):
    bench = opened()
    bench.steps["result"].click()
    assert bench.sentence.value.splitlines()[0].startswith("there is nothing to learn from")
    press(bench)
    say(bench, digits, label=4)
    press(bench)
    say(bench, digits, label=4)  # all of one class
    press(bench)
    assert bench.controls["next"].description.startswith("Choose")
    assert "100%" in words(bench)[2]
    for image in bench.loop.held_out.tolist():
        store.unsure(digits.hashes[image])
    press(bench)
    bench.refresh()
    bench.steps["rounds"].click()
    assert "cannot be said yet" in bench.news.value  # a yardstick without a class
    store.path.rename(store.path.with_name("elsewhere"))
    bench.refresh()
    assert "cannot be opened" in bench.sentence.value


def test_all_not_sure_is_said(opened, digits, store):
    bench = opened()
    answer(store, digits, bench.loop.held_out.tolist())
    for image in bench.loop.pool[:STEP].tolist():
        store.unsure([digits.hashes[image]])
    bench.refresh()
    assert press(bench) != "Learn"  # which has been done
    assert bench.news.value


def test_answers_to_other_images_are_told(opened, store, digits):
    store.put("0" * 64, 3)
    assert opened().sentence.value.startswith("1 answer by me in ")
    store.put(digits.hashes[0], 3)
    assert not opened().sentence.value.startswith("1 answer")


def test_near_copies_are_folded_in_a_round_but_not_on_the_yardstick(opened, store, digits):
    bench = opened()
    bench.copies = torch.arange(COUNT) // 2, torch.full((COUNT,), 0.1)  # every two images, as if they were alike
    bench.measure()
    assert bench.labeller.index.tolist() == bench.loop.held_out.tolist()
    answer(store, digits, bench.loop.held_out.tolist())
    bench.choose()
    shown = bench.labeller.index
    assert len(shown) == len(bench.loop.ask(bench.value("strategy"), STEP).div(2, rounding_mode="floor").unique())
    assert len(bench.labeller.copied) == len(shown)
    assert all("; its nearest copy is at 10% of the usual distance" in each for each in bench.labeller.captions[-3:])
    captions = bench.labeller.captions
    store.add_class("ten")  # the labeller is made anew
    bench.refresh()
    assert bench.labeller.classes[-1] == "ten"
    assert bench.labeller.captions == captions


def test_classes_are_added_and_renamed_here_and_on_another_page(opened, store, digits):
    bench = opened()
    answer(store, digits, [*bench.loop.held_out.tolist(), *bench.loop.pool[:STEP].tolist()])
    bench.refresh()
    press(bench)
    assert bench.curve[-1].probs.shape == (COUNT, 10)
    bench.label(bench.loop.held_out, "the yardstick")
    bench.controls["more"].value = "add or rename a class"
    menu, name, save, said = bench.place.children[0].children
    assert [label for label, _ in menu.options] == ["a new one", *digits.class_names]
    name.value = "ten"
    save.click()
    assert said.value.endswith("8, 9, ten.")
    assert bench.labeller.classes == [*digits.class_names, "ten"]
    assert bench.controls["next"].description == "Learn"  # all answers, with the new class
    press(bench)
    assert bench.curve[-1].probs.shape == (COUNT, 11)
    save.click()
    assert "class name" in bench.sentence.value  # none was given
    menu.value, name.value = "9", "nine"
    save.click()
    assert menu.options[-2:] == (("nine", "nine"), ("ten", "ten"))
    store.rename_class("0", "zero")  # another page
    store.add_class("eleven")
    store.put(digits.hashes[bench.labeller.index[0]], "eleven")
    bench.refresh()
    assert bench.labeller.classes == ["zero", *digits.class_names[1:9], "nine", "ten", "eleven"]
    assert bench.labeller.answers[0] == 11
    held = [int(i) for i in bench.labeller.index]
    menu.value, name.value = "0", "null"  # which is "zero" by now
    save.click()
    assert bench.sentence.value.startswith("old must be one of 'zero', ")
    assert (menu.label, [label for label, _ in menu.options]) == ("a new one", ["a new one", *store.class_names])
    assert [bench.labeller.answers[p] for p in range(1, 5)] == [int(digits.labels[i]) for i in held[1:5]]


def test_an_undo_goes_on_when_another_page_has_added_a_class(opened, store, digits):
    bench, replies = opened(), []
    bench.measure()
    bench.labeller.answer(0, "3")
    store.add_class("ten")
    for _ in range(2):  # the first one is refused: the labeller does not know the class, and is made anew
        bench.labeller.send = lambda reply, _: replies.append(reply["kind"])
        bench.labeller._handle_custom_msg({"kind": "undo", "count": 1, "number": 1}, [])
    assert replies == ["refused", "undone"]
    assert bench.labeller.classes == [*digits.class_names, "ten"]
    assert not store.answers()


def test_what_has_left_the_page_leaves_nothing_behind(opened):
    bench, counts, plot = opened(), [], Plot(go.Figure())
    for _ in range(3):
        bench.measure()
        for more in ("choose by hand", "two strategies side by side", "nothing"):
            bench.controls["more"].value = more
        counts.append(len(widget_module._instances))  # all that are open in this process
    assert counts[0] == counts[1] == counts[2]
    assert plot.library.comm is not None  # all plots of a page share it


@pytest.mark.parametrize("error", [RuntimeError("not enough memory"), SafetensorError("No space left on device")])
def test_what_others_cannot_do_is_said(error, opened, digits, store, monkeypatch):
    bench = opened()

    def ask(*_):
        raise error

    monkeypatch.setattr(bench.loop, "ask", ask)
    bench.steps["rounds"].click()
    assert bench.sentence.value.startswith(f"{error}.\n")


def test_other_codes_are_taken_over_with_what_was_answered(opened, digits, store):
    bench = opened()
    bench.wait("The codes are being made.")
    answer(store, digits, bench.loop.held_out.tolist())
    bench.refresh()
    assert bench.controls["next"].disabled
    held = bench.loop.held_out.tolist()
    codes = torch.randn(COUNT, 5, generator=torch.Generator().manual_seed(0))
    bench.use({"better": codes})
    assert bench.loop.held_out.tolist() == held
    assert not bench.controls["next"].disabled
    view = codes[:, :2] + 1
    bench.show_view(view)
    assert torch.equal(bench.points, view)
    with pytest.raises(ValueError, match="codes must be those of the 120 images, got 7 rows"):
        bench.use({"other": codes[:7]})
    bench.controls["more"].value = "two strategies side by side"
    (box,) = bench.place.children
    go, explorer = box.children
    explorer.controls["n"].value = 7
    assert go.description == "Label these 7 images"
    go.click()
    assert bench.labeller.index.tolist() == explorer.selection.tolist()
    bench.use({"later": codes})
    bench.show_view(view)
    assert bench.place.children == (box,)  # nobody's work is closed because the codes are ready
    bench.controls["more"].value = "choose by hand"
    go, explorer = bench.place.children[0].children
    explorer.controls["images"].value = "3, 5-6"
    go.click()
    assert bench.labeller.index.tolist() == [3, 5, 6]
