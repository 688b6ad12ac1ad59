"""What the page shows: Settings say which images and which file of labels; `prepare` makes codes and a map of them in a
process of its own, and `page` puts the widgets together, which follow that as it gets on."""

import asyncio
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from lalib.codes import encode, load_codes, near_duplicates, project, save_codes
from lalib.codes.kept import CODES_FILES
from lalib.codes.projection import flat_pixels
from lalib.data import DATASETS, ImageSet, LalibError, from_folder, load
from lalib.data.files import tensor_digest, written_whole
from lalib.data.folders import image_files
from lalib.labelling import LabelStore
from lalib.models import VAE, PretrainedEncoder
from lalib.training import fit, load_model, save
from lalib.widgets import Workbench
from lalib.widgets.parts import Sentence, counted

VARIABLE = "LALIB_APP"  # the environment variable that carries the settings to the page's kernel
EPOCHS = 500  # more do not help the map of a few images
AUTO, OWN, PHOTOS = "auto", "vae", "efficientnet-lite0"  # whose codes
SIDE = 16  # pixels to which images are thinned for the first map
DIMS = 32  # coordinates of codes that are not a network's
BLOCK = 256  # images that are coded between two words of how far it is
EVERY = 0.5  # seconds between two looks at how far it is
OPTIONS = r"\b(bad_files|codes|classes|size)=['\"]?(\w*)['\"]?"  # in messages that are meant for Python


@dataclass(frozen=True)
class Settings:
    """images: a data set's name or a folder; classes: to label with, by default those of the images, else of the file;
    if they are given, the folder's sub-folders are mere folders.

    labels: the file that takes the answers, beside which a hidden folder .LABELS.images keeps what was read and coded;
    labeller: who gives them; size, bad_files: of a folder, as in from_folder.
    codes, from which strategies choose: "vae", of one that is trained for about so many `seconds`; the name of a
    network, as PretrainedEncoder takes it; a file that load_codes reads; or "auto", which is efficientnet-lite0 for
    images in colour and else "vae". rename: "old:new", a class of the file that has another name now.
    """

    images: str = "fashion-mnist-mini"
    classes: Sequence[str] = ()
    labels: str = "runs/labels.sqlite"
    labeller: str = "me"
    size: int = 128  # less hurts the codes of photographs: their error grows by half from 96 to 64
    bad_files: str = "refuse"
    codes: str = AUTO
    seconds: float = 60
    rename: str = ""

    @classmethod
    def told(cls) -> "Settings":
        """Those in the environment, else the defaults."""
        return cls(**json.loads(os.environ.get(VARIABLE, "{}")))

    def tell(self, environment: MutableMapping[str, str]) -> None:
        """Leave these settings for processes that are started in this environment."""
        environment[VARIABLE] = json.dumps(asdict(self))

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

    def files(self) -> set[str]:
        """The names of the files in the folder that are called images; none of a data set."""
        return set() if self.images in DATASETS else {*image_files(Path(self.images).expanduser())[0]}

    def changed_since(self, seen: set[str]) -> str:
        """A sentence on files that have come or gone since `seen`, or ""."""
        try:
            now = self.files()
        except ValueError:
            return f"The folder {self.images} is gone. The page goes on with what it has read."
        if now == seen:
            return ""
        come, gone = (counted(len(some), "file") for some in (now - seen, seen - now))
        return f"In the folder, {come} came and {gone} went since the page was opened: load it again to see that."

    def store(self, images: ImageSet) -> LabelStore:
        """The file of labels, made if it is not there. Raises LalibError if it is not one.

        New classes join those of the file, which keeps all that it has.
        """
        path = Path(self.labels).expanduser()
        classes = self.classes or images.class_names or None
        if classes is None and not path.exists():
            raise LalibError("the images lie in no class folders: say which classes there are, such as cat,dog")
        path.parent.mkdir(parents=True, exist_ok=True)
        store = LabelStore(path, None if path.exists() and path.stat().st_size else classes, labeller=self.labeller)
        old, _, new = self.rename.partition(":")
        if old in store.class_names:  # else it was renamed at an earlier start
            store.rename_class(old, new)
        for name in classes or ():
            if name not in store.class_names:
                store.add_class(name)
        store.adopt(images)  # what an earlier version has written
        return store

    def source(self, images: ImageSet) -> str:
        """Whose codes: "vae", a network's name, or a file."""
        return self.codes if self.codes != AUTO else PHOTOS if images.image_shape[0] == 3 else OWN

    def kept(self, source: str) -> Path:
        """The file that has the codes: the user's own, or one beside the labels; their model has the same name."""
        if Path(source).suffix in CODES_FILES:
            return Path(source).expanduser()
        trained = f"-{self.seconds:g}s" if source == OWN else ""
        return self.cache / f"{source.replace('/', '-')}-{self.size}{trained}.npz"

    def coded(self, images: ImageSet, tell: Callable[[str, int, int], None] = lambda *_: None) -> torch.Tensor:
        """The codes (N, L), made and kept if they are not there, or of other images. tell(words, done, total): how far
        that is."""
        source, count = self.source(images), len(images)
        file = self.kept(source)
        if file.suffix in CODES_FILES and file.parent != self.cache:
            return load_codes(file, images)
        with suppress(FileNotFoundError, LalibError):
            return load_codes(file, images)
        if source == OWN:
            vae, start = VAE(images.image_shape, latent_dim=DIMS, seed=0), time.monotonic()
            words, most = "Learning a map of the images.", max(1, round(self.seconds))
            seen = lambda *_: tell(words, min(int(time.monotonic() - start), most - 1), most)  # noqa: E731
            if fit(vae, images, epochs=EPOCHS, seconds=self.seconds, on_epoch=seen, seed=0).interrupted:
                raise KeyboardInterrupt
            codes = encode(vae, images)
            save(vae, file.with_suffix(".safetensors"))
        else:
            net, parts = self.network(source), []
            for first in range(0, count, BLOCK):
                tell(f"{source} looks at the images.", first, count)
                parts.append(encode(net, images.subset(range(first, min(first + BLOCK, count))), progress=False))
            codes = torch.cat(parts)
        save_codes(file, codes, images)
        return codes

    def network(self, source: str) -> PretrainedEncoder:
        """The network of this name. Raises LalibError if its weights cannot be had."""
        try:
            return PretrainedEncoder(source)
        except LalibError as error:
            raise LalibError(f"{error}. CODES=vae, or a file of codes, does without this network") from error

    def made_of(self, codes: torch.Tensor, kind: str) -> Path:
        """Where the "map" or the "copies" of these codes are kept."""
        return self.cache / f"{kind}-{tensor_digest({'codes': codes})[:16]}.npz"

    def check(self) -> ImageSet:
        """The images, read for the first time if need be; raises what is wrong with settings that lead nowhere."""
        images = self.load()
        if (different := len(set(images.hashes))) < 2:
            raise ValueError(f"there must be 2 different images at least, got {different}")
        self.store(images)
        file = self.kept(source := self.source(images))
        if file.parent != self.cache:
            load_codes(file, images)
        elif source != OWN and not file.exists():
            self.network(source)
        return images

    # How far `prepare` is, in a file that pages read

    def say(self, words: str, done: int = 0, total: int = 1, **more) -> None:
        """Leave a word for the pages."""
        self.cache.mkdir(parents=True, exist_ok=True)
        with written_whole(self.cache / "progress.json") as temporary:
            temporary.write_text(json.dumps({"words": words, "done": done, "total": total} | more))

    def said(self) -> dict:
        """The last word that was left; {} if there is none."""
        with suppress(OSError, ValueError):
            return json.loads((self.cache / "progress.json").read_text())
        return {}


def plain(error: BaseException | str) -> str:
    """A message as a person who uses `make app` reads it: BAD_FILES=skip instead of bad_files='skip'."""
    said = str(error).replace("labels='none'", "CLASSES=cat,dog")  # if they are given, sub-folders are none
    return re.sub(OPTIONS, lambda found: f"{found[1].upper()}={found[2]}", said)


def prepare(settings: Settings | None = None) -> None:
    """Make what the page's rounds and its map need, and keep it beside the labels; pages are told how far it is."""
    settings = settings or Settings.told()
    try:
        with warnings.catch_warnings(action="ignore"):  # of files left out the command line has told
            images = settings.load()
        print(f"Codes of the images: {settings.source(images)} ...", flush=True)
        codes = settings.coded(images, settings.say)
        settings.say("Near copies are looked for.", coded=True)
        if not (file := settings.made_of(codes, "copies")).exists():
            group, near = near_duplicates(codes)
            save_codes(file, torch.stack([group, near.clamp(max=1)], dim=1), images)  # without a copy it is infinite
        settings.say("A better map is made (UMAP).", coded=True)
        if codes.shape[1] > 2 and not (file := settings.made_of(codes, "map")).exists():
            save_codes(file, project(codes), images)
        settings.say("", 1, 1, coded=True, mapped=True)
        print("The page has all it needs.", flush=True)
    except (LalibError, ValueError, TypeError, OSError) as error:
        settings.say(f"The codes of the images could not be made: {plain(error)}.", 1, 1, failed=True)
        raise


def page(settings: Settings | None = None) -> Workbench:
    """The widgets for the settings in the environment: at once with principal components of the pixels, then, as soon
    as `prepare` has made them, with better codes and a better map."""
    settings = settings or Settings.told()
    with warnings.catch_warnings(action="ignore"):
        images = settings.load()
    step = max(1, min(images.image_shape[1:]) // SIDE)
    flat = flat_pixels(images.images[:, :, ::step, ::step])
    flat -= flat.mean(dim=0)
    axes = torch.linalg.eigh(flat.T @ flat).eigenvectors.flip(1)[:, :DIMS]  # scikit-learn takes seconds to import
    pixels = {"PCA": flat @ axes}
    bench = Workbench(images, pixels, settings.store(images), views={"PCA": pixels["PCA"][:, :2]})
    seen = settings.files()
    bench.check = lambda: settings.changed_since(seen)
    bench.wait("The codes are being made from which images are chosen.")
    steps = follow(settings, bench, pixels)
    for _ in steps:
        with suppress(RuntimeError):  # no page
            asyncio.get_running_loop().create_task(_go_on(steps))
        break
    return bench


def shown() -> Workbench | Sentence:
    """The `page`, or in words why there is none: the folder may have changed since the command line read it."""
    try:
        return page()
    except (LalibError, ValueError, TypeError, OSError) as error:
        return Sentence(value=f"The page cannot be shown: {plain(error)}.")


def follow(settings: Settings, bench: Workbench, pixels: dict[str, torch.Tensor]) -> Iterator[None]:
    """Take into the page what `prepare` has made, and show how far the rest is; it yields until all is there."""
    images, codes = bench.images, None
    source = settings.source(images)
    while True:
        said = settings.said()
        with suppress(LalibError, FileNotFoundError):  # what was kept is of other images: it is made anew
            if said.get("coded") and codes is None:
                file = settings.kept(source)
                codes = load_codes(file, images)
                model = load_model(file.with_suffix(".safetensors")) if source == OWN else None
                network = partial(settings.network, source) if file.parent == settings.cache and not model else None
                name = "VAE" if model else file.stem if network is None else source
                bench.use({name: codes} | pixels, model, encoder=network)
            if said.get("mapped") and codes is not None:
                group, near = load_codes(settings.made_of(codes, "copies"), images).T
                bench.copies = group.long(), near
                if codes.shape[1] > 2:
                    bench.show_view(load_codes(settings.made_of(codes, "map"), images))
                return
        if said.get("failed"):
            bench.wait("", f"{said['words']} The page goes on with principal components of the pixels.")
            return
        if said:
            bench.progress(said["words"], said["done"], said["total"])
        yield


async def _go_on(steps):
    for _ in steps:
        await asyncio.sleep(EVERY)
