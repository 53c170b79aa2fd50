"""What was found: cells, ratios, goals and the document. All of it is pure, so that it can be tested without a server."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pypi_tasks.errors import Failed

EXACT, AT_LEAST, AT_MOST = "", ">=", "<="


@dataclass(frozen=True)
class Load:
    """One run of wrk: how much was answered, how fast, and what went wrong."""

    requests: int
    seconds: float
    bytes: int
    refused: int
    broken: int
    late: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def errors(self) -> int:
        """Answers that were none: a status of 400 or more, a broken connection, a minute without an answer."""
        return self.refused + self.broken + self.late


def parse_load(text: str) -> Load:
    """Wrk's report, as report.lua has it print it after wrk's own."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return Load(**json.loads(line))
    raise Failed(f"wrk printed no report: {text.strip()[-300:]}")


@dataclass(frozen=True)
class Cell:
    """What one contender did in one row: the median, and between what the repeats lay."""

    value: float
    low: float
    high: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0
    bytes: float | None = None
    cut_off: bool = False
    problem: str = ""
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether it may be compared: nothing was refused."""
        return not self.problem and not self.errors


def median_cell(values: Sequence[float], **more: Any) -> Cell:
    """The cell of some repeats."""
    return Cell(statistics.median(values), min(values), max(values), **more)


def load_cell(loads: Sequence[Load], by_bytes: bool = False) -> Cell:
    """The cell of some runs of wrk: answers in a second, or bytes in a second."""
    values = [one.bytes / one.seconds if by_bytes else one.rate for one in loads]
    return median_cell(
        values,
        p50_ms=statistics.median(one.p50_ms for one in loads),
        p99_ms=statistics.median(one.p99_ms for one in loads),
        errors=sum(one.errors for one in loads),
        bytes=statistics.median(one.bytes / one.requests if one.requests else 0 for one in loads),
    )


def failed_cell(problem: str) -> Cell:
    """The cell of a contender that could not do it."""
    return Cell(0.0, 0.0, 0.0, problem=" ".join(problem.split())[-300:])


@dataclass(frozen=True)
class Figure:
    """A number made of cells. Where a contender was cut off, the true one is at least, or at most, this."""

    value: float
    bound: str = EXACT


@dataclass(frozen=True)
class Goal:
    """What a figure must reach: at least, or at most, a number."""

    figure: str
    sign: str
    number: float

    def __str__(self) -> str:
        return f"{self.figure} {self.sign} {self.number:g}"


def judge(goal: Goal, figure: Figure | None) -> bool | None:
    """Whether the goal is reached; None where what was measured cannot tell."""
    if figure is None:
        return None
    holds = figure.value >= goal.number if goal.sign == AT_LEAST else figure.value <= goal.number
    if figure.bound == EXACT or (holds and figure.bound == goal.sign) or (not holds and figure.bound != goal.sign):
        return holds
    return None


Cells = dict[str, Cell]


def usable(cells: Cells, name: str) -> Cell | None:
    """A contender's cell, if it is there and sound."""
    cell = cells.get(name)
    return cell if cell and cell.counts else None


def times(cells: Cells, other: str, less_is_better: bool) -> Figure | None:
    """How many times better than another ours is. One that was cut off would have taken longer still."""
    ours, theirs = usable(cells, "ours"), usable(cells, other)
    if not ours or not theirs or ours.cut_off or not ours.value or not theirs.value:
        return None
    ratio = theirs.value / ours.value if less_is_better else ours.value / theirs.value
    return Figure(ratio, AT_LEAST if theirs.cut_off else EXACT)


def of(cells: Cells, other: str, attribute: str = "value") -> Figure | None:
    """What part of another's number ours is. One that was cut off would have come to more."""
    ours, theirs = usable(cells, "ours"), usable(cells, other)
    if not ours or not theirs or ours.cut_off:
        return None
    mine, yours = getattr(ours, attribute), getattr(theirs, attribute)
    return Figure(mine / yours, AT_MOST if theirs.cut_off else EXACT) if mine is not None and yours else None


def figures(cells: Cells, less_is_better: bool) -> dict[str, Figure]:
    """Everything that goals may speak of."""
    found = {
        "x bare": times(cells, "bare", less_is_better),
        "of limit": of(cells, "limit"),
        "bytes of bare": of(cells, "bare", "bytes") if less_is_better else None,
    }
    ours = usable(cells, "ours")
    if ours and ours.p99_ms is not None:
        found["p99 ms"] = Figure(ours.p99_ms)
    for name, value in (ours.extra if ours else {}).items():
        found[name] = Figure(value)
    return {name: figure for name, figure in found.items() if figure}


@dataclass(frozen=True)
class Outcome:
    """A row that was measured."""

    name: str
    title: str
    unit: str
    less_is_better: bool
    goals: tuple[Goal, ...]
    cells: Cells

    def figures(self) -> dict[str, Figure]:
        """The row's ratios."""
        return figures(self.cells, self.less_is_better)

    def verdicts(self) -> list[tuple[Goal, Figure | None, bool | None]]:
        """Each goal, what was found, whether it is reached; ours having failed reaches none."""
        found = self.figures()
        broken = "ours" in self.cells and not self.cells["ours"].counts
        return [(goal, found.get(goal.figure), False if broken else judge(goal, found.get(goal.figure))) for goal in self.goals]


def shown(value: float) -> str:
    """A number with three digits that matter, and thousands as k, M, G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def shown_cell(cell: Cell | None) -> str:
    """A cell of the table."""
    if cell is None:
        return "-"
    if cell.problem:
        return "failed"
    return f"{'> ' if cell.cut_off else ''}{shown(cell.value)}{f' ({cell.errors} errors)' if cell.errors else ''}"


def shown_figure(figure: Figure | None) -> str:
    """A ratio of the table."""
    return f"{figure.bound} {shown(figure.value)}".strip() if figure else "-"


def answer(reached: bool | None) -> str:
    """Yes, no, or neither."""
    return {True: "yes", False: "no", None: "?"}[reached]


def table_rows(outcomes: Iterable[Outcome], contenders: Sequence[str]) -> list[list[str]]:
    """The table's rows: a line per goal, the cells on the first one."""
    rows = []
    for outcome in outcomes:
        found = outcome.figures()
        cells = [shown_cell(outcome.cells.get(name)) for name in contenders]
        ratios = [shown_figure(found.get(name)) for name in ("x bare", "of limit")]
        start = [f"{outcome.title} [{outcome.unit}]", *cells, *ratios]
        for goal, figure, reached in outcome.verdicts():
            rows.append([*start, f"{goal}: {shown_figure(figure)}", answer(reached)])
            start = [""] * len(start)
    return rows
