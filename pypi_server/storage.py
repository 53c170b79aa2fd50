"""devpi's SQLite storage, with a memory of the newest values (``newest.py``) and with listeners for commits.

On disk nothing differs: devpi's own backend opens the same database, and this one opens devpi's.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devpi_server.config import hookimpl
from devpi_server.keyfs_sqlite_fs import Connection as DevpiConnection
from devpi_server.keyfs_sqlite_fs import Storage as DevpiStorage
from devpi_server.sizeof import gettotalsizeof
from newest import Changes, Newest, Value

LARGE = 100_000  # bytes, by devpi's own estimate


def is_large(value: Any) -> bool:
    """Whether a value is one to leave to devpi's caches, which keep few of these."""
    return gettotalsizeof(value, maxlen=LARGE) is None


def take_back(database: Path) -> None:
    """Have SQLite take back what a kill or a power cut left half-written. It has to write for that, and devpi looks first
    with a connection that may not, which fails for good (https://sqlite.org/rescode.html#readonly_rollback)."""
    if database.exists():
        with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


class Connection(DevpiConnection):
    """devpi's connection; looks into the memory first."""

    def get_relpath_at(self, relpath: str, serial: int) -> Value:
        """Serial, serial before and value of a key at a serial; KeyError where there was none."""
        found: Value | None = self.storage.newest.at(relpath, serial)
        if found is None:
            found = super().get_relpath_at(relpath, serial)
            self.storage.newest.learn(relpath, serial, found)
        return found


class Storage(DevpiStorage):
    """devpi's storage. ``listeners`` are called in every commit, before whoever asked for it hears of its success."""

    Connection = Connection

    def __init__(self, basedir: Any, notify_on_commit: Callable[[int], None], cache_size: int) -> None:
        take_back(Path(str(basedir)) / ".sqlite")
        # devpi's caches get a tenth. They hold whole commits, each with all the links of its project: of a project with a
        # thousand versions, a megabyte for every upload.
        super().__init__(basedir, notify_on_commit=self.committed, cache_size=cache_size // 10)
        self.tell_devpi = notify_on_commit
        self.listeners: list[Callable[[int, Changes], None]] = []
        with self.get_connection() as connection:
            self.newest = Newest(cache_size, connection.db_read_last_changelog_serial(), is_large)

    def committed(self, serial: int) -> None:
        """Tell everybody."""
        with self.get_connection() as connection:
            changes = connection.get_changes(serial)
        self.newest.commit(serial, changes)
        for listener in self.listeners:
            listener(serial, changes)
        self.tell_devpi(serial)


class Backend:
    """The plugin that offers this storage in place of devpi's."""

    @hookimpl
    def devpiserver_storage_backend(self, settings: Any) -> dict[str, Any]:
        """devpi takes the first backend of a name, and asks the latest plugin first."""
        return {
            "storage": Storage, "name": "sqlite", "description": "SQLite, with a memory of the newest values",
            "db_filestore": False, "settings": settings,
        }  # fmt: skip
