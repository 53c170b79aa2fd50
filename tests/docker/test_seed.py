"""The defects of the 2021 original, one test each: ours must not have them."""

import base64
import json
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pypi_tasks import smoke
from pypi_tasks.world import answers, poll
from tests import packages
from tests.conftest import inspect
from tests.workspace import Workspace, free_port

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    workspace.inv("up", "--env", "dev", timeout=600)
    return workspace


def logged(stack: Workspace) -> str:
    result = subprocess.run(["docker", "logs", f"{stack.project}-dev-devpi-1"], capture_output=True, text=True)
    return result.stdout + result.stderr


def test_the_image_builds_without_a_password_in_the_environment(stack: Workspace) -> None:
    for name in ("pypi_proxy", "pypi_server"):
        assert "PASSWORD" not in str(inspect(f"{name}:{stack.project}", "image")["Config"])


def test_init_runs_once_and_not_at_every_start(stack: Workspace) -> None:
    assert logged(stack).count("made a new server directory") == 1
    subprocess.run(["docker", "restart", f"{stack.project}-dev-devpi-1"], check=True, capture_output=True)
    assert poll(lambda: answers(f"{stack.url}/+api"), 60)
    assert logged(stack).count("made a new server directory") == 1


def test_the_scripts_in_the_image_are_the_ones_in_the_repository(stack: Workspace) -> None:
    for service, image, patterns in (
        ("devpi", "pypi_server", ("*.py", "*.yml")),
        ("proxy", "pypi_proxy", ("*.conf", "*.js", "*.sh", "*.pl")),
    ):
        scripts = sorted(file for pattern in patterns for file in (stack.root / image).glob(pattern))
        names = [f"/opt/{image}/{file.name}" for file in scripts]
        argv = ["docker", "exec", f"{stack.project}-dev-{service}-1", "cat", *names]
        shown = subprocess.run(argv, capture_output=True, check=True).stdout
        assert shown == b"".join(file.read_bytes() for file in scripts) != b""


@pytest.mark.parametrize("user", ["root", "pypi"])
def test_nobody_has_an_empty_password(stack: Workspace, user: str) -> None:
    body = json.dumps({"user": user, "password": ""}).encode()
    request = urllib.request.Request(f"{stack.url}/+login", data=body, headers={"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 401


def test_a_private_name_is_never_taken_from_pypi(stack: Workspace, tmp_path: Path) -> None:
    """iniconfig stands for a private project whose name somebody registered on PyPI with a higher version."""
    name, content = "iniconfig-0.0.1-py3-none-any.whl", smoke.wheel("0.0.1")[1]
    renamed = packages.rename(content, "iniconfig")
    (tmp_path / name).write_bytes(renamed)
    packages.twine_upload(stack, tmp_path / name)
    packages.pip_install(stack, tmp_path / "pip", "iniconfig")
    packages.uv_install(stack, tmp_path / "uv", "iniconfig")
    for client in ("pip", "uv"):
        assert [path.name for path in (tmp_path / client).glob("iniconfig-*")] == ["iniconfig-0.0.1.dist-info"]


def test_a_plain_docker_run_serves_the_same_data_with_the_same_secrets(stack: Workspace) -> None:
    stack.inv("down", "--env", "dev")
    owner = stack.home.stat()
    name, port = f"{stack.project}-plain", free_port()
    argv = ["docker", "run", "-d", "--name", name, "--user", f"{owner.st_uid}:{owner.st_gid}"]
    argv += ["-v", f"{stack.home}:/devpi", "-v", f"{stack.root / '.secrets'}:/run/secrets:ro", "-p", f"127.0.0.1:{port}:3141"]
    subprocess.run([*argv, "pypi_server"], check=True, capture_output=True)
    try:
        logs = ["docker", "logs", name]
        ready = poll(lambda: answers(f"http://127.0.0.1:{port}/pypi/stable/+api"), 60)
        assert ready, subprocess.run(logs, capture_output=True, text=True)
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=True, capture_output=True)
    stack.inv("up", "--env", "dev")


def test_the_lines_that_up_prints_for_clients_work_as_they_are(stack: Workspace, tmp_path: Path) -> None:
    shown = stack.inv("up", "--env", "dev").stdout
    install = next(line for line in shown.splitlines() if " pip install --index-url" in line and "uv" not in line)
    upload = next(line for line in shown.splitlines() if "twine upload" in line)
    version = packages.new_version()
    packages.build_wheel(tmp_path, version)
    stack.run("sh", "-c", upload.split(None, 1)[1].replace("dist/*", f"{tmp_path}/*.whl"))
    line = install.split(None, 1)[1].replace("PACKAGE", f"--target {tmp_path / 'target'} pypi-tasks-smoke=={version}")
    stack.run("sh", "-c", f"python3 -m {line}")
    assert (tmp_path / "target" / "pypi_tasks_smoke.py").exists()


def test_a_release_is_not_replaced_by_another_content(stack: Workspace, tmp_path: Path) -> None:
    version = packages.new_version()
    wheel = packages.build_wheel(tmp_path, version)
    packages.twine_upload(stack, wheel)
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(AssertionError, match="409"):
        packages.twine_upload(stack, wheel)


def test_the_change_log_with_its_password_hashes_is_for_nobody(stack: Workspace) -> None:
    auth = base64.b64encode(f"pypi:{stack.password}".encode()).decode()
    for headers in ({}, {"X-Devpi-Auth": auth}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{stack.url}/+changelog/0", headers=headers))
        assert refused.value.code in (400, 401, 403)
