"""Draw how the rows grow, from a benchmark's document on standard input, as two PNGs beside this file."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

HERE = Path(__file__).parent
# Who is who: a colour and a marker each, so that it can be told without colours too.
STYLES = {
    "ours": ("#1a5fb4", "o", "ours"),
    "limit": ("#5e5c64", "s", "limit (nginx, files)"),
    "bare": ("#c01c28", "^", "bare devpi"),
    "pypiserver": ("#2e7d32", "D", "pypiserver"),
    "proxpi": ("#b26a00", "v", "proxpi"),
}
Points = list[dict[str, Any]]


def panel(axes: Any, points: Points, x: str, title: str, label: str, scale: float = 1) -> None:
    """One quantity of all contenders, on logarithmic axes."""
    ticks = sorted({point[x] for point in points})
    for name, (colour, marker, legend) in STYLES.items():
        found = sorted((point[x], point["value"] * scale) for point in points if point["contender"] == name and point["value"])
        if found:
            axes.plot(*zip(*found, strict=True), color=colour, marker=marker, markersize=5, linewidth=1.6, label=legend)
    axes.set(xscale="log", yscale="log", title=title, xlabel=x, ylabel=label)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def finish(figure: Any, name: str) -> None:
    """One legend for all panels, then the file."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        found |= {label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=len(found), frameon=False)
    figure.savefig(HERE / name, dpi=110, metadata={"Software": None})


def main() -> None:
    """Both plots."""
    growth: Points = json.load(sys.stdin)["growth"]

    def of(row: str, **only: int) -> Points:
        return [point for point in growth if point["row"] == row and all(point[key] == value for key, value in only.items())]

    versions = sorted({point["versions"] for point in of("private-page")})
    middle = 100 if 100 in versions else versions[-1]
    figure, axes = plt.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    panel(axes[0, 0], of("private-page", versions=middle), "connections", f"private page, {middle} versions", "requests/s")
    panel(axes[0, 1], of("mirror-page"), "connections", "boto3's page through the mirror", "requests/s")
    panel(axes[1, 0], of("small-wheel"), "connections", "small wheel", "requests/s")
    panel(axes[1, 1], of("large-wheel"), "connections", "numpy's wheel", "MB/s", 1e-6)
    finish(figure, "benchmark-connections.png")

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    panel(axes[0], of("private-page", connections=16), "versions", "private page, 16 connections", "requests/s")
    panel(axes[1], of("uploads"), "versions", "one more upload, at so many versions", "ms")
    finish(figure, "benchmark-versions.png")


if __name__ == "__main__":
    main()
