"""Random views: each strength by itself against what it should do, draws that do not depend on one another."""

import math

import pytest
import torch

import lalib as la
from lalib.data.seeds import generator
from lalib.data.warping import affine, warp
from lalib.models.views import RandomViews

STRENGTHS = {
    "shift": 0.2,
    "rotation": 40.0,
    "scale": 0.3,
    "stretch": 0.3,
    "shear": 0.4,
    "crop": 0.5,
    "elastic": 0.1,
    "contrast": 0.5,
    "brightness": 0.3,
    "colour": 0.8,
    "blur": 1.0,
    "erase": 0.6,
    "flip": True,
}
NONE = {name: False if name == "flip" else 0.0 for name in STRENGTHS}


def _only(**strengths):
    return RandomViews(**{**NONE, **strengths})


def _view(x, seed=0, **strengths):
    return _only(**strengths)(x, generator=generator(seed))


def _square(n=200, size=32, side=8):
    """(n, 1, size, size): a white square in the middle."""
    x = torch.zeros(n, 1, size, size)
    low = (size - side) // 2
    x[..., low : low + side, low : low + side] = 1
    return x


def _centre(x):
    """(N, 2) centre of mass along x and y, in pixels from the middle of the image."""
    rows, columns = (torch.arange(size) - (size - 1) / 2 for size in x.shape[2:])
    mass = x.sum((1, 2, 3))
    return torch.stack([(x * columns).sum((1, 2, 3)) / mass, (x * rows[:, None]).sum((1, 2, 3)) / mass], 1)


def _spread(x):
    """(N, 2, 2) second moments of the mass about the middle, in pixels squared."""
    rows, columns = torch.meshgrid(*(torch.arange(size) - (size - 1) / 2 for size in x.shape[2:]), indexing="ij")
    points = torch.stack([columns, rows])
    return torch.einsum("nij,aij,bij->nab", x[:, 0], points, points) / x.sum((1, 2, 3))[:, None, None]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 33, 20)], ids=str)
def test_every_strength_changes_images_within_0_and_1(shape):
    x = torch.rand(16, *shape, generator=generator(1))
    before = x.clone()
    for name, strength in STRENGTHS.items():
        views = _view(x, **{name: strength})
        assert views.shape == x.shape
        assert 0 <= views.min() <= views.max() <= 1
        same = torch.allclose(views, x, atol=1e-5)
        assert same == (name == "colour" and shape[0] == 1)  # grey has no colours to fade
    assert torch.equal(x, before)


def test_without_strengths_a_view_is_its_image():
    x = torch.rand(5, 3, 9, 13, generator=generator(1))
    assert torch.allclose(_view(x), x, atol=1e-5)


def test_views_come_from_the_generator_alone():
    x, views = la.load("digits").images[:20].float() / 255, RandomViews()
    torch.manual_seed(0)
    one, other = views(x, generator=generator(0)), views(x, generator=generator(1))
    torch.manual_seed(1)
    assert torch.equal(views(x, generator=generator(0)), one)
    assert not torch.equal(one, other)
    rng = generator(0)
    assert torch.equal(views(x, generator=rng), one)
    assert not torch.equal(views(x, generator=rng), one)


def test_what_one_strength_draws_does_not_depend_on_the_others():
    x = _square()
    alone = _centre(_view(x, shift=0.2))
    assert torch.allclose(_centre(_view(x, shift=0.2, blur=0.5)), alone, atol=0.1)
    turned = _centre(_view(x, shift=0.2, rotation=40))  # about the middle, to which the shift is relative
    assert torch.allclose(turned.norm(dim=1), alone.norm(dim=1), atol=0.1)
    assert not torch.allclose(turned, alone, atol=1)


def test_shift_is_uniform_up_to_its_share_of_a_side():
    moved = _centre(_view(_square(2000), shift=0.25))
    assert moved.abs().max() <= 0.25 * 32 + 1e-3
    assert torch.allclose(moved.std(0), torch.full((2,), 0.25 * 32 / math.sqrt(3)), rtol=0.05)
    assert abs(float(torch.corrcoef(moved.T)[0, 1])) < 0.1


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)], ids=str)
def test_rotation_keeps_the_middle_and_turns_by_its_degrees(shape):
    x = torch.zeros(500, 1, *shape)
    x[:, :, shape[0] // 2 - 1 : shape[0] // 2 + 1, shape[1] // 2 - 8 : shape[1] // 2 + 8] = 1  # a level bar
    spread = _spread(_view(x, rotation=30))
    angle = torch.rad2deg(0.5 * torch.atan2(2 * spread[:, 0, 1], spread[:, 0, 0] - spread[:, 1, 1]))
    assert angle.abs().max() < 31
    assert angle.std().item() == pytest.approx(30 / math.sqrt(3), rel=0.1)
    assert _centre(_view(x, rotation=30)).abs().max() < 0.5


def test_scale_and_stretch_change_the_size_and_the_ratio_of_sides():
    def sides(**strengths):
        spread = _spread(_view(_square(500, side=12), **strengths))
        return torch.stack([spread[:, 0, 0], spread[:, 1, 1]], 1).sqrt() / math.sqrt((12**2 - 1) / 12)

    scale, stretch = sides(scale=0.3), sides(stretch=0.3)
    assert torch.allclose(scale[:, 0], scale[:, 1], atol=1e-3)
    assert 1 / 1.33 < scale.min() < 0.85
    assert 1.2 < scale.max() < 1.46
    assert torch.allclose(stretch.prod(1), torch.ones(500), atol=0.05)
    assert (stretch[:, 0] / stretch[:, 1]).log().abs().max() > 0.4


def test_shear_moves_rows_along_themselves():
    x = _square(300, side=12)
    views = _view(x, shear=0.4)
    assert torch.allclose(views.sum((1, 3)), x.sum((1, 3)), atol=0.05)  # no row gains or loses
    slope = _spread(views)[:, 0, 1] / _spread(views)[:, 1, 1]
    assert 0.35 < slope.abs().max() < 0.42


def test_a_crop_shows_a_part_of_the_image():
    ramp = torch.linspace(0, 1, 64).expand(500, 1, 64, 64)  # a view's ends say which columns are seen
    views = _view(ramp, crop=0.5)
    low, high = views[:, 0, 0, 0], views[:, 0, 0, -1]
    assert 0.5 - 0.02 < (high - low).min() < 0.6
    assert low.min() >= 0
    assert low.max() > 0.4
    assert high.max() > 0.99


def test_a_flip_mirrors_about_half_of_the_images():
    x = torch.rand(400, 1, 8, 9, generator=generator(1))
    views = _view(x, flip=True)
    mirrored = (views - x.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    same = (views - x).abs().amax((1, 2, 3)) < 1e-4
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250


def test_elastic_bends_smoothly_by_at_most_its_share():
    where = torch.linspace(-1, 1, 33) * (1 - 1 / 33)
    x = torch.stack(torch.meshgrid(where, where, indexing="xy"))  # pixel values are coordinates
    x = ((x + 1) / 2)[None, [0, 1, 0]].expand(50, 3, 33, 33)
    moved = (_view(x, elastic=0.05) - x)[:, :2]
    inside = moved[..., 4:-4, 4:-4]
    assert 0.03 < inside.abs().max() < 0.075  # bicubic interpolation may overshoot its knots by half
    assert inside.diff(dim=3).abs().max() < 0.03
    assert inside.flatten(2).std(2).min() > 0.002  # not a mere shift


def test_contrast_brightness_blur_and_colour_by_hand():
    x = 0.4 + 0.2 * torch.rand(300, 3, 8, 8, generator=generator(1))  # far enough from 0 and 1 not to be cut
    mean = x.mean((1, 2, 3), keepdim=True)
    views = _view(x, contrast=0.5)
    factor = ((views - mean) / (x - mean)).flatten(1)
    assert torch.allclose(factor.median(1).values, factor.quantile(0.4, dim=1), atol=1e-3)
    assert 0.5 <= factor.median(1).values.min() < 0.55
    assert 1.45 < factor.median(1).values.max() <= 1.5
    added = (_view(x, brightness=0.3) - x).flatten(1)
    assert added.std(1).max() < 1e-5
    assert 0.28 < added.abs().max() <= 0.3
    grey = x.mean(1, keepdim=True)
    faded = _view(x, colour=0.8)
    assert torch.allclose(faded.mean(1, keepdim=True), grey, atol=1e-6)
    assert torch.allclose(
        (faded - grey) * (x - grey)[:, :, :1, :1], (x - grey) * (faded - grey)[:, :, :1, :1], atol=1e-6
    )
    dot = torch.zeros(300, 1, 9, 9)
    dot[:, :, 4, 4] = 1
    blurred = _view(dot, blur=0.9)
    around = blurred[:, 0, 3, 4]
    assert torch.allclose(blurred[:, 0, 3:6, 3:6].sum((1, 2)), torch.ones(300), atol=1e-5)
    assert torch.allclose(blurred[:, 0, 5, 5], around)
    assert 0.08 < around.max() <= 0.1 + 1e-6


def test_erase_covers_a_square_with_the_mean():
    x = torch.rand(200, 2, 40, 40, generator=generator(1)).mul(0.5)
    views = _view(x, erase=0.5)
    covered = (views - x).abs() > 1e-6
    hole = torch.where(covered, views, x.mean((2, 3), keepdim=True))
    assert torch.allclose(hole, x.mean((2, 3), keepdim=True).expand_as(x), atol=1e-5)
    share = covered[:, 0].float().mean((1, 2)).sqrt()
    assert 0.45 < share.max() <= 0.525
    assert share.min() < 0.1


def test_warp_by_hand():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    one, none = torch.ones(1), torch.zeros(1)
    quarter = torch.full((1,), math.pi / 2)
    for angle, shift, expected in [
        (none, (0, 0), x),
        (none, (0.5, 0), x[..., [1, 2, 3, 3]]),  # half of half a side is a pixel; the border fills
        (none, (0, -1), x[..., [0, 0, 0, 1], :]),
        (quarter, (0, 0), x.rot90(-1, (2, 3)).flip(3).flip(2)),
    ]:
        theta = affine(one, one, angle, none, torch.tensor(shift)[:, None], (4, 4))
        assert torch.allclose(warp(x, theta), expected, atol=1e-4)
    bend = torch.zeros(1, 4, 4, 2)
    bend[..., 0] = 0.5
    assert torch.allclose(warp(x, affine(one, one, none, none, torch.zeros(2, 1), (4, 4)), bend), x[..., [1, 2, 3, 3]])


def test_views_of_mixed_strengths_agree_across_devices(device):
    x = torch.rand(8, 3, 12, 10, generator=generator(1))
    views = RandomViews(**STRENGTHS)
    expected = views(x, generator=generator(0))
    came = views(x.to(device), generator=generator(0))
    assert came.device.type == device
    assert torch.allclose(came.cpu(), expected, atol=1e-4)


def test_views_keep_their_precision_under_autocast(device):
    x = torch.rand(8, 3, 12, 10, generator=generator(1)).to(device)
    expected = RandomViews()(x, generator=generator(0))
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(RandomViews()(x, generator=generator(0)), expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shift": -0.1}, ValueError, "shift must be at least 0, got -0.1"),
        ({"rotation": 181}, ValueError, "rotation must be at most 180, got 181"),
        ({"erase": math.nan}, ValueError, "erase must be finite, got nan"),
        ({"crop": "half"}, TypeError, "crop must be a number, got 'half'"),
        ({"flip": 1}, TypeError, "flip must be True or False, got 1"),
        ({"hue": 0.1}, TypeError, "hue"),
    ],
)
def test_bad_strengths(options, error, message):
    with pytest.raises(error, match=message):
        RandomViews(**options)
