"""The app: its settings and widgets; its page in a real browser; and that nothing answers without the token."""

import contextlib
import dataclasses
import functools
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from jupyter_lab import free_port, launch, nameless, open_page, private, wait_for
from PIL import Image

import lalib as la
from lalib.app import Settings, page, prepare
from lalib.app.__main__ import parser, settings_of
from lalib.app.server import TokenOnly, server
from lalib.training import fitting

CLASSES = ("cat", "dog", "eel")
COUNT, SIZE = 40, 16
NOTEBOOK = Path(la.__file__).parent / "app" / "page.ipynb"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of small pictures."""
    folder = tmp_path_factory.mktemp("photos")
    digits = la.load("digits").subset(range(COUNT)).images[:, 0].numpy()
    for number, digit in enumerate(digits):
        Image.fromarray(digit).resize((SIZE, SIZE)).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def settings(photos, tmp_path):
    return Settings(str(photos), CLASSES, str(tmp_path / "new" / "labels.sqlite"), "me", SIZE)


@pytest.fixture
def bench(settings, monkeypatch):
    environment = {}
    settings.tell(environment)
    monkeypatch.setattr(os, "environ", environment)
    return page()


# Settings


def test_command_line(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos.parent)
    options = ["--images", photos.name, "--classes", "cat, dog,eel", "--size", "16", "--labeller", "me"]
    settings = settings_of(parser().parse_args(options))
    labels = photos.parent / "runs" / f"labels-{photos.name}.sqlite"
    assert settings == Settings(str(photos), CLASSES, str(labels), "me", SIZE)
    assert settings_of(parser().parse_args([])).images == "fashion-mnist-mini"
    assert settings_of(parser().parse_args([])).seconds == 60
    assert settings_of(parser().parse_args(["--seconds", "2.5"])).seconds == 2.5
    assert settings_of(parser().parse_args(["--codes", "resnet18"])).codes == "resnet18"
    assert settings_of(parser().parse_args(["--codes", "mine.npz"])).codes == str(photos.parent / "mine.npz")


def test_images_and_labels(settings, tmp_path):
    images = settings.load()
    assert images.image_shape == (1, SIZE, SIZE)
    assert settings.store(images).class_names == CLASSES
    again = Settings(settings.images, (), settings.labels, "me", SIZE)
    assert again.store(images).class_names == CLASSES  # those of the file
    with pytest.raises(la.LalibError, match=r"say which classes there are"):
        Settings(settings.images, (), str(tmp_path / "other.sqlite")).store(images)
    with pytest.raises(ValueError, match=r"images must be a folder or one of digits, .*, got 'fotos'"):
        Settings("fotos").load()
    assert len(Settings("digits").load().class_names) == 10


def test_bad_files_may_be_left_out(photos, tmp_path, monkeypatch):
    for file in [*photos.iterdir()][:2]:
        shutil.copy(file, tmp_path)
    (tmp_path / "text.png").write_text("no image")
    options = ["--images", str(tmp_path), "--classes", "a,b", "--labels", str(tmp_path / "labels.sqlite")]
    with pytest.raises(ValueError, match=r"1 of 3 images cannot be read: text.png .* bad_files='skip' leaves"):
        settings_of(parser().parse_args(options)).load()
    settings = settings_of(parser().parse_args([*options, "--bad-files", "skip"]))
    with pytest.warns(UserWarning, match="1 of 3 images cannot be read"):
        assert len(settings.load()) == 2
    monkeypatch.setattr(os, "environ", environment := {})
    settings.tell(environment)
    assert len(page().images) == 2  # without a further word


def test_prepare_trains_the_map_of_the_page(settings, tmp_path, monkeypatch):
    class Clock:
        now = 0.0

        def perf_counter(self):
            self.now += 0.1
            return self.now

    histories = []

    def counted(*given, **options):
        histories.append(la.fit(*given, **options))
        return histories[-1]

    monkeypatch.setattr(fitting, "time", Clock())
    monkeypatch.setitem(prepare.__globals__, "fit", counted)
    prepared = prepare(dataclasses.replace(settings, seconds=1), tmp_path)
    assert [len(history.epochs) for history in histories] == [3]  # an epoch takes 0.4 seconds of this clock
    monkeypatch.setattr(os, "environ", environment := {})
    prepared.tell(environment)
    bench = page()
    assert list(bench.explorer.places) == ["VAE", "PCA"]
    assert bench.explorer.places["VAE"].codes.shape == (COUNT, 2)


@pytest.fixture
def shown_with(settings, tmp_path, monkeypatch):
    """The page's widgets, prepared with changed settings."""

    def shown(**changes):
        (folder := tmp_path / "prepared").mkdir(exist_ok=True)
        monkeypatch.setattr(os, "environ", environment := {})
        prepare(dataclasses.replace(settings, **changes), folder).tell(environment)
        return page()

    return shown


def test_colour_photos_have_the_codes_of_a_pretrained_network(shown_with, photos, tmp_path, monkeypatch):
    (colour := tmp_path / "colour").mkdir()
    for number, file in enumerate(sorted(photos.iterdir())[:12]):
        Image.merge("RGB", [Image.open(file).point(lambda v, c=c: v * c // 3) for c in (1, 2, 3)]).save(
            colour / f"{number}.png"
        )
    bench = shown_with(images=str(colour))
    places = bench.explorer.places
    assert list(places) == ["efficientnet-lite0", "PCA"]
    assert places["efficientnet-lite0"].codes.shape == (12, 1280)
    assert places["efficientnet-lite0"].view.shape == (12, 2)
    assert len(bench.explorer.selection) == 12
    bench.who.value = "I, on the map"
    assert torch.equal(bench.explorer.points, places["efficientnet-lite0"].view)

    monkeypatch.setitem(Settings.coded.__globals__, "PretrainedEncoder", None)  # the codes were kept
    again = shown_with(images=str(colour)).explorer.places["efficientnet-lite0"]
    assert torch.equal(again.codes, places["efficientnet-lite0"].codes)
    assert torch.equal(again.view, places["efficientnet-lite0"].view)


def test_codes_from_a_file(shown_with, settings, tmp_path):
    images, codes = settings.load(), torch.randn(COUNT, 7, generator=torch.Generator().manual_seed(0))
    la.codes.save_codes(tmp_path / "mine.npz", codes, images)
    places = shown_with(codes=str(tmp_path / "mine.npz")).explorer.places
    assert list(places) == ["mine", "PCA"]
    assert torch.equal(places["mine"].codes, codes)
    la.codes.save_codes(tmp_path / "mine.npz", codes[1:], images.subset(range(1, COUNT)))
    with pytest.raises(la.LalibError, match=r"does not hold the codes of these 40 images: 1 without a row \(00.png\)"):
        shown_with(codes=str(tmp_path / "mine.npz"))
    with pytest.raises(ValueError, match=r"name must be a network of torchvision or timm, got 'effnet'; close to it: "):
        shown_with(codes="effnet")
    assert not [file for file in settings.cache.iterdir() if file.suffix == ".npz"]


# Widgets


def test_what_the_explorer_picks_is_labelled(bench, settings):
    bench.explorer.controls["n"].value = 7
    assert bench.button.description == "Label these 7 images"
    bench.button.click()
    labeller = bench.labeller
    assert bench.bench.children == (labeller,)
    assert labeller.index.tolist() == bench.explorer.selection.tolist()
    labeller.answer(2, 1)
    expected = torch.full((COUNT,), -1)
    expected[bench.explorer.selection[2]] = 1
    assert torch.equal(bench.store.labels(bench.images), expected)

    bench.explorer.controls["n"].value = 8
    bench.label()
    assert bench.labeller is not labeller
    assert labeller.comm is None
    assert bench.sentence.value.startswith("8 images, 1 of them labelled already. ")
    assert bench.sentence.value.endswith(f"saved at once in {settings.labels}, as given by me.")


def test_answers_to_other_pixels_are_told(bench, settings):
    assert bench.sentence.value == ""
    bench.store.put("0" * 64, "eel")
    again = la.widgets.Workbench(bench.images, bench.codes, bench.store)
    assert again.sentence.value.startswith("1 answer by me in ")
    bench.store.put(bench.images.hashes[0], "eel")
    assert la.widgets.Workbench(bench.images, bench.codes, bench.store).sentence.value == ""


def test_answers_from_a_file_reach_the_labeller(bench, settings):
    bench.label()
    index = bench.explorer.selection
    path = la.labelling.write_selection(Path(settings.labels).with_name("query.csv"), bench.images, index)
    path.write_text(path.read_text("utf-8-sig").replace(",\n", ",eel\n"), "utf-8")
    bench.explorer.exchange.controls["answers"].value = "query.csv"
    bench.explorer.exchange.controls["read answers"].click()
    assert set(bench.labeller.answers) == {CLASSES.index("eel")}
    assert bench.sentence.value.startswith(f"{COUNT} images, {COUNT} of them labelled already. ")


def test_a_reader_chooses(bench):
    bench.who.value = "I, on the map"
    assert bench.button.disabled  # nothing is selected yet
    bench.explorer.controls["images"].value = "3, 5-6"
    assert bench.button.description == "Label these 3 images"
    bench.button.click()
    assert bench.labeller.index.tolist() == [3, 5, 6]
    bench.who.value = "a strategy"
    assert bench.button.description == f"Label these {COUNT} images"


def test_what_cannot_be_labelled_is_said(bench, settings):
    Path(settings.labels).write_text("something else")
    bench.button.click()
    assert bench.labeller is None
    assert bench.sentence.value.startswith("Nothing to label: ")


# The server


def status(app, path, method="GET", token=False, **headers):
    """The status of an answer. Headers: Host, Origin, ...; token: with it or without."""
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers |= {"Authorization": f"token {app.token}"} if token else {}
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        return connection.getresponse().status


class App:
    """`python -m lalib.app` as a process, as soon as it has printed its address."""

    def __init__(self, photos, folder):
        self.folder, self.log = folder, folder / "log"
        options = ["--images", str(photos), "--classes", ",".join(CLASSES), "--size", str(SIZE), "--labeller", "me"]
        options += ["--labels", "labels.sqlite", "--seconds", "1", "--port", str(free_port())]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lalib.app", *options],
                cwd=folder,
                env=private(folder) | {"PYTHONPATH": str(Path(la.__file__).parent.parent)},
                stdout=log,
                stderr=log,
                preexec_fn=functools.partial(
                    signal.signal, signal.SIGINT, signal.SIG_DFL
                ),  # a job of a shell ignores it
            )
        found = wait_for(self._address, f"the address in {self.log}")
        self.address, self.port, self.token = found[0], int(found[1]), found[2]

    def _address(self):
        if self.process.poll() is not None:
            pytest.fail(self.log.read_text())
        return re.search(r"http://127.0.0.1:(\d+)/\?token=([\w-]{43})\n", self.log.read_text())

    @property
    def kernels(self):
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def app(photos, tmp_path_factory):
    app = App(photos, tmp_path_factory.mktemp("app"))
    yield app
    app.process.kill()
    app.process.wait()


ID = "01234567-0123-0123-0123-0123456789ab"
STATIC = (
    "/voila/static/voila.js",
    "/voila/templates/base/static/voila.js",
    "/voila/labextensions/@voila-dashboards/widgets-manager8/package.json",
    "/voila/api/themes/@jupyterlab/theme-light-extension/index.css",
)
OTHERS = ("/login", "/logout", "/api", "/api/kernels", f"/api/kernels/{ID}", f"/api/kernels/{ID}/channels", "/nothing")
OTHERS += ("/voila/files/page.ipynb", "/voila/files/x.png", f"/voila/api/shutdown/{ID}", "/voila/tree", "/favicon.ico")


@pytest.mark.parametrize("path", ["/", "/?token=wrong", *STATIC, *OTHERS])
def test_without_the_token_all_is_refused(app, path):
    for method in ("GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS"):
        assert status(app, path, method) == 403
    assert status(app, path, Authorization="token wrong") == 403
    assert status(app, path, Cookie=f"username-127-0-0-1-{app.port}=x") == 403
    assert status(app, path, token=True, Host=f"evil.example:{app.port}") == 403  # a name that was made to lead here


@pytest.mark.parametrize("path", STATIC)
def test_with_the_token_the_pages_parts_are_there(app, path):
    assert status(app, path, token=True) == 200


@pytest.mark.parametrize("path", ["/voila/files/page.ipynb", "/voila/files/x.png", "/voila/files/../page.py"])
def test_not_even_the_token_opens_files(app, path):
    assert status(app, path, token=True) == 403


def test_every_route_of_voila_is_closed(tmp_path, monkeypatch):
    """Those that the lists above do not know, too."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # Voila's handler is not for this process
    made = server(NOTEBOOK, 8866, "secret")
    made.connection_dir = str(tmp_path)
    made.init_settings()
    handlers = [handler for _, handler, *_ in made.init_handlers()]
    assert len(handlers) >= 10
    assert [handler for handler in handlers if handler.__mro__[1] is not TokenOnly] == []
    assert made.ip == "127.0.0.1"
    assert 0 < made.kernel_manager.cull_idle_timeout <= 600  # of kernels whose page went away without a word
    assert not made.kernel_manager.cull_connected


def test_the_notebook_is_committed_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert [cell.outputs for cell in cells if cell.cell_type == "code"] == [[]]


# The page


@pytest.fixture(scope="module")
def shown(app, chromium):
    """The page in a browser."""
    with launch(chromium) as browser:
        shown = open_page(browser, app.address)
        shown.wait_for_selector(".lalib-sentence:has-text('picked by')")
        shown.wait_for_selector(".js-plotly-plot .scatterlayer .trace >> nth=2", state="attached")
        yield shown


def picked(shown):
    """Places of the rings on the map, names of the thumbnails."""
    rings = shown.locator(".js-plotly-plot >> nth=0").locator(".scatterlayer .trace >> nth=2").locator("path.point")
    places = rings.evaluate_all("paths => paths.map(p => p.getAttribute('transform'))")
    return places, shown.locator("img[alt*=picks]").get_attribute("alt")


@pytest.mark.browser
def test_a_control_changes_the_pictures(shown):
    before = picked(shown)
    assert len(before[0]) == COUNT  # what was picked before the page was there
    shown.get_by_role("slider", name="n (images)").focus()
    shown.keyboard.press("ArrowLeft")
    wait_for(lambda: len(picked(shown)[0]) == COUNT - 1, "one ring less")
    wait_for(lambda: picked(shown)[1].startswith(f"All {COUNT - 1} picks"), "one thumbnail less")
    assert f"{COUNT - 1} of {COUNT} images picked" in shown.locator(".lalib-sentence >> nth=0").inner_text()


@pytest.mark.browser
def test_a_key_labels_what_was_picked(shown, app, photos):
    count = len(picked(shown)[0])
    shown.get_by_role("button", name=f"Label these {count} images").focus()
    shown.keyboard.press("Enter")
    shown.wait_for_selector(".lalib-labeller:focus")  # the keys are its own at once
    shown.wait_for_selector(f".lalib-sentence:has-text('{count} images, 0 of them labelled already')")
    shown.keyboard.press("2")
    shown.wait_for_selector(f".lalib-labeller[data-unsaved='0'][data-left='{count - 1}']")
    store = la.LabelStore(app.folder / "labels.sqlite", labeller="me")
    labels = store.labels(la.from_folder(photos, SIZE))
    assert sorted(labels.tolist()) == [-1] * (COUNT - 1) + [1]


@pytest.mark.browser
def test_the_focus_can_be_seen(shown):
    shown.locator(".widget-dropdown select >> nth=0").focus()
    for _ in range(10):
        shown.keyboard.press("Tab")
        outline = shown.evaluate("getComputedStyle(document.activeElement).outline")
        assert "solid 3px" in outline, shown.evaluate("document.activeElement.className")


@pytest.mark.browser
@pytest.mark.parametrize("who", ["a strategy", "I, on the map"])
def test_every_control_and_picture_has_a_name(shown, who):
    shown.get_by_role("combobox", name="who chooses").select_option(who)
    shown.wait_for_selector({"a strategy": ".js-plotly-plot .gtitle", "I, on the map": ".lalib-map canvas"}[who])
    shown.wait_for_timeout(500)  # until all of it is there
    assert all(shown.get_by_role(role).count() for role in ("button", "combobox", "slider", "textbox"))
    assert shown.locator("img:visible, .js-plotly-plot").count() >= 2
    assert nameless(shown) == []


@pytest.mark.browser
def test_a_reader_chooses_on_the_map(shown):
    shown.get_by_role("combobox", name="who chooses").select_option("I, on the map")
    shown.wait_for_selector(".lalib-map canvas")
    shown.get_by_role("textbox", name="images").fill("3, 5")
    shown.keyboard.press("Enter")
    shown.get_by_role("button", name="Label these 2 images").click()
    shown.wait_for_selector(".lalib-labeller[data-left='1'], .lalib-labeller[data-left='2']")  # one may have its label


@pytest.mark.browser
def test_kernel_and_sockets_are_closed_to_others(shown, app):
    kernel = json.loads(shown.locator("#jupyter-config-data").text_content())["kernelId"]
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    upgrade["Sec_WebSocket_Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    path, channels = f"/api/kernels/{kernel}", f"/api/kernels/{kernel}/channels"
    assert status(app, path) == 403
    assert status(app, path, "DELETE") == 403
    assert status(app, path, token=True) == 200
    assert status(app, channels, **upgrade) == 403
    assert status(app, channels, token=True, **upgrade) == 101
    cookie = "; ".join(f"{each['name']}={each['value']}" for each in shown.context.cookies())
    elsewhere = {"Cookie": cookie, "Origin": f"http://127.0.0.1:{app.port + 1}"}  # another page, in the same browser
    assert status(app, channels, **upgrade, **elsewhere) == 403
    assert status(app, channels, **upgrade, **elsewhere | {"Origin": f"http://127.0.0.1:{app.port}"}) == 101
    assert status(app, path, "DELETE", **elsewhere) in (403, 404)
    assert status(app, f"/voila/api/shutdown/{kernel}", "POST", **elsewhere) in (403, 404)
    assert status(app, path, token=True) == 200


@pytest.mark.browser
def test_it_listens_on_the_loopback_address_only(shown, app):
    def listening(process):
        return {each.laddr for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN}

    assert listening(psutil.Process(app.process.pid)) == {("127.0.0.1", app.port)}
    (kernel,) = app.kernels
    inner = listening(
        kernel
    )  # where ipykernel gathers what its own children print; without its secret it passes on nothing
    assert len(inner) <= 1
    assert {address.ip for address in inner} <= {"127.0.0.1"}


@pytest.mark.browser
def test_no_request_leaves_the_machine(shown):
    assert shown.outside == []


@pytest.mark.browser
def test_the_kernel_ends_with_its_page(shown, app):
    assert len(app.kernels) == 1
    shown.unroute_all()  # playwright would hold back the last request of a page
    shown.goto("about:blank")
    wait_for(lambda: app.kernels == [], "the end of the kernel", seconds=30)


def test_ctrl_c_ends_it(app):
    kernels = app.kernels
    app.process.send_signal(signal.SIGINT)
    assert app.process.wait(timeout=90) == 0
    assert not [kernel for kernel in kernels if kernel.is_running()]
    assert "Traceback" not in app.log.read_text()
