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
from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import BadInput, Failed, Interrupted, UserError
from pypi_tasks.image import VERSION_LABEL, local_labels
from pypi_tasks.settings import ROOT, Settings, fields
from pypi_tasks.stack import RENDERED, Stack
from pypi_tasks.terminal import table
from pypi_tasks.world import World

TIMEOUT = 120.0  # seconds for the server to be healthy
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
    target.preflight()
    require_healthy(world, stack, "inv up")
    with world.exclusive(ROOT / ".inv.lock"):
        before = describe(world, stack.images_running())
        target.get_images()
        wanted = describe(world, target.images_wanted())
        if not world.dry and ids(before) == ids(wanted):
            world.say("nothing to upgrade: the newest images are running already")
            return
        snapshot = backup.make(world, settings, stack)
        drill.run(world, settings, stack, snapshot, images={name: one["name"] for name, one in wanted.items()})
        keep(world, settings, stack.env, before)
        remember(world, stack, snapshot, before)
        with watched(world, settings) as seen, traffic.heard(world, stack) as told, undone(world, settings, stack):
            # Once more, now that clients wait: with what was uploaded during the drill, should the snapshot be needed.
            stack.halt()
            snapshot = backup.make(world, settings, stack)
            remember(world, stack, snapshot, before)
            replace(world, settings, target)
    receipt(world, before, wanted, seen, told, snapshot)
    if to and settings.tag != to:
        world.say(f"Next: TAG={to} in .env; otherwise the next `inv up` goes back to {settings.tag}")


def watched(world: World, settings: Settings) -> contextlib.AbstractContextManager[probe.Seen]:
    """What clients see meanwhile; nobody is asked in a dry run."""
    return contextlib.nullcontext(probe.Seen()) if world.dry else probe.watching(settings)


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
        world.warn("this does not work; going back to what ran before")
        go_back(world, settings, stack, json.loads(record_of(stack.env).read_text()))
        world.remove(record_of(stack.env))
        if isinstance(error, KeyboardInterrupt | Interrupted):
            raise Interrupted("interrupted; what ran before runs again", fix="the same command begins anew") from None
        raise Failed(f"the upgrade failed, and what ran before runs again: {error.what}") from None


def go_back(world: World, settings: Settings, stack: Stack, record: dict[str, Any]) -> None:
    """Start the previous images; with the snapshot, where the database is of another version since."""
    names = {name: one["name"] for name, one in record["images"].items()}
    previous = Stack(world, settings, stack.env, names)
    if database(world, previous) != record["database"]:
        world.warn(f"the database's format was changed: back to snapshot {record['snapshot']}; what is newer is kept aside")
        previous.halt()
        restore.put_in_place(world, settings, previous, record["snapshot"])
    deployment.bring_up(world, previous, TIMEOUT)


def rollback(world: World, settings: Settings, server: Deployment) -> None:
    """Undo the last upgrade."""
    stack = stack_of(server)
    stack.preflight()
    try:
        record = json.loads(record_of(stack.env).read_text())
    except (OSError, ValueError):
        raise BadInput(f"there is no upgrade of {stack.env} to undo.", fix="inv backups; inv restore") from None
    if ids(describe(world, {name: one["name"] for name, one in record["images"].items()})) != ids(record["images"]):
        raise Failed(
            "the previous images are not on this engine any more.", fix="inv upgrade --to the old TAG, or the old commit"
        )
    with world.exclusive(ROOT / ".inv.lock"):
        before = describe(world, stack.images_running())
        with watched(world, settings) as seen, traffic.heard(world, stack) as told:
            go_back(world, settings, stack, record)
            smoke.run(world, settings)
    world.remove(record_of(stack.env))
    receipt(world, before, record["images"], seen, told, record["snapshot"])
    world.say("Next: the old TAG in .env, or the old commit here; otherwise the next `inv up` takes the newer images again")


def receipt(
    world: World, before: Images, after: Images, seen: probe.Seen, told: traffic.Told, snapshot: str
) -> None:
    """What was changed, and what clients saw of it."""
    if world.dry:
        return
    rows = []
    for name, old in before.items():
        new = after[name]
        rows.append([name, old["version"], old["id"][7:19], new["version"], new["id"][7:19]])
    table("", ["image", "version before", "id before", "version after", "id after"], rows)
    world.say(f"clients: {told}; one that asked all the time: {seen}")
    world.say(f"snapshot from before: {snapshot}")
    for why in seen.failed[:5]:
        world.warn(f"failed: {why}")
