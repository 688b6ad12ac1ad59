"""Where a store and images meet classes are matched by name; what people and files bring may come in any form."""

import json
import traceback
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lalib as la
from lalib.labelling.answers import now

N = 12
NAMES = ("ape", "Bär", "cat\u200cfish", "dog\u00a0rose")  # an accent, a zero-width joiner, a no-break space
MIXED = tuple(NAMES[c] for c in (2, 0, 3, 1))
MAC = [unicodedata.normalize("NFD", name) for name in NAMES]  # as a Mac writes names


@pytest.fixture
def images():
    pixels = torch.arange(N * 64).reshape(N, 1, 8, 8).to(torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(N)
    return la.ImageSet(pixels, torch.arange(N) % 4, NAMES, "made")


@pytest.fixture
def store(tmp_path, images):
    """The images' own classes as answers, in a store that has them in another order."""
    store = la.LabelStore(tmp_path / "labels.sqlite", MIXED, labeller="me")
    for image, label in zip(images.hashes[:8], images.labels[:8].tolist(), strict=True):
        store.put(image, NAMES[label])
    return store


def test_labels_are_numbered_as_the_images_are(store, images):
    assert store.labels(images)[:8].tolist() == images.labels[:8].tolist()
    assert store.labels(images)[8:].tolist() == [-1] * 4
    assert store.oracle(images)([5, 2]).tolist() == images.labels[[5, 2]].tolist()
    merged, disagreed = la.labelling.merge(store, images)
    assert merged.tolist() == store.labels(images).tolist()
    assert len(disagreed) == 0
    bare = la.ImageSet(images.images, None, (), "bare")
    assert [MIXED[c] for c in store.labels(bare)[:8]] == [NAMES[c] for c in images.labels[:8]]
    labelled = store.labelled(images)
    assert labelled.class_names == MIXED
    assert [MIXED[c] for c in labelled.labels] == [NAMES[c] for c in images.labels[:8]]


def test_a_class_that_the_images_lack_is_said(store, images):
    few = la.ImageSet(images.images, None, NAMES[:3], "few")
    with pytest.raises(ValueError, match=r"among the images' classes ape, Bär, .*, got 'dog\\xa0rose': store.labelled"):
        store.labels(few)
    with pytest.raises(ValueError, match="among the images' classes"):
        la.labelling.merge(store, few)
    assert store.labelled(few).class_names == MIXED
    assert len(la.LabelStore(store.path, labeller="you").labels(few)) == N  # no answer, nothing to be said


def test_a_loop_works_by_the_stores_names(store, images):
    for image, label in zip(images.hashes, images.labels.tolist(), strict=True):
        store.put(image, NAMES[label])
    codes = torch.eye(4)[images.labels] + 0.01 * torch.arange(N)[:, None]
    loop = la.LabellingLoop(images, codes, store, held_out=4, device="cpu")
    assert loop.answered[1].tolist() == [MIXED.index(NAMES[images.labels[i]]) for i in loop.answered[0]]
    snapshot = loop.train()
    truth = [MIXED.index(NAMES[c]) for c in images.labels]
    assert snapshot.probs[loop.pool].argmax(1).tolist() == [truth[i] for i in loop.pool]
    text = la.widgets.Labeller(images, store, [0], probs=snapshot.probs.numpy())._suggest({"image": 0})["text"]
    assert text.startswith(f"The model says {NAMES[images.labels[0]]} (")


def test_widgets_colour_by_the_name_of_the_class(store, images):
    codes = torch.rand(N, 2)
    explorer = la.widgets.latent_explorer(images, codes, labels=store.labels(images), store=store)
    groups = explorer.groups["class"]
    assert [groups.names[g] for g in groups.index[:8]] == [NAMES[c] for c in images.labels[:8]]
    bare = la.ImageSet(images.images, None, (), "bare")
    groups = la.widgets.latent_explorer(bare, codes, labels=store.labels(bare), store=store).groups["class"]
    assert [groups.names[g] for g in groups.index[:8]] == [NAMES[c] for c in images.labels[:8]]


@pytest.mark.parametrize("kind", [np.array, pd.Index, pd.Series, tuple])
def test_class_names_in_every_form(tmp_path, kind):
    store = la.LabelStore(tmp_path / "labels.sqlite", kind(MAC), labeller="me")
    assert store.class_names == NAMES
    assert la.LabelStore(store.path, kind(NAMES), labeller="me").class_names == NAMES
    assert la.labelling.label_studio_config(kind(MAC)) == la.labelling.label_studio_config(NAMES)


@pytest.mark.parametrize("name", ["a\u0007", "a\nb", "\u200ba", "a\u200c", " a", ""])
def test_names_that_nobody_sees_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="a class name must be text on one line"):
        la.LabelStore(tmp_path / "labels.sqlite", ["b", name], labeller="me")


def test_names_from_a_mac_are_the_same_names(tmp_path, store, images):
    me, mac = unicodedata.normalize("NFC", "Zoë"), unicodedata.normalize("NFD", "Zoë")
    with_accent = la.LabelStore(store.path, labeller=mac)
    assert with_accent.labeller == me
    with_accent.put(images.hashes[0], MAC[1])
    path = tmp_path / "answers.csv"
    path.write_text(f"labeller,image,class\n{mac},{images.hashes[1]},{MAC[1]}\n", encoding="utf-8")
    assert la.labelling.read_csv(store, path, images).added == 1
    annotation = {
        "result": [{"type": "choices", "value": {"choices": [MAC[1]]}}],
        "completed_by": {"id": 1, "email": f"{mac}@example.org"},
        "updated_at": "2024-05-01T10:00:00Z",
    }
    task = {"id": 1, "data": {"sha256": images.hashes[2]}, "annotations": [annotation]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    named = {f"{me}@example.org": mac}
    assert la.labelling.read_label_studio(store, tmp_path / "export.json", images, named).added == 1
    added = la.labelling.Answer(mac, now(), images.hashes[3], "class", MAC[1])
    assert store.add([added]).added == 1
    assert store.labellers == (me, "me")
    assert store.labels(images, mac)[:5].tolist() == [1, 1, 1, 1, -1]
    assert la.labelling.agreement(store, "me", mac).n == 4
    assert la.labelling.merge(store, images, ["me", mac], prefer=mac)[0][0] == 1


def test_indices_and_numbers_in_every_form(tmp_path, store, images):
    forms = (
        *([5, 2], (5, 2), np.array([5, 2], ">i2"), np.array([5, 0, 2, 0])[::2], torch.tensor([5, 2], dtype=torch.int8)),
        pd.Series([0, 5, 2])[1:],
    )
    for number, index in enumerate(forms):
        path = la.labelling.write_selection(tmp_path / f"{number}.csv", images, index, store)
        assert pd.read_csv(path)["index"].tolist() == [5, 2]
        path = la.labelling.write_label_studio(tmp_path / f"{number}.json", images, index)
        assert [task["data"]["index"] for task in json.loads(path.read_text())] == [5, 2]
        assert store.oracle(images)(index).tolist() == images.labels[[5, 2]].tolist()
        assert la.widgets.Labeller(images, store, index).index.tolist() == [5, 2]
    store.put(images.hashes[9], np.int16(1))
    store.put(images.hashes[10], torch.tensor(1))
    assert store.labels(images)[[9, 10]].tolist() == [0, 0]
    codes = np.asfortranarray(np.random.default_rng(0).random((N, 2)))
    loops = [
        la.LabellingLoop(images, given, store, held_out=held_out, seed=seed)
        for given, held_out, seed in ((torch.from_numpy(codes), 3, 1), (codes, np.int64(3), np.uint8(1)))
    ]
    assert loops[0].held_out.tolist() == loops[1].held_out.tolist()
    assert loops[0].ask("random", 9).tolist() == loops[1].ask("random", torch.tensor(9)).tolist()


WRONG = (
    *(5, 1.5, True, b"x", object(), {1, 2}, [[1], [1, 2]], [2**70], "text", None),
    *(torch.zeros(N, dtype=torch.complex64), torch.full((N,), torch.nan), torch.zeros(2, 2, 2)),
    *(np.array(["a"] * N), np.array([2**63], dtype=np.uint64), np.full((N, 2), np.inf), np.array([object()] * N)),
    *(pd.Series(["a"] * N), pd.DataFrame({"a": ["x"]}), pd.Series(pd.date_range("2020", periods=N))),
)


def test_wrong_things_are_refused_by_lalib_and_nobody_else(tmp_path, store, images):
    you = la.LabelStore(store.path, labeller="you")
    you.put(images.hashes[0], "ape")
    here, codes = {"store": store, "images": images}, torch.rand(N, 2)
    csv, tasks = la.labelling.write_csv(store, tmp_path / "a.csv"), tmp_path / "e.json"
    tasks.write_text("[]")
    calls = [
        (la.LabelStore, {"path": store.path, "class_names": MIXED, "labeller": "me"}),
        (you.put, {"image": images.hashes[11], "label": "ape"}),
        (you.unsure, {"image": images.hashes[11]}),
        (store.add, {"answers": []}),
        (store.answers, {"labeller": "you"}),
        (store.labels, {"images": images, "labeller": "you"}),
        (store.labelled, {"images": images, "labeller": "you"}),
        (store.oracle, {"images": images}),
        (store.oracle(images), {"index": [1]}),
        (store.progress, {"images": images}),
        (store.remaining, {"images": images}),
        (la.labelling.agreement, {"store": store, "a": "me", "b": "you"}),
        (la.labelling.merge, here | {"labellers": ["me", "you"], "prefer": "me"}),
        (la.labelling.read_csv, here | {"path": csv}),
        (la.labelling.read_label_studio, here | {"path": tasks, "labellers": {}}),
        (la.labelling.write_csv, {"store": store, "path": tmp_path / "b.csv"}),
        (la.labelling.write_label_studio, {"path": tmp_path / "t.json", "images": images, "index": [1], "url": None}),
        (la.labelling.write_selection, here | {"path": tmp_path / "c.csv", "index": [1]}),
        (la.labelling.label_studio_config, {"class_names": MIXED}),
        (la.LabellingLoop, here | {"codes": codes, "held_out": 2, "task": None, "seed": 0, "device": "cpu"}),
        (la.LabellingLoop(images, codes, store, held_out=2).train, {"answers": 3}),
        (la.widgets.Labeller, here | {"index": [1], "probs": torch.rand(N, 4)}),
        (la.widgets.latent_explorer, here | {"codes": codes, "view": codes, "errors": codes[:, 0], "labels": [0] * N}),
        (la.widgets.sampling_explorer, here | {"codes": {"a": codes}, "errors": {}, "strategies": ["random"], "n": 2}),
        (la.widgets.Exchange, here | {"selection": lambda: [1]}),
    ]
    for function, good in calls:
        for argument in good:
            for wrong in WRONG:
                if isinstance(wrong, str) and argument == "path":
                    continue  # a file may be called so
                try:
                    function(**good | {argument: wrong})
                except (TypeError, ValueError, la.LalibError) as error:
                    last = traceback.extract_tb(error.__traceback__)[-1]
                    said = f"{function.__qualname__}({argument}={wrong!r}): {error}"
                    assert Path(la.__file__).parent in Path(last.filename).parents, said
                    assert "raise" in last.line or last.line.startswith(('f"', ")")), said
