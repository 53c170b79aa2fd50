"""Make snapshots when they are due, remove the ones that no rule keeps; the whole life of the container ``backup``.

Reads BACKUP_SCHEDULE, times of day in UTC and intervals (``02:30,6h``), and BACKUP_KEEP, how many of the last, daily, weekly
and monthly ones stay (``3 7 5 12``). What was missed is made up for at the start.
"""

import datetime
import os
import signal
import threading
from collections.abc import Sequence

import backup
from jobs import Refusal
from snapshot import TIME, now

AGAIN = 300  # seconds after a failure
UNITS = {"m": "minutes", "h": "hours"}


def due(schedule: Sequence[str], last: datetime.datetime) -> datetime.datetime:
    """The first time after ``last`` that any part of the schedule names."""
    found = []
    for part in schedule:
        if part[-1] in UNITS:
            found.append(last + datetime.timedelta(**{UNITS[part[-1]]: int(part[:-1])}))
            continue
        hour, minute = part.split(":")
        time = last.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
        found.append(time if time > last else time + datetime.timedelta(days=1))
    return min(found)


def last() -> datetime.datetime:
    """When the newest snapshot was made; long ago where there is none."""
    names = [one.name for one in backup.backups().all()]
    found = datetime.datetime.strptime(names[-1][:20], TIME) if names else datetime.datetime(2000, 1, 1)
    return found.replace(tzinfo=datetime.UTC)


def work(keep: dict[str, int]) -> bool:
    """One snapshot, and room for it; told in a line. Whether it went well."""
    try:
        made = backup.make({"settings": {}})
        removed = backup.prune({"keep": keep})["removed"]
    except (Refusal, OSError) as error:
        print(f"no snapshot: {error}", flush=True)
        return False
    state = "verified" if made["verified"] else f"NOT VERIFIED, {len(made['lost'])} files could not be had"
    print(f"snapshot {made['name']}: serial {made['serial']}, {made['files']} files, {state}; removed {len(removed)}", flush=True)
    return True


def main() -> None:
    """Go on until SIGTERM."""
    schedule = os.environ["BACKUP_SCHEDULE"].split(",")
    counts = [int(word) for word in os.environ["BACKUP_KEEP"].split()]
    keep = dict(zip(("last", "daily", "weekly", "monthly"), counts, strict=True))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    pause = 0.0
    while not stop.wait(pause):
        pause = min(60.0, (due(schedule, last()) - now()).total_seconds())
        if pause <= 0:
            pause = 1.0 if work(keep) else AGAIN


if __name__ == "__main__":
    main()
