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

from lalib._checks import LalibError
from lalib.adversarial import M2VAAL, TAVAAL, VAAL
from lalib.autoencoders import CAE, TSNEAE, VAE, VariationalTSNEAE
from lalib.classifiers import CNNClassifier, EncoderClassifier, MLPClassifier, ResNetClassifier, accuracy, predict_proba
from lalib.conditional import ConditionalVAE
from lalib.contrastive import ContrastiveEncoder
from lalib.data import DATASETS, ImageSet, from_arrays, from_folder, from_npz, load, stratified_split, unbalance
from lalib.experiments import compare
from lalib.generation import GenerativeAugmentation, ImageGenerator
from lalib.labelling import LabellingLoop, LabelStore
from lalib.latent import (
    class_balance,
    decode,
    difficulty,
    encode,
    latent_grid,
    one_nn_error,
    project,
    reconstruct,
    reconstruction_errors,
    traversal,
    trustworthiness,
)
from lalib.loop import active_learning, cold_start
from lalib.pool import Pool, PoolView
from lalib.query_sets import compare_maps, compare_query_sets
from lalib.semisupervised import M1M2, M2, ClassPriorVAE, FixMatch, partly_labelled
from lalib.spreading import spread_labels
from lalib.strategies import STRATEGIES, Selection, select
from lalib.task_models import evaluate
from lalib.tasks import RoundEncoder, Task, TaskData
from lalib.training import History, fit, load_model, save

__version__ = "0.1.0"

__all__ = [
    "CAE",
    "DATASETS",
    "M1M2",
    "M2",
    "M2VAAL",
    "STRATEGIES",
    "TAVAAL",
    "TSNEAE",
    "VAAL",
    "VAE",
    "CNNClassifier",
    "ClassPriorVAE",
    "ConditionalVAE",
    "ContrastiveEncoder",
    "EncoderClassifier",
    "FixMatch",
    "GenerativeAugmentation",
    "History",
    "ImageGenerator",
    "ImageSet",
    "LabelStore",
    "LabellingLoop",
    "LalibError",
    "MLPClassifier",
    "Pool",
    "PoolView",
    "ResNetClassifier",
    "RoundEncoder",
    "Selection",
    "Task",
    "TaskData",
    "VariationalTSNEAE",
    "accuracy",
    "active_learning",
    "class_balance",
    "cold_start",
    "compare",
    "compare_maps",
    "compare_query_sets",
    "decode",
    "difficulty",
    "encode",
    "evaluate",
    "figures",
    "fit",
    "from_arrays",
    "from_folder",
    "from_npz",
    "labelling",
    "latent_grid",
    "load",
    "load_model",
    "one_nn_error",
    "partly_labelled",
    "predict_proba",
    "project",
    "reconstruct",
    "reconstruction_errors",
    "save",
    "select",
    "spread_labels",
    "stratified_split",
    "traversal",
    "trustworthiness",
    "unbalance",
    "widgets",
]

_LAZY = ("figures", "results", "widgets")  # these import plotly, pandas or ipywidgets


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"lalib.{name}")
    raise AttributeError(f"module 'lalib' has no attribute {name!r}")
