"""What the labeller does with the messages of its front end; test_browser_labelling.py presses the keys."""

import pytest
import torch

import lalib as la
from lalib.widgets.labeller import KEYS, NONE, SKIP, UNSURE

CLASSES = ["cat", "dog", "eel"]


@pytest.fixture
def images():
    """Eight different images and a copy of the first."""
    images = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 1, 8, 9) * 30
    return la.from_arrays(torch.cat([images, images[:1]]))


@pytest.fixture
def store(tmp_path):
    return la.LabelStore(tmp_path / "labels.sqlite", CLASSES, labeller="me")


class Front:
    """Sends what labeller.js sends, and keeps what it is told."""

    def __init__(self, labeller):
        self.labeller, self.told, self.number = labeller, [], 0
        labeller.send = self.hear

    def hear(self, reply, buffers):
        self.told.append(reply)
        self.buffers = buffers

    def say(self, kind, **more):
        self.number += 1
        self.labeller._hear(self.labeller, {"kind": kind, "number": self.number, **more}, [])
        reply = self.told[-1]
        assert reply["number"] == self.number
        return reply

    def answer(self, image, answer):
        return self.say("answer", images=[image], answer=answer)


def test_answers_are_in_the_store_when_the_page_is_told(images, store):
    front = Front(labeller := la.widgets.Labeller(images, store, [2, 0, 5]))
    assert labeller.classes == CLASSES
    assert labeller.shortcuts == ["1", "2", "3"]
    assert len(labeller.pictures) == 3
    assert labeller.captions[0] == "number 2 of the pool"
    for place, given in enumerate((1, UNSURE, SKIP)):
        assert front.answer(place, given)["kind"] == "saved"
    assert labeller.answers == [1, UNSURE, SKIP]
    assert store.labels(images).tolist() == [-1, -1, 1, -1, -1, -1, -1, -1, -1]
    assert str(store.progress(images.subset([2, 0, 5]))) == "1 of 3 labelled, 1 not sure, 1 skipped, 0 left"
    assert labeller.remaining.tolist() == [5]


def test_it_goes_on_where_it_was(images, store):
    Front(la.widgets.Labeller(images, store, [0, 1])).answer(0, 2)
    again = la.widgets.Labeller(images, la.LabelStore(store.path, labeller="me"), [1, 0])
    assert again.answers == [NONE, 2]
    other = la.widgets.Labeller(images, la.LabelStore(store.path, labeller="somebody else"), [1, 0])
    assert other.answers == [NONE, NONE]


def test_undo_goes_back_into_earlier_sessions(images, store):
    first = Front(la.widgets.Labeller(images, store, [0, 1]))
    first.answer(0, 0)
    first.answer(0, 1)
    front = Front(labeller := la.widgets.Labeller(images, store, [1, 0]))
    assert front.say("undo", count=1) == {"kind": "undone", "images": [1], "answers": [0], "number": 1}
    assert front.say("undo", count=1) == {"kind": "undone", "images": [1], "answers": [NONE], "number": 2}
    assert labeller.answers == [NONE, NONE]
    refused = front.say("undo", count=1)
    assert refused["kind"] == "refused"
    assert "'me' has no answer" in refused["why"]


def test_undo_of_an_image_that_is_not_shown_is_said(images, store):
    store.put(images.hashes[7], "eel")
    front = Front(la.widgets.Labeller(images, store, [0]))
    refused = front.say("undo", count=1)
    assert refused["kind"] == "refused"
    assert "to an image not shown here" in refused["why"]
    assert store.answers() == {}


def test_what_cannot_be_saved_is_told_and_stays_unanswered(images, store):
    heard = []
    labeller = la.widgets.Labeller(images, store, [0, 1], on_answer=lambda *given: heard.append(given))
    front = Front(labeller)
    front.answer(0, 1)
    store.path.write_bytes(b"no database" * 100)
    refused = front.answer(0, 2)
    assert (refused["kind"], refused["answers"]) == ("refused", [1])
    assert str(store.path) in refused["why"]
    assert labeller.answers == [1, NONE]
    assert [(image, answer.class_name) for image, answer in heard] == [(0, "dog")]


def test_suggestions_are_computed_when_they_are_asked_for(images, store):
    asked = []

    def probs(index):
        asked.append(index.tolist())
        return torch.tensor([[0.1, 0.7, 0.2]])

    front = Front(la.widgets.Labeller(images, store, [3, 4], probs=probs))
    front.answer(0, 1)
    assert asked == []
    said = front.say("suggest", image=1)
    assert asked == [[4]]
    assert said["text"] == "The model says dog (70%), then eel (20%)."
    table = torch.eye(3)[torch.arange(9) % 3]
    assert (
        "says eel (100%)" in Front(la.widgets.Labeller(images, store, [5], probs=table)).say("suggest", image=0)["text"]
    )
    assert not la.widgets.Labeller(images, store, [5]).suggests


def test_copies_are_shown_once(images, store):
    labeller = la.widgets.Labeller(images, store, [8, 0, 1, 1], view="sheet")
    assert labeller.index.tolist() == [8, 1]
    assert labeller.sheet == 25


def test_more_classes_than_keys(images, tmp_path):
    names = [f"class {c}" for c in range(len(KEYS) + 2)]
    labeller = la.widgets.Labeller(images, la.LabelStore(tmp_path / "many.sqlite", names, labeller="me"), [0])
    assert len(set(KEYS)) == len(KEYS)
    assert not set(KEYS) & set("uszvm")
    assert labeller.shortcuts == [*KEYS, "", ""]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [0, 1]}, r"groups must be one number per image, \(9,\), got \(2,\)"),
        ({"index": [9]}, r"index must lie in 0 to 8"),
        ({"view": "cinema"}, "view must be one of 'single', 'sheet', got 'cinema'"),
        ({"probs": torch.ones(9, 2)}, r"probs must have shape \(9, 3\), one column per class, got \(9, 2\)"),
    ],
)
def test_bad_input(images, store, options, message):
    with pytest.raises(ValueError, match=message):
        la.widgets.Labeller(images, store, **({"index": [0]} | options))
