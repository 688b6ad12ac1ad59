"""What codes hold: encode, decode, grids, files of codes, measures, neighbours, near duplicates, clusters, views,
spreading of labels.

All raise ValueError or TypeError for codes that are not finite (N, L), and for labels, images or numbers not theirs.
"""

from lalib.codes.clustering import kmeans, ward
from lalib.codes.coding import LatentGrid, decode, encode, latent_grid, reconstruct, reconstruction_errors, traversal
from lalib.codes.duplicates import near_duplicates
from lalib.codes.kept import load_codes, save_codes
from lalib.codes.measures import class_balance, difficulty, one_nn_error, trustworthiness
from lalib.codes.neighbours import Neighbours, knn, median_nn_distance
from lalib.codes.projection import project
from lalib.codes.spreading import PoissonClassifier, spread_labels

__all__ = ["LatentGrid", "Neighbours", "PoissonClassifier", "class_balance", "decode", "difficulty", "encode"]
__all__ += ["kmeans", "knn", "latent_grid", "load_codes", "median_nn_distance", "near_duplicates", "one_nn_error"]
__all__ += ["project", "reconstruct", "reconstruction_errors", "save_codes", "spread_labels", "traversal"]
__all__ += ["trustworthiness", "ward"]
