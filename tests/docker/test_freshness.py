"""What a write changed is seen by the very next read, through every cache that there is; a mirror's page never keeps anybody
waiting."""

import contextlib
import itertools
import json
import re
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.packages import build_wheel, new_version, pip_install, twine_upload, uv_install
from tests.raw import HTML, JSON, PIP, Answer, Connection, Uploader, api, ask, frozen, login, make_index, make_mirror
from tests.upstream import Upstream, upstream
from tests.workspace import Workspace

pytestmark = pytest.mark.docker
ROUNDS = 1000
FORMS = (PIP, HTML)


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    workspace.inv("up", "--env", "dev", timeout=600)
    make_index(workspace, "derived", "pypi/stable")
    return workspace


@pytest.fixture(scope="module")
def source(stack: Workspace) -> Iterator[Upstream]:
    with upstream(stack) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A project that no other test knows of."""
    return f"probe-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def index(stack: Workspace) -> str:
    """An index of the test's own, with no bases."""
    return make_index(stack, f"own{uuid.uuid4().hex[:8]}")


def names(stack: Workspace, index: str, project: str) -> set[str]:
    """The files on a project's page, which must be the same in both forms; none where there is no page."""
    pages = [ask(stack, f"/{index}/+simple/{project}/", form) for form in FORMS]
    assert len({page.status for page in pages}) == 1
    found = [page.names if page.status == 200 else set() for page in pages]
    assert found[0] == found[1]
    return found[0]


def projects(listing: Answer) -> set[str]:
    """The names on a list of projects."""
    if "json" in listing.headers["Content-Type"]:
        return {project["name"] for project in json.loads(listing.body)["projects"]}
    return set(re.findall(">([^<]+)</a>", listing.text))


def delete(stack: Workspace, path: str) -> None:
    answer = ask(stack, f"{path}?force", login(stack, "pypi"), "DELETE")
    assert answer.status in (200, 201), answer.body


def kept(stack: Workspace, *paths: str) -> bool:
    """Whether the proxy has these pages, in both forms, without asking anybody."""
    with frozen(stack):
        try:
            return all(ask(stack, path, form, timeout=3).status == 200 for path in paths for form in FORMS)
        except TimeoutError:
            return False


class Racers:
    """Four readers who ask for the same pages all the time."""

    def __init__(self, stack: Workspace, pages: list[str]) -> None:
        self.stack, self.pages = stack, pages
        self.stop, self.reads = threading.Event(), itertools.count()

    def read(self, offset: int) -> None:
        with Connection(self.stack) as connection:
            for turn in itertools.count(offset * 7):
                if self.stop.wait(0.01):
                    return
                assert connection.ask(self.pages[turn % len(self.pages)], FORMS[turn % 2]).status in (200, 404)
                next(self.reads)

    @contextlib.contextmanager
    def racing(self) -> Iterator[None]:
        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(self.read, offset) for offset in range(4)]
            try:
                yield
            finally:
                self.stop.set()
            for reader in readers:
                reader.result()


def untrue(connections: tuple[Connection, Connection], project: str, wanted: set[str]) -> Iterator[tuple[str, str]]:
    """The pages that show anything but the wanted files."""
    for index, (connection, form) in itertools.product(("stable", "derived"), zip(connections, FORMS, strict=True)):
        page = connection.ask(f"/pypi/{index}/+simple/{project}/", form)
        if (page.names if page.status == 200 else set()) != wanted:
            yield index, form["Accept"]
    for connection, form in zip(connections, reversed(FORMS), strict=True):
        if wanted and project not in projects(connection.ask("/pypi/derived/+simple/", form)):
            yield "the list", form["Accept"]


def test_a_thousand_writes_are_each_seen_by_the_next_read_of_every_page(stack: Workspace) -> None:
    """Of each seven writes one is a deletion. The readers race for the same pages, on connections of either worker."""
    upload, stale = Uploader(stack), []
    there: dict[str, list[str]] = {f"round{number}": [] for number in range(50)}
    pages = [*(f"{project}/" for project in there), ""]
    racers = Racers(stack, [f"/pypi/{index}/+simple/{page}" for index in ("stable", "derived") for page in pages])
    with racers.racing(), Connection(stack) as one, Connection(stack) as two:
        for number in range(ROUNDS):
            project = f"round{number % 50}"
            if number % 7 == 6 and there[project]:
                delete(stack, f"/pypi/stable/{project}/{there[project].pop(0)}")
            else:
                there[project].append(f"1.{number}")
                upload(project, f"1.{number}")
            wanted = {Uploader.wheel(project, version)[0] for version in there[project]}
            stale += [(number, *page) for page in untrue((one, two), project, wanted)]
    assert not stale, (len(stale), stale[:5])
    assert next(racers.reads) > ROUNDS


def test_an_upload_is_what_pip_and_uv_install_next_and_a_deletion_what_they_no_longer_find(
    stack: Workspace, tmp_path: Path
) -> None:
    for client, install in (("pip", pip_install), ("uv", uv_install)):
        for _ in range(2):
            version = new_version()
            twine_upload(stack, build_wheel(tmp_path, version))
            install(stack, tmp_path / f"{client}-{version}", f"pypi-tasks-smoke=={version}", index=f"{stack.url}/pypi/derived")
            assert version in (tmp_path / f"{client}-{version}" / "pypi_tasks_smoke.py").read_text()
        delete(stack, f"/pypi/stable/pypi-tasks-smoke/{version}")
        with pytest.raises(AssertionError, match="exited"):
            install(stack, tmp_path / f"{client}-gone", f"pypi-tasks-smoke=={version}", index=f"{stack.url}/pypi/derived")


def test_a_page_that_was_not_there_is_there_once_something_is_uploaded(stack: Workspace, index: str, name: str) -> None:
    for version in ("1.0", "2.0"):
        assert names(stack, index, name) == set() and name not in ask(stack, f"/{index}/+simple/", HTML).text
        file, _ = Uploader(stack, index)(name, version)
        assert names(stack, index, name) == {file} and name in ask(stack, f"/{index}/+simple/", HTML).text
        delete(stack, f"/{index}/{name}")


def test_a_file_that_was_deleted_is_gone_with_its_metadata(stack: Workspace, index: str, name: str) -> None:
    file, digest = Uploader(stack, index)(name, "1.0")
    path = f"/{index}/+f/{digest[:3]}/{digest[3:16]}/{file}"
    assert names(stack, index, name) == {file}
    assert [ask(stack, one).status for one in (path, f"{path}.metadata")] == [200, 200]
    delete(stack, path)
    assert names(stack, index, name) == set()
    assert not {ask(stack, one).status for one in (path, f"{path}.metadata")} & {200, 304}


def test_a_file_that_is_replaced_has_its_new_digest_on_the_page(stack: Workspace, index: str, name: str) -> None:
    upload = Uploader(stack, index)
    for content in (b"first", b"second", b"first"):
        _, digest = upload(name, "1.0", content, f"{name}-1.0.tar.gz", filetype="sdist", pyversion="source")
        page = ask(stack, f"/{index}/+simple/{name}/", JSON)
        assert [file["hashes"] for file in page.files] == [{"sha256": digest}]
        assert ask(stack, f"/{index}/+f/{digest[:3]}/{digest[3:16]}/{name}-1.0.tar.gz").body == content


def test_a_push_is_seen_in_the_index_it_went_to_and_in_those_that_inherit(stack: Workspace, index: str, name: str) -> None:
    (file, _), (older, _) = Uploader(stack)(name, "1.0"), Uploader(stack, index)(name, "0.1")
    child = make_index(stack, f"child{uuid.uuid4().hex[:8]}", index)
    assert names(stack, index, name) == names(stack, child, name) == {older}
    wish = {"name": name, "version": "1.0", "targetindex": index}
    headers = {**login(stack, "pypi"), "Content-Type": "application/json", "Accept": "application/json"}
    answer = ask(stack, "/pypi/stable", headers, "POST", json.dumps(wish))
    assert answer.status == 200, answer.body
    assert names(stack, index, name) == names(stack, child, name) == {file, older}


def test_new_indexes_changed_bases_and_removed_indexes_are_seen_at_once(stack: Workspace, index: str, name: str) -> None:
    file, _ = Uploader(stack, index)(name, "1.0")
    child = f"pypi/child{uuid.uuid4().hex[:8]}"
    assert names(stack, child, name) == set()
    for bases in ([index], [], [index]):
        if not bases or names(stack, child, name) == set():
            api(stack, "PUT" if ask(stack, f"/{child}", JSON).status == 404 else "PATCH", f"/{child}", {"bases": bases})
        assert names(stack, child, name) == ({file} if bases else set())
        assert (name in ask(stack, f"/{child}/+simple/", PIP).text) == bool(bases)
    grandchild = make_index(stack, f"grandchild{uuid.uuid4().hex[:8]}", child)
    assert names(stack, grandchild, name) == {file}
    later, _ = Uploader(stack, index)(name, "2.0")
    assert names(stack, grandchild, name) == names(stack, child, name) == {file, later}
    api(stack, "DELETE", f"/{child}", expect=201)
    assert [ask(stack, f"/{child}/+simple/{name}/", form).status for form in FORMS] == [404, 404]


def test_the_mirror_whitelist_decides_at_once_whether_upstreams_files_are_shown(
    stack: Workspace, source: Upstream, name: str
) -> None:
    theirs = source.add(name, "9.0")
    mirror = make_mirror(stack, f"mirror{uuid.uuid4().hex[:8]}", source.url)
    index = make_index(stack, f"own{uuid.uuid4().hex[:8]}", mirror)
    child = make_index(stack, f"child{uuid.uuid4().hex[:8]}", index, mirror_whitelist=["*"])
    assert names(stack, index, name) == {theirs}
    ours, _ = Uploader(stack, index)(name, "1.0")
    assert names(stack, index, name) == {ours} and names(stack, child, name) == {ours, theirs}
    for whitelist, found in (([name], {ours, theirs}), ([], {ours}), (["*"], {ours, theirs})):
        api(stack, "PATCH", f"/{index}", {"mirror_whitelist": whitelist})
        assert names(stack, index, name) == found
        api(stack, "PATCH", f"/{child}", {"mirror_whitelist": whitelist})
        assert names(stack, child, name) == found


def test_an_upload_leaves_the_pages_of_a_mirror_and_of_other_projects_where_they_are(
    stack: Workspace, source: Upstream, name: str
) -> None:
    source.add(name, "1.0")
    mirror = make_mirror(stack, f"mirror{uuid.uuid4().hex[:8]}", source.url)
    Uploader(stack)(f"{name}-other", "1.0")
    pages = [f"/{mirror}/+simple/{name}/", f"/pypi/stable/+simple/{name}-other/", f"/pypi/derived/+simple/{name}-other/"]
    assert all(ask(stack, page, form).status == 200 for page in pages for form in FORMS)
    asked = source.asked.copy()
    Uploader(stack)(f"{name}-new", "1.0")
    assert kept(stack, *pages) and source.asked == asked
    assert not kept(stack, f"/pypi/stable/+simple/{name}-new/")  # or this would prove nothing


def test_a_name_in_any_spelling_leads_to_the_same_fresh_page(stack: Workspace, index: str) -> None:
    plain = f"un-norm-{uuid.uuid4().hex[:8]}"
    spellings = [plain, plain.replace("-", "_"), plain.title(), plain.upper().replace("-", "."), plain.replace("-", "--")]
    for number, spelling in enumerate(spellings):
        Uploader(stack, index)(spelling.replace("--", "_"), f"1.{number}")
        for one in spellings:
            for form in FORMS:
                page = ask(stack, f"/{index}/+simple/{one}/", form)
                if page.status in (301, 302):
                    page = ask(stack, page.headers["Location"].removeprefix(stack.url), form)
                assert page.status == 200 and len(page.names) == number + 1, (spelling, one, form, page.status, page.names)
