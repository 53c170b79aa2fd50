"""An engine that is elsewhere: here, behind a real SSH server on loopback."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pypi_tasks.world import poll
from tests.conftest import labelled
from tests.registry import Registry
from tests.workspace import Workspace, clean_environment, free_port

pytestmark = pytest.mark.docker
SSHD = "/usr/sbin/sshd"


@pytest.fixture(scope="module")
def remote(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A checkout whose Docker reaches the engine by SSH, with keys of this test's own."""
    if not Path(SSHD).exists() or os.getuid() != 0:
        why = "no sshd (Debian's openssh-server), or not root, who alone can run one here"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    folder, port = tmp_path_factory.mktemp("ssh"), free_port()
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'client.pub'}\n"
        f"PidFile {folder / 'pid'}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n"
        f"SetEnv PATH={os.environ['PATH']}\n"
    )
    (folder / "ssh_config").write_text(
        f"Host *\n  IdentityFile {folder / 'client'}\n  UserKnownHostsFile {folder / 'known'}\n  StrictHostKeyChecking no\n"
    )
    shim = folder / "bin" / "ssh"  # the command line and the SDK both run `ssh`; this one leaves the user's own keys alone
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "ssh_config"} "$@"\n')
    shim.chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stdout=log, stderr=log)
    try:
        assert poll(lambda: "Server listening" in (folder / "log").read_text(), 20), (folder / "log").read_text()
        path = f"{shim.parent}{os.pathsep}{clean_environment()['PATH']}"
        workspace.environ = {"PATH": path, "DOCKER_HOST": f"ssh://root@127.0.0.1:{port}"}
        yield workspace
    finally:
        server.terminate()
        server.wait(timeout=10)


def test_build_tag_push_up_and_gc_all_use_the_engine_behind_ssh(remote: Workspace, registry: Registry) -> None:
    remote.configure(REGISTRY=registry.host)
    shown = remote.inv("push", timeout=600).stdout  # builds by the command line, pushes by the SDK
    assert all(registry.digest(name, "latest") in shown for name in ("pypi_proxy", "pypi_server"))
    assert f"have {remote.home}" in remote.refused("up", "--env", "dev")
    remote.home.mkdir()  # on "the other machine"
    os.chown(remote.home, 1000, 1000)
    result = remote.inv("up", "--env", "dev")
    assert "the engine is elsewhere" in result.stderr
    assert "healthy" in remote.inv("status").stdout
    assert len(labelled("container", remote.project)) == 3 and labelled("volume", remote.project)
    remote.inv("gc", "--env", "dev", "--yes")
    assert not labelled("container", remote.project) and not labelled("volume", remote.project)
