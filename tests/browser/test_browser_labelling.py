"""The labeller in a real JupyterLab: keys label, none is lost, not even when the kernel is killed."""

import os
import signal

import pytest
from jupyter_lab import OUTPUT, framed, launch, nameless, open_notebook, run_all, serve

import lalib as la

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


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chromium):
    """(address, folder) of a JupyterLab that serves a notebook with the labeller."""
    folder = tmp_path_factory.mktemp("lab")
    with serve(folder, {"label": [CELL]}) as address:
        yield address, folder


@pytest.fixture(scope="module")
def page(lab, chromium):
    with launch(chromium) as browser:
        page = open_notebook(browser, lab[0], "label")
        run_all(page)
        page.wait_for_selector(".lalib-labeller")
        yield page


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
    assert box.locator("button").count() == 10 + 7
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


def test_no_request_leaves_the_machine(page):
    assert page.outside == []
