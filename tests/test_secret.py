"""Secrets: generated once, kept in files that nobody else reads, replaced by a given value, printed never."""

import os
import stat
from pathlib import Path

import pytest

from pypi_tasks import secret
from pypi_tasks.errors import Failed, NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.world import World
from tests.helpers import public_folder, settings_of, told, unprivileged

NAMES = {"root_password", "user_password", "server_secret"}


def values(settings: Settings) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in settings.secrets_home.iterdir()}


def settle(settings: Settings, dry: bool = False) -> None:
    secret.settle(World(dry=dry), settings, None)


class TestGenerated:
    def test_every_stack_has_three(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        settle(settings)
        assert set(values(settings)) == NAMES

    def test_they_are_long_and_all_different(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        settle(settings)
        found = [value.strip() for value in values(settings).values()]
        assert len(set(found)) == 3
        assert all(len(value) >= 40 for value in found)

    def test_nobody_else_can_read_them(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        settle(settings)
        assert {stat.S_IMODE(file.stat().st_mode) for file in settings.secrets_home.iterdir()} == {0o600}
        assert stat.S_IMODE(settings.secrets_home.stat().st_mode) == 0o700

    def test_they_are_generated_once(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = settings_of(tmp_path)
        settle(settings)
        before = values(settings)
        capsys.readouterr()
        settle(settings)
        assert values(settings) == before
        assert capsys.readouterr().out == ""

    def test_an_empty_file_is_filled(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        settle(settings)
        (settings.secrets_home / "root_password").write_text("\n")
        settle(settings)
        assert len(values(settings)["root_password"]) > 40

    def test_a_password_that_an_editor_ended_with_a_line_is_the_same(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n")
        settings.secrets_home.mkdir()
        (settings.secrets_home / "user_password").write_text("hunter2\n\n")
        settle(settings)
        assert values(settings)["user_password"] == "hunter2\n"
        assert set(values(settings)) == NAMES


class TestGiven:
    def test_a_given_password_is_stored(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n", ROOT_PASSWORD="correct-horse")
        settle(settings)
        found = values(settings)
        assert (found["user_password"], found["root_password"]) == ("hunter2\n", "correct-horse\n")

    def test_it_wins_over_the_stored_one(self, tmp_path: Path) -> None:
        settle(settings_of(tmp_path))
        before = values(settings_of(tmp_path))
        settle(settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n"))
        found = values(settings_of(tmp_path))
        assert found["user_password"] == "hunter2\n"
        assert found["root_password"] == before["root_password"]

    @pytest.mark.parametrize("fault", [Failed("the server refused it"), KeyboardInterrupt()])
    def test_the_stored_one_is_back_when_the_server_refuses_it(self, tmp_path: Path, fault: BaseException) -> None:
        settle(settings_of(tmp_path))
        before = values(settings_of(tmp_path))
        settings = settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n")
        with pytest.raises(type(fault)), secret.settled(World(), settings, None):
            assert values(settings)["user_password"] == "hunter2\n"
            raise fault
        assert values(settings) == before

    def test_the_stored_one_is_kept_since_other_data_may_have_it(self, tmp_path: Path) -> None:
        settle(settings_of(tmp_path))
        before = values(settings_of(tmp_path))
        with secret.settled(World(), settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n"), None):
            pass
        (kept,) = settings_of(tmp_path).secrets_home.glob("user_password.before-*")
        assert kept.read_text() == before["user_password"] and kept.stat().st_mode & 0o777 == 0o600
        assert values(settings_of(tmp_path)).keys() - before.keys() == {kept.name}

    def test_it_stays_when_it_is_given_no_more(self, tmp_path: Path) -> None:
        settle(settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n"))
        settle(settings_of(tmp_path))
        found = values(settings_of(tmp_path))
        assert found["user_password"] == "hunter2\n"
        assert set(found) == NAMES


class TestTls:
    """The proxy's certificate and key are files beside the other secrets, copies of what the settings name."""

    CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        (tmp_path / "tls.crt").write_text(self.CERTIFICATE)
        (tmp_path / "tls.key").write_text(self.KEY)
        return settings_of(tmp_path, TLS_CERTIFICATE=str(tmp_path / "tls.crt"), TLS_KEY=str(tmp_path / "tls.key"))

    def test_a_pair_that_was_set_is_stored_for_its_owner_alone(self, settings: Settings) -> None:
        settle(settings)
        found = values(settings)
        assert set(found) == NAMES | {"tls_certificate", "tls_key"}
        assert (found["tls_certificate"], found["tls_key"]) == (self.CERTIFICATE, self.KEY)
        assert {stat.S_IMODE(file.stat().st_mode) for file in settings.secrets_home.iterdir()} == {0o600}

    def test_the_same_pair_again_writes_nothing(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        settle(settings)
        capsys.readouterr()
        settle(settings)
        assert capsys.readouterr().out == ""

    def test_a_renewed_one_is_told_to_whoever_has_it_read_anew(self, settings: Settings) -> None:
        settle(settings)
        path = settings.secrets_home / "tls_certificate"
        inode = path.stat().st_ino
        assert settings.tls_certificate is not None
        settings.tls_certificate.write_text(self.CERTIFICATE.replace("MIIB", "MIIC"))
        with secret.settled(World(), settings, None) as replaced:
            assert list(replaced) == [path]
        assert "MIIC" in path.read_text()
        assert path.stat().st_ino == inode  # it is mounted

    def test_the_old_pair_is_back_when_the_server_does_not_come_up(self, settings: Settings) -> None:
        settle(settings)
        assert settings.tls_certificate is not None
        settings.tls_certificate.write_text(self.CERTIFICATE.replace("MIIB", "MIIC"))
        with pytest.raises(Failed), secret.settled(World(), settings, None):
            raise Failed("nginx does not like it")
        assert values(settings)["tls_certificate"] == self.CERTIFICATE

    def test_a_comment_in_another_encoding_is_no_hindrance(self, settings: Settings) -> None:
        assert settings.tls_certificate is not None
        settings.tls_certificate.write_bytes("# für uns\n".encode("latin-1") + self.CERTIFICATE.encode())
        settle(settings)
        assert self.CERTIFICATE in values(settings)["tls_certificate"]

    def test_the_key_is_never_shown(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        settle(settings)
        shown = "".join(capsys.readouterr())
        assert "MIIE" not in shown
        assert f"write secret {settings.secrets_home / 'tls_key'}" in shown


class TestPrinted:
    def test_no_value_ever(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settle(settings_of(tmp_path))
        first = values(settings_of(tmp_path))
        settings = settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n", ROOT_PASSWORD="correct-horse")
        settle(settings)
        shown = "".join(capsys.readouterr())
        for value in [*first.values(), "hunter2", "correct-horse"]:
            assert value.strip() not in shown
        for name in NAMES:
            assert str(settings.secrets_home / name) in shown

    def test_not_as_part_of_a_file_either(self, tmp_path: Path) -> None:
        assert all("hunter2" not in repr(file.path) for file in secret.files(settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n")))


class TestCheck:
    def test_none_at_all_and_ones_own_are_fine(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        secret.check(settings)
        settle(settings)
        before = values(settings)
        secret.check(settings)
        assert values(settings) == before

    def test_one_that_cannot_be_read_is_told_before_anything_is_done(self) -> None:
        with public_folder() as folder:
            settings = settings_of(folder)
            settle(settings)
            settings.secrets_home.chmod(0o755)
            (settings.secrets_home / "user_password").chmod(0)
            for name in ("root_password", "server_secret"):
                (settings.secrets_home / name).chmod(0o644)
            with unprivileged() as uid, pytest.raises(NotReady) as caught:
                secret.check(settings)
        assert f"the secret {settings.secrets_home / 'user_password'} cannot be read: Permission denied." in told(caught)
        assert f"sudo chown {uid} " in told(caught)


class TestDryRun:
    def test_makes_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n")
        settle(settings, dry=True)
        assert not settings.secrets_home.exists()
        shown = capsys.readouterr().out
        assert f"would: write secret {settings.secrets_home / 'user_password'}" in shown
        assert "hunter2" not in shown


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
class TestOwner:
    def test_the_user_of_the_container_owns_the_files(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        secret.settle(World(), settings, (1234, 2345))
        found = {(file.stat().st_uid, file.stat().st_gid) for file in settings.secrets_home.iterdir()}
        assert found == {(1234, 2345)}
