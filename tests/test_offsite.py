"""Snapshots by rclone, to a folder that it takes for a remote: in what order, what is sent twice, what is refused."""

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest
from pool import Pool, Stored
from snapshot import DATABASE, SERVER, Backups, Manifest, Snapshot

from pypi_tasks import backup, native, offsite
from pypi_tasks.errors import BadInput, Failed, NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.world import World
from tests.helpers import NOBODY, public_folder, settings_of, told, unprivileged


@pytest.fixture(autouse=True)
def rclone() -> None:
    """The program itself. In CI it has to be there (.ci/programs)."""
    if not shutil.which("rclone"):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("rclone is not there")


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What rclone knows as elsewhere:"""
    monkeypatch.setenv("RCLONE_CONFIG_ELSEWHERE_TYPE", "alias")
    monkeypatch.setenv("RCLONE_CONFIG_ELSEWHERE_REMOTE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    return tmp_path / "elsewhere" / "pypi"


REMOTE = "elsewhere:pypi"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, f"BACKUP_HOME={tmp_path / 'backups'}\n")


def make(settings: Settings, name: str, *texts: str) -> Snapshot:
    """A snapshot of these files and a database of its own, as pypi_server lays it down."""
    place = Backups(settings.backup_home)
    files, server = {}, {}
    with place.claimed():
        for text in texts:
            (place.work / "file").write_text(text)
            files[f"pypi/stable/+f/{text}.whl"] = place.pool.add(place.work / "file")
        made = Snapshot(place.work / name)
        for part in SERVER:
            path = made.folder / "server" / part
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{part} of {name}")
            server[part] = Stored(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        _, pieces = place.pool.add_pieces(made.server / DATABASE)
        (made.server / DATABASE).unlink()
        made.write(Manifest("2026-01-01T00:00:00+00:00", 1, "", "", "4", server, files, {}, [], pieces, devpi="6"))
        finished = place.finish(made)
        finished.note(True)
    return finished


def tree(folder: Path) -> dict[str, bytes]:
    """All files but those that are each place's own."""
    own = ("verified.json", "lock")
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in own
    }


def send(settings: Settings, name: str) -> None:
    offsite.send(World(), settings, REMOTE, name)


class TestSent:
    def test_all_of_it_arrives_and_a_second_one_sends_what_is_new(
        self, settings: Settings, elsewhere: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        send(settings, make(settings, "2026-01-01T00-00-00Z", "one", "two").name)
        assert tree(elsewhere) == tree(settings.backup_home)
        assert "3 contents sent" in capfd.readouterr().out
        before = {path: path.stat().st_ctime_ns for path in elsewhere.rglob("*") if path.is_file()}
        send(settings, make(settings, "2026-01-02T00-00-00Z", "two", "three").name)
        assert tree(elsewhere) == tree(settings.backup_home)
        assert "2 contents sent" in capfd.readouterr().out
        assert before == {path: path.stat().st_ctime_ns for path in before}

    def test_what_it_does_not_need_stays(self, settings: Settings, elsewhere: Path) -> None:
        made = make(settings, "2026-01-01T00-00-00Z", "one")
        make(settings, "2026-01-02T00-00-00Z", "two")
        send(settings, made.name)
        assert len([path for path in tree(elsewhere) if path.startswith("files/")]) == 2

    def test_a_content_that_arrived_in_part_is_sent_again(self, settings: Settings, elsewhere: Path) -> None:
        made = make(settings, "2026-01-01T00-00-00Z", "one", "two")
        send(settings, made.name)
        content = next((elsewhere / "files").rglob("*/*"))
        content.chmod(0o644)
        content.write_bytes(b"o")
        send(settings, made.name)
        assert tree(elsewhere) == tree(settings.backup_home)

    def test_one_that_cannot_be_sent_whole_is_no_snapshot_there(self, settings: Settings, elsewhere: Path) -> None:
        made = make(settings, "2026-01-01T00-00-00Z", "one", "two")
        next((settings.backup_home / "files").rglob("*/*")).unlink()
        with pytest.raises(Failed, match="1 content did not arrive"):
            send(settings, made.name)
        assert not [path for path in tree(elsewhere) if path.startswith("snapshots/")]

    def test_the_manifests_digest_comes_after_all_else(self, settings: Settings, elsewhere: Path) -> None:
        send(settings, make(settings, "2026-01-01T00-00-00Z", "one").name)
        born = {path: path.stat().st_ctime_ns for path in elsewhere.rglob("*") if path.is_file()}
        assert max(born, key=lambda path: born[path]).name == "manifest.sha256"

    def test_a_damaged_manifest_is_not_sent(self, settings: Settings, elsewhere: Path) -> None:
        made = make(settings, "2026-01-01T00-00-00Z", "one")
        (made.folder / "manifest.json").write_text("{}")
        with pytest.raises(Failed, match=r"manifest\.json is not what manifest\.sha256 says"):
            send(settings, made.name)
        assert not elsewhere.exists()

    def test_a_dry_run_sends_nothing(self, settings: Settings, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
        world = World(dry=True)
        offsite.send(world, settings, REMOTE, "")
        assert not elsewhere.exists()
        assert f"{settings.backup_home}/files {REMOTE}/files" in capsys.readouterr().out


class TestFetched:
    def test_on_a_new_machine_it_is_the_same_and_whole(self, settings: Settings, elsewhere: Path) -> None:
        for day, text in ((1, "one"), (2, "two")):
            send(settings, make(settings, f"2026-01-0{day}T00-00-00Z", text, "both").name)
        before = tree(settings.backup_home)
        shutil.rmtree(settings.backup_home)
        assert offsite.fetch(World(), settings, REMOTE) == "2026-01-02T00-00-00Z"
        newest = tree(settings.backup_home)
        assert len([path for path in newest if path.startswith("files/")]) == 3 and newest.items() < before.items()
        found = Backups(settings.backup_home).find()
        assert found.name == "2026-01-02T00-00-00Z" and found.verified()
        offsite.fetch(World(), settings, REMOTE, "2026-01-01T00-00-00Z")
        assert tree(settings.backup_home) == before == tree(elsewhere)
        sound = Backups(settings.backup_home).sound()
        assert not [one for snapshot in Backups(settings.backup_home).all() for one in snapshot.damage(sound)]
        assert stat.S_IMODE(settings.backup_home.stat().st_mode) == 0o700

    def test_one_that_is_here_is_left_alone(self, settings: Settings, elsewhere: Path) -> None:
        send(settings, make(settings, "2026-01-01T00-00-00Z", "one").name)
        shutil.rmtree(elsewhere / "files")
        before = tree(settings.backup_home)
        assert offsite.fetch(World(), settings, REMOTE) == "2026-01-01T00-00-00Z"
        assert tree(settings.backup_home) == before

    @pytest.mark.parametrize("where", ["files/*/*", "snapshots/*/server/.nodeinfo", "snapshots/*/manifest.json"])
    def test_what_was_damaged_elsewhere_is_not_taken(self, settings: Settings, elsewhere: Path, where: str) -> None:
        send(settings, make(settings, "2026-01-01T00-00-00Z", "one").name)
        path = next(elsewhere.glob(where))
        path.chmod(0o644)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"X")
        shutil.rmtree(settings.backup_home)
        with pytest.raises(Failed, match=r"damaged|not as its manifest says") as caught:
            offsite.fetch(World(), settings, REMOTE)
        assert "the same command again" not in told(caught) and "inv backups" not in told(caught)
        assert not (settings.backup_home / "work").exists()
        assert not (settings.backup_home / "snapshots").exists()
        assert not [
            one
            for one in Pool(settings.backup_home).contents()
            if not Pool(settings.backup_home).is_sound(one.parent.name + one.name)
        ]
        path.write_bytes(content)
        offsite.fetch(World(), settings, REMOTE)
        assert tree(settings.backup_home) == tree(elsewhere)

    def test_what_is_not_there_elsewhere_is_told_with_what_helps(self, settings: Settings, elsewhere: Path) -> None:
        for day in (1, 2):
            send(settings, make(settings, f"2026-01-0{day}T00-00-00Z", f"of {day}").name)
        digest = hashlib.sha256(b"of 2").hexdigest()
        (elsewhere / "files" / digest[:2] / digest[2:]).unlink()
        shutil.rmtree(settings.backup_home)
        with pytest.raises(Failed) as caught:
            offsite.fetch(World(), settings, REMOTE)
        assert f"1 content of the snapshot missing in {REMOTE}/files" in told(caught) and digest[2:] in told(caught)
        assert f"Fix: inv fetch 2026-01-01T00-00-00Z --from {REMOTE}; or rclone copy" in told(caught)
        assert "--without-damaged" in told(caught)
        assert not list(Pool(settings.backup_home).contents())

    @pytest.mark.usefixtures("elsewhere")
    def test_what_is_damaged_here_is_moved_away_and_fetched_with_the_same_command(self, settings: Settings) -> None:
        made = make(settings, "2026-01-01T00-00-00Z", "one")
        send(settings, made.name)
        shutil.rmtree(made.folder)
        here = next(path for path in Pool(settings.backup_home).contents() if path.read_text() == "one")
        here.chmod(0o644)
        here.write_text("onX")
        with pytest.raises(Failed, match=r"moved to \S+damaged") as caught:
            offsite.fetch(World(), settings, REMOTE)
        assert "Fix: the same command again fetches what is missing" in told(caught)
        offsite.fetch(World(), settings, REMOTE)
        damaged = settings.backup_home / "damaged" / here.parent.name / here.name
        assert here.read_text() == "one" and damaged.read_text() == "onX"
        assert {path.stat().st_mode & 0o777 for path in Pool(settings.backup_home).contents()} == {0o444}

    def test_one_that_was_cut_off_is_none(self, settings: Settings, elsewhere: Path) -> None:
        send(settings, make(settings, "2026-01-01T00-00-00Z", "one").name)
        send(settings, make(settings, "2026-01-02T00-00-00Z", "two").name)
        (elsewhere / "snapshots" / "2026-01-02T00-00-00Z" / "manifest.sha256").unlink()
        shutil.rmtree(settings.backup_home)
        assert offsite.fetch(World(), settings, REMOTE) == "2026-01-01T00-00-00Z"
        part = r"known: 2026-01-01T00-00-00Z; sent only in part, without manifest\.sha256: 2026-01-02T00-00-00Z"
        with pytest.raises(BadInput, match=rf"no snapshot 2026-01-02.*{part}"):
            offsite.fetch(World(), settings, REMOTE, "2026-01-02T00-00-00Z")

    @pytest.mark.usefixtures("elsewhere")
    def test_rclone_that_has_all_from_variables_does_not_miss_its_file(
        self, settings: Settings, capfd: pytest.CaptureFixture[str]
    ) -> None:
        send(settings, make(settings, "2026-01-01T00-00-00Z", "one").name)
        assert "not found - using defaults" not in "".join(capfd.readouterr())

    @pytest.mark.usefixtures("elsewhere")
    def test_an_empty_place_and_no_place_at_all_are_told(self, settings: Settings) -> None:
        with pytest.raises(BadInput, match=r"no snapshot in elsewhere:pypi; known: none"):
            offsite.fetch(World(), settings, REMOTE)
        with pytest.raises(BadInput, match="expected NAME:PATH"):
            offsite.fetch(World(), settings, "")
        assert not settings.backup_home.exists()

    @pytest.mark.usefixtures("elsewhere")
    def test_what_root_fetches_belongs_to_whoever_makes_snapshots(self, settings: Settings) -> None:
        if os.getuid() != 0:
            pytest.skip("only root gives files away")
        send(settings, make(settings, "2026-01-01T00-00-00Z", "one").name)
        shutil.rmtree(settings.backup_home)
        offsite.fetch(World(), settings, REMOTE, owner=(NOBODY, NOBODY))
        assert {path.stat().st_uid for path in (settings.backup_home, *settings.backup_home.rglob("*"))} == {NOBODY}

    @pytest.mark.usefixtures("elsewhere")
    def test_a_dry_run_fetches_nothing(self, settings: Settings) -> None:
        send(settings, make(settings, "2026-01-01T00-00-00Z", "one").name)
        shutil.rmtree(settings.backup_home)
        offsite.fetch(World(dry=True), settings, REMOTE)
        assert not settings.backup_home.exists()


class TestRefused:
    """Before a snapshot is made."""

    def refusal(self, settings: Settings, to: str) -> str:
        with pytest.raises((BadInput, NotReady, Failed)) as caught:
            backup.run(World(), settings, native.Server(World(), settings), full=False, with_secrets=False, to=to)
        return told(caught)

    def test_no_rclone(self, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "install rclone" in self.refusal(settings, REMOTE)
        assert not settings.backup_home.exists()

    @pytest.mark.usefixtures("elsewhere")
    def test_a_remote_that_it_does_not_know(self, settings: Settings) -> None:
        assert "nowhere:pypi" in self.refusal(settings, "nowhere:pypi")
        assert not settings.backup_home.exists()

    @pytest.mark.parametrize("to", [":s3:bucket", "s3,secret_access_key=hunter2:bucket"])
    def test_credentials_on_the_command_line(self, settings: Settings, to: str) -> None:
        shown = self.refusal(settings, to)
        assert "rclone config" in shown and "hunter2" not in shown

    @pytest.mark.usefixtures("elsewhere")
    def test_a_backup_home_that_we_cannot_read(self) -> None:
        with public_folder() as folder:
            settings = settings_of(folder, f"BACKUP_HOME={folder / 'backups'}\n")
            settings.backup_home.mkdir(mode=0o700)
            settings.backup_home.chmod(0 if os.getuid() else 0o700)
            with unprivileged():
                assert "as root, or as uid" in self.refusal(settings, REMOTE)

    def test_a_folder_is_still_a_folder(self, settings: Settings) -> None:
        for to in ("backups", "/mnt/backups", "./a:b", "~/backups", "/a:b/c"):
            assert not offsite.is_remote(to)
            assert backup.redirected(settings, to).backup_home != settings.backup_home
        assert offsite.is_remote(REMOTE) and backup.redirected(settings, REMOTE) == settings
