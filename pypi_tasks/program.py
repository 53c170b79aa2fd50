"""What Invoke's program has no notion of: an end from outside is told as Ctrl-C is, and no value is given as nothing."""

import os
import signal
import stat
from collections.abc import Iterable
from typing import Any

from invoke.program import Program

from pypi_tasks.errors import BadInput, Interrupted

ENDS = (signal.SIGTERM, signal.SIGHUP)
execute_as_invoke = Program.execute


def execute(program: Any) -> None:
    """Run the tasks. Ctrl-C where no task says what it was at is told all the same."""
    refuse_empty(program.tasks)
    heed()
    try:
        execute_as_invoke(program)
    except KeyboardInterrupt:
        raise Interrupted("interrupted.") from None


def refuse_empty(contexts: Iterable[Any]) -> None:
    """An empty value is a variable that is not set, in somebody's script: not a wish for what no value means."""
    for context in contexts:
        for argument in context.args.values():
            if argument.raw_value == "":
                raise BadInput(f"--{argument.names[0]} of {context.name} is empty.", fix="give it a value, or leave it out")


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


def heed_ends() -> None:
    """Have Invoke run tasks so. tasks.py is read by a program that is there already, so its method is replaced."""
    Program.execute = execute  # type: ignore[assignment,method-assign]
