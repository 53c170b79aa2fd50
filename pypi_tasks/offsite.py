"""Snapshots in an object store, or wherever else rclone reaches; it has the credentials, in its own configuration.

The place looks like BACKUP_HOME (pypi_server/snapshot.py). Contents go first, then the snapshot, its manifest.sha256 last: a
copy that was cut off is no snapshot. verified.json stays: whether a copy is whole is found out where it is fetched.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pypi_tasks import engine
from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import BadInput, Failed, NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.terminal import bars, human
from pypi_tasks.words import counted
from pypi_tasks.world import World

Sizes = dict[str, int]  # by path, in bytes
LAST = "manifest.sha256"
VERIFIED = "verified.json"
NO_FOLDER = 3  # rclone's exit code where there is no such folder; an object store has none before its first file
IMPATIENT = ("--retries", "1", "--low-level-retries", "2", "--contimeout", "15s")


def is_remote(to: str) -> bool:
    """Whether a place is one of rclone's, NAME:PATH; a folder with a colon in its name is written with a slash, ./a:b."""
    name, colon, _ = to.partition("/")[0].partition(":")
    if colon and not re.fullmatch(r"\w[\w.+@ -]*", name):
        raise BadInput(
            "expected a folder, or NAME:PATH with the name of one of rclone's remotes.",  # it may hold a key: not shown
            fix="`rclone config` makes one and keeps its credentials; a folder with a colon is written ./a:b",
        )
    return bool(colon)


def below(remote: str, path: str) -> str:
    """A path in a remote."""
    return f"{remote}{path}" if remote.endswith((":", "/")) else f"{remote}/{path}"


def rclone(world: World, *words: str) -> list[str]:
    """A command of rclone's. Where all comes from RCLONE_CONFIG_* it is told so: it would warn of a missing file each time."""
    none = "doesn't exist" in world.ask(["rclone", "config", "file"], check=False).stdout
    return ["rclone", *(["--config", ""] if none else []), *words]


def contents(folder: Path, fix: str) -> Sizes:
    """What a snapshot needs of the pool, by path there; Failed, with what to do, where its manifest is not whole."""
    why = f"manifest.json is not what {LAST} says"
    try:
        text = (folder / "manifest.json").read_bytes()
        if (folder / LAST).read_bytes().split()[:1] == [hashlib.sha256(text).hexdigest().encode()]:
            manifest = json.loads(text)
            return {f"{digest[:2]}/{digest[2:]}": size for digest, size in (*manifest["files"].values(), *manifest["pieces"])}
    except OSError as error:
        why = f"{Path(error.filename).name} cannot be read: {error.strerror}"
    except (LookupError, TypeError, ValueError):
        why = "manifest.json is none that this kit wrote"
    raise Failed(f"snapshot {folder.name} is damaged: {why}.", fix=fix)


def missing(wanted: Mapping[str, int], there: Mapping[str, int]) -> list[str]:
    """What is not there, or only in part."""
    return sorted(path for path, size in wanted.items() if there.get(path) != size)


def local(folder: Path, wanted: Collection[str]) -> Sizes:
    """Those of some files that a folder has."""
    return {path: (folder / path).stat().st_size for path in wanted if (folder / path).exists()}


def listing(world: World, place: str, *options: str) -> Sizes:
    """All files below a place of rclone's, to any depth."""
    shape = ["--recursive", "--files-only", "--fast-list", "--format", "sp", "--separator", "\t"]
    found = world.ask(rclone(world, "lsf", *shape, *options, place), check=False)
    if found.returncode not in (0, NO_FOLDER):
        raise Failed(f"rclone cannot look at {place.rstrip(':')}: {found.stderr.strip()}", fix=f"rclone lsf {place}")
    return {path: int(size) for size, path in (line.split("\t", 1) for line in found.stdout.splitlines())}


def check_reach(world: World, settings: Settings, remote: str, access: int) -> None:
    """rclone is there, the remote answers, and BACKUP_HOME may be used by whoever runs this."""
    if not shutil.which("rclone"):
        raise NotReady("the command rclone is not there.", fix="install rclone, then `rclone config`")
    try:
        allowed = not settings.backup_home.exists() or os.access(settings.backup_home, access | os.X_OK)
    except OSError:
        allowed = False
    if not allowed:
        what = "written" if access & os.W_OK else "read"
        raise NotReady(
            f"{settings.backup_home} cannot be {what} by uid {os.getuid()}, who runs rclone.",
            fix=f"run this as root, or as uid {settings.devpi_uid}, who makes the snapshots",
        )
    world.say(f"looking at {remote}")
    listing(world, remote, "--max-depth", "1", *IMPATIENT)


def check(world: World, settings: Settings, server: Deployment, remote: str) -> None:
    """Refuse what cannot be sent, before a snapshot is made."""
    server.look()
    if server.env != "local" and shutil.which("docker") and not engine.endpoint(world).is_here:
        raise NotReady("the engine is elsewhere, and so are the snapshots.", fix="on the engine's machine, run the same command")
    check_reach(world, settings, remote, os.R_OK)


def copy(world: World, source: str, target: str, names: Collection[str]) -> None:
    """Copy some files, and compare both sides, by whatever digest the store has."""
    if not names and not world.dry:
        return
    shown = ["--progress"] if sys.stdout.isatty() else ["--stats", "10s", "--stats-one-line", "--stats-log-level", "NOTICE"]
    with tempfile.NamedTemporaryFile("w", prefix="rclone-", suffix=".txt") as file:
        file.write("".join(f"{name}\n" for name in names))
        file.flush()
        places = ["--files-from-raw", file.name, source, target]
        fix = "the same command again sends what is missing"
        # One stream for each file: what is cut off is then too short, and seen to be.
        world.run(rclone(world, "copy", "--no-traverse", "--multi-thread-streams", "0", *shown, *places), fix)
        world.run(rclone(world, "check", "--one-way", *places), fix)


def send(world: World, settings: Settings, remote: str, name: str) -> None:
    """Copy a snapshot: what it needs and the place does not have, then itself; it counts once all is seen to be there."""
    home, folder = settings.backup_home, settings.backup_home / "snapshots" / (name or "NAME")
    pool, place = below(remote, "files"), below(remote, f"snapshots/{folder.name}")
    wanted = {} if world.dry else contents(folder, "inv verify")
    new = missing(wanted, listing(world, pool))
    copy(world, str(home / "files"), pool, new)
    if absent := missing(wanted, listing(world, pool)):
        raise Failed(f"{counted(len(absent), 'content')} did not arrive in {pool}, such as {absent[0]}.", fix="inv verify")
    parts = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file() and path.name != VERIFIED]
    copy(world, str(folder), place, [part for part in parts if part != LAST])
    copy(world, str(folder), place, [LAST])
    if not world.dry:
        sent = f"{counted(len(new), 'content')} sent, {human(sum(wanted[one] for one in new))}"
        world.say(f"snapshot {name} is in {remote} now; {sent}")


def fetch(world: World, settings: Settings, remote: str, name: str = "", owner: tuple[int, int] | None = None) -> str:
    """Copy a snapshot into BACKUP_HOME, the newest for no name, with all that it needs, read it all, and have it count."""
    if not is_remote(remote):
        raise BadInput("--from: expected NAME:PATH, with the name of one of rclone's remotes.", fix="rclone listremotes")
    check_reach(world, settings, remote, os.R_OK | os.W_OK)
    there = below(remote, "snapshots")
    known = known_in(world, remote, name)
    name, home = name or known[-1], settings.backup_home
    target = home / "snapshots" / name
    if target.exists():
        world.say(f"snapshot {name} is in {home} already")
        return name
    world.make_folder(home, mode=0o700, owner=owner)
    with (
        world.exclusive(home / "lock", "another task is at work in BACKUP_HOME."),
        handed_over(world, home, owner),
        emptied(world, home / "work") as folder,
    ):
        work, pool = folder / name, below(remote, "files")
        copy(world, below(there, name), str(work), list(listing(world, below(there, name))))
        other = another(remote, [one for one in known if one != name])
        wanted = {} if world.dry else contents(work, other)
        new = missing(wanted, local(home / "files", wanted))
        fix = f"{other}; or rclone copy {remote} {home}, then inv restore {name} --without-damaged"
        refuse_absent(world, pool, {path: wanted[path] for path in new}, fix)
        copy(world, pool, str(home / "files"), new)
        refuse_damaged(world, home / "files", work, wanted, new, fix)
        protect(world, [home / "files" / path for path in wanted])
        world.write(work / VERIFIED, json.dumps({"at": now()}))
        world.make_folder(target.parent, mode=0o700)
        world.act("sync", os.sync)
        world.act(f"mv {work} {target}", lambda: work.rename(target))
    if not world.dry:
        got = f"{counted(len(new), 'content')} fetched, {human(sum(wanted[one] for one in new))}"
        world.say(f"snapshot {name} is in {home}, whole; {got}")
        world.say(f"Next: inv restore {name}")
    return name


def known_in(world: World, remote: str, name: str) -> list[str]:
    """The snapshots of a place, oldest first; BadInput where there is none, or none of that name."""
    found = listing(world, below(remote, "snapshots"))
    whole = sorted(path.partition("/")[0] for path in found if path.endswith(f"/{LAST}"))
    part = sorted({path.partition("/")[0] for path in found} - set(whole))
    if name in ("", *whole) and whole:
        return whole
    what = f"there is no snapshot {name} in {remote}; known: {', '.join(whole) or 'none'}".replace("  ", " ")
    if part:
        what += f"; sent only in part, without {LAST}: {', '.join(part)}"
    raise BadInput(f"{what}.", fix=f"inv backup --to {remote}, where the server still runs" if part or not whole else "")


def another(remote: str, others: list[str]) -> str:
    """What to do where a snapshot elsewhere is not whole: to fetch it again would not help."""
    return f"inv fetch {others[-1]} --from {remote}" if others else f"inv backup --to {remote}, where the server still runs"


def refuse_absent(world: World, pool: str, new: Sizes, fix: str) -> None:
    """Fetch nothing where the other side does not have all of it: rclone passes over what is not there."""
    if new and (absent := missing(new, listing(world, pool))):
        what = f"{counted(len(absent), 'content')} of the snapshot missing in {pool}, or there only in part, such as {absent[0]}."
        raise Failed(what, fix=fix)


def protect(world: World, paths: list[Path]) -> None:
    """Let nobody write contents, as nobody may those that were made here."""
    loose = [path for path in paths if path.stat().st_mode & 0o222]
    if loose and world.announce(f"chmod 444, {counted(len(loose), 'content')}"):
        for path in loose:
            path.chmod(0o444)


@contextlib.contextmanager
def emptied(world: World, folder: Path) -> Iterator[Path]:
    """A folder for what is half-made: what an earlier task left there goes before, all of it afterwards, however that ends."""
    world.remove(folder)
    try:
        yield folder
    finally:
        world.remove(folder)


def now() -> str:
    """The time, UTC, as verified.json has it."""
    import datetime

    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def digest(path: Path) -> str:
    """The sha256 of a file; empty where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_damaged(world: World, pool: Path, work: Path, wanted: Mapping[str, int], new: list[str], fix: str) -> None:
    """Read all that a snapshot consists of. What was just fetched and is not what its name says goes again; what was here is
    moved away, so that another attempt fetches it. ``fix`` is for what is damaged elsewhere."""
    if world.dry:
        return
    manifest: dict[str, Any] = json.loads((work / "manifest.json").read_text())
    small = {name: expected for name, (expected, _) in manifest["server"].items() if name != ".sqlite"}  # which is in the pool
    damaged = [name for name, expected in small.items() if digest(work / "server" / name) != expected]
    with bars() as show:
        for number, path in enumerate(wanted):
            show({"what": "contents read", "done": number, "total": len(wanted)})
            if digest(pool / path) != path.replace("/", ""):
                damaged.append(path)
    here = set(damaged) & wanted.keys() - set(new)
    for path in damaged:
        if path in here:
            aside = pool.parent / "damaged" / path
            world.make_folder(aside.parent)
            world.act(f"mv {pool / path} {aside}", functools.partial((pool / path).replace, aside))
        elif path in wanted:
            world.remove(pool / path)
    if damaged:
        what = f"{counted(len(damaged), 'file')} of snapshot {work.name} not as its manifest says, such as {damaged[0]}"
        if here == set(damaged):
            raise Failed(f"{what}; moved to {pool.parent / 'damaged'}.", fix="the same command again fetches what is missing")
        raise Failed(f"{what}, in the copy elsewhere.", fix=fix)


@contextlib.contextmanager
def handed_over(world: World, home: Path, owner: tuple[int, int] | None) -> Iterator[None]:
    """Give what root fetches in the block to the user who makes the snapshots, however it ends."""
    try:
        yield
    finally:
        if owner and os.getuid() == 0 and home.exists():
            foreign = [path for path in (home, *home.rglob("*")) if path.lstat().st_uid != owner[0]]
            world.act(f"chown {owner[0]}:{owner[1]}, {len(foreign):,} files in {home}", lambda: give(foreign, *owner))


def give(paths: list[Path], uid: int, gid: int) -> None:
    """Give files to a user."""
    for path in paths:
        os.chown(path, uid, gid, follow_symlinks=False)
