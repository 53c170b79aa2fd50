"""A snapshot comes back whole, or the data stays as it was; clients wait meanwhile, and what was replaced is kept."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks.world import poll
from tests.conftest import inspect
from tests.packages import pip_install
from tests.raw import JSON, Uploader, api, ask, container, docker
from tests.workspace import Workspace, clean_environment

pytestmark = pytest.mark.docker
PAGE = "/pypi/stable/+simple/kept/"


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    workspace.inv("up", "--env", "dev", timeout=600)
    return workspace


@pytest.fixture(scope="module")
def snapshot(stack: Workspace) -> str:
    """The name of a snapshot with two files of one project; the page that it shows is ``PAGE``."""
    upload = Uploader(stack)
    upload("kept", "1.0")
    upload("kept", "2.0")
    return backup(stack)


def backup(stack: Workspace) -> str:
    """Make a snapshot; its name."""
    found = re.search(r"snapshot (\S+): serial", stack.inv("backup").stdout)
    assert found
    return found[1]


def folder(stack: Workspace, snapshot: str) -> Path:
    return stack.root / "backups" / "snapshots" / snapshot


def manifest(stack: Workspace, snapshot: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder(stack, snapshot) / "manifest.json").read_text())
    return found


def page(stack: Workspace) -> bytes:
    answer = ask(stack, PAGE, JSON, timeout=150)
    assert answer.status == 200
    return answer.body


def on_disk(server: Path) -> dict[str, str]:
    """The files that a server directory has, with their digests."""
    files = [path for path in (server / "+files").rglob("*") if path.is_file()]
    return {str(path.relative_to(server / "+files")): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def started(stack: Workspace) -> object:
    """When devpi's container was started: another time for every start."""
    return inspect(container(stack, "devpi"))["State"]["StartedAt"]


class Client:
    """Asks for pages until it is told to stop; what came back."""

    def __init__(self, stack: Workspace) -> None:
        self.stack, self.statuses, self.end = stack, list[int](), threading.Event()
        self.number = 0

    def __call__(self) -> None:
        while not self.end.wait(0.02):
            self.number += 1
            path = f"/pypi/stable/+simple/unknown-{self.number}/" if self.number % 2 else PAGE
            self.statuses.append(ask(self.stack, path, JSON, timeout=150).status)

    def __enter__(self) -> "Client":
        self.thread = threading.Thread(target=self)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self.thread.join()


def test_what_the_snapshot_has_is_there_again_and_nothing_else_while_clients_wait(
    stack: Workspace, snapshot: str, target: Path
) -> None:
    before = page(stack)
    file, _ = Uploader(stack)("kept", "3.0")
    api(stack, "DELETE", "/pypi/stable/kept/1.0?force")
    assert page(stack) != before
    with Client(stack) as client:
        shown = stack.inv("restore", "--yes").stdout
    assert set(client.statuses) <= {200, 404} and 200 in client.statuses, client.statuses
    expected = {path: stored[0] for path, stored in manifest(stack, snapshot)["files"].items()}
    assert len(expected) == 2
    assert on_disk(stack.home / "server") == expected
    assert page(stack) == before
    pip_install(stack, target, "kept==1.0")
    aside = re.search(r"is kept in (\S+)", shown)
    assert aside and [path for path in on_disk(Path(aside[1])) if path.endswith(file)]
    assert f"restored {snapshot}" in shown and not (stack.home / "server.restoring").exists()
    Uploader(stack)("kept", "4.0")
    assert "4.0" in page(stack).decode()


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.fixture
def damaged(stack: Workspace, snapshot: str) -> Iterator[Callable[[str], str]]:
    """Damage a file of the snapshot, by its path below BACKUP_HOME; all is well again afterwards."""
    kept: dict[Path, bytes] = {}

    def damage(name: str) -> str:
        path = stack.root / "backups" / name
        kept[path] = path.read_bytes()
        flip(path)
        return name

    verified = folder(stack, snapshot) / "verified.json"
    kept[verified] = verified.read_bytes()
    yield damage
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.mark.parametrize("what", ["manifest", "database", "content"])
def test_a_damaged_snapshot_is_refused_and_the_server_untouched(
    stack: Workspace, snapshot: str, damaged: Callable[[str], str], what: str
) -> None:
    path, stored = next(iter(manifest(stack, snapshot)["files"].items()))
    piece = manifest(stack, snapshot)["pieces"][0][0]
    places = {
        "manifest": (f"snapshots/{snapshot}/manifest.json", "manifest.json is not what manifest.sha256 says"),
        "database": (f"files/{piece[:2]}/{piece[2:]}", ".sqlite"),
        "content": (f"files/{stored[0][:2]}/{stored[0][2:]}", f"+files/{path}"),
    }
    place, named = places[what]
    before = page(stack), started(stack), sorted(stack.home.iterdir())
    damaged(place)
    told = stack.refused("restore", snapshot, "--yes")
    assert f"snapshot {snapshot} is damaged" in told and named in told
    assert (page(stack), started(stack), sorted(stack.home.iterdir())) == before


def test_a_snapshot_of_a_newer_database_is_refused(stack: Workspace, snapshot: str) -> None:
    newer = folder(stack, snapshot).with_name("2099-01-01T00-00-00Z")
    shutil.copytree(folder(stack, snapshot), newer)
    try:
        text = json.dumps(manifest(stack, snapshot) | {"database": "5"}).encode()
        (newer / "manifest.json").write_bytes(text)
        (newer / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())
        before = started(stack)
        told = stack.refused("restore", "--yes")
        assert told.startswith("Error: the snapshot has a database of version 5")
        assert started(stack) == before
    finally:
        shutil.rmtree(newer)


def test_an_unknown_snapshot_lists_those_that_are_there(stack: Workspace, snapshot: str) -> None:
    result = stack.inv("restore", "2020-01-01T00-00-00Z", "--yes", check=False)
    assert result.returncode == 2
    assert "there is no snapshot '2020-01-01T00-00-00Z'" in result.stderr and snapshot in result.stderr


def test_nothing_happens_without_a_yes(stack: Workspace, snapshot: str) -> None:
    before = page(stack), started(stack)
    shown = stack.inv("restore", stdin="n\n", check=False)
    assert shown.returncode == 2 and "nothing was changed" in shown.stderr and '"do": "prepare"' not in shown.stdout
    assert (page(stack), started(stack)) == before
    assert not (stack.home / "server.restoring").exists()


@pytest.mark.parametrize(
    ("at", "by"),
    [
        ('"do": "prepare"', signal.SIGINT), ("stop devpi", signal.SIGINT), ('"do": "switch"', signal.SIGINT),
        ("start devpi", signal.SIGINT), ("stop devpi", signal.SIGTERM), ('"do": "prepare"', signal.SIGHUP),
    ],
)  # fmt: skip
def test_ctrl_c_leaves_the_old_or_the_new_and_a_server_that_serves(stack: Workspace, snapshot: str, at: str, by: int) -> None:
    Uploader(stack)("kept", f"5.{len(at)}{int(by)}")
    old = on_disk(stack.home / "server")
    new = {path: stored[0] for path, stored in manifest(stack, snapshot)["files"].items()}
    # What is put in place is started whatever is pressed, and then there is nothing left to interrupt.
    ends = (0, "devpi is started again, please wait") if at == "start devpi" else (130, "Error: interrupted at")
    shown = stack.interrupted("restore", snapshot, "--yes", at=at, by=by, ends=ends)
    assert poll(lambda: not (stack.home / "server.restoring").exists(), 60)
    found = on_disk(stack.home / "server")
    assert found in (old, new)
    if at != '"do": "prepare"':
        assert ("the data is what it was" in shown) == (found == old)
    if aside := re.search(r"data from before is (\S+)", shown):
        assert on_disk(Path(aside[1])) == old
    names = {name.rsplit("/", 1)[1] for name in found if "/kept-" in name}
    assert {file["filename"] for file in json.loads(page(stack))["files"]} == names


def test_a_container_does_not_outlive_the_client_that_started_it(stack: Workspace, snapshot: str) -> None:
    mine = ["docker", "ps", "--all", "--quiet", "--filter", f"name={stack.project}-dev-restore-"]

    def containers() -> str:
        return subprocess.run(mine, capture_output=True, text=True, check=True).stdout

    argv = [sys.executable, "-m", "invoke", "restore", snapshot, "--yes"]
    with subprocess.Popen(
        argv, cwd=stack.root, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert poll(lambda: bool(containers()), 60)
        for pid in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        running.communicate(timeout=120)
    assert running.returncode == 130
    assert poll(lambda: not containers(), 10) and not (stack.home / "server.restoring").exists()


def test_data_with_which_the_server_does_not_start_is_taken_out_again(stack: Workspace, snapshot: str) -> None:
    Uploader(stack)("kept", "6.0")
    old = on_disk(stack.home / "server")
    secret = stack.root / ".secrets" / "server_secret"
    right = secret.read_text()
    secret.write_text("too short")
    try:
        told = stack.refused("restore", snapshot, "--yes")
    finally:
        secret.write_text(right)
    assert "what was restored does not serve" in told and on_disk(stack.home / "server") == old
    failed = re.search(r"the other is in (server.failed-\S+):", told)
    assert failed and on_disk(stack.home / failed[1]) != old
    stack.inv("up")
    assert "6.0" in page(stack).decode()


def test_a_password_that_was_changed_since_is_told(stack: Workspace, snapshot: str) -> None:
    stored = stack.root / ".secrets" / "user_password"
    right = stored.read_text()
    stored.write_text("another")
    told = stack.refused("restore", snapshot, "--yes")
    stored.write_text(right)
    assert "the snapshot is in place and serves" in told and "the stored password of user pypi is not the server's" in told


def test_passwords_that_were_rotated_since_are_the_old_ones_again(stack: Workspace, snapshot: str) -> None:
    right = stack.password
    stack.inv("rotate")
    assert stack.password != right
    assert "user pypi has a password from before" in stack.inv("restore", snapshot, "--yes").stdout
    assert stack.password == right
    Uploader(stack)("again", "1.0")


def test_a_container_that_somebody_removed_is_told_and_made_anew(stack: Workspace, snapshot: str) -> None:
    docker("rm", "--force", container(stack, "devpi"))
    assert re.search(r"dev +missing +service devpi; inv up", stack.inv("status").stdout)
    stack.inv("restore", snapshot, "--yes")
    assert re.search(r"dev +healthy", stack.inv("status").stdout)


def test_a_machine_that_lost_its_data_gets_it_back(stack: Workspace, snapshot: str, target: Path) -> None:
    stack.inv("down")
    shutil.rmtree(stack.home)
    with socket.create_server(("127.0.0.1", int(stack.port))):  # which nothing needs yet
        shown = stack.inv("restore", snapshot).stdout  # nothing is replaced, so nothing is asked
    assert "inv up --env dev" in shown and "is kept in" not in shown
    stack.inv("up")
    pip_install(stack, target, "kept==2.0")
