"""Take over the server directory of a devpi that ran elsewhere, devpi 5 or 6: as a verified copy, or, to be moved, as it is.

Reads DEVPI_HOME, writes DEVPI_HOME/server.adopting, which becomes DEVPI_HOME/server once it is whole. A copy that was
interrupted, or refused for files that are lost, is gone on with. Jobs (``jobs.py``)::

    {"source": "/old/server", "do": "copy"}     take all that the database names
    {"source": "/old/server", "do": "check"}    only look whether it is there
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import database
import entrypoint
from database import Database, Digests
from devpi_server.fileutil import dumps
from jobs import Job, Refusal, main, tracked
from pool import clone
from snapshot import DATABASE, SERVER

VERSION = "4"  # devpi_server.main.DATABASE_VERSION, since devpi 4
ATTEMPTS = 5
SHOWN = 5
INCOMPLETE = "an incomplete copy? have all of the folder copied again"
LOGICAL = "use devpi-export with the version that ran it, then devpi-import"
Take = Callable[[str, Digests], str]


def refuse_unreadable(path: Path, source: Path) -> None:
    """Refuse what is there and cannot be read by whoever runs the server."""
    wanted = os.R_OK | (os.X_OK if path.is_dir() else 0)
    if path.exists() and not os.access(path, wanted):
        what = f"its {path.relative_to(source)}" if path != source else "the folder"
        who = os.getuid()
        fix = f"on the host: cp -a it elsewhere, chown -R {who} the copy, and adopt that"
        raise Refusal(f"{what} cannot be read by uid {who}, as whom the server runs; {fix}")


def refuse_unfit(source: Path) -> None:
    """Refuse what is no server directory, or none that can be served as it is."""
    for path in (source, *(source / name for name in SERVER)):
        refuse_unreadable(path, source)
    if not (source / ".nodeinfo").exists():
        raise Refusal(f"this is no devpi server directory that can be served as it is: it has no .nodeinfo; {LOGICAL}")
    version = source / ".serverversion"
    if not (found := version.read_text(errors="replace").strip() if version.exists() else ""):
        raise Refusal(f"its .serverversion is missing or empty: {INCOMPLETE}")
    if found != VERSION:
        raise Refusal(f"its database is of version {found}, expected {VERSION}, that of devpi 4 to 6: {LOGICAL}")
    try:
        role = json.loads((source / ".nodeinfo").read_text()).get("role")
    except (ValueError, AttributeError):
        raise Refusal(f"its .nodeinfo cannot be understood: {INCOMPLETE}") from None
    if role == "replica":
        raise Refusal("it is a replica, which may lack files: adopt its primary, or start it once with --role primary")
    if not (source / DATABASE).exists():
        raise Refusal(f"its database is not SQLite's (there is no {DATABASE}): {LOGICAL}")


def copy_database(source: Path, target: Path) -> None:
    """Copy a database out of a folder that is not written to, whether or not a server is at work on it."""
    target.unlink(missing_ok=True)
    try:
        database.copy(source, target, "ro")
        return
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise Refusal("its server keeps the database locked: try again, or stop it first") from None
    # A killed server left something half-done. To undo it, SQLite has to write: into a copy of it all.
    found = target.with_name("found.sqlite")
    for suffix in ("", "-journal", "-wal"):
        part = source.with_name(source.name + suffix)
        copy = found.with_name(found.name + suffix)
        copy.unlink(missing_ok=True)
        if part.exists():
            clone(part, copy)
    try:
        database.copy(found, target)
    except sqlite3.DatabaseError as error:
        raise Refusal(f"its database cannot be read: {error}") from None
    finally:
        for path in found.parent.glob(f"{found.name}*"):
            path.unlink()


def matches(path: Path, digests: Digests) -> bool:
    """Whether a file is the one that devpi knows by these digests; that of which it knows none is."""
    for name in ("sha256", "sha512", "md5"):
        if name in digests:
            with path.open("rb") as file:
                return hashlib.file_digest(file, name).hexdigest() == digests[name]
    return True


def has(source: Path, path: str, digests: Digests) -> str:
    """What is wrong with a file there; empty for nothing."""
    original = source / "+files" / path
    if not original.exists():
        return "the file is not there"
    refuse_unreadable(original, source)
    return "" if matches(original, digests) else "its content is not what devpi's database says"


def take(source: Path, target: Path, path: str, digests: Digests) -> str:
    """Have a verified copy of one file; what keeps it from being taken, empty for nothing."""
    original, made, part = source / "+files" / path, target / "+files" / path, target / "part"
    with contextlib.suppress(FileNotFoundError):
        if made.stat().st_size == original.stat().st_size and matches(made, digests):
            return ""
    if wrong := has(source, path, {}):
        return wrong
    clone(original, part)
    if not matches(part, digests):
        part.unlink()
        return "its content is not what devpi's database says"
    made.parent.mkdir(parents=True, exist_ok=True)
    part.rename(made)
    return ""


def refuse_too_large(source: Path, target: Path, wanted: list[str]) -> None:
    """Refuse what there is no room for."""
    needed = 0
    for path in wanted:
        with contextlib.suppress(FileNotFoundError):
            needed += 0 if (target / "+files" / path).exists() else (source / "+files" / path).stat().st_size
    if needed > (free := shutil.disk_usage(target).free):
        raise Refusal(
            f"{needed / 1e9:.1f} GB are to be copied, and {free / 1e9:.1f} GB are free: make room, or move it by --in-place"
        )


def gather(source: Path, target: Path, attempt: Take, is_copy: bool) -> Job:
    """Go through all files that the database names; what was found, and what is lost.

    A file that is not there may have been removed after the database was copied, where a server goes on. Then it is all
    gone through again, with the database as it is by then.
    """
    before, wanted, lost = -2, dict[str, Digests](), dict[str, str]()
    for _ in range(ATTEMPTS):
        copy_database(source / DATABASE, target / DATABASE)
        with contextlib.closing(Database(target / DATABASE)) as copy:
            if complaints := copy.complaints() or (["it is empty"] if copy.serial < 0 else []):
                raise Refusal(f"its database is damaged: {'; '.join(complaints[:3])}")
            is_same, before = copy.serial == before, copy.serial
            if not is_same:
                wanted = {path: digests for path, digests in copy.files() if digests is not None}
            mirrors, last = copy.mirrors(), copy.changes(copy.serial)
        asked = {path: wanted[path] for path in lost} if is_same else wanted
        if is_copy:
            refuse_too_large(source, target, list(asked))
        found = {path: attempt(path, digests) for path, digests in tracked(asked.items(), "files", len(asked))}
        lost = {path: why for path, why in found.items() if why}
        if is_same or not lost:
            break
    private = {path: why for path, why in lost.items() if "/".join(path.split("/")[:2]) not in mirrors}
    return {
        "serial": before,
        "files": len(wanted) - len(lost),
        "lost": private,
        "again": len(lost) - len(private),  # of mirrors: they are fetched again
        "wanted": list(wanted),
        "last": [path for path in lost if path in last],
    }


def refuse_lost(lost: dict[str, str], kept: str) -> None:
    """Refuse what lacks files that nobody else has: devpi would wait for them for ever, and index nothing that came after."""
    if not lost:
        return
    first = "".join(f"\n  {path}: {why}" for path, why in list(lost.items())[:SHOWN])
    more = f"\n  and {len(lost) - SHOWN:,} more" if len(lost) > SHOWN else ""
    raise Refusal(
        f"{len(lost):,} uploaded files cannot be taken, so nothing is served yet{kept}:{first}{more}\n"
        "  Fix: put them there, from a backup of the old server, then the same command again; of those that are lost for ever, "
        "have the old server remove the releases (devpi remove)"
    )


def pass_over(path: Path, serial: int) -> None:
    """Let another commit be the last one, which changes nothing: devpi does not start where a file of its last one is lost."""
    with contextlib.closing(database.connect(path, "rw")) as connection, connection:
        connection.execute("INSERT INTO changelog (serial, data) VALUES (?, ?)", (serial + 1, dumps(({}, []))))


def remove_others(files: Path, wanted: list[str]) -> None:
    """Leave out what an earlier attempt copied and the source has no more."""
    kept = {files / path for path in wanted}
    for path in list(files.rglob("*")):
        if path.is_file() and path not in kept:
            path.unlink()


def check(source: Path, home: Path) -> Job:
    """Look whether all is there."""
    work = home / "server.checking"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        found = gather(source, work, lambda path, digests: has(source, path, digests), is_copy=False)
    finally:
        shutil.rmtree(work)
    refuse_lost(found["lost"], "")
    if found["last"]:
        raise Refusal(f"devpi would not start without {found['last'][0]}, a file of its last commit: have it copied, not moved")
    return found


def copy(source: Path, home: Path) -> Job:
    """Copy; what was copied counts as a server directory only when all of it is on disk."""
    made = home / "server.adopting"
    made.mkdir(exist_ok=True)
    try:
        found = gather(source, made, lambda path, digests: take(source, made, path, digests), is_copy=True)
    except Refusal:
        if not (made / "+files").exists():  # nothing to go on with
            shutil.rmtree(made)
        raise
    refuse_lost(found["lost"], f"; what was copied is kept in DEVPI_HOME/{made.name}")
    remove_others(made / "+files", found["wanted"])
    if found["last"]:
        pass_over(made / DATABASE, found["serial"])
    for name in SERVER:
        if name != DATABASE:
            shutil.copyfile(source / name, made / name)
    os.sync()
    made.rename(home / "server")
    os.sync()
    return found


def adopt(job: Job) -> Job:
    """Do the job while no server of ours can start."""
    home = Path(os.environ["DEVPI_HOME"])
    server = entrypoint.server_directory(home)
    if server.exists() and any(server.iterdir()):
        raise Refusal(f"there is a server's data already, in DEVPI_HOME/{server.relative_to(home)}: move it away first")
    source = Path(job["source"])
    refuse_unfit(source)
    try:
        entrypoint.claim(home)
    except entrypoint.Refusal as refusal:
        raise Refusal(str(refusal)) from None
    found = {"copy": copy, "check": check}[job["do"]](source, home)
    return {name: value for name, value in found.items() if name not in ("lost", "wanted", "last")}


if __name__ == "__main__":
    main(adopt)
