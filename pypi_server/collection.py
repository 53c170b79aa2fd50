"""The files of a snapshot in the making: which of them have to be read, and where a sound content of each is."""

import glob
from collections.abc import Iterator
from pathlib import Path

from database import Database, Digests
from jobs import NO_ROOM, tracked
from pool import Different, Pool, Stored, agrees
from snapshot import Manifest


class Collection:
    """The files that a copy of the database names, and how they get into the pool."""

    def __init__(self, pool: Pool, live: Path) -> None:
        self.pool, self.live = pool, live
        self.known: dict[str, Stored] = {}  # what is in the pool and was read there
        self.files: dict[str, Stored] = {}
        self.lost: dict[str, str] = {}

    def collect(self, copy: Database, before: Manifest | None, full: bool) -> None:
        """Go through what was changed since the last snapshot, through what it could not get, and what went from the pool.
        With ``full`` all contents of the last one are read again."""
        self.lost, self.files = {}, dict(before.files) if before else {}
        present = self.present(set(self.files.values()), full)
        self.known |= {stored.sha256: stored for stored in present}
        changed = dict(copy.files(before.serial if before else -1))
        again = {path for path, stored in self.files.items() if stored not in present} | (before.lost.keys() if before else set())
        changed |= {path: copy.file(path) for path in again - changed.keys()}
        for path, digests in tracked(changed.items(), "files", len(changed)):
            earlier = self.files.pop(path, None)
            if digests is not None and (stored := self.take(path, digests, earlier)):
                self.files[path] = stored

    def present(self, contents: set[Stored], full: bool) -> set[Stored]:
        """Those contents that the pool has, by their sizes or, with ``full``, by their digests."""
        if not full:
            return {stored for stored in contents if self.pool.has(stored)}
        return {stored for stored in tracked(contents, "contents read") if self.pool.is_sound(stored.sha256)}

    def take(self, path: str, digests: Digests, earlier: Stored | None) -> Stored | None:
        """Have one file in the pool; None where its content cannot be had."""
        expected = digests.get("sha256", "")
        if expected in self.known:
            return self.known[expected]
        why = "the file is not there"
        for source in self.sources(path):
            try:
                stored = self.pool.add(source, digests)
            except Different:
                why = "its content is not what devpi's database says"
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in NO_ROOM:
                    raise
                why = f"it cannot be read: {error.strerror}"
            else:
                self.known[stored.sha256] = stored
                return stored
        for digest in (expected, earlier.sha256 if earlier else ""):
            found = self.pool.path(digest)
            if digest and self.pool.is_sound(digest) and agrees(found, digests, digest):
                return Stored(digest, found.stat().st_size)
        self.lost[path] = why
        return None

    def sources(self, path: str) -> Iterator[Path]:
        """Where a file may be: devpi renames it into place after the commit, and not at all if it was killed in between."""
        live = self.live / path
        yield live
        if not live.exists():
            yield from live.parent.glob(f"{glob.escape(live.name)}-*-tmp")
            yield live
