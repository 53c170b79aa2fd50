"""Snapshots of a server's data: a copy of the database, the files that it names, and a manifest of both.

    BACKUP_HOME/files/AB/CDEF...          contents by their sha256, shared by all snapshots (pool.py)
    BACKUP_HOME/snapshots/NAME/server/    .nodeinfo and .serverversion as they are in devpi's server directory
    BACKUP_HOME/snapshots/NAME/manifest.json, and manifest.sha256 with its digest
    BACKUP_HOME/snapshots/NAME/verified.json   when it was last found to be whole; none until it was
    BACKUP_HOME/snapshots/NAME/secrets.json    where it was made --with-secrets (vault.py)
    BACKUP_HOME/work/                     half-made things, which are no snapshots
    BACKUP_HOME/lock                      locked by the task that is at work here, whose name is in it

A manifest is one JSON object: ``schema`` (1), ``made`` (ISO 8601, UTC), ``serial`` of the last commit and ``digest`` of all,
``uuid``, ``devpi`` and ``database`` (versions), ``image``, ``settings`` (none is a secret), ``mirrors`` (indexes whose files
can be fetched again), ``server`` and ``files`` (name or path below ``+files`` to ``[sha256, size]``), ``pieces`` (those of the
database, ``server``'s ``.sqlite``, in their order), and ``lost`` (path to what is wrong with it).
"""

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from database import Database
from jobs import BadWish, Refusal, tracked
from pool import Pool, Stored, sha256, sync

SCHEMA = 1
DATABASE = ".sqlite"
SERVER = (DATABASE, ".nodeinfo", ".serverversion")
SECRETS = "secrets.json"
TIME = "%Y-%m-%dT%H-%M-%SZ"


def now() -> datetime.datetime:
    """The time, UTC."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Manifest:
    """What a snapshot consists of."""

    made: str
    serial: int
    digest: str
    uuid: str
    database: str
    server: dict[str, Stored]
    files: dict[str, Stored]
    lost: dict[str, str]
    mirrors: list[str]
    pieces: list[Stored] = field(default_factory=list)
    devpi: str = field(default_factory=lambda: version("devpi-server"))
    image: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def is_mirrored(self, path: str) -> bool:
        """Whether a file can be fetched again from where it came."""
        return "/".join(path.split("/")[:2]) in self.mirrors

    def contents(self) -> set[str]:
        """The digests of all that it has in the pool."""
        return {stored.sha256 for stored in (*self.files.values(), *self.pieces)}


def parse(text: bytes) -> Manifest:
    """A manifest of its JSON."""
    found = json.loads(text)
    if found["schema"] != SCHEMA:
        raise Refusal(f"a manifest of schema {found['schema']}, expected {SCHEMA}: it was made by another version of this kit")
    for part in ("server", "files"):
        found[part] = {name: Stored(*stored) for name, stored in found[part].items()}
    found["pieces"] = [Stored(*stored) for stored in found["pieces"]]
    return Manifest(**found)


class Snapshot:
    """One snapshot, whole or not."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name

    def named(self) -> datetime.datetime:
        """The time in its name."""
        return datetime.datetime.strptime(self.name[:20], TIME).replace(tzinfo=datetime.UTC)

    def made(self) -> str:
        """When it was made, ISO 8601; by its name where the manifest cannot say."""
        try:
            return self.manifest().made
        except Refusal:
            return self.named().isoformat()

    @property
    def server(self) -> Path:
        """Its copies of the small files, and while it is made that of the database."""
        return self.folder / "server"

    def write(self, manifest: Manifest) -> None:
        """Write the manifest and its digest."""
        text = json.dumps(vars(manifest)).encode()
        (self.folder / "manifest.json").write_bytes(text)
        (self.folder / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")

    def manifest(self) -> Manifest:
        """The manifest, read and compared with its digest; Refusal where that differs."""
        why = "manifest.json is not what manifest.sha256 says"
        try:
            text = (self.folder / "manifest.json").read_bytes()
            if (self.folder / "manifest.sha256").read_bytes().split()[:1] == [hashlib.sha256(text).hexdigest().encode()]:
                return parse(text)
        except FileNotFoundError as error:
            why = f"{Path(error.filename).name} is missing: only half copied?"
        except OSError as error:
            why = f"{Path(error.filename).name} cannot be read: {error.strerror}"
        except (LookupError, TypeError, ValueError):
            why = "manifest.json is none that this kit wrote"
        raise Refusal(f"snapshot {self.name} is damaged: {why}")

    def verified(self) -> str:
        """When it was last found to be whole, ISO 8601; empty where it never was, or was found damaged since."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads((self.folder / "verified.json").read_text())["at"])
        return ""

    def has_secrets(self) -> bool:
        """Whether locked secrets are beside it."""
        return (self.folder / SECRETS).exists()

    def note(self, is_whole: bool) -> None:
        """Write down what a look at it has shown."""
        if not is_whole:
            (self.folder / "verified.json").unlink(missing_ok=True)
            return
        (self.folder / "verified.json").write_text(json.dumps({"at": now().isoformat(timespec="seconds")}))

    def damage(self, sound: set[str]) -> list[str]:
        """What of it is not as its manifest says. ``sound`` has the contents of the pool that were read and are."""
        try:
            manifest = self.manifest()
        except Refusal as refusal:
            return [str(refusal)]
        found = []
        for name, stored in manifest.server.items():
            path = self.server / name
            if name != DATABASE and (not path.exists() or sha256(path) != stored.sha256):
                found.append(name)
        if any(stored.sha256 not in sound for stored in manifest.pieces):
            found.append(DATABASE)
        found += [path for path, stored in manifest.files.items() if stored.sha256 not in sound]
        return [f"snapshot {self.name} is damaged: {path} is not what its manifest says" for path in found]


class Backups:
    """A place for backups, by whoever has it for the moment: ``claimed`` keeps others out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = Pool(folder)
        self.work = self.pool.work

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Let nobody else make or remove snapshots here meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.refuse_foreign()
        with (self.folder / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read(20).strip()
                raise Refusal(f"another task is at work here{who and f', {who}'}; wait for it, then try again") from None
            with contextlib.suppress(OSError):  # a full disk has no room for a name
                file.truncate(0)
                os.write(file.fileno(), Path(sys.argv[0]).stem.encode())
            shutil.rmtree(self.work, ignore_errors=True)
            for folder in (self.work, self.pool.folder, self.folder / "snapshots"):
                folder.mkdir(exist_ok=True, mode=0o700)
            try:
                yield
            finally:
                shutil.rmtree(self.work, ignore_errors=True)

    def refuse_foreign(self) -> None:
        """Refuse a place where we could not write, before anything is."""
        for name in ("", "lock", "work", "files", "snapshots"):
            path = self.folder / name
            if path.exists() and not os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0)):
                what, uid, owner = f"BACKUP_HOME/{name}".rstrip("/"), os.getuid(), path.stat().st_uid
                if os.statvfs(path).f_flag & os.ST_RDONLY:
                    raise Refusal(f"{what} is on a read-only file system. On the host: mount it read-write")
                if owner == uid:
                    raise Refusal(f"{what} is read-only for uid {uid}, its owner. On the host: chmod u+w {what}")
                raise Refusal(
                    f"{what} belongs to uid {owner} and cannot be written by uid {uid}, which makes the snapshots. "
                    f"On the host: sudo chown -R {uid}:{os.getgid()} BACKUP_HOME"
                )

    def all(self) -> list[Snapshot]:
        """The snapshots, oldest first."""
        return [Snapshot(path) for path in sorted((self.folder / "snapshots").glob("[0-9]*")) if path.is_dir()]

    def find(self, name: str = "") -> Snapshot:
        """The snapshot of a name, the newest verified one for none; Refusal lists what is there."""
        found = {one.name: one for one in self.all()}
        if name:
            if name in found:
                return found[name]
            raise BadWish(f"there is no snapshot {name!r}; known: {', '.join(found) or 'none'}")
        for one in reversed(found.values()):
            if one.verified():
                return one
        if found:
            raise Refusal(
                f"no snapshot is verified, of {', '.join(found)}.\n"
                "  Fix: `inv verify --snapshots` reads them again; one that is named is taken as far as it is whole"
            )
        raise Refusal("there is no snapshot here.\n  Fix: `inv backup` makes one, `inv fetch` gets one from elsewhere")

    def new(self) -> Snapshot:
        """An empty folder for a snapshot in the making. Names are in the order of making, even where the clock was set back."""
        time = now().replace(microsecond=0)
        if found := self.all():
            time = max(time, found[-1].named() + datetime.timedelta(seconds=1))
        folder = self.work / time.strftime(TIME)
        made = Snapshot(folder)
        made.server.mkdir(parents=True)
        return made

    def finish(self, made: Snapshot) -> Snapshot:
        """Let a snapshot count. What it consists of is on disk before its name is."""
        sync(self.folder)
        target = self.folder / "snapshots" / made.name
        made.folder.rename(target)
        sync(target.parent)
        return Snapshot(target)

    def remove(self, snapshots: list[Snapshot]) -> None:
        """Remove snapshots, and the contents that no other one has; Refusal, before anything, where that cannot be known."""
        going = {one.name for one in snapshots}
        kept: set[str] = set()
        for one in self.all():
            if one.name not in going:
                kept |= one.manifest().contents()
        for one in snapshots:
            one.folder.rename(self.work / one.name)
        for path in self.pool.contents():
            if path.parent.name + path.name not in kept:
                path.unlink()

    def sound(self) -> set[str]:
        """The contents that are what their names say: reads all of them."""
        contents = [path.parent.name + path.name for path in self.pool.contents()]
        return {digest for digest in tracked(contents, "contents read") if self.pool.is_sound(digest)}

    @contextlib.contextmanager
    def database(self, manifest: Manifest) -> Iterator[Path]:
        """A snapshot's copy of the database, put together; Refusal where that is not what the manifest says."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            path = Path(folder) / DATABASE
            with contextlib.suppress(FileNotFoundError):
                self.pool.join(manifest.pieces, path)
            if sha256(path) != manifest.server[DATABASE].sha256:
                raise Refusal("the snapshot's copy of the database is damaged")
            yield path

    def predecessor(self, database: Database) -> tuple[Snapshot, Manifest] | None:
        """The newest snapshot of this database's own past."""
        for one in reversed(self.all()):
            with contextlib.suppress(Refusal):
                manifest = one.manifest()
                if manifest.digest == database.digest(manifest.serial):
                    return one, manifest
        return None
