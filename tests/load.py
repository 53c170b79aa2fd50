"""Clients that ask on and on while something is done to the server."""

import contextlib
import hashlib
import http.client
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from pypi_tasks.world import poll
from tests.packages import twine_upload
from tests.raw import HTML, JSON, PIP, Connection, Uploader, ask
from tests.workspace import Workspace

VERSIONS = 100  # numbers for each project


class Load:
    """Threads that ask on and on, each at its own pace; what became of it.

    With ``retries`` what failed is tried once more, and again and again for ``patience`` seconds.
    """

    patience = 0.0

    def __init__(self, stack: Workspace, folder: Path, retries: bool = False, twine: bool = False) -> None:
        self.stack, self.folder, self.retries, self.with_twine = stack, folder, retries, twine
        self.done: Counter[str] = Counter()
        self.retried: Counter[str] = Counter()
        self.failed: list[str] = []
        self.uploaded: dict[tuple[str, str], str] = {}
        self.stop = threading.Event()
        self.numbers = itertools.count(1)
        self.threads: list[threading.Thread] = []

    def loop(self, kind: str, pause: float, once: Callable[[], None]) -> None:
        """One thread's life."""
        while not self.stop.wait(pause):
            try:
                self.attempt(kind, once)
            except Exception as error:
                self.failed.append(f"{kind}: {error!r:.1000}")
            self.done[kind] += 1

    def attempt(self, kind: str, once: Callable[[], None]) -> None:
        """Do it, and anew where that is allowed."""
        try:
            return once()
        except Exception:
            if not self.retries:
                raise
            self.retried[kind] += 1
        until = time.monotonic() + self.patience
        while True:
            try:
                return once()
            except Exception:
                if time.monotonic() > until:
                    raise
                self.stop.wait(0.2)

    def start(self, kind: str, pause: float, once: Callable[[], None]) -> None:
        self.threads.append(threading.Thread(target=self.loop, args=(kind, pause, once)))
        self.threads[-1].start()

    def end(self) -> None:
        """Have the threads end, each after what it is at."""
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def reader(self, kind: str, paths: list[tuple[str, dict[str, str], str]], pause: float = 0.01) -> None:
        """Read each path in turn, which must be there and hold a text."""
        turns, connection = itertools.cycle(paths), Connection(self.stack, 120)

        def once() -> None:
            path, headers, text = next(turns)
            try:
                answer = connection.ask(path, headers)
            except (OSError, http.client.HTTPException):
                connection.connection.close()
                raise
            if kind == "new connections":
                connection.connection.close()
            assert answer.status == 200 and text in answer.body.decode("latin-1"), (path, answer.status, answer.body)

        self.start(kind, pause, once)

    def uploader(self, name: str) -> None:
        """Upload one version after the other, of one project after the other: a commit has all versions of its project in it."""
        upload = Uploader(self.stack)

        def once() -> None:
            number = next(self.numbers)
            project = f"{name}{number // VERSIONS}"
            file, digest = upload(project, f"1.{number}")
            self.uploaded[project, file] = digest

        self.start("upload", 0.1, once)

    def installer(self, client: str, *argv: str, **environ: str) -> None:
        """Install into a new folder each time, without a second try."""

        def once() -> None:
            target = self.folder / f"{client}-{next(self.numbers)}"
            self.stack.run(*argv, "--target", str(target), "kept", timeout=180, check=True, stdin="", **environ)
            assert (target / "kept.py").exists()

        self.start(client, 0.1, once)

    def twine(self) -> None:
        """Upload with twine, version after version."""
        self.folder.mkdir(exist_ok=True)

        def once() -> None:
            name, content = Uploader.wheel("twined", f"1.{next(self.numbers)}")
            wheel = self.folder / name
            wheel.write_bytes(content)
            twine_upload(self.stack, wheel)
            self.uploaded["twined", name] = hashlib.sha256(content).hexdigest()

        self.start("twine", 0.1, once)

    @contextlib.contextmanager
    def running(self, installs: bool = True) -> Iterator["Load"]:
        """Everything at once: pages and files that are kept, devpi's own answers, uploads, and with ``installs`` pip and uv."""
        file, digest = Uploader(self.stack)("kept", "1.0")
        path = f"/pypi/stable/+f/{digest[:3]}/{digest[3:16]}/{file}"
        pages = [(f"/pypi/{one}/+simple/{page}", form, "kept") for one in ("stable", "derived") for form in (PIP, HTML)
                 for page in ("kept/", "")]  # fmt: skip
        files: list[tuple[str, dict[str, str], str]] = [(path, {}, "PK"), (f"{path}.metadata", {}, "Version: 1.0")]
        index = f"{self.stack.index}/+simple/"
        for each in pages + files:
            assert ask(self.stack, each[0], each[1]).status == 200
        self.reader("pages", pages)
        self.reader("pages", pages[::-1])
        self.reader("files", files)
        self.reader("new connections", pages + files)
        self.reader("devpi", [("/+api", {}, "authstatus"), ("/pypi/stable/kept", {"Accept": "application/json"}, digest)], 0.05)
        self.uploader("one")
        self.uploader("two")
        if installs:
            self.install(index)
        if self.with_twine:
            self.twine()
        try:
            yield self
        finally:
            self.end()

    def install(self, index: str) -> None:
        """Install with pip and with uv."""
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--retries", "0", "--timeout", "120"]
        self.installer("pip", *pip, "--index-url", index)
        uv = ["uv", "pip", "install", "-q", "--no-cache", "--python", sys.executable, "--default-index", index]
        self.installer("uv", *uv, UV_HTTP_RETRIES="0", UV_HTTP_TIMEOUT="120")

    def goes_on(self, kinds: tuple[str, ...], more: int = 5, seconds: float = 120) -> bool:
        """Whether each of these kinds gets some more done."""
        before = self.done.copy()
        return poll(lambda: all(self.done[kind] >= before[kind] + more for kind in kinds), seconds)

    def assert_all_is_well(self) -> None:
        """Nothing failed, and what was acknowledged is there, on the page and on disk, with its digest."""
        assert not self.failed, (len(self.failed), self.failed[:5], self.done)
        assert self.uploaded
        for name in {name for name, _ in self.uploaded}:
            files = {file["filename"]: file for file in ask(self.stack, f"/pypi/stable/+simple/{name}/", JSON).files}
            for (project, file), digest in self.uploaded.items():
                if project == name:
                    assert files[file]["hashes"] == {"sha256": digest}
                    path = f"/pypi/stable/+f/{digest[:3]}/{digest[3:16]}/{file}"
                    assert hashlib.sha256(ask(self.stack, path).body).hexdigest() == digest
