"""Where snapshots keep files: each content once, under its sha256, so that a further snapshot costs only what is new.

A copy, never a hard link to the live file: what damages that one would damage its backup with it. Where the file system can
clone (btrfs, XFS), a copy costs no room until one of the two changes.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PIECE = 64 * 1024  # bytes
FICLONE = 0x40049409  # of linux/fs.h: share the blocks of another file


class Stored(NamedTuple):
    """One content: its sha256 in hex, and its size in bytes."""

    sha256: str
    size: int


class Different(Exception):
    """A content is not the one that was expected."""


def digest(path: Path, name: str) -> str:
    """A digest of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).hexdigest()


def sha256(path: Path) -> str:
    """The digest by which a content is known here."""
    return digest(path, "sha256")


def agrees(path: Path, digests: Mapping[str, str], known: str = "") -> bool:
    """Whether a file is the one that devpi knows by these digests, the best of them; that of which it knows none is.
    ``known`` is its sha256, if that was read already."""
    for name in ("sha256", "sha512", "md5"):
        if name in digests:
            return digests[name] == (known if known and name == "sha256" else digest(path, name))
    return True


def sync(folder: Path) -> None:
    """Have all that was written to a folder's file system on its disk; OSError where that failed."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if call(handle) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(handle)


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
        self.grown = 0  # bytes

    def path(self, digest: str) -> Path:
        """Where a content is, or would be."""
        return self.folder / digest[:2] / digest[2:]

    def has(self, stored: Stored) -> bool:
        """Whether a content is there, by its size: to read it again is what ``is_sound`` does."""
        with contextlib.suppress(OSError):
            path = f"{self.folder}/{stored.sha256[:2]}/{stored.sha256[2:]}"
            return os.stat(path).st_size == stored.size  # noqa: PTH116  asked of every file, and a Path takes longer than the stat
        return False

    def is_sound(self, digest: str) -> bool:
        """Whether a content is there and is what its name says."""
        with contextlib.suppress(OSError):
            return sha256(self.path(digest)) == digest
        return False

    def add(self, source: Path, digests: Mapping[str, str] = {}) -> Stored:
        """Take a copy of a file, and read it again; Different where that is not what devpi knows it by."""
        self.work.mkdir(parents=True, exist_ok=True)
        made = self.work / f"{os.getpid()}.copy"
        try:
            clone(source, made)
            stored = Stored(sha256(made), made.stat().st_size)
            if not agrees(made, digests, stored.sha256):
                raise Different
            self.grown += 0 if self.has(stored) else stored.size
            target = self.path(stored.sha256)
            target.parent.mkdir(parents=True, exist_ok=True)
            made.chmod(0o444)
            made.rename(target)  # also over one that is there: it may be half of one
        finally:
            made.unlink(missing_ok=True)
        return stored

    def add_pieces(self, source: Path) -> tuple[Stored, list[Stored]]:
        """Take a large file in pieces, of which a later state of it shares most. What it is as a whole, and the pieces."""
        pieces, whole = [], hashlib.sha256()
        with source.open("rb") as file:
            while text := file.read(PIECE):
                whole.update(text)
                stored = Stored(hashlib.sha256(text).hexdigest(), len(text))
                if not self.holds(stored.sha256, text):
                    made = self.work / f"{os.getpid()}.piece"
                    made.write_bytes(text)
                    self.add(made, {"sha256": stored.sha256})
                    made.unlink()
                pieces.append(stored)
        return Stored(whole.hexdigest(), sum(piece.size for piece in pieces)), pieces

    def holds(self, digest: str, text: bytes) -> bool:
        """Whether a content is there and is this text."""
        with contextlib.suppress(OSError):
            return self.path(digest).read_bytes() == text
        return False

    def join(self, pieces: Iterable[Stored], target: Path) -> None:
        """Put a file together from its pieces."""
        with target.open("wb") as file:
            for stored in pieces:
                file.write(self.path(stored.sha256).read_bytes())

    def contents(self) -> Iterator[Path]:
        """All that is there."""
        return self.folder.glob("??/*")
