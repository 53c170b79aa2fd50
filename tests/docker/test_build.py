"""`inv build`: small, the same from the same commit, and nothing in it that a server does not need."""

import json
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from pypi_tasks import garbage
from pypi_tasks.world import poll
from tests.conftest import BASE, PROXY_BASE, inspect, labelled, remove_all
from tests.workspace import COMMIT, Workspace

pytestmark = pytest.mark.docker
IMAGES = ("pypi_proxy", "pypi_server")


@pytest.fixture(scope="module")
def built(workspace: Workspace) -> Workspace:
    shown = workspace.inv("build", "--no-cache", timeout=600).stdout
    assert all(f"--tag {name}:latest --tag {name}:{workspace.project}" in shown for name in IMAGES)
    return workspace


def tag(built: Workspace, name: str = "pypi_server") -> str:
    """The project's own: IMAGE:latest is whoever built last."""
    return f"{name}:{built.project}"


def image_id(built: Workspace, name: str = "pypi_server") -> str:
    return str(inspect(tag(built, name), "image")["Id"])


def in_container(image: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", "run", "--rm", "--entrypoint", argv[0], image, *argv[1:]], capture_output=True, text=True)


def test_two_builds_without_cache_of_one_commit_are_one_image(built: Workspace, tmp_path: Path) -> None:
    first = {name: image_id(built, name) for name in IMAGES}
    clone = Workspace(tmp_path / "clone", built.project)
    subprocess.run(["git", "clone", "-q", str(built.root), str(clone.root)], check=True)
    clone.configure(**built.settings)
    clone.inv("build", "--no-cache", timeout=600)
    assert {name: image_id(built, name) for name in IMAGES} == first


@pytest.mark.parametrize("name", IMAGES)
def test_labels_say_where_it_comes_from(built: Workspace, name: str) -> None:
    config: Any = inspect(tag(built, name), "image")["Config"]
    labels = config["Labels"]
    assert (labels["org.opencontainers.image.title"], labels["pypi-tasks.project"]) == (name, built.project)
    commit, time = built.run("git", "log", "-1", "--format=%H %cI").stdout.split()
    assert labels["org.opencontainers.image.revision"] == commit
    assert labels["org.opencontainers.image.version"] == "6.20.3"
    assert labels["org.opencontainers.image.created"][:10] == time[:10]
    assert labels["org.opencontainers.image.source"] and labels["pypi-tasks.context"].startswith("sha256:")
    assert str(inspect(tag(built, name), "image")["Created"])[:10] == time[:10]


def test_there_is_no_installer_compiler_or_cache(built: Workspace) -> None:
    server = tag(built)
    assert "No module named pip" in in_container(server, "python", "-m", "pip").stderr
    assert "No module named ensurepip" in in_container(server, "/usr/bin/env", "python3", "-m", "ensurepip").stderr
    find = "command -v pip pip3 gcc cc; ls -d /root/.cache /build /made; find / -xdev -name 'pip-*' 2>/dev/null"
    for name in IMAGES:
        assert in_container(tag(built, name), "sh", "-c", find).stdout == ""


@pytest.mark.parametrize(
    ("name", "check"),
    [("pypi_server", ["python", "-I", "/opt/pypi_server/health.py"]), ("pypi_proxy", ["bash", "/opt/pypi_proxy/health.sh"])],
)
def test_it_runs_as_nobody_special_and_has_a_health_check(built: Workspace, name: str, check: list[str]) -> None:
    config: Any = inspect(tag(built, name), "image")["Config"]
    assert config["User"] == "1000:1000"
    assert config["Healthcheck"]["Test"] == ["CMD", *check]
    assert in_container(tag(built, name), "id", "-u").stdout.strip() == "1000"


@pytest.mark.parametrize("name", IMAGES)
def test_nobody_can_change_what_it_runs(built: Workspace, name: str) -> None:
    """But for the folders that are volumes, of whatever user the containers run as."""
    find = "find / /devpi -xdev -writable ! -type l ! -path '/proc/*' ! -path '/dev/*' ! -path '/sys/*' -print 2>/dev/null"
    writable = set(in_container(tag(built, name), "sh", "-c", find).stdout.split())
    volumes = {"pypi_server": {"/devpi", "/run/pypi"}, "pypi_proxy": {"/run/pypi", "/var/spool/pypi_proxy"}}
    assert writable - {"/tmp", "/var/tmp", "/run/lock"} == volumes[name]


@pytest.mark.parametrize(("name", "base", "limit"), [("pypi_server", BASE, 95_000_000), ("pypi_proxy", PROXY_BASE, 100_000)])
def test_it_is_hardly_larger_than_its_base(built: Workspace, name: str, base: str, limit: int) -> None:
    assert int(str(inspect(tag(built, name), "image")["Size"])) - int(str(inspect(base, "image")["Size"])) <= limit


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
    tags = [tag(built, name) for name in IMAGES]
    saved = subprocess.run(["docker", "save", *tags], capture_output=True, check=True).stdout
    assert len(saved) > 100_000_000 and marker.encode() not in saved
    for one in tags:
        history = subprocess.run(["docker", "history", "--no-trunc", one], capture_output=True, text=True, check=True).stdout
        assert "pypi" in history and "marked" not in history


def test_tag_builds_only_what_is_missing_or_older_than_its_folder(built: Workspace) -> None:
    before = image_id(built)
    shown = built.inv("tag", REGISTRY="registry.example.org/team").stdout
    assert "buildx" not in shown and image_id(built) == before
    commit = built.run("git", "rev-parse", "HEAD").stdout[:12]
    for name in IMAGES:
        assert f"registry.example.org/team/{name}:6.20.3-{commit}\n" in shown
        assert f"registry.example.org/team/{name}:latest\n" in shown
    entrypoint = built.root / "pypi_server" / "entrypoint.py"
    text = entrypoint.read_text()
    entrypoint.write_text(text + "# changed\n")
    shown = built.inv("tag", REGISTRY="registry.example.org/team").stdout
    assert "--tag pypi_server:" in shown and f"pypi_server:6.20.3-{commit}-dirty-" in shown and image_id(built) != before
    assert "--tag pypi_proxy:" not in shown and f"pypi_proxy:6.20.3-{commit}\n" in shown  # each image by its own folder
    entrypoint.write_text(text)
    built.inv("build")
    assert image_id(built) == before


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
    assert all(f"would: docker push 127.0.0.1:1/{name}:latest" in shown for name in IMAGES)
    assert labelled("image", built.project) == before


def test_a_failed_build_leaves_the_image_that_is_there(built: Workspace) -> None:
    before = image_id(built)
    error = built.refused("build", PYTHON_IMAGE="no-such-image-anywhere:1")
    assert "exited" in error and "PYTHON_IMAGE" in error
    assert image_id(built) == before
    before = image_id(built, "pypi_proxy")
    error = built.refused("build", NGINX_IMAGE="no-such-image-anywhere:1")
    assert "exited" in error and "NGINX_IMAGE" in error
    assert image_id(built, "pypi_proxy") == before


def test_ctrl_c_in_a_build_leaves_the_image_that_is_there(built: Workspace) -> None:
    before = image_id(built)
    built.interrupted("build", "pypi_server", "--no-cache", at="Collecting")
    assert image_id(built) == before


def test_an_image_is_a_folder_with_a_dockerfile(built: Workspace) -> None:
    folder = built.root / "empty_image"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    shown = built.inv("build", "empty_image").stdout
    assert "empty_image:latest" in shown and "pypi_server:latest" not in shown
    error = built.refused("build", "empty_imag")
    assert "Did you mean empty_image?" in error and "known images: empty_image, pypi_proxy, pypi_server" in error
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
    argv = ["docker", "run", "-d", "--name", name, "--label", label, "-v", mount, tag(built)]
    subprocess.run(argv, check=True, capture_output=True)

    def healthy() -> bool:
        state: Any = inspect(name)["State"]
        return bool(state["Health"]["Status"] == "healthy")

    assert poll(healthy, 60), subprocess.run(["docker", "logs", name], capture_output=True, text=True)
    subprocess.run(["docker", "stop", "-t", "5", name], check=True, capture_output=True)
    state: Any = inspect(name)["State"]
    assert state["ExitCode"] == 143, json.dumps(state)  # 137 would mean that it had to be killed


def build_cache() -> dict[str, str]:
    """What each record of the engine's build cache that nothing uses just now says of itself, by its id."""
    du = subprocess.run(["docker", "buildx", "du", "--format", "json"], capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in du.splitlines() if line.startswith("{")]
    return {one["ID"]: " ".join(one["Description"].split()) for one in records if one["Reclaimable"]}


def test_gc_removes_this_projects_images_and_build_cache_alone(built: Workspace) -> None:
    other = f"pypi-test-other-{uuid.uuid4().hex[:8]}"
    dockerfile = f"FROM scratch\nLABEL pypi-tasks.project={other}\n"
    subprocess.run(
        ["docker", "build", "-q", "-t", f"{other}:1", "-"], input=dockerfile, text=True, check=True, capture_output=True
    )
    built.inv("build", timeout=600)
    before = build_cache()
    shown = built.inv("gc", "--env", "dev", "--dry").stdout
    assert "would: docker rmi" in shown and "build cache" in shown
    assert all(tag(built, name) in shown for name in IMAGES)
    assert labelled("image", built.project)
    shown = built.inv("gc", "--env", "dev", "--yes").stdout
    assert "MB" in shown and other not in shown
    assert not labelled("image", built.project) and labelled("image", other)
    left = [told for id, told in build_cache().items() if id in before]  # what is newer is another test's
    for name in IMAGES:
        text = (built.root / name / "Dockerfile").read_text()
        commands = tuple(garbage.instructions(text))
        copies = tuple(line for line in text.splitlines() if line.startswith("COPY "))
        steps = [one for one in before.values() if one.startswith((f"[{name} ", f"[{name}-"))]
        assert commands and [one for one in before.values() if one.endswith(commands)]
        assert copies and [one for one in steps if one.endswith(copies)]
        assert not [one for one in left if one.endswith(commands) or (one in steps and one.endswith(copies))]
    remove_all(other)
