"""Bits flipped in a file, in the database, in a snapshot."""

import contextlib
import sqlite3
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos.ground import Run, flip, unsound
from tests.chaos.kept import backup, folder_of, manifest_of, restore_elsewhere
from tests.workspace import Workspace

FLIPS = 200  # bits that may be tried until one matters


def chosen_bit(random: Random, path: Path, most: int = 0) -> tuple[int, int]:
    """A byte of a file, of its first ones where ``most`` is given, and a bit."""
    return random.randrange(min(most or path.stat().st_size, path.stat().st_size)), random.randrange(8)


def file(run: Run) -> None:
    """A live file: found, repaired from a snapshot, and as before."""
    with run.uploading(2) as load:
        load.goes_on(("upload",), more=20)
    backup(run.stack)
    files = [path for path in sorted((run.stack.home / "server" / "+files" / "pypi" / "stable").rglob("*")) if path.is_file()]

    def trial() -> str:
        path = run.random.choice(files)
        content, (at, bit) = path.read_bytes(), chosen_bit(run.random, path)
        flip(path, at, bit)
        told = unsound(run.stack, "--live")
        assert path.name in told and "all sound" not in told, f"bit {bit} of byte {at} of {path.name} was not found"
        run.stack.inv("verify", "--live", "--repair")
        assert path.read_bytes() == content, f"{path.name} was not repaired"
        return "found, and repaired from a snapshot"

    run.each(trial)
    run.check()


def rows(database: Path) -> Any:
    """All that a database holds; what SQLite says where it cannot be read, or finds itself damaged."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as connection:
            tables = ("SELECT * FROM changelog ORDER BY serial", "SELECT * FROM kv ORDER BY key", "PRAGMA integrity_check")
            return [connection.execute(query).fetchall() for query in tables]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return str(error)


def database(run: Run) -> None:
    """A bit of the database that changes a row, or that SQLite notices. In free room it changes nothing."""
    name = backup(run.stack)
    restore_elsewhere(run, name)
    path = run.other.home / "server" / ".sqlite"
    sound = rows(path)

    def trial() -> str:
        for _ in range(FLIPS):
            at, bit = chosen_bit(run.random, path)
            flip(path, at, bit)
            if rows(path) != sound:
                break
            flip(path, at, bit)
        else:
            raise AssertionError(f"no bit of {FLIPS} changes anything")
        try:
            told = unsound(run.other, "--live")
        finally:
            flip(path, at, bit)
        assert told, f"bit {bit} of byte {at} of the database was not found"
        assert "Traceback" not in told, told
        return "found"

    run.each(trial)
    if told := unsound(run.other, "--live"):
        run.seen.problems.append(told)
    run.ground.empty()


def parts(stack: Workspace, snapshot: str) -> list[tuple[Path, int]]:
    """The files of a snapshot, and how many bytes of each matter (0 for all)."""
    folder, manifest = folder_of(stack, snapshot), manifest_of(stack, snapshot)
    pool = stack.root / "backups" / "files"
    contents = [pool / digest[:2] / digest[2:] for digest, _ in (*manifest["files"].values(), *manifest["pieces"])]
    server = [path for name in manifest["server"] if (path := folder / "server" / name).exists()]  # the database is in pieces
    return [(folder / "manifest.json", 0), (folder / "manifest.sha256", 64), *((path, 0) for path in (*server, *contents))]


def snapshot(run: Run) -> None:
    """A bit of a snapshot: found, and the snapshot is not restored."""
    with run.uploading(2) as load:
        load.goes_on(("upload",))
    name = backup(run.stack)
    run.ground.empty()
    run.other.configure(BACKUP_HOME=str(run.stack.root / "backups"))
    of_one = parts(run.stack, name)

    def trial() -> str:
        kind = run.random.choice([of_one[:2], of_one[2:4], of_one[4:]])
        path, most = run.random.choice(kind)
        at, bit = chosen_bit(run.random, path, most)
        flip(path, at, bit)
        try:
            told = unsound(run.stack, "--snapshots")
            assert told, f"bit {bit} of byte {at} of {path.name} was not found"
            refusal = run.other.refused("restore", name, "--yes")
            assert "is damaged" in refusal and not (run.other.home / "server").exists(), refusal
        finally:
            flip(path, at, bit)
        return "found, and not restored"

    run.each(trial)
    run.check()
    restore_elsewhere(run, name)
