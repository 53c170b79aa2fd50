"""The environment ``local``: devpi-server as a background process, no Docker, the same data, secrets and versions."""

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pypi_tasks import home
from pypi_tasks.deployment import State
from pypi_tasks.errors import BadInput, Failed, NotReady
from pypi_tasks.settings import HIDDEN, ROOT, Settings
from pypi_tasks.world import World, answers

CONTEXT = ROOT / "pypi_server"
ENVIRONMENTS = ROOT / ".venvs"
LOG_LIMIT = 10_000_000  # bytes; a longer log is put aside at the next start
INSTALL_FIX = "behind a TLS proxy set CA_BUNDLE; behind a mirror PIP_INDEX_URL (uv: UV_INDEX_URL)"


class Server:
    """The native server. Its environment is made of the image's lock file; pid and log file are in DEVPI_HOME."""

    def __init__(self, world: World, settings: Settings, env: str = "local") -> None:
        self.world, self.settings, self.env = world, settings, env
        self.owner: tuple[int, int] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = CONTEXT / "requirements.txt"
        self.venv = ENVIRONMENTS / f"devpi-{hashlib.sha256(self.lock.read_bytes()).hexdigest()[:12]}"
        self.stamp = self.venv / "complete"
        self.python = self.venv / "bin" / "python"
        self.pid_file = settings.devpi_home / "devpi.pid"
        self.log_start = 0
        self.running_settings = settings.devpi_home / "devpi.settings"
        self.log = settings.devpi_home / "devpi.log"

    def preflight(self, port: bool = True) -> None:
        """The folder must be ours to write, and the port free unless our own server has it."""
        if self.settings.tls_key:
            raise BadInput("TLS_KEY is set, but the native server has no proxy for TLS.", fix="unset it, or `inv up --env dev`")
        home.check(self.world, self.settings, os.getuid())
        self.refuse_foreign_folder()
        if not self.pid():
            home.check_unused(self.world, self.settings)
        if port and not self.has_port():
            home.check_port(self.world, self.settings)

    def has_port(self) -> bool:
        """Whether our process has the port: it has these settings, or answers there."""
        return bool(self.pid()) and (self.is_unchanged() or answers(f"{self.settings.url}/+api"))

    def refuse_foreign_folder(self) -> None:
        """Keep root, who may write anything, from leaving files in a folder whose owner could not write them."""
        folder = self.settings.devpi_home
        if os.getuid() == 0 and home.is_there(folder) and (owner := folder.stat().st_uid) != 0:
            fix = f"sudo -u '#{owner}' ./inv up --env local; or have it all be root's: chown -R 0:0 {folder}"
            home.stop_here(self.world, NotReady(f"{folder} belongs to uid {owner}, and a server of root's would break it.", fix))

    def is_unchanged(self) -> bool:
        """Whether the server was started with these very settings, versions and scripts."""
        return self.running_settings.exists() and self.running_settings.read_text() == self.digest()

    def look(self) -> None:
        """What is there can always be seen: it is files."""

    def pid(self) -> int | None:
        """The running server's process id. A server holds a lock on its pid file for as long as it lives; one in a
        container writes another host name there."""
        try:
            with self.pid_file.open(errors="replace") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    pid, host = [*file.read().split(), "", ""][:2]
                    return int(pid) if pid.isdigit() and host == socket.gethostname() else None
        except OSError:
            return None
        return None

    def variables(self) -> dict[str, str]:
        """The variables by which the settings reach devpi-server and the scripts beside it."""
        mine = {
            "DEVPI_HOME": str(self.settings.devpi_home),
            "DEVPI_SECRETS": str(self.settings.secrets_home),
            "DEVPISERVER_HOST": self.settings.devpi_bind,
            "DEVPISERVER_PORT": str(self.settings.devpi_port),
            "DEVPISERVER_OUTSIDE_URL": self.settings.outside_url,
        }
        if self.settings.ca_bundle:
            mine["REQUESTS_CA_BUNDLE"] = str(self.settings.ca_bundle)
        return mine

    def environment(self) -> dict[str, str]:
        """This process's environment with ``variables``, and without what is none of the server's business."""
        # The passwords are in files; a server has no use for them, or for our own settings, in its environment.
        hidden = ("DEVPI_", "DEVPISERVER_", *HIDDEN)
        return {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | self.variables()

    def install(self) -> None:
        """Make the server's environment. The stamp is written last, so that a half-made one is made anew."""
        if self.stamp.exists() and self.python.exists():
            return
        self.world.remove(self.venv)
        self.world.make_folder(self.venv.parent)
        if uv := shutil.which("uv"):
            self.world.run([uv, "venv", "--quiet", "--python", sys.executable, str(self.venv)])
            installer = [uv, "pip", "install", "--python", str(self.python)]
        else:
            self.world.run([sys.executable, "-m", "venv", str(self.venv)])
            installer = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install"]
        bundle = str(self.settings.ca_bundle or "")
        trust = {**os.environ, **dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), bundle)} if bundle else None
        quiet = [] if sys.stdout.isatty() else ["--quiet"]
        self.world.run([*installer, *quiet, "--require-hashes", "--requirement", str(self.lock)], fix=INSTALL_FIX, env=trust)
        self.world.write(self.stamp, "complete\n")

    def start(self) -> None:
        """Install and start; a server that runs with these very settings is left alone."""
        self.install()
        self.world.make_folder(self.settings.devpi_home)
        if self.pid():
            if self.is_unchanged():
                return
            self.stop()
        script = [str(self.python), str(CONTEXT / "entrypoint.py")]
        server = [str(self.python), str(CONTEXT / "serve.py"), "-c", str(CONTEXT / "config.yml")]
        if self.log.exists() and self.log.stat().st_size > LOG_LIMIT:
            previous = self.log.with_suffix(".log.1")
            self.world.act(f"mv {self.log} {previous}", lambda: self.log.replace(previous))
        self.log_start = self.log.stat().st_size if self.log.exists() else 0
        self.world.write(self.running_settings, self.digest())
        self.process = self.world.spawn([*script, *server], self.environment(), self.log)

    def start_proxy(self) -> bool:
        """There is none."""
        return False

    def digest(self) -> str:
        """What decides whether a running server has to be restarted: its variables, versions and scripts."""
        parts = [repr(sorted(self.variables().items())), self.venv.name]
        parts += [file.read_text() for file in (CONTEXT / "config.yml", *sorted(CONTEXT.glob("*.py")))]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest() + "\n"

    def reload(self) -> None:
        """There is no proxy that would have a certificate."""

    def purge(self) -> None:
        """Nothing is cached without a proxy."""
        self.world.say("local: there is no proxy, so nothing is cached")

    def provision(self, wish: str) -> str:
        """Run provision.py by the server's own Python."""
        return self.inside("provision", wish)

    def inside(self, name: str, text: str) -> str:
        """Run a script by the server's own Python, with the server's variables."""
        return self.world.feed([str(self.python), str(CONTEXT / f"{name}.py")], text, self.environment())

    def script(self, name: str, job: Mapping[str, Any], source: Path | None = None) -> Any:
        """Run a script by the server's own Python."""
        home.check_backups(self.world, self.settings, os.getuid(), os.getgid())
        self.install()
        self.world.make_folder(self.settings.devpi_home)
        self.world.make_folder(self.settings.backup_home, mode=0o700)
        environment = self.environment() | {"BACKUP_HOME": str(self.settings.backup_home)}
        given = {**job, "source": str(source)} if source else job
        return self.world.converse([str(self.python), str(CONTEXT / f"{name}.py")], given, environment)

    def state(self) -> State:
        """Healthy once ``/+api`` answers; starting while the process lives without answering."""
        pid = self.pid()
        if pid is None:
            coming = self.process is not None and self.process.poll() is None
            return State("starting" if coming else "stopped")
        return State("healthy" if answers(f"{self.settings.url}/+api") else "starting", f"process {pid}")

    def stop(self) -> None:
        """End the process, within five seconds or by force."""
        if pid := self.pid():
            self.world.stop(pid, lambda: self.pid() is None, timeout=5)
        else:
            self.world.say("local: not running")

    def halt(self) -> None:
        """End the process; there is no proxy to hold clients."""
        self.stop()

    def resume(self) -> None:
        """Start it again."""
        self.start()

    def logs(self, follow: bool = False, lines: int = 100) -> None:
        """The log file's end, as it grows with ``follow``."""
        if not self.log.exists():
            raise Failed(f"there is no log yet: {self.log}", fix="inv up --env local")
        self.world.stream(["tail", "-n", str(lines), *(["-f"] if follow else []), str(self.log)])

    def last_words(self) -> str:
        """The last twenty lines that the server wrote since it was started."""
        text = self.log.read_bytes()[self.log_start :].decode(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-20:])
