"""Damage of the live data and of the snapshots: found by pypi_server/verify.py, beside the data; here is what people see."""

from collections.abc import Mapping, Sequence
from typing import Any

from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import Failed
from pypi_tasks.settings import Settings
from pypi_tasks.terminal import human, table
from pypi_tasks.words import counted
from pypi_tasks.world import World

SHOWN = 50
Damage = Mapping[str, Any]


def run(
    world: World, settings: Settings, server: Deployment, repair: bool = False, live: bool = False, snapshots: bool = False
) -> None:
    """Look at the live data and the snapshots, or at one of the two; Failed where something is damaged still."""
    both = live == snapshots
    found = server.script("verify", {"live": live or both, "snapshots": snapshots or both, "repair": repair})
    if world.dry:
        return
    world.say(summary(found, found["live"], snapshots or both))
    for note in found["notes"]:
        world.warn(note)
    damage: list[Damage] = found["damage"]
    if damage:
        rows = [[one["kind"], one["where"], one["why"], one["repaired"] or one["source"] or "-"] for one in damage[:SHOWN]]
        table("", ["damaged", "where", "what is wrong", "repaired" if repair else "can be repaired from"], rows)
    if len(damage) > SHOWN:
        world.say(f"and {len(damage) - SHOWN:,} more")
    for home in (settings.devpi_home, settings.backup_home):
        if (home / found["aside"]).exists():
            world.say(f"what was damaged is kept in {home / found['aside']}")
    if left := [one for one in damage if not one["repaired"]]:
        is_lost = (live or both) and not found["live"]
        raise Failed(f"{len(left):,} damaged, as the table shows.", fix="; ".join(advice(left, not is_lost)))


def summary(found: Mapping[str, Any], live: bool, snapshots: bool) -> str:
    """What was looked at, and how it is, in a line."""
    parts = []
    if live:
        compared = f" (those of snapshot {found['compared']} compared)" if found["compared"] else ""
        commits, files = counted(found["commits"], "commit"), counted(found["files"], "file")
        parts.append(f"{commits}{compared}, {files}, {human(found['bytes'])}")
    if live and found["again"]:
        parts.append(f"{counted(found['again'], 'mirrored file')} that will be fetched again when asked for")
    if snapshots:
        parts.append(f"{counted(found['snapshots'], 'snapshot')} of {counted(found['contents'], 'content')}")
    damaged = len(found["damage"])
    repaired = sum(bool(one["repaired"]) for one in found["damage"])
    return f"looked at {'; '.join(parts)}: " + (f"{damaged:,} damaged, {repaired:,} repaired" if damaged else "all sound")


def advice(left: Sequence[Damage], live: bool = True) -> list[str]:
    """What to do about what is damaged; without ``live`` there is no live data to make another snapshot of."""
    kinds = {one["kind"] for one in left}
    found = []
    if kinds & {"snapshot", "content"} and not live:
        sound = "`inv restore` takes the newest snapshot that is whole (`inv backups` shows which are)"
        return [sound, "`inv restore NAME --without-damaged` takes one without its damaged files"]
    if any(one["source"] for one in left):
        found.append("`inv verify --repair` for what can be repaired from a sound copy")
    if kinds & {"database", "commit"}:
        found.append("`inv restore` brings the database of a snapshot back")
    if any(one["kind"] == "file" and not one["source"] for one in left):
        found.append("upload again what no snapshot has")
    if kinds & {"snapshot", "content"}:
        found.append("`inv backup` makes another snapshot; a damaged one does not count as verified")
    return found
