"""The latent explorer without a browser: what the browser would set is set, and selection, code and words follow."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import lalib as la
from lalib.widgets import groups
from lalib.widgets.groups import counts_in_words
from lalib.widgets.latent_explorer import indices_of, rectangle_of


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(300))


@pytest.fixture(scope="module")
def model(digits):
    return la.CAE(digits.image_shape, latent_dim=2, seed=0)


@pytest.fixture(scope="module")
def wide(digits):
    return la.CAE(digits.image_shape, latent_dim=4, seed=0)


@pytest.fixture(scope="module")
def codes(model, digits):
    return la.encode(model, digits)


@pytest.fixture(scope="module")
def conditional(digits):
    return la.models.ConditionalVAE(digits.image_shape, 10, seed=0)


@pytest.fixture
def explorer(digits, codes, model):
    known = {"errors": torch.linspace(0, 1, 300), "clusters": torch.arange(300) % 4, "rounds": torch.arange(300) // 100}
    return la.widgets.latent_explorer(digits, codes, model, **known)


def lasso(explorer, index):
    """What arrives from the browser."""
    explorer.map.plot.selection = np.array(index, dtype=np.uint32)


def shown_pixels(html, number=0):
    """The first pixel of every repeated block of the PNG number `number` in a piece of HTML."""
    source = re.findall(r'src="data:image/png;base64,([^"]+)"', html)[number]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
    return picture[:: len(picture) // 8, :: len(picture) // 8]


def test_points_lie_where_the_codes_are_with_one_unit_for_both_axes(explorer, codes):
    plot = explorer.map.plot
    x, y = (np.array(domain) for domain in (plot.x_scale_domain, plot.y_scale_domain))
    assert np.ptp(x) == pytest.approx(np.ptp(y))
    drawn = x[0] + (plot.points[:, 0] + 1) / 2 * np.ptp(x), y[0] + (plot.points[:, 1] + 1) / 2 * np.ptp(y)
    assert np.allclose(np.stack(drawn, 1), codes, atol=1e-5)


def test_lasso_gives_indices_pictures_and_class_counts(explorer, digits):
    assert explorer.selection.tolist() == []
    assert "No image is selected" in explorer.sentence.value
    lasso(explorer, [7, 3, 200])
    assert explorer.selection.dtype == torch.int64
    assert explorer.selection.tolist() == [3, 7, 200]
    assert explorer.sentence.value == "3 of 300 images selected: 3: 1, 5: 1, 9: 1."
    assert "Images 1 to 3 of 3 selected" in explorer.sheet.value
    for number, image in enumerate([3, 7, 200]):
        assert np.array_equal(shown_pixels(explorer.sheet.value, number), digits.images[image, 0])
        assert f'alt="{image} ({digits.labels[image]})"' in explorer.sheet.value


def test_every_image_of_a_large_selection_can_be_leafed_to(explorer):
    lasso(explorer, range(150))
    seen = []
    for page in (1, 2, 3):
        explorer.controls["page"].value = page
        assert f"page {page} of 3" in explorer.sheet.value
        seen += [int(n) for n in re.findall(r"<figcaption>(\d+) ", explorer.sheet.value)]
    assert seen == list(range(150))
    lasso(explorer, [5])
    assert explorer.controls["page"].value == 1
    assert explorer.controls["page"].disabled


@pytest.mark.parametrize("name", ["class", "error", "cluster", "round"])
def test_colours_and_table_follow_the_menu(explorer, name):
    from matplotlib.colors import to_hex

    explorer.controls["colour by"].value = name
    group, plot = explorer.groups[name], explorer.map.plot
    drawn = [to_hex(plot.color[int(c)]).upper() for c in plot.points[:, 2]]
    assert drawn == [group.colours[g].upper() for g in group.index]
    lasso(explorer, [0, 1, 299])
    rows = re.findall(r"<td[^>]*>([^<]+)</td><td[^>]*>(\d+)</td><td[^>]*>(\d+)</td>", explorer.table.value)
    picked = group.counts(torch.tensor([0, 1, 299]))
    assert rows == [(n, str(t), str(p)) for n, t, p in zip(group.names, group.counts(), picked, strict=True)]


def test_a_group_can_be_shown_and_selected_alone(explorer, codes):
    explorer.controls["colour by"].value = "cluster"
    explorer.controls["show"].value = 2
    assert explorer.map.plot.filter.tolist() == list(range(2, 300, 4))
    explorer.controls["select shown"].click()
    assert explorer.selection.tolist() == list(range(2, 300, 4))
    middle = float(codes[:, 0].median())
    explorer.controls["rectangle"].value = f"-9, {middle}, -9, 9"
    inside = [i for i in range(2, 300, 4) if codes[i, 0] <= middle]
    assert explorer.selection.tolist() == inside
    explorer.controls["colour by"].value = "round"
    assert explorer.map.plot.filter is None
    explorer.controls["select none"].click()
    assert explorer.selection.tolist() == []


def test_images_can_be_typed(explorer):
    explorer.controls["images"].value = "299, 3 17-20"
    assert explorer.selection.tolist() == [3, 17, 18, 19, 20, 299]
    explorer.controls["images"].value = "300"
    assert (
        explorer.sentence.value
        == "The selection stays as it is: images must lie in 0 to 299, a range's smaller number first, got '300'"
    )
    explorer.controls["rectangle"].value = "1, 2, 3"
    assert "left, right, bottom, top" in explorer.sentence.value


@pytest.mark.parametrize("text", ["a", "3-", "-3", "5-3", "2.5", "1--2"])
def test_refuses_what_are_no_image_numbers(text):
    with pytest.raises(ValueError, match=r"images must .*, got"):
        indices_of(text, 10)


@pytest.mark.parametrize("text", ["", "1 2 3", "1 0 0 1", "0 1 1 0", "0 1 0 x", "0 nan 0 1"])
def test_refuses_what_is_no_rectangle(text):
    with pytest.raises(ValueError, match=r"left, right, bottom, top"):
        rectangle_of(text)


def test_cursor_decodes_what_lies_under_it(explorer, model):
    for place in ([0.1, -0.2], [-0.3, 0.05]):
        explorer.map.cursor = place
        assert explorer.code.tolist() == pytest.approx(place)
        assert explorer.sliders.values == pytest.approx(place)
        decoded = (la.decode(model, torch.tensor([place]))[0, 0] * 255).round()
        assert np.array_equal(shown_pixels(explorer.pictures.value), decoded)


def test_cursor_tells_the_nearest_image(explorer, codes, digits):
    explorer.map.cursor = codes[42].tolist()
    assert explorer.cursor_sentence.value.endswith(f"The nearest is image 42 ({digits.labels[42]}), at distance 0.")
    assert np.array_equal(shown_pixels(explorer.pictures.value, 1), digits.images[42, 0])
    lasso(explorer, [7])
    explorer.map._handle_custom_msg("choose", [])  # Enter
    assert explorer.selection.tolist() == [7, 42]


def test_sliders_move_the_cursor(explorer):
    explorer.sliders.values = [0.25, -0.5]
    assert explorer.map.cursor == [0.25, -0.5]
    assert explorer.code.tolist() == [0.25, -0.5]


def test_four_coordinates_two_of_them_on_the_map(digits, wide):
    codes = la.encode(wide, digits)
    explorer = la.widgets.latent_explorer(digits, codes, wide)
    explorer.controls["across"].value = 2
    assert torch.equal(explorer.points, codes[:, [2, 1]])
    assert explorer.map.plot.axes_labels == ["latent coordinate 3", "latent coordinate 2"]
    explorer.controls["upwards"].value = 2  # never twice the same: the other direction takes what this one showed
    assert torch.equal(explorer.points, codes[:, [1, 2]])
    before = explorer.code.tolist()
    explorer.map.cursor = [0.5, -0.5]
    assert explorer.code.tolist() == [before[0], 0.5, -0.5, before[3]]
    explorer.sliders.values = [0.1, 0.2, 0.3, 0.4]
    assert explorer.map.cursor == pytest.approx([0.2, 0.3])
    decoded = (la.decode(wide, torch.tensor([[0.1, 0.2, 0.3, 0.4]]))[0, 0] * 255).round()
    assert np.array_equal(shown_pixels(explorer.pictures.value), decoded)


def test_on_a_view_the_cursor_takes_the_code_of_the_nearest_image(digits, wide):
    codes = la.encode(wide, digits)
    view = la.project(codes, "pca")
    explorer = la.widgets.latent_explorer(digits, codes, wide, view=view)
    assert "across" not in explorer.controls
    explorer.map.cursor = (view[9] + 1e-6).tolist()
    assert torch.equal(explorer.code, codes[9])
    explorer.sliders.values = codes[17].tolist()
    assert explorer.map.cursor == pytest.approx(view[17].tolist())


def test_a_model_without_a_decoder_leaves_the_nearest_image(digits, codes):
    encoder = la.ContrastiveEncoder(digits.image_shape, latent_dim=2, seed=0)
    for model in (encoder, None):
        explorer = la.widgets.latent_explorer(digits, codes, model)
        assert explorer.pictures.value.count("<img") == 1
        assert "decoded" not in explorer.pictures.value


@pytest.mark.parametrize("kind", ["ConditionalVAE", "M2"])
def test_the_cursor_is_drawn_as_the_class_of_the_menu(digits, codes, kind):
    model = getattr(la.models, kind)(digits.image_shape, 10, latent_dim=2, seed=0).eval()
    explorer = la.widgets.latent_explorer(digits, codes, model)
    code = codes[42] + 1e-4
    explorer.map.cursor = code.tolist()
    own = int(digits.labels[42])
    for asked, drawn in [(-1, own), (3, 3), (9, 9), (-1, own)]:  # -1: as the nearest image
        explorer.controls["draw as"].value = asked
        assert explorer.drawn_as == drawn
        with torch.no_grad():
            expected = (model.decode(code[None], torch.tensor([drawn]))[0, 0] * 255).round()
        assert np.array_equal(shown_pixels(explorer.pictures.value), expected)
        assert f'alt="decoded as {drawn} at ' in explorer.pictures.value
        assert f"upwards, decoded as {drawn}. The nearest" in explorer.cursor_sentence.value


def test_the_class_of_the_nearest_image_that_has_one(digits, codes, conditional):
    labels = la.models.partly_labelled(300, torch.arange(10), digits.labels[:10])
    explorer = la.widgets.latent_explorer(digits, codes, conditional, labels=labels)
    explorer.map.cursor = codes[42].tolist()
    assert explorer.drawn_as == digits.labels[(codes[:10] - codes[42]).norm(dim=1).argmin()]
    blind = la.ImageSet(digits.images, None, (), "blind")
    explorer = la.widgets.latent_explorer(blind, codes, conditional)
    assert [name for name, _ in explorer.controls["draw as"].options] == list("0123456789")
    assert explorer.drawn_as == 0


def test_a_model_that_draws_codes_alone_has_no_menu(explorer):
    assert "draw as" not in explorer.controls
    assert explorer.drawn_as is None
    assert 'alt="decoded at ' in explorer.pictures.value


def test_what_the_pointer_is_on_is_told_when_it_comes_there(explorer, digits):
    assert explorer.map.told == ["", ""]
    explorer.map.plot.hovering = 5
    source, words = explorer.map.told
    assert words.splitlines() == [
        "image 5",
        f"class: {digits.labels[5]}",
        f"error: {explorer.groups['error'].names[0]}",
        "cluster: cluster 1",
        "round: round 0",
    ]
    assert np.array_equal(shown_pixels(f'src="{source}"'), digits.images[5, 0])
    explorer.map.plot.hovering = None
    assert explorer.map.told == ["", ""]


def test_every_control_has_a_description(explorer):
    assert all(control.description for control in explorer.controls.values())


def test_labels_may_be_known_in_part(digits, codes):
    labels = la.models.partly_labelled(300, torch.arange(10), digits.labels[:10])
    explorer = la.widgets.latent_explorer(digits, codes, labels=labels)
    lasso(explorer, [0, 10, 11])
    assert explorer.sentence.value == "3 of 300 images selected: no label: 2, 0: 1."
    assert "10 (no label)" in explorer.sheet.value


def test_images_without_labels_and_with_several(digits, codes):
    blind = la.widgets.latent_explorer(la.ImageSet(digits.images, None, (), "blind"), codes)
    lasso(blind, [3])
    assert blind.sentence.value == "1 of 300 images selected. The images have no labels to count."
    several = la.ImageSet(digits.images, torch.tensor([[1, 0, 1]]).repeat(300, 1), ("a", "b", "c"), "several")
    explorer = la.widgets.latent_explorer(several, codes)
    lasso(explorer, [3, 4])
    assert explorer.sentence.value == "2 of 300 images selected, of several classes each: a: 2, c: 2."


def test_class_names_cannot_inject_html(digits, codes):
    nasty = la.ImageSet(digits.images, digits.labels, ('"><script>', *map(str, range(1, 10))), "nasty")
    explorer = la.widgets.latent_explorer(nasty, codes)
    lasso(explorer, range(50))
    assert "<script>" not in explorer.sheet.value + explorer.table.value + explorer.pictures.value


def test_errors_are_put_into_groups_of_equal_size():
    errors = torch.rand(800, generator=torch.Generator().manual_seed(0))
    by = groups.by_error(errors, 800)
    assert by.counts().tolist() == [100] * 8
    for g in range(7):
        assert errors[by.index == g].max() < errors[by.index == g + 1].min()
    assert groups.by_error(torch.full((5,), 0.5), 5).names == ("0.5",)


def test_groups_that_are_missing_come_last():
    by = groups.grouped("round", torch.tensor([1, -1, 0, 1]), 4)
    assert by.names == ("round 0", "round 1", "not picked")
    assert by.index.tolist() == [1, 2, 0, 1]
    assert len(set(by.colours)) == 3
    assert groups.grouped("cluster", torch.tensor([-1, -1]), 2).names == ("no cluster",)


def test_counts_in_words_stops_after_the_largest():
    counts = np.arange(14)
    words = counts_in_words([f"c{c}" for c in counts], counts)
    assert words.startswith("c13: 13, c12: 12")
    assert words.endswith("c2: 2 and 1 more groups")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"codes": torch.rand(299, 2)}, ValueError, "those of the 300 images, got 299 rows"),
        ({"codes": torch.full((300, 2), torch.nan)}, ValueError, "NaN"),
        ({"codes": torch.rand(300, 1), "model": None}, ValueError, "view"),
        ({"view": torch.rand(300, 3)}, ValueError, r"view of shape \(300, 2\), got \(300, 3\)"),
        ({"view": torch.full((300, 2), torch.inf)}, ValueError, "view must be finite"),
        ({"codes": torch.rand(300, 3)}, ValueError, "the model's 2 coordinates, got 3"),
        ({"model": la.CAE((1, 28, 28), latent_dim=2)}, ValueError, r"\(1, 28, 28\), got \(1, 8, 8\)"),
        ({"model": la.CNNClassifier((1, 8, 8), 10)}, TypeError, "autoencoder.*got CNNClassifier"),
        ({"model": la.models.ConditionalVAE((1, 8, 8), 4)}, ValueError, "draws 4 classes, the images have 10"),
        ({"model": la.models.M1M2(2, 10)}, TypeError, "autoencoder, an M2, or.*got M1M2"),
        ({"errors": torch.rand(299)}, ValueError, r"errors must be .*shape \(300,\)"),
        ({"errors": torch.full((300,), torch.nan)}, ValueError, "errors must be finite"),
        ({"clusters": torch.rand(300)}, TypeError, "clusters must be whole numbers"),
        ({"rounds": torch.full((300,), -2)}, ValueError, "rounds must lie in -1"),
        ({"labels": torch.full((300,), 10)}, ValueError, "labels must lie in -1 to 9, got 10"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, ValueError, r"labels must have shape \(300,\)"),
    ],
)
def test_refuses(digits, codes, model, options, error, message):
    arguments = {"images": digits, "codes": codes, "model": model} | options
    with pytest.raises(error, match=message):
        la.widgets.latent_explorer(**arguments)
