"""Each fault that no other test puts onto a server, once or twice: what `inv test --chaos` does at length."""

import os
from collections.abc import Iterator

import pytest

from tests.chaos.faults import choices, select
from tests.chaos.ground import Ground, Run

pytestmark = pytest.mark.docker

TRIALS = {
    "devpi": 1, "proxy": 1, "both": 1, "power": 2, "full-home": 2, "upstream-gone": 1, "upstream-slow": 1, "upstream-500": 1,
    "upstream-cut": 1, "clock": 1, "engine": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with Ground(print) as made:
        yield made


@pytest.mark.parametrize("name", TRIALS)
def test_what_must_hold_does(ground: Ground, name: str) -> None:
    fault = select([name])[0]
    assert os.environ.get("CI") != "true" or not fault.skipped(), fault.skipped()
    if why := fault.skipped():
        pytest.skip(why)
    run = Run(ground, name, TRIALS[name], choices(int.from_bytes(os.urandom(3)), fault))
    fault.run(run)
    ground.mend()
    assert run.seen.held and run.seen.trials == TRIALS[name], run.seen
