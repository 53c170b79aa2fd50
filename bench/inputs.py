"""The input: real wheels from PyPI, projects of our own with many versions, and for the limit what our stack serves."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.contenders import HERE, LIMIT, OURS
from bench.lab import Lab, Running
from pypi_tasks.errors import Failed

WHEELS = HERE / "wheels.txt"
SMALL, LARGE = "six", "numpy"


def lines(path: Path) -> list[str]:
    """The lines of a list, without its comments."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def rounds(pins: Iterable[str]) -> list[list[str]]:
    """Pins of many versions in lists with one version of each project, as pip takes them; the newest come first."""
    by_project: dict[str, list[str]] = {}
    for pin in pins:
        by_project.setdefault(pin.partition("==")[0], []).append(pin)
    columns = itertools.zip_longest(*by_project.values())
    return [[pin for pin in column if pin] for column in columns]


def file_of(cache: Path, pin: str) -> str:
    """The name of the wheel of one pin in the cache; empty where it is not there."""
    name, _, version = pin.partition("==")
    found = sorted(cache.glob(f"*-{version}-*.whl"))
    return next((one.name for one in found if one.name.split("-")[0].lower().replace("_", "-") == name.replace(".", "-")), "")


def download(lab: Lab, image: str) -> list[Path]:
    """The real wheels, fetched by pip into the cache where they are not there yet."""
    pins = lines(WHEELS)
    missing = [pin for pin in pins if not file_of(lab.cache, pin)]
    for wanted in rounds(missing):
        mount = ["--mount", f"type=bind,source={lab.cache},target=/cache"]
        argv = ["docker", "run", "--rm", *lab.labels(), *lab.trust(), *mount, image]
        argv += [
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            "/cache",
        ]
        lab.world.feed([*argv, *wanted], "")
    files = [lab.cache / file_of(lab.cache, pin) for pin in pins]
    if lost := [pin for pin, file in zip(pins, files, strict=True) if not file.is_file()]:
        raise Failed(f"pip fetched no wheel of {', '.join(lost)}.", fix="bench/wheels.txt names what PyPI has for this machine")
    return files


def digest(files: Sequence[Path]) -> str:
    """One digest of all the input, so that two documents can be told to be about the same."""
    made = hashlib.sha256()
    for file in sorted(files, key=lambda one: one.name):
        made.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return made.hexdigest()


def project_of(versions: int) -> str:
    """The name of the project of our own that has so many versions."""
    return f"pypi-tasks-bench-{versions}"


@dataclass
class Inputs:
    """Brings to each contender what a row needs, once."""

    lab: Lab
    files: list[Path]
    filled: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    published: set[str] = field(default_factory=set)

    def fill_wheels(self, running: Running) -> None:
        """Upload the real wheels."""
        self.lab.focus(running)
        mounted = [f"/wheels/{file.name}" for file in self.files]
        job = {"path": running.contender.upload_wheels, "files": mounted, "login": running.contender.login, "token": True}
        self.lab.script(running, "upload", job)

    def fill(self, running: Running, versions: int, token: bool = True, until: float = 3600, project: str = "") -> list[float]:
        """Have a project with so many versions; the seconds that each upload took."""
        project = project or project_of(versions)
        key = (running.contender.name, project)
        if key not in self.filled:
            self.lab.world.announce(f"upload {versions} versions of one project to {running.contender.title}")
            self.lab.focus(running)
            job = {"path": running.contender.upload, "project": project, "last": versions, "until": until}
            self.filled[key] = self.lab.script(
                running, "upload", {**job, "login": running.contender.login, "token": token and running.contender.login}
            )
            self.lab.settle(running)
        return self.filled[key]

    def publish(self, pages: Sequence[str], files: bool = False) -> None:
        """Give the limit what our stack serves under these paths now."""
        fresh = [page for page in pages if page not in self.published]
        if fresh:
            ours = self.lab.running[OURS.name]
            self.lab.focus(ours)
            self.lab.script(ours, "copy_site", {"pages": fresh, "files": files})
            self.published.update(fresh)

    def have_project(self, running: Running, versions: int) -> str:
        """The path of the page of a project with so many versions, which is there now."""
        path = f"{running.contender.private}{project_of(versions)}/"
        if running.contender is LIMIT:
            self.fill(self.lab.running[OURS.name], versions)
            self.publish([path])
        else:
            self.fill(running, versions)
        return path

    def have_mirrored(self, running: Running, project: str) -> str:
        """The path of a page of PyPI."""
        path = f"{running.contender.mirror}{project}/"
        if running.contender is LIMIT:
            self.publish([path])
        return path

    def have_wheel(self, running: Running, project: str) -> str:
        """The path of the newest wheel of a project."""
        pin = next(one for one in lines(WHEELS) if one.startswith(f"{project}=="))
        job = {"path": f"{running.contender.wheels}{project}/", "file": file_of(self.lab.cache, pin), "wait": 60}
        self.lab.focus(running)
        found: str = self.lab.script(running, "look", job)["path"]
        return found
