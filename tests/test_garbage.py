"""What `inv gc` finds, what it leaves alone, and that nothing goes without a Yes. Containers and images: tests/docker/."""

import io
import re
from pathlib import Path

import pytest

from pypi_tasks import garbage, native
from pypi_tasks.errors import BadInput
from pypi_tasks.image import Image
from pypi_tasks.settings import ROOT, Settings
from pypi_tasks.terminal import human
from pypi_tasks.world import World
from tests.helpers import settings_of, told

OURS = Image("pypi_server", ROOT / "pypi_server")


@pytest.fixture
def commands() -> list[str]:
    return garbage.instructions((OURS.folder / "Dockerfile").read_text(encoding="utf-8"))


class TestBuildCache:
    """A record of the build cache has no label: it is told by its description."""

    @pytest.mark.parametrize("name", ["pypi_proxy", "pypi_server"])
    def test_every_run_instruction_of_our_dockerfiles_is_known(self, name: str) -> None:
        text = (ROOT / name / "Dockerfile").read_text(encoding="utf-8")
        assert len(garbage.instructions(text)) == len(re.findall(r"^RUN ", text, re.MULTILINE)) > 0

    def test_every_stage_of_our_dockerfiles_carries_the_name(self) -> None:
        for name in ("pypi_proxy", "pypi_server"):
            text = (ROOT / name / "Dockerfile").read_text(encoding="utf-8")
            stages = re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)
            assert len(stages) == len(re.findall(r"^FROM ", text, re.MULTILINE)) > 1
            assert stages[-1] == name
            assert all(garbage.is_ours(f"[{stage} 1/2] COPY a b", Image(name, ROOT / name), []) for stage in stages)

    def test_a_command_is_one_line_without_flags_of_the_instruction(self, commands: list[str]) -> None:
        for command in commands:
            assert "\n" not in command
            assert "  " not in command
            assert "\\ " not in command
            assert not command.startswith("--")
        assert any("pip" in command and "--require-hashes" in command for command in commands)

    def test_an_instruction_over_several_lines_is_joined(self) -> None:
        text = "FROM a\nRUN --mount=type=secret,id=x --network=none \\\n    one \\\n    # why\n    && two\nCOPY a b\nRUN three\n"
        assert garbage.instructions(text.replace("    # why\n", "# why\n")) == ["one && two", "three"]

    def test_a_stage_that_carries_the_name_is_ours(self, commands: list[str]) -> None:
        assert garbage.is_ours("[pypi_server-libraries 2/5] COPY requirements.txt /build/", OURS, commands)
        assert garbage.is_ours("[pypi_server 1/3] COPY --from=pypi_server-base / /", OURS, commands)

    def test_a_command_of_the_dockerfile_is_ours(self, commands: list[str]) -> None:
        for command in commands:
            assert garbage.is_ours(f"mount / from exec /bin/sh -c {command}", OURS, commands)

    def test_blanks_make_no_difference(self, commands: list[str]) -> None:
        spaced = commands[0].replace(" && ", "     && ")
        assert garbage.is_ours(f"mount / from exec /bin/sh -c {spaced}", OURS, commands)

    @pytest.mark.parametrize(
        "description",
        [
            "",
            "local source for context",
            "[other 1/2] FROM python:3.13-slim-trixie",
            "[pypi_server2 2/5] COPY requirements.txt /build/",
            "[my-pypi_server 2/5] RUN make",
            "[pypi_proxy-config 2/3] COPY nginx.conf /opt/pypi_proxy/",
            "mount / from exec /bin/sh -c make",
            "pulled from registry.example.org/python:3.13-slim-trixie",
        ],
    )
    def test_what_another_project_made_is_not(self, commands: list[str], description: str) -> None:
        assert not garbage.is_ours(description, OURS, commands)


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "count"),
        [
            ("0B", 0), ("512B", 512), ("1.5kB", 1500), ("1.5KB", 1500), ("61.2MB", 61_200_000), ("2GB", 2_000_000_000),
            ("1.25TB", 1_250_000_000_000), (" 3 MB ", 3_000_000), ("", 0), ("N/A", 0),
        ],
    )  # fmt: skip
    def test_dockers_are_read(self, text: str, count: int) -> None:
        assert garbage.size(text) == count

    @pytest.mark.parametrize(
        ("count", "text"),
        [(0, "0 B"), (999, "999 B"), (1500, "2 kB"), (61_200_000, "61 MB"), (1_250_000_000, "1.2 GB"), (5e12, "5000.0 GB")],
    )
    def test_are_for_people(self, count: float, text: str) -> None:
        assert human(count) == text

    def test_of_a_folder_is_what_its_files_hold(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        (tmp_path / "one").write_bytes(b"x" * 100)
        (tmp_path / "deep" / "two").write_bytes(b"x" * 23)
        (tmp_path / "link").symlink_to(tmp_path / "one")
        assert garbage.disk_use(tmp_path) == 123
        assert garbage.disk_use(tmp_path / "one") == 100
        assert garbage.disk_use(tmp_path / "nothing") == 0


class TestNativeServer:
    """The whole of `inv gc --env local`, on folders of the test's own."""

    @pytest.fixture
    def settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
        monkeypatch.setattr(native, "ENVIRONMENTS", tmp_path / "venvs")
        for name in ("venvs/devpi-0123/bin/python", "venvs/other/file", "devpi/devpi.log", "devpi/devpi.settings"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("x" * 10)
        (tmp_path / "devpi" / "server").mkdir()
        (tmp_path / "devpi" / "server" / "package.whl").write_text("x")
        return settings_of(tmp_path)

    def collect(self, settings: Settings, yes: bool = False, data: bool = False, dry: bool = False) -> None:
        world = World(dry=dry)
        garbage.collect(world, settings, native.Server(world, settings), yes, data)

    def files(self, settings: Settings) -> set[str]:
        root = settings.devpi_home.parent
        return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and file.name != ".env"}

    @pytest.fixture
    def type_in(self, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        return monkeypatch

    ALL = {
        "venvs/devpi-0123/bin/python", "venvs/other/file", "devpi/devpi.log", "devpi/devpi.settings",
        "devpi/server/package.whl",
    }  # fmt: skip

    def test_takes_its_environments_and_logs_and_leaves_packages(self, settings: Settings) -> None:
        self.collect(settings, yes=True)
        assert self.files(settings) == {"venvs/other/file", "devpi/server/package.whl"}

    def test_shows_what_goes_and_how_much_it_frees(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        self.collect(settings, yes=True)
        shown = capsys.readouterr().out
        assert "3 to remove, 30 B. Package data stays." in shown
        assert str(settings.devpi_home / "devpi.log") in shown

    @pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n"])
    def test_removes_nothing_without_a_yes(self, settings: Settings, type_in: pytest.MonkeyPatch, answer: str) -> None:
        type_in.setattr("sys.stdin", io.StringIO(answer))
        with pytest.raises(BadInput) as caught:
            self.collect(settings)
        assert "nothing was removed" in told(caught)
        assert self.files(settings) == self.ALL

    def test_removes_after_a_yes(self, settings: Settings, type_in: pytest.MonkeyPatch) -> None:
        type_in.setattr("sys.stdin", io.StringIO("y\n"))
        self.collect(settings)
        assert self.files(settings) == {"venvs/other/file", "devpi/server/package.whl"}

    @pytest.mark.parametrize("answer", ["", "y\n", "stable\n"])
    def test_packages_go_only_when_the_index_is_typed(self, settings: Settings, type_in: pytest.MonkeyPatch, answer: str) -> None:
        type_in.setattr("sys.stdin", io.StringIO(answer))
        with pytest.raises(BadInput) as caught:
            self.collect(settings, yes=True, data=True)
        assert "nothing was removed" in told(caught)
        assert self.files(settings) == self.ALL

    def test_packages_go_when_it_is(
        self, settings: Settings, type_in: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        type_in.setattr("sys.stdin", io.StringIO("pypi/stable\n"))
        self.collect(settings, yes=True, data=True)
        assert self.files(settings) == {"venvs/other/file"}
        assert "Package data GOES." in capsys.readouterr().out

    def test_a_dry_run_shows_it_all_and_removes_nothing(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        self.collect(settings, data=True, dry=True)
        assert self.files(settings) == self.ALL
        assert f"would: rm -r {settings.devpi_home}" in capsys.readouterr().out

    def test_says_so_when_there_is_nothing(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        self.collect(settings, yes=True)
        capsys.readouterr()
        self.collect(settings, yes=True)
        assert capsys.readouterr().out == "local: nothing to remove\n"
