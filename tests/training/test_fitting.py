"""fit: repeatable, resumable, interruptible; checkpoints that are refused when they are not what they should be."""

import contextlib
import dataclasses
import functools
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import lalib as la
from lalib.data.files import tensor_digest
from lalib.models.networks import Batch, Trainable
from lalib.training import fitting as training
from lalib.training.together import fit_together

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits():
    return la.load("digits").subset(range(200))


@pytest.fixture(scope="module")
def held_out():
    return la.load("digits", "test").subset(range(60))


def _fit(model, data, **options):
    return la.fit(model, data, **{"epochs": 3, "device": "cpu", "progress": False, **options})


def _state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _rows(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history.epochs]


def _codes(digits):
    return digits.images.flatten(1).float() / 255, digits.labels


MAKERS = {
    "CAE": lambda: la.CAE(SHAPE),
    "VAE": lambda: la.VAE(SHAPE),
    "VAE, mixture": lambda: la.VAE(SHAPE, prior="mixture", components=5),
    "VAE, vamp": lambda: la.VAE(SHAPE, prior="vamp", components=5),
    "ConditionalVAE": lambda: la.models.ConditionalVAE(SHAPE, 10),
    "TSNEAE": lambda: la.TSNEAE(SHAPE, perplexity=5, batch_size=64),
    "VariationalTSNEAE, batch": lambda: la.VariationalTSNEAE(SHAPE, perplexity=5, batch_size=64, affinities="batch"),
    "CNN with dropout": lambda: la.CNNClassifier(SHAPE, 10),
    "MLP with dropout": lambda: la.MLPClassifier(64, 10, dropout=0.3),
    "frozen encoder": lambda: la.models.EncoderClassifier(la.VAE(SHAPE), 10, mode="frozen"),
    "fine-tuned encoder": lambda: la.models.EncoderClassifier(la.CAE(SHAPE), 10),
}
every_model = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def _data(make, digits):
    return _codes(digits) if make is MAKERS["MLP with dropout"] else digits


@every_model
def test_fit_is_bitwise_repeatable_and_leaves_the_global_stream_alone(make, digits):
    first, again, other = make(), make(), make()
    before = torch.get_rng_state()
    one = _fit(first, _data(make, digits), seed=1, epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert _rows(one) == _rows(_fit(again, _data(make, digits), seed=1, epochs=2))
    assert _equal(_state(first), _state(again))
    assert _rows(one)[:1] != _rows(_fit(other, _data(make, digits), seed=2, epochs=1))


@every_model
def test_a_resumed_run_equals_an_unbroken_one(make, digits, tmp_path):
    data, path = _data(make, digits), tmp_path / "run.safetensors"
    options = {"validation": data, "weight_decay": 1e-4, "seed": 3}
    whole, broken = make(), make()
    unbroken = _fit(whole, data, epochs=3, **options)
    _fit(broken, data, epochs=2, checkpoint=path, **options)
    resumed_model = make()
    resumed = _fit(resumed_model, data, epochs=3, checkpoint=path, resume=True, **options)
    assert _rows(resumed) == _rows(unbroken)
    assert resumed.best_epoch == unbroken.best_epoch
    assert _equal(_state(resumed_model), _state(whole))
    assert list(tmp_path.iterdir()) == [path]


def test_sgd_resumes_with_its_momentum_and_is_not_taken_for_adam(digits, tmp_path):
    path, options = tmp_path / "run", {"optimizer": "sgd", "learning_rate": 1e-3}
    whole, broken = la.CNNClassifier(SHAPE, 10), la.CNNClassifier(SHAPE, 10)
    _fit(whole, digits, epochs=4, **options)
    _fit(broken, digits, epochs=2, checkpoint=path, **options)
    _fit(broken, digits, epochs=4, checkpoint=path, resume=True, **options)
    assert _equal(_state(broken), _state(whole))
    with pytest.raises(la.LalibError, match="its optimizer is 'SGD', here 'Adam'"):
        _fit(broken, digits, epochs=5, checkpoint=path, resume=True, learning_rate=1e-3)
    with pytest.raises(ValueError, match="optimizer must be one of 'adam', 'sgd', got 'lion'"):
        _fit(broken, digits, optimizer="lion")


def test_one_step_of_sgd_by_hand():
    codes, labels = torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([0, 1])
    model, other = la.MLPClassifier(2, 2, hidden=()), la.MLPClassifier(2, 2, hidden=())
    other.prepare(codes)
    torch.nn.functional.cross_entropy(other(codes), labels).backward()
    _fit(model, (codes, labels), epochs=1, optimizer="sgd", learning_rate=0.1)
    layer, by_hand = model.network[0], other.network[0]
    assert torch.allclose(layer.weight, by_hand.weight - 0.1 * by_hand.weight.grad, atol=1e-6)


def test_the_loss_falls_and_the_history_says_so(digits, held_out):
    history = _fit(la.VAE(SHAPE), digits, epochs=12, validation=held_out)
    assert history.epochs[-1]["loss"] < 0.9 * history.epochs[0]["loss"]
    assert history.epochs[-1]["val_loss"] < history.epochs[0]["val_loss"]
    assert list(history.epochs[0]) == [
        *("epoch", "loss", "reconstruction", "kl", "val_loss", "val_reconstruction", "val_kl", "images", "seconds")
    ]
    frame = history.frame()
    assert frame["epoch"].tolist() == list(range(1, 13))
    assert (frame["images"] == 200).all()
    assert torch.allclose(torch.tensor(frame["loss"]), torch.tensor(frame["reconstruction"] + frame["kl"]))


class _Mean(Trainable):
    """One weight, which learns the mean; notes what it is handed."""

    batch_size = 4

    def __init__(self, start=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(start))
        self.seen: list[tuple[bool, Batch]] = []

    def loss(self, batch, *, generator):
        self.seen.append((self.training, batch))
        return {"loss": (batch.x - self.weight).square().mean(), "weight": self.weight.detach().clone()}


def _points(n=10):
    return torch.arange(float(n))[:, None], torch.arange(n)


def test_an_epoch_visits_every_input_once_with_its_label_and_position():
    model, (x, y) = _Mean(), _points()
    _fit(model, (x, y), epochs=2)
    assert [len(batch.x) for _, batch in model.seen] == [4, 4, 2] * 2
    epochs = model.seen[:3], model.seen[3:]
    orders = [torch.cat([batch.index for _, batch in epoch]) for epoch in epochs]
    assert orders[0].tolist() != orders[1].tolist()
    for epoch, order in zip(epochs, orders, strict=True):
        assert sorted(order.tolist()) == list(range(10))
        assert torch.equal(torch.cat([batch.x for _, batch in epoch]), x[order])
        assert torch.equal(torch.cat([batch.y for _, batch in epoch]), y[order])


def test_the_history_is_a_mean_over_inputs_not_over_batches():
    model, (x, y) = _Mean(2.0), _points()
    row = _fit(model, (x, y), epochs=1, learning_rate=0, validation=(x + 1, y)).epochs[0]
    assert row["loss"] == pytest.approx((x - 2).square().mean().item())
    assert row["val_loss"] == pytest.approx((x - 1).square().mean().item())
    assert (row["weight"], row["val_weight"]) == (2, 2)


def test_validation_is_in_eval_mode_without_positions_and_training_in_train_mode():
    model, data = _Mean(), _points()
    model.eval()
    _fit(model, data, epochs=2, validation=data)
    modes = [(training, batch.index is None) for training, batch in model.seen]
    assert modes == [*[(True, False)] * 3, (False, True)] * 2
    assert model.training


def test_long_validation_sets_go_in_parts():
    x, y = torch.arange(2500.0)[:, None] / 1000, torch.zeros(2500, dtype=torch.int64)
    row = _fit(_Mean(), _points(), epochs=1, learning_rate=0, validation=(x, y)).epochs[0]
    assert row["val_loss"] == pytest.approx(x.square().mean().item(), rel=1e-5)


def test_the_first_step_is_adams():
    """Of size learning_rate, against the gradient; weight decay acts through the gradient."""
    model = _Mean(100.0)
    _fit(model, _points(4), epochs=1, learning_rate=0.25)
    assert model.weight.item() == pytest.approx(99.75, abs=1e-4)
    model = _Mean(1.5)  # the mean, so that the data pull nowhere
    _fit(model, _points(4), epochs=1, learning_rate=0.25, weight_decay=0.1)
    assert model.weight.item() == pytest.approx(1.25, abs=1e-4)


class _Scheduled(_Mean):
    """Validation losses as given, one per epoch; the weight counts the epochs."""

    def __init__(self, val_losses):
        super().__init__()
        self.left = list(val_losses)

    def loss(self, batch, *, generator):
        if not self.training:
            return {"loss": torch.tensor(self.left.pop(0))}
        self.weight.data += 1
        return {"loss": self.weight * 0}


def _scheduled(losses, **options):
    model, data = _Scheduled(losses), _points(4)
    return model, _fit(model, data, epochs=len(losses), validation=data, learning_rate=0, **options)


def test_the_best_epoch_on_validation_is_kept():
    model, history = _scheduled([5.0, 3.0, 4.0, 3.0, 6.0])
    assert len(history.epochs) == 5
    assert history.best_epoch == 2  # the first of equals
    assert model.weight.item() == 2


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 7), (9, 7)])
def test_patience(patience, epochs):
    model, history = _scheduled([5.0, 3.0, 4.0, 4.0, 2.0, 6.0, 6.0], patience=patience)
    assert len(history.epochs) == epochs
    assert model.weight.item() == history.best_epoch == (2 if epochs < 5 else 5)


@pytest.mark.parametrize("task", ["cnn", "mlp", "fixmatch"])
def test_until_stops_at_the_first_look_that_finds_the_labels_learnt(task, digits, tmp_path):
    """By hand: every fifth epoch the share of its labels that the model, dropout off, has right. Resuming adds none."""
    few, makers = digits.subset(range(60)), {"cnn": la.CNNClassifier, "fixmatch": la.FixMatch}
    data = _codes(few) if task == "mlp" else few
    if task == "fixmatch":
        data = digits, torch.where(torch.arange(200) < 60, digits.labels, -1)
    make = (lambda: la.MLPClassifier(64, 10)) if task == "mlp" else (lambda: makers[task](SHAPE, 10))
    x, right = data[0] if task == "mlp" else few, []
    options = {"epochs": 40, "learning_rate": 3e-3}
    _fit(make(), data, **options, on_epoch=lambda _, model: right.append(la.accuracy(model, x, few.labels)))
    due = next(epoch for epoch in range(5, 41, 5) if right[epoch - 1] >= 0.9)
    options |= {"until": 0.9, "checkpoint": tmp_path / "run"}
    model, again = make(), make()
    assert len(_fit(model, data, **options).epochs) == due < 40
    assert len(_fit(again, data, **options, resume=True).epochs) == due
    assert la.accuracy(again, x, few.labels) == la.accuracy(model, x, few.labels) == right[due - 1]


class _Clock:
    """In the place of the module `time`: half a second passes at every look, of which an epoch takes four."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 0.5
        return self.now


@pytest.mark.parametrize(("seconds", "epochs"), [(0, 1), (2.5, 1), (2.6, 2), (4.5, 2), (4.6, 3), (None, 7), (99, 7)])
def test_a_budget_of_seconds_ends_after_the_epoch_in_which_it_is_spent(seconds, epochs, monkeypatch):
    monkeypatch.setattr(training, "time", _Clock())
    seen = []
    history = _fit(_Mean(1.0), _points(4), epochs=7, seconds=seconds, on_epoch=lambda epoch, _: seen.append(epoch))
    assert seen == [row["epoch"] for row in history.epochs] == list(range(1, epochs + 1))
    assert not history.interrupted


def test_a_budget_is_each_calls_own(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "time", _Clock())
    model = _Mean(1.0)
    for calls in (1, 2, 3, 3):
        history = _fit(model, _points(4), seconds=0, checkpoint=tmp_path / "run", resume=True)
        assert len(history.epochs) == calls


def test_the_bar_expects_as_many_epochs_as_the_budget_allows(monkeypatch, capsys):
    monkeypatch.setattr(training, "time", _Clock())
    _fit(_Mean(1.0), _points(4), epochs=500, seconds=11, progress=True)
    last = capsys.readouterr().err.split("\r")[-1]
    assert "100%" in last
    assert "/500" not in last


def test_a_budget_that_is_never_spent_is_all_epochs():
    assert len(_fit(_Mean(1.0), _points(4), epochs=3, seconds=1e308).epochs) == 3


def test_a_run_that_patience_stopped_stays_stopped_when_resumed(tmp_path):
    path, losses = tmp_path / "run", [5.0, 3.0, 4.0, 4.0, 2.0]
    _, stopped = _scheduled(losses, patience=2, checkpoint=path)
    model, again = _scheduled(losses, patience=2, checkpoint=path, resume=True)
    assert _rows(again) == _rows(stopped)
    assert model.weight.item() == 2


def test_without_validation_the_last_epoch_is_the_best(digits):
    states = []
    model = la.CAE(SHAPE)
    history = _fit(model, digits, on_epoch=lambda epoch, m: states.append(_state(m)))
    assert history.best_epoch == 3
    assert _equal(states[-1], _state(model))


def test_fit_trains_on_from_the_weights_it_finds(digits):
    model = la.CAE(SHAPE)
    first = _fit(model, digits, epochs=5)
    assert _fit(model, digits, epochs=1, seed=1).epochs[0]["loss"] < first.epochs[0]["loss"]


@pytest.mark.parametrize("validate", [False, True])
def test_interrupted_by_on_epoch(validate, digits, held_out, tmp_path):
    path, states = tmp_path / "run", []

    def stop(epoch, model):
        states.append(_state(model))
        if epoch == 2:
            raise KeyboardInterrupt

    model = la.VAE(SHAPE)
    options = {"validation": held_out if validate else None, "checkpoint": path}
    history = _fit(model, digits, epochs=5, on_epoch=stop, **options)
    assert history.interrupted
    assert len(history.epochs) == 2
    assert _equal(_state(model), states[history.best_epoch - 1])
    resumed, whole = la.VAE(SHAPE), la.VAE(SHAPE)
    assert not _fit(resumed, digits, epochs=3, resume=True, **options).interrupted
    _fit(whole, digits, epochs=3, validation=options["validation"])
    assert _equal(_state(resumed), _state(whole))


class _Breaking(la.CAE):
    """Breaks in the middle of an epoch, at one call of the loss."""

    error, at = KeyboardInterrupt, 6

    def loss(self, batch, *, generator):
        self.at -= 1
        if self.at == 0:
            raise self.error
        return super().loss(batch, generator=generator)


@pytest.mark.parametrize(("at", "finished"), [(1, 0), (2, 0), (3, 1), (6, 2)])
def test_interrupted_in_the_middle_of_an_epoch(at, finished, digits):
    """Two batches an epoch: what the broken epoch did to the weights is undone."""
    model, whole = _Breaking(SHAPE), la.CAE(SHAPE)
    model.at, start = at, _state(model)
    history = _fit(model, digits, epochs=5)
    assert history.interrupted
    assert len(history.epochs) == finished
    assert history.best_epoch == (finished or None)
    if finished:
        _fit(whole, digits, epochs=finished)
    assert _equal(_state(model), _state(whole) if finished else start)


def test_other_errors_are_raised_and_leave_the_best_state(digits, monkeypatch):
    monkeypatch.setattr(_Breaking, "error", OverflowError)
    model, whole = _Breaking(SHAPE), la.CAE(SHAPE)
    with pytest.raises(OverflowError):
        _fit(model, digits, epochs=5)
    _fit(whole, digits, epochs=2)
    assert _equal(_state(model), _state(whole))


class _Diverging(la.CAE):
    """Its loss becomes `value` from the third batch on."""

    calls, value = 0, math.nan

    def loss(self, batch, *, generator):
        self.calls += 1
        terms = super().loss(batch, generator=generator)
        return {**terms, "loss": terms["loss"] * (self.value if self.calls > 2 else 1)}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(value, digits, tmp_path):
    model, whole = _Diverging(SHAPE), la.CAE(SHAPE)
    model.value = value
    with pytest.raises(
        la.LalibError, match=r"training diverged in epoch 2: loss is (nan|inf).* weights of epoch 1 were"
    ):
        _fit(model, digits, checkpoint=tmp_path / "run")
    _fit(whole, digits, epochs=1)
    assert _equal(_state(model), _state(whole))
    assert _equal(training.checkpoints.part(load_file(tmp_path / "run"), "last."), _state(whole))


class _NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


def test_weights_that_stop_being_finite_in_the_last_step_of_an_epoch(digits):
    """The loss of that epoch is still finite, and without a look at the weights they would be kept as the best."""

    class Late(_Diverging):
        def loss(self, batch, *, generator):
            self.calls += 1
            terms = la.CAE.loss(self, batch, generator=generator)
            return {**terms, "loss": _NanGradient.apply(terms["loss"])} if self.calls == 4 else terms

    model = Late(SHAPE)
    with pytest.raises(la.LalibError, match="training diverged in epoch 2: weights are not finite"):
        _fit(model, digits)
    assert all(torch.isfinite(value).all() for value in model.parameters())


def test_validation_that_is_not_finite_is_named():
    with pytest.raises(la.LalibError, match=r"in epoch 1: val_loss is nan. The weights of epoch 0 were kept"):
        _scheduled([math.nan])


def test_too_high_a_learning_rate_ends_in_an_error_or_finite_weights(digits):
    model = la.VAE(SHAPE)
    with pytest.raises(la.LalibError, match="try a smaller learning_rate"):
        _fit(model, digits, epochs=20, learning_rate=1e4)
    assert torch.isfinite(la.encode(model, digits)).all()


def test_no_batch_at_all_is_an_error():
    class Empty(_Mean):
        def batches(self, n, size, *, generator):
            return iter(())

    with pytest.raises(la.LalibError, match="10 images are too few to make one batch of Empty"):
        _fit(Empty(), _points())


def test_data_that_stays_off_the_device_gives_the_same_run(digits, monkeypatch):
    """The path of sets too large for a GPU; on a CPU it must be the same one."""
    placed, streamed = la.VAE(SHAPE), la.VAE(SHAPE)
    _fit(placed, digits, validation=digits)
    monkeypatch.setattr(training, "_place", lambda pair, device: pair)
    _fit(streamed, digits, validation=digits)
    assert _equal(_state(placed), _state(streamed))


@pytest.mark.parametrize("make", [MAKERS["VAE"], MAKERS["TSNEAE"]], ids=["VAE", "TSNEAE"])
@pytest.mark.parametrize("stream", [False, True])
def test_fit_on_each_device(device, stream, make, digits, monkeypatch):
    if stream:
        monkeypatch.setattr(training, "_place", lambda pair, device: pair)
    model = make()
    history = _fit(model, digits, epochs=5, validation=digits, device=device)
    assert next(model.parameters()).device.type == device
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]
    assert la.encode(model, digits).device.type == "cpu"


# CUDA ------------------------------------------------------------------------------------------------------------

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class _Placed(_Mean):
    """Notes where it was put and when it was prepared."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def to(self, *args, **kwargs):
        self.steps.append(("to", *args))
        return self

    def prepare(self, x, y=None):
        self.steps.append("prepare")


def test_a_model_is_prepared_where_the_data_lie(monkeypatch):
    """And not where it will be trained, if they stay on the CPU because they are too large."""
    monkeypatch.setattr(training, "_place", lambda pair, device: pair)
    codes, model = torch.rand(8, 1), _Placed()
    run = functools.partial(training._Run, model, (codes, torch.zeros(8, dtype=torch.int64)), None)
    course = training.Course(model, 1, None, None, 0.0, "adam", "constant")
    run(course, 0, torch.device("meta"))
    assert model.steps == [("to", torch.device("cpu")), "prepare", ("to", torch.device("meta"))]


@pytest.mark.parametrize("place", [False, True])
def test_codes_that_stay_off_the_device_are_prepared(place, device, digits, monkeypatch):
    """Centring them mixed devices."""
    if not place:
        monkeypatch.setattr(training, "_place", lambda pair, device: pair)
    codes, labels = _codes(digits)
    models = [la.MLPClassifier(64, 10), la.models.M1M2(64, 10), la.VAE(SHAPE, prior="vamp", components=3)]
    for model, data in zip(models, ((codes, labels), (codes, labels), digits), strict=True):
        _fit(model, data, epochs=1, validation=data, device=device)
        assert {value.device.type for value in model.state_dict().values()} == {device}


@needs_cuda
def test_labels_on_another_device_than_the_codes(digits):
    codes, labels = _codes(digits)
    for data in ((codes, labels.cuda()), (codes.cuda(), labels), (codes.cuda(), labels.cuda())):
        for device in ("cpu", "cuda"):
            model = la.MLPClassifier(64, 10)
            _fit(model, data, device=device, validation=data)
            assert la.accuracy(model, *data) > 0


def test_bfloat16_is_for_images_on_cuda(monkeypatch):
    """Codes are in float32 there, as in fit_together."""
    asked = []
    monkeypatch.setattr(torch, "autocast", lambda *args: asked.append(args) or contextlib.nullcontext())
    for is_cuda, ndim in ((False, 4), (True, 2), (True, 4)):
        with training._autocast(SimpleNamespace(is_cuda=is_cuda, ndim=ndim)):
            pass
    assert asked == [("cuda", torch.bfloat16)]


@needs_cuda
def test_codes_on_cuda_train_in_float32(digits):
    seen, (codes, labels) = [], _codes(digits)
    model = la.MLPClassifier(64, 10)
    model.network[0].register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    _fit(model, (codes, labels), epochs=5, device="cuda")
    assert set(seen) == {torch.float32}
    other = la.MLPClassifier(64, 10)
    settings = {"batch_size": None, "learning_rate": None, "weight_decay": 0.0, "optimizer": "adam"}
    fit_together([other], [(codes, labels)], seeds=[0], epochs=5, device="cuda", **settings)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-3)


class _Counted(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts how often a number is read from a tensor, which on CUDA waits for all that was asked for before."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", [MAKERS["VAE"], MAKERS["CNN with dropout"]], ids=["VAE", "CNN"])
def test_numbers_are_read_once_an_epoch(make, digits):
    """Not in every step, nor for every weight, nor for every part of the validation data."""
    many = digits.subset([i % 200 for i in range(2100)])
    counts = []
    for batch_size, validation in ((50, digits), (5, many)):
        with _Counted() as counted:
            _fit(make(), digits, epochs=1, batch_size=batch_size, validation=validation, optimizer="sgd")
        counts.append(counted.count)
    assert counts[0] == counts[1]
    assert counts[0] < 12, counts


# Checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CAE", "VAE", "TSNEAE", "VariationalTSNEAE"])
def test_save_and_load(name, digits, tmp_path):
    options = {"perplexity": 5, "batch_size": 64} if "TSNE" in name else {}
    model = getattr(la, name)(SHAPE, 3, preset="report", representation="sigmoid", **options)
    _fit(model, digits, epochs=1)
    la.save(model, tmp_path / "deep" / "model.safetensors")
    loaded = la.load_model(tmp_path / "deep" / "model.safetensors")
    assert type(loaded) is type(model)
    assert loaded.config == model.config
    assert torch.equal(la.encode(loaded, digits), la.encode(model, digits))


def test_a_checkpoint_loads_as_the_best_epoch(digits, held_out, tmp_path):
    model = la.CAE(SHAPE)
    _fit(model, digits, validation=held_out, checkpoint=tmp_path / "run")
    assert _equal(_state(la.load_model(tmp_path / "run")), _state(model))


@pytest.fixture
def saved(tmp_path):
    la.save(la.CAE(SHAPE), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def _rewrite(path, **changes):
    tensors, text = load_file(path), json.dumps({"model": "CAE", "config": None} | changes)
    metadata = {
        "format": training.checkpoints.FORMAT,
        "header": text,
        "sha256": tensor_digest(tensors, text),
    }
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_a_truncated_file(keep, saved):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(la.LalibError, match=r"model.safetensors is damaged or no safetensors file"):
        la.load_model(saved)


@pytest.mark.parametrize("place", [0.05, 0.5, 0.999])
def test_a_changed_byte(place, saved):
    data = bytearray(saved.read_bytes())
    data[int(place * len(data))] ^= 1
    saved.write_bytes(data)
    with pytest.raises(la.LalibError, match="is damaged"):
        la.load_model(saved)


def test_files_that_are_no_checkpoints(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        la.load_model(tmp_path / "absent")
    with pytest.raises(la.LalibError, match="is damaged or no safetensors file"):
        la.load_model(tmp_path)
    torch.save({"a": torch.zeros(2)}, tmp_path / "pickle")
    with pytest.raises(la.LalibError, match="is damaged or no safetensors file"):
        la.load_model(tmp_path / "pickle")
    save_file({"a": torch.zeros(2)}, tmp_path / "foreign")
    with pytest.raises(la.LalibError, match="is no checkpoint of lalib: its format is None, not 'lalib-1'"):
        la.load_model(tmp_path / "foreign")
    _rewrite(saved, config={**la.CAE((1, 9, 9)).config})
    with pytest.raises(la.LalibError, match="its weights do not fit its configuration"):
        la.load_model(saved)
    _rewrite(saved, model="__import__")
    with pytest.raises(la.LalibError, match="holds a '__import__'; load_model rebuilds CAE, VAE"):
        la.load_model(saved)


@pytest.mark.parametrize(
    "model",
    [
        la.CNNClassifier(SHAPE, 10, network="residual", dropout=0.2, seed=1),
        la.CNNClassifier(SHAPE, 3, multi_label=True),
        la.FixMatch(SHAPE, 10, threshold=0.5, width=8),
        la.FixMatch(SHAPE, 10, network=la.CNNClassifier(SHAPE, 10, network="residual", dropout=0.2)),
    ],
    ids=["residual", "several labels", "FixMatch", "FixMatch of a network"],
)
def test_save_and_load_a_classifier(model, digits, tmp_path):
    la.save(model, tmp_path / "model")
    loaded = la.load_model(tmp_path / "model")
    assert type(loaded) is type(model)
    assert (loaded.config, loaded.multi_label) == (model.config, model.multi_label)
    assert torch.equal(la.predict_proba(loaded, digits), la.predict_proba(model, digits))


def test_save_and_load_a_classifier_on_codes(digits, tmp_path):
    """With the mean and the scale of the codes that it was trained on; a checkpoint is loaded alike."""
    codes, labels = _codes(digits)
    model = la.MLPClassifier(64, 10, hidden=(30,), dropout=0.3)
    _fit(model, (codes, labels), epochs=1, checkpoint=tmp_path / "run")
    la.save(model, tmp_path / "model")
    for file in ("model", "run"):
        loaded = la.load_model(tmp_path / file)
        assert torch.equal(la.predict_proba(loaded, codes), la.predict_proba(model, codes))


def test_models_that_cannot_be_rebuilt_are_not_saved(digits, tmp_path):
    model = la.models.EncoderClassifier(la.CAE(SHAPE), 10)
    for unknown in (model, la.FixMatch(SHAPE, 10, network=model)):
        with pytest.raises(TypeError, match=r"save takes one of CAE, VAE, .*CNNClassifier.* got EncoderClassifier"):
            la.save(unknown, tmp_path / "model")
    _fit(model, digits, epochs=1, checkpoint=tmp_path / "run")
    with pytest.raises(la.LalibError, match="holds a 'EncoderClassifier'"):
        la.load_model(tmp_path / "run")


CHANGES = {
    "seed": ({"seed": 1}, "seed is 0, here 1"),
    "batch_size": ({"batch_size": 50}, "batch_size is 128, here 50"),
    "learning rate": ({"learning_rate": 0.1}, "groups is "),
    "weight decay": ({"weight_decay": 0.1}, "groups is "),
    "fewer epochs": ({"epochs": 1}, "holds 2 epochs, more than the epochs=1 asked for"),
    "model": ({"model": lambda: la.TSNEAE(SHAPE, perplexity=5, batch_size=128)}, "model is 'CAE', here 'TSNEAE'"),
    "loss": ({"model": lambda: la.CAE(SHAPE, reconstruction="mse")}, "reconstruction is 'bce', here 'mse'"),
    "layers": ({"model": lambda: la.CAE(SHAPE, 3)}, "latent_dim is 2, here 3"),
}


@pytest.mark.parametrize(("changes", "message"), CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_of_another_run_is_refused(changes, message, digits, tmp_path):
    path = tmp_path / "run"
    _fit(la.CAE(SHAPE), digits, epochs=2, checkpoint=path)
    model = changes.get("model", lambda: la.CAE(SHAPE))()
    before, data = _state(model), path.read_bytes()
    options = {name: value for name, value in changes.items() if name != "model"}
    with pytest.raises(la.LalibError, match=message):
        _fit(model, digits, checkpoint=path, resume=True, **options)
    assert _equal(_state(model), before)
    assert path.read_bytes() == data


def test_a_checkpoint_of_other_data_is_refused(digits, held_out, tmp_path):
    path, model = tmp_path / "run", la.CAE(SHAPE)
    _fit(model, digits, epochs=2, checkpoint=path, validation=held_out)
    others = [(digits.subset(range(199, -1, -1)), held_out), (digits, digits), (digits, None)]
    others += [(dataclasses.replace(digits, labels=None), held_out)]
    for data, validation in others:
        with pytest.raises(la.LalibError, match="is of another run: its data is "):
            _fit(la.CAE(SHAPE), data, checkpoint=path, resume=True, validation=validation)


def test_a_classifier_of_other_layers_is_refused_and_left_as_it_was(digits, tmp_path):
    path, codes = tmp_path / "run", _codes(digits)
    _fit(la.MLPClassifier(64, 10), codes, checkpoint=path)
    other = la.MLPClassifier(64, 10, hidden=(256, 255))
    before = _state(other)
    with pytest.raises(la.LalibError, match=r"its hidden is \[256, 256\], here \[256, 255\]"):
        _fit(other, codes, checkpoint=path, resume=True)
    assert _equal({**_state(other), "mean": 0 * before["mean"]}, {**before, "mean": 0 * before["mean"]})


@pytest.mark.parametrize("damage", ["truncated", "empty", "a saved model"])
def test_resuming_from_what_is_no_run(damage, digits, tmp_path):
    path, model = tmp_path / "run", la.CAE(SHAPE)
    _fit(model, digits, epochs=1, checkpoint=path)
    if damage == "a saved model":
        la.save(model, path)
    else:
        path.write_bytes(path.read_bytes()[: 5000 if damage == "truncated" else 0])
    with pytest.raises(la.LalibError, match="another run: its seed is None" if "saved" in damage else "is damaged"):
        _fit(la.CAE(SHAPE), digits, checkpoint=path, resume=True)


def test_resume_without_a_file_starts_and_of_a_finished_run_does_nothing(digits, tmp_path):
    path, model, again = tmp_path / "run", la.CAE(SHAPE), la.CAE(SHAPE)
    first = _fit(model, digits, checkpoint=path, resume=True)
    assert _fit(again, digits, checkpoint=path, resume=True).epochs == first.epochs
    assert _equal(_state(again), _state(model))


def test_nothing_half_written_remains(digits, tmp_path, monkeypatch):
    path, model = tmp_path / "run", la.CAE(SHAPE)
    _fit(model, digits, epochs=1, checkpoint=path)
    good = path.read_bytes()

    def full(tensors, filename, metadata):
        Path(filename).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(training.checkpoints, "save_file", full)
    for write in (
        lambda: _fit(model, digits, epochs=2, checkpoint=path, resume=True),
        lambda: la.save(model, path),
        lambda: la.save(model, tmp_path / "new"),
    ):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == good


def test_an_interruption_while_writing_keeps_the_old_checkpoint(digits, tmp_path, monkeypatch):
    path, model = tmp_path / "run", la.CAE(SHAPE)
    _fit(model, digits, epochs=1, checkpoint=path)
    good = path.read_bytes()

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    assert _fit(model, digits, epochs=2, checkpoint=path, resume=True).interrupted
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == good


# Bad arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 1.5}, TypeError, "epochs must be a whole number, got 1.5"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"learning_rate": -1}, ValueError, "learning_rate must be at least 0, got -1"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate must be finite, got nan"),
        ({"weight_decay": -1}, ValueError, "weight_decay must be at least 0, got -1"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": None}, TypeError, "seed must be a whole number, got None"),
        ({"patience": 3}, ValueError, "patience needs validation data: give validation="),
        ({"patience": 0, "validation": "digits"}, ValueError, "patience must be at least 1, got 0"),
        ({"until": 0.9}, TypeError, "until asks what a classifier has learnt, got CAE"),
        ({"seconds": -1}, ValueError, "seconds must be at least 0, got -1"),
        ({"seconds": "60"}, TypeError, "seconds must be a number, got '60'"),
        ({"resume": True}, ValueError, "resume=True needs checkpoint="),
        ({"device": "gpu"}, ValueError, "device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ({"device": "cuda:99"}, ValueError, "device 'cuda:99' is not here"),
    ],
)
def test_bad_options(options, error, message, digits):
    model = la.CAE(SHAPE)
    before = _state(model)
    if "validation" in options:
        options = {**options, "validation": digits}
    with pytest.raises(error, match=message):
        _fit(model, digits, **options)
    assert _equal(_state(model), before)


def test_images_of_another_shape(digits):
    for model in (
        la.CAE((1, 28, 28)),
        la.CNNClassifier((3, 8, 8), 10),
        la.models.EncoderClassifier(la.CAE((1, 9, 9)), 10),
    ):
        with pytest.raises(ValueError, match=r"the model takes images of shape .*, got \(1, 8, 8\) from digits/train"):
            _fit(model, digits)
    with pytest.raises(ValueError, match="the model takes images of shape"):
        _fit(la.CAE(SHAPE), digits, validation=la.load("mnist-mini").subset([0]))


def test_images_for_codes_and_codes_for_images(digits):
    with pytest.raises(TypeError, match="CAE trains on an ImageSet, got tuple"):
        _fit(la.CAE(SHAPE), _codes(digits))
    with pytest.raises(TypeError, match=r"MLPClassifier trains on a pair \(codes, labels\), got Tensor"):
        _fit(la.MLPClassifier(64, 10), _codes(digits)[0])
    for data in (digits, (torch.rand(9, 3), torch.zeros(9, dtype=torch.int64))):
        with pytest.raises(ValueError, match=r"the model takes codes of shape \(N, 64\), got"):
            _fit(la.MLPClassifier(64, 10), data)


@pytest.mark.parametrize(
    ("codes", "labels", "message"),
    [
        (torch.full((3, 2), math.nan), [0, 1, 0], "3 of 3 rows hold NaN or infinity"),
        (torch.rand(3), [0, 1, 0], r"inputs must have shape \(N, L\)"),
        (torch.rand(3, 2), [0, 1], r"labels must have shape \(3,\), one per point, got \(2,\)"),
        (torch.rand(3, 2), [0, 1, 2], "labels must lie in 0 to 1, got 0 to 2"),
        (torch.rand(3, 2), [0, -1, 1], "labels must lie in 0 to 1, got -1 to 1"),
    ],
)
def test_bad_codes_and_labels(codes, labels, message):
    with pytest.raises(ValueError, match=message):
        _fit(la.MLPClassifier(2, 2), (codes, torch.tensor(labels)))


def test_labels_may_be_whole_numbers_of_any_type():
    codes, labels = torch.rand(6, 2), torch.arange(6) % 2
    models = [la.MLPClassifier(2, 2, seed=0) for _ in range(2)]
    for model, y in zip(models, (labels, labels.int()), strict=True):
        _fit(model, (codes, y), epochs=1)
    assert _equal(*map(_state, models))


def test_labels_that_are_no_whole_numbers():
    with pytest.raises(TypeError, match=r"labels must be whole numbers, got torch.float32"):
        _fit(la.MLPClassifier(2, 2), (torch.rand(3, 2), torch.rand(3)))


def test_progress_shows_the_loss(digits, capsys):
    la.fit(la.CAE(SHAPE), digits, epochs=2, device="cpu")
    shown = capsys.readouterr().err
    assert "CAE" in shown
    assert "2/2" in shown
    assert "loss=" in shown
    _fit(la.CAE(SHAPE), digits)
    assert capsys.readouterr().err == ""


def test_the_cosine_schedule_by_hand(digits):
    model, rates = la.CAE(SHAPE, seed=0), []
    original = torch.optim.Adam.step

    class Watched(torch.optim.Adam):
        def step(self, *args, **kwargs):
            rates.append(self.param_groups[0]["lr"])
            return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training.OPTIMIZERS, "adam", Watched)
        _fit(model, digits, epochs=4, batch_size=len(digits), learning_rate=0.1, schedule="cosine")
    assert rates == pytest.approx([0.1, 0.1 * (1 + 0.5**0.5) / 2, 0.05, 0.1 * (1 - 0.5**0.5) / 2])
    with pytest.raises(ValueError, match="schedule must be one of 'constant', 'cosine', got 'linear'"):
        _fit(la.CAE(SHAPE), digits, schedule="linear")


def test_a_cosine_schedule_resumes(digits, tmp_path):
    settings = {"epochs": 3, "schedule": "cosine", "checkpoint": tmp_path / "a.st"}
    unbroken, broken = la.CAE(SHAPE, seed=0), la.CAE(SHAPE, seed=0)
    _fit(unbroken, digits, epochs=3, schedule="cosine")

    def stop(epoch, model):
        if epoch == 2:
            raise KeyboardInterrupt

    _fit(broken, digits, on_epoch=stop, **settings)
    again = la.CAE(SHAPE, seed=0)
    _fit(again, digits, resume=True, **settings)
    assert all(torch.equal(a, b) for a, b in zip(unbroken.parameters(), again.parameters(), strict=True))
    with pytest.raises(la.LalibError, match="its epochs is 3, here 5"):
        _fit(la.CAE(SHAPE, seed=0), digits, resume=True, **(settings | {"epochs": 5}))
