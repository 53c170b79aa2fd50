"""Upgrades and their way back, under the load of pip, uv and twine: nobody's request fails, and what is broken reaches nobody."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import inspect
from tests.load import Load
from tests.raw import JSON, Uploader, ask, container, make_index
from tests.workspace import Workspace

pytestmark = pytest.mark.docker
RECEIPT = re.compile(r"clients: [1-9]\d* waited, the longest [1-9][\d.]* s, 0 failed; one that asked .* 0 failed, longest wait")
KINDS = ("pages", "files", "new connections", "devpi", "upload", "pip", "uv", "twine")


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    workspace.inv("up", "--env", "dev", timeout=600)
    make_index(workspace, "derived", "pypi/stable")
    return workspace


@pytest.fixture
def restored(stack: Workspace) -> Iterator[Workspace]:
    """The sources as they were, after a test that changes them."""
    folders = ("pypi_server", "pypi_proxy")
    for folder in folders:
        shutil.copytree(stack.root / folder, stack.root.parent / folder)
    yield stack
    for folder in folders:
        shutil.rmtree(stack.root / folder)
        (stack.root.parent / folder).rename(stack.root / folder)


def change(stack: Workspace, file: str, code: str = "# changed\n", before: str = "") -> None:
    """Add something to a source file, at its end or before a line."""
    path = stack.root / file
    text = path.read_text()
    path.write_text(text.replace(before, code + before, 1) if before else text + code)


def running(stack: Workspace) -> dict[str, tuple[Any, Any]]:
    """Container and image of each service."""
    found = {service: inspect(container(stack, service)) for service in ("devpi", "port", "proxy")}
    return {service: (one["Id"], one["Image"]) for service, one in found.items()}


def images(stack: Workspace) -> list[Any]:
    return [image for service, (_, image) in running(stack).items() if service != "port"]


def test_an_upgrade_and_its_rollback_under_load_fail_no_request_and_keep_every_package(
    restored: Workspace, tmp_path: Path
) -> None:
    before = images(restored)
    port = running(restored)["port"]
    change(restored, "pypi_server/entrypoint.py")
    change(restored, "pypi_proxy/nginx.conf")
    with Load(restored, tmp_path / "load", retries=True, twine=True).running() as load:
        assert load.goes_on(KINDS, more=1)
        upgraded = restored.inv("upgrade", "--env", "dev", timeout=600)
        shown = upgraded.stdout + upgraded.stderr
        after = images(restored)
        assert all(old != new for old, new in zip(before, after, strict=True))
        assert RECEIPT.search(shown) and all(image[7:19] in shown for image in (*before, *after)), shown
        assert load.goes_on(KINDS, more=1)
        undone = restored.inv("rollback", "--env", "dev", timeout=600)
        shown = undone.stdout + undone.stderr
        assert images(restored) == before and RECEIPT.search(shown), shown
        assert load.goes_on(KINDS, more=1)
    assert running(restored)["port"] == port
    assert load.retried.total() <= 10 and not load.retried["new connections"], load.retried
    load.assert_all_is_well()
    assert "no upgrade of dev to undo" in restored.refused("rollback", "--env", "dev")


def test_images_that_do_not_start_reach_no_client(restored: Workspace) -> None:
    before = running(restored)
    change(restored, "pypi_server/serve.py", 'sys.exit("this one is broken")\n', before="from devpi_server.main")
    error = restored.refused("upgrade", "--env", "dev")
    assert "this one is broken" in error
    assert running(restored) == before
    assert ask(restored, "/+api").status == 200


BREAK_LATER = """
if os.environ.get("DEVPISERVER_OUTSIDE_URL", "").endswith(":{port}"):
{what}    sys.exit("this one breaks on the real data")
"""


@pytest.mark.parametrize("spoils", [False, True], ids=["the database as it was", "the database changed"])
def test_what_passes_the_drill_and_breaks_all_the_same_is_taken_back_by_itself(
    restored: Workspace, tmp_path: Path, spoils: bool
) -> None:
    """Also where the new server changes the format of the database first: then the snapshot comes back."""
    before = images(restored)
    _, digest = Uploader(restored)("precious", "1.0")
    what = '    open("/devpi/server/.serverversion", "w").write("5")\n' if spoils else ""
    change(restored, "pypi_server/serve.py", BREAK_LATER.format(port=restored.port, what=what), before="def main(")
    with Load(restored, tmp_path / "load", retries=True).running(installs=False) as load:
        assert load.goes_on(KINDS[:5], more=1)
        error = restored.refused("upgrade", "--env", "dev")
        assert "the upgrade failed, and what ran before runs again" in error
        assert load.goes_on(KINDS[:5], more=1)
    assert images(restored) == before
    assert ask(restored, "/pypi/stable/+simple/precious/", JSON).files[0]["hashes"] == {"sha256": digest}
    assert (restored.home / "server" / ".serverversion").read_text() == "4"
    kept = list(restored.home.glob("server.before-*"))
    assert [(one / ".serverversion").read_text() for one in kept] == ["5"] * spoils
    load.assert_all_is_well()


def test_what_cannot_be_upgraded_is_told_before_anything_is_done(stack: Workspace) -> None:
    before = running(stack)
    assert "nothing to upgrade" in stack.inv("upgrade", "--env", "dev").stdout
    assert "dev runs what is built here" in stack.refused("upgrade", "--env", "dev", "--to", "1.0")
    assert "--to a b: expected a tag" in stack.refused("upgrade", "--env", "stable", "--to", "a b")
    assert "local has no images" in stack.refused("upgrade", "--env", "local")
    assert running(stack) == before
    assert not json.loads(stack.run("docker", "ps", "--all", "--format", "json", "--filter", "name=drill").stdout or "[]")
