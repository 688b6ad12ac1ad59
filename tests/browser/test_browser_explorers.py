"""The explorers in a real JupyterLab: a reader moves the controls, and kernel and pictures follow."""

import json

import numpy as np
import pytest
import torch
from jupyter_lab import OUTPUT, launch, nameless, open_notebook, run_all, serve, wait_for

import lalib as la

pytestmark = pytest.mark.browser

SAMPLING = """
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
LATENT = """
import json, pathlib
import torch
import lalib as la

images = la.load("digits").subset(range(300))
model = la.models.ConditionalVAE(images.image_shape, 10, latent_dim=3, seed=0)
la.fit(model, images, epochs=10, seed=0, progress=False)
codes = la.encode(model, images)
torch.save(codes, "codes.pt")
explorer = la.widgets.latent_explorer(images, codes, model, errors=torch.linspace(0, 1, 300))
moves = 0

def write(change=None):
    global moves
    moves += change is not None and change.owner is explorer.pictures
    state = {"selection": explorer.selection.tolist(), "code": explorer.code.tolist(), "moves": moves}
    state |= {"groups": explorer.map.plot.points[:, 2].tolist(), "place": explorer.place, "class": explorer.drawn_as}
    pathlib.Path("latent.json").write_text(json.dumps(state))

for widget in (explorer.sheet, explorer.pictures, explorer.table):
    widget.observe(write, "value")
explorer.map.observe(write, "cursor")  # which may move so little that no picture and no number changes
write()
explorer
"""
AT_ONCE = 'explorer.controls["images"].value = "0-99"'  # of the latent explorer, before its map has been drawn


@pytest.fixture(scope="module")
def lab(tmp_path_factory, chromium):
    """(address, folder) of a JupyterLab that serves notebooks with the explorers."""
    folder = tmp_path_factory.mktemp("lab")
    with serve(folder, {"sampling": [SAMPLING], "latent": [LATENT, AT_ONCE]}) as address:
        yield address, folder


@pytest.fixture(scope="module")
def browser(chromium):
    with launch(chromium) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(lab, browser):
    """The sampling explorer."""
    page = open_notebook(browser, lab[0], "sampling")
    run_all(page)
    page.wait_for_selector(".lalib-sentence:has-text('picked by')")
    page.wait_for_selector(".js-plotly-plot .scatterlayer .trace >> nth=2", state="attached")
    yield page
    page.close()


@pytest.fixture(scope="module")
def latent(lab, browser):
    """The latent explorer."""
    page = open_notebook(browser, lab[0], "latent")
    run_all(page)
    page.wait_for_selector(".lalib-cross", state="attached")
    yield page
    page.close()


def state(page, folder):
    """What the kernel holds and what the page shows."""
    rings = page.locator(".js-plotly-plot >> nth=0").locator(".scatterlayer .trace >> nth=2").locator("path.point")
    return {
        "selection": json.loads((folder / "selection.json").read_text()),
        "rings": rings.evaluate_all("paths => paths.map(p => p.getAttribute('transform'))"),
        "thumbnails": page.locator("img[alt*=picks]").get_attribute("alt"),
        "sentence": page.locator(".lalib-sentence >> nth=0").inner_text(),
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

    strategies = page.get_by_label("strategy", exact=True)
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
    sentence = page.locator(".lalib-sentence >> nth=0")
    assert sentence.get_attribute("role") == "status"
    assert sentence.get_attribute("aria-live") == "polite"
    assert nameless(page, OUTPUT) == []


def test_two_strategies_side_by_side_and_a_file(page, lab):
    _, folder = lab
    page.get_by_role("combobox", name="second strategy").select_option("random")
    page.wait_for_selector(".lalib-sentence:has-text('picked by both')")
    squares = page.locator(".js-plotly-plot >> nth=0").locator(".scatterlayer .trace >> nth=3").locator("path.point")
    wait_for(lambda: squares.count() == 21, "a square around each of the second's picks")
    first, second = page.locator("img[alt*=picks]").all()
    assert first.bounding_box()["y"] == pytest.approx(second.bounding_box()["y"], abs=2)
    assert first.bounding_box()["x"] < second.bounding_box()["x"]
    page.get_by_role("combobox", name="to label").select_option("the second's picks")
    codes = la.project(la.load("digits").subset(range(300)).images.flatten(1).float() / 255, "pca")
    picked = la.select("random", codes, 21, seed=0).tolist()
    wait_for(lambda: json.loads((folder / "selection.json").read_text()) == picked, "the second's picks in the kernel")
    page.get_by_role("button", name="write CSV").click()
    page.wait_for_selector(".lalib-sentence:has-text('21 images written to')")
    lines = (folder / "query.csv").read_text("utf-8-sig").splitlines()
    assert [int(line.split(",")[0]) for line in lines[1:]] == picked
    page.get_by_role("combobox", name="second strategy").select_option("none")
    wait_for(lambda: page.locator("img[alt*=picks]").count() == 1, "one sheet only")


def test_no_plot_offers_to_share_its_data(page):
    page.locator(".js-plotly-plot >> nth=0").hover()
    titles = page.locator(".modebar-btn").evaluate_all("all => all.map(b => b.getAttribute('data-title') || '')")
    assert any("Zoom" in title for title in titles)
    assert not [title for title in titles if "hare" in title or "loud" in title]


def test_no_request_leaves_the_machine(page):
    assert page.outside == []


PLOT = 'document.querySelector(".lalib-map canvas").parentElement.parentElement.api'
DOMAINS = f"[...{PLOT}.get('xScale').domain(), ...{PLOT}.get('yScale').domain()]"


def kernel(folder, ready=bool):
    """What the latent explorer's kernel holds, as soon as `ready` says yes to it."""

    def read():
        held = json.loads((folder / "latent.json").read_text())
        return held if ready(held) else None

    return wait_for(read, "the kernel's answer", seconds=60)


def on_map(page, across, down):
    """Pixels on the page of a place on the map, given in shares of its width and height."""
    box = page.locator(".lalib-map canvas >> nth=0").bounding_box()
    return box["x"] + across * box["width"], box["y"] + down * box["height"]


def test_what_is_set_while_the_map_starts_is_drawn(latent, lab):
    latent.wait_for_function(f"{PLOT}.get('selectedPoints').length === 100")
    latent.click("button:has-text('select none')")
    latent.wait_for_function(f"{PLOT}.get('selectedPoints').length === 0")
    kernel(lab[1], lambda held: not held["selection"])


def test_lasso_reaches_the_kernel(latent, lab):
    folder = lab[1]
    latent.locator(".widget-dropdown:has-text('pointer') select").select_option("draws a lasso")
    corners = [(0.25, 0.25), (0.7, 0.25), (0.7, 0.65), (0.25, 0.65), (0.25, 0.26)]
    latent.mouse.move(*on_map(latent, *corners[0]))
    latent.mouse.down()
    for corner in corners[1:]:
        latent.mouse.move(*on_map(latent, *corner), steps=4)
        latent.wait_for_timeout(40)
    latent.mouse.up()
    picked = kernel(folder, lambda held: held["selection"])["selection"]

    left, right, bottom, top = latent.evaluate(DOMAINS)
    points = torch.load(folder / "codes.pt")[:, :2].numpy()
    share = (points - [left, bottom]) / [right - left, top - bottom] * [1, -1] + [0, 1]
    inside = np.minimum(share - [0.25, 0.25], [0.7, 0.65] - share).min(1)  # how far, in shares of the map
    assert set(np.flatnonzero(inside > 0.03)) <= set(picked) <= set(np.flatnonzero(inside > -0.03))
    assert (
        latent.locator(".lalib-sentence", has_text="images selected").inner_text().startswith(f"{len(picked)} of 300")
    )
    captions = latent.locator("figure:not(.lalib-tip) figcaption")

    def shown():
        return {int(caption.split()[0]) for caption in captions.all_inner_texts() if caption[0].isdigit()}

    wait_for(lambda: shown() == set(picked[:60]), "the images of the lasso")


def test_menu_recolours_in_kernel_and_table(latent, lab):
    latent.locator(".widget-dropdown:has-text('colour by') select").select_option("error")
    latent.wait_for_selector("th:has-text('error')")
    groups = kernel(lab[1], lambda held: len(set(held["groups"])) == 8)["groups"]
    assert groups == sorted(groups)  # as the errors are


def test_pointer_and_click_move_the_cursor(latent, lab):
    folder, decoded = lab[1], latent.locator("img[alt^=decoded]")
    latent.locator(".widget-dropdown:has-text('pointer') select").select_option("moves the map")
    before, source = kernel(folder), decoded.get_attribute("src")
    latent.mouse.move(*on_map(latent, 0.6, 0.4))
    latent.mouse.down()
    latent.mouse.up()
    left, right, bottom, top = latent.evaluate(DOMAINS)
    place = left + 0.6 * (right - left), top - 0.4 * (top - bottom)
    near = {"abs": (right - left) / 100}
    held = kernel(folder, lambda held: held["place"] == pytest.approx(place, **near))
    assert held["code"][2] == before["code"][2]
    latent.wait_for_function("old => document.querySelector('img[alt^=decoded]').src !== old", arg=source)
    words = ", ".join(f"{part:.3g}" for part in held["code"])
    assert decoded.get_attribute("alt") == f"decoded as {held['class']} at {words}"

    latent.mouse.move(*on_map(latent, 0.5, 0.5))  # a look elsewhere, without a click
    kernel(folder, lambda now: now["place"] != pytest.approx(place, **near))
    latent.mouse.move(*on_map(latent, 0.5, 1.3))
    kernel(folder, lambda now: now["place"] == held["place"])


def test_menu_draws_the_cursor_as_another_class(latent, lab):
    decoded = latent.locator("img[alt^=decoded]")
    before, source = kernel(lab[1]), decoded.get_attribute("src")
    other = str((before["class"] + 1) % 10)
    latent.locator(".widget-dropdown:has-text('draw as') select").select_option(other)
    latent.wait_for_selector(f"img[alt^='decoded as {other} at ']")
    assert decoded.get_attribute("src") != source
    held = kernel(lab[1], lambda now: now["class"] == int(other))
    assert held["code"] == before["code"]


def test_pointer_on_a_point_shows_its_image(latent, lab):
    left, right, bottom, top = latent.evaluate(DOMAINS)
    rest, codes = kernel(lab[1])["place"], torch.load(lab[1] / "codes.pt")
    alone = torch.cdist(codes[:, :2], codes[:, :2]).fill_diagonal_(9).min(1).values.argmax()  # no other one near
    x, y = codes[alone, :2].tolist()
    latent.mouse.move(*on_map(latent, (x - left) / (right - left), (top - y) / (top - bottom)))
    tip = latent.locator(".lalib-tip")
    tip.wait_for(state="visible")
    assert tip.inner_text().startswith(f"image {alone}\nclass: ")
    assert tip.locator("img").evaluate("image => image.naturalWidth") >= 80
    latent.mouse.move(5, 5)
    tip.wait_for(state="hidden")
    kernel(lab[1], lambda now: now["place"] == rest)


def test_keyboard_alone_suffices(latent, lab):
    folder = lab[1]
    latent.locator(".widget-dropdown:has-text('colour by') select").focus()
    reached = []
    for _ in range(30):
        latent.keyboard.press("Tab")
        reached.append(latent.evaluate("document.activeElement.className"))
        if "lalib-map" in reached[-1]:
            break
    assert "lalib-map" in reached[-1], reached
    assert latent.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    before = kernel(folder)
    latent.keyboard.press("Shift+ArrowRight")
    latent.keyboard.press("ArrowDown")
    held = kernel(folder, lambda now: now["place"][1] < before["place"][1])
    assert held["place"][0] > before["place"][0]
    latent.keyboard.press("Enter")
    codes = torch.load(folder / "codes.pt")
    nearest = int((codes - torch.tensor(held["code"])).norm(dim=1).argmin())
    kernel(folder, lambda now: nearest in now["selection"])
    x, y = (f"{part:.3g}" for part in held["place"])
    latent.wait_for_selector(f".lalib-sentence:has-text('Cursor at {x} across, {y} upwards')")  # the sliders know, too
    latent.keyboard.press("Tab")  # the first slider
    latent.keyboard.press("Home")
    lowest = float(np.quantile(codes[:, 0], 0.005))
    kernel(folder, lambda now: now["code"] == pytest.approx([lowest, *held["code"][1:]], abs=1e-6))
    assert latent.locator(".jp-Cell").count() == 2  # no key was a command of JupyterLab

    latent.locator("input[placeholder^=numbers]").focus()
    latent.keyboard.type("3, 17-20\n")
    kernel(folder, lambda now: now["selection"] == [3, 17, 18, 19, 20])


def test_a_fast_slider_leaves_no_queue(latent, lab):
    before = kernel(lab[1])["moves"]
    last = latent.evaluate("""() => {
        const slider = document.querySelector(".lalib-coordinates input");
        for (let step = 0; step <= 100; step++) {
            slider.value = Number(slider.min) + step / 100 * (slider.max - slider.min);
            slider.dispatchEvent(new Event("input"));
        }
        return Number(slider.value);
    }""")
    held = kernel(lab[1], lambda now: now["code"][0] == pytest.approx(last, abs=1e-6))
    assert held["moves"] - before < 10  # of 101


def test_every_control_has_a_name(latent):
    assert latent.locator(OUTPUT).locator("select, input, button, [tabindex='0']").count() >= 12
    assert nameless(latent, OUTPUT) == []


def test_no_request_of_the_latent_explorer_leaves_the_machine(latent):
    assert latent.outside == []


def test_on_a_laptops_screen_controls_and_map_stand_side_by_side(page):
    """Of 1366 x 768, beside the list of files: what a slider does is seen while it moves."""
    page.set_viewport_size({"width": 1366, "height": 768})
    page.wait_for_timeout(500)
    panel, plot = (page.locator(what).first.bounding_box() for what in (".widget-slider", ".js-plotly-plot"))
    page.set_viewport_size({"width": 1500, "height": 1400})
    assert plot["x"] >= panel["x"] + panel["width"]
    assert plot["y"] <= panel["y"] <= plot["y"] + plot["height"]
