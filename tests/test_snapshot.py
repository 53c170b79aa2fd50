"""What a snapshot consists of, in which order they are, and that nothing half-made or damaged counts."""

import datetime
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import snapshot
from jobs import BadWish, Refusal
from pool import Stored
from snapshot import SCHEMA, Backups, Manifest, Snapshot, parse

from pypi_tasks.settings import ROOT
from tests.helpers import NOBODY, public_folder, unprivileged
from tests.test_pool import CONTENT, SHA256

DATABASE = b"database" * 20_000  # more than one piece

NOON = datetime.datetime(2026, 1, 2, 12, 0, 0, tzinfo=datetime.UTC)


def manifest(**changes: Any) -> Manifest:
    """A manifest of one file."""
    given: dict[str, Any] = {
        "made": "2026-01-02T12:00:00+00:00", "serial": 7, "digest": "d", "uuid": "u", "database": "4", "devpi": "6.20.3",
        "server": {".sqlite": Stored("0" * 64, 1)}, "files": {"pypi/stable/+f/a/a.whl": Stored(SHA256, len(CONTENT))},
        "lost": {}, "mirrors": ["root/pypi"],
    }  # fmt: skip
    return Manifest(**{**given, **changes})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backups:
    monkeypatch.setattr(snapshot, "now", lambda: NOON)
    return Backups(tmp_path / "backups")


def finished(place: Backups, is_whole: bool = True, contents: tuple[bytes, ...] = (CONTENT,)) -> Snapshot:
    """A snapshot with some contents."""
    with place.claimed():
        made = place.new()
        files = {}
        for content in contents:
            (place.work / "source").write_bytes(content)
            files[f"pypi/stable/+f/{content.decode()}"] = place.pool.add(place.work / "source")
        (place.work / "source").write_bytes(DATABASE)
        stored, pieces = place.pool.add_pieces(place.work / "source")
        made.write(manifest(files=files, server={".sqlite": stored}, pieces=pieces))
        made.note(is_whole)
        return place.finish(made)


class TestManifest:
    def test_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        made = manifest(lost={"x": "why"}, image="sha256:1", settings={"PROJECT": "é"})
        Snapshot(tmp_path).write(made)
        assert Snapshot(tmp_path).manifest() == made

    def test_one_flipped_bit_anywhere_is_noticed(self, tmp_path: Path) -> None:
        one = Snapshot(tmp_path)
        one.write(manifest())
        whole = (tmp_path / "manifest.json").read_bytes()
        for position in range(len(whole)):
            (tmp_path / "manifest.json").write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(Refusal, match="is damaged"):
                one.manifest()

    @pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
    @pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
    def test_without_one_of_its_two_files_it_is_damaged(self, tmp_path: Path, name: str, content: bytes | None) -> None:
        Snapshot(tmp_path).write(manifest())
        (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
        with pytest.raises(Refusal, match="is damaged"):
            Snapshot(tmp_path).manifest()

    @pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256"])
    def test_what_is_missing_is_named_without_the_containers_paths(self, tmp_path: Path, name: str) -> None:
        Snapshot(tmp_path).write(manifest())
        (tmp_path / name).unlink()
        with pytest.raises(Refusal) as caught:
            Snapshot(tmp_path).manifest()
        assert str(caught.value) == f"snapshot {tmp_path.name} is damaged: {name} is missing: only half copied?"

    def test_one_that_agrees_with_its_digest_and_is_none_of_ours_is_damaged_too(self, tmp_path: Path) -> None:
        for text in (b"{", b"{}", b"[]", b'{"schema": 1}'):
            (tmp_path / "manifest.json").write_bytes(text)
            (tmp_path / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())
            with pytest.raises(Refusal, match=r"is damaged: manifest\.json is none that this kit wrote"):
                Snapshot(tmp_path).manifest()

    def test_of_another_schema_is_refused_with_the_reason(self) -> None:
        with pytest.raises(Refusal, match=rf"schema 99, expected {SCHEMA}"):
            parse(json.dumps(vars(manifest(schema=99))).encode())

    def test_tells_what_can_be_fetched_again(self) -> None:
        assert manifest().is_mirrored("root/pypi/+f/1/x.whl") and not manifest().is_mirrored("pypi/stable/+f/1/x.whl")
        assert not manifest().is_mirrored("root/pypi2/+f/1/x.whl")


class TestVerified:
    def test_a_snapshot_is_not_until_it_is_noted_and_not_any_more_once_damage_is(self, tmp_path: Path) -> None:
        one = Snapshot(tmp_path)
        assert one.verified() == ""
        one.note(is_whole=True)
        assert one.verified()
        one.note(is_whole=False)
        assert one.verified() == ""

    @pytest.mark.parametrize("text", ["", "{", "{}", "[1]", "null"])
    def test_half_a_note_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "verified.json").write_text(text)
        assert Snapshot(tmp_path).verified() == ""

    def test_damage_names_what_is_damaged(self, place: Backups) -> None:
        one = finished(place)
        assert one.damage(place.sound()) == []
        begin, end = f"snapshot {one.name} is damaged: ", " is not what its manifest says"
        assert one.damage(set()) == [f"{begin}.sqlite{end}", f"{begin}pypi/stable/+f/a wheel{end}"]
        piece = place.pool.path(one.manifest().pieces[0].sha256)
        piece.chmod(0o644)
        piece.write_bytes(piece.read_bytes()[:-1] + b"f")
        assert one.damage(place.sound()) == [f"snapshot {one.name} is damaged: .sqlite is not what its manifest says"]
        (one.folder / "manifest.sha256").unlink()
        assert "manifest.sha256" in one.damage(place.sound())[0]


class TestOrder:
    def test_names_are_times(self, place: Backups) -> None:
        assert finished(place).name == "2026-01-02T12-00-00Z"

    def test_a_name_is_never_older_than_the_newest_even_if_the_clock_was_set_back(
        self, place: Backups, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = [finished(place).name, finished(place).name]
        monkeypatch.setattr(snapshot, "now", lambda: NOON - datetime.timedelta(days=400))
        made += [finished(place).name, finished(place).name]
        monkeypatch.setattr(snapshot, "now", lambda: NOON + datetime.timedelta(days=1))
        made.append(finished(place).name)
        assert made == sorted(set(made)) == [one.name for one in place.all()] and place.find().name == made[-1]

    def test_the_time_of_making_is_the_manifests_or_else_the_names(self, place: Backups) -> None:
        one = finished(place)
        assert one.made() == "2026-01-02T12:00:00+00:00"
        (one.folder / "manifest.json").unlink()
        assert one.made() == "2026-01-02T12:00:00+00:00"


class TestBackups:
    def test_what_is_in_the_making_does_not_count_and_is_gone_when_it_fails(self, place: Backups) -> None:
        with pytest.raises(KeyboardInterrupt), place.claimed():
            made = place.new()
            made.write(manifest())
            assert place.all() == []
            raise KeyboardInterrupt
        assert place.all() == [] and not place.work.exists()

    def test_what_a_killed_backup_left_is_gone_with_the_next(self, place: Backups) -> None:
        place.work.mkdir(parents=True)
        (place.work / "123.copy").write_bytes(b"half")
        finished(place)
        assert not place.work.exists()

    def test_two_at_once_is_refused(self, place: Backups) -> None:
        with (
            place.claimed(),
            pytest.raises(Refusal, match=r"another task is at work here, \S+; wait"),
            Backups(place.folder).claimed(),
        ):
            pass
        finished(place)

    def test_the_task_that_is_at_work_is_named_and_one_of_old_is_not(
        self, place: Backups, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("verify", "restore"):
            monkeypatch.setattr(sys, "argv", [f"/opt/pypi_server/{name}.py"])
            with place.claimed(), pytest.raises(Refusal, match=rf"at work here, {name}; wait"), Backups(place.folder).claimed():
                pass

    def test_nobody_else_may_look_inside(self, place: Backups) -> None:
        finished(place)
        for folder in (place.folder, place.pool.folder, place.folder / "snapshots"):
            assert folder.stat().st_mode & 0o077 == 0

    def test_the_newest_verified_one_is_meant_where_none_is_named(self, place: Backups) -> None:
        with pytest.raises(Refusal, match=r"there is no snapshot here.\n  Fix: `inv backup` makes one, `inv fetch` gets one"):
            place.find()
        first = finished(place)
        second = finished(place, is_whole=False)
        assert place.find().name == first.name and place.find(second.name).name == second.name
        with pytest.raises(BadWish, match=rf"known: {first.name}, {second.name}"):
            place.find("other")

    def test_where_all_are_damaged_nobody_is_told_to_make_one_of_data_that_may_be_lost(self, place: Backups) -> None:
        only = finished(place, is_whole=False)
        with pytest.raises(
            Refusal, match=rf"no snapshot is verified, of {only.name}.\n  Fix: `inv verify --snapshots`"
        ) as caught:
            place.find()
        assert "inv backup" not in str(caught.value)

    def test_removal_leaves_what_others_share(self, place: Backups) -> None:
        old, new = finished(place, contents=(b"shared", b"old")), finished(place, contents=(b"shared", b"new"))
        with place.claimed():
            place.remove([old])
        left = {path.read_bytes() for path in place.pool.contents()}
        assert {b"new", b"shared"} < left and b"old" not in left
        assert [one.name for one in place.all()] == [new.name] and new.damage(place.sound()) == []

    def test_nothing_is_removed_while_it_is_not_known_what_a_damaged_one_needs(self, place: Backups) -> None:
        old, damaged = finished(place, contents=(b"old",)), finished(place, contents=(b"needed",))
        (damaged.folder / "manifest.json").write_bytes(b"{")
        with place.claimed(), pytest.raises(Refusal, match=rf"{damaged.name} is damaged"):
            place.remove([old])
        pieces = len(set(old.manifest().pieces))  # of the database, the same for both
        assert len(place.all()) == 2 and len(list(place.pool.contents())) == 2 + pieces
        with place.claimed():
            place.remove([damaged])
        assert old.damage(place.sound()) == [] and len(list(place.pool.contents())) == 1 + pieces

    def test_a_place_that_cannot_be_written_is_refused_before_anything_with_the_command_that_mends_it(self) -> None:
        with public_folder() as folder:
            place = Backups(folder / "backups")
            finished(place)
            place.folder.chmod(0o555)
            with (
                unprivileged() as uid,
                pytest.raises(Refusal, match=rf"sudo chown -R {uid}:" if uid == NOBODY else "its owner"),
                place.claimed(),
            ):
                pass
            place.folder.chmod(0o755)
            assert not place.work.exists() and len(place.all()) == 1

    def test_ones_own_that_is_read_only_is_told_with_the_command_that_helps(self) -> None:
        with public_folder() as folder:
            place = Backups(folder / "backups")
            place.folder.mkdir(mode=0o555)
            if os.getuid() == 0:
                os.chown(place.folder, NOBODY, NOBODY)
            with (
                unprivileged(),
                pytest.raises(Refusal, match=r"its owner\. On the host: chmod u\+w BACKUP_HOME"),
                place.claimed(),
            ):
                pass
            place.folder.chmod(0o755)


def test_without_this_kit_a_snapshot_is_put_together_as_the_manual_says(place: Backups, tmp_path: Path) -> None:
    one = finished(place)
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    script = textwrap.dedent(manual.partition("python3 - BACKUP_HOME NAME TARGET <<'END'\n")[2].partition("       END\n")[0])
    target = tmp_path / "target"
    subprocess.run([sys.executable, "-", str(place.folder), one.name, str(target)], input=script, text=True, check=True)
    assert (target / ".sqlite").read_bytes() == DATABASE
    assert (target / "+files" / "pypi" / "stable" / "+f" / "a wheel").read_bytes() == CONTENT
    content = place.pool.path(SHA256)
    content.chmod(0o644)
    content.write_bytes(CONTENT[:-1] + b"X")
    again = [sys.executable, "-", str(place.folder), one.name, str(tmp_path / "again")]
    told = subprocess.run(again, input=script, text=True, check=True, capture_output=True).stdout
    assert told.splitlines() == ["DAMAGED: +files/pypi/stable/+f/a wheel"]
    content.unlink()
    again[-1] = str(tmp_path / "third")
    assert "MISSING" in subprocess.run(again, input=script, text=True, check=True, capture_output=True).stdout
    assert (tmp_path / "third" / ".sqlite").read_bytes() == DATABASE
