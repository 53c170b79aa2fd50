"""A simple index as a client reads it: its projects and their files, from HTML (PEP 503) or JSON (PEP 691)."""

import contextlib
import hashlib
import html.parser
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from pypi_tasks.distribution import CHUNK, normalized

if TYPE_CHECKING:
    import requests

JSON = "application/vnd.pypi.simple.v1+json"
ACCEPT = f"{JSON}, application/vnd.pypi.simple.v1+html; q=0.2, text/html; q=0.1"
TIMEOUT = (10, 300)  # seconds, to connect and between two pieces of an answer
STRONG = ("sha256", "sha512", "sha384", "sha3_256", "sha3_512", "blake2b", "blake2s", "sha224", "sha1", "md5")


class Gone(Exception):
    """An address that does not answer with what was asked for; the message says what it did, ``fix`` what helps."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.fix = fix


@dataclass(frozen=True)
class Link:
    """A file that a project's page lists: its name, its address, its digests by their algorithms, whether it is yanked."""

    file: str
    url: str
    digests: dict[str, str] = field(default_factory=dict)
    yanked: bool = False

    def is_below(self, prefix: str) -> bool:
        """Whether its address has a path that begins so."""
        return unquote(urlsplit(self.url).path).startswith(prefix)


class Anchors(html.parser.HTMLParser):
    """The links of a page: attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.base = ""
        self.found: list[tuple[dict[str, str], str]] = []
        self.is_open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A link, or where links start."""
        given = {name: value or "" for name, value in attrs}
        if tag == "base":
            self.base = given.get("href", "")
        if tag == "a" and "href" in given:
            self.found.append((given, ""))
            self.is_open = True

    def handle_endtag(self, tag: str) -> None:
        """The end of a link's text."""
        self.is_open = self.is_open and tag != "a"

    def handle_data(self, data: str) -> None:
        """Text."""
        if self.is_open:
            attributes, text = self.found[-1]
            self.found[-1] = (attributes, text + data.strip())


def unanswered(error: BaseException) -> Gone:
    """Why there is no answer: what is at the bottom of an error of requests."""
    at: BaseException | None = error
    while at:
        if isinstance(at, ssl.SSLCertVerificationError):
            fix = "set CA_BUNDLE to the file of the certificate that signed it"
            return Gone(f"does not answer: its certificate is not trusted ({at.verify_message})", fix)
        if isinstance(at, OSError) and at.strerror:
            return Gone(f"does not answer: {at.strerror}")
        at = at.__cause__ or at.__context__
    return Gone(f"does not answer ({type(error).__name__})")


def get(session: "requests.Session", url: str, **options: Any) -> "requests.Response":
    """An answer with 200; Gone says what it was instead."""
    import requests

    try:
        response = session.get(url, timeout=TIMEOUT, **options)
    except (requests.RequestException, OSError) as error:
        raise unanswered(error) from None
    if response.status_code in (401, 403):
        raise Gone(f"answered {response.status_code}: it may want a password, in ~/.netrc")
    if response.status_code != 200:
        raise Gone(f"answered {response.status_code} {response.reason}")
    return response


def page(session: "requests.Session", url: str, index: str) -> "requests.Response":
    """A page of a simple index. Gone where it is another host's: pypiserver sends whoever asks for what it has not to PyPI."""
    response = get(session, url, headers={"Accept": ACCEPT, "Cache-Control": "max-age=0"})
    for host in (urlsplit(url).hostname, urlsplit(response.url).hostname):
        if host != urlsplit(index).hostname:
            raise Gone(f"is on another host, {host}", "the address of the index that is meant")
    return response


def is_json(response: "requests.Response") -> bool:
    """Which of the two forms a page has."""
    return "json" in response.headers.get("Content-Type", "")


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Turn what is no page of a simple index into Gone."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Gone("is no page of a simple index") from None


def last(url: str) -> str:
    """The last part of an address."""
    return unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]


@understood()
def projects(response: "requests.Response") -> dict[str, str]:
    """The projects on the list of all: normalized name to the address of its page. Other links lead elsewhere (PEP 503)."""
    if is_json(response):
        names = [normalized(project["name"]) for project in response.json()["projects"]]
        return {name: urljoin(response.url, f"{name}/") for name in names}
    anchors = Anchors(response.text)
    base = urljoin(response.url, anchors.base)
    found = {normalized(text.strip("/")): urljoin(base, attributes["href"]) for attributes, text in anchors.found}
    return {name: url for name, url in found.items() if name and name == normalized(last(url))}


@understood()
def links(response: "requests.Response") -> list[Link]:
    """The files on a project's page; a link to a folder is none."""
    if is_json(response):
        return [
            Link(file["filename"], urljoin(response.url, file["url"]), dict(file.get("hashes", {})), bool(file.get("yanked")))
            for file in response.json()["files"]
        ]
    anchors = Anchors(response.text)
    found = []
    for attributes, _ in anchors.found:
        url, fragment = urldefrag(urljoin(urljoin(response.url, anchors.base), attributes["href"]))
        digest = re.match(r"(\w+)=([0-9a-fA-F]+)", fragment)
        if not url.endswith("/"):
            found.append(Link(last(url), url, {digest[1]: digest[2].lower()} if digest else {}, "data-yanked" in attributes))
    return found


def download(session: "requests.Session", link: Link, folder: Path) -> Path:
    """Have a file on disk, found to be what its page says; Gone where it is not, or cannot be had."""
    if not link.file or Path(link.file).name != link.file:
        raise Gone("its name is none of a file")
    path = folder / link.file
    try:
        fetch(session, link, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def fetch(session: "requests.Session", link: Link, path: Path) -> None:
    """Write a file as it is sent, and compare it with its page's strongest digest."""
    import requests
    import urllib3

    known = next((name for name in STRONG if name in link.digests), "")
    digest = hashlib.new(known or "sha256")
    try:
        with get(session, link.url, stream=True, headers={"Accept-Encoding": "identity"}) as response, path.open("wb") as file:
            # Undecoded: some servers call a .tar.gz an encoding.
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                digest.update(chunk)
            expected = response.headers.get("Content-Length")
            if expected and file.tell() != int(expected):
                raise Gone(f"ended after {file.tell():,} of {int(expected):,} bytes")
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Gone(f"could not be downloaded ({type(error).__name__})") from None
    if known and digest.hexdigest() != link.digests[known].lower():
        raise Gone(f"its content is not what its page says: {known} is {digest.hexdigest()}, expected {link.digests[known]}")
