"""`inv push` to a real registry, and `inv up --env stable` from it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BASE, inspect, remove_all
from tests.registry import Registry
from tests.workspace import Workspace, free_port

pytestmark = pytest.mark.docker
IMAGES = ("pypi_proxy", "pypi_server")


@pytest.fixture(scope="module")
def pushed(workspace: Workspace, registry: Registry) -> Workspace:
    """A checkout whose images are in the registry, by one command."""
    workspace.configure(REGISTRY=registry.host)
    shown = workspace.inv("push", timeout=600).stdout
    for name in IMAGES:
        for tag in registry.tags(name):
            assert f"{registry.host}/{name}:{tag} is {registry.digest(name, tag)}" in shown
    return workspace


@pytest.mark.parametrize("name", IMAGES)
def test_the_registry_has_latest_and_an_immutable_tag_of_one_digest(pushed: Workspace, registry: Registry, name: str) -> None:
    commit = pushed.run("git", "rev-parse", "HEAD").stdout[:12]
    assert registry.tags(name) == [f"6.20.3-{commit}", "latest"]
    assert registry.digest(name, "latest") == registry.digest(name, f"6.20.3-{commit}")


def test_push_again_builds_nothing(pushed: Workspace, registry: Registry) -> None:
    before = {name: registry.digest(name, "latest") for name in IMAGES}
    shown = pushed.inv("push").stdout
    assert "buildx" not in shown and "already exists" in shown
    assert {name: registry.digest(name, "latest") for name in IMAGES} == before


def test_an_immutable_tag_is_never_moved_to_other_content(pushed: Workspace, registry: Registry) -> None:
    tag = f"6.20.3-{pushed.run('git', 'rev-parse', 'HEAD').stdout[:12]}"
    before = registry.digest("pypi_server", tag)
    base = f"{pushed.project}-base:1"
    dockerfile = f"FROM {BASE}\nRUN touch /other\nLABEL pypi-tasks.project={pushed.project}\n"
    subprocess.run(["docker", "build", "-q", "-t", base, "-"], input=dockerfile, text=True, check=True, capture_output=True)
    error = pushed.refused("push", PYTHON_IMAGE=base)
    assert f"{tag} is {before}, other content" in error and "commit" in error
    assert registry.digest("pypi_server", tag) == before != registry.digest("pypi_server", "latest")
    pushed.inv("push")
    assert registry.digest("pypi_server", "latest") == before


def test_stable_runs_from_the_registry_by_tag_and_by_digest(pushed: Workspace, registry: Registry) -> None:
    remove_all(pushed.project)
    pushed.inv("up", "--env", "stable")
    running = {name: container(pushed, name) for name in IMAGES}
    assert all(running[name]["Config"]["Image"] == f"{registry.host}/{name}:latest" for name in IMAGES)
    assert "smoke test passed" in pushed.inv("smoke", "--env", "stable").stdout
    server, proxy = (registry.digest(name, "latest") for name in ("pypi_server", "pypi_proxy"))
    assert "set PROXY_TAG to the proxy's" in pushed.refused("up", "--env", "stable", TAG=server)
    assert {name: container(pushed, name)["Id"] for name in IMAGES} == {name: running[name]["Id"] for name in IMAGES}
    pushed.inv("up", "--env", "stable", TAG=server, PROXY_TAG=proxy)
    by_digest = {name: container(pushed, name) for name in IMAGES}
    assert by_digest["pypi_server"]["Config"]["Image"] == f"{registry.host}/pypi_server@{server}"
    assert by_digest["pypi_proxy"]["Config"]["Image"] == f"{registry.host}/pypi_proxy@{proxy}"
    assert all(by_digest[name]["Image"] == running[name]["Image"] for name in IMAGES)
    pushed.inv("down", "--env", "stable")


def container(pushed: Workspace, name: str) -> dict[str, Any]:
    """What runs an image in stable."""
    return inspect(f"{pushed.project}-stable-{'proxy' if name == 'pypi_proxy' else 'devpi'}-1")


def test_stable_with_a_tag_that_is_not_there_is_refused(pushed: Workspace) -> None:
    assert "check REGISTRY and TAG" in pushed.refused("up", "--env", "stable", TAG="no-such-tag")


def test_a_registry_that_refuses_makes_the_push_fail(workspace: Workspace, tmp_path: Path) -> None:
    with Registry.start(tmp_path, password="right") as closed:
        error = workspace.refused("push", REGISTRY=closed.host)
    assert "was refused" in error and f"docker login {closed.host}" in error


def test_a_registry_that_is_down_makes_the_push_fail(workspace: Workspace) -> None:
    host = f"127.0.0.1:{free_port()}"
    error = workspace.refused("push", REGISTRY=host)
    assert "was refused" in error and host in error


def test_an_empty_registry_is_told_before_anything_is_built(workspace: Workspace) -> None:
    workspace.configure(REGISTRY="")
    for task in (["push"], ["tag"], ["up", "--env", "stable"]):
        result = workspace.inv(*task, check=False, PYTHON_IMAGE="no-such-image:1")
        assert result.returncode == 2 and "REGISTRY is empty" in result.stderr and "buildx" not in result.stdout


def test_ctrl_c_in_a_push_is_no_success_and_the_next_one_finishes(workspace: Workspace, tmp_path: Path) -> None:
    with Registry.start(tmp_path) as fresh:
        workspace.configure(REGISTRY=fresh.host)
        assert " is sha256:" not in workspace.interrupted("push", at="docker push")
        assert "is sha256:" in workspace.inv("push").stdout
        assert "latest" in fresh.tags("pypi_server")
