"""What the proxy's log tells of clients: it has a line for each request that waited for devpi, that changes something, or
that failed (pypi_proxy/nginx.conf). A proxy that is replaced takes its log with it, which is why that is read meanwhile."""

import contextlib
import datetime
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pypi_tasks.stack import Stack
from pypi_tasks.world import World

LINE = re.compile(r'" (?P<status>\d{3}) \d+ (?P<seconds>[\d.]+) s(?P<waited> waited)? "')
GOES = 10.0  # seconds for what reads a log to end


@dataclass
class Told:
    """Requests that waited for devpi, the longest of them in seconds, and how many were answered with 5xx."""

    waited: int = 0
    longest: float = 0.0
    failed: int = 0

    def __str__(self) -> str:
        return f"{self.waited:,} waited, the longest {self.longest:.1f} s, {self.failed} failed"


def tally(log: str) -> Told:
    """Count a log's lines."""
    told = Told()
    for found in map(LINE.search, log.splitlines()):
        if found and found["waited"]:
            told.waited += 1
            told.longest = max(told.longest, float(found["seconds"]))
        told.failed += bool(found and found["status"].startswith("5"))
    return told


@contextlib.contextmanager
def heard(world: World, stack: Stack) -> Iterator[Told]:
    """Read the logs of the proxy that is there and of the one that may replace it; counted when the block ends."""
    told, since = Told(), datetime.datetime.now(datetime.UTC).isoformat()
    old = stack.container("proxy")
    if world.dry or not old:
        yield told
        return
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        reader = world.spawn(["docker", "logs", "--follow", "--since", since, old["Id"]], dict(os.environ), log)
        try:
            yield told
        finally:
            new = stack.container("proxy")
            is_new = new is not None and new["Id"] != old["Id"]
            if reader:
                if not is_new:
                    reader.terminate()
                reader.wait(GOES)
            shown = world.ask(["docker", "logs", "--since", since, new["Id"]], check=False).stdout if is_new and new else ""
            vars(told).update(vars(tally(log.read_text(errors="replace") + shown)))
