"""Strategies that rank images by what a network trained beside the task model says: an autoencoder's errors, or how
sure a discriminator is that an image has no label yet (see lalib.models.adversarial).

[Sinha2019] Sinha, Ebrahimi and Darrell, Variational adversarial active learning, ICCV 2019.
[Kim2021]   Kim, Park, Kim and Chun, Task-aware variational adversarial active learning, CVPR 2021.
[Losalka]   Losalka, Singhanian and Sun, Active learning using deep generative models (slides). M2-VAAL.

Nothing is drawn, and equal images stand in order of index. vaal, ta-vaal and m2-vaal return the n images of lowest D,
the probability that an image has a label. The score is -logit D. The record says how well D tells the images of the
pool apart: discriminator_loss, -mean_L log D - mean_U log (1 - D) in nats, 2 log 2 for one that cannot tell, and
told_apart, its balanced accuracy. Near 1/2 the picks are as good as random: `cannot_tell` is the rule to stop by.
Options: see sources.
"""

import torch
from torch import Tensor

from lalib.data.checks import LalibError, check_number
from lalib.models.losses import discriminator_loss
from lalib.strategies.picking import largest
from lalib.strategies.view import PoolView, Selection, Strategy


def reconstruction_error(view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
    """The n unlabelled images of largest reconstruction error, which is the score."""
    return largest(view, view.errors.cpu()[view.unlabeled], n)


def vaal(view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
    """The surest unlabelled by a VAE's codes [Sinha2019], view.vaal."""
    return _surest_unlabelled(view, view.vaal, n)


def ta_vaal(view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
    """The surest unlabelled by a VAE's codes and the loss that the task model expects [Kim2021], view.ta_vaal."""
    return _surest_unlabelled(view, view.ta_vaal, n)


def m2_vaal(view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
    """The surest unlabelled by the code of M2, which is the task model, too [Losalka], view.m2_vaal."""
    return _surest_unlabelled(view, view.m2_vaal, n)


def cannot_tell(record: dict, margin: float = 0.05) -> bool:
    """Whether the discriminator of a selection with this record told both sides apart no better than 1/2 + margin."""
    check_number("margin", margin, low=0, high=0.5)
    if "told_apart" not in record:
        raise LalibError("the record of the selection names no discriminator: it is not one of VAAL's")
    return record["told_apart"] <= 0.5 + margin


def _surest_unlabelled(view: PoolView, logits: Tensor, n: int) -> Selection:
    logits, known = logits.cpu().double(), torch.zeros(len(logits), dtype=torch.bool)
    known[view.labeled] = True
    found = largest(view, -logits[~known], n)
    if not known.any():
        return found
    right = ((logits[known] > 0).double().mean() + (logits[~known] <= 0).double().mean()) / 2
    record = {"discriminator_loss": float(discriminator_loss(logits, known)), "told_apart": float(right)}
    return Selection(found.index, found.score, record)


DECLARED = (
    Strategy("reconstruction-error", reconstruction_error, needs=("errors",)),
    Strategy("vaal", vaal, needs=("vaal",)),
    Strategy("ta-vaal", ta_vaal, needs=("ta_vaal",)),
    Strategy("m2-vaal", m2_vaal, needs=("m2_vaal",)),
)
