"""Two things that Invoke's parser has no notion of: several words for one task, and both spellings of a task."""

import difflib
from collections.abc import Iterable
from typing import Any

from invoke.parser.parser import ParseMachine

from pypi_tasks.errors import BadInput

handle_as_invoke = ParseMachine.handle


def handle(machine: Any, token: str) -> None:
    """Invoke's handling of one word, but ``build_cached`` is ``build-cached`` too, a task with an argument named
    ``images`` takes every word that is neither a flag nor a task, one with ``snapshot`` takes one such word,
    one with ``source`` takes the next word, and ``help`` takes every word."""
    context = machine.context
    if token.startswith("-") or machine.waiting_for_flag_value:
        handle_as_invoke(machine, token)
    elif context is not None and context.name == "help":
        context.args["tasks"].value = token  # a word after `help` is never a task to run
    elif context is not None and "source" in context.args and not context.args["source"].got_value:
        context.args["source"].value = token  # what `adopt` cannot do without, even where it is a task's name
    elif (dashed := token.replace("_", "-")) in machine.contexts:
        handle_as_invoke(machine, dashed)
    elif context is not None and "images" in context.args:
        context.args["images"].value = token
    elif context is not None and "snapshot" in context.args and not context.args["snapshot"].got_value:
        context.args["snapshot"].value = token
    else:
        raise BadInput(f"{token!r} is not a task.{meant(token, machine.contexts)}", fix="`inv help` lists them all")


def meant(token: str, known: Iterable[str]) -> str:
    """The task that looks most like what was typed, as a question; empty for none."""
    near = difflib.get_close_matches(token.replace("_", "-"), known, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def accept_words() -> None:
    """Have Invoke handle words so. Its machine cannot be subclassed (the states are bound to the class), and tasks are
    parsed after tasks.py has been read, so the one method is replaced."""
    ParseMachine.handle = handle  # type: ignore[assignment,method-assign]
