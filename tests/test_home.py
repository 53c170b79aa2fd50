"""DEVPI_HOME and the port are looked at before a server starts, and what is wrong is told with the way to mend it."""

import os
import socket
import stat
from pathlib import Path

import pytest

from pypi_tasks import home
from pypi_tasks.errors import NotReady
from pypi_tasks.world import World
from tests.helpers import public_folder, settings_of, told, unprivileged
from tests.workspace import free_port

SOMEBODY = 4321


class TestFolder:
    def test_a_new_one_is_fine_where_it_can_be_made(self, tmp_path: Path) -> None:
        assert home.problem(tmp_path / "new" / "devpi", os.getuid(), os.getgid()) is None

    def test_a_writable_one_is_fine(self, tmp_path: Path) -> None:
        assert home.problem(tmp_path, os.getuid(), os.getgid()) is None

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "devpi").write_text("")
        with pytest.raises(NotReady) as caught:
            home.check(World(), settings_of(tmp_path), os.getuid())
        assert f"DEVPI_HOME={tmp_path / 'devpi'} is a file; expected a folder." in told(caught)
        assert "set DEVPI_HOME to a folder" in told(caught)
        assert caught.value.code == 3

    def test_a_parent_that_cannot_be_written_is_told(self) -> None:
        with public_folder() as folder:
            folder.chmod(0o555)
            with unprivileged() as uid:
                found = home.problem(folder / "devpi", uid, os.getgid())
        assert found
        assert f"{folder} is read-only for you" in str(found.message)
        assert "a folder that you can write" in str(found.message)

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
    def test_somebody_elses_is_told_with_the_command_that_mends_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "devpi"
        folder.mkdir()
        os.chown(folder, SOMEBODY, SOMEBODY)
        found = home.problem(folder, 1000, 1001)
        assert found
        assert f"{folder} belongs to uid {SOMEBODY}; the server runs as uid 1000." in str(found.message)
        assert f"sudo chown -R 1000:1001 {folder}" in str(found.message)

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
    @pytest.mark.parametrize("name", [".sqlite", "server/.sqlite"])
    def test_a_database_of_somebody_else_is_told_too(self, tmp_path: Path, name: str) -> None:
        database = tmp_path / "devpi" / name
        database.parent.mkdir(parents=True)
        database.touch()
        for path in (tmp_path / "devpi", database.parent):
            os.chown(path, 1000, 1000)
        found = home.problem(tmp_path / "devpi", 1000, 1000)
        assert found
        assert f"{database} belongs to uid 0" in str(found.message)

    def test_ones_own_that_is_read_only_is_told_with_another_command(self, tmp_path: Path) -> None:
        folder = tmp_path / "devpi"
        folder.mkdir()
        uid = 1000 if os.getuid() == 0 else os.getuid()
        if os.getuid() == 0:
            os.chown(folder, uid, uid)
        folder.chmod(0o555)
        found = home.problem(folder, uid, uid)
        folder.chmod(0o755)
        assert found
        assert f"{folder} is read-only; the server runs as uid {uid}." in str(found.message)
        assert f"chmod -R u+w {folder}" in str(found.message)

    def test_a_dry_run_only_mentions_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "devpi").write_text("")
        home.check(World(dry=True), settings_of(tmp_path), os.getuid())
        assert "would stop here" in capsys.readouterr().err

    def test_nearest_is_the_closest_parent_that_exists(self, tmp_path: Path) -> None:
        assert home.nearest(tmp_path / "a" / "b") == tmp_path
        assert home.nearest(tmp_path) == tmp_path


class TestWritableBy:
    """By owner, then group, then everybody: the first that applies decides."""

    @pytest.mark.parametrize(
        ("mode", "uid", "gid", "writable"),
        [
            (0o755, SOMEBODY, 7, True),
            (0o555, SOMEBODY, 7, False),
            (0o077, SOMEBODY, 7, False),
            (0o775, 1000, 7, True),
            (0o757, 1000, 7, False),
            (0o757, 1000, 1000, True),
            (0o775, 1000, 1000, False),
            (0o000, 0, 0, True),
        ],
    )
    def test_mode_bits(self, mode: int, uid: int, gid: int, writable: bool) -> None:
        status = os.stat_result((stat.S_IFDIR | mode, 0, 0, 1, SOMEBODY, 7, 0, 0, 0, 0))
        assert home.writable_by(status, uid, gid) is writable


class TestPort:
    @pytest.fixture
    def taken(self) -> "socket.socket":
        return socket.create_server(("127.0.0.1", 0))

    def test_a_free_one_is_fine(self) -> None:
        assert home.port_problem("127.0.0.1", free_port()) is None

    def test_a_taken_one_is_told_with_what_to_do(self, tmp_path: Path, taken: socket.socket) -> None:
        with taken, pytest.raises(NotReady) as caught:
            number = taken.getsockname()[1]
            home.check_port(World(), settings_of(tmp_path, DEVPI_PORT=str(number)))
        assert f"DEVPI_BIND=127.0.0.1 DEVPI_PORT={number}: Address already in use." in told(caught)
        assert "inv status" in told(caught)
        assert "another DEVPI_PORT" in told(caught)
        assert caught.value.code == 3

    def test_taken_on_one_address_is_not_free_on_all(self, taken: socket.socket) -> None:
        with taken:
            assert "in use" in str(home.port_problem("0.0.0.0", taken.getsockname()[1]))

    def test_an_address_of_another_machine_is_told_with_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(NotReady) as caught:
            home.check_port(World(), settings_of(tmp_path, DEVPI_BIND="192.0.2.1", DEVPI_PORT=str(free_port())))
        assert "assign requested address" in told(caught) and "set DEVPI_BIND" in told(caught)

    def test_one_that_was_just_given_up_is_free(self, taken: socket.socket) -> None:
        number = taken.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)) as client:
            accepted, _ = taken.accept()
            accepted.close()  # the server's side closes first, so that the port lingers in TIME_WAIT
            assert client.recv(1) == b""
        taken.close()
        assert home.port_problem("127.0.0.1", number) is None

    def test_a_dry_run_only_mentions_it(self, tmp_path: Path, taken: socket.socket, capsys: pytest.CaptureFixture[str]) -> None:
        with taken:
            home.check_port(World(dry=True), settings_of(tmp_path, DEVPI_PORT=str(taken.getsockname()[1])))
        assert "would stop here" in capsys.readouterr().err
