"""Where snapshots keep files: each content once, under its sha256, so that a further snapshot costs only what is new.

A copy, never a hard link to the live file: what damages that one would damage its backup with it. Where the file system can
clone (btrfs, XFS), a copy costs no room until one of the two changes.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FICLONE = 0x40049409  # of linux/fs.h: share the blocks of another file


class Stored(NamedTuple):
    """One content: its sha256 in hex, and its size in bytes."""

    sha256: str
    size: int


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clone(source: Path, target: Path) -> None:
    """Copy a file, by sharing its blocks where the file system knows how."""
    with source.open("rb") as original, target.open("wb") as made:
        try:
            fcntl.ioctl(made.fileno(), FICLONE, original.fileno())
        except OSError:
            shutil.copyfileobj(original, made, 1024**2)


class Pool:
    """The folder ``files`` of a place for backups."""

    def __init__(self, backups: Path) -> None:
        self.folder, self.work = backups / "files", backups / "work"

    def path(self, digest: str) -> Path:
        """Where a content is, or would be."""
        return self.folder / digest[:2] / digest[2:]

    def has(self, stored: Stored) -> bool:
        """Whether a content is there, by its size: to read it again is what ``is_sound`` does."""
        with contextlib.suppress(OSError):
            return self.path(stored.sha256).stat().st_size == stored.size
        return False

    def is_sound(self, digest: str) -> bool:
        """Whether a content is there and is what its name says."""
        with contextlib.suppress(OSError):
            return sha256(self.path(digest)) == digest
        return False

    def add(self, source: Path) -> Stored:
        """Take a copy of a file, and read it again."""
        self.work.mkdir(parents=True, exist_ok=True)
        made = self.work / f"{os.getpid()}.copy"
        try:
            clone(source, made)
            stored = Stored(sha256(made), made.stat().st_size)
            target = self.path(stored.sha256)
            target.parent.mkdir(parents=True, exist_ok=True)
            made.chmod(0o444)
            made.rename(target)  # also over one that is there: it may be half of one
        finally:
            made.unlink(missing_ok=True)
        return stored

    def contents(self) -> Iterator[Path]:
        """All that is there."""
        return self.folder.glob("??/*")
