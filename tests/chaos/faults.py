"""The table of faults: what is done, how often, and what must hold."""

import os
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pypi_tasks.errors import BadInput
from tests.chaos import changed, flipped, kept, killed, restarted
from tests.chaos.ground import Run

NOTHING_LOST = "no acknowledged upload lost or altered, `inv verify` clean"


@dataclass(frozen=True)
class Fault:
    """One row; ``run`` does all its trials."""

    name: str
    title: str
    trials: int
    holds: str
    run: Callable[[Run], None]
    needs_root: bool = False

    def skipped(self) -> str:
        """Why it is not run here; empty where it is."""
        return "it mounts a disk or makes a network, which takes root" if self.needs_root and os.getuid() != 0 else ""


STALE = "what was ever cached installs, pages come at once, no wrong bytes are kept"
FAULTS = (
    Fault("devpi", "kill -9 of devpi during uploads", 50, f"{NOTHING_LOST}, no request failed", killed.devpi),
    Fault("proxy", "kill -9 of the proxy", 20, f"{NOTHING_LOST}, clients try again at most once", killed.proxy),
    Fault("both", "kill -9 of devpi and the proxy", 20, f"{NOTHING_LOST}, clients try again at most once", killed.both),
    Fault(
        "engine", "the engine restarted, also by kill -9", 20,
        f"{NOTHING_LOST}, all comes up by itself, clients that ask again are answered", restarted.restarts, needs_root=True,
    ),
    Fault(
        "power", "power cut during uploads: a copy of the data as it is at a random instant", 50,
        "a server starts on the copy, or `inv restore` brings it back", killed.power,
    ),
    Fault(
        "full-home", "DEVPI_HOME full while uploading", 10,
        "refused with 507, nothing acknowledged lost, goes on when there is room", kept.full_home, needs_root=True,
    ),
    Fault(
        "full-backups", "BACKUP_HOME full while backing up", 10,
        "told, the snapshots there stay whole, goes on when there is room", kept.full_backups, needs_root=True,
    ),
    Fault("bit-file", "a bit flipped in a file", 20, "found by `inv verify`, and repaired", flipped.file),
    Fault("bit-database", "a bit flipped in the database", 20, "found by `inv verify`", flipped.database),
    Fault("bit-snapshot", "a bit flipped in a snapshot", 20, "found by `inv verify`, never restored", flipped.snapshot),
    Fault(
        "backup", "a backup while 4 clients upload", 20,
        "has all that was acknowledged before; a restore equals the manifest", kept.snapshots,
    ),
    Fault(
        "upgrade", "upgrade and rollback under load, with a broken image", 10,
        "no request failed of 500 for each trial, the broken image reaches nobody", changed.upgrades,
    ),
    Fault("upstream-gone", "upstream closes all connections", 10, STALE, changed.upstreams(changed.refuse)),
    Fault("upstream-slow", "upstream takes 30 s for an answer", 10, STALE, changed.upstreams(changed.slow_down)),
    Fault("upstream-500", "upstream answers 500", 10, STALE, changed.upstreams(changed.fail)),
    Fault("upstream-cut", "upstream cuts files and pages short", 10, STALE, changed.upstreams(changed.cut)),
    Fault(
        "clock", "the clock set back and forward", 5,
        "a snapshot is made at once, is the newest, is what is restored", kept.clock,
    ),
    Fault(
        "rotate", "passwords and the server secret rotated under load", 5,
        "no request failed; old passwords are refused at once, old logins after a new secret", changed.rotation,
    ),
)  # fmt: skip


def select(only: Iterable[str]) -> list[Fault]:
    """The named faults in the table's order, all for no name; BadInput lists the known ones."""
    wanted, known = set(only), [fault.name for fault in FAULTS]
    for name in sorted(wanted - set(known)):
        raise BadInput(f"{name!r} is not a fault.", fix=f"known faults: {', '.join(known)}")
    return [fault for fault in FAULTS if not wanted or fault.name in wanted]


def choices(seed: int, fault: Fault) -> random.Random:
    """The random choices of a fault: the same for the same seed, whatever else is run."""
    return random.Random(f"{seed} {fault.name}")
