"""What is seen of a stack, and the commands on it. The stack itself: tests/docker/test_stack.py."""

from pathlib import Path
from typing import Any

import pytest

from pypi_tasks import stack
from pypi_tasks.deployment import State
from pypi_tasks.world import World
from tests.helpers import settings_of


class TestState:
    """What Docker says of one container, as a user reads it."""

    @pytest.mark.parametrize(
        ("state", "health"),
        [
            ({"Status": "running", "Health": {"Status": "healthy"}}, "healthy"),
            ({"Status": "running", "Health": {"Status": "starting"}}, "starting"),
            ({"Status": "running", "Health": {"Status": "unhealthy"}}, "unhealthy"),
            ({"Status": "running"}, "running"),
            ({"Status": "exited", "Health": {"Status": "unhealthy"}}, "exited"),
            ({"Status": "restarting", "Health": {"Status": "starting"}}, "restarting"),
        ],
    )
    def test_is_the_health_of_one_that_runs_and_the_status_of_one_that_does_not(self, state: dict[str, Any], health: str) -> None:
        end = "" if state["Status"] == "running" else ", exit code 3"
        state = {**state, "ExitCode": 3}
        container = {"Name": "/pypi-dev-proxy-1", "State": state, "Config": {"Image": "pypi_proxy:pypi"}, "Image": "sha256:1"}
        assert stack.state_of(container) == State(health, f"container pypi-dev-proxy-1{end}", "pypi_proxy:pypi", "sha256:1")


class TestCommand:
    def test_names_the_project_and_the_rendered_file(self, tmp_path: Path) -> None:
        found = stack.Stack(World(), settings_of(tmp_path), "stable")
        file = str(stack.RENDERED / "docker-compose-stable.yaml")
        wanted = ["docker", "compose", "--project-name", "pypi-stable", "--file", file, "up", "--detach"]
        assert found.argv("up", "--detach") == wanted

    def test_environments_of_two_projects_are_two_stacks(self, tmp_path: Path) -> None:
        found = stack.Stack(World(), settings_of(tmp_path, PROJECT="team"), "dev")
        assert found.argv("ps")[2:4] == ["--project-name", "team-dev"]

    def test_secrets_belong_to_the_user_of_the_container(self, tmp_path: Path) -> None:
        assert stack.Stack(World(), settings_of(tmp_path, DEVPI_UID="1234", DEVPI_GID="2345"), "dev").owner == (1234, 2345)
