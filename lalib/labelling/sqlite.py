"""The file behind LabelStore: its tables, one transaction at a time, and what SQLite's errors mean to a person.

Every transaction opens the file anew. So a store may be used from any thread and any number of kernels, nothing needs
closing, and a file that was deleted or replaced meanwhile is noticed instead of written into the void. The rollback
journal (not WAL) leaves one file, which may be copied, and needs no shared memory. synchronous=EXTRA: what was
committed outlives a killed process and a power cut.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from lalib.data.checks import LalibError, listed
from lalib.labelling.answers import check_store_classes

APPLICATION = 0x6C616C62  # "lalb" in the file's header: this is a file of labels
VERSION = 1
WAIT = 10.0  # seconds that a transaction waits for those of other processes
SETTINGS = ("PRAGMA synchronous = EXTRA", "PRAGMA foreign_keys = ON")  # of each connection

# Rows are only ever added. An undo names the event that it takes back. What counts is the last standing answer of each
# labeller on each image, by its time: answers that are read from elsewhere find their place among those that are here.
SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE classes (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    labeller TEXT NOT NULL,
    time TEXT NOT NULL,
    image TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('class', 'unsure', 'skip', 'undo')),
    class TEXT REFERENCES classes (name),
    undone INTEGER UNIQUE REFERENCES events (id),
    CHECK ((kind = 'class') = (class IS NOT NULL)),
    CHECK ((kind = 'undo') = (undone IS NOT NULL))
);
CREATE INDEX events_by_time ON events (labeller, time);
CREATE INDEX events_by_image ON events (labeller, image, time);
CREATE VIEW standing AS
    SELECT id, labeller, time, image, kind, class FROM events
    WHERE kind <> 'undo' AND NOT EXISTS (SELECT 1 FROM events AS later WHERE later.undone = events.id);
CREATE VIEW answers AS
    SELECT id, labeller, time, image, kind, class FROM
        (SELECT *, row_number() OVER (PARTITION BY labeller, image ORDER BY time DESC, id DESC) AS place FROM standing)
    WHERE place = 1;
"""

DAMAGED = "is damaged: restore a copy, or save what can be read with `sqlite3 FILE .recover`"
MEANINGS = {  # by SQLite's primary result code
    sqlite3.SQLITE_NOTADB: "is not a file of labels",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_FULL: "cannot grow, the disk is full. This was not saved, what came before is; make room, try again",
    sqlite3.SQLITE_IOERR: "cannot be read or written. This was not saved; is the disk full, a quota used up, or gone?",
    sqlite3.SQLITE_READONLY: "is write-protected, so this was not saved",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: is it, or at least its folder, there, and may you write to it?",
    sqlite3.SQLITE_BUSY: f"was in use by another program for {WAIT:g} s (unsaved changes there?); nothing was saved",
}


@contextlib.contextmanager
def transaction(path: Path, *, write: bool = False, create: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection inside one transaction, committed when the block ends well, else rolled back.

    Raises LalibError, with what happened in words, for every failure of SQLite; the file is then as it was.
    """
    try:
        uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=WAIT)) as connection:
            for statement in SETTINGS:
                connection.execute(statement)
            connection.execute("BEGIN IMMEDIATE" if write or create else "BEGIN")
            yield connection
            connection.execute("COMMIT")
    except (sqlite3.Error, UnicodeDecodeError) as error:  # damaged names make even SQLite's messages unreadable
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # without: text that is not UTF-8
        raise LalibError(f"{path} {MEANINGS.get(code, 'failed')} ({error})") from error


def check_file(path: Path, class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Make the file if there is none, check it if there is; its class names.

    Raises TypeError and ValueError for names that make no classes, LalibError for a file that LabelStore refuses.
    """
    class_names = None if class_names is None else check_store_classes(class_names)
    new = not path.exists() or (path.is_file() and path.stat().st_size == 0)  # SQLite fills a file when it commits
    if new and class_names is None:
        raise LalibError(f"{path} is not there, or empty: a new file of labels needs class_names")
    header = "pragma_application_id, pragma_user_version, (SELECT count(*) FROM sqlite_master)"
    with transaction(path, create=new) as connection:
        application, version, tables = connection.execute(f"SELECT * FROM {header}").fetchone()
        if new and application == tables == 0:  # another kernel may have been faster
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.executemany("INSERT INTO classes VALUES (?, ?)", enumerate(class_names))
        elif application != APPLICATION:
            raise LalibError(f"{path} is not a file of labels, but an SQLite file of another program")
        elif version != VERSION:
            raise LalibError(f"{path} has version {version} of its format; this lalib reads version {VERSION}")
        if foreign := _foreign(connection):
            raise LalibError(f"{path} is not as lalib writes files of labels, another program changed: {foreign}")
        said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok" or connection.execute("PRAGMA foreign_key_check").fetchone():
            raise LalibError(f"{path} {DAMAGED} ({said if said != 'ok' else 'an answer is of no class'})")
        found = tuple(name for (name,) in connection.execute("SELECT name FROM classes ORDER BY number"))
    if class_names not in (None, found):
        order = " in another order" if sorted(class_names) == sorted(found) else ""
        here, got = (", ".join(map(repr, names)) for names in (found, class_names))
        hint = "Labels of other classes need a file of their own; write_csv and read_csv carry over what both have"
        raise LalibError(f"{path} has the classes {here}{order}, got {got}. {hint}")
    return found


def _foreign(connection):
    """What of SCHEMA is not as it was made, and foreign triggers and indices; tables of one's own may be there."""
    parts = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        model.executescript(SCHEMA)
        ours, here = (set(each.execute(parts)) for each in (model, connection))
    strange = [part for part in here - ours if part[0] in ("trigger", "index")]
    return listed(sorted(f"{kind} {name}" for kind, name, _ in {*strange, *ours - here}))
