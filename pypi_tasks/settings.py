"""The settings: their names, defaults, meaning and checks, from ``.env`` and the environment.

A new setting is one line in ``Settings``, one in ``.env.example`` and one in the README's table; a test compares them.
"""

import codecs
import dataclasses
import difflib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pypi_tasks import check
from pypi_tasks.errors import BadInput

Value = TypeVar("Value")
ROOT = Path(__file__).resolve().parent.parent


class Secret:
    """A password: never printed, compared or logged by accident."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The password itself, for the one place that writes it to its file."""
        return self._value

    def __repr__(self) -> str:
        return "[redacted]" if self._value else ""


HIDDEN = ("PYPI_PASSWORD", "ROOT_PASSWORD", "BACKUP_PASSPHRASE")  # the settings that are a ``Secret``


def setting(default: str, check: Callable[[str], Value], help: str) -> Value:
    """A field of ``Settings``: ``check`` makes the value of the text or raises ValueError("what is expected")."""
    made: Value = dataclasses.field(metadata={"default": default, "check": check, "help": help})
    return made


def path(text: str) -> Path:
    """A path; a relative one starts at the repository."""
    try:
        return (ROOT / Path(text).expanduser()).absolute()
    except RuntimeError:
        raise ValueError("a path, but there is no such user") from None


def typed(text: str) -> Path:
    """A path of the command line; a relative one starts where the user is, which ./inv tells."""
    return Path(os.environ.get("INV_FROM", ""), Path(text).expanduser()).absolute()


def pem(pattern: bytes, what: str) -> Callable[[str], Path | None]:
    """A check for the path of a readable file with something in PEM form in it; empty for none."""

    def look(text: str) -> Path | None:
        if not text:
            return None
        found = path(text)
        try:
            content = found.read_bytes()
        except OSError as error:
            raise ValueError(f"a readable file of {what}, but {error.strerror or error}") from None
        if not re.search(pattern, content):
            raise ValueError(f"a file of {what} in PEM form, but there is none in it")
        return found

    return look


certificates = pem(rb"-----BEGIN CERTIFICATE-----", "certificates")
private_key = pem(rb"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----", "a private key")


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings, checked. Made by ``load``; nothing else reads the environment."""

    registry: str = setting("", check.registry_name, "registry that push and stable use")
    tag: str = setting("latest", check.image_tag, "what stable runs, a tag or a digest")
    proxy_tag: str = setting("", check.image_tag_or_none, "the same for the proxy's image; TAG for none")
    project: str = setting("pypi", check.project_name, "name on containers, networks and labels")
    pypi_env: str = setting("dev", check.environment, "environment of a task without --env")
    devpi_port: int = setting("3141", check.port, "port that clients use")
    devpi_bind: str = setting("127.0.0.1", check.ip_address, "address that clients use; 0.0.0.0 for all")
    devpi_home: Path = setting("./devpi", path, "folder of the package data")
    devpi_user: str = setting("pypi", check.devpi_owner, "user who owns the index and uploads")
    devpi_index: str = setting("stable", check.devpi_name, "name of the index")
    devpi_bases: tuple[str, ...] = setting("root/pypi", check.index_list, "indexes that it inherits from")
    devpi_volatile: bool = setting("false", check.yes_or_no, "whether a release may be replaced")
    devpi_mirror_whitelist: tuple[str, ...] = setting("", check.project_list, "private names to merge with PyPI's")
    devpi_memory: str = setting("1g", check.memory, "memory limit of the container")
    devpi_uid: int = setting("", check.user_id(os.getuid), "user of the container; yours, 1000 for root")
    devpi_gid: int = setting("", check.user_id(os.getgid), "group of the container; yours, 1000 for root")
    outside_url: str = setting("", check.url, "URL that clients use, where it is another")
    tls_certificate: Path | None = setting("", certificates, "certificate to serve HTTPS with")
    tls_key: Path | None = setting("", private_key, "private key of that certificate")
    upload_limit: str = setting("2g", check.size("1m"), "size of the largest upload")
    hold_seconds: int = setting("120", check.number(1, 3600, "seconds"), "how long requests wait for a restarting server")
    cache_size: str = setting("512m", check.size("16m"), "disk space for rendered pages")
    old_paths: str = setting("", check.old_paths, "another server's paths to serve too: pypiserver")
    nginx_image: str = setting("nginx:1.28-trixie", check.image_name, "base image of the proxy")
    python_image: str = setting("python:3.13-slim-trixie", check.image_name, "base image of the server, by tag or digest")
    source_url: str = setting("", check.matching(r"\S*", "a URL"), "where the source is, for the image's labels")
    backup_home: Path = setting("./backups", path, "folder of the snapshots; another disk is best")
    backup_schedule: tuple[str, ...] = setting("", check.schedule, "when to make one: times UTC, 02:30, or every so often, 6h")
    backup_max_age: int = setting("26", check.number(1, 10_000, "hours"), "hours after which the newest is too old")
    backup_keep_last: int = setting("3", check.number(0, 9999, "snapshots"), "how many of the newest stay")
    backup_keep_daily: int = setting("7", check.number(0, 9999, "snapshots"), "of how many days the newest stays")
    backup_keep_weekly: int = setting("5", check.number(0, 9999, "snapshots"), "of how many weeks the newest stays")
    backup_keep_monthly: int = setting("12", check.number(0, 9999, "snapshots"), "of how many months the newest stays")
    backup_passphrase: Secret = setting("", Secret, "what locks the secrets in a snapshot; asked for")
    ca_bundle: Path | None = setting("", certificates, "certificates to trust, behind a TLS proxy")
    secrets_home: Path = setting("./.secrets", path, "folder of the secrets")
    pypi_password: Secret = setting("", Secret, "password of DEVPI_USER; generated")
    root_password: Secret = setting("", Secret, "password of devpi's root; generated")
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def index(self) -> str:
        """The private index, as devpi names it: user/index."""
        return f"{self.devpi_user}/{self.devpi_index}"

    @property
    def url(self) -> str:
        """Where the server is reached from this host, without a slash at the end."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.devpi_bind, self.devpi_bind)
        scheme = "https" if self.tls_key else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.devpi_port}"

    @property
    def client_url(self) -> str:
        """The address that clients use, fixed: whatever a request says of it is not believed."""
        return self.outside_url.rstrip("/") or self.url

    def given(self, name: str) -> bool:
        """Whether somebody set it, in ``.env`` or the environment."""
        return self.origins.get(name, "default") != "default"


def fields() -> dict[str, "dataclasses.Field[Any]"]:
    """The settings by the names that users write, in the order of ``.env.example``."""
    return {field.name.upper(): field for field in dataclasses.fields(Settings) if "check" in field.metadata}


def shown(value: object) -> str:
    """A setting's value for people; a secret shows as redacted by itself."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def read(file: Path) -> bytes:
    """The bytes of an ``.env`` file; none where there is no file."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}.", fix="have a file there that you can read, or none") from None


def decode(content: bytes, name: str) -> str:
    """The text of an ``.env`` file, which must be UTF-8; Windows line ends are fine."""
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{name} line {line}: byte 0x{content[error.start]:02x} is not UTF-8.", fix="save the file as UTF-8"
        ) from None


def parse(text: str, name: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Names, values and line numbers of an ``.env`` text, ``${OTHER}`` filled in; an undefined one is an error."""
    from dotenv.parser import parse_stream
    from dotenv.variables import Variable, parse_variables

    seen: dict[str, str | None] = dict(environ)
    for binding in parse_stream(io.StringIO(text, newline="")):
        original = binding.original.string
        line = binding.original.line + original[: len(original) - len(original.lstrip())].count("\n")
        if binding.error or (binding.key and binding.value is None):
            raise BadInput(f"{name} line {line}: expected NAME=value, quotes closed.")  # it may hold a password: not shown
        if binding.key is None or binding.value is None:
            continue
        for atom in parse_variables(binding.value):
            if isinstance(atom, Variable) and atom.default is None and atom.name not in seen:
                raise BadInput(
                    f"{name} line {line}: {binding.key} uses ${{{atom.name}}}, which is not defined.",
                    fix=f"define {atom.name} above it, or give a default: ${{{atom.name}:-...}}; "
                    "a value with a ${ of its own can come from the environment",
                )
        value = "".join(atom.resolve(seen) for atom in parse_variables(binding.value))
        if binding.key not in environ:
            seen[binding.key] = value
        yield binding.key, value, line


def refuse_unknown(name: str, where: str, strict: bool) -> None:
    """Refuse a name that is nobody's setting: any DEVPI_ name, and in ``.env`` whatever looks like a slip."""
    known = fields()
    if name in known:
        return
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
    if name.startswith("DEVPI_") or (strict and near):
        meant = f"did you mean {near[0]}? " if near else ""
        raise BadInput(f"{where}: {name} is not a setting.", fix=f"{meant}`inv config` lists them all")


def load(file: Path = ROOT / ".env", environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the environment, over the file, over the defaults. An empty value means the default.

    Raises BadInput naming the variable, its value, what is expected and the line.
    """
    defaults = {name: (field.metadata["default"], "default") for name, field in fields().items()}
    raw = dict(defaults)
    if content := read(file):
        for name, value, line in parse(decode(content, file.name), file.name, environ):
            refuse_unknown(name, f"{file.name} line {line}", strict=True)
            raw[name] = (value, f"{file.name} line {line}") if value else defaults.get(name, ("", ""))
    for name, value in environ.items():
        refuse_unknown(name, "environment", strict=False)
        if name in defaults:
            raw[name] = (value, "environment") if value else defaults[name]
    values = {}
    for name, field in fields().items():
        text, origin = raw[name]
        try:
            values[field.name] = field.metadata["check"](text)
        except ValueError as error:
            passwords = [raw[one][0] for one in HIDDEN if raw[one][0]]
            shown = "[redacted]" if any(one in text for one in passwords) else repr(text)
            raise BadInput(f"{origin}: {name}={shown}: expected {error}.") from None
    made = Settings(**values, origins={name: raw[name][1] for name in fields()})
    if (made.tls_certificate is None) != (made.tls_key is None):
        given = "TLS_CERTIFICATE" if made.tls_certificate else "TLS_KEY"
        raise BadInput(f"{raw[given][1]}: {given} alone is set: expected TLS_CERTIFICATE and TLS_KEY, both or neither.")
    if made.tls_key and made.outside_url.startswith("http://"):
        raise BadInput(f"{raw['OUTSIDE_URL'][1]}: OUTSIDE_URL={made.outside_url}: expected https://, since TLS_KEY is set.")
    if made.index in made.devpi_bases:
        raise BadInput(f"{raw['DEVPI_BASES'][1]}: DEVPI_BASES names {made.index}, which cannot inherit from itself.")
    return made
