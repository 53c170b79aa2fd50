"""What ran before an upgrade: its images, under names of their own, and what is needed for the way back.

That is in ``.rendered/upgrade-ENV.json``::

    {"at": "2026-11-24T22:40:00+00:00", "snapshot": "2026-11-24T22-39-58Z", "database": "4",
     "images": {"pypi_server": {"name": "pypi_server:pypi-dev-previous", "id": "sha256:...", "version": "6.20.3"}, ...}}
"""

import datetime
import json
from pathlib import Path
from typing import Any

from pypi_tasks.errors import BadInput, Failed
from pypi_tasks.image import VERSION_LABEL, local_labels
from pypi_tasks.settings import Settings
from pypi_tasks.stack import RENDERED, Stack
from pypi_tasks.world import World

Images = dict[str, dict[str, str]]


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


def name_again(world: World, images: Images) -> None:
    """Have names mean these images, where they are another's since."""
    for image, now in describe(world, names(images)).items():
        if now["id"] != images[image]["id"]:
            world.run(["docker", "tag", images[image]["id"], now["name"]])


def record_of(env: str) -> Path:
    """The file with what is needed for the way back."""
    return RENDERED / f"upgrade-{env}.json"


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
