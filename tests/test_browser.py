"""The sampling explorer in a real JupyterLab: a reader moves the controls, and kernel and pictures follow."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import nbformat
import pytest

import lalib as la

pytestmark = pytest.mark.browser

TIMEOUT = 120_000  # ms: the first plot under software rendering may take a minute
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
CELL = """
import json, pathlib
import lalib as la

images = la.load("digits").subset(range(300))
codes = la.project(images.images.flatten(1).float() / 255, "pca")
explorer = la.widgets.sampling_explorer(images, {"CAE": codes, "VAE": codes.flip(1)}, n=20)

def write(_=None):
    pathlib.Path("selection.json").write_text(json.dumps(explorer.selection.tolist()))

explorer.sentence.observe(write, "value")
write()
explorer
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(ready, what, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, urllib.error.URLError, json.JSONDecodeError):
            if result := ready():
                return result
        time.sleep(0.2)
    raise TimeoutError(f"{what} not within {seconds} s")


@contextlib.contextmanager
def jupyter_lab(tmp_path_factory, cells):
    """(address, folder) of a JupyterLab that serves notebooks, name -> the source of their cell, and nothing else."""
    folder, home = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("home")
    for name, source in cells.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    address = f"http://127.0.0.1:{(port := free_port())}"
    options = [f"--port={port}", "--no-browser", "--ip=127.0.0.1", "--allow-root", f"--ServerApp.root_dir={folder}"]
    options += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    with open(home / "log", "wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, env=private(home), stdout=log, stderr=log)
        try:
            wait_for(lambda: urllib.request.urlopen(f"{address}/api", timeout=5).status == 200, "JupyterLab")
            yield address, folder
        finally:
            server.terminate()  # which shuts its kernels down
            server.wait(timeout=60)


def private(home):
    """An environment in which Jupyter reads and writes below `home`, and does not look for news and updates."""
    places = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"]
    places += ["JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"]
    settings = home / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    return os.environ | {place: str(home / place.lower()) for place in places}


@contextlib.contextmanager
def opened(lab, chromium, name):
    """A page with a notebook that may be run; page.outside lists requests that were about to leave the machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1400})
        page.set_default_timeout(TIMEOUT)
        page.outside = []
        page.route(lambda url: urlsplit(url).hostname not in ("127.0.0.1", None), lambda route: keep_in(page, route))
        page.goto(f"{lab[0]}/lab/workspaces/auto-x/tree/{name}.ipynb?reset")
        page.wait_for_selector("text='Python 3 (ipykernel) | Idle'")  # earlier, Run asks for a kernel
        yield page
        browser.close()


def run_all_cells(page):
    page.click("text=Run >> nth=0")
    page.click("text='Run All Cells'")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chromium):
    with jupyter_lab(tmp_path_factory, {"explorer": CELL}) as served:
        yield served


@pytest.fixture(scope="module")
def page(lab, chromium):
    with opened(lab, chromium, "explorer") as page:
        run_all_cells(page)
        page.wait_for_selector(".lalib-sentence:has-text('picked by')")
        page.wait_for_selector(".js-plotly-plot .scatterlayer .trace >> nth=2", state="attached")
        yield page


def keep_in(page, route):
    page.outside.append(route.request.url)
    route.abort()


def state(page, folder):
    """What the kernel holds and what the page shows."""
    rings = page.locator(".js-plotly-plot >> nth=0").locator(".scatterlayer .trace >> nth=2").locator("path.point")
    return {
        "selection": json.loads((folder / "selection.json").read_text()),
        "rings": rings.evaluate_all("paths => paths.map(p => p.getAttribute('transform'))"),
        "thumbnails": page.locator("img[alt*=picks]").get_attribute("alt"),
        "sentence": page.locator(".lalib-sentence").inner_text(),
    }


def after(page, folder, before, action):
    """The state after `action`, as soon as all of it differs from `before`."""
    action()

    def changed():
        now = state(page, folder)
        return now if all(now[part] != before[part] for part in now) else None

    return wait_for(changed, f"a change of all of {list(before)}", seconds=60)


def test_dropdown_and_slider_change_kernel_and_pictures(page, lab):
    _, folder = lab
    first = state(page, folder)
    assert len(first["selection"]) == len(first["rings"]) == 20

    strategies = page.locator(".widget-dropdown:has-text('strategy') select")
    second = after(page, folder, first, lambda: strategies.select_option("k-medoids"))
    images = la.load("digits").subset(range(300))
    codes = la.project(images.images.flatten(1).float() / 255, "pca")
    assert second["selection"] == la.select("k-medoids", codes, 20, seed=0).tolist()
    assert "20 of 300 images picked by k-medoids" in second["sentence"]

    handle = page.locator(".widget-slider:has-text('n (images)') .noUi-handle")
    third = after(page, folder, second, lambda: (handle.focus(), page.keyboard.press("ArrowRight")))
    assert len(third["selection"]) == len(third["rings"]) == 21
    assert "21 of 300 images" in third["sentence"]
    assert third["thumbnails"].startswith("All 21 picks")


def test_rings_stay_open(page):
    """A batch of edits over several traces once gave them plotly's default fill, in the browser only."""
    rings = page.locator(".js-plotly-plot >> nth=0").locator(".scatterlayer .trace >> nth=2").locator("path.point")
    assert set(rings.evaluate_all("paths => paths.map(p => getComputedStyle(p).fill)")) == {"none"}


def test_a_screen_reader_is_told(page):
    sentence = page.locator(".lalib-sentence")
    assert sentence.get_attribute("role") == "status"
    assert sentence.get_attribute("aria-live") == "polite"


def test_no_plot_offers_to_share_its_data(page):
    page.locator(".js-plotly-plot >> nth=0").hover()
    titles = page.locator(".modebar-btn").evaluate_all("all => all.map(b => b.getAttribute('data-title') || '')")
    assert any("Zoom" in title for title in titles)
    assert not [title for title in titles if "hare" in title or "loud" in title]


def test_no_request_leaves_the_machine(page):
    assert page.outside == []
