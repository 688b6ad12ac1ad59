"""Geometry against slow references in numpy."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from lalib.codes import clustering, neighbours as geometry, pairwise
from lalib.data.seeds import generator

pytestmark = pytest.mark.filterwarnings("error")

METRICS = {
    "euclidean": "euclidean",
    "l2": "euclidean",
    "manhattan": "cityblock",
    "l1": "cityblock",
    "chebyshev": "chebyshev",
}


def normal(size, dimensions=2, seed=0):
    return torch.randn(size, dimensions, generator=generator(seed, "codes"))


@pytest.mark.parametrize("dimensions", [2, 20])
@pytest.mark.parametrize("metric", METRICS)
def test_nearest_and_within_equal_full_distances(metric, dimensions):
    codes, queries = normal(300, dimensions).abs(), normal(40, dimensions, seed=1).abs()
    full = cdist(queries.double(), codes.double(), METRICS[metric])
    search = geometry.Neighbours(codes, metric)
    distance, index = search.nearest(queries, 7)
    assert distance.shape == index.shape == (40, 7)
    np.testing.assert_allclose(distance, np.sort(full)[:, :7], rtol=1e-9)
    np.testing.assert_array_equal(index, full.argsort()[:, :7])
    radius = float(np.quantile(full, 0.1))
    for row, found in zip(full, search.within(queries, radius), strict=True):
        np.testing.assert_array_equal(found, row.argsort()[: (row <= radius).sum()])


def test_low_dimension_uses_a_tree_and_high_dimension_blocks():
    assert geometry.Neighbours(normal(50, 15)).tree is not None
    assert geometry.Neighbours(normal(50, 16)).tree is None


def test_blocks_equal_tree(monkeypatch):
    codes, queries = normal(500), normal(60, seed=1)
    tree = geometry.Neighbours(codes)
    monkeypatch.setattr(geometry, "TREE_DIMENSIONS", 0)
    for module in (geometry, pairwise):
        monkeypatch.setattr(module, "BLOCK", 1500)  # three queries at a time
    blocks = geometry.Neighbours(codes)
    for a, b in zip(tree.nearest(queries, 5), blocks.nearest(queries, 5), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(tree.within(queries, 0.3), blocks.within(queries, 0.3), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dimensions", [20, 200])
def test_high_dimension_measures_from_differences(dimensions):
    """Far from the origin a matrix product loses half of the digits of a distance, or all."""
    codes = 1e6 + normal(300, dimensions).double()
    codes[7] = codes[3]
    codes[8] = codes[3] + 1e-6
    distance, index = geometry.knn(codes, 4)
    full = np.sqrt(((codes[:, None] - codes[None]) ** 2).sum(dim=2).numpy())
    np.fill_diagonal(full, np.inf)
    np.testing.assert_array_equal(index, full.argsort(kind="stable")[:, :4])
    np.testing.assert_allclose(distance, np.sort(full)[:, :4], rtol=1e-12)
    assert distance[3, 0] == distance[7, 0] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_neighbours_on_cuda():
    codes, queries = normal(500), normal(20, seed=1)
    here, there = geometry.Neighbours(codes), geometry.Neighbours(codes.cuda())
    assert torch.equal(here.nearest(queries, 5)[1], there.nearest(queries.cuda(), 5)[1].cpu())


@pytest.mark.parametrize("dimensions", [2, 20])
def test_equal_distances_in_order_of_index(dimensions):
    codes = torch.zeros(6, dimensions)
    codes[[1, 4]] += 1
    search = geometry.Neighbours(codes)
    assert search.nearest(codes[:1], 6)[1].tolist() == [[0, 2, 3, 5, 1, 4]]
    assert search.within(codes[:1], 0.5)[0].tolist() == [0, 2, 3, 5]


def test_knn_leaves_out_the_code_itself():
    codes = torch.cat([normal(100), torch.zeros(5, 2)])  # five duplicates
    distance, index = geometry.knn(codes, 3)
    full = cdist(codes.double(), codes.double())
    np.fill_diagonal(full, np.inf)
    np.testing.assert_allclose(distance, np.sort(full)[:, :3])
    assert not (index == torch.arange(105)[:, None]).any()
    assert geometry.knn(codes, 3, queries=codes[:2])[1][:, 0].tolist() == [0, 1]


@pytest.mark.notebook  # it compiles for as long as a notebook takes
def test_many_codes_find_nearly_their_nearest():
    codes = torch.cat([normal(1500, 20), torch.ones(100, 20)])  # more equal ones than neighbours
    threads = torch.get_num_threads()
    distance, index = geometry.knn(codes, 10, exact=1000)
    assert torch.get_num_threads() == threads
    assert all(map(torch.equal, (distance, index), geometry.knn(codes, 10, exact=1000)))
    expected = geometry.knn(codes, 10)[1]
    found = [len({*a} & {*b}) for a, b in zip(index[:1500].tolist(), expected[:1500].tolist(), strict=True)]
    assert np.mean(found) > 9
    assert (distance[1500:] == 0).all()
    assert not (index == torch.arange(1600)[:, None]).any()
    assert all(len(row.unique()) == 10 for row in index)
    apart = torch.linalg.vector_norm(codes.double()[:, None] - codes.double()[index], dim=2)
    torch.testing.assert_close(distance, apart)
    assert (distance.diff(dim=1) >= 0).all()


@pytest.mark.parametrize(("dimensions", "metric"), [(2, "euclidean"), (20, "manhattan")])
def test_many_codes_are_searched_exactly_where_that_is_quick_or_cannot_be_otherwise(dimensions, metric):
    codes = normal(300, dimensions)
    exact, there = (geometry.knn(codes, 5, metric=metric, exact=most) for most in (None, 100))
    assert all(map(torch.equal, exact, there))


def test_distinct_groups_equal_rows():
    codes = torch.tensor([[1.0, 0.0], [-2.0, 3.0], [1.0, -0.0], [0.5, 0.0], [-2.0, 3.0]])
    places, inverse = geometry.distinct(codes)
    assert torch.equal(places[inverse], codes)
    assert len(places) == 3
    assert inverse[0] == inverse[2]
    assert inverse[1] == inverse[4]


def test_median_nn_distance():
    codes = normal(400)
    full = cdist(codes.double(), codes.double())
    np.fill_diagonal(full, np.inf)
    lower = np.sort(full.min(axis=1))[199]  # torch's median is the lower one
    assert geometry.median_nn_distance(codes) == pytest.approx(lower)
    assert geometry.median_nn_distance(torch.cat([codes, codes])) == pytest.approx(lower)  # duplicates: one place
    assert geometry.median_nn_distance(codes.flip(0), sample=50) == geometry.median_nn_distance(codes, sample=50)
    assert geometry.median_nn_distance(torch.ones(9, 2)) == 0


@pytest.mark.parametrize("dimensions", [2, 20])
def test_kmeans_ends_in_a_fixed_point(dimensions):
    codes = normal(300, dimensions)
    centres, assignment = clustering.kmeans(codes, 6, generator(0, "k"), iterations=100)
    full = cdist(codes.double(), centres)
    np.testing.assert_array_equal(assignment, full.argmin(axis=1))
    for s in range(6):
        torch.testing.assert_close(centres[s], codes[assignment == s].double().mean(dim=0))


def test_kmeans_far_from_the_origin():
    """Norms of 1e13 leave a product 3 digits of a distance: it is taken about one of the centres."""
    codes = normal(300, 20).double()
    here, there = (clustering.kmeans(codes + offset, 6, generator(0, "k"), iterations=100) for offset in (0, 2.0**22))
    assert torch.equal(here[1], there[1])
    torch.testing.assert_close(here[0], there[0] - 2.0**22, rtol=0, atol=1e-7)


def test_kmeans_finds_separated_clusters():
    codes = normal(200) * 0.1
    codes[:100] += 10
    assignment = clustering.kmeans(codes, 2, generator(0, "k"))[1]
    assert len(assignment[:100].unique()) == len(assignment[100:].unique()) == 1
    assert assignment[0] != assignment[-1]


@pytest.mark.parametrize("dimensions", [2, 20])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_kmeans_has_no_empty_cluster_even_with_duplicates(k, dimensions):
    codes = torch.zeros(30, dimensions)
    codes[20:] = 1
    assignment = clustering.kmeans(codes, k, generator(0, "k"))[1]
    assert assignment.bincount(minlength=k).min() >= 1


def test_kmeans_pp_draws_by_squared_distance():
    codes = torch.tensor([[0.0], [1.0], [3.0]])
    seconds = [0, 0, 0]
    for seed in range(3000):
        first, second = clustering.kmeans_pp(codes, 2, generator(seed, "k")).tolist()
        if first == 0:
            seconds[second] += 1
    assert seconds[0] == 0
    assert seconds[2] / sum(seconds) == pytest.approx(0.9, abs=0.03)  # 9 / (1 + 9)


def test_kmeans_is_that_of_any_number_of_threads():
    codes, seen, before = normal(5000, 20), [], torch.get_num_threads()
    for threads in (1, 2):
        with threadpool_limits(threads):
            seen.append(clustering.kmeans(codes, 40, generator(0, "k")))
    assert all(map(torch.equal, *seen))
    assert torch.get_num_threads() == before


def test_ward_of_many_codes_takes_the_rest_to_the_nearest_centre(monkeypatch):
    codes = torch.cat([normal(300) + 20 * i for i in range(3)])[torch.randperm(900, generator=generator(0, "order"))]
    exact = clustering.ward(codes, 3)
    assert torch.equal(clustering.ward(codes, 3, sample=90), exact)
    assert torch.equal(clustering.ward(codes, 3, sample=90), clustering.ward(codes, 3, sample=90))
    assert not torch.equal(clustering.ward(codes, 60, sample=90), clustering.ward(codes, 60, sample=None))
    assert clustering.ward(torch.zeros(200, 2), 60, sample=90).bincount().tolist()[59] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("dimensions", [2, 20])
def test_kmeans_on_cuda_is_repeatable_and_that_of_the_cpu(dimensions):
    codes = normal(3000, dimensions)
    centres, assignment = clustering.kmeans(codes, 40, generator(0, "k"))
    for _ in range(3):
        there, found = clustering.kmeans(codes.cuda(), 40, generator(0, "k"))
        assert torch.equal(found.cpu(), assignment)
        torch.testing.assert_close(there.cpu(), centres)


def test_kmeans_pp_is_distinct_up_to_all():
    codes = torch.cat([normal(10), torch.zeros(10, 2)])
    assert sorted(clustering.kmeans_pp(codes, 20, generator(0, "k")).tolist()) == list(range(20))


@pytest.mark.parametrize("clusters", [1, 2, 7, 60])
def test_ward_equals_scipy(clusters):
    codes = normal(60, 3)
    label = clustering.ward(codes, clusters)
    expected = fcluster(linkage(codes.double().numpy(), "ward"), clusters, "maxclust")
    together = label[:, None] == label[None]
    assert np.array_equal(together, expected[:, None] == expected[None])


def test_ward_numbers_clusters_by_size_then_lowest_index():
    codes = torch.tensor([[0.0], [9.0], [9.1], [20.0], [20.1], [9.2]])
    assert clustering.ward(codes, 3).tolist() == [2, 0, 0, 1, 1, 0]
    assert clustering.ward(torch.tensor([[5.0], [0.0], [5.1], [0.1]]), 2).tolist() == [0, 1, 0, 1]


def test_ward_cuts_ties_to_the_exact_number():
    label = clustering.ward(torch.zeros(8, 2), 3)
    assert len(label.unique()) == 3
    assert clustering.ward(torch.zeros(1, 2), 1).tolist() == [0]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: clustering.ward(z, 11), ValueError, "clusters=11 exceeds the 10 points"),
        (lambda z: clustering.ward(z, 2.5), TypeError, "clusters must be a whole number, got 2.5"),
        (lambda z: geometry.Neighbours(z).nearest(z, 11), ValueError, "k must be at most 10, got 11"),
        (lambda z: geometry.Neighbours(z).nearest(z[:, :1], 1), ValueError, "queries must have 2 columns.* got 1"),
        (lambda z: geometry.Neighbours(z, "euclidian"), ValueError, "metric must be one of .*'euclidian'.*'euclidean'"),
        (lambda z: geometry.Neighbours(z, "canberra"), ValueError, "'euclidean', 'l2', 'manhattan', .* got 'canberra'"),
        (lambda z: geometry.knn(z, 1, metric=max), ValueError, "metric must be one of .* got <built-in function max>"),
        (lambda z: geometry.Neighbours(z * torch.nan), ValueError, "codes must be finite, but 10 of 10 rows"),
        (lambda z: geometry.knn(z, 10), ValueError, "k must be at most 9, got 10"),
        (lambda z: clustering.kmeans(z, 11, generator(0)), ValueError, "k must be at most 10, got 11"),
        (lambda z: clustering.kmeans(z, 2, generator(0), iterations=0), ValueError, "iterations must be at least 1"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call(normal(10))
