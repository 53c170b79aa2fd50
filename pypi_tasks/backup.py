"""Snapshots of the data: made and looked at by pypi_server/backup.py, beside the data; here is what people see of it."""

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import BadInput, Failed
from pypi_tasks.settings import Settings, fields, path, shown
from pypi_tasks.terminal import human, table
from pypi_tasks.world import World

SHOWN_LOST = 20


def redirected(settings: Settings, to: str) -> Settings:
    """The settings with another place for snapshots, if one is named."""
    return dataclasses.replace(settings, backup_home=path(to)) if to else settings


def public(settings: Settings) -> dict[str, str]:
    """The settings as a manifest keeps them: none is a secret."""
    hidden = ("PYPI_PASSWORD", "ROOT_PASSWORD")
    return {name: shown(getattr(settings, name.lower())) for name in fields() if name not in hidden}


def keep(settings: Settings) -> dict[str, int]:
    """How many snapshots stay, by period."""
    return {name: getattr(settings, f"backup_keep_{name}") for name in ("last", "daily", "weekly", "monthly")}


def describe(settings: Settings, server: Deployment) -> dict[str, Any]:
    """What a manifest says of whoever made it."""
    return {"settings": public(settings), "image": server.state().image_id}


def make(world: World, settings: Settings, server: Deployment, full: bool = False) -> str:
    """Make a snapshot; its name. Failed where a private package could not be had: then it does not count as verified."""
    found = server.script("backup", {"do": "make", "full": full, **describe(settings, server)})
    if world.dry:
        return ""
    world.say(
        f"snapshot {found['name']}: serial {found['serial']:,}, {found['files']:,} files, {found['private']:,} of them uploaded, "
        f"{human(found['bytes'])}, {human(found['new'])} of it new; in {settings.backup_home}"
    )
    lost = found["lost"]
    for name, why in list(lost.items())[:SHOWN_LOST]:
        world.warn(f"not in the snapshot: {name}: {why}")
    if len(lost) > SHOWN_LOST:
        world.warn(f"not in the snapshot: {len(lost) - SHOWN_LOST} more")
    if not found["verified"]:
        raise Failed(f"{len(lost)} files could not be had, so the snapshot does not count as verified.", fix="inv verify")
    return str(found["name"])


def prune(world: World, settings: Settings, server: Deployment) -> None:
    """Remove the snapshots that no rule keeps. A dry run only tells which."""
    job = {"do": "prune", "keep": keep(settings)}
    found = server.script("backup", job)
    if not world.dry:
        gone = found["removed"]
        world.say(f"removed {len(gone)} snapshots{': ' if gone else ''}{', '.join(gone)}; {len(found['kept'])} stay")


def age(made: str, now: datetime.datetime) -> str:
    """How long ago, for people."""
    seconds = (now - datetime.datetime.fromisoformat(made)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def row(one: Mapping[str, Any], now: datetime.datetime) -> list[str]:
    """A snapshot's line of the table."""
    if "damaged" in one:
        return [one["name"], "", "", "", "", "", "", "DAMAGED"]
    verified = f"{age(one['verified'], now)} ago" if one["verified"] else "NO"
    counts = [f"{one[name]:,}" for name in ("serial", "private", "files")]
    return [one["name"], age(one["made"], now), *counts, human(one["bytes"]), human(one["own"]), verified]


def show(world: World, settings: Settings, server: Deployment) -> None:
    """The table of snapshots, oldest first."""
    found = server.script("backup", {"do": "list"})
    if world.dry:
        return
    columns = ["snapshot", "age", "serial", "uploaded", "files", "bytes", "its own", "verified"]
    now = datetime.datetime.now(datetime.UTC)
    if found:
        table("", columns, [row(one, now) for one in found])
    world.say(f"{len(found)} snapshots in {settings.backup_home}" + ("" if found else "; `inv backup` makes one"))
    for one in found:
        if "damaged" in one:
            world.warn(one["damaged"])


def refuse_both(to: str, prune: bool) -> None:
    """A place for one snapshot is no place to tidy up in."""
    if to and prune:
        raise BadInput("--to and --prune do not go together.", fix="BACKUP_HOME=DIR inv backup --prune")


def newest(settings: Settings) -> Path | None:
    """The folder of the newest verified snapshot, as far as it can be seen from here."""
    folders = sorted((settings.backup_home / "snapshots").glob("[0-9]*/verified.json"))
    return folders[-1].parent if folders else None
