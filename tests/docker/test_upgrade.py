"""Upgrades and their way back, under the load of pip, uv and twine: nobody's request fails, and what is broken reaches nobody."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks.world import poll
from tests.conftest import inspect
from tests.load import Load
from tests.raw import JSON, Uploader, ask, container, make_index
from tests.workspace import Workspace, clean_environment, free_port

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
    assert "the new images do not work; nothing was changed: " in error and "this one is broken" in error
    assert "undo the change" in error and "inv verify" not in error
    assert running(restored) == before
    named = inspect(f"pypi_server:{restored.project}", "image")["Id"]
    assert named == before["devpi"][1] and not (restored.root / "backups" / "drill.json").exists()
    assert ask(restored, "/+api").status == 200


@contextlib.contextmanager
def at_work(stack: Workspace, *words: str) -> Iterator[Callable[..., None]]:
    """A task that runs, and a way to wait for what it prints; what comes of it is left in ``task.log``."""
    log = stack.root.parent / "task.log"
    argv = [sys.executable, "-m", "invoke", *words]
    with log.open("wb") as output:
        running = subprocess.Popen(
            argv, cwd=stack.root, env=clean_environment(), stdout=output, stderr=output, start_new_session=True
        )

        def until(text: str, press: bool = False) -> None:
            assert poll(lambda: text in log.read_text() or running.poll() is not None, 300)
            assert text in log.read_text(), log.read_text()
            if press:
                os.killpg(running.pid, signal.SIGINT)

        yield until
        code = running.wait(timeout=300)
    with log.open("ab") as output:
        output.write(f"exited {code}\n".encode())


def end_of(stack: Workspace) -> str:
    return (stack.root.parent / "task.log").read_text()


@pytest.mark.parametrize("at", ["up --detach --remove-orphans devpi", "up --detach --no-deps proxy"])
def test_ctrl_c_brings_back_what_ran_before_even_where_it_comes_twice(restored: Workspace, at: str) -> None:
    before = images(restored)
    change(restored, "pypi_server/entrypoint.py")
    change(restored, "pypi_proxy/nginx.conf")
    with at_work(restored, "upgrade", "--env", "dev") as until:
        until(f"docker-compose-dev.yaml {at}", press=True)
        until("interrupted; going back to what ran before, please wait", press=True)
    shown = end_of(restored)
    assert "exited 130" in shown and "what ran before runs again" in shown and "does not work" not in shown, shown
    assert images(restored) == before and ask(restored, "/+api").status == 200


def test_a_proxy_that_was_stopped_half_way_is_started_by_up_and_by_rollback(restored: Workspace) -> None:
    before = images(restored)
    change(restored, "pypi_proxy/nginx.conf")
    restored.inv("upgrade", "--env", "dev", timeout=600)
    after = images(restored)
    for task, wanted in (("up", after), ("rollback", before), ("up", after)):
        subprocess.run(["docker", "stop", "--time", "1", container(restored, "proxy")], check=True, capture_output=True)
        restored.inv(task, "--env", "dev", timeout=600)
        assert ask(restored, "/+api").status == 200 and images(restored) == wanted
    subprocess.run(["docker", "rm", "--force", container(restored, "proxy")], check=True, capture_output=True)
    restored.inv("up", "--env", "dev", timeout=600)
    assert ask(restored, "/+api").status == 200


def test_what_becomes_of_the_sources_during_an_upgrade_waits_for_the_next_one(restored: Workspace) -> None:
    change(restored, "pypi_server/entrypoint.py", "# first\n")
    text = (restored.root / "pypi_server" / "entrypoint.py").read_text()
    with at_work(restored, "upgrade", "--env", "dev") as until:
        until('"do": "open"')
        change(restored, "pypi_server/entrypoint.py", "# second\n")
    shown = end_of(restored)
    before, _, after = shown.partition('"do": "open"')
    assert "exited 0" in shown and "buildx build" in before and "buildx build" not in after, shown
    (restored.root / "pypi_server" / "entrypoint.py").write_text(text)
    upgraded = running(restored)
    restored.inv("up", "--env", "dev", timeout=600)
    assert running(restored) == upgraded


def test_an_image_that_the_registry_has_not_is_named_with_its_setting(stack: Workspace, tmp_path: Path) -> None:
    registry = "127.0.0.1:1"
    elsewhere = {"REGISTRY": registry, "TAG": "1.0", "DEVPI_PORT": str(free_port()), "DEVPI_HOME": str(tmp_path / "devpi")}
    error = stack.refused("up", "--env", "stable", **elsewhere)
    assert f"{registry}/pypi_server:1.0 cannot be had" in error and "check REGISTRY and TAG" in error
    name = f"{registry}/pypi_server:1.0"
    subprocess.run(["docker", "tag", f"pypi_server:{stack.project}", name], check=True)
    try:
        error = stack.refused("up", "--env", "stable", PROXY_TAG="2.0", **elsewhere)
    finally:
        subprocess.run(["docker", "rmi", name], check=True, capture_output=True)
    assert f"{registry}/pypi_proxy:2.0 cannot be had" in error and "check REGISTRY and PROXY_TAG" in error


BREAK_LATER = """
if os.environ.get("DEVPISERVER_OUTSIDE_URL", "").endswith(":{port}"):
{what}    sys.exit("this one breaks on the real data")
"""


def test_what_passes_the_drill_and_breaks_all_the_same_is_taken_back_by_itself(restored: Workspace, tmp_path: Path) -> None:
    """With the snapshot, since the new server changes the format of the database first."""
    before = images(restored)
    _, digest = Uploader(restored)("precious", "1.0")
    what = '    open("/devpi/server/.serverversion", "w").write("5")\n'
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
    assert [(one / ".serverversion").read_text() for one in kept] == ["5"]
    load.assert_all_is_well()


def test_what_cannot_be_upgraded_is_told_before_anything_is_done(stack: Workspace) -> None:
    stack.inv("up", "--env", "dev", timeout=600)
    before = running(stack)
    assert "nothing to upgrade" in stack.inv("upgrade", "--env", "dev").stdout
    assert "dev runs what is built here" in stack.refused("upgrade", "--env", "dev", "--to", "1.0")
    assert "--to a b: expected a tag" in stack.refused("upgrade", "--env", "stable", "--to", "a b")
    assert "local has no images" in stack.refused("upgrade", "--env", "local")
    assert running(stack) == before
    left = ["docker", "ps", "--all", "--quiet", "--filter", f"name={stack.project}-drill"]
    assert not stack.run(*left).stdout
