"""devpi's SQLite storage, with a memory of the newest values and with listeners for commits.

devpi remembers what a key held *at a serial*, so that each commit makes it forget everything: an upload, which reads
every version of its project, then takes a query for each, and the thousandth took many times as long as the first. What
a key held when it was last written is just as true at every serial since; that is what is remembered here.

On disk nothing differs: devpi's own backend opens the same database, and this one opens devpi's.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from devpi_server.config import hookimpl
from devpi_server.keyfs_sqlite_fs import Connection as DevpiConnection
from devpi_server.keyfs_sqlite_fs import Storage as DevpiStorage
from devpi_server.sizeof import gettotalsizeof

LARGE = 100_000  # bytes, by devpi's estimate; a value of more is left to devpi's caches, which keep few of these

Changes = dict[str, tuple[str, int, Any]]  # relpath: name of the key, serial before, value or None
Value = tuple[int, int, Any]  # serial, serial before, value or None


class Newest:
    """The newest value of keys, the least used forgotten first."""

    def __init__(self, size: int, head: int) -> None:
        self.size, self.head = size, head
        self.lock = threading.Lock()
        self.values: OrderedDict[str, Value] = OrderedDict()

    def at(self, key: str, serial: int) -> Value | None:
        """What a key held at a serial, if it is known. Not so for a serial that we have yet to hear of, and one before
        the newest value."""
        with self.lock:
            found = self.values.get(key)
            if found is None or not found[0] <= serial <= self.head:
                return None
            self.values.move_to_end(key)
            return found

    def learn(self, key: str, serial: int, value: Value) -> None:
        """Remember what was read at a serial, which is the newest only while no commit has come after."""
        if gettotalsizeof(value, maxlen=LARGE) is None:
            return
        with self.lock:
            if serial == self.head:
                self.remember(key, value)

    def commit(self, serial: int, changes: Changes) -> None:
        """Take over what was written."""
        with self.lock:
            self.head = serial
            for key, (_, before, value) in changes.items():
                if gettotalsizeof(value, maxlen=LARGE) is None:
                    self.values.pop(key, None)
                else:
                    self.remember(key, (serial, before, value))

    def remember(self, key: str, value: Value) -> None:
        """Put a value in, and the least used out."""
        self.values[key] = value
        self.values.move_to_end(key)
        if len(self.values) > self.size:
            self.values.popitem(last=False)


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
        # devpi's caches get a tenth. They hold whole commits, each with all the links of its project: of a project with a
        # thousand versions, a megabyte for every upload.
        super().__init__(basedir, notify_on_commit=self.committed, cache_size=cache_size // 10)
        self.tell_devpi = notify_on_commit
        self.listeners: list[Callable[[Changes], None]] = []
        with self.get_connection() as connection:
            self.newest = Newest(cache_size, connection.db_read_last_changelog_serial())

    def committed(self, serial: int) -> None:
        """Tell everybody."""
        with self.get_connection() as connection:
            changes = connection.get_changes(serial)
        self.newest.commit(serial, changes)
        for listener in self.listeners:
            listener(changes)
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
