"""Both forms of a simple index are read alike."""

import json

import requests

from pypi_tasks import simple_index
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


def test_whose_file_it_is_can_be_seen_by_its_address() -> None:
    assert Link("a", "http://host/pypi/stable/+f/1/a").is_below("/pypi/stable/")
    assert not Link("a", "http://host/root/pypi/+f/1/a").is_below("/pypi/stable/")
