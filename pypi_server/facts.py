"""What the data is like: the version of the database's format and its last serial, as JSON."""

import contextlib

from backup import live
from database import Database
from jobs import Job, main
from snapshot import DATABASE


def facts(_: Job) -> Job:
    """Version and serial."""
    server = live()
    with contextlib.closing(Database(server / DATABASE)) as current:
        return {"database": (server / ".serverversion").read_text().strip(), "serial": current.serial}


if __name__ == "__main__":
    main(facts)
