"""What a server gives its clients, file by file and page by page, and how that differs from what it should."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from pypi_tasks.errors import Failed
from pypi_tasks.terminal import bars

if TYPE_CHECKING:
    import requests

PAGE = "application/vnd.pypi.simple.v1+json"
THREADS = 4
Files = dict[str, str]  # path, as the manifest has it (USER/INDEX/+f/...), to sha256 in hex; empty for one that is not told


class Served:
    """A server by its address, ``verify`` as requests takes it."""

    def __init__(self, url: str, verify: str | bool = True) -> None:
        import requests

        self.url = url
        self.session = requests.Session()
        self.session.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
        self.session.trust_env, self.session.verify = False, verify

    def get(self, path: str, accept: str = "*/*", stream: bool = False) -> "requests.Response":
        """An answer, whatever its status; Failed where there is none."""
        import requests

        try:
            return self.session.get(f"{self.url}/{quote(path)}", headers={"Accept": accept}, timeout=150, stream=stream)
        except requests.RequestException as error:
            raise Failed(f"{self.url}/{path} was not answered ({type(error).__name__}).", fix="inv logs") from None

    def digest(self, path: str) -> str:
        """The sha256 of a file as it arrives; what came instead, where that is no file."""
        import requests

        try:
            with self.get(path, stream=True) as answer:
                if answer.status_code != 200:
                    return f"answered {answer.status_code}"
                found = hashlib.sha256()
                for chunk in answer.iter_content(1024**2):
                    found.update(chunk)
        except requests.RequestException as error:
            return f"broke off ({type(error).__name__})"
        return found.hexdigest()

    def indexes(self) -> dict[str, str]:
        """The indexes, USER/INDEX, and their types."""
        answer = self.get("", "application/json")
        if answer.status_code != 200:
            raise Failed(f"{self.url}/ answered {answer.status_code}.", fix="inv logs")
        users: dict[str, Any] = answer.json()["result"]
        return {f"{user}/{name}": index["type"] for user, value in users.items() for name, index in value["indexes"].items()}

    def projects(self, index: str) -> list[str]:
        """The projects of an index's own; none where there is no such index."""
        answer = self.get(index, "application/json")
        return list(answer.json()["result"]["projects"]) if answer.status_code == 200 else []

    def page(self, index: str, project: str) -> Files:
        """The index's own files on a project's page, as clients read it; inherited ones are none of these."""
        answer = self.get(f"{index}/+simple/{project}/", PAGE)
        if answer.status_code == 404:
            return {}
        if answer.status_code != 200:
            raise Failed(f"the page of {project} in {index} answered {answer.status_code}.", fix="inv logs")
        found = {}
        for file in answer.json()["files"]:
            path = unquote(urlsplit(urljoin(answer.url, file["url"])).path).lstrip("/")
            if path.startswith(f"{index}/+"):
                found[path] = file["hashes"].get("sha256", "")
        return found


@dataclass
class Findings:
    """What was looked at, and what is not as it should be; ``since`` tells of changes that are newer than the snapshot."""

    files: int = 0
    pages: int = 0
    wrong: list[str] = field(default_factory=list)
    removed: int = 0
    newer: int = 0


def is_listed(path: str) -> bool:
    """Whether a file is one that pages list: documentation and results of tests are not."""
    return not path.endswith(".doc.zip") and ".toxresult" not in path


def of_index(files: Mapping[str, str], index: str) -> Files:
    """The files of one index that its pages have to list."""
    return {path: digest for path, digest in files.items() if path.startswith(f"{index}/+") and is_listed(path)}


def differing(wanted: Mapping[str, str], found: Mapping[str, str], where: str) -> Iterator[str]:
    """Files with another digest than they should have; of some a page tells none."""
    for path in sorted(wanted.keys() & found.keys()):
        if wanted[path] and found[path] and wanted[path] != found[path]:
            yield f"{path}: {where} has it with sha256 {found[path]}, expected {wanted[path]}"


def compare_pages(wanted: Mapping[str, str], found: Mapping[str, str], lost: Iterable[str]) -> Iterator[str]:
    """How the pages of an index differ from the manifest, both ways."""
    for path in sorted(wanted.keys() - found.keys()):
        yield f"{path}: it is on no page"
    for path in sorted(found.keys() - wanted.keys() - set(lost)):
        yield f"{path}: it is on a page, but the manifest does not have it"
    yield from differing(wanted, found, "its page")


def compare(restored: Served, manifest: Mapping[str, Any], live: Served | None) -> Findings:
    """Compare a restored server, as it serves, with its manifest, and its pages with those of the live server, if any."""
    found = Findings()
    with bars() as show, ThreadPoolExecutor(THREADS) as pool:
        # Pages first, as clients ask: from then on the proxy has the files of their index from disk.
        for index in [name for name, kind in restored.indexes().items() if kind != "mirror"]:
            projects = restored.projects(index)
            pages = read(pool.map, restored, index, projects, found.wrong)
            found.pages += len(projects)
            show({"what": "pages", "done": found.pages, "total": found.pages})
            found.wrong += compare_pages(of_index(manifest["files"], index), pages, manifest["lost"])
            if live:
                now = read(pool.map, live, index, sorted({*projects, *live.projects(index)}), found.wrong)
                found.removed += len(pages.keys() - now.keys())
                found.newer += len(now.keys() - pages.keys())
                found.wrong += differing(pages, now, "the live server")
        for path, digest in zip(manifest["files"], pool.map(restored.digest, manifest["files"]), strict=True):
            found.files += 1
            show({"what": "files served", "done": found.files, "total": len(manifest["files"])})
            if digest != manifest["files"][path]:
                found.wrong.append(f"{path}: served with sha256 {digest}" if len(digest) == 64 else f"{path}: {digest}")
    return found


def read(each: Callable[..., Iterable[Files]], server: Served, index: str, projects: list[str], wrong: list[str]) -> Files:
    """The index's own files on the pages of projects; what is no page goes to ``wrong``."""

    def page(project: str) -> Files:
        try:
            return server.page(index, project)
        except Failed as error:
            wrong.append(error.what)
            return {}

    return {path: digest for files in each(page, projects) for path, digest in files.items()}
