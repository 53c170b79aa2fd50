"""The smoke test: a tiny wheel goes up, comes down by pip, and is removed again."""

import base64
import hashlib
import io
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from pypi_tasks.errors import Failed
from pypi_tasks.settings import Settings
from pypi_tasks.terminal import progress
from pypi_tasks.world import World

NAME = "pypi-tasks-smoke"
MODULE = "pypi_tasks_smoke"


def wheel(version: str) -> tuple[str, bytes]:
    """File name and content of a wheel with one module (PEP 427)."""
    info = f"{MODULE}-{version}.dist-info"
    files = {
        f"{MODULE}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\nSummary: smoke test\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: pypi-tasks\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(text.encode())}\n")
    files[f"{info}/RECORD"] = "".join(record) + f"{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return f"{MODULE}-{version}-py3-none-any.whl", buffer.getvalue()


def clean_environment(environ: dict[str, str]) -> dict[str, str]:
    """The environment without what would let pip look anywhere but at the index."""
    kept = {name: value for name, value in environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1", "NO_PROXY": "*"}


def address(settings: Settings) -> str:
    """The index as the test reaches it: by TLS under the name that the certificate is for, else on this host."""
    return f"{settings.client_url if settings.tls_key else settings.url}/{settings.index}"


def trusted(settings: Settings) -> Path | None:
    """The certificates to trust; None for the usual ones."""
    from pypi_tasks.certificate import is_self_signed

    if settings.tls_certificate and is_self_signed(settings.tls_certificate):
        return settings.tls_certificate
    return settings.ca_bundle if settings.tls_key else None


def certificates(settings: Settings) -> str | bool:
    """``trusted`` as requests takes it."""
    return str(trusted(settings) or "") or True


def upload(settings: Settings, version: str, password: str) -> None:
    """Upload as twine does (PyPI's legacy upload API); devpi answers 200."""
    import requests

    name, content = wheel(version)
    form = {
        ":action": "file_upload", "protocol_version": "1", "metadata_version": "2.1", "name": NAME, "version": version,
        "filetype": "bdist_wheel", "pyversion": "py3", "sha256_digest": hashlib.sha256(content).hexdigest(),
    }  # fmt: skip
    with requests.Session() as session:
        session.trust_env = False
        response = session.post(
            f"{address(settings)}/", data=form, files={"content": (name, content)},
            auth=(settings.devpi_user, password), timeout=60, verify=certificates(settings),
        )  # fmt: skip
    if response.status_code != 200:
        fixes = {401: "the stored password is not the server's: PYPI_PASSWORD=... inv up", 404: "`inv up` makes the index"}
        fix = fixes.get(response.status_code, "inv logs")
        raise Failed(f"upload of {name} answered {response.status_code} {response.reason}.", fix)


def remove(settings: Settings, password: str) -> None:
    """Remove the smoke project; ``force`` because the index may keep releases otherwise."""
    import requests

    with requests.Session() as session:
        session.trust_env = False
        credentials = (settings.devpi_user, password)
        verify = certificates(settings)
        response = session.delete(f"{address(settings)}/{NAME}?force", auth=credentials, timeout=60, verify=verify)
    if response.status_code not in (200, 404):
        raise Failed(f"removal of {NAME} answered {response.status_code} {response.reason}.")


def install(world: World, settings: Settings, version: str) -> None:
    """Install into a fresh environment through the index, and import."""
    with tempfile.TemporaryDirectory(prefix="smoke-") as folder:
        python = str(Path(folder) / "bin" / "python")
        environment = clean_environment(dict(os.environ))
        world.feed([sys.executable, "-m", "venv", folder], "")
        if bundle := trusted(settings):
            environment["REQUESTS_CA_BUNDLE"] = str(bundle)  # it wins over PIP_CERT
        index = f"{address(settings)}/+simple/"
        world.feed([python, "-m", "pip", "install", "-q", "--index-url", index, f"{NAME}=={version}"], "", environment)
        seen = world.feed([python, "-c", f"import {MODULE}; print({MODULE}.VERSION)"], "", environment).strip()
    if seen != version:
        raise Failed(f"installed {version}, but found {seen!r}.")


def run(world: World, settings: Settings, password: str = "") -> None:
    """The whole round, with the stored password if no other is given; the wheel is removed whatever happens."""
    version = time.strftime("%Y.%m.%d.%H%M%S", time.gmtime())
    if world.dry:
        for step in ("upload", "install into a fresh environment", "remove"):
            world.announce(f"{step}: {NAME} {version} at {address(settings)}/")
        return
    import requests

    stored = settings.secrets_home / "user_password"
    if not password and not stored.exists():
        raise Failed(f"there is no password yet in {stored}.", fix="inv up")
    try:
        password = password or stored.read_text(encoding="utf-8").strip()
        started = time.monotonic()
        with progress("the server to take it"):
            world.act(f"upload {NAME} {version} to {address(settings)}/", lambda: upload(settings, version, password))
        try:
            with progress("pip"):
                install(world, settings, version)
        finally:
            world.act(f"remove {NAME} {version}", lambda: remove(settings, password))
        world.say(f"smoke test passed in {time.monotonic() - started:.1f} s")
    except requests.RequestException as error:
        raise Failed(f"{address(settings)} does not answer ({type(error).__name__}).", fix="inv up; inv status") from None
