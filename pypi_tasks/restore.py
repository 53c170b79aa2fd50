"""Bring a snapshot back. The work is done by pypi_server/restore.py, beside the data; here is when it may, and what is told."""

import contextlib
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pypi_tasks import deployment, home, rotate
from pypi_tasks.backup import age
from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import BadInput, Failed, Interrupted, UserError
from pypi_tasks.interruption import ANEW
from pypi_tasks.settings import Settings
from pypi_tasks.world import World, is_attended

SCRIPT = "restore"
ASIDE = "server.before-"
TIMEOUT = 120  # seconds for the server to be healthy


def run(world: World, settings: Settings, server: Deployment, snapshot: str, yes: bool, without_damaged: bool = False) -> None:
    """Check and copy while the server goes on, ask, then put the copy in place of the data, which is kept beside it."""
    with world.exclusive(deployment.LOCK, task="restore"):
        server.look()
        is_up = world.dry or server.state().health != "stopped"
        server.preflight(port=is_up)
        if not (yes or world.dry or is_attended()) and (is_up or has_data(settings.devpi_home)):
            raise BadInput("there is data to replace, and no terminal to ask at; nothing was changed.", fix="--yes")
        found = prepare(server, snapshot, without_damaged)
        with discarded(world, server, settings.devpi_home):
            if not yes and is_replacing(found) and not world.confirm(question(settings.devpi_home, found), "y", "Y", "yes"):
                raise BadInput("not confirmed, so nothing was changed.", fix="type y, or give --yes")
            with deployment.halted(server) if is_up else contextlib.nullcontext():
                switched = server.script(SCRIPT, {"do": "switch"})
        tell(world, settings.devpi_home, found, switched)
        if is_up:
            with in_place(server):
                await_health(world, server, switched)
                provision(world, settings, server, found["name"] if found else snapshot)
        else:
            world.say(f"Next: inv up --env {server.env}")


def prepare(server: Deployment, snapshot: str, without_damaged: bool = False) -> Any:
    """Have a checked copy beside the data; none where Ctrl-C came, be it when all was done."""
    try:
        return server.script(SCRIPT, {"do": "prepare", "snapshot": snapshot, "without_damaged": without_damaged})
    except (KeyboardInterrupt, Interrupted):
        server.script(SCRIPT, {"do": "discard"})
        raise


def put_in_place(world: World, settings: Settings, server: Deployment, snapshot: str) -> None:
    """The same for a server that is stopped, without a question."""
    found = prepare(server, snapshot)
    with discarded(world, server, settings.devpi_home):
        switched = server.script(SCRIPT, {"do": "switch"})
    tell(world, settings.devpi_home, found, switched)


def has_data(folder: Path) -> bool:
    """Whether there is data in DEVPI_HOME, as far as can be seen from here."""
    return home.is_there(folder / "server") or home.is_there(folder / ".nodeinfo")


def is_replacing(found: Mapping[str, Any] | None) -> bool:
    """Whether there is data that will have to make way; a dry run, which knows nothing, takes it that there is."""
    return found is None or bool(found["replaces"])


def provision(world: World, settings: Settings, server: Deployment, snapshot: str) -> None:
    """Users and index as the settings want them; Failed where the passwords of the snapshot's time are not known."""
    try:
        rotate.provision(world, settings, server)
    except Failed as error:
        up = f"inv up --env {server.env}"
        unlocked = f"where `inv backups` shows that it has secrets, inv unlock {snapshot}, then {up}"
        raise Failed(
            f"the snapshot is in place and serves, but {error.what}",
            fix=f"with those of its time, ROOT_PASSWORD=... PYPI_PASSWORD=... {up}; {unlocked}",
        ) from None


def question(folder: Path, found: Mapping[str, Any] | None) -> str:
    """What is to be agreed to."""
    if found is None:
        return f"Replace the data in {folder}? What is there now is kept, as server.before-TIME."
    when = age(found["made"], datetime.datetime.now(datetime.UTC))
    return (
        f"Replace the data in {folder}, {serial(found['live'])}, by snapshot {found['name']}, serial {found['serial']:,}, "
        f"made {when} ago? What is there now is kept, as server.before-TIME. [y/N]"
    )


@contextlib.contextmanager
def discarded(world: World, server: Deployment, folder: Path) -> Iterator[None]:
    """Leave no copy behind that was not used; tell which data is in place, should that be unclear."""
    try:
        yield
    except (KeyboardInterrupt, UserError) as error:
        unused = server.script(SCRIPT, {"do": "discard"})["discarded"]
        placed = f"the snapshot is in place; the data from before is {last_aside(folder)}"
        world.say("the data is what it was" if unused else placed)
        if isinstance(error, KeyboardInterrupt | Interrupted):
            raise Interrupted("interrupted at: restore", fix=ANEW if unused else f"inv up --env {server.env}") from None
        raise


def last_aside(folder: Path) -> str:
    """The data that was replaced last, as far as can be seen from here."""
    found = [path.name for path in home.entries(folder) if path.name.startswith(ASIDE)]
    return str(folder / (found[-1] if found else f"{ASIDE}TIME"))


@contextlib.contextmanager
def in_place(server: Deployment) -> Iterator[None]:
    """What is to be typed after Ctrl-C, once the snapshot is where the data was."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted("interrupted at: restore, with the snapshot in place", fix=f"inv up --env {server.env}") from None


def serial(live: int) -> str:
    """The last commit of the live data, for people; a damaged database has none."""
    return f"serial {live:,}" if live >= 0 else "of an unreadable database"


def tell(world: World, folder: Path, found: Mapping[str, Any] | None, switched: Mapping[str, Any] | None) -> None:
    """What is there now, and where what was there is."""
    if found is None or switched is None:
        return
    world.say(f"restored {found['name']}: serial {found['serial']:,}, {found['files']:,} files")
    if switched["aside"]:
        world.say(f"the data from before, {serial(found['live'])}, is kept in {folder / switched['aside']}")
    for path in found["damaged"]:
        world.warn(f"left out, since it is damaged in the snapshot: {path}")
    if found["lost"]:
        world.warn(f"{found['lost']} files were lost before the snapshot was made; `inv backups` and its manifest.json name them")


def await_health(world: World, server: Deployment, switched: Mapping[str, Any] | None) -> None:
    """Wait until the restored data serves; where it does not, put the old data back."""
    try:
        deployment.await_health(world, server, TIMEOUT)
    except Failed as error:
        server.halt()
        undone = server.script(SCRIPT, {"do": "undo", **(switched or {})})
        server.resume()
        told = f"what was restored does not serve. The data from before is back, the other is in {undone['failed']}"
        raise Failed(f"{told}: {error.what}") from None
