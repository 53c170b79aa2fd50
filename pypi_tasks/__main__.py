"""What ./inv becomes: Invoke. Ctrl-C before a task begins ends it at once, with the exit code and without a traceback."""

import os
import signal
import sys


def ended(*_: object) -> None:
    """Nothing was begun, so nothing is to be tidied up."""
    os.write(2, b"Error: interrupted before anything was begun.\n")
    os._exit(130)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, ended)

from invoke.main import program  # noqa: E402  from here on Ctrl-C is ours

try:
    try:
        program.run()
    finally:
        sys.stdout.flush()
except BrokenPipeError:  # who stops reading, as `| head` does, has read enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
