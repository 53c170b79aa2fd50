"""How far into the database's history the pages are true: told only where it is certain."""

import contextlib
import json
from pathlib import Path
from typing import Any

import history
import pytest
from history import REPLAY_LIMIT, History


class Database:
    """What a history asks of devpi's key store. Another past and a reboot cannot be had of a real one here."""

    def __init__(self, *commits: bytes) -> None:
        self.commits = list(commits)

    def get_connection(self) -> Any:
        return contextlib.nullcontext(self)

    @property
    def last_changelog_serial(self) -> int:
        return len(self.commits) - 1

    def get_raw_changelog_entry(self, serial: int) -> bytes | None:
        return self.commits[serial] if 0 <= serial < len(self.commits) else None

    def get_changes(self, serial: int) -> bytes:
        return self.commits[serial]


def missed(database: Database, file: Path) -> Any:
    """What a new process is told."""
    return History(database, file).missed()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pages" / "+state"


def test_what_was_committed_since_is_told(file: Path) -> None:
    database = Database(b"zero", b"one")
    History(database, file).save(1)
    database.commits += [b"two", b"three"]
    assert missed(database, file) == [b"two", b"three"]


def test_nothing_was_missed_by_one_who_heard_of_everything(file: Path) -> None:
    database = Database(b"zero", b"one")
    History(database, file).save(1)
    assert missed(database, file) == []


def test_what_was_heard_of_counts_not_what_is_in_the_database(file: Path) -> None:
    """Killed between a commit and its removal of pages, a server leaves pages that the next one has to remove."""
    database = Database(b"zero", b"one")
    History(database, file).save(0)
    assert missed(database, file) == [b"one"]


@pytest.mark.parametrize("now", [Database(b"zero"), Database(b"zero", b"other"), Database(b"zero", b"other", b"two"), Database()])
def test_another_past_is_not_ours(file: Path, now: Database) -> None:
    """A restored snapshot, another DEVPI_HOME."""
    History(Database(b"zero", b"one"), file).save(1)
    assert missed(now, file) is None


def test_after_a_reboot_nothing_is_certain(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    database = Database(b"zero")
    History(database, file).save(0)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(history, "BOOT", tmp_path / "boot_id")
    assert missed(database, file) is None


def test_so_many_commits_that_beginning_anew_is_cheaper(file: Path) -> None:
    database = Database(b"zero")
    History(database, file).save(0)
    database.commits += [b"more"] * (REPLAY_LIMIT - 1)
    assert len(missed(database, file)) == REPLAY_LIMIT - 1
    database.commits.append(b"one too many")
    assert missed(database, file) is None


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"serial": "x"}', '{"serial": 0}', "\0"])
def test_a_file_that_cannot_be_read_is_none(file: Path, content: str | None) -> None:
    file.parent.mkdir()
    if content is not None:
        file.write_text(content)
    assert missed(Database(b"zero"), file) is None


def test_an_empty_database_has_a_history_too(file: Path) -> None:
    History(Database(), file).save(-1)
    assert missed(Database(b"zero"), file) == [b"zero"]


def test_is_written_once_for_each_serial_and_never_half(file: Path) -> None:
    written = History(Database(b"zero"), file)
    written.save(0)
    before = file.stat().st_ino
    written.save(0)
    assert file.stat().st_ino == before and json.loads(file.read_text())["serial"] == 0
    assert [one.name for one in file.parent.iterdir()] == ["+state"]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "pages").write_text("in the way")
    History(Database(b"zero"), tmp_path / "pages" / "+state").save(0)
    assert (tmp_path / "pages").read_text() == "in the way"
