"""Tiny packages of the tests' own, and the real clients: twine, pip, uv."""

import io
import sys
import uuid
import zipfile
from pathlib import Path

from pypi_tasks import smoke
from tests.workspace import Workspace


def new_version() -> str:
    """A version that no other test uploads."""
    return f"1.{uuid.uuid4().int % 10**9}"


def build_wheel(folder: Path, version: str) -> Path:
    """A wheel of the smoke package."""
    name, content = smoke.wheel(version)
    path = folder / name
    path.write_bytes(content)
    return path


def rename(wheel: bytes, name: str) -> bytes:
    """The smoke package under another project's name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(wheel)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            text = old.read(entry).decode().replace(smoke.NAME, name).replace(smoke.MODULE, name)
            if not entry.endswith("RECORD"):
                new.writestr(entry.replace(smoke.MODULE, name), text)
            else:
                kept = [line.split(",")[0] + ",," for line in text.splitlines()]
                new.writestr(entry.replace(smoke.MODULE, name), "\n".join(kept) + "\n")
    return buffer.getvalue()


def twine_upload(workspace: Workspace, wheel: Path, index: str = "", password: str = "") -> None:
    """Upload with twine, the password in the environment as the README says."""
    workspace.run(
        sys.executable, "-m", "twine", "upload", "--disable-progress-bar", "--non-interactive",
        "--repository-url", f"{index or workspace.index}/", "-u", "pypi", str(wheel),
        TWINE_PASSWORD=password or workspace.password,
    )  # fmt: skip


def pip_install(workspace: Workspace, target: Path, *requirements: str, index: str = "") -> None:
    """Install with pip, from the index alone."""
    workspace.run(
        sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--target", str(target),
        "--index-url", f"{index or workspace.index}/+simple/", *requirements,
    )  # fmt: skip


def uv_install(workspace: Workspace, target: Path, *requirements: str, index: str = "") -> None:
    """Install with uv, from the index alone."""
    workspace.run(
        "uv", "pip", "install", "-q", "--no-cache", "--python", sys.executable, "--target", str(target),
        "--default-index", f"{index or workspace.index}/+simple/", *requirements,
    )  # fmt: skip
