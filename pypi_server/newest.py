"""The newest value of keys, for a database that is asked what a key held at a serial.

devpi remembers answers by key *and* serial, so that each commit makes it forget everything: an upload, which reads every
version of its project, then takes a query for each, and the thousandth took many times as long as the first. But what a
key held when it was last written is just as true at every serial since; that is what is remembered here.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

Changes = Mapping[str, tuple[str, int, Any]]  # key: name of its kind, serial before, value or None
Value = tuple[int, int, Any]  # serial, serial before, value or None


class Newest:
    """A memory of ``size`` keys, the least used forgotten first; ``head`` is the last serial that it has heard of."""

    def __init__(self, size: int, head: int, is_large: Callable[[Any], bool]) -> None:
        self.size, self.head, self.is_large = size, head, is_large
        self.lock = threading.Lock()
        self.values: OrderedDict[str, Value] = OrderedDict()

    def at(self, key: str, serial: int) -> Value | None:
        """What a key held at a serial, if it is known. Not so for a serial that we have yet to hear of, and for one
        before the newest value."""
        with self.lock:
            found = self.values.get(key)
            if found is None or not found[0] <= serial <= self.head:
                return None
            self.values.move_to_end(key)
            return found

    def learn(self, key: str, serial: int, value: Value) -> None:
        """Remember what was read at a serial, which is the newest only while no commit has come after."""
        if self.is_large(value):
            return
        with self.lock:
            if serial == self.head:
                self.remember(key, value)

    def commit(self, serial: int, changes: Changes) -> None:
        """Take over what was written."""
        with self.lock:
            self.head = serial
            for key, (_, before, value) in changes.items():
                if self.is_large(value):
                    self.values.pop(key, None)
                else:
                    self.remember(key, (serial, before, value))

    def remember(self, key: str, value: Value) -> None:
        """Put a value in, and the least used out."""
        self.values[key] = value
        self.values.move_to_end(key)
        if len(self.values) > self.size:
            self.values.popitem(last=False)
