"""Pictures of what the benchmarks found, for ``docs/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import orjson

from tests.bench.rows import Samples
from tests.bench.stream.latency import AT, LATENCIES, TARGETS

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = {"raydp": "#2563eb", "local[2]": "#d97706"}
NAMES = {"raydp": "RayDP", "local[2]": "local[2]"}
INK, FAINT = "#1f2937", "#9ca3af"
STYLES = {"p50": ("-", "o"), "p95": ("--", "s")}
Found = Sequence[dict[str, Any]]


def draw(build: Path, docs: Path) -> list[Path]:
    """Draw what the benchmarks have kept; the files drawn."""
    drawn = []
    source = build / LATENCIES
    if source.exists():
        target = docs / "latency_over_rate.png"
        latency_over_rate(orjson.loads(source.read_bytes()), target)
        drawn.append(target)
    return drawn


def latency_over_rate(found: Found, target: Path) -> None:
    """Median and 95th percentile of event to feature row over the rate, with their targets."""
    figure, axes = plt.subplots(figsize=(9, 5), dpi=144)
    masters = list(dict.fromkeys(one["master"] for one in found))
    for master in masters:
        mine = sorted((one for one in found if one["master"] == master), key=lambda o: o["rate"])
        for name, quantile, _ in TARGETS:
            line, marker = STYLES[name]
            axes.plot(
                [one["rate"] for one in mine],
                np.array([Samples(one["took_ms"]).at(quantile) for one in mine]) / 1000,
                line, marker=marker, markersize=5.5, linewidth=2, color=COLOURS[master],
                label=f"{NAMES[master]}, {name}",
            )  # fmt: skip
    _targets(axes)
    rates = sorted({one["rate"] for one in found})
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{rate:,}" for rate in rates])
    axes.minorticks_off()
    axes.set_xlim(rates[0] * 0.85, rates[-1] * 1.18)
    highest = max(line.get_ydata().max() for line in axes.get_lines())
    axes.set_ylim(0, highest * 1.3)  # room for the legend
    axes.set_xlabel("messages per second", color=INK)
    axes.set_ylabel("seconds", color=INK)
    axes.annotate(
        "Closed bar to its feature row", (0, 1), xycoords="axes fraction",
        textcoords="offset points", xytext=(0, 32), fontsize=14, fontweight="bold", color=INK,
    )  # fmt: skip
    axes.set_title(
        "from sending the bar until its features are in the lake and on the stream; 20 symbols at "
        "10\u00d7, two cores", loc="left", fontsize=9.5, color="#6b7280", pad=14,
    )  # fmt: skip
    _plain(axes)
    axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=len(masters), labelcolor=INK,
                handlelength=3)  # fmt: skip
    figure.tight_layout()
    figure.savefig(target)
    plt.close(figure)


def _targets(axes: Axes) -> None:
    """The targets as marks at their rate."""
    for name, _, target_ms in TARGETS:
        axes.plot(
            [AT], np.array([target_ms / 1000]), marker="v", markersize=8, color=FAINT, linestyle=""
        )
        axes.annotate(
            f"target {name} ≤ {target_ms / 1000:g} s", (AT, target_ms / 1000),
            textcoords="offset points", xytext=(0, 10), ha="center", fontsize=8.5, color="#6b7280",
        )  # fmt: skip


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
