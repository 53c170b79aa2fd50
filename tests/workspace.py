"""A copy of the project in a folder of its own, used as its users do: by the command line."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pypi_tasks.world import poll

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = (
    "GIT_",
    "DEVPI",
    "PYPI_",
    "ROOT_PASSWORD",
    "REGISTRY",
    "TAG",
    "PROXY_TAG",
    "PROJECT",
    "PIP_",
    "UV_",
    "OUTSIDE_URL",
    "TLS_",
    "UPLOAD_LIMIT",
    "HOLD_SECONDS",
    "CACHE_SIZE",
    "NGINX_IMAGE",
    "CA_BUNDLE",
    "BACKUP_",
    "SECRETS_HOME",
    "OLD_PATHS",
    "PYTHON_IMAGE",
)
COMMIT = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "commit", "-qm", "test"]


# Ports are handed out once, to each worker of pytest-xdist from a range of its own, and none that a client may be given.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = iter(random.sample(range(20_000 + 2_000 * (WORKER % 6), 22_000 + 2_000 * (WORKER % 6)), 2_000))


def free_port() -> int:
    """A port that nothing listens on just now."""
    for port in PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are taken")


def clean_environment() -> dict[str, str]:
    """This environment without settings of ours and of the installers, and with the tests' tools on PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return kept | {"PATH": path, "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@dataclass
class Workspace:
    """One checkout with its own project name, port, data and secrets."""

    root: Path
    project: str
    settings: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def port(self) -> str:
        return self.settings["DEVPI_PORT"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def index(self) -> str:
        return f"{self.url}/pypi/stable"

    @property
    def home(self) -> Path:
        return self.root / "devpi"

    @property
    def password(self) -> str:
        return (self.root / ".secrets" / "user_password").read_text().strip()

    def configure(self, **settings: str) -> None:
        """Change settings and write .env; an empty value takes one away."""
        self.settings = {name: value for name, value in {**self.settings, **settings}.items() if value}
        (self.root / ".env").write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))

    def run(
        self, *argv: str, check: bool = True, stdin: str = "", timeout: float = 300, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout; with ``check`` a failure shows all that it printed."""
        environment = clean_environment() | self.environ | environ
        result = subprocess.run(
            argv, cwd=self.root, env=environment, input=stdin, capture_output=True, text=True, timeout=timeout
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{argv} exited {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def inv(
        self, *words: str, check: bool = True, stdin: str = "", timeout: float = 300, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a task."""
        return self.run(sys.executable, "-m", "invoke", *words, check=check, stdin=stdin, timeout=timeout, **environ)

    def refused(self, *words: str, stdin: str = "", **environ: str) -> str:
        """Run a task that must fail as a user's error does: nonzero, told on standard error, no traceback."""
        result = self.inv(*words, check=False, stdin=stdin, timeout=300, **environ)
        assert result.returncode != 0, result.stdout
        assert "Error: " in result.stderr and "Traceback" not in result.stdout + result.stderr, result.stdout + result.stderr
        return result.stderr

    def interrupted(
        self,
        *words: str,
        at: str,
        by: int = signal.SIGINT,
        again: str = "",
        ends: tuple[int, str] = (130, "Error: interrupted at"),
    ) -> str:
        """Press Ctrl-C as soon as a task prints ``at``, or have another signal end the task alone, and once more where it prints
        ``again``; it must end as no success, and say so, or with another code and word. Returns what it printed."""
        log = self.root.parent / f"{words[0]}.log"
        with log.open("wb") as output:
            running = subprocess.Popen(
                [sys.executable, "-m", "invoke", *words],
                cwd=self.root,
                env=clean_environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            for text in (at, again):
                assert poll(lambda text=text: text in log.read_text(), 60), log.read_text()  # type: ignore[misc]
                if text:
                    (os.killpg if by == signal.SIGINT else os.kill)(running.pid, by)
            code = running.wait(timeout=60)
        shown = log.read_text()
        assert code == ends[0] and ends[1] in shown and "Traceback" not in shown, shown
        return shown


def checkout(root: Path, project: str) -> Workspace:
    """Copy what git would commit, as a commit, with settings that clash with nobody's."""
    listed = ["git", "-C", str(REPOSITORY), "ls-files", "--cached", "--others", "--exclude-standard"]
    environment = clean_environment()
    for name in subprocess.run(listed, env=environment, capture_output=True, text=True, check=True).stdout.splitlines():
        source, target = REPOSITORY / name, root / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for command in (["init", "-q"], ["add", "-A"], COMMIT):
        subprocess.run(["git", "-C", str(root), *command], env=environment, check=True)
    made = Workspace(root, project)
    bundle = os.environ.get("REQUESTS_CA_BUNDLE", "")
    made.configure(PROJECT=project, DEVPI_PORT=str(free_port()), CA_BUNDLE=bundle)
    return made
