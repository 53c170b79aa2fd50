"""What a script answers, and what it says meanwhile, as the task at its other end reads it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jobs
import pytest

from tests.workspace import REPOSITORY


def script(text: str, job: object) -> "subprocess.CompletedProcess[str]":
    """Run a script of one job."""
    before = "import os, signal, sys, time\nfrom pathlib import Path\nfrom jobs import *\n"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "pypi_server")}
    argv = [sys.executable, "-c", before + text]
    return subprocess.run(argv, input=json.dumps(job), env=environment, capture_output=True, text=True)


def test_the_outcome_is_json_of_the_job() -> None:
    result = script("main(lambda job: {'twice': job['number'] * 2})", {"number": 21})
    assert (result.returncode, json.loads(result.stdout), result.stderr) == (0, {"twice": 42}, "")


def test_a_refusal_is_told_as_it_is_and_is_a_failure() -> None:
    result = script("def work(job): raise Refusal('not today')\nmain(work)", {})
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "not today\n")


def test_a_job_that_cannot_be_right_has_a_code_of_its_own() -> None:
    result = script("def work(job): raise BadWish('no such snapshot')\nmain(work)", {})
    assert (result.returncode, result.stdout, result.stderr) == (os.EX_USAGE, "", "no such snapshot\n")


def test_what_the_disk_refuses_is_told_without_a_traceback(tmp_path: Path) -> None:
    result = script("main(lambda job: open(job['path']).read())", {"path": str(tmp_path / "none")})
    assert result.returncode == 1 and "No such file" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_from_outside_lets_it_tidy_up_and_a_second_one_does_not_disturb_that(number: int, tmp_path: Path) -> None:
    text = f"""
def work(job):
    try:
        os.kill(os.getpid(), {number})
        time.sleep(60)
    finally:
        os.kill(os.getpid(), {number})
        Path({str(tmp_path / "tidy")!r}).touch()
main(work)
"""
    result = script(text, {})
    assert result.returncode == 130 and result.stderr == "" and (tmp_path / "tidy").exists()


def test_what_is_done_is_told_in_lines_of_json_to_the_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PAUSE", -1.0)
    assert list(jobs.tracked(["a", "b"], "files")) == ["a", "b"]
    assert list(jobs.tracked(iter("cd"), "others", 7)) == ["c", "d"]
    assert list(jobs.tracked([b"large", b"s"], "sizes", size=len)) == [b"large", b"s"]
    told = [tuple(json.loads(line).values()) for line in capsys.readouterr().err.splitlines()]
    assert told == [
        *[("files", 1, 2, False), ("files", 2, 2, False), ("files", 2, 2, False)],
        *[("others", 1, 7, False), ("others", 2, 7, False), ("others", 2, 7, False)],
        *[("sizes", 5, 6, True), ("sizes", 6, 6, True), ("sizes", 6, 6, True)],
    ]


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(jobs.tracked(range(100), "files"))) == 100
    assert capsys.readouterr().err == ""
