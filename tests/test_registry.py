"""A refused push is a failure with advice, though the SDK hides it in its stream. Real pushes: tests/docker/."""

from pathlib import Path

import pytest

from pypi_tasks import registry
from pypi_tasks.image import Pair
from pypi_tasks.registry import Event
from pypi_tasks.world import World

NAME = "127.0.0.1:5000/pypi_server:6.20.3-0123456789ab"
GOOD: list[Event] = [
    {"status": f"The push refers to repository [{NAME}]"},
    {"status": "Preparing", "progressDetail": {}, "id": "5f70bf18a086"},
    {"status": "Pushing", "progressDetail": {"current": 512, "total": 1024}, "progress": "[=> ]", "id": "5f70bf18a086"},
    {"status": "Layer already exists", "progressDetail": {}, "id": "5f70bf18a086"},
    {"status": "latest: digest: sha256:00 size: 1234"},
    {"progressDetail": {}, "aux": {"Tag": "latest", "Digest": "sha256:00", "Size": 1234}},
    {"errorDetail": None},
]


class TestRefusal:
    @pytest.mark.parametrize("event", GOOD)
    def test_an_ordinary_event_is_none(self, event: Event) -> None:
        assert registry.refusal(event) == ""

    @pytest.mark.parametrize(
        "event",
        [
            {"errorDetail": {"message": "unauthorized: access denied"}, "error": "unauthorized: access denied"},
            {"errorDetail": {"message": "unauthorized: access denied"}},
            {"errorDetail": {"code": 401, "message": "unauthorized: access denied"}},
            {"error": "unauthorized: access denied"},
        ],
    )
    def test_an_error_is_what_the_registry_said(self, event: Event) -> None:
        assert registry.refusal(event) == "unauthorized: access denied"


class TestAdvice:
    @pytest.mark.parametrize(
        "said",
        [
            "denied: requested access to the resource is denied",
            "unauthorized: authentication required",
            "no basic auth credentials",
        ],
    )
    def test_who_is_not_let_in_logs_in_to_that_registry(self, said: str) -> None:
        assert registry.advice(NAME, said) == "docker login 127.0.0.1:5000"

    @pytest.mark.parametrize("said", ["connection refused", "dial tcp: lookup registry.example: no such host"])
    def test_otherwise_the_address_is_to_be_checked(self, said: str) -> None:
        assert "REGISTRY is right and that 127.0.0.1:5000 answers" in registry.advice(NAME, said)


class TestDryRun:
    def test_names_every_push_and_needs_no_engine(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        registry.push(World(dry=True), [Pair(NAME, "127.0.0.1:5000/pypi_server:latest")])
        assert capsys.readouterr().out.splitlines() == [
            f"would: docker push {NAME}",
            "would: docker push 127.0.0.1:5000/pypi_server:latest",
        ]
