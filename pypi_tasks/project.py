"""The project's own upkeep: tests and lock files."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pypi_tasks.errors import BadInput, NotReady
from pypi_tasks.settings import ROOT
from pypi_tasks.world import World

CONTENDERS = ("client", "proxpi", "pypiserver")
LOCKS = {
    "pypi_server/requirements.in": "pypi_server/requirements.txt",
    "requirements.in": "requirements.txt",
    "requirements-dev.in": "requirements-dev.txt",
    **{f"bench/contenders/{name}/requirements.in": f"bench/contenders/{name}/requirements.txt" for name in CONTENDERS},
}


def install_tools(world: World, root: Path = ROOT) -> None:
    """Install what the tests need beside the tasks' own dependencies, when the lock file changed."""
    lock = root / "requirements-dev.txt"
    stamp = Path(sys.prefix) / lock.name
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return
    if uv := shutil.which("uv"):
        installer = [uv, "pip", "install", "--python", sys.executable]
    else:
        installer = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    world.run([*installer, *quiet, "--require-hashes", "--requirement", str(lock)])
    world.write(stamp, lock.read_text(encoding="utf-8"))


def test(world: World, options: str = "") -> None:
    """Style, types, then the tests; what needs an engine is skipped where there is none, and fails in CI."""
    install_tools(world)
    python = sys.executable
    world.run([python, "-m", "ruff", "check", "."])
    world.run([python, "-m", "ruff", "format", "--check", "."])
    world.run([python, "-m", "mypy"])
    world.run([python, "-m", "pytest", *options.split()], env=dict(os.environ))


def chaos(world: World, wanted: bool, only: Sequence[str], trials: str, seed: str, out: str) -> None:
    """Put faults onto a real stack; its options mean nothing without ``--chaos``."""
    if not wanted:
        raise BadInput("--only, --trials, --seed and --out belong to --chaos.", fix="inv test --chaos ...")
    from tests.chaos import faults, runner  # their clients are installed below, and needed later

    faults.select(only)
    install_tools(world)
    runner.run(world, only, trials, seed, out)


def lock(world: World, upgrade: bool = False) -> None:
    """Make the lock files from their .in files: every hash, no address, for every platform and Python from 3.11."""
    install_tools(world)
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    if not Path(uv).exists() and not world.dry:
        raise NotReady("the command uv is not there.", fix="pip install uv")
    for source, target in LOCKS.items():
        command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--output-file", target, source]
        world.run([*command, *(["--upgrade"] if upgrade else [])])
