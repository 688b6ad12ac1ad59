"""The engine of distances against scipy; the precision of float32 products is asked for and given back."""

import threading

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from lalib.codes import neighbours, pairwise
from lalib.data.seeds import generator

pytestmark = pytest.mark.filterwarnings("error")

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def normal(size, dimensions=2, seed=0):
    return torch.randn(size, dimensions, generator=generator(seed, "codes"))


@pytest.mark.parametrize("device", DEVICES)
def test_distances_are_those_of_scipy_from_differences(device):
    a, b = (1e6 + normal(7, 3)).double().to(device), (1e6 + normal(5, 3, seed=1)).double().to(device)
    for p, name in ((2.0, "euclidean"), (1.0, "cityblock"), (float("inf"), "chebyshev")):
        np.testing.assert_allclose(pairwise.distances(a, b, p).cpu(), cdist(a.cpu(), b.cpu(), name), rtol=1e-12)
    assert torch.equal(pairwise.from_row(a, 3), pairwise.distances(a, a)[3])
    assert (pairwise.distances(a, a).diagonal() == 0).all()


def hard():
    """Codes (N, L) that single precision alone gets wrong, float64."""
    near, repeated = normal(400, 6).double(), normal(40, 6).double().repeat(10, 1)
    grid = (2 * normal(400, 6)).round().double()
    return {
        "far from the origin": near + 1e6,
        "duplicates": repeated,
        "duplicates far away": repeated + 1e6,
        "ties": grid,
        "one coordinate a million times another": near * torch.tensor([1e6, 1, 1, 1, 1, 1e-3], dtype=torch.float64),
        "tiny": near * 1e-140,
        "denormal in single precision": near * 1e-42,
        "huge": near * 1e140,
        "an outlier": torch.cat([near[:-1], torch.full((1, 6), 1e12, dtype=torch.float64)]),
        "clusters of nearly equal codes": repeated + 1e-9 * near,
        "all equal": torch.full((400, 6), 3.7, dtype=torch.float64),
    }


def kinds():
    for name, codes in hard().items():
        yield pytest.param(codes, id=name)
        if 1e-44 < codes.abs().max() < 1e38:
            yield pytest.param(codes.float(), id=f"{name}, float32")


def slow_squares(codes):
    codes = codes.double()
    return (codes[:, None] - codes[None]).square().sum(dim=2)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("codes", list(kinds()))
def test_the_engine_is_exact_on_hard_codes(codes, device, precision):
    square, start = slow_squares(codes), torch.arange(3)
    codes = codes.to(device)
    index, found = pairwise.nearest_centre(codes, codes[:50])
    assert torch.equal(found.cpu(), square[:, :50].amin(dim=1))
    assert torch.equal(square[torch.arange(400), index.cpu()], found.cpu())
    near, expected = pairwise.Nearest(codes, codes[start.to(device)]), square[start].amin(dim=0)
    assert torch.equal(near.square.cpu(), expected)
    for row in torch.randperm(400, generator=generator(0, "rows"))[:60]:
        near.add(row[None].to(device))
        expected = expected.minimum(square[row])
        assert torch.equal(near.square.cpu(), expected)
    middle = codes[7:9].double().mean(dim=0)
    far, expected = pairwise.squares_from(middle, codes, pairwise.Rough(codes)), pairwise.squares(codes, middle)
    assert far.max() == expected.max()
    assert far.argmax() == expected.argmax()
    assert (far <= expected).all()


@pytest.mark.parametrize("codes", list(kinds()))
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_neighbours_without_a_tree_are_exact_on_hard_codes(codes, metric, monkeypatch):
    monkeypatch.setattr(neighbours, "TREE_DIMENSIONS", 0)
    monkeypatch.setattr(neighbours, "PACK", 8)
    expected = pairwise.distances(codes.double(), codes.double(), neighbours.METRICS[metric]).sort(dim=1).values
    distance, index = neighbours.Neighbours(codes, metric).nearest(codes, 5)
    torch.testing.assert_close(distance, expected[:, :5], rtol=1e-14, atol=0)
    assert all(len(row.unique()) == 5 for row in index)


def test_neighbours_of_a_query_beyond_single_precision(monkeypatch):
    monkeypatch.setattr(neighbours, "TREE_DIMENSIONS", 0)
    codes = normal(500, 4).double()
    far = codes[:2] + torch.tensor([[1e30], [-1e100]], dtype=torch.float64)
    distance, index = neighbours.Neighbours(codes).nearest(far, 3)
    torch.testing.assert_close(distance, pairwise.distances(far, codes).sort(dim=1).values[:, :3])
    assert index.max() < 500


@pytest.mark.parametrize("far", [1e30, 1e60, 1e149])
def test_centres_very_far_from_the_points_change_nothing(far):
    points = 1e-10 * normal(50, 3).double()
    centres = torch.cat([torch.tensor([[far, 0, 0], [0, -far, 0]], dtype=torch.float64), points[:2]])
    index, square = pairwise.nearest_centre(points, centres)
    assert torch.equal(square, slow_squares(points)[:, :2].amin(dim=1))
    assert set(index.tolist()) == {2, 3}
    seen = pairwise.squares_from(centres[0], points, pairwise.Rough(points))
    assert torch.equal(seen, pairwise.squares(points, centres[0]))


def test_points_at_distance_0_are_never_computed_again(monkeypatch):
    near, asked = pairwise.Nearest(torch.zeros(1000, 3), torch.zeros(1, 3)), []
    original = pairwise.squares
    monkeypatch.setattr(pairwise, "squares", lambda a, b: asked.append(len(a)) or original(a, b))
    near.add(torch.tensor([5]))
    assert sum(asked) == 0
    assert (near.square == 0).all()


PRODUCTS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)


def settings():
    """All that torch tells of it: before 2.9 one setting, then one for each library as well."""
    return torch.get_float32_matmul_precision(), [getattr(product, "fp32_precision", None) for product in PRODUCTS]


@pytest.fixture(params=["highest", "high", "medium"])
def precision(request):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def test_full_precision_holds_inside_and_what_was_found_comes_back(precision):
    before = settings()
    with pairwise.full_precision(), pairwise.full_precision():
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    assert settings() == before
    with pytest.raises(KeyError), pairwise.full_precision():
        raise KeyError
    assert settings() == before
    assert before[0] == precision


@pytest.mark.skipif(not hasattr(PRODUCTS[0], "fp32_precision"), reason="torch before 2.9")
def test_precision_set_for_one_library_alone_comes_back(precision):
    before = [product.fp32_precision for product in PRODUCTS]
    PRODUCTS[0].fp32_precision, PRODUCTS[1].fp32_precision = "tf32", "bf16"
    with pairwise.full_precision():
        assert [product.fp32_precision for product in PRODUCTS] == ["ieee", "ieee"]
    assert [product.fp32_precision for product in PRODUCTS] == ["tf32", "bf16"]
    for product, value in zip(PRODUCTS, before, strict=True):
        product.fp32_precision = value


def test_full_precision_comes_back_when_the_last_thread_leaves(precision):
    before, inside, leave = settings(), threading.Event(), threading.Event()

    def other():
        with pairwise.full_precision():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with pairwise.full_precision():
        thread.start()
        assert inside.wait(10)
    assert torch.get_float32_matmul_precision() == "highest"  # the other thread still needs it
    leave.set()
    thread.join()
    assert settings() == before
