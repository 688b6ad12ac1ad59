"""The command line of the app: `make app` calls it. `python -m lalib.app predict` applies what came of it."""

import argparse
import contextlib
import os
import secrets
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from lalib.app.page import Settings, plain
from lalib.app.server import server
from lalib.codes.kept import CODES_FILES
from lalib.data.checks import LalibError
from lalib.labelling.result import apply_result, write_predictions


def parser() -> argparse.ArgumentParser:
    """What may be said on the command line."""
    made = argparse.ArgumentParser("python -m lalib.app", description="From images to a classifier, in a browser.")
    add, usual = made.add_argument, Settings
    add("--images", default=usual.images, help="a folder, or a data set's name (%(default)s)")
    add("--classes", default="", help="to label with, such as cat,dog; by default the folder's sub-folders")
    add("--labels", help="the file that takes the labels (runs/labels-IMAGES.sqlite)")
    add("--labeller", default=usual.labeller, help="who labels (%(default)s)")
    add("--size", type=int, default=usual.size, help="pixels to which photos are brought (%(default)s)")
    add("--bad-files", default=usual.bad_files, choices=["refuse", "skip"], help="in the folder (%(default)s)")
    add("--codes", default=usual.codes, help="vae, the name of a pretrained network, or a file of codes (%(default)s)")
    add("--seconds", type=float, default=usual.seconds, help="to learn the map, at least one epoch (%(default)s)")
    add("--rename", default=usual.rename, help="old:new, a class that has another name from now on")
    add("--port", type=int, default=8866, help="the first port to try (%(default)s)")
    return made


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings, paths absolute: a kernel may start in another folder."""
    folder = Path(options.images).expanduser()
    images = str(folder.resolve()) if folder.is_dir() else options.images
    labels = Path(options.labels or f"runs/labels-{Path(images).name}.sqlite").expanduser().resolve()
    classes = tuple(name.strip() for name in options.classes.split(",") if name.strip())
    rest = {name: getattr(options, name) for name in ("labeller", "size", "bad_files", "codes", "seconds", "rename")}
    if Path(options.codes).suffix in CODES_FILES:
        rest["codes"] = str(Path(options.codes).expanduser().resolve())
    return Settings(images, classes, str(labels), **rest)


def predict(arguments: list[str]) -> None:
    """What the classifier in a folder of results says of other images, into a CSV file."""
    made = argparse.ArgumentParser("python -m lalib.app predict", description=predict.__doc__)
    add = made.add_argument
    add("result", help="the folder that labelling ended with")
    add("images", help="a folder")
    add("--out", default="predictions.csv", help="the file to write (%(default)s)")
    add("--codes", help="a file of these images' codes, for a classifier that learnt from such a file")
    add("--bad-files", default=Settings.bad_files, choices=["refuse", "skip"], help="in the folder (%(default)s)")
    given = made.parse_args(arguments)
    try:
        table = apply_result(given.result, given.images, given.codes, bad_files=given.bad_files)
        out = write_predictions(Path(given.out), table)
    except (LalibError, ValueError, TypeError, OSError) as error:
        sys.exit(f"error: {plain(error).replace('BAD_FILES=', '--bad-files ')}")
    print(f"{len(table)} predictions are in {out.absolute()}: {table['class'].value_counts().to_dict()}")


@contextlib.contextmanager
def preparing(settings: Settings) -> Iterator[None]:
    """Another process prepares what takes time, while the block serves the page; it ends with the block."""
    settings.tell(os.environ)
    settings.say("The page is prepared.")
    command = [sys.executable, "-c", "import os; os.nice(10); from lalib.app import prepare; prepare()"]
    process = subprocess.Popen(command, start_new_session=True)  # which Ctrl-C does not reach

    def watch():
        if process.wait() and not settings.said().get("failed"):  # killed, for want of memory perhaps
            settings.say("What prepares the page was ended.", 1, 1, failed=True)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        process.kill()


def main(arguments: list[str] | None = None) -> None:
    """Read the images, then serve until Ctrl-C; or predict."""
    arguments = sys.argv[1:] if arguments is None else arguments
    warnings.showwarning = lambda message, *_: print(f"{plain(message)}.", flush=True)  # without a line of code
    if arguments[:1] == ["predict"]:
        return predict(arguments[1:])
    settings = settings_of(options := parser().parse_args(arguments))
    print(f"Reading the images ({settings.images}) ...", flush=True)
    try:
        print(f"{len(settings.check()):,} images. Labels go to {settings.labels}", flush=True)
    except (LalibError, ValueError, TypeError, OSError) as error:
        sys.exit(f"error: {plain(error)}")
    with preparing(settings):
        server(Path(__file__).with_name("page.ipynb"), options.port, secrets.token_urlsafe(32)).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
