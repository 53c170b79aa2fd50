"""Bring the running server's users and indexes to what is wanted; say what was changed.

Run once the server answers, as often as one likes: a second run changes nothing and prints nothing. The wish comes as
JSON on standard input, the passwords from the files ``root_password`` and ``user_password`` in DEVPI_SECRETS::

    {"user": "pypi", "index": "stable",
     "options": {"bases": ["root/pypi"], "volatile": false, "mirror_whitelist": []},
     "enforce": ["bases"]}

``options`` are those of a new index (devpi's documentation, "index configuration"); of an index that is there already
only the ones in ``enforce`` are touched, so that a server that was taken over stays as it was.
"""

import base64
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from health import connect

Body = dict[str, Any]


class Refusal(Exception):
    """The server does not let us in or refused a change; the message says what to do."""


class Login(NamedTuple):
    """Who asks, for basic authentication."""

    user: str
    password: str


class Server:
    """The JSON API of the devpi-server on this host."""

    def call(self, method: str, path: str, body: Body | None = None, login: Login | None = None) -> tuple[int, Body]:
        """Status and JSON answer of one request."""
        headers = {"Accept": "application/json", "Content-Type": "application/json", "Host": "localhost"}
        if login:
            token = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
            headers["X-Devpi-Auth"] = token
        connection = connect(timeout=60)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        return response.status, json.loads(text) if text.startswith(b"{") else {"message": text.decode()}

    def accepts(self, login: Login) -> bool:
        """Whether the password is the user's."""
        status, _ = self.call("POST", "/+login", {"user": login.user, "password": login.password})
        return status == 200

    def read(self, path: str) -> Body | None:
        """What the server has at ``/user`` or ``/user/index``, without an index's projects, for which a mirror that was taken
        over would first fetch the names of all that PyPI has; None where there is nothing."""
        status, answer = self.call("GET", f"{path}?no_projects=")
        if status == 404:
            return None
        if status != 200:
            raise Refusal(f"GET {path} answered {status}: {answer.get('message')}")
        found: Body = answer["result"]
        return found

    def change(self, method: str, path: str, body: Body, login: Login) -> None:
        """One PUT or PATCH that must succeed."""
        status, answer = self.call(method, path, body, login)
        if status not in (200, 201):
            raise Refusal(f"{method} {path} answered {status}: {answer.get('message')}")


def ensure_password(server: Server, login: Login, setting: str) -> list[str]:
    """Make ``login`` valid, if that takes no more than filling an EMPTY password, as the seed's servers had."""
    if server.accepts(login):
        return []
    if server.accepts(Login(login.user, "")):
        server.change("PATCH", f"/{login.user}", {"password": login.password}, Login(login.user, ""))
        return [f"user {login.user} had an empty password; it has the stored one now"]
    raise Refusal(
        f"the stored password of user {login.user} is not the server's. "
        f"Give the right one once, {setting}=... inv up; it is kept for the next time. What was stored is stored still."
    )


def ensure_mirror(server: Server, root: Login) -> list[str]:
    """Have root/pypi mirror PyPI with metadata files, and without having every name on PyPI indexed for search.

    A mirror that is there keeps its options; only ones that were never set are filled in.
    """
    wanted: Body = {"mirror_no_project_list": True, "mirror_provides_core_metadata": True}
    found = server.read("/root/pypi")
    if found is None:
        from devpi_server.main import _pypi_ixconfig_default as defaults  # where devpi keeps PyPI's address

        server.change("PUT", "/root/pypi", {**defaults, **wanted}, root)
        return ["made index root/pypi, a mirror of PyPI"]
    missing = {key: value for key, value in wanted.items() if key not in found}
    if found.get("type") != "mirror" or not missing:
        return []
    server.change("PATCH", "/root/pypi", missing, root)
    return [f"index root/pypi: set {', '.join(sorted(missing))}"]


def ensure_user(server: Server, root: Login, user: Login) -> list[str]:
    """Have the user who owns the private index."""
    if server.read(f"/{user.user}") is not None:
        return ensure_password(server, user, "PYPI_PASSWORD")
    server.change("PUT", f"/{user.user}", {"password": user.password}, root)
    return [f"made user {user.user}"]


def ensure_index(server: Server, root: Login, name: str, options: Body, enforce: list[str]) -> list[str]:
    """Have the private index, with the options that were asked for by name."""
    for base in options["bases"]:
        if server.read(f"/{base}") is None:
            raise Refusal(f"DEVPI_BASES names {base}, which is not on the server. Make that index first, or take it out.")
    found = server.read(f"/{name}")
    if found is None:
        server.change("PUT", f"/{name}", {"type": "stage", **options}, root)
        return [f"made index {name}"]
    different = {key: options[key] for key in enforce if found.get(key) != options[key]}
    if not different:
        return []
    server.change("PATCH", f"/{name}", different, root)
    return [f"index {name}: {key} {found.get(key)} -> {value}" for key, value in different.items()]


def provision(server: Server, wish: Body, root_password: str, user_password: str) -> list[str]:
    """All of the wish, in the order in which one thing needs the other; returns a line for each change."""
    root = Login("root", root_password)
    changes = ensure_password(server, root, "ROOT_PASSWORD")
    if "root/pypi" in wish["options"]["bases"]:
        changes += ensure_mirror(server, root)
    if wish["user"] != "root":
        changes += ensure_user(server, root, Login(wish["user"], user_password))
    name = f"{wish['user']}/{wish['index']}"
    return changes + ensure_index(server, root, name, wish["options"], wish["enforce"])


def main() -> None:
    """Read the wish and the passwords, provision, print the changes."""
    secrets = Path(os.environ.get("DEVPI_SECRETS", "/run/secrets"))
    server = Server()
    passwords = [(secrets / name).read_text(encoding="utf-8").strip() for name in ("root_password", "user_password")]
    for line in provision(server, json.load(sys.stdin), *passwords):
        print(line)


def told(work: Callable[[], None]) -> None:
    """Do it; what the server refuses is told in a line, without a traceback."""
    try:
        work()
    except Refusal as refusal:
        sys.exit(str(refusal))
    except OSError as error:
        sys.exit(f"the server cannot be reached: {error}")


if __name__ == "__main__":
    told(main)
