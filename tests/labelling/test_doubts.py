"""Answers that may be wrong: the rule of confident learning, and that no model has seen what it judges."""

import numpy as np
import pandas as pd
import pytest
import torch

import lalib as la
from lalib.data.imageset import ImageSet
from lalib.labelling import doubts


def slow(probs, labels):
    """Equations 1 and 2 of the paper, image by image, in double precision."""
    probs, labels, found = probs.double().numpy(), labels.numpy(), []
    thresholds = {j: np.mean([p[j] for p, label in zip(probs, labels, strict=True) if label == j]) for j in set(labels)}
    for p in probs:
        reached = [j for j, threshold in thresholds.items() if p[j] >= threshold]
        found.append(max(reached, key=lambda j: p[j]) if reached else -1)
    return found


def test_confident_classes():
    """Class 4 has no label, so that nothing is counted as it, however probable."""
    draws = torch.Generator().manual_seed(0)
    probs = torch.rand(200, 5, generator=draws) ** 4
    probs[:, 4] += 0.2
    probs /= probs.sum(1, keepdim=True)
    labels = torch.randint(4, (200,), generator=draws)
    found = doubts.confident_classes(probs, labels)
    assert found.tolist() == slow(probs, labels)
    assert {-1, 0, 1, 2, 3} == {*found.tolist()}


@pytest.fixture
def data():
    """Three clouds of 30 points, far from each other."""
    codes = 6 * torch.eye(3).repeat(30, 1) + torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
    images = ImageSet(torch.zeros(90, 1, 8, 8, dtype=torch.uint8), None, ("a", "b", "c"), "")
    return la.experiments.TaskData(codes, images, la.Task(steps=60)), torch.arange(90) % 3


def test_no_model_has_seen_what_it_judges(data, monkeypatch):
    data, labels = data
    learnt, judged, train = [], [], doubts.train
    monkeypatch.setattr(
        doubts, "train", lambda data, index, *rest, **how: learnt.append(index) or train(data, index, *rest, **how)
    )
    index = torch.arange(89, 9, -1)  # 80 of them
    probs = doubts.out_of_fold(data, index, labels[index], 4, seed=0, device="cpu")
    for part in learnt:
        left = index[~torch.isin(index, part)]
        judged += left.tolist()
        counts = torch.bincount(labels[left], minlength=3)
        assert len(part) == 60
        assert counts.max() - counts.min() <= 1  # every class is spread over the folds
        model = train(data, part, labels[part], seed=0, device="cpu")
        rows = [index.tolist().index(i) for i in left.tolist()]
        assert torch.allclose(probs[rows], model.probs()[left], atol=1e-6)
    assert sorted(judged) == sorted(index.tolist())


def test_wrong_answers_come_first(data):
    data, labels = data
    index, wrong = torch.arange(90), [3, 40, 77]  # one of each class
    said = labels.clone()
    said[wrong] = (said[wrong] + 1) % 3
    table = doubts.doubts(data, index, said, device="cpu")
    assert {*table.index[:3]} == {*wrong}
    names = np.array(data.images.class_names)
    assert table["class"].tolist() == names[said[table.index]].tolist()
    assert table["instead"][:3].tolist() == names[labels[table.index[:3]]].tolist()
    assert (table["p_class"] - table["p_instead"]).is_monotonic_increasing
    assert isinstance(table, pd.DataFrame)
    assert not len(doubts.doubts(data, index, labels * 0, device="cpu"))  # one class: nothing else to say
    with pytest.raises(la.LalibError, match="doubts need an answer with a class for each of the 5 folds, got 4"):
        doubts.doubts(data, index[:4], labels[:4])
