"""Prepare the server directory and the secret, then become devpi-server.

The same code runs in the container and in native mode. It reads two variables: DEVPI_HOME, the folder of the
package data, and DEVPI_SECRETS, the folder with the files ``root_password`` and ``server_secret``. It writes to
DEVPI_HOME alone: ``server`` (devpi's own), ``tmp`` (uploads on their way in) and ``devpi.pid``.
"""

import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

BIN = Path(sys.executable).parent


class Refusal(Exception):
    """The server cannot start as things are; the message says why and what to do."""


def server_directory(home: Path) -> Path:
    """Devpi's server directory: ``home/server``, or ``home`` itself where devpi already lives there."""
    return home if (home / ".nodeinfo").exists() else home / "server"


def is_initialised(server: Path) -> bool:
    """Devpi's own test: both devpi-init and devpi-server look for this file."""
    return (server / ".nodeinfo").exists()


def check_access(home: Path, server: Path, uid: int) -> None:
    """Refuse a folder or database that this user cannot write, before devpi fails half-way."""
    if home.exists() and not home.is_dir():
        raise Refusal(f"{home} is not a folder: DEVPI_HOME must be one.")
    if server.exists() and not server.is_dir():
        raise Refusal(f"{server} is not a folder; devpi keeps its data in a folder of that name. Move it away.")
    for path in (home, server, home / "tmp", home / "devpi.pid", server / ".sqlite"):
        if not path.exists() or os.access(path, os.W_OK):
            continue
        owner = path.stat()
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise Refusal(f"{path} is on a read-only file system. Mount DEVPI_HOME read-write.")
        if owner.st_uid == uid:
            raise Refusal(f"{path} is read-only for uid {uid}, its owner. Fix, on the host: chmod -R u+w DEVPI_HOME")
        raise Refusal(
            f"{path} belongs to uid {owner.st_uid} and cannot be written by uid {uid}, which runs the server. "
            f"Fix, on the host: sudo chown -R {uid}:{os.getgid()} DEVPI_HOME"
        )
    if not home.exists():
        raise Refusal(f"{home} is not there: mount DEVPI_HOME there.")


def claim(home: Path) -> None:
    """Let no second server open the same data, from whatever container or environment.

    The lock is on an open file that devpi-server inherits, so it lasts exactly as long as that process; the file
    says which it is, by process id and, since a container counts its own processes, host name.
    """
    handle = os.open(home / "devpi.pid", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refusal(f"another server is running on {home}. Stop it first: inv down, with its --env.") from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n{socket.gethostname()}\n".encode())
    os.set_inheritable(handle, True)


def temporary_folder(home: Path) -> Path:
    """A folder beside the data for bodies that devpi spools: /tmp of a container is memory."""
    folder = home / "tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def read_secret(folder: Path, name: str) -> str:
    """One secret, without the line end that editors add."""
    path = folder / name
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise Refusal(
            f"the secret {path} cannot be read by uid {os.getuid()} ({error.strerror}). "
            "`inv up` makes it; with plain `docker run`, mount the folder of secrets at /run/secrets."
        ) from None


def settle_secret(folder: Path) -> Path:
    """The path of a server secret that devpi accepts.

    Devpi wants a file of mode 0600 in a folder that nobody else can write. A mounted secret is often neither, so it
    is copied to a private folder; without a lasting secret every restart would invalidate all logins.
    """
    source = folder / "server_secret"
    secret = read_secret(folder, source.name)
    others = stat.S_IRWXG | stat.S_IRWXO
    if not source.stat().st_mode & others and not folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return source
    copy = Path(tempfile.mkdtemp(prefix="devpi-")) / source.name
    copy.touch(mode=0o600)
    copy.write_text(secret, encoding="utf-8")
    return copy


def is_aside(name: str) -> bool:
    """Whether a folder has the name of data that `inv restore` has put aside."""
    return ".before-" in name or name.endswith(".exchanged")


def initialise(server: Path, root_password: str) -> None:
    """Make a new server directory, whole or not at all: devpi-init fills a neighbour that is then renamed.

    root/pypi is left to ``provision.py``: made here, with devpi's defaults, it would have devpi-web index every
    name on PyPI. The password goes in as a hash, through the environment of this one short process.
    """
    import argon2  # devpi's own dependency; only a first start needs it

    if server.exists() and any(server.iterdir()):
        raise Refusal(f"{server} is neither empty nor a devpi server directory (it has no .nodeinfo).")
    # A restore that was cut off where names cannot be exchanged in one step: an empty server would hide that.
    if aside := sorted(one.parent.name for one in server.parent.glob(f"{server.name}.*/.nodeinfo") if is_aside(one.parent.name)):
        raise Refusal(
            f"{server} is not there, but data that was put aside is: {', '.join(aside)}. "
            f"Rename the one to serve to {server.name}, or move them all away for an empty server."
        )
    unfinished = server.with_name(server.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    settings = {
        "DEVPISERVER_SERVERDIR": str(unfinished),
        "DEVPISERVER_ROOT_PASSWD_HASH": argon2.PasswordHasher().hash(root_password),
    }
    command = [str(BIN / "devpi-init"), "--no-root-pypi"]
    result = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    if result.returncode != 0:
        raise Refusal(f"devpi-init failed:\n{result.stdout}{result.stderr}")
    unfinished.rename(server)
    print(f"pypi_server: made a new server directory, {server}", flush=True)


def main(command: list[str]) -> None:
    """Check, initialise once, then replace this process by ``command``."""
    home = Path(os.environ["DEVPI_HOME"])
    secrets = Path(os.environ.get("DEVPI_SECRETS", "/run/secrets"))
    server = server_directory(home)
    check_access(home, server, os.getuid())
    claim(home)
    if not is_initialised(server):
        initialise(server, read_secret(secrets, "root_password"))
    environment = os.environ | {
        "DEVPISERVER_SERVERDIR": str(server),
        "DEVPISERVER_SECRETFILE": str(settle_secret(secrets)),
        "TMPDIR": str(temporary_folder(home)),
        "PYTHONWARNINGS": "ignore",  # devpi's dependencies are deprecated by their own; nobody here can act on it
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }
    os.execvpe(command[0], command, environment)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refusal as refusal:
        sys.exit(f"pypi_server: {refusal}")
