"""What is wrong with a file, where a sound one is, and how that takes its place while a server goes on."""

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from database import Digests
from jobs import Refusal
from pool import agrees, clone, sha256
from snapshot import Backups

MISSING = "is not there"


def keep_aside(path: Path, target: Path) -> None:
    """Have a file under another name too. The first name goes on: whoever reads it meanwhile finds something."""
    if not path.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError:
        clone(path, target)


def replace(target: Path, content: Path, digest: str) -> None:
    """Put a copy of a content in a file's place at once, after it was written and read back."""
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f".repair-{os.getpid()}")  # not -tmp: that is devpi's
    try:
        clone(content, made)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        if sha256(made) != digest:
            raise Refusal(f"what was written to {made} cannot be read back: nothing was replaced; look at the disk")
        with contextlib.suppress(FileNotFoundError):
            made.chmod(target.stat().st_mode & 0o777)
        made.rename(target)
    finally:
        made.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def fault(path: Path, digests: Digests) -> str:
    """What is wrong with a file, by the digests that are known of it; empty for nothing."""
    try:
        return "" if agrees(path, digests) else "its content is not what devpi's database says"
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def unfinished(path: Path) -> Iterator[Path]:
    """What a server that was killed between a commit and the end of it left of a file; its next start puts it in place."""
    return path.parent.glob(f"{glob.escape(path.name)}-*-tmp")


def is_what_its_address_says(path: Path) -> bool:
    """Whether a file has the digest by which devpi chose its folder: ``+f/abc/0123456789012/NAME``."""
    with contextlib.suppress(OSError):
        return sha256(path).startswith(path.parent.parent.name + path.parent.name)
    return False


def sources(place: Backups, wanted: dict[str, Digests]) -> dict[str, tuple[str, str]]:
    """The newest snapshot that has a sound content of each file, and that content's sha256."""
    found: dict[str, tuple[str, str]] = {}
    for one in reversed(place.all()):
        with contextlib.suppress(Refusal):
            files = one.manifest().files if len(found) < len(wanted) else {}
            for name in wanted.keys() & files.keys() - found.keys():
                digest = files[name].sha256
                if place.pool.is_sound(digest) and agrees(place.pool.path(digest), wanted[name], digest):
                    found[name] = (one.name, digest)
    return found
