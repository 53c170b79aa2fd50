"""Is this machine fit for the job? Every check with what it found and how to mend it."""

import os
import shutil
import sys
from dataclasses import dataclass

from pypi_tasks import compose, engine, home
from pypi_tasks.deployment import choose
from pypi_tasks.errors import NotReady, UserError
from pypi_tasks.settings import Settings
from pypi_tasks.terminal import table
from pypi_tasks.world import World

PYTHON_MINIMUM = (3, 11)
DISK_MINIMUM = 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; ``optional`` ones are no failure, since the native mode does without."""

    check: str
    good: bool
    found: str
    fix: str = ""
    optional: bool = False


def part(world: World, settings: Settings, name: str) -> Finding:
    """Version of the engine or a plugin against its minimum; native mode does without."""
    native = settings.pypi_env == "local"
    label = f"Docker {name} >= {engine.MINIMUMS[name]}"
    try:
        return Finding(label, True, engine.version(world, name))
    except NotReady as error:
        return Finding(label, False, error.what, error.fix, optional=native)


def python() -> Finding:
    """The Python that runs the tasks."""
    good = sys.version_info >= PYTHON_MINIMUM
    return Finding("Python >= 3.11", good, sys.version.split()[0], "install Python 3.11 or later, remove .venv")


def port(world: World, settings: Settings) -> Finding:
    """The published port: free, or held by our own server."""
    where = f"{settings.devpi_bind}:{settings.devpi_port}"
    why = home.port_problem(settings.devpi_bind, settings.devpi_port)
    if not why:
        return Finding("port", True, f"{where} is free")
    for env in ("local", *compose.variants()):
        try:
            if (server := choose(world, settings, env)).has_port():
                return Finding("port", True, f"{where} is held by our own {env}, {server.state().detail}")
        except UserError:  # no engine, so no stack of ours
            continue
    return Finding("port", False, f"{where}: {why.strerror}", "set another DEVPI_PORT, or stop what has it")


def disk(settings: Settings) -> Finding:
    """Room for packages."""
    free = shutil.disk_usage(home.nearest(settings.devpi_home)).free
    return Finding("disk", free > DISK_MINIMUM, f"{free / 1e9:.1f} GB free at DEVPI_HOME", "make room: at least 1 GB")


def folder(settings: Settings) -> Finding:
    """DEVPI_HOME for the user who runs the server of PYPI_ENV."""
    uid = os.getuid() if settings.pypi_env == "local" else settings.devpi_uid
    error = home.problem(settings.devpi_home, uid, settings.devpi_gid)
    if error:
        return Finding("DEVPI_HOME", False, error.what, error.fix)
    return Finding("DEVPI_HOME", True, str(settings.devpi_home))


def backups(world: World, settings: Settings) -> Finding:
    """BACKUP_HOME for the user who makes snapshots."""
    uid, gid = (os.getuid(), os.getgid()) if settings.pypi_env == "local" else (settings.devpi_uid, settings.devpi_gid)
    try:
        home.check_backups(world, settings, uid, gid)
    except UserError as error:
        return Finding("BACKUP_HOME", False, error.what, error.fix)
    free = shutil.disk_usage(home.nearest(settings.backup_home)).free
    return Finding("BACKUP_HOME", True, f"{settings.backup_home}, {free / 1e9:.1f} GB free")


def secrets(settings: Settings) -> Finding:
    """Nobody else may read the secrets."""
    files = list(settings.secrets_home.glob("*")) if settings.secrets_home.is_dir() else []
    open_ones = [file.name for file in files if file.stat().st_mode & 0o077]
    found = f"readable by others: {', '.join(open_ones)}" if open_ones else f"{len(files)} files in {settings.secrets_home}"
    return Finding("secrets", not open_ones, found, f"chmod 600 {settings.secrets_home}/*")


def examine(world: World, settings: Settings) -> list[Finding]:
    """All checks. That the settings are right is shown by their having been loaded."""
    given = sum(origin != "default" for origin in settings.origins.values())
    return [
        Finding("settings", True, f"all good, {given} set"),
        *(part(world, settings, name) for name in engine.MINIMUMS),
        python(),
        disk(settings),
        folder(settings),
        backups(world, settings),
        port(world, settings),
        secrets(settings),
    ]


def report(world: World, settings: Settings) -> None:
    """Print the findings; fail where one stands in the way of every environment."""
    findings = examine(world, settings)
    mark = {(True, True): "ok", (True, False): "ok", (False, True): "no", (False, False): "BAD"}
    rows = [[mark[f.good, f.optional], f.check, f.found, "" if f.good else f.fix] for f in findings]
    table("", ["", "check", "found", "fix"], rows)
    bad = [finding.check for finding in findings if not finding.good and not finding.optional]
    if bad:
        needs = "" if settings.pypi_env == "local" else " (PYPI_ENV=local needs no Docker)"
        raise NotReady(f"not ready for {settings.pypi_env}: {', '.join(bad)}.", fix=f"the last column above{needs}")
