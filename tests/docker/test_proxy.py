"""What the proxy lets in and gives out: nothing of the inside, nobody's invention, no more than is allowed; files and pages
from disk."""

import contextlib
import email
import gzip
import io
import os
import re
import shutil
import subprocess
import uuid
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks.world import poll
from tests.conftest import inspect
from tests.raw import (
    HTML,
    JSON,
    PIP,
    Answer,
    Connection,
    Uploader,
    ask,
    container,
    docker,
    frozen,
    login,
    make_index,
    sent,
    sockets,
)
from tests.workspace import Workspace

pytestmark = pytest.mark.docker
MB = 1024**2
FORMS = (PIP, HTML)


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    workspace.configure(UPLOAD_LIMIT="400m", CACHE_SIZE="16m")
    workspace.inv("up", "--env", "dev", timeout=600)
    make_index(workspace, "derived", "pypi/stable")
    return workspace


@pytest.fixture(scope="module")
def file(stack: Workspace) -> str:
    """The path of an uploaded file that is on the page of project ``there``."""
    name, digest = Uploader(stack)("there", "1.0")
    return f"/pypi/stable/+f/{digest[:3]}/{digest[3:16]}/{name}"


def shown(answer: Answer) -> str:
    return f"{answer.headers}\n{answer.body.decode('latin-1')}"


@pytest.mark.parametrize(
    "path", ["/", "/+api", "/pypi/stable", "/pypi/stable/+simple", "/pypi/stable/+simple/there", "/pypi/nope"]
)
def test_what_a_request_says_of_its_host_is_in_no_answer(stack: Workspace, file: str, path: str) -> None:
    lies = {"X-Outside-Url": "http://evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "evil.example",
            "Forwarded": "host=evil.example", "X-Devpi-Absolute-Urls": "1", "X-Script-Name": "/evil.example"}  # fmt: skip
    for accept in ("text/html", "application/json"):
        for host in (stack.url.removeprefix("http://"), "evil.example"):
            answer = ask(stack, path, {"Host": host, "Accept": accept, **lies})
            assert answer.status < 500 and "evil.example" not in shown(answer)
            assert "Location" not in answer.headers or answer.headers["Location"].startswith(stack.url)


def test_a_page_that_is_kept_has_nothing_of_the_request_that_made_it(stack: Workspace) -> None:
    project = f"probe-{uuid.uuid4().hex[:8]}"
    Uploader(stack)(project, "1.0")
    lies = {"Host": "evil.example", "X-Outside-Url": "http://evil.example", "X-Devpi-Absolute-Urls": "1"}
    for form in FORMS:
        assert "evil" not in shown(ask(stack, f"/pypi/stable/+simple/{project}/", form | lies))
        page = ask(stack, f"/pypi/stable/+simple/{project}/", form)
        assert "evil" not in shown(page) and "../../+f/" in page.text


@pytest.mark.parametrize(
    "path",
    ["/+changelog/0", "/+changelog/0-", "//+changelog/0", "/%2Bchangelog/0", "/%2bchangelog/0-", "/./+changelog/0",
     "/x/../+changelog/0", "/x/%2e%2e/+changelog/0-", "/x%2f..%2f+changelog/0", "/+changelog%2f0", "/+changelog/0?x=1",
     "/pypi/../+changelog/0", "/+changelog/0/../../+api/../+changelog/0", "/+status", "//+status", "/%2Bstatus", "/+status/",
     "/+status?x", "/x/../+status"],
)  # fmt: skip
def test_the_change_log_and_the_status_are_not_for_the_outside(stack: Workspace, path: str) -> None:
    for headers in ({}, login(stack), JSON, {"X-Page-Store": "1"}, {"Accept": "application/json"}):
        for method in ("GET", "HEAD", "POST", "PUT"):
            answer = ask(stack, path, headers, method)
            assert answer.status in (400, 401, 403, 404, 405), (headers, method, answer.status)
            assert b"pwhash" not in answer.body and b"event-serial" not in answer.body


@pytest.mark.parametrize(
    "path",
    ["/../server/.sqlite", "/pypi/stable/+f/../../../../../server/.sqlite", "/pypi/stable/+f/%2e%2e/%2e%2e/.sqlite",
     "/pypi/stable/+simple/..%2f..%2f..%2f..%2fetc%2fpasswd", "/pypi/stable/+simple/../../../../etc/passwd",
     "/pypi/stable/+simple/%2e%2e/", "/pypi/stable/+simple/%2E%2E%2F/", "/pypi/stable/+simple/a%2Fb/",
     "/+state", "/+work/", "/+metadata/pypi/stable/", "/+store/pypi/stable/+simple.html", "/+store/%2e%2e/server/.sqlite",
     "/+hold/api", "/pypi/stable/+simple.html", "/pypi/stable/+simple/there.json", "/pypi/stable/+simple/there.html.gz",
     "/pypi/stable/+simple/caf%C3%A9/", "/pypi/stable/+simple/%F0%9F%90%8D/", "/pypi/stable/+simple/%00/", "/%00", "/%ff%fe",
     "/pypi/stable/+simple/%ff/", "/pypi/stable/+f/%ff/a/b.whl", "/pypi/stable/+f/abc/def/no%20such.whl.metadata",
     "/pypi/stable/there/1.0/+doc/../../../../../server/.sqlite", "/pypi/stable/there/1.0/+doc/%2e%2e/%2e%2e/x", "/%",
     "/pypi/stable/+f/abc/%2e%2e/%2e%2e", "/pypi/stable/+simple/" + "a" * 6000 + "/", "/pypi/stable/+f/a/b/" + "a" * 300],
)  # fmt: skip
def test_odd_addresses_are_refused_and_lead_nowhere(stack: Workspace, file: str, path: str) -> None:
    for accept in ("text/html", JSON["Accept"], "*/*"):
        answer = sent(stack, f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n".encode())
        assert re.match(rb"HTTP/1.1 (30[1278]|40[03456]|410|414) ", answer), answer[:300]
        assert not re.search(rb"SQLite format|root:x:|there-1.0-py3|\"serial\"", answer.partition(b"\r\n\r\n")[2])


def test_an_escaped_slash_or_letter_is_the_same_address(stack: Workspace, file: str) -> None:
    page = ask(stack, "/pypi/stable/+simple/there/", JSON)
    for path in ("/pypi%2Fstable/+simple/there/", "/pypi/stable/%2Bsimple/%74here/", "//pypi//stable/+simple/there/"):
        answer = ask(stack, path, JSON)
        assert answer.status == 404 or answer.names == page.names


def test_every_answer_has_the_security_headers(stack: Workspace, file: str) -> None:
    answers = [ask(stack, path) for path in ("/", "/+api", file, f"{file}.metadata", "/+status", "/pypi/none", "/+store/x")]
    answers += [ask(stack, f"/pypi/stable/+simple/{page}", form) for page in ("", "there/", "not-there/") for form in FORMS]
    answers += [ask(stack, "/pypi/stable/", {}, "POST", b"x"), ask(stack, "/+login", {}, "POST", b"x")]
    answers += [
        ask(stack, "/pypi/stable/", {"Content-Length": str(500 * MB)}, "POST"),
        ask(stack, "/", {"X-Large": "x" * 60_000}),
    ]
    assert {answer.status for answer in answers} >= {200, 400, 403, 404, 413}
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff", (answer.status, answer.headers.items())
        assert answer.headers["X-Frame-Options"] and answer.headers["Referrer-Policy"]
        assert answer.headers["Server"] == "nginx"


ECHO = """
import contextlib, http.server, os, socketserver

class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(self.headers).encode())

    def address_string(self):
        return "proxy"

path = os.environ["DEVPISERVER_UNIX_SOCKET"]
with contextlib.suppress(FileNotFoundError):
    os.unlink(path)
with socketserver.UnixStreamServer(path, Echo) as server:
    os.chmod(path, 0o666)
    server.serve_forever()
"""


@contextlib.contextmanager
def echo(stack: Workspace) -> Iterator[None]:
    """In devpi's place a server that answers with the headers that it got."""
    devpi: Any = inspect(container(stack, "devpi"))
    docker("stop", container(stack, "devpi"))
    volume = f"{stack.project}-dev_socket:/run/pypi"
    variable = "DEVPISERVER_UNIX_SOCKET=/run/pypi/devpi.sock"
    label = f"pypi-tasks.project={stack.project}"
    user = devpi["Config"]["User"]
    options = ["--detach", "--name", f"{stack.project}-echo", "--label", label, "--volume", volume, "--env", variable]
    try:
        docker("run", *options, "--user", user, "--no-healthcheck", "--entrypoint", "python", devpi["Image"], "-c", ECHO)
        yield
    finally:
        docker("rm", "--force", f"{stack.project}-echo")
        docker("start", container(stack, "devpi"))
        ask(stack, "/+api", timeout=120)


def test_the_server_is_told_the_true_address_of_a_client_and_nothing_that_the_client_claims(stack: Workspace) -> None:
    claimed = ["X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto", "X-Outside-Url", "X-Devpi-Absolute-Urls"]
    port: Any = inspect(container(stack, "port"))
    gateway = next(iter(port["NetworkSettings"]["Networks"].values()))["Gateway"]
    with echo(stack):
        for path in ("/", "/+api", "/pypi/stable", f"/pypi/stable/+simple/unknown-{uuid.uuid4().hex[:8]}/", "/a/b/+f/c/d/e"):
            assert poll(lambda: ask(stack, path).status == 200, 30)  # noqa: B023
            got = email.message_from_string(ask(stack, path, dict.fromkeys(claimed, "10.9.8.7")).text)
            assert got["Host"] and "10.9.8.7" not in str(got), (path, str(got))
            assert got.get_all("X-Real-IP") == [gateway], (path, str(got))


def test_guessing_passwords_is_slowed_down_whatever_address_is_claimed_and_nobody_else_notices(stack: Workspace) -> None:
    guess = b'{"user": "pypi", "password": "guess"}'
    seen: Counter[int] = Counter()
    for number, path in zip(range(40), ["/+login", "//+login", "/%2Blogin", "/x/../+login"] * 10, strict=True):
        claims = {"X-Real-IP": f"10.0.0.{number}", "X-Forwarded-For": f"10.0.0.{number}", "Content-Type": "application/json"}
        seen[ask(stack, path, claims, "POST", guess).status] += 1
    assert seen[429] >= 15 and seen[200] == 0, seen
    assert ask(stack, "/+api").status == 200 and ask(stack, "/pypi/stable/+simple/", PIP).status == 200
    Uploader(stack)("unhindered", "1.0")


def test_large_headers_are_refused_and_the_next_request_is_served(stack: Workspace, file: str) -> None:
    for line in (f"X-Large: {'x' * 65536}", "X-Many: y\r\n" * 5000 + "X: y"):
        answer = sent(stack, f"GET {file} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode())
        assert re.match(rb"HTTP/1.1 4(00|14|31) ", answer), answer[:100]
    assert ask(stack, file).status == 200


def test_hundreds_of_idle_and_of_slow_clients_keep_nobody_waiting(stack: Workspace, file: str) -> None:
    """More of each than devpi has threads: ones that say nothing, ones that never end their header or their body."""
    head = f"POST /pypi/stable/ HTTP/1.1\r\nHost: x\r\nContent-Length: {MB}\r\nContent-Type: text/plain\r\n\r\n".encode()
    with sockets(stack, 500), sockets(stack, 100) as headers, sockets(stack, 100) as bodies:
        for connection in headers:
            connection.sendall(b"GET /pypi/stable HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        for connection in bodies:
            connection.sendall(head + b"x" * 1000)
        for number in range(5):
            for connection in (*headers, *bodies):
                connection.sendall(b"x")
            Uploader(stack)("meanwhile", f"1.{number}")
            assert ask(stack, "/pypi/stable/meanwhile", {"Accept": "application/json"}, timeout=20).status == 200
            assert ask(stack, file, timeout=5).status == 200


def test_a_large_upload_goes_through_disk_and_one_that_is_too_large_is_refused_at_once(stack: Workspace) -> None:
    """Larger than the proxy's memory may be, in total."""
    pid = inspect(container(stack, "devpi"))["State"]["Pid"]
    large = os.urandom(MB) * 300
    assert len(large) > int(inspect(container(stack, "proxy"))["HostConfig"]["Memory"])
    before = peak(pid)
    file, digest = Uploader(stack)("large", "1.0", large, "large-1.0.tar.gz", filetype="sdist", pyversion="source")
    assert peak(pid) - before < 100 * 1024
    assert ask(stack, f"/pypi/stable/+f/{digest[:3]}/{digest[3:16]}/{file}").body == large
    assert not inspect(container(stack, "proxy"))["State"]["OOMKilled"]
    refused = sent(stack, f"POST /pypi/stable/ HTTP/1.1\r\nHost: x\r\nContent-Length: {401 * MB}\r\n\r\n".encode())
    assert refused.startswith(b"HTTP/1.1 413 ")


def peak(pid: int) -> int:
    """The most memory that the server has had, in KiB: of the child of the container's first process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    status = Path(f"/proc/{children[0]}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_files_come_from_disk_whole_in_part_or_not_at_all(stack: Workspace, file: str) -> None:
    with frozen(stack):
        whole = ask(stack, file, timeout=5)
        assert whole.status == 200 and whole.headers["ETag"] and "immutable" in whole.headers["Cache-Control"]
        part = ask(stack, file, {"Range": "bytes=10-19"}, timeout=5)
        assert (part.status, part.body) == (206, whole.body[10:20])
        assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole.body)}"
        assert ask(stack, file, {"Range": "bytes=-5"}, timeout=5).body == whole.body[-5:]
        assert ask(stack, file, {"Range": f"bytes={len(whole.body)}-"}, timeout=5).status == 416
        for condition in ({"If-None-Match": whole.headers["ETag"]}, {"If-Modified-Since": whole.headers["Last-Modified"]}):
            again = ask(stack, file, condition, timeout=5)
            assert (again.status, again.body) == (304, b"")
    assert ask(stack, file, {"Accept": "application/json"}).body.startswith(b"{")  # devpi tells about it


def test_metadata_files_are_kept(stack: Workspace, file: str) -> None:
    first = ask(stack, f"{file}.metadata")
    with frozen(stack):
        again = ask(stack, f"{file}.metadata", timeout=5)
    assert first.status == again.status == 200 and first.body == again.body and b"Version: 1.0" in again.body


def test_pages_are_compressed_once_and_revalidated(stack: Workspace) -> None:
    for number in range(30):
        Uploader(stack)("many", f"1.{number}")
    for form in FORMS:
        plain = ask(stack, "/pypi/stable/+simple/many/", form)
        with frozen(stack), Connection(stack, 5) as connection:
            packed = [connection.ask("/pypi/stable/+simple/many/", form | {"Accept-Encoding": "gzip"}) for _ in range(2)]
            assert packed[0].headers["Content-Encoding"] == "gzip" and gzip.decompress(packed[0].body) == plain.body
            assert packed[0].body == packed[1].body and packed[0].headers["Connection"] == "keep-alive"
            assert packed[0].headers["ETag"] == packed[1].headers["ETag"] and packed[0].headers["Cache-Control"] == "no-cache"
            assert "Content-Length" in packed[0].headers and "Transfer-Encoding" not in packed[0].headers
            for encoding, tag in (("gzip", packed[0].headers["ETag"]), ("identity", plain.headers["ETag"])):
                ask_again = form | {"Accept-Encoding": encoding, "If-None-Match": tag}
                assert connection.ask("/pypi/stable/+simple/many/", ask_again).status == 304
    before = ask(stack, "/pypi/stable/+simple/many/", PIP).headers["ETag"]
    Uploader(stack)("many", "2.0")
    after = ask(stack, "/pypi/stable/+simple/many/", PIP | {"If-None-Match": before})
    assert after.status == 200 and after.headers["ETag"] != before


def test_documentation_comes_from_disk_until_it_is_replaced(stack: Workspace) -> None:
    Uploader(stack, make_index(stack, "docs"))("documented", "1.0")
    path = "/pypi/docs/documented/1.0/+doc/index.html"
    for text in ("<p>first</p>", "<p>second</p>"):
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as made:
            made.writestr("index.html", text)
        form = {":action": "doc_upload"}
        Uploader(stack, "pypi/docs")("documented", "1.0", archive.getvalue(), "documented.doc.zip", **form)
        assert ask(stack, path).text == text
        with frozen(stack):
            kept = ask(stack, path, timeout=5)
            assert kept.text == text and kept.headers.get_content_type() == "text/html"
            assert ask(stack, path, {"Range": "bytes=0-2"}, timeout=5).status == 206
            assert ask(stack, path, {"If-None-Match": kept.headers["ETag"]}, timeout=5).status == 304


def test_the_cache_is_bounded_by_the_setting(stack: Workspace) -> None:
    """Metadata files of 2 MB, of which not even eight fit in."""
    contents: dict[str, bytes] = {}
    for number in range(12):
        name, content = Uploader.wheel("bulky", f"1.{number}")
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.namelist():
                extra = f"\n{number % 10}" * MB if entry.endswith("/METADATA") else ""
                new.writestr(entry, old.read(entry).decode() + extra)
                contents[name] = old.read(entry) + extra.encode() if extra else contents.get(name, b"")
        _, digest = Uploader(stack)("bulky", f"1.{number}", buffer.getvalue())
        path = f"/pypi/stable/+f/{digest[:3]}/{digest[3:16]}/{name}.metadata"
        for _ in range(2):
            assert ask(stack, path).body == contents[name]
        sizes = [one.stat().st_size for one in (stack.home / "public").rglob("*") if one.is_file() and not one.is_symlink()]
        assert 0 < sum(sizes) <= 16 * MB
    assert sum(sizes) > 4 * MB


def test_a_cache_that_is_removed_while_it_is_in_use_is_made_anew(stack: Workspace, file: str) -> None:
    pages = [f"/pypi/{index}/+simple/there/" for index in ("stable", "derived")]
    before = [ask(stack, page, form).body for page in pages for form in FORMS]
    (stack.home / "public").rename(stack.home / "public.gone")  # at once, whatever is written meanwhile
    shutil.rmtree(stack.home / "public.gone")
    assert [ask(stack, page, form).body for page in pages for form in FORMS] == before
    assert ask(stack, file).status == ask(stack, f"{file}.metadata").status == 200
    new, _ = Uploader(stack)("there", "2.0")
    with frozen(stack):
        assert ask(stack, file, timeout=5).status == 200
    for page in pages:
        assert all(new in ask(stack, page, form).names for form in FORMS)
        with frozen(stack):
            assert all(new in ask(stack, page, form, timeout=5).names for form in FORMS)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system")
def test_a_cache_without_room_costs_speed_alone(stack: Workspace) -> None:
    """A file system of 64 KiB in its place, full but for what it holds already."""
    stack.inv("down", "--env", "dev")
    folder = stack.home / "public"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0777", "tmpfs", str(folder)], check=True)
    try:
        stack.inv("up", "--env", "dev")
        for number in range(20):
            name = f"crowded{number % 3}"
            file, digest = Uploader(stack)(name, f"1.{number}")
            for path in (f"/pypi/{index}/+simple/{name}/" for index in ("stable", "derived")):
                assert all(file in ask(stack, path, form).names for form in FORMS)
            path = f"/pypi/stable/+f/{digest[:3]}/{digest[3:16]}/{file}"
            assert [ask(stack, one).status for one in (path, f"{path}.metadata")] == [200, 200]
            make_index(stack, f"crowd{number}", "pypi/stable")
            with contextlib.suppress(OSError):
                (folder / "+rest").write_bytes(b"x" * 65536)
        stack.inv("down", "--env", "dev")
        stack.inv("up", "--env", "dev")
        assert poll(lambda: ask(stack, "/pypi/stable/+simple/crowded0/", PIP).status == 200, 30)
    finally:
        stack.inv("down", "--env", "dev")
        subprocess.run(["umount", str(folder)], check=True)
