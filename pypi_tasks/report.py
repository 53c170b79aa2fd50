"""What is there to be shown: the settings and their sources, the environments and their health, the tasks by purpose."""

import datetime
from textwrap import shorten

from pypi_tasks import backup, compose, stack
from pypi_tasks.deployment import choose
from pypi_tasks.errors import UserError
from pypi_tasks.settings import Settings, fields, shown
from pypi_tasks.terminal import alarm, table
from pypi_tasks.world import World, answers

DOWN = ("stopped", "created", "exited", "dead")


def config(settings: Settings) -> None:
    """The effective settings, each with where it came from."""
    rows = [
        [name, shown(getattr(settings, field.name)), settings.origins[name], field.metadata["help"]]
        for name, field in fields().items()
    ]
    table("", ["setting", "value", "from", "meaning"], rows)


def status(world: World, settings: Settings) -> None:
    """Every environment with its health; whether the address that clients use answers; how old the backups are."""
    rows = []
    for env in ["local", *compose.variants()]:
        try:
            server = choose(world, settings, env)
            server.look()
            state = server.state()
            rows.append([env, state.health, state.detail, state.image])
        except UserError as error:
            rows.append([env, "unknown", shorten(error.what, 90), ""])
    table("", ["environment", "health", "where", "image"], rows)
    # Where no server runs, a proxy that does would keep the question for as long as it keeps clients.
    good = any(row[1] not in DOWN for row in rows) and answers(f"{settings.url}/{settings.index}/+api")
    world.say(f"{settings.url}/{settings.index}/ {'answers' if good else 'does not answer'}")
    safety(world, settings)


def safety(world: World, settings: Settings) -> None:
    """What there is to restore from, and whether that was tried."""
    if not is_here(world, settings):
        world.say(f"backups: {settings.backup_home} is on the engine's machine and cannot be seen from here; `inv backups` can")
        return
    now = datetime.datetime.now(datetime.UTC)
    for line, is_alarm in (backup.standing(settings, now), backup.drilled(settings, now)):
        if line:
            (alarm if is_alarm else world.say)(line)


def is_here(world: World, settings: Settings) -> bool:
    """Whether BACKUP_HOME is a folder of this machine, as far as is known."""
    try:
        return settings.pypi_env == "local" or stack.Stack(world, settings, settings.pypi_env).is_here()
    except UserError:
        return True
