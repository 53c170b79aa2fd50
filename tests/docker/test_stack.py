"""`inv up --env dev`: the Docker stack, used by the real clients."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks.world import answers, poll
from tests.conftest import inspect, labelled
from tests.packages import build_wheel, new_version, pip_install, twine_upload, uv_install
from tests.workspace import Workspace, checkout

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    """The dev stack, brought up by one command."""
    shown = workspace.inv("up", "--env", "dev", timeout=600).stdout
    assert "made index pypi/stable" in shown and f"--index-url {workspace.index}/+simple/" in shown
    return workspace


SERVICES = ("devpi", "port", "proxy")


def container(stack: Workspace, service: str = "devpi") -> dict[str, Any]:
    return inspect(f"{stack.project}-dev-{service}-1")


def secrets(stack: Workspace) -> list[str]:
    return [file.read_text().strip() for file in (stack.root / ".secrets").iterdir()]


def get(url: str, accept: str = "text/html") -> str:
    text: str = urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60).read().decode()
    return text


def test_a_wheel_uploaded_with_twine_is_installed_by_pip_and_uv(stack: Workspace, tmp_path: Path) -> None:
    version = new_version()
    twine_upload(stack, build_wheel(tmp_path, version))
    for name, install in (("pip", pip_install), ("uv", uv_install)):
        install(stack, tmp_path / name, f"pypi-tasks-smoke=={version}")
        assert version in (tmp_path / name / "pypi_tasks_smoke.py").read_text()


def test_packages_of_pypi_come_through_the_private_index_and_the_mirror(stack: Workspace, tmp_path: Path) -> None:
    pip_install(stack, tmp_path / "pip", "iniconfig==2.0.0")
    uv_install(stack, tmp_path / "uv", "iniconfig==2.0.0", index=f"{stack.url}/root/pypi")
    assert (tmp_path / "pip" / "iniconfig").is_dir() and (tmp_path / "uv" / "iniconfig").is_dir()


def test_pages_come_as_html_and_json_with_metadata_files(stack: Workspace) -> None:
    page = f"{stack.index}/+simple/iniconfig/"
    assert "data-core-metadata" in get(page)
    files = json.loads(get(page, "application/vnd.pypi.simple.v1+json"))["files"]
    assert any(file.get("core-metadata") for file in files)


def test_up_again_changes_nothing(stack: Workspace) -> None:
    before = [container(stack, service) for service in SERVICES]
    shown = stack.inv("up", "--env", "dev").stdout
    assert "buildx" not in shown and "made " not in shown and "write" not in shown
    after = [container(stack, service) for service in SERVICES]
    assert [(one["Id"], one["State"]["StartedAt"]) for one in after] == [(one["Id"], one["State"]["StartedAt"]) for one in before]


@pytest.mark.parametrize(("service", "memory"), [("devpi", 2**30), ("port", 2**26), ("proxy", 2**28)])
def test_the_containers_are_locked_down(stack: Workspace, service: str, memory: int) -> None:
    found = container(stack, service)
    host = found["HostConfig"]
    assert found["Config"]["User"] not in ("", "0", "root", "0:0")
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and host["CapAdd"] is None
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] == memory and host["RestartPolicy"]["Name"] == "always"
    assert not host["Privileged"] and host["PidMode"] == "" and host["IpcMode"] == "private"
    assert host["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}
    labels = found["Config"]["Labels"]
    assert (labels["pypi-tasks.project"], labels["pypi-tasks.env"]) == (stack.project, "dev")
    status = subprocess.run(["docker", "exec", found["Id"], "cat", "/proc/1/status"], capture_output=True, text=True).stdout
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status


def test_one_container_has_the_port_and_the_server_is_reached_through_its_socket_alone(stack: Workspace) -> None:
    devpi, port, proxy = (container(stack, service) for service in SERVICES)
    assert port["HostConfig"]["PortBindings"] == {"3141/tcp": [{"HostIp": "127.0.0.1", "HostPort": stack.port}]}
    assert not devpi["HostConfig"]["PortBindings"] and not any(devpi["NetworkSettings"]["Ports"].values())
    assert proxy["HostConfig"]["NetworkMode"] == "none"
    for one, there in ((proxy, "devpi.sock"), (proxy, "port.sock")):
        assert subprocess.run(["docker", "exec", one["Id"], "test", "-S", f"/run/pypi/{there}"]).returncode == 0
    refused = subprocess.run(
        ["docker", "exec", port["Id"], "bash", "-c", "exec 3<>/dev/tcp/devpi/3141"], capture_output=True, text=True
    )
    assert refused.returncode != 0 and "Connection refused" in refused.stderr


def test_nobody_can_write_what_is_the_servers_and_nobody_else_sees_its_secrets(stack: Workspace) -> None:
    devpi, port, proxy = ({mount["Destination"]: mount for mount in container(stack, one)["Mounts"]} for one in SERVICES)
    assert devpi["/devpi"]["RW"] and devpi["/run/pypi"]["RW"]
    assert not proxy["/devpi"]["RW"] and not proxy["/run/pypi"]["RW"]
    assert set(proxy) == {"/devpi", "/run/pypi", "/var/spool/pypi_proxy"} and set(port) == {"/run/pypi"}
    assert {target for target in devpi if target.startswith("/run/secrets")} == {
        f"/run/secrets/{name}" for name in ("root_password", "user_password", "server_secret")
    }


def test_no_secret_shows_in_inspect_logs_arguments_or_the_compose_file(stack: Workspace) -> None:
    shown = ""
    for found in (container(stack, service) for service in SERVICES):
        shown += json.dumps(found) + json.dumps(inspect(found["Image"], "image"))
        logs = subprocess.run(["docker", "logs", found["Id"]], capture_output=True, text=True)
        shown += logs.stdout + logs.stderr
        shown += subprocess.run(["docker", "top", found["Id"], "-eo", "pid,args"], capture_output=True, text=True).stdout
        environment = ["docker", "exec", found["Id"], "sh", "-c", "cat /proc/[0-9]*/environ"]
        shown += subprocess.run(environment, capture_output=True).stdout.decode(errors="replace")
    shown += (stack.root / ".rendered" / "docker-compose-dev.yaml").read_text() + stack.inv("up", "--env", "dev").stdout
    assert "serve.py" in shown and "nginx: master process" in shown and "DEVPISERVER_SECRETFILE" in shown
    assert len(secrets(stack)) == 3
    assert not [secret for secret in secrets(stack) if secret in shown]


def test_secrets_are_files_that_only_their_owner_reads(stack: Workspace) -> None:
    for file in (stack.root / ".secrets").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert stack.run("git", "status", "--porcelain").stdout == ""


def test_data_and_tokens_outlive_restart_and_recreation(stack: Workspace, tmp_path: Path) -> None:
    version = new_version()
    twine_upload(stack, build_wheel(tmp_path, version))
    body = json.dumps({"user": "pypi", "password": stack.password}).encode()
    request = urllib.request.Request(f"{stack.url}/+login", data=body, headers={"Content-Type": "application/json"})
    token = json.load(urllib.request.urlopen(request))["result"]["password"]
    stack.inv("down", "--env", "dev")
    assert not labelled("container", stack.project) and not answers(f"{stack.url}/+api")
    stack.inv("up", "--env", "dev")
    assert version in get(f"{stack.index}/+simple/pypi-tasks-smoke/")
    newer = new_version()
    twine_upload(stack, build_wheel(tmp_path, newer), password=token)
    assert newer in get(f"{stack.index}/+simple/pypi-tasks-smoke/")


def test_a_port_and_a_smoke_test_are_of_the_server_that_is_meant(stack: Workspace) -> None:
    assert "is held by our own dev" in stack.inv("doctor").stdout
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert "not ready for dev: port" in stack.refused("doctor", DEVPI_PORT=port)
    assert "stable is not running" in stack.refused("smoke", "--env", "stable")


@pytest.mark.parametrize(
    ("service", "process", "spool"),
    [("devpi", "serve.py", "/devpi/tmp"), ("proxy", "nginx: master process", "/var/spool/pypi_proxy/$(id -u)/body")],
)
def test_a_killed_server_comes_back_by_itself(stack: Workspace, service: str, process: str, spool: str) -> None:
    before = container(stack, service)
    inside = ["docker", "exec", before["Id"], "sh", "-c"]
    subprocess.run([*inside, f"touch {spool}/upload"], check=True)
    pids = subprocess.run(["docker", "top", before["Id"], "-eo", "pid,args"], capture_output=True, text=True).stdout
    server = next(line.split()[0] for line in pids.splitlines() if process in line and "dumb-init" not in line)
    os.kill(int(server), signal.SIGKILL)
    assert poll(lambda: bool(container(stack, service)["RestartCount"] == 1), 30)
    assert poll(lambda: answers(f"{stack.url}/+api"), 60)
    assert poll(lambda: bool(container(stack, service)["State"]["Health"]["Status"] == "healthy"), 60)
    assert subprocess.run([*inside, f"test ! -e {spool}/upload"]).returncode == 0


def test_a_container_that_is_stopped_is_named_by_status_and_started_by_up(stack: Workspace) -> None:
    """The server before the proxy, which is no use without it."""
    for service in reversed(SERVICES):
        subprocess.run(["docker", "stop", f"{stack.project}-dev-{service}-1"], check=True, capture_output=True)
        row = next(line for line in stack.inv("status").stdout.splitlines() if line.lstrip("│ ").startswith("dev "))
        assert "exited" in row and f"container {stack.project}-dev-{service}-1" in row
    assert container(stack, "proxy")["State"]["ExitCode"] == 0  # it had time to answer
    stack.inv("up", "--env", "dev")
    assert "healthy" in stack.inv("status").stdout and answers(f"{stack.url}/+api")


def test_status_logs_and_smoke_work_on_it(stack: Workspace) -> None:
    assert f"container {stack.project}-dev-devpi-1" in stack.inv("status").stdout
    assert "serving at url" in stack.inv("logs", "--env", "dev", "--lines", "1000").stdout
    assert "smoke test passed" in stack.inv("smoke").stdout


def test_a_changed_entry_point_is_built_and_started_by_up(stack: Workspace) -> None:
    entrypoint = stack.root / "pypi_server" / "entrypoint.py"
    text = entrypoint.read_text()
    before, proxy = container(stack)["Image"], container(stack, "proxy")["Id"]
    entrypoint.write_text(text + "# changed\n")
    stack.inv("up", "--env", "dev")
    assert container(stack)["Image"] != before
    entrypoint.write_text(text)
    stack.inv("up", "--env", "dev")
    assert container(stack)["Image"] == before
    assert container(stack, "proxy")["Id"] == proxy  # so that clients notice nothing


def test_ctrl_c_in_up_leaves_something_that_the_next_up_finishes(stack: Workspace) -> None:
    stack.inv("down", "--env", "dev")
    stack.interrupted("up", "--env", "dev", at="wait for")
    stack.inv("up", "--env", "dev")
    assert "smoke test passed" in stack.inv("smoke").stdout


def test_the_engine_of_docker_host_is_used_by_command_line_and_sdk(stack: Workspace) -> None:
    nowhere = "tcp://127.0.0.1:9"
    assert "127.0.0.1:9" in stack.refused("up", "--env", "dev", DOCKER_HOST=nowhere)
    assert "127.0.0.1:9" in stack.refused("tag", REGISTRY="127.0.0.1:1", DOCKER_HOST=nowhere)
    socket = "unix:///var/run/docker.sock"
    stack.run("docker", "context", "create", stack.project, "--docker", f"host={socket}")
    try:
        assert container(stack)["Id"] in json.dumps(via_sdk(stack, stack.project))
        assert "healthy" in stack.inv("status", DOCKER_CONTEXT=stack.project).stdout
    finally:
        stack.run("docker", "context", "rm", "-f", stack.project)


def via_sdk(stack: Workspace, context: str) -> list[str]:
    """The containers that the SDK's client sees."""
    code = (
        "from pypi_tasks.engine import connect; from pypi_tasks.world import World; "
        "print('\\n'.join(c.id for c in connect(World()).containers.list()))"
    )
    return stack.run(sys.executable, "-c", code, DOCKER_CONTEXT=context).stdout.split()


def test_gc_asks_and_leaves_packages_then_takes_them_by_name(stack: Workspace) -> None:
    assert "not confirmed" in stack.refused("gc", "--env", "dev", stdin="\n")
    assert [len(labelled(kind, stack.project)) for kind in ("container", "volume")] == [3, 2]
    shown = stack.inv("gc", "--env", "dev", stdin="y\n").stdout
    assert "container" in shown and "Package data stays" in shown
    assert all(f"{stack.project}-dev_{name}" in shown for name in ("socket", "spool"))
    assert not labelled("container", stack.project) and not labelled("image", stack.project)
    assert not labelled("network", stack.project) and not labelled("volume", stack.project)
    assert (stack.home / "server" / ".sqlite").exists()
    assert "name was not typed" in stack.refused("gc", "--env", "dev", "--yes", "--data", stdin="pypi\n")
    assert (stack.home / "server" / ".sqlite").exists()
    stack.inv("gc", "--env", "dev", "--yes", "--data", stdin="pypi/stable\n")
    assert not stack.home.exists()


def remove_server(stack: Workspace) -> None:
    """The server and its data; the build cache stays, which `inv gc` would take and every further build make anew."""
    stack.inv("down", "--env", "dev")
    shutil.rmtree(stack.home)


def test_another_checkout_with_the_same_project_is_refused_and_harms_nothing(stack: Workspace, tmp_path: Path) -> None:
    stack.inv("up", "--env", "dev")
    before = container(stack)["Id"]
    second = checkout(tmp_path / "second", stack.project)
    for task in ("up", "down"):
        error = second.refused(task, "--env", "dev")
        assert "is running already" in error and "its own PROJECT" in error
    assert container(stack)["Id"] == before and answers(f"{stack.url}/+api")
    remove_server(stack)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_any_user_of_the_host_can_own_the_data(stack: Workspace, tmp_path: Path) -> None:
    shutil.rmtree(stack.home, ignore_errors=True)
    stack.configure(DEVPI_UID="4321", DEVPI_GID="8765")
    stack.inv("up", "--env", "dev")
    assert "smoke test passed" in stack.inv("smoke").stdout
    wheel = build_wheel(tmp_path, new_version())
    wheel.write_bytes(os.urandom(200_000) + wheel.read_bytes())  # too large to be kept in memory on its way
    twine_upload(stack, wheel)
    status = (stack.home / "server" / ".sqlite").stat()
    assert (status.st_uid, status.st_gid) == (4321, 8765)
    stack.configure(DEVPI_UID="", DEVPI_GID="")
    remove_server(stack)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder of somebody else's")
def test_a_data_folder_of_somebody_else_is_named_with_its_fix(stack: Workspace) -> None:
    shutil.rmtree(stack.home, ignore_errors=True)
    stack.home.mkdir()
    os.chown(stack.home, 12345, 12345)
    error = stack.refused("up", "--env", "dev")
    assert "belongs to uid 12345; the server runs as uid 1000" in error and f"sudo chown -R 1000:1000 {stack.home}" in error
    assert not labelled("container", stack.project)
    stack.home.rmdir()
    stack.home.write_text("a file\n")
    assert "is a file; expected a folder" in stack.refused("up", "--env", "dev")
    stack.home.unlink()


def test_a_server_that_cannot_start_is_told_with_the_end_of_its_log(stack: Workspace) -> None:
    server = stack.home / "server"
    server.mkdir(parents=True)
    (server / "something-else").write_text("not devpi's")
    for path in (stack.home, server, server / "something-else"):
        os.chown(path, 1000, 1000) if os.getuid() == 0 else None
    error = stack.refused("up", "--env", "dev")
    assert "neither empty nor a devpi server directory" in error
    assert (server / "something-else").exists()
