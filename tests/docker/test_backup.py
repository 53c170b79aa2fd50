"""A snapshot has all that was there when it began, whatever goes on meanwhile; what is not whole does not count."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks.terminal import human
from pypi_tasks.world import poll
from tests.conftest import inspect
from tests.raw import Uploader, api, container, docker
from tests.workspace import Workspace, clean_environment

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    workspace.inv("up", "--env", "dev", timeout=600)
    return workspace


def names(stack: Workspace) -> list[str]:
    """The snapshots that count."""
    return sorted(path.name for path in (stack.root / "backups" / "snapshots").glob("*"))


def backup(stack: Workspace, *words: str) -> dict[str, Any]:
    """The manifest of a snapshot made just now."""
    found = re.search(r"snapshot (\S+): serial .* in (\S+)", stack.inv("backup", *words).stdout)
    assert found
    manifest: dict[str, Any] = json.loads((Path(found[2]) / "snapshots" / found[1] / "manifest.json").read_text())
    return manifest | {"name": found[1]}


def digests(manifest: dict[str, Any]) -> dict[str, str]:
    """Digests of the files by their names."""
    return {path.rpartition("/")[2]: stored[0] for path, stored in manifest["files"].items()}


def pooled(place: Path, digest: str) -> Path:
    return place / "files" / digest[:2] / digest[2:]


def usage(folder: Path) -> int:
    """What a folder's files hold, in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def live(stack: Workspace, file: str) -> Path:
    found = list((stack.home / "server" / "+files").rglob(file))
    assert len(found) == 1
    return found[0]


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)


def image(stack: Workspace) -> str:
    return str(inspect(container(stack, "devpi"))["Image"])


def check(stack: Workspace, manifest: dict[str, Any], folder: Path) -> None:
    """Have devpi-fsck look at what the snapshot holds, put together as devpi would find it."""
    place = stack.root / "backups"
    shutil.copytree(place / "snapshots" / manifest["name"] / "server", folder)
    (folder / ".sqlite").write_bytes(b"".join(pooled(place, digest).read_bytes() for digest, _ in manifest["pieces"]))
    assert hashlib.sha256((folder / ".sqlite").read_bytes()).hexdigest() == manifest["server"][".sqlite"][0]
    for path, (digest, size) in manifest["files"].items():
        target = folder / "+files" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pooled(place, digest), target)
        assert target.stat().st_size == size and hashlib.sha256(target.read_bytes()).hexdigest() == digest
    mount = f"{folder}:/copy"
    command = ["run", "--rm", "--user", "0:0", "--network", "none", "-v", mount, "--entrypoint", "devpi-fsck", image(stack)]
    shown = subprocess.run(["docker", *command, "--serverdir", "/copy"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stdout + shown.stderr


@contextlib.contextmanager
def busy(count: int, work: Any) -> Iterator[None]:
    """So many threads at the same work meanwhile; each is called with its number, again and again."""
    end, failures = threading.Event(), list[BaseException]()

    def go_on(number: int) -> None:
        try:
            while not end.is_set():
                work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=go_on, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


def test_every_upload_that_was_acknowledged_before_is_in_it_while_four_clients_upload(stack: Workspace, tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    clients = [Uploader(stack) for _ in range(4)]
    counts = [0] * 4

    def upload(number: int) -> None:
        counts[number] += 1
        file, digest = clients[number](f"busy{number}", f"1.{counts[number]}")
        acknowledged[file] = digest

    with busy(4, upload):
        assert poll(lambda: len(acknowledged) >= 12, 60)
        before = dict(acknowledged)
        manifest = backup(stack)
        during = len(acknowledged) - len(before)
    assert during > 0, "nothing was uploaded meanwhile"
    assert before.items() <= digests(manifest).items()
    assert not manifest["lost"] and manifest["settings"]["PROJECT"] == stack.project
    check(stack, manifest, tmp_path / "copy")


def test_a_further_snapshot_costs_what_is_new_and_is_as_whole(stack: Workspace, tmp_path: Path) -> None:
    Uploader(stack)("large", "1.0", os.urandom(3_000_000))
    earlier = backup(stack)["pieces"]
    place = stack.root / "backups"
    before = usage(place)
    file, digest = Uploader(stack)("small", "1.0")
    shown = stack.inv("backup").stdout
    name = names(stack)[-1]
    manifest = json.loads((place / "snapshots" / name / "manifest.json").read_text()) | {"name": name}
    new = {digest: size for digest, size in manifest["pieces"] if [digest, size] not in earlier}
    size = live(stack, file).stat().st_size + sum(new.values())
    assert len(new) < len(earlier)
    assert usage(place) - before == usage(place / "snapshots" / name) + size
    assert f"{human(size)} of it new" in shown
    assert digests(manifest)[file] == digest
    check(stack, manifest, tmp_path / "copy")


def test_removals_meanwhile_are_no_losses(stack: Workspace, tmp_path: Path) -> None:
    upload = Uploader(stack)
    for number in range(10):
        upload("going", f"1.{number}", os.urandom(200_000))
    turn = iter(range(10_000))

    def replace(_: int) -> None:
        number = next(turn)
        api(stack, "DELETE", f"/pypi/stable/going/1.{number}?force")
        upload("going", f"1.{number + 10}", os.urandom(200_000))

    with busy(1, replace):
        manifests = [backup(stack), backup(stack)]
    assert next(turn) > 4
    for number, manifest in enumerate(manifests):
        assert not manifest["lost"]
        check(stack, manifest, tmp_path / str(number))


def test_a_damaged_file_is_named_and_its_snapshot_does_not_count_as_verified(stack: Workspace) -> None:
    file, digest = Uploader(stack)("damaged", "1.0", os.urandom(50_000))
    flip(live(stack, file))
    result = stack.inv("backup", check=False)
    assert result.returncode == 1 and file in result.stderr and "does not count as verified" in result.stderr
    assert stack.inv("backups").stdout.splitlines()[-2].rstrip().endswith("NO")
    flip(live(stack, file))
    assert digests(backup(stack))[file] == digest


def test_a_file_that_is_damaged_later_is_still_whole_in_a_snapshot(stack: Workspace) -> None:
    file, digest = Uploader(stack)("fading", "1.0", os.urandom(50_000))
    backup(stack)
    flip(live(stack, file))
    assert digests(backup(stack, "--full"))[file] == digest
    flip(live(stack, file))


def test_a_content_that_went_from_the_pool_or_was_damaged_there_is_taken_again(stack: Workspace) -> None:
    file, digest = Uploader(stack)("pooled", "1.0", os.urandom(50_000))
    backup(stack)
    path = pooled(stack.root / "backups", digest)
    path.unlink()
    assert digests(backup(stack))[file] == digest and path.exists()
    flip(path)
    backup(stack, "--full")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_a_stopped_server_is_backed_up_too_and_into_a_place_of_its_own(stack: Workspace, tmp_path: Path) -> None:
    file, digest = Uploader(stack)("resting", "1.0")
    before = names(stack)
    docker("stop", container(stack, "devpi"))
    try:
        manifest = backup(stack, "--to", str(tmp_path / "elsewhere"))
    finally:
        docker("start", container(stack, "devpi"))
    assert digests(manifest)[file] == digest
    assert pooled(tmp_path / "elsewhere", digest).exists() and names(stack) == before
    assert (tmp_path / "elsewhere").stat().st_mode & 0o077 == 0
    assert poll(lambda: api_answers(stack), 60)


def api_answers(stack: Workspace) -> bool:
    with contextlib.suppress(AssertionError, OSError, ValueError):
        return bool(api(stack, "GET", "/+api"))
    return False


@pytest.mark.skipif(os.getuid() != 0, reason="a small disk is a mount, which takes root")
def test_a_full_disk_is_told_and_what_was_there_stays(stack: Workspace, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=0777", "none", str(disk)]).returncode != 0:
        pytest.skip("no mounts here")
    try:
        place = disk / "backups"
        backup(stack, "--to", str(place))
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
        assert "no room is left" in stack.refused("backup", "--to", str(place))
        assert len(list((place / "snapshots").iterdir())) == 1 and not list((place / "work").glob("*"))
        filler.unlink()
        backup(stack, "--to", str(place))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def running(stack: Workspace) -> str:
    """Containers that a task runs for a while."""
    filters = [f"label=com.docker.compose.project={stack.project}-dev", "label=com.docker.compose.oneoff=True"]
    argv = ["docker", "ps", "-aq", "--filter", filters[0], "--filter", filters[1]]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def endless(stack: Workspace, file: str) -> Iterator[None]:
    """A live file whose reading does not end, as on a disk that hangs."""
    path = live(stack, file)
    aside = path.with_name("aside")
    path.rename(aside)
    os.mkfifo(path, 0o644)
    try:
        yield
    finally:
        aside.rename(path)


@pytest.mark.parametrize("to", ["the group", "the task alone"])
def test_ctrl_c_leaves_nothing_that_counts_and_no_container(stack: Workspace, tmp_path: Path, to: str) -> None:
    file, digest = Uploader(stack)("endless", f"1.{len(to)}")
    before, place = names(stack), stack.root / "backups"
    command = [sys.executable, "-m", "invoke", "backup"]
    with endless(stack, file), (tmp_path / "log").open("wb") as log:
        task = subprocess.Popen(command, cwd=stack.root, env=clean_environment(), stdout=log, stderr=log, start_new_session=True)
        assert poll(lambda: bool(list((place / "work").glob("*/server/.serverversion"))), 60), (tmp_path / "log").read_text()
        (os.killpg if to == "the group" else os.kill)(task.pid, signal.SIGINT)
        assert task.wait(timeout=60) == 130
        shown = (tmp_path / "log").read_text()
        assert "Error: interrupted at" in shown and "Traceback" not in shown, shown
        assert poll(lambda: not running(stack), 20), shown
        assert names(stack) == before and not list((place / "work").glob("*")), shown
    assert digests(backup(stack))[file] == digest


def test_ctrl_c_before_the_container_runs_is_as_good(stack: Workspace) -> None:
    before = names(stack)
    stack.interrupted("backup", at="docker compose")
    assert poll(lambda: not running(stack), 20)
    assert names(stack)[: len(before)] == before
    backup(stack)


def test_what_no_rule_keeps_goes_with_the_contents_that_nothing_else_has(stack: Workspace) -> None:
    _, digest = Uploader(stack)("outdated", "1.0")
    backup(stack)
    api(stack, "DELETE", "/pypi/stable/outdated/1.0?force")
    newest = backup(stack)
    path = pooled(stack.root / "backups", digest)
    assert path.exists()
    stack.configure(BACKUP_KEEP_LAST="1", BACKUP_KEEP_DAILY="0", BACKUP_KEEP_WEEKLY="0", BACKUP_KEEP_MONTHLY="0")
    shown = stack.inv("backup", "--prune").stdout
    stack.configure(BACKUP_KEEP_LAST="", BACKUP_KEEP_DAILY="", BACKUP_KEEP_WEEKLY="", BACKUP_KEEP_MONTHLY="")
    assert "1 stay" in shown and names(stack) == [newest["name"]] and not path.exists()
    contents = {path.parent.name + path.name for path in (stack.root / "backups" / "files").glob("??/*")}
    assert contents == {*digests(newest).values(), *(digest for digest, _ in newest["pieces"])}


def forget(stack: Workspace) -> None:
    """Have no snapshots, so that one is due at once."""
    for name in names(stack):
        shutil.rmtree(stack.root / "backups" / "snapshots" / name)


def test_with_a_schedule_snapshots_make_themselves_in_a_container_without_rights(stack: Workspace) -> None:
    Uploader(stack)("scheduled", "1.0")
    forget(stack)
    stack.configure(BACKUP_SCHEDULE="1m")
    stack.inv("up", "--env", "dev", timeout=600)
    log = ["docker", "logs", container(stack, "backup")]
    assert poll(lambda: names(stack) != [], 120), subprocess.run(log, capture_output=True, text=True).stdout
    name = names(stack)[-1]
    assert poll(lambda: f"snapshot {name}: " in subprocess.run(log, capture_output=True, text=True).stdout, 20)
    found: Any = inspect(container(stack, "backup"))
    assert found["Config"]["User"].partition(":")[0] not in ("", "0")
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and host["NetworkMode"] == "none"
    assert (stack.root / "backups" / "snapshots" / name / "verified.json").exists()
    shown = stack.inv("status").stdout
    assert "healthy" in shown and "the newest verified one" in shown and "TOO OLD" not in shown
    assert json.loads((stack.root / "backups" / "schedule.json").read_text())["failed"] == ""


def test_a_schedule_that_fails_is_told_at_once_and_its_container_is_not_healthy_where_it_cannot_write(stack: Workspace) -> None:
    place = stack.root / "backups"
    with (place / "lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        forget(stack)
        assert poll(lambda: "BACKUP_SCHEDULE FAILED" in stack.inv("status").stdout, 120, interval=2)
        assert "no snapshot: another task is at work here" in stack.inv("status").stdout
    place.chmod(0o500)
    try:
        assert poll(lambda: "unhealthy" in stack.inv("status").stdout, 120, interval=2)
        assert f"chmod u+w {place}" in stack.refused("backup")
    finally:
        place.chmod(0o700)
    assert poll(lambda: re.search(r"dev +healthy", stack.inv("status").stdout) is not None, 60, interval=2)


def test_status_tells_of_a_schedule_whose_container_is_down(stack: Workspace) -> None:
    docker("stop", container(stack, "backup"))
    assert re.search(r"dev +exited +container \S+-backup-1", stack.inv("status").stdout)
    stack.configure(BACKUP_SCHEDULE="")
    assert re.search(r"dev +healthy", stack.inv("status").stdout)


def test_a_place_that_the_server_cannot_write_is_refused_before_anything(stack: Workspace, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root has folders that the server cannot write")
    place = tmp_path / "roots"
    place.mkdir(mode=0o755)
    assert "sudo chown -R 1000:1000" in stack.refused("backup", "--to", str(place))
    assert not list(place.iterdir())
    assert "one is in the other" in stack.refused("backup", "--to", str(stack.home / "backups"))
