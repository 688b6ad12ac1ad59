"""One seed per run and child generators by name: what one purpose draws does not change what another one draws."""

import contextlib
import threading
from collections.abc import Iterator

import torch

from lalib.data.checks import check_int
from lalib.data.door import plain
from lalib.data.files import digest

ALONE = threading.RLock()  # the global generators are one for all threads of a process


def child_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. child_seed(0, "batches", epoch): the same on every machine.

    Raises TypeError or ValueError for a seed that is no whole number of at least 0.
    """
    return int(digest(repr((check_int("seed", seed, low=0), *map(plain, names))))[:16], 16) >> 1


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator seeded with child_seed(seed, *names)."""
    return torch.Generator(device=device).manual_seed(child_seed(seed, *names))


@contextlib.contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Seed torch's global generators inside the block and put their states back after it.

    For layers that take no generator (nn.Linear's initial weights, dropout). Threads wait for each other.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with ALONE, torch.random.fork_rng(devices=devices):
        # not torch.manual_seed, which without CUDA keeps a stack trace of every call, at three times the cost
        for random in (torch.default_generator, *(torch.cuda.default_generators[device] for device in devices)):
            random.manual_seed(child_seed(seed, *names))
        yield
