"""A distribution's file: what it says of itself, and the form by which it is uploaded (PyPI's legacy upload API)."""

import email
import hashlib
import re
import secrets
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def from_name(name: str) -> tuple[str, str]:
    """Project and version as a file's name has them; Unfit where it has none."""
    stem = re.sub(r"(\.tar)?\.[^.]+$", "", name)
    pattern = r"(?P<name>[^-]+)-(?P<version>[^-]+)(-.+)?" if kind(name).startswith("b") else r"(?P<name>.+?)-(?P<version>\d.*)"
    if not (found := re.fullmatch(pattern, stem)):
        raise Unfit("neither its content nor its name tells project and version")
    return found["name"], found["version"]


def metadata(path: Path) -> str:
    """The text of METADATA or PKG-INFO in an archive, empty where it has none; Unfit where the archive cannot be read."""
    wanted = re.compile(r"[^/]+\.dist-info/METADATA|EGG-INFO/PKG-INFO" if kind(path.name) != "sdist" else r"(\./)?[^/]+/PKG-INFO")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if wanted.fullmatch(name)]
                return archive.read(names[0]).decode(errors="replace") if names else ""
        if kind(path.name) != "sdist":
            raise Unfit("it cannot be read: not a zip file, or not all of it")
        with tarfile.open(path) as tar:
            members = [member for member in tar.getmembers() if wanted.fullmatch(member.name)]  # reads all of it
            file = tar.extractfile(members[0]) if members else None
            return file.read().decode(errors="replace") if file else ""
    except BROKEN as error:
        raise Unfit(f"it cannot be read: {error or type(error).__name__}") from None


def read(path: Path) -> Distribution:
    """A file with what it says of itself; its name has to do where it says nothing. Unfit for what is no distribution."""
    if not kind(path.name):
        raise Unfit(f"not a distribution: expected {', '.join(KINDS)}")
    message = email.message_from_string(metadata(path))
    fields = [(header.lower().replace("-", "_"), str(value)) for header, value in message.items()]
    fields = [(FORM.get(name, name), value) for name, value in fields if value.strip() != "UNKNOWN"]
    given = dict(fields)
    if not (given.get("name") and given.get("version")):
        named = from_name(path.name)
        fields = [("metadata_version", "1.0"), ("name", named[0]), ("version", named[1])]
    elif "description" not in given and (body := str(message.get_payload())).strip():
        fields.append(("description", body))
    digest = sha256(path)
    tags = path.name.removesuffix(".whl").split("-")
    fields += [
        (":action", "file_upload"),
        ("protocol_version", "1"),
        ("filetype", kind(path.name)),
        ("pyversion", tags[-3] if kind(path.name) == "bdist_wheel" and len(tags) > 4 else "source"),
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
