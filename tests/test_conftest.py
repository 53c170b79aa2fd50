"""Without an engine the tests that need one are skipped with a reason; in CI that is a failure."""

import sys
from pathlib import Path

import pytest

from tests.workspace import Workspace, checkout


@pytest.fixture
def fresh(tmp_path: Path) -> Workspace:
    return checkout(tmp_path / "fresh", "pypi-test-skip")


@pytest.mark.parametrize(("ci", "code", "told"), [("", 0, "10 skipped"), ("true", 1, "10 errors")])
def test_no_engine_is_a_skip_here_and_a_failure_in_ci(fresh: Workspace, ci: str, code: int, told: str) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "tests/docker/test_seed.py"]
    result = fresh.run(*argv, check=False, CI=ci, DOCKER_HOST="unix:///no/such/socket")
    assert result.returncode == code and told in result.stdout and "no Docker engine answers" in result.stdout, result.stdout
