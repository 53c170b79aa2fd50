"""A real registry: the docker-registry program, on loopback, with or without a password."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pypi_tasks.world import poll
from tests.workspace import free_port


@dataclass
class Registry:
    """A running registry."""

    host: str

    @staticmethod
    @contextlib.contextmanager
    def start(folder: Path, password: str = "") -> "Iterator[Registry]":
        """Run one until the block ends; with a password, for user ``test``, anybody else is refused."""
        if not shutil.which("docker-registry"):
            why = "no docker-registry program; Debian's package of that name has it"
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
        host = f"127.0.0.1:{free_port()}"
        config = f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: '{host}'}}\n"
        if password:
            hashed = subprocess.run(["htpasswd", "-nbB", "test", password], capture_output=True, text=True, check=True)
            (folder / "htpasswd").write_text(hashed.stdout)
            config += f"auth: {{htpasswd: {{realm: test, path: {folder / 'htpasswd'}}}}}\n"
        (folder / "config.yml").write_text(config)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log)
        try:
            assert poll(lambda: Registry(host).answers(), 20), (folder / "log").read_text()
            yield Registry(host)
        finally:
            process.terminate()
            process.wait(timeout=10)

    def get(self, path: str) -> tuple[int, str, bytes]:
        """Status, digest header and body of a GET."""
        connection = http.client.HTTPConnection(self.host, timeout=5)
        accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
        connection.request("GET", path, headers={"Accept": accept})
        response = connection.getresponse()
        return response.status, response.headers.get("Docker-Content-Digest", ""), response.read()

    def answers(self) -> bool:
        """Whether it is up, be it only to refuse."""
        with contextlib.suppress(OSError):
            return self.get("/v2/")[0] in (200, 401)
        return False

    def tags(self, image: str) -> list[str]:
        """The tags that it has for an image."""
        return sorted(json.loads(self.get(f"/v2/{image}/tags/list")[2]).get("tags") or [])

    def digest(self, image: str, tag: str) -> str:
        """The digest that it has under a tag."""
        return self.get(f"/v2/{image}/manifests/{tag}")[1]
