"""Where the faults happen: a stack of its own in a temporary folder, a second checkout for copies of it, and one fault's run."""

import contextlib
import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.load import Load
from tests.raw import JSON, PIP, ask, make_index
from tests.workspace import Workspace, checkout

SECONDS = 600.0  # that a trial may take
GIVE_UP = 3  # trials that did not hold, after which a fault's others are left out
SHOWN = 5
KINDS = ("pages", "files", "new connections", "devpi", "upload")
Uploads = dict[tuple[str, str], str]  # project and file name: sha256


class Late(Exception):
    """A trial that did not end in its time."""


@dataclass
class Seen:
    """What came of a fault's trials: ``notes`` counts what a trial says of itself, ``problems`` are what did not hold."""

    trials: int = 0
    requests: int = 0
    failed: int = 0
    retried: int = 0
    lost: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def held(self) -> bool:
        """Whether all that must hold did."""
        return not (self.failed or self.lost or self.problems)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Late is raised in the block when it takes longer."""

    def ring(*_: object) -> None:
        raise Late(f"not done after {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Ground:
    """The stack, made when it is entered and gone when it is left. ``say`` tells people of progress."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.numbers = itertools.count(1)  # no two loads upload the same version
        self.stacks: list[Workspace] = []

    def __enter__(self) -> "Ground":
        self.folder = Path(tempfile.mkdtemp(prefix="pypi-chaos-"))
        try:
            self.stack = self.checkout("stack")
            self.say(f"bringing a stack up in {self.folder}")
            self.stack.inv("up", "--env", "dev", timeout=600)
            make_index(self.stack, "derived", "pypi/stable")
            self.other = self.checkout("copy")
        except BaseException:
            self.sweep()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.sweep()

    def checkout(self, name: str) -> Workspace:
        """A checkout with a project of its own; with the secrets of the stack, where there is one."""
        root = self.folder / name
        root.mkdir()
        made = checkout(root, f"pypi-chaos-{uuid.uuid4().hex[:8]}")
        if self.stacks:
            shutil.copytree(self.stacks[0].root / ".secrets", root / ".secrets", copy_function=copy_owned)
            os.chown(root / ".secrets", *owner(self.stacks[0].root / ".secrets"))
        self.stacks.append(made)
        return made

    def mend(self) -> None:
        """Have the stack up and the copy down, whatever the last fault did."""
        self.stack.inv("up", "--env", "dev", timeout=600)
        self.empty()

    def empty(self) -> None:
        """Have nothing in the second checkout: no containers and no data."""
        self.other.inv("down", "--env", "dev", check=False)
        shutil.rmtree(self.other.home, ignore_errors=True)

    def sweep(self) -> None:
        """Remove all that was made."""
        from tests.conftest import remove_all

        self.say("taking everything down")
        for one in self.stacks:
            remove_all(one.project)
        shutil.rmtree(self.folder, ignore_errors=True)


def owner(path: Path) -> tuple[int, int]:
    """Whose a file is."""
    return path.stat().st_uid, path.stat().st_gid


def copy_owned(source: str, target: str) -> str:
    """Copy a file and whose it is."""
    shutil.copy2(source, target)
    os.chown(target, *owner(Path(source)))
    return target


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder as it is, also one that changes meanwhile."""
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], capture_output=True)


@dataclass
class Run:
    """One fault's trials."""

    ground: Ground
    name: str
    trials: int
    random: random.Random
    seen: Seen = field(default_factory=Seen)

    @property
    def stack(self) -> Workspace:
        return self.ground.stack

    @property
    def other(self) -> Workspace:
        return self.ground.other

    def each(self, trial: Callable[[], str]) -> None:
        """Do all trials, each of which says in a few words what it saw, or raises; one that did not hold ends no run."""
        for number in range(1, self.trials + 1):
            started = time.monotonic()
            try:
                with deadline(SECONDS):
                    said = trial()
                self.seen.notes[said] += 1
            except Exception as error:
                said = f"DID NOT HOLD: {brief(error)}"
                self.seen.problems.append(f"trial {number}: {brief(error)}")
            self.seen.trials = number
            self.ground.say(f"{self.name} {number}/{self.trials}: {said} ({time.monotonic() - started:.0f} s)")
            if len(self.seen.problems) >= GIVE_UP:
                return

    def wait(self, most: float) -> None:
        """Go on at a random instant."""
        time.sleep(self.random.uniform(0, most))

    def folder(self) -> Path:
        """A new folder."""
        return Path(tempfile.mkdtemp(dir=self.ground.folder))

    @contextlib.contextmanager
    def loaded(self, retries: bool = False, twine: bool = False) -> Iterator[Load]:
        """All kinds of clients meanwhile; what became of their requests is counted."""
        load = Load(self.stack, self.folder(), retries, twine)
        load.numbers = self.ground.numbers
        try:
            with load.running():
                yield load
        finally:
            self.count(load)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Load]:
        """Clients that only read meanwhile."""
        with self.running_alone() as load:
            load.reader("pages", [("/pypi/stable/+simple/kept/", PIP, "kept")])
            load.reader("devpi", [("/pypi/stable", {"Accept": "application/json"}, "stage")], 0.05)
            yield load

    @contextlib.contextmanager
    def uploading(self, clients: int) -> Iterator[Load]:
        """So many clients that upload without a pause."""
        with self.running_alone() as load:
            for number in range(clients):
                load.uploader(f"busy{number}")
            yield load

    @contextlib.contextmanager
    def running_alone(self) -> Iterator[Load]:
        """A load of whatever clients the block starts."""
        load = Load(self.stack, self.folder())
        load.numbers = self.ground.numbers
        try:
            yield load
        finally:
            load.end()
            self.count(load)

    def count(self, load: Load) -> None:
        """Take over what a load has seen, and look whether what was acknowledged to it is there."""
        self.seen.requests += load.done.total()
        self.seen.retried += load.retried.total()
        self.seen.failed += len(load.failed)
        self.seen.problems += load.failed[:SHOWN]
        self.lose(missing(self.stack, load.uploaded))

    def lose(self, names: list[str]) -> None:
        """Note what was acknowledged and is lost or altered."""
        self.seen.lost += len(names)
        self.seen.problems += [f"lost or altered: {', '.join(names[:SHOWN])}"] if names else []

    def check(self) -> None:
        """The stack's data must be sound."""
        if told := unsound(self.stack):
            self.seen.problems.append(told)


def brief(error: BaseException) -> str:
    """An error for a table."""
    text = " ".join(f"{error}".split()) or repr(error)
    return text if len(text) < 600 else f"{text[:300]} ... {text[-300:]}"


def missing(stack: Workspace, uploaded: Uploads) -> list[str]:
    """The files of ``uploaded`` that are not on their page, or not there with the same content."""
    found = []
    pages: dict[str, dict[str, Any]] = {}
    for (name, file), digest in list(uploaded.items()):
        if name not in pages:
            page = ask(stack, f"/pypi/stable/+simple/{name}/", JSON, timeout=120)
            pages[name] = {one["filename"]: one for one in page.files} if page.status == 200 else {}
        shown = pages[name].get(file, {}).get("hashes")
        content = ask(stack, f"/pypi/stable/+f/{digest[:3]}/{digest[3:16]}/{file}", timeout=120).body
        if shown != {"sha256": digest} or hashlib.sha256(content).hexdigest() != digest:
            found.append(file)
    return found


def unsound(stack: Workspace, *words: str) -> str:
    """What `inv verify` finds damaged; empty for nothing."""
    result = stack.inv("verify", *words, check=False)
    shown = result.stdout + result.stderr
    return "" if result.returncode == 0 and "all sound" in shown else f"inv verify exited {result.returncode}: {shown[-1500:]}"


def on_disk(server: Path) -> dict[str, str]:
    """The files that a server directory has, with their digests."""
    files = [path for path in sorted((server / "+files").rglob("*")) if path.is_file()]
    return {str(path.relative_to(server / "+files")): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def flip(path: Path, at: int, bit: int) -> None:
    """Flip a bit of a file where it is."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
