"""Secrets: a type that does not print itself, and the files that hold them."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pypi_tasks.errors import NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.world import World


@dataclass(frozen=True)
class SecretFile:
    """One secret of the stack: its file in SECRETS_HOME, and the value that a setting gives it, if any."""

    path: Path
    given: str = ""


def files(settings: Settings) -> list[SecretFile]:
    """The three secrets that every stack has."""
    return [
        SecretFile(settings.secrets_home / "root_password", settings.root_password.reveal()),
        SecretFile(settings.secrets_home / "user_password", settings.pypi_password.reveal()),
        SecretFile(settings.secrets_home / "server_secret"),
    ]


def missing_or_changed(settings: Settings) -> Iterator[tuple[SecretFile, str]]:
    """The files that have to be written, with what goes in; a given value wins over a stored one."""
    for file in files(settings):
        stored = file.path.read_text(encoding="utf-8").strip() if file.path.exists() else ""
        if not stored or (file.given and file.given != stored):
            yield file, file.given or secrets.token_urlsafe(32)


def check(settings: Settings) -> None:
    """Refuse secrets that the user who runs the task cannot read, before anything is started."""
    for file in files(settings):
        try:
            file.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise NotReady(
                f"the secret {file.path} cannot be read: {error.strerror}.", fix=f"sudo chown {os.getuid()} {file.path}"
            ) from None


def settle(world: World, settings: Settings, owner: tuple[int, int] | None) -> None:
    """Have every secret in a file of mode 0600, owned by the uid and gid that a container reads it as, if any.

    A stored password that a setting replaces is kept beside it, as NAME.previous.
    """
    world.make_folder(settings.secrets_home, mode=0o700)
    for file, value in missing_or_changed(settings):
        if file.path.exists():
            previous = file.path.with_suffix(".previous")
            world.write(previous, file.path.read_text(encoding="utf-8"), mode=0o600, secret=True)
        world.write(file.path, value + "\n", mode=0o600, secret=True)
    for file in files(settings):
        if owner:
            world.own(file.path, *owner)
