"""What the scripts share that tasks run beside the data: a job comes as JSON on standard input, its outcome leaves as JSON.

What is under way goes to standard error, a JSON object a line, for the task to draw::

    {"what": "files", "done": 120, "total": 4000, "bytes": false}

A refusal is told there too, as plain text, and the script ends with 1; with 64 where the job itself cannot be right; after
Ctrl-C with 130.
"""

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Job = dict[str, Any]
PAUSE = 0.2  # seconds between two lines
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Refusal(Exception):
    """The job cannot be done as things are; the message says why. What was there before is there still."""


class BadWish(Refusal):
    """The job names what is not there or cannot be."""


def tell(what: str, done: int, total: int, is_bytes: bool = False) -> None:
    """One line of progress."""
    print(json.dumps({"what": what, "done": done, "total": total, "bytes": is_bytes}), file=sys.stderr, flush=True)


def tracked(
    items: Iterable[Item], what: str, total: int | None = None, size: Callable[[Item], int] | None = None
) -> Iterator[Item]:
    """The items, told of as they are done, the last one too, unless all are over at once. ``size`` has the bytes of one: a file
    may be as large as all others. Items that can be gone through only once need a ``total``."""
    cost = size or (lambda _: 1)
    total = sum(map(cost, items)) if total is None else total
    done, is_told, before = 0, False, time.monotonic()
    for item in items:
        yield item
        done += cost(item)
        if time.monotonic() - before > PAUSE:
            is_told, before = True, time.monotonic()
            tell(what, done, total, bool(size))
    if is_told:
        tell(what, done, total, bool(size))


def ended(*_: Any) -> None:
    """Ctrl-C or the end of the container, once: a second one would keep us from tidying up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(work: Callable[[Job], Any]) -> None:
    """Do the job on standard input."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ended)
    try:
        outcome = work(json.load(sys.stdin))
    except BadWish as error:
        print(error, file=sys.stderr)
        sys.exit(os.EX_USAGE)  # not 2, with which Python says that there is no such script
    except (Refusal, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    json.dump(outcome, sys.stdout)
