"""The whole way as a person goes it, by keyboard alone: a folder of 500 photos, a kernel that dies, predictions."""

import csv
import os
import signal

import pytest
from jupyter_lab import App, launch, nameless, open_page, wait_for
from PIL import Image

import lalib as la

pytestmark = pytest.mark.browser

COUNT, SIZE, CLASSES = 500, 28, ("shoe", "bag", "=clothes<img src=x onerror=alert(1)>")
SHOES, BAG = ("Sandal", "Sneaker", "Ankle boot"), "Bag"
EVIL = "=<img src=x onerror=alert(1)>"  # in the name of a file


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """500 pictures of clothes; the first letters of a file's name are the key of its class."""
    folder, clothes = tmp_path_factory.mktemp("photos"), la.load("fashion-mnist-mini").subset(range(COUNT))
    for number, (picture, label) in enumerate(zip(clothes.images, clothes.labels.tolist(), strict=True)):
        name = clothes.class_names[label]
        key = 1 if name in SHOES else 2 if name == BAG else 3
        Image.fromarray(picture[0].numpy()).save(
            folder / f"{key} {number:03}{EVIL.replace('/', '') * (number == 7)}.png"
        )
    return folder


@pytest.fixture(scope="module")
def app(photos, tmp_path_factory):
    with App(photos, tmp_path_factory.mktemp("app"), CLASSES, SIZE) as app:
        yield app


@pytest.fixture(scope="module")
def shown(app, chromium):
    with launch(chromium) as browser:
        shown = open_page(browser, app.address)
        shown.set_viewport_size({"width": 1280, "height": 800})
        shown.alerts = []
        shown.on("dialog", lambda dialog: (shown.alerts.append(dialog.message), dialog.dismiss()))
        yield shown


@pytest.fixture
def answers(app):
    return lambda: la.LabelStore(app.folder / "labels.sqlite", labeller="me").answers()


def focused(shown):
    """What the button with the focus says."""
    return shown.evaluate(
        "document.activeElement.tagName === 'BUTTON' ? document.activeElement.textContent.trim() : ''"
    )


def press(shown, words):
    """Go to the button that begins with these words, by Tab, and press it."""
    shown.locator(f"button:has-text('{words}'):enabled").first.wait_for()
    for _ in range(80):
        if focused(shown).startswith(words):
            shown.keyboard.press("Enter")
            return
        shown.keyboard.press("Tab")
    pytest.fail(f"no way by Tab to {words!r}")


def label(shown, most=COUNT):
    """Answer by the key that the file's name begins with, until the labeller has no image left, or so many."""
    shown.wait_for_selector(".lalib-labeller:focus")
    for _ in range(min(most, left := int(shown.locator(".lalib-labeller").get_attribute("data-left")))):
        shown.keyboard.press(shown.locator(".lalib-stage figcaption").first.inner_text()[0])
    shown.wait_for_selector(f".lalib-labeller[data-unsaved='0'][data-left='{max(0, left - most)}']")


def die(shown, app, key=None):
    """Kill the kernel, go on with a key, which the labeller says is not saved, and load the page again."""
    os.kill(app.kernel(shown).pid, signal.SIGKILL)
    if key:
        shown.keyboard.press(key)
        shown.wait_for_selector(".lalib-trouble:has-text('1 not saved: there is no reply')")
    shown.goto(app.address)
    shown.wait_for_selector(".lalib-tiles img")


def test_from_a_folder_to_predictions_by_keyboard_alone(shown, app, answers):
    press(shown, "Label the yardstick (100 left)")
    label(shown, most=30)
    assert len(answers()) == 30
    die(shown, app, "1")  # in the middle of the yardstick
    assert len(answers()) == 30
    press(shown, "Label the yardstick (70 left)")
    label(shown)
    press(shown, "Choose 20 and label")
    label(shown, most=7)
    die(shown, app)  # in the middle of a round
    assert len(answers()) == 107
    press(shown, "Learn")
    press(shown, "Choose 13 and label")
    label(shown)
    wait_for(lambda: focused(shown) == "Learn", "the focus on what comes next")
    shown.keyboard.press("Enter")
    die(shown, app)  # while it learns
    assert len(answers()) == 120
    press(shown, "Learn")
    shown.wait_for_selector(".lalib-sentence:has-text('of the 100 yardstick images are right')")
    press(shown, "4 Result")
    shown.wait_for_selector("button:has-text('4 Result: written')")
    with open(app.folder / "labels-result" / "predictions.csv", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == COUNT
    given = [row for row in rows if row["labelled_by"] == "me"]
    assert len(given) == 120
    name = {"1": CLASSES[0], "2": CLASSES[1], "3": CLASSES[2]}
    assert all(row["class"].removeprefix("'") == name[row["file"][0]] for row in given)
    assert {row["class"].removeprefix("'") for row in rows} <= {*CLASSES}


def test_the_map_and_the_keyboard_select(shown):
    shown.locator(".lalib-map").focus()
    shown.keyboard.press("Enter")
    shown.wait_for_selector("button:has-text('Label this image')")
    shown.get_by_role("combobox", name="colour by").select_option("predicted class")
    shown.wait_for_selector(".lalib-legend:has-text('shoe')")


def test_nothing_of_a_name_is_run_and_no_request_leaves(shown):
    assert nameless(shown) == []
    assert shown.alerts == []
    assert shown.locator("img[src=x]").count() == 0
    assert shown.outside == []
