"""The scores of a volume's slices as a curve a finding, in the units of an SVG of 720 by 250."""

from __future__ import annotations

from dataclasses import dataclass

from ..prediction.result import Prediction

LEFT, RIGHT, TOP, BOTTOM = 40.0, 580.0, 14.0, 214.0
LABEL_HEIGHT = 17.0
MAIN_COLOR = "#1a5fb4"
OTHER_COLORS = ("#8a4b08", "#3f4a54", "#7b3f8c", "#2e6b34")
DASHES = ("6 4", "2 3", "10 3 2 3", "12 4")
MOST_POINTS = 2000


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where, which text, and how the text is anchored there."""

    text: str
    x: float = 0.0
    y: float = 0.0
    anchor: str = "middle"


@dataclass(frozen=True)
class Line:
    """The curve of one finding and its label beside it."""

    label: str
    points: str
    color: str
    width: float
    dashes: str
    label_y: float


@dataclass(frozen=True)
class SliceCurve:
    """Everything that is drawn, and the same in a sentence."""

    lines: list[Line]
    ticks_x: list[Tick]
    ticks_y: list[Tick]
    says: str


def slice_curve(prediction: Prediction) -> SliceCurve | None:
    """The curves of a prediction, the likeliest finding first; None where fewer than two slices have scores."""
    slices = sorted(prediction.slices, key=lambda score: score.index)
    if len(slices) < 2:
        return None
    first, last = slices[0].index, slices[-1].index
    step = -(-len(slices) // MOST_POINTS)
    labels = [finding.label for finding in sorted(prediction.findings, key=lambda finding: -finding.probability)]
    labels = [label for label in labels if all(label in score.probabilities for score in slices)]
    lines = []
    heights = _spread([_y(slices[-1].probabilities[label]) for label in labels])
    for number, label in enumerate(labels):
        points = " ".join(
            f"{_x(score.index, first, last):.1f},{_y(score.probabilities[label]):.1f}" for score in slices[::step]
        )
        main = number == 0
        other = (number - 1) % len(OTHER_COLORS)
        lines.append(
            Line(
                label=label,
                points=points,
                color=MAIN_COLOR if main else OTHER_COLORS[other],
                width=3.0 if main else 1.3,
                dashes="none" if main else DASHES[other],
                label_y=round(heights[number] + 4, 1),
            )
        )
    says = f"Probability of each finding in slices {first} to {last}, counted from 0."
    if labels:
        peak = max(slices, key=lambda score: score.probabilities[labels[0]])
        says += f" {labels[0]} is highest in slice {peak.index}, {peak.probabilities[labels[0]]:.2f}."
    return SliceCurve(
        lines=lines,
        ticks_x=[
            Tick(str(first), x=LEFT, anchor="start"),
            Tick("slice", x=(LEFT + RIGHT) / 2),
            Tick(str(last), x=RIGHT, anchor="end"),
        ],
        ticks_y=[Tick(f"{value:g}", y=round(_y(value), 1)) for value in (0, 0.5, 1)],
        says=says,
    )


def _x(index: int, first: int, last: int) -> float:
    return LEFT + (RIGHT - LEFT) * (index - first) / max(1, last - first)


def _y(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * value


def _spread(heights: list[float]) -> list[float]:
    """Heights of labels, moved apart as little as needed, in the order in which they were given."""
    order = sorted(range(len(heights)), key=lambda number: heights[number])
    placed = list(heights)
    lowest = TOP
    for number in order:
        placed[number] = lowest = max(lowest, placed[number])
        lowest += LABEL_HEIGHT
    highest = BOTTOM
    for number in reversed(order):
        placed[number] = min(placed[number], highest)
        highest = placed[number] - LABEL_HEIGHT
    return placed
