"""Priors p(z) of the codes of a VAE: N(0, I), a mixture of Gaussians with learned parts, and the VampPrior.

All have the methods of NormalPrior. Codes and means are (B, L), densities and divergences (B,), in nats.
References: see lalib.models.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lalib.data.checks import check_int
from lalib.data.seeds import generator as child_generator
from lalib.models.losses import gaussian_kl, gaussian_nll
from lalib.models.networks import Shape, to_input


def draw_gaussian(mean: Tensor, log_variance: Tensor, *, generator: torch.Generator) -> Tensor:
    """A draw from N(mean, exp(log_variance)), all (B, L). Gradients pass to the mean and the log-variance."""
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
    return mean + (log_variance / 2).exp() * noise


class NormalPrior(nn.Module):
    """N(0, I) in L = `latent_dim` dimensions."""

    def __init__(self, latent_dim: int):
        super().__init__()
        self.latent_dim = latent_dim

    def prepare(self, x: Tensor) -> None:
        """Called before training with all images (N, C, H, W) as they are stored."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of codes (B, L), nats, (B,)."""
        return -gaussian_nll(torch.zeros_like(z), torch.zeros_like(z), z)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """n codes drawn from p(z), (n, L), on the generator's device."""
        return torch.randn(n, self.latent_dim, generator=generator, device=generator.device)

    def kl(self, z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """KL(q || p) of q(z|x) = N(mean, exp(log_variance)), nats, (B,). z (B, L): a draw from q, for the other priors.

        Here it has a closed form: Eq. 7 of [Kingma2014].
        """
        return gaussian_kl(mean, log_variance)


class _Mixture(nn.Module):
    """p(z) = sum_k weight_k N(z; mean_k, exp(log_variance_k)), k = 1 to K = `components`.

    parts(): log-weights (K,), means (K, L) and log-variances (K, L). `prepare` raises ValueError for more components
    than images.
    """

    def __init__(self, components: int):
        super().__init__()
        self.components = check_int("components", components, low=1)

    def prepare(self, x: Tensor) -> None:
        if self.components > len(x):
            raise ValueError(f"components must be at most one per image, got {self.components} for {len(x)} images")

    def log_joint(self, z: Tensor) -> Tensor:
        """log of weight_k N(z; mean_k, exp(log_variance_k)) of codes (B, L): (B, K). Its softmax over k is p(k|z)."""
        log_weights, means, log_variances = self.parts()
        return log_weights - gaussian_nll(means, log_variances, z[:, None])

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.logsumexp(self.log_joint(z), dim=1)

    def kl(self, z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """log q(z|x) - log p(z) at the draw z: on average this is KL(q || p), Eq. 6 of [Kingma2014]."""
        return -gaussian_nll(mean, log_variance, z) - self.log_prob(z)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        log_weights, means, log_variances = (part.to(generator.device) for part in self.parts())
        k = torch.multinomial(log_weights.exp(), n, replacement=True, generator=generator)
        return draw_gaussian(means[k], log_variances[k], generator=generator)


class MixturePrior(_Mixture):
    """K Gaussians with learned weights, means and variances.

    At the start the means are drawn from N(0, I) with `seed`, all weights are equal, and all variances are 1.
    """

    def __init__(self, components: int, latent_dim: int, *, seed: int):
        super().__init__(components)
        means = torch.randn(self.components, latent_dim, generator=child_generator(seed, "prior"))
        self.means = nn.Parameter(means)
        self.log_variances = nn.Parameter(torch.zeros_like(means))
        self.logits = nn.Parameter(torch.zeros(self.components))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.log_softmax(self.logits, dim=0), self.means, self.log_variances


class VampPrior(_Mixture):
    """p(z) = 1/K sum_k q(z|u_k), with K learned images u_k, the pseudo-inputs [Tomczak2018].

    posterior: images (B, C, H, W) to mean and log-variance of q(z|x), (B, L) each. The pseudo-inputs start as noise.
    The first training replaces them by training images, drawn with `seed`; a later training goes on with what is there.
    Differs: a sigmoid keeps their pixels in (0, 1). If they were clipped, black and white pixels would learn nothing.
    """

    def __init__(self, components: int, image_shape: Shape, posterior: Callable[[Tensor], tuple], *, seed: int):
        super().__init__(components)
        self.posterior, self.seed = posterior, seed
        noise = torch.randn(self.components, *image_shape, generator=child_generator(seed, "prior"))
        self.pixel_logits = nn.Parameter(noise)
        self.register_buffer("seen_images", torch.zeros((), dtype=torch.bool))

    @property
    def pseudo_inputs(self) -> Tensor:
        """The images u_k (K, C, H, W) in (0, 1)."""
        return torch.sigmoid(self.pixel_logits)

    @torch.no_grad()
    def prepare(self, x: Tensor) -> None:
        super().prepare(x)
        if not self.seen_images:
            order = torch.randperm(len(x), generator=child_generator(self.seed, "pseudo-inputs"))
            chosen = to_input(x[order[: self.components].to(x.device)], self.pixel_logits.device)
            self.pixel_logits.copy_(torch.logit(chosen.clamp(0.01, 0.99)))  # black and white are infinitely far
            self.seen_images.fill_(True)

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        means, log_variances = self.posterior(self.pseudo_inputs)
        return means.new_zeros(self.components).log_softmax(dim=0), means, log_variances
