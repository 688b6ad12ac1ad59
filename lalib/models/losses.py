"""Losses as pure functions of tensors: B images in a batch, codes of L numbers, C classes. Unit: nats.

Each docstring says the shapes and whether the loss is summed or averaged. References: see lalib.models.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """Binary cross-entropy of sigmoid(logits) and pixels x in [0, 1], summed over the pixels of each image.

    logits, x (B, ...); returns (B,).
    """
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def pixel_error(error: Callable, logits: Tensor, x: Tensor) -> Tensor:
    """`error`, such as F.mse_loss, of sigmoid(logits) and x, both (B, ...), summed over the pixels of each image: (B,).

    It has no unit: pixels lie in [0, 1].
    """
    return error(torch.sigmoid(logits), x, reduction="none").flatten(1).sum(1)


RECONSTRUCTION = {"bce": bernoulli_nll, "mse": partial(pixel_error, F.mse_loss), "mae": partial(pixel_error, F.l1_loss)}


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)), summed over L: (B, L) each to (B,). Appendix B of [Kingma2014]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


@torch.no_grad()
def perplexity_rows(sq_distances: Tensor, perplexity: float) -> Tensor:
    """t-SNE's p_j|i, proportional to exp(-beta_i d2_ij): Eq. 1 of [Maaten2008].

    beta_i is such that row i has the entropy log(perplexity); bisection in log beta finds it. sq_distances (N, K):
    squared distances from N points to K others each; infinity leaves an entry out. Returns (N, K) of the same dtype;
    each row sums to 1. A row with more than `perplexity` equal smallest distances (duplicates) cannot reach that
    entropy; it gets the largest beta. Raises ValueError unless 1 <= perplexity < the number of others.
    """
    others = int(torch.isfinite(sq_distances).sum(1).min())
    if not 1 <= perplexity < others:
        raise ValueError(f"perplexity must be at least 1 and below the {others} other points, got {perplexity}")
    shifted = sq_distances - sq_distances.min(dim=1, keepdim=True).values
    mean = torch.where(torch.isfinite(shifted), shifted, 0).mean(dim=1, keepdim=True)
    shifted = shifted / torch.where(mean > 0, mean, 1)  # so that images may be in any unit
    low, high = (torch.full_like(mean[:, 0], bound) for bound in (-30, 30))  # log beta, in units of 1 / mean
    for _ in range(60):
        middle = (low + high) / 2
        p = torch.softmax(-middle.exp()[:, None] * shifted, dim=1)
        too_wide = -torch.xlogy(p, p).sum(1) > math.log(perplexity)
        low, high = (torch.where(too_wide, middle, low), torch.where(too_wide, high, middle))
    return torch.softmax(-((low + high) / 2).exp()[:, None] * shifted, dim=1)


def symmetric(conditional: Tensor) -> Tensor:
    """P, proportional to p_j|i + p_i|j, scaled to sum to 1: (B, B) to (B, B)."""
    joint = conditional + conditional.T
    return joint / joint.sum().clamp_min(torch.finfo(joint.dtype).tiny)


@torch.no_grad()
def batch_affinities(x: Tensor, perplexity: float) -> Tensor:
    """t-SNE's P within a batch x (B, ...): (B, B), symmetric, zero diagonal, sum 1. Sec. 2 of [Maaten2009].

    Raises ValueError as perplexity_rows does.
    """
    flat = x.flatten(1).double()
    sq_distances = torch.cdist(flat, flat).square().fill_diagonal_(float("inf"))
    return symmetric(perplexity_rows(sq_distances, perplexity)).to(x.dtype)


def tsne_kl(codes: Tensor, joint: Tensor) -> Tensor:
    """KL(P || Q), a scalar, of codes z (B, L) and joint P (B, B) with zero diagonal. Eqs. 4 and 5 of [Maaten2009].

    q_ij is proportional to (1 + |z_i - z_j|^2 / a)^(-(a + 1) / 2) over all i != j, with a = max(1, L - 1).
    """
    freedom = max(1, codes.shape[1] - 1)
    sq_distances = (codes[:, None, :] - codes[None, :, :]).square().sum(2)
    log_kernel = (-(freedom + 1) / 2) * torch.log1p(sq_distances / freedom)
    diagonal = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    log_q = log_kernel - torch.logsumexp(log_kernel.masked_fill(diagonal, -float("inf")).flatten(), dim=0)
    return torch.xlogy(joint, joint).sum() - (joint * log_q).sum()


def gaussian_nll(mean: Tensor, log_variance: Tensor, x: Tensor) -> Tensor:
    """-log N(x; mean, exp(log_variance)), summed over the D coordinates: (..., D) each to (...)."""
    return 0.5 * (math.log(2 * math.pi) + log_variance + (x - mean).square() / log_variance.exp()).sum(-1)


def m2_unlabelled(bounds: Tensor, logits: Tensor) -> Tensor:
    """U(x) = sum_y q(y|x) L(x, y) - H(q(y|x)), (B,): Eq. 7 of [Kingma2014b].

    bounds (B, C): L(x, y), the negative evidence lower bound of each image with each class. logits (B, C): of q(y|x).
    """
    log_q = torch.log_softmax(logits, dim=1)
    return (log_q.exp() * (bounds + log_q)).sum(1)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding the other view of an image, a scalar, the mean over all 2B views. Eq. 1 of [Chen2020].

    first, second (B, E): two views of each of B images. Each view has 2B - 1 others to choose from; their logits are
    the cosine similarities divided by `temperature`. If all views are alike the loss is log(2B - 1), for B = 1 it is 0.
    """
    n = len(first)
    views = F.normalize(torch.cat([first, second]), dim=1)
    itself = torch.eye(2 * n, dtype=torch.bool, device=views.device)
    logits = (views @ views.T / temperature).masked_fill(itself, -math.inf)
    partner = torch.arange(2 * n, device=views.device).roll(n)
    return F.cross_entropy(logits, partner)


def pair_loss(predicted: Tensor, losses: Tensor, margin: float = 1.0) -> Tensor:
    """Mean over pairs of max(0, margin - s (r1 - r2)), a scalar without a unit: Eq. 2 of [Yoo2019].

    predicted (B,): r; losses (B,). s is 1 if the first of a pair has the larger loss, else -1. The first half of the
    batch is paired with the second; an odd last one is left out. Without a pair the loss is 0.
    """
    half = len(predicted) // 2
    if not half:
        return predicted.sum() * 0
    sign = torch.where(losses[:half] > losses[half : 2 * half], 1.0, -1.0)
    return F.margin_ranking_loss(predicted[:half], predicted[half : 2 * half], sign, margin)


def discriminator_loss(logits: Tensor, known: Tensor) -> Tensor:
    """-mean_L log D - mean_U log (1 - D), a scalar: Eq. 4 of [Sinha2019].

    logits (B,): of D, the probability that an image has a label. known (B,) bool: True for L, which have one, False
    for U. The loss is 2 log 2 if D is always 1/2.
    """
    return F.softplus(-logits[known]).mean() + F.softplus(logits[~known]).mean()
