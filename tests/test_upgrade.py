"""What is told of an upgrade that fails, and who is asked meanwhile. Upgrades themselves: tests/docker/test_upgrade.py."""

import dataclasses
import socket
import time
from pathlib import Path

import pytest

from pypi_tasks import probe, upgrade
from pypi_tasks.errors import BadInput, Failed, Interrupted
from pypi_tasks.world import World, poll
from tests.helpers import settings_of, told


def test_a_failure_before_anything_was_changed_says_so_with_its_step() -> None:
    with pytest.raises(Failed) as caught, upgrade.saying("no snapshot can be made"):
        raise Failed("broken")
    assert told(caught) == "Error: no snapshot can be made; nothing was changed: broken"


def test_it_stays_of_its_kind_and_the_advice_can_be_another() -> None:
    with pytest.raises(BadInput) as caught, upgrade.saying("the new images do not work", "undo the change"):
        raise BadInput("broken", fix="inv backup --full")
    assert told(caught).endswith("Fix: undo the change") and caught.value.code == 2


def test_ctrl_c_is_no_failure_of_a_step() -> None:
    with pytest.raises(Interrupted) as caught, upgrade.saying("the new images do not work"):
        raise Interrupted("interrupted at: drill")
    assert told(caught) == "Error: interrupted at: drill"


def test_after_a_failure_nobody_waits_for_the_answer_to_a_request_that_is_held(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = dataclasses.replace(settings_of(tmp_path), devpi_port=silent.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(Failed), probe.watching(settings):
            connection, _ = silent.accept()
            assert poll(lambda: bool(connection.recv(1)), 10)
            raise Failed("this does not work")
        assert time.monotonic() - began < 10
        connection.close()


def test_nobody_is_asked_where_there_is_no_server(tmp_path: Path) -> None:
    with upgrade.watched(World(), settings_of(tmp_path), is_up=False) as seen:
        pass
    assert seen == probe.Seen()


@pytest.mark.parametrize(("env", "to", "tag"), [("stable", "2.0", "2.0"), ("stable", "", "latest"), ("dev", "", "latest")])
def test_another_tag_is_for_the_images_of_a_registry(tmp_path: Path, env: str, to: str, tag: str) -> None:
    assert upgrade.redirected(settings_of(tmp_path), env, to).tag == tag
