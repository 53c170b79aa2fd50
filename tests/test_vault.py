"""Secrets beside a snapshot: locked by a passphrase, read with it, with or without this kit, and by nobody else."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from snapshot import Backups, Snapshot

from pypi_tasks import backup, native, vault
from pypi_tasks.errors import BadInput, Failed, NotReady
from pypi_tasks.native import Server
from pypi_tasks.settings import Settings
from pypi_tasks.world import World
from tests.helpers import public_folder, settings_of, told, unprivileged

WORDS = "a horse of another colour"
SECRETS = {"root_password": "hunter2\n", "user_password": "hunter3\n", "server_secret": "hunter4\n", "tls_key": "-----\nä\n"}
SNAPSHOT = "2026-01-02T03-04-05Z"


def fill(folder: Path, found: dict[str, str]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, text in found.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o600)


def values(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A place for backups with one snapshot in it, secrets, and a passphrase."""
    made = settings_of(tmp_path, f"BACKUP_HOME={tmp_path / 'backups'}\n", BACKUP_PASSPHRASE=WORDS)
    (made.backup_home / "snapshots" / SNAPSHOT).mkdir(parents=True)
    fill(made.secrets_home, SECRETS)
    return made


@pytest.fixture
def server(settings: Settings) -> Server:
    return native.Server(World(), settings)


@pytest.fixture
def stored(settings: Settings, server: Server) -> Path:
    """The file in the snapshot."""
    vault.store(server, SNAPSHOT, vault.locked_up(settings))
    found = Backups(settings.backup_home).find(SNAPSHOT).folder / "secrets.json"
    assert found.exists()
    return found


class TestLocked:
    def test_the_file_is_its_owners_alone_and_shows_no_secret(self, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
        text = stored.read_text()
        assert stat.S_IMODE(stored.stat().st_mode) == 0o600
        assert not re.search("hunter|colour|root_password", text)
        assert json.loads(text)["token"] not in capsys.readouterr().out

    def test_its_own_comment_opens_it_without_this_kit(self, stored: Path) -> None:
        _, _, program = json.loads(stored.read_text())["comment"].partition("in Python: ")
        argv = [sys.executable, "-W", "ignore", "-c", program]
        shown = subprocess.run(argv, cwd=stored.parent, input=f"{WORDS}\n", capture_output=True, text=True)
        assert json.loads(shown.stdout) == SECRETS, shown.stderr

    def test_no_two_are_alike(self, settings: Settings) -> None:
        one, two = vault.locked_up(settings), vault.locked_up(settings)
        assert one["salt"] != two["salt"] and one["token"] != two["token"]

    def test_what_was_put_aside_stays_out_of_it(self, settings: Settings) -> None:
        fill(settings.secrets_home, {"root_password.before-2026-01-01T00-00-00Z": "old\n"})
        assert vault.gather(settings) == SECRETS


class TestOpened:
    @pytest.mark.usefixtures("stored")
    def test_on_a_new_machine_all_is_as_it_was(self, settings: Settings, server: Server) -> None:
        for file in settings.secrets_home.iterdir():
            file.unlink()
        settings.secrets_home.rmdir()
        vault.open(World(), settings, server, SNAPSHOT)
        assert values(settings.secrets_home) == SECRETS
        assert {stat.S_IMODE(file.stat().st_mode) for file in settings.secrets_home.iterdir()} == {0o600}
        assert stat.S_IMODE(settings.secrets_home.stat().st_mode) == 0o700

    @pytest.mark.usefixtures("stored")
    def test_what_is_there_is_put_aside_and_mounted_files_stay_the_files_they_are(
        self, settings: Settings, server: Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill(settings.secrets_home, {"root_password": "newer\n", "another": "stays\n"})
        inode = (settings.secrets_home / "root_password").stat().st_ino
        vault.open(World(), settings, server, SNAPSHOT)
        found = values(settings.secrets_home)
        aside = [name for name in found if ".before-" in name]
        assert len(aside) == 1 and aside[0].startswith("root_password.before-") and found[aside[0]] == "newer\n"
        assert {name: found[name] for name in found if name not in aside} == {**SECRETS, "another": "stays\n"}
        assert (settings.secrets_home / "root_password").stat().st_ino == inode
        shown = "".join(capsys.readouterr())
        assert aside[0] in shown and not re.search("hunter|newer|colour", shown)

    def test_for_no_name_it_is_the_newest_verified_one_that_has_any(
        self, settings: Settings, server: Server, stored: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The one that a schedule made since has none."""
        scheduled = Snapshot(stored.parent.with_name("2026-02-01T00-00-00Z"))
        scheduled.folder.mkdir()
        scheduled.note(is_whole=True)
        with pytest.raises(Failed, match=rf"no verified snapshot has secrets; .*: {SNAPSHOT}.\s+Fix: inv unlock {SNAPSHOT}"):
            vault.open(World(), settings, server)
        Snapshot(stored.parent).note(is_whole=True)
        vault.open(World(), settings, server)
        assert f"4 secrets of snapshot {SNAPSHOT}" in capsys.readouterr().out
        with pytest.raises(BadInput, match=rf"{scheduled.name} has no secrets: .*those that have: {SNAPSHOT}.\s+Fix: inv unlock"):
            vault.open(World(), settings, server, scheduled.name)

    @pytest.mark.usefixtures("stored")
    def test_a_dry_run_changes_nothing(self, settings: Settings) -> None:
        fill(settings.secrets_home, {"root_password": "newer\n"})
        before = values(settings.secrets_home)
        vault.open(World(dry=True), settings, native.Server(World(dry=True), settings), SNAPSHOT)
        assert values(settings.secrets_home) == before


@pytest.mark.usefixtures("stored")
class TestRefused:
    @pytest.fixture(autouse=True)
    def unchanged(self, settings: Settings) -> Iterator[None]:
        """Whatever is refused, the secrets are what they were."""
        fill(settings.secrets_home, {"root_password": "newer\n"})
        before = values(settings.secrets_home)
        yield
        assert values(settings.secrets_home) == before

    def refusal(self, settings: Settings, server: Server, name: str = SNAPSHOT) -> str:
        with pytest.raises((Failed, BadInput)) as caught:
            vault.open(World(), settings, server, name)
        assert WORDS not in told(caught)
        return told(caught)

    def test_another_passphrase(self, tmp_path: Path, settings: Settings, server: Server) -> None:
        other = settings_of(tmp_path, f"BACKUP_HOME={settings.backup_home}\n", BACKUP_PASSPHRASE=f"{WORDS}!")
        with pytest.raises(BadInput, match="the passphrase does not open the secrets of snapshot"):
            vault.open(World(), other, server, SNAPSHOT)

    @pytest.mark.parametrize(
        ("part", "value"),
        [("token", "gAAAAA"), ("token", None), ("salt", "ä"), ("n", 3), ("n", 2**40), ("n", "x"), ("r", -1), ("p", 0)],
    )
    def test_a_damaged_file(self, settings: Settings, server: Server, stored: Path, part: str, value: object) -> None:
        stored.write_text(json.dumps({**json.loads(stored.read_text()), part: value}))
        assert re.search("damaged.*Nothing was changed", self.refusal(settings, server))

    @pytest.mark.parametrize("text", ["", '{"token": ', "[]", "{}"])
    def test_half_a_file(self, settings: Settings, server: Server, stored: Path, text: str) -> None:
        stored.write_text(text)
        assert "damaged" in self.refusal(settings, server)

    def test_names_that_lead_elsewhere(self, settings: Settings, server: Server, stored: Path, tmp_path: Path) -> None:
        stored.write_text(json.dumps(vault.lock(WORDS, {"../escaped": "x"})))
        assert "damaged" in self.refusal(settings, server)
        assert not (tmp_path / "escaped").exists()

    def test_a_snapshot_without_secrets_or_none_at_all(self, settings: Settings, server: Server, stored: Path) -> None:
        stored.unlink()
        shown = self.refusal(settings, server)
        assert "made without --with-secrets; those that have: none" in shown and "ROOT_PASSWORD=... PYPI_PASSWORD=..." in shown
        assert f"known: {SNAPSHOT}" in self.refusal(settings, server, "2020-01-01T00-00-00Z")


class TestBeforeAnythingIsDone:
    def make(self, settings: Settings) -> str:
        with pytest.raises((BadInput, NotReady)) as caught:
            backup.run(World(), settings, native.Server(World(), settings), full=False, with_secrets=True, to="")
        assert not settings.backup_home.exists()
        return told(caught)

    def test_no_passphrase_and_nobody_to_ask(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = settings_of(tmp_path, f"BACKUP_HOME={tmp_path / 'backups'}\n")
        fill(settings.secrets_home, SECRETS)
        with Path(os.devnull).open() as nothing:
            monkeypatch.setattr("sys.stdin", nothing)
            assert "BACKUP_PASSPHRASE is not set" in self.make(settings)

    def test_one_that_is_soon_guessed(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, f"BACKUP_HOME={tmp_path / 'backups'}\n", BACKUP_PASSPHRASE="hunter2")
        fill(settings.secrets_home, SECRETS)
        shown = self.make(settings)
        assert "expected 12 characters or more" in shown and "hunter2" not in shown

    def test_secrets_that_are_not_there_not_text_or_not_ours_to_read(self, tmp_path: Path) -> None:
        with public_folder() as folder:
            settings = settings_of(folder, f"BACKUP_HOME={tmp_path / 'backups'}\n", BACKUP_PASSPHRASE=WORDS)
            assert "there are no secrets in" in self.make(settings)
            fill(settings.secrets_home, SECRETS)
            (settings.secrets_home / "extra").write_bytes(b"\xff")
            assert "extra is not text" in self.make(settings)
            settings.secrets_home.chmod(0)
            with unprivileged(), pytest.raises(NotReady, match="cannot be read: Permission denied"):
                vault.gather(settings)
            settings.secrets_home.chmod(0o700)


class TestHidden:
    def test_the_passphrase_is_in_no_manifest_no_template_and_no_servers_environment(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pypi_tasks import compose

        monkeypatch.setenv("BACKUP_PASSPHRASE", WORDS)
        assert "BACKUP_PASSPHRASE" not in backup.public(settings)
        assert "BACKUP_PASSPHRASE" not in compose.variables(settings, "dev")
        assert WORDS not in native.Server(World(), settings).environment().values()
        assert WORDS not in repr(settings)
