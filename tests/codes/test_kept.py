"""Codes on disk: they come back to their images, by hash or by name, or the message says which do not."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import lalib as la

N = 6
FILES = ("b/1.png", "a/2.png", "a/10.png", "c/\N{SNOWMAN}.png", "c/new\nline.png", "NA")


@pytest.fixture(scope="module")
def images():
    pixels = torch.randint(0, 256, (N, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return la.ImageSet(pixels, None, (), "test", FILES)


@pytest.fixture(scope="module")
def codes():
    return torch.randn(N, 3, generator=torch.Generator().manual_seed(1))


def _table(codes, **columns):
    return pd.DataFrame(columns).join(pd.DataFrame(codes.numpy(), columns=["x", "y", "z"]))


@pytest.mark.parametrize("name", ["codes.npz", "new/codes.parquet"])
def test_there_and_back_in_any_order(name, tmp_path, images, codes):
    la.codes.save_codes(tmp_path / name, codes.double().numpy(), images)
    back = la.codes.load_codes(tmp_path / name, images)
    assert torch.equal(back, codes)
    assert back.dtype == torch.float32
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.equal(la.codes.load_codes(tmp_path / name, images.subset(order)), codes[order])
    unnamed = la.from_arrays(images.images)  # hashes are enough
    assert torch.equal(la.codes.load_codes(tmp_path / name, unnamed), codes)
    la.codes.save_codes(tmp_path / name, codes, unnamed)
    assert torch.equal(la.codes.load_codes(tmp_path / name, images), codes)
    assert [path.name for path in (tmp_path / name).parent.iterdir()] == [(tmp_path / name).name]


def test_equal_images_have_a_row_each(tmp_path, images, codes):
    twins = la.from_arrays(images.images[[0, 1, 0]])
    la.codes.save_codes(tmp_path / "codes.npz", codes[[0, 1, 0]], twins)
    assert torch.equal(la.codes.load_codes(tmp_path / "codes.npz", twins), codes[[0, 1, 0]])


def test_bare_array_in_the_order_of_names(tmp_path, images, codes):
    order = sorted(range(N), key=FILES.__getitem__)
    np.save(tmp_path / "codes.npy", codes[order].numpy())
    assert torch.equal(la.codes.load_codes(tmp_path / "codes.npy", images), codes)
    assert torch.equal(la.codes.load_codes(tmp_path / "codes.npy", la.from_arrays(images.images)), codes[order])
    with pytest.raises(la.LalibError, match="a row for each of the 5 images, got 6"):
        la.codes.load_codes(tmp_path / "codes.npy", images.subset(range(5)))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("key", ["names", "hashes of another name"])
def test_table_from_elsewhere(ending, key, tmp_path, images, codes):
    keys = list(FILES if key == "names" else images.hashes)
    table = _table(codes, split=["train"] * N, key=keys, seen=[True] * N)[::-1]
    path = tmp_path / f"table.{ending}"
    table.to_csv(path) if ending == "csv" else table.to_parquet(path)  # with the numbers of rows
    assert torch.equal(la.codes.load_codes(path, images), codes)
    by_key = table.drop(columns=["split", "seen"]).set_index("key")
    by_key.to_csv(path) if ending == "csv" else by_key.to_parquet(path)
    assert torch.equal(la.codes.load_codes(path, images), codes)


def test_codes_of_other_images_are_named(tmp_path, images, codes):
    path = tmp_path / "codes.npz"
    la.codes.save_codes(path, codes[:5], images.subset(range(5)))
    with pytest.raises(la.LalibError, match=r"codes of these 6 images: 1 without a row \(NA\)$"):
        la.codes.load_codes(path, images)
    with pytest.raises(la.LalibError, match=r"these 4 images: 1 of no image \(b/1.png\)$"):
        la.codes.load_codes(path, images.subset(range(1, 5)))
    la.codes.save_codes(path, codes[[0, 1, 1]], images.subset([0, 1, 1]))
    with pytest.raises(la.LalibError, match=r"1 without a row \(a/10.png\), 1 twice \(a/2.png\)$"):
        la.codes.load_codes(path, images.subset(range(3)))
    changed = la.ImageSet(255 - images.images[:1], None, (), "test", FILES[:1])  # another image of the same name
    la.codes.save_codes(path, codes[:1], images.subset([0]))
    with pytest.raises(la.LalibError, match=r"1 without a row \(b/1.png\), 1 of no image \(b/1.png\)$"):
        la.codes.load_codes(path, changed)
    _table(codes, file=["x.png", *FILES[1:]]).to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(la.LalibError, match=r"1 without a row \(b/1.png\), 1 of no image \(x.png\)$"):
        la.codes.load_codes(tmp_path / "table.csv", images)


def test_what_cannot_be_kept(tmp_path, images, codes, monkeypatch):
    with pytest.raises(ValueError, match=r"ending of path must be one of '.npz', '.parquet', got '.csv'"):
        la.codes.save_codes(tmp_path / "codes.csv", codes, images)
    with pytest.raises(ValueError, match="codes must be those of the 6 images, got 5"):
        la.codes.save_codes(tmp_path / "codes.npz", codes[:5], images)
    with pytest.raises(ValueError, match="codes must be finite"):
        la.codes.save_codes(tmp_path / "codes.npz", codes * torch.nan, images)
    with pytest.raises(TypeError, match="images must be ImageSet"):
        la.codes.save_codes(tmp_path / "codes.npz", codes, images.images)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pyarrow"):
        la.codes.save_codes(tmp_path / "codes.parquet", codes, images)
    assert list(tmp_path.iterdir()) == []


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('code was run')",)


def test_what_cannot_be_read(tmp_path, images, codes):
    with pytest.raises(FileNotFoundError, match="no codes at"):
        la.codes.load_codes(tmp_path / "none.npz", images)
    with pytest.raises(ValueError, match=r"'.parquet', got '.pkl'"):
        la.codes.load_codes(tmp_path / "codes.pkl", images)
    np.savez(tmp_path / "codes.npz", z=codes.numpy())
    with pytest.raises(la.LalibError, match=r"no codes that can be read: .*codes"):
        la.codes.load_codes(tmp_path / "codes.npz", images)
    np.savez(tmp_path / "codes.npz", codes=codes.numpy())
    with pytest.raises(la.LalibError, match="must hold a name or a hash for each of its 6 rows"):
        la.codes.load_codes(tmp_path / "codes.npz", images)
    np.savez(tmp_path / "codes.npz", codes=codes.numpy(), files=np.array(FILES[:5]))
    with pytest.raises(la.LalibError, match="must hold a name or a hash for each of its 6 rows"):
        la.codes.load_codes(tmp_path / "codes.npz", images)
    _table(codes.where(codes > codes.min(), torch.nan), file=FILES).to_csv(tmp_path / "codes.csv")
    with pytest.raises(ValueError, match=r"codes.csv must be finite, but 1 of 6 rows"):
        la.codes.load_codes(tmp_path / "codes.csv", images)
    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object))
    with pytest.raises(la.LalibError, match="Object arrays cannot be loaded"):
        la.codes.load_codes(tmp_path / "trap.npy", images)
    for name in ("codes.npz", "codes.parquet", "codes.npy"):
        (np.save if name.endswith("npy") else lambda path, x: la.codes.save_codes(path, x, images))(
            tmp_path / name, codes
        )
        whole = (tmp_path / name).read_bytes()
        for share in (0, 0.1, 0.5, 0.95):
            (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(la.LalibError, match=r"can(not)? be read"):
                la.codes.load_codes(tmp_path / name, images)


def test_codes_beyond_single_precision_are_refused(tmp_path, images, codes):
    with pytest.raises(ValueError, match="codes must be finite, but 6 of 6 rows hold NaN or infinity"):
        la.codes.save_codes(tmp_path / "codes.npz", 1e60 * codes.double(), images)
    assert not list(tmp_path.iterdir())
    np.save(tmp_path / "codes.npy", 1e60 * codes.double().numpy())
    with pytest.raises(ValueError, match="must be finite, but 6 of 6 rows hold NaN or infinity"):
        la.codes.load_codes(tmp_path / "codes.npy", images)


def test_names_in_a_column_are_names(tmp_path, images, codes):
    np.savez(tmp_path / "codes.npz", codes=codes.numpy(), files=np.array(FILES)[:, None])
    assert torch.equal(la.codes.load_codes(tmp_path / "codes.npz", images), codes)
