"""DEVPI_HOME and the port: what has to be true of them before a server starts."""

import fcntl
import os
import socket
import stat
from pathlib import Path

from pypi_tasks.errors import NotReady
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
    if os.statvfs(at).f_flag & os.ST_RDONLY or (not is_there(home) and not os.access(at, os.W_OK)):
        return NotReady(f"DEVPI_HOME={home}: {at} is read-only for you.", fix="set DEVPI_HOME to a folder that you can write")
    for path in (home, home / ".sqlite", home / "server", home / "server" / ".sqlite"):
        if is_there(path) and not writable_by(path.stat(), uid, gid):
            owner = path.stat()
            why = "is read-only" if owner.st_uid == uid else f"belongs to uid {owner.st_uid}"
            fix = f"chmod -R u+w {home}" if owner.st_uid == uid else f"sudo chown -R {uid}:{gid} {home}"
            return NotReady(f"DEVPI_HOME: {path} {why}; the server runs as uid {uid}.", fix=fix)
    return None


def check(world: World, settings: Settings, uid: int) -> None:
    """Refuse a DEVPI_HOME that the server could not use."""
    found = problem(settings.devpi_home, uid, settings.devpi_gid)
    if found and not world.dry:
        raise found
    if found:
        world.warn(f"would stop here. {found.what}")


def port_problem(address: str, port: int) -> str:
    """Why this address cannot be listened on, empty when it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        return error.strerror or str(error)
    return ""


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
    """Refuse a port that something else has."""
    why = port_problem(settings.devpi_bind, settings.devpi_port)
    if not why:
        return
    error = NotReady(
        f"DEVPI_BIND={settings.devpi_bind} DEVPI_PORT={settings.devpi_port}: {why}.",
        fix="`inv status` shows whether another environment of this project has it; otherwise set another DEVPI_PORT",
    )
    if not world.dry:
        raise error
    world.warn(f"would stop here. {error.what}")
