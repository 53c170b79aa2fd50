"""How far into a database's history something is true, written down, so that a later process knows what it missed."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from newest import Changes

log = logging.getLogger("pypi_server.pages")

BOOT = Path("/proc/sys/kernel/random/boot_id")
REPLAY_LIMIT = 5_000  # commits; after more than these it is cheaper to begin anew


class History:
    """A file with a serial, a digest of that commit, which tells histories apart, and the machine's boot: what was
    written before a power cut may be half there."""

    def __init__(self, keyfs: Any, file: Path) -> None:
        self.keyfs, self.file = keyfs, file
        self.saved = -2

    def digest(self, serial: int) -> str:
        """What was committed at a serial, in short; empty where nothing was."""
        with self.keyfs.get_connection() as connection:
            entry = connection.get_raw_changelog_entry(serial)
        return hashlib.sha256(entry).hexdigest() if entry else ""

    def head(self) -> int:
        """The last serial of the database; -1 for an empty one."""
        with self.keyfs.get_connection() as connection:
            serial: int = connection.last_changelog_serial
        return serial

    def missed(self) -> list[Changes] | None:
        """The commits since the serial in the file; None where that is not this database's past, or too long ago."""
        try:
            saved = json.loads(self.file.read_text())
            serial, head = int(saved["serial"]), self.head()
            known = saved["boot"] == boot() and serial <= head < serial + REPLAY_LIMIT and saved["digest"] == self.digest(serial)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not known:
            return None
        with self.keyfs.get_connection() as connection:
            return [connection.get_changes(number) for number in range(serial + 1, head + 1)]

    def save(self, serial: int) -> None:
        """Write down how far we are. Late, or not at all, does no harm: more is gone through then."""
        if serial == self.saved:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            work = self.file.with_suffix(".new")
            work.write_text(json.dumps({"serial": serial, "digest": self.digest(serial), "boot": boot()}))
            work.rename(self.file)
            self.saved = serial
        except OSError as error:
            log.warning("%s cannot be written: %s", self.file, error)


def boot() -> str:
    """Which start of the machine this is; empty where the kernel does not say."""
    return BOOT.read_text().strip() if BOOT.exists() else ""
