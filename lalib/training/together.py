"""fit_together(): small classifiers on codes trained all at once, each from data and a seed of its own.

One of them is so small that half of a step is spent on calling its layers; several stacked take as many calls as one.
Two layers of 256 units on 32-D codes, 32 at a time, one thread of an AMD EPYC: 0.70 ms a step in `fit`, 0.22 for each
of five together, hardly less for more. The small CNN gains nothing (7.0 ms; 6.9 for each of five by torch.func.vmap):
its convolutions fill a processor by themselves. Neither was measured on a GPU.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib.data.checks import LalibError, resolve_device
from lalib.data.seeds import generator
from lalib.models.classifiers import MLPClassifier
from lalib.training.fitting import OPTIMIZERS, checked_pair, scheduled


@torch.no_grad()
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

    The weights are those of `fit` up to rounding, which depends on how many models there are; on CUDA it is not in
    bfloat16, and dropout draws other masks. The models must be alike and the data of one size, else ValueError. Ctrl-C
    is not caught: then, and when weights stop being finite (LalibError), every model keeps the weights that it had.
    """
    device = resolve_device(device)
    _check_alike(models)
    z_G_N_L, truth_G_N_C = _stacked_data(models, data, device)
    stack = _Stack(models)
    rate = models[0].learning_rate if learning_rate is None else learning_rate
    step = OPTIMIZERS[optimizer](stack.parameters, lr=rate, weight_decay=weight_decay, fused=True)
    own = torch.arange(len(models), device=device)[:, None]
    for epoch in range(1, epochs + 1):
        scheduled(step, [rate], schedule, epochs, epoch)
        draws = [generator(seed, "dropout", epoch, device=device) for seed in seeds] if stack.dropout else []
        for index_G_B in _batches(models, z_G_N_L.shape[1], batch_size or models[0].batch_size, seeds, epoch):
            rows = own, index_G_B.to(device)
            stack.differentiate(z_G_N_L[rows], truth_G_N_C[rows], draws)
            step.step()
    stack.unstack()


def _check_alike(models: Sequence[MLPClassifier]) -> None:
    others = sorted({type(model).__name__ for model in models if not isinstance(model, MLPClassifier)})
    if others:
        raise TypeError(f"models that train together must be of class MLPClassifier, got {', '.join(others)}")
    networks = sorted({" ".join(str(model.network).split()) for model in models})
    if len(networks) > 1:
        raise ValueError(f"models that train together must be alike, got {' and '.join(networks)}")


def _stacked_data(models, data, device) -> tuple[Tensor, Tensor]:
    """What the first layers get (G, N, L), and the labels as 0 and 1 (G, N, C); the models are prepared for it."""
    pairs = [checked_pair(part, model) for part, model in zip(data, models, strict=True)]
    sizes = {len(x) for x, _ in pairs}
    if len(sizes) > 1:
        raise ValueError(f"models that train together need equally many codes, got {min(sizes)} to {max(sizes)}")
    codes, labels = (torch.stack(parts).to(device) for parts in zip(*pairs, strict=True))
    for model, x in zip(models, codes, strict=True):
        model.to(device).train().prepare(x)
    truth = labels if models[0].multi_label else F.one_hot(labels, models[0].n_classes)
    return torch.stack([model.standardized(x) for model, x in zip(models, codes, strict=True)]), truth.float()


def _batches(models, n, size, seeds, epoch) -> Iterator[Tensor]:
    """Indices (G, B) of every model's next batch, those that `fit` draws."""
    orders = [
        model.batches(n, size, generator=generator(seed, "batches", epoch))
        for model, seed in zip(models, seeds, strict=True)
    ]
    yield from map(torch.stack, zip(*orders, strict=True))


class _Stack:
    """The networks of G models as one: weights (G, out, in) and biases (G, 1, out) of every linear layer."""

    def __init__(self, models: Sequence[MLPClassifier]):
        self.probabilities, self.multi_label = models[0].probabilities, models[0].multi_label
        self.dropout = next((layer.p for layer in models[0].network if isinstance(layer, nn.Dropout)), 0.0)
        linear = ([layer for layer in model.network if isinstance(layer, nn.Linear)] for model in models)
        self.layers = list(zip(*linear, strict=True))
        self.weights = [torch.stack([layer.weight.detach() for layer in layers]) for layers in self.layers]
        self.biases = [torch.stack([layer.bias.detach()[None] for layer in layers]) for layers in self.layers]
        self.parameters = [*self.weights, *self.biases]
        for part in self.parameters:
            part.grad = torch.empty_like(part)

    def differentiate(self, z_G_B_L: Tensor, truth_G_B_C: Tensor, draws: list[torch.Generator]) -> None:
        """Write the gradients of every model's loss on its batch; draws: for dropout, of each model.

        By hand, which spares a tenth of the time: with p the probabilities, dLoss/dlogits is (p - truth) / B for the
        cross-entropy, and the same over C for the mean of C binary ones.
        """
        inputs = [z_G_B_L]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inputs.append(self._drop(torch.baddbmm(bias, inputs[-1], weight.mT).relu_(), draws))
        p = self.probabilities(torch.baddbmm(self.biases[-1], inputs[-1], self.weights[-1].mT))
        grad = (p - truth_G_B_C) / (p[0].numel() if self.multi_label else p.shape[1])
        for weight, bias, z in zip(self.weights[::-1], self.biases[::-1], inputs[::-1], strict=True):
            torch.bmm(grad.mT, z, out=weight.grad)
            torch.sum(grad, dim=1, keepdim=True, out=bias.grad)
            if z is not z_G_B_L:
                grad = torch.bmm(grad, weight).mul_(z > 0)  # no unit that dropout or ReLU silenced
                if self.dropout:
                    grad /= 1 - self.dropout

    def _drop(self, z_G_B_F: Tensor, draws: list[torch.Generator]) -> Tensor:
        """Dropout with the masks that every model would draw alone."""
        if not self.dropout:
            return z_G_B_F
        kept = [
            torch.empty_like(z).bernoulli_(1 - self.dropout, generator=g) for z, g in zip(z_G_B_F, draws, strict=True)
        ]
        return z_G_B_F.mul_(torch.stack(kept)).div_(1 - self.dropout)

    def unstack(self) -> None:
        """Write the weights into the models."""
        finite = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in self.parameters]).all(dim=0)
        if not finite.all():
            raise LalibError(
                f"training diverged: weights of {int((~finite).sum())} of {len(finite)} models are not finite; "
                "try a smaller learning_rate"
            )
        for layers, weights, biases in zip(self.layers, self.weights, self.biases, strict=True):
            for layer, weight, bias in zip(layers, weights, biases, strict=True):
                layer.weight.copy_(weight)
                layer.bias.copy_(bias[0])
