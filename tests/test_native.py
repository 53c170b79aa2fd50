"""`inv up --env local`: a private PyPI without Docker, used by the real clients."""

import json
import os
import urllib.request
from pathlib import Path

import pytest

from pypi_tasks.world import answers, poll
from tests.packages import build_wheel, new_version, pip_install, twine_upload, uv_install
from tests.workspace import Workspace, checkout


@pytest.fixture(scope="module")
def server(workspace: Workspace) -> Workspace:
    """The native server, brought up by one command."""
    shown = workspace.inv("up", "--env", "local").stdout
    assert f"pip install --index-url {workspace.index}/+simple/" in shown
    return workspace


def pid(server: Workspace) -> str:
    return (server.home / "devpi.pid").read_text().splitlines()[0]


def test_a_wheel_uploaded_with_twine_is_installed_by_pip_and_uv(server: Workspace, tmp_path: Path) -> None:
    version = new_version()
    twine_upload(server, build_wheel(tmp_path, version))
    for name, install in (("pip", pip_install), ("uv", uv_install)):
        install(server, tmp_path / name, f"pypi-tasks-smoke=={version}")
        assert version in (tmp_path / name / "pypi_tasks_smoke.py").read_text()


def test_a_package_of_pypi_comes_through_the_same_index(server: Workspace, target: Path) -> None:
    pip_install(server, target, "iniconfig==2.0.0")
    assert (target / "iniconfig" / "__init__.py").exists()


def test_the_mirror_offers_metadata_files_and_does_not_index_all_of_pypi(server: Workspace) -> None:
    request = urllib.request.Request(f"{server.url}/root/pypi", headers={"Accept": "application/json"})
    index = json.load(urllib.request.urlopen(request))["result"]
    assert index["mirror_provides_core_metadata"] is True
    assert index["mirror_no_project_list"] is True


def test_search_finds_a_private_package(server: Workspace, tmp_path: Path) -> None:
    twine_upload(server, build_wheel(tmp_path, new_version()))

    def found() -> bool:
        page = urllib.request.urlopen(f"{server.url}/+search?query=smoke").read().decode()
        return "pypi-tasks-smoke" in page

    assert poll(found, 60), "search does not show the uploaded package"


def test_up_again_changes_nothing(server: Workspace) -> None:
    before = pid(server)
    shown = server.inv("up", "--env", "local").stdout
    assert "made " not in shown and "mkdir" not in shown and "write" not in shown
    assert pid(server) == before


def test_status_logs_and_smoke_work_on_it(server: Workspace) -> None:
    assert "healthy" in server.inv("status").stdout
    assert "serving at url" in server.inv("logs", "--env", "local", "--lines", "1000").stdout
    assert "smoke test passed" in server.inv("smoke", "--env", "local").stdout
    assert "there is no proxy, so nothing is cached" in server.inv("purge", "--env", "local").stdout


def test_a_setting_that_was_given_changes_the_index_that_is_there(server: Workspace) -> None:
    server.configure(DEVPI_VOLATILE="true")
    shown = server.inv("up", "--env", "local").stdout
    assert "index pypi/stable: volatile False -> True" in shown
    server.configure(DEVPI_VOLATILE="")
    assert "volatile" not in server.inv("up", "--env", "local").stdout


def test_a_wide_open_white_list_works_but_warns(server: Workspace) -> None:
    result = server.inv("up", "--env", "local", DEVPI_MIRROR_WHITELIST="*")
    assert "dependency confusion" in result.stderr
    server.inv("up", "--env", "local", DEVPI_MIRROR_WHITELIST="nothing-of-ours")


def test_a_token_outlives_a_restart(server: Workspace) -> None:
    token = login(server, server.password)
    server.inv("down", "--env", "local")
    assert not answers(f"{server.url}/+api")
    server.inv("up", "--env", "local")
    assert whoami(server, token) == "pypi"


def login(server: Workspace, password: str) -> str:
    body = json.dumps({"user": "pypi", "password": password}).encode()
    request = urllib.request.Request(f"{server.url}/+login", data=body, headers={"Content-Type": "application/json"})
    token: str = json.load(urllib.request.urlopen(request))["result"]["password"]
    return token


def whoami(server: Workspace, token: str) -> str | None:
    import base64

    auth = base64.b64encode(f"pypi:{token}".encode()).decode()
    request = urllib.request.Request(f"{server.url}/+api", headers={"X-Devpi-Auth": auth, "Accept": "application/json"})
    state: list[str] = json.load(urllib.request.urlopen(request))["result"]["authstatus"]
    return state[1] if state[0] == "ok" else None


def test_nobody_but_root_makes_users(server: Workspace) -> None:
    request = urllib.request.Request(
        f"{server.url}/mallory", data=b'{"password": "x"}', method="PUT", headers={"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code in (401, 403)


def test_no_secret_shows_in_arguments_environment_log_or_settings(server: Workspace) -> None:
    secrets = [file.read_text().strip() for file in (server.root / ".secrets").iterdir()]
    process = Path("/proc") / pid(server)
    shown = server.inv("config", PYPI_PASSWORD=server.password).stdout + server.inv("logs", "--env", "local").stdout
    assert "[redacted]" in shown
    if process.exists():
        shown += (process / "cmdline").read_text() + (process / "environ").read_text(errors="replace")
    assert len(secrets) == 3 and not [secret for secret in secrets if secret in shown]


def test_a_wrong_stored_password_is_named_and_nothing_is_lost(server: Workspace) -> None:
    file = server.root / ".secrets" / "user_password"
    right = server.password
    file.write_text("wrong\n")
    error = server.refused("up", "--env", "local")
    assert "the stored password of user pypi is not the server's" in error and "PYPI_PASSWORD=" in error
    server.inv("up", "--env", "local", PYPI_PASSWORD=right)
    assert server.password == right


def test_a_wrong_password_in_a_setting_does_not_cost_the_right_one(server: Workspace) -> None:
    right = server.password
    for wrong in ("one", "two"):
        assert "What was stored is stored still" in server.refused("up", "--env", "local", PYPI_PASSWORD=wrong)
        assert server.password == right
    server.inv("up", "--env", "local")


def test_a_base_that_is_not_there_is_named(server: Workspace) -> None:
    assert "DEVPI_BASES names root/nope" in server.refused("up", "--env", "local", DEVPI_BASES="root/pypi,root/nope")


def test_a_second_server_on_the_same_data_is_refused(server: Workspace) -> None:
    python = next((server.root / ".venvs").glob("devpi-*")) / "bin" / "python"
    secrets = str(server.root / ".secrets")
    second = server.run(
        str(python), "pypi_server/entrypoint.py", "devpi-server",
        check=False, DEVPI_HOME=str(server.home), DEVPI_SECRETS=secrets, DEVPISERVER_PORT="1",
    )  # fmt: skip
    assert second.returncode == 1 and "another server is running" in second.stderr
    assert answers(f"{server.url}/+api")


def test_down_leaves_the_packages_and_gc_takes_only_what_it_names(server: Workspace) -> None:
    server.inv("down", "--env", "local")
    assert not answers(f"{server.url}/+api")
    assert "not confirmed" in server.refused("gc", "--env", "local")
    assert (server.root / ".venvs").exists()
    server.inv("gc", "--env", "local", "--yes")
    assert not list((server.root / ".venvs").iterdir())
    assert (server.home / "server" / ".sqlite").exists()


def test_gc_with_data_wants_the_name_of_the_index_typed(server: Workspace) -> None:
    assert "name was not typed" in server.refused("gc", "--env", "local", "--yes", "--data", stdin="stable\n")
    assert (server.home / "server" / ".sqlite").exists()
    server.inv("gc", "--env", "local", "--yes", "--data", stdin="pypi/stable\n")
    assert not server.home.exists()


def test_a_dry_run_prints_all_and_changes_nothing(tmp_path: Path) -> None:
    fresh = checkout(tmp_path / "fresh", "pypi-test-dry")
    before = sorted(fresh.root.rglob("*"))
    shown = fresh.inv("up", "--env", "local", "--dry").stdout
    assert "would: mkdir" in shown and "serve.py" in shown and "provision.py" in shown
    assert [path for path in sorted(fresh.root.rglob("*")) if "__pycache__" not in path.parts] == [
        path for path in before if "__pycache__" not in path.parts
    ]


def test_a_taken_port_is_named_before_anything_is_made(tmp_path: Path) -> None:
    import socket

    fresh = checkout(tmp_path / "fresh", "pypi-test-port")
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(fresh.port)))
        other.listen()
        error = fresh.refused("up", "--env", "local")
    assert f"DEVPI_PORT={fresh.port}" in error and "in use" in error
    assert not fresh.home.exists() and not (fresh.root / ".secrets").exists()


def test_tls_is_refused_before_anything_is_made_since_there_is_no_proxy(tmp_path: Path) -> None:
    fresh = checkout(tmp_path / "fresh", "pypi-test-tls")
    (tmp_path / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
    (tmp_path / "tls.key").write_text("-----BEGIN PRIVATE KEY-----\nMIIE\n")
    fresh.configure(TLS_CERTIFICATE=str(tmp_path / "tls.crt"), TLS_KEY=str(tmp_path / "tls.key"))
    error = fresh.refused("up", "--env", "local")
    assert "TLS_KEY is set, but the native server has no proxy for TLS" in error and "inv up --env dev" in error
    assert not fresh.home.exists() and not (fresh.root / ".secrets").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder of somebody else's")
def test_a_server_directory_of_somebody_else_is_named_with_its_fix(tmp_path: Path) -> None:
    from pypi_tasks.home import problem

    home = tmp_path / "devpi"
    home.mkdir()
    os.chown(home, 12345, 12345)
    found = problem(home, 1000, 1000)
    assert found is not None and "belongs to uid 12345" in str(found.message) and "chown -R 1000:1000" in str(found.message)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can leave files that the owner of a folder cannot write")
def test_root_does_not_run_it_in_a_folder_of_somebody_else(tmp_path: Path) -> None:
    fresh = checkout(tmp_path / "fresh", "pypi-test-root")
    fresh.home.mkdir()
    os.chown(fresh.home, 1000, 1000)
    error = fresh.refused("up", "--env", "local")
    assert "belongs to uid 1000" in error and "sudo -u '#1000'" in error
    assert not list(fresh.home.iterdir())


def test_two_tasks_at_once_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    import fcntl

    fresh = checkout(tmp_path / "fresh", "pypi-test-two")
    with (fresh.root / ".inv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another task is at work in this folder" in fresh.refused("up", "--env", "local")
        lock.write("upgrade")
        lock.flush()
        for task in ("up", "down", "restore", "rotate"):
            assert "`inv upgrade` is at work in this folder" in fresh.refused(task, "--env", "local")
        assert "`inv upgrade` is at work in this folder" in fresh.refused("rollback", "--env", "dev")
    assert not fresh.home.exists()
