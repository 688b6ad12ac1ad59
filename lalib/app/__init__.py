"""From images to a classifier, as a page in the browser: `make app`, or `python -m lalib.app --help`.

__main__ reads the command line and the images, then serves; `prepare`, in a process of its own, makes codes and a map;
server keeps the page closed to all but the holder of the token; page.ipynb, which Voila shows, calls `shown`.
"""

from lalib.app.page import Settings, page, prepare, shown

__all__ = ["Settings", "page", "prepare", "shown"]
