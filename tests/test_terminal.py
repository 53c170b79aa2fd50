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
