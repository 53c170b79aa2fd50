"""An index upstream that is slow, broken or changed when a test wants it to be, and counts what it is asked."""

import contextlib
import hashlib
import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.raw import JSON, Uploader
from tests.workspace import Workspace


class Upstream(ThreadingHTTPServer):
    """Projects as PEP 691 has them, and their files."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), Handler)
        self.projects: dict[str, list[dict[str, Any]]] = {}
        self.contents: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.status = 200
        self.wait = threading.Event()  # until it is set, nothing is answered
        self.wait.set()
        self.delay = 0.0  # seconds before each answer
        self.refuses = self.cuts = False  # whether connections are closed at once, or answers in the middle
        self.lock = threading.Lock()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}"

    def verify_request(self, *_: object) -> bool:
        return not self.refuses

    def add(self, name: str, version: str, **attributes: Any) -> str:
        """Release a wheel; returns its file name."""
        file, content = Uploader.wheel(name, version)
        self.contents[f"/files/{file}"] = content
        digest = hashlib.sha256(content).hexdigest()
        entry = {"filename": file, "url": f"{self.url}/files/{file}", "hashes": {"sha256": digest}, **attributes}
        self.projects.setdefault(name, []).append(entry)
        return file

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Status, type and body."""
        with self.lock:
            self.asked[path] += 1
            self.running[path] += 1
            self.most[path] = max(self.most[path], self.running[path])
        try:
            self.wait.wait(120)
            time.sleep(self.delay)
            if self.status != 200:
                return self.status, "text/plain", b"out of order"
            if path in self.contents:
                return 200, "application/octet-stream", self.contents[path]
            name = path.removeprefix("/simple/").rstrip("/")
            if name not in self.projects:
                return 404, "text/plain", b"no such project"
            page = {"meta": {"api-version": "1.0"}, "name": name, "files": self.projects[name]}
            return 200, JSON["Accept"], json.dumps(page).encode()
        finally:
            with self.lock:
                self.running[path] -= 1


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.server.refuses:  # also on a connection that was open before
            self.close_connection = True
            return
        status, type, body = self.server.answer(self.path)
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.close_connection = self.close_connection or self.server.cuts
            self.wfile.write(body[: len(body) // 2] if self.server.cuts else body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def upstream(stack: Workspace) -> Iterator[Upstream]:
    """One that the stack's containers reach, at their network's own address of this host."""
    gateway = "{{(index .IPAM.Config 0).Gateway}}"
    argv = ["docker", "network", "inspect", "--format", gateway, f"{stack.project}-dev_default"]
    server = Upstream(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.wait.set()
        server.shutdown()
        server.server_close()
