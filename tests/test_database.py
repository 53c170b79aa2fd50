"""devpi's database seen from outside: a copy of one instant, and what it says of files."""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import database
import pytest
from database import Database, digests_of, file_of

SCHEMA = """
    CREATE TABLE changelog (serial INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE kv (key TEXT NOT NULL PRIMARY KEY, keyname TEXT, serial INTEGER);
    CREATE INDEX kv_serial_idx ON kv (serial);
"""
Changes = dict[str, tuple[str, Any]]


class Readable(Database):
    """A database whose commits are JSON: devpi's own form is read by devpi, which is not installed with the tests."""

    def changes(self, serial: int) -> dict[str, Any]:
        row = self.connection.execute("SELECT data FROM changelog WHERE serial = ?", (serial,)).fetchone()
        found: dict[str, Any] = json.loads(row[0])
        return found


def create(path: Path) -> Path:
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.executescript(SCHEMA)
    return path


def commit(path: Path, changes: Changes, note: str = "") -> None:
    """What devpi does in a commit, but for the form of the values."""
    with contextlib.closing(sqlite3.connect(path)) as made, made:
        serial = made.execute("SELECT COALESCE(MAX(serial), -1) + 1 FROM changelog").fetchone()[0]
        data = json.dumps({key: (kind, -1, value) for key, (kind, value) in changes.items()} | ({"note": note} if note else {}))
        made.execute("INSERT INTO changelog VALUES (?, ?)", (serial, data.encode()))
        made.executemany(
            "INSERT OR REPLACE INTO kv VALUES (?, ?, ?)", [(key, kind, serial) for key, (kind, _) in changes.items()]
        )


def file(sha256: str, modified: str | None = "today") -> tuple[str, Any]:
    return "STAGEFILE", {"hash_spec": f"sha256={sha256}", "hashes": {"sha256": sha256}, "last_modified": modified}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return create(tmp_path / ".sqlite")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Database]:
    with contextlib.closing(Readable(path)) as found:
        yield found


def test_an_empty_one_has_no_commit(path: Path) -> None:
    with opened(path) as found:
        assert (found.serial, list(found.files()), found.mirrors()) == (-1, [], set())


def test_files_are_told_as_they_are_now(path: Path) -> None:
    commit(path, {"a": file("11"), "b": file("22"), "user/.config": ("USER", {})})
    commit(path, {"a": file("33")})
    commit(path, {"b": ("STAGEFILE", None)})
    with opened(path) as found:
        assert dict(found.files()) == {"a": {"sha256": "33"}, "b": None}
        assert dict(found.files(after=1)) == {"b": None}
        assert (found.file("a"), found.file("b"), found.file("none")) == ({"sha256": "33"}, None, None)
        assert (found.changed("a"), found.changed("none"), found.serial) == (1, -1, 2)


def test_a_mirrors_file_that_was_never_fetched_is_none(path: Path) -> None:
    commit(path, {"a": file("11", modified=None), "b": ("PYPIFILE_NOMD5", {"last_modified": "today"})})
    with opened(path) as found:
        assert dict(found.files()) == {"a": None, "b": {}}


@pytest.mark.parametrize(
    ("entry", "digests"),
    [
        ({"hashes": {"sha256": "1", "md5": "2"}, "hash_spec": "sha256=1"}, {"sha256": "1", "md5": "2"}),
        ({"hash_spec": "md5=2"}, {"md5": "2"}),
        ({"hash_spec": "md5=2", "hashes": {"sha256": "1"}}, {"md5": "2"}),  # as devpi: somebody older wrote hash_spec alone
        ({"hash_spec": "sha256=1", "hashes": {"sha256": "9", "md5": "2"}}, {"sha256": "1"}),
        ({"hashes": {"sha256": "1"}}, {"sha256": "1"}),
        ({"hash_spec": "", "hashes": None}, {}),
        ({}, {}),
    ],
)
def test_devpis_two_notes_of_a_digest_are_read_as_devpi_does(entry: dict[str, Any], digests: dict[str, str]) -> None:
    assert digests_of(entry) == digests
    assert file_of({**entry, "last_modified": "today"}) == digests and file_of(entry or None) is None


def test_mirrors_are_told_apart_from_stages(path: Path) -> None:
    indexes = {"stable": {"type": "stage"}, "other": {"type": "mirror"}}
    commit(path, {"one/.config": ("USER", {"indexes": indexes}), "two/.config": ("USER", {}), "gone/.config": ("USER", None)})
    with opened(path) as found:
        assert found.mirrors() == {"one/other"}


class TestDigest:
    """Whether a database is what another one has become."""

    @pytest.fixture
    def earlier(self, path: Path) -> str:
        commit(path, {"a": file("11")})
        commit(path, {"b": file("22")}, "same")
        with opened(path) as found:
            return found.digest(1)

    def test_what_went_on_has_that_of_its_past_and_what_is_the_same_has_it(self, path: Path, earlier: str) -> None:
        commit(path, {"a": ("STAGEFILE", None)})
        with opened(path) as found:
            assert found.serial == 2 and found.digest(1) == earlier != found.digest(2)
            assert found.digest(1) == earlier != found.digest(0)

    def test_what_was_set_back_has_not(self, tmp_path: Path, earlier: str) -> None:
        other = create(tmp_path / "other")
        commit(other, {"a": file("11")})
        with opened(other) as found:
            assert found.digest(1) != earlier

    def test_another_past_with_the_same_last_commit_has_not(self, tmp_path: Path, earlier: str) -> None:
        other = create(tmp_path / "other")
        commit(other, {"c": file("33")})
        commit(other, {"b": file("22")}, "same")
        with opened(other) as found:
            assert found.digest(1) != earlier

    def test_it_is_the_same_whatever_was_asked_before(self, path: Path, earlier: str) -> None:
        with opened(path) as found:
            first = found.digest(0)
            assert [found.digest(at) for at in (1, 0, 1)] == [earlier, first, earlier]


def test_a_copy_is_of_one_instant_while_commits_go_on(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "STEP", 1)
    for number in range(50):
        commit(path, {f"old{number}": file("1" * 2000)})
    end = threading.Event()

    def work() -> None:
        number = 0
        while not end.wait(0.01):
            number += 1
            commit(path, {f"new{number}": file("2" * 2000)})

    writer = threading.Thread(target=work)
    writer.start()
    try:
        for number in range(3):
            database.copy(path, tmp_path / str(number))
    finally:
        end.set()
        writer.join()
    for number in range(3):
        with opened(tmp_path / str(number)) as found:
            files = dict(found.files())
            assert found.complaints() == [] and len(files) == found.serial + 1 >= 50 and None not in files.values()


def test_what_a_killed_server_left_half_done_is_not_in_the_copy(path: Path, tmp_path: Path) -> None:
    commit(path, {"a": file("11")})
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as killed:
        killed.execute("PRAGMA cache_size = 1")
        killed.execute("BEGIN IMMEDIATE")
        for number in range(1, 50):
            killed.execute("INSERT INTO changelog VALUES (?, ?)", (number, b"x" * 5000))
        home = tmp_path / "killed"
        home.mkdir()
        for suffix in ("", "-journal"):
            (home / f".sqlite{suffix}").write_bytes((path.parent / f".sqlite{suffix}").read_bytes())
    database.copy(home / ".sqlite", tmp_path / "copy")
    with opened(tmp_path / "copy") as found:
        assert found.complaints() == [] and dict(found.files()) == {"a": {"sha256": "11"}} and found.serial == 0


def test_a_damaged_one_is_told(path: Path, tmp_path: Path) -> None:
    for number in range(200):
        commit(path, {f"key{number}": file("1" * 500)})
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 6] = bytes(4096)
    (tmp_path / "damaged").write_bytes(content)
    with opened(tmp_path / "damaged") as found:
        assert found.complaints()


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        database.copy(tmp_path / "none", tmp_path / "copy")
    assert not (tmp_path / "none").exists()
