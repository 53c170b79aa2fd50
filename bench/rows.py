"""The rows: what each measures, of whom, and what it must reach."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench import clients, measure
from bench.contenders import ALL, BARE, LIMIT, OURS, PROXPI, PYPISERVER, Contender
from bench.measure import Bench
from bench.result import AT_LEAST, AT_MOST, Cells, Goal
from pypi_tasks.errors import BadInput

GROWTH = "growth"


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    title: str
    unit: str
    contenders: tuple[Contender, ...]
    goals: tuple[Goal, ...]
    measure: Callable[[Bench, tuple[Contender, ...]], Cells]
    less_is_better: bool = False


ROWS = (
    Row(
        "private-page", "private page, small, 16 connections", "requests/s", (OURS, BARE, PYPISERVER, LIMIT),
        (Goal("x bare", AT_LEAST, 50), Goal("of limit", AT_LEAST, 0.4)), measure.private_page,
    ),
    Row(
        "mirror-page", "boto3's page through the mirror, gzip", "requests/s", (OURS, BARE, PROXPI, LIMIT),
        (Goal("x bare", AT_LEAST, 250), Goal("p99 ms", AT_MOST, 60)), measure.mirror_page,
    ),
    Row(
        "mirror-page-uploads", "the same while one upload a second comes in", "requests/s", (OURS, BARE),
        (Goal("x bare", AT_LEAST, 20),), measure.mirror_page_uploads,
    ),
    Row(
        "small-wheel", "small wheel", "requests/s", ALL,
        (Goal("x bare", AT_LEAST, 60), Goal("of limit", AT_LEAST, 0.7)), measure.small_wheel,
    ),
    Row("large-wheel", "numpy's wheel", "bytes/s", ALL, (Goal("of limit", AT_LEAST, 0.9),), measure.large_wheel),
    Row(
        "install", "warm uv pip install of the 20 projects", "s", ALL,
        (Goal("of limit", AT_MOST, 1.3), Goal("x bare", AT_LEAST, 3)), clients.install, less_is_better=True,
    ),
    Row(
        "install-mirror", "the same through the mirror's pages", "s", (OURS, BARE, PROXPI),
        (Goal("x bare", AT_LEAST, 3),), clients.install_mirrored, less_is_better=True,
    ),
    Row(
        "resolve", "warm backtracking resolve by uv", "s", (OURS, BARE, PROXPI),
        (Goal("x bare", AT_LEAST, 8), Goal("bytes of bare", AT_MOST, 0.05)), clients.resolve, less_is_better=True,
    ),
    Row(
        "uploads", "upload of the 1,000th version", "ms", (OURS, BARE, PYPISERVER),
        (Goal("1000th / 1st", AT_MOST, 2),), clients.uploads, less_is_better=True,
    ),
    Row(
        "memory", "memory of the whole stack, after the run", "MB", ALL,
        (Goal("idle MB", AT_MOST, 250), Goal("bounded", AT_LEAST, 1)), clients.memory, less_is_better=True,
    ),
)  # fmt: skip


def select(only: Iterable[str]) -> tuple[list[Row], bool]:
    """The named rows, all for no name, and whether growth is to be measured; BadInput lists the known ones."""
    wanted = list(only)
    known = [row.name for row in ROWS] + [GROWTH]
    for name in wanted:
        if name not in known:
            raise BadInput(f"{name!r} is not a row of the benchmark.", fix=f"known rows: {', '.join(known)}")
    grows = not wanted or GROWTH in wanted
    if GROWTH in wanted:
        wanted.append("uploads")  # which is itself about how an upload's time grows
    return [row for row in ROWS if not wanted or row.name in wanted], grows
