"""The one module that changes anything outside this process, says what it does, and with ``--dry`` only says it."""

import contextlib
import fcntl
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

from pypi_tasks.errors import BadInput, Failed, Interrupted, NotReady
from pypi_tasks.interruption import ANEW, group, resumable
from pypi_tasks.terminal import bars, progress

Argv = Sequence[str]
INSTALL = {
    "docker": "install Docker Engine with Buildx and Compose, or use `inv up --env local`, which needs none",
    "git": "install git",
}
DOCKERS_OWN = ("--project-name", "--file", "--progress")  # options of Compose that say nothing of what it does
GONE = re.compile(r"No such (container|image|network|volume)|already in progress")  # as Docker says it


@dataclass(frozen=True)
class World:
    """Everything that acts. Methods that change something print it first and, when ``dry``, do no more than that."""

    dry: bool = False

    def say(self, text: str = "") -> None:
        """One line for the user. Who stops reading, as `| head` does, does not stop the work."""
        try:
            print(text, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def warn(self, text: str) -> None:
        """One line for the user, on standard error."""
        print(f"Warning: {text}", file=sys.stderr, flush=True)

    def announce(self, text: str) -> bool:
        """Print what is about to be done; whether it is to be done."""
        self.say(f"{'would: ' if self.dry else '$ '}{text}")
        return not self.dry

    def ask(self, argv: Argv, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command that only looks; done in a dry run too. With ``check`` a failure is a user's error."""
        try:
            with installed(argv[0]):
                result = complete(argv, input=stdin, capture_output=True, text=True, errors="replace")
        except NotReady as error:
            if check:
                raise
            return subprocess.CompletedProcess(argv, 127, "", error.what)
        if check and result.returncode != 0:
            raise Failed(f"`{shlex.join(argv)}` exited {result.returncode}: {(result.stderr or result.stdout).strip()}")
        return result

    def run(self, argv: Argv, fix: str = "", env: Mapping[str, str] | None = None) -> None:
        """Run a command that changes something, its output going to the user."""
        if not self.announce(shlex.join(argv)):
            return
        with installed(argv[0]), resumable(gist(argv)):
            code = complete(argv, env=env).returncode
        if code != 0:
            raise Failed(f"`{gist(argv)}` exited {code}; its output is above.", fix=fix)

    def check(self, argv: Argv, stdin: str | None = None) -> None:
        """Run a command that only looks, in a dry run too, its findings going to the user; a finding is a failure."""
        self.say(f"$ {shlex.join([Path(argv[0]).name, *argv[1:]])}")
        with installed(argv[0]):
            result = subprocess.run(argv, input=stdin, capture_output=True, text=True, errors="replace")
        if result.returncode != 0:
            raise Failed(f"{Path(argv[0]).name} found:\n{(result.stdout + result.stderr).strip()}")

    def feed(self, argv: Argv, stdin: str, env: Mapping[str, str] | None = None) -> str:
        """Run a command that changes something on what it reads; returns what it prints, or fails with that."""
        if not self.announce(shlex.join(argv)):
            return ""
        with installed(argv[0]), resumable(gist(argv)):
            result = complete(argv, input=stdin, env=env, capture_output=True, text=True)
        if result.returncode != 0:
            raise Failed((result.stderr or result.stdout).strip() or f"`{shlex.join(argv)}` exited {result.returncode}.")
        return result.stdout

    def converse(self, argv: Argv, job: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Any:
        """Run one of the scripts that take a job and tell of their progress (pypi_server/jobs.py); returns the outcome, None
        in a dry run. What the script refuses is a user's error, of the kind that its exit code names."""
        short = {name: value for name, value in job.items() if isinstance(value, str | int)}
        if not self.announce(f"{shlex.join(argv)} <<< {shlex.quote(json.dumps(short))}"):
            return None
        at = shlex.join(argv[-2:])
        with installed(argv[0]), resumable(at, ANEW), tempfile.TemporaryFile("w+") as stdin:
            json.dump(job, stdin)
            stdin.seek(0)
            code, outcome, said = listen(argv, stdin, env)
            if is_too_early(code):
                stdin.seek(0)
                code, outcome, said = listen(argv, stdin, env)
        if code == Interrupted.exit_code or code < 0:  # below zero: somebody killed it, with all that it would have tidied up
            raise Interrupted(f"interrupted at: {at}", ANEW)
        if code != 0:
            kind = BadInput if code == os.EX_USAGE else Failed
            raise kind(said.strip() or f"`{shlex.join(argv)}` exited {code}.")
        return json.loads(outcome)

    def sweep(self, argv: Argv) -> None:
        """Run a removal. What is in use is told and passed over, so that the rest still goes."""
        if self.announce(shlex.join(argv)):
            result = complete(argv, capture_output=True, text=True)
            said = (result.stderr or result.stdout).strip()
            if result.returncode != 0 and not GONE.search(said):
                self.warn(f"left where it is: {said}")

    def stream(self, argv: Argv) -> None:
        """Run a command that only looks and may go on until Ctrl-C."""
        with installed(argv[0]), contextlib.suppress(KeyboardInterrupt):
            subprocess.run(argv)

    def spawn(self, argv: Argv, env: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes] | None":
        """Start a process that outlives this one, its output appended to ``log``; None in a dry run."""
        if not self.announce(f"{shlex.join(argv)} >>{log} &"):
            return None
        with log.open("ab") as output:
            return subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)

    def stop(self, pid: int, gone: Callable[[], bool], timeout: float) -> None:
        """Ask a process to end and wait; kill it when it has not ended in ``timeout`` seconds."""
        if not self.announce(f"kill {pid}"):
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
            except PermissionError:
                raise Failed(f"process {pid} is somebody else's.", fix="run this as the user who started it") from None
            if poll(gone, timeout):
                return
        raise Failed(f"process {pid} does not end.")

    def act(self, description: str, action: Callable[[], Any]) -> None:
        """A change that is not a command, such as a call of the Docker SDK."""
        if self.announce(description):
            with resumable(description):
                action()

    def write(self, path: Path, text: str, mode: int = 0o644, secret: bool = False) -> None:
        """Write a file, if it differs; of a secret only the name is told. The inode stays: it may be mounted."""
        with contextlib.suppress(OSError):
            if path.stat().st_mode & 0o777 == mode and path.read_text(encoding="utf-8") == text:
                return
        if not self.announce(f"write {'secret ' if secret else ''}{path}"):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
                file.write(text)
            path.chmod(mode)
        except OSError as error:
            raise Failed(f"{path} cannot be written: {error.strerror}.", fix="make room, or the folder writable") from None

    def make_folder(self, path: Path, mode: int = 0o755, owner: tuple[int, int] | None = None) -> None:
        """Make a folder, and give a new one to ``owner`` when run by root."""
        if os.path.isdir(path) or not self.announce(f"mkdir -p {path}"):  # noqa: PTH112  Path.is_dir raises where one may not look
            return
        try:
            path.mkdir(parents=True, mode=mode)
        except OSError as error:
            raise NotReady(f"{path} cannot be made: {error.strerror}.", fix="name a folder that you can write") from None
        if owner:
            self.own(path, *owner)

    def own(self, path: Path, uid: int, gid: int) -> None:
        """Give a file to a user, when run by root, who alone can."""
        if os.getuid() != 0 or not path.exists() or (path.stat().st_uid, path.stat().st_gid) == (uid, gid):
            return
        if self.announce(f"chown {uid}:{gid} {path}"):
            os.chown(path, uid, gid)

    def remove(self, path: Path) -> None:
        """Remove a file or a folder with all that is in it."""
        if (path.exists() or path.is_symlink()) and self.announce(f"rm -r {path}"):
            try:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            except OSError as error:
                raise Failed(f"{error.filename} cannot be removed: {error.strerror}.", fix=f"sudo rm -r {path}") from None

    def wait(self, what: str, ready: Callable[[], bool], timeout: float) -> bool:
        """Poll ``ready`` until it holds or ``timeout`` seconds are over, with a sign of life; True in a dry run."""
        if not self.announce(f"wait for {what}, {timeout:.0f} s at most"):
            return True
        with resumable(f"wait for {what}"), progress(what):
            return poll(ready, timeout)

    @contextlib.contextmanager
    def exclusive(self, path: Path, busy: str = "another task is at work in this folder.", task: str = "") -> Iterator[None]:
        """Let one process at a time do what is in the block; a second one is told, not kept waiting: which ``task`` it is, if
        both have one."""
        if self.dry:
            yield
            return
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                other = file.read(20).strip() if task else ""
                said = f"`inv {other}` is at work in this folder." if other else busy
                raise NotReady(said, fix="wait for it, then try again") from None
            with contextlib.suppress(OSError):  # a full disk has no room for a name
                file.truncate(0)
                os.write(file.fileno(), task.encode())
            yield

    def confirm(self, question: str, *answers: str) -> bool:
        """Whether the user types one of ``answers``; anything else, and no input at all, is a No."""
        if self.dry:
            self.say(f"would ask: {question}")
            return True
        try:
            return input(f"{question} ").strip() in answers
        except EOFError:
            self.say()
            return False


def is_attended() -> bool:
    """Whether there is somebody to answer a question."""
    return sys.stdin.isatty()


def tool(name: str) -> str:
    """The path of a command that is installed beside this Python, whether or not its environment is active."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def complete(argv: Argv, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, in a process group of its own where Ctrl-C is not to reach it."""
    done = subprocess.run(argv, process_group=group(), **options)
    return subprocess.run(argv, process_group=group(), **options) if is_too_early(done.returncode) else done


def is_too_early(code: int) -> bool:
    """Whether Ctrl-C met a command in the moment before it had its own process group: it had not begun, and can be run again."""
    return code == -signal.SIGINT and group() == 0


def listen(argv: Argv, stdin: IO[str], env: Mapping[str, str] | None) -> tuple[int, str, str]:
    """Run a script that tells of its progress, in lines of JSON on standard error, and show that; its exit code, its output and
    what else it said. Ctrl-C ends it, and waits until it has tidied up."""
    said = []
    start = functools.partial(subprocess.Popen, env=env, process_group=0, stdin=stdin, stdout=PIPE, stderr=PIPE, text=True)
    with bars() as show, start(argv, errors="replace") as running, ThreadPoolExecutor(1) as pool:
        try:
            outcome = pool.submit(running.stdout.read)  # type: ignore[union-attr]
            for line in running.stderr or ():
                if line.startswith("{"):
                    show(json.loads(line))
                else:
                    said.append(line)
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGTERM)  # Compose is two processes, the first of which may go without the second
            raise
    return running.returncode, outcome.result(), "".join(said)


def gist(argv: Argv) -> str:
    """The words that tell a command from others."""
    words = list(argv)
    for option in (one for one in DOCKERS_OWN if one in words[:8]):
        at = words.index(option)
        del words[at : at + 2]
    return shlex.join(words[:7]) + " ..." * (len(words) > 7)


@contextlib.contextmanager
def installed(command: str) -> Iterator[None]:
    """Turn "no such command" into advice."""
    try:
        yield
    except (FileNotFoundError, PermissionError):
        raise NotReady(f"the command {command} is not there.", fix=INSTALL.get(command, f"install {command}")) from None


def answers(url: str) -> bool:
    """Whether a GET is answered with 200 within three seconds; never through a proxy, and by whatever certificate: this
    tells nothing to whom it asks."""
    import http.client
    import ssl
    import urllib.request

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=3) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def poll(ready: Callable[[], bool], timeout: float, interval: float = 0.1) -> bool:
    """Whether ``ready`` comes to hold within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True
