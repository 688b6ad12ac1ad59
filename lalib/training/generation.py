"""Generative augmentation: further training images, which a class-conditional model draws around the labelled ones.

References
----------
[Tran2019] Tran, Do, Reid and Carneiro, Bayesian generative active deep learning, ICML 2019.
[Lee2019]  Lee and Kim, BALD-VAE: generative active learning based on the uncertainties of both labeled and unlabeled
           data, RiTA 2019.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lalib.data.checks import check_choice, check_int, check_number
from lalib.data.door import check_index, check_labels, renumbered
from lalib.data.imageset import ImageSet
from lalib.data.seeds import child_seed, generator
from lalib.models.autoencoders import ConditionalVAE
from lalib.models.networks import PRESETS, block_size, eval_mode, to_input
from lalib.models.semisupervised import PartlyLabelled, partly_labelled
from lalib.training.fitting import fit_fully


class ImageGenerator(PartlyLabelled, ConditionalVAE):
    """A ConditionalVAE that sees labelled images in every training step, as M2 does: it learns what a class looks like.

    It is for `variations` of labelled images; of few labels it draws the right class from p(z) less often.
    """

    @torch.no_grad()
    def variations(self, images: Tensor, labels: Tensor, *, noise: float = 1.0, seed: int = 0) -> Tensor:
        """Each image (n, C, H, W), uint8, of known class (n,), encoded and decoded with it: uint8, on the CPU.

        x' = g(e(x, y), y), the generation of [Tran2019], of codes drawn from N(mean, (noise x sd)^2) of q(z|x,y).
        """
        device, draws = self.head.weight.device, generator(seed, "variations")
        parts = []
        with eval_mode(self):
            size = block_size(self, images)
            for x, y in zip(images.split(size), labels.split(size), strict=True):
                mean, log_variance = self.posterior(to_input(x, device), self.given(len(x), y))
                step = torch.randn(mean.shape, generator=draws).to(device)
                made = self.decode(mean + noise * (log_variance / 2).exp() * step, y)
                parts.append((255 * made).round().to(torch.uint8).cpu())
        return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class Generated:
    """Images (G, C, H, W), uint8, with labels (G,), drawn by `model` from the images of the pool at `index` (G,)."""

    images: Tensor
    labels: Tensor
    index: Tensor
    model: ImageGenerator


@dataclass(frozen=True, kw_only=True)
class GenerativeAugmentation:
    """How many images are generated in every round, from which labelled ones, and by what.

    per_label: generated images for each label; they count in training as real ones do. share: of the labelled images,
    those which the last round's models know least (largest BALD in `passes`), from which all are generated, in equal
    numbers: 1 for all as in [Tran2019], fewer as in [Lee2019], in the first round all. noise: standard deviations of
    the code around an image. latent_dim, preset, learning_rate: of the ImageGenerator, which is trained on the pool and
    its labels: `epochs` in the first round, then from there `later_epochs` in each.
    On mnist-mini (small CNN, 64 to 160 labels, five seeds) the defaults add 0.7 points of accuracy, RandomViews 4.5.
    Differs: in [Tran2019] an adversarial generator beside a VAE learns jointly with the classifier, from images that
    have just got labels, and what it made stays; here a VAE that also sees the images without a label makes all anew in
    each round. Of [Lee2019] only a summary was at hand. Raises ValueError or TypeError for numbers out of range.
    """

    per_label: int = 4
    share: float = 1.0
    passes: int = 5
    noise: float = 1.0
    latent_dim: int = 20
    preset: str = "dense"
    learning_rate: float = 3e-3
    epochs: int = 10
    later_epochs: int = 5

    def __post_init__(self):
        for name in ("per_label", "latent_dim", "epochs", "later_epochs"):
            object.__setattr__(self, name, check_int(name, getattr(self, name), low=1))
        object.__setattr__(self, "passes", check_int("passes", self.passes, low=2))
        for name, high in (("share", 1), ("noise", None), ("learning_rate", None)):
            object.__setattr__(self, name, check_number(name, getattr(self, name), low=0, high=high))
        check_choice("preset", self.preset, PRESETS)

    def sources(self, information: Tensor | None, labelled: int) -> Tensor:
        """Rows (per_label x labelled,) of labelled images to generate from; information (labelled,): BALD, in nats."""
        chosen = torch.arange(labelled)
        if information is not None:
            chosen = information.argsort(descending=True, stable=True)[: max(1, math.ceil(self.share * labelled))]
        return chosen[torch.arange(self.per_label * labelled) % len(chosen)]

    def generate(
        self,
        images: ImageSet,
        index: Tensor,
        labels: Tensor,
        *,
        information: Tensor | None = None,
        last: ImageGenerator | None = None,
        seed: int,
        round: int = 0,
        device: str = "auto",
    ) -> Generated:
        """The images of a round, from those of the pool at `index` (M,) with labels (M,); see sources for information.

        last: the generator of the round before, which is not changed. The seed draws weights, batches and noise.
        Raises ValueError or TypeError for an index or labels that are none, LalibError if training diverges.
        """
        index = check_index(index, len(images))
        labels = check_labels(labels, len(index), images.n_classes).cpu()
        shape, weights = (images.image_shape, images.n_classes, self.latent_dim), child_seed(seed, "generator")
        model = copy.deepcopy(last) or ImageGenerator(*shape, preset=self.preset, seed=weights)
        settings = {"epochs": self.later_epochs if last else self.epochs, "learning_rate": self.learning_rate}
        settings |= {"seed": child_seed(seed, "generator", round), "device": device}
        fit_fully(model, (images, partly_labelled(len(images), index, labels)), **settings)
        rows, seed = self.sources(information, len(index)), child_seed(seed, "variations", round)
        told = renumbered(labels[rows], images.class_names, model.class_names)  # as an earlier set named the classes
        made = model.variations(images.images[index[rows]], told, noise=self.noise, seed=seed)
        return Generated(made, labels[rows], index[rows], model)
