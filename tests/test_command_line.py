"""The command line as users type it: several images, both spellings of a task, help for everything, advice for slips."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from tests.workspace import Workspace, checkout

TASKS = [
    "lint", "build", "build-cached", "tag", "push", "up", "down", "upgrade",
    "rollback", "status", "logs", "smoke", "purge", "certificate", "rotate",
    "backup", "backups", "fetch", "unlock", "restore", "drill", "verify", "adopt", "gc",
    "config", "render", "doctor", "test", "bench", "lock", "help",
]  # fmt: skip


class CommandLine:
    """A checkout with an image more than ours, on a machine that has git and no Docker."""

    def __init__(self, made: Workspace, path: Path) -> None:
        self.made, self.path = made, path

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.made.inv(*words, check=False, PATH=str(self.path), PYTHONDONTWRITEBYTECODE="1")

    def built(self, *words: str) -> list[str]:
        """The images that a dry run would build, in its order."""
        result = self("--dry", *words)
        assert result.returncode == 0, result.stderr
        return re.findall(r"^would: docker buildx build --tag (\S+):latest", result.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def inv(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    made = checkout(tmp_path_factory.mktemp("checkout"), "pypi-words")
    (made.root / "second").mkdir()
    (made.root / "second" / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    path = tmp_path_factory.mktemp("path")
    git = shutil.which("git")
    assert git
    (path / "git").symlink_to(git)
    return CommandLine(made, path)


class TestWords:
    def test_no_word_is_all_images(self, inv: CommandLine) -> None:
        assert inv.built("build") == ["pypi_proxy", "pypi_server", "second"]

    def test_several_words_are_several_images(self, inv: CommandLine) -> None:
        assert inv.built("build", "second", "pypi_server/") == ["second", "pypi_server"]

    def test_a_flag_may_stand_before_or_after_them(self, inv: CommandLine) -> None:
        assert inv.built("build", "--no-cache", "second") == inv.built("build", "second", "--no-cache") == ["second"]

    def test_the_long_form_is_there_too(self, inv: CommandLine) -> None:
        assert inv.built("build", "--images", "second") == ["second"]

    def test_a_task_ends_the_words_of_the_one_before(self, inv: CommandLine) -> None:
        result = inv("--dry", "build", "second", "render", "--env", "dev")
        assert result.returncode == 0
        assert "--tag second:latest" in result.stdout
        assert 'image: "pypi_server:' in result.stdout

    @pytest.mark.parametrize("name", ["build_cached", "build-cached"])
    def test_a_task_has_both_spellings(self, inv: CommandLine, name: str) -> None:
        assert inv.built(name, "second") == ["second"]

    def test_an_unknown_word_lists_the_images(self, inv: CommandLine) -> None:
        result = inv("build", "pypi_server", "secnd")
        assert result.returncode == 2
        assert result.stderr == (
            "Error: 'secnd' is neither an image nor a task. Did you mean second?\n"
            "  Fix: known images: pypi_proxy, pypi_server, second\n"
        )
        assert result.stdout == ""

    def test_a_word_where_none_belongs_is_refused(self, inv: CommandLine) -> None:
        result = inv("--dry", "status", "second")
        assert result.returncode != 0
        assert "second" in result.stderr
        assert "Traceback" not in result.stderr


class TestDryRun:
    def test_leaves_the_checkout_as_it_was(self, inv: CommandLine) -> None:
        def files() -> dict[str, int]:
            return {str(file): file.lstat().st_mtime_ns for file in inv.made.root.rglob("*") if file.is_file()}

        before = files()
        assert inv("--dry", "build").returncode == 0
        assert inv("--dry", "up", "--env", "local").returncode == 0
        assert files() == before
        assert not inv.made.home.exists()


class TestSlips:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["up", "--env", "prod"], "known environments: dev, local, stable"),
            (["render", "--env", "local"], "known: dev, stable"),
            (["up", "--timeout", "soon"], "--timeout soon: expected a number above 0."),
            (["up", "--timeout", "0"], "--timeout 0: expected a number above 0."),
            (["logs", "--lines", "all"], "--lines all: expected a number above 0."),
            (["psuh"], "'psuh' is not a task. Did you mean push?"),
            (["up", "dev"], "'dev' is not a task."),
            (["push"], "REGISTRY is empty."),
            (["tag", "second"], "REGISTRY is empty."),
        ],
    )
    def test_is_told_without_a_traceback(self, inv: CommandLine, words: list[str], said: str) -> None:
        result = inv("--dry", *words)
        assert result.returncode == 2
        assert said in result.stderr
        assert "Traceback" not in result.stderr

    def test_an_unknown_task_is_told(self, inv: CommandLine) -> None:
        result = inv("biuld")
        assert result.returncode != 0
        assert "biuld" in result.stdout + result.stderr
        assert "Traceback" not in result.stderr

    def test_without_docker_the_way_without_docker_is_told(self, inv: CommandLine) -> None:
        result = inv("down", "--env", "dev")
        assert result.returncode == 3
        assert "the command docker is not there." in result.stderr
        assert "inv up --env local" in result.stderr


class TestHelp:
    def test_the_list_has_every_task_with_its_line(self, inv: CommandLine) -> None:
        shown = inv("--list").stdout
        assert re.findall(r"^  ([a-z][a-z-]+) +\S", shown, re.MULTILINE) == sorted(TASKS)

    def test_the_list_by_purpose_has_every_task_once(self, inv: CommandLine) -> None:
        for words in (["help"], []):
            shown = inv(*words).stdout
            assert [name.replace("_", "-") for name in re.findall(r"^  ([a-z_-]+) +\S", shown, re.MULTILINE)] == TASKS

    def test_a_word_after_help_is_shown_and_never_run(self, inv: CommandLine) -> None:
        shown = inv("help", "up", "build_cached").stdout
        assert re.findall(r"^  ([a-z-]+) +\S", shown, re.MULTILINE) == ["build-cached", "up"]
        assert "$ " not in shown

    def test_help_for_no_task_is_refused(self, inv: CommandLine) -> None:
        result = inv("help", "nosuch")
        assert result.returncode == 2 and "there is no task nosuch." in result.stderr

    def test_who_stops_reading_is_no_failure(self, inv: CommandLine) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        argv = [sys.executable, "-m", "pypi_tasks", "--list"]
        result = subprocess.run(argv, cwd=inv.made.root, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
        os.close(writer)
        assert (result.returncode, result.stderr) == (0, "")

    def test_a_task_tells_what_it_does_in_one_line(self) -> None:
        assert set(tasks.ns.task_names) == set(TASKS)
        for name in tasks.ns.task_names:
            lines = (tasks.ns[name].__doc__ or "").strip().splitlines()
            assert len(lines) == 1, name
            assert lines[0].endswith("."), name

    def test_a_task_tells_what_every_parameter_means(self) -> None:
        for context in tasks.ns.to_contexts():
            for argument in context.args.values():
                assert argument.help, f"{context.name} --{argument.name}"

    def test_short_flags_are_the_ones_that_people_expect(self) -> None:
        short = {
            (context.name, name)
            for context in tasks.ns.to_contexts()
            for argument in context.args.values()
            for name in argument.names
            if len(name) == 1
        }
        assert ("logs", "f") in short
        assert {task for task, _ in short} == {"logs"}

    def test_the_list_imports_nothing_heavy(self, inv: CommandLine) -> None:
        argv = [sys.executable, "-X", "importtime", "-m", "invoke", "--list"]
        result = inv.made.run(*argv, PYTHONDONTWRITEBYTECODE="1")
        imported = set(re.findall(r"\| +([\w.]+)$", result.stderr, re.MULTILINE))
        assert "pypi_tasks.start" in imported
        assert not {"docker", "jinja2", "rich", "requests", "dotenv"} & imported
