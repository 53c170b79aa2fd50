"""What several test modules need: settings of a folder's own, an error's text, a user whom permissions bind."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pypi_tasks.settings import Settings, load

if TYPE_CHECKING:
    import pytest

    from pypi_tasks.errors import UserError

NOBODY = 65534


def settings_of(folder: Path, text: str = "", **environ: str) -> Settings:
    """The settings of an ``.env`` with this text, and of these variables alone; data and secrets are below ``folder``."""
    places = f"DEVPI_HOME={folder / 'devpi'}\nSECRETS_HOME={folder / 'secrets'}\n"
    (folder / ".env").write_text(places + text, encoding="utf-8")
    return load(folder / ".env", environ=environ)


def told(caught: "pytest.ExceptionInfo[UserError]") -> str:
    """What the user reads."""
    return str(caught.value.message)


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="public-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


@contextlib.contextmanager
def unprivileged() -> Iterator[int]:
    """Be a user whom permission bits bind, which root is not; yields the uid."""
    if os.getuid() != 0:
        yield os.getuid()
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield NOBODY
    finally:
        os.setresuid(0, 0, 0)
