"""A drill restores a snapshot beside the live server, tells what it found and how long it took, and leaves nothing behind."""

import hashlib
import io
import json
import re
import signal
import subprocess
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from pypi_tasks.world import poll
from tests.conftest import inspect
from tests.packages import pip_install
from tests.raw import JSON, Uploader, api, ask, container, make_index
from tests.workspace import Workspace

pytestmark = pytest.mark.docker
LEFT = "services: {{devpi: {{image: '{image}', entrypoint: [sleep, '600']}}}}"


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    workspace.inv("up", "--env", "dev", timeout=600)
    return workspace


@pytest.fixture(scope="module")
def snapshot(stack: Workspace, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a snapshot with all kinds of files: of two indexes, one of which inherits from the other, documentation,
    the result of a test, and what was fetched from a mirror."""
    derived = make_index(stack, "derived", "pypi/stable")
    Uploader(stack)("drilled", "1.0")
    Uploader(stack)("drilled", "2.0")
    documentation = io.BytesIO()
    with zipfile.ZipFile(documentation, "w") as made:
        made.writestr("index.html", "<p>documentation")
    Uploader(stack)("drilled", "2.0", documentation.getvalue(), "drilled.doc.zip", **{":action": "doc_upload"})
    page = ask(stack, "/pypi/stable/+simple/drilled/", JSON)
    path = urlsplit(urljoin("/pypi/stable/+simple/drilled/", page.files[0]["url"])).path
    assert ask(stack, path, {"Content-Type": "application/json"}, "POST", '{"testenvs": {}}').status == 200
    pip_install(stack, tmp_path_factory.mktemp("mirrored"), "iniconfig")
    Uploader(stack, derived)("derived", "1.0")
    found = re.search(r"snapshot (\S+): serial", stack.inv("backup").stdout)
    assert found
    return found[1]


def engine(project: str) -> list[str]:
    """Containers, networks and volumes whose names begin so."""
    kinds = (["ps", "-a", "--format", "{{.Names}}"], ["network", "ls", "--format", "{{.Name}}"], ["volume", "ls", "-q"])
    shown = [subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout for words in kinds]
    return [name for name in "".join(shown).split() if name.startswith(project)]


def files(stack: Workspace) -> list[Path]:
    """What could have been left behind in the folders; the lock stays."""
    places = (stack.root, stack.root / "backups", stack.home, stack.root / ".rendered")
    return sorted(path for place in places for path in place.iterdir() if path.name != "drill.lock")


def outcome(stack: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((stack.root / "backups" / "drill.json").read_text())
    return found


def started(stack: Workspace) -> object:
    return inspect(container(stack, "devpi"))["State"]["StartedAt"]


def test_a_drill_passes_tells_what_it_measured_and_leaves_nothing_behind(stack: Workspace, snapshot: str) -> None:
    Uploader(stack)("drilled", "3.0")
    api(stack, "DELETE", "/pypi/stable/drilled/1.0?force")
    before = engine(stack.project), files(stack), started(stack), ask(stack, "/pypi/stable/+simple/drilled/", JSON).body
    shown = stack.inv("drill").stdout
    assert re.search(r"recovery time [\d.]+ s; recovery point \d+ (s|min) ago, [1-9]\d* commits behind the live data", shown)
    assert re.search("compared [67] files and 2 pages", shown)
    assert "1 files newer than the snapshot, 1 removed since" in shown
    assert f"drill passed: {snapshot}" in shown
    found = outcome(stack)
    assert found["passed"] and found["snapshot"] == snapshot and found["findings"] == [] and found["recovery_seconds"] > 0
    (stack.root / "backups" / "drill.json").unlink()
    after = engine(stack.project), files(stack), started(stack), ask(stack, "/pypi/stable/+simple/drilled/", JSON).body
    assert after == before


def test_a_file_that_is_damaged_in_the_pool_is_named_and_nothing_left_behind(stack: Workspace, snapshot: str) -> None:
    manifest = json.loads((stack.root / "backups" / "snapshots" / snapshot / "manifest.json").read_text())
    path, (digest, _) = next(iter(manifest["files"].items()))
    pooled = stack.root / "backups" / "files" / digest[:2] / digest[2:]
    content = pooled.read_bytes()
    verified = stack.root / "backups" / "snapshots" / snapshot / "verified.json"
    note, before = verified.read_bytes(), engine(stack.project)
    pooled.chmod(0o644)
    pooled.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    try:
        told = stack.refused("drill", snapshot)
    finally:
        pooled.write_bytes(content)
        verified.write_bytes(note)
    assert path in told and path in outcome(stack)["findings"][0] and not outcome(stack)["passed"]
    assert engine(stack.project) == before and not list((stack.root / "backups").glob("drill-*"))


def test_what_the_snapshot_serves_but_its_manifest_lacks_is_a_difference(stack: Workspace, snapshot: str) -> None:
    folder = stack.root / "backups" / "snapshots" / snapshot
    kept = {name: (folder / name).read_bytes() for name in ("manifest.json", "manifest.sha256")}
    manifest = json.loads(kept["manifest.json"])
    path = next(name for name in manifest["files"] if "/drilled-1.0" in name)
    manifest["lost"]["pypi/stable/+f/000/nothing"] = "so that devpi-fsck does not end it"
    del manifest["files"][path]
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())
    try:
        told = stack.refused("drill", snapshot)
    finally:
        for name, content in kept.items():
            (folder / name).write_bytes(content)
    assert f"{path}: it is on a page, but the manifest does not have it" in told


@pytest.mark.parametrize(
    ("at", "by", "again"),
    [
        ('"do": "prepare"', signal.SIGINT, ""),
        ('"do": "prepare"', signal.SIGTERM, ""),
        ("wait for dev to be healthy", signal.SIGINT, "down --volumes"),
    ],
)
def test_ctrl_c_takes_the_throw_away_stack_down(stack: Workspace, snapshot: str, at: str, by: int, again: str) -> None:
    before, kept = engine(stack.project), files(stack)
    shown = stack.interrupted("drill", snapshot, at=at, by=by, again=again)
    assert "starts anew" in shown and "left where it is" not in shown
    assert poll(lambda: engine(stack.project) == before, 10) and files(stack) == kept


def test_what_a_killed_drill_left_is_removed_by_the_next(stack: Workspace, snapshot: str) -> None:
    before, kept = engine(stack.project), files(stack)
    project = f"{stack.project}-drill-000000-dev"
    stack.run("docker", "compose", "-p", project, "-f", "-", "up", "-d", stdin=LEFT.format(image=f"pypi_server:{stack.project}"))
    left = stack.root / "backups" / "drill-000000"
    left.mkdir()
    (stack.root / ".rendered" / f"{project}.yaml").touch()
    assert engine(project)
    stack.refused("drill", "2020-01-01T00-00-00Z")
    assert engine(stack.project) == before and files(stack) == kept


def test_the_images_are_the_callers_where_it_names_some(stack: Workspace, snapshot: str) -> None:
    """As `inv upgrade` does, with images that are not in use yet."""
    names = {name: f"{name}:{stack.project}-new" for name in ("pypi_server", "pypi_proxy")}
    for name, new in names.items():
        subprocess.run(["docker", "tag", f"{name}:{stack.project}", new], check=True)
    call = (
        "from pypi_tasks import deployment, drill, settings, world; w, s = world.World(), settings.load();"
        f"print(drill.run(w, s, deployment.choose(w, s, 'dev'), {snapshot!r}, {names!r})['passed'])"
    )
    try:
        shown = stack.run("python", "-c", call).stdout
    finally:
        subprocess.run(["docker", "rmi", *names.values()], check=True, capture_output=True)
    assert shown.splitlines()[-1] == "True"


def test_a_drill_that_cannot_begin_says_nothing_of_the_backups(stack: Workspace, snapshot: str) -> None:
    stack.inv("drill")
    before = outcome(stack)
    error = stack.refused("drill", "2020-01-01T00-00-00Z")
    assert "there is no snapshot '2020-01-01T00-00-00Z'" in error and snapshot in error
    assert outcome(stack) == before
