"""Checksums: written down once, since run files and checkpoints are known by them."""

import hashlib

import numpy as np
import torch

import lalib as la
from lalib.data.files import digest, file_digest, tensor_digest


def test_digests_are_the_same_for_ever(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
    assert file_digest(tmp_path / "file", "md5") == "9a0364b9e99bb480dd25e1f0284c8555"
    assert digest("Käfer") == hashlib.sha256("Käfer".encode()).hexdigest()
    tensors = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.tensor(3), "c": torch.ones(2, dtype=torch.bfloat16)}
    expected = "995c2a95c0e7823caf2d84084f34802fc4c93f1e5983e5002fe301391a7fab85"
    assert tensor_digest(tensors, "text") == expected
    assert tensor_digest(dict(reversed(tensors.items())), "text") == expected


def test_images_are_known_by_the_same_digests_for_ever():
    images = la.from_arrays(np.arange(256, dtype=np.uint8).reshape(2, 1, 8, 16), [0, 1])
    assert images.hashes[0] == hashlib.sha256(b"(1, 8, 16)" + bytes(range(128))).hexdigest()
    labels = np.array([0, 1]).tobytes()
    content = b"(2, 1, 8, 16)" + bytes(range(256)) + b"(2,)" + labels
    assert images.fingerprint() == hashlib.sha256(content).hexdigest()
    assert la.from_arrays(images.images).fingerprint() == hashlib.sha256(content[:269] + b"None").hexdigest()
