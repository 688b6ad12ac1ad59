"""The four autoencoders: equal where they must be, terms by hand, neighbourhoods against the dense P."""

import copy
import math
import pickle

import pytest
import torch

import lalib as la
from lalib.data.seeds import generator
from lalib.models.autoencoders import MODELS, REPRESENTATIONS, Neighbourhoods
from lalib.models.losses import (
    RECONSTRUCTION,
    batch_affinities,
    gaussian_kl,
    gaussian_nll,
    perplexity_rows,
    symmetric,
    tsne_kl,
)
from lalib.models.networks import PRESETS, Batch

SHAPE = (1, 8, 8)
TSNE = {"perplexity": 5, "batch_size": 64}  # small enough for the digits used here


def _options(name):
    return TSNE if "TSNE" in name else {}


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(300))


def _batch(images, n=40):
    return Batch(images.images[:n].float() / 255, index=torch.arange(n))


def _same_weights(*models):
    states = [model.state_dict() for model in models]
    return all(state.keys() == states[0].keys() for state in states) and all(
        torch.equal(state[key], value) for state in states for key, value in states[0].items()
    )


def _noise(model, batch):
    """The noise that a variational model draws from generator(0)."""
    return torch.randn(len(batch.x), model.latent_dim, generator=generator(0))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_model_with_every_preset_reduces_its_loss(name, preset, digits):
    model = MODELS[name](SHAPE, 3, preset=preset, **_options(name))
    batch = _batch(digits)
    model.prepare(digits.images)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        terms = model.loss(batch, generator=generator(0))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert losses[-1] < losses[0]
    assert set(terms) == {"loss", "reconstruction"} | ({"kl"} if "V" in name else set()) | (
        {"tsne"} if "TSNE" in name else set()
    )


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 33, 20)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_ranges(name, shape):
    model, x = MODELS[name](shape, 4), torch.rand(5, *shape)
    z = model.encode(x)
    assert z.shape == (5, 4)
    assert model.decode(z).shape == model(x).shape == x.shape
    assert 0 <= model(x).min() <= model(x).max() <= 1
    assert model.image_shape == shape


@pytest.mark.parametrize("reconstruction", RECONSTRUCTION)
def test_the_cae_loss_is_the_mean_reconstruction(reconstruction, digits):
    model, batch = la.CAE(SHAPE, reconstruction=reconstruction), _batch(digits)
    terms = model.loss(batch, generator=generator(0))
    expected = RECONSTRUCTION[reconstruction](model.decoder(model.encode(batch.x)), batch.x).mean()
    assert torch.equal(terms["loss"], expected)
    if reconstruction == "mae":
        by_hand = 64 * (model(batch.x) - batch.x).abs().mean()
        assert terms["reconstruction"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_vae_loss_by_hand(digits):
    model, batch = la.VAE(SHAPE, 3, beta=0.7), _batch(digits)
    out = model.head(model.trunk(batch.x))
    mean, log_variance = out[:, :3], out[:, 3:]
    z = mean + torch.exp(log_variance) ** 0.5 * _noise(model, batch)
    logits = model.decoder(z)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, batch.x, reduction="sum") / 40
    terms = model.loss(batch, generator=generator(0))
    assert torch.allclose(terms["reconstruction"], bce, rtol=1e-5)
    assert torch.allclose(terms["kl"], gaussian_kl(mean, log_variance).mean())
    assert torch.allclose(terms["loss"], bce + 0.7 * terms["kl"])
    assert torch.equal(model.encode(batch.x), mean)


def test_beta_of_1_is_the_vae_and_of_0_leaves_the_kl_out(digits):
    batch = _batch(digits)
    plain, one, none = la.VAE(SHAPE), la.VAE(SHAPE, beta=1), la.VAE(SHAPE, beta=0)
    assert _same_weights(plain, one, none)
    assert torch.equal(
        plain.loss(batch, generator=generator(0))["loss"], one.loss(batch, generator=generator(0))["loss"]
    )
    terms = none.loss(batch, generator=generator(0))
    assert torch.equal(terms["loss"], terms["reconstruction"])


several = pytest.mark.parametrize("prior", ["mixture", "vamp"])


@several
@pytest.mark.parametrize("name", ["VAE", "VariationalTSNEAE"])
def test_the_kl_term_of_another_prior_by_hand(name, prior, digits):
    """log q(z|x) - log p(z) at the very draw that is reconstructed."""
    options = {"prior": prior, "components": 5, "beta": 0.7, **_options(name)}
    model, batch = MODELS[name](SHAPE, 3, **options), _batch(digits)
    model.prepare(digits.images)
    mean, log_variance = model.posterior(batch.x)
    z = mean + torch.exp(log_variance) ** 0.5 * _noise(model, batch)
    terms = model.loss(Batch(batch.x), generator=generator(0))
    assert torch.allclose(terms["kl"], (model.prior.log_prob(z) + gaussian_nll(mean, log_variance, z)).mean().neg())
    assert torch.allclose(terms["reconstruction"], model.reconstruction_loss(z, batch.x).mean())
    assert torch.allclose(terms["loss"], terms["reconstruction"] + 0.7 * terms["kl"])


@several
@pytest.mark.parametrize("name", ["VAE", "VariationalTSNEAE"])
def test_another_prior_is_learned(name, prior, digits):
    model = MODELS[name](SHAPE, 3, prior=prior, components=5, **_options(name))
    history = la.fit(model, digits, epochs=5, device="cpu", progress=False)
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    learned = {key: value.clone() for key, value in model.prior.state_dict().items()}
    la.fit(model, digits, epochs=1, device="cpu", progress=False)  # goes on from there
    fresh = MODELS[name](SHAPE, 3, prior=prior, components=5, **_options(name))
    fresh.prepare(digits.images)
    for key, value in model.prior.state_dict().items():
        if value.is_floating_point():
            assert 0 < (value - learned[key]).abs().max() < (value - fresh.prior.state_dict()[key]).abs().max()


@several
def test_a_prior_changes_neither_weights_nor_the_plain_model(prior):
    plain, model = la.VAE(SHAPE, 3), la.VAE(SHAPE, 3, prior=prior)
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in plain.state_dict().items())
    assert set(plain.config) == {*("image_shape", "latent_dim", "preset", "representation", "reconstruction", "beta")}
    assert {**plain.config, "prior": prior, "components": 50} == model.config


@several
def test_a_prior_is_rebuilt_from_the_config_and_from_a_file(prior, digits, tmp_path):
    model = la.VAE(SHAPE, 3, prior=prior, components=5, seed=2)
    assert _same_weights(model, la.VAE(**model.config, seed=2))
    la.fit(model, digits, epochs=2, device="cpu", progress=False)
    la.save(model, tmp_path / "model")
    loaded = la.load_model(tmp_path / "model")
    assert loaded.config == model.config
    assert _same_weights(model, loaded)
    assert torch.equal(loaded.sample(10, seed=1), model.sample(10, seed=1))
    for again in (model, loaded):
        la.fit(again, digits, epochs=1, device="cpu", progress=False, seed=1)
    assert _same_weights(model, loaded)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_the_pseudo_inputs_of_a_copy_pass_through_its_own_encoder(copied):
    model = la.VAE(SHAPE, 3, prior="vamp", components=5)
    other, z = copied(model), torch.zeros(1, 3)
    density = model.prior.log_prob(z)
    with torch.no_grad():
        other.head.bias.add_(1)
    assert torch.equal(model.prior.log_prob(z), density)
    assert not torch.equal(other.prior.log_prob(z), density)


@pytest.mark.parametrize("prior", ["normal", "mixture", "vamp"])
def test_samples_decode_draws_from_the_prior(prior):
    model = la.VAE(SHAPE, 3, prior=prior).train()
    images = model.sample(20, seed=1)
    assert images.shape == (20, *SHAPE)
    assert model.training
    assert not images.requires_grad
    with torch.no_grad():
        assert torch.equal(images, model.decode(model.prior.sample(20, generator=generator(1, "codes"))))
    assert not torch.equal(images, model.sample(20, seed=2))
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        model.sample(0)


@several
def test_a_prior_has_no_more_parts_than_there_are_images(prior, digits):
    model = la.VAE(SHAPE, prior=prior, components=301)
    with pytest.raises(ValueError, match="components must be at most one per image, got 301 for 300 images"):
        la.fit(model, digits, epochs=1, device="cpu", progress=False)


@pytest.mark.parametrize(("plain", "with_term"), [(la.CAE, la.TSNEAE), (la.VAE, la.VariationalTSNEAE)])
@pytest.mark.parametrize("affinities", ["global", "batch"])
def test_without_weight_the_tsne_term_changes_nothing(plain, with_term, affinities, digits):
    models = [plain(SHAPE), with_term(SHAPE, tsne_weight=0, affinities=affinities, **TSNE)]
    models[1].prepare(digits.images)
    assert _same_weights(*models)
    for step in range(3):
        batch, noise = _batch(digits, 30 + step), [generator(step), generator(step)]
        for model, draw in zip(models, noise, strict=True):
            terms = model.loss(batch, generator=draw)
            model.zero_grad()
            terms["loss"].backward()
            with torch.no_grad():
                [p.sub_(1e-3 * p.grad) for p in model.parameters()]
        assert terms["tsne"] > 0
    assert _same_weights(*models)


@pytest.mark.parametrize("affinities", ["global", "batch"])
def test_the_tsne_term_by_hand(affinities, digits):
    model, batch = la.TSNEAE(SHAPE, tsne_weight=0.5, affinities=affinities, **TSNE), _batch(digits)
    model.prepare(digits.images)
    joint = _dense_joint(digits.images, batch.index, 5) if affinities == "global" else batch_affinities(batch.x, 5)
    terms = model.loss(batch, generator=generator(0))
    assert terms["tsne"].item() == pytest.approx(tsne_kl(model.encode(batch.x), joint.float()).item(), rel=1e-4)
    assert torch.allclose(terms["loss"], terms["reconstruction"] + 0.5 * 64 * terms["tsne"])


def test_validation_leaves_the_tsne_term_out(digits):
    terms = la.TSNEAE(SHAPE, **TSNE).loss(Batch(_batch(digits).x), generator=generator(0))
    assert set(terms) == {"loss", "reconstruction"}


def _dense_joint(images, index, perplexity):
    """P of the whole set as a matrix, on the nearest 3 x perplexity others, restricted to `index`, renormalised."""
    flat = images.flatten(1).double() / 255
    d2 = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist").square().fill_diagonal_(float("inf"))
    far = d2.argsort(dim=1, stable=True)[:, int(3 * perplexity) :]
    conditional = perplexity_rows(d2.scatter(1, far, float("inf")), perplexity)
    joint = (conditional + conditional.T)[index][:, index]
    return joint / joint.sum()


@pytest.mark.parametrize("perplexity", [1.5, 5, 20])
def test_neighbourhoods_joint_is_the_dense_p_restricted_to_the_batch(perplexity):
    images = la.load("mnist-mini").images[:300]  # digits have equal distances, of which either may be left out
    near = Neighbourhoods(perplexity)
    near.fit(images)
    order = torch.randperm(300, generator=generator(0))
    for index in (order[:50], order, torch.arange(300)):
        joint = near.joint(index)
        assert torch.allclose(joint.double(), _dense_joint(images, index, perplexity), atol=1e-6)
        assert torch.equal(joint, joint.T)
        assert (joint.diagonal() == 0).all()
        assert joint.sum().item() == pytest.approx(1, abs=1e-5)


def test_neighbourhoods_rows_have_the_perplexity(digits):
    near = Neighbourhoods(12)
    near.fit(digits.images)
    p = near.conditional.double()
    assert torch.allclose((-torch.xlogy(p, p).sum(1)).exp(), torch.full((300,), 12.0).double(), rtol=0.01)


def test_a_batch_without_neighbours_has_no_p(digits):
    near = Neighbourhoods(2)
    near.fit(digits.images)
    lonely = next(i for i in range(300) if 0 not in near.index[i] and i not in near.index[0] and i)
    assert near.joint(torch.tensor([0, lonely])).tolist() == symmetric(torch.zeros(2, 2)).tolist()


@pytest.mark.parametrize("size", [7, 64, 300, 1000])
def test_deal_visits_each_image_once_in_an_order_of_its_seed(size, digits):
    near = Neighbourhoods(5)
    near.fit(digits.images)
    deals = [list(near.deal(size, generator=generator(seed))) for seed in (0, 0, 1)]
    for batches in deals:
        assert sorted(torch.cat(batches).tolist()) == list(range(300))
        assert [len(batch) for batch in batches[:-1]] == [size] * ((300 - 1) // size)
    first, again, other = map(torch.cat, deals)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_deal_keeps_neighbours_together(digits):
    """A batch along the graph holds more of P than a random one."""
    near = Neighbourhoods(5)
    near.fit(digits.images)

    def held(batches):
        return sum(float(torch.isin(near.index[batch], batch).float().mean()) for batch in batches)

    assert held(near.deal(60, generator=generator(0))) > 1.5 * held(
        torch.randperm(300, generator=generator(0)).split(60)
    )


@pytest.mark.parametrize(("affinities", "n"), [("global", 300), ("batch", 290)])
def test_a_last_batch_too_short_for_the_perplexity_is_left_out(affinities, n, digits):
    model = la.TSNEAE(SHAPE, perplexity=20, affinities=affinities, batch_size=70)
    model.prepare(digits.images)
    sizes = [len(index) for index in model.batches(n, 70, generator=generator(0))]
    assert sizes == [70] * 4  # 20 and 10 images are over
    with pytest.raises(ValueError, match="perplexity must be below batch size - 1 = 20, got 20"):
        model.batches(n, 21, generator=generator(0))


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("name", MODELS)
def test_representations(name, representation, digits):
    model = MODELS[name](SHAPE, 2, representation=representation, **_options(name))
    with torch.no_grad():
        model.head.weight.mul_(100)
    z = model.encode(_batch(digits).x)
    raw = model.head(model.trunk(_batch(digits).x))[:, :2]
    assert torch.equal(z, {"linear": raw, "sigmoid": raw.sigmoid(), "clu": raw.clamp(0, 1)}[representation])


def test_a_clu_starts_in_the_middle_and_records_its_saturation(digits):
    for model in (la.CAE(SHAPE, 3, representation="clu"), la.VAE(SHAPE, 3, representation="clu")):
        assert model.head.bias[:3].tolist() == [0.5] * 3
        assert not (model.head.bias[3:] == 0.5).any()  # log-variances start as they were
        batch = _batch(digits)
        assert model.loss(batch, generator=generator(0))["saturated"].item() < 0.5
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias[:3] = torch.tensor([-1.0, 0.5, 2.0])
        terms = model.loss(batch, generator=generator(0))
        assert terms["saturated"].item() == pytest.approx(2 / 3)
        expected = terms["reconstruction"] + terms.get("kl", 0)
        assert torch.equal(terms["loss"], expected)  # recorded, not minimised
    assert "saturated" not in la.CAE(SHAPE).loss(batch, generator=generator(0))


def test_saturation_is_in_the_history(digits):
    model = la.CAE(SHAPE, representation="clu")
    history = la.fit(model, digits, epochs=2, device="cpu", progress=False)
    assert all(0 <= row["saturated"] <= 1 for row in history.epochs)


def test_weights_come_from_the_seed_and_leave_the_global_stream_alone():
    before = torch.get_rng_state()
    one, again, other = la.CAE(SHAPE, seed=1), la.CAE(SHAPE, seed=1), la.CAE(SHAPE, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert _same_weights(one, again)
    assert not _same_weights(one, other)


@pytest.mark.parametrize("name", MODELS)
def test_config_rebuilds_the_model(name):
    options = _options(name) | ({"beta": 2.0} if "V" in name else {})
    model = MODELS[name]((3, 9, 13), 4, preset="report", representation="clu", reconstruction="mae", **options)
    again = MODELS[name](**model.config)
    assert again.config == model.config
    assert _same_weights(again, model)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"preset": "lite"}, ValueError, "preset must be one of 'light', 'medium', 'report', .*, got 'lite'"),
        ({"representation": "relu"}, ValueError, "representation must be one of 'linear', 'sigmoid', 'clu', got"),
        ({"reconstruction": "l2"}, ValueError, "reconstruction must be one of 'bce', 'mse', 'mae', got 'l2'"),
        ({"latent_dim": 0}, ValueError, "latent_dim must be at least 1, got 0"),
        ({"latent_dim": 2.0}, TypeError, "latent_dim must be a whole number, got 2.0"),
        ({"image_shape": (1, 7, 28)}, ValueError, r"image_shape must be \(C, H, W\) .* at least 8, got \(1, 7, 28\)"),
        ({"image_shape": (2, 28, 28)}, ValueError, "C of 1 or 3"),
        ({"image_shape": (28, 28)}, ValueError, r"got \(28, 28\)"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"beta": -1}, ValueError, "beta must be at least 0, got -1"),
        ({"beta": math.nan}, ValueError, "beta must be finite, got nan"),
        ({"prior": "flow"}, ValueError, "prior must be one of 'normal', 'mixture', 'vamp', got 'flow'"),
        ({"components": 5}, ValueError, "components needs prior='mixture' or 'vamp', got components=5 for prior='norm"),
        ({"prior": "vamp", "components": 0}, ValueError, "components must be at least 1, got 0"),
        ({"tsne_weight": -1}, ValueError, "tsne_weight must be at least 0, got -1"),
        ({"perplexity": 0.5}, ValueError, "perplexity must be at least 1, got 0.5"),
        ({"perplexity": 63, "batch_size": 64}, ValueError, "perplexity must be below batch size - 1 = 63, got 63"),
        ({"batch_size": 3}, ValueError, "batch_size must be at least 4, got 3"),
        ({"affinities": "local"}, ValueError, "affinities must be one of 'global', 'batch', got 'local'"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        la.VariationalTSNEAE(**{"image_shape": SHAPE, **options})


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="gamma"):
        la.VAE(SHAPE, gamma=1)


def test_perplexity_must_fit_the_set_and_the_batch(digits):
    model = la.TSNEAE(SHAPE, perplexity=20, batch_size=64)
    with pytest.raises(ValueError, match=r"perplexity must be below .* 18, got 20"):
        la.fit(model, digits.subset(range(19)), epochs=1, device="cpu", progress=False)
    with pytest.raises(ValueError, match="perplexity must be below batch size - 1 = 15, got 20"):
        la.fit(model, digits, epochs=1, batch_size=16, device="cpu", progress=False)
