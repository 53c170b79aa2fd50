"""Snapshots of the data: made and looked at by pypi_server/backup.py, beside the data; here is what people see of it."""

import dataclasses
import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pypi_tasks import offsite, vault
from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import BadInput, Failed
from pypi_tasks.settings import HIDDEN, Settings, fields, shown, typed
from pypi_tasks.terminal import human, table
from pypi_tasks.words import counted
from pypi_tasks.world import World

SHOWN_LOST = 20


def redirected(settings: Settings, to: str) -> Settings:
    """The settings with another place for snapshots, if a folder is named."""
    return dataclasses.replace(settings, backup_home=typed(to)) if to and not offsite.is_remote(to) else settings


def public(settings: Settings) -> dict[str, str]:
    """The settings as a manifest keeps them: none is a secret."""
    return {name: shown(getattr(settings, name.lower())) for name in fields() if name not in HIDDEN}


def keep(settings: Settings) -> dict[str, int]:
    """How many snapshots stay, by period."""
    return {name: getattr(settings, f"backup_keep_{name}") for name in ("last", "daily", "weekly", "monthly")}


def describe(settings: Settings, server: Deployment) -> dict[str, Any]:
    """What a manifest says of whoever made it."""
    return {"settings": public(settings), "image": server.state().image_id}


def run(world: World, settings: Settings, server: Deployment, full: bool, with_secrets: bool, to: str) -> None:
    """Make a snapshot, with its secrets and a copy elsewhere where these are wanted; what cannot work is refused first."""
    further: list[Callable[[str], None]] = []
    if offsite.is_remote(to):
        offsite.check(world, settings, server, to)
    if with_secrets:
        locked = vault.locked_up(settings)
        further.append(lambda name: vault.store(server, name, locked))
    if offsite.is_remote(to):
        further.append(lambda name: offsite.send(world, settings, to, name))
    make(world, settings, server, full, further)


def make(
    world: World, settings: Settings, server: Deployment, full: bool = False, further: Sequence[Callable[[str], None]] = ()
) -> str:
    """Make a snapshot; its name, with which ``further`` is done. Failed where a private package could not be had: then it
    does not count as verified, but what it has is worth keeping all the same."""
    server.look()
    found = server.script("backup", {"do": "make", "full": full, **describe(settings, server)})
    if found:
        tell(world, settings, found)
    name = str(found["name"]) if found else ""
    for step in further:
        step(name)
    if found and not found["verified"]:
        lost = counted(len(found["lost"]), "file")
        raise Failed(f"{lost} could not be had, so the snapshot does not count as verified.", fix="inv verify")
    return name


def tell(world: World, settings: Settings, found: Mapping[str, Any]) -> None:
    """What a new snapshot has, and what it lacks."""
    world.say(
        f"snapshot {found['name']}: serial {found['serial']:,}, {counted(found['files'], 'file')}, "
        f"{found['private']:,} of them uploaded, "
        f"{human(found['bytes'])}, {human(found['new'])} of it new; in {settings.backup_home}"
    )
    lost = found["lost"]
    for name, why in list(lost.items())[:SHOWN_LOST]:
        world.warn(f"not in the snapshot: {name}: {why}")
    if len(lost) > SHOWN_LOST:
        world.warn(f"not in the snapshot: {len(lost) - SHOWN_LOST} more")


def prune(world: World, settings: Settings, server: Deployment) -> None:
    """Remove the snapshots that no rule keeps, and tell which."""
    job = {"do": "prune", "keep": keep(settings)}
    found = server.script("backup", job)
    if not world.dry:
        gone = found["removed"]
        world.say(f"removed: {', '.join(gone) or 'none'}; {len(found['kept'])} stay")


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
        return [one["name"], "", "", "", "", "", "", "", "DAMAGED"]
    verified = f"{age(one['verified'], now)} ago" if one["verified"] else "NO"
    counts = [f"{one[name]:,}" for name in ("serial", "private", "files")]
    sizes = [human(one["bytes"]), human(one["own"])]
    return [one["name"], age(one["made"], now), *counts, *sizes, "yes" if one["secrets"] else "", verified]


def show(world: World, settings: Settings, server: Deployment) -> None:
    """The table of snapshots, oldest first."""
    found = server.script("backup", {"do": "list"})
    if world.dry:
        return
    columns = ["snapshot", "age", "serial", "uploaded", "files", "bytes", "its own", "secrets", "verified"]
    now = datetime.datetime.now(datetime.UTC)
    if found:
        table("", columns, [row(one, now) for one in found])
    world.say(f"{counted(len(found), 'snapshot')} in {settings.backup_home}" + ("" if found else "; `inv backup` makes one"))
    for one in found:
        if "damaged" in one:
            world.warn(one["damaged"])


def refuse_both(to: str, prune: bool, full: bool = False, with_secrets: bool = False) -> None:
    """A place for one snapshot is no place to tidy up in, and what removes snapshots makes none."""
    if to and prune:
        raise BadInput("--to and --prune do not go together.", fix="BACKUP_HOME=DIR inv backup --prune")
    if prune and (full or with_secrets):
        option = "--full" if full else "--with-secrets"
        raise BadInput(f"{option} and --prune do not go together.", fix=f"inv backup {option}, then inv backup --prune")


def snapshots(settings: Settings) -> list[Path]:
    """The folders of the snapshots, oldest first. OSError where they cannot be seen from here."""
    try:
        return sorted(path for path in (settings.backup_home / "snapshots").iterdir() if path.name[:1].isdigit())
    except FileNotFoundError:
        return []


def scheduled(settings: Settings, now: datetime.datetime, made: str) -> str:
    """What the schedule has failed at (pypi_server/schedule.py) since the newest verified snapshot was made, if anything."""
    if not settings.backup_schedule:
        return ""
    try:
        found = json.loads((settings.backup_home / "schedule.json").read_text())
        if not found["failed"] or found["at"] < made:
            return ""
        left = (datetime.datetime.fromisoformat(found["next"]) - now).total_seconds() / 60
        return f"; BACKUP_SCHEDULE FAILED {age(found['at'], now)} ago, tries again in {max(0, left):.0f} min: {found['failed']}"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def standing(settings: Settings, now: datetime.datetime) -> tuple[str, bool]:
    """A line on the snapshots, and whether it is an alarm."""
    try:
        found = snapshots(settings)
        verified = [path for path in found if (path / "verified.json").exists()]
        made = json.loads((verified[-1] / "manifest.json").read_text())["made"] if verified else ""
    except (OSError, ValueError, KeyError) as error:
        return f"backups: {settings.backup_home} cannot be seen from here ({error}); `inv backups` can", False
    failed = scheduled(settings, now, made)
    if not verified:
        what = f"none is verified, of {len(found)}" if found else "none; `inv backup` makes one"
        return f"backups: {what}{failed}", bool(found or settings.backup_schedule)
    hours = (now - datetime.datetime.fromisoformat(made)).total_seconds() / 3600
    is_old = hours > settings.backup_max_age
    judged = f"TOO OLD, expected at most {settings.backup_max_age} h" if is_old else f"{len(found)} in all"
    line = f"backups: the newest verified one, {verified[-1].name}, was made {age(made, now)} ago; {judged}{failed}"
    return line, is_old or bool(failed)


def drilled(settings: Settings, now: datetime.datetime) -> tuple[str, bool]:
    """A line on the last drill, and whether it is an alarm; no line where there was none, or none can be seen."""
    try:
        found = json.loads((settings.backup_home / "drill.json").read_text())
        when = f" {age(found['at'], now)} ago" if "at" in found else ""
        after = f", the data was back after {found['recovery_seconds']:.0f} s" if "recovery_seconds" in found else ""
        passed = bool(found.get("passed"))
    except (OSError, ValueError, TypeError, AttributeError):
        return "", False
    return (f"drill: the last one passed{when}{after}", False) if passed else (f"drill: the last one FAILED{when}", True)
