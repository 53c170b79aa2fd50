"""The Docker engine: where the command line finds it, an SDK client for that same one, versions and minimums."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pypi_tasks.errors import NotReady
from pypi_tasks.world import World

if TYPE_CHECKING:
    from docker import DockerClient

# Older ones lack: start_interval of health checks (engine 25, Compose 2.20.2), SOURCE_DATE_EPOCH (Buildx 0.10).
MINIMUMS = {"engine": "25.0", "compose": "2.20.2", "buildx": "0.10"}
VERSION_COMMANDS = {
    "engine": ["docker", "version", "--format", "{{.Server.Version}}"],
    "compose": ["docker", "compose", "version", "--short"],
    "buildx": ["docker", "buildx", "version"],
}
FIXES = {
    "engine": "start Docker, or point DOCKER_HOST or `docker context use` at an engine; `inv up --env local` needs none",
    "compose": "install the Compose plugin, Debian's docker-compose or Docker's docker-compose-plugin",
    "buildx": "install the Buildx plugin, Debian's docker-buildx or Docker's docker-buildx-plugin",
}

PERMISSION_FIX = "sudo usermod -aG docker $USER, then log in anew; `inv up --env local` needs no engine"


@dataclass(frozen=True)
class Endpoint:
    """The address of an engine, and the folder of TLS files that its context names, if any."""

    host: str
    tls: Path | None = None

    @property
    def is_here(self) -> bool:
        """Whether the engine shares this machine's files, so that bind mounts and ports can be checked."""
        return self.host.startswith(("unix://", "npipe://"))


def endpoint(world: World) -> Endpoint:
    """The endpoint that the docker command uses: DOCKER_HOST, DOCKER_CONTEXT or the current context.

    Source: Docker's documentation, "Docker contexts".
    """
    context = json.loads(world.ask(["docker", "context", "inspect"]).stdout)[0]
    files = Path(context.get("Storage", {}).get("TLSPath", "")) / "docker"
    return Endpoint(context["Endpoints"]["docker"]["Host"], files if context.get("TLSMaterial") else None)


def tls_config(folder: Path) -> Any:
    """The SDK's form of a context's TLS files: ca.pem, and cert.pem with key.pem where there is a client pair."""
    from docker.tls import TLSConfig

    pair = (str(folder / "cert.pem"), str(folder / "key.pem")) if (folder / "cert.pem").exists() else None
    return TLSConfig(client_cert=pair, ca_cert=str(folder / "ca.pem"), verify=True)


def connect(world: World) -> "DockerClient":
    """An SDK client for the engine that the command line talks to."""
    import docker
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    at = endpoint(world)
    options: dict[str, Any] = {"base_url": at.host, "use_ssh_client": at.host.startswith("ssh://")}
    if at.tls:
        options["tls"] = tls_config(at.tls)
    elif os.environ.get("DOCKER_TLS_VERIFY"):
        options["tls"] = kwargs_from_env().get("tls", False)
    try:
        client = docker.DockerClient(**options)
        client.ping()
    except DockerException as error:
        raise NotReady(f"no answer from the engine at {at.host}: {error}", fix=FIXES["engine"]) from None
    return client


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison."""
    found = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def version(world: World, part: str) -> str:
    """The version of a part (a key of MINIMUMS) as it says itself; NotReady where it is missing or too old."""
    result = world.ask(VERSION_COMMANDS[part], check=False)
    found = re.search(r"\d+\.\d+[\w.+~-]*", result.stdout)
    if result.returncode != 0 or not found:
        said = (result.stderr or result.stdout).strip().splitlines()
        fix = PERMISSION_FIX if "permission denied" in result.stderr else FIXES[part]
        raise NotReady(f"Docker {part} does not answer: {said[0] if said else 'no output'}", fix)
    if numbers(found[0]) < numbers(MINIMUMS[part]):
        raise NotReady(
            f"Docker {part}: expected at least {MINIMUMS[part]}, found {found[0]}.",
            fix=f"update Docker {part}; `inv up --env local` needs none",
        )
    return found[0]


def require(world: World, *parts: str) -> bool:
    """Stop unless the parts are there and new enough; a dry run only mentions it, and is told False."""
    ready = True
    for part in parts:
        try:
            version(world, part)
        except NotReady as error:
            if not world.dry:
                raise
            world.warn(f"would stop here. {error.what}")
            ready = False
    return ready
