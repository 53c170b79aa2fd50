"""The simple API case by case: PEP 503, 592, 629, 658, 691, 714, of a page that devpi renders and of the one that is kept."""

import hashlib
import io
import json
import sys
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from tests.packages import pip_install, uv_install
from tests.raw import HTML, JSON, PIP, Answer, Parsed, Uploader, ask, make_index, make_mirror, sent
from tests.upstream import Upstream, upstream
from tests.workspace import Workspace

pytestmark = pytest.mark.docker
PAGE = "/pypi/stable/+simple/spec-probe/"
LIST = "/pypi/stable/+simple/"
V1_JSON, V1_HTML = "application/vnd.pypi.simple.v1+json", "application/vnd.pypi.simple.v1+html"
LATEST_JSON, LATEST_HTML = "application/vnd.pypi.simple.latest+json", "application/vnd.pypi.simple.latest+html"
HTML_TYPES = {"text/html", V1_HTML}
UV = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    """A wheel that says which Pythons it is for, and a source distribution."""
    workspace.inv("up", "--env", "dev", timeout=600)
    upload = Uploader(workspace)
    upload("Spec_Probe", "1.0", with_metadata("Spec_Probe", "1.0", "<4,>=3.6"), requires_python="<4,>=3.6")
    upload("spec-probe", "1.1", b"a source distribution", "spec_probe-1.1.tar.gz", filetype="sdist", pyversion="source")
    return workspace


@pytest.fixture(scope="module")
def source(stack: Workspace) -> Iterator[Upstream]:
    with upstream(stack) as running:
        yield running


@pytest.fixture(scope="module")
def yanked(stack: Workspace, source: Upstream) -> tuple[str, str]:
    """An index over a mirror of an index with yanked releases, and the project; devpi yanks nothing of its own."""
    project = f"yanked-{uuid.uuid4().hex[:8]}"
    source.add(project, "1.0", yanked=False)
    source.add(project, "2.0", yanked='breaks "x" <badly>')
    source.add(project, "3.0", yanked=True)
    source.add(project, "4.0", **{"requires-python": ">=99"})
    mirror = make_mirror(stack, "yankmirror", source.url)
    return make_index(stack, "yank", mirror), project


def with_metadata(name: str, version: str, requires_python: str) -> bytes:
    """A wheel whose metadata says so too."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(Uploader.wheel(name, version)[1])) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            extra = f"Requires-Python: {requires_python}\n" if entry.endswith("/METADATA") else ""
            new.writestr(entry, old.read(entry).decode() + extra)
    return buffer.getvalue()


def type_of(answer: Answer) -> str:
    return str(answer.headers.get_content_type())


def parsed(stack: Workspace, path: str, headers: dict[str, str] = HTML) -> Parsed:
    answer = ask(stack, path, headers)
    assert answer.status == 200 and type_of(answer) in HTML_TYPES, (answer.status, answer.headers.items())
    return Parsed(answer.text)


class TestPep503:
    """Pages of links."""

    @pytest.mark.parametrize("agent", ["pip/25.0", "uv/0.9", "Mozilla/5.0", "curl/8"])
    def test_the_list_is_an_html5_page_with_a_link_to_each_project(self, stack: Workspace, agent: str) -> None:
        page = parsed(stack, LIST, HTML | {"User-Agent": agent})
        assert page.type.lower() == "doctype html"
        anchor = next(one for one in page.anchors if one.text == "spec-probe")
        assert urljoin(LIST, anchor.attributes["href"]) == PAGE

    @pytest.mark.parametrize("agent", ["pip/25.0", "uv/0.9", "Mozilla/5.0", "curl/8"])
    def test_a_project_has_a_link_to_each_file_with_its_name_and_digest(self, stack: Workspace, agent: str) -> None:
        page = parsed(stack, PAGE, HTML | {"User-Agent": agent})
        assert page.type.lower() == "doctype html"
        assert sorted(anchor.text for anchor in page.anchors) == ["Spec_Probe-1.0-py3-none-any.whl", "spec_probe-1.1.tar.gz"]
        for anchor in page.anchors:
            url = urlsplit(urljoin(stack.url + PAGE, anchor.attributes["href"]))
            assert url.path.rsplit("/", 1)[1] == anchor.text
            kind, digest = url.fragment.split("=")
            assert kind == "sha256" and hashlib.sha256(ask(stack, url.path).body).hexdigest() == digest

    def test_requires_python_is_escaped(self, stack: Workspace) -> None:
        assert 'data-requires-python="&lt;4,&gt;=3.6"' in ask(stack, PAGE, HTML).text
        wheel, source = sorted(parsed(stack, PAGE).anchors, key=lambda anchor: anchor.text)
        assert wheel.attributes["data-requires-python"] == "<4,>=3.6" and not source.attributes.get("data-requires-python")

    @pytest.mark.parametrize("path", [LIST, PAGE])
    def test_an_address_without_its_slash_leads_to_the_one_with_it(self, stack: Workspace, path: str) -> None:
        answer = ask(stack, path.rstrip("/"), HTML)
        assert answer.status in (301, 302, 308) and answer.headers["Location"] == stack.url + path
        for headers in (PIP, JSON):  # pip and uv may be given the page itself
            assert ask(stack, path.rstrip("/"), headers).status in (200, 301, 302, 308)

    @pytest.mark.parametrize("name", ["Spec-Probe", "spec_probe", "SPEC.PROBE", "spec--probe", "spec-_.probe"])
    def test_a_name_that_is_not_normalised_leads_to_the_page(self, stack: Workspace, name: str) -> None:
        for headers in (HTML, JSON):
            answer = ask(stack, f"{LIST}{name}/", headers)
            if answer.status in (301, 302, 308):
                assert answer.headers["Location"] == stack.url + PAGE
            else:
                assert answer.status == 200 and answer.names == ask(stack, PAGE, headers).names

    def test_the_listed_name_is_the_normalised_one(self, stack: Workspace) -> None:
        hrefs = [anchor.attributes["href"] for anchor in parsed(stack, LIST).anchors]
        assert "spec-probe/" in hrefs and not [href for href in hrefs if "Spec" in str(href)]

    @pytest.mark.parametrize("headers", [HTML, JSON, PIP])
    def test_a_project_that_is_not_there_is_not_found(self, stack: Workspace, headers: dict[str, str]) -> None:
        assert ask(stack, f"{LIST}no-such-project-{uuid.uuid4().hex}/", headers).status == 404
        assert ask(stack, f"/pypi/no-such-index/+simple/{uuid.uuid4().hex}/", headers).status == 404


class TestPep592:
    """Yanked releases, of a mirror: devpi has no way to yank one of its own."""

    def test_a_page_says_what_was_yanked_and_why(self, stack: Workspace, yanked: tuple[str, str]) -> None:
        index, project = yanked
        path = f"/{index}/+simple/{project}/"
        for _ in range(2):  # rendered, then kept
            found = [anchor.attributes.get("data-yanked", "not") for anchor in parsed(stack, path).anchors]
            assert sorted(found, key=str) == sorted(["not", 'breaks "x" <badly>', "", "not"])

    def test_json_says_so_too(self, stack: Workspace, yanked: tuple[str, str]) -> None:
        index, project = yanked
        files = ask(stack, f"/{index}/+simple/{project}/", JSON).files
        assert [file.get("yanked", False) for file in files] == [False, 'breaks "x" <badly>', True, False]

    def test_pip_and_uv_take_a_yanked_release_only_where_it_is_pinned(
        self, stack: Workspace, yanked: tuple[str, str], tmp_path: Path
    ) -> None:
        index, project = yanked
        for client, install in (("pip", pip_install), ("uv", uv_install)):
            for wish, version in ((project, "1.0"), (f"{project}==2.0", "2.0")):
                target = tmp_path / f"{client}-{version}"
                install(stack, target, wish, index=f"{stack.url}/{index}")
                assert [path.name.split("-")[-2:] for path in target.glob("*.dist-info")] == [[f"{version}.dist", "info"]]


class TestPep629:
    """The version of the interface."""

    def test_an_html_page_says_version_1_or_nothing_which_means_the_same(self, stack: Workspace) -> None:
        for path in (LIST, PAGE):
            assert (parsed(stack, path).meta.get("pypi:repository-version") or "1.0").split(".")[0] == "1"

    def test_pip_does_not_warn_of_it(self, stack: Workspace, tmp_path: Path) -> None:
        argv = [sys.executable, "-m", "pip", "download", "--no-cache-dir", "--no-deps", "--dest", str(tmp_path)]
        shown = stack.run(*argv, "--index-url", f"{stack.index}/+simple/", "--only-binary", ":all:", "spec-probe==1.0")
        assert "WARNING" not in shown.stdout + shown.stderr and "API version" not in shown.stderr


class TestPep658And714:
    """Metadata files."""

    def test_a_wheel_has_both_attributes_and_a_source_distribution_neither(self, stack: Workspace) -> None:
        wheel, source = sorted(parsed(stack, PAGE).anchors, key=lambda anchor: anchor.text)
        assert wheel.attributes["data-core-metadata"] == wheel.attributes["data-dist-info-metadata"] == "true"
        assert not {"data-core-metadata", "data-dist-info-metadata"} & set(source.attributes)

    def test_json_has_the_new_key_alone(self, stack: Workspace) -> None:
        files = {file["filename"]: file for file in ask(stack, PAGE, JSON).files}
        assert files["Spec_Probe-1.0-py3-none-any.whl"]["core-metadata"] is True
        assert not files["spec_probe-1.1.tar.gz"].get("core-metadata")
        assert not [file for file in files.values() if file.get("dist-info-metadata")]

    def test_the_metadata_file_is_the_wheels_own_to_the_byte(self, stack: Workspace) -> None:
        for _ in range(2):  # rendered, then kept
            for file in ask(stack, PAGE, JSON).files:
                url = urljoin(PAGE, file["url"])
                answer = ask(stack, f"{url}.metadata")
                if not file["filename"].endswith(".whl"):
                    assert answer.status == 404
                    continue
                with zipfile.ZipFile(io.BytesIO(ask(stack, url).body)) as wheel:
                    member = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
                    assert answer.status == 200 and answer.body == wheel.read(member)


class TestPep691:
    """JSON, and who gets which form."""

    def test_the_list(self, stack: Workspace) -> None:
        answer = ask(stack, LIST, JSON)
        page = json.loads(answer.body)
        assert type_of(answer) == V1_JSON and page["meta"]["api-version"].split(".")[0] == "1"
        assert {"name": "spec-probe"} in [{"name": project["name"]} for project in page["projects"]]

    def test_a_project(self, stack: Workspace) -> None:
        answer = ask(stack, PAGE, JSON)
        page = json.loads(answer.body)
        assert type_of(answer) == V1_JSON and page["meta"]["api-version"].split(".")[0] == "1" and page["name"] == "spec-probe"
        for file in page["files"]:
            content = ask(stack, urljoin(PAGE, file["url"])).body
            assert file["hashes"] == {"sha256": hashlib.sha256(content).hexdigest()} and "#" not in file["url"]
            assert isinstance(file.get("requires-python", ""), str) and isinstance(file.get("yanked", False), bool | str)
        assert {file["filename"]: file.get("requires-python") or None for file in page["files"]} == {
            "Spec_Probe-1.0-py3-none-any.whl": "<4,>=3.6", "spec_probe-1.1.tar.gz": None,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("accept", "form"),
        [
            (PIP["Accept"], "json"),
            (UV, "json"),
            (V1_JSON, "json"),
            (LATEST_JSON, "json"),
            (f"{V1_JSON};q=0.5, {V1_HTML};q=0.9", "html"),
            (f"text/html, {V1_JSON}; q=0.9", "html"),
            (f"{V1_HTML}; q=0.2, {V1_JSON}", "json"),
            (f"{V1_JSON}; q=0, text/html", "html"),
            (f"{V1_JSON}, text/html; q=0", "json"),
            (f"application/vnd.pypi.simple.v2+json, {V1_JSON}; q=0.5", "json"),
            (V1_HTML, "html"),
            (LATEST_HTML, "html"),
            ("text/html", "html"),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
            ("*/*", "html"),
            ("", "html"),
            (None, "html"),
            ("application/vnd.pypi.simple.v2+json", "none"),
            ("image/png", "none"),
            ("not a media type", "none"),
        ],
    )
    @pytest.mark.parametrize("path", [LIST, PAGE])
    def test_each_client_gets_the_form_that_it_likes_best(
        self, stack: Workspace, path: str, accept: str | None, form: str
    ) -> None:
        """Where there is none that it likes, 406 or HTML are both allowed; the other form is asked for in between."""
        for other in (JSON, HTML):
            assert ask(stack, path, other).status == 200
            answer = ask(stack, path, {"Accept": accept} if accept is not None else {})
            assert (answer.status, type_of(answer)) in {
                "json": [(200, V1_JSON)],
                "html": [(200, one) for one in HTML_TYPES],
                "none": [(406, type_of(answer)), (200, "text/html")],
            }[form]
            assert "Accept" in ", ".join(answer.headers.get_all("Vary") or [])
            if answer.status == 200:
                assert answer.body.startswith(b"{" if form == "json" else b"<!DOCTYPE")

    @pytest.mark.parametrize("headers", [HTML, JSON])
    @pytest.mark.parametrize("path", [LIST, PAGE])
    def test_head_is_get_without_its_body(self, stack: Workspace, path: str, headers: dict[str, str]) -> None:
        get, head = ask(stack, path, headers), ask(stack, path, headers, "HEAD")
        assert (head.status, head.body) == (200, b"")
        for name in ("Content-Type", "Content-Length", "ETag"):
            assert head.headers[name] == get.headers[name]

    def test_http_1_0_and_a_lowercase_header_are_understood(self, stack: Workspace) -> None:
        shown = sent(stack, f"GET {PAGE} HTTP/1.0\r\naccept: {V1_JSON}\r\n\r\n".encode())
        assert b" 200 " in shown.splitlines()[0] and b'"name":"spec-probe"' in shown
