"""A head beside a classifier that predicts how large the loss of an image would be.

[Yoo2019]  D. Yoo, I. S. Kweon, "Learning loss for active learning", CVPR 2019.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lalib.data.checks import LalibError, check_int, check_number
from lalib.data.door import check_codes
from lalib.data.seeds import seeded
from lalib.models.classifiers import Classifier
from lalib.models.losses import pair_loss
from lalib.models.networks import Batch, Trainable, check_inputs, eval_mode, to_input

DETACH = 0.6  # of the training, after which the head no longer moves the features [Yoo2019]


class LossPredictor(Trainable):
    """A classifier with a head that learns which of two images has the larger loss [Yoo2019].

    The head maps every hidden block (maps are averaged over their pixels) to `width` numbers, and these and the codes
    (M, L) of the training images, if given, to one. Trained by the task's loss plus `weight` times the pair loss, which
    no longer reaches the classifier after `detach_after` batches. example (1, ...): an input, for the sizes.
    """

    def __init__(
        self,
        classifier: Classifier,
        example: Tensor,
        *,
        codes: Tensor | None = None,
        weight: float = 1.0,
        width: int = 128,
        detach_after: int,
        seed: int = 0,
    ):
        super().__init__()
        self.classifier, self.weight = classifier, check_number("weight", weight, low=0)
        self.width, self.detach_after = check_int("width", width, low=1), check_int("detach_after", detach_after, low=0)
        for name in ("image_shape", "code_dim", "n_classes", "multi_label", "class_names"):
            setattr(self, name, getattr(classifier, name))
        self.register_buffer("codes", None if codes is None else check_codes(codes).float())
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))
        example = to_input(check_inputs(classifier, example), next(classifier.parameters()).device)
        with torch.no_grad(), eval_mode(classifier):
            sizes = [block.shape[1] for block in classifier.activations(example)[0]]
        with seeded(seed, "loss head"):
            self.blocks = nn.ModuleList(nn.Linear(size, self.width) for size in sizes)
            self.last = nn.Linear(self.width * len(sizes) + (0 if codes is None else self.codes.shape[1]), 1)

    def prepare(self, x: Tensor, y: Tensor | None = None) -> None:
        self.classifier.prepare(x, y)

    def batches(self, n: int, size: int, *, generator: torch.Generator) -> Iterator[Tensor]:
        return self.classifier.batches(n, size, generator=generator)

    def head(self, blocks: list[Tensor], codes: Tensor | None) -> Tensor:
        """Predicted losses (B,) of the hidden blocks of B inputs and their codes."""
        flat = [block.mean(dim=(2, 3)) if block.ndim == 4 else block for block in blocks]
        parts = [torch.relu(layer(block)) for layer, block in zip(self.blocks, flat, strict=True)]
        return self.last(torch.cat(parts if codes is None else [*parts, codes.to(parts[0])], dim=1)).squeeze(1).float()

    def loss(self, batch: Batch, *, generator: torch.Generator) -> dict[str, Tensor]:
        blocks, logits = self.classifier.activations(self.classifier.augmented(batch.x, generator))
        losses = self.classifier.losses(logits.float(), batch.y)
        if self.batches_seen >= self.detach_after:
            blocks = [block.detach() for block in blocks]
        self.batches_seen += self.training
        codes = None if self.codes is None else self.codes[batch.index.to(self.codes.device)]
        pairs = pair_loss(self.head(blocks, codes), losses.detach())
        return {"loss": losses.mean() + self.weight * pairs, "task": losses.mean(), "pairs": pairs}

    def predict(self, inputs: Tensor, codes: Tensor | None = None, block: int = 1024) -> Tensor:
        """Predicted losses (N,) of inputs (N, ...) with their codes (N, L), float32 on the CPU."""
        if (codes is None) != (self.codes is None):
            raise LalibError("give codes to predict if, and only if, the predictor was trained with codes")
        inputs, device = check_inputs(self, inputs), self.last.weight.device
        codes = torch.empty(len(inputs), 0) if codes is None else check_codes(codes).float()
        with torch.no_grad(), eval_mode(self):
            parts = zip(inputs.split(block), codes.split(block), strict=True)
            predicted = [self.head(self.classifier.activations(to_input(x, device))[0], z) for x, z in parts]
        return torch.cat(predicted).cpu()
