"""Whatever changes something says so first, does only that in a dry run, and fails in words that a user can act on."""

import http.server
import io
import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pypi_tasks.certificate import self_signed
from pypi_tasks.errors import BadInput, Failed, Interrupted, NotReady
from pypi_tasks.settings import ROOT
from pypi_tasks.world import World, answers, gist, poll, tool
from tests.helpers import told
from tests.workspace import free_port

PYTHON = sys.executable


def script(text: str) -> list[str]:
    return [PYTHON, "-c", text]


def touch(path: Path) -> list[str]:
    return script(f"open({str(path)!r}, 'w').close()")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


CHANGES: dict[str, Callable[[World, Path], object]] = {
    "write": lambda world, folder: world.write(folder / "new", "text"),
    "overwrite": lambda world, folder: world.write(folder / "old", "other"),
    "make_folder": lambda world, folder: world.make_folder(folder / "new"),
    "own": lambda world, folder: world.own(folder / "old", 1234, 1234),
    "remove": lambda world, folder: world.remove(folder / "old"),
    "run": lambda world, folder: world.run(touch(folder / "new")),
    "feed": lambda world, folder: world.feed(touch(folder / "new"), ""),
    "converse": lambda world, folder: world.converse(script(f"open({str(folder / 'new')!r}, 'w').close(); print(1)"), {}),
    "sweep": lambda world, folder: world.sweep(touch(folder / "new")),
    "spawn": lambda world, folder: world.spawn(touch(folder / "new"), {}, folder / "log"),
    "act": lambda world, folder: world.act("make it", (folder / "new").touch),
}


class TestDryRun:
    @pytest.mark.parametrize("name", list(CHANGES))
    def test_changes_nothing_and_says_what_it_would_do(
        self, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if name == "own" and os.getuid() != 0:
            pytest.skip("only root can give a file to somebody else, so nobody else is told")
        (tmp_path / "old").write_text("text")
        before = (tmp_path / "old").stat()
        CHANGES[name](World(dry=True), tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["old"]
        after = (tmp_path / "old").stat()
        assert (after.st_mtime_ns, after.st_uid, after.st_ino) == (before.st_mtime_ns, before.st_uid, before.st_ino)
        assert capsys.readouterr().out.startswith("would: ")

    @pytest.mark.parametrize("name", ["write", "make_folder", "run", "feed", "converse", "sweep", "act"])
    def test_is_the_only_thing_that_keeps_it_from_being_done(
        self, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        CHANGES[name](World(), tmp_path)
        assert (tmp_path / "new").exists()
        assert capsys.readouterr().out.startswith("$ ")

    def test_ends_no_process(self) -> None:
        with subprocess.Popen(script("input()"), stdin=subprocess.PIPE) as process:
            World(dry=True).stop(process.pid, lambda: False, timeout=0)
            assert process.poll() is None
            process.communicate(b"\n")
        assert process.returncode == 0

    def test_does_not_wait(self) -> None:
        assert World(dry=True).wait("what never comes", lambda: False, timeout=60)

    def test_still_looks(self) -> None:
        assert World(dry=True).ask(script("print('seen')")).stdout == "seen\n"


class TestRun:
    def test_shows_the_command_as_one_could_type_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        World().run(["test", "-d", str(tmp_path)])
        World(dry=True).run(["echo", "two words", "$HOME", "it's"])
        assert capsys.readouterr().out == f"$ test -d {tmp_path}\nwould: echo 'two words' '$HOME' 'it'\"'\"'s'\n"

    def test_a_failure_is_told_with_its_code_and_what_to_do(self) -> None:
        with pytest.raises(Failed) as caught:
            World().run(script("raise SystemExit(7)"), fix="do better")
        assert "exited 7; its output is above." in told(caught)
        assert told(caught).endswith("Fix: do better")
        assert caught.value.code == 1

    @pytest.mark.parametrize("method", ["run", "ask", "check", "stream"])
    def test_a_missing_command_is_told_with_how_to_get_it(self, method: str) -> None:
        with pytest.raises(NotReady) as caught:
            getattr(World(), method)(["no-such-command-anywhere"])
        assert "the command no-such-command-anywhere is not there." in told(caught)
        assert "install no-such-command-anywhere" in told(caught)
        assert caught.value.code == 3

    def test_without_docker_the_way_without_docker_is_told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(NotReady) as caught:
            World().run(["docker", "version"])
        assert "inv up --env local" in told(caught)

    def test_has_the_environment_that_it_is_given(self, tmp_path: Path) -> None:
        text = f"import os; open({str(tmp_path / 'out')!r}, 'w').write(os.environ['COLOUR'])"
        World().run(script(text), env={"COLOUR": "blue"})
        assert (tmp_path / "out").read_text() == "blue"


class TestGist:
    """The words by which a command is told after Ctrl-C or a failure."""

    def test_of_compose_it_is_what_is_done_and_not_to_what(self) -> None:
        compose = ["docker", "compose", "--project-name", "pypi-dev", "--file", "a file"]
        assert gist([*compose, "stop", "devpi"]) == "docker compose stop devpi"
        assert gist([*compose[:4], "down", "--remove-orphans"]) == "docker compose down --remove-orphans"

    def test_a_long_one_is_cut(self) -> None:
        assert gist(["docker", "compose", "--file", "x", *"abcdefg"]) == "docker compose a b c d e ..."

    def test_one_that_is_not_dockers_is_shown_as_it_begins(self) -> None:
        assert gist(["uv", "venv", "--quiet"]) == "uv venv --quiet"


class TestExclusive:
    def test_who_comes_second_is_told_who_is_at_work(self, tmp_path: Path) -> None:
        with World().exclusive(tmp_path / "lock", task="upgrade"):
            with pytest.raises(NotReady) as caught, World().exclusive(tmp_path / "lock", task="down"):
                pass
            assert "`inv upgrade` is at work in this folder." in told(caught)

    def test_who_has_no_name_is_another_task(self, tmp_path: Path) -> None:
        with World().exclusive(tmp_path / "lock", task="upgrade"):
            pass
        with World().exclusive(tmp_path / "lock"):
            with pytest.raises(NotReady) as caught, World().exclusive(tmp_path / "lock", task="down"):
                pass
            assert "another task is at work in this folder." in told(caught)


class TestAskCheckAndFeed:
    def test_ask_tells_what_a_failing_command_said(self) -> None:
        with pytest.raises(Failed) as caught:
            World().ask(script("raise SystemExit('no luck')"))
        assert "exited 1: no luck" in told(caught)

    def test_ask_leaves_it_to_the_caller_when_told_so(self) -> None:
        assert World().ask(script("raise SystemExit(3)"), check=False).returncode == 3

    def test_ask_says_nothing_of_itself(self, capsys: pytest.CaptureFixture[str]) -> None:
        World().ask(script("print('seen')"))
        assert capsys.readouterr().out == ""

    def test_check_tells_the_findings(self) -> None:
        with pytest.raises(Failed) as caught:
            World(dry=True).check(script("import sys; print(sys.stdin.read()); sys.exit(1)"), stdin="DL3000 use absolute")
        assert "found:\nDL3000 use absolute" in told(caught)

    def test_feed_gives_input_and_returns_output(self) -> None:
        assert World().feed(script("print(input().upper())"), "wish\n") == "WISH\n"

    def test_feed_does_not_show_what_it_feeds(self, capsys: pytest.CaptureFixture[str]) -> None:
        World().feed(script("input()"), "hunter2\n")
        assert "hunter2" not in capsys.readouterr().out

    def test_feed_fails_with_what_the_command_said(self) -> None:
        with pytest.raises(Failed) as caught:
            World().feed(script("raise SystemExit('the password is not right')"), "")
        assert told(caught) == "Error: the password is not right"

    def test_sweep_passes_over_what_is_in_use(self, capsys: pytest.CaptureFixture[str]) -> None:
        World().sweep(script("raise SystemExit('image is in use')"))
        assert "left where it is: image is in use" in capsys.readouterr().err

    @pytest.mark.parametrize("said", ["No such container: x", "removal of container x is already in progress"])
    def test_sweep_says_nothing_of_what_goes_by_itself(self, capsys: pytest.CaptureFixture[str], said: str) -> None:
        World().sweep(script(f"raise SystemExit('Error response from daemon: {said}')"))
        assert capsys.readouterr().err == ""


class TestFiles:
    def test_a_new_file_has_its_mode_from_the_start(self, tmp_path: Path) -> None:
        World().write(tmp_path / "deep" / "secret", "text\n", mode=0o600)
        assert (tmp_path / "deep" / "secret").read_text() == "text\n"
        assert mode(tmp_path / "deep" / "secret") == 0o600

    def test_a_changed_file_keeps_its_inode_since_it_may_be_mounted(self, tmp_path: Path) -> None:
        file = tmp_path / "secret"
        file.write_text("a much longer text")
        file.chmod(0o644)
        inode = file.stat().st_ino
        World().write(file, "short\n", mode=0o600)
        assert file.read_text() == "short\n"
        assert (file.stat().st_ino, mode(file)) == (inode, 0o600)

    def test_an_equal_file_is_left_alone_in_silence(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").write_text("text")
        before = (tmp_path / "file").stat().st_mtime_ns
        World().write(tmp_path / "file", "text")
        assert (tmp_path / "file").stat().st_mtime_ns == before
        assert capsys.readouterr().out == ""

    def test_of_a_secret_only_the_name_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        World().write(tmp_path / "password", "hunter2", mode=0o600, secret=True)
        assert capsys.readouterr().out == f"$ write secret {tmp_path / 'password'}\n"

    def test_one_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(Failed) as caught:
            World().write(tmp_path / "file" / "deeper", "text")
        assert f"{tmp_path / 'file' / 'deeper'} cannot be written: " in told(caught)

    def test_a_folder_is_made_with_its_parents_and_mode(self, tmp_path: Path) -> None:
        World().make_folder(tmp_path / "deep" / "secrets", mode=0o700)
        assert mode(tmp_path / "deep" / "secrets") == 0o700

    def test_a_folder_that_is_there_is_left_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        World().make_folder(tmp_path, mode=0o777)
        assert mode(tmp_path) != 0o777
        assert capsys.readouterr().out == ""

    def test_a_folder_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(NotReady) as caught:
            World().make_folder(tmp_path / "file" / "folder")
        assert f"{tmp_path / 'file' / 'folder'} cannot be made" in told(caught)
        assert "a folder that you can write" in told(caught)

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
    def test_a_new_folder_of_roots_goes_to_its_owner(self, tmp_path: Path) -> None:
        World().make_folder(tmp_path / "devpi", owner=(1234, 2345))
        found = (tmp_path / "devpi").stat()
        assert (found.st_uid, found.st_gid) == (1234, 2345)

    def test_files_folders_and_links_are_removed(self, tmp_path: Path) -> None:
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "file").write_text("")
        (tmp_path / "folder" / "deep").mkdir(parents=True)
        (tmp_path / "file").write_text("")
        (tmp_path / "link").symlink_to(tmp_path / "kept")
        (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
        for name in ("folder", "file", "link", "broken", "never-there"):
            World().remove(tmp_path / name)
        assert [file.name for file in tmp_path.iterdir()] == ["kept"]
        assert (tmp_path / "kept" / "file").exists()


class TestProcesses:
    def test_a_spawned_process_writes_to_its_log_and_adds_to_it(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("before\n")
        process = World().spawn(script("import sys; print('out', flush=True); print('err', file=sys.stderr)"), {}, log)
        assert process
        assert process.wait(timeout=10) == 0
        assert log.read_text() == "before\nout\nerr\n"

    def test_a_spawned_process_has_a_session_of_its_own(self, tmp_path: Path) -> None:
        process = World().spawn(script("import os; print(os.getsid(0) == os.getpid())"), {}, tmp_path / "log")
        assert process
        process.wait(timeout=10)
        assert (tmp_path / "log").read_text() == "True\n"

    def test_a_process_is_asked_to_end(self) -> None:
        with subprocess.Popen(script("input()"), stdin=subprocess.PIPE) as process:
            World().stop(process.pid, lambda: process.poll() is not None, timeout=10)
        assert process.returncode == -signal.SIGTERM

    def test_a_process_that_does_not_listen_is_killed(self) -> None:
        deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); input()"
        with subprocess.Popen(script(deaf), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            World().stop(process.pid, lambda: process.poll() is not None, timeout=0.2)
        assert process.returncode == -signal.SIGKILL

    def test_a_process_that_is_gone_already_is_no_failure(self) -> None:
        process = subprocess.Popen(script(""))
        process.wait()
        World().stop(process.pid, lambda: True, timeout=1)
        assert process.returncode == 0

    def test_waiting_ends_when_it_is_ready_or_over(self) -> None:
        seen = iter([False, False, True])
        assert World().wait("the third look", lambda: next(seen), timeout=10)
        assert not World().wait("what never comes", lambda: False, timeout=0.05)
        assert not poll(lambda: False, timeout=0, interval=0)


class TestQuestions:
    @pytest.mark.parametrize(("typed", "confirmed"), [("", False), ("\n", False), ("n\n", False), ("y\n", True), (" y \n", True)])
    def test_only_the_answer_is_a_yes(self, monkeypatch: pytest.MonkeyPatch, typed: str, confirmed: bool) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert World().confirm("Sure?", "y") is confirmed

    def test_a_dry_run_asks_nobody(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr("sys.stdin", None)
        assert World(dry=True).confirm("Sure?", "y")
        assert capsys.readouterr().out == "would ask: Sure?\n"


class TestOutput:
    def test_who_stops_reading_does_not_stop_the_work(self, tmp_path: Path) -> None:
        marker = tmp_path / "done"
        work = f"""
from pathlib import Path
from pypi_tasks.world import World
for number in range(1000):
    World().say("x" * 1000)
Path({str(marker)!r}).touch()
"""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([PYTHON, "-c", work], cwd=ROOT, text=True, **pipes) as process:  # type: ignore[call-overload]
            process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read()
        assert (process.returncode, said) == (0, "")
        assert marker.exists()

    def test_warnings_are_no_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        World().warn("mind the gap")
        assert capsys.readouterr() == ("", "Warning: mind the gap\n")


class TestTool:
    def test_one_beside_this_python_is_found_without_an_active_environment(self) -> None:
        assert tool(Path(PYTHON).name) == PYTHON

    def test_another_is_left_to_the_path(self) -> None:
        assert tool("no-such-command-anywhere") == "no-such-command-anywhere"


class TestAnswers:
    @pytest.fixture
    def server(self) -> Iterator[str]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/+api" else 404)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Keep quiet."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    def test_a_server_answers_or_does_not(self, server: str) -> None:
        assert answers(f"{server}/+api")
        assert not answers(f"{server}/elsewhere")
        assert not answers(f"http://127.0.0.1:{free_port()}/+api")

    def test_one_with_a_certificate_that_nobody_trusts_answers_too(self, tmp_path: Path) -> None:
        """It is our own, and is told nothing."""
        for name, text in zip(("tls.crt", "tls.key"), self_signed(["pypi.example"]), strict=True):
            (tmp_path / name).write_text(text)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            assert answers(f"https://127.0.0.1:{server.server_port}/")
            assert not answers(f"http://127.0.0.1:{server.server_port}/")
            server.shutdown()

    def test_no_proxy_is_asked(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        assert answers(f"{server}/+api")


class TestConverse:
    def test_the_job_goes_in_and_the_outcome_comes_back(self) -> None:
        text = "import json, sys; job = json.load(sys.stdin); print(json.dumps({'twice': job['number'] * 2}))"
        assert World().converse(script(text), {"number": 21}) == {"twice": 42}

    def test_a_dry_run_has_no_outcome(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert World(dry=True).converse(["none"], {"do": "make", "settings": {"long": "one"}}) is None
        assert capsys.readouterr().out == """would: none <<< '{"do": "make"}'\n"""

    def test_what_is_large_on_both_ways_blocks_nobody(self) -> None:
        text = "import sys; job = sys.stdin.read(); sys.stderr.write('x' * 10**6); sys.stdout.write(job)"
        job = {"words": ["word"] * 10**5}
        assert World().converse(script(text), job) == job

    def test_progress_is_no_part_of_a_message(self) -> None:
        text = """import sys; print('{"what": "files", "done": 1, "total": 2}', file=sys.stderr); sys.exit('no luck')"""
        with pytest.raises(Failed) as caught:
            World().converse(script(text), {})
        assert told(caught) == "Error: no luck"

    def test_a_silent_failure_has_its_code(self) -> None:
        with pytest.raises(Failed) as caught:
            World().converse(script("raise SystemExit(7)"), {})
        assert "exited 7." in told(caught)

    def test_what_cannot_be_right_is_bad_input(self) -> None:
        with pytest.raises(BadInput) as caught:
            World().converse(script("import sys; print('no such snapshot', file=sys.stderr); sys.exit(64)"), {})
        assert told(caught) == "Error: no such snapshot" and caught.value.code == 2

    def test_a_script_that_was_interrupted_is_no_failure_of_its_work(self) -> None:
        with pytest.raises(Interrupted) as caught:
            World().converse(script("raise SystemExit(130)"), {})
        assert told(caught).endswith("Fix: the same command again starts anew")

    def test_a_missing_command_is_told_with_how_to_get_it(self) -> None:
        with pytest.raises(NotReady):
            World().converse(["no-such-command-anywhere"], {})

    def test_has_the_environment_that_it_is_given(self) -> None:
        text = "import json, os; print(json.dumps(os.environ['COLOUR']))"
        assert World().converse(script(text), {}, {"COLOUR": "blue"}) == "blue"

    def test_ctrl_c_reaches_the_script_which_tidies_up_before_we_go_on(self, tmp_path: Path) -> None:
        work = f"""
import os, signal, sys, time
def end(*_): time.sleep(0.3); open({str(tmp_path / "tidy")!r}, "w").close(); sys.exit(130)
signal.signal(signal.SIGTERM, end)
open({str(tmp_path / "begun")!r}, "w").close()
time.sleep(60)
"""
        (tmp_path / "work.py").write_text(work)
        task = f"from pypi_tasks.world import World; World().converse([{PYTHON!r}, {str(tmp_path / 'work.py')!r}], {{}})"
        with subprocess.Popen(script(task), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert poll((tmp_path / "begun").exists, 30)
            os.kill(running.pid, signal.SIGINT)
            _, said = running.communicate(timeout=30)
        assert (tmp_path / "tidy").exists() and "interrupted at" in said
