"""Push to a registry and read back what arrived."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pypi_tasks.engine import connect
from pypi_tasks.errors import Failed
from pypi_tasks.world import World, layers

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
    """The digest that the registry has under this name."""
    from docker.errors import APIError

    try:
        return str(client.images.get_registry_data(name).id)
    except APIError as error:
        raise Failed(f"{name} was pushed, but the registry does not have it: {error.explanation}") from None


def push(world: World, names: Iterable[str]) -> None:
    """Push every name, then print each with the digest that the registry reports."""
    from docker.errors import DockerException

    pushed = list(names)
    if world.dry:
        for name in pushed:
            world.announce(f"docker push {name}")
        return
    client = connect(world)
    try:
        for name in pushed:
            world.act(f"docker push {name}", lambda name=name: push_one(client, name))  # type: ignore[misc]
        for name in pushed:
            world.say(f"{name} is {digest(client, name)}")
    except DockerException as error:
        raise Failed(f"push failed: {error}", fix="check the engine with `inv doctor`") from None
    finally:
        client.close()
