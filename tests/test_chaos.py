"""The parts of the faults' run that need no engine: the table, choices, deadlines, counting, and what is told."""

import json
import random
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pypi_tasks import project
from pypi_tasks.errors import BadInput
from pypi_tasks.world import World
from tests.chaos import ground, runner
from tests.chaos.faults import FAULTS, choices, select
from tests.chaos.flipped import rows
from tests.chaos.ground import GIVE_UP, Late, Run, Seen, deadline, flip
from tests.helpers import told


def new_run(trials: int) -> tuple[Run, list[str]]:
    """A run without a stack, and what it says."""
    said: list[str] = []
    return Run(cast(Any, SimpleNamespace(say=said.append)), "one", trials, random.Random(1)), said


def test_every_fault_has_a_name_of_its_own_trials_and_what_must_hold() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        assert fault.holds and fault.trials > 0, fault.name


def test_an_unknown_fault_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput) as caught:
        select(["power", "flood"])
    assert "'flood' is not a fault" in told(caught) and "known faults: devpi, proxy, both, engine, power" in told(caught)
    assert [fault.name for fault in select(["power", "devpi"])] == ["devpi", "power"] and select([]) == list(FAULTS)


def test_a_seed_chooses_the_same_whatever_else_is_run() -> None:
    one, other = select(["power"])[0], select(["clock"])[0]
    first = [choices(7, one).random() for _ in range(2)]
    choices(7, other).random()
    assert first[0] == first[1] == choices(7, one).random()
    assert choices(7, one).random() not in (choices(8, one).random(), choices(7, other).random())


def test_a_trial_that_takes_too_long_is_ended() -> None:
    started = time.monotonic()
    with pytest.raises(Late, match="not done after"), deadline(0.05):
        time.sleep(30)
    with deadline(0.05):
        pass
    assert time.monotonic() - started < 20


def test_trials_go_on_after_one_that_did_not_hold_but_not_for_ever() -> None:
    run, said = new_run(5)
    outcomes = iter([True, False, True, True, True])

    def trial() -> str:
        assert next(outcomes), "it broke"
        return "fine"

    run.each(trial)
    assert run.seen.trials == 5 and run.seen.notes == {"fine": 4} and not run.seen.held
    assert run.seen.problems[0].startswith("trial 2: it broke") and len(run.seen.problems) == 1
    assert said[1].startswith("one 2/5: DID NOT HOLD: it broke")
    run, _ = new_run(50)
    run.each(lambda: str(1 / 0))
    assert run.seen.trials == GIVE_UP


@pytest.mark.parametrize("wrong", [{"failed": 1}, {"lost": 1}, {"problems": ["it broke"]}])
def test_what_did_not_hold_is_told_in_the_table_and_the_document(
    wrong: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fine, broken = Seen(trials=2, requests=1234, notes=Counter({"started": 2})), Seen(trials=2, **wrong)
    assert fine.held and not broken.held
    found = [(FAULTS[0], fine), (FAULTS[1], broken), (FAULTS[3], Seen(skipped="too loud"))]
    runner.report(found)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.startswith(("kill", "the engine"))]
    assert lines[0].endswith("yes") and "1,234" in lines[0] and lines[1].endswith("NO")
    assert "not run here: too loud" in lines[2]
    document = json.loads(json.dumps(runner.document(7, found)))
    assert document["seed"] == 7 and [row["held"] for row in document["faults"]] == [True, False, True]
    assert document["faults"][0]["notes"] == {"started": 2} and document["faults"][1]["holds"] == FAULTS[1].holds


def test_dry_says_what_would_be_done_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no docker there
    monkeypatch.setattr("os.getuid", lambda: 1000)
    runner.run(World(dry=True), ["devpi", "clock", "engine"], trials="7", out=str(tmp_path / "out" / "found.json"))
    shown = capsys.readouterr().out
    assert "would: 7 times: kill -9 of devpi" in shown and "would: 5 times: the clock" in shown
    assert "would: leave out the engine restarted" in shown and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("flag", "text"), [("trials", "0"), ("trials", "many"), ("seed", "-1")])
def test_a_number_that_is_none_is_refused(flag: str, text: str) -> None:
    with pytest.raises(BadInput, match=f"--{flag} {text}: expected a whole number"):
        runner.run(World(dry=True), **{flag: text})


def test_options_of_the_faults_are_refused_without_them() -> None:
    with pytest.raises(BadInput, match="belong to --chaos"):
        project.chaos(World(dry=True), False, ["devpi"], "", "", "")


def test_a_bit_is_flipped_and_flipped_back(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    flip(file, 1, 0)
    assert file.read_bytes() == b"acc"
    flip(file, 1, 0)
    assert file.read_bytes() == b"abc"


def test_what_is_no_database_has_other_rows_than_one_that_is(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"no database" * 100)
    assert isinstance(rows(tmp_path / "none"), str)


def test_a_long_error_is_cut_in_the_middle() -> None:
    assert ground.brief(AssertionError("a\n b")) == "a b" and "Late" in ground.brief(Late())
    assert len(ground.brief(AssertionError("x" * 10_000))) < 700
