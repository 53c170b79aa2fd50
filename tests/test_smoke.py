"""The smoke test's wheel is one that every installer takes, and pip looks for it at our index alone."""

import base64
import csv
import hashlib
import importlib.metadata
import io
import runpy
import zipfile
from pathlib import Path

import pytest

from pypi_tasks import smoke
from pypi_tasks.certificate import self_signed
from pypi_tasks.errors import Failed
from pypi_tasks.world import World
from tests.helpers import settings_of, told
from tests.workspace import free_port

VERSION = "2024.1.2.030405"


@pytest.fixture
def archive() -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(smoke.wheel(VERSION)[1]))


class TestWheel:
    def test_its_name_says_what_it_is(self) -> None:
        assert smoke.wheel(VERSION)[0] == f"pypi_tasks_smoke-{VERSION}-py3-none-any.whl"

    def test_its_record_lists_every_file_with_its_hash_and_size(self, archive: zipfile.ZipFile) -> None:
        info = f"pypi_tasks_smoke-{VERSION}.dist-info"
        rows = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode()))}
        assert set(rows) == set(archive.namelist())
        assert rows.pop(f"{info}/RECORD") == ("", "")
        for name, (digest, size) in rows.items():
            content = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={expected}", str(len(content)))

    def test_its_metadata_are_read_as_installers_do(self, archive: zipfile.ZipFile) -> None:
        folder = zipfile.Path(archive, f"pypi_tasks_smoke-{VERSION}.dist-info/")
        found = importlib.metadata.PathDistribution(folder)
        assert (found.metadata["Name"], found.version) == ("pypi-tasks-smoke", VERSION)
        wheel = (found.read_text("WHEEL") or "").splitlines()
        assert {"Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any"} <= set(wheel)

    def test_its_module_knows_its_version(self, archive: zipfile.ZipFile, tmp_path: Path) -> None:
        archive.extractall(tmp_path)
        assert runpy.run_path(str(tmp_path / "pypi_tasks_smoke.py"))["VERSION"] == VERSION

    def test_two_of_one_version_are_named_alike_and_of_two_versions_are_not(self) -> None:
        assert smoke.wheel("1.0")[0] == smoke.wheel("1.0")[0] != smoke.wheel("1.1")[0]


class TestEnvironmentOfPip:
    def test_looks_at_no_other_index(self) -> None:
        found = smoke.clean_environment({"PIP_INDEX_URL": "x", "PIP_EXTRA_INDEX_URL": "x", "PYTHONPATH": "x", "PATH": "/bin"})
        assert found["PATH"] == "/bin"
        assert not {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PYTHONPATH"} & set(found)
        assert found["PIP_CONFIG_FILE"] == "/dev/null"


class TestTls:
    """It trusts what clients have to trust, and calls the server by the name that the certificate is for."""

    def pair(self, folder: Path, names: list[str]) -> dict[str, str]:
        for name, text in zip(("tls.crt", "tls.key"), self_signed(names), strict=True):
            (folder / name).write_text(text)
        return {"TLS_CERTIFICATE": str(folder / "tls.crt"), "TLS_KEY": str(folder / "tls.key")}

    def test_without_it_the_server_is_reached_on_this_host(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, OUTSIDE_URL="https://pypi.example/devpi")
        assert smoke.address(settings) == "http://127.0.0.1:3141/pypi/stable"
        assert smoke.trusted(settings) is None
        assert smoke.certificates(settings) is True

    def test_with_it_the_server_is_reached_as_clients_reach_it(self, tmp_path: Path) -> None:
        pair = self.pair(tmp_path, ["pypi.example"])
        assert smoke.address(settings_of(tmp_path, **pair)) == "https://127.0.0.1:3141/pypi/stable"
        settings = settings_of(tmp_path, OUTSIDE_URL="https://pypi.example/devpi/", **pair)
        assert smoke.address(settings) == "https://pypi.example/devpi/pypi/stable"

    def test_a_self_signed_one_is_trusted_itself(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, **self.pair(tmp_path, ["localhost"]))
        assert smoke.trusted(settings) == tmp_path / "tls.crt"
        assert smoke.certificates(settings) == str(tmp_path / "tls.crt")


class TestRun:
    def test_dry_tells_the_three_steps(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        smoke.run(World(dry=True), settings_of(tmp_path))
        steps = capsys.readouterr().out.splitlines()
        assert [step.split(":")[1].strip() for step in steps] == ["upload", "install into a fresh environment", "remove"]
        assert all(step.startswith("would: ") and step.endswith("http://127.0.0.1:3141/pypi/stable/") for step in steps)

    def test_without_a_password_there_is_no_server(self, tmp_path: Path) -> None:
        with pytest.raises(Failed) as caught:
            smoke.run(World(), settings_of(tmp_path))
        assert "there is no password yet" in told(caught)
        assert "Fix: inv up" in told(caught)

    def test_without_a_server_it_says_so_and_no_password(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = settings_of(tmp_path, DEVPI_PORT=str(free_port()))
        settings.secrets_home.mkdir()
        (settings.secrets_home / "user_password").write_text("hunter2\n")
        with pytest.raises(Failed) as caught:
            smoke.run(World(), settings)
        assert f"{settings.url}/pypi/stable does not answer" in told(caught)
        assert "Fix: inv up" in told(caught)
        assert "hunter2" not in told(caught) + "".join(capsys.readouterr())
