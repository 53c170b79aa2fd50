"""What an image is made from: the commit, its time, and whether the image's own folder differs from it."""

import os
import subprocess
from pathlib import Path

import pytest

from pypi_tasks import revision
from pypi_tasks.errors import BadInput
from pypi_tasks.revision import Revision
from pypi_tasks.settings import ROOT
from pypi_tasks.world import World
from tests.helpers import told

TIME = 1_700_000_000


def git(root: Path, *words: str) -> str:
    """Run git as somebody, at a fixed time, whatever this machine's configuration is."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in WHO.items()}
    argv = ["git", "-C", str(root), *words]
    return subprocess.run(argv, env=os.environ | who, check=True, capture_output=True, text=True).stdout.strip()


WHO = {"NAME": "A", "EMAIL": "a@example.com", "DATE": f"{TIME} +0000"}


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration of this machine, and no repository around the test's own."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "notes").write_text("one\n")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def read(root: Path) -> Revision:
    return revision.read(World(), root, root / "app")


class TestRead:
    def test_a_clean_checkout_is_its_commit_and_the_commits_time(self, repository: Path) -> None:
        commit = git(repository, "rev-parse", "HEAD")
        assert read(repository) == Revision(commit, TIME, dirty=False)

    def test_a_changed_file_of_the_image_makes_it_dirty(self, repository: Path) -> None:
        (repository / "app" / "Dockerfile").write_text("FROM other\n")
        assert read(repository) == Revision(git(repository, "rev-parse", "HEAD"), TIME, dirty=True)

    def test_a_new_file_of_the_image_makes_it_dirty(self, repository: Path) -> None:
        (repository / "app" / "new").write_text("")
        assert read(repository).dirty

    def test_a_staged_change_is_not_committed_yet(self, repository: Path) -> None:
        (repository / "app" / "Dockerfile").write_text("FROM other\n")
        git(repository, "add", ".")
        assert read(repository).dirty

    def test_a_change_elsewhere_does_not(self, repository: Path) -> None:
        (repository / "notes").write_text("two\n")
        assert not read(repository).dirty

    def test_an_ignored_file_does_not(self, repository: Path) -> None:
        (repository / "app" / "__pycache__").mkdir()
        (repository / "app" / "__pycache__" / "x.pyc").write_bytes(b"\0")
        assert not read(repository).dirty

    def test_outside_a_checkout_it_is_unknown(self, tmp_path: Path) -> None:
        (tmp_path / "app").mkdir()
        assert read(tmp_path) == Revision("unknown", 0, dirty=False)

    def test_before_the_first_commit_it_is_unknown(self, tmp_path: Path) -> None:
        git(tmp_path, "init", "--quiet")
        assert read(tmp_path) == Revision("unknown", 0, dirty=False)


class TestDevpiVersion:
    def test_is_what_the_lock_file_pins(self, tmp_path: Path) -> None:
        (tmp_path / "pypi_server").mkdir()
        lock = (
            "devpi-common==4.1.1 \\\n    --hash=sha256:00\ndevpi-server==6.20.3 ; python_version > '3' \\\n    --hash=sha256:01\n"
        )
        (tmp_path / "pypi_server" / "requirements.txt").write_text(lock)
        assert revision.devpi_version(tmp_path) == "6.20.3"

    def test_is_there_for_ours(self) -> None:
        assert revision.devpi_version(ROOT)[0].isdigit()

    @pytest.mark.parametrize("text", [None, "", "devpi-web==5.0\n"])
    def test_a_lock_file_without_it_is_told(self, tmp_path: Path, text: str | None) -> None:
        (tmp_path / "pypi_server").mkdir()
        if text is not None:
            (tmp_path / "pypi_server" / "requirements.txt").write_text(text)
        with pytest.raises(BadInput) as caught:
            revision.devpi_version(tmp_path)
        assert "requirements.txt pins no devpi-server" in told(caught)
        assert "inv lock" in told(caught)
