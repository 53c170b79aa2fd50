"""Make a snapshot of the server's data while it goes on, list the snapshots, remove old ones.

Reads DEVPI_HOME and BACKUP_HOME. Jobs (``jobs.py``)::

    {"do": "make", "full": false, "settings": {...}, "image": "sha256:..."}
    {"do": "list"}
    {"do": "prune", "keep": {"last": 3, "daily": 7, "weekly": 5, "monthly": 12}, "dry": false}
"""

import contextlib
import datetime
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import database
from collection import Collection
from database import Database
from entrypoint import is_initialised, server_directory
from jobs import NO_ROOM, Job, Refusal, main, tell
from pool import Pool, Stored, clone, sha256
from snapshot import DATABASE, SERVER, Backups, Manifest, Snapshot, now

ATTEMPTS = 5
BIN = Path(sys.executable).parent
FULL = "no room is left on the disk of BACKUP_HOME; the snapshots there are whole. Make room, or `inv backup --prune`"
BROKEN = "`inv restore` brings the last snapshot back"
PERIODS = {"daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m"}


def backups() -> Backups:
    """The place for backups."""
    return Backups(Path(os.environ["BACKUP_HOME"]))


def is_there() -> bool:
    """Whether there is a server's data."""
    return is_initialised(server_directory(Path(os.environ["DEVPI_HOME"])))


def live() -> Path:
    """The server directory; Refusal where there is none yet."""
    server = server_directory(Path(os.environ["DEVPI_HOME"]))
    if not is_initialised(server):
        raise Refusal("there is no server's data here yet")
    return server


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what a disk and SQLite say into what a user can act on. What was there before is there still."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise Refusal(FULL) from None
        raise
    except sqlite3.OperationalError as error:
        full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
        raise Refusal(FULL if full else f"devpi's database cannot be read: {error}") from None
    except sqlite3.DatabaseError as error:
        raise Refusal(f"devpi's database is damaged: {error}. {BROKEN}") from None


def copy_server(server: Path, target: Path) -> None:
    """The database first: files are only ever added to what it names."""
    (target / DATABASE).unlink(missing_ok=True)
    database.copy(server / DATABASE, target / DATABASE)
    for name in SERVER:
        if name != DATABASE:
            shutil.copyfile(server / name, target / name)


def make(job: Job) -> Job:
    """A snapshot: its summary, what it cost, and what was lost before it could be taken."""
    place, server = backups(), live()
    with told(), place.claimed():
        made = place.new()
        collection = Collection(place.pool, server / "+files")
        for _ in range(ATTEMPTS):
            copy_server(server, made.server)
            with contextlib.closing(Database(made.server / DATABASE)) as copy:
                refuse_damaged(copy)
                before = place.predecessor(copy)
                # What was found damaged, or lacks something, is nothing to lean on: its contents are read again.
                full = job.get("full", False) or (before is not None and not before[0].verified())
                collection.collect(copy, before[1] if before else None, full)
                manifest = describe(made, place.pool, copy, collection, job)
            if not has_moved_on(server, manifest):
                break
        if job.get("full") or not before:
            fsck(made.server, manifest, place)
        made.write(manifest)
        (made.server / DATABASE).unlink()
        made.note(all(manifest.is_mirrored(path) for path in manifest.lost))
        finished = place.finish(made)
    return summary(finished, manifest) | {"new": place.pool.grown, "after": before[0].name if before else ""}


def has_moved_on(server: Path, manifest: Manifest) -> bool:
    """Whether a file that could not be had was removed or replaced since the database was copied, and so is no loss."""
    with contextlib.closing(Database(server / DATABASE)) as current:
        return any(current.changed(path) > manifest.serial for path in manifest.lost)


def refuse_damaged(copy: Database) -> None:
    """A database that SQLite finds damaged is none to make a snapshot of."""
    if complaints := copy.complaints():
        raise Refusal(f"devpi's database is damaged: {'; '.join(complaints[:3])}. {BROKEN}")


def describe(made: Snapshot, pool: Pool, copy: Database, collection: Collection, job: Job) -> Manifest:
    """The manifest."""
    folder = made.server
    whole, pieces = pool.add_pieces(folder / DATABASE)
    small = {name: Stored(sha256(folder / name), (folder / name).stat().st_size) for name in SERVER if name != DATABASE}
    return Manifest(
        made=now().isoformat(timespec="seconds"),
        serial=copy.serial,
        digest=copy.digest(copy.serial),
        uuid=json.loads((folder / ".nodeinfo").read_text()).get("uuid", ""),
        database=(folder / ".serverversion").read_text().strip(),
        server={DATABASE: whole, **small},
        files=collection.files,
        pieces=pieces,
        lost=collection.lost,
        mirrors=sorted(copy.mirrors()),
        image=job.get("image", ""),
        settings=job.get("settings", {}),
    )


def fsck(server: Path, manifest: Manifest, place: Backups) -> None:
    """Have devpi itself check a snapshot whose database and small files are in a folder, as it would be once restored.

    It writes into the server directory that it checks, and so gets one of its own: the files by links into the pool.
    """
    folder = place.work / "fsck"
    folder.mkdir(parents=True, exist_ok=True)
    for name in SERVER:
        clone(server / name, folder / name)
    for path, stored in manifest.files.items():
        link = folder / "+files" / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place.pool.path(stored.sha256))
    command = [str(BIN / "devpi-fsck"), "--serverdir", str(folder)]
    said = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}
    ) as running:
        for line in running.stdout or ():
            said.append(line)
            if found := re.search(r"total of (\d+) files", line):
                tell("files seen by devpi-fsck", int(found[1]), max(int(found[1]), len(manifest.files)))
    if running.returncode != 0 and not manifest.lost:
        raise Refusal(f"devpi-fsck finds the copy damaged:\n{''.join(said)[-2000:]}")


def summary(one: Snapshot, manifest: Manifest) -> Job:
    """What a table shows of a snapshot; sizes in bytes."""
    total = sum(stored.size for stored in (*manifest.files.values(), *manifest.server.values()))
    private = sum(not manifest.is_mirrored(path) for path in manifest.files)
    return {
        "name": one.name, "made": manifest.made, "serial": manifest.serial, "files": len(manifest.files), "private": private,
        "bytes": total, "verified": one.verified(), "lost": manifest.lost, "secrets": one.has_secrets(),
    }  # fmt: skip


def show(_: Job) -> list[Job]:
    """All snapshots, oldest first, each with the bytes that it alone has; of a damaged one the name and what is wrong."""
    place = backups()
    rows: list[Job] = []
    owners: dict[str, tuple[int, int]] = {}
    for one in place.all():
        try:
            manifest = one.manifest()
        except Refusal as refusal:
            rows.append({"name": one.name, "damaged": str(refusal)})
            continue
        rows.append(
            summary(one, manifest) | {"own": sum(path.stat().st_size for path in one.folder.rglob("*") if path.is_file())}
        )
        for digest, size in {stored.sha256: stored.size for stored in (*manifest.files.values(), *manifest.pieces)}.items():
            owners[digest] = (-1 if digest in owners else len(rows) - 1, size)
    for owner, size in owners.values():
        if owner >= 0:
            rows[owner]["own"] += size
    return rows


def kept(made: Mapping[str, str], keep: Mapping[str, int]) -> set[str]:
    """Which snapshots stay: the newest of each of the last so many days, weeks and months that have any. ``made`` has the time
    of each (ISO 8601) by its name; names are in the order of making, which times are not where a clock was set back."""
    chosen: set[str] = set()
    for period, count in keep.items():
        newest: dict[str, str] = {}
        for name in sorted(made):
            time = datetime.datetime.fromisoformat(made[name])
            newest[name if period == "last" else time.strftime(PERIODS[period])] = name
        chosen |= set(sorted(newest.values())[-count:] if count else ())
    return chosen


def staying(found: list[Snapshot], keep: Mapping[str, int]) -> set[str]:
    """The rules apply to verified snapshots and to those that came after the last one. Whatever they say, that one stays, and
    the last one with secrets: those that a schedule makes have none."""
    made = {one.name: one.made() for one in found}
    verified = [one.name for one in found if one.verified()]
    since = {name: made[name] for name in made if name > max(verified, default="")}
    secret = [one.name for one in found if one.has_secrets() and one.name in verified]
    return kept({name: made[name] for name in verified}, keep) | kept(since, keep) | set(verified[-1:]) | set(secret[-1:])


def prune(job: Job) -> Job:
    """Remove what no rule keeps. The names that went, or would."""
    place = backups()
    with place.claimed():
        found = place.all()
        stay = staying(found, job["keep"])
        going = [one for one in found if one.name not in stay]
        if going and not job.get("dry"):
            place.remove(going)
    return {"removed": [one.name for one in going], "kept": sorted(stay)}


JOBS: dict[str, Callable[[Job], object]] = {"make": make, "list": show, "prune": prune}


if __name__ == "__main__":
    main(lambda job: JOBS[job["do"]](job))
