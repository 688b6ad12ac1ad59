"""Each formula against an independent slow computation, published values, or a simulation with a known truth."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from lalib.experiments import statistics


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="confidence must be at"):
        statistics.interval([1, 2], confidence)


def test_interval_of_a_spread_by_hand():
    low, high = statistics.spread_interval(np.array([2.0]), np.array([10]))
    assert (low[0], high[0]) == pytest.approx((2 * (9 / 19.022768) ** 0.5, 2 * (9 / 2.700389) ** 0.5))  # tabled


# ---------------------------------------------------------------- tests


def _signed_ranks(difference):
    """Exact two-sided p by all 2^n signs: ranks of the sizes, zeros ranked and left out of the sum."""
    ranks = stats.rankdata(np.abs(difference)) * (difference != 0)
    sums = [ranks @ signs for signs in itertools.product((-1, 1), repeat=len(ranks))]
    return np.mean(np.abs(sums) >= abs(ranks @ np.sign(difference)) - 1e-9)


@pytest.mark.parametrize(
    "difference",
    [[1, 2, 3, 4, 5, -6, 7, 8, 9, 10], [0, 0, 1, 2, -3, 4, 5], [1, 1, 1, -1, 2, 2, 3], [0, 0, 0, 1], [1] * 10],
)
def test_wilcoxon_against_all_signs(difference):
    assert statistics.paired_p(np.array(difference, dtype=float)) == pytest.approx(_signed_ranks(np.array(difference)))


def test_smallest_p_and_no_difference():
    assert statistics.paired_p(np.arange(1.0, 11)) == pytest.approx(1 / 512)
    assert statistics.paired_p(np.arange(1.0, 6)) == pytest.approx(1 / 16)
    assert statistics.paired_p(np.zeros(4)) == 1
    assert statistics.paired_p(np.zeros(4), "t") == 1


def test_t_against_scipy_and_constant_difference(rng):
    first, second = rng.normal(size=(2, 6))
    assert statistics.paired_p(first - second, "t") == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert statistics.paired_p(np.full(3, 0.1), "t") == 0


def _closed_testing(p):
    """Holm's correction is the closed test with Bonferroni's in every subset: the largest of those that hold i."""
    subsets = [s for k in range(1, len(p) + 1) for s in itertools.combinations(range(len(p)), k)]
    return [max(min(1, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(len(p))]


@pytest.mark.parametrize("p", [[0.01, 0.04, 0.03, 0.005], [0.5, 0.9], [0.02, 0.02, 0.02], [0.3]])
def test_holm_against_closed_testing(p):
    assert statistics.holm(p) == pytest.approx(_closed_testing(p))


def test_holm_by_hand_and_of_none():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([]).shape == (0,)


def test_penalty_against_scipy(rng):
    first, second = rng.normal(0, 1, (6, 40)), rng.normal(-1, 1, (6, 40))
    test = stats.ttest_rel(first, second)
    assert statistics.penalty(first, second) == np.mean((test.pvalue < 0.05) & (test.statistic > 0))
    assert 0 < statistics.penalty(first, second) < 1


def test_penalty_of_equal_and_of_constant_differences():
    values = np.random.default_rng(1).random((5, 3))
    assert statistics.penalty(values, values) == 0
    assert statistics.penalty(values + 0.1, values) == 1
    assert statistics.penalty(values, values + 0.1) == 0


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_difference_against_the_published_table(k, q):
    assert statistics.nemenyi(k, 30, 0.05) == pytest.approx(q * (k * (k + 1) / 180) ** 0.5, abs=1e-3)


def test_cliques_against_all_subsets(rng):
    for _ in range(50):
        ranks, gap = np.sort(rng.random(6)), 0.3
        alike = [
            s for k in range(2, 7) for s in itertools.combinations(range(6), k) if ranks[s[-1]] - ranks[s[0]] < gap
        ]
        maximal = {s for s in alike if not any(set(s) < set(t) for t in alike)}
        assert {tuple(range(i, j + 1)) for i, j in statistics.cliques(ranks, gap)} == maximal


def test_friedman_by_hand_and_of_ties():
    blocks = np.array([[1, 2, 3], [1, 3, 2], [1, 2, 3], [2, 1, 3]])  # mean ranks 1.25, 2, 2.75
    chi = 12 * 4 / (3 * 4) * (1.25**2 + 2**2 + 2.75**2 - 3 * 16 / 4)
    assert statistics.friedman(blocks) == pytest.approx(stats.chi2.sf(chi, 2))
    assert statistics.friedman(np.ones((4, 3))) == 1


# ---------------------------------------------------------------- label saving


def test_labels_needed_on_a_straight_curve_and_outside_it():
    counts, curve = np.array([10.0, 20, 40]), np.array([0.2, 0.4, 0.8])
    low, high = statistics.labels_needed(counts, curve, np.array([0.2, 0.3, 0.6, 0.8, 0.9, 0.1]))
    assert low == pytest.approx([10, 15, 30, 40, 40, 0])
    assert high == pytest.approx([10, 15, 30, 40, np.inf, 10])


def test_labels_needed_where_the_curve_falls():
    """0.6, 0.4 become 0.5 twice: one knot at 25 labels."""
    low, high = statistics.labels_needed(np.array([10.0, 20, 30, 40]), np.array([0.2, 0.6, 0.4, 0.8]), np.array([0.5]))
    assert low == high == pytest.approx([25])
    low, _ = statistics.labels_needed(np.array([10.0, 20, 30, 40]), np.array([0.2, 0.6, 0.4, 0.8]), np.array([0.35]))
    assert low == pytest.approx([17.5])


def test_labels_needed_inverts_another_isotonic_regression(rng):
    counts = np.arange(20.0, 520, 20)
    curve = 1 - np.exp(-counts / 100) + rng.normal(0, 0.03, len(counts))
    fitted = IsotonicRegression().fit_transform(counts, curve)
    assert len(np.unique(fitted)) < len(counts)
    for level in np.unique(fitted):
        needed, _ = statistics.labels_needed(counts, curve, np.array([level]))
        assert needed[0] == pytest.approx(counts[fitted == level].mean())


def test_bootstrap_weights_are_draws_with_replacement():
    weights = statistics.bootstrap_weights(4, 5000, torch.Generator().manual_seed(0))
    assert weights.shape == (5000, 4)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights.mean(axis=0) == pytest.approx(0.25, abs=0.01)
    assert weights.var() == pytest.approx(0.25 * 0.75 / 4, rel=0.05)  # binomial(4, 1/4) / 4


def test_bootstrap_interval_is_expanded_and_keeps_infinity():
    values = np.arange(10_001.0)
    low, high = statistics.bootstrap_interval(values, values, n=10)
    tail = stats.norm.cdf(-((10 / 9) ** 0.5) * 2.262157)  # .0085 in place of .025
    assert (low, high) == pytest.approx((10_000 * tail, 10_000 * (1 - tail)), abs=1)
    assert statistics.bootstrap_interval(values, np.append(values[:-200], [np.inf] * 200), n=10)[1] == np.inf


def test_pooled_spread_against_numpy(rng):
    values = rng.normal(size=(6, 4))
    draw = [0, 0, 2, 3, 3, 5]
    weights = np.stack([np.full(6, 1 / 6), np.bincount(draw, minlength=6) / 6])
    expected = [values.var(axis=0, ddof=1).mean() ** 0.5, values[draw].var(axis=0, ddof=1).mean() ** 0.5]
    assert statistics.pooled_spread(values, weights) == pytest.approx(expected)
