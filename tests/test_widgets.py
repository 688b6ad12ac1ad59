"""The sampling explorer without a browser: a control is set, and selection, pictures and sentence follow."""

import numpy as np
import pytest
import torch

import lalib as la
from lalib.widgets import options_of, selection_in_words


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(300))


@pytest.fixture(scope="module")
def codes(digits):
    first = la.project(digits.images.flatten(1).float() / 255, "pca")
    return {"CAE": first, "VAE": first.flip(1) * 3}


@pytest.fixture
def explorer(digits, codes):
    return la.widgets.sampling_explorer(digits, codes, n=20, seed=1)


def ringed(explorer):
    trace = explorer.map.data[-1]
    return np.stack([trace.x, trace.y], 1)


def test_starts_with_what_select_picks(explorer, codes):
    expected = la.select("normal-in-clusters", codes["CAE"], 20, seed=1, clusters=10)
    assert explorer.selection.tolist() == expected.tolist()


def test_every_control_has_a_name_and_a_description(explorer):
    assert list(explorer.controls) == ["autoencoder", "strategy", "n", "threshold", "match", "clusters", "seed"]
    assert all(control.description for control in explorer.controls.values())


@pytest.mark.parametrize(
    ("strategy", "settings", "options"),
    [
        ("random", {"n": 7}, {}),
        ("random", {"seed": 5}, {}),
        ("cluster", {"clusters": 4}, {"clusters": 4}),
        ("uniform-spatial", {"match": "all"}, {"match": "all"}),
        ("k-medoids", {"n": 3}, {}),
        ("normal-in-clusters", {"clusters": 1, "n": 50}, {"clusters": 1}),
    ],
)
def test_controls_are_the_arguments_of_select(explorer, codes, strategy, settings, options):
    explorer.controls["strategy"].value = strategy
    for name, value in settings.items():
        explorer.controls[name].value = value
    if "clusters" in options_of(strategy):
        options = {"clusters": 10} | options
    n, seed = explorer.controls["n"].value, explorer.controls["seed"].value
    assert explorer.selection.tolist() == la.select(strategy, codes["CAE"], n, seed=seed, **options).tolist()
    assert np.allclose(ringed(explorer), codes["CAE"][explorer.selection])
    assert f"{n} of 300 images picked by {strategy}" in explorer.sentence.value


def test_threshold_is_in_median_distances_to_the_nearest_neighbour(explorer, codes):
    from lalib.geometry import median_nn_distance

    explorer.controls["strategy"].value = "uniform-spatial"
    assert explorer.threshold is None
    assert "farther" not in explorer.sentence.value
    explorer.controls["threshold"].value = 5
    unit = float(median_nn_distance(codes["CAE"]))
    assert explorer.threshold == pytest.approx(5 * unit)
    expected = la.select("uniform-spatial", codes["CAE"], 20, seed=1, threshold=5 * unit)
    assert explorer.selection.tolist() == expected.tolist()
    assert f"none farther than {5 * unit:.3g}" in explorer.sentence.value


def test_sentence_tells_the_default_threshold_of_match_all(explorer):
    explorer.controls["match"].value = "all"
    assert "none farther than" in explorer.sentence.value


def test_another_autoencoder_moves_every_point(explorer, codes):
    explorer.controls["autoencoder"].value = "VAE"
    assert np.allclose(np.stack([explorer.map.data[0].x, explorer.map.data[0].y], 1), codes["VAE"])
    assert np.allclose(ringed(explorer), codes["VAE"][explorer.selection])
    assert "VAE" in explorer.map.layout.title.text


def test_pictures_change_with_the_selection(explorer, digits):
    thumbnails, ticks = explorer.thumbnails.value, explorer.histogram.layout.xaxis.ticktext
    explorer.controls["seed"].value = 2
    assert explorer.thumbnails.value != thumbnails
    assert explorer.histogram.layout.xaxis.ticktext != ticks
    counts = torch.bincount(digits.labels[explorer.selection], minlength=10)
    assert explorer.histogram.data[0].y.tolist() == counts.tolist()
    words = ", ".join(str(int(c)) for c in digits.labels[explorer.selection])
    assert f'alt="All 20 picks: {words}"' in explorer.thumbnails.value


def test_controls_that_a_strategy_does_not_take_are_disabled(explorer):
    def disabled(strategy):
        explorer.controls["strategy"].value = strategy
        return {name for name, control in explorer.controls.items() if control.disabled}

    assert disabled("random") == {"threshold", "match", "clusters"}
    assert disabled("uniform-spatial") == {"clusters"}
    assert disabled("cluster") == {"threshold", "match"}
    assert disabled("normal-in-clusters") == set()


def test_errors_stand_in_the_sentence_and_clear_the_pictures(digits, codes):
    corners = codes["CAE"] + 1e6 * (torch.arange(300) % 2)[:, None]  # a box all but empty: no draw comes near a code
    far = {"CAE": codes["CAE"], "corners": corners}
    explorer = la.widgets.sampling_explorer(digits, far, strategy="uniform-spatial", n=300)
    explorer.controls["match"].value = "all"
    explorer.controls["threshold"].value = 0.5
    explorer.controls["autoencoder"].value = "corners"
    assert explorer.sentence.value.startswith("Nothing picked: ")
    assert "threshold" in explorer.sentence.value
    assert len(explorer.selection) == 0
    assert len(ringed(explorer)) == 0
    assert explorer.pictures.layout.display == "none"
    explorer.controls["strategy"].value = "random"
    assert len(explorer.selection) == 300
    assert explorer.pictures.layout.display is None


def test_reconstruction_error_is_offered_where_errors_are_given(explorer, digits, codes):
    assert "reconstruction-error" not in explorer.controls["strategy"].options
    errors = {"CAE": torch.arange(300.0)}
    with_errors = la.widgets.sampling_explorer(digits, codes, errors=errors, strategy="reconstruction-error", n=3)
    assert with_errors.selection.tolist() == [299, 298, 297]
    with_errors.controls["autoencoder"].value = "VAE"
    assert "needs errors" in with_errors.sentence.value


def test_colours_travel_as_small_numbers_not_as_strings(explorer):
    for trace in explorer.map.data[:2]:
        assert trace.marker.color.dtype == np.int16
        assert trace.marker.symbol.dtype == np.int16


def test_images_without_labels(digits, codes):
    blind = la.ImageSet(digits.images, None, (), "blind")
    explorer = la.widgets.sampling_explorer(blind, codes, n=5)
    assert explorer.histogram is None
    assert explorer.sentence.value.endswith("no labels to count.")
    assert f"All 5 picks: {', '.join(map(str, explorer.selection.tolist()))}" in explorer.thumbnails.value


def test_images_with_several_labels(digits, codes):
    several = la.ImageSet(digits.images, torch.ones(300, 3).long(), ("a", "b", "c"), "several")
    explorer = la.widgets.sampling_explorer(several, codes, n=5)
    assert "3 of 3 classes, balance 1.00" in explorer.sentence.value


def test_selection_in_words(digits):
    index = torch.cat([torch.nonzero(digits.labels == c)[:k, 0] for c, k in [(3, 3), (8, 1)]])
    text = selection_in_words(digits, index, "random")
    assert text == ("4 of 300 images picked by random: 2 of 10 classes, balance 0.24. Most often (3): 3; never: 0.")


def test_class_names_cannot_inject_html(digits, codes):
    names = ('"><script>', *map(str, range(1, 10)))
    nasty = la.ImageSet(digits.images, digits.labels, names, "nasty")
    assert "<script>" not in la.widgets.sampling_explorer(nasty, codes, n=300).thumbnails.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": {}}, "at least one autoencoder"),
        ({"codes": {"CAE": torch.rand(299, 2)}}, r"'CAE'.*\(300, 2\).*got \(299, 2\)"),
        ({"codes": {"CAE": torch.rand(300, 10)}}, "la.project"),
        ({"codes": {"CAE": torch.full((300, 2), torch.nan)}}, "NaN"),
        ({"errors": {"CEA": torch.rand(300)}}, "Did you mean 'CAE'"),
        ({"strategies": ["randon"]}, "Did you mean 'random'"),
        ({"strategy": "reconstruction-error"}, "strategy must be one of"),
        ({"n": 301}, "at most 300"),
        ({"n": 0}, "at least 1"),
        ({"seed": 100}, "at most 99"),
    ],
)
def test_refuses(digits, codes, options, message):
    arguments = {"images": digits, "codes": codes} | options
    with pytest.raises(ValueError, match=message):
        la.widgets.sampling_explorer(**arguments)
