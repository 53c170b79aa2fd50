"""What a drill needs beside the snapshots: a folder for a throw-away server's data, the manifest, and a place for the outcome.

Jobs (``jobs.py``)::

    {"do": "open", "name": "drill-1a2b3c", "snapshot": "NAME"}   make BACKUP_HOME/drill-1a2b3c; the live data's last commit, -1
                                                   for none
    {"do": "manifest", "snapshot": "NAME"}         the files of a snapshot by index or mirror, and what was lost
    {"do": "close", "name": "drill-1a2b3c", "result": {...}}     remove the folder, and keep the result, if any

The result is BACKUP_HOME/drill.json, that of the last drill: ``snapshot``, ``at`` (ISO 8601, UTC), ``passed``, ``findings``
(text), ``made`` (of the snapshot), ``recovery_seconds``, ``serials`` (behind the live data; null for none), ``files``, ``pages``,
``compared_with_live``, ``newer`` and ``removed`` (files of the live server's pages).
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from backup import backups
from jobs import Job, main
from restore import live_serial


def folder(job: Job) -> Path:
    """The throw-away data."""
    return backups().folder / Path(job["name"]).name


def begin(job: Job) -> Job:
    """Make the folder, where there is a snapshot to try and nobody else is at work: that would say nothing of the backups. A
    folder that is there already is of a drill that was killed."""
    with backups().claimed():
        for left in backups().folder.glob("drill-*"):
            shutil.rmtree(left, ignore_errors=True)
        backups().find(job["snapshot"])
        folder(job).mkdir(parents=True, mode=0o700)
    return {"live": live_serial()}


def manifest(job: Job) -> Job:
    """What a snapshot is to serve: digests of its files by their paths; which indexes are mirrors; what it lacks."""
    found = backups().find(job["snapshot"]).manifest()
    files = {path: stored.sha256 for path, stored in found.files.items()}
    return {"made": found.made, "serial": found.serial, "files": files, "mirrors": found.mirrors, "lost": list(found.lost)}


def end(job: Job) -> Job:
    """Remove the folder; write the outcome down."""
    shutil.rmtree(folder(job), ignore_errors=True)
    if job["result"]:
        work = backups().folder / f"drill.{os.getpid()}"
        work.write_text(json.dumps(job["result"], indent=1))
        work.rename(work.with_name("drill.json"))
    return {}


JOBS: dict[str, Callable[[Job], object]] = {"open": begin, "manifest": manifest, "close": end}


if __name__ == "__main__":
    main(lambda job: JOBS[job["do"]](job))
