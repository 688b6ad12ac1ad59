"""Downloads from a local HTTP server that serves small files in the real formats, breaks off, stalls, sends garbage."""

import gzip
import hashlib
import http.server
import io
import socket
import struct
import threading
from pathlib import Path

import medmnist
import numpy as np
import pooch
import pytest
import scipy.io
from torchvision.datasets import MNIST, SVHN, FashionMNIST

import lalib as la
from lalib.data import downloads as _downloads

RNG = np.random.default_rng(0)
IMAGES = {
    "train": RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8),
    "test": RNG.integers(0, 256, (10, 28, 28), np.uint8),
}
LABELS = {"train": np.arange(30) % 10, "test": np.arange(10)}
COLOUR = RNG.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
CHEST = RNG.integers(0, 2, (30, 14))


def idx(array):
    """An array of bytes in the IDX format, gzipped."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def mat(**arrays):
    content = io.BytesIO()
    scipy.io.savemat(content, arrays)
    return content.getvalue()


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


FILES = {
    "train-images-idx3-ubyte.gz": idx(IMAGES["train"]),
    "train-labels-idx1-ubyte.gz": idx(LABELS["train"]),
    "t10k-images-idx3-ubyte.gz": idx(IMAGES["test"]),
    "t10k-labels-idx1-ubyte.gz": idx(LABELS["test"]),
    # SVHN counts the images along the last axis and writes the digit 0 as 10
    "train_32x32.mat": mat(X=COLOUR.transpose(1, 2, 3, 0), y=np.arange(1, 13)[:, None] % 11),
    "chestmnist.npz": npz(
        **{f"{split}_images": IMAGES["train"] for split in ("train", "val", "test")},
        **{f"{split}_labels": CHEST for split in ("train", "val", "test")},
    ),
    "bloodmnist.npz": npz(val_images=COLOUR[:, :28, :28], val_labels=(np.arange(12) % 8)[:, None].astype(np.uint8)),
}
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        _, manner, name = self.path.split("?")[0].split("/")
        if manner == "gone":
            return self.send_error(404)
        content = b"garbage" * 99 if manner == "garbage" else FILES[name]
        self.send_response(200)
        if manner != "unsized":
            self.send_header("Content-Length", "many" if manner == "odd" else str(len(content)))
        if manner == "encoded":
            self.send_header("Content-Encoding", "x-gzip")
        self.end_headers()
        self.wfile.write(content if manner in ("ok", "garbage", "encoded") else content[: len(content) // 2])
        if manner == "stall":
            self.server.stalled.wait(10)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A running server; server.url(manner) is a mirror that serves in that manner, server.asked the paths asked for."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.asked, running.stalled = [], threading.Event()
    running.url = lambda manner: f"http://127.0.0.1:{running.server_port}/{manner}"
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.stalled.set()
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """The resource tables of torchvision and medmnist with the checksums of the small files; no Debian package."""
    idx_files = [(name, md5) for name, md5 in MD5.items() if "idx" in name]
    for known in (MNIST, FashionMNIST):
        monkeypatch.setattr(known, "resources", idx_files)
    split = ["http://127.0.0.1:9/train_32x32.mat", "train_32x32.mat", MD5["train_32x32.mat"]]
    monkeypatch.setattr(SVHN, "split_list", {**SVHN.split_list, "train": split})
    for name in ("chestmnist", "bloodmnist"):
        monkeypatch.setitem(medmnist.INFO[name], "MD5", MD5[f"{name}.npz"])
    monkeypatch.setattr(_downloads, "DEBIAN_FASHION_MNIST", tmp_path / "no such folder")


def files_in(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def load(name="mnist", split="train", *, root, mirror):
    return la.load(name, split, root=root / "downloads", mirror=mirror)


# What is served whole


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_idx(server, tmp_path, name, split):
    images = load(name, split, root=tmp_path, mirror=server.url("ok"))
    np.testing.assert_array_equal(images.images[:, 0], IMAGES[split])
    np.testing.assert_array_equal(images.labels, LABELS[split])
    assert images.source == f"{name}/{split}"
    assert len(server.asked) == 2  # the other split is left where it is


def test_svhn(server, tmp_path):
    images = load("svhn", root=tmp_path, mirror=server.url("ok"))
    np.testing.assert_array_equal(images.images, COLOUR.transpose(0, 3, 1, 2))
    assert images.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 1]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_multi_label_medmnist(server, tmp_path, split):
    images = load("chestmnist", split, root=tmp_path, mirror=server.url("ok"))
    assert images.multi_label
    assert images.n_classes == 14
    assert images.class_names[:2] == ("atelectasis", "cardiomegaly")
    np.testing.assert_array_equal(images.images[:, 0], IMAGES["train"])
    np.testing.assert_array_equal(images.labels, CHEST)


def test_colour_medmnist(server, tmp_path):
    images = load("bloodmnist", "val", root=tmp_path, mirror=server.url("ok"))
    np.testing.assert_array_equal(images.images, COLOUR[:, :28, :28].transpose(0, 3, 1, 2))
    assert images.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]


def test_a_second_load_asks_nobody(server, tmp_path):
    first = load(root=tmp_path, mirror=server.url("ok"))
    again = load(root=tmp_path, mirror=server.url("gone"))
    assert again.fingerprint() == first.fingerprint()
    assert len(server.asked) == 2


def test_a_packed_file_stays_packed_where_the_server_calls_that_an_encoding(server, tmp_path):
    assert len(load(root=tmp_path, mirror=server.url("encoded"))) == 30


def test_a_download_may_be_read_by_everybody(server, tmp_path):
    (tmp_path / "own").touch()
    load("svhn", root=tmp_path, mirror=server.url("ok"))
    assert (tmp_path / "downloads/SVHN/train_32x32.mat").stat().st_mode == (tmp_path / "own").stat().st_mode


def test_progress_bar(server, tmp_path, capsys):
    load(root=tmp_path, mirror=server.url("ok"))
    assert "train-images-idx3-ubyte.gz: 100%" in capsys.readouterr().err


def test_a_folder_as_mirror(tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, content in FILES.items():
        (mirror / name).write_bytes(content)
    assert len(load(root=tmp_path, mirror=mirror)) == 30
    assert len(load("svhn", root=tmp_path, mirror=str(mirror))) == 12
    assert files_in(mirror) == sorted(FILES)


def test_without_a_mirror_the_known_servers_are_tried_in_turn(server, tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", [server.url("gone") + "/", server.url("short") + "/", server.url("ok") + "/"])
    assert len(load(root=tmp_path, mirror=None)) == 30
    assert [path.split("/")[1] for path in server.asked] == ["gone", "short", "ok"] * 2


def test_medmnist_own_address(server, tmp_path, monkeypatch):
    monkeypatch.setitem(medmnist.INFO["chestmnist"], "url", server.url("ok") + "/chestmnist.npz?download=1")
    assert len(load("chestmnist", root=tmp_path, mirror=None)) == 30


def test_debians_package_is_read_where_it_lies(server, tmp_path, monkeypatch):
    debian = tmp_path / "debian"
    debian.mkdir()
    for name, content in FILES.items():
        (debian / name).write_bytes(gzip.compress(gzip.decompress(content), 1) if "idx" in name else content)
    monkeypatch.setattr(_downloads, "DEBIAN_FASHION_MNIST", debian)
    images = load("fashion-mnist", root=tmp_path, mirror=None)
    np.testing.assert_array_equal(images.images[:, 0], IMAGES["train"])
    assert not (tmp_path / "downloads").exists()
    load("fashion-mnist", root=tmp_path / "other", mirror=server.url("ok"))
    assert len(server.asked) == 2  # a mirror that is asked for is used
    (debian / "train-images-idx3-ubyte.gz").write_bytes(FILES["train-images-idx3-ubyte.gz"][:-500])
    with pytest.raises(la.LalibError, match=r"debian/train-images-idx3-ubyte.gz cannot be read: Compressed file ended"):
        load("fashion-mnist", root=tmp_path, mirror=None)


# What goes wrong: the message says why and what to put where, and nothing half-written stays

FAILURES = {
    "short": r"broke off after [\d,]+ of [\d,]+ bytes",
    "unsized": r"sent [\d,]+ bytes with MD5 \w+, not \w+",
    "garbage": r"sent 693 bytes with MD5 \w+, not \w+",
    "gone": r"HTTP Error 404",
    "stall": r"timed out",
    "odd": r"invalid literal for int.*'many'",
}


@pytest.mark.parametrize("manner", FAILURES)
def test_a_failed_download_leaves_nothing(server, tmp_path, monkeypatch, manner):
    monkeypatch.setattr(_downloads, "TIMEOUT", 0.3)
    with pytest.raises(la.LalibError, match=FAILURES[manner]):
        load(root=tmp_path, mirror=server.url(manner))
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("name", ["mnist", "svhn", "chestmnist"])
def test_a_server_that_is_not_there(tmp_path, name, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    file = {"mnist": "train-images-idx3-ubyte.gz", "svhn": "train_32x32.mat", "chestmnist": "chestmnist.npz"}[name]
    with pytest.raises(la.LalibError, match=f"{file} could not be downloaded") as caught:
        load(name, root=tmp_path, mirror=f"http://127.0.0.1:{port}")
    message = str(caught.value)
    assert "Connection refused" in message
    folder = {"mnist": "MNIST/raw", "svhn": "SVHN", "chestmnist": "MedMNIST"}[name]
    assert f"Put {file} (MD5 {MD5[file]}) into {tmp_path / 'downloads' / folder}, or give mirror=" in message
    assert files_in(tmp_path) == []
    (tmp_path / "downloads" / folder / file).write_bytes(FILES[file])  # as the message says
    if name == "mnist":
        labels = "train-labels-idx1-ubyte.gz"
        (tmp_path / "downloads" / folder / labels).write_bytes(FILES[labels])
    assert len(load(name, root=tmp_path, mirror=f"http://127.0.0.1:{port}")) in (12, 30)


def test_an_earlier_complete_file_is_kept(server, tmp_path):
    images = tmp_path / "downloads" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    images.parent.mkdir(parents=True)
    images.write_bytes(FILES[images.name])
    before = images.stat()
    with pytest.raises(la.LalibError, match=r"train-labels-idx1-ubyte\.gz could not be downloaded"):
        load(root=tmp_path, mirror=server.url("short"))
    assert files_in(tmp_path) == [images.name]
    assert images.read_bytes() == FILES[images.name]
    assert images.stat().st_mtime_ns == before.st_mtime_ns


def test_a_damaged_file_that_is_there_is_named_and_not_touched(server, tmp_path):
    images = tmp_path / "downloads" / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    images.parent.mkdir(parents=True)
    images.write_bytes(FILES[images.name][:100])
    with pytest.raises(la.LalibError, match=r"train-images-idx3-ubyte.gz is damaged: .* \(100 bytes\).* Delete it"):
        load(root=tmp_path, mirror=server.url("ok"))
    assert images.read_bytes() == FILES[images.name][:100]
    assert server.asked == []


def test_ctrl_c_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupted(self, url, part, _):
        Path(part).write_bytes(FILES["train-images-idx3-ubyte.gz"][:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(root=tmp_path, mirror=server.url("ok"))
    assert files_in(tmp_path) == []


def test_a_root_that_cannot_be_made(server, tmp_path):
    (tmp_path / "downloads").write_text("a file where the folder should be")
    with pytest.raises(la.LalibError, match=r"(Not a directory|File exists)"):
        load(root=tmp_path, mirror=server.url("ok"))


def test_a_mirror_that_is_neither_url_nor_folder(tmp_path):
    with pytest.raises(ValueError, match=r"mirror must be an http\(s\) URL or an existing folder, got '.*nowhere'"):
        load(root=tmp_path, mirror=tmp_path / "nowhere")


def test_a_mirror_folder_without_the_file(tmp_path):
    with pytest.raises(la.LalibError, match=r"train-images-idx3-ubyte.gz: .*No such file"):
        load(root=tmp_path, mirror=tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("mnist", "train-images-idx3-ubyte.gz", gzip.compress(b"not IDX", mtime=0)),
        (
            "mnist",
            "train-images-idx3-ubyte.gz",
            gzip.compress(gzip.decompress(FILES["train-images-idx3-ubyte.gz"])[:-9]),
        ),
        ("svhn", "train_32x32.mat", b"not a .mat"),
        ("chestmnist", "chestmnist.npz", npz(images=IMAGES["train"])),
    ],
)
def test_right_checksum_but_another_content(server, tmp_path, monkeypatch, name, file, content):
    monkeypatch.setitem(FILES, file, content)
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(
        MNIST, "resources", [(known, md5 if known == file else right) for known, right in MNIST.resources]
    )
    monkeypatch.setattr(SVHN, "split_list", {"train": ["", "train_32x32.mat", md5]})
    monkeypatch.setitem(medmnist.INFO["chestmnist"], "MD5", md5)
    with pytest.raises(la.LalibError, match=f"{file} cannot be read: "):
        load(name, root=tmp_path, mirror=server.url("ok"))
