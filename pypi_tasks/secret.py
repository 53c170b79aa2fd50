"""Secrets: a type that does not print itself, and the files that hold them."""

import os
import secrets
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


def stored(file: SecretFile) -> str:
    """What the file holds, empty where there is none."""
    return file.path.read_text(encoding="utf-8").strip() if file.path.exists() else ""


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
    for file in files(settings):
        old = stored(file)
        new = file.given.strip() or old or secrets.token_urlsafe(32)
        if old not in ("", new):
            world.write(file.path.with_suffix(".previous"), f"{old}\n", mode=0o600, secret=True)
        world.write(file.path, f"{new}\n", mode=0o600, secret=True)
        if owner:
            world.own(file.path, *owner)
