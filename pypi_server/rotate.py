"""Give a user of the running server another password, or find out which of two the server knows.

The job comes as JSON on standard input, so that no password is in an argument or an environment::

    {"do": "change", "user": "pypi", "old": "...", "new": "..."}
    {"do": "find", "user": "pypi", "passwords": ["...", "..."]}    prints the place of the first that is the user's, or -1

Root's password is read from DEVPI_SECRETS: only root may change users here.
"""

import json
import os
import sys
from pathlib import Path

from provision import Login, Refusal, Server, told


def stored(user: str) -> str:
    """The password that the server's own folder of secrets has."""
    name = "root_password" if user == "root" else "user_password"
    return (Path(os.environ.get("DEVPI_SECRETS", "/run/secrets")) / name).read_text(encoding="utf-8").strip()


def change(server: Server, user: str, old: str, new: str) -> None:
    """Change a password, which has to be the one that is stored on both sides and that the server accepts."""
    if stored(user) != old:
        raise Refusal(
            f"the stored password of user {user} is not the one that the server's machine has. `inv up` brings them together; "
            "where the engine is elsewhere, rotate there. Nothing was changed."
        )
    if not server.accepts(Login(user, old)):
        raise Refusal(f"the stored password of user {user} is not the server's; `inv up` says more. Nothing was changed.")
    server.change("PATCH", f"/{user}", {"password": new}, Login("root", stored("root")))


def find(server: Server, user: str, passwords: list[str]) -> int:
    """Which of the passwords is the user's; -1 for none of them."""
    return next((place for place, one in enumerate(passwords) if one and server.accepts(Login(user, one))), -1)


def main() -> None:
    """Do the job on standard input."""
    job = json.load(sys.stdin)
    if job["do"] == "change":
        change(Server(), job["user"], job["old"], job["new"])
    else:
        print(find(Server(), job["user"], job["passwords"]))


if __name__ == "__main__":
    told(main)
