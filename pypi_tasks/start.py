"""The few steps with which every task begins; kept light, so that `inv --list` stays instant."""

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from invoke.context import Context

    from pypi_tasks.deployment import Deployment
    from pypi_tasks.image import Image
    from pypi_tasks.settings import Settings
    from pypi_tasks.world import World


def world(c: "Context") -> "World":
    """The world as this call may change it: not at all with ``--dry``."""
    from pypi_tasks.world import World

    return World(dry=bool(c.config.run.dry))


@functools.cache
def settings() -> "Settings":
    """The settings, read once."""
    from pypi_tasks.settings import load

    return load()


def images_named(names: "Sequence[str]") -> "list[Image]":
    """The images, checked before anything is done; bad settings are told first."""
    from pypi_tasks import image

    settings()
    return image.select(names)


def server(c: "Context", env: str) -> "Deployment":
    """The environment by its name."""
    from pypi_tasks import deployment

    return deployment.choose(world(c), settings(), env)


def number(flag: str, text: str) -> float:
    """A positive number given with a flag; Invoke's own conversion ends in a traceback."""
    from pypi_tasks.errors import BadInput

    try:
        if 0 < (found := float(text)) < float("inf"):
            return found
    except ValueError:
        pass
    raise BadInput(f"{flag} {text}: expected a number above 0.")


def overview(groups: "Mapping[str, Sequence[Any]]", only: "Sequence[str]" = ()) -> str:
    """Every task with its line, by purpose; or only the named ones."""
    wanted = {name.replace("_", "-") for name in only}
    known = {task.name.replace("_", "-") for tasks in groups.values() for task in tasks}
    if unknown := sorted(wanted - known):
        from pypi_tasks.errors import BadInput

        raise BadInput(f"there is no task {', '.join(unknown)}.", fix="inv help")
    lines = ["Usage: inv TASK [--dry] ...    (inv TASK --help: its options)"]
    for purpose, tasks in groups.items():
        named = {task.name.replace("_", "-"): (task.__doc__ or "").splitlines()[0] for task in tasks}
        shown = [f"  {name:14}{line}" for name, line in named.items() if not wanted or name in wanted]
        lines += ["", f"{purpose}:", *shown] if shown else []
    return "\n".join(lines)
