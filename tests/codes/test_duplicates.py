"""Near duplicates: planted copies, by hand and among real images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import lalib as la


def _slowly(features, threshold, k=10):
    """Pairs (N, N) by the definition, for features without exact copies."""
    distance = torch.cdist(features.double(), features.double(), compute_mode="donot_use_mm_for_euclid_dist")
    ranked = distance.sort(1).values[:, min(k, len(features) - 1)]
    scale = ranked.clamp(min=float(ranked.median()) / 2)
    return (distance / scale[:, None]).fill_diagonal_(torch.inf)


def test_groups_by_the_definition():
    g = torch.Generator().manual_seed(0)
    codes = torch.randn(60, 3, generator=g)
    codes = torch.cat([codes, codes[:9] + 0.05 * torch.randn(9, 3, generator=g), codes[:2] + 0.03])
    share = _slowly(codes, 0.3)
    near = torch.minimum(share, share.T)
    group, found = la.codes.near_duplicates(codes)
    linked = torch.linalg.matrix_power((near <= 0.3).double() + torch.eye(71), 70) > 0
    assert torch.equal(group[:, None] == group, linked)
    nearest = near.amin(1)
    assert torch.allclose(found, nearest.masked_fill(nearest > 0.3, torch.inf))
    assert linked[0, 60]
    firsts = [int((group == number).nonzero()[0]) for number in range(int(group.max()) + 1)]
    assert firsts == sorted(firsts)


def test_exact_copies_and_many_copies():
    codes = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    noise = 1e-3 * torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    group, near = la.codes.near_duplicates(torch.cat([codes, codes[3].repeat(30, 1), codes[5] + noise]))
    assert group[[3, *range(40, 70)]].unique().tolist() == [3]
    assert group[[5, *range(70, 100)]].unique().tolist() == [5]
    assert (near[40:70] == 0).all()
    assert ((near[70:] > 0) & (near[70:] < 0.1)).all()
    assert near[[0, 1, 2]].isinf().all()
    group, near = la.codes.near_duplicates(torch.zeros(5, 2))
    assert group.tolist() == [0] * 5
    assert not near.any()
    assert la.codes.near_duplicates(torch.zeros(1, 2))[1].isinf().all()
    assert la.codes.near_duplicates(torch.tensor([[0.0], [1.0]]))[0].tolist() == [0, 1]


def _jpeg(image):
    stream = io.BytesIO()
    Image.fromarray(image.numpy()[0]).save(stream, "jpeg", quality=75)
    return torch.from_numpy(np.array(Image.open(stream)))[None]


PLANTED = {
    "darker": lambda image: (image.float() * 0.9).to(torch.uint8),
    "JPEG": _jpeg,
    "moved": lambda image: image.roll(1, dims=2),
}


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("mnist-mini", {"darker": 1, "JPEG": 1, "moved": 0}),
        ("fashion-mnist-mini", {"darker": 0.88, "JPEG": 1, "moved": 0}),
    ],
)
def test_planted_copies_of_real_images(name, least):
    """60 copies of each kind among 1,500 images: the pairs that are right, and the copies that are found."""
    images = la.load(name).images[:1500]
    original = torch.cat([torch.arange(1500), torch.arange(180)])
    copies = [PLANTED[kind](images[60 * i + j]) for i, kind in enumerate(PLANTED) for j in range(60)]
    group, _ = la.codes.near_duplicates(torch.cat([images, torch.stack(copies)]))
    same, planted = (part[:, None] == part for part in (group, original))
    right = float((same & planted).sum() - 1680) / float(same.sum() - 1680)
    found = {
        kind: float(same[1500:, :180].diagonal()[60 * i : 60 * i + 60].double().mean())
        for i, kind in enumerate(PLANTED)
    }
    assert right == 1
    assert all(found[kind] >= share for kind, share in least.items())
    assert found["moved"] == 0


@pytest.mark.parametrize(
    ("features", "threshold", "message"),
    [
        (torch.zeros(3), 0.3, r"features must have shape \(N, L\)"),
        (torch.full((3, 2), torch.nan), 0.3, "features must be finite"),
        (torch.zeros(3, 2), -1, "threshold must be at least 0, got -1"),
    ],
)
def test_bad_input(features, threshold, message):
    with pytest.raises(ValueError, match=message):
        la.codes.near_duplicates(features, threshold=threshold)
