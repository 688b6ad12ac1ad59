"""What the page shows: Settings say which images and which file of labels, `page` puts the widgets together."""

import json
import os
import warnings
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from lalib.codes import encode, load_codes, project, save_codes
from lalib.codes.kept import CODES_FILES
from lalib.codes.projection import pixel_pca
from lalib.data import DATASETS, ImageSet, LalibError, from_folder, load
from lalib.labelling import LabelStore
from lalib.models import VAE, PretrainedEncoder
from lalib.training import fit, load_model, save
from lalib.widgets import Workbench

VARIABLE = "LALIB_APP"  # the environment variable that carries the settings to the page's kernel
EPOCHS = 500  # more do not help the map of a few images
AUTO, OWN, PHOTOS = "auto", "vae", "efficientnet-lite0"  # whose codes
MODEL, VIEW = "vae.safetensors", "view.npz"  # what `prepare` leaves for the page


@dataclass(frozen=True)
class Settings:
    """images: a data set's name or a folder; classes: to label with, by default those of the images, else of the file;
    if they are given, the folder's sub-folders are mere folders.

    labels: the file that takes the answers, beside which a hidden folder .LABELS.images keeps what was read and coded;
    labeller: who gives them; size, bad_files: of a folder, as in from_folder.
    codes, from which strategies choose: "vae", of one that is trained for about so many `seconds`; the name of a
    network, as PretrainedEncoder takes it; a file that load_codes reads; or "auto", which is efficientnet-lite0 for
    images in colour and else "vae". prepared: the folder that `prepare` has filled.
    """

    images: str = "fashion-mnist-mini"
    classes: Sequence[str] = ()
    labels: str = "runs/labels.sqlite"
    labeller: str = "me"
    size: int = 128  # less hurts the codes of photographs: their error grows by half from 96 to 64
    bad_files: str = "refuse"
    codes: str = AUTO
    seconds: float = 60
    prepared: str | None = None

    @property
    def cache(self) -> Path:
        """A folder for what was read and coded, hidden, since the photos may lie there, too."""
        labels = Path(self.labels).expanduser()
        return labels.with_name(f".{labels.name}.images")

    def load(self) -> ImageSet:
        """The images. Raises ValueError if there are none."""
        if self.images in DATASETS:
            return load(self.images)
        folder = Path(self.images).expanduser()
        if not folder.is_dir():
            raise ValueError(f"images must be a folder or one of {', '.join(DATASETS)}, got {self.images!r}")
        labels = "none" if self.classes else "folders"
        return from_folder(folder, self.size, labels=labels, bad_files=self.bad_files, cache=self.cache)

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

    def coded(self, images: ImageSet) -> dict[str, torch.Tensor]:
        """Name and codes (N, L) that do not come from an autoencoder; {} for "vae".

        Those of a network are kept, and computed again if that file is not of these images.
        """
        source = self.codes if self.codes != AUTO else PHOTOS if images.image_shape[0] == 3 else OWN
        if source == OWN:
            return {}
        if Path(source).suffix in CODES_FILES:
            return {Path(source).stem: load_codes(Path(source).expanduser(), images)}
        kept = self.cache / f"{source.replace('/', '-')}-{self.size}.npz"
        with suppress(FileNotFoundError, LalibError):
            return {source: load_codes(kept, images)}
        try:
            codes = encode(PretrainedEncoder(source), images)
        except LalibError as error:
            raise LalibError(f"{error}. CODES=vae, or a file of codes, does without this network") from error
        save_codes(kept, codes, images)
        return {source: codes}

    def tell(self, environment: MutableMapping[str, str]) -> None:
        """Leave these settings for kernels that are started in this environment."""
        environment[VARIABLE] = json.dumps(asdict(self))


def prepare(settings: Settings, folder: Path) -> Settings:
    """Check images and labels, and make what the map needs, in `folder`, with a progress bar: the settings that say so.

    That is a UMAP view of the codes, or the autoencoder. It trains until settings.seconds have passed, one epoch at
    least and EPOCHS at most. Ctrl-C ends it. Raises ValueError and LalibError for settings that lead nowhere.
    """
    images = settings.load()
    settings.store(images)
    for codes in (coded := settings.coded(images)).values():
        save_codes(folder / VIEW, project(codes), images)
    if not coded:
        vae = VAE(images.image_shape, latent_dim=2, seed=0)
        if fit(vae, images, epochs=EPOCHS, seconds=settings.seconds, seed=0).interrupted:
            raise KeyboardInterrupt
        save(vae, folder / MODEL)
    return replace(settings, prepared=str(folder))


def page() -> Workbench:
    """The widgets for the settings in the environment, else the defaults. If nothing is prepared, there is PCA only."""
    settings = Settings(**json.loads(os.environ.get(VARIABLE, "{}")))
    with warnings.catch_warnings(action="ignore"):  # of files left out `prepare` has told
        images = settings.load()
    codes, views, model = {}, {}, None
    if settings.prepared is not None:
        codes = settings.coded(images)
        views = {name: load_codes(Path(settings.prepared, VIEW), images) for name in codes}
        if not codes:
            model = load_model(Path(settings.prepared, MODEL))
            codes = {"VAE": encode(model, images)}
    codes.setdefault("PCA", project(pixel_pca(2, images)[0], "pca"))  # a file of codes may be called so
    return Workbench(images, codes, settings.store(images), model, views=views)
