"""Make a snapshot of the server's data while it goes on, list the snapshots, remove old ones.

Reads DEVPI_HOME and BACKUP_HOME. Jobs (``jobs.py``)::

    {"do": "make", "full": false, "settings": {...}, "image": "sha256:..."}
    {"do": "list"}
    {"do": "prune", "keep": {"last": 3, "daily": 7, "weekly": 5, "monthly": 12}, "dry": false}
"""

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import database
from database import Database, Digests
from entrypoint import is_initialised, server_directory
from jobs import Job, Refusal, main, tracked
from pool import Pool, Stored, sha256
from snapshot import DATABASE, SERVER, TIME, Backups, Manifest, Snapshot, now

ATTEMPTS = 5
BIN = Path(sys.executable).parent
# What two snapshots of one such period are the same to.
PERIODS = {"last": "%Y-%m-%d %H:%M:%S", "daily": "%Y-%m-%d", "weekly": "%G-%V", "monthly": "%Y-%m"}


def backups() -> Backups:
    """The place for backups."""
    return Backups(Path(os.environ["BACKUP_HOME"]))


def live() -> Path:
    """The server directory; Refusal where there is none yet."""
    server = server_directory(Path(os.environ["DEVPI_HOME"]))
    if not is_initialised(server):
        raise Refusal("there is no server's data here yet")
    return server


class Collection:
    """The files that a copy of the database names, and how they get into the pool."""

    def __init__(self, pool: Pool, live: Path, before: Manifest | None) -> None:
        self.pool, self.live = pool, live
        # What the last snapshot could not get is asked for again, and so all is gone through.
        self.after = before.serial if before and not before.lost else -1
        self.files = dict(before.files) if before and not before.lost else {}
        self.sizes = {stored.sha256: stored.size for stored in before.files.values()} if before else {}
        self.lost: dict[str, str] = {}
        self.gone: list[str] = []
        self.new = 0

    def collect(self, copy: Database) -> None:
        """Go through what was changed since the last snapshot."""
        changed = list(copy.files(self.after))
        for path, digests in tracked(changed, "files"):
            self.files.pop(path, None)
            if digests is not None and (stored := self.take(path, digests)):
                self.files[path] = stored

    def take(self, path: str, digests: Digests) -> Stored | None:
        """Have one file in the pool; None where its content cannot be had."""
        expected = digests.get("sha256", "")
        known = Stored(expected, self.sizes.get(expected, -1))
        if self.pool.has(known):
            return known  # it was read when it was put there, by a snapshot that was verified
        try:
            stored = self.pool.add(self.live / path)
            self.new += stored.size
        except FileNotFoundError:
            self.gone.append(path)
            stored = None
        if stored and is_what(self.pool.path(stored.sha256), stored, digests):
            return stored
        if expected and self.pool.is_sound(expected):
            return Stored(expected, self.pool.path(expected).stat().st_size)
        self.lost[path] = "its content is not what devpi's database says" if stored else "the file is not there"
        return None


def is_what(path: Path, stored: Stored, digests: Digests) -> bool:
    """Whether a content is the one that devpi knows by these digests; that of which it knows none is."""
    for name in ("sha256", "sha512", "md5"):
        if name in digests:
            found = stored.sha256 if name == "sha256" else hashlib.file_digest(path.open("rb"), name).hexdigest()
            return found == digests[name]
    return True


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
    with place.claimed():
        made = place.new()
        for _ in range(ATTEMPTS):
            copy_server(server, made.folder / "server")
            with contextlib.closing(Database(made.database)) as copy:
                before = place.predecessor(copy)
                collection = Collection(place.pool, server / "+files", before[1] if before else None)
                collection.collect(copy)
                manifest = describe(made, copy, collection, job)
            # A file that is not there was removed since the database was copied, or put there too late, or is lost.
            if not collection.gone or not has_moved_on(server, manifest):
                break
        private = [path for path in manifest.lost if not manifest.is_mirrored(path)]
        made.write(manifest)
        if job.get("full") or not before:
            fsck(made, manifest, place)
        finished = place.finish(made)
        finished.note(not private)
    return summary(finished, manifest) | {"new": collection.new + manifest.server[DATABASE].size, "lost": manifest.lost}


def has_moved_on(server: Path, manifest: Manifest) -> bool:
    """Whether something was committed since the database was copied."""
    with contextlib.closing(Database(server / DATABASE)) as current:
        return current.serial > manifest.serial


def describe(made: Snapshot, copy: Database, collection: Collection, job: Job) -> Manifest:
    """The manifest. A database that SQLite finds damaged is none to make a snapshot of."""
    if complaints := copy.complaints():
        raise Refusal(f"devpi's database is damaged: {'; '.join(complaints[:3])}. `inv restore` brings the last snapshot back")
    folder = made.folder / "server"
    return Manifest(
        made=now().isoformat(timespec="seconds"),
        serial=copy.serial,
        digest=copy.digest(copy.serial),
        uuid=json.loads((folder / ".nodeinfo").read_text()).get("uuid", ""),
        database=(folder / ".serverversion").read_text().strip(),
        server={name: Stored(sha256(folder / name), (folder / name).stat().st_size) for name in SERVER},
        files=collection.files,
        lost=collection.lost,
        mirrors=sorted(copy.mirrors()),
        image=job.get("image", ""),
        settings=job.get("settings", {}),
    )


def fsck(made: Snapshot, manifest: Manifest, place: Backups) -> None:
    """Have devpi itself check a snapshot, as it would be once restored: files by links into the pool.

    It writes into the server directory that it checks, and so gets one of its own.
    """
    folder = place.work / "fsck"
    for name in SERVER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made.folder / "server" / name, folder / name)
    for path, stored in manifest.files.items():
        link = folder / "+files" / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place.pool.path(stored.sha256))
    command = [str(BIN / "devpi-fsck"), "--serverdir", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    if result.returncode != 0 and not manifest.lost:
        raise Refusal(f"devpi-fsck finds the copy damaged:\n{(result.stdout + result.stderr)[-2000:]}")


def summary(one: Snapshot, manifest: Manifest) -> Job:
    """What a table shows of a snapshot; sizes in bytes."""
    total = sum(stored.size for stored in (*manifest.files.values(), *manifest.server.values()))
    private = sum(not manifest.is_mirrored(path) for path in manifest.files)
    return {
        "name": one.name, "made": manifest.made, "serial": manifest.serial, "files": len(manifest.files), "private": private,
        "bytes": total, "verified": one.verified(), "lost": manifest.lost,
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
        rows.append(summary(one, manifest) | {"own": sum(stored.size for stored in manifest.server.values())})
        for digest, size in {stored.sha256: stored.size for stored in manifest.files.values()}.items():
            owners[digest] = (-1 if digest in owners else len(rows) - 1, size)
    for owner, size in owners.values():
        if owner >= 0:
            rows[owner]["own"] += size
    return rows


def kept(names: list[str], keep: Mapping[str, int]) -> set[str]:
    """Which snapshots stay: the newest of each of the last so many days, weeks and months that have any."""
    chosen: set[str] = set()
    for period, count in keep.items():
        newest: dict[str, str] = {}
        for name in sorted(names):
            newest[datetime.datetime.strptime(name[:20], TIME).strftime(PERIODS[period])] = name
        chosen |= set(sorted(newest.values())[-count:] if count else ())
    return chosen


def prune(job: Job) -> Job:
    """Remove what no rule keeps; never the last verified one. The names that went, or would."""
    place = backups()
    with place.claimed():
        found = place.all()
        stay = kept([one.name for one in found], job["keep"]) | set([one.name for one in found if one.verified()][-1:])
        going = [one for one in found if one.name not in stay]
        if going and not job.get("dry"):
            place.remove(going)
    return {"removed": [one.name for one in going], "kept": sorted(stay)}


JOBS: dict[str, Callable[[Job], object]] = {"make": make, "list": show, "prune": prune}


if __name__ == "__main__":
    main(lambda job: JOBS[job["do"]](job))
