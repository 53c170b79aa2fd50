"""What the scripts share that tasks run beside the data: a job comes as JSON on standard input, its outcome leaves as JSON.

What is under way goes to standard error, a JSON object a line, for the task to draw::

    {"what": "files", "done": 120, "total": 4000}

A refusal is told there too, as plain text, and the script ends with 1; after Ctrl-C with 130.
"""

import errno
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

Item = TypeVar("Item")
Job = dict[str, Any]
PAUSE = 0.2  # seconds between two lines
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Refusal(Exception):
    """The job cannot be done as things are; the message says why. What was there before is there still."""


def tell(what: str, done: int, total: int) -> None:
    """One line of progress."""
    print(json.dumps({"what": what, "done": done, "total": total}), file=sys.stderr, flush=True)


def tracked(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items, told of as they pass."""
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    told = time.monotonic()
    for number, item in enumerate(items):
        if time.monotonic() - told > PAUSE:
            told = time.monotonic()
            tell(what, number, count)
        yield item


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
    except (Refusal, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    json.dump(outcome, sys.stdout)
