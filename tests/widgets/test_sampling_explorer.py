"""The sampling explorer without a browser: a control is set, and selection, pictures and sentence follow."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

import lalib as la
from lalib.widgets import options_of, selection_in_words, strategy_controls


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
    marks = explorer.map.figure.data[2:]
    return np.stack([marks[0].x, marks[0].y], 1) if marks else marks


def test_starts_with_what_select_picks(explorer, codes):
    expected = la.select("normal-in-clusters", codes["CAE"], 20, seed=1, clusters=10)
    assert explorer.selection.tolist() == expected.tolist()


def test_every_control_has_a_name_and_a_description(explorer):
    own = ["strategy", "threshold", "match", "clusters", "seed"]
    assert list(explorer.controls) == ["autoencoder", "n", *own, *[f"second {name}" for name in own], "to label"]
    assert len({control.description for control in explorer.controls.values()} - {""}) == len(explorer.controls)


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
    from lalib.codes.neighbours import median_nn_distance

    explorer.controls["strategy"].value = "uniform-spatial"
    assert "farther" not in explorer.sentence.value
    explorer.controls["threshold"].value = 5
    unit = float(median_nn_distance(codes["CAE"]))
    expected = la.select("uniform-spatial", codes["CAE"], 20, seed=1, threshold=5 * unit)
    assert explorer.selection.tolist() == expected.tolist()
    assert f"none farther than {5 * unit:.3g}" in explorer.sentence.value


def test_sentence_tells_the_default_threshold_of_match_all(explorer):
    explorer.controls["match"].value = "all"
    assert "none farther than" in explorer.sentence.value


def test_another_autoencoder_moves_every_point(explorer, codes):
    explorer.controls["autoencoder"].value = "VAE"
    assert np.allclose(np.stack([explorer.map.figure.data[0].x, explorer.map.figure.data[0].y], 1), codes["VAE"])
    assert np.allclose(ringed(explorer), codes["VAE"][explorer.selection])
    assert explorer.map.figure.layout.title.text == "VAE"


def test_pictures_change_with_the_selection(explorer, digits):
    (sheet,) = explorer.pictures.children
    thumbnails, ticks = sheet.thumbnails.value, sheet.histogram.figure.layout.xaxis.ticktext
    explorer.controls["seed"].value = 2
    assert sheet.thumbnails.value != thumbnails
    assert sheet.histogram.figure.layout.xaxis.ticktext != ticks
    counts = torch.bincount(digits.labels[explorer.selection], minlength=10)
    assert sheet.histogram.figure.data[0].y.tolist() == counts.tolist()
    words = ", ".join(str(int(c)) for c in digits.labels[explorer.selection])
    assert f'alt="All 20 picks: {words}"' in sheet.thumbnails.value


def test_controls_that_a_strategy_does_not_take_are_out_of_sight(explorer):
    def hidden(strategy):
        explorer.controls["strategy"].value = strategy
        first = ("strategy", "threshold", "match", "clusters", "seed")
        return {name for name in first if explorer.controls[name].layout.display == "none"}

    assert hidden("random") == {"threshold", "match", "clusters"}
    assert hidden("uniform-spatial") == {"clusters"}
    assert hidden("cluster") == {"threshold", "match"}
    assert hidden("normal-in-clusters") == set()


def test_errors_stand_in_the_sentence_and_clear_the_pictures(digits, codes):
    corners = codes["CAE"] + 1e6 * (torch.arange(300) % 2)[:, None]  # a box all but empty: no draw comes near a code
    far = {"CAE": codes["CAE"], "corners": corners}
    explorer = la.widgets.sampling_explorer(digits, far, strategy="uniform-spatial", n=300)
    explorer.controls["match"].value = "all"
    explorer.controls["threshold"].value = 0.5
    explorer.controls["autoencoder"].value = "corners"
    assert explorer.sentence.value.startswith("Nothing picked by uniform-spatial: ")
    assert "threshold" in explorer.sentence.value
    assert len(explorer.selection) == 0
    assert len(ringed(explorer)) == 0
    assert explorer.pictures.children == ()
    explorer.controls["strategy"].value = "random"
    assert len(explorer.selection) == 300
    assert len(explorer.pictures.children) == 1


# Plots


def test_a_plot_sends_its_figure_and_what_is_fixed_only_once():
    from lalib.widgets.plot import Library, Plot

    fig = go.Figure([go.Scatter(x=np.arange(3), y=[1, 2, 3]), go.Bar(x=["a"], y=[4])])
    plot, other, sent = Plot(fig, fixed=1), Plot(fig), []
    assert plot.library is other.library
    assert plot.library.source.count("\n") > 100
    assert go.Figure([*plot.ground, *plot.traces], plot.frame) == go.Figure(json.loads(fig.to_json()))
    plot.observe(lambda change: sent.append(change.name))
    fig.update_traces(y=[5], selector={"type": "bar"})
    fig.update_layout(title_text="now")
    plot.show(fig)
    assert sorted(sent) == ["frame", "traces"]
    fig.update_traces(y=[3, 2, 1], selector={"type": "scatter"})
    plot.show(fig)
    assert sorted(sent) == ["frame", "ground", "traces"]
    plot.library.close()
    assert Plot(fig).library is Library.shared() is not plot.library


# Two strategies


@pytest.fixture
def two(digits, codes):
    return la.widgets.sampling_explorer(digits, codes, strategy="k-medoids", second="uniform-spatial", n=20)


def test_two_strategies_share_the_map_and_n(two, codes):
    two.controls["n"].value = 15
    two.controls["second seed"].value = 3
    first = la.select("k-medoids", codes["CAE"], 15, seed=0)
    second = la.select("uniform-spatial", codes["CAE"], 15, seed=3)
    ring, square = two.map.figure.data[2:]
    assert np.allclose(np.stack([ring.x, ring.y], 1), codes["CAE"][first])
    assert np.allclose(np.stack([square.x, square.y], 1), codes["CAE"][second])
    assert (ring.name, square.name) == ("first: k-medoids", "second: uniform-spatial")
    assert set(two.map.figure.data[1].customdata) == {*first.tolist(), *second.tolist()}
    sheets = two.pictures.children
    for sheet, index in zip(sheets, (first, second), strict=True):
        assert f"All 15 picks: {', '.join(str(int(c)) for c in digits_of(two, index))}" in sheet.thumbnails.value
        assert sheet.histogram.figure.layout.title.text.startswith("Classes of the 15 picked images")
    assert sheets[0].histogram.figure.layout.yaxis.range == sheets[1].histogram.figure.layout.yaxis.range

    common = len(set(first.tolist()) & set(second.tolist()))
    lines = two.sentence.value.split("\n")
    assert lines[0].startswith("First: CAE, seed 0: 15 of 300 images picked by k-medoids: ")
    assert lines[1].startswith("Second: CAE, seed 3: 15 of 300 images picked by uniform-spatial")
    words = "1 image" if common == 1 else f"{common} images"
    assert lines[2].startswith(f"{words} picked by both, so that both together cost {30 - common} labels.")


def digits_of(explorer, index):
    return explorer.images.labels[index]


def test_what_is_to_be_labelled(two):
    first, second = two.picked
    assert two.controls["to label"].options == ("the first's picks", "the second's picks", "the picks of both")
    two.controls["to label"].value = "the second's picks"
    assert torch.equal(two.selection, second)
    two.controls["to label"].value = "the picks of both"
    assert two.selection.tolist() == list(dict.fromkeys([*first.tolist(), *second.tolist()]))
    assert two.sentence.value.endswith(f"the picks of both, {len(two.selection)} images.")
    two.controls["second strategy"].value = "none"
    assert torch.equal(two.selection, first)
    assert two.controls["to label"].disabled
    assert len(two.pictures.children) == 1
    assert len(two.map.figure.data) == 3
    assert two.controls["second seed"].layout.display == "none"


def test_trouble_of_one_strategy_leaves_the_other(digits, codes):
    corners = torch.cat([codes["CAE"][:299] * 1e-3, torch.tensor([[100.0, 100.0]])])
    explorer = la.widgets.sampling_explorer(
        digits, {"corners": corners}, strategy="random", second="uniform-spatial", n=9
    )
    explorer.controls["second threshold"].value = 0.5
    first, second = explorer.picked
    assert (len(first), len(second), len(explorer.pictures.children)) == (9, 0, 1)
    lines = explorer.sentence.value.split("\n")
    assert lines[0].startswith("First: corners, seed 0: 9 of 300 images picked by random")
    assert lines[1].startswith("Nothing picked by uniform-spatial: threshold")


def test_a_change_of_one_strategy_does_not_pick_for_the_other_again(two, monkeypatch):
    picked = []
    monkeypatch.setattr(
        strategy_controls, "select", lambda name, *rest, **more: picked.append(name) or torch.arange(20)
    )
    two.controls["second seed"].value = 5
    assert picked == ["uniform-spatial"]
    two.selection[0] = 299  # a reader's own copy
    two.controls["second seed"].value = 0
    assert picked == ["uniform-spatial"]
    assert 299 not in two.selection


def test_one_strategy_in_two_forms(digits, codes):
    both = la.widgets.sampling_explorer(digits, codes, strategy="uniform-spatial", second="uniform-spatial", n=50)
    assert torch.equal(*both.picked)
    both.controls["second match"].value = "all"
    assert torch.equal(both.picked[1], la.select("uniform-spatial", codes["CAE"], 50, seed=0, match="all"))


def table(**accuracy):
    """Two seeds of random at 10, 20 and 40 labels with 0.1, 0.2 and 0.4, and of others, {labels: accuracy}."""
    accuracy = {"random": {10: 0.1, 20: 0.2, 40: 0.4}} | accuracy
    rows = [(s, seed, n, a) for s, curve in accuracy.items() for n, a in curve.items() for seed in (0, 1)]
    return pd.DataFrame(rows, columns=["strategy", "seed", "labels", "accuracy"])


def test_labels_that_a_run_began_with_are_no_strategys(digits, codes):
    measured = table(cluster={10: 0.1, 20: 0.3}).assign(round=lambda t: t["labels"] // 20)
    explorer = la.widgets.sampling_explorer(digits, codes, strategy="cluster", n=9, comparison={"CAE": measured})
    assert "In the comparison, 20 labels by cluster" in explorer.sentence.value


def test_what_labels_cost_in_random_ones(digits, codes):
    measured = table(cluster={10: 0.15, 20: 0.3}, typiclust={20: 0.9}, maxherding={20: 0.05})
    explorer = la.widgets.sampling_explorer(digits, codes, strategy="cluster", n=18, comparison={"CAE": measured})
    assert explorer.sentence.value.endswith(
        " In the comparison, 20 labels by cluster taught as much as about 30 random ones (95 % interval 30 to 30)."
    )
    explorer.controls["n"].value = 9
    assert "10 labels by cluster taught as much as about 15 random ones" in explorer.sentence.value
    explorer.controls["strategy"].value = "typiclust"
    assert "as at least 40 random ones (95 % interval from " in explorer.sentence.value
    explorer.controls["strategy"].value = "maxherding"
    assert "as at most 10 random ones" in explorer.sentence.value
    explorer.controls["strategy"].value = "probcover"
    assert explorer.sentence.value.endswith(" probcover is not in the comparison.")
    explorer.controls["strategy"].value = "random"
    assert explorer.sentence.value.endswith(" Random labels are the measure.")
    explorer.controls["autoencoder"].value = "VAE"  # of whose map there is no comparison
    assert "measure" not in explorer.sentence.value


# Files


def test_a_selection_goes_out_and_answers_come_in(digits, codes, tmp_path):
    store = la.LabelStore(tmp_path / "labels.sqlite", digits.class_names, labeller="me")
    explorer = la.widgets.sampling_explorer(digits, codes, n=5, store=store)
    files = explorer.exchange.controls
    files["write CSV"].click()
    assert (
        explorer.exchange.sentence.value == f"5 images written to {tmp_path / 'query.csv'}. Fill in its column class."
    )
    rows = pd.read_csv(tmp_path / "query.csv")
    assert rows["index"].tolist() == explorer.selection.tolist()
    files["write Label Studio tasks"].click()
    assert (tmp_path / "query.xml").read_text() == la.labelling.label_studio_config(digits.class_names)
    tasks = json.loads((tmp_path / "query.json").read_text())
    assert [task["data"]["index"] for task in tasks] == explorer.selection.tolist()

    rows["class"] = "7"
    rows.to_csv(tmp_path / "filled.csv", index=False)
    assert files["answers"].value == "query.csv"
    files["answers"].value = "filled.csv"
    files["read answers"].click()
    assert explorer.exchange.sentence.value.startswith("Imported: 5 answers added")
    assert (store.labels(digits)[explorer.selection] == 7).all()
    files["file"].value = "again"
    files["write CSV"].click()
    assert pd.read_csv(tmp_path / "again.csv")["class"].tolist() == [7] * 5

    result = {"from_name": "class", "to_name": "image", "type": "choices", "value": {"choices": ["3"]}}
    for task in tasks:
        task["annotations"] = [{"result": [result], "completed_by": 1}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    files["answers"].value = "export.json"
    files["read answers"].click()
    assert explorer.exchange.sentence.value.startswith("Imported: 5 answers added")
    assert set(store.labellers) == {"me", "label-studio-1"}


def test_files_are_not_written_over_and_trouble_is_said(digits, codes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = torch.tensor([3, 1])
    exchange = la.widgets.Exchange(digits, lambda: index)
    assert "answers" not in exchange.controls
    write, file = exchange.controls["write CSV"], exchange.controls["file"]
    write.click()
    before = (tmp_path / "query.csv").read_bytes()
    write.click()
    assert "query.csv is there already and may hold answers" in exchange.sentence.value
    assert (tmp_path / "query.csv").read_bytes() == before
    file.value = "other.csv"
    index = index[:0]
    write.click()
    assert exchange.sentence.value == "Nothing done: no image is selected"
    index = torch.tensor([3])
    troubles = {
        "nowhere/other": f"{tmp_path / 'nowhere'} is no folder",
        " ": "file must be a file's name, got ''",
        "..": "file must be a file's name, got '..'",
        "sub/": "file must be a file's name, got 'sub/'",
        "~nobody-here/x": "Could not determine home directory.",
    }
    for name, message in troubles.items():
        file.value = name
        write.click()
        assert exchange.sentence.value == f"Nothing done: {message}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["query.csv"]

    store = la.LabelStore("labels.sqlite", digits.class_names, labeller="me")
    reading = la.widgets.Exchange(digits, lambda: index, store)
    for name, message in [("export.txt", "ends in .csv or .json"), ("a.csv", "not there"), ("a.json", "not there")]:
        reading.controls["answers"].value = name
        reading.controls["read answers"].click()
        assert reading.sentence.value.startswith("Nothing done: ")
        assert message in reading.sentence.value


def test_reconstruction_error_is_offered_where_errors_are_given(explorer, digits, codes):
    assert "reconstruction-error" not in explorer.controls["strategy"].options
    errors = {"CAE": torch.arange(300.0)}
    with_errors = la.widgets.sampling_explorer(digits, codes, errors=errors, strategy="reconstruction-error", n=3)
    assert with_errors.selection.tolist() == [299, 298, 297]
    with_errors.controls["autoencoder"].value = "VAE"
    assert "needs errors" in with_errors.sentence.value


def test_colours_travel_as_small_numbers_not_as_strings(explorer):
    for trace in explorer.map.figure.data[:2]:
        assert trace.marker.color.dtype == np.int16
        assert trace.marker.symbol.dtype == np.int16


def test_images_without_labels(digits, codes):
    blind = la.ImageSet(digits.images, None, (), "blind")
    explorer = la.widgets.sampling_explorer(blind, codes, n=5)
    (sheet,) = explorer.pictures.children
    assert sheet.histogram is None
    assert explorer.sentence.value.endswith("no labels to count.")
    assert f"All 5 picks: {', '.join(map(str, explorer.selection.tolist()))}" in sheet.thumbnails.value


def test_images_with_several_labels(digits, codes):
    several = la.ImageSet(digits.images, torch.ones(300, 3).long(), ("a", "b", "c"), "several")
    explorer = la.widgets.sampling_explorer(several, codes, n=5)
    assert "3 of 3 classes, balance 1.00" in explorer.sentence.value


def test_selection_in_words(digits):
    index = torch.cat([torch.nonzero(digits.labels == c)[:k, 0] for c, k in [(3, 3), (8, 1)]])
    text = selection_in_words(digits, index, "random")
    assert text == ("4 of 300 images picked by random: 2 of 10 classes, balance 0.24. Most often 3 (3), never 0.")


def test_class_names_cannot_inject_html(digits, codes):
    names = ('"><script>', *map(str, range(1, 10)))
    nasty = la.ImageSet(digits.images, digits.labels, names, "nasty")
    assert "<script>" not in la.widgets.sampling_explorer(nasty, codes, n=300).pictures.children[0].thumbnails.value


def test_strategies_choose_from_codes_that_the_map_only_shows(digits):
    """With more than two coordinates the map is a view: principal components, or the one given."""
    codes = torch.rand(300, 10, generator=torch.Generator().manual_seed(0))
    given = {"codes": {"wide": codes, "other": codes}, "views": {"other": codes[:, :2]}, "strategy": "k-medoids"}
    explorer = la.widgets.sampling_explorer(digits, n=5, seed=3, **given)
    assert torch.equal(explorer.selection, la.select("k-medoids", codes, n=5, seed=3))
    drawn = explorer.map.figure.data[0]
    assert np.allclose(np.stack([drawn.x, drawn.y]), la.project(codes, "pca").T)
    explorer.controls["autoencoder"].value = "other"
    drawn = explorer.map.figure.data[0]
    assert np.array_equal(np.stack([drawn.x, drawn.y]), codes[:, :2].T)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": {}}, "at least one autoencoder"),
        ({"codes": {"CAE": torch.rand(299, 2)}}, r"'CAE'.* must be those of the 300 images, got 299 rows"),
        ({"views": {"CAE": torch.rand(300, 10)}}, "la.project"),
        ({"views": {"CEA": torch.rand(300, 2)}}, "Did you mean 'CAE'"),
        ({"codes": {"CAE": torch.full((300, 2), torch.nan)}}, "NaN"),
        ({"errors": {"CEA": torch.rand(300)}}, "Did you mean 'CAE'"),
        ({"strategies": ["randon"]}, "Did you mean 'random'"),
        ({"strategy": "reconstruction-error"}, "strategy must be one of"),
        ({"second": "randon"}, "Did you mean 'random'"),
        ({"comparison": {"CAE": table().query("seed == 0")}}, "at least 2 seeds"),
        ({"comparison": {"CAE": table().query("strategy != 'random'")}}, "rows"),
        ({"comparison": {"CEA": table()}}, "Did you mean 'CAE'"),
        ({"n": 301}, "at most 300"),
        ({"n": 0}, "at least 1"),
        ({"seed": 100}, "at most 99"),
    ],
)
def test_refuses(digits, codes, options, message):
    arguments = {"images": digits, "codes": codes} | options
    with pytest.raises(ValueError, match=message):
        la.widgets.sampling_explorer(**arguments)
