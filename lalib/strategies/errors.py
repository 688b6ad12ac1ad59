"""Strategies that rank images by how badly the autoencoder reconstructs them."""

import torch

from lalib.strategies.view import PoolView, Selection, Strategy


def reconstruction_error(view: PoolView, n: int, *, generator: torch.Generator) -> Selection:
    """The n unlabelled images of largest reconstruction error, equal errors in order of index; nothing is drawn."""
    errors = view.errors.cpu()[view.unlabeled]
    order = errors.argsort(descending=True, stable=True)[:n]
    return Selection(view.unlabeled[order], errors[order].float())


DECLARED = (Strategy("reconstruction-error", reconstruction_error, needs=("errors",)),)
