"""What-if curves for people: a table for a terminal, a CSV file, a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..writing import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..prediction.what_if_curve import WhatIfCurve, WhatIfPoint

PANEL_INCHES = (4.6, 3.4)
PANELS_IN_A_ROW = 3


def curve_text(curve: WhatIfCurve) -> str:
    """A curve as a table of lines; "*" marks what the record says, "~" what is extrapolation."""
    unit = f" ({curve.unit})" if curve.unit else ""
    lines = [f"{curve.title}{unit}, {_about(curve)}"]
    labels = list(curve.unknown.probabilities)
    lines.append(f"  {'value':>10} " + "".join(f" {label:>10}" for label in labels))
    for point in curve.points if curve.learned else [curve.unknown]:
        sign = ("*" if point.current else " ") + ("~" if point.extrapolated else " ")
        lines.append(
            f"{sign}{_value(point):>10} " + "".join(f" {point.probabilities[label]:10.4f}" for label in labels)
        )
    return "\n".join(lines)


def _about(curve: WhatIfCurve) -> str:
    """What the curve rests on, in words."""
    if not curve.learned:
        return "never learned: it changes nothing"
    known = f"known in {curve.known_fraction:.1%} of the training studies"
    if curve.usual is None:
        return known
    low, high = curve.usual
    return f"{known}, mostly {low:.4g} to {high:.4g}; beyond, this is extrapolation"


def write_curves(path: Path, curves: Sequence[WhatIfCurve]) -> None:
    """Write curves to a .csv file, or draw them into a .png file, by the ending of `path`.

    Raises:
        UsageError: See `check_curve_file`.
        WriteError: The file cannot be written.
    """
    check_curve_file(path)
    content = _csv(curves) if path.suffix.lower() == ".csv" else _png(curves)
    with atomic_write(path) as stream:
        stream.write(content)


def check_curve_file(path: Path) -> None:
    """Whether curves can be written to a file of that name; better asked before the work.

    Raises:
        UsageError: It ends in neither .csv nor .png, or what draws pictures is not installed.
    """
    ending = path.suffix.lower()
    if ending not in (".csv", ".png"):
        raise UsageError(f"{path}: curves are written as .csv or drawn as .png. Give a name with such an ending.")
    if ending == ".png" and find_spec("matplotlib") is None:
        raise UsageError(
            f"{path}: pictures of curves are drawn by matplotlib, which is not installed. Install it by `pip install "
            "matplotlib`, or give a name that ends in .csv."
        )


def _csv(curves: Sequence[WhatIfCurve]) -> bytes:
    """One row a point; `value` is empty for unknown."""
    labels = list(curves[0].unknown.probabilities)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["field", "unit", "learned", "value", "current", "extrapolated", *(f"probability_{label}" for label in labels)]
    )
    writer.writerows(
        [
            *(curve.field, curve.unit, curve.learned),
            *("" if point.value is None else point.value, point.current, point.extrapolated),
            *(f"{point.probabilities[label]:.6f}" for label in labels),
        ]
        for curve in curves
        for point in curve.points
    )
    return text.getvalue().encode()


def _png(curves: Sequence[WhatIfCurve]) -> bytes:
    """One panel a curve."""
    from matplotlib.figure import Figure

    columns = min(PANELS_IN_A_ROW, len(curves))
    rows = -(-len(curves) // columns)
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows + 0.5), layout="constrained", dpi=120)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, curve in zip(panels, curves, strict=False):
        _draw_codes(axes, curve) if isinstance(curve.points[-1].value, str) else _draw_numbers(axes, curve)
        axes.set(ylabel="probability", ylim=(-0.02, 1.02))
        axes.grid(alpha=0.3)
    for axes in panels[len(curves) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw_numbers(axes: Axes, curve: WhatIfCurve) -> None:
    """Lines over what was learned and half as much to each side, dotted ones for unknown, gray where extrapolated."""
    points = [(point.value, point) for point in curve.points if isinstance(point.value, float)]
    values = [value for value, _ in points]
    now = curve.current.value if isinstance(curve.current.value, float) else None
    low, high = values[0], values[-1]
    if curve.usual is not None:
        margin = (curve.usual[1] - curve.usual[0]) / 2
        middle = curve.usual[0] if now is None else now
        low = max(low, min(curve.usual[0], middle) - margin)
        high = min(high, max(curve.usual[1], middle) + margin)
    for number, (label, unknown) in enumerate(curve.unknown.probabilities.items()):
        axes.plot(values, [point.probabilities[label] for _, point in points], color=f"C{number}", label=label)
        axes.axhline(unknown, color=f"C{number}", linestyle=":", linewidth=0.9)
    gray = [(low, high)] if curve.usual is None else [(low, curve.usual[0]), (curve.usual[1], high)]
    for start, end in gray:
        if start < end:
            axes.axvspan(start, end, color="0.9", zorder=0)
    if now is not None:
        axes.axvline(now, color="0.3", linewidth=0.9, linestyle="--")
    note = "gray: extrapolation" if curve.learned else "never learned"
    axes.set(xlim=(low, high), xlabel=curve.unit)
    axes.set_title(f"{curve.title}\ndashed: as it is, dotted: unknown, {note}", fontsize=9)


def _draw_codes(axes: Axes, curve: WhatIfCurve) -> None:
    """A place for each code and for unknown."""
    places = range(len(curve.points))
    for number, label in enumerate(curve.unknown.probabilities):
        heights = [point.probabilities[label] for point in curve.points]
        axes.plot(places, heights, color=f"C{number}", marker="o", linestyle=":", linewidth=0.9, label=label)
    names = [_value(point) + ("*" if point.current else "") for point in curve.points]
    axes.set_xticks(places, names)
    axes.set_xlim(-0.5, len(curve.points) - 0.5)
    axes.set_title(f"{curve.title}\n*: as it is" + ("" if curve.learned else ", never learned"), fontsize=9)


def _value(point: WhatIfPoint) -> str:
    if point.value is None:
        return "unknown"
    return point.value if isinstance(point.value, str) else f"{point.value:.6g}"
