"""Losses against slow float64 references: numpy, torch.distributions, scikit-learn and finite differences."""

import math

import numpy as np
import pytest
import torch

import lalib as la
from lalib.models.losses import (
    RECONSTRUCTION,
    batch_affinities,
    gaussian_kl,
    nt_xent,
    perplexity_rows,
    symmetric,
    tsne_kl,
)


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _sq_distances(x):
    """(N, N) by the definition, infinity on the diagonal."""
    flat = x.flatten(1).double().numpy()
    d2 = ((flat[:, None] - flat[None]) ** 2).sum(2)
    np.fill_diagonal(d2, np.inf)
    return torch.from_numpy(d2)


def _perplexity(rows):
    return (-torch.xlogy(rows, rows).sum(1)).exp()


def _digits(n):
    return la.load("mnist-mini").images[:n].float() / 255


REFERENCES = {
    "bce": lambda p, x: -(x * np.log(p) + (1 - x) * np.log(1 - p)),
    "mse": lambda p, x: (p - x) ** 2,
    "mae": lambda p, x: abs(p - x),
}


@pytest.mark.parametrize("name", RECONSTRUCTION)
def test_reconstruction_is_summed_over_the_pixels_of_each_image(name):
    logits, x = _random(3, 2, 4, 5), torch.sigmoid(_random(3, 2, 4, 5, seed=1))
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0, 1
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = REFERENCES[name](p, x.numpy()).reshape(3, -1).sum(1)
    assert np.allclose(RECONSTRUCTION[name](logits, x), expected, rtol=1e-12)


def test_bce_of_extreme_logits_is_finite():
    loss = RECONSTRUCTION["bce"](torch.tensor([[1e4, -1e4, 1e4]]), torch.tensor([[1.0, 0.0, 0.0]]))
    assert loss.item() == pytest.approx(1e4)


def test_gaussian_kl_against_torch_distributions():
    mean, log_variance = _random(6, 4), _random(6, 4, seed=1)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(gaussian_kl(mean, log_variance), expected, rtol=1e-12)
    assert gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0, 0]


@pytest.mark.parametrize("perplexity", [1.5, 5, 30, 150])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_every_row_has_the_perplexity_on_real_images(perplexity, scale):
    d2 = _sq_distances(_digits(200) * scale)
    rows = perplexity_rows(d2, perplexity)
    assert torch.allclose(_perplexity(rows), torch.tensor(perplexity, dtype=torch.float64), rtol=0.01)
    assert torch.allclose(rows.sum(1), torch.ones(200, dtype=torch.float64))
    assert (rows.diagonal() == 0).all()


def test_rows_do_not_depend_on_the_unit_of_distance():
    d2 = _sq_distances(_digits(60))
    rows = perplexity_rows(d2, 7)
    for scale in (1e-30, 1e-12, 1e12, 1e30):
        assert torch.allclose(perplexity_rows(d2 * scale, 7), rows, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_very_unequal_density_have_the_perplexity(dtype):
    """A tight group, a wide one and an outlier; and K given others of each row, not a square."""
    x = torch.cat([1e-3 * _random(40, 3), 100 * _random(40, 3, seed=1), torch.full((1, 3), 1e4)])
    near = _sq_distances(x).sort(dim=1).values[:, :30].to(dtype)
    rows = perplexity_rows(near, 10)
    assert rows.dtype == dtype
    assert torch.allclose(_perplexity(rows), torch.tensor(10, dtype=dtype), rtol=0.01)
    assert (rows.diff(dim=1) <= 0).all()  # nearer is likelier


def test_rows_are_gaussian_in_the_distance():
    d2 = _sq_distances(_random(12, 2))
    rows = perplexity_rows(d2, 4)
    for i in range(12):
        others = [j for j in range(12) if j != i]
        slope, residual = np.polyfit(d2[i, others], rows[i, others].log(), 1, full=True)[:2]
        assert slope[0] < 0
        assert residual[0] < 1e-16


def test_equal_distances_give_equal_shares():
    """More duplicates than the perplexity: it cannot be reached, and nothing is NaN."""
    d2 = torch.zeros(6, 6, dtype=torch.float64).fill_diagonal_(float("inf"))
    assert torch.allclose(perplexity_rows(d2, 3), (1 - torch.eye(6, dtype=torch.float64)) / 5)
    d2 = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 9.0]] * 2, dtype=torch.float64)
    assert torch.allclose(perplexity_rows(d2, 2)[0], torch.tensor([0.25, 0.25, 0.25, 0.25, 0, 0]).double(), atol=1e-6)


@pytest.mark.parametrize("perplexity", [0, 0.99, 5, 7.0, float("nan")])
def test_perplexity_out_of_range(perplexity):
    d2 = _sq_distances(_random(6, 2))
    with pytest.raises(
        ValueError, match=f"perplexity must be at least 1 and below the 5 other points, got {perplexity}"
    ):
        perplexity_rows(d2, perplexity)
    with pytest.raises(ValueError, match="below the 5 other points"):
        batch_affinities(_random(6, 2), perplexity)


def _slow_affinities(x, perplexity):
    """t-SNE's P by a bisection per row on the standard deviation."""
    d2, n = _sq_distances(x).numpy(), len(x)
    rows = np.zeros((n, n))
    for i in range(n):
        low, high = 1e-9, 1e9
        for _ in range(200):
            sigma = math.sqrt(low * high)
            weight = np.exp(-(d2[i] - d2[i].min()) / (2 * sigma**2))
            p = weight / weight.sum()
            entropy = -sum(value * math.log(value) for value in p if value > 0)
            low, high = (low, sigma) if entropy > math.log(perplexity) else (sigma, high)
        rows[i] = p
    return (rows + rows.T) / (2 * n)


@pytest.mark.parametrize("perplexity", [2, 8])
def test_batch_affinities_against_a_slow_implementation(perplexity):
    x = _digits(40)
    joint = batch_affinities(x.double(), perplexity)
    assert np.allclose(joint, _slow_affinities(x, perplexity), rtol=1e-8, atol=1e-12)


def test_batch_affinities_against_scikit_learn():
    from scipy.spatial.distance import squareform
    from sklearn.manifold._t_sne import _joint_probabilities

    x = _digits(100).double()
    d2 = _sq_distances(x).numpy().copy()
    np.fill_diagonal(d2, 0)
    expected = squareform(_joint_probabilities(d2.astype(np.float32), 10.0, 0))  # its bisection stops at 1e-5
    assert np.allclose(batch_affinities(x, 10), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_affinities_are_a_symmetric_distribution(dtype):
    joint = batch_affinities(_digits(64).to(dtype), 6)
    assert joint.dtype == dtype
    assert torch.equal(joint, joint.T)
    assert (joint.diagonal() == 0).all()
    assert joint.min() >= 0
    assert joint.sum().item() == pytest.approx(1, abs=1e-5)


def test_batch_affinities_take_no_gradient():
    assert not batch_affinities(_random(8, 2).requires_grad_(), 3).requires_grad


def test_symmetric_by_hand_and_of_nothing():
    assert symmetric(torch.tensor([[0.0, 1.0], [0.5, 0.0]])).tolist() == [[0, 0.5], [0.5, 0]]
    assert symmetric(torch.zeros(3, 3)).tolist() == torch.zeros(3, 3).tolist()


def _slow_kl(codes, joint):
    n, a = len(codes), max(1, codes.shape[1] - 1)
    kernel = {
        (i, j): (1 + sum((float(codes[i, c]) - float(codes[j, c])) ** 2 for c in range(codes.shape[1])) / a)
        ** (-(a + 1) / 2)
        for i in range(n)
        for j in range(n)
        if i != j
    }
    total = sum(kernel.values())
    return sum(
        float(joint[i, j]) * math.log(float(joint[i, j]) / (value / total))
        for (i, j), value in kernel.items()
        if joint[i, j] > 0
    )


@pytest.mark.parametrize("dimensions", [1, 2, 10])
def test_tsne_kl_against_a_loop(dimensions):
    codes, joint = 3 * _random(9, dimensions), batch_affinities(_random(9, 4, seed=1), 3)
    joint[0, 1] = joint[1, 0] = 0
    joint /= joint.sum()
    assert tsne_kl(codes, joint).item() == pytest.approx(_slow_kl(codes, joint), rel=1e-12)


@pytest.mark.parametrize("dimensions", [1, 2, 10])
def test_gradient_of_tsne_kl_against_finite_differences(dimensions):
    codes, joint = _random(8, dimensions), batch_affinities(_random(8, 4, seed=1), 3)
    assert torch.autograd.gradcheck(lambda z: tsne_kl(z, joint), codes.clone().requires_grad_())
    z = codes.clone().requires_grad_()
    tsne_kl(z, joint).backward()
    step = torch.zeros_like(codes)
    step[2, 0] = 1e-6
    difference = (_slow_kl(codes + step, joint) - _slow_kl(codes - step, joint)) / 2e-6
    assert z.grad[2, 0].item() == pytest.approx(difference, rel=1e-5)


def test_tsne_kl_is_zero_where_q_equals_p_and_ignores_shifts():
    codes = _random(7, 2)
    kernel = 1 / (1 + _sq_distances(codes))
    joint = kernel / kernel.sum()
    assert tsne_kl(codes, joint).item() == pytest.approx(0, abs=1e-12)
    assert tsne_kl(2 * codes, joint).item() > 0.01
    assert tsne_kl(codes + 100, joint).item() == pytest.approx(0, abs=1e-9)


def test_tsne_kl_of_coinciding_and_of_far_codes_has_finite_gradients():
    joint = batch_affinities(_random(6, 2), 3).float()
    for codes in (torch.zeros(6, 2), torch.eye(6)[:, :2] * 1e6):
        codes.requires_grad_()
        loss = tsne_kl(codes, joint)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(codes.grad).all()
    assert tsne_kl(torch.rand(6, 2), torch.zeros(6, 6)).item() == 0


def test_float32_agrees_with_float64(device):
    codes, x = _random(300, 2), _digits(300)
    joint = batch_affinities(x.to(device), 20)
    assert joint.device.type == device
    expected = tsne_kl(codes, batch_affinities(x.double(), 20))
    assert tsne_kl(codes.float().to(device), joint).item() == pytest.approx(expected.item(), rel=1e-4)


def _slow_nt_xent(first, second, temperature):
    """Eq. 1 of [Chen2020], view by view; views 2k and 2k + 1 are of one image."""
    views = [row.tolist() for pair in zip(first, second, strict=True) for row in pair]
    total = 0.0
    for i, a in enumerate(views):
        similarity = {
            j: sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
            for j, b in enumerate(views)
            if j != i
        }
        others = sum(math.exp(value / temperature) for value in similarity.values())
        total -= math.log(math.exp(similarity[i + 1 if i % 2 == 0 else i - 1] / temperature) / others)
    return total / len(views)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("n", [2, 9])
def test_nt_xent_against_a_loop(n, temperature):
    first, second = _random(n, 4), 3 * _random(n, 4, seed=1)
    assert nt_xent(first, second, temperature).item() == pytest.approx(
        _slow_nt_xent(first, second, temperature), rel=1e-12
    )


def test_gradient_of_nt_xent_against_finite_differences():
    first, second = _random(5, 3), _random(5, 3, seed=1)
    assert torch.autograd.gradcheck(
        lambda a, b: nt_xent(a, b, 0.3), (first.clone().requires_grad_(), second.clone().requires_grad_())
    )
    a = first.clone().requires_grad_()
    nt_xent(a, second, 0.3).backward()
    step = torch.zeros_like(first)
    step[2, 0] = 1e-6
    difference = (_slow_nt_xent(first + step, second, 0.3) - _slow_nt_xent(first - step, second, 0.3)) / 2e-6
    assert a.grad[2, 0].item() == pytest.approx(difference, rel=1e-6)


def test_nt_xent_by_hand():
    """All alike: each of 2B - 1 others is as likely; views that meet and are orthogonal to all others; one image."""
    assert nt_xent(torch.ones(8, 3), torch.ones(8, 3), 0.3).item() == pytest.approx(math.log(15))
    apart = torch.eye(4, dtype=torch.float64)
    assert nt_xent(apart, 5 * apart, 0.5).item() == pytest.approx(math.log(1 + 6 * math.exp(-2)))
    assert nt_xent(_random(1, 3), _random(1, 3, seed=1), 0.5).item() == 0


def test_nt_xent_does_not_depend_on_the_order_or_the_lengths_of_views():
    first, second = _random(7, 4), _random(7, 4, seed=1)
    expected = nt_xent(first, second, 0.3)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    scale = 0.1 + torch.rand(7, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(nt_xent(second, first, 0.3), expected, rtol=1e-12)
    assert torch.allclose(nt_xent(scale * first[order], second[order], 0.3), expected, rtol=1e-12)
    assert not torch.allclose(nt_xent(first, second[order], 0.3), expected, rtol=1e-3)


def test_nt_xent_in_float32_agrees_with_float64(device):
    first, second = _random(100, 16), _random(100, 16, seed=1)
    came = nt_xent(first.float().to(device), second.float().to(device), 0.1)
    assert came.device.type == device
    assert came.item() == pytest.approx(nt_xent(first, second, 0.1).item(), rel=1e-4)


def test_nt_xent_of_zeros_has_finite_gradients():
    first = torch.zeros(4, 3, requires_grad=True)
    loss = nt_xent(first, torch.zeros(4, 3), 0.3)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(7))
    assert torch.isfinite(first.grad).all()
