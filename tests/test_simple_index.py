"""Both forms of a simple index are read alike."""

import json
import ssl
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from pypi_tasks import simple_index
from pypi_tasks.certificate import self_signed
from pypi_tasks.simple_index import Link

URL = "https://host/root/simple/"


def answer(url: str, text: str, type: str = "text/html") -> requests.Response:
    """What `requests` would make of a page."""
    made = requests.Response()
    made.url, made.status_code, made._content = url, 200, text.encode()
    made.headers["Content-Type"] = type
    return made


def test_projects_of_both_forms() -> None:
    html = answer(URL, '<!DOCTYPE html><a href="some-project/">Some.Project</a><br><a href="/root/simple/b/">b</a>')
    made = answer(URL, json.dumps({"projects": [{"name": "Some.Project"}, {"name": "b"}]}), simple_index.JSON)
    expected = {"some-project": f"{URL}some-project/", "b": f"{URL}b/"}
    assert simple_index.projects(html) == simple_index.projects(made) == expected


def test_files_of_both_forms() -> None:
    name, digest = "b-1.0+local-py3-none-any.whl", "ab" * 32
    html = answer(f"{URL}b/", f'<a data-yanked="" href="../../files/b-1.0%2Blocal-py3-none-any.whl#sha256={digest}">{name}</a>')
    file = {"filename": name, "url": "../../files/b-1.0%2Blocal-py3-none-any.whl", "hashes": {"sha256": digest}, "yanked": "bad"}
    made = answer(f"{URL}b/", json.dumps({"files": [file]}), simple_index.JSON)
    expected = [Link(name, "https://host/root/files/b-1.0%2Blocal-py3-none-any.whl", {"sha256": digest}, True)]
    assert simple_index.links(html) == simple_index.links(made) == expected


def test_a_base_is_followed_and_a_digest_may_be_missing() -> None:
    html = answer(f"{URL}b/", '<base href="https://files/x/"><a href="b-1.0.tar.gz">b-1.0.tar.gz</a><a name="no link">x</a>')
    assert simple_index.links(html) == [Link("b-1.0.tar.gz", "https://files/x/b-1.0.tar.gz")]


def test_links_that_lead_elsewhere_are_neither_projects_nor_files() -> None:
    html = '<a href="../">Parent</a><a href="/about">About us</a><a href="#top"></a><a href="six/">six/</a>'
    assert simple_index.projects(answer(URL, html)) == {"six": f"{URL}six/"}
    assert simple_index.links(answer(URL, '<a href="../">..</a><a href="a-1.0.tar.gz">a-1.0.tar.gz</a>')) == [
        Link("a-1.0.tar.gz", f"{URL}a-1.0.tar.gz")
    ]


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ("{}", simple_index.JSON),
        ("no json", simple_index.JSON),
        ('{"projects": [1], "files": [1]}', simple_index.JSON),
        ('<a href="http://[::1/six/">six</a>', "text/html"),
    ],
)
def test_what_is_no_page_is_told(text: str, type: str) -> None:
    for read in (simple_index.projects, simple_index.links):
        with pytest.raises(simple_index.Gone, match="is no page of a simple index"):
            read(answer(URL, text, type))


def test_a_certificate_that_is_not_trusted_is_told_with_what_helps(tmp_path: Path) -> None:
    for name, text in zip(("certificate", "key"), self_signed(["localhost"]), strict=True):
        (tmp_path / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"https://localhost:{server.server_port}/simple/"
        with requests.Session() as session, pytest.raises(simple_index.Gone, match="its certificate is not trusted") as caught:
            session.trust_env = False
            simple_index.page(session, url, url)
        server.shutdown()
    assert "self-signed" in str(caught.value) and "CA_BUNDLE" in caught.value.fix


def test_whose_file_it_is_can_be_seen_by_its_address() -> None:
    assert Link("a", "http://host/pypi/stable/+f/1/a").is_below("/pypi/stable/")
    assert not Link("a", "http://host/root/pypi/+f/1/a").is_below("/pypi/stable/")
