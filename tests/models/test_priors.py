"""Priors against torch.distributions and sums by hand, in float64; where they start, what they learn from."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from lalib.data.seeds import generator
from lalib.models.losses import gaussian_kl
from lalib.models.priors import MixturePrior, NormalPrior, VampPrior, draw_gaussian

SHAPE, K, L = (1, 8, 8), 4, 3


def _gaussian(mean, log_variance):
    return Independent(Normal(mean, (log_variance / 2).exp()), 1)


def _mixture():
    """A mixture prior in float64 whose parts all differ, and the same distribution by torch."""
    prior = MixturePrior(K, L, seed=0).double()
    draw = torch.randn(K, L + 1, dtype=torch.float64, generator=generator(1))
    with torch.no_grad():
        prior.means.mul_(3)
        prior.log_variances.copy_(draw[:, :L])
        prior.logits.copy_(draw[:, L])
    parts = _gaussian(prior.means, prior.log_variances)
    return prior, MixtureSameFamily(Categorical(logits=prior.logits), parts)


class _Encoder(torch.nn.Module):
    """A linear q(z|x) of images (B, 1, 8, 8)."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(64, 2 * L, generator=generator(2)) / 4)

    def forward(self, x):
        return (x.flatten(1) @ self.weight).split(L, dim=1)


def _images(n=20):
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=generator(3))


def _posteriors(n=1000):
    """Means, log-variances and one draw each of n Gaussians."""
    mean, log_variance = torch.randn(2, n, L, dtype=torch.float64, generator=generator(4))
    noise = torch.randn(n, L, dtype=torch.float64, generator=generator(5))
    return mean, log_variance, mean + (log_variance / 2).exp() * noise


def test_the_density_of_the_normal_prior():
    z = torch.randn(7, L, dtype=torch.float64, generator=generator(0)) * 5
    expected = Normal(0, 1).log_prob(z).sum(1)
    assert torch.allclose(NormalPrior(L).log_prob(z), expected, rtol=1e-12)


def test_the_density_of_a_mixture_near_its_parts_and_far_away():
    prior, expected = _mixture()
    z = torch.randn(50, L, dtype=torch.float64, generator=generator(0)) * torch.logspace(-1, 3, 50)[:, None]
    assert torch.allclose(prior.log_prob(z), expected.log_prob(z), rtol=1e-12)


def test_the_density_of_a_vamp_prior_is_the_mean_of_posteriors():
    encoder = _Encoder().double()
    prior = VampPrior(K, SHAPE, encoder, seed=0).double()
    z = torch.randn(6, L, dtype=torch.float64, generator=generator(0))
    densities = []
    for u in prior.pseudo_inputs:
        mean, log_variance = encoder(u[None])
        densities.append(_gaussian(mean, log_variance).log_prob(z).exp())
    assert torch.allclose(prior.log_prob(z), (sum(densities) / K).log(), rtol=1e-12)


def test_a_draw_is_the_mean_plus_noise_and_passes_gradients():
    mean, log_variance = torch.randn(2, 5, L, generator=generator(0)).requires_grad_().unbind()
    z = draw_gaussian(mean, log_variance, generator=generator(1))
    noise = torch.randn(5, L, generator=generator(1))
    assert torch.allclose(z, mean + torch.exp(log_variance) ** 0.5 * noise)
    of_mean, of_log_variance = torch.autograd.grad(z.sum(), (mean, log_variance))
    assert torch.allclose(of_mean, torch.ones(5, L))
    assert torch.allclose(of_log_variance, (z - mean) / 2)


def test_draws_from_a_mixture_have_its_moments_and_come_from_the_generator():
    prior, expected = _mixture()
    n = 20_000
    z = prior.sample(n, generator=generator(0))
    assert z.shape == (n, L)
    error = expected.variance.sqrt() / math.sqrt(n)
    assert ((z.mean(0) - expected.mean).abs() < 4 * error).all()
    assert torch.allclose(z.var(0), expected.variance, rtol=0.05)
    assert torch.equal(z, prior.sample(n, generator=generator(0)))
    assert not torch.equal(z, prior.sample(n, generator=generator(1)))


def test_draws_from_the_normal_and_the_vamp_prior():
    z = NormalPrior(L).sample(20_000, generator=generator(0))
    assert torch.allclose(z.mean(0), torch.zeros(L), atol=0.03)
    assert torch.allclose(z.T.cov(), torch.eye(L), atol=0.05)
    encoder = _Encoder()
    prior = VampPrior(K, SHAPE, encoder, seed=0)
    means, log_variances = encoder(prior.pseudo_inputs)
    z = prior.sample(20_000, generator=generator(0))
    second_moment = (log_variances.exp() + means.square()).mean(0)
    assert torch.allclose(z.square().mean(0), second_moment, rtol=0.05)


def test_the_kl_term_of_the_normal_prior_is_the_closed_form():
    mean, log_variance, z = _posteriors()
    assert torch.equal(NormalPrior(L).kl(z, mean, log_variance), gaussian_kl(mean, log_variance))


def test_one_standard_part_estimates_the_closed_form():
    """Every draw's estimate has its own error; their mean lies within four standard errors."""
    prior = MixturePrior(1, L, seed=0).double()
    with torch.no_grad():
        prior.means.zero_()
    mean, log_variance, z = _posteriors(10_000)
    difference = prior.kl(z, mean, log_variance) - gaussian_kl(mean, log_variance)
    assert difference.mean().abs() < 4 * difference.std() / math.sqrt(len(z))
    assert difference.std() > 0.5


def test_the_kl_term_of_a_mixture_by_hand():
    prior, expected = _mixture()
    mean, log_variance, z = _posteriors(10)
    by_hand = _gaussian(mean, log_variance).log_prob(z) - expected.log_prob(z)
    assert torch.allclose(prior.kl(z, mean, log_variance), by_hand, rtol=1e-10)


def test_gradients_reach_every_part():
    z = torch.randn(10, L, generator=generator(0))
    mixture, encoder = MixturePrior(K, L, seed=0), _Encoder()
    vamp = VampPrior(K, SHAPE, encoder, seed=0)
    vamp.prepare(_images())
    for parameters, prior in ((list(mixture.parameters()), mixture), ([vamp.pixel_logits, encoder.weight], vamp)):
        for gradient in torch.autograd.grad(prior.log_prob(z).sum(), parameters):
            assert (gradient != 0).float().mean() > 0.99


def test_a_mixture_learns_where_the_codes_are():
    codes = torch.cat([torch.randn(100, 2, generator=generator(i)) * 0.1 + 6 * i - 3 for i in (0, 1)])
    prior = MixturePrior(2, 2, seed=0)
    optimizer = torch.optim.Adam(prior.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (-prior.log_prob(codes).mean()).backward()
        optimizer.step()
    assert sorted(prior.means[:, 0].round().tolist()) == [-3, 3]
    assert torch.allclose((prior.log_variances / 2).exp(), torch.full((2, 2), 0.1), atol=0.05)
    assert torch.allclose(prior.logits.softmax(0), torch.full((2,), 0.5), atol=0.02)


def test_pseudo_inputs_start_as_distinct_training_images():
    images = _images()
    prior = VampPrior(10, SHAPE, _Encoder(), seed=0)
    prior.prepare(images)
    x = images.float() / 255
    distances = torch.cdist(prior.pseudo_inputs.flatten(1), x.flatten(1), p=math.inf)
    assert distances.min(1).values.max() <= 0.0101  # black and white are shown as 0.01 and 0.99
    assert len(set(distances.argmin(1).tolist())) == 10
    assert ((prior.pseudo_inputs > 0) & (prior.pseudo_inputs < 1)).all()


def test_the_seed_chooses_them_and_training_on_keeps_them():
    priors = [VampPrior(10, SHAPE, _Encoder(), seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(priors[0].pseudo_inputs, priors[1].pseudo_inputs)
    for prior in priors:
        prior.prepare(_images())
    first, again, other = (prior.pseudo_inputs for prior in priors)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with torch.no_grad():
        priors[0].pixel_logits.add_(1)
    learned = priors[0].pseudo_inputs.clone()
    priors[0].prepare(_images(30))
    assert torch.equal(priors[0].pseudo_inputs, learned)


def test_the_means_of_a_mixture_come_from_the_seed():
    first, again, other = (MixturePrior(500, 2, seed=seed).means for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.allclose(first.T.cov(), torch.eye(2), atol=0.2)


@pytest.mark.parametrize("make", [lambda k: MixturePrior(k, L, seed=0), lambda k: VampPrior(k, SHAPE, None, seed=0)])
def test_no_more_parts_than_images(make):
    make(20).prepare(_images(20))
    with pytest.raises(ValueError, match="components must be at most one per image, got 21 for 20 images"):
        make(21).prepare(_images(20))
    with pytest.raises(ValueError, match="components must be at least 1, got 0"):
        make(0)
    with pytest.raises(TypeError, match=r"components must be a whole number, got 2\.5"):
        make(2.5)


def test_a_device_of_their_own(device):
    encoder = _Encoder().to(device)
    for prior in (NormalPrior(L), MixturePrior(K, L, seed=0), VampPrior(K, SHAPE, encoder, seed=0)):
        prior.to(device).prepare(_images())
        z = prior.sample(5, generator=generator(0))
        assert z.device.type == "cpu"
        assert prior.log_prob(z.to(device)).device.type == device
