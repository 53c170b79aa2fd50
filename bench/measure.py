"""How each row is measured. Contenders take turns, each working alone while all others stand still."""

import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from bench.contenders import BARE, LIMIT, Contender
from bench.inputs import LARGE, SMALL, WHEELS, Inputs, lines
from bench.lab import Lab, Running
from bench.result import Cells, Load, failed_cell, load_cell, parse_load, shown
from pypi_tasks.errors import Failed

# What uv asks with; pip's differs in its name alone.
HEADERS = [
    "Accept: application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01",
    "User-Agent: uv/0.13",
]
GZIP = [*HEADERS, "Accept-Encoding: gzip"]
FILE = ["User-Agent: uv/0.13"]


@dataclass(frozen=True)
class Method:
    """How long and how often."""

    seconds: float
    repeats: int
    cutoff: float
    last: int
    versions: tuple[int, ...]
    connections: tuple[int, ...] = (1, 16, 128)
    growth_seconds: float = 2.0


FULL = Method(seconds=4, repeats=3, cutoff=120, last=1000, versions=(10, 100, 1000))
QUICK = Method(seconds=1, repeats=1, cutoff=30, last=100, versions=(10, 100), connections=(1, 16), growth_seconds=1)


@dataclass
class Bench:
    """All that measuring needs."""

    lab: Lab
    inputs: Inputs
    method: Method
    idle: dict[str, int] = field(default_factory=dict)
    took: dict[str, list[float]] = field(default_factory=dict)

    def running(self, contender: Contender) -> Running:
        """A contender's containers."""
        return self.lab.running[contender.name]


Paths = dict[str, str]


def tell(bench: Bench, contender: Contender, what: str, found: str) -> None:
    """A line of progress."""
    bench.lab.world.say(f"  {what}: {contender.title} {found}")


def one_load(bench: Bench, contender: Contender, path: str, connections: int, headers: list[str], seconds: float = 0) -> Load:
    """One run of wrk on a path that has been seen to be whole. What is shorter than its body is no answer."""
    running = bench.running(contender)
    bench.lab.focus(running)
    seen = bench.lab.script(running, "look", {"path": path, "page": headers is not FILE, "wait": 30})
    load = parse_load(bench.lab.load(running, path, connections, seconds or bench.method.seconds, headers))
    if load.requests and load.bytes / load.requests < 0.9 * seen["bytes"]:
        raise Failed(f"{path}: {load.bytes / load.requests:.0f} bytes an answer, expected {seen['bytes']}")
    return load


P = ParamSpec("P")
T = TypeVar("T")


def attempt(
    problems: dict[str, str], contender: Contender, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T | None:
    """What the action returns; where a contender cannot do it, None, and why is kept."""
    if contender.name in problems:
        return None
    try:
        return action(*args, **kwargs)
    except Failed as error:
        problems[contender.name] = error.what
        return None


def loads(
    bench: Bench, contenders: tuple[Contender, ...], what: str, path_of: Callable[[Running], str],
    connections: int, headers: list[str], by_bytes: bool = False, longer: float = 1,
) -> Cells:  # fmt: skip
    """Load on a path of each contender in turn, as often as the method says."""
    problems: dict[str, str] = {}
    paths = {one.name: attempt(problems, one, path_of, bench.running(one)) for one in contenders}
    found: dict[str, list[Load]] = {one.name: [] for one in contenders}
    for _ in range(bench.method.repeats):
        for one in contenders:
            seconds = bench.method.seconds * (longer if one is BARE else 1)
            path = paths[one.name] or ""
            if load := attempt(problems, one, one_load, bench, one, path, connections, headers, seconds):
                found[one.name].append(load)
                speed = f"{shown(load.bytes / load.seconds)}B/s" if by_bytes else f"{shown(load.rate)}/s"
                tell(bench, one, what, f"{speed}, p99 {shown(load.p99_ms)} ms")
    return cells_of(found, problems, by_bytes)


def cells_of(found: dict[str, list[Load]], problems: dict[str, str], by_bytes: bool = False) -> Cells:
    """The cells of all runs of wrk."""
    return {name: failed_cell(problems[name]) if name in problems else load_cell(runs, by_bytes) for name, runs in found.items()}


def private_page(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """The page of a project with ten versions."""
    return loads(bench, contenders, "private page", lambda one: bench.inputs.have_project(one, 10), 16, GZIP)


def mirror_page(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """The largest page that many people ask for."""
    return loads(bench, contenders, "boto3's page", lambda one: bench.inputs.have_mirrored(one, "boto3"), 16, GZIP, longer=3)


def with_uploads(bench: Bench, contender: Contender, number: int) -> tuple[Load, list[float]]:
    """Load on boto3's page while new versions come in, one a second."""
    running = bench.running(contender)
    seconds = max(3.0, 2 * bench.method.seconds)
    job = {
        "path": contender.upload,
        "project": f"pypi-tasks-bench-busy-{number}",
        "last": int(seconds),
        "every": 1.0,
        "login": True,
    }
    path = bench.inputs.have_mirrored(running, "boto3")
    with ThreadPoolExecutor(1) as pool:
        bench.lab.focus(running)
        uploads = pool.submit(bench.lab.script, running, "upload", job)
        load = one_load(bench, contender, path, 16, GZIP, seconds)
        return load, uploads.result()


def mirror_page_uploads(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """Boto3's page while one upload a second comes in; the uploads' own median time is in the document."""
    problems: dict[str, str] = {}
    found: dict[str, list[Load]] = {one.name: [] for one in contenders}
    took: dict[str, list[float]] = {one.name: [] for one in contenders}
    for number in range(min(2, bench.method.repeats)):
        for one in contenders:
            if outcome := attempt(problems, one, with_uploads, bench, one, number):
                found[one.name].append(outcome[0])
                took[one.name] += outcome[1]
                tell(bench, one, "boto3's page during uploads", f"{shown(outcome[0].rate)}/s, p99 {shown(outcome[0].p99_ms)} ms")
    cells = cells_of(found, problems)
    for name, cell in cells.items():
        if not cell.problem:
            cell.extra["upload ms"] = 1000 * statistics.median(took[name])
    return cells


def small_wheel(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """A file of some kilobytes."""
    have_site(bench)
    return loads(bench, contenders, "small wheel", lambda one: bench.inputs.have_wheel(one, SMALL), 16, FILE)


def large_wheel(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """A file of some megabytes, four at a time."""
    have_site(bench)
    return loads(bench, contenders, "numpy's wheel", lambda one: bench.inputs.have_wheel(one, LARGE), 4, FILE, by_bytes=True)


def have_site(bench: Bench) -> None:
    """Have the real wheels and their pages at the limit."""
    projects = dict.fromkeys(pin.partition("==")[0] for pin in lines(WHEELS))
    bench.inputs.publish([f"{LIMIT.wheels}{name}/" for name in projects], files=True)
