"""Bring a snapshot back: made beside the live data while that goes on, then put in its place in one step.

    DEVPI_HOME/server.restoring       what the snapshot holds, in the making
    DEVPI_HOME/server.before-TIME     the data that was replaced
    DEVPI_HOME/server.failed-TIME     what was restored but did not serve

Jobs (``jobs.py``)::

    {"do": "prepare", "snapshot": "", "without_damaged": false}     the newest verified one for no name
    {"do": "switch"}                      no server may run meanwhile
    {"do": "undo", "aside": "server.before-TIME", "was_home": false}    as ``switch`` has answered
    {"do": "discard"}
"""

import contextlib
import ctypes
import dataclasses
import errno
import os
import shutil
import signal
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path

import entrypoint
from backup import backups, fsck, is_there
from database import Database
from jobs import Job, Refusal, main, tracked
from page_store import PageStore
from pool import Pool, clone, sha256
from snapshot import DATABASE, SERVER, TIME, Backups, Manifest, Snapshot, now

RESTORING = "server.restoring"
SHOWN = 10
RENAME_EXCHANGE, AT_FDCWD = 2, -100  # of linux/fs.h and fcntl.h


def data() -> Path:
    """DEVPI_HOME."""
    return Path(os.environ["DEVPI_HOME"])


def unfit(manifest: Manifest, version: str) -> str:
    """Why a devpi with this version of its database cannot open the snapshot; empty where it can."""
    found = manifest.database.split(".")[0]
    if found == version:
        return ""
    is_newer = found.isdigit() and int(found) > int(version)
    advice = "restore it with the newer images" if is_newer else "have that devpi export it (devpi-export)"
    return f"the snapshot has a database of version {found}, made by devpi {manifest.devpi}; this devpi has {version}: {advice}"


def shortage(manifest: Manifest, free: int) -> str:
    """What room is lacking; empty where there is enough. ``free`` in bytes."""
    needed = sum(stored.size for stored in (*manifest.files.values(), *manifest.server.values()))
    return "" if needed < free else f"the snapshot needs {needed:,} bytes beside the data, and {free:,} are free"


def database_version() -> str:
    """The version of the database that this devpi opens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies are deprecated by their own; nobody here can act on it
        from devpi_server.main import DATABASE_VERSION
    return str(DATABASE_VERSION)


def refuse(why: str) -> None:
    """Go no further, if there is a reason."""
    if why:
        raise Refusal(why)


def prepare(job: Job) -> Job:
    """Have a checked copy of the snapshot beside the data, which is not touched; what is to be known before the switch."""
    place, made = backups(), data() / RESTORING
    with place.claimed():
        one = place.find(job["snapshot"])
        manifest = one.manifest()
        refuse(unfit(manifest, database_version()))
        shutil.rmtree(made, ignore_errors=True)
        refuse(shortage(manifest, shutil.disk_usage(data()).free))
        try:
            damaged = copy(one, manifest, place.pool, made)
            if damaged:
                one.note(is_whole=False)
                manifest = without(place, one, damaged, job.get("without_damaged", False))
            have_start(made, manifest)
            fsck(made, manifest, place)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return {
        "name": one.name, "made": manifest.made, "serial": manifest.serial, "files": len(manifest.files),
        "lost": len(manifest.lost) - len(damaged), "damaged": damaged, "live": live_serial(), "replaces": is_there(),
    }  # fmt: skip


def copy(one: Snapshot, manifest: Manifest, pool: Pool, made: Path) -> list[str]:
    """Copy what the manifest names, and read each copy again; what is not as the manifest says is named, and not there."""
    wanted = [(one.server / name, made / name, stored) for name, stored in manifest.server.items() if name != DATABASE]
    wanted += [(pool.path(stored.sha256), made / "+files" / path, stored) for path, stored in manifest.files.items()]
    made.mkdir(parents=True)
    with contextlib.suppress(FileNotFoundError):
        pool.join(manifest.pieces, made / DATABASE)
    wrong = [] if sha256(made / DATABASE) == manifest.server[DATABASE].sha256 else [DATABASE]
    for source, target, stored in tracked(wanted, "files"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            clone(source, target)
        if not target.exists() or sha256(target) != stored.sha256:
            target.unlink(missing_ok=True)
            wrong.append(str(target.relative_to(made)))
    return wrong


def without(place: Backups, one: Snapshot, damaged: list[str], agreed: bool) -> Manifest:
    """The manifest of a snapshot without its damaged files, where that was agreed to and they are but packages; Refusal names
    them, and what can be restored instead."""
    manifest, names = one.manifest(), {path.removeprefix("+files/") for path in damaged}
    ways = [f"inv restore {other.name}, which is verified" for other in reversed(place.all()) if other.verified()][:1]
    if not set(damaged) & set(SERVER):
        if agreed:
            files = {path: stored for path, stored in manifest.files.items() if path not in names}
            lost = manifest.lost | dict.fromkeys(sorted(names), "damaged in the snapshot")
            return dataclasses.replace(manifest, files=files, lost=lost)
        ways.append(f"inv restore {one.name} --without-damaged, which leaves out what is named here")
    more = f" and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
    raise Refusal(
        f"snapshot {one.name} is damaged: not what the manifest says: {', '.join(damaged[:SHOWN])}{more}.\n"
        f"  Fix: {'; or '.join(ways) or 'inv fetch, where there is a copy elsewhere'}"
    )


def have_start(made: Path, manifest: Manifest) -> None:
    """devpi does not start where a file of its last commit is lost: then another one, which changes nothing, comes after it."""
    with contextlib.closing(Database(made / DATABASE)) as database:
        last = database.changes(manifest.serial)
    if last.keys() & manifest.lost.keys():
        from adopt import pass_over  # which needs devpi, as the rest here does not

        pass_over(made / DATABASE, manifest.serial)


def live_serial() -> int:
    """The last commit of the data that is there now; -1 for none, or none that can be read."""
    path = entrypoint.server_directory(data()) / DATABASE
    with contextlib.suppress(sqlite3.Error), contextlib.closing(Database(path)) as database:
        return database.serial
    return -1


def exchange(one: Path, other: Path) -> None:
    """Let two names change places, in one step. A file system that cannot (NFS) takes three; cut off between them, there is no
    server directory, and the entry point says what to rename."""
    if call := getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None):
        if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
            return
        if (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(one))
    between = one.with_name(f"{one.name}.exchanged")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def switch(_: Job) -> Job:
    """Put what was prepared in place of the data; where that is now, empty for none, and whether it was DEVPI_HOME itself."""
    home = data()
    made, server, aside = home / RESTORING, home / "server", home / f"server.before-{now().strftime(TIME)}"
    with backups().claimed():
        if not made.exists():
            raise Refusal("nothing was prepared")
        was_home = entrypoint.server_directory(home) == home
        if was_home and server.exists():
            raise Refusal(f"devpi's data is in {home} itself, but {server} is there too; move that away")
        claim(home)
        os.sync()  # what is to be served is on disk before its name is
        is_new = not was_home and not server.exists()
        if is_new:
            made.rename(server)
        elif was_home:
            move_out(home, aside)
        else:
            made.rename(aside)
            exchange(server, aside)
        settle(home)
    return {"aside": "" if is_new else aside.name, "was_home": was_home}


def move_out(home: Path, aside: Path) -> None:
    """Move devpi's data out of DEVPI_HOME itself. ``.nodeinfo`` is what makes a folder devpi's, so its move is the one step."""
    aside.mkdir()
    (home / RESTORING).rename(home / "server")
    (home / ".nodeinfo").rename(aside / ".nodeinfo")
    for path in list(home.glob("[.+]*")):
        path.rename(aside / path.name)


def undo(job: Job) -> Job:
    """Put the data that was replaced back; where what was restored is now."""
    home = data()
    server, failed = home / "server", home / f"server.failed-{now().strftime(TIME)}"
    with backups().claimed():
        claim(home)
        aside = home / job["aside"]
        if job["was_home"]:
            for path in sorted(aside.iterdir(), key=lambda path: path.name == ".nodeinfo"):
                path.rename(home / path.name)
            aside.rmdir()
        elif job["aside"]:
            exchange(server, aside)
        (aside if job["aside"] and not job["was_home"] else server).rename(failed)
        settle(home)
    return {"failed": failed.name}


def claim(home: Path) -> None:
    """Keep servers out for as long as this process lives, and Ctrl-C from what takes a moment."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        entrypoint.claim(home)
    except entrypoint.Refusal as refusal:
        raise Refusal(str(refusal)) from None


def settle(home: Path) -> None:
    """Have the switch on disk, and no page of the data that was."""
    os.sync()
    if (home / "public").exists():
        PageStore(home / "public", 0).clear()


def discard(_: Job) -> Job:
    """Remove what was prepared; whether it was still there."""
    made = data() / RESTORING
    found = made.exists()
    shutil.rmtree(made, ignore_errors=True)
    return {"discarded": found}


JOBS: dict[str, Callable[[Job], object]] = {"prepare": prepare, "switch": switch, "undo": undo, "discard": discard}


if __name__ == "__main__":
    main(lambda job: JOBS[job["do"]](job))
