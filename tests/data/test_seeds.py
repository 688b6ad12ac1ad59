"""Child seeds: reproducible, independent, and without a trace on torch's global state."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lalib.data.seeds import child_seed, generator, seeded


def test_child_seed_is_the_same_on_every_machine():
    """Written down once: a change would change every published result."""
    assert child_seed(0) == 5254295370254170289
    assert child_seed(0, "batches", 1) == 6392985063691280952


def test_children_differ_by_seed_by_name_and_by_order():
    children = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", 2), (0, 1, "a"), (0, "a1"), (0, "a", "1"), (1, 0)]
    assert len({child_seed(*child) for child in children}) == len(children)
    assert all(0 <= child_seed(*child) < 2**63 for child in children)


def test_generator_draws_what_its_child_seed_gives(device):
    seed = child_seed(3, "noise")
    expected = torch.rand(5, generator=torch.Generator(device).manual_seed(seed), device=device)
    assert torch.equal(torch.rand(5, generator=generator(3, "noise", device=device), device=device), expected)


def test_seeded_seeds_the_block_and_puts_the_global_state_back():
    before = torch.get_rng_state()
    with seeded(1, "weights"):
        first = torch.rand(3)
    with seeded(1, "weights"):
        assert torch.equal(torch.rand(3), first)
    with pytest.raises(KeyError), seeded(1, "weights"):
        raise KeyError(torch.rand(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_do_not_draw_from_each_others_generators():
    """A comparison may run in a thread while its reader trains a model, and Dask gives a worker several."""

    def drawn(seed):
        with seeded(seed, "weights"):
            time.sleep(0.005)
            return float(torch.rand(()))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(drawn, range(16))) == [drawn(seed) for seed in range(16)]


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None, True])
def test_seed_must_be_a_whole_number_of_at_least_zero(seed):
    with pytest.raises((ValueError, TypeError), match="seed must be"):
        child_seed(seed, "weights")
