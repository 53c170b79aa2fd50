"""A drill: a snapshot is restored into a throw-away stack, which is looked at as clients see it, and removed again."""

import dataclasses
import datetime
import os
import secrets
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from pypi_tasks import compose, deployment, image, native, rotate, smoke, stack
from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import Failed, Interrupted
from pypi_tasks.interruption import ANEW, undisturbed
from pypi_tasks.served import Served, compare, is_listed
from pypi_tasks.settings import Settings
from pypi_tasks.world import World

TIMEOUT = 120  # seconds for the throw-away server to be healthy
SHOWN = 20
Outcome = dict[str, Any]


class Throwaway(Deployment, Protocol):
    """An environment that leaves nothing behind."""

    settings: Settings

    def discard(self) -> None:
        """Remove all that was made for it, but for the folder of its data, which a script made."""


class Stack(stack.Stack):
    """A Compose stack of images that are there already. Its data is in BACKUP_HOME, where scripts can make a folder."""

    def __init__(self, world: World, settings: Settings, env: str, images: Mapping[str, str]) -> None:
        super().__init__(world, settings, env, images)
        self.file = stack.RENDERED / f"{self.project}.yaml"

    def prepare(self) -> list[image.Image]:
        """Have the file; all else is there."""
        self.world.write(self.file, compose.render(self.settings, self.env, images=self.images))
        return []

    def script(self, name: str, job: Mapping[str, Any], source: Path | None = None) -> Any:  # noqa: ARG002  all is here
        """Run a script on the throw-away data."""
        self.prepare()
        return self.converse(name, job)

    def start(self) -> None:
        """Have Compose start it."""
        self.prepare()
        self.world.run(self.argv("up", "--detach"))

    def discard(self) -> None:
        """Remove containers, network, volumes, and the file."""
        self.world.run(self.argv("down", "--volumes", "--remove-orphans", "--timeout", "1"))
        self.world.remove(self.file)


class Server(native.Server):
    """A native server of the same kind."""

    def script(self, name: str, job: Mapping[str, Any], source: Path | None = None) -> Any:  # noqa: ARG002  all is here
        """Run a script on the throw-away data."""
        environment = self.environment() | {"BACKUP_HOME": str(self.settings.backup_home)}
        return self.world.converse([str(self.python), str(native.CONTEXT / f"{name}.py")], job, environment)

    def discard(self) -> None:
        """End the process."""
        if self.pid():
            self.stop()


def free_port() -> int:
    """A port of this host that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def apart(settings: Settings, name: str) -> Settings:
    """The settings of a server that nobody but the drill knows: its own project, port and data, no TLS, no schedule."""
    return dataclasses.replace(
        settings, project=f"{settings.project}-{name}", devpi_bind="127.0.0.1", devpi_port=free_port(),
        devpi_home=settings.backup_home / name, outside_url="", tls_certificate=None, tls_key=None, backup_schedule=(),
    )  # fmt: skip


def throwaway(world: World, settings: Settings, server: Deployment, name: str, images: Mapping[str, str] | None) -> Throwaway:
    """A throw-away server of the same kind, of the same images if no others are given."""
    there = apart(settings, name)
    if server.env == "local":
        return Server(world, there)
    if images is None:
        kind = "published_image" if server.env == "stable" else "local_image"
        named = compose.variables(settings, server.env)[kind]
        images = {one.name: named(one.name) for one in image.known()}
    return Stack(world, there, server.env, images)


def run(
    world: World, settings: Settings, server: Deployment, snapshot: str = "", images: Mapping[str, str] | None = None
) -> Outcome:
    """Restore a snapshot, the newest verified one for no name, into a throw-away server; Failed where it is not as it was.

    ``images`` has other images by the names of their folders: it is them who are tried then, and what becomes of that is not
    kept. Returns the outcome, as pypi_server/drill.py keeps it.
    """
    server.look()
    name = f"drill-{secrets.token_hex(3)}"
    outcome: Outcome = {}
    world.make_folder(stack.RENDERED)
    with world.exclusive(stack.RENDERED / "drill.lock", "another drill is at work in this folder."):
        sweep(world, settings)
        opened = server.script("drill", {"do": "open", "name": name, "snapshot": snapshot})
        made = throwaway(world, settings, server, name, images)
        try:
            outcome = rehearse(world, settings, server, made, snapshot, -1 if world.dry else opened["live"])
        except (KeyboardInterrupt, Interrupted):
            raise Interrupted("interrupted at: drill", ANEW) from None
        finally:
            with undisturbed("what was made for the drill is removed"):
                discard(world, made)
                server.script("drill", {"do": "close", "name": name, "result": {} if images else outcome})
    if not world.dry:
        tell(world, outcome)
    return outcome


def sweep(world: World, settings: Settings) -> None:
    """Remove what a drill left that was killed: none but this one is at work."""
    begin = f"{settings.project}-drill-"
    found = world.ask(["docker", "compose", "ls", "--all", "--quiet"], check=False).stdout.split()
    for project in (one for one in found if one.startswith(begin)):
        world.run(["docker", "compose", "--project-name", project, "down", "--volumes", "--remove-orphans"])
    for file in stack.RENDERED.glob(f"{begin}*.yaml"):
        world.remove(file)


def discard(world: World, made: Throwaway) -> None:
    """Remove the throw-away server, as far as that goes."""
    try:
        made.discard()
    except Failed as error:
        world.warn(error.what)


def rehearse(world: World, settings: Settings, server: Deployment, made: Throwaway, snapshot: str, live_serial: int) -> Outcome:
    """The drill itself; a failure of it is an outcome too."""
    began, at = time.monotonic(), datetime.datetime.now(datetime.UTC)
    outcome: Outcome = {"snapshot": snapshot, "at": at.isoformat(timespec="seconds"), "passed": False, "findings": []}
    try:
        found = made.script("restore", {"do": "prepare", "snapshot": snapshot})
        made.script("restore", {"do": "switch"})
        made.start()
        deployment.await_health(world, made, TIMEOUT)
        seconds = time.monotonic() - began
        if world.dry:
            return {}
        manifest = server.script("drill", {"do": "manifest", "snapshot": found["name"]})
        outcome |= {
            "snapshot": found["name"], "made": manifest["made"], "recovery_seconds": round(seconds, 1),
            "serials": max(0, live_serial - manifest["serial"]) if live_serial >= 0 else None,
        }  # fmt: skip
        there = made.settings
        live = running(settings, server)
        compared = compare(Served(there.url), manifest, live)
        outcome |= dataclasses.asdict(compared) | {"findings": compared.wrong, "compared_with_live": live is not None}
        del outcome["wrong"]
        install(world, there, made, manifest)
        outcome["passed"] = not compared.wrong
    except Failed as error:
        outcome["findings"] = [*outcome["findings"], error.what]
    return outcome


def running(settings: Settings, server: Deployment) -> Served | None:
    """The live server, if it serves."""
    if server.state().health != "healthy":
        return None
    return Served(smoke.address(settings).removesuffix(f"/{settings.index}"), smoke.certificates(settings))


def canary(manifest: Mapping[str, Any]) -> str:
    """A private wheel of the snapshot that any Python can install; empty for none."""
    mirrors = tuple(f"{one}/" for one in manifest["mirrors"])
    wheels = [path for path in manifest["files"] if path.endswith("-py3-none-any.whl") and is_listed(path)]
    return next((path for path in sorted(wheels) if not path.startswith(mirrors or "\0")), "")


def install(world: World, there: Settings, made: Deployment, manifest: Mapping[str, Any]) -> None:
    """Have pip install a wheel of the snapshot, by its digest; or, of a snapshot without one, what is uploaded for that."""
    if not (path := canary(manifest)):
        if password := rotate.known(there, made, "user"):
            smoke.run(world, there, password)
        else:
            world.warn("pip installed nothing: the snapshot has no package of its own, and a password that is not known here")
        return
    index, file = path.split("/+f/")[0], path.rsplit("/", 1)[1]
    project, version = file.split("-")[:2]
    wanted = f"{project}=={version} --hash=sha256:{manifest['files'][path]}\n"
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        python, requirements = str(Path(folder) / "bin" / "python"), Path(folder) / "requirements.txt"
        world.feed([sys.executable, "-m", "venv", folder], "")
        requirements.write_text(wanted)
        argv = [python, "-m", "pip", "install", "-q", "--no-deps", "--ignore-requires-python", "--require-hashes"]
        argv += ["--index-url", f"{there.url}/{index}/+simple/", "--requirement", str(requirements)]
        world.feed(argv, "", smoke.clean_environment(dict(os.environ)))


def lines(outcome: Outcome) -> Iterator[str]:
    """What was measured, for people."""
    from pypi_tasks.backup import age

    if "recovery_seconds" in outcome:
        behind = "" if outcome["serials"] is None else f", {outcome['serials']:,} commits behind the live data"
        old = age(outcome["made"], datetime.datetime.fromisoformat(outcome["at"]))
        yield f"recovery time {outcome['recovery_seconds']} s; recovery point {old} ago{behind}"
    if "files" in outcome:
        yield f"compared {outcome['files']:,} files and {outcome['pages']:,} pages with the manifest"
    if outcome.get("compared_with_live"):
        yield f"the live server's pages: {outcome['newer']:,} files newer than the snapshot, {outcome['removed']:,} removed since"


def tell(world: World, outcome: Outcome) -> None:
    """Print the outcome; Failed with what was found."""
    for line in lines(outcome):
        world.say(line)
    if outcome["passed"]:
        world.say(f"drill passed: {outcome['snapshot']}")
        return
    findings = outcome["findings"]
    more = [f"and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
    told = "\n  ".join([*findings[:SHOWN], *more])
    whose = outcome["snapshot"] or "the newest snapshot"
    raise Failed(f"the drill of {whose} failed:\n  {told}", fix="inv verify; inv backup --full")
