"""What a drill holds against what is served, and what it says of it."""

from pathlib import Path
from typing import Any

import pytest

from pypi_tasks import drill
from pypi_tasks.errors import Failed
from pypi_tasks.served import compare_pages, differing, of_index
from pypi_tasks.world import World
from tests.helpers import settings_of, told
from tests.raw import JSON, Uploader, ask
from tests.workspace import Workspace

ONE, OTHER = "pypi/stable/+f/a/one-1.0-py3-none-any.whl", "pypi/stable/+f/b/other-1.0.tar.gz"


def test_pages_that_have_the_files_of_the_manifest_are_right() -> None:
    assert list(compare_pages({ONE: "a", OTHER: "b"}, {ONE: "a", OTHER: ""}, [])) == []


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({ONE: "a"}, f"{OTHER}: it is on no page"),
        ({ONE: "a", OTHER: "b", "new": "c"}, "new: it is on a page, but the manifest does not have it"),
        ({ONE: "a", OTHER: "c"}, f"{OTHER}: its page has it with sha256 c, expected b"),
    ],
)
def test_each_difference_is_named(found: dict[str, str], wrong: str) -> None:
    assert list(compare_pages({ONE: "a", OTHER: "b"}, found, [])) == [wrong]


def test_what_was_lost_before_the_snapshot_may_be_on_a_page() -> None:
    assert list(compare_pages({ONE: "a"}, {ONE: "a", OTHER: "b"}, [OTHER])) == []


def test_newer_and_removed_files_are_no_difference_to_the_live_server() -> None:
    assert list(differing({ONE: "a"}, {OTHER: "b"}, "the live server")) == []


def test_documentation_results_of_tests_and_other_indexes_are_on_no_page_of_an_index() -> None:
    other = ["pypi/stable/+f/c/one-1.0.doc.zip", f"{ONE}.toxresult-20300101000000-0", "pypi/stable2/+f/d/one-1.0.zip"]
    assert of_index(dict.fromkeys([ONE, *other], "x"), "pypi/stable") == {ONE: "x"}


def test_the_throw_away_server_shares_neither_project_nor_port_nor_data(tmp_path: Path) -> None:
    real = settings_of(tmp_path, "DEVPI_BIND=0.0.0.0\nBACKUP_SCHEDULE=6h\nOUTSIDE_URL=https://pypi.example.org\n")
    made = drill.apart(real, "drill-1a2b3c")
    assert made.project == f"{real.project}-drill-1a2b3c" and made.devpi_home == real.backup_home / "drill-1a2b3c"
    assert made.devpi_bind == "127.0.0.1" and made.devpi_port != real.devpi_port and made.client_url == made.url
    assert made.backup_schedule == () and made.secrets_home == real.secrets_home


def test_the_canary_is_a_private_wheel_for_any_python() -> None:
    mirrored = "root/pypi/+f/a/a-1.0-py3-none-any.whl"
    found: dict[str, Any] = {"mirrors": ["root/pypi"], "files": dict.fromkeys([mirrored, OTHER, ONE], "x")}
    assert drill.canary(found) == ONE
    assert drill.canary(found | {"files": {mirrored: "x", OTHER: "x"}}) == ""


OUTCOME = {
    "snapshot": "2030-01-01T00-00-00Z", "made": "2030-01-01T00:00:00+00:00", "at": "2030-01-01T03:00:00+00:00", "passed": True,
    "findings": [], "recovery_seconds": 9.5, "serials": 1234, "files": 2000, "pages": 3, "newer": 5, "removed": 1,
    "compared_with_live": True,
}  # fmt: skip


def test_a_passed_drill_tells_recovery_time_and_recovery_point(capsys: pytest.CaptureFixture[str]) -> None:
    drill.tell(World(), OUTCOME)
    assert capsys.readouterr().out.splitlines() == [
        "recovery time 9.5 s; recovery point 3 h ago, 1,234 commits behind the live data",
        "compared 2,000 files and 3 pages with the manifest",
        "the live server's pages: 5 files newer than the snapshot, 1 removed since",
        "drill passed: 2030-01-01T00-00-00Z",
    ]


def test_a_failed_one_names_twenty_findings_and_how_many_more_there_are() -> None:
    with pytest.raises(Failed) as caught:
        drill.tell(World(), OUTCOME | {"passed": False, "findings": [f"file {number}" for number in range(25)]})
    assert "file 19\n  and 5 more" in told(caught) and "file 20" not in told(caught)


def test_the_native_server_is_drilled_and_restored_too(workspace: Workspace) -> None:
    workspace.inv("up", "--env", "local", timeout=600)
    workspace.inv("backup", "--env", "local")
    workspace.inv("rotate", "--env", "local")
    assert "drill passed" in workspace.inv("drill", "--env", "local").stdout, "of data with older passwords"
    Uploader(workspace)("native", "1.0")
    workspace.inv("backup", "--env", "local")
    file, _ = Uploader(workspace)("native", "2.0")
    shown = workspace.inv("drill", "--env", "local").stdout
    assert "drill passed" in shown and "1 files newer" in shown
    assert not list((workspace.root / "backups").glob("drill-*"))
    shown = workspace.inv("restore", "--env", "local", "--yes").stdout
    assert ask(workspace, "/pypi/stable/+simple/native/", JSON).names == {"native-1.0-py3-none-any.whl"}
    (aside,) = workspace.home.glob("server.before-*")
    assert str(aside) in shown and list(aside.rglob(file))
