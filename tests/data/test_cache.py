"""A folder's pixels in a map: the same as without one, only what changed is read, never a wrong or half map."""

import errno
import os
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from forks import run_code
from odd_files import DEEP, GREY, RGB, odd_files, saved
from PIL import Image

import lalib as la
from lalib.app import Settings
from lalib.data import cache, folders

FILES = odd_files()
N = 12


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(FILES[name.split("/")[-1]][0])


def photos(folder, n=N):
    """Small photos in colour, all different, in two class folders."""
    for i in range(n):
        place = folder / ("cat" if i % 3 else "dog") / f"{i:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(saved(np.roll(RGB, i, axis=1) + i, "PNG"))
    return folder


def same(images, expected):
    """Images, labels, names and hashes."""
    assert images.fingerprint() == expected.fingerprint()
    assert (images.files, images.class_names) == (expected.files, expected.class_names)
    assert images.identities == expected.identities


@pytest.fixture
def read(monkeypatch):
    """The names of the files that are decoded, in a list."""
    names, before = [], folders.read_image

    def read_image(file, *rest):
        names.append(file.name)
        return before(file, *rest)

    monkeypatch.setattr(folders, "read_image", read_image)
    return names


def test_a_cache_gives_the_same_images_and_reads_nothing_twice(tmp_path, read, monkeypatch):
    expected = la.from_folder(photos(tmp_path / "photos"), 9)
    same(la.from_folder(tmp_path / "photos", 9, cache=tmp_path / "a" / "cache"), expected)
    assert len(read) == 2 * N
    monkeypatch.setattr(folders, "read_header", None)  # called, it would be a TypeError
    again = la.from_folder(tmp_path / "photos", 9, cache=str(tmp_path / "a" / "cache"))
    same(again, expected)
    assert len(read) == 2 * N
    assert "map" in {file.suffix[1:] for file in (tmp_path / "a" / "cache").iterdir()}
    assert again.images.untyped_storage().nbytes() == expected.images.nbytes


def test_only_new_and_changed_files_are_read(tmp_path, read):
    folder, kept = photos(tmp_path / "photos"), tmp_path / "cache"
    first = la.from_folder(folder, 9, cache=kept)
    before = first.images.clone()
    (folder / "cat" / "01.png").unlink()
    (folder / "cat" / "20.png").write_bytes(saved(GREY, "PNG"))
    (folder / "dog" / "03.png").write_bytes(saved(RGB[::-1], "PNG"))
    (folder / "dog" / "06.png").rename(folder / "dog" / "00a.png")
    read.clear()
    images = la.from_folder(folder, 9, cache=kept)
    assert sorted(read) == ["00a.png", "03.png", "20.png"]
    same(images, la.from_folder(folder, 9))
    assert first.images.equal(before)  # a map that is in use stays as it is
    assert sum(file.suffix == ".map" for file in kept.iterdir()) == 1
    (folder / "dog" / "09.png").unlink()  # the last one
    read.clear()
    same(la.from_folder(folder, 9, cache=kept), la.from_folder(folder, 9))


def test_a_file_of_the_same_size_and_date_is_read_again(tmp_path, read):
    place = tmp_path / "photos" / "0.bmp"
    place.parent.mkdir()
    place.write_bytes(saved(RGB, "BMP"))
    la.from_folder(place.parent, 9, cache=tmp_path / "cache")
    about = place.stat()
    place.write_bytes(saved(RGB[::-1], "BMP"))
    os.utime(place, ns=(about.st_atime_ns, about.st_mtime_ns))
    same(la.from_folder(place.parent, 9, cache=tmp_path / "cache"), la.from_folder(place.parent, 9))


@pytest.mark.filterwarnings("ignore:.* have more than 8 bits:UserWarning")
def test_all_that_pixels_depend_on_counts(tmp_path, monkeypatch):
    """One cache, one folder after the other and one look after the other."""
    kept, folder = tmp_path / "cache", tmp_path / "photos"
    put(folder, "L.png", "16.tif", "LA.png")
    looks = [{"size": 9}, {"size": (9, 8)}, {"size": 9, "fit": "pad"}, {"size": 9, "fit": "pad", "background": "black"}]
    looks += [{"size": 9, "depth": (0, 999)}, {}]
    for _ in range(2):
        for look in looks:
            same(la.from_folder(folder, cache=kept, **look), la.from_folder(folder, **look))
    (folder / "deeper.tif").write_bytes(saved((DEEP * 9).astype(np.uint16), "TIFF"))  # another range for all
    for look in looks:
        same(la.from_folder(folder, cache=kept, **look), la.from_folder(folder, **look))
    put(folder, "RGBA.png")  # and another number of colours
    for look in looks[:-1]:
        same(la.from_folder(folder, cache=kept, **look), la.from_folder(folder, **look))
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "L.png").write_bytes(saved(255 - GREY, "PNG"))
    same(la.from_folder(other, 9, cache=kept), la.from_folder(other, 9))
    same(la.from_folder(folder, 9, cache=kept), la.from_folder(folder, 9))


def test_another_lalib_or_pillow_reads_anew(tmp_path, read, monkeypatch):
    la.from_folder(photos(tmp_path / "photos"), 9, cache=tmp_path / "cache")
    monkeypatch.setattr("PIL.__version__", "0.1")
    read.clear()
    same(la.from_folder(tmp_path / "photos", 9, cache=tmp_path / "cache"), la.from_folder(tmp_path / "photos", 9))
    assert len(read) == 2 * N


@pytest.mark.parametrize("damage", ["half a list", "no list", "half a map", "an empty map", "no map", "another's list"])
def test_a_half_written_cache_is_made_anew(damage, tmp_path, read):
    folder, kept = photos(tmp_path / "photos"), tmp_path / "cache"
    la.from_folder(folder, 9, cache=kept)
    (index,), (rows,) = kept.glob("*.json"), kept.glob("*.map")
    if damage.startswith("no "):
        (index if "list" in damage else rows).unlink()
    elif damage == "another's list":
        index.write_text("[1, 2]")
    else:
        place = index if "list" in damage else rows
        os.truncate(place, 0 if "empty" in damage else place.stat().st_size // 2)
    read.clear()
    same(la.from_folder(folder, 9, cache=kept), la.from_folder(folder, 9))
    assert len(read) == N + (N // 2 if damage == "half a map" else N)
    assert len(list(kept.iterdir())) == 3


@pytest.mark.filterwarnings("ignore:.*left out:UserWarning")
def test_bad_files_are_as_without_a_cache(tmp_path, read):
    """Truncated ones, which only reading shows; they are tried again, the others are not."""
    folder, kept = tmp_path / "photos", tmp_path / "cache"
    put(folder, "50%.png", "L.png", "90%.jpg", "LA.png", "text.png", "EXIF 6.png")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"3 of 6 images cannot be read: 50%.png .*, 90%.jpg .*, text.png "):
            la.from_folder(folder, 9, cache=kept)
    assert sorted(read) == sorted(["50%.png", "90%.jpg"] * 2 + ["EXIF 6.png", "L.png", "LA.png"])
    expected = la.from_folder(folder, 9, bad_files="skip")
    assert expected.image_shape == (1, 9, 9)  # 90%.jpg may be in colour
    for _ in range(2):
        same(la.from_folder(folder, 9, bad_files="skip", cache=kept), expected)
        maps = [(file.name, file.stat().st_mtime_ns) for file in kept.glob("*.map")]
    same(la.from_folder(folder, 9, bad_files="skip", cache=kept), expected)
    assert maps == [(file.name, file.stat().st_mtime_ns) for file in kept.glob("*.map")]
    for name in ("L.png", "LA.png", "EXIF 6.png"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=r"3 of 3 images cannot be read: .*. None is left"):
        la.from_folder(folder, 9, bad_files="skip", cache=kept)


@pytest.mark.parametrize("kept", [None, "cache"])
def test_a_truncated_file_has_no_say_in_the_colours(kept, tmp_path):
    whole = saved(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), "PNG")
    put(tmp_path / "photos", "L.png")
    (tmp_path / "photos" / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="half.png"):
        images = la.from_folder(tmp_path / "photos", 9, bad_files="skip", cache=kept and tmp_path / kept)
    (tmp_path / "photos" / "half.png").unlink()
    same(images, la.from_folder(tmp_path / "photos", 9))


@pytest.mark.parametrize("when", ["at the list", "at the pixels"])
def test_a_full_disk(when, tmp_path, monkeypatch, read):
    folder, kept = photos(tmp_path / "photos"), tmp_path / "cache"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        if when == "at the list":
            patch.setattr(cache.json, "dumps", lambda _: full())
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (N * 243 - 1, limits[1]))  # bytes that a file may have
        try:
            with pytest.raises(la.LalibError, match=r"the cache .*cache cannot be written: (No space left|File too)"):
                la.from_folder(folder, 9, cache=kept)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.suffix for file in kept.iterdir()] == [".lock"]
    same(la.from_folder(folder, 9, cache=kept), la.from_folder(folder, 9))


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_cache_where_there_can_be_none(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(la.LalibError, match=r"the cache .*file cannot be written: File exists"):
        la.from_folder(photos(tmp_path / "photos"), 9, cache=tmp_path / "file")


def test_a_folder_that_changes_while_it_is_read(tmp_path, monkeypatch):
    folder, before = photos(tmp_path / "photos"), folders.read_image

    def read_image(file, *rest):
        found = before(file, *rest)
        if file.name == "02.png":
            file.write_bytes(saved(GREY, "PNG"))
        if file.name == "03.png":
            file.unlink()
        return found

    for kept in (None, tmp_path / "cache"):
        photos(folder)
        with monkeypatch.context() as patch:
            patch.setattr(folders, "read_image", read_image)
            said = (
                r"2 of 12 images cannot be read: cat/02.png \(it has changed while it was read\), dog/03.png \(No such"
            )
            with pytest.warns(UserWarning, match=said):
                images = la.from_folder(folder, 9, bad_files="skip", cache=kept)
        assert len(images) == N - 2
        now = la.from_folder(folder, 9, cache=kept)
        assert len(now) == N - 1
        same(now, la.from_folder(folder, 9))


MAKE = """
import lalib as la
from lalib.data import cache, folders
before = folders.read_image
def read_image(file, *rest):
    with open(log, "a") as out:
        print(file.name, file=out)
    return before(file, *rest)
folders.read_image = read_image
"""


def test_two_processes_make_one_cache(tmp_path):
    """The second waits for the first: every file is read once."""
    folder, log = photos(tmp_path / "photos"), tmp_path / "log"
    expected = la.from_folder(folder, 9)
    code = MAKE + "assert la.from_folder(folder, 9, cache=kept).fingerprint() == expected"
    names = {"folder": str(folder), "kept": str(tmp_path / "cache"), "expected": expected.fingerprint()}
    both = [run_code(code, log=str(log), **names) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len(log.read_text().split()) == N


@pytest.mark.parametrize("end", ["kill", "Ctrl-C"])
def test_what_was_read_before_the_end_is_not_read_again(end, tmp_path, read):
    folder, log = photos(tmp_path / "photos", 40), tmp_path / "log"
    code = MAKE + (
        "import os, signal, torch\n"
        "torch.set_num_threads(1)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in a shell's background ignores it
        "cache.EVERY = 0 if end == 'kill' else 99\n"
        "def deadly(file, *rest):\n"
        "    if file.name == '29.png':\n"  # in the order of the class folders the 20th
        "        os.kill(os.getpid(), signal.SIGKILL) if end == 'kill' else signal.raise_signal(signal.SIGINT)\n"
        "    return read_image(file, *rest)\n"
        "folders.read_image = deadly\n"
        "la.from_folder(folder, 9, cache=kept)\n"
    )
    process = run_code(code, folder=str(folder), kept=str(tmp_path / "cache"), log=str(log), end=end)
    process.join()
    assert process.exitcode == (-signal.SIGKILL if end == "kill" else 1)
    images = la.from_folder(folder, 9, cache=tmp_path / "cache")
    done = log.read_text().split()
    assert done.index("28.png") == 18
    assert len(read) <= 40 - 12  # but for what waited to be written
    assert set(done) | set(read) == {f"{i:02}.png" for i in range(40)}
    same(images, la.from_folder(folder, 9))
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_the_number_of_threads_does_not_matter(tmp_path):
    folder, threads = photos(tmp_path / "photos", 40), torch.get_num_threads()
    (folder / "cat" / "04.png").write_bytes(b"")
    found = []
    try:
        for n in (1, 4):
            torch.set_num_threads(n)
            with pytest.warns(UserWarning, match="1 of 40 images cannot be read: cat/04.png"):
                found.append(la.from_folder(folder, 9, bad_files="skip"))
    finally:
        torch.set_num_threads(threads)
    same(*found)


def test_the_app_reads_a_folder_once(tmp_path, read):
    settings = Settings(str(photos(tmp_path / "photos")), (), str(tmp_path / "runs" / "labels.sqlite"), size=9)
    first = settings.load()
    settings.store(first)
    assert len(read) == N
    same(settings.load(), first)
    assert len(read) == N


@pytest.mark.parametrize("place", ["", "cache", "deep/cache"])
def test_a_cache_among_the_photos_must_be_hidden(place, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"cache must be a folder outside .*, or a hidden one in it, got "):
        la.from_folder(tmp_path, cache=tmp_path / place)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert len(la.from_folder(tmp_path, cache=tmp_path / ".cache" / place)) == 1


def test_what_is_written_to_images_stays_in_memory(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    images = la.from_folder(tmp_path, cache=tmp_path / ".cache").images
    images += 7
    assert images.unique().tolist() == [7]
    assert la.from_folder(tmp_path, cache=tmp_path / ".cache").images.unique().tolist() == [0]


def test_a_cache_is_a_path(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(TypeError, match=r"cache must be .*, got int"):
        la.from_folder(tmp_path, cache=3)
