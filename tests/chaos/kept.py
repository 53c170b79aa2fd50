"""Snapshots under load, full disks, and a clock that was set."""

import contextlib
import datetime
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from pypi_tasks.world import poll
from tests.chaos.ground import Run, missing, on_disk, owner, unsound
from tests.raw import token_of
from tests.workspace import Workspace

TIME = "%Y-%m-%dT%H-%M-%SZ"
MEGABYTE = 1_000_000


def backup(stack: Workspace, *words: str) -> str:
    """Make a snapshot; its name."""
    found = re.search(r"snapshot (\S+): serial", stack.inv("backup", *words).stdout)
    assert found, "no name"
    return found[1]


def folder_of(stack: Workspace, snapshot: str) -> Path:
    """Where a snapshot is."""
    return stack.root / "backups" / "snapshots" / snapshot


def manifest_of(stack: Workspace, snapshot: str) -> dict[str, Any]:
    """What a snapshot has."""
    found: dict[str, Any] = json.loads((folder_of(stack, snapshot) / "manifest.json").read_text())
    return found


def restore_elsewhere(run: Run, snapshot: str, named: bool = True) -> None:
    """Bring a snapshot of the stack back in the second checkout, where no server runs, and compare all with the manifest.
    Where it is not ``named`` it must be the one that is taken by itself."""
    run.ground.empty()
    run.other.configure(BACKUP_HOME=str(run.stack.root / "backups"))
    run.other.inv("restore", *([snapshot] if named else []), "--yes")
    server, manifest = run.other.home / "server", manifest_of(run.stack, snapshot)
    assert on_disk(server) == {path: stored[0] for path, stored in manifest["files"].items()}, "other files than in the manifest"
    for name, (digest, _) in manifest["server"].items():
        assert hashlib.sha256((server / name).read_bytes()).hexdigest() == digest, f"{name} is not what the manifest says"


def snapshots(run: Run) -> None:
    """A snapshot while four clients upload has all that was acknowledged before, and is restored as it is."""
    with run.uploading(4) as load:

        def trial() -> str:
            assert load.goes_on(("upload",)), "nothing can be uploaded"
            run.wait(1)
            before = dict(load.uploaded)
            name = backup(run.stack)
            during = len(load.uploaded) - len(before)
            manifest = manifest_of(run.stack, name)
            kept = {path.rpartition("/")[2]: stored[0] for path, stored in manifest["files"].items()}
            run.lose([file for (_, file), digest in before.items() if kept.get(file) != digest])
            assert not manifest["lost"], manifest["lost"]
            restore_elsewhere(run, name)
            return "with uploads meanwhile" if during else "without an upload meanwhile"

        run.each(trial)
    run.check()


def filled(run: Run, path: Path, leave: int) -> Path:
    """A file that takes all room of a disk but some bytes."""
    filler = path / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        for _ in range(max(0, shutil.disk_usage(path).free - leave) // 65536):
            file.write(bytes(65536))
            file.flush()
    return filler


@contextlib.contextmanager
def small_disk(run: Run, path: Path, megabytes: int) -> Iterator[Path]:
    """A file system of a few megabytes there."""
    path.mkdir(exist_ok=True)
    uid, gid = owner(run.stack.home)
    options = f"size={megabytes}m,mode=0700,uid={uid},gid={gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(path)], check=True, capture_output=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)


def offer(stack: Workspace, name: str, version: str, content: bytes) -> tuple[int, str, str]:
    """An upload that may be refused: status, file and digest."""
    file, digest = f"{name}-{version}.tar.gz", hashlib.sha256(content).hexdigest()
    fields = {":action": "file_upload", "protocol_version": "1", "metadata_version": "2.1", "name": name, "version": version}
    fields |= {"filetype": "sdist", "pyversion": "source", "sha256_digest": digest}
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(
            f"{stack.index}/",
            data=fields,
            files={"content": (file, content)},
            auth=("pypi", token_of(stack, "pypi")),
            timeout=180,
        )
    return answer.status_code, file, digest


def full_home(run: Run) -> None:
    """DEVPI_HOME on a disk that is full at a random point of an upload."""
    run.ground.empty()
    run.other.configure(BACKUP_HOME="")
    with small_disk(run, run.other.home, 60 + 6 * run.trials) as disk:
        run.other.inv("up", "--env", "dev", timeout=600)
        acknowledged: dict[tuple[str, str], str] = {}

        def trial() -> str:
            filler = filled(run, disk, run.random.randrange(3 * MEGABYTE))
            statuses = []
            try:
                for _ in range(6):
                    size = run.random.randrange(1000, MEGABYTE)
                    version = f"1.{next(run.ground.numbers)}"
                    status, file, digest = offer(run.other, "filling", version, run.random.randbytes(size))
                    statuses.append(status)
                    run.seen.requests += 1
                    if status == 200:
                        acknowledged["filling", file] = digest
            finally:
                filler.unlink()
            refused = sorted({status for status in statuses if status != 200})
            assert set(refused) <= {507}, f"answered with {refused}"
            run.lose(missing(run.other, acknowledged))

            def works() -> bool:
                status, file, digest = offer(run.other, "after", f"1.{next(run.ground.numbers)}", b"there is room")
                if status == 200:
                    acknowledged["after", file] = digest
                return status == 200

            assert poll(works, 60, 1), "uploads are refused with room on the disk again"
            return f"refused with {', '.join(map(str, refused))}" if refused else "nothing refused"

        run.each(trial)
        if told := unsound(run.other, "--live"):
            run.seen.problems.append(told)
        run.other.inv("down", "--env", "dev", check=False)


def full_backups(run: Run) -> None:
    """BACKUP_HOME on a disk that becomes full while a snapshot is made."""
    size = sum(path.stat().st_size for path in run.stack.home.rglob("*") if path.is_file())
    database = run.stack.home / "server" / ".sqlite"
    with small_disk(run, run.folder(), 100 + size * 6 // MEGABYTE) as disk, run.uploading(1) as load:
        place = disk / "backups"
        backup(run.stack, "--to", str(place))

        def trial() -> str:
            assert load.goes_on(("upload",)), "nothing can be uploaded"
            known = sorted(path.name for path in (place / "snapshots").iterdir())
            filler = filled(run, disk, run.random.randrange(database.stat().st_size * 3 // 2))
            try:
                result = run.stack.inv("backup", "--to", str(place), check=False)
            finally:
                filler.unlink()
            now = sorted(path.name for path in (place / "snapshots").iterdir())
            if result.returncode:
                assert "no room is left" in result.stderr and "Traceback" not in result.stderr, result.stderr[-600:]
                assert now == known and not list((place / "work").glob("*")), "something is left behind"
            sound = run.stack.inv("verify", "--snapshots", check=False, BACKUP_HOME=str(place))
            assert "all sound" in sound.stdout, sound.stdout + sound.stderr
            backup(run.stack, "--to", str(place))
            names = sorted(path.name for path in (place / "snapshots").iterdir())
            for name in names[:-1]:  # or the disk is full of snapshots soon
                shutil.rmtree(place / "snapshots" / name)
            return "refused" if result.returncode else "had room enough"

        run.each(trial)
    run.check()


def redated(stack: Workspace, snapshot: str, days: int) -> str:
    """Have a snapshot be as it would if the clock had been so many days off when it was made; its name then."""
    folder = folder_of(stack, snapshot)
    time = datetime.datetime.strptime(snapshot[:20], TIME).replace(tzinfo=datetime.UTC) + datetime.timedelta(days=days)
    text = json.dumps(manifest_of(stack, snapshot) | {"made": time.isoformat(timespec="seconds")}, indent=0).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")
    return folder.rename(folder.with_name(time.strftime(TIME))).name


def names(stack: Workspace) -> list[str]:
    """All snapshots, in the order of their names."""
    return sorted(path.name for path in (stack.root / "backups" / "snapshots").iterdir())


def clock(run: Run) -> None:
    """Snapshots of a clock that was ahead, and was then set back, or that was behind: the next is made at once, is the newest,
    and is what `inv restore` takes."""
    backup(run.stack)
    for one in names(run.stack):
        shutil.rmtree(folder_of(run.stack, one))

    def trial() -> str:
        run.stack.configure(BACKUP_SCHEDULE="")
        run.stack.inv("up", "--env", "dev")
        is_back = run.random.random() < 0.5
        days = run.random.randrange(1, 400) * (1 if is_back else -1)
        old = redated(run.stack, backup(run.stack), days)
        with run.uploading(1) as load:
            load.goes_on(("upload",), more=1)
        before = names(run.stack)
        run.stack.configure(BACKUP_SCHEDULE="12h")
        run.stack.inv("up", "--env", "dev")
        assert poll(lambda: len(names(run.stack)) > len(before), 60), f"no snapshot is made after {old}"
        new = names(run.stack)[-1]
        assert new not in before and new > old, f"{new} is not the newest"
        assert poll((folder_of(run.stack, new) / "verified.json").exists, 30), f"{new} is not verified"
        files = {path.rpartition("/")[2] for path in manifest_of(run.stack, new)["files"]}
        run.lose([file for _, file in load.uploaded if file not in files])
        restore_elsewhere(run, new, named=False)
        for one in names(run.stack):
            shutil.rmtree(folder_of(run.stack, one))
        return "set back" if is_back else "set forward"

    try:
        run.each(trial)
    finally:
        run.stack.configure(BACKUP_SCHEDULE="")
    run.ground.mend()
    backup(run.stack, "--full")
    run.check()
