"""Plotly figures: data in, Figure out, no state.

Colours are those of [Okabe2008] and two more that stay apart for colour-blind readers; a marker shape, a label or a
place says the same again, so that colour is never alone. Image mosaics are one image, however many tiles they hold.

[Okabe2008] M. Okabe and K. Ito, Color Universal Design: how to make figures and presentations that are friendly to
    colorblind people, 2008.
"""

from lalib.figures.curves import class_histogram, comparison, confusion, history, relation
from lalib.figures.images import latent_grid, reconstructions, thumbnails, traversal
from lalib.figures.maps import clusters, difficulty, latent_map, latent_maps

__all__ = [
    "class_histogram",
    "clusters",
    "comparison",
    "confusion",
    "difficulty",
    "history",
    "latent_grid",
    "latent_map",
    "latent_maps",
    "reconstructions",
    "relation",
    "thumbnails",
    "traversal",
]
