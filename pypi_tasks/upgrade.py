"""Replace the images of a stack while its clients wait, not fail; and the way back.

A snapshot first, then the new images on a copy of the data (``drill.py``): what is broken never reaches a client. Then
the containers are replaced; where that goes wrong the old images come back, and the snapshot only if the database's version
was changed. What is needed for the way back is in ``.rendered/upgrade-ENV.json``::

    {"at": "2026-11-24T22:40:00+00:00", "snapshot": "2026-11-24T22-39-58Z", "database": "4",
     "images": {"pypi_server": {"name": "pypi_server:pypi-dev-previous", "id": "sha256:...", "version": "6.20.3"}, ...}}
"""

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pypi_tasks import backup, deployment, drill, probe, restore, smoke, traffic
from pypi_tasks.deployment import LOCK, Deployment
from pypi_tasks.errors import BadInput, Failed, Interrupted, UserError
from pypi_tasks.image import VERSION_LABEL, local_labels
from pypi_tasks.interruption import ANEW, resumable, undisturbed
from pypi_tasks.settings import Settings, fields
from pypi_tasks.stack import RENDERED, Stack
from pypi_tasks.terminal import table
from pypi_tasks.world import World

TIMEOUT = 120.0  # seconds for the server to be healthy
BACK = "going back to what ran before"
MEND = "undo the change, or keep the old TAG: the next `inv up` would start the new images"
Images = dict[str, dict[str, str]]


def stack_of(server: Deployment) -> Stack:
    """The server, if it has images and a proxy that holds its clients; BadInput otherwise."""
    if not isinstance(server, Stack):
        raise BadInput("local has no images, and no proxy to hold clients.", fix="inv up --env local")
    return server


def record_of(env: str) -> Path:
    """The file with what is needed for the way back."""
    return RENDERED / f"upgrade-{env}.json"


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
            keep(world, settings, stack.env, before)
            with saying("the data cannot be looked at"):
                remember(world, stack, snapshot, before)
        with watched(world, settings) as seen, traffic.heard(world, stack) as told, undone(world, settings, stack):
            # Once more, now that clients wait: with what was uploaded during the drill, should the snapshot be needed.
            stack.halt()
            snapshot = backup.make(world, settings, stack)
            remember(world, stack, snapshot, before)
            name_again(world, wanted)
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
            local = {one.name: one.local(target.settings.project) for one in target.built_here()}
            name_again(world, {image: {**before[image], "name": name} for image, name in local.items() if image in before})
            if text:
                world.write(target.file, text)
        raise


def name_again(world: World, images: Images) -> None:
    """Have names mean these images, where they are another's since."""
    for image, now in describe(world, names(images)).items():
        if now["id"] != images[image]["id"]:
            world.run(["docker", "tag", images[image]["id"], now["name"]])


def require_healthy(world: World, stack: Stack, fix: str) -> None:
    """Refuse to start from what is not sound."""
    health = "healthy" if world.dry else stack.state().health
    if health != "healthy":
        raise Failed(f"{stack.env} is {health}; expected healthy.", fix=fix)


def describe(world: World, names: dict[str, str]) -> Images:
    """Name, id and devpi's version of images."""
    found = {}
    for image, name in names.items():
        shown = world.ask(["docker", "image", "inspect", "--format", "{{.Id}}", name], check=False).stdout.strip()
        found[image] = {"name": name, "id": shown, "version": local_labels(world, name).get(VERSION_LABEL, "")}
    return found


def ids(images: Images) -> dict[str, str]:
    """Which images they are, whatever their names."""
    return {name: one["id"] for name, one in images.items()}


def names(images: Images) -> dict[str, str]:
    """How they are called."""
    return {image: one["name"] for image, one in images.items()}


def keep(world: World, settings: Settings, env: str, images: Images) -> None:
    """Give the running images a name of their own, which stays when theirs goes to the new ones."""
    for image, one in images.items():
        name = f"{image}:{settings.project}-{env}-previous"
        world.run(["docker", "tag", one["id"], name])
        one["name"] = name


def remember(world: World, stack: Stack, snapshot: str, images: Images) -> None:
    """Write down the way back."""
    record = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "snapshot": snapshot,
        "database": database(world, stack),
        "images": images,
    }
    world.write(record_of(stack.env), json.dumps(record, indent=1) + "\n")


def database(world: World, stack: Stack) -> str:
    """The version of the database's format."""
    found = stack.script("facts", {})
    return "" if world.dry else str(found["database"])


def replace(world: World, settings: Settings, stack: Stack) -> None:
    """Start the wanted images in place of the running ones, and see that they work."""
    deployment.bring_up(world, stack, TIMEOUT)
    stack.provision(json.dumps(deployment.wish(settings)))
    smoke.run(world, settings)


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
            go_back(world, settings, stack, json.loads(record_of(stack.env).read_text()))
            world.remove(record_of(stack.env))
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
    previous = Stack(world, settings, stack.env, names(record["images"]))
    if database(world, previous) != record["database"]:
        world.warn(f"the database's format was changed: back to snapshot {record['snapshot']}; what is newer is kept aside")
        previous.halt()
        restore.put_in_place(world, settings, previous, record["snapshot"])
    deployment.bring_up(world, previous, TIMEOUT)


def rollback(world: World, settings: Settings, server: Deployment) -> None:
    """Undo the last upgrade."""
    stack = stack_of(server)
    with world.exclusive(LOCK, task="rollback"), resumable("rollback"):
        stack.preflight()
        record = recorded(world, stack.env)
        before = describe(world, stack.images_running())
        is_up = world.dry or stack.state().health == "healthy"
        with watched(world, settings, is_up) as seen, traffic.heard(world, stack) as told:
            go_back(world, settings, stack, record)
            smoke.run(world, settings)
        world.remove(record_of(stack.env))
    receipt(world, before, record["images"], seen, told, record["snapshot"])
    world.say("Next: the old TAG in .env, or the old commit here; otherwise the next `inv up` takes the newer images again")


def recorded(world: World, env: str) -> dict[str, Any]:
    """The way back, if there is one still."""
    try:
        record: dict[str, Any] = json.loads(record_of(env).read_text())
    except (OSError, ValueError):
        raise BadInput(f"there is no upgrade of {env} to undo.", fix="inv backups; inv restore") from None
    if ids(describe(world, names(record["images"]))) != ids(record["images"]):
        raise Failed(
            "the previous images are not on this engine any more.", fix="inv upgrade --to the old TAG, or the old commit"
        )
    return record


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
