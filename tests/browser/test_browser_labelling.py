"""The labeller in a real JupyterLab: keys label, none is lost, not even when the kernel is killed; files are shown."""

import base64
import os
import signal

import numpy as np
import pytest
from jupyter_lab import OUTPUT, framed, launch, nameless, open_notebook, run_all, serve
from odd_files import odd_files
from PIL import Image

import lalib as la
from lalib.data.decoding import read_whole

pytestmark = pytest.mark.browser

IMAGES, KEYED = 130, 100
CLASSES = [str(c) for c in range(10)]
CELL = f"""
import os, pathlib
import torch
import lalib as la

images = la.load("digits").subset(range({IMAGES}))
store = la.LabelStore("labels.sqlite", {CLASSES}, labeller="reader")
pathlib.Path("pid").write_text(str(os.getpid()))
la.widgets.Labeller(images, store, range({IMAGES}), probs=lambda index: torch.eye(10)[[3]])
"""
PHOTOS, WIDTH, HEIGHT = 30, 300, 200
NASTY = "<img src=x onerror=window.ran=1>"  # as the name of a class and of a file
FILES = f"""
import torch
import lalib as la

images = la.from_folder("photos", size=32, labels="none")
store = la.LabelStore("photos.sqlite", ["cat", "dog", {NASTY!r}], labeller="reader")
groups = torch.arange({PHOTOS})
groups[10:13] = 10
la.widgets.Labeller(images, store, range({PHOTOS}), groups=groups)
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chromium):
    """(address, folder) of a JupyterLab that serves notebooks with the labeller, and a folder of photos."""
    folder = tmp_path_factory.mktemp("lab")
    (folder / "photos" / "deep").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (PHOTOS, 4, 6, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        name = f"deep/{i:02}{NASTY * (i == 4)}.{'tif' if i == 1 else 'jpg'}"
        Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(folder / "photos" / name)
    with serve(folder, {"label": [CELL], "files": [FILES]}) as address:
        yield address, folder


@pytest.fixture(scope="module")
def browser(chromium):
    with launch(chromium) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(lab, browser):
    return opened(browser, lab[0], "label")


@pytest.fixture(scope="module")
def photos(lab, browser):
    return opened(browser, lab[0], "files")


def opened(browser, address, name):
    page = open_notebook(browser, address, name)
    run_all(page)
    page.wait_for_selector(".lalib-labeller")
    return page


@pytest.fixture
def album(photos):
    """The labeller on the photos, at the first of them."""
    box = photos.locator(".lalib-labeller")
    box.focus()
    photos.get_by_label("which images are shown").select_option(label="all images")
    for _ in range(PHOTOS // 5):
        photos.keyboard.press("ArrowUp")
    return box


@pytest.fixture
def box(page):
    box = page.locator(".lalib-labeller")
    box.focus()
    return box


@pytest.fixture
def store(lab):
    return la.LabelStore(lab[1] / "labels.sqlite", labeller="reader")


def images():
    return la.load("digits").subset(range(IMAGES))


def settled(page):
    page.wait_for_selector(".lalib-labeller[data-unsaved='0']")


def test_a_hundred_images_at_the_speed_of_the_keys(page, box, store):
    keys = [str((7 * i + 3) % 10) for i in range(KEYED)]
    page.keyboard.type("".join(keys))  # no pause between them
    settled(page)
    labels = store.labels(images()).tolist()
    assert labels[:KEYED] == [(int(key) - 1) % 10 for key in keys]  # the key 1 is the first class, 0 the tenth
    assert labels[KEYED:] == [-1] * (IMAGES - KEYED)
    assert "100 labelled, 0 not sure, 0 skipped, 30 left" in box.locator(".lalib-status").inner_text()


def test_no_key_is_a_command_of_jupyterlab(page, box, store):
    cells = page.locator(".jp-Cell").count()
    before = len(store.history())
    for key in ("d", "d", "x", "b", "a", "Enter", "Escape"):  # delete, cut, insert below and above, edit, command mode
        page.keyboard.press(key)
    settled(page)
    assert page.locator(".jp-Cell").count() == cells
    assert len(store.history()) == before
    assert box.evaluate("box => box.contains(document.activeElement)")


def test_undo_answers_and_buttons(page, box, store):
    page.keyboard.type("5z7us")  # 5 is taken back before the kernel has heard of it
    settled(page)
    hashes = images().hashes
    given = store.answers()
    assert given[hashes[100]].class_name == "6"
    assert (given[hashes[101]].kind, given[hashes[102]].kind) == ("unsure", "skip")
    page.get_by_label("label as 9").click()
    page.keyboard.type("2")  # the focus is back on the box
    settled(page)
    assert store.labels(images()).tolist()[103:105] == [9, 1]
    said = box.locator(".lalib-said")
    assert said.inner_text() == "Image 105: 1."
    assert "model" not in said.inner_text()
    page.keyboard.press("m")
    page.wait_for_selector(".lalib-said:has-text('The model says 3 (100%)')")


def test_every_control_has_a_name_and_the_keyboard_suffices(page, box):
    assert box.locator("button:visible").count() == 10 + 10
    assert nameless(page, OUTPUT) == []
    assert framed(page)
    assert box.evaluate("box => getComputedStyle(box).backgroundColor") == "rgb(255, 255, 255)"  # in a dark theme, too
    assert box.locator("img").get_attribute("alt").startswith("image 106 of 130")
    page.keyboard.press("v")
    assert box.locator("figure").count() == 25
    assert nameless(page, OUTPUT) == []
    assert box.locator("figure[aria-current] img").get_attribute("alt").startswith("image 106 of 130")
    page.keyboard.press("v")
    page.keyboard.press("Tab")  # leaves the box for its first button
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "label as 0"
    assert framed(page)
    page.keyboard.press("Shift+Tab")
    assert box.evaluate("box => box === document.activeElement")


def test_a_killed_kernel_loses_no_label(page, lab, box, store):
    box.focus()
    page.keyboard.type("11111")
    page.wait_for_function("document.querySelector('.lalib-labeller').dataset.unsaved < 5")  # some are saved
    os.kill(int((lab[1] / "pid").read_text()), signal.SIGKILL)
    answered = IMAGES - int(box.get_attribute("data-left"))
    on_the_page = answered - int(box.get_attribute("data-unsaved"))
    assert len(store.answers()) >= on_the_page
    page.click(".jp-Dialog button:has-text('Ok')")  # "the kernel appears to have died"
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    page.evaluate("document.querySelector('.lalib-labeller').remove()")  # the old one would be found first
    run_all(page)
    page.wait_for_selector(".lalib-labeller")
    settled(page)
    left = int(box.get_attribute("data-left"))
    assert left == IMAGES - len(store.answers())
    box.focus()
    page.keyboard.type("4" * left)
    settled(page)
    assert "0 left" in box.locator(".lalib-status").inner_text()
    assert len(store.answers()) == IMAGES


# The files themselves


def said(page):
    return page.locator(".lalib-status").inner_text()


def shown(page, name):
    """Wait until the file itself is shown."""
    page.wait_for_selector(f".lalib-stage img[src^='blob:'][alt*='deep/{name}']")


def scale(box):
    return box.locator(".lalib-frame img").evaluate("image => new DOMMatrix(getComputedStyle(image).transform).a")


def test_the_file_itself_is_shown(photos, album):
    shown(photos, "00.jpg")
    assert album.locator("figcaption").inner_text() == f"deep/00.jpg, {WIDTH} x {HEIGHT} pixels"
    natural = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
    assert album.locator(".lalib-frame img").evaluate(natural) == [WIDTH, HEIGHT]
    photos.keyboard.press("ArrowRight")
    shown(photos, "01.tif")
    assert nameless(photos, OUTPUT) == []


def test_a_file_that_has_gone_is_said_and_its_small_picture_stays(photos, lab, album):
    (lab[1] / "photos" / "deep" / f"{PHOTOS - 1}.jpg").unlink()
    for _ in range(PHOTOS // 5):
        photos.keyboard.press("ArrowDown")
    photos.wait_for_selector(f".lalib-trouble:has-text('The file deep/{PHOTOS - 1}.jpg is gone')")
    assert album.locator(".lalib-frame img").get_attribute("src").startswith("data:image/png")
    photos.keyboard.press("ArrowLeft")
    assert album.locator(".lalib-trouble").inner_text() == ""


def test_zoom(photos, album):
    frame = album.locator(".lalib-frame")
    photos.keyboard.press("+")
    photos.keyboard.press("=")
    assert scale(album) == pytest.approx(1.5**2)
    place = "image => new DOMMatrix(getComputedStyle(image).transform).e"
    before = frame.locator("img").evaluate(place)
    photos.keyboard.press("Shift+ArrowRight")
    assert frame.locator("img").evaluate(place) < before
    frame.hover()
    photos.mouse.down()
    photos.mouse.move(*[frame.bounding_box()[side] + 20 for side in "xy"], steps=4)
    photos.mouse.up()
    assert frame.locator("img").evaluate(place) < before - 60
    photos.keyboard.press("-")
    assert scale(album) == pytest.approx(1.5)
    photos.mouse.wheel(0, -300)
    photos.wait_for_function("new DOMMatrix(document.querySelector('.lalib-frame img').style.transform).a > 2.5")
    photos.keyboard.press(".")
    assert scale(album) == 1
    photos.keyboard.press("+")
    photos.keyboard.press("ArrowRight")
    assert scale(album) == 1  # the next image is seen whole


def test_one_key_labels_several_and_one_undo_takes_them_back(photos, lab, album):
    store = la.LabelStore(lab[1] / "photos.sqlite", labeller="reader")
    hashes = la.from_folder(lab[1] / "photos", size=32, labels="none").hashes
    photos.keyboard.press("v")
    for key in ("ArrowRight", "Space", "Shift+ArrowRight", "Shift+ArrowDown", "ArrowLeft", "Space"):
        photos.keyboard.press(key)
    assert "The next answer is for 6 chosen images" in said(photos)  # 1, 2 to 7, without 6
    photos.keyboard.type("2")
    settled(photos)
    assert {hashes.index(image) for image in store.answers()} == {1, 2, 3, 4, 5, 7}
    assert {answer.class_name for answer in store.answers().values()} == {"dog"}
    photos.keyboard.type("z")
    settled(photos)
    assert store.answers() == {}
    tiles = album.locator("figure")
    tiles.nth(15).click()
    tiles.nth(18).click(modifiers=["Shift"])
    tiles.nth(17).click()
    assert "The next answer is for 3 chosen images" in said(photos)
    photos.keyboard.type("3")
    settled(photos)
    assert len(store.classes()) == 3  # 10 to 12 are one tile
    photos.keyboard.press("*")
    assert "The next answer is for 25 chosen images" in said(photos)
    photos.keyboard.press("*")
    photos.keyboard.press("v")
    assert "chosen" not in said(photos)


def test_answers_are_found_again_and_corrected(photos, lab, album):
    store = la.LabelStore(lab[1] / "photos.sqlite", labeller="reader")
    photos.get_by_label("which images are shown").select_option(label=NASTY)
    assert "(1 of 3 shown)" in said(photos)
    before = set(store.answers())
    photos.keyboard.type("12")
    settled(photos)
    assert "(3 of 3 shown)" in said(photos)
    assert set(store.answers()) == before
    assert sorted(store.classes().values()) == sorted([NASTY, "cat", "dog"])
    photos.get_by_label("which images are shown").select_option(label="not answered")
    assert f"(1 of {PHOTOS - 2 - 3} shown)" in said(photos)
    photos.get_by_label("which images are shown").select_option(label="not sure")
    assert album.locator(".lalib-said").inner_text() == "There is no image of these: not sure."
    assert "shown)" not in said(photos)


def test_near_copies_are_answered_only_if_they_are_opened(photos, lab, album):
    store = la.LabelStore(lab[1] / "photos.sqlite", labeller="reader")
    images = la.from_folder(lab[1] / "photos", size=32, labels="none", bad_files="skip")
    for key in ("ArrowDown", "ArrowDown"):
        photos.keyboard.press(key)
    assert f"Image 11 of {PHOTOS - 2}" in said(photos)
    photos.keyboard.type("1")
    settled(photos)
    assert store.labels(images)[10:13].tolist() == [0, -1, -1]
    photos.keyboard.press("ArrowLeft")
    photos.keyboard.press(",")
    assert album.locator("figure").count() == 3
    assert "The next answer is for 3 chosen images" in said(photos)
    photos.keyboard.type("2")
    settled(photos)
    assert store.labels(images)[10:13].tolist() == [1, 1, 1]
    assert album.locator("figure").count() == 1
    photos.keyboard.type("z")
    settled(photos)
    assert store.labels(images)[10:13].tolist() == [0, -1, -1]
    assert f"Image 11 of {PHOTOS - 2}" in said(photos)


def test_no_name_is_run(photos, album):
    photos.keyboard.press("ArrowRight")
    for _ in range(3):
        photos.keyboard.press("ArrowRight")
    shown(photos, f"04{NASTY}.jpg")
    assert album.locator("figcaption").inner_text().startswith(f"deep/04{NASTY}.jpg")
    assert album.get_by_label(f"label as {NASTY}").inner_text() == f"3 {NASTY}"
    assert photos.evaluate("window.ran") is None
    assert album.locator("img[src=x]").count() == 0


def test_a_browser_shows_files_as_lalib_sees_them(browser, tmp_path):
    """All odd files that can be read, as they are or as they are written anew for the browser, on white."""
    page, draw = (
        browser.new_page(),
        """async ([type, data]) => {
        const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
        const image = new Image();
        image.src = URL.createObjectURL(new Blob([bytes], { type }));
        await image.decode();
        const [width, height] = [image.naturalWidth, image.naturalHeight];
        const context = new OffscreenCanvas(width, height).getContext("2d");
        context.fillStyle = "white";
        context.fillRect(0, 0, width, height);
        context.drawImage(image, 0, 0);
        return [height, width, [...context.getImageData(0, 0, width, height).data]];
    }""",
    )
    files = {name: file for name, file in odd_files().items() if not isinstance(file[1], str)}
    assert len(files) > 60
    wrong = {}
    for name, (data, expected) in files.items():
        (tmp_path / name).write_bytes(data)
        kind, data, *_ = read_whole(tmp_path / name)
        height, width, values = page.evaluate(draw, [kind, base64.b64encode(data).decode()])
        seen = np.array(values).reshape(height, width, 4)[..., :3]
        expected = expected[..., None].repeat(3, 2) if expected.ndim == 2 else expected
        if seen.shape != expected.shape or abs(seen - expected).max() > 12:  # JPEG is not exact
            wrong[name] = kind, seen.shape, abs(seen - expected).max() if seen.shape == expected.shape else None
    assert wrong == {}
    page.close()


def test_no_request_leaves_the_machine(page, photos):
    assert page.outside == photos.outside == []
