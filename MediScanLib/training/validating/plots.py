"""Curves of the stress tests as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from ..evaluating.plots import COLUMNS, PANEL_INCHES, STYLE, svg_text
from .degradations import DEGRADATIONS
from .stress import AS_IS, FIELDS
from .stress_figures import AUC, StressPoint

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Of Okabe and Ito."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def stress_curves(points: Sequence[StressPoint], figure: str) -> str:
    """One panel a kind of damage, one line a source, with intervals, from the untouched study on; "" without points.

    Args:
        points: Of one model.
        figure: AUC or DEFERRED.
    """
    kinds = [(FIELDS, "Known fields", "fields known at most")] if any(p.condition == FIELDS for p in points) else []
    kinds += [(damage.name, damage.title, damage.unit) for damage in DEGRADATIONS]
    kinds = [kind for kind in kinds if any(point.condition == kind[0] for point in points)]
    tasks = list(dict.fromkeys((point.task, point.source) for point in points))
    if not kinds or not tasks:
        return ""
    rows = -(-len(kinds) // COLUMNS)
    with rc_context(STYLE):
        canvas = Canvas(figsize=(PANEL_INCHES[0] * COLUMNS, 0.85 * PANEL_INCHES[1] * rows + 0.6), layout="constrained")
        grid = canvas.subplots(rows, COLUMNS, squeeze=False).ravel()
        lowest = min((p.figures[AUC].value for p in points), default=0.5)
        for axes, (condition, title, unit) in zip(grid, kinds, strict=False):
            for number, task in enumerate(tasks):
                own = _line(points, condition, task)
                if len(own) > 1:
                    _draw(axes, own, figure, number, len(tasks), f"{task[1]}: {task[0]}")
            degrees = _degrees(points, condition)
            axes.set_xticks(range(len(degrees)), [f"{degree:g}" for degree in degrees])
            axes.set(title=title, xlabel=unit, ylabel=figure if figure == AUC else "share left to a human")
            axes.set_ylim((min(0.45, lowest - 0.05), 1.02) if figure == AUC else (-0.03, 1.03))
            if figure == AUC:
                axes.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
        for axes in grid[len(kinds) :]:
            axes.remove()
        handles: dict[str, Artist] = {}
        for axes in grid[: len(kinds)]:
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        canvas.legend(list(handles.values()), list(handles), loc="outside lower left", ncols=2)
        return svg_text(canvas)


def _degrees(points: Sequence[StressPoint], condition: str) -> list[float]:
    """Ticks: the untouched study first, or for known fields from all to none."""
    degrees = {point.degree for point in points if point.condition == condition}
    return sorted(degrees, reverse=True) if condition == FIELDS else [0.0, *sorted(degrees)]


def _line(points: Sequence[StressPoint], condition: str, task: tuple[str, str]) -> list[tuple[int, StressPoint]]:
    """Tick and point."""
    degrees = _degrees(points, condition)
    own = [p for p in points if (p.task, p.source) == task]
    found = [(degrees.index(p.degree), p) for p in own if p.condition == condition]
    if condition != FIELDS:
        found += [(0, p) for p in own if p.condition == AS_IS]
    return sorted(found, key=lambda item: item[0])


def _draw(axes: Axes, line: Sequence[tuple[int, StressPoint]], figure: str, number: int, of: int, label: str) -> None:
    """One task: `number` of `of` lines, which stand a little beside each other."""
    x = np.array([tick for tick, _ in line]) + 0.06 * (number - (of - 1) / 2)
    figures = [point.figures[figure] for _, point in line]
    color = _COLORS[number % len(_COLORS)]
    low = [f.low if np.isfinite(f.low) else f.value for f in figures]
    high = [f.high if np.isfinite(f.high) else f.value for f in figures]
    axes.vlines(x, low, high, color=color, alpha=0.3, linewidth=1)
    axes.plot(
        x,
        [f.value for f in figures],
        marker=_MARKERS[number % len(_MARKERS)],
        markersize=3.5,
        linewidth=1.1,
        color=color,
        label=label,
    )
