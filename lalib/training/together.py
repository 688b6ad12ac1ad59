"""fit_together(): small classifiers on codes trained all at once, each from data and a seed of its own.

Half the time of a step goes into calling the layers. Stacked models share these calls: five take 0.34 ms each instead
of 0.93 (one CPU thread). The small CNN gains nothing, as its convolutions fill a processor by themselves.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalib.data.checks import LalibError, resolve_device
from lalib.data.seeds import generator
from lalib.models.classifiers import MLPClassifier
from lalib.training.fitting import Course, checked_pair


def fit_together(
    models: Sequence[MLPClassifier],
    data: Sequence[tuple[Tensor, Tensor]],
    *,
    seeds: Sequence[int],
    device: str | torch.device,
    **course,
) -> None:
    """What fit(model, pair, seed=seed, **course) does for each model, its codes (N, L) with labels, and its seed.

    course: epochs, batch_size, learning_rate, weight_decay, optimizer and, if not constant, schedule. The weights are
    those of `fit` up to rounding, which depends on how many models there are; on CUDA dropout draws other masks. The
    models must be alike and the data of one size, else ValueError. Ctrl-C is not caught: then, and when weights stop
    being finite (LalibError), every model keeps the weights that it had.
    """
    device = resolve_device(device)
    if others := sorted({type(model).__name__ for model in models if not isinstance(model, MLPClassifier)}):
        raise TypeError(f"models that train together must be of class MLPClassifier, got {', '.join(others)}")
    if len(networks := sorted({" ".join(str(model.network).split()) for model in models})) > 1:
        raise ValueError(f"models that train together must be alike, got {' and '.join(networks)}")
    course = Course(models[0], **course)
    z_G_N_L, truth_G_N_C = _stacked_data(models, data, device)
    stack = _Stack(models)
    course.start([{"params": stack.parameters, "lr": course.learning_rate}])
    own = torch.arange(len(models), device=device)[:, None]
    for epoch in range(1, course.epochs + 1):
        course.begin(epoch)
        draws = [generator(seed, "dropout", epoch, device=device) for seed in seeds]
        pairs = zip(models, (generator(seed, "batches", epoch) for seed in seeds), strict=True)
        orders = [m.batches(z_G_N_L.shape[1], course.batch_size, generator=order) for m, order in pairs]
        order_G_N = torch.stack([torch.cat(list(parts)) for parts in orders]).to(device)
        batches = (part[own, order_G_N].split(course.batch_size, dim=1) for part in (z_G_N_L, truth_G_N_C))
        for z_G_B_L, truth_G_B_C in zip(*batches, strict=True):
            course.optimizer.zero_grad()
            stack.differentiate(z_G_B_L, truth_G_B_C, draws)
            course.optimizer.step()
    stack.unstack()


@torch.no_grad()
def _stacked_data(models, data, device) -> tuple[Tensor, Tensor]:
    """What the first layers get (G, N, L), and the labels as 0 and 1 (G, N, C); the models are prepared for it."""
    pairs = [checked_pair(part, model) for part, model in zip(data, models, strict=True)]
    if len(sizes := {len(x) for x, _ in pairs}) > 1:
        raise ValueError(f"models that train together need equally many codes, got {min(sizes)} to {max(sizes)}")
    codes, labels = (torch.stack(parts).to(device) for parts in zip(*pairs, strict=True))
    for model, x in zip(models, codes, strict=True):
        model.to(device).train().prepare(x)
    truth = labels if models[0].multi_label else F.one_hot(labels, models[0].n_classes)
    return torch.stack([model.standardized(x) for model, x in zip(models, codes, strict=True)]), truth.float()


class _Stack:
    """The networks of G models as one: for every linear layer a weight (G, in, out) and a bias (G, 1, out).

    In this order of the axes gradients lie in memory as the optimiser wants them.
    """

    def __init__(self, models: Sequence[MLPClassifier]):
        linear = ([layer for layer in model.network if isinstance(layer, nn.Linear)] for model in models)
        self.model, self.layers = models[0], list(zip(*linear, strict=True))
        weights = [torch.stack([layer.weight.detach().mT for layer in layers]) for layers in self.layers]
        biases = [torch.stack([layer.bias.detach()[None] for layer in layers]) for layers in self.layers]
        self.weights, self.biases = ([part.contiguous().requires_grad_() for part in x] for x in (weights, biases))
        self.parameters = [*self.weights, *self.biases]

    def differentiate(self, z_G_B_L: Tensor, truth_G_B_C: Tensor, draws: list[torch.Generator]) -> None:
        """Find the gradients of the sum of every model's loss on its batch; draws: for dropout, of each model.

        With p the probabilities, dLoss/dlogits is (p - truth) / B for the cross-entropy, and the same over C for the
        mean of C binary ones; to begin there is faster than to compute the loss.
        """
        z = torch.baddbmm(self.biases[0], z_G_B_L, self.weights[0])
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            z = torch.baddbmm(bias, self._drop(torch.relu_(z), draws), weight)
        p = self.model.probabilities(z.detach())
        z.backward((p - truth_G_B_C) / (p[0].numel() if self.model.multi_label else p.shape[1]))

    def _drop(self, z_G_B_F: Tensor, draws: list[torch.Generator]) -> Tensor:
        """Dropout with the masks that every model would draw alone."""
        if not (p := self.model.dropout):
            return z_G_B_F
        kept = [torch.empty_like(z).bernoulli_(1 - p, generator=draw) for z, draw in zip(z_G_B_F, draws, strict=True)]
        return z_G_B_F * torch.stack(kept).div_(1 - p or 1)

    @torch.no_grad()
    def unstack(self) -> None:
        """Write the weights into the models."""
        finite = torch.stack([part.flatten(1).isfinite().all(dim=1) for part in self.parameters]).all(dim=0)
        if not finite.all():
            bad = f"weights of {int((~finite).sum())} of {len(finite)} models are not finite"
            raise LalibError(f"training diverged: {bad}; try a smaller learning_rate")
        for layers, weights, biases in zip(self.layers, self.weights, self.biases, strict=True):
            for layer, weight, bias in zip(layers, weights, biases, strict=True):
                layer.weight.copy_(weight.mT)
                layer.bias.copy_(bias[0])
