"""DEVPI_HOME and the port: what has to be true of them before a server starts."""

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from pypi_tasks.errors import BadInput, NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.world import World


def is_there(path: Path) -> bool:
    """Whether a path exists, as far as one may look; ``Path.exists`` raises in a folder of somebody else's."""
    return os.path.exists(path)  # noqa: PTH110


def nearest(path: Path) -> Path:
    """The path itself, or the closest parent that exists."""
    while not is_there(path) and path != path.parent:
        path = path.parent
    return path


def writable_by(status: os.stat_result, uid: int, gid: int) -> bool:
    """Whether a user may write what ``status`` describes, by its mode bits."""
    if uid == 0:
        return True
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IWUSR)
    return bool(status.st_mode & (stat.S_IWGRP if status.st_gid == gid else stat.S_IWOTH))


def problem(home: Path, uid: int, gid: int) -> NotReady | None:
    """What keeps the user who runs the server from writing its folder; None where nothing does."""
    if is_there(home) and not home.is_dir():
        return NotReady(f"DEVPI_HOME={home} is a file; expected a folder.", fix="set DEVPI_HOME to a folder")
    at = nearest(home)
    if is_there(home / "server") and not (home / "server").is_dir():
        return NotReady(f"{home / 'server'} is a file; devpi keeps its data in a folder of that name.", fix="move it away")
    if os.statvfs(at).f_flag & os.ST_RDONLY or (not is_there(home) and not os.access(at, os.W_OK)):
        return NotReady(f"DEVPI_HOME={home}: {at} is read-only for you.", fix="set DEVPI_HOME to a folder that you can write")
    for path in (home, home / "server", *entries(home), *entries(home / "server")):
        if is_there(path) and not writable_by(path.stat(), uid, gid):
            owner = path.stat()
            why = "is read-only" if owner.st_uid == uid else f"belongs to uid {owner.st_uid}"
            fix = f"chmod -R u+w {home}" if owner.st_uid == uid else f"sudo chown -R {uid}:{gid} {home}"
            return NotReady(f"DEVPI_HOME: {path} {why}; the server runs as uid {uid}.", fix=fix)
    return None


def entries(folder: Path) -> list[Path]:
    """What is directly in a folder, as far as one may look."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def check(world: World, settings: Settings, uid: int) -> None:
    """Refuse a DEVPI_HOME that the server could not use."""
    if found := problem(settings.devpi_home, uid, settings.devpi_gid):
        stop_here(world, found)


def check_backups(world: World, settings: Settings, uid: int, gid: int) -> None:
    """Refuse a BACKUP_HOME that is no place of its own, or that whoever makes the snapshots could not write."""
    place = settings.backup_home.resolve()
    # The data would be in its own snapshots; the passwords, as plain text, in what is copied elsewhere.
    for name, other in (("DEVPI_HOME", settings.devpi_home), ("SECRETS_HOME", settings.secrets_home)):
        if place == other.resolve() or place in other.resolve().parents or other.resolve() in place.parents:
            raise BadInput(
                f"BACKUP_HOME={settings.backup_home} and {name}={other}: one is in the other.",
                fix="set BACKUP_HOME to a folder of its own, best on another disk",
            )
    if not is_there(place):
        return
    if not os.path.isdir(place):  # noqa: PTH112  Path.is_dir raises where one may not look
        raise NotReady(f"BACKUP_HOME={place} is a file; expected a folder.", fix="set BACKUP_HOME to a folder")
    owner = place.stat()
    if owner.st_uid == uid and not writable_by(owner, uid, gid):
        stop_here(world, NotReady(f"BACKUP_HOME={place} is read-only for uid {uid}, its owner.", fix=f"chmod u+w {place}"))
    # Root could write there; whose folder it is could not any more.
    elif not writable_by(owner, uid, gid) or (uid == 0 and owner.st_uid != 0):
        stop_here(world, NotReady(
            f"BACKUP_HOME={place} belongs to uid {owner.st_uid}; snapshots are made by uid {uid}.",
            fix=f"sudo chown -R {uid}:{gid} {place}",
        ))  # fmt: skip


def check_unused(world: World, settings: Settings) -> None:
    """Refuse data on which a server of another environment runs."""
    if in_use(settings.devpi_home):
        stop_here(world, NotReady(
            f"another server is running on {settings.devpi_home}.",
            fix="`inv status` shows which; take it down first: inv down --env ENV",
        ))  # fmt: skip


def stop_here(world: World, error: NotReady) -> None:
    """Raise; in a dry run only say that the task would end here."""
    if not world.dry:
        raise error
    world.warn(f"would stop here. {error.what}")


def port_problem(address: str, port: int) -> OSError | None:
    """Why this address cannot be listened on, None when it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        return error
    return None


def in_use(home: Path) -> bool:
    """Whether a server, of whatever environment, runs on this data: it holds a lock on its pid file."""
    try:
        with (home / "devpi.pid").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def check_port(world: World, settings: Settings) -> None:
    """Refuse a port that something else has, or an address that is not this host's."""
    if not (found := port_problem(settings.devpi_bind, settings.devpi_port)):
        return
    fixes = {
        errno.EADDRNOTAVAIL: "set DEVPI_BIND to an address of this host, or 0.0.0.0",
        errno.EACCES: "set a DEVPI_PORT above 1023",
    }
    other = "`inv status` shows whether another environment of this project has it; otherwise set another DEVPI_PORT"
    where = f"DEVPI_BIND={settings.devpi_bind} DEVPI_PORT={settings.devpi_port}"
    stop_here(world, NotReady(f"{where}: {found.strerror}.", fix=fixes.get(found.errno or 0, other)))
