"""The files of a server that goes on: which are damaged, and how they are repaired under its eyes."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from commits import Commits, read, row
from database import Database, Digests, file_of
from jobs import tracked
from repair import MISSING, fault, keep_aside, replace, unfinished
from snapshot import DATABASE

PAUSE, LOOKS = 0.5, 3  # seconds between looks at what seems damaged: devpi commits first, then puts its files in place


def size(path: Path) -> int:
    """The bytes of a file that may be removed at any time."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


class Live:
    """The live files, as the copy of the database names them."""

    def __init__(self, server: Path, copy: Commits) -> None:
        self.server, self.copy, self.last = server, copy, copy.serial
        self.mirrors = copy.mirrors()
        self.count = self.bytes = self.again = 0  # files, their bytes, and the mirrored ones that devpi will fetch again

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.server / "+files" / name

    def is_mirrored(self, name: str) -> bool:
        """Whether devpi can fetch a file again."""
        return "/".join(name.split("/")[:2]) in self.mirrors

    def fault(self, name: str, digests: Digests) -> str:
        """What is wrong with a file; empty for nothing."""
        path = self.path(name)
        why = fault(path, digests)
        return "" if why == MISSING and any(not fault(one, digests) for one in unfinished(path)) else why

    def expected(self, current: Database, name: str, digests: Digests) -> Digests | None:
        """What the server expects of a file just now; None where it has been removed since the copy was made."""
        found = current.connection.execute("SELECT serial FROM kv WHERE key = ?", (name,)).fetchone()
        if found and found[0] <= self.last:
            return digests
        changes = read(row(current, found[0])) if found else None
        return file_of(changes[name][2]) if changes and name in changes else None

    def damaged(self) -> dict[str, tuple[Digests, str]]:
        """The files that are not what they should be, and why."""
        named = [(name, digests) for name, digests in self.copy.files() if digests is not None]
        suspects = {}
        for name, digests in tracked(named, "files"):
            why = self.fault(name, digests)
            if why == MISSING and self.is_mirrored(name):
                self.again += 1
                continue
            self.count += 1
            self.bytes += size(self.path(name))
            if why:
                suspects[name] = (digests, why)
        for _ in range(LOOKS if suspects else 0):
            time.sleep(PAUSE)
            suspects = dict(self.still(suspects))
        return suspects

    def still(self, suspects: dict[str, tuple[Digests, str]]) -> Iterator[tuple[str, tuple[Digests, str]]]:
        """The suspects that are no better at another look."""
        with contextlib.closing(Database(self.server / DATABASE)) as current:
            for name, (digests, _) in suspects.items():
                expected = self.expected(current, name, digests)
                if expected is not None and (why := self.fault(name, expected)):
                    yield name, (expected, why)

    def repair(self, name: str, content: Path | None, digest: str, aside: Path) -> str:
        """Replace a file by a sound content; without one, move a mirrored file out of the way. Says what was done."""
        path = self.path(name)
        keep_aside(path, aside / name)
        if content is None:
            path.unlink(missing_ok=True)
            return "moved away, to be fetched again"
        replace(path, content, digest)
        with contextlib.closing(Database(self.server / DATABASE)) as current:
            if self.expected(current, name, {}) is None:  # removed before it was put there: later, devpi itself removes it
                path.unlink(missing_ok=True)
        return "replaced by that of snapshot"
