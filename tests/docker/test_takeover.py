"""A server directory made by another devpi is taken over as it is."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks.world import answers, poll
from tests.packages import build_wheel, new_version, pip_install
from tests.workspace import Workspace, clean_environment, free_port

pytestmark = pytest.mark.docker
# The seed's version, with the releases of its dependencies that it still runs with.
SEED = ["devpi-server==5.5.1", "ruamel.yaml<0.18", "setuptools<81"]


def call(method: str, url: str, body: dict[str, Any], user: str = "", password: str = "") -> None:
    import base64

    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if user:
        headers["X-Devpi-Auth"] = base64.b64encode(f"{user}:{password}".encode()).decode()
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers, method=method), timeout=60).read()


def seed(workspace: Workspace, folder: Path, version: str) -> None:
    """What the seed did: devpi 5.5, root without a password, pypi/stable with a wide-open white list, one package."""
    venv = folder / "devpi-5.5"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    workspace.run("uv", "pip", "install", "-q", "--python", str(venv / "bin" / "python"), *SEED)
    server = str(workspace.home / "server")
    workspace.run(str(venv / "bin" / "devpi-init"), "--serverdir", server)
    port = free_port()
    command = [str(venv / "bin" / "devpi-server"), "--serverdir", server, "--port", str(port), "--offline-mode"]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, env=clean_environment(), stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        assert poll(lambda: answers(f"{url}/+api"), 60), (folder / "log").read_text()
        call("PUT", f"{url}/pypi", {"password": ""})
        options = {"bases": ["root/pypi"], "volatile": True, "mirror_whitelist": ["*"]}
        call("PUT", f"{url}/pypi/stable", options, "pypi")
        wheel = build_wheel(folder, version)
        workspace.run(
            sys.executable, "-m", "twine", "upload", "--disable-progress-bar", "--repository-url", f"{url}/pypi/stable/",
            "-u", "pypi", "-p", "", str(wheel),
        )  # fmt: skip
    finally:
        running.terminate()
        running.wait(timeout=30)


def test_the_seeds_own_data_is_served_on_with_its_options_but_without_empty_passwords(
    workspace: Workspace, tmp_path: Path
) -> None:
    version = new_version()
    seed(workspace, tmp_path, version)
    if os.getuid() == 0:
        assert "sudo chown -R 1000:1000" in workspace.refused("up", "--env", "dev")
        subprocess.run(["chown", "-R", "1000:1000", str(workspace.home)], check=True)
    shown = workspace.inv("up", "--env", "dev", timeout=600).stdout
    assert "user root had an empty password" in shown and "user pypi had an empty password" in shown
    assert "index root/pypi: set mirror_no_project_list, mirror_provides_core_metadata" in shown
    pip_install(workspace, tmp_path / "target", f"pypi-tasks-smoke=={version}")
    assert version in (tmp_path / "target" / "pypi_tasks_smoke.py").read_text()
    request = urllib.request.Request(workspace.index, headers={"Accept": "application/json"})
    index = json.load(urllib.request.urlopen(request))["result"]
    assert index["mirror_whitelist"] == ["*"] and index["volatile"] is True
    with pytest.raises(urllib.error.HTTPError):
        call("POST", f"{workspace.url}/+login", {"user": "root", "password": ""})
    assert "set mirror" not in workspace.inv("up", "--env", "dev").stdout
