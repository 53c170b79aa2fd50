"""What people see: tables, waiting, the layers of a push. Bars and spinners on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """A spinner with the elapsed time on a terminal; nothing elsewhere, where the announcement is enough."""
    if not sys.stdout.isatty():
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as bar:
        bar.add_task(f"waiting for {what}")
        yield


@contextlib.contextmanager
def bars() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show how far a job is, told as pypi_server/jobs.py tells it: bars on a terminal, elsewhere a line after two seconds, and
    then every ten."""
    if not sys.stdout.isatty():
        due = time.monotonic() + 2

        def say(event: Mapping[str, Any]) -> None:
            nonlocal due
            if (now := time.monotonic()) > due:
                due = now + 10
                print(f"  {event['what']}: {so_far(event)}", flush=True)

        yield say
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:20}"), BarColumn(), TextColumn("{task.fields[so_far]}"), TimeRemainingColumn())
    with Progress(*columns, transient=True) as drawn:
        rows: dict[str, TaskID] = {}

        def show(event: Mapping[str, Any]) -> None:
            if (what := event["what"]) not in rows:
                rows[what] = drawn.add_task(what, so_far="")
            drawn.update(rows[what], completed=event["done"], total=event["total"], so_far=so_far(event))

        yield show


def so_far(event: Mapping[str, Any]) -> str:
    """How much is done, of how much."""
    show = human if event.get("bytes") else "{:,}".format
    return f"{show(event['done'])} of {show(event['total'])}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: ruled on a terminal, plain text elsewhere."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE if console.is_terminal else None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    console.print(made)


def alarm(text: str) -> None:
    """Print a line, red on a terminal."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(text, style="bold red", markup=False)
    else:
        print(text, flush=True)


@contextlib.contextmanager
def layers() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show the events of a push: a bar per layer on a terminal, a line for each finished layer elsewhere."""
    if not sys.stdout.isatty():
        yield plain_layer
        return
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

    with Progress(TextColumn("{task.description:40}"), BarColumn(), TaskProgressColumn()) as bars:
        rows: dict[str, TaskID] = {}

        def show(event: Mapping[str, Any]) -> None:
            if not (layer := event.get("id")):
                return
            if layer not in rows:
                rows[layer] = bars.add_task(layer, total=None)
            row = rows[layer]
            detail = {"current": 1, "total": 1} if has_arrived(event) else event.get("progressDetail") or {}
            text = f"{layer} {event.get('status', '')}"
            bars.update(row, description=text, completed=detail.get("current"), total=detail.get("total"))

        yield show


def has_arrived(event: Mapping[str, Any]) -> bool:
    """Whether an event says that a layer is in the registry now."""
    return str(event.get("status", "")).startswith(("Pushed", "Layer already exists", "Mounted"))


def plain_layer(event: Mapping[str, Any]) -> None:
    """A line for a layer that has arrived or was there."""
    if has_arrived(event):
        print(f"  {event['id']} {event['status']}", flush=True)


def human(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if round(count) < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
