"""What is answered when the disk is full: 507 with a sentence, instead of a 500 or of a connection that is closed.

devpi has taken back by then what it had begun; nothing was acknowledged. waitress keeps long bodies on the same disk,
before devpi hears of them, so it has to be told as well (``graceful.py``).
"""

import errno
import logging
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyramid.request import Request
from pyramid.response import Response
from waitress.parser import HTTPRequestParser
from waitress.utilities import Error

log = logging.getLogger("pypi_server.room")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
ROOM = 1024**2  # bytes; with fewer, whatever goes wrong is the disk's doing: SQLite has many words for it, libraries have more
SENTENCE = "The disk of the package server is full; nothing was stored. Tell who runs it.\n"


def is_full(error: Exception, folder: Path) -> bool:
    """Whether a failure is a disk's way to say that it has no room, or that of ``folder`` has none."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return True
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or shutil.disk_usage(folder).free < ROOM


def tween(handler: Callable[[Request], Any], registry: Any) -> Callable[[Request], Any]:
    """Stand around devpi's handling of a request, its transaction included."""
    folder = Path(registry["xom"].config.server_path)

    def handle(request: Request) -> Any:
        try:
            return handler(request)
        except Exception as error:
            if not is_full(error, folder):
                raise
            log.error("no room for %s %s: %s", request.method, request.path, error)
            return Response(status=507, text=SENTENCE)

    return handle


class InsufficientStorage(Error):
    """How waitress answers by itself."""

    code = 507
    reason = "Insufficient Storage"


class Nothing:
    """A buffer that keeps nothing."""

    def append(self, _: bytes) -> None:
        """Forget it."""

    def close(self) -> None:
        """There is nothing to close."""

    def __len__(self) -> int:
        return 0


class Parser(HTTPRequestParser):
    """Reads a body to its end that there is no room for, since a client that still sends does not hear the answer."""

    def received(self, data: bytes) -> int:
        """Take bytes of a request; how many of them belong to it."""
        try:
            return int(super().received(data))
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            log.error("no room for the body of %s %s: %s", self.command, self.path, error)
            self.error = InsufficientStorage(SENTENCE)
            self.body_rcv.buf.close()
            self.body_rcv.buf = Nothing()
            return int(super().received(data))
