"""Damage is found and named, and files are repaired: on the data of a real server, one copy of it for each test."""

import json
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks import verify
from tests.raw import Uploader
from tests.workspace import Workspace, clean_environment


@dataclass
class Data:
    """A server's folder and its snapshots."""

    home: Path
    backups: Path
    python: Path
    scripts: Path

    def verify(self, repair: bool = False, live: bool = True, snapshots: bool = True) -> dict[str, Any]:
        """The outcome of the script."""
        result = self.run("verify", {"repair": repair, "live": live, "snapshots": snapshots})
        assert result.returncode == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def damaged(self, **options: bool) -> list[dict[str, str]]:
        """What is damaged."""
        found: list[dict[str, str]] = self.verify(**options)["damage"]
        return found

    def run(self, script: str, job: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        environment = clean_environment() | {"DEVPI_HOME": str(self.home), "BACKUP_HOME": str(self.backups)}
        argv = [str(self.python), str(self.scripts / f"{script}.py")]
        return subprocess.run(argv, input=json.dumps(job), capture_output=True, text=True, env=environment)

    def backup(self) -> str:
        result = self.run("backup", {"do": "make"})
        assert result.returncode == 0, result.stderr
        return str(json.loads(result.stdout)["name"])

    @property
    def database(self) -> Path:
        return self.home / "server" / ".sqlite"

    @property
    def snapshot(self) -> Path:
        return next((self.backups / "snapshots").iterdir())

    @property
    def wheels(self) -> list[Path]:
        return sorted((self.home / "server" / "+files").rglob("*.whl"))

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.snapshot / "manifest.json").read_text())
        return found

    def pooled(self, stored: list[tuple[str, int]]) -> list[Path]:
        return [self.backups / "files" / digest[:2] / digest[2:] for digest, _ in stored]

    def contents(self) -> list[Path]:
        """What the snapshot has in the pool of files, and not of the database."""
        return self.pooled(list(self.manifest()["files"].values()))

    def pieces(self) -> list[Path]:
        """What it has of the database, in order."""
        return self.pooled(self.manifest()["pieces"])

    def name(self, wheel: Path) -> str:
        return str(wheel.relative_to(self.home / "server" / "+files"))

    def row(self, wheel: Path) -> tuple[int, bytes]:
        """The commit that put a file there."""
        query = "SELECT changelog.serial, data FROM changelog JOIN kv USING (serial) WHERE key = ?"
        with sqlite3.connect(self.database) as connection:
            found: tuple[int, bytes] = connection.execute(query, (self.name(wheel),)).fetchone()
        return found

    def wheel(self, name: str) -> Path:
        """The first of a project's files."""
        return next(path for path in self.wheels if path.name.startswith(name))

    def write(self, statement: str, *values: object) -> None:
        """Change the database behind devpi's back."""
        connection = sqlite3.connect(self.database)
        with connection:
            assert connection.execute(statement, values).rowcount == 1
        connection.close()


def flip(path: Path, at: int = -1) -> None:
    """Flip the lowest bit of a byte, the middle one for none."""
    content = bytearray(path.read_bytes())
    content[at if at >= 0 else len(content) // 2] ^= 1
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)


@pytest.fixture(scope="module")
def made(workspace: Workspace) -> Workspace:
    """A server that had two uploads and a snapshot, and a third upload since; it is stopped."""
    workspace.inv("up", "--env", "local")
    upload = Uploader(workspace)
    upload("probe", "1.0")
    upload("probe", "2.0")
    workspace.inv("backup", "--env", "local")
    upload("later", "1.0")
    workspace.inv("down", "--env", "local")
    return workspace


@pytest.fixture
def data(made: Workspace, tmp_path: Path) -> Data:
    shutil.copytree(made.home, tmp_path / "devpi", ignore=shutil.ignore_patterns("devpi.pid"))
    shutil.copytree(made.root / "backups", tmp_path / "backups")
    python = next((made.root / ".venvs").glob("devpi-*")) / "bin" / "python"
    return Data(tmp_path / "devpi", tmp_path / "backups", python, made.root / "pypi_server")


def test_sound_data_is_sound_and_nothing_of_it_is_changed(data: Data) -> None:
    before = {path: path.read_bytes() for path in data.home.rglob("*") if path.is_file()}
    found = data.verify()
    assert found["damage"] == [] and found["notes"] == [] and found["compared"] == data.snapshot.name
    assert (
        found["files"] == 3
        and found["snapshots"] == 1
        and found["contents"] == 2 + len(set(data.pieces()))
        and found["commits"] > 3
    )
    assert before == {path: path.read_bytes() for path in data.home.rglob("*") if path.is_file()}
    assert not list((data.backups).glob("work/*"))


@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_a_damaged_wheel_is_named_and_repaired_from_the_snapshot(data: Data, how: str) -> None:
    wheel = data.wheel("probe")
    sound = wheel.read_bytes()
    flip(wheel) if how == "flipped" else wheel.unlink()
    (found,) = data.damaged()
    assert (found["kind"], found["where"], found["source"]) == ("file", data.name(wheel), data.snapshot.name)
    assert found["why"] == "is not there" if how == "missing" else "not what devpi's database says" in found["why"]
    outcome = data.verify(repair=True)
    assert outcome["damage"][0]["repaired"] and wheel.read_bytes() == sound and wheel.stat().st_nlink == 1
    aside = data.home / outcome["aside"] / data.name(wheel)
    assert aside.exists() == (how == "flipped") and (how == "missing" or aside.read_bytes() != sound)
    assert data.damaged() == [] and [path for path in wheel.parent.iterdir() if path != wheel] == []


def test_a_damaged_wheel_that_no_snapshot_has_is_named_and_left_alone(data: Data) -> None:
    wheel = data.wheel("later")
    flip(wheel)
    damaged = wheel.read_bytes()
    (found,) = data.damaged(repair=True)
    assert (found["where"], found["source"], found["repaired"]) == (data.name(wheel), "", "")
    assert wheel.read_bytes() == damaged


def test_a_bit_of_a_commit_is_found_by_its_copy_in_the_snapshot(data: Data) -> None:
    """In a digest: the row can be read as before, and no file is at fault."""
    wheel = data.wheel("probe")
    serial, row = data.row(wheel)
    digest = sha256(wheel.read_bytes()).hexdigest().encode()
    wrong = bytes([digest[20] ^ 1])
    data.write("UPDATE changelog SET data = ? WHERE serial = ?", row.replace(digest, digest[:20] + wrong + digest[21:]), serial)
    (found,) = data.damaged(repair=True)
    assert found["kind"] == "commit" and f"{serial}: " in found["where"] and data.name(wheel) in found["where"]
    assert "is not what the snapshot has of it" in found["why"] and not found["source"]


def test_a_bit_of_the_database_file_is_found(data: Data) -> None:
    wheel = data.wheel("probe")
    serial, row = data.row(wheel)
    content = data.database.read_bytes()
    flip(data.database, content.index(row[row.index(data.name(wheel).encode()) :][:200]) + 150)
    found = data.damaged()
    assert [one["kind"] for one in found] == ["commit"] and found[0]["where"].startswith(f"{serial}: ")


def test_the_last_commit_of_the_snapshot_is_compared_too(data: Data) -> None:
    serial = json.loads((data.snapshot / "manifest.json").read_text())["serial"]
    with sqlite3.connect(data.database) as connection:
        (row,) = connection.execute("SELECT data FROM changelog WHERE serial = ?", (serial,)).fetchone()
    at = row.index(b"sha256=") + 9 if b"sha256=" in row else len(row) // 2
    data.write("UPDATE changelog SET data = ? WHERE serial = ?", row[:at] + bytes([row[at] ^ 1]) + row[at + 1 :], serial)
    outcome = data.verify()
    assert [one["where"].split(":")[0] for one in outcome["damage"]] == [str(serial)] and outcome["notes"] == []


def test_a_wrong_digest_in_a_commit_since_the_snapshot_is_not_the_files_fault(data: Data) -> None:
    """A file's address has its digest too."""
    wheel = data.wheel("later")
    serial, row = data.row(wheel)
    digest = sha256(wheel.read_bytes()).hexdigest().encode()
    data.write("UPDATE changelog SET data = ? WHERE serial = ?", row.replace(digest, digest[::-1]), serial)
    (found,) = data.damaged(repair=True)
    assert (found["kind"], found["where"], found["repaired"]) == ("commit", f"{serial}: {data.name(wheel)}", "")


def test_what_a_killed_server_left_unfinished_is_no_damage(data: Data) -> None:
    """It is there under another name, and the next start puts it in place."""
    wheel = data.wheel("later")
    wheel.rename(wheel.with_name(f"{wheel.name}-0123-tmp"))
    assert data.damaged() == []


MEANWHILE = """
import sqlite3, sys
from pathlib import Path
from commits import Commits
from devpi_server.fileutil import dumps
from live import Live
server, copy, name, content, aside = sys.argv[1:]
live = Live(Path(server), Commits(Path(copy)))
path, connection = live.path(name), sqlite3.connect(Path(server, ".sqlite"))
with connection:  # what devpi commits when a client removes a file
    serial = live.last + 1
    connection.execute("INSERT INTO changelog VALUES (?, ?)", (serial, dumps(({name: ("STAGEFILE", 1, None)}, []))))
    connection.execute("UPDATE kv SET serial = ? WHERE key = ?", (serial, name))
path.unlink()
print(live.damaged())
live.repair(name, Path(content), Path(content).parent.name + Path(content).name, Path(aside))
print(path.exists())
"""


def test_a_file_that_a_client_removes_meanwhile_is_no_damage_and_is_not_brought_back(data: Data, tmp_path: Path) -> None:
    wheel = data.wheel("probe")
    content = next(path for path in data.contents() if path.read_bytes() == wheel.read_bytes())
    shutil.copy(data.database, tmp_path / "copy")
    words = [str(data.home / "server"), str(tmp_path / "copy"), data.name(wheel), str(content), str(tmp_path / "aside")]
    argv = [str(data.python), "-c", MEANWHILE, *words]
    result = subprocess.run(argv, capture_output=True, text=True, env=clean_environment() | {"PYTHONPATH": str(data.scripts)})
    assert result.stdout.splitlines()[-2:] == ["{}", "False"], result.stdout + result.stderr


def test_a_snapshot_that_lacks_a_private_file_does_not_become_verified(data: Data) -> None:
    flip(data.wheel("later"))
    lacking = data.backups / "snapshots" / data.backup() / "verified.json"
    assert not lacking.exists() and [one["kind"] for one in data.damaged()] == ["file"] and not lacking.exists()


@pytest.mark.parametrize("row", [b"", b"\0" * 200, b"K\x7f\xff\xff\xffQ", b"N\0\0\0\x09abc"])
def test_a_commit_since_the_snapshot_that_cannot_be_read_is_named_with_its_keys(data: Data, row: bytes) -> None:
    """One of them asks for sixteen gigabytes."""
    serial, _ = data.row(data.wheel("later"))
    data.write("UPDATE changelog SET data = ? WHERE serial = ?", row, serial)
    (found,) = data.damaged()
    assert found["kind"] == "commit" and found["where"].startswith(f"{serial}: pypi/stable/") and "cannot be read" in found["why"]


def test_a_commit_that_is_gone_is_named(data: Data) -> None:
    serial, _ = data.row(data.wheel("probe-1.0"))
    data.write("DELETE FROM changelog WHERE serial = ?", serial)
    (found,) = data.damaged()
    assert found["where"].startswith(f"{serial}: ") and "is not there" in found["why"]


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE kv SET serial = serial - 1 WHERE key = ?", "did not set what kv says"),
        ("UPDATE kv SET keyname = 'STAGEFILF' WHERE key = ?", "did not set what kv says"),
        ("UPDATE kv SET key = 'x' || key WHERE key = ?", "did not set what kv says"),
        ("UPDATE kv SET serial = 99999 WHERE key = ?", "was not the last to set this key"),
        ("DELETE FROM kv WHERE key = ?", "set a key that kv lacks"),
    ],
)
def test_a_key_that_names_another_commit_is_named(data: Data, statement: str, why: str) -> None:
    key = data.name(data.wheel("later"))
    data.write(statement, key)
    found = data.damaged()
    assert found and all(one["kind"] == "commit" and key in one["where"] for one in found) and why in found[0]["why"]


def test_a_database_that_is_none_is_told(data: Data) -> None:
    data.database.write_bytes(b"nothing of the kind" * 1000)
    found = data.damaged()
    assert {one["kind"] for one in found} == {"database"} and "cannot be read" in found[-1]["why"]
    data.database.unlink()
    assert {one["kind"] for one in data.damaged()} == {"database"}


def test_pages_of_the_database_that_are_overwritten_are_told(data: Data) -> None:
    content = bytearray(data.database.read_bytes())
    content[4096 * 4 : 4096 * 6] = b"\xaa" * 8192
    data.database.write_bytes(content)
    assert {one["kind"] for one in data.damaged()} >= {"database"}


def test_a_damaged_content_of_a_snapshot_is_repaired_from_the_live_file(data: Data) -> None:
    content = data.contents()[0]
    sound = content.read_bytes()
    flip(content)
    (found,) = data.damaged()
    assert found["kind"] == "content" and found["source"].startswith("pypi/stable/+f/") and found["source"] in found["where"]
    assert not (data.snapshot / "verified.json").exists()
    outcome = data.verify(repair=True)
    assert content.read_bytes() == sound and (data.backups / outcome["aside"] / "files").is_dir()
    assert (data.snapshot / "verified.json").exists() and data.damaged() == []


def test_where_both_copies_are_damaged_nothing_is_touched(data: Data) -> None:
    wheel = data.wheel("probe-1")
    content = next(path for path in data.contents() if path.read_bytes() == wheel.read_bytes())
    flip(wheel)
    flip(content, 3)
    before = wheel.read_bytes(), content.read_bytes()
    found = data.damaged(repair=True)
    assert sorted((one["kind"], one["source"], one["repaired"]) for one in found) == [("content", "", ""), ("file", "", "")]
    assert (wheel.read_bytes(), content.read_bytes()) == before


@pytest.mark.parametrize("name", ["server/.nodeinfo", "manifest.json"])
def test_a_damaged_snapshot_is_named_and_counts_as_verified_no_more(data: Data, name: str) -> None:
    flip(data.snapshot / name)
    outcome = data.verify()
    (found,) = outcome["damage"]
    assert (found["kind"], found["where"]) == ("snapshot", data.snapshot.name) and name.removeprefix("server/") in found["why"]
    assert outcome["compared"] == "" and not (data.snapshot / "verified.json").exists()


def test_a_damaged_piece_of_a_snapshots_database_is_named_and_nothing_is_compared_with_it(data: Data) -> None:
    piece = data.pieces()[0]
    flip(piece)
    outcome = data.verify(repair=True)
    (found,) = outcome["damage"]
    assert found["kind"] == "content" and f"{data.snapshot.name}'s .sqlite" in found["where"] and not found["repaired"]
    assert outcome["compared"] == "" and not (data.snapshot / "verified.json").exists()


def test_a_snapshot_of_another_past_is_no_damage(data: Data) -> None:
    """As after an older snapshot was restored, and the server went on from there."""
    (data.home / "old").write_bytes(b"".join(path.read_bytes() for path in data.pieces()))
    newest = data.backup()
    shutil.copy(data.home / "old", data.database)
    assert [note for note in data.verify()["notes"] if newest in note and "another past" in note]
    assert data.damaged() == []


def test_one_half_of_it_can_be_looked_at_alone(data: Data) -> None:
    flip(data.wheels[0])
    flip(data.snapshot / "server" / ".nodeinfo")
    assert {one["kind"] for one in data.damaged(snapshots=False)} == {"file"}
    assert {one["kind"] for one in data.damaged(live=False)} == {"snapshot"}


def test_without_snapshots_the_live_data_is_looked_at_and_it_is_said(data: Data) -> None:
    shutil.rmtree(data.backups)
    flip(data.wheels[0])
    outcome = data.verify()
    assert [one["kind"] for one in outcome["damage"]] == ["file"] and "there are no snapshots" in outcome["notes"][0]


def test_where_the_data_is_lost_the_snapshots_are_looked_at_and_it_is_said(data: Data) -> None:
    shutil.rmtree(data.home / "server")
    outcome = data.verify()
    assert (
        not outcome["live"] and outcome["snapshots"] == 1 and "no server's data here, only the snapshots" in outcome["notes"][0]
    )
    flip(data.contents()[0])
    assert [one["kind"] for one in data.damaged()] == ["content"]


def test_without_any_data_or_to_look_at_that_alone_it_is_refused(data: Data) -> None:
    shutil.rmtree(data.home / "server")
    for snapshots in (False, True):
        result = data.run("verify", {"repair": False, "live": True, "snapshots": snapshots})
        assert result.returncode == 1 and "there is no server's data here yet" in result.stderr
        shutil.rmtree(data.backups, ignore_errors=True)


def restore(data: Data, **job: Any) -> subprocess.CompletedProcess[str]:
    """The outcome of a restore's first step."""
    return data.run("restore", {"do": "prepare", "snapshot": "", **job})


def test_a_snapshot_is_restored_without_its_damaged_files_if_that_is_wished(data: Data) -> None:
    """The data is lost, and of one of two wheels the only copy is damaged: that of the last commit, with which devpi starts."""
    shutil.rmtree(data.home / "server")
    files = data.manifest()["files"]
    damaged = next(path for path in files if "probe-2.0" in path)
    flip(data.pooled([files[damaged]])[0])
    refused = restore(data)
    assert refused.returncode == 1 and f"is damaged: not what the manifest says: +files/{damaged}." in refused.stderr
    assert f"Fix: inv restore {data.snapshot.name} --without-damaged" in refused.stderr
    assert "no snapshot is verified" in restore(data).stderr
    made = restore(data, snapshot=data.snapshot.name, without_damaged=True)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["damaged"] == [f"+files/{damaged}"] and json.loads(made.stdout)["lost"] == 0
    restored = data.home / "server.restoring"
    assert sorted(str(path.relative_to(restored / "+files")) for path in restored.rglob("*.whl")) == sorted({*files} - {damaged})
    with sqlite3.connect(restored / ".sqlite") as connection:
        (serial,) = connection.execute("SELECT MAX(serial) FROM changelog").fetchone()
    assert serial == data.manifest()["serial"] + 1  # devpi would not start without the files of its last commit
    restored.rename(data.home / "server")
    assert [one["where"] for one in data.damaged(snapshots=False)] == [damaged]
    environment = clean_environment() | {"DEVPISERVER_SERVERDIR": str(data.home / "server"), "PYTHONWARNINGS": "ignore"}
    fsck = subprocess.run([data.python.with_name("devpi-fsck")], env=environment, capture_output=True, text=True)
    assert "probe-2.0" in fsck.stdout + fsck.stderr and "probe-1.0" not in fsck.stdout + fsck.stderr


def test_without_its_database_nothing_can_be_restored_and_a_sound_snapshot_is_named(data: Data) -> None:
    first, older = data.snapshot.name, data.manifest()["pieces"]
    data.write("INSERT INTO changelog SELECT MAX(serial) + 1, data FROM changelog")
    second = data.backup()
    manifest = json.loads((data.backups / "snapshots" / second / "manifest.json").read_text())
    flip(data.pooled([stored for stored in manifest["pieces"] if stored not in older])[0])
    refused = restore(data, snapshot=second, without_damaged=True)
    assert ".sqlite" in refused.stderr and f"Fix: inv restore {first}, which is verified\n" in refused.stderr
    assert not (data.home / "server.restoring").exists()


def test_the_advice_fits_what_is_damaged() -> None:
    found = [{"kind": "file", "source": "2026"}, {"kind": "commit", "source": ""}]
    assert verify.advice(found)[0].startswith("`inv verify --repair`") and "inv restore" in verify.advice(found)[1]
    assert "upload again" in verify.advice([{"kind": "file", "source": ""}])[0]
    assert "inv backup" in verify.advice([{"kind": "snapshot", "source": ""}])[0]
    lost = "; ".join(verify.advice([{"kind": "content", "source": ""}], live=False))
    assert "inv backup`" not in lost and "--without-damaged" in lost
