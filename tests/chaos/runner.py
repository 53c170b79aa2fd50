"""One run: a stack is brought up, the faults are put onto it, what was seen is told, and all is taken away again."""

import json
import random
import signal
from collections.abc import Sequence
from pathlib import Path

from pypi_tasks import engine
from pypi_tasks.errors import BadInput, Failed, Interrupted, NotReady
from pypi_tasks.terminal import table
from pypi_tasks.world import World
from tests.chaos.faults import Fault, choices, select
from tests.chaos.ground import Ground, Run, Seen, brief

Found = list[tuple[Fault, Seen]]


def whole_number(flag: str, text: str, least: int) -> int | None:
    """A number given with a flag; None for none."""
    if not text:
        return None
    if not text.isdecimal() or int(text) < least:
        raise BadInput(f"{flag} {text}: expected a whole number from {least}.")
    return int(text)


def run(world: World, only: Sequence[str] = (), trials: str = "", seed: str = "", out: str = "") -> None:
    """Put faults onto a stack, print the table, write the JSON; Failed where something did not hold."""
    faults, most, chosen = select(only), whole_number("--trials", trials, 1), whole_number("--seed", seed, 0)
    target = Path(out).absolute() if out else None
    ready = engine.require(world, "engine", "compose", "buildx")
    if ready and not engine.endpoint(world).is_here:
        raise NotReady("the engine is elsewhere; faults need one on this machine.", fix="docker context use default")
    start = chosen if chosen is not None else random.SystemRandom().randrange(10**6)
    if world.dry:
        plan(world, faults, most, target)
        return
    world.say(f"seed {start}; --seed {start} chooses the same again")
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    found: Found = []
    try:
        with Ground(world.say) as ground:
            for fault in faults:
                found.append((fault, put(ground, fault, most, start)))
    except KeyboardInterrupt:
        raise Interrupted("interrupted; what the faults were put onto is gone again.", fix="the same command anew") from None
    finally:
        signal.signal(signal.SIGTERM, previous)
        report(found)
        if target:
            world.make_folder(target.parent)
            world.write(target, json.dumps(document(start, found), indent=1) + "\n")
    if wrong := [fault.name for fault, seen in found if not seen.held]:
        raise Failed(f"did not hold: {', '.join(wrong)}; the problems are above.", fix=f"--only {wrong[0]} --seed {start}")


def plan(world: World, faults: Sequence[Fault], most: int | None, target: Path | None) -> None:
    """What a run would do, for --dry."""
    world.announce("bring a stack up in a temporary folder")
    for fault in faults:
        why = fault.skipped()
        world.announce(f"leave out {fault.title}: {why}" if why else f"{count(fault, most)} times: {fault.title}")
    if target:
        world.announce(f"write {target}")
    world.announce("remove the stack, its images and its data")


def count(fault: Fault, most: int | None) -> int:
    """How many trials of a fault are run."""
    return fault.trials if most is None else min(most, fault.trials)


def put(ground: Ground, fault: Fault, most: int | None, seed: int) -> Seen:
    """All trials of one fault. Whatever comes of it, the next one finds the stack up."""
    if why := fault.skipped():
        return Seen(skipped=why)
    run = Run(ground, fault.name, count(fault, most), choices(seed, fault))
    ground.say(f"{fault.name}: {fault.title}")
    for step in (ground.mend, lambda: fault.run(run), ground.mend):
        try:
            step()
        except Exception as error:
            run.seen.problems.append(brief(error))
            ground.say(f"{fault.name}: DID NOT HOLD: {brief(error)}")
    return run.seen


def cells(fault: Fault, seen: Seen) -> list[str]:
    """A row of the table."""
    if seen.skipped:
        return [fault.title, "-", "-", "-", "-", "-", f"not run here: {seen.skipped}", "-"]
    notes = "; ".join(f"{times} x {note}" for note, times in seen.notes.items())
    numbers = [seen.trials, seen.requests, seen.failed, seen.retried, seen.lost]
    return [fault.title, *(f"{number:,}" for number in numbers), notes, "yes" if seen.held else "NO"]


def report(found: Found) -> None:
    """The table, and what did not hold."""
    columns = ["fault", "trials", "requests", "failed", "tried again", "lost", "seen", "held"]
    table("", columns, [cells(fault, seen) for fault, seen in found])
    for fault, seen in found:
        for problem in seen.problems:
            print(f"{fault.name}: {problem}", flush=True)


def document(seed: int, found: Found) -> dict[str, object]:
    """What was seen, for machines."""
    rows = [
        {"fault": fault.name, "title": fault.title, "holds": fault.holds, "held": seen.held, **vars(seen)}
        for fault, seen in found
    ]
    return {"schema": 1, "seed": seed, "faults": rows}
