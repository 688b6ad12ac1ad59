"""lalib: which few of many unlabelled images to label, seen from the latent space of an autoencoder.

import lalib as la
images = la.load("fashion-mnist-mini")
model = la.VAE(images.image_shape, latent_dim=2, seed=0)
la.fit(model, images, epochs=20, seed=0)
codes = la.encode(model, images)
query = la.select("normal-in-clusters", codes, n=100, seed=0)
la.figures.latent_map(codes, images, selected=query)
"""

import importlib

from lalib import codes, data, experiments, labelling, models, strategies, training
from lalib.codes import decode, encode, one_nn_error, project, reconstruction_errors
from lalib.data import ImageSet, LalibError, from_arrays, from_folder, from_npz, load, stratified_split, unbalance
from lalib.experiments import Task, compare
from lalib.labelling import LabellingLoop, LabelStore
from lalib.models import (
    CAE,
    M2,
    TSNEAE,
    VAE,
    CNNClassifier,
    ContrastiveEncoder,
    FixMatch,
    MLPClassifier,
    PretrainedEncoder,
    VariationalTSNEAE,
    accuracy,
    predict_proba,
)
from lalib.strategies import select
from lalib.training import fit, load_model, save

__version__ = "0.1.0"

__all__ = ["CAE", "M2", "TSNEAE", "VAE", "CNNClassifier", "ContrastiveEncoder", "FixMatch", "ImageSet", "LabelStore"]
__all__ += ["LabellingLoop", "LalibError", "MLPClassifier", "PretrainedEncoder", "Task", "VariationalTSNEAE"]
__all__ += ["accuracy", "codes", "compare", "data", "decode", "encode", "experiments", "figures", "fit", "from_arrays"]
__all__ += ["from_folder", "from_npz", "labelling", "load", "load_model", "models", "one_nn_error", "predict_proba"]
__all__ += ["project", "reconstruction_errors", "results", "save", "select", "strategies", "stratified_split"]
__all__ += ["training", "unbalance", "widgets"]

_LAZY = {"figures": "lalib.figures", "results": "lalib.experiments.results", "widgets": "lalib.widgets"}  # slow imports


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(_LAZY[name])
    raise AttributeError(f"module 'lalib' has no attribute {name!r}")
