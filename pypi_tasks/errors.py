"""What can go wrong through no fault of the code: one class, printed without a traceback."""

from invoke.exceptions import Exit


class UserError(Exit):
    """Something the user can mend. The message says what failed, what was expected and found, and what to do.

    Invoke prints it to standard error and exits with ``code``: 1 where the work itself failed, 2 for bad input
    (``BadInput``), 3 where this machine is not ready for the task (``NotReady``), 130 after Ctrl-C (``Interrupted``).
    """

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        self.what, self.fix = message, fix
        super().__init__(f"Error: {message}" + (f"\n  Fix: {fix}" if fix else ""), self.exit_code)


class Failed(UserError):
    """The work was tried and refused: a build, a push, a health check."""


class BadInput(UserError):
    """A name, a setting or an answer that cannot be right. Nothing was changed."""

    exit_code = 2


class Interrupted(UserError):
    """Ctrl-C. What was there before is there still."""

    exit_code = 130


class NotReady(UserError):
    """The machine lacks something: an engine, a port, a permission. Nothing was changed."""

    exit_code = 3
