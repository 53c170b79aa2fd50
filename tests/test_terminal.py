"""What is printed where nobody watches a terminal: plain text, as it is."""

import pytest

from pypi_tasks import terminal
from tests.test_registry import GOOD


class TestTable:
    def test_is_columns_without_rules(self, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.table("", ["name", "value"], [["one", "1"], ["a longer name", "2"]])
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert lines == ["name           value", "one            1", "a longer name  2"]

    @pytest.mark.parametrize("cell", ["[redacted]", "[::1]:5000", "[fe80::1]:5000", "/srv/[bold]x", "/srv/[/x]", ":smile:"])
    def test_shows_every_cell_as_it_is(self, capsys: pytest.CaptureFixture[str], cell: str) -> None:
        terminal.table("", ["value"], [[cell]])
        assert capsys.readouterr().out.splitlines()[1].strip() == cell


class TestLayers:
    def test_a_finished_layer_is_one_line_and_everything_else_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        with terminal.layers() as show:
            for event in GOOD:
                show(event)
            show({"status": "Pushed", "id": "0123456789ab"})
            show({"status": "Mounted from team/base", "id": "ba9876543210"})
        assert capsys.readouterr().out.splitlines() == [
            "  5f70bf18a086 Layer already exists",
            "  0123456789ab Pushed",
            "  ba9876543210 Mounted from team/base",
        ]


class TestProgress:
    def test_is_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        with terminal.progress("the server"):
            print("work")
        assert capsys.readouterr().out == "work\n"


class TestBars:
    def test_what_is_quick_is_silent(self, capsys: pytest.CaptureFixture[str]) -> None:
        with terminal.bars() as show:
            show({"what": "files", "done": 1, "total": 2})
        assert capsys.readouterr().out == ""

    def test_what_takes_long_has_a_line_soon_and_then_now_and_then(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = iter([0.0, 1.0, 3.0, 12.0, 14.0])
        monkeypatch.setattr("pypi_tasks.terminal.time.monotonic", lambda: next(clock))
        with terminal.bars() as show:
            for done in (1, 2_000, 3_000, 4_000):
                show({"what": "files", "done": done, "total": 5_000})
        assert capsys.readouterr().out == "  files: 2,000 of 5,000\n  files: 4,000 of 5,000\n"

    def test_bytes_are_told_as_people_read_them(self) -> None:
        assert terminal.so_far({"what": "files", "done": 1_500, "total": 2_500_000_000, "bytes": True}) == "2 kB of 2.5 GB"


class TestAlarm:
    def test_is_plain_text_as_it_is(self, capsys: pytest.CaptureFixture[str]) -> None:
        terminal.alarm("backups: [red]TOO OLD[/red] :smile:")
        assert capsys.readouterr().out == "backups: [red]TOO OLD[/red] :smile:\n"
