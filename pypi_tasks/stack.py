"""A Docker environment at work: the containers of its Compose file, and the commands on them."""

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pypi_tasks import compose, engine, home, image
from pypi_tasks.deployment import State
from pypi_tasks.errors import Failed, Interrupted, NotReady
from pypi_tasks.image import Image
from pypi_tasks.settings import ROOT, Settings
from pypi_tasks.world import World, poll

RENDERED = ROOT / ".rendered"
SERVICE = "devpi"
SERVICES = (SERVICE, "port", "proxy")
SOON = 0.5  # seconds until what was asked of the engine is there
BACKUP = "backup"  # a service where there is a schedule
SERVICE_LABEL = "com.docker.compose.service"
# Which image the containers are of that an upgrade replaces.
IMAGES = {SERVICE: "pypi_server", "proxy": "pypi_proxy"}


def state_of(container: dict[str, Any]) -> State:
    """The state of one container, from what `docker inspect` says of it."""
    status = container["State"]["Status"]
    health = container["State"].get("Health", {}).get("Status", status)
    code = "" if status == "running" else f", exit code {container['State']['ExitCode']}"
    name = f"container {container['Name'].lstrip('/')}{code}"
    return State(health if status == "running" else status, name, container["Config"]["Image"], container["Image"])


def is_running(container: dict[str, Any]) -> bool:
    """Whether a container runs, of those that `docker inspect` shows."""
    return bool(container["State"]["Running"])


class Stack:
    """A Compose stack. Its data is a bind mount, its secrets are files, its labels carry the project's name."""

    def __init__(self, world: World, settings: Settings, env: str, images: Mapping[str, str] | None = None) -> None:
        self.world, self.settings, self.env = world, settings, env
        self.images = images or {}
        self.proxy_waits = False
        self.file = RENDERED / f"docker-compose-{env}.yaml"
        self.project = f"{settings.project}-{env}"
        self.owner: tuple[int, int] | None = (settings.devpi_uid, settings.devpi_gid)

    def argv(self, *words: str) -> list[str]:
        """A Compose command on this stack."""
        return ["docker", "compose", "--project-name", self.project, "--file", str(self.file), *words]

    def preflight(self, port: bool = True) -> None:
        """Engine, Compose, settings, folder and port, all before the first change."""
        ready = engine.require(self.world, "engine", "compose", "buildx")
        compose.render(self.settings, self.env)
        if told := compose.wrong_links(self.settings):
            self.world.warn(told)
        if not ready:
            return
        if not self.is_here():
            self.world.warn("the engine is elsewhere: DEVPI_HOME and SECRETS_HOME have to be folders of that machine.")
            return
        home.check(self.world, self.settings, self.settings.devpi_uid)
        if self.settings.backup_schedule:
            home.check_backups(self.world, self.settings, self.settings.devpi_uid, self.settings.devpi_gid)
        self.refuse_other_checkout()
        if not self.containers(running=True):
            home.check_unused(self.world, self.settings)
        if port and not self.has_port():
            home.check_port(self.world, self.settings)

    def refuse_other_checkout(self) -> None:
        """Leave alone what another folder started under the same name."""
        for container in self.containers():
            file = container["Config"]["Labels"].get("com.docker.compose.project.config_files", str(self.file))
            if file != str(self.file):
                raise NotReady(
                    f"{self.project} is running already, from {file}.",
                    fix="give each checkout on this machine its own PROJECT; `inv gc` here would remove that one's containers",
                )

    def is_here(self) -> bool:
        """Whether this machine's folders are the engine's; a dry run without an engine takes it that they are."""
        return (self.world.dry and not shutil.which("docker")) or engine.endpoint(self.world).is_here

    def has_port(self) -> bool:
        """Whether a running container of this stack is what listens on the port."""
        bindings = [one["HostConfig"]["PortBindings"] or {} for one in self.containers(running=True)]
        taken = [binding["HostPort"] for ports in bindings for port in ports.values() for binding in port]
        return str(self.settings.devpi_port) in taken

    def look(self) -> None:
        """Make sure that there is an engine to ask what is there."""
        engine.require(self.world, "engine")

    def containers(self, running: bool = False) -> list[dict[str, Any]]:
        """The stack's containers as `docker inspect` shows them, found by label: no file is needed. Those that a task runs
        for a while are none of it."""
        filters = ["--filter", f"label=com.docker.compose.project={self.project}"]
        filters += ["--filter", "label=com.docker.compose.oneoff=False"]
        ids = self.world.ask(["docker", "ps", "--quiet", *([] if running else ["--all"]), *filters]).stdout.split()
        if not ids:
            return []
        inspected: list[dict[str, Any]] = json.loads(self.world.ask(["docker", "inspect", *ids]).stdout)
        return inspected

    def start(self) -> None:
        """Render, get the images (built if outdated, or pulled), and have Compose start what changed."""
        self.get_images()
        fix = "inv doctor"
        if not self.is_here():
            owner = f"{self.settings.devpi_uid}:{self.settings.devpi_gid}"
            fix = f"on the engine's machine, have {self.settings.devpi_home} and {self.settings.secrets_home}, owned by {owner}"
        self.proxy_waits = self.has_right_port()
        services = [SERVICE, *(["backup"] if self.settings.backup_schedule else [])] if self.proxy_waits else []
        self.world.run(self.argv("up", "--detach", "--remove-orphans", *services), fix)
        if not self.settings.backup_schedule and self.container("backup"):
            self.world.run(self.argv("rm", "--stop", "--force", "backup"))

    def get_images(self) -> None:
        """Have the images here: built if outdated, or pulled."""
        if not self.prepare() and not self.images:
            self.pull()

    def pull(self) -> None:
        """Have the images of the registry; which one cannot be had is told, and which setting names it."""
        try:
            self.world.run(self.argv("pull"))
        except Failed:
            inspect = ["docker", "image", "inspect"]
            lacking = {
                name: one for name, one in self.images_wanted().items() if self.world.ask([*inspect, one], check=False).returncode
            }
            name, reference = next(iter(lacking.items()), (IMAGES[SERVICE], "an image"))
            tag = "PROXY_TAG" if name == IMAGES["proxy"] and self.settings.proxy_tag else "TAG"
            told = f"{reference} cannot be had; what the registry says is above."
            raise Failed(told, fix=f"check REGISTRY and {tag}; `inv push` puts the image there") from None

    def images_running(self) -> dict[str, str]:
        """The digests of the images that run, by their names."""
        found = ((image, self.container(service)) for service, image in IMAGES.items())
        return {image: container["Image"] for image, container in found if container}

    def images_wanted(self) -> dict[str, str]:
        """The references of the images that the file names, by their names."""
        shown = json.loads(self.world.ask(self.argv("config", "--format", "json")).stdout)["services"]
        return {image: shown[service]["image"] for service, image in IMAGES.items()}

    def start_proxy(self) -> bool:
        """Start a changed proxy. Not before the server is healthy: the old one holds clients, and would take them with it."""
        if not self.proxy_waits:
            return False
        if len(self.containers_of("proxy")) > 1:
            # Compose was cut off while it replaced the proxy: its stop goes on by itself, and would stop what is started now.
            self.world.run(self.argv("stop", "proxy"))
        self.world.run(self.argv("up", "--detach", "--no-deps", "proxy"))
        self.proxy_waits = False
        return True

    def has_right_port(self) -> bool:
        """Whether ``port`` runs and has the port that it should. Then it stays, of whatever image it is: as long as it does,
        nobody is refused."""
        wanted = [{"HostIp": self.settings.devpi_bind, "HostPort": str(self.settings.devpi_port)}]
        found = self.container("port")
        return bool(found and found["State"]["Running"] and wanted in found["HostConfig"]["PortBindings"].values())

    def containers_of(self, service: str) -> list[dict[str, Any]]:
        """The containers of a service as `docker inspect` shows them, one that runs first: while Compose replaces one, two are
        there."""
        if self.world.dry and not shutil.which("docker"):
            return []
        found = [one for one in self.containers() if one["Config"]["Labels"].get(SERVICE_LABEL) == service]
        return sorted(found, key=is_running, reverse=True)

    def container(self, service: str) -> dict[str, Any] | None:
        """The container of a service, if there is one."""
        return next(iter(self.containers_of(service)), None)

    def prepare(self) -> list[Image]:
        """Have the file, the folders and the images that are built here; returns these."""
        self.world.write(self.file, compose.render(self.settings, self.env, images=self.images))
        if self.is_here():
            self.world.make_folder(self.settings.devpi_home, owner=self.owner)
            self.world.make_folder(self.settings.backup_home, mode=0o700, owner=self.owner)
        local = self.built_here()
        stale = image.outdated(self.world, self.settings, local)
        if stale:
            image.lint(self.world, stale)
            image.build(self.world, self.settings, stale)
        return local

    def built_here(self) -> list[Image]:
        """The images that are built of the folders here; none where the images are given."""
        text = compose.render(self.settings, self.env, images=self.images)
        local = [one for one in image.known() if compose.quoted(one.local(self.settings.project)) in text]
        return [] if self.images else local

    def script(self, name: str, job: Mapping[str, Any], source: Path | None = None) -> Any:
        """Run a script in a container of its own, with the data and the snapshots, and without a network."""
        engine.require(self.world, "engine", "compose", "buildx")
        if self.is_here():
            home.check_backups(self.world, self.settings, self.settings.devpi_uid, self.settings.devpi_gid)
        self.prepare()
        if source and not self.is_here():
            raise NotReady("the engine is elsewhere, where a folder of this machine is not.", fix="the same on that machine")
        mount = ["--volume", f"{source}:/source:ro"] if source else []
        return self.converse(name, {**job, "source": "/source"} if source else job, mount)

    def converse(self, name: str, job: Mapping[str, Any], mount: Sequence[str] = ()) -> Any:
        """Give a job to a script, in a container that does not outlive this."""
        container = f"{self.project}-{name}-{secrets.token_hex(3)}"
        quiet = ["docker", "compose", "--progress", "quiet", *self.argv()[2:]]
        argv = [*quiet, "run", "--rm", "--no-deps", "-T", "--name", container, *mount, BACKUP, f"/opt/pypi_server/{name}.py"]
        try:
            return self.world.converse(argv, job)
        except (Interrupted, Failed):
            self.end(container)
            raise

    def end(self, container: str) -> None:
        """Have a container tidy up and go, if it is there still: Compose, when interrupted or killed, leaves it to itself."""
        poll(lambda: self.is_left(container), SOON)
        for status, command in (("running", ["stop", "--timeout", "60"]), ("created", ["rm", "--force"])):
            if self.is_left(container, status):
                self.world.sweep(["docker", *command, container])

    def is_left(self, container: str, *status: str) -> bool:
        """Whether a container is there, in one of these states, if any is named."""
        filters = [f"name=^{container}$", *(f"status={one}" for one in status)]
        shown = self.world.ask(["docker", "ps", "--all", "--quiet", *(f"--filter={one}" for one in filters)], check=False)
        return bool(shown.stdout)

    def provision(self, wish: str) -> str:
        """Run provision.py in the container."""
        return self.inside("provision", wish)

    def inside(self, name: str, text: str) -> str:
        """Run a script in the server's container."""
        return self.world.feed(self.argv("exec", "-T", SERVICE, "python", f"/opt/pypi_server/{name}.py"), text)

    def state(self) -> State:
        """The stack's health: that of the first container that is not healthy, in the order in which they depend on another;
        the server's where all are. Docker's health where a container runs, its status where it does not. A proxy that waits to
        be replaced says nothing: it may be dead."""
        found = {one["Config"]["Labels"].get(SERVICE_LABEL): one for one in sorted(self.containers(), key=is_running)}
        if not any(name in found for name in SERVICES):
            return State("stopped")
        wanted = [name for name in SERVICES if not (name == "proxy" and self.proxy_waits)]
        states = [state_of(found[name]) if name in found else State("missing", f"service {name}; inv up") for name in wanted]
        if self.settings.backup_schedule:
            states.append(state_of(found[BACKUP]) if BACKUP in found else State("missing", f"service {BACKUP}; inv up"))
        return next((one for one in states if one.health not in ("healthy", "running")), states[0])

    def reload(self) -> None:
        """Have the proxy read its certificate anew; connections that are open go on."""
        self.world.run(self.argv("kill", "--signal", "HUP", "proxy"))

    def purge(self) -> None:
        """Empty the cache of pages, where its owner is."""
        engine.require(self.world, "engine", "compose")
        self.world.run(self.argv("exec", "-T", SERVICE, "python", "/opt/pypi_server/page_store.py"))

    def stop(self) -> None:
        """Take the containers and the network away; data, images and secrets stay."""
        engine.require(self.world, "engine", "compose")
        if not self.world.dry:
            self.refuse_other_checkout()
        self.world.run(["docker", "compose", "--project-name", self.project, "down", "--remove-orphans"])

    def halt(self) -> None:
        """Stop devpi; the proxy holds its clients."""
        if not self.world.dry:
            self.refuse_other_checkout()
        self.world.run(self.argv("stop", SERVICE))

    def resume(self) -> None:
        """Start devpi's container again, or another one where somebody removed it."""
        is_gone = not self.world.dry and not self.container(SERVICE)
        self.world.run(self.argv(*(["up", "--detach", "--no-deps"] if is_gone else ["start"]), SERVICE))

    def logs(self, follow: bool = False, lines: int = 100) -> None:
        """The log of every container of the stack."""
        engine.require(self.world, "engine", "compose")
        if not self.containers():
            raise Failed(f"{self.env} has no containers.", fix=f"inv up --env {self.env}, or the --env that `inv status` shows")
        command = ["docker", "compose", "--project-name", self.project, "logs", "--tail", str(lines)]
        self.world.stream([*command, *(["--follow"] if follow else [])])

    def last_words(self) -> str:
        """The last twenty lines of every container's log."""
        shown = self.world.ask(self.argv("logs", "--tail", "20"), check=False)
        return shown.stdout + shown.stderr
