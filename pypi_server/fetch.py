"""A file that devpi has to fetch from upstream is fetched once: whoever asks for it meanwhile waits for the first.

devpi itself fetches it for each of them, and fails for who comes just when the first is done.
"""

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE = 240.0  # seconds; less than the proxy waits for an answer


class Turn:
    """Of one file: who holds it fetches."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Body:
    """An answer's body that gives its turn back when it is done with, as WSGI servers say they are."""

    def __init__(self, parts: Any, turn: Turn) -> None:
        self.parts, self.turn = parts, turn

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        """Whatever became of it."""
        try:
            self.parts.close()
        finally:
            self.turn.lock.release()


class Fetches:
    """The files that are on their way."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.turns: weakref.WeakValueDictionary[str, Turn] = weakref.WeakValueDictionary()

    def serve(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Have devpi answer, when it is this request's turn."""
        with self.lock:
            turn = self.turns.setdefault(request.path_info, Turn())
        if not turn.lock.acquire(timeout=PATIENCE):
            return handler(request)
        response = None
        try:
            response = handler(request)
            if inspect.isgenerator(response.app_iter):  # devpi fetches while it is read
                response.app_iter = Body(response.app_iter, turn)
        finally:
            if response is None or not isinstance(response.app_iter, Body):
                turn.lock.release()
        return response
