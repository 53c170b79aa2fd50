"""What happens before devpi-server starts: one server for one folder, a secret it accepts, errors that say what to do."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import entrypoint
import pytest
from entrypoint import Refusal

from pypi_tasks import native
from pypi_tasks.settings import ROOT
from pypi_tasks.world import World
from tests.helpers import public_folder, settings_of, unprivileged

SERVER = ROOT / "pypi_server"


def claimant(home: Path) -> "subprocess.Popen[str]":
    """A process that claims the folder as a server does, and ends when its input does."""
    claim = f"import entrypoint, pathlib; entrypoint.claim(pathlib.Path({str(home)!r}))"
    code = f"{claim}; print('claimed', flush=True); input()"
    argv = [sys.executable, "-c", code]
    return subprocess.Popen(argv, cwd=SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class TestServerDirectory:
    def test_is_a_folder_below_the_data(self, tmp_path: Path) -> None:
        assert entrypoint.server_directory(tmp_path) == tmp_path / "server"

    def test_is_the_data_itself_where_devpi_lives_there_already(self, tmp_path: Path) -> None:
        (tmp_path / ".nodeinfo").touch()
        assert entrypoint.server_directory(tmp_path) == tmp_path

    def test_is_initialised_once_devpi_says_so(self, tmp_path: Path) -> None:
        assert not entrypoint.is_initialised(tmp_path)
        (tmp_path / ".nodeinfo").touch()
        assert entrypoint.is_initialised(tmp_path)


class TestAccess:
    def test_a_writable_folder_is_fine(self, tmp_path: Path) -> None:
        (tmp_path / "server").mkdir()
        entrypoint.check_access(tmp_path, tmp_path / "server", os.getuid())

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "devpi").touch()
        with pytest.raises(Refusal, match="is not a folder: DEVPI_HOME must be one"):
            entrypoint.check_access(tmp_path / "devpi", tmp_path / "devpi" / "server", os.getuid())

    def test_a_folder_that_is_not_there_is_not_mounted(self, tmp_path: Path) -> None:
        with pytest.raises(Refusal, match="is not there: mount DEVPI_HOME there"):
            entrypoint.check_access(tmp_path / "devpi", tmp_path / "devpi" / "server", os.getuid())

    @pytest.mark.parametrize("name", ["", "server", "server/.sqlite"])
    def test_what_cannot_be_written_is_told_with_the_command_that_mends_it(self, name: str) -> None:
        with public_folder() as folder:
            home = folder / "devpi"
            (home / "server").mkdir(parents=True)
            (home / "server" / ".sqlite").touch()
            for path in (home, home / "server", home / "server" / ".sqlite"):
                path.chmod(0o555 if path == home / name else 0o777)
            with unprivileged() as uid, pytest.raises(Refusal) as caught:
                entrypoint.check_access(home, home / "server", uid)
            for path in (home, home / "server"):
                path.chmod(0o755)
        if uid == os.getuid():  # not root, so it is our own folder that we may not write
            assert f"{home / name} is read-only for uid {uid}, its owner" in str(caught.value)
            assert "chmod -R u+w" in str(caught.value)
        else:
            assert f"{home / name} belongs to uid {os.getuid()} and cannot be written by uid {uid}" in str(caught.value)
            assert f"sudo chown -R {uid}:" in str(caught.value)


class TestClaim:
    def test_a_second_server_on_the_same_data_is_refused(self, tmp_path: Path) -> None:
        with claimant(tmp_path) as first:
            assert first.stdout
            assert first.stdout.readline() == "claimed\n"
            with pytest.raises(Refusal) as caught:
                entrypoint.claim(tmp_path)
            assert f"another server is running on {tmp_path}." in str(caught.value)
            assert "inv down" in str(caught.value)
            first.communicate("\n")

    def test_the_file_says_which_process_it_is_and_where(self, tmp_path: Path) -> None:
        with claimant(tmp_path) as first:
            assert first.stdout
            first.stdout.readline()
            assert (tmp_path / "devpi.pid").read_text().split() == [str(first.pid), socket.gethostname()]
            first.communicate("\n")

    def test_the_claim_ends_with_the_process(self, tmp_path: Path) -> None:
        (tmp_path / "devpi.pid").write_text("99999999\na-much-longer-name-of-a-container\n")
        for _ in range(2):
            with claimant(tmp_path) as server:
                assert server.communicate("\n")[0] == "claimed\n"
            assert (tmp_path / "devpi.pid").read_text() == f"{server.pid}\n{socket.gethostname()}\n"

    def test_the_tasks_know_the_server_by_its_claim(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        settings.devpi_home.mkdir()
        with claimant(settings.devpi_home) as server:
            assert server.stdout
            server.stdout.readline()
            assert native.Server(World(), settings).pid() == server.pid
            server.communicate("\n")
        assert native.Server(World(), settings).pid() is None


class TestTemporaryFolder:
    def test_is_private_empty_and_beside_the_data(self, tmp_path: Path) -> None:
        (tmp_path / "tmp").mkdir()
        (tmp_path / "tmp" / "left-over").touch()
        folder = entrypoint.temporary_folder(tmp_path)
        assert folder == tmp_path / "tmp"
        assert list(folder.iterdir()) == []
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


class TestSecret:
    @pytest.fixture
    def secrets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
        folder = tmp_path / "secrets"
        folder.mkdir(mode=0o700)
        (folder / "server_secret").write_text("very-secret\n")
        (folder / "server_secret").chmod(0o600)
        return folder

    def test_a_private_file_is_used_where_it_is(self, secrets: Path) -> None:
        assert entrypoint.settle_secret(secrets) == secrets / "server_secret"

    @pytest.mark.parametrize("mode", [0o444, 0o640, 0o604])
    def test_a_file_that_others_can_read_is_copied_to_a_private_one(self, secrets: Path, mode: int) -> None:
        (secrets / "server_secret").chmod(mode)
        self.check_copy(secrets)

    def test_a_file_that_others_could_replace_is_copied(self, secrets: Path) -> None:
        secrets.chmod(0o777)
        self.check_copy(secrets)

    def check_copy(self, secrets: Path) -> None:
        copy = entrypoint.settle_secret(secrets)
        assert copy.parent.parent == secrets.parent / "tmp"
        assert copy.read_text() == "very-secret"
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700

    def test_the_line_end_of_an_editor_is_no_part_of_it(self, secrets: Path) -> None:
        assert entrypoint.read_secret(secrets, "server_secret") == "very-secret"

    def test_a_missing_one_is_told_with_how_to_get_it(self, secrets: Path) -> None:
        with pytest.raises(Refusal) as caught:
            entrypoint.read_secret(secrets, "root_password")
        assert f"the secret {secrets / 'root_password'} cannot be read by uid {os.getuid()} (No such file" in str(caught.value)
        assert "`inv up` makes it" in str(caught.value)
        assert "/run/secrets" in str(caught.value)


class TestMain:
    def test_a_refusal_is_one_line_without_a_traceback(self, tmp_path: Path) -> None:
        home = tmp_path / "nowhere"
        argv = [sys.executable, str(SERVER / "entrypoint.py"), "true"]
        result = subprocess.run(argv, env={"DEVPI_HOME": str(home)}, capture_output=True, text=True)
        assert result.returncode == 1
        assert result.stderr == f"pypi_server: {home} is not there: mount DEVPI_HOME there.\n"

    def test_the_server_gets_its_folders_by_environment_and_the_pid_of_the_claim(self, tmp_path: Path) -> None:
        home, secrets = tmp_path / "devpi", tmp_path / "secrets"
        (home / "server").mkdir(parents=True)
        (home / "server" / ".nodeinfo").touch()
        secrets.mkdir(mode=0o700)
        (secrets / "server_secret").write_text("x")
        (secrets / "server_secret").chmod(0o600)
        names = ("DEVPISERVER_SERVERDIR", "DEVPISERVER_SECRETFILE", "TMPDIR")
        show = f"import os; print(os.getpid(), *map(os.environ.get, {names}))"
        argv = [sys.executable, str(SERVER / "entrypoint.py"), sys.executable, "-c", show]
        environment = {"DEVPI_HOME": str(home), "DEVPI_SECRETS": str(secrets)}
        result = subprocess.run(argv, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        pid = (home / "devpi.pid").read_text().split()[0]
        assert result.stdout.split() == [pid, str(home / "server"), str(secrets / "server_secret"), str(home / "tmp")]


class TestInitialise:
    """With the real devpi-init, from the environment that `inv up --env local` makes."""

    @pytest.fixture
    def python(self, tmp_path: Path) -> Path:
        server = native.Server(World(), settings_of(tmp_path, f"CA_BUNDLE={os.environ.get('REQUESTS_CA_BUNDLE', '')}\n"))
        server.install()
        return server.python

    def initialise(self, python: Path, server: Path) -> "subprocess.CompletedProcess[str]":
        code = "import sys; from pathlib import Path; import entrypoint; entrypoint.initialise(Path(sys.argv[1]), 'hunter2')"
        argv = [str(python), "-c", code, str(server)]
        return subprocess.run(argv, cwd=SERVER, capture_output=True, text=True)

    def test_a_half_made_folder_is_cleaned_and_made_whole(self, python: Path, tmp_path: Path) -> None:
        half = tmp_path / "server.unfinished"
        half.mkdir()
        (half / "left-over").touch()
        result = self.initialise(python, tmp_path / "server")
        assert result.returncode == 0, result.stderr
        assert entrypoint.is_initialised(tmp_path / "server")
        assert not half.exists()
        assert not (tmp_path / "server" / "left-over").exists()
        assert "hunter2" not in result.stdout + result.stderr

    def test_a_folder_with_something_else_in_it_is_left_alone(self, python: Path, tmp_path: Path) -> None:
        (tmp_path / "server").mkdir()
        (tmp_path / "server" / "thesis.txt").touch()
        result = self.initialise(python, tmp_path / "server")
        assert result.returncode != 0
        assert "is neither empty nor a devpi server directory" in result.stderr
        assert [file.name for file in (tmp_path / "server").iterdir()] == ["thesis.txt"]

    @pytest.mark.parametrize("name", ["server.before-2026-11-24T22-40-00Z", "server.before-2026-11-24T22-40-00Z.exchanged"])
    def test_no_empty_server_hides_data_that_was_put_aside(self, python: Path, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / ".nodeinfo").write_text("{}")
        result = self.initialise(python, tmp_path / "server")
        assert result.returncode != 0
        assert f"data that was put aside is: {name}" in result.stderr
        assert not (tmp_path / "server").exists()
