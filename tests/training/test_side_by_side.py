"""Two fits in threads of one process train at the same time, each as if it were alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import lalib as la
from lalib.data.seeds import child_seed, generator
from lalib.models.networks import Dropout, seeded_dropout

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(100))


def _trained(digits, seed, on_epoch=None):
    model = la.CNNClassifier(SHAPE, 10, seed=seed)
    la.fit(model, digits, epochs=3, seed=seed, device="cpu", progress=False, on_epoch=on_epoch)
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_two_fits_overlap_and_give_what_each_gives_alone(digits, monkeypatch):
    """Within an epoch, not only between two: each waits in its first batch until the other is in one as well."""
    alone = [_trained(digits, seed) for seed in (1, 2)]
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    meeting, loss = threading.Barrier(2, timeout=60), la.CNNClassifier.loss

    def meet(self, batch, *, generator):
        if not hasattr(self, "met"):
            self.met = meeting.wait() >= 0
        return loss(self, batch, generator=generator)

    monkeypatch.setattr(la.CNNClassifier, "loss", meet)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: _trained(digits, seed, lambda *_: meeting.wait()), (1, 2)))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_masks_are_those_of_torch(p):
    """Bit for bit on the CPU, with the gradients, in both memory formats."""
    for shape, layout in (((7, 300), torch.contiguous_format), ((4, 3, 8, 8), torch.channels_last)):
        outcomes = []
        for layer in (Dropout(p), nn.Dropout(p)):
            x = torch.randn(shape, generator=generator(0)).contiguous(memory_format=layout).requires_grad_()
            own = isinstance(layer, Dropout)
            layer.generator = generator(1, "dropout") if own else None
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(child_seed(1, "dropout"))
                y = layer(x)
            (y * torch.arange(float(y.numel())).view(shape)).sum().backward()
            outcomes.append((y, x.grad))
            assert layer.eval()(x) is x or not own
        assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


class Foreign(la.CNNClassifier):
    """Draws from torch's global generator."""

    def loss(self, batch, *, generator):
        terms = super().loss(batch, generator=generator)
        return {**terms, "loss": terms["loss"] * (1 + torch.rand(()))}


def _with_torchs_dropout():
    model = la.CNNClassifier(SHAPE, 10)
    model.network[-2] = nn.Dropout(0.5)
    return model


@pytest.mark.parametrize("make", [lambda: Foreign(SHAPE, 10), _with_torchs_dropout], ids=["model", "layer"])
def test_what_is_not_lalibs_is_repeatable_too(make, digits):
    states, before = [], torch.get_rng_state()
    for _ in range(2):
        model = make()
        la.fit(model, digits, epochs=2, device="cpu", progress=False)
        states.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(3)
        before = torch.get_rng_state()
    assert torch.equal(*states)
    if not isinstance(model, Foreign):
        assert torch.equal(states[0], _trained_as_lalibs(digits))


def _trained_as_lalibs(digits):
    model = la.CNNClassifier(SHAPE, 10)
    la.fit(model, digits, epochs=2, device="cpu", progress=False)
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def test_the_generator_is_taken_away_whatever_happens():
    model = la.MLPClassifier(2, 2, dropout=0.5)
    with pytest.raises(KeyError), seeded_dropout(model, 0, "dropout"):
        raise KeyError(model.network[2].generator.initial_seed())
    assert model.network[2].generator is None


def test_mc_dropout_takes_no_lock(digits):
    """Within a block that another thread seeds."""
    from lalib.data.seeds import seeded

    model = la.CNNClassifier(SHAPE, 10)
    expected = la.models.mc_dropout_proba(model, digits, 2, seed=1)
    with ThreadPoolExecutor(1) as pool, seeded(0, "held"):
        found = pool.submit(la.models.mc_dropout_proba, model, digits, 2, seed=1).result(timeout=60)
    assert torch.equal(found, expected)
