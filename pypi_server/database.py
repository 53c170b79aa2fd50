"""devpi's SQLite database, looked at from outside while a server may be at work on it.

Source: devpi_server/keyfs_sqlite.py. ``changelog`` has one row for each commit, which never changes: all keys that it set,
with their values. ``kv`` has for each key the serial of the commit that set it last.
"""

import hashlib
import itertools
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jobs import PAUSE, Refusal, tell

STEP = 2_000  # pages of 4 KiB; a commit waits while a step is copied, some 10 ms
BEGINNINGS = 20
BEGINNING = -1, hashlib.sha256()
# The keys of files: what was uploaded, or mirrored with a digest; and what was mirrored without one.
FILES = ("STAGEFILE", "PYPIFILE_NOMD5")
Digests = dict[str, str]


class Restless(Exception):
    """Too many commits came in between the steps of a copy."""


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to a database that has to be there."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=60)


def copy(source: Path, target: Path, mode: str = "rw") -> None:
    """Copy a database as it is at one instant, by SQLite's online backup.

    A commit between two steps makes SQLite begin again. After so many beginnings the copy is made in one step.
    """
    beginnings, before, told = 0, 0, time.monotonic()

    def watch(_: int, remaining: int, total: int) -> None:
        nonlocal beginnings, before, told
        beginnings += remaining > before
        before = remaining
        if beginnings > BEGINNINGS:
            raise Restless
        if time.monotonic() - told > PAUSE:
            told = time.monotonic()
            tell("pages of the database", total - remaining, total)

    # Read-write: what a killed server left half-done is undone first, as the server itself would.
    original, made = connect(source, mode), sqlite3.connect(target)
    made.execute("PRAGMA synchronous = OFF")  # what is made of it is synced as a whole
    try:
        try:
            original.backup(made, pages=STEP, progress=watch, sleep=0.01)
        except Restless:
            original.backup(made)
    finally:
        made.close()
        original.close()


def digests_of(value: dict[str, Any]) -> Digests:
    """What devpi knows of a file's content: digests by the names of their algorithms. Where its two notes of it disagree, it
    believes ``hash_spec`` alone, and so do we."""
    found = {str(name): str(digest) for name, digest in (value.get("hashes") or {}).items()}
    name, equals, digest = str(value.get("hash_spec") or "").partition("=")
    return {name: digest} if equals and found.get(name) != digest else found


def file_of(value: dict[str, Any] | None) -> Digests | None:
    """The digests of a file's entry; None where there is no file. Of a mirror's files devpi knows many that it has never
    fetched: they have no time of modification."""
    return digests_of(value) if value and value.get("last_modified") else None


class Database:
    """A database that nobody writes to meanwhile: a copy, or that of a server that is stopped."""

    def __init__(self, path: Path, mode: str = "ro") -> None:
        self.connection = connect(path, mode)
        self.past = BEGINNING

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    @property
    def serial(self) -> int:
        """The last commit; -1 where there is none."""
        found = self.connection.execute("SELECT MAX(serial) FROM changelog").fetchone()[0]
        return -1 if found is None else int(found)

    def digest(self, serial: int) -> str:
        """A digest of all commits up to one, in their order, by which pasts are told apart. Asked of a later one it goes on."""
        at, found = self.past if self.past[0] <= serial else BEGINNING
        found = found.copy()
        query = "SELECT serial, data FROM changelog WHERE serial > ? AND serial <= ? ORDER BY serial"
        for number, data in self.connection.execute(query, (at, serial)):
            found.update(b"%d %d " % (number, len(data)))
            found.update(data)
        self.past = serial, found
        return found.hexdigest()

    def changes(self, serial: int) -> dict[str, Any]:
        """The keys that a commit set, with the name of their kind, the serial before, and the value."""
        from devpi_server.fileutil import loads

        row = self.connection.execute("SELECT data FROM changelog WHERE serial = ?", (serial,)).fetchone()
        try:
            found: dict[str, Any] = loads(row[0])[0]
        except Exception:  # whatever comes of it: SQLite does not notice a flipped bit in a value
            raise Refusal(f"devpi's database is damaged: commit {serial} cannot be read") from None
        return found

    def values(self, kinds: tuple[str, ...], after: int = -1) -> Iterator[tuple[str, Any]]:
        """Keys of some kinds that were set after a serial, and their values now, None for deleted ones; oldest first."""
        marks = ", ".join("?" * len(kinds))
        query = f"SELECT serial, key FROM kv WHERE keyname IN ({marks}) AND serial > ? ORDER BY serial"  # noqa: S608  only question marks
        for serial, rows in itertools.groupby(self.connection.execute(query, (*kinds, after)).fetchall(), lambda row: row[0]):
            changes = self.changes(serial)
            for _, key in rows:
                yield key, changes[key][2]

    def files(self, after: int = -1) -> Iterator[tuple[str, Digests | None]]:
        """Files that were changed after a serial: path below ``+files`` and digests; None where there is no file now."""
        for path, value in self.values(FILES, after):
            yield path, file_of(value)

    def changed(self, key: str) -> int:
        """The last commit that set a key; -1 for none."""
        row = self.connection.execute("SELECT serial FROM kv WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else -1

    def file(self, path: str) -> Digests | None:
        """The digests of a file; None where there is none."""
        serial = self.changed(path)
        return file_of(self.changes(serial)[path][2]) if serial >= 0 else None

    def mirrors(self) -> set[str]:
        """The indexes whose files can be fetched again, as USER/INDEX."""
        users = ((key.partition("/")[0], value or {}) for key, value in self.values(("USER",)))
        return {
            f"{user}/{name}"
            for user, value in users
            for name, index in value.get("indexes", {}).items()
            if index.get("type") == "mirror"
        }

    def complaints(self) -> list[str]:
        """What SQLite finds wrong with the file; nothing for a sound one."""
        try:
            found = [str(row[0]) for row in self.connection.execute("PRAGMA integrity_check")]
        except sqlite3.DatabaseError as error:
            return [str(error)]
        return [] if found == ["ok"] else found
