"""How the rows grow: pages with the versions of a project, everything with the number of connections."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from bench.contenders import ALL, BARE, Contender
from bench.inputs import LARGE, SMALL
from bench.lab import Running
from bench.measure import FILE, GZIP, Bench, attempt, have_site, one_load, tell
from bench.result import Load, shown


@dataclass(frozen=True)
class Point:
    """One measurement: what, of whom, and with how many versions or connections; 0 where that is no matter."""

    row: str
    contender: str
    unit: str
    versions: int
    connections: int
    value: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0


PathOf = Callable[[Running], str]


@dataclass(frozen=True)
class Series:
    """What to grow: a path at each contender that has any there, by its place in the table of contenders."""

    row: str
    path_of: PathOf
    has: Callable[[Contender], str]
    headers: list[str]
    versions: int = 0

    def __str__(self) -> str:
        return f"{self.row}, {self.versions} versions" if self.versions else self.row


def points(bench: Bench, series: Series) -> list[Point]:
    """A point per contender that can, and per number of connections."""
    made = []
    problems: dict[str, str] = {}
    for one in filter(series.has, ALL):
        path = attempt(problems, one, series.path_of, bench.running(one)) or ""
        seconds = bench.method.growth_seconds * (2 if one is BARE else 1)
        for connections in bench.method.connections:
            if load := attempt(problems, one, one_load, bench, one, path, connections, series.headers, seconds):
                made.append(point(series, one, connections, load))
                tell(bench, one, f"{series}, {connections} connections", f"{shown(made[-1].value)} {made[-1].unit}")
        if one.name in problems:
            tell(bench, one, str(series), f"failed: {problems[one.name]}")
    return made


def point(series: Series, contender: Contender, connections: int, load: Load) -> Point:
    """The point of one run of wrk."""
    value, unit = (load.bytes / load.seconds, "bytes/s") if series.row == "large-wheel" else (load.rate, "requests/s")
    versions = series.versions
    return Point(series.row, contender.name, unit, versions, connections, value, load.p50_ms, load.p99_ms, load.errors)


def upload_points(bench: Bench) -> list[Point]:
    """How long an upload takes where the project has so many versions already: the median of some around it."""
    made = []
    for name, took in bench.took.items():
        for count in (1, 3, 10, 30, 100, 300, 1000):
            around = took[max(0, count - 1 - count // 20) : count + count // 20]
            if count <= len(took):
                made.append(Point("uploads", name, "ms", count, 0, 1000 * statistics.median(around)))
    return made


def measure(bench: Bench) -> list[Point]:
    """All points."""
    inputs = bench.inputs
    have_site(bench)
    wanted = [
        Series("private-page", partial(inputs.have_project, versions=count), attrgetter("private"), GZIP, count)
        for count in bench.method.versions
    ]
    wanted.append(Series("mirror-page", partial(inputs.have_mirrored, project="boto3"), attrgetter("mirror"), GZIP))
    wanted += [
        Series(row, partial(inputs.have_wheel, project=project), attrgetter("wheels"), FILE)
        for row, project in (("small-wheel", SMALL), ("large-wheel", LARGE))
    ]
    return [one for series in wanted for one in points(bench, series)] + upload_points(bench)
