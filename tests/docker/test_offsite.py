"""Snapshots in an object store: a real S3 server, real rclone, and a machine that was lost."""

import contextlib
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from snapshot import Backups

from pypi_tasks.world import poll
from tests.conftest import labelled
from tests.packages import build_wheel, new_version, pip_install, twine_upload
from tests.workspace import Workspace, free_port

pytestmark = pytest.mark.docker
PASSPHRASE = "a horse of another colour"
REMOTE = "store:packages/pypi"
CREDENTIALS = ("THE-KEY-ID", "THE-SECRET-KEY")


@dataclass
class Store:
    """An S3 server, which keeps all in memory, and what it logs."""

    url: str
    log: Path

    @property
    def environ(self) -> dict[str, str]:
        """How rclone comes to know it as store: . Its SDK does not get on with AWS_CA_BUNDLE."""
        config = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": self.url}
        config |= dict(zip(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"), CREDENTIALS, strict=True))
        return {f"RCLONE_CONFIG_STORE_{name}": value for name, value in config.items()} | {"AWS_CA_BUNDLE": ""}

    def put(self, folder: str) -> list[str]:
        """What was uploaded below a folder, each time that it was."""
        return re.findall(rf'"[^"]*PUT /packages/pypi/{folder}/(\S+?)(?:\?\S*)? HTTP', self.log.read_text())


def is_up(url: str) -> bool:
    with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url, timeout=3):
        return True
    return False


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    for program in ("rclone", "moto_server"):
        if not shutil.which(program):
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not there")
    port, log = free_port(), tmp_path_factory.mktemp("store") / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(["moto_server", "-H", "127.0.0.1", "-p", str(port)], stdout=output, stderr=output)
        try:
            made = Store(f"http://127.0.0.1:{port}", log)
            assert poll(lambda: is_up(made.url), 60), log.read_text()
            yield made
        finally:
            running.terminate()
            running.wait(timeout=30)


@pytest.fixture(scope="module")
def stack(workspace: Workspace, store: Store) -> Workspace:
    workspace.environ = store.environ | {"BACKUP_PASSPHRASE": PASSPHRASE}
    workspace.inv("up", "--env", "dev", timeout=600)
    return workspace


def backups(stack: Workspace) -> Backups:
    return Backups(stack.root / "backups")


def contents(stack: Workspace) -> dict[str, bytes]:
    """All that the snapshots consist of."""
    folder = stack.root / "backups"
    found = [*folder.glob("files/*/*"), *folder.glob("snapshots/*/[!v]*"), *folder.glob("snapshots/*/server/.*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}


def test_a_machine_that_was_lost_is_brought_back_from_the_store(stack: Workspace, store: Store, tmp_path: Path) -> None:
    wheels = [build_wheel(tmp_path, new_version()) for _ in range(2)]
    said = []
    for wheel in wheels:
        before = len(store.put("files"))
        twine_upload(stack, wheel)
        said.append(stack.inv("backup", "--to", REMOTE, "--with-secrets"))
        assert 0 < len(store.put("files")) - before <= 4  # the wheel, and what of the database is new
    assert len(store.put("files")) == len(set(store.put("files")))
    order = [path.partition("/")[2] for path in store.put("snapshots")]
    assert order.count("manifest.sha256") == 2 and order[-1] == "manifest.sha256" and "secrets.json" in order

    kept, password, secrets = contents(stack), stack.password, stack.root / ".secrets"
    inspected = subprocess.run(["docker", "inspect", *labelled("container", stack.project)], capture_output=True, text=True)
    said.append(inspected)
    stack.inv("down", "--env", "dev")
    for lost in (stack.home, secrets, stack.root / "backups"):
        shutil.rmtree(lost)
    for words in (("fetch", "--from", REMOTE), ("unlock",), ("restore", "--yes"), ("up",)):
        said.append(stack.inv(*words))

    newest = backups(stack).find()
    assert newest.verified() and not newest.damage(backups(stack).sound())
    needed = {f"files/{digest[:2]}/{digest[2:]}" for digest in newest.manifest().contents()}
    assert contents(stack) == {path: content for path, content in kept.items() if path in needed or newest.name in path}
    assert {path.stat().st_uid for path in (stack.root / "backups").rglob("*")} == {stack.home.stat().st_uid}
    assert stack.password == password
    for wheel in wheels:
        pip_install(stack, tmp_path / wheel.stem, f"pypi-tasks-smoke=={wheel.name.split('-')[1]}")
    twine_upload(stack, build_wheel(tmp_path, new_version()), password=password)
    stack.inv("backup", "--to", REMOTE)  # it goes on from what was fetched
    assert len(store.put("files")) == len(set(store.put("files")))

    shown = "".join(one.stdout + one.stderr for one in said)
    found = [path.read_text().strip() for path in secrets.iterdir()]
    assert REMOTE in shown and not [one for one in (*CREDENTIALS, PASSPHRASE, *found) if one in shown]


def test_a_store_that_does_not_answer_is_told_before_a_snapshot_is_made(stack: Workspace) -> None:
    before = [one.name for one in backups(stack).all()]
    said = stack.refused("backup", "--to", REMOTE, RCLONE_CONFIG_STORE_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert f"rclone cannot look at {REMOTE}" in said and not [one for one in CREDENTIALS if one in said]
    assert [one.name for one in backups(stack).all()] == before


def test_another_passphrase_changes_nothing(stack: Workspace) -> None:
    before = {path.name: path.read_text() for path in (stack.root / ".secrets").iterdir()}
    name = next(one.name for one in backups(stack).all() if (one.folder / "secrets.json").exists())
    assert "the passphrase does not open" in stack.refused("unlock", name, BACKUP_PASSPHRASE="another one altogether")
    assert {path.name: path.read_text() for path in (stack.root / ".secrets").iterdir()} == before
