"""Latent tools against the model called by hand, scikit-learn and hand-made values."""

import dataclasses

import numpy as np
import pytest
import torch

import lalib as la
from lalib.codes.measures import _difficulty

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(400))


@pytest.fixture(scope="module")
def model(digits):
    trained = la.VAE(SHAPE, 2)
    la.fit(trained, digits, epochs=3, device="cpu", progress=False)
    return trained


def _by_hand(function, x):
    with torch.no_grad():
        return function(x)


def test_encode_decode_reconstruct(model, digits):
    x = digits.images.float() / 255
    codes = la.encode(model, digits)
    assert codes.shape == (400, 2)
    assert codes.dtype == torch.float32
    assert not codes.requires_grad
    assert torch.allclose(codes, _by_hand(model.encode, x), atol=1e-5)
    images = la.decode(model, codes)
    assert images.shape == (400, *SHAPE)
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.allclose(images, _by_hand(model.decode, codes), atol=1e-5)
    assert torch.allclose(la.codes.reconstruct(model, digits), images, atol=1e-5)
    for blocks in (1, 37, 1000):
        assert torch.allclose(la.encode(model, digits, batch_size=blocks), codes, atol=1e-5)


@pytest.mark.parametrize("kind", [la.models.ConditionalVAE, la.M2])
def test_decode_as_a_class(kind):
    model = kind(SHAPE, 3, latent_dim=2).eval()
    codes, labels = torch.randn(7, 2, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    images = la.decode(model, codes, batch_size=4, labels=labels)
    with torch.no_grad():
        assert torch.allclose(images, model.decode(codes, labels), atol=1e-5)
    with pytest.raises(ValueError, match="labels must lie in 0 to 2, got 0 to 3"):
        la.decode(model, codes, labels=torch.arange(7) % 4)


def test_a_class_for_a_model_of_codes_alone(model):
    with pytest.raises(ValueError, match=r"labels must be None: a (CAE|VAE) draws images of codes alone"):
        la.decode(model, torch.zeros(1, 2), labels=torch.tensor([0]))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_is_kept(training, digits):
    model = la.CAE(SHAPE).train(training)
    la.encode(model, digits)
    la.decode(model, torch.zeros(1, 2))
    la.reconstruction_errors(model, digits)
    assert model.training is training


def test_codes_can_be_changed_and_trained_on(model, digits):
    codes = la.encode(model, digits)
    codes -= codes.mean(0)
    model.decoder(codes).sum().backward()
    model.zero_grad()


def test_wrong_shapes(model, digits):
    other = la.load("mnist-mini").subset([0])
    for function in (la.encode, la.codes.reconstruct, la.reconstruction_errors):
        with pytest.raises(ValueError, match=r"the model takes images of shape \(1, 8, 8\), got \(1, 28, 28\)"):
            function(model, other)
    with pytest.raises(ValueError, match="codes must have the model's 2 coordinates, got 3"):
        la.decode(model, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="codes must be finite, but 1 of 4 rows hold NaN"):
        la.decode(model, torch.zeros(4, 2).index_fill(0, torch.tensor([2]), float("nan")))


@pytest.mark.parametrize("reconstruction", ["bce", "mae"])
def test_reconstruction_errors_are_the_mae_of_each_image(reconstruction, digits):
    model = la.CAE(SHAPE, reconstruction=reconstruction)
    errors = la.reconstruction_errors(model, digits)
    expected = np.abs(la.codes.reconstruct(model, digits).numpy() - digits.images.numpy() / 255).mean((1, 2, 3))
    assert errors.shape == (400,)
    assert np.allclose(errors, expected, atol=1e-6)


class _Plane(la.CAE):
    """Decodes a code (x, y) into an image whose first two pixels are x and y."""

    def decode(self, z):
        return torch.nn.functional.pad(z, (0, 62)).view(-1, *SHAPE)


def test_the_latent_grid_runs_from_the_top_left():
    grid = la.codes.latent_grid(_Plane(SHAPE), size=3, limits=(0, 1, 10, 30))
    assert grid.x.tolist() == [0, 0.5, 1]
    assert grid.y.tolist() == [30, 20, 10]  # the first row is the highest
    assert grid.codes.tolist() == [[x, y] for y in (30, 20, 10) for x in (0, 0.5, 1)]
    assert torch.equal(grid.images[:, 0, 0, :2], grid.codes)


def test_the_limits_of_the_latent_grid(model):
    codes = torch.stack([torch.linspace(0, 100, 101), torch.linspace(-50, 50, 101)], dim=1)
    grid = la.codes.latent_grid(model, codes, size=2)
    assert grid.x.tolist() == pytest.approx([1, 99])
    assert grid.y.tolist() == pytest.approx([49, -49])
    assert torch.equal(grid.images, la.decode(model, grid.codes))
    assert la.codes.latent_grid(model, size=5).x.tolist() == [-2, -1, 0, 1, 2]
    assert la.codes.latent_grid(model).images.shape == (225, *SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1}, "size must be at least 2, got 1"),
        ({"limits": (0, 1)}, r"limits must be \(x low, x high, y low, y high\), got \(0, 1\)"),
        ({"limits": (1, 0, 0, 1)}, r"limits must be .* got \(1, 0, 0, 1\)"),
        ({"codes": torch.zeros(4, 3)}, r"codes must have shape \(N, 2\), got \(4, 3\)"),
        ({"codes": torch.full((4, 2), float("nan"))}, "4 of 4 rows hold NaN"),
    ],
)
def test_bad_grids(options, message, model):
    with pytest.raises(ValueError, match=message):
        la.codes.latent_grid(model, **options)


def test_a_grid_needs_two_dimensions():
    with pytest.raises(ValueError, match="a latent grid needs latent_dim=2, got 3: see traversal"):
        la.codes.latent_grid(la.CAE(SHAPE, 3))


@pytest.mark.parametrize("fixed", [0.3, torch.tensor([1.0, 2.0, 3.0])])
def test_traversal_against_decoding_by_hand(fixed):
    model = la.CAE(SHAPE, 3)
    images = la.codes.traversal(model, steps=5, low=-1, high=1, fixed=fixed)
    assert images.shape == (3, 5, *SHAPE)
    for i in range(3):
        for j, value in enumerate((-1, -0.5, 0, 0.5, 1)):
            code = torch.as_tensor(fixed).expand(3).tolist()
            code[i] = value
            assert torch.allclose(images[i, j], _by_hand(model.decode, torch.tensor([code]))[0], atol=1e-6)


def test_the_defaults_of_traversal_are_the_reports_figure():
    images = la.codes.traversal(_Plane(SHAPE))[:, :, 0, 0, :2]
    steps = torch.linspace(0, 1, 11)
    assert torch.allclose(images[0], torch.stack([steps, torch.full((11,), 0.3)], 1))
    assert torch.allclose(images[1], torch.stack([torch.full((11,), 0.3), steps], 1))


def test_bad_traversals(model):
    with pytest.raises(ValueError, match=r"fixed must be a number or a code \(2,\), got shape \(3,\)"):
        la.codes.traversal(model, fixed=torch.zeros(3))
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        la.codes.traversal(model, steps=1)


@pytest.mark.parametrize("dimensions", [2, 64])
def test_one_nn_error_against_scikit_learn(dimensions, digits):
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    z = torch.randn(400, dimensions, generator=torch.Generator().manual_seed(0)) + digits.labels[:, None] / 3
    y = digits.labels
    nearest = KNeighborsClassifier(1).fit(z[:300], y[:300])
    expected = 1 - nearest.score(z[300:], y[300:])
    assert la.one_nn_error(z[:300], y[:300], z[300:], y[300:]) == pytest.approx(expected)
    guess = cross_val_predict(KNeighborsClassifier(1), z[:100], y[:100], cv=LeaveOneOut())
    assert la.one_nn_error(z[:100], y[:100]) == pytest.approx((guess != y[:100].numpy()).mean())


def test_one_nn_error_by_hand():
    codes, labels = torch.tensor([[0.0], [1.0], [3.0], [3.5]]), torch.tensor([0, 0, 0, 1])
    assert la.one_nn_error(codes, labels) == 0.5
    assert la.one_nn_error(
        codes, labels, torch.tensor([[3.4], [0.1], [9.0]]), torch.tensor([1, 0, 0])
    ) == pytest.approx(1 / 3)


def test_bad_one_nn_errors():
    codes, labels = torch.rand(4, 2), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\), one per point, got \(3,\)"):
        la.one_nn_error(codes, labels[:3])
    with pytest.raises(TypeError, match=r"test_labels must be an array, .* got None"):
        la.one_nn_error(codes, labels, codes)
    with pytest.raises(ValueError, match=r"test_labels must have shape \(4,\), one per point, got \(2,\)"):
        la.one_nn_error(codes, labels, codes, labels[:2])
    with pytest.raises(ValueError, match="test_codes must be finite"):
        la.one_nn_error(codes, labels, codes * float("nan"), labels)


def test_trustworthiness(digits):
    flat = digits.images.flatten(1).double()
    assert la.codes.trustworthiness(digits, flat) == 1
    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    assert la.codes.trustworthiness(digits, noise) == pytest.approx(0.5, abs=0.05)
    assert la.codes.trustworthiness(digits, noise) == la.codes.trustworthiness(digits.images, noise)
    assert 0.7 < la.codes.trustworthiness(digits, la.project(flat, "pca"), k=5) < 1
    with pytest.raises(ValueError, match="codes must be as many as the 400 images, got 399"):
        la.codes.trustworthiness(digits, noise[:399])


@pytest.mark.parametrize(
    ("labels", "n_classes", "balance"),
    [
        ([0, 1, 2, 3], 4, 1),
        ([2, 2, 2], 4, 0),
        ([0, 1], 4, 0.5),
        ([0, 0, 0, 1], 2, 0.75 * np.log2(4 / 3) + 0.25 * np.log2(4)),
        ([0] * 70 + [1] * 30, 2, -(0.7 * np.log2(0.7) + 0.3 * np.log2(0.3))),
    ],
)
def test_class_balance_by_hand(labels, n_classes, balance):
    assert la.codes.class_balance(torch.tensor(labels), n_classes) == pytest.approx(balance, abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "n_classes", "error", "message"),
    [
        (torch.tensor([0, 4]), 4, ValueError, "labels must lie in 0 to 3, got 0 to 4"),
        (torch.zeros(0, dtype=torch.int64), 4, ValueError, r"labels must have shape \(n,\), one per point, got \(0,\)"),
        (torch.zeros(3, 4, dtype=torch.int64), 4, ValueError, r"got \(3, 4\)"),
        (torch.rand(3), 4, TypeError, "labels must be whole numbers, got torch.float32"),
        (torch.zeros(3, dtype=torch.int64), 1, ValueError, "n_classes must be at least 2, got 1"),
    ],
)
def test_bad_class_balances(labels, n_classes, error, message):
    with pytest.raises(error, match=message):
        la.codes.class_balance(labels, n_classes)


def _blobs(n=90, dimensions=6):
    y = torch.arange(n) % 3
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(0)) + 20 * torch.eye(dimensions)[y], y


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
def test_a_projection_keeps_clusters_apart_and_is_repeatable(method):
    codes, labels = _blobs()
    before = codes.clone()
    view = la.project(codes, method, seed=1)
    assert view.shape == (90, 2)
    assert view.dtype == torch.float32
    assert la.one_nn_error(view, labels) == 0
    assert torch.equal(view, la.project(codes, method, seed=1))
    assert torch.equal(codes, before)


def test_pca_is_the_singular_vectors():
    codes, _ = _blobs()
    centred = codes - codes.mean(0)
    expected = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:3].T
    view = la.project(codes, "pca", dims=3)
    assert torch.allclose(view.abs(), expected.abs(), atol=1e-3)


def test_bad_projections():
    with pytest.raises(ValueError, match="method must be one of 'umap', 'tsne', 'pca', got 'mds'"):
        la.project(torch.rand(9, 3), "mds")
    with pytest.raises(ValueError, match="dims must be at least 1, got 0"):
        la.project(torch.rand(9, 3), "pca", dims=0)
    with pytest.raises(ValueError, match="codes must be finite"):
        la.project(torch.rand(9, 3) / 0 * 0, "pca")


def test_difficulty_by_hand():
    """p(class 0) of four images over five epochs; their classes are 0, 0, 1, 1."""
    p = [
        [0.9, 0.9, 0.9, 0.9, 0.9],  # always right
        [0.1, 0.8, 0.2, 0.7, 0.4],  # learnt twice, forgotten twice
        [0.6, 0.7, 0.8, 0.9, 0.6],  # never right
        [0.7, 0.2, 0.6, 0.1, 0.3],  # right, forgotten once, right again
    ]
    p0_T_N = torch.tensor(p, dtype=torch.float64).T
    columns = _difficulty(torch.stack([p0_T_N, 1 - p0_T_N], 2), torch.tensor([0, 0, 1, 1]), early=2)
    assert columns["forgetting"].tolist() == [0, 2, 5, 1]  # never learnt counts every epoch
    assert np.allclose(columns["el2n"], np.sqrt(2) * np.array([0.1, 0.2, 0.7, 0.2]))  # after the second epoch
    assert np.allclose(columns["confidence"], [0.9, 0.44, 0.28, 0.62])
    assert np.allclose(columns["variability"], [np.std(row) for row in p])


def test_difficulty_of_images(digits):
    wrong = digits.labels.clone()
    wrong[:20] = (wrong[:20] + 1) % 10
    frame = la.codes.difficulty(
        dataclasses.replace(digits, labels=wrong), epochs=50, early=40, device="cpu", progress=False
    )
    assert list(frame) == ["el2n", "forgetting", "confidence", "variability"]
    assert len(frame) == 400
    assert frame["el2n"][:20].mean() > 1.5 * frame["el2n"][20:].mean()  # wrong labels are hard
    assert frame["confidence"][:20].mean() < 0.5 * frame["confidence"][20:].mean()


def test_difficulty_is_repeatable(digits):
    one, again = (la.codes.difficulty(digits, epochs=2, early=1, device="cpu", progress=False) for _ in range(2))
    assert one.equals(again)


def test_bad_difficulties(digits):
    with pytest.raises(la.LalibError, match="difficulty needs labels: the image set has none"):
        la.codes.difficulty(dataclasses.replace(digits, labels=None))
    with pytest.raises(ValueError, match="early must be at most 2, got 3"):
        la.codes.difficulty(digits, epochs=2)
