"""What labelling ends with: a folder of files, whole or not there, which serves for other images."""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

import lalib as la
from lalib.app.__main__ import main
from lalib.labelling import apply_result, result
from lalib.labelling.answers import now

NAMES, N = ("down", "across", "=both"), 40
ALL = {"predictions.csv", "labels.csv", "counts.csv", "classifier.safetensors", "result.json", "use.py"}


def picture(number, colour=False):
    """16 x 16, with a bright bar whose place varies: down, across, or a cross."""
    kind, at = number % 3, 3 + number % 7
    pixels = torch.full((16, 16), number, dtype=torch.uint8)
    if kind != 1:
        pixels[:, at : at + 3] = 255
    if kind != 0:
        pixels[at : at + 3] = 255
    image = Image.fromarray(pixels.numpy())
    return image.convert("RGB") if colour else image


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(N):
        picture(number).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def made(photos, tmp_path):
    """A loop whose person has answered what it needs, and the encoder of its codes."""

    def made(encoder=None, task=None):
        images = la.from_folder(photos)
        encoder = encoder or la.VAE(images.image_shape, latent_dim=4, seed=0)
        store = la.LabelStore(tmp_path / "labels.sqlite", NAMES, labeller="me")
        task = task or la.Task(steps=40)
        loop = la.LabellingLoop(images, la.encode(encoder, images), store, held_out=10, task=task, device="cpu")
        asked = [*loop.held_out.tolist(), *loop.pool[:12].tolist()]
        answers = [la.labelling.Answer("me", now(), images.hashes[i], "class", NAMES[i % 3]) for i in asked[1:]]
        store.add([la.labelling.Answer("me", now(), images.hashes[asked[0]], "unsure", None), *answers])
        return loop, encoder

    return made


def test_files(made, tmp_path):
    loop, encoder = made()
    folder = loop.write_result(tmp_path / "new" / "result", encoder)
    assert {*os.listdir(folder)} == {*ALL, "encoder.safetensors"}
    table, snapshot = pd.read_csv(folder / "predictions.csv", keep_default_na=False), loop.train()
    assert table["file"].tolist() == list(loop.images.files)
    known = loop.store.classes()
    assert (table["labelled_by"] == "me").tolist() == [image in known for image in loop.images.hashes]
    for place, row in table.iterrows():
        column = NAMES.index(row["class"].lstrip("'"))
        assert row["probability"] == pytest.approx(float(snapshot.probs[place, column]), abs=1e-4)
        assert column == (place % 3 if row["labelled_by"] else int(snapshot.probs[place].argmax()))
    counts = pd.read_csv(folder / "counts.csv", index_col="class")
    assert counts["count"].sum() == pytest.approx(N, abs=0.2)
    assert counts.index[-1] == "(not sure)"
    record = json.loads((folder / "result.json").read_text())
    assert (record["class_names"], record["labels"], record["tested"]) == ([*NAMES], 12, 9)
    other = la.LabelStore(tmp_path / "other.sqlite", NAMES, labeller="you")
    assert la.labelling.read_csv(other, folder / "labels.csv").added == 22


def test_without_a_yardstick(made, tmp_path):
    loop, encoder = made()
    loop.store.skip(loop.images.hashes[loop.held_out[0]])
    folder = loop.write_result(tmp_path / "result", encoder)
    assert json.loads((folder / "result.json").read_text())["accuracy"] is None
    assert pd.read_csv(folder / "counts.csv")[["low", "high"]].isna().all(axis=None)


def test_other_images(made, tmp_path, photos):
    """The classifier gives the images it was made with the same again, and takes other sizes and colours of files."""
    loop, encoder = made()
    folder, snapshot = loop.write_result(tmp_path / "result", encoder), loop.train()
    shutil.move(folder, tmp_path / "elsewhere")
    folder = tmp_path / "elsewhere"
    same = apply_result(folder, photos)
    assert same["class"].tolist() == [NAMES[number] for number in snapshot.probs.argmax(1)]
    assert same["probability"].tolist() == pytest.approx(snapshot.probs.max(1).values.tolist(), abs=1e-4)
    others = tmp_path / "others"
    others.mkdir()
    for number in range(N):
        picture(number, colour=True).save(others / f"{number:02}.png")
    assert apply_result(folder, others).equals(same)
    picture(0).resize((48, 48)).save(others / "00.png")
    assert len(apply_result(folder, others)) == N
    for path in others.iterdir():
        path.unlink()
    picture(0).resize((48, 48)).save(others / "00.png")
    with pytest.raises(ValueError, match=r"images must be of 16 x 16 pixels, as those of the result, got 48 x 48"):
        apply_result(folder, la.from_folder(others))
    with pytest.raises(ValueError, match="codes must be None"):
        apply_result(folder, photos, loop.data.codes)


def test_a_network_that_others_trained(made, tmp_path, photos):
    """By its name, and its weights if they are a file of one's own."""
    net = la.PretrainedEncoder("squeezenet1_0", weights=None)
    with pytest.raises(ValueError, match="encoder must have weights that can be had again"):
        made(net)[0].write_result(tmp_path / "result", net)
    weights = dict(net.net.state_dict())
    weights |= {"classifier.1.weight": torch.zeros(1000, 512, 1, 1), "classifier.1.bias": torch.zeros(1000)}
    torch.save(weights, tmp_path / "own.pth")
    net = la.PretrainedEncoder("squeezenet1_0", tmp_path / "own.pth")
    loop, _ = made(net)
    folder = loop.write_result(tmp_path / "result", net)
    (tmp_path / "own.pth").unlink()
    assert apply_result(folder, photos)["class"].tolist() == [NAMES[c] for c in loop.train().probs.argmax(1)]


def test_a_file_of_codes(made, tmp_path, photos):
    loop, _ = made()
    folder = loop.write_result(tmp_path / "result")
    with pytest.raises(la.LalibError, match="was made from a file of codes, not from images: give codes="):
        apply_result(folder, photos)
    la.codes.save_codes(tmp_path / "codes.npz", loop.data.codes, loop.images)
    expected = [NAMES[c] for c in loop.train().probs.argmax(1)]
    for codes in (tmp_path / "codes.npz", loop.data.codes, loop.data.codes.numpy()):
        assert apply_result(folder, photos, codes)["class"].tolist() == expected
    with pytest.raises(ValueError, match="codes"):
        apply_result(folder, photos, loop.data.codes[:, :2])
    with pytest.raises(ValueError, match="encoder must be the one whose codes the loop has"):
        loop.write_result(tmp_path / "wrong", la.VAE((1, 16, 16), latent_dim=4, seed=1))
    assert not (tmp_path / "wrong").exists()


def test_a_task_on_pixels(made, tmp_path, photos):
    loop, _ = made(task=la.Task(model="cnn", steps=2))
    folder = loop.write_result(tmp_path / "result")
    assert apply_result(folder, photos)["class"].tolist() == [NAMES[c] for c in loop.train().probs.argmax(1)]
    loop, _ = made(task=la.Task(model="m1m2", steps=2))
    with pytest.raises(TypeError, match="save takes one of"):
        loop.write_result(folder)
    assert {*os.listdir(folder)} == ALL  # the earlier one


def test_whole_or_not_at_all(made, tmp_path, monkeypatch):
    loop, encoder = made()
    folder = loop.write_result(tmp_path / "result", encoder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    loop.store.put(loop.images.hashes[loop.pool[20]], "down")
    failures = [(name, OSError) for name in ("save", "write_csv", "write_predictions")]
    for name, kind in [*failures, ("save", SafetensorError)]:
        with monkeypatch.context() as patch:
            patch.setattr(result, name, lambda *_, kind=kind: (_ for _ in ()).throw(kind("No space left on device")))
            with pytest.raises(la.LalibError, match=r"could not be written to .*\(No space left on device\)"):
                loop.write_result(folder, encoder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert {*os.listdir(tmp_path)} == {"labels.sqlite", "result"}
    (folder / ".DS_Store").write_text("")
    loop.write_result(folder, encoder)
    assert (folder / "predictions.csv").read_bytes() != before["predictions.csv"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"must be new, empty or hold an earlier result alone; .* has notes.txt"):
        loop.write_result(folder, encoder)
    with pytest.raises(ValueError, match="which is a file"):
        loop.write_result(folder / "notes.txt", encoder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert {*os.listdir(tmp_path)} == {"labels.sqlite", "result"}


def test_no_result(made, tmp_path, photos):
    with pytest.raises(FileNotFoundError, match="result must be a folder that write_result has written"):
        apply_result(tmp_path, photos)
    loop, encoder = made()
    folder = loop.write_result(tmp_path / "result", encoder)
    other = json.loads((folder / "result.json").read_text()) | {"codes": {"from": "the moon"}}
    (folder / "result.json").write_text(json.dumps(other))
    with pytest.raises(la.LalibError, match="was made from 'the moon', which this version does not know"):
        apply_result(folder, photos)
    for text in ("{", "[]", '{"format": "lalib-result-1"}', '{"format": 2}'):
        (folder / "result.json").write_text(text)
        with pytest.raises(la.LalibError, match=r"result.json is damaged, or not of this version of lalib"):
            apply_result(folder, photos)


def test_the_command_and_the_snippet(made, tmp_path, photos, capsys):
    loop, encoder = made()
    folder = loop.write_result(tmp_path / "result", encoder)
    main(["predict", str(folder), str(photos), "--out", str(tmp_path / "said.csv")])
    assert capsys.readouterr().out.startswith(f"{N} predictions are in {tmp_path / 'said.csv'}: ")
    table = pd.read_csv(tmp_path / "said.csv")
    assert table.columns.tolist() == ["file", "class", "probability"]
    assert table["file"].tolist() == list(loop.images.files)
    with pytest.raises(SystemExit, match="error: path must be a folder"):
        main(["predict", str(folder), str(tmp_path / "none")])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.png").write_text("no image")
    shutil.copy(photos / loop.images.files[0], tmp_path / "bad")
    with pytest.raises(SystemExit, match=r"text.png .* --bad-files skip leaves"):
        main(["predict", str(folder), str(tmp_path / "bad")])
    shown = subprocess.run([sys.executable, folder / "use.py", photos], capture_output=True, text=True, check=True)
    assert len(shown.stdout.splitlines()) == N + 1
