"""Versions are compared as numbers, and what is missing or too old is told with how to get it. Real engines: tests/docker/."""

from pathlib import Path

import pytest

from pypi_tasks import engine
from pypi_tasks.engine import Endpoint
from pypi_tasks.errors import NotReady
from pypi_tasks.world import World
from tests.helpers import told


class TestNumbers:
    @pytest.mark.parametrize(
        ("version", "found"),
        [
            ("25.0.3", (25, 0, 3)),
            ("28.5.2+dfsg4", (28, 5, 2)),
            ("v2.20.2", (2, 20, 2)),
            ("0.13.1-desktop.1", (0, 13, 1)),
            ("27.0.0-rc.1", (27, 0, 0)),
            ("unknown", ()),
            ("", ()),
        ],
    )
    def test_are_the_leading_ones(self, version: str, found: tuple[int, ...]) -> None:
        assert engine.numbers(version) == found

    @pytest.mark.parametrize(("older", "newer"), [("2.9", "2.20.2"), ("9.0", "25.0"), ("2.20.1", "2.20.2"), ("0.10", "0.10.1")])
    def test_are_compared_as_numbers(self, older: str, newer: str) -> None:
        assert engine.numbers(older) < engine.numbers(newer)

    def test_every_part_has_a_minimum_a_command_and_a_fix(self) -> None:
        assert set(engine.MINIMUMS) == set(engine.VERSION_COMMANDS) == set(engine.FIXES) == {"engine", "compose", "buildx"}


class TestVersion:
    """The output of a version command, judged."""

    @pytest.fixture
    def says(self, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        monkeypatch.setattr(engine, "VERSION_COMMANDS", {})
        return monkeypatch

    @pytest.mark.parametrize(
        ("part", "output", "version"),
        [
            ("engine", "25.0", "25.0"),
            ("engine", "28.5.2+dfsg4", "28.5.2+dfsg4"),
            ("compose", "v2.20.2", "2.20.2"),
            ("compose", "2.26.1-4", "2.26.1-4"),
            ("buildx", "github.com/docker/buildx v0.13.1 788433953af1", "0.13.1"),
        ],
    )
    def test_new_enough_is_what_it_says(self, says: pytest.MonkeyPatch, part: str, output: str, version: str) -> None:
        says.setitem(engine.VERSION_COMMANDS, part, ["echo", output])
        assert engine.version(World(), part) == version

    @pytest.mark.parametrize(
        ("part", "output"), [("engine", "24.0.7"), ("compose", "2.9.0"), ("buildx", "buildx v0.9.1 ed00243")]
    )
    def test_too_old_is_told_with_both_versions(self, says: pytest.MonkeyPatch, part: str, output: str) -> None:
        says.setitem(engine.VERSION_COMMANDS, part, ["echo", output])
        with pytest.raises(NotReady) as caught:
            engine.version(World(), part)
        found = next(word.lstrip("v") for word in output.split() if "." in word)
        assert f"Docker {part}: expected at least {engine.MINIMUMS[part]}, found {found}." in told(caught)
        assert f"update Docker {part}" in told(caught)
        assert caught.value.code == 3

    def test_no_answer_is_told_in_the_first_line_of_what_was_said(self, says: pytest.MonkeyPatch) -> None:
        says.setitem(engine.VERSION_COMMANDS, "engine", ["sh", "-c", "printf 'Cannot connect\\nIs it running?\\n' >&2; exit 1"])
        with pytest.raises(NotReady) as caught:
            engine.version(World(), "engine")
        assert "Docker engine does not answer: Cannot connect\n" in told(caught)
        assert "inv up --env local" in told(caught)

    def test_nothing_at_all_is_told_too(self, says: pytest.MonkeyPatch) -> None:
        says.setitem(engine.VERSION_COMMANDS, "compose", ["true"])
        with pytest.raises(NotReady, match="no output"):
            engine.version(World(), "compose")

    def test_what_is_required_stops_the_task_but_not_a_dry_run(
        self, says: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        says.setitem(engine.VERSION_COMMANDS, "engine", ["echo", "24.0.7"])
        with pytest.raises(NotReady):
            engine.require(World(), "engine")
        engine.require(World(dry=True), "engine")
        assert "would stop here. Docker engine: expected at least 25.0, found 24.0.7." in capsys.readouterr().err


class TestEndpoint:
    @pytest.mark.parametrize(
        ("host", "is_here"),
        [
            ("unix:///var/run/docker.sock", True),
            ("unix:///run/user/1000/docker.sock", True),
            ("npipe:////./pipe/docker_engine", True),
            ("tcp://10.0.0.7:2376", False),
            ("ssh://me@build.example", False),
        ],
    )
    def test_shares_this_machines_files_or_not(self, host: str, is_here: bool) -> None:
        assert Endpoint(host).is_here is is_here

    def test_has_a_client_certificate_only_where_there_is_a_pair(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("x")
        assert not engine.tls_config(tmp_path).cert
        for name in ("cert.pem", "key.pem"):
            (tmp_path / name).write_text("x")
        assert engine.tls_config(tmp_path).cert == (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
