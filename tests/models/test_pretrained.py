"""Pretrained encoders against torchvision's networks by hand, with weights drawn at random where no others are here."""

import importlib.util
import sys
from importlib import resources
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lalib as la
from lalib.data.files import file_digest
from lalib.models.networks import block_size, in_blocks
from lalib.models.pretrained import LITE, LITE_FILE
from lalib.models.weights import fill, read_weights

SMALL = "shufflenet_v2_x0_5"
LAST = {  # each network's last layer
    **{"resnet18": "fc", "efficientnet_b0": "classifier.1", "convnext_tiny": "classifier.2", "vit_b_32": "heads.head"},
    **{"swin_t": "head", "mobilenet_v3_small": "classifier.3", "densenet121": "classifier", SMALL: "fc"},
}


def _images(n=2, channels=3, size=(224, 224)):
    pixels = torch.randint(0, 256, (n, channels, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return la.from_arrays(pixels)


@pytest.fixture(scope="module")
def small():
    return la.models.PretrainedEncoder(SMALL, None, device="cpu")


def _state(encoder, classes=7):
    """The encoder's weights as a file of its network holds them, with a last layer for so many classes."""
    head = {"fc.weight": torch.zeros(classes, encoder.latent_dim), "fc.bias": torch.zeros(classes)}
    return {key: value.contiguous() for key, value in encoder.net.state_dict().items()} | head


@pytest.mark.parametrize("name", LAST)
def test_codes_are_what_comes_before_the_last_layer(name):
    from torchvision import models
    from torchvision.transforms.functional import normalize

    images, seen = _images(1), []
    with la.data.seeded(0, "weights"):
        net = models.get_model(name, weights=None).eval()
    look = models.get_model_weights(name).DEFAULT.transforms()
    assert isinstance(net.get_submodule(LAST[name]), nn.Linear)
    net.get_submodule(LAST[name]).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(normalize(images.images.float() / 255, look.mean, look.std))
    encoder = la.models.PretrainedEncoder(name, None, device="cpu")
    codes = la.encode(encoder, images)
    assert codes.shape == (1, encoder.latent_dim) == seen[0].shape
    assert torch.allclose(codes, seen[0], atol=1e-4 * float(seen[0].abs().max()))


def test_images_of_any_size_grey_or_in_colour(small):
    from torchvision.transforms.v2.functional import resize

    grey = _images(3, 1, (20, 30))
    codes = la.encode(small, grey)
    colour = la.from_arrays(grey.images.expand(-1, 3, -1, -1).contiguous())
    assert torch.equal(codes, la.encode(small, colour))
    large = resize(colour.images.float() / 255, [224, 224], antialias=True)  # bilinear, as that network wants it
    assert torch.allclose(codes, in_blocks(small, small.encode, large), atol=1e-4 * float(codes.abs().max()))
    assert torch.allclose(codes, la.encode(small, grey, batch_size=1), atol=1e-4 * float(codes.abs().max()))


def test_blocks_are_sized_by_what_the_network_sees(small):
    assert block_size(small, torch.empty(5, 1, 8, 8)) == 2**22 // (3 * 224 * 224)


def test_bar(small, monkeypatch):
    shown = []
    monkeypatch.setattr("tqdm.auto.tqdm", lambda blocks, *named, **look: shown.append(named) or blocks)
    la.encode(small, _images(3, 1, (8, 8)), batch_size=2)
    la.encode(small, _images(3, 1, (8, 8)), batch_size=2, progress=False)
    assert shown == [("encode", 2)]


def test_it_stays_as_it_is(small, tmp_path):
    before = {key: value.clone() for key, value in small.state_dict().items()}
    images = la.load("digits").subset(range(6))
    assert not small.train().training
    small.encode(torch.rand(2, 3, 32, 32))
    with pytest.raises(TypeError, match="PretrainedEncoder is frozen"):
        la.fit(small, images, epochs=1, device="cpu", progress=False)
    settings = {"initial": 4, "rounds": 0, "seeds": 1, "strategies": ["random"], "progress": False, "device": "cpu"}
    table = la.compare(images, images, encoder=small, out=tmp_path, **settings)
    codes = la.encode(small, images)
    assert len(table) == 1
    # its checksum, which names the runs, says what images it saw, too
    assert bytes(small.known_as.tolist()).decode() == f"{SMALL} (3, 224, 224) bilinear"
    assert table.accuracy.equals(
        la.compare(images, images, encoder=(codes, codes), out=tmp_path / "codes", **settings).accuracy
    )
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_of_a_file(small, ending, tmp_path):
    """Weights fill a network drawn otherwise; the last layer may be of other classes."""
    path = tmp_path / f"weights.{ending}"
    save_file(_state(small), path) if ending == "safetensors" else torch.save({"state_dict": _state(small)}, path)
    filled = la.models.PretrainedEncoder(SMALL, path, sha256=file_digest(path).upper(), device="cpu", seed=1)
    images = _images(2, 1, (16, 16))
    assert torch.equal(la.encode(filled, images), la.encode(small, images))
    other = la.models.PretrainedEncoder(SMALL, None, device="cpu", seed=1)
    assert not torch.equal(la.encode(other, images), la.encode(small, images))
    wrong = "0" * 64
    with pytest.raises(la.LalibError, match=rf"its SHA-256 is {file_digest(path)}.*not {wrong}"):
        la.models.PretrainedEncoder(SMALL, path, sha256=wrong)


def test_names_of_old_densenets():
    from torchvision.models import DenseNet

    new, other = (DenseNet(8, (2, 2), 16) for _ in range(2))
    names = list(new.state_dict())
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for key, v in new.state_dict().items()}
    assert len(old.keys() - names) == 4 * (5 + 1)
    fill(other, names, old, "weights")
    assert all(torch.equal(value, new.state_dict()[key]) for key, value in other.state_dict().items())


def test_weights_of_another_network(small, tmp_path):
    state = _state(small)
    del state["conv1.0.weight"], state["conv5.1.bias"]
    state |= {"conv1.1.bias": torch.zeros(3), "stem.weight": torch.zeros(2)}
    torch.save(state, tmp_path / "other.pth")
    own = len([key for key in small.net.state_dict() if not key.endswith("num_batches_tracked")])
    said = r"2 missing \(conv1.0.weight, conv5.1.bias\), 1 unknown \(stem.weight\), 1 of another shape \(conv1.1.bias\)"
    with pytest.raises(la.LalibError, match=f"another network than {SMALL}: of its {own} tensors {said}"):
        la.models.PretrainedEncoder(SMALL, tmp_path / "other.pth")


def test_weights_that_give_no_numbers(small, tmp_path):
    torch.save(_state(small) | {"conv1.1.bias": torch.full((24,), torch.nan)}, tmp_path / "nan.pth")
    with pytest.raises(la.LalibError, match="codes that are not finite"):
        la.models.PretrainedEncoder(SMALL, tmp_path / "nan.pth", device="cpu")


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"conv1.0.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(la.LalibError, match="cannot be read as weights: it calls exec"):
        la.models.PretrainedEncoder(SMALL, tmp_path / "trap.pth")


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_damaged_file(small, ending, tmp_path):
    path = tmp_path / f"weights.{ending}"
    save_file(_state(small), path) if ending == "safetensors" else torch.save(_state(small), path)
    whole = path.read_bytes()
    for share in (0, 0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(la.LalibError, match="damaged, or no state dict"):
            read_weights(path)
    for thing in ([1.0], {"a": 1}, torch.zeros(3)):
        torch.save(thing, tmp_path / "thing.pth")
        with pytest.raises(la.LalibError, match="damaged, or no state dict"):
            read_weights(tmp_path / "thing.pth")


def test_what_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="'DEFAULT', None or the path of a file, got 'default'"):
        la.models.PretrainedEncoder(SMALL, "default")
    with pytest.raises(ValueError, match="sha256= is of a file"):
        la.models.PretrainedEncoder(SMALL, sha256="0" * 64)
    with pytest.raises(TypeError, match="name must be str, got int"):
        la.models.PretrainedEncoder(18)

    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(la.LalibError, match=rf"{SMALL} could not be had .*no network.*path of the file at https://"):
        la.models.PretrainedEncoder(SMALL)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(la.LalibError, match=r"got 'resnet5'; close to it: 'resnet50'.*pip install"):
        la.models.PretrainedEncoder("resnet5")
    with pytest.raises(la.LalibError, match=r'timm is not installed: pip install "lalib\[photos\]"'):
        la.models.PretrainedEncoder()


def test_networks_of_timm(tmp_path):
    timm = pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"got 'vit_smal_patch16_224'; close to it: .*'vit_small_patch16_224'"):
        la.models.PretrainedEncoder("vit_smal_patch16_224")
    name, images = "vit_tiny_patch16_224", _images()
    encoder = la.models.PretrainedEncoder(name, None, device="cpu")
    with la.data.seeded(0, "weights"):
        net = timm.create_model(name).eval()
    with torch.no_grad():
        x = images.images.float() / 255
        wanted = net.forward_head(net.forward_features((x - 0.5) / 0.5), pre_logits=True)  # mean and spread of its own
    assert torch.allclose(la.encode(encoder, images), wanted, atol=1e-4)
    torch.save(net.state_dict(), tmp_path / "timm.pth")
    filled = la.models.PretrainedEncoder(name, tmp_path / "timm.pth", device="cpu", seed=1)
    assert torch.equal(la.encode(filled, images), la.encode(encoder, images))


def test_weights_of_the_package_know_photographs():
    """The last layer that the package's file holds, on our codes, names what is on scikit-learn's two photographs."""
    pytest.importorskip("timm")
    if importlib.util.find_spec(LITE_FILE[0]) is None:
        pytest.skip("the extra photos is not installed")
    from sklearn.datasets import load_sample_images
    from torchvision.models import EfficientNet_B0_Weights

    encoder = la.models.PretrainedEncoder(LITE, device="cpu")
    assert encoder.latent_dim == 1280
    state = read_weights(resources.files(LITE_FILE[0]).joinpath(LITE_FILE[1]))
    photos = load_sample_images().images
    codes = torch.cat([la.encode(encoder, la.from_arrays(photo[None])) for photo in photos])
    found = (codes @ state["_fc.weight"].T + state["_fc.bias"]).argmax(1)
    names = EfficientNet_B0_Weights.DEFAULT.meta["categories"]
    assert [names[k] for k in found.tolist()] == ["bell cote", "daisy"]  # a temple's roof and a flower
