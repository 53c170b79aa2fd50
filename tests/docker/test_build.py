"""`inv build`: small, the same from the same commit, and nothing in it that a server does not need."""

import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks.world import poll
from tests.conftest import BASE, inspect, labelled, remove_all
from tests.workspace import COMMIT, Workspace

pytestmark = pytest.mark.docker
IMAGE = "pypi_server:latest"


@pytest.fixture(scope="module")
def built(workspace: Workspace) -> Workspace:
    workspace.inv("build", "pypi_server", "--no-cache", timeout=600)
    return workspace


def image_id() -> str:
    return str(inspect(IMAGE, "image")["Id"])


def in_container(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", "run", "--rm", "--entrypoint", argv[0], IMAGE, *argv[1:]], capture_output=True, text=True)


def test_two_builds_without_cache_of_one_commit_are_one_image(built: Workspace, tmp_path: Path) -> None:
    first = image_id()
    clone = Workspace(tmp_path / "clone", built.project)
    subprocess.run(["git", "clone", "-q", str(built.root), str(clone.root)], check=True)
    clone.configure(**built.settings)
    clone.inv("build", "--no-cache", timeout=600)
    assert image_id() == first


def test_labels_say_where_it_comes_from(built: Workspace) -> None:
    config: Any = inspect(IMAGE, "image")["Config"]
    labels = config["Labels"]
    commit, time = built.run("git", "log", "-1", "--format=%H %cI").stdout.split()
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.version"] == "6.20.3"
    assert labels["org.opencontainers.image.created"][:10] == time[:10]
    assert labels["org.opencontainers.image.source"] and labels["pypi-tasks.context"].startswith("sha256:")
    assert str(inspect(IMAGE, "image")["Created"])[:10] == time[:10]


def test_there_is_no_installer_compiler_or_cache(built: Workspace) -> None:
    assert "No module named pip" in in_container("python", "-m", "pip").stderr
    assert "No module named ensurepip" in in_container("/usr/bin/env", "python3", "-m", "ensurepip").stderr
    found = in_container(
        "sh", "-c", "command -v pip pip3 gcc cc; ls -d /root/.cache /build; find / -xdev -name 'pip-*' 2>/dev/null"
    )
    assert found.stdout == ""


def test_it_runs_as_nobody_special_and_has_a_health_check(built: Workspace) -> None:
    config: Any = inspect(IMAGE, "image")["Config"]
    assert config["User"] == "1000:1000"
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert in_container("id", "-u").stdout.strip() == "1000"


def test_it_is_at_most_95_mb_above_its_base(built: Workspace) -> None:
    assert int(str(inspect(IMAGE, "image")["Size"])) - int(str(inspect(BASE, "image")["Size"])) <= 95_000_000


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a CA with openssl")
def test_the_ca_bundle_is_in_no_layer_and_not_in_the_history(built: Workspace, tmp_path: Path) -> None:
    system = Path(built.settings["CA_BUNDLE"]).read_text() if built.settings.get("CA_BUNDLE") else ""
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=marked", "-keyout", "/dev/null"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    marker = made.stdout.splitlines()[5]
    bundle = tmp_path / "ca.pem"
    bundle.write_text(system + made.stdout)
    built.inv("build", "--no-cache", CA_BUNDLE=str(bundle), timeout=600)
    saved = subprocess.run(["docker", "save", IMAGE], capture_output=True, check=True).stdout
    assert len(saved) > 100_000_000 and marker.encode() not in saved
    assert "marked" not in subprocess.run(["docker", "history", "--no-trunc", IMAGE], capture_output=True, text=True).stdout


def test_tag_builds_only_what_is_missing_or_older_than_its_folder(built: Workspace) -> None:
    before = image_id()
    shown = built.inv("tag", REGISTRY="registry.example.org/team").stdout
    assert "buildx" not in shown and image_id() == before
    commit = built.run("git", "rev-parse", "HEAD").stdout[:12]
    assert f"registry.example.org/team/pypi_server:6.20.3-{commit}" in shown
    assert "registry.example.org/team/pypi_server:latest" in shown
    entrypoint = built.root / "pypi_server" / "entrypoint.py"
    text = entrypoint.read_text()
    entrypoint.write_text(text + "# changed\n")
    shown = built.inv("tag", REGISTRY="registry.example.org/team").stdout
    assert "buildx" in shown and f":6.20.3-{commit}-dirty-" in shown and image_id() != before
    entrypoint.write_text(text)
    built.inv("build")
    assert image_id() == before


def test_what_was_built_before_its_commit_is_published_under_the_commit(built: Workspace) -> None:
    entrypoint = built.root / "pypi_server" / "entrypoint.py"
    text = entrypoint.read_text()
    entrypoint.write_text(text + "# changed\n")
    built.inv("build")
    built.run("git", *COMMIT, "-a")
    commit = built.run("git", "rev-parse", "HEAD").stdout[:12]
    shown = built.inv("tag", REGISTRY="registry.example.org").stdout
    assert f"registry.example.org/pypi_server:6.20.3-{commit}\n" in shown and "dirty" not in shown
    built.run("git", "reset", "-q", "--hard", "HEAD~1")
    built.inv("build")


def test_a_dry_run_shows_the_whole_way_to_the_registry_and_builds_nothing(built: Workspace) -> None:
    before = labelled("image", built.project)
    shown = built.inv("push", "--dry", REGISTRY="127.0.0.1:1", PYTHON_IMAGE="python:3-other").stdout
    assert "would: docker buildx build" in shown and "would: docker tag" in shown and "would: docker push" in shown
    assert labelled("image", built.project) == before


def test_a_failed_build_leaves_the_image_that_is_there(built: Workspace) -> None:
    before = image_id()
    error = built.refused("build", PYTHON_IMAGE="no-such-image-anywhere:1")
    assert "exited" in error and "PYTHON_IMAGE" in error
    assert image_id() == before


def test_ctrl_c_in_a_build_leaves_the_image_that_is_there(built: Workspace) -> None:
    before = image_id()
    built.interrupted("build", "--no-cache", at="Collecting")
    assert image_id() == before


def test_an_image_is_a_folder_with_a_dockerfile(built: Workspace) -> None:
    folder = built.root / "empty_image"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    shown = built.inv("build", "empty_image").stdout
    assert "empty_image:latest" in shown and "pypi_server:latest" not in shown
    error = built.refused("build", "empty_imag")
    assert "Did you mean empty_image?" in error and "known images: empty_image, pypi_server" in error
    (folder / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp\n")
    assert "DL3007" in built.refused("lint", "empty_image")
    shutil.rmtree(folder)


def test_stops_within_five_seconds_of_sigterm(built: Workspace, tmp_path: Path) -> None:
    name = f"pypi-test-{uuid.uuid4().hex[:8]}"
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o755)
    for file in ("root_password", "server_secret"):
        (secrets / file).write_text(uuid.uuid4().hex * 2)
        (secrets / file).chmod(0o444)
    label = f"pypi-tasks.project={built.project}"
    mount = f"{secrets}:/run/secrets:ro"
    subprocess.run(["docker", "run", "-d", "--name", name, "--label", label, "-v", mount, IMAGE], check=True, capture_output=True)

    def healthy() -> bool:
        state: Any = inspect(name)["State"]
        return bool(state["Health"]["Status"] == "healthy")

    assert poll(healthy, 60), subprocess.run(["docker", "logs", name], capture_output=True, text=True)
    subprocess.run(["docker", "stop", "-t", "5", name], check=True, capture_output=True)
    state: Any = inspect(name)["State"]
    assert state["ExitCode"] == 143, json.dumps(state)  # 137 would mean that it had to be killed


def test_gc_removes_this_projects_images_and_build_cache_alone(built: Workspace) -> None:
    other = f"pypi-test-other-{uuid.uuid4().hex[:8]}"
    dockerfile = f"FROM scratch\nLABEL pypi-tasks.project={other}\n"
    subprocess.run(
        ["docker", "build", "-q", "-t", f"{other}:1", "-"], input=dockerfile, text=True, check=True, capture_output=True
    )
    shown = built.inv("gc", "--env", "dev", "--dry").stdout
    assert "would: docker rmi" in shown and "pypi_server:latest" in shown and "build cache" in shown
    assert labelled("image", built.project)
    shown = built.inv("gc", "--env", "dev", "--yes").stdout
    assert "MB" in shown and other not in shown
    assert not labelled("image", built.project) and labelled("image", other)
    cache = subprocess.run(["docker", "buildx", "du", "--verbose"], capture_output=True, text=True).stdout
    assert "pypi_server-libraries" not in cache and "--require-hashes" not in cache
    remove_all(other)
