"""provision.py against a real server: what is wanted comes about, what is there stays, a second run changes nothing."""

import json
import os
import threading
from collections.abc import Iterator

import provision
import pytest
from provision import Body, Login, Refusal, Server

from pypi_tasks import native
from pypi_tasks.deployment import await_health
from pypi_tasks.errors import Failed
from pypi_tasks.secret import settle
from pypi_tasks.settings import Settings
from pypi_tasks.world import World
from tests.helpers import settings_of
from tests.upstream import Upstream
from tests.workspace import free_port

WISH: Body = {
    "user": "pypi",
    "index": "stable",
    "options": {"bases": ["root/pypi"], "volatile": False, "mirror_whitelist": []},
    "enforce": [],
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The settings of a native server that was started and not provisioned."""
    bundle = f"CA_BUNDLE={os.environ.get('REQUESTS_CA_BUNDLE', '')}\n"
    made = settings_of(tmp_path_factory.mktemp("provision"), bundle, DEVPI_PORT=str(free_port()))
    server = native.Server(World(), made)
    settle(World(), made, None)
    server.start()
    await_health(World(), server, 60)
    yield made
    server.stop()


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("DEVPISERVER_PORT", str(settings.devpi_port))
    return Server()


@pytest.fixture
def passwords(settings: Settings) -> list[str]:
    return [(settings.secrets_home / name).read_text().strip() for name in ("root_password", "user_password")]


def run(settings: Settings, wish: Body) -> list[str]:
    """Run the script as `inv up` does; the changes that it tells."""
    return native.Server(World(), settings).provision(json.dumps(wish)).splitlines()


def test_a_new_server_gets_mirror_user_and_index_and_then_nothing_more(settings: Settings, server: Server) -> None:
    assert run(settings, WISH) == [
        "made index root/pypi, a mirror of PyPI",
        "made user pypi",
        "made index pypi/stable",
    ]
    assert run(settings, WISH) == []
    index = server.read("/pypi/stable")
    assert index is not None
    assert (index["bases"], index["volatile"], index["mirror_whitelist"]) == (["root/pypi"], False, [])


def test_what_somebody_set_on_the_mirror_stays(settings: Settings, server: Server, passwords: list[str]) -> None:
    root = Login("root", passwords[0])
    server.change("PATCH", "/root/pypi", {"mirror_provides_core_metadata": False, "mirror_cache_expiry": 60}, root)
    assert run(settings, WISH) == []
    mirror = server.read("/root/pypi")
    assert mirror is not None and mirror["mirror_provides_core_metadata"] is False and mirror["mirror_cache_expiry"] == 60


def test_a_mirror_is_not_asked_for_all_its_projects(settings: Settings, server: Server, passwords: list[str]) -> None:
    root, upstream = Login("root", passwords[0]), Upstream("127.0.0.1")
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    before = server.read("/root/pypi")
    assert before is not None
    try:
        server.change("PATCH", "/root/pypi", {"mirror_url": f"{upstream.url}/simple/", "mirror_no_project_list": False}, root)
        assert run(settings, WISH) == []
        assert upstream.asked["/simple/"] == 0
    finally:
        server.change("PATCH", "/root/pypi", before, root)
        upstream.shutdown()
        upstream.server_close()


def test_only_what_is_enforced_changes_an_index_that_is_there(settings: Settings, server: Server) -> None:
    other: Body = {**WISH, "options": {**WISH["options"], "volatile": True, "mirror_whitelist": ["six"]}}
    assert run(settings, other) == []
    assert run(settings, {**other, "enforce": ["volatile"]}) == ["index pypi/stable: volatile False -> True"]
    index = server.read("/pypi/stable")
    assert index is not None and index["volatile"] is True and index["mirror_whitelist"] == []


def test_an_empty_password_is_filled_and_a_wrong_one_refused(server: Server, passwords: list[str]) -> None:
    root = Login("root", passwords[0])
    server.change("PUT", "/guest", {"password": ""}, root)
    guest = Login("guest", "hunter2")
    assert provision.ensure_password(server, guest, "PYPI_PASSWORD") == [
        "user guest had an empty password; it has the stored one now"
    ]
    assert server.accepts(guest) and not server.accepts(Login("guest", ""))
    with pytest.raises(Refusal, match=r"PYPI_PASSWORD=\.\.\. inv up"):
        provision.ensure_password(server, Login("guest", "wrong"), "PYPI_PASSWORD")
    assert server.accepts(guest)


def test_a_base_that_is_not_there_leaves_the_index_as_it_is(settings: Settings, server: Server) -> None:
    wish: Body = {**WISH, "options": {**WISH["options"], "bases": ["root/nope"]}, "enforce": ["bases"]}
    with pytest.raises(Failed, match="DEVPI_BASES names root/nope, which is not on the server"):
        run(settings, wish)
    index = server.read("/pypi/stable")
    assert index is not None and index["bases"] == ["root/pypi"]


def test_what_the_server_refuses_is_told_in_its_words(server: Server) -> None:
    with pytest.raises(Refusal, match=r"PUT /mallory answered 40[13]"):
        server.change("PUT", "/mallory", {"password": "x"}, Login("root", "wrong"))
    assert server.read("/mallory") is None
