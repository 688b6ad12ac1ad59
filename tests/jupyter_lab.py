"""A JupyterLab, the app, and a headless chromium of their own, for the browser tests and benchmarks."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import psutil

import lalib

__all__ = [
    "OUTPUT",
    "App",
    "framed",
    "free_port",
    "launch",
    "nameless",
    "open_notebook",
    "open_page",
    "private",
    "run_all",
]
__all__ += ["serve", "wait_for"]

TIMEOUT = 120_000  # ms: the first plot under software rendering may take a minute
OUTPUT = ".jp-OutputArea-output"  # of a cell
CONTROLS = ("button", "checkbox", "combobox", "link", "slider", "spinbutton", "textbox")  # roles
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]


def wait_for(ready: Callable, what: str, seconds: float = 90):
    """What `ready` returns, as soon as that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, urllib.error.URLError, json.JSONDecodeError):
            if result := ready():
                return result
        time.sleep(0.2)
    raise TimeoutError(f"{what} not within {seconds} s")


@contextlib.contextmanager
def serve(folder: Path, notebooks: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The address of a JupyterLab on `folder`: a notebook of these cells for every name, and nothing of the user's."""
    for name, cells in notebooks.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    address = f"http://127.0.0.1:{(port := free_port())}"
    options = [f"--port={port}", "--no-browser", "--ip=127.0.0.1", "--allow-root", f"--ServerApp.root_dir={folder}"]
    options += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, open(Path(home) / "log", "wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, env=private(Path(home)), stdout=log, stderr=log)
        try:
            wait_for(lambda: urllib.request.urlopen(f"{address}/api", timeout=5).status == 200, "JupyterLab")
            yield address
        finally:
            server.terminate()  # which shuts its kernels down
            server.wait(timeout=60)


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def private(home: Path) -> dict[str, str]:
    """An environment in which Jupyter reads and writes below `home`, and does not look for news and updates."""
    places = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"]
    places += ["JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"]
    settings = home / "jupyterlab_settings_dir" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    return os.environ | {place: str(home / place.lower()) for place in places}


class App:
    """`python -m lalib.app` on a folder of photos as a process, as soon as it has printed its address; it is killed
    at the end of its block."""

    def __init__(self, photos: Path, folder: Path, classes: Sequence[str], size: int):
        self.folder, self.log = folder, folder / "log"
        options = ["--images", str(photos), "--classes", ",".join(classes), "--size", str(size), "--labeller", "me"]
        options += ["--labels", "labels.sqlite", "--seconds", "1", "--port", str(free_port())]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lalib.app", *options],
                cwd=folder,
                env=private(folder) | {"PYTHONPATH": str(Path(lalib.__file__).parent.parent)},
                stdout=log,
                stderr=log,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a job of a shell ignores it
            )
        found = wait_for(self._address, f"the address in {self.log}", 300)
        self.address, self.port, self.token = found[0], int(found[1]), found[2]

    def __enter__(self) -> "App":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()

    def _address(self):
        assert self.process.poll() is None, self.log.read_text()
        return re.search(r"http://127.0.0.1:(\d+)/\?token=([\w-]{43})\n", self.log.read_text())

    @property
    def kernels(self) -> list:
        """Its kernels, without the process that prepares the page: those of pages, and the one that is ahead."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "ipykernel_launcher" in _command(child)]

    def kernel(self, page) -> psutil.Process | None:
        """The page's kernel; None once it has ended."""
        return next((child for child in self.kernels if f"kernel-{kernel_of(page)}.json" in str(_command(child))), None)


def kernel_of(page) -> str:
    """The id of the kernel behind a page of Voila."""
    return json.loads(page.locator("#jupyter-config-data").text_content())["kernelId"]


def _command(process: psutil.Process) -> list[str]:
    """The words of its command line; none of one that has ended by now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


@contextlib.contextmanager
def launch(chromium: str) -> Iterator:
    """The browser at the path `chromium`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


def open_page(browser, address: str):
    """A page; page.outside lists requests that were about to leave the machine."""
    page = browser.new_page(viewport={"width": 1500, "height": 1400})
    page.set_default_timeout(TIMEOUT)
    page.outside = []
    page.route(lambda url: urlsplit(url).hostname not in ("127.0.0.1", None), lambda route: _keep_in(page, route))
    page.goto(address)
    return page


def open_notebook(browser, address: str, name: str):
    """A page with a notebook, its kernel ready."""
    page = open_page(browser, f"{address}/lab/workspaces/auto-{name}/tree/{name}.ipynb?reset")
    page.wait_for_selector("text='Python 3 (ipykernel) | Idle'")  # earlier, Run asks for a kernel
    return page


def run_all(page) -> None:
    """Start all cells."""
    page.click("text=Run >> nth=0")
    page.click("text='Run All Cells'")


def nameless(page, within: str = "body") -> list[str]:
    """What in there has no name, of a word at least, for a screen reader: roles of controls, HTML of pictures."""
    seen = "\n".join(part.aria_snapshot() for part in page.locator(within).all())
    controls = re.findall(rf'^ *- \'?({"|".join(CONTROLS)})\b(?: "(.*)")?', seen, re.MULTILINE)
    assert controls, f"no control in {within}: {seen}"
    pictures = page.locator(within).locator("img:visible, .js-plotly-plot:visible")
    silent = pictures.evaluate_all(
        "all => all.filter(e => !(e.alt || e.ariaLabel)).map(e => e.outerHTML.slice(0, 200))"
    )
    return [role for role, name in controls if not re.search(r"\w\w", name)] + silent


def framed(page) -> bool:
    """Whether what has the focus shows it: a frame of at least 2 pixels."""
    outline = page.evaluate("getComputedStyle(document.activeElement).outline")
    return bool(re.search(r"solid ([2-9]|\d\d)", outline))


def _keep_in(page, route):
    page.outside.append(route.request.url)
    route.abort()
