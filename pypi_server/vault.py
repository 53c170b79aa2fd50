"""Keep the locked secrets beside a snapshot, as ``snapshots/NAME/secrets.json``. What is in them nobody here can read.

Reads BACKUP_HOME. Jobs (``jobs.py``)::

    {"do": "put", "snapshot": "2026-...", "locked": {...}}
    {"do": "get", "snapshot": "2026-..."}    the newest verified one for none; gives {"snapshot": ..., "locked": {...}}
"""

import json
import os
from pathlib import Path

from jobs import Job, Refusal, main
from snapshot import Backups, Snapshot

NAME = "secrets.json"


def put(snapshot: Snapshot, locked: Job) -> None:
    """Write them, whole or not at all."""
    unfinished = snapshot.folder / f"{NAME}.unfinished"
    unfinished.write_text(json.dumps(locked, indent=2) + "\n")
    unfinished.chmod(0o600)
    os.sync()
    unfinished.rename(snapshot.folder / NAME)


def get(snapshot: Snapshot) -> Job:
    """Read them; Refusal where there are none, or what is there is not JSON."""
    try:
        found: Job = json.loads((snapshot.folder / NAME).read_text())
    except FileNotFoundError:
        raise Refusal(f"snapshot {snapshot.name} has no secrets: it was made without --with-secrets") from None
    except ValueError as error:
        raise Refusal(f"the secrets of snapshot {snapshot.name} are damaged: {error}") from None
    return found


def work(job: Job) -> Job:
    """One job."""
    snapshot = Backups(Path(os.environ["BACKUP_HOME"])).find(job["snapshot"])
    if job["do"] == "put":
        put(snapshot, job["locked"])
        return {"snapshot": snapshot.name}
    return {"snapshot": snapshot.name, "locked": get(snapshot)}


if __name__ == "__main__":
    main(work)
