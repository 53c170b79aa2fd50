"""Upload wheels as twine does: files of a folder, or ever new versions of a tiny project of our own.

The job is ``{"path": "/pypi/stable/", "files": ["/wheels/..."], "project": "name", "first": 1, "last": 1000,
"every": 1.0, "until": 120, "login": true, "token": false}``; the outcome is the seconds that each upload took.
``every`` spaces them out, ``until`` seconds are the limit for all of them, ``token`` logs in once instead of each time,
which is no measure of what twine does, but quick.
"""

import base64
import email
import hashlib
import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import requests
from job import PASSWORD, SERVER, Job, main, session


def tiny_wheel(project: str, version: str) -> tuple[str, bytes]:
    """File name and content of a wheel with one module (PEP 427)."""
    module = project.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\nSummary: benchmark\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(text)}\n")
    files[f"{info}/RECORD"] = "".join(record) + f"{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return f"{module}-{version}-py3-none-any.whl", buffer.getvalue()


def form(content: bytes) -> dict[str, str]:
    """What twine tells about a wheel, as far as a page shows it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    told = {
        ":action": "file_upload", "protocol_version": "1", "filetype": "bdist_wheel", "pyversion": "py3",
        "sha256_digest": hashlib.sha256(content).hexdigest(), "metadata_version": metadata["Metadata-Version"],
        "name": metadata["Name"], "version": metadata["Version"],
    }  # fmt: skip
    return told | ({"requires_python": metadata["Requires-Python"]} if metadata["Requires-Python"] else {})


def wheels(job: Job) -> Iterator[tuple[str, bytes]]:
    """Names and contents, one after the other."""
    for file in job.get("files", []):
        yield Path(file).name, Path(file).read_bytes()
    for number in range(job.get("first", 1), job.get("last", 0) + 1):
        yield tiny_wheel(job["project"], f"1.{number}")


def credentials(client: requests.Session, job: Job) -> tuple[str, str] | None:
    """The user's password, or a token that stands for it."""
    if not job.get("login"):
        return None
    password = PASSWORD.read_text(encoding="utf-8").strip()
    if not job.get("token"):
        return "pypi", password
    answer = client.post(f"{SERVER}/+login", json={"user": "pypi", "password": password}, timeout=60)
    answer.raise_for_status()
    return "pypi", answer.json()["result"]["password"]


def upload(job: Job) -> list[float]:
    """The seconds that each upload took, in order."""
    client = session()
    auth = credentials(client, job)
    took: list[float] = []
    start = time.monotonic()
    for name, content in wheels(job):
        time.sleep(max(0.0, start + len(took) * job.get("every", 0) - time.monotonic()))
        if time.monotonic() - start > job.get("until", 3600):
            break
        data = form(content)
        begun = time.monotonic()
        answer = client.post(f"{SERVER}{job['path']}", data=data, files={"content": (name, content)}, auth=auth, timeout=120)
        took.append(time.monotonic() - begun)
        answer.raise_for_status()
    return took


if __name__ == "__main__":
    main(upload)
