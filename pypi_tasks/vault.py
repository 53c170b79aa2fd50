"""The secrets beside a snapshot, locked by a passphrase: who has both can bring a server back as it was.

What is locked is a JSON object of the files of SECRETS_HOME, by their names. What is stored is one too: ``token`` (Fernet, of
the package cryptography), the parameters of scrypt that make its key of the passphrase, and ``comment``, which says how to
read it without this kit.
"""

import base64
import getpass
import hashlib
import json
import secrets
import sys
from collections.abc import Mapping
from typing import Any

from pypi_tasks import secret
from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import BadInput, Failed, NotReady
from pypi_tasks.settings import Settings
from pypi_tasks.world import World

Locked = dict[str, Any]
SCRIPT = "vault"
SHORTEST = 12  # characters of a passphrase: who has the snapshot can try as many as he likes
COST = {"n": 2**17, "r": 8, "p": 1}  # 128 MiB and some half a second for each try
MOST = {"n": 2**20, "r": 16, "p": 16}  # beyond that a file is damaged, or not ours
COMMENT = (
    "To read this without the kit: pip install cryptography, then in Python: import base64, getpass, hashlib, json; "
    "from cryptography.fernet import Fernet; f = json.load(open('secrets.json')); "
    "key = hashlib.scrypt(getpass.getpass().encode(), salt=base64.b64decode(f['salt']), n=f['n'], r=f['r'], p=f['p'], "
    "maxmem=2**31 - 1, dklen=32); print(Fernet(base64.urlsafe_b64encode(key)).decrypt(f['token'].encode()).decode())"
)


def passphrase(settings: Settings, again: bool) -> str:
    """The passphrase of the setting, or as it is typed, ``again`` for a new one; BadInput where there is nobody to ask."""
    found = settings.backup_passphrase.reveal()
    if not found:
        if not sys.stdin.isatty():
            raise BadInput("BACKUP_PASSPHRASE is not set, and there is no terminal to ask for it.", fix="set it")
        found = getpass.getpass("Passphrase of the secrets: ")
        if again and getpass.getpass("The same again: ") != found:
            raise BadInput("the two are not the same; nothing was changed.", fix="try again")
    if again and len(found) < SHORTEST:
        raise BadInput(f"the passphrase is too short: expected {SHORTEST} characters or more.", fix="some random words are fine")
    return found


def gather(settings: Settings) -> dict[str, str]:
    """The files of SECRETS_HOME by name, but for those that were put aside. NotReady where one cannot be read."""
    found = {}
    try:
        for path in sorted(settings.secrets_home.iterdir()):
            if path.is_file() and secret.ASIDE not in path.name:
                found[path.name] = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise NotReady(f"the secret {error.filename} cannot be read: {error.strerror}.", fix="run this as its owner") from None
    except UnicodeDecodeError:
        raise NotReady(f"the secret {path} is not text.", fix="take it out of SECRETS_HOME") from None
    return found


def locked_up(settings: Settings) -> Locked:
    """The secrets as they are now, locked; refused where there are none, or no passphrase."""
    if not (found := gather(settings)):
        raise NotReady(f"there are no secrets in {settings.secrets_home}.", fix="inv up")
    return lock(passphrase(settings, again=True), found)


def key(words: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    """The key that a passphrase makes, as Fernet takes it."""
    return base64.urlsafe_b64encode(hashlib.scrypt(words.encode(), salt=salt, n=n, r=r, p=p, maxmem=2**31 - 1, dklen=32))


def lock(words: str, found: Mapping[str, str]) -> Locked:
    """Secrets as they are stored."""
    from cryptography.fernet import Fernet

    salt = secrets.token_bytes(16)
    token = Fernet(key(words, salt, **COST)).encrypt(json.dumps(found).encode()).decode()
    return {"comment": COMMENT, "kdf": "scrypt", **COST, "salt": base64.b64encode(salt).decode(), "token": token}


def unlocked(words: str, locked: Locked, name: str) -> dict[str, str]:
    """Secrets as they were, by file name; BadInput where the passphrase is another, Failed where what is stored is damaged."""
    from cryptography.fernet import Fernet, InvalidToken

    try:
        cost = {part: int(locked[part]) for part in COST}
        if any(cost[part] > MOST[part] for part in COST):
            raise ValueError("its parameters of scrypt are too large")
        made = Fernet(key(words, base64.b64decode(locked["salt"], validate=True), **cost))
        found: dict[str, str] = json.loads(made.decrypt(str(locked["token"])))
        if any("/" in file or file.startswith(".") for file in found):
            raise ValueError("the name of a file in it is none of a secret")
    except InvalidToken:
        raise BadInput(
            f"the passphrase does not open the secrets of snapshot {name}, or they are damaged. Nothing was changed.",
            fix="the BACKUP_PASSPHRASE of the day it was made",
        ) from None
    except (KeyError, TypeError, ValueError, MemoryError) as error:
        what = f"the secrets of snapshot {name} are damaged: {error}. Nothing was changed."
        raise Failed(what, fix="those of another snapshot") from None
    return found


def store(server: Deployment, name: str, locked: Locked) -> None:
    """Put locked secrets beside a snapshot."""
    server.script(SCRIPT, {"do": "put", "snapshot": name, "locked": locked})


def open(world: World, settings: Settings, server: Deployment, name: str = "") -> None:
    """Write the secrets of a snapshot into SECRETS_HOME, for none of the newest verified one that has any; what is there is put
    aside."""
    words = passphrase(settings, again=False)
    answer = server.script(SCRIPT, {"do": "get", "snapshot": name})
    if world.dry:
        return
    found = unlocked(words, answer["locked"], answer["snapshot"])
    world.make_folder(settings.secrets_home, mode=0o700, owner=server.owner)
    replaced = {file: text for file, text in gather(settings).items() if found.get(file, text) != text}
    aside = {file: secret.aside(settings.secrets_home / file).name for file in replaced}
    for file, text in {**{aside[file]: text for file, text in replaced.items()}, **found}.items():  # what is put aside first
        path = settings.secrets_home / file
        world.write(path, text, mode=0o600, secret=True)
        if server.owner:
            world.own(path, *server.owner)
    world.say(f"{len(found)} secrets of snapshot {answer['snapshot']} are in {settings.secrets_home}")
    for file in replaced:
        world.say(f"  what was in {file} is in {aside[file]}")
    world.say(f"Next: inv up --env {server.env}, with the data of that snapshot")
