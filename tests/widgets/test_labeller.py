"""What the labeller does with the messages of its front end; test_browser_labelling.py presses the keys."""

import io
import re
import shutil

import pytest
import torch
from odd_files import RGB, saved
from PIL import Image

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


def test_nothing_to_label(images, store):
    labeller = la.widgets.Labeller(images, store, torch.empty(0, dtype=torch.int64))
    assert labeller.pictures == labeller.answers == []
    assert labeller.remaining.dtype == labeller.index.dtype == torch.int64
    assert len(labeller.remaining) == len(labeller.index) == 0


def test_answers_from_python_are_those_of_keys(images, store):
    heard = []
    labeller = la.widgets.Labeller(images, store, [2, 0, 5], on_answer=lambda *given: heard.append(given))
    for place, label in enumerate(("eel", 0, None)):
        labeller.answer(place, label)
    assert labeller.answers == [2, 0, UNSURE]
    given = store.answers()
    assert [given[images.hashes[i]][3:] for i in (2, 0, 5)] == [("class", "eel"), ("class", "cat"), ("unsure", None)]
    assert [(i, answer.kind) for i, answer in heard] == [(2, "class"), (0, "class"), (5, "unsure")]
    for place, label, message in [(3, 0, "place must be"), (0, 3, "label must be"), (0, "cow", "got 'cow'")]:
        with pytest.raises(ValueError, match=message):
            labeller.answer(place, label)


def test_one_answer_for_several_is_undone_as_one(images, store):
    heard = []
    labeller = la.widgets.Labeller(images, store, [0, 1, 2, 3], on_answer=lambda *given: heard.append(given))
    front = Front(labeller)
    front.answer(2, 2)
    assert front.say("answer", images=[3, 0, 2], answer=1)["kind"] == "saved"
    assert labeller.answers == [1, NONE, 1, 1]
    assert store.labels(images).tolist()[:4] == [1, -1, 1, 1]
    assert [image for image, _ in heard] == [2, 3, 0, 2]
    undone = front.say("undo", count=3)
    assert dict(zip(undone["images"], undone["answers"], strict=True)) == {3: NONE, 0: NONE, 2: 2}
    assert labeller.answers == [NONE, NONE, 2, NONE]
    assert {answer.class_name for answer in store.answers().values()} == {"eel"}


def test_near_copies_are_folded_until_they_are_opened(images, store):
    """Groups of the whole pool; 8 is an exact copy of 0."""
    groups = torch.tensor([5, 1, 1, 2, 5, 5, 3, 1, 5])
    labeller = la.widgets.Labeller(images, store, [2, 3, 7, 0], groups=groups)
    assert labeller.index.tolist() == [2, 3, 0]  # 7 is a near copy of 2
    assert labeller.copied == [0, 2, 2, 0]
    assert labeller.captions[2:] == [
        f"number {i} of the pool" + "; exact copies: 1" * (i == 0) for i in (0, 1, 4, 5, 7)
    ]
    assert len(labeller.pictures) == len(labeller.answers) == 7
    front = Front(labeller)
    front.answer(0, 1)
    assert store.labels(images).tolist() == [-1, -1, 1, -1, -1, -1, -1, -1, -1]
    front.say("answer", images=[0, 3, 6], answer=2)  # as it is sent once they are open
    assert store.labels(images).tolist() == [-1, 2, 2, -1, -1, -1, -1, 2, -1]
    assert labeller.remaining.tolist() == [3, 0]


def test_what_near_duplicates_says_is_taken(images, store):
    """The nearest copies come first, and at most as many as fill a sheet."""
    near = torch.tensor([0.3, 0.1, 0.2, torch.inf, 0.0, 0.3, torch.inf, torch.inf, 0.3])
    group = torch.tensor([0, 0, 0, 3, 0, 0, 6, 7, 0])
    labeller = la.widgets.Labeller(images, store, [0, 3], groups=(group, near))
    assert [caption.partition("; ")[::2] for caption in labeller.captions[2:]] == [
        (f"number {i} of the pool", f"its nearest copy is at {far} of the usual distance")
        for i, far in ((4, "0%"), (1, "10%"), (2, "20%"), (5, "30%"))
    ]
    many = la.from_arrays(torch.randint(0, 256, (99, 1, 8, 8), dtype=torch.uint8))
    assert len(la.widgets.Labeller(many, store, [7], groups=torch.zeros(99)).pictures) == 25
    folded = la.widgets.Labeller(images, store, range(9), groups=la.codes.near_duplicates(images.images))
    assert len(folded.pictures) == 8


@pytest.fixture
def photos(tmp_path):
    """A folder of a JPEG, and of a PNG and a TIFF with the same pixels."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "a.jpg").write_bytes(saved(RGB, "JPEG"))
    (tmp_path / "photos" / "deep" / "b.png").write_bytes(saved(RGB, "PNG"))
    (tmp_path / "photos" / "c.tif").write_bytes(saved(RGB, "TIFF"))
    return tmp_path / "photos"


def test_the_file_itself_is_sent_when_it_is_asked_for(photos, store):
    images = la.from_folder(photos, size=8, labels="none")
    front = Front(labeller := la.widgets.Labeller(images, store, range(3)))
    assert labeller.whole
    assert labeller.captions == ["a.jpg", "c.tif; exact copies: 1"]  # c.tif has the pixels of deep/b.png
    told = front.say("file", image=0)
    assert (told["type"], told["note"]) == ("image/jpeg", "12 x 10 pixels")
    assert front.buffers == [(photos / "a.jpg").read_bytes()]
    assert front.say("file", image=1)["type"] == "image/jpeg"
    assert Image.open(io.BytesIO(front.buffers[0])).size == (12, 10)
    assert front.answer(0, 1)["kind"] == "saved"
    assert front.buffers is None
    assert not la.widgets.Labeller(la.from_arrays(images.images), store, [0]).whole


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (lambda file: file.unlink(), r"The file a.jpg is gone\. It is shown as it was read"),
        (lambda file: shutil.copy(file.with_name("c.tif"), file), r"The file a.jpg holds another image than when it"),
        (lambda file: file.write_bytes(b"text"), r"The file a.jpg cannot be read \(.*\)\. It is shown as it was read"),
    ],
)
def test_a_file_that_is_gone_or_changed_is_said(photos, store, trouble, message):
    images = la.from_folder(photos, size=8, labels="none")
    front = Front(la.widgets.Labeller(images, store, [0]))
    trouble(photos / "a.jpg")
    told = front.say("file", image=0)
    assert re.match(message, told["trouble"])
    assert "type" not in told
    assert front.buffers is None


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
