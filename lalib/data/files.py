"""Files that are written whole or not at all, and the checksums by which files, tensors and texts are known."""

import contextlib
import hashlib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which takes its place if the block ends well and is removed if it does not."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """The checksum of a file's bytes, in hexadecimal digits; `algorithm` is one of hashlib's."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def digest(*parts: str | np.ndarray) -> str:
    """SHA-256, in hexadecimal digits, over texts (as UTF-8) and the bytes of arrays, one after the other."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part))
    return sha.hexdigest()


def tensor_digest(tensors: Mapping[str, torch.Tensor], text: str = "") -> str:
    """SHA-256 over `text` and the names, types, shapes and bytes of the tensors, in the order of their names."""
    parts = [text]
    for name, tensor in sorted(tensors.items()):
        parts.append(repr((name, str(tensor.dtype), tuple(tensor.shape))))
        parts.append(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest(*parts)
