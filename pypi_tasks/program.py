"""What Invoke's program has no notion of: an end from outside is told as Ctrl-C is, and no value is given as nothing."""

from collections.abc import Iterable
from typing import Any

from invoke.program import Program

from pypi_tasks.errors import BadInput, Interrupted
from pypi_tasks.interruption import heed

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


def heed_ends() -> None:
    """Have Invoke run tasks so. tasks.py is read by a program that is there already, so its method is replaced."""
    Program.execute = execute  # type: ignore[assignment,method-assign]
