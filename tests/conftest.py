"""The fixtures: checkouts to use the project in, and what a real engine needs."""

import functools
import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.registry import Registry
from tests.workspace import Workspace, checkout

# A shell that starts the tests in the background, or nohup, has them and all that they start ignore these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

BASE = "python:3.13-slim-trixie"
PROXY_BASE = "nginx:1.28-trixie"


@functools.cache
def missing() -> str:
    """What keeps the engine tests from running, empty when nothing does."""
    if not shutil.which("docker"):
        return "no docker command"
    if subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        return "no Docker engine answers"
    for base in (BASE, PROXY_BASE):
        if subprocess.run(["docker", "image", "inspect", base], capture_output=True).returncode == 0:
            continue
        if subprocess.run(["docker", "pull", "-q", base], capture_output=True, timeout=300).returncode != 0:
            return f"the base image {base} is not here and cannot be pulled"
    return ""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs an engine where there is none, before its fixtures are made; in CI that is a failure."""
    if item.get_closest_marker("docker") and (why := missing()):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)


def labelled(kind: str, project: str) -> list[str]:
    """Ids of this test's containers, networks, volumes or images."""
    argv = {
        "container": ["ps", "-aq"],
        "network": ["network", "ls", "-q"],
        "volume": ["volume", "ls", "-q"],
        "image": ["images", "-aq", "--no-trunc"],
    }[kind]
    label = f"label=pypi-tasks.project={project}"
    found = subprocess.run(["docker", *argv, "--filter", label], capture_output=True, text=True)
    return sorted(set(found.stdout.split()))


def remove_all(project: str) -> None:
    """Remove what a test left on the engine."""
    removals = {"container": ["rm", "-fv"], "network": ["network", "rm"], "volume": ["volume", "rm"], "image": ["rmi", "-f"]}
    for kind, argv in removals.items():
        if ids := labelled(kind, project):
            subprocess.run(["docker", *argv, *ids], capture_output=True)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A checkout for the tests of one module; whatever it started is gone afterwards."""
    made = checkout(tmp_path_factory.mktemp("checkout"), f"pypi-test-{uuid.uuid4().hex[:8]}")
    yield made
    if (made.home / "devpi.pid").exists():
        made.inv("down", "--env", "local", check=False)
    if shutil.which("docker"):
        remove_all(made.project)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry on a free port."""
    with Registry.start(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty folder to install into."""
    return tmp_path / "target"


def inspect(name: str, *what: str) -> dict[str, Any]:
    """What `docker inspect` says."""
    shown = subprocess.run(["docker", *what, "inspect", name], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(shown.stdout)[0]
    return found
