"""One seed per run and child generators by name.

A child depends on the seed and on its name alone, so that drawing more for one purpose (a strategy, say) never
changes what is drawn for another (the initial weights).
"""

import contextlib
import hashlib
import threading
from collections.abc import Iterator

import torch

from lalib.data.checks import check_int

ALONE = threading.RLock()  # the global generators are one for all threads of a process


def child_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for one purpose, e.g. child_seed(0, "batches", epoch): the same on every machine."""
    check_int("seed", seed, low=0)
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator seeded with child_seed(seed, *names)."""
    return torch.Generator(device=device).manual_seed(child_seed(seed, *names))


@contextlib.contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Seed torch's global generators inside the block and put their states back after it.

    For layers that take no generator (nn.Linear's initial weights, dropout). Threads wait for each other here, so that
    none draws from another's.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with ALONE, torch.random.fork_rng(devices=devices):
        # not torch.manual_seed, which without CUDA keeps a stack trace of every call, at three times the cost
        for random in (torch.default_generator, *(torch.cuda.default_generators[device] for device in devices)):
            random.manual_seed(child_seed(seed, *names))
        yield
