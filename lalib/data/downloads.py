"""Files of public data sets: fetched safely, checked on every use, parsed by the libraries that know them.

Addresses and checksums are those of torchvision and medmnist. Every reader returns (images, labels, class_names):
images uint8 (N, C, H, W), labels int64 (N,) or 0/1 (N, C).

[FashionMNIST] Xiao, Rasul, Vollgraf (2017), arXiv:1708.07747.
[MedMNIST] Yang et al. (2023), doi:10.1038/s41597-022-01721-8.
[SVHN] Netzer et al. (2011), Reading Digits in Natural Images with Unsupervised Feature Learning.
"""

import contextlib
import gzip
import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from lalib.data.checks import LalibError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 18  # bytes


def digest(path: Path, algorithm: str) -> str:
    """Hexadecimal checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fetch(name: str, folder: Path, urls: Sequence[str], md5: str, mirror: str | Path | None = None) -> Path:
    """The file `name` in `folder`, fetched from the first of `urls` that gives it whole, or from `mirror` alone.

    The bytes go to a temporary name beside the target and are renamed once their MD5 is right, so that neither a broken
    connection nor Ctrl-C leaves anything half-written. A file that is there already is checked, never overwritten.
    Raises LalibError if the file there is damaged, or if no source gives it: then the message says what to put where.
    """
    target = Path(folder) / name
    if target.exists():
        return _check_present(target, md5)
    sources = list(urls) if mirror is None else [_in_mirror(mirror, name)]
    reasons = []
    for source in sources:
        try:
            return _transfer(source, target, md5)
        except (OSError, http.client.HTTPException, LalibError) as error:
            reasons.append(f"  {source}: {str(error) or type(error).__name__}")
    raise LalibError(
        "\n".join([f"{name} could not be downloaded:", *reasons])
        + f"\nPut {name} (MD5 {md5}) into {target.parent}, or give mirror= a URL or a folder that has it."
    )


def _check_present(path: Path, md5: str) -> Path:
    came = digest(path, "md5")
    if came != md5:
        size = path.stat().st_size
        raise LalibError(
            f"{path} is damaged: its MD5 is {came} ({size:,} bytes), not {md5}. Delete it, and it is fetched again."
        )
    return path


def _in_mirror(mirror: str | Path, name: str) -> str | Path:
    if str(mirror).startswith(("http://", "https://")):
        return f"{str(mirror).rstrip('/')}/{name}"
    if not Path(mirror).is_dir():
        raise ValueError(f"mirror must be an http(s) URL or an existing folder, got {str(mirror)!r}")
    return Path(mirror) / name


def _transfer(source: str | Path, target: Path, md5: str) -> Path:
    """Copy `source` to `target` by way of a temporary name; LalibError if what comes is short or has another MD5."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _open(source) as (stream, total), _temporary(target) as part:
        size, came = _copy(stream, part, total, target.name)
        if total is not None and size != total:
            raise LalibError(f"broke off after {size:,} of {total:,} bytes")
        if came != md5:
            raise LalibError(f"sent {size:,} bytes with MD5 {came}, not {md5}")
        os.replace(part, target)
    return target


@contextlib.contextmanager
def _open(source: str | Path) -> Iterator[tuple]:
    """A readable stream and its length in bytes, or None where the server does not say."""
    if isinstance(source, Path):
        with open(source, "rb") as stream:
            yield stream, source.stat().st_size
    else:
        with urllib.request.urlopen(source, timeout=TIMEOUT) as stream:
            yield stream, stream.length


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """An unused name beside `target` that is gone after the block, whatever happens inside."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    try:
        os.chmod(name, 0o644)  # mkstemp makes files for one user only
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _copy(stream, part: Path, total: int | None, name: str) -> tuple[int, str]:
    """Write `stream` to `part` under a progress bar; returns the bytes written and their MD5."""
    from tqdm.auto import tqdm

    md5, size = hashlib.md5(usedforsecurity=False), 0
    with open(part, "wb") as out, tqdm(total=total, unit="B", unit_scale=True, desc=name) as bar:
        while block := stream.read(BLOCK):
            out.write(block)
            md5.update(block)
            size += len(block)
            bar.update(len(block))
    return size, md5.hexdigest()


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a library's parser raises on a damaged file into a LalibError that names it."""
    try:
        yield
    except LalibError:
        raise
    except Exception as error:  # they share no base class: zlib, zipfile, scipy.io and plain asserts have their own
        raise LalibError(f"{path} cannot be read: {str(error) or type(error).__name__}") from error


def read_npz(path: Path, keys: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file (all, or those named by `keys`), never unpickling anything; LalibError if damaged."""
    with _readable(path), open(path, "rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise LalibError(f"{path} cannot be read: it is a single array, not an .npz archive")
        return {key: archive[key] for key in (archive.files if keys is None else keys)}


def _read_idx(path: Path, parse) -> torch.Tensor:
    """torchvision's parser takes unpacked files only, so the .gz is unpacked for the moment of reading."""
    with _readable(path), tempfile.TemporaryDirectory() as folder:
        plain = os.path.join(folder, "idx")
        with gzip.open(path) as packed, open(plain, "wb") as out:
            shutil.copyfileobj(packed, out)
        return parse(plain)


def read_idx_pair(name: str, split: str, root: Path, mirror: str | Path | None) -> tuple:
    """The set "mnist" or "fashion-mnist" in the IDX format, laid out under `root` as torchvision lays it out."""
    from torchvision import datasets
    from torchvision.datasets.mnist import read_image_file, read_label_file

    known = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[name]
    prefix = {"train": "train-", "test": "t10k-"}[split]
    images, labels = (
        _idx_file(known, file, md5, root, mirror) for file, md5 in known.resources if file.startswith(prefix)
    )
    names = known.classes if name == "fashion-mnist" else map(str, range(10))
    return (_read_idx(images, read_image_file)[:, None], _read_idx(labels, read_label_file), tuple(names))


def _idx_file(known: type, file: str, md5: str, root: Path, mirror: str | Path | None) -> Path:
    folder = Path(root) / known.__name__ / "raw"
    debian = DEBIAN_FASHION_MNIST / file
    # Debian packs the files anew, so upstream's MD5 does not apply; gzip's own CRC is checked on reading.
    if known.__name__ == "FashionMNIST" and mirror is None and debian.exists() and not (folder / file).exists():
        return debian
    return fetch(file, folder, [urllib.parse.urljoin(base, file) for base in known.mirrors], md5, mirror)


def read_svhn(split: str, root: Path, mirror: str | Path | None) -> tuple:
    """[SVHN], cropped 32x32 digits in colour: split "train", "test" or "extra"."""
    from torchvision.datasets import SVHN

    url, file, md5 = SVHN.split_list[split]
    path = fetch(file, Path(root) / "SVHN", [url], md5, mirror)
    with _readable(path):
        svhn = SVHN(path.parent, split=split)
    return (
        torch.from_numpy(np.ascontiguousarray(svhn.data)),
        torch.from_numpy(svhn.labels),
        tuple(map(str, range(10))),
    )


def read_medmnist(name: str, split: str, root: Path, mirror: str | Path | None) -> tuple:
    """A flat set of [MedMNIST], 28x28: split "train", "val" or "test"; labels (N, C) where it is multi-label."""
    from medmnist import INFO

    info = INFO[name]
    path = fetch(f"{name}.npz", Path(root) / "MedMNIST", [info["url"]], info["MD5"], mirror)
    images, labels = read_npz(path, [f"{split}_images", f"{split}_labels"]).values()
    images = torch.from_numpy(images)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    labels = labels if info["task"].startswith("multi-label") else labels[:, 0]
    return (images, torch.from_numpy(labels.astype(np.int64)), tuple(info["label"].values()))
