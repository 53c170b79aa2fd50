"""devpi's connections, so that no answer breaks off where devpi is stopped, and hardly one where it is killed.

Of itself waitress dies of SIGTERM at once, in the middle of whatever it answers. Here it answers first what it was asked before;
who asks meanwhile is closed the door, which the proxy takes as a reason to hold the request until devpi is there again.
The header of an answer leaves with the beginning of its body: sent by itself, nothing could be held any more.
"""

import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any, ClassVar

from room import Parser
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import WSGITask

PATIENCE = 5.0  # seconds for what is being answered; pip itself waits for 15
LOOK = 0.01  # seconds between two looks whether all is answered


class Answer(WSGITask):
    """One answer; source: `waitress.task.Task.write`, which gives the connection header and body one after the other."""

    channel: Any

    def write(self, data: bytes) -> None:
        """Give the header away together with the first of the body."""
        if self.wrote_header:
            super().write(data)
            return
        parts: list[bytes] = []
        channel, self.channel = self.channel, SimpleNamespace(server=self.channel.server, write_soon=parts.append)
        try:
            super().write(data)
        finally:
            self.channel = channel
        channel.write_soon(b"".join(parts))


class Channel(HTTPChannel):
    """One connection."""

    parser_class = Parser
    task_class = Answer
    stopping = threading.Event()
    servers: ClassVar[set[BaseWSGIServer]] = set()

    def __init__(self, server: BaseWSGIServer, *others: object, **options: object) -> None:
        super().__init__(server, *others, **options)
        self.servers.add(server)

    def received(self, data: bytes) -> bool:
        """Take bytes of a request, but not of a new one while the server stops."""
        if self.stopping.is_set() and self.request is None:
            self.will_close = True
            return False
        return bool(super().received(data))

    def is_busy(self) -> bool:
        """Whether a request is on its way in, is answered, or its answer is on its way out."""
        return bool(self.request or self.requests or self.total_outbufs_len)


def use() -> None:
    """Have waitress use these connections, and SIGTERM stop them gracefully. From the main thread, before it listens."""
    BaseWSGIServer.channel_class = Channel
    signal.signal(signal.SIGTERM, stop)


def stop(number: int, _: object) -> None:
    """Take no more requests, and die of the signal when all are answered. A second signal is not waited for."""
    signal.signal(number, signal.SIG_DFL)
    Channel.stopping.set()
    threading.Thread(target=die, args=(number,), daemon=True).start()


def die(number: int) -> None:
    """End this process once nobody waits for an answer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and any(
        channel.is_busy() for server in list(Channel.servers) for channel in list(server.active_channels.values())
    ):
        time.sleep(LOOK)
    os.kill(os.getpid(), number)
