"""What every environment has in common: come up, be provisioned, go down, say how it is."""

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pypi_tasks import secret
from pypi_tasks.errors import BadInput, Failed, UserError
from pypi_tasks.interruption import undisturbed
from pypi_tasks.settings import ROOT, Settings
from pypi_tasks.world import World

RESUMING = "devpi is started again"
LOCK = ROOT / ".inv.lock"
BUNDLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class State:
    """How a server is: ``health`` is healthy, starting, unhealthy, or stopped; ``detail`` names its process or container;
    ``image`` is the name of its image, ``image_id`` the digest of that image's configuration."""

    health: str
    detail: str = ""
    image: str = ""
    image_id: str = ""


class Deployment(Protocol):
    """One environment: a Compose stack or the native server."""

    env: str
    owner: tuple[int, int] | None  # uid and gid of a server that is not the user who runs the task

    def preflight(self, port: bool = True) -> None:
        """Refuse what cannot work, before anything is changed; ``port`` where the server is to have its port."""

    def look(self) -> None:
        """Refuse when what is there cannot be seen."""

    def has_port(self) -> bool:
        """Whether it is this server that has the port."""

    def start(self) -> None:
        """Bring the server up, or leave it as it is when nothing changed."""

    def start_proxy(self) -> bool:
        """Bring up what stands before the server, where ``start`` has left it as it was; whether that is so."""

    def provision(self, wish: str) -> str:
        """Run provision.py where the server is, with ``wish`` as its input; returns its output."""

    def inside(self, name: str, text: str) -> str:
        """Run one of pypi_server's scripts where the server runs and its secrets are; returns its output."""

    def script(self, name: str, job: Mapping[str, Any], source: Path | None = None) -> Any:
        """Give a job to one of pypi_server's scripts where the data and the snapshots are, whether or not the server runs;
        returns its outcome, None in a dry run. ``source`` is a folder more that it may read, told to it as that."""

    def reload(self) -> None:
        """Have a renewed certificate used."""

    def purge(self) -> None:
        """Empty the cache of pages."""

    def state(self) -> State:
        """How the server is now."""

    def stop(self) -> None:
        """Take the server down; the data stays."""

    def halt(self) -> None:
        """Stop devpi alone, for ``resume``: where there is a proxy, clients wait."""

    def resume(self) -> None:
        """Start devpi again, as it was."""

    def logs(self, follow: bool = False, lines: int = 100) -> None:
        """Show the server's log."""

    def last_words(self) -> str:
        """The end of the server's log, for an error message."""


def wish(settings: Settings) -> dict[str, Any]:
    """What provision.py is to bring about. Of an index that is there only the options that somebody set are enforced."""
    options = {
        "bases": list(settings.devpi_bases),
        "volatile": settings.devpi_volatile,
        "mirror_whitelist": list(settings.devpi_mirror_whitelist),
    }
    enforce = [name for name in options if settings.given(f"DEVPI_{name.upper()}")]
    return {"user": settings.devpi_user, "index": settings.devpi_index, "options": options, "enforce": enforce}


def summary(settings: Settings, env: str) -> str:
    """What a user needs next: the addresses, the lines for the clients, and where the passwords are."""
    base = settings.client_url
    index = f"{base}/{settings.index}"
    password = shlex.quote(str(settings.secrets_home / "user_password"))
    return f"""
The index is up ({env}).
  web page   {base}
  install    pip install --index-url {index}/+simple/ PACKAGE
             uv pip install --index-url {index}/+simple/ PACKAGE
  upload     TWINE_PASSWORD="$(cat {password})" twine upload --repository-url {index}/ -u {settings.devpi_user} dist/*
  passwords  {password} ({settings.devpi_user}), {settings.secrets_home / "root_password"} (root)
Next: inv smoke --env {env}"""


def warn_of_confusion(world: World, settings: Settings) -> None:
    """Say aloud what a wide-open white list means."""
    if "*" in settings.devpi_mirror_whitelist:
        world.warn(
            "DEVPI_MIRROR_WHITELIST=* merges every private project with PyPI's project of the same name: whoever "
            "registers that name on PyPI with a higher version is installed instead (dependency confusion)."
        )


def warn_of_proxy(world: World, settings: Settings) -> None:
    """Say that this shell trusts a certificate of its own, as behind a TLS proxy, which the server is not told of."""
    if not settings.ca_bundle and (name := next((one for one in BUNDLES if os.environ.get(one)), "")):
        world.warn(f"{name} is set here, and CA_BUNDLE is not: behind a TLS proxy the server does not reach PyPI without it.")


def up(world: World, settings: Settings, server: Deployment, timeout: float) -> None:
    """Bring an environment up: look before, secrets, start, health, users and index, what to do next."""
    from pypi_tasks import rotate

    with world.exclusive(LOCK, task="up"):
        server.preflight()
        secret.check(settings)
        warn_of_confusion(world, settings)
        warn_of_proxy(world, settings)
        with secret.settled(world, settings, server.owner) as replaced:
            bring_up(world, server, timeout)
            if settings.secrets_home / "tls_certificate" in replaced:
                server.reload()
            rotate.resume(world, settings, server)
            for line in rotate.provision(world, settings, server).splitlines():
                world.say(f"  {line}")
    if not world.dry:
        world.say(summary(settings, server.env))


def require_up(world: World, server: Deployment) -> None:
    """Refuse an environment that does not run, with what helps."""
    if world.dry:
        return
    server.look()
    if server.state().health == "stopped":
        raise Failed(f"{server.env} is not running.", fix=f"inv up --env {server.env}, or the --env that `inv status` shows")


def down(world: World, server: Deployment) -> None:
    """Take an environment down, where no other task is at work on it."""
    with world.exclusive(LOCK, task="down"):
        server.stop()


def bring_up(world: World, server: Deployment, timeout: float) -> None:
    """Start the server, then what stands before it, each until it is healthy."""
    server.start()
    await_health(world, server, timeout)
    if server.start_proxy():
        await_health(world, server, timeout)


def await_health(world: World, server: Deployment, timeout: float) -> None:
    """Wait until the server is healthy; its last words otherwise."""
    seen = State("starting")

    def settled() -> bool:
        nonlocal seen
        seen = server.state()
        return seen.health not in ("starting", "unhealthy")

    in_time = world.wait(f"{server.env} to be healthy", settled, timeout)
    if world.dry or seen.health == "healthy":
        return
    how = f"{seen.health}, {seen.detail}" if seen.detail else seen.health
    said = f"; the end of its log:\n{server.last_words().rstrip()}"
    mend = f"`inv logs --env {server.env}`; undo what was changed, then `inv up --env {server.env}` again"
    if not in_time:
        told = f"the server is not healthy after {timeout:.0f} s ({how}){said}"
        raise Failed(told, fix=f"a longer --timeout, or {mend}")
    raise Failed(f"the server did not stay up ({how}){said}", fix=mend)


@contextlib.contextmanager
def halted(server: Deployment) -> Iterator[None]:
    """Have devpi stopped while its clients wait. However that ends, the server runs again."""
    try:
        server.halt()
        yield
    except (KeyboardInterrupt, UserError):
        with undisturbed(RESUMING):
            server.halt()  # an interrupted stop goes on by itself, and would stop what is started now
        raise
    finally:
        with undisturbed(RESUMING):
            server.resume()


Factory = Callable[[World, Settings, str], Deployment]


def choose(world: World, settings: Settings, env: str | None) -> Deployment:
    """The environment by its name, or PYPI_ENV; BadInput lists the known ones."""
    from pypi_tasks import compose, native, stack

    name = env or settings.pypi_env
    factories: dict[str, Factory] = {**dict.fromkeys(compose.variants(), stack.Stack), "local": native.Server}
    if name not in factories:
        raise BadInput(f"{name!r} is not an environment.", fix=f"known environments: {', '.join(sorted(factories))}")
    return factories[name](world, settings, name)
