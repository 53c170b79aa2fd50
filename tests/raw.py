"""Raw requests: what no client would send, or would not show."""

import base64
import contextlib
import functools
import hashlib
import html.parser
import http.client
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import requests

from pypi_tasks import smoke
from tests.packages import rename
from tests.workspace import Workspace

HTML = {"Accept": "text/html"}
JSON = {"Accept": "application/vnd.pypi.simple.v1+json"}
PIP = {
    "Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01",
    "User-Agent": "pip/25.0",
}


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def files(self) -> list[dict[str, Any]]:
        """The files of a project's page, which must be JSON."""
        found: list[dict[str, Any]] = json.loads(self.body)["files"]
        return found

    @property
    def names(self) -> set[str]:
        """The file names on a project's page, whichever form it has."""
        if "json" in self.headers["Content-Type"]:
            return {file["filename"] for file in self.files}
        return set(re.findall(r">([^<]+)</a>", self.text))


@dataclass
class Anchor:
    """A link of a page, and its text."""

    attributes: dict[str, str | None]
    text: str = ""


class Parsed(html.parser.HTMLParser):
    """What a client reads of a page: document type, meta elements, links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.type = ""
        self.meta: dict[str | None, str | None] = {}
        self.anchors: list[Anchor] = []
        self.open = False
        self.feed(text)

    def handle_decl(self, decl: str) -> None:
        self.type = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.anchors.append(Anchor(dict(attrs)))
            self.open = True
        if tag == "meta":
            self.meta[dict(attrs).get("name")] = dict(attrs).get("content")

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open and tag != "a"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.anchors[-1].text += data


class Connection:
    """One connection that is kept open; a context, so that none is left behind."""

    def __init__(self, stack: Workspace, timeout: float = 60) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", int(stack.port), timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: Any = None) -> Answer:
        self.connection.request(method, path, body, headers or {})
        answer = self.connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


def ask(
    stack: Workspace, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: Any = None, timeout: float = 60
) -> Answer:
    """One request on a connection of its own, which either of the proxy's workers may get."""
    with Connection(stack, timeout) as connection:
        return connection.ask(path, headers, method, body)


def sent(stack: Workspace, text: bytes, timeout: float = 30) -> bytes:
    """The answer to bytes that are sent just as they are."""
    with socket.create_connection(("127.0.0.1", int(stack.port)), timeout=timeout) as connection:
        connection.sendall(text)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


@functools.cache
def token(port: str, user: str, password: str) -> str:
    """What stands for a password: to check a password itself takes the server longer than all the rest of a request."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)) as connection:
        wish = json.dumps({"user": user, "password": password})
        connection.request("POST", "/+login", wish, {"Content-Type": "application/json"})
        return str(json.loads(connection.getresponse().read())["result"]["password"])


def token_of(stack: Workspace, user: str) -> str:
    """The token of root, or of the owner of the index."""
    password = (stack.root / ".secrets" / f"{'root' if user == 'root' else 'user'}_password").read_text().strip()
    return token(stack.port, user, password)


@contextlib.contextmanager
def sockets(stack: Workspace, count: int) -> Iterator[list[socket.socket]]:
    """Many open connections."""
    with contextlib.ExitStack() as opened:
        address = ("127.0.0.1", int(stack.port))
        yield [opened.enter_context(socket.create_connection(address, timeout=30)) for _ in range(count)]


def login(stack: Workspace, user: str = "root") -> dict[str, str]:
    """The header of somebody who may."""
    return {"X-Devpi-Auth": base64.b64encode(f"{user}:{token_of(stack, user)}".encode()).decode()}


def api(stack: Workspace, method: str, path: str, body: object = None, expect: int = 200) -> Any:
    """A request of devpi's own API, as root; what it answers with."""
    headers = {**login(stack), "Content-Type": "application/json", "Accept": "application/json"}
    answer = ask(stack, path, headers, method, json.dumps(body) if body is not None else None)
    assert answer.status == expect, (method, path, answer.status, answer.body)
    return json.loads(answer.body).get("result") if answer.body else None


def make_index(stack: Workspace, name: str, *bases: str, **options: object) -> str:
    """A new index of the private index's owner; returns its name."""
    api(stack, "PUT", f"/pypi/{name}", {"type": "stage", "bases": list(bases), "volatile": True, **options})
    return f"pypi/{name}"


def make_mirror(stack: Workspace, name: str, upstream: str, **options: object) -> str:
    """A new index that mirrors another; returns its name."""
    plain = {"mirror_no_project_list": True, "mirror_use_external_urls": False}
    api(stack, "PUT", f"/pypi/{name}", {"type": "mirror", "mirror_url": f"{upstream}/simple/", **plain, **options})
    return f"pypi/{name}"


@dataclass
class Uploader:
    """Uploads tiny wheels as twine does, over one session."""

    stack: Workspace
    index: str = "pypi/stable"
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False

    @staticmethod
    @functools.cache
    def wheel(name: str, version: str) -> tuple[str, bytes]:
        """File name and content of a wheel of any project; the same for the same words, though a wheel holds its time."""
        module = name.replace("-", "_")
        file, content = smoke.wheel(version)
        return file.replace(smoke.MODULE, module), rename(content, module)

    def __call__(self, name: str, version: str, content: bytes = b"", file: str = "", **form: str) -> tuple[str, str]:
        """Upload, which must succeed; the file's name and digest."""
        made = self.wheel(name, version)
        file, content = file or made[0], content or made[1]
        digest = hashlib.sha256(content).hexdigest()
        fields = {":action": "file_upload", "protocol_version": "1", "metadata_version": "2.1", "name": name, "version": version}
        fields |= {"filetype": "bdist_wheel", "pyversion": "py3", "sha256_digest": digest} | form
        answer = self.session.post(
            f"{self.stack.url}/{self.index}/", data=fields, files={"content": (file, content)},
            auth=("pypi", token_of(self.stack, "pypi")), timeout=180,
        )  # fmt: skip
        assert answer.status_code == 200, (file, answer.status_code, answer.text)
        return file, digest


def container(stack: Workspace, service: str) -> str:
    """The name of a container of the dev stack."""
    return f"{stack.project}-dev-{service}-1"


def docker(*words: str) -> None:
    """One Docker command, which must succeed."""
    subprocess.run(["docker", *words], check=True, capture_output=True)


@contextlib.contextmanager
def frozen(stack: Workspace) -> Iterator[None]:
    """The server stopped in its tracks: what is answered meanwhile came from the proxy alone."""
    docker("pause", container(stack, "devpi"))
    try:
        yield
    finally:
        docker("unpause", container(stack, "devpi"))
