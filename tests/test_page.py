"""Which requests are answered from disk, under which name, and in which form: devpi's own libraries decide, so they are asked."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks import native
from pypi_tasks.settings import ROOT
from pypi_tasks.world import World
from tests.helpers import settings_of

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
PIP = f"{JSON}, {HTML}; q=0.1, text/html; q=0.01"
UV = f"{JSON}, {HTML};q=0.2, text/html;q=0.01"

# Reads a request a line, writes its page a line; pyramid and devpi are in the server's environment alone.
SCRIPT = """
import json, sys
from page import page_of
from pyramid.request import Request

for line in sys.stdin:
    path, method, headers = json.loads(line)
    page = page_of(Request.blank(path, method=method, headers=headers))
    print(json.dumps(page and [page.index, page.subject, page.form, page.name, page.path]), flush=True)
"""


@dataclass(frozen=True)
class Kept:
    """A page that is kept."""

    index: str
    subject: str
    form: str
    name: str
    path: str


Ask = Callable[..., "Kept | None"]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """What becomes of a request, by the real libraries."""
    server = native.Server(World(), settings_of(tmp_path_factory.mktemp("page")))
    server.install()
    argv = [str(server.python), "-B", "-c", SCRIPT]
    with subprocess.Popen(argv, cwd=ROOT / "pypi_server", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        requests, answers = process.stdin, process.stdout

        def page_of(path: str, method: str = "GET", **headers: str) -> Kept | None:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            requests.write(json.dumps([path, method, named]) + "\n")
            requests.flush()
            found: Any = json.loads(answers.readline())
            return Kept(*found) if found else None

        yield page_of
        requests.close()


def nginx_form(accept: str) -> str:
    """What the proxy makes of an Accept header by itself: html, json, or devpi, which is then asked."""
    text = (ROOT / "pypi_proxy" / "nginx.conf").read_text(encoding="utf-8")
    found = re.search(r"map \$http_accept \$form \{\n(.*?)\n    \}", text, re.DOTALL)
    assert found
    rules = dict(line.strip().rstrip(";").rsplit(" ", 1) for line in found[1].splitlines())
    plain = {rule.strip('"'): form for rule, form in rules.items() if not rule.strip('"').startswith("~")}
    patterns = {rule.strip('"')[1:]: form for rule, form in rules.items() if rule.strip('"').startswith("~")}
    assert plain and patterns
    for rule, form in plain.items():
        if rule == accept and rule != "default":
            return form
    return next((form for pattern, form in patterns.items() if re.search(pattern, accept)), plain["default"])


ACCEPT = [
    (PIP, "json"),
    (UV, "json"),
    ("*/*", "html"),
    ("text/html", "html"),
    (HTML, "html"),
    (JSON, "json"),
    ("application/vnd.pypi.simple.latest+json", "json"),
    ("application/vnd.pypi.simple.latest+html", "html"),
    (f"{JSON}, text/html", "html"),  # both as good as each other: the first that there is
    (f"text/html, {JSON}", "html"),
    (f"{JSON};q=0.9, text/html;q=0.8", "json"),
    (f"{JSON};q=0.1, text/html;q=0.8", "html"),
    (f"{HTML};q=0.1, {JSON};q=0.2", "json"),
    (f"{JSON};q=0, text/html", "html"),
    ("text/html;q=0, */*", "html"),  # PEP 691's own name for it is still welcome
    (f"{JSON}, */*;q=0.1", "json"),
    (f"{JSON}, */*", "html"),
    (f"{JSON};q=0.5, */*;q=0.1", "json"),
    (f"*/*;q=0.1, {JSON}", "json"),
    ("text/*", "html"),
    ("application/*", "html"),
    ("application/*;q=0.5, text/html;q=0.1", "html"),
    (f"{JSON.upper()}, text/html;q=0.5", "json"),
    ("application/json", "html"),  # not one of the names: html is what a server may answer then
    ("image/png", "html"),
    ("application/vnd.pypi.simple.v2+json", "html"),
    (f"application/vnd.pypi.simple.v2+json, {JSON};q=0.5", "json"),
    ("nonsense", "html"),
]


class TestForm:
    @pytest.mark.parametrize(("accept", "form"), ACCEPT)
    def test_is_what_the_client_likes_best(self, ask: Ask, accept: str, form: str) -> None:
        page = ask("/pypi/stable/+simple/six/", Accept=accept)
        assert page is not None and page.form == form

    def test_is_html_where_the_client_does_not_say(self, ask: Ask) -> None:
        page = ask("/pypi/stable/+simple/six/")
        assert page is not None and page.form == "html"

    @pytest.mark.parametrize("client", [PIP, UV])
    def test_is_what_the_installed_clients_ask_for(self, client: str) -> None:
        """The headers above are the real ones."""
        import pip._internal.index.collector as collector

        uv = (Path(sys.executable).parent / "uv").read_bytes()
        source = Path(collector.__file__).read_text(encoding="utf-8")
        assert {PIP: all(f'"{one}"' in source for one in PIP.split(", ")), UV: UV.encode() in uv}[client]

    @pytest.mark.parametrize(("accept", "form"), [*ACCEPT, ("", "html")])
    def test_is_the_same_wherever_the_proxy_decides_it(self, accept: str, form: str) -> None:
        assert nginx_form(accept) in (form, "devpi")

    @pytest.mark.parametrize("accept", [PIP, UV, "*/*", "", "text/html", JSON])
    def test_of_the_usual_clients_is_decided_by_the_proxy(self, accept: str) -> None:
        assert nginx_form(accept) != "devpi"


class TestPage:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_of_a_project_is_a_file_of_its_index(self, ask: Ask, method: str) -> None:
        page = ask("/pypi/stable/+simple/six/", method, Accept=PIP)
        assert page == Kept("pypi/stable", "six", "json", "pypi/stable/+simple/six.json", "/pypi/stable/+simple/six/")

    def test_of_all_projects_is_beside_their_folder(self, ask: Ask) -> None:
        assert ask("/root/pypi/+simple/") == Kept("root/pypi", "", "html", "root/pypi/+simple.html", "/root/pypi/+simple/")

    @pytest.mark.parametrize("accept", [PIP, "*/*", "application/json"])
    def test_of_metadata_has_one_form(self, ask: Ask, accept: str) -> None:
        file = "+f/0a1/b2c3d4e5f6a7b/six-1.0-py3-none-any.whl"
        assert ask(f"/pypi/stable/{file}.metadata", Accept=accept) == Kept(
            "pypi/stable", file, "metadata", f"+metadata/pypi/stable/{file}.metadata", f"/pypi/stable/{file}.metadata"
        )

    @pytest.mark.parametrize("project", ["six", "a-b", "a1-2b", "0"])
    def test_of_a_normalised_name_is_kept(self, ask: Ask, project: str) -> None:
        page = ask(f"/pypi/stable/+simple/{project}/")
        assert page is not None and page.subject == project

    @pytest.mark.parametrize(
        "path",
        [
            "/pypi/stable/+simple/Six/", "/pypi/stable/+simple/a.b/", "/pypi/stable/+simple/a_b/", "/pypi/stable/+simple/a--b/",
            "/pypi/stable/+simple/../", "/pypi/stable/+simple/./", "/pypi/stable/+simple/a%2Fb/", "/pypi/stable/+simple/a+b/",
            "/pypi/stable/+simple/six", "/pypi/stable/+simple", "/pypi/stable/+simple/six/1.0/", "/pypi/stable/+simple//",
        ],
    )  # fmt: skip
    def test_of_any_other_spelling_is_devpis_to_answer(self, ask: Ask, path: str) -> None:
        assert ask(path) is None

    @pytest.mark.parametrize(
        "path",
        [
            "/", "/+api", "/pypi", "/pypi/stable", "/pypi/stable/", "/pypi/stable/six", "/pypi/stable/six/1.0", "/+login",
            "/pypi/stable/+f/0a1/b2c3/six-1.0.whl", "/pypi/stable/six/1.0/+doc/index.html", "/+search", "/+status",
            "/pypi/stable/+f/six-1.0.whl.metadata", "/+simple/six/", "/pypi/+simple/six/", "/pypi/stable/more/+simple/six/",
        ],
    )  # fmt: skip
    def test_of_anything_else_is_none(self, ask: Ask, path: str) -> None:
        assert ask(path) is None

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
    def test_of_a_write_is_none(self, ask: Ask, method: str) -> None:
        assert ask("/pypi/stable/+simple/six/", method) is None

    def test_for_a_browser_has_buttons_and_is_not_kept(self, ask: Ask) -> None:
        browser = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
        assert ask("/pypi/stable/+simple/six/", User_Agent=browser) is None
        assert ask("/pypi/stable/+simple/six/", User_Agent="pip/25.0 {}") is not None

    @pytest.mark.parametrize("query", ["?", "?x=y"])
    def test_is_the_same_whatever_the_query(self, ask: Ask, query: str) -> None:
        assert ask(f"/pypi/stable/+simple/six/{query}") == ask("/pypi/stable/+simple/six/")

    @pytest.mark.parametrize(
        "path",
        [
            "/../stable/+simple/six/", "/pypi/../+simple/six/", "/./stable/+simple/",
            "/../stable/+f/a/b/c.metadata", "/pypi/../+f/a/b/c.metadata", "/pypi/stable/+f/../../c.metadata",
            "/pypi/stable/+f/a/../c.metadata", "/%2e%2e/stable/+simple/six/", "/pypi/stable/+f/%2E%2E/%2E%2E/c.metadata",
        ],
    )  # fmt: skip
    def test_never_has_a_name_that_leads_elsewhere(self, ask: Ask, path: str) -> None:
        assert ask(path) is None
