"""Push to a registry and read back what arrived."""

import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pypi_tasks.engine import connect
from pypi_tasks.errors import Failed
from pypi_tasks.image import Pair
from pypi_tasks.terminal import layers
from pypi_tasks.world import World

if TYPE_CHECKING:
    from docker import DockerClient

Event = Mapping[str, Any]


def refusal(event: Event) -> str:
    """The error in one event of a push, empty for none. The SDK raises nothing: it hides errors in its stream."""
    detail = event.get("errorDetail") or {}
    return str(event.get("error") or detail.get("message") or "")


def advice(name: str, said: str) -> str:
    """What to do about a refused push."""
    host = name.partition("/")[0]
    if any(word in said for word in ("denied", "unauthorized", "authentication required", "no basic auth")):
        return f"docker login {host}"
    return f"check that REGISTRY is right and that {host} answers; then the same command again"


def push_one(client: "DockerClient", name: str) -> None:
    """Push one name, a bar per layer; Failed on the first error in the stream."""
    events: Iterable[Event] = client.api.push(name, stream=True, decode=True)
    with layers() as show:
        for event in events:
            if said := refusal(event):
                raise Failed(f"push of {name} was refused: {said}", fix=advice(name, said))
            show(event)


def digest(client: "DockerClient", name: str) -> str:
    """The digest that the registry has under this name; empty where it has none."""
    from docker.errors import APIError

    try:
        return str(client.images.get_registry_data(name).id)
    except APIError:
        return ""


def push_pair(world: World, client: "DockerClient", pair: Pair) -> None:
    """Push one image under both names and print the digest of each. The immutable name is never moved: where the
    registry has it for other content (another base image, say), that is an error, and it stays."""
    held = digest(client, pair.immutable)
    for name in (pair.latest,) if held else (pair.immutable, pair.latest):
        world.act(f"docker push {name}", functools.partial(push_one, client, name))
    found = digest(client, pair.latest)
    if not found:
        raise Failed(f"{pair.latest} was pushed, but the registry does not have it.", fix="the same command again")
    world.say(f"{pair.latest} is {found}")
    if held not in ("", found):
        raise Failed(
            f"{pair.latest} was pushed, but {pair.immutable} is {held}, other content, and was left as it is.",
            fix="commit what changed (a new commit is a new tag), or build from the base image of then",
        )
    world.say(f"{pair.immutable} is {found}")


def push(world: World, pairs: Iterable[Pair]) -> None:
    """Push every image under both its names."""
    from docker.errors import DockerException

    if world.dry:
        for pair in pairs:
            for name in pair:
                world.announce(f"docker push {name}")
        return
    client = connect(world)
    try:
        for pair in pairs:
            push_pair(world, client, pair)
    except DockerException as error:
        raise Failed(f"push failed: {error}", fix="check the engine with `inv doctor`") from None
    finally:
        client.close()
