"""What the page shows: Settings say which images and which file of labels, `page` puts the widgets together."""

import json
import os
import warnings
from collections.abc import MutableMapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lalib.codes import encode, project
from lalib.codes.projection import pixel_pca
from lalib.data import DATASETS, ImageSet, LalibError, from_folder, load
from lalib.labelling import LabelStore
from lalib.models import VAE
from lalib.training import fit, load_model, save
from lalib.widgets import Workbench

VARIABLE = "LALIB_APP"  # the environment variable that carries the settings to the page's kernel
EPOCHS = 500  # more do not help the map of a few images


@dataclass(frozen=True)
class Settings:
    """images: a data set's name or a folder; classes: to label with, by default those of the images, else of the file;
    if they are given, the folder's sub-folders are mere folders.

    labels: the file that takes the answers, beside which a hidden folder .LABELS.images is the cache of a folder's
    images; labeller: who gives them; size, bad_files: of a folder, as in from_folder;
    model: the file of the autoencoder that draws the map, from `prepare`, which trains it for about so many `seconds`.
    """

    images: str = "fashion-mnist-mini"
    classes: Sequence[str] = ()
    labels: str = "runs/labels.sqlite"
    labeller: str = "me"
    size: int = 64
    model: str | None = None
    bad_files: str = "refuse"
    seconds: float = 60

    def load(self) -> ImageSet:
        """The images. Raises ValueError if there are none."""
        if self.images in DATASETS:
            return load(self.images)
        folder = Path(self.images).expanduser()
        if not folder.is_dir():
            raise ValueError(f"images must be a folder or one of {', '.join(DATASETS)}, got {self.images!r}")
        labels = "none" if self.classes else "folders"
        path = Path(self.labels).expanduser()
        cache = path.with_name(f".{path.name}.images")  # hidden: the photos may lie there, too
        return from_folder(folder, self.size, labels=labels, bad_files=self.bad_files, cache=cache)

    def store(self, images: ImageSet) -> LabelStore:
        """The file of labels, made if it is not there. Raises LalibError if it is not one, or of other classes."""
        path = Path(self.labels).expanduser()
        classes = self.classes or images.class_names or None
        if classes is None and not path.exists():
            raise LalibError("the images lie in no class folders: say which classes there are, such as cat,dog")
        path.parent.mkdir(parents=True, exist_ok=True)
        store = LabelStore(path, classes, labeller=self.labeller)
        store.adopt(images)  # what an earlier version has written
        return store

    def tell(self, environment: MutableMapping[str, str]) -> None:
        """Leave these settings for kernels that are started in this environment."""
        environment[VARIABLE] = json.dumps(asdict(self))


def prepare(settings: Settings, model: Path) -> None:
    """Check images and labels, and train the map's autoencoder into the file `model`, with a progress bar.

    It trains until settings.seconds have passed, one epoch at least and EPOCHS at most. Ctrl-C ends it. Raises
    ValueError and LalibError for settings that lead nowhere.
    """
    images = settings.load()
    settings.store(images)
    vae = VAE(images.image_shape, latent_dim=2, seed=0)
    if fit(vae, images, epochs=EPOCHS, seconds=settings.seconds, seed=0).interrupted:
        raise KeyboardInterrupt
    save(vae, model)


def page() -> Workbench:
    """The widgets for the settings in the environment, else the defaults. Without a model there is a PCA map only."""
    settings = Settings(**json.loads(os.environ.get(VARIABLE, "{}")))
    with warnings.catch_warnings(action="ignore"):  # of files left out `prepare` has told
        images = settings.load()
    model = None if settings.model is None else load_model(settings.model)
    maps = {} if model is None else {"VAE": encode(model, images)}
    maps["PCA"] = project(pixel_pca(2, images)[0], "pca")
    return Workbench(images, maps, settings.store(images), model)
