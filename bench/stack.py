"""Our own stack, brought up by `inv up` as a user does, with a project, a port, data and secrets of its own; and bare devpi."""

import contextlib
import json
import os
import socket
import sys

from bench.contenders import BARE, OURS
from bench.lab import Lab, Running
from pypi_tasks import image
from pypi_tasks.errors import UserError
from pypi_tasks.image import PROJECT_LABEL
from pypi_tasks.settings import ROOT, fields
from pypi_tasks.world import World

# What is about this machine rather than about the stack; all else is as it is by default.
KEPT = ("PYTHON_IMAGE", "NGINX_IMAGE", "CA_BUNDLE", "DEVPI_UID", "DEVPI_GID")
INVOKE = [sys.executable, "-m", "invoke", "--search-root", str(ROOT)]


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def project(lab: Lab) -> str:
    """The project's name of the stack."""
    return f"pypi-bench-{lab.id}"


def environment(lab: Lab, port: int) -> dict[str, str]:
    """The settings of the stack. An empty one is the default, whatever .env says."""
    made = os.environ | {name: "" for name in fields() if name not in KEPT}
    made |= {"PROJECT": project(lab), "DEVPI_PORT": str(port)}
    return made | {"DEVPI_HOME": str(lab.folder / "ours"), "SECRETS_HOME": str(lab.folder / "secrets")}


def latest(world: World) -> dict[str, str]:
    """Which images have the names ``IMAGE:latest`` now; whoever builds last gets them."""
    names = [f"{one.name}:latest" for one in image.known()]
    found = {name: world.ask(["docker", "image", "inspect", "--format", "{{.Id}}", name], check=False) for name in names}
    return {name: result.stdout.strip() for name, result in found.items() if result.returncode == 0}


def start(lab: Lab) -> Running:
    """Bring the stack up; what clients reach is the port that the proxy serves."""
    lab.world.run([*INVOKE, "up", "--env", "dev"], env=environment(lab, free_port()))
    shown = lab.world.ask(["docker", "ps", "--filter", f"label={PROJECT_LABEL}={project(lab)}", "--format", "{{.Names}}"])
    containers = sorted(shown.stdout.split())
    front = f"{project(lab)}-dev-port-1"
    running = lab.adopt(OURS, front, containers)
    provision(lab, f"{project(lab)}-dev-devpi-1", "bench", [])
    return running


def provision(lab: Lab, container: str, index: str, bases: list[str]) -> None:
    """Make an index, and what it needs, by the same script as `inv up`."""
    options = {"bases": bases, "volatile": True, "mirror_whitelist": []}
    wish = {"user": "pypi", "index": index, "options": options, "enforce": []}
    argv = ["docker", "exec", "--interactive", container, "python", "/opt/pypi_server/provision.py"]
    lab.world.feed(argv, json.dumps(wish))


def start_bare(lab: Lab, *options: str) -> Running:
    """Start devpi-server as the seed did: our image's devpi, without our options, our plugin and our proxy."""
    folder, secrets = lab.folder / "bare", lab.folder / "secrets"
    lab.world.make_folder(folder, owner=(lab.settings.devpi_uid, lab.settings.devpi_gid))
    server = lab.run(
        BARE.name, f"pypi_server:{project(lab)}",
        "--no-healthcheck", "--user", f"{lab.settings.devpi_uid}:{lab.settings.devpi_gid}", *lab.trust(),
        "--mount", f"type=bind,source={folder},target=/devpi",
        "--mount", f"type=bind,source={secrets},target=/run/secrets,readonly",
        command=("devpi-server", *options),
    )  # fmt: skip
    running = lab.adopt(BARE, server)
    provision(lab, server, "stable", ["root/pypi"])
    provision(lab, server, "bench", [])
    return running


def restart_bare(lab: Lab, running: Running) -> Running:
    """Bare devpi with its defaults on the data that a quicker one has filled."""
    lab.focus(running)
    lab.settle(running)
    lab.remove(running.client, running.server)
    return start_bare(lab)


def stop(lab: Lab, before: dict[str, str]) -> None:
    """Take the stack down; its images go, and the names that they took are given back."""
    world = lab.world
    with contextlib.suppress(UserError):
        world.run([*INVOKE, "down", "--env", "dev"], env=environment(lab, free_port()))
    for find, remove in (
        (["ps", "--all"], ["rm", "--force", "--volumes"]),
        (["network", "ls"], ["network", "rm"]),
        (["volume", "ls"], ["volume", "rm"]),
        (["images", "--all", "--no-trunc"], ["rmi", "--force"]),
    ):
        selected = ["--filter", f"label={PROJECT_LABEL}={project(lab)}"]
        found = world.ask(["docker", *find, "--quiet", *selected], check=False).stdout.split()
        if ids := sorted(set(found)):
            world.sweep(["docker", *remove, *ids])
    for name, id in before.items():
        if world.ask(["docker", "image", "inspect", id], check=False).returncode == 0:
            world.sweep(["docker", "tag", id, name])
