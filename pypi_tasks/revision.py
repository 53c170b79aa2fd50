"""What the repository says of itself: commit, time, state, and the versions in its lock file."""

import re
from dataclasses import dataclass
from pathlib import Path

from pypi_tasks.errors import BadInput
from pypi_tasks.world import World


@dataclass(frozen=True)
class Revision:
    """A commit: its id, its time in seconds since 1970, and whether the work tree differs from it."""

    commit: str
    time: int
    dirty: bool


def read(world: World, root: Path, folder: Path) -> Revision:
    """The commit that is checked out; dirty is about ``folder`` alone. ``unknown`` and 0 outside a git checkout."""

    def git(*words: str) -> str | None:
        result = world.ask(["git", "-C", str(root), *words], check=False)
        return result.stdout.strip() if result.returncode == 0 else None

    line = git("log", "-1", "--format=%H %ct")
    if not line:
        return Revision("unknown", 0, False)
    commit, time = line.split()
    return Revision(commit, int(time), bool(git("status", "--porcelain", "--", str(folder))))


def devpi_version(root: Path) -> str:
    """The version of devpi-server that the lock file pins."""
    lock = root / "pypi_server" / "requirements.txt"
    found = re.search(r"^devpi-server==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE) if lock.exists() else None
    if not found:
        raise BadInput(f"{lock} pins no devpi-server.", fix="`inv lock` makes it anew")
    return found[1]
