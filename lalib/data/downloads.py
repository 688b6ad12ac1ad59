"""Files of public data sets: fetched safely, checked on every use, parsed by the libraries that know them.

Addresses and checksums are those of torchvision and medmnist. Every reader returns the arguments of from_arrays.

[MedMNIST] Yang et al. (2023), doi:10.1038/s41597-022-01721-8.
[SVHN] Netzer et al. (2011), Reading Digits in Natural Images with Unsupervised Feature Learning.
"""

import contextlib
import gzip
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lalib.data.checks import LalibError
from lalib.data.files import file_digest, written_whole

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 18  # bytes


def fetch(name: str, folder: Path, urls: Sequence[str], md5: str, mirror: str | Path | None = None) -> Path:
    """The file `name` in `folder`, fetched from the first of `urls` that gives it whole, or from `mirror` alone.

    It gets its name once its MD5 is right, so neither a broken connection nor Ctrl-C leaves it half-written. A file
    that is there already is checked, never overwritten.
    Raises LalibError if the file there is damaged, or if no source gives it: then the message says what to put where.
    """
    target = Path(folder) / name
    if target.exists():
        check_digest(target, "MD5", md5, "Delete it, and it is fetched again.")
        return target
    if mirror is not None:
        at_url = str(mirror).startswith(("http://", "https://"))
        if not at_url and not Path(mirror).is_dir():
            raise ValueError(f"mirror must be an http(s) URL or an existing folder, got {str(mirror)!r}")
        urls = [f"{str(mirror).rstrip('/')}/{name}" if at_url else Path(mirror) / name]
    reasons = []
    for source in urls:
        try:
            return _transfer(source, target, md5)
        except (OSError, ValueError, LalibError) as error:  # what requests raises is an OSError
            reasons.append(f"  {source}: {_reason(error)}")
    remedy = f"Put {name} (MD5 {md5}) into {target.parent}, or give mirror= a URL or a folder that has it."
    raise LalibError("\n".join([f"{name} could not be downloaded:", *reasons, remedy]))


def check_digest(path: Path, algorithm: str, wanted: str, remedy: str) -> None:
    """LalibError, with the remedy, unless the file's checksum ("MD5" or "SHA-256") is the wanted one."""
    if (came := file_digest(path, algorithm.lower().replace("-", ""))) != wanted:
        what = f"{path} is damaged: its {algorithm} is {came} ({path.stat().st_size:,} bytes), not {wanted}"
        raise LalibError(f"{what}. {remedy}")


def _transfer(source: str | Path, target: Path, md5: str) -> Path:
    """Copy `source` to `target` under a progress bar; LalibError if what comes has another MD5."""
    import pooch
    from tqdm.auto import tqdm

    target.parent.mkdir(parents=True, exist_ok=True)
    total = source.stat().st_size if isinstance(source, Path) else 1  # pooch takes 0 for no bar, and sets what is right
    with written_whole(target) as part, tqdm(total=total, unit="B", unit_scale=True, desc=target.name) as bar:
        if isinstance(source, Path):
            with open(source, "rb") as stream, open(part, "wb") as out:
                while block := stream.read(BLOCK):
                    bar.update(out.write(block))
        else:
            get = pooch.HTTPDownloader(bar, chunk_size=BLOCK, timeout=TIMEOUT, hooks={"response": _as_it_lies_there})
            get(source, str(part), None)
        if (came := file_digest(part, "md5")) != md5:
            raise LalibError(f"sent {part.stat().st_size:,} bytes with MD5 {came}, not {md5}")
    return target


def _as_it_lies_there(response, **_) -> None:
    """Some servers call a .gz file a text in gzip encoding: it stays packed. A short answer is an error."""
    response.raw.headers.pop("Content-Encoding", None)
    response.raw.enforce_content_length = True  # urllib3's default since its version 2


def _reason(error: Exception) -> str:
    """The cause at the bottom of an error of requests, in one line."""
    from urllib3.exceptions import IncompleteRead

    if getattr(error, "response", None) is not None:
        return f"HTTP Error {error.response.status_code}: {error.response.reason}"
    while inner := [part for part in (getattr(error, "reason", None), *error.args) if isinstance(part, Exception)]:
        error = inner[0]
    if isinstance(error, IncompleteRead):
        return f"broke off after {error.partial:,} of {error.partial + error.expected:,} bytes"
    return str(error) or type(error).__name__


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a library's parser raises on a damaged file into a LalibError that names it."""
    try:
        yield
    except Exception as error:  # they share no base class: zlib, zipfile, scipy.io and plain asserts have their own
        raise LalibError(f"{path} cannot be read: {str(error) or type(error).__name__}") from error


def read_npz(path: Path, keys: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file (all, or those named by `keys`), never unpickling anything; LalibError if damaged."""
    with _readable(path), open(path, "rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array, not an .npz archive")
        return {key: archive[key] for key in (archive.files if keys is None else keys)}


def read_idx_pair(name: str, split: str, root: Path, mirror: str | Path | None) -> tuple:
    """The set "mnist" or "fashion-mnist" in the IDX format, laid out under `root` as torchvision lays it out."""
    from torchvision import datasets
    from torchvision.datasets.mnist import read_image_file, read_label_file

    known = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    folder = Path(root) / known.__name__ / "raw"
    files = [entry for entry in known.resources if entry[0].startswith("train" if split == "train" else "t10k")]
    arrays = []
    for (file, md5), parse in zip(files, (read_image_file, read_label_file), strict=True):
        # Debian packs the files anew, so upstream's MD5 does not apply; gzip's own CRC is checked on reading.
        path = DEBIAN_FASHION_MNIST / file
        if name != "fashion-mnist" or mirror is not None or not path.exists() or (folder / file).exists():
            path = fetch(file, folder, [urllib.parse.urljoin(base, file) for base in known.mirrors], md5, mirror)
        with _readable(path), tempfile.TemporaryDirectory() as unpacked:  # torchvision's parsers take no .gz
            idx = Path(unpacked, "idx")
            idx.write_bytes(gzip.decompress(path.read_bytes()))
            arrays.append(parse(idx))
    return *arrays, known.classes if name == "fashion-mnist" else map(str, range(10))


def read_svhn(name: str, split: str, root: Path, mirror: str | Path | None) -> tuple:
    """[SVHN], cropped 32x32 digits in colour: split "train", "test" or "extra"."""
    from torchvision.datasets import SVHN

    url, file, md5 = SVHN.split_list[split]
    path = fetch(file, Path(root) / "SVHN", [url], md5, mirror)
    with _readable(path):
        svhn = SVHN(path.parent, split=split)
    return np.ascontiguousarray(svhn.data), svhn.labels, map(str, range(10))


def read_medmnist(name: str, split: str, root: Path, mirror: str | Path | None) -> tuple:
    """A flat set of [MedMNIST], 28x28: split "train", "val" or "test"; labels (N, C) where it is multi-label."""
    from medmnist import INFO

    info = INFO[name]
    path = fetch(f"{name}.npz", Path(root) / "MedMNIST", [info["url"]], info["MD5"], mirror)
    images, labels = read_npz(path, [f"{split}_images", f"{split}_labels"]).values()
    return images, labels if info["task"].startswith("multi-label") else labels[:, 0], info["label"].values()
