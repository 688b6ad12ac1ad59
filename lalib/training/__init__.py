"""Training: fit() and its history, checkpoints, many small models at once, generated training images."""

from lalib.training.checkpoints import load_model, save
from lalib.training.fitting import History, fit
from lalib.training.generation import GenerativeAugmentation, ImageGenerator
from lalib.training.together import fit_together

__all__ = ["GenerativeAugmentation", "History", "ImageGenerator", "fit", "fit_together", "load_model", "save"]
