"""Whatever is wrong: a clear error with its fix, a nonzero exit, and nothing changed."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workspace import Workspace, checkout, clean_environment


@pytest.fixture
def fresh(tmp_path: Path) -> Workspace:
    """A checkout in which nothing was made yet."""
    return checkout(tmp_path / "fresh", "pypi-test-bad")


def made(workspace: Workspace) -> list[str]:
    """What the tasks made in a checkout."""
    return [name for name in ("devpi", ".secrets", ".rendered", ".venvs") if (workspace.root / name).exists()]


def shim(folder: Path, body: str) -> str:
    """A PATH on which `docker` answers as an engine that this machine does not have."""
    folder.mkdir()
    script = folder / "docker"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{clean_environment()['PATH']}"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"DEVPI_PORT=seventy", ["line 1", "DEVPI_PORT='seventy'", "expected a port number"]),
        (b"DEVPI_PORT=70000", ["DEVPI_PORT='70000'", "1 to 65535"]),
        (b"CA_BUNDLE=/no/such/file", ["CA_BUNDLE", "/no/such/file", "No such file"]),
        (b"DEVPI_HOME=${NOWHERE}/devpi", ["line 1", "DEVPI_HOME uses ${NOWHERE}, which is not defined"]),
        (b"DEVPI_PROT=3142", ["line 1", "DEVPI_PROT is not a setting", "did you mean DEVPI_PORT?"]),
        (b"devpi_port=3142", ["line 1", "devpi_port is not a setting", "did you mean DEVPI_PORT?"]),
        (b"# one\nDEVPI_USER=caf\xe9", ["line 2", "0xe9", "not UTF-8"]),
        (b"REGISTRY=http://registry:5000", ["REGISTRY='http://registry:5000'", "without http://"]),
        (b"just words", ["line 1", "expected NAME=value"]),
    ],
)
def test_a_bad_env_file_is_told_by_line_variable_and_expectation(fresh: Workspace, line: bytes, told: list[str]) -> None:
    (fresh.root / ".env").write_bytes(line + b"\n")
    for task in (["up", "--env", "local"], ["lint"], ["config"]):
        error = fresh.refused(*task)
        assert not [part for part in told if part not in error], error
    assert not made(fresh)


def test_windows_line_ends_are_read_as_if_they_were_not_there(fresh: Workspace) -> None:
    text = "DEVPI_PORT=4000\r\nDEVPI_USER=windows\r\n"
    (fresh.root / ".env").write_bytes(text.encode())
    shown = fresh.inv("config").stdout
    assert "windows " in shown and "4000 " in shown and "\r" not in shown


def test_an_unknown_environment_lists_the_known_ones(fresh: Workspace) -> None:
    for task in ("up", "down", "logs", "gc", "smoke"):
        assert "known environments: dev, local, stable" in fresh.refused(task, "--env", "prod")
    assert "known environments" in fresh.refused("up", PYPI_ENV="prod")
    assert not made(fresh)


def test_a_misspelt_image_lists_the_known_ones(fresh: Workspace) -> None:
    for task in ("lint", "build", "build_cached", "tag", "push"):
        error = fresh.refused(task, "pypi_sever")
        assert "Did you mean pypi_server?" in error and "known images: pypi_proxy, pypi_server" in error


def test_no_engine_is_told_with_the_way_out(fresh: Workspace) -> None:
    for task in (["up", "--env", "dev"], ["build"], ["gc", "--env", "dev"], ["down", "--env", "dev"]):
        error = fresh.refused(*task, DOCKER_HOST="unix:///no/such/socket")
        assert "engine does not answer" in error and "inv up --env local" in error
    assert not made(fresh)


def test_no_docker_command_is_told_with_the_way_out(fresh: Workspace, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "git").symlink_to("/usr/bin/git")
    error = fresh.refused("up", "--env", "dev", PATH=str(empty))
    assert "the command docker is not there" in error and "inv up --env local" in error
    assert not made(fresh)


def test_an_engine_that_is_too_old_is_told_with_both_versions(fresh: Workspace, tmp_path: Path) -> None:
    path = shim(tmp_path / "old", "echo 20.10.24")
    error = fresh.refused("up", "--env", "dev", PATH=path)
    assert "expected at least 25.0, found 20.10.24" in error
    assert not made(fresh)


def test_a_missing_compose_plugin_is_told_with_its_package(fresh: Workspace, tmp_path: Path) -> None:
    body = "case $1 in version) echo 28.5.2;; *) echo \"docker: '$1' is not a docker command.\" >&2; exit 1;; esac"
    error = fresh.refused("up", "--env", "dev", PATH=shim(tmp_path / "bare", body))
    assert "compose does not answer" in error and "docker-compose-plugin" in error
    assert not made(fresh)


def test_lint_without_compose_still_checks_dockerfiles_and_templates(fresh: Workspace, tmp_path: Path) -> None:
    result = fresh.inv("lint", PATH=shim(tmp_path / "bare", "exit 1"))
    assert "hadolint" in result.stdout and "Compose is not there" in result.stderr
    (fresh.root / "compose" / "dev.yaml.j2").write_text("services: {{ DEVPI_PROT }}\n")
    error = fresh.refused("lint")
    assert "dev.yaml.j2 line 1" in error and "'DEVPI_PROT' is undefined" in error


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that cannot be written: by its mode or, since that stops nobody who is root, by its mount."""
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    if os.getuid() != 0:
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_data_folder_that_is_a_file_or_read_only_is_told(fresh: Workspace, read_only: Path) -> None:
    fresh.home.write_text("not a folder")
    assert "is a file; expected a folder" in fresh.refused("up", "--env", "local")
    fresh.home.unlink()
    for home in (read_only, read_only / "devpi"):
        error = fresh.refused("up", "--env", "local", DEVPI_HOME=str(home))
        assert "read-only" in error and ("set DEVPI_HOME" in error or "chmod -R u+w" in error)
    assert not made(fresh)


@pytest.mark.parametrize(
    "words",
    [
        ["restore", "--snapshot", "", "--yes"], ["restore", ""], ["drill", "--snapshot="], ["unlock", ""], ["adopt", ""],
        ["fetch", "", "--from=far:away"], ["fetch", "--from", ""], ["backup", "--to", ""], ["upgrade", "--to="],
        ["rotate", "--only", ""], ["up", "--env="], ["build", ""],
    ],
)  # fmt: skip
def test_an_empty_value_is_no_value_that_was_left_out(fresh: Workspace, words: list[str]) -> None:
    result = fresh.inv(*words, check=False)
    assert result.returncode == 2 and "is empty" in result.stderr and result.stdout == ""
    assert not made(fresh)


def test_data_is_not_replaced_where_nobody_can_be_asked(fresh: Workspace) -> None:
    (fresh.home / "server").mkdir(parents=True)
    result = fresh.inv("restore", "--env", "local", check=False)
    assert result.returncode == 2 and "no terminal to ask at" in result.stderr and result.stdout == ""
    assert not (fresh.root / ".venvs").exists()


def test_what_is_known_to_be_down_is_not_asked(fresh: Workspace, tmp_path: Path) -> None:
    """A proxy would keep the question until devpi is up again."""
    path = shim(tmp_path / "engine", "[ $1 != version ] || echo 28.5.2")
    with socket.create_server(("127.0.0.1", int(fresh.port))) as proxy:
        assert "does not answer" in fresh.inv("status", PATH=path, PYPI_ENV="local").stdout
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_secrets_in_a_file_are_no_folder_of_secrets(fresh: Workspace) -> None:
    assert "is a file" in fresh.refused("up", "--env", "local", SECRETS_HOME="/dev/null")
    assert not made(fresh)


def test_a_path_that_was_typed_starts_where_the_user_is(fresh: Workspace, tmp_path: Path) -> None:
    """By a link to ./inv, from another folder: both are what people do."""
    beside = Path(sys.executable).parent
    (fresh.root / ".venv" / "bin").mkdir(parents=True)
    (fresh.root / ".venv" / "bin" / "python").symlink_to(beside / "python")
    for part in ("lib", "pyvenv.cfg"):
        (fresh.root / ".venv" / part).symlink_to(beside.parent / part)
    shutil.copy(fresh.root / "requirements.txt", fresh.root / ".venv")
    (tmp_path / "inv").symlink_to(fresh.root / "inv")
    argv = [str(tmp_path / "inv"), "adopt", "wheels", "--env", "local"]
    result = subprocess.run(argv, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert f"{tmp_path / 'wheels'}: there is no such folder." in result.stderr, result


def test_a_bad_timeout_is_told(fresh: Workspace) -> None:
    for text in ("soon", "-1", "0", "nan"):
        assert "expected a number above 0" in fresh.refused("up", "--env", "local", f"--timeout={text}")
    assert not made(fresh)


def test_a_server_that_is_not_there_is_told(fresh: Workspace) -> None:
    assert "inv up" in fresh.refused("smoke", "--env", "local")
    assert "no log yet" in fresh.refused("logs", "--env", "local")
    assert "not running" in fresh.inv("down", "--env", "local").stdout
