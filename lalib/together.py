"""fit_together(): small classifiers on codes trained all at once, each from data and a seed of its own.

One of them is so small that a step is half spent on calling its layers; several stacked take as many calls as one. Two
layers of 256 units on 32-D codes, 32 at a time, one thread: 0.70 ms a step in `fit`, 0.25 for each of five together,
0.23 of ten, 0.26 of forty, which no longer fit into the cache. (The small CNN gains nothing by torch.func.vmap: 6.9 ms
against 7.0; its convolutions fill the processor.)
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lalib._checks import LalibError, resolve_device
from lalib.classifiers import MLPClassifier
from lalib.seeds import generator
from lalib.training import OPTIMIZERS, autocast, checked_pair, scheduled

__all__ = ["fit_together"]


def fit_together(
    models: Sequence[MLPClassifier],
    data: Sequence[tuple[Tensor, Tensor]],
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int | None,
    learning_rate: float | None,
    weight_decay: float,
    optimizer: str,
    schedule: str = "constant",
    device: str | torch.device,
) -> None:
    """What fit(model, pair, seed=seed, ...) does for each model, its codes (N, L) with labels, and its seed.

    The weights are those of `fit` up to rounding, which depends on how many models there are; on CUDA dropout draws
    other masks. The models must be alike and the data of one size, else ValueError. Ctrl-C is not caught: then, and
    when weights stop being finite (LalibError), every model keeps the weights that it had.
    """
    device = resolve_device(device)
    _check_alike(models)
    pairs = [checked_pair(part, model) for part, model in zip(data, models, strict=True)]
    sizes = {len(x) for x, _ in pairs}
    if len(sizes) > 1:
        raise ValueError(f"models that train together need equally many codes, got {min(sizes)} to {max(sizes)}")
    codes, labels = (torch.stack(parts).to(device) for parts in zip(*pairs, strict=True))
    for model, x in zip(models, codes, strict=True):
        model.to(device).train().prepare(x)
    z_G_N_L = torch.stack([model.standardized(x) for model, x in zip(models, codes, strict=True)])
    stack = _Stack(models)
    step = OPTIMIZERS[optimizer](
        stack.parameters,
        lr=models[0].learning_rate if learning_rate is None else learning_rate,
        weight_decay=weight_decay,
        fused=True,
    )
    own = torch.arange(len(models), device=device)[:, None]
    rates = [group["lr"] for group in step.param_groups]
    for epoch in range(1, epochs + 1):
        scheduled(step, rates, schedule, epochs, epoch)
        draws = [generator(seed, "dropout", epoch, device=device) for seed in seeds]
        for index_G_B in _batches(models, codes.shape[1], batch_size or models[0].batch_size, seeds, epoch):
            rows = own, index_G_B.to(device)
            with autocast(device):
                logits_G_B_C = stack.logits(z_G_N_L[rows], draws).float()
            losses = models[0].losses(logits_G_B_C.flatten(0, 1), labels[rows].flatten(0, 1))
            step.zero_grad()
            (losses.sum() / index_G_B.shape[1]).backward()  # the mean over its batch, of every model
            step.step()
    stack.unstack()


def _check_alike(models: Sequence[MLPClassifier]) -> None:
    others = sorted({type(model).__name__ for model in models if not isinstance(model, MLPClassifier)})
    if others:
        raise TypeError(f"models that train together must be of class MLPClassifier, got {', '.join(others)}")
    networks = sorted({" ".join(str(model.network).split()) for model in models})
    if len(networks) > 1:
        raise ValueError(f"models that train together must be alike, got {' and '.join(networks)}")


def _batches(models, n, size, seeds, epoch) -> Iterator[Tensor]:
    """Indices (G, B) of every model's next batch, those that `fit` draws."""
    orders = [
        model.batches(n, size, generator=generator(seed, "batches", epoch))
        for model, seed in zip(models, seeds, strict=True)
    ]
    yield from map(torch.stack, zip(*orders, strict=True))


class _Stack:
    """The networks of G models as one: weights (G, in, out) and biases (G, 1, out) of every linear layer."""

    def __init__(self, models: Sequence[MLPClassifier]):
        self.layers = list(zip(*(model.network for model in models), strict=True))
        self.linear = [layers for layers in self.layers if isinstance(layers[0], nn.Linear)]
        self.weights = [torch.stack([layer.weight.detach().T for layer in layers]) for layers in self.linear]
        self.biases = [torch.stack([layer.bias.detach()[None] for layer in layers]) for layers in self.linear]
        self.parameters = [part.requires_grad_() for part in (*self.weights, *self.biases)]

    def logits(self, z_G_B_L: Tensor, draws: list[torch.Generator]) -> Tensor:
        """Logits (G, B, C); draws: of each model, for dropout."""
        z, linear = z_G_B_L, zip(self.weights, self.biases, strict=True)
        for layer, *_ in self.layers:
            if isinstance(layer, nn.Linear):
                weight, bias = next(linear)
                z = torch.baddbmm(bias, z, weight)
            elif isinstance(layer, nn.Dropout):
                z = _dropout(z, layer.p, draws)
            else:
                z = layer(z)
        return z

    @torch.no_grad()
    def unstack(self) -> None:
        """Write the weights into the models."""
        finite = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in self.parameters]).all(dim=0)
        if not finite.all():
            raise LalibError(
                f"training diverged: weights of {int((~finite).sum())} of {len(finite)} models are not finite; "
                "try a smaller learning_rate"
            )
        for layers, weights, biases in zip(self.linear, self.weights, self.biases, strict=True):
            for layer, weight, bias in zip(layers, weights, biases, strict=True):
                layer.weight.copy_(weight.T)
                layer.bias.copy_(bias[0])


def _dropout(z_G_B_F: Tensor, p: float, draws: list[torch.Generator]) -> Tensor:
    """Dropout with the masks that every model would draw alone."""
    if not p:
        return z_G_B_F
    kept = [z_G_B_F.new_empty(z_G_B_F.shape[1:]).bernoulli_(1 - p, generator=draw) for draw in draws]
    return z_G_B_F * torch.stack(kept).div_(1 - p)
