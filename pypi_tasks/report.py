"""What is there to be shown: the settings and their sources, the environments and their health, the tasks by purpose."""

from textwrap import shorten

from pypi_tasks import compose
from pypi_tasks.deployment import choose
from pypi_tasks.errors import UserError
from pypi_tasks.settings import Settings, fields, shown
from pypi_tasks.terminal import table
from pypi_tasks.world import World, answers


def config(settings: Settings) -> None:
    """The effective settings, each with where it came from."""
    rows = [
        [name, shown(getattr(settings, field.name)), settings.origins[name], field.metadata["help"]]
        for name, field in fields().items()
    ]
    table("", ["setting", "value", "from", "meaning"], rows)


def status(world: World, settings: Settings) -> None:
    """Every environment with its health; then whether the address that clients use answers."""
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
    good = answers(f"{settings.url}/{settings.index}/+api")
    world.say(f"{settings.url}/{settings.index}/ {'answers' if good else 'does not answer'}")
