"""Secrets: a type that does not print itself, and the files that hold them."""

import contextlib
import datetime
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pypi_tasks.errors import NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.world import World

ASIDE = ".before-"


@dataclass(frozen=True)
class SecretFile:
    """One secret of the stack: its file in SECRETS_HOME, and the value that a setting gives it, if any."""

    path: Path
    given: str = ""


def files(settings: Settings) -> list[SecretFile]:
    """The three secrets that every stack has, and the pair for TLS where there is one."""
    pair = {"tls_certificate": settings.tls_certificate, "tls_key": settings.tls_key}
    return [
        SecretFile(settings.secrets_home / "root_password", settings.root_password.reveal()),
        SecretFile(settings.secrets_home / "user_password", settings.pypi_password.reveal()),
        SecretFile(settings.secrets_home / "server_secret"),
        *(
            SecretFile(settings.secrets_home / name, source.read_text(encoding="ascii", errors="replace"))
            for name, source in pair.items()
            if source
        ),
    ]


def aside(path: Path) -> Path:
    """Where a secret is kept that another one replaces: an older snapshot may want it."""
    return path.with_name(f"{path.name}{ASIDE}{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H-%M-%SZ}")


def stored(file: SecretFile) -> str:
    """What the file holds, empty where there is none."""
    return file.path.read_text(encoding="utf-8").strip() if file.path.exists() else ""


def check(settings: Settings) -> None:
    """Refuse secrets that the user who runs the task cannot read, before anything is started."""
    for file in files(settings):
        try:
            file.path.read_bytes().decode()
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            raise NotReady(f"SECRETS_HOME={settings.secrets_home} is a file.", fix="set SECRETS_HOME to a folder") from None
        except UnicodeDecodeError:
            raise NotReady(f"the secret {file.path} is not text.", "put the right one there, or remove the file") from None
        except OSError as error:
            raise NotReady(
                f"the secret {file.path} cannot be read: {error.strerror}.", fix=f"sudo chown {os.getuid()} {file.path}"
            ) from None


def replaced(settings: Settings) -> dict[Path, str]:
    """What is stored under a path until now, for each secret that a setting replaces."""
    found = ((file, stored(file)) for file in files(settings))
    return {file.path: old for file, old in found if old and file.given.strip() not in ("", old)}


def settle(world: World, settings: Settings, owner: tuple[int, int] | None) -> None:
    """Have every secret in a file of mode 0600, owned by the uid and gid that a container reads it as, if any."""
    world.make_folder(settings.secrets_home, mode=0o700, owner=owner)
    for file in files(settings):
        new = file.given.strip() or stored(file) or secrets.token_urlsafe(32)
        world.write(file.path, f"{new}\n", mode=0o600, secret=True)
        if owner:
            world.own(file.path, *owner)


@contextlib.contextmanager
def settled(world: World, settings: Settings, owner: tuple[int, int] | None) -> Iterator[dict[Path, str]]:
    """Secrets for the block, which learns what is replaced; when it fails, that is put back: it may be the right one. A replaced
    password is kept: other data than today's may have it."""
    before = replaced(settings)
    kept = {path: aside(path) for path in before if path.name.endswith("_password")}
    for path, place in kept.items():
        world.write(place, f"{before[path]}\n", mode=0o600, secret=True)
    try:
        settle(world, settings, owner)
        yield before
    except BaseException:
        for path, old in before.items():
            world.write(path, f"{old}\n", mode=0o600, secret=True)
        for place in kept.values():
            world.remove(place)
        raise
