"""Labels that people give: nothing saved is lost, several labellers and kernels, CSV and Label Studio out and in."""

import base64
import contextlib
import csv
import io
import json
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import lalib as la
from lalib.labelling import sqlite as _sqlite

CLASSES = ("cat", "dog", "Käfer")
N = 10
COPY = 7  # the image N - 1 is a copy of this one


def _images(n=N, size=8, seed=0, files=True):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 1, size, size), dtype=np.uint8)
    pixels[-1] = pixels[COPY % n]
    names = tuple(f"set a/{i}.png" for i in range(n)) if files else ()
    return la.ImageSet(torch.from_numpy(pixels), None, (), "made", names)


IMAGES = _images()
HASHES = IMAGES.hashes


@pytest.fixture
def folder(tmp_path):
    """A folder in memory where there is one: a disk takes 20 ms to be sure of an answer."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def store(folder):
    return la.LabelStore(folder / "labels.sqlite", CLASSES, labeller="alpha")


def _as(store, labeller):
    return la.LabelStore(store.path, labeller=labeller)


def _put(store, labels):
    for index, label in labels.items():
        store.put(HASHES[index], label)


# The store


def test_hashes_tell_images_apart_by_pixels_and_shape():
    assert len(set(HASHES)) == N - 1
    assert HASHES[N - 1] == HASHES[COPY]
    zeros = torch.zeros((1, 1, 8, 16), dtype=torch.uint8)
    assert la.from_arrays(zeros).hashes != la.from_arrays(zeros.reshape(1, 1, 16, 8)).hashes
    assert IMAGES.subset([3, 1]).hashes == (HASHES[3], HASHES[1])
    cut = IMAGES.images.expand(N, 3, 8, 8)  # strides of 0
    assert la.from_arrays(cut).hashes == la.from_arrays(cut.contiguous()).hashes


def test_answers_become_labels(store):
    _put(store, {0: "dog", 2: "cat", COPY: 2, 4: "cat"})
    store.put(HASHES[4], "dog")  # a second answer replaces the first one
    store.unsure(HASHES[5])
    store.skip(HASHES[6])
    expected = [1, -1, 0, -1, 1, -1, -1, 2, -1, 2]
    labels = store.labels(IMAGES)
    assert labels.dtype == torch.int64
    assert labels.tolist() == expected
    shuffled = [8, 0, 7, 5]
    assert store.labels(IMAGES.subset(shuffled)).tolist() == [expected[i] for i in shuffled]
    assert store.progress(IMAGES) == (4, 1, 1, 3)
    assert str(store.progress(IMAGES)) == "4 of 9 labelled, 1 not sure, 1 skipped, 3 left"
    assert store.remaining(IMAGES).tolist() == [1, 3, 8, 6]  # the skipped one last, the copy never
    labelled = store.labelled(IMAGES)
    assert labelled.class_names == CLASSES
    assert labelled.labels.tolist() == [1, 0, 1, 2, 2]
    assert labelled.files == tuple(IMAGES.files[i] for i in (0, 2, 4, 7, 9))
    assert store.answers()[HASHES[5]][2:] == (HASHES[5], "unsure", None)


def test_classes_that_another_kernel_adds_and_renames_are_known_at_once(store):
    other = _as(store, "alpha")
    store.put(HASHES[0], "dog")
    other.add_class("eel")
    other.rename_class("dog", "hound")
    other.put(HASHES[1], "eel")
    assert store.class_names == ("cat", "hound", "Käfer", "eel")
    bare = la.from_arrays(IMAGES.images)
    assert la.LabelStore(store.path, labeller="alpha").answers()[HASHES[1]].class_name == "eel"
    assert store.labelled(bare).class_names == store.class_names
    with pytest.raises(ValueError, match=r"label must be one of .*hound.*, got 'dog'"):
        store.put(HASHES[2], "dog")


def test_undo_goes_back_across_sessions_and_history_stays(store):
    _put(store, {0: "dog", 1: "cat"})
    store.put(HASHES[0], "cat")
    resumed = _as(store, "alpha")
    assert resumed.class_names == CLASSES
    assert resumed.undo()[2:] == (HASHES[0], "class", "cat")
    assert resumed.labels(IMAGES)[:2].tolist() == [1, 0]  # the answer before it counts again
    assert resumed.undo().image == HASHES[1]
    resumed.skip(HASHES[1])
    assert resumed.undo().kind == "skip"
    assert store.undo().class_name == "dog"
    with pytest.raises(la.LalibError, match=r"'alpha' has no answer in .*labels.sqlite to undo"):
        store.undo()
    assert (store.labels(IMAGES) == -1).all()
    history = store.history()
    assert history["kind"].tolist() == ["class"] * 3 + ["undo"] * 2 + ["skip"] + ["undo"] * 2
    assert history["undone"].tolist() == [True] * 3 + [False] * 2 + [True] + [False] * 2
    assert history["time"].is_monotonic_increasing


def test_undo_leaves_other_labellers_alone(store):
    store.put(HASHES[0], "cat")
    _as(store, "beta").put(HASHES[0], "dog")
    store.undo()
    assert store.labels(IMAGES, "beta")[0] == 1
    assert store.labellers == ("beta",)


def test_a_clock_set_back_does_not_hide_the_new_answer(store, monkeypatch):
    store.put(HASHES[0], "cat")
    for module in ("answers", "store"):
        monkeypatch.setattr(f"lalib.labelling.{module}.now", lambda: "2001-01-01T00:00:00.000000+00:00")
    store.put(HASHES[0], "dog")
    assert store.labels(IMAGES)[0] == 1
    assert store.undo().class_name == "dog"


def test_a_person_behind_a_pool(store):
    pool = la.experiments.Pool(store.oracle(IMAGES), size=N)
    _put(store, {3: "cat", 5: "Käfer"})
    assert pool.buy(torch.tensor([5, 3])).tolist() == [2, 0]
    store.put(HASHES[8], "cat")
    store.unsure(HASHES[0])
    with pytest.raises(la.LalibError, match="7 of 8 images have no label yet: 0, 1, 2, 4, 6 and 2 more"):
        pool.buy(torch.tensor([0, 1, 2, 4, 6, 7, 8, 9]))
    assert pool.labels.tolist() == [2, 0]


def test_other_threads_may_answer(store):
    """JupyterLab runs what a widget triggers in another thread than cells."""
    thread = threading.Thread(target=store.put, args=(HASHES[0], "dog"))
    thread.start()
    thread.join()
    assert store.labels(IMAGES)[0] == 1


def test_images_in_another_size_are_noticed(store):
    store.put(HASHES[0], "cat")
    with pytest.warns(UserWarning, match=r"answers to 1 images, but to none of these 10 of shape \(1, 9, 9\)"):
        assert (store.labels(_images(size=9)) == -1).all()


CHILD = """
import sys
import lalib as la

shared, own, *hashes = sys.argv[1:]
store = la.LabelStore(shared, labeller="beta")
print("ready", flush=True)
sys.stdin.readline()
for image in hashes:
    store.put(image, "dog")
print("done", flush=True)
store = la.LabelStore(own, ["cat", "dog"], labeller="beta")
while True:
    for image in hashes:
        store.put(image, "cat")
        print(image, flush=True)
"""


def test_two_kernels_at_once_and_one_that_is_killed(store, tmp_path):
    """200 labels each into one file at once are all there; of another file, nothing said to be saved is lost."""
    images = _images(200, seed=1)
    hashes = sorted(set(images.hashes))
    own = tmp_path / "own.sqlite"  # on the disk
    command = [sys.executable, "-c", CHILD, str(store.path), str(own), *hashes]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with child:
        try:
            assert child.stdout.readline() == "ready\n"
            child.stdin.write("go\n")
            child.stdin.flush()
            for image in hashes:
                store.put(image, "cat")
            assert child.stdout.readline() == "done\n"
            saved = [child.stdout.readline().strip() for _ in range(20)]
        finally:
            child.send_signal(signal.SIGKILL)
        saved += child.stdout.read().split()  # each line is written after its answer, and is short
    assert [len(store.answers(name)) for name in ("alpha", "beta")] == [len(hashes)] * 2
    kept = la.LabelStore(own, labeller="beta")
    assert set(saved) <= set(kept.answers())
    assert len(saved) <= len(kept.history()) <= len(saved) + 1
    kept.put(hashes[0], "dog")


# Bad files, bad disks


def _break(path, kind):
    if kind == "text":
        path.write_text("labels:\n- cat\n" * 100)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:9000])
    elif kind == "overwritten":
        path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
    elif kind == "no text":
        path.write_bytes(path.read_bytes().replace(b"TABLE events", b"TAB\xffE events"))
        return
    elif kind == "foreign":
        path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        if kind == "foreign":
            connection.execute("CREATE TABLE labels (x)")
        elif kind == "newer":
            connection.execute("PRAGMA user_version = 2")
        elif kind == "trigger":
            connection.execute("CREATE TRIGGER mine AFTER INSERT ON events BEGIN DELETE FROM events; END")
        elif kind == "view":
            connection.execute("DROP VIEW answers")
            connection.execute("CREATE VIEW answers AS SELECT id, labeller, time, image, kind, class FROM events")
        elif kind == "index":
            connection.execute("CREATE UNIQUE INDEX mine ON events (image, id)")
        elif kind == "classless":
            connection.execute("DELETE FROM classes WHERE name = 'cat'")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("text", "is not a file of labels"),
        ("cut", "is damaged: restore a copy"),
        ("overwritten", "is damaged: restore a copy"),
        ("no text", "is damaged: restore a copy"),
        ("foreign", "is not a file of labels, but an SQLite file of another program"),
        ("newer", "has version 2 of its format; this lalib reads version 1"),
        ("trigger", "is not as lalib writes files of labels, another program changed: trigger mine"),
        ("view", "is not as lalib writes files of labels, another program changed: view answers"),
        ("index", "is not as lalib writes files of labels, another program changed: index mine"),
        ("classless", r"is damaged: .* \(an answer is of no class\)"),
    ],
)
def test_bad_files_are_refused_and_left_alone(store, kind, message):
    _put(store, dict.fromkeys(range(N), "cat"))
    _break(store.path, kind)
    before = store.path.read_bytes()
    with pytest.raises(la.LalibError, match=message):
        la.LabelStore(store.path, CLASSES, labeller="alpha")
    assert store.path.read_bytes() == before


def test_tables_of_ones_own_may_be_in_the_file(store):
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        connection.execute("CREATE TABLE notes (image TEXT, note TEXT)")
        connection.execute("CREATE VIEW cats AS SELECT * FROM answers WHERE class = 'cat'")
        connection.execute("ANALYZE")
    la.LabelStore(store.path, CLASSES, labeller="alpha").put(HASHES[0], "cat")
    assert store.classes() == {HASHES[0]: "cat"}


def test_several_images_are_answered_at_once_or_not_at_all(store):
    store.put(HASHES[:3], "dog")
    store.unsure(list(HASHES[3:5]))
    assert store.labels(IMAGES).tolist() == [1, 1, 1] + [-1] * (N - 3)
    assert [store.undo().image for _ in range(5)] == [*HASHES[4::-1]]
    with pytest.raises(ValueError, match="image must be a hash of 64 characters"):
        store.put([HASHES[0], "no hash"], "cat")
    assert store.answers() == {}


@pytest.mark.parametrize(
    ("pragma", "message"),
    [
        ("max_page_count = 1", "cannot grow, the disk is full. This was not saved"),
        ("query_only = 1", "write-protected"),
    ],
)
def test_an_answer_that_cannot_be_saved_is_an_error(store, monkeypatch, pragma, message):
    """SQLite itself answers as it does on a full disk or a protected file, also for root."""
    store.put(HASHES[0], "cat")
    with monkeypatch.context() as patch:
        patch.setattr(_sqlite, "SETTINGS", (*_sqlite.SETTINGS, f"PRAGMA {pragma}"))
        assert store.labels(IMAGES)[0] == 0
        with pytest.raises(la.LalibError, match=message):
            store.add([la.labelling.Answer("alpha", "2020-01-01", f"{i:064x}", "class", "dog") for i in range(1000)])
    assert len(store.history()) == 1
    store.put(HASHES[1], "dog")


@contextlib.contextmanager
def _quota(size):
    """No file may become longer than this number of bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_used_up_quota_loses_nothing_saved(store):
    saved = []

    def fill():
        for i in range(2000):
            store.put(f"{i:064x}", "cat")
            saved.append(i)

    full = pytest.raises(la.LalibError, match=r"cannot be read or written. This was not saved; is the disk full")
    with _quota(store.path.stat().st_size + 40_000), full:
        fill()
    assert len(_as(store, "alpha").answers()) == len(saved) > 20
    store.put(HASHES[0], "cat")


def test_a_deleted_or_locked_file_is_an_error(store, monkeypatch):
    monkeypatch.setattr(_sqlite, "WAIT", 0.01)
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(la.LalibError, match="was in use by another program"):
            store.put(HASHES[0], "cat")
    store.put(HASHES[0], "cat")
    store.path.unlink()
    with pytest.raises(la.LalibError, match="cannot be opened: is it"):
        store.put(HASHES[1], "cat")
    assert not store.path.exists()


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["cat", "dog", "cat"], ValueError, "class_names must differ, got 'cat' twice"),
        (["Käfer", "Ka\u0308fer"], ValueError, "class_names must differ, got 'Käfer' twice"),
        (
            ["cat", "dog "],
            ValueError,
            "a class name must be text on one line, without spaces at its ends or control characters, got 'dog '",
        ),
        (["cat", ""], ValueError, "a class name must be text on one line"),
        (["cat", 3], TypeError, "a class name must be text, got 3"),
        (["cat"], ValueError, "class_names must be at least 2, got 1"),
        (["cat", "(not sure)"], ValueError, "must not hold '\\(not sure\\)', which stands for no class"),
        ("cat", TypeError, "class_names must be a list of names, got 'cat'"),
        (["cat", "dog"], la.LalibError, "has the classes 'cat', 'dog', 'Käfer', got 'cat', 'dog'. Labels of other"),
        (["dog", "cat", "Käfer"], la.LalibError, "'cat', 'dog', 'Käfer' in another order, got"),
    ],
)
def test_bad_class_names(store, names, error, message):
    with pytest.raises(error, match=message):
        la.LabelStore(store.path, names, labeller="alpha")


def test_bad_arguments(store, folder):
    for labeller in ("", " alpha", "al\npha"):
        with pytest.raises(ValueError, match="labeller must be text on one line"):
            _as(store, labeller)
    with pytest.raises(
        la.LalibError, match=r"new.sqlite is not there, or empty: a new file of labels needs class_names"
    ):
        la.LabelStore(folder / "new.sqlite", labeller="alpha")
    assert not (folder / "new.sqlite").exists()
    with pytest.raises(la.LalibError, match="cannot be opened: is it"):
        la.LabelStore(folder, CLASSES, labeller="alpha")  # a folder is no file
    with pytest.raises(ValueError, match="path must lie in a folder that is there"):
        la.LabelStore(folder / "no" / "new.sqlite", CLASSES, labeller="alpha")
    with pytest.raises(ValueError, match=r"label must be one of 'cat', 'dog', 'Käfer', got 'cta'. Did you mean 'cat'"):
        store.put(HASHES[0], "cta")
    with pytest.raises(ValueError, match="label must be at most 2, got 3"):
        store.put(HASHES[0], 3)
    with pytest.raises(TypeError, match=r"image must be a hash, such as images.hashes\[0\], got 0"):
        store.put(0, "cat")
    with pytest.raises(ValueError, match="image must be a hash of 64 characters"):
        store.skip("set a/0.png")
    with pytest.raises(ValueError, match="labeller must be one of"):
        store.labels(IMAGES, "beta")
    with pytest.raises(la.LalibError, match="none of the 10 images is labelled"):
        store.labelled(IMAGES)


# Two labellers

PAIRS = {("cat", "cat"): 3, ("cat", "dog"): 2, ("dog", "dog"): 3, ("dog", "cat"): 1}  # of alpha and beta on 9 images


def test_kappa_by_hand(store):
    """Agreement 6/9, by chance 5/9 * 4/9 + 4/9 * 5/9 = 40/81: kappa = (54 - 40) / (81 - 40)."""
    beta, pairs = _as(store, "beta"), [pair for pair, count in PAIRS.items() for _ in range(count)]
    for image, (a, b) in zip(sorted(set(HASHES)), pairs, strict=True):
        store.put(image, a)
        beta.put(image, b)
    assert la.labelling.agreement(store, "alpha", "beta") == pytest.approx((14 / 41, 6 / 9, 9))


def test_agreement_counts_shared_classes_only(store):
    beta = _as(store, "beta")
    _put(store, {0: "cat", 1: "cat", 2: "dog"})
    beta.put(HASHES[3], "cat")
    beta.unsure(HASHES[2])
    with pytest.raises(la.LalibError, match="'alpha' and 'beta' must have labelled the same images"):
        la.labelling.agreement(store, "alpha", "beta")
    _put(beta, {0: "cat", 1: "cat"})
    kappa, share, n = la.labelling.agreement(store, "alpha", "beta")
    assert np.isnan(kappa)
    assert (share, n) == (1, 2)
    with pytest.raises(ValueError, match=r"labeller must be one of 'alpha', 'beta', got 'bata'. Did you mean 'beta'"):
        la.labelling.agreement(store, "alpha", "bata")


def test_merge(store):
    beta, carl = _as(store, "beta"), _as(store, "carl")
    _put(store, {0: "cat", 1: "cat", COPY: "dog", 3: "dog"})
    _put(beta, {0: "cat", 1: "dog", COPY: "cat", 2: "dog"})
    beta.unsure(HASHES[3])
    carl.put(HASHES[1], "cat")
    labels, table = la.labelling.merge(store, IMAGES)
    assert labels.tolist() == [0, -1, 1, 1, -1, -1, -1, -1, -1, -1]
    expected = {"alpha": ["cat", "dog", "dog"], "beta": ["dog", "cat", "cat"], "carl": ["cat", None, None]}
    expected = pd.DataFrame(expected, index=pd.Index([1, COPY, N - 1], name="image"), dtype=object)
    pd.testing.assert_frame_equal(table, expected)
    assert la.labelling.merge(store, IMAGES, prefer="alpha")[0].tolist() == [0, 0, 1, 1, -1, -1, -1, 1, -1, 1]
    labels, table = la.labelling.merge(store, IMAGES, prefer="carl")
    assert labels.tolist() == [0, 0, 1, 1, -1, -1, -1, -1, -1, -1]  # carl has no say on the others
    assert len(table) == 3
    labels, table = la.labelling.merge(store, IMAGES, ["alpha", "carl"])
    assert labels.tolist() == [0, 0, -1, 1, -1, -1, -1, 1, -1, 1]
    assert len(table) == 0
    with pytest.raises(ValueError, match="prefer must be one of 'alpha', 'carl', got 'beta'"):
        la.labelling.merge(store, IMAGES, ["alpha", "carl"], prefer="beta")
    with pytest.raises(TypeError, match="labellers must be a list of names, got 'alpha'"):
        la.labelling.merge(store, IMAGES, "alpha")


# CSV


def _rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


def test_csv_round_trip(store, folder):
    _put(store, {0: "Käfer", 1: "cat"})
    store.unsure(HASHES[2])
    beta = _as(store, "beta")
    beta.skip(HASHES[0])
    path = la.labelling.write_csv(store, folder / "labels.csv")
    other = la.LabelStore(folder / "other.sqlite", CLASSES, labeller="carl")
    done = la.labelling.read_csv(other, path, IMAGES)
    assert done == la.labelling.Imported(added=4, known=0, older=0)
    assert {name: other.answers(name) for name in other.labellers} == {s.labeller: s.answers() for s in (store, beta)}
    assert la.labelling.read_csv(other, path).known == 4
    store.put(HASHES[1], "dog")
    assert la.labelling.read_csv(store, path) == la.labelling.Imported(added=0, known=4, older=0)
    assert store.labels(IMAGES)[1] == 1  # the file is older than the second answer
    late = la.LabelStore(folder / "late.sqlite", CLASSES, labeller="alpha")
    late.put(HASHES[0], "dog")
    assert la.labelling.read_csv(late, path) == la.labelling.Imported(added=4, known=0, older=1)
    assert late.labels(IMAGES)[:3].tolist() == [1, 0, -1]
    for _ in range(2):
        late.undo()  # "dog" of now, then "not sure" of before
    assert late.labels(IMAGES)[:2].tolist() == [2, 0]
    assert la.labelling.read_csv(late, path).known == 4  # what was undone stays undone
    assert HASHES[2] not in late.answers()


def test_a_selection_labelled_in_a_spreadsheet(store, folder):
    path = la.labelling.write_selection(folder / "query.csv", IMAGES, torch.tensor([8, 2, 5]))
    rows = _rows(path)
    assert [(row["index"], row["file"], row["image"]) for row in rows] == [
        (str(i), f"set a/{i}.png", HASHES[i]) for i in (8, 2, 5)
    ]
    rows[0]["class"], rows[2]["class"] = "Käfer", "dog"
    lines = [list(rows[0]), *(row.values() for row in rows)]
    path.write_bytes("\r\n".join(";".join(line) for line in lines).encode())  # as a German Excel has it
    done = la.labelling.read_csv(store, path)
    assert (done.added, done.unanswered, done.bad) == (2, 1, ())
    assert {i: store.class_names[c] for i, c in enumerate(store.labels(IMAGES)) if c >= 0} == {8: "Käfer", 5: "dog"}
    assert la.labelling.read_csv(store, path).known == 2


def test_a_spreadsheets_ways_are_understood(store, folder):
    """The line that tells Excel the delimiter, a byte-order mark, quotation marks, accents as a Mac writes them."""
    text = f'\ufeffsep=;\r\n"image";"class"\r\n"{HASHES[0]}";"Ka\u0308fer"\r\n{HASHES[1]};"do""g"\r\n{HASHES[2]};dog'
    (folder / "x.csv").write_bytes(text.encode())
    done = la.labelling.read_csv(store, folder / "x.csv")
    assert done.added == 2
    assert done.bad == ("line 4: class must be one of 'cat', 'dog', 'Käfer', got 'do\"g'. Did you mean 'dog'?",)
    assert store.labels(IMAGES)[:3].tolist() == [2, -1, 1]
    store.put(HASHES[1], "Ka\u0308fer")
    assert store.labels(IMAGES)[1] == 2


def test_nonsense_lines_are_named_and_the_rest_is_kept(store, folder):
    lines = [
        "labeller,time,image,kind,class",
        f"alpha,2024-05-01T10:00:00Z,{HASHES[0]},class,cat",
        f"alpha,2024-05-01T10:00:01Z,{HASHES[1]},class,cta",
        f"alpha,2024-05-01T10:00:01Z,{HASHES[1][:-1]},class,cat",
        f"alpha,yesterday,{HASHES[1]},class,cat",
        f"alpha,2999-01-01,{HASHES[1]},class,cat",
        f'alpha,2024-05-01T10:00:01Z,{HASHES[1]},class,"cat',
        f"alpha,2024-05-01T10:00:01Z,{HASHES[1]},class",
        "",
        f"alpha,2024-05-01T10:00:02Z,{HASHES[0]},class,dog",
        f"alpha,2024-05-01T10:00:02Z,{HASHES[3]},unsure,cat",
        f"alpha,2024-05-01T10:00:02Z,{HASHES[3]},maybe,",
        f"alpha,2024-05-01T10:00:02Z,{HASHES[3]},class,",
        f"alpha,2024-05-01T10:00:02Z,{'0' * 64},class,dog",
        f"alpha,2024-05-01T10:00:02Z,{HASHES[3]},class,K\xe4fer",  # not UTF-8
        f",,{HASHES[5]},,Käfer",
        f"beta, 2024-05-01T12:00:00+02:00 ,{HASHES[0]},,dog",
    ]
    path = folder / "edited.csv"
    path.write_bytes(b"\n".join(line.encode("latin-1" if i == 14 else "utf-8") for i, line in enumerate(lines)))
    done = la.labelling.read_csv(store, path, IMAGES)
    expected = [
        (3, "class must be one of 'cat', 'dog', 'Käfer', got 'cta'. Did you mean 'cat'"),
        (4, "image must be a hash of 64 characters"),
        (5, "time must be ISO 8601"),
        (6, "time must not lie in the future, got '2999-01-01'"),
        (7, "unexpected end of data"),
        (8, "has 4 cells, the first line has 5"),
        (10, "line 2 has another answer of 'alpha' to this image"),
        (11, "an answer of kind 'unsure' has no class, got 'cat'"),
        (12, "kind must be one of 'class', 'unsure', 'skip', got 'maybe'"),
        (13, "class must be one of 'cat', 'dog', 'Käfer', got None"),
        (14, "is none of the 10 images"),
        (15, "is not UTF-8 text: save the file as 'CSV UTF-8'"),
    ]
    assert len(done.bad) == len(expected)
    for said, (line, what) in zip(done.bad, expected, strict=True):
        assert said.startswith(f"line {line}: ")
        assert what in said
    assert done.added == 3
    assert "Imported: 3 answers added, 0 known, 0 unanswered, 12 bad\nline 3: class" in repr(done)
    assert repr(done).endswith("and 7 more in .bad")
    assert {HASHES.index(image): a.class_name for image, a in store.answers().items()} == {0: "cat", 5: "Käfer"}
    assert store.answers("beta")[HASHES[0]].time == "2024-05-01T10:00:00.000000+00:00"


@pytest.mark.parametrize("text", ["", "sep=;", "a,b\n1,2\n", "image;class;class\n", "image\n", "image;class" * 50_000])
def test_a_file_of_other_columns_is_refused(store, folder, text):
    (folder / "other.csv").write_text(text)
    with pytest.raises(ValueError, match=r"must have the columns image and class once in its first line, got"):
        la.labelling.read_csv(store, folder / "other.csv")
    with pytest.raises(ValueError, match=r"path must be a CSV file, got .*which is not there"):
        la.labelling.read_csv(store, folder / "none.csv")


def test_no_cell_is_a_formula(folder):
    """What a spreadsheet would run has an apostrophe in front, and comes back as it was."""
    names = ("=1+1", "-1", "+a", "@b", "'=quoted", "'" * 2 + "-twice", "'plain", "it's =", "ab")
    store = la.LabelStore(folder / "odd.sqlite", names, labeller="=HYPERLINK()")
    for index, name in enumerate(names):
        store.put(HASHES[index], name)
    path = la.labelling.write_csv(store, folder / "odd.csv")
    cells = [cell for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {"'=1+1", "''=quoted", "'" * 3 + "-twice", "'plain", "it's =", "'=HYPERLINK()"} <= {*cells}
    back = la.LabelStore(folder / "back.sqlite", names, labeller="me")
    assert la.labelling.read_csv(back, path).added == len(names)
    assert back.answers("=HYPERLINK()") == store.answers()
    files = tuple(f"{begin}{i}.png" for i, begin in enumerate(["=", "\t", "\r", *"abcdefg"]))
    listed = la.labelling.write_selection(folder / "list.csv", replace(IMAGES, files=files), range(3), store)
    assert pd.read_csv(listed)["file"].tolist() == ["'=0.png", "'\t1.png", "'\r2.png"]
    assert pd.read_csv(listed)["class"].tolist() == ["'=1+1", "'-1", "'+a"]


def test_utf_16_has_a_message_of_its_own(store, folder):
    for encoding in ("utf-16-le", "utf-16-be"):
        (folder / "unicode.csv").write_text(f"\ufeffimage\tclass\n{HASHES[0]}\tcat\n", encoding=encoding)
        with pytest.raises(ValueError, match="must be UTF-8 text, got UTF-16: save the file as 'CSV UTF-8'"):
            la.labelling.read_csv(store, folder / "unicode.csv")


# Label Studio


def _annotation(*choices, by=1, time="2024-05-01T10:00:00.123456Z", cancelled=False):
    """An annotation as Label Studio exports it."""
    result = [
        {
            "value": {"choices": list(choices)},
            "id": "aBcDeF",
            "from_name": "class",
            "to_name": "image",
            "type": "choices",
            "origin": "manual",
        }
    ]
    return {
        "id": 101,
        "completed_by": by,
        "result": result if choices else [],
        "was_cancelled": cancelled,
        "ground_truth": False,
        "created_at": "2024-05-01T09:00:00.000000Z",
        "updated_at": time,
        "draft_created_at": None,
        "lead_time": 2.5,
        "task": 7,
        "parent_prediction": None,
    }


def _exported(path, annotations):
    """The tasks in the file `path` as they come back: with numbers and the annotations of each."""
    tasks = json.loads(path.read_text())
    for number, (task, given) in enumerate(zip(tasks, annotations, strict=True), start=41):
        task |= {
            "id": number,
            "annotations": given,
            "drafts": [],
            "predictions": [],
            "project": 3,
            "total_annotations": 1,
        }
    path.write_text(json.dumps(tasks))
    return path


def test_tasks_for_label_studio(folder):
    path = la.labelling.write_label_studio(folder / "tasks.json", IMAGES, [8, 2], url="/data/local-files/?d=pets/")
    assert json.loads(path.read_text())[0] == {
        "data": {
            "image": "/data/local-files/?d=pets/set%20a/8.png",
            "sha256": HASHES[8],
            "index": 8,
            "file": "set a/8.png",
        }
    }
    path = la.labelling.write_label_studio(path, _images(files=False), [8, 2])
    task = json.loads(path.read_text())[1]["data"]
    png = base64.b64decode(task["image"].removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(png))), IMAGES.images[2, 0])
    assert task["file"] == ""
    with pytest.raises(ValueError, match="url needs images with file names"):
        la.labelling.write_label_studio(path, _images(files=False), [0], url="https://here/")


def test_annotations_of_nobody_are_of_different_people(store, folder):
    path = la.labelling.write_label_studio(folder / "tasks.json", IMAGES, [0, 1, 2])
    nobody = ["cat", "dog", "cat"], ["dog"], ["Käfer", "cat"]
    given = [[_annotation(choice, by=None) for choice in choices] for choices in nobody]
    given[2][0]["completed_by"] = {"id": None, "email": ""}
    given[1].append(_annotation("cat", by=0))
    done = la.labelling.read_label_studio(store, _exported(path, given), IMAGES, labellers={"unknown-2": "second"})
    assert (done.added, done.bad) == (7, ())
    labels = {name: store.labels(IMAGES, name).tolist()[:3] for name in store.labellers}
    assert labels == {
        "label-studio-0": [-1, 0, -1],
        "label-studio-unknown-1": [0, 1, 2],
        "second": [1, -1, 0],
        "label-studio-unknown-3": [0, -1, -1],
    }


def test_the_labelling_interface_names_all_classes():
    view = ElementTree.fromstring(la.labelling.label_studio_config(['<cat> & "dog"', "Käfer"]))
    assert [choice.get("value") for choice in view.iter("Choice")] == ['<cat> & "dog"', "Käfer", "(not sure)"]
    assert view.find("Choices").get("toName") == view.find("Image").get("name") == "image"
    assert view.find("Image").get("value") == "$image"


def test_label_studio_round_trip(store, folder):
    path = la.labelling.write_label_studio(folder / "tasks.json", IMAGES, range(8))
    user = {"id": 9, "email": "beta@example.org", "first_name": "Ben", "last_name": ""}
    annotations = [
        [_annotation("cat"), _annotation("dog", by=user)],
        [_annotation("(not sure)")],
        [_annotation(cancelled=True)],
        [],
        [_annotation()],
        [_annotation("cat", "dog")],
        [_annotation("dog"), _annotation("Käfer", time="2024-05-02T10:00:00Z")],  # changed his mind
        [_annotation("dog", time=None, by=2), _annotation("dog", by={"email": 7})],
    ]
    path = _exported(path, annotations)
    done = la.labelling.read_label_studio(store, path, IMAGES, labellers={1: "alpha"})
    assert (done.added, done.unanswered) == (7, 1)
    assert done.bad == (
        "task 45: has 0 choices (none), one is needed",
        "task 46: has 2 choices (cat, dog), one is needed",
        "task 48: labeller must be text, got 7",
    )
    assert store.labellers == ("alpha", "beta@example.org", "label-studio-2")
    assert store.labels(IMAGES).tolist() == [0, -1, -1, -1, -1, -1, 2, -1, -1, -1]
    assert [store.answers()[HASHES[i]].kind for i in (1, 2)] == ["unsure", "skip"]
    assert store.answers()[HASHES[0]].time == "2024-05-01T10:00:00.123456+00:00"
    assert store.labels(IMAGES, "beta@example.org").tolist() == [1] + [-1] * 9
    assert store.answers("label-studio-2")[HASHES[7]].time == "2024-05-01T09:00:00.000000+00:00"
    again = la.labelling.read_label_studio(store, path, IMAGES, labellers={1: "alpha"})
    assert (again.added, again.known) == (0, 7)


def test_files_of_another_project_are_refused(store, folder):
    path = la.labelling.write_label_studio(folder / "tasks.json", IMAGES, [0, 1])
    _exported(path, [[_annotation("cat")], [_annotation("horse")]])
    with pytest.raises(
        la.LalibError, match="of another project: it has the choices 'horse'; allowed are 'cat', 'dog', "
    ):
        la.labelling.read_label_studio(store, path, IMAGES)
    with pytest.raises(la.LalibError, match=r"another project: 1 of 2 tasks are of none of the 9 images .*: task 42"):
        la.labelling.read_label_studio(store, path, IMAGES.subset([0, *range(2, N)]))
    path.write_text(json.dumps([{"id": 5, "data": {"image": "x.png"}, "annotations": [_annotation("cat")]}]))
    with pytest.raises(la.LalibError, match=r"another project: 1 of 1 tasks .* by their data.sha256: task 5"):
        la.labelling.read_label_studio(store, path, IMAGES)
    assert len(store.history()) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"image": "x.png", "choice": "cat", "annotator": 1}]', "is no export of Label Studio .*not JSON-MIN"),
        ('{"tasks": []}', "is no export of Label Studio"),
        ('[{"data": {}, "annotations": [{"result": ["cat"]}]}]', "is no export of Label Studio"),
        ('[{"data": {', "is damaged, it is not JSON"),
        ("\ufffe\xff", "is damaged, it is not JSON"),
    ],
)
def test_files_that_are_no_export_are_refused(store, folder, text, message):
    (folder / "x.json").write_text(text, encoding="utf-16-le")
    if text.isascii():
        (folder / "x.json").write_text(text)
    with pytest.raises(la.LalibError, match=message):
        la.labelling.read_label_studio(store, folder / "x.json", IMAGES)
    with pytest.raises(ValueError, match=r"path must be a JSON file, got .*which is not there"):
        la.labelling.read_label_studio(store, folder / "none.json", IMAGES)


def test_what_does_not_fit_on_the_disk_leaves_the_old_file(store, folder):
    answers = [la.labelling.Answer("alpha", "2020-01-01", f"{i:064x}", "class", "cat") for i in range(500)]
    writers = {
        "answers.csv": lambda path: la.labelling.write_csv(store, path),
        "query.csv": lambda path: la.labelling.write_selection(path, IMAGES, list(range(N)) * 50),
        "tasks.json": lambda path: la.labelling.write_label_studio(path, IMAGES, list(range(N)) * 50),
    }
    for name in writers:
        (folder / name).write_text("old")
    store.add(answers)
    there = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, write in writers.items():
        with _quota(20_000), pytest.raises(OSError, match="File too large"):
            write(folder / name)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == there
        assert write(folder / name).stat().st_size > 20_000
        (folder / name).write_bytes(there[name])
