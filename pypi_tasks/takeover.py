"""A devpi server directory taken over: copied by pypi_server/adopt.py beside the data, or moved."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pypi_tasks import home
from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import BadInput, NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.world import World


def server_directory(folder: Path) -> Path | None:
    """Where in a folder devpi's data is: there, or in ``server`` as we have it; None for no devpi's."""
    for path in (folder, folder / "server"):
        if any(home.is_there(path / name) for name in (".nodeinfo", ".serverversion", ".sqlite")):
            return path
    return None


def take_over(world: World, settings: Settings, server: Deployment, source: Path, in_place: bool) -> None:
    """Have a devpi server directory as DEVPI_HOME/server: a verified copy, or itself."""
    uid, gid = server.owner or (os.getuid(), os.getgid())
    taken = settings.devpi_home if home.is_there(settings.devpi_home / ".nodeinfo") else settings.devpi_home / "server"
    if home.entries(taken):
        raise NotReady(f"there is a server's data already, in {taken}.", fix="move it away, or set another DEVPI_HOME")
    home.check(world, settings, uid)
    if in_place:
        refuse_to_move(source, settings.devpi_home, uid, gid)
    found = server.script("adopt", {"do": "check" if in_place else "copy"}, source)
    if in_place:
        world.act(f"mv {source} {taken}", lambda: source.rename(taken))
    if not world.dry:
        report(world, settings, server, found)


def holder(database: Path) -> str:
    """The id of a process that has a file open, as far as one may look; empty for none. devpi always has its database open."""
    with contextlib.suppress(OSError):
        wanted = database.stat()
        for process in home.entries(Path("/proc")):
            for handle in home.entries(process / "fd") if process.name.isdigit() else ():
                with contextlib.suppress(OSError):
                    if os.path.samestat(handle.stat(), wanted):
                        return process.name
    return ""


def refuse_to_move(source: Path, target: Path, uid: int, gid: int) -> None:
    """Refuse what cannot be moved in one step, or could not be written to by the server then."""
    if home.in_use(source.parent) or home.in_use(source):
        raise NotReady(f"a server is running on {source}.", fix="stop it first")
    if process := holder(source / ".sqlite"):
        raise NotReady(f"a server is running on {source}: process {process} has its database open.", fix="stop it first")
    if source.stat().st_dev != home.nearest(target).stat().st_dev:
        raise BadInput(f"{source} is on another disk than DEVPI_HOME={target}.", fix="without --in-place it is copied")
    for path in (source, *home.entries(source)):
        if not home.writable_by(path.stat(), uid, gid):
            fix = f"sudo chown -R {uid}:{gid} {source}"
            raise NotReady(f"{path} cannot be written by uid {uid}, as whom the server runs.", fix=fix)


def report(world: World, settings: Settings, server: Deployment, found: Mapping[str, Any]) -> None:
    """Say what was taken over and what is next."""
    world.say(f"taken over: serial {found['serial']:,}, {found['files']:,} files, each compared with the database's digest")
    if found["again"]:
        world.say(f"{found['again']:,} files of mirrors were not there or damaged; the server fetches them again")
    world.say(
        f"Next: inv up --env {server.env}\n"
        f"  with ROOT_PASSWORD=... PYPI_PASSWORD=... before it, once, where root's and {settings.devpi_user}'s passwords of "
        "the old server are not empty; empty ones are replaced"
    )
