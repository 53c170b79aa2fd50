"""Take over what another server has: devpi's whole directory, a folder of distributions, or another simple index."""

import contextlib
import functools
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pypi_tasks import distribution, home, simple_index, takeover
from pypi_tasks.adoption import Offer, Outcome, run
from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import BadInput, NotReady
from pypi_tasks.settings import Settings, typed
from pypi_tasks.simple_index import Gone, Link
from pypi_tasks.terminal import progress
from pypi_tasks.world import World

if TYPE_CHECKING:
    import requests

MOST = 5_000  # projects; whoever has more is a mirror
WHERE = Path("/var/tmp")  # noqa: S108  what is downloaded waits there, in folders of its own: /tmp may be memory
EXPECTED = "a devpi server directory, a folder of wheels and sdists, or http(s)://.../simple/"
AN_INDEX = "expected the address of a simple index, http(s)://.../simple/"


def adopt(world: World, settings: Settings, server: Deployment, source: str, index: str, projects: str, in_place: bool) -> None:
    """Take over whatever ``source`` is."""
    if not source:
        raise BadInput("what is to be taken over?", fix=f"inv adopt WHAT: {EXPECTED}")
    is_url = "://" in source
    refuse_flags(is_url, index, projects, in_place)
    if is_url:
        adopt_index(world, settings, address(source), index, names(projects))
        return
    folder = typed(source)
    if not home.is_there(folder):
        raise BadInput(f"{folder}: there is no such folder.", fix=EXPECTED)
    if not folder.is_dir():
        raise BadInput(f"{source} is a file, not a folder.", fix=EXPECTED)
    if directory := takeover.server_directory(folder):
        if index:
            raise BadInput("--index is for distributions; a devpi server directory has its own indexes.")
        takeover.take_over(world, settings, server, directory, in_place)
    else:
        if in_place:
            raise BadInput(f"--in-place is for a devpi server directory, and {folder} is none: it has no .nodeinfo.")
        adopt_folder(world, settings, folder, index)


def names(projects: str) -> list[str]:
    """The projects that --projects names, normalized."""
    return [distribution.normalized(name) for name in re.findall(r"[^,\s]+", projects)]


def refuse_flags(is_url: bool, index: str, projects: str, in_place: bool) -> None:
    """Refuse flags that do not go with what is taken over."""
    if index and not re.fullmatch(r"[\w.-]+/[\w.-]+", index):
        raise BadInput(f"--index {index}: expected USER/INDEX.")
    if projects and not is_url:
        raise BadInput("--projects is for an index's URL; a folder is taken as a whole.")
    if projects and not names(projects):
        raise BadInput("--projects names none.", fix="--projects a,b,c; without it all are taken")
    if is_url and in_place:
        raise BadInput("--in-place is for a devpi server directory.")


def address(text: str) -> str:
    """The address of a simple index. What is refused is not repeated: it may have a password."""
    try:
        url = urlsplit(text)
        if not url.hostname or url.port == 0:  # other ports that cannot be are a ValueError, too
            raise ValueError
    except ValueError:
        raise BadInput("this URL cannot be understood.", fix=EXPECTED) from None
    if "@" in url.netloc:
        raise BadInput(
            "a password in a URL can be seen by everybody on this machine.", fix="put it into ~/.netrc, and leave it out"
        )
    if "?" in text or "#" in text:
        raise BadInput("a simple index's address has neither ? nor #.", fix="leave out what follows; passwords go into ~/.netrc")
    if url.scheme not in ("http", "https"):
        raise BadInput(f"{url.scheme}:// is not understood.", fix=EXPECTED)
    if not url.path.rstrip("/").endswith("simple"):
        found = url.geturl().rstrip("/") + "/"
        raise BadInput(
            f"{found} is not the address of a simple index.", fix=f"such as {found}+simple/ of devpi's, {found}simple/ of others"
        )
    return url.geturl().rstrip("/") + "/"


def adopt_folder(world: World, settings: Settings, folder: Path, index: str) -> None:
    """Upload all distributions below a folder, by their names; what is hidden is none, as pypiserver has it."""
    if several := indexes_in(folder):
        raise BadInput(
            f"{folder} has the files of several of devpi's indexes, {', '.join(several)}; those of a mirror are not yours.",
            fix=f"the folder of one that is no mirror, such as inv adopt {folder / several[0]}",
        )
    seen = [path for path in sorted(folder.rglob("*")) if not is_hidden(path.relative_to(folder))]
    found = [path for path in seen if distribution.kind(path.name)]
    if not found:
        raise BadInput(f"{folder} has no distributions: expected {', '.join(distribution.KINDS)}.", fix=EXPECTED)

    def offers(outcome: Outcome) -> Iterator[list[Offer]]:
        outcome.note(
            "other files are no distributions", sum(not (path.is_dir() or distribution.kind(path.name)) for path in seen)
        )
        for path in found:
            yield [Offer(path.name, "", "", functools.partial(Path, path))]

    run(world, settings, index, f"{len(found):,} files of {folder}", offers, "files", len(found))


def indexes_in(folder: Path) -> list[str]:
    """The indexes whose files devpi keeps below a folder, the ones that are no mirror of PyPI first; none where the folder is an
    index's own."""
    found = {path.parent.relative_to(folder) for depth in range(1, 4) for path in folder.glob("*/" * depth + "+[ef]")}
    return sorted(map(str, found), key=lambda one: (one.endswith("root/pypi"), one))


def is_hidden(path: Path) -> bool:
    """Whether a path or a folder that it is in begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def connected(settings: Settings) -> "requests.Session":
    """How another index is asked: as this machine's other clients do, by ~/.netrc and the proxies' variables."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    session.verify = str(settings.ca_bundle) if settings.ca_bundle else True
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=Retry(3, backoff_factor=0.5, status_forcelist=(502, 503, 504))))
    return session


def adopt_index(world: World, settings: Settings, url: str, index: str, only: list[str]) -> None:
    """Upload what another simple index has; of one of devpi's, what is its own."""
    with connected(settings) as session:
        world.say(f"reading the list of {url}")
        with progress(f"the list of {url}"):
            pages = wanted(listed(session, url), url, only)
        own = urlsplit(url).path.removesuffix("+simple/") if url.endswith("/+simple/") else "/"
        with tempfile.TemporaryDirectory(prefix="adopt-", dir=WHERE if WHERE.is_dir() else None) as folder:

            def offers(outcome: Outcome) -> Iterator[list[Offer]]:
                for name, page in pages.items():
                    try:
                        links = simple_index.links(simple_index.page(session, page, url))
                    except Gone as error:
                        outcome.refused.append((name, f"its page {error}"))
                        links = []
                    yield [offered(session, link, name, Path(folder)) for link in chosen(links, own, outcome)]

            run(world, settings, index, f"the files of {len(pages):,} projects of {url}", offers, "projects", len(pages))


def listed(session: "requests.Session", url: str) -> dict[str, str]:
    """The projects of an index and their pages. devpi is asked for those of the index itself: its list has its bases' too."""
    with contextlib.suppress(Gone, ValueError, KeyError, TypeError):
        if url.endswith("/+simple/"):
            about = simple_index.get(session, url.removesuffix("+simple/"), headers={"Accept": "application/json"}).json()
            if about["result"]["type"] != "mirror":
                return {distribution.normalized(name): f"{url}{name}/" for name in about["result"]["projects"]}
    try:
        return simple_index.projects(simple_index.page(session, url, url))
    except Gone as error:
        raise NotReady(f"{url} {error}.", fix=error.fix or AN_INDEX) from None


def wanted(found: dict[str, str], url: str, only: list[str]) -> dict[str, str]:
    """The pages of the projects that were asked for by name, else of all. What is not on the list is not the index's: it may be
    a stranger's on PyPI, to whom the index leads."""
    if not found:
        raise BadInput(f"{url} lists no projects.", fix=AN_INDEX)
    if missing := [name for name in only if name not in found]:
        raise BadInput(f"{url} does not list {', '.join(missing)}.", fix="--projects with names that it lists")
    if not only and len(found) > MOST:
        raise BadInput(f"{url} has {len(found):,} projects: a mirror of all of PyPI?", fix="--projects a,b,c for some of them")
    return {name: found[name] for name in only} or found


def chosen(links: list[Link], own: str, outcome: Outcome) -> list[Link]:
    """The files that are an index's own, and what is to be said of them."""
    found = [link for link in links if link.is_below(own)]
    outcome.note("files of other indexes were left out", len(links) - len(found))
    outcome.note("files had no digest on their page", sum(not link.digests for link in found))
    outcome.note("files are yanked there, which devpi does not know: here they are not", sum(link.yanked for link in found))
    return found


def offered(session: "requests.Session", link: Link, project: str, folder: Path) -> Offer:
    """A file of another index."""
    return Offer(link.file, project, link.digests.get("sha256", ""), lambda: simple_index.download(session, link, folder), True)
