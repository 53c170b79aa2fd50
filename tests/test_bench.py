"""The parts of the benchmark that need no server: reports, ratios, goals, the table, and the document as it is documented."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from bench import growth, rows
from bench.contenders import ALL, FOLDER
from bench.document import document, locked
from bench.growth import Point
from bench.inputs import WHEELS, file_of, lines, rounds
from bench.lab import usage
from bench.measure import FULL, QUICK, Bench
from bench.result import (
    AT_LEAST,
    AT_MOST,
    Cell,
    Figure,
    Goal,
    Load,
    Outcome,
    failed_cell,
    judge,
    load_cell,
    parse_load,
    table_rows,
)
from bench.suite import run
from pypi_tasks.errors import BadInput, Failed
from pypi_tasks.settings import ROOT
from pypi_tasks.world import World
from tests.helpers import settings_of, told

REPORT = """Running 1s test @ http://127.0.0.1:3141/pypi/stable/+simple/six/
  2 threads and 16 connections
Requests/sec:  26500.12
{"requests": 26500, "seconds": 1.0, "bytes": 53000000, "refused": 2, "broken": 1, "late": 0, "p50_ms": 0.51, "p99_ms": 7.49}
"""


def load(rate: float, p99_ms: float = 1, errors: int = 0) -> Load:
    return Load(int(rate), 1.0, int(rate) * 100, errors, 0, 0, p99_ms / 2, p99_ms)


def cell(value: float, **more: Any) -> Cell:
    return Cell(value, value, value, **more)


def outcome(ours: Cell, bare: Cell, limit: Cell | None = None, less: bool = False, goals: tuple[Goal, ...] = ()) -> Outcome:
    cells = {"ours": ours, "bare": bare} | ({"limit": limit} if limit else {})
    return Outcome("row", "a row", "requests/s", less, goals, cells)


def test_wrks_report_is_read_and_what_was_no_answer_is_counted() -> None:
    found = parse_load(REPORT)
    assert (found.rate, found.errors, found.p99_ms) == (26500, 3, 7.49)
    with pytest.raises(Failed, match="unable to connect"):
        parse_load("unable to connect to 127.0.0.1:3141 Connection refused")


def test_a_cell_is_the_median_of_its_repeats_and_keeps_their_spread_and_errors() -> None:
    found = load_cell([load(100, 9), load(300, 5), load(200, 7, errors=1)])
    assert (found.value, found.low, found.high, found.p99_ms, found.errors) == (200, 100, 300, 7, 1)
    assert load_cell([load(100)], by_bytes=True).value == 10000


@pytest.mark.parametrize(
    ("goal", "figure", "reached"),
    [
        (Goal("x", AT_LEAST, 8), Figure(9), True),
        (Goal("x", AT_LEAST, 8), Figure(7), False),
        (Goal("x", AT_MOST, 8), Figure(8), True),
        (Goal("x", AT_LEAST, 8), Figure(9, AT_LEAST), True),
        (Goal("x", AT_LEAST, 8), Figure(7, AT_LEAST), None),
        (Goal("x", AT_MOST, 8), Figure(7, AT_LEAST), None),
        (Goal("x", AT_MOST, 8), Figure(9, AT_LEAST), False),
        (Goal("x", AT_MOST, 0.05), Figure(0.04, AT_MOST), True),
        (Goal("x", AT_MOST, 0.05), Figure(0.06, AT_MOST), None),
        (Goal("x", AT_LEAST, 8), None, None),
    ],
)
def test_a_bound_reaches_or_misses_a_goal_only_where_the_true_number_must(
    goal: Goal, figure: Figure | None, reached: bool | None
) -> None:
    assert judge(goal, figure) is reached


def test_rates_and_times_both_say_how_many_times_better_ours_is() -> None:
    rates = outcome(cell(100), cell(4), cell(200)).figures()
    assert (rates["x bare"], rates["of limit"]) == (Figure(25), Figure(0.5))
    times = outcome(cell(2), cell(10), cell(1.6), less=True).figures()
    assert (times["x bare"], times["of limit"]) == (Figure(5), Figure(1.25))


def test_a_contender_that_was_cut_off_gives_bounds() -> None:
    found = outcome(cell(10, bytes=1e6), cell(120, bytes=1e8, cut_off=True), less=True).figures()
    assert found["x bare"] == Figure(12, AT_LEAST)
    assert found["bytes of bare"] == Figure(0.01, AT_MOST)


def test_ours_cut_off_or_refused_reaches_no_goal() -> None:
    goals = (Goal("x bare", AT_LEAST, 2),)
    cut = outcome(cell(120, cut_off=True), cell(120, cut_off=True), less=True, goals=goals)
    assert [reached for _, _, reached in cut.verdicts()] == [None]
    for ours in (failed_cell("404"), cell(900, errors=3)):
        assert [reached for _, _, reached in outcome(ours, cell(1), goals=goals).verdicts()] == [False]


def test_a_contender_with_errors_is_shown_with_them_and_compared_with_nothing() -> None:
    bad = outcome(cell(26500), cell(430, errors=7), goals=(Goal("x bare", AT_LEAST, 50),))
    shown = table_rows([bad], ["ours", "bare", "proxpi"])
    assert shown == [["a row [requests/s]", "26.5k", "430 (7 errors)", "-", "-", "-", "x bare >= 50: -", "?"]]


def test_the_table_has_a_line_for_each_goal() -> None:
    goals = (Goal("x bare", AT_LEAST, 8), Goal("bytes of bare", AT_MOST, 0.05))
    found = outcome(cell(10, bytes=1e6), cell(120, bytes=1e8, cut_off=True), less=True, goals=goals)
    first, second = table_rows([found], ["ours", "bare"])
    assert first == ["a row [requests/s]", "10", "> 120", ">= 12", "-", "x bare >= 8: >= 12", "yes"]
    assert second == ["", "", "", "", "", "bytes of bare <= 0.05: <= 0.01", "yes"]


@pytest.mark.parametrize(
    ("line", "share", "size"),
    [("0.15% 84.3MiB / 1GiB", 0.15, 84.3 * 2**20), ("101.20% 1.5GiB / 22GiB", 101.2, 1.5 * 2**30), ("0.00% 0B / 0B", 0, 0)],
)
def test_memory_is_read_as_docker_writes_it(line: str, share: float, size: float) -> None:
    assert usage(line) == (share, int(size))


def test_the_input_is_75_wheels_of_20_projects_in_lists_that_pip_takes() -> None:
    pins = lines(WHEELS)
    first, *others = rounds(pins)
    assert len(pins) == len(set(pins)) == 75 and len(first) == 20
    assert sorted(pin for one in (first, *others) for pin in one) == sorted(pins)
    for one in others:
        assert len({pin.partition("==")[0] for pin in one}) == len(one)


def test_a_wheel_is_found_by_its_pin_however_its_name_is_spelt(tmp_path: Path) -> None:
    for name in ("PyYAML-6.0.3-cp313-cp313-manylinux1_x86_64.whl", "markdown_it_py-4.0.0-py3-none-any.whl"):
        (tmp_path / name).touch()
    assert file_of(tmp_path, "pyyaml==6.0.3").startswith("PyYAML-")
    assert file_of(tmp_path, "markdown-it-py==4.0.0").startswith("markdown_it_py-")
    assert file_of(tmp_path, "pyyaml==6.0.2") == file_of(tmp_path, "markdown==4.0.0") == ""


def test_an_unknown_row_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        run(World(dry=True), settings_of(tmp_path), only=["private-pages"])
    assert "'private-pages'" in told(caught) and "private-page, mirror-page" in told(caught) and "growth" in told(caught)


def test_dry_says_what_would_be_measured_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no docker there
    run(World(dry=True), settings_of(tmp_path), only=["install"], out=str(tmp_path / "out" / "found.json"))
    shown = capsys.readouterr().out
    assert "would: measure warm uv pip install" in shown and "small wheel" not in shown and "growth" not in shown
    assert not (tmp_path / "out").exists()


def test_every_row_compares_ours_and_its_goals_speak_of_figures_that_there_are() -> None:
    figures = {"x bare", "of limit", "bytes of bare", "p99 ms", "1000th / 1st", "idle MB", "bounded"}
    assert len({row.name for row in rows.ROWS}) == len(rows.ROWS)
    for row in rows.ROWS:
        assert row.contenders[0].name == "ours" and row.goals
        assert {goal.figure for goal in row.goals} <= figures


def test_lock_files_of_contenders_have_hashes_and_no_address() -> None:
    for file in FOLDER.glob("*/requirements.txt"):
        text = file.read_text()
        pins = re.findall(r"(?m)^[A-Za-z0-9_.-]+==", text)
        assert len(pins) <= text.count("--hash=sha256:") and "://" not in text and "index-url" not in text
    assert locked("uv", (FOLDER / "client" / "requirements.txt").read_text())


def test_an_uploads_curve_is_made_of_what_each_upload_took(tmp_path: Path) -> None:
    bench = Bench.__new__(Bench)
    bench.took = {"ours": [0.04] * 99 + [0.05] * 12}
    found = {point.versions: point.value for point in growth.upload_points(bench)}
    assert found == {1: 40, 3: 40, 10: 40, 30: 40, 100: 50}


def flatten(value: Any, path: str = "") -> set[str]:
    """The paths of all fields of a JSON value, names that vary with the contender or the figure as *."""
    if isinstance(value, dict):
        parts = (
            ("*" if path in ("versions", "rows[].cells", "rows[].figures", "rows[].cells.*.extra") else key, one)
            for key, one in value.items()
        )
        return set().union(*(flatten(one, f"{path}.{key}".lstrip(".")) for key, one in parts))
    if isinstance(value, list | tuple) and value and not path.startswith("method."):
        return set().union(*(flatten(one, f"{path}[]") for one in value))
    return {path}


def test_the_document_has_the_documented_fields_and_no_others(tmp_path: Path) -> None:
    wheel = tmp_path / "six-1.17.0-py2.py3-none-any.whl"
    wheel.write_bytes(b"six")
    found = outcome(
        cell(10, bytes=1.0, extra={"again s": 3}), cell(120, bytes=2.0), less=True, goals=(Goal("x bare", AT_LEAST, 8),)
    )
    point = Point("private-page", "ours", "requests/s", 10, 16, 26500, 0.5, 7.5)
    made = document(World(), FULL, [wheel], "1.28.0", [found], [point])
    schema = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8").partition("## The document")[2].partition("\n## ")[0]
    assert flatten(made) == set(re.findall(r"(?m)^\| `([^`]+)` \|", schema))
    assert made["schema"] == 1 and made["input"]["wheels"] == 1
    assert dataclasses.asdict(QUICK).keys() == made["method"].keys()


def test_the_documentation_names_every_row_and_contender() -> None:
    text = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    for name in [*(row.name for row in rows.ROWS), rows.GROWTH]:
        assert f"`{name}`" in text, name
    for one in ALL:
        assert one.title in text


def test_growth_takes_the_row_along_that_is_about_it() -> None:
    chosen, grows = rows.select([rows.GROWTH])
    assert grows and [row.name for row in chosen] == ["uploads"]
    assert rows.select(["install"])[1] is False
    assert rows.select([]) == (list(rows.ROWS), True)
