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


def test_what_is_under_way_is_told_in_lines_of_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PAUSE", 0.0)
    assert list(jobs.tracked(["a", "b"], "files")) == ["a", "b"]
    assert list(jobs.tracked(iter("cd"), "others", 7)) == ["c", "d"]
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert told == [
        {"what": "files", "done": 0, "total": 2},
        {"what": "files", "done": 1, "total": 2},
        {"what": "others", "done": 0, "total": 7},
        {"what": "others", "done": 1, "total": 7},
    ]


def test_what_is_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(jobs.tracked(range(100), "files"))) == 100
    assert capsys.readouterr().err == ""
