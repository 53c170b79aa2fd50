"""A mirror's pages: upstream is asked in the background, once at a time, and nobody waits for it twice."""

import functools
import hashlib
import itertools
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pypi_tasks.world import poll
from tests.raw import HTML, PIP, Uploader, ask, container, docker, make_index, make_mirror
from tests.upstream import Upstream, upstream
from tests.workspace import Workspace

pytestmark = pytest.mark.docker
FORMS = (PIP, HTML)
SOON = 4.0  # seconds; devpi itself gives upstream five


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    workspace.inv("up", "--env", "dev", timeout=600)
    return workspace


@pytest.fixture(scope="module")
def source(stack: Workspace) -> Iterator[Upstream]:
    with upstream(stack) as running:
        yield running


@pytest.fixture
def name(source: Upstream) -> str:
    """A project that no other test knows of, with one release upstream."""
    made = f"probe-{uuid.uuid4().hex[:8]}"
    source.add(made, "1.0")
    return made


@pytest.fixture
def mirror(stack: Workspace, source: Upstream) -> str:
    """A mirror whose pages are to be looked up again after a second."""
    return make_mirror(stack, f"mirror{uuid.uuid4().hex[:8]}", source.url, mirror_cache_expiry=1)


@pytest.fixture
def derived(stack: Workspace, mirror: str) -> str:
    return make_index(stack, f"derived{uuid.uuid4().hex[:8]}", mirror, mirror_whitelist=["*"])


def count(stack: Workspace, index: str, name: str, form: dict[str, str]) -> int:
    """How many files a page has; it must come soon."""
    started = time.monotonic()
    page = ask(stack, f"/{index}/+simple/{name}/", form)
    assert page.status == 200 and time.monotonic() - started < SOON, (index, form, page.status, time.monotonic() - started)
    return len(page.names)


def test_readers_of_a_page_that_nobody_has_seen_cause_one_request_at_a_time(
    stack: Workspace, source: Upstream, name: str
) -> None:
    mirror = make_mirror(stack, f"mirror{uuid.uuid4().hex[:8]}", source.url)
    path = f"/simple/{name}/"
    source.wait.clear()
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(ask, stack, f"/{mirror}/+simple/{name}/", form) for form in FORMS * 20]
        assert poll(lambda: source.asked[path] > 0, 20)
        source.wait.set()
        assert {answer.result().status for answer in waiting} == {200}
    assert source.most[path] == 1 and source.asked[path] <= len(FORMS)


def has(stack: Workspace, index: str, name: str, form: dict[str, str], files: int) -> bool:
    return count(stack, index, name, form) == files


def test_a_page_is_refreshed_in_the_background(stack: Workspace, source: Upstream, name: str, mirror: str, derived: str) -> None:
    for files in (2, 3):
        source.add(name, f"{files}.0")
        for index, form in itertools.product((mirror, derived), FORMS):
            assert poll(functools.partial(has, stack, index, name, form, files), 30)
    assert source.most[f"/simple/{name}/"] == 1


def test_nobody_waits_for_a_slow_upstream_once_a_page_was_seen(
    stack: Workspace, source: Upstream, name: str, mirror: str, derived: str
) -> None:
    """Nor where an upload, a change of an index or a restart made devpi render it anew."""
    pages = [(index, form) for index in (mirror, derived) for form in FORMS]
    assert [count(stack, index, name, form) for index, form in pages] == [1] * 4
    source.add(name, "2.0")
    assert poll(lambda: count(stack, derived, name, PIP) == 2, 30)  # the three other pages are untrue now
    expired = time.monotonic() + 1.5
    assert poll(lambda: time.monotonic() > expired, 5)
    source.wait.clear()
    try:
        assert [count(stack, index, name, form) for index, form in pages] == [2] * 4
        Uploader(stack, derived)(name, "3.0")
        assert [count(stack, derived, name, form) for form in FORMS] == [3, 3]
        make_index(stack, f"another{uuid.uuid4().hex[:8]}")
        assert [count(stack, index, name, form) for index, form in pages] == [2, 2, 3, 3]
        assert source.most[f"/simple/{name}/"] == 1, "upstream is asked once at a time; what is killed next has asked"
        docker("restart", container(stack, "devpi"))
        assert poll(lambda: ask(stack, "/+api").status == 200, 60)
        Uploader(stack, derived)(name, "4.0")
        assert [count(stack, derived, name, form) for form in FORMS] == [4, 4]
    finally:
        source.wait.set()


def test_a_broken_upstream_takes_no_page_away_that_was_seen(
    stack: Workspace, source: Upstream, name: str, mirror: str, derived: str
) -> None:
    pages = [(index, form) for index in (mirror, derived) for form in FORMS]
    assert [count(stack, index, name, form) for index, form in pages] == [1] * 4
    path = f"/simple/{name}/"

    def still_there_when_upstream_was_asked(more_than: int) -> bool:
        assert [count(stack, index, name, form) for index, form in pages] == [1] * 4
        return source.asked[path] > more_than

    for source.status in (500, 404, 403):
        assert poll(functools.partial(still_there_when_upstream_was_asked, source.asked[path]), 90)
    source.status = 200


def test_a_file_that_is_not_mirrored_yet_is_fetched_once_and_then_comes_from_disk(
    stack: Workspace, source: Upstream, name: str
) -> None:
    mirror = make_mirror(stack, f"mirror{uuid.uuid4().hex[:8]}", source.url)  # its pages are good for long
    path = path_of(stack, mirror, name)
    upstreams = f"/files/{source.projects[name][0]['filename']}"
    assert source.asked[upstreams] == 0
    for _ in range(3):
        assert ask(stack, path).body == source.contents[upstreams]
    assert source.asked[upstreams] == 1


def path_of(stack: Workspace, mirror: str, name: str) -> str:
    """The address of the first file on a page."""
    link = ask(stack, f"/{mirror}/+simple/{name}/", PIP).files[0]
    return f"/{mirror}/{link['url'].removeprefix('../../')}"


def test_many_who_want_a_file_that_is_not_mirrored_yet_all_get_it_from_one_request(
    stack: Workspace, source: Upstream, mirror: str
) -> None:
    with ThreadPoolExecutor(12) as pool:
        for number in range(20):
            project = f"wanted-{uuid.uuid4().hex[:8]}"
            upstreams = f"/files/{source.add(project, f'1.{number}')}"
            answers = pool.map(ask, [stack] * 12, [path_of(stack, mirror, project)] * 12)
            assert {(answer.status, answer.body) for answer in answers} == {(200, source.contents[upstreams])}
            assert source.asked[upstreams] == 1


def test_who_reads_a_file_slowly_keeps_nobody_from_it(stack: Workspace, source: Upstream, name: str, mirror: str) -> None:
    """Not even while devpi fetches it."""
    file = source.projects[name][0]
    content = bytes(range(256)) * 200_000  # more than all that is buffered on the way
    source.contents[f"/files/{file['filename']}"] = content
    file["hashes"] = {"sha256": hashlib.sha256(content).hexdigest()}
    path = path_of(stack, mirror, name)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", int(stack.port)))
        slow.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert slow.recv(12) == b"HTTP/1.1 200"
        assert ask(stack, path, timeout=30).body == content
