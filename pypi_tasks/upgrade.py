"""Replace the images of a stack while its clients wait, not fail; and the way back.

A snapshot first, then the new images on a copy of the data (``drill.py``): what is broken never reaches a client. Then
the containers are replaced; where that goes wrong the old images come back, and the snapshot only if the database's version
was changed. What is needed for the way back is kept by ``previous.py``.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from pypi_tasks import backup, deployment, drill, previous, probe, restore, rotate, smoke, traffic
from pypi_tasks.deployment import LOCK, Deployment
from pypi_tasks.errors import BadInput, Failed, Interrupted, UserError
from pypi_tasks.interruption import ANEW, resumable, undisturbed
from pypi_tasks.previous import Images, describe, ids, names
from pypi_tasks.settings import Settings, fields
from pypi_tasks.stack import Stack
from pypi_tasks.terminal import table
from pypi_tasks.world import World

TIMEOUT = 120.0  # seconds for the server to be healthy
BACK = "going back to what ran before"
MEND = "undo the change, or keep the old TAG: the next `inv up` would start the new images"


def stack_of(server: Deployment) -> Stack:
    """The server, if it has images and a proxy that holds its clients; BadInput otherwise."""
    if not isinstance(server, Stack):
        raise BadInput("local has no images, and no proxy to hold clients.", fix="inv up --env local")
    return server


def redirected(settings: Settings, env: str, to: str) -> Settings:
    """The settings with another TAG, where the environment takes its images from a registry."""
    if not to:
        return settings
    if env == "dev":
        raise BadInput("--to names a tag of the registry; dev runs what is built here.", fix="inv upgrade --env stable --to TAG")
    try:
        return dataclasses.replace(settings, tag=fields()["TAG"].metadata["check"](to))
    except ValueError as error:
        raise BadInput(f"--to {to}: expected {error}.") from None


def run(world: World, settings: Settings, server: Deployment, to: str = "") -> None:
    """The whole upgrade; what fails before the containers are replaced leaves them as they are."""
    stack = stack_of(server)
    target = Stack(world, redirected(settings, stack.env, to), stack.env)
    with world.exclusive(LOCK, task="upgrade"):
        target.preflight()
        require_healthy(world, stack, f"inv up --env {stack.env}")
        require_passwords(world, settings, stack)
        before = describe(world, stack.images_running())
        with unchanged(world, target, before):
            with saying("the new images cannot be had"):
                target.get_images()
            wanted = describe(world, target.images_wanted())
            if not world.dry and ids(before) == ids(wanted):
                world.say("nothing to upgrade: the newest images are running already")
                return
            # From here on nothing is built or pulled, whatever becomes of the folders and the registry meanwhile.
            target = Stack(world, target.settings, target.env, names(wanted))
            stack = stack if to else target
            with saying("no snapshot can be made"):
                snapshot = backup.make(world, settings, stack)
            with saying("the new images do not work", MEND):
                drill.run(world, settings, stack, snapshot, images=ids(wanted))
            previous.keep(world, settings, stack.env, before)
            with saying("the data cannot be looked at"):
                previous.remember(world, stack, snapshot, before)
        with watched(world, settings) as seen, traffic.heard(world, stack) as told, undone(world, settings, stack):
            # Once more, now that clients wait: with what was uploaded during the drill, should the snapshot be needed.
            stack.halt()
            snapshot = backup.make(world, settings, stack)
            previous.remember(world, stack, snapshot, before)
            previous.name_again(world, wanted)
            replace(world, settings, target)
    receipt(world, before, wanted, seen, told, snapshot)
    if to and settings.tag != to:
        world.say(f"Next: TAG={to} in .env; otherwise the next `inv up` goes back to {settings.tag}")


def watched(world: World, settings: Settings, is_up: bool = True) -> contextlib.AbstractContextManager[probe.Seen]:
    """What clients see meanwhile; nobody asks in a dry run, or where there was no server to ask."""
    return probe.watching(settings) if is_up and not world.dry else contextlib.nullcontext(probe.Seen())


@contextlib.contextmanager
def saying(what: str, fix: str = "") -> Iterator[None]:
    """Say of a failure at which step it came, and that all is as it was."""
    try:
        yield
    except Interrupted:
        raise
    except UserError as error:
        raise type(error)(f"{what}; nothing was changed: {error.what}", fix or error.fix) from None


@contextlib.contextmanager
def unchanged(world: World, target: Stack, before: Images) -> Iterator[None]:
    """Have the file as it was when the block fails, and have the names of images that are built here mean those that run."""
    text = target.file.read_text() if target.file.exists() else ""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        with undisturbed("the new images are put aside"):
            project, built = target.settings.project, target.built_here()
            local = {one.name: {**before[one.name], "name": one.local(project)} for one in built if one.name in before}
            previous.name_again(world, local)
            if text:
                world.write(target.file, text)
        raise


def require_healthy(world: World, stack: Stack, fix: str) -> None:
    """Refuse to start from what is not sound."""
    health = "healthy" if world.dry else stack.state().health
    if health != "healthy":
        raise Failed(f"{stack.env} is {health}; expected healthy.", fix=fix)


def replace(world: World, settings: Settings, stack: Stack) -> None:
    """Start the wanted images in place of the running ones, and see that they work."""
    deployment.bring_up(world, stack, TIMEOUT)
    rotate.provision(world, settings, stack)
    smoke.run(world, settings)


def require_passwords(world: World, settings: Settings, stack: Stack) -> None:
    """Refuse a server whose passwords are not ours: the new one would be of no use either."""
    if unknown := rotate.recall(world, settings, stack):
        raise Failed(
            f"the stored password of user {', '.join(unknown)} is not the server's; nothing was changed.",
            fix=f"ROOT_PASSWORD=... PYPI_PASSWORD=... inv up --env {stack.env}",
        )


@contextlib.contextmanager
def undone(world: World, settings: Settings, stack: Stack) -> Iterator[None]:
    """Go back when the block fails."""
    try:
        yield
    except (UserError, KeyboardInterrupt) as error:
        why = "" if isinstance(error, KeyboardInterrupt | Interrupted) else error.what
        world.warn(f"{'this does not work' if why else 'interrupted'}; {BACK}, please wait")
        with undisturbed(BACK), repeatable(stack.env):
            stack.halt()  # an interrupted stop goes on by itself, and would stop what is started now
            go_back(world, settings, stack, json.loads(previous.record_of(stack.env).read_text()))
            world.remove(previous.record_of(stack.env))
        if not why:
            raise Interrupted("interrupted at: upgrade; what ran before runs again", fix=ANEW) from None
        raise Failed(f"the upgrade failed, and what ran before runs again: {why}", fix=MEND) from None


@contextlib.contextmanager
def repeatable(env: str) -> Iterator[None]:
    """Name the way back where it fails itself."""
    try:
        yield
    except UserError as error:
        raise Failed(f"the upgrade failed, and so did going back: {error.what}", fix=f"inv rollback --env {env}") from None


def go_back(world: World, settings: Settings, stack: Stack, record: dict[str, Any]) -> None:
    """Start the previous images; with the snapshot, where the database is of another version since."""
    old = Stack(world, settings, stack.env, names(record["images"]))
    if previous.database(world, old) != record["database"]:
        world.warn(f"the database's format was changed: back to snapshot {record['snapshot']}; what is newer is kept aside")
        old.halt()
        restore.put_in_place(world, settings, old, record["snapshot"])
    deployment.bring_up(world, old, TIMEOUT)


def rollback(world: World, settings: Settings, server: Deployment) -> None:
    """Undo the last upgrade."""
    stack = stack_of(server)
    with world.exclusive(LOCK, task="rollback"), resumable("rollback"):
        stack.preflight()
        record = previous.recorded(world, stack.env)
        before = describe(world, stack.images_running())
        is_up = world.dry or stack.state().health == "healthy"
        with watched(world, settings, is_up) as seen, traffic.heard(world, stack) as told:
            go_back(world, settings, stack, record)
            smoke.run(world, settings)
        world.remove(previous.record_of(stack.env))
    receipt(world, before, record["images"], seen, told, record["snapshot"])
    world.say("Next: the old TAG in .env, or the old commit here; otherwise the next `inv up` takes the newer images again")


def receipt(world: World, before: Images, after: Images, seen: probe.Seen, told: traffic.Told, snapshot: str) -> None:
    """What was changed, and what clients saw of it."""
    if world.dry:
        return
    rows = []
    for name, old in before.items():
        new = after[name]
        rows.append([name, old["version"], old["id"][7:19], new["version"], new["id"][7:19]])
    if rows:
        table("", ["image", "version before", "id before", "version after", "id after"], rows)
    if seen.requests:
        world.say(f"clients: {told}; one that asked all the time: {seen}")
    world.say(f"snapshot from before: {snapshot}")
    for why in seen.failed[:5]:
        world.warn(f"failed: {why}")
