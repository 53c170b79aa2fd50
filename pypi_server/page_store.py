"""Answers as files, for a proxy to serve from disk: pages, metadata files, and links to what is on disk already.

Everything below the folder may be read by anybody, and is true: what is no longer true is removed, never overwritten
later. Names are those of the URLs::

    USER/INDEX/+simple/PROJECT.html      a page, .json beside it, .gz beside both
    USER/INDEX/+simple.html              the list of projects
    USER/INDEX/+f                        a link to the files of an index
    USER/INDEX/PROJECT/VERSION/+doc      a link to unpacked documentation
    +metadata/USER/INDEX/+f/...metadata  a metadata file

This module knows files alone; ``keeper.py`` knows devpi.
"""

import contextlib
import errno
import gzip
import hashlib
import itertools
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

AGED = ".aged"
WORK = "+work"
STATE = "+state"  # of the one who keeps the files true


def etag_time(body: bytes) -> int:
    """A modification time that stands for the content. The proxy makes a file's ETag of its time, in whole seconds, and
    its size: two pages written in the same second would be told apart by their size alone."""
    return int.from_bytes(hashlib.sha256(body).digest()[:4], "big") >> 1  # 31 bits: all that some file systems keep


class PageStore:
    """The folder, and how many bytes are in it. Callers hold ``lock`` for what must happen together."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.lock = threading.RLock()
        self.sizes: OrderedDict[str, int] = OrderedDict()
        self.numbers = itertools.count()
        self.count()

    def count(self) -> None:
        """Take stock of what is on disk: at the start, and where somebody else may have removed something."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and not {WORK, STATE} & set(path.parts)]
        files.sort(key=lambda path: path.stat().st_ctime_ns)  # as they were put here: what is oldest is removed first
        names = {str(path.relative_to(self.folder)).removesuffix(AGED): path for path in files}
        self.sizes = OrderedDict((name, path.stat().st_size) for name, path in names.items())

    def has(self, name: str) -> bool:
        """Whether a file is there to be served."""
        return (self.folder / name).is_file()

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self.folder / name).read_bytes()

    @contextlib.contextmanager
    def prepared(self, name: str, body: bytes, compress: bool) -> Iterator[dict[str, Path]]:
        """Write a body, and its compressed form, beside the folder's files; yields what ``publish`` takes."""
        work = self.folder / WORK
        work.mkdir(parents=True, exist_ok=True)
        contents = {f"{name}.gz": gzip.compress(body, 6, mtime=0)} if compress else {}
        contents[name] = body  # last: where the proxy finds the plain one, the other is there too
        time = etag_time(body)
        made = {}
        try:
            for target, content in contents.items():
                made[target] = work / f"{os.getpid()}-{next(self.numbers)}"
                made[target].write_bytes(content)
                os.utime(made[target], (time, time))
            yield made
        finally:
            for path in made.values():
                path.unlink(missing_ok=True)

    def publish(self, prepared: dict[str, Path]) -> None:
        """Put prepared files in their places; makes room for them first."""
        for name, path in prepared.items():
            self.sizes.pop(name, None)
            self.sizes[name] = path.stat().st_size
        if sum(self.sizes.values()) > self.limit:
            self.make_room(keep=set(prepared))
        for name, path in prepared.items():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    def make_room(self, keep: set[str]) -> None:
        """Remove what was written longest ago until a tenth of the limit is free."""
        total = sum(self.sizes.values())
        for name in list(self.sizes):
            if total <= self.limit * 0.9:
                return
            if name not in keep:
                total -= self.sizes[name]
                self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a file, in whatever state it is."""
        for one in (name, name + AGED):
            (self.folder / one).unlink(missing_ok=True)
        self.sizes.pop(name, None)

    def age(self, name: str) -> None:
        """Take a file out of the proxy's sight, but keep it for ``revive``."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / name).rename(self.folder / (name + AGED))

    def revive(self, name: str) -> bool:
        """Have an aged file served again; whether there was one."""
        try:
            (self.folder / (name + AGED)).rename(self.folder / name)
        except FileNotFoundError:
            return False
        return True

    def link(self, name: str, target: Path) -> None:
        """Have a folder that is elsewhere served under this name."""
        path = self.folder / name
        if not path.is_symlink():
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                path.symlink_to(target)

    def unlink_below(self, name: str) -> None:
        """Remove a folder of links; what they point to stays."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def indexes(self) -> list[str]:
        """The indexes that have something here, as USER/INDEX."""
        return [f"{path.parent.name}/{path.name}" for path in self.folder.glob("[!+]*/*")]

    def clear(self) -> None:
        """Remove everything at once; the removal itself may take its time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        grave = tempfile.mkdtemp(prefix=f"{self.folder.name}.removed-", dir=self.folder.parent)
        try:
            self.folder.rename(grave)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            self.empty()  # a file system of its own cannot be moved away
        self.folder.mkdir(exist_ok=True)
        self.sizes.clear()
        threading.Thread(target=self.bury).start()

    def empty(self) -> None:
        """Remove everything, one by one, but for what is only being prepared."""
        for path in self.folder.iterdir():
            if path.name != WORK:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def bury(self) -> None:
        """Remove what was cleared, also by a process that did not live to remove it."""
        for grave in self.folder.parent.glob(f"{self.folder.name}.removed-*"):
            shutil.rmtree(grave, ignore_errors=True)


if __name__ == "__main__":  # `inv purge`
    PageStore(Path(os.environ["DEVPI_PAGES"]), 0).clear()
