"""What keeps a snapshot from being restored, and how it takes the place of the data."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pool import Stored
from restore import exchange, shortage, unfit
from snapshot import Manifest

from pypi_tasks.settings import ROOT

MANIFEST = Manifest(
    made="2030-01-01T00:00:00+00:00", serial=7, digest="", uuid="", database="4", devpi="6.20.3",
    server={".sqlite": Stored("a", 1000)}, files={"pypi/stable/+f/x": Stored("b", 500)}, lost={}, mirrors=[],
)  # fmt: skip


def test_a_database_of_this_version_fits() -> None:
    assert unfit(MANIFEST, "4") == ""


@pytest.mark.parametrize(("version", "advice"), [("5", "newer images"), ("3", "devpi-export")])
def test_a_database_of_another_version_is_told_with_what_to_do(version: str, advice: str) -> None:
    told = unfit(dataclasses.replace(MANIFEST, database=version), "4")
    assert f"a database of version {version}" in told and advice in told


def test_room_is_needed_for_files_and_database() -> None:
    assert shortage(MANIFEST, 1501) == ""
    assert shortage(MANIFEST, 1500) == "the snapshot needs 1,500 bytes beside the data, and 1,500 are free"


def test_two_folders_change_places(tmp_path: Path) -> None:
    one, other = make(tmp_path / "one", "1"), make(tmp_path / "other", "2")
    exchange(one, other)
    assert content(one) == "2" and content(other) == "1"


def test_so_they_do_where_the_file_system_cannot_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    one, other = make(tmp_path / "one", "1"), make(tmp_path / "other", "2")
    exchange(one, other)
    assert content(one) == "2" and content(other) == "1"
    assert sorted(tmp_path.iterdir()) == [one, other]


def make(folder: Path, text: str) -> Path:
    """Something that looks like a server directory."""
    (folder / "+files").mkdir(parents=True)
    (folder / ".nodeinfo").write_text(text)
    (folder / "+files" / "content").write_text(text)
    return folder


def content(folder: Path) -> str:
    """Which of the directories it is; all of it."""
    assert (folder / ".nodeinfo").read_text() == (folder / "+files" / "content").read_text()
    return (folder / ".nodeinfo").read_text()


def do(home: Path, **job: Any) -> Any:
    """Run a job as the tasks do."""
    environment = os.environ | {"DEVPI_HOME": str(home), "BACKUP_HOME": str(home.parent / "backups")}
    command = [sys.executable, str(ROOT / "pypi_server" / "restore.py")]
    result = subprocess.run(command, input=json.dumps(job), env=environment, capture_output=True, text=True)
    return json.loads(result.stdout) if result.returncode == 0 else result.stderr


@pytest.mark.parametrize("place", ["", "server"])
def test_the_data_is_replaced_and_can_be_put_back_wherever_devpi_has_it(tmp_path: Path, place: str) -> None:
    home = tmp_path / "devpi"
    make(home / place, "old")
    make(home / "server.restoring", "new")
    (home / "public" / "pypi").mkdir(parents=True)
    switched = do(home, do="switch")
    assert content(home / "server") == "new" and content(home / switched["aside"]) == "old"
    assert not (home / ".nodeinfo").exists() and not list((home / "public").iterdir())
    undone = do(home, do="undo", **switched)
    assert content(home / place) == "old" and content(home / undone["failed"]) == "new"
    assert not (home / switched["aside"]).exists()


def test_a_machine_without_data_just_gets_it(tmp_path: Path) -> None:
    make(tmp_path / "devpi" / "server.restoring", "new")
    assert do(tmp_path / "devpi", do="switch") == {"aside": "", "was_home": False}
    assert content(tmp_path / "devpi" / "server") == "new"


def test_nothing_is_replaced_under_a_running_server(tmp_path: Path) -> None:
    import fcntl

    home = tmp_path / "devpi"
    make(home / "server", "old")
    make(home / "server.restoring", "new")
    with (home / "devpi.pid").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another server is running" in do(home, do="switch")
    assert content(home / "server") == "old"


def test_without_a_copy_there_is_nothing_to_switch_to(tmp_path: Path) -> None:
    make(tmp_path / "devpi" / "server", "old")
    assert "nothing was prepared" in do(tmp_path / "devpi", do="switch")
