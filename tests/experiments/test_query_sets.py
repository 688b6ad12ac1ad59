"""Comparisons of query sets and of maps: paired, repeatable, and what a run does by hand."""

import dataclasses

import pytest
import torch

import lalib as la
from lalib.data.seeds import child_seed
from lalib.experiments.comparison import compare_maps, compare_query_sets
from lalib.models.autoencoders import MODELS
from lalib.strategies.registry import LABEL_FREE

# compare_query_sets ----------------------------------------------------------------------------------------------


ENCODER = {"model": "VAE", "latent_dim": 2, "epochs": 2}


def _compare(digits, held_out, out, **options):
    defaults = {
        "encoder": ENCODER,
        "strategies": ["random", "cluster"],
        "sizes": [20],
        "ratios": [1],
        "seeds": 2,
        "steps": 4,
    }
    return compare_query_sets(digits, held_out, out=out, progress=False, **{**defaults, **options})


def test_one_row_per_strategy_size_pool_and_seed(digits, held_out, tmp_path):
    frame = _compare(digits, held_out, tmp_path, sizes=[10, 20], ratios=[1, 3], seeds=[0, 5])
    columns = ["strategy", "labels", "ratio", "seed", "accuracy", "balance", "classes", "steps", "learnt"]
    assert list(frame) == columns
    cells = frame[["strategy", "labels", "ratio", "seed"]].apply(tuple, axis=1)
    expected = {(s, n, r, i) for s in ("random", "cluster") for n in (10, 20) for r in (1, 3) for i in (0, 5)}
    assert len(frame) == 16
    assert set(cells) == expected
    assert frame["accuracy"].between(0, 1).all()
    assert frame["balance"].between(0, 1).all()
    assert frame["classes"].between(1, 10).all()
    assert len(list(tmp_path.iterdir())) == 4


def test_a_comparison_is_repeatable_and_paired(digits, held_out, tmp_path):
    """The same strategy under two names gets the same picks and the same classifier: the difference is exactly 0."""
    twice = {"one": ("cluster", {}), "two": ("cluster", {}), "random": ("random", {})}
    frame = _compare(digits, held_out, tmp_path / "a", strategies=twice)
    wide = frame.pivot(index="seed", columns="strategy", values="accuracy")
    assert (wide["one"] == wide["two"]).all()
    assert frame.equals(_compare(digits, held_out, tmp_path / "b", strategies=twice))
    alone = _compare(digits, held_out, tmp_path / "c", seeds=[1])  # neither other strategies nor other seeds matter
    assert alone.set_index("strategy")["accuracy"]["cluster"] == wide["one"][1]
    assert alone.set_index("strategy")["accuracy"]["random"] == wide["random"][1]


def test_what_a_run_does_by_hand(digits, held_out, tmp_path):
    """Encode, select, train on the picks alone, test."""
    row = _compare(digits, held_out, tmp_path, seeds=[3], strategies=["random"], steps=20).iloc[0]
    model = la.VAE(digits.image_shape, 2, seed=3)
    la.fit(model, digits, epochs=2, seed=3, progress=False)
    query = la.select("random", la.encode(model, digits), 20, seed=child_seed(3, "select"))
    classifier = la.CNNClassifier(digits.image_shape, 10, seed=3)
    la.fit(classifier, digits.subset(query), epochs=20, seed=3, progress=False)  # 20 images are one minibatch
    assert row["accuracy"] == la.accuracy(classifier, held_out)
    assert row["steps"] == 20
    assert row["learnt"] == la.accuracy(classifier, digits.subset(query)) < 0.99
    assert row["balance"] == la.codes.class_balance(digits.labels[query], 10)
    assert row["classes"] == len(digits.labels[query].unique())


def test_codes_as_the_task_and_options_of_a_strategy(digits, held_out, tmp_path):
    strategies = {"few": ("normal-in-clusters", {"clusters": 5}), "errors": ("reconstruction-error", {})}
    frame = _compare(digits, held_out, tmp_path, strategies=strategies, task="mlp", seeds=1)
    assert frame["strategy"].tolist() == ["few", "errors"]
    assert frame["accuracy"].between(0, 1).all()


def test_another_configuration_is_another_run(digits, held_out, tmp_path):
    _compare(digits, held_out, tmp_path, seeds=1)
    for changes in (
        {"encoder": {**ENCODER, "epochs": 3}},
        {"sizes": [21]},
        {"seeds": [1]},
        {"ratios": [2]},
        {"steps": 10},
    ):
        before = len(list(tmp_path.iterdir()))
        _compare(digits, held_out, tmp_path, **{"seeds": 1, **changes})
        assert len(list(tmp_path.iterdir())) == before + 1
    _compare(digits.subset(range(249)), held_out, tmp_path, seeds=1)
    assert len(list(tmp_path.iterdir())) == before + 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": "svm"}, ValueError, "task must be one of 'cnn', 'mlp', got 'svm'"),
        ({"encoder": {"model": "GAN"}}, ValueError, "encoder's model must be one of 'CAE', 'VAE', .* got 'GAN'"),
        ({"encoder": {}}, ValueError, "encoder's model must be one of .* got None"),
        ({"strategies": ["best"]}, ValueError, "strategy must be one of 'random', .* got 'best'"),
        ({"strategies": {"a": ("random", {"bogus": 1})}}, ValueError, "random has no option 'bogus'"),
        ({"sizes": [0]}, ValueError, "size must be at least 1, got 0"),
        ({"sizes": [251]}, ValueError, "size must be at most 250, got 251"),
        ({"ratios": [0.5]}, ValueError, "ratio must be at least 1, got 0.5"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"seeds": [-1]}, ValueError, "seed must be at least 0, got -1"),
    ],
)
def test_bad_options(options, error, message, digits, held_out, tmp_path):
    with pytest.raises(error, match=message):
        _compare(digits, held_out, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_labels_are_needed(digits, held_out, tmp_path):
    bare = [dataclasses.replace(images, labels=None) for images in (digits, held_out)]
    for images, test in ((bare[0], held_out), (digits, bare[1])):
        with pytest.raises(la.LalibError, match="a comparison needs labels of the images and"):
            _compare(images, test, tmp_path)
        with pytest.raises(la.LalibError, match="a comparison needs labels of the images and"):
            compare_maps(images, test, models={"a": ENCODER}, out=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"class_names": tuple("abcdefghij")},
            "classes must be among '0', '1', .* got 'a'",
        ),
        ({"labels": torch.eye(10, dtype=torch.int64).repeat(10, 1)}, "multi_label .* must be .* False, got True"),
        ({"images": torch.zeros(100, 1, 9, 9, dtype=torch.uint8)}, r"image_shape .* \(1, 8, 8\), got \(1, 9, 9\)"),
    ],
)
def test_the_test_images_are_of_the_same_kind(change, message, digits, held_out, tmp_path):
    other = dataclasses.replace(held_out, **change)
    for call in (lambda: _compare(digits, other, tmp_path), lambda: la.compare(digits, other, out=tmp_path)):
        with pytest.raises(ValueError, match=message):
            call()


def test_query_sets_need_one_label_per_image(digits, held_out, tmp_path):
    one_hot = torch.eye(10, dtype=torch.int64)
    several = [dataclasses.replace(part, labels=one_hot[part.labels]) for part in (digits, held_out)]
    with pytest.raises(la.LalibError, match="query sets are compared by one label per image"):
        _compare(*several, tmp_path)


def test_encoders_that_learn_from_labels_are_no_choice(digits, held_out, tmp_path):
    """They would be trained on the labels of the whole pool."""
    assert not [name for name, model in MODELS.items() if getattr(model, "partly_labelled", False)]
    knowing = {"model": "ConditionalVAE", "n_classes": 10}
    with pytest.raises(ValueError, match=r"encoder's model must be one of 'CAE', .* got 'ConditionalVAE'"):
        _compare(digits, held_out, tmp_path, encoder=knowing)
    with pytest.raises(ValueError, match=r"encoder's model must be one of 'CAE', .* got 'ConditionalVAE'"):
        compare_maps(digits, held_out, models={"a": knowing}, out=tmp_path)


def test_all_strategies_that_need_no_label_are_the_default(digits, held_out, tmp_path):
    frame = compare_query_sets(
        digits, held_out, encoder={**ENCODER, "epochs": 1}, sizes=[8], ratios=[1], seeds=1, steps=1, out=tmp_path
    )
    assert frame["strategy"].tolist() == list(LABEL_FREE)


def test_maps_by_hand(digits, held_out, tmp_path):
    models = {"plain": {"model": "CAE", "epochs": 1}, "variational": ENCODER}
    frame = compare_maps(digits, held_out, models=models, seeds=[0, 4], out=tmp_path, progress=False)
    assert frame[["model", "seed"]].apply(tuple, axis=1).tolist() == [
        ("plain", 0),
        ("variational", 0),
        ("plain", 4),
        ("variational", 4),
    ]
    model = la.VAE(digits.image_shape, 2, seed=4)
    la.fit(model, digits, epochs=2, seed=4, progress=False)
    codes, test_codes, row = la.encode(model, digits), la.encode(model, held_out), frame.iloc[3]
    assert row["one_nn_error"] == la.one_nn_error(codes, digits.labels, test_codes, held_out.labels)
    assert row["trustworthiness"] == la.codes.trustworthiness(held_out, test_codes)
    assert row["mae"] == pytest.approx(la.reconstruction_errors(model, held_out).mean().item())
    with pytest.raises(ValueError, match=r"model must be one of 'CAE', .* got 'GAN'"):
        compare_maps(digits, held_out, models={"a": {"model": "GAN"}}, out=tmp_path)
