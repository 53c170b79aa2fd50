"""What of this project lies around on the engine and on disk, and its removal: by label only, and after asking."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pypi_tasks import home, image, native
from pypi_tasks.deployment import LOCK, Deployment
from pypi_tasks.errors import BadInput, NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.terminal import human, table
from pypi_tasks.world import World


@dataclass(frozen=True)
class Item:
    """One thing to remove: the command that does it, or the path; bytes that it frees, as far as they are known."""

    kind: str
    name: str
    bytes: int
    argv: tuple[str, ...] = ()
    path: Path | None = None


def json_lines(text: str) -> list[dict[str, Any]]:
    """The objects that Docker prints, one a line."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def stack_items(world: World, settings: Settings, env: str) -> list[Item]:
    """Containers of the project that are no other environment's, and the networks and volumes of this one."""
    ours = f"label={image.PROJECT_LABEL}={settings.project}"
    containers = json_lines(world.ask(["docker", "ps", "--all", "--filter", ours, "--format", "json"]).stdout)
    label = f"label=com.docker.compose.project={settings.project}-{env}"
    networks = json_lines(world.ask(["docker", "network", "ls", "--filter", label, "--format", "json"]).stdout)
    volumes = json_lines(world.ask(["docker", "volume", "ls", "--filter", label, "--format", "json"]).stdout)
    mine = [one for one in containers if env_of(one["Labels"]) in (env, "")]
    return [
        *(Item("container", one["Names"], 0, ("docker", "rm", "--force", "--volumes", one["ID"])) for one in mine),
        *(Item("network", one["Name"], 0, ("docker", "network", "rm", one["ID"])) for one in networks),
        *(Item("volume", one["Name"], 0, ("docker", "volume", "rm", one["Name"])) for one in volumes),
    ]


def env_of(labels: str) -> str:
    """The environment in the labels of a container as `docker ps` prints them, empty for one started by hand."""
    pairs = dict(pair.partition("=")[::2] for pair in labels.split(","))
    return pairs.get(image.ENV_LABEL, "")


def image_items(world: World, settings: Settings, leaving: Iterable[str]) -> list[Item]:
    """The project's images, every tag of them, but the ones that a container outside ``leaving`` (names) needs."""
    label = f"label={image.PROJECT_LABEL}={settings.project}"
    ids = sorted(set(world.ask(["docker", "images", "--all", "--quiet", "--no-trunc", "--filter", label]).stdout.split()))
    if not ids:
        return []
    all_containers = world.ask(["docker", "ps", "--all", "--quiet", "--no-trunc"]).stdout.split()
    used = set()
    if all_containers:
        for container in json.loads(world.ask(["docker", "inspect", *all_containers]).stdout):
            if container["Name"].lstrip("/") not in leaving:
                used.add(container["Image"])
    found = json.loads(world.ask(["docker", "image", "inspect", *ids]).stdout)
    return [
        Item("image", ", ".join(one["RepoTags"]) or one["Id"][7:19], one["Size"], ("docker", "rmi", "--force", one["Id"]))
        for one in found
        if one["Id"] not in used
    ]


def instructions(dockerfile: str) -> list[str]:
    """The shell commands of a Dockerfile's RUN instructions, as BuildKit describes the cache record of each."""
    joined = re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE))
    found = re.findall(r"^RUN\s+((?:--\S+\s+)*)(.*)$", joined, re.MULTILINE)
    return [" ".join(command.split()) for _, command in found]


def is_ours(description: str, one: image.Image, commands: Iterable[str]) -> bool:
    """Whether a cache record came from an image's Dockerfile: by its stages, which carry its name, or its commands.

    Build cache has no labels, so a record is told by what BuildKit writes into its description.
    """
    plain = " ".join(description.split())
    return plain.startswith((f"[{one.name} ", f"[{one.name}-")) or any(plain.endswith(f"/bin/sh -c {text}") for text in commands)


def cache_items(world: World) -> list[Item]:
    """The build cache of the project's images, as one item: Buildx takes a pattern of ids."""
    records = json_lines(world.ask(["docker", "buildx", "du", "--format", "json"], check=False).stdout)
    found: dict[str, int] = {}
    for one in image.known():
        commands = instructions((one.folder / "Dockerfile").read_text(encoding="utf-8"))
        for record in records:
            if is_ours(record.get("Description", ""), one, commands):
                found[record["ID"]] = size(record.get("Size", "0B"))
    pattern = f"id=^({'|'.join(sorted(found))})$"
    argv = ("docker", "buildx", "prune", "--all", "--force", "--filter", pattern)
    return [Item("build cache", f"{len(found)} records", sum(found.values()), argv)] if found else []


def native_items(settings: Settings) -> list[Item]:
    """The native server's environments and its log."""
    paths = [*native.ENVIRONMENTS.glob("devpi-*"), settings.devpi_home / "devpi.log", settings.devpi_home / "devpi.settings"]
    return [Item("file", str(path), disk_use(path), path=path) for path in paths if path.exists()]


def disk_use(path: Path) -> int:
    """Bytes below a path."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())


def find(world: World, settings: Settings, env: str) -> list[Item]:
    """All that may go, in the order in which it has to."""
    if env == "local":
        return native_items(settings)
    stack = stack_items(world, settings, env)
    leaving = [item.name for item in stack if item.kind == "container"]
    return [*stack, *image_items(world, settings, leaving), *cache_items(world)]


def collect(world: World, settings: Settings, server: Deployment, yes: bool, data: bool) -> None:
    """Show, ask, remove. Package data goes only with ``data`` and when the index's name is typed."""
    server.look()
    if data and server.state().health == "stopped" and home.in_use(settings.devpi_home):
        raise NotReady(f"another environment runs on {settings.devpi_home}.", fix="`inv status` shows which; take it down first")
    folder = settings.devpi_home
    packages = [Item("PACKAGE DATA", str(folder), disk_use(folder), path=folder)] if data and folder.exists() else []
    items = [*find(world, settings, server.env), *packages]
    if not items:
        world.say(f"{server.env}: nothing to remove")
        return
    table("", ["kind", "name", "size"], [[item.kind, item.name, human(item.bytes)] for item in items])
    world.say(f"{len(items)} to remove, {human(sum(item.bytes for item in items))}. Package data {'GOES' if data else 'stays'}.")
    if not yes and not world.confirm("Remove all this? [y/N]", "y", "Y", "yes"):
        raise BadInput("not confirmed, so nothing was removed.", fix="type y, or give --yes")
    if data and not world.confirm(f"Type the index's name, {settings.index}, to remove its packages for good:", settings.index):
        raise BadInput("the index's name was not typed, so nothing was removed.")
    with world.exclusive(LOCK, task="gc"):
        if server.state().health != "stopped":
            server.stop()  # properly: what is removed below would be killed
            items = items if world.dry else [*find(world, settings, server.env), *packages]
        for item in items:
            world.remove(item.path) if item.path else world.sweep(item.argv)


def size(text: str) -> int:
    """The bytes that Docker means by, say, 61.2MB."""
    found = re.fullmatch(r"([\d.]+)\s*([kKMGT]?)B", text.strip())
    return int(float(found[1]) * 1000 ** " KMGT".index(found[2].upper() or " ")) if found else 0
