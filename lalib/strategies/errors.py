"""Strategies that rank images by how badly the autoencoder reconstructs them."""

import torch

from lalib.strategies.picking import largest
from lalib.strategies.view import PoolView, Selection, Strategy


def reconstruction_error(view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
    """The n unlabelled images of largest reconstruction error, equal errors in order of index; nothing is drawn."""
    return largest(view, view.errors.cpu()[view.unlabeled], n)


DECLARED = (Strategy("reconstruction-error", reconstruction_error, needs=("errors",)),)
