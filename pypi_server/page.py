"""Which answers are kept: what a request is about, where its answer is stored, and in which form a client wants it."""

import re
from dataclasses import dataclass

from devpi_common.validation import normalize_name
from pyramid.request import Request

JSON = "application/vnd.pypi.simple.v1+json"
TYPES = {"json": JSON, "html": "text/html", "metadata": "application/octet-stream"}
# PEP 691's names, and what devpi calls them; of equals the first is taken.
OFFERS = {
    "text/html": "html",
    "application/vnd.pypi.simple.v1+html": "html",
    "application/vnd.pypi.simple.latest+html": "html",
    JSON: "json",
    "application/vnd.pypi.simple.latest+json": "json",
}
SIMPLE = re.compile(r"/([^/+]+)/([^/+]+)/\+simple/(?:([^/+]+)/)?")
METADATA = re.compile(r"/([^/+]+)/([^/+]+)/(\+f/[^/]+/[^/]+/[^/]+)\.metadata")

NAME_LIMIT = 200  # bytes; file systems take 255, and we append to it


@dataclass(frozen=True)
class Page:
    """One answer: the index it is asked of, what of the index it is about, and its form."""

    index: str
    subject: str  # a project, a file as +f/..., or empty for the list of projects
    form: str

    @property
    def name(self) -> str:
        """Its place in the store."""
        if self.form == "metadata":
            return f"+metadata/{self.index}/{self.subject}.metadata"
        return f"{self.index}/+simple{'/' * bool(self.subject)}{self.subject}.{self.form}"

    @property
    def path(self) -> str:
        """The path of its URL."""
        if self.form == "metadata":
            return f"/{self.index}/{self.subject}.metadata"
        return f"/{self.index}/+simple/{self.subject}{'/' * bool(self.subject)}"


def form_of(request: Request) -> str:
    """html or json: what the client likes best; html where it likes nothing that there is, as PEP 691 allows."""
    found = request.accept.acceptable_offers(list(OFFERS))
    return OFFERS[found[0][0]] if found else "html"


def page_of(request: Request) -> Page | None:
    """The page that a request is for, if it is one that is kept. What devpi shows to people has buttons: not kept."""
    if request.method not in ("GET", "HEAD") or (request.user_agent or "").startswith("Mozilla/"):
        return None
    parts = request.path_info.split("/")
    if {".", ".."} & set(parts):
        return None  # its name would be that of something else
    if max(len(part.encode()) for part in parts) > NAME_LIMIT:
        return None
    if found := METADATA.fullmatch(request.path_info):
        return Page(f"{found[1]}/{found[2]}", found[3], "metadata")
    if found := SIMPLE.fullmatch(request.path_info):
        project = found[3] or ""
        if project == normalize_name(project):
            return Page(f"{found[1]}/{found[2]}", project, form_of(request))
    return None
