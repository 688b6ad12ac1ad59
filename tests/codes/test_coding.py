"""Latent tools against the model called by hand, scikit-learn and hand-made values."""

import dataclasses
import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from forks import run_code

import lalib as la
from lalib.codes.measures import _difficulty
from lalib.codes.projection import pixel_pca

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
    assert la.codes.trustworthiness(digits, flat) == pytest.approx(
        1, abs=1e-5
    )  # equal distances are ordered by the threads
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


def _wide(n, width):
    """Points (n, width) of slowly falling variances, where an approximation would be seen."""
    draw = torch.Generator().manual_seed(0)
    scales = 0.97 ** torch.arange(n)
    return (torch.randn(n, n, generator=draw) * scales) @ torch.randn(n, width, generator=draw) / width**0.5


@pytest.mark.parametrize(("n", "width", "dims"), [(800, 30_000, 32), (1500, 1200, 32), (20, 3000, 32), (33, 3000, 32)])
def test_pca_of_many_coordinates_is_exact_and_holds_nothing_of_their_square(n, width, dims):
    points = _wide(n, width)
    tracemalloc.start()
    view = la.project(points, "pca", dims=dims)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    centred = (points.double() - points.double().mean(0)).numpy()
    values, vectors = np.linalg.eigh(centred @ centred.T)
    found, wanted = np.linalg.qr(view.numpy().astype(float)[:, : n - 1])[0], vectors[:, ::-1][:, : min(dims, n - 1)]
    assert np.linalg.svd(found.T @ wanted, compute_uv=False).min() > 1 - 1e-6  # cosines of the principal angles
    sizes = np.square(view.numpy()[:, : n - 1].astype(float)).sum(0)
    assert np.allclose(sizes, values[::-1][: min(dims, n - 1)], rtol=1e-4)
    if n < width / 2:
        assert peak < 5 * points.nbytes  # 30,000 x 30,000 would be 37 times as large, 3,000 x 3,000 90 times


def test_pca_of_many_equal_points_but_one():
    points = torch.zeros(50, 2000)
    assert (la.project(points, "pca") == 0).all()
    points[7] = 1
    view = la.project(points, "pca")
    assert torch.allclose(view[7] - view[0], torch.tensor([2000**0.5, 0.0]).copysign(view[7] - view[0]), atol=1e-3)


def test_bad_projections():
    with pytest.raises(ValueError, match="method must be one of 'umap', 'tsne', 'pca', got 'mds'"):
        la.project(torch.rand(9, 3), "mds")
    with pytest.raises(ValueError, match="dims must be at least 1, got 0"):
        la.project(torch.rand(9, 3), "pca", dims=0)
    with pytest.raises(ValueError, match="codes must be finite"):
        la.project(torch.rand(9, 3) / 0 * 0, "pca")


HARD = """
import torch, lalib as la
draw = torch.Generator().manual_seed(0)
normal = lambda *shape: torch.randn(*shape, generator=draw)
few = [normal(n, 5) for n in (1, 2, 3, 4, 5, 9, 16, 30, 31)] + [normal(n, 1) for n in (3, 4, 7, 31)]
ones, one_ulp, far = torch.ones(60, 5), torch.ones(60, 5), torch.ones(60, 5)
one_ulp[3, 2] += 2e-7
far[5] = 1e6
alike = [ones, 0 * ones, one_ulp, far, 1 + 1e-8 * normal(60, 5), 1 + 1e-8 * normal(60, 5).double(), 1e6 + normal(60, 5)]
scales = [scale * normal(60, 5).double() for scale in (1e-200, 1e-42, 1e-8, 1e30)]
for codes in (*few, *alike, *scales, normal(60, 1), normal(2, 1), normal(3, 5)[torch.arange(60) % 3]):
    for dims in (2, 3):
        view = la.project(codes, METHOD, dims=dims)
        assert view.shape == (len(codes), dims) and torch.isfinite(view).all(), codes
"""


def test_few_and_equal_and_extreme_codes_have_a_view_by_tsne():
    """In a process of its own: given NaN, scikit-learn's t-SNE ends the process with a segmentation fault."""
    child = run_code("import warnings; warnings.simplefilter('ignore')\n" + HARD.replace("METHOD", "'tsne'"))
    child.join()
    assert child.exitcode == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["umap", "pca"])
def test_few_and_equal_and_extreme_codes_have_a_view(method):
    exec(HARD.replace("METHOD", repr(method)), {})


def test_umap_of_equal_codes_but_one_says_nothing():
    """Its spectral start fails there, and it takes a random one."""
    view = la.project(torch.ones(12, 1).index_fill(0, torch.tensor([11]), 2.0), "umap")
    assert view.isfinite().all()


def test_equal_codes_lie_at_one_place_and_too_large_ones_are_refused():
    assert torch.equal(la.project(torch.ones(5, 3), "tsne"), torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"codes must be below 1e\+37 to be viewed, got 1e\+100"):
        la.project(torch.tensor([[0.0], [1e100]], dtype=torch.float64), "pca")


def test_pca_of_tiny_codes_keeps_their_scale():
    codes, _ = _blobs()
    torch.testing.assert_close(1e13 * la.project(1e-13 * codes.double(), "pca"), la.project(codes, "pca"))


def test_threads_are_put_back_also_after_an_error_inside_umap(monkeypatch):
    import numba
    import umap

    def fail(*_):
        torch.set_num_threads(2)
        numba.set_num_threads(1)
        raise RuntimeError("inside")

    before = torch.get_num_threads(), numba.get_num_threads()
    monkeypatch.setattr(umap.UMAP, "fit_transform", fail)
    with pytest.raises(RuntimeError, match="inside"):
        la.project(torch.rand(9, 3), "umap")
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


# The door: what users pass to the room


def _points():
    return torch.randn(40, 2, generator=torch.Generator().manual_seed(0)).double().numpy().round(2)


def _filtered(values):
    """A pandas object whose labels do not begin at 0."""
    kind = pd.Series if np.ndim(values) == 1 else pd.DataFrame
    return kind(np.concatenate([values, values]))[len(values) :]


KINDS = {
    "another byte order": lambda v: v.astype(v.dtype.newbyteorder(">")),
    "reversed twice": lambda v: v[::-1].copy()[::-1],
    "filtered table": _filtered,
    "list": lambda v: v.tolist(),
    "read-only": lambda v: np.broadcast_to(v, v.shape),
    "tensor": torch.from_numpy,
}
Y = np.arange(40) % 3
TAKE_CODES = {
    "decode": lambda z: la.decode(la.CAE(SHAPE, 2, seed=0), z),
    "latent_grid": lambda z: la.codes.latent_grid(la.CAE(SHAPE, 2, seed=0), z, size=2).codes,
    "one_nn_error": lambda z: la.one_nn_error(z, Y),
    "one_nn_error, test_codes": lambda z: la.one_nn_error(_points(), Y, z, Y),
    "trustworthiness": lambda z: la.codes.trustworthiness(_points(), z, 5),
    "trustworthiness, images": lambda z: la.codes.trustworthiness(z, _points(), 5),
    "project": lambda z: la.project(z, "pca"),
    "spread_labels": lambda z: la.codes.spread_labels(z, Y, 3, neighbours=5),
    "spread_labels, queries": lambda z: la.codes.spread_labels(_points(), Y, 3, neighbours=5, queries=z),
    "knn": lambda z: la.codes.knn(z, 3)[0],
    "knn, queries": lambda z: la.codes.knn(_points(), 3, z)[0],
    "kmeans": lambda z: la.codes.kmeans(z, 3, torch.Generator().manual_seed(0))[0],
    "ward": lambda z: la.codes.ward(z, 3),
    "median_nn_distance": la.codes.median_nn_distance,
    "Neighbours": lambda z: la.codes.Neighbours(z).nearest(z, 2)[0],
}
TAKE_LABELS = {
    "one_nn_error": lambda y: la.one_nn_error(_points(), y),
    "one_nn_error, test_labels": lambda y: la.one_nn_error(_points(), Y, _points() + 1, y),
    "class_balance": lambda y: la.codes.class_balance(y, 3),
    "spread_labels": lambda y: la.codes.spread_labels(_points(), y, 3, neighbours=5),
}
TAKE_NUMBERS = {
    "knn": lambda v: la.codes.knn(_points(), v),
    "kmeans, k": lambda v: la.codes.kmeans(_points(), v, torch.Generator()),
    "kmeans, iterations": lambda v: la.codes.kmeans(_points(), 2, torch.Generator(), iterations=v),
    "ward": lambda v: la.codes.ward(_points(), v),
    "median_nn_distance": lambda v: la.codes.median_nn_distance(_points(), sample=v),
    "project, dims": lambda v: la.project(_points(), "pca", dims=v),
    "project, seed": lambda v: la.project(_points(), "pca", seed=v),
    "class_balance": lambda v: la.codes.class_balance(Y, v),
    "trustworthiness": lambda v: la.codes.trustworthiness(_points(), _points(), v),
    "latent_grid": lambda v: la.codes.latent_grid(la.CAE(SHAPE, 2), size=v),
    "traversal": lambda v: la.codes.traversal(la.CAE(SHAPE, 2), steps=v),
    "spread_labels, neighbours": lambda v: la.codes.spread_labels(_points(), Y, 3, neighbours=-1 if v is None else v),
    "spread_labels, n_classes": lambda v: la.codes.spread_labels(_points(), Y, v, neighbours=5),
    "decode": lambda v: la.decode(la.CAE(SHAPE, 2), _points(), batch_size=v),
}
WRONG = {"text": "abc", "nothing": [], "ragged": [[1], [1, 2]], "texts": [["a", "b"]], "table": {}, "objects": [[None]]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TAKE_CODES)
def test_codes_of_every_kind(name, kind):
    taken, expected = (torch.as_tensor(TAKE_CODES[name](z)) for z in (KINDS[kind](_points()), _points()))
    assert torch.equal(taken, expected)
    for other in (torch.from_numpy(_points()).requires_grad_(), _points().astype("f2")):
        assert torch.as_tensor(TAKE_CODES[name](other)).shape == expected.shape


@pytest.mark.parametrize("name", TAKE_CODES)
def test_what_is_no_codes_is_refused_in_words(name):
    for wrong in (*WRONG.values(), 3.0, _points() * np.nan, _points() + 1j, np.array(["2020-01-01"], "M8[D]")):
        with pytest.raises((ValueError, TypeError), match=r"(codes|images|queries|\bN\b|NaN).* must|must .*got"):
            TAKE_CODES[name](wrong)


@pytest.mark.parametrize("name", TAKE_LABELS)
def test_labels_of_every_kind(name):
    expected = torch.as_tensor(TAKE_LABELS[name](Y))
    for kind in (*KINDS.values(), lambda y: y.astype("u8"), lambda y: torch.from_numpy(y).to(torch.int8)):
        assert torch.equal(torch.as_tensor(TAKE_LABELS[name](kind(Y))), expected)
    for wrong in (*WRONG.values(), None, Y[:, None], Y / 2, Y > 1, 3, [np.nan] * 40, list("ab" * 20)):
        with pytest.raises((ValueError, TypeError), match=r"labels must"):
            TAKE_LABELS[name](wrong)


@pytest.mark.parametrize("name", TAKE_NUMBERS)
def test_numbers_of_every_kind(name):
    for three in (3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)):
        TAKE_NUMBERS[name](three)
    for wrong in (None, "3", 2.5, -1, True, [3], np.nan):
        with pytest.raises((ValueError, TypeError), match=r"\w+ must be (a whole number|at least)"):
            TAKE_NUMBERS[name](wrong)


def test_limits_and_fixed_codes_of_every_kind():
    model, limits = la.CAE(SHAPE, 2), np.array([0.0, 1.0, 2.0, 3.0])
    for kind in KINDS.values():
        assert la.codes.latent_grid(model, size=2, limits=kind(limits)).x.tolist() == [0, 1]
        assert la.codes.traversal(model, steps=2, fixed=kind(limits[:2]), low=np.float32(0)).shape[:2] == (2, 2)
    for wrong in (*WRONG.values(), 5, [[0, 1], [2, 3]], [0, np.nan, 0, 1], [0, np.inf, 0, 1]):
        with pytest.raises((ValueError, TypeError), match="limits must"):
            la.codes.latent_grid(model, limits=wrong)
    for wrong in (*WRONG.values(), None, [1]):
        with pytest.raises((ValueError, TypeError), match="fixed must"):
            la.codes.traversal(model, fixed=wrong)


def test_only_an_image_set_is_encoded(model):
    for function in (la.encode, la.codes.reconstruct, la.reconstruction_errors):
        with pytest.raises(TypeError, match=r"images must be an ImageSet, .* got ndarray"):
            function(model, np.zeros((3, *SHAPE)))


def test_held_out_labels_need_their_codes():
    with pytest.raises(ValueError, match="test_codes must be given beside test_labels"):
        la.one_nn_error(_points(), Y, test_labels=Y)


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
    others = [torch.tensor([[q, 1 - q] for q in of_one]).double() for of_one in ([0.7, 0.5, 0.9, 0.3], [1, 0, 0, 1])]
    over_three = _difficulty(torch.stack([p0_T_N, 1 - p0_T_N], 2), torch.tensor([0, 0, 1, 1]), 2, others)
    assert np.allclose(over_three["el2n"], np.sqrt(2) * np.array([0.4, 1.7, 1.6, 1.5]) / 3)
    assert np.allclose(columns["variability"], [np.std(row) for row in p])


def test_difficulty_of_images(digits):
    wrong = digits.labels.clone()
    wrong[:20] = (wrong[:20] + 1) % 10
    mislabelled, quiet = dataclasses.replace(digits, labels=wrong), {"device": "cpu", "progress": False}
    frame = la.codes.difficulty(mislabelled, epochs=50, early=40, networks=2, **quiet)
    assert list(frame) == ["el2n", "forgetting", "confidence", "variability"]
    assert len(frame) == 400
    assert frame["el2n"][:20].mean() > 1.5 * frame["el2n"][20:].mean()  # wrong labels are hard
    assert frame["confidence"][:20].mean() < 0.5 * frame["confidence"][20:].mean()


def test_difficulty_is_repeatable(digits):
    quiet = {"device": "cpu", "progress": False}
    one, again, alone = (la.codes.difficulty(digits, epochs=2, early=1, networks=n, **quiet) for n in (2, 2, 1))
    assert one.equals(again)
    assert (one == alone).all().tolist() == [False, True, True, True]  # further networks serve EL2N only


def test_bad_difficulties(digits):
    with pytest.raises(la.LalibError, match="difficulty needs labels: the image set has none"):
        la.codes.difficulty(dataclasses.replace(digits, labels=None))
    with pytest.raises(ValueError, match="early must be at most 2, got 3"):
        la.codes.difficulty(digits, epochs=2)
    with pytest.raises(ValueError, match="networks must be at least 1, got 0"):
        la.codes.difficulty(digits, networks=0)


@pytest.mark.parametrize("pixels", [2**27, 2**13])
def test_pca_of_pixels_takes_blocks(pixels, digits, monkeypatch):
    """The axes are those of all images, or of every fourth; the codes are the same in blocks as at once."""
    monkeypatch.setattr("lalib.codes.projection.PIXELS", pixels)
    monkeypatch.setattr("lalib.codes.projection.BLOCK", 2**12)
    step = math.ceil(digits.images.numel() / pixels)
    pool, test = (part.images.flatten(1).double() / 255 for part in (digits, digits.subset(range(7))))
    mean = pool[::step].mean(0)
    axes = torch.linalg.svd(pool[::step] - mean, full_matrices=False).Vh[:3].T
    for found, points in zip(pixel_pca(3, digits, digits.subset(range(7))), (pool, test), strict=True):
        expected = (points - mean) @ axes
        assert torch.allclose(found.double() * (found[0] * expected[0]).sign(), expected, atol=1e-4)


def test_pca_of_equal_pixels_is_zero(digits):
    assert (pixel_pca(2, digits.subset([3, 3, 3]), digits.subset([3]))[0] == 0).all()
    assert pixel_pca(2, digits.subset([3]))[0].shape == (1, 1)
