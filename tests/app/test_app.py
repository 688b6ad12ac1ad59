"""The app: its settings and widgets; its page in a real browser; and that nothing answers without the token."""

import contextlib
import dataclasses
import http.client
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from jupyter_lab import App, kernel_of, launch, nameless, open_page, wait_for
from PIL import Image

import lalib as la
from lalib.app import Settings, page, prepare, shown as shown_or_why
from lalib.app.__main__ import main, parser, settings_of
from lalib.app.page import follow, plain
from lalib.app.server import TokenOnly, server
from lalib.codes import load_codes, near_duplicates
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


@pytest.fixture(autouse=True)
def map_by_pca(monkeypatch):
    """UMAP compiles for seconds in each process; the app itself, in the browser, has it."""
    monkeypatch.setitem(prepare.__globals__, "project", partial(la.project, method="pca"))


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
    with pytest.raises(
        ValueError, match=r"1 of 3 images cannot be read: text.png .* bad_files='skip' leaves"
    ) as refused:
        settings_of(parser().parse_args(options)).load()
    assert "BAD_FILES=skip leaves" in plain(refused.value)  # what a person of the app reads
    settings = settings_of(parser().parse_args([*options, "--bad-files", "skip"]))
    with pytest.warns(UserWarning, match="1 of 3 images cannot be read"):
        assert len(settings.load()) == 2
    monkeypatch.setattr(os, "environ", environment := {})
    settings.tell(environment)
    assert len(page().images) == 2  # without a further word


@pytest.mark.filterwarnings("always")
def test_what_the_command_line_says_is_for_a_person(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    for copy in ("photos/a.png", "photos/cats/b.png"):
        shutil.copy(photos / "00.png", tmp_path / copy)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    with pytest.raises(
        SystemExit, match=r"^error: 1 of 2 images lie beside .*: a.png. CLASSES=cat,dog takes folders as"
    ):
        main(["--images", "photos"])
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines()[1].endswith("since they are not named as images that are read: notes.txt.")
    with pytest.raises(SystemExit, match=r"^error: there must be 2 different images at least, got 1$"):
        main(["--images", "photos", "--classes", "cat,dog"])  # nothing to measure it with
    assert not [*tmp_path.rglob("*.sqlite")]


def test_a_folder_that_is_gone_is_said(settings, tmp_path, monkeypatch):
    gone = dataclasses.replace(settings, images=str(tmp_path / "gone"))
    assert gone.changed_since({"00.png"}).endswith("gone is gone. The page goes on with what it has read.")
    gone.tell(environment := {})
    monkeypatch.setattr(os, "environ", environment)
    assert shown_or_why().value.startswith("The page cannot be shown: images must be a folder or one of ")


def test_classes_may_be_added_renamed_and_left_out(settings):
    images = settings.load()
    settings.store(images).put(images.hashes[0], "cat")
    changed = dataclasses.replace(settings, classes=("fox", "dog"), rename="cat:tomcat")
    for _ in range(2):  # at the next start as well
        store = changed.store(images)
        assert store.class_names == ("tomcat", "dog", "eel", "fox")  # what is left out stays: it may have answers
        assert store.classes() == {images.hashes[0]: "tomcat"}
    store.put(images.hashes[1], "fox")
    assert store.undo().class_name == "fox"


def test_page_at_once_and_what_is_prepared_later(settings, monkeypatch):
    bench = page(settings)
    assert list(bench.codes) == ["PCA"]
    assert not bench.controls["next"].disabled  # the yardstick waits for nothing
    assert "being made" in bench.preparing
    steps = follow(settings, bench, bench.codes)
    settings.say("Learning a map of the images.", 3, 10)
    next(steps)
    assert (bench.bar.description, bench.bar.value, bench.bar.max) == ("Learning a map of the images.", 3, 10)
    assert bench.bar.layout.display is None

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
    prepare(dataclasses.replace(settings, seconds=1))
    assert [len(history.epochs) for history in histories] == [3]  # an epoch takes 0.4 seconds of this clock
    settings = dataclasses.replace(settings, seconds=1)
    assert list(follow(settings, bench, bench.codes)) == []  # all is there
    assert list(bench.codes) == ["VAE", "PCA"]
    assert bench.codes["VAE"].shape == (COUNT, 32)
    assert torch.equal(la.encode(bench.model, bench.images), bench.codes["VAE"])
    assert torch.equal(bench.points, load_codes(settings.made_of(bench.codes["VAE"], "map"), bench.images))
    group, near = near_duplicates(bench.codes["VAE"])
    assert torch.equal(bench.copies[0], group)
    assert torch.equal(bench.copies[1], near.clamp(max=1).float())
    assert bench.bar.layout.display == "none"
    assert bench.preparing == ""
    monkeypatch.setitem(Settings.coded.__globals__, "VAE", None)  # the codes were kept
    assert list(page(settings).codes) == ["VAE", "PCA"]


def test_a_preparation_that_fails_is_said(settings, tmp_path):
    settings = dataclasses.replace(settings, codes=str(tmp_path / "mine.npz"))
    with pytest.raises(FileNotFoundError, match="no codes at"):
        prepare(settings)
    bench = page(settings)
    assert "could not be made: no codes at" in bench.sentence.value
    assert bench.preparing == ""
    assert list(bench.codes) == ["PCA"]


def test_a_folder_that_changes_is_told(settings, photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    bench = page(dataclasses.replace(settings, images=str(folder)))
    bench.steps["images"].click()
    assert "came" not in bench.sentence.value
    (folder / "00.png").unlink()
    shutil.copy(folder / "01.png", folder / "new.png")
    bench.steps["images"].click()
    assert "1 file came and 1 file went since the page was opened" in bench.sentence.value


@pytest.fixture
def shown_with(settings):
    """The page's widgets, prepared with changed settings."""

    def shown(**changes):
        changed = dataclasses.replace(settings, **changes)
        changed.check()
        prepare(changed)
        return page(changed)

    return shown


def test_colour_photos_have_the_codes_of_a_pretrained_network(shown_with, photos, tmp_path, monkeypatch):
    (colour := tmp_path / "colour").mkdir()
    for number, file in enumerate(sorted(photos.iterdir())[:12]):
        Image.merge("RGB", [Image.open(file).point(lambda v, c=c: v * c // 3) for c in (1, 2, 3)]).save(
            colour / f"{number}.png"
        )
    bench = shown_with(images=str(colour))
    assert list(bench.codes) == ["efficientnet-lite0", "PCA"]
    assert bench.codes["efficientnet-lite0"].shape == (12, 1280)
    assert bench.points.shape == (12, 2)
    assert bench.encoder().name == "efficientnet-lite0"  # goes into the result

    monkeypatch.setitem(Settings.coded.__globals__, "PretrainedEncoder", None)  # the codes were kept
    again = shown_with(images=str(colour))
    assert torch.equal(again.codes["efficientnet-lite0"], bench.codes["efficientnet-lite0"])
    assert torch.equal(again.points, bench.points)


def test_codes_from_a_file(shown_with, settings, tmp_path):
    images, codes = settings.load(), torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(0))
    la.codes.save_codes(tmp_path / "mine.npz", codes, images)
    bench = shown_with(codes=str(tmp_path / "mine.npz"))
    assert list(bench.codes) == ["mine", "PCA"]
    assert torch.equal(bench.codes["mine"], codes)
    assert torch.equal(bench.points, codes)
    la.codes.save_codes(tmp_path / "mine.npz", codes[1:], images.subset(range(1, COUNT)))
    with pytest.raises(la.LalibError, match=r"does not hold the codes of these 40 images: 1 without a row \(00.png\)"):
        shown_with(codes=str(tmp_path / "mine.npz"))
    with pytest.raises(ValueError, match=r"name must be a network of torchvision or timm, got 'effnet'; close to it: "):
        shown_with(codes="effnet")


def test_answers_from_a_file_reach_the_labeller(bench, settings):
    bench.measure()
    path = la.labelling.write_selection(Path(settings.labels).with_name("query.csv"), bench.images, bench.loop.held_out)
    path.write_text(path.read_text("utf-8-sig").replace(",\n", ",eel\n"), "utf-8")
    bench.controls["more"].value = "import and export"
    (exchange,) = bench.place.children
    exchange.controls["answers"].value = "query.csv"
    exchange.controls["read answers"].click()
    assert set(bench.labeller.answers) == {CLASSES.index("eel")}
    assert "8 of 8 ✓" in bench.steps["yardstick"].description


# The server


def status(app, path, method="GET", token=False, **headers):
    """The status of an answer. Headers: Host, Origin, ...; token: with it or without."""
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers |= {"Authorization": f"token {app.token}"} if token else {}
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        return connection.getresponse().status


@pytest.fixture(scope="module")
def app(photos, tmp_path_factory):
    with App(photos, tmp_path_factory.mktemp("app"), CLASSES, SIZE) as app:
        yield app


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
    """The page in a browser; shown.ahead: the kernels that were there before."""
    wait_for(lambda: app.kernels, "a kernel that is ahead")
    with launch(chromium) as browser:
        ahead = app.kernels
        shown = open_page(browser, app.address)
        shown.wait_for_selector(".lalib-tiles img")
        shown.wait_for_selector(".lalib-map canvas")
        shown.ahead = ahead
        yield shown


@pytest.mark.browser
def test_a_key_labels_the_yardstick(shown, app, photos):
    shown.get_by_role("button", name="Label the yardstick (8 left)").focus()
    shown.keyboard.press("Enter")
    shown.wait_for_selector(".lalib-labeller:focus")  # the keys are its own at once
    shown.keyboard.press("2")
    shown.wait_for_selector(".lalib-labeller[data-unsaved='0'][data-left='7']")
    shown.get_by_role("button", name="2 Yardstick: 1 of 8").wait_for()
    store = la.LabelStore(app.folder / "labels.sqlite", labeller="me")
    labels = store.labels(la.from_folder(photos, SIZE))
    assert sorted(labels.tolist()) == [-1] * (COUNT - 1) + [1]


@pytest.mark.browser
def test_the_focus_can_be_seen(shown):
    shown.get_by_role("button", name="1 Images").focus()
    for _ in range(10):
        shown.keyboard.press("Tab")
        outline = shown.evaluate("getComputedStyle(document.activeElement).outline")
        assert "solid 3px" in outline, shown.evaluate("document.activeElement.className")


@pytest.mark.browser
@pytest.mark.parametrize("more", ["nothing", "two strategies side by side", "choose by hand", "import and export"])
def test_every_control_and_picture_has_a_name(shown, more):
    shown.get_by_role("combobox", name="more").select_option(more)
    found = {"two": ".js-plotly-plot .gtitle", "choose": "text=Cursor at", "import": "text=write CSV"}
    shown.wait_for_selector(found.get(more.split()[0], ".lalib-map canvas"))
    shown.wait_for_timeout(500)  # until all of it is there
    assert all(shown.get_by_role(role).count() for role in ("button", "combobox", "spinbutton"))
    assert nameless(shown) == []


@pytest.mark.browser
@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080), (600, 900)])
def test_all_is_on_one_screen(shown, size):
    shown.get_by_role("combobox", name="more").select_option("nothing")
    shown.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    shown.wait_for_timeout(500)
    parts = [".lalib-map canvas >> nth=0", ".lalib-labeller", "button:has-text('Go on')", ".lalib-legend"]
    for part in parts:
        box = shown.locator(part).bounding_box()
        assert 0 <= box["x"] <= box["x"] + box["width"] <= size[0], part
        assert 0 <= box["y"] <= box["y"] + box["height"] <= size[1] or size[0] < 1280, part
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_kernel_and_sockets_are_closed_to_others(shown, app):
    kernel = kernel_of(shown)
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
    # where ipykernel gathers what its own children print; without its secret it passes on nothing
    inner = listening(app.kernel(shown))
    assert len(inner) <= 1
    assert {address.ip for address in inner} <= {"127.0.0.1"}


@pytest.mark.browser
def test_a_page_is_given_the_kernel_that_is_ahead(shown, app):
    assert app.kernel(shown) in shown.ahead
    wait_for(lambda: set(app.kernels) - {*shown.ahead}, "the next kernel", seconds=60)


@pytest.mark.browser
def test_no_request_leaves_the_machine(shown):
    assert shown.outside == []


@pytest.mark.browser
def test_the_kernel_ends_with_its_page(shown, app):
    kernel = app.kernel(shown)
    assert kernel is not None
    shown.unroute_all()  # playwright would hold back the last request of a page
    shown.goto("about:blank")
    wait_for(lambda: kernel not in app.kernels, "the end of the kernel", seconds=30)


def test_ctrl_c_ends_it(app):
    kernels = app.kernels
    app.process.send_signal(signal.SIGINT)
    assert app.process.wait(timeout=90) == 0
    assert not [kernel for kernel in kernels if kernel.is_running()]
    assert "Traceback" not in app.log.read_text()
