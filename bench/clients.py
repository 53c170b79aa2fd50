"""The rows that a real client takes: uv installs, pip resolves, uploads come in; and what memory all of it took."""

import statistics
from typing import Any

from bench.contenders import BARE, PORT, Contender
from bench.inputs import WHEELS, lines, project_of
from bench.measure import Bench, attempt, have_site, tell
from bench.result import Cell, Cells, failed_cell, median_cell, shown
from pypi_tasks.errors import Failed

UV = ["uv", "pip", "install", "--no-cache", "--quiet", "--python", "/opt/client/bin/python", "--target", "/target/site"]
PIP = ["pip", "install", "--no-cache-dir", "--quiet", "--dry-run", "--ignore-installed", "--only-binary", ":all:"]
# contenders/client/resolve.txt says why these make a resolver walk back.
TOGETHER = ["--constraint", "/opt/bench/resolve.txt", "pandas", "celery", "boto3<1.11", "docutils>=0.16"]


def newest() -> list[str]:
    """The newest pin of each project."""
    pins: dict[str, str] = {}
    for pin in lines(WHEELS):
        pins.setdefault(pin.partition("==")[0], pin)
    return list(pins.values())


def command(bench: Bench, contender: Contender, argv: list[str], until: float) -> dict[str, Any]:
    """One timed command in a contender's client."""
    running = bench.running(contender)
    bench.lab.focus(running)
    outcome: dict[str, Any] = bench.lab.script(running, "timed", {"argv": argv, "until": until})
    if outcome["code"]:
        raise Failed(outcome["said"])
    return outcome


def commands(outcomes: list[dict[str, Any]], extra: dict[str, float] | None = None) -> Cell:
    """The cell of some timed commands."""
    passed = statistics.median(one["bytes"] for one in outcomes)
    cut_off = any(one["cut_off"] for one in outcomes)
    return median_cell([one["seconds"] for one in outcomes], bytes=passed, cut_off=cut_off, extra={} if extra is None else extra)


def install(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """Install the newest of all projects from the index that they were uploaded to."""
    have_site(bench)
    return install_from(bench, {one: one.wheels for one in contenders})


def install_mirrored(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """Install the same through the mirror, with the pages that PyPI has of them: as a team's colleagues do."""
    return install_from(bench, {one: one.mirror for one in contenders})


def install_from(bench: Bench, indexes: dict[Contender, str]) -> Cells:
    """Install with uv into memory, without a cache; the first time does not count."""
    problems: dict[str, str] = {}
    found: dict[str, list[dict[str, Any]]] = {one.name: [] for one in indexes}
    for number in range(bench.method.repeats + 1):
        for one, index in indexes.items():
            argv = [*UV, "--default-index", f"http://127.0.0.1:{PORT}{index}", *newest()]
            outcome = attempt(problems, one, command, bench, one, argv, 300)
            if outcome and number:
                found[one.name].append(outcome)
                tell(bench, one, "install", f"{outcome['seconds']:.2f} s, {shown(outcome['bytes'])}B")
    return {name: failed_cell(problems[name]) if name in problems else commands(runs) for name, runs in found.items()}


def resolution(bench: Bench, contender: Contender, argv: list[str]) -> dict[str, Any]:
    """One resolve, told before and after: it may take a while."""
    bench.lab.world.announce(f"resolve by {argv[0]} through {contender.title}, {bench.method.cutoff:.0f} s at most")
    found = command(bench, contender, argv, bench.method.cutoff)
    how = "cut off at " if found["cut_off"] else ""
    tell(bench, contender, "resolve", f"{how}{found['seconds']:.2f} s, {shown(found['bytes'])}B")
    return found


def resolve_at(bench: Bench, contender: Contender) -> Cell:
    """Resolve with uv what makes it walk back. The second time counts: the first one is spent on the way to PyPI.

    Then the same with pip, which the goals do not speak of, unless uv alone took too long already.
    """
    address = f"http://127.0.0.1:{PORT}{contender.mirror}"
    uv = [*UV, "--dry-run", "--only-binary", ":all:", "--default-index", address, *TOGETHER]
    first, second = resolution(bench, contender, uv), resolution(bench, contender, uv)
    extra = {"first s": first["seconds"], "first bytes": first["bytes"]}
    if not second["cut_off"]:
        by_pip = resolution(bench, contender, [*PIP, "--index-url", address, *TOGETHER])
        extra |= {"pip s": by_pip["seconds"], "pip bytes": by_pip["bytes"]}
    return commands([second], extra)


def resolve(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """A backtracking resolve."""
    problems: dict[str, str] = {}
    return {one.name: attempt(problems, one, resolve_at, bench, one) or failed_cell(problems[one.name]) for one in contenders}


def upload_all(bench: Bench, contender: Contender, until: float) -> list[float]:
    """The seconds of each upload. A project that was filled beforehand, by other means, is left alone."""
    project = project_of(bench.method.last)
    if (contender.name, project) in bench.inputs.filled:
        project += "-again"
    return bench.inputs.fill(bench.running(contender), bench.method.last, False, until, project)


def uploads(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """Upload version after version of one project, with its password each time as twine does."""
    problems: dict[str, str] = {}
    cells = {}
    last = bench.method.last
    for one in contenders:
        until = bench.method.cutoff * (1 if one is BARE else 5)
        took = attempt(problems, one, upload_all, bench, one, until)
        if not took:
            cells[one.name] = failed_cell(problems[one.name])
            continue
        bench.took[one.name] = took
        first, final = (1000 * statistics.median(part) for part in (took[:10], took[-10:]))
        extra = {"first ms": first, "versions": float(len(took))}
        if len(took) >= 100:
            extra["100th / 1st"] = 1000 * statistics.median(took[95:105]) / first
        if len(took) >= 1000:
            extra["1000th / 1st"] = final / first
        cells[one.name] = Cell(final, min(took) * 1000, max(took) * 1000, cut_off=len(took) < last, extra=extra)
        tell(bench, one, "uploads", f"{first:.0f} ms at first, {final:.0f} ms at the {len(took)}th")
    return cells


def memory(bench: Bench, contenders: tuple[Contender, ...]) -> Cells:
    """Memory now, and what it was when nothing had been asked of the stack yet."""
    cells = {}
    for one in contenders:
        running = bench.running(one)
        bench.lab.focus(running)
        bench.lab.settle(running, 60)
        now, idle = bench.lab.stats(running)[1] / 1e6, bench.idle.get(one.name, 0) / 1e6
        extra = {"idle MB": idle, "bounded": float(bench.lab.is_bounded(running))}
        cells[one.name] = Cell(now, now, now, extra=extra)
        tell(bench, one, "memory", f"{idle:.0f} MB idle, {now:.0f} MB after the run")
    return cells
