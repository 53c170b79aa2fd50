"""Keep the locked secrets beside a snapshot, as ``snapshots/NAME/secrets.json``. What is in them nobody here can read.

Reads BACKUP_HOME. Jobs (``jobs.py``)::

    {"do": "put", "snapshot": "2026-...", "locked": {...}}
    {"do": "get", "snapshot": "2026-..."}    gives {"snapshot": ..., "locked": {...}}; for no name that of
                                             the newest verified snapshot that has any
"""

import json
import os
from pathlib import Path

from jobs import BadWish, Job, Refusal, main
from snapshot import SECRETS, Backups, Snapshot

NONE = "the passwords of its time go to the first start: ROOT_PASSWORD=... PYPI_PASSWORD=... inv up"


def put(snapshot: Snapshot, locked: Job) -> None:
    """Write them, whole or not at all."""
    unfinished = snapshot.folder / f"{SECRETS}.unfinished"
    unfinished.write_text(json.dumps(locked, indent=2) + "\n")
    unfinished.chmod(0o600)
    os.sync()
    unfinished.rename(snapshot.folder / SECRETS)


def choose(place: Backups, name: str) -> Snapshot:
    """The snapshot whose secrets are meant: of a name, or the newest verified one that has any; Refusal lists those that do."""
    having = [one for one in place.all() if one.has_secrets()]
    fix = f"\n  Fix: inv unlock {having[-1].name}" if having else f"\n  Fix: {NONE}"
    there = f"those that have: {', '.join(one.name for one in having) or 'none'}"
    if name:
        if (found := place.find(name)).has_secrets():
            return found
        raise BadWish(f"snapshot {name} has no secrets: it was made without --with-secrets; {there}.{fix}")
    for one in reversed(having):
        if one.verified():
            return one
    raise Refusal(f"no verified snapshot has secrets; {there}.{fix}")


def get(snapshot: Snapshot) -> Job:
    """Read them; Refusal where what is there is not JSON."""
    try:
        found: Job = json.loads((snapshot.folder / SECRETS).read_text())
    except ValueError as error:
        raise Refusal(f"the secrets of snapshot {snapshot.name} are damaged: {error}") from None
    return found


def work(job: Job) -> Job:
    """One job."""
    place = Backups(Path(os.environ["BACKUP_HOME"]))
    if job["do"] == "put":
        snapshot = place.find(job["snapshot"])
        put(snapshot, job["locked"])
        return {"snapshot": snapshot.name}
    snapshot = choose(place, job["snapshot"])
    return {"snapshot": snapshot.name, "locked": get(snapshot)}


if __name__ == "__main__":
    main(work)
