"""devpi and the proxy stopped, restarted and upgraded under load: what is kept is served on, all else waits, nothing fails.
Killed they are in test_chaos.py."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from pypi_tasks.world import answers, poll
from tests.conftest import inspect
from tests.load import Load
from tests.raw import HTML, JSON, PIP, Uploader, api, ask, container, docker, login, make_index, make_mirror
from tests.upstream import upstream
from tests.workspace import Workspace

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    workspace.inv("up", "--env", "dev", timeout=600)
    make_index(workspace, "derived", "pypi/stable")
    return workspace


@contextlib.contextmanager
def away(stack: Workspace) -> Iterator[None]:
    """devpi stopped, and there again afterwards."""
    docker("stop", container(stack, "devpi"))
    try:
        yield
    finally:
        docker("start", container(stack, "devpi"))
        ask(stack, "/+api", timeout=120)


def state(stack: Workspace) -> dict[str, Any]:
    return inspect(container(stack, "devpi"))


def test_a_restart_and_an_upgrade_under_load_fail_no_request(stack: Workspace, tmp_path: Path) -> None:
    proxy = inspect(container(stack, "proxy"))["Id"]
    with Load(stack, tmp_path).running() as load:
        assert load.goes_on(("devpi", "upload"))
        docker("restart", container(stack, "devpi"))
        assert load.goes_on(("devpi", "upload"))
        before = state(stack)["Id"]
        entrypoint = stack.root / "pypi_server" / "entrypoint.py"
        entrypoint.write_text(entrypoint.read_text() + "# changed\n")
        stack.inv("up", "--env", "dev")
        assert state(stack)["Id"] != before
        assert load.goes_on(("devpi", "upload"))
    assert inspect(container(stack, "proxy"))["Id"] == proxy
    load.assert_all_is_well()


def is_answered(stack: Workspace) -> bool:
    """Whether devpi answers just now."""
    try:
        return ask(stack, "/+api", timeout=1).status == 200
    except OSError:
        return False


def test_what_was_asked_before_devpi_is_stopped_is_answered_to_its_end_and_what_comes_later_waits(stack: Workspace) -> None:
    with upstream(stack) as source, contextlib.ExitStack() as later, ThreadPoolExecutor(2) as pool:
        mirror = make_mirror(stack, "slow", source.url)
        file = source.add("slowly", "1.0")
        page = f"/{mirror}/+simple/slowly/"
        [link] = ask(stack, page, JSON).files
        source.wait.clear()
        fetched = pool.submit(ask, stack, urljoin(page, link["url"]).partition("#")[0])
        assert poll(lambda: source.asked[f"/files/{file}"] == 1, 30)
        stopping = pool.submit(docker, "stop", container(stack, "devpi"))
        later.callback(docker, "start", container(stack, "devpi"))
        assert poll(lambda: not is_answered(stack), 4)
        assert not fetched.done() and not stopping.done()
        source.wait.set()
        assert fetched.result().body == source.contents[f"/files/{file}"]
        stopping.result()
        assert source.asked[f"/files/{file}"] == 1 and state(stack)["State"]["ExitCode"] == 143
    assert ask(stack, "/+api", timeout=120).status == 200


PIECES = """
import json, os, threading, urllib.request, waitress
from graceful import Channel, use
use()
class Recorded(Channel):
    def send(self, data, do_close=True):
        pieces.append(len(data))
        return super().send(data, do_close)
waitress.server.BaseWSGIServer.channel_class = Recorded
def answer(environ, start):
    start("200 OK", [("Content-Length", "4000")])
    yield b"x" * 1000
    yield b"y" * 3000
pieces = []
server = waitress.create_server(answer, listen="127.0.0.1:0")
threading.Thread(target=server.run, daemon=True).start()
found = urllib.request.urlopen(f"http://127.0.0.1:{server.effective_port}/", timeout=30).read()
print(json.dumps({"pieces": pieces, "whole": found == b"x" * 1000 + b"y" * 3000}), flush=True)
os._exit(0)
"""


def test_the_header_of_an_answer_never_leaves_alone(stack: Workspace) -> None:
    command = ["docker", "exec", "-i", "-w", "/opt/pypi_server", container(stack, "devpi"), "python", "-"]
    said = subprocess.run(command, input=PIECES, capture_output=True, text=True, check=True)
    found = json.loads(said.stdout)
    assert found["whole"] and found["pieces"][0] > 1000 and found["pieces"][1:] == [3000], found


HALF_WRITTEN = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that changed pages are on disk before the commit that never comes
connection.execute("BEGIN")
connection.execute("UPDATE kv SET serial = 0")
connection.execute("CREATE TABLE half_written AS SELECT * FROM changelog")
os._exit(9)
"""


def test_devpi_that_was_killed_in_the_middle_of_a_commit_starts_without_it(stack: Workspace) -> None:
    database = stack.home / "server" / ".sqlite"
    Uploader(stack)("before", "1.0")
    page = ask(stack, "/pypi/stable/+simple/before/", PIP).body
    with away(stack):
        subprocess.run([sys.executable, "-c", HALF_WRITTEN, str(database)], check=False)
        journal = database.with_name(".sqlite-journal")
        assert journal.stat().st_size > 512
        os.chown(journal, database.stat().st_uid, database.stat().st_gid)
    assert ask(stack, "/pypi/stable", {"Accept": "application/json"}).status == 200
    assert ask(stack, "/pypi/stable/+simple/before/", PIP).body == page
    assert not journal.exists()
    assert "all sound" in stack.inv("verify", "--live").stdout


def test_the_proxy_restarted_and_replaced_under_load_refuses_nobody(stack: Workspace, tmp_path: Path) -> None:
    """A connection that is kept open may be closed while nobody uses it: every client opens another."""
    port, proxy = (inspect(container(stack, name))["Id"] for name in ("port", "proxy"))
    kinds = ("pages", "files", "new connections", "devpi", "upload")
    with Load(stack, tmp_path, retries=True).running() as load:
        assert load.goes_on(kinds)
        docker("restart", container(stack, "proxy"))
        assert load.goes_on(kinds)
        config = stack.root / "pypi_proxy" / "nginx.conf"
        config.write_text(config.read_text() + "# changed\n")
        stack.inv("up", "--env", "dev")
        assert load.goes_on((*kinds, "pip", "uv"), more=1)
    assert inspect(container(stack, "port"))["Id"] == port and inspect(container(stack, "proxy"))["Id"] != proxy
    assert load.retried.total() <= 10 and not load.retried["new connections"], load.retried
    load.assert_all_is_well()


def test_a_port_that_is_lost_is_asked_for_anew(stack: Workspace) -> None:
    docker("restart", container(stack, "port"))
    assert poll(lambda: answers(f"{stack.url}/+api"), 60)
    assert poll(lambda: "healthy" in stack.inv("status").stdout.partition("dev ")[2].split()[0], 60)


def test_while_devpi_is_away_what_is_kept_is_served_at_once_and_all_else_waits_body_and_all(stack: Workspace) -> None:
    upload = Uploader(stack)
    file, digest = upload("kept", "1.0")
    path = f"/pypi/stable/+f/{digest[:3]}/{digest[3:16]}/{file}"
    kept = [("/pypi/stable/+simple/kept/", PIP), ("/pypi/derived/+simple/kept/", HTML), (path, {}), (f"{path}.metadata", {})]
    before = [ask(stack, *one).body for one in kept]
    large = os.urandom(3_000_000)  # more than nginx keeps in memory
    waiting: dict[str, Any] = {}
    wish = json.dumps(["title=held"])
    headers = {**login(stack), "Content-Type": "application/json", "Accept": "application/json"}
    calls: dict[str, Callable[[], Any]] = {
        "upload": lambda: upload("held", "1.0", large, "held-1.0.tar.gz", filetype="sdist", pyversion="source"),
        "change": lambda: ask(stack, "/pypi/stable", headers, "PATCH", wish).status,
        "read": lambda: ask(stack, "/pypi/stable", {"Accept": "application/json"}).status,
        "page": lambda: ask(stack, "/pypi/stable/+simple/held-not/", PIP).status,
    }
    threads = [threading.Thread(target=lambda name=name: waiting.update({name: calls[name]()})) for name in calls]
    with away(stack):
        for thread in threads:
            thread.start()
        started = time.monotonic()
        for _ in range(20):
            assert [ask(stack, *one, timeout=5).body for one in kept] == before
        assert time.monotonic() - started < 10
        assert not waiting
    for thread in threads:
        thread.join()
    assert waiting == {"upload": ("held-1.0.tar.gz", hashlib.sha256(large).hexdigest()), "change": 200, "read": 200, "page": 404}
    assert api(stack, "GET", "/pypi/stable")["title"] == "held"
    found = ask(stack, "/pypi/stable/+simple/held/", JSON).files[0]
    assert found["hashes"] == {"sha256": hashlib.sha256(large).hexdigest()}


def test_pages_that_were_kept_are_there_after_a_restart_without_a_look_upstream(stack: Workspace) -> None:
    """PyPI's page is of yesterday's upstream; a reader gets it at once, and devpi looks for a newer one meanwhile."""
    page = ask(stack, "/root/pypi/+simple/iniconfig/", PIP).body
    kept = stack.home / "public" / "root" / "pypi" / "+simple" / "iniconfig.json"
    docker("restart", container(stack, "devpi"), container(stack, "proxy"))
    assert kept.read_bytes() == page
    assert poll(lambda: answers(f"{stack.url}/+api"), 60)
    assert ask(stack, "/root/pypi/+simple/iniconfig/", PIP).body == page


def test_after_the_deadline_of_the_setting_a_request_is_told_when_to_come_again(stack: Workspace) -> None:
    stack.configure(HOLD_SECONDS="2")
    stack.inv("up", "--env", "dev")
    kept = ask(stack, "/pypi/stable/+simple/kept/", PIP)
    with away(stack):
        for method, body in (("GET", None), ("POST", b"x" * 100_000)):
            answer = ask(stack, "/pypi/stable/", {}, method, body, timeout=30)
            assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert ask(stack, "/pypi/stable/+simple/kept/", PIP).body == kept.body
    assert ask(stack, "/pypi/stable", {"Accept": "application/json"}).status == 200
