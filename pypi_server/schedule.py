"""Make snapshots when they are due, remove the ones that no rule keeps; the whole life of the container ``backup``.

Reads BACKUP_SCHEDULE, times of day in UTC and intervals (``02:30,6h``), and BACKUP_KEEP, how many of the last, daily, weekly
and monthly ones stay (``3 7 5 12``). What was missed is made up for at the start. How the last one went is written to
BACKUP_HOME/schedule.json, for `inv status`: ``at`` and ``next`` (ISO 8601), and what ``failed``, empty for nothing.
"""

import contextlib
import datetime
import json
import os
import signal
import time
from collections.abc import Sequence

import backup
from jobs import Refusal, ended
from snapshot import now

AGAIN = 300.0  # seconds after a failure
SOON = 2.0  # seconds
SHOWN = 20
RECORD = "schedule.json"
RECORD_SIZE = 4096  # bytes
NEVER = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
UNITS = {"m": "minutes", "h": "hours"}


def due(schedule: Sequence[str], last: datetime.datetime) -> datetime.datetime:
    """The first time after ``last`` that any part of the schedule names."""
    found = []
    for part in schedule:
        if part[-1] in UNITS:
            found.append(last + datetime.timedelta(**{UNITS[part[-1]]: int(part[:-1])}))
            continue
        hour, minute = part.split(":")
        at = last.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
        found.append(at if at > last else at + datetime.timedelta(days=1))
    return min(found)


def words(part: str) -> str:
    """A part of the schedule, for people."""
    return f"every {part[:-1]} {part[-1].replace('m', 'min')}" if part[-1] in UNITS else f"at {part} UTC"


def last() -> datetime.datetime:
    """When the newest snapshot was made; long ago where there is none, or where the clock was ahead then."""
    found = backup.backups().all()
    made = datetime.datetime.fromisoformat(found[-1].made()) if found else NEVER
    return made if made <= now() else NEVER


def record(failed: str, following: datetime.datetime) -> None:
    """Tell and write down how it went, over what was there and in as many bytes: a full disk takes that too."""
    if failed:
        print(failed, flush=True)
    at, then = (time.isoformat(timespec="seconds") for time in (now(), following))
    text = json.dumps({"at": at, "failed": failed[: RECORD_SIZE // 16], "next": then}).ljust(RECORD_SIZE)
    with contextlib.suppress(OSError):
        handle = os.open(backup.backups().folder / RECORD, os.O_WRONLY | os.O_CREAT, 0o644)
        with os.fdopen(handle, "w") as file:
            file.write(text)


def work(keep: dict[str, int], schedule: Sequence[str]) -> bool:
    """One snapshot, and room for it; told in a line each. Whether there is a snapshot."""
    try:
        made = backup.make({})
    except (Refusal, OSError) as error:
        record(f"no snapshot: {error}", now() + datetime.timedelta(seconds=AGAIN))
        return False
    lost = list(made["lost"])[:SHOWN]
    failed = "" if made["verified"] else f"{made['name']} is NOT VERIFIED, not in it: {', '.join(lost)}"
    print(f"snapshot {made['name']}: serial {made['serial']}, files: {made['files']}", flush=True)
    try:
        if removed := backup.prune({"keep": keep})["removed"]:
            print(f"removed {', '.join(removed)}", flush=True)
    except (Refusal, OSError) as error:
        failed = f"nothing was removed: {error}"
    record(failed, due(schedule, last()))
    return True


def wait(schedule: Sequence[str]) -> float:
    """Seconds until there is something to do, as far as is known now."""
    if not backup.is_there():
        return SOON
    return max(0.0, min(60.0, (due(schedule, last()) - now()).total_seconds()))


def main() -> None:
    """Go on until SIGTERM."""
    schedule = os.environ["BACKUP_SCHEDULE"].split(",")
    counts = [int(word) for word in os.environ["BACKUP_KEEP"].split()]
    keep = dict(zip(("last", "daily", "weekly", "monthly"), counts, strict=True))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ended)
    print(f"snapshots are made {', '.join(map(words, schedule))}", flush=True)
    while True:
        pause = wait(schedule) or (SOON if work(keep, schedule) else AGAIN)
        time.sleep(pause)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
