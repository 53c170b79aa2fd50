"""One run: everything is brought up, measured, told and taken away again."""

import json
import shutil
import signal
import uuid
from collections.abc import Sequence
from pathlib import Path

from bench import growth, stack
from bench.contenders import ALL, BARE, FOLDER, LIMIT, OURS, PROXPI, PYPISERVER
from bench.document import document
from bench.inputs import SMALL, Inputs, download
from bench.lab import Lab
from bench.measure import FULL, QUICK, Bench, Method
from bench.result import Outcome, table_rows
from bench.rows import Row, select
from pypi_tasks import engine
from pypi_tasks.errors import Failed, Interrupted, NotReady
from pypi_tasks.settings import ROOT, Settings
from pypi_tasks.terminal import table
from pypi_tasks.world import World

CACHE = ROOT / ".bench"
PLOTS = ("benchmark-connections.png", "benchmark-versions.png")
PREPARED = ("--keyfs-cache-size", "100000")


def run(world: World, settings: Settings, quick: bool = False, only: Sequence[str] = (), out: str = "") -> None:
    """Measure the rows, print the table, write the document and, where growth was measured, the plots."""
    rows, grows = select(only)
    ready = engine.require(world, "engine", "compose", "buildx")
    if ready and not engine.endpoint(world).is_here:
        raise NotReady("the engine is elsewhere; the benchmark needs one on this machine.", fix="docker context use default")
    method = QUICK if quick else FULL
    target = Path(out).absolute() if out else CACHE / "benchmark.json"
    if world.dry:
        plan(world, rows, plots_in(method, target) if grows else None, target)
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        measure(world, settings, method, rows, grows, target)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(
            "interrupted; what the benchmark had started is gone again.", fix="the same command begins anew"
        ) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def plan(world: World, rows: Sequence[Row], plots: Path | None, target: Path) -> None:
    """What a run would do, for --dry."""
    world.announce(f"build the images of {', '.join(sorted(file.parent.name for file in FOLDER.glob('*/Dockerfile')))}")
    world.announce(f"fetch the real wheels into {CACHE / 'wheels'}, where they are not there yet")
    for one in ALL:
        world.announce(f"start {one.title}, in containers of this run alone")
    for row in rows:
        world.announce(f"measure {row.title}: {', '.join(one.title for one in row.contenders)}")
    if plots:
        world.announce(f"measure growth, draw {' and '.join(str(plots / name) for name in PLOTS)}")
    world.announce(f"write {target}")
    world.announce("remove the containers, volumes and data of the run")


def measure(world: World, settings: Settings, method: Method, rows: Sequence[Row], grows: bool, target: Path) -> None:
    """The run itself; what it started is removed whatever happens."""
    id = uuid.uuid4().hex[:8]
    lab = Lab(world, settings, id, CACHE / f"run-{id}", CACHE / "wheels")
    world.make_folder(lab.cache)
    world.make_folder(lab.folder)
    before = stack.latest(world)
    try:
        bench, nginx = prepare(lab, method, grows)
        outcomes = [measure_row(bench, row) for row in rows if row.name != "memory"]
        points = growth.measure(bench) if grows else []
        outcomes += [measure_row(bench, row) for row in rows if row.name == "memory"]
        found = document(world, method, bench.inputs.files, nginx, outcomes, points)
        text = json.dumps(found, indent=1) + "\n"
        world.make_folder(target.parent)
        world.write(target, text)
        if points:
            draw(bench, text, plots_in(method, target))
        report(world, outcomes)
    finally:
        world.say("taking everything down:")
        lab.sweep()
        stack.stop(lab, before)
        world.act(f"rm -r {lab.folder}", lambda: shutil.rmtree(lab.folder, ignore_errors=True))


def prepare(lab: Lab, method: Method, grows: bool) -> tuple[Bench, str]:
    """Images, wheels, all contenders up and filled; returns also which nginx is the limit."""
    world = lab.world
    client = lab.build("client")
    images = {one.name: lab.build(one.name) for one in (PYPISERVER, PROXPI, LIMIT)}
    inputs = Inputs(lab, download(lab, client))
    bench = Bench(lab, inputs, method)
    world.feed(["docker", "volume", "create", *lab.labels(), lab.name("site")], "")
    stack.start(lab)
    note_idle(bench, OURS.name)
    require_mirror(lab)
    many = grows and max(method.versions) > 100
    bare = stack.start_bare(lab, *(PREPARED if many else ()))
    inputs.fill_wheels(bare)
    if many:
        for versions in method.versions:
            inputs.fill(bare, versions)
        stack.restart_bare(lab, bare)
    for one in (PYPISERVER, PROXPI, LIMIT):
        site = ["--volume", f"{lab.name('site')}:/site:ro"] if one is LIMIT else []
        lab.adopt(one, lab.run(one.name, images[one.name], *lab.trust(), *site))
    nginx = world.ask(["docker", "exec", lab.name(LIMIT.name), "nginx", "-v"]).stderr.strip().rpartition("/")[2]
    for one in (BARE, PYPISERVER, PROXPI, LIMIT):
        note_idle(bench, one.name)
    for one in (OURS, PYPISERVER):
        world.announce(f"upload {len(inputs.files)} wheels to {one.title}")
        inputs.fill_wheels(lab.running[one.name])
    lab.settle(lab.running[OURS.name])
    return bench, nginx


def require_mirror(lab: Lab) -> None:
    """Find out that PyPI cannot be reached now, and not after ten minutes."""
    try:
        lab.script(lab.running[OURS.name], "look", {"path": f"{OURS.mirror}{SMALL}/", "page": True, "wait": 30})
    except Failed as error:
        raise NotReady(
            f"PyPI cannot be reached through our stack: {error.what}", fix="behind a TLS proxy set CA_BUNDLE; inv doctor"
        ) from None


def note_idle(bench: Bench, name: str) -> None:
    """Keep what a contender takes before anything is asked of it."""
    running = bench.lab.running[name]
    bench.lab.focus(running)
    bench.lab.settle(running)
    bench.idle[name] = bench.lab.stats(running)[1]


def measure_row(bench: Bench, row: Row) -> Outcome:
    """One row."""
    bench.lab.world.announce(f"measure {row.title}")
    cells = row.measure(bench, row.contenders)
    return Outcome(row.name, row.title, row.unit, row.less_is_better, row.goals, cells)


def plots_in(method: Method, target: Path) -> Path:
    """The folder of the plots: docs/ for those of a full run, which are committed, else beside the document."""
    return ROOT / "docs" if method is FULL else target.parent


def draw(bench: Bench, text: str, folder: Path) -> None:
    """Have the client draw the plots of a document into a folder."""
    lab = bench.lab
    client = lab.running[OURS.name].client
    lab.focus(lab.running[OURS.name])
    lab.world.feed(["docker", "exec", "--interactive", client, "python", "/opt/bench/plot.py"], text)
    for name in PLOTS:
        lab.world.feed(["docker", "cp", "--quiet", f"{client}:/opt/bench/{name}", str(folder / name)], "")


def report(world: World, outcomes: Sequence[Outcome]) -> None:
    """The table, and what failed."""
    columns = ["row", *(one.title for one in ALL), "x bare", "of limit", "goal: found", "reached"]
    if outcomes:
        table("", columns, table_rows(outcomes, [one.name for one in ALL]))
    for outcome in outcomes:
        for name, cell in outcome.cells.items():
            if cell.problem:
                world.say(f"{outcome.name}, {name}: {cell.problem}")
