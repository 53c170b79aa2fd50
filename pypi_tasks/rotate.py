"""New passwords and a new server secret, so that at every moment what the server wants is in a file.

A new password is first written beside the old one, as ``root_password.new``, then given to the server, then written over the
old one. After a crash in between the server is asked which of the two it knows, by the next `inv rotate` or `inv up`.
"""

import json
import os
import secrets
from pathlib import Path

from pypi_tasks import deployment, secret
from pypi_tasks.deployment import LOCK, Deployment, await_health, halted
from pypi_tasks.errors import BadInput, Failed
from pypi_tasks.settings import Settings
from pypi_tasks.world import World

PASSWORDS = ("root", "user")
OLDER = 20  # passwords from before that are tried
SETTINGS = {"root": "ROOT_PASSWORD", "user": "PYPI_PASSWORD"}


def chosen(only: str) -> tuple[str, ...]:
    """What is to be rotated: both passwords, or the one thing that is named."""
    if only not in ("", *PASSWORDS, "server"):
        raise BadInput(f"--only {only}: expected root, user or server.")
    return (only,) if only else PASSWORDS


def refuse_given(settings: Settings, kinds: tuple[str, ...]) -> None:
    """Refuse to rotate a password that a setting would put back at the next `inv up`."""
    for name in (SETTINGS[kind] for kind in kinds if kind in SETTINGS):
        if settings.given(name):
            raise BadInput(
                f"{name} is set ({settings.origins[name]}): the next `inv up` would bring that one back.",
                fix=f"take {name} out; what is stored stays. Or change it there: {name}=... inv up",
            )


def file_of(settings: Settings, kind: str) -> secret.SecretFile:
    """The file of one of the secrets, and what a setting gives it."""
    name = "server_secret" if kind == "server" else f"{kind}_password"
    return next(file for file in secret.files(settings) if file.path.name == name)


def beside(path: Path) -> Path:
    """Where a new secret is until it is the server's."""
    return path.with_name(f"{path.name}.new")


def user_of(settings: Settings, kind: str) -> str:
    """The user whose password it is, by devpi's name."""
    return "root" if kind == "root" else settings.devpi_user


def rotate(world: World, settings: Settings, server: Deployment, only: str = "", yes: bool = False) -> None:
    """Have new secrets. Refused where a setting would bring the old one back, or where the server does not run."""
    kinds = chosen(only)
    refuse_given(settings, kinds)
    with world.exclusive(LOCK, task="rotate"):
        server.preflight()
        secret.check(settings)
        if not world.dry and server.state().health != "healthy":
            raise Failed(f"{server.env} is not up.", fix=f"inv up --env {server.env}, or the --env that `inv status` shows")
        if "server" in kinds and not yes and not world.confirm("All logins end, everybody has to log in again. Type yes:", "yes"):
            raise BadInput("not confirmed; nothing was changed.", fix="type yes, or give --yes")
        resume(world, settings, server)
        for kind in kinds:
            renew_secret(world, settings, server) if kind == "server" else renew_password(world, settings, server, kind)
    if world.dry:
        return
    for kind in kinds:
        path = file_of(settings, kind).path
        world.say(f"new: {path}" + ("" if kind == "server" else f"; the old one is kept as {path.name}{secret.ASIDE}TIME"))
    if "server" in kinds:
        world.say("Whoever was logged in has to log in again. The passwords are what they were.")
    else:
        world.say(
            "Uploads need the new password from now on. Logins, as of `devpi login`, go on for ten hours at most, since they do"
        )
        world.say("not depend on the password; `inv rotate --only server` ends them all.")


def renew_password(world: World, settings: Settings, server: Deployment, kind: str) -> None:
    """A new password for one user: beside the old one, to the server, over the old one."""
    file, user = file_of(settings, kind), user_of(settings, kind)
    new = secrets.token_urlsafe(32)
    if beside(file.path).exists() and not world.dry:
        raise Failed(f"neither {file.path} nor {beside(file.path)} has the server's password of user {user}.", fix="inv up")
    keep(world, beside(file.path), new)
    job = {"do": "change", "user": user, "old": secret.stored(file), "new": new}
    server.inside("rotate", json.dumps(job))
    settle(world, file.path, new)


def keep(world: World, path: Path, new: str) -> None:
    """Have a secret on disk, whatever happens to the machine."""
    world.write(path, f"{new}\n", mode=0o600, secret=True)
    world.act("sync", os.sync)


def settle(world: World, path: Path, new: str) -> None:
    """Write a password that is the server's over the one before, which is kept: a snapshot from before has it. In place:
    containers have the very file mounted."""
    if old := secret.stored(secret.SecretFile(path)):
        keep(world, secret.aside(path), old)
    keep(world, path, new)
    world.remove(beside(path))


def resume(world: World, settings: Settings, server: Deployment) -> None:
    """Bring a rotation to an end that was cut off: what the server knows is what stays. With neither, nothing is touched."""
    for kind in PASSWORDS:
        file, user = file_of(settings, kind), user_of(settings, kind)
        if world.dry or not beside(file.path).exists():
            continue
        new = secret.stored(secret.SecretFile(beside(file.path)))
        job = {"do": "find", "user": user, "passwords": [secret.stored(file), new]}
        place = int(server.inside("rotate", json.dumps(job)))
        if place == 0:
            world.remove(beside(file.path))
        elif place == 1 and not file.given:
            settle(world, file.path, new)
            world.say(f"user {user} has a new password since a rotation that was cut off, in {file.path}")


def older(path: Path) -> list[Path]:
    """The passwords that were stored under a path before, the last one first."""
    return sorted(path.parent.glob(f"{path.name}{secret.ASIDE}*"), reverse=True)[:OLDER]


def known(settings: Settings, server: Deployment, kind: str) -> str:
    """The stored password of a user that is the server's, be it one from before; empty for none."""
    file, user = file_of(settings, kind), user_of(settings, kind)
    passwords = [secret.stored(secret.SecretFile(path)) for path in (file.path, *older(file.path))]
    place = int(server.inside("rotate", json.dumps({"do": "find", "user": user, "passwords": passwords})))
    return passwords[place] if place >= 0 else ""


def recall(world: World, settings: Settings, server: Deployment) -> list[str]:
    """Have the passwords that are the server's where they belong, if they are ones from before, as of restored data. Returns the
    users of whom none is."""
    unknown = []
    for kind in () if world.dry else PASSWORDS:
        file, user = file_of(settings, kind), user_of(settings, kind)
        password = known(settings, server, kind)
        if not password or (file.given and password != file.given.strip()):
            unknown.append(user)
        elif password != secret.stored(file):
            settle(world, file.path, password)
            world.say(f"user {user} has a password from before, as the data has it; `inv rotate` makes a new one")
    return unknown


def provision(world: World, settings: Settings, server: Deployment) -> str:
    """Users and index as the settings want them; what was changed. Failed where the server has a password that is not ours."""
    wish = json.dumps(deployment.wish(settings))
    try:
        return server.provision(wish)
    except Failed:
        if recall(world, settings, server):
            raise
        return server.provision(wish)


def renew_secret(world: World, settings: Settings, server: Deployment) -> None:
    """A new server secret, which is read at a start: the server alone is restarted, and the proxy holds its clients."""
    keep(world, file_of(settings, "server").path, secrets.token_urlsafe(32))
    with halted(server):
        pass
    await_health(world, server, 120)
