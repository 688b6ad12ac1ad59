"""What is drawn: numbers of points, names of axes, positions of tiles, words in titles; and errors for bad input."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import lalib as la
from lalib.codes.coding import LatentGrid
from lalib.figures.marks import pixels
from lalib.figures.style import COLOURS, SYMBOLS
from lalib.training.fitting import History


@pytest.fixture(scope="module")
def digits():
    return la.load("digits")


@pytest.fixture(scope="module")
def codes(digits):
    return la.project(digits.images.flatten(1).float() / 255, "pca")


@pytest.fixture
def picks():
    return torch.tensor([5, 1, 700, 42])


def drawn(fig):
    """All points of the markers of a figure, as (x, y) pairs; legend entries without points left out."""
    return {(float(x), float(y)) for trace in fig.data for x, y in zip(trace.x, trace.y, strict=True) if x is not None}


def picture(fig):
    """The image trace of a mosaic, decoded: (H, W) or (H, W, 3)."""
    source = fig.data[0].source.removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))


def at(fig, x, y):
    """The pixel that a mosaic shows at axis position (x, y)."""
    trace = fig.data[0]
    return picture(fig)[round((y - trace.y0) / trace.dy), round((x - trace.x0) / trace.dx)]


# ---------------------------------------------------------------- common looks


def every_figure(digits, codes, picks):
    flat = torch.rand(6, 1, 8, 8)
    frame = pd.DataFrame({"strategy": ["a"], "difference": [0.1], "low": [0.0], "high": [0.2]})
    return {
        "latent_map": la.figures.latent_map(codes, digits, selected=picks),
        "latent_maps": la.figures.latent_maps({"one": codes, "two": codes}, digits),
        "clusters": la.figures.clusters(codes, digits.labels % 4),
        "difficulty": la.figures.difficulty(codes, torch.rand(len(codes))),
        "reconstructions": la.figures.reconstructions(flat, flat, n=2),
        "latent_grid": la.figures.latent_grid(grid()),
        "traversal": la.figures.traversal(torch.rand(2, 3, 1, 8, 8)),
        "thumbnails": la.figures.thumbnails(digits, picks),
        "class_histogram": la.figures.class_histogram(digits, picks),
        "history": la.figures.history(History([{"epoch": 1, "loss": 2.0}])),
        "comparison": la.figures.comparison(frame),
        "confusion": la.figures.confusion(digits.labels, digits.labels),
        "confusion_matrix": la.figures.confusion_matrix(torch.eye(3)),
        "relation": la.figures.relation(codes[:, 0], codes[:, 1], x_title="a", y_title="b"),
    }


def test_every_figure_is_covered_titled_white_and_cannot_be_shared(digits, codes, picks):
    figures = every_figure(digits, codes, picks)
    elsewhere = ("lalib.figures.learning", "lalib.figures.ranks")  # test_figures_learning.py
    assert set(figures) == {n for n in la.figures.__all__ if getattr(la.figures, n).__module__ not in elsewhere}
    for name, fig in figures.items():
        assert fig.layout.title.text, name
        assert fig.layout.template.layout.plot_bgcolor == "white", name
        assert {"sendChartToCloud", "sendDataToCloud"} <= set(fig.layout.modebar.remove), name
        if name != "thumbnails":
            assert fig.layout.xaxis.title.text, name


def test_colour_and_shape_do_not_repeat_together():
    pairs = {(COLOURS[g % len(COLOURS)], SYMBOLS[g % len(SYMBOLS)]) for g in range(90)}
    assert len(pairs) == 90


# ---------------------------------------------------------------- maps


def test_map_draws_every_code_once_by_class(digits, codes):
    fig = la.figures.latent_map(codes, digits)
    assert [trace.name for trace in fig.data] == list(digits.class_names)
    assert sum(len(trace.x) for trace in fig.data) == len(codes)
    assert drawn(fig) == {(float(x), float(y)) for x, y in codes}
    zeros = fig.data[0]
    assert (digits.labels[zeros.customdata] == 0).all()
    assert len({(trace.marker.color, trace.marker.symbol) for trace in fig.data}) == 10


def test_map_has_named_axes_of_equal_scale_and_a_label_in_every_class(digits, codes):
    fig = la.figures.latent_map(codes, digits)
    assert fig.layout.xaxis.title.text == "latent coordinate 1"
    assert fig.layout.yaxis.title.text == "latent coordinate 2"
    assert fig.layout.yaxis.scaleanchor == "x"
    assert [note.text for note in fig.layout.annotations] == list(digits.class_names)
    assert la.figures.latent_map(codes, axes="UMAP coordinate").layout.xaxis.title.text == "UMAP coordinate 1"


def test_map_rings_exactly_what_is_selected_and_fades_the_rest(digits, codes, picks):
    fig = la.figures.latent_map(codes, digits, selected=picks)
    rings = fig.data[-1]
    assert rings.marker.symbol == "circle-open"
    assert rings.name == "selected (4)"
    assert rings.customdata.tolist() == picks.tolist()
    assert np.allclose(np.stack([rings.x, rings.y], 1), codes[picks])
    faded, vivid = fig.data[:10], fig.data[10:20]
    assert all(trace.marker.opacity < 0.5 for trace in faded)
    assert sorted(i for trace in vivid for i in trace.customdata) == sorted(picks.tolist())
    assert "4 selected" in fig.layout.title.text


def test_map_of_more_than_2000_points_uses_webgl(codes, picks):
    many = codes.repeat(2, 1)
    assert {trace.type for trace in la.figures.latent_map(many, selected=picks).data} == {"scattergl"}
    assert {trace.type for trace in la.figures.latent_map(codes, selected=picks).data} == {"scatter"}


def test_map_by_value_has_a_titled_scale_that_selected_points_share(codes, picks):
    errors = torch.linspace(0, 1, len(codes))
    fig = la.figures.latent_map(codes, color="error", values=errors, selected=picks)
    everything, chosen, _ = fig.data
    assert "reconstruction error" in everything.marker.colorbar.title.text
    assert np.allclose(everything.marker.color, errors)
    assert np.allclose(chosen.marker.color, errors[picks])
    assert (chosen.marker.cmin, chosen.marker.cmax) == (0, 1)
    assert "el2n" in la.figures.difficulty(codes, errors, name="el2n").layout.title.text


def test_map_without_labels_is_grey(digits, codes):
    blind = la.ImageSet(digits.images, None, (), "blind")
    for fig in (la.figures.latent_map(codes), la.figures.latent_map(codes, blind)):
        assert len(fig.data) == 1
        assert len(fig.data[0].x) == len(codes)


def test_map_takes_labels_in_place_of_images(digits, codes):
    assert len(la.figures.latent_map(codes, digits.labels).data) == 10


def test_clusters_tell_their_sizes_and_lose_the_legend_when_many(codes):
    few = torch.arange(len(codes)).clamp(max=2)
    fig = la.figures.clusters(codes, few)
    assert len(fig.data) == 3
    assert "3 clusters" in fig.layout.title.text
    assert "1 to 1,436" in fig.layout.title.text
    assert len(la.figures.clusters(codes, torch.arange(len(codes)) % 50).data) == 1


def test_maps_side_by_side_keep_one_legend(digits, codes, picks):
    fig = la.figures.latent_maps({"CAE": codes, "VAE": 2 * codes}, digits, selected={"VAE": picks})
    assert [note.text for note in fig.layout.annotations] == ["CAE", "VAE"]
    assert sum(trace.showlegend is not False for trace in fig.data) == 10
    assert fig.layout.yaxis.scaleanchor == "x"
    assert fig.layout.yaxis2.scaleanchor == "x2"
    assert fig.data[-1].customdata.tolist() == picks.tolist()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c, i: la.figures.latent_map(torch.rand(5, 3)), ValueError, r"\(5, 3\).*la.project"),
        (lambda c, i: la.figures.latent_map(torch.full((5, 2), torch.nan)), ValueError, "NaN"),
        (lambda c, i: la.figures.latent_map(c[:9], i), ValueError, "1438 labels and 9 codes"),
        (lambda c, i: la.figures.latent_map(c, color="class"), ValueError, "needs images with labels"),
        (lambda c, i: la.figures.latent_map(c, color="clas"), ValueError, "Did you mean 'class'"),
        (lambda c, i: la.figures.latent_map(c, color="error"), ValueError, r"needs values=.*\(1438,\)"),
        (lambda c, i: la.figures.latent_map(c, color=torch.rand(3)), ValueError, r"\(1438,\), got \(3,\)"),
        (lambda c, i: la.figures.latent_map(c, color=c[:, 0] / 0), ValueError, "must be finite"),
        (lambda c, i: la.figures.latent_map(c, i, selected=[1438]), ValueError, r"0 to 1437, got 1438"),
        (lambda c, i: la.figures.latent_map(c, i, selected=[-1]), ValueError, "0 to 1437, got -1"),
        (lambda c, i: la.figures.latent_map(c, i, selected=[0.5]), TypeError, "whole numbers"),
        (lambda c, i: la.figures.latent_map(c, i, selected=[[1]]), ValueError, r"shape \(n,\)"),
        (lambda c, i: la.figures.latent_map(c, c), ValueError, r"labels \(n, C\) must be 0 or 1"),
        (
            lambda c, i: la.figures.latent_map(c, i.labels[:, None] == torch.arange(10), color="class"),
            ValueError,
            "color=images.labels",
        ),
        (lambda c, i: la.figures.latent_maps({}), ValueError, "at least one name"),
        (lambda c, i: la.figures.latent_maps({"CAE": torch.rand(5, 3)}), ValueError, r"CAE.*\(5, 3\)"),
    ],
)
def test_maps_refuse(digits, codes, call, error, message):
    with pytest.raises(error, match=message):
        call(codes, digits)


# ---------------------------------------------------------------- mosaics


def grid(rows=3, columns=4):
    """Tile (r, c) has the grey value 10 r + c; rows from the top, y falling."""
    x, y = torch.linspace(-1, 2, columns), torch.linspace(4, 0, rows)
    codes = torch.stack([x.repeat(rows), y.repeat_interleave(columns)], 1)
    value = (10 * torch.arange(rows).repeat_interleave(columns) + torch.arange(columns).repeat(rows)) / 255
    return LatentGrid(value.view(-1, 1, 1, 1).expand(-1, 1, 8, 8), codes, x, y)


def test_grid_shows_every_image_at_its_point():
    g = grid()
    fig = la.figures.latent_grid(g)
    assert [trace.type for trace in fig.data] == ["image"]
    for tile, (x, y) in zip(g.images, g.codes.tolist(), strict=True):
        assert at(fig, x, y) == round(float(tile[0, 0, 0]) * 255)
    assert fig.layout.xaxis.range == (-1.5, 2.5)
    assert fig.layout.yaxis.range == (-1, 5)
    assert fig.layout.xaxis.title.text == "latent coordinate 1"


def test_grid_may_list_its_points_in_any_order():
    g, order = grid(), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = LatentGrid(g.images[order], g.codes[order], g.x, g.y.flip(0))
    assert la.figures.latent_grid(shuffled).data[0].source == la.figures.latent_grid(g).data[0].source


def test_reconstructions_stand_below_their_images_with_their_error():
    images = torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fig = la.figures.reconstructions(images, {"CAE": images, "VAE": images * 0}, n=4)
    assert len(fig.data) == 1
    assert fig.layout.yaxis.ticktext == ("original", "CAE<br>MAE 0.0000", f"VAE<br>MAE {float(images.mean()):.4f}")
    assert picture(fig).shape[2] == 3
    for k in range(4):
        assert (at(fig, k, 0) == at(fig, k, 1)).all()
        assert (at(fig, k, 2) == 0).all()
        tile = pixels(images)[k]
        assert any((at(fig, k, 0) == p).all() for p in tile[3:5, 3:5].reshape(-1, 3))


def test_traversal_names_coordinates_and_values():
    fig = la.figures.traversal(torch.rand(3, 5, 1, 8, 8), low=-2, high=2, fixed=0.3)
    assert fig.layout.xaxis.ticktext == ("-2", "-1", "0", "1", "2")
    assert fig.layout.yaxis.ticktext == ("1", "2", "3")
    assert "0.3" in fig.layout.title.text


def test_thumbnails_follow_the_order_given(digits, picks):
    fig = la.figures.thumbnails(digits, picks, columns=3)
    assert list(fig.data[1].text) == [str(int(c)) for c in digits.labels[picks]]
    assert fig.data[1].customdata.tolist() == picks.tolist()
    assert fig.data[1].x.tolist() == [0, 1, 2, 0]
    assert fig.layout.title.text.startswith("4 images<br>")
    assert "in the order given, row by row" in fig.layout.title.text
    told = la.figures.thumbnails(digits, picks, title="Picked", subtitle="the best first").layout.title.text
    assert told.startswith("Picked<br>")
    assert "the best first" in told
    assert list(la.figures.thumbnails(digits.images, picks).data[1].text) == ["5", "1", "700", "42"]
    few = la.figures.thumbnails(digits, picks, limit=2)
    assert len(few.data[1].text) == 2
    assert "The first 2 of 4 images" in few.layout.title.text


def test_small_images_are_enlarged_pixel_by_pixel(digits):
    drawn = picture(la.figures.thumbnails(digits, [0], columns=1))
    assert max(drawn.shape) >= 700
    assert set(np.unique(drawn)) <= set(np.unique(digits.images[0])) | {255}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda i: la.figures.reconstructions(i, torch.rand(1438, 1, 8, 9)), ValueError, r"\(1438, 1, 8, 8\), got"),
        (lambda i: la.figures.reconstructions(i, i.images, n=0), ValueError, "n must be at least 1"),
        (lambda i: la.figures.reconstructions(i, i.images / 1.0), ValueError, r"\[0, 1\].*255"),
        (lambda i: la.figures.reconstructions(i, i.images * torch.nan), ValueError, "nan"),
        (lambda i: la.figures.thumbnails(torch.rand(4, 2, 8, 8)), ValueError, "C = 1 or 3"),
        (lambda i: la.figures.thumbnails(i.images.int()), TypeError, "uint8 or floating point"),
        (lambda i: la.figures.thumbnails(i, [1438]), ValueError, "index must lie in"),
        (lambda i: la.figures.thumbnails(i, []), ValueError, "at least one image"),
        (lambda i: la.figures.traversal(i.images), ValueError, r"\(L, steps, C, H, W\)"),
        (
            lambda i: la.figures.latent_grid(LatentGrid(i.images[:5], torch.rand(5, 2), torch.rand(2), torch.rand(2))),
            ValueError,
            "2 x 2 images, got 5",
        ),
    ],
)
def test_mosaics_refuse(digits, call, error, message):
    with pytest.raises(error, match=message):
        call(digits)


# ---------------------------------------------------------------- curves


def test_histogram_counts_and_shows_the_pool():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2] * 3)
    fig = la.figures.class_histogram(labels, torch.tensor([0, 1, 2, 6]))
    picked, pool = fig.data
    assert picked.y.tolist() == [3, 1, 0]
    assert pool.y.tolist() == [2, 1, 1]
    assert pool.name == "the pool's proportions"
    assert fig.layout.xaxis.ticktext == ("0<br><b>3</b>", "1<br><b>1</b>", "2<br><b>0</b>")
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(3)
    assert f"2 of 3 classes, balance {entropy:.2f}" in fig.layout.title.text


def test_histogram_of_an_even_sampling_has_balance_one(digits):
    even = torch.cat([torch.nonzero(digits.labels == c)[:2, 0] for c in range(10)])
    assert "10 of 10 classes, balance 1.00" in la.figures.class_histogram(digits, even).layout.title.text


def test_histogram_counts_labels_where_images_have_several():
    labels = torch.tensor([[1, 1], [1, 0], [0, 0]])
    fig = la.figures.class_histogram(labels, [0, 1, 2])
    assert fig.data[0].y.tolist() == [2, 1]
    entropy = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)) / np.log(2)
    assert f"balance {entropy:.2f}" in fig.layout.title.text


def test_history_draws_loss_and_terms_with_validation():
    rows = [{"epoch": e, "loss": 3.0 / e, "reconstruction": 2.0 / e, "kl": 1.0 / e, "seconds": 1.0} for e in (1, 2)]
    rows = [row | {"images": 10, "val_loss": 4.0, "val_kl": 2.0, "val_reconstruction": 2.0} for row in rows]
    fig = la.figures.history(History(rows, best_epoch=2))
    assert [note.text for note in fig.layout.annotations] == ["loss", "reconstruction", "kl"]
    assert [trace.name for trace in fig.data] == ["training", "validation"] * 3
    assert list(fig.data[0].y) == [3.0, 1.5]
    assert fig.layout.xaxis.title.text == "epoch"
    assert fig.layout.yaxis.title.text == "nats per image"
    assert "best epoch on validation, 2" in fig.layout.title.text


def test_history_names_the_unit_of_what_a_discriminator_tells():
    fig = la.figures.history(History([{"epoch": 1, "loss": 2.0, "told_apart": 0.5}]))
    assert [axis.title.text for axis in fig.select_yaxes()] == ["nats per image", "balanced accuracy"]


def test_history_leaves_out_a_term_that_is_the_loss():
    fig = la.figures.history(History([{"epoch": 1, "loss": 2.0, "reconstruction": 2.0}]))
    assert [trace.name for trace in fig.data] == ["training"]


def results(**columns):
    frame = {"strategy": ["a", "b", "c"], "difference": [0.02, -0.03, 0.0], "low": [0.01, -0.04, -0.01]}
    return pd.DataFrame(frame | {"high": [0.03, -0.02, 0.01]} | columns)


def test_comparison_shows_points_intervals_and_verdicts():
    fig = la.figures.comparison(results())
    found = {trace.y[0]: trace for trace in fig.data}
    assert found["a"].name == "better than random"
    assert found["b"].name == "worse than random"
    assert found["c"].name == "interval holds 0"
    assert found["a"].x[0] == pytest.approx(2)
    assert found["a"].error_x.array[0] == pytest.approx(1)
    assert len({trace.marker.symbol for trace in fig.data}) == 3
    assert "percentage points" in fig.layout.xaxis.title.text
    assert fig.layout.yaxis.categoryarray == ("b", "c", "a")


def test_comparison_tells_apart_by_a_corrected_p_if_asked_to():
    fig = la.figures.comparison(results(p_holm=[0.2, 0.01, 1.0]), p="p_holm")
    assert {trace.name: tuple(trace.y) for trace in fig.data} == {
        "p_holm of 0.05 or more": ("a", "c"),
        "worse than random": ("b",),
    }


def test_comparison_names_its_baseline():
    fig = la.figures.comparison(results(), baseline="margin")
    assert {trace.name for trace in fig.data} == {"better than margin", "worse than margin", "interval holds 0"}
    assert fig.layout.xaxis.title.text == "accuracy minus margin's (percentage points)"
    assert fig.layout.title.text.startswith("Strategies against margin")
    fig = la.figures.comparison(results(), label="AULC minus random's", title="Areas")
    assert fig.layout.xaxis.title.text == "AULC minus random's"
    assert fig.layout.title.text.startswith("Areas")


def test_comparison_has_a_panel_per_facet():
    frame = pd.concat([results(pool=p, labels=n) for p in ("even", "10:1") for n in (100, 1000)])
    fig = la.figures.comparison(frame, facets=["pool", "labels"])
    titles = [note.text for note in fig.layout.annotations]
    assert titles == ["pool: even", "pool: 10:1", "labels: 100", "labels: 1000"]
    assert sum(len(trace.x) for trace in fig.data) == len(frame)
    assert sum(trace.showlegend for trace in fig.data) == 3


def test_comparison_leaves_the_table_as_it_was():
    frame = results()
    la.figures.comparison(frame)
    pd.testing.assert_frame_equal(frame, results())


def test_a_confusion_matrix_takes_names_from_a_frame():
    import pandas as pd

    counts = pd.DataFrame([[1, 2], [0, 1]], index=["cat", "dog"], columns=["cat", "dog"])
    expected = la.figures.confusion(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1]), ["cat", "dog"])
    assert la.figures.confusion_matrix(counts) == expected
    assert la.figures.confusion_matrix(counts.to_numpy(), ["cat", "dog"]) == expected


def test_confusion_gives_shares_of_the_true_class():
    fig = la.figures.confusion(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1]), ["cat", "dog"])
    assert np.allclose(fig.data[0].z, [[100 / 3, 200 / 3], [0, 100]])
    assert "50.0 %" in fig.layout.title.text
    assert list(fig.data[0].y) == ["cat", "dog"]


def test_relation_tells_the_rank_correlation():
    x = torch.arange(5.0)
    assert "correlation 1.00" in la.figures.relation(x, x**3, x_title="a", y_title="b").layout.title.text
    assert "correlation -1.00" in la.figures.relation(x, -x, x_title="a", y_title="b").layout.title.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: la.figures.class_histogram(None, [0]), "needs labels"),
        (lambda: la.figures.class_histogram(torch.tensor([0, 1]), []), "at least one image"),
        (lambda: la.figures.class_histogram(torch.tensor([0, 1]), [2]), r"index must lie in 0 to 1"),
        (lambda: la.figures.history(History()), "at least one epoch"),
        (lambda: la.figures.comparison(results().drop(columns="low")), "missing: .'low'"),
        (lambda: la.figures.comparison(results()[:0]), "must have rows"),
        (lambda: la.figures.comparison(results(pool="x"), facets=["pool", "low", "high"]), "at most two"),
        (lambda: la.figures.comparison(pd.concat([results(pool=p) for p in "xy"])), r"facets=.'pool'"),
        (lambda: la.figures.confusion(torch.tensor([0]), torch.tensor([0, 1])), r"predicted must have shape \(1,\)"),
        (lambda: la.figures.confusion(torch.tensor([2]), torch.tensor([0]), ["a", "b"]), "all 3 classes"),
        (lambda: la.figures.confusion_matrix(torch.eye(3), ["a"]), "class_names must name all 3 classes, got 1 names"),
        (lambda: la.figures.confusion_matrix(torch.zeros(3, 3)), r"counts must have shape \(C, C\) and not all be 0"),
        (lambda: la.figures.confusion_matrix(torch.ones(3, 2)), r"counts must have shape \(C, C\) .* got \(3, 2\)"),
        (lambda: la.figures.relation([1.0], [1.0], x_title="a", y_title="b"), "N >= 2"),
    ],
)
def test_curves_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()
