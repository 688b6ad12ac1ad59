"""Plotly figures: data in, Figure out, no state.

Colours are those of [Okabe2008] and two more that stay apart for colour-blind readers; a marker shape, a label or a
place says the same again, so that colour is never alone. Image mosaics are one image, however many tiles they hold.
All raise ValueError or TypeError for what they cannot draw: another shape, a table without the columns, NaN, no rows.

[Okabe2008] M. Okabe and K. Ito, Color Universal Design: how to make figures and presentations that are friendly to
    colorblind people, 2008.
"""

from lalib.figures.curves import class_histogram, comparison, confusion, confusion_matrix, history, relation
from lalib.figures.images import latent_grid, reconstructions, thumbnails, traversal
from lalib.figures.learning import class_counts, label_saving, learning_curves, picks, update_learning_curves
from lalib.figures.maps import clusters, difficulty, latent_map, latent_maps
from lalib.figures.ranks import critical_difference, penalty_matrix

__all__ = ["class_counts", "class_histogram", "clusters", "comparison", "confusion", "confusion_matrix"]
__all__ += ["critical_difference", "difficulty", "history", "label_saving", "latent_grid", "latent_map", "latent_maps"]
__all__ += ["learning_curves", "penalty_matrix", "picks", "reconstructions", "relation", "thumbnails", "traversal"]
__all__ += ["update_learning_curves"]
