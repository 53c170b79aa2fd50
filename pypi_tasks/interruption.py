"""Ctrl-C, SIGTERM and a closed terminal: one kind of end, which a task tidies up after, tells of, or puts off."""

import contextlib
import os
import signal
import stat
from collections.abc import Iterator

from pypi_tasks.errors import Interrupted

ENDS = (signal.SIGTERM, signal.SIGHUP)
ANEW = "the same command again starts anew"


def heed() -> None:
    """Have every end from outside be a KeyboardInterrupt, so that a task tidies up. What is ignored, as by nohup, stays so."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ENDS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, ended)


def ended(number: int, _: object) -> None:
    """Once: a shell that goes sends SIGHUP a second time. By a handler: a server that is started now would inherit SIG_IGN."""
    for one in ENDS:
        signal.signal(one, lambda *_: None)
    if number == signal.SIGHUP:
        forget_terminal()
    raise KeyboardInterrupt


def forget_terminal() -> None:
    """Write to nowhere instead of a terminal that is gone: each line would fail, and tidying up with it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)


@contextlib.contextmanager
def resumable(what: str, fix: str = "the same command again goes on from here") -> Iterator[None]:
    """Turn Ctrl-C into a message."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted at: {what}", fix) from None


@contextlib.contextmanager
def undisturbed(what: str) -> Iterator[None]:
    """Do to its end what must not be left half done; who wants to interrupt it is told ``what`` it is."""

    def told(number: int, _: object) -> None:
        if number == signal.SIGHUP:
            forget_terminal()
        with contextlib.suppress(OSError):
            os.write(2, f"{what}, please wait\n".encode())  # print may be what is interrupted

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def group() -> int | None:
    """The process group of a command: one of its own, which Ctrl-C does not reach, where Ctrl-C does not end us either."""
    return None if signal.getsignal(signal.SIGINT) is signal.default_int_handler else 0
