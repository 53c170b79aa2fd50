"""Files on their way into an index: taken one by one, looked for there, and what became of each told."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pypi_tasks import distribution
from pypi_tasks.errors import Failed
from pypi_tasks.private_index import Index
from pypi_tasks.settings import Settings
from pypi_tasks.simple_index import Gone
from pypi_tasks.terminal import bars, table
from pypi_tasks.world import World

AGAIN = "the same command again takes what is still missing"
SHOWN = 50  # rows


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
        """Whether a name is taken in the index, by the same content or by another one, which is told. A content that was lost or
        damaged is not there: uploaded again, it is."""
        if not (project and sha256 and (there := self.files(project).get(offer.file))):
            return False
        if there == sha256:
            if offer.file not in self.outcome.taken:
                if not self.index.is_whole(offer.file, sha256):
                    return False
                self.outcome.there += 1
        else:
            self.outcome.refused.append((offer.file, f"conflict: {self.index.name} has another content under this name"))
        return True

    def take_all(self, offers: Iterable[list[Offer]], unit: str, total: int) -> None:
        """Have all in the index, and look whether they are there. What is downloaded is removed as soon as it is uploaded."""
        with bars() as show:
            show({"what": unit, "done": 0, "total": total})
            for number, some in enumerate(offers):
                for offer in some:
                    show({"what": unit, "done": number, "total": total})
                    self.take(offer)
        self.verify()

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


def run(
    world: World,
    settings: Settings,
    index: str,
    what: str,
    offers: Callable[[Outcome], Iterable[list[Offer]]],
    unit: str,
    total: int,
) -> None:
    """Upload, verify, report. An index that takes none is refused first."""
    target = index or settings.index
    outcome = Outcome()
    with Index(settings, target) as opened:
        adoption = Adoption(opened, outcome)
        world.act(f"upload {what} to {target}", lambda: adoption.take_all(offers(outcome), unit, total))
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
        table("not taken", ["file", "why"], shown(refused))
        rest = "the rest was" if outcome.taken or outcome.there else "nothing was"
        raise Failed(f"{len(refused):,} were not taken; {rest}.", fix=AGAIN)


def shown(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The first rows of a table, a line each, and how many more there are."""
    more = [(f"{len(rows) - SHOWN:,} more", "")] if len(rows) > SHOWN else []
    return [(in_a_line(file) or "(no name)", in_a_line(why)) for file, why in rows[:SHOWN]] + more


def in_a_line(text: str) -> str:
    """A text without what would not be printed, or begin another line."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
