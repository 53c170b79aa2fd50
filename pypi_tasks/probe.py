"""What a client sees meanwhile: requests one after the other, each over a new connection, and how they fare."""

import contextlib
import http.client
import itertools
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

from pypi_tasks.settings import Settings

PAUSE = 0.02
PATIENCE = 300.0


@dataclass
class Seen:
    """Requests so far, those that failed with why, and the longest wait in seconds."""

    requests: int = 0
    longest: float = 0.0
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.requests:,} requests, {len(self.failed)} failed, longest wait {self.longest:.1f} s"


def paths(settings: Settings) -> list[str]:
    """A page that the proxy may have, and what devpi alone can answer."""
    return [f"/{settings.index}/+simple/", "/+api", f"/{settings.index}"]


def ask(opener: urllib.request.OpenerDirector, url: str) -> str:
    """One request; what went wrong, empty for nothing."""
    try:
        with opener.open(urllib.request.Request(url, headers={"Accept": "application/json"}), timeout=PATIENCE) as answer:
            answer.read()
        return ""
    except urllib.error.HTTPError as error:
        return "" if error.code in (401, 403, 404) else f"{url} answered {error.code}"  # an answer of devpi's own
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error}"


@contextlib.contextmanager
def watching(settings: Settings) -> Iterator[Seen]:
    """Ask on and on in the background. By whatever certificate: nothing is told to whom is asked."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    seen, stop = Seen(), threading.Event()

    def work() -> None:
        for path in itertools.cycle(paths(settings)):
            if stop.wait(PAUSE):
                return
            started = time.monotonic()
            why = ask(opener, settings.url + path)
            seen.requests += 1
            seen.longest = max(seen.longest, time.monotonic() - started)
            if why:
                seen.failed.append(why)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield seen
        stop.set()
        thread.join(PATIENCE)  # what waits still is to be counted
    finally:
        stop.set()
