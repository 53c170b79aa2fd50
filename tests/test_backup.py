"""Which snapshots stay, what a user sees of them, and a snapshot without an engine."""

import datetime
import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import backup as server
import pytest
from snapshot import Backups

from pypi_tasks import backup, home
from pypi_tasks.errors import BadInput, NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.world import World
from tests.helpers import NOBODY, public_folder, settings_of, told, unprivileged
from tests.packages import build_wheel, new_version, twine_upload
from tests.test_snapshot import finished
from tests.workspace import Workspace

NOW = datetime.datetime(2026, 3, 10, 12, 0, tzinfo=datetime.UTC)
NONE = {"last": 0, "daily": 0, "weekly": 0, "monthly": 0}


def named(*times: str) -> dict[str, str]:
    """Names and times of snapshots that were made then, of 2026."""
    return {f"2026-{time.replace(':', '-')}Z": f"2026-{time}+00:00" for time in times}


class TestKept:
    EVERY_SIX_HOURS = named(*(f"01-{day:02}T{hour:02}:00:00" for day in range(1, 32) for hour in (0, 6, 12, 18)))

    def test_the_last_ones(self) -> None:
        stay = server.kept(self.EVERY_SIX_HOURS, NONE | {"last": 2})
        assert stay == {"2026-01-31T12-00-00Z", "2026-01-31T18-00-00Z"}

    def test_the_newest_of_each_day(self) -> None:
        stay = server.kept(self.EVERY_SIX_HOURS, NONE | {"daily": 3})
        assert stay == {f"2026-01-{day}T18-00-00Z" for day in (29, 30, 31)}

    def test_the_newest_of_each_week_which_begins_on_monday(self) -> None:
        stay = server.kept(self.EVERY_SIX_HOURS, NONE | {"weekly": 3})
        assert stay == {f"2026-01-{day}T18-00-00Z" for day in (18, 25, 31)}

    def test_the_newest_of_each_month(self) -> None:
        made = named("01-05T00:00:00", "01-20T00:00:00", "02-01T00:00:00", "02-02T00:00:00", "03-01T00:00:00")
        assert server.kept(made, NONE | {"monthly": 2}) == {"2026-02-02T00-00-00Z", "2026-03-01T00-00-00Z"}

    def test_days_without_any_do_not_count(self) -> None:
        made = named("01-05T00:00:00", "01-20T00:00:00", "02-01T00:00:00")
        assert server.kept(made, NONE | {"daily": 2}) == {"2026-01-20T00-00-00Z", "2026-02-01T00-00-00Z"}

    def test_each_rule_keeps_its_own(self) -> None:
        stay = server.kept(self.EVERY_SIX_HOURS, {"last": 1, "daily": 2, "weekly": 2, "monthly": 1})
        assert stay == {f"2026-01-{day}T18-00-00Z" for day in (25, 30, 31)}

    def test_of_no_rule_is_nothing_and_of_few_all_stay(self) -> None:
        assert server.kept(self.EVERY_SIX_HOURS, NONE) == set()
        few = named("01-05T00:00:00", "01-06T00:00:00")
        assert server.kept(few, {"last": 9, "daily": 9, "weekly": 9, "monthly": 9}) == set(few)
        assert server.kept({}, {"last": 9, "daily": 9, "weekly": 9, "monthly": 9}) == set()

    def test_the_newest_of_a_day_is_the_one_made_last_even_where_the_clock_was_set_back(self) -> None:
        made = {"2027-01-01T00-00-00Z": "2027-01-01T00:00:00+00:00"}
        made |= {f"2027-01-01T00-00-{n:02}Z": f"2026-01-{n:02}T00:00:00+00:00" for n in range(1, 5)}
        assert server.kept(made, NONE | {"daily": 3}) == {f"2027-01-01T00-00-{n:02}Z" for n in (2, 3, 4)}


class TestStaying:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Backups:
        return Backups(tmp_path / "backups")

    def test_the_last_verified_one_stays_whatever_the_rules_say(self, place: Backups) -> None:
        finished(place)
        last = finished(place)
        assert server.staying(place.all(), NONE) == {last.name}

    def test_snapshots_that_lack_something_displace_no_verified_one(self, place: Backups) -> None:
        verified = [finished(place), finished(place)]
        lacking = [finished(place, is_whole=False) for _ in range(3)]
        stay = server.staying(place.all(), NONE | {"last": 2})
        assert stay == {one.name for one in (*verified, *lacking[1:])}

    def test_what_lacks_something_and_is_older_than_a_verified_one_goes(self, place: Backups) -> None:
        finished(place, is_whole=False)
        verified = finished(place)
        assert server.staying(place.all(), NONE | {"last": 5}) == {verified.name}

    def test_the_last_verified_one_with_secrets_stays_too(self, place: Backups) -> None:
        """A schedule makes them without."""
        old, secret, damaged = finished(place), finished(place), finished(place, is_whole=False)
        for one in (old, secret, damaged):
            (one.folder / "secrets.json").write_text("{}")
        last = [finished(place) for _ in range(3)][-1]
        assert server.staying(place.all(), NONE | {"last": 1}) == {secret.name, last.name}

    def test_prune_tells_what_goes_and_in_a_trial_leaves_it(self, place: Backups, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BACKUP_HOME", str(place.folder))
        first, second = finished(place), finished(place)
        job = {"keep": NONE | {"last": 1}}
        assert server.prune(job | {"dry": True}) == {"removed": [first.name], "kept": [second.name]}
        assert len(place.all()) == 2
        assert server.prune(job) == {"removed": [first.name], "kept": [second.name]}
        assert [one.name for one in place.all()] == [second.name]


class TestTable:
    @pytest.mark.parametrize(
        ("made", "text"),
        [
            ("2026-03-10T12:00:00+00:00", "0 s"),
            ("2026-03-10T11:59:01+00:00", "59 s"),
            ("2026-03-10T11:30:00+00:00", "30 min"),
            ("2026-03-10T06:00:00+00:00", "6 h"),
            ("2026-03-09T12:00:00+00:00", "1 d"),
            ("2025-03-10T12:00:00+00:00", "365 d"),
            ("2026-03-10T12:00:30+00:00", "0 s"),  # a clock that is ahead
        ],
    )
    def test_age_is_for_people(self, made: str, text: str) -> None:
        assert backup.age(made, NOW) == text

    def test_a_row_has_all_that_is_known(self) -> None:
        one = {
            "name": "n", "made": "2026-03-10T06:00:00+00:00", "serial": 1234, "files": 5678, "private": 90, "bytes": 5_000_000,
            "own": 4_000, "secrets": True, "verified": "2026-03-10T11:00:00+00:00", "lost": {},
        }  # fmt: skip
        assert backup.row(one, NOW) == ["n", "6 h", "1,234", "90", "5,678", "5 MB", "4 kB", "yes", "1 h ago"]
        assert backup.row(one | {"verified": "", "secrets": False}, NOW)[-2:] == ["", "NO"]
        assert backup.row({"name": "n", "damaged": "why"}, NOW) == ["n", *[""] * 7, "DAMAGED"]


def seen(folder: Path, made: str = "", verified: bool = True) -> Settings:
    """The settings of a place with one snapshot of that time, or none."""
    settings = settings_of(folder, BACKUP_HOME=str(folder / "backups"))
    if made:
        one = folder / "backups" / "snapshots" / "2026-03-09T00-00-00Z"
        one.mkdir(parents=True)
        (one / "manifest.json").write_text(json.dumps({"made": made}))
        if verified:
            (one / "verified.json").write_text("{}")
    return settings


class TestStanding:
    def test_none_is_told_and_an_alarm_only_with_a_schedule(self, tmp_path: Path) -> None:
        assert backup.standing(seen(tmp_path), NOW) == ("backups: none; `inv backup` makes one", False)
        settings = settings_of(tmp_path, BACKUP_HOME=str(tmp_path / "backups"), BACKUP_SCHEDULE="6h")
        assert backup.standing(settings, NOW)[1] is True

    def test_the_newest_verified_one_has_its_age(self, tmp_path: Path) -> None:
        line, is_alarm = backup.standing(seen(tmp_path, "2026-03-10T09:00:00+00:00"), NOW)
        assert "2026-03-09T00-00-00Z, was made 3 h ago" in line and "TOO OLD" not in line and not is_alarm

    @pytest.mark.parametrize(("hour", "is_old"), [("10", False), ("09", True)])
    def test_what_is_older_than_the_setting_allows_is_an_alarm(self, tmp_path: Path, hour: str, is_old: bool) -> None:
        line, is_alarm = backup.standing(seen(tmp_path, f"2026-03-09T{hour}:59:00+00:00"), NOW)
        assert ("TOO OLD, expected at most 26 h" in line, is_alarm) == (is_old, is_old)

    def test_what_is_not_verified_is_none(self, tmp_path: Path) -> None:
        settings = seen(tmp_path, "2026-03-10T09:00:00+00:00", verified=False)
        assert backup.standing(settings, NOW) == ("backups: none is verified, of 1", True)

    @pytest.mark.parametrize(("at", "failed", "is_told"), [("11", "why", True), ("08", "why", False), ("11", "", False)])
    def test_a_schedule_that_fails_is_an_alarm_until_there_is_a_newer_snapshot(
        self, tmp_path: Path, at: str, failed: str, is_told: bool
    ) -> None:
        seen(tmp_path, "2026-03-10T09:00:00+00:00")
        settings = settings_of(tmp_path, BACKUP_HOME=str(tmp_path / "backups"), BACKUP_SCHEDULE="6h")
        found = {"at": f"2026-03-10T{at}:00:00+00:00", "failed": failed, "next": "2026-03-10T12:05:00+00:00"}
        (tmp_path / "backups" / "schedule.json").write_text(json.dumps(found).ljust(4096))
        line, is_alarm = backup.standing(settings, NOW)
        assert ("; BACKUP_SCHEDULE FAILED 1 h ago, tries again in 5 min: why" in line) is is_told and is_alarm is is_told
        (tmp_path / "backups" / "schedule.json").write_text("{")
        assert backup.standing(settings, NOW)[1] is False

    def test_what_one_may_not_look_into_is_no_failure(self) -> None:
        with public_folder() as folder:
            settings = seen(folder, "2026-03-10T09:00:00+00:00")
            (folder / "backups").chmod(0o000)
            with unprivileged():
                line, is_alarm = backup.standing(settings, NOW)
                assert backup.drilled(settings, NOW) == ("", False)
            (folder / "backups").chmod(0o755)
        assert "cannot be seen from here" in line and not is_alarm

    @pytest.mark.parametrize(
        ("drill", "line", "is_alarm"),
        [
            ({"passed": True, "at": "2026-03-07T12:00:00+00:00", "recovery_seconds": 12.3, "other": 1},
             "drill: the last one passed 3 d ago, the data was back after 12 s", False),
            ({"passed": False, "at": "2026-03-10T11:00:00+00:00"}, "drill: the last one FAILED 1 h ago", True),
            ({"passed": True}, "drill: the last one passed", False),
            ({"passed": True, "at": "yesterday"}, "", False),
            ({"passed": True, "recovery_seconds": None}, "", False),
            ([], "", False),
        ],
    )  # fmt: skip
    def test_the_last_drill_is_told_as_far_as_it_can_be_read(self, tmp_path: Path, drill: Any, line: str, is_alarm: bool) -> None:
        settings = seen(tmp_path, "2026-03-10T09:00:00+00:00")
        (tmp_path / "backups" / "drill.json").write_text(json.dumps(drill))
        assert backup.drilled(settings, NOW) == (line, is_alarm)


class TestPlace:
    @pytest.mark.parametrize("place", ["devpi", "devpi/backups", "devpi/server/x/y", ".", "secrets", "secrets/backups"])
    def test_one_inside_the_data_or_the_secrets_or_around_them_is_refused(self, tmp_path: Path, place: str) -> None:
        settings = settings_of(tmp_path, BACKUP_HOME=str(tmp_path / place))
        with pytest.raises(BadInput, match="one is in the other"):
            home.check_backups(World(), settings, os.getuid(), os.getgid())

    def test_secrets_in_what_is_copied_elsewhere_are_refused(self, tmp_path: Path) -> None:
        settings = settings_of(
            tmp_path, BACKUP_HOME=str(tmp_path / "backups"), SECRETS_HOME=str(tmp_path / "backups" / "secrets")
        )
        with pytest.raises(BadInput, match=r"SECRETS_HOME=.*one is in the other"):
            home.check_backups(World(), settings, os.getuid(), os.getgid())

    def test_a_link_does_not_hide_that(self, tmp_path: Path) -> None:
        (tmp_path / "devpi").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "devpi")
        with pytest.raises(BadInput):
            home.check_backups(World(), settings_of(tmp_path, BACKUP_HOME=str(tmp_path / "link" / "b")), os.getuid(), os.getgid())

    def test_one_beside_it_is_fine_whether_or_not_it_is_there(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, BACKUP_HOME=str(tmp_path / "devpi-backups"))
        home.check_backups(World(), settings, os.getuid(), os.getgid())
        settings.backup_home.mkdir()
        home.check_backups(World(), settings, os.getuid(), os.getgid())

    def test_a_file_and_a_folder_of_somebody_elses_are_refused_with_the_fix(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, BACKUP_HOME=str(tmp_path / "backups"))
        settings.backup_home.touch()
        for dry in (False, True):
            with pytest.raises(NotReady, match="is a file"):
                home.check_backups(World(dry), settings, os.getuid(), os.getgid())
        settings.backup_home.unlink()
        settings.backup_home.mkdir(mode=0o755)
        with pytest.raises(NotReady) as caught:
            home.check_backups(World(), settings, 4321, 4321)
        assert f"belongs to uid {os.getuid()}" in told(caught) and f"sudo chown -R 4321:4321 {settings.backup_home}" in told(
            caught
        )

    def test_ones_own_that_is_read_only_is_told_with_the_command_that_helps(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, BACKUP_HOME=str(tmp_path / "backups"))
        settings.backup_home.mkdir()
        uid = os.getuid() or NOBODY
        if os.getuid() == 0:
            os.chown(settings.backup_home, uid, uid)
        settings.backup_home.chmod(0o500)
        with pytest.raises(NotReady) as caught:
            home.check_backups(World(), settings, uid, uid)
        settings.backup_home.chmod(0o700)
        assert f"is read-only for uid {uid}, its owner" in told(caught) and f"chmod u+w {settings.backup_home}" in told(caught)

    @pytest.mark.parametrize("options", [{"full": True}, {"with_secrets": True}])
    def test_pruning_makes_no_snapshot_and_does_not_seem_to(self, options: dict[str, bool]) -> None:
        option = "--" + next(iter(options)).replace("_", "-")
        with pytest.raises(BadInput, match=f"{option} and --prune do not go together"):
            backup.refuse_both("", True, **options)
        backup.refuse_both("", False, **options)

    def test_pruning_another_place_is_refused(self) -> None:
        with pytest.raises(BadInput, match="--to and --prune do not go together"):
            backup.refuse_both("/elsewhere", True)


def test_without_an_engine_a_snapshot_is_as_whole_and_status_tells_of_it(workspace: Workspace, tmp_path: Path) -> None:
    assert "no server's data here yet" in workspace.refused("backup", "--env", "local")
    workspace.inv("up", "--env", "local")
    version = new_version()
    twine_upload(workspace, build_wheel(tmp_path, version))
    assert "backups: none" in workspace.inv("status").stdout
    shown = workspace.inv("backup", "--env", "local").stdout
    found = re.search(r"snapshot (\S+): serial .* 1 of them uploaded", shown)
    assert found
    one = workspace.root / "backups" / "snapshots" / found[1]
    assert any(version in path for path in json.loads((one / "manifest.json").read_text())["files"])
    assert stat.S_IMODE((workspace.root / "backups").stat().st_mode) == 0o700
    assert f"the newest verified one, {found[1]}" in workspace.inv("status", PYPI_ENV="local").stdout
    workspace.inv("down", "--env", "local")
    workspace.inv("backup", "--env", "local")
    listed = workspace.inv("backups", "--env", "local").stdout
    assert "2 snapshots in" in listed and "DAMAGED" not in listed
    database = workspace.home / "server" / ".sqlite"
    whole = database.read_bytes()
    database.write_bytes(whole[:4096] + bytes(8192) + whole[12288:])
    told = workspace.refused("backup", "--env", "local")
    assert "devpi's database is damaged" in told and "inv restore" in told
    assert "2 snapshots in" in workspace.inv("backups", "--env", "local").stdout
    database.write_bytes(whole)
