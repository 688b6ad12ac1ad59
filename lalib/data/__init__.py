"""Images to select from: ImageSet, the data sets that load by name, own images, splits, unbalanced pools."""

from lalib.data.catalogue import DATASETS, from_folder, from_npz, load
from lalib.data.checks import LalibError
from lalib.data.imageset import ImageSet, from_arrays
from lalib.data.seeds import child_seed, generator, seeded
from lalib.data.splits import stratified_split, unbalance

__all__ = ["DATASETS", "ImageSet", "LalibError", "child_seed", "from_arrays", "from_folder", "from_npz", "generator"]
__all__ += ["load", "seeded", "stratified_split", "unbalance"]
