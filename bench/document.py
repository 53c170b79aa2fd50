"""The document that a run leaves: one JSON object. docs/benchmark.md describes each field."""

import dataclasses
import datetime
import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.contenders import FOLDER
from bench.growth import Point
from bench.inputs import digest
from bench.measure import Method
from bench.result import Outcome
from pypi_tasks.settings import ROOT
from pypi_tasks.world import World

SCHEMA = 1
LOCKED = {
    "devpi-server": ROOT / "pypi_server" / "requirements.txt",
    "pypiserver": FOLDER / "pypiserver" / "requirements.txt",
    "proxpi": FOLDER / "proxpi" / "requirements.txt",
    "uv": FOLDER / "client" / "requirements.txt",
    "pip": FOLDER / "client" / "requirements.txt",
}


def locked(package: str, text: str) -> str:
    """The version that a lock file has of a package."""
    found = re.search(rf"(?m)^{re.escape(package)}==([^\s\\;]+)", text)
    return found[1] if found else ""


def machine(world: World) -> dict[str, Any]:
    """What was measured on; nothing that tells whose it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    engine = world.ask(["docker", "version", "--format", "{{.Server.Version}}"], check=False).stdout.strip()
    return {
        "cores": os.cpu_count() or 0, "memory_mb": memory // 10**6, "architecture": platform.machine(),
        "kernel": platform.release(), "engine": engine,
    }  # fmt: skip


def versions(nginx: str) -> dict[str, str]:
    """What was compared, in which version."""
    found = {name: locked(name, file.read_text(encoding="utf-8")) for name, file in LOCKED.items()}
    return found | {"nginx": nginx}


def row(outcome: Outcome) -> dict[str, Any]:
    """One row of the table."""
    return {
        "name": outcome.name, "title": outcome.title, "unit": outcome.unit,
        "cells": {name: dataclasses.asdict(cell) for name, cell in outcome.cells.items()},
        "figures": {name: dataclasses.asdict(figure) for name, figure in outcome.figures().items()},
        "goals": [
            {"figure": goal.figure, "sign": goal.sign, "number": goal.number, "reached": reached}
            for goal, _, reached in outcome.verdicts()
        ],
    }  # fmt: skip


def document(
    world: World, method: Method, files: Sequence[Path], nginx: str, outcomes: Iterable[Outcome], points: Iterable[Point]
) -> dict[str, Any]:
    """The whole document."""
    return {
        "schema": SCHEMA,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(world),
        "versions": versions(nginx),
        "method": dataclasses.asdict(method),
        "input": {"wheels": len(files), "bytes": sum(file.stat().st_size for file in files), "sha256": digest(files)},
        "rows": [row(outcome) for outcome in outcomes],
        "growth": [dataclasses.asdict(point) for point in points],
    }
