"""When a snapshot is due, by times of day and intervals, and after a clock that was wrong."""

import datetime
import json
from pathlib import Path

import backup
import pytest
import schedule
import snapshot
from schedule import due
from snapshot import Backups

from tests.test_snapshot import NOON, manifest

HOUR = datetime.timedelta(hours=1)


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(f"2026-{text}+00:00")


@pytest.mark.parametrize(
    ("parts", "last", "expected"),
    [
        ("02:30", "01-02T02:29:59", "01-02T02:30:00"),
        ("02:30", "01-02T02:30:00", "01-03T02:30:00"),
        ("02:30", "01-02T02:30:01", "01-03T02:30:00"),
        ("00:00", "01-02T23:59:59", "01-03T00:00:00"),
        ("00:00", "01-02T00:00:00", "01-03T00:00:00"),
        ("23:59", "12-31T23:59:30", "2027-01-01T23:59:00"),
        ("14:30,02:30", "01-02T03:00:00", "01-02T14:30:00"),
        ("14:30,02:30", "01-02T15:00:00", "01-03T02:30:00"),
        ("6h", "01-02T20:00:00", "01-03T02:00:00"),
        ("30m", "01-02T23:45:10", "01-03T00:15:10"),
        ("02:30,6h", "01-02T01:00:00", "01-02T02:30:00"),
        ("02:30,6h", "01-02T03:00:00", "01-02T09:00:00"),
    ],
)
def test_the_first_time_after_the_last_that_any_part_names(parts: str, last: str, expected: str) -> None:
    when = datetime.datetime.fromisoformat(f"{expected}+00:00") if expected.startswith("2027") else at(expected)
    assert due(parts.split(","), at(last)) == when


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backups:
    """A place for backups at noon, beside a server's data."""
    (tmp_path / "devpi" / "server").mkdir(parents=True)
    (tmp_path / "devpi" / "server" / ".nodeinfo").write_text("{}")
    monkeypatch.setenv("DEVPI_HOME", str(tmp_path / "devpi"))
    monkeypatch.setenv("BACKUP_HOME", str(tmp_path / "backups"))
    for module in (snapshot, schedule):
        monkeypatch.setattr(module, "now", lambda: NOON)
    return backup.backups()


def made(place: Backups, when: datetime.datetime) -> None:
    with place.claimed():
        one = place.new()
        one.write(manifest(made=when.isoformat()))
        place.finish(one)


def test_what_was_missed_is_made_up_for_at_once(place: Backups) -> None:
    assert schedule.wait(["6h"]) == 0
    made(place, NOON - 7 * HOUR)
    assert schedule.wait(["6h"]) == 0 and schedule.wait(["11:59"]) == 0


def test_until_the_next_one_it_looks_at_the_clock_every_minute(place: Backups) -> None:
    made(place, NOON - HOUR)
    assert schedule.wait(["6h"]) == 60 and schedule.wait(["12:01"]) == 60
    assert 0 < schedule.wait(["61m"]) <= 60


def test_a_snapshot_of_a_clock_that_was_ahead_keeps_nobody_waiting(place: Backups) -> None:
    made(place, NOON + 24 * 400 * HOUR)
    assert schedule.wait(["6h"]) == 0
    made(place, NOON)  # its name is later than the other's all the same
    assert schedule.wait(["6h"]) == 60


def test_where_there_is_no_data_yet_it_waits_for_it(place: Backups, tmp_path: Path) -> None:
    (tmp_path / "devpi" / "server" / ".nodeinfo").unlink()
    assert schedule.wait(["6h"]) == schedule.SOON


def test_a_failure_is_a_line_and_no_end(place: Backups, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schedule.work({"last": 1}, ["6h"]) is False
    assert capsys.readouterr().out.startswith("no snapshot: devpi's database cannot be read: ")
    (tmp_path / "devpi" / "server" / ".sqlite").write_bytes(b"no database at all" * 1000)
    assert schedule.work({"last": 1}, ["6h"]) is False
    assert "devpi's database is damaged" in capsys.readouterr().out
    assert place.all() == [] and not place.work.exists()
    found = json.loads((place.folder / "schedule.json").read_text())
    assert found["failed"].startswith("no snapshot: devpi's database is damaged")
    assert found["at"] == NOON.isoformat() and found["next"] == (NOON + HOUR / 12).isoformat()


def test_how_it_went_is_written_in_as_many_bytes_each_time_so_that_a_full_disk_takes_it(place: Backups) -> None:
    place.folder.mkdir()
    for failed in ("", "\N{SNAKE}" * 10_000, "why"):
        schedule.record(failed, NOON)
        text = (place.folder / "schedule.json").read_bytes()
        assert len(text) == schedule.RECORD_SIZE and json.loads(text)["failed"] == failed[: len(json.loads(text)["failed"])]
    assert json.loads(text)["failed"] == "why"


def test_a_place_that_cannot_be_written_is_no_end_either(place: Backups, capsys: pytest.CaptureFixture[str]) -> None:
    schedule.record("why", NOON)
    assert capsys.readouterr().out == "why\n" and not place.folder.exists()


def test_the_schedule_is_told_in_words() -> None:
    assert [schedule.words(part) for part in ("02:30", "6h", "30m")] == ["at 02:30 UTC", "every 6 h", "every 30 min"]
