"""fit_together(): small classifiers on codes trained all at once, each from data and a seed of its own.

One of them is so small that half of a step is spent on calling its layers; several stacked take as many calls as one.
Two layers of 256 units on 32-D codes, 32 at a time, one thread of an AMD EPYC: 0.70 ms a step in `fit`, 0.22 for each
of five together, hardly less for more. The small CNN gains nothing (7.0 ms; 6.9 for each of five by torch.func.vmap):
its convolutions fill a processor by themselves. Neither was measured on a GPU.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from lalib.data.checks import LalibError, resolve_device
from lalib.data.seeds import generator
from lalib.models.classifiers import MLPClassifier
from lalib.training.fitting import Course, checked_pair


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
    course = Course(models[0], epochs, batch_size, learning_rate, weight_decay, optimizer, schedule)
    z_G_N_L, y_G_N = _stacked_data(models, data, device)
    stack = _Stack(models)
    course.start([{"params": stack.parameters, "lr": course.learning_rate}])
    own = torch.arange(len(models), device=device)[:, None]
    for epoch in range(1, course.epochs + 1):
        course.begin(epoch)
        draws = [generator(seed, "dropout", epoch, device=device) for seed in seeds]
        for index_G_B in _batches(models, z_G_N_L.shape[1], course.batch_size, seeds, epoch):
            rows = own, index_G_B.to(device)
            course.optimizer.zero_grad()
            stack.loss(z_G_N_L[rows], y_G_N[rows], draws).backward()
            course.optimizer.step()
    stack.unstack()


def _check_alike(models: Sequence[MLPClassifier]) -> None:
    others = sorted({type(model).__name__ for model in models if not isinstance(model, MLPClassifier)})
    if others:
        raise TypeError(f"models that train together must be of class MLPClassifier, got {', '.join(others)}")
    networks = sorted({" ".join(str(model.network).split()) for model in models})
    if len(networks) > 1:
        raise ValueError(f"models that train together must be alike, got {' and '.join(networks)}")


@torch.no_grad()
def _stacked_data(models, data, device) -> tuple[Tensor, Tensor]:
    """What the first layers get (G, N, L), and the labels (G, N), or (G, N, C); the models are prepared for it."""
    pairs = [checked_pair(part, model) for part, model in zip(data, models, strict=True)]
    sizes = {len(x) for x, _ in pairs}
    if len(sizes) > 1:
        raise ValueError(f"models that train together need equally many codes, got {min(sizes)} to {max(sizes)}")
    codes, labels = (torch.stack(parts).to(device) for parts in zip(*pairs, strict=True))
    for model, x in zip(models, codes, strict=True):
        model.to(device).train().prepare(x)
    return torch.stack([model.standardized(x) for model, x in zip(models, codes, strict=True)]), labels


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
        self.model = models[0]
        linear = ([layer for layer in model.network if isinstance(layer, nn.Linear)] for model in models)
        self.layers = list(zip(*linear, strict=True))
        # in this order of the axes the gradients lie in memory as the optimiser wants them
        weights = [torch.stack([layer.weight.detach().mT for layer in layers]) for layers in self.layers]
        biases = [torch.stack([layer.bias.detach()[None] for layer in layers]) for layers in self.layers]
        self.weights, self.biases = ([part.contiguous().requires_grad_() for part in x] for x in (weights, biases))
        self.parameters = [*self.weights, *self.biases]

    def loss(self, z_G_B_L: Tensor, y_G_B: Tensor, draws: list[torch.Generator]) -> Tensor:
        """The sum of every model's mean loss on its batch, in nats; draws: for dropout, of each model."""
        z = torch.baddbmm(self.biases[0], z_G_B_L, self.weights[0])
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            z = torch.baddbmm(bias, self._drop(torch.relu_(z), draws), weight)
        return self.model.losses(z.flatten(0, 1), y_G_B.flatten(0, 1)).sum() / z.shape[1]

    def _drop(self, z_G_B_F: Tensor, draws: list[torch.Generator]) -> Tensor:
        """Dropout with the masks that every model would draw alone."""
        p = self.model.dropout
        if not p:
            return z_G_B_F
        kept = [torch.empty_like(z).bernoulli_(1 - p, generator=draw) for z, draw in zip(z_G_B_F, draws, strict=True)]
        return z_G_B_F * torch.stack(kept).div_(1 - p or 1)

    @torch.no_grad()
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
                layer.weight.copy_(weight.mT)
                layer.bias.copy_(bias[0])
