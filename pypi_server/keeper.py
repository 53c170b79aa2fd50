"""Answers that cannot change until the database does are kept as files, which nginx serves.

How a kept page is never stale: devpi tells of every commit, in the thread that commits and before the client hears of it
(``storage.py``). What the commit touched is removed there and then. A page that was being rendered
meanwhile is not kept: its ``Flight``, which began before devpi read anything, was told too. While devpi is down nothing
can change; when it starts, the commits that it may not have told of are gone through.

Pages that came from a mirror are good for as long as devpi's own cache of them. After that they are ``aged``: the next
reader gets the old page at once, and a thread has devpi look upstream.
"""

import contextlib
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import known
from devpi_common.validation import normalize_name
from history import History
from newest import Changes
from outlook import CHECK_AGAIN, look
from page import TYPES, Page
from page_store import STATE, WORK, PageStore
from pyramid.request import Request
from pyramid.response import Response

log = logging.getLogger("pypi_server.pages")

PROJECT_KEYS = ("PROJSIMPLELINKS", "PROJVERSIONS", "PROJVERSION")
WITHIN = "pypi_server.within"  # marks a request of our own making

Render = Callable[..., Any]


@dataclass(eq=False)
class Flight:
    """One answer on its way from devpi: what of its subject was changed since it began, and where."""

    subject: str
    touched: set[str] = field(default_factory=set)
    spoiled: bool = False


class Keeper:
    """Keeps pages in a store, and the store true."""

    def __init__(self, xom: Any, store: PageStore) -> None:
        self.xom, self.keyfs, self.store = xom, xom.keyfs, store
        self.bases: dict[str, frozenset[str]] = {}
        self.deadlines: dict[Page, float] = {}
        self.flights: set[Flight] = set()
        self.turns = [threading.Lock() for _ in range(256)]  # a page's own, but for those that share one by chance
        self.started = threading.Event()
        self.to_refresh: queue.Queue[tuple[Page, Render]] = queue.Queue()
        self.queued: set[Page] = set()
        self.history = History(self.keyfs, store.folder / STATE)
        self.told = -1  # the last commit that we heard of

    # Commits

    def watch(self) -> None:
        """Hear of every commit from now on, and catch up with those that nobody told us of."""
        shutil.rmtree(self.store.folder / WORK, ignore_errors=True)  # of a server that was killed
        with self.store.lock:
            self.keyfs._storage.listeners.append(self.committed)
            self.told = self.history.head()
            missed = self.history.missed()
            if missed is None:
                self.store.clear()
            for changes in missed or ():
                self.forget_changed(changes)
            self.history.save(self.told)
        threading.Thread(target=self.run, name="pages", daemon=True).start()

    def committed(self, serial: int, changes: Changes) -> None:
        """Remove what a commit made untrue. An error here is the writer's: what cannot be removed is not acknowledged."""
        with self.store.lock:
            self.forget_changed(changes)
            self.told = max(self.told, serial)

    def forget_changed(self, changes: Changes) -> None:
        """Remove what these changes made untrue."""
        if any(key in ("USER", "USERLIST") for key, _, _ in changes.values()):
            for flight in self.flights:
                flight.spoiled = True
            self.bases.clear()
            self.deadlines.clear()
            self.store.clear()
            return
        for path, (key, _, _) in changes.items():
            user, index, subject = [*path.split("/", 2), "", ""][:3]
            if key in PROJECT_KEYS:
                self.touched(f"{user}/{index}", normalize_name(subject.split("/", 1)[0]))
            elif key == "PROJNAMES":
                self.touched(f"{user}/{index}", "")
            elif key == "STAGEFILE":
                self.touched(f"{user}/{index}", subject)

    def touched(self, index: str, subject: str) -> None:
        """One project, list of projects or file of one index is another now: so it is in every index that shows it."""
        for flight in self.flights:
            if flight.subject == subject:
                flight.touched.add(index)
        if subject.startswith("+f/"):
            self.store.remove(Page(index, subject, "metadata").name)
            return
        for one in {index, *self.store.indexes()}:
            if index in self.bases.get(one, {index}):
                for form in ("html", "json"):
                    self.forget(Page(one, subject, form))
        if subject:
            self.store.unlink_below(f"{index}/{subject}")

    def forget(self, page: Page) -> None:
        """Remove a page in both its encodings: first the plain one, by which the proxy would find it."""
        self.deadlines.pop(page, None)
        for name in (page.name, f"{page.name}.gz"):
            self.store.remove(name)

    # Requests

    def serve(self, request: Request, page: Page) -> Any:
        """A page from the store, or rendered and stored; one reader at a time renders."""
        by_proxy = "X-Page-Store" in request.headers
        if not self.store.has(page.name) and self.revive(page):
            self.refresh(page, request.invoke_subrequest)
        if not self.store.has(page.name):
            with self.turns[hash(page.name) % len(self.turns)]:
                if not self.store.has(page.name):
                    response, kept = self.render(page, request.invoke_subrequest)
                    if not (kept and by_proxy):
                        return response
        if by_proxy:
            return Response(headers={"X-Accel-Redirect": f"/+store/{quote(page.name, safe='/+')}"})
        try:
            return Response(body=self.store.read(page.name), content_type=TYPES[page.form])
        except FileNotFoundError:  # it changed just now
            return self.render(page, request.invoke_subrequest)[0]

    def render(self, page: Page, render: Render, upstream: bool = False) -> tuple[Any, bool]:
        """Have devpi make the page, by a request that has nothing of the client's in it; whether it could be kept. It looks
        ``upstream`` where it knows nothing yet, or where it is told to.

        The first look at a mirror's project is itself a change, so that a second rendering is the one to keep.
        """
        for attempt in range(2):
            with self.flight(page.subject) as flight:
                headers = {"Accept": TYPES[page.form], "User-Agent": "pip/25.0"}
                request = Request.blank(page.path, headers=headers, environ={WITHIN: "1"})
                with known.is_enough(not upstream) as knowledge:
                    answer = render(request, use_tweens=True)
                if knowledge.old and answer.status_code == 200:
                    self.refresh(page, render)
                elif knowledge.old:
                    return self.render(page, render, upstream=True)
                if answer.status_code == 404 and page.subject.endswith(".whl") and attempt == 0:
                    answer = self.mirror_file(page, render)
                    if answer.status_code == 200:
                        continue
                if answer.status_code != 200:
                    return answer, False
                try:
                    response = Response(body=answer.body, content_type=TYPES[page.form])
                except AssertionError:  # webob: it is not as long as its header says
                    return Response(status=502, text="The answer from upstream ended early.\n"), False
                try:
                    if self.keep(page, response.body, flight):
                        return response, True
                except OSError as error:
                    log.warning("%s cannot be kept: %s", page.name, error)
                    return response, False
        return response, False

    def mirror_file(self, page: Page, render: Render) -> Any:
        """Have devpi fetch a wheel whose metadata file upstream does not have, so that it can read it out of the wheel:
        devpi's pages promise one for every wheel, and uv gives up where there is none."""
        answer = render(Request.blank(f"/{page.index}/{page.subject}", environ={WITHIN: "1"}), use_tweens=True)
        if answer.status_code == 200:
            with contextlib.closing(answer.app_iter) as parts:
                for _ in parts:
                    pass
        return answer

    @contextlib.contextmanager
    def flight(self, subject: str) -> Iterator[Flight]:
        """Hear of changes of a subject while devpi answers about it."""
        flight = Flight(subject)
        with self.store.lock:
            self.flights.add(flight)
        try:
            yield flight
        finally:
            with self.store.lock:
                self.flights.discard(flight)

    def keep(self, page: Page, body: bytes, flight: Flight) -> bool:
        """Store a page, unless something that it shows has changed on its way."""
        outlook = look(self.xom, page)
        if not outlook.keep:
            return False
        with self.store.prepared(page.name, body, compress=page.form != "metadata") as prepared, self.store.lock:
            if flight.spoiled or flight.touched & outlook.indexes:
                return False
            if page.form != "metadata":
                self.bases[page.index] = outlook.indexes
            for index in outlook.public:
                self.store.link(f"{index}/+f", self.xom.config.server_path / "+files" / index / "+f")
            self.store.publish(prepared)
            if outlook.seconds is not None:
                self.deadlines[page] = time.monotonic() + outlook.seconds
        return True

    def link_documentation(self, index: str, project: str, version: str, flight: Flight) -> None:
        """Have documentation that devpi has unpacked served from disk until the project changes."""
        folder = self.xom.config.server_path / index / project / version / "+doc"
        public = look(self.xom, Page(index, "", "html")).public
        with self.store.lock:
            if not (flight.spoiled or flight.touched) and index in public and folder.is_dir():
                self.store.link(f"{index}/{project}/{version}/+doc", folder)

    # Ageing

    def refresh(self, page: Page, render: Render) -> None:
        """Have the page looked up upstream, soon."""
        with self.store.lock:
            if page not in self.queued:
                self.queued.add(page)
                self.to_refresh.put((page, render))

    def revive(self, page: Page) -> bool:
        """Serve an aged page again, for a while: its successor is on its way."""
        with self.store.lock:
            self.store.revive(f"{page.name}.gz")
            found = self.store.revive(page.name)
            if found:
                self.deadlines[page] = time.monotonic() + CHECK_AGAIN
        return found

    def run(self) -> None:
        """Tend the pages for ever, once there is a client: until then the old ones are all that there is."""
        self.started.wait()
        for name in list(self.store.sizes):
            if "/+simple" in name:
                self.store.age(name)  # nobody knows any more for how long it is good
        while True:
            try:
                self.tend()
            except Exception:  # the thread must live: without it nothing is looked up again
                log.exception("pages could not be tended")

    def tend(self) -> None:
        """Refresh the next page that was asked for; age and save what is due."""
        self.age()
        self.history.save(self.told)
        with contextlib.suppress(queue.Empty):
            page, render = self.to_refresh.get(timeout=1)
            self.queued.discard(page)
            log.info("looking upstream for %s", page.path)
            self.render(page, render, upstream=True)

    def age(self) -> None:
        """Age every page whose time is over."""
        now = time.monotonic()
        with self.store.lock:
            for page in [page for page, deadline in self.deadlines.items() if deadline < now]:
                del self.deadlines[page]
                for name in (page.name, f"{page.name}.gz"):
                    self.store.age(name)
