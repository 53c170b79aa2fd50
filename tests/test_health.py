"""The image's health check: does the server answer where it was told to listen?"""

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import health
import pytest

from pypi_tasks.settings import ROOT
from tests.workspace import free_port


class Devpi(http.server.ThreadingHTTPServer):
    """Stands in for a server that is in trouble, which the real one cannot be told to be."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.status = status


class Page(http.server.BaseHTTPRequestHandler):
    """Answers one page with the status that the server was given."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Devpi)
        self.send_response(self.server.status if self.path == "/+api" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture(params=[200])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server that answers with the parameter's status."""
    with Devpi(request.param) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.server_port
        server.shutdown()


def exit_code(**environ: str) -> int:
    """Of the script, run as the image runs it."""
    argv = [sys.executable, "-I", str(ROOT / "pypi_server" / "health.py")]
    return subprocess.run(argv, env={"PATH": os.defpath, **environ}, capture_output=True).returncode


class TestAddress:
    def test_is_devpis_default_where_nothing_is_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DEVPISERVER_HOST", raising=False)
        monkeypatch.delenv("DEVPISERVER_PORT", raising=False)
        assert health.address() == ("127.0.0.1", 3141)

    @pytest.mark.parametrize(
        ("host", "seen"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7"), ("::1", "::1")]
    )
    def test_is_where_the_server_was_told_to_listen(self, monkeypatch: pytest.MonkeyPatch, host: str, seen: str) -> None:
        monkeypatch.setenv("DEVPISERVER_HOST", host)
        monkeypatch.setenv("DEVPISERVER_PORT", "4040")
        assert health.address() == (seen, 4040)


class TestHealthy:
    def test_a_server_that_answers(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        monkeypatch.setenv("DEVPISERVER_PORT", str(port))
        assert health.healthy()

    def test_a_server_behind_a_proxy_that_answers_at_its_socket(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("DEVPISERVER_UNIX_SOCKET", str(tmp_path / "socket"))
        assert not health.healthy()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "socket"))
            server.listen()

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    assert connection.recv(1024).startswith(b"GET /+api HTTP/1.1\r\n")
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            assert health.healthy()
            thread.join()

    @pytest.mark.parametrize("port", [404, 500, 503, 302], indirect=True)
    def test_a_server_that_answers_with_anything_but_200_is_not(self, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
        monkeypatch.setenv("DEVPISERVER_PORT", str(port))
        assert not health.healthy()

    def test_nobody_there_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEVPISERVER_PORT", str(free_port()))
        assert not health.healthy()

    def test_another_protocol_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def speak() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1024)
                    connection.sendall(b"SSH-2.0-OpenSSH\r\n")

            thread = threading.Thread(target=speak)
            thread.start()
            monkeypatch.setenv("DEVPISERVER_PORT", str(server.getsockname()[1]))
            assert not health.healthy()
            thread.join()


class TestScript:
    def test_exits_0_when_healthy(self, port: int) -> None:
        assert exit_code(DEVPISERVER_HOST="0.0.0.0", DEVPISERVER_PORT=str(port)) == 0

    def test_exits_1_when_not(self) -> None:
        assert exit_code(DEVPISERVER_PORT=str(free_port())) == 1
