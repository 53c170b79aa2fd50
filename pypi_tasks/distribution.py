"""A distribution's file: what it says of itself, and the form by which it is uploaded (PyPI's legacy upload API)."""

import contextlib
import email
import hashlib
import re
import secrets
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import parse_wheel_filename
from packaging.version import Version

SDISTS = (".tar.gz", ".tgz", ".tar.bz2", ".zip")
KINDS = {".whl": "bdist_wheel", ".egg": "bdist_egg", **dict.fromkeys(SDISTS, "sdist")}
# Where the form's name is another than that of the header.
FORM = {"classifier": "classifiers", "project_url": "project_urls", "provides_extra": "provides_extras"}
CHUNK = 1024**2
BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, KeyError, RuntimeError, NotImplementedError)


class Unfit(Exception):
    """A file that is no distribution; the message says why."""


@dataclass(frozen=True)
class Distribution:
    """A file with what an upload says of it: fields of the form, a name more than once where it has several values."""

    path: Path
    sha256: str
    fields: tuple[tuple[str, str], ...]

    @property
    def project(self) -> str:
        """The name of its project, normalized."""
        return normalized(dict(self.fields)["name"])


def normalized(name: str) -> str:
    """A project's name as addresses have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def kind(name: str) -> str:
    """What the ending of a file's name says that it is; empty for no distribution."""
    return next((kind for ending, kind in KINDS.items() if name.lower().endswith(ending)), "")


def stem(name: str) -> str:
    """A file's name without its ending."""
    return re.sub(r"(\.tar)?\.[^.]+$", "", name)


def from_name(name: str) -> tuple[str, Version]:
    """Project, normalized, and version as a file's name has them; Unfit where installers would not find them there."""
    try:
        if kind(name) == "bdist_wheel":
            return parse_wheel_filename(name)[:2]
        project, version = stem(name).rsplit("-", 1) if kind(name) == "sdist" else stem(name).split("-")[:2]
        return normalized(project), Version(version)
    except ValueError as error:
        raise Unfit(f"its name does not tell project and version: {error}") from None


def needed(name: str) -> dict[str, str]:
    """The files that an archive must have, and their patterns; the first one tells of it. Those of a wheel are where devpi looks
    for them, which offers to tell the one without the other."""
    if kind(name) == "bdist_egg":
        return {"PKG-INFO": "EGG-INFO/PKG-INFO"}
    if kind(name) == "sdist":
        return {"PKG-INFO": r"(\./)?[^/]+/PKG-INFO", "pyproject.toml or setup.py": r"(\./)?[^/]+/(pyproject\.toml|setup\.py)"}
    project, version = name.split("-")[:2]
    folder = rf"({re.escape(project)}|{normalized(project).replace('-', '_')})-{re.escape(version)}\.dist-info/"
    return {"METADATA": f"{folder}METADATA", "WHEEL": f"{folder}WHEEL"}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """What is in an archive, and how to read it; Unfit where it cannot be read."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield archive.namelist(), archive.read
        elif kind(path.name) != "sdist":
            raise Unfit("it cannot be read: not a zip file, or not all of it")
        else:
            with tarfile.open(path) as tar:
                # Reads all of it. What is no file raises KeyError, as what is not there.
                found = {member.name: member for member in tar.getmembers() if member.isfile()}
                yield list(found), lambda name: tar.extractfile(found[name]).read()  # type: ignore[union-attr]
    except BROKEN as error:
        why = str(error).partition("\n")[0].rstrip(":")
        raise Unfit(f"it cannot be read: {why or type(error).__name__}") from None


def metadata(path: Path) -> str:
    """METADATA or PKG-INFO of an archive that has all that it must have."""
    with opened(path) as (names, content):
        found = []
        for what, pattern in needed(path.name).items():
            found += [name for name in names if re.fullmatch(pattern, name)][:1] or [""]
            if not found[-1]:
                raise Unfit(f"it has no {what}")
        return content(found[0]).decode(errors="replace")


def refuse_other(file: str, name: str, version: str) -> None:
    """Refuse what its name and its content call differently: installers believe the one, devpi the other."""
    named = from_name(file)
    try:
        is_same = (normalized(name), Version(version)) == named
    except ValueError as error:
        raise Unfit(str(error)) from None
    if not is_same:
        raise Unfit(f"its content says {name} {version}, its name {named[0]} {named[1]}")


def read(path: Path) -> Distribution:
    """A file with what it says of itself; Unfit for what is no distribution, or none that could be installed."""
    if not kind(path.name):
        raise Unfit(f"not a distribution: expected {', '.join(KINDS)}")
    if not path.is_file():
        raise Unfit("not a file" if path.exists() else "a link to nothing")
    from_name(path.name)
    message = email.message_from_string(metadata(path))
    fields = [(header.lower().replace("-", "_"), str(value)) for header, value in message.items()]
    fields = [(FORM.get(name, name), value) for name, value in fields if value.strip() != "UNKNOWN"]
    given = dict(fields)
    refuse_other(path.name, given.get("name", ""), given.get("version", ""))
    if "description" not in given and (body := str(message.get_payload())).strip():
        fields.append(("description", body))
    digest = sha256(path)
    fields += [
        (":action", "file_upload"),
        ("protocol_version", "1"),
        ("filetype", kind(path.name)),
        ("pyversion", stem(path.name).split("-")[-3] if kind(path.name) == "bdist_wheel" else "source"),
        ("sha256_digest", digest),
    ]
    return Distribution(path, digest, tuple(fields))


class Form:
    """The body of an upload, its file read from disk as it is sent: requests itself would have all of it in memory."""

    def __init__(self, fields: Sequence[tuple[str, str]], path: Path) -> None:
        self.boundary, self.path = secrets.token_hex(16), path
        parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
        file = f'Content-Disposition: form-data; name="content"; filename="{path.name}"\r\n'
        parts.append(f"{file}Content-Type: application/octet-stream\r\n\r\n")
        self.head = "".join(f"--{self.boundary}\r\n{part}" for part in parts).encode()
        self.tail = f"\r\n--{self.boundary}--\r\n".encode()

    @property
    def type(self) -> str:
        """Its content type."""
        return f"multipart/form-data; boundary={self.boundary}"

    def __len__(self) -> int:
        return len(self.head) + self.path.stat().st_size + len(self.tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self.head
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
        yield self.tail
