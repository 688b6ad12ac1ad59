"""Real image files in: each as a person sees it or named, folders as they are, every image known by its own file."""

import importlib.util
import io
import re
import shutil

import numpy as np
import pytest
from odd_files import ALPHA, DEEP, GREY, RANGE, RGB, SEEN, H, W, exif, odd_files, saved, write_odd_files, xmp
from PIL import Image, ImageFilter

import lalib as la
from lalib.app import Settings
from lalib.data import decoding

FILES = odd_files()
EIGHT_BITS = "ignore:.* have more than 8 bits:UserWarning"
# What lalib knew these files by before it knew them by their own pixels: size=8 in a grey folder, then in one with
# colours. LA.png was that of L.png, its transparency dropped.
BEFORE = {
    "16.png": "c4e1bc1f815581a0caa5e463b6dfadd50ae67d113a212098d8ed97a310671334",
    "L.png": "4a593f2cbd37cbfe92ebf1da2f6fa927d3f1907312c45d2e6910d6089053e52c",
    "LA.png": "4a593f2cbd37cbfe92ebf1da2f6fa927d3f1907312c45d2e6910d6089053e52c",
}
BEFORE_IN_COLOUR = {
    "L.png": "e731c9547a6c7ca48d7211645c64e4b1af7612af9b2beb2a9e45a7f898f52ea3",
    "RGBA.png": "24830b8c4b11e689dab71f1abe0af84171e917d318821daab9dc70f87509ef6b",
}


def put(folder, *names):
    """Some of the odd files, in a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(FILES[name.split("/")[-1]][0])


def picture(images, index=0):
    """(H, W), or (H, W, 3)."""
    return images.images[index].permute(1, 2, 0).numpy().squeeze(2 if images.image_shape[0] == 1 else ())


# Pixels as a person sees them


def test_there_are_many_odd_files():
    assert len(FILES) >= 60
    assert sum(isinstance(expected, str) for _, expected in FILES.values()) >= 20


@pytest.mark.filterwarnings(EIGHT_BITS)
@pytest.mark.parametrize("name", FILES)
def test_an_odd_file_is_read_right_or_named(name, tmp_path):
    data, expected = FILES[name]
    (tmp_path / name).write_bytes(data)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match="1 of 1 images cannot be read: ") as e:
            la.from_folder(tmp_path)
        assert re.search(expected, str(e.value), re.DOTALL)
        assert name.replace("\n", r"\n") in str(e.value)
        assert "\n" not in str(e.value)
    else:
        images = la.from_folder(tmp_path)
        assert images.files == (name,)
        np.testing.assert_allclose(picture(images), expected, atol=5 if name.startswith("LAB") else 0)


@pytest.mark.filterwarnings(EIGHT_BITS)
def test_a_browser_gets_a_file_as_it_is_or_anew(tmp_path, monkeypatch):
    """Which bytes; that they look the same is seen in the browser (test_browser_labelling.py)."""
    put(tmp_path, "RGB.jpg", "RGBA.webp", "EXIF 6.png", "RGB.tif", "16.png", "two.mpo", "CMYK.jpg")
    for kind, said in {"EXIF": {"exif": exif(6)}, "XMP": {"xmp": xmp(6).encode()}}.items():
        (tmp_path / f"{kind}.jpg").write_bytes(saved(RGB, "JPEG", **said))
    images = la.from_folder(tmp_path, size=8)
    as_it_is = {"RGB.jpg": "jpeg", "RGBA.webp": "webp", "two.mpo": "jpeg", "EXIF.jpg": "jpeg", "CMYK.jpg": "jpeg"}
    for name, known in zip(images.files, images.hashes, strict=True):
        kind, data, size, shown, image = decoding.read_whole(tmp_path / name)
        assert kind == "image/" + as_it_is.get(name, "jpeg")
        assert (data == (tmp_path / name).read_bytes()) == (name in as_it_is)
        assert size == shown == ((H, W) if name in ("EXIF.jpg", "XMP.jpg") else (W, H))
        assert image == known
    monkeypatch.setattr(decoding, "LONGEST", 6)
    monkeypatch.setattr(decoding, "MOST_PIXELS", H * W - 1)
    kind, data, size, shown, image = decoding.read_whole(tmp_path / "RGBA.webp")
    assert (kind, size, shown) == ("image/jpeg", (W, H), (6, 5))
    assert Image.open(io.BytesIO(data)).size == (6, 5)
    assert image == images.hashes[images.files.index("RGBA.webp")]


def test_a_folder_of_odd_files(tmp_path):
    """The good ones are as if they were alone, the bad ones are counted together."""
    expected = write_odd_files(tmp_path)
    expected["holes only.tif"] = np.full((H, W), 255)  # beyond the depth that is given
    bad = [name for name, what in expected.items() if isinstance(what, str)]
    with pytest.warns(UserWarning, match="left out") as said:
        images = la.from_folder(tmp_path, size=(H, W), bad_files="skip", depth=RANGE)
    assert len(said) == 1
    assert str(said[0].message).startswith(f"{len(bad)} of {len(FILES)} images cannot be read: ")
    assert set(images.files) == set(expected) - set(bad)
    for name in (
        "L.png",
        "16.tif",
        "LA.png",
        "EXIF 6.tif",
        "XMP 7.webp",
        "raw profile 8.png",
        "RGBA.webp",
        "holes only.tif",
    ):
        pixels = expected[name] if expected[name].ndim == 3 else np.stack([expected[name]] * 3, axis=2)
        np.testing.assert_array_equal(picture(images, images.files.index(name)), pixels)


def test_all_unreadable_files_are_named_together(tmp_path):
    """What is no image and what breaks off in its pixels; other sizes are told apart from that."""
    put(tmp_path, "L.png", "text.png", "90%.jpg", "50%.png")
    with pytest.raises(
        ValueError, match=r"3 of 4 images cannot be read: 50%.png \(.*\), 90%.jpg \(.*\), text.png \("
    ) as e:
        la.from_folder(tmp_path, size=8)
    assert "L.png" not in str(e.value)
    with pytest.warns(UserWarning, match="3 of 4 images cannot be read"):
        assert la.from_folder(tmp_path, size=8, bad_files="skip").files == ("L.png",)


def test_bombs_are_named(tmp_path, monkeypatch):
    put(tmp_path, "L.png")
    (tmp_path / "bomb.png").write_bytes(saved(np.zeros((40, 40), np.uint8), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(
        ValueError, match=r"1 of 2 images cannot be read: bomb.png \(Image size \(1600 pixels\) exceeds"
    ):
        la.from_folder(tmp_path, size=8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)  # where Pillow only warns, and warnings are errors
    with pytest.raises(
        ValueError, match=r"1 of 2 images cannot be read: bomb.png \(Image size \(1600 pixels\) exceeds"
    ):
        la.from_folder(tmp_path, size=8)


@pytest.mark.parametrize("turned", [False, True])
def test_a_very_long_image_fits_in_every_way(tmp_path, turned):
    line = np.full((1, 20_000), 50, np.uint8)
    (tmp_path / "line.png").write_bytes(saved(line.T if turned else line, "PNG"))
    assert (picture(la.from_folder(tmp_path, size=9)) == 50).all()
    assert (picture(la.from_folder(tmp_path, size=9, fit="crop")) == 50).all()
    padded = picture(la.from_folder(tmp_path, size=9, fit="pad"))
    assert ((padded.T if turned else padded)[4] == 50).all()
    assert (padded == 255).sum() == 72
    with pytest.raises(ValueError, match="at least 8 x 8 pixels, got"):
        la.from_folder(tmp_path)


def test_fit(tmp_path):
    """A black picture, twice as wide as high, with white ends."""
    wide = np.zeros((20, 40), np.uint8)
    wide[:, :10] = wide[:, 30:] = 255
    (tmp_path / "wide.png").write_bytes(saved(wide, "PNG"))

    def dark(fit, background="white"):
        return picture(la.from_folder(tmp_path, size=20, fit=fit, background=background))[:, 10]

    middle = [255] * 5 + [0] * 10 + [255] * 5
    assert picture(la.from_folder(tmp_path, size=20))[10].tolist()[5:15].count(0) >= 8
    assert dark("stretch").tolist() == dark("crop").tolist() == [0] * 20
    assert (picture(la.from_folder(tmp_path, size=20, fit="crop")) == 0).all()
    assert dark("pad").tolist() == middle
    assert dark("pad", "#ff0000").tolist() == [76] * 5 + [0] * 10 + [76] * 5  # the brightness of red


def test_background(tmp_path):
    put(tmp_path, "RGBA.png")
    for background, seen in (("red", (255, 0, 0)), ((1, 2, 3), (1, 2, 3)), (np.array([4, 5, 6]), (4, 5, 6))):
        expected = np.where(ALPHA[..., None] == 0, seen, RGB)
        np.testing.assert_array_equal(picture(la.from_folder(tmp_path, background=background)), expected)


def test_depth_is_one_for_the_whole_folder_and_said_once(tmp_path):
    for name, factor in (("a.tif", 1), ("b.tif", 2)):
        (tmp_path / name).write_bytes(saved((DEEP * factor).astype(np.uint16), "TIFF"))
    put(tmp_path, "L.png")
    with pytest.warns(UserWarning, match="more than 8 bits") as said:
        images = la.from_folder(tmp_path)
    (only,) = map(str, {w.message for w in said})
    assert only.startswith(f"2 of 3 images have more than 8 bits: 100 becomes 0 and {2 * RANGE[1]} becomes 255; depth=")
    assert said[0].filename == __file__
    low, high = 100, 2 * RANGE[1]
    by_name = dict(zip(images.files, images.images[:, 0].numpy(), strict=True))
    np.testing.assert_array_equal(by_name["a.tif"], np.round((DEEP - low) / (high - low) * 255))
    np.testing.assert_array_equal(by_name["b.tif"], np.round((DEEP * 2 - low) / (high - low) * 255))
    np.testing.assert_array_equal(by_name["L.png"], GREY)  # 8 bits stay
    assert len(np.unique(by_name["b.tif"])) > 100
    given = la.from_folder(tmp_path, depth=RANGE)  # without a word
    np.testing.assert_array_equal(given.images[given.files.index("a.tif"), 0], SEEN)
    assert int(given.images[given.files.index("b.tif"), 0].max()) == 255


def test_a_damaged_file_has_no_say_in_the_depth(tmp_path):
    put(tmp_path, "16.tif")
    whole = saved((DEEP * 9).astype(np.uint16), "TIFF")
    (tmp_path / "half.tif").write_bytes(whole[: len(whole) // 2])
    said = f"1 of 1 images have more than 8 bits: 100 becomes 0 and {RANGE[1]} becomes 255"
    with pytest.warns(UserWarning, match="half.tif"), pytest.warns(UserWarning, match=said):
        images = la.from_folder(tmp_path, bad_files="skip")
    np.testing.assert_array_equal(picture(images), SEEN)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fit": "cut"}, ValueError, "fit must be one of 'stretch', 'crop', 'pad', got 'cut'"),
        ({"background": "whit"}, ValueError, "background must be a colour such as 'white' or '#ffffff', got 'whit'"),
        (
            {"background": (1, 2)},
            ValueError,
            r"background must be a colour's name or \(red, green, blue\), got \(1, 2\)",
        ),
        ({"background": 7}, ValueError, r"background must be a colour's name or \(red, green, blue\), got \(7,\)"),
        ({"background": (0, 0, 256)}, ValueError, "background must be at most 255, got 256"),
        ({"depth": "own"}, ValueError, r"depth must be 'auto' or \(low, high\), got 'own'"),
        ({"depth": (1, 2, 3)}, ValueError, r"depth must be 'auto' or \(low, high\), got 1, 2, 3"),
        ({"depth": (5, 5)}, ValueError, r"depth must be \(low, high\) with low below high, got \(5.0, 5.0\)"),
        ({"depth": (0, "x")}, TypeError, "depth must be a number, got 'x'"),
        ({"labels": "years"}, ValueError, "labels must be one of 'folders', 'none', got 'years'"),
    ],
)
def test_wrong_options(tmp_path, options, error, message):
    put(tmp_path, "L.png")
    with pytest.raises(error, match=message):
        la.from_folder(tmp_path, **options)


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="needs pillow-heif, of the extra photos")
def test_heic(tmp_path):
    decoding.formats()  # which also lets Pillow write it
    Image.fromarray(RGB.repeat(8, 0).repeat(8, 1)).save(tmp_path / "phone.HEIC", format="HEIF", quality=100)
    images = la.from_folder(tmp_path)
    assert images.image_shape == (3, 8 * H, 8 * W)
    assert np.abs(picture(images)[4::8, 4::8].astype(int) - RGB).mean() < 8


def test_what_is_passed_over_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "formats", lambda: ["PNG"])
    monkeypatch.setattr("lalib.data.folders.formats", lambda: ["PNG"])
    put(tmp_path, "L.png")
    for name in ("phone.heic", "scan", "a/b/drawing.psd", "two\nlines.txt", ".hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="passed over") as said:
        assert len(la.from_folder(tmp_path)) == 1
    assert [str(w.message) for w in said] == [
        f"4 of 5 files in {tmp_path} are passed over, since they are not named as images that are read (HEIC needs "
        r"pillow-heif, in the extra photos): a/b/drawing.psd, phone.heic, scan, two\nlines.txt"
    ]
    assert said[0].filename == __file__
    (tmp_path / "L.png").unlink()
    with pytest.raises(
        ValueError, match=r"holds no images \(files ending in .*\), but a/b/drawing.psd, phone.heic, scan"
    ):
        la.from_folder(tmp_path)


# Folders as they are


YEARS = ("L.png", "2019/L.png", "2019/sea/LA.png", "2020/May/1/2/3/4/5/EXIF 6.png")


def test_mere_folders(tmp_path):
    put(tmp_path, *YEARS)
    images = la.from_folder(tmp_path, labels="none")
    assert images.files == tuple(sorted(YEARS))
    assert (images.labels, images.class_names) == (None, ())
    named = la.from_folder(tmp_path, labels="none", class_names=["2019", "cat"])  # to label with
    assert (named.labels, named.class_names) == (None, ("2019", "cat"))
    with pytest.warns(UserWarning, match="no folder in .* has the name of a class: they are not taken as classes"):
        images = la.from_folder(tmp_path, class_names=["cat", "dog"])
    assert (images.files, images.labels, images.class_names) == (tuple(sorted(YEARS)), None, ("cat", "dog"))
    with pytest.raises(
        ValueError, match=r"1 of 4 images lie beside the class folders: L.png. labels='none' takes folders"
    ):
        la.from_folder(tmp_path)
    with pytest.raises(
        ValueError, match=r"1 of 4 images lie beside the class folders: L.png. labels='none' takes folders"
    ):
        la.from_folder(tmp_path, class_names=["2019", "2020"])


def test_the_app_takes_folders_as_mere_folders_if_classes_are_given(tmp_path):
    put(tmp_path / "photos", *YEARS)
    settings = Settings(str(tmp_path / "photos"), ("cat", "dog"), str(tmp_path / "labels.sqlite"), size=8)
    images = settings.load()
    assert (images.files, images.labels) == (tuple(sorted(YEARS)), None)
    assert settings.store(images).class_names == ("cat", "dog")


# An image is known by its own file


def hashes(folder, **options):
    images = la.from_folder(folder, **options)
    return dict(zip(images.files, images.hashes, strict=True))


@pytest.mark.filterwarnings(EIGHT_BITS)
def test_hashes_depend_on_the_file_alone(tmp_path):
    put(tmp_path, "L.png", "LA.png", "16.tif", "EXIF 5.png")
    alone = hashes(tmp_path)
    assert alone["L.png"] == la.from_arrays(GREY[None]).hashes[0] == alone["EXIF 5.png"]
    assert len(set(alone.values())) == 3
    (tmp_path / "more.tif").write_bytes(saved((DEEP * 9).astype(np.uint16), "TIFF"))
    put(tmp_path, "RGBA.png", "opaque.png", "RGB.png")
    shutil.copy(tmp_path / "L.png", tmp_path / "renamed.png")
    (tmp_path / "other metadata.png").write_bytes(saved(GREY, "PNG", dpi=(99, 99), compress_level=1))
    for options in ({"size": 8}, {"size": 9, "fit": "pad"}, {"size": 9, "background": "red", "depth": (0, 9)}):
        found = hashes(tmp_path, **options)
        assert alone.items() <= found.items()
        assert found["renamed.png"] == found["other metadata.png"] == found["L.png"]
        assert found["opaque.png"] == found["RGB.png"] == la.from_arrays(RGB[None]).hashes[0] != found["RGBA.png"]
    images = la.from_folder(tmp_path, size=8)
    assert images.subset([4, 0]).hashes == (images.hashes[4], images.hashes[0])
    with pytest.raises(ValueError, match="identities must be of all 10 images, got 1"):
        la.ImageSet(images.images, None, (), "", identities=(("0" * 64,),))


def test_a_picture_under_transparency_is_one_of_its_own(tmp_path):
    """Black ink on transparent ground: without its alpha every drawing would be the same."""
    for name, alpha in (("a.png", ALPHA), ("b.png", ALPHA[:, ::-1])):
        ink = Image.new("RGBA", (W, H))
        ink.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
        ink.save(tmp_path / name)
    assert len(set(hashes(tmp_path).values())) == 2


@pytest.mark.filterwarnings(EIGHT_BITS)
def test_answers_of_an_earlier_lalib_are_found(tmp_path):
    """A file of labels from when an image was known by its resized pixels; later a photo in colour joins the folder."""
    folder = tmp_path / "photos"
    put(folder, *BEFORE)
    store = la.LabelStore(tmp_path / "labels.sqlite", ["cat", "dog", "eel"], labeller="me")
    other = la.LabelStore(tmp_path / "labels.sqlite", labeller="you")
    store.put(BEFORE["16.png"], "dog")
    store.put(BEFORE["16.png"], "eel")
    store.undo()
    store.put(BEFORE["L.png"], "cat")
    other.put(BEFORE["L.png"], "eel")
    with pytest.warns(UserWarning, match="had answers to 2 of these images by their resized pixels") as said:
        assert store.labels(la.from_folder(folder, size=8)).tolist() == [1, 0, 0]
    assert len([w for w in said if "resized" in str(w.message)]) == 1
    put(folder, "RGBA.png")
    for options in ({"size": 8}, {"size": 10, "fit": "crop"}, {"size": 16, "background": "red"}):
        images = la.from_folder(folder, **options)
        assert images.files == ("16.png", "L.png", "LA.png", "RGBA.png")
        assert store.labels(images).tolist() == [1, 0, 0, -1]  # without a further word
        assert other.labels(images).tolist() == [-1, 2, 2, -1]
        assert store.progress(images).labelled == 3
    assert store.history().kind.tolist().count("undo") == 1
    store.undo()


@pytest.mark.filterwarnings(EIGHT_BITS)
def test_answers_from_a_mixed_folder_are_found_in_a_grey_one(tmp_path):
    put(tmp_path / "photos", *BEFORE_IN_COLOUR)
    store = la.LabelStore(tmp_path / "labels.sqlite", ["cat", "dog"], labeller="me")
    store.put(BEFORE_IN_COLOUR["L.png"], "dog")
    store.put(BEFORE_IN_COLOUR["RGBA.png"], "cat")
    both = la.from_folder(tmp_path / "photos", size=8)
    (tmp_path / "photos" / "RGBA.png").unlink()
    with pytest.warns(UserWarning, match="had answers to 1 of these images"):
        assert store.labels(la.from_folder(tmp_path / "photos", size=8)).tolist() == [1]
    with pytest.warns(UserWarning, match="had answers to 1 of these images"):
        assert store.labels(both).tolist() == [1, 0]


@pytest.mark.filterwarnings(EIGHT_BITS)
@pytest.mark.parametrize("meet", ["adopt", "progress", "remaining", "Labeller", "loop", "merge", "selection", "app"])
def test_answers_of_an_earlier_lalib_are_found_by_all_who_use_a_store(meet, tmp_path):
    put(tmp_path / "photos", *BEFORE)
    path, images = tmp_path / "labels.sqlite", la.from_folder(tmp_path / "photos", size=8)
    store = la.LabelStore(path, ["cat", "dog"], labeller="me")
    store.put(BEFORE["16.png"], "dog")
    users = {
        "adopt": lambda: store.adopt(images),
        "progress": lambda: store.progress(images),
        "remaining": lambda: store.remaining(images),
        "Labeller": lambda: la.widgets.Labeller(images, store, [0]),
        "loop": lambda: la.LabellingLoop(images, images.images.flatten(1).float(), store, held_out=1),
        "merge": lambda: la.labelling.merge(store, images),
        "selection": lambda: la.labelling.write_selection(tmp_path / "list.csv", images, [0], store),
        "app": lambda: Settings(str(tmp_path / "photos"), (), str(path), size=8).store(images),
    }
    with pytest.warns(UserWarning, match="resized pixels"):
        users[meet]()
    assert list(store.answers()) == [images.hashes[0]]


@pytest.mark.filterwarnings(EIGHT_BITS)
def test_a_list_of_answers_of_an_earlier_lalib_is_read(tmp_path):
    put(tmp_path / "photos", *BEFORE)
    images = la.from_folder(tmp_path / "photos", size=8)
    (tmp_path / "answers.csv").write_text(f"image,class\n{BEFORE['16.png']},dog\n{'0' * 64},cat\n")
    store = la.LabelStore(tmp_path / "labels.sqlite", ["cat", "dog"], labeller="me")
    done = la.labelling.read_csv(store, tmp_path / "answers.csv", images)
    assert (done.added, done.bad) == (1, (f"line 3: image {'0' * 64} is none of the 3 images",))
    assert store.classes() == {images.hashes[0]: "dog"}


def test_another_image_is_not_taken_for_a_former_one(tmp_path):
    """A picture and its own copy of 8 x 8 pixels, both in the folder: an answer to the small one stays there."""
    big = Image.fromarray(GREY).resize((40, 40)).filter(ImageFilter.GaussianBlur(1))
    (tmp_path / "big.png").write_bytes(saved(big, "PNG"))
    (tmp_path / "small.png").write_bytes(saved(big.resize((8, 8), Image.Resampling.BILINEAR), "PNG"))
    images = la.from_folder(tmp_path, size=8)
    assert images.images[0].equal(images.images[1])
    store = la.LabelStore(tmp_path / "labels.sqlite", ["cat", "dog"], labeller="me")
    store.put(images.hashes[1], "dog")
    assert store.labels(images).tolist() == [-1, 1]
    assert store.labels(images.subset([0, 1])).tolist() == [-1, 1]


def test_files_are_closed(tmp_path):
    """An open file would be a warning, which is an error here."""
    put(tmp_path, "animated.gif", "pages.tif", "two.mpo", "text.png", "50%.tif")
    with pytest.warns(UserWarning, match="2 of 5 images cannot be read"):
        images = la.from_folder(tmp_path, size=8, bad_files="skip")
    assert images.files == ("animated.gif", "pages.tif", "two.mpo")
