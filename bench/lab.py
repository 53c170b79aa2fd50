"""The containers of one run: built, started, one of them at work at a time, and removed whatever happens."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contenders import FOLDER, PORT, Contender
from pypi_tasks.errors import Failed
from pypi_tasks.image import PROJECT_LABEL
from pypi_tasks.settings import Settings
from pypi_tasks.world import World, poll

LABEL = "pypi-tasks.bench"
UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def usage(line: str) -> tuple[float, int]:
    """Processor share in percent and bytes of memory from a line of `docker stats`, such as ``0.15% 84.3MiB / 1GiB``."""
    found = re.match(r"\s*([\d.]+)%\s+([\d.]+)\s*([kKMG]?i?B)\b", line)
    if not found:
        raise Failed(f"docker stats said {line!r}, which is no share and size.")
    return float(found[1]), int(float(found[2]) * UNITS[found[3]])


@dataclass
class Running:
    """A contender at work: the container that is asked, all that it consists of, and the client beside it."""

    contender: Contender
    server: str
    containers: list[str]
    client: str = ""


@dataclass
class Lab:
    """One run's containers. ``id`` is in all their names and labels."""

    world: World
    settings: Settings
    id: str
    folder: Path
    cache: Path
    running: dict[str, Running] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)

    def name(self, part: str) -> str:
        """The name of a container or an image of this run."""
        return f"pypi-bench-{self.id}-{part}"

    def labels(self) -> list[str]:
        """Options that mark what is made as this run's."""
        return ["--label", f"{LABEL}={self.id}"]

    def build(self, part: str) -> str:
        """Build the image in contenders/``part``. It stays, as a build does; `inv gc` removes it."""
        tag = f"pypi-bench-{part}:{self.settings.project}"
        argv = ["docker", "buildx", "build", "--quiet", "--provenance=false", "--tag", tag]
        argv += ["--label", f"{PROJECT_LABEL}={self.settings.project}"]
        text = (FOLDER / part / "Dockerfile").read_text(encoding="utf-8")
        for name, value in {"PYTHON_IMAGE": self.settings.python_image, "NGINX_IMAGE": self.settings.nginx_image}.items():
            if f"ARG {name}=" in text:
                argv += ["--build-arg", f"{name}={value}"]
        if self.settings.ca_bundle:
            argv += ["--secret", f"id=ca_bundle,src={self.settings.ca_bundle}"]
        self.world.feed([*argv, str(FOLDER / part)], "")
        return tag

    def trust(self) -> list[str]:
        """Options by which a container that asks PyPI trusts the CA of a TLS proxy, if there is one."""
        if not self.settings.ca_bundle:
            return []
        mount = f"type=bind,source={self.settings.ca_bundle},target=/etc/ca-bundle.pem,readonly"
        names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT")
        return ["--mount", mount, *(word for name in names for word in ("--env", f"{name}=/etc/ca-bundle.pem"))]

    def run(self, part: str, image: str, *options: str, command: tuple[str, ...] = ()) -> str:
        """Start a container."""
        name = self.name(part)
        self.world.feed(["docker", "run", "--detach", "--name", name, *self.labels(), *options, image, *command], "")
        return name

    def adopt(self, contender: Contender, server: str, containers: list[str] | None = None) -> Running:
        """Put a client into the network of a server, and wait until it answers."""
        made = Running(contender, server, containers or [server])
        secret = self.folder / "secrets" / "user_password"
        made.client = self.run(
            f"{contender.name}-client", f"pypi-bench-client:{self.settings.project}",
            "--network", f"container:{server}", "--tmpfs", "/target:exec,mode=1777",
            "--mount", f"type=bind,source={secret},target=/run/secrets/user_password,readonly",
            "--mount", f"type=bind,source={self.cache},target=/wheels,readonly",
            "--mount", f"type=volume,source={self.name('site')},target=/site",
        )  # fmt: skip
        self.running[contender.name] = made
        self.script(made, "look", {"path": contender.alive, "wait": 120})
        return made

    def remove(self, *names: str) -> None:
        """Remove containers before the end of the run."""
        self.world.feed(["docker", "rm", "--force", "--volumes", *names], "")

    def focus(self, running: Running) -> None:
        """Let this contender work, and all others stand still."""
        others = {name for one in self.running.values() if one is not running for name in one.containers}
        if idle := sorted(others - self.paused):
            self.world.ask(["docker", "pause", *idle])
        if mine := sorted(self.paused & set(running.containers)):
            self.world.ask(["docker", "unpause", *mine])
        self.paused = (self.paused | others) - set(running.containers)

    def execute(self, running: Running, *argv: str, stdin: str = "") -> str:
        """Run a command in a contender's client; returns what it prints."""
        return self.world.ask(["docker", "exec", "--interactive", running.client, *argv], stdin=stdin).stdout

    def script(self, running: Running, name: str, job: dict[str, Any]) -> Any:
        """Give a job to one of the client's scripts; returns its outcome."""
        return json.loads(self.execute(running, "python", f"/opt/bench/{name}.py", stdin=json.dumps(job)))

    def load(self, running: Running, path: str, connections: int, seconds: float, headers: list[str]) -> str:
        """Put load on a path with wrk; returns its report. A whole second is the least that wrk knows."""
        options = [
            f"-t{min(2, connections)}",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "60s",
            "--latency",
        ]
        shown = [word for header in headers for word in ("-H", header)]
        url = f"http://127.0.0.1:{PORT}{path}"
        return self.execute(running, "wrk", *options, *shown, "-s", "/opt/bench/report.lua", url)

    def stats(self, running: Running) -> tuple[float, int]:
        """Processor share in percent and bytes of memory of all the containers of a contender."""
        argv = ["docker", "stats", "--no-stream", "--format", "{{.CPUPerc}} {{.MemUsage}}", *running.containers]
        found = [usage(line) for line in self.world.ask(argv).stdout.splitlines()]
        return sum(share for share, _ in found), sum(size for _, size in found)

    def is_bounded(self, running: Running) -> bool:
        """Whether every container of a contender has a limit of memory, and none has been killed at it."""
        form = "{{.HostConfig.Memory}} {{.State.OOMKilled}} {{.RestartCount}}"
        found = self.world.ask(["docker", "inspect", "--format", form, *running.containers]).stdout.splitlines()
        return all(line.split()[0] != "0" and line.split()[1:] == ["false", "0"] for line in found)

    def settle(self, running: Running, timeout: float = 120) -> None:
        """Wait until a contender has done with what it does after an upload or a start, its search index for one."""
        poll(lambda: self.stats(running)[0] < 10, timeout)

    def sweep(self) -> None:
        """Remove the containers and the volumes of this run."""
        selected = ["--filter", f"label={LABEL}={self.id}"]
        if ids := self.world.ask(["docker", "ps", "--all", "--quiet", *selected], check=False).stdout.split():
            self.world.sweep(["docker", "rm", "--force", "--volumes", *ids])
        if names := self.world.ask(["docker", "volume", "ls", "--quiet", *selected], check=False).stdout.split():
            self.world.sweep(["docker", "volume", "rm", *names])
