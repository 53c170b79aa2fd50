"""Ctrl-C, and whatever else ends a task from outside: it tidies up, says so in a line, and exits with 130."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pypi_tasks.errors import Failed, Interrupted
from pypi_tasks.interruption import undisturbed
from pypi_tasks.settings import ROOT
from pypi_tasks.world import World, poll
from tests.workspace import clean_environment

WORK = """
import os, sys, time
from pathlib import Path
from pypi_tasks import program
folder = Path(sys.argv[1])
class Task:
    tasks = ()
def work(_):
    try:
        (folder / "begun").touch()
        time.sleep(60)
    finally:
        os.kill(os.getpid(), int(sys.argv[2]))
        for number in range(1000):
            print("tidying up", number, flush=True)
        (folder / "tidy").touch()
program.execute_as_invoke = work
program.execute(Task())
"""

HALF_DONE = """
import os, signal, sys, time
from pathlib import Path
from pypi_tasks.interruption import undisturbed
from pypi_tasks.world import World
begun, done = map(Path, sys.argv[1:3])
work = f"import time; open({str(begun)!r}, 'w').close(); time.sleep(1); open({str(done)!r}, 'w').close()"
with undisturbed("going back"):
    World().run([sys.executable, "-c", work])
print("to its end", flush=True)
signal.raise_signal(signal.SIGINT)
"""


def at_terminal(folder: Path, *words: str, until: str) -> tuple[int, int, str]:
    """Run Python at a terminal of its own until it has printed something; pid, the terminal, and what was printed."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, *words], clean_environment())
    shown = ""
    while until not in shown:
        shown += os.read(terminal, 1000).decode()
    return pid, terminal, shown


def rest(terminal: int) -> str:
    """What is printed until the end."""
    shown = b""
    try:
        while text := os.read(terminal, 1000):
            shown += text
    except OSError:
        pass  # how Linux says that there is nobody at the other end
    return shown.decode()


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, 0), (signal.SIGTERM, signal.SIGHUP), (signal.SIGHUP, signal.SIGTERM)]
)
def test_every_end_from_outside_lets_a_task_tidy_up_even_where_another_follows(first: int, second: int, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", WORK, str(tmp_path), str(int(second))]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert poll((tmp_path / "begun").exists, 30)
        os.kill(running.pid, first)
        shown, said = running.communicate(timeout=30)
    assert (tmp_path / "tidy").exists() and shown.endswith("tidying up 999\n") and "Interrupted" in said


def test_a_terminal_that_is_closed_lets_a_task_tidy_up(tmp_path: Path) -> None:
    pid, terminal, _ = at_terminal(ROOT, "-c", f"print('here', flush=True)\n{WORK}", str(tmp_path), "1", until="here")
    assert poll((tmp_path / "begun").exists, 30)
    os.close(terminal)
    os.waitpid(pid, 0)
    assert (tmp_path / "tidy").exists()


def test_what_nohup_has_ignored_stays_ignored() -> None:
    text = "from pypi_tasks import interruption; import signal; interruption.heed(); print(signal.getsignal(signal.SIGHUP).name)"
    shown = subprocess.run(["nohup", sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown == "SIG_IGN\n"


@pytest.mark.parametrize(
    "work",
    [
        lambda argv: World().run(argv),
        lambda argv: World().feed(argv, ""),
        lambda argv: World().ask(argv),
        lambda argv: World().converse(argv, {}),
    ],
    ids=["run", "feed", "ask", "converse"],
)
def test_a_command_that_ctrl_c_met_before_it_had_begun_is_run_again(work: Callable[[list[str]], object], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    text = f"import os, pathlib; mark = pathlib.Path({str(mark)!r}); first = not mark.exists(); mark.touch()"
    argv = [sys.executable, "-c", f"{text}; first and os.kill(os.getpid(), {int(signal.SIGINT)}); print('null')"]
    with undisturbed("going back"):
        work(argv)
    mark.unlink()
    with pytest.raises((Failed, Interrupted)):
        work(argv)


def test_neither_ctrl_c_nor_a_signal_keeps_a_command_from_its_end(tmp_path: Path) -> None:
    """At a terminal Ctrl-C goes to every process of the foreground group."""
    begun, done = tmp_path / "begun", tmp_path / "done"
    argv = [sys.executable, "-c", HALF_DONE, str(begun), str(done)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, cwd=ROOT, text=True, start_new_session=True, **pipes) as running:  # type: ignore[call-overload]
        assert poll(begun.exists, 30)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.killpg(running.pid, number)
        shown, said = running.communicate(timeout=30)
    assert done.exists() and shown.endswith("to its end\n")
    assert "going back, please wait" in said and said.endswith("KeyboardInterrupt\n"), "afterwards it is heeded again"


@pytest.mark.parametrize("module", ["pypi_tasks", "invoke"])
def test_ctrl_c_at_a_question_is_told(module: str) -> None:
    pid, terminal, _ = at_terminal(ROOT, "-m", module, "unlock", "--env", "local", until="Passphrase of the secrets:")
    os.write(terminal, b"\x03")
    shown = rest(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert "Error: interrupted." in shown and "Traceback" not in shown


def test_ctrl_c_before_invoke_is_there_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "invoke").mkdir()
    (tmp_path / "invoke" / "__init__.py").touch()
    (tmp_path / "invoke" / "main.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    argv = [sys.executable, "-m", "pypi_tasks", "status"]
    environment = clean_environment() | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stdout.readline() == "importing\n"
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert running.returncode == 130 and said == "Error: interrupted before anything was begun.\n"
