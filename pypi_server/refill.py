"""A content that was lost or damaged comes back by an upload of the same file.

Of an index that is not volatile devpi takes no file twice: it answers that it has it, by the digest in its database, and
looks at no content. Whoever hears "upload it again" would do so in vain.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from devpi_server.model import NonVolatile, PrivateStage

log = logging.getLogger("pypi_server.refill")


def use() -> None:
    """Have devpi look at what it has, where it refuses to store a file once more."""
    PrivateStage.store_releasefile = looked_at(PrivateStage.store_releasefile)


def looked_at(store: Callable[..., Any]) -> Callable[..., Any]:
    """devpi's way to store a file, with a look at the content of the one that is there."""

    def store_and_look(stage: Any, project: str, version: str, file: str, content: BufferedIOBase, **others: Any) -> Any:
        try:
            return store(stage, project, version, file, content, **others)
        except NonVolatile as error:
            if error.link.matches_hashes(others.get("hashes")):
                refill(Path(error.link.entry.file_os_path(_raises=False)), content)
            raise

    return store_and_look


def refill(path: Path, content: BufferedIOBase) -> None:
    """Have this content in a file, if it is not there yet: in one step, for somebody may be reading it. Not by devpi's
    transaction, which is taken back where an upload is refused."""
    content.seek(0)
    wanted = hashlib.file_digest(content, "sha256").digest()
    with contextlib.suppress(OSError), path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").digest() == wanted:
            return
    made = path.with_name(f"{path.name}-{threading.get_ident()}-tmp")  # devpi's own suffix for what is not finished
    path.parent.mkdir(parents=True, exist_ok=True)
    content.seek(0)
    try:
        with made.open("wb") as file:
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
    log.warning("%s was lost or damaged, and is back by an upload", path.name)
