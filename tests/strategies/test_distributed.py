"""Selection from Dask arrays in pieces: the picks of select, also where workers die; every error message."""

import os
import signal
from multiprocessing import forkserver

import numpy as np
import pytest
import torch
from forks import FORKS

from lalib.data.checks import LalibError
from lalib.strategies import select, select_distributed

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

PIECES = (700, 800, 300, 1200)
SIZE = sum(PIECES)
LABELED = np.array([2999, 4, 900, 700])
WHOLE = np.r_[700:1500, 4, 2999]  # all of piece 1
CASES = [
    ("random", (), {}),
    ("core-set", (), {"space": "codes"}),
    ("core-set", ("features",), {}),
    ("core-set", ("features",), {"space": "both", "alpha": 0.5}),
    ("badge", ("probs", "features"), {}),
    ("k-medoids", (), {"iterations": 20}),
    ("margin", ("probs",), {}),
    ("entropy", ("probs",), {}),
    ("least-confidence", ("probs",), {}),
]


def pool():
    """Clusters far apart, with duplicates over a border between pieces, and probabilities that tie."""
    rng = np.random.default_rng(0)
    codes = (8 * rng.normal(size=(10, 5)))[rng.integers(10, size=SIZE)] + rng.normal(size=(SIZE, 5))
    codes[1300:1700] = codes[500:900]
    probs, features = rng.dirichlet(np.ones(4), size=SIZE).round(2), rng.normal(size=(SIZE, 6)).astype(np.float32)
    probs[:, 3] += 1 - probs.sum(axis=1)
    features[1300:1700] = features[500:900]
    return {"codes": codes.astype(np.float32), "probs": np.clip(probs, 0, 1), "features": features}


POOL = pool()


def in_pieces(array, rows=PIECES):
    return da.from_array(array, chunks=(rows, array.shape[1]))


def both(name, needs, n, *, codes=None, labeled=None, options=None, client=None, seed=3):
    """What is picked in pieces and on the whole."""
    codes = POOL["codes"] if codes is None else codes
    sources, options = {name: POOL[name] for name in needs}, {"labeled": labeled, "seed": seed, **(options or {})}
    given = {name: in_pieces(array) for name, array in sources.items()}
    return select_distributed(name, in_pieces(codes), n, client=client, **given, **options), select(
        name, codes, n, **sources, **options
    )


@pytest.fixture(scope="module", autouse=True)
def client():
    """A cluster of threads, the current one."""
    with distributed.Client(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as client:
        yield client


@pytest.mark.parametrize("labeled", [None, LABELED, WHOLE], ids=["none", "some", "a piece"])
@pytest.mark.parametrize(("name", "needs", "options"), CASES)
def test_picks_are_those_of_select(name, needs, options, labeled):
    found, wanted = both(name, needs, 5, labeled=labeled, options=options)
    assert found.dtype == torch.int64
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize(("name", "needs"), [("core-set", ("features",)), ("badge", ("probs", "features"))])
def test_more_picks_than_places(name, needs, monkeypatch):
    """Once every place is taken, the lowest index comes first, or duplicates are drawn uniformly."""
    few = {key: np.tile(array[:3], (SIZE // 3, 1)) for key, array in POOL.items()}
    monkeypatch.setitem(globals(), "POOL", few)
    found, wanted = both(name, needs, 8, labeled=LABELED)
    assert found.tolist() == wanted.tolist()


def test_medoids_of_more_clusters_than_places():
    codes = np.tile(POOL["codes"][:3], (SIZE // 3, 1))
    found = select_distributed("k-medoids", in_pieces(codes), 8, labeled=LABELED)
    assert len(set(found.tolist())) == 8
    assert not set(found.tolist()) & set(LABELED)
    assert len(np.unique(codes[found], axis=0)) == 3


def test_a_piece_in_columns_an_empty_one_and_half_precision():
    codes = POOL["codes"].astype(np.float16)
    given = da.from_array(codes, chunks=((700, 0, 2300), (2, 3)))
    found = select_distributed("core-set", given, 5, space="codes")
    assert found.tolist() == select("core-set", codes, 5, space="codes").tolist()


class Reading:
    """Reads a piece from a file, and does something else first."""

    def __init__(self, path, before=None):
        self.path, self.before = path, before
        np.save(path, POOL["codes"])

    def __call__(self, block_info=None):
        start, stop = block_info[None]["array-location"][0]
        if self.before:
            self.before(start)
        return np.load(self.path, mmap_mode="r")[start:stop]

    def array(self):
        return da.map_blocks(self, chunks=(PIECES, (5,)), meta=np.empty((0, 0), np.float32))


class Fails:
    def __init__(self, error, at=1500):
        self.error, self.at = error, at

    def __call__(self, start):
        if start == self.at:
            raise self.error


class Dies:
    """Ends its process, once, when the piece is read for the third time."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, start):
        if start == 1500:
            (self.folder / str(len(list(self.folder.iterdir())))).touch()
            if len(list(self.folder.iterdir())) == 3:
                os.kill(os.getpid(), signal.SIGKILL)


def test_pieces_are_read_by_the_workers_from_a_file_or_a_memory_map(tmp_path):
    wanted = select("core-set", POOL["codes"], 5, space="codes").tolist()
    read = Reading(tmp_path / "codes.npy").array()
    assert select_distributed("core-set", read, 5, space="codes").tolist() == wanted
    mapped = in_pieces(np.load(tmp_path / "codes.npy", mmap_mode="r"))
    assert select_distributed("core-set", mapped, 5, space="codes").tolist() == wanted
    assert select_distributed("core-set", read.persist(), 5, space="codes").tolist() == wanted


def test_a_worker_that_is_killed_changes_nothing(tmp_path):
    """What it was asked is lost; the cluster starts another process."""
    (tmp_path / "log").mkdir()
    read = Reading(tmp_path / "codes.npy", Dies(tmp_path / "log")).array()
    forkserver.ensure_running()  # before Dask says what it shall have imported
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": FORKS.get_start_method()}),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        found = select_distributed("core-set", read, 7, space="codes", client=client)
    assert found.tolist() == select("core-set", POOL["codes"], 7, space="codes").tolist()
    assert len(list((tmp_path / "log").iterdir())) > 6  # once between two picks, and again after the third time


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError("the disk is gone"), LalibError, r"piece 2, images 1500 to 1799: OSError: the disk is gone"),
        (ValueError("bad file"), ValueError, r"piece 2, images 1500 to 1799: bad file"),
    ],
)
def test_a_piece_that_fails_is_named(error, kind, said, tmp_path, client):
    read = Reading(tmp_path / "codes.npy", Fails(error)).array()
    with pytest.raises(kind, match=said):
        select_distributed("core-set", read, 3, space="codes")
    with pytest.raises(kind, match=said):  # where only the labelled are read
        select_distributed("core-set", read, 3, space="codes", labeled=np.arange(1500, 1800))
    _wait_until_free(client)


def _wait_until_free(client):
    """Nothing of a call stays on the workers."""
    for _ in range(100):
        if not any(client.who_has().values()):
            return
        distributed.wait(client.submit(float, 0, pure=False))
    raise AssertionError(f"kept: {list(client.who_has())}")


@pytest.mark.parametrize("name", ["core-set", "k-medoids"])
def test_nan_in_a_piece(name):
    codes = POOL["codes"].copy()
    codes[1600, 2] = np.nan
    options = {"space": "codes"} if name == "core-set" else {}
    said = r"piece 2, images 1500 to 1799: codes must be finite, but 1 of 300 rows hold NaN or infinity"
    with pytest.raises(ValueError, match=said):
        select_distributed(name, in_pieces(codes), 3, **options)


CODES, PROBS = in_pieces(POOL["codes"]), in_pieces(POOL["probs"])


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (
            ("typiclust", CODES, 3, {}),
            ValueError,
            "strategy must be one of 'random', 'core-set', 'badge', 'k-medoids', ",
        ),
        (
            ("margin", CODES, 3, {"diversity": 1.0}),
            ValueError,
            "margin has no option 'diversity'; its options are: none",
        ),
        (("core-set", CODES, 3, {"space": "latents"}), ValueError, "space must be one of 'features', 'codes', 'both'"),
        (("core-set", CODES, 3, {"space": "both", "alpha": -1}), ValueError, "alpha must be at least 0, got -1"),
        (("k-medoids", CODES, 3, {"iterations": 0}), ValueError, "iterations must be at least 1, got 0"),
        (("margin", CODES, 3, {}), LalibError, "needs probs .* was not given: pass the task model's"),
        (("margin", CODES, 3, {"probs": 3 * PROBS}), ValueError, "piece 0, images 0 to 699: probs must lie in 0 .. 1"),
        (
            ("margin", CODES, 3, {"probs": PROBS.rechunk((1000, 4))}),
            ValueError,
            "rows as codes, 700, 800, 300, 1200, got",
        ),
        (("random", CODES, 2997, {"labeled": LABELED}), ValueError, "n=2997 exceeds the 2996 unlabelled images"),
        (("random", CODES, 3, {"labeled": [3000]}), ValueError, "labeled must lie in 0 to 2999, got 3000"),
        (("random", POOL["codes"], 3, {}), TypeError, "codes must be Array, got ndarray"),
        (
            ("random", CODES[:, 0], 3, {}),
            ValueError,
            r"codes must have two dimensions of known size.* got shape \(3000,\)",
        ),
        (("random", CODES[CODES[:, 0] > 0], 3, {}), ValueError, "codes must have two dimensions of known size"),
        (("random", CODES, 3, {"client": "tcp://here"}), TypeError, "client must be Client, got str"),
    ],
)
def test_errors(call, kind, said):
    strategy, codes, n, others = call
    with pytest.raises(kind, match=said):
        select_distributed(strategy, codes, n, **others)


def test_without_a_cluster(client, monkeypatch):
    def nobody():
        raise ValueError("No clients found")

    monkeypatch.setattr(distributed, "get_client", nobody)
    with pytest.raises(LalibError, match=r"there is no Dask cluster yet: client = dask\.distributed\.Client\(\)"):
        select_distributed("random", CODES, 3)
    assert len(select_distributed("random", CODES, 3, client=client)) == 3
