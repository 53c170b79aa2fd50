"""Servers that are killed, and the power that fails."""

import contextlib
import os
import shutil
import signal
from datetime import UTC, datetime
from typing import Any

from pypi_tasks.world import poll
from tests.chaos.ground import KINDS, Run, copy_tree, missing, unsound
from tests.raw import container, frozen
from tests.workspace import Workspace

QUIET = 11  # seconds after which Docker starts a container again at once; before, it waits longer each time


def state(stack: Workspace, service: str) -> dict[str, Any]:
    """A container's state, as Docker has it."""
    from tests.conftest import inspect

    found: Any = inspect(container(stack, service))
    return dict(found["State"])


def has_run(stack: Workspace, service: str, seconds: float) -> bool:
    """Whether a container has been up for so long."""
    found = state(stack, service)
    started = datetime.fromisoformat(f"{found['StartedAt'][:19]}+00:00")
    return bool(found["Running"]) and (datetime.now(UTC) - started).total_seconds() > seconds


def kill(run: Run, *services: str) -> None:
    """SIGKILL the first processes of containers, and wait until Docker has started them again."""
    for service in services:
        assert poll(lambda: has_run(run.stack, service, QUIET), 60), f"{service} does not stay up"  # noqa: B023
    run.wait(1)
    before = {service: state(run.stack, service)["Pid"] for service in services}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    for service, pid in before.items():
        assert poll(lambda: state(run.stack, service)["Pid"] not in (0, pid), 60), f"{service} does not start again"  # noqa: B023


def again_and_again(run: Run, *services: str, retries: bool) -> None:
    """Kill them while all kinds of clients are at work."""
    with run.loaded(retries) as load:

        def trial() -> str:
            assert load.goes_on(KINDS), "clients do not get on"
            kill(run, *services)
            assert load.goes_on(KINDS), "clients do not get on afterwards"
            assert not load.failed, load.failed[:3]
            return "started again"

        run.each(trial)
    run.check()


def devpi(run: Run) -> None:
    """kill -9 of devpi: clients do not even try again."""
    again_and_again(run, "devpi", retries=False)


def proxy(run: Run) -> None:
    """kill -9 of the proxy."""
    again_and_again(run, "proxy", retries=True)


def both(run: Run) -> None:
    """kill -9 of both."""
    again_and_again(run, "devpi", "proxy", retries=True)


def power(run: Run) -> None:
    """Copy the data at an instant (devpi frozen) and, every other time, file by file while it goes on; start on the copy."""
    run.stack.inv("backup")
    run.ground.empty()
    run.other.configure(BACKUP_HOME="")
    shutil.rmtree(run.other.root / "backups", ignore_errors=True)
    copy_tree(run.stack.root / "backups", run.other.root / "backups")

    def trial() -> str:
        run.ground.empty()
        is_frozen = run.seen.trials % 2 == 0
        with run.uploading(4) as load:
            assert load.goes_on(("upload",)), "nothing can be uploaded"
            run.wait(1)
            with frozen(run.stack) if is_frozen else contextlib.nullcontext():
                before = dict(load.uploaded)
                copy_tree(run.stack.home, run.other.home)
        (run.other.home / "public" / "+state").unlink(missing_ok=True)  # as after a boot: kept pages count for nothing
        kind = "copied at an instant" if is_frozen else "copied file by file"
        result = run.other.inv("up", "--env", "dev", check=False)
        if result.returncode == 0 and not (found := unsound(run.other, "--live")):
            run.lose(missing(run.other, before) if is_frozen else [])
            return f"{kind}: started"
        assert not is_frozen, result.stderr[-1500:] if result.returncode else found
        run.other.inv("restore", "--yes")
        assert not (told := unsound(run.other)), told
        return f"{kind}: {'damaged' if result.returncode == 0 else 'does not start'}, restored"

    run.each(trial)
    run.check()
