"""Image files in a folder: which are read, in what they must agree, their classes."""

import os
import unicodedata
import warnings
from collections import Counter, deque
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from PIL import UnidentifiedImageError

from lalib.data.cache import Memory, opened, stamp_of
from lalib.data.checks import listed
from lalib.data.decoding import FAULT, Look, extensions, formats, read_header, read_image
from lalib.data.door import check_name

UNREADABLE = "cannot be read"
MERE = "labels='none' takes folders as mere folders"
AHEAD = 4  # images that wait, per thread
BIG = 500  # files from which on a progress bar is worth its line


def read_folder(
    folder: Path, look: Look, classes: bool, class_names: tuple[str, ...] | None, skip: bool, cache: Path | None
) -> tuple:
    """(images (N, C, H, W) uint8, labels (N,) or None, class_names, file names relative to `folder`, identities).

    Files are sorted. classes: whether sub-folders are classes. identities: of each file its hash, then former ones.
    cache: the folder of the map that the images then are.
    """
    if cache is not None and _is_seen(cache.resolve(), folder.resolve()):
        raise ValueError(f"cache must be a folder outside {folder}, or a hidden one in it, got {str(cache)!r}")
    files, passed = image_files(folder)
    if passed:
        heif = "" if "HEIF" in formats() else " (HEIC needs pillow-heif, in the extra photos)"
        said = (
            f"{len(passed)} of {len(files) + len(passed)} files in {folder} are passed over, since they are not named"
        )
        warnings.warn(f"{said} as images that are read{heif}: {listed(map(_shown, passed))}", stacklevel=3)
    if classes and class_names is not None and _foreign(files, class_names):
        warnings.warn(f"no folder in {folder} has the name of a class: they are not taken as classes", stacklevel=3)
        classes = False
    if classes:
        _classes(files, class_names)  # what names decide is decided before the longest part
    with opened(cache, folder, look) as memory:
        images, known, kept = _read(files, look, skip, memory)
    own = {known[name][0] for name in kept}  # a former hash that is another file's own says nothing
    identities = tuple((known[name][0], *(old for old in known[name][1:] if old not in own)) for name in kept)
    labels, names = _classes(kept, class_names) if classes else (None, class_names or ())
    return images, labels, names, tuple(kept), identities


def _is_seen(place: Path, folder: Path) -> bool:
    """Whether a place is the folder or in it, and not hidden."""
    return place.is_relative_to(folder) and not any(part[0] == "." for part in place.relative_to(folder).parts)


def _read(files: dict[str, Path], look: Look, skip: bool, memory: Memory) -> tuple:
    """Images (N, C, H, W), the hashes of each by its name, and the files that these are."""
    stamps, headers = {}, {}

    def header(name):
        stamps[name] = stamp_of(files[name])
        return memory.header(name, stamps[name]) or read_header(files[name], look)

    def pixels(name):
        found = memory.find(name) or read_image(files[name], grey, size, look, span)
        if stamp_of(files[name]) != stamps[name]:
            raise ValueError("it has changed while it was read")
        return found

    bad = _each(header, files, "headers", headers.__setitem__)
    left, unlike = _without(files, bad), []
    for form in ("{0[0]} x {0[1]} pixels", "{1}") if left and look.size is None else ():  # what must be the same in all
        values = {name: form.format(*headers[name]) for name in left}
        usual = Counter(values.values()).most_common(1)[0][0]
        unlike.append(
            ({name: value for name, value in values.items() if value != usual}, f"are not {usual}, as most are")
        )
        if not skip:
            _settled(left, *unlike[-1], skip)
        left = _without(left, unlike[-1][0])
    grey = all(headers[name][1] == "grey" for name in left)
    size = look.size or (headers[next(iter(left))][0] if left else (0, 0))
    span = _span([headers[name][2] for name in left], look)
    wanted = memory.expect(left, (1 if grey else 3, *size), span)
    truncated = _each(
        pixels, wanted, "images", lambda name, found: memory.keep(name, stamps[name], headers[name], *found)
    )
    kept = _settled(files, dict(sorted((bad | truncated).items())), UNREADABLE, skip)
    for problem in unlike:
        kept = _settled(kept, *problem, skip)
    images = memory.images()
    if truncated and all(headers[name][1] == "grey" for name in kept):
        images = images[:, :1]  # as if the others, in colour, had never been there
    return images, memory.known, kept


def image_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """In a folder and below: the files that are called images, by name, and the names of others that are not hidden.

    Names are relative to the folder, and sorted. Raises ValueError for a folder that is closed or without images.
    """
    if not folder.is_dir():
        raise ValueError(f"path must be a folder, got {str(folder)!r}, which is none")
    known = extensions()
    files, closed = [], []
    for place, folders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        inside = place != str(folder)  # there, links are passed over
        folders[:] = [name for name in folders if name[0] != "." and not (inside and Path(place, name).is_symlink())]
        files += [Path(place, name) for name in names if name[0] != "."]
    if closed:
        raise ValueError(f"{closed[0].filename} cannot be read ({closed[0].strerror})") from closed[0]
    files = {file.relative_to(folder).as_posix(): file for file in sorted(files)}
    passed = [name for name, file in files.items() if file.suffix.lower() not in known]
    if len(passed) == len(files):
        but = f", but {listed(map(_shown, passed))}" if passed else ""
        raise ValueError(f"{folder} holds no images (files ending in {', '.join(sorted(known))}){but}")
    return _without(files, passed), passed


def _each(function, names: Collection[str], what: str, keep) -> dict[str, str]:
    """keep(name, function(name)) for all names, in order under a progress bar: the reasons of failures, by name.

    As many threads as torch has call the function, a few names ahead; Pillow decodes without Python's lock.
    """
    from tqdm.auto import tqdm

    failed, ahead = {}, deque()

    def finish(name, result):
        try:
            value = result.result()
        except UnidentifiedImageError:
            failed[name] = "not an image"
        except FAULT as error:
            failed[name] = getattr(error, "strerror", None) or str(error) or type(error).__name__
        else:
            keep(name, value)

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        for name in tqdm(names, desc=what, unit="image", disable=len(names) < BIG):
            ahead.append((name, pool.submit(function, name)))
            if len(ahead) > AHEAD * threads:
                finish(*ahead.popleft())
        for each in ahead:
            finish(*each)
    return failed


def _span(spans: list[tuple[float, float] | None], look: Look) -> tuple[float, float] | None:
    """The range of deep pixels over the folder, which a warning names unless the user has given it."""
    deep = [span for span in spans if span is not None]
    if not deep or look.depth != "auto":
        return deep[0] if deep else None
    low, high = min(low for low, _ in deep), max(high for _, high in deep)
    said = f"{len(deep)} of {len(spans)} images have more than 8 bits: {low:.10g} becomes 0 and {high:.10g} becomes 255"
    warnings.warn(f"{said}; depth=(low, high) sets other bounds, or the same for several folders", stacklevel=5)
    return low, high


def _without(files: dict[str, Path], names: Collection[str]) -> dict[str, Path]:
    names = set(names)
    return {name: file for name, file in files.items() if name not in names}


def _shown(name: str) -> str:
    """A name on one line of text, as a message needs it."""
    return name if name.isprintable() else repr(name)[1:-1]


def _settled(files: dict[str, Path], bad: dict[str, str], what: str, skip: bool) -> dict[str, Path]:
    """The files without the bad ones (name: reason), of which it warns; unless `skip`, ValueError if there are any."""
    if not bad:
        return files
    named = listed(f"{_shown(name)} ({reason})" for name, reason in bad.items())
    said = f"{len(bad)} of {len(files)} images {what}: {named}"
    if not skip:
        resize = "" if what == UNREADABLE else "size= brings all to one size, and to RGB if any is in colour; "
        raise ValueError(f"{said}. {resize}bad_files='skip' leaves these out")
    if len(bad) == len(files):
        raise ValueError(f"{said}. None is left")
    warnings.warn(f"{said}. They are left out", stacklevel=5)
    return _without(files, bad)


def _foreign(names: Collection[str], class_names: tuple[str, ...]) -> bool:
    """Whether there are sub-folders, and none of them is called as a class."""
    folders = {unicodedata.normalize("NFC", name.split("/")[0]) for name in names if "/" in name}
    return bool(folders) and folders.isdisjoint(class_names)


def _classes(names, class_names) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """Labels (None if no image lies in a sub-folder) and class names, by the first sub-folder in each name."""
    loose = [name for name in names if "/" not in name]
    if len(loose) == len(names):
        return None, class_names or ()
    if loose:
        raise ValueError(
            f"{len(loose)} of {len(names)} images lie beside the class folders: {listed(map(_shown, loose))}. {MERE}"
        )
    folders = [name.split("/")[0] for name in names]
    named = {folder: check_name("the name of a class folder", folder) for folder in dict.fromkeys(folders)}
    name, count = Counter(named.values()).most_common(1)[0]
    if count > 1:
        raise ValueError(f"class folders must differ, got {name!r} twice, its accents written in two ways")
    known = tuple(sorted(named.values())) if class_names is None else class_names
    if foreign := [name for name in named.values() if name not in known]:
        raise ValueError(
            f"class folders must be among the class_names {listed(map(repr, known))}, got {foreign[0]!r}. {MERE}"
        )
    return torch.tensor([known.index(named[folder]) for folder in folders]), known
