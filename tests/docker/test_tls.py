"""TLS by setting: a pair for trying out by one task, real clients that trust it, plain HTTP redirected, renewal without a gap."""

import http.client
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from pypi_tasks.world import poll
from tests.conftest import inspect
from tests.packages import build_wheel, new_version
from tests.workspace import Workspace

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def stack(workspace: Workspace) -> Workspace:
    """The dev stack with the pair that `inv certificate` made."""
    shown = workspace.inv("certificate").stdout
    assert f"TLS_CERTIFICATE={certificate(workspace)}" in shown
    use_pair(workspace)
    shown = workspace.inv("up", "--env", "dev", timeout=600).stdout
    assert f"--index-url https://127.0.0.1:{workspace.port}/pypi/stable/+simple/" in shown
    return workspace


def certificate(stack: Workspace) -> Path:
    return stack.root / ".secrets" / "self_signed.pem"


def use_pair(stack: Workspace) -> None:
    stack.configure(TLS_CERTIFICATE=str(certificate(stack)), TLS_KEY=str(certificate(stack).with_suffix(".key")))


def served(stack: Workspace) -> str:
    """The certificate that the proxy shows."""
    return ssl.get_server_certificate(("127.0.0.1", int(stack.port)))


def test_twine_uploads_and_pip_and_uv_install_when_they_trust_the_pair(stack: Workspace, tmp_path: Path) -> None:
    version, trust = new_version(), str(certificate(stack))
    index = f"https://127.0.0.1:{stack.port}/pypi/stable"
    stack.run(
        sys.executable, "-m", "twine", "upload", "--disable-progress-bar", "--non-interactive", "--cert", trust,
        "--repository-url", f"{index}/", "-u", "pypi", str(build_wheel(tmp_path, version)),
        TWINE_PASSWORD=stack.password, REQUESTS_CA_BUNDLE=trust,
    )  # fmt: skip
    wanted = f"pypi-tasks-smoke=={version}"
    for target, argv in {
        "pip": [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--index-url", f"{index}/+simple/"],
        "uv": ["uv", "pip", "install", "--no-cache", "--python", sys.executable, "--default-index", f"{index}/+simple/"],
    }.items():
        stack.run(*argv, "-q", "--target", str(tmp_path / target), wanted, REQUESTS_CA_BUNDLE=trust, SSL_CERT_FILE=trust)
        assert version in (tmp_path / target / "pypi_tasks_smoke.py").read_text()


def test_a_client_that_does_not_trust_it_gets_nothing(stack: Workspace) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", int(stack.port), context=ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        connection.request("GET", "/pypi/stable/+simple/")


def test_plain_http_is_redirected_to_the_fixed_name_whatever_host_was_asked_for(stack: Workspace) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(stack.port), timeout=10)
    connection.request("GET", "/pypi/stable/+simple/?x=1", headers={"Host": "evil.example"})
    response = connection.getresponse()
    assert response.status == 308
    assert response.headers["Location"] == f"https://127.0.0.1:{stack.port}/pypi/stable/+simple/?x=1"


def test_the_smoke_test_and_the_status_work_by_tls(stack: Workspace) -> None:
    assert "smoke test passed" in stack.inv("smoke").stdout
    assert f"https://127.0.0.1:{stack.port}/pypi/stable/ answers" in stack.inv("status").stdout


def test_the_key_is_a_file_that_the_proxy_alone_reads_and_shows_nowhere(stack: Workspace) -> None:
    stored = stack.root / ".secrets" / "tls_key"
    assert stored.stat().st_mode & 0o777 == 0o600
    secret = stored.read_text().splitlines()[1]
    name = f"{stack.project}-dev-proxy-1"
    logs = subprocess.run(["docker", "logs", name], capture_output=True, text=True)
    assert secret not in str(inspect(name)) + logs.stdout + logs.stderr
    assert secret not in (stack.root / ".rendered" / "docker-compose-dev.yaml").read_text()


def test_a_renewed_pair_is_taken_over_by_the_running_proxy(stack: Workspace) -> None:
    before, container = served(stack), inspect(f"{stack.project}-dev-proxy-1")["Id"]
    assert before == certificate(stack).read_text()
    trust = ssl.create_default_context(cafile=str(certificate(stack)))
    plain = socket.create_connection(("127.0.0.1", int(stack.port)))
    with trust.wrap_socket(plain, server_hostname="127.0.0.1") as opened:
        stack.configure(TLS_CERTIFICATE="", TLS_KEY="")
        stack.inv("certificate")
        use_pair(stack)
        stack.inv("up", "--env", "dev")
        assert poll(lambda: served(stack) == certificate(stack).read_text() != before, 20)
        assert inspect(f"{stack.project}-dev-proxy-1")["Id"] == container
        opened.sendall(b"GET /+api HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\nConnection: close\r\n\r\n")
        assert opened.recv(1024).startswith(b"HTTP/1.1 200")


def test_a_pair_that_cannot_work_is_refused_before_anything_is_changed(stack: Workspace) -> None:
    assert "expected a file of a private key in PEM form" in stack.refused("up", "--env", "dev", TLS_KEY=str(certificate(stack)))
    assert "expected https://" in stack.refused("up", "--env", "dev", OUTSIDE_URL="http://pypi.example")
    assert "has no proxy for TLS" in stack.refused("up", "--env", "local")
    assert served(stack) == certificate(stack).read_text()
