"""Every folder with a Dockerfile is an image: which are meant, how they are built, what they are called, when they are stale."""

import dataclasses
import itertools
import os
import re
from pathlib import Path

import pytest

from pypi_tasks import image
from pypi_tasks.errors import BadInput
from pypi_tasks.image import Image
from pypi_tasks.revision import Revision
from pypi_tasks.settings import ROOT
from pypi_tasks.world import World
from tests.helpers import settings_of, told

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLEAN = Revision(COMMIT, 1_700_000_000, dirty=False)
CONTEXT = "sha256:" + "ab" * 32


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with two images, and folders that are none."""
    for name in ("app", "base", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "app" / "Dockerfile").write_text("ARG PYTHON_IMAGE=other:1\nFROM ${PYTHON_IMAGE}\n")
    (tmp_path / "docs").mkdir()
    return tmp_path


def names(images: list[Image]) -> list[str]:
    return [one.name for one in images]


class TestSelect:
    def test_no_name_means_all(self, project: Path) -> None:
        assert names(image.select([], project)) == ["app", "base"]

    def test_names_are_taken_in_their_order(self, project: Path) -> None:
        assert names(image.select(["base", "app"], project)) == ["base", "app"]

    def test_a_name_given_twice_is_built_once(self, project: Path) -> None:
        assert names(image.select(["app", "base", "app"], project)) == ["app", "base"]

    def test_the_slash_of_shell_completion_is_no_part_of_the_name(self, project: Path) -> None:
        assert names(image.select(["app/", "app"], project)) == ["app"]

    def test_a_misspelt_name_lists_the_known_ones_and_the_nearest(self, project: Path) -> None:
        with pytest.raises(BadInput) as caught:
            image.select(["app", "bsae"], project)
        assert "'bsae' is neither an image nor a task. Did you mean base?" in told(caught)
        assert "known images: app, base" in told(caught)

    def test_a_name_that_is_near_nothing_suggests_nothing(self, project: Path) -> None:
        with pytest.raises(BadInput) as caught:
            image.select(["zzz"], project)
        assert "Did you mean" not in told(caught)
        assert "known images: app, base" in told(caught)

    def test_a_project_without_images_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="has a Dockerfile"):
            image.select([], tmp_path)

    def test_ours_are_the_proxy_and_the_server(self) -> None:
        assert image.known() == [Image(name, ROOT / name) for name in ("pypi_proxy", "pypi_server")]


class TestBuildCommand:
    def test_is_exactly_this(self, project: Path) -> None:
        one, settings = Image("app", project / "app"), settings_of(project)
        assert image.build_argv(one, settings, CLEAN, "6.20.3") == [
            "docker", "buildx", "build", "--tag", "app:latest", "--tag", "app:pypi", "--provenance=false",
            "--build-arg", "PYTHON_IMAGE=python:3.13-slim-trixie",
            "--build-arg", "SOURCE_DATE_EPOCH=1700000000",
            "--label", "org.opencontainers.image.title=app",
            "--label", "org.opencontainers.image.version=6.20.3",
            "--label", f"org.opencontainers.image.revision={COMMIT}",
            "--label", "org.opencontainers.image.created=2023-11-14T22:13:20Z",
            "--label", "org.opencontainers.image.source=pypi/app",
            "--label", "pypi-tasks.project=pypi",
            "--label", f"pypi-tasks.context={image.context_digest(one, settings)}",
            str(project / "app"),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("no_cache", "pull", "added"),
        [(True, False, ["--no-cache"]), (False, True, ["--pull"]), (True, True, ["--no-cache", "--pull"])],
    )
    def test_takes_the_flags_that_were_asked_for(self, project: Path, no_cache: bool, pull: bool, added: list[str]) -> None:
        one, settings = Image("app", project / "app"), settings_of(project)
        plain = image.build_argv(one, settings, CLEAN, "6.20.3")
        assert image.build_argv(one, settings, CLEAN, "6.20.3", no_cache, pull) == plain[:8] + added + plain[8:]

    def test_passes_the_certificates_as_a_secret_and_in_no_other_way(self, project: Path) -> None:
        bundle = project / "ca.pem"
        bundle.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
        one = Image("app", project / "app")
        plain = image.build_argv(one, settings_of(project), CLEAN, "6.20.3")
        trusting = image.build_argv(one, settings_of(project, CA_BUNDLE=str(bundle)), CLEAN, "6.20.3")
        assert trusting == [*plain[:-1], "--secret", f"id=ca_bundle,src={bundle}", plain[-1]]

    def test_names_the_base_image_that_was_set(self, project: Path) -> None:
        argv = image.build_argv(Image("app", project / "app"), settings_of(project, PYTHON_IMAGE="mine:1"), CLEAN, "6.20.3")
        assert "PYTHON_IMAGE=mine:1" in argv

    @pytest.mark.parametrize(
        ("name", "base"), [("pypi_server", "PYTHON_IMAGE=mine:1"), ("pypi_proxy", "NGINX_IMAGE=mine:2"), ("base", None)]
    )
    def test_names_the_base_that_its_dockerfile_takes_and_no_other(self, project: Path, name: str, base: str | None) -> None:
        folder = ROOT / name if (ROOT / name).exists() else project / name
        settings = settings_of(project, PYTHON_IMAGE="mine:1", NGINX_IMAGE="mine:2")
        argv = image.build_argv(Image(name, folder), settings, CLEAN, "6.20.3")
        arguments = [value for option, value in itertools.pairwise(argv) if option == "--build-arg"]
        assert arguments == [*([base] if base else []), "SOURCE_DATE_EPOCH=1700000000"]

    def test_holds_no_password(self, project: Path) -> None:
        settings = settings_of(project, PYPI_PASSWORD="hunter2", ROOT_PASSWORD="hunter2")
        assert "hunter2" not in " ".join(image.build_argv(Image("app", project / "app"), settings, CLEAN, "6.20.3"))


class TestLabels:
    def test_an_uncommitted_change_shows_in_the_revision(self, project: Path) -> None:
        dirty = dataclasses.replace(CLEAN, dirty=True)
        made = image.labels(Image("app", project / "app"), settings_of(project), dirty, "6.20.3")
        assert made["org.opencontainers.image.revision"] == f"{COMMIT}-dirty"

    def test_project_and_source_are_the_settings(self, project: Path) -> None:
        settings = settings_of(project, PROJECT="team", SOURCE_URL="https://git.example/team/pypi")
        made = image.labels(Image("app", project / "app"), settings, CLEAN, "6.20.3")
        assert made["pypi-tasks.project"] == "team"
        assert made["org.opencontainers.image.source"] == "https://git.example/team/pypi"


class TestContextDigest:
    """Decides whether an image is up to date: it changes with all that a build reads, and with nothing else."""

    @pytest.fixture
    def one(self, project: Path) -> Image:
        (project / "app" / "run.sh").write_text("#!/bin/sh\n")
        (project / "app" / "run.sh").chmod(0o644)
        return Image("app", project / "app")

    def test_is_a_digest(self, one: Image, tmp_path: Path) -> None:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", image.context_digest(one, settings_of(tmp_path)))

    def test_stays_when_nothing_changes(self, one: Image, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        assert image.context_digest(one, settings) == image.context_digest(one, settings)

    def test_changes_with_the_content_of_a_file(self, one: Image, tmp_path: Path) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        (one.folder / "run.sh").write_text("#!/bin/bash\n")
        assert image.context_digest(one, settings_of(tmp_path)) != before

    def test_changes_with_the_mode_of_a_file(self, one: Image, tmp_path: Path) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        (one.folder / "run.sh").chmod(0o755)
        assert image.context_digest(one, settings_of(tmp_path)) != before

    def test_changes_with_the_name_of_a_file(self, one: Image, tmp_path: Path) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        (one.folder / "run.sh").rename(one.folder / "start.sh")
        assert image.context_digest(one, settings_of(tmp_path)) != before

    @pytest.mark.parametrize("name", ["new", "deep/er/new", ".dockerignore"])
    def test_changes_with_a_new_file(self, one: Image, tmp_path: Path, name: str) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        (one.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (one.folder / name).write_text("")
        assert image.context_digest(one, settings_of(tmp_path)) != before

    def test_changes_with_a_build_argument(self, one: Image, tmp_path: Path) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        assert image.context_digest(one, settings_of(tmp_path, PYTHON_IMAGE="mine:1")) != before

    def test_does_not_change_with_the_base_of_another_image(self, one: Image, tmp_path: Path) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        assert image.context_digest(one, settings_of(tmp_path, NGINX_IMAGE="mine:1")) == before

    def test_changes_with_the_project_whose_label_it_carries(self, one: Image, tmp_path: Path) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        assert image.context_digest(one, settings_of(tmp_path, PROJECT="team")) != before

    def test_does_not_change_with_settings_of_the_server(self, one: Image, tmp_path: Path) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        assert (
            image.context_digest(one, settings_of(tmp_path, DEVPI_PORT="4040", TAG="x", DEVPI_UID="77", HOLD_SECONDS="1"))
            == before
        )

    def test_does_not_change_with_byte_code(self, one: Image, tmp_path: Path) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        (one.folder / "__pycache__").mkdir()
        (one.folder / "__pycache__" / "run.cpython-313.pyc").write_bytes(b"\0")
        assert image.context_digest(one, settings_of(tmp_path)) == before

    def test_does_not_change_with_the_time_of_a_file(self, one: Image, tmp_path: Path) -> None:
        before = image.context_digest(one, settings_of(tmp_path))
        os.utime(one.folder / "run.sh", (1, 1))
        assert image.context_digest(one, settings_of(tmp_path)) == before


class TestNames:
    def test_a_tag_is_published_with_a_colon(self, project: Path) -> None:
        assert Image("app", project).published("127.0.0.1:5000", "6.20.3") == "127.0.0.1:5000/app:6.20.3"

    def test_a_digest_is_published_with_an_at_sign(self, project: Path) -> None:
        assert Image("app", project).published("registry.example/team", CONTEXT) == f"registry.example/team/app@{CONTEXT}"

    def test_the_immutable_tag_is_version_and_commit(self) -> None:
        found = {image.VERSION_LABEL: "6.20.3", image.REVISION_LABEL: COMMIT, image.CONTEXT_LABEL: CONTEXT}
        assert image.immutable_tag(found) == "6.20.3-0123456789ab"

    def test_an_uncommitted_context_adds_its_own_digest(self) -> None:
        found = {image.VERSION_LABEL: "6.20.3", image.REVISION_LABEL: f"{COMMIT}-dirty", image.CONTEXT_LABEL: CONTEXT}
        assert image.immutable_tag(found) == "6.20.3-0123456789ab-dirty-abababababab"

    def test_an_unknown_commit_is_told_apart_by_the_context_too(self) -> None:
        found = {image.VERSION_LABEL: "6.20.3", image.REVISION_LABEL: "unknown", image.CONTEXT_LABEL: CONTEXT}
        assert image.immutable_tag(found) == "6.20.3-unknown-dirty-abababababab"

    def test_a_registry_gets_the_immutable_name_and_latest(self, project: Path) -> None:
        found = {image.VERSION_LABEL: "6.20.3", image.REVISION_LABEL: COMMIT, image.CONTEXT_LABEL: CONTEXT}
        settings = settings_of(project, REGISTRY="127.0.0.1:5000")
        pair = image.names(Image("app", project), settings, found)
        assert pair == ("127.0.0.1:5000/app:6.20.3-0123456789ab", "127.0.0.1:5000/app:latest")
        assert (pair.immutable, pair.latest) == tuple(pair)


class TestWithoutARegistry:
    def test_tagging_is_refused_before_anything_is_done(self, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(BadInput) as caught:
            image.tag(World(), settings_of(project), image.known(project))
        assert "REGISTRY is empty." in told(caught)
        assert "set it in .env" in told(caught)
        assert capsys.readouterr().out == ""
