"""Task models: what is trained, what a strategy may ask of it, and how it is tested."""

import dataclasses

import pytest
import torch

import lalib as la
from lalib.data.checks import LalibError
from lalib.data.seeds import child_seed, generator
from lalib.experiments import task_models, tasks
from lalib.experiments.loop import Pool
from lalib.experiments.task_models import evaluate, train
from lalib.experiments.tasks import RoundEncoder, Task, TaskData
from lalib.models.classifiers import LossPredictor, MLPClassifier
from lalib.models.losses import pair_loss
from lalib.models.networks import Batch

QUICK = {"steps": 20}
FROM_LABELS_ALONE = ("mlp", "cnn", "resnet18")


DIGITS = la.load("digits").subset(range(300))


@pytest.fixture(scope="module")
def digits():
    return DIGITS


def _codes(images):
    return images.images.flatten(1).float() / 255


def _data(images, **options):
    return TaskData(_codes(images), images, Task(**{**QUICK, **options}))


def _train(data, n=60, labels=DIGITS.labels, **options):
    index = torch.arange(n)
    return train(data, index, labels[index], **{"seed": 0, "device": "cpu", **options})


def _weights(classifier):
    return torch.cat([value.flatten().float() for value in classifier.state_dict().values()])


@pytest.mark.parametrize(
    ("task", "labels", "round", "epochs"),
    [
        (Task(), 20, 0, 200),
        (Task(), 32, 0, 200),
        (Task(), 33, 0, 100),
        (Task(), 100, 5, 50),
        (Task(), 100_000, 0, 1),
        (Task(epochs=10, more_epochs=5), 3000, 0, 10),
        (Task(epochs=10, more_epochs=5), 6000, 1, 15),
    ],
)
def test_epochs_by_hand(task, labels, round, epochs):
    assert task.n_epochs(labels, round) == epochs


def _refused(model):
    """Sources that a task of this model does not have."""
    refused = set() if model in ("mlp", "m1m2", "poisson") else {"dropped_probs"}
    if model in FROM_LABELS_ALONE:
        return refused | ({"m2_vaal", "ta_vaal"} if model == "mlp" else {"m2_vaal"})
    refused |= {"predicted_losses", "predicted_losses_with_codes", "ta_vaal"}
    refused |= {"mc_probs"} if model == "poisson" else set()  # models of all seeds are one
    return refused if model == "m2-vaal" else refused | {"m2_vaal"}


def _asked(state):
    """What the sources say that the task has."""
    refused = _refused(state.data.task.model)
    few = {"mc_probs": {"passes": 3}, "vaal": {"vae_epochs": 1}, "ta_vaal": {"vae_epochs": 1}}
    return {name: give(**few.get(name, {})) for name, give in state.sources().items() if name not in refused}


@pytest.mark.parametrize("model", FROM_LABELS_ALONE)
def test_what_a_strategy_may_ask(model, digits):
    few = digits.subset(range(80))
    data = _data(few, model=model, steps=2)
    state = _train(data, 40)
    given = _asked(state)
    assert torch.equal(given["latents"], given["features"])
    assert given["vaal"].shape == (80,)
    assert given["probs"].shape == (80, 10)
    assert given["mc_probs"].shape == (3, 80, 10)
    assert given["features"].shape == (80, {"mlp": 256, "cnn": 128, "resnet18": 512}[model])
    assert given["predicted_losses"].shape == (80,)
    assert not torch.equal(given["predicted_losses"], given["predicted_losses_with_codes"])
    assert torch.equal(given["mc_probs"][0], given["probs"])  # the task model is the ensemble's first member
    assert not torch.equal(given["mc_probs"][1], given["mc_probs"][2])
    assert torch.allclose(given["mc_probs"].sum(2), torch.ones(3, 80), atol=1e-5)
    for strategy in ("margin", "bald", "badge", "core-set", "learning-loss"):
        options = state.sources() | ({"passes": 3} if strategy == "bald" else {})
        query = la.select(strategy, data.codes, 5, labeled=state.index, labels=state.labels, **options)
        assert len(query.unique()) == 5


@pytest.mark.parametrize("model", sorted(set(tasks.TASKS) - set(FROM_LABELS_ALONE)))
def test_what_a_strategy_may_ask_of_a_model_that_learns_from_the_whole_pool(model, digits):
    few = digits.subset(range(80))
    state = _train(_data(few, model=model, steps=1), 40)
    given = _asked(state)
    assert state.classifier.labeled.tolist() == list(range(40))
    assert state.classifier.unlabeled.tolist() == list(range(40, 80))
    assert given["probs"].shape == (80, 10)
    size = {"m2": 50, "m2-vaal": 50, "m1m2": 10, "poisson": 64, "fixmatch": given["features"].shape[1]}[model]
    assert given["latents"].shape == (80, size)
    strategies = ["margin", "badge", "m2-distance", "vaal"] + ["m2-vaal"] * (model == "m2-vaal")
    for strategy in strategies:
        query = la.select(strategy, state.data.codes, 5, labeled=state.index, labels=state.labels, **given)
        assert len(query.unique()) == 5


@pytest.mark.parametrize(
    ("model", "source", "message"),
    [
        ("mlp", "m2_vaal", "m2_vaal needs the task 'm2-vaal', whose model it asks, got 'mlp'"),
        ("mlp", "ta_vaal", "ta_vaal needs the task 'cnn' or 'resnet18', got 'mlp'"),
        ("poisson", "mc_probs", "mc_probs needs a task that another seed changes, got 'poisson'"),
        ("cnn", "dropped_probs", "dropped_probs needs a task on codes, such as 'mlp', got 'cnn'"),
        ("fixmatch", "ta_vaal", "ta_vaal needs the task 'cnn' or 'resnet18', got 'fixmatch'"),
        (
            "m1m2",
            "predicted_losses",
            "predicted_losses needs a task that learns from labelled images alone, got 'm1m2'",
        ),
    ],
)
def test_sources_that_a_task_does_not_have(model, source, message, digits):
    state = _train(_data(digits.subset(range(80)), model=model, steps=1), 40)
    with pytest.raises(LalibError, match=message):
        state.sources()[source]()


@pytest.mark.parametrize(("labelled", "batches"), [(290, 20), (160, 20), (300, 21)])
def test_a_model_that_learns_from_the_whole_pool_takes_as_many_minibatches_however_many_have_a_label(
    labelled, batches, digits, monkeypatch
):
    seen, loss = [], la.models.M1M2.loss
    monkeypatch.setattr(la.models.M1M2, "loss", lambda self, batch, **kw: seen.append(1) or loss(self, batch, **kw))
    _train(_data(digits, model="m1m2"), labelled)
    assert len(seen) == batches


def test_in_ta_vaal_the_pair_loss_stops_by_the_length_of_its_own_training(digits, monkeypatch):
    heads = []

    class Recorded(task_models.TAVAAL):
        def __init__(self, predictor, **options):
            super().__init__(predictor, **options)
            heads.append(predictor)

    monkeypatch.setattr(task_models, "TAVAAL", Recorded)
    _train(_data(digits, model="cnn", steps=4), 40).ta_vaal(vae_epochs=2)
    assert int(heads[0].batches_seen) == 2 * 3  # 260 unlabelled images, 128 at a time
    assert heads[0].detach_after == 3


def test_what_is_asked_does_not_change_the_task_model(digits):
    state, again = _train(_data(digits)), _train(_data(digits))
    before = _weights(state.classifier)
    _asked(state)
    assert torch.equal(_weights(state.classifier), before)
    assert torch.equal(_weights(again.classifier), before)
    assert not torch.equal(_weights(_train(_data(digits), seed=1).classifier), before)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_members_of_an_ensemble_by_hand(model, digits):
    """Three networks of three seeds, whether they train together or one by one."""
    few = digits.subset(range(80))
    data, index = _data(few, model=model, steps=6), torch.arange(40)
    probs_T_N_C = _train(data, 40, seed=5).mc_probs(passes=3)
    for seed, probs in zip([5, *(child_seed(5, "member", m) for m in (1, 2))], probs_T_N_C, strict=True):
        member = data.classifier(seed)
        settings = {"epochs": 3, "batch_size": 32, "seed": seed, "device": "cpu", "progress": False}
        la.fit(member, data.labelled(index, few.labels[index]), **settings)
        assert torch.allclose(la.predict_proba(member, data.inputs), probs, atol=1e-4)


def test_an_interruption_ends_the_training(digits, monkeypatch):
    def interrupted(self, logits, y):
        raise KeyboardInterrupt

    monkeypatch.setattr(MLPClassifier, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _train(_data(digits))


def test_dropout_instead_of_an_ensemble(digits):
    data = _data(digits, mc="dropout", options={"dropout": 0.5})
    probs_T_N_C = _train(data).mc_probs(passes=3)
    assert probs_T_N_C.shape == (3, 300, 10)
    assert not torch.equal(probs_T_N_C[0], probs_T_N_C[1])


def test_a_warm_start_goes_on_and_leaves_the_old_model(digits):
    first = _train(_data(digits))
    before = _weights(first.classifier)
    warm = _train(_data(digits, warm_start=True), last=first)
    cold = _train(_data(digits), last=first)
    assert torch.equal(_weights(first.classifier), before)
    assert torch.equal(_weights(cold.classifier), before)
    assert not torch.equal(_weights(warm.classifier), before)
    assert evaluate(warm, _codes(digits)[:60], digits.labels[:60])["accuracy"] > 0.9


def test_views_augment_in_training_only(digits):
    views = {"shift": 0.2}
    plain, moved = (_train(_data(digits, model="cnn", views=v)) for v in (None, views))
    assert not torch.equal(_weights(plain.classifier), _weights(moved.classifier))
    assert torch.equal(moved.probs(), moved.probs())
    x = digits.images[:4].float() / 255
    classifier = moved.classifier.eval()
    assert torch.equal(classifier.augmented(x, generator(0)), x)
    assert not torch.equal(classifier.train().augmented(x, generator(0)), x)


def test_dropped_probs_by_hand(digits):
    model = _train(_data(digits))
    dropped, codes, draws = model.dropped_probs(4), _codes(digits), generator(0, "dropped")
    kept = torch.stack([torch.rand(codes.shape, generator=draws) >= 0.75 for _ in range(4)])
    assert abs(kept.double().mean() - 0.25) < 0.01
    for one, mask in zip(dropped, kept, strict=True):
        seen = torch.where(mask, 4 * codes, 0.0)
        assert torch.equal(one, la.predict_proba(model.classifier, seen))
    assert not torch.equal(dropped[0], dropped[1])


# Learning loss


def test_pair_loss_by_hand():
    predicted, losses = torch.tensor([1.0, 0.2, 0.5, 0.1, 9.0]), torch.tensor([3.0, 1.0, 2.0, 4.0, 5.0])
    # pairs (0, 2): 3 > 2, so max(0, -(1.0 - 0.5) + 1) = 0.5; (1, 3): 1 <= 4, so max(0, (0.2 - 0.1) + 1) = 1.1
    assert pair_loss(predicted, losses).item() == pytest.approx(0.8)
    assert pair_loss(torch.tensor([5.0, 0.0]), torch.tensor([2.0, 1.0])).item() == 0
    assert pair_loss(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])).item() == 1
    assert pair_loss(predicted[:1], losses[:1]).item() == 0


def _predictor(detach_after, codes=None):
    return LossPredictor(
        MLPClassifier(6, 3, hidden=(8, 8)), torch.zeros(1, 6), codes=codes, width=4, detach_after=detach_after, seed=0
    )


def _gradient_of_the_pairs(predictor, batch):
    predictor.zero_grad()
    predictor.train().loss(batch, generator=None)["pairs"].backward()
    body = [p.grad for p in predictor.classifier.parameters()]
    return sum(g.abs().sum().item() for g in body if g is not None), predictor.last.weight.grad.abs().sum().item()


def test_the_pair_loss_stops_moving_the_features():
    x, y = torch.randn(8, 6, generator=generator(0, "x")), torch.arange(8) % 3
    predictor = _predictor(detach_after=1)
    body, head = _gradient_of_the_pairs(predictor, Batch(x, y))
    assert body > 0
    assert head > 0
    body, head = _gradient_of_the_pairs(predictor, Batch(x, y))
    assert body == 0
    assert head > 0


def test_the_head_sees_the_codes_of_its_images():
    x, y = torch.randn(8, 6, generator=generator(0, "x")), torch.arange(8) % 3
    codes = torch.randn(20, 5, generator=generator(0, "codes"))
    predictor = _predictor(9, codes).eval()
    index = torch.tensor([7, 3, 1, 0, 2, 4, 19, 11])
    expected = pair_loss(
        predictor.head(predictor.classifier.activations(x)[0], codes[index]),
        torch.nn.functional.cross_entropy(predictor.classifier(x), y, reduction="none"),
    )
    assert predictor.loss(Batch(x, y, index), generator=None)["pairs"].item() == pytest.approx(expected.item())
    assert predictor.predict(x, codes[:8], block=3).tolist() == pytest.approx(predictor.predict(x, codes[:8]).tolist())
    assert not torch.allclose(predictor.predict(x, codes[:8]), predictor.predict(x, codes[8:16]))
    with pytest.raises(la.LalibError, match="give codes to predict if, and only if"):
        predictor.predict(x)


def test_predicted_losses_follow_the_true_ones(digits):
    """Labels of one half of the classes are noise: their losses must come out larger."""
    noisy = digits.labels.clone()
    hard = digits.labels >= 5
    noisy[hard] = 5 + torch.randint(5, (int(hard.sum()),), generator=generator(0, "noise"))
    data = _data(digits, steps=300)
    losses = _train(data, 200, noisy).predicted_losses()
    assert losses[200:][hard[200:]].mean() > losses[200:][~hard[200:]].mean() + losses[200:].std()


# The encoder of a round


ENCODER = RoundEncoder(model="class-prior-vae", latent_dim=3, epochs=1, learning_rate=0.002)


def test_the_codes_of_a_round_by_hand(digits):
    few, index = digits.subset(range(80)), torch.arange(40)
    data = _data(few, model="cnn", steps=2, encoder=ENCODER)
    state = train(data, index, few.labels[index], seed=3, device="cpu")
    model = la.models.ClassPriorVAE(few.image_shape, 10, 3, seed=3)
    partly = la.models.partly_labelled(80, index, few.labels[index])
    la.fit(model, (few, partly), epochs=1, learning_rate=0.002, seed=3, device="cpu", progress=False)
    codes = la.encode(model, few)
    assert torch.allclose(state.codes(), codes / torch.pdist(codes).square().sum().mul(2 / 80**2).sqrt(), atol=1e-5)
    assert torch.equal(_data(few).codes, _train(_data(few), 40).codes())


@pytest.mark.parametrize("model", ["conditional-vae", "class-prior-vae"])
def test_the_codes_of_a_round_know_the_labels_bought_and_no_others(model, digits):
    few, index = digits.subset(range(80)), torch.arange(40)
    encoder = dataclasses.replace(ENCODER, model=model)
    hidden = dataclasses.replace(few, labels=torch.cat([few.labels[:40], few.labels[40:].flip(0)]))
    same, other = few.labels[:40], few.labels[:40].flip(0)
    states = [
        train(_data(images, model="cnn", steps=2, encoder=encoder), index, labels, seed=0, device="cpu")
        for images, labels in ((few, same), (hidden, same), (few, other))
    ]
    assert torch.equal(states[0].codes(), states[1].codes())
    assert not torch.equal(states[0].codes(), states[2].codes())


def test_an_encoder_is_trained_once_and_when_asked_for(digits, monkeypatch):
    trained, seen = [], []
    fit_fully = task_models.fit_fully
    monkeypatch.setattr(
        task_models,
        "fit_fully",
        lambda model, *a, **kw: trained.append(type(model).__name__) or fit_fully(model, *a, **kw),
    )
    predict = LossPredictor.predict
    monkeypatch.setattr(
        LossPredictor,
        "predict",
        lambda self, x, codes=None: seen.append((self.codes, codes)) or predict(self, x, codes),
    )
    few = digits.subset(range(80))
    state = _train(_data(few, model="cnn", steps=2, encoder=ENCODER), 40)
    pool = Pool(few.labels)
    pool.buy(state.index)
    view = pool.view(state.codes, **state.sources())
    la.strategies.run_strategy("core-set", view, 3, generator=generator(0))
    assert trained == ["CNNClassifier"]
    selection = la.strategies.run_strategy("core-set", view, 3, generator=generator(0), space="both", alpha=2.0)
    la.strategies.run_strategy("learning-loss", view, 3, generator=generator(0), space="both")
    assert trained == ["CNNClassifier", "ClassPriorVAE", "LossPredictor"]
    assert torch.equal(seen[0][0], state.codes()[:40])
    assert torch.equal(seen[0][1], state.codes())
    assert selection.record["code_spread"] == pytest.approx(2, abs=1e-5)
    spread = torch.pdist(state.features().double()).square().sum().mul(2 / 80**2).sqrt()
    assert selection.record["task_spread"] == pytest.approx(float(spread))


def test_an_encoder_for_one_label_per_image(digits):
    several = dataclasses.replace(digits, labels=torch.eye(10, dtype=torch.int64)[digits.labels])
    with pytest.raises(LalibError, match="a round's encoder needs one label per image; these images may have several"):
        _data(several, model="cnn", encoder=ENCODER)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "vae"}, ValueError, "encoder must be one of 'conditional-vae', 'class-prior-vae', got 'vae'"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"latent_dim": 0}, ValueError, "latent_dim must be at least 1, got 0"),
        ({"options": {"label_dropout": 2}}, ValueError, "label_dropout must be at most 1, got 2"),
        ({"options": {"label_drop": 0.1}}, TypeError, "unexpected keyword argument 'label_drop'"),
    ],
)
def test_an_encoder_refuses(options, error, message):
    with pytest.raises(error, match=message):
        RoundEncoder(**options)


# Evaluation


def test_evaluate_by_hand(digits):
    state = _train(_data(digits))
    result = evaluate(state, _codes(digits), digits.labels)
    guess = state.probs().argmax(1)
    assert result["accuracy"] == pytest.approx((guess == digits.labels).float().mean().item())
    confusion = torch.zeros(10, 10, dtype=torch.int64)
    for true, called in zip(digits.labels.tolist(), guess.tolist(), strict=True):
        confusion[true, called] += 1
    assert result["confusion"] == confusion.tolist()


def test_several_labels_per_image(digits):
    labels = torch.stack([digits.labels % 2, digits.labels // 5, torch.zeros_like(digits.labels)], dim=1)
    several = dataclasses.replace(digits, labels=labels, class_names=("odd", "high", "never"))
    state = _train(_data(several, steps=100), 200, labels)
    result = evaluate(state, _codes(several), labels)
    probs = state.probs()
    aucs = []
    for c in (0, 1):
        yes, no = probs[labels[:, c] == 1, c], probs[labels[:, c] == 0, c]
        aucs.append((yes[:, None] > no).double().mean().item() + 0.5 * (yes[:, None] == no).double().mean().item())
    assert result["auc"] == pytest.approx(sum(aucs) / 2, abs=1e-6)
    assert result["accuracy"] == pytest.approx(((probs > 0.5) == labels.bool()).float().mean().item())
    assert "confusion" not in result
    assert state.mc_probs(passes=3).shape == (3, 300, 3)
    assert state.predicted_losses().shape == (300,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "mpl"}, ValueError, "got 'mpl'. Did you mean 'mlp'?"),
        ({"options": {"depth": 3}}, ValueError, "task 'mlp' has no option 'depth'; its options are: 'hidden'"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"options": {"seed": 3}}, ValueError, "options must leave 'seed' to the loop, which sets it for every run"),
        (
            {"model": "fixmatch", "options": {"network": la.CNNClassifier((1, 8, 8), 10)}},
            ValueError,
            "options must leave 'network' to the loop",
        ),
        ({"more_epochs": 5}, ValueError, "more_epochs=5 needs epochs, to which it is added every round"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"epochs": 1, "more_epochs": -1}, ValueError, "more_epochs must be at least 0, got -1"),
        (
            {"passes": 4},
            TypeError,
            "a Task has no 'passes': it is an option of bald, epig, batchbald, dropquery, such as",
        ),
        ({"loss_weight": 2.0}, TypeError, "'loss_weight': it is an option of ta-vaal, learning-loss, such as"),
        ({"vae_epochs": 1}, TypeError, r"'vae_epochs': it is an option of vaal, .* \(\"vaal\", {\"vae_epochs\": 1}\)"),
        ({"adversarial": 0}, TypeError, "'adversarial': it is an option of vaal, ta-vaal, such as"),
        ({"mc": "dropout"}, ValueError, "mc='dropout' needs a 'mlp' with dropout: give it in options"),
        ({"model": "resnet18", "mc": "dropout"}, ValueError, "mc='dropout' needs a 'resnet18' with dropout"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be a whole number, got 2.5"),
        ({"learning_rate": -1}, ValueError, "learning_rate must be at least 0, got -1"),
        ({"optimizer": "lbfgs"}, ValueError, "optimizer must be one of 'adam', 'sgd', got 'lbfgs'"),
        ({"mc": "laplace"}, ValueError, "mc must be one of 'ensemble', 'dropout', got 'laplace'"),
        (
            {"encoder": ENCODER},
            ValueError,
            "a round's encoder changes codes: give it to a task on pixels, such as 'cnn'",
        ),
        ({"model": "cnn", "encoder": "vae"}, TypeError, "encoder must be a RoundEncoder, got str"),
        ({"views": {}}, ValueError, "views augment images: give them to a task on pixels"),
        ({"model": "cnn", "views": {"shift": 2}}, ValueError, "shift must be at most 1, got 2"),
    ],
)
def test_a_task_refuses(options, error, message):
    with pytest.raises(error, match=message):
        Task(**options)


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (torch.zeros(299, 2), ValueError, "codes must be those of the 300 images, got 299 rows"),
        (torch.full((300, 2), torch.nan), ValueError, "codes must be finite"),
    ],
)
def test_codes_are_those_of_the_images(codes, error, message, digits):
    with pytest.raises(error, match=message):
        TaskData(codes, digits, Task())


def test_codes_become_single_precision(digits):
    assert TaskData(torch.zeros(300, 2, dtype=torch.float64), digits, Task()).codes.dtype == torch.float32


def test_of_the_images_stays_what_strategies_may_see(digits):
    several = dataclasses.replace(digits, labels=torch.eye(10, dtype=torch.int64)[digits.labels], files=["x.png"] * 300)
    for images in (digits, several):
        data = _data(images)
        again = dataclasses.replace(data, task=Task(model="cnn"))
        assert data.images.labels is None
        assert data.images.files == ()
        assert data.images.class_names == images.class_names
        assert data.multi_label == again.multi_label == again.classifier(0).multi_label == images.multi_label


@pytest.mark.parametrize("source", ["probs", "predicted_losses"])
def test_a_resnet_takes_any_number_of_labels(source):
    """33 images in batches of 32 leave one, of which batch normalisation in the last stage can make nothing."""
    images = la.from_arrays(torch.randint(0, 256, (33, 1, 28, 28), dtype=torch.uint8), torch.arange(33) % 3)
    data = TaskData(torch.randn(33, 2), images, Task(model="resnet18", epochs=1))
    model = train(data, torch.arange(33), images.labels, seed=0, device="cpu")
    assert torch.isfinite(model.sources()[source]()).all()


def test_auc_needs_a_mixed_class(digits):
    several = dataclasses.replace(digits, labels=torch.eye(10, dtype=torch.int64)[digits.labels])
    state = _train(_data(several), labels=several.labels)
    with pytest.raises(la.LalibError, match="auc needs a class that some but not all of the held-out images have"):
        evaluate(state, _codes(several), torch.zeros(300, 10, dtype=torch.int64))


def test_strategies_compared_by_spreading_labels(digits, held_out, tmp_path):
    settings = {"strategies": ["random", "margin"], "initial": 20, "step": 10, "rounds": 1, "seeds": 2, "out": tmp_path}
    table = la.compare(digits, held_out, task="poisson", **settings)
    assert table["accuracy"].between(0.4, 1).all()
    starts = table[table["round"] == 0].groupby("seed")["accuracy"].nunique()
    assert (starts == 1).all()  # nothing is drawn: the same labels give the same
    with pytest.raises(LalibError, match="bald needs a task that another seed changes, got 'poisson'"):
        la.compare(digits, held_out, task="poisson", **settings | {"strategies": ["random", "bald"]})
