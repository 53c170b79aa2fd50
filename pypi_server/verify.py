"""Look for damage in the live data and in the snapshots, beside a server that goes on; repair files if asked to.

Reads DEVPI_HOME and BACKUP_HOME. A job (``jobs.py``)::

    {"live": true, "snapshots": true, "repair": false}

The outcome has counts, notes, and a list of damage (``Damage``). Nothing is overwritten: what was damaged is kept in a folder
``damaged-TIME`` of DEVPI_HOME, or of BACKUP_HOME.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import backup
import database
from commits import Commits, is_past
from database import Database
from jobs import Job, Refusal, main, tell, tracked
from live import Live
from pool import sync
from repair import MISSING, fault, is_what_its_address_says, keep_aside, sources
from snapshot import DATABASE, TIME, Backups, Snapshot, now


@dataclass
class Damage:
    """One thing that is damaged: ``kind`` is file, database, commit, content or snapshot; ``source`` is what it can be repaired
    from, a snapshot's name or the path of a live file; ``repaired`` says what was done, empty for nothing."""

    kind: str
    where: str
    why: str
    source: str = ""
    repaired: str = ""


@dataclass
class Outcome:
    """What was looked at, and what was found. ``live`` tells whether there was live data to look at; ``again`` counts mirrored
    files that devpi will fetch again; ``compared`` is the snapshot whose commits were compared; ``aside`` is the name of the
    folders for what was damaged."""

    live: bool = False
    files: int = 0
    bytes: int = 0
    again: int = 0
    commits: int = 0
    compared: str = ""
    snapshots: int = 0
    contents: int = 0
    notes: list[str] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    aside: str = field(default_factory=lambda: now().strftime(f"damaged-{TIME}"))


@contextlib.contextmanager
def working_copy(place: Backups, server: Path) -> Iterator[Path]:
    """A copy of the live database, where there is room for it."""
    needed = (server / DATABASE).stat().st_size if (server / DATABASE).exists() else 0
    for folder in (place.work, Path(os.environ["DEVPI_HOME"])):
        if shutil.disk_usage(folder).free > needed * 1.2:
            break
    else:
        raise Refusal(f"there is no room for a copy of the database, {needed:,} bytes, beside the data or the snapshots")
    with tempfile.TemporaryDirectory(prefix="verify-", dir=folder) as made:
        path = Path(made) / DATABASE
        database.copy(server / DATABASE, path)
        yield path


def reference(place: Backups, copy: Commits, outcome: Outcome, opened: contextlib.ExitStack) -> Database | None:
    """The database of the newest verified snapshot from which this one went on; ``opened`` closes it."""
    for one in reversed(place.all()):
        with contextlib.suppress(Refusal):
            manifest = one.manifest()
            if not one.verified():
                continue
            path = opened.enter_context(place.database(manifest))
            found = opened.enter_context(contextlib.closing(Database(path)))
            if manifest.serial <= copy.serial and is_past(found, manifest.serial, copy):
                outcome.compared = one.name
                return found
            outcome.notes.append(f"snapshot {one.name} is of another past than the live database: not compared with it")
    return None


def check_live(place: Backups, server: Path, outcome: Outcome, repair: bool) -> None:
    """Database, commits, files."""
    try:
        with working_copy(place, server) as path, contextlib.closing(Commits(path)) as copy, contextlib.ExitStack() as opened:
            tell("database", 0, 1)
            outcome.damage += [Damage("database", DATABASE, complaint) for complaint in copy.complaints()[:10]]
            outcome.commits = copy.serial + 1
            copy.check(reference(place, copy, outcome, opened))
            for serial, keys, why in copy.findings:
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                outcome.damage.append(Damage("commit", f"{serial}: {', '.join(keys[:3])}{more}", f"commit {why}"))
            check_files(place, Live(server, copy), outcome, repair)
    except sqlite3.DatabaseError as error:
        outcome.damage.append(Damage("database", DATABASE, f"cannot be read, so that not all was looked at: {error}"))


def check_files(place: Backups, files: Live, outcome: Outcome, repair: bool) -> None:
    """The files that the database names."""
    found = files.damaged()
    outcome.files, outcome.bytes, outcome.again = files.count, files.bytes, files.again
    have = sources(place, {name: digests for name, (digests, _) in found.items()})
    for name, (_, why) in found.items():
        source, digest = have.get(name, ("", ""))
        if not source and is_what_its_address_says(files.path(name)):
            where = f"{files.copy.changed(name)}: {name}"
            outcome.damage.append(Damage("commit", where, "commit has another digest of this file than its address has"))
            continue
        one = Damage("file", name, why, source or ("upstream" if files.is_mirrored(name) else ""))
        outcome.damage.append(one)
        if repair and one.source:
            content = place.pool.path(digest) if digest else None
            done = files.repair(name, content, digest, Path(os.environ["DEVPI_HOME"]) / outcome.aside)
            one.repaired = f"{done} {source}".strip()


def check_snapshots(place: Backups, outcome: Outcome, repair: bool) -> None:
    """Every content of the pool is read, and every snapshot compared; each is noted as verified or not."""
    sound = place.sound()
    found = place.all()
    missing: dict[str, dict[str, None]] = {
        name: {} for path in place.pool.contents() if (name := path.parent.name + path.name) not in sound
    }
    outcome.contents, outcome.snapshots = len(sound) + len(missing), len(found)
    for one in found:
        with contextlib.suppress(Refusal):
            manifest = one.manifest()
            for path, stored in (*manifest.files.items(), *((f"{one.name}'s {DATABASE}", piece) for piece in manifest.pieces)):
                if stored.sha256 not in sound:
                    missing.setdefault(stored.sha256, {})[path] = None
    for digest, names in missing.items():
        if check_content(place, digest, list(names), outcome, repair):
            sound.add(digest)
    for one in tracked(found, "snapshots"):
        outcome.damage += [Damage("snapshot", one.name, complaint) for complaint in own_damage(one)]
        one.note(not one.damage(sound) and is_complete(one))


def own_damage(one: Snapshot) -> list[str]:
    """What is wrong with a snapshot apart from contents, which are told of once for all snapshots."""
    try:
        contents = one.manifest().contents()
    except Refusal:
        contents = set()
    return [complaint.removeprefix(f"snapshot {one.name} is damaged: ") for complaint in one.damage(contents)]


def is_complete(one: Snapshot) -> bool:
    """Whether a sound snapshot has all private files: otherwise it never counted as verified."""
    manifest = one.manifest()
    return all(manifest.is_mirrored(path) for path in manifest.lost)


def check_content(place: Backups, digest: str, names: list[str], outcome: Outcome, repair: bool) -> bool:
    """A content of the pool that is not what its name says; whether it was repaired, from a live file that is."""
    path = place.pool.path(digest)
    shown = f"{path.relative_to(place.folder)}: {', '.join(names[:3]) or 'of no snapshot'}"
    one = Damage("content", shown, "its content is not what its name says" if path.exists() else MISSING)
    outcome.damage.append(one)
    with contextlib.suppress(Refusal):
        files = backup.live() / "+files"
        one.source = next((name for name in names if not fault(files / name, {"sha256": digest})), "")
        if repair and one.source:
            keep_aside(path, place.folder / outcome.aside / path.relative_to(place.folder))
            place.pool.add(files / one.source)
            sync(place.folder)
            one.repaired = "replaced by the live file"
    return bool(one.repaired)


def verify(job: Job) -> Job:
    """Look at all, or at the live data or the snapshots alone."""
    outcome, place = Outcome(), backup.backups()
    snapshots_alone = not job["live"] or (job["snapshots"] and bool(place.all()) and not backup.is_there())
    server = None if snapshots_alone else backup.live()
    outcome.live = server is not None
    if job["live"] and not server:
        outcome.notes.append("there is no server's data here, only the snapshots were looked at; `inv restore` brings one back")
    with place.claimed():
        if not place.all():
            outcome.notes.append("there are no snapshots: the commits cannot be compared, nor anything repaired; `inv backup`")
        elif job["snapshots"]:
            check_snapshots(place, outcome, job["repair"])
        if server:
            check_live(place, server, outcome, job["repair"])
    return asdict(outcome)


if __name__ == "__main__":
    main(verify)
