"""Take over what another server has: devpi's whole directory, a folder of distributions, or another simple index."""

import contextlib
import functools
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pypi_tasks import distribution, home, simple_index, takeover
from pypi_tasks.deployment import Deployment
from pypi_tasks.errors import BadInput, Failed, NotReady
from pypi_tasks.private_index import Index
from pypi_tasks.settings import Settings
from pypi_tasks.simple_index import Gone, Link
from pypi_tasks.terminal import bars, table
from pypi_tasks.world import World

if TYPE_CHECKING:
    import requests

MOST = 5_000  # projects; whoever has more is a mirror
WHERE = Path("/var/tmp")  # noqa: S108  what is downloaded waits there, in folders of its own: /tmp may be memory
EXPECTED = "a devpi server directory, a folder of wheels and sdists, or http(s)://.../simple/"
AGAIN = "the same command again takes what is still missing"


@dataclass(frozen=True)
class Offer:
    """A file to be taken: its name, its project as far as known, its sha256 as far as told, and how to have it on disk.
    ``have`` raises Gone where it cannot be had."""

    file: str
    project: str
    sha256: str
    have: Callable[[], Path]
    is_temporary: bool = False


@dataclass
class Outcome:
    """What became of the offers."""

    taken: dict[str, str] = field(default_factory=dict)  # file to project
    there: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def note(self, what: str, count: int = 1) -> None:
        """Count something that people want to know of."""
        if count:
            self.notes[what] = self.notes.get(what, 0) + count


class Adoption:
    """Files on their way into an index."""

    def __init__(self, index: Index, outcome: Outcome) -> None:
        self.index, self.outcome = index, outcome
        self.projects = index.projects()
        self.known: dict[str, dict[str, str]] = {}

    def files(self, project: str) -> dict[str, str]:
        """What the index has of a project; asked once. A project that it has not may be PyPI's, and is not asked for."""
        if project not in self.known:
            self.known[project] = self.index.files(project) if project in self.projects else {}
        return self.known[project]

    def is_settled(self, offer: Offer, project: str, sha256: str) -> bool:
        """Whether a name is taken in the index, by the same content or by another one, which is told."""
        if not (project and sha256 and (there := self.files(project).get(offer.file))):
            return False
        if there == sha256:
            self.outcome.there += offer.file not in self.outcome.taken
        else:
            self.outcome.refused.append((offer.file, f"conflict: {self.index.name} has another content under this name"))
        return True

    def take(self, offer: Offer) -> None:
        """Have one file in the index, or tell why not."""
        if self.is_settled(offer, offer.project, offer.sha256):
            return
        try:
            path = offer.have()
            try:
                self.put(offer, path)
            finally:
                if offer.is_temporary:
                    path.unlink()
        except (Gone, distribution.Unfit) as error:
            self.outcome.refused.append((offer.file, str(error)))

    def put(self, offer: Offer, path: Path) -> None:
        """Upload a file that the index has not."""
        found = distribution.read(path)
        if self.is_settled(offer, found.project, found.sha256):
            return
        if why := self.index.upload(found):
            self.outcome.refused.append((offer.file, why))
            return
        self.files(found.project)[offer.file] = found.sha256
        self.outcome.taken[offer.file] = found.project

    def verify(self) -> None:
        """Look whether the index's pages list what was taken, by the same digests."""
        for project in sorted(set(self.outcome.taken.values())):
            listed = self.index.files(project)
            for file in [file for file, its in self.outcome.taken.items() if its == project]:
                if listed.get(file) != self.known[project][file]:
                    del self.outcome.taken[file]
                    self.outcome.refused.append((file, "the index's page does not list it by its sha256"))


def adopt(world: World, settings: Settings, server: Deployment, source: str, index: str, projects: str, in_place: bool) -> None:
    """Take over whatever ``source`` is."""
    if not source:
        raise BadInput("what is to be taken over?", fix=f"inv adopt WHAT: {EXPECTED}")
    is_url = source.startswith(("http://", "https://"))
    folder = Path(source).expanduser().absolute()
    refuse_flags(source, is_url, index, projects, in_place)
    if is_url:
        adopt_index(world, settings, source, index, [distribution.normalized(name) for name in re.findall(r"[^,\s]+", projects)])
    elif not home.is_there(folder) or not folder.is_dir():
        raise BadInput(f"{source}: there is no such folder.", fix=EXPECTED)
    elif directory := takeover.server_directory(folder):
        if index:
            raise BadInput("--index is for distributions; a devpi server directory has its own indexes.")
        takeover.take_over(world, settings, server, directory, in_place)
    else:
        if in_place:
            raise BadInput(f"--in-place is for a devpi server directory, and {folder} is none: it has no .nodeinfo.")
        adopt_folder(world, settings, folder, index)


def refuse_flags(source: str, is_url: bool, index: str, projects: str, in_place: bool) -> None:
    """Refuse flags that do not go with what is taken over."""
    if index and not re.fullmatch(r"[\w.-]+/[\w.-]+", index):
        raise BadInput(f"--index {index}: expected USER/INDEX.")
    if projects and not is_url:
        raise BadInput("--projects is for an index's URL; a folder is taken as a whole.")
    if is_url and in_place:
        raise BadInput("--in-place is for a devpi server directory.")
    if is_url and "@" in urlsplit(source).netloc:
        raise BadInput(
            "a password in a URL can be seen by everybody on this machine.", fix="put it into ~/.netrc, and leave it out"
        )


def adopt_folder(world: World, settings: Settings, folder: Path, index: str) -> None:
    """Upload all distributions below a folder; what is hidden is none, as pypiserver has it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not is_hidden(path.relative_to(folder)))
    if not found:
        raise BadInput(f"{folder} has no files.", fix=EXPECTED)

    def offers() -> Iterator[list[Offer]]:
        for path in found:
            yield [Offer(path.name, "", "", functools.partial(Path, path))]

    run(world, settings, index, f"{len(found):,} files of {folder}", lambda _: offers(), "files", len(found))


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
    url = url.rstrip("/") + "/"
    if not url.endswith("simple/"):
        raise BadInput(
            f"{url} is not the address of a simple index.", fix=f"such as {url}+simple/ of devpi's, {url}simple/ of others"
        )
    with connected(settings) as session:
        pages = {name: f"{url}{name}/" for name in only} or listed(session, url)
        own = urlsplit(url).path.removesuffix("+simple/") if url.endswith("/+simple/") else "/"
        with tempfile.TemporaryDirectory(prefix="adopt-", dir=WHERE if WHERE.is_dir() else None) as folder:

            def offers(outcome: Outcome) -> Iterator[list[Offer]]:
                for name, page in pages.items():
                    try:
                        links = simple_index.links(simple_index.page(session, page))
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
                return {name: f"{url}{name}/" for name in about["result"]["projects"]}
    try:
        found = simple_index.projects(simple_index.page(session, url))
    except Gone as error:
        raise NotReady(f"{url} {error}.", fix="expected the address of a simple index, http(s)://.../simple/") from None
    if len(found) > MOST:
        raise BadInput(f"{url} has {len(found):,} projects: a mirror of all of PyPI?", fix="--projects a,b,c for some of them")
    if not found:
        raise BadInput(f"{url} lists no projects.", fix="expected the address of a simple index, http(s)://.../simple/")
    return found


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


def run(
    world: World,
    settings: Settings,
    index: str,
    what: str,
    offers: Callable[[Outcome], Iterable[list[Offer]]],
    unit: str,
    total: int,
) -> None:
    """Upload, verify, report. What is downloaded is removed as soon as it is uploaded."""
    target = index or settings.index
    outcome = Outcome()

    def work() -> None:
        with Index(settings, target) as opened, bars() as show:
            adoption = Adoption(opened, outcome)
            for number, some in enumerate(offers(outcome)):
                for offer in some:
                    adoption.take(offer)
                    show({"what": unit, "done": number, "total": total})
            adoption.verify()

    world.act(f"upload {what} to {target}", work)
    if not world.dry:
        report(world, target, outcome)


def report(world: World, target: str, outcome: Outcome) -> None:
    """Say what became of all; Failed where something was not taken."""
    world.say(
        f"{len(outcome.taken):,} files taken into {target}, each found there by its sha256; {outcome.there:,} were there already"
    )
    for what, count in outcome.notes.items():
        world.say(f"{count:,} {what}")
    if refused := outcome.refused:
        table("not taken", ["file", "why"], takeover.shown(refused))
        raise Failed(f"{len(refused):,} were not taken; the rest was.", fix=AGAIN)
