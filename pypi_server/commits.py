"""Whether the commits of a devpi database are what they were.

SQLite has no checksums: it does not notice a flipped bit in a value. But a commit never changes, so it must be what a snapshot
has of it, byte for byte; and whatever is newer than the snapshot must be readable, and be what ``kv`` says of it.
"""

import contextlib
import resource
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from database import FILES, Database, digests_of
from jobs import tracked

Changes = dict[str, tuple[str, int, Any]]
ALIKE = 8  # bytes in which a damaged row differs from its copy; another commit differs in a digest or more
ROOM = 256 * 1024**2  # bytes that a commit may take in memory
STATM = Path("/proc/self/statm")
NOTHING = ("", -1, None)


class Finding(NamedTuple):
    """What is wrong with a commit, and the keys whose values are in doubt."""

    serial: int
    keys: list[str]
    why: str


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """A flipped bit in a length asks for gigabytes: have that fail, rather than have the process killed."""
    if not STATM.exists():
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = int(STATM.read_text().split()[0]) * resource.getpagesize() + ROOM
    if before == resource.RLIM_INFINITY or limit < before:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))


def read(data: object) -> Changes | None:
    """The keys that a commit set; None where it is none."""
    from devpi_server.fileutil import loads

    try:
        with little_memory():
            changes: Changes = loads(data)[0]
        for key, (kind, before, value) in changes.items():
            if not (isinstance(key, str) and isinstance(kind, str) and isinstance(before, int)):
                return None
            if kind in FILES and value:
                digests_of(value)
    except Exception:  # whatever comes of it: devpi's reader is made for what devpi wrote
        return None
    return changes


def row(database: Database, serial: int) -> object:
    """A commit as it is stored; None where there is none, or where SQLite cannot get at it."""
    with contextlib.suppress(sqlite3.DatabaseError):
        if found := database.connection.execute("SELECT data FROM changelog WHERE serial = ?", (serial,)).fetchone():
            return found[0]
    return None


def is_past(old: Database, serial: int, new: Database) -> bool:
    """Whether a database went on from where another ended, at that serial. A flipped bit in its last commit is no other past;
    a commit made after an older snapshot was restored is."""
    before, now = row(old, serial), row(new, serial)
    if before == now:
        return True
    if row(old, serial - 1) != row(new, serial - 1) or not isinstance(before, bytes) or not isinstance(now, bytes):
        return False
    return len(before) == len(now) and sum(one != other for one, other in zip(before, now, strict=True)) <= ALIKE


class Commits(Database):
    """A copy of a database whose commits are looked at. Of the damaged ones it then has what a snapshot has of them, or
    nothing: a file is not to be compared with a digest that is in doubt."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.findings: list[Finding] = []
        self.instead: dict[int, Changes] = {}
        self.newest: dict[int, int] = {}  # by the hash of a key: the last commit that set it

    def changes(self, serial: int) -> Changes:
        """The keys that a commit set, as far as they are known."""
        found = self.instead[serial] if serial in self.instead else read(row(self, serial))
        return defaultdict(lambda: NOTHING) if found is None else found

    def check(self, reference: Database | None) -> None:
        """Go through all commits, comparing the ones that are in a snapshot's database too; fills ``findings``."""
        last = reference.serial if reference else -1
        for serial in tracked(range(self.serial + 1), "commits"):
            original = row(reference, serial) if reference and serial <= last else None
            known = self.look_at(serial, row(self, serial), original)
            self.newest.update(dict.fromkeys(map(hash, known), serial))
        self.check_keys()

    def look_at(self, serial: int, data: object, original: object) -> Changes:
        """One commit, and its copy in the snapshot if it is that old; what is known of it."""
        changes = read(data)
        if changes is None or (original is not None and data != original):
            known, now = read(original) or {}, changes or {}
            keys = [key for key in known if known[key] != now.get(key)] or list(now) or self.keys_of(serial)
            unreadable = "is not there" if data is None else "cannot be read"
            self.doubt(serial, keys, unreadable if changes is None else "is not what the snapshot has of it", known)
            return known
        for key, kind in self.connection.execute("SELECT key, keyname FROM kv WHERE serial = ?", (serial,)).fetchall():
            if changes.get(key, NOTHING)[0] != kind:
                self.doubt(serial, [key], "did not set what kv says that it set", changes)
        return changes

    def doubt(self, serial: int, keys: list[str], why: str, known: Changes) -> None:
        """Note a finding, and what is known in spite of it."""
        self.findings.append(Finding(serial, keys, why))
        self.instead[serial] = defaultdict(lambda: NOTHING, known)

    def keys_of(self, serial: int) -> list[str]:
        """The keys that a commit set last, by the table beside it."""
        return [key for (key,) in self.connection.execute("SELECT key FROM kv WHERE serial = ?", (serial,))]

    def check_keys(self) -> None:
        """Whether ``kv`` has every key, with the last commit that set it."""
        for key, serial in self.connection.execute("SELECT key, serial FROM kv"):
            newest = self.newest.pop(hash(key), -1)
            if newest != serial and serial not in self.instead:
                self.findings.append(Finding(serial, [key], f"was not the last to set this key, though kv says so: {newest} was"))
        for serial in sorted(set(self.newest.values()) - self.instead.keys()):
            lost = [key for key in self.changes(serial) if hash(key) in self.newest]
            self.doubt(serial, lost, "set a key that kv lacks", self.changes(serial))
