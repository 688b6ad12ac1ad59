"""Where the pixels of image files go while they are read: memory, or a cache, a memory map beside a list of its rows.

A cache is a folder, which may serve several folders of images and several sizes: of each it holds the map, every image
a row, and the list (JSON): of each file its size and times of change, what its header said, what the image is known by,
and its row. A map that somebody may look at is never changed: another one takes its place.
"""

import contextlib
import json
import math
import os
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import PIL
import torch
from filelock import FileLock

from lalib.data import decoding
from lalib.data.checks import LalibError
from lalib.data.door import as_tensor
from lalib.data.files import digest, file_digest, written_whole

EVERY = 10  # seconds of reading that a kill may cost
Known = tuple[str, ...]  # the hash of an image, then those that earlier versions of lalib gave it


def stamp_of(file: Path) -> list[int]:
    """What changes if a file does: its size, the times of change of what it holds and of what is said of it."""
    about = file.stat()
    return [about.st_size, about.st_mtime_ns, about.st_ctime_ns]


class Memory:
    """Rows of pixels in memory, in the order in which they come; the header and the pixels of no file are known yet."""

    def header(self, name: str, stamp: list[int]) -> tuple | None:
        """What read_header said of the file, if it has not changed."""
        return None

    def expect(self, names: Collection[str], shape: tuple[int, ...], span: tuple | None) -> Collection[str]:
        """Those of the files that are to come, all in this order, of this shape (C, H, W) and span of deep pixels."""
        self.rows, self.known = torch.empty((len(names), *shape), dtype=torch.uint8), {}
        return names

    def find(self, name: str) -> tuple[torch.Tensor | np.ndarray, Known] | None:
        """The pixels (C, H, W) and hashes of a file, if it has not changed."""
        return None

    def keep(self, name: str, stamp: list[int], header: tuple, pixels: torch.Tensor, known: Known) -> None:
        """Take the next row."""
        self.rows[len(self.known)] = pixels
        self.known[name] = known

    def images(self) -> torch.Tensor:
        """All rows, (N, C, H, W) uint8."""
        return self.rows[: len(self.known)]


class Cache(Memory):
    """Memory that lasts: `images` is a map. Made by `opened`, inside whose block it is used."""

    def __init__(self, path: Path):
        self.path, self.code = path, [file_digest(decoding.__file__), PIL.__version__]  # which decode
        self.map, self.maps, self.files = None, {}, {}  # files: name -> [stamp, header, known, its map, row]
        with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError):  # else it is half a list, or none
            found = json.loads(path.read_bytes())
            self.files = dict(found["files"]) if found["code"] == self.code else {}

    def header(self, name: str, stamp: list[int]) -> tuple | None:
        if self.files.get(name, [None])[0] != stamp:
            self.files.pop(name, None)
            return None
        size, kind, span = self.files[name][1]
        return tuple(size), kind, span and tuple(span)

    def expect(self, names: Collection[str], shape: tuple[int, ...], span: tuple | None) -> Collection[str]:
        self.shape, self.known = shape, {}
        self.form = f"{self.path.stem}-{digest(repr((shape, span)))[:8]}"
        for name in {row[3] for row in self.files.values()}:
            file = self.path.with_name(name)
            rows = name.startswith(self.form) and file.is_file() and file.stat().st_size // math.prod(shape)
            if rows:
                self.maps[name] = np.memmap(file, np.uint8, "r", shape=(rows, *shape))
        rows = [self.files[name][3:] for name in names if self.find(name)]
        self.base = rows[0][0] if rows else None  # the map whose first rows may be what is wanted
        if rows != [[self.base, i] for i in range(len(names))]:
            return names
        self.known = {name: self.files[name][2] for name in names}
        return []

    def find(self, name: str) -> tuple[torch.Tensor | np.ndarray, Known] | None:
        *_, known, place, row = self.files.get(name, [None, None, 0])
        return (self.maps[place][row], known) if row < len(self.maps.get(place, ())) else None

    def keep(self, name: str, stamp: list[int], header: tuple, pixels: torch.Tensor, known: Known) -> None:
        row = len(self.known)
        there = self.map is None and self.find(name) and self.files[name][3:] == [self.base, row]
        if self.map is None and not there:  # from here on another map is needed
            self.map = self.path.with_name(f"{self.form}-{uuid.uuid4().hex[:8]}.map")
            self.out, self.due = open(self.map, "wb"), time.monotonic() + EVERY  # noqa: SIM115
            if row:
                self.out.write(self.maps[self.base][:row])
                for i, before in enumerate(self.known):
                    self.files[before][3:] = self.map.name, i
        if not there:
            self.out.write(np.ascontiguousarray(pixels))
            self.files[name] = [stamp, header, known, self.map.name, row]
            if time.monotonic() > self.due:
                self.save()
        self.known[name] = known

    def save(self) -> None:
        """Write the list, after all pixels of which it speaks."""
        if self.map is not None:
            started = time.monotonic()
            self.out.flush()
            os.fsync(self.out.fileno())
            with written_whole(self.path) as path:
                path.write_text(json.dumps({"code": self.code, "files": self.files}))
            self.due = started + EVERY * max(1, time.monotonic() - started)

    def close(self, whole: bool) -> None:
        """End the map that is being written, if there is one, and unless it is whole remove it."""
        if self.map is not None:
            with contextlib.suppress(OSError):  # of what could not be written
                self.out.close()
            if not whole:
                self.map.unlink()

    def images(self) -> torch.Tensor:
        if self.map is not None:
            self.files = {name: self.files[name] for name in self.known}
            self.save()
            kept = {self.path.name, self.path.with_suffix(".lock").name, self.map.name}
            for file in self.path.parent.glob(f"*{self.path.stem}*"):  # former maps, and what a kill has left
                if file.name not in kept:
                    file.unlink()
        file = self.map or self.path.with_name(self.base)
        shape = (len(self.known), *self.shape)
        return as_tensor(np.memmap(file, np.uint8, "c", shape=shape), "images")  # with "r" to write ends the process


@contextlib.contextmanager
def opened(folder: Path | None, source: Path, look: decoding.Look) -> Iterator[Memory]:
    """Memory, or if there is a `folder` the cache in it of images from `source` that are to look so.

    Other processes that want the same wait for the end of the block. Raises LalibError if the folder, or the disk,
    takes no more; what has been written of a map is gone then.
    """
    if folder is None:
        yield Memory()
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{digest(repr((str(source.resolve()), look)))[:16]}.json"
        with FileLock(path.with_suffix(".lock")):
            cache, whole = Cache(path), False
            try:
                yield cache
                whole = True
            except OSError:
                raise
            except BaseException:  # bad files, Ctrl-C: the others need not be read again
                cache.save()
                whole = True
                raise
            finally:
                cache.close(whole)
    except OSError as error:
        raise LalibError(f"the cache {folder} cannot be written: {error.strerror or error}") from error
