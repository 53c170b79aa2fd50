"""How long snapshots take and what they cost: `python -m tests.measure_backup [FILES]`; a measurement, not a test.

Brings up a stack of its own, with a hundred projects of FILES / 100 versions (1,000 files for none), 20 to 200 kB of random bytes
each, uploaded over kept connections with a token. Then: a first snapshot, 0.5% more uploads, a second one, one with nothing new,
and a restore.
"""

import os
import random
import shutil
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pypi_tasks.terminal import human, table
from pypi_tasks.world import World
from tests.conftest import remove_all
from tests.raw import Uploader
from tests.workspace import Workspace, checkout

PROJECTS, CLIENTS = 100, 2


def fill(stack: Workspace, first: int, last: int) -> int:
    """Upload files by their numbers; their bytes."""

    def upload(client: int) -> int:
        uploader, total = Uploader(stack), 0
        for number in range(first + client, last, CLIENTS):
            content = os.urandom(random.randint(20_000, 200_000))
            uploader(f"project-{number % PROJECTS}", f"1.{number // PROJECTS}", content)
            total += len(content)
        return total

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(upload, range(CLIENTS)))


def usage(folder: Path) -> int:
    """What a folder takes on its disk, in bytes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def step(stack: Workspace, *words: str) -> list[str]:
    """Seconds that a task took, and the bytes by which BACKUP_HOME grew."""
    place = stack.root / "backups"
    before, began = usage(place), time.monotonic()
    stack.inv(*words, timeout=3600)
    return [f"{time.monotonic() - began:.1f}", f"{usage(place) - before:,}"]


def main(count: int) -> None:
    """Measure, print a table, take all away."""
    folder = Path(tempfile.mkdtemp(prefix="measure-"))
    stack, world = checkout(folder / "checkout", f"pypi-measure-{uuid.uuid4().hex[:6]}"), World()
    try:
        stack.inv("up", "--env", "dev", timeout=600)
        began = time.monotonic()
        total = fill(stack, 0, count)
        world.say(f"{count:,} files, {human(total)}, uploaded in {time.monotonic() - began:.0f} s")
        world.say(f"the database has {human((stack.home / 'server' / '.sqlite').stat().st_size)}")
        rows = [["first snapshot", *step(stack, "backup")]]
        added = fill(stack, count, count + max(5, count // 200))
        rows.append([f"second, {human(added)} uploaded since", *step(stack, "backup")])
        rows.append(["third, nothing new", *step(stack, "backup")])
        rows.append(["everything read again (--full)", *step(stack, "backup", "--full")])
        rows.append(["restore", *step(stack, "restore", "--yes")])
        table("", ["what", "seconds", "bytes that BACKUP_HOME grew by"], rows)
    finally:
        remove_all(stack.project)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
