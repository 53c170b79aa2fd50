"""New passwords and a new server secret on a stack in use: the old ones are refused, and no reader notices."""

import subprocess
import threading
from pathlib import Path

import pytest

from pypi_tasks.world import poll
from tests.conftest import labelled
from tests.packages import build_wheel, new_version, pip_install, twine_upload
from tests.raw import PIP, Connection, ask, token
from tests.workspace import Workspace

pytestmark = pytest.mark.docker
NAMES = ("root_password", "user_password", "server_secret")


@pytest.fixture(scope="module")
def stack(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace.inv("up", "--env", "dev", timeout=600)
    twine_upload(workspace, build_wheel(tmp_path_factory.mktemp("wheel"), "1.0"))
    return workspace


def secrets_of(stack: Workspace) -> dict[str, str]:
    """The secrets as they are now; what was put aside is not one of them."""
    files = [file for file in (stack.root / ".secrets").iterdir() if ".before-" not in file.name]
    return {file.name: file.read_text().strip() for file in files}


class Readers:
    """A reader of pages and a pip, each going on and on without a second try, and what failed."""

    def __init__(self, stack: Workspace, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.failed: list[str] = []
        self.done = {"pages": 0, "devpi": 0, "pip": 0}
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=one) for one in (self.pages, self.devpi, self.pip)]

    def __enter__(self) -> "Readers":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def read(self, kind: str, path: str, headers: dict[str, str]) -> None:
        with Connection(self.stack, 120) as connection:
            while not self.stop.wait(0.02):
                answer = connection.ask(path, headers)
                self.done[kind] += 1
                if answer.status != 200:
                    self.failed.append(f"{path}: {answer.status}")

    def pages(self) -> None:
        self.read("pages", "/pypi/stable/+simple/pypi-tasks-smoke/", PIP)

    def devpi(self) -> None:
        self.read("devpi", "/pypi/stable", {"Accept": "application/json"})

    def pip(self) -> None:
        while not self.stop.wait(0.02):
            try:
                pip_install(self.stack, self.folder / str(self.done["pip"]), "pypi-tasks-smoke", "--retries", "0")
            except AssertionError as error:
                self.failed.append(str(error))
            self.done["pip"] += 1

    def go_on(self) -> bool:
        """Whether every one of them gets something more done."""
        before = dict(self.done)
        return poll(lambda: all(self.done[kind] > before[kind] for kind in before), 60)


def test_a_reader_notices_nothing_and_only_the_new_passwords_are_accepted(stack: Workspace, tmp_path: Path) -> None:
    before = secrets_of(stack)
    login = token(stack.port, "pypi", before["user_password"])
    with Readers(stack, tmp_path) as readers:
        assert readers.go_on()
        passwords = stack.inv("rotate")
        after = secrets_of(stack)
        assert readers.go_on()
        secret = stack.inv("rotate", "--only", "server", "--yes")
        assert readers.go_on()
    assert not readers.failed
    assert set(after) == set(before) == set(NAMES)
    assert {name for name in NAMES if after[name] == before[name]} == {"server_secret"}
    assert secrets_of(stack)["server_secret"] != before["server_secret"]
    assert {file.stat().st_mode & 0o777 for file in (stack.root / ".secrets").iterdir()} == {0o600}

    wheel = build_wheel(tmp_path, new_version())
    for old in (before["user_password"], login):
        with pytest.raises(AssertionError, match=r"HTTPError: 40[13]"):
            twine_upload(stack, wheel, password=old)
    twine_upload(stack, wheel)
    assert ask(stack, "/pypi/stable/+simple/pypi-tasks-smoke/", PIP).names >= {wheel.name}
    assert login != token(stack.port, "root", after["root_password"])

    again = stack.inv("up", "--env", "dev")
    assert secrets_of(stack) == {**after, "server_secret": secrets_of(stack)["server_secret"]}
    assert "write secret" not in again.stdout
    inspected = subprocess.run(["docker", "inspect", *labelled("container", stack.project)], capture_output=True, text=True)
    logged = stack.inv("logs", "--lines", "1000")
    shown = "".join(one.stdout + one.stderr for one in (passwords, secret, again, inspected, logged))
    assert "pypi_server" in shown
    assert not [name for found in (before, secrets_of(stack)) for name, value in found.items() if value in shown]


def test_a_rotation_cut_off_after_the_server_was_told_is_brought_to_its_end_by_up(stack: Workspace, tmp_path: Path) -> None:
    """Killed at the last step: what is stored is the old one still, and the server knows the new one."""
    old = stack.password
    stack.inv("rotate", "--only", "user")
    new = stack.password
    file = stack.root / ".secrets" / "user_password"
    (file.parent / "user_password.new").write_text(f"{new}\n")
    file.write_text(f"{old}\n")
    stack.inv("up", "--env", "dev")
    assert stack.password == new != old and set(secrets_of(stack)) == set(NAMES)
    twine_upload(stack, build_wheel(tmp_path, new_version()))


def test_what_a_setting_would_bring_back_is_refused(stack: Workspace) -> None:
    before = secrets_of(stack)
    said = stack.refused("rotate", ROOT_PASSWORD="hunter2")
    assert "ROOT_PASSWORD is set (environment)" in said and "hunter2" not in said
    assert secrets_of(stack) == before
