"""Other servers are taken over: a running devpi 5.5's directory, a pypiserver by its URL, an index of another devpi."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pypi_tasks.world import answers, poll
from tests.docker.test_takeover import SEED, call
from tests.packages import build_wheel, new_version, pip_install, rename
from tests.raw import JSON, Uploader, ask, make_index
from tests.test_distribution import build_sdist
from tests.upstream import Upstream
from tests.workspace import Workspace, clean_environment, free_port

pytestmark = pytest.mark.docker
VERSIONS = [new_version() for _ in range(3)]


@contextlib.contextmanager
def serving(folder: Path, *command: str, url: str) -> Iterator[None]:
    """A server of another kind, until the block ends."""
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, env=clean_environment(), stdout=log, stderr=log)
    try:
        assert poll(lambda: answers(url), 60), (folder / "log").read_text()
        yield
    finally:
        running.terminate()
        running.wait(timeout=30)


def environment(workspace: Workspace, folder: Path, *requirements: str) -> Path:
    """The programs of packages in an environment of their own."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    workspace.run("uv", "pip", "install", "-q", "--python", str(folder / "venv" / "bin" / "python"), *requirements)
    return folder / "venv" / "bin"


@pytest.fixture(scope="module")
def old(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a devpi 5.5 at work, as the seed had it: no passwords, three releases."""
    folder = tmp_path_factory.mktemp("old")
    programs = environment(workspace, folder, *SEED)
    server, port = folder / "server", free_port()
    workspace.run(str(programs / "devpi-init"), "--serverdir", str(server))
    url = f"http://127.0.0.1:{port}"
    command = [str(programs / "devpi-server"), "--serverdir", str(server), "--port", str(port), "--offline-mode"]
    with serving(folder, *command, url=f"{url}/+api"):
        call("PUT", f"{url}/pypi", {"password": ""})
        call("PUT", f"{url}/pypi/stable", {"bases": ["root/pypi"], "volatile": False}, "pypi")
        for version in VERSIONS:
            workspace.run(
                sys.executable, "-m", "twine", "upload", "--disable-progress-bar", "--repository-url", f"{url}/pypi/stable/",
                "-u", "pypi", "-p", "", str(build_wheel(folder, version)),
            )  # fmt: skip
        yield server


@pytest.fixture(scope="module")
def adopted(workspace: Workspace, old: Path) -> tuple[Workspace, str, str]:
    """The stack on that server's data, in which a file was lost at first; what the task said of it."""
    lost = next((old / "+files").rglob(f"*{VERSIONS[2]}*.whl"))
    content = lost.read_bytes()
    lost.unlink()
    refused = workspace.refused("adopt", str(old), "--env", "dev")
    lost.write_bytes(content)
    listed = sorted(old.rglob("*"))
    result = workspace.inv("adopt", str(old), "--env", "dev", timeout=600)
    assert sorted(old.rglob("*")) == listed  # nothing was written there
    workspace.inv("up", "--env", "dev", timeout=600)
    return workspace, result.stdout, refused


@pytest.fixture(scope="module")
def stack(adopted: tuple[Workspace, str, str]) -> Workspace:
    return adopted[0]


def names(stack: Workspace, project: str) -> set[str]:
    """The files on a page of the private index."""
    return ask(stack, f"/pypi/stable/+simple/{project}/", JSON).names


def private(name: str, version: str) -> tuple[str, bytes]:
    return Uploader.wheel(name, version)


@pytest.mark.skipif(os.getuid() != 0, reason="a folder of another user's can be made by root alone")
def test_one_that_the_server_could_not_read_is_refused_before_anything_is_taken(workspace: Workspace, old: Path) -> None:
    old.chmod(0o700)
    told = workspace.refused("adopt", str(old), "--env", "dev")
    old.chmod(0o755)
    assert "cannot be read by uid 1000, as whom the server runs; on the host: cp -a it elsewhere" in told
    assert not list(workspace.home.glob("server*"))


def test_the_directory_of_a_running_one_is_not_moved(workspace: Workspace, old: Path) -> None:
    told = workspace.refused("adopt", str(old), "--in-place", "--env", "dev", DEVPI_HOME=str(old.parent / "other"))
    assert "a server is running on" in told and "has its database open" in told and (old / ".sqlite").exists()


def test_a_running_devpi_is_taken_over_with_all_that_it_has(adopted: tuple[Workspace, str, str], tmp_path: Path) -> None:
    stack, shown, told = adopted
    assert "Error: 1 uploaded files cannot be taken, so nothing is served yet" in told and "Traceback" not in shown + told
    assert f"{VERSIONS[2]}-py3-none-any.whl: the file is not there" in told
    assert "Next: inv up --env dev" in shown
    for version in VERSIONS:
        pip_install(stack, tmp_path / version, f"pypi-tasks-smoke=={version}")
        assert version in (tmp_path / version / "pypi_tasks_smoke.py").read_text()


def test_a_second_time_is_refused_since_there_is_data_now(stack: Workspace, old: Path) -> None:
    told = stack.refused("adopt", str(old), "--env", "dev")
    assert f"there is a server's data already, in {stack.home / 'server'}." in told


def test_a_pypiserver_is_taken_over_by_its_url(stack: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    file, content = private("from-pypiserver", "1.0")
    (folder / file).write_bytes(content)
    sdist = build_sdist(folder)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    programs = environment(stack, tmp_path, "pypiserver")
    with serving(tmp_path, str(programs / "pypi-server"), "run", "-i", "127.0.0.1", "-p", str(port), str(folder), url=url):
        shown = stack.inv("adopt", f"{url}/simple/", "--env", "dev").stdout
        told = stack.refused("adopt", f"{url}/simple/", "--projects", "six", "--env", "dev")
    assert f"{url}/simple/ does not list six." in told
    assert "2 files taken into pypi/stable, each found there by its sha256; 0 were there already" in shown
    assert names(stack, "from-pypiserver") == {file} and names(stack, "some-project") == {sdist.name}
    (entry,) = ask(stack, "/pypi/stable/+simple/some-project/", JSON).files
    assert entry["requires-python"] == ">=3.9"
    assert entry["hashes"]["sha256"] == hashlib.sha256(sdist.read_bytes()).hexdigest()
    # The same by its folder: all is there.
    assert "0 files taken" in (shown := stack.inv("adopt", str(folder), "--env", "dev").stdout) and "2 were there" in shown


def test_of_another_devpis_index_only_its_own_files_are_taken(stack: Workspace) -> None:
    Uploader(stack, make_index(stack, "base"))("theirs", "1.0")
    Uploader(stack, "pypi/base")("mine", "0.9")
    Uploader(stack, make_index(stack, "other", "pypi/base"))("mine", "1.0")
    make_index(stack, "goal")
    shown = stack.inv("adopt", f"{stack.url}/pypi/other/+simple/", "--index", "pypi/goal").stdout
    assert "1 files taken into pypi/goal" in shown and "1 files of other indexes were left out" in shown
    assert ask(stack, "/pypi/goal/+simple/mine/", JSON).names == {"mine-1.0-py3-none-any.whl"}
    assert ask(stack, "/pypi/goal/+simple/theirs/", JSON).status == 404


@contextlib.contextmanager
def index() -> Iterator[Upstream]:
    """An index of another kind on this host."""
    server = Upstream("127.0.0.1")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.wait.set()
        server.shutdown()
        server.server_close()


def test_a_file_that_is_not_what_its_page_says_is_told_and_not_taken(stack: Workspace) -> None:
    with index() as upstream:
        good, bad = upstream.add("changed", "1.0"), upstream.add("changed", "1.1")
        upstream.contents[f"/files/{bad}"] = rename(upstream.contents[f"/files/{bad}"], "changed") + b"\0"
        plain = upstream.add("changed", "1.2", hashes={})
        upstream.contents["/simple/"] = b'<a href="changed/">changed</a><a href="none/">none</a>'
        result = stack.inv("adopt", f"{upstream.url}/simple/", "--projects", "Changed,none", check=False)
    assert result.returncode == 1 and "Error: 2 were not taken; the rest was." in result.stderr
    assert f"{bad}" in result.stdout and "its content is not what its page says: sha256 is" in result.stdout
    assert "its page answered 404" in result.stdout and "1 files had no digest on their page" in result.stdout
    assert names(stack, "changed") == {good, plain}


def test_after_ctrl_c_the_same_command_goes_on_where_it_was(stack: Workspace, tmp_path: Path) -> None:
    with index() as upstream:
        for name in ("one-of-two", "two-of-two"):
            upstream.add(name, "1.0")
        upstream.contents["/simple/"] = b'<a href="one-of-two/">one-of-two</a><a href="two-of-two/">two-of-two</a>'
        first, second = (f"/files/{name}_of_two-1.0-py3-none-any.whl" for name in ("one", "two"))
        words = ["adopt", f"{upstream.url}/simple/", "--projects", "one-of-two,two-of-two"]
        blocked = threading.Event()
        answer = upstream.answer

        def slow(path: str) -> tuple[int, str, bytes]:
            if path == second and not blocked.is_set():
                blocked.set()
                upstream.wait.clear()
            return answer(path)

        upstream.answer = slow  # type: ignore[method-assign]
        log = tmp_path / "log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "invoke", *words]
            running = subprocess.Popen(
                command, cwd=stack.root, env=clean_environment(), stdout=output, stderr=output, start_new_session=True
            )
            assert blocked.wait(60), log.read_text()
            os.killpg(running.pid, signal.SIGINT)
            code = running.wait(timeout=60)
        assert code == 130 and "the same command again goes on from here" in log.read_text(), log.read_text()
        upstream.wait.set()
        assert names(stack, "one-of-two") == {Path(first).name}
        shown = stack.inv(*words).stdout
        assert "1 files taken into pypi/stable, each found there by its sha256; 1 were there already" in shown
        assert upstream.asked[first] == 1 and names(stack, "two-of-two") == {Path(second).name}


@pytest.fixture(scope="module")
def pypiservers(stack: Workspace) -> Workspace:
    """The stack, with the paths of a pypiserver."""
    stack.configure(OLD_PATHS="pypiserver")
    stack.inv("up", "--env", "dev", timeout=600)
    return stack


def test_the_clients_of_a_pypiserver_need_no_other_address(pypiservers: Workspace, tmp_path: Path) -> None:
    version = new_version()
    wheel = build_wheel(tmp_path, version)
    pypiservers.run(
        sys.executable, "-m", "twine", "upload", "--disable-progress-bar", "--repository-url", pypiservers.url,
        "-u", "pypi", str(wheel), TWINE_PASSWORD=pypiservers.password,
    )  # fmt: skip
    simple, wanted = f"{pypiservers.url}/simple/", f"pypi-tasks-smoke=={version}"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--target", str(tmp_path / "pip")]
    uv = ["uv", "pip", "install", "-q", "--no-cache", "--python", sys.executable, "--target", str(tmp_path / "uv")]
    pypiservers.run(*pip, "--index-url", simple, wanted)
    pypiservers.run(*uv, "--default-index", simple, wanted)
    for client in ("pip", "uv"):
        assert version in (tmp_path / client / "pypi_tasks_smoke.py").read_text()


def test_an_old_path_leads_to_a_page_without_repeating_what_the_client_says(pypiservers: Workspace) -> None:
    for path, target in (("/simple/", "/pypi/stable/+simple/"), ("/simple/some-project", "/pypi/stable/+simple/some-project/")):
        answer = ask(pypiservers, path, {"Host": "evil.example"})
        assert (answer.status, answer.headers["Location"]) == (302, target)
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and b"evil" not in answer.body
    assert ask(pypiservers, "/simple/a%0d%0aX-Evil:%201/").headers["X-Evil"] is None
    assert ask(pypiservers, "/", {"Accept": "text/html"}).status == 200  # the web page is there still


def test_a_file_is_where_a_pypiserver_had_it(pypiservers: Workspace, tmp_path: Path) -> None:
    """As lock files have it; a folder between is what a pypiserver shows of its own ones."""
    upload = Uploader(pypiservers)
    wheel, digest = upload("of-old", "1.0")
    sdist, _ = upload("of-old", "1.0-post1", os.urandom(1000), "of-old-1.0-post1.tar.gz", filetype="sdist", pyversion="source")
    for path in (f"/packages/{wheel}", f"/packages/some/folder/{wheel}?x=1"):
        answer = ask(pypiservers, path, {"Host": "evil.example"})
        assert (answer.status, answer.headers["Location"]) == (302, f"/pypi/stable/+f/{digest[:3]}/{digest[3:16]}/{wheel}")
    assert ask(pypiservers, f"/packages/{sdist}", method="HEAD").headers["Location"].endswith(f"/{sdist}")
    for missing in ("of_old-2.0-py3-none-any.whl", "nothing", "a%2fb", "%ff", "+api", "x-1.0.tar.gz"):
        assert ask(pypiservers, f"/packages/{missing}").status in (400, 404), missing
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--no-index", "--target"]
    pypiservers.run(*pip, str(tmp_path / "file"), f"{pypiservers.url}/packages/{wheel}#sha256={digest}")
    pypiservers.run(*pip, str(tmp_path / "list"), "--find-links", f"{pypiservers.url}/packages/", "of-old==1.0")
    assert (tmp_path / "file" / "of_old.py").exists() and (tmp_path / "list" / "of_old.py").exists()


def test_they_are_below_the_path_of_the_address_where_that_has_one(pypiservers: Workspace, tmp_path: Path) -> None:
    pypiservers.configure(OUTSIDE_URL=f"{pypiservers.url}/sub")
    pypiservers.inv("up", "--env", "dev", timeout=600)
    version = new_version()
    wheel = build_wheel(tmp_path, version)
    pypiservers.run(
        sys.executable, "-m", "twine", "upload", "--disable-progress-bar", "--repository-url", f"{pypiservers.url}/sub/",
        "-u", "pypi", str(wheel), TWINE_PASSWORD=pypiservers.password,
    )  # fmt: skip
    answer = ask(pypiservers, "/sub/simple/pypi-tasks-smoke/")
    assert answer.headers["Location"] == "/sub/pypi/stable/+simple/pypi-tasks-smoke/"
    assert wheel.name in ask(pypiservers, answer.headers["Location"], JSON).names
    found = ask(pypiservers, f"/sub/packages/{wheel.name}").headers["Location"]
    assert found.startswith("/sub/pypi/stable/+f/") and ask(pypiservers, found).body == wheel.read_bytes()
    pypiservers.configure(OUTSIDE_URL="")


def test_without_the_setting_there_are_none(pypiservers: Workspace) -> None:
    pypiservers.configure(OLD_PATHS="")
    pypiservers.inv("up", "--env", "dev", timeout=600)
    assert ask(pypiservers, "/simple/some-project").status == 404
    assert ask(pypiservers, "/packages/of_old-1.0-py3-none-any.whl").status == 404
    assert ask(pypiservers, "/", {"Accept": "application/json"}, "POST").status in (404, 405)
